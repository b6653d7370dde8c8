"""Faults that a test can plant into the protocol, to see that the checkers notice.

A checker that has never found anything proves nothing. So each of these is a mistake that is easily
made, at the one place where it would be made, switched on by a test only; and a test holds that it
is found within so many seeds, and that the same seeds find nothing without it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["BUGS", "LATE", "ROUGH", "PlantedBug"]


@dataclass(frozen=True, slots=True)
class PlantedBug:
    """A mistake, and where it shows."""

    description: str
    """What is wrong, in a few words."""
    seeds: int
    """Within how many seeds, from 1 on, it is found."""
    changes: Mapping[str, Any] = field(default_factory=dict)
    """Options of the scenario that make it show sooner (``Scenario.replace``)."""
    scenario: str = "default"


ROUGH: Mapping[str, Any] = {
    "duration_ms": 20_000,
    "cluster.session_timeout_ms": 1500,
    "cluster.heartbeat_interval_ms": 300,
    "cluster.replica_lag_time_max_ms": 1000,
    "cluster.replica_fetch_backoff_ms": 200,
    "workload.request_timeout_ms": 1000,
    "random_faults.shortest_ms": 500,
    "random_faults.longest_ms": 4000,
    "random_faults.rest_ms": 500,
    "random_faults.brokers_at_once": 2,
    "random_faults.per_minute": {
        "crash": 12,
        "partition": 20,
        "lose_disk": 6,
        "power_cut": 6,
        "pause": 6,
    },
}
"""Much goes wrong in a short time, and two brokers at once; for what shows only when leaders change
while somebody is behind."""

LATE: Mapping[str, Any] = {
    **ROUGH,
    "random_faults.shortest_ms": 300,
    "random_faults.longest_ms": 2500,
    "random_faults.per_minute": {"crash": 15, "partition": 15, "lose_disk": 12, "pause": 12},
    "network.loss_ppm": 30_000,
    "network.duplicate_ppm": 50_000,
    "network.reorder_ppm": 150_000,
    "network.reorder_us": 1_500_000,
}
"""... and messages come late, twice or not at all; for what shows when old ones are believed."""

BUGS: dict[str, PlantedBug] = {
    "ack-before-sync": PlantedBug(
        "what is not on stable storage counts as replicated and is acknowledged", 1
    ),
    "acks-all-after-the-leader": PlantedBug(
        "acks=all is answered when the leader has the batch, not when all in-sync replicas do", 1
    ),
    "duplicates-accepted": PlantedBug(
        "a leader appends a batch that its producer has sent before", 3, ROUGH
    ),
    "eligible-replicas-forgotten": PlantedBug(
        "the controller does not remember who left the in-sync set when it became too small",
        3,
        ROUGH,
    ),
    "empty-disk-in-sync": PlantedBug(
        "a broker that comes back with an empty disk stays in the in-sync set", 3, ROUGH
    ),
    "epochs-not-compared": PlantedBug(
        "a broker believes what it hears last of who leads, also what is of an older epoch", 5, LATE
    ),
    "follower-claims-unsynced": PlantedBug(
        "a follower fetches on while what it has got is not on stable storage", 1
    ),
    "high-watermark-goes-back": PlantedBug(
        "a new leader begins with the high watermark 0", 3, ROUGH
    ),
    "high-watermark-one-too-high": PlantedBug(
        "the high watermark is one above what all in-sync replicas have", 1
    ),
    "isr-joined-early": PlantedBug(
        "a follower is taken into the in-sync set before it has caught up", 3, ROUGH
    ),
    "isr-shrunk-late": PlantedBug(
        "a leader keeps a follower that is behind in the in-sync set ten times too long",
        1,
        {"cluster.replica_lag_time_max_ms": 1000},
        scenario="unclean",
    ),
    "isr-shrunk-unconfirmed": PlantedBug(
        "a leader commits without a slow follower before the controller has taken it out", 3, ROUGH
    ),
    "min-isr-forgotten": PlantedBug(
        "min_insync_replicas is looked at neither for acks=all nor for the high watermark",
        3,
        ROUGH,
    ),
    "queue-applies-uncommitted": PlantedBug(
        "a queue's leader acts on commands when it has appended them, before they are committed",
        10,
        {"network.loss_ppm": 200_000, "random_faults.per_minute": {"crash": 30}},
        scenario="mirrored-queue",
    ),
    "read-uncommitted": PlantedBug("consumers are served what is not committed yet", 3, ROUGH),
    "stale-isr-accepted": PlantedBug(
        "the controller takes an in-sync set that was proposed before it decided otherwise",
        50,
        LATE,
    ),
    "truncation-forgotten": PlantedBug(
        "a follower of a new leader does not cut what that leader has not got", 10, ROUGH
    ),
    "truncation-to-high-watermark": PlantedBug(
        "a follower of a new leader cuts what it does not know to be committed", 3, ROUGH
    ),
    "unclean-though-off": PlantedBug(
        "a replica that is not in sync is elected, though unclean_election is off", 3, ROUGH
    ),
}
"""By the name that switches it on."""
