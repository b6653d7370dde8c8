"""What the entries of an index say, and whether the log bears them out.

An index is disposable, and so it is easily believed and hardly ever looked at. Here every entry is
put beside the batch that it is about. What is demanded is what ``check`` demands
(``logstore.segments.check_index``); entries of a ``.txnindex`` are compared with the markers, the
records of their producers and the other transactions, from the partition's first segment on.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from logstore.inspect.aborted import prove_aborted
from logstore.segments import offset_index, time_index, transaction_index
from logstore.segments.batch import Batch
from logstore.segments.check_index import OffsetIndexCheck, Problem, TimeIndexCheck
from logstore.segments.files import Files, read_bounded
from logstore.segments.header import BatchHeader
from logstore.segments.layout import FileKind, PartitionFile, partition_files
from logstore.segments.moments import time_text
from logstore.segments.offset_index import OffsetEntry
from logstore.segments.scan import Damage, survey
from logstore.segments.time_index import TimeEntry

__all__ = ["INDEXES", "Proof", "Verdict", "log_beside", "prove"]

Verdict = Literal["right", "wrong", "unproven"]

INDEXES = (FileKind.OFFSET_INDEX, FileKind.TIME_INDEX, FileKind.TRANSACTION_INDEX)
_MAX_BYTES = 256 << 20
_EVERY = 1 << 62
"""More problems than an index can have."""


class Proof(NamedTuple):
    """An entry of an index, or something else about it, and what the log says to it."""

    number: int | None
    """Of the entry, from 0; None for what is no entry."""
    position: int
    """The byte of the index where it begins."""
    says: dict[str, int]
    """The entry's fields, offsets absolute."""
    claim: str
    """The same as a text."""
    evidence: str
    """What was found in the log."""
    verdict: Verdict
    """``unproven``: the log is missing there, or damaged."""


class _Place(NamedTuple):
    position: int
    header: BatchHeader


def prove(files: Files, index: PartitionFile) -> Iterator[Proof]:
    """What ``index``, a file of one of the kinds ``INDEXES``, says and whether it is right.

    Its log is read once, as far as the verdict needs it. Raises OSError, and FormatError for a
    ``.txnindex`` that cannot be decoded.
    """
    data = read_bounded(files, index.path, _MAX_BYTES)
    if index.kind is FileKind.OFFSET_INDEX:
        yield from _prove_offsets(files, index, data)
    elif index.kind is FileKind.TIME_INDEX:
        yield from _prove_times(files, index, data)
    else:
        entries = transaction_index.decode_entries(data)
        for verdict in prove_aborted(_logs_up_to(files, index), index.base_offset or 0, entries):
            number = verdict.number
            says = {} if number is None else entries[number]._asdict()
            position = (number or 0) * transaction_index.ENTRY_BYTES
            yield Proof(number, position, says, verdict.claim, verdict.evidence, verdict.verdict)


def log_beside(files: Files, index: PartitionFile) -> str | None:
    """The path of the log that an index belongs to, if it is there."""
    path = index.path.removesuffix(index.kind.value) + FileKind.LOG.value
    return path if files.exists(path) else None


def _logs_up_to(
    files: Files, index: PartitionFile
) -> Iterator[tuple[int, Iterator[Batch | Damage]]]:
    """The logs of the partition up to the one of ``index``, the oldest first, with their bases."""
    base = index.base_offset or 0
    for file in partition_files(files, os.path.dirname(index.path) or "."):
        if file.kind is FileKind.LOG and (file.base_offset or 0) <= base:
            yield file.base_offset or 0, _surveyed(files, file.path)


def _surveyed(files: Files, path: str) -> Iterator[Batch | Damage]:
    log = files.open(path)
    try:
        yield from survey(log)
    finally:
        log.close()


def _is_active(files: Files, index: PartitionFile) -> bool:
    """Whether the segment is the partition's last, at whose end somebody may be writing."""
    bases = [
        file.base_offset or 0
        for file in partition_files(files, os.path.dirname(index.path) or ".")
        if file.kind is FileKind.LOG
    ]
    return index.base_offset == max(bases, default=None)


def _compare(
    files: Files,
    index: PartitionFile,
    check: OffsetIndexCheck | TimeIndexCheck,
    keep: Sequence[int],
    *,
    by_position: bool,
    written_first: OffsetIndexCheck | None = None,
) -> dict[int, _Place]:
    """Show the log to ``check``. Returns the batches that begin at the positions in ``keep``, or
    hold the offsets in it, by those; both ascend.

    ``written_first`` is the index whose entry a writer puts in front of that of ``check``: without
    an entry that is ahead of the log there, there is none here."""
    log = log_beside(files, index)
    found: dict[int, _Place] = {}
    if log is None:
        return found
    checks = [check] if written_first is None else [written_first, check]
    following = 0
    end = 0
    known = True
    for item in _surveyed(files, log):
        if isinstance(item, Damage):
            end = item.position + item.size
            for one in checks:
                one.damage(end)
            known = False
            continue
        header = item.header
        end = item.position + header.size
        known = item.crc_ok
        for one in checks:
            one.batch(item.position, header, trusted=known)
        last = item.position if by_position else header.last_offset
        while following < len(keep) and keep[following] <= last:
            if known and keep[following] >= (item.position if by_position else header.base_offset):
                found[keep[following]] = _Place(item.position, header)
            following += 1
    if known:
        ahead = _is_active(files, index)
        for one in checks:
            ahead = one.finish(end, ahead=ahead)
    return found


