"""One log, several real processes: all of them may write, and any of them may be killed."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from logstore import LockTimeoutError, PartitionLog

from .support import (
    ACCESS_LOG,
    content,
    damage,
    gapless,
    opened,
    records,
    run_script,
    start,
    values,
)

RECORDS = int(os.environ.get("LOGSTORE_PROCESS_RECORDS", "5000"))
"""What each of four writers appends."""
KILLS = int(os.environ.get("LOGSTORE_KILLS", "20"))
ROUND_KILLS = 25


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "orders-0"


class Child:
    """A child process, and the lines that it has said so far."""

    def __init__(self, *arguments: object) -> None:
        self.process = start(*arguments, stdin=subprocess.PIPE)
        self.lines: list[str] = []
        self.said = threading.Event()
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.endswith(b"\n"):
                self.lines.append(line.decode().rstrip("\n"))
            self.said.set()
        self.said.set()

    def wait_for_lines(self, count: int) -> None:
        """Wait until so many lines have been said."""
        deadline = time.monotonic() + 60
        while len(self.lines) < count:
            assert self.process.poll() is None, "the child has ended"
            assert time.monotonic() < deadline, "the child says nothing"
            self.said.wait(0.01)
            self.said.clear()

    def go(self) -> None:
        """Tell a child that waits for it to begin."""
        assert self.process.stdin is not None
        self.process.stdin.close()

    def kill(self) -> list[str]:
        """Kill the process, and return all that it has said."""
        self.process.kill()
        return self.end(-9)

    def end(self, code: int = 0) -> list[str]:
        """Wait for the process to end, and return all that it has said."""
        assert self.process.stdout is not None
        self.go()
        assert self.process.wait(120) == code
        self._thread.join()
        self.process.stdout.close()
        return self.lines


def append_from_four(directory: Path, count: int, segment_bytes: int) -> None:
    children = [Child("append", directory, name, count, segment_bytes) for name in "ABCD"]
    for child in children:
        child.wait_for_lines(1)
    for child in children:
        child.go()
    ranges = [list(map(int, child.end()[1].split())) for child in children]
    # They have run at the same time.
    assert max(first for first, _ in ranges) < min(last for _, last in ranges)
    with PartitionLog(directory, read_only=True) as log:
        found = content(log)
        assert log.log_end_offset == 4 * count
    assert gapless([offset for offset, _ in found])
    for name in "ABCD":
        own = [value for _, value in found if value.startswith(name.encode())]
        assert own == [f"{name} {number}".encode() for number in range(count)]
    assert damage(directory) == []


def test_four_processes_append_at_once_gaplessly_each_in_its_own_order(directory: Path) -> None:
    append_from_four(directory, RECORDS, 1 << 30)


def test_four_processes_that_roll_all_the_time_lose_nothing(directory: Path) -> None:
    append_from_four(directory, min(RECORDS, 1500), 10_000)
    assert len(list(directory.glob("*.log"))) > 30


def test_four_processes_append_fifty_thousand_records_each(directory: Path) -> None:
    append_from_four(directory, 50_000, 1 << 20)


@pytest.mark.parametrize("segment_bytes", [1 << 30, 300_000], ids=["one segment", "many segments"])
def test_what_killed_writers_were_told_is_there_exactly_once(
    tmp_path: Path, segment_bytes: int
) -> None:
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    # Each round has a log of its own, so that a long run needs no more room than a short one.
    for done in range(0, KILLS // 2, ROUND_KILLS):
        directory = tmp_path / f"orders-{done}"
        kill_writers(directory, segment_bytes, min(ROUND_KILLS, KILLS // 2 - done), seed + done)
        shutil.rmtree(directory)


def kill_writers(directory: Path, segment_bytes: int, kills: int, seed: int) -> None:
    rng = random.Random(seed)
    said: dict[str, list[str]] = {}
    names = 0

    def writer() -> tuple[str, Child]:
        nonlocal names
        names += 1
        return f"w{names}", Child(
            "append_varied", directory, f"w{names}", seed + names, segment_bytes
        )

    alive = [writer() for _ in range(3)]
    for _, child in alive:
        child.wait_for_lines(1)
    for _ in range(kills):
        name, child = alive.pop(rng.randrange(len(alive)))
        child.wait_for_lines(1)
        time.sleep(rng.random() * 0.05)
        said[name] = child.kill()
        # The survivors go on, without anybody's help.
        for _, survivor in alive:
            survivor.wait_for_lines(len(survivor.lines) + 2)
        alive.append(writer())
    for name, child in alive:
        said[name] = child.kill()

    with opened(directory, segment_bytes=segment_bytes) as log:
        appended = log.append(records("after all of that"))
        found = content(log)
    assert appended.base_offset == found[-1][0]
    assert gapless([offset for offset, _ in found])
    of_batch: dict[tuple[str, int], list[int]] = {}
    order: dict[str, list[int]] = {}
    for offset, value in found[:-1]:
        name, number, index = value.decode().split(" ")[:3]
        offsets = of_batch.setdefault((name, int(number)), [])
        assert int(index) == len(offsets), "whole batches, once"
        offsets.append(offset)
        order.setdefault(name, []).append(int(number))
    acknowledged = Counter[str]()
    for name, lines in said.items():
        for line in lines:
            of, base, last = map(int, line.split())
            assert of_batch[name, of] == list(range(base, last + 1))
            acknowledged[name] += 1
        assert order.get(name, []) == sorted(order.get(name, []))
        # At most the one batch that it was killed over is there without having been told.
        assert sum(key[0] == name for key in of_batch) - acknowledged[name] in (0, 1)
    assert acknowledged.total() > 3 * kills
    assert damage(directory) == []


def test_a_real_log_survives_the_kill_of_its_writer_to_the_byte(directory: Path) -> None:
    lines = ACCESS_LOG.read_bytes().splitlines(keepends=True)
    child = Child("append_lines", directory, ACCESS_LOG)
    child.wait_for_lines(random.randrange(500, 2500))
    acknowledged = int(child.kill()[-1])
    assert acknowledged < len(lines)
    with opened(directory) as log:
        found = values(log)
        assert acknowledged <= len(found) <= acknowledged + 1
        assert b"".join(found) == b"".join(lines[: len(found)])
        for line in lines[len(found) :]:
            log.append(records(line), acks=1)
        assert b"".join(values(log)) == ACCESS_LOG.read_bytes()
    assert damage(directory) == []


@pytest.mark.parametrize("read_only", [False, True])
def test_a_reader_follows_a_writer_of_another_process_over_its_rolls(
    directory: Path, read_only: bool
) -> None:
    opened(directory).close()
    reader = Child("follow", directory, "the end", read_only)
    reader.wait_for_lines(1)
    with opened(directory, segment_bytes=2000) as log:
        expected = ["ready"]
        for number in range(300):
            appended = log.append(records(f"{number}", f"{number}!"), acks=1)
            expected += [f"{appended.base_offset} {number}", f"{appended.last_offset} {number}!"]
            if number % 50 == 0:
                time.sleep(0.02)
        appended = log.append(records("the end"))
        expected.append(f"{appended.base_offset} the end")
        assert len(log.segments) > 10
        assert reader.end() == expected


def test_a_wait_is_woken_by_another_process(directory: Path) -> None:
    opened(directory).close()
    reader = Child("follow", directory, "the end", "False")
    reader.wait_for_lines(1)
    time.sleep(0.1)
    with opened(directory) as log:
        begun = time.monotonic()
        log.append(records("first"))
        reader.wait_for_lines(2)
        assert time.monotonic() - begun < 1
        log.append(records("the end"))
    assert reader.end() == ["ready", "0 first", "1 the end"]


DIES_IN_A_ROLL = """
import os, sys
from logstore import LogConfig, PartitionLog, Record
from logstore.segments.files import DiskFiles

