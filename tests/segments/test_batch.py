"""Record batches: headers against their description, round trips, and every byte damaged."""

from __future__ import annotations

import random
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from logstore.segments.batch import (
    HEADER_BYTES,
    MAX_BATCH_BYTES,
    Batch,
    encode_batch,
    iter_batches,
    peek,
    seal_batch,
    seal_records,
)
from logstore.segments.checksum import crc32c
from logstore.segments.compression import Codec
from logstore.segments.errors import (
    ChecksumError,
    FormatError,
    InvalidInputError,
    LimitError,
    TruncatedError,
    UnsupportedFormatError,
)
from logstore.segments.header import BatchHeader, TimestampType
from logstore.segments.record import NO_TIMESTAMP, Record, encode_records

from .strategies import (
    BASE_TIMESTAMP,
    INT64_MAX,
    assigned,
    examples,
    mutated,
    record_lists,
    seeds,
    small_record_lists,
)

GOLDEN_LOGS = sorted((Path(__file__).resolve().parent.parent / "golden").glob("*/*.log"))
RECORDS = [
    Record(timestamp=BASE_TIMESTAMP, key=b"k1", value=b"first", headers=(("type", b"created"),)),
    Record(timestamp=BASE_TIMESTAMP + 70, key=None, value=None),
    Record(timestamp=BASE_TIMESTAMP - 3, key=b"", value=b"x" * 90, headers=(("n", None),)),
]
each_codec = pytest.mark.parametrize("codec", list(Codec), ids=lambda codec: codec.label)


def with_field(raw: bytes, position: int, layout: str, number: int) -> bytes:
    """A batch with one field of its header replaced, and its CRC made good again."""
    changed = bytearray(raw)
    struct.pack_into(layout, changed, position, number)
    struct.pack_into(">I", changed, 17, crc32c(bytes(changed[21:])))
    return bytes(changed)


# round trips --------------------------------------------------------------------------------


@examples(120)
@given(record_lists, st.sampled_from(list(Codec)), st.integers(0, 1 << 62), st.integers(-1, 99))
def test_encode_then_decode_is_the_identity_in_every_codec(
    batch: list[Record], codec: Codec, base_offset: int, leader_epoch: int
) -> None:
    raw = encode_batch(batch, base_offset=base_offset, leader_epoch=leader_epoch, codec=codec)
    parsed = Batch.parse(raw)
    assert parsed.crc_ok
    assert parsed.records() == assigned(batch, base_offset)
    header = parsed.header
    assert (header.codec, header.leader_epoch) == (codec, leader_epoch)
    assert (header.base_offset, header.last_offset) == (base_offset, base_offset + len(batch) - 1)
    assert header.next_offset == header.last_offset + 1
    assert header.max_timestamp == max(record.timestamp for record in batch)
    assert header.base_timestamp == batch[0].timestamp


@each_codec
@pytest.mark.parametrize("count", [64, 65, 8192, 8193])
def test_batches_around_the_borders_of_an_offset_delta_survive(codec: Codec, count: int) -> None:
    batch = [Record(timestamp=BASE_TIMESTAMP, value=b"%d" % index) for index in range(count)]
    parsed = Batch.parse(encode_batch(batch, base_offset=1 << 33, codec=codec))
    assert parsed.records() == assigned(batch, 1 << 33)
    assert parsed.header.record_count == count


@each_codec
def test_a_value_of_many_mebibytes_survives(codec: Codec) -> None:
    value = random.Random(1).randbytes(1 << 16) * 80
    batch = [Record(timestamp=0, key=value[:100_000], value=value)]
    assert Batch.parse(encode_batch(batch, codec=codec)).records() == assigned(batch)


@examples(40)
@given(st.lists(st.tuples(small_record_lists, st.sampled_from(list(Codec))), max_size=5))
def test_batches_in_a_row_are_found_one_after_the_other(
    batches: list[tuple[list[Record], Codec]],
) -> None:
    data, expected, positions, offset = b"prefix", [], [], 7
    for batch, codec in batches:
        positions.append(len(data) + 1000)
        data += encode_batch(batch, base_offset=offset, codec=codec)
        expected += assigned(batch, offset)
        offset += len(batch)
    found = list(iter_batches(data[6:], position=1006, path="a.log"))
    assert [batch.position for batch in found] == positions
    assert [record for batch in found for record in batch.records()] == expected
    assert all(batch.path == "a.log" and batch.crc_ok for batch in found)


