"""Segments that are dropped in the middle of a log, as those of queues are."""

from __future__ import annotations

from pathlib import Path

import pytest

from logstore import PartitionLog

from .support import SpyFiles, content, damage, io_error, kill, opened, records


def filled(directory: Path, files: SpyFiles | None = None) -> PartitionLog:
    """A log of ten segments or so, of two records each."""
    log = opened(directory, files, segment_bytes=200, file_delete_delay_ms=0)
    for number in range(20):
        log.append(records(b"%02d" % number + b"x" * 40), acks=1)
    assert len(log.segments) > 8
    return log


def offsets(log: PartitionLog) -> list[int]:
    return [offset for offset, _ in content(log)]


def test_a_segment_in_the_middle_leaves_a_gap(tmp_path: Path) -> None:
    directory = tmp_path / "log"
    with filled(directory) as log, opened(directory) as other:
        assert offsets(other) == list(range(20))
        bases = log.segments
        doomed = [bases[3], bases[5]]
        assert log.drop_segments(doomed) == doomed
        gone = {*range(bases[3], bases[4]), *range(bases[5], bases[6])}
        left = [offset for offset in range(20) if offset not in gone]
        assert offsets(log) == offsets(other) == left
        assert log.log_start_offset == 0
        assert log.read(bases[3]).next_offset > bases[4]
        log.append(records(b"new"), acks="all")
        assert offsets(other) == [*left, 20]
        assert log.drop_segments(doomed) == []
    assert damage(directory) == []
    with opened(directory) as log:
        assert offsets(log) == [*left, 20]


def test_segments_at_the_front_move_the_logs_start(tmp_path: Path) -> None:
    with filled(tmp_path / "log") as log:
        bases = log.segments
        assert log.drop_segments([bases[0], bases[1], bases[4]]) == [bases[0], bases[1], bases[4]]
        assert log.log_start_offset == bases[2]
        assert offsets(log) == [*range(bases[2], bases[4]), *range(bases[5], 20)]


def test_the_active_segment_stays(tmp_path: Path) -> None:
    with filled(tmp_path / "log") as log:
        bases = log.segments
        assert log.drop_segments(bases) == list(bases[:-1])
        assert log.segments == bases[-1:]
        assert log.log_start_offset == bases[-1]


@pytest.mark.parametrize("failing", range(12))
def test_a_drop_that_fails_or_is_killed_anywhere_leaves_a_good_log(
    tmp_path: Path, failing: int
) -> None:
    directory = tmp_path / "log"
    files = SpyFiles()
    log = filled(directory, files)
    bases = log.segments
    left = [failing]

    def before(operation: str, path: str) -> None:
        if operation in ("rename", "sync_directory", "write", "remove"):
            left[0] -= 1
            if left[0] < 0:
                raise io_error()

    files.before = before
    dropped = True
    try:
        log.drop_segments([bases[0], bases[4]])
    except OSError:
        dropped = False
    kill(log)
    with opened(directory, segment_bytes=200) as log:
        found = offsets(log)
        first = {*range(bases[0], bases[1])}
        middle = {*range(bases[4], bases[5])}
        kept = set(range(20)) - first - middle
        assert kept <= set(found)
        assert found == sorted(found)
        if dropped:
            assert set(found) == kept
        log.append(records(b"new"), acks="all")
        assert offsets(log) == [*found, 20]
    assert damage(directory) == []
