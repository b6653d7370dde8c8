"""``logstore repair``: cutting torn ends, building indexes anew, and taking out what is damaged."""

from __future__ import annotations

from collections import Counter

import click

from logstore.cli.options import json_option
from logstore.cli.output import FAILED, Lines, count_of, json_line, silence, standard_output
from logstore.repair import Repair
from logstore.repair import repair as repair_path

__all__ = ["repair"]


@click.command(short_help="Repair what check finds.")
@click.argument("path", type=click.Path(exists=True, file_okay=False))
@click.option("--dry-run", is_flag=True, help="Say what would be done, and change nothing.")
@click.option(
    "--drop-damaged",
    is_flag=True,
    help="Take out damaged batches, too. What is taken out is saved beside the log.",
)
@json_option
@click.pass_context
def repair(ctx: click.Context, path: str, dry_run: bool, drop_damaged: bool, as_json: bool) -> None:
    """Repair the partition, the directory of partitions or the store PATH.

    A torn end of a log is cut, and indexes that are wrong or missing are built anew from the log.
    Damaged batches are left as they are, unless --drop-damaged says to take them out. Whatever is
    taken out of a log is saved beside it, as FILE.removed-POSITION. A store may be in use
    meanwhile; a broker must not run on the directory.

    \b
    Examples:
      logstore repair data --dry-run
      logstore repair orders-0 --drop-damaged

    Exit code: 0 repaired or nothing to do, 1 something is left damaged, 2 wrong use.
    """
    counts: Counter[str] = Counter()
    remedies: set[str] = set()
    lines = None if as_json else Lines()
    reading = True
    for step in repair_path(path, dry_run=dry_run, drop_damaged=drop_damaged):
        counts[step.kind] += 1
        if step.remedy is not None:
            remedies.add(step.remedy)
        if not reading:
            continue
        try:
            if lines is None:
                standard_output().write(json_line(_fields(step, dry_run)))
            else:
                lines.line(_text(step, dry_run), _style(step))
        except BrokenPipeError:  # what was begun is finished all the same
            silence()
            reading = False
    left = counts["left"] + counts["failed"]
    if lines is not None and reading:
        lines.line(_summary(counts, remedies, dry_run), "red" if left else "green")
    if left:
        ctx.exit(FAILED)


def _fields(step: Repair, dry_run: bool) -> dict[str, object]:
    return {
        "type": step.kind,
        "file": step.path,
        "position": step.position,
        "size": step.size,
        "reason": step.reason,
        "saved": step.saved,
        "remedy": step.remedy,
        "dry_run": dry_run,
    }


def _style(step: Repair) -> str:
    return "red" if step.kind in ("left", "failed") else "yellow"


_DONE = {
    "cut": "cut",
    "drop": "took out",
    "mend": "set right",
    "build": "built anew",
    "aside": "set aside",
}
_WOULD = {
    "cut": "would cut",
    "drop": "would take out",
    "mend": "would set right",
    "build": "would build anew",
    "aside": "would set aside",
}


def _text(step: Repair, dry_run: bool) -> str:
    place = f"{step.path} at byte {step.position}"
    if step.kind == "failed":
        return f"failed: {step.reason}"
    if step.kind == "left":
        remedy = f" ({step.remedy} takes it out)" if step.remedy is not None else ""
        return f"left damaged: {place}: {step.reason}{remedy}"
    verb = (_WOULD if dry_run else _DONE)[step.kind]
    if step.kind in ("build", "aside"):
        saved = f" as {step.saved}" if step.saved is not None else ""
        return f"{verb}: {step.path}{saved}: {step.reason}"
    if step.kind == "mend":
        return f"{verb}: {place}: {step.reason}"
    saved = f"; saved as {step.saved}" if step.saved is not None else ""
    return f"{verb} {count_of(step.size, 'byte')}: {place}: {step.reason}{saved}"


def _summary(counts: Counter[str], remedies: set[str], dry_run: bool) -> str:
    left = counts["left"] + counts["failed"]
    done = counts.total() - left
    if not counts:
        return "nothing to repair"
    verdict = f"{count_of(done, 'repair')} {'to do' if dry_run else 'done'}"
    if left:
        verdict += f", {count_of(left, 'place')} left damaged"
        if remedies:
            verdict += f"; see {', '.join(sorted(remedies))}"
    return verdict
