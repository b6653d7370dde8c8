"""What the commands print: lines for people, JSON objects for programs, complaints."""

from __future__ import annotations

import base64
import contextlib
import os
import sys
import uuid
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

import click
from rich.console import Console
from rich.text import Text

from logstore.json_records import json_bytes, json_line, record_fields
from logstore.segments.batch import Batch
from logstore.segments.control import control_label
from logstore.segments.errors import FormatError
from logstore.segments.header import BatchHeader
from logstore.segments.moments import time_text
from logstore.segments.record import Record

__all__ = [
    "FAILED",
    "WRONG_USE",
    "Lines",
    "batch_fields",
    "codec_label",
    "complain",
    "control_label_of",
    "count_of",
    "damage_fields",
    "hexdump",
    "json_bytes",
    "json_line",
    "one_line",
    "printable",
    "record_fields",
    "silence",
    "spelled_topic_id",
    "standard_output",
    "time_text",
    "timestamp_type_label",
]

FAILED = 1
"""The exit code where an operation failed or damage was found."""
WRONG_USE = 2
"""The exit code for an option, value or path that makes no sense."""


_CONTROLS = {
    code: chr(code).encode("unicode_escape").decode("ascii")
    for code in (*range(32), *range(127, 160))
}


def one_line(text: str) -> str:
    """Text, with what would move the cursor, or tell a terminal what to do, spelled: names may hold
    anything."""
    return text.translate(_CONTROLS)


def complain(message: str) -> None:
    """One line on standard error."""
    click.echo(f"logstore: {one_line(' '.join(message.split()))}", err=True)


def silence() -> None:
    """Let nobody notice that standard output is gone: Python would flush it once more at the end,
    and complain."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        descriptor = sys.stdout.fileno()
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, descriptor)
        os.close(nowhere)


def standard_output() -> BinaryIO:
    """Standard output as bytes."""
    if sys.stdout is None:
        raise click.ClickException("standard output is closed")
    return sys.stdout.buffer


class Lines:
    """Lines of text on standard output: coloured on a terminal, plain elsewhere."""

    def __init__(self) -> None:
        self._output = standard_output()
        self._console = Console(highlight=False) if sys.stdout.isatty() else None

    @property
    def console(self) -> Console | None:
        """The terminal, where standard output is one."""
        return self._console

    def line(self, text: str, style: str = "") -> None:
        """Print one line."""
        text = one_line(text)
        if self._console is not None:
            self._console.print(Text(text, style=style), soft_wrap=True)
        else:
            self._output.write(text.encode("utf-8", "surrogateescape") + b"\n")

    def spans(self, spans: Iterable[tuple[str, str]]) -> None:
        """Print one line made of texts, each with its style."""
        if self._console is not None:
            self._console.print(Text.assemble(*spans), soft_wrap=True)
        else:
            self.line("".join(text for text, _ in spans).rstrip())


def count_of(count: int, one: str, many: str | None = None) -> str:
    """``1 record``, ``2 records``, ``12,345 records``."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


# JSON ---------------------------------------------------------------------------------------


def batch_fields(batch: Batch, file: str) -> dict[str, Any]:
    """A batch's JSON object."""
    header = batch.header
    return {
        "type": "batch",
        "file": file,
        "position": batch.position,
        "size": header.size,
        "magic": header.magic,
        "base_offset": header.base_offset,
        "last_offset": header.last_offset,
        "count": header.record_count,
        "codec": codec_label(header),
        "timestamp_type": timestamp_type_label(header),
        "base_timestamp": header.base_timestamp,
        "max_timestamp": header.max_timestamp,
        "producer_id": header.producer_id,
        "producer_epoch": header.producer_epoch,
        "base_sequence": header.base_sequence,
        "leader_epoch": header.leader_epoch,
        "transactional": header.transactional,
        "control": header.control,
        "crc": header.crc,
        "crc_ok": batch.crc_ok,
    }


def spelled_topic_id(topic_id: uuid.UUID) -> str:
    """A topic's id as Kafka spells it: in url-safe base64, without padding."""
    return base64.urlsafe_b64encode(topic_id.bytes).rstrip(b"=").decode("ascii")


def damage_fields(file: str, position: int, reason: str) -> dict[str, Any]:
    """The JSON object of a damaged place."""
    return {"type": "damage", "file": file, "position": position, "reason": reason}


def codec_label(header: BatchHeader) -> str:
    """The codec's name; ``unknown-N`` for one that nobody knows."""
    try:
        return header.codec.label
    except FormatError:
        return f"unknown-{header.attributes & 7}"


def timestamp_type_label(header: BatchHeader) -> str:
    """Kafka's name for whose time the timestamps are; format 0 has none."""
    return header.timestamp_type.label if header.magic else "NoTimestampType"


def control_label_of(record: Record) -> str:
    """What a control record says: ``commit``, ``abort``, ...; ``unknown`` where it is malformed."""
    try:
        return control_label(record)
    except FormatError:
        return "unknown"


# For people ---------------------------------------------------------------------------------


def printable(data: bytes | None) -> str:
    """Bytes as quoted text, whatever a terminal must not see escaped; binary as ``b"\\x00"``."""
    if data is None:
        return "null"
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return repr(data)
    if not text.isprintable() or '"' in text or "\\" in text:
        text = "".join(map(_escaped, text))
    return f'"{text}"'


def _escaped(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    if character.isprintable():
        return character
    return character.encode("unicode_escape").decode("ascii")


def hexdump(data: bytes, position: int) -> Iterator[str]:
    """Sixteen bytes a line, each line with the position in the file at which it begins."""
    for start in range(0, len(data), 16):
        part = data[start : start + 16]
        text = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in part)
        digits = f"{part[:8].hex(' ')}  {part[8:].hex(' ')}"
        yield f"{position + start:010x}  {digits:<48}  |{text}|"
