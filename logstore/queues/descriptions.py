"""What a ledger is made of, told to people: for ``logstore queue ledger``."""

from __future__ import annotations

from typing import NamedTuple

from logstore.queues.ledger import Ledger
from logstore.queues.ledger_rows import DEAD, RETURNED, Lease, Reason, Span
from logstore.queues.queue import Level, WorkQueue

__all__ = ["LeaseDescription", "LedgerDescription", "SpanDescription", "describe_ledgers"]


class LeaseDescription(NamedTuple):
    """A lease."""

    first_offset: int
    last_offset: int
    session: str
    unacked: int
    """Messages in it that are not settled."""
    delivery_count: int
    milliseconds_left: int
    """Until it ends; below 0: it is overdue."""


class SpanDescription(NamedTuple):
    """A run of offsets that are neither leased nor settled."""

    state: str
    """returned, held, or why they are dead."""
    first_offset: int
    last_offset: int
    delivery_count: int
    due_ms: int | None = None
    """When held ones are due: milliseconds since 1970."""


class LedgerDescription(NamedTuple):
    """The ledger of one level of priority."""

    level: int
    log_start_offset: int
    log_end_offset: int
    cursor: int
    leases: list[LeaseDescription]
    spans: list[SpanDescription]


def describe_ledgers(queue: WorkQueue) -> list[LedgerDescription]:
    """The ledgers of a queue, the highest level first."""
    return [_describe(queue, level) for level in queue.levels()]


def _describe(queue: WorkQueue, level: Level) -> LedgerDescription:
    boottime = queue.clock.boottime_ms()
    start, end = level.log.log_start_offset, level.log.log_end_offset

    def describe(ledger: Ledger) -> LedgerDescription:
        spans = [_span("returned", span) for span in ledger.spans(RETURNED)]
        spans += [_span("held", span, due) for due, span in ledger.held()]
        spans += [_span(_reason(span.reason), span) for span in ledger.spans(DEAD)]
        leases = [_lease(lease, boottime) for lease in ledger.leases()]
        return LedgerDescription(level.number, start, end, ledger.head.cursor, leases, spans)

    return level.ledger.looked_at(describe)


def _lease(lease: Lease, boottime: int) -> LeaseDescription:
    return LeaseDescription(
        lease.first,
        lease.first + lease.length - 1,
        lease.session.hex(),
        lease.open_bits.bit_count(),
        lease.delivery_count,
        lease.deadline - boottime,
    )


def _span(state: str, span: Span, due: int | None = None) -> SpanDescription:
    return SpanDescription(state, span.first, span.end - 1, span.delivery_count, due)


def _reason(number: int) -> str:
    try:
        return Reason(number).label
    except ValueError:  # the check says so
        return f"unknown-{number}"
