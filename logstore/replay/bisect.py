"""The first record that broke something: by an expression about a fold's state, or by a command.

With a fold nothing is assumed about what comes behind: the expression is looked at behind every
record, in one pass that ends at the first for which it is true. The state in front of that one is
folded again from the last snapshot, which lies back a thirty-second of the way at most (or a
thousand records).

A command is run on prefixes of the log, on the assumption that a prefix that is bad stays bad when
it becomes longer: so the number of runs grows with the logarithm of the number of records.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from typing import NamedTuple

from logstore.fetcher import ConsumerRecord
from logstore.json_records import record_line
from logstore.replay.errors import ReplayError
from logstore.replay.filters import Test
from logstore.replay.folding import Walk
from logstore.replay.process_sink import ended
from logstore.replay.session import Session
from logstore.replay.source import Source

__all__ = ["Culprit", "bisect", "bisect_by_command", "run_on_prefix"]

_WRITE_BYTES = 64 << 10
_NO_VERDICT = 125
"""Exit statuses from here on say nothing of the log: the command was not found, or was killed."""


class Culprit(NamedTuple):
    """The record that did it, and those around it."""

    record: ConsumerRecord
    in_front: int
    """How many records lie in front of it."""
    before: list[ConsumerRecord]
    after: list[ConsumerRecord]


def bisect(session: Session, expression: str, *, context: int = 3) -> Culprit | None:
    """The first record behind which an expression about the state is true, with up to ``context``
    records on either side; None where it never is.

    The session has to stand in front of the first record. It stands behind the culprit then, and
    says what the state was and is. Raises ExpressionError, UserCodeError, and what the source does.
    """
    if session.until(expression).reason != "until":
        return None
    *before, record = session.recent(context + 1)
    return Culprit(record, session.index - 1, before, session.coming(context))


def bisect_by_command(
    source: Source,
    is_bad: Callable[[Iterator[ConsumerRecord], int], bool],
    *,
    test: Test | None = None,
    context: int = 3,
) -> Culprit | None:
    """The record that makes a prefix bad; None where all of the records are not.

    ``is_bad`` is called with the first so many records, and how many these are; once with all,
    once with none, and then once for each halving. Raises ReplayError where none are bad already.
    """
    count = 0
    walk = Walk(source, test, source.start)
    while rows := walk.ahead():
        count += len(rows)
        walk.past(len(rows))
    if count == 0 or not is_bad(_prefix(source, test, count), count):
        return None
    if is_bad(iter(()), 0):
        raise ReplayError("it is bad without any records: that is not due to one of them")
    good, bad = 0, count
    while bad - good > 1:
        middle = (good + bad) // 2
        if is_bad(_prefix(source, test, middle), middle):
            bad = middle
        else:
            good = middle
    first = max(good - context, 0)
    around = [
        record
        for index, record in enumerate(_prefix(source, test, bad + context))
        if index >= first
    ]
    place = good - first
    return Culprit(around[place], good, around[:place], around[place + 1 :])


def _prefix(source: Source, test: Test | None, count: int) -> Iterator[ConsumerRecord]:
    """The first ``count`` records."""
    walk = Walk(source, test, source.start)
    while count > 0 and (rows := walk.ahead(count)):
        yield from rows
        walk.past(len(rows))
        count -= len(rows)


def run_on_prefix(command: str, records: Iterator[ConsumerRecord], *, output: int) -> bool:
    """Run a shell command with these records as JSON lines on its standard input, and say whether
    it finds them bad: it ends with a status from 1 to 124 then, and with 0 where they are good.

    Its output goes to the descriptor ``output``. It need not read all. Raises ReplayError for any
    other end.
    """
    process = subprocess.Popen(command, shell=True, stdin=subprocess.PIPE, stdout=output)
    assert process.stdin is not None
    try:
        try:
            parts: list[bytes] = []
            size = 0
            for record in records:
                line = record_line(record)
                parts.append(line)
                size += len(line)
                if size >= _WRITE_BYTES:
                    process.stdin.write(b"".join(parts))
                    parts, size = [], 0
            process.stdin.write(b"".join(parts))
            process.stdin.close()
        except BrokenPipeError:
            pass  # it has read enough
        status = process.wait()
    except BaseException:
        process.kill()
        process.wait()
        raise
    finally:
        _close(process)
    if not 0 <= status < _NO_VERDICT:
        raise ReplayError(
            f"{command!r} {ended(status)}, which is no verdict: 0 is good, 1 to 124 are bad"
        )
    return status != 0


def _close(process: subprocess.Popen[bytes]) -> None:
    try:
        if process.stdin is not None:
            process.stdin.close()
    except BrokenPipeError:
        pass
