"""``logstore hexdump``: which bytes are what."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import click

from logstore.cli.output import (
    FAILED,
    Lines,
    damage_fields,
    json_bytes,
    json_line,
    printable,
    standard_output,
)
from logstore.segments.annotate import (
    Annotated,
    Ending,
    Field,
    Part,
    annotate_log,
    annotate_side_file,
    position_of_byte,
    position_of_offset,
)
from logstore.segments.files import DiskFiles, File, read_bounded
from logstore.segments.layout import FileKind, PartitionFile, identify, partition_files

__all__ = ["hexdump"]

_MAX_SIDE_FILE_BYTES = 256 << 20
_FOLDED_LINES = 6
"""A field of more lines than this is folded, to so many with the one that says so."""
_LONGEST_VALUE = 60
_VALUE_COLUMNS = 13
"""A timestamp has so many digits."""


@click.command(short_help="Show which bytes are what.")
@click.argument("path", type=click.Path(exists=True))
@click.option("--offset", type=click.IntRange(min=0), help="The batch that holds this record.")
@click.option(
    "--position", type=click.IntRange(min=0), help="The batch or entry that this byte belongs to."
)
@click.option(
    "--count",
    type=click.IntRange(min=1),
    help="So many batches or entries. Default: all; behind --offset or --position, one.",
)
@click.option("--records", is_flag=True, help="Decompress batches, and show what is in them.")
@click.option("--unfold", is_flag=True, help="Show all bytes of long values, too.")
@click.option(
    "--width", type=click.IntRange(1, 64), default=8, show_default=True, help="Bytes a line."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object for each field.")
@click.pass_context
def hexdump(
    ctx: click.Context,
    path: str,
    offset: int | None,
    position: int | None,
    count: int | None,
    records: bool,
    unfold: bool,
    width: int,
    as_json: bool,
) -> None:
    """Show the bytes of the file PATH, field by field: where each stands, what it is called, and
    what it says.

    PATH is a segment (.log) or any other file of a partition; with --offset, it may be a
    partition's directory. It only reads. Bytes that make no sense are shown as far as they do.

    \b
    Example:
      logstore hexdump 00000000000000000000.log --offset 1017 --records

    Exit code: 0, or 1 where something shown is damaged; 2 wrong use.
    """
    if offset is not None and position is not None:
        raise click.UsageError("--offset and --position exclude each other", ctx)
    file = _choose(ctx, path, offset)
    if count is None and (offset is not None or position is not None):
        count = 1
    if file.kind is FileKind.LOG:
        with _opened(file.path) as log:
            start = _start(log, offset, position)
            shown = annotate_log(log, start=start, count=count, records=records)
            damaged = _print(shown, file, width, unfold=unfold, as_json=as_json)
    else:
        data = read_bounded(DiskFiles(), file.path, _MAX_SIDE_FILE_BYTES)
        shown = annotate_side_file(
            file.kind, data, file.base_offset or 0, start=position or 0, count=count
        )
        damaged = _print(shown, file, width, unfold=unfold, as_json=as_json)
    if damaged:
        ctx.exit(FAILED)


def _choose(ctx: click.Context, path: str, offset: int | None) -> PartitionFile:
    """The file to show."""
    files = DiskFiles()
    if not files.is_directory(path):
        file = identify(path)
        if file is None:
            raise click.UsageError(f"{path}: no file of a partition", ctx)
        if offset is not None and file.kind is not FileKind.LOG:
            raise click.UsageError(
                f"{path}: --offset is for logs; `logstore index` looks up an offset in an index",
                ctx,
            )
        return file
    logs = [file for file in partition_files(files, path) if file.kind is FileKind.LOG]
    if not logs:
        raise click.UsageError(f"{path}: neither a file of a partition nor a partition", ctx)
    if offset is None:
        raise click.UsageError(f"{path}: which of its files? Name one, or give --offset", ctx)
    before = [file for file in logs if (file.base_offset or 0) <= offset]
    return before[-1] if before else logs[0]


@contextmanager
def _opened(path: str) -> Iterator[File]:
    log = DiskFiles().open(path)
    try:
        yield log
    finally:
        log.close()


def _start(log: File, offset: int | None, position: int | None) -> int:
    if offset is not None:
        start = position_of_offset(log, offset)
        if start is None:
            raise click.ClickException(f"{log.path}: no batch holds offset {offset}")
        return start
    if position:
        start = position_of_byte(log, position)
        if start is None:
            raise click.ClickException(f"{log.path} ends in front of byte {position}")
        return start
    return 0


def _print(
    shown: Iterable[Annotated],
    file: PartitionFile,
    width: int,
    *,
    unfold: bool,
    as_json: bool,
) -> bool:
    """Print what was found; returns whether any of it is damaged."""
    printer: _JsonPrinter | _LinePrinter
    if as_json:
        printer = _JsonPrinter(file.path)
    else:
        printer = _LinePrinter(file.path, width, unfold=unfold)
    damaged = False
    for item in shown:
        damaged = damaged or isinstance(item, Ending) or (isinstance(item, Field) and item.wrong)
        printer.show(item)
    return damaged


class _JsonPrinter:
    """One object for each field, and for each place where an annotation ends."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._part = Part("", 0, 0)
        self._write = standard_output().write

    def show(self, item: Annotated) -> None:
        if isinstance(item, Part):
            self._part = item
        elif isinstance(item, Ending):
            fields = damage_fields(self._path, item.position, item.reason)
            self._write(json_line({**fields, "decompressed": item.decompressed}))
        else:
            self._write(json_line(self._fields(item)))

    def _fields(self, field: Field) -> dict[str, Any]:
        part = self._part
        value = json_bytes(field.value) if isinstance(field.value, bytes) else field.value
        fields: dict[str, Any] = {
            "type": "field",
            "file": self._path,
            "part": part.kind,
            "number": part.number,
            "decompressed": part.decompressed,
            "position": field.position,
            "size": field.size,
            "name": field.name,
            "value": value,
            "meaning": field.meaning,
            "wrong": field.wrong,
        }
        if field.bits:
            fields["bits"] = {bit.name: bit.value for bit in field.bits}
        return fields


