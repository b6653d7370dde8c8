"""The functions and methods that an expression may call. None of them changes anything, and what
they make is no larger than a few times what they are given."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from fnmatch import translate
from functools import lru_cache
from typing import Any, NamedTuple

from logstore.replay.operators import MAX_TEXT, OPERATORS, RefusedError, get, has, kind_of

__all__ = ["FUNCTIONS", "METHODS", "Callee", "glob_matches"]

_MOST_DIGITS = 1_000


class Callee(NamedTuple):
    """A function, and how many arguments it takes (a method's own object not counted)."""

    function: Callable[..., Any]
    least: int = 1
    most: int = 1


@lru_cache(maxsize=256)
def _glob(pattern: str) -> re.Pattern[str]:
    return re.compile(translate(pattern), re.DOTALL)


def glob_matches(text: str | None, pattern: str) -> bool:
    """Whether the whole of ``text`` is as the shell's pattern says: ``*``, ``?``, ``[abc]``."""
    return text is not None and _glob(pattern).match(text) is not None


def _glob_function(text: Any, pattern: Any) -> bool:
    if not isinstance(pattern, str):
        raise RefusedError(f"a pattern is text, not a {kind_of(pattern)}")
    if text is not None and not isinstance(text, str):
        raise RefusedError(f"glob() looks at text, not at a {kind_of(text)}")
    return glob_matches(text, pattern)


def _length(value: Any) -> int | None:
    if value is None:
        return None
    try:
        return len(value)
    except TypeError:
        raise RefusedError(f"a {kind_of(value)} has no length") from None


def _size(value: Any) -> int | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise RefusedError(f"a {kind_of(value)} has no size in bytes")
    try:
        return len(value.encode("utf-8", "surrogateescape"))
    except UnicodeEncodeError:  # surrogates that stand for no byte, as JSON may hold them
        return len(value.encode("utf-8", "surrogatepass"))


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float, Decimal)):
        try:
            return str(value)
        except ValueError as error:  # more digits than Python writes
            raise RefusedError(str(error)) from None
    raise RefusedError(f"a {kind_of(value)} is not written as text")


def _refuse_large(value: Any) -> None:
    """A decimal of a few characters may stand for a whole number of a million digits."""
    if isinstance(value, Decimal) and value.is_finite() and value.adjusted() > _MOST_DIGITS:
        raise RefusedError(f"the result has more than {_MOST_DIGITS} digits")


def _integer(value: Any) -> int | None:
    if isinstance(value, str) and len(value) > _MOST_DIGITS:
        return None
    _refuse_large(value)
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError):
        return None


