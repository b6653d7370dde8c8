"""Who leads: one replica an epoch, and only one that may."""

from __future__ import annotations

from collections.abc import Iterator

from logstore.replication.checkers.findings import Wrong
from logstore.replication.checkers.timeline import PartitionTimeline
from logstore.replication.history import Appended, Elected, IsrChanged

__all__ = ["appended_rightly", "changed_rightly", "elected_rightly"]


def elected_rightly(
    event: Elected, timeline: PartitionTimeline, *, unclean_allowed: bool
) -> Iterator[Wrong]:
    """An election, before the timeline knows of it."""
    if event.leader_epoch <= timeline.epoch:
        yield Wrong(
            "epoch",
            f"broker {event.leader} was elected in epoch {event.leader_epoch}, and epoch "
            f"{timeline.epoch} was reached before",
        )
    if event.leader < 0:
        return
    may = (*timeline.isr, *timeline.elr)
    if event.clean and timeline.epoch >= 0 and event.leader not in may:
        yield Wrong(
            "election",
            f"broker {event.leader} was elected as if it had all records, and neither the in-sync "
            f"set {list(timeline.isr)} nor the eligible replicas {list(timeline.elr)} have it",
        )
    if not event.clean and not unclean_allowed and may:
        yield Wrong(
            "election",
            f"broker {event.leader} was elected uncleanly, and unclean_election is off; there were "
            f"{list(may)} to wait for",
        )
    if event.leader not in event.isr:
        yield Wrong(
            "in sync",
            f"broker {event.leader} leads and is not in its own in-sync set {list(event.isr)}",
        )


def changed_rightly(event: IsrChanged, timeline: PartitionTimeline) -> Iterator[Wrong]:
    """A change of the in-sync set, before the timeline knows of it."""
    if event.leader_epoch < timeline.epoch:
        yield Wrong(
            "epoch",
            f"the in-sync set {list(event.isr)} of epoch {event.leader_epoch} was accepted in epoch"
            f" {timeline.epoch}",
        )


def appended_rightly(event: Appended, timeline: PartitionTimeline) -> Iterator[Wrong]:
    """A leader's append: only the one that was elected in an epoch appends in it."""
    leader = timeline.leaders.get(event.leader_epoch)
    if leader != event.broker:
        who = "nobody" if leader is None or leader < 0 else f"broker {leader}"
        yield Wrong(
            "leader",
            f"broker {event.broker} appended as the leader of epoch {event.leader_epoch}, in which "
            f"{who} was elected",
        )
