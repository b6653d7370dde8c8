"""What a channel has been given and not yet settled: bits of leases, and nothing for a message."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Protocol

from logstore.errors import InvalidInputError, LeaseExpiredError
from logstore.queues.ledger_rows import Lease, bits_of
from logstore.queues.source import LedgeredLog, Source

if TYPE_CHECKING:
    from logstore.queues.channel import Channel

__all__ = [
    "MAX_PREFETCH",
    "Delivery",
    "Holder",
    "Outcome",
    "check_prefetch",
    "chosen_by_tag",
    "late_error",
    "not_open",
]

MAX_PREFETCH = 65_535
"""AMQP's bound; 0 is no limit."""

Outcome = dict["Delivery", int]
"""Bits of deliveries that something is to be done with."""

_first_tag = attrgetter("first_tag")


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
        "is_renewed",
        "lease",
        "level",
        "open_bits",
        "queue",
        "renewed",
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
        self.open_bits = (1 << lease.length) - 1
        """Messages that nobody has said anything of."""
        self.acked_bits = 0
        """Messages that were acknowledged, which the ledger does not know yet."""
        self.is_lost = False
        """Whether the lease is known to have ended."""
        self.is_renewed = False
        """Whether its messages were leased before, in another one."""
        self.renewed: dict[int, Delivery] = {}
        """By offset: where messages are that were leased anew, each in a lease of its own."""

    def tag(self, offset: int) -> int:
        """The delivery tag of a message."""
        return self.first_tag + offset - self.lease.first

    def ack(self, offset: int, *, multiple: bool, flush: bool, durable: bool) -> None:
        """Acknowledge a message."""
        self.channel.ack_message(self, offset, multiple=multiple, flush=flush, durable=durable)

    def nack(self, offset: int, *, multiple: bool, requeue: bool) -> None:
        """Give a message back, or give it up."""
        self.channel.nack_message(self, offset, multiple=multiple, requeue=requeue)

    def renew(self, offset: int) -> None:
        """Let the lease of a message begin anew."""
        self.channel.renew_message(self, offset)

    def latest(self, offset: int) -> Delivery:
        """Where a message is by now."""
        return self.renewed.get(offset, self)

    def is_open(self, offset: int) -> bool:
        """Whether nobody has said anything of a message, and it is not known to be lost."""
        latest = self.latest(offset)
        return bool(latest.open_bits >> offset - latest.lease.first & 1)

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


def chosen_by_tag(deliveries: Sequence[Delivery], tag: int, *, multiple: bool) -> Outcome:
    """The open messages that a tag names, of deliveries in order of their tags; raises
    InvalidInputError where there are none."""
    if not isinstance(tag, int) or isinstance(tag, bool) or tag < 0:
        raise InvalidInputError(f"a delivery tag is an int of at least 0, not {tag!r:.80}")
    if multiple:
        last = tag or (deliveries[-1].end_tag if deliveries else 0)
        chosen = {one: bits for one in deliveries if (bits := one.bits_up_to(last))}
        if not chosen and tag:
            raise not_open(None, tag)
        return chosen
    place = bisect_right(deliveries, tag, key=_first_tag) - 1
    delivery = deliveries[place] if place >= 0 else None
    if delivery is None or not delivery.open_bits & (bit := 1 << tag - delivery.first_tag):
        raise not_open(delivery, tag)
    return {delivery: bit}


def not_open(delivery: Delivery | None, tag: int) -> Exception:
    """The error of whoever says something of a message that is not his to settle."""
    if delivery is not None and delivery.is_lost:
        return late_error(1)
    return InvalidInputError(
        f"delivery tag {tag}: this message was settled before, or was never delivered on this "
        "channel"
    )


def late_error(count: int) -> LeaseExpiredError:
    return LeaseExpiredError(
        f"{count} message{'s were' if count > 1 else ' was'} settled too late: the lease had ended "
        "(consumer_timeout), and the queue delivers what was in it again"
    )
