"""Consuming in a store handle: its channels and consumers, and the housekeeper that serves them."""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Generic, TypeVar

from logstore import fork
from logstore.clock import Clock
from logstore.errors import LogstoreError
from logstore.queues import attendance
from logstore.queues.channel import Channel
from logstore.queues.consumer_rows import ConsumerRow
from logstore.queues.consuming import (
    DEFAULT_PREFETCH,
    Consumer,
    Getter,
    check_count,
    check_timeout,
)
from logstore.queues.deliveries import check_prefetch
from logstore.queues.housekeeper import Housekeeper, Tending
from logstore.queues.ledger_store import Ledgers
from logstore.queues.message import Message
from logstore.queues.queue import WorkQueue
from logstore.queues.queue_upkeep import Upkeep
from logstore.queues.registration import Registration
from logstore.queues.source import Source
from logstore.sessions import Sessions

__all__ = ["Consumption", "QueueConsumption"]

_S = TypeVar("_S", bound=Source[Any, Any])


class Consumption(Generic[_S]):
    """All that is consumed in a store handle. Usable from many threads."""

    def __init__(
        self,
        store: str,
        *,
        ledgers: Ledgers,
        sessions: Sessions,
        clock: Clock,
        in_use: Callable[[], Sequence[_S]],
        find: Callable[[bytes], _S | None],
        is_over: Callable[[_S, bytes, bool], bool],
        delete: Callable[[_S], object],
        upkeep: Callable[[_S], Tending],
    ) -> None:
        """``in_use``: the queues that are open here; ``find`` opens one by its id; ``is_over`` says
        whether the end of a session, perhaps the last one, is the queue's own; ``delete`` deletes
        one, by nobody's wish; ``upkeep`` is what is made for each to look after it."""
        self._ledgers = ledgers
        self._sessions = sessions
        self._in_use = in_use
        self._delete = delete
        self._housekeeper = Housekeeper(
            ledgers,
            sessions,
            clock=clock,
            queues=in_use,
            find=find,
            is_over=is_over,
            delete=delete,
            upkeep=upkeep,
            name=store,
        )
        self.due = self._housekeeper.due
        """There will be something to do for a queue."""
        self._mutex = threading.Lock()
        self._numbers = itertools.count(1)
        """Of consumers: none of a session's has another one's."""
        self._channels: list[Channel] = []
        self._registrations: list[Registration] = []
        """Of consumers that were not closed."""
        self._used = False

    def session(self) -> bytes:
        """This handle's, which will hold something."""
        self._used = True
        return bytes.fromhex(self._sessions.own)

    def channel(self, *, prefetch: int = 0) -> Channel:
        """A channel of one's own; see :class:`Channel`."""
        channel = Channel(
            self._ledgers,
            session=self.session(),
            prefetch=prefetch,
            alert=self._housekeeper.alert,
            forget=self._forget_channel,
        )
        fork.remember(channel)
        with self._mutex:
            self._channels.append(channel)
        self._housekeeper.begin(channel)
        return channel

    def _forget_channel(self, channel: Channel) -> None:
        fork.forget(channel)
        self._housekeeper.end(channel)
        with self._mutex:
            self._channels.remove(channel)
            consumers = [one for one in self._registrations if one.channel is channel]
        for registration in consumers:
            registration.cancel()

    def register(
        self,
        source: Source[Any, Any],
        *,
        channel: Channel | None = None,
        prefetch: int = 0,
        exclusive: bool = False,
        tag: str = "",
        on_last: Callable[[], object] = lambda: None,
    ) -> Registration:
        """A consumer's place, on a channel of its own unless one is given. ``on_last`` is called
        where it was the last one. Raises what ``attendance.register`` raises."""
        session = self.session()
        self._housekeeper.bury()  # what the dead held is delivered first, in its place
        number = next(self._numbers)
        tag = tag or f"ctag-{os.getpid()}-{number}"
        used = channel or self.channel()
        try:
            registration = Registration(
                used,
                source,
                ConsumerRow(source.id, session, number, tag, prefetch, exclusive),
                owns_channel=channel is None,
                on_last=on_last,
                forget=self._forget,
            )
        except BaseException:
            if channel is None:
                used.close()
            raise
        with self._mutex:
            self._registrations.append(registration)
        self._housekeeper.begin(registration)
        return registration

    def bury(self) -> None:
        """Take back what dead sessions hold."""
        self._housekeeper.bury()

    def is_alive(self, session: bytes) -> bool:
        """Whether a session is one of a process that lives."""
        return self._sessions.is_alive(session.hex())

    def alert(self) -> None:
        """There is something to do for a channel or a consumer."""
        self._housekeeper.alert()

    def _forget(self, registration: Registration) -> None:
        self._housekeeper.end(registration)
        with self._mutex, contextlib.suppress(ValueError):
            self._registrations.remove(registration)

    def sweep(self, queues: Iterable[_S]) -> None:
        """Take back what dead sessions hold, and look after queues for which nobody may be there to
        do it: those of the store in which time changes something, or something is left to do."""
        if not self._ledgers.exist():
            return
        self._housekeeper.bury()
        for queue in queues:
            if queue.needs_care():
                self._housekeeper.tend(queue)
                self._housekeeper.keep(queue)

    def checkpoint(self) -> None:
        """Put the ledgers of the queues in use on stable storage."""
        for queue in self._in_use():
            queue.checkpoint()

    def close(self) -> None:
        """Close all consumers and channels, which gives back what is not settled, and take a last
        checkpoint."""
        with contextlib.ExitStack() as stack:
            stack.callback(self._leave)
            stack.callback(self._housekeeper.finish)
            with self._mutex:
                channels, registrations = list(self._channels), list(self._registrations)
            for registration in registrations:
                stack.callback(registration.join)
            for channel in channels:
                stack.callback(channel.close)
            for registration in registrations:
                stack.callback(registration.close)

    def _leave(self) -> None:
        """Nothing of this session is left, whatever was interrupted."""
        if not self._used:
            return
        session = bytes.fromhex(self._sessions.own)
        mine = {queue_id for queue_id, one in attendance.sessions(self._ledgers) if one == session}
        for queue in self._in_use():
            with contextlib.suppress(LogstoreError):  # it was deleted, and its ledger with it
                if queue.id in mine:
                    attendance.end_session(queue, session)
                queue.checkpoint()


