"""Ledgers on disk: in ``live`` at once, in ``meta`` from time to time.

A command to a ledger is a transaction in ``live``, which survives the end of the process. A
*checkpoint* puts what a ledger has come to into ``meta``, where it survives a power cut. **It never
leads the log**: before ``meta`` names a cursor, the log is synced up to it. Order of a checkpoint:
the ledger is read; the log synced; ``meta`` written, which is its commit point. A crash before it
leaves the checkpoint of before.

Two processes may take checkpoints at once: the number of the transaction in ``live`` that changed
the ledger says which is the later one, and ``meta`` keeps that.

When ``live`` is lost, each ledger is made of its checkpoint by whoever opens its log first, which
everybody does before he appends to it or takes from it.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Callable, Iterable
from typing import NamedTuple, TypeVar

from logstore.errors import FormatError, LogstoreError, UnknownQueueError, UnknownTopicError
from logstore.live import Live, Restored
from logstore.log import PartitionLog
from logstore.metadata import Metadata
from logstore.queues.consumer_rows import consumer_count
from logstore.queues.ledger import Ledger, Policy, Sizes
from logstore.queues.ledger_rows import Head, Rows, Span
from logstore.queues.memory_rows import MemoryRows
from logstore.tables import Tables

__all__ = ["QUEUES", "Changes", "Checkpoint", "LedgerTables", "Ledgers", "LogLedger"]

_log = logging.getLogger("logstore")
_T = TypeVar("_T")


class LedgerTables(NamedTuple):
    """Where ledgers of one kind stand."""

    ledgers: str
    """In ``live``: rows of ledgers, and of queues."""
    consumers: str
    """In ``live``: who consumes from which queue."""
    checkpoints: str
    """In ``meta``: by a ledger's key, what it had come to."""


QUEUES = LedgerTables("queue-ledgers", "queue-consumers", "queue-checkpoints")

_CHECKPOINT = struct.Struct(">QQQ")
_SPAN = struct.Struct(">QQIB")


class Checkpoint(NamedTuple):
    """What a ledger had come to."""

    number: int
    """Of the transaction in ``live`` that had changed it last; 0: of another live environment."""
    cursor: int
    next_lease: int
    spans: list[Span]
    """What was outstanding below the cursor."""

    def pack(self) -> bytes:
        """The row's value."""
        spans = [_SPAN.pack(*span) for span in self.spans]
        return _CHECKPOINT.pack(self.number, self.cursor, self.next_lease) + b"".join(spans)

    @classmethod
    def unpack(cls, data: bytes) -> Checkpoint:
        """The opposite; raises FormatError."""
        size = _CHECKPOINT.size
        try:
            number, cursor, next_lease = _CHECKPOINT.unpack(data[:size])
            spans = [Span(*fields) for fields in _SPAN.iter_unpack(data[size:])]
        except struct.error as error:
            raise FormatError("a ledger's checkpoint is broken", found=error) from error
        return cls(number, cursor, next_lease, spans)

    def cut(self, end: int) -> Checkpoint:
        """The same without what lies at ``end`` or beyond."""
        cursor = min(self.cursor, end)
        kept = [span for span in self.spans if span.first < cursor]
        spans = [span._replace(length=min(span.length, cursor - span.first)) for span in kept]
        return self._replace(cursor=cursor, spans=spans)


