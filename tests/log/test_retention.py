"""Retention: Kafka's rules as a pure decision with its reasons, and what is done about it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from logstore import LogConfig, OffsetOutOfRangeError, PartitionLog, Record
from logstore.retention import Decision, SegmentInfo, decide
from logstore.segments.files import Files
from logstore.segments.memory_files import MemoryFiles

from .support import StillClock, content, damage, raw_batch, records

NOW = 10_000


def segment(base: int, *, size: int = 100, newest: int = 0, active: bool = False) -> SegmentInfo:
    return SegmentInfo(base, base + 10, size, newest, active)


def decided(segments: list[SegmentInfo], start: int = 0, **overrides: Any) -> list[Decision]:
    config = LogConfig.from_overrides({"retention_ms": -1, **overrides})
    return decide(segments, config, now_ms=NOW, log_start_offset=start)


def doomed(decisions: list[Decision]) -> list[int]:
    return [d.segment.base_offset for d in decisions if d.delete]


LOG = [
    segment(0, newest=1000),
    segment(10, newest=5000),
    segment(20, newest=3000),
    segment(30, newest=9000, active=True),
]


# by time --------------------------------------------------------------------------------------


def test_a_segment_goes_by_its_newest_record_and_not_before() -> None:
    assert doomed(decided(LOG, retention_ms=9000)) == []
    decisions = decided(LOG, retention_ms=8999)
    assert doomed(decisions) == [0]
    assert decisions[0].reason == ("its newest record is 9000 ms old, more than retention_ms=8999")


def test_behind_a_segment_that_stays_nothing_goes() -> None:
    decisions = decided(LOG, retention_ms=6000)
    assert doomed(decisions) == [0]
    assert "an older segment stays" in decisions[2].reason


def test_the_active_segment_goes_too_when_it_is_too_old_and_not_empty() -> None:
    assert doomed(decided(LOG, retention_ms=10)) == [0, 10, 20, 30]
    empty = [*LOG[:3], segment(30, size=0, newest=-1, active=True)]
    decisions = decided(empty, retention_ms=10)
    assert doomed(decisions) == [0, 10, 20]
    assert decisions[-1].reason == "it is the active segment, and empty"


def test_records_without_timestamps_go_by_the_time_of_their_file() -> None:
    """As Kafka does (``LogSegment.largestTimestamp``): message format 0 has none at all."""
    untimed = segment(0, newest=-1)._replace(modified_ms=4000)
    decisions = decided([untimed, *LOG[1:]], retention_ms=6000)
    assert doomed(decisions) == []
    what = "its file, whose records have no timestamps,"
    assert decisions[0].reason == f"{what} is 6000 ms old, not more than retention_ms=6000"
    decisions = decided([untimed, *LOG[1:]], retention_ms=4999)
    assert doomed(decisions) == [0, 10, 20]
    assert decisions[0].reason == f"{what} is 6000 ms old, more than retention_ms=4999"


def test_what_compaction_left_empty_keeps_nothing_behind_it_back() -> None:
    """An empty segment has no newest record, and goes with the first one behind it that goes."""
    empties = [segment(0, size=0, newest=-1), segment(10, size=0, newest=-1)]
    behind = [segment(20, newest=1000), segment(30, size=0, newest=-1), segment(40, newest=9000)]
    decisions = decided(empties + behind, retention_ms=8000, cleanup_policy="compact,delete")
    assert doomed(decisions) == [0, 10, 20]
    assert decisions[0].reason == "it is empty, and a segment behind it goes"
    assert decisions[3].reason == "it is empty, and no segment behind it goes"
    decisions = decided(empties + behind, retention_ms=9000, cleanup_policy="compact,delete")
    assert doomed(decisions) == []
    assert decisions[0].reason == "it is empty, and no segment behind it goes"
    assert "retention_ms=9000" in decisions[2].reason


def test_a_record_of_the_future_is_told_as_such() -> None:
    decisions = decided([segment(0, newest=NOW + 5), *LOG[1:]], retention_ms=10)
    assert doomed(decisions) == []
    assert decisions[0].reason == "its newest record lies 5 ms in the future"


def test_records_may_be_kept_for_ever() -> None:
    decisions = decided(LOG)
    assert doomed(decisions) == []
    assert decisions[0].reason == "retention_ms=-1 keeps records for ever"


# by size --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bound", "gone"),
    [(-1, []), (400, []), (301, []), (300, [0]), (299, [0]), (200, [0, 10]), (0, [0, 10, 20, 30])],
)
def test_oldest_segments_go_while_the_bound_is_kept(bound: int, gone: list[int]) -> None:
    """A log is never shorter than the bound afterwards."""
    decisions = decided(LOG, retention_bytes=bound)
    assert doomed(decisions) == gone
    if gone == [0]:
        assert decisions[0].reason == (
            f"without it 300 bytes remain, at least retention_bytes={bound}"
        )
        assert f"without it less than retention_bytes={bound} would remain" in decisions[1].reason


def test_what_goes_by_time_does_not_count_for_the_size() -> None:
    decisions = decided(LOG, retention_ms=8000, retention_bytes=200)
    assert doomed(decisions) == [0, 10]
    assert "more than retention_ms" in decisions[0].reason
    assert "without it 200 bytes remain" in decisions[1].reason


# by the log's start ---------------------------------------------------------------------------


def test_what_lies_below_the_log_start_offset_goes_whatever_the_policy() -> None:
    for policy in ("delete", "compact"):
        decisions = decided(LOG, start=20, cleanup_policy=policy)
        assert doomed(decisions) == [0, 10]
        assert decisions[1].reason == "all of it lies below the log start offset 20"
        assert doomed(decided(LOG, start=19, cleanup_policy=policy)) == [0]


def test_a_compacted_log_loses_nothing_by_time_or_size() -> None:
    decisions = decided(LOG, cleanup_policy="compact", retention_ms=10, retention_bytes=0)
    assert doomed(decisions) == []
    assert decisions[0].reason == "cleanup_policy=compact deletes nothing by time or size"
    both = decided(LOG, cleanup_policy="compact,delete", retention_ms=8000)
    assert doomed(both) == [0]


def test_an_empty_log_has_nothing_to_decide() -> None:
    assert decided([]) == []


# what is done about it ------------------------------------------------------------------------


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "orders-0"


def filled(directory: Path, clock: StillClock, **overrides: Any) -> PartitionLog:
    config = LogConfig.from_overrides({"segment_bytes": 150, **overrides})
    log = PartitionLog(directory, clock=clock, config=config)
    for number in range(5):
        log.append(records(b"x" * 60, timestamp=clock.ms + number * 1000))
    return log


def test_a_dry_run_decides_and_changes_nothing(directory: Path) -> None:
    clock = StillClock()
    with filled(directory, clock, retention_bytes=250) as log:
        before = content(log)
        decisions = log.retain(dry_run=True)
        assert len(doomed(decisions)) == 3
        assert content(log) == before
        assert log.retain() == decisions
        assert [offset for offset, _ in content(log)] == [3, 4]
        assert (log.log_start_offset, log.log_end_offset) == (3, 5)
        assert log.retain(dry_run=True)[0].delete is False
        assert damage(directory) == []


def test_the_active_segment_is_rolled_before_it_goes_and_offsets_go_on(directory: Path) -> None:
    clock = StillClock()
    with filled(directory, clock, retention_ms=1000) as log:
        clock.ms += 100_000
        log.retain()
        assert content(log) == []
        assert (log.log_start_offset, log.log_end_offset) == (5, 5)
        assert log.append(records("new", timestamp=clock.ms)).base_offset == 5
    with PartitionLog(directory, clock=clock) as log:
        assert [offset for offset, _ in content(log)] == [5]
        assert damage(directory) == []


def deleted(files: Files) -> list[str]:
    return [name for name in files.names("/p-0") if name.endswith(".deleted")]


def in_memory(files: MemoryFiles, clock: StillClock) -> PartitionLog:
    config = LogConfig(segment_bytes=150, retention_bytes=0, file_delete_delay_ms=1000)
    return PartitionLog("/p-0", files=files, clock=clock, config=config)


def test_deleted_files_lie_about_for_their_time() -> None:
    clock = StillClock()
    files = MemoryFiles(now_ms=clock.now_ms)
    with in_memory(files, clock) as log:
        log.append(records("x"))
        clock.ms += 5000  # the time since the deletion counts, not the one since the last append
        log.retain()
        clock.ms += 999
        log.purge_deleted()
        assert deleted(files)
        clock.ms += 1
        log.purge_deleted()
        assert not deleted(files)


def test_deleted_files_are_removed_by_whoever_closes_the_log_later() -> None:
    """Each command is a process of its own, and none of them lives through the delay."""
    clock = StillClock()
    files = MemoryFiles(now_ms=clock.now_ms)
    with in_memory(files, clock) as log:
        log.append(records("x"))
        log.retain()
    assert deleted(files)
    clock.ms += 1000
    with in_memory(files, clock) as log:
        log.append(records("y"))
    assert not deleted(files)


def test_a_log_without_timestamps_loses_what_was_written_long_ago() -> None:
    clock = StillClock()
    files = MemoryFiles(now_ms=clock.now_ms)
    files.make_directory("/p-0")
    for offset in (0, 1):
        clock.ms += 5000
        file = files.open(f"/p-0/{offset:020}.log", write=True, create=True)
        file.write_at(raw_batch(offset, "x", timestamp=-1), 0)
    config = LogConfig(retention_ms=4000)
    with PartitionLog("/p-0", files=files, clock=clock, config=config) as log:
        assert [decision.delete for decision in log.retain()] == [True, False]


def test_a_clock_that_was_set_back_keeps_no_deleted_file() -> None:
    clock = StillClock()
    files = MemoryFiles(now_ms=clock.now_ms)
    with in_memory(files, clock) as log:
        log.append(records("x"))
        log.retain()
        clock.ms -= 1000
        log.purge_deleted()
        assert not deleted(files)


def test_a_reader_below_the_start_is_told_the_range(directory: Path) -> None:
    with filled(directory, StillClock()) as log:
        assert log.delete_records(3) == 3
        with pytest.raises(OffsetOutOfRangeError, match="the log holds 3 to 4"):
            log.read(2)
        assert [offset for offset, _ in content(log)] == [3, 4]


def test_the_start_moves_into_a_segment_and_never_back(directory: Path) -> None:
    with PartitionLog(directory) as log:
        log.append(records("a", "b", "c"))
        assert log.delete_records(2) == 2
        assert log.delete_records(1) == 2
        assert content(log) == [(2, b"c")]
        with pytest.raises(OffsetOutOfRangeError):
            log.delete_records(4)
        with pytest.raises(OffsetOutOfRangeError):
            log.delete_records(-1)
    with PartitionLog(directory) as log:
        assert log.log_start_offset == 2
        assert content(log) == [(2, b"c")]


@pytest.mark.parametrize("segment_bytes", [14, 1 << 20], ids=["several", "one segment"])
def test_where_nothing_is_to_be_left_the_active_segment_goes_too(
    directory: Path, segment_bytes: int
) -> None:
    config = LogConfig(segment_bytes=segment_bytes)
    with PartitionLog(directory, config=config) as log, PartitionLog(directory) as other:
        for value in "abc":
            log.append(records(value))
        assert log.delete_records(3) == 3
        assert log.delete_records(3) == 3
        assert log.segments == other.segments == (3,)
        assert [segment.size for segment in other.segment_infos()] == [0]
        assert other.append(records("d")).base_offset == 3
        assert content(log) == [(3, b"d")]
    with PartitionLog(directory) as log:
        assert (log.log_start_offset, log.log_end_offset) == (3, 4)


def test_another_handle_notices_at_once(directory: Path) -> None:
    with filled(directory, StillClock()) as log, PartitionLog(directory) as other:
        assert len(content(other)) == 5
        log.delete_records(4)
        assert content(other) == content(log)
        assert other.log_start_offset == 4


def test_a_log_that_is_compacted_and_cut_by_time_loses_what_is_too_old(tmp_path: Path) -> None:
    """Compaction empties the oldest segments; the ones behind them still go when they are old."""
    clock = StillClock()
    config = LogConfig(
        cleanup_policy="compact,delete",
        segment_bytes=150,
        retention_ms=5000,
        min_cleanable_dirty_ratio=0,
    )
    with PartitionLog(tmp_path, config=config, clock=clock) as log:
        for number in range(6):
            log.append([Record(key=b"k%d" % (number % 2), value=b"%020d" % number)], acks=1)
        log.compact()
        assert [segment.size for segment in log.segment_infos()][:3] == [0, 0, 0]
        clock.ms += 6000
        log.append([Record(key=b"k0", value=b"new")], acks=1)
        assert [decision.delete for decision in log.retain()] == [True] * 6 + [False]
        assert content(log) == [(6, b"new")]
