"""What has to be done for a queue from time to time, by whoever has it open.

Nothing here is needed for what consumers are delivered: they look for themselves at what has
expired or is due. It brings messages on their way that nobody would come by, and takes away what is
settled.
"""

from __future__ import annotations

import contextlib
import logging
import os
from functools import partial

from logstore.errors import FormatError, LogstoreError, UnknownQueueError
from logstore.queues.attendance import end_overdue
from logstore.queues.consumer_rows import load_queue_row
from logstore.queues.dead_spans import DEAD_LETTERS, move_dead
from logstore.queues.ledger import Ledger
from logstore.queues.ledger_rows import NEVER, SESSION_BYTES, Reason, Rows, Span
from logstore.queues.ledger_store import Changes
from logstore.queues.limits import DeadLetter, drop_beyond
from logstore.queues.message import LOOKED_AT, Message
from logstore.queues.queue import Level, WorkQueue
from logstore.queues.reading import Verdicts, expiry, judge
from logstore.queues.retention import due_segments, keeps_settled, settled_segments
from logstore.queues.sorting import settle

__all__ = ["Upkeep"]

_log = logging.getLogger("logstore")

_LOOKED_AT_ONCE = 500
"""So many messages at the head of a queue are looked at."""


class Upkeep:
    """Of one queue, in one store handle. For the housekeeper's thread."""

    def __init__(self, queue: WorkQueue) -> None:
        self.queue = queue
        self._seen: tuple[int, tuple[int, ...]] = (-1, ())
        """The number of the last transaction, and the ends of the logs, when it was tended last."""
        self._next_ms = 0
        """When there is something to do even if nothing has changed."""
        self._overdue_from = 0
        """Of leases, likewise; milliseconds since the machine's start."""

    @property
    def next_ms(self) -> int:
        """When there is something to do even if nothing changes, in milliseconds since 1970; 0: it
        is to be tried again; NEVER: nothing."""
        return self._next_ms

    def tend(self) -> bool:
        """Do what there is to do now; True where the queue has expired, or an auto-delete queue has
        lost its last consumer, and is to be deleted.
        Raises UnknownQueueError when it was deleted."""
        queue = self.queue
        queue.check_open()
        now = queue.clock.now_ms()
        boottime = queue.clock.boottime_ms()
        levels = queue.levels()
        seen = queue.ledgers.number(), tuple(level.log.log_end_offset for level in levels)
        if seen == self._seen and now < self._next_ms and boottime < self._overdue_from:
            return False
        self._seen = seen
        self._next_ms = NEVER

        def look(rows: Rows, _: Rows) -> list[Ledger]:
            return [level.ledger.load(rows) for level in levels]

        heads = [ledger.head for ledger in queue.ledgers.read(look)]
        self._overdue_from = min((head.earliest_deadline for head in heads), default=NEVER)
        if self._overdue_from <= boottime:
            self._end_overdue(levels)
        if queue.is_limited:
            self._drop_beyond()
        for level in levels:
            self._tidy_head(level, now)
        self._move_dead(levels)
        return self.has_expired(now)

    def _end_overdue(self, levels: tuple[Level, ...]) -> None:
        count = end_overdue(self.queue, levels)
        self._overdue_from = 0  # it is known again at the next look
        if count:
            _log.warning(
                "%s: %d messages were not settled in consumer_timeout=%d ms, and come back",
                self.queue.name,
                count,
                self.queue.lease_ms,
            )

    def _drop_beyond(self) -> None:
        queue = self.queue
        if (queue.definition.arguments.overflow or "drop-head") == "drop-head":
            queue.change(lambda changes, levels: drop_beyond(queue, changes, levels))

    # The head ---------------------------------------------------------------------------------

    def tidy_heads(self) -> None:
        """Put aside what may not be delivered at the heads, many messages at a time: for a consumer
        that has met nothing else, in its own thread."""
        queue = self.queue
        now = queue.clock.now_ms()
        for level in queue.levels():
            self._tidy_head(level, now)
        if queue.definition.arguments.dead_letter_exchange is not None:
            queue.on_work()  # some of it may be dead

    def _tidy_head(self, level: Level, now: int) -> None:
        """Take those messages from the head that may not be delivered, so that they are not counted
        as ready, and dead-lettered in time."""
        most = 1
        while True:
            end = level.log.log_end_offset
            messages, verdicts = self._look_at_head(level, most, end, now)
            unfit = set() if verdicts is None else {*verdicts[0], *verdicts[1], *verdicts[2]}
            count = 0
            while count < len(messages) and messages[count].offset in unfit:
                count += 1
            if messages and count < len(messages):
                self._note_expiry(messages[count])
            if not count or verdicts is None:
                return
            most = _LOOKED_AT_ONCE
            chosen = messages[:count]
            try:
                self.queue.ledgers.change(
                    partial(self._put_aside, level, chosen, verdicts, end, now)
                )
            except _ChangedError:
                self._next_ms = 0  # somebody was quicker
                return

    def _look_at_head(
        self, level: Level, most: int, end: int, now: int
    ) -> tuple[list[Message], Verdicts | None]:
        """Messages that are ready, the first ones, and what is to be said of them."""
        spans, restart_end = level.ledger.looked_at(
            lambda one: (one.waiting(most, log_end=end, now_ms=now), one.head.restart_end)
        )
        if not spans:
            return [], None
        messages = level.reader.read(spans[0].first, spans[0].length, LOOKED_AT)
        return messages, judge(
            messages, restart_end=restart_end, ttl_ms=self.queue.ttl_ms, now_ms=now
        )

    def _put_aside(
        self,
        level: Level,
        messages: list[Message],
        verdicts: Verdicts,
        end: int,
        now: int,
        changes: Changes,
    ) -> None:
        """Take just these messages and settle them, so that nobody sees them gone who would have
        to wait for them."""
        ledger = changes.of(level.ledger)
        leases = ledger.take(
            len(messages), log_end=end, now_ms=now, session=bytes(SESSION_BYTES), deadline=NEVER
        )
        offsets = [lease.first + n for lease in leases for n in range(lease.length)]
        if offsets != [message.offset for message in messages]:
            raise _ChangedError
        for lease in leases:
            settle(ledger, lease, verdicts)

    def _note_expiry(self, first: Message) -> None:
        """Look again when the first message expires."""
        last = expiry(first.properties, first.timestamp_ms, self.queue.ttl_ms)
        if last < NEVER:
            self._next_ms = min(self._next_ms, int(last) + 1)

    # Dead letters -----------------------------------------------------------------------------

    def _move_dead(self, levels: tuple[Level, ...]) -> None:
        """Publish dead letters, then forget them."""
        queue = self.queue
        if not any(level.ledger.looked_at(lambda one: one.head.dead) for level in levels):
            return
        path = os.path.join(queue.level(0).log.directory, DEAD_LETTERS)
        try:
            if not move_dead(levels, self._publish_dead, files=queue.files, lock_path=path):
                self._next_ms = 0
        except UnknownQueueError:
            raise
        except (LogstoreError, OSError):
            self._next_ms = 0
            raise

    def _publish_dead(self, level: Level, span: Span) -> None:
        reason = Reason(span.reason).label
        letters = []
        for message in level.reader.read(span.first, span.length, LOOKED_AT):
            try:
                letters.append(DeadLetter(message.stored, reason, span.delivery_count))
            except FormatError as error:  # nobody can say what it is
                _log.warning("%s: a dead letter is dropped: %s", level.log.directory, error)
        if letters:
            self.queue.dead_letter(letters)

    # Its end, and that of its segments ----------------------------------------------------------

    def has_expired(self, now: int) -> bool:
        """Whether it is to be deleted: nobody has used it for as long as it lives unused, or it has
        lost its last consumer."""
        queue = self.queue
        row = queue.ledgers.read(lambda rows, _: load_queue_row(rows, queue.id))
        if queue.definition.auto_delete and row.had_consumer and not row.consumers:
            return True  # the last of them was killed before it had deleted the queue
        expires_ms = queue.definition.arguments.expires_ms
        if expires_ms is None:
            return False

        def look(changes: Changes) -> tuple[int, int]:
            row = load_queue_row(changes.rows, queue.id)
            if not row.used_ms:  # it begins to be unused now
                row = row._replace(used_ms=now)
                changes.rows.put(queue.id, row.pack())
            return row.consumers, row.used_ms

        consumers, used_ms = row.consumers, row.used_ms
        if not used_ms:
            consumers, used_ms = queue.ledgers.change(look)
        if consumers:
            return False
        self._next_ms = min(self._next_ms, used_ms + expires_ms)
        return now >= used_ms + expires_ms

    def drop_settled(self) -> int:
        """Delete the segments in which nothing is left to deliver and that retention does not keep;
        returns how many. Nothing is done while somebody seeks, and may bring them back."""
        queue = self.queue
        if not any(self._due(level) for level in queue.levels()):
            return 0
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(queue.keeping())
            except BlockingIOError:
                return 0
            due = [(level, self._due(level)) for level in queue.levels()]
            return sum(len(level.log.drop_segments(bases)) for level, bases in due if bases)

    def _due(self, level: Level) -> list[int]:
        """The base offsets of the segments of a level that are to go."""
        bases = level.log.segments
        if len(bases) < 2:
            return []
        cursor, spans = level.ledger.looked_at(lambda one: (one.head.cursor, one.outstanding()))
        settled = settled_segments(bases, cursor, spans)
        arguments = self.queue.definition.arguments
        if not settled or not keeps_settled(arguments):
            return settled
        infos = [info for info in level.log.segment_infos() if info.base_offset in set(settled)]
        return due_segments(infos, arguments, now_ms=self.queue.clock.now_ms())


class _ChangedError(Exception):
    """The head of the queue is not what it was any more."""