# the header ---------------------------------------------------------------------------------


def test_the_header_has_the_fields_of_the_description_in_their_places() -> None:
    raw = encode_batch(
        RECORDS,
        base_offset=0x0102030405060708,
        leader_epoch=0x11121314,
        codec=Codec.NONE,
        producer_id=0x2122232425262728,
        producer_epoch=0x3132,
        base_sequence=0x41424344,
        transactional=True,
    )
    body, _, _ = encode_records(RECORDS)
    expected = {
        "baseOffset": (0, ">q", 0x0102030405060708),
        "batchLength": (8, ">i", 49 + len(body)),
        "partitionLeaderEpoch": (12, ">i", 0x11121314),
        "magic": (16, ">b", 2),
        "crc": (17, ">I", crc32c(raw[21:])),
        "attributes": (21, ">h", 0x10),
        "lastOffsetDelta": (23, ">i", 2),
        "baseTimestamp": (27, ">q", BASE_TIMESTAMP),
        "maxTimestamp": (35, ">q", BASE_TIMESTAMP + 70),
        "producerId": (43, ">q", 0x2122232425262728),
        "producerEpoch": (51, ">h", 0x3132),
        "baseSequence": (53, ">i", 0x41424344),
        "recordsCount": (57, ">i", 3),
    }
    fields = {
        name: struct.unpack_from(layout, raw, at) for name, (at, layout, _) in expected.items()
    }
    assert fields == {name: (number,) for name, (_, _, number) in expected.items()}
    assert raw[HEADER_BYTES:] == body
    assert Batch.parse(raw).header == BatchHeader(*(number for _, _, number in expected.values()))


@pytest.mark.parametrize(
    ("options", "bits"),
    [
        ({}, 0),
        ({"codec": Codec.ZSTD}, 4),
        ({"append_timestamp": 5}, 8),
        ({"transactional": True}, 0x10),
        ({"control": True}, 0x20),
        ({"codec": Codec.LZ4, "append_timestamp": 5, "transactional": True, "control": True}, 0x3B),
    ],
)
def test_the_attributes_say_what_the_batch_is(options: dict[str, Any], bits: int) -> None:
    header = Batch.parse(encode_batch(RECORDS, **options)).header
    assert header.attributes == bits
    assert header.codec is options.get("codec", Codec.NONE)
    assert header.transactional is options.get("transactional", False)
    assert header.control is options.get("control", False)
    logged = "append_timestamp" in options
    assert header.timestamp_type is (TimestampType.LOG_APPEND if logged else TimestampType.CREATE)
    assert header.timestamp_type.label == ("LogAppendTime" if logged else "CreateTime")
    assert header.delete_horizon is None


def test_the_delete_horizon_stands_in_the_base_timestamp() -> None:
    raw = with_field(encode_batch(RECORDS), 21, ">h", 0x40)
    assert Batch.parse(raw).header.delete_horizon == BASE_TIMESTAMP


def test_a_batch_of_log_append_time_reads_back_with_that_time() -> None:
    batch = Batch.parse(encode_batch(RECORDS, append_timestamp=1234, codec=Codec.ZSTD))
    assert batch.header.max_timestamp == 1234
    assert {record.timestamp for record in batch.records()} == {1234}


def test_the_default_timestamp_stands_in_for_missing_ones_only() -> None:
    batch = [Record(value=b"a"), Record(timestamp=7, value=b"b"), Record(value=b"c")]
    stamped = Batch.parse(encode_batch(batch, default_timestamp=99))
    assert [record.timestamp for record in stamped.records()] == [99, 7, 99]
    assert (stamped.header.base_timestamp, stamped.header.max_timestamp) == (99, 99)
    unstamped = Batch.parse(encode_batch(batch))
    assert [record.timestamp for record in unstamped.records()] == [NO_TIMESTAMP, 7, NO_TIMESTAMP]


