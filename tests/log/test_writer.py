"""Writing under the lock: rolls, tails that a killed writer left, and operations that fail."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from logstore import FormatError, InvalidInputError, PartitionLog, PoisonedError
from logstore.segments.batch import encode_batch

from .support import (
    OTHER_BOOT,
    SpyFiles,
    active_path,
    batches,
    content,
    damage,
    fail,
    gapless,
    io_error,
    kill,
    no_locks_held,
    opened,
    raw_batch,
    records,
    values,
)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "orders-0"


# rolling ------------------------------------------------------------------------------------


def test_little_is_left_to_sync_under_the_lock_when_a_full_segment_is_rolled(
    directory: Path,
) -> None:
    files = SpyFiles()
    events: list[tuple[int, bool]] = []  # bytes in the first segment, and whether the lock was free
    first = directory / f"{0:020d}.log"
    with opened(directory, files, segment_bytes=64 << 20) as log:

        def before(operation: str, path: str) -> None:
            if operation == "sync" and path == str(first):
                events.append((first.stat().st_size, no_locks_held(log)))

        files.before = before
        value = bytes(500_000)
        while len(log.segments) == 1:
            log.append(records(value, value), acks=1)
    *ahead, (full, free) = events
    assert not free, "the roll syncs under the lock, before the next segment takes anything"
    assert ahead
    assert all(outside for _, outside in ahead)
    assert len(ahead) < 6
    assert full - ahead[-1][0] < 10 << 20
    assert damage(directory) == []


def test_handles_that_came_by_different_paths_agree_when_a_segment_is_rolled(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory.mkdir()
    ages = set()
    for place, path in ((directory.parent, "orders-0"), (directory, "."), (directory, directory)):
        monkeypatch.chdir(place)
        # The largest age at which a record does not begin a new segment, found by halving.
        low, high = 1, 1_000_000
        while low < high:
            age = (low + high + 1) // 2
            with opened(path, segment_ms=1_000_000, segment_jitter_ms=1_000_000) as log:
                log.append(records("first", timestamp=0))
                log.append(records("second", timestamp=age))
                rolled = len(log.segments) > 1
                log.truncate(0)
            low, high = (low, age - 1) if rolled else (age, high)
        ages.add(low)
    assert len(ages) == 1


def test_a_segment_is_rolled_before_it_grows_beyond_its_bytes(directory: Path) -> None:
    size = len(raw_batch(0, "x" * 100))
    with opened(directory, segment_bytes=3 * size) as log:
        for _ in range(7):
            log.append(records(b"x" * 100))
        assert log.segments == (0, 3, 6)
        assert [p.stat().st_size for p in sorted(directory.glob("*.log"))] == [
            3 * size,
            3 * size,
            size,
        ]
        assert gapless([offset for offset, _ in content(log)])


def test_a_batch_that_is_larger_than_a_segment_gets_one_of_its_own(directory: Path) -> None:
    with opened(directory, segment_bytes=200) as log:
        log.append(records(b"x" * 1000))
        log.append(records(b"y" * 1000))
        log.append(records(b"z"))
        assert log.segments == (0, 1, 2)
        assert [len(value) for value in values(log)] == [1000, 1000, 1]


@pytest.mark.parametrize("index_bytes", [12, 16, 23, 24, 36, 48])
def test_a_segment_is_rolled_when_an_index_is_full(directory: Path, index_bytes: int) -> None:
    with opened(directory, segment_index_bytes=index_bytes, index_interval_bytes=0) as log:
        for number in range(20):
            log.append(records(f"{number}", timestamp=1000 + number))
        assert len(log.segments) > 3
        assert gapless([offset for offset, _ in content(log)])
    for path in directory.glob("*.index"):
        assert path.stat().st_size <= index_bytes
    assert damage(directory) == []


def test_a_segment_is_rolled_before_relative_offsets_overflow(directory: Path) -> None:
    largest = (1 << 31) - 1
    with opened(directory, index_interval_bytes=0) as log:
        log.append_raw(raw_batch(0, "a"), origin="replica")
        log.append_raw(raw_batch(largest - 1, "b"), origin="replica")
        log.append_raw(raw_batch(largest, "c"), origin="replica")
        log.append_raw(raw_batch(largest + 1, "d"), origin="replica")
        log.append_raw(raw_batch(1 << 40, "e", "f"), origin="replica")
        log.append(records("g"))
        assert log.segments[0] == 0
        assert log.segments[-1] == 1 << 40
        for base, following in zip(log.segments, log.segments[1:], strict=False):
            assert following - base <= largest + 1 or following == 1 << 40
        assert content(log) == [
            (0, b"a"),
            (largest - 1, b"b"),
            (largest, b"c"),
            (largest + 1, b"d"),
            (1 << 40, b"e"),
            ((1 << 40) + 1, b"f"),
            ((1 << 40) + 2, b"g"),
        ]
    assert damage(directory) == []


def test_batches_that_one_segment_cannot_hold_are_not_appended_at_once(directory: Path) -> None:
    far = 1 << 33
    with opened(directory, index_interval_bytes=0) as log:
        log.append(records("before"))
        with pytest.raises(InvalidInputError, match="too far apart"):
            log.append_raw(raw_batch(10, "a") + raw_batch(far, "b"), origin="replica")
        assert values(log) == [b"before"]
        log.append_raw(raw_batch(10, "a"), origin="replica")
        log.append_raw(raw_batch(far, "b"), origin="replica")
        assert content(log) == [(0, b"before"), (10, b"a"), (far, b"b")]
    assert damage(directory) == []


def test_a_first_batch_at_a_huge_offset_is_found_behind_an_empty_segment(directory: Path) -> None:
    base = 1 << 45
    with opened(directory) as log:
        log.append_raw(raw_batch(base, "a"), origin="replica")
        assert log.log_start_offset == 0
        assert content(log) == [(base, b"a")]
    with opened(directory, SpyFiles(OTHER_BOOT)) as log:
        assert content(log) == [(base, b"a")]
        assert log.append(records("b")).base_offset == base + 1


def test_the_largest_offset_of_all_is_the_last_that_a_log_takes(directory: Path) -> None:
    largest = (1 << 63) - 1
    with opened(directory) as log:
        log.append_raw(raw_batch(largest - 2, "a"), origin="replica")
        assert log.append(records("b")).base_offset == largest - 1
        with pytest.raises(InvalidInputError, match="out of bounds"):
            log.append(records("c"))
        with pytest.raises(InvalidInputError, match="out of bounds"):
            log.append_raw(_at(largest), origin="replica")
        assert values(log) == [b"a", b"b"]
    with opened(directory) as log:
        assert log.log_end_offset == largest


def _at(offset: int) -> bytes:
    return offset.to_bytes(8) + raw_batch(0, "x")[8:]


def test_the_old_segment_is_synced_before_the_new_one_takes_anything(directory: Path) -> None:
    files = SpyFiles()
    log = opened(directory, files, segment_bytes=100)
    log.append(records(b"x" * 90), acks=1)
    seen: list[tuple[str, str]] = []
    files.before = lambda operation, path: seen.append((operation, os.path.basename(path)))
    log.append(records(b"y" * 90), acks=1)
    order = [entry for entry in seen if entry[0] in ("sync", "write", "sync_directory")]
    old, new = "00000000000000000000.log", "00000000000000000001.log"
    assert order.index(("sync", old)) < order.index(("sync_directory", "orders-0"))
    assert order.index(("sync_directory", "orders-0")) < order.index(("write", new))
    assert log.synced_offset == 1
    log.close()


# tails that somebody left -------------------------------------------------------------------


def leave(log: PartitionLog, data: bytes) -> None:
    """Write behind the log's end what a writer leaves that is killed before it publishes."""
    with open(active_path(log), "ab") as file:
        file.write(data)


