"""Records against a decoder that is written straight from the format's description, and damage."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from logstore.segments import varint
from logstore.segments.errors import FormatError, InvalidInputError, TruncatedError
from logstore.segments.record import Record, decode_records, encode_records

from .naive_records import NotARecordError, naive_decode
from .strategies import (
    BASE_TIMESTAMP,
    assigned,
    examples,
    mutated,
    plain_records,
    record_lists,
    seeds,
    small_record_lists,
)

# round trips --------------------------------------------------------------------------------


@examples(120)
@given(record_lists, st.integers(0, 1 << 62))
def test_encode_then_decode_is_the_identity(batch: list[Record], base_offset: int) -> None:
    data, base, _ = encode_records(batch)
    decoded = decode_records(data, len(batch), base_offset=base_offset, base_timestamp=base)
    assert decoded == assigned(batch, base_offset)
    assert all(type(record) is Record for record in decoded)


@examples(80)
@given(record_lists)
def test_the_naive_decoder_reads_the_same_records(batch: list[Record]) -> None:
    data, base, _ = encode_records(batch)
    assert naive_decode(data, len(batch), 9, base) == assigned(batch, 9)


HEADERS = (("name", b"value"),)
SHARED = [
    (key, headers)
    for key in (None, b"", b"key", b"k" * 9000)
    for headers in ((), HEADERS, (("name", None), ("other", b"v" * 9000)))
]
"""Keys and headers that records share: the very same objects."""


@examples(120)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(SHARED),
            st.sampled_from([None, b"", b"v", b"w", b"v" * 64, b"v" * 8192]),
            st.sampled_from([BASE_TIMESTAMP, BASE_TIMESTAMP, BASE_TIMESTAMP + 100]),
        ),
        max_size=90,
    )
)
def test_records_that_share_key_and_headers_are_encoded_as_those_that_do_not(
    rows: list[tuple[Any, bytes | None, int]],
) -> None:
    shared = [
        Record(timestamp=time, key=key, value=value, headers=headers)
        for (key, headers), value, time in rows
    ]
    alone = [
        record._replace(headers=list(record.headers))  # a list of its own is nobody else's
        for record in shared
    ]
    assert encode_records(shared) == encode_records(alone)
    data, base, _ = encode_records(shared)
    assert naive_decode(data, len(shared), 0, base) == assigned(shared)


@pytest.mark.parametrize("count", [1, 63, 64, 65, 66, 8191, 8192, 8193, 8194, 32768, 32770])
def test_batches_around_the_borders_of_an_offset_delta_survive(count: int) -> None:
    batch = [Record(timestamp=BASE_TIMESTAMP, value=b"v") for _ in range(count)]
    data, _, _ = encode_records(batch)
    decoded = decode_records(data, count, base_offset=5, base_timestamp=BASE_TIMESTAMP)
    assert decoded == assigned(batch, 5)
    mixed = [
        record._replace(key=b"k") if index % 3 == 0 else record
        for index, record in enumerate(batch)
    ]
    data, _, _ = encode_records(mixed)
    assert decode_records(data, count, base_timestamp=BASE_TIMESTAMP) == assigned(mixed)
    shared = [record._replace(key=b"key", headers=HEADERS) for record in batch]
    data, _, _ = encode_records(shared)
    assert decode_records(data, count, base_timestamp=BASE_TIMESTAMP) == assigned(shared)


@pytest.mark.parametrize("size", [0, 53, 54, 55, 56, 57, 63, 64, 8183, 8191, 8192, 32768, 1 << 20])
@pytest.mark.parametrize("field", ["key", "value"])
def test_sizes_around_the_borders_of_a_length_survive(field: str, size: int) -> None:
    big = b"x" * size
    key, value = (big, None) if field == "key" else (None, big)
    batch = [Record(timestamp=0, key=key, value=value)] * 3
    assert decode_records(encode_records(batch)[0], 3) == assigned(batch)


@pytest.mark.parametrize(
    "ahead", [0, 63, 64, -1, -64, -65, 8192, 32767, 32768, 1 << 40, -(1 << 40)]
)
def test_timestamps_on_both_sides_of_the_base_survive(ahead: int) -> None:
    base = 1 << 41
    batch = [Record(timestamp=base + step * ahead, value=b"v") for step in (0, 1, 1, 0, 1)]
    data, first, largest = encode_records(batch)
    assert (first, largest) == (base, max(base, base + ahead))
    decoded = decode_records(data, 5, base_timestamp=base)
    assert decoded == assigned(batch)


def test_a_record_has_the_bytes_that_the_description_gives_it() -> None:
    record = Record(timestamp=1003, key=b"key", value=b"value", headers=[("h", b"1"), ("n", None)])
    by_hand = bytes.fromhex(
        "00"  # attributes
        "06"  # timestampDelta 3
        "02"  # offsetDelta 1
        "06 6b6579"  # key
        "0a 76616c7565"  # value
        "04"  # two headers
        "02 68 02 31"  # h: 1
        "02 6e 01"  # n: null
    )
    data, base, largest = encode_records([Record(timestamp=1000), record])
    first = bytes.fromhex("0c 00 00 00 01 01 00")
    assert data == first + varint.encode(len(by_hand)) + by_hand
    assert (base, largest) == (1000, 1003)


def test_null_and_empty_keys_values_and_header_values_stay_apart() -> None:
    batch = [
        Record(timestamp=0, key=key, value=value, headers=(("n", header),))
        for key in (None, b"")
        for value in (None, b"")
        for header in (None, b"")
    ]
    assert decode_records(encode_records(batch)[0], 8) == assigned(batch)


def test_a_name_that_is_not_utf8_and_a_name_that_occurs_twice_survive() -> None:
    odd = b"caf\xe9\xff".decode("utf-8", "surrogateescape")
    record = Record(timestamp=0, value=b"", headers=((odd, b"1"), ("a", b"2"), ("a", b"3")))
    data, _, _ = encode_records([record])
    assert b"caf\xe9\xff" in data
    assert decode_records(data, 1) == assigned([record])


def test_the_time_of_the_append_replaces_every_timestamp() -> None:
    batch = [Record(timestamp=stamp, value=b"v", headers=(("a", None),)) for stamp in (5, 9, 7)]
    data, base, _ = encode_records(batch)
    decoded = decode_records(data, 3, base_timestamp=base, append_timestamp=77)
    assert decoded == [record._replace(timestamp=77) for record in assigned(batch)]
    assert all(type(record) is Record for record in decoded)


def test_no_records_take_no_bytes() -> None:
    assert encode_records([])[0] == b""
    assert decode_records(b"", 0) == []


# what cannot be stored ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"value": "text"}, "record 1 cannot be stored: its value is str, not bytes"),
        ({"key": "text"}, "record 1 cannot be stored: its key is str, not bytes"),
        ({"key": 5}, "record 1 cannot be stored: its key is int, not bytes"),
        ({"key": b"k", "value": 5}, "record 1 cannot be stored: its value is int, not bytes"),
        (
            {"headers": [("a", "b")]},
            "record 1 cannot be stored: the value of header 'a' is str, not bytes",
        ),
        (
            {"headers": [(b"a", b"b")]},
            "record 1 cannot be stored: the header name b'a' is bytes, not str",
        ),
        ({"headers": [("\ud800", b"b")]}, "record 1 cannot be stored: "),
        ({"headers": [("a",)]}, "record 1 cannot be stored: "),
        ({"headers": 5}, "record 1 cannot be stored: "),
        ({"headers": None, "value": "text"}, "record 1 cannot be stored: "),
        ({"timestamp": "now"}, "record 1 cannot be stored: "),
        ({"timestamp": None}, "record 1 cannot be stored: "),
        ({"timestamp": 1.5}, "record 1 cannot be stored: "),
    ],
)
def test_a_record_of_wrong_types_is_refused_by_its_number(
    fields: dict[str, Any], problem: str
) -> None:
    good = Record(timestamp=0, value=b"good")
    with pytest.raises(InvalidInputError) as caught:
        encode_records([good, good._replace(**fields), good])
    assert str(caught.value).startswith(problem)


@pytest.mark.parametrize("timestamp", [None, "now", 1.5, -2, 1 << 63])
def test_a_first_record_without_a_proper_timestamp_is_refused(timestamp: Any) -> None:
    for batch in ([Record(0, timestamp)], [Record(0, timestamp), Record(timestamp=1, value=b"")]):
        with pytest.raises(InvalidInputError):
            encode_records(batch)


def test_timestamps_that_lie_further_apart_than_64_bits_can_say_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="is too far behind -1"):
        encode_records([Record(), Record(timestamp=(1 << 63) - 1)])


def test_what_is_no_record_is_refused() -> None:
    rows: Sequence[Any] = [(1, 2, b"key")]
    with pytest.raises(InvalidInputError, match="record 0 cannot be stored"):
        encode_records(rows)


# damage -------------------------------------------------------------------------------------


def read_or_refuse(data: bytes, count: int) -> list[Record] | None:
    """What decode_records makes of damaged bytes, having been held against the naive decoder."""
    try:
        expected = naive_decode(data, count, 100, BASE_TIMESTAMP)
    except NotARecordError:
        expected = None
    try:
        found = decode_records(data, count, base_offset=100, base_timestamp=BASE_TIMESTAMP)
    except FormatError:
        return None
    assert found == expected
    return found


@examples(150)
@given(small_record_lists, seeds)
def test_damaged_records_are_refused_or_read_as_the_naive_decoder_reads_them(
    batch: list[Record], seed: int
) -> None:
    rng = random.Random(seed)
    data, _, _ = encode_records(batch)
    for _ in range(40):
        read_or_refuse(mutated(data, rng), max(0, len(batch) + rng.choice((0, 0, 0, 1, -1))))


@examples(200)
@given(st.binary(max_size=60), st.integers(-1, 9))
def test_any_bytes_are_refused_or_read_as_the_naive_decoder_reads_them(
    data: bytes, count: int
) -> None:
    if count >= 0:
        read_or_refuse(data, count)
    else:
        with pytest.raises(FormatError, match="count of records is wrong"):
            decode_records(data, count)


@pytest.mark.parametrize("value", [0, 1, 2, 0x7E, 0x7F, 0x80, 0x81, 0xFE, 0xFF])
def test_every_byte_of_two_records_set_to_an_odd_value_is_handled(value: int) -> None:
    batch = [
        Record(timestamp=BASE_TIMESTAMP, key=b"key", value=b"v" * 70, headers=(("n", b"1"),)),
        Record(timestamp=BASE_TIMESTAMP - 1, headers=(("n", None), ("", b""))),
    ]
    data, _, _ = encode_records(batch)
    for position in range(len(data)):
        read_or_refuse(data[:position] + bytes([value]) + data[position + 1 :], 2)
        # A number of five bytes, negative or huge, in place of one.
        for huge in (b"\xff\xff\xff\xff\x0f", b"\xfe\xff\xff\xff\x7f", b"\xfd\xff\xff\xff\x0f"):
            read_or_refuse(data[:position] + huge + data[position + 1 :], 2)


@examples(60)
@given(small_record_lists)
def test_records_cut_at_any_byte_are_refused(batch: list[Record]) -> None:
    data, _, _ = encode_records(batch)
    for size in range(len(data)):
        with pytest.raises(FormatError):
            decode_records(data[:size], len(batch))


@examples(60)
@given(st.lists(plain_records, min_size=2, max_size=5))
def test_another_count_than_the_true_one_is_refused(batch: list[Record]) -> None:
    data, _, _ = encode_records(batch)
    for count in (-1, 0, len(batch) - 1, len(batch) + 1, 1 << 31):
        with pytest.raises(FormatError):
            decode_records(data, count)


def test_a_huge_count_is_refused_before_anything_is_read() -> None:
    with pytest.raises(FormatError, match="count of records is wrong") as caught:
        decode_records(bytes(700), (1 << 31) - 1)
    assert caught.value.expected == "0 to 100 in 700 bytes"


def test_records_that_end_too_early_say_where_the_last_one_began() -> None:
    one, _, _ = encode_records([Record(timestamp=0, value=b"12345678")])
    with pytest.raises(TruncatedError) as caught:
        decode_records(one + one[:7], 2)
    assert (caught.value.position, caught.value.found) == (len(one), 1)


@pytest.mark.parametrize(
    ("field", "body", "problem"),
    [
        ("key", "00 00 00 7e 00 00", "too early"),
        ("value", "00 00 00 01 7e 00", "too early"),
        ("negative key", "00 00 00 03 00 00", "too early|negative"),
        ("negative value", "00 00 00 01 05 00", "too early|negative"),
        ("negative offset", "00 00 01 01 01 00", "negative"),
        ("headers", "00 00 00 01 01 7e", "headers has a wrong length"),
        ("negative headers", "00 00 00 01 01 01", "headers has a wrong length"),
        ("header name", "00 00 00 01 01 02 7e 00", "header name has a wrong length"),
        ("null header name", "00 00 00 01 01 02 01 01", "header name has a wrong length"),
        ("header value", "00 00 00 01 01 02 00 7e", "header value has a wrong length"),
        ("negative header value", "00 00 00 01 01 02 00 03", "header value has a wrong length"),
        ("a byte too many", "00 00 00 01 01 00 00", "do not fill its length"),
    ],
)
def test_a_wrong_length_is_refused(field: str, body: str, problem: str) -> None:
    record = bytes.fromhex(body)
    with pytest.raises(FormatError, match=problem):
        decode_records(varint.encode(len(record)) + record, 1)
