"""Comparisons of much with much, whose failures stay readable."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

_SHOWN = 300


def assert_same(found: Sequence[Any], expected: Sequence[Any], where: object) -> None:
    """Fail unless two sequences are equal, showing the first place where they are not.

    (pytest's own message about thousands of records takes minutes to make and to read.)
    """
    __tracebackhide__ = True
    if list(found) == list(expected):
        return
    for index, (one, other) in enumerate(zip(found, expected, strict=False)):
        if one != other:
            raise AssertionError(
                f"{where}: item {index} is {repr(one)[:_SHOWN]}, expected {repr(other)[:_SHOWN]}"
            )
    raise AssertionError(f"{where}: {len(found)} items, expected {len(expected)}")


def files_of(root: Path) -> dict[str, bytes]:
    """Every file below ``root`` that is in Kafka's format, and its bytes."""
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.name not in ("lock", "state")
    }
