"""The ledger by examples: what a command costs, and what a check of a ledger finds."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from logstore import FormatError
from logstore.queues.ledger import Ledger, Policy
from logstore.queues.ledger_check import check_ledger
from logstore.queues.ledger_rows import (
    NEVER,
    Head,
    Lease,
    Reason,
    Span,
    held_key,
    lease_key,
    offset_key,
    runs_of,
)
from logstore.queues.memory_rows import MemoryRows

KEY = bytes(17)
SESSION = b"s" * 16
MANY = 1_000_000_000


class CountingRows(MemoryRows):
    """Rows that count how often they are touched."""

    def __init__(self) -> None:
        super().__init__({})
        self.touched = 0

    def get(self, key: bytes) -> bytes | None:
        self.touched += 1
        return super().get(key)

    def put(self, key: bytes, value: bytes) -> None:
        self.touched += 1
        super().put(key, value)

    def delete(self, key: bytes) -> bool:
        self.touched += 1
        return super().delete(key)

    def items(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        for row in super().items(prefix):
            self.touched += 1
            yield row

    def before(self, key: bytes, prefix: bytes) -> tuple[bytes, bytes] | None:
        self.touched += 1
        return super().before(key, prefix)


def take(ledger: Ledger, most: int, *, log_end: int = MANY, now_ms: int = 0) -> list[Lease]:
    return ledger.take(most, log_end=log_end, now_ms=now_ms, session=SESSION, deadline=NEVER)


COMMANDS: dict[str, Callable[[Ledger, Lease], object]] = {
    "take": lambda ledger, _: take(ledger, 500),
    "ack": lambda ledger, lease: ledger.ack(lease, (1 << 500) - 1),
    "ack one": lambda ledger, lease: ledger.ack(lease, 1 << 250),
    "requeue": lambda ledger, lease: ledger.requeue(lease, (1 << 499) - 1),
    "bury": lambda ledger, lease: ledger.bury(lease, (1 << 500) - 2, Reason.REJECTED),
    "end of a session": lambda ledger, _: ledger.end_session(SESSION),
    "drop the head": lambda ledger, _: ledger.drop_head(MANY // 2, log_end=MANY, reason=Reason(3)),
    "purge": lambda ledger, _: ledger.skip_waiting(MANY, log_end=MANY),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_what_a_command_costs_does_not_depend_on_how_many_messages_it_is_about(name: str) -> None:
    rows = CountingRows()
    ledger = Ledger(rows, KEY, Head(cursor=1000), Policy(dead_letters=True))
    (lease,) = take(ledger, 500)
    rows.touched = 0
    COMMANDS[name](ledger, lease)
    assert rows.touched <= 6
    assert len(rows.content) <= 4


def test_messages_that_are_given_back_one_by_one_become_one_row() -> None:
    rows = CountingRows()
    ledger = Ledger(rows, KEY, Head())
    (lease,) = take(ledger, 100)
    for bit in (*range(1, 100, 2), *range(0, 100, 2)):
        assert ledger.requeue(lease, 1 << bit)
    assert [(span.first, span.length) for span in ledger.outstanding()] == [(0, 100)]
    assert len(rows.content) == 1


def test_messages_that_wait_for_the_same_moment_are_one_row() -> None:
    rows = CountingRows()
    ledger = Ledger(rows, KEY, Head())
    (lease,) = take(ledger, 100)
    assert ledger.hold(lease, dict.fromkeys(range(100), 5000))
    assert len(rows.content) == 1
    assert take(ledger, 7, log_end=100, now_ms=4_999) == []
    assert [(one.first, one.length) for one in take(ledger, 7, log_end=100, now_ms=5_000)] == [
        (0, 7)
    ]
    assert ledger.head.next_due == 5_000


def test_a_late_acknowledgement_does_not_reach_the_lease_that_came_after() -> None:
    ledger = Ledger(MemoryRows({}), KEY, Head())
    (before,) = ledger.take(3, log_end=3, now_ms=0, session=SESSION, deadline=10)
    assert ledger.end_overdue(9) == 0
    assert ledger.end_overdue(10) == 3
    (after,) = take(ledger, 3, log_end=3)
    assert (after.first, after.delivery_count) == (0, 1)
    assert not ledger.ack(before, 0b111)
    assert ledger.head.unacked == 3
    assert ledger.ack(after, 0b111)
    assert ledger.outstanding() == []


@pytest.mark.parametrize(("limit", "deliveries"), [(0, 1), (1, 2), (5, 6)])
def test_a_poison_message_comes_back_as_often_as_the_limit_says(
    limit: int, deliveries: int
) -> None:
    ledger = Ledger(MemoryRows({}), KEY, Head(), Policy(limit, dead_letters=True))
    seen = 0
    while leases := take(ledger, 1, log_end=1):
        seen += 1
        ledger.requeue(leases[0], 1)
    assert seen == deliveries
    assert ledger.dead_spans(9) == [Span(0, 1, limit + 1, Reason.DELIVERY_LIMIT)]


@pytest.mark.parametrize("since", [[4], [6], [4, 6], [3, 4, 6, 7]])
def test_dead_letters_are_forgotten_whatever_has_joined_them_since(since: list[int]) -> None:
    ledger = Ledger(MemoryRows({}), KEY, Head(), Policy(dead_letters=True))
    (lease,) = take(ledger, 10)
    ledger.bury(lease, 1 << 5, Reason.REJECTED)
    (published,) = ledger.dead_spans(9)
    for offset in since:
        ledger.bury(lease, 1 << offset, Reason.REJECTED)
    ledger.forget_dead(published)
    left = [offset for span in ledger.dead_spans(9) for offset in range(span.first, span.end)]
    assert left == since
    assert ledger.head.dead == len(since)
    ledger.forget_dead(published)  # by who has looked at the same time
    assert ledger.head.dead == len(since)


def test_the_runs_of_a_number_are_found() -> None:
    assert list(runs_of(0)) == []
    assert list(runs_of(0b1011100)) == [(2, 3), (6, 1)]
    assert list(runs_of(1 << 5000)) == [(5000, 1)]


FAULTS: dict[str, tuple[Callable[[MemoryRows, Head], object], str]] = {
    "cursor": (lambda rows, head: setattr(head, "cursor", 11), "beyond the log's end"),
    "overlap": (
        lambda rows, head: rows.put(offset_key(KEY, b"r", 2), Span(2, 1, 0).pack()),
        "overlap",
    ),
    "behind the cursor": (
        lambda rows, head: rows.put(offset_key(KEY, b"d", 5), Span(5, 1, 0, 1).pack()),
        "not below the cursor",
    ),
    "count": (lambda rows, head: setattr(head, "returned", 7), "counts 7 returned messages"),
    "settled lease": (
        lambda rows, head: rows.put(
            lease_key(KEY, 4, 0), Lease(4, 0, SESSION, 1, 0, NEVER, 1).pack()
        ),
        "settled as a whole",
    ),
    "number": (lambda rows, head: setattr(head, "next_lease", 1), "not given yet"),
    "deadline": (
        lambda rows, head: setattr(head, "earliest_deadline", NEVER),
        "ends before the head knows",
    ),
    "due": (
        lambda rows, head: rows.put(held_key(KEY, 77, 4), Span(4, 1, 0).pack()),
        "first held message is due",
    ),
    "no reason": (
        lambda rows, head: rows.put(offset_key(KEY, b"d", 4), Span(4, 1, 0, 9).pack()),
        "dead for no reason",
    ),
    "empty": (
        lambda rows, head: rows.put(offset_key(KEY, b"r", 4), Span(4, 0, 0).pack()),
        "holds nothing",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_ledger_that_cannot_be_is_found_out(name: str) -> None:
    rows = MemoryRows({})
    ledger = Ledger(rows, KEY, Head())
    ledger.take(4, log_end=4, now_ms=0, session=SESSION, deadline=100)
    ledger.skip(5)
    assert check_ledger(ledger, log_start=0, log_end=10) == []
    spoil, fault = FAULTS[name]
    spoil(rows, ledger.head)
    found = check_ledger(ledger, log_start=0, log_end=10)
    assert any(fault in one for one in found), found


def test_messages_that_the_log_has_lost_are_found_out() -> None:
    ledger = Ledger(MemoryRows({}), KEY, Head())
    take(ledger, 3, log_end=3)
    assert check_ledger(ledger, log_start=2, log_end=3) == [
        "leased 0 to 2 is in front of the log's start, 2"
    ]


@pytest.mark.parametrize("make", [Head.unpack, lambda data: Span.unpack(1, data)])
def test_a_broken_row_is_an_error_that_says_so(make: Callable[[bytes], object]) -> None:
    with pytest.raises(FormatError, match="row is broken"):
        make(b"abc")
