"""A run as the report draws it: who led, who was in sync, how far the log was, what went wrong.

It subscribes to the history before the run, and keeps what a picture can show.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from logstore.replication.history import (
    Acknowledged,
    Appended,
    Crashed,
    Elected,
    FaultBegan,
    FaultEnded,
    HighWatermark,
    History,
    IsrChanged,
    ReplicasChanged,
    Started,
    Truncated,
)
from logstore.replication.outcome import Outcome
from logstore.replication.run import run_seed
from logstore.replication.scenario import Scenario

__all__ = [
    "DrawnRun",
    "PartitionRecording",
    "Recording",
    "Span",
    "Standing",
    "draw_run",
    "told_partition",
    "worth_drawing",
]


class Span(NamedTuple):
    """Something lasted from one moment to another."""

    from_us: int
    until_us: int
    text: str


class Standing(NamedTuple):
    """What the controller knew of a partition from a moment on."""

    at_us: int
    leader: int
    leader_epoch: int
    isr: tuple[int, ...]
    elr: tuple[int, ...]


class PartitionRecording:
    """One partition's run."""

    def __init__(self) -> None:
        self.standings: list[Standing] = []
        self.replicas: list[tuple[int, tuple[int, ...]]] = []
        """(time, who keeps it)."""
        self.high_watermarks: list[tuple[int, int]] = []
        """(time, offset) at the leader."""
        self.log_ends: list[tuple[int, int]] = []
        """(time, offset) at the leader."""
        self.acknowledged: list[tuple[int, int]] = []
        """(time, one past the last offset that a producer was told of)."""


class Recording:
    """All that is kept of a run."""

    def __init__(self, history: History) -> None:
        self.partitions: dict[str, PartitionRecording] = {}
        self.brokers: list[int] = []
        """In the order of their numbers."""
        self.down: dict[int, list[Span]] = {}
        """When each broker's process did not run."""
        self.faults: list[Span] = []
        """What went wrong; what was over at once, or never was, lasts no time."""
        self._down_since: dict[int, tuple[int, str]] = {}
        self._begun: list[tuple[int, str]] = []
        on = history.subscribe
        on(Elected, self._stands)
        on(IsrChanged, self._stands)
        on(ReplicasChanged, self._moved)
        on(HighWatermark, self._high_watermark)
        on(Appended, self._appended)
        on(Truncated, self._truncated)
        on(Acknowledged, self._acknowledged)
        on(Crashed, self._crashed)
        on(Started, self._started)
        on(FaultBegan, self._began)
        on(FaultEnded, self._ended)

    def finish(self, at_us: int) -> None:
        """The run is over: what still lasts ends here."""
        for broker, (since_us, text) in self._down_since.items():
            self.down[broker].append(Span(since_us, at_us, text))
        self._down_since.clear()
        self.faults += [Span(since_us, since_us, text) for since_us, text in self._begun]
        self._begun.clear()
        self.faults.sort()
        self.brokers.sort()

    def of(self, partition: str) -> PartitionRecording:
        """One partition's recording."""
        found = self.partitions.get(partition)
        if found is None:
            found = self.partitions[partition] = PartitionRecording()
        return found

    def _know(self, broker: int) -> None:
        if broker >= 0 and broker not in self.down:
            self.down[broker] = []
            self.brokers.append(broker)

    def _stands(self, event: Elected | IsrChanged) -> None:
        for broker in (*event.isr, *event.elr, event.leader):
            self._know(broker)
        self.of(event.partition).standings.append(
            Standing(event.at_us, event.leader, event.leader_epoch, event.isr, event.elr)
        )

    def _moved(self, event: ReplicasChanged) -> None:
        for broker in event.replicas:
            self._know(broker)
        self.of(event.partition).replicas.append((event.at_us, event.replicas))

    def _leads(self, partition: str, broker: int) -> bool:
        standings = self.of(partition).standings
        return bool(standings) and standings[-1].leader == broker

    def _high_watermark(self, event: HighWatermark) -> None:
        if event.as_leader:
            self.of(event.partition).high_watermarks.append((event.at_us, event.offset))

    def _appended(self, event: Appended) -> None:
        if event.as_leader:
            self.of(event.partition).log_ends.append((event.at_us, event.next_offset))

    def _truncated(self, event: Truncated) -> None:
        if self._leads(event.partition, event.broker):
            self.of(event.partition).log_ends.append((event.at_us, event.to_offset))

    def _acknowledged(self, event: Acknowledged) -> None:
        if event.base_offset >= 0:
            end = event.base_offset + len(event.record_ids)
            self.of(event.partition).acknowledged.append((event.at_us, end))

    def _crashed(self, event: Crashed) -> None:
        self._know(event.broker)
        self._down_since.setdefault(event.broker, (event.at_us, event.mode))

    def _started(self, event: Started) -> None:
        self._know(event.broker)
        since = self._down_since.pop(event.broker, None)
        if since is not None:
            self.down[event.broker].append(Span(since[0], event.at_us, since[1]))

    def _began(self, event: FaultBegan) -> None:
        self._begun.append((event.at_us, event.text))

    def _ended(self, event: FaultEnded) -> None:
        for begun in self._begun:
            if begun[1] == event.text:
                self._begun.remove(begun)
                self.faults.append(Span(begun[0], event.at_us, event.text))
                return


# Which runs are drawn, and which of their partitions ---------------------------------------------


class DrawnRun(NamedTuple):
    """A run whose time line a report draws."""

    outcome: Outcome
    """Of that run alone."""
    recording: Recording
    end_us: int
    command: str
    """What shows it again."""


def draw_run(scenario: Scenario, seed: int, *, command: str) -> DrawnRun:
    """Run a scenario with a seed once more, to see it."""
    recordings: list[Recording] = []
    outcome = run_seed(scenario, seed, watch=lambda history: recordings.append(Recording(history)))
    end_us = scenario.duration_ms * 1000
    recordings[0].finish(end_us)
    return DrawnRun(outcome, recordings[0], end_us, command)


def worth_drawing(outcomes: Sequence[Outcome]) -> list[tuple[int, int]]:
    """(Which combination, which seed): a run that broke a promise, or else lost the most; and the
    same seed with the settings that kept the most."""
    ranked = sorted(
        range(len(outcomes)),
        key=lambda index: (-outcomes[index].violation_count, -outcomes[index].lost),
    )
    worst, best = ranked[0], ranked[-1]
    seed = _telling_seed(outcomes[worst])
    return [(worst, seed)] if worst == best else [(worst, seed), (best, seed)]


def _telling_seed(outcome: Outcome) -> int:
    if outcome.violations:
        return outcome.violations[0][0]
    lost: dict[int, int] = {}
    for seed, loss in outcome.losses:
        lost[seed] = lost.get(seed, 0) + len(loss.record_ids)
    return max(lost, key=lambda seed: (lost[seed], -seed), default=outcome.seeds[0])


def told_partition(outcome: Outcome, recording: Recording) -> str:
    """The partition that there is most to tell of: one whose promise was broken, or that lost the
    most records, or whose leader changed most often."""
    if outcome.violations:
        return outcome.violations[0][1].partition
    lost: dict[str, int] = {}
    for _, loss in outcome.losses:
        lost[loss.partition] = lost.get(loss.partition, 0) + len(loss.record_ids)
    return max(
        sorted(recording.partitions),
        key=lambda name: (lost.get(name, 0), len(recording.partitions[name].standings)),
    )
