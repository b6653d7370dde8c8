"""What is searched for: tests of a record, and tests of the bytes of a whole batch that come first.

Key, value and headers each stand in one piece among the (decompressed) bytes of a batch's records.
So a text that every match has to contain is looked for there, at the speed of ``bytes.find``, and a
batch that lacks it is not decoded. Of a regular expression that is the text it begins with.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable, Sequence
from typing import NamedTuple

from logstore.errors import InvalidInputError
from logstore.fetcher import ConsumerRecord
from logstore.inspect.json_path import JsonTest
from logstore.replay.expressions import Expression

__all__ = ["CompiledQuery", "HeaderTest", "Query", "literal_prefix"]

_ENCODING = ("utf-8", "surrogateescape")
_SPECIAL = frozenset(".^$*+?{}[]\\|()")
_MANY_OR_NONE = frozenset("*?{")
_UNAMBIGUOUS = re.compile("[ -hjl-rt-~]+")
"""Characters of ASCII, in lower case, that are equal to no others when case is ignored: ``k`` is
to the sign for Kelvin, ``s`` to the long s, ``i`` to letters of Turkish."""

_Test = Callable[[ConsumerRecord], object]
_Need = Callable[[bytes], bool]


class HeaderTest(NamedTuple):
    """A header that a record has to have."""

    name: str
    pattern: str | None = None
    """What is found in its value; None: any value will do, null as well."""


class Query(NamedTuple):
    """What a record has to be; all of it has to hold."""

    value: str | None = None
    """A pattern that is found in the value; None, and an empty one: any value, null as well."""
    key: str | None = None
    headers: Sequence[HeaderTest] = ()
    json: Sequence[JsonTest] = ()
    where: Sequence[Expression] = ()
    fixed: bool = False
    """Whether patterns are texts, and not regular expressions."""
    ignore_case: bool = False
    invert: bool = False
    """Whether the records are wanted of which it does not hold."""

    def compiled(self) -> CompiledQuery:
        """The same, ready to be asked. Raises InvalidInputError for what is no regular
        expression."""
        return CompiledQuery(self)


class CompiledQuery:
    """Tests of a record, and of a batch's bytes."""

    def __init__(self, query: Query) -> None:
        self._tests: list[_Test] = []
        self._needs: list[_Need] = []
        self._fixed, self._ignore_case = query.fixed, query.ignore_case
        if query.key is not None:
            found_in_key = self._found(query.key)
            self._tests.append(lambda record: found_in_key(record.key))
        for header in query.headers:
            self._add_header(header)
        if query.value:
            found_in_value = self._found(query.value)
            self._tests.append(lambda record: found_in_value(record.value))
        for json_test in query.json:
            self._add_json(json_test)
        self._tests += query.where  # the slowest last
        holds = self._holds()
        self.matches: _Test = holds
        """Whether a record is wanted; raises what an expression raises."""
        if query.invert:
            self._needs.clear()
            self.matches = lambda record: not holds(record)

    def _holds(self) -> _Test:
        """One test instead of several: a call less for each record where there is one already."""
        tests = self._tests
        if len(tests) == 1:
            return tests[0]
        return lambda record: all(test(record) for test in tests)

    def may_match(self, body: bytes | None) -> bool:
        """Whether one of the records may be wanted whose bytes these are; None: nobody knows."""
        if body is not None:
            for need in self._needs:
                if not need(body):
                    return False
        return True

    # Making tests -----------------------------------------------------------------------------

    def _found(self, pattern: str) -> Callable[[bytes | None], bool]:
        """The test of a key or value, whose needs are added."""
        if self._fixed and not self._ignore_case:
            text = os.fsencode(pattern)
            self._needs.append(lambda body: text in body)
            return lambda data: data is not None and text in data
        search = compiled_pattern(pattern, fixed=self._fixed, ignore_case=self._ignore_case).search
        need = self._need_of(pattern if self._fixed else literal_prefix(pattern))
        if need is None:
            return lambda data: data is not None and search(data.decode(*_ENCODING)) is not None
        self._needs.append(need)
        # The same text spares most records of a batch that is decoded the expression.
        return lambda data: (
            data is not None and need(data) and search(data.decode(*_ENCODING)) is not None
        )

    def _need_of(self, text: str) -> _Need | None:
        """The test for a text that has to be there; None where it would spare nothing."""
        if self._ignore_case:
            text = max(_UNAMBIGUOUS.findall(text.lower()), key=len, default="")
            if len(text) < 2:  # that is everywhere
                return None
            folded = text.encode("ascii")
            return lambda body: folded in body.lower()
        encoded = text.encode(*_ENCODING)
        return (lambda body: encoded in body) if encoded else None

    def _add_header(self, header: HeaderTest) -> None:
        name = header.name
        encoded = name.encode(*_ENCODING)
        self._needs.append(lambda body: encoded in body)
        if header.pattern is None:
            self._tests.append(lambda record: any(one == name for one, _ in record.headers))
        else:
            found = self._found(header.pattern)
            self._tests.append(
                lambda record: any(one == name and found(value) for one, value in record.headers)
            )

    def _add_json(self, json_test: JsonTest) -> None:
        test = json_test.compiled()
        self._tests.append(lambda record: test(record.value))
        for name in json_test.path.names:
            if name.isalnum():  # JSON may write anything as \u0041, and some others as \/ or \n
                self._needs.append(_named(name.encode(*_ENCODING)))


def _named(name: bytes) -> _Need:
    return lambda body: name in body or b"\\u" in body


def compiled_pattern(pattern: str, *, fixed: bool, ignore_case: bool) -> re.Pattern[str]:
    """The regular expression of a pattern; raises InvalidInputError for what is none."""
    flags = re.IGNORECASE if ignore_case else 0
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what other versions of Python may make of it
            return re.compile(re.escape(pattern) if fixed else pattern, flags)
    except (re.error, RecursionError, OverflowError) as error:
        raise InvalidInputError(f"{pattern!r} is no regular expression: {error}") from None


def literal_prefix(pattern: str) -> str:
    """The text with which everything begins that a regular expression matches; empty where that
    cannot be told at a glance. (Python's parser of expressions, which could tell more, is none of
    its public modules.)"""
    if "|" in pattern:
        return ""
    found: list[str] = []
    position = 1 if pattern.startswith("^") else 0
    while position < len(pattern):
        character = pattern[position]
        length = 1
        if character == "\\":
            character = pattern[position + 1 : position + 2]
            length = 2
            if not character or character.isalnum() or not character.isascii():
                break  # \d, \1, ... are no text
        elif character in _SPECIAL:
            break
        if pattern[position + length : position + length + 1] in _MANY_OR_NONE:
            break
        found.append(character)
        position += length
    return "".join(found)
