"""An index that was lost costs nothing but time: the log says all that it said."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from logstore.log import PartitionLog
from logstore.segments import offset_index, time_index
from logstore.segments.batch import iter_batches
from logstore.segments.filenames import LOG, OFFSET_INDEX, TIME_INDEX
from logstore.segments.record import Record

from .comparing import assert_same
from .corpus import DAYS
from .written import START_MS, Partition

INDEXES = (OFFSET_INDEX, TIME_INDEX)


def everything_in(log: PartitionLog) -> list[Record]:
    """All records, in several fetches."""
    records: list[Record] = []
    offset = log.log_start_offset
    while (fetch := log.read(offset, max_bytes=5000)).data:
        records += fetch.records()
        offset = fetch.next_offset
    return records


def lose(directory: Path, stem: str) -> None:
    for suffix in INDEXES:
        (directory / (stem + suffix)).unlink()


@pytest.mark.parametrize("state", ["kept", "lost"])
def test_opening_makes_the_active_segments_indexes_anew(
    partitions: list[Partition], tmp_path: Path, state: str
) -> None:
    """Byte for byte, and also while the shared state still counts the entries of the old ones."""
    for partition in partitions:
        copy = tmp_path / partition.directory.name
        shutil.copytree(partition.directory, copy)
        # The state of the copied directory was not trusted; this one is, when it is kept.
        PartitionLog(copy, config=partition.config).close()
        stem = partition.logs[-1].stem
        lose(copy, stem)
        if state == "lost":
            (copy / "state").unlink()
        PartitionLog(copy, config=partition.config).close()
        for suffix in INDEXES:
            path = copy / (stem + suffix)
            if not partition.reopened:  # each closing adds an entry to the time index
                original = partition.directory / path.name
                assert path.read_bytes() == original.read_bytes(), f"{partition.name}: {path.name}"


@pytest.mark.parametrize("state", ["kept", "lost"])
def test_appending_goes_on_behind_indexes_that_are_right(
    partitions: list[Partition], tmp_path: Path, state: str
) -> None:
    for partition in partitions:
        copy = tmp_path / partition.directory.name
        shutil.copytree(partition.directory, copy)
        PartitionLog(copy, config=partition.config).close()
        for log_path in partition.logs:
            lose(copy, log_path.stem)
        if state == "lost":
            (copy / "state").unlink()
        added = [Record(timestamp=START_MS + DAYS + n, value=b"more" * 80) for n in range(20)]
        with PartitionLog(copy, config=partition.config) as log:
            for record in added:
                log.append([record], acks=1)
            values = [record.value for record in everything_in(log)]
        expected = [record.value for record in [*partition.records, *added]]
        assert_same(values, expected, partition.name)
        stems = [
            path.stem for path in copy.glob("*.log") if path.with_suffix(OFFSET_INDEX).exists()
        ]
        assert partition.logs[-1].stem in stems
        for stem in stems:
            check_entries(copy / (stem + LOG))


def check_entries(log: Path) -> None:
    """Every entry of a segment's indexes names a batch that is there, and they ascend."""
    base = int(log.stem)
    headers = [(batch.position, batch.header) for batch in iter_batches(log.read_bytes())]
    offsets = offset_index.decode_entries(base, log.with_suffix(OFFSET_INDEX).read_bytes())
    assert_same(offsets, sorted(set(offsets)), log)
    assert {*offsets} <= {(header.last_offset, position) for position, header in headers}, log
    times = time_index.decode_entries(base, log.with_suffix(TIME_INDEX).read_bytes())
    stamps = [entry.timestamp for entry in times]
    assert_same(stamps, sorted(set(stamps)), log)
    assert {*times} <= {(header.max_timestamp, header.last_offset) for _, header in headers}, log
