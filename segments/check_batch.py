"""Checking one batch: does its header tell the truth about its records?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from logstore.segments.batch import Batch
from logstore.segments.check_index import Problem
from logstore.segments.control import ControlType, control_type
from logstore.segments.errors import FormatError
from logstore.segments.header import BatchHeader, TimestampType
from logstore.segments.record import Record

__all__ = ["batch_problems"]

_MARKER_VALUE_BYTES = 6


def batch_problems(batch: Batch) -> Iterator[Problem]:
    """What is wrong with ``batch`` by itself. With a wrong checksum nothing else is asked."""
    try:
        batch.check_crc()
        _ = batch.header.codec  # raises for one that is unknown, even where there are no records
        records = batch.records()
    except FormatError as error:
        yield _from_error(batch, error)
        return
    yield from _offset_problems(batch, records)
    if batch.header.magic == 2:
        yield from _timestamp_problems(batch, records)
    if batch.header.control:
        yield from _control_problems(batch, records)


def _from_error(batch: Batch, error: FormatError) -> Problem:
    position = batch.position if error.position is None else error.position
    if error.expected is None and error.found is None:
        return Problem(position, error.problem)
    if error.expected is None:
        return Problem(position, error.reason)
    return Problem(position, error.problem, str(error.expected), str(error.found))


def _is_complete(header: BatchHeader) -> bool:
    """Whether the batch still has all the records that it was written with."""
    return header.record_count == header.last_offset_delta + 1


def _offset_problems(batch: Batch, records: Sequence[Record]) -> Iterator[Problem]:
    header = batch.header
    offsets = [record[0] for record in records]
    if _is_complete(header):
        if offsets == list(range(header.base_offset, header.next_offset)):
            return
        base = header.base_offset
        found = next(offset for at, offset in enumerate(offsets, base) if offset != at)
        yield Problem(
            batch.position,
            "the offsets of the records in a batch are wrong",
            f"{header.base_offset} to {header.last_offset}, one by one",
            f"{found}",
        )
        return
    before = header.base_offset - 1
    for offset in offsets:
        if not before < offset <= header.last_offset:
            yield Problem(
                batch.position,
                "the offsets of the records in a batch do not ascend",
                f"{before + 1} to {header.last_offset}",
                f"{offset}",
            )
            return
        before = offset


def _timestamp_problems(batch: Batch, records: Sequence[Record]) -> Iterator[Problem]:
    header = batch.header
    if not records or header.timestamp_type is TimestampType.LOG_APPEND:
        return
    largest = max(record[1] for record in records)
    # Compaction may have taken the most recent record and left the header as it was.
    if largest == header.max_timestamp or (
        largest < header.max_timestamp and not _is_complete(header)
    ):
        return
    yield Problem(
        batch.position,
        "the largest timestamp of a batch is not that of its records",
        f"{largest}",
        f"{header.max_timestamp}",
    )


def _control_problems(batch: Batch, records: Sequence[Record]) -> Iterator[Problem]:
    for record in records:
        try:
            kind = control_type(record)
        except FormatError as error:
            yield _from_error(batch, error)
            continue
        value = record.value
        if kind in (ControlType.ABORT, ControlType.COMMIT) and (
            value is None or len(value) < _MARKER_VALUE_BYTES
        ):
            yield Problem(
                batch.position,
                f"the transaction marker at offset {record.offset} has no coordinator epoch",
                f"a value of at least {_MARKER_VALUE_BYTES} bytes",
                "null" if value is None else f"{len(value)} bytes",
            )
