"""Where a consumer begins to read: in partitions that come to it, and where the log does not hold
the position any more."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from logstore.assigned import AssignedPartitions
from logstore.committing import UNKNOWN, Commits
from logstore.consumer_config import ConsumerConfig
from logstore.errors import NoOffsetError, OffsetOutOfRangeError
from logstore.fetcher import Cursor
from logstore.log import PartitionLog
from logstore.partitions import TopicPartition
from logstore.subscription import Topics

__all__ = ["Beginnings"]


class Beginnings:
    """Takes partitions over for one consumer, and gives them up. For one thread at a time."""

    def __init__(
        self, topics: Topics, ours: AssignedPartitions, commits: Commits, config: ConsumerConfig
    ) -> None:
        self._topics = topics
        self._ours = ours
        self._commits = commits
        self._config = config

    def take_over(self, partitions: Iterable[TopicPartition]) -> None:
        """Begin to read partitions: all of them, or none where one's log cannot be opened. One
        that is ours stays as it is, unless it is of another topic of the same name by now."""
        logs = {partition: self._topics.log(partition) for partition in partitions}
        new = {key: log for key, log in logs.items() if not self._ours.reads(key, log)}
        committed = self._commits.look(new)
        self.give_up(new.keys() & set(self._ours))
        config = self._config
        fetch_bytes = min(config.max_partition_fetch_bytes, config.fetch_max_bytes)
        for partition, log in new.items():
            cursor = Cursor(partition, log, UNKNOWN, fetch_bytes)
            found = committed.get(partition)
            if found is not None:
                cursor.seek(found.offset)
                self._commits.note(partition, found.offset)
            elif config.auto_offset_reset != "none":
                cursor.seek(self._reset_offset(log))
            self._ours.add(cursor)

    def give_up(self, partitions: Collection[TopicPartition]) -> None:
        """Read partitions no more."""
        self._ours.remove(partitions)
        self._commits.forget(partitions)

    def _reset_offset(self, log: PartitionLog) -> int:
        earliest = self._config.auto_offset_reset == "earliest"
        return log.log_start_offset if earliest else log.log_end_offset

    def out_of_range(self, cursor: Cursor, error: OffsetOutOfRangeError) -> None:
        """Move a cursor whose position the log does not hold, by ``auto_offset_reset``; where that
        is ``none``, raise NoOffsetError where there was no position, ``error`` where there was."""
        if self._config.auto_offset_reset != "none":
            cursor.seek(self._reset_offset(cursor.log))
        elif cursor.position == UNKNOWN:
            topic, partition = cursor.partition
            raise NoOffsetError(
                f"group {self._config.group!r} has committed no offset for partition {partition} "
                f"of {topic!r}, and auto_offset_reset is 'none': seek, or reset the group's offsets"
            ) from None
        else:
            raise error
