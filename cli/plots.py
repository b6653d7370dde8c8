"""Plots out of characters: bars and sparklines, in ASCII where there is nothing better."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from logstore.cli.output import Lines

__all__ = ["Plots", "size_text"]

_EIGHTHS = " ▏▎▍▌▋▊▉█"
_LEVELS = "▁▂▃▄▅▆▇█"
_ASCII_LEVELS = "_.-=+*%#"
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
_PLAIN_WIDTH = 80


class Plots:
    """Bars and sparklines as wide as there is room for."""

    def __init__(self, lines: Lines) -> None:
        self.width = _PLAIN_WIDTH if lines.console is None else lines.console.width
        """Columns."""
        encoding = (sys.stdout.encoding or "ascii").lower().replace("-", "")
        self._ascii = not encoding.startswith("utf")

    def bar(self, part: float, width: int) -> str:
        """A bar that fills ``part`` (0 to 1) of ``width`` columns; what is not nothing shows."""
        if self._ascii:
            return "#" * max(round(part * width), part > 0)
        eighths = max(round(part * width * 8), part > 0)
        whole, rest = divmod(eighths, 8)
        return _EIGHTHS[8] * whole + (_EIGHTHS[rest] if rest else "")

    def sparkline(self, values: Sequence[int]) -> str:
        """A character for each value; a space where there is nothing."""
        levels = _ASCII_LEVELS if self._ascii else _LEVELS
        most = max(values, default=0)
        return "".join(
            levels[min(value * len(levels) // (most + 1), len(levels) - 1)] if value else " "
            for value in values
        )


def size_text(size: float) -> str:
    """A number of bytes in the largest unit of which there is one: ``1.5 MiB``."""
    for unit in _UNITS:
        if size < 1024 or unit == _UNITS[-1]:
            break
        size /= 1024
    return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
