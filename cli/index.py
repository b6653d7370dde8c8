"""``logstore index``: what an index says, whether it is right, and how it is used."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import click

from logstore.cli.output import FAILED, Lines, count_of, json_line, standard_output
from logstore.inspect.index_lookup import Step, look_up_offset, look_up_time
from logstore.inspect.index_proof import INDEXES, Proof, prove
from logstore.segments.errors import FormatError
from logstore.segments.files import DiskFiles, Files
from logstore.segments.layout import FileKind, PartitionFile, identify, partition_files
from logstore.times import parse_time

__all__ = ["index"]

_STYLES = {"right": "green", "wrong": "red", "unproven": "yellow"}
_STEP_STYLES = {"wrong": "red", "missing": "yellow", "record": "green", "probe": "dim"}


@click.command(short_help="Explain index entries, prove them, show a look-up.")
@click.argument("path", type=click.Path(exists=True))
@click.option("--entry", type=click.IntRange(min=0), help="Only this entry, counted from 0.")
@click.option(
    "--offset", type=click.IntRange(min=0), help="Show how the record of this offset is looked up."
)
@click.option(
    "--time", "moment", metavar="TIME", help="Show how the first record from TIME on is looked up."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
@click.pass_context
def index(
    ctx: click.Context,
    path: str,
    entry: int | None,
    offset: int | None,
    moment: str | None,
    as_json: bool,
) -> None:
    """Explain what the entries of the index PATH say, and prove each by the log.

    PATH is an .index, .timeindex or .txnindex, a segment (.log), whose indexes are taken, or a
    partition's directory, also one of a Kafka broker. With --offset or --time a look-up in its
    partition is shown step by step. It only reads.

    \b
    Examples:
      logstore index 00000000000000000000.index --entry 3
      logstore index orders-0 --offset 1017
      logstore index orders-0 --time 2026-03-02T04:10:00Z

    Exit code: 0, or 1 where an entry is wrong or nothing was found; 2 wrong use.
    """
    chosen = [option for option in (entry, offset, moment) if option is not None]
    if len(chosen) > 1:
        raise click.UsageError("--entry, --offset and --time exclude each other", ctx)
    files = DiskFiles()
    indexes, directory = _choose(ctx, files, path)
    if offset is not None:
        failed = _print_steps(look_up_offset(files, directory, offset), as_json=as_json)
    elif moment is not None:
        timestamp = parse_time(moment, time.time_ns() // 1_000_000)
        failed = _print_steps(look_up_time(files, directory, timestamp), as_json=as_json)
    else:
        if not indexes:
            raise click.UsageError(f"{path}: there is no index", ctx)
        if entry is not None and len(indexes) > 1:
            raise click.UsageError(f"{path}: --entry of which index? Name one", ctx)
        printer = _JsonPrinter() if as_json else _LinePrinter()
        failed = False
        for one in indexes:  # all of them, whatever the first says
            failed |= _print_index(files, one, entry, printer)
    if failed:
        ctx.exit(FAILED)


def _choose(ctx: click.Context, files: Files, path: str) -> tuple[list[PartitionFile], str]:
    """The indexes that ``path`` stands for, and the directory of its partition."""
    if files.is_directory(path):
        found = partition_files(files, path)
        if not found:
            raise click.UsageError(f"{path}: neither a partition nor a file of one", ctx)
        return [file for file in found if file.kind in INDEXES], path
    directory = os.path.dirname(path) or "."
    named = identify(path)
    if named is not None and named.kind in INDEXES:
        return [named], directory
    if named is not None and named.kind is FileKind.LOG and named.base_offset is not None:
        beside = [
            PartitionFile(beside, kind, named.base_offset)
            for kind in INDEXES
            if files.exists(beside := path.removesuffix(FileKind.LOG.value) + kind.value)
        ]
        return beside, directory
    raise click.UsageError(f"{path}: neither an index nor a segment nor a partition", ctx)


def _print_index(
    files: Files, file: PartitionFile, entry: int | None, printer: _JsonPrinter | _LinePrinter
) -> bool:
    """Print what is to be said of one index; returns whether anything is wrong with it."""
    counts = dict.fromkeys(_STYLES, 0)
    printer.begin(file.path)
    seen = False
    for proof in _guarded(files, file):
        if entry is not None and proof.number != entry:
            continue
        seen = True
        counts[proof.verdict] += 1
        printer.show(file.path, proof)
    if entry is not None and not seen:
        raise click.ClickException(f"{file.path} has no entry {entry}")
    printer.end(counts)
    return counts["wrong"] > 0


def _guarded(files: Files, file: PartitionFile) -> Iterator[Proof]:
    try:
        yield from prove(files, file)
    except FormatError as error:
        yield Proof(None, error.position or 0, {}, "the index", error.reason, "wrong")


class _JsonPrinter:
    """One object a line."""

    def __init__(self) -> None:
        self._write = standard_output().write

    def begin(self, path: str) -> None:
        """Every object names its file itself."""

    def show(self, path: str, proof: Proof) -> None:
        fields = {
            "type": "entry",
            "file": path,
            "entry": proof.number,
            "position": proof.position,
            **proof.says,
            "claim": proof.claim,
            "evidence": proof.evidence,
            "verdict": proof.verdict,
        }
        self._write(json_line(fields))

    def end(self, counts: dict[str, int]) -> None:
        """Whoever reads JSON counts by himself."""


class _LinePrinter:
    """A line for each entry, and one that sums up."""

    def __init__(self) -> None:
        self._lines = Lines()

    def begin(self, path: str) -> None:
        self._lines.line(path, "bold")

    def show(self, path: str, proof: Proof) -> None:
        what = f"byte {proof.position}" if proof.number is None else f"entry {proof.number}"
        self._lines.spans(
            [
                (f"  {what}: {proof.claim}: {proof.evidence}: ", ""),
                (proof.verdict, _STYLES[proof.verdict]),
            ]
        )

    def end(self, counts: dict[str, int]) -> None:
        total = sum(counts.values())
        told = ", ".join(f"{count:,} {name}" for name, count in counts.items() if count)
        worst = next((name for name in ("wrong", "unproven", "right") if counts[name]), "right")
        text = f"  {count_of(total, 'entry', 'entries')}{': ' if told else ''}{told}"
        self._lines.line(text, _STYLES[worst])


def _print_steps(steps: Iterator[Step], *, as_json: bool) -> bool:
    """Print a look-up; returns whether it met something wrong, or found nothing."""
    failed = False
    lines = None if as_json else Lines()
    for step in steps:
        failed = failed or step.kind in ("wrong", "missing")
        if lines is not None:
            lines.line(step.text, _STEP_STYLES.get(step.kind, ""))
        else:
            fields = {"type": "step", "step": step.kind, **step.fields, "text": step.text}
            standard_output().write(json_line(fields))
    return failed
