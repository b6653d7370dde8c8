"""Definitions of exchanges, queues and bindings."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest
from hypothesis import given

from logstore import FormatError, InvalidInputError
from logstore.queues.definitions import (
    BindingDefinition,
    ExchangeDefinition,
    QueueArguments,
    QueueDefinition,
    binding_fields,
    binding_from,
    binding_key,
    exchange_fields,
    exchange_from,
    exchange_key,
    queue_fields,
    queue_from,
    queue_key,
)

from .strategies import SHORT, TABLES

ID = uuid.UUID("12345678123456781234567812345678")


def test_arguments_may_be_spelled_as_rabbitmq_spells_them() -> None:
    expected = QueueArguments(message_ttl_ms=60, dead_letter_exchange="failed", max_length=5)
    for spelled in (
        {"x-message-ttl": 60, "x-dead-letter-exchange": "failed", "x-max-length": 5},
        {"message_ttl": 60, "dead_letter_exchange": "failed", "max_length": "5"},
        {"message_ttl_ms": "60", "dead-letter-exchange": "failed", "max_length": 5},
    ):
        assert QueueArguments.of(spelled) == expected
    assert QueueArguments.of({"max_length": None}) == QueueArguments()
    assert expected.given() == {
        "message_ttl_ms": 60,
        "dead_letter_exchange": "failed",
        "max_length": 5,
    }


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"x-message-ttl": -1}, "message_ttl_ms=-1 is out of bounds: 0 to 4294967295"),
        ({"x-message-ttl": "soon"}, "message_ttl_ms takes a whole number, not 'soon'"),
        ({"x-message-ttl": 1.5}, "message_ttl_ms takes a whole number, not 1.5"),
        ({"expires": 0}, "expires_ms=0 is out of bounds: 1 to 4294967295"),
        ({"max_length": True}, "max_length takes a whole number, not True"),
        ({"max_length_bytes": -1}, "max_length_bytes=-1 is out of bounds: 0 to"),
        ({"max_priority": -1}, "max_priority=-1 is out of bounds: 0 to 255"),
        ({"max_priority": 256}, "max_priority=256 is out of bounds: 0 to 255"),
        ({"delivery_limit": -1}, "delivery_limit=-1 is out of bounds"),
        ({"consumer_timeout": 0}, "consumer_timeout_ms=0 is out of bounds: 1 to"),
        ({"overflow": "explode"}, "overflow is one of drop-head, reject-publish, reject-publish"),
        ({"dead_letter_exchange": "e" * 256}, "has 256 bytes: at most 255"),
        ({"dead_letter_routing_key": "k"}, "'k' without a dead_letter_exchange: give both"),
        ({"x-colour": "red"}, "a queue has no argument 'x-colour': there are consumer_timeout_ms"),
        ({"max_length": 1, "x-max-length": 1}, "the argument max_length was given twice"),
    ],
)
def test_an_argument_out_of_bounds_is_refused_by_name(
    arguments: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(InvalidInputError, match=complaint):
        QueueArguments.of(arguments)


def test_a_queue_has_a_level_for_each_priority() -> None:
    assert QueueDefinition(ID, "q").levels == 1
    assert QueueDefinition(ID, "q", arguments=QueueArguments(max_priority=9)).levels == 10


def through_json(fields: dict[str, Any]) -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads(json.dumps(fields))
    return parsed


def test_definitions_come_back_from_json() -> None:
    queue = QueueDefinition(
        ID, "q", False, "session", True, QueueArguments(max_length=3, overflow="drop-head"), "boot"
    )
    assert queue_from("queue/x", through_json(queue_fields(queue)), "path") == queue
    exchange = ExchangeDefinition("e", "headers", False, True, True, "other", "boot")
    assert exchange_from("exchange/x", through_json(exchange_fields(exchange)), "p") == exchange


@given(TABLES, SHORT)
def test_a_binding_comes_back_from_json_with_its_arguments(table: dict[str, Any], key: str) -> None:
    binding = BindingDefinition("source", "queue", "destination", key, table)
    assert binding_from("binding/x", through_json(binding_fields(binding)), "p") == binding


def test_bindings_that_say_the_same_have_one_key_and_no_others_have() -> None:
    base = BindingDefinition("s", "queue", "d", "k", {"a": 1, "b": "x"})
    assert binding_key(base) == binding_key(base._replace(arguments={"b": "x", "a": 1}))
    others = [
        base._replace(source="t"),
        base._replace(destination="e"),
        base._replace(destination_type="exchange"),
        base._replace(routing_key="l"),
        base._replace(arguments={"a": 1}),
        base._replace(arguments={"a": True, "b": "x"}),
        base._replace(arguments={"a": 1, "b": b"x"}),
    ]
    assert len({binding_key(binding) for binding in [base, *others]}) == 8
    longest = base._replace(source="s" * 255, destination="d" * 255, routing_key="k" * 255)
    assert len(binding_key(longest)) < 511


def test_queue_and_exchange_of_one_name_have_different_keys() -> None:
    assert queue_key("n") != exchange_key("n")
    assert queue_key("n") == queue_key("n")
    assert queue_key("n") != queue_key("m")


@pytest.mark.parametrize(
    "change",
    [
        {"id": "no"},
        {"id": 5},
        {"name": None},
        {"durable": 1},
        {"exclusive": 7},
        {"arguments": {"max_length": -1}},
        {"arguments": []},
        {"boot_id": 3},
    ],
)
def test_a_broken_definition_of_a_queue_is_a_format_error(change: dict[str, Any]) -> None:
    fields = queue_fields(QueueDefinition(ID, "q"))
    with pytest.raises(FormatError, match="path: the definition 'queue/x' is broken"):
        queue_from("queue/x", {**fields, **change}, "path")
    del fields[next(iter(change))]
    with pytest.raises(FormatError):
        queue_from("queue/x", fields, "path")


def test_a_broken_definition_of_an_exchange_or_a_binding_is_a_format_error() -> None:
    exchange = exchange_fields(ExchangeDefinition("e"))
    changes: list[dict[str, Any]]
    changes = [{"type": "round"}, {"type": []}, {"internal": None}, {"name": 1}]
    for change in changes:
        with pytest.raises(FormatError):
            exchange_from("exchange/x", {**exchange, **change}, "path")
    binding = binding_fields(BindingDefinition("s", "queue", "d"))
    changes = [{"destination_type": "topic"}, {"arguments": None}, {"source": 1}]
    for change in changes:
        with pytest.raises(FormatError):
            binding_from("binding/x", {**binding, **change}, "path")
