"""Sleeping until there is more to read: one loop for all who wait, for one log or for several.

A sleeper is woken by a watch on the directories, where the system has one, and looks again and
again where it has none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from logstore.clock import Clock
from logstore.errors import InvalidInputError
from logstore.segments.files import Files, Watch

__all__ = ["LONGEST_SLEEP", "PartitionsWatch", "check_timeout", "sleep_until"]

LONGEST_SLEEP = 0.1
"""Seconds after which a sleeper looks without having been woken: a watch may have been lost."""
_SHORTEST_PAUSE = 0.0005
_LONGEST_PAUSE = 0.01
_PUBLISHING_SECONDS = 0.002
"""How long after a write its publishing is waited for; it takes microseconds, unless the writer
lost its processor in between."""


def check_timeout(seconds: object) -> None:
    """Raise InvalidInputError for what is no time to wait; None is for ever."""
    # What is not equal to itself is NaN, and never over.
    if seconds is not None and (type(seconds) not in (int, float) or seconds != seconds):
        raise InvalidInputError(f"timeout={seconds!r} is no number of seconds, nor None for ever")


def sleep_until(
    ready: Callable[[], bool], watch: Watch | None, clock: Clock, seconds: float
) -> bool:
    """Sleep until ``ready()``, for ``seconds`` at most, and say whether it is so. ``watch`` was
    made before: what is written from then on wakes the sleeper, and what was before is seen."""
    deadline = clock.monotonic() + seconds
    pause = _SHORTEST_PAUSE
    while not ready():
        left = deadline - clock.monotonic()
        if left <= 0:
            return False
        if watch is None:
            clock.sleep(min(pause, left))
            pause = min(pause * 1.2, _LONGEST_PAUSE)
        elif watch.wait(min(left, LONGEST_SLEEP)):
            # A write wakes before the writer has published the new end: give it that moment.
            publishing = clock.monotonic() + _PUBLISHING_SECONDS
            while not ready() and clock.monotonic() < publishing:
                clock.sleep(0.00005)
    return True


class Reading(Protocol):
    """Somebody who reads a partition."""

    @property
    def directory(self) -> str:
        """The partition's directory."""
        ...

    def has_more(self) -> bool:
        """Whether there is more to read."""
        ...


class PartitionsWatch:
    """Waits until one of several partitions has more to read. For one thread at a time."""

    def __init__(self, files: Files, clock: Clock) -> None:
        self._files = files
        self._clock = clock
        self._directories: tuple[str, ...] = ()
        """What ``_watch`` watches."""
        self._watch: Watch | None = None

    def wait(self, readings: Iterable[Reading], seconds: float) -> bool:
        """Return when one of ``readings`` has more, or after ``seconds``; say whether one has."""
        readings = list(readings)
        directories = tuple(reading.directory for reading in readings)
        if directories != self._directories:
            self.close()
            self._directories = directories
            self._watch = self._files.watch(*directories) if directories else None
        return sleep_until(
            lambda: any(reading.has_more() for reading in readings),
            self._watch,
            self._clock,
            seconds,
        )

    def close(self) -> None:
        """Let go of the watch."""
        watch, self._watch, self._directories = self._watch, None, ()
        if watch is not None:
            watch.close()
