"""What partitions are made of: sizes, counts, compression, times, keys.

One pass, one batch at a time, in memory that is bounded whatever the log holds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from logstore.errors import FormatError
from logstore.inspect.headers import headers
from logstore.inspect.measures import Histogram, Tally, TimeLine
from logstore.inspect.sources import Partition
from logstore.inspect.walking import Trouble, Walk, body_of
from logstore.replay.source import Range
from logstore.segments.batch import HEADER_BYTES, Batch
from logstore.segments.files import DiskFiles, Files
from logstore.segments.header import BatchHeader
from logstore.segments.layout import FileKind, partition_files
from logstore.segments.record_places import locate_records
from logstore.segments.scan import Damage, DamageKind

__all__ = ["CodecStatistics", "PartitionStatistics", "SegmentStatistics", "Statistics"]


@dataclass(slots=True)
class SegmentStatistics:
    """A segment."""

    path: str
    base_offset: int | None
    size: int
    """Bytes of its log."""
    batches: int = 0
    records: int = 0
    """Without control records."""
    control_batches: int = 0
    next_offset: int = -1
    """Behind its last batch; -1 where there is none."""
    max_timestamp: int = -1


@dataclass(slots=True)
class PartitionStatistics:
    """A partition."""

    partition: Partition
    segments: list[SegmentStatistics] = field(default_factory=list)
    index_bytes: int = 0
    """All files of it but the logs."""
    first_offset: int = -1
    min_timestamp: int = -1
    """The earliest that a batch begins with: that of a record in the middle may be earlier."""

    @property
    def log_bytes(self) -> int:
        """Bytes of its logs."""
        return sum(segment.size for segment in self.segments)

    @property
    def batches(self) -> int:
        """All batches, control batches included."""
        return sum(segment.batches for segment in self.segments)

    @property
    def control_batches(self) -> int:
        """Those of them that end transactions, and their like."""
        return sum(segment.control_batches for segment in self.segments)

    @property
    def records(self) -> int:
        """Records without control records."""
        return sum(segment.records for segment in self.segments)

    @property
    def next_offset(self) -> int:
        """Behind its last batch."""
        return max((segment.next_offset for segment in self.segments), default=-1)

    @property
    def max_timestamp(self) -> int:
        """The latest of its records."""
        return max((segment.max_timestamp for segment in self.segments), default=-1)


@dataclass(slots=True)
class CodecStatistics:
    """All batches that are compressed alike, control batches aside."""

    batches: int = 0
    records: int = 0
    stored: int = 0
    """Bytes of the records as they are stored, without the batches' headers."""
    decompressed: int = 0
    """The same, decompressed; 0 where only headers were read."""


