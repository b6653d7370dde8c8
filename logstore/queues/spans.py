"""Runs of offsets beside each other: what is in none of them, and which are one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from logstore.queues.ledger_rows import Span

__all__ = ["gaps", "joined"]


def gaps(
    runs: Iterable[tuple[int, int]], taken: list[tuple[int, int]], end: int
) -> Iterator[tuple[int, int]]:
    """What ``runs`` have below ``end`` that is in none of ``taken``, as first offsets and lengths;
    all are in order."""
    place = 0
    for first, run_end in runs:
        run_end = min(run_end, end)
        while first < run_end:
            while place < len(taken) and taken[place][1] <= first:
                place += 1
            stop = run_end if place == len(taken) else min(run_end, taken[place][0])
            if stop > first:
                yield first, stop - first
            first = stop if place == len(taken) else max(stop, min(run_end, taken[place][1]))


def joined(spans: list[Span]) -> list[Span]:
    """Neighbours that are alike as one; ``spans`` are in order."""
    result: list[Span] = []
    for span in spans:
        last = result[-1] if result else None
        if last is not None and last.end == span.first and last[2:] == span[2:]:
            result[-1] = last._replace(length=last.length + span.length)
        else:
            result.append(span)
    return result
