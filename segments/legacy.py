"""Messages of formats 0 and 1 (Kafka before 0.11): read, never written.

One message (source: Kafka protocol guide, "Message sets")::

    offset     int64   absolute; inside a compressed wrapper of format 1 relative
    size       int32   bytes behind this field
    crc        uint32  CRC-32 of everything behind this field
    magic      int8    0 or 1
    attributes int8    bits 0-2 codec, bit 3 timestamp type (format 1)
    timestamp  int64   format 1 only
    key        int32 length (-1 is null), bytes
    value      int32 length (-1 is null), bytes

A *wrapper* is a message whose codec is not none: its value is a compressed run of messages. The
wrapper's offset is that of the last message inside. In format 0 the inner messages carry absolute
offsets, in format 1 relative ones, from which the absolute follow by way of the last.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from logstore.segments.checksum import crc32
from logstore.segments.compression import MAX_DECOMPRESSED_BYTES, Codec, decompress
from logstore.segments.errors import (
    ChecksumError,
    FormatError,
    TruncatedError,
    UnsupportedFormatError,
)
from logstore.segments.fields import Fields
from logstore.segments.header import LOG_OVERHEAD_BYTES, BatchHeader
from logstore.segments.record import NO_TIMESTAMP, Record

PREFIX_FIELDS = Fields(
    ("q", "offset"), ("i", "size"), ("I", "crc"), ("b", "magic"), ("b", "attributes")
)
"""What stands in front of a message's timestamp (format 1) or key (format 0)."""
TIMESTAMP_FIELD = Fields(("q", "timestamp"))
KEY_LENGTH_FIELD = Fields(("i", "keyLength"))
VALUE_LENGTH_FIELD = Fields(("i", "valueLength"))

_PREFIX = PREFIX_FIELDS.struct
_INT64 = TIMESTAMP_FIELD.struct
_INT32 = KEY_LENGTH_FIELD.struct
_CRC_START = 16


class _Message(NamedTuple):
    offset: int
    size: int
    crc: int
    magic: int
    attributes: int
    timestamp: int
    key: bytes | None
    value: bytes | None


def compute_crc(raw: bytes) -> int:
    """The CRC-32 that the message ``raw`` should carry."""
    return crc32(raw[_CRC_START:])


def parse_header(raw: bytes) -> BatchHeader:
    """A header for the message ``raw``; a wrapper is opened to learn what stands inside.

    A wrapper that cannot be opened still has a header: that of a single record at its own offset,
    so that damage inside a message does not hide the message. :func:`decode_message` raises.
    """
    message = _parse(raw, 0, len(raw))
    count, base_offset, base_timestamp = 1, message.offset, message.timestamp
    if message.attributes & 7:
        try:
            inner = decode_message(raw)
        except FormatError:
            inner = []
        if inner:
            count = len(inner)
            base_offset = inner[0].offset
            base_timestamp = inner[0].timestamp
    if not 0 <= base_offset <= message.offset:
        raise FormatError(
            "a message's offset is wrong",
            expected=f"0 to {message.offset}",
            found=base_offset,
        )
    return BatchHeader(
        base_offset=base_offset,
        length=message.size - LOG_OVERHEAD_BYTES,
        leader_epoch=-1,
        magic=message.magic,
        crc=message.crc,
        attributes=message.attributes,
        last_offset_delta=message.offset - base_offset,
        base_timestamp=base_timestamp,
        max_timestamp=message.timestamp,
        producer_id=-1,
        producer_epoch=-1,
        base_sequence=-1,
        record_count=count,
    )


def decode_message(raw: bytes, *, max_bytes: int = MAX_DECOMPRESSED_BYTES) -> list[Record]:
    """The records of the message ``raw``: itself, or those inside if it is a wrapper.

    Raises LimitError at ``max_bytes`` decompressed, FormatError for anything malformed, and
    ChecksumError where a message inside a wrapper does not match its own CRC.
    """
    outer = _parse(raw, 0, len(raw))
    number = outer.attributes & 7
    if not number:
        return [Record(outer.offset, outer.timestamp, outer.key, outer.value)]
    if number > Codec.LZ4:  # zstd came with format 2
        raise UnsupportedFormatError(
            "a message's codec is unknown", position=17, expected="0 to 3", found=number
        )
    if outer.value is None:
        raise FormatError("a compressed message has no value")
    messages = list(_iter_inner(decompress(Codec(number), outer.value, max_bytes=max_bytes), outer))
    if not messages:
        raise FormatError("a compressed message is empty")
    first = outer.offset - messages[-1].offset if outer.magic == 1 else 0
    append_time = outer.timestamp if outer.magic == 1 and outer.attributes & 8 else None
    return [
        Record(
            first + message.offset,
            message.timestamp if append_time is None else append_time,
            message.key,
            message.value,
        )
        for message in messages
    ]


def _iter_inner(data: bytes, outer: _Message) -> Iterator[_Message]:
    position = 0
    while position < len(data):
        message = _parse(data, position, len(data))
        if message.attributes & 7:
            raise FormatError("a compressed message stands inside a compressed message")
        if message.magic != outer.magic:
            raise FormatError(
                "a message's magic differs from its wrapper's",
                expected=outer.magic,
                found=message.magic,
            )
        computed = compute_crc(data[position : position + message.size])
        if computed != message.crc:
            raise ChecksumError(
                "the checksum of a message inside a wrapper does not match",
                expected=f"{computed:#010x} (computed)",
                found=f"{message.crc:#010x} (stored)",
            )
        yield message
        position += message.size


def _parse(data: bytes, position: int, end: int) -> _Message:
    """The message at ``position``, none of whose bytes may lie at or behind ``end``."""
    if end - position < _PREFIX.size:
        raise TruncatedError(
            "the bytes end inside a message's header",
            position=position,
            expected=_PREFIX.size,
            found=end - position,
        )
    offset, length, crc, magic, attributes = _PREFIX.unpack_from(data, position)
    stop = position + LOG_OVERHEAD_BYTES + length
    cursor = position + _PREFIX.size
    if length < 0 or stop > end:
        raise FormatError(
            "a message's size is wrong",
            position=position + 8,
            expected=f"0 to {end - position - LOG_OVERHEAD_BYTES}",
            found=length,
        )
    if magic not in (0, 1):
        raise UnsupportedFormatError(
            "a message's magic is unknown", position=position + 16, expected="0 or 1", found=magic
        )
    timestamp = NO_TIMESTAMP
    if magic == 1:
        if stop - cursor < 8:
            raise TruncatedError("a message ends inside its timestamp", position=cursor)
        (timestamp,) = _INT64.unpack_from(data, cursor)
        cursor += 8
    key, cursor = _parse_bytes("key", data, cursor, stop)
    value, cursor = _parse_bytes("value", data, cursor, stop)
    if cursor != stop:
        raise FormatError(
            "a message's fields do not fill its size",
            position=position,
            expected=f"its end at {stop}",
            found=cursor,
        )
    return _Message(offset, stop - position, crc, magic, attributes, timestamp, key, value)


def _parse_bytes(what: str, data: bytes, position: int, end: int) -> tuple[bytes | None, int]:
    if end - position < 4:
        raise TruncatedError(f"a message ends before its {what}", position=position)
    (length,) = _INT32.unpack_from(data, position)
    position += 4
    if length == -1:
        return None, position
    if not 0 <= length <= end - position:
        raise FormatError(
            f"a message's {what} has a wrong length",
            position=position - 4,
            expected=f"-1 to {end - position}",
            found=length,
        )
    return data[position : position + length], position + length
