"""A source that is one partition or several: of a store, or in a directory that somebody copied.

Logs are opened for reading only; nothing in their directories is made or changed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import logstore
from logstore.clock import Clock
from logstore.errors import InvalidInputError, OffsetOutOfRangeError
from logstore.fetcher import ConsumerRecord
from logstore.log import PartitionLog
from logstore.ranges import last_records
from logstore.replay.merging import merged
from logstore.replay.source import Chunk, Position, Range
from logstore.segments.batch import Batch
from logstore.segments.filenames import parse_partition_directory
from logstore.segments.files import Files
from logstore.segments.layout import partition_directories

__all__ = ["FETCH_BYTES", "LogSource", "Part", "open_directories", "open_topic", "parse_partitions"]

FETCH_BYTES = 1 << 20
"""About how much is read at once."""


class Part(NamedTuple):
    """A range of one partition."""

    topic: str
    partition: int
    log: PartitionLog
    start: int
    end: int
    """The offset behind the last one of the range."""

    @property
    def name(self) -> str:
        """What it is called in a position."""
        return f"{self.topic}-{self.partition}"


class LogSource:
    """Partitions, merged by timestamp where there are several."""

    def __init__(
        self,
        name: str,
        parts: Sequence[Part],
        *,
        identity: Mapping[str, Any],
        close: Callable[[], object],
    ) -> None:
        self.name = name
        self.parts = tuple(parts)
        self.identity = identity
        self.partitions = max((part.partition for part in parts), default=0) + 1
        self.start: Position = {part.name: part.start for part in parts}
        self._close = close

    def chunks(self, position: Position) -> Iterator[Chunk]:
        """The records from a position on; see :class:`logstore.replay.source.Source`."""
        if len(self.parts) == 1:
            part = self.parts[0]
            for rows, next_offset in opened(part, position.get(part.name, part.start)):
                yield Chunk(rows, _ends_of_one(part.name, rows, next_offset))
            return
        names = {(part.topic, part.partition): part.name for part in self.parts}
        streams = [
            (rows for rows, _ in opened(part, position.get(part.name, part.start)))
            for part in self.parts
        ]
        for made in merged(streams):
            yield Chunk(made, _ends_of_several(names, made))

    def progress(self, position: Position) -> tuple[int, int]:
        """Offsets in front of a position, and in the whole range."""
        done = sum(
            min(max(position.get(part.name, part.start), part.start), part.end) - part.start
            for part in self.parts
        )
        return done, sum(part.end - part.start for part in self.parts)

    def newest(self) -> int:
        """The largest timestamp in the last batches of the range."""
        found = -1
        for part in self.parts:
            if part.start < part.end:
                for batch in part.log.read(part.end - 1, max_bytes=1).batches():
                    if not batch.header.control:
                        found = max(found, batch.header.max_timestamp)
        return found

    def close(self) -> None:
        """Close the logs."""
        self._close()

    def __enter__(self) -> LogSource:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"LogSource({self.name!r})"


def opened(part: Part, offset: int) -> Iterator[tuple[list[ConsumerRecord], int]]:
    """The records of a part from an offset on, batch by batch, and the offset behind each."""
    for batch in batches(part, offset):
        rows = batch_rows(part, batch, offset)
        if rows:
            yield rows, min(batch.header.next_offset, part.end)


def batches(part: Part, offset: int) -> Iterator[Batch]:
    """The batches of a part that hold something from an offset on, control batches included."""
    while offset < part.end:
        fetch = part.log.read(offset, max_bytes=FETCH_BYTES)
        for batch in fetch.batches():
            header = batch.header
            if header.base_offset >= part.end:
                return
            if header.last_offset >= offset:
                yield batch
        if fetch.next_offset <= offset:  # compaction has left nothing between here and the end
            return
        offset = fetch.next_offset


def batch_rows(part: Part, batch: Batch, offset: int) -> list[ConsumerRecord]:
    """The records of a batch that belong to the part from an offset on."""
    header = batch.header
    if header.control:
        return []
    rows = batch.records(row_type=ConsumerRecord, ahead=(part.topic, part.partition))
    if header.base_offset < offset or header.next_offset > part.end:
        return [row for row in rows if offset <= row.offset < part.end]
    return rows


def _ends_of_one(
    name: str, rows: Sequence[ConsumerRecord], next_offset: int
) -> Callable[[int], Mapping[str, int]]:
    def ends(count: int) -> Mapping[str, int]:
        if not count:
            return {}
        return {name: next_offset if count == len(rows) else rows[count - 1].offset + 1}

    return ends


def _ends_of_several(
    names: Mapping[tuple[str, int], str], rows: Sequence[ConsumerRecord]
) -> Callable[[int], Mapping[str, int]]:
    return lambda count: {names[row[:2]]: row[2] + 1 for row in rows[:count]}


# Opening --------------------------------------------------------------------------------------


def parse_partitions(text: str) -> tuple[str, tuple[int, ...]]:
    """``orders:0,2`` is partitions 0 and 2 of ``orders``; without a colon, no numbers.

    Raises InvalidInputError for what stands behind the colon and is no list of numbers.
    """
    name, colon, numbers = text.partition(":")
    if not colon:
        return name, ()
    parts = numbers.split(",")
    if not all(part.isascii() and part.isdigit() and len(part) < 10 for part in parts):
        raise InvalidInputError(
            f"{text!r} names no partitions: {name}:0 is one of them, {name}:0,2 are two"
        )
    return name, tuple(sorted(set(map(int, parts))))


def open_topic(
    text: str, store: str, wanted: Range, *, files: Files | None = None, clock: Clock | None = None
) -> LogSource:
    """The source that is a topic of the store in a directory, or some of its partitions, as
    ``orders:0,2``. The store is opened for reading only. Raises UnknownTopicError, and what
    :func:`parts_of` raises."""
    name, numbers = parse_partitions(text)
    opened_store = logstore.open(store, create=False, read_only=True, files=files, clock=clock)
    try:
        topic = opened_store.topic(name)
        logs = [
            (name, number, topic.partition(number))
            for number in numbers or range(topic.partition_count)
        ]
        source = LogSource(
            text,
            parts_of(logs, wanted),
            identity={"topic": text, "id": str(topic.id), "store": str(opened_store.id)},
            close=opened_store.close,
        )
        source.partitions = max(source.partitions, topic.partition_count)
        return source
    except BaseException:
        opened_store.close()
        raise


def open_directories(
    path: str, wanted: Range, *, files: Files, clock: Clock | None = None
) -> LogSource:
    """The source that is the partition in a directory, or all partitions in it; of a store or
    copied from a broker. Raises InvalidInputError where there are none, and what :func:`parts_of`
    raises."""
    directories = partition_directories(files, path)
    if not directories:
        raise InvalidInputError(f"{path}: there is no partition here")
    logs: list[tuple[str, int, PartitionLog]] = []

    def close() -> None:
        for _, _, log in logs:
            log.close()

    try:
        for directory in directories:
            base = os.path.basename(os.path.abspath(directory))
            topic, number = parse_partition_directory(base) or (base, 0)
            log = PartitionLog(directory, files=files, clock=clock, read_only=True)
            logs.append((topic, number, log))
        return LogSource(path, parts_of(logs, wanted), identity={"directory": path}, close=close)
    except BaseException:
        close()
        raise


def parts_of(logs: Sequence[tuple[str, int, PartitionLog]], wanted: Range) -> list[Part]:
    """The range of each log. An offset need not be there in every one of several; raises
    OffsetOutOfRangeError where no log holds it, InvalidInputError for a range that is none."""
    wanted.checked()
    if wanted.offset is not None:
        for _, _, log in logs:
            start, end = log.log_start_offset, log.log_end_offset
            if wanted.offset <= end and (start <= wanted.offset or len(logs) > 1):
                break
        else:
            log = logs[0][2]
            start, end = log.log_start_offset, log.log_end_offset
            raise OffsetOutOfRangeError(log.directory, wanted.offset, start, end)
    found = []
    for topic, number, log in logs:
        begin, end = _bounds(log, wanted)
        found.append(Part(topic, number, log, min(begin, end), end))
    return found


def _bounds(log: PartitionLog, wanted: Range) -> tuple[int, int]:
    start, end = log.log_start_offset, log.log_end_offset
    if wanted.until is not None:
        first = log.offset_for_time(wanted.until)
        end = end if first is None else first[0]
    if wanted.end_offset is not None:
        end = min(end, wanted.end_offset)
    if wanted.offset is not None:
        start = max(start, wanted.offset)
    elif wanted.since is not None:
        first = log.offset_for_time(wanted.since)
        start = end if first is None else first[0]
    elif wanted.last is not None:
        start = last_records(log, wanted.last, end=end)
    return start, max(end, log.log_start_offset)
