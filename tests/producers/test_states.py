"""What a partition decides of a producer's batches, and what it remembers."""

from __future__ import annotations

import re
from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from logstore.errors import InvalidInputError, OutOfOrderSequenceError, ProducerFencedError
from logstore.producer_log import of_batch
from logstore.producer_states import (
    MAX_EPOCH,
    NAMED_IDS,
    SEQUENCES,
    ProducerBatch,
    ProducerStamp,
    ProducerStates,
    SentBatch,
    check_stamp,
    sequence_after,
)
from logstore.segments import producer_snapshot
from logstore.segments.batch import iter_batches

from ..log.support import GOLDEN  # noqa: TID252 - tests are no package

DAY_MS = 86_400_000
LARGEST = SEQUENCES - 1


def batch(
    sequence: int,
    count: int = 1,
    *,
    producer_id: int = 7,
    epoch: int = 0,
    offset: int = 0,
    timestamp: int = 1000,
) -> ProducerBatch:
    return ProducerBatch(producer_id, epoch, sequence, offset, offset + count - 1, timestamp)


def known(*batches: ProducerBatch) -> ProducerStates:
    states = ProducerStates()
    for one in batches:
        states.note(one)
    return states


def check(states: ProducerStates, one: ProducerBatch, now_ms: int = 2000) -> SentBatch | None:
    return states.check(one, now_ms, DAY_MS, "orders-0")


# checking -------------------------------------------------------------------------------------


def test_the_first_batch_of_a_producer_that_nobody_knows_may_begin_anywhere() -> None:
    assert check(ProducerStates(), batch(0)) is None
    assert check(ProducerStates(), batch(523, epoch=9)) is None


def test_a_batch_goes_on_behind_the_last_one() -> None:
    states = known(batch(0, 3), batch(3, 2, offset=10))
    assert check(states, batch(5)) is None


@pytest.mark.parametrize("sequence", [4, 6, 7, 0, LARGEST])
def test_a_batch_that_is_not_the_next_one_is_out_of_order(sequence: int) -> None:
    states = known(batch(0, 3), batch(3, 2, offset=10))
    expected = re.escape(f"begins with sequence {sequence}, where 5 was expected")
    with pytest.raises(OutOfOrderSequenceError, match=rf"orders-0: .*producer 7.*{expected}"):
        check(states, batch(sequence))


def test_one_of_the_last_five_batches_is_a_duplicate_and_an_older_one_is_out_of_order() -> None:
    sent = [batch(2 * number, 2, offset=10 * number, timestamp=number) for number in range(7)]
    states = known(*sent)
    for number in range(2, 7):
        found = check(states, batch(2 * number, 2, offset=99))
        place = (2 * number, 2 * number + 1, 10 * number, 10 * number + 1, number)
        assert found == SentBatch(*place)
    with pytest.raises(OutOfOrderSequenceError):
        check(states, batch(2, 2))


def test_a_batch_that_begins_like_another_one_but_is_longer_is_no_duplicate() -> None:
    states = known(batch(0, 3))
    for count in (1, 2, 4):
        with pytest.raises(OutOfOrderSequenceError):
            check(states, batch(0, count))


def test_a_lower_epoch_is_fenced_and_a_higher_one_begins_at_0() -> None:
    states = known(batch(0, 3, epoch=4))
    with pytest.raises(ProducerFencedError, match=r"producer 7 of epoch 3 is fenced.*epoch 4"):
        check(states, batch(3, epoch=3))
    with pytest.raises(OutOfOrderSequenceError, match="epoch 5, begins with sequence 3, where 0"):
        check(states, batch(3, epoch=5))
    assert check(states, batch(0, epoch=5)) is None
    # What was sent in another epoch is no duplicate.
    states.note(batch(0, 3, epoch=5, offset=3))
    with pytest.raises(ProducerFencedError):
        check(states, batch(0, 3, epoch=4))


def test_a_named_producer_goes_on_in_its_next_epoch() -> None:
    states = known(batch(0, 3, producer_id=NAMED_IDS + 1))
    assert check(states, batch(3, epoch=1, producer_id=NAMED_IDS + 1)) is None
    for sequence in (0, 2, 4):
        with pytest.raises(OutOfOrderSequenceError, match="where 3 was expected"):
            check(states, batch(sequence, epoch=1, producer_id=NAMED_IDS + 1))
    states.note(batch(3, epoch=1, producer_id=NAMED_IDS + 1, offset=3))
    with pytest.raises(ProducerFencedError):
        check(states, batch(4, epoch=0, producer_id=NAMED_IDS + 1))


def test_sequences_begin_again_behind_the_largest() -> None:
    states = known(batch(LARGEST - 1, 2))
    assert check(states, batch(0)) is None
    states = known(batch(LARGEST - 1, 4))
    assert check(states, batch(2)) is None
    assert check(states, batch(LARGEST - 1, 4)) is not None
    with pytest.raises(OutOfOrderSequenceError):
        check(states, batch(0))


def test_a_producer_is_forgotten_when_it_has_been_silent_for_long() -> None:
    states = known(batch(0, 3, timestamp=1000))
    with pytest.raises(OutOfOrderSequenceError):
        check(states, batch(9), 999 + DAY_MS)
    assert check(states, batch(9), 1000 + DAY_MS) is None
    # Records may be older than their batch.
    states.note(batch(3, offset=3, timestamp=1000), seen_ms=5000)
    with pytest.raises(OutOfOrderSequenceError):
        check(states, batch(9), 1000 + DAY_MS)
    states.forget_expired(4999 + DAY_MS, DAY_MS)
    assert len(states) == 1
    states.forget_expired(5000 + DAY_MS, DAY_MS)
    assert len(states) == 0