def _prove_offsets(files: Files, index: PartitionFile, data: bytes) -> Iterator[Proof]:
    base = index.base_offset or 0
    entries = offset_index.decode_entries(base, data[: offset_index.valid_size(data)])
    check = OffsetIndexCheck(data, base, may_be_torn=_is_active(files, index), most_problems=_EVERY)
    keep = [entry.position for entry in entries[: check.ascending]]
    places = _compare(files, index, check, keep, by_position=True)

    def claim(entry: OffsetEntry) -> str:
        relative = f"relative offset {entry.offset - base}"
        return f"{relative} is offset {entry.offset}, at position {entry.position}"

    def evidence(entry: OffsetEntry, place: _Place) -> str:
        last = place.header.last_offset
        ends = ", and ends with it" if last == entry.offset else ""
        return f"the batch there has offsets {place.header.base_offset} to {last}{ends}"

    log = log_beside(files, index)
    problems = _by_number(check.take(), offset_index.ENTRY_BYTES)
    for number, entry in enumerate(entries):
        place = places.get(entry.position)
        told = None if place is None else evidence(entry, place)
        says = {"offset": entry.offset, "log_position": entry.position}
        yield _proof(
            number,
            offset_index.ENTRY_BYTES,
            says,
            claim(entry),
            told,
            problems,
            behind=number >= check.ascending,
            log=log,
        )
    yield from _no_entries(problems, len(entries), offset_index.ENTRY_BYTES)


def _prove_times(files: Files, index: PartitionFile, data: bytes) -> Iterator[Proof]:
    base = index.base_offset or 0
    entries = time_index.decode_entries(base, data[: time_index.valid_size(data)])
    check = TimeIndexCheck(data, base, may_be_torn=_is_active(files, index), most_problems=_EVERY)
    keep = [entry.offset for entry in entries[: check.ascending]]
    offsets = index.path.removesuffix(index.kind.value) + FileKind.OFFSET_INDEX.value
    first = None
    if files.exists(offsets):
        first = OffsetIndexCheck(read_bounded(files, offsets, _MAX_BYTES), base)
    places = _compare(files, index, check, keep, by_position=False, written_first=first)

    def claim(entry: TimeEntry) -> str:
        return (
            f"the largest timestamp up to offset {entry.offset} is {entry.timestamp} "
            f"({time_text(entry.timestamp)})"
        )

    def evidence(place: _Place) -> str:
        header = place.header
        return (
            f"the batch of that offset, at position {place.position}, has offsets "
            f"{header.base_offset} to {header.last_offset} and largest timestamp "
            f"{header.max_timestamp}, and none before it is as recent"
        )

    log = log_beside(files, index)
    problems = _by_number(check.take(), time_index.ENTRY_BYTES)
    for number, entry in enumerate(entries):
        place = places.get(entry.offset)
        exact = place is not None and place.header.max_timestamp == entry.timestamp
        told = evidence(place) if place is not None and exact else None
        says = {"timestamp": entry.timestamp, "offset": entry.offset}
        yield _proof(
            number,
            time_index.ENTRY_BYTES,
            says,
            claim(entry),
            told,
            problems,
            behind=number >= check.ascending,
            log=log,
        )
    yield from _no_entries(problems, len(entries), time_index.ENTRY_BYTES)


def _by_number(problems: Sequence[Problem], size: int) -> dict[int, Problem]:
    """The first problem of each entry."""
    found: dict[int, Problem] = {}
    for problem in problems:
        found.setdefault(problem.position // size, problem)
    return found


def _proof(
    number: int,
    size: int,
    says: dict[str, int],
    claim: str,
    evidence: str | None,
    problems: dict[int, Problem],
    *,
    behind: bool,
    log: str | None,
) -> Proof:
    problem = problems.get(number)
    if problem is not None:
        verdict: Verdict = "wrong" if problem.severity == "damage" else "unproven"
        return Proof(number, number * size, says, claim, _told(problem), verdict)
    if evidence is not None and not behind:
        return Proof(number, number * size, says, claim, evidence, "right")
    why = "there is no log beside it"
    if log is not None:
        why = "an entry before it does not ascend" if behind else "the log is damaged there"
    return Proof(number, number * size, says, claim, why, "unproven")


def _told(problem: Problem) -> str:
    if problem.expected is None:
        return problem.text
    return f"{problem.text}: expected {problem.expected}, found {problem.found}"


def _no_entries(problems: dict[int, Problem], count: int, size: int) -> Iterator[Proof]:
    """What is wrong behind the entries: a part of one."""
    for number, problem in problems.items():
        if number >= count:
            verdict: Verdict = "wrong" if problem.severity == "damage" else "unproven"
            yield Proof(None, number * size, {}, "a part of an entry", _told(problem), verdict)