@dataclass
class Statistics:
    """Statistics of partitions: made of one after the other with :meth:`add`.

    ``quick``: only headers are read: no decompressed sizes, sizes of records or keys, all records
    of a batch count at its largest timestamp, and no checksum is checked. ``separator`` and
    ``depth``: what of a key is its prefix. ``trouble`` is told what could not be looked into.
    """

    quick: bool = False
    separator: bytes = b":"
    depth: int = 1
    trouble: Callable[[Trouble], object] = lambda trouble: None
    files: Files = field(default_factory=DiskFiles)
    partitions: list[PartitionStatistics] = field(default_factory=list)
    codecs: dict[str, CodecStatistics] = field(default_factory=dict)
    batch_sizes: Histogram = field(default_factory=Histogram)
    record_sizes: Histogram = field(default_factory=Histogram)
    """Bytes of each record in its batch, decompressed."""
    times: TimeLine = field(default_factory=TimeLine)
    keys: Tally = field(default_factory=Tally)
    prefixes: Tally = field(default_factory=Tally)
    troubles: int = 0

    def add(self, partition: Partition) -> PartitionStatistics:
        """Take a partition in."""
        made = PartitionStatistics(partition)
        self.partitions.append(made)
        self._list_files(made)
        if self.quick:
            for place, segment in enumerate(made.segments):
                self._add_headers(made, segment, last=place == len(made.segments) - 1)
        else:
            self._add_batches(made)
        return made

    def tell(self, trouble: Trouble) -> None:
        """Hand on what could not be looked into."""
        self.troubles += 1
        self.trouble(trouble)

    def _list_files(self, made: PartitionStatistics) -> None:
        partition = made.partition
        try:
            for file in partition_files(self.files, partition.directory):
                if file.kind is FileKind.LOG and partition.segment is None:
                    size = self.files.size(file.path)
                    made.segments.append(SegmentStatistics(file.path, file.base_offset, size))
                elif partition.segment is None:
                    made.index_bytes += self.files.size(file.path)
            if partition.segment is not None:
                size = self.files.size(partition.segment)
                made.segments.append(SegmentStatistics(partition.segment, None, size))
        except OSError as error:  # a file may just have gone: what is there counts
            self.tell(Trouble(partition.directory, None, error.strerror or str(error)))

    # Headers only -----------------------------------------------------------------------------

    def _add_headers(
        self, made: PartitionStatistics, segment: SegmentStatistics, *, last: bool
    ) -> None:
        try:
            file = self.files.open(segment.path)
        except OSError as error:
            self.tell(Trouble(segment.path, None, error.strerror or str(error)))
            return
        try:
            end = file.size()
            for item in headers(file):
                if isinstance(item, Damage):
                    torn = item.kind is DamageKind.TORN and item.position + item.size >= end
                    if not (last and torn):
                        self.tell(Trouble(segment.path, item.position, item.reason))
                    continue
                self._count(made, segment, item)
                if not item.control:
                    self.times.add(item.max_timestamp, item.record_count)
        finally:
            file.close()

    def _count(
        self, made: PartitionStatistics, segment: SegmentStatistics, header: BatchHeader
    ) -> None:
        segment.batches += 1
        segment.next_offset = max(segment.next_offset, header.next_offset)
        if made.first_offset < 0:
            made.first_offset = header.base_offset
        self.batch_sizes.add((header.size,))
        if header.control:
            segment.control_batches += 1
            return
        segment.records += header.record_count
        segment.max_timestamp = max(segment.max_timestamp, header.max_timestamp)
        first = header.max_timestamp if header.delete_horizon is not None else header.base_timestamp
        if first >= 0 and (made.min_timestamp < 0 or first < made.min_timestamp):
            made.min_timestamp = first
        codec = self._codec(header)
        codec.batches += 1
        codec.records += header.record_count
        codec.stored += header.size - HEADER_BYTES if header.magic >= 2 else header.size

    def _codec(self, header: BatchHeader) -> CodecStatistics:
        try:
            name = header.codec.label
        except FormatError:
            name = f"unknown-{header.attributes & 7}"
        return self.codecs.setdefault(name, CodecStatistics())

    # Records, too -----------------------------------------------------------------------------

    def _add_batches(self, made: PartitionStatistics) -> None:
        by_path = {segment.path: segment for segment in made.segments}
        walk = Walk(self.files, made.partition, Range(), trouble=self.tell, control=True)
        for batch in walk.batches():
            path = batch.path or ""
            segment = by_path.get(path)
            if segment is None:  # it was rolled, or made by a compaction, just now
                segment = by_path[path] = SegmentStatistics(path, None, 0)
                made.segments.append(segment)
            self._count(made, segment, batch.header)
            if batch.header.control or not batch.header.record_count:
                continue
            try:
                self._open(batch)
            except FormatError as error:
                self.tell(Trouble(path, batch.position, error.reason))

    def _open(self, batch: Batch) -> None:
        header = batch.header
        keys: Sequence[bytes | None]
        if header.magic < 2:
            records = batch.records()
            keys = [record.key for record in records]
            sizes = [len(record.key or b"") + len(record.value or b"") for record in records]
            times = [record.timestamp for record in records]
            decompressed = sum(sizes)
        else:
            body = body_of(batch) or b""
            start = HEADER_BYTES if body is batch.raw else 0
            places = locate_records(body, header.record_count, start)
            bounds = places.bounds
            keys = places.keys
            sizes = [end - begin for begin, end in pairwise(bounds)]
            base = header.base_timestamp
            times = [base + delta for delta in places.timestamp_deltas]
            decompressed = len(body) - start
        self._codec(header).decompressed += decompressed
        self.record_sizes.add(sizes)
        if header.timestamp_type:
            self.times.add(header.max_timestamp, len(times))
        else:
            for time, count in Counter(times).items():
                self.times.add(time, count)
        self._add_keys(keys, sizes)

    def _add_keys(self, keys: Sequence[bytes | None], sizes: Sequence[int]) -> None:
        found: dict[bytes | None, tuple[int, int]] = {}
        for key, size in zip(keys, sizes, strict=True):
            count, before = found.get(key, (0, 0))
            found[key] = (count + 1, before + size)
        self.keys.add(found)
        prefixes: dict[bytes | None, tuple[int, int]] = {}
        for key, (count, size) in found.items():
            prefix = None if key is None else self._prefix(key)
            before_count, before = prefixes.get(prefix, (0, 0))
            prefixes[prefix] = (before_count + count, before + size)
        self.prefixes.add(prefixes)

    def _prefix(self, key: bytes) -> bytes:
        """The first parts of a key, with the separator behind them; the key where it has fewer."""
        parts = key.split(self.separator, self.depth)
        if len(parts) <= self.depth:
            return key
        return self.separator.join(parts[: self.depth]) + self.separator
