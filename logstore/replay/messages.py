"""Expressions over messages: what ``logstore queue redrive --where`` asks of dead letters.

Beside what there is to a record (the body is its ``value``, the routing key its ``key``) they have
these fields::

    body            as value
    headers         the message's own, with numbers as numbers
    properties      the other ones of AMQP's that were set
    exchange, routing_key     where it was published before it died, or now where it did not
    queue, reason   of its last death; null for what is no dead letter
    deaths          how often it died, for all queues and reasons together
    delivery_count  how often it was given back since
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from logstore.fetcher import ConsumerRecord
from logstore.queues.dead_letter import deaths_of
from logstore.queues.field_table import to_json
from logstore.queues.message import Message
from logstore.replay.expressions import compile_expression

__all__ = ["MESSAGE_FIELDS", "message_test"]

MESSAGE_FIELDS = (
    "body",
    "headers",
    "properties",
    "exchange",
    "routing_key",
    "queue",
    "reason",
    "deaths",
    "delivery_count",
)


def message_test(
    texts: Sequence[str], *, queue: str = "", now_ms: int = 0
) -> Callable[[Message], bool]:
    """Whether all of these expressions are true of a message; ``queue`` is its ``topic`` in them,
    and ``now_ms`` what ages in ``time("10m")`` count back from. Raises ExpressionError, here for
    what is not allowed, and in the test for what goes wrong with a message."""
    expressions = [compile_expression(text, now_ms=now_ms, extra=MESSAGE_FIELDS) for text in texts]

    def test(message: Message) -> bool:
        record, facts = _looked_at(message, queue)
        return all(expression(record, facts) for expression in expressions)

    return test


def _looked_at(message: Message, queue: str) -> tuple[ConsumerRecord, dict[str, Any]]:
    envelope = message.envelope
    properties = envelope.properties
    headers = properties.headers or {}
    history = deaths_of(headers)
    last = history[0] if history else {}
    keys = last.get("routing-keys")
    counts = [death.get("count") for death in history]
    facts: dict[str, Any] = {
        "body": envelope.body.decode("utf-8", "surrogateescape"),
        "headers": to_json(headers) if headers else {},
        "properties": {
            name: value
            for name, value in properties._asdict().items()
            if value is not None and name != "headers"
        },
        "exchange": last.get("exchange", envelope.exchange),
        "routing_key": keys[0] if isinstance(keys, list) and keys else envelope.routing_key,
        "queue": last.get("queue"),
        "reason": last.get("reason"),
        "deaths": sum(count for count in counts if isinstance(count, int)),
        "delivery_count": message.delivery_count,
    }
    key = envelope.routing_key.encode("utf-8", "surrogateescape") or None
    record = ConsumerRecord(queue, 0, message.offset, message.timestamp_ms, key, envelope.body, ())
    return record, facts
