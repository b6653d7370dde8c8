"""What the tests of the log share: records, a spy in front of the files, a clock, processes."""

from __future__ import annotations

import errno
import mmap
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from logstore import Fetch, LogConfig, PartitionLog, Record
from logstore.segments.batch import Batch, encode_batch
from logstore.segments.check import check
from logstore.segments.files import DiskFiles, File, FileLock, Files, SharedBytes, Watch

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden"
ACCESS_LOG = ROOT / "examples" / "data" / "apache_access_6k.log"

BOOT = "11111111-1111-1111-1111-111111111111"
OTHER_BOOT = "22222222-2222-2222-2222-222222222222"


# records ------------------------------------------------------------------------------------


def record(value: bytes | str, timestamp: int = 1000, key: bytes | None = None) -> Record:
    """A record that holds ``value``."""
    value = value.encode() if isinstance(value, str) else value
    return Record(timestamp=timestamp, key=key, value=value)


def records(*values: bytes | str, timestamp: int = 1000) -> list[Record]:
    """Records that hold these values."""
    return [record(value, timestamp) for value in values]


def raw_batch(
    base_offset: int, *values: bytes | str, epoch: int = 0, timestamp: int = 1000
) -> bytes:
    """The bytes of a batch, as a replica would send it."""
    return encode_batch(
        records(*values, timestamp=timestamp), base_offset=base_offset, leader_epoch=epoch
    )


def fetches(
    log: PartitionLog, offset: int | None = None, *, max_bytes: int = 1 << 20
) -> list[Fetch]:
    """Everything that a reader finds from ``offset`` (the log's start) on, fetch by fetch."""
    offset = log.log_start_offset if offset is None else offset
    found: list[Fetch] = []
    while True:
        fetch = log.read(offset, max_bytes=max_bytes)
        if not fetch.data and fetch.next_offset == offset:
            return found
        assert fetch.next_offset > offset or fetch.data
        found.append(fetch)
        offset = fetch.next_offset


def content(
    log: PartitionLog, offset: int | None = None, **options: int
) -> list[tuple[int, bytes]]:
    """``(offset, value)`` of every record from ``offset`` (the log's start) on."""
    return [
        (r.offset, r.value or b"")
        for fetch in fetches(log, offset, **options)
        for r in fetch.records()
    ]


def values(log: PartitionLog) -> list[bytes]:
    """The values of all records."""
    return [value for _, value in content(log)]


def batches(log: PartitionLog) -> list[Batch]:
    """All batches."""
    return [batch for fetch in fetches(log) for batch in fetch.batches()]


# files of a log -----------------------------------------------------------------------------


def active_path(log: PartitionLog) -> Path:
    """The active segment's log."""
    return Path(log.directory, f"{log.segments[-1]:020d}.log")


def index_paths(directory: str | os.PathLike[str]) -> list[Path]:
    """All index files."""
    return sorted(p for p in Path(directory).iterdir() if p.suffix in (".index", ".timeindex"))


def snapshot(directory: str | os.PathLike[str]) -> dict[str, bytes]:
    """The content of every file below a directory."""
    top = Path(directory)
    return {str(p.relative_to(top)): p.read_bytes() for p in sorted(top.rglob("*")) if p.is_file()}


def damage(directory: str | os.PathLike[str]) -> list[str]:
    """What ``logstore check`` finds wrong with a directory."""
    return [
        str(finding)
        for finding in check(DiskFiles(), os.fspath(directory)) or ()
        if finding.severity == "damage"
    ]


def kill(log: PartitionLog) -> None:
    """Let a handle go as the death of its process does: nothing is synced or noted."""
    log.forked()


def copied(directory: str | os.PathLike[str], target: Path) -> Path:
    """A copy of a directory, as it is at this moment."""
    shutil.copytree(directory, target)
    return target


def no_locks_held(log: PartitionLog) -> bool:
    """Whether the lock of the partition can be had at once."""
    lock = DiskFiles().lock(os.path.join(log.directory, "lock"))
    try:
        lock.acquire()
        return True
    except BlockingIOError:
        return False
    finally:
        lock.close()


# the seams ----------------------------------------------------------------------------------


class StillClock:
    """A clock that only moves when it is told to, or when somebody sleeps."""

    def __init__(self, now_ms: int = 5_000_000) -> None:
        self.ms = now_ms
        self.seconds = 0.0

    def now_ms(self) -> int:
        return self.ms

    def monotonic(self) -> float:
        return self.seconds

    def boottime_ms(self) -> int:
        return int(self.seconds * 1000)

    def sleep(self, seconds: float) -> None:
        self.seconds += max(seconds, 0.0001)


