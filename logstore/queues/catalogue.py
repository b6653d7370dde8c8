"""Declaring, binding and deleting exchanges and queues.

What is declared stands in ``__metadata`` and in ``meta``, and every change goes through
``Metadata.update``: first the log (the commit point), then LMDB; so ``logstore repair`` makes each
from the other. A change is decided while nobody else can make one: two processes that declare the
same at once declare it once.

The rules are RabbitMQ's: to declare again with the same arguments changes nothing, with others it
is refused; deleting and unbinding what is not there changes nothing.
"""

from __future__ import annotations

import base64
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from logstore.definitions import QUEUE_PREFIX, decode
from logstore.errors import (
    AccessRefusedError,
    InvalidInputError,
    PreconditionFailedError,
    ResourceLockedError,
    UnknownExchangeError,
    UnknownQueueError,
)
from logstore.metadata import DEFINITIONS, META, Change, Metadata, View
from logstore.queues.definitions import (
    EXCHANGE_TYPES,
    PREFIXES,
    BindingDefinition,
    Definition,
    ExchangeDefinition,
    QueueArguments,
    QueueDefinition,
    binding_fields,
    binding_key,
    definition_from,
    exchange_fields,
    exchange_key,
    queue_fields,
    queue_from,
    queue_key,
)
from logstore.queues.field_table import encode_table
from logstore.queues.header_matching import check_match
from logstore.queues.properties import check_short
from logstore.queues.routing import DEFAULT_EXCHANGE
from logstore.queues.topology import PREDECLARED, Declared, Topology, topology_from
from logstore.sessions import Sessions

__all__ = ["Catalogue", "DestinationType"]

DestinationType = Literal["queue", "exchange"]

_RESERVED = "amq."


class _Known(NamedTuple):
    version: int
    """Of the definitions."""
    stored: dict[bytes, bytes]
    """The definitions as they stand in ``meta``, by their keys."""
    parsed: dict[bytes, Definition]
    topology: Topology


