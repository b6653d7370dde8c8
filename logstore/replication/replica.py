"""A broker's copy of a partition: a real log, and what replication has to know of it.

Three offsets matter. The *end* is where the log ends. What lies below the *safe end* may be
claimed: told to the leader by the next fetch, or counted by the leader itself; with ``flush="ack"``
it is on stable storage. What lies below the *high watermark* is committed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

from logstore.config import LogConfig
from logstore.log import PartitionLog
from logstore.reader import Fetch
from logstore.replication.disk import Disk
from logstore.replication.history import Appended, HighWatermark, Synced, Truncated
from logstore.replication.kernel import SimulatedClock, Simulation
from logstore.replication.settings import ClusterSettings
from logstore.segments.batch import header_at, place
from logstore.segments.checkpoint import EpochEntry

__all__ = ["Host", "Replica", "end_of_epoch"]

_new_appended = partial(tuple.__new__, Appended)
"""``Appended._make`` without its Python frame."""


class Host(Protocol):
    """The broker's process that a replica is part of."""

    node: int
    simulation: Simulation
    settings: ClusterSettings
    bugs: frozenset[str]
    disk: Disk
    clock: SimulatedClock

    def enter(self, function: Callable[..., object], *args: Any) -> None:
        """Let something happen in the process, as soon as it can."""
        ...


