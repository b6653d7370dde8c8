"""Time indexes: entries as Kafka lays them out, and the look-up against a linear one."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from logstore.segments.time_index import (
    ENTRY_BYTES,
    TimeEntry,
    decode_entries,
    encode_entry,
    find,
    valid_size,
)

from .strategies import BASE_TIMESTAMP, examples, seeds


def some_entries(rng: random.Random, base: int) -> list[TimeEntry]:
    """Entries as an append makes them: both numbers ascend."""
    entries, offset, timestamp = [], base, rng.choice((0, 3, BASE_TIMESTAMP))
    for _ in range(rng.randint(0, 30)):
        offset += rng.choice((1, 2, 256, 1 << 20))
        timestamp += rng.choice((1, 5, 256, 1 << 33))
        entries.append(TimeEntry(timestamp, offset))
    return entries


def encoded(base: int, entries: list[TimeEntry]) -> bytes:
    return b"".join(encode_entry(base, entry) for entry in entries)


def test_an_entry_has_the_bytes_that_kafka_gives_it() -> None:
    entry = TimeEntry(timestamp=0x0102030405060708, offset=(1 << 40) + 0x0A0B0C0D)
    assert encode_entry(1 << 40, entry) == bytes.fromhex("01020304050607080a0b0c0d")
    assert ENTRY_BYTES == 12


@examples(100)
@given(seeds, st.integers(0, 1 << 62))
def test_entries_are_read_back_and_found_as_a_linear_search_finds_them(
    seed: int, base: int
) -> None:
    rng = random.Random(seed)
    entries = some_entries(rng, base)
    data = encoded(base, entries)
    assert decode_entries(base, data) == entries
    wanted = [-1, 0, 1, 1 << 62]
    wanted += [entry.timestamp + near for entry in entries for near in (-1, 0, 1)]
    for timestamp in wanted:
        below = [entry for entry in entries if entry.timestamp < timestamp]
        assert find(base, data, timestamp) == (below[-1] if below else None)


@examples(100)
@given(seeds, st.integers(1, 200))
def test_a_look_up_never_overshoots_the_first_record_that_is_wanted(seed: int, count: int) -> None:
    rng = random.Random(seed)
    times = [BASE_TIMESTAMP + rng.randint(-50, 50) for _ in range(count)]
    entries: list[TimeEntry] = []
    for offset in range(count):  # an entry every few records: largest time so far, its offset
        largest = max(times[: offset + 1])
        if rng.random() < 0.3 and (not entries or largest > entries[-1].timestamp):
            entries.append(TimeEntry(largest, times.index(largest)))
    data = encoded(0, entries)
    for wanted in range(BASE_TIMESTAMP - 51, BASE_TIMESTAMP + 52):
        entry = find(0, data, wanted)
        start = 0 if entry is None else entry.offset
        assert all(time < wanted for time in times[:start])


@examples(100)
@given(seeds, st.integers(0, 40), st.binary(max_size=ENTRY_BYTES - 1))
def test_the_zeros_of_a_file_made_in_advance_do_not_count(
    seed: int, spare: int, cut: bytes
) -> None:
    data = encoded(100, some_entries(random.Random(seed), 100))
    assert valid_size(data) == len(data)
    assert valid_size(data + bytes(spare)) == len(data)
    assert valid_size(data + cut) == len(data)
    assert decode_entries(100, data + cut) == decode_entries(100, data)


def test_a_timestamp_of_zero_in_the_first_entry_counts_unless_all_of_it_is_zero() -> None:
    assert valid_size(encode_entry(5, TimeEntry(0, 6)) + bytes(60)) == ENTRY_BYTES
    assert valid_size(encode_entry(5, TimeEntry(0, 5)) + bytes(60)) == 0


def test_a_negative_timestamp_is_read_and_searched_with_its_sign() -> None:
    entries = [TimeEntry(-5, 1), TimeEntry(7, 2)]
    data = encoded(0, entries)
    assert decode_entries(0, data) == entries
    assert find(0, data, -5) is None
    assert find(0, data, 0) == entries[0]


def test_an_index_without_entries_finds_nothing() -> None:
    assert find(7, b"", 100) is None
    assert decode_entries(7, b"") == []
    assert valid_size(b"") == valid_size(bytes(120)) == 0
