"""Opening a partition: after a clean close, after a crash, and on files of somebody else's."""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path

import pytest

from logstore import FormatError, LogConfig, PartitionLog, Record
from logstore.repair import repair
from logstore.segments.batch import encode_batch
from logstore.segments.checkpoint import EpochEntry, parse_leader_epochs

from .support import (
    BOOT,
    GOLDEN,
    OTHER_BOOT,
    SpyFiles,
    active_path,
    batches,
    content,
    copied,
    damage,
    index_paths,
    kill,
    opened,
    raw_batch,
    records,
    snapshot,
    values,
)

FIRST_LOG = "00000000000000000000.log"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "orders-0"


def epochs(directory: Path) -> list[EpochEntry]:
    return parse_leader_epochs((directory / "leader-epoch-checkpoint").read_bytes())


def rebooted() -> SpyFiles:
    """The files as they are found when the machine has been started again."""
    return SpyFiles(OTHER_BOOT)


def crashed(directory: Path, count: int = 3, **config: int | str) -> int:
    """Make a log of ``count`` batches and let its machine go down; the last batch's position."""
    log = opened(directory, **config)
    position = 0
    for number in range(count):
        position = active_path(log).stat().st_size
        log.append(records(f"a{number}", f"b{number}"), acks="all")
    kill(log)
    return position


def expected(count: int) -> list[bytes]:
    return [f"{letter}{number}".encode() for number in range(count) for letter in "ab"]


# a clean close ------------------------------------------------------------------------------


@pytest.mark.parametrize("boot", [BOOT, OTHER_BOOT], ids=["same boot", "another boot"])
def test_reopening_after_a_clean_close_reads_no_log(directory: Path, boot: str) -> None:
    with opened(directory, segment_bytes=300, index_interval_bytes=0) as log:
        for number in range(20):
            log.append(records(f"value {number}"))
    before = snapshot(directory)

    files = SpyFiles(boot)
    with opened(directory, files, segment_bytes=300, index_interval_bytes=0) as log:
        assert files.bytes_read[".log"] == 0
        assert files.bytes_read[".index"] == files.bytes_read[".timeindex"] == 0
        assert files.counts["write"] == files.counts["truncate"] == files.counts["rename"] == 0
        assert log.log_end_offset == log.synced_offset == 20
    after = snapshot(directory)
    assert {n: d for n, d in before.items() if n != "state"} == {
        n: d for n, d in after.items() if n != "state"
    }


def test_a_clean_reopening_begins_no_leader_epoch(directory: Path) -> None:
    with opened(directory) as log:
        log.append(records("a"))
    with opened(directory, rebooted()) as log:
        log.append(records("b"))
        assert [batch.header.leader_epoch for batch in batches(log)] == [0, 0]
    assert epochs(directory) == [EpochEntry(0, 0)]


def test_appends_go_on_after_a_clean_reopening_as_if_nothing_had_been(
    directory: Path, tmp_path: Path
) -> None:
    config = {"index_interval_bytes": 100, "segment_bytes": 900}
    with opened(tmp_path / "straight-0", **config) as log:
        for number in range(40):
            log.append(records(f"value {number}", timestamp=1000 + number))
    for number in range(40):
        # No close writes a time entry that an append would have written otherwise.
        with opened(directory, SpyFiles(f"{number:036d}"), **config) as log:
            log.append(records(f"value {number}", timestamp=1000 + number))
    straight, stopped = snapshot(tmp_path / "straight-0"), snapshot(directory)
    names = [name for name in straight if name.endswith((".log", ".index"))]
    assert len(names) > 4
    assert {n: straight[n] for n in names} == {n: stopped[n] for n in names}
    assert damage(directory) == []


# a crash ------------------------------------------------------------------------------------


def test_a_tail_torn_at_any_byte_is_cut_and_the_rest_is_kept(
    directory: Path, tmp_path: Path
) -> None:
    last = crashed(directory)
    whole = (directory / FIRST_LOG).read_bytes()
    for size in range(last, len(whole)):
        torn = copied(directory, tmp_path / f"{size}")
        (torn / FIRST_LOG).write_bytes(whole[:size])
        with opened(torn) as log:
            assert log.log_end_offset == 4, f"cut at {size}"
            assert values(log) == expected(2)
            assert log.append(records("next")).base_offset == 4
            assert values(log) == [*expected(2), b"next"]
        shutil.rmtree(torn)


