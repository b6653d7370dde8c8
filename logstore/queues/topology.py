"""What is declared: exchanges, queues and bindings as they are at one moment.

Some of what ``__metadata`` holds is not there any more: what is not durable, and belongs to another
run of the machine, and the exclusive queues of sessions that have ended. It is looked over here,
and taken away by whoever opens the store for writing, or maintains it.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from logstore.definitions import QUEUE_PREFIX
from logstore.metadata import Change, View
from logstore.queues.definitions import (
    BINDING_PREFIX,
    EXCHANGE_PREFIX,
    BindingDefinition,
    Definition,
    ExchangeDefinition,
    QueueDefinition,
    binding_prefix,
    exchange_from,
    exchange_key,
    is_binding_to,
    queue_from,
    queue_key,
)
from logstore.queues.routing import Router

__all__ = ["PREDECLARED", "Declared", "Topology", "topology_from"]

PREDECLARED: Mapping[str, ExchangeDefinition] = {
    definition.name: definition
    for definition in (
        ExchangeDefinition("", "direct"),
        ExchangeDefinition("amq.direct", "direct"),
        ExchangeDefinition("amq.fanout", "fanout"),
        ExchangeDefinition("amq.headers", "headers"),
        ExchangeDefinition("amq.match", "headers"),
        ExchangeDefinition("amq.topic", "topic"),
    )
}
"""The exchanges that are always there (AMQP 0-9-1, section 3.1.3.1), the default one first."""

_PATH = "__metadata"


class Topology(NamedTuple):
    """All that is declared."""

    exchanges: Mapping[str, ExchangeDefinition]
    queues: Mapping[str, QueueDefinition]
    bindings: Sequence[BindingDefinition]
    queue_ids: frozenset[uuid.UUID]
    router: Router
    has_stale: bool
    """Whether there are definitions of another run of the machine."""


def topology_from(
    definitions: Iterable[Definition], *, boot_id: str, before: Topology | None
) -> Topology:
    """What these definitions say in the run ``boot_id`` of the machine; ``before`` is what was
    declared before they changed, of which the router uses what it can."""
    exchanges = dict(PREDECLARED)
    queues = {}
    bindings = []
    has_stale = False
    for definition in definitions:
        if definition.boot_id is not None and definition.boot_id != boot_id:
            has_stale = True
        elif isinstance(definition, BindingDefinition):
            bindings.append(definition)
        elif isinstance(definition, QueueDefinition):
            queues[definition.name] = definition
        else:
            exchanges[definition.name] = definition
    router = Router(
        exchanges.values(), queues, bindings, before=None if before is None else before.router
    )
    queue_ids = frozenset(queue.queue_id for queue in queues.values())
    return Topology(exchanges, queues, bindings, queue_ids, router, has_stale)


class Declared:
    """What is declared in the middle of a change, and what a change consists of."""

    def __init__(self, view: View, *, boot_id: str, is_alive: Callable[[str], bool]) -> None:
        """``is_alive`` says whether a session is."""
        self._view = view
        self._boot_id = boot_id
        self._is_alive = is_alive

    def exchange(self, name: str) -> ExchangeDefinition | None:
        """The exchange of that name, if it is there."""
        if name in PREDECLARED:
            return PREDECLARED[name]
        key = exchange_key(name)
        fields = self._view.get(key)
        exchange = fields and exchange_from(key, fields, _PATH)
        return exchange if exchange and exchange.boot_id in (None, self._boot_id) else None

    def queue(self, name: str) -> QueueDefinition | None:
        """The queue of that name, if it is there."""
        key = queue_key(name)
        fields = self._view.get(key)
        queue = fields and queue_from(key, fields, _PATH)
        return queue if queue and not self._is_gone(queue) else None

    def _is_gone(self, queue: QueueDefinition) -> bool:
        return queue.boot_id not in (None, self._boot_id) or (
            queue.exclusive is not None and not self._is_alive(queue.exclusive)
        )

    def has_binding(self, key: str) -> bool:
        """Whether a binding of this run of the machine has that key."""
        fields = self._view.get(key)
        return fields is not None and fields.get("boot_id") in (None, self._boot_id)

    def is_source(self, exchange: str) -> bool:
        """Whether anything is bound to the exchange."""
        return any(map(self.has_binding, self._view.keys(binding_prefix(exchange))))

    # Removing -----------------------------------------------------------------------------------

    def without_queue(self, name: str) -> list[Change]:
        """The queue goes, if it is there in any state, its bindings with it."""
        key = queue_key(name)
        if self._view.get(key) is None:
            return []
        return [(key, None), *self._without_bindings_to("queue", name)]

    def without_exchange(self, name: str) -> list[Change]:
        """The exchange goes, and its bindings in both directions."""
        key = exchange_key(name)
        if self._view.get(key) is None:
            return []
        bindings = self._view.keys(binding_prefix(name))
        # Its own auto-delete has nothing to say any more: it goes anyway.
        return [
            (key, None),
            *((binding, None) for binding in bindings),
            *self._without_bindings_to("exchange", name, gone={name}),
        ]

    def without_binding(self, key: str) -> list[Change]:
        """A binding goes, and what goes with its last binding."""
        return self._without_bindings([key], set()) if self._view.get(key) is not None else []

    def _without_bindings_to(
        self, kind: str, name: str, gone: set[str] | None = None
    ) -> list[Change]:
        keys = [key for key in self._view.keys(BINDING_PREFIX) if is_binding_to(key, kind, name)]
        return self._without_bindings(keys, gone or set())

    def _without_bindings(self, keys: Iterable[str], gone: set[str]) -> list[Change]:
        """Bindings go; an auto-delete exchange goes with the last binding that it is the source
        of, and with it those bindings that lead to it, and so on."""
        changes: dict[str, None] = {}
        waiting = list(keys)
        while waiting:
            sources: dict[str, None] = {}
            for key in waiting:
                fields = self._view.get(key)
                if fields is not None:
                    changes[key] = None
                    sources[str(fields.get("source"))] = None
            waiting = []
            for source in sources:
                exchange = self.exchange(source)
                if exchange is None or not exchange.auto_delete or source in gone:
                    continue
                left = self._view.keys(binding_prefix(source))
                if all(key in changes or not self.has_binding(key) for key in left):
                    gone.add(source)
                    changes[exchange_key(source)] = None
                    waiting += [
                        key
                        for key in self._view.keys(BINDING_PREFIX)
                        if is_binding_to(key, "exchange", source)
                    ]
        return [(key, None) for key in changes]

    def without_stale(self) -> list[Change]:
        """All that is not there any more goes."""
        changes: dict[str, None] = {}
        for stored, fields in self._view.items(QUEUE_PREFIX).items():
            queue = queue_from(stored, fields, _PATH)
            if self._is_gone(queue):
                changes |= dict.fromkeys(key for key, _ in self.without_queue(queue.name))
        for stored, fields in self._view.items(EXCHANGE_PREFIX).items():
            exchange = exchange_from(stored, fields, _PATH)
            if exchange.boot_id not in (None, self._boot_id):
                changes |= dict.fromkeys(key for key, _ in self.without_exchange(exchange.name))
        for key in self._view.keys(BINDING_PREFIX):
            if not self.has_binding(key):
                changes[key] = None
        return [(key, None) for key in changes]
