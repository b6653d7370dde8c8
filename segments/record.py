"""Records of format v2: what stands inside a batch, behind its header.

One record (source: Kafka documentation, "Record", and ``docs/format.md``)::

    length          varint   bytes of the record behind this field
    attributes      int8     unused, 0
    timestampDelta  varlong  timestamp - the batch's base timestamp
    offsetDelta     varint   offset - the batch's base offset
    keyLength       varint   -1 is a null key
    key             bytes
    valueLength     varint   -1 is a null value
    value           bytes
    headersCount    varint
      headerKeyLength varint, headerKey UTF-8, headerValueLength varint (-1 is null), headerValue

These functions are the hot path of everything above them. What profiling taught:

- Encoding spends its time in building small byte strings. So it looks them up (varints, and the
  bytes between two values of the same size) and lets one ``join`` copy everything once.
- Decoding spends its time in calls and in checks. So varints of one and two bytes (nearly all
  of them) are decoded in line; that all four lengths of a record are plausible is seen from one
  comparison at its end, and only when that fails is it found out which one was wrong.
- Guessing a record's prefix from its neighbour's (a dictionary of prefixes) is a third faster
  where all records have one size, and three times slower on real logs, where they have not.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

from logstore.segments import varint
from logstore.segments.errors import FormatError, InvalidInputError, TruncatedError

__all__ = [
    "Header",
    "Record",
    "decode_records",
    "encode_records",
]

Header = tuple[str, bytes | None]
"""A header: its name, and its value, which may be null."""

NO_TIMESTAMP = -1
"""The timestamp of a record that has none."""

_MAX_TIMESTAMP = (1 << 63) - 1


class Record(NamedTuple):
    """A record: what is appended to a log, and what is read from it.

    On the way in only the last four count; the log assigns the offset, and a timestamp of
    ``NO_TIMESTAMP`` becomes the time of the append.
    """

    offset: int = -1
    """Its place in the partition; -1 until the log has assigned one."""
    timestamp: int = NO_TIMESTAMP
    """Milliseconds since 1970-01-01 UTC."""
    key: bytes | None = None
    value: bytes | None = None
    headers: Sequence[Header] = ()
    """Names and values, in order; a name may occur more than once."""


_new_record = partial(tuple.__new__, Record)
"""``Record._make`` without its Python frame: half a microsecond less for each record."""

_SMALL = varint.SMALL
_SMALL_COUNT = len(_SMALL)
_encode = varint.encode
_MIN_RECORD_BYTES = 7
"""The smallest record: one byte for each of its seven numbers."""

_NULL = _encode(-1)
_NO_HEADERS = _encode(0)
_ONLY = bytes(3)
"""Attributes and deltas of a batch's first record."""


def encode_records(
    records: Sequence[Record], default_timestamp: int = NO_TIMESTAMP
) -> tuple[bytes, int, int]:
    """The bytes of ``records`` (offset deltas counted from 0), their first and largest timestamp.

    A record without a timestamp gets ``default_timestamp``. Raises InvalidInputError, naming the
    record, for a key, value, header or timestamp that is not of its type or out of bounds.
    """
    if len(records) == 1:
        return _encode_only(records, default_timestamp)
    parts: list[bytes] = []
    append = parts.append
    small = _SMALL
    names: dict[str, bytes] = {}
    index = 0
    base_timestamp = max_timestamp = NO_TIMESTAMP
    size_of = delta_size = None  # what `between` and `prefix` were made for
    stamp_of: Any = ()  # what `stamp` was made for; no timestamp equals (), not even a None
    stamp = between = prefix = b""
    try:
        for index, (_, timestamp, key, value, headers) in enumerate(records):
            delta = small[index] if index < _SMALL_COUNT else _encode(index)
            if timestamp != stamp_of:
                stamp_of, size_of = timestamp, None
                if timestamp < 0:
                    timestamp = _without_timestamp(timestamp, default_timestamp)
                if timestamp > max_timestamp:
                    max_timestamp = timestamp
                if index == 0:
                    base_timestamp = timestamp
                ahead = timestamp - base_timestamp
                stamp = b"\0" + (small[ahead] if 0 <= ahead < _SMALL_COUNT else _encode(ahead))
            if key is None and value is not None and not headers:
                if (size := len(value)) != size_of or len(delta) != delta_size:
                    size_of, delta_size = size, len(delta)
                    between = _NULL + (small[size] if size < _SMALL_COUNT else _encode(size))
                    size += len(stamp) + delta_size + len(between) + 1
                    prefix = (small[size] if size < _SMALL_COUNT else _encode(size)) + stamp
                append(prefix)
                append(delta)
                append(between)
                append(value)
                append(_NO_HEADERS)
                continue
            if key is None:
                ahead_of_key, key = _NULL, b""
            else:
                ahead_of_key = small[len(key)] if len(key) < _SMALL_COUNT else _encode(len(key))
            if value is None:
                ahead_of_value, value = _NULL, b""
            else:
                size = len(value)
                ahead_of_value = small[size] if size < _SMALL_COUNT else _encode(size)
            tail = _encode_headers(headers, names) if headers else _NO_HEADERS
            size = len(stamp) + len(delta) + len(ahead_of_key) + len(key)
            size += len(ahead_of_value) + len(value) + len(tail)
            append(small[size] if size < _SMALL_COUNT else _encode(size))
            append(stamp)
            append(delta)
            append(ahead_of_key)
            append(key)
            append(ahead_of_value)
            append(value)
            append(tail)
        if max_timestamp > _MAX_TIMESTAMP:
            raise ValueError(f"timestamp {max_timestamp} is beyond {_MAX_TIMESTAMP}")
        if max_timestamp - base_timestamp > _MAX_TIMESTAMP:  # a delta has 64 bits, with its sign
            raise ValueError(f"timestamp {max_timestamp} is too far behind {base_timestamp}")
        return b"".join(parts), base_timestamp, max_timestamp
    except (TypeError, ValueError, AttributeError) as error:
        raise _unstorable(records, index, error) from error


