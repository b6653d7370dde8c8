"""What a simulated cluster is made of: its brokers, clients, network and disks, as checked options.

Options have Kafka's names and defaults where Kafka has such an option; those that it does not have
say so. Times end in ``_ms`` or ``_us``, sizes are bytes, shares are parts per million or percent:
all of them whole numbers, so that a run is the same on every machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from logstore.errors import InvalidInputError
from logstore.options import INT64_MAX, Check, Options, integer, one_of, option

__all__ = [
    "Acks",
    "ClusterSettings",
    "DiskSettings",
    "LinkSettings",
    "NetworkSettings",
    "QueueSettings",
    "WorkloadSettings",
    "region_of",
]

Acks = Literal[0, 1, "all"]

MAX_BROKERS = 100


def region_of(rack: str) -> str:
    """The region that a rack is in: what stands in front of ``/`` in its name; all racks without
    one are in the same. (The rule is ours: Kafka's ``broker.rack`` is any text.)"""
    region, slash, _ = rack.partition("/")
    return region if slash else ""


def truth(key: str, value: Any) -> str | None:
    """True or false."""
    return None if isinstance(value, bool) else f"{key}={value!r} is neither true nor false"


def several(check: Check, *, at_least: int = 0) -> Check:
    """A list, each part of which passes a check."""

    def check_all(key: str, value: Any) -> str | None:
        if not isinstance(value, Sequence) or isinstance(value, str):
            return f"{key}={value!r} is no list"
        if len(value) < at_least:
            return f"{key} is a list of at least {at_least}, not of {len(value)}"
        problems = (check(f"{key}[{index}]", part) for index, part in enumerate(value))
        return next((problem for problem in problems if problem), None)

    return check_all


def label(key: str, value: Any) -> str | None:
    """A name: some text without spaces."""
    if isinstance(value, str) and value and value.isprintable() and " " not in value:
        return None
    return f"{key}={value!r} is no name: some text without spaces"


def place(key: str, value: Any) -> str | None:
    """Where a link ends: a broker's number, or the name of a rack, a client or the controller."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return None
    problem = label(key, value)
    return problem and f"{key}={value!r} is neither a broker's number nor a name"


PPM = integer(0, 1_000_000)
PERCENT = integer(0, 100)


@dataclass(frozen=True, slots=True)
class ClusterSettings(Options):
    """Brokers, and the one topic that they keep: ``orders``."""

    owner: ClassVar[str] = "a cluster"

    brokers: int = option(3, integer(1, MAX_BROKERS))
    """How many there are at the start; they are numbered from 0."""
    racks: tuple[str, ...] = option(("a", "b", "c"), several(label, at_least=1))
    """Where they stand, in turn: broker 0 in the first one. (Kafka: broker.rack.)"""
    rack_aware: bool = option(True, truth)
    """Whether the replicas of a partition are spread over racks, as far as there are any."""
    replication_factor: int = option(3, integer(1, MAX_BROKERS))
    partitions: int = option(1, integer(1, 1000))
    """Kafka's num.partitions."""
    acks: Literal[0, 1, "all"] = option("all", one_of(0, 1, "all"))
    """What the producers wait for. (In Kafka theirs; here, so that it stands beside the others.)"""
    min_insync_replicas: int = option(1, integer(1, MAX_BROKERS))
    unclean_election: bool = option(False, truth)
    """Whether a replica that is not in sync may lead if no other can.
    (Kafka: unclean.leader.election.enable.)"""
    replica_lag_time_max_ms: int = option(30_000, integer(1))
    replica_fetch_wait_max_ms: int = option(500, integer(0))
    replica_fetch_max_bytes: int = option(1_048_576, integer(1))
    replica_fetch_backoff_ms: int = option(1000, integer(1))
    session_timeout_ms: int = option(9000, integer(1))
    """After how long without a heartbeat a broker is fenced. (Kafka: broker.session.timeout.ms.)"""
    heartbeat_interval_ms: int = option(2000, integer(1))
    """Kafka's broker.heartbeat.interval.ms."""
    flush: Literal["ack", "page_cache"] = option("ack", one_of("ack", "page_cache"))
    """``ack``: what is not synced counts neither as replicated nor as acknowledged (our own rule).
    ``page_cache``: it does, as in Kafka, whose defaults leave syncing to the operating system."""
    eligible_leader_replicas: bool = option(True, truth)
    """KIP-966: who left the in-sync set when it was small may lead again if it died cleanly."""
    epoch_truncation: Literal["KIP-279", "KIP-101", "high_watermark"] = option(
        "KIP-279", one_of("KIP-279", "KIP-101", "high_watermark")
    )
    """How a follower finds out where its log parts from its leader's. The older two are there to
    show what they did wrong."""
    preferred_leader_ms: int = option(300_000, integer(0))
    """How often leadership goes back to the first replica of each partition; 0: never.
    (Kafka: leader.imbalance.check.interval.seconds.)"""
    segment_bytes: int = option(1 << 30, integer(1024))

    def check(self) -> None:
        """A cluster has as many brokers as a partition has replicas."""
        if self.replication_factor > self.brokers:
            raise InvalidInputError(
                f"replication_factor={self.replication_factor} needs as many brokers; "
                f"there are brokers={self.brokers}"
            )
        if self.min_insync_replicas > self.replication_factor:
            raise InvalidInputError(
                f"min_insync_replicas={self.min_insync_replicas} can never be met with "
                f"replication_factor={self.replication_factor}"
            )
        if self.heartbeat_interval_ms >= self.session_timeout_ms:
            raise InvalidInputError(
                f"heartbeat_interval_ms={self.heartbeat_interval_ms} is to be less than "
                f"session_timeout_ms={self.session_timeout_ms}"
            )

    def rack_of(self, broker: int) -> str:
        """Where a broker stands, also one that is added later."""
        return self.racks[broker % len(self.racks)]


@dataclass(frozen=True, slots=True)
class WorkloadSettings(Options):
    """Who produces and consumes."""

    owner: ClassVar[str] = "a workload"

    producers: int = option(2, integer(0, 1000))
    records_per_second: int = option(100, integer(1, 1_000_000))
    """Of each producer, at equal distances."""
    record_bytes: int = option(100, integer(16, 1 << 20))
    """Of each record's value, which begins with the record's id."""
    batch_records: int = option(10, integer(1, 10_000))
    """A batch is sent when it has so many. (Kafka counts bytes: batch.size.)"""
    linger_ms: int = option(100, integer(0))
    """... or when its first record has waited for so long."""
    idempotent: bool = option(True, truth)
    """Kafka's enable.idempotence."""
    max_in_flight: int = option(5, integer(1, 5))
    """Kafka's max.in.flight.requests.per.connection; here for each partition."""
    request_timeout_ms: int = option(30_000, integer(1))
    retry_backoff_ms: int = option(100, integer(1))
    delivery_timeout_ms: int = option(120_000, integer(1))
    consumers: int = option(1, integer(0, 1000))
    """Each reads all partitions."""
    fetch_wait_max_ms: int = option(500, integer(0))
    """Kafka's fetch.max.wait.ms."""
    metadata_max_age_ms: int = option(300_000, integer(1))

    def check(self) -> None:
        """An answer that is waited for comes within the time that there is for all tries."""
        if self.linger_ms + self.request_timeout_ms > self.delivery_timeout_ms:
            raise InvalidInputError(
                f"delivery_timeout_ms={self.delivery_timeout_ms} is to be at least linger_ms and "
                f"request_timeout_ms together: {self.linger_ms + self.request_timeout_ms}"
            )


@dataclass(frozen=True, slots=True)
class QueueSettings(Options):
    """Mirrored queues, and who uses them."""

    owner: ClassVar[str] = "the queues"

    queues: int = option(0, integer(0, 100))
    publishers: int = option(1, integer(0, 100))
    messages_per_second: int = option(20, integer(1, 1_000_000))
    """Of each publisher, to each queue."""
    message_bytes: int = option(100, integer(16, 1 << 20))
    consumers: int = option(2, integer(0, 100))
    """Of each queue."""
    prefetch: int = option(10, integer(1, 65_535))
    work_ms: int = option(20, integer(0))
    """How long a consumer has a message before it acknowledges it."""
    reject_percent: int = option(0, PERCENT)
    """How many messages are given back instead."""
    lease_ms: int = option(30_000, integer(1))
    """How long a message is a consumer's own."""


@dataclass(frozen=True, slots=True)
class LinkSettings(Options):
    """What is different about the way between two places; -1 leaves what it is otherwise."""

    owner: ClassVar[str] = "a link"

    source: int | str = option("", place)
    """A broker's number, the name of a rack or a client, or ``controller``."""
    target: int | str = option("", place)
    both_ways: bool = option(True, truth)
    latency_us: int = option(-1, integer(-1))
    bandwidth_bytes_per_s: int = option(-1, integer(-1, INT64_MAX))
    """0: no bound."""
    loss_ppm: int = option(-1, integer(-1, 1_000_000))
    duplicate_ppm: int = option(-1, integer(-1, 1_000_000))
    reorder_ppm: int = option(-1, integer(-1, 1_000_000))


@dataclass(frozen=True, slots=True)
class NetworkSettings(Options):
    """How long messages are on their way, and which of them do not come as they were sent."""

    owner: ClassVar[str] = "a network"

    same_rack_us: int = option(100, integer(0))
    """One way, between two places in one rack (Kafka's word; a cloud's availability zone)."""
    other_rack_us: int = option(500, integer(0))
    """... in two racks of one region."""
    other_region_us: int = option(40_000, integer(0))
    """... in two regions."""
    jitter_percent: int = option(20, PERCENT)
    """Up to so much of its latency a message takes longer."""
    bandwidth_bytes_per_s: int = option(125_000_000, integer(0, INT64_MAX))
    """What a machine can send: what is too much waits. 0: no bound."""
    loss_ppm: int = option(0, PPM)
    """How many messages of a million never arrive."""
    duplicate_ppm: int = option(0, PPM)
    """... arrive twice."""
    reorder_ppm: int = option(0, PPM)
    """... are overtaken. All others between two places arrive in the order of their sending."""
    reorder_us: int = option(20_000, integer(0))
    """By how much, at most, such a message or the copy of another is late."""
    links: tuple[LinkSettings, ...] = option((), several(lambda _key, _value: None))


@dataclass(frozen=True, slots=True)
class DiskSettings(Options):
    """How long a disk takes, and how much it holds."""

    owner: ClassVar[str] = "a disk"

    sync_us: int = option(1000, integer(0))
    """What a sync takes that has nothing to write. A disk syncs one file at a time."""
    jitter_percent: int = option(20, integer(0, 10_000))
    """Up to so much longer a sync takes."""
    write_bytes_per_s: int = option(200_000_000, integer(0, INT64_MAX))
    """What is written at a sync; 0: no bound."""
    capacity_bytes: int = option(0, integer(0, INT64_MAX))
    """0: no bound."""
