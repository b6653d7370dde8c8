"""What goes wrong in a run, and when: as the scenario says, and as the seed decides.

A fault takes hold of brokers or links and lets go of them again, at the latest when the scenario's
time is over. Two that have hold of the same thing do not get into each other's way: a broker is
started again when the last one lets go of it.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from logstore.replication.disk import Disk
from logstore.replication.history import BitRot, FaultBegan, FaultEnded
from logstore.replication.kernel import Simulation
from logstore.replication.network import Network, Node
from logstore.replication.scenario import CLUSTER_WIDE, SIDES, Fault, Scenario
from logstore.segments.memory_files import CrashMode

__all__ = ["FaultTarget", "Faults"]

AGAIN_US = 250_000
"""After how long a random fault tries again that has found nobody to befall."""


class FaultTarget(Protocol):
    """What faults befall: a cluster, as far as they need to know it."""

    simulation: Simulation
    scenario: Scenario
    network: Network

    @property
    def brokers(self) -> Mapping[int, object]:
        """All brokers, those that are down included."""
        ...

    @property
    def disks(self) -> Mapping[int, Disk]:
        """The disk of each broker."""
        ...

    @property
    def partitions(self) -> Sequence[str]:
        """The partitions of the topic."""
        ...

    def is_up(self, broker: int) -> bool:
        """Whether its process runs; also if it is paused."""
        ...

    def crash(self, broker: int, mode: CrashMode | None) -> object:
        """Kill it. None: a power cut, and the seed decides what becomes of what is not synced."""
        ...

    def stop(self, broker: int) -> object:
        """Stop it in good order: it hands its leaderships on first."""
        ...

    def start(self, broker: int) -> object:
        """Start it after a crash or a stop."""
        ...

    def pause(self, broker: int) -> object:
        """Let it stand still."""
        ...

    def resume(self, broker: int) -> object:
        """Let it go on."""
        ...

    def lose_disk(self, broker: int) -> object:
        """Kill it, and take all that it has stored."""
        ...

    def add_broker(self) -> int:
        """Let another one join, move replicas to it, and return its number."""
        ...

    def leader(self, partition: str) -> int:
        """Who leads, as the controller has decided; -1 where nobody does."""
        ...

    def replicas(self, partition: str) -> Mapping[int, object]:
        """The replicas of a partition at brokers that are up, by broker."""
        ...


class Faults:
    """The faults of one run."""

    def __init__(self, cluster: FaultTarget) -> None:
        self._cluster = cluster
        self._simulation = cluster.simulation
        self._rng = cluster.simulation.rng("faults")
        self._end_us = cluster.scenario.duration_ms * 1000
        self._down: dict[int, int] = {}
        """By how many faults each broker is kept down."""
        self._paused: dict[int, int] = {}
        self._full: dict[int, int] = {}
        self._troubled: dict[int, int] = {}
        """By how many faults each broker is out of order; of random ones, also a while after."""

    def schedule(self) -> None:
        """Ask the simulation for all faults of the scenario; called once, at its start."""
        scenario = self._cluster.scenario
        for fault in scenario.faults:
            at_us = 1000 * (fault.at_ms + self._rng.randint(0, fault.within_ms))
            self._simulation.at(at_us, self._begin_scheduled, fault)
        for fault in self._drawn():
            self._simulation.at(fault.at_ms * 1000, self._begin_random, fault)

    def _drawn(self) -> list[Fault]:
        """The random faults, at times that are spread evenly over the run."""
        profile, duration_ms = (
            self._cluster.scenario.random_faults,
            self._cluster.scenario.duration_ms,
        )
        drawn = []
        for kind in sorted(profile.per_minute):
            # A rate that gives no whole number gives the next one with the chance that is left.
            count, rest = divmod(profile.per_minute[kind] * duration_ms, 60_000)
            count += self._rng.randrange(60_000) < rest
            for _ in range(count):
                for_ms = self._rng.randint(profile.shortest_ms, profile.longest_ms)
                drawn.append(
                    Fault(kind=kind, at_ms=self._rng.randrange(duration_ms), for_ms=for_ms)
                )
        return sorted(drawn, key=lambda fault: fault.at_ms)

    # Beginning and ending ---------------------------------------------------------------------

    def _begin_scheduled(self, fault: Fault) -> None:
        self._begin(fault, self._chosen(fault), rest_us=0)

    def _begin_random(self, fault: Fault) -> None:
        """Begin, or wait until so many brokers are in order that one may be out of it."""
        profile = self._cluster.scenario.random_faults
        if fault.kind in CLUSTER_WIDE:
            self._begin(fault, [], rest_us=0)
            return
        troubled = sum(count > 0 for count in self._troubled.values())
        free = [broker for broker in self._cluster.brokers if not self._troubled.get(broker)]
        if troubled < profile.brokers_at_once and free:
            self._begin(fault, [self._rng.choice(free)], rest_us=profile.rest_ms * 1000)
        elif self._simulation.now_us + AGAIN_US + profile.shortest_ms * 1000 < self._end_us:
            self._simulation.after(AGAIN_US, self._begin_random, fault)

    def _begin(self, fault: Fault, brokers: list[int], *, rest_us: int) -> None:
        text, undo = _KINDS[fault.kind](self, fault, brokers)
        began = FaultBegan(self._simulation.now_us, text, fault.kind, tuple(brokers))
        self._simulation.history.emit(began)
        for broker in brokers:
            self._troubled[broker] = self._troubled.get(broker, 0) + 1
        ends_us = self._end_us
        if fault.for_ms:
            ends_us = min(ends_us, self._simulation.now_us + fault.for_ms * 1000)
        self._simulation.at(ends_us, self._end, began, undo)
        self._simulation.at(ends_us + rest_us, self._recovered, brokers)

    def _end(self, began: FaultBegan, undo: Callable[[], object] | None) -> None:
        if undo is not None:
            undo()
            now_us = self._simulation.now_us
            self._simulation.history.emit(FaultEnded(now_us, began.text, began.kind, began.brokers))

    def _recovered(self, brokers: list[int]) -> None:
        for broker in brokers:
            self._troubled[broker] -= 1

    def _chosen(self, fault: Fault) -> list[int]:
        """The brokers that a scheduled fault befalls."""
        cluster = self._cluster
        everybody = list(cluster.brokers)
        if fault.kind in CLUSTER_WIDE:
            return []
        if fault.racks:
            rack_of = cluster.scenario.cluster.rack_of
            return [broker for broker in everybody if rack_of(broker) in fault.racks]
        if not isinstance(fault.brokers, str):
            return list(fault.brokers)
        if fault.brokers == "all":
            return everybody
        first = cluster.partitions[0]
        leader = cluster.leader(first)
        if fault.brokers == "leader" and leader >= 0:
            return [leader]
        if fault.brokers == "follower":
            among = [broker for broker in cluster.replicas(first) if broker != leader]
        else:
            among = [broker for broker in everybody if not self._troubled.get(broker)]
        return sorted(self._rng.sample(among, min(fault.count, len(among))))

    # The kinds --------------------------------------------------------------------------------
    # Each begins, and returns what it is called and how it ends.

    def _crash(self, _: Fault, brokers: list[int]) -> _Begun:
        return self._take_down(brokers, "killed", lambda b: self._cluster.crash(b, CrashMode.KILL))

    def _power_cut(self, _: Fault, brokers: list[int]) -> _Begun:
        return self._take_down(brokers, "without power", lambda b: self._cluster.crash(b, None))

    def _restart(self, _: Fault, brokers: list[int]) -> _Begun:
        return self._take_down(brokers, "stopped in good order", self._cluster.stop)

    def _lose_disk(self, _: Fault, brokers: list[int]) -> _Begun:
        return self._take_down(brokers, "without its disk", self._cluster.lose_disk)

    def _take_down(
        self, brokers: list[int], what: str, take_down: Callable[[int], object]
    ) -> _Begun:
        for broker in brokers:
            self._down[broker] = self._down.get(broker, 0) + 1
            if self._cluster.is_up(broker):
                take_down(broker)

        def undo() -> None:
            for broker in brokers:
                self._down[broker] -= 1
                if not self._down[broker] and not self._cluster.is_up(broker):
                    self._cluster.start(broker)

        return f"{named(brokers)} {what}", undo

    def _pause(self, _: Fault, brokers: list[int]) -> _Begun:
        cluster = self._cluster
        paused = [broker for broker in brokers if cluster.is_up(broker)]
        for broker in paused:
            self._paused[broker] = self._paused.get(broker, 0) + 1
            if self._paused[broker] == 1:
                cluster.pause(broker)

        def undo() -> None:
            for broker in paused:
                self._paused[broker] -= 1
                if not self._paused[broker]:
                    cluster.resume(broker)

        return f"{named(brokers)} paused", undo

    def _partition(self, fault: Fault, brokers: list[int]) -> _Begun:
        links = [
            link
            for broker in brokers
            for other in self._others(fault, brokers)
            for link in ((broker, other), (other, broker))
            if fault.direction == "both" or (link[0] == broker) == (fault.direction == "from")
        ]
        for link in links:
            self._cluster.network.cut(*link)

        def undo() -> None:
            for link in links:
                self._cluster.network.heal(*link)

        way = {"both": "cut off from", "from": "not heard by", "to": "deaf to"}[fault.direction]
        whom = " and ".join(fault.apart_from) if len(fault.apart_from) < len(SIDES) else "all"
        return f"{named(brokers)} {way} {whom}", undo

    def _others(self, fault: Fault, brokers: list[int]) -> list[Node]:
        """From whom the brokers of a partition are apart."""

        def side(node: Node) -> str:
            if isinstance(node, int):
                return "brokers"
            return "controller" if node == "controller" else "clients"

        nodes = self._cluster.network.nodes
        return [node for node in nodes if node not in brokers and side(node) in fault.apart_from]

    def _flaky_network(self, fault: Fault, _: list[int]) -> _Begun:
        network = self._cluster.network
        ppm = (fault.loss_ppm, fault.duplicate_ppm, fault.reorder_ppm)
        network.disturb(*ppm)
        text = "the network loses {}, doubles {} and reorders {} of a million messages".format(*ppm)
        return text, lambda: network.disturb(*(-part for part in ppm))

    def _slow_network(self, fault: Fault, brokers: list[int]) -> _Begun:
        network = self._cluster.network
        network.slow(brokers, fault.factor)
        text = f"messages of {named(brokers)} {fault.factor} times slower"
        return text, lambda: network.slow(brokers, 1)

    def _slow_disk(self, fault: Fault, brokers: list[int]) -> _Begun:
        disks = [self._cluster.disks[broker] for broker in brokers]
        for disk in disks:
            disk.slow(fault.factor)

        def undo() -> None:
            for disk in disks:
                disk.slow(1)

        return f"syncs of {named(brokers)} {fault.factor} times slower", undo

    def _full_disk(self, _: Fault, brokers: list[int]) -> _Begun:
        for broker in brokers:
            self._full[broker] = self._full.get(broker, 0) + 1
            self._cluster.disks[broker].fill()

        def undo() -> None:
            for broker in brokers:
                self._full[broker] -= 1
                if not self._full[broker]:
                    self._cluster.disks[broker].clear()
                    if not self._down.get(broker) and not self._cluster.is_up(broker):
                        self._cluster.start(broker)  # it has stopped when it could not write

        return f"the disk of {named(brokers)} full", undo

    def _bit_rot(self, _: Fault, brokers: list[int]) -> _Begun:
        simulation = self._simulation
        for broker in brokers:
            disk = self._cluster.disks[broker]
            paths = [path for path in disk.files.paths() if path.endswith(".log")]
            paths = [path for path in paths if disk.files.size(path) > 0]
            if paths:
                path = self._rng.choice(paths)
                position = self._rng.randrange(disk.files.size(path))
                disk.rot(path, position)
                partition = posixpath.basename(posixpath.dirname(path))
                simulation.history.emit(BitRot(simulation.now_us, broker, partition, position))
        return f"a bit of {named(brokers)} turned over", None

    def _add_broker(self, fault: Fault, _: list[int]) -> _Begun:
        added = [self._cluster.add_broker() for _ in range(fault.count)]
        return f"{named(added)} added", None


_Begun = tuple[str, Callable[[], object] | None]
"""What a fault is called, and how it ends, if it does."""

_KINDS: dict[str, Callable[[Faults, Fault, list[int]], _Begun]] = {
    "crash": Faults._crash,
    "power_cut": Faults._power_cut,
    "restart": Faults._restart,
    "pause": Faults._pause,
    "lose_disk": Faults._lose_disk,
    "partition": Faults._partition,
    "flaky_network": Faults._flaky_network,
    "slow_network": Faults._slow_network,
    "slow_disk": Faults._slow_disk,
    "full_disk": Faults._full_disk,
    "bit_rot": Faults._bit_rot,
    "add_broker": Faults._add_broker,
}


def named(brokers: Sequence[int]) -> str:
    """``broker 1``, ``brokers 1, 2``."""
    if not brokers:
        return "no broker"
    return f"broker{'s' * (len(brokers) > 1)} {', '.join(map(str, brokers))}"
