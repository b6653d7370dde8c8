"""Appending to a partition and reading it back: how fast, and how far from what is possible.

    python bench/append.py [--quick] [--json] [--only TITLE]

Limits: the system calls alone over the same bytes (written by a Python loop), LMDB without syncs,
and for reading the decoder alone over the same bytes in memory. Everything lies on the disk that
the repository is on. One process and one thread.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import lmdb

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.harness import (
    BATCH_RECORDS,
    Options,
    Row,
    Session,
    Table,
    Work,
    report,
    scratch_directory,
    steady,
    workload,
)
from logstore.log import Acks, PartitionLog
from logstore.segments.batch import Batch, encode_batch, iter_batches
from logstore.segments.record import Record

NOW_MS = 1_700_000_000_000
MAP_BYTES = 1 << 34
STATE_BYTES = 128
"""About as many bytes as an append publishes in the shared state."""

Batches = list[list[Record]]


# What is timed --------------------------------------------------------------------------------


def on_new_log(directory: Path, work: Callable[[PartitionLog], object]) -> Session:
    """A session on an empty log of its own, whose opening and closing are not timed."""

    @contextlib.contextmanager
    def session() -> Iterator[Work]:
        with tempfile.TemporaryDirectory(dir=directory) as path, PartitionLog(path) as log:
            yield partial(work, log)

    return session


def on_new_file(directory: Path, work: Callable[[int], object]) -> Session:
    """A session on an empty file of its own, given by its descriptor."""

    @contextlib.contextmanager
    def session() -> Iterator[Work]:
        with tempfile.TemporaryDirectory(dir=directory) as path:
            descriptor = os.open(os.path.join(path, "file"), os.O_RDWR | os.O_CREAT)
            try:
                yield partial(work, descriptor)
            finally:
                os.close(descriptor)

    return session


def append_batches(batches: Sequence[list[Record] | Batch], acks: Acks, log: PartitionLog) -> None:
    """Batch by batch."""
    append = log.append
    for batch in batches:
        append(batch, acks=acks)


def append_single(records: Sequence[list[Record]], log: PartitionLog) -> None:
    """Record by record; each stands in a list of its own."""
    append = log.append
    for record in records:
        append(record, acks=1)


def join_and_write(batches: Batches, descriptor: int) -> None:
    """Look at each record, join the values, write."""
    for records in batches:
        parts: list[bytes] = []
        append = parts.append
        for _, _, _, value, _ in records:
            if value is not None:
                append(value)
        os.write(descriptor, b"".join(parts))


def encode_and_write(batches: Batches, descriptor: int) -> None:
    """Encode batches, and write them: no log, no locks, no index."""
    for records in batches:
        os.write(descriptor, encode_batch(records, default_timestamp=NOW_MS))


def write_only(blocks: Sequence[bytes], descriptor: int) -> None:
    """Write ready blocks."""
    write = os.write
    for block in blocks:
        write(descriptor, block)


def write_and_sync(blocks: Sequence[bytes], descriptor: int) -> None:
    """Write ready blocks, each one synced."""
    for block in blocks:
        os.write(descriptor, block)
        os.fdatasync(descriptor)


def encode_write_and_sync(batches: Batches, descriptor: int) -> None:
    """Encode batches, write and sync each one."""
    for records in batches:
        os.write(descriptor, encode_batch(records, default_timestamp=NOW_MS))
        os.fdatasync(descriptor)


def lock_and_write(blocks: Sequence[bytes], directory: Path) -> Session:
    """A session of the system calls that an append by many processes needs at least, in a bare
    loop: lock, look at the file's size, write, publish the new end in shared memory, unlock."""

    @contextlib.contextmanager
    def session() -> Iterator[Work]:
        with (
            tempfile.TemporaryDirectory(dir=directory) as path,
            open(os.path.join(path, "log"), "w+b", buffering=0) as log,
            open(os.path.join(path, "lock"), "w+b", buffering=0) as lock,
            open(os.path.join(path, "state"), "w+b", buffering=0) as state,
        ):
            state.truncate(mmap.PAGESIZE)
            with mmap.mmap(state.fileno(), mmap.PAGESIZE) as shared:
                yield partial(_lock_and_write, blocks, log.fileno(), lock.fileno(), shared)

    return session


