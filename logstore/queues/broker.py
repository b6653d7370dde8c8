"""The exchanges and queues of a store: the face that ``Store.queues`` shows."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import uuid
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from logstore.appending import Acks
from logstore.clock import Clock
from logstore.config import LogConfig
from logstore.deletion import remove_deleted
from logstore.errors import (
    InvalidInputError,
    LockTimeoutError,
    LogstoreError,
    PreconditionFailedError,
    ReadOnlyError,
    UnknownExchangeError,
    UnknownTopicError,
)
from logstore.log import PartitionLog
from logstore.metadata import Metadata
from logstore.partition_files import PartitionFiles
from logstore.queues.catalogue import Catalogue, DestinationType
from logstore.queues.definitions import (
    BindingDefinition,
    ExchangeDefinition,
    QueueArguments,
    QueueDefinition,
)
from logstore.queues.exchange import Exchange
from logstore.queues.properties import Envelope, Properties, Published, to_records
from logstore.queues.publisher import Publisher
from logstore.queues.publishing import Confirm, Confirms, publish, publish_alike, publish_one
from logstore.segments.files import Files
from logstore.sessions import Sessions

__all__ = ["QUEUES", "Broker", "Queue"]

_log = logging.getLogger("logstore")

QUEUES = "queues"
"""The directory of the queues' logs, in the store's."""

LOG_CONFIG = LogConfig.from_overrides(
    {"retention_ms": -1, "retention_bytes": -1, "segment_bytes": 64 << 20}
)
"""How the logs of queues are kept: what is not acknowledged stays, and what is goes by segments."""


class WorkQueue:
    """The logs of one queue."""

    def __init__(
        self, definition: QueueDefinition, *, open_log: Callable[[int], PartitionLog], clock: Clock
    ) -> None:
        self.definition = definition
        self._open_log = open_log
        self._clock = clock
        self._mutex = threading.Lock()
        self._logs: dict[int, PartitionLog] = {}

    def publish(self, envelopes: Sequence[Envelope], *, acks: Acks) -> Published:
        """Append messages, at once for each level of priority."""
        highest = self.definition.levels - 1
        by_level: dict[int, list[Envelope]] = {}
        if highest:
            for envelope in envelopes:
                level = min(envelope.properties.priority or 0, highest)
                by_level.setdefault(level, []).append(envelope)
        else:
            by_level[0] = list(envelopes)
        now = self._clock.now_ms()
        for level, chosen in by_level.items():
            self._log(level).append(to_records(chosen, timestamp_ms=now), acks=acks)
        return Published()

    def _log(self, level: int) -> PartitionLog:
        with self._mutex:
            log = self._logs.get(level)
            if log is None:
                log = self._logs[level] = self._open_log(level)
            return log

    def close(self) -> None:
        """Let go of the logs, which their opener closes."""
        self._logs.clear()


class Broker:
    """The exchanges and queues of an open store. Usable from many threads."""

    def __init__(
        self,
        store: str,
        *,
        metadata: Metadata,
        sessions: Sessions,
        files: Files,
        clock: Clock,
        read_only: bool,
        check_usable: Callable[[], None],
        making: Callable[[], contextlib.AbstractContextManager[None]],
    ) -> None:
        self._store = store
        self._sessions = sessions
        self._files = files
        self._clock = clock
        self._read_only = read_only
        self._check_usable = check_usable
        self._making = making
        self._catalogue = Catalogue(metadata, sessions=sessions, boot_id=files.boot_id())
        self._partitions = PartitionFiles(
            os.path.join(store, QUEUES),
            files=files,
            clock=clock,
            read_only=read_only,
            making=making,
            is_defined=lambda queue_id, _: queue_id in self._catalogue.topology().queue_ids,
            kind="queue",
        )
        self._mutex, self._opening = threading.Lock(), threading.Lock()
        """Held to open and close queues, and logs."""
        self._queues: dict[uuid.UUID, WorkQueue] = {}
        """Those that are in use here."""
        self._logs: dict[tuple[uuid.UUID, int], PartitionLog] = {}
        """Their logs, by level of priority."""
        self._publishers: weakref.WeakSet[Publisher] = weakref.WeakSet()
        self.on_deletion: list[Callable[[uuid.UUID], object]] = []
        """Called with the id of a deleted queue, perhaps more than once."""

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
        self._check_usable()
        if type is None:
            if durable is not True or auto_delete or internal or alternate_exchange is not None:
                raise InvalidInputError(
                    f"exchange {name!r}: to declare it with these arguments, give its type, too"
                )
            try:
                return Exchange(self, self._catalogue.exchange(name))
            except UnknownExchangeError as error:
                raise UnknownExchangeError(f"{error}; give a type to declare one") from None
        self._check_writable()
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
        self._check_usable()
        found = self._catalogue.topology().exchanges.values()
        return sorted(found, key=lambda exchange: exchange.name)

    def delete_exchange(self, name: str, *, if_unused: bool = False) -> bool:
        """See ``Exchange.delete``."""
        self._check_writable()
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
        self._check_usable()
        flags = (durable, exclusive, auto_delete)
        given = flags != (None, None, None) or bool(arguments)
        if passive and given:
            raise InvalidInputError(f"queue {name!r}: passive declares nothing: no arguments")
        checked = QueueArguments.of(arguments)
        if not given and name:
            there = self._catalogue.topology().queues.get(name)
            if passive or (there is not None and not self._catalogue.is_gone(there)):
                return Queue(self, self._catalogue.queue(name))
        self._check_writable()
        definition = self._catalogue.declare_queue(
            name,
            durable=True if durable is None else durable,
            exclusive=False if exclusive is None else exclusive,
            auto_delete=False if auto_delete is None else auto_delete,
            arguments=checked,
        )
        return Queue(self, definition)

    def queues(self) -> list[QueueDefinition]:
        """All queues, by name."""
        self._check_usable()
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
        self._check_writable()

        def check(queue: QueueDefinition) -> None:
            if if_empty and self._log_end(queue):
                raise PreconditionFailedError(f"queue {queue.name!r} is not empty")

        deleted = self._catalogue.delete_queue(name, queue_id=queue_id, check=check)
        self.finish_deletions()
        return deleted is not None

    def _log_end(self, queue: QueueDefinition) -> int:
        work_queue = self._open(queue)
        return sum(work_queue._log(level).log_end_offset for level in range(queue.levels))

    # Bindings ---------------------------------------------------------------------------------

    def bind(
        self,
        source: Exchange | str,
        destination: Exchange | Queue,
        routing_key: str = "",
        arguments: Mapping[str, Any] | None = None,
    ) -> BindingDefinition:
        """See ``Queue.bind`` and ``Exchange.bind``."""
        self._check_writable()
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
        self._check_writable()
        return self._catalogue.unbind(
            _name(source), _kind(destination), destination.name, routing_key, arguments
        )

    def bindings(self) -> list[BindingDefinition]:
        """All bindings, by source, destination and routing key."""
        self._check_usable()
        found = self._catalogue.topology().bindings
        return sorted(found, key=lambda b: (b.source, b.destination, b.routing_key))

    # Publishing -------------------------------------------------------------------------------

    def publish(self, envelopes: Sequence[Envelope], acks: Acks) -> Confirms:
        """Publish any messages; see ``Exchange.publish_batch``."""
        self._check_writable()
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
        self._check_writable()
        return publish_one(
            body,
            exchange,
            routing_key,
            properties,
            topology=self._catalogue.topology(),
            open_queue=self._open,
            acks=acks,
        )

    def publish_alike(
        self,
        bodies: Sequence[bytes],
        exchange: str,
        routing_key: str,
        properties: Properties,
        acks: Acks,
    ) -> Confirms:
        """Publish messages that have all but their bodies in common."""
        self._check_writable()
        return publish_alike(
            bodies,
            exchange,
            routing_key,
            properties,
            topology=self._catalogue.topology(),
            open_queue=self._open,
            acks=acks,
        )

    def publisher(self, exchange: str, **options: Any) -> Publisher:
        """See ``Exchange.publisher``."""
        self._check_writable()
        publisher = Publisher(
            self.publish, exchange=exchange, forget=self._publishers.discard, **options
        )
        self._publishers.add(publisher)
        return publisher

    # The queues in use ------------------------------------------------------------------------

    def _open(self, definition: QueueDefinition) -> WorkQueue:
        queue = self._queues.get(definition.queue_id)
        if queue is not None:
            return queue
        with self._mutex:
            queue = self._queues.get(definition.queue_id)
            if queue is None:
                queue = self._queues[definition.queue_id] = WorkQueue(
                    definition,
                    open_log=lambda level: self._open_log(definition, level),
                    clock=self._clock,
                )
            return queue

    def _open_log(self, definition: QueueDefinition, level: int) -> PartitionLog:
        self._check_usable()
        key = definition.queue_id, level
        with self._opening:
            log = self._logs.get(key)
            if log is None:
                log = self._logs[key] = self._new_log(definition, level)
            return log

    def _new_log(self, definition: QueueDefinition, level: int) -> PartitionLog:
        queue_id = definition.queue_id
        return self._partitions.open(queue_id.hex, level, queue_id, LOG_CONFIG)

    def partitions(self) -> Iterator[contextlib.AbstractContextManager[PartitionLog]]:
        """Every log of a queue that has files. One that is open here is lent; any other is opened
        for the moment."""
        for definition in self._catalogue.topology().queues.values():
            for level in self._levels(definition):
                opened = self._logs.get((definition.queue_id, level))
                if opened is not None:
                    yield contextlib.nullcontext(opened)
                    continue
                with contextlib.suppress(UnknownTopicError):  # it was just deleted
                    yield self._new_log(definition, level)

    def _drop_deleted(self) -> None:
        """Let go of queues that are not declared any more."""
        there = self._catalogue.topology().queue_ids
        gone: list[WorkQueue | PartitionLog] = []
        with self._mutex:
            gone += [self._queues.pop(key) for key in list(self._queues) if key not in there]
        with self._opening:
            gone += [self._logs.pop(key) for key in list(self._logs) if key[0] not in there]
        for one in gone:
            with contextlib.suppress(LogstoreError, OSError):  # there is nothing left to save
                one.close()

    # Upkeep -----------------------------------------------------------------------------------

    def maintain(self) -> None:
        """Take away what is not there any more: by nobody's wish (sessions have ended, the machine
        was restarted), or by the wish of a process that was killed before it was done."""
        self._catalogue.sweep()
        self.finish_deletions()

    def finish_deletions(self) -> None:
        """Take away what is left of deleted queues: by this process, or by one that was killed.
        What somebody else holds is left for the next time."""
        self._drop_deleted()
        for key, queue in self._catalogue.deleting().items():
            try:
                with self._making():
                    for level in self._levels(queue):
                        self._partitions.take_away(queue.queue_id.hex, level, queue.queue_id)
            except LockTimeoutError as error:
                _log.warning("queue %r is taken away later: %s", queue.name, error)
                continue
            for forget in self.on_deletion:
                forget(queue.queue_id)
            self._catalogue.deleted(key)
        if self._files.is_directory(self._partitions.directory):
            remove_deleted(self._files, self._partitions.directory)

    def _levels(self, queue: QueueDefinition) -> Iterator[int]:
        """Those that have files."""
        for level in range(queue.levels):
            if self._partitions.exists(queue.queue_id.hex, level):
                yield level

    def _check_writable(self) -> None:
        self._check_usable()
        if self._read_only:
            raise ReadOnlyError(f"{self._store}: the store was opened for reading only")

    def close(self) -> None:
        """Send what publishers have buffered, delete the exclusive queues of this session, and
        close all queues."""
        with contextlib.ExitStack() as stack:
            for log in self._logs.values():
                stack.callback(log.close)
            for queue in self._queues.values():
                stack.callback(queue.close)
            for publisher in list(self._publishers):
                publisher.close()
            self._delete_own()

    def _delete_own(self) -> None:
        if self._read_only:
            return
        for queue in self._catalogue.topology().queues.values():
            if queue.exclusive is not None and self._sessions.is_own(queue.exclusive):
                self._catalogue.delete_queue(queue.name, queue_id=queue.queue_id)
                self.finish_deletions()


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


def _name(exchange: Exchange | str) -> str:
    return exchange.name if isinstance(exchange, Exchange) else exchange


def _kind(destination: Exchange | Queue) -> DestinationType:
    return "queue" if isinstance(destination, Queue) else "exchange"