def _encode_only(records: Sequence[Record], default_timestamp: int) -> tuple[bytes, int, int]:
    """``encode_records`` for a batch of one record, which has no deltas; half of the time that
    it would take in the loop, and a sixth of what appending it takes."""
    try:
        _, timestamp, key, value, headers = records[0]
        if timestamp < 0:
            timestamp = _without_timestamp(timestamp, default_timestamp)
        if not isinstance(timestamp, int):
            raise TypeError(f"timestamp {timestamp} is no whole number")
        if timestamp > _MAX_TIMESTAMP:
            raise ValueError(f"timestamp {timestamp} is beyond {_MAX_TIMESTAMP}")
        body = b"".join(
            (
                _ONLY,
                _NULL if key is None else _length(key),
                b"" if key is None else key,
                _NULL if value is None else _length(value),
                b"" if value is None else value,
                _encode_headers(headers, {}) if headers else _NO_HEADERS,
            )
        )
        return _length(body) + body, timestamp, timestamp
    except (TypeError, ValueError, AttributeError) as error:
        raise _unstorable(records, 0, error) from error


def _length(field: bytes) -> bytes:
    size = len(field)
    return _SMALL[size] if size < _SMALL_COUNT else _encode(size)


def _without_timestamp(timestamp: int, default_timestamp: int) -> int:
    if timestamp != NO_TIMESTAMP:
        raise ValueError(f"timestamp {timestamp} is below -1, which is none")
    return default_timestamp


def _unstorable(records: Sequence[Record], index: int, error: Exception) -> InvalidInputError:
    """Which record is to blame: an error in ``join`` comes only after the last one."""
    for index_of_bad in range(index + 1):
        try:
            _, _, key, value, headers = records[index_of_bad]
            fields: list[tuple[Any, Any]] = [("key", key), ("value", value)]
            fields += [(name, field) for name, field in headers or ()]
        except (TypeError, ValueError) as shape:  # no record, or headers that are no pairs
            return InvalidInputError(f"record {index_of_bad} cannot be stored: {shape}")
        for name, field in fields:
            if field is not None and not isinstance(field, (bytes, bytearray)):
                return InvalidInputError(
                    f"record {index_of_bad} cannot be stored: its {name} is "
                    f"{type(field).__name__}, not bytes"
                )
    return InvalidInputError(f"record {index} cannot be stored: {error}")


def _encode_headers(headers: Sequence[Header], names: dict[str, bytes]) -> bytes:
    """``names`` keeps encoded names, which a batch's records nearly always share."""
    parts = [_SMALL[len(headers)] if len(headers) < _SMALL_COUNT else _encode(len(headers))]
    for name, value in headers:
        ahead = names.get(name)
        if ahead is None:
            encoded = name.encode("utf-8", "surrogateescape")
            ahead = names[name] = _length(encoded) + encoded
        if value is None:
            parts += (ahead, _NULL)
        else:
            size = len(value)
            parts += (ahead, _SMALL[size] if size < _SMALL_COUNT else _encode(size), value)
    return b"".join(parts)


def decode_records(
    data: bytes,
    count: int,
    *,
    base_offset: int = 0,
    base_timestamp: int = 0,
    append_timestamp: int | None = None,
) -> list[Record]:
    """The ``count`` records whose bytes fill ``data``.

    ``append_timestamp`` replaces every record's own timestamp (batches of LogAppendTime). Raises
    FormatError, with the position in ``data``, unless exactly ``count`` records end exactly at the
    end: a count from disk is never trusted, and no length allocates more than ``data`` holds.
    """
    size_of_data = len(data)
    if not 0 <= count <= size_of_data // _MIN_RECORD_BYTES:
        raise FormatError(
            "the count of records is wrong",
            expected=f"0 to {size_of_data // _MIN_RECORD_BYTES} in {size_of_data} bytes",
            found=count,
        )
    rows: list[tuple[int, int, bytes | None, bytes | None, Sequence[Header]]] = []
    append = rows.append
    names: dict[bytes, str] = {}
    long = varint.decode
    position = start = 0
    try:
        for _ in range(count):
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
            headers: Sequence[Header]
            if data[position] == 0:
                headers = ()
                position += 1
            else:
                headers, position = _decode_headers(data, position, end, names)
            if position != end or odd & 1:
                raise inconsistent_record(start, end, position, odd)
            append((offset, timestamp, key, value, headers))
    except IndexError:
        raise TruncatedError(
            "the records end too early",
            position=start,
            expected=f"{count} records",
            found=len(rows),
        ) from None
    if position != size_of_data:
        raise FormatError(
            "the records do not fill the batch",
            position=position,
            expected=f"{count} records to end at {size_of_data}",
            found=position,
        )
    if append_timestamp is not None:
        rows = [(row[0], append_timestamp, *row[2:]) for row in rows]
    return list(map(_new_record, rows))


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
) -> tuple[tuple[Header, ...], int]:
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
    headers: list[Header] = []
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
