"""The controller: who is there, who leads which partition, who is in sync.

``Controller`` is what brokers ask of it; ``SingleController`` answers from one process that never
fails, where Kafka's is a quorum (KRaft) whose log is the metadata. Decisions are made purely in
``leadership`` and ``placement``; here they are kept, numbered and told to everybody.

A broker registers when it starts (KIP-631), gets an epoch, and is fenced until it has caught up
with the metadata; from then on its heartbeats keep its session. A broker whose session has ended is
fenced: it leaves every in-sync set, and what it led gets another leader.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from logstore.replication import leadership, placement
from logstore.replication.history import (
    BrokerFenced,
    BrokerRegistered,
    Elected,
    IsrChanged,
    ReplicasChanged,
)
from logstore.replication.kernel import Simulation
from logstore.replication.leadership import NO_LEADER, Change, PartitionState, Rules
from logstore.replication.messages import (
    FENCED_LEADER_EPOCH,
    INELIGIBLE_REPLICA,
    INVALID_UPDATE_VERSION,
    NOT_LEADER_OR_FOLLOWER,
    REQUEST_BYTES,
    STALE_BROKER_EPOCH,
    AlterRequest,
    AlterResponse,
    HeartbeatResponse,
    Metadata,
)
from logstore.replication.network import Network
from logstore.replication.settings import ClusterSettings

__all__ = ["CONTROLLER", "Controlled", "Controller", "SingleController"]

CONTROLLER: Final = "controller"
"""Its name in the network."""

_STATE_BYTES: Final = 64


class Controlled(Protocol):
    """A broker's process, as the controller sees it."""

    @property
    def node(self) -> int:
        """Its number."""
        ...

    def on_registered(self, broker_epoch: int) -> None:
        """It was let in."""
        ...

    def on_heartbeat(self, response: HeartbeatResponse) -> None:
        """The controller has heard a sign of life."""
        ...

    def on_altered(self, response: AlterResponse) -> None:
        """The controller has decided on an in-sync set."""
        ...

    def on_metadata(self, metadata: Metadata) -> None:
        """Something has changed in the cluster."""
        ...


class Controller(Protocol):
    """What a broker can say to the controller. Every call arrives through the network, and what
    there is to answer goes back through it."""

    def on_register(
        self, broker: Controlled, directory: str, *, clean: bool, broken: tuple[str, ...]
    ) -> None:
        """A broker has started. ``directory`` names its disk, and is another one when the disk is
        empty; ``clean``: it had been shut down in order, and has lost nothing; ``broken`` are the
        partitions that it had and cannot keep any more."""
        ...

    def on_heartbeat(
        self, broker: Controlled, broker_epoch: int, offset: int, *, stopping: bool
    ) -> None:
        """A broker lives, and has taken in the metadata below ``offset``; ``stopping``: it would
        like to stop, and to lead nothing before it does."""
        ...

    def on_alter(self, broker: Controlled, request: AlterRequest) -> None:
        """A leader proposes an in-sync set."""
        ...


@dataclass(slots=True)
class _Session:
    """What is known of a broker."""

    process: Controlled
    epoch: int
    directory: str
    fenced: bool = True
    stopping: bool = False
    seen_us: int = 0
    """When it was last heard of."""
    offset: int = 0
    """Metadata below it was taken in by the broker."""
    sent: int = 0
    """Metadata below it was sent to it, and may have been lost."""
    broken: tuple[str, ...] = ()
    """Partitions that it cannot keep any more."""


