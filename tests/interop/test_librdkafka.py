"""librdkafka reads our records over the wire, from a broker that serves our logs' raw bytes."""

from __future__ import annotations

import contextlib
import itertools
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from logstore.log import PartitionLog
from logstore.segments.batch import iter_batches

from .comparing import assert_same
from .consuming import Reader, ReadError, confluent_kafka, expected_from
from .fetch_server import FetchServer
from .written import Partition


@pytest.fixture(scope="module")
def reader(partitions: list[Partition]) -> Iterator[Reader]:
    with contextlib.ExitStack() as stack:
        logs = {
            partition.name: stack.enter_context(
                PartitionLog(partition.directory, config=partition.config, read_only=True)
            )
            for partition in partitions
        }
        server = stack.enter_context(FetchServer(logs))
        yield Reader(server.address, errors=lambda: server.errors)
        assert server.errors == []


def test_it_reads_every_record_from_the_start(reader: Reader, partitions: list[Partition]) -> None:
    found = reader.read({partition.name: 0 for partition in partitions})
    for partition in partitions:
        assert_same(found[partition.name], expected_from(partition, 0), partition.name)


@pytest.mark.parametrize("where", ["second", "middle", "last"])
def test_it_reads_on_from_inside_a_batch(
    reader: Reader, partitions: list[Partition], where: str
) -> None:
    """In each partition one of the largest batches, so that there is an inside."""
    offsets: dict[str, int] = {}
    for partition in partitions:
        headers = [b.header for log in partition.logs for b in iter_batches(log.read_bytes())]
        if not headers:
            continue
        largest = max(headers, key=lambda header: header.last_offset_delta)
        offsets[partition.name] = {
            "second": largest.base_offset + 1,
            "middle": (largest.base_offset + largest.last_offset) // 2,
            "last": largest.last_offset,
        }[where]
    found = reader.read(offsets)
    for partition in partitions:
        if partition.name in offsets:
            expected = expected_from(partition, offsets[partition.name])
            assert_same(found[partition.name], expected, partition.name)


def test_it_starts_in_the_gaps_that_a_cleaner_left(
    reader: Reader, partitions: list[Partition]
) -> None:
    (partition,) = [each for each in partitions if each.name == "transactions"]
    offsets = [row.record.offset for row in partition.rows]
    gaps = [(one, two) for one, two in itertools.pairwise(offsets) if two > one + 2]
    assert gaps
    for one, two in gaps[:3]:
        start = (one + two) // 2
        found = reader.read({partition.name: start})
        assert_same(found[partition.name], expected_from(partition, start), start)


def test_it_finds_offsets_by_time(reader: Reader, partitions: list[Partition]) -> None:
    filled = [partition for partition in partitions if partition.rows]
    for part in (0, 1, 2, 3):
        times: dict[str, int] = {}
        for partition in filled:
            stamps = sorted(record.timestamp for record in partition.records)
            times[partition.name] = max(0, stamps[(len(stamps) - 1) * part // 3])
        found = reader.offsets_for_times(times)
        for partition in filled:
            first = next(
                (r.offset for r in partition.records if r.timestamp >= times[partition.name]),
                confluent_kafka.OFFSET_END,
            )
            assert found[partition.name] == first, (partition.name, times[partition.name])


def test_it_sees_where_our_logs_begin_and_end(reader: Reader, partitions: list[Partition]) -> None:
    found = reader.watermarks(partition.name for partition in partitions)
    for partition in partitions:
        end = partition.rows[-1].record.offset + 1 if partition.rows else 0
        assert found[partition.name] == (0, end), partition.name


def test_it_refuses_a_batch_in_which_a_bit_has_flipped(
    partitions: list[Partition], tmp_path: Path
) -> None:
    """So the tests above did have our checksums checked."""
    (partition,) = [each for each in partitions if each.name == "small-batches"]
    copy = tmp_path / "flipped-0"
    shutil.copytree(partition.directory, copy)
    with (
        PartitionLog(copy, config=partition.config) as log,
        FetchServer({"flipped": log}) as server,
    ):
        (path,) = copy.glob("*.log")
        data = bytearray(path.read_bytes())
        batch = list(iter_batches(bytes(data)))[100]
        data[batch.position + batch.header.size - 2] ^= 1  # inside its last record's value
        path.write_bytes(data)
        with pytest.raises(ReadError, match="CRC"):
            Reader(server.address, errors=lambda: server.errors).read(
                {"flipped": batch.header.base_offset}
            )
        assert server.errors == []
