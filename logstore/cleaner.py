"""Compaction: of each key only the last record stays.

As Kafka's ``LogCleaner`` does it. A pass

1. reads the keys of the dirty part into a map (key to last offset) until that is full,
2. copies every segment up to there, without the records that the map has a later one for, into new
   files, several small segments into one,
3. swaps those in, under the partition's lock (``logstore.structure.swap_in``), and
4. moves the first dirty offset to where the map ends.

Only closed segments are read, which nobody changes, so producers and readers go on meanwhile.
Batches of which every record stays are copied as they are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from logstore.compaction import CompactionPlan
from logstore.config import LogConfig
from logstore.retention import SegmentInfo
from logstore.segments import filenames, offset_index, time_index
from logstore.segments.batch import Batch
from logstore.segments.control import ControlType, control_type
from logstore.segments.files import Files, write_fully, write_synced
from logstore.segments.filtering import OpenBatch, empty_batch
from logstore.segments.indexing import IndexProgress
from logstore.segments.record_places import RecordPlace
from logstore.segments.scan import Damage, scan
from logstore.segments.transaction_index import (
    AbortedTransaction,
    decode_entries,
    encode_entry,
)
from logstore.structure import segment_path, write_note

__all__ = ["CleanedGroup", "Cleaner", "KeyMap", "Transactions"]

_WRITE_BYTES = 1 << 20
_MAX_TRANSACTION_INDEX_BYTES = 64 << 20


# Keys -------------------------------------------------------------------------------------------


class KeyMap:
    """For each key the offset of its last record, in bounded memory.

    A long key is stored as a digest of 16 bytes; that two of them agree by chance is less likely
    than that the machine miscounts.
    """

    _ENTRY_BYTES = 176
    """What an entry costs: its part of the table (even just after that has grown), the key as an
    object and the offset as another. Measured with ``tracemalloc``, rounded up."""
    _LONGEST_KEY = 32

    def __init__(self, memory_bytes: int) -> None:
        self.capacity = max(1, memory_bytes // self._ENTRY_BYTES)
        self._offsets: dict[bytes, int] = {}
        self.end_offset = -1
        """The offset behind the last record that was put in; -1 while there is none."""

    def __len__(self) -> int:
        return len(self._offsets)

    def put(self, key: bytes, offset: int) -> bool:
        """Remember the record of ``key`` at ``offset``; False when there is no room for it."""
        if len(key) > self._LONGEST_KEY:
            key = _digest(key)
        if len(self._offsets) >= self.capacity and key not in self._offsets:
            return False
        self._offsets[key] = offset
        self.end_offset = offset + 1
        return True

    def has_later(self, key: bytes, offset: int) -> bool:
        """Whether the key has a record behind ``offset``."""
        if len(key) > self._LONGEST_KEY:
            key = _digest(key)
        return self._offsets.get(key, -1) > offset


def _digest(key: bytes) -> bytes:
    return hashlib.blake2b(key, digest_size=16).digest()


# Transactions -----------------------------------------------------------------------------------


class Transactions:
    """Which batches belong to aborted transactions, and which markers have outlived theirs.

    The records of an aborted transaction go; its marker stays as long as any batch of it was met,
    and a commit's marker likewise: a reader that starts in the middle must find how they ended.
    """

    def __init__(self, aborted: Iterable[AbortedTransaction]) -> None:
        self._coming = sorted(aborted, key=lambda entry: entry.first_offset, reverse=True)
        self._aborting: dict[int, tuple[AbortedTransaction, bool]] = {}
        """Open aborted transactions by producer id, and whether a batch of each was met."""
        self._committing: set[int] = set()
        """Producers of whose open, later committed transaction a batch was met."""
        self.kept: list[AbortedTransaction] = []
        """Aborted transactions whose markers stay, for the new transaction index."""

    def may_discard(self, batch: Batch) -> bool:
        """Whether the batch's records (of a data batch), or the marker, are no longer needed."""
        header = batch.header
        while self._coming and self._coming[-1].first_offset <= header.last_offset:
            entry = self._coming.pop()
            self._aborting[entry.producer_id] = (entry, False)
        producer = header.producer_id
        if header.control:
            return self._may_discard_marker(batch)
        if not header.transactional:
            return False
        if producer in self._aborting:
            self._aborting[producer] = (self._aborting[producer][0], True)
            return True
        self._committing.add(producer)
        return False

    def _may_discard_marker(self, batch: Batch) -> bool:
        producer = batch.header.producer_id
        records = batch.records()
        kind = control_type(records[0]) if records else None
        if kind == ControlType.ABORT:
            entry, met = self._aborting.pop(producer, (None, False))
            if entry is not None and met:
                self.kept.append(entry)
                return False
            return True
        if kind == ControlType.COMMIT:
            if producer in self._committing:
                self._committing.discard(producer)
                return False
            return True
        return False


