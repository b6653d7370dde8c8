"""A handle of a partition's directory: what it holds, who may use it, and how it lets go.

A handle belongs to one process and to many threads. It is opened, perhaps configured anew, and
closed; after that, in a child of ``fork``, and when its topic is deleted, it refuses to work, and
says why. What one does with it stands in ``logstore.log``.
"""

from __future__ import annotations

import contextlib
import os
import threading
import warnings
from collections.abc import Iterator
from typing import NoReturn, Self

from logstore import fork
from logstore.appending import deleted_error
from logstore.clock import Clock, SystemClock
from logstore.config import LogConfig
from logstore.errors import (
    ClosedError,
    ForkedError,
    PoisonedError,
    ReadOnlyError,
    UnknownTopicError,
)
from logstore.group_commit import GroupCommit
from logstore.locking import PartitionLock
from logstore.observer import Observer
from logstore.producer_tracker import ProducerTracker
from logstore.reader import LogReader, View
from logstore.segments.files import DiskFiles, Files
from logstore.segments.header import TimestampType
from logstore.state import STATE_BYTES, StateFile
from logstore.upkeep import Upkeep
from logstore.writer import LogWriter

__all__ = ["LOCK_FILE", "STATE_FILE", "PartitionHandle"]

LOCK_FILE = "lock"
STATE_FILE = "state"


