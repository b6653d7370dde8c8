"""An ordered table in memory, whose transactions can be dropped."""

from __future__ import annotations

import bisect
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import lmdb

from logstore.queues.ledger_rows import Rows
from logstore.tables import Table


class MemoryRows:
    """The rows of a transaction, in order."""

    def __init__(self, content: dict[bytes, bytes]) -> None:
        self.content = content
        self.keys = sorted(content)

    def get(self, key: bytes) -> bytes | None:
        return self.content.get(key)

    def put(self, key: bytes, value: bytes) -> None:
        if key not in self.content:
            bisect.insort(self.keys, key)
        self.content[key] = value

    def delete(self, key: bytes) -> None:
        if self.content.pop(key, None) is not None:
            del self.keys[bisect.bisect_left(self.keys, key)]

    def items(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        for key in self.keys[bisect.bisect_left(self.keys, prefix) :]:
            if not key.startswith(prefix):
                return
            yield key, self.content[key]

    def before(self, key: bytes, prefix: bytes) -> tuple[bytes, bytes] | None:
        place = bisect.bisect_left(self.keys, key)
        found = self.keys[place - 1] if place else b""
        return (found, self.content[found]) if place and found.startswith(prefix) else None


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
