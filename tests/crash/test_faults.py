"""A full or broken disk at every operation of everything that changes a partition."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import logstore
from logstore import LogConfig, PartitionLog, PoisonedError, Record
from logstore.segments.check import check
from logstore.segments.files import DiskFiles
from logstore.segments.memory_files import CrashMode

from .crashes import DIRECTORY, Clock, Content, content, damage
from .faults import FaultyFiles

Job = Callable[[PartitionLog], object]

SETTINGS: dict[str, int | str | float] = {
    "segment_bytes": 1200,
    "index_interval_bytes": 200,
    "retention_bytes": 1500,
}


def value(number: int, size: int = 200) -> bytes:
    return (b"value %d " % number * size)[:size]


def record(number: int, size: int = 200) -> Record:
    return Record(timestamp=1000 + number, key=b"key %d" % (number % 4), value=value(number, size))


def prepared(policy: str) -> tuple[FaultyFiles, PartitionLog, list[tuple[int, Content]]]:
    """A log of several segments, and its records. The last ones are not synced."""
    files = FaultyFiles()
    log = opened(files, policy)
    for number in range(14):
        log.append([record(number)], acks="all" if number < 12 else 1)
    assert len(log.segments) > 2
    return files, log, content(log)


def opened(files: FaultyFiles, policy: str) -> PartitionLog:
    config = LogConfig.from_overrides({**SETTINGS, "cleanup_policy": policy})
    return PartitionLog(DIRECTORY, files=files, clock=Clock(), config=config, lock_timeout=1)


def append(log: PartitionLog) -> None:
    """Appends with a sync each, and rolls among them."""
    for number in range(20, 27):
        log.append([record(number, 300)])


def append_unsynced(log: PartitionLog) -> None:
    for number in range(20, 27):
        log.append([record(number, 300)], acks=1)


def roll(log: PartitionLog) -> None:
    with log._locked() as writer:
        writer.roll(writer.enter())


def error_of(call: Callable[[], object]) -> OSError | None:
    """The operating system's error with which a call ended, if it did."""
    try:
        call()
    except OSError as error:
        return error
    return None


def told(error: OSError, number: int, directory: str) -> None:
    """The error says what happened, and to which file."""
    assert error.errno == number, repr(error)
    assert str(error.filename).startswith(directory), repr(error)


def fill(log: PartitionLog, acked: list[tuple[int, Content]], size: Callable[[], int]) -> None:
    """Append records until the disk is full, and note those that went through."""
    error = None
    while error is None:
        new = record(len(acked), size())
        error = error_of(
            lambda: acked.append((log.append([new]).base_offset, (new.key, new.value)))  # noqa: B023
        )
    told(error, errno.ENOSPC, log.directory)


JOBS: dict[str, tuple[str, Job]] = {
    "append": ("delete", append),
    "append unsynced": ("delete", append_unsynced),
    "roll": ("delete", roll),
    "flush": ("delete", PartitionLog.flush),
    "retention": ("delete", PartitionLog.retain),
    "deletion of records": ("delete", lambda log: log.delete_records(log.segments[1] + 1)),
    "deletion of all": ("delete", lambda log: log.delete_records(log.log_end_offset)),
    "compaction": ("compact", lambda log: log.compact(force=True)),
    "truncation in the active segment": ("delete", lambda log: log.truncate(13)),
    "truncation in a closed segment": ("delete", lambda log: log.truncate(log.segments[1] + 2)),
    "purge": ("compact", lambda log: log.purge_deleted(at_once=True)),
}


