"""Maintenance of one partition: retention, compaction, and cutting either end.

Looking and deciding needs no lock. Files are changed under the partition's lock; what takes long
(writing cleaned segments) happens outside it, on closed segments. Compaction and truncation keep
out of each other's way by a lock of their own, ``cleaner``.
"""

from __future__ import annotations

import collections
import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace

from logstore.appending import check_offset
from logstore.cleaner import CleanedGroup, Cleaner
from logstore.clock import Clock
from logstore.compaction import (
    CompactionPlan,
    CompactionPreview,
    CompactionResult,
    group_segments,
    plan_compaction,
)
from logstore.config import LogConfig
from logstore.errors import (
    InvalidInputError,
    LockTimeoutError,
    OffsetOutOfRangeError,
    PoisonedError,
)
from logstore.observer import steadily
from logstore.producer_log import advance
from logstore.producer_states import ProducerState, ProducerStates
from logstore.reader import LogReader, View
from logstore.retention import Decision, SegmentInfo, decide
from logstore.segments import filenames
from logstore.segments.batch import Batch
from logstore.segments.files import Files
from logstore.segments.filtering import OpenBatch
from logstore.segments.scan import Damage, scan
from logstore.state import LogState
from logstore.structure import (
    CLEANER_LOCK,
    NO_ROOM,
    UNSWAPPED,
    delete_segments,
    drop_below,
    drop_snapshots,
    list_segments,
    purge,
    read_offset,
    remove_below,
    rewrite_log,
    segment_path,
    swap_in,
    write_offset,
)
from logstore.writer import LogWriter

__all__ = ["Upkeep"]


