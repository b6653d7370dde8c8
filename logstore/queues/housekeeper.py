"""The thread that looks after the queues of a store handle, and finds out who has died.

A store handle that consumes has one, which looks around twenty times a second. In one that does not
it sleeps until a message expires, or a queue does, and there is none where nothing will. What they
do is transactions, so it does not matter who comes first: the messages of a dead session come back
within two ticks of whichever is left that consumes.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Generic, Protocol, TypeVar

from logstore.clock import Clock
from logstore.errors import LogstoreError, UnknownQueueError, UnknownTopicError
from logstore.queues import attendance
from logstore.queues.agenda import Agenda
from logstore.queues.channel import Channel
from logstore.queues.ledger_rows import NEVER
from logstore.queues.ledger_store import Ledgers
from logstore.queues.registration import Registration
from logstore.queues.source import Source
from logstore.sessions import Sessions

__all__ = ["Housekeeper", "Tending"]

_log = logging.getLogger("logstore")

TICK_SECONDS = 0.05
"""How often it is looked whether other sessions live, and what there is to do for each queue."""
FLUSH_SECONDS = 0.0025
"""Acknowledgements that have waited for two rounds of so long are brought to the ledgers."""
CALM_ROUNDS = 40
"""After so many such rounds without any, the thread sleeps for a whole tick again."""
RETRY_MS = 1000
"""When what has failed is tried again."""
LONGEST_SLEEP = 60.0
"""So many seconds it sleeps at most: the clock may be set forward."""
CHECKPOINT_SECONDS = 1.0
"""How often ledgers are put into a checkpoint, if that takes less than a twentieth of it."""


_S = TypeVar("_S", bound=Source[Any, Any])
"""What is looked after: queues, or share groups."""


class Tending(Protocol):
    """What is to be done for one of them from time to time."""

    def tend(self) -> bool:
        """Do what there is to do now; True where it is to be deleted. Raises UnknownQueueError or
        UnknownTopicError when it was."""
        ...

    @property
    def next_ms(self) -> int:
        """When there is something to do even if nothing changes, in milliseconds since 1970; 0: it
        is to be tried again; NEVER: nothing."""
        ...

    def drop_settled(self) -> int:
        """Delete what is on disk for no one any more."""
        ...


class Housekeeper(Generic[_S]):
    """One thread for each store handle, as long as there is or will be something to do."""

    def __init__(
        self,
        ledgers: Ledgers,
        sessions: Sessions,
        *,
        clock: Clock,
        queues: Callable[[], Sequence[_S]],
        find: Callable[[bytes], _S | None],
        is_over: Callable[[_S, bytes, bool], bool],
        delete: Callable[[_S], object],
        upkeep: Callable[[_S], Tending],
        name: str,
    ) -> None:
        """``queues``: those that are in use here. ``find`` opens a queue by its id; None: there is
        none any more. ``is_over`` says whether the end of a session, perhaps the last one, is its
        own, and ``delete`` deletes one that has expired, or has lost its last consumer. ``upkeep``
        is made for each."""
        self._ledgers = ledgers
        self._sessions = sessions
        self._clock = clock
        self._queues = queues
        self._find = find
        self._is_over = is_over
        self._delete = delete
        self._new_upkeep = upkeep
        self._name = name
        self._mutex = threading.Lock()
        self._channels: list[Channel] = []
        self._registrations: list[Registration] = []
        self._upkeeps: dict[bytes, tuple[_S, Tending]] = {}
        self._wake = threading.Event()
        self._alert = False
        """Whether acknowledgements may be waiting."""
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self._has_run = False
        """Whether there ever was a thread."""
        self._agenda: Agenda[_S] = Agenda()
        """When there is something to do for queues, also if nobody consumes."""
        self._takers: set[tuple[bytes, bytes]] = set()
        self._takers_number = -1
        """The number of the last transaction when they were looked up."""
        self._next_tick = 0.0
        self._next_checkpoint = 0.0
        self._errors: dict[str, str] = {}
        """What went wrong last, by what it was: the same trouble is told once."""

    # Who is there -----------------------------------------------------------------------------

    def begin(self, member: Channel | Registration) -> None:
        """Look after a channel or a consumer from now on."""
        with self._mutex:
            (self._channels if isinstance(member, Channel) else self._registrations).append(member)  # type: ignore[arg-type]
        self.start()
        self._wake.set()  # it may be asleep until something expires

    def end(self, member: Channel | Registration) -> None:
        """No more; allowed for one that is not looked after."""
        with self._mutex:
            members: list[Channel] | list[Registration] = (
                self._channels if isinstance(member, Channel) else self._registrations
            )
            if member in members:
                members.remove(member)  # type: ignore[arg-type]

    def alert(self) -> None:
        """Acknowledgements begin to wait."""
        if not self._alert:
            self._alert = True
            self._wake.set()

    def due(self, queue: _S, due_ms: int) -> None:
        """There is something to do for a queue at that time, in milliseconds since 1970; 0:
        now."""
        with self._mutex:
            if self._stopped.is_set():
                return
            earlier = self._agenda.note(queue.id, queue, due_ms)
        self.start()
        if not due_ms:
            self._next_tick = 0.0
            self._wake.set()
        elif earlier and self._thread is not threading.current_thread():
            self._wake.set()

    # The thread -------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the thread, unless it runs."""
        if self._thread is None:
            with self._mutex:
                if self._thread is None and not self._stopped.is_set():
                    self._thread = threading.Thread(
                        target=self._run, name=f"logstore queues of {self._name}", daemon=True
                    )
                    self._has_run = True
                    self._thread.start()

    def finish(self) -> None:
        """End the thread, and do what is left to do."""
        self._stopped.set()
        self._wake.set()
        thread = self._thread
        if thread is threading.current_thread():
            return
        if thread is not None:
            thread.join()
        if self._has_run:
            self.tick()

    def _run(self) -> None:
        while not self._stopped.is_set():
            if self._channels or self._registrations:
                self._attend()
            elif not self._sleep_until_due():
                return

    def _attend(self) -> None:
        """Look around as long as anybody consumes, and until all of that is in a checkpoint."""
        calm = 0
        self._next_checkpoint = time.monotonic() + CHECKPOINT_SECONDS
        while True:
            pause = FLUSH_SECONDS if self._alert else TICK_SECONDS
            left = self._next_tick - time.monotonic()
            if self._wake.wait(min(pause, max(left, 0.0))):
                self._wake.clear()
            if self._stopped.is_set():
                return
            if self._alert:
                calm = 0 if self._flush() else calm + 1
                self._alert = calm < CALM_ROUNDS
            now = time.monotonic()
            if now >= self._next_tick:
                self._next_tick = now + TICK_SECONDS
                self.tick()
            if now >= self._next_checkpoint:
                self.checkpoint()
                took = time.monotonic() - now
                self._next_checkpoint = now + max(CHECKPOINT_SECONDS, 20 * took)
                if not (self._channels or self._registrations):
                    self.tick()  # says when there will be something to do without them
                    return

    def _sleep_until_due(self) -> bool:
        """Do what there is to do by now, or sleep until then; False, and the thread ends, where
        there will be nothing."""
        now = self._clock.now_ms()
        with self._mutex:
            due = self._agenda.next_ms
            if due == NEVER and not (self._channels or self._registrations):
                self._thread = None
                return False
            # Not more often than somebody who consumes would: what follows is done together.
            seconds = max((due - now) / 1000, self._next_tick - time.monotonic())
            queues = self._agenda.take(now) if seconds <= 0 else []
        if seconds > 0 and self._wake.wait(min(seconds, LONGEST_SLEEP)):
            self._wake.clear()
        if queues:
            self._next_tick = time.monotonic() + TICK_SECONDS
        for queue in queues:
            self._tolerantly(queue.name, lambda: self.tend(queue))  # noqa: B023 - called at once
        return True

    def _tolerantly(self, what: str, action: Callable[[], object]) -> None:
        """The next round tries again; the same trouble is told once."""
        try:
            action()
        except Exception as error:  # noqa: BLE001 - whatever it is, the others need the thread
            if not self._stopped.is_set() and self._errors.get(what) != str(error):
                self._errors[what] = str(error)
                # What has a sentence of its own needs no traceback to be understood.
                known = isinstance(error, (LogstoreError, OSError))
                _log.error("queues of %s: %s: %s", self._name, what, error, exc_info=not known)
        else:
            self._errors.pop(what, None)

    def _flush(self) -> bool:
        """Bring what has waited for a round to the ledgers; says whether there is anything."""
        with self._mutex:
            channels = list(self._channels)
        waiting = False
        for channel in channels:
            if channel.has_pending:
                waiting = True
                self._tolerantly("acknowledgements", channel.flush_quietly)
        return waiting

    # Ticks ------------------------------------------------------------------------------------

    def tick(self) -> None:
        """One round: who has died, what is overdue, what there is to do for each queue."""
        self._tolerantly("dead sessions", self.bury)
        boottime = self._clock.boottime_ms()
        with self._mutex:
            registrations = list(self._registrations)
        for one in registrations:
            one.drop_lost(boottime)
            self._tolerantly("a consumer that nobody holds", one.tidy)
        for queue in self._queues():
            self._tolerantly(queue.name, lambda: self.tend(queue))  # noqa: B023 - called at once

    def bury(self) -> None:
        """Take back what dead sessions hold; for any thread."""
        if not self._ledgers.exist():
            return
        number = self._ledgers.number()
        if number != self._takers_number:
            self._takers = attendance.sessions(self._ledgers)
            self._takers_number = number
        dead = [
            (queue_id, session)
            for queue_id, session in self._takers
            if not self._sessions.is_alive(session.hex())
        ]
        for queue_id, session in dead:
            queue = self._find(queue_id)
            if queue is None:
                self._ledgers.forget(queue_id)
                continue
            count, last = attendance.end_session(queue, session)
            if count:
                _log.info("%s: %d messages of a dead session come back", queue.name, count)
            if self._is_over(queue, session, last):
                self._delete(queue)
        if dead:
            self._takers_number = -1

    def tend(self, queue: _S) -> None:
        """Do what there is to do for a queue; for any thread."""
        upkeep = self._upkeep(queue)
        with self._mutex:
            self._agenda.forget(queue.id)
        queue.due_ms = NEVER  # whoever publishes from now on says when that expires
        again_ms = self._clock.now_ms() + RETRY_MS
        try:
            if upkeep.tend():
                self._delete(queue)
            again_ms = upkeep.next_ms or self._clock.now_ms() + 1
        except (UnknownQueueError, UnknownTopicError):
            self._upkeeps.pop(queue.id, None)  # it was deleted
            again_ms = NEVER
        finally:
            if again_ms < NEVER:
                queue.due_ms = min(queue.due_ms, again_ms)
                self.due(queue, again_ms)

    def _upkeep(self, queue: _S) -> Tending:
        found = self._upkeeps.get(queue.id)
        if found is None or found[0] is not queue:
            found = self._upkeeps[queue.id] = queue, self._new_upkeep(queue)
        return found[1]

    def checkpoint(self) -> None:
        """Put the ledgers of all queues in use on stable storage, and delete settled segments."""
        for queue in self._queues():
            self._tolerantly(f"checkpoint of {queue.name}", lambda: self.keep(queue))  # noqa: B023 - called at once

    def keep(self, queue: _S) -> None:
        """Put the ledgers of a queue on stable storage, and delete settled segments."""
        with contextlib.suppress(UnknownQueueError, UnknownTopicError):  # it was deleted meanwhile
            queue.checkpoint(tolerant=False)
            self._upkeep(queue).drop_settled()