def _lock_and_write(blocks: Sequence[bytes], log: int, lock: int, shared: mmap.mmap) -> None:
    end = 0
    published = bytes(STATE_BYTES)
    for block in blocks:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.lseek(log, 0, os.SEEK_END) != end:
            raise AssertionError("somebody else has written")
        os.pwrite(log, block, end)
        end += len(block)
        shared[:STATE_BYTES] = published
        fcntl.flock(lock, fcntl.LOCK_UN)


def put_into_lmdb(batches: Batches, directory: Path) -> Session:
    """A session of LMDB without syncs: a transaction for each batch, keys that ascend."""

    @contextlib.contextmanager
    def session() -> Iterator[Work]:
        with (
            tempfile.TemporaryDirectory(dir=directory) as path,
            lmdb.open(path, map_size=MAP_BYTES, sync=False) as environment,
        ):
            yield partial(_put_into_lmdb, batches, environment)

    return session


def _put_into_lmdb(batches: Batches, environment: lmdb.Environment) -> None:
    offset = 0
    for records in batches:
        with environment.begin(write=True) as transaction:
            put = transaction.put
            for _, _, _, value, _ in records:
                put(offset.to_bytes(8, "big"), value or b"", append=True)
                offset += 1


def on_full_log(
    directory: Path, batches: Sequence[list[Record]], work: Callable[[PartitionLog], object]
) -> Session:
    """A session on a log that holds ``batches``; every round opens it anew."""
    path = Path(tempfile.mkdtemp(dir=directory))
    with PartitionLog(path) as log:
        append_batches(batches, 1, log)

    @contextlib.contextmanager
    def session() -> Iterator[Work]:
        with PartitionLog(path, read_only=True) as log:
            yield partial(work, log)

    return session


def read_records(log: PartitionLog) -> int:
    """Every record."""
    offset, count, end = 0, 0, log.log_end_offset
    while offset < end:
        fetch = log.read(offset)
        for _ in fetch.records():
            count += 1
        offset = fetch.next_offset
    return count


def read_bytes(log: PartitionLog) -> int:
    """Every batch, unopened."""
    offset, size, end = 0, 0, log.log_end_offset
    while offset < end:
        fetch = log.read(offset)
        size += len(fetch.data)
        offset = fetch.next_offset
    return size


def decode_all(chunks: Sequence[bytes]) -> int:
    """The decoder alone: the same chunks, in memory."""
    count = 0
    for chunk in chunks:
        for batch in iter_batches(chunk):
            batch.check_crc()
            for _ in batch.records():
                count += 1
    return count


# Tables ---------------------------------------------------------------------------------------


def ready(batches: Batches) -> list[Batch]:
    """The same as batches that are encoded already."""
    return [Batch.parse(encode_batch(records, default_timestamp=NOW_MS)) for records in batches]


def written_table(options: Options, directory: Path) -> Table:
    """Batches that are in the operating system's hands when the append returns."""
    count = options.count(100_000)
    plain, stamped = workload("same size", count), workload("stamped", count)
    return Table(
        "append batches of 500 records of 200 bytes, acks=1",
        [
            Row(
                "records without timestamps",
                count,
                on_new_log(directory, partial(append_batches, plain, 1)),
                goal=1_200_000,
            ),
            Row(
                "records with timestamps",
                count,
                on_new_log(directory, partial(append_batches, stamped, 1)),
                goal=1_200_000,
            ),
            Row(
                "ready batches",
                count,
                on_new_log(directory, partial(append_batches, ready(plain), 1)),
            ),
            Row(
                "join the values, os.write",
                count,
                on_new_file(directory, partial(join_and_write, plain)),
                "A",
            ),
            Row(
                "encode batches, os.write",
                count,
                on_new_file(directory, partial(encode_and_write, plain)),
                "B",
            ),
            Row("LMDB, sync=False", count, put_into_lmdb(plain, directory), "C"),
        ],
    )


