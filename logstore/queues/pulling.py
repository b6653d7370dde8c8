"""Pulling: taking for one consumer, and sleeping while there is nothing to take."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from operator import length_hint

from logstore.errors import LogstoreError, UnknownQueueError, UnknownTopicError
from logstore.queues.registration import Registration
from logstore.segments.files import Watch
from logstore.waiting import LONGEST_SLEEP, sleep_until

__all__ = ["Puller"]


class Puller:
    """Fills what a registration hands out. For one thread at a time; ``close`` may come from
    another one, when the registration has ended."""

    def __init__(
        self, registration: Registration, *, no_ack: bool = False, abandon: Callable[[], object]
    ) -> None:
        """``no_ack``: messages are settled as they are taken. ``abandon`` is called when nobody
        holds the puller any more, and it was not closed."""
        self._registration = registration
        self._channel = registration.channel
        self._queue = registration.queue
        self._no_ack = no_ack
        self._abandon = abandon
        self._clock = self._queue.clock
        self._watch: Watch | None = None
        self._watched: tuple[str, ...] = ()
        self._sleeping = threading.Lock()
        """Held while it sleeps: nobody takes the watch away from a sleeper."""
        self.deleted: LogstoreError | None = None
        """What ``fill`` raised, where its source was deleted."""
        self._closed = False

    def fill(self, timeout: float | None, prefetch: int | None = None) -> bool:
        """Take messages, so that no more than ``prefetch`` are not settled (0: any number; None:
        the registration's own, which may change meanwhile), unless there are some to hand out;
        False where there are none in time. Raises the source's ``deleted_error`` when it was
        deleted, once: it is the registration's end."""
        try:
            return self.pull(timeout, prefetch)
        except (UnknownQueueError, UnknownTopicError):
            if not self._registration.is_active:
                return False
            with contextlib.suppress(UnknownQueueError, UnknownTopicError):
                self._registration.cancel()
            self.deleted = self._queue.deleted_error()
            raise self.deleted from None

    def pull(self, timeout: float | None, prefetch: int | None) -> bool:
        """The same, but what says that something was deleted is raised as it is, and ends nothing:
        there may be more to take elsewhere."""
        registration, queue, channel = self._registration, self._queue, self._channel
        if length_hint(registration.left):
            return registration.is_active
        deadline = None if timeout is None else self._clock.monotonic() + timeout
        while registration.is_active:
            limit = registration.prefetch if prefetch is None else prefetch
            room = channel.room_for(registration, limit)
            if room > 0 and queue.has_ready():
                found = channel.take(queue, registration, room, fair=True, no_ack=self._no_ack)
                if found:
                    registration.hand_out(found)
                    return True
                # Others were quicker; or all of it is delayed, or has expired: what is behind it?
                queue.on_unfit()
                queue.look()
                continue
            left = LONGEST_SLEEP if deadline is None else deadline - self._clock.monotonic()
            if left <= 0:
                return False
            if room > 0:
                self._sleep(min(left, LONGEST_SLEEP))
            else:
                self._wait_for_room(prefetch, min(left, LONGEST_SLEEP))
        return False

    def _sleep(self, seconds: float) -> None:
        """Until there may be something to take."""
        with self._sleeping:
            if self._registration.is_active:
                self._sleep_on_watch(seconds)

    def _sleep_on_watch(self, seconds: float) -> None:
        directories = self._queue.directories()
        if directories != self._watched:
            self._let_go_of_watch()
            self._watched = directories
            self._watch = self._queue.files.watch(*directories)
        queue = self._queue
        next_due = queue.next_due
        due = (next_due - self._clock.now_ms()) / 1000
        sleep_until(
            # Somebody else may meet what is due sooner.
            lambda: (
                not self._registration.is_active or queue.has_ready() or queue.next_due < next_due
            ),
            self._watch,
            self._clock,
            max(0.0, min(seconds, due)),
        )

    def _wait_for_room(self, prefetch: int | None, seconds: float) -> None:
        registration, channel = self._registration, self._channel
        with channel.settled:
            limit = registration.prefetch if prefetch is None else prefetch
            if channel.room_for(registration, limit) > 0 or not registration.is_active:
                return
            channel.waiting += 1
            try:
                channel.settled.wait(seconds)
            finally:
                channel.waiting -= 1

    def close(self) -> None:
        """Let go of what it watches."""
        self._closed = True
        with self._sleeping:
            self._let_go_of_watch()

    def _let_go_of_watch(self) -> None:
        watch, self._watch, self._watched = self._watch, None, ()
        if watch is not None:
            watch.close()

    def __del__(self) -> None:
        # This may run in any thread, at any moment: what is to be done is left to the housekeeper.
        if not self._closed:
            self._registration.abandoned = True
            self._abandon()
