"""Who is behind for long is taken out of the in-sync set, or the checker says so."""

from __future__ import annotations

import pytest

from logstore.replication.checkers.findings import Violation
from logstore.replication.checkers.shrinking import longest_us
from logstore.replication.history import IsrChanged
from logstore.replication.run import Run
from logstore.replication.scenario import Fault, Scenario, load_scenario

BEHIND = load_scenario("unclean").replace(
    {"cluster.replica_lag_time_max_ms": 1000, "workload.records_per_second": 20}
)
"""A follower is cut off from the other brokers, and not from the controller."""
LATE = frozenset({"isr-shrunk-late"})


def violations(scenario: Scenario, bugs: frozenset[str] = LATE) -> list[Violation]:
    return [violation for _, violation in Run(scenario, 1, bugs=bugs).finish().violations]


def test_a_follower_that_stays_in_sync_too_long_is_named_with_what_it_lacks() -> None:
    first = violations(BEHIND)[0]
    assert first.kind == "shrunk late"
    assert first.text.startswith("broker 1 is in sync, and has lacked the batch ")
    assert "replica_lag_time_max_ms allows for 3.6 s" in first.text


def test_it_is_taken_out_in_time() -> None:
    run = Run(BEHIND, 1)
    changes: list[IsrChanged] = []
    run.history.subscribe(IsrChanged, changes.append)
    assert run.finish().violations == []
    assert changes[0].isr == (0,)
    assert changes[0].at_us < 4_000_000 + longest_us(
        BEHIND
    )  # 4 s: when it is cut off at the latest


def test_a_leader_that_the_controller_cannot_be_asked_by_is_not_to_blame() -> None:
    deaf = Fault(
        kind="partition",
        brokers=(0,),
        apart_from=("controller",),
        direction="to",  # it is heard, so it still leads
        at_ms=2_000,
    )
    told = violations(Scenario("deaf", cluster=BEHIND.cluster, faults=(BEHIND.faults[0], deaf)))
    assert [violation.text for violation in told] == []


@pytest.mark.parametrize(
    ("changes", "expected_us"),
    [
        ({"network.bandwidth_bytes_per_s": 0, "network.other_region_us": 500}, 3_004_800),
        ({"network.loss_ppm": 990_000}, -1),
    ],
)
def test_the_time_that_is_allowed_for_comes_from_the_settings(
    changes: dict[str, int], expected_us: int
) -> None:
    scenario = BEHIND.replace({"network.reorder_us": 0, **changes})
    assert longest_us(scenario) == expected_us


def test_a_refused_newcomer_does_not_keep_another_one_in_sync() -> None:
    """Broker 2 is fenced, and goes on fetching: the leader asks for it again and again, in vain.
    Meanwhile broker 1 falls behind."""
    fenced = Fault(kind="partition", brokers=(2,), apart_from=("controller",), at_ms=1_000)
    behind = Fault(kind="partition", brokers=(1,), apart_from=("brokers",), at_ms=12_000)
    scenario = Scenario(
        "refused",
        duration_ms=25_000,
        cluster=BEHIND.replace({"cluster.replication_factor": 3}).cluster,
        faults=(fenced, behind),
    )
    run = Run(scenario, 1)
    changes: list[IsrChanged] = []
    run.history.subscribe(IsrChanged, changes.append)
    assert run.finish().violations == []
    assert any(change.isr == (0,) and change.at_us < 25_000_000 for change in changes)