@pytest.fixture(params=["the same handle", "another handle", "a new handle"])
def next_writer(request: pytest.FixtureRequest) -> Callable[[PartitionLog], PartitionLog]:
    """Who is the next to append."""

    def choose(log: PartitionLog) -> PartitionLog:
        if request.param == "the same handle":
            return log
        return opened(log.directory)

    return choose


def test_a_torn_batch_of_a_killed_writer_is_cut_by_the_next_append(
    directory: Path, next_writer: Callable[[PartitionLog], PartitionLog]
) -> None:
    log = opened(directory)
    for number in range(10):
        log.append(records(f"good {number}"))
        leave(log, raw_batch(log.log_end_offset, "torn", "torn")[: 7 + 8 * number])
        other = next_writer(log)
        appended = other.append(records(f"next {number}"))
        assert appended.base_offset == 2 * number + 1
        assert log.log_end_offset == other.log_end_offset == 2 * number + 2
    assert gapless([offset for offset, _ in content(log)])
    assert not any(b"torn" in value for value in values(log))
    assert damage(directory) == []


def test_a_whole_batch_of_a_killed_writer_is_kept_by_the_next_append(
    directory: Path, next_writer: Callable[[PartitionLog], PartitionLog]
) -> None:
    log = opened(directory, index_interval_bytes=0)
    log.append(records("a"))
    leave(log, raw_batch(1, "b", "c") + raw_batch(3, "d") + raw_batch(4, "torn")[:-1])
    other = next_writer(log)
    assert values(other) == [b"a"] or other is not log
    assert other.append(records("e")).base_offset == 4
    for reader in (log, other):
        assert content(reader) == [(0, b"a"), (1, b"b"), (2, b"c"), (3, b"d"), (4, b"e")]
    assert damage(directory) == []


