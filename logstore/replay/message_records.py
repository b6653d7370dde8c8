"""Messages as a replay shows them, and records as the messages that a queue gets.

A message is a record (``logstore.queues.properties``): the body is its value, the routing key its
key, and AMQP's properties are headers that begin with ``amqp.``. Its own headers lie in one of
them, as a table; a replay shows each of them as a header, too, as text, so that expressions,
``--with-header`` and ``--drop-header`` see them. The table itself goes along as ``amqp.table``, out
of which a queue gets back what was no text::

    key, value                   routing key and body
    amqp.exchange                where it was published; none for the default exchange
    amqp.<property>              as in the queue's log
    amqp.table                   the message's own headers, in AMQP's encoding
    NAME                         each of them, as text; null where it is null

A record that was never a message becomes one in the same way: its headers are texts then.
"""

from __future__ import annotations

import json
from typing import Any

from logstore.errors import FormatError
from logstore.fetcher import ConsumerRecord
from logstore.queues.field_table import decode_table, to_json
from logstore.queues.properties import PREFIX, Envelope, from_record
from logstore.segments.record import Header, Record

__all__ = ["message_of", "shown_message"]

_HEADERS = PREFIX + "headers"
_TABLE = PREFIX + "table"


def shown_message(record: ConsumerRecord) -> ConsumerRecord:
    """A record of a queue's log as a replay shows it. One that a stranger wrote, and that cannot
    be read, stays as it is."""
    for place, (name, data) in enumerate(record.headers):
        if name != _HEADERS or data is None:
            continue
        try:
            table = decode_table(data)
        except FormatError:
            return record
        headers = list(record.headers)
        headers[place] = (_TABLE, data)
        headers += [(name, _shown(value)) for name, value in table.items() if _is_own(name)]
        return record._replace(headers=tuple(headers))
    return record


def message_of(record: ConsumerRecord) -> Envelope:
    """The message that a record is published as. Raises FormatError for a property that cannot be
    read."""
    ours: list[Header] = []
    own: dict[str, bytes | None] = {}
    table: dict[str, Any] | None = None
    for name, data in record.headers:
        if name == _TABLE and data is not None:
            table = decode_table(data)
        elif not _is_own(name):
            ours.append((name, data))
        else:
            own[name] = data
    envelope = from_record(
        Record(record.offset, record.timestamp, record.key, record.value, tuple(ours))
    )
    known = table or {}
    headers = {
        name: known[name] if name in known and _shown(known[name]) == data else _text(data)
        for name, data in own.items()
    }
    if table is not None:
        headers |= {name: value for name, value in known.items() if not _is_own(name)}
    elif envelope.properties.headers:  # of a queue's log as it is, in which nothing was changed
        headers = {**envelope.properties.headers, **headers}
    return envelope._replace(properties=envelope.properties._replace(headers=headers or None))


def _is_own(name: str) -> bool:
    return not name.startswith(PREFIX)


def _shown(value: Any) -> bytes | None:
    if value is None or isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape")
    return json.dumps(to_json(value), ensure_ascii=False).encode("utf-8", "surrogateescape")


def _text(data: bytes | None) -> str | bytes | None:
    """A header as text, or as bytes where it is none."""
    if data is None:
        return None
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data
