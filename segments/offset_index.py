"""Entries of an offset index (``.index``): where in the log an offset is to be found.

An entry takes 8 bytes, big-endian: ``uint32`` offset relative to the segment's base offset,
``uint32`` position of a batch in the log (source: Kafka's implementation; ``docs/format.md``). The
offset is the *last* one of the batch. Entries ascend; a file that was made in advance ends in
zeros. An index is sparse and disposable: the log alone says what is true.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import NamedTuple

from logstore.segments.fields import Fields

__all__ = ["ENTRY_BYTES", "OffsetEntry", "decode_entries", "encode_entry", "find", "valid_size"]

ENTRY_FIELDS = Fields(
    ("I", "relativeOffset"),  # the last one of a batch, counted from the segment's base offset
    ("I", "position"),  # where that batch begins in the log
)
_ENTRY = ENTRY_FIELDS.struct
ENTRY_BYTES = _ENTRY.size
"""Bytes of an entry: 8."""

MAX_RELATIVE = (1 << 31) - 1
"""The largest offset, relative to the segment's base, that Kafka's own code can read back."""


class OffsetEntry(NamedTuple):
    """An offset (absolute), and the position of the batch that ends with it."""

    offset: int
    position: int


def encode_entry(base_offset: int, entry: OffsetEntry) -> bytes:
    """The 8 bytes of an entry."""
    return _ENTRY.pack(entry.offset - base_offset, entry.position)


def valid_size(data: bytes) -> int:
    """Bytes of whole entries, without the zeros of a file that was made in advance.

    No entry is all zeros: the first batch of a segment is never entered.
    """
    size = len(data.rstrip(b"\0"))
    whole = len(data) - len(data) % ENTRY_BYTES
    return min(-(-size // ENTRY_BYTES) * ENTRY_BYTES, whole)


def decode_entries(base_offset: int, data: bytes) -> list[OffsetEntry]:
    """All entries of whole 8 bytes in ``data``."""
    whole = len(data) - len(data) % ENTRY_BYTES
    return [
        OffsetEntry(base_offset + relative, position)
        for relative, position in _ENTRY.iter_unpack(data[:whole])
    ]


def find(
    base_offset: int, data: bytes, offset: int, *, probed: list[int] | None = None
) -> OffsetEntry | None:
    """The last entry whose offset is not above ``offset``, in time logarithmic in the entries.

    The numbers of the entries that were looked at are appended to ``probed``.
    """
    relative = offset - base_offset

    def relative_at(entry: int) -> int:
        if probed is not None:
            probed.append(entry)
        return int.from_bytes(data[entry * ENTRY_BYTES : entry * ENTRY_BYTES + 4])

    index = bisect_right(range(len(data) // ENTRY_BYTES), relative, key=relative_at)
    if index == 0:
        return None
    found, position = _ENTRY.unpack_from(data, (index - 1) * ENTRY_BYTES)
    return OffsetEntry(base_offset + found, position)
