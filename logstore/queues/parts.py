"""Appending more messages than one batch of a log may hold."""

from __future__ import annotations

from collections.abc import Iterator

from logstore.appending import Acks, Appended
from logstore.errors import InvalidInputError
from logstore.log import PartitionLog
from logstore.segments.batch import HEADER_BYTES
from logstore.segments.record import Record

__all__ = ["append_records"]

_RECORD_BYTES = 48
"""More than a record takes besides its key, its value and its headers: lengths and deltas."""
_HEADER_BYTES = 16
"""The same of a record's header."""


def append_records(log: PartitionLog, records: list[Record], *, acks: Acks) -> Appended:
    """Append records as one batch, or as several in a row where they are larger together than
    ``max_message_bytes``; at ``acks="all"`` one sync is for all.

    Raises what ``PartitionLog.append`` raises: InvalidInputError, and nothing is appended, where
    one record alone is larger. A failure between two batches leaves the first of them.
    """
    try:
        return log.append(records, acks=acks)
    except InvalidInputError:
        # Nothing is lost but the time, and what fits, as nearly always, is not measured.
        limit = log.config.max_message_bytes - HEADER_BYTES
        sizes = list(map(_size, records))
        if sum(sizes) <= limit or max(sizes) > limit:
            raise
    *parts, last = _parts(records, sizes, limit)
    first = [log.append(part, acks=1) for part in parts]
    appended = log.append(last, acks=acks)
    return appended._replace(base_offset=first[0].base_offset) if first else appended


def _size(record: Record) -> int:
    """The bytes of a record, or a few more."""
    size = _RECORD_BYTES + len(record.key or b"") + len(record.value or b"")
    for name, value in record.headers:
        # (A character of a name may be four bytes.)
        size += _HEADER_BYTES + 4 * len(name) + len(value or b"")
    return size


def _parts(records: list[Record], sizes: list[int], limit: int) -> Iterator[list[Record]]:
    start = size = 0
    for index, more in enumerate(sizes):
        if size + more > limit:
            yield records[start:index]
            start, size = index, 0
        size += more
    yield records[start:]
