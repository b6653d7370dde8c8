"""Compaction: of each key only the last record stays.

As Kafka's ``LogCleaner`` does it. A pass

1. reads the keys of the dirty part into a map (key to last offset) until that is full,
2. copies every segment up to there, without the records that the map has a later one for, into new
   files, several small segments into one (a segment of which everything stays, and that is not to
   become a part of a larger one, is left alone),
3. swaps those in, under the partition's lock (``logstore.structure.swap_in``), and
4. moves the first dirty offset to where the map ends.

Only closed segments are read, which nobody changes, so producers and readers go on meanwhile.
Batches of which every record stays are copied as they are; those of the dirty part without being
opened again, because the map knows where records were superseded (``logstore.key_map``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from logstore.compaction import CompactionPlan
from logstore.config import LogConfig
from logstore.errors import FormatError
from logstore.key_map import KeyMap
from logstore.producer_states import ProducerState
from logstore.retention import SegmentInfo
from logstore.segments import filenames, offset_index, time_index
from logstore.segments.batch import Batch
from logstore.segments.control import ControlType, control_type
from logstore.segments.files import File, Files, write_fully, write_synced
from logstore.segments.filtering import OpenBatch, empty_batch
from logstore.segments.header import BatchHeader
from logstore.segments.indexing import IndexProgress
from logstore.segments.record_places import RecordPlaces
from logstore.segments.scan import Damage, scan
from logstore.segments.transaction_index import (
    AbortedTransaction,
    decode_entries,
    encode_entry,
)
from logstore.structure import copy_bytes, segment_path, write_note

__all__ = ["CleanedGroup", "Cleaner", "Transactions"]

_WRITE_BYTES = 1 << 20
_MAX_TRANSACTION_INDEX_BYTES = 64 << 20


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
    size: int = 0
    """Bytes of its log."""


@dataclass(slots=True)
class Cleaner:
    """One pass over a log. ``report`` is called with the bytes that were read, now and then."""

    files: Files
    directory: str
    config: LogConfig
    now_ms: int
    producer: Callable[[int], ProducerState | None]
    """What a producer wrote last in the whole log, the active segment included; None for one that
    is forgotten."""
    report: Callable[[int], None] = field(default=lambda _: None)
    dry_run: bool = False
    """Whether nothing is written: what would stay is only weighed."""

    def build_map(self, segments: Sequence[SegmentInfo], plan: CompactionPlan) -> KeyMap:
        """The keys of the dirty part, as far as they fit."""
        first_dirty = plan.first_dirty_offset
        keys = KeyMap(
            self.config.cleaner_dedupe_buffer_bytes,
            first_offset=first_dirty,
            last_offset=plan.end_offset - 1,
        )
        dirty = [
            s for s in segments if s.next_offset > first_dirty and s.base_offset < plan.end_offset
        ]
        transactions = self.transactions(dirty)
        for segment in dirty:
            for batch in self._batches(segment):
                batch.check_crc()
                header = batch.header
                discard = transactions.may_discard(batch)
                if header.last_offset < first_dirty:
                    continue
                if (
                    header.magic < 2
                    or header.transactional
                    or header.control
                    or not header.record_count
                ):
                    keys.mark(header.base_offset, min(header.last_offset, keys.last_offset))
                if not (discard or header.control or _put_keys(batch, keys, first_dirty)):
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
        if not cleaned.changed and keys.all_stay(base, group[0].next_offset - 1):
            self.report(group[0].size)
            cleaned.size = group[0].size
            return cleaned
        output = _Scale() if self.dry_run else self._output(base)
        try:
            if cleaned.changed:
                output.begin()
            for segment in group:
                for batch in self._batches(segment):
                    header = batch.header
                    # What `build_map` has read is not checked again unless it is opened.
                    stays = keys.all_stay(header.base_offset, header.last_offset)
                    if not stays:
                        batch.check_crc()
                    raw = batch.raw if stays else self._filter(batch, keys, transactions, cleaned)
                    if raw is not batch.raw and not cleaned.changed:
                        cleaned.changed = True
                        output.begin()
                    if raw is not None:
                        output.add(raw, header if raw is batch.raw else Batch.parse(raw).header)
                    self.report(header.size)
            cleaned.size = output.size
            if cleaned.changed:
                output.finish(transactions.kept, cleaned.replaced)
            transactions.kept = []
        except BaseException:
            output.discard()
            raise
        return cleaned

    def _output(self, base: int) -> _Output:
        return _Output(self.files, self.directory, base, self.config)

    def transactions(self, segments: Sequence[SegmentInfo]) -> Transactions:
        """What is to be known of the transactions of ``segments``, for cleaning them in order."""
        return Transactions(self._aborted(segments))

    def _filter(
        self, batch: Batch, keys: KeyMap, transactions: Transactions, cleaned: CleanedGroup
    ) -> bytes | None:
        """What stays of a batch: its own bytes, others, or nothing."""
        header = batch.header
        discard = transactions.may_discard(batch)
        if header.magic > 1 and not header.record_count:
            return self._nothing_left(batch)
        if header.control:
            return self._filter_control(batch, discard)
        if header.magic < 2:
            return _filter_message(batch, keys, cleaned)
        if discard:
            kept: list[int] = []
        else:
            opened = OpenBatch(batch)
            kept = self._staying(opened.places, header, keys)
        dropped = header.record_count - len(kept)
        cleaned.records_dropped += dropped
        if not kept:
            return self._nothing_left(batch)
        tombstones = set(opened.places.tombstones)
        needs_horizon = header.delete_horizon is None and not tombstones.isdisjoint(kept)
        if not dropped and not needs_horizon:
            return batch.raw
        horizon = self.now_ms + self.config.delete_retention_ms if needs_horizon else None
        return opened.keep(kept, delete_horizon=horizon)

    def _staying(self, places: RecordPlaces, header: BatchHeader, keys: KeyMap) -> list[int]:
        """The indexes of the records that stay."""
        base = header.base_offset
        superseded = keys.superseded(base, header.last_offset)
        if superseded is not None:
            return [i for i, delta in enumerate(places.offset_deltas) if not superseded[delta]]
        deltas = places.offset_deltas
        behind = keys.end_offset - base  # from there on all stay: the map does not know of them
        rows = enumerate(zip(keys.last_offsets(places.keys), deltas, strict=True))
        kept = [
            index
            for index, (last, delta) in rows
            if last is None or last <= base + delta or delta >= behind
        ]
        gone = {index for index, key in enumerate(places.keys) if key is None}
        horizon = header.delete_horizon
        if horizon is not None and self.now_ms >= horizon:
            gone.update(places.tombstones)
        if gone:
            kept = [index for index in kept if index not in gone or deltas[index] >= behind]
        return kept

    def _filter_control(self, batch: Batch, discard: bool) -> bytes | None:
        """A marker that nothing hangs on any more stays until its delete horizon."""
        if not discard:
            return batch.raw
        horizon = batch.header.delete_horizon
        if horizon is None:
            opened = OpenBatch(batch)
            until = self.now_ms + self.config.delete_retention_ms
            return opened.keep(range(batch.header.record_count), delete_horizon=until)
        return batch.raw if self.now_ms < horizon else self._nothing_left(batch)

    def _nothing_left(self, batch: Batch) -> bytes | None:
        """A producer's last batch stays without its records: its sequence number is needed. Where
        there are only markers, the last epoch is."""
        header = batch.header
        state = self.producer(header.producer_id) if header.producer_id >= 0 else None
        if state is None:
            return None
        if state.batches:
            is_last = header.last_offset == state.last_offset
        else:
            is_last = header.control and header.producer_epoch == state.epoch
        if not is_last:
            return None
        return empty_batch(header) if header.record_count else batch.raw

    def _batches(self, segment: SegmentInfo) -> Iterator[Batch]:
        path = segment_path(self.directory, segment.base_offset, filenames.LOG)
        file = self.files.open(path)
        try:
            for item in scan(file, resync=False):
                if isinstance(item, Damage):
                    raise item.error(path)
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


def _put_keys(batch: Batch, keys: KeyMap, first_dirty: int) -> bool:
    """Put the keys of a data batch into the map, from an offset on; False when it is full."""
    header = batch.header
    base = header.base_offset
    record_keys: list[bytes | None]
    if header.magic < 2:
        records = batch.records()
        offsets = [record.offset for record in records]
        record_keys = [record.key for record in records]
    else:
        places = OpenBatch(batch).places
        record_keys = places.keys
        offsets = [base + delta for delta in places.offset_deltas]
        if places.tombstones or None in record_keys:
            # The keyless go, and tombstones are given their delete horizon.
            keys.mark(base, header.last_offset)
    if max(offsets, default=base) > min(header.last_offset, keys.last_offset):
        raise FormatError(
            "a record's offset lies behind the end of its batch or segment",
            path=batch.path,
            position=batch.position,
            expected=f"at most {min(header.last_offset, keys.last_offset)}",
            found=max(offsets),
        )
    if base < first_dirty:
        dirty = [index for index, offset in enumerate(offsets) if offset >= first_dirty]
        offsets = [offsets[index] for index in dirty]
        record_keys = [record_keys[index] for index in dirty]
    return keys.put_all(record_keys, offsets)


def _filter_message(batch: Batch, keys: KeyMap, cleaned: CleanedGroup) -> bytes | None:
    """Messages of the old formats are never written, so a wrapper stays or goes as a whole."""
    records = batch.records()
    last_offsets = keys.last_offsets([record.key for record in records])
    for record, last in zip(records, last_offsets, strict=True):
        if record.offset >= keys.end_offset or (
            record.key is not None
            and record.value is not None
            and (last is None or last <= record.offset)
        ):
            return batch.raw
    cleaned.records_dropped += len(records)
    return None


class _Scale:
    """In place of the files of a cleaned segment: how large they would be."""

    def __init__(self) -> None:
        self.size = 0

    def begin(self) -> None:
        """There is nothing to make."""

    def add(self, raw: bytes, header: BatchHeader) -> None:
        """Weigh a batch."""
        self.size += len(raw)

    def finish(self, aborted: Sequence[AbortedTransaction], replaced: Sequence[int]) -> None:
        """There is nothing to write."""

    def discard(self) -> None:
        """There is nothing to remove."""


class _Output:
    """The files of a cleaned segment.

    Up to :meth:`begin` nothing is written: as long as every batch stays where it is, the files
    that are there will do.
    """

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
        self._log: File | None = None

    @property
    def size(self) -> int:
        """Bytes of the log by now."""
        return self._position + self._buffered

    def _path(self, suffix: str) -> str:
        return segment_path(self._directory, self._base, suffix) + filenames.CLEANED

    def begin(self) -> None:
        """Make the files, and copy what has been added so far from the segment's own."""
        self._log = self._files.open(self._path(filenames.LOG), write=True, create=True)
        self._log.truncate(0)
        if self._position:
            source = self._files.open(segment_path(self._directory, self._base, filenames.LOG))
            try:
                copy_bytes(source, self._log, self._position)
            finally:
                source.close()

    def add(self, raw: bytes, header: BatchHeader) -> None:
        """Write a batch behind the others."""
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
        if self._log is None:
            self._position += len(raw)
            return
        self._buffer.append(raw)
        self._buffered += len(raw)
        if self._buffered >= _WRITE_BYTES:
            self._flush()

    def _add_time(self, entry: time_index.TimeEntry | None) -> None:
        if entry is not None:
            self._indexes[filenames.TIME_INDEX].append(time_index.encode_entry(self._base, entry))

    def _flush(self) -> None:
        assert self._log is not None
        write_fully(self._log, b"".join(self._buffer), self._position)
        self._position += self._buffered
        self._buffer.clear()
        self._buffered = 0

    def finish(self, aborted: Sequence[AbortedTransaction], replaced: Sequence[int]) -> None:
        """Write what is left, the indexes, and, when all that is synced, names included, the note
        of what the segment takes the place of."""
        self._flush()
        assert self._log is not None
        self._log.sync()
        self._log.close()
        self._add_time(self._progress.final_time_entry())
        if aborted:
            self._indexes[filenames.TRANSACTION_INDEX] = [encode_entry(e) for e in aborted]
        for suffix, entries in self._indexes.items():
            write_synced(self._files, self._path(suffix), b"".join(entries))
        self._files.sync_directory(self._directory)
        write_note(self._files, self._directory, self._base, replaced)

    def discard(self) -> None:
        """Remove the files again."""
        if self._log is None:
            return
        self._log.close()
        for suffix in (filenames.LOG, *self._indexes):
            if self._files.exists(self._path(suffix)):
                self._files.remove(self._path(suffix))
