"""``logstore dump``: what is in a file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import click

from logstore.cli.dump_side import Item, side_items
from logstore.cli.output import (
    FAILED,
    Lines,
    batch_fields,
    codec_label,
    control_label_of,
    damage_fields,
    hexdump,
    json_line,
    printable,
    record_fields,
    standard_output,
    time_text,
)
from logstore.segments.batch import Batch
from logstore.segments.errors import FormatError
from logstore.segments.files import DiskFiles, Files
from logstore.segments.layout import (
    FileKind,
    PartitionFile,
    identify,
    partition_directories,
    partition_files,
)
from logstore.segments.record import Record
from logstore.segments.scan import Damage, survey

__all__ = ["dump"]


@click.command(short_help="Show what is in files.")
@click.argument("path", type=click.Path(exists=True))
@click.option("--records", is_flag=True, help="Show the records of each batch behind it.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
@click.option("--hex", "with_hex", is_flag=True, help="Show the bytes, too.")
@click.pass_context
def dump(ctx: click.Context, path: str, records: bool, as_json: bool, with_hex: bool) -> None:
    """Show what is in PATH.

    PATH is a segment (.log), any other file of a partition (.index, .timeindex, .txnindex,
    .snapshot, leader-epoch-checkpoint, partition.metadata), a partition's directory, a directory
    of partitions or a whole store; of directories the segments are shown. It only reads.

    A torn or damaged place is shown where it is, and what stands around it all the same.

    \b
    Examples:
      logstore dump data
      logstore dump orders-0/00000000000000000000.log --records --json

    Exit code: 0, or 1 where nothing but damage was found; 2 wrong use.
    """
    files = DiskFiles()
    chosen = _choose(files, path)
    if chosen is None:
        raise click.UsageError(f"{path}: neither a partition nor a file of one", ctx)
    printer = _JsonPrinter(with_hex) if as_json else _LinePrinter(with_hex)
    shown = damaged = 0
    for file in chosen:
        printer.begin(file, files.size(file.path))
        for part in _parts(files, file, records=records):
            if isinstance(part, _Broken):
                damaged += 1
            else:
                shown += 1
            printer.show(part)
    if damaged and not shown:
        ctx.exit(FAILED)


class _Broken(NamedTuple):
    """A damaged place of a file."""

    file: str
    position: int
    reason: str


class _InBatch(NamedTuple):
    """A record of a batch."""

    file: str
    record: Record
    control: str | None


_Part = Batch | _InBatch | _Broken | Item


def _choose(files: Files, path: str) -> Iterator[PartitionFile] | None:
    """The files to show, or None where ``path`` is nothing of ours."""
    if not files.is_directory(path):
        file = identify(path)
        return None if file is None else iter([file])
    directories = partition_directories(files, path)
    if directories is None:
        return None
    return (
        file
        for directory in directories
        for file in partition_files(files, directory)
        if file.kind is FileKind.LOG
    )


def _parts(files: Files, file: PartitionFile, *, records: bool) -> Iterator[_Part]:
    try:
        if file.kind is FileKind.LOG:
            yield from _log_parts(files, file.path, records=records)
        else:
            yield from side_items(files, file)
    except FormatError as error:
        yield _Broken(file.path, error.position or 0, error.reason)
    except OSError as error:  # the files behind it are shown all the same
        yield _Broken(file.path, 0, f"the file cannot be read: {error.strerror or error}")


def _log_parts(files: Files, path: str, *, records: bool) -> Iterator[_Part]:
    log = files.open(path)
    try:
        for item in survey(log):
            if isinstance(item, Damage):
                yield _Broken(path, item.position, item.reason)
                continue
            yield item
            try:
                item.check_crc()
                decoded = item.records() if records else []
            except FormatError as error:
                yield _Broken(path, item.position, error.reason)
                continue
            control = item.header.control
            for record in decoded:
                yield _InBatch(path, record, control_label_of(record) if control else None)
    finally:
        log.close()


class _JsonPrinter:
    """One object a line."""

    def __init__(self, with_hex: bool) -> None:
        self._with_hex = with_hex
        self._write: Callable[[bytes], object] = standard_output().write

    def begin(self, file: PartitionFile, size: int) -> None:
        """Every object names its file itself."""

    def show(self, part: _Part) -> None:
        fields: dict[str, Any]
        if isinstance(part, _InBatch):
            fields = {"type": "record", "file": part.file, **record_fields(part.record)}
            if part.control is not None:
                fields["control"] = part.control
        elif isinstance(part, _Broken):
            fields = damage_fields(part.file, part.position, part.reason)
        elif isinstance(part, Batch):
            fields = batch_fields(part, part.path or "")
            if self._with_hex:
                fields["hex"] = part.raw.hex()
        else:
            fields = dict(part.fields)
            if self._with_hex:
                fields["hex"] = part.raw.hex()
        self._write(json_line(fields))


_HEADINGS = (
    f"{'position':>12} {'size':>10} {'base offset':>12} {'last offset':>12} {'count':>8}  "
    f"{'codec':<6}  {'largest timestamp':<24}  {'epoch':>5}  crc"
)


class _LinePrinter:
    """Aligned lines, a heading for each file."""

    def __init__(self, with_hex: bool) -> None:
        self._with_hex = with_hex
        self._lines = Lines()
        self._files = 0

    def begin(self, file: PartitionFile, size: int) -> None:
        """Name the file, and the columns of what follows."""
        if self._files:
            self._lines.line("")
        self._files += 1
        self._lines.line(f"{file.path}: {size:,} bytes", "bold")
        if file.kind is FileKind.LOG and size:
            self._lines.line(_HEADINGS, "bold")

    def show(self, part: _Part) -> None:
        line = self._lines.line
        if isinstance(part, _InBatch):
            line(_record_text(part.record, part.control))
        elif isinstance(part, _Broken):
            line(f"{part.position:>12} DAMAGE: {part.reason}", "red")
        elif isinstance(part, Batch):
            line(_batch_text(part), "" if part.crc_ok else "red")
            self._hex(part.raw, part.position)
        else:
            line(part.text)
            self._hex(part.raw, part.position)

    def _hex(self, raw: bytes, position: int) -> None:
        if self._with_hex:
            for text in hexdump(raw, position):
                self._lines.line("    " + text, "dim")


def _batch_text(batch: Batch) -> str:
    header = batch.header
    text = (
        f"{batch.position:>12} {header.size:>10} {header.base_offset:>12} "
        f"{header.last_offset:>12} {header.record_count:>8}  {codec_label(header):<6}  "
        f"{time_text(header.max_timestamp):<24}  {header.leader_epoch:>5}  "
        f"{'ok' if batch.crc_ok else 'WRONG':<5}"
    )
    remarks = []
    if header.magic < 2:
        remarks.append(f"magic {header.magic}")
    if header.timestamp_type:
        remarks.append("log append time")
    if header.transactional:
        remarks.append("transactional")
    if header.control:
        remarks.append("control")
    if header.producer_id >= 0:
        remarks.append(
            f"producer {header.producer_id} epoch {header.producer_epoch} "
            f"sequence {header.base_sequence}"
        )
    if header.delete_horizon is not None and header.magic == 2:
        remarks.append(f"delete horizon {time_text(header.delete_horizon)}")
    return f"{text}  {', '.join(remarks)}".rstrip()


def _record_text(record: Record, control: str | None) -> str:
    text = (
        f"{'':>12} {'offset':>10} {record.offset:>12}  {time_text(record.timestamp)}  "
        f"key={printable(record.key)} value={printable(record.value)}"
    )
    if record.headers:
        pairs = ", ".join(
            f"{printable(name.encode('utf-8', 'surrogateescape'))}: {printable(value)}"
            for name, value in record.headers
        )
        text += f" headers={{{pairs}}}"
    return text if control is None else f"{text} control={control}"
