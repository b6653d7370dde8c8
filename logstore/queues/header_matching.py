"""The bindings of headers exchanges: which of them a message's headers meet.

The rules (source: RabbitMQ's documentation, "Headers Exchange", and what its server does in the
corners):

- ``x-match`` is ``all`` (as without it), ``any``, ``all-with-x`` or ``any-with-x``. Arguments whose
  names begin with ``x-`` are not compared, but for those of the last two, where only ``x-match``
  itself is not.
- An argument without a value (None, AMQP's void) demands that the header is there, whatever it is.
- Any other demands a header of the same value. Numbers are compared as numbers, so 1 is 1.0, and a
  timestamp is its seconds; texts as their bytes; a bool is no number. Inside lists and tables the
  types have to be the same, too.
- ``all`` of no arguments is met by every message, ``any`` of none by no message.

Bindings stand under one pair that they demand, the one that the fewest share (those of ``any``
under each), so a message is compared with those that can match, and not with all.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any, Generic, TypeVar

from logstore.errors import InvalidInputError

__all__ = ["HeadersMatcher", "check_match"]

_T = TypeVar("_T")

MATCHES = ("all", "any", "all-with-x", "any-with-x")

_Demand = tuple[str, Hashable]
"""A header's name, and its value in a form that can be compared; ``_PRESENT``: any value."""
_PRESENT = "present"


def check_match(arguments: Mapping[str, Any]) -> None:
    """Raise InvalidInputError for an ``x-match`` that is none."""
    match = arguments.get("x-match", "all")
    if not isinstance(match, str) or match not in MATCHES:
        raise InvalidInputError(f"x-match is one of {', '.join(MATCHES)}; not {match!r:.80}")


class HeadersMatcher(Generic[_T]):
    """Finds the targets of all bindings that a message's headers meet."""

    def __init__(self, bindings: Iterable[tuple[Mapping[str, Any], _T]]) -> None:
        """Of each binding: its arguments and its target."""
        self._always: dict[_T, None] = {}
        """Those that demand nothing."""
        self._any: dict[_Demand, dict[_T, None]] = {}
        """Those that one pair is enough for."""
        self._all: dict[_Demand, list[tuple[frozenset[_Demand], _T]]] = {}
        """Those that demand several pairs, each under one of them."""
        demanding_all = []
        for arguments, target in bindings:
            match = arguments.get("x-match", "all")
            demands = _demands(arguments, with_x=str(match).endswith("-with-x"))
            if str(match).startswith("any"):
                for demand in demands:
                    self._any.setdefault(demand, {})[target] = None
            elif demands:
                demanding_all.append((demands, target))
            else:
                self._always[target] = None
        shared = Counter(demand for demands, _ in demanding_all for demand in demands)
        for demands, target in demanding_all:
            rarest = min(demands, key=lambda demand: shared[demand])
            self._all.setdefault(rarest, []).append((demands, target))
        self.steps = 0
        """Bindings that the last match compared; for tests."""

    def match(self, headers: Mapping[str, Any]) -> dict[_T, None]:
        """The targets, each once."""
        found = dict(self._always)
        there: set[_Demand] = set()
        for name, value in headers.items():
            there.add((name, _PRESENT))
            if value is not None:
                there.add((name, comparable(value)))
        steps = 0
        for demand in there:
            if demand in self._any:
                found.update(self._any[demand])
            for demands, target in self._all.get(demand, ()):
                steps += 1
                if demands <= there:
                    found[target] = None
        self.steps = steps
        return found


def _demands(arguments: Mapping[str, Any], *, with_x: bool) -> frozenset[_Demand]:
    return frozenset(
        (name, _PRESENT if value is None else comparable(value))
        for name, value in arguments.items()
        if name != "x-match" and (with_x or not name.startswith("x-"))
    )


def comparable(value: Any) -> Hashable:
    """A value in a form that is equal for values that RabbitMQ takes for equal."""
    if isinstance(value, bool):
        return "bool", value
    if isinstance(value, (int, float)):
        # What is no number equals nothing.
        return ("number", value) if value == value else ("none", object())
    if isinstance(value, str):
        return "text", value.encode("utf-8", "surrogateescape")
    if isinstance(value, (bytes, bytearray)):
        return "text", bytes(value)
    if isinstance(value, datetime):
        return "number", math.floor(value.timestamp())
    if isinstance(value, Decimal):
        return "decimal", value.as_tuple()
    if isinstance(value, (list, tuple)):
        return "list", tuple((type(item).__name__, comparable(item)) for item in value)
    if isinstance(value, Mapping):
        items = ((name, type(item).__name__, comparable(item)) for name, item in value.items())
        return "table", frozenset(items)
    return "void", None
