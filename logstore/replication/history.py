"""What happened in a simulation, as events: for checkers, for the trace, for the report.

Everyone who does something that others may want to know of emits an event here; whoever wants to
know subscribes to its kind. The first field of each is ``at_us``, the virtual time in microseconds.
A partition is named as its directory is (``orders-0``), a broker is a number, a client has a name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

__all__ = [
    "Acknowledged",
    "Appended",
    "BitRot",
    "BrokerFenced",
    "BrokerRegistered",
    "ConsumerReset",
    "Crashed",
    "Delivered",
    "DiskLost",
    "Elected",
    "Event",
    "FaultBegan",
    "FaultEnded",
    "HighWatermark",
    "History",
    "IsrChanged",
    "Leads",
    "Opened",
    "QueueDelivered",
    "QueueReleased",
    "QueueSettled",
    "Refused",
    "ReplicaFailed",
    "ReplicasChanged",
    "Sent",
    "Started",
    "StorageFailed",
    "Synced",
    "Truncated",
]


# --- clients ----------------------------------------------------------------------------------


class Sent(NamedTuple):
    """A producer sends a batch for the first time. A record's value begins with its id."""

    at_us: int
    producer: str
    partition: str
    first_sequence: int
    """The batch's first sequence number. Also the producers that are not idempotent, whose batches
    bear none, count them: (producer, partition, first_sequence) names a batch."""
    record_ids: tuple[str, ...]


class Acknowledged(NamedTuple):
    """A producer was told that a batch is there; with ``acks=0`` it says so itself."""

    at_us: int
    producer: str
    partition: str
    first_sequence: int
    record_ids: tuple[str, ...]
    base_offset: int
    """-1 where the producer does not know (``acks=0``)."""
    leader_epoch: int
    """Of the leader that answered; -1 where nobody did."""
    sent_us: int
    """When the batch was sent first."""


class Refused(NamedTuple):
    """A producer has given up on a batch."""

    at_us: int
    producer: str
    partition: str
    first_sequence: int
    record_ids: tuple[str, ...]
    error: str
    certain: bool
    """Whether the batch was surely never written; otherwise nobody knows."""


class Delivered(NamedTuple):
    """A consumer has read records, in the order of their offsets."""

    at_us: int
    consumer: str
    partition: str
    base_offset: int
    record_ids: tuple[str, ...]
    leader_epoch: int
    """Of the leader that it read from."""
    high_watermark: int
    """As that leader told it with the records."""


class ConsumerReset(NamedTuple):
    """A consumer goes on at another offset, since the log was cut in front of its own (KIP-320)."""

    at_us: int
    consumer: str
    partition: str
    from_offset: int
    to_offset: int


# --- mirrored queues --------------------------------------------------------------------------


class QueueDelivered(NamedTuple):
    """A consumer has got a message."""

    at_us: int
    consumer: str
    queue: str
    leader_epoch: int
    """Of the leader that leased it."""
    offset: int
    """Its number among all that were published to the queue."""
    message_id: str
    until_us: int
    """When the lease ends."""
    log_offset: int
    """Where the message stands in the queue's log."""


class QueueReleased(NamedTuple):
    """A consumer has done with a message, or gives it back, and says so to the leader."""

    at_us: int
    consumer: str
    queue: str
    leader_epoch: int
    offset: int
    message_id: str


class QueueSettled(NamedTuple):
    """A consumer was told that its acknowledgement is committed."""

    at_us: int
    consumer: str
    queue: str
    leader_epoch: int
    offset: int
    message_id: str
    log_offset: int
    """Where the acknowledgement stands in the queue's log."""


# --- replicas ---------------------------------------------------------------------------------


class Opened(NamedTuple):
    """A broker has opened a replica's log, as far as its disk had kept it."""

    at_us: int
    broker: int
    partition: str
    end_offset: int
    synced_offset: int
    """What lies below it is on stable storage."""


class Leads(NamedTuple):
    """A broker has learnt that it is to lead, and does. (Who is elected may die before that.)"""

    at_us: int
    broker: int
    partition: str
    leader_epoch: int
    end_offset: int
    """Of its log."""


class Appended(NamedTuple):
    """A replica's log has grown."""

    at_us: int
    broker: int
    partition: str
    leader_epoch: int
    """The epoch in which the replica leads or follows; the batches may bear lower ones."""
    base_offset: int
    next_offset: int
    as_leader: bool
    data: bytes
    """The batches that were appended, one after another. Those of a follower bear their offsets
    and epochs; a leader's are as the producer sent them, and get ``base_offset`` and its epoch."""


