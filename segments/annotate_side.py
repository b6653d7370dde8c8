"""Which bytes are what in the files beside a segment: indexes, snapshots, checkpoints."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from logstore.segments import offset_index, producer_snapshot, time_index, transaction_index
from logstore.segments.annotation import Annotated, Cursor, Ending, Field, Part
from logstore.segments.checkpoint import parse_leader_epochs, parse_partition_metadata
from logstore.segments.checksum import crc32c
from logstore.segments.errors import FormatError, TruncatedError
from logstore.segments.fields import Fields
from logstore.segments.layout import FileKind
from logstore.segments.moments import time_text

__all__ = ["annotate_side_file"]

_TABLES: dict[FileKind, tuple[Fields, Callable[[bytes], int]]] = {
    FileKind.OFFSET_INDEX: (offset_index.ENTRY_FIELDS, offset_index.valid_size),
    FileKind.TIME_INDEX: (time_index.ENTRY_FIELDS, time_index.valid_size),
    FileKind.TRANSACTION_INDEX: (transaction_index.ENTRY_FIELDS, len),
}
"""The fields of an entry, and up to where the file holds entries."""

_WORD = re.compile(rb"[^\s:]+")


def annotate_side_file(
    kind: FileKind,
    data: bytes,
    base_offset: int = 0,
    *,
    start: int = 0,
    count: int | None = None,
) -> Iterator[Annotated]:
    """The fields of a file of any kind but a log.

    ``base_offset`` is the one in the file's name. Of files with entries only those from the byte
    ``start`` on are annotated, and ``count`` of them.
    """
    if kind in _TABLES:
        fields, valid_size = _TABLES[kind]
        cursor = Cursor(data)
        yield from _entries(cursor, fields, valid_size(data), base_offset, start, count)
    elif kind is FileKind.PRODUCER_SNAPSHOT:
        yield from _snapshot(data, base_offset, start, count)
    else:
        parse = parse_leader_epochs if kind is FileKind.LEADER_EPOCHS else parse_partition_metadata
        yield from _text(data, kind, parse)


def _entries(
    cursor: Cursor,
    fields: Fields,
    stop: int,
    base_offset: int,
    start: int,
    count: int | None,
) -> Iterator[Annotated]:
    """Entries up to the position ``stop``, from the one that holds the byte ``start`` on; and what
    stands behind them, unless ``count`` ends it."""
    size = fields.struct.size
    first = cursor.at
    number = max(0, start - first) // size
    cursor.at = min(first + number * size, len(cursor.data))
    taken = 0
    while cursor.at + size <= stop:
        if taken == count:
            return
        yield Part("entry", number, cursor.at, f"entry {number}")
        for place in fields:
            field = cursor.number(place)
            yield field._replace(meaning=_meaning(field, fields, base_offset))
        number += 1
        taken += 1
    if count is None or taken < count:
        yield from _rest(cursor, size)


def _rest(cursor: Cursor, size: int) -> Iterator[Annotated]:
    rest = cursor.rest()
    if rest is None:
        return
    yield Part("rest", 0, rest.position, f"{rest.size} bytes behind the entries")
    if not rest.raw.strip(b"\0") and rest.size % size == 0:
        yield rest._replace(meaning="zeros: the file was made in advance, at its full size")
        return
    yield rest
    if rest.size % size:
        whole = len(cursor.data) - len(cursor.data) % size
        error = TruncatedError(
            "the bytes end inside an entry",
            expected=f"{size} bytes",
            found=len(cursor.data) - whole,
        )
        yield Ending(whole, error.reason)


def _meaning(field: Field, fields: Fields, base_offset: int) -> str:
    value = field.number
    match field.name:
        case "relativeOffset":
            return f"offset {base_offset + value}"
        case "position":
            return "where the batch begins in the log"
        case "timestamp":
            return time_text(value)
        case "firstOffset":
            return "of the transaction's first record"
        case "lastOffset" if fields is transaction_index.ENTRY_FIELDS:
            return "of the marker that aborted it"
        case "lastStableOffset":
            return "up to where readers of committed records could see then"
        case "lastSequence" | "lastOffset" | "coordinatorEpoch" | "currentTxnFirstOffset":
            return "none" if value == -1 else ""
    return ""


def _snapshot(data: bytes, base_offset: int, start: int, count: int | None) -> Iterator[Annotated]:
    cursor = Cursor(data)
    yield Part("header", 0, 0, "header")
    try:
        for place in producer_snapshot.HEADER_FIELDS:
            field = cursor.number(place)
            if place.name == "crc":
                computed = crc32c(data[cursor.at :])
                right = computed == field.value
                verdict = "right" if right else f"wrong: computed {computed:#010x}"
                field = field._replace(meaning=verdict, wrong=not right)
            elif place.name == "count":
                field = field._replace(meaning="entries")
            yield field
    except FormatError as error:
        yield from _end(cursor, error)
        return
    fields = producer_snapshot.ENTRY_FIELDS
    yield from _entries(cursor, fields, len(data), base_offset, start, count)
    if count is None:
        try:
            producer_snapshot.decode(data)
        except FormatError as error:
            yield Ending(error.position or 0, error.reason)


def _text(data: bytes, kind: FileKind, parse: Callable[[bytes], object]) -> Iterator[Annotated]:
    """A file of lines: every word is a field, with the spaces and what else stands behind it."""
    cursor = Cursor(data)
    try:
        for number, line in enumerate(data.splitlines(keepends=True)):
            yield Part("line", number, cursor.at, f"line {number + 1}")
            yield from _line(cursor, line, _names(kind, number))
        parse(data)
    except FormatError as error:
        yield from _end(cursor, error)


def _names(kind: FileKind, line: int) -> tuple[str, ...]:
    if kind is FileKind.PARTITION_METADATA:
        return ("name", ("version", "topic_id")[line] if line < 2 else "value")
    return ("version",) if line == 0 else ("count",) if line == 1 else ("epoch", "startOffset")


def _line(cursor: Cursor, line: bytes, names: tuple[str, ...]) -> Iterator[Field]:
    end = cursor.at + len(line)
    words = list(_WORD.finditer(line))
    start = cursor.at
    for number, word in enumerate(words):
        behind = start + words[number + 1].start() if number + 1 < len(words) else end
        field = cursor.take(names[number] if number < len(names) else "?", behind - cursor.at)
        text = word[0]
        value: int | bytes = int(text) if text.isdigit() and len(text) < 20 else text
        yield field._replace(value=value)
    if cursor.at < end:
        yield cursor.take("?", end - cursor.at)._replace(value=None)


def _end(cursor: Cursor, error: FormatError) -> Iterator[Annotated]:
    where = cursor.position if error.position is None else error.position
    rest = cursor.rest()
    if rest is not None:
        yield rest
    yield Ending(where, error.reason)
