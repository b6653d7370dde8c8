"""Publishing: messages are routed, and appended to each of their queues.

A publish is confirmed (it returns) once every queue that a message was routed to holds it at the
publisher's ``acks``, as for a log: 0 and 1 survive the end of the process, ``all`` a power cut.
Messages that are published together cost one append for each queue and level of priority. What a
restart of the machine takes away anyway is not synced: transient messages (delivery mode 1), and
what goes into queues that are not durable.

A publish that fails in the middle (a full disk, a kill) may leave a message in some of its queues:
it was not confirmed, and whoever publishes it again finds it there twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import repeat
from typing import Any, NamedTuple, Protocol, TypeVar

from logstore.appending import Acks, check_acks
from logstore.errors import (
    AccessRefusedError,
    InvalidInputError,
    NackedError,
    PublishError,
    UnknownQueueError,
    UnknownTopicError,
    UnroutableError,
)
from logstore.queues.catalogue import unknown_exchange
from logstore.queues.dead_letter import Reason, copied_to, dead_letter, goes_in_circles
from logstore.queues.definitions import QueueDefinition
from logstore.queues.properties import (
    PLAIN,
    Envelope,
    Properties,
    Published,
    check_properties,
    check_short,
    shown_headers,
)
from logstore.queues.routing import extra_routing_keys
from logstore.queues.topology import Topology

__all__ = [
    "Confirm",
    "Confirms",
    "OnReturn",
    "Outgoing",
    "Returned",
    "check_message",
    "error_of",
    "listed",
    "publish",
    "publish_alike",
    "publish_dead",
    "publish_into",
    "return_unroutable",
    "with_properties",
]

NO_ROUTE = UnroutableError.reply_code


class Outgoing(NamedTuple):
    """A message to be published in a batch, where it is not like the others."""

    body: bytes
    routing_key: str = ""
    properties: Properties = PLAIN


class Returned(NamedTuple):
    """A mandatory message that no queue got."""

    envelope: Envelope
    reply_code: int = NO_ROUTE
    reply_text: str = UnroutableError.reply_text


OnReturn = Callable[[Returned], object]


class Confirm(NamedTuple):
    """What became of a message."""

    queues: tuple[str, ...]
    """Those that it was routed to, by name; none: nobody has it."""
    rejected: tuple[str, ...] = ()
    """Those among them that are full, and refused it. All others hold it."""


class Confirms(Sequence[Confirm]):
    """What became of each of some messages, in their order."""

    def __init__(self, routes: list[tuple[str, ...]]) -> None:
        self._routes = routes
        self.rejected: dict[int, tuple[str, ...]] = {}
        """By a message's index: the queues that refused it."""
        self.returned: list[Returned] = []
        """The mandatory messages that no queue got."""

    @classmethod
    def of_one(cls, confirm: Confirm) -> Confirms:
        """Those of a message that was published alone."""
        confirms = cls([confirm.queues])
        if confirm.rejected:
            confirms.rejected[0] = confirm.rejected
        return confirms

    def __len__(self) -> int:
        return len(self._routes)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[at] for at in range(len(self))[index]]
        route = self._routes[index]
        return Confirm(route, self.rejected.get(range(len(self))[index], ()))

    def note(self, queue: str, indices: Sequence[int], outcome: Published | None) -> None:
        """What became of the messages of these indices in a queue; None: it is not there."""
        if outcome is None:
            for index in indices:
                self._routes[index] = tuple(name for name in self._routes[index] if name != queue)
            return
        for rejected in outcome.rejected:
            index = indices[rejected]
            self.rejected[index] = (*self.rejected.get(index, ()), queue)

    @property
    def unroutable(self) -> list[int]:
        """The indices of messages that no queue got."""
        return [index for index, route in enumerate(self._routes) if not route]

    def __repr__(self) -> str:
        return (
            f"Confirms({len(self)} messages, {len(self.unroutable)} unroutable, "
            f"{len(self.rejected)} rejected)"
        )


class Target(Protocol):
    """A queue that messages are appended to."""

    definition: QueueDefinition

    def publish(self, envelopes: Sequence[Envelope], *, acks: Acks) -> Published: ...


T_co = TypeVar("T_co", bound=Target, covariant=True)


class Opener(Protocol[T_co]):
    """Opens the queue of a definition."""

    def __call__(self, definition: QueueDefinition, /) -> T_co: ...


_new_envelope = partial(tuple.__new__, Envelope)