class PartitionHandle:
    """What ``PartitionLog`` is made of, but for what one does with it."""

    _holds_files = False
    """Whether there is something to let go of."""

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        files: Files | None = None,
        clock: Clock | None = None,
        config: LogConfig | None = None,
        read_only: bool = False,
        lock_timeout: float = 30.0,
    ) -> None:
        """``lock_timeout``: seconds to wait for the partition's lock before LockTimeoutError."""
        self.directory = os.fsdecode(directory)
        self.config = config or LogConfig()
        self._files: Files = files or DiskFiles()
        self._clock: Clock = clock or SystemClock()
        self._lock_timeout = lock_timeout
        self._read_only = read_only
        self._note_config()
        self._now_ms = self._clock.now_ms
        self._refusal: type[ClosedError | ForkedError | UnknownTopicError] | None = None
        """Why the handle cannot be used any more, if so."""
        self._closer: int | None = None
        """The thread that is closing the handle; all others are refused the lock."""
        self._lock: PartitionLock | None = None
        self._state_file: StateFile | None = None
        self._writing: tuple[PartitionLock, LogWriter] | None = None
        """What appending takes, unless the log was opened for reading only. The writer's methods
        are for the holder of both locks."""
        self._observer = self._new_observer()
        """The log as readers see it."""
        self._reader = LogReader(self._files, self.directory, self.config)
        self._group_commit = GroupCommit(
            self._files,
            self.directory,
            look=self._look,
            locked=self._locked,
            writing=lambda: self._writing or self._refuse(),
        )
        self._upkeep = Upkeep(
            self._files,
            self.directory,
            self.config,
            self._clock,
            look=self._look,
            locked=self._locked,
            reader=self._reader,
        )
        self._open()
        fork.remember(self)
        self._holds_files = True

    # Opening and closing ----------------------------------------------------------------------

    def _open(self) -> None:
        if self._read_only:
            self._open_read_only()
            return
        self._files.make_directory(self.directory)
        self._lock = PartitionLock(
            self._files.lock(os.path.join(self.directory, LOCK_FILE)),
            name=self.directory,
            clock=self._clock,
            timeout=self._lock_timeout,
            check=self._check_usable,
        )
        try:
            shared = self._files.share(os.path.join(self.directory, STATE_FILE), STATE_BYTES)
            self._state_file = StateFile(shared, self._files.boot_id())
            self._observer = self._new_observer()
            producers = ProducerTracker(
                self._files, self.directory, self.config, self._reader, self._clock
            )
            writer = LogWriter(
                self._files, self.directory, self.config, self._state_file, producers
            )
            self._writing = self._lock, writer
            with self._locked() as writer:
                writer.enter(opening=True)
        except BaseException:
            self._let_go()
            raise

    def _open_read_only(self) -> None:
        if not self._files.is_directory(self.directory):
            raise FileNotFoundError(2, os.strerror(2), self.directory)
        path = os.path.join(self.directory, STATE_FILE)
        if self._files.exists(path) and self._files.size(path) >= STATE_BYTES:
            shared = self._files.share(path, STATE_BYTES, write=False)
            self._state_file = StateFile(shared, self._files.boot_id())
        self._observer = self._new_observer()

    def _new_observer(self) -> Observer:
        return Observer(
            self._files,
            self.directory,
            self._clock,
            self._state_file,
            locked=None if self._read_only else self._locked,
            timeout=self._lock_timeout,
            check_usable=self._check_usable,
        )

    def close(self, *, deleted: bool = False) -> None:
        """Sync what is not, note that it was, and let go of everything; closing twice is allowed.

        After the last handle's close the next opening scans nothing, unless a killed process left
        something: a handle that wrote nothing does not sync for others. ``deleted``: its topic
        was deleted, as all are told who use the handle from now on."""
        if self._refusal is not None or self._closer is not None:
            return
        self._closer = threading.get_ident()
        if self._lock is not None:
            self._lock.barred = True
        try:
            if self._writing is not None and self._writing[1].has_written:
                with contextlib.suppress(UnknownTopicError):  # deleted: there is nothing to save
                    self._group_commit.sync_to(self._look().state.next_offset)
                    with self._locked() as writer:
                        writer.close_segment()
                    self._upkeep.purge()
        finally:
            self._refusal = UnknownTopicError if deleted else ClosedError
            if self._lock is not None:
                self._lock.drain()
            self._let_go()

    def abandon(self) -> None:
        """Let go of everything as a process does that is killed: nothing is synced or noted. For
        simulations; the next opening recovers what is there."""
        self._refusal = ClosedError
        self._let_go()

    def _let_go(self) -> None:
        self._holds_files = False
        for resource in ((self._writing or (None, None))[1], self._state_file, self._lock):
            if resource is not None:
                resource.close()
        self._group_commit.close()
        self._observer.close()
        self._reader.close()
        fork.forget(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        try:
            self.close()
        except PoisonedError:
            if error is None:  # otherwise it is, or follows from, the error that is on its way
                raise

    def __del__(self) -> None:
        # As files do it. What was not synced stays so: this may run in any thread, at any moment.
        if self._holds_files:
            self._refusal = ClosedError
            self._let_go()
            warnings.warn(f"unclosed log {self!r}", ResourceWarning, stacklevel=2, source=self)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.directory!r})"

    def forked(self) -> None:
        """In a child process: let go of the parent's descriptors without unlocking anything."""
        self._refusal = ForkedError
        if self._lock is not None:
            self._lock.barred = True
        self._let_go()

    def _refuse(self) -> NoReturn:
        if self._refusal is ForkedError:
            raise ForkedError(
                f"{self.directory}: this handle belongs to the parent process; open the log again"
            )
        if self._refusal is UnknownTopicError:
            raise deleted_error(self.directory)
        if self._refusal is None and self._closer is None:
            raise ReadOnlyError(f"{self.directory}: the log was opened for reading only")
        raise ClosedError(f"{self.directory}: the log was closed")

    def configure(self, config: LogConfig) -> None:
        """Go on by this configuration, at once."""
        self.config = config
        self._note_config()
        self._upkeep.configure(config)
        if self._writing is not None:
            self._writing[1].configure(config)

    def _note_config(self) -> None:
        """What each append asks for."""
        config = self.config
        self._append_time = config.message_timestamp_type == TimestampType.LOG_APPEND.label
        self._compacts = config.compacts
        self._max_message_bytes = config.max_message_bytes
        self._chooses_codec = config.compression_type != "producer"

    # The locks --------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _locked(self) -> Iterator[LogWriter]:
        lock, writer = self._writing or self._refuse()
        with lock.held():
            yield writer

    def _check_usable(self) -> None:
        """Raise for whoever may not use the handle any more."""
        closer = self._closer
        if self._refusal is not None or (closer is not None and closer != threading.get_ident()):
            self._refuse()

    def _look(self) -> View:
        """The log as it is now, without a lock."""
        if self._refusal is not None:
            self._refuse()
        return self._observer.look()
