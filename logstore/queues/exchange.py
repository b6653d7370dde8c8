"""An exchange of an open store: what publishers hold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from logstore.appending import Acks
from logstore.queues.definitions import ExchangeDefinition
from logstore.queues.properties import PLAIN, Envelope, Properties
from logstore.queues.publisher import Publisher
from logstore.queues.publishing import (
    Confirm,
    Confirms,
    OnReturn,
    Outgoing,
    error_of,
    listed,
    return_unroutable,
    with_properties,
)

if TYPE_CHECKING:
    from logstore.queues.broker import Broker

__all__ = ["Exchange"]


class Exchange:
    """Routes messages to queues. Usable from many threads."""

    def __init__(self, broker: Broker, definition: ExchangeDefinition) -> None:
        self._broker = broker
        self.definition = definition
        """What it was declared with."""

    @property
    def name(self) -> str:
        """Its name; empty for the default exchange."""
        return self.definition.name

    @property
    def type(self) -> str:
        """direct, topic, fanout or headers."""
        return self.definition.type

    # Publishing -------------------------------------------------------------------------------

    def publish(
        self,
        body: bytes,
        routing_key: str = "",
        *,
        properties: Properties | None = None,
        mandatory: bool = False,
        acks: Acks = "all",
        on_return: OnReturn | None = None,
        **given: Any,
    ) -> Confirm:
        """Publish a message, and return when it is confirmed: when every queue that it was routed
        to holds it at ``acks``.

        ``given`` are properties by their names (``priority=3``), which replace those of
        ``properties``. With ``mandatory`` a message that no queue gets is returned: ``on_return``
        is called with it, or UnroutableError raised where there is none; otherwise it is dropped.
        Raises NackedError where a queue is full and refuses it, UnknownExchangeError,
        AccessRefusedError for an internal exchange, InvalidInputError.
        """
        made = PLAIN if properties is None and not given else with_properties(properties, given)
        confirm = self._broker.publish_one(body, self.definition.name, routing_key, made, acks)
        if confirm.rejected or (mandatory and not confirm.queues):
            confirms = Confirms.of_one(confirm)
            if mandatory:
                envelope = Envelope(body, made, self.name, routing_key)
                return_unroutable(confirms, lambda index: envelope, on_return)
            error = error_of(confirms, returns_told=on_return is not None)
            if error is not None:
                raise error
        return confirm

    def publish_batch(
        self,
        messages: Iterable[bytes | Outgoing],
        routing_key: str = "",
        *,
        properties: Properties | None = None,
        mandatory: bool = False,
        acks: Acks = "all",
        on_return: OnReturn | None = None,
        **given: Any,
    ) -> Confirms:
        """Publish many messages, in their order, with one append for each queue and level of
        priority, and one sync for each queue.

        A message is a body, which gets the batch's routing key and properties, or an Outgoing,
        which has its own. All are checked before anything is appended. Raises what ``publish``
        raises, once all is done: an error's ``confirms`` say which messages it is about.
        """
        made = with_properties(properties, given)
        bodies, envelopes = listed(messages, self.name, routing_key, made)
        if envelopes is None:
            confirms = self._broker.publish_alike(bodies, self.name, routing_key, made, acks)
        else:
            confirms = self._broker.publish(envelopes, acks)
        if mandatory:

            def envelope_of(index: int) -> Envelope:
                if envelopes is not None:
                    return envelopes[index]
                return Envelope(bodies[index], made, self.name, routing_key)

            return_unroutable(confirms, envelope_of, on_return)
        error = error_of(confirms, returns_told=on_return is not None)
        if error is not None:
            raise error
        return confirms

    def publisher(self, **options: Any) -> Publisher:
        """A publisher that confirms in the background; ``options`` are those of
        :class:`Publisher`: ``acks``, ``max_buffered``, ``max_buffered_bytes``, ``on_return``."""
        return self._broker.publisher(self.name, **options)

    # Bindings ---------------------------------------------------------------------------------

    def bind(
        self,
        source: Exchange | str,
        routing_key: str = "",
        arguments: Mapping[str, Any] | None = None,
    ) -> None:
        """Bind this exchange to another one, which passes it messages from then on."""
        self._broker.bind(source, self, routing_key, arguments)

    def unbind(
        self,
        source: Exchange | str,
        routing_key: str = "",
        arguments: Mapping[str, Any] | None = None,
    ) -> bool:
        """Take such a binding away, and say whether it was there."""
        return self._broker.unbind(source, self, routing_key, arguments)

    def delete(self, *, if_unused: bool = False) -> bool:
        """Delete the exchange with its bindings, and say whether it was there. Raises
        PreconditionFailedError where anything is bound to it and it must not be (``if_unused``)."""
        return self._broker.delete_exchange(self.name, if_unused=if_unused)

    def __repr__(self) -> str:
        return f"Exchange({self.name!r}, type={self.type!r})"
