"""Small partitions in memory, for tests that check and damage them."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from pathlib import Path

from logstore.segments.batch import encode_batch, iter_batches
from logstore.segments.check import Finding, Totals, check
from logstore.segments.checkpoint import (
    EpochEntry,
    PartitionMetadata,
    format_leader_epochs,
    format_partition_metadata,
)
from logstore.segments.compression import Codec
from logstore.segments.control import ControlType, end_transaction_marker
from logstore.segments.filenames import segment_file
from logstore.segments.files import Files, write_fully
from logstore.segments.indexing import build_indexes
from logstore.segments.memory_files import MemoryFiles
from logstore.segments.record import Record

NOW = 1_700_000_000_000
FIRST_LOG = "00000000000000000100.log"
FIRST_INDEX = "00000000000000000100.index"
FIRST_TIME_INDEX = "00000000000000000100.timeindex"
LAST_LOG = "00000000000000000109.log"
LAST_INDEX = "00000000000000000109.index"
LAST_TIME_INDEX = "00000000000000000109.timeindex"
EPOCHS = "leader-epoch-checkpoint"
METADATA = "partition.metadata"

TOPIC_ID = uuid.UUID("01234567-89ab-cdef-0fed-cba987654321")


def write(files: Files, path: str, data: bytes) -> None:
    """Make or replace a file."""
    file = files.open(path, write=True, create=True)
    file.truncate(0)
    write_fully(file, data, 0)
    file.close()


def batch(
    base_offset: int,
    timestamps: Sequence[int],
    *,
    codec: Codec = Codec.NONE,
    leader_epoch: int = 3,
    values: Sequence[bytes | None] = (),
) -> bytes:
    """A batch with a record for each timestamp (counted from ``NOW``)."""
    records = [
        Record(
            timestamp=NOW + timestamp,
            key=b"k%d" % index,
            value=values[index] if values else b"value %d" % (base_offset + index),
            headers=[("h", None)] if index % 2 else [],
        )
        for index, timestamp in enumerate(timestamps)
    ]
    return encode_batch(records, base_offset=base_offset, leader_epoch=leader_epoch, codec=codec)


def marker(base_offset: int, timestamp: int, *, leader_epoch: int = 3) -> bytes:
    """A control batch that commits a transaction."""
    record = end_transaction_marker(
        ControlType.COMMIT, timestamp=NOW + timestamp, coordinator_epoch=5
    )
    return encode_batch(
        [record],
        base_offset=base_offset,
        leader_epoch=leader_epoch,
        producer_id=7,
        producer_epoch=0,
        transactional=True,
        control=True,
    )


def segment(batches: Sequence[bytes], base_offset: int, *, interval: int = 100) -> dict[str, bytes]:
    """The three files of a closed segment, by name."""
    log = b"".join(batches)
    headers = [(found.position, found.header) for found in iter_batches(log)]
    offsets, times = build_indexes(headers, base_offset=base_offset, index_interval_bytes=interval)
    return {
        segment_file(base_offset, ".log"): log,
        segment_file(base_offset, ".index"): offsets,
        segment_file(base_offset, ".timeindex"): times,
    }


def two_segments() -> dict[str, bytes]:
    """A partition of two segments, every file with something in it, by name."""
    return {
        **segment(
            [
                batch(100, [0, 1]),
                batch(102, [5, 3, 4], codec=Codec.GZIP),
                batch(105, [2]),
                batch(106, [9, 9], leader_epoch=4),
                marker(108, 12, leader_epoch=4),
            ],
            100,
        ),
        **segment(
            [
                batch(109, [20], leader_epoch=4),
                batch(110, [19, 25], leader_epoch=4, codec=Codec.ZSTD),
                batch(112, [40, 30, 41], leader_epoch=4, values=[None, b"", b"\xff\x00"]),
            ],
            109,
        ),
        "leader-epoch-checkpoint": format_leader_epochs([EpochEntry(3, 100), EpochEntry(4, 106)]),
        "partition.metadata": format_partition_metadata(PartitionMetadata(0, TOPIC_ID)),
    }


def in_memory(contents: dict[str, bytes], directory: str = "orders-0") -> MemoryFiles:
    """A file system that holds one partition."""
    files = MemoryFiles()
    files.make_directory(directory)
    for name, data in contents.items():
        write(files, f"{directory}/{name}", data)
    return files


def on_disk(contents: dict[str, bytes], directory: Path) -> Path:
    """The same in a directory of the real file system."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, data in contents.items():
        (directory / name).write_bytes(data)
    return directory


def findings_of(
    files: Files, path: str = "orders-0", *, totals: Totals | None = None
) -> list[Finding]:
    """All that a check finds, without waiting for writers that are not there."""
    found = check(files, path, totals=totals, pause=lambda: None)
    assert found is not None, f"{path} is nothing that could be checked"
    return list(found)


def damage_in(contents: dict[str, bytes]) -> list[Finding]:
    """The damage of a partition."""
    return [f for f in findings_of(in_memory(contents)) if f.severity == "damage"]


def one_damage(contents: dict[str, bytes]) -> Finding:
    """The damage of a partition that has exactly one."""
    found = damage_in(contents)
    assert len(found) == 1, found
    return found[0]


def place(finding: Finding) -> tuple[str, int]:
    return finding.path.removeprefix("orders-0/"), finding.position
