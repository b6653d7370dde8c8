"""Pictures as SVG: elements, axes, and the numbers that stand at them.

Colours are classes, which the page's style sheet gives for light and for dark; the only thing that
a picture says itself is where things are. Coordinates are rounded to tenths: nobody sees more.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape
from typing import NamedTuple

__all__ = ["Axis", "Picture", "linear", "logarithmic", "short", "ticks_of"]


class Picture:
    """Elements on a canvas of so many units, which scales with the page."""

    def __init__(self, width: int, height: int, label: str) -> None:
        """``label`` is for who cannot see it."""
        self.width = width
        self.height = height
        self._label = label
        self._parts: list[str] = []

    def add(self, tag: str, *, title: str = "", text: str = "", **attributes: object) -> None:
        """Add an element. ``css`` gives its class, underscores in names stand for hyphens; a title
        is shown when one points at it."""
        given = "".join(
            f' {"class" if name == "css" else name.replace("_", "-")}="{escape(_spelled(value))}"'
            for name, value in attributes.items()
        )
        inside = (f"<title>{escape(title)}</title>" if title else "") + escape(text)
        self._parts.append(f"<{tag}{given}>{inside}</{tag}>" if inside else f"<{tag}{given}/>")

    def line(self, x1: float, y1: float, x2: float, y2: float, css: str) -> None:
        """A line from one point to another."""
        self.add("line", x1=x1, y1=y1, x2=x2, y2=y2, css=css)

    def text(self, x: float, y: float, text: str, css: str = "", *, anchor: str = "start") -> None:
        """Some words; ``anchor``: which end of them stands at x."""
        self.add("text", text=text, x=x, y=y, css=css, text_anchor=anchor)

    def box(
        self, x: float, y: float, width: float, height: float, css: str, *, title: str = ""
    ) -> None:
        """A rectangle; one that is very thin can still be seen."""
        self.add("rect", title=title, x=x, y=y, width=max(width, 0.6), height=height, css=css)

    def path(self, points: Sequence[tuple[float, float]], css: str) -> None:
        """A line through points."""
        if points:
            text = " ".join(f"{_spelled(x)},{_spelled(y)}" for x, y in points)
            self.add("polyline", points=text, css=css)

    def render(self) -> str:
        """The SVG element."""
        label = escape(self._label)
        return (
            f'<svg viewBox="0 0 {self.width} {self.height}" role="img" aria-label="{label}">'
            + "".join(self._parts)
            + "</svg>"
        )


def _spelled(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.1f}".removesuffix(".0")
    return str(value)


class Axis(NamedTuple):
    """How numbers become places, and which of them are written at it."""

    place: Callable[[float], float]
    ticks: Sequence[float]


def linear(highest: float, start: float, end: float) -> Axis:
    """From 0 to a round number at or above ``highest``, between two places."""
    ticks = ticks_of(highest)
    top = ticks[-1]
    return Axis(lambda value: start + (end - start) * value / top, ticks)


def ticks_of(highest: float) -> list[float]:
    """Round numbers from 0 to at least ``highest``: steps of 1, 2 or 5 times a power of ten."""
    if highest <= 0:
        return [0, 1]
    rough = highest / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    count = math.ceil(highest / step - 1e-9)
    return [round(step * number, 10) for number in range(count + 1)]


def logarithmic(lowest: float, highest: float, start: float, end: float) -> Axis:
    """Powers of ten that hold both numbers, between two places; what is lower stands at the start.
    Both are to be above 0."""
    first = math.floor(math.log10(lowest) + 1e-9)
    last = max(math.ceil(math.log10(highest) - 1e-9), first + 1)

    def place(value: float) -> float:
        if value <= 0:
            return start
        share = (math.log10(value) - first) / (last - first)
        return start + (end - start) * min(max(share, 0.0), 1.0)

    return Axis(place, [10.0**power for power in range(first, last + 1)])


def short(value: float) -> str:
    """A number as people write it at an axis: ``0.02``, ``7.5``, ``1,200``, ``3.4 M``, ``2 G``."""
    for factor, unit in ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e4, " k")):
        if abs(value) >= factor:
            scaled = value / (1e3 if unit == " k" else factor)
            return f"{scaled:.3g}{unit}" if scaled < 1000 else f"{scaled:,.0f}{unit}"
    if value == round(value):
        return f"{value:,.0f}"
    return f"{value:.2g}" if abs(value) < 10 else f"{value:,.0f}"