class Replica:
    """One replica, in whatever role. Opening it recovers the log; raises FormatError or OSError."""

    __slots__ = (
        "_cuts",
        "_history",
        "_host",
        "_on_commit",
        "_on_safe",
        "_simulation",
        "_syncing",
        "_waits_for_sync",
        "end",
        "high_watermark",
        "leader_epoch",
        "log",
        "name",
        "partition_epoch",
        "safe_end",
    )

    def __init__(self, host: Host, name: str, *, high_watermark: int = 0) -> None:
        self.name = name
        self._host = host
        self._simulation = host.simulation
        self._history = host.simulation.history
        settings = host.settings
        self.log = PartitionLog(
            name,
            files=host.disk.files,
            clock=host.clock,
            config=LogConfig(segment_bytes=settings.segment_bytes),
        )
        self.end = self.log.log_end_offset
        """The log's end."""
        self._waits_for_sync = settings.flush == "ack" and "ack-before-sync" not in host.bugs
        self.safe_end = self.log.synced_offset if self._waits_for_sync else self.end
        """Below it everything may be claimed."""
        self.high_watermark = min(high_watermark, self.end)
        self.leader_epoch = -1
        """The epoch in which it leads or follows; -1 before it does."""
        self.partition_epoch = -1
        """Which of the controller's states it has come to."""
        self._syncing = False
        self._cuts = 0
        """Counts truncations: what a sync says of the time before one does not count."""
        self._on_safe: Callable[[Replica], None] | None = None
        self._on_commit: Callable[[], None] | None = None

    def when_safe(self, function: Callable[[Replica], None] | None) -> None:
        """Who is called from now on whenever ``safe_end`` has moved."""
        self._on_safe = function

    def when_committed(self, function: Callable[[], None]) -> None:
        """Who is called from now on whenever the high watermark has moved."""
        self._on_commit = function

    @property
    def settled(self) -> bool:
        """Whether everything that is there may be claimed."""
        return self.safe_end >= self.end

    # Appending --------------------------------------------------------------------------------

    def append_as_leader(self, data: bytes) -> tuple[int, int]:
        """Append a client's batch, which gets the next offsets and the leader's epoch, and return
        its base and next offset. One that is there already stays where it is.

        Raises what ``PartitionLog.append_raw`` does.
        """
        if "duplicates-accepted" in self._host.bugs:
            # What comes from a leader is not compared with what its producer has sent before.
            header = header_at(data, 0)
            placed = place(header.crc, data[21:], self.end, self.leader_epoch)
            base, last, _ = self.log.append_raw(placed, acks=1, origin="replica")
        else:
            base, last, _ = self.log.append_raw(data, acks=1)
        if last >= self.end:
            self._appended(base, last + 1, data, as_leader=True)
        return base, last + 1

    def append_as_follower(self, data: bytes) -> None:
        """Append batches of the leader's, as they are; raises what ``append_raw`` does."""
        base, last, _ = self.log.append_raw(data, acks=1, origin="replica")
        self._appended(base, last + 1, data, as_leader=False)

    def _appended(self, base: int, end: int, data: bytes, *, as_leader: bool) -> None:
        self.end = end
        now_us, node = self._simulation.now_us, self._host.node
        self._history.emit(
            _new_appended((now_us, node, self.name, self.leader_epoch, base, end, as_leader, data))
        )
        self.sync()

    def sync(self) -> None:
        """Make sure that what is there may be claimed soon, or at once if that takes nothing."""
        if not self._waits_for_sync:
            if self.safe_end != self.end:
                self.safe_end = self.end
                if self._on_safe is not None:
                    self._on_safe(self)
        elif not self._syncing and self.safe_end < self.end:
            self._syncing = True
            host = self._host
            host.disk.sync(self.log, host.enter, self._synced, self.end, self._cuts)

    def _synced(self, end: int, cuts: int) -> None:
        self._syncing = False
        if cuts == self._cuts and end > self.safe_end:
            self.safe_end = end
            self._history.emit(Synced(self._simulation.now_us, self._host.node, self.name, end))
            if self._on_safe is not None:
                self._on_safe(self)
        self.sync()

    def truncate(self, to: int, why: str) -> None:
        """Cut the log so that it ends at ``to``, if it does not end there or before."""
        if to >= self.end:
            return
        end, self.end = self.end, to
        self._cuts += 1
        self.log.truncate(to)
        self.safe_end = min(self.safe_end, to)
        node, now_us = self._host.node, self._simulation.now_us
        self._history.emit(Truncated(now_us, node, self.name, end, to, why))
        if self.high_watermark > to:
            self.raise_high_watermark(to, as_leader=False)
        self.sync()

    # Reading ----------------------------------------------------------------------------------

    def read(self, offset: int, *, max_bytes: int, upto: int | None = None) -> Fetch:
        """Whole batches from ``offset`` on, of those below ``upto``; raises what the log does."""
        if upto is None:
            return self.log.read(offset, max_bytes=max_bytes)
        return self.log.read(offset, max_bytes=max_bytes, upto=upto)

    def raise_high_watermark(self, offset: int, *, as_leader: bool) -> None:
        """What lies below ``offset`` is committed. (It goes back only where a follower is cut.)"""
        self.high_watermark = offset
        self._history.emit(
            HighWatermark(
                self._simulation.now_us,
                self._host.node,
                self.name,
                self.leader_epoch,
                offset,
                as_leader,
            )
        )
        if self._on_commit is not None:
            self._on_commit()

    @property
    def last_epoch(self) -> int:
        """The leader epoch of the last record; -1 where there is none."""
        epochs = self.log.leader_epochs()
        return epochs[-1].epoch if epochs and self.end > self.log.log_start_offset else -1


def end_of_epoch(entries: Sequence[EpochEntry], epoch: int, end: int) -> tuple[int, int]:
    """The largest of a log's epochs that is not larger than ``epoch``, and the offset behind its
    last record; ``end`` is the log's end. ``(-1, -1)`` where there is none, or where ``epoch`` is
    larger than all of them, so that nobody can say what became of it.

    The rule of Kafka's ``LeaderEpochFileCache.endOffsetFor`` (KIP-279).
    """
    if not entries or epoch > entries[-1].epoch:
        return -1, -1
    if epoch == entries[-1].epoch:
        return epoch, end
    found = -1
    for entry in entries:
        if entry.epoch > epoch:
            return (found if found >= 0 else epoch), entry.start_offset
        found = entry.epoch
    raise AssertionError("the last entry's epoch is larger than the one that was asked for")
