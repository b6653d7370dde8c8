"""When delivering does not go well: what is tried again, what is given up, and who is told."""

from __future__ import annotations

import dis
import errno
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from logstore import (
    Appended,
    DeliveryTimeoutError,
    LockTimeoutError,
    PartitionLog,
    PoisonedError,
    RecordMetadata,
    Store,
    UnknownTopicError,
)

from ..log.support import (  # noqa: TID252 - tests are no package to import absolutely
    SpyFiles,
    fail,
    io_error,
    run_script,
)
from .support import HOUR_MS, batches, open_store, stuck, values

LONG = {"linger_ms": HOUR_MS, "delivery_timeout_ms": HOUR_MS}
LOG = f"events-0/{0:020}.log"


@pytest.fixture
def files() -> SpyFiles:
    return SpyFiles()


@pytest.fixture
def store(tmp_path: Path, files: SpyFiles) -> Iterator[Store]:
    with open_store(tmp_path / "store", files) as opened:
        opened.create_topic("events")
        yield opened
        files.before = lambda operation, path: None


def full() -> OSError:
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class Failing:
    """Lets writes to the topic's log fail, for a while."""

    def __init__(self, files: SpyFiles, times: int, error: OSError, operation: str = "write"):
        self.left = times
        self.error = error
        self.operation = operation
        self.threads: set[str] = set()
        files.before = self

    def __call__(self, operation: str, path: str) -> None:
        if operation == self.operation and path.endswith(LOG) and self.left:
            self.left -= 1
            self.threads.add(threading.current_thread().name)
            raise self.error


# trying again ---------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EAGAIN])
def test_what_may_pass_is_tried_again_and_the_order_is_kept(
    store: Store, files: SpyFiles, number: int
) -> None:
    failing = Failing(files, 3, OSError(number, os.strerror(number)))
    with store.producer(batch_size=500, linger_ms=1, retry_backoff_ms=1) as producer:
        futures = [producer.send("events", b"%d" % number) for number in range(100)]
        producer.flush()
    assert failing.left == 0
    assert [future.result(0).offset for future in futures] == list(range(100))
    assert values(store) == [str(number) for number in range(100)]


def test_the_first_attempt_is_the_callers_and_the_others_are_the_producers_own(
    store: Store, files: SpyFiles
) -> None:
    failing = Failing(files, 2, full())
    with store.producer(linger_ms=0, retry_backoff_ms=1, producer_name="p") as producer:
        producer.send("events", b"a").result(10)
    assert failing.threads == {threading.current_thread().name, "logstore producer p"}


