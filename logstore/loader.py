"""Opening a partition: what its files say when its ``state`` cannot be trusted.

States of a partition's directory, and what an opening finds in each:

- *attached*: the state was derived since the machine started. Nothing is read but the state; a
  tail that a killed writer left behind the valid end is settled by :func:`settle_tail`.
- *closed cleanly*: the machine restarted, and the checkpoint ends where the log does. Nothing is
  scanned.
- *crashed*: everything behind the checkpoint (the whole active segment where there is none) is
  scanned. What was torn is cut; damage in front of good batches raises.
- *poisoned*: a sync failed. The cache may say what the disk does not, so the active segment is
  written anew (:func:`rewrite_active`) before anything else.

All of it happens under the partition's lock.
"""

from __future__ import annotations

import contextlib
import logging
import os
from dataclasses import replace

from logstore.config import LogConfig
from logstore.segments import filenames, offset_index, time_index
from logstore.segments.batch import Batch
from logstore.segments.checkpoint import EpochEntry, format_leader_epochs, parse_leader_epochs
from logstore.segments.errors import ChecksumError, FormatError
from logstore.segments.files import File, Files, read_bounded, write_atomically, write_fully
from logstore.segments.indexing import IndexProgress
from logstore.segments.scan import Damage, has_unwritten_sector, scan
from logstore.state import POISONED, Checkpoint, LogState

__all__ = ["list_segments", "recover", "settle_tail", "start_segment"]

_log = logging.getLogger("logstore")

_MAX_CHECKPOINT_BYTES = 16 << 20
_HOLE_SEARCH_BYTES = 64 << 20


def list_segments(files: Files, directory: str) -> tuple[int, ...]:
    """The base offsets of the segments in a directory, ascending."""
    parsed = map(filenames.parse_segment_file, files.names(directory))
    return tuple(sorted(base for base, suffix in filter(None, parsed) if suffix == filenames.LOG))


def segment_path(directory: str, base_offset: int, suffix: str) -> str:
    """The path of a segment's file."""
    return os.path.join(directory, filenames.segment_file(base_offset, suffix))


def start_segment(files: Files, directory: str, base_offset: int) -> None:
    """Make the three empty files of a segment.

    Commit point: the directory's sync. A crash before it leaves the segment or not; it is empty,
    so both are the same log.
    """
    for suffix in (filenames.OFFSET_INDEX, filenames.TIME_INDEX, filenames.LOG):
        file = files.open(segment_path(directory, base_offset, suffix), write=True, create=True)
        file.truncate(0)
        file.close()
    files.sync_directory(directory)


def remove_segment(files: Files, directory: str, base_offset: int) -> None:
    """Take back what ``start_segment`` made, as far as it came."""
    for suffix in (filenames.LOG, filenames.OFFSET_INDEX, filenames.TIME_INDEX):
        with contextlib.suppress(OSError):
            files.remove(segment_path(directory, base_offset, suffix))


def recover(
    files: Files,
    directory: str,
    config: LogConfig,
    *,
    previous: LogState,
    checkpoint: Checkpoint | None,
    same_boot: bool,
) -> LogState:
    """Derive the state of a log from its files, and put the files in order.

    ``previous`` is what the state said, and is trusted for nothing but ``POISONED`` and the
    generation, which moves on for the other processes to notice. Raises FormatError for damage
    that is no torn tail; nothing has been changed then.
    """
    bases = list_segments(files, directory)
    if not bases:
        start_segment(files, directory, 0)
        bases = (0,)
    active = bases[-1]
    poisoned = bool(previous.flags & POISONED)
    state = LogState(
        generation=(previous.generation + 2) & ~1,
        active_base=active,
        log_start_offset=bases[0],
        next_offset=active,
    )
    log_path = segment_path(directory, active, filenames.LOG)
    file = files.open(log_path, write=True)
    try:
        size = file.size()
        usable = (
            checkpoint is not None
            and checkpoint.active_base == active
            and checkpoint.valid_end <= size
            and _indexes_reach(files, directory, checkpoint)
        )
        if checkpoint is not None and usable:
            state.valid_end = checkpoint.valid_end
            state.next_offset = checkpoint.next_offset
            state.first_timestamp = checkpoint.first_timestamp
            state.progress = replace(checkpoint.progress)
        tail = _read_tail(file, state, config, may_have_holes=not same_boot)
        clean = usable and not poisoned and state.valid_end == size
        if poisoned:
            file = _rewrite_active(files, file, state.valid_end)
        elif state.valid_end < size:
            _warn_of_cut(log_path, state.valid_end, size, tail.reason)
            file.truncate(state.valid_end)
        if not clean:
            file.sync()
    finally:
        file.close()
    if not clean:
        tail.write_indexes(files, directory, state)
    state.synced_offset = state.last_stable_offset = state.next_offset
    lost_memory = not clean and (poisoned or not same_boot)
    state.leader_epoch = _settle_epochs(files, directory, state, new_epoch=lost_memory)
    return state


