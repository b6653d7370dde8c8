"""The ledger of a log: which messages were delivered to whom, and which are settled.

A ledger is a cursor, and rows for what is in flight (``logstore.queues.ledger_rows``). An offset is
in one of these states::

    at the cursor or above      ready: never delivered
    in a lease                  delivered to a session, and not settled
    in a returned span          ready again, to be delivered before what is above the cursor
    in a held span              waiting until it is due
    in a dead span              to be dead-lettered, and then settled
    none of them                settled: acknowledged, or dropped

So an acknowledgement is a bit in a lease's row, and the last one of a lease takes the row away:
what a command costs depends on what it is told to do, and what is stored on what is in flight.

Each method is a command: it decides by the rows and its arguments alone, and leaves rows for its
effects. Whoever calls it does so in one transaction and calls :meth:`Ledger.save` in it; a crash
leaves what was before, or what is after.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice

from logstore.queues.ledger_rows import (
    DEAD,
    HELD,
    LEASED,
    MAX_LEASED,
    NEVER,
    NUMBER_BYTES,
    RETURNED,
    Head,
    Lease,
    Reason,
    Rows,
    Span,
    first_spans,
    held_key,
    joined_lease,
    lease_key,
    offset_key,
    runs_of,
    split_lease,
    unpack_held_key,
    unpack_offset,
)
from logstore.queues.policy import Policy, Sizes
from logstore.queues.spans import gaps, joined

__all__ = ["Ledger", "Policy", "Sizes"]


class Ledger:
    """A ledger in a transaction. Times of leases are milliseconds since the machine's start, all
    others milliseconds since 1970."""

    __slots__ = ("_key", "_policy", "_rows", "_sizes", "head")

    def __init__(
        self,
        rows: Rows,
        key: bytes,
        head: Head,
        policy: Policy = Policy(),  # noqa: B008 - it is immutable
        sizes: Sizes | None = None,
    ) -> None:
        """``sizes`` is given where the bytes that are ready are to be counted."""
        self._rows = rows
        self._key = key
        self._policy = policy
        self._sizes = sizes
        self.head = head

    def save(self, number: int, stored: bytes = b"") -> bytes:
        """Store the head, after commands, and return its row; ``number`` is the transaction's.
        ``stored`` is the row that is there: it stays, and is returned, if nothing has changed."""
        head = self.head
        before, head.number = head.number, number
        row = head.pack()
        if row[:-NUMBER_BYTES] == stored[:-NUMBER_BYTES]:
            head.number = before
            return stored
        self._rows.put(self._key, row)
        return row

    # Delivering -------------------------------------------------------------------------------

    def take(
        self, most: int, *, log_end: int, now_ms: int, session: bytes, deadline: int
    ) -> list[Lease]:
        """Lease up to ``most`` messages to a session: first those that came back, the smallest
        offsets first; then held ones that are due, the earliest first; then those at the cursor.
        """
        head = self.head
        if not head.returned and head.next_due > now_ms and self._sizes is None:  # nearly always
            count = min(most, log_end - head.cursor, MAX_LEASED)
            if count <= 0:
                return []
            first = head.cursor
            head.cursor = first + count
            return [self._lease(first, count, 0, session, deadline)]
        self.count_to(log_end)
        spans = self._take_returned(most) if head.returned else []
        most -= sum(span.length for span in spans)
        if most and head.next_due <= now_ms:
            due = self._take_due(most, now_ms)
            most -= sum(span.length for span in due)
            spans += due
        count = min(most, log_end - head.cursor, MAX_LEASED)
        if count > 0:
            self._left(head.cursor, count)
            spans.append(Span(head.cursor, count, 0))
            head.cursor += count
        return [self._lease(*span[:3], session, deadline) for span in spans]

    def _lease(
        self, first: int, length: int, delivery_count: int, session: bytes, deadline: int
    ) -> Lease:
        head = self.head
        number = head.next_lease
        head.next_lease = number + 1
        lease = Lease(first, number, session, length, delivery_count, deadline)
        self._rows.put(lease_key(self._key, first, number), lease.pack())
        head.unacked += length
        if deadline < head.earliest_deadline:
            head.earliest_deadline = deadline
        return lease

    def _take_returned(self, most: int) -> list[Span]:
        spans = []
        for span in first_spans(self._rows, self._key + RETURNED, most):
            self._rows.delete(offset_key(self._key, RETURNED, span.first))
            taken = span._replace(length=min(span.length, most, MAX_LEASED))
            if taken.length < span.length:
                rest = span._replace(first=taken.end, length=span.length - taken.length)
                self._rows.put(offset_key(self._key, RETURNED, rest.first), rest.pack())
            self._left(taken.first, taken.length)
            self.head.returned -= taken.length
            most -= taken.length
            spans.append(taken)
        return spans

    def _take_due(self, most: int, now_ms: int) -> list[Span]:
        rows = list(self._due(most, now_ms))
        spans = []
        for due, span in rows:
            self._rows.delete(held_key(self._key, due, span.first))
            taken = span._replace(length=min(span.length, most, MAX_LEASED))
            if taken.length < span.length:
                rest = span._replace(first=taken.end, length=span.length - taken.length)
                self._rows.put(held_key(self._key, due, rest.first), rest.pack())
            self.head.held -= taken.length
            most -= taken.length
            spans.append(taken)
        self._find_next_due()
        return spans

    def _due(self, most: int, now_ms: int) -> Iterator[tuple[int, Span]]:
        """The first held spans that are due, that hold ``most`` messages or more."""
        for key, value in self._rows.items(self._key + HELD):
            due, first = unpack_held_key(key)
            if most <= 0 or due > now_ms:
                return
            span = Span.unpack(first, value)
            yield due, span
            most -= span.length

    def _find_next_due(self) -> None:
        row = next(self._rows.items(self._key + HELD), None)
        self.head.next_due = NEVER if row is None else unpack_held_key(row[0])[0]

    def skip(self, to: int) -> None:
        """Pass over offsets that the log has not got: nothing is between the cursor and ``to``."""
        self.head.cursor = max(self.head.cursor, to)

    # Settling ---------------------------------------------------------------------------------

    def ack(self, lease: Lease, bits: int) -> bool:
        """Settle the messages of a lease that ``bits`` names, the first offset's bit the lowest.

        False, and nothing done, where the lease has ended: it may be somebody else's by now. The
        same goes for all that follow here.
        """
        if lease.length == 1 == bits:  # there is nothing to find out in the row
            found = self._rows.delete(lease_key(self._key, lease.first, lease.number))
            if found:
                self._settled(1)
            return found
        return self._settle(lease, bits) is not None

    def requeue(self, lease: Lease, bits: int, *, delivered: bool = True) -> bool:
        """Give messages back to their places. ``delivered``: somebody has seen them, which counts;
        those whose count is beyond the limit are dead."""
        settled = self._settle(lease, bits)
        if settled is None:
            return False
        self._come_back(lease, settled, delivered)
        return True

    def _come_back(self, lease: Lease, bits: int, delivered: bool) -> None:
        count = lease.delivery_count + delivered
        limit = self._policy.delivery_limit
        if limit is not None and delivered and count > limit:
            self._bury(lease, bits, Reason.DELIVERY_LIMIT, count)
            return
        for start, length in runs_of(bits):
            first = lease.first + start
            self._put_span(RETURNED, Span(first, length, count))
            self.head.returned += length
            if self._sizes is not None:
                self.head.ready_bytes += self._sizes(first, length)

    def bury(self, lease: Lease, bits: int, reason: Reason) -> bool:
        """Let messages be dead-lettered, or drop them where there is nowhere to."""
        settled = self._settle(lease, bits)
        if settled is None:
            return False
        self._bury(lease, settled, reason, lease.delivery_count)
        return True

    def _bury(self, lease: Lease, bits: int, reason: Reason, delivery_count: int) -> None:
        if self._policy.dead_letters:
            for start, length in runs_of(bits):
                self._put_span(DEAD, Span(lease.first + start, length, delivery_count, reason))
                self.head.dead += length

    def renew(self, lease: Lease, bits: int, deadline: int) -> list[Lease] | None:
        """Go on leasing messages, until ``deadline``: in leases of their own, which are returned;
        None where theirs has ended."""
        settled = self._settle(lease, bits)
        if settled is None:
            return None
        count = lease.delivery_count
        return [
            self._lease(lease.first + start, length, count, lease.session, deadline)
            for start, length in runs_of(settled)
        ]

    def hold(self, lease: Lease, dues: dict[int, int]) -> bool:
        """Put messages aside until they are due; ``dues`` by their bits' numbers, ascending."""
        settled = self._settle(lease, sum(1 << bit for bit in dues))
        if settled is None:
            return False
        head = self.head
        run: Span | None = None
        run_due = NEVER
        for bit, due in dues.items():
            if not settled >> bit & 1:
                continue
            due = min(max(due, 0), NEVER - 1)
            offset = lease.first + bit
            if run is not None and run_due == due and run.end == offset:
                run = run._replace(length=run.length + 1)
            else:
                run, run_due = Span(offset, 1, lease.delivery_count), due
            self._rows.put(held_key(self._key, run_due, run.first), run.pack())
            head.held += 1
            head.next_due = min(head.next_due, due)
        return True

    def _settle(self, lease: Lease, bits: int) -> int | None:
        """Set bits of a lease, and return those that were not set; None where it has ended."""
        key = lease_key(self._key, lease.first, lease.number)
        data = self._rows.get(key)
        if data is None:
            return None
        stored, settled = split_lease(data)
        bits &= lease.all_bits & ~settled
        settled |= bits
        if settled == lease.all_bits:
            self._rows.delete(key)
        else:
            self._rows.put(key, joined_lease(stored, settled, lease.length))
        self._settled(bits.bit_count())
        return bits

    def _settled(self, count: int) -> None:
        head = self.head
        head.unacked -= count
        if not head.unacked:
            head.earliest_deadline = NEVER

    def _put_span(self, kind: bytes, span: Span) -> None:
        """Store a span, joined with its neighbours where these are alike."""
        before = self._rows.before(offset_key(self._key, kind, span.first), self._key + kind)
        if before is not None:
            other = Span.unpack(unpack_offset(before[0]), before[1])
            if other.end == span.first and other[2:] == span[2:]:
                span = other._replace(length=other.length + span.length)
        behind = offset_key(self._key, kind, span.end)
        data = self._rows.get(behind)
        if data is not None:
            other = Span.unpack(span.end, data)
            if other[2:] == span[2:]:
                self._rows.delete(behind)
                span = span._replace(length=span.length + other.length)
        self._rows.put(offset_key(self._key, kind, span.first), span.pack())

    def _left(self, first: int, count: int) -> None:
        """Messages that were ready are not any more."""
        if self._sizes is not None:
            self.head.ready_bytes -= self._sizes(first, count)

    # Ends of leases ---------------------------------------------------------------------------

    def end_session(self, session: bytes) -> int:
        """Take back what a session holds that has ended; returns how many messages it were."""
        return self._end_leases(lambda lease: lease.session == session)

    def end_overdue(self, boottime_ms: int) -> int:
        """Take back the leases whose time is up; returns how many messages it were."""
        if boottime_ms < self.head.earliest_deadline:
            return 0
        return self._end_leases(lambda lease: lease.deadline <= boottime_ms)

    def _end_leases(self, ends: Callable[[Lease], bool]) -> int:
        ended = []
        deadline = NEVER
        for lease in self.leases():
            if ends(lease):
                ended.append(lease)
            else:
                deadline = min(deadline, lease.deadline)
        count = 0
        for lease in ended:
            self._rows.delete(lease_key(self._key, lease.first, lease.number))
            self._come_back(lease, lease.open_bits, True)
            count += lease.open_bits.bit_count()
        self.head.earliest_deadline = deadline
        self._settled(count)
        return count

    # What is ready ----------------------------------------------------------------------------

    def added(self, first: int, end: int, size: int) -> None:
        """Messages at ``first`` to before ``end``, whose bodies have ``size`` bytes, were appended
        to a log whose bytes are counted."""
        self.count_to(first)
        if first == self.head.counted_end:
            self.head.ready_bytes += size
            self.head.counted_end = end

    def count_to(self, log_end: int) -> None:
        """Count the bytes of what was appended, where they are counted, and whoever appended it
        has not come to it."""
        head = self.head
        if self._sizes is not None and log_end > head.counted_end:
            head.ready_bytes += self._sizes(head.counted_end, log_end - head.counted_end)
            head.counted_end = log_end

    def skip_waiting(self, to: int, *, log_end: int) -> int:
        """Settle all that waits below ``to``, which is the cursor or beyond it, held messages
        included; returns how many it were."""
        head = self.head
        self.count_to(log_end)
        count = head.ready(to) + head.held
        for kind in (RETURNED, HELD):
            for key, _ in list(self._rows.items(self._key + kind)):
                self._rows.delete(key)
        head.returned = head.held = 0
        head.next_due = NEVER
        head.cursor = max(head.cursor, to)
        if self._sizes is not None:
            head.ready_bytes = self._sizes(head.cursor, max(0, log_end - head.cursor))
        head.counted_end = max(head.counted_end, log_end)
        return count

    def bring_back(self, runs: Iterable[tuple[int, int]]) -> int:
        """Make ready again what is settled in ``runs`` of offsets that the log still has, each from
        its first to before its end, ascending; returns how many it were.

        It counts as redelivered once. What is in a lease stays its holder's, and what is held or
        dead stays so.
        """
        head = self.head
        taken = [(span.first, span.end) for span in self.outstanding()]
        count = 0
        for first, length in gaps(runs, taken, head.cursor):
            self._put_span(RETURNED, Span(first, length, 1))
            count += length
            if self._sizes is not None:
                head.ready_bytes += self._sizes(first, length)
        head.returned += count
        return count

    def drop_head(self, most: int, *, log_end: int, reason: Reason) -> int:
        """Let the first messages that are ready be dead; returns how many it were."""
        head = self.head
        self.count_to(log_end)
        spans = self._take_returned(most) if head.returned else []
        most -= sum(span.length for span in spans)
        count = min(most, log_end - head.cursor)
        if count > 0:
            self._left(head.cursor, count)
            spans.append(Span(head.cursor, count, 0))
            head.cursor += count
        for span in spans:
            if self._policy.dead_letters:
                self._put_span(DEAD, span._replace(reason=reason))
                head.dead += span.length
        return sum(span.length for span in spans)

    def waiting(self, most: int, *, log_end: int, now_ms: int) -> list[Span]:
        """What ``take`` would lease, up to ``most`` messages."""
        spans = first_spans(self._rows, self._key + RETURNED, most) if self.head.returned else []
        most -= sum(span.length for span in spans)
        if most > 0 and self.head.next_due <= now_ms:
            due = [span for _, span in self._due(most, now_ms)]
            most -= sum(span.length for span in due)
            spans += due
        if most > 0 and log_end > self.head.cursor:
            spans.append(Span(self.head.cursor, min(most, log_end - self.head.cursor), 0))
        if most < 0:
            spans[-1] = spans[-1]._replace(length=spans[-1].length + most)
        return spans

    def due_count(self, now_ms: int) -> int:
        """How many held messages are due."""
        if self.head.next_due > now_ms:
            return 0
        return sum(span.length for _, span in self._due(NEVER, now_ms))

    # What is dead -----------------------------------------------------------------------------

    def dead_spans(self, most: int) -> list[Span]:
        """The first spans that are to be dead-lettered."""
        return list(islice(self.spans(DEAD), most))

    def forget_dead(self, span: Span) -> None:
        """The messages of a dead span are dead-lettered. Others may have joined it since it was
        looked at, in front of it as well as behind."""
        row = self._rows.before(offset_key(self._key, DEAD, span.first + 1), self._key + DEAD)
        if row is None:
            return
        stored = Span.unpack(unpack_offset(row[0]), row[1])
        end = min(span.end, stored.end)
        if end <= span.first:
            return
        self._rows.delete(row[0])
        for first, last in ((stored.first, span.first), (end, stored.end)):
            if first < last:
                rest = stored._replace(first=first, length=last - first)
                self._rows.put(offset_key(self._key, DEAD, first), rest.pack())
        self.head.dead -= end - span.first

    # Looking ----------------------------------------------------------------------------------

    def leases(self) -> Iterator[Lease]:
        """All leases, by their first offsets."""
        for key, value in list(self._rows.items(self._key + LEASED)):
            yield Lease.unpack(key, value)

    def spans(self, kind: bytes) -> Iterator[Span]:
        """All spans of a kind, by their first offsets."""
        for key, value in self._rows.items(self._key + kind):
            yield Span.unpack(unpack_offset(key), value)

    def held(self) -> Iterator[tuple[int, Span]]:
        """All held spans, with the times at which they are due, the earliest first."""
        return self._due(NEVER, NEVER)

    def outstanding(self) -> list[Span]:
        """All that is below the cursor and not settled, in order; delivered messages count as
        having come back, and held ones as not held: what is seen of them says so again."""
        spans = [
            Span(lease.first + start, count, lease.delivery_count + 1)
            for lease in self.leases()
            for start, count in runs_of(lease.open_bits)
        ]
        spans += self.spans(RETURNED)
        spans += (span for _, span in self.held())
        spans += self.spans(DEAD)
        return joined(sorted(spans))

    def restore(self, cursor: int, spans: list[Span], log_start: int, log_end: int) -> None:
        """Begin with what ``outstanding`` told once, as far as the log still has it, in a ledger
        that has no rows."""
        head = self.head
        head.cursor = max(log_start, min(cursor, log_end))
        head.restart_end = log_end
        for span in spans:
            first = max(span.first, log_start)
            span = span._replace(first=first, length=min(span.end, head.cursor) - first)
            if span.length <= 0:
                continue
            kind = DEAD if span.reason else RETURNED
            self._rows.put(offset_key(self._key, kind, span.first), span.pack())
            if span.reason:
                head.dead += span.length
            else:
                head.returned += span.length
                if self._sizes is not None:
                    head.ready_bytes += self._sizes(span.first, span.length)
        head.counted_end = head.cursor
        self.count_to(log_end)
