"""Faults that a test can plant into the protocol, to see that the checkers notice.

A checker that has never found anything proves nothing. So each of these is a mistake that is easily
made, at the one place where it would be made, switched on by a test only; and a test holds that it
is found within so many seeds, and that the same seeds find nothing without it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["BUGS", "PlantedBug"]


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


BUGS: dict[str, PlantedBug] = {
    "ack-before-sync": PlantedBug(
        "what is not on stable storage counts as replicated and is acknowledged", 1
    ),
    "acks-all-after-the-leader": PlantedBug(
        "acks=all is answered when the leader has the batch, not when all in-sync replicas do", 1
    ),
    "empty-disk-in-sync": PlantedBug(
        "a broker that comes back with an empty disk stays in the in-sync set", 20
    ),
    "epochs-not-compared": PlantedBug(
        "a leader answers whoever asks, whichever leader epoch he knows", 20
    ),
    "high-watermark-goes-back": PlantedBug("a new leader begins with the high watermark 0", 5),
    "high-watermark-one-too-high": PlantedBug(
        "the high watermark is one above what all in-sync replicas have", 1
    ),
    "isr-shrunk-unconfirmed": PlantedBug(
        "a leader commits without a slow follower before the controller has taken it out", 20
    ),
    "min-isr-forgotten": PlantedBug(
        "min_insync_replicas is looked at neither for acks=all nor for the high watermark", 20
    ),
    "read-uncommitted": PlantedBug("consumers are served what is not committed yet", 5),
    "stale-isr-accepted": PlantedBug(
        "the controller takes an in-sync set that was proposed before it decided otherwise", 20
    ),
    "truncation-forgotten": PlantedBug(
        "a follower of a new leader does not cut what that leader has not got", 20
    ),
}
"""By the name that switches it on."""
