"""Time and chance of a simulation: a heap of what is to happen, and one seed.

Time is an integer, in microseconds since the start of the simulation. What is due at the same
moment happens in the order in which it was asked for. Nothing else decides: no thread, no clock of
the machine, no order of a set. So a seed gives the same run everywhere, to the byte.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any, Final

from logstore.replication.history import History

__all__ = ["START_MS", "SimulatedClock", "Simulation"]

START_MS = 1_767_225_600_000
"""When every simulation starts, by the clocks of its brokers: 2026-01-01 00:00 UTC."""

_WINDOW_US: Final = 1000
"""How long a window is: what is due later than in the current one is put in order when its own
has come."""

_Call = tuple[int, int, Callable[..., object], tuple[Any, ...]]
"""Time, number, function, arguments."""


class Simulation:
    """Virtual time, what is to happen in it, and the randomness of one seed.

    What was asked for cannot be taken back. Whoever may change its mind passes a number that it
    counts up (an epoch, an incarnation), and lets a call with an old one do nothing.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.now_us = 0
        """Microseconds since the start."""
        self.history = History()
        self.steps = 0
        """How many calls were made so far."""
        self._due: list[_Call] = []
        """A heap of what is due in the window that time has come to. In one heap for everything
        there would be thousands of time-outs, for which there is nearly never anything to do."""
        self._window_end_us = _WINDOW_US
        self._later: dict[int, list[_Call]] = {}
        """What is due in later windows, by their numbers; in no order."""
        self._windows: list[int] = []
        """A heap of those numbers."""
        self._number = 0
        """Of the last call that was asked for; numbers settle the order of one moment."""
        self._streams: dict[str, random.Random] = {}

    def rng(self, name: str) -> random.Random:
        """The stream of random numbers of that name, the same object at each call.

        Each name has its own, so that what one part draws does not change what another one gets.
        """
        if name not in self._streams:
            self._streams[name] = random.Random(f"{self.seed}/{name}")
        return self._streams[name]

    def after(self, delay_us: int, function: Callable[..., object], *args: Any) -> None:
        """Call ``function(*args)`` in ``delay_us`` microseconds; a negative delay counts as 0."""
        self.at(self.now_us + delay_us, function, *args)

    def at(self, time_us: int, function: Callable[..., object], *args: Any) -> None:
        """Call ``function(*args)`` at ``time_us``, or now if that is past."""
        self._number = number = self._number + 1
        if time_us < self.now_us:
            time_us = self.now_us
        if time_us < self._window_end_us:
            heappush(self._due, (time_us, number, function, args))
            return
        window = time_us // _WINDOW_US
        calls = self._later.get(window)
        if calls is None:
            calls = self._later[window] = []
            heappush(self._windows, window)
        calls.append((time_us, number, function, args))

    def run_until(self, time_us: int) -> None:
        """Let everything happen that is due up to ``time_us``, that moment included; then it is
        that late. What is called may ask for more."""
        steps = 0
        while True:
            due = self._due
            while due and due[0][0] <= time_us:
                self.now_us, _, function, args = heappop(due)
                steps += 1
                function(*args)
            if due or not self._windows or self._windows[0] * _WINDOW_US > time_us:
                break
            window = heappop(self._windows)
            self._window_end_us = (window + 1) * _WINDOW_US
            self._due = self._later.pop(window)
            self._due.sort()  # which makes it a heap
        self.steps += steps
        self.now_us = max(self.now_us, time_us)


class SimulatedClock:
    """The clock of a simulated machine (the ``Clock`` of ``logstore.clock``)."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation

    def now_ms(self) -> int:
        """Milliseconds since 1970-01-01 UTC."""
        return START_MS + self._simulation.now_us // 1000

    def monotonic(self) -> float:
        """Seconds since the start of the simulation."""
        return self._simulation.now_us / 1_000_000

    def boottime_ms(self) -> int:
        """Milliseconds since the start of the simulation: all machines were started then."""
        return self._simulation.now_us // 1000

    def sleep(self, seconds: float) -> None:
        """Nobody may: what waits in a simulation asks to be called later."""
        raise AssertionError(
            f"something slept for {seconds} s in a simulation, which has no threads"
        )
