"""Reaching stable storage: one thread writes and syncs for all who wait.

Whoever comes while nobody is at it leads: it takes the partition's lock once, writes its own batch
and those of everybody who waits by then, and syncs once, outside the lock. Whoever comes meanwhile
waits, and one of them leads next. (RocksDB's write groups go the same way. Threads that write for
themselves, and only sync together, spend five times as long handing the interpreter around.)

Ctrl-C arrives in the main thread, so that one writes nobody's batch but its own: an interruption
must not leave another thread in doubt whether its batch was written.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager

from logstore.appending import Appended, poisoned_error
from logstore.errors import ClosedError, LockTimeoutError
from logstore.locking import PartitionLock
from logstore.reader import View
from logstore.segments import filenames
from logstore.segments.files import File, Files
from logstore.state import POISONED, LogState
from logstore.structure import segment_path
from logstore.writer import LogWriter

__all__ = ["GroupCommit", "Write"]

Write = Callable[[LogWriter], Appended]
"""Writes a batch, with the partition's lock in hand, and says where it went; or raises, and then
has written nothing."""


class _Waiter:
    """What a thread wants written, or saved, and what became of it."""

    __slots__ = ("appended", "done", "error", "offset", "ticket", "write")

    def __init__(self, write: Write | None, offset: int) -> None:
        self.write = write
        """None when there is nothing to write, or not any more."""
        self.offset = offset
        """What is to be saved lies below it; known once ``write`` is None."""
        self.appended: Appended | None = None
        self.error: Exception | None = None
        self.done = False
        """Whether it is saved, or failed."""
        self.ticket = threading.Lock()
        """Held until the waiter is done, or is to lead."""
        self.ticket.acquire()


def _write(waiter: _Waiter, writer: LogWriter) -> None:
    assert waiter.write is not None
    try:
        waiter.appended = waiter.write(writer)
    except Exception as error:  # noqa: BLE001 - it is raised in the thread that it belongs to
        waiter.error = error
    else:
        waiter.offset = waiter.appended.last_offset + 1
    waiter.write = None


class GroupCommit:
    """The syncs of one partition in one process."""

    def __init__(
        self,
        files: Files,
        directory: str,
        *,
        look: Callable[[], View],
        locked: Callable[[], AbstractContextManager[LogWriter]],
        writing: Callable[[], tuple[PartitionLock, LogWriter]],
    ) -> None:
        """``locked`` holds the partition's lock for a block; ``writing`` gives the lock."""
        self._files = files
        self._directory = directory
        self._look = look
        self._locked = locked
        self._writing = writing
        self._gate = threading.Lock()
        """Held for moments, to change the next two."""
        self._leader: _Waiter | None = None
        """Whose thread writes and syncs at present; the others wait for it."""
        self._queue: list[_Waiter] = []
        """Those that wait and that no leader has taken up, the first one first."""
        self._group: list[_Waiter] = []
        """The leader and those whom it writes for; the leader's."""
        self._writing_thread: int | None = None
        """The leader's thread while it has the partition's lock."""
        self._file: tuple[tuple[int, int], File] | None = None
        """The active log as the leader has it open, for a generation and base."""

    def close(self) -> None:
        """Let go of the file (it closes when a sync that is under way has returned)."""
        self._file = None

    def append(self, write: Write) -> Appended:
        """Write a batch by ``write``, and return when it is on stable storage.

        Commit point: the sync. When it fails the log is poisoned and the OSError raised; raises
        PoisonedError when an earlier one failed, and what ``write`` raises.
        """
        waiter = _Waiter(write, 0)
        self._run(waiter)
        assert waiter.appended is not None
        return waiter.appended

    def sync_to(self, offset: int) -> None:
        """Return when all records below ``offset`` are on stable storage; raises as
        :meth:`append` does."""
        self._run(_Waiter(None, offset))

    def _run(self, waiter: _Waiter) -> None:
        if self._writing_thread == threading.get_ident():
            raise LockTimeoutError(
                f"{self._directory}: this thread holds the partition's lock: no guard may append"
            )
        try:
            with self._gate:
                if self._leader is None:
                    self._leader = waiter
                else:
                    self._queue.append(waiter)
            if self._leader is not waiter:
                waiter.ticket.acquire()
            if not waiter.done:
                self._lead(waiter)
        finally:
            if not waiter.done:
                self._leave(waiter)
        if waiter.error is not None:
            raise waiter.error

    def _lead(self, leader: _Waiter) -> None:
        self._group = [leader]
        self._write_group(leader)
        written = [waiter.offset for waiter in self._group if waiter.error is None]
        if written:
            self._sync(max(written))
        group, self._group = self._group, []
        self._leave(leader, group)

    def _write_group(self, leader: _Waiter) -> None:
        if leader.write is None and not self._queue:
            return
        with self._locked() as writer:
            if threading.current_thread() is not threading.main_thread():
                with self._gate:
                    self._group += self._queue
                    self._queue = []
            try:
                self._writing_thread = threading.get_ident()
                for waiter in self._group:
                    if waiter.write is not None:
                        _write(waiter, writer)
            finally:
                self._writing_thread = None

    def _leave(self, leader: _Waiter, group: list[_Waiter] | None = None) -> None:
        """Lead no longer, if this thread did; wait no longer, if it was interrupted.

        ``group`` is done; one that is not, because its sync failed, goes back into the queue, where
        each one finds out for itself.
        """
        with self._gate:
            if self._leader is not leader:
                self._queue = [waiter for waiter in self._queue if waiter is not leader]
                return
            failed, self._group = self._group, []
            queue = [waiter for waiter in failed if waiter is not leader] + self._queue
            self._queue = queue[1:]
            self._leader = queue[0] if queue else None
        if queue:
            queue[0].ticket.release()  # the next leader first: its sync takes longest
        for waiter in group or ():
            waiter.done = True
            waiter.ticket.release()

    def _sync(self, offset: int) -> None:
        """Save what was written up to now, if ``offset`` lies behind what is saved."""
        # What was written before this look is what the sync saves. Older segments are safe: a roll
        # syncs the one that it finishes.
        state = self._look().state
        while True:
            if state.synced_offset >= offset:
                return
            if state.flags & POISONED:
                raise poisoned_error(self._directory)
            try:
                file = self._opened(state)
                break
            except FileNotFoundError:
                # Another process may have rolled the log since, which synced the segment, and
                # deleted it; or it cut the log in front of it.
                seen, state = state, self._look().state
                if state.generation == seen.generation:
                    raise
        try:
            file.sync()
        except OSError:
            with self._locked() as writer:
                writer.poison()
            raise
        # If the log is being closed, all is synced again and noted then.
        with contextlib.suppress(ClosedError):
            lock, writer = self._writing()
            with lock.threads():  # ``self._locked()`` written out: each sync comes here
                try:
                    lock.acquire()
                    writer.note_synced(state)
                finally:
                    lock.release()

    def _opened(self, state: LogState) -> File:
        """The active log; raises FileNotFoundError if it is no longer there."""
        key = (state.generation, state.active_base)
        opened = self._file
        if opened is None or opened[0] != key:
            path = segment_path(self._directory, state.active_base, filenames.LOG)
            opened = self._file = key, self._files.open(path, write=True)
        return opened[1]
