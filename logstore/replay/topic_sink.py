"""A sink that is a topic: of the store that the records come from, or of another one.

Exact: each replay that is resumed writes its batches under a producer's id of its own, which it has
drawn at its beginning. Records of that id that lie behind the last saved position were appended by
an earlier run, however that ended and whoever else has appended meanwhile; so many are passed over,
partition by partition, when it goes on.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from logstore.clock import Clock, SystemClock
from logstore.errors import InvalidInputError
from logstore.fetcher import ConsumerRecord
from logstore.log import PartitionLog
from logstore.partitioner import partition_for_key
from logstore.replay.carrying import Carried, stamped
from logstore.replay.errors import ReplayError
from logstore.replay.log_source import Part, batches
from logstore.segments.batch import HEADER_BYTES, Batch, encode_batch
from logstore.segments.compression import Codec
from logstore.segments.record import NO_TIMESTAMP, Record
from logstore.topic import Topic

__all__ = ["PartitionMap", "TopicSink", "parse_partition_map"]

_BATCH_BYTES = 512 << 10
_BATCH_RECORDS = 5_000
_RECORD_OVERHEAD_BYTES = 24
"""What a record without headers takes beside its key and value, at most; a header takes 10."""
_SEQUENCE_MASK = (1 << 31) - 1
_FIRST_DRAWN_ID = 1 << 62
"""Producers' ids from here on are drawn; those that a broker gives out are small."""


class PartitionMap(NamedTuple):
    """Which partition of a topic a record goes to."""

    text: str = "same"
    """As it was written."""
    only: int | None = None
    """All go to this one."""
    numbers: Mapping[int, int] | None = None
    """Each goes where its own leads to."""
    by_key: bool = False
    """Each goes where its key leads to, as from a producer; without a key by its own number."""

    def of(self, record: ConsumerRecord, count: int) -> int:
        """The partition of a record in a topic of ``count``; raises InvalidInputError where the
        map says nothing."""
        if self.only is not None:
            return self.only
        if self.by_key:
            if record.key is None:
                return record.partition % count
            return partition_for_key(record.key, count)
        return self.of_partition(record.partition)

    def of_partition(self, number: int) -> int:
        """The same where it does not depend on the key."""
        if self.only is not None:
            return self.only
        if self.numbers is None:
            return number
        if number not in self.numbers:
            raise InvalidInputError(f"the map {self.text!r} says nothing of partition {number}")
        return self.numbers[number]

    def keeps_batches(self, parts: Sequence[tuple[str, int]]) -> bool:
        """Whether no two of these partitions go to one, nor one to several."""
        if self.by_key or any(number not in (self.numbers or {number}) for _, number in parts):
            return False
        return len({self.of_partition(number) for _, number in parts}) == len(parts)


def parse_partition_map(text: str) -> PartitionMap:
    """``same``, ``key``, ``3`` (all to partition 3) or ``0:2,1:0``; raises InvalidInputError."""
    if text == "same":
        return PartitionMap()
    if text == "key":
        return PartitionMap(text, by_key=True)
    numbers: dict[int, int] = {}
    for pair in text.split(","):
        ends = pair.split(":")
        if not all(end.isascii() and end.isdigit() and len(end) < 10 for end in ends):
            break
        if len(ends) == 1 and pair == text:
            return PartitionMap(text, only=int(pair))
        if len(ends) != 2 or int(ends[0]) in numbers:
            break
        numbers[int(ends[0])] = int(ends[1])
    else:
        return PartitionMap(text, numbers=numbers)
    raise InvalidInputError(
        f"{text!r} is no map of partitions: same, key, 3 (all to that one), or 0:2,1:0"
    )


class _Target:
    """A partition that is written to."""

    def __init__(self, log: PartitionLog) -> None:
        self.log = log
        self.waiting: list[ConsumerRecord] = []
        """Records that were not appended yet."""
        self.size = 0
        """About the bytes that they take."""
        self.appended = 0
        """Records that all runs of this replay have appended."""
        self.passed_over = 0
        """Records that an earlier run has appended, and this one gets once more."""
        self.is_dirty = False
        """Whether something was appended that was not synced."""


