"""Searching and counting, beside what a search of the bare bytes costs, and decoding everything."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

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
    workload,
)
from logstore.config import LogConfig
from logstore.inspect.finding import Finder
from logstore.inspect.query import Query
from logstore.inspect.sources import Partition
from logstore.inspect.statistics import Statistics
from logstore.inspect.walking import body_of
from logstore.log import PartitionLog
from logstore.segments.compression import Codec
from logstore.segments.record import Record

NEEDLE = b"the needle in the haystack"

Run = Callable[[Path, int], object]
"""Does something with the partition in a directory, which holds so many records; the last of them
has the needle."""


@contextlib.contextmanager
def _session(
    directory: Path, batches: list[list[Record]], codec: Codec, run: Run
) -> Iterator[Work]:
    with TemporaryDirectory(dir=directory) as path:
        config = LogConfig(segment_bytes=1 << 30)
        with PartitionLog(Path(path) / "events-0", config=config) as log:
            for batch in batches:
                log.append(batch, acks=1, codec=codec)
            log.append(
                [Record(timestamp=batches[-1][-1].timestamp, value=NEEDLE)], acks=1, codec=codec
            )
        yield partial(run, Path(path) / "events-0", sum(map(len, batches)))


def _partition(path: Path) -> Partition:
    return Partition("events", 0, str(path))


def _log(path: Path) -> Path:
    (log,) = path.glob("*.log")
    return log


def find(path: Path, count: int, query: Query) -> None:
    """`logstore find`, without the start of the program and what it prints."""
    (found,) = Finder(query).search(_partition(path))
    assert found.record.offset == count


def find_by_hand(path: Path, count: int) -> None:
    """Every record is decoded, and looked at."""
    found = offset = 0
    with PartitionLog(path, read_only=True) as log:
        while (fetch := log.read(offset)).data:
            for record in fetch.records():
                if record.value is not None and NEEDLE in record.value:
                    found += 1
            offset = fetch.next_offset
    assert found == 1


def decompress(path: Path, count: int) -> None:
    """Batches are decompressed, and the bytes searched, not more."""
    found = offset = 0
    with PartitionLog(path, read_only=True) as log:
        while (fetch := log.read(offset)).data:
            for batch in fetch.batches():
                found += NEEDLE in (body_of(batch) or b"")
            offset = fetch.next_offset
    assert found == 1


def grep(path: Path, count: int) -> None:
    """`grep` of the file, which knows nothing of batches."""
    command = ["grep", "-a", "-c", "-F", NEEDLE.decode(), str(_log(path))]
    done = subprocess.run(command, env={**os.environ, "LC_ALL": "C"}, capture_output=True)
    assert done.stdout.split() == [b"1"]


def bare_bytes(path: Path, count: int) -> None:
    """The file is read a mebibyte at a time and searched, which is the least there is to do."""
    found = 0
    with _log(path).open("rb", buffering=0) as file:
        while block := file.read(1 << 20):
            found += NEEDLE in block
    assert found == 1


def count_all(path: Path, count: int, quick: bool) -> None:
    """`logstore stats`."""
    found = Statistics(quick=quick).add(_partition(path))
    assert found.records == count + 1


def tables(directory: Path, options: Options) -> Iterator[Table]:
    """Everything, in the order in which it is printed."""
    count = options.count(100_000)
    batches = workload("keyed", count)
    text = NEEDLE.decode()

    def on(run: Run, codec: Codec = Codec.NONE) -> Session:
        return lambda: _session(directory, batches, codec, run)

    yield Table(
        f"find one record, batches of {BATCH_RECORDS} of 200 bytes, uncompressed",
        [
            Row("find --fixed-strings", count, on(partial(find, query=Query(text, fixed=True)))),
            Row("find, a text and \\w+", count, on(partial(find, query=Query(text[:9] + r"\w+")))),
            Row(
                "find --ignore-case",
                count,
                on(partial(find, query=Query(text, ignore_case=True))),
            ),
            Row("find, no text to go by", count, on(partial(find, query=Query(r"[n]eedle in")))),
            Row("grep -F of the file", count, on(grep), "A"),
            Row("reading and bytes.find alone", count, on(bare_bytes), "B"),
            Row("decoding all and looking", count, on(find_by_hand), "C"),
        ],
    )
    zstd = partial(on, codec=Codec.ZSTD)
    yield Table(
        "the same, zstd",
        [
            Row("find --fixed-strings", count, zstd(partial(find, query=Query(text, fixed=True)))),
            Row("decompressing and bytes.find alone", count, zstd(decompress), "A"),
            Row("decoding all and looking", count, zstd(find_by_hand), "B"),
        ],
    )
    yield Table(
        "count records, sizes, times and keys, uncompressed",
        [
            Row("stats", count, on(partial(count_all, quick=False))),
            Row("stats --quick", count, on(partial(count_all, quick=True))),
            Row("decoding all and looking", count, on(find_by_hand), "A"),
        ],
    )


if __name__ == "__main__":
    with scratch_directory() as scratch:
        report("Searching and counting, beside their limits.", partial(tables, scratch))
