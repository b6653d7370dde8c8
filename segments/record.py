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

- Encoding spends its time in building small byte strings. So it looks them up (varints, and what
  stands between two values of the same size), adds those of a record to the others in one step,
  and lets one ``join`` copy everything once.
- Decoding spends its time in what is done for each record and not in what is done for each byte.
  So records that look like their neighbours are decoded column by column
  (``logstore.segments.record_runs``), two to three times as fast as one by one
  (``logstore.segments.record_singles``), which is left for all others.
- Columns were also made of records whose values differ in size, by collecting what stands around
  the values. That took nearly as long as it saved.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain, count, repeat
from typing import Any, NamedTuple, TypeVar, overload

from logstore.segments import varint
from logstore.segments.errors import FormatError, InvalidInputError
from logstore.segments.record_runs import SHORTEST_RUN, read_run
from logstore.segments.record_singles import decode_singles

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


RowT = TypeVar("RowT", bound=tuple[Any, ...])

_new_tuple: Callable[..., Any] = tuple.__new__
"""``Record._make`` without its Python frame: half a microsecond less for each record."""

_FIRST_PAUSE = 32
"""Records that are decoded one by one before a run is searched again; twice as many each time that
there was none, up to ``_LONGEST_PAUSE``."""
_LONGEST_PAUSE = 128

_SMALL = varint.SMALL
_SMALL_COUNT = len(_SMALL)
_encode = varint.encode
_MIN_RECORD_BYTES = 7
"""The smallest record: one byte for each of its seven numbers."""

_NULL = _encode(-1)
_NO_HEADERS = _encode(0)
_BEHIND_NULL_COUNT = 1 << 13
_BEHIND_NULL = [_NULL + length for length in _SMALL[:_BEHIND_NULL_COUNT]]
"""What stands ahead of a value behind a null key, by the size of the value."""
_ONLY = bytes(3)
"""Attributes and deltas of a batch's first record."""
_ONLY_WITHOUT_KEY = _ONLY + _NULL
_PLAIN_BYTES = len(_ONLY_WITHOUT_KEY + _NO_HEADERS)
"""What stands around the value of a record that has nothing else, and its length."""