def test_a_reader_does_not_see_what_is_not_published(directory: Path) -> None:
    log = opened(directory)
    log.append(records("a"))
    leave(log, raw_batch(1, "b"))
    assert values(log) == [b"a"]
    assert log.log_end_offset == 1


def test_rubbish_with_a_good_batch_behind_it_is_no_work_of_a_killed_writer(
    directory: Path,
) -> None:
    log = opened(directory)
    log.append(records("a"))
    leave(log, b"rubbish" * 20 + raw_batch(1, "b"))
    path = active_path(log)
    end = path.stat().st_size
    for _ in range(2):
        with pytest.raises(FormatError) as caught:
            log.append(records("c"))
        assert caught.value.path == str(path)
        assert path.stat().st_size == end
    assert values(log) == [b"a"]
    assert no_locks_held(log)


def test_a_log_that_was_cut_behind_our_back_goes_on_from_what_is_left(directory: Path) -> None:
    log = opened(directory)
    log.append(records("a"))
    end = active_path(log).stat().st_size
    log.append(records("b"))
    os.truncate(active_path(log), end)
    assert log.append(records("c")).base_offset == 1
    assert values(log) == [b"a", b"c"]


# failing disks ------------------------------------------------------------------------------


def test_a_failed_sync_poisons_every_handle_and_reopening_recovers(directory: Path) -> None:
    files = SpyFiles()
    log = opened(directory, files)
    other = opened(directory)
    log.append(records("a"))
    files.before = fail("sync", io_error(), path=".log")
    with pytest.raises(OSError, match=os.strerror(errno.EIO)) as caught:
        log.append(records("b"))
    assert caught.value.errno == errno.EIO
    files.before = lambda operation, path: None
    for handle in (log, other):
        with pytest.raises(PoisonedError, match="open the log again"):
            handle.append(records("c"))
        with pytest.raises(PoisonedError):
            handle.append(records("c"), acks=1)
        with pytest.raises(PoisonedError):
            handle.flush()
        assert values(handle) == [b"a", b"b"]
        assert handle.read(1, upto="synced").data == b""
        assert no_locks_held(handle)
    inode = active_path(log).stat().st_ino

    with opened(directory) as fresh:
        assert values(fresh) == [b"a", b"b"]
        assert fresh.synced_offset == 2
        assert active_path(fresh).stat().st_ino != inode, "the log was not written anew"
        assert fresh.append(records("c")).base_offset == 2
        assert batches(fresh)[-1].header.leader_epoch == 1
        # The handles that had found it poisoned go on with the new file.
        for handle in (log, other):
            assert handle.append(records("d"), acks=1)
            handle.flush()
        assert gapless([offset for offset, _ in content(fresh)])
        assert content(log) == content(fresh) == content(other)


def test_a_recovery_that_cannot_rewrite_the_log_leaves_it_poisoned(directory: Path) -> None:
    files = SpyFiles()
    log = opened(directory, files)
    log.append(records("a"))
    files.before = fail("sync", io_error(), path=".log")
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        log.append(records("b"))
    for operation in ("sync", "write", "rename", "sync_directory", "read"):
        broken = SpyFiles()
        broken.before = fail(operation, io_error())
        with pytest.raises(OSError, match=os.strerror(errno.EIO)):
            opened(directory, broken)
        with pytest.raises(PoisonedError):
            log.append(records("c"))
    with opened(directory) as fresh:
        assert values(fresh) == [b"a", b"b"]


