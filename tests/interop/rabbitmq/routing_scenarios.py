"""Scenarios of routing: which queues get what."""

from __future__ import annotations

from collections.abc import Mapping

from .language import (
    Scenario,
    Step,
    bind,
    bind_exchange,
    count,
    delete_exchange,
    delete_queue,
    drain,
    exchange,
    publish,
    publish_to,
    queue,
    scenario,
    unbind,
)

__all__ = ["SCENARIOS"]


def _topic(pattern: str, *keys: str) -> list[Step]:
    """What a queue gets that is bound by one pattern."""
    return [
        exchange("x", "topic"),
        queue("q"),
        bind("q", "x", pattern),
        *(publish("x", key, key) for key in keys),
        drain("q"),
    ]


def _headers(arguments: Mapping[str, object], *tables: dict[str, object]) -> list[Step]:
    """What a queue gets that is bound by these arguments."""
    return [
        exchange("x", "headers"),
        queue("q"),
        bind("q", "x", headers=dict(arguments)),
        *(publish("x", "", str(number), headers=table) for number, table in enumerate(tables)),
        publish("x", "", "bare"),
        drain("q"),
    ]


_KEYS = ("", ".", "a", "a.b", "a.b.c", "b", "a.", ".a", "a..b", "a.a", "b.a", "a.b.a", "#", "*")

_DIRECT = (
    scenario(
        "a direct exchange compares keys",
        exchange("x", "direct"),
        queue("q"),
        queue("r"),
        bind("q", "x", "a"),
        bind("q", "x", "b"),
        bind("r", "x", "b"),
        publish("x", "a", "1"),
        publish("x", "b", "2"),
        publish("x", "c", "3", mandatory=True),
        publish("x", "", "4", mandatory=True),
        drain("q"),
        drain("r"),
    ),
    scenario(
        "the default exchange knows queues by name",
        queue("q"),
        *publish_to("q", "1", "2"),
        publish("", "nobody", "3", mandatory=True),
        publish("", "nobody", "4"),
        drain("q"),
    ),
    scenario(
        "nobody binds to the default exchange",
        queue("q"),
        bind("q", "", "key"),
        unbind("q", "", "q"),
        bind_exchange("amq.direct", "", "key"),
    ),
    scenario(
        "the default exchange cannot be declared or deleted",
        exchange("", "direct"),
        delete_exchange(""),
    ),
    scenario(
        "amq exchanges are there and route",
        queue("q"),
        bind("q", "amq.direct", "a"),
        bind("q", "amq.fanout"),
        bind("q", "amq.topic", "a.*"),
        bind("q", "amq.headers", headers={"h": 1}),
        bind("q", "amq.match", headers={"h": 1}),
        publish("amq.direct", "a", "1"),
        publish("amq.fanout", "", "2"),
        publish("amq.topic", "a.b", "3"),
        publish("amq.headers", "", "4", headers={"h": 1}),
        publish("amq.match", "", "5", headers={"h": 1}),
        drain("q"),
    ),
    scenario(
        "amq names are reserved",
        exchange("amq.mine", "direct"),
        queue("amq.mine"),
        exchange("amq.direct", "direct"),
        exchange("amq.direct", "topic"),
        delete_exchange("amq.direct"),
    ),
    scenario(
        "a fanout exchange ignores keys",
        exchange("x", "fanout"),
        queue("q"),
        queue("r"),
        bind("q", "x", "a"),
        bind("q", "x", "b"),
        bind("r", "x"),
        publish("x", "c", "1"),
        drain("q"),
        drain("r"),
    ),
    scenario(
        "a queue gets a message once however many bindings match",
        exchange("x", "topic"),
        queue("q"),
        bind("q", "x", "a.*"),
        bind("q", "x", "*.b"),
        bind("q", "x", "#"),
        publish("x", "a.b", "1"),
        count("q"),
    ),
    scenario("publishing to an exchange that is not there", publish("nothing", "a", "1")),
    scenario(
        "a queue name as a key that is not there any more",
        queue("q"),
        delete_queue("q"),
        publish("", "q", "1", mandatory=True),
    ),
)

