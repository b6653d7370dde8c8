"""Entries of a transaction index (``.txnindex``): which transactions of a segment were aborted.

An entry takes 34 bytes, big-endian (source: Kafka's implementation, KIP-98; ``docs/format.md``).
The file is made when a segment's first transaction is aborted, is never made in advance, and
holds one entry for each abort marker, in the order of the markers. A reader that wants committed
records only skips what the named producer wrote between the two offsets.
"""

from __future__ import annotations

from typing import NamedTuple

from logstore.segments.errors import TruncatedError, UnsupportedFormatError
from logstore.segments.fields import Fields

__all__ = ["ENTRY_BYTES", "AbortedTransaction", "decode_entries", "encode_entry"]

ENTRY_FIELDS = Fields(
    ("h", "version"),  # 0
    ("q", "producerId"),
    ("q", "firstOffset"),  # of the transaction's first record
    ("q", "lastOffset"),  # of the marker that aborted it
    ("q", "lastStableOffset"),  # up to where readers of committed records could see, after it
)
_ENTRY = ENTRY_FIELDS.struct
ENTRY_BYTES = _ENTRY.size
"""Bytes of an entry: 34."""

_VERSION = 0


class AbortedTransaction(NamedTuple):
    """A transaction that was aborted; all offsets are absolute."""

    producer_id: int
    first_offset: int
    last_offset: int
    last_stable_offset: int


def encode_entry(entry: AbortedTransaction) -> bytes:
    """The 34 bytes of an entry."""
    return _ENTRY.pack(_VERSION, *entry)


def decode_entries(data: bytes) -> list[AbortedTransaction]:
    """All entries in ``data``.

    Raises TruncatedError when the last one is not whole, and UnsupportedFormatError for an entry
    of another version. Whether the offsets suit the log is not asked here.
    """
    entries: list[AbortedTransaction] = []
    whole = len(data) - len(data) % ENTRY_BYTES
    for version, *fields in _ENTRY.iter_unpack(data[:whole]):
        if version != _VERSION:
            raise UnsupportedFormatError(
                "the version of a transaction index entry is unknown",
                position=len(entries) * ENTRY_BYTES,
                expected=_VERSION,
                found=version,
            )
        entries.append(AbortedTransaction._make(fields))
    if whole != len(data):
        raise TruncatedError(
            "the bytes end inside a transaction index entry",
            position=whole,
            expected=ENTRY_BYTES,
            found=len(data) - whole,
        )
    return entries
