"""Expressions: what they say about records and states, what they refuse, and that nothing gets out
of them or blows up in them."""

from __future__ import annotations

import ast
import dataclasses
import datetime
import enum
import os
import types
from collections import Counter, defaultdict
from decimal import Decimal
from fractions import Fraction
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from logstore import ConsumerRecord
from logstore.replay.expressions import (
    MAX_DEPTH,
    MAX_LENGTH,
    ExpressionError,
    compile_expression,
)
from logstore.replay.operators import MAX_BITS, MAX_TEXT

ORDER = ConsumerRecord(
    "orders",
    3,
    42,
    1_700_000_000_000,
    b"order-7",
    b'{"total": 120, "paid": true, "note": null, "who": {"name": "Zo\xc3\xab"},'
    b' "items": [{"sku": "a", "qty": 3}, {"sku": "b", "qty": 1}], "count": 9}',
    [("type", b"created"), ("trace", None), ("type", b"changed")],
)
BINARY = ConsumerRecord("t", 0, 0, -1, b"\xff\x00key", b"\xfe\xff", [])
NULLS = ConsumerRecord("t", 0, 0, -1, None, None, [])


def value_of(text: str, record: ConsumerRecord = ORDER, **options: Any) -> Any:
    return compile_expression(text, **options)(record)


def of_state(text: str, state: Any) -> Any:
    return compile_expression(text, with_state=True)(ORDER, state)


def error_of(text: str, state: Any = None, record: ConsumerRecord = ORDER) -> ExpressionError:
    with pytest.raises(ExpressionError) as caught:
        compile_expression(text, with_state=state is not None)(record, state)
    return caught.value


# --- what they say ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("key", "order-7"),
        ("record.key == key", True),
        ("topic + ':' + str(partition)", "orders:3"),
        ("offset", 42),
        ("timestamp == time('2023-11-14T22:13:20Z')", True),
        ("key.startswith('order-') and json.total > 100", True),
        ("key.startswith(('a', 'o'))", True),
        ("key == b'order-7'", True),
        ("json.who.name == 'Zoë'", True),
        ("json['who']['name'].upper()", "ZOË"),
        ("json.items[0].qty + json.items[-1].qty", 4),
        ("json.items[7].qty", None),
        ("json.count", 9),
        ("100 < json.total <= 120 < 121", True),
        ("0 < json.total < 100", False),
        ("'paid' in json and json.paid is true", True),
        ("json.note is null and json.none is None", True),
        ("json.get('nope', 5)", 5),
        ("headers.type", "changed"),
        ("headers['trace'] is null and 'trace' in headers", True),
        ("len(headers)", 2),
        ("'nope' not in headers", True),
        ("key in ('order-6', 'order-7')", True),
        ("key[0:5] + key[-1:]", "order7"),
        ("json.total // 7 % 4 - -2 ** 3", 17 % 4 + 8),
        ("6 & 3 | 8 ^ 1", 6 & 3 | 8 ^ 1),
        ("1 << 4 >> 2", 4),
        ("~5", -6),
        ("'low' if json.total < 100 else 'high'", "high"),
        ("not json.paid or json.total == 120", True),
        ("max(json.total, 500, null)", 500),
        ("min(json.items[0].qty, 2)", 2),
        ("sum([1, 2.5, null])", 3.5),
        ("any([0, json.paid]) and not all([null, true])", True),
        ("int('12') + int('x1') is null", True),
        ("float('1.5') * 2", 3.0),
        ("abs(-3) + round(2.567, 1)", 5.6),
        ("size('ë') == 2 and len('ë') == 1", True),
        ("kind(json)", "mapping"),
        (
            "kind(json.nope) + kind(true) + kind(1) + kind('') + kind([])",
            "nullbooleannumbertextlist",
        ),
        ("glob(key, 'order-?')", True),
        ("glob(key, 'ORDER-*')", False),
        ("has(json, 'note') and not has(json, 'nope')", True),
        ("key.split('-')[1]", "7"),
        ("' x '.strip() + 'abc'.removeprefix('a')", "xbc"),
        ("value.count('qty')", 2),
        ("  offset + 1", 43),
        ("(offset\n + 1)", 43),
    ],
)
def test_an_expression_has_its_value(text: str, expected: Any) -> None:
    assert value_of(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "key > 'a'", "json.total > 5", "json.a.b.c", "json['a'][0]", "key.upper()", "key[0:2]",
        "json.total + 1", "-json.total", "len(key)", "key < json.total", "json.x in json.y",
        "abs(json)", "round(json)", "sum(json)", "int(key)", "time(key)", "str(key)",
        "glob(key, '*')",
        "json.a << 2", "json.a & 1", "~json.a", "+json.a", "key.count('a')", "size(value)",
    ],
)  # fmt: skip
def test_null_is_no_error_and_never_true(text: str) -> None:
    assert not value_of(text, NULLS)


