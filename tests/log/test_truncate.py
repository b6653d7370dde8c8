"""Truncation: the log ends where it was told to, and goes on from there."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from logstore import Codec, LogConfig, OffsetOutOfRangeError, PartitionLog, upkeep
from logstore.retention import Decision, decide
from logstore.segments.checkpoint import parse_leader_epochs

from .support import SpyFiles, batches, content, damage, raw_batch, record, records


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "orders-0"


def filled(directory: Path, **options: Any) -> PartitionLog:
    """Batches of three records, two to a segment; 24 records."""
    config = LogConfig(segment_bytes=500, index_interval_bytes=100)
    log = PartitionLog(directory, config=config)
    for number in range(8):
        batch = records(*(b"%d" % (3 * number + i) * 30 for i in range(3)), timestamp=number)
        log.append(batch, **options)
    return log


@pytest.mark.parametrize("codec", [Codec.NONE, Codec.GZIP])
@pytest.mark.parametrize("to", range(25))
def test_a_log_is_cut_at_any_offset(directory: Path, to: int, codec: Codec) -> None:
    with filled(directory, codec=codec) as log:
        before = content(log)
        log.truncate(to)
        assert content(log) == before[:to]
        assert log.log_end_offset == to
        assert damage(directory) == []
        assert log.append(records("new")).base_offset == to
        after = content(log)
        assert after == [*before[:to], (to, b"new")]
        log.close()
        with PartitionLog(directory) as again:
            assert content(again) == after
            assert damage(directory) == []


def test_a_straddling_batch_keeps_its_beginning_and_its_base(directory: Path) -> None:
    with filled(directory) as log:
        log.truncate(22)
        last = batches(log)[-1]
        assert (last.header.base_offset, last.header.last_offset) == (21, 21)
        assert last.header.record_count == 1
        assert len(log.segments) == 4 or log.segments[-1] <= 21


@pytest.mark.parametrize("to", [-1, 25, 1 << 62])
def test_an_offset_out_of_range_is_refused(directory: Path, to: int) -> None:
    with filled(directory) as log:
        before = content(log)
        with pytest.raises(OffsetOutOfRangeError):
            log.truncate(to)
        assert content(log) == before


def test_nothing_below_the_log_start_offset_can_be_cut_off(directory: Path) -> None:
    with filled(directory) as log:
        log.delete_records(10)
        with pytest.raises(OffsetOutOfRangeError):
            log.truncate(9)
        log.truncate(10)
        assert (log.log_start_offset, log.log_end_offset) == (10, 10)
        assert log.append(records("new")).base_offset == 10
        assert content(log) == [(10, b"new")]


def test_another_handle_and_its_readers_notice_at_once(directory: Path) -> None:
    with filled(directory) as log, PartitionLog(directory) as other:
        assert len(content(other)) == 24
        log.truncate(7)
        assert content(other) == content(log)
        with pytest.raises(OffsetOutOfRangeError):
            other.read(8)
        assert other.append(records("new")).base_offset == 7
        assert content(log)[-1] == (7, b"new")


def test_leader_epochs_are_cut_too(directory: Path) -> None:
    with PartitionLog(directory) as log:
        log.append(records("a"))
        log.append_raw(
            raw_batch(1, "b", "c", epoch=3) + raw_batch(3, "d", epoch=5), origin="replica"
        )
        log.truncate(2)
        data = (directory / "leader-epoch-checkpoint").read_bytes()
        assert all(entry.start_offset <= 2 for entry in parse_leader_epochs(data))
        log.append(records("e"))
        assert damage(directory) == []


def test_a_cut_into_a_gap_leaves_the_end_where_it_was_told_and_no_index_entry_behind(
    directory: Path,
) -> None:
    """An index entry of what was cut off must not stay in a segment that is closed now."""
    with PartitionLog(directory, config=LogConfig(index_interval_bytes=0)) as log:
        log.append(records("a" * 100))
        log.append_raw(raw_batch(1, "b" * 100) + raw_batch(20, "c"), origin="replica")
        log.truncate(2)
        log.append_raw(raw_batch(30, "d"), origin="replica")
        log.truncate(15)
        assert log.log_end_offset == 15
        assert damage(directory) == []
        assert log.append(records("e")).base_offset == 15
        assert [offset for offset, _ in content(log)] == [0, 1, 15]
    with PartitionLog(directory) as log:
        assert [offset for offset, _ in content(log)] == [0, 1, 15]
        assert damage(directory) == []


def test_a_cut_at_the_end_changes_nothing(directory: Path) -> None:
    with filled(directory) as log:
        path = os.path.join(log.directory, f"{log.segments[-1]:020d}.log")
        before = os.stat(path)
        log.truncate(24)
        assert os.stat(path).st_mtime_ns == before.st_mtime_ns


@pytest.mark.parametrize(
    "look",
    [
        lambda log: log.segment_infos(),
        lambda log: log.retain(),
        lambda log: log.plan_compaction(),
        lambda log: log.offset_for_time(6),
        lambda log: log.read(20),
    ],
    ids=["segment_infos", "retain", "plan_compaction", "offset_for_time", "read"],
)
def test_who_looks_while_another_cuts_or_deletes_looks_again(
    directory: Path, look: Callable[[PartitionLog], object]
) -> None:
    files = SpyFiles()
    config = LogConfig(segment_bytes=500, index_interval_bytes=100, retention_ms=-1)
    with filled(directory) as other, PartitionLog(directory, files=files, config=config) as log:
        assert log.log_end_offset == 24

        def between(operation: str, path: str) -> None:
            if operation == "open" and path.endswith(".log"):
                files.before = lambda operation, path: None
                other.delete_records(21)  # the files go before the log has opened them
                other.purge_deleted(at_once=True)
                other.truncate(21)
                for number in range(4):
                    other.append(records(*(b"new" * 30 for _ in range(3)), timestamp=10 + number))

        files.before = between
        with contextlib.suppress(OffsetOutOfRangeError):  # as it is for whoever comes later
            look(log)
        assert log.log_start_offset == 21


def test_a_compaction_goes_on_when_retention_takes_its_segments_away(directory: Path) -> None:
    files = SpyFiles()
    config = LogConfig(
        segment_bytes=500,
        index_interval_bytes=100,
        cleanup_policy="compact,delete",
        file_delete_delay_ms=0,
    )
    with (
        PartitionLog(directory, config=config) as other,
        PartitionLog(directory, files=files, config=config) as log,
    ):
        for number in range(12):
            other.append([record(b"v" * 150, key=b"%d" % (number % 3))])
        opened = 0

        def between(operation: str, path: str) -> None:
            nonlocal opened
            if operation == "open" and path.endswith(".cleaned"):
                opened += 1
                if opened == 1:
                    files.before = lambda operation, path: None
                    other.delete_records(other.segments[2])
                    other.purge_deleted(at_once=True)

        files.before = between
        log.compact(force=True)
        assert opened == 1
        keys = [r.key for batch in batches(log) for r in batch.records()]
        assert set(keys) == {b"0", b"1", b"2"}
        assert damage(directory) == []


def test_retention_does_not_delete_what_was_appended_behind_a_cut(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = LogConfig(segment_bytes=500, retention_bytes=700, retention_ms=-1)
    with filled(directory) as other, PartitionLog(directory, config=config) as log:

        def decide_late(*arguments: Any, **options: Any) -> list[Decision]:
            """Somebody cuts the log and appends, between looking and deciding."""
            monkeypatch.undo()
            other.truncate(2)
            other.append(records("new"))
            return decide(*arguments, **options)

        monkeypatch.setattr(upkeep, "decide", decide_late)
        assert not any(decision.delete for decision in log.retain())
        assert (log.log_start_offset, log.log_end_offset) == (0, 3)
        assert content(log)[-1] == (2, b"new")


def test_an_append_whose_segment_is_cut_off_before_its_sync_returns(directory: Path) -> None:
    files = SpyFiles()
    config = LogConfig(segment_bytes=500, index_interval_bytes=100)
    with filled(directory) as other, PartitionLog(directory, files=files, config=config) as log:
        seen: list[str] = []

        def between(operation: str, path: str) -> None:
            if path.endswith(".log"):
                seen.append(operation)
                if operation == "open" and "write" in seen:  # it is about to be synced
                    files.before = lambda operation, path: None
                    other.truncate(2)

        files.before = between
        log.append(records("cut off"), acks="all")
        assert "write" in seen
        assert (log.log_end_offset, log.synced_offset) == (2, 2)
        assert damage(directory) == []
