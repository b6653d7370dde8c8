"""The ``live`` environment: what must survive the end of a process, and need not a power cut.

LMDB without syncs: a commit takes microseconds, and the kernel keeps it when the process dies. A
power cut may leave the file torn, and a copy or a backup may be old. So ``meta`` has a record of
which file is the live one, and of the run of the machine that it belongs to::

    live/<generation>/         LMDB
    live/lock                  held while a generation is made, and by whoever writes

Where the record does not fit what is found, the environment is discarded, and another generation is
made from the checkpoints in ``meta``. Commit point: LMDB's, of the record, synced. A crash before
it leaves a directory that nobody uses; a crash after it may leave the old one. Whoever makes the
next one removes both.

LMDB lets one process write at a time, and waiting for it can be neither timed nor interrupted. So
the lock stands in front: if its holder was stopped in the microseconds of a commit, the others are
told so after a while.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

from logstore import fork
from logstore.clock import Clock
from logstore.environments import DATA_FILE, Environment, open_environment
from logstore.errors import ClosedError, ForkedError, ReadOnlyError
from logstore.locking import PartitionLock
from logstore.metadata import Metadata
from logstore.segments.files import Files
from logstore.structure import remove_tree
from logstore.tables import Tables

__all__ = ["LIVE", "Live", "Restored", "Restorer"]

LIVE = "live"
RECORD_TABLE = "live"
"""The table of ``meta`` with the record."""
_RECORD = b"current"
_LOCK = "lock"
_LOCK_SECONDS = 60.0

_T = TypeVar("_T")

Restored = Mapping[str, Mapping[bytes, bytes]]
"""Tables, and what stands in them."""
Restorer = Callable[[], tuple[Restored, Restored]]
"""Makes of the checkpoints in ``meta`` what a new live environment begins with, and what tables of
``meta`` hold from then on."""


class Live:
    """The live environment of a store. Usable from many threads."""

    def __init__(
        self,
        store: str,
        metadata: Metadata,
        *,
        files: Files,
        clock: Clock,
        read_only: bool,
    ) -> None:
        self._directory = os.path.join(store, LIVE)
        self._metadata = metadata
        self._files = files
        self._clock = clock
        self._read_only = read_only
        self.restorers: list[Restorer] = []
        """Called when there is no live environment that can be used, before there is one; each
        has tables of its own."""
        self._mutex = threading.Lock()
        """Held to open it."""
        self._environment: Environment | None = None
        self._lock: PartitionLock | None = None
        """For writing; made with the environment."""
        self._closed = False
        self._forked = False

    def recover(self) -> None:
        """Make a new generation if there was one that cannot be used any more."""
        record = self._read_record()
        if record is not None and self._fitting(record) is None:
            self._opened()

    def exists(self) -> bool:
        """Whether anybody has ever needed one."""
        return self._environment is not None or self._read_record() is not None

    def directory(self) -> str | None:
        """Where the environment that can be used lies, if there is one."""
        return self._fitting(self._read_record())

    def number(self) -> int:
        """The number of the last transaction that was committed, by any process."""
        environment = self._environment or self._opened()
        return -1 if environment is None else environment.last_transaction()

    @contextlib.contextmanager
    def transaction(self, *, write: bool = False) -> Iterator[Tables]:
        """A transaction; with ``write`` it is committed unless the block raises. Where a store
        that was opened for reading has no live environment, all tables are empty."""
        if write and self._read_only:
            raise ReadOnlyError(f"{self._directory}: the store was opened for reading only")
        environment = self._opened()
        if environment is None:
            yield Tables(None, None)
            return
        if not write:
            with environment.transaction() as transaction:
                yield Tables(environment.handle, transaction)
            return
        with self._locked(), environment.transaction(write=True) as transaction:
            yield Tables(environment.handle, transaction)

    def read(self, action: Callable[[Tables], _T]) -> _T:
        """What ``action`` makes of the tables, as they are at one moment."""
        environment = self._environment or self._opened()
        if environment is None:
            return action(Tables(None, None))
        return environment.read(action)

    def write(self, action: Callable[[Tables], _T], *, main: str = "") -> _T:
        """``action`` in a write transaction, committed unless it raises: a ``transaction`` for
        what is done for each delivery, in half the time. ``main``: the table that it is mostly
        about."""
        if self._read_only:
            raise ReadOnlyError(f"{self._directory}: the store was opened for reading only")
        environment = self._environment or self._opened()
        lock = self._lock
        assert environment is not None
        assert lock is not None
        if self._closed or self._forked:
            self._check_open()
        if lock.mutex.locked():  # otherwise not asked: a call less
            lock.threads()
        with lock.mutex:
            try:
                lock.acquire()
                return environment.write(action, main)
            finally:
                lock.release()

    def usable(self) -> bool:
        """Whether there is one, or one can be made."""
        return self._opened() is not None

    def check_readers(self) -> None:
        """Let go of what killed processes were reading."""
        environment = self._environment
        if environment is not None and not self._read_only:
            environment.check_readers()

    def close(self) -> None:
        """Let go of it; closing twice is allowed."""
        self._closed = True
        fork.forget(self)
        environment, self._environment = self._environment, None
        if environment is not None:
            environment.close()
        if self._lock is not None:
            self._lock.close()

    def forked(self) -> None:
        """In a child process: the lock is the parent's. (The environment sees to itself.)"""
        self._forked = True
        if self._lock is not None:
            self._lock.close()

    # Opening ----------------------------------------------------------------------------------

    def _opened(self) -> Environment | None:
        environment = self._environment
        if environment is None:
            with self._mutex:
                self._check_open()
                if self._environment is None:
                    self._environment = self._open()
                environment = self._environment
        return environment

    def _open(self) -> Environment | None:
        directory = self._fitting(self._read_record())
        if self._read_only:
            return (directory and open_environment(directory, read_only=True, sync=False)) or None
        if self._lock is None:
            self._files.make_directory(self._directory)
            self._lock = PartitionLock(
                self._files.lock(os.path.join(self._directory, _LOCK)),
                name=self._directory,
                clock=self._clock,
                timeout=_LOCK_SECONDS,
            )
            fork.remember(self)
        if directory is None:
            with self._locked():
                directory = self._fitting(self._read_record()) or self._make()
        return open_environment(directory, read_only=False, sync=False)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        lock = self._lock
        assert lock is not None
        self._check_open()
        with lock.held():
            yield

    def _check_open(self) -> None:
        if self._forked:
            raise ForkedError(
                f"{self._directory}: this handle belongs to the parent process; open the store "
                "again"
            )
        if self._closed:
            raise ClosedError(f"{self._directory}: the store was closed")

    def _read_record(self) -> dict[str, object] | None:
        with self._metadata.transaction() as tables:
            value = tables.get(RECORD_TABLE, _RECORD)
        if value is None:
            return None
        try:
            record = json.loads(value)
        except ValueError:
            record = None
        return record if isinstance(record, dict) else {}

    def _fitting(self, record: Mapping[str, object] | None) -> str | None:
        """The directory of the environment that a record speaks of, if it can be used."""
        generation = (record or {}).get("generation")
        if not isinstance(generation, str) or not generation.isalnum():
            return None
        directory = os.path.join(self._directory, generation)
        return directory if record == self._describe(directory) else None

    def _describe(self, directory: str) -> dict[str, object] | None:
        try:
            status = os.stat(os.path.join(directory, DATA_FILE))
        except FileNotFoundError:
            return None
        return {
            "generation": os.path.basename(directory),
            "boot_id": self._files.boot_id(),
            "device": status.st_dev,
            "inode": status.st_ino,
        }

    def _make(self) -> str:
        directory = os.path.join(self._directory, uuid.uuid4().hex)
        self._files.make_directory(directory)
        for_live: dict[str, Mapping[bytes, bytes]] = {}
        for_meta: dict[str, Mapping[bytes, bytes]] = {}
        for restore in self.restorers:
            of_live, of_meta = restore()
            for_live.update(of_live)
            for_meta.update(of_meta)
        environment = open_environment(directory, read_only=False, sync=False)
        assert environment is not None
        try:
            with environment.transaction(write=True) as transaction:
                _fill(Tables(environment.handle, transaction), for_live)
            record = self._describe(directory)
            with self._metadata.transaction(write=True) as meta:
                for table in for_meta:
                    meta.clear(table)
                _fill(meta, for_meta)
                meta.put(RECORD_TABLE, _RECORD, json.dumps(record).encode())
        finally:
            environment.close()
        for name in self._files.names(self._directory):
            path = os.path.join(self._directory, name)
            if path != directory and self._files.is_directory(path):
                remove_tree(self._files, path)
        return directory


def _fill(tables: Tables, rows: Restored) -> None:
    for table, content in rows.items():
        for key, value in content.items():
            tables.put(table, key, value)