def _float(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return None


def _absolute(value: Any) -> Any:
    if value is None:
        return None
    try:
        return abs(value)
    except TypeError:
        raise RefusedError(f"a {kind_of(value)} has no absolute value") from None


def _round(value: Any, digits: Any = None) -> Any:
    if value is None:
        return None
    if digits is not None and (not isinstance(digits, int) or abs(digits) > _MOST_DIGITS):
        raise RefusedError(f"round() takes -{_MOST_DIGITS} to {_MOST_DIGITS} digits")
    _refuse_large(value)
    try:
        return round(value, digits) if digits is not None else round(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise RefusedError(f"cannot round a {kind_of(value)}: {error}") from None


def _elements(values: Any, name: str) -> Iterable[Any]:
    """The elements of a list, the values of a mapping."""
    if isinstance(values, Mapping):
        return values.values()
    if isinstance(values, (list, tuple, set, frozenset)):
        return values
    raise RefusedError(f"{name}() takes a list, not a {kind_of(values)}")


def _test(name: str, test: Callable[[Iterable[Any]], bool]) -> Callable[[Any], bool | None]:
    return lambda values: None if values is None else test(_elements(values, name))


def _extreme(name: str, choose: Callable[[list[Any]], Any]) -> Callable[..., Any]:
    def find(*values: Any) -> Any:
        elements = _elements(values[0], name) if len(values) == 1 else values
        found = [value for value in elements if value is not None]
        try:
            return choose(found) if found else None
        except TypeError:
            kinds = ", ".join(sorted({kind_of(value) for value in found}))
            raise RefusedError(f"{name}() cannot compare these: {kinds}") from None

    return find


def _sum(values: Any) -> Any:
    if values is None:
        return None
    total: Any = 0
    for value in _elements(values, "sum"):
        if value is not None:
            total = OPERATORS["Add"](total, value)
    return total


FUNCTIONS: dict[str, Callee] = {
    "abs": Callee(_absolute),
    "all": Callee(_test("all", all)),
    "any": Callee(_test("any", any)),
    "float": Callee(_float),
    "glob": Callee(_glob_function, 2, 2),
    "has": Callee(has, 2, 2),
    "int": Callee(_integer),
    "kind": Callee(kind_of),
    "len": Callee(_length),
    "max": Callee(_extreme("max", max), 1, 16),
    "min": Callee(_extreme("min", min), 1, 16),
    "round": Callee(_round, 1, 2),
    "size": Callee(_size),
    "str": Callee(_text),
    "sum": Callee(_sum),
}
"""By name. ``time`` is one more, which the compiler adds: it has to know what time it is."""


def _of_text(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
    def call(value: Any, *arguments: Any) -> Any:
        if value is None:
            return None
        if not isinstance(value, str):
            raise RefusedError(f".{name}() belongs to text, not to a {kind_of(value)}")
        try:
            return method(value, *arguments)
        except (TypeError, ValueError) as error:
            raise RefusedError(f".{name}(): {error}") from None

    return call


def _split(value: str, *arguments: Any) -> list[str]:
    if len(value) > MAX_TEXT:
        raise ValueError(f"the text has more than {MAX_TEXT} characters")
    return value.split(*arguments)


def _count(value: Any, element: Any) -> int | None:
    if value is None:
        return None
    if isinstance(value, str) and not isinstance(element, str):
        raise RefusedError(f"a {kind_of(element)} cannot be in a text")
    if not isinstance(value, (str, list, tuple)):
        raise RefusedError(f".count() belongs to text and lists, not to a {kind_of(value)}")
    return value.count(element)


def _get(value: Any, name: Any, default: Any = None) -> Any:
    if not isinstance(name, str):
        raise RefusedError(f".get() takes a name as text, not a {kind_of(name)}")
    if value is None:
        return default
    if not isinstance(value, Mapping):
        raise RefusedError(f".get() belongs to mappings, not to a {kind_of(value)}")
    return get(value, name) if has(value, name) else default


METHODS: dict[str, Callee] = {
    "count": Callee(_count),
    "endswith": Callee(_of_text("endswith", str.endswith)),
    "find": Callee(_of_text("find", str.find)),
    "get": Callee(_get, 1, 2),
    "isalnum": Callee(_of_text("isalnum", str.isalnum), 0, 0),
    "isalpha": Callee(_of_text("isalpha", str.isalpha), 0, 0),
    "isdigit": Callee(_of_text("isdigit", str.isdigit), 0, 0),
    "lower": Callee(_of_text("lower", str.lower), 0, 0),
    "lstrip": Callee(_of_text("lstrip", str.lstrip), 0, 1),
    "removeprefix": Callee(_of_text("removeprefix", str.removeprefix)),
    "removesuffix": Callee(_of_text("removesuffix", str.removesuffix)),
    "rstrip": Callee(_of_text("rstrip", str.rstrip), 0, 1),
    "split": Callee(_of_text("split", _split), 0, 2),
    "startswith": Callee(_of_text("startswith", str.startswith)),
    "strip": Callee(_of_text("strip", str.strip), 0, 1),
    "upper": Callee(_of_text("upper", str.upper), 0, 0),
}
"""By name; they are called with the object in front of the dot first."""
