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
from typing import NamedTuple

from logstore.appending import Acks
from logstore.clock import Clock
from logstore.errors import LogstoreError, UnknownQueueError
from logstore.log import PartitionLog
from logstore.queues.consumer_rows import (
    ConsumerRow,
    consumer_count,
    consumers_of,
    load_queue_row,
)
from logstore.queues.definitions import QueueDefinition
from logstore.queues.ledger import Ledger, Policy
from logstore.queues.ledger_check import check_ledger
from logstore.queues.ledger_rows import NEVER, Head, Lease, Rows
from logstore.queues.ledger_store import Changes, Ledgers, LogLedger
from logstore.queues.limits import DeadLetter, publish_limited
from logstore.queues.message import LOOKED_AT, Message
from logstore.queues.properties import Envelope, Published, to_records
from logstore.queues.reading import MessageReader, judge
from logstore.segments.files import File, Files

__all__ = ["DeadLetter", "Level", "QueueCounts", "Taken", "WorkQueue"]

DEFAULT_CONSUMER_TIMEOUT_MS = 30 * 60 * 1000
"""RabbitMQ's."""
_FRESH_BYTES = 64 << 10
"""The largest body that is kept for whoever may wait for it."""
SIGNAL = "signal"
"""A file in the directory of level 0, which is written to when there is something to take that no
append tells of."""


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


class Level:
    """A level of priority that has a log."""

    def __init__(self, number: int, log: PartitionLog, ledger: LogLedger) -> None:
        self.number = number
        self.log = log
        self.ledger = ledger
        self.reader = MessageReader(log)
        self.cursor = NEVER
        """Where the ledger's cursor was seen last: whatever is beyond it is ready."""


class Taken(NamedTuple):
    """A lease, and where it is from."""

    level: Level
    lease: Lease
    restart_end: int


