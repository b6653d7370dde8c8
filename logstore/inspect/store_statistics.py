"""What a store knows beyond its files: how far groups have come, what is in queues, what retention
and compaction would remove now. It is opened for reading only.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from logstore.compaction import CompactionPlan, CompactionPreview
from logstore.config import LogConfig
from logstore.errors import InvalidInputError, LogstoreError, UnknownTopicError
from logstore.groups.descriptions import OffsetDescription
from logstore.inspect.sources import Partition, find_partitions
from logstore.inspect.walking import Trouble
from logstore.log import PartitionLog
from logstore.queues.queue import QueueCounts
from logstore.retention import Decision
from logstore.segments.files import Files
from logstore.segments.layout import partition_files
from logstore.shares.descriptions import SharePartitionDescription
from logstore.store import Store

__all__ = [
    "GroupLag",
    "QueueStatistics",
    "Removal",
    "ShareGroupLag",
    "group_lags",
    "queue_statistics",
    "share_group_lags",
]


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


class Removal(NamedTuple):
    """What retention and compaction would remove of a partition now, each by itself."""

    partition: Partition
    decisions: Sequence[Decision]
    """Retention's, segment by segment."""
    plan: CompactionPlan | None
    """None where the topic is not compacted."""
    preview: CompactionPreview | None
    """What a compaction would remove, were it due; None likewise, and where nobody asked."""

    @classmethod
    def of(
        cls,
        store: Store | None,
        partition: Partition,
        *,
        quick: bool,
        assumed: Mapping[str, Any],
    ) -> Removal | Trouble | None:
        """That of a partition, by its topic's configuration with what is ``assumed`` in its place.

        None for one whose configuration nobody knows: that is no partition of a topic of the store,
        while nothing is assumed. ``quick``: nothing is read to find out what a compaction would
        remove. A log that cannot be read is trouble. Raises InvalidInputError for a configuration
        that is none.
        """
        if partition.segment is not None:
            return None
        try:
            log = None if store is None else _log_of(store, partition)
            if log is not None and not assumed:
                return cls._of_log(log, partition, quick=quick)
            if not assumed:
                return None
            known = {} if log is None else log.config.overrides()
            config = LogConfig.from_overrides({**known, **assumed})
            with PartitionLog(partition.directory, config=config, read_only=True) as opened:
                return cls._of_log(opened, partition, quick=quick)
        except InvalidInputError:
            raise
        except LogstoreError as error:
            return Trouble(partition.directory, None, str(error))

    @classmethod
    def _of_log(cls, log: PartitionLog, partition: Partition, *, quick: bool) -> Removal:
        decisions = log.retain(dry_run=True)
        if not log.config.compacts:
            return cls(partition, decisions, None, None)
        if quick:
            return cls(partition, decisions, log.plan_compaction(), None)
        preview = log.preview_compaction()
        return cls(partition, decisions, preview.plan, preview)

    @property
    def segments(self) -> int:
        """How many segments retention would delete."""
        return sum(decision.delete for decision in self.decisions)

    @property
    def bytes(self) -> int:
        """And the bytes of their logs."""
        return sum(decision.segment.size for decision in self.decisions if decision.delete)


def _log_of(store: Store, partition: Partition) -> PartitionLog | None:
    """The log of a partition of one of the store's topics."""
    try:
        log = store.topic(partition.topic).partition(partition.number)
    except UnknownTopicError:
        return None
    return log if _same(log.directory, partition.directory) else None


def _same(one: str, other: str) -> bool:
    return os.path.abspath(one) == os.path.abspath(other)
