"""Which transactions are open, and which were aborted, by the batches of a partition."""

from __future__ import annotations

from collections.abc import Sequence

from logstore import Record
from logstore.segments.batch import Batch, encode_batch, iter_batches
from logstore.segments.control import ControlType, end_transaction_marker
from logstore.segments.filtering import empty_batch
from logstore.transactions import OpenTransactions, Outcomes, TransactionEnd


def batches(*given: tuple[int, ControlType | str], emptied: Sequence[int] = ()) -> list[Batch]:
    """Batches of one record each, by producer: data, or a marker; those at ``emptied`` offsets are
    without it, as compaction leaves them."""
    found = []
    for offset, (producer_id, what) in enumerate(given):
        control = isinstance(what, ControlType)
        record = Record(value=b"v")
        if isinstance(what, ControlType):
            record = end_transaction_marker(what, timestamp=1, coordinator_epoch=0)
        data = encode_batch(
            [record],
            base_offset=offset,
            leader_epoch=0,
            producer_id=producer_id,
            producer_epoch=0,
            transactional=True,
            control=control,
        )
        [batch] = iter_batches(data)
        if offset in emptied:
            [batch] = iter_batches(empty_batch(batch.header))
        found.append(batch)
    return found


ABORT, COMMIT = ControlType.ABORT, ControlType.COMMIT


def test_ends_are_told_with_their_beginnings_and_what_is_open_behind_them() -> None:
    walk = OpenTransactions()
    given = batches((1, "x"), (2, "x"), (1, "x"), (1, ABORT), (2, COMMIT), (3, ABORT))
    ends = [walk.take(batch) for batch in given]
    assert ends == [
        None,
        None,
        None,
        TransactionEnd(ABORT, 1, 0, 3, 1),
        TransactionEnd(COMMIT, 2, 1, 4, 5),
        TransactionEnd(ABORT, 3, None, 5, 6),
    ]
    assert walk.stable_offset is None


def test_batches_of_aborted_transactions_are_known() -> None:
    outcomes = Outcomes()
    given = batches((1, "x"), (2, "x"), (1, ABORT), (1, "x"), (2, COMMIT), (3, "x"))
    for batch in given:
        outcomes.take(batch)
    assert [outcomes.is_aborted(batch) for batch in given] == [True, False, True, *[False] * 3]
    assert outcomes.last_stable_offset == 3


def test_what_compaction_has_emptied_is_no_open_transaction() -> None:
    outcomes = Outcomes()
    given = batches((1, "x"), (1, "x"), (1, ABORT), (2, "x"), (2, COMMIT), emptied=(0, 3, 4))
    for batch in given:
        outcomes.take(batch)
    assert [outcomes.is_aborted(batch) for batch in given[:3]] == [False, True, True]
    assert outcomes.last_stable_offset is None


def test_a_marker_that_cannot_be_read_ends_nothing() -> None:
    outcomes = Outcomes()
    [data] = batches((1, "x"))
    outcomes.take(data)
    broken = encode_batch(
        [Record(key=b"")],
        base_offset=1,
        leader_epoch=0,
        producer_id=1,
        producer_epoch=0,
        transactional=True,
        control=True,
    )
    for batch in iter_batches(broken):
        outcomes.take(batch)
    assert outcomes.last_stable_offset == 0