def kept(before: list[tuple[int, Content]], name: str, log: PartitionLog) -> None:
    """The log has nothing but what was there, or what the job wrote, and what it took is what it
    was to take."""
    found = dict(content(log))
    old = dict(before)
    start, end = log.log_start_offset, log.log_end_offset
    for offset, got in found.items():
        expected = old.get(offset)
        assert expected == got or (offset >= len(old) or "truncation" in name), (offset, got)
    for offset, (key, _) in old.items():
        if not start <= offset < end or offset in found:
            continue
        later = [o for o, (other, _) in old.items() if other == key and o > offset]
        assert name == "compaction", f"offset {offset} is missing"
        assert later, f"the last record of {key!r} is missing"
    if "truncation" not in name:
        assert end >= len(old)
    if name not in ("retention", "deletion of records", "deletion of all"):
        assert start == 0


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO], ids=["full", "broken"])
@pytest.mark.parametrize("name", list(JOBS))
def test_a_job_that_fails_at_any_operation_says_so_and_leaves_a_good_log(
    name: str, error: int
) -> None:
    policy, job = JOBS[name]
    failed = poisonings = 0
    for number in range(1, 1000):
        files, log, before = prepared(policy)
        files.fail_at(number, error)
        last = files.operations + number
        found = error_of(lambda log=log: job(log))  # type: ignore[misc]
        if found is not None:
            told(found, error, DIRECTORY)
            failed += 1
        came_so_far = files.operations >= last
        files.heal()
        try:
            log.append([record(90)], acks=1)
        except PoisonedError:
            poisonings += 1
            other = PartitionLog(
                DIRECTORY, files=files, clock=Clock(), config=log.config, read_only=True
            )
            assert content(other) == content(log), f"operation {number}: reading goes on"
            other.close()
            with pytest.raises(PoisonedError):
                log.append([record(91)])
            with pytest.raises(PoisonedError):
                log.close()
            log = opened(files, policy)
            log.append([record(90)], acks=1)
        end = log.log_end_offset
        kept(before, name, log)
        assert damage(files) == [], f"operation {number}"
        log.append([record(92), record(93)])
        after = content(log)
        start = log.log_start_offset
        # And the disk has all of it, whatever the cache says.
        crashed = FaultyFiles()
        crashed.__dict__.update(files.crash(CrashMode.LOSE).__dict__)
        log = opened(crashed, policy)
        assert log.log_end_offset == end + 2, f"operation {number}"
        assert log.log_start_offset == start
        assert content(log) == after, f"operation {number}: lost behind a sync"
        assert damage(crashed) == [], f"operation {number}"
        log.close()
        if not came_so_far:
            break
    else:
        raise AssertionError("there is no end to it")
    print(f"{name}: {number - 1} operations, {failed} errors, {poisonings} poisonings")
    assert failed or name in ("purge",)
    if name in ("append", "roll", "flush"):
        assert poisonings > 0


@pytest.mark.parametrize("job", ["append", "roll", "flush", "truncation in the active segment"])
def test_what_a_failed_sync_was_to_save_is_not_believed_once_the_cache_has_dropped_it(
    job: str,
) -> None:
    """The pages that the failed sync was to save read as zeros, or as what was there before."""
    for number in range(1, 200):
        files, log, before = prepared("delete")
        wanted = files.operations + number
        files.fault = lambda what, path, f=files, w=wanted: (  # type: ignore[misc]
            errno.EIO if f.operations == w and what == "sync" else None
        )
        end = log.synced_offset
        failed = False
        try:
            JOBS[job][1](log)
        except OSError:
            failed = True
        if files.operations < wanted:
            break
        if not failed:
            continue
        files.heal()
        files.evict()
        log.forked()
        log = opened(files, "delete")
        assert log.log_end_offset >= (min(end, log.segments[-1] + 1) if "trunc" in job else end)
        found = content(log)
        assert [o for o, _ in found] == list(range(len(found)))
        kept_here = dict(before)
        assert all(kept_here.get(o, c) == c or o >= len(before) - 2 for o, c in found)
        log.append([record(95)])
        after = content(log)
        crashed = FaultyFiles()
        crashed.__dict__.update(files.crash(CrashMode.LOSE).__dict__)
        assert content(opened(crashed, "delete")) == after, f"operation {number}"
        assert damage(crashed) == []
    else:
        raise AssertionError("there is no end to it")


def test_a_sync_that_fails_in_a_recovery_is_no_reason_to_believe_the_next_one() -> None:
    """A second opening must not trust a sync that saves nothing."""
    for number in range(1, 60):
        files, log, before = prepared("delete")
        crashed = FaultyFiles()
        crashed.__dict__.update(files.crash(CrashMode.KILL).__dict__)
        state = crashed._inode(DIRECTORY + "/state")
        state.data[128:136] = (9).to_bytes(8, "little")  # killed while files came and went
        crashed.fail_at(number, errno.EIO)
        last = crashed.operations + number
        with contextlib.suppress(OSError):
            opened(crashed, "delete").forked()
        crashed.heal()
        log = opened(crashed, "delete")
        if crashed.operations < last:
            break
        assert content(log) == before
        log.append([record(95)])
        after = content(log)
        lost = FaultyFiles()
        lost.__dict__.update(crashed.crash(CrashMode.LOSE).__dict__)
        assert content(opened(lost, "delete")) == after, f"operation {number}"
    else:
        raise AssertionError("there is no end to it")


