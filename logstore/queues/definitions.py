"""What exchanges, queues and bindings are, and how ``__metadata`` has them.

The keys of their definitions (``logstore.metadata``)::

    exchange/<digest>                        of its name
    queue/<digest>                           of its name; in it is its id, which no other one gets
    binding/<source>/<destination>/<digest>  of two names, and of routing key and arguments

A digest finds a definition by its name at once, and a queue's files and ledger go by its id, so
what belonged to a deleted queue is never taken for a younger one's. (A digest of a name is as long
as an id: nobody meets two names that share one.)

Names and arguments are RabbitMQ's own: ``x-message-ttl`` may be spelled ``message_ttl``.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from logstore.definitions import QUEUE_PREFIX, broken
from logstore.errors import InvalidInputError
from logstore.queues.field_table import encode_table, from_json, to_json
from logstore.queues.properties import MAX_MS, check_short

__all__ = [
    "BINDING_PREFIX",
    "EXCHANGE_PREFIX",
    "EXCHANGE_TYPES",
    "PREFIXES",
    "BindingDefinition",
    "Definition",
    "ExchangeDefinition",
    "QueueArguments",
    "QueueDefinition",
    "binding_fields",
    "binding_from",
    "binding_key",
    "binding_prefix",
    "definition_from",
    "exchange_fields",
    "exchange_from",
    "exchange_key",
    "is_binding_to",
    "name_digest",
    "queue_fields",
    "queue_from",
    "queue_key",
]

EXCHANGE_PREFIX = "exchange/"
BINDING_PREFIX = "binding/"

EXCHANGE_TYPES = ("direct", "topic", "fanout", "headers")
OVERFLOWS = ("drop-head", "reject-publish", "reject-publish-dlx")
MAX_PRIORITY = 255
_MAX_COUNT = (1 << 63) - 1


# Arguments of queues ------------------------------------------------------------------------


class QueueArguments(NamedTuple):
    """What a queue was declared with; None where nothing was said.

    The names are RabbitMQ's (https://www.rabbitmq.com/docs/queues#optional-arguments); those of
    retention Kafka's.
    """

    message_ttl_ms: int | None = None
    """How long a message may wait in the queue."""
    expires_ms: int | None = None
    """How long the queue lives without being used: consumed from, got from or declared again."""
    max_length: int | None = None
    """How many messages may be ready in it."""
    max_length_bytes: int | None = None
    """How many bytes the bodies of those may have together."""
    overflow: str | None = None
    """What becomes of the messages beyond: ``drop-head`` (as None), ``reject-publish``,
    ``reject-publish-dlx``."""
    dead_letter_exchange: str | None = None
    """Where rejected, expired and dropped messages are published; empty: the default exchange."""
    dead_letter_routing_key: str | None = None
    """By which routing key; None: by the message's own."""
    delivery_limit: int | None = None
    """How often a message may be delivered again before it is a dead letter."""
    max_priority: int | None = None
    """The highest priority that is told apart; None or 0: none is."""
    consumer_timeout_ms: int | None = None
    """How long a consumer may hold a message without acknowledging it."""
    retention_ms: int | None = None
    """How long after its publishing a message is kept that is settled; -1: for ever; None: as long
    as ``retention_bytes`` says, and not at all where that is None, too."""
    retention_bytes: int | None = None
    """How many bytes of what is settled are kept, at each level of priority; -1: all."""

    @classmethod
    def of(cls, arguments: Mapping[str, Any]) -> QueueArguments:
        """The arguments of a declaration, by their names here or RabbitMQ's (``x-message-ttl``).

        Numbers may be text, as the command line has them. Raises InvalidInputError, which names the
        argument and its bounds.
        """
        found: dict[str, Any] = {}
        for spelled, value in arguments.items():
            name = _spelled(spelled)
            check = _CHECKS.get(name)
            if check is None:
                known = ", ".join(sorted(_CHECKS))
                raise InvalidInputError(f"a queue has no argument {spelled!r}: there are {known}")
            if name in found:
                raise InvalidInputError(f"the argument {name} was given twice: as {spelled}, too")
            if value is not None:
                found[name] = check(name, value)
        made = cls(**found)
        if made.dead_letter_routing_key is not None and made.dead_letter_exchange is None:
            raise InvalidInputError(
                f"dead_letter_routing_key={made.dead_letter_routing_key!r} without a "
                "dead_letter_exchange: give both"
            )
        return made

    def given(self) -> dict[str, Any]:
        """Those that were given."""
        return {name: value for name, value in self._asdict().items() if value is not None}


