"""Walking through a source, forwards, and folding its records into a state; and back, by way of
snapshots.

A fold is ``f(state, record) -> state``, called with None first. It may change the state that it is
given and return it. What it returns has to depend on its arguments alone: to go back, it is called
once more with the same records.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from logstore.errors import LogstoreError
from logstore.fetcher import ConsumerRecord
from logstore.replay.errors import UserCodeError
from logstore.replay.filters import Test
from logstore.replay.snapshots import Snapshot, Snapshots
from logstore.replay.source import Chunk, Position, Source

__all__ = ["Fold", "Folding", "Walk"]

Fold = Callable[[Any, ConsumerRecord], Any]

_PARTS = 16
"""Into so many parts a stretch is cut by snapshots when it is folded again to go back, so that the
next step back folds a part of it only."""
_FORWARDS = 32
"""Forwards, snapshots lie at least as far apart as the way so far, divided by this."""


class Walk:
    """The way through a source's records, some of which are left out."""

    def __init__(self, source: Source, test: Test | None, position: Position) -> None:
        self._chunks: Iterator[Chunk] = source.chunks(position)
        self._test = test
        self._base = dict(position)
        """The source's position in front of the chunk."""
        self._chunk: Chunk | None = None
        self._kept: Sequence[int] = ()
        """Places in the chunk of the records that are not left out."""
        self._taken = 0
        """How many of them were walked past."""

    def ahead(self, most: int | None = None) -> Sequence[ConsumerRecord]:
        """The records that come next, as many as are at hand (``most`` at most); none at the
        end."""
        while self._taken == len(self._kept):
            if self._chunk is not None:
                self._base.update(self._chunk.ends(len(self._chunk.records)))
                self._chunk = None
            chunk = next(self._chunks, None)
            if chunk is None:
                return ()
            self._chunk = chunk
            self._kept = range(len(chunk.records))
            if self._test is not None:
                test = self._test
                self._kept = [place for place, one in enumerate(chunk.records) if test(one)]
            self._taken = 0
        assert self._chunk is not None
        records = self._chunk.records
        taken = self._taken
        stop = len(self._kept) if most is None else taken + most
        if len(self._kept) == len(records):
            return records if taken == 0 and stop >= len(records) else records[taken:stop]
        return [records[place] for place in self._kept[taken:stop]]

    def past(self, count: int) -> None:
        """Walk past so many of them."""
        self._taken += count

    def position(self) -> Position:
        """The source's position behind what was walked past."""
        if self._chunk is None or not self._taken:
            return dict(self._base)
        return {**self._base, **self._chunk.ends(self._kept[self._taken - 1] + 1)}


class Folding:
    """A state, and the record that was folded into it last; it can be moved both ways."""

    def __init__(
        self,
        source: Source,
        fold: Fold | None,
        *,
        name: str = "the fold",
        test: Test | None = None,
        snapshot_every: int = 1000,
        snapshots: Snapshots | None = None,
    ) -> None:
        """``name`` is what the fold is called in errors. Without a fold the state is always None.
        ``snapshot_every``: the fewest records between two snapshots on the way forwards."""
        self._source = source
        self._fold = fold
        self._name = name
        self._test = test
        self._every = max(snapshot_every, 1)
        self._snapshots = snapshots or Snapshots(source.start)
        self._walk = Walk(source, test, source.start)
        self.index = 0
        """How many records lie behind."""
        self.record: ConsumerRecord | None = None
        """The last of them."""
        self.state: Any = None
        """What the fold has made of them."""
        self.newest = -1
        """The largest timestamp among them."""

    def position(self) -> Position:
        """The source's position."""
        return self._walk.position()

    def walk_on(self) -> Walk:
        """A way of one's own from here on."""
        return Walk(self._source, self._test, self.position())

    # Forwards ---------------------------------------------------------------------------------

    def search(self, stop: Callable[[ConsumerRecord, Any], Any] | None) -> bool:
        """Go on to the first record behind which ``stop(record, state)`` is true (None: to the
        end); at the end it says False.

        Raises UserCodeError for what the fold raises, and stands behind the last record that was
        folded as a whole then, as it does when it is interrupted. Of its own errors ``stop`` raises
        only those that are LogstoreErrors.
        """
        fold = self._fold
        while True:
            apart = max(self._every, self.index // _FORWARDS)
            rows = self._walk.ahead(apart)
            if not rows:
                return False
            state = self.state
            count = 0
            try:
                for record in rows:
                    if fold is not None:
                        state = fold(state, record)
                    count += 1
                    if stop is not None and stop(record, state):
                        self._arrive(rows, count, state)
                        return True
                self._arrive(rows, count, state)
            except BaseException as error:
                self._recover(rows, count, error)
                raise
            self._snapshot_if_due(apart)

    def advance(self, index: int, *, spacing: int | None = None) -> bool:
        """Go on until ``index`` records lie behind, and say whether there are so many.

        ``spacing``: records between two snapshots; None is what ``search`` does. Raises as that.
        """
        fold = self._fold
        while self.index < index:
            apart = spacing or max(self._every, self.index // _FORWARDS)
            rows = self._walk.ahead(min(index - self.index, apart))
            if not rows:
                return False
            state = self.state
            count = 0
            try:
                if fold is not None:
                    for record in rows:
                        state = fold(state, record)
                        count += 1
                self._arrive(rows, len(rows), state)
            except BaseException as error:
                self._recover(rows, count, error)
                raise
            self._snapshot_if_due(apart)
        return True

    def _recover(self, rows: Sequence[ConsumerRecord], count: int, error: BaseException) -> None:
        """Stand behind the ``count`` records that were folded as a whole: a state may have been
        changed by half."""
        self.rebuild(self.index + count)
        if isinstance(error, Exception) and not isinstance(error, LogstoreError):
            raise UserCodeError(self._name, error, rows[count]) from error

    def _arrive(self, rows: Sequence[ConsumerRecord], count: int, state: Any) -> None:
        self._walk.past(count)
        self.index += count
        self.record = rows[count - 1]
        self.newest = max(self.newest, *(row[3] for row in rows[:count]))
        self.state = state

    def _snapshot_if_due(self, apart: int) -> None:
        if self.index - self._snapshots.nearest(self.index).behind >= apart:
            self._snapshots.add(self.index, self.position(), self.record, self.newest, self.state)

    # Back -------------------------------------------------------------------------------------

    def rebuild(self, index: int) -> None:
        """Stand where ``index`` records lie behind, which were passed before."""
        self.restore(self._snapshots.nearest(index))
        self.advance(index, spacing=max(1, (index - self.index) // _PARTS))

    def restore(self, snapshot: Snapshot) -> None:
        """Stand where a snapshot was taken."""
        self._walk = Walk(self._source, self._test, snapshot.position)
        self.index, self.record, self.newest = snapshot.behind, snapshot.record, snapshot.newest
        self.state = snapshot.state()

    def restore_last(self, before: Callable[[Snapshot], bool]) -> None:
        """Stand at the last place that is known of which ``before`` is true: here, where a snapshot
        was taken, or in front of everything."""
        last = self._snapshots.last(lambda one: one.behind == 0 or before(one))
        here = Snapshot(self.index, self.position(), self.record, self.newest, lambda: None, 0)
        if last.behind > self.index or not before(here):
            self.restore(last)

    def fork(self) -> Folding:
        """Another one, in front of everything, which shares what is known of this one's way."""
        return Folding(
            self._source,
            self._fold,
            name=self._name,
            test=self._test,
            snapshot_every=self._every,
            snapshots=self._snapshots,
        )
