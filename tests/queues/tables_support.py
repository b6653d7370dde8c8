"""Ordered tables, in memory and in LMDB, whose transactions can be dropped."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import lmdb

from logstore.queues.ledger_rows import Rows
from logstore.queues.memory_rows import MemoryRows
from logstore.tables import Table


class Dropped(Exception):  # noqa: N818 - it is no error
    """The transaction is dropped, as when the process is killed in front of its commit."""


class MemoryTable:
    """A table in memory."""

    def __init__(self) -> None:
        self.content: dict[bytes, bytes] = {}

    @contextmanager
    def transaction(self) -> Iterator[Rows]:
        rows = MemoryRows(dict(self.content))
        try:
            yield rows
        except Dropped:
            return
        self.content = rows.content

    def close(self) -> None:
        """There is nothing to let go of."""


class LmdbTable:
    """A table of LMDB's."""

    def __init__(self, directory: Path) -> None:
        self.environment = lmdb.open(str(directory), sync=False, max_dbs=1, map_size=1 << 30)
        self.database = self.environment.open_db(b"t")

    @contextmanager
    def transaction(self) -> Iterator[Rows]:
        with self.environment.begin(write=True) as transaction:
            try:
                yield Table(transaction, self.database)
            except Dropped:
                transaction.abort()

    def close(self) -> None:
        self.environment.close()