def with_properties(properties: Properties | None, given: Mapping[str, Any]) -> Properties:
    """The properties of a publish: those that were given by themselves replace those of a set.
    Raises InvalidInputError for one that there is not."""
    if not given:
        return PLAIN if properties is None else properties
    try:
        return Properties(**given) if properties is None else properties._replace(**given)
    except (TypeError, ValueError):
        strange = sorted(given.keys() - set(Properties._fields))
        known = ", ".join(Properties._fields)
        raise InvalidInputError(
            f"a message has no property {', '.join(strange)}: there are {known}"
        ) from None


def publish_alike(
    bodies: Sequence[bytes],
    exchange: str,
    routing_key: str,
    properties: Properties,
    *,
    topology: Topology,
    open_queue: Opener[Target],
    acks: Acks,
) -> Confirms:
    """Publish messages that have all but their bodies in common: they are routed once."""
    check_acks(acks)
    check_exchange(exchange, topology)
    _check(routing_key, properties)
    check_bodies(bodies)
    route = route_of(exchange, routing_key, properties, topology)
    confirms = Confirms([route] * len(bodies))
    if not bodies or not route:
        return confirms
    rows = zip(bodies, repeat(properties), repeat(exchange), repeat(routing_key), strict=False)
    envelopes: list[Envelope] = list(map(_new_envelope, rows))
    for name in route:
        outcome = _append(name, envelopes, topology, open_queue, acks)
        confirms.note(name, range(len(bodies)), outcome)
    return confirms


def publish(
    envelopes: Sequence[Envelope], *, topology: Topology, open_queue: Opener[Target], acks: Acks
) -> Confirms:
    """Publish any messages. They are checked, all of them, before the first is appended."""
    check_acks(acks)
    routes: list[tuple[str, ...]] = []
    by_queue: dict[str, tuple[list[Envelope], list[int]]] = {}
    check_bodies([envelope.body for envelope in envelopes])
    before: Envelope | None = None
    route: tuple[str, ...] = ()
    for index, envelope in enumerate(envelopes):
        _, properties, exchange, routing_key = envelope
        if (
            before is None
            or properties is not before.properties
            or routing_key is not before.routing_key
            or exchange is not before.exchange
        ):
            check_exchange(exchange, topology)
            _check(routing_key, properties)
            route = route_of(exchange, routing_key, properties, topology)
            before = envelope
        routes.append(route)
        for name in route:
            waiting, indices = by_queue.setdefault(name, ([], []))
            waiting.append(envelope)
            indices.append(index)
    confirms = Confirms(routes)
    for name in sorted(by_queue):
        waiting, indices = by_queue[name]
        confirms.note(name, indices, _append(name, waiting, topology, open_queue, acks))
    return confirms


def publish_dead(
    dead: Iterable[tuple[Envelope, Reason]],
    queue: QueueDefinition,
    *,
    topology: Topology,
    open_queue: Opener[Target],
    now_ms: int,
) -> int:
    """Publish messages that ``queue`` has given up to its dead letter exchange, and return when
    they are on stable storage. Returns how many were dropped: because there is no such exchange,
    no queue is bound so that it gets them, or they would go round in circles.

    As in RabbitMQ, the exchange may be internal, and a queue that is full and refuses does not get
    them.
    """
    exchange = queue.arguments.dead_letter_exchange
    there = exchange is not None and exchange in topology.exchanges
    by_queue: dict[str, list[Envelope]] = {}
    dropped = 0
    for envelope, reason in dead:
        names: Iterable[str] = ()
        if exchange is not None and there:
            envelope = dead_letter(
                envelope,
                queue=queue.name,
                reason=reason,
                now_ms=now_ms,
                exchange=exchange,
                routing_key=queue.arguments.dead_letter_routing_key,
            )
            headers = envelope.properties.headers or {}
            extra = copied_to(headers, "CC", "BCC")
            shown = shown_headers(headers)
            names = topology.router.route(exchange, envelope.routing_key, shown, extra)
            if reason != "rejected":
                names = [name for name in names if not goes_in_circles(envelope, name)]
        for name in names:
            by_queue.setdefault(name, []).append(envelope)
        dropped += not names
    for name in sorted(by_queue):
        _append(name, by_queue[name], topology, open_queue, "all")
    return dropped


def publish_into(
    name: str,
    envelopes: Sequence[Envelope],
    *,
    topology: Topology,
    open_queue: Opener[Target],
    acks: Acks,
) -> Published | None:
    """Append messages to one queue as they are, whatever exchange they name; says which the queue
    refused. None: it is not there."""
    if name not in topology.queues:
        return None
    return _append(name, envelopes, topology, open_queue, acks)


def _append(
    name: str,
    envelopes: Sequence[Envelope],
    topology: Topology,
    open_queue: Opener[Target],
    acks: Acks,
) -> Published | None:
    """Append messages to one queue, and say what became of them; None: it was deleted a moment ago,
    and has none of them."""
    try:
        queue = open_queue(topology.queues[name])
    except (UnknownQueueError, UnknownTopicError):
        return None
    return append_to(queue, envelopes, acks)


