"""Producer snapshots (``<offset>.snapshot``): what a partition knows of its idempotent producers.

A snapshot holds the state as it was before the record at the offset in its name, so that opening
a log replays only the batches behind it (source: Kafka's implementation, KIP-98;
``docs/format.md``). Version 1, the only one there has ever been, begins with a header of 10 bytes,
behind which one entry of 46 bytes stands for each producer.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import NamedTuple

from logstore.segments.checksum import crc32c
from logstore.segments.errors import (
    ChecksumError,
    FormatError,
    TruncatedError,
    UnsupportedFormatError,
)
from logstore.segments.fields import Fields

__all__ = ["ENTRY_BYTES", "HEADER_BYTES", "ProducerEntry", "decode", "encode"]

HEADER_FIELDS = Fields(
    ("h", "version"),  # 1
    ("I", "crc"),  # CRC-32C of everything behind this field
    ("i", "count"),  # of entries
)
_HEADER = HEADER_FIELDS.struct
HEADER_BYTES = _HEADER.size
"""Bytes in front of the entries: 10."""

ENTRY_FIELDS = Fields(
    ("q", "producerId"),
    ("h", "producerEpoch"),
    ("i", "lastSequence"),  # of the last batch that was appended; -1: only markers so far
    ("q", "lastOffset"),  # of that batch; -1 likewise
    ("i", "offsetDelta"),  # last offset of that batch - its first one
    ("q", "timestamp"),  # largest one of that batch, or that of a later marker
    ("i", "coordinatorEpoch"),  # from the last marker; -1: none so far
    ("q", "currentTxnFirstOffset"),  # where the transaction that is still open began; -1: none is
)
_ENTRY = ENTRY_FIELDS.struct
ENTRY_BYTES = _ENTRY.size
"""Bytes of an entry: 46."""

_VERSION = 1
_CRC_END = 6
_COUNT = struct.Struct(">i")


class ProducerEntry(NamedTuple):
    """What a partition knows of one producer; -1 stands wherever there is nothing to say."""

    producer_id: int
    producer_epoch: int
    last_sequence: int
    last_offset: int
    offset_delta: int
    timestamp: int
    coordinator_epoch: int
    current_transaction_first_offset: int


def encode(entries: Iterable[ProducerEntry]) -> bytes:
    """The bytes of a snapshot, its entries in the order in which they come."""
    packed = [_ENTRY.pack(*entry) for entry in entries]
    covered = _COUNT.pack(len(packed)) + b"".join(packed)
    return _HEADER.pack(_VERSION, crc32c(covered), len(packed)) + covered[_COUNT.size :]


def decode(data: bytes) -> list[ProducerEntry]:
    """The entries of the snapshot that ``data`` holds, no more and no less.

    Raises UnsupportedFormatError for another version, ChecksumError where the CRC does not match,
    and FormatError where count and size contradict each other; the count is believed only when
    that many entries are there.
    """
    if len(data) < HEADER_BYTES:
        raise TruncatedError(
            "the bytes end inside a producer snapshot's header",
            position=0,
            expected=HEADER_BYTES,
            found=len(data),
        )
    version, crc, count = _HEADER.unpack_from(data)
    if version != _VERSION:
        raise UnsupportedFormatError(
            "the version of a producer snapshot is unknown",
            position=0,
            expected=_VERSION,
            found=version,
        )
    computed = crc32c(data[_CRC_END:])
    if computed != crc:
        raise ChecksumError(
            "the checksum of a producer snapshot does not match",
            position=2,
            expected=f"{computed:#010x} (computed)",
            found=f"{crc:#010x} (stored)",
        )
    if len(data) - HEADER_BYTES != count * ENTRY_BYTES:
        raise FormatError(
            "a producer snapshot's size is wrong",
            position=_CRC_END,
            expected=f"{count} entries of {ENTRY_BYTES} bytes",
            found=f"{len(data) - HEADER_BYTES} bytes",
        )
    return [ProducerEntry._make(fields) for fields in _ENTRY.iter_unpack(data[HEADER_BYTES:])]
