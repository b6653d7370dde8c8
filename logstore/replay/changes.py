"""What a state is, as plain data, and what has changed between two of them."""

from __future__ import annotations

import base64
import dataclasses
import enum
import math
from collections.abc import Iterator, Mapping, Sequence, Set
from typing import Any, NamedTuple

from logstore.replay.operators import public_names

__all__ = ["Change", "as_data", "changes"]

_DEEPEST = 40
_MISSING: Any = object()


class Change(NamedTuple):
    """A place in a state whose value has changed."""

    path: str
    """As an expression writes it, behind ``state``: ``.accounts["a-1"].balance``."""
    before: Any
    """Plain data; None where there was nothing, or null."""
    after: Any
    kind: str = "changed"
    """``added``, ``removed`` or ``changed``."""


def as_data(value: Any) -> Any:
    """A state as JSON can hold it: objects become mappings of their fields, bytes text (or
    ``{"base64": ...}``), sets sorted lists, and what is nothing of the kind its ``repr``."""
    return _as_data(value, 0)


def _as_data(value: Any, depth: int) -> Any:
    if value is None or isinstance(value, (bool, str)):
        return value.value if isinstance(value, enum.Enum) else value
    if isinstance(value, enum.Enum):
        return value.name
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else repr(float(value))
    if isinstance(value, (bytes, bytearray)):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return {"base64": base64.b64encode(value).decode("ascii")}
    if depth >= _DEEPEST:
        return "..."
    fields = _fields(value)
    if fields is not None:
        return {_key(name): _as_data(one, depth + 1) for name, one in fields.items()}
    if isinstance(value, Set):
        made = [_as_data(one, depth + 1) for one in value]
        return sorted(made, key=lambda one: (type(one).__name__, str(one)))
    if isinstance(value, Sequence):
        return [_as_data(one, depth + 1) for one in value]
    return _text(value)


def _text(value: object) -> str:
    """What an object writes of itself, unless that is where it lies in memory."""
    if type(value).__str__ is object.__str__ and type(value).__repr__ is object.__repr__:
        return f"<{type(value).__name__}>"
    try:
        return str(value)
    except Exception as error:  # noqa: BLE001 - its own code may raise anything
        return f"<{type(value).__name__}: {type(error).__name__}>"


def _key(name: Any) -> str:
    data = _as_data(name, _DEEPEST)
    return data if isinstance(data, str) else str(data)


def _fields(value: Any) -> Mapping[Any, Any] | None:
    """The fields of a mapping or an object; None for what has none."""
    if isinstance(value, Mapping):
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: getattr(value, field.name, None)
            for field in dataclasses.fields(value)
            if not field.name.startswith("_")
        }
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return dict(zip(value._fields, value, strict=False))
    if isinstance(value, (Sequence, Set)) or not hasattr(value, "__dict__"):
        kind: Any = type(value)
        if kind.__flags__ & 1 << 9 and getattr(kind, "__slots__", None):
            return {name: getattr(value, name, None) for name in public_names(value)}
        return None
    return {name: one for name, one in vars(value).items() if not name.startswith("_")}


def changes(before: Any, after: Any) -> Iterator[Change]:
    """What is different in ``after``, field by field, in the order of its fields."""
    yield from _changes("", before, after, 0)


def _changes(path: str, before: Any, after: Any, depth: int) -> Iterator[Change]:
    if before is after or (type(before) is type(after) and _equal(before, after)):
        return
    if depth < _DEEPEST and before is not None and after is not None:
        old, new = _fields(before), _fields(after)
        if old is not None and new is not None:
            for name in dict.fromkeys((*old, *new)):
                yield from _of_field(
                    _step(path, name, isinstance(after, Mapping)),
                    old.get(name, _MISSING),
                    new.get(name, _MISSING),
                    depth,
                )
            return
        if isinstance(before, (list, tuple)) and isinstance(after, (list, tuple)):
            for index in range(max(len(before), len(after))):
                yield from _of_field(
                    f"{path}[{index}]",
                    before[index] if index < len(before) else _MISSING,
                    after[index] if index < len(after) else _MISSING,
                    depth,
                )
            return
        if isinstance(before, Set) and isinstance(after, Set):
            for one in sorted(before - after, key=str):
                yield Change(path, as_data(one), None, "removed")
            for one in sorted(after - before, key=str):
                yield Change(path, None, as_data(one), "added")
            return
    old_data, new_data = as_data(before), as_data(after)
    if old_data != new_data:
        yield Change(path, old_data, new_data)


def _equal(before: Any, after: Any) -> bool:
    try:
        return bool(before == after)
    except Exception:  # noqa: BLE001 - its own code may raise anything; then it is looked into
        return False


def _of_field(path: str, before: Any, after: Any, depth: int) -> Iterator[Change]:
    if before is _MISSING:
        yield Change(path, None, as_data(after), "added")
    elif after is _MISSING:
        yield Change(path, as_data(before), None, "removed")
    else:
        yield from _changes(path, before, after, depth + 1)


def _step(path: str, name: Any, is_mapping: bool) -> str:
    text = _key(name)
    if isinstance(name, str) and text.isidentifier() and not text.startswith("_"):
        return f"{path}.{text}"
    if isinstance(name, (str, bytes)) or not is_mapping:
        escaped = text.replace("\\", "\\\\").replace('"', '\\"')
        return f'{path}["{escaped}"]'
    return f"{path}[{text}]"
