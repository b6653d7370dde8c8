"""Answering fetches: a follower gets all there is, a consumer what is committed.

A fetch names many partitions. If there is nothing in any of them, the leader keeps it until there
is, or until its time is up (a long poll). One fetch of each node waits at most: a later one takes
its place.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from logstore.errors import LogstoreError
from logstore.replication.leader import Leader
from logstore.replication.messages import (
    FENCED_LEADER_EPOCH,
    NOT_LEADER_OR_FOLLOWER,
    OFFSET_OUT_OF_RANGE,
    REQUEST_BYTES,
    STORAGE_ERROR,
    UNKNOWN_LEADER_EPOCH,
    FetchedPartition,
    FetchPartition,
    FetchRequest,
    FetchResponse,
)

if TYPE_CHECKING:
    from logstore.replication.broker import Broker

__all__ = ["LongPoll", "refusal", "serve"]

PARTITION_BYTES = 40
"""What a partition takes up in an answer, beside its batches."""

_new_fetched = partial(tuple.__new__, FetchedPartition)
"""``FetchedPartition._make`` without its Python frame."""


class LongPoll:
    """A fetch that waits for something to fetch."""

    __slots__ = ("answered", "leaders", "request")

    def __init__(self, request: FetchRequest, leaders: list[Leader]) -> None:
        self.request = request
        self.leaders = leaders
        """Of the partitions; each has the poll in its ``polls``."""
        self.answered = False


def refusal(leader: Leader | None, leader_epoch: int) -> str | None:
    """Why somebody who knows of that epoch is not answered, if so (KIP-320)."""
    if leader is None:
        return NOT_LEADER_OR_FOLLOWER
    if leader_epoch == leader.epoch:
        return None
    return FENCED_LEADER_EPOCH if leader_epoch < leader.epoch else UNKNOWN_LEADER_EPOCH


def serve(broker: Broker, request: FetchRequest, *, waited: bool) -> None:
    """Answer a fetch, or let it wait; ``waited``: it has, and is answered whatever there is."""
    node, bugs = request.sender.node, broker.bugs
    is_follower = request.broker_epoch >= 0
    leaders: list[Leader] = []
    found: list[FetchedPartition] = []
    size = 0
    worth_it = waited or request.max_wait_us == 0
    for wanted in request.partitions:
        leader = broker.leader_of(wanted.partition)
        error = refusal(leader, wanted.leader_epoch)
        if error is not None or leader is None:
            found.append(_refused(wanted, error))
            worth_it = True
            continue
        leaders.append(leader)
        if is_follower and not waited:
            assert isinstance(node, int)
            leader.follower_fetches(node, request.broker_epoch, wanted.offset)
        answer = _read(leader, wanted, request.max_bytes, is_follower=is_follower, bugs=bugs)
        if answer.data or answer.error is not None:
            size += len(answer.data)
            worth_it = True
        found.append(answer)
    if worth_it:
        size += REQUEST_BYTES + PARTITION_BYTES * len(found)
        response = FetchResponse(request.correlation, broker.node, tuple(found))
        broker.network.send(broker.node, node, size, request.sender.on_fetched, response)
        return
    poll = LongPoll(request, leaders)
    for leader in leaders:
        leader.polls[node] = poll
    broker.later(request.max_wait_us, broker.wake, poll)


def _refused(wanted: FetchPartition, error: str | None) -> FetchedPartition:
    return FetchedPartition(
        wanted.partition, error, wanted.leader_epoch, wanted.offset, -1, b"", -1
    )


def _read(
    leader: Leader,
    wanted: FetchPartition,
    max_bytes: int,
    *,
    is_follower: bool,
    bugs: frozenset[str],
) -> FetchedPartition:
    replica = leader.replica
    offset, end = wanted.offset, replica.end
    limit = end if is_follower or "read-uncommitted" in bugs else replica.high_watermark
    data, error = b"", None
    if offset > end:
        error = OFFSET_OUT_OF_RANGE
    elif offset < limit:
        try:
            upto = None if limit == end else limit
            data = replica.read(offset, max_bytes=max_bytes, upto=upto).data
        except LogstoreError:
            error = STORAGE_ERROR  # damage: whoever reads gets no further than this
    return _new_fetched(
        (
            wanted.partition,
            error,
            wanted.leader_epoch,
            offset,
            replica.high_watermark,
            data,
            end,
        )
    )
