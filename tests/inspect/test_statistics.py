"""Statistics, beside what a look at every record says."""

from __future__ import annotations

import json
import random
import shutil
import tracemalloc
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import logstore
from logstore.config import LogConfig
from logstore.inspect.report import Report
from logstore.inspect.sources import find_partitions
from logstore.inspect.statistics import PartitionStatistics, Statistics
from logstore.inspect.walking import Trouble
from logstore.log import PartitionLog
from logstore.segments.batch import encode_batch, iter_batches
from logstore.segments.record import Record
from tests.log.support import StillClock

from .logs import BatchOf, partitions_of, st_batches, write_log

GOLDEN = Path(__file__).resolve().parent.parent / "golden"


def statistics_of(directory: Path, **options: object) -> tuple[Statistics, PartitionStatistics]:
    statistics = Statistics(**options)  # type: ignore[arg-type]
    return statistics, statistics.add(partitions_of(directory))


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(segments=st.lists(st_batches, min_size=1, max_size=3))
def test_counts_are_those_of_the_records(segments: list[list[BatchOf]], tmp_path: Path) -> None:
    records = write_log(tmp_path / "web-3", segments)
    batches = [one for batches in segments for one in batches]
    statistics, found = statistics_of(tmp_path / "web-3", separator=b" ")
    quick, quick_found = statistics_of(tmp_path / "web-3", quick=True)
    for one in (found, quick_found):
        assert (one.records, one.batches) == (len(records), len(batches))
        assert one.log_bytes == sum(p.stat().st_size for p in (tmp_path / "web-3").iterdir())
        assert one.max_timestamp == max((r.timestamp for r in records), default=-1)
        if records:
            assert (one.first_offset, one.next_offset) == (0, len(records))
    for name, codec in statistics.codecs.items():
        same = [one for one in batches if one.codec.label == name]
        assert (codec.batches, codec.records) == (len(same), sum(len(b.records) for b in same))
        plain = sum(len(encode_batch(one.records)) - 61 for one in same)
        assert codec.decompressed == plain
        assert quick.codecs[name].stored == codec.stored
    assert statistics.record_sizes.count == len(records)
    assert statistics.record_sizes.total == sum(c.decompressed for c in statistics.codecs.values())
    assert statistics.batch_sizes.total == quick.batch_sizes.total == found.log_bytes
    assert sum(count for _, count in statistics.times.intervals()) == len(records)
    keys = Counter(record.key for record in records)
    assert {one.key: one.times for one in statistics.keys.top(99)} == keys
    prefixes = Counter(
        None if key is None else key.split(b" ")[0] + b" " * (b" " in key)
        for key in keys.elements()
    )
    assert {one.key: one.times for one in statistics.prefixes.top(99)} == prefixes
    assert sum(one.size for one in statistics.keys.top(99)) == statistics.record_sizes.total
    assert statistics.troubles == quick.troubles == 0


def test_prefixes_of_several_parts(tmp_path: Path) -> None:
    keys = [b"eu:shop:1", b"eu:shop:2", b"eu:web", b"us"]
    write_log(tmp_path / "web-0", [[BatchOf([Record(timestamp=0, key=key) for key in keys])]])
    statistics, _ = statistics_of(tmp_path / "web-0", depth=2)
    assert {one.key: one.times for one in statistics.prefixes.top(9)} == {
        b"eu:shop:": 2,
        b"eu:web": 1,
        b"us": 1,
    }


@pytest.mark.parametrize("quick", [False, True])
@pytest.mark.parametrize(
    "sidecar", sorted(GOLDEN.glob("*/*.json")), ids=lambda path: str(path.parent.name)
)
def test_kafkas_own_files(sidecar: Path, quick: bool) -> None:
    known = json.loads(sidecar.read_text(encoding="utf-8"))
    statistics, found = statistics_of(sidecar.parent, quick=quick)
    control = [one for one in known["batches"] if one.get("control")]
    assert statistics.troubles == 0
    assert found.batches == len(known["batches"])
    assert found.control_batches == len(control)
    inside = [range(one["base_offset"], one["last_offset"] + 1) for one in control]
    data = [
        one for one in known["records"] if not any(one["offset"] in offsets for offsets in inside)
    ]
    assert found.records == len(data)
    assert found.log_bytes == sidecar.with_suffix(".log").stat().st_size
    if not quick:
        assert statistics.record_sizes.count == len(data)


@pytest.mark.parametrize("quick", [False, True])
def test_damage_is_told_and_the_rest_is_counted(quick: bool, tmp_path: Path) -> None:
    write_log(tmp_path / "web-0", [[BatchOf([Record(timestamp=0, value=b"v")])] * 5])
    (path,) = (tmp_path / "web-0").glob("*.log")
    data = bytearray(path.read_bytes())
    position = list(iter_batches(bytes(data)))[2].position
    data[position + 8 : position + 12] = b"\x7f\0\0\0"
    path.write_bytes(bytes(data))
    troubles: list[Trouble] = []
    _, found = statistics_of(tmp_path / "web-0", quick=quick, trouble=troubles.append)
    assert (found.records, found.next_offset) == (4, 5)
    assert [(one.path, one.position) for one in troubles] == [(str(path), position)]
    path.write_bytes(bytes(data[:position]) + b"\0" * 5000)  # as a file that was made in advance
    statistics, found = statistics_of(tmp_path / "web-0", quick=quick)
    assert (found.records, statistics.troubles) == (2, 0)


