"""What a consumer reads from: a cursor for each of its partitions.

A cursor reads whole batches in large pieces, checks and decodes one of them at a time, and hands
out its records. Its position is the offset of the next record that it has not handed out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from operator import length_hint
from typing import NamedTuple

from logstore.errors import OffsetOutOfRangeError
from logstore.log import PartitionLog
from logstore.partitions import TopicPartition
from logstore.segments.batch import Batch
from logstore.segments.record import Header

__all__ = ["Chunk", "ConsumerRecord", "Cursor"]


class ConsumerRecord(NamedTuple):
    """A record, and where it was read."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    """Milliseconds since 1970-01-01 UTC; -1 where the record has none."""
    key: bytes | None
    value: bytes | None
    headers: Sequence[Header]


class Chunk:
    """Records of one batch, on their way to the application.

    How far the application has come is what their iterator has left; so handing out a record
    costs nothing but the iterator's own step.
    """

    __slots__ = ("cursor", "iterator", "next_offset", "records")

    def __init__(self, cursor: Cursor, records: list[ConsumerRecord], next_offset: int) -> None:
        self.cursor = cursor
        self.records = records
        self.iterator = iter(records)
        self.next_offset = next_offset
        """Where reading goes on behind the last of them."""

    def position(self, *, without_last: bool = False) -> int:
        """The offset behind the last record that the iterator gave; with ``without_last`` that
        one's own."""
        taken = len(self.records) - length_hint(self.iterator)
        if without_last and taken:
            taken -= 1
        return self.records[taken].offset if taken < len(self.records) else self.next_offset

    def drop(self) -> None:
        """Let the iterator end where it is."""
        self.records.clear()


class Cursor:
    """How far one partition was read. For one thread at a time."""

    __slots__ = (
        "_batches",
        "_fetch_bytes",
        "_rest",
        "_rest_end",
        "log",
        "partition",
        "paused",
        "position",
    )

    def __init__(
        self, partition: TopicPartition, log: PartitionLog, position: int, fetch_bytes: int
    ) -> None:
        """``fetch_bytes``: about how much is read at once; a batch is always read whole."""
        self.partition = partition
        self.log = log
        self.position = position
        """The offset of the next record to hand out."""
        self.paused = False
        self._fetch_bytes = fetch_bytes
        self._batches: Iterator[Batch] = iter(())
        """What was read and not yet decoded."""
        self._rest: list[ConsumerRecord] = []
        """Records of the last batch that were too many for the caller."""
        self._rest_end = 0

    def seek(self, offset: int) -> None:
        """Go on at ``offset``, and forget what was read ahead."""
        self.position = offset
        self._batches = iter(())
        self._rest = []

    @property
    def directory(self) -> str:
        """The partition's directory."""
        return self.log.directory

    def has_more(self) -> bool:
        """Whether a read would find something: records behind the position, or that the log does
        not hold it any more, since its start has passed it, or its end was cut off."""
        return bool(self._rest) or self.log.log_end_offset != self.position

    def take(self, most: int) -> Chunk | None:
        """Up to ``most`` records, all of one batch; None at the end of the log.

        Moves the position behind them. Raises OffsetOutOfRangeError where the log does not hold
        the position, FormatError where it is damaged.
        """
        if not self._rest and not self._read_batch():
            return None
        records = self._rest
        if len(records) > most:
            self._rest = records[most:]
            records = records[:most]
            chunk = Chunk(self, records, self._rest[0].offset)
        else:
            self._rest = []
            chunk = Chunk(self, records, self._rest_end)
        self.position = chunk.next_offset
        return chunk

    def _read_batch(self) -> bool:
        """Decode the next batch that holds records; False at the end of the log."""
        while True:
            for batch in self._batches:
                header = batch.header
                position = self.position
                if header.next_offset <= position:
                    continue
                if not header.control:
                    found = batch.records(row_type=ConsumerRecord, ahead=self.partition)
                    if header.base_offset < position:
                        found = [record for record in found if record.offset >= position]
                    if found:
                        self._rest = found
                        self._rest_end = header.next_offset
                        return True
                self.position = header.next_offset
            try:
                fetch = self.log.read(self.position, max_bytes=self._fetch_bytes)
            except OffsetOutOfRangeError:
                self._batches = iter(())
                raise
            if not fetch.data:
                # Compaction may have left nothing between here and the end.
                self.position = max(self.position, fetch.high_watermark)
                return False
            self._batches = fetch.batches()
