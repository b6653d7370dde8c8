"""Whether a ledger is one: what ``logstore queue ledger`` shows and checks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from logstore.queues.ledger import Ledger
from logstore.queues.ledger_rows import DEAD, NEVER, RETURNED, Reason, runs_of

__all__ = ["check_ledger", "overlapping"]


def check_ledger(ledger: Ledger, *, log_start: int, log_end: int) -> list[str]:
    """What is wrong with a ledger, a sentence each: its rows beside each other, beside its head,
    and beside the log, which holds ``log_start`` to before ``log_end``."""
    head = ledger.head
    faults = []
    if head.cursor > log_end:
        faults.append(f"the cursor is {head.cursor}, beyond the log's end, {log_end}")
    places = sorted(_places(ledger))
    for (first, end, one), (other_first, _, other) in overlapping(places):
        faults.append(f"{one} {first} to {end - 1} and {other} {other_first} overlap")
    for first, end, what in places:
        if end > head.cursor:
            faults.append(f"{what} {first} to {end - 1} is not below the cursor, {head.cursor}")
        if end <= first:
            faults.append(f"{what} {first} holds nothing")
    counts = {
        "leased": (head.unacked, sum(lease.open_bits.bit_count() for lease in ledger.leases())),
        "returned": (head.returned, sum(span.length for span in ledger.spans(RETURNED))),
        "held": (head.held, sum(span.length for _, span in ledger.held())),
        "dead": (head.dead, sum(span.length for span in ledger.spans(DEAD))),
    }
    for what, (told, found) in counts.items():
        if told != found:
            faults.append(f"the head counts {told} {what} messages, and there are {found}")
    faults += _faults_of_rows(ledger)
    lost = [(first, end, what) for first, end, what in places if first < log_start]
    faults += [
        f"{what} {first} to {end - 1} is in front of the log's start, {log_start}"
        for first, end, what in lost
    ]
    return faults


def _faults_of_rows(ledger: Ledger) -> Iterator[str]:
    head = ledger.head
    for lease in ledger.leases():
        if not lease.open_bits:
            yield f"the lease at {lease.first} is settled as a whole"
        if lease.settled >> lease.length:
            yield f"the lease at {lease.first} settles more than its {lease.length} messages"
        if lease.number >= head.next_lease:
            yield f"the lease at {lease.first} has the number {lease.number}, not given yet"
        if lease.deadline < head.earliest_deadline:
            yield f"the lease at {lease.first} ends before the head knows"
    due = next((due for due, _ in ledger.held()), NEVER)
    if due != head.next_due:
        yield f"the head's first held message is due at {head.next_due}, and not at {due}"
    reasons = {int(reason) for reason in Reason}
    for span in ledger.spans(DEAD):
        if span.reason not in reasons:
            yield f"the messages from {span.first} on are dead for no reason ({span.reason})"


def _places(ledger: Ledger) -> Iterator[tuple[int, int, str]]:
    for lease in ledger.leases():
        for start, count in runs_of(lease.open_bits):
            yield lease.first + start, lease.first + start + count, "leased"
    for kind, what in ((RETURNED, "returned"), (DEAD, "dead")):
        for span in ledger.spans(kind):
            yield span.first, span.end, what
    for _, span in ledger.held():
        yield span.first, span.end, "held"


def overlapping(
    places: Sequence[tuple[int, int, str]],
) -> Iterator[tuple[tuple[int, int, str], tuple[int, int, str]]]:
    """Pairs of places that share an offset; ``places`` are in order."""
    furthest: tuple[int, int, str] | None = None
    for place in places:
        if furthest is not None and place[0] < furthest[1]:
            yield furthest, place
        if furthest is None or place[1] > furthest[1]:
            furthest = place
