"""The simulated network: when messages arrive, which do not, and what is counted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from logstore.errors import InvalidInputError
from logstore.replication.kernel import Simulation
from logstore.replication.network import Network, Node
from logstore.replication.settings import LinkSettings, NetworkSettings

PLACES: dict[Node, str] = {0: "eu/a", 1: "eu/a", 2: "eu/b", 3: "us/a", "controller": "eu/b"}


class Wire:
    """A network, and what came over it: (time, message)."""

    def __init__(self, seed: int = 1, **options: Any) -> None:
        quiet = {"jitter_percent": 0, "bandwidth_bytes_per_s": 0, **options}
        self.simulation = Simulation(seed)
        self.network = Network(self.simulation, NetworkSettings(**quiet), PLACES)
        self.arrived: list[tuple[int, Any]] = []

    def send(self, source: Node, target: Node, message: Any, size: int = 100) -> None:
        self.network.send(source, target, size, self._deliver, message)

    def _deliver(self, message: Any) -> None:
        self.arrived.append((self.simulation.now_us, message))

    def run(self) -> list[tuple[int, Any]]:
        self.simulation.run_until(self.simulation.now_us + 3_600_000_000)
        arrived, self.arrived = self.arrived, []
        return arrived


def test_latency_depends_on_rack_and_region() -> None:
    wire = Wire(same_rack_us=100, other_rack_us=500, other_region_us=40_000)
    wire.send(0, 1, "same rack")
    wire.send(0, 2, "other rack")
    wire.send(0, 3, "other region")
    assert wire.run() == [(100, "same rack"), (500, "other rack"), (40_000, "other region")]


def test_racks_without_a_region_are_in_one() -> None:
    simulation = Simulation(1)
    settings = NetworkSettings(other_rack_us=500, jitter_percent=0)
    network = Network(simulation, settings, {0: "a", 1: "b"})
    arrived: list[int] = []
    network.send(0, 1, 0, lambda: arrived.append(simulation.now_us))
    simulation.run_until(1_000_000)
    assert arrived == [500]


def test_jitter_lengthens_the_latency_up_to_its_share() -> None:
    late = set()
    for seed in range(200):
        wire = Wire(seed, same_rack_us=1000, jitter_percent=20)
        wire.send(0, 1, "")
        late.add(wire.run()[0][0])
    assert min(late) >= 1000
    assert max(late) <= 1200
    assert len(late) > 50


def test_what_was_sent_later_on_a_link_arrives_later() -> None:
    wire = Wire(same_rack_us=1000, jitter_percent=100)
    for number in range(100):
        wire.send(0, 1, number)
    assert [message for _, message in wire.run()] == list(range(100))


def test_messages_wait_for_the_bandwidth_of_their_sender() -> None:
    wire = Wire(same_rack_us=100, bandwidth_bytes_per_s=1_000_000)
    wire.send(0, 1, "first", 1000)
    wire.send(0, 2, "second", 500)  # to somebody else, but through the same machine
    wire.send(1, 0, "other", 10)
    assert wire.run() == [(110, "other"), (1100, "first"), (2000, "second")]


def test_small_messages_add_up() -> None:
    wire = Wire(same_rack_us=0, bandwidth_bytes_per_s=10_000_000)
    for number in range(100):
        wire.send(0, 1, number, 1)  # a tenth of a microsecond each
    assert wire.run()[-1] == (10, 99)


def test_a_link_of_its_own_kind() -> None:
    links = (
        LinkSettings(source="eu/a", target="eu/b", latency_us=700),
        LinkSettings(source=0, target=2, both_ways=False, latency_us=900),
        LinkSettings(source=3, target=0, bandwidth_bytes_per_s=1000),
    )
    wire = Wire(other_rack_us=500, other_region_us=40_000, links=links)
    assert send_alone(wire, 0, 2) == 900  # the later line counts
    assert send_alone(wire, 2, 0) == 700  # it spoke of one way only
    assert send_alone(wire, 1, "controller") == 700
    assert send_alone(wire, 3, 0) == 40_000 + 100_000  # 100 bytes at 1000 bytes a second


def send_alone(wire: Wire, source: Node, target: Node) -> int:
    before = wire.simulation.now_us
    wire.send(source, target, "")
    return wire.run()[0][0] - before


@pytest.mark.parametrize(
    ("option", "copies"), [("loss_ppm", 0), ("duplicate_ppm", 2), ("reorder_ppm", 1)]
)
def test_loss_duplication_and_reordering_at_their_extremes(option: str, copies: int) -> None:
    wire = Wire(same_rack_us=100, **{option: 1_000_000})
    for number in range(50):
        wire.send(0, 1, number)
    arrived = [message for _, message in wire.run()]
    assert sorted(arrived) == sorted(list(range(50)) * copies)
    if option == "reorder_ppm":
        assert arrived != sorted(arrived)
    assert wire.network.lost == (50 if copies == 0 else 0)
    assert wire.network.messages == 50


def test_some_are_lost_as_often_as_it_was_said() -> None:
    wire = Wire(loss_ppm=100_000)
    for number in range(2000):
        wire.send(0, 1, number)
    assert len(wire.run()) == 2000 - wire.network.lost
    assert 120 < wire.network.lost < 280


def test_a_cut_is_one_way_and_ends_when_all_who_cut_have_healed() -> None:
    wire = Wire()
    network = wire.network
    network.cut(0, 1)
    network.cut(0, 1)
    assert network.is_cut(0, 1)
    assert not network.is_cut(1, 0)
    wire.send(0, 1, "lost")
    wire.send(1, 0, "there")
    assert [message for _, message in wire.run()] == ["there"]
    network.heal(0, 1)
    wire.send(0, 1, "lost")
    assert wire.run() == []
    network.heal(0, 1)
    wire.send(0, 1, "there")
    assert [message for _, message in wire.run()] == ["there"]
    assert network.lost == 2
    with pytest.raises(InvalidInputError, match="the link from 0 to 1 is not cut"):
        network.heal(0, 1)


def test_what_is_on_its_way_when_a_link_is_cut_arrives() -> None:
    wire = Wire()
    wire.send(0, 1, "on its way")
    wire.network.cut(0, 1)
    assert [message for _, message in wire.run()] == ["on its way"]


def test_a_disturbance_adds_to_all_links_and_is_taken_back() -> None:
    wire = Wire()
    wire.send(0, 1, "before")
    wire.network.disturb(1_000_000, 0, 0)
    wire.send(0, 1, "lost")
    wire.send(1, 2, "lost, on a link that was not used before")
    wire.network.disturb(-1_000_000, 0, 0)
    wire.send(0, 1, "after")
    assert sorted(message for _, message in wire.run()) == ["after", "before"]


def test_a_slow_node_is_slow_both_ways() -> None:
    wire = Wire(same_rack_us=100, other_rack_us=500)
    wire.network.slow([0], 10)
    assert [send_alone(wire, *way) for way in ((0, 1), (1, 0), (1, 2))] == [1000, 1000, 500]
    wire.network.slow([0], 1)
    assert send_alone(wire, 0, 1) == 100


def test_bytes_are_counted_and_those_between_racks() -> None:
    wire = Wire()
    wire.send(0, 1, "", 10)
    wire.send(0, 2, "", 200)
    wire.network.cut(0, 3)
    wire.send(0, 3, "", 3000)
    assert wire.network.network_bytes == 3210
    assert wire.network.between_racks_bytes == 3200


def test_a_node_that_comes_later_has_a_place() -> None:
    wire = Wire(same_rack_us=100)
    wire.network.place("consumer-1", "eu/a")
    assert send_alone(wire, 0, "consumer-1") == 100
    assert wire.network.rack_of("consumer-1") == "eu/a"
    assert wire.network.nodes == [0, 1, 2, 3, "controller", "consumer-1"]


@pytest.mark.parametrize("seed", [1, 2])
def test_a_seed_gives_the_same_arrivals(seed: int) -> None:
    def run() -> list[tuple[int, Any]]:
        wire = Wire(seed, jitter_percent=50, loss_ppm=50_000, duplicate_ppm=50_000)
        for number in range(300):
            wire.send(number % 4, (number + 1) % 4, number)
        return wire.run()

    assert run() == run()


def test_the_callable_gets_its_arguments() -> None:
    wire = Wire()
    got: list[tuple[object, ...]] = []
    deliver: Callable[..., object] = lambda *args: got.append(args)  # noqa: E731
    wire.network.send(0, 1, 1, deliver, 1, "two")
    wire.run()
    assert got == [(1, "two")]