class SpyFiles:
    """The disk, with somebody in between who counts, and who can let things fail.

    ``before(operation, path)`` is called ahead of every operation and may raise. Syncs are counted
    but only passed on with ``really_sync``: what a power cut loses is not what these tests are
    about, and they are many.
    """

    def __init__(self, boot: str = BOOT, *, really_sync: bool = False) -> None:
        self.boot = boot
        self.really_sync = really_sync
        self.disk: Files = DiskFiles()
        self.counts: Counter[str] = Counter()
        self.bytes_read: Counter[str] = Counter()
        """By the suffix of the file."""
        self.before: Callable[[str, str], None] = lambda operation, path: None
        self.longest_write: int | None = None
        """Writes are cut to so many bytes, as on a full disk."""

    def note(self, operation: str, path: str) -> None:
        self.counts[operation] += 1
        self.before(operation, path)

    def open(self, path: str, *, write: bool = False, create: bool = False) -> File:
        self.note("open", path)
        return _SpyFile(self, self.disk.open(path, write=write, create=create))

    def names(self, path: str) -> list[str]:
        self.note("names", path)
        return self.disk.names(path)

    def exists(self, path: str) -> bool:
        self.note("exists", path)
        return self.disk.exists(path)

    def is_directory(self, path: str) -> bool:
        self.note("is_directory", path)
        return self.disk.is_directory(path)

    def size(self, path: str) -> int:
        self.note("size", path)
        return self.disk.size(path)

    def links(self, path: str) -> int:
        self.note("links", path)
        return self.disk.links(path)

    def times_ms(self, path: str) -> tuple[int, int]:
        self.note("times", path)
        return self.disk.times_ms(path)

    def make_directory(self, path: str) -> None:
        self.note("make_directory", path)
        self.disk.make_directory(path)

    def rename(self, old: str, new: str) -> None:
        self.note("rename", new)
        self.disk.rename(old, new)

    def remove(self, path: str) -> None:
        self.note("remove", path)
        self.disk.remove(path)

    def remove_directory(self, path: str) -> None:
        self.note("remove_directory", path)
        self.disk.remove_directory(path)

    def sync_directory(self, path: str) -> None:
        self.note("sync_directory", path)
        if self.really_sync:
            self.disk.sync_directory(path)

    def share(self, path: str, size: int, *, write: bool = True) -> SharedBytes:
        self.note("share", path)
        return _SpySharedBytes(self, path, self.disk.share(path, size, write=write))

    def lock(self, path: str) -> FileLock:
        self.note("lock", path)
        return self.disk.lock(path)

    def watch(self, *paths: str) -> Watch | None:
        return self.disk.watch(*paths)

    def boot_id(self) -> str:
        return self.boot


class _SpyFile:
    def __init__(self, files: SpyFiles, file: File) -> None:
        self._files = files
        self._file = file
        self.path = file.path
        self.closed = False

    def read_at(self, size: int, position: int) -> bytes:
        self._files.note("read", self.path)
        data = self._file.read_at(size, position)
        self._files.bytes_read[os.path.splitext(self.path)[1]] += len(data)
        return data

    def write_at(self, data: bytes, position: int) -> int:
        self._files.note("write", self.path)
        limit = self._files.longest_write
        if limit is not None and limit <= 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return self._file.write_at(data if limit is None else data[:limit], position)

    def size(self) -> int:
        return self._file.size()

    def truncate(self, size: int) -> None:
        self._files.note("truncate", self.path)
        self._file.truncate(size)

    def sync(self) -> None:
        self._files.note("sync", self.path)
        if self._files.really_sync:
            self._file.sync()

    def close(self) -> None:
        self._file.close()


class _SpySharedBytes:
    def __init__(self, files: SpyFiles, path: str, shared: SharedBytes) -> None:
        self._files = files
        self._path = path
        self._shared = shared
        self.identity = shared.identity

    @property
    def buffer(self) -> bytearray | mmap.mmap | memoryview:
        return self._shared.buffer

    def sync(self) -> None:
        self._files.note("sync_shared", self._path)
        if self._files.really_sync:
            self._shared.sync()

    def close(self) -> None:
        self._shared.close()


def opened(
    directory: str | os.PathLike[str], files: Files | None = None, /, **config: int | str
) -> PartitionLog:
    """The log in ``directory`` behind a spy (``files``), configured by ``config``."""
    return PartitionLog(
        directory,
        files=files or SpyFiles(),
        config=LogConfig.from_overrides(config),
        lock_timeout=10,
    )


def fail(operation: str, error: BaseException, *, path: str = "") -> Callable[[str, str], None]:
    """For ``SpyFiles.before``: let an operation on paths that end in ``path`` fail."""

    def before(found: str, found_path: str) -> None:
        if found == operation and found_path.endswith(path):
            raise error

    return before


def io_error() -> OSError:
    """What a broken disk says."""
    return OSError(errno.EIO, os.strerror(errno.EIO))


# processes ----------------------------------------------------------------------------------

CHILD = Path(__file__).with_name("child.py")


def child_environment() -> dict[str, str]:
    """The environment in which a child finds the modules that this process found."""
    path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    return {**os.environ, "PYTHONPATH": path}


def start(*arguments: object, stdin: int | None = None) -> subprocess.Popen[bytes]:
    """Start ``child.py`` with these arguments; its output is to be read."""
    command = [sys.executable, os.fspath(CHILD), *map(str, arguments)]
    return subprocess.Popen(
        command, stdin=stdin, stdout=subprocess.PIPE, env=child_environment(), cwd=ROOT
    )


def finish(children: Iterable[subprocess.Popen[bytes]]) -> list[bytes]:
    """Wait for all, and return what each one said; all must have ended well."""
    answers = []
    for child in children:
        answer, _ = child.communicate(timeout=240)
        assert child.returncode == 0, f"a child ended with {child.returncode}"
        answers.append(answer)
    return answers


def run_script(script: str, *arguments: object) -> str:
    """Run Python code in a process of its own, and return what it printed."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script, *map(str, arguments)],
        env=child_environment(),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def gapless(offsets: Sequence[int], start: int = 0) -> bool:
    """Whether the offsets count up from ``start``."""
    return list(offsets) == list(range(start, start + len(offsets)))
