"""Who is in sync keeps up: a replica that lacks what its leader has had for long is taken out.

This is what ``replica_lag_time_max_ms`` promises, and no rule about records: a replica that stays
in the in-sync set too long loses nothing, but everybody who waits for all replicas waits for it.
Kafka looks every half of that time. So a replica is out at the latest after one and a half of it,
and what it takes the leader to tell the controller. Nobody can blame a leader that stands still or
is cut off, nor count the time before it led, or before it was well again.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from logstore.replication.checkers.findings import Wrong
from logstore.replication.checkers.suite import Checkers
from logstore.replication.history import (
    Crashed,
    Elected,
    FaultBegan,
    FaultEnded,
    IsrChanged,
    Leads,
    Opened,
    Truncated,
)
from logstore.replication.kernel import Simulation
from logstore.replication.scenario import Scenario
from logstore.replication.settings import NetworkSettings

__all__ = ["Shrinking", "longest_us"]

_TRY_US = 500_000
"""After how long a leader asks the controller again."""
_SURE = 1e-9
"""So rarely all the tries that are counted on get lost."""
_EXCUSES = ("pause", "partition", "slow_network")
"""Faults of a leader under which the controller may not hear of it in time."""
_EVERYWHERE = "flaky_network"


def longest_us(scenario: Scenario) -> int:
    """How long a replica may lack something and be in sync; -1 where the network loses so much that
    nothing can be said."""
    cluster, network = scenario.cluster, scenario.network
    ways = [network.other_region_us, network.other_rack_us, network.same_rack_us]
    ways += [link.latency_us for link in network.links]
    way_us = max(ways) * (100 + network.jitter_percent) // 100 + network.reorder_us
    lost = max([network.loss_ppm, *(link.loss_ppm for link in network.links)]) / 1_000_000
    tries = 1
    while lost**tries > _SURE:
        tries += 1
        if tries > 60:
            return -1
    slowest = _slowest(network)
    # What is to be told waits behind answers to fetches.
    behind_us = 2_000_000 * cluster.brokers * cluster.replica_fetch_max_bytes // slowest
    return cluster.replica_lag_time_max_ms * 1500 + (tries + 2) * _TRY_US + 8 * way_us + behind_us


def _slowest(network: NetworkSettings) -> int:
    bounds = [network.bandwidth_bytes_per_s]
    bounds += [link.bandwidth_bytes_per_s for link in network.links]
    return min((bound for bound in bounds if bound > 0), default=1 << 62)


class _Led(NamedTuple):
    leader: int
    epoch: int
    since_us: int


class Shrinking:
    """Looks at all in-sync sets now and then. To be made after ``checkers``, which know what each
    replica has."""

    def __init__(self, simulation: Simulation, checkers: Checkers, scenario: Scenario) -> None:
        self._simulation = simulation
        self._checkers = checkers
        self._end_us = scenario.duration_ms * 1000
        self._longest_us = longest_us(scenario)
        self._every_us = max(100_000, scenario.cluster.replica_lag_time_max_ms * 500)
        self._led: dict[str, _Led] = {}
        """Who leads each partition and knows it, and since when."""
        self._joined_us: dict[str, dict[int, int]] = {}
        """Who is in sync in each partition, and since when."""
        self._troubled: dict[int, int] = {}
        """By how many faults each broker may be kept from the controller; -1 stands for all."""
        self._well_us: dict[int, int] = {}
        """Since when each is not."""
        self._cut_us: dict[int, int] = {}
        """When each may have lost something that it had: from then on it is behind."""
        self._told: set[tuple[str, int, int]] = set()
        """Of whom it was said in which epoch."""
        history = simulation.history
        history.subscribe(Elected, self._elected)
        history.subscribe(IsrChanged, self._in_sync)
        history.subscribe(Leads, self._leads)
        history.subscribe(Crashed, self._crashed)
        history.subscribe(Opened, self._cut)
        history.subscribe(Truncated, self._cut)
        history.subscribe(FaultBegan, self._began)
        history.subscribe(FaultEnded, self._ended)
        if self._longest_us >= 0:
            simulation.after(self._every_us, self._look)

    def _elected(self, event: Elected) -> None:
        self._led.pop(event.partition, None)
        self._in_sync(event)

    def _in_sync(self, event: Elected | IsrChanged) -> None:
        before = self._joined_us.get(event.partition, {})
        self._joined_us[event.partition] = {
            broker: before.get(broker, event.at_us) for broker in event.isr
        }

    def _leads(self, event: Leads) -> None:
        if event.leader_epoch == self._checkers.of(event.partition).timeline.epoch:
            self._led[event.partition] = _Led(event.broker, event.leader_epoch, event.at_us)

    def _cut(self, event: Crashed | Opened | Truncated) -> None:
        self._cut_us[event.broker] = event.at_us

    def _crashed(self, event: Crashed) -> None:
        self._cut(event)
        for partition, led in list(self._led.items()):
            if led.leader == event.broker:
                del self._led[partition]

    def _began(self, event: FaultBegan) -> None:
        for broker in _kept_off(event):
            self._troubled[broker] = self._troubled.get(broker, 0) + 1

    def _ended(self, event: FaultEnded) -> None:
        for broker in _kept_off(event):
            self._troubled[broker] -= 1
            self._well_us[broker] = event.at_us

    # Looking ----------------------------------------------------------------------------------

    def _look(self) -> None:
        now_us = self._simulation.now_us
        for partition, led in self._led.items():
            if self._troubled.get(led.leader) or self._troubled.get(-1):
                continue
            for kind, text in self._late(partition, led):
                self._checkers.findings.broken(kind, now_us, partition, text)
        if now_us < self._end_us:
            self._simulation.after(self._every_us, self._look)

    def _late(self, partition: str, led: _Led) -> Iterator[Wrong]:
        lineage = self._checkers.of(partition).lineage
        path = lineage.log(led.leader).path
        since_us = max(led.since_us, self._well_us.get(led.leader, 0), self._well_us.get(-1, 0))
        for broker, joined_us in self._joined_us[partition].items():
            log = lineage.log(broker)
            if broker == led.leader or log.holds(path[-1]):
                continue
            lacking = path[log.shared_with(path)]
            from_us = max(since_us, joined_us, lacking.appended_us, self._cut_us.get(broker, 0))
            behind_us = self._simulation.now_us - from_us
            key = partition, led.epoch, broker
            if behind_us > self._longest_us and key not in self._told:
                self._told.add(key)
                yield Wrong(
                    "shrunk late",
                    f"broker {broker} is in sync, and has lacked the batch {lacking} of broker "
                    f"{led.leader} for {behind_us / 1_000_000:.1f} s; replica_lag_time_max_ms "
                    f"allows for {self._longest_us / 1_000_000:.1f} s",
                )


def _kept_off(event: FaultBegan | FaultEnded) -> tuple[int, ...]:
    """Whom a fault may keep from the controller; -1 stands for all."""
    if event.kind == _EVERYWHERE:
        return (-1,)
    return event.brokers if event.kind in _EXCUSES else ()
