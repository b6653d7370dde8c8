"""Reading a partition without a lock.

A reader sees the log as a :class:`View`: a copy of the shared state and the list of segments that
belong to it. Nothing is read behind the view's end, so a batch that somebody is just writing is
never met; a bad batch in front of the end is damage, and raises.

Indexes are believed only as far as they prove themselves: what an entry points at has to be the
batch that it speaks of. An index that fails that, or is missing, is rebuilt in memory from the log.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import NamedTuple

from logstore.config import LogConfig
from logstore.retention import SegmentInfo
from logstore.segments import filenames, offset_index, time_index
from logstore.segments.batch import MAX_BATCH_BYTES, Batch, iter_batches, peek
from logstore.segments.errors import FormatError
from logstore.segments.files import File, Files
from logstore.segments.header import LOG_OVERHEAD_BYTES
from logstore.segments.indexing import build_indexes
from logstore.segments.record import Record
from logstore.segments.scan import Damage, scan
from logstore.state import LogState
from logstore.structure import segment_path

__all__ = ["Fetch", "LogReader", "View"]

_OPEN_SEGMENTS = 16
"""Segments whose file and indexes a reader keeps at hand."""
_HINTS = 64
"""Places where somebody stopped reading, and will probably go on."""
_LOCATE_BYTES = 64 << 10
_SLICED_BYTES = 256 << 10
"""What is larger is not copied to be cut to whole batches, but read again."""
_MAX_INDEX_BYTES = 1 << 30
_INT64_MAX = (1 << 63) - 1


class View(NamedTuple):
    """The log as it was at one moment."""

    block: bytes
    """The shared block that it was made from."""
    state: LogState
    bases: tuple[int, ...]
    """The base offsets of the segments, the active one last."""


class Fetch(NamedTuple):
    """What a read found: whole batches as they stand in the file, and where the log ends."""

    offset: int
    """The offset that was asked for; the first batch may begin before it."""
    next_offset: int
    """Where to go on reading."""
    data: bytes
    """Whole batches; empty at the end of the log. (With ``cut=False`` a part of the next one may
    stand behind them: what is not below ``next_offset``.)"""
    path: str
    """The file that they come from, and ``position`` the byte at which they begin in it."""
    position: int
    log_start_offset: int
    log_end_offset: int
    high_watermark: int
    """Readers are served below it: the end, or for ``upto="synced"`` what is on stable storage."""

    def batches(self) -> Iterator[Batch]:
        """The batches, each one's CRC checked; raises ChecksumError and FormatError."""
        for batch in iter_batches(self.data, position=self.position, path=self.path):
            batch.check_crc()
            yield batch

    def records(self) -> Iterator[Record]:
        """The records from the offset that was asked for on, without control records."""
        # A chain hands records on without waking a generator for each of them.
        return chain.from_iterable(map(self._wanted, self.batches()))

    def _wanted(self, batch: Batch) -> Sequence[Record]:
        header = batch.header
        if header.control or header.last_offset < self.offset:
            return ()
        records = batch.records()
        if header.base_offset < self.offset:
            return [record for record in records if record.offset >= self.offset]
        return records


class _Segment:
    """A segment's open log, and its two indexes once somebody has asked for them."""

    __slots__ = ("base_offset", "indexes", "log", "newest")

    def __init__(self, base_offset: int, log: File) -> None:
        self.base_offset = base_offset
        self.log = log
        self.indexes: tuple[int, bytes, bytes] | None = None
        """The end of the log that they cover, offset index, time index."""
        self.newest: tuple[int, int] | None = None
        """The end of the log that it was found in, and the largest timestamp before it."""


