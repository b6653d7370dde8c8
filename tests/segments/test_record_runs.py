"""Runs of records that look alike: with and without them, decoding must tell the same."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any, NamedTuple
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from logstore.segments import record_runs, varint
from logstore.segments.batch import Batch, encode_batch
from logstore.segments.errors import FormatError
from logstore.segments.record import Header, Record, decode_records, encode_records
from logstore.segments.record_places import locate_records
from logstore.segments.record_runs import SHORTEST_RUN, read_run

from .naive_records import naive_decode
from .strategies import BASE_TIMESTAMP, assigned, examples, mutated, seeds

NO_RUNS = mock.patch("logstore.segments.record.read_run", return_value=None)
"""Leaves everything to the loop over single records."""


class Kind(NamedTuple):
    """What records that look alike have in common, and how many there are."""

    records: int
    key_size: int | None
    value_size: int | None
    header_sizes: tuple[tuple[str, int | None], ...]
    step: float
    """Milliseconds from one to the next."""


sizes = st.none() | st.integers(0, 9) | st.sampled_from([50, 63, 64, 65, 120, 200])
names = st.sampled_from(["", "a", "trace", "type", "caf\udce9", "n" * 64])
kinds = st.builds(
    Kind,
    records=st.integers(1, 12) | st.integers(SHORTEST_RUN - 3, 2 * SHORTEST_RUN),
    key_size=sizes,
    value_size=sizes | st.just(8300),
    header_sizes=st.lists(st.tuples(names, st.none() | st.integers(0, 9)), max_size=3).map(tuple)
    | st.lists(st.tuples(names, st.just(0)), min_size=15, max_size=18).map(tuple),
    step=st.sampled_from([0, 0, 0.25, 3, 900, -1]),
)


def alike(kind: Kind, rng: random.Random, timestamp: int) -> Iterator[Record]:
    """Records of a kind, with random bytes in them."""

    def blob(size: int | None) -> bytes | None:
        return None if size is None else rng.randbytes(size)

    for index in range(kind.records):
        headers: list[Header] = [(name, blob(size)) for name, size in kind.header_sizes]
        yield Record(
            timestamp=timestamp + int(index * kind.step),
            key=blob(kind.key_size),
            value=blob(kind.value_size),
            headers=tuple(headers),
        )


def batch_of(some_kinds: list[Kind], rng: random.Random) -> list[Record]:
    """One kind behind the other."""
    return [record for kind in some_kinds for record in alike(kind, rng, BASE_TIMESTAMP)]


def outcome(data: bytes, count: int, **options: Any) -> object:
    """The rows, or all that the error says."""
    try:
        return decode_records(data, count, base_offset=7, base_timestamp=BASE_TIMESTAMP, **options)
    except FormatError as error:
        return type(error), str(error), error.position, error.expected, error.found


def compared(data: bytes, count: int) -> object:
    """What decoding makes of ``data``: the same with runs and without, and what the naive
    decoder reads, where anything is read."""
    found = outcome(data, count)
    with NO_RUNS:
        assert outcome(data, count) == found
    if isinstance(found, list):
        assert found == naive_decode(data, count, 7, BASE_TIMESTAMP)
        assert all(type(record) is Record for record in found)
    return found


def runs_in(data: bytes, count: int) -> list[int]:
    """The lengths of the runs that decoding found."""
    lengths: list[int] = []

    def counting(*arguments: Any) -> record_runs.Run | None:
        run = read_run(*arguments)
        if run is not None:
            lengths.append(run[0])
        return run

    with mock.patch("logstore.segments.record.read_run", counting):
        decode_records(data, count)
    return lengths


@examples(100)
@given(st.lists(kinds, min_size=1, max_size=4), seeds)
def test_runs_of_any_kind_are_read_as_single_records_are(some_kinds: list[Kind], seed: int) -> None:
    batch = batch_of(some_kinds, random.Random(seed))
    data, base, _ = encode_records(batch)
    assert base == BASE_TIMESTAMP
    assert compared(data, len(batch)) == assigned(batch, 7)


small_kinds = kinds.filter(lambda kind: (kind.value_size or 0) < 20 and len(kind.header_sizes) < 4)


@examples(100)
@given(st.lists(small_kinds, min_size=1, max_size=2), seeds)
def test_damage_in_a_run_is_told_as_in_single_records(some_kinds: list[Kind], seed: int) -> None:
    rng = random.Random(seed)
    batch = batch_of(some_kinds, rng)
    data, _, _ = encode_records(batch)
    for _ in range(10):
        compared(mutated(data, rng), max(0, len(batch) + rng.choice((0, 0, 0, 0, 1, -1))))


@pytest.mark.parametrize("value", [0, 1, 2, 0x7E, 0x7F, 0x80, 0x81, 0xFE, 0xFF])
@pytest.mark.parametrize("index", [0, 1, SHORTEST_RUN, 2 * SHORTEST_RUN - 1])
def test_any_byte_of_a_record_in_a_run_may_be_damaged(index: int, value: int) -> None:
    headers = (("name", 2), ("null", None))
    kind = Kind(2 * SHORTEST_RUN, key_size=3, value_size=60, header_sizes=headers, step=0.5)
    batch = list(alike(kind, random.Random(1), BASE_TIMESTAMP))
    data, _, _ = encode_records(batch)
    size = len(data) // len(batch)
    for position in range(index * size, (index + 1) * size):
        compared(data[:position] + bytes([value]) + data[position + 1 :], len(batch))


@pytest.mark.parametrize("step", [0, 1, 64])
def test_timestamps_and_offsets_of_two_bytes_are_checked_and_read_in_a_run(step: int) -> None:
    # With a step of 64, only the second bytes of the deltas differ.
    stamps = [0] * 64 + [640 + step * index for index in range(40)]
    batch = [Record(timestamp=BASE_TIMESTAMP + stamp, value=b"v") for stamp in stamps]
    data, _, _ = encode_records(batch)
    assert compared(data, len(batch)) == assigned(batch, 7)
    assert runs_in(data, len(batch)) == [64, 40]
    bounds = locate_records(data, len(batch)).bounds
    for position in range(bounds[-11], bounds[-10]):
        for value in (0, 1, 2, 0x7E, 0x7F, 0x80, 0x81, 0xFE, 0xFF, data[position] ^ 0x80):
            compared(data[:position] + bytes([value]) + data[position + 1 :], len(batch))


@pytest.mark.parametrize("index", [0, 1, SHORTEST_RUN, 2 * SHORTEST_RUN - 1])
@pytest.mark.parametrize("number", [-1, -2, 5, 8191])
def test_numbers_with_more_bytes_than_they_need_are_no_different_in_a_run(
    number: int, index: int
) -> None:
    # Each of a record's numbers in turn, in all records but one: the record keeps its length.
    long = bytearray(varint.encode(number))
    long[-1] |= 0x80
    wide = bytes(long) + b"\0"
    for place in range(5):
        records = []
        for one in range(2 * SHORTEST_RUN):
            fields = [b"\0", varint.encode(one), b"\1", b"\2v", b"\0"]
            if one != index:
                fields[place] = wide
            body = b"\0" + b"".join(fields)
            records.append(varint.encode(len(body)) + body)
        compared(b"".join(records), len(records))


@pytest.mark.parametrize("count", [63, 64, 65, 8191, 8192, 8193, 9000])
def test_long_runs_cross_the_borders_of_an_offset_delta(count: int) -> None:
    batch = [Record(timestamp=BASE_TIMESTAMP, key=b"k%06d" % i, value=b"v") for i in range(count)]
    data, _, _ = encode_records(batch)
    assert compared(data, count) == assigned(batch, 7)
    assert sum(runs_in(data, count)) >= min(count, 8192) - SHORTEST_RUN


def test_offsets_that_compaction_left_are_kept() -> None:
    kept = sorted(random.Random(3).sample(range(8000), 500))
    whole = [Record(timestamp=BASE_TIMESTAMP, value=b"%04d" % i) for i in range(8000)]
    data, _, _ = encode_records(whole)
    bounds = locate_records(data, len(whole)).bounds
    some = b"".join(data[bounds[index] : bounds[index + 1]] for index in kept)
    found = compared(some, len(kept))
    assert found == [assigned(whole, 7)[index] for index in kept]
    assert sum(runs_in(some, len(kept))) > 400


@pytest.mark.parametrize(
    "kind",
    [
        Kind(500, None, 200, (), 0),
        Kind(500, None, None, (), 0.25),
        Kind(500, 16, 184, (), 0.25),
        Kind(500, 70, None, (), 0.25),
        Kind(500, None, 150, (("type", 5), ("trace", 8), ("none", None)), 0.25),
        Kind(500, 0, 0, (("none", None),), 16),
    ],
)
def test_nearly_all_of_a_batch_of_equal_shapes_is_found_to_be_runs(kind: Kind) -> None:
    batch = list(alike(kind, random.Random(2), BASE_TIMESTAMP))
    data, _, _ = encode_records(batch)
    assert sum(runs_in(data, len(batch))) > 450


def test_a_search_for_runs_where_there_are_none_is_made_ever_more_rarely() -> None:
    batch = [Record(timestamp=BASE_TIMESTAMP, value=bytes(i % 50)) for i in range(1000)]
    data, _, _ = encode_records(batch)
    with NO_RUNS as searches:
        decode_records(data, len(batch))
    assert searches.call_count < 12


class Row(NamedTuple):
    """A record and where it comes from."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[Header, ...]