class SingleController:
    """The controller of a cluster."""

    def __init__(
        self,
        simulation: Simulation,
        network: Network,
        settings: ClusterSettings,
        *,
        bugs: frozenset[str] = frozenset(),
    ) -> None:
        self.partitions: dict[str, PartitionState] = {}
        """What is so."""
        self._simulation = simulation
        self._history = simulation.history
        self._network = network
        self._settings = settings
        self._bugs = bugs
        self._rules = Rules(
            settings.min_insync_replicas,
            settings.unclean_election or "unclean-though-off" in bugs,
            settings.eligible_leader_replicas,
        )
        self._sessions: dict[int, _Session] = {}
        self._offset = 0
        """Counts what was decided."""
        self._changed_at: dict[str, int] = {}
        """Which number the last decision on each partition has; in the order of these numbers."""
        self._preferred_us = settings.preferred_leader_ms * 1000
        if self._preferred_us:
            simulation.after(self._preferred_us, self._prefer_again)

    # Topics -----------------------------------------------------------------------------------

    def create(self, assignment: Mapping[str, tuple[int, ...]]) -> None:
        """Make partitions with these replicas, the first of which leads. All are in sync, since all
        are empty; that those which are not there yet come soon is for the caller to see to."""
        for partition, replicas in assignment.items():
            state = PartitionState(partition, replicas, replicas, leader=replicas[0])
            self.partitions[partition] = state
            self._record(Change(state, elected=True, clean=True))
        self._tell()

    def move(self, target: Mapping[str, tuple[int, ...]]) -> None:
        """Move partitions to other replicas, in the background (KIP-455). The old replicas stay
        until the new ones are in sync; a second call changes where they are on their way to."""
        for partition, replicas in target.items():
            moved = leadership.move(self.partitions[partition], replicas)
            if moved is None:
                continue
            self._record(Change(moved, elected=False, clean=True))
            self._emit_replicas(moved)
            self._change(partition)
            self._finish_move(partition)
        self._tell()

    def rebalance(self, brokers: Sequence[int], racks: Mapping[int, str]) -> None:
        """Move partitions so that each of ``brokers`` keeps about as many as any other."""
        current = {name: state.replicas for name, state in self.partitions.items()}
        self.move(placement.rebalance(current, brokers, racks))

    def elect_preferred(self) -> None:
        """Give partitions back to their first replica, where that is in sync."""
        for partition in self.partitions:
            self._change(partition, prefer=True)
        self._tell()

    def _prefer_again(self) -> None:
        self.elect_preferred()
        self._simulation.after(self._preferred_us, self._prefer_again)

    # Brokers ----------------------------------------------------------------------------------

    def _usable(self, broker: int, partition: str) -> bool:
        """Whether a broker can lead a partition, and be in sync."""
        session = self._sessions.get(broker)
        return (
            session is not None
            and not session.fenced
            and not session.stopping
            and partition not in session.broken
        )

    def _usable_for(self, partition: str) -> Callable[[int], bool]:
        return lambda broker: self._usable(broker, partition)

    def on_register(
        self, broker: Controlled, directory: str, *, clean: bool, broken: tuple[str, ...]
    ) -> None:
        """A broker has started; see ``Controller``."""
        node = broker.node
        before = self._sessions.get(node)
        if before is not None and before.process is broker:
            self._answer_registered(before)  # the first answer was lost
            return
        if before is not None and not before.fenced:
            return  # Kafka: DUPLICATE_BROKER_REGISTRATION. The old session has to end first.
        self._offset += 1
        session = _Session(
            broker, self._offset, directory, broken=broken, seen_us=self._simulation.now_us
        )
        self._sessions[node] = session
        self._history.emit(BrokerRegistered(self._simulation.now_us, node, session.epoch))
        lost: Sequence[str] = broken
        if self._rules.eligible_leader_replicas and before is not None:
            # KIP-966: also who was not stopped in good order, unless syncs are waited for.
            cache = not clean and self._settings.flush == "page_cache"
            disk = directory != before.directory and "empty-disk-in-sync" not in self._bugs
            lost = list(self.partitions) if cache or disk else broken
        self._distrust(node, lost)
        self._answer_registered(session)
        self._tell()

    def _distrust(self, broker: int, partitions: Sequence[str]) -> None:
        """A broker that has lost what it had is neither in sync nor eligible."""
        for partition in partitions:
            state = self.partitions.get(partition)
            if state is not None and (broker in state.isr or broker in state.elr):
                isr = [other for other in state.isr if other != broker]
                self._change(partition, isr=isr, unsafe=(broker,))

    def _answer_registered(self, session: _Session) -> None:
        process = session.process
        self._send(process.node, 0, process.on_registered, session.epoch)

    def on_heartbeat(
        self, broker: Controlled, broker_epoch: int, offset: int, *, stopping: bool
    ) -> None:
        """A broker lives; see ``Controller``."""
        session = self._sessions.get(broker.node)
        if session is None or session.process is not broker or session.epoch != broker_epoch:
            response = HeartbeatResponse(STALE_BROKER_EPOCH, fenced=True, may_stop=False)
            self._send(broker.node, 0, broker.on_heartbeat, response)
            return
        now_us = self._simulation.now_us
        session.seen_us = now_us
        session.offset = max(session.offset, offset)
        session.sent = session.offset  # what was sent and not taken in is sent again
        if session.fenced and session.offset >= session.epoch and not stopping:
            session.fenced = False
            self._simulation.after(self._session_us, self._check_session, session)
            for partition, state in list(self.partitions.items()):
                if state.leader == NO_LEADER:
                    self._change(partition)
        if stopping and not session.stopping:
            session.stopping = True
            self._leave(broker.node)
        led = any(state.leader == broker.node for state in self.partitions.values())
        response = HeartbeatResponse(None, session.fenced, may_stop=session.stopping and not led)
        self._send(broker.node, 0, broker.on_heartbeat, response)
        self._tell()
        if response.may_stop:
            self._fence(session)

    @property
    def _session_us(self) -> int:
        return self._settings.session_timeout_ms * 1000

    def _check_session(self, session: _Session) -> None:
        """Fence a broker that was not heard of for its session's time."""
        if session.fenced or self._sessions.get(session.process.node) is not session:
            return
        end_us = session.seen_us + self._session_us
        if end_us > self._simulation.now_us:
            self._simulation.at(end_us, self._check_session, session)
            return
        self._fence(session)

    def _fence(self, session: _Session) -> None:
        node = session.process.node
        session.fenced = True
        self._history.emit(BrokerFenced(self._simulation.now_us, node, session.epoch))
        self._leave(node)
        self._tell()

    def _leave(self, broker: int) -> None:
        """A broker leaves every in-sync set, and leads nothing any more."""
        for partition, state in list(self.partitions.items()):
            if broker in state.isr or broker == state.leader:
                self._change(partition, isr=[other for other in state.isr if other != broker])

    # Partitions -------------------------------------------------------------------------------

    def on_alter(self, broker: Controlled, request: AlterRequest) -> None:
        """A leader proposes an in-sync set; see ``Controller``."""
        error = self._refusal(request)
        response = AlterResponse(
            request.partition, request.leader_epoch, request.partition_epoch, error
        )
        if error is None:
            self._change(request.partition, isr=[member for member, _ in request.isr])
            self._finish_move(request.partition)
        self._send(broker.node, 0, broker.on_altered, response)
        self._tell()

    def _refusal(self, request: AlterRequest) -> str | None:
        """Why a proposal is not taken, as Kafka's error; None if it is."""
        state = self.partitions.get(request.partition)
        session = self._sessions.get(request.broker)
        if session is None or session.epoch != request.broker_epoch:
            return STALE_BROKER_EPOCH
        if state is None or state.leader != request.broker:
            return NOT_LEADER_OR_FOLLOWER
        if state.leader_epoch != request.leader_epoch:
            return FENCED_LEADER_EPOCH
        if "stale-isr-accepted" not in self._bugs:
            if state.partition_epoch != request.partition_epoch:
                return INVALID_UPDATE_VERSION
            for member, epoch in request.isr:
                # KIP-903: who has restarted since it fetched may have lost what it had.
                if (
                    not self._usable(member, state.partition)
                    or self._sessions[member].epoch != epoch
                ):
                    return INELIGIBLE_REPLICA
        return None

    def _change(
        self,
        partition: str,
        *,
        isr: Sequence[int] | None = None,
        unsafe: Sequence[int] = (),
        prefer: bool = False,
    ) -> None:
        state = self.partitions[partition]
        change = leadership.changed(
            state,
            self._rules,
            self._usable_for(partition),
            isr=isr,
            unsafe=unsafe,
            prefer=prefer,
        )
        if change is not None:
            self._record(change)

    def _finish_move(self, partition: str) -> None:
        state = self.partitions[partition]
        change = leadership.finish_move(state, self._rules, self._usable_for(partition))
        if change is not None:
            self._record(change)
            self._emit_replicas(change.state)

    def _record(self, change: Change) -> None:
        """What was decided is so from now on."""
        state = change.state
        before = self.partitions[state.partition]
        if "eligible-replicas-forgotten" in self._bugs:
            state = state._replace(elr=())
        self.partitions[state.partition] = state
        self._offset += 1
        self._changed_at.pop(state.partition, None)
        self._changed_at[state.partition] = self._offset
        now_us = self._simulation.now_us
        if change.elected:
            self._history.emit(
                Elected(
                    now_us,
                    state.partition,
                    state.leader,
                    state.leader_epoch,
                    state.isr,
                    state.elr,
                    change.clean,
                )
            )
        elif state.isr != before.isr or state.elr != before.elr:
            self._history.emit(
                IsrChanged(
                    now_us,
                    state.partition,
                    state.leader,
                    state.leader_epoch,
                    state.partition_epoch,
                    state.isr,
                    state.elr,
                )
            )

    def _emit_replicas(self, state: PartitionState) -> None:
        self._history.emit(
            ReplicasChanged(
                self._simulation.now_us,
                state.partition,
                state.replicas,
                state.adding,
                state.removing,
            )
        )

    # Telling ----------------------------------------------------------------------------------

    def _tell(self) -> None:
        """Send every broker what it was not sent yet."""
        for session in self._sessions.values():
            if session.sent >= self._offset:
                continue
            states = tuple(
                self.partitions[partition]
                for partition, offset in self._changed_at.items()
                if offset > session.sent
            )
            metadata = Metadata(session.sent, self._offset, states)
            session.sent = self._offset
            process = session.process
            size = _STATE_BYTES * len(states)
            self._send(process.node, size, process.on_metadata, metadata)

    def _send(self, broker: int, size: int, deliver: Callable[..., object], *args: object) -> None:
        self._network.send(CONTROLLER, broker, REQUEST_BYTES + size, deliver, *args)
