"""Documented cases: the outcome that the source describes, and none of it with what mends it."""

from __future__ import annotations

from typing import Any

import pytest

from logstore.replication.history import Elected, Truncated
from logstore.replication.outcome import Outcome, merge
from logstore.replication.run import run_seed
from logstore.replication.scenario import load_scenario

SEEDS = range(1, 8)

CURES: dict[str, dict[str, Any]] = {
    "kip-101-truncation": {"cluster.epoch_truncation": "KIP-279"},
    "kip-101-divergence": {"cluster.epoch_truncation": "KIP-279"},
    "kip-279-divergence": {"cluster.epoch_truncation": "KIP-279"},
    "jepsen-2013": {"cluster.unclean_election": False},
    "kip-966-last-replica": {"cluster.eligible_leader_replicas": True},
}
"""What was introduced, or switched off by default, because of each."""


def outcome_of(name: str, changes: dict[str, Any]) -> Outcome:
    return merge(run_seed(load_scenario(name).replace(changes), seed) for seed in SEEDS)


@pytest.mark.parametrize("name", CURES)
def test_a_documented_case_goes_as_its_source_says(name: str) -> None:
    scenario = load_scenario(name)
    assert scenario.source.startswith("https://")
    outcome = outcome_of(name, {})
    assert outcome.violations == []
    assert (outcome.lost > 0) == (scenario.expect.lost == "some")
    kinds = {violation.kind for _, violation in outcome.known}
    assert set(scenario.expect.violations) <= kinds


@pytest.mark.parametrize("name", CURES)
def test_what_was_introduced_because_of_it_mends_it(name: str) -> None:
    outcome = outcome_of(name, CURES[name])
    assert (outcome.violations, outcome.known) == ([], [])
    # What a power cut and an unclean election take is lost also without divergence.
    if not name.endswith("divergence"):
        assert outcome.lost == 0


def test_the_loss_of_kip_101_is_told_with_the_truncation_that_caused_it() -> None:
    outcome = run_seed(load_scenario("kip-101-truncation"), 1)
    ((_, loss),) = outcome.losses
    assert any(isinstance(event, Truncated) and event.broker == 2 for event in loss.causes)
    last = [event for event in loss.causes if isinstance(event, Elected)][-1]
    assert last.leader == 2
    assert "high_watermark" in loss.reasons[0]
