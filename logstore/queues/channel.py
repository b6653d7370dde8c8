"""Channels: what was delivered to an application, and what it says of it.

A channel numbers what it delivers (AMQP's delivery tags), and knows of each lease which messages
are not settled. Acknowledgements are collected, and go to the ledgers in one transaction: when
there are 512 of them, when more messages are taken, after 5 ms (by the housekeeper), or when
somebody asks for it. Until then the end of the process brings these messages back; after it they
are settled.

Giving a message back or up goes to the ledger at once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from logstore.errors import ClosedError, ForkedError
from logstore.queues.deliveries import (
    MAX_PREFETCH,
    Delivery,
    Holder,
    Outcome,
    check_prefetch,
    chosen_by_tag,
    late_error,
    not_open,
)
from logstore.queues.ledger_rows import NEVER, Reason
from logstore.queues.ledger_store import Changes, Ledgers
from logstore.queues.message import Delivered
from logstore.queues.sorting import LeftOut, put_aside, sort_out
from logstore.queues.source import LedgeredLog, Source, Taken

__all__ = ["MAX_PENDING", "Channel"]

MAX_PENDING = 512
"""So many acknowledgements are collected at most."""

_M = TypeVar("_M", bound=Delivered)


class Channel:
    """Deliveries to one application. Usable from many threads."""

    def __init__(
        self,
        ledgers: Ledgers,
        *,
        session: bytes,
        prefetch: int = 0,
        alert: Callable[[], object] = lambda: None,
        forget: Callable[[Channel], object] = lambda _: None,
    ) -> None:
        """``prefetch`` bounds how many messages of all its consumers together are not settled; 0:
        nothing does. ``alert`` is called when acknowledgements begin to wait, and ``forget`` when
        the channel was closed."""
        check_prefetch(prefetch)
        self._prefetch = prefetch
        self._ledgers = ledgers
        self._session = session
        self._alert = alert
        self._forget = forget
        self._mutex = threading.RLock()
        """Held to touch what follows."""
        self.settled = threading.Condition(self._mutex)
        """Notified when there is room to prefetch, and when the channel is closed."""
        self.waiting = 0
        """How many wait for that."""
        self._next_tag = 1
        self._deliveries: list[Delivery] = []
        """Those with open messages, in order of their tags, and a few without."""
        self.unacked = 0
        """Messages that nobody has said anything of."""
        self._earliest_deadline = NEVER
        """No lease of these ends before it."""
        self._touched: Outcome = {}
        """Deliveries with acknowledgements that the ledgers do not know yet."""
        self._pending = 0
        """How many these are."""
        self._flushes = self._waited_for = 0
        """How often they were brought to the ledgers; what that was when they began to wait."""
        self._late = 0
        """Acknowledgements that were refused, which nobody was told of yet."""
        self._refusal: type[ClosedError | ForkedError] | None = None
        self.is_closed = False
        """Whether it can not be used any more."""

    # Taking -----------------------------------------------------------------------------------

    @property
    def prefetch(self) -> int:
        """How many messages of all its consumers together may be not settled; 0: any number. It may
        be set while they consume (AMQP's ``basic.qos``)."""
        return self._prefetch

    @prefetch.setter
    def prefetch(self, prefetch: int) -> None:
        check_prefetch(prefetch)
        with self._mutex:
            self._prefetch = prefetch
            self.settled.notify_all()

    def room_for(self, holder: Holder, prefetch: int) -> int:
        """How many more messages a consumer may be given."""
        room = MAX_PREFETCH if not prefetch else prefetch - holder.unacked
        if self._prefetch:
            room = min(room, self._prefetch - self.unacked)
        return room

    def take(
        self,
        queue: Source[Any, _M],
        holder: Holder,
        most: int,
        *,
        fair: bool,
        no_ack: bool = False,
        only: LedgeredLog | None = None,
    ) -> list[_M]:
        """Up to ``most`` messages of a queue, and what is left of collected acknowledgements to the
        ledgers in the same transaction. With ``no_ack`` they are acknowledged before they are
        returned. Raises LeaseExpiredError for acknowledgements that came too late."""
        with self._mutex:
            if self.is_closed or self._late:
                self._check_usable()

            def take(changes: Changes) -> tuple[Sequence[Delivery], list[Taken]]:
                late = self._acknowledge(changes) if self._touched else ()
                session = self._session
                return late, queue.take(changes, most, session=session, fair=fair, only=only)

            late, taken = self._ledgers.change(take, keep=True)
            deliveries = []
            for level, lease, _ in taken:
                deliveries.append(one := Delivery(self, queue, level, lease, holder))
                self._add(one)
            self._acknowledged(late)
            try:
                messages, left_out = sort_out(queue, taken, deliveries)
                if left_out:
                    self._leave_out(queue, left_out)
                if no_ack and messages:
                    for delivery in deliveries:
                        self._note_ack(delivery, delivery.open_bits)
                    self._flush()
            except BaseException:
                self._give_back({one: one.open_bits for one in deliveries}, delivered=False)
                raise
            return messages

    def _add(self, delivery: Delivery) -> None:
        """Messages were leased."""
        lease = delivery.lease
        self._deliveries.append(delivery)
        delivery.holder.unacked += lease.length
        self.unacked += lease.length
        if lease.deadline < self._earliest_deadline:
            self._earliest_deadline = lease.deadline
        delivery.first_tag = self._next_tag
        self._next_tag += lease.length

    def _leave_out(self, queue: Source[Any, Any], left_out: Sequence[LeftOut]) -> None:
        """Put messages aside that were leased, and may not be delivered."""
        self._ledgers.change(lambda changes: put_aside(changes, queue, left_out))
        for one in left_out:
            self._close_bits(one.delivery, one.missing | one.unfit)
        if any(one.verdicts.held for one in left_out):
            queue.signal()  # whoever sleeps until something is due
        if any(one.verdicts.expired for one in left_out):
            queue.on_work()

    def renew_message(self, given: Delivery, offset: int) -> None:
        """Let the lease of a message, and of no other, begin anew, at once. Raises what
        ``ack_message`` raises, and the error of a source that was deleted."""
        with self._mutex:
            self._check_usable()
            delivery, bit = self._open(given, offset)
            queue, level = delivery.queue, delivery.level
            until = queue.clock.boottime_ms() + queue.lease_ms
            leases = self._ledgers.change(
                lambda changes: changes.of(level.ledger).renew(delivery.lease, bit, until)
            )
            if leases is None:
                self._lose(delivery)
                raise late_error(1)
            self._close_bits(delivery, bit)
            renewed = Delivery(self, queue, level, leases[0], delivery.holder)
            renewed.is_renewed = True
            given.renewed[offset] = renewed
            self._add(renewed)

    def silent_count(self, holder: Holder) -> int:
        """How many messages a consumer has handed out that nothing was said of: neither settled nor
        leased anew."""
        with self._mutex:
            mine = (one for one in self._deliveries if one.holder is holder and not one.is_renewed)
            return sum((one.open_bits & ~holder.unseen(one)).bit_count() for one in mine)

    # Acknowledging ----------------------------------------------------------------------------

    def ack(
        self, tag: int = 0, *, multiple: bool = False, flush: bool = False, durable: bool = False
    ) -> None:
        """Acknowledge the message with a tag; ``multiple``: all up to it, or all there are for tag
        0. See ``Message.ack``."""
        with self._mutex:
            self._check_usable()
            chosen = chosen_by_tag(self._deliveries, tag, multiple=multiple)
            self._ack(chosen, flush, durable)

    def ack_message(
        self, delivery: Delivery, offset: int, *, multiple: bool, flush: bool, durable: bool
    ) -> None:
        """Acknowledge a message, and with ``multiple`` all before it."""
        with self._mutex:
            if self.is_closed or self._late:
                self._check_usable()
            bit = 1 << offset - delivery.lease.first
            if not delivery.open_bits & bit:
                delivery, bit = self._open(delivery, offset)
            if multiple:
                self._ack(self._up_to(delivery.tag(offset)), flush, durable)
                return
            delivery.open_bits ^= bit
            delivery.acked_bits |= bit
            delivery.holder.unacked -= 1
            self.unacked -= 1
            self._touched[delivery] = 0
            self._pending += 1
            if flush or durable:
                self._flush_for(durable, [delivery])
            elif self._pending == 1:
                self._alert()
            elif self._pending >= MAX_PENDING:
                self._flush_for(False, ())
            if self.waiting:
                self.settled.notify_all()

    def _ack(self, chosen: Outcome, flush: bool, durable: bool) -> None:
        for delivery, bits in chosen.items():
            self._note_ack(delivery, bits)
        if flush or durable or self._pending >= MAX_PENDING:
            self._flush_for(durable, chosen)
        elif self._pending:
            self._alert()

    def ack_seen(self, holder: Holder) -> None:
        """Acknowledge all that a consumer was given and has handed to the application."""
        with self._mutex:
            self._check_usable()
            chosen = {
                one: bits
                for one in self._deliveries
                if one.holder is holder and (bits := one.open_bits & ~holder.unseen(one))
            }
            self._ack(chosen, False, False)

    def _close_bits(self, delivery: Delivery, bits: int) -> int:
        """Messages are not open any more; returns how many of them were."""
        count = (delivery.open_bits & bits).bit_count()
        delivery.open_bits &= ~bits
        delivery.holder.unacked -= count
        self.unacked -= count
        if self.waiting:
            self.settled.notify_all()
        return count

    def _note_ack(self, delivery: Delivery, bits: int) -> None:
        delivery.acked_bits |= bits
        count = self._close_bits(delivery, bits)
        self._touched[delivery] = 0
        self._pending += count

    def _open(self, delivery: Delivery, offset: int) -> tuple[Delivery, int]:
        """The delivery that an open message is in by now, and its bit; raises for another one."""
        delivery = delivery.latest(offset)
        bit = 1 << offset - delivery.lease.first
        if not delivery.open_bits & bit:
            raise not_open(delivery, delivery.tag(offset))
        return delivery, bit

    def _up_to(self, tag: int) -> Outcome:
        return chosen_by_tag(self._deliveries, tag, multiple=True)

    # The ledgers ------------------------------------------------------------------------------

    def flush(self) -> None:
        """Bring collected acknowledgements to the ledgers: they survive the end of the process.
        Raises LeaseExpiredError for those that came too late."""
        with self._mutex:
            self._check_usable()
            self._flush()
            self._tell_late()

    def flush_quietly(self) -> bool:
        """The same for the housekeeper; what came too late is told to the application when it uses
        the channel next. False, and nothing done, while the channel is busy."""
        if not self._mutex.acquire(blocking=False):
            return False
        try:
            if self._pending and self._refusal is None:
                if self._flushes == self._waited_for:
                    self._flush()
                # Where one takes again and again, what waits by the next round is younger.
                self._waited_for = self._flushes
        finally:
            self._mutex.release()
        return True

    @property
    def has_pending(self) -> bool:
        """Whether acknowledgements are collected."""
        return self._pending > 0

    def _flush_for(self, durable: bool, deliveries: Iterable[Delivery]) -> None:
        ledgers = {one.level.ledger for one in deliveries}
        self._flush()
        self._tell_late()
        if durable:
            self._ledgers.checkpoint(ledgers, tolerant=False)

    def _flush(self) -> None:
        if self._pending:
            self._acknowledged(self._ledgers.change(self._acknowledge, keep=True))

    def _acknowledge(self, changes: Changes) -> list[Delivery]:
        """Settle what was acknowledged; returns the deliveries whose leases have ended."""
        late = []
        for delivery in self._touched:
            ledger = changes.find(delivery.level.ledger)
            if ledger is not None and not ledger.ack(delivery.lease, delivery.acked_bits):
                late.append(delivery)
        return late

    def _acknowledged(self, late: Iterable[Delivery]) -> None:
        """The transaction was committed."""
        for delivery in late:
            self._late += delivery.acked_bits.bit_count()
            self._lose(delivery)
        for delivery in self._touched:
            delivery.acked_bits = 0
        self._touched.clear()
        self._pending = 0
        self._flushes += 1
        if len(self._deliveries) > 1 or not self.unacked:
            self._deliveries = [one for one in self._deliveries if one.open_bits]

    def _lose(self, delivery: Delivery) -> None:
        """The lease has ended; its messages are not ours any more."""
        delivery.is_lost = True
        self._close_bits(delivery, delivery.open_bits)

    def lose_overdue(self, boottime_ms: int) -> bool:
        """Let go of leases whose time is up, so that nothing of them is handed out any more; says
        whether there were any. For the housekeeper; nothing is done while the channel is busy."""
        if boottime_ms < self._earliest_deadline or not self._mutex.acquire(blocking=False):
            return False
        try:
            self._deliveries = [one for one in self._deliveries if one.open_bits]
            overdue = [one for one in self._deliveries if one.lease.deadline <= boottime_ms]
            for delivery in overdue:
                self._lose(delivery)
            deadlines = (one.lease.deadline for one in self._deliveries if one.open_bits)
            self._earliest_deadline = min(deadlines, default=NEVER)
            return bool(overdue)
        finally:
            self._mutex.release()

    def tell_late(self) -> None:
        """Raise LeaseExpiredError for acknowledgements that came too late, and that nobody was told
        of yet."""
        with self._mutex:
            self._tell_late()

    def _tell_late(self) -> None:
        late, self._late = self._late, 0
        if late:
            raise late_error(late)

    # Giving back ------------------------------------------------------------------------------

    def nack(self, tag: int = 0, *, multiple: bool = False, requeue: bool = True) -> None:
        """Give back the message with a delivery tag, or give it up (AMQP's ``reject``, too); see
        ``ack`` and ``Message.nack``."""
        with self._mutex:
            self._check_usable()
            self._nack(chosen_by_tag(self._deliveries, tag, multiple=multiple), requeue)

    def nack_message(
        self, delivery: Delivery, offset: int, *, multiple: bool, requeue: bool
    ) -> None:
        """Give back a message, and with ``multiple`` all before it, or give them up."""
        with self._mutex:
            self._check_usable()
            delivery, bit = self._open(delivery, offset)
            self._nack(self._up_to(delivery.tag(offset)) if multiple else {delivery: bit}, requeue)

    def _nack(self, chosen: Outcome, requeue: bool) -> None:
        if requeue:
            self._give_back(chosen, delivered=True)
        else:
            self._settle(chosen, lambda ledger, one, bits: ledger.bury(one, bits, Reason.REJECTED))
            for queue in {delivery.queue for delivery in chosen}:
                queue.on_work()
        self._tell_late()

    def recover(self) -> None:
        """Give back all messages that are not settled (AMQP's ``recover`` with ``requeue``)."""
        with self._mutex:
            self._check_usable()
            self._return_all()
            self._tell_late()

    def _return_all(self) -> None:
        """Those that the application has not seen come back uncounted."""
        for holder in dict.fromkeys(delivery.holder for delivery in self._deliveries):
            self.give_back_unseen(holder)
        seen = {one: one.open_bits for one in self._deliveries if one.open_bits}
        self._give_back(seen, delivered=True)

    def give_back_unseen(self, holder: Holder) -> None:
        """Give back what a consumer had fetched, and not handed to the application."""
        with self._mutex:
            chosen = {
                one: bits
                for one in self._deliveries
                if one.holder is holder and (bits := holder.unseen(one) & one.open_bits)
            }
            holder.drop()
            self._give_back(chosen, delivered=False)

    def _give_back(self, chosen: Outcome, *, delivered: bool) -> None:
        if not chosen:
            return
        self._settle(
            chosen, lambda ledger, lease, bits: ledger.requeue(lease, bits, delivered=delivered)
        )
        for queue in {delivery.queue for delivery in chosen}:
            queue.tell_of_returned()

    def _settle(self, chosen: Outcome, settle: Callable[..., bool]) -> None:
        """Settle messages, and what was acknowledged before, in one transaction."""

        def act(changes: Changes) -> tuple[list[Delivery], list[Delivery]]:
            late = self._acknowledge(changes)
            lost = []
            for delivery, bits in chosen.items():
                ledger = changes.find(delivery.level.ledger)
                if ledger is not None and not settle(ledger, delivery.lease, bits):
                    lost.append(delivery)
            return late, lost

        late, lost = self._ledgers.change(act)
        for delivery in lost:
            if delivery not in late:
                self._late += chosen[delivery].bit_count()
                self._lose(delivery)
        for delivery, bits in chosen.items():
            self._close_bits(delivery, bits)
        self._acknowledged(late)

    # Life -------------------------------------------------------------------------------------

    def _check_usable(self) -> None:
        if self._refusal is ForkedError:
            raise ForkedError("this channel belongs to the parent process; open the store again")
        if self._refusal is not None:
            raise ClosedError("the channel was closed")
        self._tell_late()

    def close(self) -> None:
        """Bring acknowledgements to the ledgers, give back what is not settled, and end the
        channel's consumers; closing twice is allowed. Raises LeaseExpiredError for acknowledgements
        that came too late."""
        with self._mutex:
            if self._refusal is not None:
                return
            try:
                self._flush()
                self._return_all()
            finally:
                self._refusal = ClosedError
                self.is_closed = True
                self.settled.notify_all()
                self._forget(self)
            self._tell_late()

    def forked(self) -> None:
        """In a child process: the deliveries are the parent's."""
        # The mutex may be held by a thread that the child does not have.
        self._mutex = threading.RLock()
        self.settled = threading.Condition(self._mutex)
        self._refusal = ForkedError
        self.is_closed = True
