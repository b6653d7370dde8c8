"""Routing: each type of exchange, what leads from one to another, and a naive matcher beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from logstore import InvalidInputError, UnknownExchangeError
from logstore.queues.definitions import BindingDefinition, ExchangeDefinition
from logstore.queues.header_matching import HeadersMatcher, check_match
from logstore.queues.routing import _MAX_CACHED, Router, extra_routing_keys
from logstore.queues.topic_patterns import TopicMatcher, normal_form

from .naive_routing import headers_match, naive_route, pattern_matches, words


def bind(
    source: str,
    destination: str,
    routing_key: str = "",
    arguments: Mapping[str, Any] | None = None,
    *,
    to: str = "queue",
) -> BindingDefinition:
    assert to in ("queue", "exchange")
    kind: Any = to
    return BindingDefinition(source, kind, destination, routing_key, arguments or {})


def router(
    exchanges: Sequence[ExchangeDefinition], bindings: Sequence[BindingDefinition], *queues: str
) -> Router:
    return Router(exchanges, queues or ("a", "b", "c"), bindings)


# One exchange -------------------------------------------------------------------------------


def test_the_default_exchange_routes_to_the_queue_of_that_name() -> None:
    found = router([], [], "a", "b")
    assert found.route("", "a") == ("a",)
    assert found.route("", "nobody") == ()
    assert found.route("", "b", extra_keys=("a", "nobody", "b")) == ("a", "b")


def test_a_direct_exchange_routes_by_the_key_itself() -> None:
    bindings = [bind("e", "a", "k"), bind("e", "b", "k"), bind("e", "a", "l"), bind("e", "c")]
    found = router([ExchangeDefinition("e", "direct")], bindings)
    assert found.route("e", "k") == ("a", "b")
    assert found.route("e", "l") == ("a",)
    assert found.route("e", "") == ("c",)
    assert found.route("e", "K") == ()
    assert found.route("e", "*") == ()
    assert found.route("e", "l", extra_keys=("", "l")) == ("a", "c")


def test_a_fanout_exchange_routes_everything_to_each_queue_once() -> None:
    bindings = [bind("e", "a", "k"), bind("e", "a", "l"), bind("e", "b")]
    found = router([ExchangeDefinition("e", "fanout")], bindings)
    assert found.route("e", "whatever") == ("a", "b")


def test_an_exchange_that_is_not_there_is_named() -> None:
    with pytest.raises(UnknownExchangeError, match="there is no exchange called 'e'"):
        router([], []).route("e", "k")


@pytest.mark.parametrize(
    ("pattern", "matching", "others"),
    [
        ("a.b", ["a.b"], ["a", "a.b.", "a.c", ".a.b", "A.b", ""]),
        ("*", ["a", "b"], ["", "a.b", "."]),
        ("*.b", ["a.b", ".b"], ["b", "a.a.b", "a.b.c"]),
        ("a.*", ["a.b", "a."], ["a", "a.b.c"]),
        ("*.*", ["a.b", "."], ["a", "a.b.c"]),
        ("#", ["", "a", "a.b", "..", "a..b"], []),
        ("#.b", ["b", "a.b", "a.a.b", ".b"], ["", "b.a", "b."]),
        ("a.#", ["a", "a.b", "a.b.c", "a."], ["", "b", "b.a"]),
        ("a.#.b", ["a.b", "a.x.b", "a.x.y.b", "a.b.b"], ["a", "b", "a.x", "a.b.c"]),
        ("#.a.#", ["a", "x.a", "a.x", "x.a.x"], ["", "x", "x.x"]),
        ("#.#", ["", "a", "a.b"], []),
        ("*.#", ["a", "a.b"], [""]),
        ("#.*", ["a", "a.b"], [""]),
        ("#.*.#.*.#", ["a.b", "a.b.c"], ["", "a"]),
        ("*.x.#.y.*", ["a.x.y.b", "a.x.1.2.y.b"], ["a.x.y", "x.y.b", "a.x.y.b.c"]),
        ("", [""], ["a", "."]),
        ("a*", ["a*"], ["ab"]),
        ("a.b#", ["a.b#"], ["a.b", "a.bc"]),
        ("..", [".."], [".", "...", ""]),
        ("é.#", ["é.x"], ["e.x"]),
    ],
)
def test_a_topic_pattern_stands_for_these_keys(
    pattern: str, matching: list[str], others: list[str]
) -> None:
    found = router([ExchangeDefinition("e", "topic")], [bind("e", "a", pattern)])
    assert [key for key in matching if found.route("e", key) != ("a",)] == []
    assert [key for key in others if found.route("e", key) != ()] == []


WORDS = st.sampled_from(["a", "b", "", "*", "#"])
PATTERNS = st.lists(WORDS, max_size=6).map(".".join)
KEYS = st.lists(st.sampled_from(["a", "b", "c", ""]), max_size=7).map(".".join)


@given(st.lists(PATTERNS, max_size=8), st.lists(KEYS, max_size=5))
@settings(max_examples=300)
def test_topic_patterns_match_as_a_naive_matcher_says(patterns: list[str], keys: list[str]) -> None:
    matcher: TopicMatcher[int] = TopicMatcher()
    for number, pattern in enumerate(patterns):
        matcher.add(pattern, number)
    for key in keys:
        expected = {
            number
            for number, pattern in enumerate(patterns)
            if pattern_matches(words(pattern), words(key))
        }
        assert set(matcher.match(key)) == expected


def test_runs_of_wildcards_that_mean_the_same_become_the_same() -> None:
    assert normal_form("#.#.#") == ["#"]
    assert normal_form("#.*.#.*") == normal_form("*.*.#") == ["*", "*", "#"]
    assert normal_form("a.#.*.b") == ["a", "*", "#", "b"]
    assert normal_form("") == []


LONGEST_KEY = ".".join("a" * 128)
"""As many words as 255 bytes can have."""


@pytest.mark.parametrize(
    "pattern",
    [
        ".".join("#" * 128),
        ".".join(["#", "*"] * 64),
        ".".join(["#", "a"] * 64),
        ".".join(["#", "a"] * 63 + ["#", "b"]),
        ".".join(["*", "#", "a"] * 42),
        ".".join("a" * 128),
    ],
)
def test_no_pattern_costs_more_steps_than_its_length_times_the_keys(pattern: str) -> None:
    matcher: TopicMatcher[str] = TopicMatcher()
    matcher.add(pattern, "a")
    matcher.match(LONGEST_KEY)
    nodes = len(words(pattern)) + 1
    assert 0 < matcher.steps <= nodes * len(words(LONGEST_KEY))


def test_many_hostile_patterns_cost_no_more_steps_than_the_trie_has_nodes_times_words() -> None:
    matcher: TopicMatcher[int] = TopicMatcher()
    nodes = 1
    for number in range(1, 65):
        pattern = ".".join(["#", "a"] * number)
        matcher.add(pattern, number)
        nodes += 2  # each is the one before, and two words
    assert len(matcher.match(LONGEST_KEY)) == 64
    assert matcher.steps <= nodes * 128


def test_bindings_that_cannot_match_cost_nothing() -> None:
    matcher: TopicMatcher[int] = TopicMatcher()
    for number in range(10_000):
        matcher.add(f"customer.{number}.order.*", number)
    assert list(matcher.match("customer.77.order.paid")) == [77]
    assert matcher.steps <= 4 * 2


# Headers ------------------------------------------------------------------------------------

MOMENT = datetime.fromtimestamp(5, UTC)


@pytest.mark.parametrize(
    ("arguments", "headers", "expected"),
    [
        ({}, {}, True),
        ({"x-match": "all"}, {"a": 1}, True),
        ({"x-match": "any"}, {"a": 1}, False),
        ({"a": 1, "b": 2}, {"a": 1, "b": 2, "c": 3}, True),
        ({"a": 1, "b": 2}, {"a": 1}, False),
        ({"x-match": "all", "a": 1, "b": 2}, {"a": 1, "b": 3}, False),
        ({"x-match": "any", "a": 1, "b": 2}, {"b": 2}, True),
        ({"x-match": "any", "a": 1, "b": 2}, {"a": 2, "b": 1}, False),
        # nothing is compared whose name begins with x-, unless asked for
        ({"a": 1, "x-a": 1}, {"a": 1}, True),
        ({"x-match": "any", "x-a": 1}, {"x-a": 1}, False),
        ({"x-match": "all-with-x", "a": 1, "x-a": 1}, {"a": 1}, False),
        ({"x-match": "all-with-x", "a": 1, "x-a": 1}, {"a": 1, "x-a": 1}, True),
        ({"x-match": "any-with-x", "a": 2, "x-a": 1}, {"a": 1, "x-a": 1}, True),
        ({"x-match": "all-with-x"}, {}, True),
        # presence
        ({"a": None}, {"a": "whatever"}, True),
        ({"a": None}, {"a": None}, True),
        ({"a": None}, {"b": 1}, False),
        ({"a": 1}, {"a": None}, False),
        ({"x-match": "any", "a": None, "b": 1}, {"a": False}, True),
        # values
        ({"a": 1}, {"a": 1.0}, True),
        ({"a": 1}, {"a": True}, False),
        ({"a": True}, {"a": True}, True),
        ({"a": "x"}, {"a": b"x"}, True),
        ({"a": "1"}, {"a": 1}, False),
        ({"a": ""}, {"a": None}, False),
        ({"a": MOMENT}, {"a": MOMENT}, True),
        ({"a": MOMENT}, {"a": 5}, True),
        ({"a": Decimal("1.50")}, {"a": Decimal("1.5")}, False),
        ({"a": Decimal("1.5")}, {"a": Decimal("1.5")}, True),
        ({"a": Decimal("1")}, {"a": 1}, False),
        ({"a": [1, "x"]}, {"a": [1, "x"]}, True),
        ({"a": [1]}, {"a": [1.0]}, False),
        ({"a": [1, 2]}, {"a": [2, 1]}, False),
        ({"a": {"b": 1}}, {"a": {"b": 1}}, True),
        ({"a": {"b": 1}}, {"a": {"b": True}}, False),
        ({"a": float("nan")}, {"a": float("nan")}, False),
    ],
)
def test_a_binding_of_a_headers_exchange_is_met_by_these_headers(
    arguments: dict[str, Any], headers: dict[str, Any], expected: bool
) -> None:
    found = router([ExchangeDefinition("e", "headers")], [bind("e", "a", "", arguments)])
    assert found.route("e", "ignored", headers) == (("a",) if expected else ())
    if not headers:
        assert found.route("e", "ignored", None) == (("a",) if expected else ())


PLAIN_VALUES = st.sampled_from([None, True, False, 0, 1, 1.0, "1", b"1", "", MOMENT, 5])
NAMES = st.sampled_from(["a", "b", "x-a", "x-b"])
HEADERS = st.dictionaries(NAMES, PLAIN_VALUES, max_size=4)
MATCHES = st.sampled_from([None, "all", "any", "all-with-x", "any-with-x"])


@st.composite
def arguments(draw: st.DrawFn) -> dict[str, Any]:
    made: dict[str, Any] = draw(HEADERS)
    match = draw(MATCHES)
    return {**made, "x-match": match} if match else made


@given(st.lists(arguments(), max_size=8), HEADERS)
@settings(max_examples=300)
def test_headers_match_as_a_naive_matcher_says(
    bindings: list[dict[str, Any]], headers: dict[str, Any]
) -> None:
    matcher = HeadersMatcher((arguments, number) for number, arguments in enumerate(bindings))
    expected = {n for n, arguments in enumerate(bindings) if headers_match(arguments, headers)}
    assert set(matcher.match(headers)) == expected


def test_a_message_is_compared_with_the_bindings_that_share_its_rarest_pair_and_no_others() -> None:
    matcher = HeadersMatcher(
        ({"kind": "order", "customer": number}, number) for number in range(1000)
    )
    assert list(matcher.match({"kind": "order", "customer": 7})) == [7]
    assert matcher.steps == 1


@pytest.mark.parametrize("match", ["some", "ALL", 1, None, ""])
def test_an_x_match_that_is_none_is_refused(match: Any) -> None:
    with pytest.raises(InvalidInputError, match="x-match is one of all, any, all-with-x, any-with"):
        check_match({"x-match": match})
    check_match({})
    check_match({"x-match": "any-with-x"})


# From exchange to exchange ------------------------------------------------------------------


def test_a_queue_gets_a_message_once_however_many_ways_lead_to_it() -> None:
    exchanges = [ExchangeDefinition(name, "fanout") for name in ("top", "left", "right")]
    bindings = [
        bind("top", "left", to="exchange"),
        bind("top", "right", to="exchange"),
        bind("left", "a"),
        bind("right", "a"),
        bind("right", "b"),
        bind("top", "a"),
    ]
    assert router(exchanges, bindings).route("top", "k") == ("a", "b")


def test_cycles_of_exchanges_end() -> None:
    exchanges = [ExchangeDefinition(name, "fanout") for name in "xyz"]
    bindings = [
        bind("x", "y", to="exchange"),
        bind("y", "z", to="exchange"),
        bind("z", "x", to="exchange"),
        bind("y", "y", to="exchange"),
        bind("z", "a"),
    ]
    found = router(exchanges, bindings)
    assert [found.route(name, "k") for name in "xyz"] == [("a",)] * 3


def test_every_exchange_on_the_way_goes_by_its_own_type_and_the_message_s_key() -> None:
    exchanges = [ExchangeDefinition("t", "topic"), ExchangeDefinition("d", "direct", internal=True)]
    bindings = [bind("t", "d", "order.#", to="exchange"), bind("d", "a", "order.paid")]
    found = router(exchanges, bindings)
    assert found.route("t", "order.paid") == ("a",)
    assert found.route("t", "order.made") == ()
    assert found.route("t", "paid") == ()


def test_the_alternate_exchange_gets_what_no_binding_is_met_by() -> None:
    exchanges = [
        ExchangeDefinition("e", "direct", alternate_exchange="spare"),
        ExchangeDefinition("spare", "fanout"),
    ]
    found = router(exchanges, [bind("e", "a", "k"), bind("spare", "b")])
    assert found.route("e", "k") == ("a",)
    assert found.route("e", "other") == ("b",)


def test_a_binding_to_an_exchange_that_finds_nothing_is_met_all_the_same() -> None:
    exchanges = [
        ExchangeDefinition("e", "fanout", alternate_exchange="spare"),
        ExchangeDefinition("empty", "fanout"),
        ExchangeDefinition("spare", "fanout"),
    ]
    bindings = [bind("e", "empty", to="exchange"), bind("spare", "b")]
    assert router(exchanges, bindings).route("e", "k") == ()


def test_alternate_exchanges_of_exchanges_on_the_way_count_chains_and_cycles_included() -> None:
    exchanges = [
        ExchangeDefinition("e", "fanout"),
        ExchangeDefinition("d", "direct", alternate_exchange="f"),
        ExchangeDefinition("f", "direct", alternate_exchange="g"),
        ExchangeDefinition("g", "topic", alternate_exchange="d"),
    ]
    bindings = [bind("e", "d", to="exchange"), bind("g", "a", "a.#")]
    found = router(exchanges, bindings)
    assert found.route("e", "a.b") == ("a",)
    assert found.route("e", "b") == ()


def test_an_alternate_exchange_that_is_not_there_and_the_default_one_as_one() -> None:
    exchanges = [
        ExchangeDefinition("e", "direct", alternate_exchange="gone"),
        ExchangeDefinition("f", "direct", alternate_exchange=""),
    ]
    found = router(exchanges, [])
    assert found.route("e", "a") == ()
    assert found.route("f", "a") == ("a",)
    assert found.route("f", "nobody") == ()


def test_bindings_from_and_to_what_is_not_there_count_as_none() -> None:
    exchanges = [ExchangeDefinition("e", "fanout", alternate_exchange="f")]
    exchanges.append(ExchangeDefinition("f", "fanout"))
    bindings = [bind("e", "gone"), bind("e", "gone", to="exchange"), bind("f", "a")]
    assert router(exchanges, [*bindings, bind("gone", "b")]).route("e", "k") == ("a",)


# Sender-selected distribution ---------------------------------------------------------------


def test_the_sender_selects_more_keys_by_cc_and_bcc() -> None:
    assert extra_routing_keys({"CC": ["a", "b"], "BCC": ["c"], "x": 1}) == ("a", "b", "c")
    assert extra_routing_keys({"x": 1}) == extra_routing_keys(None) == ()
    assert extra_routing_keys({"CC": ["a", 1], "BCC": [None, "b"]}) == ("a", "b")
    for wrong in ({"CC": "a"}, {"BCC": 1}, {"CC": None}):
        with pytest.raises(InvalidInputError, match="is a list of routing keys, not"):
            extra_routing_keys(wrong)


# All of it ----------------------------------------------------------------------------------

EXCHANGES = ("e", "f", "g")
QUEUES = ("p", "q", "r")
ALTERNATES = st.sampled_from([None, "", "gone", *EXCHANGES])


@st.composite
def topologies(draw: st.DrawFn) -> tuple[list[ExchangeDefinition], list[BindingDefinition]]:
    kinds = st.sampled_from(["direct", "topic", "fanout", "headers"])
    exchanges = [
        ExchangeDefinition(name, draw(kinds), alternate_exchange=draw(ALTERNATES))
        for name in EXCHANGES
    ]
    bindings = draw(
        st.lists(
            st.builds(
                lambda source, to, key, arguments: bind(source, to[1], key, arguments, to=to[0]),
                st.sampled_from([*EXCHANGES, "gone"]),
                st.sampled_from(
                    [("queue", name) for name in (*QUEUES, "gone")]
                    + [("exchange", name) for name in (*EXCHANGES, "gone")]
                ),
                PATTERNS,
                arguments(),
            ),
            max_size=12,
        )
    )
    return exchanges, bindings


MESSAGES = st.lists(st.tuples(KEYS | st.sampled_from(QUEUES), HEADERS), max_size=4)


@given(topologies(), MESSAGES)
@settings(max_examples=150)
def test_messages_go_where_a_naive_router_says(
    topology: tuple[list[ExchangeDefinition], list[BindingDefinition]],
    messages: list[tuple[str, dict[str, Any]]],
) -> None:
    exchanges, bindings = topology
    found = Router(exchanges, QUEUES, bindings)
    for exchange in ("", *EXCHANGES):
        for key, headers in [*messages, *messages]:  # the second time from what is remembered
            for extra in ((), ("a.b", "q")):
                expected = naive_route(
                    exchanges, QUEUES, bindings, exchange, (key, *extra), headers
                )
                assert set(found.route(exchange, key, headers, extra)) == expected


@given(topologies(), topologies(), st.sets(st.sampled_from(QUEUES)), MESSAGES)
@settings(max_examples=80)
def test_a_router_that_uses_what_another_one_has_compiled_routes_by_its_own_definitions(
    old: tuple[list[ExchangeDefinition], list[BindingDefinition]],
    new: tuple[list[ExchangeDefinition], list[BindingDefinition]],
    queues: set[str],
    messages: list[tuple[str, dict[str, Any]]],
) -> None:
    before = Router(old[0], QUEUES, old[1])
    # Some exchanges and bindings stay as they were.
    exchanges = [old[0][0], *new[0][1:]]
    bindings = [b for b in old[1] if b.source == "e"] + [b for b in new[1] if b.source != "e"]
    for exchange in EXCHANGES:
        for key, headers in messages:
            before.route(exchange, key, headers)
    after = Router(exchanges, queues, bindings, before=before)
    for exchange in EXCHANGES:
        for key, headers in messages:
            expected = naive_route(exchanges, list(queues), bindings, exchange, (key,), headers)
            assert set(after.route(exchange, key, headers)) == expected


def test_what_did_not_change_is_not_compiled_again() -> None:
    exchanges = [ExchangeDefinition("e", "topic"), ExchangeDefinition("f", "topic")]
    bindings = [bind("e", "a", "#"), bind("f", "a", "#")]
    before = router(exchanges, bindings)
    before.route("e", "k")
    before.route("f", "k")
    after = Router(exchanges, ("a", "b"), [*bindings, bind("f", "b", "#")], before=before)
    assert after._matchers.keys() == {"e"}
    assert after.route("f", "k") == ("a", "b")


def test_what_is_remembered_is_bounded_and_only_where_headers_say_nothing() -> None:
    exchanges = [
        ExchangeDefinition("t", "topic"),
        ExchangeDefinition("h", "headers"),
        ExchangeDefinition("to_h", "topic"),
        ExchangeDefinition("spare_h", "direct", alternate_exchange="h"),
    ]
    bindings = [
        bind("t", "a", "#"),
        bind("h", "b", "", {"n": 1}),
        bind("to_h", "h", "#", to="exchange"),
    ]
    found = router(exchanges, bindings)
    assert not found.looks_at_headers("t")
    assert all(found.looks_at_headers(name) for name in ("h", "to_h", "spare_h"))
    for number in range(2 * _MAX_CACHED + 1):
        assert found.route("t", str(number)) == ("a",)
    assert len(found._cache["t"]) <= _MAX_CACHED
    for name in ("to_h", "spare_h"):
        assert [found.route(name, "k", {"n": n}) for n in (1, 2, 1)] == [("b",), (), ("b",)]
