"""A mirrored queue at one broker: a replica whose records are applied to a ledger when committed.

Every replica applies them; the leader also acts: it leases messages to the consumers that are
attached to it, and tells them what became of their acknowledgements. What it decides it appends as
a command, and it acts when that is committed, so nobody was told anything that a later leader does
not know. The first command of a leader ends all leases: they are promises of one leader epoch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from logstore.replication.leader import Leader
from logstore.replication.messages import REQUEST_BYTES
from logstore.replication.queue_machine import (
    Delivery,
    QueueMachine,
    Settlement,
    command,
)
from logstore.replication.replica import Replica
from logstore.segments.batch import encode_batch, iter_batches
from logstore.segments.record import Record

if TYPE_CHECKING:
    from logstore.replication.broker import Broker

__all__ = ["QUEUE_PREFIX", "Attach", "MirroredQueue", "QueueAttached", "Settle"]

QUEUE_PREFIX: Final = "jobs-"
"""The partitions of this topic are queues."""
_LOOK_US: Final = 500_000
"""How often a leader looks for leases whose time is up, and tries again what it could not do."""


class QueueAttached(Protocol):
    """A consumer, as its queue's leader sees it."""

    @property
    def node(self) -> str:
        """Its name."""
        ...

    def on_delivery(self, epoch: int, delivery: Delivery) -> None:
        """Messages were leased to it."""
        ...

    def on_settled(self, epoch: int, settlement: Settlement) -> None:
        """An acknowledgement is committed."""
        ...


class Attach(NamedTuple):
    """A consumer asks for messages, in one leader epoch."""

    consumer: QueueAttached
    queue: str
    leader_epoch: int
    prefetch: int
    """How many it can have at once; 0: it is about to go, and wants no more."""


class Settle(NamedTuple):
    """A consumer has done with messages of a lease, or gives them back."""

    consumer: QueueAttached
    queue: str
    leader_epoch: int
    first: int
    number: int
    bits: int
    done: bool


class _Attached:
    """What a leader knows of a consumer."""

    __slots__ = ("asked", "consumer", "prefetch")

    def __init__(self, consumer: QueueAttached, prefetch: int) -> None:
        self.consumer = consumer
        self.prefetch = prefetch
        self.asked = False
        """Whether a command that leases more is under way."""


class MirroredQueue:
    """One replica of a queue, in whatever role."""

    def __init__(self, broker: Broker, replica: Replica, lease_ms: int) -> None:
        self.machine = QueueMachine()
        self._broker = broker
        self._replica = replica
        self._lease_ms = lease_ms
        self._leader: Leader | None = None
        self._active = False
        """Whether this leader's first command is committed, so that it knows the ledger."""
        self._attached: dict[str, _Attached] = {}
        self._applying = False
        self._hasty = "queue-applies-uncommitted" in broker.bugs
        replica.when_committed(self._apply)
        self._apply()

    # The leader's role ------------------------------------------------------------------------

    def lead(self, leader: Leader) -> None:
        """Lead from now on."""
        self._leader = leader
        self._attached.clear()
        self._active = False
        self._append(command("lead", leader.epoch))
        self._look(leader)

    def step_back(self) -> None:
        """Somebody else leads, or nobody."""
        self._leader = None
        self._active = False
        self._attached.clear()

    def _append(self, record: Record) -> bool:
        """Append a command, if the leader may append now."""
        leader = self._leader
        if leader is None:
            return False
        appended = leader.append_own(encode_batch([record._replace(timestamp=self._now_ms())]))
        if self._hasty:
            self._apply()
        return appended

    def _now_ms(self) -> int:
        return self._broker.simulation.now_us // 1000

    def _look(self, leader: Leader) -> None:
        if self._leader is not leader:
            return
        if not self._active:
            if not self._under_way():
                self._append(command("lead", leader.epoch))
        elif self.machine.ledger.head.earliest_deadline <= self._now_ms():
            self._append(command("expire", self._now_ms()))
        for attached in self._attached.values():
            attached.asked = attached.asked and self._under_way()
        self._lease()
        self._broker.later(_LOOK_US, self._look, leader)

    def _under_way(self) -> bool:
        """Whether something was appended and is not committed."""
        return self._replica.end > self._replica.high_watermark

    # Consumers --------------------------------------------------------------------------------

    def attach(self, request: Attach) -> None:
        """A consumer asks for messages; a copy of what it asked before changes nothing."""
        leader = self._leader
        if leader is None or leader.epoch != request.leader_epoch:
            return
        node = request.consumer.node
        if request.prefetch == 0:
            if node in self._attached and self._append(command("detach", node)):
                del self._attached[node]
            return
        if node not in self._attached:
            self._attached[node] = _Attached(request.consumer, request.prefetch)
        self._lease()

    def settle(self, request: Settle) -> None:
        """A consumer has done with messages, or gives them back."""
        leader = self._leader
        if leader is None or leader.epoch != request.leader_epoch:
            return
        name = "settle" if request.done else "return"
        node, bits = request.consumer.node, f"{request.bits:x}"
        self._append(command(name, node, request.first, request.number, bits))

    def _lease(self) -> None:
        """Lease what is ready to whoever has room."""
        if not self._active:
            return
        for node, attached in list(self._attached.items()):
            if attached.asked or self.machine.ready == 0:
                continue
            room = attached.prefetch - self.machine.held(node)
            if room > 0:
                now_ms = self._now_ms()
                deadline = now_ms + self._lease_ms
                attached.asked = True  # it may be committed, and applied, before this returns
                if not self._append(command("take", node, room, now_ms, deadline)):
                    attached.asked = False

    # Applying ---------------------------------------------------------------------------------

    def _apply(self) -> None:
        """Apply what is committed and was not applied yet. What that leads to may commit more: one
        call at a time applies."""
        if self._applying:
            return
        self._applying = True
        try:
            self._apply_all()
        finally:
            self._applying = False
        self._lease()

    def _apply_all(self) -> None:
        machine, replica = self.machine, self._replica
        upto = replica.high_watermark
        if self._hasty and self._leader is not None:
            upto = replica.end
        if machine.applied > replica.end:  # cut by an unclean leader: what was applied is void
            machine = self.machine = QueueMachine()
        while machine.applied < upto:
            data = replica.read(machine.applied, max_bytes=1 << 20, upto=upto).data
            for batch in iter_batches(data):
                for record in batch.records():
                    if record.offset >= machine.applied:
                        self._act(record, machine.apply(record))

    def _act(self, record: Record, effect: Delivery | Settlement | None) -> None:
        leader = self._leader
        if leader is None:
            return
        if record.key == b"lead":
            self._active = record.value == str(leader.epoch).encode()
            return
        if not self._active:
            return
        words = (record.value or b"").decode().split()
        attached = self._attached.get(words[0]) if record.key is not None and words else None
        if attached is None:
            return
        if record.key == b"take":
            attached.asked = False
        consumer, size = attached.consumer, REQUEST_BYTES
        send, me = self._broker.network.send, self._broker.node
        if isinstance(effect, Delivery):
            send(me, consumer.node, size, consumer.on_delivery, leader.epoch, effect)
        elif isinstance(effect, Settlement):
            send(me, consumer.node, size, consumer.on_settled, leader.epoch, effect)
