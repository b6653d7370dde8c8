"""A store's definitions: the log ``__metadata``, and LMDB's ``meta``, which can be made from it.

How a change goes:

1. A lock of the store's own (LMDB's, which comes next, knows no time-out), then one write
   transaction of LMDB.
2. Catching up: what somebody appended to ``__metadata`` and was killed before he could put it into
   ``meta`` is put there now. The table ``applied`` says up to where that was done.
3. The change is decided upon what is there, and appended to ``__metadata`` as one batch with
   ``acks="all"``. Commit point: that append's sync. A crash before it leaves nothing, or a batch
   that nobody was told of and that the next one to open the store for writing makes true.
4. The same is put into the table ``definitions``, and ``applied`` moved; LMDB commits, synced.

So LMDB may lag the log; it never leads it, and everything in ``definitions`` can be had again.
Other tables of ``meta`` belong to others (:meth:`Metadata.transaction`), and cannot.

``__metadata`` is a compacted topic of one partition: key and value of a record are those of a
definition, a null value removes it.
"""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from logstore import fork
from logstore.clock import Clock, SystemClock
from logstore.config import LogConfig
from logstore.definitions import QUEUE_PREFIX, TOPIC_PREFIX, TopicDefinition, decode, encode
from logstore.environments import Environment, open_environment
from logstore.errors import (
    ClosedError,
    FormatError,
    InvalidInputError,
    PoisonedError,
    ReadOnlyError,
)
from logstore.locking import PartitionLock
from logstore.log import PartitionLog
from logstore.segments import filenames
from logstore.segments.files import DiskFiles, Files
from logstore.segments.record import Record
from logstore.tables import MAX_KEY_BYTES, Tables
from logstore.topic import write_topic_id

__all__ = ["METADATA_TOPIC", "Change", "Metadata", "View"]

METADATA_TOPIC = TopicDefinition(
    uuid.UUID("6c6f6773-746f-4265-8000-6d6574616461"),
    "__metadata",
    1,
    {"cleanup_policy": "compact", "segment_bytes": 1 << 20},
)
"""The topic of the definitions, which has none itself."""

META = "meta"
TOPICS = "topics"
DEFINITIONS = "definitions"
APPLIED = "applied"
DELETING = "deleting"
"""Topics and queues whose definition is gone, and whose files may not be yet: their last
definitions, by their ids."""

_TOPICS, _QUEUES = TOPIC_PREFIX.encode(), QUEUE_PREFIX.encode()
_OFFSET = b"offset"
_MANY = 100_000
"""So many decoded definitions are kept at most."""
CHANGE_LOCK = "change.lock"
"""In ``meta``: made by the first who opens the store for writing."""
_LOCK_SECONDS = 30.0

Change = tuple[str, Mapping[str, Any] | None]
"""A definition's key, and what it becomes; None removes it."""


Decoded = dict[str, tuple[bytes, dict[str, Any]]]
"""Definitions by key, each with the bytes that it was decoded from."""


class View:
    """The definitions as they are in the middle of a change; shared, so do not change them."""

    def __init__(self, tables: Tables, path: str, decoded: Decoded) -> None:
        """``decoded`` is what was decoded before: most definitions are as they were."""
        self._tables = tables
        self._path = path
        self._before = decoded

    def get(self, key: str) -> dict[str, Any] | None:
        """A definition, or None."""
        value = self._tables.get(DEFINITIONS, key.encode())
        return None if value is None else decode(key, value, self._path)

    def items(self, prefix: str = "") -> dict[str, dict[str, Any]]:
        """The definitions whose keys begin with ``prefix``."""
        return self._decoded(DEFINITIONS, prefix)

    def keys(self, prefix: str) -> list[str]:
        """The keys of definitions that begin with ``prefix``: cheaper than their definitions."""
        return [key.decode() for key, _ in self._tables.items(DEFINITIONS, prefix.encode())]

    def deleting(self, prefix: str = TOPIC_PREFIX) -> dict[str, dict[str, Any]]:
        """The last definitions of topics, or of queues, that are being deleted."""
        return self._decoded(DELETING, prefix)

    def _decoded(self, table: str, prefix: str = "") -> dict[str, dict[str, Any]]:
        before, found = self._before, {}
        for key, value in self._tables.items(table, prefix.encode()):
            name = key.decode()
            known = before.get(name)
            if known is None or known[0] != value:
                known = before[name] = value, decode(name, value, self._path)
            found[name] = known[1]
        if len(before) > _MANY:
            before.clear()  # what is gone by now must not be kept for ever
        return found


