"""Records as a share group delivers them."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from operator import itemgetter
from typing import TYPE_CHECKING, Any, cast

from logstore.queues.deliveries import Delivery
from logstore.queues.message import Delivered
from logstore.segments.record import Header
from logstore.shares.partition import SharePartition

if TYPE_CHECKING:
    from logstore.shares.group import Selection

__all__ = ["AcknowledgeType", "ShareRecord"]


class AcknowledgeType(enum.Enum):
    """What is said of a record (KIP-932)."""

    ACCEPT = "accept"
    """It was processed."""
    RELEASE = "release"
    """It was not, and is to be delivered again: the trouble may be over by then."""
    REJECT = "reject"
    """It cannot be, and is never delivered again."""
    RENEW = "renew"
    """It is being processed yet: its lock begins anew (KIP-1222)."""


class ShareRecord(Delivered):
    """A record that was acquired: it is yours until you have said something of it, or its lock has
    run out."""

    __slots__ = ()

    timestamp = property(
        itemgetter(2), doc="Milliseconds since 1970-01-01 UTC; -1 where the record has none."
    )

    @property
    def topic(self) -> str:
        """The topic's name."""
        return self._partition.topic

    @property
    def partition(self) -> int:
        """The partition's number."""
        return self._partition.number

    @property
    def _partition(self) -> SharePartition:
        delivery: Delivery = self[0]
        return cast(SharePartition, delivery.level)

    @property
    def key(self) -> bytes | None:
        """The key."""
        key: bytes | None = self[3]
        return key

    @property
    def value(self) -> bytes | None:
        """The value."""
        value: bytes | None = self[4]
        return value

    @property
    def headers(self) -> Sequence[Header]:
        """Its headers."""
        headers: Sequence[Header] = self[5]
        return headers

    @property
    def delivery_count(self) -> int:
        """How often it was delivered, this time included: 1 the first time."""
        count: int = self[0].delivery_count
        return count + 1

    # What is said of it -----------------------------------------------------------------------

    def accept(self, *, flush: bool = False, durable: bool = False) -> None:
        """It was processed.

        This is collected, up to 512 times or for 5 ms; then, or at once with ``flush``, it survives
        the end of the process; with ``durable`` a power cut. Raises LeaseExpiredError when the
        record may be somebody else's by now, InvalidInputError when something was said of it
        before.
        """
        self[0].ack(self[1], multiple=False, flush=flush, durable=durable)

    def release(self) -> None:
        """It is to be delivered again, at once; it is archived instead if this was its last
        delivery (``share_delivery_count_limit``). Raises what ``accept`` raises."""
        self[0].nack(self[1], multiple=False, requeue=True)

    def reject(self) -> None:
        """It is never delivered again. Raises what ``accept`` raises."""
        self[0].nack(self[1], multiple=False, requeue=False)

    def renew(self) -> None:
        """It is being processed yet: its lock begins anew, now, and lasts as long as the first one
        (``share_record_lock_duration_ms``); it has to be accepted, released or rejected in the end.
        The locks of other records go on as they were. Raises what ``accept`` raises,
        UnknownTopicError when the topic was deleted, and InvalidInputError where the group does not
        allow it (``share_renew_acknowledge_enable``)."""
        delivery: Delivery = self[0]
        cast("Selection", delivery.queue).check_renewal()
        delivery.renew(self[1])

    def acknowledge(self, kind: AcknowledgeType) -> None:
        """One of the four."""
        match kind:
            case AcknowledgeType.ACCEPT:
                self.accept()
            case AcknowledgeType.RELEASE:
                self.release()
            case AcknowledgeType.REJECT:
                self.reject()
            case _:
                self.renew()

    def is_open(self) -> bool:
        """Whether nothing was said of it yet, and it is not known to be somebody else's."""
        delivery: Delivery = self[0]
        return delivery.is_open(self[1])

    def __repr__(self) -> str:
        value: Any = self.value
        shown = value if value is None or len(value) <= 40 else value[:40] + b"..."
        return f"ShareRecord({self.topic}-{self.partition}, offset={self.offset}, {shown!r})"
