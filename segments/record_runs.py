"""Runs of records of one size and shape, decoded column by column.

Programs that log mostly write records that look alike: their keys and values have one size, their
headers the same names. Such records are the rows of a table, in which everything stands at known
places, and a column is read, and checked, for hundreds of records by one slice with a step.

A run ends before the first record that differs. Nothing is refused here: what is no run is left
to the loop in ``logstore.segments.record``, which decodes everything and names what is wrong.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import repeat
from struct import Struct
from typing import Any, NamedTuple

__all__ = ["SHORTEST_RUN", "Columns", "Run", "read_run"]

Columns = tuple[
    Iterable[int],
    Iterable[int],
    Iterable[bytes | None],
    Iterable[bytes | None],
    Iterable[Sequence[tuple[str, bytes | None]]],
]
"""Offsets, timestamps, keys, values and headers, to be zipped: only the offsets are sure to end."""

Run = tuple[int, int, Columns]
"""How many records, the position behind the last of them, and their columns."""

SHORTEST_RUN = 24
"""Fewer records of one size are decoded faster one by one."""

_LONGEST_RUN = 1024
_MOST_HEADERS = 16

# Tables for ``bytes.translate``. The lowest bit of a zigzag varint's first byte is its sign; the
# highest of each byte says that more follow. 0 is a byte that may stand there, 1 one that may not.
_NOT_ONLY = bytes(byte >= 0x80 or byte & 1 for byte in range(256))
"""The only byte of a number that is not negative."""
_NOT_FIRST = bytes(byte < 0x80 or byte & 1 for byte in range(256))
"""The first of two bytes of one."""
_NOT_SECOND = bytes(byte >= 0x80 for byte in range(256))
"""The second of two."""
_LOW = bytes((byte & 0x7F) >> 1 for byte in range(256))
"""What the first byte adds to a number; the second adds itself, times 64."""

# The bytes of 0, 1, 2 ..., as consecutive offset deltas have them.
_ONLY_BYTES = bytes(range(0, 0x80, 2))
_FIRST_BYTES = bytes(0x80 | number << 1 & 0x7F for number in range(1 << 13))
_SECOND_BYTES = bytes(number >> 6 for number in range(1 << 13))


class _Shape(NamedTuple):
    """Where things stand in a record: positions from its beginning, sizes in bytes, -1 for null."""

    stamp_at: int
    offset_at: int
    key_length_at: int
    key_at: int
    key_size: int
    value_length_at: int
    value_at: int
    value_size: int
    headers: tuple[tuple[str, int, bytes], ...]
    """Of each: its name, the size of its value, and all bytes between that and what is ahead."""


def read_run(
    data: bytes, position: int, most: int, base_offset: int, base_timestamp: int
) -> Run | None:
    """The run of up to ``most`` records that begins at ``position``; None where there is none."""
    if position + 2 > len(data):
        return None
    # That there is no run is nearly always seen here, by the length of the record behind.
    low = data[position]
    high = data[position + 1]
    if low < 0x80:
        size, length_size = (low >> 1) + 1, 1
        if data[position + size : position + size + 1] != data[position : position + 1]:
            return None
    else:
        size, length_size = _LOW[low] + (high << 6) + 2, 2
        if data[position + size : position + size + 2] != data[position : position + 2]:
            return None
    count = min(most, _LONGEST_RUN, (len(data) - position) // size)
    for at in range(length_size):
        count = _constant(data, position + at, size, count)
    if count < SHORTEST_RUN:
        return None
    try:
        shape = _measure(data, position, position + size)
    except (IndexError, ValueError):
        return None
    return _read_columns(data, position, size, count, shape, base_offset, base_timestamp)


def _read_columns(
    data: bytes,
    position: int,
    size: int,
    count: int,
    shape: _Shape,
    base_offset: int,
    base_timestamp: int,
) -> Run | None:
    """The run among ``count`` records of ``size`` bytes, of which the first has ``shape``."""
    stamp_at, offset_at, key_length_at, key_at, key_size, value_length_at, value_at, *_ = shape
    for at in (*range(key_length_at, key_at), *range(value_length_at, value_at)):
        count = _constant(data, position + at, size, count)
    if not shape.headers:
        count = _constant(data, position + size - 1, size, count)
    stamps, count = _numbers(data, position + stamp_at, offset_at - stamp_at, size, count)
    deltas, count = _numbers(data, position + offset_at, key_length_at - offset_at, size, count)

    fields: list[tuple[bytes, ...]] = []
    has_key, has_value = key_size >= 0, shape.value_size >= 0
    if has_key or has_value or shape.headers:
        cut = _cutter(
            key_at,
            key_size,
            value_at - value_length_at,
            shape.value_size,
            tuple((len(between), size) for _, size, between in shape.headers),
        )
        rows = memoryview(data)[position : position + count * size]
        fields = list(zip(*cut.iter_unpack(rows), strict=True))
        fields.reverse()
    keys: Iterable[bytes | None] = fields.pop() if has_key else repeat(None)
    values: Iterable[bytes | None] = fields.pop() if has_value else repeat(None)
    headers: Iterable[Sequence[tuple[str, bytes | None]]] = repeat(())
    if shape.headers:
        pairs = []
        for name, value_size, between in shape.headers:
            count = _agreeing(fields.pop()[:count], (between,) * count)
            pairs.append(zip(repeat(name), fields.pop() if value_size >= 0 else repeat(None)))
        headers = zip(*pairs, strict=False)
    offsets = _based(deltas, count, base_offset)
    timestamps = _based(stamps, count, base_timestamp)
    return count, position + count * size, (offsets, timestamps, keys, values, headers)


@lru_cache(maxsize=512)
def _cutter(
    key_at: int,
    key_size: int,
    value_length_size: int,
    value_size: int,
    headers: tuple[tuple[int, int], ...],
) -> Struct:
    """Cuts a row into its key, its value, and what stands between and in the values of headers."""
    fields = [f"{key_at}x"]
    if key_size >= 0:
        fields.append(f"{key_size}s")
    fields.append(f"{value_length_size}x")
    if value_size >= 0:
        fields.append(f"{value_size}s")
    for size_between, size in headers:
        fields.append(f"{size_between}s")
        if size >= 0:
            fields.append(f"{size}s")
    if not headers:
        fields.append("x")  # their count, 0
    return Struct("".join(fields))


def _constant(data: bytes, at: int, size: int, count: int) -> int:
    """How many of ``count`` rows of ``size`` bytes have the same byte as that at ``at``."""
    return _agreeing(data[at : at + (count - 1) * size + 1 : size], data[at : at + 1] * count)


def _numbers(
    data: bytes, at: int, number_size: int, size: int, count: int
) -> tuple[tuple[bytes, bytes], int]:
    """The first and the second bytes of the numbers at ``at`` and in the rows behind, and how many
    rows hold one that is not negative and takes ``number_size`` bytes, 1 or 2."""
    stop = at + (count - 1) * size + 2
    low = data[at : stop - 1 : size]
    if number_size == 1:
        return (low, bytes(count)), _agreeing(low.translate(_NOT_ONLY), bytes(count))
    high = data[at + 1 : stop : size]
    count = _agreeing(low.translate(_NOT_FIRST), bytes(count))
    return (low, high), _agreeing(high.translate(_NOT_SECOND)[:count], bytes(count))


def _based(columns: tuple[bytes, bytes], count: int, base: int) -> Iterable[int]:
    """``base`` and each of the ``count`` numbers whose first and second bytes these are."""
    low, high = columns[0][:count], columns[1][:count]
    first = _LOW[low[0]] + (high[0] << 6)
    stop = first + count
    if low == low[:1] * count and high == high[:1] * count:
        return repeat(base + first, count)
    if low == _ONLY_BYTES[first:stop]:
        return range(base + first, base + stop)
    if low == _FIRST_BYTES[first:stop] and high == _SECOND_BYTES[first:stop]:
        return range(base + first, base + stop)
    return [base + one + (other << 6) for one, other in zip(low.translate(_LOW), high, strict=True)]


def _agreeing(found: Sequence[Any], expected: Sequence[Any]) -> int:
    """How many items are as ``expected``, which has as many, before the first that is not."""
    if found == expected:
        return len(found)
    both = enumerate(zip(found, expected, strict=True))
    return next(index for index, (one, other) in both if one != other)


def _measure(data: bytes, position: int, end: int) -> _Shape:
    """The shape of the record from ``position`` to ``end``; raises ValueError or IndexError if it
    has none, for it is damaged, or a number takes more than two bytes or is negative."""
    _, at = _number(data, position)
    stamp_at = at + 1  # behind the attributes
    _, offset_at = _number(data, stamp_at)
    _, key_length_at = _number(data, offset_at)
    key_size, key_at = _nullable(data, key_length_at)
    value_length_at = key_at + max(0, key_size)
    value_size, value_at = _nullable(data, value_length_at)
    at = value_at + max(0, value_size)
    header_count, behind = _number(data, at)
    if header_count > _MOST_HEADERS or (header_count == 0 and behind != at + 1):
        raise ValueError
    headers = []
    for _ in range(header_count):
        name_size, name_at = _number(data, behind)
        name = data[name_at : name_at + name_size]
        size, behind = _nullable(data, name_at + name_size)
        headers.append((name.decode("utf-8", "surrogateescape"), size, data[at:behind]))
        at = behind = behind + max(0, size)
    if behind != end:
        raise ValueError
    return _Shape(
        stamp_at - position,
        offset_at - position,
        key_length_at - position,
        key_at - position,
        key_size,
        value_length_at - position,
        value_at - position,
        value_size,
        tuple(headers),
    )


def _number(data: bytes, at: int) -> tuple[int, int]:
    """The number of one or two bytes at ``at``, which is not negative, and the position after."""
    low = data[at]
    if low & 1:
        raise ValueError
    if low < 0x80:
        return low >> 1, at + 1
    high = data[at + 1]
    if high >= 0x80:
        raise ValueError
    return (low & 0x7F | high << 7) >> 1, at + 2


def _nullable(data: bytes, at: int) -> tuple[int, int]:
    """A length that may be -1, which is null, and the position after it."""
    return (-1, at + 1) if data[at] == 1 else _number(data, at)
