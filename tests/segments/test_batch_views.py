"""Batches that share the bytes that they were read in."""

from __future__ import annotations

from pathlib import Path

import pytest

from logstore.segments.batch import HEADER_BYTES, encode_batch, iter_batches
from logstore.segments.batch_views import BatchView, iter_views
from logstore.segments.compression import Codec
from logstore.segments.errors import ChecksumError, FormatError, TruncatedError
from logstore.segments.record import Record

GOLDEN = Path(__file__).resolve().parent.parent / "golden"

RECORDS = [Record(timestamp=1_000 + n, key=b"k", value=b"v" * n) for n in range(5)]


def batches(count: int) -> bytes:
    codecs = list(Codec)
    return b"".join(
        encode_batch(RECORDS, base_offset=5 * n, leader_epoch=n, codec=codecs[n % len(codecs)])
        for n in range(count)
    )


def test_a_view_is_the_batch_in_all_that_it_says() -> None:
    data = batches(10)
    for view, batch in zip(
        iter_views(data, below=50, position=7, path="a.log"),
        iter_batches(data, position=7, path="a.log"),
        strict=True,
    ):
        assert isinstance(view, BatchView)
        assert (view.raw, view.header, view.position) == (batch.raw, batch.header, batch.position)
        assert view.crc_ok
        assert view.records() == batch.records()
        assert view.placed(70, 3).raw == batch.placed(70, 3).raw
        assert b"".join(view.placed_parts(70, 3)[1:]) == batch.placed(70, 3).raw


@pytest.mark.parametrize("more", [1, 16, HEADER_BYTES - 1, HEADER_BYTES, HEADER_BYTES + 3])
def test_a_part_of_another_batch_may_stand_behind_them(more: int) -> None:
    data = batches(3)
    end = sum(batch.header.size for batch in list(iter_batches(data))[:2])
    found = iter_views(data[: end + more], below=10)
    assert [view.header.base_offset for view in found] == [0, 5]
    with pytest.raises(TruncatedError, match=f"byte {end}"):
        list(iter_views(data[: end + more], below=15))


def test_a_changed_byte_is_noticed_in_header_and_body() -> None:
    data = bytearray(batches(1))
    for position in (21, HEADER_BYTES - 1, HEADER_BYTES, len(data) - 1):
        data[position] ^= 4
        (view,) = iter_views(bytes(data), below=-1)
        with pytest.raises(ChecksumError):
            view.check_crc()
        data[position] ^= 4


def test_what_is_no_batch_is_told_as_by_iter_batches() -> None:
    data = batches(2)
    for broken in (data[:30], data + b"\0" * 100, data[:8] + b"\xff" * 4 + data[12:]):
        with pytest.raises(FormatError) as expected:
            list(iter_batches(broken))
        with pytest.raises(FormatError) as found:
            list(iter_views(broken, below=-1))
        assert str(found.value) == str(expected.value)


def test_messages_of_old_formats_are_batches_of_their_own() -> None:
    (path,) = (GOLDEN / "v1-gzip-0").glob("*.log")
    data = path.read_bytes()
    found = list(iter_views(data, below=-1))
    assert [one.raw for one in found] == [one.raw for one in iter_batches(data)]
    assert {one.header.magic for one in found} == {1}


def test_another_producer_is_another_header_and_checksum() -> None:
    data = encode_batch(RECORDS, producer_id=5, base_sequence=3, transactional=True)
    (view,) = iter_views(data, below=5)
    assert isinstance(view, BatchView)
    assert view.written_by(-1, -1, -1).raw == encode_batch(RECORDS)
    other = view.written_by(9, 0, 17)
    assert other.crc_ok
    assert other.raw == encode_batch(RECORDS, producer_id=9, producer_epoch=0, base_sequence=17)
    assert view.crc_ok
