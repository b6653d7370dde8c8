"""``logstore replay --diff``: two logs, or two folds over one."""

from __future__ import annotations

from typing import Any

import click

from logstore.cli.output import (
    FAILED,
    Lines,
    complain,
    count_of,
    json_line,
    standard_output,
)
from logstore.cli.replay_bisect import change_lines, record_text
from logstore.cli.replay_options import Options
from logstore.cli.start import INTERRUPTED
from logstore.fetcher import ConsumerRecord
from logstore.json_records import record_fields
from logstore.replay.diff import (
    FIELDS,
    Divergence,
    FoldSummary,
    Summary,
    diff_by_key,
    diff_by_offset,
    diff_folds,
)
from logstore.replay.user_code import load_function
from logstore.segments.record import Record

__all__ = ["run_diff"]


def run_diff(ctx: click.Context, sources: tuple[str, ...], options: Options) -> None:
    """Compare, print the first difference and a summary, and exit with 1 where there is one."""
    try:
        differs = _diff_folds(sources[0], options) if options.folds else _diff(sources, options)
    except KeyboardInterrupt:
        complain("interrupted: nothing is known of the rest")
        ctx.exit(INTERRUPTED)
    if differs:
        ctx.exit(FAILED)


def _diff(sources: tuple[str, ...], options: Options) -> bool:
    test = options.test()
    fields = FIELDS if options.compare is None else tuple(options.compare.split(","))
    with (
        options.open_source(sources[0], again=True) as left,
        options.open_source(sources[1], again=True) as right,
    ):
        compare = diff_by_key if options.by == "key" else diff_by_offset
        summary = compare(left, right, fields=fields, test=test)
    if options.as_json:
        _print_json(summary)
    else:
        _print(summary, sources)
    return summary.differs


def _print(summary: Summary, names: tuple[str, ...]) -> None:
    lines = Lines()
    first = summary.first
    if first is not None:
        lines.line(_heading(first, names))
        if first.left is not None:
            lines.line("< " + record_text(first.left), "red")
        if first.right is not None:
            lines.line("> " + record_text(first.right), "green")
    if not summary.differs:
        lines.line(f"no difference: {count_of(summary.same, 'record')} the same")
        return
    lines.line(
        f"{summary.same:,} the same, {summary.changed:,} different, "
        f"{summary.removed:,} only in {names[0]}, {summary.added:,} only in {names[1]}"
    )


def _heading(first: Divergence, names: tuple[str, ...]) -> str:
    record = first.left or first.right
    assert record is not None
    where = f"partition {record.partition}, offset {record.offset}"
    if first.kind == "changed":
        return f"first difference at {where}: {', '.join(first.fields)}"
    return f"first difference at {where}: only in {names[0 if first.kind == 'removed' else 1]}"


def _print_json(summary: Summary) -> None:
    output = standard_output()
    first = summary.first
    if first is not None:
        output.write(
            json_line(
                {
                    "type": "divergence",
                    "kind": first.kind,
                    "fields": list(first.fields),
                    "left": _record(first.left),
                    "right": _record(first.right),
                }
            )
        )
    output.write(
        json_line(
            {
                "type": "summary",
                "same": summary.same,
                "changed": summary.changed,
                "removed": summary.removed,
                "added": summary.added,
            }
        )
    )


def _record(record: ConsumerRecord | None) -> dict[str, Any] | None:
    if record is None:
        return None
    place = {"topic": record.topic, "partition": record.partition}
    return {**place, **record_fields(Record(*record[2:]))}


def _diff_folds(source_text: str, options: Options) -> bool:
    test = options.test()
    left, right = (load_function(name) for name in options.folds)
    names = (options.folds[0], options.folds[1])
    with options.open_source(source_text, again=False) as source:
        summary = diff_folds(source, left, right, names=names, test=test)
    if options.as_json:
        _print_folds_json(summary)
        return summary.differs
    lines = Lines()
    first = summary.first
    if first is None:
        lines.line(f"no difference behind any of {count_of(summary.same, 'record')}")
        return False
    lines.line("the states differ for the first time behind")
    lines.line("=> " + record_text(first.record), "bold")
    for change in change_lines(first.left, first.right):
        lines.line("  " + change)
    end = "differ" if summary.last_differs else "are the same again"
    lines.line(f"{summary.same:,} the same, {summary.different:,} different; at the end they {end}")
    return True


def _print_folds_json(summary: FoldSummary) -> None:
    output = standard_output()
    first = summary.first
    if first is not None:
        output.write(
            json_line(
                {
                    "type": "fold-divergence",
                    "record": _record(first.record),
                    "left": first.left,
                    "right": first.right,
                }
            )
        )
    output.write(
        json_line(
            {
                "type": "fold-summary",
                "same": summary.same,
                "different": summary.different,
                "last_differs": summary.last_differs,
            }
        )
    )
