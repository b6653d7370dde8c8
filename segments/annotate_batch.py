"""Which bytes of a batch are what, or of a message of formats 0 and 1.

Nothing is believed that was not seen: a batch that is damaged or cut off is annotated as far as its
bytes make sense, and what is wrong is said where it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from logstore.segments import legacy
from logstore.segments.annotate_records import Surroundings, annotate_records
from logstore.segments.annotation import Annotated, Bit, Cursor, Ending, Field, Part
from logstore.segments.batch import HEADER_BYTES, header_at
from logstore.segments.checksum import crc32, crc32c
from logstore.segments.compression import Codec, decompress
from logstore.segments.errors import FormatError, TruncatedError, UnsupportedFormatError
from logstore.segments.fields import FieldPlace, Fields
from logstore.segments.header import (
    ATTRIBUTE_BITS,
    DELETE_HORIZON,
    HEADER_FIELDS,
    LOG_OVERHEAD_BYTES,
    BatchHeader,
    TimestampType,
)
from logstore.segments.moments import time_text

__all__ = ["annotate_batch"]

_MAGIC_POSITION = 16
_COVERED = next(place.position for place in HEADER_FIELDS if place.name == "attributes")
"""Where the part begins that the checksum of format 2 covers."""


def annotate_batch(
    raw: bytes, *, position: int = 0, number: int = 0, records: bool = False
) -> Iterator[Annotated]:
    """The fields of the batch or message that begins with ``raw``, and of its records.

    ``raw`` may hold more than the batch, or less; ``position`` is where it begins in its file.
    With ``records``, those of a compressed batch are decompressed and annotated behind it.
    """
    cursor = Cursor(raw, position)
    old = len(raw) > _MAGIC_POSITION and raw[_MAGIC_POSITION] < 2
    yield Part("message" if old else "batch", number, position, _title(raw, position, old=old))
    try:
        if old:
            yield from _message(cursor, records=records)
        else:
            yield from _batch(cursor, records=records)
    except FormatError as error:
        yield from _end(cursor, error)
    else:
        cursor.end = len(raw)
        rest = cursor.rest()
        if rest is not None:
            yield rest


def _title(raw: bytes, position: int, *, old: bool) -> str:
    if old:
        return f"message at {position}, format {raw[_MAGIC_POSITION]}"
    if len(raw) < HEADER_BYTES or raw[_MAGIC_POSITION] != 2:
        return f"batch at {position}"
    header = header_at(raw, 0)
    return (
        f"batch at {position}: offsets {header.base_offset} to {header.last_offset}, "
        f"{header.record_count} record{'' if header.record_count == 1 else 's'}, "
        f"{header.size} bytes"
    )


def _end(cursor: Cursor, error: FormatError, *, decompressed: bool = False) -> Iterator[Annotated]:
    """What is left of the bytes says nothing, and why."""
    cursor.end = len(cursor.data)
    where = cursor.position if error.position is None else error.position
    rest = cursor.rest()
    if rest is not None:
        yield rest
    yield Ending(where, error.reason, decompressed)


# Format 2 -----------------------------------------------------------------------------------


def _batch(cursor: Cursor, *, records: bool) -> Iterator[Annotated]:
    seen: dict[str, int] = {}
    for place in HEADER_FIELDS:
        field = cursor.number(place)
        seen[place.name] = field.number
        if place.name == "crc":
            end = LOG_OVERHEAD_BYTES + seen["batchLength"]
            field = _compared(field, crc32c, cursor.data, _COVERED, end)
        elif place.name == "attributes":
            field = field._replace(bits=_bits(field, 2))
        yield field._replace(meaning=field.meaning or _meaning(place.name, seen, cursor.start))
        if place.name == "magic" and field.value != 2:
            raise UnsupportedFormatError(
                "a batch's magic is unknown",
                position=field.position,
                expected="0, 1 or 2",
                found=field.value,
            )
    header = BatchHeader(*seen.values())
    cursor.end = min(header.size, len(cursor.data))
    if header.size < HEADER_BYTES:
        raise FormatError(
            "a batch's length is wrong",
            position=cursor.start + 8,
            expected=f"at least {HEADER_BYTES - LOG_OVERHEAD_BYTES}",
            found=header.length,
        )
    yield from _body(cursor, header, records=records)
    if header.size > len(cursor.data):
        raise TruncatedError(
            "the bytes end inside the batch",
            position=cursor.start,
            expected=f"{header.size} bytes",
            found=len(cursor.data),
        )


def _body(cursor: Cursor, header: BatchHeader, *, records: bool) -> Iterator[Annotated]:
    log_append = header.timestamp_type is TimestampType.LOG_APPEND
    around = Surroundings(
        count=header.record_count,
        base_offset=header.base_offset,
        base_timestamp=header.base_timestamp,
        append_timestamp=header.max_timestamp if log_append else None,
        control=header.control,
    )
    if header.size == HEADER_BYTES and not header.record_count:
        return  # compaction took the records and left the header, for its producer
    if not header.attributes & 7:
        yield from annotate_records(cursor, around, decompressed=False)
        return
    codec = header.codec
    blob = cursor.take("records", cursor.left)
    yield blob._replace(meaning=f"{header.record_count} records, compressed with {codec.label}")
    if records and header.size <= len(cursor.data):
        inner = _decompressed(blob, codec)
        yield _decompressed_part(blob, inner)
        try:
            yield from annotate_records(inner, around, decompressed=True)
        except FormatError as error:
            yield from _end(inner, error, decompressed=True)


def _meaning(name: str, seen: dict[str, int], start: int) -> str:
    """What a field of a header says beyond its number; ``seen`` ends with it."""
    value = seen[name]
    match name:
        case "batchLength":
            end = start + LOG_OVERHEAD_BYTES + value
            return f"the batch ends at {end}"
        case "partitionLeaderEpoch" | "producerId" | "producerEpoch" | "baseSequence":
            return "none" if value == -1 else ""
        case "magic":
            return f"format {value}"
        case "lastOffsetDelta":
            return f"the last offset is {seen['baseOffset'] + value}"
        case "baseTimestamp" if seen["attributes"] & DELETE_HORIZON:
            return f"{time_text(value)}, the delete horizon"
        case "baseTimestamp" | "maxTimestamp":
            return time_text(value)
        case "count" if value != seen["lastOffsetDelta"] + 1:
            return f"records, of {seen['lastOffsetDelta'] + 1} that were written"
        case "count":
            return "records"
    return ""


# Formats 0 and 1 ----------------------------------------------------------------------------


def _message(cursor: Cursor, *, records: bool, wrapper: bool = True) -> Iterator[Annotated]:
    """A message; what is inside of one is no ``wrapper`` itself."""
    start = cursor.at
    whole = cursor.end
    magic = codec = 0
    for place in legacy.PREFIX_FIELDS:
        field = cursor.number(place)
        match place.name:
            case "size":
                cursor.end = cursor.at + field.number
                field = field._replace(meaning=f"the message ends at {cursor.start + cursor.end}")
            case "crc":
                field = _compared(field, crc32, cursor.data, start + _MAGIC_POSITION, cursor.end)
            case "magic":
                magic = field.number
                field = field._replace(meaning=f"format {magic}")
            case "attributes":
                codec = field.number & 7
                field = field._replace(bits=_bits(field, magic))
        yield field
        if place.name == "size":
            cursor.end = min(cursor.end, whole)
    if magic == 1:
        field = cursor.number(_only(legacy.TIMESTAMP_FIELD))
        yield field._replace(meaning=time_text(field.number))
    for what, place in (
        ("key", _only(legacy.KEY_LENGTH_FIELD)),
        ("value", _only(legacy.VALUE_LENGTH_FIELD)),
    ):
        length = cursor.number(place)
        yield length._replace(meaning="null") if length.value == -1 else length
        if length.number in (-1, 0):
            continue
        field = cursor.take(what, length.number)
        if what == "value" and codec and wrapper:
            yield from _wrapped(field, codec, records=records)
        else:
            yield field
    if cursor.left:
        raise FormatError(
            "a message's fields do not fill its size",
            position=cursor.position,
            expected=f"its end at {cursor.start + cursor.end}",
            found=cursor.position,
        )
    cursor.end = whole


def _wrapped(blob: Field, number: int, *, records: bool) -> Iterator[Annotated]:
    """The value of a wrapper, and the messages inside."""
    if number > Codec.LZ4:
        yield blob
        raise UnsupportedFormatError(
            "a message's codec is unknown", expected="0 to 3", found=number
        )
    codec = Codec(number)
    yield blob._replace(meaning=f"messages, compressed with {codec.label}")
    if not records:
        return
    inner = _decompressed(blob, codec)
    yield _decompressed_part(blob, inner)
    count = 0
    try:
        while inner.left:
            yield Part("message", count, inner.at, f"message {count + 1}", True)
            yield from _message(inner, records=False, wrapper=False)
            count += 1
    except FormatError as error:
        yield from _end(inner, error, decompressed=True)


# Both ---------------------------------------------------------------------------------------


def _only(fields: Fields) -> FieldPlace:
    (place,) = fields
    return place


def _compared(
    crc: Field, compute: Callable[[bytes], int], data: bytes, start: int, end: int
) -> Field:
    """The field of a checksum, and whether it is that of the bytes from ``start`` to ``end``."""
    if not start < end <= len(data):
        return crc._replace(meaning="cannot be computed: the bytes that it covers are not all here")
    computed = compute(data[start:end])
    if computed == crc.value:
        return crc._replace(meaning="right")
    return crc._replace(meaning=f"wrong: computed {computed:#010x}", wrong=True)


def _decompressed(blob: Field, codec: Codec) -> Cursor:
    try:
        return Cursor(decompress(codec, blob.raw))
    except FormatError as error:
        error.position = blob.position
        raise


def _decompressed_part(blob: Field, inner: Cursor) -> Part:
    text = f"decompressed: {inner.left} bytes, of {blob.size}"
    return Part("decompressed", 0, 0, text, True)


_FLAGS = {
    "timestampType": ("CreateTime", "LogAppendTime"),
    "transactional": ("no transaction", "part of a transaction"),
    "control": ("no control records", "control records"),
    "deleteHorizon": ("baseTimestamp is none", "baseTimestamp is one"),
}


def _bits(attributes: Field, magic: int) -> tuple[Bit, ...]:
    """The attributes bit by bit: the known ones, and what is left of them."""
    width = 8 * attributes.size
    number = attributes.number & (1 << width) - 1
    left = (1 << width) - 1
    found = []
    for bits in ATTRIBUTE_BITS if magic > 1 else ATTRIBUTE_BITS[: magic + 1]:
        value = bits.of(number)
        meaning = _codec_name(value) if bits.name == "codec" else _FLAGS[bits.name][value]
        found.append(Bit(_pattern(number, bits.mask, width), bits.name, value, meaning))
        left &= ~bits.mask
    found.append(Bit(_pattern(number, left, width), "unused", number & left, ""))
    return tuple(found)


def _codec_name(number: int) -> str:
    return Codec(number).label if number < len(Codec) else "unknown"


def _pattern(number: int, mask: int, width: int) -> str:
    """``.... .000``: the bits of ``mask``, highest first, in groups of four."""
    digits = [str(number >> bit & 1) if mask >> bit & 1 else "." for bit in reversed(range(width))]
    return " ".join("".join(digits[start : start + 4]) for start in range(0, width, 4))
