"""A log beside a table in SQLite: the same records, kept as safe, by as many calls.

    python bench/sqlite.py [--quick] [--json] [--only TITLE]

The peer is what one would write by hand: ``INSERT INTO log (timestamp, key, value)`` in WAL mode.
``synchronous=OFF`` is ``acks=1`` (it survives the process, not a power cut), ``synchronous=FULL``
is ``acks="all"``. It keeps no checksums, and one process writes at a time. (Queues in SQLite are in
``bench/queue.py``.) Everything lies on the disk that the repository is on. One process, one thread.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.append import append_batches, append_single, on_new_log
from bench.harness import (
    Options,
    Row,
    Session,
    Table,
    Work,
    report,
    scratch_directory,
    workload,
)
from logstore.log import PartitionLog
from logstore.segments.record import Record

NOW_MS = 1_700_000_000_000
_INSERT = "INSERT INTO log (timestamp, key, value) VALUES (?, ?, ?)"

Rows = list[list[tuple[int, bytes | None, bytes | None]]]


def on_new_table(
    directory: Path, work: Callable[[sqlite3.Connection], object], *, synchronous: str = "OFF"
) -> Session:
    """A session on an empty table of its own."""

    @contextlib.contextmanager
    def session() -> Iterator[Work]:
        with tempfile.TemporaryDirectory(dir=directory) as path:
            connection = sqlite3.connect(os.path.join(path, "log.db"), isolation_level=None)
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute(f"PRAGMA synchronous={synchronous}")
            connection.execute(
                "CREATE TABLE log (id INTEGER PRIMARY KEY, timestamp INT, key BLOB, value BLOB)"
            )
            try:
                yield partial(work, connection)
            finally:
                connection.close()

    return session


def insert_batches(batches: Rows, connection: sqlite3.Connection) -> None:
    """A transaction for each batch."""
    for batch in batches:
        connection.execute("BEGIN")
        connection.executemany(_INSERT, batch)
        connection.execute("COMMIT")


def insert_single(batches: Rows, connection: sqlite3.Connection) -> None:
    """A transaction for each record."""
    execute = connection.execute
    for batch in batches:
        for row in batch:
            execute(_INSERT, row)


def on_full_table(directory: Path, batches: Rows) -> Session:
    """Select all that was inserted before, as rows."""

    @contextlib.contextmanager
    def session() -> Iterator[Work]:
        with on_new_table(directory, lambda connection: connection)() as connected:
            connection = connected()
            assert isinstance(connection, sqlite3.Connection)
            insert_batches(batches, connection)
            query = "SELECT id, timestamp, key, value FROM log ORDER BY id"
            yield lambda: deque(connection.execute(query), maxlen=0)

    return session


def on_full_log(directory: Path, batches: list[list[Record]]) -> Session:
    """Read all that was appended before, as records."""

    def read_all(log: PartitionLog) -> None:
        offset = 0
        while (fetch := log.read(offset)).data:
            deque(fetch.records(), maxlen=0)
            offset = fetch.next_offset

    @contextlib.contextmanager
    def session() -> Iterator[Work]:
        with tempfile.TemporaryDirectory(dir=directory) as path, PartitionLog(path) as log:
            append_batches(batches, 1, log)
            yield partial(read_all, log)

    return session


def tables(directory: Path, options: Options) -> Iterator[Table]:
    """Everything, in the order in which it is printed."""
    count = options.count(100_000)
    batches = workload("same size", count)
    rows = [[(NOW_MS, record.key, record.value) for record in batch] for batch in batches]
    yield Table(
        "append batches of 500 records of 200 bytes, acks=1",
        [
            Row("logstore", count, on_new_log(directory, partial(append_batches, batches, 1))),
            Row("SQLite", count, on_new_table(directory, partial(insert_batches, rows)), "A"),
        ],
    )
    synced = partial(append_batches, batches, "all")
    insert_synced = partial(insert_batches, rows)
    yield Table(
        "append batches of 500 records of 200 bytes, acks=all",
        [
            Row("logstore", count, on_new_log(directory, synced)),
            Row("SQLite", count, on_new_table(directory, insert_synced, synchronous="FULL"), "A"),
        ],
    )
    few = max(500, count // 10)
    single = [[record] for batch in batches for record in batch][:few]
    yield Table(
        "append records of 200 bytes one by one, acks=1",
        [
            Row("logstore", few, on_new_log(directory, partial(append_single, single))),
            Row(
                "SQLite",
                few,
                on_new_table(directory, partial(insert_single, rows[: few // 500])),
                "A",
            ),
        ],
    )
    yield Table(
        "read all of it, in order, as Python objects",
        [
            Row("logstore", count, on_full_log(directory, batches)),
            Row("SQLite", count, on_full_table(directory, rows), "A"),
        ],
    )


if __name__ == "__main__":
    with scratch_directory() as scratch:
        report("A log beside a table in SQLite.", partial(tables, scratch))
