"""What producers and consumers have in common: they find out who leads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from logstore.replication.broker import Broker
from logstore.replication.kernel import Simulation
from logstore.replication.leadership import NO_LEADER
from logstore.replication.messages import REQUEST_BYTES, LeaderHint
from logstore.replication.network import Network

__all__ = ["LeaderFinder"]

_PATIENCE_US: Final = 1_000_000
"""After how long another broker is asked."""
_BACKOFF_US: Final = 100_000
"""Kafka's retry.backoff.ms: how long one waits before one asks again."""


class LeaderFinder:
    """Who leads which partition, as a client knows it."""

    def __init__(
        self,
        simulation: Simulation,
        network: Network,
        brokers: Mapping[int, Broker],
        node: str,
        *,
        max_age_us: int,
        changed: Callable[[], None],
    ) -> None:
        """``brokers`` are their processes, as they are now; ``changed`` is called when the client
        has learnt something new."""
        self.node = node
        self.leaders: dict[str, LeaderHint] = {}
        """By partition. What an older epoch says is never believed (KIP-320)."""
        self._simulation = simulation
        self._network = network
        self._brokers = brokers
        self._max_age_us = max_age_us
        self._changed = changed
        self._rng = simulation.rng(f"client/{node}")
        self._correlation = 0
        """Of the last question."""
        self._asking = False
        self._asked_us = -_BACKOFF_US
        """When the last question was asked."""
        self.refresh()
        simulation.after(max_age_us, self._grow_old)

    def leader(self, partition: str) -> LeaderHint | None:
        """Who leads, as far as is known; otherwise one asks, and is called when one knows more."""
        hint = self.leaders.get(partition)
        if hint is not None and hint.leader != NO_LEADER:
            return hint
        self.refresh()
        return None

    def refresh(self) -> None:
        """Ask who leads: now, or as soon as one may ask again."""
        if self._asking:
            return
        self._asking = True
        self._simulation.at(self._asked_us + _BACKOFF_US, self._ask)

    def _grow_old(self) -> None:
        self.refresh()
        self._simulation.after(self._max_age_us, self._grow_old)

    def _ask(self) -> None:
        self._correlation += 1
        self._asked_us = self._simulation.now_us
        target = self._rng.choice(list(self._brokers))
        on_asked = self._brokers[target].on_metadata_asked
        self._network.send(self.node, target, REQUEST_BYTES, on_asked, self, self._correlation)
        self._simulation.after(_PATIENCE_US, self.on_disconnected, self._correlation)

    def on_disconnected(self, correlation: int) -> None:
        """Nobody has answered."""
        if self._asking and correlation == self._correlation:
            self._asking = False
            self.refresh()

    def on_leaders(self, correlation: int, leaders: tuple[LeaderHint, ...]) -> None:
        """A broker has answered."""
        if not self._asking or correlation != self._correlation:
            return
        self._asking = False
        for hint in leaders:
            known = self.leaders.get(hint.partition)
            if known is None or known.leader_epoch <= hint.leader_epoch:
                self.leaders[hint.partition] = hint
        self._changed()
