"""A look-up in a segment's indexes, step by step, as a reader does it.

A reader believes an entry only if the batch that it leads to bears it out, and walks over the
segment from its beginning otherwise. Every step is told: the entries at which the binary search
looked, the one it found, the batch there, and how many batches were walked over from there on.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from logstore.segments import offset_index, time_index
from logstore.segments.batch import Batch
from logstore.segments.errors import FormatError
from logstore.segments.files import File, Files, read_bounded
from logstore.segments.layout import FileKind, PartitionFile, partition_files
from logstore.segments.moments import time_text
from logstore.segments.record import Record
from logstore.segments.scan import Damage, scan

__all__ = ["Step", "look_up_offset", "look_up_time"]

_MAX_BYTES = 256 << 20


class Step(NamedTuple):
    """A step of a look-up."""

    kind: Literal["segment", "probe", "entry", "batch", "scan", "record", "missing", "wrong"]
    text: str
    fields: dict[str, Any]
    """The numbers of it."""


def look_up_offset(files: Files, directory: str, offset: int) -> Iterator[Step]:
    """The steps to the record of ``offset`` in the partition in ``directory``; the last one is
    ``record``, or ``missing`` where there is none."""
    logs = _logs(files, directory)
    before = [file for file in logs if (file.base_offset or 0) <= offset]
    if not before:
        first = f", the first segment begins at {logs[0].base_offset}" if logs else ", or any log"
        yield Step("missing", f"there is no segment for offset {offset}{first}", {})
        return
    segment = before[-1]
    yield _segment_step(segment, f"the last one whose base offset is not above {offset}")
    log = files.open(segment.path)
    try:
        position = yield from _locate(files, segment, log, offset)
        yield from _to_offset(log, position, offset)
    finally:
        log.close()


def look_up_time(files: Files, directory: str, timestamp: int) -> Iterator[Step]:
    """The steps to the first record that is not older than ``timestamp`` (milliseconds) in the
    partition in ``directory``: segment by segment, the oldest first."""
    moment = f"{timestamp} ({time_text(timestamp)})"
    for segment in _logs(files, directory):
        yield _segment_step(segment, "the next one to look into")
        log = files.open(segment.path)
        try:
            position = yield from _time_position(files, segment, log, timestamp)
            if (yield from _to_time(log, position, timestamp)):
                return
        finally:
            log.close()
    yield Step("missing", f"no record is as recent as {moment}", {"timestamp": timestamp})


def _logs(files: Files, directory: str) -> list[PartitionFile]:
    return [
        file
        for file in partition_files(files, directory)
        if file.kind is FileKind.LOG and file.base_offset is not None
    ]


def _segment_step(segment: PartitionFile, why: str) -> Step:
    name = os.path.basename(segment.path)
    return Step("segment", f"segment {name}: {why}", {"file": segment.path})


def _index(files: Files, segment: PartitionFile, kind: FileKind) -> bytes | None:
    path = segment.path.removesuffix(FileKind.LOG.value) + kind.value
    return read_bounded(files, path, _MAX_BYTES) if files.exists(path) else None


def _no_index(kind: FileKind) -> Step:
    text = f"there is no {kind.value}: the log is walked over from its beginning"
    return Step("entry", text, {"index": kind.value, "entry": None})


# By offset ----------------------------------------------------------------------------------


def _locate(
    files: Files, segment: PartitionFile, log: File, offset: int
) -> Generator[Step, None, int]:
    """The search in the offset index; returns the position from which to walk."""
    base = segment.base_offset or 0
    data = _index(files, segment, FileKind.OFFSET_INDEX)
    if data is None:
        yield _no_index(FileKind.OFFSET_INDEX)
        return 0
    data = data[: offset_index.valid_size(data)]
    entries = offset_index.decode_entries(base, data)
    probed: list[int] = []
    entry = offset_index.find(base, data, offset, probed=probed)
    for number in probed:
        right = entries[number].offset <= offset
        text = f"offset {entries[number].offset} {_COMPARED[right]} {offset}"
        yield _probe(FileKind.OFFSET_INDEX, number, text, right=right)
    if entry is None:
        yield _before_all(FileKind.OFFSET_INDEX, len(entries))
        return 0
    text = f"offset {entry.offset}, at position {entry.position}"
    yield _found(FileKind.OFFSET_INDEX, entries.index(entry), text)
    batch = _batch_at(log, entry.position)
    if batch is None or not batch.header.base_offset <= entry.offset <= batch.header.last_offset:
        yield _not_believed(batch, entry.position)
        return 0
    yield _batch_step(batch, "bears it out")
    return entry.position


def _to_offset(log: File, position: int, offset: int) -> Iterator[Step]:
    """The walk to the batch of ``offset``, and the record in it."""
    walked = _Walked()
    for item in scan(log, start=position):
        if isinstance(item, Damage):
            yield _damaged(item)
            continue
        if item.header.last_offset < offset:
            walked.count(item)
            continue
        if item.header.base_offset <= offset:
            yield walked.step(item, "holds the offset")
            yield from _record(item, lambda record: record.offset >= offset, offset)
            return
        break
    yield walked.step(None, "none holds the offset")
    yield Step("missing", f"there is no record at offset {offset}", {"offset": offset})


# By time ------------------------------------------------------------------------------------


def _time_position(
    files: Files, segment: PartitionFile, log: File, timestamp: int
) -> Generator[Step, None, int]:
    """The search in the time index, and from what it says in the offset index."""
    base = segment.base_offset or 0
    data = _index(files, segment, FileKind.TIME_INDEX)
    if data is None:
        yield _no_index(FileKind.TIME_INDEX)
        return 0
    data = data[: time_index.valid_size(data)]
    entries = time_index.decode_entries(base, data)
    probed: list[int] = []
    entry = time_index.find(base, data, timestamp, probed=probed)
    for number in probed:
        right = entries[number].timestamp < timestamp
        text = f"timestamp {entries[number].timestamp} {_COMPARED_TIMES[right]} {timestamp}"
        yield _probe(FileKind.TIME_INDEX, number, text, right=right)
    if entry is None:
        yield _before_all(FileKind.TIME_INDEX, len(entries))
        return 0
    text = f"nothing is more recent than {entry.timestamp} up to offset {entry.offset}"
    yield _found(FileKind.TIME_INDEX, entries.index(entry), text)
    position = yield from _locate(files, segment, log, entry.offset)
    batch = next(
        (
            item
            for item in scan(log, start=position)
            if isinstance(item, Batch) and item.header.last_offset >= entry.offset
        ),
        None,
    )
    if batch is None or not (
        batch.crc_ok
        and batch.header.max_timestamp == entry.timestamp
        and batch.header.base_offset <= entry.offset
    ):
        yield _not_believed(batch, position)
        return 0
    yield _batch_step(batch, f"bears it out with largest timestamp {entry.timestamp}")
    return batch.position


def _to_time(log: File, position: int, timestamp: int) -> Generator[Step, None, bool]:
    """The walk to the first record that is recent enough; returns whether there is one."""
    walked = _Walked()
    for item in scan(log, start=position):
        if isinstance(item, Damage):
            yield _damaged(item)
        elif item.header.max_timestamp < timestamp or item.header.control:
            walked.count(item)
        else:
            yield walked.step(item, f"has largest timestamp {item.header.max_timestamp}")
            yield from _record(item, lambda record: record.timestamp >= timestamp, None)
            return True
    yield walked.step(None, "none is recent enough")
    return False


# Steps --------------------------------------------------------------------------------------

_COMPARED = {True: "is not above", False: "is above"}
_COMPARED_TIMES = {True: "is below", False: "is not below"}


def _probe(kind: FileKind, number: int, text: str, *, right: bool) -> Step:
    way = "go on behind it" if right else "go on before it"
    fields = {"index": kind.value, "entry": number, "behind": right}
    return Step("probe", f"{kind.value} entry {number}: {text}: {way}", fields)


def _found(kind: FileKind, number: int, text: str) -> Step:
    fields = {"index": kind.value, "entry": number}
    return Step("entry", f"{kind.value} entry {number} is the last one to go by: {text}", fields)


def _before_all(kind: FileKind, count: int) -> Step:
    which = "is empty" if not count else f"has no entry to go by among its {count}"
    text = f"the {kind.value} {which}: the log is walked over from its beginning"
    return Step("entry", text, {"index": kind.value, "entry": None})


def _batch_step(batch: Batch, says: str) -> Step:
    header = batch.header
    text = (
        f"the batch at position {batch.position}, offsets {header.base_offset} to "
        f"{header.last_offset}, {says}"
    )
    return Step("batch", text, _batch_fields(batch))


def _batch_fields(batch: Batch) -> dict[str, Any]:
    header = batch.header
    return {
        "position": batch.position,
        "base_offset": header.base_offset,
        "last_offset": header.last_offset,
    }


def _not_believed(batch: Batch | None, position: int) -> Step:
    what = (
        f"no batch begins at position {position}"
        if batch is None
        else f"the batch at position {batch.position} has offsets {batch.header.base_offset} to "
        f"{batch.header.last_offset} and largest timestamp {batch.header.max_timestamp}"
    )
    text = f"the entry is wrong: {what}. The log is walked over from its beginning"
    return Step("wrong", text, {"position": position})


def _damaged(damage: Damage) -> Step:
    text = f"the log is damaged at position {damage.position}: {damage.reason}"
    return Step("wrong", text, {"position": damage.position})


def _batch_at(log: File, position: int) -> Batch | None:
    """The batch that begins at ``position``, if there is one whose checksum is right."""
    if position >= log.size():
        return None
    item = next(scan(log, start=position, resync=False), None)
    return item if isinstance(item, Batch) and item.crc_ok else None


@dataclass
class _Walked:
    """Batches that were walked over."""

    batches: int = 0
    bytes: int = 0

    def count(self, batch: Batch) -> None:
        """One more, which is not the one."""
        self.batches += 1
        self.bytes += batch.header.size

    def step(self, found: Batch | None, says: str) -> Step:
        """What was walked over, and the batch that ended it."""
        fields: dict[str, Any] = {"batches": self.batches, "bytes": self.bytes}
        many = "batch" if self.batches == 1 else "batches"
        text = f"{self.batches} {many} of {self.bytes} bytes walked over"
        if found is None:
            return Step("scan", f"{text}: {says}", fields)
        return Step(
            "scan",
            f"{text}; the one at position {found.position}, offsets {found.header.base_offset} to "
            f"{found.header.last_offset}, {says}",
            fields | _batch_fields(found),
        )


def _record(batch: Batch, wanted: Callable[[Record], bool], offset: int | None) -> Iterator[Step]:
    """The first record of ``batch`` that is ``wanted``."""
    try:
        batch.check_crc()
        records = batch.records()
    except FormatError as error:
        yield Step("wrong", f"the batch is damaged: {error.reason}", {"position": batch.position})
        return
    found = next(filter(wanted, records), None)
    if found is None or (offset is not None and found.offset != offset):
        text = "no record of it" if offset is None else f"there is no record at offset {offset}"
        yield Step("missing", f"{text}: compaction took it", {"offset": offset})
        return
    number = records.index(found) + 1
    text = (
        f"record {number} of {len(records)}: offset {found.offset}, timestamp {found.timestamp} "
        f"({time_text(found.timestamp)})"
    )
    yield Step("record", text, {"offset": found.offset, "timestamp": found.timestamp})
