"""Whole clusters: what was acknowledged is there, whatever happened, where that is promised."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from logstore.replication.history import (
    Acknowledged,
    Crashed,
    Delivered,
    Elected,
    IsrChanged,
    Refused,
    Truncated,
)
from logstore.segments.check import check
from logstore.segments.files import DiskFiles
from logstore.segments.memory_files import CrashMode

from .clusters import Run, ids

TRACE = """
import sys
from logstore.replication.cluster import Cluster
from logstore.replication.kernel import Simulation
from logstore.replication.scenario import load_scenario
from logstore.replication.trace import trace
simulation = Simulation(7)
trace(simulation.history, print)
cluster = Cluster(simulation, load_scenario("chaos").replace({"duration_ms": 8000}))
cluster.run()
cluster.come_to_rest()
"""


def acknowledged(run: Run) -> list[str]:
    return [record for event in run.all(Acknowledged) for record in event.record_ids]


def left(run: Run, partition: str = "orders-0") -> list[str]:
    """What the leader of a partition has; all replicas have the same."""
    replicas = run.cluster.replicas(partition)
    contents = {node: ids(replica) for node, replica in replicas.items()}
    leader = contents[run.cluster.leader(partition)]
    assert all(content == leader for content in contents.values())
    return leader


def test_without_faults_every_record_is_acknowledged_read_and_everywhere() -> None:
    run = Run(cluster__partitions=2, cluster__acks="all")
    run.finish()
    told = acknowledged(run)
    assert len(told) >= 2 * 50 * 5
    read = [record for event in run.all(Delivered) for record in event.record_ids]
    assert sorted(told) == sorted(read)
    assert sorted(told) == sorted(left(run, "orders-0") + left(run, "orders-1"))
    assert not run.all(Truncated)
    assert {run.cluster.leader(name) for name in run.cluster.partitions} == {0, 1}


@pytest.mark.parametrize("mode", [None, CrashMode.KILL])
@pytest.mark.parametrize("acks", [1, "all"])
def test_a_crash_of_the_leader_loses_nothing_with_acks_all(
    mode: CrashMode | None, acks: int | str
) -> None:
    run = Run(2, cluster__acks=acks, cluster__min_insync_replicas=2)
    run.at(2000, run.cluster.crash, 0, mode)
    run.at(4500, run.cluster.start, 0)
    run.finish()
    elections = [(event.leader, event.leader_epoch) for event in run.all(Elected)]
    assert elections == [(0, 0), (1, 1)]
    there = left(run)
    if acks == "all":
        assert set(acknowledged(run)) <= set(there)
    assert len(there) == len(set(there)) or acks == 1


def test_acks_1_loses_what_only_the_leader_had_and_acks_all_does_not() -> None:
    def lost(acks: int | str) -> set[str]:
        run = Run(3, cluster__acks=acks, workload__records_per_second=500)
        # The leader is alone for a while, and dies before the others take its place.
        for other in (1, 2):
            run.at(2000, run.cluster.network.cut, other, 0)
            run.at(2600, run.cluster.network.heal, other, 0)
        run.at(2500, run.cluster.crash, 0, CrashMode.LOSE)
        run.at(5000, run.cluster.start, 0)
        run.finish()
        return set(acknowledged(run)) - set(left(run))

    assert lost(1)
    assert not lost("all")


def test_a_slow_follower_leaves_the_in_sync_set_and_comes_back() -> None:
    run = Run(4, cluster__min_insync_replicas=1)
    for link in ((2, 0), (0, 2)):
        run.at(1500, run.cluster.network.cut, *link)
        run.at(4000, run.cluster.network.heal, *link)
    run.finish()
    sets = [event.isr for event in run.all(IsrChanged)]
    assert sets == [(0, 1), (0, 1, 2)]
    assert set(acknowledged(run)) <= set(left(run))


def test_with_too_few_in_sync_nothing_is_acknowledged_and_nothing_is_lost() -> None:
    run = Run(5, cluster__min_insync_replicas=2, workload__delivery_timeout_ms=2500)
    for follower in (1, 2):
        run.at(1000, run.cluster.crash, follower, None)
        run.at(5500, run.cluster.start, follower)
    run.finish()
    refused = run.all(Refused)
    quiet = [event for event in run.all(Acknowledged) if 2_500_000 < event.at_us < 5_500_000]
    assert quiet == []
    there = set(left(run))
    assert set(acknowledged(run)) <= there
    certain = {record for event in refused if event.certain for record in event.record_ids}
    assert certain
    assert not certain & there


def test_a_stale_leader_commits_nothing() -> None:
    run = Run(6, cluster__min_insync_replicas=2)
    others: list[int | str] = ["controller", 1, 2]
    for other in others:
        for link in ((0, other), (other, 0)):
            run.at(2000, run.cluster.network.cut, *link)
            run.at(5000, run.cluster.network.heal, *link)
    run.finish()
    assert (1, 1) in [(event.leader, event.leader_epoch) for event in run.all(Elected)]
    stale = [
        event
        for event in run.all(Acknowledged)
        if event.leader_epoch == 0 and event.at_us > 2_010_000
    ]
    assert stale == []
    assert set(acknowledged(run)) <= set(left(run))


def test_a_broker_that_is_stopped_in_good_order_hands_on_what_it_leads() -> None:
    run = Run(7, cluster__min_insync_replicas=2)
    run.at(2000, run.cluster.stop, 0)
    run.at(3000, run.cluster.start, 0)
    run.until(2500)
    assert [(event.broker, event.mode) for event in run.all(Crashed)] == [(0, "stop")]
    assert run.cluster.leader("orders-0") == 1
    run.finish()
    assert not run.all(Refused)
    assert set(acknowledged(run)) == set(left(run))


def test_a_broker_is_stopped_while_its_disk_syncs() -> None:
    run = Run(13, disk__sync_us=100_000, cluster__min_insync_replicas=2)
    run.at(2000, run.cluster.stop, 1)
    run.at(3000, run.cluster.stop, 0)
    run.at(4000, run.cluster.start, 0)
    run.at(4000, run.cluster.start, 1)
    run.finish()
    assert [(event.broker, event.mode) for event in run.all(Crashed)] == [(1, "stop"), (0, "stop")]
    assert set(acknowledged(run)) <= set(left(run))


def test_a_paused_leader_is_replaced_and_follows_when_it_goes_on() -> None:
    run = Run(8)
    run.at(2000, run.cluster.pause, 0)
    run.at(4500, run.cluster.resume, 0)
    run.finish()
    assert run.cluster.leader("orders-0") == 1
    assert set(run.cluster.controller.partitions["orders-0"].isr) == {0, 1, 2}
    assert set(acknowledged(run)) <= set(left(run))


def test_a_lost_disk_is_filled_again_by_the_others() -> None:
    run = Run(9, cluster__min_insync_replicas=2)
    run.at(2000, run.cluster.lose_disk, 0)
    run.at(2300, run.cluster.start, 0)  # before anybody has noticed
    run.finish()
    assert run.cluster.leader("orders-0") == 1
    there = left(run)
    assert set(acknowledged(run)) <= set(there)
    assert len(ids(run.cluster.replicas("orders-0")[0])) == len(there)


def test_a_new_broker_takes_its_share_while_records_come() -> None:
    run = Run(10, cluster__partitions=4, cluster__min_insync_replicas=2, cluster__rack_aware=False)
    run.at(2000, run.cluster.add_broker)
    run.finish()
    kept = dict.fromkeys(run.cluster.brokers, 0)
    for name in run.cluster.partitions:
        for node in run.cluster.controller.partitions[name].replicas:
            kept[node] += 1
        assert set(run.cluster.replicas(name)) == set(
            run.cluster.controller.partitions[name].replicas
        )
    assert kept == {0: 3, 1: 3, 2: 3, 3: 3}
    there = {record for name in run.cluster.partitions for record in left(run, name)}
    assert set(acknowledged(run)) == there


def test_leadership_goes_back_to_the_preferred_replica() -> None:
    run = Run(11, cluster__preferred_leader_ms=5000)
    run.at(1500, run.cluster.crash, 0, None)
    run.at(3000, run.cluster.start, 0)
    run.finish()
    assert [event.leader for event in run.all(Elected)] == [0, 1, 0]


def test_what_is_kept_is_in_order_for_the_checker(tmp_path: Path) -> None:
    run = Run(12, cluster__segment_bytes=4096)
    run.at(2000, run.cluster.crash, 0, None)
    run.at(4000, run.cluster.start, 0)
    run.finish()
    contents = {node: ids(replica) for node, replica in run.cluster.replicas("orders-0").items()}
    run.cluster.keep(tmp_path)
    for node in run.cluster.brokers:
        found = check(DiskFiles(), str(tmp_path / f"broker-{node}" / "orders-0"))
        assert found is not None
        assert [str(finding) for finding in found if finding.severity == "damage"] == []
    assert len(contents[0]) > 100


def test_a_seed_gives_the_same_trace_in_every_process() -> None:
    def run(hash_seed: str) -> bytes:
        environment = {"PYTHONHASHSEED": hash_seed, "PATH": "", "PYTHONPATH": ":".join(sys.path)}
        command = [sys.executable, "-c", TRACE]
        return subprocess.run(command, capture_output=True, check=True, env=environment).stdout

    first, second = run("1"), run("2")
    assert first.count(b"\n") > 1000
    assert b"fault" in first
    assert first == second
