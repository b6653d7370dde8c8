"""What brokers, clients and the controller send each other: Kafka's requests, what matters of them.

A message bears its sender as an object, so that an answer goes to the process that asked, and not
to one that was started in its place. ``size`` is what Kafka's encoding takes up, about; batches,
which are most of it, count exactly.
"""

from __future__ import annotations

from typing import Final, NamedTuple, Protocol

from logstore.replication.leadership import PartitionState

__all__ = [
    "FENCED_LEADER_EPOCH",
    "INELIGIBLE_REPLICA",
    "INVALID_UPDATE_VERSION",
    "NETWORK_EXCEPTION",
    "NOT_ENOUGH_REPLICAS",
    "NOT_ENOUGH_REPLICAS_AFTER_APPEND",
    "NOT_LEADER_OR_FOLLOWER",
    "OFFSET_OUT_OF_RANGE",
    "OUT_OF_ORDER_SEQUENCE_NUMBER",
    "PRODUCER_FENCED",
    "REQUEST_BYTES",
    "REQUEST_TIMED_OUT",
    "STALE_BROKER_EPOCH",
    "STORAGE_ERROR",
    "UNKNOWN_LEADER_EPOCH",
    "AlterRequest",
    "AlterResponse",
    "EpochRequest",
    "EpochResponse",
    "FetchPartition",
    "FetchRequest",
    "FetchResponse",
    "FetchedPartition",
    "Fetcher",
    "HeartbeatResponse",
    "LeaderHint",
    "Metadata",
    "MetadataAsker",
    "ProduceRequest",
    "ProduceResponse",
    "ProduceSender",
]

# The errors, by Kafka's names.
FENCED_LEADER_EPOCH: Final = "FENCED_LEADER_EPOCH"
INELIGIBLE_REPLICA: Final = "INELIGIBLE_REPLICA"
INVALID_UPDATE_VERSION: Final = "INVALID_UPDATE_VERSION"
NETWORK_EXCEPTION: Final = "NETWORK_EXCEPTION"
NOT_ENOUGH_REPLICAS: Final = "NOT_ENOUGH_REPLICAS"
NOT_ENOUGH_REPLICAS_AFTER_APPEND: Final = "NOT_ENOUGH_REPLICAS_AFTER_APPEND"
NOT_LEADER_OR_FOLLOWER: Final = "NOT_LEADER_OR_FOLLOWER"
OFFSET_OUT_OF_RANGE: Final = "OFFSET_OUT_OF_RANGE"
OUT_OF_ORDER_SEQUENCE_NUMBER: Final = "OUT_OF_ORDER_SEQUENCE_NUMBER"
PRODUCER_FENCED: Final = "PRODUCER_FENCED"
REQUEST_TIMED_OUT: Final = "REQUEST_TIMED_OUT"
STALE_BROKER_EPOCH: Final = "STALE_BROKER_EPOCH"
STORAGE_ERROR: Final = "KAFKA_STORAGE_ERROR"
UNKNOWN_LEADER_EPOCH: Final = "UNKNOWN_LEADER_EPOCH"

REQUEST_BYTES: Final = 100
"""What a request or an answer takes up beside what it carries."""


class ProduceSender(Protocol):
    """Who produces."""

    @property
    def node(self) -> str:
        """Its name in the network."""
        ...

    def on_produced(self, response: ProduceResponse) -> None:
        """An answer has arrived."""
        ...

    def on_disconnected(self, correlation: int) -> None:
        """Nobody listened to that request."""
        ...


class ProduceRequest(NamedTuple):
    """One batch for one partition."""

    correlation: int
    """Counts the sender's requests."""
    sender: ProduceSender
    partition: str
    acks: int | str
    timeout_us: int
    """How long the leader waits for the followers."""
    data: bytes


class ProduceResponse(NamedTuple):
    """What became of it."""

    correlation: int
    error: str | None
    base_offset: int
    leader_epoch: int


class Fetcher(Protocol):
    """Who fetches: a follower or a consumer."""

    @property
    def node(self) -> int | str:
        """A broker's number, or a consumer's name."""
        ...

    def on_fetched(self, response: FetchResponse) -> None:
        """An answer has arrived."""
        ...

    def on_epoch_end(self, response: EpochResponse) -> None:
        """An answer has arrived."""
        ...

    def on_disconnected(self, correlation: int) -> None:
        """Nobody listened to that request."""
        ...


class FetchPartition(NamedTuple):
    """From where on somebody fetches of a partition. A follower has everything in front of it."""

    partition: str
    leader_epoch: int
    """As the fetcher knows it: another one is refused (KIP-320)."""
    offset: int


class FetchRequest(NamedTuple):
    """A long poll."""

    correlation: int
    sender: Fetcher
    broker_epoch: int
    """Of a follower (KIP-903); -1 of a consumer."""
    max_wait_us: int
    max_bytes: int
    """For each partition."""
    partitions: tuple[FetchPartition, ...]


class FetchedPartition(NamedTuple):
    """What there is of a partition."""

    partition: str
    error: str | None
    leader_epoch: int
    offset: int
    """As it was asked for."""
    high_watermark: int
    data: bytes
    """Whole batches; a consumer's end at the high watermark."""
    end: int
    """The log's end at the leader, for one whose offset is out of range."""


class FetchResponse(NamedTuple):
    """What there is of all of them."""

    correlation: int
    leader: int
    partitions: tuple[FetchedPartition, ...]


class EpochRequest(NamedTuple):
    """OffsetsForLeaderEpoch (KIP-101, KIP-279, KIP-320): where does an epoch end at the leader?"""

    sender: Fetcher
    partition: str
    leader_epoch: int
    """As the sender knows it."""
    epoch: int
    """The last one in the sender's log."""


class EpochResponse(NamedTuple):
    """The largest epoch of the leader's that is not larger, and the offset behind its last record;
    -1 and -1 where it has none."""

    partition: str
    error: str | None
    leader_epoch: int
    asked: int
    epoch: int
    end_offset: int


class AlterRequest(NamedTuple):
    """AlterPartition (KIP-497): a leader proposes an in-sync set."""

    broker: int
    broker_epoch: int
    partition: str
    leader_epoch: int
    partition_epoch: int
    isr: tuple[tuple[int, int], ...]
    """Brokers, each with the epoch in which it has fetched (KIP-903)."""


class AlterResponse(NamedTuple):
    """Whether it was taken; what is now comes as metadata."""

    partition: str
    leader_epoch: int
    partition_epoch: int
    """As in the request."""
    error: str | None


class HeartbeatResponse(NamedTuple):
    """What the controller says to a sign of life."""

    error: str | None
    fenced: bool
    may_stop: bool
    """To a broker that has asked: nothing is led by it any more."""


class Metadata(NamedTuple):
    """What has changed in the cluster between two points in the controller's own log."""

    base: int
    """Who has taken in what lies below it is complete up to ``offset`` with this."""
    offset: int
    partitions: tuple[PartitionState, ...]


class LeaderHint(NamedTuple):
    """What a client needs to know of a partition."""

    partition: str
    leader: int
    leader_epoch: int


class MetadataAsker(Protocol):
    """A client that asks who leads."""

    @property
    def node(self) -> str:
        """Its name in the network."""
        ...

    def on_leaders(self, correlation: int, leaders: tuple[LeaderHint, ...]) -> None:
        """An answer has arrived."""
        ...

    def on_disconnected(self, correlation: int) -> None:
        """Nobody listened to that request."""
        ...
