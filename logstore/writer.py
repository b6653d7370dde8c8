"""What an appender does to a partition's files while it holds the lock.

The writer knows the shared state and the active segment's three files. It takes no lock, syncs
only where files come and go, and leaves the order of things to ``logstore.log``.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence

from logstore.active_segment import ActiveSegment
from logstore.appending import MAX_OFFSET, out_of_bounds
from logstore.epochs import MAX_EPOCH, advance_epochs
from logstore.errors import InvalidInputError
from logstore.segments import offset_index, time_index
from logstore.segments.checkpoint import EpochEntry
from logstore.segments.files import File, write_fully
from logstore.segments.gathering import Parts, write_parts
from logstore.segments.header import LOG_OVERHEAD_BYTES, BatchHeader
from logstore.segments.indexing import IndexProgress
from logstore.segments.offset_index import OffsetEntry
from logstore.segments.time_index import TimeEntry
from logstore.state import CLEAN, POISONED, Checkpoint, LogState, Marks
from logstore.structure import remove_segment, start_segment

__all__ = ["BatchSize", "LogWriter", "batch_size"]


BatchSize = tuple[int, int, int]
"""What the index rule has to know of a batch: size, last offset, largest timestamp."""


def batch_size(header: BatchHeader) -> BatchSize:
    """What the index rule has to know of the batch with this header."""
    last_offset = header.base_offset + header.last_offset_delta
    return header.length + LOG_OVERHEAD_BYTES, last_offset, header.max_timestamp


class LogWriter(ActiveSegment):
    """The writing side of a partition. Every method is for the holder of the partition's lock."""

    def write(
        self,
        state: LogState,
        raw: bytes | Parts,
        base_offset: int,
        batches: Sequence[BatchSize],
    ) -> bool:
        """Write ``raw``, which consists of ``batches``, and publish the new end.

        Returns whether it is time to sync the segment, outside the locks, so that the roll that is
        to come has little left to sync.
        """
        next_offset = batches[-1][1] + 1
        progress = state.progress
        size = batches[0][0] if len(batches) == 1 else sum(batch[0] for batch in batches)
        if (
            state.valid_end + size > self._segment_bytes
            or next_offset > self._max_next_offset
            or progress.offset_entries >= self._max_offset_entries
            or progress.time_entries >= self._max_time_entries
            or batches[0][2] - state.first_timestamp > self._roll_after_ms
            or len(batches) > 1
            or state.flags
        ):
            self._make_room(state, size, base_offset, batches)
            progress = state.progress
        start = position = state.valid_end
        log = self._log
        self.has_written = True
        # The state in memory runs ahead of the shared one until the new end is published; whatever
        # ends this early, Ctrl-C included, makes the next one to enter read the shared one again.
        self._block = b""
        try:
            if start == 0:
                state.first_timestamp = batches[0][2]
            offsets, times = [], []
            for batch_bytes, last_offset, max_timestamp in batches:
                offset_entry, time_entry = progress.add(
                    position, batch_bytes, last_offset, max_timestamp, self._index_interval_bytes
                )
                if offset_entry is not None:
                    offsets.append(offset_entry)
                    if time_entry is not None:
                        times.append(time_entry)
                position += batch_bytes
            if offsets:
                self._write_entries(state, offsets, times)
            if isinstance(raw, bytes):
                written = log.write_at(raw, start)
            else:
                written = write_parts(log, raw, start)
            if written != size:
                whole = raw if isinstance(raw, bytes) else b"".join(raw)
                write_fully(log, whole[written:], start + written)
        except BaseException as error:
            # What was written of the batch is cut off; if that fails too, the next appender finds
            # a torn tail.
            with contextlib.suppress(OSError):
                log.truncate(start)
            if isinstance(error, OSError) and error.filename is None:
                error.filename = log.path
            raise
        state.valid_end = position
        state.next_offset = state.last_stable_offset = next_offset
        if state.generation & 1:  # new leader epochs came with the batches
            state.generation += 1
        block = state.pack()
        self._store(block)
        self._block = block
        self.written = block, next_offset
        if position < self._sync_from:
            return False
        self._plan_sync(position)
        return True

    def _make_room(
        self, state: LogState, size: int, base_offset: int, batches: Sequence[BatchSize]
    ) -> None:
        """Roll the active segment if ``size`` bytes of batches should not, or cannot, go there."""
        next_offset = batches[-1][1] + 1
        if next_offset > MAX_OFFSET or next_offset - base_offset > offset_index.MAX_RELATIVE + 1:
            raise out_of_bounds(self._directory, base_offset, next_offset)
        if state.flags & CLEAN:
            self._remove_clean_mark(state)
        start = state.valid_end
        # An empty segment that begins at the same offset is as good as the one that a roll makes.
        if base_offset > state.active_base and (
            (start and start + size > self._segment_bytes)
            or (start and self._is_old(state, batches))
            or next_offset > self._max_next_offset
            or state.progress.offset_entries >= self._max_offset_entries
            or state.progress.time_entries >= self._max_time_entries
        ):
            self._roll(state, base_offset)

    def _remove_clean_mark(self, state: LogState) -> None:
        """Before the first write after a close: a power cut might take it without a trace.

        Commit point: the sync. It is one sync for each close, of any of the processes.
        """
        self._state_file.save_marks(self._state_file.marks()._replace(clean=False))
        state.flags &= ~CLEAN

    def knows_producers(self) -> bool:
        """Whether nobody has written since this handle knew all producers; also without the lock,
        as a guess."""
        return self._block == self.look() and self.producers.is_at(self._state.next_offset)

    def plan_epoch(self, epoch: int) -> None:
        """Let the next batch of a client begin this leader epoch. Nothing is written before that:
        whoever gives out epochs remembers them."""
        state = self.enter()
        reached = max(state.leader_epoch, state.due_epoch)
        if not reached <= epoch <= MAX_EPOCH:
            raise InvalidInputError(
                f"{self._directory}: leader epoch {epoch} is out of bounds: the log has come to "
                f"{reached}, and the largest is {MAX_EPOCH}"
            )
        state.due_epoch = epoch
        self._block = self._state_file.publish(state)

    def begin_due_epoch(self, state: LogState) -> None:
        """The leader epoch that is due begins with the batch that is written next."""
        self.begin_epochs(state, [EpochEntry(state.due_epoch, state.next_offset)])

    def begin_epochs(self, state: LogState, epochs: Sequence[EpochEntry]) -> None:
        """Note the leader epochs that begin with the batches that are written next.

        The generation stays odd until they are: whoever finds it so, because the write failed or
        its process was killed, brings the epochs back in line with the log.
        """
        self._block = b""
        state.generation |= 1
        self._state_file.publish(state)
        advance_epochs(self._files, self._directory, epochs)
        highest = max(state.leader_epoch, *(entry.epoch for entry in epochs))
        state.leader_epoch = epochs[-1].epoch
        if highest > state.leader_epoch:  # a leader's choice; a client begins one of its own
            state.due_epoch = max(state.due_epoch, highest + 1)

    def _is_old(self, state: LogState, batches: Sequence[BatchSize]) -> bool:
        """Whether so much time lies between the segment's first batch and the new ones that it is
        rolled. By the records' own time, as in Kafka: what is replayed is rolled like before."""
        first = state.first_timestamp
        newest = max(batch[2] for batch in batches)
        return first >= 0 and newest - first > self._roll_after_ms

    def _write_entries(
        self, state: LogState, offsets: Sequence[OffsetEntry], times: Sequence[TimeEntry]
    ) -> None:
        """Write the entries that are due with batches, before the batches themselves.

        An entry of a batch that is not written after all lies behind the index's end, which the
        state counts, and is overwritten by the next one.
        """
        base = state.active_base
        write_fully(
            self._offset_index,
            b"".join([offset_index.encode_entry(base, entry) for entry in offsets]),
            (state.progress.offset_entries - len(offsets)) * offset_index.ENTRY_BYTES,
        )
        if times:
            self._write_time_entries(state, times)
        elif self._time_index.size() > (
            end := state.progress.time_entries * time_index.ENTRY_BYTES
        ):
            self._time_index.truncate(end)  # a killed writer's, which nothing would overwrite

    def _write_time_entries(self, state: LogState, entries: Sequence[TimeEntry]) -> None:
        base = state.active_base
        write_fully(
            self._time_index,
            b"".join([time_index.encode_entry(base, entry) for entry in entries]),
            (state.progress.time_entries - len(entries)) * time_index.ENTRY_BYTES,
        )

    def _roll(self, state: LogState, base_offset: int) -> None:
        """Finish the active segment and begin the next one at ``base_offset``.

        The old segment is synced before the new one takes anything, so that a power cut never
        leaves a hole between them. Appenders wait for it: what was appended with ``acks=1`` since
        the last sync goes to disk under the locks. That is little where the segment is full (see
        ``write``), and up to half of the segment where it is rolled for its age.
        Commit point: the sync of the directory in ``start_segment``. While the files change the
        generation is odd; whoever finds it so, with the lock in hand, derives the state anew.
        """
        self.has_written = True
        try:
            self._finish_segment(state)
            self.sync_or_poison(self._log)
            self.producers.save(state, base_offset)
            before = dataclasses.replace(state)
            was_odd = state.generation & 1  # new leader epochs are being written: it stays so
            state.generation += 1 - was_odd
            self._state_file.publish(state)
            try:
                start_segment(self._files, self._directory, base_offset)
            except BaseException:
                # If that fails too, the generation stays odd, and whoever comes next makes the
                # new segment, as far as it is there, the active one.
                with contextlib.suppress(OSError):
                    remove_segment(self._files, self._directory, base_offset)
                    before.generation += 2
                    self._state_file.publish(before)
                raise
            state.generation += 1 + was_odd
            state.active_base = base_offset
            # The empty segment's name is the log's end, though a replica's batch may leave a gap
            # in front of it, and may not be written after all.
            state.next_offset = state.last_stable_offset = base_offset
            state.valid_end = 0
            state.first_timestamp = -1
            state.progress = IndexProgress()
            state.synced_offset = state.next_offset
            state.flags &= ~CLEAN
            self._block = self._state_file.publish(state)
            self._state_file.save_checkpoint(Checkpoint.of(state), Marks(due_epoch=state.due_epoch))
            self._open_active(state)
        except BaseException:
            self._block = b""
            raise

    def _finish_segment(self, state: LogState) -> None:
        """Bring the indexes of the active segment to where a roll or a clean close leaves them."""
        entry = state.progress.final_time_entry()
        if entry is not None:
            self._write_time_entries(state, [entry])
        self._trim_indexes(state)
        for file in (self._offset_index, self._time_index):
            self.sync_or_poison(file)

    def sync_or_poison(self, file: File) -> None:
        """Sync one of the active segment's files; when that fails the log is poisoned."""
        try:
            file.sync()
        except OSError:
            self.poison()
            raise

    @contextlib.contextmanager
    def restructure(self) -> Iterator[LogState]:
        """Change the set of files: the generation is odd inside, and moves on behind.

        When the change fails in the middle the generation stays odd, and whoever comes next
        finishes it or takes it back (``logstore.loader``).
        """
        state = self.enter()
        self._block = b""
        state.generation += 1
        self._state_file.publish(state)
        yield state
        state.generation += 1
        self._state_file.publish(state)

    def cut(self, to: int, change: Callable[[LogState], None]) -> None:
        """Take away the end of the log from ``to`` on by ``change``, and derive the state anew.

        The checkpoint goes first: it may say that more is on stable storage than will be there.
        What stands there instead is ``to``, and no recovery lets the log end in front of it.
        """
        state = self.enter()
        if state.synced_offset < to:  # or a power cut could leave a hole in front of `to`
            self.sync_or_poison(self._log)
        self._state_file.drop_checkpoint(lowest_end=to)
        self._block = b""
        state.generation += 1
        self._state_file.publish(state)
        change(state)
        self._open_active(self._recover())

    def roll(self, state: LogState) -> None:
        """Finish the active segment, unless it is empty, and begin the next one."""
        if state.valid_end:
            self._roll(state, state.next_offset)

    def close_segment(self) -> None:
        """Note that all is synced, unless somebody has appended since: then it is for them."""
        state = self.enter()
        if state.synced_offset == state.next_offset:
            self._finish_segment(state)
            self.producers.save(state, state.next_offset)
            # In the shared state first: whoever writes behind the mark has to know of it.
            state.flags |= CLEAN
            self._block = self._state_file.publish(state)
            self._state_file.save_checkpoint(
                Checkpoint.of(state), Marks(clean=True, due_epoch=state.due_epoch)
            )

    def note_synced(self, seen: LogState) -> None:
        """Tell everybody that all that was there when ``seen`` was, is on stable storage.

        If the files have changed since, offsets may belong to other records now: nothing is said.
        """
        state = self.enter()
        if state.generation == seen.generation and state.synced_offset < seen.next_offset:
            state.synced_offset = seen.next_offset
            self._block = self._state_file.publish(state)

    def poison(self) -> None:
        """Make every process refuse to write: what a failed sync was to save may be lost.

        Only the flag changes in what is shared. Nothing else is looked at first, a tail that needs
        settling least of all: it could fail, and the failed sync be forgotten over it.
        """
        self._block = b""
        state = LogState.unpack(self._state_file.block())
        if state is None:  # to be derived anew, which an odd generation says
            state = self._state_file.leftover(self._state.generation)
            state.generation |= 1
        state.flags |= POISONED
        self._state_file.publish(state)
