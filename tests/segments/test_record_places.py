"""Locating records against decoding them: both must see the same records, or both none."""

from __future__ import annotations

import contextlib
import random
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from logstore.segments.errors import FormatError
from logstore.segments.record import Record, decode_records, encode_records
from logstore.segments.record_places import locate_records

RECORDS = st.lists(
    st.builds(
        Record,
        timestamp=st.integers(0, 1 << 45),
        key=st.none() | st.binary(max_size=100),
        value=st.none() | st.binary(max_size=300),
        headers=st.lists(
            st.tuples(st.text(max_size=5), st.none() | st.binary(max_size=9)), max_size=2
        ),
    ),
    min_size=1,
    max_size=80,
)


@given(RECORDS)
@settings(max_examples=100, deadline=None)
def test_places_tell_what_decoding_tells(records: list[Record]) -> None:
    data, base_timestamp, _ = encode_records(records)
    decoded = decode_records(data, len(records), base_timestamp=base_timestamp)
    places = locate_records(data, len(records))
    assert places.offset_deltas == [r.offset for r in decoded]
    assert places.keys == [r.key for r in decoded]
    assert places.tombstones == [i for i, r in enumerate(decoded) if r.value is None]
    assert [base_timestamp + d for d in places.timestamp_deltas] == [r.timestamp for r in decoded]
    parts = [data[start:end] for start, end in pairwise(places.bounds)]
    assert b"".join(parts) == data
    assert [decode_records(part, 1)[0].value for part in parts] == [r.value for r in decoded]
    shifted = locate_records(b"in front" + data, len(records), 8)
    assert shifted == places._replace(bounds=[bound + 8 for bound in places.bounds])


@given(RECORDS, st.randoms(use_true_random=False))
@settings(max_examples=300, deadline=None)
def test_damaged_records_are_refused_or_seen_as_decoding_sees_them(
    records: list[Record], rng: random.Random
) -> None:
    data, base_timestamp, _ = encode_records(records)
    damaged = bytearray(data)
    for _ in range(rng.randint(1, 3)):
        damaged[rng.randrange(len(damaged))] = rng.randrange(256)
    try:
        decoded = decode_records(bytes(damaged), len(records), base_timestamp=base_timestamp)
    except FormatError:
        # Values and headers stay closed, so less is noticed; but nothing else may be raised.
        with contextlib.suppress(FormatError):
            locate_records(bytes(damaged), len(records))
        return
    places = locate_records(bytes(damaged), len(records))
    assert places.offset_deltas == [r.offset for r in decoded]
    assert places.keys == [r.key for r in decoded]


@pytest.mark.parametrize("count", [0, 2, 1000])
def test_a_wrong_count_is_refused(count: int) -> None:
    data, _, _ = encode_records([Record(timestamp=1, key=b"k", value=b"v")])
    with pytest.raises(FormatError):
        locate_records(data, count)