def test_a_value_that_is_no_json_has_none() -> None:
    for value in (b"plain text", b"", b"{", b"\xff", b"[" * 100_000, b"9" * 5000):
        assert value_of("json", ORDER._replace(value=value)) is None
    assert value_of("json", ORDER._replace(value=b"[1, 2]")) == [1, 2]


def test_bytes_that_are_no_text_are_told_apart() -> None:
    assert value_of("key == b'\\xff\\x00key'", BINARY)
    assert not value_of("key == b'\\xfe\\x00key'", BINARY)
    assert value_of("size(value)", BINARY) == 2
    assert value_of("key.endswith('key')", BINARY)


def test_several_looks_at_the_json_parse_it_once_and_never_an_older_one() -> None:
    expression = compile_expression("json.n + json.n")
    for number in range(5):
        record = ORDER._replace(value=b'{"n": %d}' % number)
        assert expression(record) == 2 * number


def test_a_time_may_be_an_age() -> None:
    assert value_of("time('10m')", now_ms=1_000_000) == 400_000
    assert "is no time" in str(error_of("time('yesterday')"))


def test_the_names_that_an_expression_looks_at_are_known() -> None:
    assert compile_expression("key and record.offset > 1 and json.state").names == {
        "key", "offset", "json"
    }  # fmt: skip


# --- states -------------------------------------------------------------------------------------


@dataclasses.dataclass
class Account:
    owner: str
    balance: int
    _secret: int = 1

    @property
    def doubled(self) -> int:
        return 2 * self.balance

    def withdraw(self) -> None:
        raise AssertionError("an expression has called it")


@dataclasses.dataclass(slots=True)
class Slotted:
    balance: int


class Pair(NamedTuple):
    balance: int
    other: bytes


class Colour(enum.Enum):
    RED = 1


@pytest.mark.parametrize(
    ("text", "state", "expected"),
    [
        ("state.balance < 0", {"balance": -1}, True),
        ("state['balance'] < 0", {"balance": -1}, True),
        ("state.balance", {b"balance": 4}, 4),
        ("state['order-1'].total", {b"order-1": {"total": 9}}, 9),
        ("'order-1' in state", {b"order-1": 1}, True),
        ("'x' in state.names", {"names": [b"x"]}, True),
        ("state.last", {"last": b"text"}, "text"),
        ("state.balance + state.doubled", Account("a", 5), 15),
        ("state.balance", Slotted(3), 3),
        ("state.balance, state[1], state.other", Pair(1, b"o"), (1, "o", "o")),
        ("state.nope", defaultdict(list), None),
        ("state.a", Counter("aab"), 2),
        ("state.colour.name", {"colour": Colour.RED}, "RED"),
        ("state.when.year", {"when": datetime.datetime(2024, 5, 1)}, 2024),
        ("state.sum * 2 < 1", {"sum": Decimal("0.4")}, True),
        ("state.sum ** 2", {"sum": Fraction(1, 2)}, Fraction(1, 4)),
        ("state", 5, 5),
        ("state is null", None, True),
        ("state.balance < 0", None, False),
        ("state > record.offset", 43, True),
        ("state[7]", {7: "seven"}, "seven"),
        ("'a' in state", {"a"}, True),
        ("sum(state)", {"a": 1, "b": 2}, 3),
    ],
)
def test_a_state_is_looked_into_whatever_it_is(text: str, state: Any, expected: Any) -> None:
    assert of_state(text, state) == expected


def test_looking_into_a_default_dict_does_not_fill_it() -> None:
    state: defaultdict[str, list[int]] = defaultdict(list)
    assert of_state("state.a or state['b']", state) is None
    assert not state


