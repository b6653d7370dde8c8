"""A queue of an open store: what consumers hold, and who binds it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from logstore.queues.definitions import QueueDefinition
from logstore.queues.exchange import Exchange

if TYPE_CHECKING:
    from logstore.queues.broker import Broker

__all__ = ["Queue"]


class Queue:
    """A queue of an open store. Usable from many threads."""

    def __init__(self, broker: Broker, definition: QueueDefinition) -> None:
        self._broker = broker
        self.definition = definition
        """What it was declared with."""

    @property
    def name(self) -> str:
        """Its name."""
        return self.definition.name

    def bind(
        self,
        source: Exchange | str,
        routing_key: str = "",
        arguments: Mapping[str, Any] | None = None,
    ) -> None:
        """Bind the queue to an exchange: messages that meet the binding come here from then on.

        What ``routing_key`` is depends on the exchange's type: the key itself, a pattern, nothing.
        ``arguments`` are what a headers exchange compares, ``x-match`` among them. Raises
        UnknownExchangeError, UnknownQueueError when the queue was deleted, AccessRefusedError for
        the default exchange.
        """
        self._broker.bind(source, self, routing_key, arguments)

    def unbind(
        self,
        source: Exchange | str,
        routing_key: str = "",
        arguments: Mapping[str, Any] | None = None,
    ) -> bool:
        """Take such a binding away, and say whether it was there."""
        return self._broker.unbind(source, self, routing_key, arguments)

    def delete(self, *, if_unused: bool = False, if_empty: bool = False) -> bool:
        """Delete the queue with all messages in it, and its bindings; say whether it was there.

        Raises PreconditionFailedError where it has consumers (``if_unused``) or messages
        (``if_empty``), ResourceLockedError where another session has it to itself.

        Commit point: the removal of its definition in ``__metadata``; whoever opens the store for
        writing finishes what a crash behind it left.
        """
        return self._broker.delete_queue(
            self.name,
            queue_id=self.definition.queue_id,
            if_unused=if_unused,
            if_empty=if_empty,
        )

    def __repr__(self) -> str:
        return f"Queue({self.name!r})"