_PATTERNS = tuple(
    scenario(f"topic pattern {pattern or 'empty'}", *_topic(pattern, *_KEYS))
    for pattern in (
        "",
        "#",
        "*",
        "a",
        "a.b",
        "a.*",
        "*.a",
        "a.#",
        "#.a",
        "*.*",
        "#.#",
        "*.#",
        "#.*",
        "a.*.a",
        "a.#.a",
        "#.a.#",
        "*.#.*",
        "a.#.#.b",
        "#.b.*",
        ".",
        "a.",
        ".a",
        "*.",
        ".#",
        "a..b",
        "**",
        "##",
        "a*",
        "a#",
        "#a.b",
    )
)

_TABLES: tuple[dict[str, object], ...] = (
    {},
    {"a": 1},
    {"a": 2},
    {"a": 1, "b": "two"},
    {"b": "two"},
    {"a": 1, "b": "two", "c": True},
    {"a": "1"},
    {"a": 1.0},
    {"a": None},
    {"x-a": 1},
    {"a": 1, "x-a": 1},
    {"A": 1},
)

_ARGUMENTS: tuple[tuple[str, Mapping[str, object]], ...] = (
    ("of nothing", {}),
    ("all of nothing", {"x-match": "all"}),
    ("any of nothing", {"x-match": "any"}),
    ("of one", {"a": 1}),
    ("all of two", {"x-match": "all", "a": 1, "b": "two"}),
    ("any of two", {"x-match": "any", "a": 1, "b": "two"}),
    ("any of three", {"x-match": "any", "a": 2, "b": "two", "c": True}),
    ("of no value", {"a": None}),
    ("any of no value", {"x-match": "any", "a": None, "c": None}),
    ("of a text", {"a": "1"}),
    ("of a float", {"a": 1.0}),
    ("all ignoring x-", {"x-match": "all", "x-a": 1, "a": 1}),
    ("any ignoring x-", {"x-match": "any", "x-a": 1}),
    ("all-with-x", {"x-match": "all-with-x", "x-a": 1, "a": 1}),
    ("any-with-x", {"x-match": "any-with-x", "x-a": 1, "a": 2}),
    ("of a wrong x-match", {"x-match": "some", "a": 1}),
    ("of a number as x-match", {"x-match": 1, "a": 1}),
)

_HEADERS = tuple(
    scenario(f"headers binding {name}", *_headers(arguments, *_TABLES))
    for name, arguments in _ARGUMENTS
)

_VALUES: tuple[Scenario, ...] = (
    scenario(
        "headers are compared by kind and value",
        exchange("x", "headers"),
        *(
            step
            for number, value in enumerate(
                (
                    True,
                    1,
                    0,
                    1 << 40,
                    -5,
                    1.5,
                    "1",
                    "",
                    {"base64": "MQ=="},
                    {"decimal": "1.5"},
                    {"timestamp": 1},
                    [1, 2],
                    [2, 1],
                    {"n": 1},
                )
            )
            for step in (
                queue(f"q{number}"),
                bind(f"q{number}", "x", headers={"v": value}),
            )
        ),
        *(
            publish("x", "", str(number), headers={"v": value})
            for number, value in enumerate(
                (
                    True,
                    False,
                    1,
                    1.0,
                    0,
                    1 << 40,
                    -5,
                    1.5,
                    "1",
                    "",
                    {"base64": "MQ=="},
                    {"decimal": "1.5"},
                    {"timestamp": 1},
                    [1, 2],
                    [1],
                    {"n": 1},
                    {"n": 2},
                )
            )
        ),
        *(drain(f"q{number}") for number in range(14)),
    ),
)

_VALUES += (
    scenario(
        "a table in the headers with its fields in another order",
        exchange("x", "headers"),
        queue("q"),
        bind("q", "x", headers={"t": {"a": 1, "b": 2}}),
        publish("x", "", "1", headers={"t": {"a": 1, "b": 2}}),
        publish("x", "", "2", headers={"t": {"b": 2, "a": 1}}, mandatory=True),
        drain("q"),
    ),
)