def test_an_object_without_the_field_says_which_it_has() -> None:
    error = error_of("state.balanse < 0", Account("a", 5))
    assert "an Account has no 'balanse'" in str(error).replace("a Account", "an Account")
    assert "balance, doubled, owner" in str(error)
    assert "_secret" not in str(error)


def test_a_mapping_without_the_field_can_be_asked_about_it_afterwards() -> None:
    expression = compile_expression("state.balanse < 0 and state.who.nam", with_state=True)
    assert expression.missing(ORDER, {"balance": 1}) == ["balanse"]
    assert compile_expression("state.balance", with_state=True).missing(ORDER, {"balance": 1}) == []
    assert compile_expression("json.totl['a']").missing(ORDER) == ["totl"]


# --- errors point at the column -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "column", "reason"),
    [
        ("", 1, "nothing is written here"),
        ("   ", 4, "nothing is written here"),
        ("kye == 'a'", 1, "there is no 'kye'; there are topic, partition, offset"),
        ("  kye", 3, "there is no 'kye'"),
        ("key == nope", 8, "there is no 'nope'"),
        ("'ëë' == nope", 9, "there is no 'nope'"),
        ("5 5", 3, "invalid syntax"),
        ("  5 5", 5, "invalid syntax"),
        ("key == 'a", 8, "unterminated string literal"),
        ("record", 1, "a record by itself is no value"),
        ("record.nope", 1, "there is no 'nope'"),
        ("state.x", 1, "there is no state without a fold"),
        ("offset.real", 1, "offset has no fields"),
        ("key.upper", 1, "key has no fields, and so no 'upper'"),
        ("offset + foo(1)", 10, "foo() cannot be called; abs, all, any"),
        ("len(key, key)", 1, "len() takes 1 arguments, not 2"),
        ("max()", 1, "max() takes 1 to 16 arguments, not 0"),
        ("len(*key)", 1, "plain arguments only"),
        ("round(1, ndigits=2)", 1, "plain arguments only"),
        ("key is topic", 8, "'is' compares with None, True and False"),
        ("key[::2]", 7, "a piece has no step"),
        ("1j", 1, "1j is not allowed"),
        ("...", 1, "... is not allowed"),
    ],
)
def test_what_is_wrong_is_said_with_its_column(text: str, column: int, reason: str) -> None:
    error = error_of(text)
    assert error.column == column
    assert reason in error.reason
    assert f"column {column}" in str(error)


@pytest.mark.parametrize(
    ("text", "column", "reason"),
    [
        ("offset > 1 and json.total + 'a'", 16, "cannot add a number and a text"),
        ("json.total < 'a'", 1, "cannot compare a number with a text"),
        ("true and 1 / (offset - 42)", 10, "division by zero"),
        ("'ë' in offset", 1, "nothing is in a number"),
        ("json.items['a']", 1, "the place in a list is a whole number"),
        ("1 + key.find(5)", 5, ".find()"),
        ("round('a')", 1, "cannot round a text"),
        ("len(5)", 1, "a number has no length"),
    ],
)
def test_what_goes_wrong_with_a_record_names_it(text: str, column: int, reason: str) -> None:
    error = error_of(text)
    assert reason in error.reason
    assert "at orders-3, offset 42" in str(error)
    assert error.column == column


def test_what_a_state_itself_raises_is_told() -> None:
    class Broken:
        @property
        def field(self) -> int:
            raise OSError("the disk\nis gone")

    error = error_of("offset and state.field", Broken())
    assert "OSError: the disk is gone, at orders-3, offset 42" in str(error)


# --- getting out --------------------------------------------------------------------------------

ESCAPES = [
    "().__class__.__bases__[0].__subclasses__()",
    "key.__class__",
    "record.__class__",
    "json.__init__",
    "state.__class__",
    "state.__dict__",
    "state._secret",
    "(lambda: key)()",
    "[x for x in (1, 2)]",
    "{x for x in (1, 2)}",
    "{x: x for x in (1, 2)}",
    "(x for x in (1, 2))",
    "(x := 5)",
    "f'{key}'",
    "f'{state.__class__}'",
    "'{0.__class__}'.format(key)",
    "'{x}'.format_map(json)",
    "'%s' % key",
    "__import__('os').system('true')",
    "__builtins__",
    "_get",
    "_r",
    "_s",
    "_op_Add(1, 2)",
    "_call_len(key)",
    "eval('1')",
    "exec('1')",
    "open('/etc/passwd')",
    "getattr(key, 'upper')",
    "globals()",
    "vars(state)",
    "type(key)",
    "print(key)",
    "len.__self__",
    "key.encode()",
    "key.join(['a'])",
    "key.replace('a', 'b')",
    "key.ljust(5)",
    "key.center(5)",
    "key.zfill(10)",
    "key.translate({})",
    "'a'.__add__('b')",
    "json.keys()",
    "len",
    "(len or max)(key)",
    "(key.upper)()()",
    "[len][0](key)",
    "(yield 1)",
    "await key",
    "{**json}",
    "{'a': 1}",
    "{1, 2}",
    "[*key]",
    "key if key",
    "import os",
    "key; key",
    "key = 1",
    "1 @ 2",
    "True.real.__class__",
]


