"""Messages as records: AMQP's basic properties in the headers of the record.

A message is one record of its queue's log (source: AMQP 0-9-1, section 1.8.2, for the properties)::

    value                    the body
    key                      the routing key; null where it is empty
    timestamp                when it was published, which times to live count from
    header amqp.exchange     the exchange that it was published to; none for the default exchange
    header amqp.<property>   text in UTF-8, numbers as decimal digits
    header amqp.headers      the message's own headers: a field table, in AMQP's encoding

What was not set takes no byte, so a plain message costs what a plain record costs; and whoever
reads the log with a consumer of Kafka's finds the body as the value, under the routing key.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple

from logstore.errors import FormatError, InvalidInputError
from logstore.queues.field_table import decode_table, encode_table
from logstore.segments.record import Header, Record

__all__ = [
    "MAX_SHORT_BYTES",
    "PLAIN",
    "PREFIX",
    "Envelope",
    "Properties",
    "Published",
    "check_properties",
    "check_short",
    "from_record",
    "record_headers",
    "shown_headers",
    "to_record",
    "to_records",
]

PREFIX = "amqp."
"""What the names of all headers that are ours begin with."""

MAX_SHORT_BYTES = 255
"""Bytes of AMQP's short strings: routing keys, names, and properties that are text."""

MAX_MS = (1 << 32) - 1
"""The longest time to live, in milliseconds, as in RabbitMQ: 49 days."""
_MAX_TIME = (1 << 63) - 1


class Properties(NamedTuple):
    """What a publisher says of a message, beside its body. None: nothing was said."""

    content_type: str | None = None
    content_encoding: str | None = None
    headers: dict[str, Any] | None = None
    """The message's own headers; see ``logstore.queues.field_table`` for what they may hold."""
    delivery_mode: int | None = None
    """2 is persistent, and so is None. 1 is transient: a restart of the machine may lose it."""
    priority: int | None = None
    """0 to 255, of which a queue knows those up to its ``max_priority``; None counts as 0."""
    correlation_id: str | None = None
    reply_to: str | None = None
    expiration: int | None = None
    """The time to live in milliseconds."""
    message_id: str | None = None
    timestamp: int | None = None
    """The publisher's own time, in seconds since 1970, as in AMQP. Nothing goes by it."""
    type: str | None = None
    user_id: str | None = None
    app_id: str | None = None
    delay_ms: int | None = None
    """How long after it was published it is delivered, at the earliest."""
    deliver_at_ms: int | None = None
    """When it is delivered at the earliest, in milliseconds since 1970."""


PLAIN = Properties()
"""Those of a message of which nothing is said."""


class Envelope(NamedTuple):
    """A message on its way, with where it was published."""

    body: bytes
    properties: Properties = PLAIN
    exchange: str = ""
    """The exchange's name; empty for the default exchange."""
    routing_key: str = ""


class Published(NamedTuple):
    """What became of messages that were given to a queue."""

    rejected: Sequence[int] = ()
    """The indices of those that the queue refused, since it is full; all others are in it."""


_SHORT = "content_type content_encoding correlation_id reply_to message_id type user_id app_id"
_BOUNDS = {
    "delivery_mode": (1, 2),
    "priority": (0, 255),
    "expiration": (0, MAX_MS),
    "timestamp": (0, _MAX_TIME),
    "delay_ms": (0, _MAX_TIME),
    "deliver_at_ms": (0, _MAX_TIME),
}
"""Those that are numbers, and what they may be."""


# Checking -----------------------------------------------------------------------------------


def check_short(what: str, text: object) -> None:
    """Raise InvalidInputError unless ``text`` is a short string of AMQP: a str of at most 255 bytes
    in UTF-8."""
    try:
        if (
            isinstance(text, str)
            and len(text) <= MAX_SHORT_BYTES
            and (text.isascii() or len(text.encode()) <= MAX_SHORT_BYTES)
        ):
            return
    except UnicodeEncodeError:
        raise InvalidInputError(f"{what}={text!r} is no text that UTF-8 can hold") from None
    if isinstance(text, str):
        raise InvalidInputError(
            f"{what}={text[:40]!r}... has {len(text.encode())} bytes: at most {MAX_SHORT_BYTES}"
        )
    raise InvalidInputError(f"{what}={text!r:.80} is {type(text).__name__}, not str")


