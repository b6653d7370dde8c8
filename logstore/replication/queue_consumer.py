"""A consumer of a mirrored queue: it attaches to the queue's leader, works, and acknowledges.

What it holds ends with the leader's epoch, or when its time is up. An acknowledgement that is not
answered is sent again for as long as that leader leads.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from logstore.replication.broker import Broker
from logstore.replication.client import LeaderFinder
from logstore.replication.history import QueueDelivered, QueueReleased, QueueSettled
from logstore.replication.kernel import Simulation
from logstore.replication.messages import REQUEST_BYTES, LeaderHint
from logstore.replication.mirrored_queue import Attach, Settle
from logstore.replication.network import Network
from logstore.replication.queue_machine import Delivery, Settlement, offsets_of
from logstore.replication.settings import QueueSettings

__all__ = ["QueueConsumer"]

_AGAIN_US: Final = 1_000_000


class QueueConsumer:
    """One consumer of one queue."""

    def __init__(
        self,
        simulation: Simulation,
        network: Network,
        brokers: Mapping[int, Broker],
        node: str,
        *,
        queue: str,
        settings: QueueSettings,
    ) -> None:
        self.node = node
        self.queue = queue
        self._simulation = simulation
        self._history = simulation.history
        self._network = network
        self._brokers = brokers
        self._settings = settings
        self._rng = simulation.rng(f"client/{node}")
        self._hint: LeaderHint | None = None
        self._heard_us = 0
        """When the leader was last heard of."""
        self._held: dict[tuple[int, int], Delivery] = {}
        """Leases, by first offset and number."""
        self._had: set[tuple[int, int]] = set()
        """All leases that this leader has given it, to know copies of them that come late."""
        self._stopped = False
        self._finder = LeaderFinder(
            simulation, network, brokers, node, max_age_us=5_000_000, changed=self._look_around
        )
        simulation.after(_AGAIN_US, self._attach_again)

    def stop(self) -> None:
        """Work no more, and give back what it holds."""
        self._stopped = True
        self._held.clear()
        self._attach()

    def _look_around(self) -> None:
        """Take in who leads now; what another one has leased is over."""
        hint = self._finder.leader(self.queue)
        if hint is not None and hint != self._hint:
            self._hint = hint
            self._held.clear()
            self._had.clear()
            self._attach()

    def _attach(self) -> None:
        hint = self._hint
        if hint is not None:
            prefetch = 0 if self._stopped else self._settings.prefetch
            request = Attach(self, self.queue, hint.leader_epoch, prefetch)
            on_attach = self._brokers[hint.leader].on_queue_attach
            self._network.send(self.node, hint.leader, REQUEST_BYTES, on_attach, request)

    def _attach_again(self) -> None:
        if self._stopped or self._simulation.now_us - self._heard_us >= _AGAIN_US:
            self._finder.refresh()
            self._attach()
        self._simulation.after(_AGAIN_US, self._attach_again)

    # Messages ---------------------------------------------------------------------------------

    def on_delivery(self, epoch: int, delivery: Delivery) -> None:
        """Messages were leased to this consumer."""
        hint, lease = self._hint, delivery.lease
        now_us, until_us = self._simulation.now_us, lease.deadline * 1000
        if self._stopped or hint is None or hint.leader_epoch != epoch or until_us <= now_us:
            return
        self._heard_us = now_us
        key = lease.first, lease.number
        if key in self._had:
            return  # a copy
        self._had.add(key)
        self._held[key] = delivery
        for offset, name, place in delivery.messages:
            self._history.emit(
                QueueDelivered(now_us, self.node, self.queue, epoch, offset, name, until_us, place)
            )
        self._simulation.after(self._settings.work_ms * 1000, self._finish, key, hint)

    def _finish(self, key: tuple[int, int], hint: LeaderHint) -> None:
        """The work is done: acknowledge the messages, or give them back."""
        delivery = self._held.get(key)
        if delivery is None or self._hint is not hint:
            return
        if delivery.lease.deadline * 1000 <= self._simulation.now_us:
            del self._held[key]
            return
        done = self._rng.randrange(100) >= self._settings.reject_percent
        for offset, name, _ in delivery.messages:
            self._history.emit(
                QueueReleased(
                    self._simulation.now_us, self.node, self.queue, hint.leader_epoch, offset, name
                )
            )
        if not done:
            del self._held[key]
        self._settle(key, hint, done, delivery)

    def _settle(
        self, key: tuple[int, int], hint: LeaderHint, done: bool, delivery: Delivery
    ) -> None:
        if self._hint is not hint or (done and key not in self._held):
            return
        lease = delivery.lease
        request = Settle(self, self.queue, hint.leader_epoch, *key, lease.all_bits, done)
        on_settle = self._brokers[hint.leader].on_queue_settle
        self._network.send(self.node, hint.leader, REQUEST_BYTES, on_settle, request)
        if done:
            self._simulation.after(_AGAIN_US, self._settle, key, hint, done, delivery)

    def on_settled(self, epoch: int, settlement: Settlement) -> None:
        """An acknowledgement is committed, or came too late."""
        hint, now_us = self._hint, self._simulation.now_us
        if hint is None or hint.leader_epoch != epoch:
            return
        self._heard_us = now_us
        delivery = self._held.pop((settlement.first, settlement.number), None)
        if delivery is None or not settlement.accepted:
            return
        names = {offset: name for offset, name, _ in delivery.messages}
        place = settlement.log_offset
        for offset in offsets_of(delivery.lease, settlement.bits):
            self._history.emit(
                QueueSettled(now_us, self.node, self.queue, epoch, offset, names[offset], place)
            )
