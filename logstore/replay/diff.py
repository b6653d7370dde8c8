"""Two logs, record by record; or two folds over one log, state by state.

By *offset* the records of equal partition and offset are compared. Of logs, one partition after the
other is read on both sides, with no more in memory than what is read at once.

By *key* the first record of a key is compared with its first one on the other side, the second with
the second, and so on, wherever they stand. What waits for its counterpart takes about 200 bytes, so
two logs that are nearly in the same order take little memory, whatever their length.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import chain
from typing import Any, Literal, NamedTuple

from logstore.errors import InvalidInputError
from logstore.fetcher import ConsumerRecord
from logstore.replay.changes import Change, as_data, changes
from logstore.replay.errors import UserCodeError
from logstore.replay.filters import Test
from logstore.replay.folding import Fold
from logstore.replay.log_source import LogSource, opened
from logstore.replay.source import Source, record_stream

__all__ = [
    "FIELDS",
    "Divergence",
    "FoldDivergence",
    "FoldSummary",
    "Summary",
    "diff_by_key",
    "diff_by_offset",
    "diff_folds",
]

FIELDS = ("timestamp", "key", "value", "headers")
"""What of two records can be compared."""

Kind = Literal["changed", "removed", "added"]


class Divergence(NamedTuple):
    """A place where two logs differ."""

    kind: Kind
    """``removed``: only the left one has it; ``added``: only the right one."""
    left: ConsumerRecord | None
    right: ConsumerRecord | None
    fields: tuple[str, ...] = ()
    """What is different of records on both sides."""


@dataclass
class Summary:
    """How often two logs agree and differ."""

    same: int = 0
    changed: int = 0
    removed: int = 0
    """Records that only the left one has."""
    added: int = 0
    """Records that only the right one has."""
    first: Divergence | None = None
    """The first difference, in the order of a replay."""

    @property
    def differs(self) -> bool:
        """Whether there is any difference."""
        return bool(self.changed or self.removed or self.added)


def _different(
    left: ConsumerRecord, right: ConsumerRecord, fields: Sequence[str]
) -> tuple[str, ...]:
    return tuple(name for name in fields if _field(left, name) != _field(right, name))


def _field(record: ConsumerRecord, name: str) -> Any:
    if name == "headers":
        return [tuple(pair) for pair in record.headers]
    return getattr(record, name)


def _checked(fields: Sequence[str]) -> tuple[str, ...]:
    for name in fields:
        if name not in FIELDS:
            raise InvalidInputError(f"{name!r} cannot be compared; {', '.join(FIELDS)} can")
    return tuple(fields)


# By offset --------------------------------------------------------------------------------------

_Stream = Iterator[ConsumerRecord]


def diff_by_offset(
    left: Source, right: Source, *, fields: Sequence[str] = FIELDS, test: Test | None = None
) -> Summary:
    """Compare what has the same partition and offset; records for which ``test`` is false are left
    out on both sides. Raises InvalidInputError, and what the sources raise."""
    compared = _checked(fields)
    summary = Summary()
    first: tuple[int, int] | None = None
    left_streams, right_streams = _streams(left, test), _streams(right, test)
    for number in sorted({*left_streams, *right_streams}):
        streams = [
            side[number]() if number in side else iter(()) for side in (left_streams, right_streams)
        ]
        newest = -1
        for one, other in _aligned(*streams):
            found = _counted(summary, one, other, compared)
            # A replay merges partitions by timestamp, and keeps the order of each: what is older
            # than records in front of it comes right behind them.
            newest = max([newest, *(side.timestamp for side in (one, other) if side is not None)])
            if found is not None and (first is None or (newest, number) < first):
                first, summary.first = (newest, number), found
    return summary


def _streams(source: Source, test: Test | None) -> dict[int, Callable[[], _Stream]]:
    """For each partition what gives its records in the order of their offsets."""
    if isinstance(source, LogSource):
        if len({part.topic for part in source.parts}) > 1:
            raise InvalidInputError(f"{source.name}: there are several topics: name one of them")
        return {
            part.partition: lambda part=part: _kept(  # type: ignore[misc]
                chain.from_iterable(rows for rows, _ in opened(part, part.start)), test
            )
            for part in source.parts
        }
    numbers = {record.partition for record in record_stream(source, source.start)}
    return {
        number: lambda number=number: _kept(  # type: ignore[misc]
            (one for one in record_stream(source, source.start) if one.partition == number), test
        )
        for number in numbers
    }


def _kept(records: _Stream, test: Test | None) -> _Stream:
    return records if test is None else filter(test, records)


def _aligned(
    left: _Stream, right: _Stream
) -> Iterator[tuple[ConsumerRecord | None, ConsumerRecord | None]]:
    one, other = next(left, None), next(right, None)
    while one is not None or other is not None:
        if other is None or (one is not None and one.offset < other.offset):
            yield one, None
            one = next(left, None)
        elif one is None or other.offset < one.offset:
            yield None, other
            other = next(right, None)
        else:
            yield one, other
            one, other = next(left, None), next(right, None)


def _counted(
    summary: Summary,
    left: ConsumerRecord | None,
    right: ConsumerRecord | None,
    fields: tuple[str, ...],
) -> Divergence | None:
    """Count what has the same place; how it differs, if it does."""
    if left is not None and right is not None:
        different = _different(left, right, fields)
        if not different:
            summary.same += 1
            return None
        summary.changed += 1
        return Divergence("changed", left, right, different)
    if left is not None:
        summary.removed += 1
        return Divergence("removed", left, None)
    summary.added += 1
    return Divergence("added", None, right)


# By key -----------------------------------------------------------------------------------------


class _Waiting(NamedTuple):
    """A record that has not met its counterpart."""

    place: int
    """How many records of its side lie in front of it."""
    digest: bytes


def diff_by_key(
    left: Source, right: Source, *, fields: Sequence[str] = FIELDS, test: Test | None = None
) -> Summary:
    """Compare each record with the one that has the same key, and as many of that key in front of
    it, on the other side. As :func:`diff_by_offset` otherwise.

    Of the first difference, and of no others, the records are read once more.
    """
    compared = tuple(name for name in _checked(fields) if name != "key")
    summary = Summary()
    sides = [_kept(record_stream(one, one.start), test) for one in (left, right)]
    waiting: tuple[dict[bytes | None, deque[_Waiting]], ...] = ({}, {})
    first: list[tuple[int, int, int, int]] = []
    counts = [0, 0]
    alive = [0, 1]
    while alive:
        for side in tuple(alive):
            record = next(sides[side], None)
            if record is None:
                alive.remove(side)
                continue
            mine = _Waiting(counts[side], _digest(record, compared))
            counts[side] += 1
            theirs = waiting[1 - side].get(record.key)
            if not theirs:
                waiting[side].setdefault(record.key, deque()).append(mine)
                continue
            other = theirs.popleft()
            if not theirs:
                del waiting[1 - side][record.key]
            if mine.digest == other.digest:
                summary.same += 1
                continue
            summary.changed += 1
            pair = (mine, other) if side == 0 else (other, mine)
            first = [min([*first, (0, pair[0].place, pair[0].place, pair[1].place)])]
    for side, name in enumerate(("removed", "added")):
        left_over = list(chain.from_iterable(waiting[side].values()))
        setattr(summary, name, len(left_over))
        if left_over:
            place = min(left_over).place
            first = [min([*first, (side, place, *((place, -1) if side == 0 else (-1, place)))])]
    if first:
        summary.first = _found(left, right, first[0][2:], compared, test)
    return summary


def _digest(record: ConsumerRecord, fields: tuple[str, ...]) -> bytes:
    text = repr([_field(record, name) for name in fields])
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _found(
    left: Source,
    right: Source,
    places: Sequence[int],
    fields: tuple[str, ...],
    test: Test | None,
) -> Divergence:
    """The records at these places; -1 is none."""
    records: list[ConsumerRecord | None] = []
    for source, place in zip((left, right), places, strict=True):
        stream = _kept(record_stream(source, source.start), test)
        records.append(
            None if place < 0 else next(one for index, one in enumerate(stream) if index == place)
        )
    one, other = records
    if one is not None and other is not None:
        return Divergence("changed", one, other, _different(one, other, fields))
    return Divergence("removed" if one is not None else "added", one, other)


# Folds ------------------------------------------------------------------------------------------


class FoldDivergence(NamedTuple):
    """The first record behind which two folds disagree."""

    record: ConsumerRecord
    left: Any
    """What the first fold has made, as plain data."""
    right: Any
    changes: list[Change]
    """From the left one to the right one."""


@dataclass
class FoldSummary:
    """How often two folds agree and differ."""

    same: int = 0
    """Records behind which the states are the same."""
    different: int = 0
    last_differs: bool = False
    """Whether they differ at the end."""
    first: FoldDivergence | None = None

    @property
    def differs(self) -> bool:
        """Whether they ever differ."""
        return self.different > 0


def diff_folds(
    source: Source,
    left: Fold,
    right: Fold,
    *,
    names: tuple[str, str] = ("the first fold", "the second fold"),
    test: Test | None = None,
) -> FoldSummary:
    """Fold the records of a source in both ways, and compare the states behind each of them: they
    are the same when they are equal, or the same data. Raises UserCodeError."""
    summary = FoldSummary()
    one: Any = None
    other: Any = None
    for record in _kept(record_stream(source, source.start), test):
        one = _folded(left, one, record, names[0])
        other = _folded(right, other, record, names[1])
        if _same(one, other):
            summary.same += 1
            summary.last_differs = False
            continue
        summary.different += 1
        summary.last_differs = True
        if summary.first is None:
            summary.first = FoldDivergence(
                record, as_data(one), as_data(other), list(changes(one, other))
            )
    return summary


def _folded(fold: Fold, state: Any, record: ConsumerRecord, name: str) -> Any:
    try:
        return fold(state, record)
    except Exception as error:
        raise UserCodeError(name, error, record) from error


def _same(one: Any, other: Any) -> bool:
    try:
        if type(one) is type(other) and one == other:
            return True
    except Exception:  # noqa: BLE001 - their own code may raise anything
        return bool(as_data(one) == as_data(other))
    return bool(as_data(one) == as_data(other))
