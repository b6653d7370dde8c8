"""How a ledger stands in an ordered table: keys and values.

All rows of one ledger begin with its key, 17 bytes: a queue's id and a priority level, or whatever
else names a log. Behind it stands a letter for the kind of row, and numbers, big-endian, so that
neighbours lie side by side::

    key                      head: cursor, counts, and what is asked for most often
    key l first number       a lease of the offsets from `first` on
    key r first              offsets that came back, to be delivered again
    key w due first          offsets that wait until `due`
    key d first              offsets that are to be dead-lettered

An offset below the cursor that is in no row is settled.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

from logstore.errors import FormatError

__all__ = [
    "KEY_BYTES",
    "MAX_LEASED",
    "NEVER",
    "NUMBER_BYTES",
    "SESSION_BYTES",
    "Head",
    "Lease",
    "Reason",
    "Rows",
    "Span",
    "bits_of",
    "first_spans",
    "held_key",
    "joined_lease",
    "lease_key",
    "offset_key",
    "runs_of",
    "split_lease",
    "unpack_held_key",
    "unpack_offset",
]

KEY_BYTES = 17
"""A ledger's key: the id of what it belongs to, and a priority level."""
SESSION_BYTES = 16
NEVER = (1 << 63) - 1
"""The time of what does not come."""
MAX_LEASED = 4096
"""The most messages in one lease: what a commit writes for it stays one small row."""

LEASED, RETURNED, HELD, DEAD = b"l", b"r", b"w", b"d"

_OFFSET = struct.Struct(">Q")
_TWO = struct.Struct(">QQ")
_HEAD = struct.Struct(
    ">"
    "Q"  # cursor
    "Q"  # number of the next lease
    "Q"  # leased messages that are not settled
    "Q"  # returned messages
    "Q"  # held messages
    "Q"  # dead messages
    "q"  # the earliest time at which a held message is due
    "q"  # a time before which no lease ends
    "Q"  # the log's end when the machine had been restarted
    "q"  # bytes of all messages that are ready, where they are counted
    "Q"  # the offset up to which they are counted
    "Q"  # number of the transaction that changed the ledger last
)
NUMBER_BYTES = 8
"""The number of the transaction stands at the end of a head's row."""
_LEASE = struct.Struct(
    ">"
    "16s"  # session
    "I"  # count of offsets
    "I"  # delivery count
    "q"  # deadline; a bit for each offset follows, the first offset's lowest: 1 is settled
)
_SPAN = struct.Struct(">QIB")


class Rows(Protocol):
    """An ordered table, in a transaction."""

    def get(self, key: bytes, /) -> bytes | None:
        """The value of a key."""
        ...

    def put(self, key: bytes, value: bytes, /) -> object:
        """Set the value of a key."""
        ...

    def delete(self, key: bytes, /) -> bool:
        """Remove a key, and say whether it was there."""
        ...

    def items(self, prefix: bytes, /) -> Iterator[tuple[bytes, bytes]]:
        """The rows whose keys begin so, ascending; nothing is written before they were taken."""
        ...

    def before(self, key: bytes, prefix: bytes, /) -> tuple[bytes, bytes] | None:
        """The last row in front of ``key`` whose key begins with ``prefix``."""
        ...


class Reason(enum.IntEnum):
    """Why a message is dead-lettered; RabbitMQ's names."""

    REJECTED = 1
    EXPIRED = 2
    MAXLEN = 3
    DELIVERY_LIMIT = 4

    @property
    def label(self) -> str:
        """The name, as it stands in ``x-death``."""
        return self.name.lower()


class Head:
    """What is known of a ledger at a glance."""

    __slots__ = (
        "counted_end",
        "cursor",
        "dead",
        "earliest_deadline",
        "held",
        "next_due",
        "next_lease",
        "number",
        "ready_bytes",
        "restart_end",
        "returned",
        "unacked",
    )

    def __init__(
        self,
        cursor: int = 0,
        next_lease: int = 1,
        unacked: int = 0,
        returned: int = 0,
        held: int = 0,
        dead: int = 0,
        next_due: int = NEVER,
        earliest_deadline: int = NEVER,
        restart_end: int = 0,
        ready_bytes: int = 0,
        counted_end: int = 0,
        number: int = 0,
    ) -> None:
        self.cursor = cursor
        """The first offset that was never delivered."""
        self.next_lease = next_lease
        self.unacked = unacked
        """Messages that are leased, and not settled."""
        self.returned = returned
        self.held = held
        self.dead = dead
        self.next_due = next_due
        """When the first of the held messages is due: milliseconds since 1970."""
        self.earliest_deadline = earliest_deadline
        """No lease ends before it: milliseconds since the machine's start."""
        self.restart_end = restart_end
        """The log's end when the ledger was restored: transient messages below it are gone."""
        self.ready_bytes = ready_bytes
        """The bytes of the bodies that wait to be taken, where somebody counts them."""
        self.counted_end = counted_end
        """Those of messages below it are counted. (A killed publisher may not have come to it.)"""
        self.number = number
        """The number of the transaction that changed the ledger last."""

    @classmethod
    def unpack(cls, data: bytes) -> Head:
        """The head in a row."""
        try:
            return cls(*_HEAD.unpack(data))
        except struct.error as error:
            raise _broken(_HEAD, data) from error

    def pack(self) -> bytes:
        """The row."""
        return _HEAD.pack(
            self.cursor,
            self.next_lease,
            self.unacked,
            self.returned,
            self.held,
            self.dead,
            self.next_due,
            self.earliest_deadline,
            self.restart_end,
            self.ready_bytes,
            self.counted_end,
            self.number,
        )

    def ready(self, log_end: int) -> int:
        """How many messages wait to be taken; of held ones that are due nothing is known here."""
        return self.returned + max(0, log_end - self.cursor)


