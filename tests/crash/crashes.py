"""What the crash tests share: a workload, photographed wherever it may be cut off.

:class:`CrashFiles` keeps files in memory and, ahead of every sync, rename, remove, create, write
and publication, asks :class:`World` for pictures: the file system as each kind of crash would leave
it at this moment, together with what the program had been promised by then (:class:`Promises`).
The workload runs once and is never disturbed; every picture is opened and examined afterwards
(:func:`examine`). Two pictures that are equal to the byte are examined once.

Everything random comes from seeds, and a failure names its picture: kind of crash, seed, number and
kind of the operation. ``LOGSTORE_SOAK=N`` multiplies the seeds.
"""

from __future__ import annotations

import copy
import hashlib
import os
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from logstore import LogConfig, PartitionLog, Record
from logstore.log import Acks
from logstore.segments.check import check
from logstore.segments.files import File, SharedBytes
from logstore.segments.memory_files import CrashMode, MemoryFiles

__all__ = [
    "DIRECTORY",
    "SEEDS",
    "SOAK",
    "Clock",
    "CrashFiles",
    "Picture",
    "Promises",
    "World",
    "content",
    "damage",
    "examine",
    "examine_all",
]

SOAK = int(os.environ.get("LOGSTORE_SOAK", "1"))
"""How many times as many seeds as usual."""

SEEDS = range(2 * SOAK)
"""Seeds of the crashes that leave something to chance."""

DIRECTORY = "/orders-0"

CRASHES: list[tuple[CrashMode, int]] = [
    (CrashMode.KILL, 0),
    (CrashMode.LOSE, 0),
    *((CrashMode.TEAR, seed) for seed in SEEDS[::2]),
    *((CrashMode.REORDER, seed) for seed in SEEDS),
]

Content = tuple[bytes | None, bytes | None]
"""Key and value of a record."""


class Clock:
    """A clock that moves when it is told to, or when somebody sleeps."""

    def __init__(self, ms: int = 1_000_000) -> None:
        self.ms = ms

    def now_ms(self) -> int:
        return self.ms

    def monotonic(self) -> float:
        return self.ms / 1000

    def boottime_ms(self) -> int:
        return self.ms

    def sleep(self, seconds: float) -> None:
        self.ms += max(1, int(seconds * 1000))


# Files ----------------------------------------------------------------------------------------


class CrashFiles(MemoryFiles):
    """Files in memory that say ahead of each operation that it is about to happen."""

    def __init__(self, *, capacity: int | None = None, boot: int = 1) -> None:
        super().__init__(capacity=capacity, boot=boot)
        self.telling = False
        """Whether anybody wants to be told."""
        self.before: Callable[[str, str], None] = lambda what, path: None
        """Called ahead of each operation with its name and path."""
        self.torn: Callable[[CrashFiles], None] = lambda files: None
        """Called with the files as they are in the middle of a write."""

    @classmethod
    def of(cls, files: MemoryFiles) -> CrashFiles:
        """The same files, behind a seam that tells."""
        result = cls(capacity=files.capacity)
        result.__dict__.update(files.__dict__)
        result.telling = False
        return result

    def after(self, mode: CrashMode, seed: object) -> CrashFiles:
        """What a crash now leaves."""
        return CrashFiles.of(self.crash(mode, random.Random(repr(seed))))

    def happens(self, what: str, path: str) -> None:
        if self.telling:
            self.before(what, path)

    def open(self, path: str, *, write: bool = False, create: bool = False) -> File:
        return _TellingFile(self, super().open(path, write=write, create=create))

    def share(self, path: str, size: int, *, write: bool = True) -> SharedBytes:
        shared = super().share(path, size, write=write)
        return _TellingSharedBytes(self, path, shared)

    def fingerprint(self) -> bytes:
        """Two file systems with equal ones are equal, as far as any reader can see."""
        digest = hashlib.blake2b()
        for path, inode in sorted(self._names.items()):
            digest.update(repr((path, None if inode is None else bytes(inode.data))).encode())
        return digest.digest()


