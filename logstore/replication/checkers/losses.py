"""Acknowledged records that are gone: whether anything promised that they would not be, and why.

A record is noted as missing when a replica without it leads. It may come back: a later leader may
have it. So what is lost for good is decided at the end, when everything is healed and read.
"""

from __future__ import annotations

from collections.abc import Set
from typing import NamedTuple

from logstore.replication.checkers.findings import Loss
from logstore.replication.checkers.lineage import BatchNode, Lineage
from logstore.replication.checkers.timeline import PartitionTimeline
from logstore.replication.history import (
    BitRot,
    Crashed,
    DiskLost,
    Elected,
    Event,
    ReplicaFailed,
    Truncated,
)
from logstore.replication.promise import Promise, PromiseSettings, promises

__all__ = ["Missing", "Missings", "causes_of"]


class Missing(NamedTuple):
    """A batch that the leader has not got, and what befell it."""

    node: BatchNode
    at_us: int
    """When that leader was elected, or came back."""
    promise: Promise
    causes: tuple[Event, ...]


class Missings:
    """The batches of one partition that leaders were found to lack."""

    def __init__(
        self, lineage: Lineage, timeline: PartitionTimeline, settings: PromiseSettings
    ) -> None:
        self._lineage = lineage
        self._timeline = timeline
        self._settings = settings
        self.by_node: dict[BatchNode, Missing] = {}
        """What is missing, or was; the first time counts."""

    def note(self, nodes: list[BatchNode], at_us: int, *, committed: bool) -> list[Missing]:
        """Batches are missing; returns those whose loss breaks a promise."""
        broken = []
        for node in nodes:
            if node in self.by_node:
                continue
            promise = self.promise(node, committed=committed)
            missing = Missing(node, at_us, promise, causes_of(node, self._timeline))
            self.by_node[node] = missing
            if promise.holds:
                broken.append(missing)
        return broken

    def promise(self, node: BatchNode, *, committed: bool) -> Promise:
        """Whether a batch has to be there: as it was when it was found missing, or as it is now."""
        missing = self.by_node.get(node)
        if missing is not None:
            return missing.promise
        hardships = self._timeline.hardships(node.appended_us, node.leader, node.epoch)
        return promises(self._settings, hardships, committed=committed)

    def lost(self, gone: list[BatchNode], done: Set[str] = frozenset()) -> list[Loss]:
        """The losses to tell of, for acknowledged batches that are gone at the end; neighbours that
        were lost together make one. What is ``done`` with is no loss."""
        losses: list[Loss] = []
        last: Missing | None = None
        for node in gone:
            missing, told = self.by_node[node], node.acknowledged
            if told is None or missing.promise.holds:
                continue  # a broken promise is no loss to be explained
            record_ids = tuple(name for name in told.record_ids if name not in done)
            if not record_ids:
                continue
            together = last is not None and last[1:] == missing[1:]
            if together and losses:
                ids = losses[-1].record_ids + record_ids
                losses[-1] = losses[-1]._replace(record_ids=ids)
            else:
                losses.append(
                    Loss(
                        self._timeline.partition,
                        node.base_offset,
                        record_ids,
                        acknowledged_us=told.at_us,
                        lost_us=missing.at_us,
                        reasons=missing.promise.reasons,
                        causes=missing.causes,
                    )
                )
            last = missing
        return losses


def causes_of(node: BatchNode, timeline: PartitionTimeline) -> tuple[Event, ...]:
    """What happened since a batch was appended that can have to do with its loss: broken storage,
    elections, and the truncations that took it; and before, the elections that its leader had not
    heard of."""
    since_us = node.appended_us
    return tuple(
        event
        for event in timeline.events
        if (isinstance(event, Elected) and event.leader_epoch > node.epoch)
        or (
            event.at_us >= since_us
            and (
                isinstance(event, Crashed | DiskLost | BitRot | ReplicaFailed | Elected)
                or (isinstance(event, Truncated) and event.to_offset < node.next_offset)
            )
        )
    )