@pytest.mark.parametrize("policy", ["delete", "compact"])
def test_a_disk_that_fills_up_is_told_and_the_log_goes_on_when_there_is_room(policy: str) -> None:
    """Whole writes, and parts of writes, up to the last byte that there is room for."""
    rng = random.Random(policy)
    for round_number in range(25):
        files, log, _ = prepared(policy)
        files.capacity = files.used + rng.randint(0, 3000)
        acked: list[tuple[int, Content]] = content(log)
        fill(log, acked, lambda rng=rng: 1 + rng.randint(0, 500))  # type: ignore[misc]
        assert content(log) == acked, f"round {round_number}"
        assert damage(files) == []
        if policy == "compact":
            error = error_of(lambda log=log: log.compact(force=True))  # type: ignore[misc]
            if error is not None:
                told(error, errno.ENOSPC, DIRECTORY)
            assert dict(content(log)).items() <= dict(acked).items()
        files.capacity += 100_000
        before = content(log)
        new = record(999)
        last = log.append([new]).base_offset
        assert content(log) == [*before, (last, (new.key, new.value))]
        if policy == "compact":
            log.compact(force=True)
        log.close()
        log = opened(files, policy)
        assert content(log)[-1][0] == last
        assert damage(files) == []
        log.close()


# a real small disk --------------------------------------------------------------------------

SMALL_DISK_BYTES = 2 << 20


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MB, where the operating system lets us make one."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        pytest.skip("only root may mount a small file system")
    libc = ctypes.CDLL(None, use_errno=True)
    target = os.fsencode(tmp_path)
    try:
        mount, umount = libc.mount, libc.umount2
    except AttributeError:
        pytest.skip("there is no mount here")
    if mount(b"tmpfs", target, b"tmpfs", 0, f"size={SMALL_DISK_BYTES}".encode()) != 0:
        pytest.skip(f"a tmpfs cannot be mounted: {os.strerror(ctypes.get_errno())}")
    try:
        yield tmp_path
    finally:
        umount(target, 2)


def found_damage(directory: Path) -> list[str]:
    findings = check(DiskFiles(), os.fspath(directory)) or ()
    return [f.reason for f in findings if f.severity == "damage"]


@pytest.mark.parametrize("segment_bytes", [40_000, 1 << 30], ids=["rolling", "one segment"])
def test_a_real_disk_may_fill_up_and_be_relieved_again_and_again(
    small_disk: Path, segment_bytes: int
) -> None:
    directory = small_disk / "orders-0"
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(300_000))
    config = LogConfig(segment_bytes=segment_bytes, index_interval_bytes=500)
    acked: list[tuple[int, Content]] = []
    log = PartitionLog(directory, config=config)
    for relief in range(3):
        rng = random.Random(relief)
        fill(log, acked, lambda rng=rng: rng.randint(1, 9000))  # type: ignore[misc]
        assert content(log) == acked
        assert found_damage(directory) == []
        if relief == 1:  # a process that is killed now, and one that opens a log on a full disk
            log.forked()
            log = PartitionLog(directory, config=config)
            assert content(log) == acked
        if relief < 2:
            ballast.write_bytes(bytes(100_000 * (2 - relief)))
    log.forked()  # a close would fail: the indexes may have no room for their last entries
    with PartitionLog(directory, config=config, read_only=True) as log:
        assert content(log) == acked
    ballast.unlink()
    with PartitionLog(directory, config=config) as log:
        assert content(log) == acked
        log.append([record(0)])
    assert found_damage(directory) == []