class LogReader:
    """Finds and reads batches in the files of one directory. Usable from many threads."""

    def __init__(self, files: Files, directory: str, config: LogConfig) -> None:
        self._files = files
        self._directory = directory
        self._config = config
        self._generation = -1
        """The generation that everything below belongs to."""
        self._segments: OrderedDict[int, _Segment] = OrderedDict()
        self._hints: OrderedDict[int, tuple[int, int]] = OrderedDict()
        """For an offset where a read stopped, the segment and position where it goes on."""

    def close(self) -> None:
        """Let go of all files (they close when the last thread that reads them is done)."""
        self._segments = OrderedDict()
        self._hints = OrderedDict()

    def _follow(self, view: View) -> None:
        """Forget what belonged to another generation of files."""
        if view.state.generation != self._generation:
            self.close()
            self._generation = view.state.generation

    def _segment(self, base_offset: int) -> _Segment:
        segment = self._segments.get(base_offset)
        if segment is None:
            path = segment_path(self._directory, base_offset, filenames.LOG)
            segment = _Segment(base_offset, self._files.open(path))
            self._segments[base_offset] = segment
            while len(self._segments) > _OPEN_SEGMENTS:
                self._segments.popitem(last=False)
        return segment

    @staticmethod
    def _end(view: View, segment: _Segment) -> int:
        if segment.base_offset == view.state.active_base:
            return view.state.valid_end
        return segment.log.size()

    # Reading ----------------------------------------------------------------------------------

    def read(
        self,
        view: View,
        offset: int,
        *,
        max_bytes: int,
        high_watermark: int,
        cut: bool = True,
    ) -> Fetch:
        """Whole batches from the one that holds ``offset`` (or the next that there is) on."""
        state = view.state
        self._follow(view)
        hint = self._hints.get(offset)
        index = max(bisect_right(view.bases, offset) - 1, 0)
        for base in view.bases[index:] if offset < state.next_offset else ():
            segment = self._segment(base)
            end = self._end(view, segment)
            if hint is not None and hint[0] == base and hint[1] < end:
                start = hint[1]
            else:
                start = self._locate(view, segment, offset, end)
            if start < end:
                data, stop, next_offset = _whole_batches(
                    segment.log, start, end, max_bytes=max_bytes, below=high_watermark
                )
                if cut:
                    data = _cut(segment.log, data, start, stop)
                if not stop and high_watermark == state.next_offset:
                    problem = f"a batch's offset lies behind the log's end, {state.next_offset}"
                    raise FormatError(problem, path=segment.log.path, position=start)
                if next_offset > offset:
                    self._hint(next_offset, base, start + stop)
                return Fetch(
                    offset,
                    max(next_offset, offset),
                    data if stop else b"",
                    segment.log.path,
                    start,
                    state.log_start_offset,
                    state.next_offset,
                    high_watermark,
                )
        path = segment_path(self._directory, state.active_base, filenames.LOG)
        return Fetch(
            offset,
            offset,
            b"",
            path,
            state.valid_end,
            state.log_start_offset,
            state.next_offset,
            high_watermark,
        )

    def _hint(self, offset: int, base: int, position: int) -> None:
        hints = self._hints
        hints[offset] = (base, position)
        while len(hints) > _HINTS:
            hints.popitem(last=False)

    def _locate(self, view: View, segment: _Segment, offset: int, end: int) -> int:
        """The position of the first batch whose last offset is not below ``offset``."""
        position = self._index_position(view, segment, offset, end)
        return _walk_to(segment.log, position, end, offset)

    def _index_position(self, view: View, segment: _Segment, offset: int, end: int) -> int:
        """A position at or before the batch that holds ``offset``, from the index."""
        base = segment.base_offset
        for rebuild in (False, True):
            offsets, _ = self._indexes(view, segment, end, rebuild=rebuild)
            entry = offset_index.find(base, offsets, offset)
            if entry is None:
                return 0
            batch = _batch_at(segment.log, entry.position, end)
            if batch is not None and batch.header.base_offset <= offset:
                return entry.position
        return 0

    def _indexes(
        self, view: View, segment: _Segment, end: int, *, rebuild: bool = False
    ) -> tuple[bytes, bytes]:
        """The entries of the offset and the time index that lie before ``end`` of the log."""
        if segment.indexes is not None and segment.indexes[0] == end and not rebuild:
            return segment.indexes[1:]
        base = segment.base_offset
        if rebuild:
            offsets, times = rebuild_indexes(segment.log, base, end, self._config)
        else:
            found = [
                self._index_file(base, suffix)
                for suffix in (filenames.OFFSET_INDEX, filenames.TIME_INDEX)
            ]
            if None in found:
                offsets, times = rebuild_indexes(segment.log, base, end, self._config)
            else:
                offsets, times = (data or b"" for data in found)
                if base == view.state.active_base:
                    progress = view.state.progress
                    offsets = offsets[: progress.offset_entries * offset_index.ENTRY_BYTES]
                    times = times[: progress.time_entries * time_index.ENTRY_BYTES]
                else:
                    offsets = offsets[: offset_index.valid_size(offsets)]
                    times = times[: time_index.valid_size(times)]
        segment.indexes = (end, offsets, times)
        return offsets, times

    def _index_file(self, base: int, suffix: str) -> bytes | None:
        try:
            file = self._files.open(segment_path(self._directory, base, suffix))
        except FileNotFoundError:
            return None
        try:
            return file.read_at(min(file.size(), _MAX_INDEX_BYTES), 0)
        finally:
            file.close()

    # Time -------------------------------------------------------------------------------------

    def offset_for_time(self, view: View, timestamp: int) -> tuple[int, int] | None:
        """``(offset, timestamp)`` of the first record that is not older than ``timestamp``."""
        self._follow(view)
        for base in view.bases:
            segment = self._segment(base)
            end = self._end(view, segment)
            start = self._time_position(view, segment, timestamp, end)
            for batch in scan(segment.log, start=start, end=end):
                if isinstance(batch, Damage):
                    raise batch.error(segment.log.path)
                if batch.header.max_timestamp < timestamp or batch.header.control:
                    continue
                batch.check_crc()
                for record in batch.records():
                    if record.timestamp >= timestamp:
                        return record.offset, record.timestamp
        return None

    def segments(self, view: View) -> list[SegmentInfo]:
        """What maintenance has to know of every segment, oldest first, the active one last."""
        self._follow(view)
        infos = []
        # (A partition that was made and never opened has no segment yet.)
        following = [*view.bases, view.state.next_offset][1:]
        for base, next_offset in zip(view.bases, following, strict=False):
            segment = self._segment(base)
            size = self._end(view, segment)
            newest = self._newest(view, segment, size)
            active = base == view.state.active_base
            modified = self._files.times_ms(segment.log.path)[0] if newest < 0 else -1
            infos.append(SegmentInfo(base, next_offset, size, newest, active, modified))
        return infos

    def _newest(self, view: View, segment: _Segment, end: int) -> int:
        """The largest timestamp in a segment; -1 where there is none."""
        if segment.base_offset == view.state.active_base:
            return view.state.progress.max_timestamp
        if segment.newest is None or segment.newest[0] != end:
            # Behind the last time entry's batch there is nothing newer, unless entries are lost.
            start = self._time_position(view, segment, _INT64_MAX, end)
            newest = max(
                (
                    item.header.max_timestamp
                    for item in scan(segment.log, start=start, end=end)
                    if isinstance(item, Batch)
                ),
                default=-1,
            )
            segment.newest = (end, newest)
        return segment.newest[1]

    def first_timestamp(self, view: View, base_offset: int) -> int | None:
        """The largest timestamp of a segment's first batch, if it has one."""
        self._follow(view)
        segment = self._segment(base_offset)
        batch = _batch_at(segment.log, 0, self._end(view, segment))
        return None if batch is None else batch.header.max_timestamp

    def position_of(self, view: View, base_offset: int, offset: int) -> int:
        """Where in a segment the first batch begins that is not wholly below ``offset``."""
        self._follow(view)
        segment = self._segment(base_offset)
        return self._locate(view, segment, offset, self._end(view, segment))

    def _time_position(self, view: View, segment: _Segment, timestamp: int, end: int) -> int:
        """A position before which no record is as recent as ``timestamp``, from the indexes."""
        base = segment.base_offset
        for rebuild in (False, True):
            _, times = self._indexes(view, segment, end, rebuild=rebuild)
            entry = time_index.find(base, times, timestamp)
            if entry is None:
                return 0
            position = self._locate(view, segment, entry.offset, end)
            batch = _batch_at(segment.log, position, end)
            if batch is not None and (
                batch.header.max_timestamp == entry.timestamp
                and batch.header.base_offset <= entry.offset
            ):
                return position
        return 0


