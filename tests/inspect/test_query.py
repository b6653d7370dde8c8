"""What is searched for: tests of records, and of the bytes that come first."""

from __future__ import annotations

import re
import sys
import warnings
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from logstore.errors import InvalidInputError
from logstore.fetcher import ConsumerRecord
from logstore.inspect.json_path import parse_json_test
from logstore.inspect.query import HeaderTest, Query, literal_prefix


def record(value: bytes | None = None, key: bytes | None = None, **headers: Any) -> ConsumerRecord:
    return ConsumerRecord("t", 0, 0, 0, key, value, tuple(headers.items()))


def matches(query: Query, found: ConsumerRecord) -> bool:
    return bool(query.compiled().matches(found))


@pytest.mark.parametrize(
    ("pattern", "prefix"),
    [
        ("timeout", "timeout"),
        ("^time", "time"),
        (r"a\.b", "a.b"),
        (r"status=5\d\d", "status=5"),
        ("ab*", "a"),
        ("ab?", "a"),
        ("ab{0}", "a"),
        ("ab+", "ab"),
        (r"a\.?", "a"),
        ("a|b", ""),
        ("(ab)", ""),
        ("(?i)ab", ""),
        ("(?x)a b", ""),
        (r"\bab", ""),
        ("^*", ""),
        ("", ""),
        ("a\\", "a"),
        ("é.", "é"),
    ],
)
def test_the_text_that_an_expression_begins_with(pattern: str, prefix: str) -> None:
    assert literal_prefix(pattern) == prefix


@given(pattern=st.text("ab.*+?{1}[]|()\\d^$-", max_size=8), text=st.text("ab1.*-", max_size=8))
def test_whatever_an_expression_matches_contains_the_text(pattern: str, text: str) -> None:
    try:
        compiled = Query(value=pattern).compiled()
    except InvalidInputError:
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = re.search(pattern, text)
    assert compiled.matches(record(text.encode())) == (found is not None)
    if found:
        assert compiled.may_match(b"\0" + text.encode() + b"\0")


def test_no_other_character_is_equal_to_those_that_are_searched_for_regardless_of_case() -> None:
    characters = "".join(map(chr, range(128, sys.maxunicode + 1)))
    for number in range(32, 127):
        letter = chr(number).lower()
        if letter in "iks":
            continue
        pattern = re.compile(re.escape(letter), re.IGNORECASE)
        assert pattern.search(characters) is None, letter
        assert (
            Query(value=letter * 2, fixed=True, ignore_case=True).compiled().may_match(b"") is False
        )


def test_letters_with_relatives_outside_of_ascii_are_found_regardless_of_case() -> None:
    query = Query(value="kiosk", ignore_case=True).compiled()
    value = "\u212aio\u017f\u212a".encode()
    assert query.may_match(value)
    assert query.matches(record(value))


def test_a_pattern_is_found_in_bytes_that_are_no_text() -> None:
    assert matches(Query(value="\udcff.b"), record(b"\xff-b"))
    assert matches(Query(value="\udcff", fixed=True), record(b"a\xff"))


def test_all_of_it_has_to_hold() -> None:
    query = Query(value="b", key="^k", headers=[HeaderTest("n"), HeaderTest("m", "^x$")])
    assert matches(query, record(b"abc", b"k1", n=None, m=b"x"))
    assert not matches(query, record(b"abc", b"lk", n=None, m=b"x"))
    assert not matches(query, record(b"abc", b"k1", m=b"x"))
    assert not matches(query, record(b"abc", b"k1", n=None, m=b"xx"))
    assert matches(query._replace(invert=True), record(b"abc", b"lk"))
    assert query._replace(invert=True).compiled().may_match(b"")


def test_null_is_found_by_no_pattern_but_the_empty_one_of_the_value() -> None:
    assert not matches(Query(value=".*"), record(None))
    assert not matches(Query(key=""), record(b"v"))
    assert matches(Query(value=""), record(None))


def test_what_is_no_regular_expression_is_told() -> None:
    with pytest.raises(InvalidInputError, match="is no regular expression"):
        Query(value="(").compiled()
    assert matches(Query(value="(", fixed=True), record(b"()"))
    assert matches(Query(value="(A", fixed=True, ignore_case=True), record(b"(a)"))


DOCUMENT = b'{"user": {"id": 42, "na\\u006de": "x", "a b": null}, "items": [{"n": 1}, {"n": 2.0}]}'


@pytest.mark.parametrize(
    ("test", "holds"),
    [
        ("$", True),
        ("$.user.id", True),
        ("$.user.id=42", True),
        ("$.user.id=42.0", True),
        ("$.user.id=43", False),
        ("$.user.id=true", False),
        ("$.user.name=x", True),
        ('$.user.name="x"', True),
        ("$.user.nam", False),
        ("$.user['a b']", True),
        ("$.user['a b']=null", True),
        ("$.items[0].n=1", True),
        ("$.items[-1].n=2", True),
        ("$.items[2]", False),
        ("$.items[*].n=2", True),
        ("$.items.*.n=3", False),
        ("$.*.id=42", True),
        ('$.items[0]={"n": 1}', True),
        ('$.items=[{"n": 1}, {"n": 2}]', True),
        ("$.user.id=", False),
    ],
)
def test_json_paths(test: str, holds: bool) -> None:
    query = Query(json=[parse_json_test(test)]).compiled()
    assert bool(query.matches(record(DOCUMENT))) is holds
    assert query.may_match(DOCUMENT) or not holds


@pytest.mark.parametrize("value", [None, b"", b"no JSON", b"\xff", b"[" * 100_000, b"{", b"1"])
def test_what_is_no_such_json_does_not_match(value: bytes | None) -> None:
    assert not matches(Query(json=[parse_json_test("$.a")]), record(value))


@pytest.mark.parametrize("path", ["a", "", "$a", "$.", "$..a", "$[a]", "$['a]", "$[?(@.a)]", "$[1"])
def test_what_is_no_json_path_is_told(path: str) -> None:
    with pytest.raises(InvalidInputError, match="is no JSON path"):
        parse_json_test(path)
