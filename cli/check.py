"""``logstore check``: is it whole?"""

from __future__ import annotations

import click

from logstore.check_store import check_store
from logstore.cli.output import FAILED, Lines, count_of, json_line, silence, standard_output
from logstore.segments.check import Finding, Totals

__all__ = ["check"]


@click.command(short_help="Check that files hold together.")
@click.argument("path", type=click.Path(exists=True))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object for each finding.")
@click.pass_context
def check(ctx: click.Context, path: str, as_json: bool) -> None:
    """Check that everything in PATH holds, and write nothing.

    PATH is a file of a partition (a segment, an index, ...), a partition's directory, a directory
    of partitions or a whole store. Batches, checksums, records, offsets and timestamps are
    checked, and both indexes against the log; of a store what it knows of its topics, too.

    \b
    Examples:
      logstore check data
      logstore check orders-0/00000000000000000000.log --json

    Exit code: 0 everything holds, 1 there is damage, 2 wrong use.
    """
    totals = Totals()
    findings = check_store(path, totals=totals)
    if findings is None:
        raise click.UsageError(f"{path}: neither a partition nor a file of one", ctx)
    try:
        if as_json:
            output = standard_output()
            for finding in findings:
                output.write(json_line(_fields(finding)))
        else:
            lines = Lines()
            for finding in findings:
                style = "red" if finding.severity == "damage" else "yellow"
                lines.line(_text(finding), style)
            lines.line(_summary(totals), "red" if totals.damage else "green")
    except BrokenPipeError:
        if totals.damage == 0:
            raise
        silence()
        # Nobody reads on, but whoever asks for the exit code gets the right one.
    if totals.damage:
        ctx.exit(FAILED)


def _fields(finding: Finding) -> dict[str, object]:
    return {
        "type": finding.severity,
        "file": finding.path,
        "position": finding.position,
        "reason": finding.reason,
        "expected": finding.expected,
        "found": finding.found,
    }


def _text(finding: Finding) -> str:
    return f"{finding.severity}: {finding.path} at byte {finding.position}: {finding.reason}"


def _summary(totals: Totals) -> str:
    looked_at = ", ".join(
        (
            *([count_of(totals.partitions, "partition")] if totals.partitions else []),
            count_of(totals.segments, "segment"),
            count_of(totals.batches, "batch", "batches"),
            count_of(totals.records, "record"),
            count_of(totals.bytes, "byte"),
        )
    )
    verdict = (
        f"damage in {count_of(totals.damage, 'place')}" if totals.damage else "everything holds"
    )
    if totals.notes:
        verdict += f", {count_of(totals.notes, 'note')}"
    return f"{looked_at}: {verdict}"
