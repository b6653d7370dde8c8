"""A session: a log stepped through record by record, forwards and backwards, and folded into a
state. ``logstore replay --debug`` is a face of it; programs, tests and notebooks use it as it is::

    >>> from logstore import ConsumerRecord
    >>> from logstore.replay import Session
    >>> amounts = [5, 10, -20, 3]
    >>> records = [ConsumerRecord("t", 0, n, n, None, b"%d" % a, ()) for n, a in enumerate(amounts)]
    >>> def balance(state, record):
    ...     return (state or 0) + int(record.value)
    >>> session = Session(records, balance)
    >>> session.until("state < 0").record.offset
    2
    >>> session.state, session.state_before
    (-5, 15)
    >>> session.back().record.offset, session.state
    (1, 15)
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from logstore.errors import InvalidInputError
from logstore.fetcher import ConsumerRecord
from logstore.json_records import record_line
from logstore.replay.changes import Change, as_data, changes
from logstore.replay.expressions import Expression, compile_expression
from logstore.replay.filters import Test
from logstore.replay.folding import Fold, Folding
from logstore.replay.snapshots import Snapshot, Snapshots, copied
from logstore.replay.source import ListSource, Position, Source
from logstore.segments.files import DiskFiles, Files, read_bounded, write_atomically

__all__ = ["Place", "Session", "Stop"]

_MAX_FILE_BYTES = 256 << 20
_SCALARS = (type(None), bool, int, float, str)


class Stop(NamedTuple):
    """Where a session has come to a stand, and why."""

    reason: str
    """``step``, ``until``, ``break``, ``watch``, ``goto``, ``begin`` (there is nothing in front) or
    ``end`` (there is nothing behind)."""
    record: ConsumerRecord | None
    """The record that was folded last; None in front of the first one."""
    number: int | None = None
    """The breakpoint's or the watch's."""
    before: Any = None
    """Of a watch: what it was."""
    after: Any = None
    """What it is."""
    also: tuple[Stop, ...] = ()
    """Of breakpoints and watches: the others that stop at the same record."""


class Place(NamedTuple):
    """Where a session stands."""

    behind: int
    """How many records lie behind."""
    record: ConsumerRecord | None
    """The last of them."""
    position: Position
    """The source's."""
    done: int
    """How much of the source's range lies behind, and of how much, in its own unit."""
    total: int


class Watch:
    """An expression whose changes are watched."""

    def __init__(self, expression: Expression) -> None:
        self.expression = expression
        self.value: Callable[[], Any] = lambda: None
        """Gives what it was last; states may be changed, so it is a copy."""

    def look(self, record: ConsumerRecord | None, state: Any) -> tuple[Any, Any] | None:
        """What it was and is, if that is not the same."""
        now = None if record is None else self.expression(record, state)
        before = self.value()
        if now == before:
            return None
        self.value = (lambda: now) if type(now) in _SCALARS else copied(now)
        return before, now


