"""Reaching stable storage, and what a failed sync leaves."""

from __future__ import annotations

import errno
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from logstore import Appended, LogConfig, LogView, PartitionLog, PoisonedError, Record
from logstore.appending import Guard
from logstore.group_commit import GroupCommit

from .support import SpyFiles, kill, records, values


def test_a_failed_sync_poisons_the_log_even_if_its_tail_cannot_be_settled(tmp_path: Path) -> None:
    files = SpyFiles()
    directory = tmp_path / "orders-0"
    log = PartitionLog(directory, files=files)
    log.append([Record(value=b"kept")], acks="all")
    log.append([Record(value=b"at risk")], acks=1)

    def fail(operation: str, path: str) -> None:
        if operation == "sync" and path.endswith(".log"):
            # What takes the lock next finds a tail that it can neither keep nor cut.
            files.before = refuse
            with Path(path).open("ab") as file:
                file.write(b"torn")
            raise OSError(errno.EIO, os.strerror(errno.EIO), path)

    def refuse(operation: str, path: str) -> None:
        if operation == "truncate":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)

    files.before = fail
    with pytest.raises(OSError, match="log") as caught:
        log.flush()
    assert caught.value.errno == errno.EIO
    files.before = lambda operation, path: None
    with pytest.raises(PoisonedError):
        log.append([Record(value=b"more")], acks=1)
    with pytest.raises(PoisonedError):
        log.close()
    with PartitionLog(directory) as again:
        assert [record.value for record in again.read(0).records()] == [b"kept", b"at risk"]


@pytest.mark.parametrize("deleted", [True, False])
def test_a_segment_that_another_process_rolls_before_it_is_synced_is_no_error(
    tmp_path: Path, deleted: bool
) -> None:
    files = SpyFiles()
    directory = tmp_path / "orders-0"
    log = PartitionLog(directory, files=files)
    other = PartitionLog(directory, files=SpyFiles(), config=LogConfig(segment_ms=1))
    log.append([Record(timestamp=1000, value=b"first")], acks=1)

    def roll(operation: str, path: str) -> None:
        if operation == "open" and path.endswith(f"{0:020d}.log"):
            files.before = lambda operation, path: None
            other.append([Record(timestamp=9000, value=b"second")], acks=1)
            if deleted:
                other.delete_records(1)

    files.before = roll
    log.flush()
    assert log.segments == ((1,) if deleted else (0, 1))
    assert log.synced_offset >= 1
    log.close()
    other.close()


def test_an_active_segment_that_is_gone_is_told(tmp_path: Path) -> None:
    directory = tmp_path / "orders-0"
    log = PartitionLog(directory, files=SpyFiles())
    log.append([Record(value=b"lost")], acks=1)
    (directory / f"{0:020d}.log").unlink()
    with pytest.raises(FileNotFoundError):
        log.flush()
    kill(log)


# Writing for others ---------------------------------------------------------------------------


