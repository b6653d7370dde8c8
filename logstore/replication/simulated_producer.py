"""A producer of a simulation: Kafka's client, as far as what it sends and sends again is concerned.

Records come at equal distances and are gathered into batches, for one partition after the other.
A batch that was not acknowledged is sent again until it is, or until ``delivery_timeout_ms`` after
it was made. An idempotent producer numbers what it sends to each partition, and sends it in that
order; so the log knows a batch that it has already. What it does where a number is lost for good is
KIP-360's: it waits for what is under way, begins a new epoch, and numbers from 0.
"""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import Final

from logstore.replication.broker import Broker
from logstore.replication.client import LeaderFinder
from logstore.replication.history import Acknowledged, Refused, Sent
from logstore.replication.kernel import START_MS, Simulation
from logstore.replication.messages import (
    NETWORK_EXCEPTION,
    NOT_ENOUGH_REPLICAS,
    NOT_LEADER_OR_FOLLOWER,
    OUT_OF_ORDER_SEQUENCE_NUMBER,
    PRODUCER_FENCED,
    REQUEST_BYTES,
    ProduceRequest,
    ProduceResponse,
)
from logstore.replication.network import Network
from logstore.replication.settings import Acks, WorkloadSettings
from logstore.segments.batch import place, seal_parts
from logstore.segments.compression import Codec
from logstore.segments.record import Record

__all__ = ["SimulatedProducer"]

_CERTAIN: Final = (NOT_ENOUGH_REPLICAS, OUT_OF_ORDER_SEQUENCE_NUMBER, PRODUCER_FENCED)
"""Errors that say that a batch was not written by this request. (NOT_LEADER_OR_FOLLOWER does not: a
leader that steps down says so of batches that wait to be committed, too.)"""
_SEQUENCES: Final = 1 << 31
# ``_make`` of what is made for each batch, without its Python frame.
_new_record = partial(tuple.__new__, Record)
_new_sent = partial(tuple.__new__, Sent)
_new_request = partial(tuple.__new__, ProduceRequest)
_new_acknowledged = partial(tuple.__new__, Acknowledged)
_SWEEP_US: Final = 100_000
"""How often a producer looks for what has taken too long."""


class _Batch:
    """Records on their way to a partition."""

    __slots__ = (
        "data",
        "epoch",
        "expires_us",
        "first",
        "ids",
        "in_flight",
        "made_ms",
        "not_before_us",
        "sent_us",
        "sequence",
        "tried_us",
        "uncertain",
    )

    def __init__(self, first: int, ids: tuple[str, ...], made_ms: int, expires_us: int) -> None:
        self.first = first
        """Its number among all that the producer sends there: what names it."""
        self.ids = ids
        """What names its records. The records themselves are made when they are encoded: most
        batches of a busy producer wait, and what waits is gone through by the garbage collector."""
        self.made_ms = made_ms
        """The timestamp of its records."""
        self.expires_us = expires_us
        self.data = b""
        """Encoded when it is sent first, and anew when its sequence changes."""
        self.epoch = -1
        """The producer's, when it was numbered; -1: it was not."""
        self.sequence = -1
        self.sent_us = -1
        """When it was sent first; -1: never."""
        self.tried_us = -1
        """When it was sent last."""
        self.not_before_us = 0
        """It is not sent again before."""
        self.in_flight = 0
        """The number of the request that it is under way in; 0: none."""
        self.uncertain = False
        """Whether it may be in the log, since nobody has said what became of some request."""


class _Lane:
    """What goes to one partition."""

    __slots__ = (
        "acknowledged",
        "batches",
        "broken",
        "epoch",
        "in_flight",
        "name",
        "next_sequence",
        "sent",
    )

    def __init__(self, name: str) -> None:
        self.name = name
        self.batches: deque[_Batch] = deque()
        """What is not settled, in order."""
        self.in_flight = 0
        self.sent = 0
        """How many records were sent there, ever."""
        self.epoch = 0
        self.next_sequence = 0
        self.acknowledged = False
        """Whether the log knows the producer in this epoch; before, one batch goes at a time."""
        self.broken = False
        """Whether a number was lost, so that a new epoch has to begin."""


