"""Where the records of a batch lie, for whoever wants their keys or their bytes, not their values.

Compaction asks for the key of every record and then copies the bytes of those that stay. It needs
neither values nor headers, and half of the time that decoding takes.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

from logstore.segments import varint
from logstore.segments.errors import FormatError, TruncatedError
from logstore.segments.record_singles import inconsistent_record

__all__ = ["RecordPlace", "locate_records"]


class RecordPlace(NamedTuple):
    """Where a record lies among the bytes of a batch, and as much of it as compaction asks for."""

    start: int
    end: int
    behind_timestamp: int
    """The position of its offset delta, which follows the timestamp delta."""
    offset_delta: int
    timestamp_delta: int
    key: bytes | None
    is_tombstone: bool
    """Whether its value is null."""


_new_place = partial(tuple.__new__, RecordPlace)


def locate_records(data: bytes, count: int) -> list[RecordPlace]:
    """The places of the ``count`` records whose bytes fill ``data``; values and headers stay
    closed. Raises FormatError unless the records fill ``data``."""
    rows: list[tuple[int, int, int, int, int, bytes | None, bool]] = []
    append = rows.append
    long = varint.decode
    end = start = 0
    try:
        for _ in range(count):
            start = position = end
            b = data[position]
            if b < 0x80 and not b & 1:
                size = b >> 1
                position += 1
            else:
                size, position = long(data, position)
            end = position + size
            position += 1  # attributes
            b = data[position]
            if b < 0x80 and not b & 1:
                timestamp = b >> 1
                position += 1
            else:
                timestamp, position = long(data, position)
            behind_timestamp = position
            b = data[position]
            if b < 0x80 and not b & 1:
                offset = b >> 1
                position += 1
            else:
                offset, position = long(data, position)
            b = data[position]
            key: bytes | None
            if b == 1:
                key = None
                position += 1
            else:
                if b < 0x80:
                    size = b >> 1
                    position += 1
                else:
                    size, position = long(data, position)
                if b & 1 or size < 0:
                    raise FormatError("a record's key has a negative length", position=start)
                key = data[position : position + size]
                position += size
            if position >= end or offset < 0:
                raise inconsistent_record(start, end, position, offset < 0)
            append((start, end, behind_timestamp, offset, timestamp, key, data[position] == 1))
    except IndexError:
        raise TruncatedError(
            "the records end too early",
            position=start,
            expected=f"{count} records",
            found=len(rows),
        ) from None
    if end != len(data):
        raise FormatError(
            "the records do not fill the batch",
            position=start,
            expected=f"{count} records to end at {len(data)}",
            found=end,
        )
    return list(map(_new_place, rows))
