"""Paths into JSON: ``$.user.id``, ``$.items[0].price``, ``$.items[*].sku``, ``$['a key']``.

A part of RFC 9535 (JSONPath) that can be said in a few lines: names, indexes (negative ones from
the end), and ``*`` for every element or member. No filters, slices or descendants; for questions of
another kind there are expressions (``logstore.replay.expressions``).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from logstore.errors import InvalidInputError

__all__ = ["JsonPath", "JsonTest", "parse_json_test"]

_STEP = re.compile(
    r"\.(?P<name>[^\W\d][\w-]*)"
    r"|(?P<any>\.\*|\[\*\])"
    r"|\[(?P<index>-?\d{1,9})\]"
    r"|\[(?P<quoted>'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\")\]"
)
_UNQUOTED = re.compile(r"\\(.)", re.DOTALL)


class _Every:
    def __repr__(self) -> str:
        return "*"


_EVERY = _Every()
"""The step that goes to every element or member."""

_Step = str | int | _Every


class JsonPath(NamedTuple):
    """A path, step by step: a member's name, an element's index, or every one."""

    text: str
    steps: Sequence[_Step]

    def values(self, document: Any) -> Iterator[Any]:
        """What the path leads to in a parsed document; nothing where it leads nowhere."""
        return _values(document, self.steps, 0)

    @property
    def names(self) -> list[str]:
        """The names that a document has to hold for the path to lead anywhere."""
        return [step for step in self.steps if isinstance(step, str)]


def _values(document: Any, steps: Sequence[_Step], place: int) -> Iterator[Any]:
    if place == len(steps):
        yield document
        return
    step = steps[place]
    if isinstance(step, str):
        if isinstance(document, dict) and step in document:
            yield from _values(document[step], steps, place + 1)
    elif isinstance(step, int):
        if isinstance(document, list) and -len(document) <= step < len(document):
            yield from _values(document[step], steps, place + 1)
    elif isinstance(document, (dict, list)):
        for one in document.values() if isinstance(document, dict) else document:
            yield from _values(one, steps, place + 1)


class JsonTest(NamedTuple):
    """Whether a path leads anywhere in a value, or to something equal to what is wanted."""

    path: JsonPath
    wanted: str | None = None
    """As it was written; None: anything will do, null as well."""

    def compiled(self) -> _CompiledTest:
        """The same, ready to be asked often."""
        return _CompiledTest(self)


class _CompiledTest:
    def __init__(self, test: JsonTest) -> None:
        self._path = test.path
        self._text = test.wanted
        self._parsed: Any = None
        self._has_parsed = False
        """Whether what is wanted is JSON itself: a number, true, null, a quoted text, ..."""
        if test.wanted is not None:
            try:
                self._parsed = json.loads(test.wanted)
                self._has_parsed = True
            except (ValueError, RecursionError):
                pass

    def __call__(self, value: bytes | None) -> bool:
        """Whether it holds of a value; of what is no JSON in UTF-8 it does not."""
        if value is None:
            return False
        try:
            document = json.loads(value.decode("utf-8"))
        except (ValueError, RecursionError):
            return False
        found = self._path.values(document)
        if self._text is None:
            return any(True for _ in found)
        return any(map(self._is_wanted, found))

    def _is_wanted(self, found: Any) -> bool:
        if isinstance(found, str) and found == self._text:
            return True
        return self._has_parsed and _same(found, self._parsed)


def _same(one: Any, other: Any) -> bool:
    """Equal as JSON: true is not 1, and 1.0 is."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    return bool(one == other)


def parse_json_test(text: str) -> JsonTest:
    """``$.user.id``, or ``$.user.id=42``: the text behind the ``=`` is JSON where it can be, and
    the text of a string in any case. Raises InvalidInputError for what is no path."""
    if not text.startswith("$"):
        raise InvalidInputError(f"{text!r} is no JSON path: it begins with $, as in $.user.id")
    steps: list[_Step] = []
    position = 1
    while position < len(text) and text[position] != "=":
        match = _STEP.match(text, position)
        if match is None:
            raise InvalidInputError(
                f"{text!r} is no JSON path: {text[position:]!r} is no step; there are .name, "
                "['any name'], [0], [-1], [*] and .*"
            )
        if match["name"] is not None:
            steps.append(match["name"])
        elif match["index"] is not None:
            steps.append(int(match["index"]))
        elif match["quoted"] is not None:
            steps.append(_UNQUOTED.sub(r"\1", match["quoted"][1:-1]))
        else:
            steps.append(_EVERY)
        position = match.end()
    wanted = text[position + 1 :] if position < len(text) else None
    return JsonTest(JsonPath(text[:position], tuple(steps)), wanted)
