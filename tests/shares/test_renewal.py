"""Renewing the locks of records one by one (KIP-1222)."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from logstore import (
    AcknowledgeType,
    InvalidInputError,
    LeaseExpiredError,
    ShareRecord,
    Store,
    UnknownTopicError,
)

from .support import GROUP, TOPIC, ToldClock, described, numbered, opened, produce, sharing, values

LOCK_MS = 10_000_000
"""Longer than any test takes: time is told."""


@pytest.fixture
def clock() -> ToldClock:
    return ToldClock()


@pytest.fixture
def store(tmp_path: Path, clock: ToldClock) -> Iterator[Store]:
    with opened(tmp_path / "store", clock=clock) as store:
        store.create_topic(TOPIC)
        store.share_groups.alter(GROUP, share_record_lock_duration_ms=LOCK_MS)
        store.share_groups.alter(GROUP, share_auto_offset_reset="earliest")
        yield store


def tick(store: Store) -> None:
    """A round of the housekeeper, now."""
    store._share_groups._consumption._housekeeper.tick()


def test_a_renewed_record_is_kept_while_others_of_its_batch_are_lost(
    store: Store, clock: ToldClock
) -> None:
    produce(store, *numbered(5))
    with sharing(store) as consumer:
        records = consumer.poll()
        assert consumer.acquisition_lock_timeout_ms == LOCK_MS
        clock.ahead_ms += LOCK_MS * 2 // 3
        records[1].renew()
        consumer.acknowledge(records[3], AcknowledgeType.RENEW)
        assert described(store).acquired == consumer.unacknowledged == 5
        clock.ahead_ms += LOCK_MS * 2 // 3
        tick(store)
        assert (described(store).acquired, described(store).returned) == (2, 3)
        with pytest.raises(LeaseExpiredError):
            records[0].accept(flush=True)
        records[1].accept(flush=True)
        records[3].release()
        found = consumer.poll()
        assert values(found) == [b"0", b"2", b"3", b"4"]
        assert [record.delivery_count for record in found] == [2, 2, 2, 2]


def test_renewing_again_and_again_holds_a_record_for_as_long_as_it_takes(
    store: Store, clock: ToldClock
) -> None:
    produce(store, *numbered(2))
    with sharing(store) as consumer:
        record = consumer.poll(1)[0]
        for _ in range(5):
            clock.ahead_ms += LOCK_MS // 2 + 1
            tick(store)
            record.renew()
        assert described(store).acquired == 1
        record.reject()
        assert not record.is_open()
        assert described(store).acquired == 0
        for action in (record.renew, record.accept):
            with pytest.raises(InvalidInputError, match="settled before"):
                action()


def test_the_explicit_mode_leaves_a_renewed_record_with_whoever_has_it(store: Store) -> None:
    produce(store, *numbered(4))
    with sharing(store) as consumer:
        slow, quick = consumer.poll(2)
        slow.renew()
        with pytest.raises(InvalidInputError, match="1 records of the last poll"):
            consumer.poll(1)
        quick.accept()
        assert values(consumer.poll(1)) == [b"2"]  # one more than the one that was renewed
        assert slow.is_open()
        slow.accept()


def test_the_implicit_mode_accepts_it_with_the_next_poll(store: Store) -> None:
    produce(store, *numbered(2))
    with sharing(store, share_acknowledgement_mode="implicit") as consumer:
        record = consumer.poll(1)[0]
        record.renew()
        assert values(consumer.poll(1)) == [b"1"]
        assert not record.is_open()


def test_a_lock_that_has_run_out_cannot_be_renewed(store: Store, clock: ToldClock) -> None:
    produce(store, *numbered(2))
    with sharing(store) as consumer:
        record, other = consumer.poll()
        record.renew()
        clock.ahead_ms += LOCK_MS + 1
        tick(store)
        for late in (record, other):
            with pytest.raises(LeaseExpiredError):
                late.renew()


def test_a_record_of_a_deleted_topic_cannot_be_renewed(store: Store) -> None:
    produce(store, b"0")
    with sharing(store) as consumer:
        [record] = consumer.poll()
        store.delete_topic(TOPIC)
        with pytest.raises(UnknownTopicError):
            record.renew()


def test_a_group_may_forbid_it(store: Store) -> None:
    produce(store, b"0")
    with sharing(store) as consumer:
        [record] = consumer.poll()
        store.share_groups.alter(GROUP, share_renew_acknowledge_enable=False)
        with pytest.raises(InvalidInputError, match="allows no renewals"):
            record.renew()
        record.accept()


def test_closing_releases_what_was_renewed(store: Store) -> None:
    produce(store, *numbered(3))
    with sharing(store) as consumer:
        for record in consumer.poll(2):
            record.renew()
    assert (described(store).acquired, described(store).returned) == (0, 2)


def test_one_thread_may_renew_what_another_one_accepts(store: Store) -> None:
    produce(store, *numbered(100))
    with sharing(store) as consumer:
        records = consumer.poll()
        finished = threading.Event()
        renewals = []

        def renew() -> None:
            while not finished.is_set():
                for record in records:
                    if record.is_open():
                        try:
                            record.renew()
                            renewals.append(record.offset)
                        except InvalidInputError:
                            assert not record.is_open()  # it was accepted meanwhile

        thread = threading.Thread(target=renew)
        thread.start()
        try:
            for record in records:
                record.accept()
        finally:
            finished.set()
            thread.join()
        consumer.commit()
        assert (described(store).lag, consumer.unacknowledged) == (0, 0)


def test_a_loop_goes_on_with_what_was_fetched_unless_its_locks_have_run_out(
    store: Store, clock: ToldClock
) -> None:
    produce(store, *numbered(3))
    with sharing(store, consumer_timeout_ms=0) as consumer:
        loop = iter(consumer)
        next(loop).accept(flush=True)
        clock.ahead_ms += LOCK_MS + 1
        tick(store)
        found = [(record.offset, record.delivery_count) for record in accepted(loop)]
        assert found == [(1, 2), (2, 2)]


def accepted(records: Iterator[ShareRecord]) -> Iterator[ShareRecord]:
    for record in records:
        record.accept()
        yield record
