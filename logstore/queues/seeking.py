"""Seeking in a queue: what was settled is made ready again, or what waits is passed over.

The cursor never goes back: what is to be delivered again comes back, as if it had been requeued. So
whoever has seen the cursor has seen nothing wrong, and a seek costs by what is in flight and by the
number of segments, not by how far it goes.
"""

from __future__ import annotations

import contextlib
import time
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Literal, NamedTuple

from logstore.errors import InvalidInputError, LockTimeoutError, PreconditionFailedError
from logstore.log import PartitionLog
from logstore.queues.ledger import Ledger
from logstore.queues.ledger_rows import Rows, runs_of
from logstore.queues.ledger_store import Changes
from logstore.queues.memory_rows import MemoryRows
from logstore.queues.queue import Level, WorkQueue
from logstore.queues.reading import MessageReader

__all__ = ["SeekTarget", "Sought", "runs_there", "seek"]

_PATIENCE_SECONDS = 10.0
"""So long is waited for whoever deletes settled segments."""


class SeekTarget(NamedTuple):
    """Where to: just one of these is given."""

    offset: int | Literal["earliest", "latest"] | None = None
    time_ms: int | None = None
    """The first message that was published at this time, in milliseconds since 1970, or later."""
    shift_by: int | None = None
    """Counted from the cursor, back where it is below 0."""

    def check(self) -> None:
        """Raise InvalidInputError where it names nothing, or more than one place."""
        given = {name: value for name, value in self._asdict().items() if value is not None}
        if len(given) != 1:
            raise InvalidInputError(
                "a seek goes to one of: an offset (or 'earliest', 'latest'), time_ms, shift_by; "
                f"given were {', '.join(given) or 'none'}"
            )
        ((name, value),) = given.items()
        if name == "offset" and value in ("earliest", "latest"):
            return
        if not isinstance(value, int) or isinstance(value, bool):
            raise InvalidInputError(f"{name} is a whole number, not {value!r:.80}")
        if (name == "shift_by" and not value) or (name != "shift_by" and value < 0):
            raise InvalidInputError(f"{name}={value} names no place to go to")


class Sought(NamedTuple):
    """What a seek did to a level of priority."""

    level: int
    offset: int
    """The first message that is delivered from, of those the log still has."""
    returned: int
    """Messages that were settled, and are ready again."""
    skipped: int
    """Messages that waited, and are settled now."""
    in_flight: int
    """Messages from the offset on that consumers hold: they stay theirs."""


def seek(
    queue: WorkQueue, target: SeekTarget, *, priority: int | None = None, dry_run: bool = False
) -> list[Sought]:
    """Seek in all levels of a queue, or in one; see ``Queue.seek``.

    Commit point: that of the transaction in ``live``; a checkpoint follows, without which a power
    cut takes the seek back.
    """
    target.check()
    levels = _chosen(queue, target, priority)
    if dry_run:
        everyone = queue.levels()
        return queue.ledgers.read(
            lambda rows, _: _seek_in(queue, levels, target, _copies(everyone, rows))
        )
    with _keeping(queue):

        def act(changes: Changes, everyone: Sequence[Level]) -> list[Sought]:
            ledgers = {level: changes.of(level.ledger) for level in everyone}
            return _seek_in(queue, levels, target, ledgers)

        sought = queue.change(act)
    queue.checkpoint(tolerant=False)
    queue.tell_of_returned()
    return sought


def _chosen(queue: WorkQueue, target: SeekTarget, priority: int | None) -> list[Level]:
    count = queue.definition.levels
    if priority is None:
        by_number = isinstance(target.offset, int) or target.shift_by is not None
        if by_number and count > 1:
            raise InvalidInputError(
                f"{queue.name} counts offsets for each of its priorities: say which one, from 0 to "
                f"{count - 1}"
            )
        return list(queue.levels())
    if not isinstance(priority, int) or not 0 <= priority < count:
        raise InvalidInputError(f"{queue.name} has the priorities 0 to {count - 1}, not {priority}")
    return [level for level in queue.levels() if level.number == priority]


