"""Publishing messages one by one.

Each message takes the same steps as a batch of one (``logstore.queues.publishing``). Of these the
append is less than half of the time; so what was found out for a message of the same exchange and
routing key, where it goes and how that stands in its record, is kept until a definition changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple, Protocol

from logstore.appending import Acks, check_acks
from logstore.errors import UnknownQueueError, UnknownTopicError
from logstore.queues.definitions import QueueDefinition
from logstore.queues.properties import (
    PLAIN,
    Envelope,
    Properties,
    Published,
    check_properties,
    record_headers,
)
from logstore.queues.publishing import (
    Confirm,
    Opener,
    Target,
    append_to,
    check_address,
    check_bodies,
    check_exchange,
    route_of,
)
from logstore.queues.topology import Topology
from logstore.segments.record import NO_TIMESTAMP, Header, Record

__all__ = ["SinglePublisher", "SingleTarget"]

_MAX_KEPT = 4096
"""For so many routing keys it is kept where they lead."""
_TRANSIENT = 1
_WRITTEN = 1

_new_record = partial(tuple.__new__, Record)
_new_envelope = partial(tuple.__new__, Envelope)


class SingleTarget(Target, Protocol):
    """A queue that messages are appended to one by one."""

    is_plain: bool
    """Whether nothing but the append is to be done for a message without an expiration."""

    def append_one(self, record: Record, *, acks: Acks) -> None: ...


class _Way(NamedTuple):
    """Where messages of an exchange and a routing key go."""

    confirm: Confirm
    """Of one that all queues hold."""
    queues: Sequence[tuple[QueueDefinition, SingleTarget]]
    key: bytes | None
    """Of its record."""
    headers: Sequence[Header]
    """Of the record of one without properties."""


class SinglePublisher:
    """Publishes for one store handle. Usable from many threads."""

    def __init__(self, open_queue: Opener[SingleTarget]) -> None:
        self._open_queue = open_queue
        self._kept: tuple[Topology | None, dict[tuple[str, str], _Way]] = None, {}
        """By exchange and routing key, for messages without headers: theirs may decide, too. With
        the definitions that it holds for; replaced as a whole."""

    def publish(
        self,
        body: bytes,
        exchange: str,
        routing_key: str,
        properties: Properties,
        topology: Topology,
        acks: Acks,
    ) -> Confirm:
        """Publish one message; see ``Exchange.publish``."""
        if acks is not _WRITTEN and acks != "all":
            check_acks(acks)
        way = None
        kept_for, ways = self._kept
        if properties is not PLAIN:
            check_properties(properties)
        if properties.headers is None:
            if kept_for is not topology:
                ways = {}
                self._kept = topology, ways
            try:
                way = ways.get((exchange, routing_key))
            except TypeError:
                way = None  # it is no text, which is told below
        if type(body) is not bytes:
            check_bodies((body,))
        if way is None:
            way = self._find(exchange, routing_key, properties, topology)
            if properties.headers is None:
                if len(ways) >= _MAX_KEPT:
                    ways.clear()
                ways[exchange, routing_key] = way
        if properties is PLAIN:
            headers = way.headers
        else:
            headers = record_headers(properties, exchange)
            if acks == "all" and properties.delivery_mode == _TRANSIENT:
                acks = 1
        record: Record = _new_record((-1, NO_TIMESTAMP, way.key, body, headers))
        confirm = way.confirm
        for definition, queue in way.queues:
            try:
                if queue.is_plain and properties.expiration is None:
                    queue.append_one(record, acks=acks)
                    continue
            except (UnknownQueueError, UnknownTopicError):
                outcome = None  # it was deleted a moment ago
            else:
                envelope = _new_envelope((body, properties, exchange, routing_key))
                outcome = append_to(queue, [envelope], acks)
            if outcome is None or outcome.rejected:
                confirm = _without(confirm, definition.name, outcome)
        return confirm

    def _find(
        self, exchange: str, routing_key: str, properties: Properties, topology: Topology
    ) -> _Way:
        check_exchange(exchange, topology)
        check_address(routing_key)
        route = route_of(exchange, routing_key, properties, topology)
        confirm = Confirm(route)
        queues = []
        for name in route:
            definition = topology.queues[name]
            try:
                queues.append((definition, self._open_queue(definition)))
            except (UnknownQueueError, UnknownTopicError):  # it was deleted a moment ago
                confirm = _without(confirm, name, None)
        return _Way(
            confirm,
            queues,
            routing_key.encode() if routing_key else None,
            record_headers(PLAIN, exchange),
        )


def _without(confirm: Confirm, queue: str, outcome: Published | None) -> Confirm:
    if outcome is None:
        return confirm._replace(queues=tuple(name for name in confirm.queues if name != queue))
    return confirm._replace(rejected=(*confirm.rejected, queue))