class Lease(NamedTuple):
    """A run of offsets that a session was given."""

    first: int
    number: int
    """Counts the leases of a ledger: what has the same offsets later has another one."""
    session: bytes
    """The holder's session."""
    length: int
    delivery_count: int
    """How often the messages had been delivered before."""
    deadline: int
    """When the lease ends, in milliseconds since the machine's start."""
    settled: int = 0
    """A bit for each offset, the first one's lowest: those that are not in the lease any more."""

    @property
    def all_bits(self) -> int:
        """A bit for each offset."""
        return (1 << self.length) - 1

    @property
    def open_bits(self) -> int:
        """A bit for each offset that is not settled."""
        return ((1 << self.length) - 1) & ~self.settled

    def pack(self) -> bytes:
        """The row's value."""
        _, _, session, length, delivery_count, deadline, settled = self
        bits = settled.to_bytes(length + 7 >> 3, "little")
        return _LEASE.pack(session, length, delivery_count, deadline) + bits

    @classmethod
    def unpack(cls, key: bytes, data: bytes) -> Lease:
        """The lease in a row."""
        first, number = _TWO.unpack(key[-_TWO.size :])
        session, length, delivery_count, deadline = _unpacked(_LEASE, data[: _LEASE.size])
        settled = int.from_bytes(data[_LEASE.size :], "little")
        return cls(first, number, session, length, delivery_count, deadline, settled)


def split_lease(data: bytes) -> tuple[bytes, int]:
    """A lease's row as what stays as it is, and the bits of what is settled."""
    return data[: _LEASE.size], int.from_bytes(data[_LEASE.size :], "little")


def joined_lease(head: bytes, settled: int, length: int) -> bytes:
    """The opposite."""
    return head + settled.to_bytes(length + 7 >> 3, "little")


class Span(NamedTuple):
    """A run of offsets that are neither leased nor settled."""

    first: int
    length: int
    delivery_count: int
    reason: int = 0
    """Why they are dead; 0: they are not."""

    @property
    def end(self) -> int:
        """The offset behind the last."""
        return self.first + self.length

    def pack(self) -> bytes:
        """The row's value."""
        return _SPAN.pack(self.length, self.delivery_count, self.reason)

    @classmethod
    def unpack(cls, first: int, data: bytes) -> Span:
        """The span in a row."""
        return cls(first, *_unpacked(_SPAN, data))


def first_spans(rows: Rows, prefix: bytes, most: int) -> list[Span]:
    """The first spans whose keys begin so, that hold ``most`` messages or more, or all there
    are."""
    spans = []
    for key, value in rows.items(prefix):
        if most <= 0:
            break
        span = Span.unpack(unpack_offset(key), value)
        spans.append(span)
        most -= span.length
    return spans


def unpack_offset(key: bytes) -> int:
    """The offset at the end of a key."""
    return int.from_bytes(key[-8:], "big")


def offset_key(key: bytes, kind: bytes, first: int) -> bytes:
    """The key of a row of a kind that is in order of offsets."""
    return key + kind + _OFFSET.pack(first)


def lease_key(key: bytes, first: int, number: int) -> bytes:
    """The key of a lease's row. Of two leases the elder may hold offsets behind the first ones of
    the younger, which had come back; hence the number."""
    return key + LEASED + _TWO.pack(first, number)


def held_key(key: bytes, due: int, first: int) -> bytes:
    """The key of a row of held offsets."""
    return key + HELD + _TWO.pack(due, first)


def unpack_held_key(key: bytes) -> tuple[int, int]:
    """When held offsets are due, and the first of them."""
    due, first = _TWO.unpack(key[-_TWO.size :])
    return due, first


def runs_of(bits: int) -> Iterator[tuple[int, int]]:
    """The runs of ones in a number, ``(lowest bit, count)``, ascending."""
    start = 0
    while bits:
        zeros = (bits & -bits).bit_length() - 1
        bits >>= zeros
        start += zeros
        ones = (~bits & (bits + 1)).bit_length() - 1
        yield start, ones
        bits >>= ones
        start += ones


def bits_of(start: int, count: int) -> int:
    """The number whose bits from ``start`` on are ones, ``count`` of them."""
    return ((1 << count) - 1) << start


def _unpacked(form: struct.Struct, data: bytes) -> tuple[Any, ...]:
    try:
        return form.unpack(data)
    except struct.error as error:
        raise _broken(form, data) from error


def _broken(form: struct.Struct, data: bytes) -> FormatError:
    return FormatError("a ledger's row is broken", expected=form.size, found=len(data))
