"""A work queue: its logs, one for each level of priority, and their ledgers.

Publishing appends to the logs, and touches no ledger; taking leases messages from the highest level
that has any. Who takes for whom, and settles, is ``logstore.queues.channel``'s business; what has
to be done from time to time is ``logstore.queues.queue_upkeep``'s.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from operator import itemgetter
from typing import NamedTuple, TypeVar, cast

from logstore.appending import Acks
from logstore.clock import Clock
from logstore.errors import UnknownQueueError
from logstore.log import PartitionLog
from logstore.queues.consumer_rows import (
    ConsumerRow,
    consumers_of,
    load_queue_row,
)
from logstore.queues.definitions import QueueDefinition
from logstore.queues.ledger import Ledger, Policy
from logstore.queues.ledger_check import check_ledger
from logstore.queues.ledger_rows import NEVER, Head, Rows
from logstore.queues.ledger_store import Changes, Ledgers, LogLedger
from logstore.queues.limits import DeadLetter, publish_limited
from logstore.queues.message import LOOKED_AT, LookedAt, Message
from logstore.queues.parts import append_records
from logstore.queues.properties import Envelope, Properties, Published, to_records
from logstore.queues.reading import MessageReader, Verdicts, judge
from logstore.queues.retention import keeps_settled
from logstore.queues.source import LedgeredLog, Source, Taken
from logstore.segments.files import File, Files
from logstore.segments.record import Header, Record

__all__ = ["DeadLetter", "Level", "QueueCounts", "WorkQueue"]

_T = TypeVar("_T")

DEFAULT_CONSUMER_TIMEOUT_MS = 30 * 60 * 1000
"""RabbitMQ's."""
_FRESH_BYTES = 64 << 10
"""The largest body that is kept for whoever may wait for it."""
_CHECKED_AT_ONCE = 10_000
"""Of so many messages at a time it is looked whether the log has them."""
SIGNAL = "signal"
"""A file in the directory of level 0, which is written to when there is something to take that no
append tells of."""
KEEPING = "retention"
"""A file in the directory of level 0 that whoever deletes settled segments, or makes something of
them ready again, holds a lock on."""

_properties_of: Callable[[Envelope], Properties] = itemgetter(1)
_headers_of: Callable[[Message], Sequence[Header]] = itemgetter(5)


class QueueCounts(NamedTuple):
    """What is in a queue."""

    ready: int
    """Messages that wait to be taken."""
    unacked: int
    """Messages that were delivered, and are not settled."""
    consumers: int
    delayed: int
    """Messages that wait until they are due, as far as somebody has met them already: behind others
    they still count as ready."""
    dead: int
    """Messages that are about to be dead-lettered."""


class _MoreLevelsError(Exception):
    """Somebody has made a level since it was looked which there are."""


class Level(LedgeredLog):
    """A level of priority that has a log."""

    reader: MessageReader

    def __init__(self, number: int, log: PartitionLog, ledger: LogLedger) -> None:
        super().__init__(log, ledger, MessageReader(log))
        self.number = number


