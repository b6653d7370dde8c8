"""A mirrored queue as a state machine: the same log gives the same ledger, on every replica.

This is the model of RabbitMQ's quorum queues: what publishers send, and what happens to the ledger,
are records of one replicated log, and a replica applies a record when it is committed, not before.
So a follower that takes over has the ledger as the old leader had told it to anybody.

The ledger is the one of ``logstore.queues``, with its rows in memory. A message's number among all
that were published is its offset there. A record without a key is a message; a command has its
name as the key, and words as the value: a consumer, a lease by its first offset and number, its
messages as hexadecimal bits (the first one's the lowest). Times are in the records, since replicas
apply them at different times.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import ClassVar, NamedTuple

from logstore.queues.ledger import Ledger
from logstore.queues.ledger_rows import KEY_BYTES, SESSION_BYTES, Head, Lease, runs_of
from logstore.queues.memory_rows import MemoryRows
from logstore.segments.record import Record

__all__ = ["Delivery", "Effect", "QueueMachine", "Settlement", "command"]

_KEY = bytes(KEY_BYTES)


class Delivery(NamedTuple):
    """Messages were leased to a consumer, and are to be sent to it."""

    consumer: str
    lease: Lease
    messages: tuple[tuple[int, str, int], ...]
    """Offsets, ids, and where each stands in the log."""


class Settlement(NamedTuple):
    """A consumer's acknowledgement was applied."""

    consumer: str
    first: int
    number: int
    bits: int
    """Which messages of the lease it named."""
    accepted: bool
    """Whether the lease was still the consumer's."""
    log_offset: int
    """Where the acknowledgement stands in the log."""


Effect = Delivery | Settlement


def command(name: str, *words: object) -> Record:
    """The record of a command."""
    return Record(key=name.encode(), value=" ".join(map(str, words)).encode(), timestamp=-1)


class QueueMachine:
    """The state of one replica of a queue."""

    def __init__(self) -> None:
        self.messages: list[str] = []
        """The ids of all that were published, by offset."""
        self._places: list[int] = []
        """Where each stands in the log."""
        self.applied = 0
        """Records of the log below it are in the state."""
        self.holders: list[str] = []
        """Consumers that may hold leases, in the order of their coming."""
        self._rows = MemoryRows()
        self.ledger = Ledger(self._rows, _KEY, Head())

    @property
    def ready(self) -> int:
        """How many messages wait to be delivered."""
        return self.ledger.head.ready(len(self.messages))

    def held(self, consumer: str) -> int:
        """How many messages a consumer has, and is not done with."""
        session = session_of(consumer)
        return sum(
            lease.open_bits.bit_count()
            for lease in self.ledger.leases()
            if lease.session == session
        )

    def apply(self, record: Record) -> Effect | None:
        """Apply the next record; returns what is to be done about it, by the leader alone."""
        self.applied += 1
        if record.key is None:
            self.messages.append(message_id(record.value or b""))
            self._places.append(self.applied - 1)
            return None
        words = (record.value or b"").decode().split()
        effect = self._COMMANDS[record.key](self, *words)
        self.ledger.save(self.applied)
        return effect

    # Commands ---------------------------------------------------------------------------------

    def _take(self, consumer: str, most: str, now_ms: str, deadline_ms: str) -> Effect | None:
        """A consumer has room for more messages."""
        if consumer not in self.holders:
            self.holders.append(consumer)
        leases = self.ledger.take(
            min(int(most), self._longest_run()),
            log_end=len(self.messages),
            now_ms=int(now_ms),
            session=session_of(consumer),
            deadline=int(deadline_ms),
        )
        if not leases:
            return None
        (lease,) = leases
        offsets = range(lease.first, lease.first + lease.length)
        messages = tuple((o, self.messages[o], self._places[o]) for o in offsets)
        return Delivery(consumer, lease, messages)

    def _longest_run(self) -> int:
        """How many messages the next lease can have: one command leases one run of offsets."""
        returned = next(self.ledger.spans(b"r"), None)
        return returned.length if returned is not None else len(self.messages)

    def _settle(self, consumer: str, first: str, number: str, bits: str) -> Effect:
        """A consumer has done with messages."""
        lease = self._lease(first, number)
        done = int(bits, 16)
        accepted = lease is not None and self.ledger.ack(lease, done)
        place = self.applied - 1
        return Settlement(consumer, int(first), int(number), done, accepted, place)

    def _return(self, _consumer: str, first: str, number: str, bits: str) -> None:
        """A consumer gives messages back."""
        lease = self._lease(first, number)
        if lease is not None:
            self.ledger.requeue(lease, int(bits, 16))

    def _lease(self, first: str, number: str) -> Lease | None:
        for lease in self.ledger.leases():
            if (lease.first, lease.number) == (int(first), int(number)):
                return lease
        return None

    def _detach(self, consumer: str) -> None:
        """A consumer is gone, and what it held comes back."""
        self.ledger.end_session(session_of(consumer))
        if consumer in self.holders:
            self.holders.remove(consumer)

    def _expire(self, now_ms: str) -> None:
        """Leases whose time is up end."""
        self.ledger.end_overdue(int(now_ms))

    def _lead(self, _epoch: str) -> None:
        """Another leader has taken over: leases were promises of the one before."""
        for consumer in self.holders:
            self.ledger.end_session(session_of(consumer))
        self.holders.clear()

    _COMMANDS: ClassVar[dict[bytes, Callable[..., Effect | None]]] = {
        b"take": _take,
        b"settle": _settle,
        b"return": _return,
        b"detach": _detach,
        b"expire": _expire,
        b"lead": _lead,
    }

    # Looking ----------------------------------------------------------------------------------

    def outstanding(self) -> set[int]:
        """The offsets of all messages that are not settled."""
        offsets = set(range(self.ledger.head.cursor, len(self.messages)))
        for span in self.ledger.outstanding():
            offsets.update(range(span.first, span.end))
        return offsets

    def digest(self) -> str:
        """A number that two replicas share if, and only if, they are in the same state."""
        state = hashlib.sha256(repr((self.applied, self.messages)).encode())
        for key, value in self._rows.items(b""):
            state.update(key + b"=" + value + b";")
        return state.hexdigest()


def message_id(value: bytes) -> str:
    """The id with which a message begins."""
    return value.partition(b" ")[0].decode()


def session_of(consumer: str) -> bytes:
    """A consumer's name as a ledger's session."""
    return consumer.encode()[:SESSION_BYTES].ljust(SESSION_BYTES, b"\0")


def offsets_of(lease: Lease, bits: int) -> list[int]:
    """The offsets that bits of a lease name."""
    return [lease.first + start + n for start, length in runs_of(bits) for n in range(length)]
