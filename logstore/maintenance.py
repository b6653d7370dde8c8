"""Maintenance of a store: retention and compaction of every partition, in the background.

Each open store has a thread for it, but only one process at a time does the work: whoever holds the
lock ``maintenance`` in the store's directory. A partition that nobody in this process uses is
opened for the moment and let go again.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from logstore.compaction import CompactionResult
from logstore.errors import InvalidInputError, LockTimeoutError, LogstoreError
from logstore.log import PartitionLog
from logstore.retention import Decision
from logstore.segments.files import Files

__all__ = ["Maintenance", "PartitionReport", "check_interval", "maintain_partition"]

_log = logging.getLogger("logstore")

MAINTENANCE_LOCK = "maintenance"


class PartitionReport(NamedTuple):
    """What maintenance did to a partition."""

    directory: str
    decisions: list[Decision]
    """Retention's decision on every segment."""
    compaction: CompactionResult | None
    """None where the topic is not compacted, or somebody else is compacting it."""


def check_interval(seconds: float | None) -> None:
    """Raise InvalidInputError unless ``seconds`` is a pause between rounds, or None for none."""
    if seconds is None or (type(seconds) in (int, float) and 0 < seconds <= threading.TIMEOUT_MAX):
        return
    raise InvalidInputError(
        f"maintenance_interval={seconds!r} is no number of seconds above 0, nor None for none"
    )


def maintain_partition(log: PartitionLog) -> PartitionReport:
    """Compact the log if it is due, delete what retention no longer keeps, and remove the files
    that were deleted long enough ago."""
    compaction = None
    if log.config.compacts:
        with contextlib.suppress(LockTimeoutError):
            compaction = log.compact()
    decisions = log.retain()
    log.purge_deleted()
    return PartitionReport(log.directory, decisions, compaction)


class Maintenance:
    """The background thread of one open store."""

    def __init__(
        self,
        files: Files,
        directory: str,
        partitions: Callable[[], Iterator[contextlib.AbstractContextManager[PartitionLog]]],
        *,
        chores: Sequence[Callable[[], None]] = (),
        interval: float,
        prepare: Callable[[], object] = lambda: None,
    ) -> None:
        """``prepare`` is called before each round, also where another process does the round.
        ``partitions`` yields every partition that has files, each as a context manager;
        ``chores`` are other things to be done in a round; ``interval`` is the pause between two
        rounds in seconds."""
        self._files = files
        self._lock_path = os.path.join(directory, MAINTENANCE_LOCK)
        self._partitions = partitions
        self._chores = chores
        self._interval = interval
        self._prepare = prepare
        self._stop = threading.Event()
        self._thread = threading.Thread(
            target=self._run, name=f"logstore maintenance of {directory}", daemon=True
        )

    def start(self) -> None:
        """Begin with the first pause: a process that lives shorter does no maintenance."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread, after the partition that it is at."""
        self._stop.set()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self._interval):
            try:
                self.run()
            except (LogstoreError, OSError):
                # The next round tries again; a partition's own trouble is told where it arises.
                if not self._stop.is_set():
                    _log.exception("maintenance of %s failed", self._lock_path)

    def run(self) -> list[PartitionReport] | None:
        """One round, now. None when another process is at it."""
        self._prepare()
        lock = self._files.lock(self._lock_path)
        try:
            try:
                lock.acquire()
            except BlockingIOError:
                return None
            return list(self._round())
        finally:
            lock.close()

    def _round(self) -> Iterator[PartitionReport]:
        for chore in self._chores:
            try:
                chore()
            except (LogstoreError, OSError) as error:
                _log.warning("maintenance: %s", error)
        for partition in self._partitions():
            if self._stop.is_set():
                return
            try:
                with partition as log:
                    yield maintain_partition(log)
            except (LogstoreError, OSError) as error:
                # One damaged partition must not keep the others from being looked after.
                _log.warning("maintenance: %s", error)
