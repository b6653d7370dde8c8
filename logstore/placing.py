"""Giving batches their place: what an append does under the partition's lock."""

from __future__ import annotations

from collections.abc import Sequence

from logstore.appending import Appended, Guard, LogView, new_appended
from logstore.producer_log import of_batch
from logstore.producer_states import SentBatch, new_batch
from logstore.ready import follow_on, placed, where
from logstore.segments.batch import CRC_START, HEADER_BYTES, Batch, header_fields, place
from logstore.segments.checksum import crc32c
from logstore.segments.header import CONTROL, LOG_OVERHEAD_BYTES, TRANSACTIONAL, BatchHeader
from logstore.writer import LogWriter, batch_size

__all__ = [
    "Sealed",
    "Stamp",
    "stamped_parts",
    "write_ready",
    "write_replica",
    "write_sealed",
    "write_stamped",
]

Sealed = tuple[int, bytes, int, int, int]
"""CRC, what stands behind it, count of records, largest timestamp, size (see ``seal_parts``)."""

Stamp = tuple[int, int, int, bool]
"""A producer's id, its epoch, the first sequence, whether there is a transaction."""


def stamped_parts(data: bytes, max_bytes: int) -> tuple[Sealed, Stamp] | None:
    """What is in ``data`` if it is one sound batch of an idempotent producer, as it nearly always
    is: its parts and its stamp, without an object for the batch. None for everything else, markers
    too; what is wrong with it, if anything is, ``ready_batches`` can say."""
    size = len(data)
    if not HEADER_BYTES <= size <= max_bytes:
        return None
    (
        base,
        length,
        _leader_epoch,
        magic,
        crc,
        attributes,
        delta,
        _first_timestamp,
        timestamp,
        producer,
        epoch,
        first,
        count,
    ) = header_fields(data)
    if magic != 2 or length + LOG_OVERHEAD_BYTES != size or base < 0 or not 0 <= delta == count - 1:
        return None
    if producer < 0 or epoch < 0 or first < 0 or attributes & CONTROL:
        return None
    tail = data[CRC_START:]
    if crc32c(tail) != crc:
        return None
    stamp = (producer, epoch, first, attributes & TRANSACTIONAL != 0)
    return (crc, tail, count, timestamp, size), stamp


def write_sealed(writer: LogWriter, sealed: Sealed, guard: Guard | None) -> tuple[Appended, bool]:
    """Write a sealed batch behind the end of the log. Returns where it went, and whether it is time
    to sync the segment. Raises what ``guard`` and the writer raise."""
    crc, tail, count, timestamp, size = sealed
    state = writer.enter()
    if guard is not None:
        guard(LogView(state.log_start_offset, state.next_offset, state.leader_epoch))
    if state.due_epoch > state.leader_epoch:
        writer.begin_due_epoch(state)
    base = state.next_offset
    last = base + count - 1
    raw = place(crc, tail, base, state.leader_epoch)
    due = writer.write(state, raw, base, ((size, last, timestamp),))
    return new_appended((base, last, timestamp)), due


def write_stamped(
    writer: LogWriter,
    sealed: Sealed,
    guard: Guard | None,
    stamp: Stamp,
    now_ms: int,
) -> tuple[Appended, bool]:
    """The same for a batch of an idempotent producer, with its checked stamp: one that is there
    already is not written again. Raises OutOfOrderSequenceError, ProducerFencedError."""
    crc, tail, count, timestamp, size = sealed
    producer_id, epoch, sequence, transactional = stamp
    producers = writer.producers
    state = writer.enter()
    base = state.next_offset
    last = base + count - 1
    batch = new_batch(
        (producer_id, epoch, sequence, base, last, timestamp, transactional, False, -1)
    )
    found = producers.check(state, batch)
    if found is not None:
        return new_appended((found.base_offset, found.last_offset, found.timestamp)), False
    if guard is not None:
        guard(LogView(state.log_start_offset, base, state.leader_epoch))
    if state.due_epoch > state.leader_epoch:
        writer.begin_due_epoch(state)
    raw = place(crc, tail, base, state.leader_epoch)
    due = writer.write(state, raw, base, ((size, last, timestamp),))
    producers.wrote(state, (batch,), now_ms)
    return new_appended((base, last, timestamp)), due


def write_ready(
    writer: LogWriter,
    batches: Sequence[Batch],
    guard: Guard | None,
    *,
    append_timestamp: int | None,
    now_ms: int,
) -> tuple[Appended, bool]:
    """The same for ready batches of a client: they get the next offsets (and ``append_timestamp``),
    and those of idempotent producers that are there already are left out."""
    state = writer.enter()
    stamped = any(batch.header.producer_id >= 0 for batch in batches)
    found: Sequence[SentBatch | None] = [None] * len(batches)
    if stamped:
        found = writer.producers.check_all(state, batches)
    new = [batch for batch, sent in zip(batches, found, strict=True) if sent is None]
    if not new:
        return where((), found), False
    if guard is not None:
        guard(LogView(state.log_start_offset, state.next_offset, state.leader_epoch))
    if state.due_epoch > state.leader_epoch:
        writer.begin_due_epoch(state)
    headers, raw = placed(new, state.next_offset, state.leader_epoch, append_timestamp)
    due = writer.write(state, raw, headers[0].base_offset, list(map(batch_size, headers)))
    if stamped:
        noted = [
            of_batch(batch, header)
            for batch, header in zip(new, headers, strict=True)
            if header.producer_id >= 0
        ]
        writer.producers.wrote(state, noted, now_ms)
    return where(headers, found), due


def write_replica(
    writer: LogWriter,
    raw: bytes,
    headers: Sequence[BatchHeader],
    guard: Guard | None,
    *,
    name: str,
) -> tuple[Appended, bool]:
    """The same for what a leader sends, batches that begin with these headers: they keep their
    offsets and epochs. ``name`` stands in errors."""
    state = writer.enter()
    if guard is not None:
        guard(LogView(state.log_start_offset, state.next_offset, state.leader_epoch))
    epochs = follow_on(headers, state.next_offset, state.leader_epoch, name)
    if epochs:
        writer.begin_epochs(state, epochs)
    sizes = list(map(batch_size, headers))
    base = headers[0].base_offset
    due = writer.write(state, raw, base, sizes)
    timestamp = max([size[2] for size in sizes])
    return Appended(base, sizes[-1][1], timestamp), due
