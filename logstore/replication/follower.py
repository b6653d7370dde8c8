"""Following: fetching from a leader, and cutting off what its log does not have.

A broker has one fetcher for each broker that leads something it follows; one fetch carries all of
these partitions, and the next one goes when all that came is safe. So where it fetches from says
what a follower has.

Under each new leader epoch a follower first finds out where its log parts from the leader's. It
asks where the epoch of its last record ends there, cuts what lies behind, and asks again if the
leader does not know that epoch at all (KIP-101, KIP-279). Kafka used to cut at the high watermark
instead, and then to ask only once; both can be chosen, to see what they lose.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from logstore.errors import LogstoreError, PoisonedError
from logstore.replication.fetching import PARTITION_BYTES
from logstore.replication.messages import (
    OFFSET_OUT_OF_RANGE,
    REQUEST_BYTES,
    EpochRequest,
    EpochResponse,
    FetchedPartition,
    FetchPartition,
    FetchRequest,
    FetchResponse,
)
from logstore.replication.replica import Replica, end_of_epoch

if TYPE_CHECKING:
    from logstore.replication.broker import Broker

__all__ = ["ReplicaFetcher"]

_PATIENCE_US: Final = 1_000_000
"""How much longer than a fetch may wait at the leader one waits for its answer."""


class _Followed:
    """A replica in the role of a follower, in one leader epoch."""

    __slots__ = ("asked", "epoch", "quiet_until_us", "replica", "truncated")

    def __init__(self, replica: Replica, epoch: int) -> None:
        self.replica = replica
        self.epoch = epoch
        self.truncated = False
        """Whether its log is known to be a beginning of the leader's."""
        self.asked = -1
        """The epoch whose end the leader was asked for last."""
        self.quiet_until_us = 0
        """Until when it is left out of fetches, since something is wrong with it."""


