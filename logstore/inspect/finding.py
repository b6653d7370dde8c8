"""Searching partitions for records, in bounded memory.

Partition after partition is walked over, batch by batch. What lies outside of the range is told by
indexes and headers; of the others only those are decoded in whose bytes a match may be.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from logstore.errors import InvalidInputError
from logstore.fetcher import ConsumerRecord
from logstore.inspect.query import Query
from logstore.inspect.sources import Partition
from logstore.inspect.walking import Trouble, Walk, body_of, rows_of
from logstore.replay.source import Range
from logstore.segments.batch import Batch
from logstore.segments.errors import FormatError
from logstore.segments.files import DiskFiles, Files
from logstore.transactions import Outcomes

__all__ = ["Counters", "Finder", "Found"]


_ALL = Range()


class Found(NamedTuple):
    """A record that was found, or one that stands near one."""

    record: ConsumerRecord
    matched: bool
    """Whether it is one that was looked for; if not, it is the context of one."""
    follows: bool
    """Whether it stands right behind the one before, with no record between them."""
    path: str
    """The segment that it is in."""


@dataclass(slots=True)
class Counters:
    """What a search came to so far."""

    matches: int = 0
    batches: int = 0
    """Batches that hold something of the range."""
    decoded: int = 0
    """Those of them whose records were decoded."""
    troubles: int = 0


@dataclass
class Finder:
    """A search, to be made in one partition after the other.

    ``before`` and ``after`` are how many records around each match are wanted; it ends with the
    match number ``limit``, in whichever partition. ``once``: the first match of each segment will
    do. ``committed``: only records that no open or
    aborted transaction has written. ``trouble`` is told what could not be looked into; the search
    goes on behind it.
    """

    query: Query
    wanted: Range = _ALL
    before: int = 0
    after: int = 0
    limit: int | None = None
    once: bool = False
    committed: bool = False
    trouble: Callable[[Trouble], object] = lambda trouble: None
    files: Files = field(default_factory=DiskFiles)

    def __post_init__(self) -> None:
        """Raises InvalidInputError for a pattern or a range that is none."""
        self._compiled = self.query.compiled()
        self.wanted.checked()
        if self.wanted.last is not None:
            raise InvalidInputError("a search has no last records: give offset or since")
        self.counters = Counters()

    def search(self, partition: Partition) -> Iterator[Found]:
        """What is found in a partition, in the order of its offsets."""
        if self.is_over():
            return
        wanted, outcomes = self.wanted, None
        if self.committed:
            outcomes = Outcomes()
            for batch in _everything(self.files, partition):
                outcomes.take(batch)
            stable = outcomes.last_stable_offset
            if stable is not None:
                if wanted.offset is not None and wanted.offset > stable:
                    return
                end = stable if wanted.end_offset is None else min(stable, wanted.end_offset)
                wanted = wanted._replace(end_offset=end)
        walk = Walk(self.files, partition, wanted, trouble=self._tell)
        context = _Context(self.before, self.after)
        for batch in walk.batches():
            if outcomes is None or not outcomes.is_aborted(batch):
                for found in self._in_batch(batch, partition, walk, context):
                    yield found
                    if self.once and found.matched:
                        walk.leave_segment()
                        break
            if self.is_over() and not context.after_left:
                return

    def is_over(self) -> bool:
        """Whether the last match was found that was asked for."""
        return self.limit is not None and self.counters.matches >= self.limit

    def _tell(self, trouble: Trouble) -> None:
        self.counters.troubles += 1
        self.trouble(trouble)

    def _in_batch(
        self, batch: Batch, partition: Partition, walk: Walk, context: _Context
    ) -> Iterator[Found]:
        query, counters, path = self._compiled, self.counters, batch.path or ""
        counters.batches += 1
        try:
            body = body_of(batch)
            may_match = not self.is_over() and query.may_match(body)
            if not may_match and not context.after_left:
                context.pass_over(_Closed(self.files, partition, batch, walk.start, walk.end))
                return
            rows = rows_of(batch, partition, body=body, start=walk.start, end=walk.end)
        except FormatError as error:
            self._tell(Trouble(path, batch.position, error.reason))
            return
        counters.decoded += 1

        matches = query.matches if may_match else _never

        def is_match(row: ConsumerRecord) -> bool:
            if not matches(row) or self.is_over():
                return False
            counters.matches += 1
            return True

        yield from context.found(rows, is_match, path)


def _never(_: ConsumerRecord) -> bool:
    """No match is left to be found in the batch."""
    return False


def _everything(files: Files, partition: Partition) -> Iterator[Batch]:
    """All batches of a partition in their order, those of control records included."""
    return Walk(files, partition, Range(), trouble=lambda _: None, control=True).batches()


# Context ----------------------------------------------------------------------------------------


class _Closed:
    """A batch that was passed over, and how to read it again should somebody need its end: to hold
    on to it would take as much memory as the batches of so many records."""

    def __init__(
        self, files: Files, partition: Partition, batch: Batch, start: int, end: int
    ) -> None:
        self._files = files
        self._partition = partition
        self.path = batch.path or ""
        self._position, self._size = batch.position, batch.header.size
        self._start, self._end = start, end
        self.count = batch.header.record_count

    def rows(self) -> list[ConsumerRecord]:
        """Its records; none if the file is gone by now."""
        try:
            file = self._files.open(self.path)
            try:
                raw = file.read_at(self._size, self._position)
            finally:
                file.close()
            batch = Batch.parse(raw, position=self._position, path=self.path)
            body = body_of(batch)
            return rows_of(batch, self._partition, body=body, start=self._start, end=self._end)
        except (FormatError, OSError):
            return []


_Entry = _Closed | tuple[str, list[ConsumerRecord]]
"""Records that were not shown: of a batch that is closed, or at hand with the file that they are
in."""


class _Context:
    """What stands around the matches in one partition."""

    def __init__(self, before: int, after: int) -> None:
        self._before = before
        self._after = after
        self.after_left = 0
        """How many records behind the last match are still to be shown."""
        self._behind: deque[_Entry] = deque()
        """The last records that were not shown, as many as may be needed."""
        self._held = 0
        """How many are in there."""
        self._unseen = 0
        """How many were not shown since the last one that was."""
        self._shown = False
        """Whether any was."""

    def pass_over(self, closed: _Closed) -> None:
        """Remember a batch in which there is nothing to be shown."""
        self._remember(closed, closed.count, closed.count)

    def _remember(self, entry: _Entry, count: int, held: int) -> None:
        self._unseen += count
        if not self._before or not held:
            return
        self._behind.append(entry)
        self._held += held
        while self._held - _count(self._behind[0]) >= self._before:
            self._held -= _count(self._behind.popleft())

    def found(
        self, rows: list[ConsumerRecord], is_match: Callable[[ConsumerRecord], bool], path: str
    ) -> Iterator[Found]:
        """What is to be shown of a batch, and of what was not shown in front of it."""
        shown = 0  # rows in front of the first one that nothing was done with
        for index, row in enumerate(rows):
            if is_match(row):
                yield from self._match(rows[shown:index], row, path)
                self.after_left = self._after
            elif self.after_left:
                self.after_left -= 1
                yield Found(row, False, True, path)
            else:
                continue
            shown = index + 1
        held = rows[max(shown, len(rows) - self._before) :]
        self._remember((path, held), len(rows) - shown, len(held))

    def _match(
        self, ahead: list[ConsumerRecord], row: ConsumerRecord, path: str
    ) -> Iterator[Found]:
        """A match, and what is to be shown in front of it; ``ahead`` are the records of its batch
        that were not shown."""
        unseen = self._unseen + len(ahead)
        lead = [(path, one) for one in ahead[max(0, len(ahead) - self._before) :]]
        while len(lead) < self._before and self._behind:
            entry = self._behind.pop()
            where, rows = (entry.path, entry.rows()) if isinstance(entry, _Closed) else entry
            missing = self._before - len(lead)
            lead = [(where, one) for one in rows[max(0, len(rows) - missing) :]] + lead
        follows = self._shown and unseen == len(lead)
        for where, one in lead:
            yield Found(one, False, follows, where)
            follows = True
        yield Found(row, True, follows, path)
        self._shown = True
        self._unseen = self._held = 0
        self._behind.clear()


def _count(entry: _Entry) -> int:
    return entry.count if isinstance(entry, _Closed) else len(entry[1])
