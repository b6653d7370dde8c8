"""Compacting a partition: how fast, beside a plain copy of the same bytes.

    python bench/compaction.py [--quick] [--json] [--only TITLE]

A copy reads a file, writes another and syncs it, a megabyte at a time. Compaction does that too,
and has to read the key of every record: so in pure Python, at three quarters of a microsecond for
each, the size of the records decides how far it stays behind, and each size has its own table.

What profiling taught, as it is built now (``logstore/key_map.py``, ``logstore/cleaner.py``):

- A key is looked up once, not twice. While the keys go into the map, it shows where an older record
  of the same key lies; a batch without such a place is copied unopened, and of one with such places
  only the bounds of the records are looked for.
- What does not change is not written: a segment in which nothing was superseded is left alone, and
  of any other the part in front of the first change is copied without looking.
- No call and no object for each record. Keys are looked up and put in a batch at a time, by
  ``map``, ``zip`` and ``dict.update``; places are columns; varints of one and two bytes are decoded
  in place. What is left is that decoding: it takes three quarters of the time.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.harness import Options, Row, Session, Table, Work, report, scratch_directory
from logstore.config import LogConfig
from logstore.log import PartitionLog
from logstore.segments.record import Record

BATCH_BYTES = 64 << 10
SEGMENT_BYTES = 64 << 20
CHUNK_BYTES = 1 << 20
LOG_BYTES = 256 << 20
SMALL_LOG_RECORDS = 300_000

CONFIG = LogConfig.from_overrides({"cleanup_policy": "compact", "segment_bytes": SEGMENT_BYTES})

Keys = Iterator[bytes]


# Logs to compact ------------------------------------------------------------------------------


def unique_keys() -> Keys:
    """No key comes twice: every batch survives as it is."""
    number = 0
    while True:
        yield b"customer-%010d" % number
        number += 1


def keys_of(count: int) -> Keys:
    """Keys of ``count`` customers at random: in each batch some records are superseded."""
    rng = random.Random(20240501)
    while True:
        yield b"customer-%010d" % rng.randrange(count)


def make_log(
    path: Path, keys: Keys, *, records: int, record_bytes: int, segment_bytes: int
) -> None:
    """A log of batches of 64 KB or a little more, all of it closed segments."""
    per_batch = -(-BATCH_BYTES // record_bytes)
    value = random.Random(1).randbytes(record_bytes)
    config = LogConfig.from_overrides({"cleanup_policy": "compact", "segment_bytes": segment_bytes})
    with PartitionLog(path, config=config) as log:
        for start in range(0, records, per_batch):
            log.append(
                [
                    Record(timestamp=1_700_000_000_000 + number // 4, key=next(keys), value=value)
                    for number in range(start, start + per_batch)
                ],
                acks=1,
            )
        log.append([Record(key=b"the active segment", value=b"x" * segment_bytes)])


def linked(path: Path) -> Path:
    """The same log once more: closed segments are replaced, never written to, so links will do for
    all but the files that belong to the open log."""
    copy = Path(tempfile.mkdtemp(dir=path.parent))
    names = sorted(path.iterdir())
    active = max(name.stem for name in names if name.suffix == ".log")
    for name in names:
        if name.stem != active and name.suffix in (".log", ".index", ".timeindex"):
            os.link(name, copy / name.name)
        else:
            shutil.copy(name, copy / name.name)
    return copy


# What is timed --------------------------------------------------------------------------------


def compacting(path: Path) -> Session:
    """A session that compacts the whole log, on a copy of its own."""

    @contextlib.contextmanager
    def session() -> Iterator[Work]:
        copy = linked(path)
        try:
            with PartitionLog(copy, config=CONFIG) as log:
                yield partial(log.compact, force=True)
        finally:
            shutil.rmtree(copy)

    return session


def copying(path: Path) -> Session:
    """A session that copies the log's closed segments plainly."""

    @contextlib.contextmanager
    def session() -> Iterator[Work]:
        copy = Path(tempfile.mkdtemp(dir=path.parent))
        try:
            yield partial(_copy, sorted(path.glob("*.log"))[:-1], copy)
        finally:
            shutil.rmtree(copy)

    return session


def _copy(sources: list[Path], directory: Path) -> None:
    for source in sources:
        with (
            open(source, "rb", buffering=0) as read,
            open(directory / source.name, "wb", buffering=0) as write,
        ):
            while chunk := read.read(CHUNK_BYTES):
                write.write(chunk)
            os.fsync(write.fileno())


# Tables ---------------------------------------------------------------------------------------


def whole_table(
    options: Options, directory: Path, record_bytes: int, goal: float | None, title: str
) -> Table:
    """Every batch survives as it is, and is written: four segments become one."""
    records = int(LOG_BYTES * options.scale) // record_bytes
    path = Path(tempfile.mkdtemp(dir=directory))
    make_log(
        path,
        unique_keys(),
        records=records,
        record_bytes=record_bytes,
        segment_bytes=SEGMENT_BYTES // 4 - BATCH_BYTES,
    )
    size = sum(log.stat().st_size for log in sorted(path.glob("*.log"))[:-1])
    return Table(
        title,
        [
            Row(
                "compaction",
                size // 1_000_000,
                compacting(path),
                goal=goal,
                goal_of="A" if goal else "",
            ),
            Row("a plain copy: read, write, fsync", size // 1_000_000, copying(path), "A"),
        ],
        unit="MB/s",
    )


def opened_table(options: Options, directory: Path) -> Table:
    """Every batch is opened twice and written anew."""
    records = options.count(SMALL_LOG_RECORDS)
    path = Path(tempfile.mkdtemp(dir=directory))
    make_log(
        path,
        keys_of(records // 2),
        records=records,
        record_bytes=200,
        segment_bytes=SEGMENT_BYTES // 2,
    )
    return Table(
        "every batch is opened, half of the records go, 200 bytes each",
        [
            Row("compaction", records, compacting(path), goal=300_000),
            Row("a plain copy: read, write, fsync", records, copying(path), "A"),
        ],
    )


def tables(directory: Path, options: Options) -> Iterator[Table]:
    """Everything, in the order in which it is printed."""
    for record_bytes, goal in ((64 << 10, 0.5), (4 << 10, 0.5), (1 << 10, 0.5), (200, None)):
        title = f"whole batches of 64 KB survive, records of {record_bytes:,} bytes"
        if options.only in title:
            yield whole_table(options, directory, record_bytes, goal, title)
    yield opened_table(options, directory)


if __name__ == "__main__":
    with scratch_directory() as scratch:
        report("Compaction, beside a plain copy.", partial(tables, scratch))
