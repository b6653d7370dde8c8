"""Ready batches: the quick look at what a leader sends finds what the thorough one finds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from logstore import InvalidInputError
from logstore.placing import stamped_parts
from logstore.ready import ready_batches, sound_headers
from logstore.segments.batch import encode_batch
from logstore.segments.errors import FormatError

from .support import GOLDEN, raw_batch, records

BATCHES = raw_batch(0, "a", "b") + raw_batch(2, "c", epoch=3) + raw_batch(3, "d" * 300, epoch=3)
LIMIT = 1000


def thorough(data: bytes) -> list[tuple[int, ...]] | None:
    """The headers by the way that can say what is wrong."""
    try:
        return [batch.header for batch in ready_batches(data, gaps=True, max_bytes=LIMIT, name="t")]
    except (FormatError, InvalidInputError):
        return None


def test_all_headers_of_sound_batches_are_found() -> None:
    found = sound_headers(BATCHES, LIMIT)
    assert found is not None
    assert [(header.base_offset, header.leader_epoch) for header in found] == [
        (0, 0),
        (2, 3),
        (3, 3),
    ]
    assert found == thorough(BATCHES)


@given(st.integers(0, len(BATCHES) - 1), st.integers(1, 255))
def test_a_byte_that_is_wrong_is_judged_as_by_the_thorough_look(place: int, change: int) -> None:
    data = bytearray(BATCHES)
    data[place] ^= change
    assert sound_headers(bytes(data), LIMIT) == thorough(bytes(data))


@given(st.integers(0, len(BATCHES)), st.binary(max_size=80))
def test_ends_and_tails_are_judged_as_by_the_thorough_look(end: int, tail: bytes) -> None:
    data = BATCHES[:end] + tail
    assert sound_headers(data, LIMIT) == thorough(data)


@pytest.mark.parametrize("limit", [100, 200, 361, 362])
def test_a_batch_that_is_too_large_is_none(limit: int) -> None:
    expected = limit >= len(raw_batch(3, "d" * 300))
    assert (sound_headers(BATCHES, limit) is not None) == expected


STAMPED = encode_batch(
    records("a", "b", timestamp=7), producer_id=5, producer_epoch=2, base_sequence=9
)


def test_a_batch_of_a_producer_is_taken_apart() -> None:
    batch = ready_batches(STAMPED, gaps=False, max_bytes=LIMIT, name="t")[0]
    sealed = (batch.header.crc, STAMPED[21:], 2, 7, len(STAMPED))
    assert stamped_parts(STAMPED, LIMIT) == (sealed, (5, 2, 9, False))
    assert stamped_parts(STAMPED, len(STAMPED) - 1) is None
    assert stamped_parts(STAMPED + STAMPED, LIMIT) is None
    assert stamped_parts(raw_batch(0, "a", "b"), LIMIT) is None


@pytest.mark.parametrize("place", range(len(STAMPED)))
def test_a_producers_batch_with_a_wrong_byte_is_left_to_the_thorough_look(place: int) -> None:
    data = bytearray(STAMPED)
    data[place] ^= 0xFF
    found = stamped_parts(bytes(data), LIMIT)
    if 0 < place < 8 or 12 <= place < 16:  # its offset and epoch are not a client's to give
        assert found is not None
    else:
        assert found is None
        assert thorough(bytes(data)) is None


@pytest.mark.parametrize("control", [False, True])
def test_a_transactions_batch_is_told_and_its_marker_left_alone(control: bool) -> None:
    data = encode_batch(
        records("a"),
        producer_id=5,
        producer_epoch=2,
        base_sequence=9,
        transactional=True,
        control=control,
    )
    found = stamped_parts(data, LIMIT)
    assert (found is None) == control
    assert found is None or found[1] == (5, 2, 9, True)


def test_an_old_format_is_none() -> None:
    old = next((GOLDEN / "v1-none-0").glob("*.log")).read_bytes()
    assert sound_headers(old, LIMIT) is None
