"""A replay: from a source, through filters, at a pace, into a sink; and how it goes on later.

How far a replay has come is a pair: the source's position, and the sink's where the sink is exact.
Both are only ever saved together, behind everything that lies in front of them (``_save``). What
follows from that for each end of a run:

- It ends by itself, by an error or by Ctrl-C: the pair is saved, and nothing is repeated. (An exact
  sink that has failed itself is not asked again; the last pair stands.)
- The process is killed: the last pair stands, at most ``save_seconds`` (or ``save_every`` records)
  old. An exact sink finds out what it got behind that, so nothing is repeated. All others get that
  once more.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple

from logstore.clock import Clock, SystemClock
from logstore.fetcher import ConsumerRecord
from logstore.replay.carrying import Carried, carried
from logstore.replay.filters import Test, Transform
from logstore.replay.log_source import LogSource
from logstore.replay.pace import Pace
from logstore.replay.resume import ResumeFile, Saved
from logstore.replay.sink import RawSink, Sink, SinkEnded
from logstore.replay.source import Chunk, Position, Source

__all__ = ["Outcome", "Replay"]

_LONGEST_SLEEP = 0.5
"""Seconds after which a sleeper saves and reports, if there is something to say."""


class Outcome(NamedTuple):
    """How a replay has ended."""

    delivered: int
    """Records that this run has delivered."""
    before: int
    """Records that earlier runs had delivered."""
    is_complete: bool
    """Whether it came to the end of its range."""
    in_batches: int
    """How many of the records were carried in whole batches."""


class Replay:
    """One run. What it has open belongs to its caller."""

    def __init__(
        self,
        source: Source,
        sink: Sink,
        *,
        test: Test | None = None,
        transform: Transform | None = None,
        pace: Pace | None = None,
        limit: int | None = None,
        resume: ResumeFile | None = None,
        save_seconds: float = 1.0,
        save_every: int | None = None,
        clock: Clock | None = None,
        shield: Callable[[], AbstractContextManager[object]] = contextlib.nullcontext,
        report: Callable[[Position, int], object] = lambda position, delivered: None,
    ) -> None:
        """``limit``: deliver so many records and end. ``shield`` is around all that must not be
        interrupted in the middle. ``report`` is called now and then with how far it has come."""
        self._source = source
        self._sink = sink
        self._test = test
        self._transform = transform
        self._pace = pace
        self._left = limit
        self._resume = resume
        self._save_seconds = save_seconds
        self._save_every = save_every
        self._clock: Clock = clock or SystemClock()
        self._shield = shield
        self._report = report
        self._position: Position = dict(source.start)
        """Everything in front of it was handed to the sink, or has not passed the filters."""
        self._before = 0
        self._in_batches = 0
        self._saved_at = 0.0
        self._saved_delivered = 0
        self._sink_failed = False
        self._is_unsure = False
        """Whether a sink has failed that only finds out later what it took."""

    @property
    def delivered(self) -> int:
        """Records that this run has delivered."""
        return self._sink.delivered

    @property
    def position(self) -> Position:
        """How far it has come."""
        return dict(self._position)

    def run(self) -> Outcome:
        """Replay to the end of the range; raises what source, filters and sink raise."""
        self._begin()
        is_complete = False
        try:
            for _ in self._steps():
                self._report(self._position, self.delivered)
                self._save_if_due()
                if self._left == 0:
                    break
            else:
                is_complete = True
        except SinkEnded:
            pass
        finally:
            self._end()
        return Outcome(self.delivered, self._before, is_complete, self._in_batches)

    # Saving -----------------------------------------------------------------------------------

    def _begin(self) -> None:
        saved = None if self._resume is None else self._resume.saved
        self._sink.restore(None if saved is None else saved.sink)
        if saved is not None:
            self._position.update(saved.position)
            self._before = saved.delivered
        # What an exact sink needs to be known by has to be on disk before it takes anything.
        self._save()

    def _save(self) -> None:
        """Commit point: the resume file's rename. A crash in front of it leaves the last pair."""
        if self._resume is not None:
            with self._using_sink():
                sink = self._sink.position()
            total = self._before + self.delivered
            self._resume.save(Saved(dict(self._position), total, sink))
            self._saved_at = self._clock.monotonic()
            self._saved_delivered = self.delivered

    def _save_if_due(self) -> None:
        if self._resume is None:
            return
        most = self._save_every
        if self._clock.monotonic() - self._saved_at >= self._save_seconds or (
            most is not None and self.delivered - self._saved_delivered >= most
        ):
            with self._shield():
                self._save()

    def _end(self) -> None:
        """Save how far it came, unless nobody can say: an exact sink that has failed finds out
        when the replay goes on."""
        if self._is_unsure:
            return
        with self._shield():
            if not self._sink_failed:
                self._sink.flush()
            self._save()

    # Delivering -------------------------------------------------------------------------------

    def _steps(self) -> Iterator[None]:
        """Do the work, and yield between two parts of it."""
        raw = self._raw()
        if raw is not None:
            yield from self._carry(*raw)
            return
        for chunk in self._source.chunks(self._position):
            if self._pace is None:
                yield from self._deliver_at_once(chunk)
            else:
                yield from self._deliver_in_time(chunk, self._pace)
            if self._left == 0:  # behind the last one that was delivered, the rest is left to do
                return
            self._position.update(chunk.ends(len(chunk.records)))
            yield

    def _deliver_at_once(self, chunk: Chunk) -> Iterator[None]:
        kept = self._kept(chunk)
        most = self._save_every or max(len(kept), 1)
        for start in range(0, len(kept), most):
            self._deliver(chunk, kept[start : start + most])
            yield

    def _kept(self, chunk: Chunk) -> Sequence[int]:
        """The places of the records that pass the filters."""
        kept: Sequence[int] = range(len(chunk.records))
        if self._test is not None:
            test = self._test
            kept = [index for index, record in enumerate(chunk.records) if test(record)]
        return kept if self._left is None else kept[: self._left]

    def _deliver_in_time(self, chunk: Chunk, pace: Pace) -> Iterator[None]:
        kept = self._kept(chunk)
        records = [chunk.records[index] for index in kept]
        start = 0
        while start < len(records):
            now = self._clock.monotonic()
            most = None if self._save_every is None else start + self._save_every
            stop, when = pace.due(records[:most], start, now)
            if stop > start:
                self._deliver(chunk, kept[start:stop])
                start = stop
                yield
                continue
            with self._shield(), self._using_sink():
                self._sink.flush()
            while (left := when - self._clock.monotonic()) > 0:
                self._clock.sleep(min(left, _LONGEST_SLEEP))
                yield

    def _deliver(self, chunk: Chunk, places: Sequence[int]) -> None:
        """Hand the records at these places to the sink, and note how far that is."""
        if not places:
            return
        records: Sequence[ConsumerRecord] = (
            chunk.records
            if len(places) == len(chunk.records)
            else [chunk.records[place] for place in places]
        )
        if self._transform is not None:
            records = self._transform(records)
        before = self._sink.delivered
        with self._shield():
            try:
                with self._using_sink():
                    self._sink.write(records)
                count = len(places)
            except BaseException:
                # An exact sink finds out by itself; all others have counted what they took.
                count = 0 if self._sink.is_exact else self._sink.delivered - before
                raise
            finally:
                if count:
                    self._position.update(chunk.ends(places[count - 1] + 1))
                if self._left is not None:
                    self._left -= count

    @contextlib.contextmanager
    def _using_sink(self) -> Iterator[None]:
        """Around calls of the sink: whether it has failed, and what is sure then."""
        try:
            yield
        except SinkEnded:
            self._sink_failed = True
            raise
        except BaseException:
            self._sink_failed = True
            self._is_unsure = self._sink.is_exact
            raise

    # Whole batches ----------------------------------------------------------------------------

    def _raw(self) -> tuple[LogSource, RawSink] | None:
        """Source and sink, where batches can pass from one to the other as they are."""
        source, sink = self._source, self._sink
        if not isinstance(source, LogSource) or not isinstance(sink, RawSink):
            return None
        if self._test or self._transform or self._pace or self._left is not None:
            return None
        parts = [(part.topic, part.partition) for part in source.parts]
        return (source, sink) if sink.takes_raw(parts) else None

    def _carry(self, source: LogSource, sink: RawSink) -> Iterator[None]:
        """A piece of each partition in turn: in none does the order depend on another one."""
        streams = {
            part.name: carried(part, self._position.get(part.name, part.start))
            for part in source.parts
        }
        while streams:
            for name, stream in list(streams.items()):
                piece = next(stream, None)
                if piece is None:
                    del streams[name]
                    continue
                self._carry_piece(name, piece, sink)
                yield

    def _carry_piece(self, name: str, piece: Carried, sink: RawSink) -> None:
        with self._shield():
            with self._using_sink():
                if piece.raw:
                    sink.write_raw(piece)
                    self._in_batches += piece.record_count
                else:
                    sink.write(piece.records)
            self._position[name] = piece.next_offset
