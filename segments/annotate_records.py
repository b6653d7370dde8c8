"""Which bytes of a record are what: for batches of format v2."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from logstore.segments.annotation import Annotated, Cursor, Field, Part
from logstore.segments.control import (
    END_TRANSACTION_FIELDS,
    KEY_FIELDS,
    ControlType,
    control_label,
)
from logstore.segments.errors import FormatError, TruncatedError
from logstore.segments.fields import FieldPlace, Fields
from logstore.segments.moments import time_text
from logstore.segments.record import Record

__all__ = ["Surroundings", "annotate_records"]

_ATTRIBUTES = FieldPlace("attributes", "b", 0, 1)


@dataclass(frozen=True)
class Surroundings:
    """What a batch's header says that its records need."""

    count: int
    base_offset: int
    base_timestamp: int
    append_timestamp: int | None
    """Whose time counts, instead of the records' own; None where their own does."""
    control: bool


def annotate_records(
    cursor: Cursor, batch: Surroundings, *, decompressed: bool
) -> Iterator[Annotated]:
    """The fields of all records; raises FormatError where the bytes stop being records, and
    TruncatedError where they end."""
    for number in range(batch.count):
        text = f"record {number + 1:,} of {batch.count:,}"
        if not cursor.left:
            raise TruncatedError(
                "the bytes end before the last record",
                position=cursor.position,
                expected=f"{batch.count} records",
                found=number,
            )
        yield Part("record", number, cursor.position, text, decompressed)
        yield from _record(cursor, batch)
    if cursor.left:
        raise FormatError(
            "the records do not fill the batch",
            position=cursor.position,
            expected=f"{batch.count} records to end at {cursor.start + cursor.end}",
            found=cursor.position,
        )


def _record(cursor: Cursor, batch: Surroundings) -> Iterator[Field]:
    whole = cursor.end
    length = cursor.varint("length")
    end = cursor.at + length.number
    yield length._replace(meaning=f"the record ends at {cursor.start + end}")
    if not cursor.at < end <= whole:
        problem = FormatError if end <= cursor.at else TruncatedError
        if end > cursor.at:  # what is there of it is shown all the same
            yield from _body(cursor, batch)
        raise problem(
            "a record's length is wrong, or the bytes end inside it",
            position=length.position,
            expected=f"1 to {whole - (length.position + length.size - cursor.start)}",
            found=length.value,
        )
    cursor.end = end
    yield from _body(cursor, batch)
    if cursor.left:
        raise FormatError(
            "the fields of a record do not fill its length",
            position=cursor.position,
            expected=f"its end at {cursor.start + end}",
            found=cursor.position,
        )
    cursor.end = whole


def _body(cursor: Cursor, batch: Surroundings) -> Iterator[Field]:
    attributes = cursor.number(_ATTRIBUTES)
    yield attributes._replace(meaning="not used")
    delta = cursor.varint("timestampDelta")
    yield delta._replace(meaning=_time_meaning(delta.number, batch))
    delta = cursor.varint("offsetDelta")
    offset = batch.base_offset + delta.number
    yield delta._replace(meaning=f"offset {offset}")
    kind: int | None = None
    length = cursor.varint("keyLength")
    yield _with_null(length)
    if batch.control and length.number >= KEY_FIELDS.struct.size:
        for field in _control(cursor, KEY_FIELDS, length.number, "key", offset):
            kind = field.number if field.name == "type" else kind
            yield field
    elif length.value != -1 and length.value != 0:
        yield cursor.take("key", length.number)
    length = cursor.varint("valueLength")
    yield _with_null(length)
    size = length.number
    ends_transaction = kind in (ControlType.ABORT, ControlType.COMMIT)
    if ends_transaction and size >= END_TRANSACTION_FIELDS.struct.size:
        yield from _control(cursor, END_TRANSACTION_FIELDS, size, "value", offset)
    elif size not in (-1, 0):
        yield cursor.take("value", size)
    yield from _headers(cursor)


def _headers(cursor: Cursor) -> Iterator[Field]:
    count = cursor.varint("headersCount")
    yield count
    if count.number < 0:
        raise FormatError(
            "the count of headers is negative",
            position=count.position,
            expected="0 or more",
            found=count.value,
        )
    for _ in range(count.number):
        length = cursor.varint("headerKeyLength")
        yield length
        if length.value != 0:
            yield cursor.take("headerKey", length.number)
        length = cursor.varint("headerValueLength")
        yield _with_null(length)
        if length.value not in (-1, 0):
            yield cursor.take("headerValue", length.number)


def _control(cursor: Cursor, fields: Fields, size: int, what: str, offset: int) -> Iterator[Field]:
    """The key or value of a control record, of which the first fields are known."""
    start = cursor.at
    if size > cursor.left:
        cursor.take(what, size)  # raises: it is not whole
    for place in fields:
        field = cursor.number(place)
        if place.name == "type":
            record = Record(offset=offset, key=cursor.data[start : start + size])
            field = field._replace(meaning=control_label(record))
        yield field
    rest = start + size - cursor.at
    if rest:
        yield cursor.take(what, rest)._replace(meaning="what newer versions have added")


def _time_meaning(delta: int, batch: Surroundings) -> str:
    if batch.append_timestamp is not None:
        return f"not looked at: {time_text(batch.append_timestamp)}, the time of the append, counts"
    return time_text(batch.base_timestamp + delta)


def _with_null(length: Field) -> Field:
    return length._replace(meaning="null") if length.value == -1 else length
