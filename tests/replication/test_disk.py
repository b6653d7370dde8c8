"""The simulated disk: what a sync costs, and what is there after a crash."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest

from logstore.config import LogConfig
from logstore.errors import ChecksumError, InvalidInputError
from logstore.log import PartitionLog
from logstore.replication.disk import Disk
from logstore.replication.kernel import SimulatedClock, Simulation
from logstore.replication.settings import DiskSettings
from logstore.segments.memory_files import CrashMode
from logstore.segments.record import Record

DIRECTORY = "/broker-0/orders-0"
SEGMENT = f"{DIRECTORY}/{0:020d}.log"


class Machine:
    """A disk, and a log on it."""

    def __init__(self, seed: int = 1, **options: Any) -> None:
        self.simulation = Simulation(seed)
        settings = DiskSettings(**{"jitter_percent": 0, "write_bytes_per_s": 0, **options})
        self.disk = Disk(self.simulation, settings, 0)
        self.log = self.open()
        self.done: list[tuple[int, Any]] = []

    def open(self) -> PartitionLog:
        clock = SimulatedClock(self.simulation)
        self.disk.files.make_directory(DIRECTORY)
        return PartitionLog(DIRECTORY, files=self.disk.files, clock=clock, config=LogConfig())

    def append(self, value: bytes = b"value") -> None:
        self.log.append([Record(0, 0, None, value)], acks=1)

    def sync(self, what: Any = None) -> None:
        self.disk.sync(self.log, self._done, what)

    def _done(self, what: Any) -> None:
        self.done.append((self.simulation.now_us, what))

    def run(self, us: int = 1_000_000) -> list[tuple[int, Any]]:
        self.simulation.run_until(self.simulation.now_us + us)
        done, self.done = self.done, []
        return done


def test_a_sync_takes_its_time_and_then_all_is_on_stable_storage() -> None:
    machine = Machine(sync_us=1000)
    machine.append()
    machine.sync("one")
    assert machine.run(999) == []
    assert machine.log.synced_offset == 0
    assert machine.run(1) == [(1000, "one")]
    assert machine.log.synced_offset == 1


def test_one_sync_serves_all_who_wait_for_it() -> None:
    machine = Machine(sync_us=1000)
    machine.append()
    machine.sync("first")
    machine.sync("second")  # too late for the first sync, which is under way
    machine.sync("third")
    assert machine.run() == [(1000, "first"), (2000, "second"), (2000, "third")]
    assert machine.disk.syncs == 2


def test_a_disk_syncs_one_log_after_the_other() -> None:
    machine = Machine(sync_us=1000)
    other = machine.open()
    machine.sync("one")
    machine.disk.sync(other, machine._done, "other")
    machine.sync("one again")
    assert machine.run() == [(1000, "one"), (2000, "other"), (3000, "one again")]


def test_what_is_written_is_paid_for_once() -> None:
    machine = Machine(sync_us=1000, write_bytes_per_s=1_000_000)
    machine.sync()
    machine.run()
    before, start_us = machine.disk.written_bytes, machine.simulation.now_us
    machine.append(b"x" * 5000)
    written = machine.disk.written_bytes - before
    assert written > 5000
    machine.sync()
    machine.sync()
    assert [at - start_us for at, _ in machine.run()] == [1000 + written, 2000 + written]


def test_a_slow_disk_is_slow_until_it_is_not() -> None:
    machine = Machine(sync_us=1000)
    machine.disk.slow(20)
    machine.sync()
    assert machine.run() == [(20_000, None)]
    machine.disk.slow(1)
    start_us = machine.simulation.now_us
    machine.sync()
    assert machine.run() == [(start_us + 1000, None)]


def test_jitter_lengthens_a_sync_up_to_its_share() -> None:
    times = set()
    for seed in range(100):
        machine = Machine(seed, sync_us=1000, jitter_percent=50)
        machine.sync()
        times.add(machine.run()[0][0])
    assert min(times) >= 1000
    assert max(times) <= 1500
    assert len(times) > 30


@pytest.mark.parametrize("mode", list(CrashMode))
def test_a_crash_keeps_what_was_synced_and_perhaps_the_rest(mode: CrashMode) -> None:
    machine = Machine()
    machine.append(b"synced")
    machine.sync()
    machine.run()
    machine.append(b"not synced")
    assert machine.disk.crash(mode) is mode
    log = machine.open()
    values = [record.value for record in log.read(0).records()]
    assert values[0] == b"synced"
    if mode is CrashMode.KILL:
        assert values == [b"synced", b"not synced"]
    elif mode is CrashMode.LOSE:
        assert values == [b"synced"]
    else:
        assert values[1:] in ([], [b"not synced"])


def test_the_seed_decides_what_a_power_cut_does() -> None:
    modes = {Machine(seed).disk.crash() for seed in range(50)}
    assert modes == {CrashMode.LOSE, CrashMode.TEAR, CrashMode.REORDER}


def test_a_crash_ends_the_syncs_that_are_waited_for() -> None:
    machine = Machine(sync_us=1000)
    machine.append()
    machine.sync("under way")
    machine.sync("waiting")
    machine.run(500)
    machine.disk.crash(CrashMode.LOSE)
    machine.log = machine.open()
    assert machine.log.log_end_offset == 0
    machine.sync("after it")
    assert machine.run() == [(1500, "after it")]


def test_nobody_is_called_for_a_log_that_is_forgotten() -> None:
    machine = Machine(sync_us=1000)
    other = machine.open()
    machine.sync("under way")
    machine.sync("waiting")
    machine.disk.sync(other, machine._done, "other")
    machine.disk.forget(machine.log)
    machine.log.close()
    assert machine.run() == [(2000, "other")]


def test_a_full_disk_takes_nothing_more_until_there_is_room() -> None:
    machine = Machine()
    machine.append()
    machine.disk.fill()
    with pytest.raises(OSError, match="No space left") as caught:
        machine.append()
    assert caught.value.errno == errno.ENOSPC
    machine.disk.clear()
    machine.append()
    assert machine.log.log_end_offset == 2


def test_a_disk_has_a_capacity() -> None:
    machine = Machine(capacity_bytes=100_000)
    for _ in range(10):
        machine.append(b"x" * 5000)
    with pytest.raises(OSError, match="No space left"):
        machine.append(b"x" * 50_000)
    assert 0 < machine.disk.used_bytes <= 100_000


def test_a_lost_disk_is_empty() -> None:
    machine = Machine()
    machine.append()
    machine.sync()
    machine.run()
    boot = machine.disk.files.boot_id()
    machine.disk.lose()
    assert machine.disk.used_bytes == 0
    assert machine.disk.files.boot_id() != boot
    assert machine.open().log_end_offset == 0


def test_bit_rot_is_found_by_the_checksum() -> None:
    machine = Machine()
    machine.append(b"one")
    machine.append(b"two")
    machine.sync()
    machine.run()
    position = machine.disk.files.size(SEGMENT) - 3
    machine.disk.rot(SEGMENT, position)
    with pytest.raises(ChecksumError):
        list(machine.log.read(0).records())
    file = machine.disk.files.open(SEGMENT)
    rotten = file.read_at(1, position)
    machine.disk.crash(CrashMode.LOSE)  # it is on the disk as well
    assert machine.disk.files.open(SEGMENT).read_at(1, position) == rotten


def test_rot_needs_a_byte() -> None:
    machine = Machine()
    with pytest.raises(InvalidInputError, match="has 0 bytes, none at 7"):
        machine.disk.rot(SEGMENT, 7)


def test_the_files_can_be_written_out_and_opened(tmp_path: Path) -> None:
    machine = Machine()
    machine.append(b"kept")
    machine.disk.write_out(str(tmp_path))
    directory = tmp_path / "broker-0" / "orders-0"
    assert not (directory / "state").exists()
    with PartitionLog(str(directory), read_only=True) as log:
        values = [record.value for record in log.read(0).records()]
    assert values == [b"kept"]
