"""A queue of an open store: what consumers hold, and who binds it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from logstore.appending import Acks
from logstore.queues.channel import Channel
from logstore.queues.consumer_rows import ConsumerRow
from logstore.queues.consuming import DEFAULT_PREFETCH, Consumer, check_count
from logstore.queues.definitions import QueueDefinition
from logstore.queues.exchange import Exchange
from logstore.queues.message import Message
from logstore.queues.queue import QueueCounts
from logstore.queues.redrive import Redriven, RedriveTarget, Where, redrive
from logstore.queues.rpc import DEFAULT_SERVER_PREFETCH, Handler, RpcServer
from logstore.queues.seeking import SeekTarget, Sought, seek

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

    # Consuming --------------------------------------------------------------------------------

    def consume(
        self,
        callback: Callable[[Message], object] | None = None,
        *,
        prefetch: int = DEFAULT_PREFETCH,
        no_ack: bool = False,
        exclusive: bool = False,
        timeout: float | None = None,
        tag: str = "",
        channel: Channel | None = None,
    ) -> Consumer:
        """Consume: an iterator over the messages, which waits for more; or, with a ``callback``, a
        thread that calls it with each of them.

        ``prefetch``: how many messages it may hold that are not settled; 0: any number.
        ``no_ack``: they are settled as they are handed out, and lost with whoever has them then.
        ``exclusive``: nobody else may consume. ``timeout``: seconds without a message after which
        iterating ends; None: never. ``tag``: the consumer's name in listings. Without a
        ``channel`` it has one of its own, and what it has not settled when it is closed goes back.
        Raises AccessRefusedError where another consumer is exclusive, UnknownQueueError.
        """
        queue = self._broker.work_queue(self.definition)
        return self._broker.consumption.consume(
            queue,
            callback,
            channel=channel,
            prefetch=prefetch,
            no_ack=no_ack,
            exclusive=exclusive,
            timeout=timeout,
            tag=tag,
        )

    def get(self, *, no_ack: bool = False, channel: Channel | None = None) -> Message | None:
        """The first message that is ready, or None; to be settled as a consumer's."""
        found = self.get_many(1, no_ack=no_ack, channel=channel)
        return found[0] if found else None

    def get_many(
        self, count: int, *, no_ack: bool = False, channel: Channel | None = None
    ) -> list[Message]:
        """Up to ``count`` messages that are ready."""
        queue = self._broker.work_queue(self.definition)
        return self._broker.consumption.get(queue, count, no_ack=no_ack, channel=channel)

    def peek(self, count: int = 1) -> list[Message]:
        """The first messages that are ready, which stay where they are; they cannot be settled."""
        check_count(count)
        return self._broker.work_queue(self.definition).peek(count)

    def purge(self) -> int:
        """Drop all messages that wait, delayed ones included, and return how many it were; those
        that were delivered stay their holders'."""
        return self._broker.writable_queue(self.definition).purge()

    def seek(
        self,
        offset: int | Literal["earliest", "latest"] | None = None,
        *,
        time_ms: int | None = None,
        shift_by: int | None = None,
        priority: int | None = None,
        dry_run: bool = False,
    ) -> list[Sought]:
        """Deliver from an earlier place again, or skip to a later one; returns what was done, for
        each level of priority, the highest first.

        To an ``offset``, or as far back or ahead as there is (``"earliest"``, ``"latest"``); to
        what was published at ``time_ms`` (milliseconds since 1970) or later; or by so many messages
        from the first one that was never delivered (``shift_by``, back below 0).

        Going back makes ready what was settled from there on and the log still has
        (``retention_ms``, ``retention_bytes``): redelivered, with a delivery count of 1. Going to
        the first message that was never delivered, or beyond it, settles all that waits in front.
        What consumers hold stays theirs either way, and their acknowledgements count. Offsets are
        counted for each ``priority``; ``dry_run`` only says what would be done. A seek survives a
        power cut.

        Raises InvalidInputError for a place that the log has not come to, PreconditionFailedError
        where more would be ready than ``max_length`` or ``max_length_bytes`` allow.
        """
        found = self._broker.work_queue if dry_run else self._broker.writable_queue
        target = SeekTarget(offset, time_ms, shift_by)
        return seek(found(self.definition), target, priority=priority, dry_run=dry_run)

    def redrive(
        self,
        *,
        where: Where | None = None,
        limit: int | None = None,
        queue: str | None = None,
        exchange: str | None = None,
        routing_key: str | None = None,
        dry_run: bool = False,
    ) -> Redriven:
        """Send the dead letters in this queue back to where they came from, and say what went
        where, and what stays and why.

        That is the queue in which each one died last, or else ``queue``, or ``exchange`` with
        ``routing_key`` (None: each one's own). ``where``: only those of which it says so
        (``logstore.replay.messages.message_test`` makes one of an expression); ``limit``: at most
        so many. Only what is ready now is looked at, and held meanwhile; what stays keeps its
        place, and does not count as redelivered. The history ``x-death`` moves into the header
        ``x-redrive``. A crash may leave a message in both places, and loses none. With
        ``dry_run`` nothing is taken. Raises InvalidInputError, UnknownExchangeError, what
        publishing raises, and what ``where`` raises.
        """
        found = self._broker.work_queue if dry_run else self._broker.writable_queue
        target = RedriveTarget(queue, exchange, routing_key)
        return redrive(
            self._broker,
            found(self.definition),
            target,
            where=where,
            limit=limit,
            dry_run=dry_run,
        )

    def counts(self) -> QueueCounts:
        """How many messages are ready, delivered, delayed; and how many consume."""
        return self._broker.work_queue(self.definition).counts()

    def consumers(self) -> list[ConsumerRow]:
        """Who consumes, in all processes."""
        return self._broker.work_queue(self.definition).consumers()

    # Calls ------------------------------------------------------------------------------------

    def serve(
        self,
        handler: Handler,
        *,
        threads: int = 1,
        prefetch: int = DEFAULT_SERVER_PREFETCH,
        acks: Acks = 1,
    ) -> RpcServer:
        """Answer the requests in the queue, in threads of the server's own, until it is closed.

        ``handler`` is called with each request, and returns the answer's body, or body and
        properties; its error is told to the caller (RpcRemoteError there). ``threads``: how many
        requests are answered at once, ``prefetch``: how many each thread takes at a time, ``acks``:
        how safe an answer is. Raises what ``consume`` raises.
        """
        return RpcServer(self._broker, self, handler, threads=threads, prefetch=prefetch, acks=acks)

    # Its end ----------------------------------------------------------------------------------

    def delete(self, *, if_unused: bool = False, if_empty: bool = False) -> bool:
        """Delete the queue with all messages in it, and its bindings; say whether it was there.

        Raises PreconditionFailedError where it has consumers (``if_unused``) or messages that are
        not delivered (``if_empty``), ResourceLockedError where another session has it to itself.

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
