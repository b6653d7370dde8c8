"""Directories of a Kafka broker are looked into, and nothing in them is touched."""

from __future__ import annotations

import fcntl
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from logstore.segments.broker_lock import running_broker
from tests.cli.program import GOLDEN, json_lines, run
from tests.segments.partitions import FIRST_LOG, on_disk, two_segments

LOOKING = (
    "dump --records",
    "dump --json --hex",
    "check",
    "check --json",
    "repair --dry-run",
    "repair --dry-run --drop-damaged",
    "replay",
    "replay --json",
    "find .",
    "stats",
    "stats --quick --json",
    "index",
    "hexdump --offset 50 --records",
)
"""The commands that look into a partition's directory."""


def listing(directory: Path) -> dict[str, tuple[int, ...]]:
    """Everything below a directory, with what changes when it is written to."""
    found: dict[str, tuple[int, ...]] = {}
    for path in (directory, *sorted(directory.rglob("*"))):
        status = path.lstat()
        times = (status.st_mtime_ns, status.st_ctime_ns)
        found[str(path)] = (status.st_ino, status.st_mode, status.st_size, *times)
    return found


def read_only(directory: Path) -> None:
    for path in (*directory.rglob("*"), directory):
        path.chmod(0o555 if path.is_dir() else 0o444)


@pytest.fixture
def partition(tmp_path: Path) -> Path:
    copy = tmp_path / "logs" / "orders-0"
    copy.parent.mkdir()
    shutil.copytree(GOLDEN / "partition-0", copy)
    (copy / "00000000000000000050.json").unlink()
    return copy


@pytest.mark.parametrize("command", LOOKING)
def test_looking_into_a_brokers_partition_changes_nothing(partition: Path, command: str) -> None:
    read_only(partition)
    before = listing(partition.parent)
    result = run(command, partition)
    assert result.stdout or command == "check --json"
    assert listing(partition.parent) == before


@pytest.mark.parametrize("command", ["dump", "check", "repair --dry-run", "find .", "stats"])
def test_looking_into_a_directory_of_partitions_changes_nothing(
    partition: Path, command: str
) -> None:
    read_only(partition)
    before = listing(partition.parent)
    run(command, partition.parent)
    assert listing(partition.parent) == before


@pytest.mark.parametrize("command", LOOKING)
def test_looking_into_a_damaged_partition_changes_nothing(tmp_path: Path, command: str) -> None:
    partition = on_disk(two_segments(), tmp_path / "orders-0")
    data = bytearray((partition / FIRST_LOG).read_bytes())
    data[100] ^= 1
    (partition / FIRST_LOG).write_bytes(data[:-5])
    before = listing(tmp_path)
    run(command.replace("--offset 50", "--offset 100"), partition, code=None)
    assert listing(tmp_path) == before


# A broker at work -----------------------------------------------------------------------------

_HOLD = """
import fcntl, os, sys
lock = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
fcntl.lockf(lock, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def broker_on(directory: Path) -> Iterator[int]:
    """A process that holds the lock of a broker; gives its number."""
    command = [sys.executable, "-c", _HOLD, str(directory / ".lock")]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        try:
            yield process.pid
        finally:
            process.communicate()


needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="record locks are asked on Linux")


@needs_linux
def test_repair_refuses_a_directory_on_which_a_broker_runs(partition: Path) -> None:
    (partition / "00000000000000000050.index").unlink()
    with broker_on(partition.parent) as process:
        before = listing(partition.parent)
        for path in (partition, partition.parent):
            result = run("repair", path, code=1)
            assert f"a Kafka broker (process {process}) runs on it" in result.stderr
            assert len(result.stderr.splitlines()) == 1
            assert "would build anew" in run("repair --dry-run", path).stdout
        assert listing(partition.parent) == before
    assert "built anew" in run("repair", partition).stdout


@needs_linux
def test_a_lock_that_nobody_holds_is_no_broker(partition: Path) -> None:
    assert running_broker(str(partition)) is None
    (partition.parent / ".lock").write_bytes(b"")
    assert running_broker(str(partition)) is None
    assert struct.calcsize("hhqqi") == 28
    descriptor = os.open(partition.parent / ".lock", os.O_RDWR)
    fcntl.lockf(descriptor, fcntl.LOCK_EX)  # a process is in nobody's way but others'
    assert running_broker(str(partition)) is None
    os.close(descriptor)


def test_a_snapshot_that_was_only_begun_is_a_note(partition: Path) -> None:
    (partition / "00000000000000000066.snapshot").write_bytes(b"")
    (finding,) = json_lines(run("check --json", partition))
    assert finding["type"] == "note"
    assert "begun" in finding["reason"]
    (partition / "00000000000000000066.snapshot").write_bytes(b"\\0\\1")
    (finding,) = json_lines(run("check --json", partition, code=1))
    assert finding["type"] == "damage"
