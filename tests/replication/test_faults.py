"""Faults: what befalls whom and when, that it ends, and that the seed decides."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from logstore.replication.disk import Disk
from logstore.replication.faults import Faults
from logstore.replication.history import BitRot, FaultBegan, FaultEnded
from logstore.replication.kernel import Simulation
from logstore.replication.network import Network, Node
from logstore.replication.scenario import FAULTS, Fault, RandomFaults, Scenario
from logstore.replication.settings import ClusterSettings, DiskSettings, NetworkSettings
from logstore.segments.memory_files import CrashMode


class Target:
    """A cluster that only notes what is done to it."""

    def __init__(self, *faults: Fault, seed: int = 1, **options: Any) -> None:
        options.setdefault("duration_ms", 10_000)
        self.scenario = Scenario(
            "test", faults=faults, cluster=ClusterSettings(brokers=4, racks=("a", "b")), **options
        )
        self.simulation = Simulation(seed)
        places: dict[Node, str] = dict.fromkeys(range(4), "a")
        places |= {"controller": "a", "producer-1": "b"}
        self.network = Network(self.simulation, NetworkSettings(), places)
        self.disks = {broker: self._disk(broker) for broker in range(4)}
        self.up = dict.fromkeys(range(4), True)
        self.partitions = ["orders-0"]
        self.done: list[tuple[int, str]] = []
        self.leading = 2
        for kind in (FaultBegan, FaultEnded, BitRot):
            self.simulation.history.subscribe(kind, self._note_event)
        self.events: list[Any] = []
        Faults(self).schedule()

    def run(self) -> list[tuple[int, str]]:
        """To the end: (milliseconds, what was done)."""
        self.simulation.run_until(self.scenario.duration_ms * 1000)
        return self.done

    def _note_event(self, event: Any) -> None:
        self.events.append(event)

    def _note(self, what: str) -> None:
        self.done.append((self.simulation.now_us // 1000, what))

    @property
    def brokers(self) -> dict[int, bool]:
        return self.up

    def _disk(self, broker: int) -> Disk:
        return Disk(self.simulation, DiskSettings(), broker)

    def is_up(self, broker: int) -> bool:
        return self.up[broker]

    def crash(self, broker: int, mode: CrashMode | None) -> None:
        assert self.up[broker]
        self.up[broker] = False
        self._note(f"crash {broker} {mode.value if mode else 'by the seed'}")

    def stop(self, broker: int) -> None:
        assert self.up[broker]
        self.up[broker] = False
        self._note(f"stop {broker}")

    def start(self, broker: int) -> None:
        assert not self.up[broker]
        self.up[broker] = True
        self._note(f"start {broker}")

    def pause(self, broker: int) -> None:
        self._note(f"pause {broker}")

    def resume(self, broker: int) -> None:
        self._note(f"resume {broker}")

    def lose_disk(self, broker: int) -> None:
        assert self.up[broker]
        self.up[broker] = False
        self.disks[broker].lose()
        self._note(f"lose {broker}")

    def add_broker(self) -> int:
        broker = len(self.up)
        self.up[broker] = True
        self.network.place(broker, "a")
        self.disks[broker] = self._disk(broker)
        self._note(f"add {broker}")
        return broker

    def leader(self, partition: str) -> int:
        assert partition == "orders-0"
        return self.leading

    def replicas(self, partition: str) -> dict[int, None]:
        return dict.fromkeys((self.leading, 0, 3))


@pytest.mark.parametrize(
    ("kind", "begins", "ends"),
    [
        ("crash", "crash 1 kill", "start 1"),
        ("power_cut", "crash 1 by the seed", "start 1"),
        ("restart", "stop 1", "start 1"),
        ("lose_disk", "lose 1", "start 1"),
        ("pause", "pause 1", "resume 1"),
    ],
)
def test_a_broker_is_out_of_order_for_its_time(kind: str, begins: str, ends: str) -> None:
    target = Target(Fault(kind=kind, at_ms=1000, for_ms=500, brokers=(1,)))
    assert target.run() == [(1000, begins), (1500, ends)]
    assert [type(event) for event in target.events] == [FaultBegan, FaultEnded]
    assert target.events[0].text == target.events[1].text
    assert "broker 1" in target.events[0].text


def test_what_has_no_end_ends_with_the_run() -> None:
    target = Target(
        Fault(kind="crash", at_ms=1000, brokers=(1,)),
        Fault(kind="pause", at_ms=9000, for_ms=60_000, brokers=(2,)),
    )
    done = [(1000, "crash 1 kill"), (9000, "pause 2"), (10_000, "start 1"), (10_000, "resume 2")]
    assert target.run() == done


def test_a_broker_starts_when_the_last_fault_lets_go_of_it() -> None:
    target = Target(
        Fault(kind="crash", at_ms=1000, for_ms=2000, brokers=(1,)),
        Fault(kind="lose_disk", at_ms=2000, for_ms=2000, brokers=(1,)),
    )
    assert target.run() == [(1000, "crash 1 kill"), (4000, "start 1")]


@pytest.mark.parametrize(
    ("chosen", "crashed"),
    [
        ({"brokers": "all"}, {0, 1, 2, 3}),
        ({"brokers": "leader"}, {2}),
        ({"racks": ("b",)}, {1, 3}),
        ({"brokers": (0, 3)}, {0, 3}),
    ],
)
def test_brokers_are_chosen_by_what_they_are(chosen: dict[str, Any], crashed: set[int]) -> None:
    target = Target(Fault(kind="crash", at_ms=1, **chosen))
    target.simulation.run_until(1000)
    assert {broker for broker, up in target.up.items() if not up} == crashed


@pytest.mark.parametrize(
    ("chosen", "among"),
    [("any", {(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)}), ("follower", {(0, 3)})],
)
def test_the_seed_chooses_among_them(chosen: str, among: set[tuple[int, ...]]) -> None:
    found = set()
    for seed in range(60):
        target = Target(Fault(kind="crash", at_ms=1, brokers=chosen, count=2), seed=seed)
        target.simulation.run_until(1000)
        found.add(tuple(broker for broker, up in target.up.items() if not up))
    assert found == among


def test_any_broker_takes_the_place_of_a_leader_that_there_is_not() -> None:
    target = Target(Fault(kind="crash", at_ms=1, brokers="leader"))
    target.leading = -1
    target.simulation.run_until(1000)
    assert list(target.up.values()).count(False) == 1


def test_a_fault_begins_within_its_time() -> None:
    begun = {
        Target(Fault(kind="pause", at_ms=1000, within_ms=100), seed=seed).run()[0][0]
        for seed in range(50)
    }
    assert min(begun) >= 1000
    assert max(begun) <= 1100
    assert len(begun) > 20


def cut_links(target: Target) -> set[tuple[Node, Node]]:
    nodes = target.network.nodes
    return {link for link in itertools.permutations(nodes, 2) if target.network.is_cut(*link)}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (
            {"brokers": (0, 1)},
            {(a, b) for a in (0, 1) for b in (2, 3, "controller", "producer-1")}
            | {(b, a) for a in (0, 1) for b in (2, 3, "controller", "producer-1")},
        ),
        (
            {"brokers": (0,), "apart_from": ("brokers",)},
            {(0, 1), (0, 2), (0, 3), (1, 0), (2, 0), (3, 0)},
        ),
        (
            {"brokers": (0,), "apart_from": ("controller",), "direction": "from"},
            {(0, "controller")},
        ),
        ({"brokers": (0,), "apart_from": ("clients",), "direction": "to"}, {("producer-1", 0)}),
    ],
    ids=["full", "partial", "one-way from", "one-way to"],
)
def test_a_partition_cuts_and_heals(options: Any, expected: set[tuple[Node, Node]]) -> None:
    target = Target(Fault(kind="partition", at_ms=1000, for_ms=1000, **options))
    assert cut_links(target) == set()
    target.simulation.run_until(1_500_000)
    assert cut_links(target) == expected
    target.run()
    assert cut_links(target) == set()


def test_a_flaky_and_a_slow_network_are_so_for_their_time() -> None:
    target = Target(
        Fault(kind="flaky_network", at_ms=1000, for_ms=1000, loss_ppm=1_000_000),
        Fault(kind="slow_network", at_ms=3000, for_ms=1000, brokers=(1,), factor=100),
    )
    arrived: list[int] = []

    def send(at_ms: int) -> None:
        network = target.network
        target.simulation.at(
            at_ms * 1000, network.send, 0, 1, 10, lambda: arrived.append(target.simulation.now_us)
        )

    for at_ms in (500, 1500, 2500, 3500, 4500):
        send(at_ms)
    target.run()
    late = [us - 500_000 for us in arrived]
    assert [us // 10_000 * 10_000 for us in late] == [0, 2_000_000, 3_010_000, 4_000_000]


def test_disks_are_slow_and_full_for_their_time() -> None:
    target = Target(
        Fault(kind="slow_disk", at_ms=1000, for_ms=1000, brokers=(1,), factor=7),
        Fault(kind="full_disk", at_ms=1000, for_ms=1000, brokers=(1,)),
        Fault(kind="full_disk", at_ms=1500, for_ms=1000, brokers=(1,)),
    )
    disk = target.disks[1]
    target.simulation.run_until(1_200_000)
    assert disk.files.capacity == 0
    took: list[int] = []
    disk.sync(Nothing(), lambda: took.append(target.simulation.now_us))
    target.simulation.run_until(1_900_000)
    assert 7000 <= took[0] - 1_200_000 <= 7 * 1201
    target.simulation.run_until(2_200_000)
    assert disk.files.capacity == 0  # the second one is not over
    target.run()
    assert disk.files.capacity is None


class Nothing:
    """A log without anything to sync."""

    def flush(self) -> None:
        pass


def test_bit_rot_turns_a_bit_of_a_log() -> None:
    target = Target(Fault(kind="bit_rot", at_ms=1000, brokers=(1,)))
    files = target.disks[1].files
    files.make_directory("/orders-0")
    path = f"/orders-0/{0:020d}.log"
    for name in (path, "/orders-0/leader-epoch-checkpoint"):
        file = files.open(name, write=True, create=True)
        file.write_at(bytes(1000), 0)
    target.run()
    (began, rot) = sorted(target.events, key=lambda event: type(event) is BitRot)
    assert (rot.broker, rot.partition) == (1, "orders-0")
    data = files.open(path).read_at(1000, 0)
    assert [position for position, byte in enumerate(data) if byte] == [rot.position]
    assert began.text == "a bit of broker 1 turned over"


def test_brokers_are_added() -> None:
    target = Target(Fault(kind="add_broker", at_ms=1000, count=2))
    assert target.run() == [(1000, "add 4"), (1000, "add 5")]


# --- random faults ----------------------------------------------------------------------------


def random_target(seed: int, **options: Any) -> Target:
    per_minute = dict.fromkeys(sorted(FAULTS), 6)
    return Target(
        seed=seed,
        duration_ms=60_000,
        random_faults=RandomFaults(per_minute=per_minute, longest_ms=3000, **options),
    )


def test_a_seed_gives_the_same_faults_and_another_one_others() -> None:
    first, same, other = random_target(1), random_target(1), random_target(2)
    for target in (first, same, other):
        target.run()
    assert first.done == same.done != other.done
    assert first.events == same.events


@pytest.mark.parametrize("seed", range(5))
def test_everything_is_healed_at_the_end(seed: int) -> None:
    target = random_target(seed, brokers_at_once=3)
    target.run()
    assert all(target.up.values())
    assert cut_links(target) == set()
    assert all(disk.files.capacity is None for disk in target.disks.values())
    ended = [event.text for event in target.events if isinstance(event, FaultEnded)]
    lasting = [
        event.text
        for event in target.events
        if isinstance(event, FaultBegan) and "turned" not in event.text and "add" not in event.text
    ]
    assert sorted(ended) == sorted(lasting)
    assert len(ended) > 15


@pytest.mark.parametrize("at_once", [1, 2])
def test_so_many_brokers_are_out_of_order_at_once_and_no_more(at_once: int) -> None:
    most = 0
    for seed in range(10):
        target = Target(
            seed=seed,
            duration_ms=60_000,
            random_faults=RandomFaults(per_minute={"crash": 30}, brokers_at_once=at_once),
        )
        down = 0
        for _, what in target.run():
            down += 1 if what.startswith("crash") else -1
            most = max(most, down)
    assert most == at_once


def test_rates_are_kept_on_the_average() -> None:
    counts = []
    for seed in range(100):
        target = Target(
            seed=seed,
            duration_ms=10_000,
            random_faults=RandomFaults(per_minute={"flaky_network": 9}),
        )
        target.run()
        counts.append(sum(isinstance(event, FaultBegan) for event in target.events))
    assert set(counts) == {1, 2}  # 1.5 in ten seconds
    assert 120 < sum(counts) < 180
