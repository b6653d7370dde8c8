"""Apache Kafka's own tools read what we write, and see in it what we see."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from logstore.segments.batch import Batch, iter_batches
from logstore.segments.filenames import OFFSET_INDEX, TIME_INDEX

from . import kafka_tools
from .comparing import assert_same, files_of
from .written import Partition, Row

WHY_NOT = kafka_tools.available()

pytestmark = [
    pytest.mark.kafka,
    pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT)),
]


class Kafka(NamedTuple):
    """Everything that Kafka says about the corpus, from one Java machine."""

    records: dict[Path, list[dict[str, Any]]]
    """For each log, what `describe --brief` finds in it."""
    batches: dict[Path, list[dict[str, Any]]]
    """For each log, what `batches` finds in it."""
    dump: dict[str, kafka_tools.Answer]
    """For each partition, what DumpLogSegments prints about its logs."""
    indexes: list[kafka_tools.Answer]
    """What DumpLogSegments prints about the indexes of all partitions, for each way to look."""


INDEX_OPTIONS = ((), ("--verify-index-only",), ("--index-sanity-check",))


@pytest.fixture(scope="module")
def said(partitions: list[Partition]) -> Kafka:
    logs = [log for partition in partitions for log in partition.logs]
    before = [files_of(partition.directory) for partition in partitions]
    commands: list[list[str | Path]] = []
    for log in logs:
        commands += [["describe", log, "--brief"], ["batches", log]]
    for partition in partitions:
        options = ("--print-data-log", "--deep-iteration")
        commands.append(["dump", "--files", kafka_tools.joined(partition.logs), *options])
    indexes = [
        path for partition in partitions for path in partition.files(OFFSET_INDEX, TIME_INDEX)
    ]
    commands += [
        ["dump", "--files", kafka_tools.joined(indexes), *options] for options in INDEX_OPTIONS
    ]
    answers = iter(kafka_tools.oracle_many(commands))
    records, batches = {}, {}
    for log in logs:
        records[log] = next(answers).lines()
        batches[log] = next(answers).lines()
    dump = {partition.name: next(answers) for partition in partitions}
    assert [files_of(partition.directory) for partition in partitions] == before
    return Kafka(records, batches, dump, list(answers))


def test_kafka_reads_every_record_as_it_was_appended(
    partitions: list[Partition], said: Kafka
) -> None:
    for partition in partitions:
        found = [record for log in partition.logs for record in said.records[log]]
        for record in found:
            assert record.pop("magic") == 2
            del record["base_offset"]  # of the batch; the next test looks at batches
        assert_same(found, [_as_described(row) for row in partition.rows], partition.name)


def _as_described(row: Row) -> dict[str, Any]:
    record = row.record
    described: dict[str, Any] = {
        "offset": record.offset,
        "timestamp": record.timestamp,
        "sequence": row.sequence,
        "key": kafka_tools.brief(record.key),
        "value": kafka_tools.brief(record.value),
        "headers": [[name, kafka_tools.brief(value)] for name, value in record.headers],
    }
    if row.control is not None:
        described["control"] = row.control
    return described


def test_kafka_reads_every_batch_as_we_do(partitions: list[Partition], said: Kafka) -> None:
    for partition in partitions:
        for log in partition.logs:
            ours = [_as_batch_line(batch) for batch in _batches_of(log)]
            assert_same(said.batches[log], ours, f"{partition.name}: {log.name}")
            assert all(line["valid"] for line in said.batches[log])


def _batches_of(log: Path) -> Iterator[Batch]:
    return iter_batches(log.read_bytes(), path=log.name)


def _as_batch_line(batch: Batch) -> dict[str, Any]:
    header = batch.header
    return {
        "position": batch.position,
        "size": header.size,
        "magic": header.magic,
        "base_offset": header.base_offset,
        "last_offset": header.last_offset,
        "count": header.record_count,
        "compression": header.codec.label,
        "crc": header.crc,
        "valid": batch.crc_ok,
        "timestamp_type": header.timestamp_type.label,
        "max_timestamp": header.max_timestamp,
        "leader_epoch": header.leader_epoch,
        "producer_id": header.producer_id,
        "producer_epoch": header.producer_epoch,
        "base_sequence": header.base_sequence,
        "last_sequence": _last_sequence(batch),
        "transactional": header.transactional,
        "control": header.control,
        "delete_horizon_ms": header.delete_horizon,
    }


def _last_sequence(batch: Batch) -> int:
    header = batch.header
    if header.base_sequence < 0:
        return -1
    return (header.base_sequence + header.last_offset_delta) & 0x7FFF_FFFF


def test_the_records_that_dump_log_segments_prints_are_ours(
    partitions: list[Partition], said: Kafka
) -> None:
    """Its text, whole: batches, records, keys, values, and `isvalid: true` for each batch."""
    for partition in partitions:
        answer = said.dump[partition.name]
        expected = "".join(_as_dumped(partition))
        assert_same(_lines(answer.check()), _lines(expected), partition.name)


def _lines(text: str) -> list[str]:
    # Java and Python do not agree on how many replacement characters stand for bytes that are
    # not UTF-8: any number of them is as good as one.
    return re.sub("\N{REPLACEMENT CHARACTER}+", "\N{REPLACEMENT CHARACTER}", text).split("\n")


def _as_dumped(partition: Partition) -> Iterator[str]:
    rows = iter(partition.rows)
    for log in partition.logs:
        yield f"Dumping {log}\nLog starting offset: {int(log.stem)}\n"
        for batch in _batches_of(log):
            yield _dumped_batch(batch)
            for _ in range(batch.header.record_count):
                yield _dumped_record(next(rows))


def _dumped_batch(batch: Batch) -> str:
    header = batch.header
    words: list[tuple[str, object]] = [
        ("baseOffset", header.base_offset),
        ("lastOffset", header.last_offset),
        ("count", header.record_count),
        ("baseSequence", header.base_sequence),
        ("lastSequence", _last_sequence(batch)),
        ("producerId", header.producer_id),
        ("producerEpoch", header.producer_epoch),
        ("partitionLeaderEpoch", header.leader_epoch),
        ("isTransactional", str(header.transactional).lower()),
        ("isControl", str(header.control).lower()),
        ("deleteHorizonMs", "OptionalLong.empty"),
        ("position", batch.position),
        (header.timestamp_type.label, header.max_timestamp),
        ("size", header.size),
        ("magic", header.magic),
        ("compresscodec", header.codec.label),
        ("crc", header.crc),
        ("isvalid", "true"),
    ]
    return " ".join(f"{name}: {value}" for name, value in words) + "\n"


def _dumped_record(row: Row) -> str:
    record = row.record
    text = (
        f"| offset: {record.offset} {row.timestamp_type.label}: {record.timestamp}"
        f" keySize: {_size(record.key)} valueSize: {_size(record.value)}"
        f" sequence: {row.sequence} headerKeys: [{','.join(name for name, _ in record.headers)}]"
    )
    if row.control is not None:
        assert record.value is not None
        epoch = int.from_bytes(record.value[2:6])
        return f"{text} endTxnMarker: {row.control} coordinatorEpoch: {epoch}\n"
    if record.key is not None:
        text += f" key: {record.key.decode(errors='replace')}"
    if record.value is not None:
        text += f" payload: {record.value.decode(errors='replace')}"
    return text + "\n"


def _size(data: bytes | None) -> int:
    return -1 if data is None else len(data)


def test_dump_log_segments_complains_of_nothing_but_the_gaps_that_are_there(
    partitions: list[Partition], said: Kafka
) -> None:
    complaint = re.compile(r"Non-consecutive offsets in (.*)|  (-?\d+) is followed by (-?\d+)")
    for partition in partitions:
        found: dict[str, list[tuple[int, int]]] = {}
        for line in said.dump[partition.name].err.splitlines():
            match = complaint.fullmatch(line)
            assert match is not None, f"{partition.name}: {line}"
            if match[1] is not None:
                gaps = found.setdefault(match[1], [])
            else:
                gaps.append((int(match[2]), int(match[3])))
        expected = {str(log): _gaps(log) for log in partition.logs}
        assert found == {log: gaps for log, gaps in expected.items() if gaps}, partition.name


def _gaps(log: Path) -> list[tuple[int, int]]:
    """The offsets that do not follow each other; the tool expects every log to begin at 0."""
    gaps = []
    last = -1
    for batch in _batches_of(log):
        if batch.header.base_offset != last + 1:
            gaps.append((last, batch.header.base_offset))
        last = batch.header.last_offset
    return gaps


@pytest.mark.parametrize("way", range(len(INDEX_OPTIONS)), ids=lambda way: str(INDEX_OPTIONS[way]))
def test_dump_log_segments_finds_our_indexes_right(
    partitions: list[Partition], said: Kafka, way: int
) -> None:
    answer = said.indexes[way]
    assert answer.err == ""
    lines = set(answer.check().splitlines())
    for partition in partitions:
        for path in partition.files(OFFSET_INDEX, TIME_INDEX):
            assert f"Dumping {path}" in lines
            if INDEX_OPTIONS[way] == ("--index-sanity-check",):
                empty = path.suffix == OFFSET_INDEX and not path.stat().st_size
                verdict = "is empty." if empty else "passed sanity check."
                assert f"{path} {verdict}" in lines
    assert not [line for line in lines if "ismatch" in line or "out of order" in line]
