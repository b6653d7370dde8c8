"""Histories written by hand: what brokers did, told to the checkers as events."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from logstore.replication.checkers.suite import Checkers, PartitionChecks
from logstore.replication.history import (
    Acknowledged,
    Appended,
    Crashed,
    Delivered,
    DiskLost,
    Elected,
    HighWatermark,
    History,
    IsrChanged,
    Leads,
    Synced,
    Truncated,
)
from logstore.segments.batch import encode_batch, iter_batches
from logstore.segments.record import Record

P = "orders-0"


@dataclass(frozen=True)
class Settings:
    """What checkers need to know of a cluster."""

    replication_factor: int = 3
    acks: Literal[0, 1, "all"] = "all"
    min_insync_replicas: int = 2
    eligible_leader_replicas: bool = True
    epoch_truncation: str = "KIP-279"
    unclean_election: bool = False
    flush: str = "ack"


@dataclass
class Story:
    """One partition on brokers 0, 1 and 2. Every step takes 10 microseconds."""

    settings: Settings = field(default_factory=Settings)
    idempotent: bool = True
    partition: str = P

    def __post_init__(self) -> None:
        self.history = History()
        self.checkers = Checkers(self.history, self.settings, idempotent=self.idempotent)
        self.now_us = 0
        self.epoch = -1
        self.leader = -1
        self.logs: dict[int, list[bytes]] = {0: [], 1: [], 2: []}
        self.sequence = 0

    @property
    def checks(self) -> PartitionChecks:
        return self.checkers.of(self.partition)

    @property
    def broken(self) -> list[str]:
        """The kinds of what was found."""
        return [violation.kind for violation in self.checkers.findings.violations]

    def tick(self) -> int:
        self.now_us += 10
        return self.now_us

    def end(self, broker: int) -> int:
        return sum(batch.header.record_count for batch in iter_batches(b"".join(self.logs[broker])))

    def elect(
        self,
        leader: int,
        isr: tuple[int, ...],
        *,
        elr: tuple[int, ...] = (),
        clean: bool = True,
        leads: bool = True,
        epoch: int | None = None,
    ) -> None:
        self.epoch = self.epoch + 1 if epoch is None else epoch
        self.leader = leader
        self.history.emit(Elected(self.tick(), self.partition, leader, self.epoch, isr, elr, clean))
        if leader >= 0 and leads:
            end = self.end(leader)
            self.history.emit(Leads(self.tick(), leader, self.partition, self.epoch, end))

    def isr(self, *isr: int, elr: tuple[int, ...] = (), epoch: int | None = None) -> None:
        epoch = self.epoch if epoch is None else epoch
        self.history.emit(IsrChanged(self.tick(), self.partition, self.leader, epoch, 0, isr, elr))

    def append(
        self,
        broker: int,
        *ids: str,
        epoch: int | None = None,
        sequence: int | None = None,
        sync: bool = True,
    ) -> int:
        """A leader appends a batch; returns its base offset."""
        if sequence is None:
            sequence, self.sequence = self.sequence, self.sequence + len(ids)
        epoch = self.epoch if epoch is None else epoch
        records = [Record(key=None, value=name.encode(), timestamp=1) for name in ids]
        base = self.end(broker)
        idempotent = (
            {"producer_id": 7, "producer_epoch": 0, "base_sequence": sequence}
            if self.idempotent
            else {}
        )
        data = encode_batch(records, **idempotent)
        placed = encode_batch(records, base_offset=base, leader_epoch=epoch, **idempotent)
        self.logs[broker].append(placed)
        end = base + len(ids)
        self.history.emit(
            Appended(self.tick(), broker, self.partition, epoch, base, end, True, data)
        )
        if sync:
            self.sync(broker)
        return base

    def fetch(self, broker: int, source: int, *, sync: bool = True, most: int = 100) -> None:
        """A follower appends what it lacks of another's log, by the count of batches."""
        have = len(self.logs[broker])
        new = self.logs[source][have : have + most]
        base = self.end(broker)
        self.logs[broker] += new
        end = self.end(broker)
        event = Appended(
            self.tick(), broker, self.partition, self.epoch, base, end, False, b"".join(new)
        )
        self.history.emit(event)
        if sync:
            self.sync(broker)

    def sync(self, broker: int) -> None:
        self.history.emit(Synced(self.tick(), broker, self.partition, self.end(broker)))

    def truncate(self, broker: int, batches: int, why: str = "epoch") -> None:
        """A replica cuts its log to so many batches."""
        before = self.end(broker)
        del self.logs[broker][batches:]
        after = self.end(broker)
        self.history.emit(Truncated(self.tick(), broker, self.partition, before, after, why))

    def commit(self, broker: int, offset: int, *, epoch: int | None = None) -> None:
        epoch = self.epoch if epoch is None else epoch
        as_leader = broker == self.leader or epoch < self.epoch
        event = HighWatermark(self.tick(), broker, self.partition, epoch, offset, as_leader)
        self.history.emit(event)

    def acknowledge(self, base: int, *ids: str, epoch: int | None = None) -> None:
        epoch = self.epoch if epoch is None else epoch
        self.history.emit(Acknowledged(self.tick(), "p1", self.partition, 0, ids, base, epoch, 0))

    def deliver(self, base: int, *ids: str, watermark: int = 0, consumer: str = "c1") -> None:
        watermark = watermark or base + len(ids)
        self.history.emit(
            Delivered(self.tick(), consumer, self.partition, base, ids, self.epoch, watermark)
        )

    def crash(self, broker: int, mode: str = "lose") -> None:
        self.history.emit(Crashed(self.tick(), broker, mode))

    def lose_disk(self, broker: int) -> None:
        self.logs[broker] = []
        self.history.emit(DiskLost(self.tick(), broker))

    def committed_everywhere(self, *ids: str) -> None:
        """A record on all three brokers, committed and acknowledged; broker 0 leads."""
        base = self.append(0, *ids)
        self.fetch(1, 0)
        self.fetch(2, 0)
        self.commit(0, base + len(ids))
        self.acknowledge(base, *ids)
