"""When an index entry is due: the one rule that appending, recovery and rebuilding share.

Kafka's rule (4.3.1, ``LogSegment.append``), for each batch in turn:

1. a batch whose largest timestamp exceeds all before it becomes the *most recent*, with the
   batch's last offset;
2. if more than ``index_interval_bytes`` stand between the last entry's batch and this one, an
   offset entry (last offset, position) is due, and a time entry if the most recent timestamp is
   larger than the time index's last;
3. the batch's bytes are counted.

A roll and a clean close add one more time entry, by the same comparison.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from logstore.segments import offset_index, time_index
from logstore.segments.header import BatchHeader
from logstore.segments.offset_index import OffsetEntry
from logstore.segments.time_index import TimeEntry

__all__ = ["IndexProgress", "build_indexes"]


@dataclass(slots=True)
class IndexProgress:
    """How far the two indexes of a segment have come: what deciding about the next entry takes."""

    bytes_since_entry: int = 0
    """Bytes of batches from the last offset entry's on (from the segment's start before it)."""
    offset_entries: int = 0
    """Entries in the offset index."""
    time_entries: int = 0
    """Entries in the time index."""
    last_time_entry: int = -1
    """The timestamp of the time index's last entry; -1 where there is none."""
    max_timestamp: int = -1
    """The largest timestamp so far; -1 where there is none."""
    max_timestamp_offset: int = -1
    """The last offset of the batch that brought it."""

    def add(
        self,
        position: int,
        size: int,
        last_offset: int,
        max_timestamp: int,
        index_interval_bytes: int,
    ) -> tuple[OffsetEntry | None, TimeEntry | None]:
        """Count a batch, and return the entries that are due with it."""
        if max_timestamp > self.max_timestamp:
            self.max_timestamp = max_timestamp
            self.max_timestamp_offset = last_offset
        if self.bytes_since_entry <= index_interval_bytes:
            self.bytes_since_entry += size
            return None, None
        self.bytes_since_entry = size
        self.offset_entries += 1
        return OffsetEntry(last_offset, position), self.final_time_entry()

    def final_time_entry(self) -> TimeEntry | None:
        """The time entry that is due now, if one is: also asked on a roll and on a clean close."""
        if self.max_timestamp <= self.last_time_entry:
            return None
        self.last_time_entry = self.max_timestamp
        self.time_entries += 1
        return TimeEntry(self.max_timestamp, self.max_timestamp_offset)


def build_indexes(
    headers: Iterable[tuple[int, BatchHeader]], *, base_offset: int, index_interval_bytes: int
) -> tuple[bytes, bytes]:
    """The two index files of a closed segment whose batches (position, header) are ``headers``."""
    progress = IndexProgress()
    offsets: list[bytes] = []
    times: list[bytes] = []
    for position, header in headers:
        offset_entry, time_entry = progress.add(
            position,
            header.size,
            header.last_offset,
            header.max_timestamp,
            index_interval_bytes,
        )
        if offset_entry is not None:
            offsets.append(offset_index.encode_entry(base_offset, offset_entry))
        if time_entry is not None:
            times.append(time_index.encode_entry(base_offset, time_entry))
    last = progress.final_time_entry()
    if last is not None:
        times.append(time_index.encode_entry(base_offset, last))
    return b"".join(offsets), b"".join(times)