def append_to(queue: Target, envelopes: Sequence[Envelope], acks: Acks) -> Published | None:
    """The same for an opened queue."""
    if acks == "all" and (not queue.definition.durable or _all_transient(envelopes)):
        acks = 1
    try:
        return queue.publish(envelopes, acks=acks)
    except (UnknownQueueError, UnknownTopicError):
        return None


def _all_transient(envelopes: Sequence[Envelope]) -> bool:
    if envelopes[0].properties.delivery_mode != 1:
        return False
    return all(envelope.properties.delivery_mode == 1 for envelope in envelopes)


def check_exchange(exchange: str, topology: Topology) -> None:
    """Raise the error of an exchange that nobody may publish to."""
    definition = topology.exchanges.get(exchange)
    if definition is None:
        check_short("exchange", exchange)
        raise unknown_exchange(exchange)
    if definition.internal:
        raise AccessRefusedError(
            f"exchange {exchange!r} is internal: it takes messages from other exchanges alone"
        )


def check_message(body: object, routing_key: str, properties: Properties) -> None:
    """Raise InvalidInputError for a message that cannot be published."""
    check_bodies([body])
    _check(routing_key, properties)
    extra_routing_keys(properties.headers)


def _check(routing_key: str, properties: Properties) -> None:
    check_address(routing_key)
    check_properties(properties)


def check_address(routing_key: str) -> None:
    """Raise InvalidInputError for what is no routing key."""
    check_short("routing_key", routing_key)


def check_bodies(bodies: Sequence[object]) -> None:
    """Raise InvalidInputError for a body that is none."""
    if set(map(type, bodies)) <= {bytes}:
        return
    for index, body in enumerate(bodies):
        if not isinstance(body, (bytes, bytearray)):
            raise InvalidInputError(
                f"the body of message {index} is {type(body).__name__}, not bytes"
            )


def route_of(
    exchange: str, routing_key: str, properties: Properties, topology: Topology
) -> tuple[str, ...]:
    """The queues that a message goes to."""
    headers = properties.headers
    if headers is None:
        return topology.router.route(exchange, routing_key)
    extra = extra_routing_keys(headers)
    return topology.router.route(exchange, routing_key, shown_headers(headers), extra)


def return_unroutable(
    confirms: Confirms, envelope_of: Callable[[int], Envelope], on_return: OnReturn | None
) -> None:
    """Return the messages that no queue got, all of which were mandatory; to ``on_return`` where
    there is one."""
    confirms.returned = [Returned(envelope_of(index)) for index in confirms.unroutable]
    if on_return is not None:
        for returned in confirms.returned:
            on_return(returned)


def error_of(confirms: Confirms, *, returns_told: bool = False) -> PublishError | None:
    """NackedError where a queue refused a message, UnroutableError where a mandatory one was
    returned and nobody was told of it."""
    if confirms.rejected:
        index, queues = next(iter(confirms.rejected.items()))
        return NackedError(
            f"{len(confirms.rejected)} of {len(confirms)} messages were refused by a full queue; "
            f"the first is message {index}, by {', '.join(map(repr, queues))}",
            confirms,
        )
    if confirms.returned and not returns_told:
        envelope = confirms.returned[0].envelope
        counts = f"{len(confirms.returned)} of {len(confirms)} mandatory messages; the first "
        return UnroutableError(
            f"{NO_ROUTE} {UnroutableError.reply_text}: no queue gets "
            f"{counts if len(confirms) > 1 else 'the message that '}was published to exchange "
            f"{envelope.exchange!r} with routing key {envelope.routing_key!r}",
            confirms,
        )
    return None


def listed(
    messages: Iterable[bytes | Outgoing],
    exchange: str,
    routing_key: str,
    properties: Properties,
) -> tuple[list[bytes], list[Envelope] | None]:
    """The messages of a batch: bodies alone where they have all else in common, which is the fast
    way; or else no bodies, and envelopes."""
    if isinstance(messages, (str, bytes, bytearray, Outgoing)) or not isinstance(
        messages, Iterable
    ):
        raise InvalidInputError(
            f"a batch is a list of bodies or of Outgoing, not {type(messages).__name__}"
        )
    found = list(messages)
    kinds = set(map(type, found))
    if Outgoing not in kinds:
        bodies: list[Any] = found
        return bodies, None
    return [], [
        Envelope(message.body, message.properties, exchange, message.routing_key)
        if isinstance(message, Outgoing)
        else Envelope(message, properties, exchange, routing_key)
        for message in found
    ]
