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
import weakref
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Literal, NamedTuple, NoReturn

from logstore.clock import Clock, SystemClock
from logstore.config import LogConfig
from logstore.errors import (
    ClosedError,
    ForkedError,
    FormatError,
    InvalidInputError,
    LockTimeoutError,
    OffsetOutOfRangeError,
    ReadOnlyError,
)
from logstore.loader import advance_epoch, list_segments, segment_path
from logstore.reader import Fetch, LogReader, View, observe
from logstore.segments import filenames
from logstore.segments.batch import Batch, iter_batches, seal_records
from logstore.segments.compression import Codec
from logstore.segments.files import DiskFiles, File, FileLock, Files
from logstore.segments.header import TimestampType
from logstore.segments.record import Record
from logstore.state import POISONED, STATE_BYTES, LogState, StateFile
from logstore.writer import LogWriter, poisoned_error

__all__ = ["Acks", "Appended", "LogView", "PartitionLog"]

Acks = Literal[0, 1, "all"]
"""When an append returns: written to the operating system (0 and 1), or on stable storage."""

_ACKS = frozenset((0, 1, "all"))

LOCK_FILE = "lock"
STATE_FILE = "state"


class Appended(NamedTuple):
    """Where records went."""

    base_offset: int
    """The offset of the first one."""
    last_offset: int
    """The offset of the last one."""
    timestamp: int
    """The largest timestamp among them, in milliseconds."""


class LogView(NamedTuple):
    """What a guard sees, under the partition's lock, before an append."""

    log_start_offset: int
    log_end_offset: int
    leader_epoch: int


Guard = Callable[[LogView], None]
"""Looks at the log under the lock, and raises to refuse the append."""