class Ledgers:
    """The ledgers of a store, of one kind. Usable from many threads."""

    def __init__(
        self,
        live: Live,
        metadata: Metadata,
        *,
        tables: LedgerTables = QUEUES,
        cut: Callable[[bytes, Checkpoint], Checkpoint] | None = None,
    ) -> None:
        """``cut`` cuts the checkpoint of a ledger back to its log's end when ``live`` was lost: for
        logs that are appended to by those who know nothing of ledgers."""
        self._live = live
        self._metadata = metadata
        self._tables = tables
        self._cut = cut
        self._kept: Changes | None = None
        """What the last transaction knew in the end; taken by the next one, which holds the lock
        that all writers share."""
        live.restorers.append(self._restore)

    def _restore(self) -> tuple[Restored, Restored]:
        """No ledgers are made of the checkpoints yet: that takes opening their logs. But the
        numbers of the new environment begin at 1."""
        with self._metadata.transaction() as meta:
            rows = list(meta.items(self._tables.checkpoints))
        kept = {}
        for key, data in rows:
            saved = Checkpoint.unpack(data)
            if self._cut is not None:
                saved = self._cut(key, saved)
            kept[key] = saved._replace(number=0).pack()
        return {}, {self._tables.checkpoints: kept}

    def number(self) -> int:
        """The number of the last transaction in ``live``, whatever it was about."""
        return self._live.number()

    def exist(self) -> bool:
        """Whether there is a live environment that can be read."""
        return self._live.exists() and self._live.usable()

    def read(self, action: Callable[[Rows, Rows], _T]) -> _T:
        """What ``action`` makes of the rows of all ledgers and queues, and of those of consumers,
        as they are at one moment."""
        names = self._tables
        return self._live.read(
            lambda tables: action(tables.table(names.ledgers), tables.table(names.consumers))
        )

    def change(self, action: Callable[[Changes], _T], *, keep: bool = False) -> _T:
        """Let ``action`` give commands to ledgers, in a transaction that is committed unless it
        raises.

        ``keep``: what is loaded is kept for the next transaction, which uses it if nobody has
        committed anything between the two, in any process. Only for an action that changes heads
        by commands alone, and no row that does not belong to a ledger.
        """
        changes: Changes

        def act(tables: Tables) -> _T:
            nonlocal changes
            kept, self._kept = self._kept, None
            changes = Changes(tables, self._tables, kept)
            result = action(changes)
            changes.save()
            return result

        result = self._live.write(act, main=self._tables.ledgers)
        if keep and changes.saved:
            self._kept = changes
        return result

    # Checkpoints ------------------------------------------------------------------------------

    def saved(self, key: bytes) -> Checkpoint | None:
        """A ledger's checkpoint, if it has one."""
        with self._metadata.transaction() as meta:
            data = meta.get(self._tables.checkpoints, key)
        return None if data is None else Checkpoint.unpack(data)

    def save_cut(self, key: bytes, log: PartitionLog) -> None:
        """Cut a checkpoint back to its log's end, on stable storage."""
        with self._metadata.transaction(write=True) as meta:
            data = meta.get(self._tables.checkpoints, key)
            if data is not None:
                # The end is looked up here: no checkpoint that anybody has made meanwhile is
                # beyond it.
                cut = Checkpoint.unpack(data).cut(log.log_end_offset)
                meta.put(self._tables.checkpoints, key, cut.pack())

    def checkpoint(self, ledgers: Iterable[LogLedger], *, tolerant: bool = True) -> None:
        """Take a checkpoint of those ledgers that have changed since their last one. With
        ``tolerant`` a log that cannot be synced keeps the one that it has; otherwise its error is
        raised."""
        changed = [one for one in ledgers if one.is_changed()]
        if not changed:
            return
        found = self.read(lambda rows, _: [(one, one.snapshot(rows)) for one in changed])
        safe = []
        for ledger, checkpoint in found:
            try:
                if checkpoint is not None:
                    safe.append((ledger, checkpoint.cut(ledger.sync(checkpoint.cursor))))
            except (LogstoreError, OSError) as error:
                if not tolerant:
                    raise
                _log.warning("no checkpoint of a ledger: %s", error)
        if not safe:
            return
        with self._metadata.transaction(write=True) as meta:
            for ledger, checkpoint in safe:
                data = meta.get(self._tables.checkpoints, ledger.key)
                if data is None or Checkpoint.unpack(data).number <= checkpoint.number:
                    meta.put(self._tables.checkpoints, ledger.key, checkpoint.pack())
        for ledger, checkpoint in safe:
            ledger.saved_number = checkpoint.number

    def saved_keys(self, prefix: bytes) -> list[bytes]:
        """The keys of ledgers that have a checkpoint."""
        with self._metadata.transaction() as meta:
            return [key for key, _ in meta.items(self._tables.checkpoints, prefix)]

    def forget(self, prefix: bytes) -> None:
        """Remove all that is known of a queue that was deleted; or of what else has such keys."""
        if self._live.exists():

            def forget(changes: Changes) -> None:
                for table in (changes.rows, changes.consumers):
                    for key, _ in list(table.items(prefix)):
                        table.delete(key)

            self.change(forget)
        with self._metadata.transaction(write=True) as meta:
            for key, _ in list(meta.items(self._tables.checkpoints, prefix)):
                meta.delete(self._tables.checkpoints, key)


