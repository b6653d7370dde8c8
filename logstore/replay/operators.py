"""What an expression may do to values while it runs: look into them, compare, calculate, call.

Three rules hold everywhere:

- *Null is not an error.* What is not there (a key of a mapping, the JSON of a value that is none,
  a field of null) is null; calculating with null gives null; comparing it with ``<`` is false.
- *Bytes are text.* Keys and values, and bytes inside a state, are text to an expression. Bytes that
  are not UTF-8 become lone surrogates, so nothing is lost and nothing compares equal by accident.
- *Nothing grows beyond bounds.* Numbers have at most ``MAX_BITS`` bits, text that is put together
  has at most ``MAX_TEXT`` characters.

Whoever looks into an object sees its data and nothing that can be called, no modules, no classes,
and nothing of Python's own objects (functions, frames, generators), through which one could get
out.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence, Set
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from fractions import Fraction
from types import ModuleType
from typing import Any

__all__ = [
    "MAX_BITS",
    "MAX_TEXT",
    "OPERATORS",
    "RefusedError",
    "get",
    "has",
    "item",
    "kind_of",
    "piece",
    "plain",
    "public_names",
    "text_of",
]

MAX_BITS = 4096
"""The most bits of a whole number that an expression makes."""
MAX_TEXT = 1 << 20
"""The most characters of a text that an expression puts together."""

_HEAP_TYPE = 1 << 9
"""The flag of a class that was made by a ``class`` statement, and not by the interpreter."""
_LOOKED_INTO = (datetime, date, time, timedelta, Decimal, Fraction)
"""Classes of the interpreter's whose attributes are data as well."""
_PLAIN = frozenset((str, int, float, bool, type(None), dict, list, tuple))
_SCALARS = (str, int, float, bool, list, set, frozenset)
_NUMBERS = (int, float, Decimal, Fraction)
_TIMES = (datetime, date, timedelta)


class RefusedError(Exception):
    """An expression cannot go on; the text is the reason."""


def kind_of(value: object) -> str:
    """What a value is, in the words of whoever writes expressions."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, (int, float, Decimal, Fraction)):
        return "number"
    if isinstance(value, (str, bytes, bytearray)):
        return "text"
    if isinstance(value, Mapping):
        return "mapping"
    if isinstance(value, (list, tuple, Set)):
        return "list"
    return type(value).__name__


def text_of(data: bytes | bytearray | None) -> str | None:
    """Bytes as text; what is not UTF-8 becomes lone surrogates."""
    return None if data is None else data.decode("utf-8", "surrogateescape")


def _bytes_of(text: str) -> bytes | None:
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # surrogates that stand for no byte, as JSON may hold them
        return None


def plain(value: Any) -> Any:
    """A value as an expression sees it; raises RefusedError for what is no data."""
    kind = type(value)
    if kind in _PLAIN:
        return value
    if isinstance(value, (bytes, bytearray)):
        return text_of(value)
    if callable(value) or isinstance(value, ModuleType):
        raise RefusedError(f"a {kind.__name__} is no data")
    return value


# Looking into values --------------------------------------------------------------------------

_MISSING: Any = object()


def get(value: Any, name: str) -> Any:
    """The field ``name`` of a value: of a mapping what stands under it, else an attribute.

    Null where a mapping, text, number or list has none; raises RefusedError for an object that has
    none, since its fields are known and the name is misspelt.
    """
    if isinstance(value, dict):
        found = dict.get(value, name, _MISSING)
        if found is _MISSING:
            found = _under_bytes(value, name)
        return found if type(found) in _PLAIN else plain(found)
    if value is None or type(value) in _SCALARS:
        return None
    if isinstance(value, Mapping):
        return _in_mapping(value, name)
    _check_looked_into(value)
    if name.startswith("_"):
        raise RefusedError(f"names do not begin with an underscore: {name!r}")
    try:
        found = getattr(value, name)
    except AttributeError:
        known = ", ".join(public_names(value)) or "no fields"
        raise RefusedError(f"a {type(value).__name__} has no {name!r}; it has {known}") from None
    return found if type(found) in _PLAIN else plain(found)


def _under_bytes(value: dict[Any, Any], name: str) -> Any:
    """What stands under the bytes of a name: folds use keys as they are."""
    data = _bytes_of(name)
    return None if data is None else dict.get(value, data)


def _in_mapping(value: Mapping[Any, Any], key: Any) -> Any:
    for one in (key, _bytes_of(key) if isinstance(key, str) else None):
        if one is not None and one in value:
            return plain(value[one])
    return None


def _check_looked_into(value: object) -> None:
    kind = type(value)
    if isinstance(value, (type, ModuleType)) or not (
        kind.__flags__ & _HEAP_TYPE or isinstance(value, _LOOKED_INTO)
    ):
        raise RefusedError(f"a {kind.__name__} has no fields to look at")


def public_names(value: object) -> list[str]:
    """The names of an object's data: dataclass fields, slots, properties and other attributes."""
    names = set(getattr(value, "__dict__", ()))
    for kind in type(value).__mro__:
        for name, member in vars(kind).items():
            if not callable(member) and not isinstance(member, (classmethod, staticmethod)):
                names.add(name)
    return sorted(name for name in names if not name.startswith("_"))