class Vault:
    """Keeps what an expression must not reach."""

    def __init__(self) -> None:
        self._secret = "hidden"
        self.module = os
        self.function = error_of
        self.kind = dict
        self.method = self.opened
        self.builtin = len
        self.generator = (number for number in range(3))
        self.code = error_of.__code__
        self.frame = None
        self.list = [os, len, Vault]

    def opened(self) -> str:
        raise AssertionError("an expression has called it")


@pytest.mark.parametrize("text", ESCAPES)
def test_there_is_no_way_out_of_the_language(text: str) -> None:
    assert "Traceback" not in str(error_of(text, Vault()))


@pytest.mark.parametrize(
    "text",
    [
        "state.module", "state.module.path", "state.function", "state.kind", "state.kind.fromkeys",
        "state.method", "state.opened", "state.builtin", "state.list[0]", "state.list[0].path",
        "state.list[1]", "state.list[2]", "state.generator.gi_frame", "state.code.co_code",
        "state['_secret']", "state[0]", "has(state, 1)", "state.nope",
    ],
)  # fmt: skip
def test_there_is_no_way_out_of_a_state(text: str) -> None:
    assert "at orders-3, offset 42" in str(error_of(text, Vault()))


@pytest.mark.parametrize(
    "state",
    [
        os, len, dict, Vault, error_of, error_of.__code__, (n for n in "ab"), types.SimpleNamespace,
    ],
)  # fmt: skip
def test_a_state_that_is_no_data_has_no_fields(state: Any) -> None:
    for text in ("state.path", "state.gi_frame", "state.co_code", "state.fromkeys"):
        with pytest.raises(ExpressionError):
            of_state(text, state)


def test_nothing_that_can_be_reached_lets_one_name_more() -> None:
    """Whatever is compiled names its two arguments and our own functions, and has no builtins."""
    expression = compile_expression(
        "json.a[0].b < 1 < state['x'] and glob(key, '*') if headers.h else -offset", with_state=True
    )
    names = set(expression._code.co_names)
    for constant in expression._code.co_consts:
        if isinstance(constant, types.CodeType):
            names |= set(constant.co_names) | set(constant.co_varnames)
    assert all(name.startswith("_") and not name.startswith("__") for name in names)
    assert expression._namespace["__builtins__"] == {}


# --- blowing up ---------------------------------------------------------------------------------

BOMBS = [
    "2 ** 99999",
    "2 ** 4096 ** 2",
    "9 ** 9 ** 9 ** 9",
    "(2 ** 4000) * (2 ** 4000)",
    "1 << 999999999",
    "1 << -1",
    "(1 << 4096) << 4096",
    "10.0 ** 400",
    "(-1) ** 0.5",
    "'a' * 1000000000",
    "1000000000 * 'a'",
    "[0] * 1000000000",
    "(0,) * 1000000000",
    "'%1000000000d' % 1",
    "round(1, 1000000000)",
    "9" * 1300,
    "0x" + "f" * 1100,
    "-" * 3000 + "1",
    "not " * 900 + "1",
    "(" * 1500 + "1" + ")" * 1500,
    "[" * 150 + "]" * 150,
    "key" + ".a" * 1900,
    "json" + ".a" * 1900,
    "json" + "[0]" * 1300,
    "1" + "+1" * 1900,
    "1 if 1 else " * 300 + "1",
    "1" + "<(1" * 500 + ")" * 500,
    "max(" * 200 + "1" + ")" * 200,
    "a" * (MAX_LENGTH + 1),
    "1" + "\0",
    "'\ud800'",
    "key\n.a\n.b",
]