def rebuild_indexes(
    log: File, base_offset: int, end: int, config: LogConfig
) -> tuple[bytes, bytes]:
    """Both indexes of a segment, from its log alone; damage in it is passed over."""
    headers = (
        (item.position, item.header) for item in scan(log, end=end) if isinstance(item, Batch)
    )
    return build_indexes(
        headers, base_offset=base_offset, index_interval_bytes=config.index_interval_bytes
    )


def _batch_at(log: File, position: int, end: int) -> Batch | None:
    """The batch at ``position``, if one is there and its CRC says so."""
    room = end - position
    data = log.read_at(min(_LOCATE_BYTES, room), position) if room > 0 else b""
    if len(data) < 18:
        return None
    _, size = peek(data)
    if not 17 < size <= min(MAX_BATCH_BYTES, room):
        return None
    raw = data[:size] if size <= len(data) else log.read_at(size, position)
    try:
        batch = Batch.parse(raw, position=position, path=log.path)
    except FormatError:
        return None
    return batch if batch.crc_ok else None


_PREFIX = struct.Struct(">qi4xb6xi")
"""Base offset, length, magic, last offset delta: as much of a header as walking over a batch
takes. A message of format 0 may be a byte shorter; its own offset is the last one."""
_PREFIX_BYTES = _PREFIX.size


