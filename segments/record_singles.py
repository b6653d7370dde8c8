"""Records decoded one by one: whatever they look like, and with a word about what is wrong.

All time is spent in calls and in checks. So varints of one and two bytes (nearly all of them) are
decoded in line; that all four lengths of a record are plausible is seen from one comparison at its
end, and only when that fails is it found out which one was wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from logstore.segments import varint
from logstore.segments.errors import FormatError, TruncatedError

__all__ = ["decode_singles", "inconsistent_record", "records_end_early"]


def decode_singles(
    data: bytes,
    position: int,
    alone: int,
    done: int,
    count: int,
    base_offset: int,
    base_timestamp: int,
    names: dict[bytes, str],
) -> tuple[list[tuple[Any, ...]], int]:
    """The next ``alone`` of ``count`` records, of which ``done`` are decoded, as rows of the fields
    of Record, and the position behind them. Raises what ``decode_records`` raises."""
    rows: list[tuple[Any, ...]] = []
    append = rows.append
    long = varint.decode
    start = position
    try:
        for _ in range(alone):
            start = position
            # length, attributes
            b = data[position]
            if b < 0x80:
                size = b >> 1
                position += 2
            elif (c := data[position + 1]) < 0x80:
                size = (b & 0x7F | c << 7) >> 1
                position += 3
            else:
                size, position = long(data, position)
                position += 1
            odd = b  # the lowest bit of a zigzag varint is its sign
            end = position - 1 + size
            # timestampDelta
            b = data[position]
            if b < 0x80 and not b & 1:
                timestamp = base_timestamp + (b >> 1)
                position += 1
            elif not b & 1 and (c := data[position + 1]) < 0x80:
                timestamp = base_timestamp + ((b & 0x7F | c << 7) >> 1)
                position += 2
            else:
                size, position = long(data, position)
                timestamp = base_timestamp + size
            # offsetDelta
            b = data[position]
            if b < 0x80:
                size = b >> 1
                position += 1
            elif (c := data[position + 1]) < 0x80:
                size = (b & 0x7F | c << 7) >> 1
                position += 2
            else:
                size, position = long(data, position)
            odd |= b
            offset = base_offset + size
            # key
            key: bytes | None
            b = data[position]
            if b == 1:
                key = None
                position += 1
            else:
                if b < 0x80:
                    size = b >> 1
                    position += 1
                else:
                    size, position = long(data, position)
                odd |= b
                key = data[position : position + size]
                position += size
            # value
            value: bytes | None
            b = data[position]
            if b == 1:
                value = None
                position += 1
            else:
                if b < 0x80:
                    size = b >> 1
                    position += 1
                elif (c := data[position + 1]) < 0x80:
                    size = (b & 0x7F | c << 7) >> 1
                    position += 2
                else:
                    size, position = long(data, position)
                odd |= b
                value = data[position : position + size]
                position += size
            # headers
            headers: Sequence[tuple[str, bytes | None]]
            if data[position] == 0:
                headers = ()
                position += 1
            else:
                headers, position = _decode_headers(data, position, end, names)
            if position != end or odd & 1:
                raise inconsistent_record(start, end, position, odd)
            append((offset, timestamp, key, value, headers))
    except IndexError:
        raise records_end_early(start, count, done + len(rows)) from None
    return rows, position


def records_end_early(start: int, count: int, found: int) -> TruncatedError:
    """The error of bytes that end inside the record at ``start``, or in front of it."""
    return TruncatedError(
        "the records end too early", position=start, expected=f"{count} records", found=found
    )


def inconsistent_record(start: int, end: int, position: int, odd: int) -> FormatError:
    """The error of a record that does not fill its length, or (``odd``) has a negative one."""
    if odd & 1:
        return FormatError("a record's length or offset delta is negative", position=start)
    return FormatError(
        "a record's fields do not fill its length",
        position=start,
        expected=f"its end at {end}",
        found=position,
    )


def _wrong_length(what: str, start: int, room: int, found: int) -> FormatError:
    return FormatError(
        f"a record's {what} has a wrong length",
        position=start,
        expected=f"-1 to {room}",
        found=found,
    )


def _decode_headers(
    data: bytes, position: int, end: int, names: dict[bytes, str]
) -> tuple[tuple[tuple[str, bytes | None], ...], int]:
    """``names`` keeps decoded names, which a batch's records nearly always share."""
    start = position
    count = data[position]
    if count < 0x80 and not count & 1:
        count >>= 1
        position += 1
    else:
        count, position = varint.decode(data, position)
    if not 0 <= count <= (end - position) // 2:  # a header takes at least two bytes
        raise _wrong_length("headers", start, (end - position) // 2, count)
    headers: list[tuple[str, bytes | None]] = []
    for _ in range(count):
        length = data[position]
        if length < 0x80 and not length & 1:
            length >>= 1
            position += 1
        else:
            length, position = varint.decode(data, position)
        stop = position + length
        if not position <= stop <= end:
            raise _wrong_length("header name", start, end - position, length)
        encoded = data[position:stop]
        name = names.get(encoded)
        if name is None:
            # A name that is not UTF-8 breaks Kafka's rule, but must survive being read and copied.
            name = names[encoded] = encoded.decode("utf-8", "surrogateescape")
        length = data[stop]
        if length < 0x80 and not length & 1:
            length >>= 1
            position = stop + 1
        else:
            length, position = varint.decode(data, stop)
            if length == -1:
                headers.append((name, None))
                continue
        stop = position + length
        if not position <= stop <= end:
            raise _wrong_length("header value", start, end - position, length)
        headers.append((name, data[position:stop]))
        position = stop
    return tuple(headers), position
