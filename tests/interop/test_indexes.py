"""Our indexes and side files are the ones that Apache Kafka's own classes write, and accept."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import NamedTuple

import pytest

import logstore
from logstore.reader import rebuild_indexes
from logstore.segments.batch import iter_batches
from logstore.segments.checkpoint import parse_leader_epochs
from logstore.segments.filenames import (
    LEADER_EPOCH_CHECKPOINT,
    OFFSET_INDEX,
    PARTITION_METADATA,
    TIME_INDEX,
)
from logstore.segments.files import DiskFiles
from logstore.segments.record import Record

from . import kafka_tools
from .comparing import assert_same, files_of
from .written import Partition

WHY_NOT = kafka_tools.available()

pytestmark = [
    pytest.mark.kafka,
    pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT)),
]

INDEXES = (OFFSET_INDEX, TIME_INDEX)


def indexes_of(partition: Partition, directory: Path | None = None) -> dict[str, bytes]:
    """The index files of a partition, or of a copy of it."""
    return {
        path.name: path.read_bytes()
        for path in sorted((directory or partition.directory).iterdir())
        if path.suffix in INDEXES
    }


def differing(found: dict[str, bytes], expected: dict[str, bytes]) -> list[str]:
    """The names of files that are missing, too many or different."""
    names = sorted({*found, *expected})
    return [name for name in names if found.get(name) != expected.get(name)]


class Kafka(NamedTuple):
    """What Kafka's LogSegment made of our logs, in one Java machine."""

    appended: dict[str, Path]
    """For each partition, where the same batches were appended one at a time."""
    recovered: dict[str, Path]
    """For each partition, a copy of it that Kafka recovered."""
    cut: dict[str, list[str]]
    """For each partition, how many bytes recovery cut off each of its segments."""


@pytest.fixture(scope="module")
def made(partitions: list[Partition], tmp_path_factory: pytest.TempPathFactory) -> Kafka:
    root = tmp_path_factory.mktemp("kafka")
    appended: dict[str, Path] = {}
    recovered: dict[str, Path] = {}
    cut: dict[str, list[str]] = {}
    commands: list[list[str | Path]] = []
    for partition in partitions:
        name = partition.name
        appended[name] = root / "appended" / name
        recovered[name] = root / "recovered" / name
        shutil.copytree(partition.directory, recovered[name])
        interval = str(partition.config.index_interval_bytes)
        for log in partition.logs:
            base = str(int(log.stem))
            # The last segment of a broker that stops cleanly is closed, but not rolled.
            last = ["--no-roll"] if log == partition.logs[-1] else []
            commands.append(["append", appended[name], base, interval, log, *last])
            commands.append(["recover", recovered[name], base, interval])
    answers = iter(kafka_tools.oracle_many(commands))
    for partition in partitions:
        cut[partition.name] = []
        for _ in partition.logs:
            next(answers).check()
            cut[partition.name].append(next(answers).check().strip())
    return Kafka(appended, recovered, cut)


def test_appending_wrote_the_indexes_that_kafka_writes(
    partitions: list[Partition], made: Kafka
) -> None:
    for partition in partitions:
        if not partition.reopened:  # each closing adds an entry to the time index
            kafkas = indexes_of(partition, made.appended[partition.name])
            assert differing(indexes_of(partition), kafkas) == [], partition.name


def test_kafka_appended_the_same_bytes_that_stand_in_our_logs(
    partitions: list[Partition], made: Kafka
) -> None:
    for partition in partitions:
        for log in partition.logs:
            appended = made.appended[partition.name] / log.name
            assert appended.read_bytes() == log.read_bytes(), f"{partition.name}: {log.name}"


