"""What has to be done for a share group from time to time, by whoever has it open."""

from __future__ import annotations

import logging

from logstore.errors import PreconditionFailedError
from logstore.queues.attendance import end_overdue
from logstore.queues.dead_spans import move_dead
from logstore.queues.ledger import Ledger
from logstore.queues.ledger_rows import NEVER, RETURNED, Rows, Span
from logstore.queues.ledger_store import Changes
from logstore.shares.group import ShareGroup
from logstore.shares.moves import drop_before
from logstore.shares.partition import SharePartition

__all__ = ["ShareUpkeep"]

_log = logging.getLogger("logstore")


class ShareUpkeep:
    """Of one group, in one store handle. For the housekeeper's thread."""

    def __init__(self, group: ShareGroup) -> None:
        self._group = group
        self._seen: tuple[object, ...] = ()
        """The number of the last transaction, the starts of the logs, and the dead-letter topic,
        when it was tended last."""
        self._overdue_from = 0
        """No lock runs out before it: milliseconds since the machine's start."""
        self._next_ms = NEVER
        self._told_missing = ""
        """The dead-letter topic that was last said not to be there."""

    @property
    def next_ms(self) -> int:
        """NEVER, mostly: nothing of a group changes by the wall clock. 0: it is to be tried
        again."""
        return self._next_ms

    def tend(self) -> bool:
        """Let go of records whose locks have run out, and of those that the logs have lost; bring
        others to the dead-letter topic. False: no share group is deleted by nobody's wish."""
        group = self._group
        levels = group.levels()
        boottime = group.clock.boottime_ms()
        starts = tuple(level.log.log_start_offset for level in levels)
        name = group.config.errors_deadletterqueue_topic_name
        seen = group.ledgers.number(), starts, name, group.dead_letter_topic()
        if seen == self._seen and boottime < self._overdue_from and self._next_ms:
            return False
        self._next_ms = NEVER
        self._end_overdue()
        self._move_dead()
        levels = group.levels()

        def look(rows: Rows, _: Rows) -> tuple[int, list[SharePartition]]:
            found = [(level, level.ledger.load(rows)) for level in levels]
            deadlines = (ledger.head.earliest_deadline for _, ledger in found)
            behind = [level for level, ledger in found if _waits_in_front(level, ledger)]
            return min(deadlines, default=NEVER), behind

        self._overdue_from, behind = group.ledgers.read(look)
        if behind:
            self._drop_lost(behind)
        self._seen = seen
        return False

    def _end_overdue(self) -> None:
        if not self._group.needs_care():
            return
        count = end_overdue(self._group, self._group.leased())
        if count:
            _log.warning(
                "%s: the locks of %d records have run out (%d ms): they are delivered again",
                self._group.name,
                count,
                self._group.lease_ms,
            )

    def _move_dead(self) -> None:
        """Bring records that were given up to the dead-letter topic. Where that is not there, they
        wait for it."""
        group = self._group
        levels = group.with_dead()
        name = group.config.errors_deadletterqueue_topic_name
        if not levels:
            return
        if name and group.dead_letter_topic() is None:
            if name != self._told_missing:
                _log.warning("%s: there is no topic %r for its dead letters", group.name, name)
            self._told_missing = name
            return
        self._told_missing = ""
        if not move_dead(levels, self._dead_letter, files=group.files, lock_path=group.lock_path):
            self._next_ms = 0

    def _dead_letter(self, level: SharePartition, span: Span) -> None:
        group = self._group
        name = group.config.errors_deadletterqueue_topic_name
        topic = group.dead_letter_topic()
        if name in ("", level.topic):  # there is none any more; or it would come back for ever
            _log.warning(
                "%s: %d records of %s-%d are given up without a dead letter",
                group.name,
                span.length,
                level.topic,
                level.number,
            )
            return
        if topic is None:
            raise PreconditionFailedError(f"{group.name}: topic {name!r} is not there any more")
        group.dead_letter(level, span, topic)

    def _drop_lost(self, levels: list[SharePartition]) -> None:
        """Move on to the starts of the logs, where retention has passed what waits."""

        def drop(changes: Changes) -> int:
            count = 0
            for level in levels:
                head = changes.of(level.ledger).head
                start = level.log.log_start_offset
                count += drop_before(changes.rows, level.ledger.key, head, start)
            return count

        count = self._group.ledgers.change(drop)
        _log.warning("%s: %d records were deleted unread (retention)", self._group.name, count)

    def drop_settled(self) -> int:
        """Nothing: what a topic keeps is not the group's business."""
        return 0


def _waits_in_front(level: SharePartition, ledger: Ledger) -> bool:
    """Whether anything waits that the log has lost."""
    start = level.log.log_start_offset
    if ledger.head.cursor < start:
        return True
    first = next(ledger.spans(RETURNED), None) if ledger.head.returned else None
    return first is not None and first.first < start
