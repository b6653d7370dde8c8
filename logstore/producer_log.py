"""The producers of a partition, as its files tell: snapshots, and the headers of the log behind.

A snapshot (``<offset>.snapshot``) says what was known ahead of the record at the offset in its
name. So what is known of a log's end is the newest snapshot that can be used, and the batches
behind it, of which only headers are read: :func:`advance`. Nothing here takes a lock.

Snapshots are caches, of which the log is the truth: they are written when a segment is finished and
when a log is closed, by handles that know the producers anyway, and taken away with their segments
(``logstore.structure.drop_snapshots``).
"""

from __future__ import annotations

import itertools
import logging
import struct
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from logstore.config import LogConfig
from logstore.producer_states import ProducerBatch, ProducerStates
from logstore.reader import LogReader, View
from logstore.segments import filenames, producer_snapshot
from logstore.segments.batch import HEADER_BYTES, MAX_BATCH_BYTES, Batch, header_at
from logstore.segments.control import coordinator_epoch
from logstore.segments.errors import FormatError
from logstore.segments.files import File, Files, read_bounded, write_synced
from logstore.segments.header import LOG_OVERHEAD_BYTES, BatchHeader
from logstore.structure import list_snapshots, segment_path

__all__ = ["Known", "advance", "of_batch", "save", "stamped_batches"]

_log = logging.getLogger("logstore")

_MAX_SNAPSHOT_BYTES = 256 << 20
_CHUNK_BYTES = 256 << 10
_SMALL_BATCH_BYTES = 4096
"""Batches up to here are read in chunks; of larger ones only the headers are."""
_SMALLEST_BATCH_BYTES = 17

_PREFIX = struct.Struct(">qi4xb26xq")
"""Base offset, length, magic, producer id: what tells whether the header is to be looked at."""
_OLD_PREFIX = struct.Struct(">8xi4xb")


@dataclass(slots=True)
class Known:
    """What is known of a log's producers, and up to where."""

    states: ProducerStates
    offset: int
    """All batches below it are taken in."""
    base_offset: int
    """The segment in which it lies."""
    position: int
    """And where in that segment's log."""
    generation: int
    """The generation of files in which this was so."""

    def copy(self) -> Known:
        """What another thread may advance."""
        return replace(self, states=ProducerStates(self.states.known()))

    def holds_for(self, view: View) -> bool:
        """Whether nothing of it was taken from the log since."""
        return self.generation >= view.state.tail_generation


def of_batch(batch: Batch, header: BatchHeader | None = None) -> ProducerBatch:
    """What a batch says of its producer; a marker is opened for it. ``header``: that of the batch
    where it has got its place."""
    epoch = None
    if batch.header.control:
        records = batch.records()
        epoch = coordinator_epoch(records[0]) if records else None
    return _of_header(header or batch.header, epoch)


def _of_header(header: BatchHeader, epoch: int | None) -> ProducerBatch:
    return ProducerBatch(
        header.producer_id,
        header.producer_epoch,
        header.base_sequence,
        header.base_offset,
        header.last_offset,
        header.max_timestamp,
        header.transactional,
        header.control,
        -1 if epoch is None else epoch,
    )


def advance(
    known: Known | None,
    files: Files,
    directory: str,
    config: LogConfig,
    reader: LogReader,
    view: View,
    *,
    now_ms: int,
    every_segment: bool = False,
) -> Known:
    """What is known at the end of ``view``; ``known``, what was known before, is used up.

    Raises FormatError where the log cannot be read. Where no snapshot says anything, segments that
    are older than producers are remembered are passed over: a named producer that has been silent
    for so long is forgotten, if its snapshots are gone. With ``every_segment`` they are read.

    A batch counts as of the time when its file was last written, since its records may be older.
    (Compaction, which writes files anew, wants ``every_segment``, and the records' own time.)
    """
    state = view.state
    if known is None or not known.holds_for(view):
        known = _from_snapshot(files, directory, config, view, now_ms)
    if known is None:
        first = 0 if every_segment else _first_worth_reading(config, reader, view, now_ms)
        base = view.bases[first] if view.bases else state.next_offset
        known = Known(ProducerStates(), base, base, 0, state.generation)
    note = known.states.note
    if known.base_offset == state.active_base:
        # The active segment is only appended to: the position is what it was.
        bases: Sequence[int] = (state.active_base,)
        start = known.position
    else:
        index = max(bisect_right(view.bases, known.offset) - 1, 0)
        bases = view.bases[index:]
        start = reader.position_of(view, bases[0], known.offset) if bases else 0
    for base in bases:
        path = segment_path(directory, base, filenames.LOG)
        file = files.open(path)
        try:
            end = state.valid_end if base == state.active_base else file.size()
            written_ms = -1 if every_segment else files.times_ms(path)[0]
            for batch in stamped_batches(file, start, end):
                note(batch, written_ms)
        finally:
            file.close()
        start = 0
    return Known(
        known.states, state.next_offset, state.active_base, state.valid_end, state.generation
    )