class Upkeep:
    """What ``PartitionLog`` delegates; everything it needs is passed in."""

    def __init__(
        self,
        files: Files,
        directory: str,
        config: LogConfig,
        clock: Clock,
        *,
        look: Callable[[], View],
        locked: Callable[[], AbstractContextManager[LogWriter]],
        reader: LogReader,
    ) -> None:
        self._files = files
        self._directory = directory
        self._config = config
        self._clock = clock
        self._look = look
        self._locked = locked
        self._reader = reader

    def configure(self, config: LogConfig) -> None:
        """Go on by this configuration."""
        self._config = config

    def segments(self) -> list[SegmentInfo]:
        """What there is of every segment, oldest first, the active one last."""
        return steadily(self._look, self._reader.segments)

    # Retention --------------------------------------------------------------------------------

    def retain(self, *, dry_run: bool = False) -> list[Decision]:
        """Delete what retention no longer keeps, and return what was decided of every segment."""
        view, decisions = steadily(self._look, lambda view: (view, self._decide(view)))
        if dry_run or not any(decision.delete for decision in decisions):
            return decisions
        with self._locked() as writer:
            state = writer.enter()
            if state.generation != view.state.generation:
                # The log may have been cut: what was decided of its offsets is void.
                decisions = self._decide(self._look())
            doomed = [decision.segment for decision in decisions if decision.delete]
            if not doomed:
                return decisions
            last = doomed[-1]
            if last.active:
                # Somebody may have appended since; then the segment is no longer what was decided.
                if state.next_offset != last.next_offset:
                    doomed.pop()
                else:
                    self._roll(writer, state, doomed)
            if doomed:
                self._move_start(writer, max(state.log_start_offset, doomed[-1].next_offset))
        return decisions

    def _decide(self, view: View) -> list[Decision]:
        return decide(
            self._reader.segments(view),
            self._config,
            now_ms=self._clock.now_ms(),
            log_start_offset=view.state.log_start_offset,
        )

    def delete_records(self, before: int) -> int:
        """Move the log start offset to ``before``, and delete the segments wholly below it: the
        active one, too, where nothing is to be left."""
        check_offset(before)
        with self._locked() as writer:
            state = writer.enter()
            if not 0 <= before <= state.next_offset:
                raise OffsetOutOfRangeError(
                    self._directory, before, state.log_start_offset, state.next_offset
                )
            if before > state.log_start_offset:
                if before == state.next_offset:
                    self._roll_emptied(writer, state)
                self._move_start(writer, before)
            return max(before, state.log_start_offset)

    def drop_segments(self, bases: Sequence[int]) -> list[int]:
        """Delete closed segments, also in the middle of the log, and return which were there.

        Commit point, of each segment: the rename of its log (``structure.delete_segments``). A
        crash before it leaves the segment, perhaps without indexes; after it, a gap.
        """
        with self._locked() as writer:
            state = writer.enter()
            present = list_segments(self._files, self._directory)
            doomed = [b for b in present if b in set(bases) and b != state.active_base]
            if not doomed:
                return []
            kept = [base for base in present if base not in doomed]
            if kept[0] > present[0]:
                # What is in front of the first one that stays is a matter of the log's start.
                self._move_start(writer, max(kept[0], state.log_start_offset))
                doomed_inside = [base for base in doomed if base > kept[0]]
            else:
                doomed_inside = doomed
            if doomed_inside:
                with writer.restructure():
                    delete_segments(self._files, self._directory, doomed_inside)
            return doomed

    def _roll_emptied(self, writer: LogWriter, state: LogState) -> None:
        """Roll the active segment, of which nothing is to be left; where there is no room even when
        the older ones are gone, it stays."""
        for attempt in range(2):
            try:
                writer.roll(state)
                return
            except OSError as error:
                if error.errno not in NO_ROOM:
                    raise
                try:
                    state = writer.enter()
                except PoisonedError:  # it was a sync that found no room
                    raise error from None
            if not attempt:
                self._move_start(writer, state.active_base, at_once=True)
                state = writer.enter()

    def _roll(self, writer: LogWriter, state: LogState, doomed: list[SegmentInfo]) -> None:
        """Roll the active segment; where there is no room for that, the older ones go first."""
        try:
            writer.roll(state)
        except OSError as error:
            if error.errno not in NO_ROOM or len(doomed) < 2:
                raise
            self._move_start(writer, doomed[-2].next_offset, at_once=True)
            writer.roll(writer.enter())

    def _move_start(self, writer: LogWriter, offset: int, *, at_once: bool = False) -> None:
        """Commit point: the log start offset in its checkpoint (``structure.drop_below``).

        It is written with the generation odd: a checkpoint that the state knows nothing of might
        later lie behind the end of a log that was cut, and would take what was appended since.
        On a full disk the oldest segments are removed until it can be written (with ``at_once``
        all of them are): ``structure.remove_below``.
        """
        with writer.restructure() as state:
            room = remove_below(self._files, self._directory, offset)
            if at_once:
                collections.deque(room, maxlen=0)
            while True:
                try:
                    write_offset(
                        self._files, self._directory, filenames.LOG_START_CHECKPOINT, offset
                    )
                    break
                except OSError as error:
                    if error.errno not in NO_ROOM or next(room, None) is None:
                        raise
            state.log_start_offset = offset
            drop_below(self._files, self._directory, offset)
            drop_snapshots(self._files, self._directory, end=state.next_offset)

    def purge(self, *, at_once: bool = False) -> None:
        """Remove the files that were deleted ``file_delete_delay_ms`` ago (or whenever).

        That is told by the file itself, which changed when it was renamed: the process that did it
        may have ended long ago.
        """
        now = self._clock.now_ms()
        for name in self._files.names(self._directory):
            if not name.endswith(filenames.DELETED):
                continue
            path = os.path.join(self._directory, name)
            with contextlib.suppress(FileNotFoundError):  # another process was as quick
                # A time that lies far ahead is of a clock that was set back since.
                age = abs(now - self._files.times_ms(path)[1])
                if at_once or age >= self._config.file_delete_delay_ms:
                    self._files.remove(path)

    # Truncation -------------------------------------------------------------------------------

    def truncate(self, to: int) -> None:
        """Cut the log so that it ends at ``to``."""
        check_offset(to)
        with self._cleaner_lock(), self._locked() as writer:
            state = writer.enter()
            if not state.log_start_offset <= to <= state.next_offset:
                raise OffsetOutOfRangeError(
                    self._directory, to, state.log_start_offset, state.next_offset
                )
            if to == state.next_offset:
                return
            first_dirty = read_offset(self._files, self._directory, filenames.CLEANER_CHECKPOINT)
            if first_dirty is not None and first_dirty > to:
                write_offset(self._files, self._directory, filenames.CLEANER_CHECKPOINT, to)
            writer.cut(to, lambda before: self._cut(writer, before, to))

    def _cut(self, writer: LogWriter, state: LogState, to: int) -> None:
        """Later segments go first, newest first and each on its own, so that a crash leaves a log
        without holes; commit point of the last step: the rename, or the sync of the cut log.

        Where compaction took what stood in front of ``to``, its offsets are not given out again:
        the recovery that follows, here or after a crash, knows where the log has to end.
        """
        bases = list_segments(self._files, self._directory)
        target = max((base for base in bases if base <= to), default=bases[0])
        for base in reversed(bases):
            if base > target:
                delete_segments(self._files, self._directory, [base])
        self._cut_segment(writer, state, target, to)

    def _cut_segment(self, writer: LogWriter, state: LogState, target: int, to: int) -> None:
        """Cut the segment ``target``."""
        path = segment_path(self._directory, target, filenames.LOG)
        file = self._files.open(path, write=True)
        try:
            end = state.valid_end if target == state.active_base else file.size()
            position, straddling = _position_of(file.path, scan(file, end=end), to, end)
            rest = b"" if straddling is None else _beginning(straddling, to)
            if not rest and target == state.active_base:
                file.truncate(position)
                writer.sync_or_poison(file)  # what was appended lately may be in it, unsynced
                return
            rewrite_log(self._files, file, position, rest)
        finally:
            file.close()

    # Compaction -------------------------------------------------------------------------------

    def plan(self) -> CompactionPlan:
        """Whether the log is due for compaction, and why."""
        return steadily(self._look, self._plan)

    def _plan(self, view: View) -> CompactionPlan:
        start = view.state.log_start_offset
        dirty = read_offset(self._files, self._directory, filenames.CLEANER_CHECKPOINT)
        first_dirty = start if dirty is None else min(max(dirty, start), view.state.next_offset)
        segments = self._reader.segments(view)
        oldest = next((s for s in segments[:-1] if s.next_offset > first_dirty and s.size), None)
        return plan_compaction(
            segments,
            self._config,
            now_ms=self._clock.now_ms(),
            first_dirty_offset=first_dirty,
            last_stable_offset=view.state.last_stable_offset,
            oldest_dirty_timestamp=oldest
            and self._reader.first_timestamp(view, oldest.base_offset),
        )

    def preview(self, memory_bytes: int) -> CompactionPreview:
        """What a compaction would remove; keys are remembered in ``memory_bytes`` at most."""
        memory_bytes = min(memory_bytes, self._config.cleaner_dedupe_buffer_bytes)
        config = replace(self._config, cleaner_dedupe_buffer_bytes=memory_bytes)

        def preview(view: View) -> CompactionPreview:
            plan = self._plan(view)
            if not plan.dirty_bytes:
                return CompactionPreview(plan, 0, 0, True)
            dropped = size = 0

            def take(cleaned: CleanedGroup) -> None:
                nonlocal dropped, size
                dropped += cleaned.records_dropped
                size += cleaned.size

            cleaner = self._cleaner(view, config, None, dry_run=True)
            cleaned_to = self._clean(cleaner, view, plan, take)
            before = sum(s.size for s in self._reader.segments(view) if s.base_offset < cleaned_to)
            return CompactionPreview(plan, dropped, before - size, cleaned_to >= plan.end_offset)

        return steadily(self._look, preview)

    def compact(
        self, *, force: bool = False, report: Callable[[int], None] | None = None
    ) -> CompactionResult:
        """Compact the log if it is due (or, with ``force``, if anything is dirty)."""
        if not self._config.compacts:
            raise InvalidInputError(
                f"{self._directory}: cleanup_policy={self._config.cleanup_policy} does not compact"
            )
        with self._cleaner_lock():
            # Looking comes first: it finishes a swap that was begun, which needs the note.
            before = self.segments()
            purge(self._files, self._directory, UNSWAPPED)
            reason = ""
            passes = dropped = 0
            while True:
                view, plan = steadily(self._look, lambda view: (view, self._plan(view)))
                reason = reason or plan.reason
                # What more passes than one are needed for is due, whatever the ratio says.
                if not plan.dirty_bytes or not (plan.due or force or passes):
                    break
                try:
                    dropped += self._pass(view, plan, report)
                except FileNotFoundError:
                    if self._look() is view:
                        raise
                    # Retention was quicker with some segments; the next pass sees what is left.
                    purge(self._files, self._directory, UNSWAPPED)
                passes += 1
            after = self.segments()
        return CompactionResult(
            reason,
            passes,
            len(before),
            len(after),
            sum(segment.size for segment in before),
            sum(segment.size for segment in after),
            dropped,
            plan.first_dirty_offset,
        )

    def _pass(self, view: View, plan: CompactionPlan, report: Callable[[int], None] | None) -> int:
        dropped = 0

        def take(cleaned: CleanedGroup) -> None:
            nonlocal dropped
            if cleaned.changed:
                self._swap(cleaned)
            dropped += cleaned.records_dropped

        end = self._clean(self._cleaner(view, self._config, report), view, plan, take)
        write_offset(self._files, self._directory, filenames.CLEANER_CHECKPOINT, end)
        return dropped

    def _cleaner(
        self,
        view: View,
        config: LogConfig,
        report: Callable[[int], None] | None,
        *,
        dry_run: bool = False,
    ) -> Cleaner:
        producers: ProducerStates | None = None

        def producer(producer_id: int) -> ProducerState | None:
            nonlocal producers
            if producers is None:  # most logs need none
                producers = self._producers(view)
            return producers.known().get(producer_id)

        return Cleaner(
            self._files,
            self._directory,
            config,
            self._clock.now_ms(),
            producer,
            report or (lambda _: None),
            dry_run,
        )

    def _clean(
        self,
        cleaner: Cleaner,
        view: View,
        plan: CompactionPlan,
        take: Callable[[CleanedGroup], object],
    ) -> int:
        """Hand over group after group as it is cleaned; return the offset up to which all is."""
        segments = [s for s in self._reader.segments(view) if s.base_offset < plan.end_offset]
        keys = cleaner.build_map(segments, plan)
        segments = [s for s in segments if s.base_offset < keys.end_offset]
        transactions = cleaner.transactions(segments)
        for group in group_segments(segments, self._config):
            take(cleaner.clean_group(group, keys, transactions))
        return keys.end_offset

    def _producers(self, view: View) -> ProducerStates:
        """The producers that are not forgotten by now."""
        now_ms, config = self._clock.now_ms(), self._config
        known = advance(
            None,
            self._files,
            self._directory,
            config,
            self._reader,
            view,
            now_ms=now_ms,
            every_segment=True,
        )
        known.states.forget_expired(now_ms, config.producer_id_expiration_ms)
        return known.states

    def _swap(self, cleaned: CleanedGroup) -> None:
        with self._locked() as writer:
            state = writer.enter()
            present = list_segments(self._files, self._directory)
            if not set(cleaned.replaced) <= set(present):
                # Retention was quicker with some of them; the next pass sees what is left.
                purge(self._files, self._directory, UNSWAPPED)
                return
            assert state.active_base not in cleaned.replaced
            with writer.restructure():
                swap_in(self._files, self._directory, cleaned.base_offset, cleaned.replaced)
                drop_snapshots(self._files, self._directory, end=state.next_offset)

    @contextlib.contextmanager
    def _cleaner_lock(self) -> Iterator[None]:
        self._look()  # the directory may be another topic's by now: then this raises
        lock = self._files.lock(os.path.join(self._directory, CLEANER_LOCK))
        try:
            try:
                lock.acquire()
            except BlockingIOError:
                raise LockTimeoutError(
                    f"{self._directory}: another process or thread is compacting or cutting the log"
                ) from None
            yield
        finally:
            lock.close()


def _position_of(
    path: str, items: Iterator[Batch | Damage], offset: int, end: int
) -> tuple[int, Batch | None]:
    """Where the first batch begins that is not wholly below ``offset``, and that batch if it begins
    below all the same."""
    for item in items:
        if isinstance(item, Damage):
            raise item.error(path)
        if item.header.last_offset >= offset:
            straddling = item if item.header.base_offset < offset else None
            return item.position, straddling
    return end, None


def _beginning(batch: Batch, to: int) -> bytes:
    """The batch without its records from ``to`` on; nothing if compaction took all others."""
    if batch.header.magic < 2:
        raise InvalidInputError(
            f"offset {to} lies inside a message of format {batch.header.magic}, which can only be "
            f"cut as a whole: at {batch.header.base_offset} or {batch.header.next_offset}"
        )
    batch.check_crc()
    opened = OpenBatch(batch)
    deltas = opened.places.offset_deltas
    kept = [index for index, d in enumerate(deltas) if batch.header.base_offset + d < to]
    return opened.keep(kept, last_offset=to - 1) if kept else b""