def encode_records(
    records: Sequence[Record], default_timestamp: int = NO_TIMESTAMP
) -> tuple[bytes, int, int]:
    """The bytes of ``records`` (offset deltas counted from 0), their first and largest timestamp.

    A record without a timestamp gets ``default_timestamp``. Raises InvalidInputError, naming the
    record, for a key, value, header or timestamp that is not of its type or out of bounds.
    """
    if len(records) == 1:
        return encode_only(records, default_timestamp)
    parts: list[bytes] = []
    small, small_count, behind_null = _SMALL, _SMALL_COUNT, _BEHIND_NULL
    names: dict[str, bytes] = {}
    deltas = (
        small if len(records) <= small_count else chain(small, map(_encode, count(small_count)))
    )
    delta = small[0]
    base_timestamp = max_timestamp = NO_TIMESTAMP
    stamp_of: Any = object()  # what `stamp` was made for; nothing equals an object()
    stamp = length = between = b""
    size_of = delta_size = -1  # what `length` and `between` were made for
    # The same for records with the key and the headers of the one before, the very same objects:
    # whoever makes a batch of records that differ in nothing but their values shares them.
    key_of: Any = stamp_of
    headers_of: Any = stamp_of
    like_size_of = like_delta_size = -1
    like_length = like_between = ahead_of_key = tail = b""
    try:
        for delta, (_, timestamp, key, value, headers) in zip(deltas, records, strict=False):
            if timestamp != stamp_of:
                stamp_of, size_of, like_size_of = timestamp, -1, -1
                if timestamp < 0:
                    timestamp = _without_timestamp(timestamp, default_timestamp)
                if timestamp > max_timestamp:
                    max_timestamp = timestamp
                if not parts:
                    base_timestamp = timestamp
                ahead = timestamp - base_timestamp
                stamp = b"\0" + (small[ahead] if 0 <= ahead < small_count else _encode(ahead))
                fixed_size = len(stamp) + 1  # with the count of headers, 0
            if key is None and value is not None and not headers:
                size = len(value)
                if size != size_of or len(delta) != delta_size:
                    size_of, delta_size = size, len(delta)
                    between = (
                        behind_null[size] if size < _BEHIND_NULL_COUNT else _NULL + _encode(size)
                    )
                    size += fixed_size + delta_size + len(between)
                    length = small[size] if size < small_count else _encode(size)
                parts += (length, stamp, delta, between, value, _NO_HEADERS)
                continue
            if key is key_of and headers is headers_of and value is not None:
                size = len(value)
                if size != like_size_of or len(delta) != like_delta_size:
                    like_size_of, like_delta_size = size, len(delta)
                    between_key = small[size] if size < small_count else _encode(size)
                    like_between = ahead_of_key + (key or b"") + between_key
                    size += fixed_size + like_delta_size + len(like_between) + len(tail) - 1
                    like_length = small[size] if size < small_count else _encode(size)
                parts += (like_length, stamp, delta, like_between, value, tail)
                continue
            key_of, headers_of, like_size_of = key, headers, -1
            size = fixed_size + len(delta)
            if key is None:
                ahead_of_key, key = _NULL, b""
            else:
                key_size = len(key)
                ahead_of_key = small[key_size] if key_size < small_count else _encode(key_size)
                size += key_size
            if value is None:
                ahead_of_value, value = _NULL, b""
            else:
                value_size = len(value)
                ahead_of_value = (
                    small[value_size] if value_size < small_count else _encode(value_size)
                )
                size += value_size
            size += len(ahead_of_key) + len(ahead_of_value)
            if headers:
                tail = _encode_headers(headers, names)
                size += len(tail) - 1
            else:
                tail = _NO_HEADERS
            start = small[size] if size < small_count else _encode(size)
            parts += (start, stamp, delta, ahead_of_key, key, ahead_of_value, value, tail)
        if max_timestamp > _MAX_TIMESTAMP:
            raise ValueError(f"timestamp {max_timestamp} is beyond {_MAX_TIMESTAMP}")
        if max_timestamp - base_timestamp > _MAX_TIMESTAMP:  # a delta has 64 bits, with its sign
            raise ValueError(f"timestamp {max_timestamp} is too far behind {base_timestamp}")
        return b"".join(parts), base_timestamp, max_timestamp
    except (TypeError, ValueError, AttributeError) as error:
        index, _ = varint.decode(delta, 0)
        raise _unstorable(records, index, error) from error


