"""Mirrored queues: a message is with one consumer at a time, and done with once that is told.

What a consumer was told of stands in the queue's log: the message, and the acknowledgement that was
confirmed. As long as it is committed there, it has to be true for good. When the log was cut, what
was told of what it has lost is void; whether it may have been is the question of ``promise``, as
for any committed record. So every rule here first asks for the batch that it is about.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence

from logstore.replication.checkers.findings import Loss, Wrong
from logstore.replication.checkers.lineage import BatchNode
from logstore.replication.checkers.losses import causes_of
from logstore.replication.checkers.suite import Checkers, PartitionChecks
from logstore.replication.history import (
    Appended,
    History,
    QueueDelivered,
    QueueReleased,
    QueueSettled,
)
from logstore.replication.mirrored_queue import QUEUE_PREFIX
from logstore.replication.promise import Promise
from logstore.replication.queue_machine import QueueMachine, message_id
from logstore.segments.batch import iter_batches

__all__ = ["QueueCheckers"]


class _Queue:
    """What is known of one queue."""

    def __init__(self, checks: PartitionChecks) -> None:
        self.checks = checks
        """Of the log that the queue is in."""
        self.appended: dict[tuple[int, str], BatchNode] = {}
        """Where leaders have appended each message, by offset and id."""
        self.holders: dict[int, QueueDelivered] = {}
        """Who has each message: its last delivery, until it is released."""
        self.deliveries: dict[int, QueueDelivered] = {}
        """The last delivery of each number. A number is another message's where the log was cut."""
        self.delivered: set[tuple[int, str]] = set()
        """The messages that anybody got, by number and id."""
        self.settled: dict[int, QueueSettled] = {}
        """Those whose acknowledgement was confirmed, by number."""
        self.done: set[str] = set()
        """The ids of all that ever were settled."""
        self.void: list[QueueSettled] = []
        """Acknowledgements that the log has lost, though they were confirmed."""

    def message(self, event: QueueDelivered) -> BatchNode | None:
        """The batch that a message was delivered from; None if no leader has appended it there."""
        return self.appended.get((event.log_offset, event.message_id))

    def acknowledgement(self, event: QueueSettled) -> BatchNode | None:
        """The batch that an acknowledgement stands in."""
        return self.checks.lineage.led.get((event.log_offset, event.leader_epoch))

    def is_committed(self, node: BatchNode | None) -> bool:
        """Whether a batch is committed, and was not lost."""
        return node is not None and self.checks.committed.has(node)

    def promise(self, node: BatchNode | None) -> Promise:
        """Whether what a consumer was told of had to stay."""
        if node is None:
            return Promise(True, ("no leader has appended it",))
        return self.checks.missings.promise(node, committed=True)


