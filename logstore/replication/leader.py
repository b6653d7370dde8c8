"""Leading a partition: taking batches, following the followers, and committing.

A leader knows how far each follower has come from where it fetches. The high watermark is the least
end of all that are in sync; it stands still while fewer than ``min_insync_replicas`` are (KIP-966).
Who falls behind for ``replica_lag_time_max_ms`` is to leave the in-sync set, who has caught up is
to join it: the leader proposes, the controller decides (KIP-497). Until it has, whoever is in one
of the two sets counts.
"""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

from logstore.errors import OutOfOrderSequenceError, ProducerFencedError
from logstore.replication.history import Leads
from logstore.replication.leadership import PartitionState
from logstore.replication.messages import (
    INELIGIBLE_REPLICA,
    NOT_ENOUGH_REPLICAS,
    NOT_ENOUGH_REPLICAS_AFTER_APPEND,
    NOT_LEADER_OR_FOLLOWER,
    OUT_OF_ORDER_SEQUENCE_NUMBER,
    PRODUCER_FENCED,
    REQUEST_TIMED_OUT,
    STALE_BROKER_EPOCH,
    AlterRequest,
    AlterResponse,
    EpochRequest,
    EpochResponse,
    ProduceRequest,
)
from logstore.replication.replica import Replica, end_of_epoch
from logstore.segments.checkpoint import EpochEntry

if TYPE_CHECKING:
    from logstore.replication.broker import Broker
    from logstore.replication.fetching import LongPoll

__all__ = ["Leader"]

_ASK_AGAIN_US: Final = 500_000
"""After how long an unanswered or refused proposal is made again."""


class _Waiting(NamedTuple):
    """A produce request whose answer has to wait."""

    request: ProduceRequest
    base_offset: int
    until: int
    """The offset below which everything has to be committed (``acks=all``) or safe (1)."""
    deadline_us: int


_new_waiting = partial(tuple.__new__, _Waiting)
"""``_Waiting._make`` without its Python frame."""


class _Follower:
    """How far a follower has come, as its fetches tell."""

    __slots__ = ("broker_epoch", "caught_up_us", "end", "fetched_us", "leader_end")

    def __init__(self, now_us: int) -> None:
        self.end = -1
        """Where it fetches from: it has everything below. -1: it has not fetched yet."""
        self.broker_epoch = -1
        self.caught_up_us = now_us
        """When it last had everything that the leader had at some earlier fetch."""
        self.fetched_us = now_us
        self.leader_end = 0
        """Where the leader's log ended at its last fetch."""


