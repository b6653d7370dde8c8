"""A transaction in LMDB, by the names of its tables."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import lmdb

__all__ = ["Tables"]

MAX_KEY_BYTES = 511
"""The longest key that LMDB takes."""


class Tables:
    """The named tables of an environment in one transaction; a table is made when it is first
    written to. One that is not there, or all of them without a transaction, are empty."""

    def __init__(self, handle: Any, transaction: Any) -> None:
        """``handle`` is LMDB's environment; both are None where there is none."""
        self._handle = handle
        self._transaction = transaction
        self._opened: dict[str, Any] = {}

    @property
    def number(self) -> int:
        """The transaction's number; that of a writing one is larger than all before it."""
        return 0 if self._transaction is None else int(self._transaction.id())

    def get(self, table: str, key: bytes) -> bytes | None:
        """The value of ``key``, or None."""
        handle = self._table(table)
        if handle is None:
            return None
        value: bytes | None = self._transaction.get(key, db=handle)
        return value

    def items(self, table: str, prefix: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """The pairs whose keys begin with ``prefix``, ascending. Nothing may be written meanwhile:
        make a list of them first."""
        handle = self._table(table)
        if handle is None:
            return
        with self._transaction.cursor(handle) as cursor:
            if not cursor.set_range(prefix):
                return
            for key, value in cursor:
                if not key.startswith(prefix):
                    return
                yield key, value

    def put(self, table: str, key: bytes, value: bytes) -> None:
        """Set the value of ``key``."""
        self._transaction.put(key, value, db=self._table(table, create=True))

    def delete(self, table: str, key: bytes) -> bool:
        """Remove ``key``, and say whether it was there."""
        handle = self._table(table)
        return handle is not None and bool(self._transaction.delete(key, db=handle))

    def clear(self, table: str) -> None:
        """Remove everything from a table."""
        handle = self._table(table)
        if handle is not None:
            self._transaction.drop(handle, delete=False)

    def _table(self, name: str, *, create: bool = False) -> Any:
        if self._transaction is None:
            return None
        handle = self._opened.get(name)
        if handle is None:
            try:
                handle = self._handle.open_db(name.encode(), self._transaction, create=create)
            except lmdb.NotFoundError:
                return None
            self._opened[name] = handle
        return handle
