"""A partition: the log that many threads and processes append to and read from at once.

How an append goes (DESIGN of the commit points in ``docs/crash-safety.md``):

1. The records are encoded, outside every lock. A batch's CRC does not cover its offset.
2. The thread lock, then the partition's file lock. The shared state is looked at: what other
   processes appended, rolled or cut is taken in; a tail that a killed writer left is settled.
3. The batch gets its offset, index entries that are due are written, then the batch, in one write.
   Commit point for ``acks=1``: that write. A kill before it leaves nothing, in it a torn tail,
   after it a whole batch that was not acknowledged; the next appender finds either.
4. The new end is published in the shared state: readers see it from now on. The locks go.
5. For ``acks="all"`` the file is synced, outside the locks, once for all threads that wait.
   Commit point: the sync.
"""

from __future__ import annotations

import contextlib
import os
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Literal, NoReturn

from logstore import fork
from logstore.appending import (
    Acks,
    Appended,
    Guard,
    LogView,
    check_acks,
    check_read,
    deleted_error,
)
from logstore.clock import Clock, SystemClock
from logstore.compaction import CompactionPlan, CompactionResult
from logstore.config import LogConfig
from logstore.errors import (
    ClosedError,
    ForkedError,
    InvalidInputError,
    OffsetOutOfRangeError,
    PoisonedError,
    ReadOnlyError,
    UnknownTopicError,
)
from logstore.group_commit import GroupCommit
from logstore.locking import PartitionLock
from logstore.observer import Observer, steadily
from logstore.placing import write_ready, write_sealed
from logstore.reader import Fetch, LogReader, View
from logstore.ready import listed, ready_batches, refuse_keyless, too_large
from logstore.retention import Decision, SegmentInfo
from logstore.segments.batch import Batch, seal_parts
from logstore.segments.compression import Codec
from logstore.segments.files import DiskFiles, Files
from logstore.segments.header import TimestampType
from logstore.segments.record import Record
from logstore.state import STATE_BYTES, StateFile
from logstore.upkeep import Upkeep
from logstore.writer import LogWriter

__all__ = ["Acks", "Appended", "LogView", "PartitionLog"]

LOCK_FILE = "lock"
STATE_FILE = "state"

_WRITTEN = 1