class _TellingFile:
    def __init__(self, files: CrashFiles, file: File) -> None:
        self._files = files
        self._file = file
        self.path = file.path
        self.read_at = file.read_at
        self.size = file.size
        self.sync = file.sync
        self.close = file.close

    def write_at(self, data: bytes, position: int) -> int:
        if self._files.telling:
            self._files.before("write", self.path)
            # Assumption 7: of a write whose process is killed a beginning is in the file.
            half = CrashFiles.of(self._files.crash(CrashMode.KILL))
            half.open(self.path, write=True).write_at(data[: len(data) * 2 // 3], position)
            self._files.torn(half)
        return self._file.write_at(data, position)

    def truncate(self, size: int) -> None:
        self._files.happens("truncate", self.path)
        self._file.truncate(size)


class _TellingSharedBytes:
    def __init__(self, files: CrashFiles, path: str, shared: SharedBytes) -> None:
        self._shared = shared
        self.identity = shared.identity
        self.buffer: Any = _TellingBuffer(files, path, shared)
        self.sync = shared.sync
        self.close = shared.close


class _TellingBuffer:
    """Mapped memory; a store into it may be seen half done (assumption 8)."""

    def __init__(self, files: CrashFiles, path: str, shared: SharedBytes) -> None:
        self._files = files
        self._path = path
        self._shared = shared

    def __getitem__(self, index: slice) -> bytes:
        return bytes(self._shared.buffer[index])

    def __setitem__(self, index: slice, data: bytes) -> None:
        buffer = self._shared.buffer
        if self._files.telling:
            self._files.before("publish", self._path)
            whole = bytes(buffer[index])
            buffer[index] = data[:16] + whole[16:]
            self._files.torn(CrashFiles.of(self._files.crash(CrashMode.KILL)))
        buffer[index] = data


# Promises -------------------------------------------------------------------------------------


@dataclass
class Promises:
    """What a program that appends, deletes, cuts and compacts has been told so far."""

    written: dict[int, Content] = field(default_factory=dict)
    """Every record that may be in the log, that of an append under way included."""
    end: int = 0
    """The log end offset that a reader of this process sees; it survives a kill."""
    synced: int = 0
    """What is below it survives everything."""
    highest_end: int = 0
    """Where the log ends if the append under way has come through."""
    start: int = 0
    """The log start offset that a deletion returned for."""
    highest_start: int = 0
    """The one that a deletion under way moves it to."""
    cut: int | None = None
    """Where a truncation under way cuts."""
    compacting: bool = False
    """Whether a compaction has begun, some time."""
    expired_tombstones: bool = False
    """Whether tombstones may be gone."""
    compacted: tuple[int, frozenset[int]] = (0, frozenset())
    """Below this offset, exactly these are there (unless another compaction has begun since)."""

    def superseded(self, offset: int, end: int) -> bool:
        """Whether compaction may have taken a record, in a log that ends at ``end``."""
        key, value = self.written[offset]
        later = [o for o, (k, _) in self.written.items() if k == key and offset < o < end]
        return bool(later) or (value is None and self.expired_tombstones)


def faults(promises: Promises, mode: CrashMode, log: PartitionLog) -> Iterator[str]:
    """Which promises a reopened log breaks."""
    start, end = log.log_start_offset, log.log_end_offset
    found = content(log)
    offsets = [offset for offset, _ in found]
    present = dict(found)
    if offsets != sorted(set(offsets)):
        yield f"the offsets do not ascend: {offsets}"
    if not promises.start <= start <= promises.highest_start:
        yield f"it starts at {start}, not at {promises.start} to {promises.highest_start}"
    if offsets and not (start <= offsets[0] and offsets[-1] < end):
        yield f"records at {offsets[0]} to {offsets[-1]}, outside of {start} to {end}"
    lowest = promises.end if mode is CrashMode.KILL else promises.synced
    if promises.cut is not None:
        lowest = min(lowest, promises.cut)
    if not lowest <= max(end, start) or end > max(promises.highest_end, start):
        yield f"it ends at {end}, not at {lowest} to {promises.highest_end}"
    for offset, got in present.items():
        if promises.written.get(offset) != got:
            yield f"offset {offset} holds {got}, not {promises.written.get(offset)}"
    upto, kept = promises.compacted
    for offset in promises.written:
        if not start <= offset < end or offset in present:
            continue
        gone = offset < upto and offset not in kept
        if not (gone or (promises.compacting and promises.superseded(offset, end))):
            yield f"offset {offset} is missing: {promises.written[offset]}"
    for offset in present:
        if offset < upto and offset not in kept:
            yield f"offset {offset} was compacted away, and is back"
    last: dict[bytes | None, int] = {}
    for offset, (key, _) in promises.written.items():
        if offset < end:
            last[key] = max(offset, last.get(key, 0))
    newest = {present[o][0]: o for o in offsets}
    if promises.compacting:
        for key, offset in newest.items():
            if last[key] != offset and promises.written[last[key]][1] is None:
                yield f"key {key!r} was deleted at {last[key]}, and is back from {offset}"


# Pictures -------------------------------------------------------------------------------------


@dataclass(slots=True)
class Picture:
    """What a crash left, and what had been promised by then."""

    name: str
    mode: CrashMode
    files: CrashFiles
    promises: Promises
    now_ms: int


class World:
    """A program with a log, and the pictures that were taken of it."""

    def __init__(
        self,
        config: LogConfig,
        *,
        files: CrashFiles | None = None,
        crashes: Sequence[tuple[CrashMode, int]] = tuple(CRASHES),
    ) -> None:
        self.config = config
        self.clock = Clock()
        self.files = files or CrashFiles()
        self.promises = Promises()
        self.pictures: list[Picture] = []
        self.points = 0
        """Operations ahead of which pictures were taken."""
        self.crashes = crashes
        self._known: set[bytes] = set()
        self._next = 0
        self.files.before = self._take
        self.files.torn = self._take_torn
        self.recording = True

    # taking pictures

    @property
    def recording(self) -> bool:
        """Whether pictures are taken."""
        return self.files.telling

    @recording.setter
    def recording(self, on: bool) -> None:
        self.files.telling = on

    def _take(self, what: str, path: str) -> None:
        self.points += 1
        for mode, seed in self.crashes:
            name = f"{mode.name} {seed} ahead of operation {self.points}: {what} {path}"
            self._keep(name, mode, self.files.after(mode, (seed, self.points)))

    def _take_torn(self, files: CrashFiles) -> None:
        if CrashMode.KILL in {mode for mode, _ in self.crashes}:
            self._keep(f"KILL in operation {self.points}", CrashMode.KILL, files)

    def _keep(self, name: str, mode: CrashMode, files: CrashFiles) -> None:
        kill = mode is CrashMode.KILL
        key = files.fingerprint() + repr((kill, self.promises)).encode()
        key = hashlib.blake2b(key).digest()
        if key not in self._known:
            self._known.add(key)
            promises = copy.deepcopy(self.promises)
            self.pictures.append(Picture(name, mode, files, promises, self.clock.ms))

    def returned(self) -> None:
        """Take pictures of what is there when an operation has just returned."""
        self.files.happens("return", "")

    # what the program does

    def open(self) -> PartitionLog:
        """A handle of the log."""
        log = PartitionLog(
            DIRECTORY, files=self.files, clock=self.clock, config=self.config, lock_timeout=1
        )
        self.log = log
        self.returned()
        return log

    def close(self) -> None:
        """Close the log cleanly: everything is synced then."""
        self.log.close()
        self.promises.synced = self.promises.end
        self.returned()

    def append(
        self,
        count: int = 1,
        *,
        acks: Acks = "all",
        size: int = 100,
        keys: Sequence[bytes | None] | None = None,
        deleted: bool = False,
        timestamp: int | None = None,
    ) -> None:
        """Append a batch of ``count`` records of about ``size`` bytes."""
        promises = self.promises
        timestamp = self.clock.ms if timestamp is None else timestamp
        batch = []
        for index in range(count):
            self._next += 1
            text = f"value {self._next} ".encode()
            value = None if deleted else (text * (size // len(text) + 1))[:size]
            key = None if keys is None else keys[index % len(keys)]
            batch.append(Record(timestamp=timestamp, key=key, value=value))
        self._expect(promises.end, batch)
        appended = self.log.append(batch, acks=acks)
        assert appended.base_offset == promises.end
        self._appended(acks)

    def append_raw(self, raw: bytes, records: dict[int, Content], *, acks: Acks = "all") -> None:
        """Append what a leader sent."""
        self.promises.written |= records
        self.promises.highest_end = max(records) + 1
        self.log.append_raw(raw, acks=acks, origin="replica")
        self._appended(acks)

    def _expect(self, base: int, batch: Sequence[Record]) -> None:
        self.promises.highest_end = base + len(batch)
        for offset, record in enumerate(batch, base):
            self.promises.written[offset] = (record.key, record.value)

    def _appended(self, acks: Acks) -> None:
        self.promises.end = self.promises.highest_end
        if acks == "all":
            self.promises.synced = self.promises.end
        self.returned()

    def flush(self) -> None:
        self.log.flush()
        self.promises.synced = self.promises.end
        self.returned()

    def roll(self) -> None:
        """Begin the next segment: what maintenance does when a segment is too old."""
        with self.log._locked() as writer:
            writer.roll(writer.enter())
        self.returned()

    def delete_records(self, before: int) -> None:
        promises = self.promises
        promises.highest_start = max(promises.highest_start, before)
        promises.start = self.log.delete_records(before)
        assert promises.start == promises.highest_start
        self.returned()

    def retain(self) -> int:
        """Retention; returns how many segments went."""
        decisions = self.log.retain(dry_run=True)
        doomed = [d.segment.next_offset for d in decisions if d.delete]
        if doomed:
            self.promises.highest_start = max(self.promises.highest_start, doomed[-1])
        self.log.retain()
        if doomed:
            self.promises.start = self.promises.highest_start
        self.returned()
        return len(doomed)

    def truncate(self, to: int) -> None:
        promises = self.promises
        promises.cut = to
        self.log.truncate(to)
        promises.cut = None
        promises.written = {o: content for o, content in promises.written.items() if o < to}
        promises.end = promises.highest_end = to
        promises.synced = to
        upto, kept = promises.compacted
        promises.compacted = (min(upto, to), kept)
        self.returned()

    def compact(self) -> None:
        promises = self.promises
        promises.compacting = True
        promises.expired_tombstones |= self.config.delete_retention_ms == 0
        result = self.log.compact(force=True)
        offsets = frozenset(offset for offset, _ in content(self.log))
        promises.compacted = (result.first_dirty_offset, offsets)
        self.returned()

    def purge(self) -> None:
        self.log.purge_deleted(at_once=True)
        self.returned()


# Examining ------------------------------------------------------------------------------------


def content(log: PartitionLog) -> list[tuple[int, Content]]:
    """Offset, key and value of every record."""
    found = []
    offset = log.log_start_offset
    while offset < log.log_end_offset:
        fetch = log.read(offset, max_bytes=700)
        found += [(r.offset, (r.key, r.value)) for r in fetch.records()]
        if fetch.next_offset == offset:
            break
        offset = fetch.next_offset
    return found


def damage(files: MemoryFiles, directory: str = DIRECTORY) -> list[str]:
    """What ``logstore check`` calls damage."""
    findings = check(files, directory, pause=lambda: None) or ()
    return [f"{f.path} at {f.position}: {f.reason}" for f in findings if f.severity == "damage"]


def leftovers(files: MemoryFiles) -> list[str]:
    """Files that only a change under way may have."""
    suffixes = (".cleaned", ".swap", ".replaced", ".replaced.tmp", ".log.tmp")
    return [name for name in files.names(DIRECTORY) if name.endswith(suffixes)]


def examine(
    picture: Picture, config: LogConfig, *, reopened: Callable[[PartitionLog], None] | None = None
) -> None:
    """Open what a crash left, and raise AssertionError if a promise was broken."""
    files = picture.files
    problems: list[str] = []
    clock = Clock(picture.now_ms)
    if not files.exists(DIRECTORY):
        assert not picture.promises.synced, f"{picture.name}: nothing is there"
        return

    def open_log() -> PartitionLog:
        return PartitionLog(DIRECTORY, files=files, clock=clock, config=config, lock_timeout=1)

    try:
        log = open_log()
        problems += faults(picture.promises, picture.mode, log)
        problems += damage(files)
        before = content(log)
        end = max(log.log_end_offset, log.log_start_offset)
        assert log.log_start_offset <= log.log_end_offset, "it starts behind its end"
        new = Record(timestamp=clock.ms, key=b"new", value=b"n" * 50)
        for count in (1, 2, 3):
            appended = log.append([new] * count, acks="all" if count == 2 else 1)
            assert appended.base_offset == end, f"the next offset was {appended}, not {end}"
            end = appended.last_offset + 1
        after = content(log)
        assert after[: len(before)] == before, "an append changed what was there"
        assert len(after) == len(before) + 6, "what was appended is not there"
        log.close()
        log = open_log()
        assert content(log) == after, "a clean close changed something"
        problems += damage(files)
        if config.compacts and picture.promises.compacting:
            upto, kept = picture.promises.compacted
            picture.promises.compacted = (min(upto, after[-6][0]), kept)
            picture.promises.written |= {o: c for o, c in after if c[0] == b"new"}
            picture.promises.highest_end = picture.promises.end = log.log_end_offset
            picture.promises.synced = log.log_end_offset
            picture.promises.cut = None
            log.compact(force=True)
            broken = faults(picture.promises, picture.mode, log)
            problems += [f"compacted again: {problem}" for problem in broken]
            problems += damage(files)
            left = leftovers(files)
            if left:
                problems.append(f"left lying about: {left}")
        log.close()
    except Exception as error:
        raise AssertionError(f"{picture.name}: {error!r} (and {problems})") from error
    assert not problems, f"{picture.name}: {problems}"


def examine_all(world: World) -> None:
    """Examine every picture of a world."""
    assert world.points > 0
    world.recording = False
    for picture in world.pictures:
        examine(picture, world.config)
    print(f"{world.points} points, {len(world.pictures)} pictures")
