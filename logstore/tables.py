"""A transaction in LMDB, by the names of its tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

import lmdb

__all__ = ["Table", "Tables"]

MAX_KEY_BYTES = 511
"""The longest key that LMDB takes."""


class Table:
    """One table in a transaction: an ordered map of bytes, without a look-up of its name for each
    row."""

    __slots__ = ("_handle", "_transaction", "delete", "get", "put")

    get: Callable[[bytes], bytes | None]
    """The value of a key, or None."""
    put: Callable[[bytes, bytes], object]
    """Set the value of a key."""
    delete: Callable[[bytes], bool]
    """Remove a key, and say whether it was there."""

    def __init__(self, transaction: Any, handle: Any, *, is_main: bool = False) -> None:
        """Without a ``handle`` it is empty, and nothing may be written. ``is_main``: the
        transaction was begun for this table."""
        self._transaction = transaction
        self._handle = handle
        if is_main:  # LMDB's own methods, without an argument by name: half as long
            self.get = transaction.get
            self.put = transaction.put
            self.delete = transaction.delete
        elif handle is not None:
            # Partials: methods that only forward would be a tenth of a short transaction.
            self.get = partial(transaction.get, db=handle)
            self.put = partial(transaction.put, db=handle)
            self.delete = partial(transaction.delete, db=handle)
        else:
            self.get = _nothing

    def items(self, prefix: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """The pairs whose keys begin with ``prefix``, ascending. Nothing may be written meanwhile:
        make a list of them first."""
        if self._handle is None:
            return
        with self._transaction.cursor(self._handle) as cursor:
            if not cursor.set_range(prefix):
                return
            for key, value in cursor:
                if not key.startswith(prefix):
                    return
                yield key, value

    def before(self, key: bytes, prefix: bytes) -> tuple[bytes, bytes] | None:
        """The last pair in front of ``key`` whose key begins with ``prefix``."""
        if self._handle is None:
            return None
        with self._transaction.cursor(self._handle) as cursor:
            found = cursor.prev() if cursor.set_range(key) else cursor.last()
            return cursor.item() if found and cursor.key().startswith(prefix) else None


def _nothing(_: bytes) -> None:
    """What stands in an empty table."""


class Tables:
    """The named tables of an environment in one transaction; a table is made when it is first
    written to. One that is not there, or all of them without a transaction, are empty."""

    def __init__(
        self,
        handle: Any,
        transaction: Any,
        known: Mapping[str, Any] = MappingProxyType({}),
        main: Any = None,
    ) -> None:
        """``handle`` is LMDB's environment; both are None where there is none. ``known`` are
        handles of tables that can be used at once, and ``main`` the one that the transaction was
        begun for, if it was for one."""
        self._handle = handle
        self._transaction = transaction
        self._known = known
        self.opened: dict[str, Any] = {}
        """The handles that were opened here. They last if the transaction is committed."""
        self.main = None if main is None else Table(transaction, main, is_main=True)
        """The table that the transaction was begun for."""
        self.number: int = 0 if transaction is None else transaction.id()
        """The transaction's number; that of a writing one is larger than all before it."""

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
        return self.table(table).items(prefix)

    def table(self, name: str, *, write: bool = False) -> Table:
        """The table of that name; with ``write`` it is made if it is not there."""
        return Table(self._transaction, self._table(name, create=write))

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
        handle = self._known.get(name) or self.opened.get(name)
        if handle is None:
            try:
                handle = self._handle.open_db(name.encode(), self._transaction, create=create)
            except lmdb.NotFoundError:
                return None
            self.opened[name] = handle
        return handle
