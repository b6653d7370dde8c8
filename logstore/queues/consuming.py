"""Consuming: messages pushed to a callback or handed out by an iterator, and got one by one.

A consumer takes up to its prefetch at once and hands them out from memory; it takes more when these
are used up, and sleeps when there are none: until something is appended, comes back or is due, by
whatever process. What it has fetched and not handed out goes back, uncounted, when it is closed.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from types import TracebackType

from logstore.errors import (
    ClosedError,
    InvalidInputError,
    LogstoreError,
    UnknownTopicError,
)
from logstore.queues.attendance import note_use, register
from logstore.queues.channel import Channel
from logstore.queues.consumer_rows import GETTER, ConsumerRow
from logstore.queues.deliveries import Delivery, check_prefetch
from logstore.queues.message import Message
from logstore.queues.pulling import Puller
from logstore.queues.queue import WorkQueue
from logstore.queues.registration import Registration

__all__ = ["DEFAULT_PREFETCH", "Consumer", "Getter", "check_count", "check_timeout"]

_log = logging.getLogger("logstore")

DEFAULT_PREFETCH = 100


class Consumer:
    """Hands out the messages of one queue. For one thread at a time; ``close`` and ``cancel`` may
    come from others, and end whatever wait it is in."""

    def __init__(
        self,
        registration: Registration,
        *,
        no_ack: bool,
        timeout: float | None,
        abandon: Callable[[], object],
    ) -> None:
        """``no_ack``: messages are settled as they are handed out. ``timeout``: seconds without a
        message after which iterating ends; None: never. ``abandon`` is called when nobody holds
        the consumer any more, and it was not closed."""
        self._registration = registration
        self._channel = registration.channel
        self._timeout = timeout
        self._puller = Puller(registration, no_ack=no_ack, abandon=abandon)
        self._closed = False
        self._error: BaseException | None = None
        """What the callback raised."""

    @property
    def tag(self) -> str:
        """Its name, which the queue's description shows."""
        return self._registration.row.tag

    @property
    def prefetch(self) -> int:
        """How many messages it may hold that are not settled; 0: any number. It may be set while it
        consumes."""
        return self._registration.prefetch

    @prefetch.setter
    def prefetch(self, prefetch: int) -> None:
        check_prefetch(prefetch)
        self._registration.prefetch = prefetch
        with self._channel.settled:
            self._channel.settled.notify_all()

    @property
    def channel(self) -> Channel:
        """The channel that its messages are delivered on."""
        return self._channel

    @property
    def unacked(self) -> int:
        """How many messages it holds that nobody has said anything of."""
        return self._registration.unacked

    @property
    def is_active(self) -> bool:
        """Whether it still gets messages."""
        return self._registration.is_active

    # Handing out ------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Message]:
        """The messages, one by one; waits for more for ever, or ``timeout`` seconds long. Ends when
        the consumer is cancelled or closed."""
        while self._puller.fill(self._timeout):
            yield from self._registration.left

    def get(self, timeout: float | None = 0.0) -> Message | None:
        """The next message; None where there is none within ``timeout`` seconds (None: for ever),
        or the consumer was cancelled."""
        message: Message
        while True:
            for message in self._registration.left:
                return message
            if not self._puller.fill(timeout):
                return None

    # Pushing ----------------------------------------------------------------------------------

    def start(self, callback: Callable[[Message], object]) -> None:
        """Call ``callback`` with each message, in a thread of its own, until the consumer ends, be
        it because the queue was deleted. An error of the callback ends it; ``join`` and ``close``
        raise that error."""
        if self._registration.thread is not None:
            raise InvalidInputError(f"consumer {self.tag!r} calls a callback already")
        thread = threading.Thread(
            target=self._push, args=(callback,), name=f"logstore {self.tag}", daemon=True
        )
        self._registration.thread = thread
        thread.start()

    def _push(self, callback: Callable[[Message], object]) -> None:
        try:
            for message in self:
                callback(message)
        except ClosedError:
            pass  # the channel, or the store, is closed
        except BaseException as error:  # noqa: BLE001 - it is raised where somebody waits
            if error is self._puller.deleted:
                _log.info("consumer %s ends: %s", self.tag, error)
                return
            self._error = error
            _log.exception("the callback of consumer %s failed", self.tag)
            try:
                self.cancel()
            except (LogstoreError, OSError):
                _log.exception("consumer %s", self.tag)

    def join(self, timeout: float | None = None) -> bool:
        """Wait for the end of the thread that calls the callback, ``timeout`` seconds at most, and
        say whether it has ended. Raises what the callback raised."""
        thread = self._registration.thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout)
            if thread.is_alive():
                return False
        error, self._error = self._error, None
        if error is not None:
            raise error
        return True

    # The end ----------------------------------------------------------------------------------

    def cancel(self) -> None:
        """Get no more messages (AMQP's ``basic.cancel``). What was handed out stays ours, until it
        is settled or the channel closed; what was only fetched goes back, uncounted."""
        self._registration.cancel()

    def close(self) -> None:
        """End it: acknowledgements go to the ledger, and what is not settled goes back, if the
        channel is the consumer's own. Closing twice is allowed. Raises what a callback raised, and
        LeaseExpiredError for acknowledgements that came too late."""
        if self._closed:
            return
        self._closed = True
        try:
            self._registration.close()
        finally:
            self._puller.close()
            self.join()

    def __enter__(self) -> Consumer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self.close()
        except LogstoreError:
            if error is None:  # otherwise it follows from the error that is on its way
                raise

    def __repr__(self) -> str:
        return f"Consumer({self.tag!r}, {self._registration.queue.name}, {self.unacked} unacked)"


def check_timeout(timeout: object) -> None:
    """Raise InvalidInputError for what is no time to wait."""
    if timeout is not None and not (isinstance(timeout, (int, float)) and timeout >= 0):
        raise InvalidInputError(
            f"timeout={timeout!r:.80} is out of bounds: seconds from 0 on, or None"
        )


def check_count(count: object) -> None:
    """Raise InvalidInputError for what is no number of messages to ask for."""
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise InvalidInputError(f"count={count!r:.80} is out of bounds: an int from 1 on")


class Getter:
    """Gets messages of one queue one by one (AMQP's ``basic.get``), on a channel."""

    def __init__(self, channel: Channel, queue: WorkQueue, *, session: bytes) -> None:
        self.unacked = 0
        """Messages that it got, and nobody has said anything of."""
        self._channel = channel
        self._queue = queue
        register(queue, ConsumerRow(queue.id, session, GETTER, "get"))

    def unseen(self, delivery: Delivery) -> int:
        """Nothing: what is got is seen."""
        return 0

    def drop(self) -> None:
        """There is nothing."""

    def get(self, count: int, *, no_ack: bool) -> list[Message]:
        """Up to ``count`` messages that are ready now."""
        messages: list[Message] = []
        try:
            while len(messages) < count and self._queue.has_ready():
                most = count - len(messages)
                found = self._channel.take(self._queue, self, most, fair=False, no_ack=no_ack)
                if not found:
                    self._queue.on_unfit()
                messages += found
        except UnknownTopicError:
            raise self._queue.deleted_error() from None
        if self._queue.definition.arguments.expires_ms is not None:
            note_use(self._queue)
        return messages
