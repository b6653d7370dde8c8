"""Request and reply: a call over queues.

A caller publishes a request that names a queue for the answer (``reply_to``) and a number of its
own (``correlation_id``), and waits; a server answers to that queue, with that number (RabbitMQ's
pattern, and AMQP's two properties for it). Each caller has one reply queue, exclusive to it and
gone with it, and one consumer that hands each answer to the thread that waits for it.

A call that nobody answers in time ends in RpcTimeoutError. Its request expires with it, if no
server has taken it yet, and its answer, if it comes after all, is dropped. A server that is killed
over a request has it delivered to another one: a handler may be called twice for one call, and the
first answer counts.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import TYPE_CHECKING, Any

from logstore.appending import Acks
from logstore.errors import (
    ClosedError,
    InvalidInputError,
    LogstoreError,
    RpcRemoteError,
    RpcTimeoutError,
    UnknownQueueError,
)
from logstore.queues.message import Message
from logstore.queues.properties import MAX_MS, PLAIN, Properties
from logstore.queues.publishing import with_properties

if TYPE_CHECKING:
    from logstore.queues.broker import Broker
    from logstore.queues.queue_face import Queue

__all__ = ["ERROR_TYPE", "Handler", "RpcClient", "RpcServer"]

_log = logging.getLogger("logstore")

DEFAULT_TIMEOUT = 30.0
"""Seconds that a call waits."""
DEFAULT_SERVER_PREFETCH = 1
"""A server takes one request at a time, so that a slow one keeps nobody waiting behind it."""
ERROR_TYPE = "logstore.error"
"""The property ``type`` of an answer that says that the handler failed; the body says how."""

Handler = Callable[[Message], bytes | tuple[bytes, Properties]]
"""Answers a request with a body, or with a body and properties of the answer."""


class RpcClient:
    """Calls servers. Usable from many threads at once; see ``Broker.rpc_client``."""

    def __init__(
        self, broker: Broker, *, forget: Callable[[RpcClient], object] = lambda _: None
    ) -> None:
        """``forget`` is called when it is closed."""
        self._broker = broker
        self._forget_me = forget
        self._numbers = itertools.count(1)
        self._mutex = threading.Lock()
        """Held to look at what follows."""
        self._waiting: dict[str, Future[Message]] = {}
        """The calls that wait, by correlation id."""
        self._closed = False
        self._queue = broker.queue("", exclusive=True, auto_delete=True, durable=False)
        try:
            self._consumer = self._queue.consume(self._answered, prefetch=0, no_ack=True)
        except BaseException:
            with contextlib.suppress(LogstoreError):
                self._queue.delete()
            raise

    @property
    def reply_queue(self) -> str:
        """The name of the queue that answers come to."""
        return self._queue.name

    def call(
        self,
        routing_key: str,
        body: bytes = b"",
        *,
        exchange: str = "",
        timeout: float = DEFAULT_TIMEOUT,
        properties: Properties | None = None,
        acks: Acks = 1,
        **given: Any,
    ) -> Message:
        """Publish a request, wait for the answer, and return it.

        With the default exchange ``routing_key`` is the name of the server's queue. ``timeout`` in
        seconds; ``given`` are further properties of the request. Raises RpcTimeoutError,
        RpcRemoteError when the server's handler failed, UnroutableError when no queue gets the
        request, ClosedError when the client is closed meanwhile, and what publishing raises.
        """
        future = self.submit(
            routing_key,
            body,
            exchange=exchange,
            timeout=timeout,
            properties=properties,
            acks=acks,
            **given,
        )
        try:
            answer = future.result(timeout)
        except FutureTimeoutError:
            raise RpcTimeoutError(
                f"no answer to a request to {routing_key!r} within {timeout:g} seconds"
            ) from None
        finally:
            future.cancel()
        if answer.properties.type == ERROR_TYPE:
            raise RpcRemoteError(answer.body.decode(errors="replace"))
        return answer

    def submit(
        self,
        routing_key: str,
        body: bytes = b"",
        *,
        exchange: str = "",
        timeout: float = DEFAULT_TIMEOUT,
        properties: Properties | None = None,
        acks: Acks = 1,
        **given: Any,
    ) -> Future[Message]:
        """Publish a request, and return the answer to come: for many calls at once from one thread.

        The request expires after ``timeout`` seconds; the future waits as long as its caller does,
        and does not look at the answer: an error of the server's is an answer of ``ERROR_TYPE``.
        Cancelling it drops the answer. Raises what ``call`` raises for the request.
        """
        expiration = _expiration(timeout)
        made = with_properties(properties, given)
        if made.reply_to is not None or made.correlation_id is not None:
            raise InvalidInputError("reply_to and correlation_id of a request are the client's own")
        number = str(next(self._numbers))
        made = made._replace(
            reply_to=self._queue.name,
            correlation_id=number,
            expiration=expiration if made.expiration is None else made.expiration,
        )
        future: Future[Message] = Future()
        with self._mutex:
            if self._closed:
                raise ClosedError("the RPC client was closed")
            self._waiting[number] = future
        future.add_done_callback(lambda _: self._forget(number))
        try:
            self._broker.exchange(exchange).publish(
                body, routing_key, properties=made, mandatory=True, acks=acks
            )
        except BaseException:
            future.cancel()
            raise
        return future

    def _forget(self, number: str) -> None:
        with self._mutex:
            self._waiting.pop(number, None)

    def _answered(self, message: Message) -> None:
        """An answer has come; nobody may wait for it any more."""
        with self._mutex:
            future = self._waiting.get(message.properties.correlation_id or "")
        if future is not None and future.set_running_or_notify_cancel():
            future.set_result(message)

    def close(self) -> None:
        """End all calls that wait with ClosedError, and delete the reply queue; closing twice is
        allowed."""
        with self._mutex:
            if self._closed:
                return
            self._closed = True
            waiting = list(self._waiting.values())
        self._forget_me(self)
        try:
            # It is an auto-delete queue: whoever looks after such queues may be quicker.
            with contextlib.suppress(UnknownQueueError):
                self._consumer.close()
            with contextlib.suppress(UnknownQueueError):
                self._queue.delete()
        finally:
            for future in waiting:
                if future.set_running_or_notify_cancel():
                    future.set_exception(ClosedError("the RPC client was closed"))

    def __enter__(self) -> RpcClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class RpcServer:
    """Answers the requests in a queue, in threads of its own; see ``Queue.serve``."""

    def __init__(
        self,
        broker: Broker,
        queue: Queue,
        handler: Handler,
        *,
        threads: int = 1,
        prefetch: int = DEFAULT_SERVER_PREFETCH,
        acks: Acks = 1,
    ) -> None:
        if type(threads) is not int or threads < 1:
            raise InvalidInputError(f"threads={threads!r:.80} is out of bounds: an int from 1 on")
        self._broker = broker
        self._handler = handler
        self._acks: Acks = acks
        self._consumers = contextlib.ExitStack()
        with contextlib.ExitStack() as stack:
            self._all = [
                stack.enter_context(queue.consume(self._serve, prefetch=prefetch))
                for _ in range(threads)
            ]
            self._consumers = stack.pop_all()

    def _serve(self, request: Message) -> None:
        """Answer one request.

        The answer goes first, then the acknowledgement: a server that is killed between the two
        answers twice, and never not at all.
        """
        properties = request.properties
        try:
            answer = self._handler(request)
            body, made = (answer, PLAIN) if isinstance(answer, bytes) else answer
        except Exception as error:  # noqa: BLE001 - the caller is told, and the server goes on
            _log.warning("the handler of a request failed", exc_info=True)
            body = f"{type(error).__name__}: {error}".encode(errors="replace")
            made = Properties(type=ERROR_TYPE)
        if properties.reply_to is not None:
            made = made._replace(correlation_id=properties.correlation_id)
            # Where the reply queue is gone, so is the caller: the answer is dropped as unroutable.
            self._broker.publish_one(body, "", properties.reply_to, made, self._acks)
        request.ack(flush=True)

    def join(self, timeout: float | None = None) -> bool:
        """Wait until it is closed, or its queue deleted, ``timeout`` seconds at most, and say
        whether that is so. Raises what ended it."""
        ended = [consumer.join(timeout) for consumer in self._all]
        return all(ended)

    def close(self) -> None:
        """Answer what has been begun, and no more; closing twice is allowed."""
        self._consumers.close()

    def __enter__(self) -> RpcServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _expiration(timeout: object) -> int:
    """The milliseconds after which a request need not be answered any more."""
    number = isinstance(timeout, (int, float)) and not isinstance(timeout, bool)
    if not number or not 0 < timeout <= MAX_MS / 1000:  # type: ignore[operator]
        raise InvalidInputError(
            f"timeout={timeout!r:.80} is out of bounds: above 0, to {MAX_MS // 1000} seconds"
        )
    return max(1, int(timeout * 1000))  # type: ignore[operator]
