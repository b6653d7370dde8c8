"""What only share groups do to a ledger: its log is not its own, and loses records by itself.

Commands, as those of ``logstore.queues.ledger``, on a ledger's rows and head; for ledgers that
count no bytes.
"""

from __future__ import annotations

from collections.abc import Iterable

from logstore.queues.ledger import Ledger
from logstore.queues.ledger_rows import (
    DEAD,
    HELD,
    LEASED,
    NEVER,
    RETURNED,
    Head,
    Rows,
    Span,
    offset_key,
    unpack_offset,
)

__all__ = ["drop_before", "restart"]


def drop_before(rows: Rows, key: bytes, head: Head, offset: int) -> int:
    """Settle what waits in front of ``offset``, which the log has lost; returns how many records it
    were. What somebody holds is left to him."""
    count = max(0, offset - head.cursor)
    head.cursor += count
    for row, value in list(rows.items(key + RETURNED)):
        span = Span.unpack(unpack_offset(row), value)
        if span.first >= offset:
            break
        rows.delete(row)
        if span.end > offset:
            rest = span._replace(first=offset, length=span.end - offset)
            rows.put(offset_key(key, RETURNED, offset), rest.pack())
        lost = min(span.end, offset) - span.first
        head.returned -= lost
        count += lost
    return count


def restart(
    rows: Rows, key: bytes, ledger: Ledger, offset: int, *, left: Iterable[Span], log_start: int
) -> None:
    """Go on at ``offset``, which is the log's end or before it, as if nothing had been delivered
    but what is ``left``, as far as that is in front of it; all leases end."""
    spans = [span for span in left if span.first < offset]
    head = ledger.head
    for kind in (LEASED, RETURNED, HELD, DEAD):
        for row, _ in list(rows.items(key + kind)):
            rows.delete(row)
    head.unacked = head.returned = head.held = head.dead = 0
    head.next_due = head.earliest_deadline = NEVER
    ledger.restore(offset, spans, log_start, offset)