class PartitionLog:
    """The log in a directory. Usable from many threads; processes open their own.

    ``files`` and ``clock`` are the seams to the outside. With ``read_only`` nothing in the
    directory is made or changed, and appending raises ReadOnlyError. Opening raises FormatError
    when the log is damaged in front of good data.
    """

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
        self.directory = os.fspath(directory)
        self.config = config or LogConfig()
        self._files: Files = files or DiskFiles()
        self._clock: Clock = clock or SystemClock()
        self._lock_timeout = lock_timeout
        self._read_only = read_only
        self._append_time = self.config.message_timestamp_type == TimestampType.LOG_APPEND.label
        self._refusal: type[ClosedError | ForkedError] | None = None
        """Why the handle cannot be used any more, if so."""
        self._mutex = threading.Lock()
        """Held by the thread that holds the file lock, which knows no threads."""
        self._sync_mutex = threading.Lock()
        """Held by the thread that syncs for all that wait; taken before ``_mutex``."""
        self._sync_file: tuple[tuple[int, int], File] | None = None
        """The log as ``_sync_mutex``'s holder has it open, and for which generation and base."""
        self._lock: FileLock | None = None
        self._state_file: StateFile | None = None
        self._writer: LogWriter | None = None
        """Its methods are for the holder of both locks."""
        self._view: View | None = None
        """The log as readers last saw it; replaced as a whole."""
        self._reader = LogReader(self._files, self.directory, self.config)
        self._open()
        _all_logs.add(self)

    # Opening and closing ----------------------------------------------------------------------

    def _open(self) -> None:
        if self._read_only:
            self._open_read_only()
            return
        self._files.make_directory(self.directory)
        self._lock = self._files.lock(os.path.join(self.directory, LOCK_FILE))
        try:
            shared = self._files.share(os.path.join(self.directory, STATE_FILE), STATE_BYTES)
            self._state_file = StateFile(shared, self._files.boot_id())
            self._writer = LogWriter(self._files, self.directory, self.config, self._state_file)
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

    def close(self) -> None:
        """Sync what is not, note that it was, and let go of everything; closing twice is allowed.

        After the last handle's close the next opening scans nothing.
        """
        if self._refusal is not None:
            return
        try:
            if self._writer is not None and self._writer.has_written:
                self.flush()
                with self._locked() as writer:
                    writer.close_segment()
        finally:
            self._refusal = ClosedError
            self._let_go()

    def _let_go(self) -> None:
        for resource in (self._writer, self._state_file, self._lock):
            if resource is not None:
                resource.close()
        self._sync_file = None
        self._reader.close()
        _all_logs.discard(self)

    def __enter__(self) -> PartitionLog:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"PartitionLog({self.directory!r})"

    def _forked(self) -> None:
        """In a child process: give the parent's descriptors back without unlocking anything."""
        self._refusal = ForkedError
        self._mutex = threading.Lock()
        self._let_go()

    def _refuse(self) -> NoReturn:
        if self._refusal is ForkedError:
            raise ForkedError(
                f"{self.directory}: this handle belongs to the parent process; open the log again"
            )
        raise ClosedError(f"{self.directory}: the log was closed")

    # The locks --------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _locked(self) -> Iterator[LogWriter]:
        writer = self._acquire()
        try:
            yield writer
        finally:
            self._release()

    def _acquire(self) -> LogWriter:
        if self._refusal is not None:
            self._refuse()
        if self._lock is None or self._writer is None:
            raise ReadOnlyError(f"{self.directory}: the log was opened for reading only")
        mutex = self._mutex
        # Asking without a time-out first is cheaper, and nearly always enough.
        if not mutex.acquire(False) and not mutex.acquire(timeout=self._lock_timeout):
            raise self._lock_timed_out("thread")
        try:
            if self._refusal is not None:
                self._refuse()
            try:
                self._lock.acquire()
            except BlockingIOError:
                self._wait_for_lock(self._lock)
        except BaseException:
            mutex.release()
            raise
        return self._writer

    def _wait_for_lock(self, lock: FileLock) -> None:
        # A blocking flock could not be interrupted. The lock is held for microseconds at a time,
        # so giving way once or twice is nearly always enough.
        deadline = self._clock.monotonic() + self._lock_timeout
        pause = 0.0
        while True:
            with contextlib.suppress(BlockingIOError):
                lock.acquire()
                return
            if self._refusal is not None:
                self._refuse()
            if self._clock.monotonic() > deadline:
                raise self._lock_timed_out("process")
            self._clock.sleep(pause)
            pause = min(pause + 0.00002, 0.002)

    def _lock_timed_out(self, holder: str) -> LockTimeoutError:
        return LockTimeoutError(
            f"{self.directory}: another {holder} has held the partition's lock for "
            f"{self._lock_timeout:g} seconds; is it stopped?"
        )

    def _release(self) -> None:
        assert self._lock is not None
        try:
            self._lock.release()
        finally:
            self._mutex.release()

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
        Raises InvalidInputError for a record that cannot be stored or a batch that is too large
        (nothing is appended then), PoisonedError after a failed sync, LockTimeoutError.
        """
        if isinstance(records, Batch):
            return self.append_raw(records.raw, acks=acks, guard=guard)
        if acks not in _ACKS:
            raise _wrong_acks(acks)
        codec = self.config.codec_for(codec)
        now = self._clock.now_ms()
        sealed = seal_records(
            records,
            codec=codec,
            level=level,
            default_timestamp=now,
            append_timestamp=now if self._append_time else None,
        )
        self._check_size(sealed.size)
        writer = self._acquire()
        try:
            state = writer.enter()
            if guard is not None:
                guard(LogView(state.log_start_offset, state.next_offset, state.leader_epoch))
            base = state.next_offset
            raw = sealed.at(base, state.leader_epoch)
            last = base + sealed.record_count - 1
            writer.write(state, raw, base, ((len(raw), last, sealed.max_timestamp),))
        finally:
            self._release()
        if acks == "all":
            self._sync_to(last + 1)
        return Appended(base, last, sealed.max_timestamp)

    def append_raw(
        self,
        data: bytes,
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
        if acks not in _ACKS:
            raise _wrong_acks(acks)
        if origin not in ("client", "replica"):
            raise InvalidInputError(f"origin is client or replica, not {origin!r}")
        batches = list(iter_batches(data))
        if not batches:
            raise InvalidInputError("there is no batch to append")
        for batch in batches:
            self._check_ready(batch, gaps=origin == "replica")
        writer = self._acquire()
        try:
            state = writer.enter()
            if guard is not None:
                guard(LogView(state.log_start_offset, state.next_offset, state.leader_epoch))
            if origin == "client":
                batches = self._place(batches, state)
            else:
                self._check_offsets(batches, state)
                epoch = max(batch.header.leader_epoch for batch in batches)
                if epoch > state.leader_epoch:
                    advance_epoch(self._files, self.directory, epoch, state.next_offset)
                    state.leader_epoch = epoch
            sizes = [(b.header.size, b.header.last_offset, b.header.max_timestamp) for b in batches]
            base = batches[0].header.base_offset
            raw = b"".join(batch.raw for batch in batches) if origin == "client" else data
            writer.write(state, raw, base, sizes)
        finally:
            self._release()
        last = sizes[-1][1]
        if acks == "all":
            self._sync_to(last + 1)
        return Appended(base, last, max(size[2] for size in sizes))

    def _check_ready(self, batch: Batch, *, gaps: bool) -> None:
        header = batch.header
        if header.magic != 2:
            raise InvalidInputError(
                f"a batch of format {header.magic} can be read, but not appended: only format 2"
            )
        batch.check_crc()
        self._check_size(len(batch.raw))
        if not gaps and header.record_count != header.last_offset_delta + 1:
            raise InvalidInputError(
                f"a client's batch has no gaps: {header.record_count} records do not fill "
                f"{header.last_offset_delta + 1} offsets"
            )

    def _check_size(self, size: int) -> None:
        if size > self.config.max_message_bytes:
            raise InvalidInputError(
                f"{self.directory}: a batch of {size} bytes is larger than "
                f"max_message_bytes={self.config.max_message_bytes}"
            )

    def _place(self, batches: list[Batch], state: LogState) -> list[Batch]:
        placed = []
        offset = state.next_offset
        now = self._clock.now_ms()
        for batch in batches:
            if self._append_time:
                batch = batch.stamped(now)
            batch = batch.placed(offset, state.leader_epoch)
            placed.append(batch)
            offset = batch.header.next_offset
        return placed

    def _check_offsets(self, batches: list[Batch], state: LogState) -> None:
        expected = state.next_offset
        for batch in batches:
            if batch.header.base_offset < expected:
                raise InvalidInputError(
                    f"{self.directory}: a replica's batch begins at offset "
                    f"{batch.header.base_offset}, where {expected} or more was expected"
                )
            expected = batch.header.next_offset

    # Stable storage ---------------------------------------------------------------------------

    def flush(self) -> None:
        """Return when everything that was appended before the call is on stable storage."""
        self._sync_to(self.log_end_offset)

    def _sync_to(self, offset: int) -> None:
        """Sync until all records below ``offset`` are safe; one sync serves all that wait."""
        with self._sync_mutex:
            state = self._look().state
            if state.synced_offset >= offset:
                return
            if state.flags & POISONED:
                raise poisoned_error(self.directory)
            key = (state.generation, state.active_base)
            if self._sync_file is None or self._sync_file[0] != key:
                path = segment_path(self.directory, state.active_base, filenames.LOG)
                self._sync_file = key, self._files.open(path, write=True)
            try:
                self._sync_file[1].sync()
            except OSError:
                with self._locked() as writer:
                    writer.enter()
                    writer.poison()
                raise
            with self._locked() as writer:
                writer.note_synced(state.next_offset)

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
        if upto not in ("written", "synced"):
            raise InvalidInputError(f"upto is written or synced, not {upto!r}")
        if max_bytes < 1:
            raise InvalidInputError(f"max_bytes={max_bytes} is out of bounds: at least 1")
        for attempt in range(_READ_ATTEMPTS):
            view = self._look()
            state = view.state
            if not state.log_start_offset <= offset <= state.next_offset:
                raise OffsetOutOfRangeError(
                    self.directory, offset, state.log_start_offset, state.next_offset
                )
            limit = state.next_offset if upto == "written" else state.synced_offset
            try:
                return self._reader.read(view, offset, max_bytes=max_bytes, high_watermark=limit)
            except (FormatError, FileNotFoundError):
                # Somebody may have changed the files after the view was made: look again.
                if attempt + 1 == _READ_ATTEMPTS or self._look() is view:
                    raise
        raise AssertionError("unreachable")

    def offset_for_time(self, timestamp: int) -> tuple[int, int] | None:
        """``(offset, timestamp)`` of the first record whose timestamp (milliseconds) is not below
        ``timestamp``; None where there is no such record."""
        return self._reader.offset_for_time(self._look(), timestamp)

    def wait(self, offset: int, timeout: float | None = None) -> bool:
        """Wait until there is a record at ``offset`` or behind it, for ``timeout`` seconds at most
        (None: for ever), and say whether there is. Closing the log ends the wait with
        ClosedError."""
        deadline = None if timeout is None else self._clock.monotonic() + timeout
        pause = _SHORTEST_PAUSE
        while self._look().state.next_offset <= offset:
            if deadline is not None:
                left = deadline - self._clock.monotonic()
                if left <= 0:
                    return False
                pause = min(pause, left)
            self._clock.sleep(pause)
            pause = min(pause * 1.2, _LONGEST_PAUSE)
        return True

    def _look(self) -> View:
        """The log as it is now, without a lock."""
        if self._refusal is not None:
            self._refuse()
        view = self._view
        state_file = self._state_file
        if state_file is None or (self._read_only and not state_file.is_ours()):
            view = self._view = observe(self._files, self.directory, view)
            return view
        deadline = self._clock.monotonic() + self._lock_timeout
        while True:
            block = state_file.block()
            if view is not None and view.block == block:
                return view
            state = LogState.unpack(block)
            if state is not None and not state.generation & 1 and state_file.is_ours():
                bases = self._bases(state, view)
                if state_file.generation() == state.generation:
                    view = self._view = View(block, state, bases)
                    return view
            elif self._read_only:
                if self._clock.monotonic() > deadline:
                    raise LockTimeoutError(
                        f"{self.directory}: its files have been in change for "
                        f"{self._lock_timeout:g} seconds; was a writer killed? Open it for writing"
                    )
                self._clock.sleep(_SHORTEST_PAUSE)
            else:
                # Somebody is at it, or was killed at it: with the lock in hand one sees which.
                with self._locked() as writer:
                    writer.enter()

    def _bases(self, state: LogState, view: View | None) -> tuple[int, ...]:
        if view is not None and view.state.generation == state.generation:
            return view.bases
        bases = list_segments(self._files, self.directory)
        return tuple(base for base in bases if base <= state.active_base)


_READ_ATTEMPTS = 10
_SHORTEST_PAUSE = 0.0005
_LONGEST_PAUSE = 0.01


def _wrong_acks(acks: object) -> InvalidInputError:
    return InvalidInputError(f"acks is 0, 1 or 'all', not {acks!r}")


# Fork -----------------------------------------------------------------------------------------

_all_logs: weakref.WeakSet[PartitionLog] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for log in list(_all_logs):
        log._forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
