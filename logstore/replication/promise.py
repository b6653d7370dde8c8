"""What a configuration promises of a record that was acknowledged, and why.

This is the question that a replication factor answers, as a pure function: from the settings and
from what befell a partition since the record was appended, to whether it must still be there. A
record that is lost against a promise is a fault of the protocol; one that nothing promised is the
price of the settings, and the reasons say which of them.

The rules are those of Kafka's documentation ("Replicated logs: quorums, ISRs, and state machines"),
of KIP-101 and KIP-279 (truncation) and of KIP-966 (eligible leader replicas):

- ``acks=all``: a record is acknowledged when every in-sync replica has it. Only such a replica, or
  an eligible one, is elected. So it is there as long as one of them has kept its storage, however
  many crash. With eligible leader replicas that cannot fail before ``min_insync_replicas`` of them
  lose their storage at once; without them the last one in sync may be the one that loses it.
- ``acks=1``: the leader has it. It is there until another replica is elected, or the leader's
  storage goes.
- ``acks=0``: nothing.
- A crash takes away storage with ``flush="page_cache"``, since what was not synced is gone; with
  ``flush="ack"`` only a lost disk and rotten bits do.
- An unclean election takes whatever the new leader lacks.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, Protocol

__all__ = ["Hardships", "Promise", "PromiseSettings", "promises"]


class PromiseSettings(Protocol):
    """The settings of a cluster that decide what is promised (``settings.ClusterSettings``)."""

    @property
    def replication_factor(self) -> int: ...
    @property
    def acks(self) -> Literal[0, 1, "all"]: ...
    @property
    def min_insync_replicas(self) -> int: ...
    @property
    def unclean_election(self) -> bool: ...
    @property
    def eligible_leader_replicas(self) -> bool: ...
    @property
    def epoch_truncation(self) -> str: ...


class Hardships(NamedTuple):
    """What befell a partition since a record was appended to it."""

    storage_lost_at_once: int = 0
    """The most replicas that had lost their storage, and were not in sync again, at one time. A
    lost disk, a rotten batch, and a crash where syncs are not waited for."""
    in_sync_storage_gone: bool = False
    """At some time every replica that was in sync, or eligible, had lost its storage."""
    leader_changed: bool = False
    """Another replica than the one that it was appended at was elected."""
    leader_storage_lost: bool = False
    """The replica that it was appended at has lost its storage."""
    unclean_election: bool = False
    """A replica was elected that was not known to have all that is committed."""


class Promise(NamedTuple):
    """Whether a record must be there, and the reasons, a sentence each."""

    holds: bool
    reasons: tuple[str, ...]


def promises(settings: PromiseSettings, hardships: Hardships, *, committed: bool) -> Promise:
    """Whether a record that was acknowledged (with ``settings.acks``), or read by a consumer, is
    promised to be there in spite of the hardships.

    ``committed``: it was below a leader's high watermark. Every record that was read is, and every
    one that was acknowledged with ``acks=all``.
    """
    against = []
    if hardships.unclean_election and settings.unclean_election:
        against.append("an unclean election took a replica that was not known to have all records")
    if settings.epoch_truncation != "KIP-279" and hardships.leader_changed:
        against.append(
            f"followers truncate by {settings.epoch_truncation}, which is known to lose committed "
            "records when leaders change"
        )
    in_favour = ""
    if committed:
        if _storage_gone(settings, hardships):
            against.append("every in-sync replica had lost its storage at one time")
        in_favour = "it was on every in-sync replica, and one of them has kept its storage"
    elif settings.acks == 0:
        against.append("acks=0 promises nothing")
    else:
        if hardships.leader_changed:
            against.append("acks=1: only the leader had to have it, and another one was elected")
        if hardships.leader_storage_lost:
            against.append("acks=1: only the leader had to have it, and its storage was lost")
        in_favour = "its leader is still the same and has kept its storage"
    return Promise(not against, tuple(against) or (in_favour,))


def _storage_gone(settings: PromiseSettings, hardships: Hardships) -> bool:
    """Whether no replica needs to be left that had the record and could be elected. Both rules:
    one trusts what the controller says is in sync, the other only counts."""
    if not hardships.in_sync_storage_gone:
        return False
    counted = min(settings.min_insync_replicas, settings.replication_factor)
    return not (settings.eligible_leader_replicas and hardships.storage_lost_at_once < counted)