@pytest.mark.parametrize("text", BOMBS, ids=lambda text: text[:24].encode("ascii", "replace"))
def test_what_would_blow_up_is_refused(text: str) -> None:
    error = error_of(text)
    assert len(str(error)) < 600


@pytest.mark.parametrize("text", ["int(state.huge)", "round(state.huge)", "round(state.huge, 2)"])
def test_a_short_decimal_makes_no_long_number(text: str) -> None:
    state = {"huge": Decimal("1e999999"), "not": Decimal("NaN"), "large": Decimal("1e20")}
    assert "more than" in error_of(text, state).reason
    assert of_state(text.replace("huge", "large"), state) == 10**20
    assert of_state("int(state['not'])", state) is None


def test_text_that_is_put_together_stays_within_its_bound() -> None:
    record = ORDER._replace(value=b"x" * MAX_TEXT)
    assert len(value_of("value", record)) == MAX_TEXT
    assert f"more than {MAX_TEXT} characters" in str(error_of("value + 'a'", record=record))
    larger = record._replace(value=b"x" * (MAX_TEXT + 1))
    assert "characters" in str(error_of("value.split('x')", record=larger))


def test_a_middle_of_many_comparisons_is_looked_at_once() -> None:
    looked = 0

    class Counting:
        @property
        def field(self) -> int:
            nonlocal looked
            looked += 1
            return 1

    assert of_state("0 < state.field < 2 < 3", Counting()) is True
    assert looked == 1


def test_numbers_may_be_as_large_as_said_and_no_larger() -> None:
    assert value_of("2 ** 4095").bit_length() == MAX_BITS
    for text in ("2 ** 4096", "(2 ** 4095) + (2 ** 4095)", "(2 ** 2048) * (2 ** 2048)"):
        assert "more than 4096 bits" in str(error_of(text))


def test_the_bounds_leave_room_for_what_people_write() -> None:
    text = " and ".join(f"(json.field{number} == {number} or offset >= 0)" for number in range(90))
    assert len(text) < MAX_LENGTH
    assert value_of(text)
    assert value_of("+".join("1" * (MAX_DEPTH - 1))) == MAX_DEPTH - 1


# --- properties ---------------------------------------------------------------------------------

_numbers = st.integers(-20, 20).map(lambda n: f"({n})")
_arithmetic = st.recursive(
    _numbers,
    lambda inner: st.one_of(
        st.tuples(
            inner, st.sampled_from(["+", "-", "*", "//", "%", "<", "==", "!=", ">="]), inner
        ).map(lambda parts: f"({parts[0]} {parts[1]} {parts[2]})"),
        st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(
            lambda parts: f"({parts[0]} {parts[1]} {parts[2]})"
        ),
        inner.map(lambda one: f"(not {one})"),
        inner.map(lambda one: f"(-{one})"),
        st.tuples(inner, inner, inner).map(lambda p: f"({p[0]} if {p[1]} else {p[2]})"),
        st.tuples(inner, inner, inner).map(lambda p: f"({p[0]} < {p[1]} <= {p[2]})"),
    ),
    max_leaves=12,
)


@given(_arithmetic)
@settings(max_examples=150, deadline=None)
def test_calculating_is_as_in_python(text: str) -> None:
    try:
        expected = eval(text, {"__builtins__": {}})
    except ZeroDivisionError:
        assert "division by zero" in str(error_of(text))
        return
    assert value_of(text) == expected


_WORDS = (
    "key value json headers offset state record . [ ] ( ) < > == + - * ** % , : 'a' 1 0 None and "
    "or not in is if else lambda for len max __class__ _s .a .__class__ .upper() .format [0] ['a'] "
    "b'' f'' := yield"
)
_words = st.sampled_from(_WORDS.split())


@given(st.lists(_words, max_size=12).map(" ".join) | st.text(max_size=40))
@settings(max_examples=400, deadline=None)
def test_whatever_is_written_is_a_value_or_an_error_of_ours(text: str) -> None:
    column = None
    try:
        result = compile_expression(text, with_state=True)(ORDER, {"a": 1})
    except ExpressionError as error:
        column = error.column
    else:
        assert not callable(result)
        ast.parse(text.strip(), mode="eval")  # it was Python, too
    assert column is None or 1 <= column <= len(text) + 1