class Changes:
    """A write transaction, and the ledgers that were loaded in it."""

    __slots__ = ("_before", "_consumers", "_loaded", "_names", "_tables", "number", "rows", "saved")

    def __init__(self, tables: Tables, names: LedgerTables, kept: Changes | None = None) -> None:
        """``kept`` is one that was committed before, perhaps not as the last one."""
        self._tables = tables
        self._names = names
        self.number = tables.number
        """The transaction's number."""
        self.rows: Rows = tables.main or tables.table(names.ledgers, write=True)
        """Of all ledgers and queues."""
        self._loaded: dict[LogLedger, tuple[Ledger, bytes]] = {}
        """Ledgers, and the rows in which their heads are stored."""
        self.saved = False
        """Whether anything was written. If not, the number goes to the next transaction, too."""
        self._before: dict[LogLedger, tuple[Ledger, bytes]]
        """What was loaded by the transaction before this one, and is as it left it."""
        self._consumers: dict[bytes, int]
        """How many consumers queues have, by their ids."""
        if kept is not None and kept.number + 1 == self.number:
            self._before, self._consumers = kept._loaded, kept._consumers
        else:
            self._before, self._consumers = {}, {}

    @property
    def consumers(self) -> Rows:
        """The rows of consumers."""
        return self._tables.table(self._names.consumers, write=True)

    def of(self, ledger: LogLedger) -> Ledger:
        """A ledger, to be given commands; it is saved in the end if it has changed."""
        found = self._loaded.get(ledger)
        if found is None:
            before = self._before.get(ledger)
            if before is None:
                head, stored = ledger.load_head(self.rows)
            else:
                head, stored = before[0].head, before[1]
            found = self._loaded[ledger] = ledger.with_head(self.rows, head), stored
        return found[0]

    def find(self, ledger: LogLedger) -> Ledger | None:
        """The same; None where it was deleted, and the queue, or the topic, with its messages."""
        try:
            return self.of(ledger)
        except (UnknownQueueError, UnknownTopicError):
            return None

    def consumer_count(self, queue_id: bytes) -> int:
        """How many consumers a queue has."""
        count = self._consumers.get(queue_id)
        if count is None:
            count = consumer_count(self.rows, queue_id)
            self._consumers[queue_id] = count
        return count

    def save(self) -> None:
        """Store the heads of ledgers that have changed."""
        for ledger, (loaded, stored) in self._loaded.items():
            row = loaded.save(self.number, stored)
            if row is not stored:
                self._loaded[ledger] = loaded, row
                self.saved = True


