"""Runs that are none, in a module that other processes can import by its own name."""

from __future__ import annotations

from collections import Counter

from logstore.replication.outcome import Outcome
from logstore.replication.scenario import Scenario

__all__ = ["pretend"]


def pretend(scenario: Scenario, seed: int) -> Outcome:
    """As if a scenario had been run."""
    cluster = scenario.cluster
    return Outcome(
        cluster.replication_factor,
        cluster.acks,
        cluster.min_insync_replicas,
        cluster.unclean_election,
        (seed,),
        acknowledged=seed,
        latencies_us=Counter({seed: 1}),
    )
