"""Consumers without a group: subscriptions, positions, waiting. With one: tests/groups."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import logstore
from logstore import (
    ChecksumError,
    ClosedError,
    Consumer,
    ConsumerRecord,
    InvalidInputError,
    NoOffsetError,
    OffsetAndMetadata,
    OffsetOutOfRangeError,
    PartitionLog,
    Record,
    Store,
    TopicPartition,
    UnknownTopicError,
)
from logstore.fetcher import Cursor

A0, A1, B0 = TopicPartition("a", 0), TopicPartition("a", 1), TopicPartition("b", 0)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with logstore.open(tmp_path / "store", maintenance_interval=None) as opened:
        yield opened


def append(store: Store, topic: str, *values: str, partition: int = 0) -> None:
    log = store.topic(topic).partition(partition)
    log.append([Record(value=value.encode()) for value in values], acks=1)


def values(records: list[ConsumerRecord]) -> list[str]:
    return [(record.value or b"").decode() for record in records]


def drained(consumer: Consumer) -> list[ConsumerRecord]:
    records: list[ConsumerRecord] = []
    while found := consumer.poll():
        records += found
    return records


def test_records_come_with_topic_and_partition_and_all_their_fields(store: Store) -> None:
    log = store.create_topic("a", partitions=2).partition(1)
    log.append([Record(timestamp=17, key=b"k", value=b"v", headers=[("h", b"x")])])
    with store.consumer("a") as consumer:
        [record] = consumer.poll()
    assert record == ConsumerRecord("a", 1, 0, 17, b"k", b"v", (("h", b"x"),))
    assert isinstance(record, ConsumerRecord)


def test_every_record_of_every_partition_comes_once_and_each_partition_in_order(
    store: Store,
) -> None:
    store.create_topic("a", partitions=3)
    for round_ in range(50):
        for partition in range(3):
            append(store, "a", *(f"{round_}.{i}" for i in range(7)), partition=partition)
    with store.consumer("a", max_poll_records=10) as consumer:
        records = drained(consumer)
    expected = [f"{round_}.{i}" for round_ in range(50) for i in range(7)]
    for partition in range(3):
        mine = [record for record in records if record.partition == partition]
        assert values(mine) == expected
        assert [record.offset for record in mine] == list(range(350))


def test_poll_returns_at_most_what_was_asked_for_and_takes_it_from_several_partitions(
    store: Store,
) -> None:
    store.create_topic("a", partitions=2)
    append(store, "a", "1", "2", "3")
    append(store, "a", "4", "5", "6", partition=1)
    with store.consumer("a") as consumer:
        first = consumer.poll(4)
        assert len(first) == 4
        assert {record.partition for record in first} == {0, 1}
        assert len(consumer.poll(4)) == 2
        assert consumer.poll(4) == []


def test_a_partition_with_many_records_does_not_starve_the_others(store: Store) -> None:
    store.create_topic("a", partitions=2)
    for _ in range(20):
        append(store, "a", *map(str, range(100)))
    append(store, "a", "x", partition=1)
    with store.consumer("a", max_poll_records=10) as consumer:
        seen = consumer.poll() + consumer.poll()
    assert {record.partition for record in seen} == {0, 1}


def test_the_iterator_ends_when_nothing_came_for_consumer_timeout_ms(store: Store) -> None:
    store.create_topic("a")
    append(store, "a", "1", "2")
    with store.consumer("a", consumer_timeout_ms=0) as consumer:
        assert [record.value for record in consumer] == [b"1", b"2"]
        append(store, "a", "3")
        assert [record.value for record in consumer] == [b"3"]


def test_the_position_is_the_offset_of_the_next_record_that_the_application_gets(
    store: Store,
) -> None:
    store.create_topic("a")
    append(store, "a", *"abcdef")
    with store.consumer(consumer_timeout_ms=0) as consumer:
        consumer.assign([A0])
        assert consumer.position(A0) == 0
        for expected, record in enumerate(consumer, start=1):
            assert record.offset == expected - 1
            assert consumer.position(A0) == expected
        consumer.seek(A0, 2)
        assert consumer.position(A0) == 2
        consumer.poll(3)
        assert consumer.position(A0) == 5
        assert consumer.lag() == {A0: 1}


def test_seeking_within_the_loop_takes_effect_with_the_next_record(store: Store) -> None:
    store.create_topic("a")
    append(store, "a", *"abcdef")
    seen = []
    with store.consumer("a", consumer_timeout_ms=0) as consumer:
        for record in consumer:
            seen.append(record.offset)
            if seen == [0, 1]:
                consumer.seek(A0, 4)
    assert seen == [0, 1, 4, 5]


def test_polling_in_the_middle_of_a_loop_goes_on_behind_the_record_in_hand(store: Store) -> None:
    store.create_topic("a")
    append(store, "a", *"abcdef")
    seen = []
    with store.consumer("a", consumer_timeout_ms=0) as consumer:
        for record in consumer:
            seen.append(record.offset)
            if record.offset == 1:
                seen += [polled.offset for polled in consumer.poll(2)]
    assert seen == [0, 1, 2, 3, 4, 5]


def test_seek_to_beginning_and_end(store: Store) -> None:
    store.create_topic("a", partitions=2)
    append(store, "a", "1", "2")
    append(store, "a", "3", partition=1)
    with store.consumer() as consumer:
        consumer.assign([A0, A1])
        consumer.seek_to_end()
        assert consumer.poll() == []
        consumer.seek_to_beginning(A1)
        assert values(consumer.poll()) == ["3"]
        consumer.seek_to_beginning()
        assert sorted(values(consumer.poll())) == ["1", "2", "3"]


def test_paused_partitions_give_nothing_until_they_are_resumed(store: Store) -> None:
    store.create_topic("a", partitions=2)
    append(store, "a", "1", "2")
    append(store, "a", "3", partition=1)
    with store.consumer() as consumer:
        consumer.assign([A0, A1])
        consumer.pause(A0)
        assert consumer.paused == {A0}
        assert values(drained(consumer)) == ["3"]
        consumer.resume(A0)
        assert values(drained(consumer)) == ["1", "2"]


def test_pausing_within_the_loop_keeps_the_records_that_were_read_ahead(store: Store) -> None:
    store.create_topic("a")
    append(store, "a", *"abc")
    with store.consumer("a", consumer_timeout_ms=0) as consumer:
        seen = []
        for record in consumer:
            seen.append(record.offset)
            consumer.pause(A0)
        assert seen == [0]
        consumer.resume(A0)
        assert [record.offset for record in consumer] == [1, 2]


@pytest.mark.parametrize(("reset", "expected"), [("earliest", ["1", "2"]), ("latest", [])])
def test_auto_offset_reset_says_where_to_begin(
    store: Store, reset: str, expected: list[str]
) -> None:
    store.create_topic("a")
    append(store, "a", "1", "2")
    with store.consumer("a", auto_offset_reset=reset) as consumer:
        assert values(consumer.poll()) == expected
        append(store, "a", "3")
        assert values(consumer.poll()) == ["3"]


def test_without_a_reset_a_consumer_that_cannot_know_where_to_begin_says_so(store: Store) -> None:
    store.create_topic("a")
    append(store, "a", "1")
    with store.consumer("a", auto_offset_reset="none") as consumer:
        with pytest.raises(NoOffsetError, match="no offset for partition 0 of 'a'"):
            consumer.poll()
        consumer.seek(A0, 0)
        assert values(consumer.poll()) == ["1"]


def test_records_that_were_deleted_under_the_position_are_reset_by_choice(store: Store) -> None:
    log = store.create_topic("a").partition(0)
    append(store, "a", *map(str, range(10)))
    for reset, expected in (("earliest", ["7", "8", "9"]), ("latest", [])):
        with store.consumer("a", auto_offset_reset=reset) as consumer:
            consumer.poll(1)
            consumer.seek(A0, 2)
            log.delete_records(before=7)
            assert values(consumer.poll()) == expected
    with store.consumer("a", auto_offset_reset="none") as consumer:
        consumer.assign([A0])
        consumer.seek(A0, 2)
        with pytest.raises(OffsetOutOfRangeError, match="the log holds 7 to 9"):
            consumer.poll()


def test_compacted_gaps_are_passed_over(store: Store) -> None:
    log = store.create_topic("a", cleanup_policy="compact", segment_bytes=300).partition(0)
    for number in range(30):
        log.append([Record(key=b"k%d" % (number % 2), value=b"%d" % number)], acks=1)
    log.compact(force=True)
    with store.consumer("a", consumer_timeout_ms=0) as consumer:
        offsets = [record.offset for record in consumer]
        assert offsets[-2:] == [28, 29]
        assert len(offsets) < 30
        assert consumer.position(A0) == 30
        assert consumer.lag() == {A0: 0}


def test_offsets_for_times_and_both_ends(store: Store) -> None:
    log = store.create_topic("a", partitions=2).partition(0)
    log.append([Record(timestamp=stamp, value=b"x") for stamp in (10, 20, 30)])
    with store.consumer() as consumer:
        assert consumer.offsets_for_times({A0: 15, A1: 0}) == {A0: 1, A1: None}
        assert consumer.offsets_for_times({A0: 31}) == {A0: None}
        assert consumer.beginning_offsets([A0, A1]) == {A0: 0, A1: 0}
        assert consumer.end_offsets([A0, A1]) == {A0: 3, A1: 0}


def test_a_pattern_takes_in_topics_that_are_created_later(store: Store) -> None:
    store.create_topic("a")
    store.create_topic("c")
    append(store, "a", "1")
    append(store, "c", "2")
    with store.consumer(pattern="[ab]") as consumer:
        assert values(consumer.poll()) == ["1"]
        store.create_topic("b")
        append(store, "b", "3")
        assert values(consumer.poll(timeout=10)) == ["3"]
        assert consumer.assignment == {A0, B0}


@pytest.mark.parametrize("assigned", [False, True])
def test_a_topic_that_was_created_anew_is_read_from_its_beginning(
    store: Store, assigned: bool
) -> None:
    store.create_topic("a")
    append(store, "a", "one", "two")
    with store.consumer() as consumer:

        def choose() -> None:
            consumer.assign([A0]) if assigned else consumer.subscribe("a")

        choose()
        assert values(consumer.poll()) == ["one", "two"]
        store.delete_topic("a")
        with pytest.raises(UnknownTopicError, match="a"):
            consumer.poll(timeout=5)
        store.create_topic("a")
        append(store, "a", "three")
        if assigned:  # whoever chose a partition has to choose once more
            with pytest.raises(UnknownTopicError, match="deleted"):
                consumer.poll()
            choose()
        assert values(consumer.poll(timeout=5)) == ["three"]


def test_assigning_again_keeps_the_positions_of_partitions_that_stay(store: Store) -> None:
    store.create_topic("a", partitions=2)
    append(store, "a", "1", "2")
    append(store, "a", "3", partition=1)
    with store.consumer() as consumer:
        consumer.assign([A0])
        consumer.poll(1)
        consumer.assign([A0, A1])
        assert sorted(values(drained(consumer))) == ["2", "3"]
        consumer.assign([])
        assert consumer.poll() == []


def test_a_waiting_poll_is_woken_by_a_record_in_any_partition(store: Store) -> None:
    store.create_topic("a", partitions=2)
    with store.consumer("a") as consumer:
        for partition in (1, 0):
            timer = threading.Timer(0.1, append, (store, "a", "x"), {"partition": partition})
            timer.start()
            [record] = consumer.poll(timeout=30)
            assert record.partition == partition
            timer.join()


def damage_batch_at(log: PartitionLog, offset: int) -> None:
    """Change the last byte of the batch that holds ``offset``, and of no other."""
    fetch = log.read(offset, max_bytes=1)
    with open(fetch.path, "r+b") as file:
        file.seek(fetch.position + len(fetch.data) - 1)
        file.write(b"\xff")


def test_a_poll_returns_what_stands_in_front_of_damage_and_commits_no_more(store: Store) -> None:
    topic = store.create_topic("a", partitions=2)
    append(store, "a", "1", "2")
    append(store, "a", "3", partition=1)
    append(store, "a", "4", partition=1)
    damage_batch_at(topic.partition(1), 1)
    with store.consumer("a", group="g") as consumer:
        seen: list[str] = []
        while len(seen) < 3:
            seen += values(consumer.poll(timeout=10))
        assert sorted(seen) == ["1", "2", "3"]
        with pytest.raises(ChecksumError):
            consumer.poll()
        with pytest.raises(ChecksumError):
            consumer.poll()
    committed = store.groups.committed("g", [A0, A1])
    assert committed == {A0: OffsetAndMetadata(2), A1: OffsetAndMetadata(1)}


def test_ctrl_c_in_a_poll_loses_no_record(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.create_topic("a", partitions=2)
    append(store, "a", "1", "2")
    append(store, "a", "3", partition=1)
    with store.consumer("a") as consumer:
        consumer.assign([A0, A1])
        second = consumer._ours.cursor(A1)
        take = Cursor.take

        def interrupted(cursor: Cursor, most: int) -> object:
            if cursor is second:
                raise KeyboardInterrupt
            return take(cursor, most)

        with monkeypatch.context() as patch:
            patch.setattr(Cursor, "take", interrupted)
            with pytest.raises(KeyboardInterrupt):
                consumer.poll()
        assert sorted(values(consumer.poll())) == ["1", "2", "3"]


def test_a_poll_without_records_returns_when_its_time_is_over(store: Store) -> None:
    store.create_topic("a")
    with store.consumer("a") as consumer:
        begun = time.monotonic()
        assert consumer.poll(timeout=0.12) == []
        assert time.monotonic() - begun >= 0.12


def test_closing_from_another_thread_ends_a_wait(store: Store) -> None:
    store.create_topic("a")
    consumer = store.consumer("a")
    timer = threading.Timer(0.1, consumer.close)
    timer.start()
    with pytest.raises(ClosedError, match="the consumer was closed"):
        consumer.poll(timeout=None)
    timer.join()
    with pytest.raises(ClosedError, match="the consumer was closed"):
        consumer.poll()
    consumer.close()


def test_a_loop_ends_with_an_error_when_the_consumer_is_closed_in_it(store: Store) -> None:
    store.create_topic("a")
    append(store, "a", *"abc")
    consumer = store.consumer("a")
    records = iter(consumer)
    assert next(records).offset == 0
    consumer.close()
    with pytest.raises(ClosedError):
        next(records)


def test_wrong_use_is_refused_and_says_what_is_right(store: Store) -> None:
    store.create_topic("a")
    with pytest.raises(UnknownTopicError, match="no topic called 'b'"):
        store.consumer("b")
    with pytest.raises(InvalidInputError, match="by name, or to a pattern"):
        store.consumer("a", pattern="b")
    with pytest.raises(InvalidInputError, match="no regular expression"):
        store.consumer(pattern="(")
    with pytest.raises(InvalidInputError, match="5 is no regular expression"):
        store.consumer(pattern=5)  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="1 to 255 characters"):
        store.consumer("a", group="g" * 256)
    with pytest.raises(InvalidInputError, match=r"max_poll_records=0 is out of bounds: .* 1 to"):
        store.consumer("a", max_poll_records=0)
    with pytest.raises(InvalidInputError, match="no option called 'max_pol_records'"):
        store.consumer("a", max_pol_records=1)
    with pytest.raises(InvalidInputError, match="auto_offset_reset='first' is none of"):
        store.consumer("a", auto_offset_reset="first")
    with pytest.raises(InvalidInputError, match="must be below"):
        store.consumer("a", heartbeat_interval_ms=50_000)
    with pytest.raises(InvalidInputError, match="group_instance_id needs a group"):
        store.consumer("a", group_instance_id="x")
    with store.consumer("a") as consumer:
        with pytest.raises(InvalidInputError, match="has no group"):
            consumer.commit()
        with pytest.raises(InvalidInputError, match="not assigned"):
            consumer.seek(A1, 0)
        consumer.poll()
        with pytest.raises(InvalidInputError, match="out of bounds"):
            consumer.seek(A0, -1)
        for most in (0, 1.5, True, "1"):
            with pytest.raises(InvalidInputError, match=f"max_records={most!r} is out of bounds"):
                consumer.poll(most)  # type: ignore[arg-type]
        for timeout in (math.nan, "1", True):
            with pytest.raises(InvalidInputError, match=f"timeout={timeout!r} is no number"):
                consumer.poll(timeout=timeout)  # type: ignore[arg-type]
        for offset in (True, 1.0, "1", None, 1 << 63):
            with pytest.raises(InvalidInputError, match=f"{offset!r} is"):
                consumer.seek(A0, offset)  # type: ignore[arg-type]
        for place in ("a", ("a",), ("a", "0"), ("a", True), ("a", 0, 0), None, 5):
            with pytest.raises(InvalidInputError, match="is no partition: the name of a topic"):
                consumer.pause(place)  # type: ignore[arg-type]
            with pytest.raises(InvalidInputError, match="is no partition: the name of a topic"):
                consumer.assign([place])  # type: ignore[list-item]
        with pytest.raises(InvalidInputError, match="a timestamp is an int"):
            consumer.offsets_for_times({A0: "now"})  # type: ignore[dict-item]
        assert consumer.position(A0) == 0


@pytest.mark.parametrize(("reset", "expected"), [("earliest", ["1", "2"]), ("latest", [])])
def test_a_position_behind_the_end_of_a_log_that_was_cut_is_reset(
    store: Store, reset: str, expected: list[str]
) -> None:
    log = store.create_topic("a").partition(0)
    append(store, "a", "1", "2", "3", "4")
    with store.consumer("a", auto_offset_reset=reset, consumer_timeout_ms=100) as consumer:
        consumer.poll()
        consumer.seek_to_end()
        assert consumer.poll() == []
        log.truncate(2)
        assert values(consumer.poll(timeout=10 if expected else 0)) == expected
        assert consumer.position(A0) == 2
        append(store, "a", "new")
        assert values(consumer.poll(timeout=10)) == ["new"]
        log.truncate(0)
        append(store, "a", "1", "2")
        assert values(list(consumer)) == expected


def test_a_position_behind_the_end_is_an_error_where_nothing_is_to_be_reset(store: Store) -> None:
    log = store.create_topic("a").partition(0)
    append(store, "a", "1", "2", "3", "4")
    with store.consumer("a", group="g", auto_offset_reset="none") as consumer:
        with pytest.raises(NoOffsetError):
            consumer.poll(timeout=10)
        consumer.seek(A0, 4)
        consumer.commit()
        assert consumer.poll() == []
        log.truncate(2)
        for _ in range(2):
            with pytest.raises(OffsetOutOfRangeError, match=r"offset 4 .* the log holds 0 to 1"):
                consumer.poll(timeout=10)
        consumer.seek_to_end()
        append(store, "a", "new")
        assert values(consumer.poll(timeout=10)) == ["new"]
    log.truncate(1)
    with store.consumer("a", group="g", auto_offset_reset="earliest") as consumer:
        assert values(consumer.poll(timeout=10)) == ["1"]


def test_a_groups_name_is_bounded_as_the_groups_own(store: Store) -> None:
    store.create_topic("a")
    with pytest.raises(InvalidInputError, match=r"group: .* is no name for a group: 1 to 255"):
        store.consumer("a", group="x" * 256)
    store.consumer("a", group="x" * 255).close()


def test_reading_needs_no_right_to_write(store: Store) -> None:
    store.create_topic("a")
    append(store, "a", "1")
    with (
        logstore.open(store.path, read_only=True) as reader,
        reader.consumer("a") as consumer,
    ):
        assert values(consumer.poll()) == ["1"]
