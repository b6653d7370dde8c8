"""Mirrored queues: a message is with one consumer at a time, and done with once that is told."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from logstore.replication.checkers.findings import Findings, Wrong
from logstore.replication.history import (
    History,
    QueueDelivered,
    QueueReleased,
    QueueSettled,
)
from logstore.replication.queue_machine import QueueMachine

__all__ = ["QueueCheckers"]


class _Queue:
    """What is known of one queue."""

    def __init__(self) -> None:
        self.holders: dict[int, QueueDelivered] = {}
        """Who has each message: its last delivery, until it is released."""
        self.delivered: dict[int, str] = {}
        """The messages that anybody got, by offset."""
        self.settled: dict[int, str] = {}
        """Those whose acknowledgement was confirmed."""


class QueueCheckers:
    """Looks at what the consumers of mirrored queues get."""

    def __init__(self, history: History, findings: Findings) -> None:
        self.deliveries = 0
        self.redeliveries = 0
        self.settled = 0
        self._findings = findings
        self._queues: dict[str, _Queue] = {}
        history.subscribe(QueueDelivered, self._delivered)
        history.subscribe(QueueReleased, self._released)
        history.subscribe(QueueSettled, self._settled)

    def _of(self, queue: str) -> _Queue:
        return self._queues.setdefault(queue, _Queue())

    def _delivered(self, event: QueueDelivered) -> None:
        for kind, text in self._look(event):
            self._findings.broken(kind, event.at_us, event.queue, text)
        queue = self._of(event.queue)
        self.deliveries += 1
        self.redeliveries += event.offset in queue.delivered
        queue.holders[event.offset] = event
        queue.delivered[event.offset] = event.message_id

    def _look(self, event: QueueDelivered) -> Iterator[Wrong]:
        queue = self._of(event.queue)
        other = queue.holders.get(event.offset)
        if (
            other is not None
            and other.leader_epoch == event.leader_epoch
            and other.until_us > event.at_us
        ):
            yield Wrong(
                "two at once",
                f"{event.message_id} is delivered to {event.consumer} in epoch "
                f"{event.leader_epoch}, while {other.consumer} has it",
            )
        if event.offset in queue.settled:
            yield Wrong(
                "redelivered",
                f"{event.message_id} is delivered to {event.consumer}, and its acknowledgement was "
                "confirmed before",
            )
        before = queue.delivered.get(event.offset, event.message_id)
        if before != event.message_id:
            yield Wrong(
                "disagreement",
                f"{event.consumer} gets {event.message_id} as message {event.offset}, which was "
                f"{before} before",
            )

    def _released(self, event: QueueReleased) -> None:
        holder = self._of(event.queue).holders.get(event.offset)
        if holder is not None and holder.consumer == event.consumer:
            del self._of(event.queue).holders[event.offset]

    def _settled(self, event: QueueSettled) -> None:
        self.settled += 1
        self._of(event.queue).settled[event.offset] = event.message_id

    def at_the_end(
        self, queue: str, machines: dict[int, QueueMachine], confirmed: Iterable[str], at_us: int
    ) -> None:
        """Everything is healed: all replicas have the same ledger, and no message that a publisher
        was told to be there has gone without having been with anybody."""

        def broken(kind: str, text: str) -> None:
            self._findings.broken(kind, at_us, queue, text)

        if len({machine.digest() for machine in machines.values()}) > 1:
            applied = {node: machine.applied for node, machine in machines.items()}
            broken("ledgers", f"the replicas' ledgers differ; they have applied {applied}")
        if not machines:
            return
        machine = next(iter(machines.values()))
        known = self._of(queue)
        outstanding = machine.outstanding()
        there = set(machine.messages)
        for name in confirmed:
            if name not in there:
                broken("lost", f"{name} was confirmed, and is not in the queue")
                return
        for offset, name in enumerate(machine.messages):
            if offset not in outstanding and offset not in known.delivered:
                broken("lost", f"{name} is settled, and no consumer ever had it")
                return
            if offset in outstanding and offset in known.settled:
                broken("redelivered", f"{name} waits, and its acknowledgement was confirmed")
                return
