"""The batches of a partition from one end of a range to the other, past whatever is damaged.

Nothing is locked and no log is opened, so this goes for the directory of a store, for one of a
Kafka broker, running or not, and for a damaged one. Files may come, grow and go meanwhile: what was
there at the beginning is what is walked over, and a segment that has gone is looked for again in
the one that took its place. Memory: one batch, and a piece of a file of a mebibyte.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator
from typing import NamedTuple

from logstore.fetcher import ConsumerRecord
from logstore.inspect.sources import Partition
from logstore.replay.source import Range
from logstore.segments import filenames, offset_index, time_index
from logstore.segments.batch import HEADER_BYTES, Batch
from logstore.segments.compression import decompress
from logstore.segments.errors import FormatError
from logstore.segments.files import File, Files
from logstore.segments.header import TimestampType
from logstore.segments.layout import identify
from logstore.segments.record import decode_records
from logstore.segments.scan import Damage, DamageKind, scan, survey
from logstore.structure import list_segments, read_offset, segment_path

__all__ = ["Trouble", "Walk", "body_of", "rows_of"]

_MAX_INDEX_BYTES = 1 << 30
_NO_END = 1 << 63
_ATTEMPTS = 10


class Trouble(NamedTuple):
    """Something that could not be looked into."""

    path: str
    position: int | None
    """The byte of the file at which it begins; None where it is the file itself."""
    reason: str

    def __str__(self) -> str:
        place = "" if self.position is None else f" at byte {self.position}"
        return f"{self.path}{place}: {self.reason}"


class Walk:
    """One walk over a partition."""

    def __init__(
        self,
        files: Files,
        partition: Partition,
        wanted: Range,
        *,
        trouble: Callable[[Trouble], object],
        control: bool = False,
    ) -> None:
        """``control``: whether all is wanted that lies in the files: control batches, too, and what
        is below the log start offset."""
        self._files = files
        self._partition = partition
        self._trouble = trouble
        self._control = control
        self.start = max(wanted.offset or 0, 0 if control else self._log_start())
        """The first offset of the range, as far as it is known: of ``since`` it is found on the
        way."""
        self.end = _NO_END if wanted.end_offset is None else wanted.end_offset
        """The offset behind the last one, found likewise."""
        self._since = wanted.since
        """The time at which the range begins; None where its first offset is known."""
        self._until = wanted.until
        self._skip_below = 0
        """Offsets that were walked over before the segment was replaced by another one."""
        self._next_offset = 0
        """Behind the last batch that was walked over."""
        self._done = False
        """Whether the end of the range has come."""
        self._leaving = False
        """Whether nothing more is wanted of the segment."""

    def leave_segment(self) -> None:
        """Go on with the next segment."""
        self._leaving = True

    def _log_start(self) -> int:
        try:
            directory = self._partition.directory
            return read_offset(self._files, directory, filenames.LOG_START_CHECKPOINT) or 0
        except (FormatError, OSError):
            return 0  # ``check`` tells what is wrong with it; here more is shown than was asked for

    # Segments ---------------------------------------------------------------------------------

    def batches(self) -> Iterator[Batch]:
        """The whole batches that hold something of the range, without control batches.

        Which of a batch's records do is for :func:`rows_of` to say. What is damaged is handed to
        ``trouble`` and passed over; but for a torn end of the last segment, where somebody may
        just be writing.
        """
        bases = self._bases()
        attempts = 0
        while bases and not self._done:
            base, *rest = bases
            try:
                file = self._files.open(self._path(base))
            except FileNotFoundError as error:
                # Retention or compaction has taken it: what is there instead?
                attempts += 1
                self._skip_below = self._next_offset
                bases = self._bases(bases[-1]) if attempts < _ATTEMPTS else rest
                if attempts >= _ATTEMPTS or self._partition.segment is not None:
                    self._tell(self._path(base), None, error.strerror or "it is gone")
                    bases = rest
                continue
            except OSError as error:
                self._tell(self._path(base), None, f"it cannot be read: {error.strerror or error}")
                bases = rest
                continue
            try:
                yield from self._segment(file, base, last=not rest)
            except OSError as error:
                self._tell(file.path, None, f"it cannot be read: {error.strerror or error}")
            finally:
                file.close()
            bases = rest

    def _path(self, base: int | None) -> str:
        if self._partition.segment is not None or base is None:
            return self._partition.segment or ""
        return segment_path(self._partition.directory, base, filenames.LOG)

    def _bases(self, last: int | None = None) -> list[int | None]:
        """The segments that may hold something of what is left, up to the one at ``last``."""
        segment = self._partition.segment
        if segment is not None:
            file = identify(segment)
            return [None if file is None else file.base_offset]
        try:
            bases = list_segments(self._files, self._partition.directory)
        except OSError as error:
            self._tell(self._partition.directory, None, error.strerror or str(error))
            return []
        first = max(bisect_right(bases, max(self.start, self._next_offset)) - 1, 0)
        return [base for base in bases[first:] if last is None or base <= last]

    def _tell(self, path: str, position: int | None, reason: str) -> None:
        self._trouble(Trouble(path, position, reason))

    def _segment(self, file: File, base: int | None, *, last: bool) -> Iterator[Batch]:
        end = file.size()
        for item in survey(file, start=self._first_position(file, base, end), end=end):
            if isinstance(item, Damage):
                at_the_end = item.position + item.size >= end
                if not (last and at_the_end and item.kind is DamageKind.TORN):
                    self._tell(file.path, item.position, item.reason)
                continue
            try:
                item.check_crc()
            except FormatError as error:
                self._tell(file.path, item.position, error.reason)
                continue
            if item.header.last_offset < self._skip_below:
                continue
            self._next_offset = item.header.next_offset
            if self._is_wanted(item):
                yield item
            if self._done or self._leaving:
                self._leaving = False
                return

    # The range --------------------------------------------------------------------------------

    def _is_wanted(self, batch: Batch) -> bool:
        """Whether the batch holds something of the range; finds out where that begins and ends.

        Most batches are told by their headers. Only those at which a time may begin or end are
        opened here.
        """
        header = batch.header
        if header.base_offset >= self.end:
            self._done = True
            return False
        if (header.control and not self._control) or header.last_offset < self.start:
            return False
        if self._since is not None:
            if header.max_timestamp < self._since:
                return False
            first = self._first_of(batch, self._since)
            if first is None:
                return False
            self.start = max(self.start, first)
            self._since = None
        if self._until is not None and header.max_timestamp >= self._until:
            first = self._first_of(batch, self._until)
            if first is not None:
                self.end = min(self.end, first)
                self._done = True
        return header.base_offset < self.end

    def _first_of(self, batch: Batch, timestamp: int) -> int | None:
        """The offset of the first record in the range that is not older."""
        try:
            records = batch.records()
        except FormatError as error:
            self._tell(batch.path or "", batch.position, error.reason)
            return None
        for record in records:
            if record.timestamp >= timestamp and record.offset >= self.start:
                return record.offset
        return None

    # Indexes ----------------------------------------------------------------------------------

    def _first_position(self, file: File, base: int | None, end: int) -> int:
        """Where the range begins in a segment at the earliest, as far as its indexes say and what
        they point at proves it."""
        if base is None or self._partition.segment is not None:
            return 0
        position = 0
        if self._since is not None:
            position = self._time_position(file, base, self._since, end)
        if self.start > base:
            position = max(position, self._offset_position(file, base, self.start, end))
        return position

    def _index(self, base: int, suffix: str) -> bytes:
        try:
            index = self._files.open(segment_path(self._partition.directory, base, suffix))
        except OSError:
            return b""  # it spares reading, and nothing else
        try:
            return index.read_at(min(index.size(), _MAX_INDEX_BYTES), 0)
        except OSError:
            return b""
        finally:
            index.close()

    def _offset_position(self, file: File, base: int, offset: int, end: int) -> int:
        data = self._index(base, filenames.OFFSET_INDEX)
        entry = offset_index.find(base, data[: offset_index.valid_size(data)], offset)
        if entry is None or entry.position >= end:
            return 0
        batch = next(scan(file, start=entry.position, end=end, resync=False))
        if isinstance(batch, Batch) and batch.crc_ok and batch.header.base_offset <= offset:
            return entry.position
        return 0

    def _time_position(self, file: File, base: int, timestamp: int, end: int) -> int:
        data = self._index(base, filenames.TIME_INDEX)
        entry = time_index.find(base, data[: time_index.valid_size(data)], timestamp)
        if entry is None:
            return 0
        start = self._offset_position(file, base, entry.offset, end)
        for batch in scan(file, start=start, end=end, resync=False):
            if isinstance(batch, Damage):
                return 0
            header = batch.header
            if header.last_offset >= entry.offset:
                proved = header.base_offset <= entry.offset and batch.crc_ok
                return batch.position if proved and header.max_timestamp == entry.timestamp else 0
        return 0


# What is in a batch -----------------------------------------------------------------------------


def body_of(batch: Batch) -> bytes | None:
    """Bytes in which those of a batch's records stand, decompressed: of one that is not compressed
    all of it, which saves a copy. None for a compressed message of formats 0 and 1, whose bytes
    nobody asks for. Raises FormatError."""
    header = batch.header
    if not header.attributes & 7 or not header.record_count:
        return batch.raw
    if header.magic < 2:
        return None
    body = batch.raw[HEADER_BYTES:]
    try:
        return decompress(header.codec, body)
    except FormatError as error:
        error.position = 0  # not one among decompressed bytes
        raise error.at(batch.path, batch.position) from None


def rows_of(
    batch: Batch, partition: Partition, *, body: bytes | None, start: int, end: int
) -> list[ConsumerRecord]:
    """The records of a batch whose offsets lie from ``start`` to below ``end``, decoded.

    ``body`` is what :func:`body_of` gave. Raises FormatError.
    """
    header = batch.header
    ahead = (partition.topic, partition.number)
    if body is None or body is batch.raw:
        rows = batch.records(row_type=ConsumerRecord, ahead=ahead)
    else:
        appended = header.timestamp_type is TimestampType.LOG_APPEND
        try:
            rows = decode_records(
                body,
                header.record_count,
                base_offset=header.base_offset,
                base_timestamp=header.base_timestamp,
                append_timestamp=header.max_timestamp if appended else None,
                row_type=ConsumerRecord,
                ahead=ahead,
            )
        except FormatError as error:
            error.position = 0
            raise error.at(batch.path, batch.position) from None
    if header.base_offset < start or header.next_offset > end:
        return [row for row in rows if start <= row.offset < end]
    return rows
