"""Where records come from: what every source of a replay can do.

A source has records in *replay order*, which is the same every time: a partition's by their
offsets, those of several partitions merged by timestamp. A *position* says where in that order one
stands. It can be written down, and the source goes on from it later as if it had not stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from logstore.errors import InvalidInputError
from logstore.fetcher import ConsumerRecord

__all__ = ["Chunk", "ListSource", "Position", "Range", "Source", "record_stream"]

Position = dict[str, int]
"""For each part of a source (a partition, a file) where to go on reading."""


class Chunk(NamedTuple):
    """Some records in replay order; at least one."""

    records: Sequence[ConsumerRecord]
    ends: Callable[[int], Mapping[str, int]]
    """What the first so many of them change in a position."""


class Range(NamedTuple):
    """Which part of each partition is replayed. Of ``offset``, ``since`` and ``last`` at most one
    is given, and of ``end_offset`` and ``until`` as well."""

    offset: int | None = None
    """The first offset."""
    end_offset: int | None = None
    """The first offset that is not replayed any more."""
    since: int | None = None
    """Begin at the first record that is not older (milliseconds since 1970)."""
    until: int | None = None
    """End in front of the first record that is not older."""
    last: int | None = None
    """Begin so many records in front of the end."""

    def checked(self) -> Range:
        """The same; raises InvalidInputError where it contradicts itself."""
        for one, other in (
            ("offset", "since"),
            ("offset", "last"),
            ("since", "last"),
            ("end_offset", "until"),
        ):
            if getattr(self, one) is not None and getattr(self, other) is not None:
                raise InvalidInputError(f"{one} and {other} exclude each other")
        for name, value in self._asdict().items():
            if value is not None and value < 0 and name not in ("since", "until"):
                raise InvalidInputError(f"{name}={value} is out of bounds: at least 0")
        for first, end in (("offset", "end_offset"), ("since", "until")):
            begin, stop = getattr(self, first), getattr(self, end)
            if begin is not None and stop is not None and stop < begin:
                raise InvalidInputError(f"the range ends at {stop}, before it begins at {begin}")
        return self


class Source(Protocol):
    """Records that can be replayed, from any position on. It only reads."""

    @property
    def name(self) -> str:
        """What it is called in messages."""
        ...

    @property
    def identity(self) -> Mapping[str, Any]:
        """What has to be the same (as JSON) for a position to mean the same place."""
        ...

    @property
    def partitions(self) -> int:
        """How many partitions a copy of it needs: one more than its largest number."""
        ...

    @property
    def start(self) -> Position:
        """Where the range begins."""
        ...

    def chunks(self, position: Position) -> Iterator[Chunk]:
        """The records from a position on, to the end of the range.

        The end is what was there when the source was opened. Raises what the log raises where it is
        damaged or no longer holds the position; what stands in front of that was yielded before.
        """
        ...

    def progress(self, position: Position) -> tuple[int, int]:
        """How much of the range lies in front of a position, and of how much: offsets or bytes; 0
        where nobody knows."""
        ...

    def newest(self) -> int:
        """A timestamp near the end of the range; -1 where nobody knows."""
        ...

    def close(self) -> None:
        """Let go of what it has open."""
        ...


def record_stream(source: Source, position: Position) -> Iterator[ConsumerRecord]:
    """The records from a position on, one by one."""
    for chunk in source.chunks(position):
        yield from chunk.records


class ListSource:
    """Records at hand as a source: for tests and notebooks."""

    def __init__(self, records: Sequence[ConsumerRecord], name: str = "records") -> None:
        self._records = records
        self.name = name
        self.identity: Mapping[str, Any] = {"records": name}
        self.partitions = max((record.partition for record in records), default=0) + 1
        self.start: Position = {"": 0}

    def chunks(self, position: Position) -> Iterator[Chunk]:
        """The records from a position on."""
        begin = position.get("", 0)
        if begin < len(self._records):
            yield Chunk(self._records[begin:], lambda count: {"": begin + count})

    def progress(self, position: Position) -> tuple[int, int]:
        """Records in front of a position, and all."""
        return position.get("", 0), len(self._records)

    def newest(self) -> int:
        """The last one's timestamp."""
        return self._records[-1].timestamp if self._records else -1

    def close(self) -> None:
        """Nothing is open."""
