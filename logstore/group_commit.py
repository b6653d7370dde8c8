"""Reaching stable storage: one sync for all who wait.

Whoever comes first syncs; the others wait for it and find, more often than not, that their records
were among what it saved. The sync itself runs outside the partition's lock, so that appending goes
on meanwhile.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager

from logstore.appending import poisoned_error
from logstore.errors import ClosedError
from logstore.reader import View
from logstore.segments import filenames
from logstore.segments.files import File, Files
from logstore.state import POISONED, LogState
from logstore.structure import segment_path
from logstore.writer import LogWriter

__all__ = ["GroupCommit"]


class GroupCommit:
    """The syncs of one partition in one process."""

    def __init__(
        self,
        files: Files,
        directory: str,
        *,
        look: Callable[[], View],
        locked: Callable[[], AbstractContextManager[LogWriter]],
    ) -> None:
        self._files = files
        self._directory = directory
        self._look = look
        self._locked = locked
        self._mutex = threading.Lock()
        """Held by the thread that syncs; taken before the partition's lock."""
        self._file: tuple[tuple[int, int], File] | None = None
        """The active log as the holder of the mutex has it open, for a generation and base."""

    def close(self) -> None:
        """Let go of the file (it closes when a sync that is under way has returned)."""
        self._file = None

    def sync_to(self, offset: int) -> None:
        """Return when all records below ``offset`` are on stable storage.

        Commit point: the sync. When it fails the log is poisoned and the OSError raised; raises
        PoisonedError when an earlier one failed.
        """
        with self._mutex:
            # What was written before this look is what the sync saves. Older segments are safe:
            # a roll syncs the one that it finishes.
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
            with contextlib.suppress(ClosedError), self._locked() as writer:
                writer.note_synced(state)

    def _opened(self, state: LogState) -> File:
        """The active log; raises FileNotFoundError if it is no longer there."""
        key = (state.generation, state.active_base)
        opened = self._file
        if opened is None or opened[0] != key:
            path = segment_path(self._directory, state.active_base, filenames.LOG)
            opened = self._file = key, self._files.open(path, write=True)
        return opened[1]