@dataclass(slots=True)
class _Seen:
    """What was read of the definitions."""

    number: int = -1
    """The number of LMDB's last transaction; a look at another one costs a transaction."""
    version: int = -1
    """The offset of ``__metadata`` up to which it was put into LMDB: it moves when definitions
    change, and only then."""
    items: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    """By prefix."""


class Metadata:
    """The definitions of the store in the directory ``store``. Usable from many threads.

    Looking sees at once what other processes committed. Opening for writing catches up. Raises
    FormatError where ``meta`` cannot be used, or does not belong to ``__metadata``.
    """

    def __init__(
        self,
        store: str,
        *,
        read_only: bool = False,
        files: Files | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._directory = os.path.join(store, META)
        self._log_directory = os.path.join(
            store, TOPICS, filenames.partition_directory(METADATA_TOPIC.name, 0)
        )
        self._read_only = read_only
        self._files: Files = files or DiskFiles()
        self._clock: Clock = clock or SystemClock()
        self._closed = False
        self._log: PartitionLog | None = None
        """``__metadata``, once somebody has needed it."""
        self._lock: PartitionLock | None = None
        self._seen = _Seen()
        """Replaced as a whole when the definitions have changed."""
        self._decoded: Decoded = {}
        self._environment = open_environment(self._directory, read_only=read_only)
        """None while there is none to read, and once it is closed."""
        if not read_only:
            try:
                self._lock = PartitionLock(
                    self._files.lock(os.path.join(self._directory, CHANGE_LOCK)),
                    name=f"{self._directory}: the definitions",
                    clock=self._clock,
                    timeout=_LOCK_SECONDS,
                )
                fork.remember(self)
                self._catch_up_on_opening()
            except BaseException:
                self.close()
                raise

    def close(self) -> None:
        """Let go of everything; closing twice is allowed."""
        self._closed = True
        environment, self._environment = self._environment, None
        log, self._log = self._log, None
        lock, self._lock = self._lock, None
        fork.forget(self)
        with contextlib.ExitStack() as stack:
            if environment is not None:
                stack.callback(environment.close)
            if lock is not None:
                stack.callback(lock.close)
            if log is not None:
                stack.callback(_close_log, log)

    def forked(self) -> None:
        """In a child process: the lock is the parent's. (Log and environment see to themselves.)"""
        if self._lock is not None:
            self._lock.close()

    # Looking ----------------------------------------------------------------------------------

    def get(self, key: str) -> dict[str, Any] | None:
        """A definition, or None. It is shared: do not change it."""
        return self.items(key).get(key)

    def items(self, prefix: str = "") -> Mapping[str, dict[str, Any]]:
        """The definitions whose keys begin with ``prefix``: the same object until any definition
        changes. It is shared: do not change it."""
        seen = self._look()
        items = seen.items.get(prefix)
        if items is None:
            with self.transaction() as tables:
                items = View(tables, self._directory, self._decoded).items(prefix)
            seen.items[prefix] = items
        return items

    @property
    def version(self) -> int:
        """A number that grows when a definition changes."""
        environment, seen = self._environment, self._seen
        if environment is not None and environment.last_transaction() == seen.number:
            return seen.version  # as nearly always, for each message that is published alone
        return self._look().version

    def _look(self) -> _Seen:
        environment = self._opened()
        seen = self._seen
        if environment is None:
            return _Seen()
        # If somebody commits after this number was read, the next look reads once more.
        number = environment.last_transaction()
        if number != seen.number:
            with self.transaction() as tables:
                version = applied_offset(tables) or 0
            if version == seen.version:
                seen.number = number
            else:
                seen = self._seen = _Seen(number, version)
        return seen

    def _opened(self) -> Environment | None:
        if self._closed:
            raise ClosedError(f"{self._directory}: the store was closed")
        if self._environment is None and self._read_only:
            self._environment = open_environment(self._directory, read_only=True)
            if self._environment is None and self._files.is_directory(self._log_directory):
                raise self._lost()
        return self._environment

    def copy_to(self, directory: str) -> None:
        """Copy ``meta``, as it is at one moment, into an empty directory."""
        environment = self._opened()
        if environment is not None:
            environment.copy(directory)

    # Changing ---------------------------------------------------------------------------------

    @contextlib.contextmanager
    def transaction(self, *, write: bool = False) -> Iterator[Tables]:
        """A transaction in ``meta``, for tables other than the definitions' own.

        With ``write`` it is committed, and synced, unless the block raises; nobody else writes
        meanwhile. Raises LockTimeoutError when another process holds it for 30 s.
        """
        environment = self._opened()
        if not write:
            if environment is None:
                yield Tables(None, None)
                return
            with environment.transaction() as transaction:
                yield Tables(environment.handle, transaction)
            return
        lock = self._lock
        if environment is None or lock is None:
            raise ReadOnlyError(f"{self._directory}: the store was opened for reading only")
        with lock.held(), environment.transaction(write=True) as transaction:
            yield Tables(environment.handle, transaction)

    def update(self, change: Callable[[View], Sequence[Change]]) -> list[Change]:
        """Change definitions: ``change`` is shown them as they are, and returns what they become,
        which is stored as a whole, or not at all; nothing is done where it returns nothing or
        raises. Returns what it returned.

        ``change`` is called with locks in hand: it only decides. Raises ReadOnlyError,
        InvalidInputError for a key longer than 511 bytes, LockTimeoutError, and what appending
        raises (PoisonedError after a failed sync; then the outcome is known at the next opening).
        """
        log = self.log
        with self.transaction(write=True) as tables:
            catch_up(tables, log)
            changes = list(change(View(tables, self._directory, self._decoded)))
            if changes:
                records = [_record(key, fields) for key, fields in changes]
                appended = log.append(records, acks="all")
                _apply(tables, records, appended.last_offset + 1)
        return changes

    def deleting(self, prefix: str = TOPIC_PREFIX) -> dict[str, dict[str, Any]]:
        """The last definitions of topics, or of queues, that are being deleted."""
        with self.transaction() as tables:
            return View(tables, self._directory, self._decoded).deleting(prefix)

    def deleted(self, key: str) -> None:
        """Nothing is left of a topic, or a queue, that was being deleted."""
        with self.transaction(write=True) as tables:
            tables.delete(DELETING, key.encode())

    @property
    def log(self) -> PartitionLog:
        """The log ``__metadata``, open for writing: for maintenance and backups."""
        log = self._log
        if log is None:
            with self.transaction(write=True) as tables:
                log = self._log = self._log or self._open_log(tables)
        return log

    def _open_log(self, tables: Tables) -> PartitionLog:
        """Commit point: LMDB's, of ``applied``, when the log is there and empty. A crash before it
        leaves an empty log; none that has records is without it, unless ``meta`` was lost."""
        self._files.make_directory(self._log_directory)
        path = os.path.join(self._log_directory, filenames.PARTITION_METADATA)
        if not self._files.exists(path):
            write_topic_id(self._files, self._log_directory, METADATA_TOPIC.topic_id)
        log = PartitionLog(
            self._log_directory,
            files=self._files,
            clock=self._clock,
            config=LogConfig.from_overrides(METADATA_TOPIC.overrides),
        )
        try:
            self._check_kinship(applied_offset(tables), log.log_end_offset)
            if applied_offset(tables) is None:
                _apply(tables, [], 0)
        except BaseException:
            log.close()
            raise
        return log

    def _check_kinship(self, applied: int | None, end: int) -> None:
        """Whether ``meta`` was made from a log that ends at ``end``."""
        if applied is None and end:
            raise self._lost()
        if applied is not None and applied > end:
            raise FormatError(
                "the end of __metadata is lost; 'logstore repair' makes it from meta",
                path=self._log_directory,
                expected=f"{applied} records or more",
                found=end,
            )

    def _lost(self) -> FormatError:
        return FormatError(
            "the definitions are lost; 'logstore repair' makes them from __metadata",
            path=self._directory,
        )

    def _catch_up_on_opening(self) -> None:
        with self.transaction() as tables:
            applied = applied_offset(tables)
        if not self._files.is_directory(self._log_directory):
            self._check_kinship(applied, 0)
        elif self.log.log_end_offset != applied:
            self.update(lambda view: [])


def _close_log(log: PartitionLog) -> None:
    # Whatever a failed sync was to save, nobody was told that it is saved.
    with contextlib.suppress(PoisonedError):
        log.close()


def catch_up(tables: Tables, log: PartitionLog) -> None:
    """Put into ``meta`` what was appended to the log since."""
    offset = applied_offset(tables) or 0
    end = log.log_end_offset
    if offset >= end:
        return
    log.flush()  # whoever appended it may have been killed in front of the sync
    offset = max(offset, log.log_start_offset)
    while offset < end:
        fetch = log.read(offset)
        # Where there is no record any more, all others stand in front of it.
        offset = fetch.next_offset if fetch.data else end
        _apply(tables, fetch.records(), offset)


def _record(key: str, fields: Mapping[str, Any] | None) -> Record:
    data = key.encode()
    if not 0 < len(data) <= MAX_KEY_BYTES:
        raise InvalidInputError(f"{key!r} is no key: 1 to {MAX_KEY_BYTES} bytes")
    return Record(key=data, value=None if fields is None else encode(fields))


def _apply(tables: Tables, records: Iterable[Record], offset: int) -> None:
    for record in records:
        key = record.key
        if key is None:
            continue
        if key.startswith(_QUEUES):
            _note_deleted_queue(tables, key, record.value)
        if record.value is not None:
            if key.startswith(_TOPICS):
                _forget_deleted(tables, record.value)
            tables.put(DEFINITIONS, key, record.value)
            continue
        before = tables.get(DEFINITIONS, key)
        if before is not None:
            tables.delete(DEFINITIONS, key)
            if key.startswith(_TOPICS):
                tables.put(DELETING, key, before)
    set_applied(tables, offset)


def _note_deleted_queue(tables: Tables, key: bytes, value: bytes | None) -> None:
    """A queue's key goes by its name; its files, and so what is being deleted, by its id. One that
    takes the place of another, of that name, deletes it."""
    before = tables.get(DEFINITIONS, key)
    if before is None:
        return
    old, new = (decode("queue", v, "").get("id") if v else None for v in (before, value))
    if old != new:
        tables.put(DELETING, f"{QUEUE_PREFIX}{old}".encode(), before)


def _forget_deleted(tables: Tables, value: bytes) -> None:
    """A topic is created when an older one of its name is gone entirely: what is in the topic's
    directories, if a log is read that tells of both, is the younger one's."""
    deleting = list(tables.items(DELETING, _TOPICS))
    if deleting:
        name = decode("topic", value, "").get("name")
        for key, before in deleting:
            if decode("topic", before, "").get("name") == name:
                tables.delete(DELETING, key)


def set_applied(tables: Tables, offset: int) -> None:
    """Say up to which offset ``__metadata`` is in ``meta``."""
    tables.put(APPLIED, _OFFSET, b"%d" % offset)


def applied_offset(tables: Tables) -> int | None:
    """Up to which offset ``__metadata`` is in ``meta``; None in one that is new."""
    value = tables.get(APPLIED, _OFFSET)
    return None if value is None else int(value)
