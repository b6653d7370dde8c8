"""The partitions that are a consumer's, and how far it has come in each.

Three offsets matter in a partition: how far the cursor has read, what the application has got (the
position), and what it is done with. They differ while a loop over the consumer is in the middle of
what was read ahead for it, and while a ``poll``'s records are being worked on.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator

from logstore.errors import InvalidInputError, OffsetOutOfRangeError
from logstore.fetcher import Chunk, Cursor
from logstore.log import PartitionLog
from logstore.partitions import TopicPartition, checked_partition

__all__ = ["AssignedPartitions"]


class AssignedPartitions:
    """Cursors by partition, in the order in which they are served. For one thread at a time."""

    def __init__(self) -> None:
        self._cursors: dict[TopicPartition, Cursor] = {}
        self._chunk: Chunk | None = None
        """What a loop over the consumer is being given."""
        self._polled: dict[TopicPartition, int] = {}
        """Where the records of the last ``poll`` began."""

    def __iter__(self) -> Iterator[TopicPartition]:
        return iter(self._cursors)

    def __len__(self) -> int:
        return len(self._cursors)

    def __contains__(self, partition: object) -> bool:
        return partition in self._cursors

    def cursors(self) -> Collection[Cursor]:
        """All cursors."""
        return self._cursors.values()

    def cursor(self, partition: TopicPartition | tuple[str, int]) -> Cursor:
        """The cursor of a partition; raises InvalidInputError where it is not ours."""
        cursor = self._cursors.get(checked_partition(partition))
        if cursor is None:
            raise InvalidInputError(
                f"partition {partition[1]} of {partition[0]!r} is not assigned to this consumer"
            )
        return cursor

    def reads(self, partition: TopicPartition, log: PartitionLog) -> bool:
        """Whether a partition is ours, and this is its log."""
        cursor = self._cursors.get(partition)
        return cursor is not None and cursor.log is log

    def add(self, cursor: Cursor) -> None:
        """Take a partition over."""
        self._cursors[cursor.partition] = cursor

    def remove(self, partitions: Collection[TopicPartition]) -> None:
        """Give partitions up; those that are not ours are passed over."""
        for partition in partitions:
            self.give_back(partition)
            self._cursors.pop(partition, None)
            self._polled.pop(partition, None)

    def position(self, partition: TopicPartition | tuple[str, int]) -> int:
        """The offset of the next record that the application gets."""
        cursor = self.cursor(partition)
        chunk = self._chunk
        return chunk.position() if chunk is not None and chunk.cursor is cursor else cursor.position

    def done(self, partition: TopicPartition) -> int:
        """The offset behind the last record that the application is done with for certain: what
        it got last, it may have failed at."""
        chunk = self._chunk
        if chunk is not None and chunk.cursor.partition == partition:
            return chunk.position(without_last=True)
        return self._polled.get(partition, self.position(partition))

    def give_back(self, partition: TopicPartition | None = None) -> None:
        """Let the cursor take back what the application's loop has not yet got (with a
        ``partition`` only if it comes from there); the loop asks for more then."""
        chunk = self._chunk
        if chunk is not None and partition in (None, chunk.cursor.partition):
            chunk.cursor.seek(chunk.position())
            chunk.drop()
            self._chunk = None

    def hand_out(self, chunk: Chunk | None) -> None:
        """A loop is being given ``chunk``; with None it is done with what it got."""
        self._chunk = chunk
        self._polled.clear()

    def returned(self, chunk: Chunk) -> None:
        """A ``poll`` returns the records of ``chunk``."""
        self._polled.setdefault(chunk.cursor.partition, chunk.records[0].offset)

    def take_back(self) -> None:
        """The records that a ``poll`` was about to return are read again."""
        for partition, offset in self._polled.items():
            self._cursors[partition].seek(offset)
        self._polled.clear()

    def next_chunk(
        self, most: int, out_of_range: Callable[[Cursor, OffsetOutOfRangeError], None]
    ) -> Chunk | None:
        """Up to ``most`` records of the first partition that has any; the one after it comes first
        next time. ``out_of_range`` moves a cursor whose position the log does not hold, or raises.
        """
        for partition, cursor in list(self._cursors.items()):
            if cursor.paused or not cursor.has_more():
                continue
            try:
                chunk = cursor.take(most)
            except OffsetOutOfRangeError as error:
                out_of_range(cursor, error)
                chunk = cursor.take(most)
            if chunk is not None:
                self._cursors[partition] = self._cursors.pop(partition)
                return chunk
        return None