class Deadly(DiskFiles):
    left = int(sys.argv[2])
    armed = False
    def count(self):
        if self.armed:
            Deadly.left -= 1
            if Deadly.left == 0:
                os._exit(9)
    def open(self, *arguments, **options):
        self.count()
        return super().open(*arguments, **options)
    def sync_directory(self, path):
        self.count()
        super().sync_directory(path)
        self.count()

files = Deadly()
log = PartitionLog(sys.argv[1], files=files, config=LogConfig(segment_bytes=100))
log.append([Record(value=b"a" * 60)])
files.armed = True
log.append([Record(value=b"b" * 60)])
"""


@pytest.mark.parametrize("operation", range(1, 6))
def test_a_process_that_dies_in_a_roll_leaves_a_log_for_the_others(
    directory: Path, operation: int
) -> None:
    survivor = opened(directory, segment_bytes=100)
    with pytest.raises(AssertionError):
        run_script(DIES_IN_A_ROLL, directory, operation)
    assert values(survivor) == [b"a" * 60]
    survivor.append(records(b"c" * 60))
    assert content(survivor) == [(0, b"a" * 60), (1, b"c" * 60)]
    survivor.close()
    with opened(directory) as log:
        assert content(log) == [(0, b"a" * 60), (1, b"c" * 60)]
    assert damage(directory) == []


def test_a_reader_without_rights_is_told_of_a_writer_that_died_in_a_roll(directory: Path) -> None:
    with pytest.raises(AssertionError):
        run_script(DIES_IN_A_ROLL, directory, 2)
    with (
        PartitionLog(directory, read_only=True, lock_timeout=0.05) as log,
        pytest.raises(LockTimeoutError, match="was a writer killed"),
    ):
        log.read(0)
    opened(directory).close()
    with PartitionLog(directory, read_only=True) as log:
        assert values(log) == [b"a" * 60]


def test_processes_that_open_a_log_at_once_find_one_log(directory: Path) -> None:
    children = [Child("append", directory, name, 50, 1000) for name in "ABCDEF"]
    for child in children:
        child.go()
    for child in children:
        child.end()
    with opened(directory) as log:
        assert gapless([offset for offset, _ in content(log)])
        assert log.log_end_offset == 300
