"""What a batch's header says, for batches of format v2 and for messages of formats 0 and 1."""

from __future__ import annotations

import enum
from typing import NamedTuple

from logstore.segments.compression import Codec
from logstore.segments.errors import UnsupportedFormatError
from logstore.segments.fields import Bits, Fields

__all__ = [
    "ATTRIBUTE_BITS",
    "CONTROL",
    "DELETE_HORIZON",
    "HEADER_FIELDS",
    "LOG_OVERHEAD_BYTES",
    "TRANSACTIONAL",
    "BatchHeader",
    "TimestampType",
]

HEADER_FIELDS = Fields(
    ("q", "baseOffset"),  # offset of the first record (outside the CRC, so that a log can give a
    #                       batch its place without touching the rest)
    ("i", "batchLength"),  # bytes behind this field
    ("i", "partitionLeaderEpoch"),  # (outside the CRC for the same reason)
    ("b", "magic"),  # 2
    ("I", "crc"),  # CRC-32C of everything behind this field
    ("h", "attributes"),  # ATTRIBUTE_BITS
    ("i", "lastOffsetDelta"),  # offset of the last record - baseOffset; compaction keeps it
    ("q", "baseTimestamp"),  # of the first record; the delete horizon if bit 6 is set
    ("q", "maxTimestamp"),  # largest of all records, or the time of the append
    ("q", "producerId"),  # -1: none
    ("h", "producerEpoch"),
    ("i", "baseSequence"),
    ("i", "count"),  # of records
)
"""The header of format v2."""

ATTRIBUTE_BITS = (
    Bits(0, 3, "codec"),
    Bits(3, 1, "timestampType"),  # 0 CreateTime, 1 LogAppendTime
    Bits(4, 1, "transactional"),
    Bits(5, 1, "control"),
    Bits(6, 1, "deleteHorizon"),  # whether baseTimestamp is one
)
"""The attributes of format v2; the other bits are 0. Format 1 has the first two, format 0 the
first, in a byte."""

TRANSACTIONAL, CONTROL, DELETE_HORIZON = 0x10, 0x20, 0x40
"""Masks of single bits of the attributes."""

LOG_OVERHEAD_BYTES = 12
"""What stands in front of the part that a batch's length counts: offset and length themselves."""


class TimestampType(enum.IntEnum):
    """Whose time a timestamp is; the number stands in bit 3 of the attributes."""

    CREATE = 0
    LOG_APPEND = 1

    @property
    def label(self) -> str:
        """The name that Kafka's configuration uses: ``CreateTime`` or ``LogAppendTime``."""
        return "CreateTime" if self is TimestampType.CREATE else "LogAppendTime"


# By number: calling an enumeration costs a third of a microsecond for each batch.
_CODECS = tuple(Codec)
_TIMESTAMP_TYPES = tuple(TimestampType)


class BatchHeader(NamedTuple):
    """The 13 fields of a header, in the order in which format v2 stores them.

    For messages of formats 0 and 1 the fields that they lack are -1, and offsets, timestamps and
    count are those of the messages inside.
    """

    base_offset: int
    length: int
    leader_epoch: int
    magic: int
    crc: int
    attributes: int
    last_offset_delta: int
    base_timestamp: int
    max_timestamp: int
    producer_id: int
    producer_epoch: int
    base_sequence: int
    record_count: int

    @property
    def size(self) -> int:
        """Bytes of the whole batch."""
        return LOG_OVERHEAD_BYTES + self.length

    @property
    def last_offset(self) -> int:
        """The offset of the last record that the batch was written with."""
        return self.base_offset + self.last_offset_delta

    @property
    def next_offset(self) -> int:
        """The first offset that may follow the batch."""
        return self.base_offset + self.last_offset_delta + 1

    @property
    def codec(self) -> Codec:
        """How the records are compressed; raises UnsupportedFormatError for an unknown number."""
        number = self.attributes & 7
        if number >= len(_CODECS):
            raise UnsupportedFormatError(
                "a batch's codec is unknown", expected="0 to 4", found=number
            )
        return _CODECS[number]

    @property
    def timestamp_type(self) -> TimestampType:
        """Whether the timestamps are the records' own or the time of the append."""
        return _TIMESTAMP_TYPES[self.attributes >> 3 & 1]

    @property
    def transactional(self) -> bool:
        """Whether the batch belongs to a transaction."""
        return bool(self.attributes & TRANSACTIONAL)

    @property
    def control(self) -> bool:
        """Whether the batch holds control records, which consumers do not see."""
        return bool(self.attributes & CONTROL)

    @property
    def delete_horizon(self) -> int | None:
        """When compaction may drop the batch's tombstones (milliseconds), if it has been set."""
        return self.base_timestamp if self.attributes & DELETE_HORIZON else None
