"""Sinks that are a queue or an exchange: of the store that the records come from, or of another.

Records are published as messages, as ``message_records`` says, in batches, and confirmed: a
message that a queue refuses or that no queue gets ends the replay. They are synced when the replay
is saved, and at its end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from logstore.errors import FormatError, InvalidInputError, UnknownQueueError
from logstore.fetcher import ConsumerRecord
from logstore.queues.properties import Envelope
from logstore.queues.publishing import check_message
from logstore.replay.errors import ReplayError
from logstore.replay.message_records import message_of
from logstore.store import Store

__all__ = ["ExchangeSink", "QueueSink"]


class _MessageSink:
    """What the two have in common. Not exact: after a kill, what came behind the last save comes
    again."""

    is_exact = False

    def __init__(self, store: Store, identity: Mapping[str, Any]) -> None:
        self.identity: Mapping[str, Any] = {**identity, "store": str(store.id)}
        self.delivered = 0
        self._broker = store.queues
        self._dirty: set[str] = set()
        """The queues that got something since the last sync."""

    def _publish(self, envelopes: Sequence[Envelope]) -> tuple[int, str]:
        """Publish messages; how many of the first ones arrived, and why not all."""
        raise NotImplementedError

    def write(self, records: Sequence[ConsumerRecord]) -> None:
        """Publish records; raises ReplayError where not all arrive."""
        envelopes = [self._made(record) for record in records]
        count, problem = self._publish(envelopes)
        self.delivered += count
        if problem:
            first = records[count]
            place = f"{first.topic}-{first.partition}, offset {first.offset}"
            raise ReplayError(f"{problem}; the first is from {place}")

    def _made(self, record: ConsumerRecord) -> Envelope:
        try:
            envelope = message_of(record)
            check_message(envelope.body, envelope.routing_key, envelope.properties)
        except (FormatError, InvalidInputError) as error:
            place = f"{record.topic}-{record.partition}, offset {record.offset}"
            raise ReplayError(f"{error}; from {place}") from error
        return envelope

    def flush(self) -> None:
        """Nothing is held back."""

    def position(self) -> Mapping[str, Any] | None:
        """It cannot tell; but what it got is on stable storage."""
        self._sync()
        return None

    def restore(self, position: Mapping[str, Any] | None) -> None:
        """It knows of nothing."""

    def _sync(self) -> None:
        """Nothing is left to do for a queue that was deleted."""
        there = {queue.name: queue for queue in self._broker.queues()}
        for name in sorted(self._dirty & there.keys()):
            for level in self._broker.work_queue(there[name]).levels():
                level.log.flush()
        self._dirty.clear()

    def close(self) -> None:
        """Sync; the store is closed by whoever has opened it."""
        self._sync()


class QueueSink(_MessageSink):
    """Puts records into one queue, whatever exchange and routing key they name."""

    def __init__(self, store: Store, name: str) -> None:
        """Raises UnknownQueueError."""
        store.queue(name, passive=True)
        super().__init__(store, {"queue": name})
        self._name = name

    def _publish(self, envelopes: Sequence[Envelope]) -> tuple[int, str]:
        published = self._broker.publish_into(self._name, envelopes, acks=1)
        if published is None:
            raise UnknownQueueError(f"queue {self._name!r} was deleted")
        self._dirty.add(self._name)
        if published.rejected:
            return published.rejected[0], f"queue {self._name!r} is full, and refuses messages"
        return len(envelopes), ""


class ExchangeSink(_MessageSink):
    """Publishes records to an exchange, by their own routing keys or by one for all."""

    def __init__(self, store: Store, name: str, routing_key: str | None = None) -> None:
        """Raises UnknownExchangeError."""
        store.exchange(name)
        super().__init__(store, {"exchange": name, "routing_key": routing_key})
        self._name = name
        self._routing_key = routing_key

    def _publish(self, envelopes: Sequence[Envelope]) -> tuple[int, str]:
        key = self._routing_key
        envelopes = [
            one._replace(exchange=self._name, routing_key=one.routing_key if key is None else key)
            for one in envelopes
        ]
        confirms = self._broker.publish(envelopes, 1)
        for index, confirm in enumerate(confirms):
            self._dirty.update(confirm.queues)
            if confirm.rejected:
                full = ", ".join(map(repr, confirm.rejected))
                return index, f"queue {full} is full, and refuses messages"
            if not confirm.queues:
                key = envelopes[index].routing_key
                return index, f"no queue gets messages from {self._name!r} by routing key {key!r}"
        return len(envelopes), ""
