"""Sessions: how a process knows that another one has died.

Each open store handle that owns something (membership in a group; later leases and transactions)
has a session: a file ``procs/<uuid>`` on which it holds a lock. The kernel lets go of the lock when
the process ends, however it ends; whoever wants to know tries to take it. A process that is merely
stopped still has its lock: that is what deadlines are for.
"""

from __future__ import annotations

import contextlib
import os
import threading
import uuid

from logstore import fork
from logstore.errors import ForkedError
from logstore.segments.files import FileLock, Files

__all__ = ["Sessions"]

PROCS = "procs"


class Sessions:
    """The sessions of a store, one's own among them. Usable from many threads."""

    def __init__(self, store: str, files: Files) -> None:
        self._directory = os.path.join(store, PROCS)
        self._files = files
        self._mutex = threading.Lock()
        self._id: str | None = None
        """One's own; made when it is first needed."""
        self._lock: FileLock | None = None
        self._probes: dict[str, FileLock] = {}
        """Opened files of other sessions: trying a lock is cheaper than opening the file."""
        self._forked = False

    @property
    def own(self) -> str:
        """The id of one's own session, which lasts until ``close``."""
        with self._mutex:
            if self._forked:
                raise ForkedError(
                    f"{self._directory}: this session belongs to the parent process; open the "
                    "store again"
                )
            if self._id is None:
                self._files.make_directory(self._directory)
                while not self._begin(uuid.uuid4().hex):
                    pass
                fork.remember(self)
            assert self._id is not None
            return self._id

    def _begin(self, session_id: str) -> bool:
        """Make the file and lock it. Between the two it looks like one that a dead process left,
        and may be swept; then another one has to be made."""
        path = os.path.join(self._directory, session_id)
        lock = self._files.lock(path)
        try:
            lock.acquire()
        except BlockingIOError:
            lock.close()
            return False
        if not self._files.exists(path):
            lock.close()
            return False
        self._id, self._lock = session_id, lock
        return True

    def is_own(self, session_id: str) -> bool:
        """Whether it is one's own session."""
        return session_id == self._id

    def is_alive(self, session_id: str) -> bool:
        """Whether the process whose session it is lives and has it open; for all one knows, where
        the session's file may not be opened."""
        with self._mutex:
            if session_id == self._id:
                return True
            probe = self._probes.get(session_id)
            if probe is None:
                path = os.path.join(self._directory, session_id)
                if not self._files.exists(path):
                    return False
                try:
                    probe = self._probes[session_id] = self._files.lock(path)
                except OSError:
                    return True  # nobody is declared dead by somebody who cannot know
            try:
                probe.acquire()
            except BlockingIOError:
                return True
            # Closing lets go of the lock, too. An id is used once: it never comes to life again.
            self._probes.pop(session_id).close()
            return False

    def sweep(self) -> None:
        """Remove what dead processes left."""
        if not self._files.is_directory(self._directory):
            return
        names = self._files.names(self._directory)
        for name in names:
            if not self.is_alive(name):
                with contextlib.suppress(FileNotFoundError):
                    self._files.remove(os.path.join(self._directory, name))
        with self._mutex:
            for name in self._probes.keys() - set(names):
                self._probes.pop(name).close()

    def close(self) -> None:
        """End one's own session; closing twice is allowed."""
        fork.forget(self)
        with self._mutex:
            session_id, self._id = self._id, None
            if session_id is not None and not self._forked:
                with contextlib.suppress(OSError):
                    self._files.remove(os.path.join(self._directory, session_id))
            self._let_go()

    def forked(self) -> None:
        """In a child process: the session is the parent's, and lives on."""
        # The mutex may be held by a thread that the child does not have.
        self._mutex = threading.Lock()
        self._forked = True
        self._let_go()

    def _let_go(self) -> None:
        lock, self._lock = self._lock, None
        if lock is not None:
            lock.close()
        for probe in self._probes.values():
            probe.close()
        self._probes.clear()
