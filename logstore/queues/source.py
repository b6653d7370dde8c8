"""What is delivered from: logs with a ledger each, and how messages are taken from them.

A work queue is one, its logs those of its levels of priority; the partitions of topics that a share
group reads are another. Consumers, channels and the housekeeper know no more of either than this.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

from logstore.clock import Clock
from logstore.errors import LogstoreError
from logstore.log import PartitionLog
from logstore.queues.ledger import Ledger
from logstore.queues.ledger_rows import NEVER, Head, Lease, Rows
from logstore.queues.ledger_store import Changes, Ledgers, LogLedger
from logstore.queues.message import Delivered
from logstore.queues.reading import Reader, Verdicts
from logstore.segments.files import Files

__all__ = ["LedgeredLog", "Source", "Taken"]


class LedgeredLog:
    """A log and its ledger."""

    def __init__(self, log: PartitionLog, ledger: LogLedger, reader: Reader[Delivered]) -> None:
        self.log = log
        self.ledger = ledger
        self.reader = reader
        self.cursor = NEVER
        """Where the ledger's cursor was seen last: whatever is beyond it is ready. NEVER: nothing
        is, for as long as the ledger does not change."""

    @property
    def end(self) -> int:
        """One past the last offset that may be taken."""
        return self.log.log_end_offset

    def see(self, head: Head) -> bool:
        """Note how far the ledger is; says whether anything that came back is ready."""
        self.cursor = head.cursor
        return head.returned > 0

    def room(self, head: Head) -> int:
        """How many messages may be taken at once."""
        return self.reader.room()


class Taken(NamedTuple):
    """A lease, and where it is from."""

    level: LedgeredLog
    lease: Lease
    restart_end: int


M_co = TypeVar("M_co", bound=Delivered, covariant=True)
"""What is delivered."""
L_co = TypeVar("L_co", bound=LedgeredLog, covariant=True)


class Source(Generic[L_co, M_co]):
    """Logs that messages are taken from, for all who do so in a store handle. Usable from many
    threads."""

    def __init__(
        self,
        name: str,
        source_id: bytes,
        *,
        ledgers: Ledgers,
        files: Files,
        clock: Clock,
        lease_ms: int,
    ) -> None:
        """``name`` is for people, with what it is: "queue 'payments'"."""
        self.name = name
        self.id = source_id
        """In front of all rows of its ledgers and consumers."""
        self.ledgers = ledgers
        self.files = files
        self.clock = clock
        self.lease_ms = lease_ms
        """How long a lease lasts."""
        self.on_work: Callable[[], object] = lambda: None
        """Called when there is something for the housekeeper."""
        self.on_unfit: Callable[[], object] = lambda: None
        """Called when nothing of what was taken might be delivered: there may be much of that in
        front of what may."""
        self.due_ms = NEVER
        """When the housekeeper looks again by itself, as far as it was told."""
        self.on_due: Callable[[int], object] = lambda due_ms: None
        """Called when there will be something for the housekeeper before that."""
        self._levels: tuple[L_co, ...] = ()
        """The logs that are open, in the order in which they are taken from; replaced as a
        whole."""
        self._closed = False
        """Whether it was let go of, since it was deleted or the store was closed."""
        self._seen = (-1, False, NEVER)
        """The number of the last transaction when the ledgers were looked at; whether anything had
        come back; when the first held message is due."""

    # What each kind does its own way ----------------------------------------------------------

    def levels(self) -> tuple[L_co, ...]:
        """All logs that are taken from, opened."""
        raise NotImplementedError

    def check_there(self, changes: Changes) -> None:
        """Raise the error of what was deleted, if it was."""
        raise NotImplementedError

    def read(self, taken: Taken, handle: object) -> tuple[list[M_co], Verdicts | None]:
        """The messages of a lease, as the log has them; and what is to be said of those that may
        not be delivered, if any may not."""
        raise NotImplementedError

    def directories(self) -> tuple[str, ...]:
        """Where something happens when there is more to take."""
        raise NotImplementedError

    def signal(self) -> None:
        """Wake those who wait for messages, in all processes."""
        raise NotImplementedError

    def deleted_error(self) -> LogstoreError:
        """The error of one whose logs are gone."""
        raise NotImplementedError

    def needs_care(self) -> bool:
        """Whether there is anything to do for it that no consumer does; opens no logs."""
        raise NotImplementedError

    # What all do alike ------------------------------------------------------------------------

    def leased(self) -> tuple[LedgeredLog, ...]:
        """The logs of which anybody may hold leases."""
        return self.levels()

    def tell_of_returned(self) -> None:
        """Wake others for messages that have come back; nobody, where it was deleted."""
        with contextlib.suppress(LogstoreError, FileNotFoundError):
            self.signal()

    def has_ready(self) -> bool:
        """Whether there is anything to take, for all one knows at next to no cost."""
        for level in self._levels:
            if level.end > level.cursor:
                return True
        number, returned, due = self._seen
        if number != self.ledgers.number():
            self.look()
            _, returned, due = self._seen
        if returned or due <= self.clock.now_ms():
            return True
        return any(level.end > level.cursor for level in self._levels)

    def check_open(self) -> None:
        """Raise ``deleted_error`` where it was let go of."""
        if self._closed:
            raise self.deleted_error()

    @property
    def next_due(self) -> int:
        """When the first held message is due, as far as it was seen."""
        return self._seen[2]

    def look(self) -> None:
        """Look at the ledgers, and open logs that somebody else has made. Raises
        ``deleted_error`` when it was deleted."""
        self.check_open()
        number = self.ledgers.number()
        levels = self.levels()

        def look(rows: Rows, _: Rows) -> list[Ledger]:
            return [level.ledger.load(rows) for level in levels]

        heads = [ledger.head for ledger in self.ledgers.read(look)]
        returned = [level.see(head) for level, head in zip(levels, heads, strict=True)]
        due = min((head.next_due for head in heads), default=NEVER)
        self._seen = number, any(returned), due

    def take(
        self,
        changes: Changes,
        most: int,
        *,
        session: bytes,
        fair: bool = True,
        only: LedgeredLog | None = None,
    ) -> list[Taken]:
        """Lease up to ``most`` messages, those of the first log first. ``fair``: no more than a
        consumer's share of what is ready; ``only``: of this log alone."""
        levels = self._levels if only is None else (only,)
        now = self.clock.now_ms()
        deadline = self.clock.boottime_ms() + self.lease_ms
        consumers = changes.consumer_count(self.id) if fair else 1
        if consumers > 1:
            ready = 0
            for level in levels:
                head = changes.of(level.ledger).head
                level.see(head)
                ready += head.ready(level.end)
                ready += head.held if head.next_due <= now else 0
            most = min(most, -(-ready // consumers))
        taken = []
        for level in levels:
            if most <= 0:
                break
            ledger = changes.of(level.ledger)
            head = ledger.head
            leases = ledger.take(
                most if most == 1 else min(most, level.room(head)),
                log_end=level.end,
                now_ms=now,
                session=session,
                deadline=deadline,
            )
            level.see(head)
            for lease in leases:
                taken.append(Taken(level, lease, head.restart_end))
                most -= lease.length
        return taken

    def pass_over(self, changes: Changes, taken: Taken) -> None:
        """Move on, where the log has nothing in a lease, to what it does have."""
        level, lease, _ = taken
        following = level.reader.next_offset(lease.first + lease.length)
        changes.of(level.ledger).skip(min(following, level.end))

    def checkpoint(self, *, tolerant: bool = True) -> None:
        """Put what the ledgers have come to on stable storage."""
        self.ledgers.checkpoint([level.ledger for level in self._levels], tolerant=tolerant)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name})"
