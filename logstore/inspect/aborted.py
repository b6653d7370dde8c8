"""Aborted transactions: what a ``.txnindex`` says of them beside the log itself.

A reader of committed records leaves out what the named producer wrote from the entry's first
offset up to its marker, and stops looking for entries at the first whose last stable offset lies
behind what it reads (source: Kafka's implementation, KIP-98). So an entry is wrong if following it
would show an aborted record or hide another one; a last stable offset that is lower than it might
be only makes the search longer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from logstore.segments.batch import Batch
from logstore.segments.control import ControlType
from logstore.segments.errors import FormatError
from logstore.segments.scan import Damage
from logstore.segments.transaction_index import AbortedTransaction
from logstore.transactions import OpenTransactions, TransactionEnd

__all__ = ["AbortVerdict", "prove_aborted"]


class AbortVerdict(NamedTuple):
    """An entry, and what the log says to it."""

    number: int | None
    """Of the entry; None for a transaction that has none."""
    claim: str
    evidence: str
    verdict: Literal["right", "wrong", "unproven"]


@dataclass
class _Walk:
    """What the log tells of transactions."""

    wanted: list[int]
    """Offsets of which somebody wants to know who wrote them, ascending."""
    base_offset: int
    """Of the segment that the index belongs to."""
    writers: dict[int, tuple[int, bool]] = field(default_factory=dict)
    """The producer that wrote a wanted offset, and whether in a transaction."""
    ends: dict[int, TransactionEnd] = field(default_factory=dict)
    """Those that the segment has markers of, by the markers' offsets."""
    positions: dict[int, int] = field(default_factory=dict)
    """Of the markers."""
    damaged: bool = False
    """Whether anything could not be read."""
    _next: int = 0
    """The first of ``wanted`` that was not met yet."""
    _open: OpenTransactions = field(default_factory=OpenTransactions)

    def take(self, batch: Batch) -> None:
        """The next batch."""
        header = batch.header
        if header.magic < 2:
            return
        if not header.control:
            while self._next < len(self.wanted) and self.wanted[self._next] <= header.last_offset:
                if self.wanted[self._next] >= header.base_offset:
                    writer = header.producer_id, header.transactional
                    self.writers[self.wanted[self._next]] = writer
                self._next += 1
        end = self._open.take(batch)
        if end is not None and end.offset >= self.base_offset:
            self.ends[end.offset] = end
            self.positions[end.offset] = batch.position


def prove_aborted(
    logs: Iterable[tuple[int, Iterable[Batch | Damage]]],
    base_offset: int,
    entries: Sequence[AbortedTransaction],
) -> Iterator[AbortVerdict]:
    """The entries of the segment at ``base_offset``, beside what ``logs`` say: base offset and
    batches of each segment up to that one, the oldest first."""
    walk = _Walk(sorted({entry.first_offset for entry in entries}), base_offset)
    there = False
    for base, items in logs:
        there |= base == base_offset
        for item in items:
            try:
                if isinstance(item, Damage) or not item.crc_ok:
                    walk.damaged = True
                else:
                    walk.take(item)
            except FormatError:
                walk.damaged = True
    for number, entry in enumerate(entries):
        claim = (
            f"producer {entry.producer_id} aborted what it wrote from offset {entry.first_offset} "
            f"on, by the marker at {entry.last_offset}; stable up to {entry.last_stable_offset}"
        )
        if not there:
            yield AbortVerdict(number, claim, "there is no log beside it", "unproven")
            continue
        problem = _problem(walk, entry)
        if problem is None:
            yield AbortVerdict(number, claim, _evidence(walk, entry), "right")
        elif walk.damaged:
            yield AbortVerdict(number, claim, f"the log is damaged: {problem}", "unproven")
        else:
            yield AbortVerdict(number, claim, problem, "wrong")
    yield from _without_entry(walk, {entry.last_offset for entry in entries})


def _problem(walk: _Walk, entry: AbortedTransaction) -> str | None:
    marker = walk.ends.get(entry.last_offset)
    if marker is None:
        return f"no marker stands at offset {entry.last_offset}"
    if marker.kind != ControlType.ABORT:
        return f"the marker at offset {entry.last_offset} commits"
    if marker.producer_id != entry.producer_id:
        return f"the marker at offset {entry.last_offset} is one of producer {marker.producer_id}"
    first = marker.first_offset
    if first is not None and first < entry.first_offset:
        return f"the transaction began at offset {first}"
    writer = walk.writers.get(entry.first_offset)
    if first != entry.first_offset and writer is not None:
        return f"offset {entry.first_offset} was written by producer {writer[0]}" + (
            "" if writer[1] else ", outside of a transaction"
        )
    if entry.last_stable_offset > marker.stable_offset:
        return f"behind the marker the log is stable up to {marker.stable_offset} only"
    return None


def _evidence(walk: _Walk, entry: AbortedTransaction) -> str:
    marker = walk.ends[entry.last_offset]
    position = walk.positions[entry.last_offset]
    told = f"the control batch at position {position} aborts its transaction"
    if marker.first_offset == entry.first_offset:
        told += ", whose first record is there"
    else:
        told += ", whose first records are gone"
    if entry.last_stable_offset < marker.stable_offset:
        told += f"; it might have said stable up to {marker.stable_offset}"
    return told


def _without_entry(walk: _Walk, named: set[int]) -> Iterator[AbortVerdict]:
    """Aborted transactions that nobody would know of."""
    for offset, marker in walk.ends.items():
        aborts = marker.kind == ControlType.ABORT and marker.first_offset is not None
        if aborts and offset not in named:
            claim = (
                f"producer {marker.producer_id} aborted what it wrote from offset "
                f"{marker.first_offset} on, by the marker at {offset}"
            )
            yield AbortVerdict(None, claim, "the index has no entry for it", "wrong")
