"""A partition that Kafka wrote can be carried into a store, and carried back.

The golden partitions are copied into a store's directory, opened, read, appended to and closed;
then Kafka's own tools have to accept what has become of them.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import logstore
from logstore.log import PartitionLog
from logstore.segments.batch import encode_batch
from logstore.segments.compression import Codec
from logstore.segments.filenames import LOG, OFFSET_INDEX, TIME_INDEX
from logstore.segments.record import Record

from . import kafka_tools
from .comparing import assert_same
from .corpus import odd_records, plain_records

WHY_NOT = kafka_tools.available()

GOLDEN = Path(__file__).resolve().parent.parent / "golden"
PARTITIONS = sorted(path for path in GOLDEN.iterdir() if list(path.glob("*.log")))
INTERVAL = 300
"""The golden indexes were written with this index_interval_bytes."""

Json = dict[str, Any]


def topic_of(partition: Path) -> str:
    return partition.name.removesuffix("-0")


def expected_records(partition: Path) -> list[Json]:
    """What Kafka reads from a golden partition and shows to consumers."""
    (sidecar,) = partition.glob("*.json")
    records = json.loads(sidecar.read_text(encoding="utf-8"))["records"]
    return [as_shown(record) for record in records if "control" not in record]


def as_shown(record: Json) -> Json:
    return {name: record[name] for name in ("offset", "timestamp", "key", "value", "headers")}


def ours_as_shown(record: Record) -> Json:
    return {
        "offset": record.offset,
        "timestamp": record.timestamp,
        "key": kafka_tools.brief(record.key),
        "value": kafka_tools.brief(record.value),
        "headers": [[name, kafka_tools.brief(value)] for name, value in record.headers],
    }


def everything_in(log: PartitionLog) -> list[Json]:
    """All records from the log's start on, read in several fetches."""
    shown = []
    offset = log.log_start_offset
    while (fetch := log.read(offset, max_bytes=2000)).data:
        shown += [ours_as_shown(record) for record in fetch.records()]
        offset = fetch.next_offset
    assert offset == log.log_end_offset
    return shown


def carried(root: Path, partitions: Sequence[Path], **config: Any) -> logstore.Store:
    """A store whose topics have these partitions for directories."""
    for partition in partitions:
        target = root / "topics" / partition.name
        # Of a broker's directory everything may come along; the .json is none of it.
        shutil.copytree(partition, target, ignore=shutil.ignore_patterns("*.json"))
    store = logstore.open(root)
    for partition in partitions:
        store.create_topic(topic_of(partition), index_interval_bytes=INTERVAL, **config)
    return store


def append_to(log: PartitionLog) -> list[Json]:
    """Append in several ways, and return what should be read of it."""
    shown: list[Json] = []
    for count, records in enumerate((odd_records(), plain_records(200, seed=1))):
        for start in range(0, len(records), 20):
            chunk = records[start : start + 20]
            if start % 40:
                base = log.append(chunk, acks=1, codec=Codec((count + start) % 5)).base_offset
            else:
                base = log.append_raw(encode_batch(chunk, codec=Codec.LZ4), acks=1).base_offset
            shown += [
                ours_as_shown(record._replace(offset=base + index))
                for index, record in enumerate(chunk)
            ]
    return shown


def test_every_golden_partition_is_read_in_a_store_as_kafka_reads_it(tmp_path: Path) -> None:
    with carried(tmp_path / "store", PARTITIONS) as store:
        for partition in PARTITIONS:
            log = store.topic(topic_of(partition)).partition(0)
            assert_same(everything_in(log), expected_records(partition), partition.name)


@pytest.mark.parametrize("partition", PARTITIONS, ids=topic_of)
def test_a_golden_partition_goes_on_where_kafka_left_it(partition: Path, tmp_path: Path) -> None:
    before = {path.name: path.read_bytes() for path in partition.glob("*.log")}
    expected = expected_records(partition)
    with carried(tmp_path / "store", [partition]) as store:
        expected += append_to(store.topic(topic_of(partition)).partition(0))
    with logstore.open(tmp_path / "store") as store:
        log = store.topic(topic_of(partition)).partition(0)
        assert_same(everything_in(log), expected, partition.name)
    for name, data in before.items():
        after = tmp_path / "store" / "topics" / partition.name / name
        assert after.read_bytes()[: len(data)] == data


@pytest.mark.kafka
@pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT))
def test_kafka_takes_every_golden_partition_back(tmp_path: Path) -> None:
    """In one go for all of them: a Java machine takes a while to start."""
    root = tmp_path / "store"
    expected = {partition: expected_records(partition) for partition in PARTITIONS}
    with carried(root, PARTITIONS, segment_bytes=12_000) as store:
        for partition in PARTITIONS:
            expected[partition] += append_to(store.topic(topic_of(partition)).partition(0))
    directories = {partition: root / "topics" / partition.name for partition in PARTITIONS}
    commands: list[list[str | Path]] = []
    for directory in directories.values():
        for log in sorted(directory.glob("*.log")):
            commands.append(["describe", log, "--brief"])
            for options in (["--deep-iteration"], ["--index-sanity-check"]):
                files = [log.with_suffix(suffix) for suffix in (LOG, OFFSET_INDEX, TIME_INDEX)]
                commands.append(["dump", "--files", kafka_tools.joined(files), *options])
        commands.append(["metadata", directory])
        commands.append(["epochs", directory])
        # Recovery comes last: it rewrites the indexes.
        commands += [
            ["recover", directory, str(int(log.stem)), str(INTERVAL)]
            for log in sorted(directory.glob("*.log"))
        ]
    answers = iter(kafka_tools.oracle_many(commands))
    for partition, directory in directories.items():
        logs = sorted(directory.glob("*.log"))
        found: list[Json] = []
        for log in logs:
            lines = next(answers).lines()
            found += [as_shown(record) for record in lines if "control" not in record]
            for _ in range(2):
                check_dump(next(answers), log)
        assert_same(found, expected[partition], partition.name)
        next(answers).check()
        next(answers).check()
        assert [next(answers).check() for _ in logs] == ["0\n"] * len(logs), partition.name


def check_dump(answer: kafka_tools.Answer, log: Path) -> None:
    """DumpLogSegments is content, but for gaps between offsets that Kafka itself left."""
    text = answer.check()
    assert "isvalid: false" not in text
    complaints = [line for line in answer.err.splitlines() if " is followed by " not in line]
    assert complaints in ([], [f"Non-consecutive offsets in {log}"]), log