class TopicSink:
    """Appends records to the partitions of a topic."""

    def __init__(
        self,
        topic: Topic,
        *,
        partitions: PartitionMap | None = None,
        keep_timestamps: bool = True,
        codec: Codec | None = None,
        resumable: bool = False,
        grow: Callable[[int], Topic] | None = None,
        clock: Clock | None = None,
        draw: Callable[[int], int] = random.randrange,
    ) -> None:
        """``codec`` compresses batches anew; None carries those that can be carried as they are,
        and compresses none of the others. Without ``keep_timestamps`` records get the time of
        their append. ``grow`` gives a topic that was made for this replay so many partitions.
        """
        self._topic = topic
        self._map = partitions or PartitionMap()
        self._keep_timestamps = keep_timestamps
        self._codec = codec
        self._grow = grow
        self._targets: dict[int, _Target] = {}
        self._clock: Clock = clock or SystemClock()
        self._producer_id = _FIRST_DRAWN_ID + draw(_FIRST_DRAWN_ID) if resumable else -1
        self.delivered = 0
        self.is_exact = resumable
        self.identity: Mapping[str, Any] = {
            "topic": topic.name,
            "id": str(topic.id),
            "partitions": self._map.text,
            "keep_timestamps": keep_timestamps,
            "codec": None if codec is None else codec.label,
        }
        most = topic.config.max_message_bytes
        # Compression can add a little to what cannot be compressed.
        self._batch_bytes = min(_BATCH_BYTES, max(1, most - most // 16 - HEADER_BYTES))

    # Writing ----------------------------------------------------------------------------------

    def write(self, records: Sequence[ConsumerRecord]) -> None:
        """Append records, or keep them until there are enough for a batch."""
        only = self._map.only
        if only is not None:
            self._keep(only, records)
            return
        count = self._topic.partition_count
        found: dict[int, list[ConsumerRecord]] = {}
        choose = self._map.of
        for record in records:
            found.setdefault(choose(record, count), []).append(record)
        for number, rows in found.items():
            self._keep(number, rows)

    def _keep(self, number: int, records: Sequence[ConsumerRecord]) -> None:
        target = self._target(number)
        if target.passed_over:
            count = min(target.passed_over, len(records))
            target.passed_over -= count
            records = records[count:]
        target.waiting += records
        target.size += sum(map(_size_of, records))
        if target.size >= self._batch_bytes or len(target.waiting) >= _BATCH_RECORDS:
            self._append(target)

    def _append(self, target: _Target) -> None:
        records, target.waiting, target.size = target.waiting, [], 0
        for rows in _batches(records, self._batch_bytes):
            timestamps = self._keep_timestamps
            made = [Record(-1, row[3] if timestamps else NO_TIMESTAMP, *row[4:]) for row in rows]
            with _told_from((rows[0].topic, rows[0].partition), rows[0].offset, rows[-1].offset):
                if self._producer_id < 0:
                    target.log.append(made, acks=1, codec=self._codec or Codec.NONE)
                else:
                    target.log.append_raw(self._encoded(target, made), acks=1)
            self._note(target, len(made))

    def _encoded(self, target: _Target, records: list[Record]) -> bytes:
        return encode_batch(
            records,
            codec=target.log.config.codec_for(self._codec or Codec.NONE),
            default_timestamp=self._clock.now_ms(),
            producer_id=self._producer_id,
            producer_epoch=0,
            base_sequence=target.appended & _SEQUENCE_MASK,
        )

    def _note(self, target: _Target, count: int) -> None:
        target.appended += count
        target.is_dirty = True
        self.delivered += count

    def _target(self, number: int) -> _Target:
        target = self._targets.get(number)
        if target is None:
            if self._grow is not None and number >= self._topic.partition_count:
                self._topic = self._grow(number + 1)
            target = self._targets[number] = _Target(self._topic.partition(number))
        return target

    # Whole batches ----------------------------------------------------------------------------

    def takes_raw(self, parts: Sequence[tuple[str, int]]) -> bool:
        """Whether batches can stay as they are."""
        return self._keep_timestamps and self._codec is None and self._map.keeps_batches(parts)

    def write_raw(self, carried: Carried) -> None:
        """Append whole batches."""
        target = self._target(self._map.of_partition(carried.part[1]))
        if target.waiting:
            self._append(target)
        limit, most = self._topic.config.max_message_bytes, target.log.config.segment_bytes
        ready: list[Batch] = []
        size = 0
        for batch in carried.raw:
            count = batch.header.record_count
            # What is appended at once goes to one segment.
            if size + batch.header.size > most:
                self._append_raw(target, carried, ready)
                ready, size = [], 0
            if 0 < count <= target.passed_over:
                target.passed_over -= count
            elif target.passed_over or batch.header.size > limit:
                # One of which a part was appended, or that is too large as a whole, is opened.
                self._append_raw(target, carried, ready)
                ready, size = [], 0
                rows = batch.records(row_type=ConsumerRecord, ahead=carried.part)
                self._keep(self._map.of_partition(carried.part[1]), rows)
                self._append(target)
            else:
                ready.append(batch)
                size += batch.header.size
        self._append_raw(target, carried, ready)

    def _append_raw(self, target: _Target, carried: Carried, ready: Sequence[Batch]) -> None:
        if not ready:
            return
        first, last = ready[0].header.base_offset, ready[-1].header.last_offset
        count = sum(batch.header.record_count for batch in ready)
        with _told_from(carried.part, first, last):
            target.log.append_raw(list(self._stamped(target, ready)), acks=1)
        self._note(target, count)

    def _stamped(self, target: _Target, ready: Sequence[Batch]) -> Iterator[Batch]:
        sequence = target.appended
        for batch in ready:
            if self._producer_id < 0:
                yield stamped(batch)
            else:
                yield stamped(batch, self._producer_id, sequence & _SEQUENCE_MASK)
            sequence += batch.header.record_count

    # Going on ---------------------------------------------------------------------------------

    def flush(self) -> None:
        """Append what is held back."""
        for target in self._targets.values():
            if target.waiting:
                self._append(target)

    def _sync(self) -> None:
        for target in self._targets.values():
            if target.is_dirty:
                target.log.flush()
                target.is_dirty = False

    def position(self) -> Mapping[str, Any]:
        """Sync the logs, and say where each one ends."""
        self.flush()
        # Nothing outruns the log: a position names what a power cut does not take.
        self._sync()
        found = {}
        for number in range(self._topic.partition_count):
            target = self._target(number)
            found[str(number)] = [target.log.log_end_offset, target.appended, target.passed_over]
        return {"producer": self._producer_id, "ends": found}

    def restore(self, position: Mapping[str, Any] | None) -> None:
        """Count what an earlier run has appended behind a position; see :class:`Sink`."""
        if position is None:
            return
        try:
            self._producer_id = int(position["producer"])
            ends = {int(n): tuple(map(int, end)) for n, end in position["ends"].items()}
        except (KeyError, TypeError, ValueError, AttributeError):
            raise ReplayError(
                "the resume file says nothing of the topic that it wrote to"
            ) from None
        for number in range(self._topic.partition_count):
            target = self._target(number)
            begin, appended, passed_over = ends.get(number, (0, 0, 0))
            start, end = target.log.log_start_offset, target.log.log_end_offset
            if end < begin:
                raise ReplayError(
                    f"{target.log.directory}: the log ends at {end}, and this replay had come to "
                    f"{begin}: it was cut, and nobody knows what is missing"
                )
            whole = Part(self._topic.name, number, target.log, start, end)
            found = sum(
                batch.header.record_count
                for batch in batches(whole, max(begin, start))
                if batch.header.producer_id == self._producer_id
            )
            target.appended = appended + found
            target.passed_over = passed_over + found

    def close(self) -> None:
        """Append and sync what is left; the topic's store is closed by whoever has opened it."""
        self.flush()
        self._sync()


@contextlib.contextmanager
def _told_from(part: tuple[str, int], first: int, last: int) -> Iterator[None]:
    """Name the records that cannot be appended by the place that they come from."""
    try:
        yield
    except InvalidInputError as error:
        place = f"offset {first}" if first == last else f"offsets {first} to {last}"
        raise InvalidInputError(f"{error}; from {part[0]}-{part[1]}, {place}") from error


def _size_of(record: ConsumerRecord) -> int:
    _, _, _, _, key, value, headers = record
    size = _RECORD_OVERHEAD_BYTES
    if key is not None:
        size += len(key)
    if value is not None:
        size += len(value)
    for name, field in headers:
        size += 10 + 4 * len(name) + (0 if field is None else len(field))
    return size


def _batches(records: list[ConsumerRecord], most_bytes: int) -> Iterator[Sequence[ConsumerRecord]]:
    """The records in parts that fit into a batch each; a larger one has a batch of its own."""
    first = size = 0
    for index, record in enumerate(records):
        more = _size_of(record)
        if index > first and size + more > most_bytes:
            yield records[first:index]
            first, size = index, 0
        size += more
    if first < len(records):
        yield records[first:]
