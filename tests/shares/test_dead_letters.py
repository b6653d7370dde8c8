"""Dead-letter topics of share groups (KIP-1191)."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from logstore import InvalidInputError, OffsetReset, Record, Store, UnknownTopicError
from logstore.log import PartitionLog

from .support import (
    GROUP,
    TOPIC,
    described,
    image,
    numbered,
    opened,
    produce,
    restarted,
    sharing,
    values,
    wait_until,
)

LETTERS = "dlq.orders"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with opened(tmp_path / "store") as store:
        store.create_topic(TOPIC)
        store.create_topic(LETTERS)
        define(store)
        yield store


def define(store: Store, **options: Any) -> None:
    store.share_groups.alter(
        GROUP,
        **{
            "share_auto_offset_reset": "earliest",
            "errors_deadletterqueue_topic_name": LETTERS,
            **options,
        },
    )


def letters(store: Store, count: int, partition: int = 0) -> list[Record]:
    """What the dead-letter topic has, when there are so many; and then the group has no more."""
    log = store.topic(LETTERS).partition(partition)
    wait_until(lambda: log.log_end_offset >= count)
    wait_until(lambda: described(store).archiving == 0)
    found = [record for batch in log.read(0).batches() for record in batch.records()]
    assert len(found) == count
    return found


def context(letter: Record) -> dict[str, bytes | None]:
    """What the headers tell."""
    start = "__dlq.errors."
    return {
        name.removeprefix(start): value for name, value in letter.headers if name.startswith(start)
    }


def reject(store: Store, count: int = 1) -> None:
    with sharing(store) as consumer:
        records = consumer.poll(count)
        assert len(records) == count
        for record in records:
            record.reject()


def test_a_rejected_record_is_copied_with_headers_that_tell_where_it_is_from(store: Store) -> None:
    sent = Record(key=b"k", value=b"v", headers=[("type", b"created")])
    store.topic(TOPIC).partition(0).append([Record(value=b"good"), sent], acks=1)
    with sharing(store) as consumer:
        good, bad = consumer.poll()
        good.accept()
        bad.reject()
    [letter] = letters(store, 1)
    assert (letter.key, letter.value) == (b"k", b"v")
    assert letter.headers[0] == ("type", b"created")
    assert context(letter) == {
        "topic": b"orders",
        "partition": b"0",
        "offset": b"1",
        "group": b"workers",
        "delivery.count": b"1",
        "message": b"Offset rejected by client.",
    }
    assert described(store).start_offset == 2


def test_so_is_one_that_was_delivered_as_often_as_it_may_be(store: Store) -> None:
    define(store, share_delivery_count_limit=2)
    produce(store, *numbered(2))
    with sharing(store) as consumer:
        for _ in range(2):
            for record in consumer.poll():
                record.release()
        assert consumer.poll() == []
    assert [context(letter)["offset"] for letter in letters(store, 2)] == [b"0", b"1"]
    assert context(letters(store, 2)[0])["delivery.count"] == b"2"
    assert context(letters(store, 2)[0])["message"] == (
        b"Offset delivery count exceeded the threshold."
    )


def test_without_a_copy_the_headers_tell_of_it(store: Store) -> None:
    define(store, errors_deadletterqueue_copy_record_enable=False)
    produce(store, b"secret")
    reject(store)
    [letter] = letters(store, 1)
    assert (letter.key, letter.value) == (None, None)
    assert context(letter)["offset"] == b"0"


def test_letters_of_a_partition_go_to_the_one_of_its_number(tmp_path: Path) -> None:
    with opened(tmp_path / "store") as store:
        store.create_topic(TOPIC, partitions=3)
        store.create_topic(LETTERS, partitions=2)
        define(store)
        for partition in range(3):
            produce(store, b"%d" % partition, partition=partition)
        with sharing(store) as consumer:
            while records := consumer.poll():
                for record in records:
                    record.reject()
        log = store.topic(LETTERS).partition(0)
        wait_until(lambda: log.log_end_offset == 2)
        found = [record.value for batch in log.read(0).batches() for record in batch.records()]
        assert found == [b"0", b"2"]
        wait_until(lambda: store.topic(LETTERS).partition(1).log_end_offset == 1)


def test_what_does_not_fit_comes_in_several_batches_or_without_its_copy(store: Store) -> None:
    store.alter_topic(LETTERS, {"max_message_bytes": 1000})
    produce(store, b"a" * 400, b"b" * 400, b"c" * 5000, b"d")
    reject(store, 4)
    found = letters(store, 4)
    assert [record.value and record.value[:1] for record in found] == [b"a", b"b", None, b"d"]
    assert [context(letter)["offset"] for letter in found] == [b"0", b"1", b"2", b"3"]


def test_what_the_log_has_lost_by_then_is_told_of_without_a_copy(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    produce(store, *numbered(3))
    housekeeper = store._share_groups._consumption._housekeeper
    with sharing(store) as consumer:
        with monkeypatch.context() as patched:
            patched.setattr(housekeeper, "tend", lambda _: None)
            for record in consumer.poll():
                record.reject()
            assert described(store).archiving == 3
            assert described(store).start_offset == 0
            store.topic(TOPIC).partition(0).delete_records(2)
        housekeeper.tick()
    assert [letter.value for letter in letters(store, 3)] == [None, None, b"2"]


def test_they_wait_for_a_topic_that_is_not_there(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    store.delete_topic(LETTERS)
    produce(store, *numbered(2))
    with sharing(store) as consumer, caplog.at_level(logging.WARNING):
        for record in consumer.poll():
            record.reject()
        wait_until(lambda: "there is no topic 'dlq.orders'" in caplog.text)
        assert described(store).archiving == 2
        assert consumer.poll() == []
        store.create_topic(LETTERS)
        assert [letter.value for letter in letters(store, 2)] == numbered(2)
    assert caplog.text.count("there is no topic") == 1


@pytest.mark.parametrize("offset", [0, 1, 3, 5])
def test_offsets_that_are_reset_leave_those_that_do_not_come_again(
    store: Store, offset: int
) -> None:
    store.delete_topic(LETTERS)
    produce(store, *numbered(5))
    reject(store, 3)
    assert described(store).archiving == 3
    store.share_groups.reset_offsets(GROUP, OffsetReset("offset", offset))
    waiting = min(offset, 3)
    assert described(store).archiving == waiting
    assert described(store).end_offset == offset
    with sharing(store) as consumer:
        assert values(consumer.poll()) == numbered(5)[offset:]
        store.create_topic(LETTERS)
        assert [letter.value for letter in letters(store, waiting)] == numbered(waiting)


def test_without_a_dead_letter_topic_any_more_they_are_given_up(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    store.delete_topic(LETTERS)
    produce(store, *numbered(2))
    with sharing(store) as consumer:
        for record in consumer.poll():
            record.reject()
        assert described(store).archiving == 2
        define(store, errors_deadletterqueue_topic_name="")
        wait_until(lambda: described(store).archiving == 0)
    assert "2 records of orders-0 are given up without a dead letter" in caplog.text
    assert described(store).start_offset == 2


def test_a_group_that_reads_its_own_letters_gives_them_up_in_place(store: Store) -> None:
    produce(store, b"poison")
    with sharing(store, pattern=".*") as consumer:
        for _ in range(2):
            [record] = consumer.poll(timeout=30)
            assert record.value == b"poison"
            record.reject()
        wait_until(lambda: all(not p.archiving for p in store.share_groups.describe(GROUP)[4]))
        assert consumer.poll() == []
    assert store.topic(LETTERS).partition(0).log_end_offset == 1


def test_what_was_left_when_a_process_died_is_done_by_maintenance(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    produce(store, *numbered(2))
    housekeeper = store._share_groups._consumption._housekeeper
    with monkeypatch.context() as patched:
        patched.setattr(housekeeper, "tend", lambda _: None)
        reject(store, 2)
    assert described(store).archiving == 2
    with opened(tmp_path / "store") as other:
        other.maintain()
        assert described(other).archiving == 0
    assert [letter.value for letter in letters(store, 2)] == numbered(2)


def test_a_failed_append_is_tried_again_and_nothing_is_lost(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    produce(store, *numbered(3))
    append = PartitionLog.append
    failures = [OSError(28, "No space left on device")]

    def failing(self: PartitionLog, *given: Any, **options: Any) -> Any:
        if LETTERS in self.directory and failures:
            raise failures.pop()
        return append(self, *given, **options)

    monkeypatch.setattr(PartitionLog, "append", failing)
    reject(store, 3)
    assert [letter.value for letter in letters(store, 3)] == numbered(3)
    assert not failures


def test_letters_are_durable_before_the_group_forgets_them(store: Store, tmp_path: Path) -> None:
    produce(store, *numbered(4), acks="all")
    with sharing(store) as consumer:
        records = consumer.poll(2)
        records[0].reject()
        records[1].reject()
        letters(store, 2)
        consumer.commit(durable=True)
        path = image(store, tmp_path / "image")
    with restarted(path) as other:
        assert [letter.value for letter in letters(other, 2)] == numbered(2)
        with sharing(other) as consumer:
            assert values(consumer.poll()) == [b"2", b"3"]


def test_topics_that_letters_cannot_go_to_are_refused(store: Store) -> None:
    store.create_topic("compacted", cleanup_policy="compact")
    with pytest.raises(UnknownTopicError):
        define(store, errors_deadletterqueue_topic_name="missing")
    with pytest.raises(UnknownTopicError):
        sharing(store, group="new", errors_deadletterqueue_topic_name="missing")
    with pytest.raises(InvalidInputError, match="compacted topic"):
        define(store, errors_deadletterqueue_topic_name="compacted")
    with pytest.raises(InvalidInputError, match="the store's own"):
        define(store, errors_deadletterqueue_topic_name="__metadata")
    with pytest.raises(InvalidInputError, match="no name for a topic"):
        define(store, errors_deadletterqueue_topic_name="a/b")
    with pytest.raises(InvalidInputError, match="does not read them"):
        sharing(store, LETTERS)
    with pytest.raises(InvalidInputError, match="copy_record_enable"):
        define(store, errors_deadletterqueue_copy_record_enable="yes")