def test_an_empty_batch_that_compaction_left_has_no_records() -> None:
    sealed = seal_batch(b"", record_count=0, last_offset_delta=4, base_timestamp=1, max_timestamp=2)
    for attributes in (0, 1, 4):
        raw = with_field(sealed.at(10, 0), 21, ">h", attributes)
        batch = Batch.parse(raw)
        assert batch.records() == []
        assert (batch.header.record_count, batch.header.next_offset) == (0, 15)


def test_a_batch_describes_itself() -> None:
    batch = Batch.parse(encode_batch(RECORDS, base_offset=7), position=300, path="x.log")
    text = f"Batch(offsets 7 to 9, 3 records, {len(batch.raw)} bytes at 300 of x.log)"
    assert repr(batch) == text


# placing and stamping -----------------------------------------------------------------------


@examples(60)
@given(
    small_record_lists,
    st.sampled_from(list(Codec)),
    st.integers(0, 1 << 62),
    st.integers(-1, (1 << 31) - 1),
)
def test_placing_a_batch_keeps_its_checksum_and_changes_twelve_bytes(
    records: list[Record], codec: Codec, base_offset: int, leader_epoch: int
) -> None:
    batch = Batch.parse(encode_batch(records, base_offset=5, codec=codec), position=9, path="p")
    placed = batch.placed(base_offset, leader_epoch)
    assert placed.crc_ok
    assert Batch.parse(placed.raw).header == placed.header
    assert placed.raw[8:12] + placed.raw[16:] == batch.raw[8:12] + batch.raw[16:]
    assert placed.records() == assigned(records, base_offset)
    assert (placed.header.leader_epoch, placed.position, placed.path) == (leader_epoch, 9, "p")


@examples(60)
@given(small_record_lists, st.sampled_from(list(Codec)), st.integers(0, INT64_MAX))
def test_stamping_a_batch_gives_every_record_the_time_of_the_append(
    records: list[Record], codec: Codec, now: int
) -> None:
    raw = encode_batch(
        records,
        base_offset=5,
        leader_epoch=3,
        codec=codec,
        producer_id=8,
        producer_epoch=1,
        base_sequence=2,
        transactional=True,
    )
    batch = Batch.parse(raw, position=9, path="p")
    stamped = batch.stamped(now)
    assert stamped.crc_ok
    assert stamped.records() == [r._replace(timestamp=now) for r in assigned(records, 5)]
    assert stamped.header == batch.header._replace(
        crc=stamped.header.crc, attributes=batch.header.attributes | 8, max_timestamp=now
    )
    assert stamped.raw[HEADER_BYTES:] == batch.raw[HEADER_BYTES:]
    assert (stamped.position, stamped.path) == (9, "p")


def test_a_sealed_batch_can_be_placed_again_and_again() -> None:
    sealed = seal_records(RECORDS, codec=Codec.GZIP)
    assert sealed.record_count == 3
    assert sealed.max_timestamp == BASE_TIMESTAMP + 70
    for offset in (0, 1 << 40):
        batch = Batch.parse(sealed.at(offset, 6))
        assert batch.crc_ok
        assert batch.records() == assigned(RECORDS, offset)


# what cannot be stored ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("batch", "options", "problem"),
    [
        ([], {}, "a batch holds at least one record"),
        (RECORDS, {"base_offset": -1}, "offset -1 is out of bounds"),
        (RECORDS, {"base_offset": INT64_MAX}, "is out of bounds"),
        ([Record(timestamp=-2)], {}, "timestamp -2 is below -1"),
        ([Record(timestamp=1 << 63)], {}, "timestamp 9223372036854775808 is beyond"),
        ([Record(), Record(timestamp=INT64_MAX)], {}, "is too far behind"),
        ([(-1, 2, None, "text", ())], {}, "its value is str, not bytes"),
        (RECORDS, {"codec": Codec.SNAPPY, "level": 3}, "snappy has no compression levels"),
        (RECORDS, {"codec": Codec.GZIP, "level": 10}, "gzip level 10 is out of bounds"),
    ],
)
def test_what_cannot_be_stored_is_refused(
    batch: list[Any], options: dict[str, Any], problem: str
) -> None:
    with pytest.raises(InvalidInputError, match=problem):
        encode_batch(batch, **options)