class Session:
    """Steps through a source. For one thread; the source belongs to whoever has opened it."""

    def __init__(
        self,
        source: Source | Sequence[ConsumerRecord],
        fold: Fold | None = None,
        *,
        test: Test | None = None,
        fold_name: str | None = None,
        snapshot_every: int = 1000,
        max_snapshots: int = 64,
        max_snapshot_bytes: int = 256 << 20,
        files: Files | None = None,
        now_ms: int = 0,
    ) -> None:
        """``fold(state, record) -> state`` is called with None first, and may change its state.
        Records for which ``test`` is false are left out.

        Going back folds again from the nearest of at most ``max_snapshots`` copies of states, which
        together take at most about ``max_snapshot_bytes``.
        """
        self._source = ListSource(source) if isinstance(source, Sequence) else source
        self._fold_name = fold_name or str(getattr(fold, "__qualname__", "the fold"))
        snapshots = Snapshots(self._source.start, most=max_snapshots, most_bytes=max_snapshot_bytes)
        self._folding = Folding(
            self._source,
            fold,
            name=self._fold_name,
            test=test,
            snapshot_every=snapshot_every,
            snapshots=snapshots,
        )
        self._has_fold = fold is not None
        self._files = files or DiskFiles()
        self._now_ms = now_ms
        self._next_number = 1
        self.breakpoints: dict[int, Expression] = {}
        """By number."""
        self.watches: dict[int, Watch] = {}
        """By number; breakpoints and watches are numbered together."""
        self._before: tuple[int, Callable[[], Any]] | None = None
        """The state in front of the record at an index, once it was asked for."""

    # Where it stands --------------------------------------------------------------------------

    @property
    def index(self) -> int:
        """How many records lie behind."""
        return self._folding.index

    @property
    def record(self) -> ConsumerRecord | None:
        """The record that was folded last; None in front of the first one."""
        return self._folding.record

    @property
    def state(self) -> Any:
        """A copy of the state behind that record."""
        return copied(self._folding.state)()

    @property
    def state_before(self) -> Any:
        """A copy of the state in front of that record."""
        if self.index == 0:
            return None
        if self._before is None or self._before[0] != self.index:
            folding = self._folding.fork()
            folding.rebuild(self.index - 1)
            self._before = (self.index, copied(folding.state))
        return self._before[1]()

    def changes(self) -> list[Change]:
        """What that record has changed in the state."""
        return list(changes(self.state_before, self._folding.state))

    def where(self) -> Place:
        """Where the session stands."""
        position = self._folding.position()
        return Place(self.index, self.record, position, *self._source.progress(position))

    def recent(self, count: int) -> list[ConsumerRecord]:
        """The last ``count`` records that lie behind, the current one last."""
        folding = self._folding.fork()
        folding.rebuild(max(self.index - count, 0))
        found = []
        while folding.index < self.index and folding.advance(folding.index + 1):
            assert folding.record is not None
            found.append(folding.record)
        return found

    def coming(self, count: int) -> list[ConsumerRecord]:
        """The next ``count`` records; the session stays where it is."""
        walk = self._folding.walk_on()
        found: list[ConsumerRecord] = []
        while len(found) < count and (rows := walk.ahead(count - len(found))):
            found += rows
            walk.past(len(rows))
        return found

    def evaluate(self, expression: str | Expression) -> Any:
        """The value of an expression over record and state; raises InvalidInputError in front of
        the first record, ExpressionError."""
        compiled = self._compiled(expression)
        if self.record is None:
            raise InvalidInputError("there is no record yet: step to the first one")
        return compiled(self.record, self._folding.state)

    def _compiled(self, expression: str | Expression) -> Expression:
        if isinstance(expression, Expression):
            return expression
        return compile_expression(expression, with_state=self._has_fold, now_ms=self._now_ms)

    # Steps ------------------------------------------------------------------------------------

    def next(self, count: int = 1) -> Stop:
        """Fold the next record, or so many; fewer where the end comes first."""
        _check_count(count)
        arrived = self._folding.advance(self.index + count)
        self._look_at_watches()
        return self._stop("step" if arrived else "end")

    def back(self, count: int = 1) -> Stop:
        """Go back by a record, or so many; no further than in front of the first one."""
        _check_count(count)
        arrived = count <= self.index
        self._folding.rebuild(max(self.index - count, 0))
        self._look_at_watches()
        return self._stop("step" if arrived else "begin")

    def until(self, expression: str | Expression) -> Stop:
        """Go on to the first record behind which an expression is true, or to the end."""
        compiled = self._compiled(expression)
        found = self._folding.search(compiled)
        self._look_at_watches()
        return self._stop("until" if found else "end")

    def run(self) -> Stop:
        """Go on until a breakpoint's expression is true or a watched value changes, or to the
        end."""
        stops: list[Stop] = []

        def stop(record: ConsumerRecord, state: Any) -> bool:
            for number, expression in self.breakpoints.items():
                if expression(record, state):
                    stops.append(Stop("break", record, number))
            for number, watch in self.watches.items():
                change = watch.look(record, state)
                if change is not None:
                    stops.append(Stop("watch", record, number, *change))
            return bool(stops)

        anything = self.breakpoints or self.watches
        found = self._folding.search(stop if anything else None)
        return stops[0]._replace(also=tuple(stops[1:])) if found else self._stop("end")

    def goto(self, offset: int, partition: int | None = None) -> Stop:
        """Go to the first record of a partition whose offset is not below ``offset``, forwards or
        back. Raises InvalidInputError, and stays, where there is none, and where there are several
        partitions and none is named."""
        number = self._partition(partition)

        def is_it(record: ConsumerRecord, _: object) -> bool:
            return record.offset >= offset and (number is None or record.partition == number)

        def lies_before(place: Position) -> bool:
            return all(
                part in place and place[part] <= offset
                for part in self._parts(number)
            )  # fmt: skip

        where = f"offset {offset}" if number is None else f"offset {offset} of partition {number}"
        return self._go(is_it, lambda one: lies_before(one.position), f"no record at {where}")

    def goto_time(self, timestamp: int) -> Stop:
        """Go to the first record that is not older than a time (milliseconds), forwards or back.
        Raises InvalidInputError, and stays, where there is none."""
        return self._go(
            lambda record, _: record.timestamp >= timestamp,
            lambda one: one.newest < timestamp,
            f"no record of time {timestamp}",
        )

    def goto_index(self, index: int) -> Stop:
        """Go where so many records lie behind, forwards or back. Raises InvalidInputError, and
        stays, where there are fewer."""
        here = self.index
        if index < 0:
            raise InvalidInputError(f"index {index} is out of bounds: at least 0")
        if index < here:
            self._folding.rebuild(index)
        elif not self._folding.advance(index):
            count = self.index
            self._folding.rebuild(here)
            raise InvalidInputError(f"there are only {count} records")
        self._look_at_watches()
        return self._stop("goto")

    def _go(
        self,
        is_it: Callable[[ConsumerRecord, Any], bool],
        lies_before: Callable[[Snapshot], bool],
        problem: str,
    ) -> Stop:
        here = self.index
        self._folding.restore_last(lies_before)
        if not self._folding.search(is_it):
            self._folding.rebuild(here)
            raise InvalidInputError(f"there is {problem} or behind it")
        self._look_at_watches()
        return self._stop("goto")

    def _parts(self, number: int | None) -> list[str]:
        parts = getattr(self._source, "parts", ())
        return [part.name for part in parts if number in (None, part.partition)] or [""]

    def _partition(self, partition: int | None) -> int | None:
        numbers = sorted({part.partition for part in getattr(self._source, "parts", ())})
        if partition is None and len(numbers) > 1:
            named = ", ".join(map(str, numbers))
            raise InvalidInputError(f"there are several partitions, {named}: which one?")
        if partition is not None and numbers and partition not in numbers:
            raise InvalidInputError(f"there is no partition {partition} in {self._source.name}")
        return partition

    def _stop(self, reason: str) -> Stop:
        return Stop(reason, self.record)

    # Breakpoints and watches ------------------------------------------------------------------

    def break_at(self, expression: str | Expression) -> int:
        """Let :meth:`run` stop behind each record for which an expression is true; its number."""
        number = self._number()
        self.breakpoints[number] = self._compiled(expression)
        return number

    def watch(self, expression: str | Expression) -> int:
        """Let :meth:`run` stop when the value of an expression changes; its number."""
        watch = Watch(self._compiled(expression))
        watch.look(self.record, self._folding.state)
        number = self._number()
        self.watches[number] = watch
        return number

    def delete(self, number: int) -> None:
        """Forget a breakpoint or a watch; raises InvalidInputError where there is none."""
        if self.breakpoints.pop(number, None) is None and self.watches.pop(number, None) is None:
            raise InvalidInputError(f"there is no breakpoint and no watch {number}")

    def _number(self) -> int:
        self._next_number += 1
        return self._next_number - 1

    def _look_at_watches(self) -> None:
        """Whoever moves by hand has seen what changed on the way."""
        for watch in self.watches.values():
            watch.look(self.record, self._folding.state)

    # Keeping it -------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write where the session stands, its breakpoints and watches, the record and the state to
        a file of JSON; see :meth:`restore`."""
        record = self.record
        fields = {
            "type": "session",
            "source": self._source.identity,
            "fold": self._fold_name if self._has_fold else None,
            "index": self.index,
            "record": None if record is None else json.loads(record_line(record)),
            "state": as_data(self._folding.state),
            "breakpoints": [one.text for one in self.breakpoints.values()],
            "watches": [one.expression.text for one in self.watches.values()],
        }
        data = json.dumps(fields, indent=1, ensure_ascii=True).encode() + b"\n"
        write_atomically(self._files, os.fsdecode(path), data)

    def restore(self, path: str | os.PathLike[str]) -> Stop:
        """Go where a saved session stood, with its breakpoints and watches in place of those here.

        Raises InvalidInputError for a file that is none, or one of another source; nothing has
        changed then.
        """
        name = os.fsdecode(path)
        data = read_bounded(self._files, name, _MAX_FILE_BYTES)
        try:
            fields = json.loads(data)
            index, source = int(fields["index"]), fields["source"]
            texts = [list(map(str, fields[kind])) for kind in ("breakpoints", "watches")]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise InvalidInputError(f"{name}: this is no saved session: {error}") from None
        if source != json.loads(json.dumps(self._source.identity)):
            raise InvalidInputError(f"{name}: it is a session of another source: {source}")
        breakpoints, watches = ([self._compiled(text) for text in some] for some in texts)
        stop = self.goto_index(index)
        self.breakpoints.clear()
        self.watches.clear()
        for expression in breakpoints:
            self.break_at(expression)
        for expression in watches:
            self.watch(expression)
        return stop

    # Life -------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[ConsumerRecord]:
        """Step to the end, and give each record when it was folded."""
        while self.next().reason != "end":
            record = self.record
            assert record is not None
            yield record

    def close(self) -> None:
        """Close the source."""
        self._source.close()

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _check_count(count: int) -> None:
    if count < 1:
        raise InvalidInputError(f"count={count} is out of bounds: at least 1")