@pytest.mark.parametrize("row_type", [Row, tuple])
def test_other_rows_hold_what_records_hold_behind_what_stands_ahead(row_type: type[Any]) -> None:
    some = [Kind(40, 3, 9, (), 1), Kind(5, None, 3, (("a", 1),), 0), Kind(40, 3, 9, (), 1)]
    batch = batch_of(some, random.Random(4))
    data, base, _ = encode_records(batch)
    for stamp in (None, 77):
        found = decode_records(
            data,
            len(batch),
            base_timestamp=base,
            append_timestamp=stamp,
            row_type=row_type,
            ahead=("orders", 3),
        )
        plain = decode_records(data, len(batch), base_timestamp=base, append_timestamp=stamp)
        assert found == [("orders", 3, *record) for record in plain]
        assert all(type(row) is row_type for row in found)
        assert {record.timestamp for record in plain} == {77} or stamp is None


def test_batches_give_other_rows_too() -> None:
    batch = [Record(timestamp=5, value=b"%03d" % index) for index in range(100)]
    read = Batch.parse(encode_batch(batch, base_offset=9))
    rows = read.records(row_type=Row, ahead=("orders", 3))
    assert rows == [("orders", 3, *record) for record in read.records()]
    assert type(rows[50]) is Row
    assert rows[50].offset == 59
