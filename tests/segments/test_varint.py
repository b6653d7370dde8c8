"""Varints against the bytes that the format's description gives, and against arithmetic."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from logstore.segments import varint
from logstore.segments.errors import FormatError, TruncatedError

from .strategies import examples

INT64 = st.integers(-(1 << 63), (1 << 63) - 1)


@pytest.mark.parametrize(
    ("number", "stored"),
    [
        (0, "00"),
        (-1, "01"),
        (1, "02"),
        (-2, "03"),
        (63, "7e"),
        (-64, "7f"),
        (64, "8001"),
        (-65, "8101"),
        (8191, "fe7f"),
        (-8192, "ff7f"),
        (8192, "808001"),
        (1048575, "feff7f"),
        (1048576, "80808001"),
        ((1 << 31) - 1, "feffffff0f"),
        (-(1 << 31), "ffffffff0f"),
        ((1 << 63) - 1, "feffffffffffffffff01"),
        (-(1 << 63), "ffffffffffffffffff01"),
    ],
)
def test_a_number_has_the_bytes_that_zigzag_gives_it(number: int, stored: str) -> None:
    assert varint.encode(number).hex() == stored
    assert varint.decode(bytes.fromhex(stored), 0) == (number, len(stored) // 2)


@examples(300)
@given(INT64, st.binary(max_size=3), st.binary(max_size=3))
def test_encode_then_decode_is_the_identity(number: int, before: bytes, behind: bytes) -> None:
    encoded = varint.encode(number)
    end = len(before) + len(encoded)
    assert varint.decode(before + encoded + behind, len(before)) == (number, end)


@examples(200)
@given(INT64)
def test_a_number_takes_as_few_bytes_as_its_bits_allow(number: int) -> None:
    folded = 2 * number if number >= 0 else -2 * number - 1
    groups = max(1, -(-folded.bit_length() // 7))
    assert len(varint.encode(number)) == groups <= varint.MAX_VARLONG_BYTES
    if -(1 << 31) <= number < 1 << 31:
        assert groups <= varint.MAX_VARINT_BYTES


def test_the_table_of_small_numbers_holds_their_varints() -> None:
    assert len(varint.SMALL) == 32768
    assert all(varint.decode(stored, 0)[0] == number for number, stored in enumerate(varint.SMALL))


@examples(100)
@given(INT64)
def test_a_varint_that_is_cut_anywhere_raises_truncated(number: int) -> None:
    encoded = varint.encode(number)
    for size in range(len(encoded)):
        with pytest.raises(TruncatedError) as caught:
            varint.decode(encoded[:size], 0)
        assert caught.value.position == 0


def test_a_varint_of_more_than_ten_bytes_is_refused() -> None:
    with pytest.raises(FormatError, match="too long") as caught:
        varint.decode(b"\0\0" + b"\x80" * 10 + b"\0", 2)
    assert caught.value.position == 2


def test_a_varint_of_more_than_64_bits_is_refused() -> None:
    with pytest.raises(FormatError, match="64 bits"):
        varint.decode(b"\x80" * 9 + b"\x02", 0)


def test_padding_with_empty_groups_does_not_change_a_number() -> None:
    assert varint.decode(b"\x82\x80\x00", 0) == (1, 3)


@examples(300)
@given(st.binary(max_size=14), st.integers(0, 14))
def test_any_bytes_give_a_64_bit_number_or_a_format_error(data: bytes, position: int) -> None:
    try:
        number, end = varint.decode(data, position)
    except FormatError:
        return
    assert -(1 << 63) <= number < 1 << 63
    assert position < end <= len(data)