def _extent(log: File, data: bytes, start: int, position: int, end: int) -> tuple[int, int, int]:
    """Base offset (of a message of an old format: its offset), last offset and size of the batch
    at ``start`` of ``data``, which is ``position`` of the log."""
    room = len(data) - start
    if room >= _PREFIX_BYTES:
        offset, length, magic, delta = _PREFIX.unpack_from(data, start)
        size = LOG_OVERHEAD_BYTES + length
    elif room >= 18 and room == end - position:
        offset, size = peek(data, start)
        magic = delta = 0
    else:
        raise FormatError(
            "the log ends inside a batch",
            path=log.path,
            position=position,
            expected=f"{end - position} bytes",
            found=room,
        )
    if not 17 < size <= end - position or size > MAX_BATCH_BYTES:
        raise FormatError(
            "a batch's length is wrong",
            path=log.path,
            position=position,
            expected=f"18 to {min(MAX_BATCH_BYTES, end - position)}",
            found=size,
        )
    return offset, offset + delta if magic > 1 else offset, size


def _walk_to(log: File, position: int, end: int, offset: int) -> int:
    data = b""
    start = 0
    before = -1
    while position < end:
        if len(data) - start < _PREFIX_BYTES:
            data = log.read_at(min(_LOCATE_BYTES, end - position), position)
            start = 0
        first_offset, last_offset, size = _extent(log, data, start, position, end)
        if last_offset >= offset:
            if first_offset > offset:
                _check_before_gap(log, before, position)
            return position
        before = position
        position += size
        start += size
    _check_before_gap(log, before, end)
    return end


def _check_before_gap(log: File, position: int, end: int) -> None:
    """Raise ChecksumError unless the batch in front of a gap is whole: a damaged last offset would
    look like a gap, and the records in it would be passed over without a word."""
    if position >= 0:
        raw = log.read_at(end - position, position)
        Batch.parse(raw, position=position, path=log.path).check_crc()


def _whole_batches(
    log: File, start: int, end: int, *, max_bytes: int, below: int
) -> tuple[bytes, int, int]:
    """Whole batches from ``start`` on whose offsets are below ``below``: about ``max_bytes`` of
    them, and at least one. Behind them may stand a part of the next one, or more of them; how many
    bytes are theirs, and the offset behind them, come with them."""
    data = log.read_at(min(max(max_bytes, _PREFIX_BYTES), end - start), start)
    _, _, first = _extent(log, data, 0, start, end)
    if first > len(data):
        data = log.read_at(first, start)
    size = len(data)
    stop = 0
    next_offset = -1
    # (A message of format 0 at the end of the log may have less than a prefix.)
    while stop < size and (size - stop >= _PREFIX_BYTES or size == end - start):
        try:
            offset, last_offset, batch_size = _extent(log, data, stop, start + stop, end)
        except FormatError:
            if stop == 0:
                raise
            break  # what stands before the damage is served; the next read raises
        if offset < next_offset:  # one of the two is wrong, and no CRC says which: serve neither
            raise FormatError("the offsets go back", path=log.path, position=start + stop)
        if stop + batch_size > size or offset >= below:
            break
        next_offset = last_offset + 1
        stop += batch_size
    return data, stop, next_offset


def _cut(log: File, data: bytes, start: int, stop: int) -> bytes:
    """The first ``stop`` of the bytes that were read at ``start``."""
    if _SLICED_BYTES < stop < len(data):
        # The C library gives back what a second piece of this size took, and takes it again for
        # the next one, page by page: reading it once more costs a tenth of that.
        del data
        data = log.read_at(stop, start)
        if len(data) < stop:
            raise FormatError("the log was cut while it was read", path=log.path, position=start)
    return data[:stop]
