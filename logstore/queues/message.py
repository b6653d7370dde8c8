"""Messages as they are delivered.

A message is a row that the decoder makes at once, as it makes records: in front of a record's
fields stands the delivery that it belongs to, which all messages of a lease share. So handing one
out costs what a record costs; whatever else there is to it is made when somebody asks.
"""

from __future__ import annotations

from functools import partial
from operator import itemgetter
from typing import Any, NoReturn, Protocol

from logstore.errors import InvalidInputError
from logstore.queues.properties import Envelope, Properties, from_record, shown_headers
from logstore.segments.record import Record

__all__ = ["LOOKED_AT", "Delivered", "Handle", "LookedAt", "Message"]

_new_record = partial(tuple.__new__, Record)


class Handle(Protocol):
    """What messages were delivered by, and are settled by."""

    @property
    def delivery_count(self) -> int:
        """How often they had come back before."""
        ...

    def tag(self, offset: int) -> int:
        """The delivery tag of a message."""
        ...

    def ack(self, offset: int, *, multiple: bool, flush: bool, durable: bool) -> None:
        """Acknowledge a message."""
        ...

    def nack(self, offset: int, *, multiple: bool, requeue: bool) -> None:
        """Give a message back, or give it up."""
        ...


class Delivered(tuple[Any, ...]):
    """A row of a log that was delivered: its handle, and a record's fields."""

    __slots__ = ()

    offset = property(itemgetter(1), doc="Its place in the log that it was delivered from.")


class Message(Delivered):
    """A message that was delivered. Acknowledge it, or give it back: until then it is yours."""

    __slots__ = ()

    timestamp_ms = property(
        itemgetter(2), doc="When it was published: milliseconds since 1970-01-01 UTC."
    )

    @property
    def body(self) -> bytes:
        """What was published."""
        return self[4] or b""

    @property
    def envelope(self) -> Envelope:
        """Body, properties, exchange and routing key, as they were published, but for the header
        ``BCC``. Raises FormatError where a stranger wrote what cannot be read."""
        stored = self.stored
        headers = stored.properties.headers
        if headers is None or "BCC" not in headers:
            return stored
        properties = stored.properties._replace(headers=shown_headers(headers))
        return stored._replace(properties=properties)

    @property
    def stored(self) -> Envelope:
        """The same with ``BCC``, whose keys a dead letter goes by, too."""
        return from_record(_new_record(self[1:]))

    @property
    def properties(self) -> Properties:
        """AMQP's basic properties."""
        return self.envelope.properties

    @property
    def exchange(self) -> str:
        """The exchange that it was published to; empty for the default one."""
        return self.envelope.exchange

    @property
    def routing_key(self) -> str:
        """The routing key that it was published with."""
        return self.envelope.routing_key

    @property
    def delivery_count(self) -> int:
        """How often it was given back after a delivery: 0 the first time."""
        handle: Handle = self[0]
        return handle.delivery_count

    @property
    def redelivered(self) -> bool:
        """Whether it may have been delivered before."""
        return self.delivery_count > 0

    @property
    def delivery_tag(self) -> int:
        """Its number on its channel."""
        handle: Handle = self[0]
        return handle.tag(self[1])

    def ack(self, *, multiple: bool = False, flush: bool = False, durable: bool = False) -> None:
        """Say that it is done; with ``multiple`` so are all that were delivered on its channel
        before.

        Acknowledgements are collected, up to 512 of them or for 5 ms; then, or at once with
        ``flush``, they survive the end of the process; with ``durable`` a power cut. Raises
        LeaseExpiredError when the message may be somebody else's by now, InvalidInputError when it
        was settled before.
        """
        self[0].ack(self[1], multiple=multiple, flush=flush, durable=durable)

    def nack(self, *, multiple: bool = False, requeue: bool = True) -> None:
        """Give it back to its place in the queue; without ``requeue`` give it up: it is
        dead-lettered, or dropped. Raises what ``ack`` raises."""
        self[0].nack(self[1], multiple=multiple, requeue=requeue)

    def reject(self, *, requeue: bool = False) -> None:
        """Give it up, so that it is dead-lettered, or dropped; or back, with ``requeue``."""
        self[0].nack(self[1], multiple=False, requeue=requeue)

    def __repr__(self) -> str:
        body = self.body if len(self.body) <= 40 else self.body[:40] + b"..."
        return f"Message({body!r}, routing_key={self.routing_key!r}, offset={self.offset})"


class LookedAt:
    """The handle of messages that were only looked at."""

    def __init__(self, delivery_count: int = 0) -> None:
        """``delivery_count``: how often they had come back."""
        self.delivery_count = delivery_count

    def tag(self, offset: int) -> int:
        """There is none."""
        self._refuse()

    def ack(self, offset: int, **_: bool) -> None:
        """It is nobody's."""
        self._refuse()

    nack = ack

    def _refuse(self) -> NoReturn:
        raise InvalidInputError("the message was only looked at: get or consume it to settle it")


LOOKED_AT = LookedAt()
