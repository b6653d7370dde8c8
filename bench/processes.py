"""Several processes and threads on one partition: appending, syncing together, being woken.

    python bench/processes.py [--quick] [--json] [--only TITLE]

Limits: the same number of processes that encode the same batches, take a file lock, write behind
the file's end, publish the new end in shared memory and let go of the lock, in a bare loop; for
syncs one thread alone; for the waking of a reader, a byte through a pipe. Processes are started
before the clock is.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import multiprocessing
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.harness import (
    BATCH_RECORDS,
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
from logstore.log import PartitionLog
from logstore.segments.batch import encode_batch
from logstore.segments.record import Record
from logstore.store import Store

PROCESSES = (1, 2, 4)
THREADS = 16
STATE_BYTES = 128
"""About as many bytes as an append publishes in the shared state."""
APPEND_PAUSE = 0.005
IDLE_SECONDS = 3.0

Batches = list[list[Record]]

_context = multiprocessing.get_context("fork")


# Appending ------------------------------------------------------------------------------------


def together(
    prepare: Callable[[int], contextlib.AbstractContextManager[Work]], count: int
) -> Session:
    """A session of ``count`` processes that do their work at the same time; each prepares its own,
    given its number, and clears up, before and after the time that counts."""

    @contextlib.contextmanager
    def session() -> Iterator[Work]:
        barrier = _context.Barrier(count + 1)
        processes = [
            _context.Process(target=_prepare_and_work, args=(prepare, number, barrier))
            for number in range(count)
        ]
        for process in processes:
            process.start()
        barrier.wait(60)  # all are prepared

        def work() -> None:
            barrier.wait(60)
            barrier.wait(600)

        try:
            yield work
        finally:
            for process in processes:
                process.join(60)
                if process.exitcode != 0:
                    process.kill()
                    raise AssertionError(f"a process has ended with {process.exitcode}")

    return session


def _prepare_and_work(
    prepare: Callable[[int], contextlib.AbstractContextManager[Work]],
    number: int,
    barrier: threading.Barrier,
) -> None:
    try:
        with prepare(number) as work:
            barrier.wait(60)
            barrier.wait(60)
            work()
            barrier.wait(600)
    except BaseException:
        barrier.abort()
        raise


def in_fresh_directory(directory: Path, make_session: Callable[[Path], Session]) -> Session:
    """The session with a directory of its own for each round."""

    @contextlib.contextmanager
    def session() -> Iterator[Work]:
        with tempfile.TemporaryDirectory(dir=directory) as path, make_session(Path(path))() as work:
            yield work

    return session


@contextlib.contextmanager
def appending(path: Path, separate: bool, batches: Batches, number: int) -> Iterator[Work]:
    """A process that appends to the common partition, or to one of its own."""
    with PartitionLog(path / f"orders-{number if separate else 0}") as log:

        def work() -> None:
            for records in batches:
                log.append(records, acks=1)

        yield work


@contextlib.contextmanager
def locking(path: Path, separate: bool, batches: Batches, number: int) -> Iterator[Work]:
    """A process that does the least of it: encode, lock, look, write, publish, unlock."""
    name = str(path / f"{number if separate else 0}")
    opened = os.O_RDWR | os.O_CREAT
    log, lock, state = (os.open(name + suffix, opened) for suffix in (".log", ".lock", ".state"))
    os.ftruncate(state, mmap.PAGESIZE)
    with mmap.mmap(state, mmap.PAGESIZE) as shared:

        def work() -> None:
            published = bytes(STATE_BYTES)
            for records in batches:
                raw = encode_batch(records, default_timestamp=1)
                fcntl.flock(lock, fcntl.LOCK_EX)
                os.pwrite(log, raw, os.lseek(log, 0, os.SEEK_END))
                shared[:STATE_BYTES] = published
                fcntl.flock(lock, fcntl.LOCK_UN)

        yield work


def append_table(
    options: Options, directory: Path, processes: int, batches: Batches, what: str
) -> Table:
    """``processes`` processes that append ``batches`` between them."""
    mine = batches[: max(1, len(batches) // processes)]
    count = processes * sum(map(len, mine))

    def row(name: str, work: Callable[..., object], separate: bool, letter: str = "") -> Row:
        def make_session(path: Path) -> Session:
            return together(partial(work, path, separate, mine), processes)  # type: ignore[arg-type]

        return Row(name, count, in_fresh_directory(directory, make_session), letter)

    several = "1 process" if processes == 1 else f"{processes} processes"
    return Table(
        f"{several} append {what}, acks=1",
        [
            row("to one partition", appending, False),
            row("to a partition each", appending, True),
            row("encode, flock, lseek, pwrite, unlock: one file", locking, False, "A"),
            row("the same, a file each", locking, True, "B"),
        ],
    )


def append_tables(options: Options, directory: Path) -> Iterator[Table]:
    """1, 2 and 4 processes, batches and single records."""
    batches = workload("stamped", options.count(100_000))
    single = [[record] for batch in workload("stamped", options.count(20_000)) for record in batch]
    for processes in PROCESSES:
        what = f"batches of {BATCH_RECORDS}"
        yield append_table(options, directory, processes, batches, what)
    for processes in PROCESSES:
        yield append_table(options, directory, processes, single, "single records")


# Group commit ---------------------------------------------------------------------------------


def syncing(directory: Path, threads: int, records: list[Record]) -> Session:
    """A session of threads that append single records between them, each one synced."""

    @contextlib.contextmanager
    def session() -> Iterator[Work]:
        with tempfile.TemporaryDirectory(dir=directory) as path, PartitionLog(path) as log:

            def append(mine: list[Record]) -> None:
                for record in mine:
                    log.append([record], acks="all")

            parts = [records[number::threads] for number in range(threads)]

            def work() -> None:
                workers = [threading.Thread(target=append, args=(part,)) for part in parts]
                for worker in workers:
                    worker.start()
                for worker in workers:
                    worker.join()

            yield work

    return session


def group_commit_table(options: Options, directory: Path) -> Table:
    """Single records with acks=all, from many threads and from one."""
    count = options.count(4_000)
    records = [record for batch in workload("stamped", count) for record in batch]
    few = records[: count // 4]
    return Table(
        "append single records, acks=all",
        [
            Row(
                f"{THREADS} threads",
                len(records),
                syncing(directory, THREADS, records),
                goal=3,
                goal_of="A",
            ),
            Row("4 threads", len(records), syncing(directory, 4, records)),
            Row("one thread", len(few), syncing(directory, 1, few), "A"),
        ],
    )


# Being woken ----------------------------------------------------------------------------------


def _report_delays(path: Path, count: int, results: Connection) -> None:
    """A reader that follows the log, and says how long after its append it had each record."""
    delays: list[int] = []
    with PartitionLog(path, read_only=True) as log:
        results.send(None)
        offset = 0
        while len(delays) < count:
            log.wait(offset)
            fetch = log.read(offset)
            now = time.monotonic_ns()
            delays += [now - int(record.value or b"") for record in fetch.records()]
            offset = fetch.next_offset
    results.send(delays)


def _report_pipe_delays(pipe: Connection, count: int, results: Connection) -> None:
    delays = []
    results.send(None)
    for _ in range(count):
        sent = int(pipe.recv_bytes())
        delays.append(time.monotonic_ns() - sent)
    results.send(delays)


def _median_ms(delays: list[int]) -> Figure:
    return Figure(sorted(delays)[len(delays) // 2] / 1e6)


def delay_of_reader(directory: Path, count: int) -> Session:
    """A session with a reader in another process."""

    def work() -> Figure:
        ours, its = _context.Pipe()
        with tempfile.TemporaryDirectory(dir=directory) as path, PartitionLog(path) as log:
            reader = _context.Process(target=_report_delays, args=(Path(path), count, its))
            reader.start()
            ours.recv()
            for _ in range(count):
                time.sleep(APPEND_PAUSE)
                log.append([Record(value=b"%d" % time.monotonic_ns())], acks=1)
            delays = ours.recv()
            reader.join()
        return _median_ms(delays)

    return steady(work)


def delay_of_pipe(count: int) -> Session:
    """A session with a process at the other end of a pipe."""

    def work() -> Figure:
        ours, its = _context.Pipe()
        read, write = _context.Pipe(duplex=False)
        reader = _context.Process(target=_report_pipe_delays, args=(read, count, its))
        reader.start()
        ours.recv()
        for _ in range(count):
            time.sleep(APPEND_PAUSE)
            write.send_bytes(b"%d" % time.monotonic_ns())
        delays = ours.recv()
        reader.join()
        return _median_ms(delays)

    return steady(work)


def waking_table(options: Options, directory: Path) -> Table:
    """How long after the append a reader in another process has the record."""
    count = max(50, int(400 * options.scale))
    return Table(
        "from an append until another process has read the record",
        [
            Row("wait, read", 1, delay_of_reader(directory, count), goal=2),
            Row("a byte string through a pipe", 1, delay_of_pipe(count), "A"),
        ],
        unit="ms",
        cost=True,
    )


def idle_reader(directory: Path, partitions: int) -> Session:
    """A session with ``logstore read --follow`` on a topic to which nobody appends: processor time
    of the second half of its life, in per cent of the time."""

    @contextlib.contextmanager
    def session() -> Iterator[Work]:
        with tempfile.TemporaryDirectory(dir=directory) as path:
            with Store(path, maintenance_interval=None) as store:
                topic = store.create_topic("orders", partitions=partitions)
                for number in range(partitions):
                    topic.partition(number).append([Record(value=b"first")])
            program = "from logstore.cli.main import main; main()"
            command = [sys.executable, "-c", program, "read", "--store", path, "orders", "--follow"]
            reader = subprocess.Popen(command, stdout=subprocess.PIPE)
            try:
                assert reader.stdout is not None
                for _ in range(partitions):
                    if not reader.stdout.readline():
                        raise AssertionError("the reader has ended")
                yield partial(_idle_share, reader.pid)
            finally:
                reader.kill()
                reader.communicate()

    return session


def _idle_share(pid: int) -> Figure:
    time.sleep(0.2)
    before, start = _processor_seconds(pid), time.monotonic()
    time.sleep(IDLE_SECONDS)
    return Figure((_processor_seconds(pid) - before) / (time.monotonic() - start) * 100)


def _processor_seconds(pid: int) -> float:
    """Processor time of another process, to the nanosecond: proc(5), ``/proc/pid/schedstat``."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        total += int((task / "schedstat").read_text().split()[0])
    return total / 1e9


def idle_table(directory: Path) -> Table:
    """What it costs to follow a topic to which nobody appends."""
    return Table(
        "logstore read --follow, nobody appends",
        [
            Row("1 partition", 1, idle_reader(directory, 1), goal=1),
            Row("3 partitions", 1, idle_reader(directory, 3), goal=1),
        ],
        unit="% of a core",
        cost=True,
    )


def tables(directory: Path, options: Options) -> Iterator[Table]:
    """Everything, in the order in which it is printed."""
    yield from append_tables(options, directory)
    yield group_commit_table(options, directory)
    yield waking_table(options, directory)
    yield idle_table(directory)


if __name__ == "__main__":
    with scratch_directory() as scratch:
        report("Several processes and threads, beside their limits.", partial(tables, scratch))