def test_the_largest_timestamps_and_offsets_survive() -> None:
    batch = [Record(timestamp=0), Record(timestamp=INT64_MAX)]
    offset = INT64_MAX - 2
    assert Batch.parse(encode_batch(batch, base_offset=offset)).records() == assigned(batch, offset)
    backwards = [Record(timestamp=INT64_MAX), Record(timestamp=NO_TIMESTAMP)]
    assert Batch.parse(encode_batch(backwards)).records() == assigned(backwards)


def test_a_batch_that_would_be_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("logstore.segments.batch.MAX_BATCH_BYTES", 200)
    encode_batch([Record(timestamp=0, value=bytes(120))])
    with pytest.raises(InvalidInputError, match="bytes is too large: at most 200"):
        encode_batch([Record(timestamp=0, value=bytes(140))])


# damage -------------------------------------------------------------------------------------

UNPROTECTED = [*range(8), *range(12, 16)]
"""The bytes of a batch of format v2 whose damage the batch itself does not show: base offset and
leader epoch, which a log may change without touching the rest. (A base offset that turns negative
shows; in a log, a wrong one does not follow its neighbour.)"""


@each_codec
def test_any_damaged_byte_is_detected_or_in_the_twelve_unprotected_ones(codec: Codec) -> None:
    raw = encode_batch(RECORDS, base_offset=1 << 50, leader_epoch=4, codec=codec)
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
    assert sorted(undetected) == UNPROTECTED


@examples(60)
@given(small_record_lists, seeds)
def test_any_run_of_damaged_bytes_in_the_protected_part_is_detected(
    records: list[Record], seed: int
) -> None:
    rng = random.Random(seed)
    raw = encode_batch(records, codec=rng.choice(list(Codec)))
    for _ in range(20):
        start = rng.randrange(16, len(raw))
        size = rng.randint(1, min(4, len(raw) - start))  # a CRC sees any burst of up to 32 bits
        changed = raw[:start] + rng.randbytes(size) + raw[start + size :]
        try:
            assert changed == raw or not Batch.parse(changed).crc_ok
        except FormatError:
            continue


def test_a_wrong_checksum_says_what_was_computed_and_what_was_stored() -> None:
    raw = encode_batch(RECORDS)
    changed = raw[:-1] + bytes([raw[-1] ^ 1])
    batch = Batch.parse(changed, position=4096, path="00000000000000000000.log")
    assert not batch.crc_ok
    with pytest.raises(ChecksumError) as caught:
        batch.check_crc()
    stored = struct.unpack_from(">I", raw, 17)[0]
    assert str(caught.value) == (
        "00000000000000000000.log at byte 4096: the checksum of a batch does not match: "
        f"expected {crc32c(changed[21:]):#010x} (computed), found {stored:#010x} (stored)"
    )
    Batch.parse(raw).check_crc()


def test_a_checksum_is_computed_once_whoever_asks_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bytes] = []

    def counting(data: bytes) -> int:
        asked.append(data)
        return crc32c(data)

    monkeypatch.setattr("logstore.segments.batch.crc32c", counting)
    batch = Batch.parse(encode_batch(RECORDS))
    assert batch.crc_ok
    batch.check_crc()
    assert asked == [batch.raw[21:]]
    placed = batch.placed(5, 3)  # other bytes, asked anew
    assert placed.crc_ok
    assert len(asked) == 2


@pytest.mark.parametrize(
    ("position", "layout", "number", "error", "problem"),
    [
        (16, ">b", 3, UnsupportedFormatError, "magic is unknown"),
        (16, ">b", -1, UnsupportedFormatError, "magic is unknown"),
        (8, ">i", 48, FormatError, "length is wrong"),
        (0, ">q", -1, FormatError, "negative number"),
        (23, ">i", -1, FormatError, "negative number"),
        (57, ">i", -1, FormatError, "negative number"),
    ],
)
def test_a_header_that_contradicts_itself_is_refused(
    position: int, layout: str, number: int, error: type[FormatError], problem: str
) -> None:
    raw = with_field(encode_batch(RECORDS), position, layout, number)
    with pytest.raises(error, match=problem) as caught:
        Batch.parse(raw, position=1000, path="x.log")
    assert caught.value.path == "x.log"
    assert caught.value.position is not None
    assert 1000 <= caught.value.position < 1000 + HEADER_BYTES