def _first_worth_reading(config: LogConfig, reader: LogReader, view: View, now_ms: int) -> int:
    """The index of the first segment that may tell of a producer that is not forgotten by now."""
    oldest = now_ms - config.producer_id_expiration_ms
    old = itertools.takewhile(lambda info: 0 <= info.max_timestamp < oldest, reader.segments(view))
    return min(sum(1 for _ in old), max(len(view.bases) - 1, 0))


def _from_snapshot(
    files: Files, directory: str, config: LogConfig, view: View, now_ms: int
) -> Known | None:
    """What the newest snapshot says that can be used, if there is one."""
    state = view.state
    for offset in reversed(list_snapshots(files, directory)):
        if offset > state.next_offset:
            continue
        path = segment_path(directory, offset, filenames.PRODUCER_SNAPSHOT)
        try:
            data = read_bounded(files, path, _MAX_SNAPSHOT_BYTES)
            states = ProducerStates.from_entries(producer_snapshot.decode(data))
        except FileNotFoundError:
            continue
        except FormatError as error:
            _log.warning("%s: an older one is used instead", error.at(path, 0))
            continue
        states.forget_expired(now_ms, config.producer_id_expiration_ms)
        if offset == state.next_offset:
            return Known(states, offset, state.active_base, state.valid_end, state.generation)
        if offset == state.active_base:
            return Known(states, offset, offset, 0, state.generation)
        return Known(states, offset, -1, 0, state.generation)
    return None


def save(files: Files, directory: str, states: ProducerStates, offset: int) -> None:
    """Write the snapshot at ``offset``, up to which the log is on stable storage.

    Commit point: the rename. A crash before it leaves a ``.tmp`` that the next recovery removes.
    """
    path = segment_path(directory, offset, filenames.PRODUCER_SNAPSHOT)
    temporary = path + filenames.TEMPORARY
    write_synced(files, temporary, producer_snapshot.encode(states.entries()))
    files.rename(temporary, path)


def stamped_batches(file: File, start: int, end: int) -> Iterator[ProducerBatch]:
    """What the batches of producers say from position ``start`` to ``end``; no record is decoded,
    but for a transaction's marker. Raises FormatError where there is no batch."""
    data = b""
    at = 0
    position = start
    wanted = _CHUNK_BYTES
    while position < end:
        room = end - position
        if len(data) - at < min(HEADER_BYTES, room):
            data = file.read_at(min(wanted, room), position)
            at = 0
        if len(data) - at >= HEADER_BYTES:
            _, length, magic, producer_id = _PREFIX.unpack_from(data, at)
        elif len(data) - at > _SMALLEST_BATCH_BYTES:
            length, magic = _OLD_PREFIX.unpack_from(data, at)
            producer_id = -1
        else:
            raise _no_batch(file, position, room, len(data) - at)
        size = length + LOG_OVERHEAD_BYTES
        if not _SMALLEST_BATCH_BYTES < size <= min(room, MAX_BATCH_BYTES) or (
            magic >= 2 and size < HEADER_BYTES
        ):
            raise _no_batch(file, position, room, size)
        if magic >= 2 and producer_id >= 0:
            header = header_at(data, at)
            if header.control:
                raw = file.read_at(size, position)
                yield of_batch(Batch.parse(raw, position=position, path=file.path))
            else:
                yield _of_header(header, None)
        position += size
        at += size
        wanted = _CHUNK_BYTES if size <= _SMALL_BATCH_BYTES else HEADER_BYTES


def _no_batch(file: File, position: int, room: int, size: int) -> FormatError:
    return FormatError(
        "a batch's length is wrong",
        path=file.path,
        position=position,
        expected=f"{_SMALLEST_BATCH_BYTES + 1} to {room}",
        found=size,
    )
