"""``logstore replay --bisect``, ``--bisect-cmd``, and ``--fold`` alone."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import click

from logstore.cli.output import (
    FAILED,
    Lines,
    complain,
    count_of,
    json_bytes,
    json_line,
    printable,
    standard_output,
    time_text,
)
from logstore.cli.replay_options import Options
from logstore.cli.start import INTERRUPTED
from logstore.fetcher import ConsumerRecord
from logstore.replay.bisect import Culprit, bisect, bisect_by_command, run_on_prefix
from logstore.replay.changes import as_data, changes
from logstore.replay.expressions import compile_expression
from logstore.replay.session import Session
from logstore.replay.source import Source

__all__ = [
    "change_lines",
    "record_text",
    "run_bisect",
    "run_bisect_command",
    "run_fold",
    "state_lines",
    "value_text",
]

_MOST_CHANGES = 40
_MOST_CHARACTERS = 200


def run_bisect(ctx: click.Context, text: str, options: Options) -> None:
    """Find the first record behind which the expression is true, and print it with those around
    it; exits with 1 where there is none."""
    assert options.bisect is not None
    now = options.now_ms()
    expression = compile_expression(options.bisect, with_state=True, now_ms=now)
    test, fold = options.test(), options.fold()
    with options.open_source(text, again=True) as source:
        session = Session(source, fold, test=test, fold_name=options.folds[0], now_ms=now)
        try:
            found = bisect(session, options.bisect, context=options.context)
        except KeyboardInterrupt:
            _tell_interruption(ctx, session.index, session.record)
        if found is None:
            count = count_of(session.index, "record")
            missing = (
                [] if session.record is None else expression.missing(session.record, session.state)
            )
            hint = f"; at the end there is no {', '.join(map(repr, missing))}" if missing else ""
            complain(f"{options.bisect!r} is true behind none of {count}{hint}")
            ctx.exit(FAILED)
        if options.as_json:
            standard_output().write(
                _culprit_line(found.record, session.state_before, session.state)
            )
            return
        lines = Lines()
        lines.line(f"{options.bisect!r} is true for the first time behind")
        _print_around(lines, found, source)
        lines.line("what that record changed:")
        for change in change_lines(session.state_before, session.state):
            lines.line("  " + change)


def run_bisect_command(ctx: click.Context, text: str, options: Options) -> None:
    """Find the first record that makes the command fail, and print it with those around it; exits
    with 1 where it does not fail with all of them."""
    assert options.bisect_cmd is not None
    command = options.bisect_cmd
    test = options.test()
    runs = 0

    def is_bad(records: Iterator[ConsumerRecord], count: int) -> bool:
        nonlocal runs
        runs += 1
        bad = run_on_prefix(command, records, output=_errors())
        click.echo(f"{count_of(count, 'record')}: {'bad' if bad else 'good'}", err=True)
        return bad

    with options.open_source(text, again=True) as source:
        try:
            found = bisect_by_command(source, is_bad, test=test, context=options.context)
        except KeyboardInterrupt:
            complain(f"interrupted behind {count_of(runs, 'run')}")
            ctx.exit(INTERRUPTED)
        if found is None:
            complain(f"{command!r} finds nothing bad")
            ctx.exit(FAILED)
        if options.as_json:
            standard_output().write(_culprit_line(found.record, None, None))
            return
        lines = Lines()
        lines.line(f"with this record {command!r} fails for the first time ({runs} runs):")
        _print_around(lines, found, source)


def _errors() -> int:
    """Where a command's output goes: to standard error, for ours is the answer."""
    try:
        return sys.stderr.fileno()
    except (AttributeError, ValueError, OSError):  # it is closed, or in memory
        return subprocess.DEVNULL


def run_fold(ctx: click.Context, text: str, options: Options) -> None:
    """Print the state behind the last record."""
    test, fold = options.test(), options.fold()
    with options.open_source(text, again=options.limit is None) as source:
        session = Session(source, fold, test=test, fold_name=options.folds[0])
        try:
            if options.limit is None:
                session.run()
            elif options.limit:
                session.next(options.limit)
        except KeyboardInterrupt:
            _tell_interruption(ctx, session.index, session.record)
        if options.as_json:
            fields = {"type": "state", "records": session.index, "state": as_data(session.state)}
            standard_output().write(json_line(fields))
            return
        lines = Lines()
        for line in state_lines(session.state):
            lines.line(line)


def _tell_interruption(ctx: click.Context, count: int, record: ConsumerRecord | None) -> None:
    where = "" if record is None else f", up to {record.topic}-{record.partition}"
    offset = "" if record is None else f" offset {record.offset}"
    complain(f"interrupted: {count_of(count, 'record')} folded before that{where}{offset}")
    ctx.exit(INTERRUPTED)


def _culprit_line(record: ConsumerRecord, before: Any, after: Any) -> bytes:
    return json_line(
        {
            "partition": record.partition,
            "offset": record.offset,
            "timestamp": record.timestamp,
            "key": json_bytes(record.key),
            "state_before": as_data(before),
            "state_after": as_data(after),
        }
    )


# For people -------------------------------------------------------------------------------------


def _print_around(lines: Lines, found: Culprit, source: Source) -> None:
    lines.line(
        f"record {found.in_front + 1:,} of {source.name}: {found.record.topic}-"
        f"{found.record.partition}, offset {found.record.offset}"
    )
    for record in found.before:
        lines.line("   " + record_text(record), "dim")
    lines.line("=> " + record_text(found.record), "bold")
    for record in found.after:
        lines.line("   " + record_text(record), "dim")


def record_text(record: ConsumerRecord) -> str:
    """A record on one line: where and when, key and value, cut where they are long."""
    text = (
        f"{record.topic}-{record.partition} {record.offset}  {time_text(record.timestamp)}  "
        f"key={_cut(printable(record.key))} value={_cut(printable(record.value))}"
    )
    if record.headers:
        pairs = ", ".join(
            f"{printable(name.encode('utf-8', 'surrogateescape'))}: {_cut(printable(value))}"
            for name, value in record.headers
        )
        text += f" headers={{{pairs}}}"
    return text


def _cut(text: str) -> str:
    return text if len(text) <= _MOST_CHARACTERS else text[: _MOST_CHARACTERS - 3] + "..."


def value_text(value: Any) -> str:
    """Plain data on one line."""
    return _cut(json_line({"": value}).decode()[4:-2])


def state_lines(state: Any) -> list[str]:
    """A state, a field on each line."""
    data = as_data(state)
    if isinstance(data, dict):
        return [f"{name}: {value_text(value)}" for name, value in data.items()] or ["{}"]
    if isinstance(data, list):
        return [f"[{index}]: {value_text(value)}" for index, value in enumerate(data)] or ["[]"]
    return [value_text(data)]


def change_lines(before: Any, after: Any) -> list[str]:
    """What has changed between two states, a place on each line."""
    found: list[str] = []
    for change in changes(before, after):
        if len(found) == _MOST_CHANGES:
            found.append("...")
            break
        path = f"state{change.path}"
        if change.kind == "added":
            found.append(f"+ {path}: {value_text(change.after)}")
        elif change.kind == "removed":
            found.append(f"- {path}: {value_text(change.before)}")
        else:
            found.append(f"  {path}: {value_text(change.before)} -> {value_text(change.after)}")
    return found or ["  nothing"]
