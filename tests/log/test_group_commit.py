"""Reaching stable storage, and what a failed sync leaves."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from logstore import PartitionLog, PoisonedError, Record

from .support import SpyFiles


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
