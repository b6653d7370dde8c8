"""The lock of a partition: first among the threads of a process, then among processes.

``flock`` knows no threads, so a thread lock stands in front of it. Both are held for microseconds
at a time, and across a sync only in a roll and in what maintenance does. Whoever wants them writes
``with lock.held()``, and appending writes out what that does, which are two calls less.

A method that takes the locks and returns would leak them when Ctrl-C comes between a lock's taking
and the ``try``: CPython looks for signals behind each call and at a function's beginning, but not
between a thread lock's ``__enter__`` and the block.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

from logstore.clock import Clock
from logstore.errors import LockTimeoutError
from logstore.segments.files import FileLock

__all__ = ["PartitionLock"]

_LONGEST_PAUSE = 0.002
_PAUSE_STEP = 0.00002


class PartitionLock:
    """Both locks as one. ``name`` stands in errors; waiting ends after ``timeout`` seconds.

    ``check`` raises for whoever may not have the lock; it is asked once ``barred`` has been set,
    with the thread lock in hand, and again and again while waiting for another process.
    """

    def __init__(
        self,
        file_lock: FileLock,
        *,
        name: str,
        clock: Clock,
        timeout: float,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self._file_lock = file_lock
        self.mutex = threading.Lock()
        """The thread lock."""
        self._name = name
        self._clock = clock
        self._timeout = timeout
        self._check = check
        self.barred = False
        """Whether the lock is not for everybody any more."""
        self.release: Callable[[], None] = file_lock.release
        """Let go of the file's lock; allowed for whoever could not take it."""

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Both locks, for the block; raises LockTimeoutError."""
        with self.threads():
            try:
                self.acquire()
                yield
            finally:
                self.release()

    def threads(self, timeout: float | None = None) -> threading.Lock:
        """The thread lock, free a moment ago; raises LockTimeoutError if it does not get free
        (``timeout``: another one than the lock's own)."""
        if self.barred:
            self._check()
        if self.mutex.locked():
            timeout = self._timeout if timeout is None else timeout
            if not self.mutex.acquire(timeout=timeout):
                raise self._timed_out("thread", timeout)
            self.mutex.release()
        return self.mutex

    def acquire(self, timeout: float | None = None) -> None:
        """Take the file's lock, with the thread lock in hand; raises LockTimeoutError."""
        if self.barred:
            self._check()
        try:
            self._file_lock.acquire()
        except BlockingIOError:
            self._wait(self._timeout if timeout is None else timeout)

    def _wait(self, timeout: float) -> None:
        # A blocking flock could not be interrupted. Giving way once or twice is nearly always
        # enough; the pauses grow in case the holder sleeps.
        deadline = self._clock.monotonic() + timeout
        pause = 0.0
        while True:
            self._check()
            self._clock.sleep(pause)
            pause = min(pause + _PAUSE_STEP, _LONGEST_PAUSE)
            try:
                self._file_lock.acquire()
                return
            except BlockingIOError:
                if self._clock.monotonic() > deadline:
                    raise self._timed_out("process", timeout) from None

    def _timed_out(self, holder: str, timeout: float) -> LockTimeoutError:
        return LockTimeoutError(
            f"{self._name}: another {holder} has held the partition's lock for "
            f"{timeout:g} seconds; is it stopped?"
        )

    def drain(self) -> None:
        """Wait for the thread that has the lock to let go of it. Whoever comes later is stopped by
        its ``check``; so no thread is left that uses what the lock protects."""
        if self.mutex.acquire(timeout=self._timeout):
            self.mutex.release()

    def close(self) -> None:
        """Let go of the lock's file; in a child of ``fork`` the parent's lock stays."""
        self.release = _nothing
        self._file_lock.close()


def _nothing() -> None:
    """The release of a lock whose file is closed."""
