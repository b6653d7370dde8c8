"""Dead letters: what becomes of a message that a queue gives up, decided purely.

A message dies because a consumer rejected it, because its time was over, because the queue was
full, or because it was delivered too often. It is published again, to the queue's dead letter
exchange, and carries the history of its deaths in the header ``x-death`` (source: RabbitMQ's
documentation, "Dead Letter Exchanges")::

    x-death                   a list of tables, the latest death first, one for each pair of
                              queue and reason:
        count                 how often it died there and so
        queue, reason         rejected, expired, maxlen or delivery_limit
        time                  of the first of these deaths
        exchange              where it had been published to before it
        routing-keys          with which keys: its own and those of CC, without those of BCC
        original-expiration   its time to live, where it had one of its own; it lives without one
    x-first-death-queue, -reason, -exchange   of the first death of all
    x-last-death-queue, -reason, -exchange    of the latest one

A queue does not get a message again that died in it before, if nobody has rejected it since: it
would go round for ever.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal

from logstore.queues.properties import Envelope

__all__ = ["HISTORY", "Reason", "copied_to", "dead_letter", "deaths_of", "goes_in_circles"]

Reason = Literal["rejected", "expired", "maxlen", "delivery_limit"]
"""Why a message died."""

HISTORY = "x-death"
"""The header with the history of a message's deaths."""


def dead_letter(
    envelope: Envelope,
    *,
    queue: str,
    reason: Reason,
    now_ms: int,
    exchange: str,
    routing_key: str | None = None,
) -> Envelope:
    """A message that died in ``queue``, as it is published to its dead letter exchange, with the
    queue's dead letter routing key if it has one, otherwise with the message's own."""
    properties = envelope.properties
    headers = dict(properties.headers or {})
    death: dict[str, Any] = {
        "count": 1,
        "reason": reason,
        "queue": queue,
        "time": datetime.fromtimestamp(now_ms // 1000, UTC),
        "exchange": envelope.exchange,
        "routing-keys": [envelope.routing_key, *copied_to(headers, "CC")],
    }
    if properties.expiration is not None:
        death["original-expiration"] = str(properties.expiration)
    history = deaths_of(headers)
    place = {"reason": reason, "queue": queue, "exchange": envelope.exchange}
    if HISTORY not in headers:
        headers |= {f"x-first-death-{name}": value for name, value in place.items()}
    headers |= {f"x-last-death-{name}": value for name, value in place.items()}
    before = next((old for old in history if _place(old) == (queue, reason)), None)
    if before is not None:
        history = [old for old in history if old is not before]
        count = before.get("count")
        death = {**before, "count": count + 1 if isinstance(count, int) else 2}
    headers[HISTORY] = [death, *history]
    if routing_key is None:
        routing_key = envelope.routing_key
    else:
        for copies in ("CC", "BCC"):  # those keys went with the one that is replaced
            headers.pop(copies, None)
    return Envelope(
        envelope.body,
        # A delay has been served: what waits again would not be where it is looked for.
        properties._replace(headers=headers, expiration=None, delay_ms=None, deliver_at_ms=None),
        exchange,
        routing_key,
    )


def goes_in_circles(envelope: Envelope, queue: str) -> bool:
    """Whether a dead letter, as :func:`dead_letter` made it, must not go into ``queue``: it died
    there before, and was not rejected in any death since."""
    since: list[Mapping[str, Any]] = []
    for death in deaths_of(envelope.properties.headers or {}):
        since.append(death)
        if death.get("queue") == queue:
            return all(one.get("reason") != "rejected" for one in since)
    return False


def deaths_of(headers: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The history, the latest death first; a publisher may have put anything there."""
    history = headers.get(HISTORY)
    if not isinstance(history, (list, tuple)):
        return []
    return [death for death in history if isinstance(death, dict)]


def _place(death: Mapping[str, Any]) -> tuple[Any, Any]:
    return death.get("queue"), death.get("reason")


def copied_to(headers: Mapping[str, Any], *names: str) -> list[str]:
    """The routing keys in the headers of these names, ``CC`` and ``BCC``; whatever stands there."""
    lists = (headers.get(name) for name in names)
    found = (keys for keys in lists if isinstance(keys, (list, tuple)))
    return [key for keys in found for key in keys if isinstance(key, str)]
