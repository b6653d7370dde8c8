"""The thread that keeps a store handle's memberships alive, and finds out who has died."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence

from logstore.errors import LogstoreError
from logstore.groups.coordinator import Coordinator
from logstore.groups.membership import Membership

__all__ = ["Heartbeats"]

_log = logging.getLogger("logstore")

TICK_SECONDS = 0.05
"""How often it is looked whether the other members' processes live."""
CHECKPOINT_SECONDS = 5.0
"""How often committed offsets are put into a checkpoint."""


class Heartbeats:
    """One thread for each store handle that has memberships, or has committed offsets."""

    def __init__(
        self,
        coordinator: Coordinator,
        memberships: Callable[[], Sequence[Membership]],
        checkpoint: Callable[[], None],
        *,
        name: str,
    ) -> None:
        """``checkpoint`` is called every few seconds."""
        self._coordinator = coordinator
        self._memberships = memberships
        self._checkpoint = checkpoint
        self._name = name
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._mutex = threading.Lock()
        self._last_error = ""

    def start(self) -> None:
        """Start the thread, unless it runs."""
        if self._thread is None:
            with self._mutex:
                if self._thread is None and not self._stop.is_set():
                    self._thread = threading.Thread(
                        target=self._run, name=f"logstore groups of {self._name}", daemon=True
                    )
                    self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stop.set()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _run(self) -> None:
        clock = self._coordinator.clock
        next_checkpoint = clock.monotonic() + CHECKPOINT_SECONDS
        while not self._stop.wait(TICK_SECONDS):
            self._tolerantly(self._tick)
            if clock.monotonic() >= next_checkpoint:
                next_checkpoint = clock.monotonic() + CHECKPOINT_SECONDS
                self._tolerantly(self._checkpoint)

    def _tolerantly(self, action: Callable[[], None]) -> None:
        """The next round tries again; the same trouble is told once."""
        try:
            action()
        except (LogstoreError, OSError) as error:
            if not self._stop.is_set() and str(error) != self._last_error:
                self._last_error = str(error)
                _log.exception("groups of %s", self._name)
        else:
            self._last_error = ""

    def _tick(self) -> None:
        memberships = self._memberships()
        for group in {membership.group for membership in memberships}:
            self._coordinator.bury(group)
        now = self._coordinator.clock.boottime_ms()
        for membership in memberships:
            membership.tick(now)