class Catalogue:
    """What is declared in a store. Usable from many threads."""

    def __init__(self, metadata: Metadata, *, sessions: Sessions, boot_id: str) -> None:
        self._metadata = metadata
        self._sessions = sessions
        self._boot_id = boot_id
        self._known: _Known | None = None
        """Replaced as a whole when any definition has changed."""

    # Looking ----------------------------------------------------------------------------------

    def topology(self) -> Topology:
        """All that is declared: the same object until a definition changes, in any process. A look
        that finds no change costs no transaction."""
        # A change behind this line is seen by the next look, if not by this one.
        version = self._metadata.version
        known = self._known
        if known is None or known.version != version:
            known = self._known = self._read(version, known)
        return known.topology

    def _read(self, version: int, known: _Known | None) -> _Known:
        """What is declared by now; ``known`` is what was before. Only what has changed is parsed,
        for thousands of bindings are much more to parse than to compare."""
        with self._metadata.transaction() as tables:
            stored = {
                key: value
                for prefix in PREFIXES
                for key, value in tables.items(DEFINITIONS, prefix.encode())
            }
        if known is not None and known.stored == stored:
            return known._replace(version=version)  # it was a topic that has changed
        before = {} if known is None else known.stored
        parsed = {}
        for key, value in stored.items():
            definition = known.parsed[key] if known and before.get(key) == value else None
            if definition is None:
                name = key.decode()
                definition = definition_from(name, decode(name, value, META), META)
            if definition is not None:
                parsed[key] = definition
        topology = topology_from(
            parsed.values(), boot_id=self._boot_id, before=known and known.topology
        )
        return _Known(version, stored, parsed, topology)

    def exchange(self, name: str) -> ExchangeDefinition:
        """The exchange of that name; raises UnknownExchangeError."""
        found = self.topology().exchanges.get(name)
        if found is None:
            raise unknown_exchange(name)
        return found

    def queue(self, name: str) -> QueueDefinition:
        """The queue of that name; raises UnknownQueueError, or ResourceLockedError for an exclusive
        one of another session."""
        found = self.topology().queues.get(name)
        if found is None or self.is_gone(found):
            raise unknown_queue(name)
        self._check_owner(found)
        return found

    def is_gone(self, queue: QueueDefinition) -> bool:
        """Whether the session of an exclusive queue has ended."""
        return queue.exclusive is not None and not self._sessions.is_alive(queue.exclusive)

    def _check_owner(self, queue: QueueDefinition) -> None:
        if queue.exclusive is not None and not self._sessions.is_own(queue.exclusive):
            raise ResourceLockedError(f"queue {queue.name!r} is exclusive to another session")

    def _declared(self, view: View) -> Declared:
        return Declared(view, boot_id=self._boot_id, is_alive=self._sessions.is_alive)

    # Exchanges --------------------------------------------------------------------------------

    def declare_exchange(
        self,
        name: str,
        type: str,
        *,
        durable: bool = True,
        auto_delete: bool = False,
        internal: bool = False,
        alternate_exchange: str | None = None,
    ) -> ExchangeDefinition:
        """Declare an exchange. Raises PreconditionFailedError where it is there with another type
        or other arguments, AccessRefusedError for a reserved name."""
        _check_name("an exchange", name)
        if type not in EXCHANGE_TYPES:
            raise InvalidInputError(
                f"the type of an exchange is one of {', '.join(EXCHANGE_TYPES)}; not {type!r:.80}"
            )
        _check_flags(durable=durable, auto_delete=auto_delete, internal=internal)
        if alternate_exchange is not None:
            check_short("alternate_exchange", alternate_exchange)
        wanted = ExchangeDefinition(
            name, type, durable, auto_delete, internal, alternate_exchange, self._run_of(durable)
        )
        return self._declare_exchange(wanted)

    def _declare_exchange(self, wanted: ExchangeDefinition) -> ExchangeDefinition:
        name = wanted.name
        if name == DEFAULT_EXCHANGE:
            raise AccessRefusedError("the default exchange is there, and cannot be declared")

        def declare(view: View) -> Sequence[Change]:
            declared = self._declared(view)
            there = declared.exchange(name)
            if there is None:
                _refuse_reserved("an exchange", name)
                new = exchange_key(name), exchange_fields(wanted)
                return [*declared.without_exchange(name), new]
            _check_same("exchange", name, there._asdict(), wanted._asdict())
            return []

        self._metadata.update(declare)
        return wanted

    def delete_exchange(self, name: str, *, if_unused: bool = False) -> bool:
        """Delete an exchange with its bindings, and say whether it was there. Raises
        PreconditionFailedError where anything is bound to it and it must not be (``if_unused``)."""
        if name in PREDECLARED:
            raise AccessRefusedError(f"exchange {name!r} is always there: it cannot be deleted")

        def delete(view: View) -> Sequence[Change]:
            declared = self._declared(view)
            if if_unused and declared.exchange(name) is not None and declared.is_source(name):
                raise PreconditionFailedError(f"exchange {name!r} has bindings: it is in use")
            return declared.without_exchange(name)

        return bool(self._metadata.update(delete))

    # Queues -----------------------------------------------------------------------------------

    def declare_queue(
        self,
        name: str = "",
        *,
        durable: bool = True,
        exclusive: bool = False,
        auto_delete: bool = False,
        arguments: QueueArguments | None = None,
    ) -> QueueDefinition:
        """Declare a queue; one without a name gets one.

        Raises PreconditionFailedError where it is there with other arguments, ResourceLockedError
        where another session has it to itself, or it is exclusive and was not or the other way
        round (as in RabbitMQ), AccessRefusedError for a reserved name.
        """
        _check_flags(durable=durable, exclusive=exclusive, auto_delete=auto_delete)
        given = name != ""
        if given:
            _check_name("a queue", name)
        else:
            unique = base64.urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode("ascii")
            name = f"{_RESERVED}gen-{unique}"
        wanted = QueueDefinition(
            uuid.uuid4(),
            name,
            durable,
            self._sessions.own if exclusive else None,
            auto_delete,
            arguments or QueueArguments(),
            self._run_of(durable),
        )
        found = wanted

        def declare(view: View) -> Sequence[Change]:
            nonlocal found
            declared = self._declared(view)
            there = declared.queue(name)
            if there is None:
                if given:
                    _refuse_reserved("a queue", name)
                new = queue_key(name), queue_fields(wanted)
                return [*declared.without_queue(name), new]
            self._check_owner(there)
            if (there.exclusive is None) is not (wanted.exclusive is None):
                raise ResourceLockedError(
                    f"queue {name!r} is there with another exclusive: declared now with "
                    f"{exclusive}, and before with {not exclusive}"
                )
            _check_same("queue", name, _comparable(there), _comparable(wanted))
            found = there
            return []

        self._metadata.update(declare)
        return found

    def delete_queue(
        self,
        name: str,
        *,
        queue_id: uuid.UUID | None = None,
        check: Callable[[QueueDefinition], None] = lambda queue: None,
    ) -> QueueDefinition | None:
        """Delete a queue with its bindings, and return what it was; None if it was not there, or
        has another id by now.

        ``check`` is called with the locks of the definitions in hand, and may raise to refuse.
        Raises ResourceLockedError.
        """
        found: QueueDefinition | None = None

        def delete(view: View) -> Sequence[Change]:
            nonlocal found
            declared = self._declared(view)
            there = declared.queue(name)
            if there is None or queue_id not in (None, there.queue_id):
                return []
            self._check_owner(there)
            check(there)
            found = there
            return declared.without_queue(name)

        self._metadata.update(delete)
        return found

    # Bindings ---------------------------------------------------------------------------------

    def bind(
        self,
        source: str,
        destination_type: DestinationType,
        destination: str,
        routing_key: str = "",
        arguments: Mapping[str, Any] | None = None,
    ) -> BindingDefinition:
        """Bind a queue, or another exchange, to the exchange ``source``; a binding that is there
        stays as it is. Raises UnknownExchangeError, UnknownQueueError, ResourceLockedError, and
        AccessRefusedError for the default exchange."""
        binding = _binding(source, destination_type, destination, routing_key, arguments)
        made = binding

        def bind(view: View) -> Sequence[Change]:
            nonlocal made
            declared = self._declared(view)
            exchange = self._source_of(declared, binding)
            end = self._destination_of(declared, binding)
            if exchange.type == "headers":
                check_match(binding.arguments)
            made = binding._replace(boot_id=self._run_of(exchange.durable and end.durable))
            key = binding_key(made)
            return [] if declared.has_binding(key) else [(key, binding_fields(made))]

        self._metadata.update(bind)
        return made

    def unbind(
        self,
        source: str,
        destination_type: DestinationType,
        destination: str,
        routing_key: str = "",
        arguments: Mapping[str, Any] | None = None,
    ) -> bool:
        """The opposite, for a binding with just that key and those arguments; says whether it was
        there: it is not, as in RabbitMQ, where the exchange or the queue is not. An auto-delete
        exchange goes with the last binding. Raises ResourceLockedError, and AccessRefusedError for
        the default exchange."""
        binding = _binding(source, destination_type, destination, routing_key, arguments)

        def unbind(view: View) -> Sequence[Change]:
            declared = self._declared(view)
            queue = declared.queue(destination) if destination_type == "queue" else None
            if queue is not None:
                self._check_owner(queue)
            return declared.without_binding(binding_key(binding))

        return bool(self._metadata.update(unbind))

    def _source_of(self, declared: Declared, binding: BindingDefinition) -> ExchangeDefinition:
        exchange = declared.exchange(binding.source)
        if exchange is None:
            raise unknown_exchange(binding.source)
        return exchange

    def _destination_of(
        self, declared: Declared, binding: BindingDefinition
    ) -> QueueDefinition | ExchangeDefinition:
        name = binding.destination
        if binding.destination_type == "exchange":
            exchange = declared.exchange(name)
            if exchange is None:
                raise unknown_exchange(name)
            return exchange
        queue = declared.queue(name)
        if queue is None:
            raise unknown_queue(name)
        self._check_owner(queue)
        return queue

    # Clearing up ------------------------------------------------------------------------------

    def sweep(self) -> None:
        """Take away what is not durable and belongs to another run of the machine, and the
        exclusive queues of sessions that have ended."""
        topology = self.topology()
        if topology.has_stale or any(map(self.is_gone, topology.queues.values())):
            self._metadata.update(lambda view: self._declared(view).without_stale())

    def deleting(self) -> dict[str, QueueDefinition]:
        """The queues that were deleted, and whose files may still be there, by keys for
        :meth:`deleted`."""
        found = self._metadata.deleting(QUEUE_PREFIX)
        return {key: queue_from(key, fields, "meta") for key, fields in found.items()}

    def deleted(self, key: str) -> None:
        """Nothing is left of a queue that was being deleted."""
        self._metadata.deleted(key)

    def _run_of(self, durable: bool) -> str | None:
        return None if durable else self._boot_id