@pytest.mark.parametrize("number", [5, 6, 7])
def test_an_unknown_codec_is_refused_when_the_records_are_wanted(number: int) -> None:
    batch = Batch.parse(with_field(encode_batch(RECORDS), 21, ">h", number), position=50, path="x")
    assert batch.crc_ok
    with pytest.raises(UnsupportedFormatError, match="codec is unknown") as caught:
        batch.records()
    assert (caught.value.path, caught.value.position) == ("x", 50)


@each_codec
@pytest.mark.parametrize("count", [0, 2, 4, (1 << 31) - 1])
def test_a_count_that_is_not_that_of_the_records_is_refused(codec: Codec, count: int) -> None:
    raw = with_field(encode_batch(RECORDS, codec=codec), 57, ">i", count)
    batch = Batch.parse(raw, position=50, path="x.log")
    assert batch.crc_ok
    with pytest.raises(FormatError) as caught:
        batch.records()
    assert caught.value.path == "x.log"
    assert caught.value.position is not None
    assert caught.value.position >= 50


def test_the_position_of_a_damaged_record_is_one_of_the_file() -> None:
    raw = encode_batch([Record(timestamp=0, value=b"12345678")] * 3)
    broken = raw[:-15] + b"\x7f" + raw[-14:]  # the length of the last record
    with pytest.raises(FormatError) as caught:
        Batch.parse(broken, position=200).records()
    assert caught.value.position is not None
    assert 200 + HEADER_BYTES <= caught.value.position < 200 + len(raw)


@each_codec
def test_records_that_unpack_to_more_than_the_bound_are_refused(codec: Codec) -> None:
    if codec is Codec.NONE:
        return
    batch = Batch.parse(encode_batch([Record(timestamp=0, value=bytes(100_000))], codec=codec))
    assert len(batch.records(max_bytes=100_100)) == 1
    with pytest.raises(LimitError, match="too large"):
        batch.records(max_bytes=100_000)


@each_codec
def test_a_batch_cut_at_any_byte_is_no_batch(codec: Codec) -> None:
    whole = encode_batch(RECORDS, codec=codec)
    for size in range(1, len(whole)):
        with pytest.raises(TruncatedError) as caught:
            list(iter_batches(whole + whole[:size], position=100))
        assert caught.value.position == 100 + len(whole)
        with pytest.raises(FormatError):
            Batch.parse(whole[:size])


def test_a_size_beyond_the_bound_is_refused_before_anything_is_read() -> None:
    too_large = struct.pack(">qi", 0, MAX_BATCH_BYTES) + bytes(100)
    with pytest.raises(LimitError, match="a batch is too large") as caught:
        list(iter_batches(too_large, path="x.log", position=5))
    assert (caught.value.path, caught.value.position) == ("x.log", 5)
    assert peek(too_large) == (0, MAX_BATCH_BYTES + 12)


@pytest.mark.parametrize("length", [-(1 << 31), -13, -12, -1, 0, 1, 4])
def test_a_size_that_no_batch_can_have_is_refused(length: int) -> None:
    with pytest.raises(FormatError):
        list(iter_batches(struct.pack(">qi", 0, length) + bytes(200)))


@examples(200)
@given(st.binary(max_size=150))
def test_any_bytes_raise_nothing_but_format_errors(data: bytes) -> None:
    read_everything(data)
    # The same with a size that fits, and each magic, so that more than the first check is met.
    if len(data) > 17:
        for magic in (0, 1, 2):
            head = data[:8] + struct.pack(">i", len(data) - 12)
            read_everything(head + data[12:16] + bytes([magic]) + data[17:])


@pytest.mark.parametrize("log", GOLDEN_LOGS, ids=lambda log: log.parent.name)
def test_damaged_segments_raise_nothing_but_format_errors(log: Path) -> None:
    data = log.read_bytes()[:3000]
    rng = random.Random(log.parent.name)
    for _ in range(60):
        read_everything(mutated(data, rng))


def read_everything(data: bytes) -> None:
    """Read all batches and records up to the first FormatError; anything else is a failure."""
    try:
        for batch in iter_batches(data, path="x.log"):
            assert repr(batch)
            assert batch.crc_ok in (True, False)
            try:
                for record in batch.records(max_bytes=1 << 20):
                    assert type(record) is Record
            except FormatError:
                continue
    except FormatError:
        return
