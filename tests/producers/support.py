"""What the tests of producers share: a store behind a spy, and what is in it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import logstore
from logstore import PartitionLog, Store
from logstore.clock import Clock
from logstore.segments.batch import Batch
from logstore.segments.files import DiskFiles, Files

HOUR_MS = 3_600_000


def open_store(path: Path, files: Files | None = None, clock: Clock | None = None) -> Store:
    """A store without maintenance in the background."""
    return logstore.open(path, files=files, clock=clock, maintenance_interval=None)


def batches(log: PartitionLog) -> Iterator[Batch]:
    """All batches of a log."""
    offset = log.log_start_offset
    while offset < log.log_end_offset:
        fetch = log.read(offset)
        yield from fetch.batches()
        offset = fetch.next_offset


def values(store: Store, topic: str = "events", partition: int = 0) -> list[str]:
    """The values of all records of a partition."""
    log = store.topic(topic).partition(partition)
    return [(r.value or b"").decode() for batch in batches(log) for r in batch.records()]


@contextlib.contextmanager
def stuck(store: Store, topic: str = "events", partition: int = 0) -> Iterator[None]:
    """Somebody else holds the lock of a partition for the block."""
    lock = DiskFiles().lock(store.topic(topic).partition(partition).directory + "/lock")
    lock.acquire()
    try:
        yield
    finally:
        lock.close()