_STYLES = {
    "key": "green",
    "headerKey": "green",
    "value": "yellow",
    "headerValue": "yellow",
    "records": "magenta",
    "?": "red",
}
"""The colours of bytes by the names of fields; numbers have one of their own."""
_NUMBERS = "cyan"


class _LinePrinter:
    """Position, bytes, text, name, value and meaning, in columns."""

    def __init__(self, path: str, width: int, *, unfold: bool) -> None:
        size = os.path.getsize(path)
        self._lines = Lines()
        self._lines.line(f"{path}: {size:,} bytes", "bold")
        self._width = width
        self._unfold = unfold
        self._digits = max(4, len(str(size)))
        """Columns of a position."""

    def show(self, item: Annotated) -> None:
        if isinstance(item, Part):
            if item.kind not in ("entry", "line") or item.number == 0:
                self._lines.line("")
            self._lines.line(item.text, "bold")
        elif isinstance(item, Ending):
            where = " of the decompressed bytes" if item.decompressed else ""
            self._lines.line(f"DAMAGE at byte {item.position}{where}: {item.reason}", "red")
        else:
            self._field(item)

    def _field(self, field: Field) -> None:
        style = "red" if field.wrong else _STYLES.get(field.name, _NUMBERS)
        width = self._width
        starts = range(0, field.size, width)
        known = len(field.raw) == field.size
        head, tail = len(starts), len(starts)
        if not known or (not self._unfold and len(starts) > _FOLDED_LINES):
            head = min(_FOLDED_LINES - 2, len(field.raw) // width)
            tail = len(starts) - 1 if known else len(starts)
        for start in starts[:head]:
            self._row(field, start, style, first=start == 0)
        if head < tail:
            left_out = (starts[tail] if tail < len(starts) else field.size) - head * width
            self._lines.line(f"{'':{self._digits}}  ... {left_out:,} bytes", "dim")
        for start in starts[tail:]:
            self._row(field, start, style, first=False)
        for bit in field.bits:
            value = f"{bit.name:<22}{bit.value:<{_VALUE_COLUMNS}}"
            text = f"{'':{self._digits}}  {bit.pattern:<{self._columns()}}  {value}  {bit.meaning}"
            self._lines.line(text.rstrip(), "dim")

    def _columns(self) -> int:
        """Of the bytes and their text together."""
        return 4 * self._width + 1

    def _row(self, field: Field, start: int, style: str, *, first: bool) -> None:
        raw = field.raw[start : start + self._width]
        text = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in raw)
        spans = [
            (f"{field.position + start:>{self._digits}}  ", "dim"),
            (f"{raw.hex(' '):<{3 * self._width - 1}}  ", style),
            (f"{text:<{self._width}}  ", "dim"),
        ]
        if first:
            spans.append((f"{field.name:<22}", "bold"))
            spans.append((f"{_value_text(field):<{_VALUE_COLUMNS}}", style))
            spans.append((f"  {field.meaning}", "red bold" if field.wrong else ""))
        self._lines.spans(spans)


def _value_text(field: Field) -> str:
    value = field.value
    if field.name == "?":
        return ""
    if isinstance(value, bytes):
        if field.name == "records":
            return f"{len(value):,} bytes"
        text = printable(value)
        if len(text) <= _LONGEST_VALUE:
            return text
        return f"{text[:_LONGEST_VALUE]}..." if text[0] == '"' else f"{len(value):,} bytes"
    if field.name == "crc" and value is not None:
        return f"{value:#010x}"
    return f"{value}"
