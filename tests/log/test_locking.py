"""The locks of a partition: nothing takes them and does not give them back."""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path
from types import FrameType

import pytest

from logstore import PartitionLog
from logstore.clock import SystemClock
from logstore.locking import PartitionLock
from logstore.segments.memory_files import MemoryFiles

from .support import damage, no_locks_held, opened, raw_batch, records, values


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "orders-0"


class _InterruptAfterCall:
    """A profiler that presses Ctrl-C where CPython looks for it: at the n-th beginning of a
    function of ours, or behind the n-th call of one in C."""

    def __init__(self, number: int) -> None:
        self.left = number

    def __call__(self, frame: FrameType, event: str, argument: object) -> None:
        path = frame.f_code.co_filename
        if event in ("call", "c_return") and path.endswith(_LOCKING):
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt


_LOCKING = ("logstore/log.py", "logstore/locking.py", "logstore/writer.py")


@pytest.mark.parametrize("raw", [False, True])
def test_ctrl_c_behind_any_call_of_an_append_leaves_the_locks_free(
    directory: Path, raw: bool
) -> None:
    number = 0
    log = opened(directory)
    log.append(records("a"), acks=1)
    previous = sys.getprofile()
    while True:
        number += 1
        caught: KeyboardInterrupt | None = None
        profiler = _InterruptAfterCall(number)
        sys.setprofile(profiler)
        try:
            if raw:
                log.append_raw(raw_batch(0, "b"), acks=1)
            else:
                log.append(records("b"), acks=1)
        except KeyboardInterrupt as error:
            caught = error  # with its traceback, which keeps all frames alive
        finally:
            sys.setprofile(previous)
        assert no_locks_held(log), number
        log.append(records("c"), acks=1)
        if caught is None and profiler.left > 0:
            break
    assert number > 8
    log.close()
    assert damage(directory) == []


def test_ctrl_c_behind_the_taking_of_the_files_lock_leaves_the_locks_free() -> None:
    files = MemoryFiles()
    file_lock = files.lock("/lock")

    class Interrupted:
        release = staticmethod(file_lock.release)
        close = staticmethod(file_lock.close)

        def acquire(self) -> None:
            file_lock.acquire()
            raise KeyboardInterrupt

    lock = PartitionLock(Interrupted(), name="orders-0", clock=SystemClock(), timeout=0.01)

    def use() -> None:
        with lock.threads():
            try:
                lock.acquire()
            finally:
                lock.release()

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            use()
    files.lock("/lock").acquire()


def test_letting_go_of_a_files_lock_that_is_not_held_leaves_it_to_its_holder() -> None:
    files = MemoryFiles()
    files.lock("/lock").acquire()
    other = files.lock("/lock")
    with pytest.raises(BlockingIOError):
        other.acquire()
    other.release()
    with pytest.raises(BlockingIOError):
        other.acquire()


def test_a_log_that_is_dropped_without_a_close_lets_go_of_its_files(directory: Path) -> None:
    log = opened(directory)
    log.append(records("a"), acks=1)
    before = len(os.listdir("/proc/self/fd"))
    dropped = [log]
    del log

    def drop() -> None:
        dropped.clear()
        gc.collect()

    with pytest.warns(ResourceWarning, match=r"unclosed log PartitionLog\("):
        drop()
    assert len(os.listdir("/proc/self/fd")) <= before - 5  # three files, lock and state
    with opened(directory) as again:
        assert values(again) == [b"a"]


@pytest.mark.filterwarnings("error::ResourceWarning")
def test_a_log_that_was_closed_or_never_opened_is_dropped_without_a_word(directory: Path) -> None:
    opened(directory).close()
    with pytest.raises(FileNotFoundError):
        PartitionLog(directory / "missing", read_only=True)
    gc.collect()  # a warning would be an error here
