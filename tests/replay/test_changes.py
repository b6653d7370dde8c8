"""States as plain data, and what has changed between two of them."""

from __future__ import annotations

import dataclasses
import enum
import json
from collections import Counter, OrderedDict, defaultdict
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from logstore.replay.changes import Change, as_data, changes


@dataclasses.dataclass
class Account:
    balance: int
    owner: str = "a"
    _secret: int = 0


@dataclasses.dataclass(slots=True)
class Slotted:
    balance: int


class Plain:
    def __init__(self, **fields: Any) -> None:
        self.__dict__.update(fields)


class OnlySlots:
    __slots__ = ("left", "right")

    def __init__(self) -> None:
        self.left, self.right = 1, 2


class Pair(NamedTuple):
    a: int
    b: int


class Colour(enum.Enum):
    RED = 1


class Level(enum.IntEnum):
    LOW = 1


class Angry:
    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no")

    def __str__(self) -> str:
        raise RuntimeError("no")

    __hash__ = None  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("value", "data"),
    [
        (None, None),
        (True, True),
        (5, 5),
        (1.5, 1.5),
        (float("nan"), "nan"),
        (float("-inf"), "-inf"),
        ("text", "text"),
        (b"bytes", "bytes"),
        (b"\xff", {"base64": "/w=="}),
        ([1, (2, 3)], [1, [2, 3]]),
        ({3, 1, 2}, [1, 2, 3]),
        ({b"k": {1: b"v"}}, {"k": {"1": "v"}}),
        (defaultdict(list, a=[1]), {"a": [1]}),
        (OrderedDict(b=1, a=2), {"b": 1, "a": 2}),
        (Account(5, _secret=9), {"balance": 5, "owner": "a"}),
        (Slotted(5), {"balance": 5}),
        (Plain(x=1, _y=2), {"x": 1}),
        (OnlySlots(), {"left": 1, "right": 2}),
        (Pair(1, 2), {"a": 1, "b": 2}),
        (Colour.RED, "RED"),
        (Level.LOW, "LOW"),
        (Decimal("1.50"), "1.50"),
        (datetime(2024, 5, 1, tzinfo=UTC), "2024-05-01 00:00:00+00:00"),
        (object(), "<object>"),
        (Angry(), {}),
    ],
)
def test_a_state_becomes_plain_data(value: Any, data: Any) -> None:
    assert as_data(value) == data
    json.dumps(as_data(value), allow_nan=False)


def test_a_state_that_holds_itself_ends_somewhere() -> None:
    loop: list[Any] = []
    loop.append(loop)
    text = json.dumps(as_data(loop))
    assert "..." in text
    assert list(changes(loop, [1]))


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (1, 1, []),
        (1, 2, [("", 1, 2, "changed")]),
        (None, {"a": 1}, [("", None, {"a": 1}, "changed")]),
        ({"a": 1, "b": 2}, {"a": 1, "b": 3, "c": 4},
         [(".b", 2, 3, "changed"), (".c", None, 4, "added")]),
        ({"a": None}, {}, [(".a", None, None, "removed")]),
        ({"accounts": {"a-1": {"b": 1}}}, {"accounts": {"a-1": {"b": 2}}},
         [('.accounts["a-1"].b', 1, 2, "changed")]),
        ({b'k"\\': 1}, {b'k"\\': 2}, [('["k\\"\\\\"]', 1, 2, "changed")]),
        ({7: 1}, {7: 2}, [("[7]", 1, 2, "changed")]),
        ([1, 2, 3], [1, 5], [("[1]", 2, 5, "changed"), ("[2]", 3, None, "removed")]),
        ((1,), (1, 2), [("[1]", None, 2, "added")]),
        ({1, 2}, {2, 3}, [("", 1, None, "removed"), ("", None, 3, "added")]),
        (Account(5), Account(-1), [(".balance", 5, -1, "changed")]),
        (Slotted(5), Slotted(6), [(".balance", 5, 6, "changed")]),
        (Pair(1, 2), Pair(1, 3), [(".b", 2, 3, "changed")]),
        (Plain(x=1), Plain(x=1), []),
        (Plain(x=1), Plain(y=1), [(".x", 1, None, "removed"), (".y", None, 1, "added")]),
        (Counter("a"), Counter("aa"), [(".a", 1, 2, "changed")]),
        ({"_a": 1}, {"_a": 2}, [('["_a"]', 1, 2, "changed")]),
        (Account(5), {"balance": 5}, [(".owner", "a", None, "removed")]),
        ([1], {"a": 1}, [("", [1], {"a": 1}, "changed")]),
        (Angry(), Angry(), []),
        (b"\xff", b"\xfe", [("", {"base64": "/w=="}, {"base64": "/g=="}, "changed")]),
    ],
)  # fmt: skip
def test_changes_are_told_place_by_place(
    before: Any, after: Any, expected: list[tuple[str, Any, Any, str]]
) -> None:
    assert list(changes(before, after)) == [Change(*one) for one in expected]


_states = st.recursive(
    st.none() | st.integers(-3, 3) | st.sampled_from(["a", b"b"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["a", "b c", b"d", 7]), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(_states, _states)
@settings(max_examples=200, deadline=None)
def test_there_are_changes_exactly_where_the_data_differ(before: Any, after: Any) -> None:
    found = list(changes(before, after))
    assert bool(found) == (as_data(before) != as_data(after))
    for change in found:
        assert change.before != change.after or change.kind != "changed"
    # The same places, read the other way round.
    back = list(changes(after, before))
    opposite = {"added": "removed", "removed": "added", "changed": "changed"}
    assert sorted(map(str, found)) == sorted(
        str(Change(one.path, one.after, one.before, opposite[one.kind])) for one in back
    )
