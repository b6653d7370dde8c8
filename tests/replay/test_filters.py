"""Filters: which records pass, and what becomes of their headers."""

from __future__ import annotations

from typing import Any

import pytest

from logstore import ConsumerRecord
from logstore.errors import InvalidInputError
from logstore.replay.expressions import compile_expression
from logstore.replay.filters import Filters, HeaderFilter, change_headers

from .support import row

ROWS = [
    row(0, b'{"total": 5}', key=b"order-1", headers=[("type", b"created")]),
    row(1, b'{"total": 50}', key=b"order-2", headers=[("type", b"created"), ("type", b"paid")]),
    row(2, b"caf\xc3\xa9", key=b"user-1", headers=[("trace", None)]),
    row(3, b"\xff\x00", key=b"\xff"),
    row(4, None),  # type: ignore[arg-type]
]


def where(text: str) -> dict[str, Any]:
    return {"where": [compile_expression(text)]}


@pytest.mark.parametrize(
    ("wanted", "offsets"),
    [
        (where("json.total > 10"), [1]),
        (where("offset % 2 == 0"), [0, 2, 4]),
        ({"where": [compile_expression("offset > 0"), compile_expression("offset < 3")]}, [1, 2]),
        ({"keys": [b"order-1"]}, [0]),
        ({"keys": [b"order-1", b"\xff", b"none"]}, [0, 3]),
        ({"key_glob": "order-*"}, [0, 1]),
        ({"key_glob": "*-1"}, [0, 2]),
        ({"key_glob": "order-[!1]"}, [1]),
        ({"key_glob": "\udcff"}, [3]),
        ({"key_glob": "*"}, [0, 1, 2, 3]),
        ({"key_grep": "^(order|user)-1$"}, [0, 2]),
        ({"grep": r'"total": \d{2}'}, [1]),
        ({"grep": "é$"}, [2]),
        ({"grep": ""}, [0, 1, 2, 3]),
        ({"headers": [HeaderFilter("type")]}, [0, 1]),
        ({"headers": [HeaderFilter("type", b"paid")]}, [1]),
        ({"headers": [HeaderFilter("type", b"created"), HeaderFilter("type", b"paid")]}, [1]),
        ({"headers": [HeaderFilter("trace", None)]}, [2]),
        ({"headers": [HeaderFilter("trace", b"")]}, []),
        ({"key_glob": "order-*", "grep": "50", **where("partition == 0")}, [1]),
    ],
)
def test_all_of_a_filter_has_to_hold(wanted: dict[str, Any], offsets: list[int]) -> None:
    test = Filters(**wanted).test()
    assert test is not None
    assert [one.offset for one in ROWS if test(one)] == offsets


def test_without_filters_there_is_no_test() -> None:
    assert Filters().test() is None
    assert change_headers([], []) is None


def test_what_is_no_regular_expression_is_refused() -> None:
    for wanted in (Filters(grep="("), Filters(key_grep="[")):
        with pytest.raises(InvalidInputError, match="is no regular expression"):
            wanted.test()


def test_filters_are_told_apart_by_their_description() -> None:
    different = [
        Filters(),
        Filters(grep="a"),
        Filters(key_grep="a"),
        Filters(keys=[b"a"]),
        Filters(key_glob="a"),
        Filters(**where("key")),
        Filters(headers=[HeaderFilter("a")]),
        Filters(headers=[HeaderFilter("a", None)]),
        Filters(headers=[HeaderFilter("a", b"")]),
    ]
    described = [str(one.described()) for one in different]
    assert len(set(described)) == len(described)


def test_headers_are_dropped_by_pattern_and_added_behind() -> None:
    change = change_headers(["ty*", "none"], [("from", b"t"), ("null", None)])
    assert change is not None
    changed = change(ROWS)
    added = (("from", b"t"), ("null", None))
    assert [one.headers for one in changed] == [
        added,
        added,
        (("trace", None), *added),
        added,
        added,
    ]
    assert [one[:6] for one in changed] == [one[:6] for one in ROWS]
    assert isinstance(changed[0], ConsumerRecord)