@pytest.mark.parametrize("name", ["retention", "deletion of records", "deletion of all"])
def test_a_full_disk_can_be_emptied_by_what_deletes(name: str) -> None:
    """Not even the checkpoint that says what goes has room there."""
    files, log, before = prepared("delete")
    if name == "retention":
        log.close()
        config = LogConfig.from_overrides({**SETTINGS, "retention_ms": 0})
        log = PartitionLog(DIRECTORY, files=files, clock=Clock(), config=config, lock_timeout=1)
        start = log.log_end_offset
    else:
        start = log.segments[1] + 1 if name == "deletion of records" else log.log_end_offset
    with PartitionLog(DIRECTORY, files=files, clock=Clock(), read_only=True) as reader:
        assert content(reader) == before
        files.capacity = files.used
        if name == "retention":
            log.retain()
        else:
            log.delete_records(start)
        assert log.log_start_offset == reader.log_start_offset == start
        assert content(log) == content(reader) == before[start:]
    log.append([record(1)])
    log.close()
    assert damage(files) == []


@pytest.mark.parametrize("segment_bytes", [200_000, 1 << 30], ids=["several", "one segment"])
def test_the_deletion_of_all_records_frees_a_full_real_disk(
    small_disk: Path, segment_bytes: int
) -> None:
    directory = small_disk / "orders-0"
    log = PartitionLog(directory, config=LogConfig(segment_bytes=segment_bytes))
    acked: list[tuple[int, Content]] = []
    fill(log, acked, lambda: 9000)
    with contextlib.suppress(OSError), (small_disk / "ballast").open("wb", buffering=0) as ballast:
        while True:
            ballast.write(b"x")
    end = log.log_end_offset
    assert log.delete_records(end) == end
    log.purge_deleted(at_once=True)
    assert sum(entry.stat().st_size for entry in directory.iterdir()) < 10_000
    assert (log.segments, content(log)) == ((end,), [])
    again: list[tuple[int, Content]] = []
    fill(log, again, lambda: 9000)
    assert len(again) > len(acked) // 2
    assert content(log) == again
    assert found_damage(directory) == []
    log.forked()


def full_store(path: Path) -> logstore.Store:
    """A store on a disk without a byte of room."""
    store = logstore.open(path / "store", maintenance_interval=None)
    fill(store.create_topic("orders").partition(0), [], lambda: 9000)
    with contextlib.suppress(OSError), (path / "ballast").open("wb", buffering=0) as ballast:
        while True:
            ballast.write(bytes(100))
    return store


def room(path: Path) -> int:
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize


def test_a_topic_can_be_deleted_from_a_full_real_disk(small_disk: Path) -> None:
    store = full_store(small_disk)
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        store.create_topic("more")
    store.delete_topic("orders")
    assert "orders" not in [topic.name for topic in store.topics()]
    assert room(small_disk) > 1 << 20
    store.create_topic("orders").partition(0).append([record(0)])
    store.close()
    assert found_damage(small_disk / "store") == []


def test_a_backup_onto_a_full_real_disk_leaves_nothing_there(small_disk: Path) -> None:
    store = full_store(small_disk)
    (small_disk / "ballast").unlink()
    (small_disk / "ballast").write_bytes(bytes(max(0, room(small_disk) - 400_000)))
    before = room(small_disk)
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)) as failed:
        store.backup(small_disk / "backups")
    told(failed.value, errno.ENOSPC, os.fspath(small_disk / "backups"))
    assert os.listdir(small_disk / "backups") == ["lock"]
    assert room(small_disk) >= before - 8192
    (small_disk / "ballast").unlink()
    store.delete_topic("orders")
    store.create_topic("few").partition(0).append([record(0)])
    assert store.backup(small_disk / "backups").partitions == 2
    store.close()


def test_a_compaction_on_a_full_real_disk_fails_and_comes_through_when_there_is_room(
    small_disk: Path,
) -> None:
    directory = small_disk / "orders-0"
    config = LogConfig(segment_bytes=200_000, cleanup_policy="compact")
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(1_000_000))
    log = PartitionLog(directory, config=config)
    fill(log, [], lambda: 20_000)
    before = {key: (offset, value) for offset, (key, value) in content(log)}
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)) as full:
        log.compact(force=True)
    assert str(full.value.filename).startswith(str(directory))
    assert {key: (offset, value) for offset, (key, value) in content(log)} == before
    assert found_damage(directory) == []
    ballast.unlink()
    log.append([record(0)])
    result = log.compact(force=True)
    assert result.bytes_after < result.bytes_before
    log.purge_deleted(at_once=True)
    assert {key for _, (key, _) in content(log)} == {b"key %d" % n for n in range(4)}
    assert found_damage(directory) == []
    log.close()
