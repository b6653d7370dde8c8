"""Compaction: what it decides, and that what it leaves is what Kafka's cleaner leaves."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path
from typing import Any

import pytest

from logstore import (
    Codec,
    InvalidInputError,
    LockTimeoutError,
    LogConfig,
    PartitionLog,
    Record,
)
from logstore.compaction import group_segments, plan_compaction
from logstore.retention import SegmentInfo
from logstore.segments.batch import Batch, encode_batch, iter_batches
from logstore.segments.control import ControlType, end_transaction_marker

from .support import GOLDEN, StillClock, batches, damage, fetches

T0 = 1_700_000_000_000
DAY_MS = 86_400_000


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "orders-0"


@pytest.fixture
def clock() -> StillClock:
    return StillClock(T0 + 1_000_000)


def opened(directory: Path, clock: StillClock, **overrides: Any) -> PartitionLog:
    settings = {"cleanup_policy": "compact", **overrides}
    return PartitionLog(directory, clock=clock, config=LogConfig.from_overrides(settings))


def record(offset: int, key: str, value: str | None) -> Record:
    return Record(
        timestamp=T0 + offset, key=key.encode(), value=None if value is None else value.encode()
    )


def roll(log: PartitionLog) -> None:
    """Begin a segment, so that all that is there may be compacted."""
    with log._locked() as writer:
        writer.roll(writer.enter())


def compacted(log: PartitionLog) -> list[Batch]:
    """The batches that are left when everything was compacted."""
    roll(log)
    log.compact(force=True)
    assert damage(log.directory) == []
    return batches(log)


def keyed(log: PartitionLog) -> list[tuple[int, str, str | None]]:
    """Offset, key and value of every record."""
    return [
        (r.offset, (r.key or b"").decode(), None if r.value is None else r.value.decode())
        for fetch in fetches(log)
        for r in fetch.records()
    ]


# what stays -----------------------------------------------------------------------------------


def test_of_each_key_the_last_record_stays_at_its_offset(
    directory: Path, clock: StillClock
) -> None:
    with opened(directory, clock, segment_bytes=300) as log:
        for number in range(20):
            log.append([record(number, f"key {number % 3}", f"value {number}")])
        log.compact(force=True)
        active = log.segments[-1]
        found = keyed(log)
        closed = [key for offset, key, _ in found if offset < active]
        assert len(set(closed)) == len(closed) == 3
        assert found[-3:] == [(n, f"key {n % 3}", f"value {n}") for n in (17, 18, 19)]
        assert damage(directory) == []


def test_batches_that_stay_whole_keep_every_byte(directory: Path, clock: StillClock) -> None:
    with opened(directory, clock) as log:
        for number, codec in enumerate(Codec):
            log.append([record(number, f"{codec.label} {i}", "v") for i in range(3)], codec=codec)
        log.append([record(9, "gzip 1", "newer")])
        before = [batch.raw for batch in batches(log)]
        after = [batch.raw for batch in compacted(log)]
        changed = [i for i, (a, b) in enumerate(zip(before, after, strict=True)) if a != b]
        assert changed == [1]  # the one of gzip


def test_segments_of_which_everything_stays_are_left_alone(
    directory: Path, clock: StillClock
) -> None:
    with opened(directory, clock, segment_bytes=400) as log:
        for number in range(30):
            # Of the segments' records only the ones of "again" are superseded.
            again = number in (7, 8, 25)
            log.append([record(number, "again" if again else f"key {number}", "v" * 50)])
        closed = [directory / f"{base:020d}.log" for base in log.segments[:-1]]
        before = {path: (path.stat().st_ino, path.read_bytes()) for path in closed}
        expected = [r for r in keyed(log) if r[1] != "again" or r[0] == 25]
        log.compact(force=True)
        assert keyed(log) == expected
        assert damage(directory) == []
        for path, (inode, data) in before.items():
            superseded = data.count(b"again") - (b"v" * 50 in data and 25 in offsets_in(data))
            assert (path.stat().st_ino == inode) == (superseded == 0)


def offsets_in(data: bytes) -> list[int]:
    return [r.offset for batch in iter_batches(data) for r in batch.records()]


def test_what_stands_in_front_of_the_first_change_is_kept_with_its_index(
    directory: Path, clock: StillClock
) -> None:
    with opened(directory, clock, index_interval_bytes=100) as log:
        for number in range(30):
            log.append([record(number, "k" if number > 20 else f"key {number}", "v" * 50)])
        before = [batch.raw for batch in batches(log)]
        index = (directory / f"{0:020d}.index").read_bytes()
        after = [batch.raw for batch in compacted(log)]
        assert after == before[:21] + before[29:]
        kept = (directory / f"{0:020d}.index").read_bytes()
        assert kept[:80] == index[:80]


def test_what_is_left_of_batches_is_what_kafkas_cleaner_leaves(
    directory: Path, clock: StillClock
) -> None:
    """The records of ``compacted`` in tests/interop/java/Golden.java, before they were cleaned."""
    values = [
        (1, "drop", "first in its batch"),
        (2, "x", "stays"),
        (3, "drop", "in the middle"),
        (4, "drop", "in the middle, too"),
        (9, "y", "stays, with the largest time"),
        (5, "drop", "last in its batch"),
    ]
    golden = list(iter_batches((GOLDEN / "v2-compacted-0" / f"{0:020d}.log").read_bytes()))
    with opened(directory, clock) as log:
        epoch = golden[0].header.leader_epoch
        first = encode_batch([record(*v) for v in values], base_offset=0, leader_epoch=epoch)
        # In the golden file both batches keep x and y; here each has keys of its own.
        second = encode_batch(
            [record(t, k if k == "drop" else k + k, v) for t, k, v in values],
            base_offset=6,
            leader_epoch=epoch,
            codec=Codec.GZIP,
        )
        producer = encode_batch(
            [record(30, "drop", "all"), record(31, "drop", "gone")],
            base_offset=12,
            leader_epoch=golden[2].header.leader_epoch,
            producer_id=4001,
            producer_epoch=1,
            base_sequence=10,
        )
        last = golden[3].raw
        log.append_raw(first + second + producer + last, origin="replica")
        left = compacted(log)
        for ours, kafkas in zip(left, golden, strict=True):
            # Kafka builds a batch anew and counts its times from the first record that stays; here
            # the records keep their bytes. Nobody who reads it sees a difference.
            ignored: dict[str, Any] = {"crc": 0, "length": 0, "base_timestamp": 0}
            assert ours.header._replace(**ignored) == kafkas.header._replace(**ignored)
            kept = [(r.offset, r.timestamp, r.value) for r in ours.records()]
            assert kept == [(r.offset, r.timestamp, r.value) for r in kafkas.records()]


def test_a_batch_of_tombstones_gets_the_delete_horizon_that_kafka_gives_it(
    directory: Path,
) -> None:
    """The second batch of ``deleteHorizon`` in tests/interop/java/Golden.java."""
    golden = list(iter_batches((GOLDEN / "v2-deletehorizon-0" / f"{0:020d}.log").read_bytes()))[1]
    assert golden.header.delete_horizon == T0 + 1_000_000 + DAY_MS
    clock = StillClock(T0 + 1_000_000)
    with opened(directory, clock) as log:
        raw = encode_batch(
            [
                record(20, "drop", "overwritten later"),
                record(21, "deleted-2", None),
                record(22, "kept-2", "value"),
            ],
            base_offset=2,
            leader_epoch=golden.header.leader_epoch,
            codec=Codec.LZ4,
        )
        log.append_raw(raw, origin="replica")
        log.append([record(30, "drop", "newer")])
        left = compacted(log)[0]
        assert left.header.delete_horizon == golden.header.delete_horizon
        assert left.header.max_timestamp == golden.header.max_timestamp
        assert left.records() == golden.records()


# tombstones -----------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", [Codec.NONE, Codec.ZSTD])
def test_a_tombstone_stays_for_its_time_and_goes_then(
    directory: Path, clock: StillClock, codec: Codec
) -> None:
    with opened(directory, clock, delete_retention_ms=1000) as log:
        log.append([record(1, "a", "old"), record(2, "b", "stays")], codec=codec)
        log.append([record(3, "a", None), record(4, "c", "stays")], codec=codec)
        compacted(log)
        tombstone = (2, "a", None)
        assert keyed(log) == [(1, "b", "stays"), tombstone, (3, "c", "stays")]
        assert batches(log)[1].header.delete_horizon == clock.ms + 1000
        clock.ms += 999
        log.append([record(5, "d", "x")])
        compacted(log)
        assert tombstone in keyed(log)
        clock.ms += 1
        log.append([record(6, "e", "x")])
        compacted(log)
        assert keyed(log) == [
            (1, "b", "stays"),
            (3, "c", "stays"),
            (4, "d", "x"),
            (5, "e", "x"),
        ]


def test_timestamps_are_the_same_behind_a_delete_horizon(
    directory: Path, clock: StillClock
) -> None:
    with opened(directory, clock) as log:
        log.append([record(7, "a", None), record(3, "b", "x"), record(5, "c", None)])
        before = [
            (r.offset, r.timestamp, r.key, r.value) for f in fetches(log) for r in f.records()
        ]
        compacted(log)
        assert batches(log)[0].header.delete_horizon is not None
        after = [(r.offset, r.timestamp, r.key, r.value) for f in fetches(log) for r in f.records()]
        assert after == before
        assert log.offset_for_time(T0 + 6) == (0, T0 + 7)


# producers and transactions -------------------------------------------------------------------


def test_the_last_batch_of_a_producer_stays_without_its_records(
    directory: Path, clock: StillClock
) -> None:
    def batch(offset: int, sequence: int) -> bytes:
        return encode_batch(
            [record(offset, "k", f"{sequence}")],
            base_offset=offset,
            leader_epoch=0,
            producer_id=7,
            producer_epoch=0,
            base_sequence=sequence,
        )

    with opened(directory, clock) as log:
        log.append_raw(batch(0, 0) + batch(1, 1), origin="replica")
        log.append([record(2, "k", "newest")])
        left = compacted(log)
        assert [(b.header.base_offset, b.header.record_count) for b in left] == [(1, 0), (2, 1)]
        assert left[0].header.base_sequence == 1
        # Once the producer has written something newer, nothing hangs on the empty batch.
        log.append_raw(batch(3, 2), origin="replica")
        log.append([record(4, "k", "newest of all")])
        left = compacted(log)
        assert [(b.header.base_offset, b.header.record_count) for b in left] == [(3, 0), (4, 1)]


def test_aborted_records_go_and_markers_stay_until_their_time(
    tmp_path: Path, clock: StillClock
) -> None:
    """A log that Kafka wrote, with its index of aborted transactions."""
    directory = tmp_path / "orders-0"
    shutil.copytree(GOLDEN / "partition-0", directory)
    with opened(directory, clock, delete_retention_ms=1000) as log:
        markers = [b.header.base_offset for b in batches(log) if b.header.control]
        assert len(markers) == 5
        left = compacted(log)
        values = [value for _, _, value in keyed(log)]
        assert not [value for value in values if value in ("a1", "a2", "a3")]
        assert values == ["outside of any transaction", "u3"]
        # Batches of their transactions were met on the way: readers may still be among them.
        assert [b.header.base_offset for b in left if b.header.control] == markers
        # The last one ends a transaction without records, so its time begins to run at once.
        horizons = [b.header.delete_horizon for b in left if b.header.control]
        assert horizons == [None, None, None, None, clock.ms + 1000]
        log.append([record(200, "other", "x")])
        left = compacted(log)
        horizons = [b.header.delete_horizon for b in left if b.header.control]
        # The last batch of a producer stays, without its records, and so does its marker.
        assert horizons == [clock.ms + 1000, clock.ms + 1000, None, None, clock.ms + 1000]
        emptied = [b.header for b in left if not b.header.control and not b.header.record_count]
        assert [(h.base_offset, h.base_sequence) for h in emptied] == [(59, 0), (60, 3)]
        clock.ms += 1000
        log.append([record(201, "other", "y")])
        left = compacted(log)
        # A producer's last marker stays, empty, where it has written nothing else.
        found = [(b.header.base_offset, b.header.record_count) for b in left if b.header.control]
        assert found == [(markers[2], 1), (markers[3], 1), (markers[4], 0)]
        # What is kept for a producer goes when it has been silent for long.
        clock.ms += DAY_MS
        for _ in range(3):  # the records, then the markers, which wait for readers once more
            log.append([record(202, "other", "z")])
            left = compacted(log)
            clock.ms += 2000
        assert {b.header.producer_id for b in left} == {-1, 9003}  # whose transaction is open


def test_a_marker_that_is_no_end_of_a_transaction_stays(directory: Path, clock: StillClock) -> None:
    leader_change = Record(timestamp=T0, key=b"\0\0\0\2", value=b"\0\0")
    raw = encode_batch([leader_change], base_offset=0, leader_epoch=0, control=True)
    with opened(directory, clock) as log:
        log.append_raw(raw, origin="replica")
        log.append([record(1, "k", "v")])
        assert compacted(log)[0].raw == raw


def test_a_commit_stays_while_records_of_it_are_there(directory: Path, clock: StillClock) -> None:
    marker = end_transaction_marker(ControlType.COMMIT, timestamp=T0, coordinator_epoch=0)
    common: dict[str, Any] = {"producer_id": 5, "producer_epoch": 0, "transactional": True}
    raw = encode_batch(
        [record(0, "k", "v")], base_offset=0, leader_epoch=0, base_sequence=0, **common
    )
    raw += encode_batch([marker], base_offset=1, leader_epoch=0, control=True, **common)
    with opened(directory, clock) as log:
        log.append_raw(raw, origin="replica")
        for _ in range(3):
            assert [b.raw for b in compacted(log)[:2]] == [b.raw for b in iter_batches(raw)]
            log.append([record(3, "other", "x")])
            clock.ms += 2 * DAY_MS


# keys -----------------------------------------------------------------------------------------


def test_a_record_without_a_key_is_refused_and_nothing_is_appended(
    directory: Path, clock: StillClock
) -> None:
    keyless = Record(timestamp=1, value=b"v")
    with opened(directory, clock) as log:
        with pytest.raises(InvalidInputError, match="record 1 has no key"):
            log.append([record(0, "k", "v"), keyless])
        with pytest.raises(InvalidInputError, match="has no key"):
            log.append_raw(encode_batch([keyless]))
        assert log.log_end_offset == 0


def test_a_record_without_a_key_that_is_there_all_the_same_goes(
    directory: Path, clock: StillClock
) -> None:
    """As in Kafka; the topic was not compacted yet when it came."""
    with PartitionLog(directory, clock=clock) as log:
        log.append([Record(timestamp=1, value=b"keyless"), record(1, "k", "v")])
    with opened(directory, clock) as log:
        compacted(log)
        assert keyed(log) == [(1, "k", "v")]


def test_a_log_that_is_not_compacted_says_so(directory: Path, clock: StillClock) -> None:
    with (
        opened(directory, clock, cleanup_policy="delete") as log,
        pytest.raises(InvalidInputError, match="cleanup_policy=delete does not compact"),
    ):
        log.compact()


def test_two_compactions_keep_out_of_each_others_way(directory: Path, clock: StillClock) -> None:
    with opened(directory, clock) as log, opened(directory, clock) as other:
        log.append([record(0, "k", "v")])
        with log._upkeep._cleaner_lock():
            with pytest.raises(LockTimeoutError, match="compacting or cutting"):
                other.compact()
            with pytest.raises(LockTimeoutError, match="compacting or cutting"):
                other.truncate(0)
        other.compact()


def test_a_recovery_by_another_process_leaves_a_compaction_its_files(
    directory: Path, clock: StillClock
) -> None:
    """Somebody is killed in a roll, somebody else recovers, while a third one is compacting."""
    with opened(directory, clock) as log, opened(directory, clock) as other:
        for number in range(4):
            log.append([record(number, "k", "v" * 50)])
        roll(log)
        recovered: list[int] = []

        def meanwhile(_: int) -> None:
            assert other._state_file is not None
            with other._locked() as writer:
                state = writer.enter()
                state.generation += 1
                writer._block = other._state_file.publish(state)
            recovered.append(other.append([record(9, f"{len(recovered)}", "x")]).base_offset)

        log.compact(force=True, report=meanwhile)
        assert recovered == [4, 5, 6, 7]
        assert [offset for offset, _, _ in keyed(log)] == [3, 4, 5, 6, 7]
        assert not [path for path in directory.iterdir() if path.suffix in (".cleaned", ".swap")]


def test_more_keys_than_fit_take_several_passes_and_come_to_the_same(
    tmp_path: Path, clock: StillClock
) -> None:
    results = []
    for buffer in (1 << 20, 1024):
        directory = tmp_path / f"orders-{buffer}"
        with opened(
            directory, clock, cleaner_dedupe_buffer_bytes=buffer, segment_bytes=1000
        ) as log:
            for number in range(80):
                log.append([record(number, f"key {number % 17}", f"value {number}")])
            roll(log)
            result = log.compact(force=True)
            assert (result.passes > 1) == (buffer == 1024)
            results.append(keyed(log))
            assert damage(directory) == []
    assert results[0] == results[1]
    assert len(results[0]) == 17


# when it is due -------------------------------------------------------------------------------


def segment(
    base: int, next_offset: int, size: int, newest: int = 0, *, active: bool = False
) -> SegmentInfo:
    return SegmentInfo(base, next_offset, size, newest, active)


LOG = [
    segment(0, 10, 600, 100),
    segment(10, 20, 300, 200),
    segment(20, 30, 100, 300),
    segment(30, 35, 50, 400, active=True),
]


def planned(
    first_dirty: int, *, stable: int = 35, oldest: int | None = None, **overrides: Any
) -> Any:
    config = LogConfig.from_overrides({"cleanup_policy": "compact", **overrides})
    return plan_compaction(
        LOG,
        config,
        now_ms=1000,
        first_dirty_offset=first_dirty,
        last_stable_offset=stable,
        oldest_dirty_timestamp=oldest,
    )


def test_a_log_is_due_when_enough_of_it_is_dirty() -> None:
    plan = planned(10, min_cleanable_dirty_ratio=0.39)
    assert (plan.due, plan.clean_bytes, plan.dirty_bytes, plan.end_offset) == (True, 600, 400, 30)
    assert plan.reason == "0.40 of it is dirty, more than min_cleanable_dirty_ratio=0.39"
    plan = planned(10, min_cleanable_dirty_ratio=0.4)  # at the ratio Kafka waits, too
    assert not plan.due
    assert "not more than min_cleanable_dirty_ratio=0.4" in plan.reason


def test_a_log_is_due_when_its_oldest_dirty_record_is_too_old() -> None:
    plan = planned(20, oldest=300, max_compaction_lag_ms=699)
    assert plan.due
    assert "700 ms old, more than max_compaction_lag_ms=699" in plan.reason
    assert not planned(20, oldest=300, max_compaction_lag_ms=700).due
    assert not planned(20, oldest=-1, max_compaction_lag_ms=1).due


def test_what_is_young_is_not_compacted() -> None:
    plan = planned(0, min_compaction_lag_ms=750)
    assert plan.end_offset == 20
    assert plan.dirty_bytes == 900
    plan = planned(0, min_compaction_lag_ms=950)
    assert (plan.due, plan.dirty_bytes) == (False, 0)
    assert "younger than min_compaction_lag_ms=950" in plan.reason


def test_nothing_behind_an_open_transaction_is_compacted() -> None:
    plan = planned(0, stable=25)
    assert plan.end_offset == 20
    plan = planned(0, stable=5)
    assert (plan.due, plan.dirty_bytes) == (False, 0)
    assert "a transaction is open at offset 5" in plan.reason


def test_the_active_segment_alone_is_nothing_to_compact() -> None:
    plan = planned(30)
    assert (plan.due, plan.dirty_bytes, plan.end_offset) == (False, 0, 30)
    assert "the active segment is not compacted" in plan.reason


def test_neighbours_are_grouped_up_to_the_size_of_a_segment() -> None:
    config = LogConfig(segment_bytes=900)
    grouped = [[s.base_offset for s in group] for group in group_segments(LOG[:3], config)]
    assert grouped == [[0, 10], [20]]
    far = [segment(0, 10, 1), segment(1 << 31, (1 << 31) + 1, 1)]
    assert len(list(group_segments(far, config))) == 2
    assert list(group_segments([], config)) == []


def test_a_compaction_is_only_done_when_it_is_due(directory: Path, clock: StillClock) -> None:
    with opened(directory, clock, segment_bytes=300, min_cleanable_dirty_ratio=0.9) as log:
        for number in range(9):
            log.append([record(number, f"{number}", "v" * 50)])
        assert log.plan_compaction().due  # none of it was ever compacted
        assert log.compact().passes == 1
        result = log.compact()
        assert (result.passes, result.records_dropped) == (0, 0)
        assert "nothing to compact" in result.reason


def test_small_segments_become_one(directory: Path, clock: StillClock) -> None:
    with opened(directory, clock, segment_bytes=1000) as log:
        for number in range(8):
            log.append([record(number, "k", "v" * 30), record(number, f"{number}", "v")])
            roll(log)
        result = log.compact(force=True)
        assert result.segments_after < result.segments_before
        assert result.bytes_after < result.bytes_before
        assert [o for o, _, _ in keyed(log)] == [1, 3, 5, 7, 9, 11, 13, 14, 15]
        for a, b in itertools.pairwise(log.segments):
            assert a < b