class PartitionLog:
    """The log in a directory. Usable from many threads; processes open their own.

    ``files`` and ``clock`` are the seams to the outside. With ``read_only`` nothing in the
    directory is made or changed, and appending raises ReadOnlyError. Opening raises FormatError
    when the log is damaged in front of good data.
    """

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
            self._files, self.directory, look=self._look, locked=self._locked
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
            writer = LogWriter(self._files, self.directory, self.config, self._state_file)
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
                    self.flush()
                    with self._locked() as writer:
                        writer.close_segment()
                    self.purge_deleted()
        finally:
            self._refusal = UnknownTopicError if deleted else ClosedError
            if self._lock is not None:
                self._lock.drain()
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

    def __enter__(self) -> PartitionLog:
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
        return f"PartitionLog({self.directory!r})"

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

    # Appending --------------------------------------------------------------------------------

    def append(
        self,
        records: Sequence[Record] | Batch,
        *,
        acks: Acks = "all",
        codec: Codec = Codec.NONE,
        level: int | None = None,
        guard: Guard | None = None,
    ) -> Appended:
        """Append records as one batch, or a ready batch, and return where they went.

        The records' own offsets are not looked at; a timestamp of -1 becomes the time of the
        append. ``guard`` is called under the lock and may raise to refuse (expected versions).
        Raises InvalidInputError for a record that cannot be stored or a batch that is too large,
        and appends nothing then; PoisonedError after a failed sync; LockTimeoutError.
        """
        if type(records) is not list:
            if isinstance(records, Batch):
                return self.append_raw(records.raw, acks=acks, guard=guard)
            records = listed(records)
        if acks is not _WRITTEN and acks != "all":  # a call less for the usual ones
            check_acks(acks)
        if self._chooses_codec or type(codec) is not Codec:
            codec = self.config.codec_for(codec)
        now = self._now_ms()
        sealed = seal_parts(records, codec, level, now, now if self._append_time else None, codec)
        if self._compacts:
            refuse_keyless(records, self.directory)
        if sealed[4] > self._max_message_bytes:
            raise too_large(sealed[4], self._max_message_bytes, self.directory)
        if acks == "all":
            return self._group_commit.append(lambda writer: write_sealed(writer, sealed, guard)[0])
        lock, writer = self._writing or self._refuse()
        if lock.mutex.locked():  # otherwise not asked: a call less
            lock.threads()
        with lock.mutex:
            try:
                lock.acquire()
                appended, due = write_sealed(writer, sealed, guard)
            finally:
                lock.release()
        if due:
            self._group_commit.sync_to(appended.last_offset + 1)
        return appended

    def append_raw(
        self,
        data: bytes | bytearray | memoryview,
        *,
        acks: Acks = "all",
        origin: Literal["client", "replica"] = "client",
        guard: Guard | None = None,
    ) -> Appended:
        """Append whole batches of format 2 as they are, without opening them.

        From a ``client`` they get the next offsets (and, for LogAppendTime, the time); from a
        ``replica`` they keep offsets and leader epochs, which may leave gaps but not go back.
        Raises FormatError (also for a wrong CRC) or InvalidInputError, and appends nothing then.
        """
        check_acks(acks)
        if origin not in ("client", "replica"):
            raise InvalidInputError(f"origin is client or replica, not {origin!r}")
        batches = ready_batches(
            data,
            gaps=origin == "replica",
            max_bytes=self.config.max_message_bytes,
            name=self.directory,
            keyed=self.config.compacts and origin == "client",
        )

        def write(writer: LogWriter) -> tuple[Appended, bool]:
            now = self._now_ms() if self._append_time else None
            name = self.directory
            return write_ready(
                writer, batches, guard, origin=origin, append_timestamp=now, name=name
            )

        if acks == "all":
            return self._group_commit.append(lambda writer: write(writer)[0])
        with self._locked() as writer:
            appended, due = write(writer)
        if due:
            self._group_commit.sync_to(appended.last_offset + 1)
        return appended

    def flush(self) -> None:
        """Return when everything that was appended before the call is on stable storage."""
        if self._writing is None:
            self._refuse()
        self._group_commit.sync_to(self.log_end_offset)

    # Maintenance ------------------------------------------------------------------------------

    def segment_infos(self) -> list[SegmentInfo]:
        """Size, offsets and largest timestamp of every segment, the active one last."""
        return self._upkeep.segments()

    def retain(self, *, dry_run: bool = False) -> list[Decision]:
        """Delete what retention no longer keeps (``dry_run``: nothing); return its decisions."""
        return self._upkeep.retain(dry_run=dry_run)

    def compact(
        self, *, force: bool = False, report: Callable[[int], None] | None = None
    ) -> CompactionResult:
        """Compact the log if it is due, or with ``force`` if anything in it is dirty.
        ``report`` is called with numbers of bytes as they are dealt with. Raises InvalidInputError
        for a log that is not compacted, LockTimeoutError when somebody else is at it.
        """
        return self._upkeep.compact(force=force, report=report)

    def plan_compaction(self) -> CompactionPlan:
        """Whether the log is due for compaction, and why."""
        return self._upkeep.plan()

    def delete_records(self, before: int) -> int:
        """Move the log start offset up to ``before``, never back, delete the segments wholly below
        it, and return where it is now. Raises OffsetOutOfRangeError beyond the log's end."""
        return self._upkeep.delete_records(before)

    def drop_segments(self, bases: Sequence[int]) -> list[int]:
        """Delete closed segments, also in the middle; return the bases of those that were there."""
        return self._upkeep.drop_segments(bases)

    def truncate(self, to: int) -> None:
        """Cut the log so that it ends at ``to``; a batch that straddles it loses its end.

        Raises OffsetOutOfRangeError for an offset that is not between start and end."""
        self._upkeep.truncate(to)

    def purge_deleted(self, *, at_once: bool = False) -> None:
        """Remove the files that were deleted ``file_delete_delay_ms`` ago, or all of them."""
        self._upkeep.purge(at_once=at_once)

    # Reading ----------------------------------------------------------------------------------

    @property
    def log_start_offset(self) -> int:
        """The first offset that can be read."""
        return self._look().state.log_start_offset

    @property
    def log_end_offset(self) -> int:
        """The offset that the next record gets."""
        return self._look().state.next_offset

    @property
    def synced_offset(self) -> int:
        """All records below it are on stable storage."""
        return self._look().state.synced_offset

    @property
    def segments(self) -> tuple[int, ...]:
        """The base offsets of the segments, ascending; the last one is the active one."""
        return self._look().bases

    def read(
        self,
        offset: int,
        *,
        max_bytes: int = 1 << 20,
        upto: Literal["written", "synced"] = "written",
    ) -> Fetch:
        """Whole batches from the one that holds ``offset`` on: about ``max_bytes``, at least one.

        At the end of the log the fetch is empty. Raises OffsetOutOfRangeError outside of it,
        FormatError where the log is damaged. CRCs are checked by whoever opens the batches.
        """
        check_read(offset, max_bytes, upto)

        def read(view: View) -> Fetch:
            state = view.state
            if not state.log_start_offset <= offset <= state.next_offset:
                raise OffsetOutOfRangeError(
                    self.directory, offset, state.log_start_offset, state.next_offset
                )
            limit = state.next_offset if upto == "written" else state.synced_offset
            return self._reader.read(view, offset, max_bytes=max_bytes, high_watermark=limit)

        return steadily(self._look, read)

    def offset_for_time(self, timestamp: int) -> tuple[int, int] | None:
        """``(offset, timestamp)`` of the first record whose timestamp (milliseconds) is not below
        ``timestamp``; None where there is no such record."""
        return steadily(self._look, lambda view: self._reader.offset_for_time(view, timestamp))

    def wait(self, offset: int, timeout: float | None = None) -> bool:
        """Wait until there is a record at ``offset``, for ``timeout`` seconds at most (None: for
        ever), and say whether there is. Raises OffsetOutOfRangeError when the log ends, or is cut,
        in front of ``offset``, as a read would; closing the log ends the wait with ClosedError."""
        return self._observer.wait(offset, timeout)

    def _look(self) -> View:
        """The log as it is now, without a lock."""
        if self._refusal is not None:
            self._refuse()
        return self._observer.look()