def test_a_poisoned_log_may_be_closed(directory: Path) -> None:
    files = SpyFiles()
    log = opened(directory, files)
    files.before = fail("sync", io_error(), path=".log")
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        log.append(records("a"))
    with pytest.raises(PoisonedError):
        log.close()
    log.close()
    assert no_locks_held(log)
    with opened(directory) as fresh:
        assert values(fresh) == [b"a"]


def test_the_error_that_ends_a_with_block_is_not_replaced_by_that_of_the_close(
    directory: Path,
) -> None:
    def append() -> None:
        files = SpyFiles()
        with opened(directory, files) as log:
            files.before = fail("sync", io_error(), path=".log")
            log.append(records("a"))

    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        append()


def test_a_full_disk_is_told_and_the_log_goes_on_when_there_is_room(directory: Path) -> None:
    files = SpyFiles()
    log = opened(directory, files, index_interval_bytes=0)
    log.append(records("a"))
    for room in (0, 1, 60, 61, 70):
        path = active_path(log)
        end = path.stat().st_size
        files.longest_write = room
        files.before = _room_for(files, room)
        with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)) as caught:
            log.append(records(b"too much" * 10))
        assert caught.value.errno == errno.ENOSPC
        assert caught.value.filename is not None
        assert str(caught.value.filename).startswith(str(directory))
        assert path.stat().st_size == end
        files.longest_write = None
        files.before = lambda operation, path: None
        log.append(records(f"{room}"))
    assert values(log) == [b"a", b"0", b"1", b"60", b"61", b"70"]
    assert gapless([offset for offset, _ in content(log)])
    log.close()
    assert damage(directory) == []


def test_batches_that_come_together_are_written_on_behind_a_short_write(directory: Path) -> None:
    files = SpyFiles()
    log = opened(directory, files, index_interval_bytes=0)
    data = b"".join(encode_batch(records(f"{n}")) for n in range(5))
    files.longest_write = 100  # each write comes so far; the next one goes on
    log.append_raw(data)
    files.longest_write = None
    assert values(log) == [b"0", b"1", b"2", b"3", b"4"]
    log.close()
    assert damage(directory) == []


def _room_for(files: SpyFiles, room: int) -> Callable[[str, str], None]:
    """Let ``room`` bytes be written, in one short write, and no more."""
    written = 0

    def before(operation: str, path: str) -> None:
        nonlocal written
        if operation == "write" and path.endswith(".log"):
            files.longest_write = room - written
            written = room
        elif operation == "write":
            files.longest_write = None

    return before


def test_a_disk_that_is_too_full_to_cut_back_leaves_a_tail_for_the_next_append(
    directory: Path,
) -> None:
    files = SpyFiles()
    log = opened(directory, files)
    log.append(records("a"))
    count = 0

    def before(operation: str, path: str) -> None:
        nonlocal count
        count += operation == "write"
        if operation == "truncate" or (operation == "write" and count > 1):
            raise io_error()

    files.longest_write = 20
    files.before = before
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        log.append(records("b"))
    assert active_path(log).stat().st_size > 20
    files.longest_write = None
    files.before = lambda operation, path: None
    assert log.append(records("c")).base_offset == 1
    assert values(log) == [b"a", b"c"]


@pytest.mark.parametrize("operation", ["write", "sync", "truncate", "open"])
def test_ctrl_c_inside_an_operation_leaves_a_good_log(directory: Path, operation: str) -> None:
    files = SpyFiles()
    log = opened(directory, files, segment_bytes=200, index_interval_bytes=0)
    acknowledged = []
    for number in range(30):
        if number % 3 == 1:
            files.before = fail(operation, KeyboardInterrupt())
        try:
            log.append(records(f"value {number}"))
            acknowledged.append(f"value {number}".encode())
        except KeyboardInterrupt:
            pass
        files.before = lambda operation, path: None
        assert no_locks_held(log)
    assert gapless([offset for offset, _ in content(log)])
    found = values(log)
    assert [value for value in found if value in acknowledged] == acknowledged
    assert len(set(found)) == len(found)
    log.close()
    assert damage(directory) == []


