"""What befell brokers and partitions, and what of it can be a record's undoing."""

from __future__ import annotations

from typing import NamedTuple

from logstore.replication.history import (
    BitRot,
    Crashed,
    DiskLost,
    Elected,
    Event,
    IsrChanged,
    Leads,
    ReplicaFailed,
    ReplicasChanged,
    Started,
    Truncated,
)
from logstore.replication.promise import Hardships

__all__ = ["PartitionTimeline", "StorageLoss", "Timeline"]

STOPPED = "stop"
"""The mode of an end in good order, in which everything is synced."""


class StorageLoss:
    """A replica has lost what it had stored, or a part of it, until it is in sync again."""

    __slots__ = ("broker", "from_us", "reopened", "until_us")

    def __init__(self, broker: int, from_us: int) -> None:
        self.broker = broker
        self.from_us = from_us
        self.reopened = False
        """Whether the broker has opened what it has left. Who is taken into the in-sync set before
        that, by a message that was on its way for long, is dead."""
        self.until_us: int | None = None
        """When it was taken into the in-sync set again, or elected; None: not yet."""


class _Interval(NamedTuple):
    from_us: int
    until_us: int | None


class PartitionTimeline:
    """Of one partition: who leads, who is in sync, whose storage is lost; and what happened."""

    def __init__(self, partition: str) -> None:
        self.partition = partition
        self.leader = -1
        self.epoch = -1
        self.isr: tuple[int, ...] = ()
        self.elr: tuple[int, ...] = ()
        self.led = False
        """Whether the last one that was elected has begun to lead."""
        self.unclean_epoch = -1
        """The epoch of the last unclean election."""
        self.leaders: dict[int, int] = {}
        """Every leader that there ever was, by epoch."""
        self.events: list[Event] = []
        """Elections, changes of the in-sync set, truncations, failures; of its brokers, too."""
        self.losses: list[StorageLoss] = []
        self._open: dict[int, StorageLoss] = {}
        """The losses that last, by broker."""
        self._gone: list[_Interval] = []
        """When all that were in sync or eligible had lost their storage."""

    def storage_lost(self, broker: int) -> bool:
        """Whether a replica has lost what it had, and is not in sync again."""
        return broker in self._open

    def has_rotted(self, broker: int) -> bool:
        """Whether bits of a replica have ever turned over."""
        return any(isinstance(e, BitRot) and e.broker == broker for e in self.events)

    def lose(self, broker: int, at_us: int) -> None:
        """A replica has lost what it had stored."""
        if broker not in self._open:
            loss = self._open[broker] = StorageLoss(broker, at_us)
            self.losses.append(loss)
            self._look(at_us)
        self._open[broker].reopened = False

    def opened(self, broker: int) -> None:
        """A broker has opened what its disk has of the partition."""
        if broker in self._open:
            self._open[broker].reopened = True

    def changed(self, event: Elected | IsrChanged) -> None:
        """The controller has changed leader or in-sync set; :meth:`settle` follows."""
        if isinstance(event, Elected):
            self.leaders.setdefault(event.leader_epoch, event.leader)
            self.led = self.led and event.leader < 0
            if not event.clean:
                self.unclean_epoch = event.leader_epoch
        self.leader = event.leader
        self.epoch = max(self.epoch, event.leader_epoch)
        self.events.append(event)

    def settle(self, event: Elected | IsrChanged) -> None:
        """After checkers have looked: who is in sync anew has what its leader has."""
        for broker in event.isr:
            loss = self._open.get(broker)
            if loss is not None and loss.reopened and broker not in (*self.isr, event.leader):
                self._restore(broker, event.at_us)
        self.isr, self.elr = event.isr, event.elr
        self._look(event.at_us)

    def leads(self, event: Leads) -> None:
        """Whatever its leader has is what there is from now on. (Not from its election on: it may
        die, or have died, before it leads.) Only what has rotted does not mend by that: whatever
        comes behind it may stay out of reach."""
        self.led = True
        if not self.has_rotted(event.broker):
            self._restore(event.broker, event.at_us)
        self._look(event.at_us)

    def _restore(self, broker: int, at_us: int) -> None:
        loss = self._open.pop(broker, None)
        if loss is not None:
            loss.until_us = at_us

    def _look(self, at_us: int) -> None:
        known = {*self.isr, *self.elr}
        gone = bool(known) and known <= self._open.keys()
        last = self._gone[-1] if self._gone else None
        if gone and (last is None or last.until_us is not None):
            self._gone.append(_Interval(at_us, None))
        elif not gone and last is not None and last.until_us is None:
            self._gone[-1] = _Interval(last.from_us, at_us)

    def hardships(self, since_us: int, leader: int, epoch: int) -> Hardships:
        """What befell a record that ``leader`` appended at ``since_us`` in its ``epoch``, up to
        now. (It may have been deposed by then, and not have known.)"""
        elected = [
            event
            for event in self.events
            if isinstance(event, Elected) and event.leader_epoch > epoch and event.leader >= 0
        ]
        return Hardships(
            storage_lost_at_once=self._most_at_once(since_us),
            in_sync_storage_gone=any(
                interval.until_us is None or interval.until_us >= since_us
                for interval in self._gone
            ),
            leader_changed=any(event.leader != leader for event in elected),
            leader_storage_lost=any(
                loss.broker == leader and loss.from_us >= since_us for loss in self.losses
            ),
            unclean_election=any(not event.clean for event in elected),
        )

    def _most_at_once(self, since_us: int) -> int:
        losses = [loss for loss in self.losses if loss.from_us >= since_us]
        return max(
            (
                sum(
                    other.from_us <= loss.from_us
                    and (other.until_us is None or other.until_us > loss.from_us)
                    for other in losses
                )
                for loss in losses
            ),
            default=0,
        )


class Timeline:
    """Of all partitions. ``flush`` is the cluster's: with ``page_cache`` every end that is not in
    good order counts as a loss of storage, since nobody can tell whether it was (KIP-966)."""

    def __init__(self, flush: str) -> None:
        self._crash_loses = flush == "page_cache"
        self.partitions: dict[str, PartitionTimeline] = {}

    def of(self, partition: str) -> PartitionTimeline:
        """The timeline of a partition."""
        found = self.partitions.get(partition)
        if found is None:
            found = self.partitions[partition] = PartitionTimeline(partition)
        return found

    def crashed(self, event: Crashed) -> None:
        """A broker is down, perhaps with what it had not synced."""
        for timeline in self.partitions.values():
            timeline.events.append(event)
            if self._crash_loses and event.mode != STOPPED:
                timeline.lose(event.broker, event.at_us)

    def disk_lost(self, event: DiskLost) -> None:
        """A broker has an empty disk."""
        for timeline in self.partitions.values():
            timeline.events.append(event)
            timeline.lose(event.broker, event.at_us)

    def rotted(self, event: BitRot | ReplicaFailed) -> None:
        """A replica's log cannot be trusted any more."""
        timeline = self.of(event.partition)
        timeline.events.append(event)
        timeline.lose(event.broker, event.at_us)

    def noted(self, event: Truncated | ReplicasChanged) -> None:
        """Something happened to a partition that its records' fate may need to be told."""
        self.of(event.partition).events.append(event)

    def started(self, event: Started) -> None:
        """A broker runs again."""
        for timeline in self.partitions.values():
            timeline.events.append(event)
