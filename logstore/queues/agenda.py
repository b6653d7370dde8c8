"""When there is something to do for whom: what a thread looks at before it goes to sleep."""

from __future__ import annotations

from typing import Generic, TypeVar

from logstore.queues.ledger_rows import NEVER

__all__ = ["Agenda"]

_T = TypeVar("_T")


class Agenda(Generic[_T]):
    """Times by keys, in milliseconds since 1970; NEVER where there is nothing. For one thread at a
    time."""

    def __init__(self) -> None:
        self._entries: dict[bytes, tuple[int, _T]] = {}
        self.next_ms = NEVER
        """The first time."""

    def note(self, key: bytes, who: _T, due_ms: int) -> bool:
        """There is something to do at that time, or before, where that is known; says whether that
        is before anything else."""
        known = self._entries.get(key)
        if known is not None and known[0] <= due_ms:
            return False
        self._entries[key] = due_ms, who
        earlier = due_ms < self.next_ms
        self.next_ms = min(self.next_ms, due_ms)
        return earlier

    def take(self, now_ms: int) -> list[_T]:
        """Those whose time has come, the earliest first. They are not here any more."""
        due = [(entry[0], key) for key, entry in self._entries.items() if entry[0] <= now_ms]
        found = [self._entries.pop(key)[1] for _, key in sorted(due)]
        self.next_ms = min((due_ms for due_ms, _ in self._entries.values()), default=NEVER)
        return found

    def forget(self, key: bytes) -> None:
        """There is nothing to do any more."""
        if self._entries.pop(key, None) is not None:
            self.next_ms = min((due_ms for due_ms, _ in self._entries.values()), default=NEVER)