class _InterruptAt:
    """Raises KeyboardInterrupt at the n-th line that is run in some modules of logstore."""

    def __init__(self, line: int, modules: tuple[str, ...]) -> None:
        self.left = line
        self.modules = modules

    def __call__(self, frame: FrameType, event: str, argument: Any) -> Any:
        if not frame.f_code.co_filename.endswith(self.modules):
            return None
        if event == "line":
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt
        return self


def test_ctrl_c_at_any_line_of_a_write_leaves_a_good_log(tmp_path: Path) -> None:
    modules = ("logstore/writer.py", "logstore/state.py")
    interrupted = 0
    for rolls in (False, True):
        line = 0
        while True:
            line += 1
            directory = tmp_path / f"{rolls}-{line}"
            # Room for two batches in a segment: the third append rolls.
            log = opened(directory, segment_bytes=200, index_interval_bytes=0)
            log.append(records("a" * 20))
            if rolls:
                log.append(records("b" * 20))
            before = values(log)
            previous = sys.gettrace()
            sys.settrace(_InterruptAt(line, modules))
            try:
                log.append(records("c" * 20), acks=1)
            except KeyboardInterrupt:
                done = False
            else:
                done = True
            finally:
                sys.settrace(previous)
            if done:
                log.close()
                break
            interrupted += 1
            # The handle itself, and whoever comes when its process dies now, go on.
            log.append(records("d"))
            found = content(log)
            assert gapless([offset for offset, _ in found]), (line, found)
            assert [v for _, v in found] in (
                [*before, b"d"],
                [*before, b"c" * 20, b"d"],
            ), line
            assert damage(directory) == [], line
            kill(log)
            with opened(directory, SpyFiles(OTHER_BOOT), segment_bytes=200) as again:
                assert content(again) == found, line
    assert interrupted > 60


@pytest.mark.parametrize("heals", ["at once", "after the append"])
@pytest.mark.parametrize("error", [io_error(), KeyboardInterrupt()], ids=["EIO", "Ctrl-C"])
def test_a_roll_that_fails_at_any_operation_leaves_a_good_log(
    tmp_path: Path, heals: str, error: BaseException
) -> None:
    failures = 0
    for number in range(1, 1000):
        directory = tmp_path / f"{number}"
        files = SpyFiles()
        log = opened(directory, files, segment_bytes=320, index_interval_bytes=0)
        log.append(records("a" * 50))
        log.append(records("b" * 50))
        count = 0

        def before(operation: str, path: str, number: int = number) -> None:
            nonlocal count
            count += 1
            if count == number or (count > number and heals == "after the append"):
                raise error

        files.before = before
        acknowledged = [b"a" * 50, b"b" * 50]
        failed = False
        try:
            log.append(records("c" * 100), acks=1)
            acknowledged.append(b"c" * 100)
        except (OSError, KeyboardInterrupt):
            failed = True
            failures += 1
        files.before = lambda operation, path: None
        assert no_locks_held(log)
        if failed:
            try:
                # A small batch fits into the old segment, which the failed one did not.
                log.append(records("d"))
                log.append(records("e" * 200))
                acknowledged += [b"d", b"e" * 200]
            except PoisonedError:
                pass
            _is_good(log, acknowledged)
            kill(log)
            for boot in (files.boot, OTHER_BOOT):
                log = opened(directory, SpyFiles(boot), segment_bytes=320, index_interval_bytes=0)
                _is_good(log, acknowledged)
                kill(log)
            assert damage(directory) == [], number
        else:
            kill(log)
            break
    assert failures > 8


def _is_good(log: PartitionLog, acknowledged: list[bytes]) -> None:
    found = content(log)
    assert gapless([offset for offset, _ in found])
    assert [value for _, value in found if value in acknowledged] == acknowledged
    assert len({value for _, value in found}) == len(found)
    assert len(found) == log.log_end_offset


def test_a_sync_that_fails_in_a_roll_poisons_the_log(directory: Path) -> None:
    files = SpyFiles()
    log = opened(directory, files, segment_bytes=100)
    log.append(records("a" * 50), acks=1)
    files.before = fail("sync", io_error(), path=".log")
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        log.append(records("b" * 50), acks=1)
    files.before = lambda operation, path: None
    with pytest.raises(PoisonedError):
        log.append(records("c"), acks=1)
    kill(log)
    with opened(directory, segment_bytes=100) as fresh:
        assert values(fresh) == [b"a" * 50]
        assert fresh.append(records("b")).base_offset == 1
