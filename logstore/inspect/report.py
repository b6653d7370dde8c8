"""All that ``logstore stats`` shows: statistics of partitions, and what the store knows of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from logstore.inspect.broker_groups import broker_group_lags
from logstore.inspect.sources import Partition
from logstore.inspect.statistics import PartitionStatistics, Statistics
from logstore.inspect.store_statistics import (
    GroupLag,
    QueueStatistics,
    Removal,
    ShareGroupLag,
    group_lags,
    queue_statistics,
    share_group_lags,
)
from logstore.inspect.walking import Trouble
from logstore.store import Store

__all__ = ["Report", "TopicStatistics"]


@dataclass(slots=True)
class TopicStatistics:
    """The partitions of a topic that were looked into."""

    topic: str
    partitions: list[PartitionStatistics] = field(default_factory=list)

    @property
    def log_bytes(self) -> int:
        """Bytes of their logs."""
        return sum(one.log_bytes for one in self.partitions)

    @property
    def index_bytes(self) -> int:
        """All other files of them."""
        return sum(one.index_bytes for one in self.partitions)

    @property
    def records(self) -> int:
        """Records without control records."""
        return sum(one.records for one in self.partitions)

    @property
    def batches(self) -> int:
        """All batches."""
        return sum(one.batches for one in self.partitions)

    @property
    def segments(self) -> int:
        """How many segments they have."""
        return sum(len(one.segments) for one in self.partitions)


@dataclass(slots=True)
class Report:
    """Statistics, and what is known beyond them."""

    statistics: Statistics
    topics: list[TopicStatistics]
    removals: list[Removal] = field(default_factory=list)
    lags: list[GroupLag] = field(default_factory=list)
    share_lags: list[ShareGroupLag] = field(default_factory=list)
    queues: list[QueueStatistics] = field(default_factory=list)

    @classmethod
    def of(
        cls,
        statistics: Statistics,
        partitions: Sequence[Partition],
        *,
        store: Store | None = None,
        path: str | None = None,
        with_queues: bool = False,
        assumed: Mapping[str, Any] | None = None,
    ) -> Report:
        """Take ``partitions`` into ``statistics``, and ask the store, open for reading in the
        directory ``path``, what it knows of them; ``with_queues``: and of all its queues.
        ``assumed`` are keys of the configuration by which to say what would be removed."""
        removals = []
        for partition in partitions:
            found = Removal.of(store, partition, quick=statistics.quick, assumed=assumed or {})
            if isinstance(found, Trouble):
                statistics.tell(found)
                found = None
            if found is not None:
                removals.append(found)
            statistics.add(partition)
        by_name: dict[str, TopicStatistics] = {}
        for one in statistics.partitions:
            name = one.partition.topic
            by_name.setdefault(name, TopicStatistics(name)).partitions.append(one)
        report = cls(statistics, list(by_name.values()), removals)
        if not statistics.quick:
            report.lags += broker_group_lags(statistics)
        if store is not None and path is not None:
            topics = {one.partition.topic for one in removals}
            report.lags += group_lags(store, topics)
            report.share_lags += share_group_lags(store, topics)
            if with_queues:
                report.queues += queue_statistics(store, path, statistics.files)
        return report
