"""Ctrl-C that does not tear apart what belongs together."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

__all__ = ["Interrupts"]


class Interrupts:
    """While it is entered, Ctrl-C and a request to terminate (or the signals that are named) raise
    KeyboardInterrupt, and inside a :meth:`shield` at its end; the second one at once, wherever it
    is.

    Elsewhere than in the main thread, which alone gets signals, nothing is changed.
    """

    def __init__(self, *signals: signal.Signals) -> None:
        self._signals = signals or (signal.SIGINT, signal.SIGTERM)
        self._depth = 0
        """How many shields are around what is being done."""
        self._pending = False
        """Whether it was interrupted in a shield."""
        self._before: dict[int, Any] = {}
        self.came = False
        """Whether one of the signals has come."""

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            for number in self._signals:
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.came = True
        if self._depth and not self._pending:
            self._pending = True
            return
        raise KeyboardInterrupt

    @contextlib.contextmanager
    def shield(self) -> Iterator[None]:
        """Put the interruption off until the block is done."""
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
        if self._pending and not self._depth:
            self._pending = False
            raise KeyboardInterrupt
