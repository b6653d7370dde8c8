"""What a channel has been given and not yet settled: bits of leases, and nothing for a message."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol

from logstore.errors import InvalidInputError, LeaseExpiredError
from logstore.queues.ledger_rows import Lease, bits_of
from logstore.queues.source import LedgeredLog, Source

if TYPE_CHECKING:
    from logstore.queues.channel import Channel

__all__ = ["MAX_PREFETCH", "Delivery", "Holder", "Outcome", "check_prefetch", "late_error"]

MAX_PREFETCH = 65_535
"""AMQP's bound; 0 is no limit."""

Outcome = dict["Delivery", int]
"""Bits of deliveries that something is to be done with."""


class Holder(Protocol):
    """Whom messages were delivered to."""

    unacked: int
    """How many of them are not settled."""

    def unseen(self, delivery: Delivery) -> int:
        """The bits of messages that were fetched, and not handed to the application yet."""
        ...

    def drop(self) -> None:
        """Hand out nothing more of what was fetched."""
        ...


class Delivery:
    """The messages of one lease, on the side of its holder. For the channel alone, which has its
    lock in hand; messages know it as their handle."""

    __slots__ = (
        "acked_bits",
        "channel",
        "delivery_count",
        "first_tag",
        "holder",
        "is_lost",
        "lease",
        "level",
        "open_bits",
        "queue",
    )

    def __init__(
        self,
        channel: Channel,
        queue: Source[Any, Any],
        level: LedgeredLog,
        lease: Lease,
        holder: Holder,
    ) -> None:
        self.channel = channel
        self.queue = queue
        self.level = level
        self.lease = lease
        self.holder = holder
        self.delivery_count = lease.delivery_count
        self.first_tag = 0
        """The delivery tag of the lease's first offset."""
        self.open_bits = lease.open_bits
        """Messages that nobody has said anything of."""
        self.acked_bits = 0
        """Messages that were acknowledged, which the ledger does not know yet."""
        self.is_lost = False
        """Whether the lease is known to have ended."""

    def tag(self, offset: int) -> int:
        """The delivery tag of a message."""
        return self.first_tag + offset - self.lease.first

    def ack(self, offset: int, *, multiple: bool, flush: bool, durable: bool) -> None:
        """Acknowledge a message."""
        self.channel.ack_message(self, offset, multiple=multiple, flush=flush, durable=durable)

    def nack(self, offset: int, *, multiple: bool, requeue: bool) -> None:
        """Give a message back, or give it up."""
        self.channel.nack_message(self, offset, multiple=multiple, requeue=requeue)

    @property
    def end_tag(self) -> int:
        """The delivery tag behind the last."""
        return self.first_tag + self.lease.length

    def bits_up_to(self, tag: int) -> int:
        """The bits of open messages whose tags are not above ``tag``."""
        count = min(tag + 1 - self.first_tag, self.lease.length)
        return self.open_bits & bits_of(0, max(0, count))

    def bits_at(self, offsets: Iterator[int]) -> int:
        """The bits of offsets."""
        first = self.lease.first
        return sum(1 << offset - first for offset in offsets)


def check_prefetch(prefetch: object) -> None:
    """Raise InvalidInputError for what is no prefetch count."""
    if type(prefetch) is not int or not 0 <= prefetch <= MAX_PREFETCH:
        raise InvalidInputError(
            f"prefetch={prefetch!r:.80} is out of bounds: an int of 0 (no limit) to {MAX_PREFETCH}"
        )


def late_error(count: int) -> LeaseExpiredError:
    return LeaseExpiredError(
        f"{count} message{'s were' if count > 1 else ' was'} settled too late: the lease had ended "
        "(consumer_timeout), and the queue delivers what was in it again"
    )
