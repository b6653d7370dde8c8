"""Transaction indexes: entries as Kafka writes them, and what is refused."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from logstore.segments.errors import TruncatedError, UnsupportedFormatError
from logstore.segments.transaction_index import (
    ENTRY_BYTES,
    AbortedTransaction,
    decode_entries,
    encode_entry,
)

from .strategies import examples

GOLDEN = Path(__file__).resolve().parent.parent / "golden" / "partition-0"
INT64 = st.integers(-(1 << 63), (1 << 63) - 1)
entries_lists = st.lists(st.builds(AbortedTransaction, INT64, INT64, INT64, INT64), max_size=8)


def test_an_entry_has_the_bytes_that_kafka_gives_it() -> None:
    entry = AbortedTransaction(
        producer_id=0x0102030405060708,
        first_offset=0x1112131415161718,
        last_offset=0x2122232425262728,
        last_stable_offset=0x3132333435363738,
    )
    assert encode_entry(entry).hex() == (
        "00000102030405060708111213141516171821222324252627283132333435363738"
    )
    assert ENTRY_BYTES == 34


def test_kafkas_own_file_is_read_and_written_byte_for_byte() -> None:
    data = (GOLDEN / "00000000000000000050.txnindex").read_bytes()
    entries = decode_entries(data)
    assert entries == [
        AbortedTransaction(9002, first_offset=53, last_offset=58, last_stable_offset=57),
        AbortedTransaction(9002, first_offset=59, last_offset=61, last_stable_offset=57),
    ]
    assert b"".join(map(encode_entry, entries)) == data


@examples(60)
@given(entries_lists)
def test_encode_then_decode_is_the_identity(entries: list[AbortedTransaction]) -> None:
    decoded = decode_entries(b"".join(map(encode_entry, entries)))
    assert decoded == entries
    assert all(type(entry) is AbortedTransaction for entry in decoded)


@pytest.mark.parametrize("version", [1, -1, 256])
def test_an_entry_of_an_unknown_version_is_refused_with_its_place(version: int) -> None:
    good = encode_entry(AbortedTransaction(1, 2, 3, 4))
    with pytest.raises(UnsupportedFormatError, match="version") as caught:
        decode_entries(good + struct.pack(">h", version) + good[2:] + good)
    assert (caught.value.position, caught.value.found) == (ENTRY_BYTES, version)


@pytest.mark.parametrize("size", range(1, ENTRY_BYTES))
def test_an_entry_that_is_not_whole_is_refused_with_its_place(size: int) -> None:
    good = encode_entry(AbortedTransaction(1, 2, 3, 4))
    with pytest.raises(TruncatedError, match="inside a transaction index entry") as caught:
        decode_entries(good + good[:size])
    assert (caught.value.position, caught.value.found) == (ENTRY_BYTES, size)


def test_an_empty_file_has_no_entries() -> None:
    assert decode_entries(b"") == []
