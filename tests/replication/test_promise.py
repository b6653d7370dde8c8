"""What is promised, for each setting and what befell a record."""

from __future__ import annotations

import pytest

from logstore.replication.promise import Hardships, promises
from tests.replication.story import Settings

ALL = Settings()
ONE = Settings(acks=1)
UNCLEAN_ON = Settings(unclean_election=True)
ALONE = Settings(replication_factor=1, min_insync_replicas=1)
NO_ELR = Settings(eligible_leader_replicas=False)
OLD = Settings(epoch_truncation="high_watermark")

ELECTION = Hardships(leader_changed=True)
ONE_DISK = Hardships(storage_lost_at_once=1, in_sync_storage_gone=True)
TWO_DISKS = Hardships(storage_lost_at_once=2, in_sync_storage_gone=True)
TWO_OF_THREE = Hardships(storage_lost_at_once=2, in_sync_storage_gone=False)
UNCLEAN = Hardships(leader_changed=True, unclean_election=True)
LEADERS_DISK = Hardships(storage_lost_at_once=1, leader_storage_lost=True)


@pytest.mark.parametrize(
    ("settings", "hardships", "committed", "holds"),
    [
        (ALL, Hardships(), True, True),
        (ALL, ELECTION, True, True),
        (ALL, ONE_DISK, True, True),  # two replicas had to have it: an eligible one is left
        (ALL, TWO_DISKS, True, False),
        (ALL, TWO_OF_THREE, True, True),  # three were in sync
        (UNCLEAN_ON, UNCLEAN, True, False),
        (ALL, UNCLEAN, True, True),  # it was not to be: a fault of the controller is no excuse,
        (NO_ELR, ONE_DISK, True, False),  # the last replica standing (KIP-966)
        (NO_ELR, LEADERS_DISK, True, True),
        (ALONE, Hardships(), True, True),
        (ALONE, ONE_DISK, True, False),
        (ONE, Hardships(), False, True),
        (ONE, ELECTION, False, False),
        (ONE, ELECTION, True, True),  # it was read: every in-sync replica has it
        (ONE, LEADERS_DISK, False, False),
        (Settings(acks=1, unclean_election=True), UNCLEAN, True, False),
        (Settings(acks=0), Hardships(), False, False),
        (OLD, Hardships(), True, True),
        (OLD, ELECTION, True, False),
    ],
)
def test_a_promise_follows_from_the_settings_and_from_what_happened(
    settings: Settings, hardships: Hardships, committed: bool, holds: bool
) -> None:
    promise = promises(settings, hardships, committed=committed)
    assert promise.holds is holds
    assert promise.reasons
    assert all(promise.reasons)


def test_every_reason_that_applies_is_told() -> None:
    settings = Settings(acks=1, unclean_election=True)
    hardships = Hardships(leader_changed=True, leader_storage_lost=True, unclean_election=True)
    assert len(promises(settings, hardships, committed=False).reasons) == 3
