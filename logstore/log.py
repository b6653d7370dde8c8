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

from collections.abc import Callable, Sequence
from typing import Literal

from logstore.appending import (
    Acks,
    Appended,
    Guard,
    LogView,
    check_acks,
    check_read,
    check_timestamp,
)
from logstore.compaction import CompactionPlan, CompactionPreview, CompactionResult
from logstore.epochs import read_epochs
from logstore.errors import (
    InvalidInputError,
    OffsetOutOfRangeError,
)
from logstore.handle import PartitionHandle
from logstore.observer import steadily
from logstore.placing import (
    Sealed,
    Stamp,
    stamped_parts,
    write_ready,
    write_replica,
    write_sealed,
    write_stamped,
)
from logstore.producer_states import (
    ProducerStamp,
    ProducerState,
    check_stamp,
)
from logstore.reader import Fetch, View
from logstore.ready import (
    listed,
    ready_batches,
    refuse_keyless,
    sound_headers,
    too_large,
)
from logstore.retention import Decision, SegmentInfo
from logstore.segments.batch import Batch, seal_parts
from logstore.segments.checkpoint import EpochEntry
from logstore.segments.compression import Codec
from logstore.segments.record import Record
from logstore.writer import LogWriter

__all__ = ["Acks", "Appended", "LogView", "PartitionLog"]

_WRITTEN = 1


