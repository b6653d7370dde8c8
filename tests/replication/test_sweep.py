"""Combinations of settings, many runs, and how their outcomes are put together."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from logstore.errors import InvalidInputError
from logstore.replication.scenario import Scenario
from logstore.replication.settings import ClusterSettings
from logstore.replication.sweep import Run, combinations, run_all

SCENARIO = Scenario("test", cluster=ClusterSettings(brokers=5, min_insync_replicas=2))


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch) -> Run:
    # Another process has its parent's path, on which nothing called `tests` need be.
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    run: Run = importlib.import_module("pretending").pretend
    return run


def test_every_factor_is_tried_with_every_kind_of_acknowledgement() -> None:
    tried = combinations(SCENARIO, factors=(1, 3), acks=(1, "all"), unclean_election=True)
    assert [
        (
            each.cluster.replication_factor,
            each.cluster.acks,
            each.cluster.min_insync_replicas,
            each.cluster.unclean_election,
        )
        for each in tried
    ] == [(1, 1, 1, True), (1, "all", 1, True), (3, 1, 2, True), (3, "all", 2, True)]


def test_what_is_not_given_stays() -> None:
    assert combinations(SCENARIO) == [SCENARIO]


def test_what_can_never_be_met_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="min_insync_replicas=4 can never be met with a"):
        combinations(SCENARIO, factors=(1, 3), min_insync_replicas=4)
    with pytest.raises(InvalidInputError, match="replication_factor=6 needs as many brokers"):
        combinations(SCENARIO, factors=(6,))


@pytest.mark.parametrize("jobs", [1, 2])
def test_outcomes_come_in_order_and_hold_all_seeds(pretend: Run, jobs: int) -> None:
    tried = combinations(SCENARIO, factors=(1, 2, 3))
    told: list[tuple[int, int]] = []
    outcomes = list(
        run_all(
            tried,
            range(5, 25),
            jobs=jobs,
            run=pretend,
            progress=lambda index, outcome: told.append((index, len(outcome.seeds))),
        )
    )
    assert [outcome.replication_factor for outcome in outcomes] == [1, 2, 3]
    assert all(outcome.seeds == tuple(range(5, 25)) for outcome in outcomes)
    assert all(outcome.acknowledged == sum(range(5, 25)) for outcome in outcomes)
    assert [sum(count for index, count in told if index == one) for one in range(3)] == [20] * 3