def _spelled(name: str) -> str:
    """An argument's name in our spelling, whatever it is."""
    plain = str(name).removeprefix("x-").replace("-", "_")
    return _IN_MS.get(plain, plain)


_IN_MS = {name: f"{name}_ms" for name in ("message_ttl", "expires", "consumer_timeout")}


def _number(lowest: int, highest: int) -> Callable[[str, Any], int]:
    def check(name: str, value: Any) -> int:
        number = value
        if isinstance(value, str) and value.isascii() and value.removeprefix("-").isdigit():
            number = int(value)
        if not isinstance(number, int) or isinstance(number, bool):
            raise InvalidInputError(f"{name} takes a whole number, not {value!r:.80}")
        if not lowest <= number <= highest:
            raise InvalidInputError(f"{name}={number} is out of bounds: {lowest} to {highest}")
        return number

    return check


def _short(name: str, value: Any) -> str:
    check_short(name, value)
    return str(value)


def _overflow(name: str, value: Any) -> str:
    if value not in OVERFLOWS:
        raise InvalidInputError(f"{name} is one of {', '.join(OVERFLOWS)}; not {value!r:.80}")
    return str(value)


_CHECKS: dict[str, Callable[[str, Any], Any]] = {
    "message_ttl_ms": _number(0, MAX_MS),
    "expires_ms": _number(1, MAX_MS),
    "max_length": _number(0, _MAX_COUNT),
    "max_length_bytes": _number(0, _MAX_COUNT),
    "overflow": _overflow,
    "dead_letter_exchange": _short,
    "dead_letter_routing_key": _short,
    "delivery_limit": _number(0, _MAX_COUNT),
    "max_priority": _number(0, MAX_PRIORITY),
    "consumer_timeout_ms": _number(1, MAX_MS),
    "retention_ms": _number(-1, _MAX_COUNT),
    "retention_bytes": _number(-1, _MAX_COUNT),
}
assert tuple(_CHECKS) == QueueArguments._fields


# Definitions --------------------------------------------------------------------------------


class QueueDefinition(NamedTuple):
    """What a queue is."""

    queue_id: uuid.UUID
    """No other queue gets it, also none of the same name."""
    name: str
    durable: bool = True
    """Otherwise the queue, with all in it, is gone when the machine starts again."""
    exclusive: str | None = None
    """The session whose own it is, and with which it goes; None: everybody's."""
    auto_delete: bool = False
    """Whether it goes with its last consumer."""
    arguments: QueueArguments = QueueArguments()
    boot_id: str | None = None
    """The run of the machine that it belongs to; None for a durable one."""

    @property
    def levels(self) -> int:
        """How many levels of priority it has; they are numbered from 0."""
        return 1 + (self.arguments.max_priority or 0)


class ExchangeDefinition(NamedTuple):
    """What an exchange is."""

    name: str
    type: str = "direct"
    durable: bool = True
    auto_delete: bool = False
    """Whether it goes with its last binding."""
    internal: bool = False
    """Whether only other exchanges, by bindings, publish to it."""
    alternate_exchange: str | None = None
    """Where messages go that it finds no binding for."""
    boot_id: str | None = None
    """The run of the machine that it belongs to; None for a durable one."""


class BindingDefinition(NamedTuple):
    """What brings messages from one exchange to a queue, or to another exchange."""

    source: str
    """An exchange's name."""
    destination_type: Literal["queue", "exchange"]
    destination: str
    routing_key: str = ""
    arguments: Mapping[str, Any] = MappingProxyType({})
    """What a headers exchange compares, with ``x-match``."""
    boot_id: str | None = None
    """Of a binding of something that is not durable."""


# Keys ---------------------------------------------------------------------------------------


def name_digest(name: str) -> str:
    """What stands for a name in keys: 32 hexadecimal digits."""
    return _digest(name.encode())


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:32]


def exchange_key(name: str) -> str:
    """The key of an exchange's definition."""
    return EXCHANGE_PREFIX + name_digest(name)


def queue_key(name: str) -> str:
    """The key of a queue's definition."""
    return QUEUE_PREFIX + name_digest(name)


def binding_key(binding: BindingDefinition) -> str:
    """The key of a binding's definition: bindings that say the same are one."""
    key = binding.routing_key.encode()
    table = encode_table(dict(sorted(binding.arguments.items())))
    digest = _digest(len(key).to_bytes(1, "big") + key + table)
    destination = _destination(binding.destination_type, binding.destination)
    return f"{binding_prefix(binding.source)}{destination}/{digest}"


