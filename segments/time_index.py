"""Entries of a time index (``.timeindex``): from which offset on records may be that recent.

An entry takes 12 bytes, big-endian: ``int64`` the largest timestamp so far in the segment,
``uint32`` relative offset of the batch that brought it (source: Kafka's implementation;
``docs/format.md``). It says: whatever is more recent comes later. Entries ascend; a file that was
made in advance ends in zeros. Like the offset index it is sparse and disposable.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import NamedTuple

from logstore.segments.fields import Fields

__all__ = ["ENTRY_BYTES", "TimeEntry", "decode_entries", "encode_entry", "find", "valid_size"]

ENTRY_FIELDS = Fields(
    ("q", "timestamp"),  # the largest so far in the segment
    ("I", "relativeOffset"),  # the last one of the batch that brought it
)
_ENTRY = ENTRY_FIELDS.struct
ENTRY_BYTES = _ENTRY.size
"""Bytes of an entry: 12."""


class TimeEntry(NamedTuple):
    """A timestamp in milliseconds, and the (absolute) offset up to which none is larger."""

    timestamp: int
    offset: int


def encode_entry(base_offset: int, entry: TimeEntry) -> bytes:
    """The 12 bytes of an entry."""
    return _ENTRY.pack(entry.timestamp, entry.offset - base_offset)


def valid_size(data: bytes) -> int:
    """Bytes of whole entries, without the zeros of a file that was made in advance.

    Of zeros only the very first entry may consist (the epoch's first millisecond at the first
    offset); it is not worth telling apart, since nothing is found through it.
    """
    size = len(data.rstrip(b"\0"))
    whole = len(data) - len(data) % ENTRY_BYTES
    return min(-(-size // ENTRY_BYTES) * ENTRY_BYTES, whole)


def decode_entries(base_offset: int, data: bytes) -> list[TimeEntry]:
    """All entries of whole 12 bytes in ``data``."""
    whole = len(data) - len(data) % ENTRY_BYTES
    return [
        TimeEntry(timestamp, base_offset + relative)
        for timestamp, relative in _ENTRY.iter_unpack(data[:whole])
    ]


def find(
    base_offset: int, data: bytes, timestamp: int, *, probed: list[int] | None = None
) -> TimeEntry | None:
    """The last entry whose timestamp is below ``timestamp``: no record at or behind
    ``timestamp`` stands before that entry's offset. None where the whole segment is to be looked
    through.

    The numbers of the entries that were looked at are appended to ``probed``.
    """

    def timestamp_at(entry: int) -> int:
        if probed is not None:
            probed.append(entry)
        return int.from_bytes(data[entry * ENTRY_BYTES : entry * ENTRY_BYTES + 8], signed=True)

    index = bisect_right(range(len(data) // ENTRY_BYTES), timestamp - 1, key=timestamp_at)
    if index == 0:
        return None
    found, relative = _ENTRY.unpack_from(data, (index - 1) * ENTRY_BYTES)
    return TimeEntry(found, base_offset + relative)
