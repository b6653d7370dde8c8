"""Opening a partition: what its files say when its ``state`` cannot be trusted.

States of a partition's directory, and what an opening finds in each:

- *attached*: the state was derived since the machine started. Nothing is read but the state; a
  tail that a killed writer left behind the valid end is settled by :func:`settle_tail`.
- *closed cleanly*: the machine restarted, the checkpoint is marked as that of a close, and ends
  where the log does. Nothing is scanned.
- *crashed*: everything behind the checkpoint (the whole active segment where there is none) is
  scanned. What was torn is cut; damage in front of good batches, or of what the checkpoint says
  was on stable storage, raises.
- *poisoned*: a sync failed. The cache may say what the disk does not, so the active segment is
  written anew (:func:`_rewrite_active`) before anything else.

All of it happens under the partition's lock.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

from logstore.config import LogConfig
from logstore.epochs import settle_epochs
from logstore.segments import filenames, offset_index, time_index
from logstore.segments.batch import Batch
from logstore.segments.checkpoint import EpochEntry
from logstore.segments.errors import ChecksumError, FormatError
from logstore.segments.files import File, Files, write_fully
from logstore.segments.indexing import IndexProgress
from logstore.segments.scan import Damage, has_unwritten_sector, survey
from logstore.state import CLEAN, POISONED, Checkpoint, LogState, StateFile
from logstore.structure import (
    drop_below,
    drop_snapshots,
    finish_swaps,
    list_segments,
    read_offset,
    rewrite_log,
    segment_path,
    start_segment,
)

__all__ = ["recover", "settle_tail"]

_log = logging.getLogger("logstore")

_HOLE_SEARCH_BYTES = 64 << 20


def recover(
    files: Files,
    directory: str,
    config: LogConfig,
    state_file: StateFile,
    *,
    known_generation: int,
    sync_failed: Callable[[], None],
) -> LogState:
    """Derive the state of a log from its files, and put the files in order.

    What the state said is trusted for nothing but its ``leftover``, and the generation moves on for
    the other processes to notice; ``known_generation`` is one that the caller has seen.
    ``sync_failed`` is called when the log cannot be synced. Raises FormatError for damage that is
    no torn tail; nothing has been changed then.
    """
    previous = state_file.leftover(known_generation)
    marks = state_file.marks()
    same_boot = state_file.is_ours()
    if same_boot:
        # What a killed process renamed is seen, and may not be on stable storage yet. From here on
        # others rely on it.
        files.sync_directory(directory)
    finish_swaps(files, directory)
    log_start_offset = read_offset(files, directory, filenames.LOG_START_CHECKPOINT) or 0
    drop_below(files, directory, log_start_offset)
    bases = list_segments(files, directory)
    is_new = not bases and not log_start_offset
    if not bases:
        start_segment(files, directory, log_start_offset)
        bases = (log_start_offset,)
    active = bases[-1]
    poisoned = bool(previous.flags & POISONED)
    generation = (previous.generation + 2) & ~1
    state = LogState(
        generation=generation,
        active_base=active,
        log_start_offset=max(bases[0], log_start_offset),
        next_offset=active,
        due_epoch=max(previous.due_epoch, marks.due_epoch),
        flags=CLEAN if marks.clean else 0,
        tail_generation=generation,
    )
    log_path = segment_path(directory, active, filenames.LOG)
    file = files.open(log_path, write=True)
    try:
        size = file.size()
        checkpoint = state_file.checkpoint()
        synced_end = 0
        if checkpoint is not None and checkpoint.active_base == active:
            synced_end = checkpoint.valid_end
            if synced_end <= size and _indexes_reach(files, directory, checkpoint):
                state.valid_end = synced_end
                state.next_offset = checkpoint.next_offset
                state.first_timestamp = checkpoint.first_timestamp
                state.progress = replace(checkpoint.progress)
        # Where it ends at the checkpoint all the same, a power cut may have taken what was behind.
        clean = marks.clean and not poisoned and size == synced_end == state.valid_end
        # After a failed sync, pages that the cache has dropped read as what the disk has.
        may_have_holes = poisoned or not same_boot
        tail = _read_tail(file, state, config, may_have_holes=may_have_holes, synced_end=synced_end)
        # A closed segment that a backup linked to may be the last one, if a truncation was broken
        # off. Backups are not written to.
        if poisoned or files.links(log_path) > 1:
            file = _rewrite_active(files, file, state.valid_end)
        elif state.valid_end < size:
            _warn_of_cut(log_path, state.valid_end, size, tail.reason)
            file.truncate(state.valid_end)
        if not clean:
            try:
                file.sync()
            except OSError:
                sync_failed()
                raise
    finally:
        file.close()
    # Even behind a clean end: a power cut may have kept entries of batches that it took.
    tail.write_indexes(files, directory, state)
    lowest_end = max(log_start_offset, marks.lowest_end)
    if state.next_offset < lowest_end:
        state = _go_on_at(files, directory, state, lowest_end)
    drop_snapshots(files, directory, end=state.next_offset)
    state.synced_offset = state.last_stable_offset = state.next_offset

    def save_due(epoch: int) -> None:
        if epoch > marks.due_epoch:
            state_file.save_marks(marks._replace(due_epoch=epoch))

    lost_memory = not clean and (poisoned or not same_boot) and not is_new
    settle_epochs(
        files, directory, state, met=tail.epochs, lost_memory=lost_memory, save_due=save_due
    )
    return state


def _go_on_at(files: Files, directory: str, state: LogState, offset: int) -> LogState:
    """Let a log that ends in front of ``offset`` go on there; returns its state.

    A power cut took records that had been deleted anyway, or a truncation ends where compaction
    left a gap. Offsets are not given out twice: an empty segment holds the log's end in its name.
    """
    # As a roll leaves them: from now on nobody puts the indexes of the segment in front in order.
    position = state.progress.time_entries * time_index.ENTRY_BYTES
    last = state.progress.final_time_entry()
    for suffix in (filenames.OFFSET_INDEX, filenames.TIME_INDEX):
        index = files.open(segment_path(directory, state.active_base, suffix), write=True)
        try:
            if suffix == filenames.TIME_INDEX and last is not None:
                write_fully(index, time_index.encode_entry(state.active_base, last), position)
            index.sync()
        finally:
            index.close()
    start_segment(files, directory, offset)
    drop_below(files, directory, state.log_start_offset)
    return replace(
        state,
        active_base=offset,
        valid_end=0,
        next_offset=offset,
        first_timestamp=-1,
        progress=IndexProgress(),
    )


def settle_tail(
    files: Files, directory: str, file: File, state: LogState, config: LogConfig
) -> None:
    """Take in what a killed writer left behind the valid end, and cut the part that is torn.

    Whole batches stay: they were written, if never acknowledged. Raises FormatError when what
    stands there is not the work of a writer that was killed; nothing has been changed then.
    """
    size = file.size()
    tail = _read_tail(file, state, config, may_have_holes=False, synced_end=0)
    if state.valid_end < size:
        _warn_of_cut(file.path, state.valid_end, size, tail.reason)
        file.truncate(state.valid_end)
    tail.write_indexes(files, directory, state)
    state.last_stable_offset = state.next_offset


class _Tail:
    """The index entries and leader epochs of a tail, and why it ended where it did."""

    def __init__(self, progress: IndexProgress) -> None:
        self._offset_position = progress.offset_entries * offset_index.ENTRY_BYTES
        self._time_position = progress.time_entries * time_index.ENTRY_BYTES
        self.offsets: list[bytes] = []
        self.times: list[bytes] = []
        self.epochs: list[EpochEntry] = []
        """Each is higher than the one before."""
        self.reason = ""

    def write_indexes(self, files: Files, directory: str, state: LogState) -> None:
        """Put the entries into the index files of the active segment, and nothing behind them."""
        for suffix, position, entries in (
            (filenames.OFFSET_INDEX, self._offset_position, self.offsets),
            (filenames.TIME_INDEX, self._time_position, self.times),
        ):
            path = segment_path(directory, state.active_base, suffix)
            file = files.open(path, write=True, create=True)
            try:
                data = b"".join(entries)
                if file.size() != position + len(data):
                    file.truncate(position)
                if data:
                    write_fully(file, data, position)
            finally:
                file.close()


def _read_tail(
    file: File, state: LogState, config: LogConfig, *, may_have_holes: bool, synced_end: int
) -> _Tail:
    """Move ``state`` over the whole batches that stand behind its valid end.

    Up to ``synced_end`` the log was on stable storage once: no crash tears anything there.
    """
    tail = _Tail(state.progress)
    base = state.active_base
    items = survey(file, start=state.valid_end)
    for item in items:
        bad = _what_is_wrong(item, state.next_offset, file.path)
        if bad is not None:
            if state.valid_end < synced_end:
                raise _lost(file.path, state.valid_end, synced_end, bad.reason)
            # Behind a place that is no batch, the search may find one in the value of a torn
            # record. It belongs to another log, and most of those begin at lower offsets.
            lowest = state.next_offset if isinstance(item, Damage) else 0
            good = next((i for i in items if _is_good(i, lowest)), None)
            # A torn write is the last thing in a file, unless a power cut tore it: then sectors
            # in the middle may be missing (assumption 3 of docs/crash-safety.md).
            if good is not None and not (
                may_have_holes and _has_hole(file, state.valid_end, good.position)
            ):
                raise bad
            tail.reason = bad.reason
            break
        assert isinstance(item, Batch)
        header = item.header
        if state.valid_end == 0:
            state.first_timestamp = header.max_timestamp
        offset_entry, time_entry = state.progress.add(
            item.position,
            header.size,
            header.last_offset,
            header.max_timestamp,
            config.index_interval_bytes,
        )
        if offset_entry is not None:
            tail.offsets.append(offset_index.encode_entry(base, offset_entry))
        if time_entry is not None:
            tail.times.append(time_index.encode_entry(base, time_entry))
        state.valid_end += header.size
        state.next_offset = header.next_offset
        if header.leader_epoch > (tail.epochs[-1].epoch if tail.epochs else -1):
            tail.epochs.append(EpochEntry(header.leader_epoch, header.base_offset))
    if state.valid_end < synced_end:
        _log.warning(
            "%s: it ends at byte %d, and %d bytes were on stable storage: somebody has cut it",
            file.path,
            state.valid_end,
            synced_end,
        )
    return tail


def _lost(path: str, position: int, synced_end: int, reason: str) -> FormatError:
    return FormatError(
        f"damage in what was on stable storage, up to byte {synced_end} ({reason}); "
        "`logstore repair` takes it out",
        path=path,
        position=position,
    )


def _what_is_wrong(item: Batch | Damage, next_offset: int, path: str) -> FormatError | None:
    if isinstance(item, Damage):
        return item.error(path)
    if item.header.base_offset < next_offset:
        return FormatError(
            "the offsets go back",
            path=path,
            position=item.position,
            expected=f"at least {next_offset}",
            found=item.header.base_offset,
        )
    try:
        item.check_crc()
    except ChecksumError as error:
        return error
    return None


def _is_good(item: Batch | Damage, lowest: int) -> bool:
    return isinstance(item, Batch) and item.header.base_offset >= lowest and item.crc_ok


def _has_hole(file: File, position: int, end: int) -> bool:
    size = min(end - position, _HOLE_SEARCH_BYTES)
    return has_unwritten_sector(file.read_at(size, position), position)


def _indexes_reach(files: Files, directory: str, checkpoint: Checkpoint) -> bool:
    progress = checkpoint.progress
    for suffix, size in (
        (filenames.OFFSET_INDEX, progress.offset_entries * offset_index.ENTRY_BYTES),
        (filenames.TIME_INDEX, progress.time_entries * time_index.ENTRY_BYTES),
    ):
        path = segment_path(directory, checkpoint.active_base, suffix)
        if not files.exists(path) or files.size(path) < size:
            return False
    return True


def _rewrite_active(files: Files, file: File, valid_end: int) -> File:
    """Write the active segment anew, from what can still be read and proves itself.

    After a failed sync the kernel may call pages clean that never reached the disk, and syncing
    them again does nothing. New pages in a new file are written for certain, or fail for certain.
    Commit point: the rename (``structure.rewrite_log``).
    """
    rewrite_log(files, file, valid_end)
    file.close()
    return files.open(file.path, write=True)


def _warn_of_cut(path: str, valid_end: int, size: int, reason: str) -> None:
    _log.warning("%s: cut %d bytes at byte %d: %s", path, size - valid_end, valid_end, reason)