# Cleaning ---------------------------------------------------------------------------------------


@dataclass(slots=True)
class CleanedGroup:
    """A new segment, written and synced under its ``.cleaned`` names."""

    base_offset: int
    replaced: list[int]
    """The base offsets of the segments that it takes the place of."""
    changed: bool = False
    """Whether it differs from what it replaces."""
    records_dropped: int = 0


@dataclass(slots=True)
class Cleaner:
    """One pass over a log. ``report`` is called with the bytes that were read, now and then."""

    files: Files
    directory: str
    config: LogConfig
    now_ms: int
    last_offset_of_producer: Callable[[int], int]
    """The last offset that a producer wrote in the whole log, the active segment included."""
    report: Callable[[int], None] = field(default=lambda _: None)

    def build_map(self, segments: Sequence[SegmentInfo], plan: CompactionPlan) -> KeyMap:
        """The keys of the dirty part, as far as they fit."""
        keys = KeyMap(self.config.cleaner_dedupe_buffer_bytes)
        dirty = [
            s
            for s in segments
            if s.next_offset > plan.first_dirty_offset and s.base_offset < plan.end_offset
        ]
        transactions = Transactions(self._aborted(dirty))
        for segment in dirty:
            for batch in self._batches(segment):
                header = batch.header
                if header.last_offset < plan.first_dirty_offset:
                    transactions.may_discard(batch)
                    continue
                if not transactions.may_discard(batch) and not header.control:
                    for offset, key in _keys(batch):
                        if key is None or offset < plan.first_dirty_offset:
                            continue
                        if not keys.put(key, offset):
                            return keys
                keys.end_offset = max(keys.end_offset, header.next_offset)
        # Offsets behind the last batch may be gone already; they are done with all the same.
        keys.end_offset = plan.end_offset
        return keys

    def clean_group(
        self, group: Sequence[SegmentInfo], keys: KeyMap, transactions: Transactions
    ) -> CleanedGroup:
        """Copy what stays of ``group`` into new files, and sync them."""
        base = group[0].base_offset
        cleaned = CleanedGroup(base, [segment.base_offset for segment in group], len(group) > 1)
        output = _Output(self.files, self.directory, base, self.config)
        try:
            for segment in group:
                for batch in self._batches(segment):
                    raw = self._filter(batch, keys, transactions, cleaned)
                    if raw is not batch.raw:
                        cleaned.changed = True
                    if raw is not None:
                        output.add(raw, batch if raw is batch.raw else Batch.parse(raw))
                    self.report(batch.header.size)
            output.finish(transactions.kept)
            transactions.kept = []
        except BaseException:
            output.discard()
            raise
        if cleaned.changed:
            write_note(self.files, self.directory, base, cleaned.replaced)
        else:
            output.discard()
        return cleaned

    def transactions(self, segments: Sequence[SegmentInfo]) -> Transactions:
        """What is to be known of the transactions of ``segments``, for cleaning them in order."""
        return Transactions(self._aborted(segments))

    def _filter(
        self, batch: Batch, keys: KeyMap, transactions: Transactions, cleaned: CleanedGroup
    ) -> bytes | None:
        """What stays of a batch: its own bytes, others, or nothing."""
        header = batch.header
        discard = transactions.may_discard(batch)
        if header.control:
            return self._filter_control(batch, discard)
        if header.magic < 2:
            return _filter_message(batch, keys, cleaned)
        if discard:
            kept: list[RecordPlace] = []
        else:
            opened = OpenBatch(batch)
            kept = [p for p in opened.places if self._stays(p, batch, keys)]
        dropped = header.record_count - len(kept)
        cleaned.records_dropped += dropped
        if not kept:
            return self._nothing_left(batch)
        needs_horizon = header.delete_horizon is None and any(p.is_tombstone for p in kept)
        if not dropped and not needs_horizon:
            return batch.raw
        horizon = self.now_ms + self.config.delete_retention_ms if needs_horizon else None
        return opened.keep(kept, delete_horizon=horizon)

    def _stays(self, place: RecordPlace, batch: Batch, keys: KeyMap) -> bool:
        header = batch.header
        offset = header.base_offset + place.offset_delta
        if offset >= keys.end_offset:
            return True
        if place.key is None or keys.has_later(place.key, offset):
            return False
        horizon = header.delete_horizon
        return not place.is_tombstone or horizon is None or self.now_ms < horizon

    def _filter_control(self, batch: Batch, discard: bool) -> bytes | None:
        """A marker that nothing hangs on any more stays until its delete horizon."""
        if not discard:
            return batch.raw
        horizon = batch.header.delete_horizon
        if horizon is None:
            opened = OpenBatch(batch)
            until = self.now_ms + self.config.delete_retention_ms
            return opened.keep(opened.places, delete_horizon=until)
        return batch.raw if self.now_ms < horizon else self._nothing_left(batch)

    def _nothing_left(self, batch: Batch) -> bytes | None:
        """A producer's last batch stays without its records: its sequence number is needed."""
        header = batch.header
        if header.producer_id >= 0 and (
            self.last_offset_of_producer(header.producer_id) == header.last_offset
        ):
            return empty_batch(header) if header.record_count else batch.raw
        return None

    def _batches(self, segment: SegmentInfo) -> Iterator[Batch]:
        path = segment_path(self.directory, segment.base_offset, filenames.LOG)
        file = self.files.open(path)
        try:
            for item in scan(file, resync=False):
                if isinstance(item, Damage):
                    raise item.error(path)
                item.check_crc()
                yield item
        finally:
            file.close()

    def _aborted(self, segments: Sequence[SegmentInfo]) -> Iterator[AbortedTransaction]:
        for segment in segments:
            path = segment_path(self.directory, segment.base_offset, filenames.TRANSACTION_INDEX)
            if self.files.exists(path):
                file = self.files.open(path)
                try:
                    size = min(file.size(), _MAX_TRANSACTION_INDEX_BYTES)
                    yield from decode_entries(file.read_at(size, 0))
                finally:
                    file.close()