class _Held(SpyFiles):
    """Files whose next sync of a log waits until it is let go, and then does as it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.syncing = threading.Event()
        self.go_on = threading.Event()
        self.error: OSError | None = None
        self.syncs = 0

    def hold(self, operation: str, path: str) -> None:
        if operation == "sync" and path.endswith(".log"):
            self.syncs += 1
            if self.syncs == 1:
                self.syncing.set()
                assert self.go_on.wait(30)
                if self.error is not None:
                    raise self.error


@contextmanager
def _waiting(
    log: PartitionLog, files: _Held, *others: Guard | None
) -> Iterator[list[Future[Appended]]]:
    """A thread that syncs, and others that append meanwhile and wait for it; the block runs while
    they do. ``others``: their guards."""

    def append(value: str, guard: Guard | None) -> Appended:
        return log.append(records(value), guard=guard)

    files.before = files.hold
    with ThreadPoolExecutor(8) as pool:
        try:
            futures = [pool.submit(append, "leader", None)]
            assert files.syncing.wait(30)
            for number, guard in enumerate(others):
                futures.append(pool.submit(append, str(number), guard))
                while len(log._group_commit._queue) <= number:
                    assert not futures[-1].done()
            yield futures
        finally:
            files.go_on.set()


def test_whoever_waits_for_a_sync_is_written_and_synced_together(tmp_path: Path) -> None:
    files = _Held()
    with PartitionLog(tmp_path, files=files) as log:
        with _waiting(log, files, None, None, None) as futures:
            assert values(log) == [b"leader"]
        offsets = [future.result().base_offset for future in futures]
        assert offsets == [0, 1, 2, 3]
        assert values(log) == [b"leader", b"0", b"1", b"2"]
        assert files.syncs == 2
        assert log.synced_offset == 4


def test_an_append_that_is_refused_fails_alone_among_those_written_together(
    tmp_path: Path,
) -> None:
    files = _Held()

    def refuse(view: LogView) -> None:
        raise KeyError(view.log_end_offset)

    with PartitionLog(tmp_path, files=files) as log:
        with _waiting(log, files, refuse, None, refuse, None) as futures:
            pass
        errors = [future.exception() for future in futures]
        assert [type(error) for error in errors] == [
            type(None),
            KeyError,
            type(None),
            KeyError,
            type(None),
        ]
        assert errors[1] is not None
        assert errors[1].args == (1,)
        assert values(log) == [b"leader", b"1", b"3"]
        assert log.synced_offset == 3


def test_a_failed_sync_fails_all_that_were_written_for_it_and_all_that_wait(
    tmp_path: Path,
) -> None:
    files = _Held()
    files.error = OSError(errno.EIO, os.strerror(errno.EIO))
    log = PartitionLog(tmp_path, files=files)
    with _waiting(log, files, None, None) as futures:
        pass
    errors = [future.exception() for future in futures]
    assert [type(error) for error in errors] == [OSError, PoisonedError, PoisonedError]
    with pytest.raises(PoisonedError):
        log.close()
    with PartitionLog(tmp_path) as again:
        assert values(again) == [b"leader"]


def test_a_failed_sync_of_a_group_fails_each_of_its_members(tmp_path: Path) -> None:
    files = _Held()
    log = PartitionLog(tmp_path, files=files)
    with _waiting(log, files, None, None, None) as futures:
        hold = files.before

        def fail(operation: str, path: str) -> None:
            hold(operation, path)
            if operation == "sync" and path.endswith(".log") and files.syncs > 1:
                raise OSError(errno.EIO, os.strerror(errno.EIO), path)

        files.before = fail
    errors = [future.exception() for future in futures]
    assert errors[0] is None
    assert [type(error) for error in errors[1:]] == [OSError, PoisonedError, PoisonedError]
    files.before = hold
    with pytest.raises(PoisonedError):
        log.close()


def test_ctrl_c_while_waiting_for_another_threads_sync_leaves_the_others_alone(
    tmp_path: Path,
) -> None:
    files = _Held()
    with PartitionLog(tmp_path, files=files) as log:
        with _waiting(log, files, None) as futures:
            commit = log._group_commit
            with _ctrl_c_when_it_waits(commit, 2), pytest.raises(KeyboardInterrupt):
                log.append(records("given up"))
            assert len(commit._queue) == 1
        assert [future.result().base_offset for future in futures] == [0, 1]
        log.append(records("later"))
        assert values(log) == [b"leader", b"0", b"later"]


@contextmanager
def _ctrl_c_when_it_waits(commit: GroupCommit, count: int) -> Iterator[None]:
    """Ctrl-C, once, when so many wait. The signal is sent until it is noticed: one that comes just
    before the main thread falls asleep does not wake it."""
    noticed = threading.Event()

    def interrupt(number: int, frame: object) -> None:
        if not noticed.is_set():
            noticed.set()
            raise KeyboardInterrupt

    def send() -> None:
        while len(commit._queue) < count:
            time.sleep(0.0005)
        while not noticed.wait(0.01):
            signal.pthread_kill(main, signal.SIGINT)

    main = threading.get_ident()
    before = signal.signal(signal.SIGINT, interrupt)
    sender = threading.Thread(target=send)
    sender.start()
    try:
        yield
        sender.join(30)
    finally:
        signal.signal(signal.SIGINT, before)


def test_the_main_thread_writes_for_nobody_else(tmp_path: Path) -> None:
    # Ctrl-C arrives there, and must not leave another thread's append in doubt.
    files = _Held()
    with PartitionLog(tmp_path, files=files) as log:
        seen: list[tuple[str, bool]] = []

        def note(view: LogView) -> None:
            here = threading.current_thread() is threading.main_thread()
            seen.append((str(view.log_end_offset), here))

        with _waiting(log, files) as futures, ThreadPoolExecutor(1) as pool:
            release = pool.submit(_let_go_when_two_wait, log, files, note)
            log.append(records("main"), guard=note)
            release.result().result()
        assert [future.result().base_offset for future in futures] == [0]
        assert dict(seen)["1"] is True
        assert dict(seen)["2"] is False


def _let_go_when_two_wait(log: PartitionLog, files: _Held, guard: Guard) -> Future[Appended]:
    """Append behind the main thread, from a thread of its own, and let the sync go."""
    commit = log._group_commit
    while len(commit._queue) < 1:
        time.sleep(0.0005)
    pool = ThreadPoolExecutor(1)
    try:
        future = pool.submit(log.append, records("other"), guard=guard)
        while len(commit._queue) < 2:
            time.sleep(0.0005)
    finally:
        files.go_on.set()
        pool.shutdown(wait=False)
    return future