def settle_tail(
    files: Files, directory: str, file: File, state: LogState, config: LogConfig
) -> None:
    """Take in what a killed writer left behind the valid end, and cut the part that is torn.

    Whole batches stay: they were written, if never acknowledged. Raises FormatError when what
    stands there is not the work of a writer that was killed; nothing has been changed then.
    """
    size = file.size()
    tail = _read_tail(file, state, config, may_have_holes=False)
    if state.valid_end < size:
        _warn_of_cut(file.path, state.valid_end, size, tail.reason)
        file.truncate(state.valid_end)
    tail.write_indexes(files, directory, state)
    state.last_stable_offset = state.next_offset


class _Tail:
    """The index entries that belong to a tail, and why the tail ended where it did."""

    def __init__(self, progress: IndexProgress) -> None:
        self._offset_position = progress.offset_entries * offset_index.ENTRY_BYTES
        self._time_position = progress.time_entries * time_index.ENTRY_BYTES
        self.offsets: list[bytes] = []
        self.times: list[bytes] = []
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
                write_fully(file, data, position)
            finally:
                file.close()


def _read_tail(file: File, state: LogState, config: LogConfig, *, may_have_holes: bool) -> _Tail:
    """Move ``state`` over the whole batches that stand behind its valid end."""
    tail = _Tail(state.progress)
    base = state.active_base
    items = scan(file, start=state.valid_end)
    for item in items:
        bad = _what_is_wrong(item, state.next_offset)
        if bad is not None:
            good = next((i for i in items if isinstance(i, Batch) and i.crc_ok), None)
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
        state.leader_epoch = max(state.leader_epoch, header.leader_epoch)
    return tail


def _what_is_wrong(item: Batch | Damage, next_offset: int) -> FormatError | None:
    if isinstance(item, Damage):
        return FormatError(item.reason, position=item.position)
    if item.header.base_offset < next_offset:
        return FormatError(
            "the offsets go back",
            path=item.path,
            position=item.position,
            expected=f"at least {next_offset}",
            found=item.header.base_offset,
        )
    try:
        item.check_crc()
    except ChecksumError as error:
        return error
    return None


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
    Commit point: the rename. A crash before it leaves the old file and a ``.swap`` beside it that
    the next recovery replaces; after it, the new one, which is on stable storage.
    """
    path = file.path
    copy = files.open(path + filenames.SWAP, write=True, create=True)
    copy.truncate(0)
    position = 0
    while position < valid_end:
        chunk = file.read_at(min(1 << 20, valid_end - position), position)
        write_fully(copy, chunk, position)
        position += len(chunk)
    copy.sync()
    file.close()
    copy.close()
    files.rename(path + filenames.SWAP, path)
    files.sync_directory(os.path.dirname(path))
    return files.open(path, write=True)


def _settle_epochs(files: Files, directory: str, state: LogState, *, new_epoch: bool) -> int:
    """Cut the leader epochs back to the log's end, begin a new one if asked, and return the
    epoch to write with.

    A new epoch tells records that are written now from lost ones of the same offsets (KIP-101).
    """
    stored = _read_epochs(files, directory)
    entries = [e for e in stored if e.start_offset < state.next_offset or e.start_offset == 0]
    latest = max([state.leader_epoch, *(entry.epoch for entry in entries)])
    if new_epoch and state.next_offset > 0:
        latest += 1
    if not entries or entries[-1].epoch < latest:
        entries.append(EpochEntry(latest, state.next_offset))
    if entries != stored:
        _write_epochs(files, directory, entries)
    return latest


def advance_epoch(files: Files, directory: str, epoch: int, start_offset: int) -> None:
    """Note that leader epoch ``epoch`` begins at ``start_offset``, the log's end."""
    entries = [e for e in _read_epochs(files, directory) if e.start_offset < start_offset]
    _write_epochs(files, directory, [*entries, EpochEntry(epoch, start_offset)])


def _read_epochs(files: Files, directory: str) -> list[EpochEntry]:
    path = os.path.join(directory, filenames.LEADER_EPOCH_CHECKPOINT)
    try:
        data = read_bounded(files, path, _MAX_CHECKPOINT_BYTES)
    except FileNotFoundError:
        return []
    try:
        return parse_leader_epochs(data)
    except FormatError as error:
        raise error.at(path, 0) from None


def _write_epochs(files: Files, directory: str, entries: list[EpochEntry]) -> None:
    path = os.path.join(directory, filenames.LEADER_EPOCH_CHECKPOINT)
    write_atomically(files, path, format_leader_epochs(entries))


def _warn_of_cut(path: str, valid_end: int, size: int, reason: str) -> None:
    _log.warning("%s: cut %d bytes at byte %d: %s", path, size - valid_end, valid_end, reason)
