"""What each replica holds, as paths in a tree of batches.

A batch that a leader appends is a new leaf behind the last batch of its log. A follower that
appends the same bytes behind the same batch comes to the same leaf. So two logs that end in the
same object are the same up to there, and whether one holds all of another is a look at one place.
A follower that comes to a leaf of its own has appended something behind another batch than the
leader had it behind: the two have diverged (Raft calls this the log matching property).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from operator import attrgetter
from typing import Any

from logstore.replication.checkers.findings import Wrong
from logstore.replication.history import Acknowledged, Appended, Opened, Truncated
from logstore.segments.batch import header_at, prefix_at
from logstore.segments.header import LOG_OVERHEAD_BYTES

__all__ = ["BatchNode", "Lineage", "ReplicaLog", "last_below"]

_LAST = 64
"""Most questions are about so many batches at a log's end."""
_next_offset: Callable[[BatchNode], int] = attrgetter("next_offset")


class BatchNode:
    """A batch behind all that came before it."""

    __slots__ = (
        "acknowledged",
        "appended_us",
        "base_offset",
        "crc",
        "epoch",
        "following",
        "leader",
        "next_offset",
        "number",
        "producer",
    )

    def __init__(
        self,
        number: int,
        base_offset: int,
        next_offset: int,
        *,
        crc: int,
        epoch: int,
        producer: tuple[int, int, int] = (-1, -1, -1),
        appended_us: int = 0,
        leader: int = -1,
    ) -> None:
        self.number = number
        """How many batches come before it in its log, the root included."""
        self.base_offset = base_offset
        self.next_offset = next_offset
        self.crc = crc
        self.epoch = epoch
        self.producer = producer
        """The producer's id and epoch, and the batch's first sequence number."""
        self.appended_us = appended_us
        self.leader = leader
        """The broker that appended it first."""
        self.following: tuple[BatchNode, ...] = ()
        """What was ever appended behind it; more than one only where logs have parted."""
        self.acknowledged: Acknowledged | None = None
        """That its producer was told so."""

    def __repr__(self) -> str:
        return f"{self.base_offset}..{self.next_offset - 1} of epoch {self.epoch}"


class ReplicaLog:
    """What one replica holds."""

    __slots__ = ("high_watermark", "path", "synced_offset")

    def __init__(self, root: BatchNode) -> None:
        self.path = [root]
        """Its batches; the first is the root, which stands for the empty log."""
        self.synced_offset = 0
        self.high_watermark = 0
        """As the replica knows it."""

    @property
    def end_offset(self) -> int:
        return self.path[-1].next_offset

    def holds(self, node: BatchNode) -> bool:
        """Whether the batch is there, and with it all that came before."""
        return len(self.path) > node.number and self.path[node.number] is node

    def last_below(self, offset: int) -> BatchNode:
        """The last batch that ends at ``offset`` or before; the root if there is none."""
        return last_below(self.path, offset)

    def shared_with(self, path: list[BatchNode]) -> int:
        """How many batches another log begins with that this one begins with, too."""
        low, high = 1, min(len(path), len(self.path))
        while low < high:  # the same batch at a place means the same ones before it
            middle = (low + high + 1) // 2
            if path[middle - 1] is self.path[middle - 1]:
                low = middle
            else:
                high = middle - 1
        return low


def last_below(path: list[BatchNode], offset: int) -> BatchNode:
    """The last batch of a log that ends at ``offset`` or before; the root if there is none."""
    low = max(0, len(path) - _LAST)
    if path[low].next_offset > offset:
        low = 0
    return path[bisect_right(path, offset, low, key=_next_offset) - 1]


class Lineage:
    """The logs of all replicas of one partition."""

    def __init__(self, partition: str) -> None:
        self.partition = partition
        self.root = BatchNode(0, 0, 0, crc=0, epoch=-1)
        self.logs: dict[int, ReplicaLog] = {}
        self.led: dict[tuple[int, int], BatchNode] = {}
        """What leaders have appended, by offset and epoch."""

    def log(self, broker: int) -> ReplicaLog:
        """What a broker holds of the partition."""
        log = self.logs.get(broker)
        if log is None:
            log = self.logs[broker] = ReplicaLog(self.root)
        return log

    def appended(self, event: Appended) -> Wrong | None:
        """Follow an append; returns what is wrong with it."""
        log = self.logs.get(event.broker) or self.log(event.broker)
        tip = log.path[-1]
        if event.base_offset != tip.next_offset:
            return Wrong(
                "gap",
                f"broker {event.broker} appended at offset {event.base_offset} to a log that ends "
                f"at {tip.next_offset}",
            )
        if event.as_leader:
            self._lead(log, event)
            return None
        return self._follow(log, event)

    def _lead(self, log: ReplicaLog, event: Appended) -> None:
        data, position, size = event.data, 0, len(event.data)
        offset, epoch = event.base_offset, event.leader_epoch
        tip = log.path[-1]
        while position < size:
            header = header_at(data, position)
            node = BatchNode(
                tip.number + 1,
                offset,
                offset + header.last_offset_delta + 1,
                crc=header.crc,
                epoch=epoch,
                producer=header[9:12],
                appended_us=event.at_us,
                leader=event.broker,
            )
            tip.following += (node,)
            log.path.append(node)
            self.led[offset, epoch] = tip = node
            offset = node.next_offset
            position += header.length + LOG_OVERHEAD_BYTES

    def _follow(self, log: ReplicaLog, event: Appended) -> Wrong | None:
        data, position, size = event.data, 0, len(event.data)
        wrong = None
        tip = log.path[-1]
        while position < size:
            base, length, epoch, _, crc = prefix_at(data, position)
            for node in tip.following:
                if node.base_offset == base and node.crc == crc and node.epoch == epoch:
                    break
            else:
                node = self._part(tip, header_at(data, position), event)
                wrong = Wrong(
                    "divergence",
                    f"broker {event.broker} appended the batch {node} behind {tip}, where no "
                    "leader had it",
                )
            log.path.append(node)
            tip = node
            position += length + LOG_OVERHEAD_BYTES
        return wrong

    def _part(self, tip: BatchNode, header: Any, event: Appended) -> BatchNode:
        """A batch behind another one than its leader had it behind."""
        node = BatchNode(
            tip.number + 1,
            header.base_offset,
            header.next_offset,
            crc=header.crc,
            epoch=header.leader_epoch,
            producer=header[9:12],
            appended_us=event.at_us,
        )
        tip.following += (node,)
        return node

    def truncated(self, event: Truncated) -> list[BatchNode]:
        """Follow a truncation; returns the batches that it took."""
        log = self.log(event.broker)
        path = log.path
        keep = len(path)
        while keep > 1 and path[keep - 1].next_offset > event.to_offset:
            keep -= 1
        taken = path[keep:]
        del path[keep:]
        log.synced_offset = min(log.synced_offset, event.to_offset)
        log.high_watermark = min(log.high_watermark, event.to_offset)
        return taken

    def opened(self, event: Opened) -> None:
        """A log was opened, perhaps with less than it had; the high watermark is not in it."""
        log = self.log(event.broker)
        path = log.path
        while path[-1].next_offset > event.end_offset:
            path.pop()
        log.synced_offset = min(event.synced_offset, log.end_offset)
        log.high_watermark = 0

    def emptied(self, broker: int) -> None:
        """A broker's disk is gone."""
        self.logs[broker] = ReplicaLog(self.root)