class Synced(NamedTuple):
    """What a replica holds below ``offset`` is on stable storage."""

    at_us: int
    broker: int
    partition: str
    offset: int


class Truncated(NamedTuple):
    """A replica's log was cut: it ended at ``from_offset``, and ends at ``to_offset``."""

    at_us: int
    broker: int
    partition: str
    from_offset: int
    to_offset: int
    why: str


class HighWatermark(NamedTuple):
    """A replica's high watermark is another one: records below it are committed."""

    at_us: int
    broker: int
    partition: str
    leader_epoch: int
    offset: int
    as_leader: bool


class StorageFailed(NamedTuple):
    """A broker stops, since its disk does not take what is written."""

    at_us: int
    broker: int
    error: str


class ReplicaFailed(NamedTuple):
    """A broker does not keep a partition any more: its log could not be opened."""

    at_us: int
    broker: int
    partition: str
    error: str


# --- the controller ---------------------------------------------------------------------------


class Elected(NamedTuple):
    """The controller has given a partition another leader, or none."""

    at_us: int
    partition: str
    leader: int
    """-1: there is none."""
    leader_epoch: int
    isr: tuple[int, ...]
    elr: tuple[int, ...]
    """The eligible leader replicas (KIP-966)."""
    clean: bool
    """Whether the leader had all that is committed. Always, unless the election was unclean."""


class IsrChanged(NamedTuple):
    """The controller has accepted another in-sync set from a partition's leader, or taken a broker
    out of it that is gone."""

    at_us: int
    partition: str
    leader: int
    leader_epoch: int
    partition_epoch: int
    isr: tuple[int, ...]
    elr: tuple[int, ...]


class ReplicasChanged(NamedTuple):
    """A partition is being moved: who keeps it, and who is to be added and taken out (KIP-455)."""

    at_us: int
    partition: str
    replicas: tuple[int, ...]
    adding: tuple[int, ...]
    removing: tuple[int, ...]


class BrokerRegistered(NamedTuple):
    """The controller has let a broker in, and given it an epoch."""

    at_us: int
    broker: int
    broker_epoch: int


class BrokerFenced(NamedTuple):
    """The controller has not heard of a broker for its session's time, or it has said goodbye."""

    at_us: int
    broker: int
    broker_epoch: int


# --- faults -----------------------------------------------------------------------------------


class Crashed(NamedTuple):
    """A broker is down. ``mode`` says what became of what was not synced (``CrashMode``)."""

    at_us: int
    broker: int
    mode: str


class Started(NamedTuple):
    """A broker runs (again): its ``incarnation`` counts its starts, from 1."""

    at_us: int
    broker: int
    incarnation: int


class DiskLost(NamedTuple):
    """A broker's disk is gone, with all that it held; there is an empty one in its place."""

    at_us: int
    broker: int


class BitRot(NamedTuple):
    """Bytes of a replica's log are no longer what was written, at ``position`` of a segment."""

    at_us: int
    broker: int
    partition: str
    position: int


class FaultBegan(NamedTuple):
    """Something goes wrong now, in words."""

    at_us: int
    text: str
    kind: str = ""
    """Of fault (``scenario.FAULTS``)."""
    brokers: tuple[int, ...] = ()
    """Whom it befalls."""


class FaultEnded(NamedTuple):
    """It is over, in words."""

    at_us: int
    text: str
    kind: str = ""
    brokers: tuple[int, ...] = ()


Event = (
    Sent
    | Acknowledged
    | Refused
    | Delivered
    | ConsumerReset
    | QueueDelivered
    | QueueReleased
    | QueueSettled
    | Opened
    | Leads
    | Appended
    | Synced
    | Truncated
    | HighWatermark
    | StorageFailed
    | ReplicaFailed
    | Elected
    | IsrChanged
    | ReplicasChanged
    | BrokerRegistered
    | BrokerFenced
    | Crashed
    | Started
    | DiskLost
    | BitRot
    | FaultBegan
    | FaultEnded
)

_E = TypeVar("_E", bound=tuple[Any, ...])


class History:
    """Who is told of what: subscribers by the kind of event, in the order of their coming."""

    def __init__(self) -> None:
        self._subscribers: dict[type, list[Callable[[Any], object]]] = {}

    def subscribe(self, kind: type[_E], function: Callable[[_E], object]) -> None:
        """Call ``function(event)`` for every event of that kind from now on."""
        self._subscribers.setdefault(kind, []).append(function)

    def emit(self, event: tuple[Any, ...]) -> None:
        """Tell an event to all who subscribed to its kind, at once."""
        for function in self._subscribers.get(type(event), ()):
            function(event)
