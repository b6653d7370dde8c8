"""What a run is measured by: how long producers waited, and how long partitions could not be
written."""

from __future__ import annotations

from collections import Counter
from typing import Literal

from logstore.replication.history import (
    Acknowledged,
    Crashed,
    Elected,
    History,
    IsrChanged,
    Refused,
)
from logstore.replication.mirrored_queue import QUEUE_PREFIX

__all__ = ["Measures", "percentile"]


def percentile(counts: Counter[int], share: float) -> int:
    """The smallest value that at least ``share`` of all values do not exceed (the nearest-rank
    percentile); 0 where there is none."""
    total = counts.total()
    wanted = max(1, -(-total * round(share * 10_000) // 10_000))
    for value in sorted(counts):
        wanted -= counts[value]
        if wanted <= 0:
            return value
    return 0


class _Writable:
    """Whether a partition takes what its producers send."""

    __slots__ = ("in_sync", "leader", "needed", "since_us")

    def __init__(self, needed: int) -> None:
        self.needed = needed
        """How many replicas have to be in sync for that."""
        self.leader = -1
        self.in_sync = 0
        self.since_us: int | None = None
        """Since when it does not; None: it does."""


class Measures:
    """Subscribes to a run's history."""

    def __init__(
        self, history: History, *, acks: Literal[0, 1, "all"], min_insync_replicas: int
    ) -> None:
        self.latencies_us: Counter[int] = Counter()
        """How long it took from the first sending of a batch to its acknowledgement, exactly."""
        self.acknowledged = 0
        """How many records were."""
        self.confirmed = 0
        """How many of them are messages of queues."""
        self.refused = 0
        """How many records producers have given up."""
        self._needed = min_insync_replicas if acks == "all" else 1
        self._needed_by_queues = min_insync_replicas
        self._partitions: dict[str, _Writable] = {}
        self._unavailable_us = 0
        history.subscribe(Acknowledged, self._acknowledged)
        history.subscribe(Refused, self._refused)
        history.subscribe(Elected, self._changed)
        history.subscribe(IsrChanged, self._changed)
        history.subscribe(Crashed, self._crashed)

    def unavailable_us(self, now_us: int) -> int:
        """How long partitions had no leader, or too few in-sync replicas for ``acks=all``, up to
        now: the mean over partitions."""
        lasting = sum(
            now_us - partition.since_us
            for partition in self._partitions.values()
            if partition.since_us is not None
        )
        return (self._unavailable_us + lasting) // max(1, len(self._partitions))

    def _acknowledged(self, event: Acknowledged) -> None:
        self.latencies_us[event.at_us - event.sent_us] += 1
        self.acknowledged += len(event.record_ids)
        if event.partition.startswith(QUEUE_PREFIX):
            self.confirmed += len(event.record_ids)

    def _refused(self, event: Refused) -> None:
        self.refused += len(event.record_ids)

    def _changed(self, event: Elected | IsrChanged) -> None:
        partition = self._partitions.get(event.partition)
        if partition is None:
            queue = event.partition.startswith(QUEUE_PREFIX)
            needed = self._needed_by_queues if queue else self._needed
            partition = self._partitions[event.partition] = _Writable(needed)
        if isinstance(event, Elected):
            partition.leader = event.leader
        partition.in_sync = len(event.isr)
        self._look(partition, event.at_us)

    def _crashed(self, event: Crashed) -> None:
        """Its partitions have no leader until the controller elects one, if only it again."""
        for partition in self._partitions.values():
            if partition.leader == event.broker:
                partition.leader = -1
                self._look(partition, event.at_us)

    def _look(self, partition: _Writable, at_us: int) -> None:
        writable = partition.leader >= 0 and partition.in_sync >= partition.needed
        if writable and partition.since_us is not None:
            self._unavailable_us += at_us - partition.since_us
            partition.since_us = None
        elif not writable and partition.since_us is None:
            partition.since_us = at_us