class QueueCheckers:
    """Looks at what the consumers of mirrored queues get. To be made after ``checkers``, so that
    these know of an event before it does."""

    def __init__(self, history: History, checkers: Checkers) -> None:
        self.redeliveries = 0
        """How often a message was delivered that somebody had had."""
        self._checkers = checkers
        self._findings = checkers.findings
        self._queues: dict[str, _Queue] = {}
        history.subscribe(Appended, self._appended)
        history.subscribe(QueueDelivered, self._delivered)
        history.subscribe(QueueReleased, self._released)
        history.subscribe(QueueSettled, self._settled)

    @property
    def delivered(self) -> int:
        """How many messages a consumer has got, each counted once."""
        return sum(len(queue.delivered) for queue in self._queues.values())

    @property
    def settled(self) -> int:
        """How many messages consumers were told to be done with, each counted once."""
        return sum(len(queue.done) for queue in self._queues.values())

    def done(self, queue: str) -> frozenset[str]:
        """The ids of the messages of a queue that a consumer was told to be done with."""
        return frozenset(self._of(queue).done)

    def _of(self, queue: str) -> _Queue:
        found = self._queues.get(queue)
        if found is None:
            found = self._queues[queue] = _Queue(self._checkers.of(queue))
        return found

    def _broken(self, wrongs: Iterator[Wrong], at_us: int, queue: str) -> None:
        for kind, text in wrongs:
            self._findings.broken(kind, at_us, queue, text)

    # What happens -----------------------------------------------------------------------------

    def _appended(self, event: Appended) -> None:
        if not event.as_leader or not event.partition.startswith(QUEUE_PREFIX):
            return
        queue = self._of(event.partition)
        path = queue.checks.lineage.log(event.broker).path
        offset = event.base_offset
        for batch in iter_batches(event.data):
            node = path[bisect_right(path, offset, key=_next_offset)]
            for number, record in enumerate(batch.records()):
                if record.key is None:
                    name = message_id(record.value or b"")
                    queue.appended[offset + number, name] = node
            offset = node.next_offset

    def _delivered(self, event: QueueDelivered) -> None:
        queue = self._of(event.queue)
        self._broken(self._look(queue, event), event.at_us, event.queue)
        self.redeliveries += (event.offset, event.message_id) in queue.delivered
        queue.holders[event.offset] = queue.deliveries[event.offset] = event
        queue.delivered.add((event.offset, event.message_id))

    def _look(self, queue: _Queue, event: QueueDelivered) -> Iterator[Wrong]:
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
        yield from self._is_there(queue, event)
        yield from self._is_not_done(queue, event)
        before = queue.deliveries.get(event.offset)
        if before is not None and before.message_id != event.message_id:
            node = queue.message(before)
            if queue.is_committed(node) or queue.promise(node).holds:
                yield Wrong(
                    "disagreement",
                    f"{event.consumer} gets {event.message_id} as message {event.offset}, which "
                    f"was {before.message_id} before",
                )

    def _is_there(self, queue: _Queue, event: QueueDelivered) -> Iterator[Wrong]:
        """What is delivered is committed."""
        committed, timeline = queue.checks.committed, queue.checks.timeline
        if committed.cut and event.leader_epoch < timeline.epoch:
            return  # its leader does not know yet what was lost
        node = queue.message(event)
        if not queue.is_committed(node) and queue.promise(node).holds:
            yield Wrong(
                "uncommitted",
                f"{event.consumer} gets {event.message_id} from offset {event.log_offset} of the "
                f"log, and what is committed ends at {committed.end_offset}",
            )

    def _is_not_done(self, queue: _Queue, event: QueueDelivered) -> Iterator[Wrong]:
        """Nothing is delivered again after its acknowledgement was confirmed."""
        done = queue.settled.get(event.offset)
        if done is None or done.message_id != event.message_id:
            return
        if self._is_void(queue, done):
            return
        yield Wrong(
            "redelivered",
            f"{event.message_id} is delivered to {event.consumer}, and its acknowledgement was "
            "confirmed before",
        )

    def _is_void(self, queue: _Queue, done: QueueSettled) -> bool:
        """Whether the log has lost an acknowledgement, and nothing promised that it would not. If
        so, it is not counted on any more."""
        node = queue.acknowledgement(done)
        if queue.is_committed(node) or queue.promise(node).holds:
            return False
        queue.void.append(queue.settled.pop(done.offset))
        return True

    def _released(self, event: QueueReleased) -> None:
        holder = self._of(event.queue).holders.get(event.offset)
        if holder is not None and holder.consumer == event.consumer:
            del self._of(event.queue).holders[event.offset]

    def _settled(self, event: QueueSettled) -> None:
        queue = self._of(event.queue)
        queue.settled[event.offset] = event
        queue.done.add(event.message_id)

    # The end ----------------------------------------------------------------------------------

    def at_the_end(
        self,
        name: str,
        machines: Mapping[int, QueueMachine],
        messages: Sequence[str],
        at_us: int,
    ) -> list[Loss]:
        """Everything is healed: all replicas have the same ledger, which has all ``messages`` of
        the log, and nothing is done with that nobody had. Returns the acknowledgements that are
        lost, and that nothing promised to keep."""
        queue = self._of(name)
        self._broken(self._look_at_ledgers(queue, machines, messages), at_us, name)
        return self._losses(queue)

    def _look_at_ledgers(
        self, queue: _Queue, machines: Mapping[int, QueueMachine], messages: Sequence[str]
    ) -> Iterator[Wrong]:
        if len({machine.digest() for machine in machines.values()}) > 1:
            applied = {node: machine.applied for node, machine in machines.items()}
            yield Wrong("ledgers", f"the replicas' ledgers differ; they have applied {applied}")
        if not machines:
            return
        machine = next(iter(machines.values()))
        for offset, name in enumerate(messages):
            there = machine.messages[offset] if offset < len(machine.messages) else "nothing"
            if there != name:
                yield Wrong("lost", f"message {offset} of the log is {name}, of the queue {there}")
                return
        outstanding = machine.outstanding()
        for offset, name in enumerate(machine.messages):
            if offset not in outstanding and (offset, name) not in queue.delivered:
                yield Wrong("lost", f"{name} is settled, and no consumer ever had it")
                return
            done = queue.settled.get(offset)
            if offset not in outstanding or done is None or done.message_id != name:
                continue
            if not self._is_void(queue, done):
                yield Wrong("redelivered", f"{name} waits, and its acknowledgement was confirmed")
                return

    def _losses(self, queue: _Queue) -> list[Loss]:
        """The acknowledgements that are void; those that were lost together make one loss."""
        losses: list[Loss] = []
        for done in sorted(queue.void, key=lambda done: done.log_offset):
            node = queue.acknowledgement(done)
            assert node is not None  # otherwise it was promised
            missing = queue.checks.missings.by_node.get(node)
            loss = Loss(
                done.queue,
                done.log_offset,
                (done.message_id,),
                acknowledged_us=done.at_us,
                # Told by a leader that others had replaced, it was so from the beginning.
                lost_us=missing.at_us if missing is not None else done.at_us,
                reasons=queue.promise(node).reasons,
                causes=causes_of(node, queue.checks.timeline),
                what="acknowledgements",
            )
            last = losses[-1] if losses else None
            if last is not None and (last.reasons, last.causes) == (loss.reasons, loss.causes):
                ids = last.record_ids + loss.record_ids
                losses[-1] = last._replace(record_ids=ids)
            else:
                losses.append(loss)
        return losses


def _next_offset(node: BatchNode) -> int:
    return node.next_offset
