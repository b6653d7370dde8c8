"""Producer snapshots: Kafka's own files byte for byte, and every byte damaged."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from logstore.segments.checksum import crc32c
from logstore.segments.errors import (
    ChecksumError,
    FormatError,
    TruncatedError,
    UnsupportedFormatError,
)
from logstore.segments.producer_snapshot import (
    ENTRY_BYTES,
    HEADER_BYTES,
    ProducerEntry,
    decode,
    encode,
)

from .strategies import examples

GOLDEN = Path(__file__).resolve().parent.parent / "golden"
INT16 = st.integers(-(1 << 15), (1 << 15) - 1)
INT32 = st.integers(-(1 << 31), (1 << 31) - 1)
INT64 = st.integers(-(1 << 63), (1 << 63) - 1)
entries_lists = st.lists(
    st.builds(ProducerEntry, INT64, INT16, INT32, INT64, INT32, INT64, INT32, INT64), max_size=6
)
TWO = [
    ProducerEntry(9001, 0, 3, 60, 0, 1_700_000_000_090, 13, -1),
    ProducerEntry(9003, 0, 2, 64, 1, 1_700_000_000_101, -1, 57),
]


def with_count(data: bytes, count: int) -> bytes:
    """A snapshot that states another count, its CRC made good again."""
    covered = struct.pack(">i", count) + data[HEADER_BYTES:]
    return data[:2] + struct.pack(">I", crc32c(covered)) + covered


def test_a_snapshot_has_the_bytes_of_the_description() -> None:
    entry = ProducerEntry(
        producer_id=0x0102030405060708,
        producer_epoch=0x1112,
        last_sequence=0x21222324,
        last_offset=0x3132333435363738,
        offset_delta=0x41424344,
        timestamp=0x5152535455565758,
        coordinator_epoch=0x61626364,
        current_transaction_first_offset=0x7172737475767778,
    )
    data = encode([entry])
    assert (HEADER_BYTES, ENTRY_BYTES) == (10, 46)
    assert data[:2].hex() == "0001"
    assert data[2:6] == struct.pack(">I", crc32c(data[6:]))
    assert data[6:] == bytes.fromhex(
        "00000001"
        "0102030405060708 1112 21222324 3132333435363738"
        "41424344 5152535455565758 61626364 7172737475767778"
    )


def test_kafkas_own_file_is_read_and_written_byte_for_byte() -> None:
    data = (GOLDEN / "partition-0" / "00000000000000000066.snapshot").read_bytes()
    entries = decode(data)
    assert entries == [
        ProducerEntry(9001, 0, 3, 60, 0, 1_700_000_000_090, 13, -1),
        ProducerEntry(9002, 1, 0, 59, 0, 1_700_000_000_080, 13, -1),
        ProducerEntry(9003, 0, 2, 64, 1, 1_700_000_000_101, -1, 57),
        ProducerEntry(9004, 2, -1, -1, 0, 1_700_000_000_110, 13, -1),
    ]
    assert encode(entries) == data


def test_kafkas_own_file_without_producers_is_read_and_written_byte_for_byte() -> None:
    data = (GOLDEN / "snapshot-empty" / "00000000000000000000.snapshot").read_bytes()
    assert decode(data) == []
    assert encode([]) == data


@examples(60)
@given(entries_lists)
def test_encode_then_decode_is_the_identity(entries: list[ProducerEntry]) -> None:
    decoded = decode(encode(entries))
    assert decoded == entries
    assert all(type(entry) is ProducerEntry for entry in decoded)


def test_any_damaged_bit_is_detected() -> None:
    data = encode(TWO)
    for position in range(len(data)):
        for bit in range(8):
            changed = bytearray(data)
            changed[position] ^= 1 << bit
            with pytest.raises(FormatError):
                decode(bytes(changed))


def test_a_snapshot_cut_at_any_byte_or_with_one_too_many_is_refused() -> None:
    data = encode(TWO)
    for size in range(len(data)):
        with pytest.raises(FormatError):
            decode(data[:size])
    with pytest.raises(FormatError):
        decode(data + b"\0")


@pytest.mark.parametrize("size", range(HEADER_BYTES))
def test_a_header_that_is_not_whole_is_a_truncated_snapshot(size: int) -> None:
    with pytest.raises(TruncatedError, match="inside a producer snapshot's header"):
        decode(encode([])[:size])


@pytest.mark.parametrize("version", [0, 2, -1])
def test_another_version_is_refused_before_anything_else_is_looked_at(version: int) -> None:
    with pytest.raises(UnsupportedFormatError, match="version") as caught:
        decode(struct.pack(">h", version) + b"whatever comes then")
    assert (caught.value.position, caught.value.expected, caught.value.found) == (0, 1, version)


def test_a_wrong_checksum_says_what_was_computed_and_what_was_stored() -> None:
    data = encode(TWO)
    with pytest.raises(ChecksumError) as caught:
        decode(data[:2] + b"\0\0\0\1" + data[6:])
    assert str(caught.value) == (
        "at byte 2: the checksum of a producer snapshot does not match: "
        f"expected {crc32c(data[6:]):#010x} (computed), found 0x00000001 (stored)"
    )


@pytest.mark.parametrize("count", [0, 1, 3, -1, -(1 << 31), (1 << 31) - 1])
def test_a_count_that_is_not_that_of_the_entries_is_refused(count: int) -> None:
    with pytest.raises(FormatError, match="size is wrong") as caught:
        decode(with_count(encode(TWO), count))
    assert caught.value.position == 6
    assert caught.value.expected == f"{count} entries of 46 bytes"


@examples(100)
@given(st.binary(max_size=120))
def test_any_bytes_raise_nothing_but_format_errors(data: bytes) -> None:
    for candidate in (data, b"\0\1" + struct.pack(">I", crc32c(data)) + data):
        try:
            assert encode(decode(candidate)) == candidate
        except FormatError:
            continue
