"""Whole batches on their way from one log to another, without a look at the records in them.

What can be carried is a batch of format 2 that lies wholly in the range, whose records fill its
offsets, and which is no control batch. A producer's id, its sequence and the mark of a transaction
are taken off on the way (the log that it comes to knows nothing of either) by giving the same bytes
another header. All other batches are opened, and their records are carried.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from logstore.errors import FormatError
from logstore.fetcher import ConsumerRecord
from logstore.replay.log_source import Part, batch_rows
from logstore.segments.batch import Batch
from logstore.segments.batch_views import BatchView, iter_views
from logstore.segments.header import CONTROL, DELETE_HORIZON, TRANSACTIONAL

__all__ = ["Carried", "carried", "is_plain", "stamped"]

FETCH_BYTES = 2 << 20
"""About how much is read, and appended, at once: enough that what is done for each piece does not
count, and little enough for the processor's cache."""


class Carried(NamedTuple):
    """Batches of one partition, or the records of one that had to be opened."""

    part: tuple[str, int]
    record_count: int
    first_offset: int
    next_offset: int
    """Where to go on behind them."""
    raw: tuple[Batch, ...] = ()
    """The batches; their checksums were checked."""
    records: list[ConsumerRecord] = []  # noqa: RUF012 - a default that nobody changes


def carried(part: Part, offset: int) -> Iterator[Carried]:
    """What a part holds from an offset on: batches as they are, as many at a time as are read at
    once, where nothing speaks against it; records where something does.

    Raises FormatError where the log is damaged, behind what stands in front of that.
    """
    while offset < part.end:
        fetch = part.log.read(offset, max_bytes=FETCH_BYTES, cut=False)
        end = fetch.next_offset
        found = iter_views(fetch.data, below=end, position=fetch.position, path=fetch.path)
        yield from _of_fetch(part, found, offset)
        if end <= offset:
            return
        offset = end


def _of_fetch(part: Part, found: Iterator[Batch], offset: int) -> Iterator[Carried]:
    place = (part.topic, part.partition)
    whole: list[Batch] = []
    problem: FormatError | None = None
    try:
        for batch in found:
            header = batch.header
            if header.last_offset < offset:
                continue
            if header.base_offset >= part.end:
                break
            batch.check_crc()
            if _can_be_carried(batch, offset, part.end):
                whole.append(batch)
                continue
            rows = batch_rows(part, batch, offset)
            yield from _batches(place, whole)
            whole = []
            if rows:
                end = min(header.next_offset, part.end)
                yield Carried(place, len(rows), rows[0].offset, end, records=rows)
    except FormatError as error:
        problem = error
    yield from _batches(place, whole)
    if problem is not None:
        raise problem


def _batches(place: tuple[str, int], batches: list[Batch]) -> Iterator[Carried]:
    if batches:
        count = sum(batch.header.record_count for batch in batches)
        first, end = batches[0].header.base_offset, batches[-1].header.next_offset
        yield Carried(place, count, first, end, tuple(batches))


def _can_be_carried(batch: Batch, start: int, end: int) -> bool:
    header = batch.header
    return (
        header.magic == 2
        and not header.attributes & (CONTROL | DELETE_HORIZON)
        and header.record_count == header.last_offset_delta + 1
        and header.base_offset >= start
        and header.next_offset <= end
    )


def is_plain(batch: Batch) -> bool:
    """Whether no producer with an id has written it, nor a transaction."""
    return batch.header.producer_id == -1 and not batch.header.attributes & TRANSACTIONAL


def stamped(batch: Batch, producer_id: int = -1, sequence: int = -1) -> Batch:
    """A batch as one that this producer has written, outside a transaction; without one as one of
    no producer."""
    if producer_id == -1 and is_plain(batch):
        return batch
    assert isinstance(batch, BatchView)  # of format 2, as all that are carried
    return batch.written_by(producer_id, -1 if producer_id < 0 else 0, sequence)