class ReplicaFetcher:
    """Fetches from one leader all that a broker follows there."""

    def __init__(self, broker: Broker, leader: int) -> None:
        self.leader = leader
        self._broker = broker
        self._simulation = broker.simulation
        self._followed: dict[str, _Followed] = {}
        self._correlation = 0
        """Of the last fetch; answers to others come too late."""
        self._under_way = False
        self._timed = False
        """Whether a timer is set that asks anew what can be fetched."""
        self._claims_unsynced = "follower-claims-unsynced" in broker.bugs

    @property
    def node(self) -> int:
        """The broker that fetches."""
        return self._broker.node

    def __len__(self) -> int:
        return len(self._followed)

    def add(self, replica: Replica, leader_epoch: int) -> None:
        """Follow the leader in this epoch."""
        replica.leader_epoch = leader_epoch
        followed = self._followed[replica.name] = _Followed(replica, leader_epoch)
        replica.when_safe(self._on_safe)
        settings, bugs = self._broker.settings, self._broker.bugs
        if replica.end == replica.log.log_start_offset or "truncation-forgotten" in bugs:
            followed.truncated = True
        elif (
            settings.epoch_truncation == "high_watermark" or "truncation-to-high-watermark" in bugs
        ):
            replica.truncate(replica.high_watermark, "it follows a new leader")
            followed.truncated = True
        else:
            self._ask(followed)
        replica.sync()
        self.fetch()

    def remove(self, name: str) -> None:
        """Follow it no longer."""
        followed = self._followed.pop(name, None)
        if followed is not None:
            followed.replica.when_safe(None)
            self.fetch()  # the others may have waited for this one to be safe

    # Truncating -------------------------------------------------------------------------------

    def _ask(self, followed: _Followed) -> None:
        """Ask where the last epoch ends at the leader, and again until there is an answer."""
        if self._followed.get(followed.replica.name) is not followed or followed.truncated:
            return
        broker = self._broker
        followed.asked = followed.replica.last_epoch
        request = EpochRequest(self, followed.replica.name, followed.epoch, followed.asked)
        on_epoch = broker.peer(self.leader).on_epoch
        broker.network.send(broker.node, self.leader, REQUEST_BYTES, on_epoch, request)
        broker.later(_PATIENCE_US, self._ask, followed)

    def on_epoch_end(self, response: EpochResponse) -> None:
        """The leader has answered."""
        self._broker.enter(self._epoch_end, response)

    def _epoch_end(self, response: EpochResponse) -> None:
        followed = self._followed.get(response.partition)
        if (
            followed is None
            or followed.truncated
            or followed.epoch != response.leader_epoch
            or followed.asked != response.asked
            or response.error is not None
        ):
            return
        replica = followed.replica
        to, met = self._common_end(replica, response)
        replica.truncate(to, f"its leader's log parts from it in epoch {response.epoch}")
        if met or replica.end == replica.log.log_start_offset:
            followed.truncated = True
            self.fetch()
        else:
            self._ask(followed)

    def _common_end(self, replica: Replica, response: EpochResponse) -> tuple[int, bool]:
        """Where the follower's log is to end as far as this answer tells, and whether what is in
        front of it is surely the leader's (``AbstractFetcherThread.getOffsetTruncationState``)."""
        if response.end_offset < 0:
            return replica.high_watermark, True  # the leader knows nothing of that time
        if self._broker.settings.epoch_truncation == "KIP-101":
            return response.end_offset, True
        entries = replica.log.leader_epochs()
        epoch, end = end_of_epoch(entries, response.epoch, replica.end)
        if end < 0:
            return response.end_offset, True
        if epoch != response.epoch:
            return end, False  # the follower has not had that epoch: they parted before it
        return min(end, response.end_offset), True

    # Fetching ---------------------------------------------------------------------------------

    def fetch(self) -> None:
        """Send the next fetch, unless one is under way or something that came is not safe yet."""
        if self._under_way or not self._followed:
            return
        now_us = self._simulation.now_us
        wanted = []
        for name, followed in self._followed.items():
            if not followed.truncated:
                continue
            if followed.quiet_until_us > now_us:
                continue
            if not followed.replica.settled and not self._claims_unsynced:
                return
            wanted.append(FetchPartition(name, followed.epoch, followed.replica.end))
        if not wanted:
            return
        broker, settings = self._broker, self._broker.settings
        self._under_way = True
        self._correlation += 1
        wait_us = settings.replica_fetch_wait_max_ms * 1000
        request = FetchRequest(
            self._correlation,
            self,
            broker.broker_epoch,
            wait_us,
            settings.replica_fetch_max_bytes,
            tuple(wanted),
        )
        size = REQUEST_BYTES + PARTITION_BYTES * len(wanted)
        on_fetch = broker.peer(self.leader).on_fetch
        broker.network.send(broker.node, self.leader, size, on_fetch, request)
        broker.later(wait_us + _PATIENCE_US, self._give_up, self._correlation)

    def _give_up(self, correlation: int) -> None:
        """No answer has come: ask again."""
        if self._under_way and self._correlation == correlation:
            self._under_way = False
            self.fetch()

    def _on_safe(self, _replica: Replica) -> None:
        self.fetch()

    def on_fetched(self, response: FetchResponse) -> None:
        """The leader has answered."""
        self._broker.enter(self._fetched, response)

    def on_disconnected(self, correlation: int) -> None:
        """The leader is down: try again after a while."""
        backoff_us = self._broker.settings.replica_fetch_backoff_ms * 1000
        self._broker.later(backoff_us, self._give_up, correlation)

    def _fetched(self, response: FetchResponse) -> None:
        if not self._under_way or response.correlation != self._correlation:
            return
        self._under_way = False
        for followed, answer in self._of_now(response):
            if answer.error is None:
                self._take(followed, answer)
            elif answer.error == OFFSET_OUT_OF_RANGE:
                followed.replica.truncate(answer.end, "the leader's log ends there")
            else:
                self._pause(followed)
        self.fetch()

    def _of_now(self, response: FetchResponse) -> Iterator[tuple[_Followed, FetchedPartition]]:
        """What there is of partitions that are still followed as they were."""
        for answer in response.partitions:
            followed = self._followed.get(answer.partition)
            if (
                followed is not None
                and followed.truncated
                and followed.epoch == answer.leader_epoch
                and followed.replica.end == answer.offset
            ):
                yield followed, answer

    def _take(self, followed: _Followed, answer: FetchedPartition) -> None:
        replica = followed.replica
        if answer.data:
            try:
                replica.append_as_follower(answer.data)
            except PoisonedError:
                raise
            except LogstoreError:
                self._pause(followed)  # the leader's bytes have rotted: Kafka tries again, too
                return
        high_watermark = min(answer.high_watermark, replica.end)
        if high_watermark > replica.high_watermark:
            replica.raise_high_watermark(high_watermark, as_leader=False)

    def _pause(self, followed: _Followed) -> None:
        """Leave a partition alone for a while: the leader does not know of its epoch yet, or not
        any more, or something is damaged."""
        backoff_us = self._broker.settings.replica_fetch_backoff_ms * 1000
        followed.quiet_until_us = self._simulation.now_us + backoff_us
        self._broker.later(backoff_us, self.fetch)