@contextlib.contextmanager
def _keeping(queue: WorkQueue) -> Iterator[None]:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    with contextlib.ExitStack() as stack:
        while True:
            try:
                stack.enter_context(queue.keeping())
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise LockTimeoutError(
                        f"{queue.name}: somebody has been deleting settled segments, or seeking, "
                        f"for {_PATIENCE_SECONDS:.0f} seconds; try again"
                    ) from None
            time.sleep(0.01)
        yield


def _copies(levels: Sequence[Level], rows: Rows) -> dict[Level, Ledger]:
    """The ledgers of a queue's levels, to try something on."""
    copies = {}
    for level in levels:
        copied = MemoryRows(dict(rows.items(level.ledger.key)))
        if level.ledger.key in copied.content:
            copies[level] = level.ledger.load(copied)
        else:
            copies[level] = level.ledger.restored(copied)
    return copies


def _seek_in(
    queue: WorkQueue, levels: list[Level], target: SeekTarget, ledgers: Mapping[Level, Ledger]
) -> list[Sought]:
    sought = [_seek_level(level, target, ledgers[level]) for level in levels]
    if any(one.returned for one in sought):
        _check_limits(queue, ledgers)
    return sought


def _seek_level(level: Level, target: SeekTarget, ledger: Ledger) -> Sought:
    log, head = level.log, ledger.head
    start, end = log.log_start_offset, log.log_end_offset
    to = _place(log, target, head.cursor)
    if to > end:
        raise InvalidInputError(f"{log.directory}: offset {to} is beyond the log's end, {end}")
    to = max(to, start)
    returned = skipped = 0
    if to < head.cursor:
        returned = ledger.bring_back(runs_there(log, to, head.cursor))
    else:
        skipped = ledger.skip_waiting(to, log_end=end)
    in_flight = sum(
        max(0, min(count, lease.first + first + count - to))
        for lease in ledger.leases()
        for first, count in runs_of(lease.open_bits)
    )
    return Sought(level.number, to, returned, skipped, in_flight)


def _place(log: PartitionLog, target: SeekTarget, cursor: int) -> int:
    if target.time_ms is not None:
        found = log.offset_for_time(target.time_ms)
        return log.log_end_offset if found is None else found[0]
    if target.shift_by is not None:
        return cursor + target.shift_by
    if target.offset == "earliest":
        return log.log_start_offset
    if target.offset == "latest":
        return log.log_end_offset
    assert isinstance(target.offset, int)
    return target.offset


def _check_limits(queue: WorkQueue, ledgers: Mapping[Level, Ledger]) -> None:
    """What came back must not be dropped at once, nor keep publishers out."""
    arguments = queue.definition.arguments
    ready = sum(one.head.ready(level.log.log_end_offset) for level, one in ledgers.items())
    ready_bytes = sum(one.head.ready_bytes for one in ledgers.values())
    for name, limit, found in (
        ("max_length", arguments.max_length, ready),
        ("max_length_bytes", arguments.max_length_bytes, ready_bytes),
    ):
        if limit is not None and found > limit:
            raise PreconditionFailedError(
                f"{queue.name}: after this seek {found} would be ready, more than {name}={limit}; "
                "nothing was done"
            )


def runs_there(log: PartitionLog, first: int, end: int) -> list[tuple[int, int]]:
    """The runs of offsets from ``first`` to before ``end`` that a queue's log still has.

    Gaps are between segments: where one has its last message is found by bisection.
    """
    reader = MessageReader(log)
    runs: list[tuple[int, int]] = []
    for base, following in pairwise([*log.segments, log.log_end_offset]):
        start, stop = max(base, first, log.log_start_offset), min(following, end)
        if start >= stop:
            continue
        if reader.next_offset(stop - 1) != stop - 1:
            stop = start + bisect_left(
                range(start, stop), True, key=lambda offset: reader.next_offset(offset) != offset
            )
        if runs and runs[-1][1] == start:
            runs[-1] = runs[-1][0], stop
        elif start < stop:
            runs.append((start, stop))
    return runs
