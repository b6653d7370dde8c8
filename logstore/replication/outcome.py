"""What came of a run, or of many: what a replication factor bought, and what it cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from logstore.replication.checkers.findings import Loss, Violation
from logstore.replication.measures import percentile

__all__ = ["Outcome", "QueueOutcome", "merge"]

MOST_KEPT = 100
"""How many losses and how many violations are kept of many runs; all are counted."""


@dataclass(slots=True)
class QueueOutcome:
    """What became of the messages of mirrored queues. Each message counts once."""

    confirmed: int = 0
    """Messages that publishers were told to be there."""
    delivered: int = 0
    """Messages that a consumer has got."""
    redelivered: int = 0
    """How often one was delivered that a consumer had had before."""
    acknowledged: int = 0
    """Messages that consumers were told to be done with."""
    waiting: int = 0
    """Messages that are in the queues at the end, and not done with."""
    lost: int = 0
    """Messages that were confirmed, are not done with, and are gone."""
    acknowledgements_lost: int = 0
    """How often a message came back after its consumer was told to be done with it."""
    acknowledgements_lost_because: Counter[str] = field(default_factory=Counter)
    """How many acknowledgements were lost for which reason."""

    def as_json(self) -> dict[str, Any]:
        """All of it."""
        return {
            **{name: getattr(self, name) for name in _QUEUE_COUNTS},
            "acknowledgements_lost_because": dict(
                sorted(self.acknowledgements_lost_because.items())
            ),
        }

    def add(self, other: QueueOutcome) -> None:
        """Add that of another run."""
        for name in _QUEUE_COUNTS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.acknowledgements_lost_because.update(other.acknowledgements_lost_because)


_QUEUE_COUNTS = (
    "confirmed",
    "delivered",
    "redelivered",
    "acknowledged",
    "waiting",
    "lost",
    "acknowledgements_lost",
)


@dataclass(slots=True)
class Outcome:
    """Of one run, or the sum of runs with the same settings."""

    replication_factor: int
    acks: Literal[0, 1, "all"]
    min_insync_replicas: int
    unclean_election: bool
    seeds: tuple[int, ...] = ()
    """Which runs these are."""
    acknowledged: int = 0
    """Records that producers were told to be there; messages of queues are records, too."""
    lost: int = 0
    """... and that nobody can read when everything is healed; of messages, those only that no
    consumer was done with."""
    duplicated: int = 0
    """Records that are there once more than they were sent."""
    refused: int = 0
    """Records that producers gave up."""
    unavailable_ms: int = 0
    """How long a partition had no leader, or too few in-sync replicas for ``acks=all``: the mean
    over partitions, the sum over runs."""
    duration_ms: int = 0
    """Of virtual time."""
    latencies_us: Counter[int] = field(default_factory=Counter)
    """How long producers waited for each batch: how many of them how many microseconds."""
    network_bytes: int = 0
    between_racks_bytes: int = 0
    disk_bytes: int = 0
    """On all disks together, at the end."""
    losses: list[tuple[int, Loss]] = field(default_factory=list)
    """Losses that nothing promised to spare, with their seeds; the first MOST_KEPT."""
    lost_because: Counter[str] = field(default_factory=Counter)
    """How many records were lost for which reason."""
    violations: list[tuple[int, Violation]] = field(default_factory=list)
    """Broken promises, with their seeds; the first MOST_KEPT."""
    violation_count: int = 0
    known: list[tuple[int, Violation]] = field(default_factory=list)
    """What a protocol broke that is simulated because it is known to break it."""
    queues: QueueOutcome | None = None
    """Of mirrored queues, where there are any."""

    @property
    def commit_latency_p50_ms(self) -> float:
        """Half of all batches were acknowledged within so long."""
        return percentile(self.latencies_us, 0.5) / 1000

    @property
    def commit_latency_p99_ms(self) -> float:
        """All but one of a hundred batches were acknowledged within so long."""
        return percentile(self.latencies_us, 0.99) / 1000

    def as_json(self) -> dict[str, Any]:
        """The fields by which runs are compared, as numbers and names. The first ones, up to
        ``violations``, are a contract; further ones may come."""
        return {
            "replication_factor": self.replication_factor,
            "acks": self.acks,
            "min_insync_replicas": self.min_insync_replicas,
            "unclean_election": self.unclean_election,
            "seeds": len(self.seeds),
            "acknowledged": self.acknowledged,
            "lost": self.lost,
            "duplicated": self.duplicated,
            "unavailable_ms": self.unavailable_ms,
            "commit_latency_p50_ms": self.commit_latency_p50_ms,
            "commit_latency_p99_ms": self.commit_latency_p99_ms,
            "network_bytes": self.network_bytes,
            "disk_bytes": self.disk_bytes,
            "violations": self.violation_count,
            "refused": self.refused,
            "duration_ms": self.duration_ms,
            "between_racks_bytes": self.between_racks_bytes,
            "lost_because": dict(sorted(self.lost_because.items())),
            "queues": None if self.queues is None else self.queues.as_json(),
        }


def merge(outcomes: Iterable[Outcome]) -> Outcome:
    """The sum of runs with the same settings. Raises ValueError if there is none, or if they were
    run with different ones."""
    total: Outcome | None = None
    for outcome in outcomes:
        if total is None:
            total = Outcome(*_settings(outcome))
        elif _settings(total) != _settings(outcome):
            raise ValueError(f"outcomes of {_settings(total)} and of {_settings(outcome)}")
        _add(total, outcome)
    if total is None:
        raise ValueError("there is no outcome to merge")
    return total


def _settings(outcome: Outcome) -> tuple[int, Literal[0, 1, "all"], int, bool]:
    return (
        outcome.replication_factor,
        outcome.acks,
        outcome.min_insync_replicas,
        outcome.unclean_election,
    )


_SUMMED = (
    "acknowledged",
    "lost",
    "duplicated",
    "refused",
    "unavailable_ms",
    "duration_ms",
    "network_bytes",
    "between_racks_bytes",
    "disk_bytes",
    "violation_count",
)


def _add(total: Outcome, outcome: Outcome) -> None:
    for name in _SUMMED:
        setattr(total, name, getattr(total, name) + getattr(outcome, name))
    total.seeds += outcome.seeds
    total.latencies_us.update(outcome.latencies_us)
    total.lost_because.update(outcome.lost_because)
    total.losses += outcome.losses[: MOST_KEPT - len(total.losses)]
    total.violations += outcome.violations[: MOST_KEPT - len(total.violations)]
    if outcome.queues is not None:
        if total.queues is None:
            total.queues = QueueOutcome()
        total.queues.add(outcome.queues)
    total.known += outcome.known[: MOST_KEPT - len(total.known)]
