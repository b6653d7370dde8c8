"""Reaching stable storage, and what a failed sync leaves."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from logstore import LogConfig, PartitionLog, PoisonedError, Record

from .support import SpyFiles, kill


def test_a_failed_sync_poisons_the_log_even_if_its_tail_cannot_be_settled(tmp_path: Path) -> None:
    files = SpyFiles()
    directory = tmp_path / "orders-0"
    log = PartitionLog(directory, files=files)
    log.append([Record(value=b"kept")], acks="all")
    log.append([Record(value=b"at risk")], acks=1)

    def fail(operation: str, path: str) -> None:
        if operation == "sync" and path.endswith(".log"):
            # What takes the lock next finds a tail that it can neither keep nor cut.
            files.before = refuse
            with Path(path).open("ab") as file:
                file.write(b"torn")
            raise OSError(errno.EIO, os.strerror(errno.EIO), path)

    def refuse(operation: str, path: str) -> None:
        if operation == "truncate":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)

    files.before = fail
    with pytest.raises(OSError, match="log") as caught:
        log.flush()
    assert caught.value.errno == errno.EIO
    files.before = lambda operation, path: None
    with pytest.raises(PoisonedError):
        log.append([Record(value=b"more")], acks=1)
    with pytest.raises(PoisonedError):
        log.close()
    with PartitionLog(directory) as again:
        assert [record.value for record in again.read(0).records()] == [b"kept", b"at risk"]


@pytest.mark.parametrize("deleted", [True, False])
def test_a_segment_that_another_process_rolls_before_it_is_synced_is_no_error(
    tmp_path: Path, deleted: bool
) -> None:
    files = SpyFiles()
    directory = tmp_path / "orders-0"
    log = PartitionLog(directory, files=files)
    other = PartitionLog(directory, files=SpyFiles(), config=LogConfig(segment_ms=1))
    log.append([Record(timestamp=1000, value=b"first")], acks=1)

    def roll(operation: str, path: str) -> None:
        if operation == "open" and path.endswith(f"{0:020d}.log"):
            files.before = lambda operation, path: None
            other.append([Record(timestamp=9000, value=b"second")], acks=1)
            if deleted:
                other.delete_records(1)

    files.before = roll
    log.flush()
    assert log.segments == ((1,) if deleted else (0, 1))
    assert log.synced_offset >= 1
    log.close()
    other.close()


def test_an_active_segment_that_is_gone_is_told(tmp_path: Path) -> None:
    directory = tmp_path / "orders-0"
    log = PartitionLog(directory, files=SpyFiles())
    log.append([Record(value=b"lost")], acks=1)
    (directory / f"{0:020d}.log").unlink()
    with pytest.raises(FileNotFoundError):
        log.flush()
    kill(log)
