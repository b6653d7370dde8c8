"""The lock of a partition: first among the threads of a process, then among processes.

``flock`` knows no threads, so a thread lock stands in front of it. Both are held for microseconds
at a time, and across a sync only in a roll and in what maintenance does.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from logstore.clock import Clock
from logstore.errors import LockTimeoutError
from logstore.segments.files import FileLock

__all__ = ["PartitionLock"]

_LONGEST_PAUSE = 0.002
_PAUSE_STEP = 0.00002


class PartitionLock:
    """Both locks as one. ``name`` stands in errors; waiting ends after ``timeout`` seconds."""

    def __init__(self, file_lock: FileLock, *, name: str, clock: Clock, timeout: float) -> None:
        self._file_lock = file_lock
        self._mutex = threading.Lock()
        self._name = name
        self._clock = clock
        self._timeout = timeout

    def acquire(self, check: Callable[[], None]) -> None:
        """Take both locks; raises LockTimeoutError.

        ``check`` is called with the thread lock in hand, and again and again while waiting for
        another process; it may raise, and nothing is held then.
        """
        # Asking without a time-out first is cheaper, and nearly always enough.
        if not self._mutex.acquire(False) and not self._mutex.acquire(timeout=self._timeout):
            raise self._timed_out("thread")
        try:
            check()
            try:
                self._file_lock.acquire()
            except BlockingIOError:
                self._wait(check)
        except BaseException:
            self._mutex.release()
            raise

    def _wait(self, check: Callable[[], None]) -> None:
        # A blocking flock could not be interrupted. Giving way once or twice is nearly always
        # enough; the pauses grow in case the holder sleeps.
        deadline = self._clock.monotonic() + self._timeout
        pause = 0.0
        while True:
            check()
            self._clock.sleep(pause)
            pause = min(pause + _PAUSE_STEP, _LONGEST_PAUSE)
            try:
                self._file_lock.acquire()
                return
            except BlockingIOError:
                if self._clock.monotonic() > deadline:
                    raise self._timed_out("process") from None

    def _timed_out(self, holder: str) -> LockTimeoutError:
        return LockTimeoutError(
            f"{self._name}: another {holder} has held the partition's lock for "
            f"{self._timeout:g} seconds; is it stopped?"
        )

    def release(self) -> None:
        """Let go of both locks."""
        try:
            self._file_lock.release()
        finally:
            self._mutex.release()

    def drain(self) -> None:
        """Wait for the thread that has the lock to let go of it. Whoever comes later is stopped by
        its ``check``; so no thread is left that uses what the lock protects."""
        if self._mutex.acquire(timeout=self._timeout):
            self._mutex.release()

    def close(self) -> None:
        """Let go of the lock's file; in a child of ``fork`` the parent's lock stays."""
        self._file_lock.close()
