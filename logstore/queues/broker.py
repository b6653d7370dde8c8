"""The exchanges and queues of a store: the face that ``Store.queues`` shows."""

from __future__ import annotations

import contextlib
import uuid
import weakref
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, cast

from logstore.appending import Acks
from logstore.errors import (
    InvalidInputError,
    PreconditionFailedError,
    UnknownExchangeError,
    UnknownQueueError,
)
from logstore.foundation import Foundation
from logstore.log import PartitionLog
from logstore.queues.attendance import note_use
from logstore.queues.catalogue import Catalogue, DestinationType
from logstore.queues.channel import Channel
from logstore.queues.consumer_rows import load_queue_row
from logstore.queues.consumption import QueueConsumption
from logstore.queues.dead_letter import Reason
from logstore.queues.definitions import (
    BindingDefinition,
    ExchangeDefinition,
    QueueArguments,
    QueueDefinition,
)
from logstore.queues.exchange import Exchange
from logstore.queues.ledger_store import Ledgers
from logstore.queues.limits import DeadLetter
from logstore.queues.open_queues import OpenQueues
from logstore.queues.properties import Envelope, Properties, Published, check_short
from logstore.queues.publisher import Publisher
from logstore.queues.publishing import (
    Confirm,
    Confirms,
    publish,
    publish_alike,
    publish_dead,
    publish_into,
)
from logstore.queues.queue import WorkQueue
from logstore.queues.queue_face import Queue
from logstore.queues.queue_upkeep import Upkeep
from logstore.queues.rpc import RpcClient
from logstore.queues.single import SinglePublisher

__all__ = ["Broker"]


