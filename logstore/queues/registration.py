"""A consumer's place in its queue and on its channel.

It stands apart from the consumer that an application holds, so that it can be ended in order when
nobody holds that one any more: a program that leaves a loop over ``queue.consume()`` has no name
for what it iterated over.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from operator import length_hint
from typing import Any

from logstore.queues.attendance import register, unregister
from logstore.queues.channel import Channel
from logstore.queues.consumer_rows import ConsumerRow
from logstore.queues.deliveries import Delivery
from logstore.queues.source import Source

__all__ = ["Registration"]


class Registration:
    """Whom a channel delivers to. Usable from many threads."""

    def __init__(
        self,
        channel: Channel,
        queue: Source[Any, Any],
        row: ConsumerRow,
        *,
        owns_channel: bool,
        on_last: Callable[[], object],
        forget: Callable[[Registration], object],
    ) -> None:
        """``owns_channel``: the channel is closed with it. ``on_last`` is called where it was the
        last consumer, ``forget`` when it has ended."""
        self.channel = channel
        self.queue = queue
        self.row = row
        self.unacked = 0
        """Messages that were delivered, and nobody has said anything of."""
        self.prefetch = row.prefetch
        """How many these may be; 0: any number."""
        self.thread: threading.Thread | None = None
        """The one that calls a callback, if any does."""
        self.abandoned = False
        """Whether nobody holds the consumer any more."""
        self._owns_channel = owns_channel
        self._on_last = on_last
        self._forget = forget
        self._fetched: list[Any] = []
        """What was taken last; ``left`` says how much of it was handed out."""
        self.left: Iterator[Any] = iter(())
        self._mutex = threading.Lock()
        self._ended = False
        """Whether it gets no more messages."""
        register(queue, row)

    @property
    def is_active(self) -> bool:
        """Whether it still gets messages."""
        return not self._ended and not self.channel.is_closed

    # What was fetched -------------------------------------------------------------------------

    def hand_out(self, messages: list[Any]) -> None:
        """Messages were fetched, to be handed out by ``left``."""
        self._fetched, self.left = messages, iter(messages)

    @property
    def fetched(self) -> list[Any]:
        """What is handed out, and was; emptied when it is dropped."""
        return self._fetched

    def unseen(self, delivery: Delivery) -> int:
        """The bits of messages that were fetched, and not handed out."""
        count = length_hint(self.left)
        if not count:
            return 0
        rest = self._fetched[-count:]
        return delivery.bits_at(m.offset for m in rest if m[0] is delivery)

    def drop(self) -> None:
        """Hand out nothing more of what was fetched."""
        self._fetched.clear()  # ends the iterator that goes over it

    def drop_lost(self, boottime_ms: int) -> None:
        """Hand out nothing more of leases whose time is up. For the housekeeper."""
        self.channel.lose_overdue(boottime_ms)
        count = length_hint(self.left)
        if count and self._fetched[-count][0].is_lost:  # all that is left was leased at once
            self.drop()

    # The end ----------------------------------------------------------------------------------

    def cancel(self) -> None:
        """Get no more messages, and give back what was only fetched, uncounted."""
        with self._mutex:
            if self._ended:
                return
            self._ended = True
        try:
            if not self.channel.is_closed:
                self.channel.give_back_unseen(self)
        finally:
            self.drop()
            last = unregister(self.queue, self.row)
            self.queue.tell_of_returned()  # wakes the consumer, too
            if not self._owns_channel:
                self._forget(self)
            if last:
                self._on_last()

    def close(self) -> None:
        """Cancel it, and close the channel if that is its own."""
        try:
            self.cancel()
        finally:
            if self._owns_channel:
                self._forget(self)
                self.channel.close()

    def join(self) -> None:
        """Wait until a callback that is being called has returned."""
        thread = self.thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def tidy(self) -> None:
        """End what nobody holds any more; messages that somebody may hold yet stay his until he has
        settled them. For the housekeeper."""
        if self.abandoned:
            self.cancel()
            if self._owns_channel and not self.channel.unacked:
                self.close()
