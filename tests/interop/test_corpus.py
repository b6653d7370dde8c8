"""The corpus is what the tests beside this file take it for."""

from __future__ import annotations

from pathlib import Path

from logstore.segments.batch import iter_batches
from logstore.segments.compression import Codec
from logstore.segments.header import TimestampType

from .comparing import assert_same, files_of
from .corpus import MEGABYTE, build
from .written import Partition


def test_it_is_the_same_every_time(partitions: list[Partition], tmp_path: Path) -> None:
    again = build(tmp_path)
    assert [partition.name for partition in again] == [partition.name for partition in partitions]
    for first, second in zip(partitions, again, strict=True):
        assert_same(second.rows, first.rows, first.name)
        before, after = files_of(first.directory), files_of(second.directory)
        assert sorted(before) == sorted(after), first.name
        assert [name for name in before if before[name] != after[name]] == [], first.name


def test_it_holds_what_the_readers_are_to_be_tried_on(partitions: list[Partition]) -> None:
    headers = [
        batch.header
        for partition in partitions
        for log in partition.logs
        for batch in iter_batches(log.read_bytes())
    ]
    assert {header.codec for header in headers} == set(Codec)
    assert {header.timestamp_type for header in headers} == set(TimestampType)
    assert {(header.transactional, header.control) for header in headers} == {
        (False, False),
        (True, False),
        (True, True),
    }
    assert {header.leader_epoch for header in headers} >= {0, 1, 3, 4, 5}
    assert {header.producer_id for header in headers} >= {-1, 1001, 2001, 9_000_000_000}
    assert max(header.record_count for header in headers) > 200
    assert sum(len(partition.logs) > 1 for partition in partitions) > 10
    rows = [row for partition in partitions for row in partition.rows]
    assert {row.control for row in rows} == {None, "COMMIT", "ABORT"}
    assert max(len(row.record.value or b"") for row in rows) > 3 * MEGABYTE
    assert {row.record.timestamp for row in rows} >= {-1, 0}
    assert {None, b""} <= {row.record.key for row in rows} & {row.record.value for row in rows}
