"""Seeing the log without a lock: what the shared state says, and being told when it changes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TypeVar

from logstore.appending import check_offset, deleted_error
from logstore.clock import Clock
from logstore.errors import FormatError, LockTimeoutError, OffsetOutOfRangeError
from logstore.reader import View
from logstore.segments import filenames
from logstore.segments.files import Files, Watch
from logstore.segments.scan import Damage, scan
from logstore.state import DELETED, LogState, StateFile
from logstore.structure import list_segments, segment_path
from logstore.waiting import LONGEST_SLEEP, check_timeout, sleep_until
from logstore.writer import LogWriter

__all__ = ["Observer", "steadily"]

_T = TypeVar("_T")
_ATTEMPTS = 10

_SHORTEST_PAUSE = 0.0005


def steadily(look: Callable[[], View], read: Callable[[View], _T]) -> _T:
    """What ``read`` makes of the log as it is. If somebody takes a file away or cuts it meanwhile,
    it is asked again, with the log as it is then; its error counts if nothing has changed."""
    for _ in range(_ATTEMPTS):
        view = look()
        try:
            return read(view)
        except (FormatError, FileNotFoundError):
            if look() is view:
                raise
    return read(look())


class Observer:
    """The current :class:`View` of a partition. Usable from many threads."""

    def __init__(
        self,
        files: Files,
        directory: str,
        clock: Clock,
        state_file: StateFile | None,
        *,
        locked: Callable[[], AbstractContextManager[LogWriter]] | None,
        timeout: float,
        check_usable: Callable[[], None],
    ) -> None:
        """``locked`` is None for a handle that may not write; ``check_usable`` raises when the
        handle has been closed."""
        self._files = files
        self._directory = directory
        self._clock = clock
        self._state_file = state_file
        self._locked = locked
        self._timeout = timeout
        self._check_usable = check_usable
        self._view: View | None = None
        """The log as it was last seen; replaced as a whole."""
        self._block: Callable[[], bytes] | None = None
        """The shared block, for a handle whose lock makes it trust that."""
        if state_file is not None and locked is not None:
            self._block = state_file.block
        self._watches: list[Watch] = []
        """Watches that nobody is waiting on."""

    def look(self) -> View:
        """The log as it is now."""
        view, block = self._view, self._block
        try:
            if view is not None and block is not None:
                now = block()
                if view.block == now:
                    return view
                state = LogState.unpack(now)
                if (
                    state is not None
                    and state.generation == view.state.generation
                    and not state.flags & DELETED
                ):  # something was appended, which leaves the segments as they were
                    view = self._view = View(now, state, view.bases)
                    return view
            return self._look()
        except ValueError:
            self._check_usable()  # another thread may just have closed the mapping
            raise
        except FileNotFoundError:
            if self._files.is_directory(self._directory):
                raise
            raise deleted_error(self._directory) from None

    def _look(self) -> View:
        view = self._view
        state_file = self._state_file
        if state_file is None or (self._locked is None and not state_file.is_ours()):
            view = self._view = _observe(self._files, self._directory, view)
            return view
        deadline = None
        while True:
            block = state_file.block()
            if view is not None and view.block == block:
                return view
            state = LogState.unpack(block)
            if state is not None and state.flags & DELETED and state_file.is_ours():
                raise deleted_error(self._directory)
            if state is not None and not state.generation & 1 and state_file.is_ours():
                bases = self._bases(state, view)
                if state_file.generation() == state.generation:
                    view = self._view = View(block, state, bases)
                    return view
            elif self._locked is not None:
                # Somebody is at it, or was killed at it: with the lock in hand one sees which.
                with self._locked() as writer:
                    writer.enter()
            elif deadline is None:
                deadline = self._clock.monotonic() + self._timeout
            elif self._clock.monotonic() > deadline:
                raise LockTimeoutError(
                    f"{self._directory}: its files have been in change for {self._timeout:g} "
                    "seconds; was a writer killed? Open it for writing"
                )
            else:
                self._clock.sleep(_SHORTEST_PAUSE)

    def _bases(self, state: LogState, view: View | None) -> tuple[int, ...]:
        if view is not None and view.state.generation == state.generation:
            return view.bases
        bases = list_segments(self._files, self._directory)
        return tuple(base for base in bases if base <= state.active_base)

    def wait(self, offset: int, timeout: float | None) -> bool:
        """Wait until the log's end lies behind ``offset``, and say whether it does.

        Raises OffsetOutOfRangeError when it lies in front: somebody has cut the log.
        """
        check_offset(offset)
        check_timeout(timeout)
        if self._reaches(offset):
            return True
        deadline = None if timeout is None else self._clock.monotonic() + timeout
        watch = self._watches.pop() if self._watches else self._files.watch(self._directory)
        try:
            while True:
                left = LONGEST_SLEEP if deadline is None else deadline - self._clock.monotonic()
                if left <= 0:
                    return self._reaches(offset)
                seconds = min(left, LONGEST_SLEEP)
                if sleep_until(lambda: self._reaches(offset), watch, self._clock, seconds):
                    return True
                self._check_usable()
        finally:
            if watch is not None:
                self._watches.append(watch)

    def _reaches(self, offset: int) -> bool:
        state = self.look().state
        if state.next_offset < offset:
            # What is appended from now on bears offsets that whoever waits believes to have read.
            raise OffsetOutOfRangeError(
                self._directory, offset, state.log_start_offset, state.next_offset
            )
        return state.next_offset > offset

    def close(self) -> None:
        """Let go of the watches."""
        while self._watches:
            self._watches.pop().close()


def _observe(files: Files, directory: str, previous: View | None) -> View:
    """A view of a directory that has no state to go by, and in which nothing may be written.

    The end is the first place in the last segment that is no whole batch: with a writer at work,
    who cannot be asked, that means to wait.
    """
    bases = list_segments(files, directory)
    if not bases:
        return View(b"", LogState(generation=0), ())
    base = bases[-1]
    file = files.open(segment_path(directory, base, filenames.LOG))
    try:
        if previous is not None and previous.bases == bases:
            state = LogState(
                generation=previous.state.generation,
                active_base=base,
                valid_end=previous.state.valid_end,
                next_offset=previous.state.next_offset,
            )
            if file.size() == state.valid_end:
                return previous
        else:
            generation = previous.state.generation + 2 if previous is not None else 0
            state = LogState(generation=generation, active_base=base, next_offset=base)
        for item in scan(file, start=state.valid_end, resync=False):
            if isinstance(item, Damage) or not item.crc_ok:
                break
            state.valid_end += item.header.size
            state.next_offset = item.header.next_offset
    finally:
        file.close()
    state.log_start_offset = bases[0]
    state.last_stable_offset = state.synced_offset = state.next_offset
    return View(b"", state, bases)