def test_headers_are_all_that_is_read_for_quick_statistics(tmp_path: Path) -> None:
    first = encode_batch([Record(timestamp=1, value=b"x" * 1000)] * 200)
    (batch,) = iter_batches(first)
    data = b"".join(batch.placed(number * 200, 0).raw for number in range(50))
    (tmp_path / "web-0").mkdir()
    (tmp_path / "web-0" / "00000000000000000000.log").write_bytes(data)
    tracemalloc.start()
    try:
        _, found = statistics_of(tmp_path / "web-0", quick=True)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found.records == 10_000
    assert peak < 200_000  # not even one batch


# Of a store -------------------------------------------------------------------------------------


def test_what_a_store_knows(tmp_path: Path) -> None:
    path = str(tmp_path / "store")
    with logstore.open(path, maintenance_interval=None) as store:
        store.create_topic("old", partitions=1, segment_bytes=300, retention_ms=1000)
        users = store.create_topic(
            "users", segment_bytes=300, cleanup_policy="compact", min_cleanable_dirty_ratio=0.0
        )
        for number in range(9):
            store.topic("old").partition(0).append([Record(timestamp=1, value=b"x" * 100)])
            users.partition(0).append([Record(key=b"k%d" % (number % 3), value=b"x" * 100)])
        with store.consumer("old", group="billing") as consumer:
            consumer.poll(max_records=4)
            consumer.commit()
        store.queue("pay")
        for _ in range(3):
            store.exchange("").publish(b"body", routing_key="pay")
        with store.queue("pay").consume(prefetch=1, timeout=5) as messages:
            next(iter(messages))
            statistics = Statistics()
            report = Report.of(
                statistics,
                find_partitions([], store=path),
                store=store,
                path=path,
                with_queues=True,
            )
    assert [one.topic for one in report.topics] == ["old", "users"]
    (lag,) = report.lags
    assert (lag.group, lag.offset.topic, lag.offset.lag) == ("billing", "old", 5)
    (queue,) = report.queues
    assert (queue.name, queue.counts.ready, queue.counts.unacked) == ("pay", 2, 1)
    assert queue.size > 0
    old, compacted = report.removals
    assert old.segments == len(old.decisions) > 1
    assert old.bytes == sum(segment.size for segment in statistics.partitions[0].segments)
    assert compacted.plan is not None
    assert compacted.preview is not None
    with logstore.open(path, maintenance_interval=None) as store:
        before = store.topic("users").partition(0)
        result = before.compact()
    assert compacted.preview.records == result.records_dropped > 0
    assert compacted.preview.bytes == result.bytes_before - result.bytes_after
    assert compacted.plan.due


def test_a_foreign_directory_has_no_configuration(tmp_path: Path) -> None:
    path = str(tmp_path / "store")
    shutil.copytree(GOLDEN / "v2-none-0", tmp_path / "orders-0")
    with logstore.open(path) as store:
        store.create_topic("orders")
        report = Report.of(
            Statistics(), find_partitions([str(tmp_path / "orders-0")]), store=store, path=path
        )
    assert report.removals == []
    assert report.lags == []


def test_what_a_compaction_would_remove_is_what_it_removes(tmp_path: Path) -> None:
    """Superseded records, tombstones whose time is over, and what lies below the log's start."""
    clock = StillClock(1_700_000_000_000)
    config = LogConfig(cleanup_policy="compact", segment_bytes=600, delete_retention_ms=1000)
    rng = random.Random(7)
    with PartitionLog(tmp_path / "users-0", config=config, clock=clock) as log:
        for turn in range(3):
            for _ in range(40):
                keys = [b"%d" % rng.randrange(30) for _ in range(rng.randrange(1, 5))]
                values = [None if rng.random() < 0.3 else b"v" * rng.randrange(30) for _ in keys]
                log.append(
                    [Record(key=k, value=v) for k, v in zip(keys, values, strict=True)], acks=1
                )
            if turn == 1:
                log.delete_records(log.log_start_offset + 15)
            before = files_below(tmp_path)
            preview = log.preview_compaction()
            assert files_below(tmp_path) == before
            result = log.compact(force=True)
            assert preview.is_whole
            assert preview.records == result.records_dropped > 0
            assert preview.bytes == result.bytes_before - result.bytes_after > 0
            clock.ms += 1001
        assert log.preview_compaction().records == 0


def test_of_too_many_keys_a_first_pass_is_previewed(tmp_path: Path) -> None:
    config = LogConfig(cleanup_policy="compact", segment_bytes=2000)
    with PartitionLog(tmp_path / "users-0", config=config) as log:
        for number in range(300):
            log.append([Record(key=b"%d" % (number % 150), value=b"value")], acks=1)
        preview = log.preview_compaction(memory_bytes=8000)
        assert not preview.is_whole
        assert preview.records < log.compact(force=True).records_dropped


@pytest.mark.parametrize("name", ["v2-transactions-0", "v2-compacted-0", "v1-compacted-0"])
def test_brokers_directories_are_previewed_by_a_configuration_that_is_assumed(
    tmp_path: Path, name: str
) -> None:
    shutil.copytree(GOLDEN / name, tmp_path / "users-0")
    partitions = find_partitions([str(tmp_path / "users-0")])
    before = files_below(tmp_path)
    assumed = {"cleanup_policy": "compact,delete", "retention_bytes": 0}
    (removal,) = Report.of(Statistics(), partitions, assumed=assumed).removals
    assert files_below(tmp_path) == before
    assert removal.segments == len(removal.decisions)
    config = LogConfig.from_overrides(assumed)
    with PartitionLog(tmp_path / "users-0", config=config) as log:
        result = log.compact(force=True)
    assert removal.preview is not None
    assert removal.preview.records == result.records_dropped
    assert removal.preview.bytes == result.bytes_before - result.bytes_after


def files_below(path: Path) -> dict[Path, bytes]:
    return {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}
