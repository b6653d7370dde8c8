"""Properties in the headers of records, and back."""

from __future__ import annotations

import struct
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings

from logstore import FormatError, InvalidInputError, Record
from logstore.queues.field_table import (
    MAX_DEPTH,
    decode_table,
    encode_table,
    from_json,
    to_json,
)
from logstore.queues.properties import (
    PLAIN,
    Envelope,
    Properties,
    check_properties,
    from_record,
    to_record,
    to_records,
)
from logstore.segments.batch import Batch, encode_batch

from .strategies import TABLES, envelopes

# Records ------------------------------------------------------------------------------------


@given(envelopes())
@settings(max_examples=200)
def test_a_message_comes_back_from_its_record_as_it_went_in(envelope: Envelope) -> None:
    check_properties(envelope.properties)
    (record,) = Batch.parse(encode_batch([to_record(envelope, timestamp_ms=7)])).records()
    assert from_record(record) == envelope
    assert record.timestamp == 7
    assert record.value == envelope.body


def test_a_plain_message_takes_no_byte_beside_its_body_and_key() -> None:
    record = to_record(Envelope(b"body", routing_key="tasks"), timestamp_ms=5)
    assert record == Record(timestamp=5, key=b"tasks", value=b"body", headers=())
    assert to_record(Envelope(b""), timestamp_ms=5) == Record(timestamp=5, value=b"", headers=())


def test_headers_are_named_after_the_properties_and_hold_text() -> None:
    properties = Properties(content_type="text/plain", priority=3, headers={"a": 1}, delay_ms=20)
    record = to_record(Envelope(b"x", properties, "shop", "k"), timestamp_ms=1)
    assert record.headers == (
        ("amqp.exchange", b"shop"),
        ("amqp.content_type", b"text/plain"),
        ("amqp.headers", b"\1aI\0\0\0\1"),
        ("amqp.priority", b"3"),
        ("amqp.delay_ms", b"20"),
    )


def test_records_made_together_are_those_made_one_by_one() -> None:
    common = Properties(type="t", headers={"n": 1})
    same = [Envelope(b"%d" % n, common, "shop", "key") for n in range(3)]
    other = [Envelope(b"a"), Envelope(b"b", common), Envelope(b"c", PLAIN, "shop", "other")]
    messages = [*same, *other, *same]
    together = to_records(messages, timestamp_ms=9)
    assert together == [to_record(message, timestamp_ms=9) for message in messages]
    assert together[0].headers is together[2].headers


def test_headers_that_are_changed_between_two_publishes_are_stored_as_they_are() -> None:
    table: dict[str, Any] = {"n": 1}
    envelope = Envelope(b"", Properties(headers=table))
    first = to_record(envelope, timestamp_ms=1)
    table["n"] = 2
    second = to_record(envelope, timestamp_ms=1)
    assert [from_record(r).properties.headers for r in (first, second)] == [{"n": 1}, {"n": 2}]


def test_two_messages_do_not_share_their_headers() -> None:
    record = to_record(Envelope(b"", Properties(headers={"n": 1})), timestamp_ms=1)
    one, other = from_record(record), from_record(record)
    assert one.properties.headers is not None
    one.properties.headers["n"] = 2
    assert other.properties.headers == {"n": 1}


def test_a_record_that_somebody_else_wrote_is_a_message_without_properties() -> None:
    record = Record(value=None, headers=[("trace", b"1"), ("amqp.unheard_of", b"2"), ("x", None)])
    assert from_record(record) == Envelope(b"")
    with pytest.raises(FormatError, match=r"the header amqp\.priority of a message is broken"):
        from_record(Record(headers=[("amqp.priority", b"high")]))
    with pytest.raises(FormatError, match=r"amqp\.headers of a message is broken"):
        from_record(Record(headers=[("amqp.headers", b"\1aI\0")]))