def _keys(batch: Batch) -> Iterator[tuple[int, bytes | None]]:
    if batch.header.magic < 2:
        return ((record.offset, record.key) for record in batch.records())
    base = batch.header.base_offset
    return ((base + place.offset_delta, place.key) for place in OpenBatch(batch).places)


def _filter_message(batch: Batch, keys: KeyMap, cleaned: CleanedGroup) -> bytes | None:
    """Messages of the old formats are never written, so a wrapper stays or goes as a whole."""
    records = batch.records()
    for record in records:
        if record.offset >= keys.end_offset or (
            record.key is not None
            and record.value is not None
            and not keys.has_later(record.key, record.offset)
        ):
            return batch.raw
    cleaned.records_dropped += len(records)
    return None


class _Output:
    """The files of a cleaned segment."""

    def __init__(self, files: Files, directory: str, base: int, config: LogConfig) -> None:
        self._files = files
        self._directory = directory
        self._base = base
        self._interval = config.index_interval_bytes
        self._progress = IndexProgress()
        self._indexes: dict[str, list[bytes]] = {
            filenames.OFFSET_INDEX: [],
            filenames.TIME_INDEX: [],
        }
        self._buffer: list[bytes] = []
        self._buffered = 0
        self._position = 0
        self._log = files.open(self._path(filenames.LOG), write=True, create=True)
        self._log.truncate(0)

    def _path(self, suffix: str) -> str:
        return segment_path(self._directory, self._base, suffix) + filenames.CLEANED

    def add(self, raw: bytes, batch: Batch) -> None:
        """Write a batch behind the others."""
        header = batch.header
        offset_entry, time_entry = self._progress.add(
            self._position + self._buffered,
            header.size,
            header.last_offset,
            header.max_timestamp,
            self._interval,
        )
        if offset_entry is not None:
            self._indexes[filenames.OFFSET_INDEX].append(
                offset_index.encode_entry(self._base, offset_entry)
            )
        self._add_time(time_entry)
        self._buffer.append(raw)
        self._buffered += len(raw)
        if self._buffered >= _WRITE_BYTES:
            self._flush()

    def _add_time(self, entry: time_index.TimeEntry | None) -> None:
        if entry is not None:
            self._indexes[filenames.TIME_INDEX].append(time_index.encode_entry(self._base, entry))

    def _flush(self) -> None:
        write_fully(self._log, b"".join(self._buffer), self._position)
        self._position += self._buffered
        self._buffer.clear()
        self._buffered = 0

    def finish(self, aborted: Sequence[AbortedTransaction]) -> None:
        """Write what is left and the indexes, and sync everything, names included."""
        self._flush()
        self._log.sync()
        self._log.close()
        self._add_time(self._progress.final_time_entry())
        if aborted:
            self._indexes[filenames.TRANSACTION_INDEX] = [encode_entry(e) for e in aborted]
        for suffix, entries in self._indexes.items():
            write_synced(self._files, self._path(suffix), b"".join(entries))
        self._files.sync_directory(self._directory)

    def discard(self) -> None:
        """Remove the files again."""
        self._log.close()
        for suffix in (filenames.LOG, *self._indexes):
            if self._files.exists(self._path(suffix)):
                self._files.remove(self._path(suffix))