def encode_only(records: Sequence[Record], default_timestamp: int) -> tuple[bytes, int, int]:
    """``encode_records`` for a batch of one record, which has no deltas; half of the time that
    it would take in the loop, and a twentieth of what appending it takes."""
    try:
        _, timestamp, key, value, headers = records[0]
        if timestamp == NO_TIMESTAMP:
            timestamp = default_timestamp
        elif timestamp < 0:
            timestamp = _without_timestamp(timestamp, default_timestamp)
        if not isinstance(timestamp, int):
            raise TypeError(f"timestamp {timestamp} is no whole number")
        if timestamp > _MAX_TIMESTAMP:
            raise ValueError(f"timestamp {timestamp} is beyond {_MAX_TIMESTAMP}")
        if key is None and value is not None and not headers:
            size = len(value)
            ahead = _SMALL[size] if size < _SMALL_COUNT else _encode(size)
            size += _PLAIN_BYTES + len(ahead)
            length = _SMALL[size] if size < _SMALL_COUNT else _encode(size)
            parts = (length, _ONLY_WITHOUT_KEY, ahead, value, _NO_HEADERS)
            return b"".join(parts), timestamp, timestamp
        if key is None:
            before_key, key = _NULL, b""
        else:
            size = len(key)
            before_key = _SMALL[size] if size < _SMALL_COUNT else _encode(size)
        if value is None:
            before_value, value = _NULL, b""
        else:
            size = len(value)
            before_value = _SMALL[size] if size < _SMALL_COUNT else _encode(size)
        after = _encode_headers(headers, {}) if headers else _NO_HEADERS
        body = b"".join((_ONLY, before_key, key, before_value, value, after))
        size = len(body)
        length = _SMALL[size] if size < _SMALL_COUNT else _encode(size)
        return length + body, timestamp, timestamp
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
        record: Any = records[index_of_bad]
        if not isinstance(record, tuple):
            kind = type(record).__name__
            return InvalidInputError(f"record {index_of_bad} is {kind}, not a Record")
        try:
            _, _, key, value, headers = record
            fields: list[tuple[str, Any]] = [("key", key), ("value", value)]
            for name, field in headers or ():
                if not isinstance(name, str):
                    raise TypeError(f"the header name {name!r} is {type(name).__name__}, not str")
                fields.append((f"header {name!r}", field))
        except (TypeError, ValueError) as shape:  # no record, or headers that are no pairs
            return InvalidInputError(f"record {index_of_bad} cannot be stored: {shape}")
        for what, field in fields:
            if field is not None and not isinstance(field, (bytes, bytearray)):
                owner = f"the value of {what}" if what.startswith("header") else f"its {what}"
                return InvalidInputError(
                    f"record {index_of_bad} cannot be stored: {owner} is "
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


@overload
def decode_records(
    data: bytes,
    count: int,
    *,
    base_offset: int = ...,
    base_timestamp: int = ...,
    append_timestamp: int | None = ...,
) -> list[Record]: ...


@overload
def decode_records(
    data: bytes,
    count: int,
    *,
    base_offset: int = ...,
    base_timestamp: int = ...,
    append_timestamp: int | None = ...,
    row_type: type[RowT],
    ahead: tuple[Any, ...] = ...,
) -> list[RowT]: ...


def decode_records(
    data: bytes,
    count: int,
    *,
    base_offset: int = 0,
    base_timestamp: int = 0,
    append_timestamp: int | None = None,
    row_type: type[Any] = Record,
    ahead: tuple[Any, ...] = (),
) -> list[Any]:
    """The ``count`` records whose bytes fill ``data``.

    ``append_timestamp`` replaces every record's own timestamp (batches of LogAppendTime). Raises
    FormatError, with the position in ``data``, unless exactly ``count`` records end exactly at the
    end: a count from disk is never trusted, and no length allocates more than ``data`` holds.

    Whoever wants other rows than records has them made at once: ``row_type`` is ``tuple`` or a
    NamedTuple, with the fields of ``ahead`` (a topic and a partition, say), which are the same in
    every row, and behind them those of ``Record``.
    """
    size_of_data = len(data)
    if not 0 <= count <= size_of_data // _MIN_RECORD_BYTES:
        raise FormatError(
            "the count of records is wrong",
            expected=f"0 to {size_of_data // _MIN_RECORD_BYTES} in {size_of_data} bytes",
            found=count,
        )
    made: list[Any] = []
    names: dict[bytes, str] = {}
    position = 0
    pause = _FIRST_PAUSE
    left = count
    while left:
        alone = left
        if left >= SHORTEST_RUN:
            run = read_run(data, position, left, base_offset, base_timestamp)
            if run is not None:
                taken, position, (offsets, timestamps, keys, values, headers) = run
                if append_timestamp is not None:
                    timestamps = repeat(append_timestamp)
                columns = (*map(repeat, ahead), offsets, timestamps, keys, values, headers)
                made += map(_new_tuple, repeat(row_type), zip(*columns, strict=False))
                left -= taken
                if taken >= SHORTEST_RUN:
                    pause = _FIRST_PAUSE
                    continue
            # Where there are no runs, the search for them must cost next to nothing.
            alone = pause if left > 2 * pause else left
            pause = min(2 * pause, _LONGEST_PAUSE)
        rows, position = decode_singles(
            data, position, alone, count - left, count, base_offset, base_timestamp, names
        )
        if append_timestamp is not None:
            rows = [(row[0], append_timestamp, *row[2:]) for row in rows]
        if ahead:
            rows = [ahead + row for row in rows]
        made += rows if row_type is tuple else map(_new_tuple, repeat(row_type), rows)
        left -= alone
    if position != size_of_data:
        raise FormatError(
            "the records do not fill the batch",
            position=position,
            expected=f"{count} records to end at {size_of_data}",
            found=position,
        )
    return made
