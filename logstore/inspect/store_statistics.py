"""What a store knows beyond its files: how far groups have come, what is in queues, what retention
and compaction would remove now. It is opened for reading only.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from logstore.compaction import CompactionPlan
from logstore.errors import LogstoreError, UnknownTopicError
from logstore.groups.descriptions import OffsetDescription
from logstore.inspect.sources import Partition, find_partitions
from logstore.inspect.walking import Trouble
from logstore.queues.queue import QueueCounts
from logstore.retention import Decision
from logstore.segments.files import Files
from logstore.segments.header import BatchHeader
from logstore.segments.layout import partition_files
from logstore.shares.descriptions import SharePartitionDescription
from logstore.store import Store

__all__ = [
    "GroupLag",
    "QueueStatistics",
    "Removal",
    "ShareGroupLag",
    "Superseded",
    "group_lags",
    "queue_statistics",
    "share_group_lags",
]

_LONGEST_KEY = 32


class GroupLag(NamedTuple):
    """How far a group has come in a partition."""

    group: str
    offset: OffsetDescription


def group_lags(store: Store, topics: Iterable[str]) -> Iterator[GroupLag]:
    """What each group has committed for these topics, or is to read of them."""
    wanted = set(topics)
    for listing in store.groups.list():
        for offset in store.groups.describe(listing.name).offsets:
            if offset.topic in wanted:
                yield GroupLag(listing.name, offset)


class ShareGroupLag(NamedTuple):
    """What a share group has still to deal with in a partition."""

    share_group: str
    partition: SharePartitionDescription


def share_group_lags(store: Store, topics: Iterable[str]) -> Iterator[ShareGroupLag]:
    """How far each share group has come in these topics."""
    wanted = set(topics)
    for listing in store.share_groups.list():
        for partition in store.share_groups.describe(listing.name).partitions:
            if partition.topic in wanted:
                yield ShareGroupLag(listing.name, partition)


class QueueStatistics(NamedTuple):
    """What is in a queue, and what its files take up."""

    name: str
    counts: QueueCounts
    size: int
    """Bytes of all its files: with what is acknowledged already, as far as it is still there."""


def queue_statistics(store: Store, path: str, files: Files) -> Iterator[QueueStatistics]:
    """All queues of the store in the directory ``path``."""
    for definition in store.queues.queues():
        counts = store.queues.work_queue(definition).counts()
        size = 0
        for partition in find_partitions([f"queue:{definition.name}"], store=path, files=files):
            found = partition_files(files, partition.directory)
            size += sum(files.size(file.path) for file in found)
        yield QueueStatistics(definition.name, counts, size)


class Superseded:
    """Counts the records that a compaction would leave out now: those below ``end_offset`` whose
    key comes again below it. Of more than ``capacity`` keys it takes the first ones only."""

    def __init__(self, end_offset: int, capacity: int = 200_000) -> None:
        self._end_offset = end_offset
        self._capacity = capacity
        self._last: dict[bytes, int] = {}
        """The bytes of each key's last record; a long key is a digest."""
        self.records = 0
        self.size = 0
        """Bytes of those records, decompressed."""
        self.is_whole = True
        """Whether there was room for all keys."""

    def watch(
        self, header: BatchHeader, keys: Sequence[bytes | None], sizes: Sequence[int]
    ) -> None:
        """Take a batch in."""
        if header.last_offset >= self._end_offset:
            return
        last = self._last
        for key, size in zip(keys, sizes, strict=True):
            if key is None:
                continue
            if len(key) > _LONGEST_KEY:
                key = hashlib.blake2b(key, digest_size=16).digest()
            before = last.get(key)
            if before is not None:
                self.records += 1
                self.size += before
            elif len(last) >= self._capacity:
                self.is_whole = False
                continue
            last[key] = size


class Removal(NamedTuple):
    """What retention and compaction would remove of a partition now."""

    partition: Partition
    decisions: Sequence[Decision]
    """Retention's, segment by segment."""
    plan: CompactionPlan | None
    """None where the topic is not compacted."""
    superseded: Superseded | None
    """To be shown the partition's batches; None likewise."""

    @classmethod
    def of(cls, store: Store, partition: Partition) -> Removal | Trouble | None:
        """That of a partition; None where it is none of a topic of the store, whose configuration
        nobody knows. A log that cannot be opened is trouble."""
        try:
            log = store.topic(partition.topic).partition(partition.number)
            if partition.segment is not None or not _same(log.directory, partition.directory):
                return None
            decisions = log.retain(dry_run=True)
            if not log.config.compacts:
                return cls(partition, decisions, None, None)
            plan = log.plan_compaction()
            return cls(partition, decisions, plan, Superseded(plan.end_offset))
        except UnknownTopicError:
            return None
        except LogstoreError as error:
            return Trouble(partition.directory, None, str(error))

    @property
    def segments(self) -> int:
        """How many segments retention would delete."""
        return sum(decision.delete for decision in self.decisions)

    @property
    def bytes(self) -> int:
        """And the bytes of their logs."""
        return sum(decision.segment.size for decision in self.decisions if decision.delete)


def _same(one: str, other: str) -> bool:
    return os.path.abspath(one) == os.path.abspath(other)
