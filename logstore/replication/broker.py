"""A broker's process: what arrives, what it keeps, and what it does again and again.

A process is started once and dies once; what runs after a crash is another one, on the same disk.
All that happens in a process comes through :meth:`Broker.enter`: messages, timers, the ends of
syncs. Nothing happens there any more once it is dead, and what arrives while it stands still waits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

from logstore.errors import LogstoreError, PoisonedError
from logstore.replication.controller import CONTROLLER, Controller
from logstore.replication.disk import Disk
from logstore.replication.fetching import LongPoll, refusal, serve
from logstore.replication.follower import ReplicaFetcher
from logstore.replication.history import Opened, ReplicaFailed, StorageFailed
from logstore.replication.kernel import SimulatedClock, Simulation
from logstore.replication.leader import Leader
from logstore.replication.leadership import NO_LEADER, PartitionState
from logstore.replication.messages import (
    NOT_LEADER_OR_FOLLOWER,
    REQUEST_BYTES,
    AlterRequest,
    AlterResponse,
    EpochRequest,
    EpochResponse,
    FetchRequest,
    HeartbeatResponse,
    LeaderHint,
    Metadata,
    MetadataAsker,
    ProduceRequest,
    ProduceResponse,
)
from logstore.replication.mirrored_queue import QUEUE_PREFIX, Attach, MirroredQueue, Settle
from logstore.replication.network import Network
from logstore.replication.replica import Replica
from logstore.replication.settings import ClusterSettings
from logstore.replication.storage import BrokerStorage

__all__ = ["Broker"]

_REGISTER_AGAIN_US: Final = 500_000
_CHECKPOINT_US: Final = 5_000_000
"""Kafka's replica.high.watermark.checkpoint.interval.ms."""
_HINT_BYTES: Final = 24
_REMEMBERED: Final = 1000
"""How many of a producer's requests are remembered, to know copies of them."""

_new_response = partial(tuple.__new__, ProduceResponse)
"""``ProduceResponse._make`` without its Python frame."""