def check_properties(properties: Properties) -> None:
    """Raise InvalidInputError, which names the property and its bounds, unless all can be
    stored."""
    if properties is PLAIN:
        return
    if not isinstance(properties, Properties):
        raise InvalidInputError(f"properties are Properties, not {type(properties).__name__}")
    for name, value in zip(Properties._fields, properties, strict=True):
        if value is None:
            continue
        bounds = _BOUNDS.get(name)
        if bounds is not None:
            if not isinstance(value, int) or isinstance(value, bool):
                raise InvalidInputError(f"{name}={value!r:.80} is no whole number")
            if not bounds[0] <= value <= bounds[1]:
                raise InvalidInputError(
                    f"{name}={value} is out of bounds: {bounds[0]} to {bounds[1]}"
                )
        elif name != "headers":
            check_short(name, value)
        elif isinstance(value, dict):
            encode_table(value)
        else:
            raise InvalidInputError(f"headers are a dict, not {type(value).__name__}")
    if properties.delay_ms is not None and properties.deliver_at_ms is not None:
        raise InvalidInputError("delay_ms and deliver_at_ms exclude each other: give one of them")


def shown_headers(headers: dict[str, Any]) -> dict[str, Any]:
    """The headers without ``BCC``: its keys are for routing alone."""
    if "BCC" not in headers:
        return headers
    return {name: value for name, value in headers.items() if name != "BCC"}


# To records ---------------------------------------------------------------------------------

_new_record = partial(tuple.__new__, Record)
"""``Record._make`` without its Python frame."""
_new_envelope = partial(tuple.__new__, Envelope)

_EXCHANGE = PREFIX + "exchange"
_NAMES = [PREFIX + name for name in Properties._fields]
_HEADERS = Properties._fields.index("headers")


def to_record(envelope: Envelope, *, timestamp_ms: int) -> Record:
    """The record of a message that was checked (:func:`check_properties`), published at
    ``timestamp_ms``."""
    body, properties, exchange, routing_key = envelope
    key = routing_key.encode() if routing_key else None
    record: Record = _new_record(
        (-1, timestamp_ms, key, body, record_headers(properties, exchange))
    )
    return record


def to_records(envelopes: Iterable[Envelope], *, timestamp_ms: int) -> list[Record]:
    """The records of messages. Those with the very same properties, exchange and routing key as
    the one before share all but the body, which is what makes batches of them fast."""
    records = []
    properties_of = exchange_of = routing_key_of = None
    headers: tuple[Header, ...] = ()
    key: bytes | None = None
    for body, properties, exchange, routing_key in envelopes:
        if properties is not properties_of or exchange is not exchange_of:
            properties_of, exchange_of = properties, exchange
            headers = record_headers(properties, exchange)
        if routing_key is not routing_key_of:
            routing_key_of = routing_key
            key = routing_key.encode() if routing_key else None
        records.append(_new_record((-1, timestamp_ms, key, body, headers)))
    return records


def record_headers(properties: Properties, exchange: str) -> tuple[Header, ...]:
    """The headers of the record of a message with these properties, which were checked."""
    # A table can be changed by its owner, so nothing that was made of one is kept.
    if properties.headers is None:
        return _kept_headers(properties, exchange)
    return _make_headers(properties, exchange)


def _make_headers(properties: Properties, exchange: str) -> tuple[Header, ...]:
    made: list[Header] = [(_EXCHANGE, exchange.encode())] if exchange else []
    for index, value in enumerate(properties):
        if value is not None:
            if isinstance(value, dict):
                data = encode_table(value)
            else:
                data = value.encode() if isinstance(value, str) else b"%d" % value
            made.append((_NAMES[index], data))
    return tuple(made)


_kept_headers = lru_cache(maxsize=512)(_make_headers)


# From records -------------------------------------------------------------------------------


def from_record(record: Record) -> Envelope:
    """The message that a record holds; ``headers`` that are not ours say nothing.

    Raises FormatError for a property that cannot be read: a stranger wrote it.
    """
    headers = record.headers
    properties, exchange = PLAIN, ""
    if headers:
        headers = tuple(headers)
        if any(name == _NAMES[_HEADERS] for name, _ in headers):
            properties, exchange = _read_headers(headers)  # each message has tables of its own
        else:
            properties, exchange = _kept_properties(headers)
    key = record.key
    envelope: Envelope = _new_envelope(
        (record.value or b"", properties, exchange, _decoded(key) if key else "")
    )
    return envelope


def _decoded(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _read_headers(headers: tuple[Header, ...]) -> tuple[Properties, str]:
    found: dict[str, Any] = {}
    exchange = ""
    for name, data in headers:
        if data is None or not name.startswith(PREFIX):
            continue
        if name == _EXCHANGE:
            exchange = _decoded(data)
            continue
        read = _READ.get(name)
        if read is None:
            continue
        try:
            found[name[len(PREFIX) :]] = read(data)
        except (ValueError, FormatError) as error:
            raise FormatError(f"the header {name} of a message is broken", found=data) from error
    return Properties(**found), exchange


_kept_properties = lru_cache(maxsize=512)(_read_headers)

_READ: dict[str, Callable[[bytes], Any]] = {
    **dict.fromkeys((PREFIX + name for name in _SHORT.split()), _decoded),
    **dict.fromkeys((PREFIX + name for name in _BOUNDS), int),
    _NAMES[_HEADERS]: decode_table,
}
