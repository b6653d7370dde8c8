"""Coming and going of consumers: what all processes know of who consumes from a queue.

Whoever takes messages has a row, so that his leases come back when his session ends, whichever
process notices; and a queue counts its consumers, for their shares, and so that an auto-delete
queue goes with the last of them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import Any

from logstore.errors import AccessRefusedError, UnknownQueueError, UnknownTopicError
from logstore.queues.consumer_rows import (
    GETTER,
    ConsumerRow,
    consumer_key,
    consumers_of,
    load_queue_row,
)
from logstore.queues.ledger_store import Changes, Ledgers
from logstore.queues.source import LedgeredLog, Source

__all__ = ["end_overdue", "end_session", "note_use", "register", "sessions", "unregister"]


def register(queue: Source[Any, Any], row: ConsumerRow) -> None:
    """A consumer, or one who gets, begins. Raises AccessRefusedError where another one is
    exclusive, or this one wants to be and there are others; UnknownQueueError."""
    queue.directories()  # makes what it needs

    def begin(changes: Changes) -> None:
        queue.check_there(changes)
        key = consumer_key(row.queue_id, row.session, row.number)
        if row.number != GETTER:
            others = [o for o in consumers_of(changes.consumers, row.queue_id) if o.number]
            exclusive = next((other for other in others if other.exclusive), None)
            if exclusive is not None or (row.exclusive and others):
                raise AccessRefusedError(
                    f"{queue.name} has an exclusive consumer, {exclusive.tag!r}"
                    if exclusive is not None
                    else f"{queue.name} has consumers: none of them can be exclusive"
                )
            known = load_queue_row(changes.rows, row.queue_id)
            known = known._replace(consumers=known.consumers + 1, had_consumer=True)
            changes.rows.put(row.queue_id, known.pack())
        changes.consumers.put(key, row.pack())

    queue.ledgers.change(begin)


def unregister(queue: Source[Any, Any], row: ConsumerRow) -> bool:
    """A consumer ends; says whether it was the last one, so that an auto-delete queue goes."""
    now = queue.clock.now_ms()
    return queue.ledgers.change(lambda changes: _ended(changes, [row], now))


def _ended(changes: Changes, rows: Iterable[ConsumerRow], now_ms: int) -> bool:
    last = False
    for row in rows:
        key = consumer_key(row.queue_id, row.session, row.number)
        if changes.consumers.get(key) is None:
            continue
        changes.consumers.delete(key)
        known = load_queue_row(changes.rows, row.queue_id)
        if row.number != GETTER:
            known = known._replace(consumers=known.consumers - 1, used_ms=now_ms)
            changes.rows.put(row.queue_id, known.pack())
        last = known.had_consumer and not known.consumers
    return last


def end_session(queue: Source[Any, Any], session: bytes) -> tuple[int, bool]:
    """Take back all that a session holds of a queue; returns how many messages it were, and whether
    the queue has no consumers any more after it had some. Doing it twice is allowed."""
    levels = queue.leased()
    now = queue.clock.now_ms()

    def end(changes: Changes) -> tuple[int, bool]:
        count = 0
        for level in levels:
            with contextlib.suppress(UnknownQueueError, UnknownTopicError):  # it was deleted
                count += changes.of(level.ledger).end_session(session)
        rows = list(consumers_of(changes.consumers, queue.id + session))
        return count, _ended(changes, rows, now)

    count, last = queue.ledgers.change(end)
    if count:
        queue.tell_of_returned()
        queue.on_work()
    return count, last


def end_overdue(queue: Source[Any, Any], levels: Iterable[LedgeredLog]) -> int:
    """Take back the leases whose time is up; returns how many messages it were."""
    boottime = queue.clock.boottime_ms()

    def end(changes: Changes) -> int:
        return sum(changes.of(level.ledger).end_overdue(boottime) for level in levels)

    count = queue.ledgers.change(end)
    if count:
        queue.tell_of_returned()
    return count


def sessions(ledgers: Ledgers) -> set[tuple[bytes, bytes]]:
    """All who may hold leases: pairs of a queue's id and a session."""
    rows = ledgers.read(lambda _, consumers: list(consumers_of(consumers, b"")))
    return {(row.queue_id, row.session) for row in rows}


def note_use(queue: Source[Any, Any]) -> None:
    """The queue was used: it does not expire before long."""
    now = queue.clock.now_ms()

    def note(changes: Changes) -> None:
        known = load_queue_row(changes.rows, queue.id)
        changes.rows.put(queue.id, known._replace(used_ms=now).pack())

    queue.ledgers.change(note)
