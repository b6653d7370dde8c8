"""Queues that hold only so much: ``max_length`` and ``max_length_bytes``.

Messages that are ready count, and the bytes of their bodies, as in RabbitMQ; over all levels of
priority together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from logstore.appending import Acks
from logstore.queues.ledger_rows import NEVER, Reason
from logstore.queues.ledger_store import Changes
from logstore.queues.parts import append_records
from logstore.queues.properties import Envelope, Published, to_records

if TYPE_CHECKING:
    from logstore.queues.queue import Level, WorkQueue

__all__ = ["DeadLetter", "drop_beyond", "publish_limited"]


class DeadLetter(NamedTuple):
    """A message that its queue has given up."""

    envelope: Envelope
    reason: str
    """rejected, expired, maxlen or delivery_limit."""
    delivery_count: int = 0


def publish_limited(queue: WorkQueue, envelopes: Sequence[Envelope], acks: Acks) -> Published:
    """Publish to a queue with limits.

    The append stands inside of a transaction in ``live``, which all who publish to such a
    queue stand in line for: so its limits hold, whoever publishes.

    Commit point: the append, of the messages; the transaction's commit, of what is dropped for
    them. A kill between the two leaves more than the limit, until somebody publishes or looks
    after the queue.
    """
    for number in queue.by_level(envelopes):
        queue.level(number)
    arguments = queue.definition.arguments
    rejects = (arguments.overflow or "drop-head") != "drop-head"
    now = queue.clock.now_ms()

    def publish(changes: Changes, levels: Sequence[Level]) -> tuple[list[int], int]:
        rejected = _beyond(queue, changes, levels, envelopes) if rejects else []
        refused = set(rejected)
        accepted = [one for index, one in enumerate(envelopes) if index not in refused]
        for number, chosen in queue.by_level(accepted).items():
            level = queue.level(number)
            ledger = changes.of(level.ledger)
            records = to_records(chosen, timestamp_ms=now)
            appended = append_records(level.log, records, acks=1)
            if queue.counts_bytes:
                size = sum(len(envelope.body) for envelope in chosen)
                ledger.added(appended.base_offset, appended.last_offset + 1, size)
        return rejected, 0 if rejects else drop_beyond(queue, changes, levels)

    rejected, dropped = queue.change(publish)
    if acks == "all":
        for level in queue.levels():
            level.log.flush()
    if rejected and arguments.overflow == "reject-publish-dlx":
        label = Reason.MAXLEN.label
        queue.dead_letter([DeadLetter(envelopes[index], label) for index in rejected])
    if dropped and arguments.dead_letter_exchange is not None:
        queue.on_work()
    return Published(rejected)


def _beyond(
    queue: WorkQueue, changes: Changes, levels: Sequence[Level], envelopes: Sequence[Envelope]
) -> list[int]:
    """The indices of messages for which there is no room."""
    arguments = queue.definition.arguments
    room, room_bytes = _room(queue, changes, levels)
    rejected = []
    for index, envelope in enumerate(envelopes):
        size = len(envelope.body)
        if (arguments.max_length is not None and room < 1) or (
            queue.counts_bytes and room_bytes < size
        ):
            rejected.append(index)
        else:
            room -= 1
            room_bytes -= size
    return rejected


def _room(queue: WorkQueue, changes: Changes, levels: Sequence[Level]) -> tuple[int, int]:
    """How many messages, and bytes of bodies, there is room for; below 0: that is too much."""
    arguments = queue.definition.arguments
    ready = ready_bytes = 0
    for level in levels:
        ledger = changes.of(level.ledger)
        end = level.log.log_end_offset
        ledger.count_to(end)
        ready += ledger.head.ready(end)
        ready_bytes += ledger.head.ready_bytes
    return (
        (NEVER if arguments.max_length is None else arguments.max_length) - ready,
        (NEVER if arguments.max_length_bytes is None else arguments.max_length_bytes) - ready_bytes,
    )


def drop_beyond(queue: WorkQueue, changes: Changes, levels: Sequence[Level]) -> int:
    """Drop the first messages, of the highest level, until the limits hold (``drop-head``);
    returns how many it were."""
    dropped = 0
    for level in levels:
        ledger = changes.of(level.ledger)
        end = level.log.log_end_offset
        while ledger.head.ready(end):
            room, room_bytes = _room(queue, changes, levels)
            if room >= 0 and room_bytes >= 0:
                return dropped
            # How many have to go for their bytes is only known one by one.
            most = -room if room < 0 else 1
            dropped += ledger.drop_head(most, log_end=end, reason=Reason.MAXLEN)
    return dropped
