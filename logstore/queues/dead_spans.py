"""Taking what is dead away from ledgers, by one process at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from logstore.queues.ledger_rows import Span
from logstore.queues.source import LedgeredLog
from logstore.segments.files import Files

__all__ = ["DEAD_LETTERS", "move_dead"]

DEAD_LETTERS = "dead-letters"
"""A file that whoever moves dead letters holds a lock on: two who did would publish them twice."""
_MOST = 500
"""So many dead letters are published together."""
_SPANS = 8

_L = TypeVar("_L", bound=LedgeredLog)


def move_dead(
    levels: Iterable[_L], publish: Callable[[_L, Span], object], *, files: Files, lock_path: str
) -> bool:
    """Publish what is dead, then forget it; False where another process is at it, which may be
    killed at it.

    Commit point: that of the ledger's transaction. A crash before it, behind the publishing, leaves
    messages to be published once more.
    """
    lock = files.lock(lock_path)
    try:
        try:
            lock.acquire()
        except BlockingIOError:
            return False
        for level in levels:
            while spans := level.ledger.looked_at(lambda one: one.dead_spans(_SPANS)):
                for span in spans:
                    first = span._replace(length=min(span.length, _MOST, level.reader.room()))
                    publish(level, first)
                    level.ledger.forget_dead(first)
    finally:
        lock.close()
    return True
