"""Messages of formats 0 and 1: single ones, wrappers, and all that can be wrong with them."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from logstore.segments.batch import Batch, iter_batches
from logstore.segments.compression import Codec
from logstore.segments.errors import (
    ChecksumError,
    FormatError,
    LimitError,
    TruncatedError,
    UnsupportedFormatError,
)
from logstore.segments.header import TimestampType
from logstore.segments.record import NO_TIMESTAMP, Record

from .messages import message, wrapper
from .strategies import examples

CODECS = [Codec.GZIP, Codec.SNAPPY, Codec.LZ4]
each_codec = pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.label)
each_magic = pytest.mark.parametrize("magic", [0, 1])
blobs = st.one_of(st.none(), st.binary(max_size=40))


# single messages ----------------------------------------------------------------------------


@examples(100)
@given(st.integers(0, 1), st.integers(0, (1 << 63) - 1), blobs, blobs, st.integers(-1, 1 << 50))
def test_a_message_reads_as_a_batch_of_one_record(
    magic: int, offset: int, key: bytes | None, value: bytes | None, timestamp: int
) -> None:
    raw = message(offset, magic=magic, key=key, value=value, timestamp=timestamp)
    (batch,) = iter_batches(raw)
    assert batch.crc_ok
    seen = timestamp if magic == 1 else NO_TIMESTAMP
    assert batch.records() == [Record(offset, seen, key, value)]
    header = batch.header
    assert (header.magic, header.size, header.record_count) == (magic, len(raw), 1)
    assert (header.base_offset, header.last_offset) == (offset, offset)
    assert (header.base_timestamp, header.max_timestamp) == (seen, seen)
    assert (header.leader_epoch, header.producer_id, header.base_sequence) == (-1, -1, -1)
    assert header.codec is Codec.NONE


def test_a_message_of_log_append_time_says_so() -> None:
    batch = Batch.parse(message(1, magic=1, timestamp=5, value=b"v", attributes=8))
    assert batch.header.timestamp_type is TimestampType.LOG_APPEND
    assert batch.records()[0].timestamp == 5


@each_magic
def test_any_damaged_byte_of_a_message_is_detected_except_in_its_offset(magic: int) -> None:
    raw = message(1 << 40, magic=magic, key=b"key", value=b"value", timestamp=99)
    undetected = set()
    for position in range(len(raw)):
        for damage in range(1, 256):
            changed = bytearray(raw)
            changed[position] ^= damage
            try:
                if Batch.parse(bytes(changed)).crc_ok:
                    undetected.add(position)
            except FormatError:
                continue
    assert sorted(undetected) == list(range(8))


# wrappers -----------------------------------------------------------------------------------


@each_codec
def test_the_inner_offsets_of_format_0_are_absolute(codec: Codec) -> None:
    inner = [message(offset, magic=0, value=b"%d" % offset) for offset in (70, 71, 75)]
    batch = Batch.parse(wrapper(75, inner, magic=0, codec=codec))
    assert [record.offset for record in batch.records()] == [70, 71, 75]
    assert [record.value for record in batch.records()] == [b"70", b"71", b"75"]
    header = batch.header
    assert (header.base_offset, header.last_offset, header.record_count) == (70, 75, 3)
    assert (header.codec, header.max_timestamp) == (codec, NO_TIMESTAMP)


@each_codec
def test_the_inner_offsets_of_format_1_are_relative_to_the_last(codec: Codec) -> None:
    inner = [
        message(offset, magic=1, timestamp=100 + offset, key=b"k", value=b"v")
        for offset in (1, 2, 5)  # 0, 3 and 4 were taken by an old broker's cleaner
    ]
    batch = Batch.parse(wrapper(1005, inner, magic=1, codec=codec, timestamp=105))
    assert [(r.offset, r.timestamp) for r in batch.records()] == [
        (1001, 101),
        (1002, 102),
        (1005, 105),
    ]
    header = batch.header
    assert (header.base_offset, header.last_offset, header.record_count) == (1001, 1005, 3)
    assert (header.base_timestamp, header.max_timestamp) == (101, 105)


def test_a_wrapper_of_log_append_time_lends_its_time_to_those_inside() -> None:
    inner = [message(offset, magic=1, timestamp=1, value=b"v") for offset in (0, 1)]
    raw = wrapper(9, inner, magic=1, codec=Codec.GZIP, timestamp=777, attributes=8)
    assert [record.timestamp for record in Batch.parse(raw).records()] == [777, 777]


def test_messages_of_all_formats_in_a_row_are_found() -> None:
    inner = [message(offset, magic=1, value=b"v", timestamp=3) for offset in (0, 1)]
    data = (
        message(0, magic=0, value=b"zero")
        + wrapper(2, inner, magic=1, codec=Codec.LZ4, timestamp=3)
        + message(3, magic=1, value=None)
    )
    batches = list(iter_batches(data, position=10))
    assert [batch.header.base_offset for batch in batches] == [0, 1, 3]
    assert [record.offset for batch in batches for record in batch.records()] == [0, 1, 2, 3]
    assert batches[1].position == 10 + batches[0].header.size


# damage inside a wrapper --------------------------------------------------------------------

GOOD = message(0, magic=1, value=b"v")
BAD_CRC = GOOD[:-1] + bytes([GOOD[-1] ^ 1])
OF_MAGIC_2 = GOOD[:16] + b"\x02" + GOOD[17:]


@pytest.mark.parametrize(
    ("inner", "error", "problem"),
    [
        ([GOOD, BAD_CRC], ChecksumError, "checksum of a message inside a wrapper"),
        ([message(0, magic=0, value=b"v")], FormatError, "magic differs from its wrapper's"),
        ([OF_MAGIC_2], UnsupportedFormatError, "magic is unknown"),
        ([wrapper(0, [GOOD], magic=1, codec=Codec.GZIP)], FormatError, "inside a compressed"),
        ([GOOD, GOOD[:-1]], FormatError, "size is wrong"),
        ([GOOD, GOOD[:10]], TruncatedError, "inside a message's header"),
        ([], FormatError, "a compressed message is empty"),
    ],
)
def test_a_wrapper_with_damage_inside_keeps_its_place_and_refuses_its_records(
    inner: list[bytes], error: type[FormatError], problem: str
) -> None:
    raw = wrapper(500, inner, magic=1, codec=Codec.GZIP, timestamp=6)
    batch = Batch.parse(raw, position=30, path="x.log")
    assert batch.crc_ok
    assert (batch.header.base_offset, batch.header.last_offset) == (500, 500)
    assert batch.header.record_count == 1
    with pytest.raises(error, match=problem) as caught:
        batch.records()
    assert caught.value.path == "x.log"
    assert caught.value.position is not None
    assert caught.value.position >= 30


@pytest.mark.parametrize("number", [4, 5, 7])
@each_magic
def test_a_codec_that_came_later_is_refused(magic: int, number: int) -> None:
    batch = Batch.parse(message(1, magic=magic, value=b"v", attributes=number))
    with pytest.raises(UnsupportedFormatError, match="codec is unknown"):
        batch.records()


def test_a_wrapper_without_a_value_or_with_a_broken_stream_is_refused() -> None:
    with pytest.raises(FormatError, match="has no value"):
        Batch.parse(message(1, magic=1, attributes=1)).records()
    with pytest.raises(FormatError, match="gzip stream is broken"):
        Batch.parse(message(1, magic=1, value=b"garbage", attributes=1)).records()


@each_codec
@each_magic
def test_a_bomb_inside_a_wrapper_is_refused_at_the_bound(magic: int, codec: Codec) -> None:
    inner = [message(0, magic=magic, value=bytes(200_000))]
    batch = Batch.parse(wrapper(0, inner, magic=magic, codec=codec))
    assert len(batch.records(max_bytes=len(inner[0]))) == 1
    with pytest.raises(LimitError, match="too large"):
        batch.records(max_bytes=len(inner[0]) - 1)


# damage of a message ------------------------------------------------------------------------


def repacked(raw: bytes, position: int, layout: str, number: int) -> bytes:
    changed = bytearray(raw)
    struct.pack_into(layout, changed, position, number)
    return bytes(changed)


@pytest.mark.parametrize(
    ("position", "number", "problem"),
    [
        (18, -2, "message's key has a wrong length"),
        (18, 13, "message's key has a wrong length"),
        (18, 1 << 30, "message's key has a wrong length"),
        (25, -2, "message's value has a wrong length"),
        (25, 6, "message's value has a wrong length"),
        (25, 4, "do not fill its size"),
        (18, 9, "ends before its value"),
        (25, -1, "do not fill its size"),
    ],
)
def test_a_field_with_a_wrong_length_is_refused(position: int, number: int, problem: str) -> None:
    raw = message(1, magic=0, key=b"key", value=b"value")
    with pytest.raises(FormatError, match=problem):
        Batch.parse(repacked(raw, position, ">i", number))


def test_a_negative_offset_is_refused() -> None:
    with pytest.raises(FormatError, match="offset is wrong"):
        Batch.parse(message(-1, magic=1, value=b"v"))


def test_inner_offsets_that_lie_behind_their_wrapper_do_not_make_a_header() -> None:
    inner = [message(offset, magic=0, value=b"v") for offset in (90, 91)]
    with pytest.raises(FormatError, match="offset is wrong"):
        Batch.parse(wrapper(50, inner, magic=0, codec=Codec.GZIP))


@each_magic
def test_a_message_cut_at_any_byte_is_refused(magic: int) -> None:
    raw = message(1, magic=magic, key=b"key", value=b"value", timestamp=5)
    arguments: list[dict[str, Any]] = [{}, {"position": 7, "path": "x.log"}]
    for size in range(len(raw)):
        for options in arguments:
            with pytest.raises(FormatError):
                Batch.parse(raw[:size], **options)