def synced_table(options: Options, directory: Path) -> Table:
    """Batches that are on stable storage when the append returns."""
    count = options.count(50_000)
    plain = workload("same size", count)
    batches = ready(plain)
    blocks = [batch.raw for batch in batches]
    return Table(
        "append batches of 500 records of 200 bytes, acks=all",
        [
            Row(
                "ready batches",
                count,
                on_new_log(directory, partial(append_batches, batches, "all")),
                goal=0.8,
                goal_of="A",
            ),
            Row(
                "os.write, fdatasync",
                count,
                on_new_file(directory, partial(write_and_sync, blocks)),
                "A",
            ),
            Row(
                "records",
                count,
                on_new_log(directory, partial(append_batches, plain, "all")),
                goal=0.8,
                goal_of="B",
            ),
            Row(
                "encode batches, os.write, fdatasync",
                count,
                on_new_file(directory, partial(encode_write_and_sync, plain)),
                "B",
            ),
        ],
    )


def single_table(options: Options, directory: Path) -> Table:
    """One record at a time."""
    count = options.count(50_000)
    plain = [[record] for batch in workload("same size", count) for record in batch]
    stamped = [[record] for batch in workload("stamped", count) for record in batch]
    values = [record.value or b"" for (record,) in plain]
    blocks = [encode_batch(records, default_timestamp=NOW_MS) for records in plain]
    return Table(
        "append single records of 200 bytes, acks=1",
        [
            Row(
                "a record without timestamp",
                count,
                on_new_log(directory, partial(append_single, plain)),
                goal=200_000,
            ),
            Row(
                "a record with timestamp",
                count,
                on_new_log(directory, partial(append_single, stamped)),
                goal=200_000,
            ),
            Row(
                "os.write of 200 bytes",
                count,
                on_new_file(directory, partial(write_only, values)),
                "A",
            ),
            Row(
                "os.write of whole batches (269 bytes)",
                count,
                on_new_file(directory, partial(write_only, blocks)),
                "B",
            ),
            Row(
                "flock, lseek, pwrite, store into a map, unlock",
                count,
                lock_and_write(blocks, directory),
                "C",
            ),
        ],
    )


def read_tables(options: Options, directory: Path) -> Iterator[Table]:
    """From the start of a log to its end; the files are in the operating system's cache."""
    count = options.count(50_000)
    records = workload("stamped", count)
    single = [[record] for batch in records for record in batch]
    for size, batches in ((BATCH_RECORDS, records), (1, single)):
        raws = [encode_batch(batch) for batch in batches]
        per_chunk = max(1, (1 << 20) // len(raws[0]))
        chunks = [
            b"".join(raws[start : start + per_chunk]) for start in range(0, len(raws), per_chunk)
        ]
        yield Table(
            f"read batches of {size}, records of 200 bytes",
            [
                Row("records", count, on_full_log(directory, batches, read_records)),
                Row("whole batches, unopened", count, on_full_log(directory, batches, read_bytes)),
                Row(
                    "the decoder alone, on bytes in memory",
                    count,
                    steady(partial(decode_all, chunks)),
                    "A",
                ),
            ],
        )


def tables(directory: Path, options: Options) -> Iterator[Table]:
    """Everything, in the order in which it is printed."""
    yield written_table(options, directory)
    yield synced_table(options, directory)
    yield single_table(options, directory)
    yield from read_tables(options, directory)


if __name__ == "__main__":
    with scratch_directory() as scratch:
        report("Appending and reading back, beside their limits.", partial(tables, scratch))