class SimulatedProducer:
    """One producer, which sends to all partitions in turn until it is stopped."""

    def __init__(
        self,
        simulation: Simulation,
        network: Network,
        brokers: dict[int, Broker],
        node: str,
        *,
        producer_id: int,
        partitions: list[str],
        acks: Acks,
        settings: WorkloadSettings,
    ) -> None:
        self.node = node
        self._simulation = simulation
        self._history = simulation.history
        self._network = network
        self._brokers = brokers
        self._acks = acks
        self._settings = settings
        # Kafka's idempotence goes with acks=all only.
        self._producer_id = producer_id if settings.idempotent and acks == "all" else -1
        self._lanes = [_Lane(name) for name in partitions]
        self._turn = 0
        """Whose batch comes next."""
        self._made = 0
        """How many records were made."""
        self._correlation = 0
        self._under_way: dict[int, tuple[_Lane, _Batch]] = {}
        """What was sent and not answered, by the request's number."""
        # A record's value: its id, a space, and what fills it up.
        self._identity = f"{node}-%08d"
        self._filling = b" ".ljust(settings.record_bytes - len(self._identity % 0), b"x")
        self._timeout_us = settings.request_timeout_ms * 1000
        self._expiry_us = settings.delivery_timeout_ms * 1000
        self._stopped = False
        # A batch is full, or its first record has waited long enough: it has so many records then.
        within_linger = settings.linger_ms * settings.records_per_second // 1000 + 1
        self._count = min(settings.batch_records, within_linger)
        self._distance_us = 1_000_000 * self._count // settings.records_per_second
        self._finder = LeaderFinder(
            simulation,
            network,
            brokers,
            node,
            max_age_us=settings.metadata_max_age_ms * 1000,
            changed=self._pump_all,
        )
        begins_us = simulation.rng(f"client/{node}").randrange(self._distance_us + 1)
        simulation.after(begins_us, self._make)
        simulation.after(_SWEEP_US, self._sweep)

    # Making records ---------------------------------------------------------------------------

    def stop(self) -> None:
        """Make no more records; what was made is still sent."""
        self._stopped = True

    @property
    def unsettled(self) -> int:
        """Batches that are neither acknowledged nor given up."""
        return sum(len(lane.batches) for lane in self._lanes)

    def _make(self) -> None:
        if self._stopped:
            return
        self._simulation.after(self._distance_us, self._make)
        lane = self._lanes[self._turn]
        self._turn = (self._turn + 1) % len(self._lanes)
        identity, first = self._identity, self._made
        self._made += self._count
        ids = tuple([identity % number for number in range(first, self._made)])
        now_us = self._simulation.now_us
        made_ms = START_MS + now_us // 1000
        lane.batches.append(_Batch(lane.sent, ids, made_ms, now_us + self._expiry_us))
        lane.sent += self._count
        self._pump(lane)

    def _encode(self, batch: _Batch) -> bytes:
        timestamp, filling = batch.made_ms, self._filling
        records = [
            _new_record((0, timestamp, None, identity.encode() + filling, ()))
            for identity in batch.ids
        ]
        crc, tail, *_ = seal_parts(
            records,
            Codec.NONE,
            None,
            timestamp,
            None,
            0,
            self._producer_id,
            batch.epoch,
            batch.sequence,
        )
        return place(crc, tail, 0, -1)

    # Sending ----------------------------------------------------------------------------------

    def _pump_all(self) -> None:
        for lane in self._lanes:
            self._pump(lane)

    def _pump(self, lane: _Lane) -> None:
        """Send what may be sent, in order."""
        batches = lane.batches
        if len(batches) == lane.in_flight:
            return
        idempotent = self._producer_id >= 0
        most = self._settings.max_in_flight
        if idempotent and not lane.acknowledged:
            most = 1
        if lane.in_flight >= most:
            return
        hint = self._finder.leader(lane.name)
        if hint is None:
            return
        now_us = self._simulation.now_us
        for batch in list(batches) if self._acks == 0 else batches:
            if batch.in_flight:
                continue
            if batch.not_before_us > now_us:
                break  # what comes behind it waits, too
            if idempotent and batch.epoch < 0:
                if lane.broken:
                    break
                self._number(lane, batch)
            self._send(lane, batch, hint.leader)
            if lane.in_flight >= most:
                break

    def _number(self, lane: _Lane, batch: _Batch) -> None:
        batch.epoch, batch.sequence = lane.epoch, lane.next_sequence
        lane.next_sequence = (lane.next_sequence + len(batch.ids)) % _SEQUENCES
        batch.data = b""

    def _send(self, lane: _Lane, batch: _Batch, leader: int) -> None:
        now_us = self._simulation.now_us
        if not batch.data:
            batch.data = self._encode(batch)
        self._correlation = correlation = self._correlation + 1
        if batch.sent_us < 0:
            batch.sent_us = now_us
            sent = _new_sent((now_us, self.node, lane.name, batch.first, batch.ids))
            self._history.emit(sent)
        data, timeout_us = batch.data, self._timeout_us
        request = _new_request((correlation, self, lane.name, self._acks, timeout_us, data))
        size = REQUEST_BYTES + len(data)
        on_produce = self._brokers[leader].on_produce
        self._network.send(self.node, leader, size, on_produce, request)
        if self._acks == 0:
            self._acknowledge(lane, batch, -1, -1)
            return
        batch.in_flight, batch.tried_us = correlation, now_us
        lane.in_flight += 1
        self._under_way[correlation] = lane, batch

    # Answers ----------------------------------------------------------------------------------

    def on_produced(self, response: ProduceResponse) -> None:
        """A leader has answered."""
        found = self._under_way.pop(response.correlation, None)
        if found is None:
            return
        lane, batch = found
        lane.in_flight -= 1
        batch.in_flight = 0
        if response.error is None:
            lane.acknowledged = True
            self._acknowledge(lane, batch, response.base_offset, response.leader_epoch)
            self._pump(lane)
        else:
            self._refused(lane, batch, response.error)

    def on_disconnected(self, correlation: int) -> None:
        """Nobody listened, or did not like what came."""
        self._finder.refresh()
        found = self._under_way.pop(correlation, None)
        if found is not None:
            lane, batch = found
            lane.in_flight -= 1
            batch.in_flight = 0
            self._refused(lane, batch, NETWORK_EXCEPTION)

    def _acknowledge(self, lane: _Lane, batch: _Batch, offset: int, leader_epoch: int) -> None:
        if lane.batches[0] is batch:
            lane.batches.popleft()
        else:
            lane.batches.remove(batch)
        self._history.emit(
            _new_acknowledged(
                (
                    self._simulation.now_us,
                    self.node,
                    lane.name,
                    batch.first,
                    batch.ids,
                    offset,
                    leader_epoch,
                    batch.sent_us,
                )
            )
        )

    def _refused(self, lane: _Lane, batch: _Batch, error: str) -> None:
        """Try again later, or give up."""
        if error not in _CERTAIN:
            batch.uncertain = True
        now_us = self._simulation.now_us
        fatal = error == PRODUCER_FENCED or (
            error == OUT_OF_ORDER_SEQUENCE_NUMBER and lane.batches[0] is batch
        )
        if fatal or batch.expires_us <= now_us:
            self._give_up(lane, batch, error)
        else:
            backoff_us = self._settings.retry_backoff_ms * 1000
            batch.not_before_us = now_us + backoff_us
            self._simulation.after(backoff_us, self._pump, lane)
        if error in (NOT_LEADER_OR_FOLLOWER, NETWORK_EXCEPTION):
            self._finder.refresh()
        self._mend(lane)

    def _give_up(self, lane: _Lane, batch: _Batch, error: str) -> None:
        lane.batches.remove(batch)
        if batch.epoch >= 0:
            lane.broken = True
        self._history.emit(
            Refused(
                self._simulation.now_us,
                self.node,
                lane.name,
                batch.first,
                batch.ids,
                error,
                not batch.uncertain,
            )
        )

    def _mend(self, lane: _Lane) -> None:
        """Begin a new epoch where a number was lost, once nothing is under way (KIP-360).

        What may be in the log under its old number cannot get another one: it is given up.
        """
        if not lane.broken or lane.in_flight:
            return
        for batch in [batch for batch in lane.batches if batch.epoch >= 0 and batch.uncertain]:
            self._give_up(lane, batch, OUT_OF_ORDER_SEQUENCE_NUMBER)
        for batch in lane.batches:
            batch.epoch = -1
        lane.broken = lane.acknowledged = False
        lane.epoch += 1
        lane.next_sequence = 0
        self._pump(lane)

    def _sweep(self) -> None:
        """Look for what has taken too long."""
        now_us = self._simulation.now_us
        self._simulation.after(_SWEEP_US, self._sweep)
        timeout_us = self._timeout_us + _SWEEP_US
        for correlation, (lane, batch) in list(self._under_way.items()):
            if batch.tried_us + timeout_us <= now_us:
                del self._under_way[correlation]
                lane.in_flight -= 1
                batch.in_flight = 0
                self._refused(lane, batch, NETWORK_EXCEPTION)
        for lane in self._lanes:
            expired = [b for b in lane.batches if not b.in_flight and b.expires_us <= now_us]
            for batch in expired:
                self._give_up(lane, batch, "delivery_timeout_ms has passed")
            if expired:
                self._mend(lane)
