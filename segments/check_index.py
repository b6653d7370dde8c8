"""Checking a segment's two indexes against its log, while the log is read once.

Demanded is what a look-up needs, and no more: files that the cleaner wrote, that were appended
to over restarts, or by old brokers, follow other rhythms than ours. So entries have to ascend, to
name places that exist, and never to lead past what is looked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from logstore.segments import offset_index, time_index
from logstore.segments.header import BatchHeader
from logstore.segments.offset_index import OffsetEntry
from logstore.segments.time_index import TimeEntry

__all__ = ["IndexCheck", "OffsetIndexCheck", "Problem", "TimeIndexCheck"]


MOST_PROBLEMS = 10
"""So many are told of one index: one of another log has a problem with every entry."""


class Problem(NamedTuple):
    """What is wrong at a place of a file."""

    position: int
    text: str
    expected: str | None = None
    found: str | None = None
    severity: Literal["damage", "note"] = "damage"


class IndexCheck:
    """What both indexes have in common; the batches of the log are shown to it one by one."""

    entry_bytes: int
    columns: tuple[str, str]

    def __init__(
        self,
        entries: Sequence[tuple[int, int]],
        size: int,
        *,
        may_be_torn: bool,
        most_problems: int = MOST_PROBLEMS,
    ) -> None:
        self._entries = entries
        """The entries that ascend, up to the first that does not."""
        self._next = 0
        """Number of the first entry that was not compared yet."""
        self._count = 0
        """Problems so far."""
        self._most_problems = most_problems
        self.problems: list[Problem] = []
        """What was found since somebody last took it away."""
        if size % self.entry_bytes:
            self.problems.append(
                Problem(
                    size - size % self.entry_bytes,
                    "the index ends inside an entry",
                    f"a multiple of {self.entry_bytes} bytes",
                    f"{size} bytes",
                    severity="note" if may_be_torn else "damage",
                )
            )
        self._keep_what_ascends()

    def _keep_what_ascends(self) -> None:
        """Behind an entry that does not ascend nothing can be compared in one pass."""
        entries = self._entries
        for number in range(1, len(entries)):
            before, entry = entries[number - 1], entries[number]
            for column, name in enumerate(self.columns):
                if entry[column] <= before[column]:
                    self._entries = entries[:number]
                    self._add(
                        number,
                        f"the {name}s do not ascend",
                        f"more than {before[column]}",
                        f"{entry[column]}",
                    )
                    return

    def _add(
        self,
        number: int,
        text: str,
        expected: str,
        found: str,
        *,
        severity: Literal["damage", "note"] = "damage",
    ) -> None:
        self._count += 1
        if self._count > self._most_problems:
            return
        if self._count == self._most_problems:
            text += " (and so on: the rest of this index is not told)"
        position = number * self.entry_bytes
        self.problems.append(Problem(position, text, expected, found, severity))

    @property
    def ascending(self) -> int:
        """How many entries ascend, from the first one on; those behind them are not compared."""
        return len(self._entries)

    def take(self) -> list[Problem]:
        """What was found since the last call."""
        problems, self.problems = self.problems, []
        return problems

    def batch(self, position: int, header: BatchHeader, *, trusted: bool) -> None:
        """The next batch of the log; not ``trusted`` where its checksum is wrong."""
        raise NotImplementedError

    def damage(self, end: int) -> None:
        """The next bytes of the log, up to ``end``, are no batch."""
        raise NotImplementedError

    def finish(self, end: int, *, ahead: bool) -> bool:
        """The log ends at position ``end``, and is known up to there.

        A writer may put the entries of a batch in front of the batch itself; if it is killed
        between the two, the last entry is *ahead* of the log, and replaced by the next writer.
        ``ahead`` says whether that may be so here; returns whether it was.
        """
        raise NotImplementedError


class OffsetIndexCheck(IndexCheck):
    """Every entry leads to a batch, and to none that is behind the offset that it names."""

    entry_bytes = offset_index.ENTRY_BYTES
    columns = ("offset", "position")

    def __init__(
        self,
        data: bytes,
        base_offset: int,
        *,
        may_be_torn: bool = False,
        most_problems: int = MOST_PROBLEMS,
    ) -> None:
        """``may_be_torn``: a writer that was killed may have left a part of an entry at the end,
        which the next one overwrites."""
        valid = data[: offset_index.valid_size(data)]
        self._decoded = offset_index.decode_entries(base_offset, valid)
        super().__init__(
            self._decoded, len(data), may_be_torn=may_be_torn, most_problems=most_problems
        )
        self._last_offset = -1
        """The last offset in front of the next batch."""
        self._in_doubt = False
        """Whether something could not be read, and may have had more offsets."""

    def batch(self, position: int, header: BatchHeader, *, trusted: bool) -> None:
        while self._next < len(self._entries) and self._entry.position <= position:
            entry = self._entry
            if entry.position < position:
                self._misses_batch(entry)
            elif entry.offset <= self._last_offset:
                self._add(
                    self._next,
                    f"the entry leads past its offset, to position {position}",
                    f"an offset above {self._last_offset}",
                    f"{entry.offset}",
                )
            elif entry.offset < header.base_offset and trusted:
                self._add(
                    self._next,
                    f"the entry's offset stands in front of position {position}",
                    f"an offset of at least {header.base_offset}",
                    f"{entry.offset}",
                )
            self._next += 1
        if trusted:
            self._last_offset = header.last_offset
        else:
            self._in_doubt = True

    def damage(self, end: int) -> None:
        self._in_doubt = True
        while self._next < len(self._entries) and self._entry.position < end:
            self._next += 1  # there may have been a batch once

    def finish(self, end: int, *, ahead: bool) -> bool:
        while self._next < len(self._entries) and self._entry.position < end:
            self._misses_batch(self._entry)
            self._next += 1
        if self._next < len(self._entries):
            position = self._entry.position
            ahead = ahead and position == end and self._next == len(self._entries) - 1
            self._add(
                self._next,
                "the last entry is ahead of the log: its batch was not written"
                if ahead
                else "the entry leads behind the log's end",
                f"a position below {end}",
                f"{position}",
                severity="note" if ahead else "damage",
            )
            return ahead
        if self._entries and not self._in_doubt:
            last = self._entries[-1][0]
            if last > self._last_offset:
                self._add(
                    len(self._entries) - 1,
                    "the entry's offset is not in the log",
                    f"at most {self._last_offset}",
                    f"{last}",
                )
        return False

    @property
    def _entry(self) -> OffsetEntry:
        return self._decoded[self._next]

    def _misses_batch(self, entry: OffsetEntry) -> None:
        self._add(
            self._next,
            "the entry leads to no batch",
            "the position of a batch",
            f"{entry.position}",
        )


class TimeIndexCheck(IndexCheck):
    """Every entry names the first batch that is as recent as it says."""

    entry_bytes = time_index.ENTRY_BYTES
    columns = ("timestamp", "offset")

    def __init__(
        self,
        data: bytes,
        base_offset: int,
        *,
        may_be_torn: bool = False,
        most_problems: int = MOST_PROBLEMS,
    ) -> None:
        """``may_be_torn``: a writer that was killed may have left a part of an entry at the end,
        which the next one overwrites."""
        valid = data[: time_index.valid_size(data)]
        self._decoded = time_index.decode_entries(base_offset, valid)
        super().__init__(
            self._decoded, len(data), may_be_torn=may_be_torn, most_problems=most_problems
        )
        self._max_timestamp = -1
        """The largest timestamp in front of the next batch."""
        self._in_doubt = False
        """Whether something before could not be read, and may have been more recent."""
        self._last_offset = -1
        """The largest offset so far."""

    def batch(self, position: int, header: BatchHeader, *, trusted: bool) -> None:
        if not trusted:
            self._in_doubt = True
            return
        while self._next < len(self._entries) and self._entry.offset <= header.last_offset:
            self._compare(self._entry, header)
            self._next += 1
        self._max_timestamp = max(self._max_timestamp, header.max_timestamp)
        self._last_offset = header.last_offset

    def _compare(self, entry: TimeEntry, header: BatchHeader) -> None:
        if self._max_timestamp >= entry.timestamp:
            self._add(
                self._next,
                f"the entry leads past its timestamp, to offset {entry.offset}",
                f"a timestamp above {self._max_timestamp}",
                f"{entry.timestamp}",
            )
        elif header.max_timestamp != entry.timestamp and not self._in_doubt:
            self._add(
                self._next,
                f"the entry's timestamp is not that of the batch of offset {entry.offset}",
                f"{header.max_timestamp}",
                f"{entry.timestamp}",
            )

    def damage(self, end: int) -> None:
        self._in_doubt = True

    def finish(self, end: int, *, ahead: bool) -> bool:
        if self._next == len(self._entries) or self._in_doubt:
            return False
        ahead = ahead and self._next == len(self._entries) - 1
        self._add(
            self._next,
            "the last entry is ahead of the log: its batch was not written"
            if ahead
            else "the entry's offset is not in the log",
            f"at most {self._last_offset}" if self._last_offset >= 0 else "no entry",
            f"{self._entry.offset}",
            severity="note" if ahead else "damage",
        )
        return ahead

    @property
    def _entry(self) -> TimeEntry:
        return self._decoded[self._next]
