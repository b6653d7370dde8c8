"""Whole runs with their checkers: promises are kept, other losses are counted and explained."""

from __future__ import annotations

from pathlib import Path

import pytest

from logstore.replication.history import Crashed, DiskLost, Elected, History
from logstore.replication.outcome import merge
from logstore.replication.run import run_seed
from logstore.replication.scenario import Fault, Scenario, load_scenario
from logstore.replication.trace import trace

from .clusters import QUICK


def quick(*faults: Fault, **options: object) -> Scenario:
    changes = {**QUICK, **{key.replace("__", "."): value for key, value in options.items()}}
    return Scenario("test", faults=faults).replace(changes)


LEADER_LOSES_ITS_DISK = Fault(kind="lose_disk", at_ms=2500, for_ms=500, brokers="leader")


def test_one_replica_loses_with_its_disk_and_three_do_not() -> None:
    alone = run_seed(quick(LEADER_LOSES_ITS_DISK, cluster__replication_factor=1), 1)
    assert alone.violations == []
    assert alone.lost > 100
    ((_, loss),) = alone.losses
    assert loss.reasons == ("every in-sync replica had lost its storage at one time",)
    assert any(isinstance(event, DiskLost) for event in loss.causes)
    assert len(loss.record_ids) == alone.lost
    three = run_seed(quick(LEADER_LOSES_ITS_DISK, cluster__min_insync_replicas=2), 1)
    assert (three.violations, three.lost) == ([], 0)
    assert three.acknowledged > 400


def test_acks_1_loses_what_a_leader_had_alone_when_another_is_elected() -> None:
    faults = (
        Fault(kind="slow_network", at_ms=2000, for_ms=600, brokers=(1, 2), factor=1000),
        Fault(kind="lose_disk", at_ms=2400, for_ms=2000, brokers=(0,)),
    )
    outcome = merge(run_seed(quick(*faults, cluster__acks=1), seed) for seed in (1, 2, 3))
    assert outcome.violations == []
    assert outcome.lost > 0
    assert all("acks=1" in reason for reason in outcome.lost_because)


def test_an_outcome_is_the_same_for_the_same_seed_and_another_for_another() -> None:
    scenario = load_scenario("default").replace({"duration_ms": 15_000})
    lines: list[list[str]] = [[], [], []]

    def watched(seed: int, into: list[str]) -> dict[str, object]:
        return run_seed(scenario, seed, watch=lambda h: trace(h, into.append)).as_json()

    first, again, other = watched(4, lines[0]), watched(4, lines[1]), watched(5, lines[2])
    assert first == again
    assert lines[0] == lines[1]
    assert lines[0] != lines[2]
    assert first != other


def test_a_run_is_watched_and_kept(tmp_path: Path) -> None:
    seen: list[object] = []

    def watch(history: History) -> None:
        history.subscribe(Elected, seen.append)
        history.subscribe(Crashed, seen.append)

    outcome = run_seed(quick(cluster__replication_factor=2), 1, watch=watch, keep=tmp_path)
    assert isinstance(seen[0], Elected)
    logs = sorted(tmp_path.glob("broker-*/orders-0/*.log"))
    assert len(logs) == 2
    assert logs[0].read_bytes() == logs[1].read_bytes()
    assert outcome.disk_bytes > 2 * logs[0].stat().st_size


@pytest.mark.parametrize("acks", [0, 1, "all"])
def test_without_faults_nothing_is_lost_and_more_acks_take_longer(acks: int | str) -> None:
    outcome = run_seed(quick(cluster__acks=acks), 1)
    assert (outcome.lost, outcome.duplicated, outcome.violations) == (0, 0, [])
    floor = {0: 0.0, 1: 1.0, "all": 2.0}[acks]  # the leader's sync; then a fetch and another sync
    assert floor <= outcome.commit_latency_p50_ms < floor + 3