class Broker:
    """The exchanges and queues of an open store. Usable from many threads."""

    def __init__(self, base: Foundation) -> None:
        self._base = base
        self._catalogue = Catalogue(
            base.metadata, sessions=base.sessions, boot_id=base.files.boot_id()
        )
        self._opened = OpenQueues(base, self._catalogue, make=self._new_queue)
        self._open = self._opened.open
        self._single = SinglePublisher(self._open)
        self._ledgers = Ledgers(base.live, base.metadata)
        self._opened.on_deletion.append(lambda queue_id: self._ledgers.forget(queue_id.bytes))
        self._consumption = QueueConsumption(
            base.path,
            ledgers=self._ledgers,
            sessions=base.sessions,
            clock=base.clock,
            in_use=self._opened.in_use,
            find=self._find,
            delete=self._delete_unused,
        )
        self._publishers: weakref.WeakSet[Publisher] = weakref.WeakSet()
        self._rpc_clients: weakref.WeakSet[RpcClient] = weakref.WeakSet()

    # Exchanges --------------------------------------------------------------------------------

    def exchange(
        self,
        name: str,
        type: str | None = None,
        *,
        durable: bool = True,
        auto_delete: bool = False,
        internal: bool = False,
        alternate_exchange: str | None = None,
    ) -> Exchange:
        """The exchange of that name; with a ``type`` it is declared if it is not there. See
        ``Store.exchange``."""
        self._base.check_usable()
        check_short("the name of an exchange, name", name)
        if type is None:
            if durable is not True or auto_delete or internal or alternate_exchange is not None:
                raise InvalidInputError(
                    f"exchange {name!r}: to declare it with these arguments, give its type, too"
                )
            try:
                return Exchange(self, self._catalogue.exchange(name))
            except UnknownExchangeError as error:
                raise UnknownExchangeError(f"{error}; give a type to declare one") from None
        self._base.check_writable()
        definition = self._catalogue.declare_exchange(
            name,
            type,
            durable=durable,
            auto_delete=auto_delete,
            internal=internal,
            alternate_exchange=alternate_exchange,
        )
        return Exchange(self, definition)

    def exchanges(self) -> list[ExchangeDefinition]:
        """All exchanges, by name, the predeclared ones included."""
        self._base.check_usable()
        found = self._catalogue.topology().exchanges.values()
        return sorted(found, key=lambda exchange: exchange.name)

    def delete_exchange(self, name: str, *, if_unused: bool = False) -> bool:
        """See ``Exchange.delete``."""
        self._base.check_writable()
        return self._catalogue.delete_exchange(name, if_unused=if_unused)

    # Queues -----------------------------------------------------------------------------------

    def queue(
        self,
        name: str = "",
        *,
        passive: bool = False,
        durable: bool | None = None,
        exclusive: bool | None = None,
        auto_delete: bool | None = None,
        **arguments: Any,
    ) -> Queue:
        """The queue of that name, declared if it is not there; see ``Store.queue``."""
        self._base.check_usable()
        check_short("the name of a queue, name", name)
        flags = (durable, exclusive, auto_delete)
        given = flags != (None, None, None) or bool(arguments)
        if passive and given:
            raise InvalidInputError(f"queue {name!r}: passive declares nothing: no arguments")
        checked = QueueArguments.of(arguments)
        there = self._catalogue.topology().queues.get(name)
        if (
            there is not None
            and there.arguments.expires_ms is not None
            and not self._base.read_only
        ):
            self._consumption.expire(self._open(there))
        if not given:
            there = self._catalogue.topology().queues.get(name)
            if passive or (there is not None and not self._catalogue.is_gone(there)):
                return self._used(self._catalogue.queue(name))
        self._base.check_writable()
        definition = self._catalogue.declare_queue(
            name,
            durable=True if durable is None else durable,
            exclusive=False if exclusive is None else exclusive,
            auto_delete=False if auto_delete is None else auto_delete,
            arguments=checked,
        )
        return self._used(definition)

    def _used(self, definition: QueueDefinition) -> Queue:
        """To ask for a queue is to use it: it does not expire before long, and what expires in it
        is seen to from now on."""
        if not self._base.read_only:
            if definition.arguments.expires_ms is not None:
                queue = self._open(definition)
                note_use(queue)
                self._consumption.due(queue, 0)
            elif definition.arguments.message_ttl_ms is not None:
                self._open(definition)
        return Queue(self, definition)

    def queues(self) -> list[QueueDefinition]:
        """All queues, by name."""
        self._base.check_usable()
        queues = self._catalogue.topology().queues.values()
        living = (queue for queue in queues if not self._catalogue.is_gone(queue))
        return sorted(living, key=lambda queue: queue.name)

    def delete_queue(
        self,
        name: str,
        *,
        queue_id: uuid.UUID | None = None,
        if_unused: bool = False,
        if_empty: bool = False,
    ) -> bool:
        """See ``Queue.delete``."""
        self._base.check_writable()
        there = self._catalogue.topology().queues.get(name)
        if there is not None and (if_unused or if_empty) and not self._catalogue.is_gone(there):
            queue_id = queue_id or there.queue_id
            if queue_id != there.queue_id:
                return False
            with self._opened.sealing(there) as seal:

                def check(queue: QueueDefinition) -> None:
                    found = seal()
                    # As in RabbitMQ, what was delivered is not in the queue.
                    kept = found.ready + found.delayed + found.dead
                    if if_unused and found.consumers:
                        raise PreconditionFailedError(
                            f"queue {name!r} is in use (consumers: {found.consumers})"
                        )
                    if if_empty and kept:
                        raise PreconditionFailedError(
                            f"queue {name!r} is not empty (messages: {kept})"
                        )

                deleted = self._catalogue.delete_queue(name, queue_id=queue_id, check=check)
                seal.is_final = deleted is not None
        else:
            deleted = self._catalogue.delete_queue(name, queue_id=queue_id)
        self._opened.finish_deletions()
        return deleted is not None

    def _new_queue(self, definition: QueueDefinition) -> WorkQueue:
        queue = WorkQueue(
            definition,
            open_log=partial(self._opened.open_log, definition),
            has_log=partial(self._opened.has_log, definition),
            ledgers=self._ledgers,
            files=self._base.files,
            clock=self._base.clock,
            read_only=self._base.read_only,
            dead_letter=partial(self._bury, definition),
        )
        queue.on_work = partial(self._consumption.due, queue, 0)
        queue.on_unfit = Upkeep(queue).tidy_heads
        queue.on_due = partial(self._consumption.due, queue)
        if not self._base.read_only:
            row = self._ledgers.read(lambda rows, _: load_queue_row(rows, queue.id))
            if row.levels:  # there may be messages, and some of them expired
                self._consumption.due(queue, 0)
        return queue

    def _bury(self, definition: QueueDefinition, dead: Sequence[DeadLetter]) -> None:
        self.publish_dead(definition, [(one.envelope, cast(Reason, one.reason)) for one in dead])

    def _find(self, queue_id: bytes) -> WorkQueue | None:
        wanted = uuid.UUID(bytes=queue_id)
        for definition in self._catalogue.topology().queues.values():
            if definition.queue_id == wanted:
                return self._open(definition)
        return None

    def _delete_unused(self, queue: WorkQueue) -> None:
        """Delete a queue that has expired, or has lost its last consumer, unless it has one
        again."""
        definition = queue.definition
        if self._catalogue.is_gone(definition):  # exclusive, and its session has ended
            self.clear_up()
            return
        with contextlib.suppress(PreconditionFailedError, UnknownQueueError):
            self.delete_queue(definition.name, queue_id=definition.queue_id, if_unused=True)

    # Consuming --------------------------------------------------------------------------------

    def work_queue(self, definition: QueueDefinition) -> WorkQueue:
        """The logs and the ledgers of a queue. Raises UnknownQueueError when it was deleted."""
        self._base.check_usable()
        if definition.queue_id not in self._catalogue.topology().queue_ids:
            raise UnknownQueueError(f"queue {definition.name!r} was deleted")
        return self._open(definition)

    def writable_queue(self, definition: QueueDefinition) -> WorkQueue:
        """The same, to change something. Raises ReadOnlyError."""
        self._base.check_writable()
        return self.work_queue(definition)

    @property
    def consumption(self) -> QueueConsumption:
        """Who consumes here."""
        self._base.check_writable()
        return self._consumption

    def channel(self, *, prefetch: int = 0) -> Channel:
        """See ``Store.channel``."""
        return self.consumption.channel(prefetch=prefetch)

    def checkpoint(self) -> None:
        """Put what the ledgers of the queues in use have come to on stable storage."""
        self._consumption.checkpoint()

    # Bindings ---------------------------------------------------------------------------------

    def bind(
        self,
        source: Exchange | str,
        destination: Exchange | Queue,
        routing_key: str = "",
        arguments: Mapping[str, Any] | None = None,
    ) -> BindingDefinition:
        """See ``Queue.bind`` and ``Exchange.bind``."""
        self._base.check_writable()
        return self._catalogue.bind(
            _name(source), _kind(destination), destination.name, routing_key, arguments
        )

    def unbind(
        self,
        source: Exchange | str,
        destination: Exchange | Queue,
        routing_key: str = "",
        arguments: Mapping[str, Any] | None = None,
    ) -> bool:
        """See ``Queue.unbind`` and ``Exchange.unbind``."""
        self._base.check_writable()
        return self._catalogue.unbind(
            _name(source), _kind(destination), destination.name, routing_key, arguments
        )

    def bindings(self) -> list[BindingDefinition]:
        """All bindings, by source, destination and routing key."""
        self._base.check_usable()
        found = self._catalogue.topology().bindings
        return sorted(found, key=lambda b: (b.source, b.destination, b.routing_key))

    # Publishing -------------------------------------------------------------------------------

    def publish(self, envelopes: Sequence[Envelope], acks: Acks) -> Confirms:
        """Publish any messages; see ``Exchange.publish_batch``."""
        self._base.check_writable()
        topology = self._catalogue.topology()
        return publish(envelopes, topology=topology, open_queue=self._open, acks=acks)

    def publish_one(
        self,
        body: bytes,
        exchange: str,
        routing_key: str,
        properties: Properties,
        acks: Acks,
    ) -> Confirm:
        """Publish one message; see ``Exchange.publish``."""
        self._base.check_writable()
        topology = self._catalogue.topology()
        return self._single.publish(body, exchange, routing_key, properties, topology, acks)

    def publish_alike(
        self,
        bodies: Sequence[bytes],
        exchange: str,
        routing_key: str,
        properties: Properties,
        acks: Acks,
    ) -> Confirms:
        """Publish messages that have all but their bodies in common."""
        self._base.check_writable()
        return publish_alike(
            bodies,
            exchange,
            routing_key,
            properties,
            topology=self._catalogue.topology(),
            open_queue=self._open,
            acks=acks,
        )

    def publish_dead(self, queue: QueueDefinition, dead: Sequence[tuple[Envelope, Reason]]) -> int:
        """Publish messages that a queue has given up where it says, at ``acks="all"``; returns how
        many were dropped (see ``publishing.publish_dead``)."""
        self._base.check_writable()
        return publish_dead(
            dead,
            queue,
            topology=self._catalogue.topology(),
            open_queue=self._open,
            now_ms=self._base.clock.now_ms(),
        )

    def publish_into(
        self, queue: str, envelopes: Sequence[Envelope], acks: Acks = "all"
    ) -> Published | None:
        """Put messages into one queue (see ``publishing.publish_into``)."""
        self._base.check_writable()
        topology = self._catalogue.topology()
        return publish_into(queue, envelopes, topology=topology, open_queue=self._open, acks=acks)

    def publisher(self, exchange: str, **options: Any) -> Publisher:
        """See ``Exchange.publisher``."""
        self._base.check_writable()
        publisher = Publisher(
            self.publish, exchange=exchange, forget=self._publishers.discard, **options
        )
        self._publishers.add(publisher)
        return publisher

    # Calls ------------------------------------------------------------------------------------

    def rpc_client(self) -> RpcClient:
        """Calls servers by request and reply; see :class:`RpcClient` and ``Queue.serve``."""
        self._base.check_writable()
        client = RpcClient(self, forget=self._rpc_clients.discard)
        self._rpc_clients.add(client)
        return client

    # Upkeep -----------------------------------------------------------------------------------

    def partitions(self) -> Iterator[contextlib.AbstractContextManager[PartitionLog]]:
        """Every log of a queue that has files. One that is open here is lent; any other is opened
        for the moment."""
        return self._opened.partitions()

    def maintain(self) -> None:
        """What has to be done from time to time, also for queues that nobody uses."""
        self.clear_up()
        self._consumption.sweep(map(self._open, self.queues()))

    def clear_up(self) -> None:
        """Take away what is not there any more: by nobody's wish (sessions have ended, the machine
        was restarted), or by the wish of a process that was killed before it was done."""
        self._catalogue.sweep()
        self._opened.finish_deletions()

    def close(self) -> None:
        """End calls that wait, send what publishers have buffered, delete the exclusive queues of
        this session, and close all queues."""
        with contextlib.ExitStack() as stack:
            stack.callback(self._opened.close)
            stack.callback(self._delete_own)
            stack.callback(self._consumption.close)
            for publisher in list(self._publishers):
                stack.callback(publisher.close)
            for client in list(self._rpc_clients):
                stack.callback(client.close)

    def _delete_own(self) -> None:
        if self._base.read_only:
            return
        for queue in self._catalogue.topology().queues.values():
            if queue.exclusive is not None and self._base.sessions.is_own(queue.exclusive):
                self._catalogue.delete_queue(queue.name, queue_id=queue.queue_id)
                self._opened.finish_deletions()


def _name(exchange: Exchange | str) -> str:
    return exchange.name if isinstance(exchange, Exchange) else exchange


def _kind(destination: Exchange | Queue) -> DestinationType:
    return "queue" if isinstance(destination, Queue) else "exchange"
