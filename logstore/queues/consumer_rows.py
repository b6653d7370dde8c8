"""Who consumes from a queue, in the live environment: rows, and what is decided by them alone.

In the table of ledgers, under a queue's id, which is in front of all rows of its ledgers::

    id                       how many consumers it has; bits: whether it ever had one, whether any
                             message has had a time to live of its own; when it was used last, and
                             the levels of priority that have a log

In a table of its own, one row for each consumer, by whatever store handle::

    id session number        what it told of itself; number 0: no consumer, but somebody who gets
                             messages one by one, and whose leases have to come back all the same
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from typing import NamedTuple

from logstore.errors import FormatError
from logstore.queues.ledger_rows import SESSION_BYTES, Rows

__all__ = [
    "GETTER",
    "ID_BYTES",
    "ConsumerRow",
    "QueueRow",
    "consumer_count",
    "consumer_key",
    "consumers_of",
    "load_queue_row",
]

ID_BYTES = 16
GETTER = 0
"""The number of whoever only gets."""

_QUEUE = struct.Struct(">IBq")
_NUMBER = struct.Struct(">Q")


class QueueRow(NamedTuple):
    """What is known of a queue beside its ledgers."""

    consumers: int = 0
    had_consumer: bool = False
    """Whether it ever had one: an auto-delete queue goes with its last consumer, not before it has
    had any."""
    used_ms: int = 0
    """When it was used last: milliseconds since 1970; 0: never, as far as is known."""
    levels: bytes = b""
    """The levels of priority that have a log, ascending."""
    may_expire: bool = False
    """Whether a message with a time to live of its own was ever published to it."""

    def pack(self) -> bytes:
        """The row's value."""
        bits = self.had_consumer | self.may_expire << 1
        return _QUEUE.pack(self.consumers, bits, self.used_ms) + self.levels

    @classmethod
    def unpack(cls, data: bytes) -> QueueRow:
        """The opposite."""
        try:
            consumers, bits, used_ms = _QUEUE.unpack(data[: _QUEUE.size])
        except struct.error:
            raise FormatError(
                "a queue's row is broken", expected=_QUEUE.size, found=len(data)
            ) from None
        return cls(consumers, bool(bits & 1), used_ms, data[_QUEUE.size :], bool(bits & 2))


def load_queue_row(rows: Rows, queue_id: bytes) -> QueueRow:
    """The row of a queue; an empty one where there is none."""
    data = rows.get(queue_id)
    return QueueRow() if data is None else QueueRow.unpack(data)


def consumer_count(rows: Rows, queue_id: bytes) -> int:
    """How many consumers a queue has: all that each delivery asks for."""
    data = rows.get(queue_id)
    return 0 if data is None else int.from_bytes(data[:4], "big")


class ConsumerRow(NamedTuple):
    """One who consumes, or gets."""

    queue_id: bytes
    session: bytes
    number: int
    tag: str = ""
    prefetch: int = 0
    exclusive: bool = False
    """Whether nobody else may consume."""

    def pack(self) -> bytes:
        """The row's value."""
        fields = {"tag": self.tag, "prefetch": self.prefetch, "exclusive": self.exclusive}
        return json.dumps(fields).encode()

    @classmethod
    def unpack(cls, key: bytes, data: bytes) -> ConsumerRow:
        """The opposite."""
        try:
            fields = json.loads(data)
            (number,) = _NUMBER.unpack(key[ID_BYTES + SESSION_BYTES :])
            return cls(
                key[:ID_BYTES],
                key[ID_BYTES : ID_BYTES + SESSION_BYTES],
                number,
                str(fields["tag"]),
                int(fields["prefetch"]),
                bool(fields["exclusive"]),
            )
        except (ValueError, KeyError, TypeError, struct.error) as error:
            raise FormatError("a consumer's row is broken", found=error) from error


def consumer_key(queue_id: bytes, session: bytes, number: int) -> bytes:
    """The key of a consumer's row."""
    return queue_id + session + _NUMBER.pack(number)


def consumers_of(rows: Rows, prefix: bytes) -> Iterator[ConsumerRow]:
    """All rows whose keys begin so: of a queue, of a session in it, or all."""
    for key, value in rows.items(prefix):
        yield ConsumerRow.unpack(key, value)