class QueueConsumption(Consumption[WorkQueue]):
    """All that is consumed of queues. Usable from many threads."""

    def __init__(self, store: str, **given: Any) -> None:
        """``given`` as for a :class:`Consumption`."""
        super().__init__(store, upkeep=Upkeep, is_over=_is_over, **given)
        self._own: Channel | None = None
        """For messages that are got without a channel."""
        self._getters: dict[tuple[Channel, WorkQueue], Getter] = {}

    def consume(
        self,
        queue: WorkQueue,
        callback: Callable[[Message], object] | None = None,
        *,
        channel: Channel | None = None,
        prefetch: int = DEFAULT_PREFETCH,
        no_ack: bool = False,
        exclusive: bool = False,
        timeout: float | None = None,
        tag: str = "",
    ) -> Consumer:
        """A consumer of a queue, on a channel of its own unless one is given; see
        ``Queue.consume``."""
        check_prefetch(prefetch)
        check_timeout(timeout)
        registration = self.register(
            queue,
            channel=channel,
            prefetch=prefetch,
            exclusive=exclusive,
            tag=tag,
            on_last=partial(self._last_has_gone, queue),
        )
        consumer = Consumer(registration, no_ack=no_ack, timeout=timeout, abandon=self.alert)
        if callback is not None:
            consumer.start(callback)
        return consumer

    def expire(self, queue: WorkQueue) -> None:
        """Delete a queue if it has expired, and nobody had an eye on it."""
        if Upkeep(queue).has_expired(queue.clock.now_ms()):
            self._delete(queue)

    def _last_has_gone(self, queue: WorkQueue) -> None:
        if queue.definition.auto_delete:
            self._delete(queue)

    def get(
        self, queue: WorkQueue, count: int, *, no_ack: bool, channel: Channel | None
    ) -> list[Message]:
        """Up to ``count`` messages that are ready; see ``Queue.get``."""
        check_count(count)
        if channel is None:
            if self._own is None:
                self._own = self.channel()
            channel = self._own
        getter = self._getters.get((channel, queue))
        if getter is None:
            self._housekeeper.bury()
            getter = Getter(channel, queue, session=self.session())
            self._getters[channel, queue] = getter
        return getter.get(count, no_ack=no_ack)

    def _forget_channel(self, channel: Channel) -> None:
        super()._forget_channel(channel)
        with self._mutex:
            for key in [key for key in self._getters if key[0] is channel]:
                del self._getters[key]


def _is_over(queue: WorkQueue, session: bytes, last: bool) -> bool:
    """Whether the end of a session is a queue's own; ``last``: it had the last consumer."""
    definition = queue.definition
    return definition.exclusive == session.hex() or (last and definition.auto_delete)