class LogLedger:
    """The ledger of one log. Usable from many threads."""

    def __init__(
        self,
        ledgers: Ledgers,
        key: bytes,
        log: PartitionLog,
        *,
        policy: Policy,
        sizes: Sizes | None,
        durable: bool,
        gone: Callable[[], LogstoreError] | None = None,
    ) -> None:
        """``sizes`` where ready bytes are counted; without ``durable`` there are no checkpoints.
        ``gone`` makes the error of a ledger that is not there any more."""
        self._ledgers = ledgers
        self.key = key
        self.log = log
        self.policy = policy
        self._sizes = sizes
        self._durable = durable
        self._gone = gone
        self.saved_number = -1
        """The transaction in ``live`` that the last checkpoint, as far as known, is of."""

    def load(self, rows: Rows) -> Ledger:
        """The ledger, in a transaction. Raises UnknownQueueError when it is gone, and the queue
        with it."""
        return self.with_head(rows, self.load_head(rows)[0])

    def load_head(self, rows: Rows) -> tuple[Head, bytes]:
        """The ledger's head, and the row that it is stored in; raises what ``load`` raises."""
        data = rows.get(self.key)
        if data is None:
            if self._gone is not None:
                raise self._gone()
            raise UnknownQueueError(f"{self.log.directory}: the queue was deleted")
        return Head.unpack(data), data

    def with_head(self, rows: Rows, head: Head) -> Ledger:
        """The ledger with a head that was loaded."""
        return Ledger(rows, self.key, head, self.policy, self._sizes)

    def prepare(self) -> None:
        """Make the ledger, of its checkpoint if it has one, unless it is there: to be called before
        anybody appends to the log or takes from it.

        Commit point: that of the transaction in ``live``. A checkpoint that is beyond the log's end
        is cut back before it, on stable storage: otherwise, after another power cut, what is
        appended from now on would count as settled. The same goes for a ledger that is there, and
        whose log was cut, or lost, under it.
        """
        data = self._ledgers.read(lambda rows, _: rows.get(self.key))
        end = self.log.log_end_offset  # behind the ledger: it only grows
        if data is not None:
            cursor = Head.unpack(data).cursor
            if cursor > end:
                self._tell_of_cut("ledger", cursor, end)
                self._ledgers.save_cut(self.key, self.log)
                self._ledgers.change(self._cut_back)
            return
        saved = self._ledgers.saved(self.key)
        if saved is not None and saved.number == 0 and saved.cut(end) != saved:
            self._tell_of_cut("ledger's checkpoint", saved.cursor, end)
            self._ledgers.save_cut(self.key, self.log)

        self._ledgers.change(lambda changes: self.make(changes, saved))

    def _tell_of_cut(self, what: str, cursor: int, end: int) -> None:
        _log.warning(
            "%s: a %s at %d was cut back to the log's end, %d",
            self.log.directory,
            what,
            cursor,
            end,
        )

    def _cut_back(self, changes: Changes) -> None:
        """Begin anew with what the log still has, if the ledger is beyond its end. Leases end:
        nobody can know what is at their offsets by and by."""
        ledger = self.load(changes.rows)
        before, end = ledger.head, self.log.log_end_offset
        if before.cursor <= end:
            return
        saved = Checkpoint(0, before.cursor, before.next_lease, ledger.outstanding())
        for key, _ in list(changes.rows.items(self.key)):
            changes.rows.delete(key)
        ledger = self._restored(changes.rows, saved)
        ledger.head.restart_end = min(before.restart_end, end)
        ledger.save(changes.number)

    def make(self, changes: Changes, saved: Checkpoint | None) -> None:
        """Make the ledger, in a transaction, of what was saved of it, unless it is there."""
        if changes.rows.get(self.key) is None:
            self._restored(changes.rows, saved).save(changes.number)

    def _restored(self, rows: Rows, saved: Checkpoint | None) -> Ledger:
        start, end = self.log.log_start_offset, self.log.log_end_offset
        saved = saved or Checkpoint(0, start, 1, [])
        ledger = Ledger(rows, self.key, Head(next_lease=saved.next_lease), self.policy, self._sizes)
        ledger.restore(saved.cursor, saved.spans, start, end)
        return ledger

    def looked_at(self, action: Callable[[Ledger], _T]) -> _T:
        """What ``action`` makes of the ledger as it is; where there is none yet, and none may be
        made, of what it would begin with."""

        def look(rows: Rows, _: Rows) -> _T:
            if rows.get(self.key) is not None:
                return action(self.load(rows))
            return action(self.restored(MemoryRows()))

        return self._ledgers.read(look)

    def restored(self, rows: MemoryRows) -> Ledger:
        """What it would begin with, in rows that go no further."""
        return self._restored(rows, self._ledgers.saved(self.key))

    def forget_dead(self, span: Span) -> None:
        """The messages of a dead span are dead-lettered."""
        self._ledgers.change(lambda changes: changes.of(self).forget_dead(span))

    # Checkpoints ------------------------------------------------------------------------------

    def is_changed(self) -> bool:
        """Whether there is something that the last checkpoint has not got, for all one knows."""
        if not self._durable:
            return False
        if self.saved_number < 0:
            saved = self._ledgers.saved(self.key)
            self.saved_number = 0 if saved is None else saved.number
        data = self._ledgers.read(lambda rows, _: rows.get(self.key))
        return data is not None and Head.unpack(data).number != self.saved_number

    def snapshot(self, rows: Rows) -> Checkpoint | None:
        """What a checkpoint would say; None where the ledger is gone."""
        if rows.get(self.key) is None:
            return None
        ledger = self.load(rows)
        head = ledger.head
        return Checkpoint(head.number, head.cursor, head.next_lease, ledger.outstanding())

    def sync(self, offset: int) -> int:
        """Sync the log if it is not up to ``offset``, and return up to where it is now."""
        if self.log.synced_offset < offset:
            self.log.flush()
        return self.log.synced_offset
