"""The disk of a simulated broker: files in memory, and what they cost in virtual time.

The files are the seam's own (``MemoryFiles``), so the log that writes to them is the real one, and
what a crash leaves follows the assumptions of ``docs/crash-safety.md``. Writing costs nothing until
it is synced: it goes to the page cache. A disk syncs one log after the other; who asks while a sync
of the same log is under way waits for the next one, which then serves all who have asked.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable
from typing import Any, Protocol

from logstore.replication.kernel import SimulatedClock, Simulation
from logstore.replication.settings import DiskSettings
from logstore.segments.files import DiskFiles, Files, write_fully
from logstore.segments.memory_files import CrashMode, MemoryFiles

__all__ = ["Disk", "Syncable"]

_POWER_CUTS = (CrashMode.LOSE, CrashMode.TEAR, CrashMode.REORDER)


class Syncable(Protocol):
    """A log, as far as a disk is concerned."""

    def flush(self) -> None:
        """Sync it."""
        ...


class Disk:
    """What a broker keeps its logs on; a crash leaves other ``files`` in place of the old ones."""

    def __init__(self, simulation: Simulation, settings: DiskSettings, broker: int) -> None:
        self.settings = settings
        self.broker = broker
        self.syncs = 0
        """How many were completed."""
        self._simulation = simulation
        self._rng = simulation.rng(f"disk/{broker}")
        self._clock = SimulatedClock(simulation)
        self.files = self._empty()
        self._written_before = 0
        """Bytes written to earlier ``files``."""
        self._paid = 0
        """Of ``written_bytes``, what syncs have taken their time for."""
        self._factor = 1
        """How much slower than usual it is."""
        self._incarnation = 0
        """Counts crashes: what was under way then is not completed."""
        self._waiting: dict[Syncable, list[tuple[Callable[..., object], tuple[Any, ...]]]] = {}
        """Who waits for a sync of which log, in the order of their coming; not those for whom it
        is under way."""
        self._busy = False
        self._under_way: Syncable | None = None

    def _empty(self, boot: int = 1) -> MemoryFiles:
        capacity = self.settings.capacity_bytes or None
        return MemoryFiles(capacity=capacity, boot=boot, now_ms=self._clock.now_ms)

    @property
    def used_bytes(self) -> int:
        """Bytes of all files together."""
        return self.files.used

    @property
    def written_bytes(self) -> int:
        """Bytes written so far, overwritten and removed ones included."""
        return self._written_before + self.files.written

    # Syncing ----------------------------------------------------------------------------------

    def sync(self, log: Syncable, done: Callable[..., object], *args: Any) -> None:
        """Call ``done(*args)`` when all that the log holds now is on stable storage.

        Not at all after a crash. What the log raises goes to whoever runs the simulation's step: in
        memory a sync does not fail.
        """
        self._waiting.setdefault(log, []).append((done, args))
        if not self._busy:
            self._begin()

    def forget(self, log: Syncable) -> None:
        """Sync a log no more, since it is closed: nobody who waits for it is called."""
        self._waiting.pop(log, None)
        if self._under_way is log:
            self._under_way = None

    def _begin(self) -> None:
        log = next(iter(self._waiting))
        served = self._waiting.pop(log)
        self._busy, self._under_way = True, log
        self._simulation.after(self._cost_us(), self._end, self._incarnation, log, served)

    def _cost_us(self) -> int:
        settings = self.settings
        cost_us = settings.sync_us
        if settings.jitter_percent:
            cost_us += int(self._rng.random() * (cost_us * settings.jitter_percent // 100 + 1))
        if settings.write_bytes_per_s:
            unpaid, self._paid = self.written_bytes - self._paid, self.written_bytes
            cost_us += unpaid * 1_000_000 // settings.write_bytes_per_s
        return cost_us * self._factor

    def _end(
        self,
        incarnation: int,
        log: Syncable,
        served: list[tuple[Callable[..., object], tuple[Any, ...]]],
    ) -> None:
        if incarnation != self._incarnation:
            return
        wanted = self._under_way is log
        self._busy, self._under_way = False, None
        if wanted:
            # As late as it can be: who crashes before it has lost everything.
            log.flush()
            self.syncs += 1
        if self._waiting:
            self._begin()
        if not wanted:
            return
        for done, args in served:
            done(*args)

    # Faults -----------------------------------------------------------------------------------

    def crash(self, mode: CrashMode | None = None) -> CrashMode:
        """The broker dies; ``files`` is then what it finds when it starts again.

        Without a mode it is a power cut, and the seed decides what it does to what was not synced.
        Returns the mode.
        """
        mode = mode or self._rng.choice(_POWER_CUTS)
        self._replace(self.files.crash(mode, self._rng))
        return mode

    def lose(self) -> None:
        """All files are gone."""
        self._replace(self._empty(self.files.boot + 1))

    def _replace(self, files: MemoryFiles) -> None:
        self._written_before += self.files.written
        self._paid = self._written_before
        self.files = files
        self._incarnation += 1
        self._waiting.clear()
        self._busy, self._under_way = False, None

    def slow(self, factor: int) -> None:
        """Let syncs that begin from now on take so many times longer; 1 ends it."""
        self._factor = factor

    def fill(self) -> None:
        """Let something else fill the disk: no file can grow."""
        self.files.capacity = self.files.used

    def clear(self) -> None:
        """Let that go again."""
        self.files.capacity = self.settings.capacity_bytes or None

    def rot(self, path: str, position: int) -> None:
        """Change a bit of a file, in the page cache and on the disk."""
        self.files.flip(path, position)

    # Looking ----------------------------------------------------------------------------------

    def write_out(self, directory: str, target: Files | None = None) -> None:
        """Copy all files below a directory of the real file system (or of ``target``).

        What only this run of the machine needs stays behind: locks, and the states of logs.
        """
        target = target or DiskFiles()
        for path in self.files.paths():
            name = posixpath.basename(path)
            if name in _RUNTIME:
                continue
            place = posixpath.join(directory, path.lstrip("/"))
            target.make_directory(posixpath.dirname(place))
            data = self.files.open(path).read_at(self.files.size(path), 0)
            file = target.open(place, write=True, create=True)
            try:
                file.truncate(0)
                write_fully(file, data, 0)
            finally:
                file.close()


_RUNTIME = ("lock", "cleaner", "state")
