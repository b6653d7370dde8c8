"""Which of a source's records are replayed, and what becomes of their headers."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from logstore.errors import InvalidInputError
from logstore.fetcher import ConsumerRecord
from logstore.replay.expressions import Expression
from logstore.replay.functions import glob_matches
from logstore.replay.operators import text_of
from logstore.segments.record import Header

__all__ = ["ANY", "Filters", "HeaderFilter", "Test", "Transform", "change_headers"]

Test = Callable[[ConsumerRecord], object]
"""Whether a record is replayed."""
Transform = Callable[[Sequence[ConsumerRecord]], Sequence[ConsumerRecord]]


class _Any:
    def __repr__(self) -> str:
        return "ANY"


ANY = _Any()
"""In place of a header's value: whatever it is."""


class HeaderFilter(NamedTuple):
    """A header that a record has to have."""

    name: str
    value: bytes | _Any | None = ANY


class Filters(NamedTuple):
    """What a record has to be; all of it has to hold."""

    where: Sequence[Expression] = ()
    keys: Sequence[bytes] = ()
    """One of these keys."""
    key_glob: str | None = None
    """The shell's pattern for the whole key."""
    headers: Sequence[HeaderFilter] = ()
    grep: str | None = None
    """A regular expression that is found somewhere in the value."""
    key_grep: str | None = None
    """The same for the key."""

    def test(self) -> Test | None:
        """The test of all of it; None where everything passes. Raises InvalidInputError for what
        is no regular expression."""
        tests: list[Test] = []
        if self.keys:
            keys = frozenset(self.keys)
            tests.append(lambda record: record.key in keys)
        if self.key_glob is not None:
            glob = self.key_glob
            tests.append(lambda record: glob_matches(text_of(record.key), glob))
        if self.key_grep is not None:
            search_key = _searching(self.key_grep)
            tests.append(lambda record: search_key(record.key))
        tests += [_having(wanted) for wanted in self.headers]
        if self.grep is not None:
            search = _searching(self.grep)
            tests.append(lambda record: search(record.value))
        tests += self.where  # the slowest last
        if len(tests) > 1:
            return lambda record: all(test(record) for test in tests)
        return tests[0] if tests else None

    def described(self) -> dict[str, object]:
        """The same as JSON: what a resume file compares."""
        return {
            "where": [one.text for one in self.where],
            "keys": [text_of(key) for key in self.keys],
            "key_glob": self.key_glob,
            "headers": [[name, _described(value)] for name, value in self.headers],
            "grep": self.grep,
            "key_grep": self.key_grep,
        }


def _described(value: bytes | _Any | None) -> str | bool | None:
    return text_of(value) if isinstance(value, bytes) else None if value is None else True


def _searching(pattern: str) -> Callable[[bytes | None], bool]:
    try:
        search = re.compile(pattern).search
    except (re.error, RecursionError, OverflowError) as error:
        raise InvalidInputError(f"{pattern!r} is no regular expression: {error}") from None

    def found(data: bytes | None) -> bool:
        return data is not None and search(data.decode("utf-8", "surrogateescape")) is not None

    return found


def _having(wanted: HeaderFilter) -> Test:
    name, value = wanted
    if isinstance(value, _Any):
        return lambda record: any(one == name for one, _ in record.headers)
    pair = (name, value)
    return lambda record: any(one == pair for one in record.headers)


def change_headers(drop: Sequence[str], add: Sequence[Header]) -> Transform | None:
    """What takes headers away whose names are as one of the shell's patterns in ``drop``, and adds
    others behind those that stay; None where nothing changes."""
    if not drop and not add:
        return None
    added = tuple(add)
    dropped: dict[str, bool] = {}

    def is_dropped(name: str) -> bool:
        known = dropped.get(name)
        if known is None:
            known = dropped[name] = any(glob_matches(name, pattern) for pattern in drop)
        return known

    def change(records: Sequence[ConsumerRecord]) -> Sequence[ConsumerRecord]:
        return [
            record._replace(
                headers=(*(pair for pair in record.headers if not is_dropped(pair[0])), *added)
            )
            for record in records
        ]

    return change
