"""When records are handed on: as fast as possible, at a rate, or as they once came."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from logstore.errors import InvalidInputError
from logstore.fetcher import ConsumerRecord

__all__ = ["OriginalPace", "Pace", "RatePace", "parse_rate", "parse_speed"]

_MOST_BEHIND_SECONDS = 0.1
"""How much of what a slow sink has held up is made up for at a rate."""

_SECONDS = {"s": 1, "m": 60, "h": 3600}


class Pace(Protocol):
    """Says when each record is due. For one replay."""

    def due(self, records: Sequence[ConsumerRecord], start: int, now: float) -> tuple[int, float]:
        """How far records are due at ``now``, from ``start`` on; and when the next one is.

        Both in seconds of one monotonic clock. The first record that is asked about is due at
        once. Where all are due, the second number means nothing.
        """
        ...

    def left(self, newest_ms: int) -> float | None:
        """Seconds from the last record that was due to one of that time; None where the pace does
        not say."""
        ...


class OriginalPace:
    """As far apart as the records' timestamps are, or a part of that.

    A record whose time is before that of one in front of it comes at once behind that, and so does
    one without a time.
    """

    def __init__(self, *, speed: float = 1.0, longest_pause_ms: int | None = None) -> None:
        """``speed`` 10 takes a tenth of the time. A pause of more than ``longest_pause_ms`` of the
        original is made so long."""
        self._speed = speed
        self._longest_ms = longest_pause_ms
        self._start: float | None = None
        self._newest_ms = -1
        """The largest timestamp so far."""
        self._passed_ms = 0
        """Time of the original from the first record to that one, pauses shortened."""

    def due(self, records: Sequence[ConsumerRecord], start: int, now: float) -> tuple[int, float]:
        """See :class:`Pace`."""
        if self._start is None:
            self._start = now
        for index in range(start, len(records)):
            passed = self._passed(records[index].timestamp)
            when = self._start + passed / 1000 / self._speed
            if when > now:
                return index, when
            self._passed_ms = passed
            self._newest_ms = max(self._newest_ms, records[index].timestamp)
        return len(records), now

    def _passed(self, timestamp: int) -> int:
        if self._newest_ms < 0 or timestamp <= self._newest_ms:
            return self._passed_ms
        pause = timestamp - self._newest_ms
        if self._longest_ms is not None:
            pause = min(pause, self._longest_ms)
        return self._passed_ms + pause

    def left(self, newest_ms: int) -> float | None:
        """See :class:`Pace`."""
        if self._longest_ms is not None or self._newest_ms < 0 or newest_ms < 0:
            return None
        return max(0, newest_ms - self._newest_ms) / 1000 / self._speed


class RatePace:
    """So many records a second, evenly."""

    def __init__(self, per_second: float) -> None:
        self._seconds = 1 / per_second
        """Between two records."""
        self._next: float | None = None

    def due(self, records: Sequence[ConsumerRecord], start: int, now: float) -> tuple[int, float]:
        """See :class:`Pace`."""
        following = now if self._next is None else max(self._next, now - _MOST_BEHIND_SECONDS)
        count = 0
        if following <= now:
            count = min(int((now - following) / self._seconds) + 1, len(records) - start)
        self._next = following + count * self._seconds
        return start + count, self._next

    def left(self, newest_ms: int) -> float | None:
        """See :class:`Pace`."""
        return None


def parse_speed(text: str) -> float:
    """``10x`` or ``10`` is ten times as fast; raises InvalidInputError for what is no speed."""
    return _number(text.removesuffix("x"), f"{text!r} is no speed: 10x is ten times as fast")


def parse_rate(text: str) -> float:
    """Records a second, of ``1000/s``, ``1000``, ``90/m`` or ``20/h``; raises InvalidInputError
    for what is no rate."""
    number, slash, unit = text.partition("/")
    problem = f"{text!r} is no rate: 1000/s, 90/m or 20/h"
    if slash and unit not in _SECONDS:
        raise InvalidInputError(problem)
    return _number(number, problem) / _SECONDS[unit or "s"]


def _number(text: str, problem: str) -> float:
    try:
        number = float(text)
    except ValueError:
        raise InvalidInputError(problem) from None
    if not 1e-6 <= number <= 1e9:
        raise InvalidInputError(f"{problem}, from 0.000001 to 1,000,000,000")
    return number