def item(value: Any, key: Any) -> Any:
    """The element under a key or at a place; null where there is none."""
    if value is None or key is None:
        return None
    if isinstance(value, dict):
        try:
            found = dict.get(value, key, _MISSING)
        except TypeError:
            raise RefusedError(f"a {kind_of(key)} cannot be a key") from None
        if found is _MISSING:
            found = _under_bytes(value, key) if isinstance(key, str) else None
        return plain(found)
    if isinstance(value, Mapping):
        return _in_mapping(value, key)
    if isinstance(value, (str, bytes, list, tuple)) or hasattr(type(value), "__getitem__"):
        if isinstance(key, bool) or not isinstance(key, int):
            raise RefusedError(f"the place in a {kind_of(value)} is a whole number")
        value = text_of(value) if isinstance(value, bytes) else value
        try:
            return plain(value[key])
        except (IndexError, KeyError):
            return None
    raise RefusedError(f"a {kind_of(value)} has no elements")


def piece(value: Any, start: Any, stop: Any) -> Any:
    """``value[start:stop]``, of a text or a list."""
    if value is None:
        return None
    if not isinstance(value, (str, list, tuple)):
        raise RefusedError(f"a {kind_of(value)} has no pieces")
    for bound in (start, stop):
        if bound is not None and (isinstance(bound, bool) or not isinstance(bound, int)):
            raise RefusedError("the bounds of a piece are whole numbers")
    return value[start:stop]


def has(value: Any, name: Any) -> bool:
    """Whether a mapping or an object has a field of that name."""
    if not isinstance(name, str):
        raise RefusedError("has() takes a name as text")
    if isinstance(value, Mapping):
        return _contains(value, name)
    if value is None or type(value) in _SCALARS:
        return False
    _check_looked_into(value)
    return name in public_names(value)


def _contains(container: Any, element: Any) -> bool:
    if container is None:
        return False
    try:
        if isinstance(container, str):
            return element is not None and element in container
        if isinstance(container, (Mapping, Sequence, Set)):
            if element in container:
                return True
            data = _bytes_of(element) if isinstance(element, str) else None
            return data is not None and data in container
    except TypeError:
        raise RefusedError(f"a {kind_of(element)} cannot be in a {kind_of(container)}") from None
    raise RefusedError(f"nothing is in a {kind_of(container)}")


# Comparing ------------------------------------------------------------------------------------