def test_a_cut_is_told_to_the_log_of_the_program(
    directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    last = crashed(directory)
    os.truncate(directory / FIRST_LOG, last + 10)
    with caplog.at_level(logging.WARNING, logger="logstore"):
        opened(directory, rebooted()).close()
    assert f"{FIRST_LOG}: cut 10 bytes at byte {last}: torn batch" in caplog.text


@pytest.mark.parametrize("zeros", [1, 11, 17, 61, 512, 100_000])
def test_a_tail_of_zeros_is_cut(directory: Path, zeros: int) -> None:
    crashed(directory)
    end = (directory / FIRST_LOG).stat().st_size
    os.truncate(directory / FIRST_LOG, end + zeros)
    with opened(directory, rebooted()) as log:
        assert values(log) == expected(3)
        assert active_path(log).stat().st_size == end


def test_a_tail_that_is_half_batch_and_half_zeros_is_cut(directory: Path) -> None:
    last = crashed(directory)
    path = directory / FIRST_LOG
    end = path.stat().st_size
    os.truncate(path, last + 30)
    os.truncate(path, end)
    with opened(directory, rebooted()) as log:
        assert values(log) == expected(2)


@pytest.mark.parametrize("boot", [BOOT, OTHER_BOOT], ids=["same boot", "another boot"])
def test_damage_in_front_of_good_batches_raises_and_changes_nothing(
    directory: Path, boot: str
) -> None:
    crashed(directory, 5)
    path = directory / FIRST_LOG
    data = bytearray(path.read_bytes())
    size = len(data) // 5
    for position in range(size, 2 * size):
        damaged = bytearray(data)
        damaged[position] ^= 0x55
        if position - size in range(12, 16):
            continue  # the leader epoch is covered by no checksum
        path.write_bytes(damaged)
        (directory / "state").unlink(missing_ok=True)
        before = {n: d for n, d in snapshot(directory).items() if n not in ("state", "lock")}
        if damaged[size : size + 8] > data[size : size + 8]:
            # The offset is covered by none either: what shows is that those behind go back.
            with pytest.raises(FormatError, match="the offsets go back"):
                opened(directory, SpyFiles(boot))
            continue
        with pytest.raises(FormatError) as caught:
            opened(directory, SpyFiles(boot))
        assert caught.value.path == str(path), caught.value
        assert caught.value.position == size
        assert str(path) in str(caught.value)
        after = {n: d for n, d in snapshot(directory).items() if n not in ("state", "lock")}
        assert after == before


def test_damage_in_the_last_batch_is_a_torn_tail(directory: Path) -> None:
    last = crashed(directory)
    path = directory / FIRST_LOG
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with opened(directory, rebooted()) as log:
        assert values(log) == expected(2)
    assert path.stat().st_size == last


def flipped(path: Path, position: int, mask: int = 1) -> None:
    """Flip bits of a byte."""
    data = bytearray(path.read_bytes())
    data[position] ^= mask
    path.write_bytes(data)


@pytest.mark.parametrize("boot", [BOOT, OTHER_BOOT], ids=["same boot", "another boot"])
def test_damage_in_what_the_checkpoint_says_was_synced_is_no_torn_tail(
    directory: Path, boot: str
) -> None:
    with opened(directory, index_interval_bytes=0) as log:
        log.append(records("a"))
        position = active_path(log).stat().st_size
        log.append(records("acknowledged"))
    path = directory / FIRST_LOG
    flipped(path, path.stat().st_size - 1)
    for index in index_paths(directory):  # without them the checkpoint is no place to begin at
        index.unlink()
    if boot == BOOT:
        with open(directory / "state", "r+b") as state:
            state.seek(140)
            state.write(b"\xff" * 8)
    before = path.read_bytes()
    with pytest.raises(FormatError, match=r"on stable storage.*logstore repair") as caught:
        opened(directory, SpyFiles(boot))
    assert (caught.value.path, caught.value.position) == (str(path), position)
    assert path.read_bytes() == before
    steps = list(repair(directory, drop_damaged=True))
    assert [step.kind for step in steps if step.path == str(path)] == ["drop"]
    with opened(directory, SpyFiles(boot)) as log:
        assert values(log) == [b"a"]


def test_a_log_that_is_torn_in_front_of_its_checkpoint_is_damaged(directory: Path) -> None:
    with opened(directory) as log:
        log.append(records("a"))
        position = active_path(log).stat().st_size
        log.append(records("acknowledged"))
    path = directory / FIRST_LOG
    os.truncate(path, position + 20)
    with pytest.raises(FormatError, match="on stable storage") as caught:
        opened(directory, rebooted())
    assert caught.value.position == position
    assert [step.kind for step in repair(directory)] == ["cut", "build", "build"]
    with opened(directory, rebooted()) as log:
        assert values(log) == [b"a"]


def test_a_length_that_went_wrong_does_not_cut_the_batches_behind(directory: Path) -> None:
    last = crashed(directory, 3)
    path = directory / FIRST_LOG
    size = path.stat().st_size
    data = bytearray(path.read_bytes())
    position = last // 2
    # The second batch says that it reaches to the end of the file.
    data[position + 8 : position + 12] = (size - position - 12).to_bytes(4, "big")
    path.write_bytes(data)
    with pytest.raises(FormatError) as caught:
        opened(directory, rebooted())
    assert (caught.value.path, caught.value.position) == (str(path), position)
    assert path.read_bytes() == data


def hole(directory: Path) -> tuple[Path, int]:
    """A log with an unwritten sector in the middle; the file and the damaged batch's position."""
    log = opened(directory)
    log.append(records("before"))
    position = active_path(log).stat().st_size
    log.append(records(b"x" * 2000))
    log.append(records("behind"), acks="all")
    path = active_path(log)
    kill(log)
    data = bytearray(path.read_bytes())
    data[1024:1536] = bytes(512)
    path.write_bytes(data)
    return path, position


def test_an_unwritten_sector_is_cut_after_a_power_cut(directory: Path) -> None:
    path, position = hole(directory)
    with opened(directory, rebooted()) as log:
        assert values(log) == [b"before"]
    assert path.stat().st_size == position


def test_an_unwritten_sector_is_damage_where_the_machine_went_on(directory: Path) -> None:
    path, position = hole(directory)
    # The state is broken, but says that it was derived since the machine started.
    with open(directory / "state", "r+b") as state:
        state.seek(140)
        state.write(b"\xff" * 8)
    with pytest.raises(FormatError) as caught:
        opened(directory)
    assert (caught.value.path, caught.value.position) == (str(path), position)


def test_a_record_that_holds_a_batch_does_not_make_damage_of_a_torn_tail(directory: Path) -> None:
    log = opened(directory)
    log.append(records("a", "b"))
    inner = raw_batch(0, "somebody else's")
    log.append(records(inner + b"." * 100))
    path = active_path(log)
    kill(log)
    os.truncate(path, path.stat().st_size - 50)
    with opened(directory, rebooted()) as log:
        assert values(log) == [b"a", b"b"]


def test_unsynced_batches_that_survived_a_crash_are_synced_and_indexed(directory: Path) -> None:
    config = {"index_interval_bytes": 0}
    with opened(directory, **config) as log:
        log.append(records("a"))
    log = opened(directory, **config)
    for number in range(5):
        log.append(records(f"{number}", timestamp=2000 + number), acks=1)
    kill(log)

    files = rebooted()
    files.before = order = _Order()
    with opened(directory, files, **config) as log:
        assert log.log_end_offset == log.synced_offset == 6
        assert ("sync", FIRST_LOG) in order.seen
        assert files.bytes_read[".log"] < 6 * 80
        assert (directory / "00000000000000000000.index").stat().st_size == 5 * 8
        assert values(log) == [b"a", b"0", b"1", b"2", b"3", b"4"]
    assert damage(directory) == []


class _Order:
    """Remembers operations and file names, in order."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []

    def __call__(self, operation: str, path: str) -> None:
        self.seen.append((operation, os.path.basename(path)))


def test_an_unclean_reopening_begins_a_leader_epoch(directory: Path) -> None:
    crashed(directory)
    with opened(directory, rebooted()) as log:
        log.append(records("c"))
        assert [batch.header.leader_epoch for batch in batches(log)] == [0, 0, 0, 1]
    assert epochs(directory) == [EpochEntry(0, 0), EpochEntry(1, 6)]


def test_an_unclean_reopening_behind_a_checkpoint_begins_a_leader_epoch_too(
    directory: Path,
) -> None:
    with opened(directory) as log:
        log.append(records("a"))
    log = opened(directory)
    log.append(records("b"), acks=1)
    kill(log)
    with opened(directory, rebooted()) as log:
        log.append(records("c"))
        assert [batch.header.leader_epoch for batch in batches(log)] == [0, 0, 1]


def test_a_power_cut_that_takes_exactly_what_was_written_since_a_close_is_no_clean_close(
    directory: Path,
) -> None:
    with opened(directory) as log:
        log.append(records("a"))
        end = active_path(log).stat().st_size
    log = opened(directory)
    log.append(records("lost"), acks=1)
    kill(log)
    os.truncate(directory / FIRST_LOG, end)
    with opened(directory, rebooted()) as log:
        assert values(log) == [b"a"]
        log.append(records("b"))
        assert [batch.header.leader_epoch for batch in batches(log)] == [0, 1]
    assert epochs(directory) == [EpochEntry(0, 0), EpochEntry(1, 1)]


def test_what_another_handle_wrote_behind_a_close_is_no_clean_close(directory: Path) -> None:
    other = opened(directory)
    with opened(directory) as log:
        log.append(records("a"))
        end = active_path(log).stat().st_size
    other.append(records("lost"), acks=1)
    kill(other)
    os.truncate(directory / FIRST_LOG, end)
    with opened(directory, rebooted()) as log:
        log.append(records("b"))
        assert [batch.header.leader_epoch for batch in batches(log)] == [0, 1]


def test_the_mark_of_a_clean_close_goes_once_and_ahead_of_the_first_write(directory: Path) -> None:
    with opened(directory) as log:
        log.append(records("a"))
    files = SpyFiles()
    with opened(directory, files) as log, opened(directory, files) as other:
        files.before = order = _Order()
        for handle in (log, other, log, other):
            handle.append(records("more"), acks=1)
        seen = [op for op in order.seen if op[0] == "sync_shared" or op == ("write", FIRST_LOG)]
    assert seen == [("sync_shared", "state"), *[("write", FIRST_LOG)] * 4]


@pytest.mark.parametrize("boot", [BOOT, OTHER_BOOT], ids=["same boot", "another boot"])
def test_a_log_that_was_read_only_since_its_close_is_still_clean(
    directory: Path, boot: str
) -> None:
    with opened(directory) as log:
        log.append(records("a"))
    log = opened(directory, SpyFiles(boot))
    assert values(log) == [b"a"]
    kill(log)
    with opened(directory, SpyFiles("3" * 36)) as log:
        log.append(records("b"))
        assert [batch.header.leader_epoch for batch in batches(log)] == [0, 0]


def test_a_replica_begins_no_leader_epoch_of_its_own(directory: Path) -> None:
    log = opened(directory)
    log.append_raw(raw_batch(0, "a", epoch=3), origin="replica")
    log.append_raw(raw_batch(1, "b", epoch=3), origin="replica", acks=1)
    kill(log)
    with opened(directory, rebooted()) as log:
        log.append_raw(raw_batch(2, "c", epoch=3), origin="replica")
        assert epochs(directory) == [EpochEntry(3, 0)]
        assert damage(directory) == []
    # It becomes the leader, and what is due is begun then.
    with opened(directory, SpyFiles("3" * 36)) as log:
        log.append(records("d"))
        assert [batch.header.leader_epoch for batch in batches(log)] == [3, 3, 3, 4]
    assert epochs(directory) == [EpochEntry(3, 0), EpochEntry(4, 3)]


@pytest.mark.parametrize("how", ["closed", "power cut", "killed", "killed while it published"])
def test_a_leader_epoch_that_is_due_stays_due(directory: Path, how: str) -> None:
    crashed(directory)
    log = opened(directory, rebooted())
    files = rebooted()
    if how == "closed":
        log.close()
        files = SpyFiles("3" * 36)
    else:
        kill(log)
        if how == "power cut":
            files = SpyFiles("3" * 36)
        elif how == "killed while it published":
            with open(directory / "state", "r+b") as state:
                state.seek(140)
                state.write(b"\xff" * 8)
    with opened(directory, files) as log:
        log.append(records("c"))
        assert [batch.header.leader_epoch for batch in batches(log)] == [0, 0, 0, 1]
    assert damage(directory) == []


def test_a_replica_that_was_cut_takes_older_epochs_from_its_leader(directory: Path) -> None:
    log = opened(directory)
    log.append_raw(raw_batch(0, "a", "b", epoch=3) + raw_batch(2, "c", epoch=5), origin="replica")
    log.truncate(2)
    log.append_raw(raw_batch(2, "x", epoch=4), origin="replica")
    assert epochs(directory) == [EpochEntry(3, 0), EpochEntry(4, 2)]
    assert damage(directory) == []
    kill(log)
    with opened(directory) as log:
        log.append(records("d"))
        assert [batch.header.leader_epoch for batch in batches(log)] == [3, 4, 6]
    assert epochs(directory) == [EpochEntry(3, 0), EpochEntry(4, 2), EpochEntry(6, 3)]
    assert damage(directory) == []


def test_epochs_that_a_leader_sends_may_go_back(directory: Path) -> None:
    with opened(directory) as log:
        log.append_raw(raw_batch(0, "a", epoch=5), origin="replica")
        log.append_raw(raw_batch(1, "b", epoch=4), origin="replica")
        # As Kafka does it: what contradicts the new one goes.
        assert epochs(directory) == [EpochEntry(4, 1)]
        log.append(records("c"))
        assert [batch.header.leader_epoch for batch in batches(log)] == [5, 4, 6]
    assert epochs(directory) == [EpochEntry(4, 1), EpochEntry(6, 2)]
    assert damage(directory) == []


def test_a_new_leader_epoch_is_never_one_that_was_lost(directory: Path) -> None:
    log = opened(directory)
    log.append(records("a", "b"))
    end = active_path(log).stat().st_size
    log.append_raw(raw_batch(2, "lost", epoch=7), origin="replica")
    assert epochs(directory) == [EpochEntry(0, 0), EpochEntry(7, 2)]
    kill(log)
    os.truncate(directory / FIRST_LOG, end)
    with opened(directory, rebooted()) as log:
        log.append(records("c"))
        assert [batch.header.leader_epoch for batch in batches(log)] == [0, 8]
    assert epochs(directory) == [EpochEntry(0, 0), EpochEntry(8, 2)]


def test_a_killed_process_is_no_power_cut_and_begins_no_leader_epoch(directory: Path) -> None:
    crashed(directory)
    with opened(directory) as log:
        log.append(records("c"))
        assert [batch.header.leader_epoch for batch in batches(log)] == [0, 0, 0, 0]


def test_a_checkpoint_bounds_what_a_recovery_reads(directory: Path) -> None:
    with opened(directory) as log:
        for _ in range(50):
            log.append(records(b"x" * 1000))
    log = opened(directory)
    log.append(records(b"y" * 100))
    kill(log)
    files = rebooted()
    with opened(directory, files) as log:
        assert 100 < files.bytes_read[".log"] < 300
        assert log.log_end_offset == 51


def test_only_the_active_segment_is_read_after_a_crash(directory: Path) -> None:
    log = opened(directory, segment_bytes=5000)
    for _ in range(50):
        log.append(records(b"x" * 1000))
    kill(log)
    (directory / "state").unlink()
    files = rebooted()
    with opened(directory, files, segment_bytes=5000) as log:
        assert files.bytes_read[".log"] <= 5000
        assert log.log_end_offset == 50
        assert len(content(log)) == 50


def test_a_checkpoint_that_the_log_does_not_reach_is_not_believed(
    directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with opened(directory) as log:
        log.append(records("a", "b"))
        end = active_path(log).stat().st_size
        log.append(records("c"))
    synced = (directory / FIRST_LOG).stat().st_size
    os.truncate(directory / FIRST_LOG, end)
    with (
        caplog.at_level(logging.WARNING, logger="logstore"),
        opened(directory, rebooted()) as log,
    ):
        assert values(log) == [b"a", b"b"]
        assert log.append(records("d")).base_offset == 2
    assert f"it ends at byte {end}, and {synced} bytes were on stable storage" in caplog.text


@pytest.mark.parametrize("boot", [BOOT, OTHER_BOOT], ids=["same boot", "another boot"])
def test_a_state_that_was_copied_with_its_directory_is_not_trusted(
    directory: Path, tmp_path: Path, boot: str
) -> None:
    with opened(directory) as log:
        log.append(records("a", "b"))
        log.append(records("c"))
    copy = copied(directory, tmp_path / "copy-0")
    os.truncate(copy / FIRST_LOG, (copy / FIRST_LOG).stat().st_size - 3)
    files = SpyFiles(boot)
    with opened(copy, files) as log:
        assert files.bytes_read[".log"] > 0
        assert values(log) == [b"a", b"b"]


def test_a_state_of_zeros_under_open_handles_gets_a_generation_that_nobody_knows(
    directory: Path,
) -> None:
    def change(log: PartitionLog, text: str) -> None:
        """Replace the last batch, and the file that it is in."""
        log.append(records(f"{text} a", f"{text} b"))
        log.truncate(log.log_end_offset - 1)

    with opened(directory) as log, opened(directory) as other:
        for number in range(4):
            change(log, f"{number}")
            assert content(other) == content(log)
        seen = other._look().state.generation
        with open(directory / "state", "r+b") as state:
            state.write(bytes(4096))
        # Others come first, and change the files as often as the handle has seen them change.
        with opened(directory) as third:
            while third._look().state.generation < seen:
                third.truncate(0)
                change(third, "new")
            after = content(third)
        assert content(other) == after
        other.append(records("on"))
        assert content(log)[:-1] == after
    assert damage(directory) == []


@pytest.mark.parametrize("size", [0, 1, 100, 4095])
def test_a_state_that_is_cut_short_or_empty_is_derived_anew(directory: Path, size: int) -> None:
    crashed(directory)
    os.truncate(directory / "state", size)
    with opened(directory) as log:
        assert values(log) == expected(3)


def test_a_state_with_any_byte_broken_loses_nothing(directory: Path, tmp_path: Path) -> None:
    crashed(directory)
    end = (directory / FIRST_LOG).stat().st_size
    whole = (directory / "state").read_bytes()
    for position in [*range(0, 300, 3), *range(1024, 1150, 3)]:
        broken = bytearray(whole)
        broken[position] ^= 0xFF
        (directory / "state").write_bytes(broken)  # the same inode
        log = opened(directory)
        assert values(log) == expected(3), f"byte {position}"
        assert log.log_end_offset == 6
        kill(log)
        assert (directory / FIRST_LOG).stat().st_size == end


def test_an_empty_last_segment_is_where_the_log_goes_on(directory: Path) -> None:
    log = opened(directory, segment_bytes=100)
    log.append(records(b"x" * 80))
    log.append(records(b"y" * 80))
    kill(log)
    path = directory / "00000000000000000001.log"
    assert path.exists()
    os.truncate(path, 0)
    with opened(directory, rebooted(), segment_bytes=100) as log:
        assert log.segments == (0, 1)
        assert log.log_end_offset == 1
        assert log.append(records("z")).base_offset == 1
        assert values(log) == [b"x" * 80, b"z"]


def test_missing_side_files_are_made_anew(directory: Path) -> None:
    crashed(directory)
    for name in ("leader-epoch-checkpoint", "state", "lock"):
        (directory / name).unlink()
    for path in index_paths(directory):
        path.unlink()
    with opened(directory) as log:
        assert values(log) == expected(3)
        log.append(records("c"))
    assert len(index_paths(directory)) == 2
    assert damage(directory) == []


def test_a_broken_leader_epoch_checkpoint_is_named(directory: Path) -> None:
    crashed(directory)
    (directory / "leader-epoch-checkpoint").write_bytes(b"0\nnonsense\n")
    with pytest.raises(FormatError, match="leader-epoch-checkpoint"):
        opened(directory, rebooted())


def test_files_on_their_way_in_or_out_are_no_part_of_the_log(directory: Path) -> None:
    crashed(directory)
    for name in (
        "00000000000000000009.log.deleted",
        "00000000000000000009.log.cleaned",
        "leader-epoch-checkpoint.tmp",
        "notes.log",
    ):
        (directory / name).write_bytes(b"rubbish")
    with opened(directory, rebooted()) as log:
        assert log.segments == (0,)
        assert values(log) == expected(3)


# foreign directories ------------------------------------------------------------------------

GOLDEN_LOGS = sorted(path for path in GOLDEN.glob("*-0") if list(path.glob("*.log")))


@pytest.mark.parametrize("golden", GOLDEN_LOGS, ids=lambda path: path.name)
def test_a_log_that_kafka_wrote_is_appended_to(golden: Path, tmp_path: Path) -> None:
    directory = copied(golden, tmp_path / golden.name)
    (path,) = directory.glob("*.log")
    before = path.read_bytes()
    with PartitionLog(golden, read_only=True) as log:
        was = content(log)
        end = log.log_end_offset
    with opened(directory) as log:
        assert content(log) == was
        assert log.log_end_offset == end
        if end < int(path.stem) + (1 << 31) - 1:
            assert log.append(records("ours")).base_offset == end
            assert path.read_bytes().startswith(before)
            assert content(log) == [*was, (end, b"ours")]
        log.append(records("ours too"))
    with opened(directory, rebooted()) as log:
        assert content(log)[-1][1] == b"ours too"
    assert damage(directory) == []


def test_gaps_in_a_foreign_log_are_recovered_as_gaps(directory: Path) -> None:
    directory.mkdir()
    data = raw_batch(100, "a", "b", epoch=3) + raw_batch(500, "c", epoch=5)
    (directory / "00000000000000000090.log").write_bytes(data)
    with opened(directory) as log:
        assert log.log_start_offset == 90
        assert content(log) == [(100, b"a"), (101, b"b"), (500, b"c")]
        assert log.append(records("d")).base_offset == 501
        assert batches(log)[-1].header.leader_epoch == 6


def test_offsets_that_go_back_are_damage(directory: Path) -> None:
    directory.mkdir()
    first = raw_batch(5, "a", "b")
    (directory / FIRST_LOG).write_bytes(first + raw_batch(6, "again") + raw_batch(9, "z"))
    with pytest.raises(FormatError, match="the offsets go back") as caught:
        opened(directory)
    assert caught.value.position == len(first)
    assert caught.value.path == str(directory / FIRST_LOG)


def test_a_segment_of_many_batches_gets_the_indexes_that_appending_makes(
    directory: Path, tmp_path: Path
) -> None:
    config = {"index_interval_bytes": 200}
    log = opened(directory, **config)
    for number in range(60):
        log.append([Record(timestamp=1000 + number * 7 % 50, value=b"v" * (number % 30))])
    kill(log)
    made = {p.name: p.read_bytes() for p in index_paths(directory)}
    assert all(made.values())
    for path in index_paths(directory):
        path.unlink()
    (directory / "state").unlink()
    kill(opened(directory, **config))
    assert {p.name: p.read_bytes() for p in index_paths(directory)} == made


def test_an_unreadable_codec_is_no_reason_not_to_open(directory: Path) -> None:
    directory.mkdir()
    data = encode_batch(records("a"), base_offset=0)
    (directory / FIRST_LOG).write_bytes(data)
    with PartitionLog(directory, config=LogConfig(), files=SpyFiles()) as log:
        assert log.log_end_offset == 1