# Bounds -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("properties", "complaint"),
    [
        ({"priority": 256}, "priority=256 is out of bounds: 0 to 255"),
        ({"priority": -1}, "priority=-1 is out of bounds: 0 to 255"),
        ({"priority": True}, "priority=True is no whole number"),
        ({"priority": 1.0}, "priority=1.0 is no whole number"),
        ({"expiration": -1}, "expiration=-1 is out of bounds: 0 to 4294967295"),
        ({"expiration": "10"}, "expiration='10' is no whole number"),
        ({"delivery_mode": 0}, "delivery_mode=0 is out of bounds: 1 to 2"),
        ({"timestamp": 1 << 63}, "timestamp=9223372036854775808 is out of bounds"),
        ({"delay_ms": -5}, "delay_ms=-5 is out of bounds: 0 to"),
        ({"delay_ms": 5, "deliver_at_ms": 6}, "delay_ms and deliver_at_ms exclude each other"),
        ({"message_id": "m" * 256}, "message_id='mmm.* has 256 bytes: at most 255"),
        ({"user_id": "é" * 128}, "user_id=.* has 256 bytes: at most 255"),
        ({"app_id": b"me"}, "app_id=b'me' is bytes, not str"),
        ({"type": "\ud800"}, "type=.* is no text that UTF-8 can hold"),
        ({"headers": [1]}, "headers are a dict, not list"),
        ({"headers": {1: 1}}, "1 is no name of a header: a str is"),
        ({"headers": {"a": {"b": object()}}}, r"header a\.b is object, which AMQP has no type for"),
        ({"headers": {"a": [1, 1 << 63]}}, r"header a\[1\] = 9223372036854775808 is out of bounds"),
        ({"headers": {"n" * 256: 1}}, "has 256 bytes: at most 255"),
        ({"headers": {"t": datetime(2024, 1, 1)}}, "header t = .* has no time zone"),
        ({"headers": {"t": datetime(2024, 1, 1, 0, 0, 0, 1, UTC)}}, "is no whole second"),
        ({"headers": {"t": datetime(1960, 1, 1, tzinfo=UTC)}}, "is before 1970"),
        ({"headers": {"d": Decimal(1 << 31)}}, "header d = 2147483648 is out of bounds"),
        ({"headers": {"d": Decimal("1E-256")}}, "is out of bounds"),
        ({"headers": {"d": Decimal("NaN")}}, "header d = NaN is out of bounds"),
        ({"headers": {"s": "\ud800"}}, "is no text that UTF-8 can hold"),
    ],
)
def test_a_property_out_of_bounds_is_refused_by_name(
    properties: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(InvalidInputError, match=complaint):
        check_properties(Properties(**properties))


def test_the_bounds_themselves_are_fine() -> None:
    for properties in (
        Properties(priority=0, expiration=0, delivery_mode=1, timestamp=0, delay_ms=0),
        Properties(priority=255, expiration=(1 << 32) - 1, delivery_mode=2, user_id="u" * 255),
    ):
        check_properties(properties)


def test_what_are_no_properties_is_refused() -> None:
    nothing: Any = {"priority": 1}
    with pytest.raises(InvalidInputError, match="properties are Properties, not dict"):
        check_properties(nothing)


# Field tables -------------------------------------------------------------------------------


def same_types(one: Any, other: Any) -> bool:
    """Whether two values are of one type all through: 1, 1.0 and True are equal, and not the
    same."""
    if isinstance(one, dict):
        return type(other) is dict and all(same_types(one[name], other[name]) for name in one)
    if isinstance(one, list):
        return type(other) is list and all(map(same_types, one, other))
    return type(one) is type(other)


@given(TABLES)
@settings(max_examples=300)
def test_a_table_comes_back_with_the_types_that_it_had(table: dict[str, Any]) -> None:
    found = decode_table(encode_table(table))
    assert found == table
    assert same_types(table, found)


@given(TABLES)
def test_json_says_the_same_as_the_table(table: dict[str, Any]) -> None:
    found = from_json(to_json(table))
    assert found == table
    assert same_types(table, found)


def test_a_table_has_the_bytes_that_amqp_gives_it() -> None:
    table = {
        "t": True,
        "I": -2,
        "l": 1 << 31,
        "d": 1.5,
        "D": Decimal("1.25"),
        "S": "hé",
        "x": b"\0",
        "T": datetime(1970, 1, 1, 1, tzinfo=timezone(timedelta(hours=1))),
        "V": None,
        "A": [1, "a"],
        "F": {"n": False},
    }
    assert encode_table(table) == (
        b"\1tt\1"
        b"\1II\xff\xff\xff\xfe"
        b"\1ll\0\0\0\0\x80\0\0\0" + b"\1dd" + struct.pack(">d", 1.5) + b"\1DD\2\0\0\0\x7d"
        b"\1SS\0\0\0\3h\xc3\xa9"
        b"\1xx\0\0\0\1\0"
        b"\1TT\0\0\0\0\0\0\0\0"
        b"\1VV"
        b"\1AA\0\0\0\x0bI\0\0\0\1S\0\0\0\1a"
        b"\1FF\0\0\0\4\1nt\0"
    )


def test_the_types_that_only_others_write_are_read() -> None:
    data = (
        b"\1bb\xff\1BB\xff\1ss\xff\xfe\1uu\xff\xff\1ii\xff\xff\xff\xff"
        b"\1ff" + struct.pack(">f", 0.5) + b"\1SS\0\0\0\1\xff"
    )
    assert decode_table(data) == {
        "b": -1,
        "B": 255,
        "s": -2,
        "u": 65535,
        "i": 4294967295,
        "f": 0.5,
        "S": b"\xff",
    }


@pytest.mark.parametrize(
    "data",
    [b"\1", b"\5a", b"\1a", b"\1aI\0", b"\1aS\0\0\0\5ab", b"\1a?", b"\1aA\0\0\0\1tt", b"\1at"],
)
def test_a_table_that_ends_early_or_holds_nonsense_is_a_format_error(data: bytes) -> None:
    with pytest.raises(FormatError):
        decode_table(data)


def test_a_table_that_lies_too_deep_is_refused_both_ways() -> None:
    deep: Any = 1
    for _ in range(MAX_DEPTH + 1):
        deep = [deep]
    with pytest.raises(InvalidInputError, match="deep"):
        encode_table({"a": deep})
    assert decode_table(encode_table({"a": deep[0]})) == {"a": deep[0]}
    nested: Any = {}
    for _ in range(MAX_DEPTH + 1):
        nested = {"a": nested}
    with pytest.raises(InvalidInputError, match="deep"):
        encode_table(nested)
    data = b""
    for _ in range(500):
        data = b"\1aF" + struct.pack(">I", len(data)) + data
    with pytest.raises(FormatError, match="deep"):
        decode_table(data)


@pytest.mark.parametrize(
    "value",
    [{"base64": "!"}, {"decimal": "x"}, {"timestamp": "x"}, {"float": []}, {"table": 1}],
)
def test_json_that_is_not_what_it_says_is_refused(value: Any) -> None:
    with pytest.raises(InvalidInputError, match="is no"):
        from_json(value)