def test_a_named_producer_and_one_with_an_open_transaction_are_not_forgotten() -> None:
    open_one = batch(0)._replace(transactional=True)
    states = known(batch(0, producer_id=NAMED_IDS), open_one)
    states.forget_expired(100 * DAY_MS, DAY_MS)
    assert len(states) == 2
    marker = batch(-1, offset=1)._replace(control=True, coordinator_epoch=3)
    states.note(marker)
    states.forget_expired(100 * DAY_MS, DAY_MS)
    assert list(states.known()) == [NAMED_IDS]


def test_markers_need_no_sequence_and_are_fenced_all_the_same() -> None:
    states = known(batch(0, 3, epoch=2))
    marker = batch(-1)._replace(control=True, coordinator_epoch=3)
    assert check(states, marker._replace(epoch=2)) is None
    assert check(states, marker._replace(epoch=3)) is None
    with pytest.raises(ProducerFencedError):
        check(states, marker._replace(epoch=1))
    states.note(marker._replace(epoch=3))
    assert check(states, batch(0, epoch=3)) is None
    with pytest.raises(OutOfOrderSequenceError):
        check(states, batch(3, epoch=3))


@pytest.mark.parametrize(
    "stamp",
    [
        ProducerStamp(-1, 0, 0),
        ProducerStamp(1 << 63, 0, 0),
        ProducerStamp(0, -1, 0),
        ProducerStamp(0, MAX_EPOCH + 1, 0),
        ProducerStamp(0, 0, -1),
        ProducerStamp(0, 0, SEQUENCES),
        ProducerStamp("7", 0, 0),  # type: ignore[arg-type]
    ],
)
def test_a_stamp_out_of_bounds_is_refused(stamp: ProducerStamp) -> None:
    with pytest.raises(InvalidInputError, match=r"out of bounds.*0 to 32767.*0 to 2147483647"):
        check_stamp(stamp)


def test_a_stamp_within_bounds_is_taken() -> None:
    stamp = ProducerStamp((1 << 63) - 1, MAX_EPOCH, LARGEST)
    assert check_stamp(stamp) is stamp


# snapshots ------------------------------------------------------------------------------------


def test_a_snapshot_remembers_the_last_batch_of_each_producer() -> None:
    states = known(batch(0, 3), batch(3, 2, offset=10), batch(LARGEST, 3, producer_id=5, offset=12))
    again = ProducerStates.from_entries(states.entries())
    assert [entry.producer_id for entry in states.entries()] == [5, 7]
    assert check(again, batch(3, 2)) == SentBatch(3, 4, 10, 11, 1000)
    assert check(again, batch(LARGEST, 3, producer_id=5)) == SentBatch(LARGEST, 1, 12, 14, 1000)
    assert check(again, batch(5)) is None
    with pytest.raises(OutOfOrderSequenceError):
        check(again, batch(0, 3))
    assert again.entries() == states.entries()


def test_the_headers_of_a_brokers_log_tell_what_its_snapshot_says() -> None:
    partition = GOLDEN / "partition-0"
    states = ProducerStates()
    for raw in iter_batches((partition / f"{50:020}.log").read_bytes()):
        if raw.header.producer_id >= 0:
            states.note(of_batch(raw))
    written = (partition / f"{66:020}.snapshot").read_bytes()
    by_id = {entry.producer_id: entry for entry in producer_snapshot.decode(written)}
    assert {entry.producer_id: entry for entry in states.entries()} == by_id
    assert len(by_id) == 4


# properties -----------------------------------------------------------------------------------

sequences = st.one_of(
    st.integers(0, 12), st.integers(LARGEST - 12, LARGEST), st.integers(0, LARGEST)
)


@given(sequences, st.integers(0, 1 << 20), st.integers(0, 1 << 20))
def test_sequences_add_up_around_the_largest(sequence: int, one: int, two: int) -> None:
    assert sequence_after(sequence_after(sequence, one), two) == sequence_after(sequence, one + two)
    assert sequence_after(sequence_after(sequence, one), -one) == sequence
    assert 0 <= sequence_after(sequence, one) <= LARGEST


@given(
    start=sequences,
    counts=st.lists(st.integers(1, 4), min_size=1, max_size=12),
    tries=st.lists(st.tuples(st.integers(-20, 20), st.integers(1, 4)), max_size=20),
    by_snapshot=st.booleans(),
)
def test_whatever_is_tried_only_the_next_batch_is_taken_and_only_a_known_one_is_a_duplicate(
    start: int, counts: list[int], tries: list[tuple[int, int]], by_snapshot: bool
) -> None:
    states = ProducerStates()
    remembered: deque[tuple[int, int, int]] = deque(maxlen=1 if by_snapshot else 5)
    sequence, offset = start, 0
    for count in counts:
        one = batch(sequence, count, offset=offset)
        assert check(states, one) is None
        states.note(one)
        remembered.append((sequence, count, offset))
        sequence, offset = sequence_after(sequence, count), offset + count
    if by_snapshot:
        states = ProducerStates.from_entries(states.entries())
    for step, count in [(0, 1), *tries]:
        tried = batch(sequence_after(sequence, step), count, offset=offset)
        places = [o for s, c, o in remembered if (s, c) == (tried.sequence, count)]
        if tried.sequence == sequence:
            assert check(states, tried) is None
        elif places:
            found = check(states, tried)
            assert found is not None
            assert (found.base_offset, found.last_offset) == (places[0], places[0] + count - 1)
        else:
            with pytest.raises(OutOfOrderSequenceError):
                check(states, tried)
