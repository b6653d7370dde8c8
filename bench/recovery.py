"""Opening: a store of many partitions, and a large log after a crash.

    python bench/recovery.py [--quick] [--json] [--only TITLE] [--log-gb GB]

Figures are milliseconds. That the machine has restarted is played by another boot id: then nothing
is believed but the checkpoint, as after a power cut. Beside each figure stands what the log alone
makes necessary: listing its directory, or reading the active segment and checking its CRCs.

A second table counts the file handles that a store holds. After a clean close nothing may be read
of a log: the run fails if it is.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import shutil
import signal
import sys
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.harness import (
    Figure,
    Options,
    Row,
    Session,
    Table,
    Work,
    report,
    scratch_directory,
    steady,
    workload,
)
from logstore.config import LogConfig
from logstore.log import PartitionLog
from logstore.segments.batch import encode_batch
from logstore.segments.files import DiskFiles, File
from logstore.segments.scan import Damage, scan
from logstore.store import Store

PARTITIONS = 1_000
SEGMENTS = 10
SEGMENT_BYTES = 4_096
"""Of the store's many segments: their number counts, not their size."""
LOG_GB = 2.0


class _CountingFile:
    """A file that counts what is read of it."""

    def __init__(self, file: File, files: RestartedFiles) -> None:
        self._file = file
        self._files = files

    def read_at(self, size: int, position: int, /) -> bytes:
        data = self._file.read_at(size, position)
        self._files.bytes_read += len(data)
        return data

    def __getattr__(self, name: str) -> object:
        return getattr(self._file, name)


class RestartedFiles(DiskFiles):
    """The disk, on a machine that has just been started; counts what is read of logs."""

    def __init__(self) -> None:
        self._boot_id = str(uuid.uuid4())
        self.bytes_read = 0

    def boot_id(self) -> str:
        return self._boot_id

    def open(self, path: str, *, write: bool = False, create: bool = False) -> File:
        file = super().open(path, write=write, create=create)
        return _CountingFile(file, self) if path.endswith(".log") else file  # type: ignore[return-value]


# A store of many partitions -------------------------------------------------------------------


