"""What a producer gives for each record: a future, and a callback's arguments.

The records of a batch share one object, which learns where they went all at once; a future is no
more than that object and an index. A lock, a condition or an event for each record would cost more
than the rest of its way.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import NamedTuple, Protocol

from logstore.segments.record import Record

__all__ = ["DeliveryFuture", "OnDelivery", "PendingBatch", "RecordMetadata"]


class RecordMetadata(NamedTuple):
    """Where a record went."""

    topic: str
    partition: int
    offset: int
    """-1 where nobody waited to be told (``acks=0``)."""
    timestamp: int
    """Milliseconds since 1970-01-01 UTC: the record's own, or the time of its append."""


OnDelivery = Callable[[RecordMetadata | None, Exception | None], object]
"""Is told where a record went, or why it did not: one of the two is None."""


class Owner(Protocol):
    """Whose batches they are."""

    def add_callback(
        self, batch: PendingBatch, index: int, timestamp: int, callback: OnDelivery
    ) -> None:
        """Call ``callback`` when the batch is done, also if it is already."""
        ...


class PendingBatch:
    """Records on their way to one partition. Changed with the producer's mutex in hand."""

    __slots__ = (
        "attempts",
        "base_offset",
        "callbacks",
        "created",
        "done",
        "error",
        "event",
        "owner",
        "partition",
        "records",
        "reserved",
        "sequence",
        "size",
        "timestamp",
        "topic",
        "unwatched",
    )

    def __init__(
        self,
        owner: Owner,
        topic: str,
        partition: int,
        *,
        created: float,
        reserved: int,
        unwatched: bool,
    ) -> None:
        self.owner = owner
        """Who calls its callbacks."""
        self.topic = topic
        self.partition = partition
        self.created = created
        """When, by the clock that never goes back."""
        self.reserved = reserved
        """Bytes of the buffer that it takes."""
        self.unwatched = unwatched
        """Whether its futures do not wait for it (``acks=0``)."""
        self.records: list[Record] = []
        """Emptied when it has been delivered: a future that is kept must not keep them."""
        self.size = 0
        """Bytes of the records, at most."""
        self.sequence: int | None = None
        """The number of its first record, once it was tried."""
        self.attempts = 0
        self.done = False
        self.base_offset = -1
        self.timestamp: int | None = None
        """The time of its append, if that counts."""
        self.error: Exception | None = None
        self.callbacks: list[tuple[int, int, OnDelivery]] | None = None
        """Index and timestamp of each record whose sender wants to be told."""
        self.event: threading.Event | None = None
        """For those who wait."""

    def metadata(self, index: int, timestamp: int) -> RecordMetadata:
        """Where the record at ``index`` went."""
        offset = self.base_offset + index if self.base_offset >= 0 else -1
        timestamp = timestamp if self.timestamp is None else self.timestamp
        return RecordMetadata(self.topic, self.partition, offset, timestamp)

    def wait(self, timeout: float | None) -> bool:
        """Wait for its end, and say whether it has come."""
        if not self.done:
            with _making_events:
                event = self.event = self.event or threading.Event()
            # Whoever ends the batch looks for an event when `done` is set.
            if not self.done:
                event.wait(timeout)
        return self.done

    def tell(self, index: int, timestamp: int, callback: OnDelivery) -> None:
        """Call ``callback`` for the record at ``index`` when the batch is done."""
        if self.callbacks is None:
            self.callbacks = []
        self.callbacks.append((index, timestamp, callback))

    def end(self, error: Exception | None = None) -> None:
        """It was delivered, or ``error`` says why not."""
        self.error = error
        self.records = []
        self.done = True
        event = self.event
        if event is not None:
            event.set()


_making_events = threading.Lock()


class DeliveryFuture:
    """What becomes of a record. It is used like one of ``concurrent.futures``, and cannot be
    cancelled; functions of that module that take futures want their own."""

    __slots__ = ("_batch", "_index", "_timestamp")

    def __init__(self, batch: PendingBatch, index: int, timestamp: int) -> None:
        self._batch = batch
        self._index = index
        self._timestamp = timestamp

    def result(self, timeout: float | None = None) -> RecordMetadata:
        """Where the record went; waits ``timeout`` seconds for it (None: for ever), and raises
        TimeoutError after that. Raises why the record could not be delivered."""
        error = self.exception(timeout)
        if error is not None:
            raise error
        if self._batch.unwatched:
            return RecordMetadata(self._batch.topic, self._batch.partition, -1, self._timestamp)
        return self._batch.metadata(self._index, self._timestamp)

    def exception(self, timeout: float | None = None) -> Exception | None:
        """Why the record could not be delivered, or None; waits like :meth:`result`."""
        batch = self._batch
        if batch.unwatched:
            return None
        if not batch.done and not batch.wait(timeout):
            raise TimeoutError(
                f"the record for partition {batch.partition} of {batch.topic!r} was not delivered "
                f"within {timeout:g} seconds; it may still be"
            )
        return batch.error

    def done(self) -> bool:
        """Whether it was delivered, or will not be."""
        return self._batch.done or self._batch.unwatched

    def running(self) -> bool:
        """Whether it is on its way."""
        return not self.done()

    def cancel(self) -> bool:
        """A record that was sent cannot be taken back: False."""
        return False

    def cancelled(self) -> bool:
        """False."""
        return False

    def add_done_callback(self, function: Callable[[DeliveryFuture], object]) -> None:
        """Call ``function`` with the future when it is done, in the producer's thread; errors that
        it raises are logged."""
        self._batch.owner.add_callback(
            self._batch, self._index, self._timestamp, lambda metadata, error: function(self)
        )

    def __repr__(self) -> str:
        batch = self._batch
        state = "on its way"
        if self.done():
            state = f"failed: {batch.error!r}" if batch.error else "delivered"
        return f"<DeliveryFuture of {batch.topic!r}, partition {batch.partition}: {state}>"