class PartitionLog(PartitionHandle):
    """The log in a directory. Usable from many threads; processes open their own.

    ``files`` and ``clock`` are the seams to the outside. With ``read_only`` nothing in the
    directory is made or changed, and appending raises ReadOnlyError. Opening raises FormatError
    when the log is damaged in front of good data.
    """

    # Appending --------------------------------------------------------------------------------

    def append(
        self,
        records: Sequence[Record] | Batch,
        *,
        acks: Acks = "all",
        codec: Codec = Codec.NONE,
        level: int | None = None,
        guard: Guard | None = None,
        producer: ProducerStamp | None = None,
        timeout: float | None = None,
    ) -> Appended:
        """Append records as one batch, or a ready batch, and return where they went.

        The records' own offsets are not looked at; a timestamp of -1 becomes the time of the
        append. ``guard`` is called under the lock and may raise to refuse (expected versions).
        ``producer`` stamps the batch as one of an idempotent producer: one that is there already is
        not appended again, and its place returned. ``timeout``: seconds to wait for the lock, where
        that is not to be the log's ``lock_timeout``.

        Raises InvalidInputError for a record that cannot be stored or a batch that is too large,
        OutOfOrderSequenceError and ProducerFencedError for a producer's batch, and appends nothing
        then; PoisonedError after a failed sync; LockTimeoutError.
        """
        if type(records) is not list:
            if isinstance(records, Batch):
                return self._append_ready(records, acks, guard, producer, timeout)
            records = listed(records)
        if acks is not _WRITTEN and acks != "all":  # a call less for the usual ones
            check_acks(acks)
        if self._chooses_codec or type(codec) is not Codec:
            codec = self.config.codec_for(codec)
        now = self._now_ms()
        if producer is not None:
            return self._append_stamped(records, acks, codec, level, now, guard, producer, timeout)
        sealed = seal_parts(records, codec, level, now, now if self._append_time else None, codec)
        if self._compacts:
            refuse_keyless(records, self.directory)
        if sealed[4] > self._max_message_bytes:
            raise too_large(sealed[4], self._max_message_bytes, self.directory)
        if acks == "all" and timeout is None:
            return self._group_commit.append(lambda writer: write_sealed(writer, sealed, guard)[0])
        lock, writer = self._writing or self._refuse()
        if lock.mutex.locked():  # otherwise not asked: a call less
            lock.threads(timeout)
        with lock.mutex:
            try:
                lock.acquire(timeout)
                appended, due = write_sealed(writer, sealed, guard)
            finally:
                lock.release()
        if due or acks == "all":
            self._group_commit.sync_to(appended.last_offset + 1)
        return appended

    def _append_stamped(
        self,
        records: list[Record],
        acks: Acks,
        codec: Codec,
        level: int | None,
        now: int,
        guard: Guard | None,
        stamp: ProducerStamp,
        timeout: float | None,
    ) -> Appended:
        """``append`` for an idempotent producer."""
        checked = producer_id, epoch, sequence, transactional = check_stamp(stamp)
        sealed = seal_parts(
            records,
            codec,
            level,
            now,
            now if self._append_time else None,
            codec | transactional << 4,
            producer_id,
            epoch,
            sequence,
        )
        if self._compacts:
            refuse_keyless(records, self.directory)
        if sealed[4] > self._max_message_bytes:
            raise too_large(sealed[4], self._max_message_bytes, self.directory)
        return self._append_checked(sealed, checked, acks, now, guard, timeout)

    def _append_checked(
        self,
        sealed: Sealed,
        stamp: Stamp,
        acks: Acks,
        now: int,
        guard: Guard | None,
        timeout: float | None,
    ) -> Appended:
        lock, writer = self._writing or self._refuse()
        if not writer.knows_producers():
            writer.producers.prepare(self._look)
        if lock.mutex.locked():  # otherwise not asked: a call less
            lock.threads(timeout)
        with lock.mutex:
            try:
                lock.acquire(timeout)
                appended, due = write_stamped(writer, sealed, guard, stamp, now)
            finally:
                lock.release()
        if due or acks == "all":
            self._group_commit.sync_to(appended.last_offset + 1)
        return appended

    def _append_ready(
        self,
        batch: Batch,
        acks: Acks,
        guard: Guard | None,
        producer: ProducerStamp | None,
        timeout: float | None,
    ) -> Appended:
        if producer is not None:
            raise InvalidInputError(
                "a ready batch bears its producer in its header: it cannot be given another one"
            )
        return self.append_raw(batch.raw, acks=acks, guard=guard, timeout=timeout)

    def append_raw(
        self,
        data: bytes | bytearray | memoryview | Sequence[Batch],
        *,
        acks: Acks = "all",
        origin: Literal["client", "replica"] = "client",
        guard: Guard | None = None,
        timeout: float | None = None,
    ) -> Appended:
        """Append whole batches of format 2 as they are, without opening them: their bytes, one
        behind the other, or the batches as they were read, whose checksums are not computed twice.

        From a ``client`` they get the next offsets (and, for LogAppendTime, the time), and those of
        idempotent producers are checked like ``append``'s: batches that are there already are left
        out. From a ``replica`` they keep offsets and leader epochs, which may leave gaps but not go
        back. Raises FormatError (also for a wrong CRC) or InvalidInputError, and what ``append``
        raises, and appends nothing then.
        """
        if acks is not _WRITTEN and acks != "all":  # a call less for the usual ones
            check_acks(acks)
        if origin not in ("client", "replica"):
            raise InvalidInputError(f"origin is client or replica, not {origin!r}")
        if origin == "replica":
            return self._append_replica(data, acks, guard, timeout)
        now, limit = self._now_ms(), self._max_message_bytes
        append_timestamp = now if self._append_time else None
        if type(data) is bytes and append_timestamp is None and not self._compacts:
            found = stamped_parts(data, limit)
            if found is not None:  # what a producer sends, nearly always
                sealed, stamp = found
                return self._append_checked(sealed, stamp, acks, now, guard, timeout)
        name, keyed = self.directory, self._compacts
        batches = ready_batches(data, gaps=False, max_bytes=limit, name=name, keyed=keyed)
        if any(batch.header.producer_id >= 0 for batch in batches):
            (self._writing or self._refuse())[1].producers.prepare(self._look)

        def write(writer: LogWriter) -> tuple[Appended, bool]:
            return write_ready(
                writer, batches, guard, append_timestamp=append_timestamp, now_ms=now
            )

        return self._append_by(write, acks, timeout)

    def _append_replica(
        self,
        data: bytes | bytearray | memoryview | Sequence[Batch],
        acks: Acks,
        guard: Guard | None,
        timeout: float | None,
    ) -> Appended:
        limit, name = self._max_message_bytes, self.directory
        raw = bytes(data) if isinstance(data, (bytes, bytearray, memoryview)) else b""
        headers = sound_headers(raw, limit)
        if headers is None:  # batches that were read; or it is said what is wrong
            batches = ready_batches(data, gaps=True, max_bytes=limit, name=name)
            headers = [batch.header for batch in batches]
            raw = b"".join(batch.raw for batch in batches)

        def write(writer: LogWriter) -> tuple[Appended, bool]:
            return write_replica(writer, raw, headers, guard, name=name)

        return self._append_by(write, acks, timeout)

    def _append_by(
        self,
        write: Callable[[LogWriter], tuple[Appended, bool]],
        acks: Acks,
        timeout: float | None,
    ) -> Appended:
        lock, writer = self._writing or self._refuse()
        if acks == "all" and timeout is None:
            return self._group_commit.append(lambda writer: write(writer)[0])
        with lock.threads(timeout):
            try:
                lock.acquire(timeout)
                appended, due = write(writer)
            finally:
                lock.release()
        if due or acks == "all":
            self._group_commit.sync_to(appended.last_offset + 1)
        return appended

    def producer_state(
        self, producer_id: int, *, timeout: float | None = None
    ) -> ProducerState | None:
        """What the log knows of a producer: its epoch, and its last batches; None for one that is
        not known. Takes the partition's lock; ``timeout`` as for ``append``."""
        lock, writer = self._writing or self._refuse()
        writer.producers.prepare(self._look)
        with lock.threads(timeout):
            try:
                lock.acquire(timeout)
                return writer.producers.get(writer.enter(), producer_id)
            finally:
                lock.release()

    def begin_leader_epoch(self, epoch: int) -> None:
        """Let the next batch of a client begin leader epoch ``epoch``, as whoever elects leaders
        has given it. Until then the log stays as it is.

        Raises InvalidInputError for an epoch that is lower than one that the log has come to, or
        that is due in it, and what ``append`` raises.
        """
        with self._locked() as writer:
            writer.plan_epoch(epoch)

    def leader_epochs(self) -> list[EpochEntry]:
        """Where each leader epoch begins in the log, ascending: what its
        ``leader-epoch-checkpoint`` says. Takes the partition's lock."""
        with self._locked() as writer:
            writer.enter()
            return read_epochs(self._files, self.directory)

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
        decisions = self._upkeep.retain(dry_run=dry_run)
        if not dry_run and any(decision.delete for decision in decisions):
            self._let_go_of_deleted()
        return decisions

    def _let_go_of_deleted(self) -> None:
        """Close what is open of segments that were deleted: until then the disk keeps their bytes,
        and an append that needs the room would never come to open another one."""
        self._group_commit.close()
        self._reader.close()

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

    def preview_compaction(self, *, memory_bytes: int = 24 << 20) -> CompactionPreview:
        """What a compaction would remove now, due or not: the same work, and nothing written.

        ``memory_bytes`` bounds what is remembered of keys, below ``cleaner_dedupe_buffer_bytes``.
        Raises FormatError for a damaged log, as :meth:`compact` does.
        """
        return self._upkeep.preview(memory_bytes)

    def delete_records(self, before: int) -> int:
        """Move the log start offset up to ``before``, never back, delete the segments wholly below
        it, and return where it is now. Raises OffsetOutOfRangeError beyond the log's end."""
        start = self._upkeep.delete_records(before)
        self._let_go_of_deleted()
        return start

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
        if self._refusal is not None:
            self._refuse()
        if self._writing is not None:  # who consumes what is published here asks for each message
            writer = self._writing[1]
            block, end = writer.written
            try:
                if block and block == writer.look():
                    return end
            except ValueError:
                pass  # another thread has just closed the mapping, which is told below
        return self._observer.look().state.next_offset

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
        upto: Literal["written", "synced"] | int = "written",
        cut: bool = True,
    ) -> Fetch:
        """Whole batches from the one that holds ``offset`` on: about ``max_bytes``, at least one.
        Unless ``cut``, what was read of the next one may stand behind them (see ``iter_views``).

        ``upto`` says which records are served: all, those on stable storage, or those below an
        offset, such as a high watermark. At the end of these the fetch is empty. Raises
        OffsetOutOfRangeError outside of the log, FormatError where it is damaged. CRCs are checked
        by whoever opens the batches.
        """
        check_read(offset, max_bytes, upto)

        def read(view: View) -> Fetch:
            state = view.state
            if not state.log_start_offset <= offset <= state.next_offset:
                raise OffsetOutOfRangeError(
                    self.directory, offset, state.log_start_offset, state.next_offset
                )
            if upto == "written":
                limit = state.next_offset
            elif upto == "synced":
                limit = state.synced_offset
            else:
                limit = min(upto, state.next_offset)
            return self._reader.read(
                view, offset, max_bytes=max_bytes, high_watermark=limit, cut=cut
            )

        return steadily(self._look, read)

    def offset_for_time(self, timestamp: int) -> tuple[int, int] | None:
        """``(offset, timestamp)`` of the first record whose timestamp (milliseconds) is not below
        ``timestamp``; None where there is no such record."""
        check_timestamp(timestamp)
        return steadily(self._look, lambda view: self._reader.offset_for_time(view, timestamp))

    def wait(self, offset: int, timeout: float | None = None) -> bool:
        """Wait until there is a record at ``offset``, for ``timeout`` seconds at most (None: for
        ever), and say whether there is. Raises OffsetOutOfRangeError when the log ends, or is cut,
        in front of ``offset``, as a read would; closing the log ends the wait with ClosedError."""
        return self._observer.wait(offset, timeout)