class Leader:
    """A replica in the role of the leader, in one leader epoch."""

    def __init__(self, broker: Broker, replica: Replica, state: PartitionState) -> None:
        self.replica = replica
        self.state = state
        """The controller's last word."""
        self.epoch = state.leader_epoch
        self.epoch_start = replica.end
        """Where the log ended when the epoch began."""
        self.polls: dict[int | str, LongPoll] = {}
        """Who waits for more, by node."""
        self._broker = broker
        self._simulation = broker.simulation
        self._bugs = broker.bugs
        self._followers: dict[int, _Follower] = {}
        self._proposed: tuple[int, ...] | None = None
        """The in-sync set that the controller was asked for, and has not decided on."""
        self._quiet_until_us = 0
        """Until when nothing is proposed, since the controller has refused."""
        self._committing: deque[_Waiting] = deque()
        """Requests with ``acks=all``, in the order of their coming."""
        self._syncing: deque[_Waiting] = deque()
        """Requests with ``acks=1`` whose batch is not safe yet."""
        self._timed = False
        """Whether a timer for the first of those is set."""
        self._retired = False
        replica.leader_epoch = self.epoch
        replica.log.begin_leader_epoch(self.epoch)
        self._simulation.history.emit(
            Leads(self._simulation.now_us, broker.node, replica.name, self.epoch, replica.end)
        )
        if "high-watermark-goes-back" in self._bugs:
            replica.raise_high_watermark(0, as_leader=True)
        replica.when_safe(self._on_safe)
        self._meet_replicas()
        replica.sync()
        self.commit()

    def _meet_replicas(self) -> None:
        now_us = self._simulation.now_us
        for broker in self.state.replicas:
            if broker != self._broker.node and broker not in self._followers:
                self._followers[broker] = _Follower(now_us)
        for broker in list(self._followers):
            if broker not in self.state.replicas:
                del self._followers[broker]

    def take(self, state: PartitionState) -> None:
        """The controller has decided something in this epoch."""
        self.state = state
        self._proposed = None
        self._meet_replicas()
        self.commit()

    def retire(self) -> None:
        """Somebody else leads, or nobody."""
        self._retired = True
        self.replica.when_safe(None)
        for waiting in (*self._committing, *self._syncing):
            self._broker.answer(waiting.request, NOT_LEADER_OR_FOLLOWER)
        self._committing.clear()
        self._syncing.clear()
        polls, self.polls = self.polls, {}
        for poll in polls.values():
            self._broker.wake(poll)

    # Producing --------------------------------------------------------------------------------

    def produce(self, request: ProduceRequest) -> None:
        """Take a batch; the answer goes when ``acks`` allows it."""
        acks = request.acks
        if acks == "all" and self._too_few():
            self._broker.answer(request, NOT_ENOUGH_REPLICAS)
            return
        replica = self.replica
        before = replica.end
        try:
            base, end = replica.append_as_leader(request.data)
        except OutOfOrderSequenceError:
            self._broker.answer(request, OUT_OF_ORDER_SEQUENCE_NUMBER)
            return
        except ProducerFencedError:
            self._broker.answer(request, PRODUCER_FENCED)
            return
        if acks == "all" and "acks-all-after-the-leader" not in self._bugs:
            self._wait(self._committing, request, base, end)
            self._complete()
        elif acks == 0:
            pass
        elif end <= replica.safe_end:
            self._broker.answer(request, None, base, self.epoch)
        else:
            self._wait(self._syncing, request, base, end)
        if end > before:
            self._wake(followers=True)
            self.commit()

    def append_own(self, data: bytes) -> bool:
        """Append a batch of the broker's own, as if with ``acks=all``; says whether it could."""
        if self._retired or self._too_few():
            return False
        self.replica.append_as_leader(data)
        self._wake(followers=True)
        self.commit()
        return True

    def _too_few(self) -> bool:
        if "min-isr-forgotten" in self._bugs:
            return False
        return len(self.state.isr) < self._broker.settings.min_insync_replicas

    def _wait(self, queue: deque[_Waiting], request: ProduceRequest, base: int, until: int) -> None:
        deadline_us = self._simulation.now_us + request.timeout_us
        queue.append(_new_waiting((request, base, until, deadline_us)))
        if not self._timed:
            self._timed = True
            self._broker.later(request.timeout_us, self._time_out)

    def _time_out(self) -> None:
        """Answer those who have waited for too long."""
        self._timed = False
        now_us = self._simulation.now_us
        first_us = -1
        for queue in (self._committing, self._syncing):
            while queue and queue[0].deadline_us <= now_us:
                self._broker.answer(queue.popleft().request, REQUEST_TIMED_OUT)
            if queue and (first_us < 0 or queue[0].deadline_us < first_us):
                first_us = queue[0].deadline_us
        if first_us >= 0:
            self._timed = True
            self._broker.later(first_us - now_us, self._time_out)

    def _complete(self) -> None:
        """Answer those whose batches are committed now."""
        committing, high_watermark = self._committing, self.replica.high_watermark
        if not committing or committing[0].until > high_watermark:
            return
        # Kafka asks once more: since the append, replicas may have left the set.
        error = NOT_ENOUGH_REPLICAS_AFTER_APPEND if self._too_few() else None
        while committing and committing[0].until <= high_watermark:
            waiting = committing.popleft()
            self._broker.answer(waiting.request, error, waiting.base_offset, self.epoch)

    def _on_safe(self, replica: Replica) -> None:
        syncing, safe_end = self._syncing, replica.safe_end
        while syncing and syncing[0].until <= safe_end:
            waiting = syncing.popleft()
            self._broker.answer(waiting.request, None, waiting.base_offset, self.epoch)
        self.commit()

    # Committing -------------------------------------------------------------------------------

    def commit(self) -> None:
        """Move the high watermark as far as it goes, and tell those who wait for it."""
        state, replica, me = self.state, self.replica, self._broker.node
        isr = state.isr
        if self._proposed is not None:
            isr = self._counted(isr)
        offset = replica.safe_end
        for broker in isr:
            if broker != me and (end := self._followers[broker].end) < offset:
                offset = end
        if "high-watermark-one-too-high" in self._bugs:
            offset = min(offset + 1, replica.end)
        if offset <= replica.high_watermark:
            return
        settings = self._broker.settings
        if settings.eligible_leader_replicas and self._too_few():
            return  # KIP-966: what is committed has to be in min_insync_replicas places
        replica.raise_high_watermark(offset, as_leader=True)
        self._complete()
        self._wake(followers=False)

    def _counted(self, isr: tuple[int, ...]) -> tuple[int, ...]:
        """The in-sync set that counts while a proposal is on its way: whoever may be in it."""
        proposed = self._proposed or ()
        if "isr-shrunk-unconfirmed" in self._bugs:
            return proposed
        return (*isr, *(broker for broker in proposed if broker not in isr))

    def _wake(self, *, followers: bool) -> None:
        """There is more: for followers, or for consumers."""
        polls = self.polls
        if not polls:
            return
        for node in [node for node in polls if isinstance(node, int) is followers]:
            self._broker.wake(polls.pop(node))

    # Following the followers ------------------------------------------------------------------

    def follower_fetches(self, broker: int, broker_epoch: int, offset: int) -> None:
        """A follower has everything below ``offset``."""
        follower = self._followers.get(broker)
        if follower is None:
            return  # not a replica any more
        now_us, end = self._simulation.now_us, self.replica.end
        if offset >= end:
            follower.caught_up_us = now_us
        elif offset >= follower.leader_end:
            follower.caught_up_us = follower.fetched_us
        follower.fetched_us, follower.leader_end = now_us, end
        follower.broker_epoch = broker_epoch
        moved, follower.end = offset != follower.end, offset
        if broker not in self.state.isr:
            caught_up = offset >= self.replica.high_watermark and offset >= self.epoch_start
            if caught_up or "isr-joined-early" in self._bugs:
                self._propose((*self.state.isr, broker))
        elif moved:
            self.commit()

    def check_lag(self) -> None:
        """Propose to take out of the in-sync set who has been behind for too long."""
        if self._retired:
            return
        longest_us = self._broker.settings.replica_lag_time_max_ms * 1000
        if "isr-shrunk-late" in self._bugs:
            longest_us *= 10
        latest_us = self._simulation.now_us - longest_us
        behind = [
            broker
            for broker in self.state.isr
            if broker != self._broker.node
            and self._followers[broker].end < self.replica.end
            and self._followers[broker].caught_up_us < latest_us
        ]
        if not behind:
            return
        if self._proposed is not None:
            self._broker.later(_ASK_AGAIN_US, self.check_lag)
            return
        self._propose(tuple(broker for broker in self.state.isr if broker not in behind))

    def _propose(self, isr: tuple[int, ...]) -> None:
        if self._proposed is not None:
            return
        # Who was refused asks with every fetch; nobody else has to stay in the set for that.
        grows = len(isr) > len(self.state.isr)
        if grows and self._simulation.now_us < self._quiet_until_us:
            return
        self._proposed = isr
        self._ask(self.state)
        if "isr-shrunk-unconfirmed" in self._bugs:
            self.commit()

    def _ask(self, state: PartitionState) -> None:
        """Ask the controller, and again until it has decided."""
        if self._retired or self._proposed is None or self.state is not state:
            return
        me = self._broker
        epochs = tuple(
            (b, me.broker_epoch if b == me.node else self._followers[b].broker_epoch)
            for b in self._proposed
        )
        me.ask_controller(
            AlterRequest(
                me.node,
                me.broker_epoch,
                self.replica.name,
                self.epoch,
                state.partition_epoch,
                epochs,
            )
        )
        me.later(_ASK_AGAIN_US, self._ask, state)

    def altered(self, response: AlterResponse) -> None:
        """The controller has answered. If it has taken the proposal, or knows better, its metadata
        says so; until then the proposal is counted."""
        if response.partition_epoch != self.state.partition_epoch or response.error is None:
            return
        if response.error in (INELIGIBLE_REPLICA, STALE_BROKER_EPOCH):
            self._proposed = None
            self._quiet_until_us = self._simulation.now_us + _ASK_AGAIN_US

    # Epochs -----------------------------------------------------------------------------------

    def end_of_epoch(self, request: EpochRequest) -> EpochResponse:
        """Where an epoch ends in this log."""
        entries = self.replica.log.leader_epochs()
        if not entries or entries[-1].epoch < self.epoch:
            # It begins with the next batch: the log need not know of it before.
            entries.append(EpochEntry(self.epoch, self.replica.end))
        epoch, end = end_of_epoch(entries, request.epoch, self.replica.end)
        return EpochResponse(request.partition, None, self.epoch, request.epoch, epoch, end)