def _comparing(compare: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    def ordered(a: Any, b: Any) -> Any:
        try:
            return compare(a, b)
        except TypeError:
            if a is None or b is None:
                return False
            raise RefusedError(f"cannot compare a {kind_of(a)} with a {kind_of(b)}") from None

    return ordered


# Calculating ----------------------------------------------------------------------------------


def _refuse(what: str, a: Any, b: Any) -> RefusedError:
    return RefusedError(f"cannot {what} a {kind_of(a)} and a {kind_of(b)}")


def _bits(*values: Any) -> int:
    return sum(value.bit_length() for value in values if isinstance(value, int))


def _bounded(value: Any) -> Any:
    if isinstance(value, complex):
        raise RefusedError("the result is no real number")
    if isinstance(value, int) and value.bit_length() > MAX_BITS:
        raise RefusedError(f"the result has more than {MAX_BITS} bits")
    return value


def _calculate(
    what: str, operation: Callable[[Any, Any], Any], a: Any, b: Any, also: tuple[type, ...] = ()
) -> Any:
    if a is None or b is None:
        return None
    kinds = (*_NUMBERS, *also)
    if not isinstance(a, kinds) or not isinstance(b, kinds):
        raise _refuse(what, a, b)
    try:
        return _bounded(operation(a, b))
    except ZeroDivisionError:
        raise RefusedError("division by zero") from None
    except (ArithmeticError, ValueError) as error:
        raise RefusedError(f"cannot {what}: {error}") from None
    except TypeError:
        raise _refuse(what, a, b) from None


def _add(a: Any, b: Any) -> Any:
    if isinstance(a, str) and isinstance(b, str):
        if len(a) + len(b) > MAX_TEXT:
            raise RefusedError(f"the text would have more than {MAX_TEXT} characters")
        return a + b
    return _calculate("add", operator.add, a, b, _TIMES)


def _subtract(a: Any, b: Any) -> Any:
    return _calculate("subtract", operator.sub, a, b, _TIMES)


def _multiply(a: Any, b: Any) -> Any:
    if _bits(a, b) > MAX_BITS + 1:  # the product may have one bit less
        raise RefusedError(f"the result has more than {MAX_BITS} bits")
    return _calculate("multiply", operator.mul, a, b)


def _power(a: Any, b: Any) -> Any:
    if isinstance(b, _NUMBERS) and isinstance(a, _NUMBERS):
        # A number of n bits, raised to b, has more than (n - 1) * b of them, and at most n * b.
        bits = a.bit_length() if isinstance(a, int) else 0
        if isinstance(a, Fraction):
            bits = _bits(a.numerator, a.denominator)
        exponent: Any = abs(b)
        if not exponent <= MAX_BITS or (bits - 1) * exponent > MAX_BITS:
            raise RefusedError(f"the result has more than {MAX_BITS} bits")
    return _calculate("raise", operator.pow, a, b)


def _shift(a: Any, b: Any, operation: Callable[[Any, Any], Any]) -> Any:
    if a is None or b is None:
        return None
    if not isinstance(a, int) or not isinstance(b, int):
        raise _refuse("shift", a, b)
    if not 0 <= b <= MAX_BITS:
        raise RefusedError(f"a shift is by 0 to {MAX_BITS} bits")
    return _bounded(operation(a, b))


def _bitwise(operation: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    def combine(a: Any, b: Any) -> Any:
        if a is None or b is None:
            return None
        if not isinstance(a, int) or not isinstance(b, int):
            raise _refuse("combine the bits of", a, b)
        return operation(a, b)

    return combine


def _negative(a: Any) -> Any:
    if a is None:
        return None
    if not isinstance(a, (*_NUMBERS, timedelta)):
        raise RefusedError(f"a {kind_of(a)} has no sign")
    return -a


def _positive(a: Any) -> Any:
    return None if a is None else -_negative(a)


def _inverted(a: Any) -> Any:
    if a is None:
        return None
    if not isinstance(a, int):
        raise RefusedError(f"a {kind_of(a)} has no bits")
    return ~a


OPERATORS: dict[str, Callable[..., Any]] = {
    "Lt": _comparing(operator.lt),
    "LtE": _comparing(operator.le),
    "Gt": _comparing(operator.gt),
    "GtE": _comparing(operator.ge),
    "In": lambda a, b: _contains(b, a),
    "NotIn": lambda a, b: not _contains(b, a),
    "Add": _add,
    "Sub": _subtract,
    "Mult": _multiply,
    "Div": lambda a, b: _calculate("divide", operator.truediv, a, b),
    "FloorDiv": lambda a, b: _calculate("divide", operator.floordiv, a, b),
    "Mod": lambda a, b: _calculate("divide", operator.mod, a, b),
    "Pow": _power,
    "LShift": lambda a, b: _shift(a, b, operator.lshift),
    "RShift": lambda a, b: _shift(a, b, operator.rshift),
    "BitAnd": _bitwise(operator.and_),
    "BitOr": _bitwise(operator.or_),
    "BitXor": _bitwise(operator.xor),
    "USub": _negative,
    "UAdd": _positive,
    "Invert": _inverted,
}
"""The functions behind the operators, by the name of the operator's node in Python's own syntax
tree. ``==`` and ``!=``, ``is``, ``and``, ``or`` and ``not`` need none."""