_BEYOND = (
    scenario(
        "exchanges pass on to exchanges",
        exchange("x", "topic"),
        exchange("y", "direct"),
        queue("q"),
        bind_exchange("y", "x", "#.important"),
        bind("q", "y", "a.important"),
        publish("x", "a.important", "1"),
        publish("x", "b.important", "2", mandatory=True),
        publish("x", "a", "3", mandatory=True),
        drain("q"),
    ),
    scenario(
        "a cycle of exchanges ends",
        exchange("x", "fanout"),
        exchange("y", "fanout"),
        exchange("z", "fanout"),
        queue("q"),
        bind_exchange("y", "x"),
        bind_exchange("z", "y"),
        bind_exchange("x", "z"),
        bind_exchange("x", "x"),
        bind("q", "z"),
        bind("q", "x"),
        publish("x", "", "1"),
        publish("y", "", "2"),
        drain("q"),
    ),
    scenario(
        "a cycle without a queue returns the message",
        exchange("x", "fanout"),
        bind_exchange("x", "x"),
        publish("x", "", "1", mandatory=True),
    ),
    scenario(
        "an alternate exchange gets what no binding matches",
        exchange("spare", "fanout"),
        exchange("x", "direct", alternate="spare"),
        queue("q"),
        queue("r"),
        bind("q", "x", "a"),
        bind("r", "spare"),
        publish("x", "a", "1"),
        publish("x", "b", "2", mandatory=True),
        drain("q"),
        drain("r"),
    ),
    scenario(
        "a binding to an exchange that finds nothing is met all the same",
        exchange("spare", "fanout"),
        exchange("x", "direct", alternate="spare"),
        exchange("y", "direct"),
        queue("r"),
        bind("r", "spare"),
        bind_exchange("y", "x", "a"),
        publish("x", "a", "1", mandatory=True),
        publish("x", "b", "2", mandatory=True),
        drain("r"),
    ),
    scenario(
        "alternate exchanges in a chain and in a cycle",
        exchange("x", "direct", alternate="y"),
        exchange("y", "direct", alternate="z"),
        exchange("z", "direct", alternate="x"),
        queue("q"),
        bind("q", "z", "a"),
        publish("x", "a", "1", mandatory=True),
        publish("x", "b", "2", mandatory=True),
        drain("q"),
    ),
    scenario(
        "an alternate exchange that is not there",
        exchange("x", "direct", alternate="nothing"),
        publish("x", "a", "1", mandatory=True),
        exchange("nothing", "fanout"),
        queue("q"),
        bind("q", "nothing"),
        publish("x", "a", "2", mandatory=True),
        drain("q"),
    ),
    scenario(
        "the default exchange as an alternate",
        exchange("x", "direct", alternate=""),
        queue("q"),
        publish("x", "q", "1", mandatory=True),
        publish("x", "r", "2", mandatory=True),
        drain("q"),
    ),
    scenario(
        "an internal exchange takes from exchanges alone",
        exchange("x", "fanout", internal=True),
        exchange("y", "fanout"),
        queue("q"),
        bind("q", "x"),
        bind_exchange("x", "y"),
        publish("x", "", "1"),
        publish("y", "", "2"),
        drain("q"),
    ),
)

_COPIES = (
    scenario(
        "CC and BCC are keys too, and BCC is not shown",
        queue("q"),
        queue("r"),
        queue("s"),
        publish("", "q", "1", headers={"CC": ["r"], "BCC": ["s"], "n": 1}),
        drain("q"),
        drain("r"),
        drain("s"),
    ),
    scenario(
        "BCC alone leaves no header",
        queue("q"),
        queue("r"),
        publish("", "q", "1", headers={"BCC": ["r"]}),
        drain("q"),
        drain("r"),
    ),
    scenario(
        "CC through a topic exchange",
        exchange("x", "topic"),
        queue("q"),
        queue("r"),
        bind("q", "x", "a.#"),
        bind("r", "x", "b.#"),
        publish("x", "a.1", "1", headers={"CC": ["b.1", "a.2"]}),
        publish("x", "c", "2", headers={"CC": ["b.1"]}, mandatory=True),
        publish("x", "c", "3", headers={"CC": ["d"]}, mandatory=True),
        drain("q"),
        drain("r"),
    ),
    scenario(
        "a headers binding sees CC and not BCC",
        exchange("x", "headers"),
        queue("q"),
        queue("r"),
        bind("q", "x", headers={"CC": None}),
        bind("r", "x", headers={"BCC": None}),
        publish("x", "", "1", headers={"CC": ["a"], "BCC": ["b"]}),
        drain("q"),
        drain("r"),
    ),
    scenario("a CC that is no list", queue("q"), publish("", "q", "1", headers={"CC": "r"})),
    scenario(
        "CC with things that are no texts",
        queue("q"),
        queue("r"),
        publish("", "q", "1", headers={"CC": ["r", 1]}),
        drain("q"),
        drain("r"),
    ),
)

SCENARIOS: tuple[Scenario, ...] = (
    *_DIRECT,
    *_PATTERNS,
    *_HEADERS,
    *_VALUES,
    *_BEYOND,
    *_COPIES,
)