def make_store(path: Path, partitions: int) -> None:
    """A store with one topic, whose partitions have ten segments each, all closed cleanly."""
    batch = workload("stamped", 500)[0][: SEGMENT_BYTES // 250]
    with Store(path, maintenance_interval=None) as store:
        topic = store.create_topic("orders", partitions=partitions, segment_bytes=SEGMENT_BYTES)
        log = topic.partition(0)
        for _ in range(SEGMENTS):
            log.append(batch, acks=1)
    first = path / "topics" / "orders-0"
    with PartitionLog(first) as log:
        assert len(log.segment_infos()) == SEGMENTS
    # The others get copies of its files, and their states from being opened once.
    for number in range(1, partitions):
        for name in first.iterdir():
            if name.suffix in (".log", ".index", ".timeindex"):
                shutil.copy(name, path / "topics" / f"orders-{number}" / name.name)
        with PartitionLog(path / "topics" / f"orders-{number}"):
            pass


def open_handles() -> int:
    """How many files this process has open."""
    return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0


def opening_store(path: Path, restarted: bool, everything: bool) -> Session:
    """A session that opens a store, and every partition of it if asked to."""

    @contextlib.contextmanager
    def session() -> Iterator[Work]:
        files = RestartedFiles() if restarted else DiskFiles()
        with contextlib.ExitStack() as stack:

            def work() -> None:
                store = stack.enter_context(Store(path, maintenance_interval=None, files=files))
                if everything:
                    open_partitions(store)

            yield work
        if isinstance(files, RestartedFiles) and files.bytes_read:
            raise AssertionError(f"{files.bytes_read} bytes of logs were read after a clean close")

    return session


def maintaining_store(path: Path) -> Session:
    """A session with a round of maintenance over a store that was just opened."""

    @contextlib.contextmanager
    def session() -> Iterator[Work]:
        with Store(path, maintenance_interval=None) as store:
            yield store.maintain

    return session


def handles_after(path: Path, use: Callable[[Store], object]) -> Session:
    """A session that counts the file handles that a store holds after ``use``."""

    def work() -> Figure:
        before = open_handles()
        with Store(path, maintenance_interval=None) as store:
            use(store)
            return Figure(open_handles() - before)

    return steady(work)


def open_partitions(store: Store) -> None:
    """Open every partition of a store."""
    for topic in store.topics():
        for number in range(topic.partition_count):
            topic.partition(number)


def listing(path: Path) -> Session:
    """A session that lists every partition's directory."""

    return steady(lambda: [os.listdir(name) for name in (path / "topics").glob("orders-*")])


def store_tables(options: Options, directory: Path) -> Iterator[Table]:
    """Opening, after a clean close."""
    partitions = max(10, int(PARTITIONS * options.scale))
    path = directory / "store"
    make_store(path, partitions)
    one = partial(Row, count=1)
    yield Table(
        f"a store of {partitions:,} partitions, {partitions * SEGMENTS:,} segments",
        [
            one("open it", session=opening_store(path, False, False), goal=2_000),
            one("open it, the machine restarted", session=opening_store(path, True, False)),
            one("open every partition too", session=opening_store(path, False, True), goal=2_000),
            one("the same, the machine restarted", session=opening_store(path, True, True)),
            one("a round of maintenance", session=maintaining_store(path)),
            one("list every partition's directory", session=listing(path), letter="A"),
        ],
        unit="ms",
        cost=True,
    )
    yield Table(
        f"file handles that the store of {partitions:,} partitions holds",
        [
            one("it is open", session=handles_after(path, lambda _: None), goal=10),
            one("after maintenance", session=handles_after(path, Store.maintain), goal=10),
            one("every partition is open", session=handles_after(path, open_partitions)),
        ],
        unit="handles",
        cost=True,
    )


# A large log after a crash --------------------------------------------------------------------


def make_log(path: Path, size: int) -> None:
    """A log of ``size`` bytes in segments of 1 GB at most, whose writer is killed."""
    process = multiprocessing.get_context("fork").Process(target=_write_and_die, args=(path, size))
    process.start()
    process.join()
    if process.exitcode != -signal.SIGKILL:
        raise AssertionError(f"the writer has ended with {process.exitcode}")


def _write_and_die(path: Path, size: int) -> None:
    batches = workload("stamped", 50_000)[:100]
    data = b"".join(encode_batch(records) for records in batches)
    log = PartitionLog(path, config=LogConfig(segment_bytes=min(1 << 30, size // 4)))
    for _ in range(size // len(data)):
        log.append_raw(data, acks=1)
    os.kill(os.getpid(), signal.SIGKILL)


def reopening(path: Path, restarted: bool) -> Session:
    """A session that reopens the log as the crash left it: the state is put back each time."""
    state = (path / "state").read_bytes()

    @contextlib.contextmanager
    def session() -> Iterator[Work]:
        with open(path / "state", "r+b") as file:  # the file stays: a checkpoint knows its inode
            file.write(state)
        files = RestartedFiles() if restarted else DiskFiles()
        logs: list[PartitionLog] = []
        yield lambda: logs.append(PartitionLog(path, files=files))
        for log in logs:
            log.close()

    return session


def scanning(path: Path) -> Session:
    """A session that reads the active segment, and checks its CRCs."""
    active = max(path.glob("*.log"))

    def work() -> None:
        file = DiskFiles().open(str(active))
        for batch in scan(file):
            assert not isinstance(batch, Damage)
            batch.check_crc()
        file.close()

    return steady(work)


def log_table(options: Options, directory: Path) -> Table:
    """Reopening, after the writer was killed."""
    path = directory / "log"
    make_log(path, int(options.arguments.log_gb * options.scale * 1e9))
    size = sum(log.stat().st_size for log in path.glob("*.log"))
    active = max(path.glob("*.log")).stat().st_size
    one = partial(Row, count=1)
    return Table(
        f"a log of {size / 1e9:.1f} GB whose writer was killed, {active / 1e6:,.0f} MB active",
        [
            one("open it", session=reopening(path, False), goal=1_000),
            one("open it, the machine restarted", session=reopening(path, True)),
            one("read the active segment, check CRCs", session=scanning(path), letter="A"),
        ],
        unit="ms",
        cost=True,
    )


def tables(directory: Path, options: Options) -> Iterator[Table]:
    """Everything, in the order in which it is printed."""
    yield from store_tables(options, directory)
    yield log_table(options, directory)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The size of the large log; its segments have up to 1 GB."""
    parser.add_argument(
        "--log-gb", type=float, default=LOG_GB, help=f"gigabytes of the large log ({LOG_GB:g})"
    )


if __name__ == "__main__":
    with scratch_directory() as scratch:
        report("Opening, beside what it needs at least.", partial(tables, scratch), add_arguments)
