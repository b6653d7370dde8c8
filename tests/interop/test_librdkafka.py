"""librdkafka reads our records over the wire, from a broker that serves our logs' raw bytes."""

from __future__ import annotations

import contextlib
import itertools
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from logstore.log import PartitionLog
from logstore.segments.batch import iter_batches
from logstore.segments.header import TimestampType
from logstore.segments.record import Record

from .comparing import assert_same
from .fetch_server import FetchServer
from .written import Partition

confluent_kafka: Any = pytest.importorskip(
    "confluent_kafka", reason="confluent-kafka is not installed (the dev extra brings it)"
)

DEADLINE_S = 60
"""Far more than it takes: whoever hits it is stuck."""

_TIMESTAMP_TYPES = {TimestampType.CREATE: 1, TimestampType.LOG_APPEND: 2}
"""librdkafka's numbers; its 0 stands for messages of format 0."""


class ReadError(Exception):
    """librdkafka gave an error in place of a message."""


class Message(NamedTuple):
    """A message as librdkafka gives it to its user."""

    record: Record
    timestamp_type: int


class Reader:
    """Reads from a server, each time with a consumer of its own: nothing is left from before."""

    def __init__(self, server: FetchServer) -> None:
        self._server = server

    @contextlib.contextmanager
    def _consumer(self) -> Iterator[Any]:
        consumer = confluent_kafka.Consumer(
            {
                "bootstrap.servers": self._server.address,
                "group.id": "asked for, and never joined",
                "enable.auto.commit": False,
                "auto.offset.reset": "error",
                "check.crcs": True,
                "enable.partition.eof": True,
                "isolation.level": "read_uncommitted",
            }
        )
        try:
            yield consumer
        finally:
            consumer.close()

    def read(self, offsets: Mapping[str, int]) -> dict[str, list[Message]]:
        """Everything from these offsets to the end of each partition."""
        found: dict[str, list[Message]] = {name: [] for name in offsets}
        unfinished = set(offsets)
        deadline = time.monotonic() + DEADLINE_S
        with self._consumer() as consumer:
            consumer.assign(
                [confluent_kafka.TopicPartition(name, 0, start) for name, start in offsets.items()]
            )
            while unfinished:
                assert time.monotonic() < deadline, f"no end: {unfinished}, {self._server.errors}"
                for message in consumer.consume(1000, timeout=0.1):
                    if message.error() is None:
                        found[message.topic()].append(_message(message))
                    elif message.error().code() == confluent_kafka.KafkaError._PARTITION_EOF:
                        unfinished.discard(message.topic())
                    else:
                        raise ReadError(f"{message.topic()}: {message.error()}")
        return found

    def offsets_for_times(self, times: Mapping[str, int]) -> dict[str, int]:
        """For each partition, the offset of the first record at that time or after it."""
        asked = [confluent_kafka.TopicPartition(name, 0, time) for name, time in times.items()]
        with self._consumer() as consumer:
            answers = consumer.offsets_for_times(asked, timeout=DEADLINE_S)
        return {answer.topic: answer.offset for answer in answers}

    def watermarks(self, names: Iterable[str]) -> dict[str, tuple[int, int]]:
        """For each partition, the lowest offset and the one behind the highest."""
        with self._consumer() as consumer:
            return {
                name: consumer.get_watermark_offsets(
                    confluent_kafka.TopicPartition(name, 0), timeout=DEADLINE_S
                )
                for name in names
            }


def _message(message: Any) -> Message:
    kind, timestamp = message.timestamp()
    return Message(
        Record(
            message.offset(),
            timestamp,
            message.key(),
            message.value(),
            tuple(message.headers() or ()),
        ),
        kind,
    )


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
        yield Reader(server)
        assert server.errors == []


def expected_from(partition: Partition, offset: int) -> list[Message]:
    """What a consumer should get that begins at ``offset``."""
    return [
        Message(row.record, _TIMESTAMP_TYPES[row.timestamp_type])
        for row in partition.rows
        if row.control is None and row.record.offset >= offset
    ]


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
            Reader(server).read({"flipped": batch.header.base_offset})
        assert server.errors == []