class Broker:
    """One process of a broker. It does nothing before :meth:`start`."""

    def __init__(
        self,
        simulation: Simulation,
        network: Network,
        settings: ClusterSettings,
        node: int,
        *,
        disk: Disk,
        controller: Controller,
        peers: Mapping[int, Broker],
        failed: Callable[[Broker], None],
        bugs: frozenset[str] = frozenset(),
        lease_ms: int = 30_000,
    ) -> None:
        """``peers`` are the processes of all brokers, as they are now; ``failed`` is called when
        the disk has failed and the process can only be ended."""
        self.node = node
        self.simulation = simulation
        self.network = network
        self.settings = settings
        self.disk = disk
        self.bugs = bugs
        self.lease_ms = lease_ms
        """For how long a queue's message is a consumer's own."""
        self.clock = SimulatedClock(simulation)
        self.stopped = False
        """Whether it is dead, or stands still."""
        self.dead = False
        self.broker_epoch = -1
        """Given by the controller; -1: it has not been let in yet."""
        self.fenced = True
        """Whether the controller takes it for gone, as far as it knows."""
        self.replicas: dict[str, Replica] = {}
        self.leaders: dict[str, Leader] = {}
        """Of the partitions that it leads."""
        self.queues: dict[str, MirroredQueue] = {}
        """The mirrored queues that it keeps."""
        self.image: dict[str, PartitionState] = {}
        """What it knows of all partitions."""
        self._storage = BrokerStorage(disk, node, simulation.rng("directories"))
        self._controller = controller
        self._peers = peers
        self._failed = failed
        self.broken: list[str] = []
        """Partitions whose log could not be opened: it keeps them no more."""
        self._fetchers: dict[int, ReplicaFetcher] = {}
        """By the leader that they fetch from."""
        self._followed: dict[str, ReplicaFetcher] = {}
        """Which of them has a partition."""
        self._offset = 0
        """Metadata below it was taken in."""
        self._taken: dict[str, set[int]] = {}
        """The numbers of the produce requests that came last, by producer."""
        self._waiting: list[tuple[Callable[..., object], tuple[Any, ...]]] = []
        """What has arrived while the process stood still."""
        self._stopping: Callable[[], None] | None = None
        """What is called once it may stop."""

    # Life -------------------------------------------------------------------------------------

    def start(self) -> None:
        """Recover the logs that are on the disk, and ask to be let in."""
        clean = self._storage.begin()
        for name in self._storage.partitions():
            self._open(name)
        self._register(clean)
        self.later(_CHECKPOINT_US, self._checkpoint)
        self.later(self.settings.replica_lag_time_max_ms * 500, self._check_lags)

    def enter(self, function: Callable[..., object], *args: Any) -> None:
        """Let something happen in the process: now, or when it goes on, or not at all."""
        if self.stopped:
            if not self.dead:
                self._waiting.append((function, args))
            return
        try:
            function(*args)
        except (OSError, PoisonedError) as error:
            # As in Kafka: a broker whose log directory has failed stops.
            now_us = self.simulation.now_us
            self.simulation.history.emit(StorageFailed(now_us, self.node, str(error)))
            self._failed(self)

    def later(self, delay_us: int, function: Callable[..., object], *args: Any) -> None:
        """Let something happen in the process after a while."""
        self.simulation.after(delay_us, self.enter, function, *args)

    def pause(self) -> None:
        """Stand still."""
        self.stopped = True

    def resume(self) -> None:
        """Go on, with all that has arrived meanwhile."""
        if self.dead:
            return
        self.stopped = False
        waiting, self._waiting = self._waiting, []
        for function, args in waiting:
            self.enter(function, *args)

    def die(self) -> None:
        """Be gone, with nothing said to anybody."""
        self.stopped = self.dead = True
        self._waiting.clear()
        for replica in self.replicas.values():
            replica.log.abandon()

    @property
    def is_stopping(self) -> bool:
        """Whether it was asked to stop."""
        return self._stopping is not None

    def stop(self, done: Callable[[], None]) -> None:
        """Stop in good order: lead nothing any more, close the logs, and call ``done``."""
        self._stopping = done
        self._heartbeat()

    def close(self) -> None:
        """Close the logs in good order, and be gone."""
        self._save_high_watermarks()
        self.stopped = self.dead = True
        for replica in self.replicas.values():
            self.disk.forget(replica.log)
            replica.log.close()
        self._storage.end()

    # The controller ---------------------------------------------------------------------------

    def _register(self, clean: bool) -> None:
        if self.broker_epoch >= 0:
            return
        directory, broken = self._storage.directory_id, tuple(self.broken)
        self.network.send(
            self.node,
            CONTROLLER,
            REQUEST_BYTES,
            lambda: self._controller.on_register(self, directory, clean=clean, broken=broken),
        )
        self.later(_REGISTER_AGAIN_US, self._register, clean)

    def on_registered(self, broker_epoch: int) -> None:
        """The controller has let it in."""
        self.enter(self._registered, broker_epoch)

    def _registered(self, broker_epoch: int) -> None:
        if self.broker_epoch < 0:
            self.broker_epoch = broker_epoch
            self._keep_beating()

    def _keep_beating(self) -> None:
        self._heartbeat()
        self.later(self.settings.heartbeat_interval_ms * 1000, self._keep_beating)

    def _heartbeat(self) -> None:
        if self.broker_epoch < 0:
            return
        epoch, offset, stopping = self.broker_epoch, self._offset, self._stopping is not None
        self.network.send(
            self.node,
            CONTROLLER,
            REQUEST_BYTES,
            lambda: self._controller.on_heartbeat(self, epoch, offset, stopping=stopping),
        )

    def on_heartbeat(self, response: HeartbeatResponse) -> None:
        """The controller has heard from it."""
        self.enter(self._heard, response)

    def _heard(self, response: HeartbeatResponse) -> None:
        self.fenced = response.fenced
        if response.may_stop and self._stopping is not None:
            self.close()
            self._stopping()

    def ask_controller(self, request: AlterRequest) -> None:
        """Propose an in-sync set."""
        size = REQUEST_BYTES + 12 * len(request.isr)
        self.network.send(self.node, CONTROLLER, size, self._controller.on_alter, self, request)

    def on_altered(self, response: AlterResponse) -> None:
        """The controller has decided on a proposal."""
        self.enter(self._altered, response)

    def _altered(self, response: AlterResponse) -> None:
        leader = self.leaders.get(response.partition)
        if leader is not None and leader.epoch == response.leader_epoch:
            leader.altered(response)

    def on_metadata(self, metadata: Metadata) -> None:
        """Something has changed in the cluster."""
        self.enter(self._take, metadata)

    def _take(self, metadata: Metadata) -> None:
        # A state is whole: whatever was lost in between, the one with the highest epoch is true.
        for state in metadata.partitions:
            known = self.image.get(state.partition)
            news = known is None or known.partition_epoch < state.partition_epoch
            if news or "epochs-not-compared" in self.bugs:
                self.image[state.partition] = state
                self._follow_orders(state)
        if metadata.base <= self._offset < metadata.offset:
            self._offset = metadata.offset
        if self.fenced:
            self._heartbeat()  # it is let in as soon as it knows what the others know

    # Replicas ---------------------------------------------------------------------------------

    def _follow_orders(self, state: PartitionState) -> None:
        """Lead, follow or drop a partition."""
        name = state.partition
        if self.node not in state.replicas:
            self._drop(name)
            return
        if name not in self.replicas:
            self._open(name)
        replica = self.replicas.get(name)
        if replica is None:
            return  # broken
        replica.partition_epoch = state.partition_epoch
        if state.leader == self.node:
            self._lead(replica, state)
        elif state.leader_epoch > replica.leader_epoch or "epochs-not-compared" in self.bugs:
            self._follow(replica, state)

    def _open(self, name: str) -> None:
        if name in self.broken:
            return
        try:
            replica = self.replicas[name] = Replica(
                self, name, high_watermark=self._storage.high_watermark(name)
            )
            now_us, synced = self.simulation.now_us, replica.log.synced_offset
            self.simulation.history.emit(Opened(now_us, self.node, name, replica.end, synced))
            if name.startswith(QUEUE_PREFIX):
                self.queues[name] = MirroredQueue(self, replica, self.lease_ms)
        except LogstoreError as error:
            # It is taken out of every in-sync set; what is to become of it is for a person to say.
            self.broken.append(name)
            self.simulation.history.emit(
                ReplicaFailed(self.simulation.now_us, self.node, name, str(error))
            )

    def _lead(self, replica: Replica, state: PartitionState) -> None:
        leader = self.leaders.get(replica.name)
        if leader is not None and leader.epoch == state.leader_epoch:
            leader.take(state)
            return
        self._step_back(replica.name)
        led = self.leaders[replica.name] = Leader(self, replica, state)
        if replica.name in self.queues:
            self.queues[replica.name].lead(led)

    def _follow(self, replica: Replica, state: PartitionState) -> None:
        self._step_back(replica.name)
        replica.leader_epoch = state.leader_epoch
        if state.leader == NO_LEADER:
            return
        fetcher = self._fetchers.get(state.leader)
        if fetcher is None:
            fetcher = self._fetchers[state.leader] = ReplicaFetcher(self, state.leader)
        self._followed[replica.name] = fetcher
        fetcher.add(replica, state.leader_epoch)

    def _step_back(self, name: str) -> None:
        """Lead or follow it no longer as before."""
        if name in self.queues:
            self.queues[name].step_back()
        leader = self.leaders.pop(name, None)
        if leader is not None:
            leader.retire()
        fetcher = self._followed.pop(name, None)
        if fetcher is not None:
            fetcher.remove(name)

    def _drop(self, name: str) -> None:
        """The partition was moved away."""
        self._step_back(name)
        if name in self.broken:
            self.broken.remove(name)
        self.queues.pop(name, None)
        replica = self.replicas.pop(name, None)
        if replica is not None:
            self.disk.forget(replica.log)
            replica.log.abandon()
        self._storage.remove(name)

    def leader_of(self, name: str) -> Leader | None:
        """The partition's leader, if it is here."""
        return self.leaders.get(name)

    def peer(self, node: int) -> Broker:
        """Another broker's process, as it is now."""
        return self._peers[node]

    def _check_lags(self) -> None:
        for leader in list(self.leaders.values()):
            leader.check_lag()
        self.later(self.settings.replica_lag_time_max_ms * 500, self._check_lags)

    def _checkpoint(self) -> None:
        self._save_high_watermarks()
        self.later(_CHECKPOINT_US, self._checkpoint)

    def _save_high_watermarks(self) -> None:
        self._storage.save_high_watermarks(
            {name: replica.high_watermark for name, replica in self.replicas.items()}
        )

    # Clients and followers --------------------------------------------------------------------

    def on_produce(self, request: ProduceRequest) -> None:
        """A producer has sent a batch."""
        if self.dead:
            self._reset(request.sender.on_disconnected, request.sender.node, request.correlation)
            return
        self.enter(self._produce, request)

    def _produce(self, request: ProduceRequest) -> None:
        if self._is_copy(request):
            return
        leader = self.leaders.get(request.partition)
        if leader is None:
            self.answer(request, NOT_LEADER_OR_FOLLOWER)
        else:
            leader.produce(request)

    def _is_copy(self, request: ProduceRequest) -> bool:
        """Whether the network has brought a request before. Kafka's come by TCP, which drops the
        copies; one that was refused must not be taken when it comes again."""
        sender, correlation = request.sender.node, request.correlation
        taken = self._taken.get(sender)
        if taken is None:
            taken = self._taken[sender] = set()
        if correlation in taken:
            return True
        taken.add(correlation)
        if len(taken) > 2 * _REMEMBERED:
            newest = max(taken)
            taken.intersection_update(range(newest - _REMEMBERED, newest + 1))
        return False

    def answer(
        self,
        request: ProduceRequest,
        error: str | None,
        base_offset: int = -1,
        leader_epoch: int = -1,
    ) -> None:
        """Tell a producer what became of its batch, unless it does not want to know."""
        sender = request.sender
        if request.acks == 0:
            if error is not None:  # Kafka closes the connection, for want of an answer
                self._reset(sender.on_disconnected, sender.node, request.correlation)
            return
        response = _new_response((request.correlation, error, base_offset, leader_epoch))
        self.network.send(self.node, sender.node, REQUEST_BYTES, sender.on_produced, response)

    def on_fetch(self, request: FetchRequest) -> None:
        """A follower or a consumer fetches."""
        if self.dead:
            self._reset(request.sender.on_disconnected, request.sender.node, request.correlation)
            return
        self.enter(self._fetch, request)

    def _fetch(self, request: FetchRequest) -> None:
        serve(self, request, waited=False)

    def wake(self, poll: LongPoll) -> None:
        """Answer a fetch that has waited, unless that was done."""
        if poll.answered:
            return
        poll.answered = True
        node = poll.request.sender.node
        for leader in poll.leaders:
            if leader.polls.get(node) is poll:
                del leader.polls[node]
        serve(self, poll.request, waited=True)

    def on_queue_attach(self, request: Attach) -> None:
        """A consumer asks for a queue's messages."""
        queue = self.queues.get(request.queue)
        if queue is not None:
            self.enter(queue.attach, request)

    def on_queue_settle(self, request: Settle) -> None:
        """A consumer of a queue has done with messages."""
        queue = self.queues.get(request.queue)
        if queue is not None:
            self.enter(queue.settle, request)

    def on_epoch(self, request: EpochRequest) -> None:
        """A follower or a consumer asks where an epoch ends."""
        self.enter(self._epoch, request)

    def _epoch(self, request: EpochRequest) -> None:
        leader = self.leaders.get(request.partition)
        error = refusal(leader, request.leader_epoch)
        if leader is None or error is not None:
            response = EpochResponse(
                request.partition, error, request.leader_epoch, request.epoch, -1, -1
            )
        else:
            response = leader.end_of_epoch(request)
        sender = request.sender
        self.network.send(self.node, sender.node, REQUEST_BYTES, sender.on_epoch_end, response)

    def on_metadata_asked(self, asker: MetadataAsker, correlation: int) -> None:
        """A client asks who leads."""
        if self.dead:
            self._reset(asker.on_disconnected, asker.node, correlation)
            return
        self.enter(self._tell_leaders, asker, correlation)

    def _tell_leaders(self, asker: MetadataAsker, correlation: int) -> None:
        hints = tuple(
            LeaderHint(state.partition, state.leader, state.leader_epoch)
            for state in self.image.values()
        )
        size = REQUEST_BYTES + _HINT_BYTES * len(hints)
        self.network.send(self.node, asker.node, size, asker.on_leaders, correlation, hints)

    def _reset(self, function: Callable[[int], object], node: int | str, correlation: int) -> None:
        """Nobody listens: the machine says so for a process that is dead."""
        self.network.send(self.node, node, REQUEST_BYTES, function, correlation)
