"""Offset indexes: entries as Kafka lays them out, and the look-up against a linear one."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from logstore.segments.offset_index import (
    ENTRY_BYTES,
    MAX_RELATIVE,
    OffsetEntry,
    decode_entries,
    encode_entry,
    find,
    valid_size,
)

from .strategies import examples, seeds


def some_entries(rng: random.Random, base: int) -> list[OffsetEntry]:
    """Entries as an append makes them: ascending, and none for the first batch."""
    entries, offset, position = [], base, 0
    for _ in range(rng.randint(0, 30)):
        offset += rng.choice((1, 2, 100, 1 << 20))
        position += rng.choice((61, 256, 4096, 1 << 20))
        entries.append(OffsetEntry(offset, position))
    return entries


def encoded(base: int, entries: list[OffsetEntry]) -> bytes:
    return b"".join(encode_entry(base, entry) for entry in entries)


def test_an_entry_has_the_bytes_that_kafka_gives_it() -> None:
    entry = OffsetEntry(offset=(1 << 40) + 0x01020304, position=0x0A0B0C0D)
    assert encode_entry(1 << 40, entry) == bytes.fromhex("010203040a0b0c0d")
    assert ENTRY_BYTES == 8


def test_the_largest_relative_offset_and_position_survive() -> None:
    entries = [OffsetEntry(5 + MAX_RELATIVE, (1 << 32) - 1)]
    assert decode_entries(5, encoded(5, entries)) == entries


@examples(100)
@given(seeds, st.integers(0, 1 << 62))
def test_entries_are_read_back_and_found_as_a_linear_search_finds_them(
    seed: int, base: int
) -> None:
    rng = random.Random(seed)
    entries = some_entries(rng, base)
    data = encoded(base, entries)
    assert decode_entries(base, data) == entries
    wanted = [base - 1, base, base + (1 << 40)]
    wanted += [entry.offset + near for entry in entries for near in (-1, 0, 1)]
    for offset in wanted:
        below = [entry for entry in entries if entry.offset <= offset]
        assert find(base, data, offset) == (below[-1] if below else None)


@examples(100)
@given(seeds, st.integers(0, 40), st.binary(max_size=ENTRY_BYTES - 1))
def test_the_zeros_of_a_file_made_in_advance_do_not_count(
    seed: int, spare: int, cut: bytes
) -> None:
    data = encoded(100, some_entries(random.Random(seed), 100))
    assert valid_size(data) == len(data)
    assert valid_size(data + bytes(spare)) == len(data)
    # A part of an entry at the end, as a crash may leave it, does not count either.
    assert valid_size(data + cut) == len(data)
    assert decode_entries(100, data + cut) == decode_entries(100, data)


@pytest.mark.parametrize("position", [1 << 8, 1 << 16, 1 << 24, 1])
def test_an_entry_that_itself_ends_in_zeros_counts(position: int) -> None:
    data = encode_entry(0, OffsetEntry(1 << 24, position))
    assert valid_size(data + bytes(800)) == ENTRY_BYTES


def test_an_index_without_entries_finds_nothing() -> None:
    assert find(7, b"", 100) is None
    assert decode_entries(7, b"") == []
    assert valid_size(b"") == valid_size(bytes(80)) == 0