class WorkQueue:
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
        self.definition = definition
        self.id = definition.queue_id.bytes
        self.ledgers = ledgers
        self.clock = clock
        self.files = files
        self.dead_letter = dead_letter
        self.on_work: Callable[[], object] = lambda: None
        """Called when there is something for the housekeeper."""
        self._open_log = open_log
        self._has_log = has_log
        self._read_only = read_only
        arguments = definition.arguments
        self._policy = Policy(arguments.delivery_limit, arguments.dead_letter_exchange is not None)
        self.counts_bytes = arguments.max_length_bytes is not None
        self.is_limited = self.counts_bytes or arguments.max_length is not None
        self.ttl_ms = arguments.message_ttl_ms
        self.consumer_timeout_ms = arguments.consumer_timeout_ms or DEFAULT_CONSUMER_TIMEOUT_MS
        self._mutex = threading.RLock()
        """Held to open levels."""
        self._by_number: dict[int, Level] = {}
        self._levels: tuple[Level, ...] = ()
        """Those that are open, the highest first; replaced as a whole."""
        self._looked = -1
        """The number of the last transaction when it was looked which levels there are."""
        self._seen = (-1, False, NEVER)
        """The number of the last transaction when the ledgers were looked at; whether anything had
        come back; when the first held message is due."""
        self._signal: File | None = None
        self._closed = False

    def __repr__(self) -> str:
        return f"WorkQueue({self.definition.name!r})"

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

    def tell_of_returned(self) -> None:
        """Wake others for messages that have come back; nobody, where the queue was deleted."""
        with contextlib.suppress(LogstoreError, FileNotFoundError):
            self.signal()

    def directories(self) -> tuple[str, ...]:
        """Where something happens when there is more to take."""
        if not self._read_only:
            self.level(0)
        return tuple(level.log.directory for level in self.levels())

    # Publishing -------------------------------------------------------------------------------

    def publish(self, envelopes: Sequence[Envelope], *, acks: Acks) -> Published:
        """Append messages, in one batch for each level of priority; says which were refused for
        want of room (``max_length``). Raises what appending raises."""
        if self.is_limited:
            return publish_limited(self, envelopes, acks)
        now = self.clock.now_ms()
        if self.definition.levels == 1:
            level = self._by_number.get(0) or self._open(0)
            records = to_records(envelopes, timestamp_ms=now)
            appended = level.log.append(records, acks=acks)
            if len(records) == 1 and len(envelopes[0].body) <= _FRESH_BYTES:
                level.reader.note_appended(appended.base_offset, records[0])
        else:
            for number, chosen in self.by_level(envelopes).items():
                level = self._by_number.get(number) or self._open(number)
                level.log.append(to_records(chosen, timestamp_ms=now), acks=acks)
        return Published()

    def by_level(self, envelopes: Sequence[Envelope]) -> dict[int, list[Envelope]]:
        """Messages by the levels that they go to."""
        highest = self.definition.levels - 1
        by_level: dict[int, list[Envelope]] = {}
        for envelope in envelopes:
            number = min(envelope.properties.priority or 0, highest)
            by_level.setdefault(number, []).append(envelope)
        return by_level

    # Taking -----------------------------------------------------------------------------------

    def has_ready(self) -> bool:
        """Whether there is anything to take, for all one knows at next to no cost."""
        for level in self._levels:
            if level.log.log_end_offset > level.cursor:
                return True
        number, returned, due = self._seen
        if number != self.ledgers.number():
            self.look()
            _, returned, due = self._seen
        if returned or due <= self.clock.now_ms():
            return True
        return any(level.log.log_end_offset > level.cursor for level in self._levels)

    @property
    def next_due(self) -> int:
        """When the first held message is due, as far as it was seen."""
        return self._seen[2]

    def look(self) -> None:
        """Look at the ledgers, and open levels that somebody else has made. Raises
        UnknownQueueError when the queue was deleted."""
        number = self.ledgers.number()
        levels = self.levels()

        def look(rows: Rows, _: Rows) -> list[Ledger]:
            return [level.ledger.load(rows) for level in levels]

        ledgers = self.ledgers.read(look)
        for level, ledger in zip(levels, ledgers, strict=True):
            level.cursor = ledger.head.cursor
        returned = any(ledger.head.returned for ledger in ledgers)
        due = min((ledger.head.next_due for ledger in ledgers), default=NEVER)
        self._seen = number, returned, due

    def take(
        self,
        changes: Changes,
        most: int,
        *,
        session: bytes,
        fair: bool = True,
        only: Level | None = None,
    ) -> list[Taken]:
        """Lease up to ``most`` messages, those of the highest level first. ``fair``: no more than a
        consumer's share of what is ready; ``only``: of this level alone."""
        levels = self._levels if only is None else (only,)
        now = self.clock.now_ms()
        deadline = self.clock.boottime_ms() + self.consumer_timeout_ms
        consumers = consumer_count(changes.rows, self.id) if fair else 1
        if consumers > 1:
            ready = 0
            for level in levels:
                head = changes.of(level.ledger).head
                level.cursor = head.cursor
                ready += head.ready(level.log.log_end_offset)
                ready += head.held if head.next_due <= now else 0
            most = min(most, -(-ready // consumers))
        taken = []
        for level in levels:
            if most <= 0:
                break
            ledger = changes.of(level.ledger)
            leases = ledger.take(
                min(most, level.reader.room()),
                log_end=level.log.log_end_offset,
                now_ms=now,
                session=session,
                deadline=deadline,
            )
            level.cursor = ledger.head.cursor
            for lease in leases:
                taken.append(Taken(level, lease, ledger.head.restart_end))
                most -= lease.length
        return taken

    def pass_over(self, changes: Changes, taken: Taken) -> None:
        """Move on, where the log has nothing in a lease, to what it does have."""
        level, lease, _ = taken
        following = level.reader.next_offset(lease.first + lease.length)
        changes.of(level.ledger).skip(min(following, level.log.log_end_offset))

    # Looking ----------------------------------------------------------------------------------

    def counts(self) -> QueueCounts:
        """What is in the queue."""
        now = self.clock.now_ms()
        ready = unacked = delayed = dead = 0
        for level in self.levels():
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
        if self.definition.auto_delete:
            return True
        boottime = self.clock.boottime_ms()

        def look(rows: Rows, _: Rows) -> bool:
            for number in load_queue_row(rows, self.id).levels:
                data = rows.get(self.id + bytes([number]))
                head = Head() if data is None else Head.unpack(data)
                if head.dead or head.earliest_deadline <= boottime:
                    return True
            return False

        return self.ledgers.read(look)

    def is_empty(self) -> bool:
        """Whether there is no message in it, ready, delivered or otherwise."""
        found = self.counts()
        return not (found.ready or found.unacked or found.delayed or found.dead)

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
                messages = level.reader.read(span.first, span.length, LOOKED_AT)
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
            return sum(changes.of(level.ledger).purge(level.log.log_end_offset) for level in levels)

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
                there = len(MessageReader(level.log).read(span.first, span.length, LOOKED_AT))
                if there < span.length and span.first >= start:
                    found.append(
                        f"of the messages {span.first} to {span.end - 1} the log has only {there}"
                    )
            faults += [f"level {level.number}: {fault}" for fault in found]
        return faults

    # Life -------------------------------------------------------------------------------------

    def checkpoint(self, *, tolerant: bool = True) -> None:
        """Put what the ledgers have come to on stable storage."""
        self.ledgers.checkpoint([level.ledger for level in self._levels], tolerant=tolerant)

    def close(self) -> None:
        """Let go of the logs, which their opener closes."""
        with self._mutex:
            self._closed = True
            signal, self._signal = self._signal, None
            if signal is not None:
                signal.close()
            self._levels = ()
            self._by_number.clear()