def binding_prefix(source: str) -> str:
    """What the keys of all bindings begin with whose source is this exchange."""
    return f"{BINDING_PREFIX}{name_digest(source)}/"


def is_binding_to(key: str, destination_type: str, destination: str) -> bool:
    """Whether a binding's key is that of one to this queue or exchange."""
    return key.split("/")[2] == _destination(destination_type, destination)


def _destination(destination_type: str, destination: str) -> str:
    """A queue and an exchange may have one name."""
    return destination_type[:1] + name_digest(destination)


# As JSON ------------------------------------------------------------------------------------


def queue_fields(queue: QueueDefinition) -> dict[str, Any]:
    """A queue's definition as JSON's objects."""
    return {
        "id": queue.queue_id.hex,
        "name": queue.name,
        "durable": queue.durable,
        "exclusive": queue.exclusive,
        "auto_delete": queue.auto_delete,
        "arguments": queue.arguments.given(),
        "boot_id": queue.boot_id,
    }


def queue_from(key: str, fields: Mapping[str, Any], path: str) -> QueueDefinition:
    """The opposite; raises FormatError, which names ``path``."""
    try:
        queue = QueueDefinition(
            uuid.UUID(hex=fields["id"]),
            _typed(fields, "name", str),
            _typed(fields, "durable", bool),
            _typed(fields, "exclusive", str, type(None)),
            _typed(fields, "auto_delete", bool),
            QueueArguments.of(_typed(fields, "arguments", dict)),
            _typed(fields, "boot_id", str, type(None)),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise broken(key, path, error) from error
    return queue


def exchange_fields(exchange: ExchangeDefinition) -> dict[str, Any]:
    """An exchange's definition as JSON's objects."""
    return exchange._asdict()


def exchange_from(key: str, fields: Mapping[str, Any], path: str) -> ExchangeDefinition:
    """The opposite; raises FormatError, which names ``path``."""
    try:
        exchange = ExchangeDefinition(
            _typed(fields, "name", str),
            _typed(fields, "type", str),
            _typed(fields, "durable", bool),
            _typed(fields, "auto_delete", bool),
            _typed(fields, "internal", bool),
            _typed(fields, "alternate_exchange", str, type(None)),
            _typed(fields, "boot_id", str, type(None)),
        )
        if exchange.type not in EXCHANGE_TYPES:
            raise ValueError(f"type={exchange.type!r}")
    except (ValueError, KeyError, TypeError) as error:
        raise broken(key, path, error) from error
    return exchange


def binding_fields(binding: BindingDefinition) -> dict[str, Any]:
    """A binding's definition as JSON's objects."""
    return {
        "source": binding.source,
        "destination_type": binding.destination_type,
        "destination": binding.destination,
        "routing_key": binding.routing_key,
        "arguments": {name: to_json(value) for name, value in binding.arguments.items()},
        "boot_id": binding.boot_id,
    }


def binding_from(key: str, fields: Mapping[str, Any], path: str) -> BindingDefinition:
    """The opposite; raises FormatError, which names ``path``."""
    try:
        kind = fields["destination_type"]
        if kind not in ("queue", "exchange"):
            raise ValueError(f"destination_type={kind!r}")
        arguments = _typed(fields, "arguments", dict)
        binding = BindingDefinition(
            _typed(fields, "source", str),
            kind,
            _typed(fields, "destination", str),
            _typed(fields, "routing_key", str),
            {name: from_json(value) for name, value in arguments.items()},
            _typed(fields, "boot_id", str, type(None)),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise broken(key, path, error) from error
    return binding


Definition = ExchangeDefinition | QueueDefinition | BindingDefinition


def definition_from(key: str, fields: Mapping[str, Any], path: str) -> Definition | None:
    """What a key of ours defines; None for one that is not ours. Raises FormatError."""
    parse = _PARSERS.get(key[: key.find("/") + 1])
    return None if parse is None else parse(key, fields, path)


_PARSERS: dict[str, Callable[[str, Mapping[str, Any], str], Definition]] = {
    EXCHANGE_PREFIX: exchange_from,
    QUEUE_PREFIX: queue_from,
    BINDING_PREFIX: binding_from,
}
PREFIXES = tuple(_PARSERS)
"""What the keys of all definitions here begin with."""


def _typed(fields: Mapping[str, Any], name: str, *types: type) -> Any:
    value = fields[name]
    if not isinstance(value, types):
        raise TypeError(f"{name}={value!r:.80}")
    return value
