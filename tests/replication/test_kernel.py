"""Virtual time, randomness by name, and who is told of what."""

from __future__ import annotations

import random

import pytest

from logstore.replication.history import History, Started, Synced
from logstore.replication.kernel import START_MS, SimulatedClock, Simulation


def test_what_is_due_at_one_moment_happens_in_the_order_of_asking() -> None:
    simulation = Simulation(1)
    happened: list[tuple[int, str]] = []

    def note(what: str) -> None:
        happened.append((simulation.now_us, what))

    simulation.after(20, note, "late")
    simulation.after(10, note, "first")
    simulation.after(10, note, "second")
    simulation.at(10, note, "third")
    simulation.run_until(20)
    assert happened == [(10, "first"), (10, "second"), (10, "third"), (20, "late")]
    assert simulation.now_us == 20
    assert simulation.steps == 4


def test_what_happens_may_ask_for_more_and_time_stops_where_it_was_told_to() -> None:
    simulation = Simulation(1)
    times: list[int] = []

    def tick() -> None:
        times.append(simulation.now_us)
        simulation.after(10, tick)

    simulation.after(0, tick)
    simulation.run_until(25)
    assert (times, simulation.now_us) == ([0, 10, 20], 25)
    simulation.run_until(30)
    assert times == [0, 10, 20, 30]


def test_the_order_is_that_of_time_and_of_asking_near_and_far_and_wherever_time_stops() -> None:
    simulation, rng = Simulation(1), random.Random(5)
    due: list[tuple[int, int]] = []
    happened: list[tuple[int, int]] = []

    def ask() -> None:
        time_us = simulation.now_us + rng.choice((0, 1, 7, 999, 1000, 1001, 5_000, 700_000))
        due.append((time_us, len(due)))
        simulation.at(time_us, happen, due[-1])

    def happen(which: tuple[int, int]) -> None:
        assert simulation.now_us == which[0]
        happened.append(which)
        if len(due) < 3000:
            ask()
            ask()

    ask()
    while simulation.now_us < 3_000_000:
        simulation.run_until(simulation.now_us + rng.choice((1, 500, 1000, 40_000)))
        assert len(happened) == sum(time_us <= simulation.now_us for time_us, _ in due)
    assert happened == sorted(due)


def test_what_is_asked_for_in_the_past_happens_now() -> None:
    simulation = Simulation(1)
    simulation.run_until(100)
    times: list[int] = []
    simulation.at(50, lambda: times.append(simulation.now_us))
    simulation.after(-5, lambda: times.append(simulation.now_us))
    simulation.run_until(100)
    assert times == [100, 100]


def test_each_name_has_a_stream_of_its_own_that_the_seed_decides() -> None:
    def draw(seed: int, *names: str) -> list[int]:
        simulation = Simulation(seed)
        return [simulation.rng(name).randrange(1 << 30) for name in names]

    assert draw(7, "network", "faults", "network") == draw(7, "network", "faults", "network")
    assert draw(7, "network") == draw(7, "faults", "network")[1:]
    assert draw(7, "network") != draw(8, "network")


def test_the_clock_shows_virtual_time_and_lets_nobody_sleep() -> None:
    simulation = Simulation(1)
    clock = SimulatedClock(simulation)
    simulation.run_until(2_500_000)
    assert (clock.now_ms(), clock.monotonic(), clock.boottime_ms()) == (START_MS + 2500, 2.5, 2500)
    with pytest.raises(AssertionError, match="slept"):
        clock.sleep(1)


def test_an_event_is_told_to_those_who_asked_for_its_kind() -> None:
    history = History()
    told: list[tuple[str, object]] = []
    history.subscribe(Started, lambda event: told.append(("a", event)))
    history.subscribe(Started, lambda event: told.append(("b", event)))
    started = Started(5, 1, 1)
    history.emit(started)
    history.emit(Synced(6, 1, "orders-0", 10))
    assert told == [("a", started), ("b", started)]