class WorkQueue(Source[Level, Message]):
    """One queue, for all who use it in a store handle. Usable from many threads."""

    def __init__(
        self,
        definition: QueueDefinition,
        *,
        open_log: Callable[[int], PartitionLog],
        has_log: Callable[[int], bool],
        ledgers: Ledgers,
        files: Files,
        clock: Clock,
        read_only: bool = False,
        dead_letter: Callable[[Sequence[DeadLetter]], None] = lambda _: None,
    ) -> None:
        """``open_log`` opens the log of a level, made if it is not there, and ``has_log`` says
        whether it is. ``dead_letter`` publishes dead letters where they go, and returns when they
        are on stable storage there; it drops what has nowhere to go."""
        arguments = definition.arguments
        super().__init__(
            f"queue {definition.name!r}",
            definition.queue_id.bytes,
            ledgers=ledgers,
            files=files,
            clock=clock,
            lease_ms=arguments.consumer_timeout_ms or DEFAULT_CONSUMER_TIMEOUT_MS,
        )
        self.definition = definition
        self.dead_letter = dead_letter
        self._open_log = open_log
        self._has_log = has_log
        self._read_only = read_only
        self._policy = Policy(arguments.delivery_limit, arguments.dead_letter_exchange is not None)
        self.counts_bytes = arguments.max_length_bytes is not None
        self.is_limited = self.counts_bytes or arguments.max_length is not None
        self.ttl_ms = arguments.message_ttl_ms
        self.is_plain = not self.is_limited and self.ttl_ms is None and definition.levels == 1
        """Whether publishing is an append and nothing else, to level 0."""
        self._mutex = threading.RLock()
        """Held to open levels; never taken inside of a transaction."""
        self._by_number: dict[int, Level] = {}
        self._looked = -1
        """The number of the last transaction when it was looked which levels there are."""
        self._signal: File | None = None
        self._may_expire = False
        """Whether its row says that messages have had times to live of their own."""

    # Levels -----------------------------------------------------------------------------------

    def levels(self) -> tuple[Level, ...]:
        """The levels that have a log, whoever has made them; the highest first."""
        number = self.ledgers.number()
        if number != self._looked or number < 0:
            self._find_levels()
            self._looked = number
        return self._levels

    def _find_levels(self) -> None:
        with self._mutex:
            found = set(self.ledgers.read(lambda rows, _: load_queue_row(rows, self.id)).levels)
            if self._looked < 0:  # what was there before the ledgers were, or could be read
                found |= {n for n in range(self.definition.levels) if self._has_log(n)}
            for number in found - self._by_number.keys():
                self._open(number)

    def change(self, action: Callable[[Changes, tuple[Level, ...]], _T]) -> _T:
        """``action`` in a transaction, with all levels that have a log by then.

        They are opened ahead of it: opening takes transactions of its own, with the mutex in hand.
        Whoever asks for levels inside of a transaction takes the two in the other order.
        """
        while True:
            levels = self.levels()
            known = {level.number for level in levels}

            def act(changes: Changes) -> _T:
                if not known.issuperset(load_queue_row(changes.rows, self.id).levels):  # noqa: B023 - called at once
                    raise _MoreLevelsError
                return action(changes, levels)  # noqa: B023 - called at once

            with contextlib.suppress(_MoreLevelsError):
                return self.ledgers.change(act)

    def level(self, number: int) -> Level:
        """A level; its log is made if it is not there."""
        return self._by_number.get(number) or self._open(number)

    def _open(self, number: int) -> Level:
        with self._mutex:
            level = self._by_number.get(number)
            if level is not None:
                return level
            if self._closed:
                raise UnknownQueueError(f"queue {self.definition.name!r} was closed or deleted")
            level = self._made(number, self._open_log(number))
            self._by_number[number] = level
            self._levels = tuple(
                self._by_number[one] for one in sorted(self._by_number, reverse=True)
            )
            return level

    def _made(self, number: int, log: PartitionLog) -> Level:
        reader = MessageReader(log)
        ledger = LogLedger(
            self.ledgers,
            self.id + bytes([number]),
            log,
            policy=self._policy,
            sizes=reader.size if self.counts_bytes else None,
            durable=self.definition.durable,
        )
        if not self._read_only:
            ledger.prepare()
            self._note_level(number)
        return Level(number, log, ledger)

    def _note_level(self, number: int) -> None:
        """Tell all handles that the level has a log, from its first message on."""
        if number in self.ledgers.read(lambda rows, _: load_queue_row(rows, self.id)).levels:
            return

        def note(changes: Changes) -> None:
            row = load_queue_row(changes.rows, self.id)
            levels = bytes(sorted({*row.levels, number}))
            changes.rows.put(self.id, row._replace(levels=levels).pack())

        self.ledgers.change(note)
        if number:
            self.signal()

    def signal(self) -> None:
        """Wake those who wait for messages, in all processes."""
        with self._mutex:
            if self._signal is None:
                directory = self.level(0).log.directory
                path = os.path.join(directory, SIGNAL)
                self._signal = self.files.open(path, write=True, create=True)
            self._signal.write_at(b"!", 0)

    def directories(self) -> tuple[str, ...]:
        """Where something happens when there is more to take."""
        if not self._read_only:
            self.level(0)
        return tuple(level.log.directory for level in self.levels())

    # Publishing -------------------------------------------------------------------------------

    def publish(self, envelopes: Sequence[Envelope], *, acks: Acks) -> Published:
        """Append messages, in one batch for each level of priority; says which were refused for
        want of room (``max_length``). Raises what appending raises."""
        lifetime = self._lifetime(envelopes)
        if self.is_limited:
            published = publish_limited(self, envelopes, acks)
        else:
            published = self._publish(envelopes, acks)
        if lifetime < NEVER:
            due = self.clock.now_ms() + lifetime + 1
            if due < self.due_ms:
                self.due_ms = due
                self.on_due(due)
        return published

    def _lifetime(self, envelopes: Sequence[Envelope]) -> int:
        """The shortest time to live of messages; NEVER where they have none. That any has one of
        its own is noted, once, for whoever looks after queues that nobody has opened."""
        least = NEVER
        before: Properties | None = None
        for properties in map(_properties_of, envelopes):
            if properties is not before:
                before = properties
                if properties.expiration is not None:
                    least = min(least, properties.expiration)
        if least < NEVER and not self._may_expire:
            self._note_expiring()
        return least if self.ttl_ms is None else min(least, self.ttl_ms)

    def _note_expiring(self) -> None:
        if not self.ledgers.read(lambda rows, _: load_queue_row(rows, self.id)).may_expire:

            def note(changes: Changes) -> None:
                row = load_queue_row(changes.rows, self.id)
                changes.rows.put(self.id, row._replace(may_expire=True).pack())

            self.ledgers.change(note)
        self._may_expire = True

    def _publish(self, envelopes: Sequence[Envelope], acks: Acks) -> Published:
        now = self.clock.now_ms()
        if self.definition.levels == 1:
            level = self._by_number.get(0) or self._open(0)
            records = to_records(envelopes, timestamp_ms=now)
            append_records(level.log, records, acks=acks)
        else:
            for number, chosen in self.by_level(envelopes).items():
                level = self._by_number.get(number) or self._open(number)
                append_records(level.log, to_records(chosen, timestamp_ms=now), acks=acks)
        return Published()

    def append_one(self, record: Record, *, acks: Acks) -> None:
        """Append a message to a queue that is plain: as ``publish`` does it, with less ado. The
        record gets the time of the append."""
        if acks == "all" and not self.definition.durable:
            acks = 1
        level = self._by_number.get(0) or self._open(0)
        appended = level.log.append([record], acks=acks)
        _, _, key, body, headers = record
        if type(body) is bytes and len(body) <= _FRESH_BYTES:
            level.reader.fresh = appended[0], appended[2], key, body, headers

    def by_level(self, envelopes: Sequence[Envelope]) -> dict[int, list[Envelope]]:
        """Messages by the levels that they go to."""
        highest = self.definition.levels - 1
        by_level: dict[int, list[Envelope]] = {}
        for envelope in envelopes:
            number = min(envelope.properties.priority or 0, highest)
            by_level.setdefault(number, []).append(envelope)
        return by_level

    # Taking -----------------------------------------------------------------------------------

    def check_there(self, changes: Changes) -> None:
        """Raise UnknownQueueError when the queue was deleted."""
        for level in self._levels:
            changes.of(level.ledger)

    def read(self, taken: Taken, handle: object) -> tuple[list[Message], Verdicts | None]:
        """The messages of a lease, and those of them that have expired, or are not due."""
        level, lease, _ = taken
        found = cast(Level, level).reader.read(lease.first, lease.length, handle)
        if self.ttl_ms is None and not any(map(_headers_of, found)):
            return found, None  # nothing was said of them
        now = self.clock.now_ms()
        return found, judge(found, restart_end=taken.restart_end, ttl_ms=self.ttl_ms, now_ms=now)

    def deleted_error(self) -> UnknownQueueError:
        """The error of a queue that was deleted."""
        return UnknownQueueError(f"queue {self.definition.name!r} was deleted")

    # Looking ----------------------------------------------------------------------------------

    def counts(self) -> QueueCounts:
        """What is in the queue."""
        return self.counts_in(self.levels())

    def counts_in(self, levels: Sequence[Level]) -> QueueCounts:
        """What is in the queue, if these are all its levels; also inside of a transaction."""
        now = self.clock.now_ms()
        ready = unacked = delayed = dead = 0
        for level in levels:
            end = level.log.log_end_offset
            head, due = level.ledger.looked_at(lambda one: (one.head, one.due_count(now)))
            ready += head.ready(end) + due
            unacked += head.unacked
            delayed += head.held - due
            dead += head.dead
        row = self.ledgers.read(lambda rows, _: load_queue_row(rows, self.id))
        return QueueCounts(ready, unacked, row.consumers, delayed, dead)

    def needs_care(self) -> bool:
        """Whether there is anything to do for it that no consumer does; opens no logs."""
        arguments = self.definition.arguments
        if arguments.message_ttl_ms is not None or arguments.expires_ms is not None:
            return True
        if self.definition.auto_delete or keeps_settled(arguments):
            return True
        boottime = self.clock.boottime_ms()

        def look(rows: Rows, _: Rows) -> bool:
            row = load_queue_row(rows, self.id)
            if row.may_expire:
                return True
            for number in row.levels:
                data = rows.get(self.id + bytes([number]))
                head = Head() if data is None else Head.unpack(data)
                if head.dead or head.earliest_deadline <= boottime:
                    return True
            return False

        return self.ledgers.read(look)

    def consumers(self) -> list[ConsumerRow]:
        """Who consumes, in all processes."""
        found = self.ledgers.read(lambda _, consumers: list(consumers_of(consumers, self.id)))
        return [row for row in found if row.number]

    def peek(self, count: int) -> list[Message]:
        """The first messages that are ready, which stay where they are."""
        now = self.clock.now_ms()
        messages: list[Message] = []
        for level in self.levels():
            messages += self._ready(level, count - len(messages), now)
        return messages

    def _ready(self, level: Level, count: int, now: int) -> Iterator[Message]:
        """Those of a level; what has expired, or is not due yet, is left out."""
        most = count
        while count > 0:
            end = level.log.log_end_offset
            wanted = most
            spans, restart_end = level.ledger.looked_at(
                lambda one: (
                    one.waiting(wanted, log_end=end, now_ms=now),  # noqa: B023 - called at once
                    one.head.restart_end,
                )
            )
            found = []
            for span in spans:
                looked_at = LookedAt(span.delivery_count)
                messages = level.reader.read(span.first, span.length, looked_at)
                verdicts = judge(messages, restart_end=restart_end, ttl_ms=self.ttl_ms, now_ms=now)
                left_out = set() if verdicts is None else {*verdicts[0], *verdicts[1], *verdicts[2]}
                found += [one for one in messages if one.offset not in left_out]
            if len(found) >= count or sum(span.length for span in spans) < most:
                yield from found[:count]
                return
            most *= 2

    def purge(self) -> int:
        """Drop all messages that wait, delayed ones included; returns how many it were."""
        levels = self.levels()

        def purge(changes: Changes) -> int:
            ends = [(level.ledger, level.log.log_end_offset) for level in levels]
            return sum(changes.of(one).skip_waiting(end, log_end=end) for one, end in ends)

        return self.ledgers.change(purge)

    def check(self) -> list[str]:
        """What is wrong with the ledgers, beside the logs; a sentence each."""
        faults = []
        for level in self.levels():
            start = level.log.log_start_offset

            def look(ledger: Ledger) -> list[str]:
                # The end is looked up in the transaction: what was delivered by then is in it.
                return check_ledger(ledger, log_start=start, log_end=level.log.log_end_offset)  # noqa: B023

            found = level.ledger.looked_at(look)
            for span in level.ledger.looked_at(lambda one: one.outstanding()):
                # By a reader of its own, that has not kept what may be gone.
                reader = MessageReader(level.log)
                there = sum(
                    len(reader.read(first, min(_CHECKED_AT_ONCE, span.end - first), LOOKED_AT))
                    for first in range(span.first, span.end, _CHECKED_AT_ONCE)
                )
                if there < span.length and span.first >= start:
                    found.append(
                        f"of the messages {span.first} to {span.end - 1} the log has only {there}"
                    )
            faults += [f"level {level.number}: {fault}" for fault in found]
        return faults

    # Life -------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def keeping(self) -> Iterator[None]:
        """Inside, nobody else deletes settled segments. Raises BlockingIOError where somebody is
        at it."""
        lock = self.files.lock(os.path.join(self.level(0).log.directory, KEEPING))
        try:
            lock.acquire()
            yield
        finally:
            lock.close()

    def close(self) -> None:
        """Let go of the logs, which their opener closes."""
        with self._mutex:
            self._closed = True
            signal, self._signal = self._signal, None
            if signal is not None:
                signal.close()
            self._levels = ()
            self._by_number.clear()