def unknown_exchange(name: str) -> UnknownExchangeError:
    """The error of an exchange that is not there."""
    return UnknownExchangeError(f"there is no exchange called {name!r}")


def unknown_queue(name: str) -> UnknownQueueError:
    """The error of a queue that is not there."""
    return UnknownQueueError(f"there is no queue called {name!r}")


def _check_name(what: str, name: str) -> None:
    check_short(f"the name of {what}, name", name)


def _refuse_reserved(what: str, name: str) -> None:
    if name.startswith(_RESERVED):
        raise AccessRefusedError(
            f"{name!r} is no name for {what}: those that begin with {_RESERVED!r} are reserved"
        )


def _check_flags(**flags: object) -> None:
    for name, value in flags.items():
        if not isinstance(value, bool):
            raise InvalidInputError(f"{name} is True or False, not {value!r:.80}")


def _comparable(queue: QueueDefinition) -> dict[str, Any]:
    """What a queue was declared with."""
    return {
        "durable": queue.durable,
        "auto_delete": queue.auto_delete,
        **queue.arguments._asdict(),
    }


def _check_same(what: str, name: str, there: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    for argument, value in wanted.items():
        current = there[argument]
        if value != current and argument != "boot_id":
            raise PreconditionFailedError(
                f"{what} {name!r} is there with another {argument}: declared now with "
                f"{_shown(value)}, and before with {_shown(current)}"
            )


def _shown(value: object) -> str:
    return "none" if value is None else repr(value)


def _binding(
    source: str,
    destination_type: DestinationType,
    destination: str,
    routing_key: str,
    arguments: Mapping[str, Any] | None,
) -> BindingDefinition:
    """A binding whose parts make sense; raises InvalidInputError, AccessRefusedError."""
    if destination_type not in ("queue", "exchange"):
        raise InvalidInputError(
            f"destination_type is queue or exchange, not {destination_type!r:.80}"
        )
    for what, text in (
        ("source", source),
        ("destination", destination),
        ("routing_key", routing_key),
    ):
        check_short(what, text)
    if source == DEFAULT_EXCHANGE or (
        destination_type == "exchange" and destination == DEFAULT_EXCHANGE
    ):
        raise AccessRefusedError(
            "the default exchange has a binding to each queue, by its name, and no others"
        )
    if arguments is not None and not isinstance(arguments, Mapping):
        raise InvalidInputError(f"arguments are a dict, not {type(arguments).__name__}")
    arguments = dict(arguments or {})
    encode_table(arguments)
    return BindingDefinition(source, destination_type, destination, routing_key, arguments)