def test_a_batch_that_was_written_although_that_failed_is_there_once(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    append = PartitionLog.append
    failures = iter([True, False, True, True])

    def fail_afterwards(log: PartitionLog, *arguments: Any, **options: Any) -> Appended:
        appended = append(log, *arguments, **options)
        if options.get("producer") and next(failures, False):
            raise OSError(errno.EAGAIN, "written all the same")
        return appended

    monkeypatch.setattr(PartitionLog, "append", fail_afterwards)
    with store.producer(batch_size=300, linger_ms=1, retry_backoff_ms=1) as producer:
        futures = [producer.send("events", b"%d" % number) for number in range(60)]
        producer.flush()
    assert next(failures, None) is None
    assert values(store) == [str(number) for number in range(60)]
    assert [future.result(0).offset for future in futures] == list(range(60))


def test_retries_end_after_their_number(store: Store, files: SpyFiles) -> None:
    told: list[tuple[RecordMetadata | None, Exception | None]] = []
    with store.producer(retries=2, retry_backoff_ms=1, **LONG) as producer:
        failing = Failing(files, 100, full())
        future = producer.send("events", b"a", on_delivery=lambda *what: told.append(what))
        producer.flush()
        assert 100 - failing.left == 3
        error = future.exception(0)
        assert isinstance(error, OSError)
        assert error.errno == errno.ENOSPC
        assert error.filename.endswith(LOG)
        with pytest.raises(OSError, match="No space left"):
            future.result(0)
        assert told == [(None, error)]
        # The next one goes on with the sequence of the one that was given up.
        failing.left = 0
        assert producer.send("events", b"b").running()
    assert values(store) == ["b"]


def test_retries_end_when_a_record_has_waited_for_too_long(store: Store, files: SpyFiles) -> None:
    Failing(files, 1_000_000, full())
    with store.producer(
        linger_ms=0, delivery_timeout_ms=50, retry_backoff_ms=1, retry_backoff_max_ms=4
    ) as producer:
        future = producer.send("events", b"a")
        expected = r"1 records for partition 0 of 'events'.*delivery_timeout_ms=50, in \d+ attempts"
        with pytest.raises(DeliveryTimeoutError, match=expected) as caught:
            future.result(10)
        assert isinstance(caught.value.__cause__, OSError)
        assert "No space left" in str(caught.value)


def test_waiting_for_a_lock_is_no_attempt_and_ends_with_the_delivery_timeout(
    store: Store,
) -> None:
    with store.producer(retries=0, linger_ms=0) as producer:
        with stuck(store):
            future = producer.send("events", b"a")
            assert not future.done()
        assert future.result(10).offset == 0
    with store.producer(retries=0, linger_ms=0, delivery_timeout_ms=150) as producer, stuck(store):
        with pytest.raises(DeliveryTimeoutError, match="held the partition's lock") as caught:
            producer.send("events", b"b").result(10)
        assert isinstance(caught.value.__cause__, LockTimeoutError)
    assert values(store) == ["a"]


def test_a_partition_that_is_stuck_does_not_hold_up_the_others(store: Store) -> None:
    store.create_topic("wide", partitions=3)
    with store.producer(linger_ms=1) as producer:
        with stuck(store, "wide", 1):
            held = producer.send("wide", b"a", partition=1)
            for number in range(20):
                for partition in (0, 2):
                    future = producer.send("wide", b"%d" % number, partition=partition)
                    assert future.result(10).offset == number
            assert not held.done()
        assert held.result(10).offset == 0


# giving up ------------------------------------------------------------------------------------


def test_what_will_not_pass_fails_at_once_and_the_next_batch_goes_on(
    store: Store, files: SpyFiles
) -> None:
    failing = Failing(files, 1, io_error())
    with store.producer(**LONG) as producer:
        lost = producer.send("events", b"a")
        producer.flush()
        with pytest.raises(OSError, match="Input/output error"):
            lost.result(0)
        assert failing.left == 0
        kept = producer.send("events", b"b")
        producer.flush()
        assert kept.result(0).offset == 0
    assert values(store) == ["b"]


def test_a_failed_sync_fails_what_waited_for_it_and_all_that_comes(tmp_path: Path) -> None:
    files = SpyFiles()
    store = open_store(tmp_path / "store", files)
    store.create_topic("events")
    with store.producer(acks="all", batch_size=100, **LONG) as producer:
        first = producer.send("events", b"a")
        producer.flush()
        files.before = fail("sync", io_error(), path=LOG)
        futures = [producer.send("events", b"%d" % number) for number in range(10)]
        producer.flush()
        assert first.result(0).offset == 0
        for future in futures:
            with pytest.raises((OSError, PoisonedError)):
                future.result(0)
        files.before = lambda operation, path: None
        later = producer.send("events", b"later")
        producer.flush()
        with pytest.raises(PoisonedError):
            later.result(0)
    with pytest.raises(PoisonedError):
        store.close()
    with open_store(tmp_path / "store") as again:
        assert values(again)[0] == "a"


def test_without_anybody_waiting_a_failure_is_logged(
    store: Store, files: SpyFiles, caplog: pytest.LogCaptureFixture
) -> None:
    Failing(files, 1, io_error())
    told: list[Any] = []
    with store.producer(acks=0, **LONG) as producer:
        future = producer.send("events", b"a", on_delivery=lambda *what: told.append(what))
        producer.flush()
        assert future.result(0).offset == -1
    assert "1 records for partition 0 of 'events' were not delivered" in caplog.text
    assert [type(error) for _, error in told] == [OSError]


def test_a_topic_that_is_deleted_and_made_anew_is_another_one(store: Store) -> None:
    with store.producer(**LONG) as producer:
        future = producer.send("events", b"a")
        store.delete_topic("events")
        producer.flush()
        with pytest.raises(UnknownTopicError, match="was deleted"):
            future.result(0)
        with pytest.raises(UnknownTopicError, match="no topic called 'events'"):
            producer.send("events", b"b")
        store.create_topic("events")
        future = producer.send("events", b"c")
        producer.flush()
        assert future.result(0).offset == 0
    assert values(store) == ["c"]


# threads and signals --------------------------------------------------------------------------


@pytest.mark.parametrize("acks", [1, "all"])
def test_many_threads_send_and_each_ones_order_is_kept(store: Store, acks: Any) -> None:
    store.create_topic("wide", partitions=2)
    threads, count = 6, 300

    def send_all(name: int) -> None:
        for number in range(count):
            producer.send("wide", b"%d %d" % (name, number), partition=name % 2)

    with store.producer(acks=acks, batch_size=1000, buffer_memory=8000, linger_ms=1) as producer:
        senders = [threading.Thread(target=send_all, args=(name,)) for name in range(threads)]
        for sender in senders:
            sender.start()
        for sender in senders:
            sender.join(60)
            assert not sender.is_alive()
    for partition in (0, 1):
        found = [tuple(map(int, value.split())) for value in values(store, "wide", partition)]
        for name in range(partition, threads, 2):
            assert [n for one, n in found if one == name] == list(range(count))


class InterruptAt:
    """Raises KeyboardInterrupt at one of the places where CPython looks for signals, in some
    modules: at the beginning of a function, behind a call, and when a loop turns.

    It looks at the end of that instruction; here the next one is about to begin. Where another
    handler of exceptions is in charge of that one (a ``with`` is being left), it is passed over.
    """

    LOOKS = ("RESUME", "CALL", "CALL_KW", "CALL_FUNCTION_EX", "JUMP_BACKWARD")

    def __init__(self, place: int, modules: tuple[str, ...]) -> None:
        self.left = place
        self.modules = modules
        self.before: dict[Any, int] = {}
        """The instruction before this one, by frame."""
        self.where = ""

    def __call__(self, frame: Any, event: str, argument: Any) -> Any:
        code = frame.f_code
        if not code.co_filename.endswith(self.modules):
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            now = frame.f_lasti
            before = self.before.get(frame)
            self.before[frame] = now
            if (
                before is not None
                and dis.opname[code.co_code[before]] in self.LOOKS
                and _handler(code, before) == _handler(code, now)
            ):
                self.left -= 1
                if self.left == 0:
                    self.where = f"{code.co_name}, line {frame.f_lineno}"
                    raise KeyboardInterrupt
        return self


def _handler(code: Any, offset: int) -> int | None:
    """Where an exception at an instruction goes."""
    for entry in dis._parse_exception_table(code):  # type: ignore[attr-defined]
        if entry.start <= offset < entry.end:
            return int(entry.target)
    return None


@pytest.mark.parametrize("acks", [1, "all"])
def test_ctrl_c_anywhere_in_a_send_loses_and_doubles_nothing(tmp_path: Path, acks: Any) -> None:
    """The record itself is there once, or not."""
    modules = ("logstore/producer.py", "logstore/accumulator.py", "logstore/sender.py")
    line = interrupted = 0
    with open_store(tmp_path / "store", SpyFiles()) as store:
        store.create_topic("events")
        while True:
            line += 1
            with store.producer(acks=acks, batch_size=70, **LONG) as producer:
                names = [f"{line} {number}" for number in range(4)]
                sent = [producer.send("events", names[0].encode())]
                sent.append(producer.send("events", names[1].encode()))
                previous = sys.gettrace()
                sys.settrace(InterruptAt(line, modules))
                try:
                    sent.append(producer.send("events", names[2].encode()))
                    done = True
                except KeyboardInterrupt:
                    done = False
                finally:
                    sys.settrace(previous)
                interrupted += not done
                sent.append(producer.send("events", names[3].encode()))
                producer.flush(10)
                offsets = [future.result(0).offset for future in sent]
                assert offsets == sorted(set(offsets)), line
                assert producer.buffered_bytes == 0, line
                assert not producer._accumulator.incomplete, line
            found = [value for value in values(store) if value.startswith(f"{line} ")]
            assert found in (names, [*names[:2], names[3]]), line
            if done:
                assert found == names
                break
    assert interrupted > 40


FORK = """
import os, sys, logstore
with logstore.open(sys.argv[1], maintenance_interval=None) as store:
    store.create_topic("events")
    with store.producer(linger_ms=3600000, delivery_timeout_ms=3600000) as producer:
        future = producer.send("events", b"parent")
        with producer._mutex:
            child = os.fork()
        if child == 0:
            code = 1
            try:
                for use in (
                    lambda: producer.send("events", b"child"),
                    lambda: producer.flush(),
                    lambda: producer.next_sequence("events", 0),
                    lambda: future.result(5),
                ):
                    try:
                        use()
                    except logstore.ForkedError as error:
                        assert "parent process" in str(error)
                    else:
                        os._exit(2)
                producer.close()
                with logstore.open(sys.argv[1], maintenance_interval=None) as own:
                    with own.producer() as mine:
                        assert mine.send("events", b"child").result(10).offset == 0
                code = 0
            finally:
                os._exit(code)
        assert os.waitpid(child, 0)[1] == 0
        assert not future.done()
    print(future.result(0).offset)
"""


def test_a_child_of_fork_is_refused_and_the_parent_goes_on(tmp_path: Path) -> None:
    assert run_script(FORK, tmp_path / "store") == "1\n"


def test_a_batch_is_what_a_producer_makes_of_it(store: Store) -> None:
    """Ids, epochs and sequences stand in the headers."""
    with store.producer(batch_size=300, **LONG) as producer:
        for number in range(20):
            producer.send("events", b"%d" % number)
    headers = [batch.header for batch in batches(store.topic("events").partition(0))]
    assert len({header.producer_id for header in headers}) == 1
    assert {header.producer_epoch for header in headers} == {0}
    assert [header.base_sequence for header in headers] == [h.base_offset for h in headers]