def test_kafkas_recovery_cuts_nothing_and_builds_the_same_indexes(
    partitions: list[Partition], made: Kafka
) -> None:
    for partition in partitions:
        assert set(made.cut[partition.name]) == {"0"}, partition.name
        recovered = made.recovered[partition.name]
        for log in partition.logs:
            assert (recovered / log.name).read_bytes() == log.read_bytes()
        expected = indexes_of(partition, made.appended[partition.name])
        assert differing(indexes_of(partition, recovered), expected) == [], partition.name


def test_rebuilding_gives_the_indexes_that_kafka_writes(
    partitions: list[Partition], made: Kafka
) -> None:
    files = DiskFiles()
    for partition in partitions:
        rebuilt = {}
        for log in partition.logs:
            file = files.open(str(log))
            base, end = int(log.stem), log.stat().st_size
            offsets, times = rebuild_indexes(file, base, end, partition.config)
            file.close()
            rebuilt[log.with_suffix(OFFSET_INDEX).name] = offsets
            rebuilt[log.with_suffix(TIME_INDEX).name] = times
        expected = indexes_of(partition, made.appended[partition.name])
        assert differing(rebuilt, expected) == [], partition.name


# Side files -----------------------------------------------------------------------------------


def test_kafka_reads_our_leader_epochs(partitions: list[Partition], made: Kafka) -> None:
    """And its own recovery, which takes them from the batches, knows no others."""
    answers = kafka_tools.oracle_many(["epochs", p.directory] for p in partitions)
    for partition, answer in zip(partitions, answers, strict=True):
        path = partition.directory / LEADER_EPOCH_CHECKPOINT
        ours = parse_leader_epochs(path.read_bytes())
        assert_same(
            answer.lines(),
            [{"epoch": epoch, "start_offset": offset} for epoch, offset in ours],
            partition.name,
        )
        # The entries of epochs in which nothing was written are no business of the batches.
        recovered = made.recovered[partition.name] / LEADER_EPOCH_CHECKPOINT
        assert parse_leader_epochs(recovered.read_bytes()) == ours, partition.name


def test_kafka_finds_every_epoch_where_its_batches_begin(partitions: list[Partition]) -> None:
    for partition in partitions:
        begins: dict[int, int] = {}
        for log in partition.logs:
            for batch in iter_batches(log.read_bytes()):
                begins.setdefault(batch.header.leader_epoch, batch.header.base_offset)
        entries = parse_leader_epochs((partition.directory / LEADER_EPOCH_CHECKPOINT).read_bytes())
        assert set(begins) <= {entry.epoch for entry in entries}, partition.name
        for entry in entries:
            assert entry.start_offset <= begins.get(entry.epoch, entry.start_offset)


def test_kafka_reads_our_partition_metadata(tmp_path: Path) -> None:
    with logstore.open(tmp_path) as store:
        topic = store.create_topic("orders", partitions=3)
        for number in range(3):
            topic.partition(number).append([Record(value=b"hello")])
        topic_id = topic.id
    directories = [tmp_path / "topics" / f"orders-{number}" for number in range(3)]
    before = files_of(tmp_path / "topics")
    commands: list[list[str | Path]] = [["metadata", each] for each in directories]
    commands += [["epochs", each] for each in directories]
    commands += [["describe", log] for each in directories for log in sorted(each.glob("*.log"))]
    answers = kafka_tools.oracle_many(commands)
    for directory, answer in zip(directories, answers[:3], strict=True):
        (line,) = answer.lines()
        assert line["version"] == 0
        # Kafka writes the 128 bits of an id in the same base64 that stands in the file.
        text = (directory / PARTITION_METADATA).read_text(encoding="ascii")
        assert text == f"version: 0\ntopic_id: {line['topic_id']}"
    assert len({answer.out for answer in answers[:3]}) == 1
    assert topic_id.int != 0
    assert [answer.lines() for answer in answers[3:6]] == [[{"epoch": 0, "start_offset": 0}]] * 3
    assert all(len(answer.lines()) == 1 for answer in answers[6:])
    assert files_of(tmp_path / "topics") == before
