"""Share groups: acquiring records, saying what became of them, and what the group makes of it."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from logstore import (
    AcknowledgeType,
    ClosedError,
    GroupNotEmptyError,
    InvalidInputError,
    LeaseExpiredError,
    OffsetReset,
    PreconditionFailedError,
    ReadOnlyError,
    Store,
    TopicPartition,
    UnknownGroupError,
    UnknownTopicError,
)
from logstore.shares.config import duration_ms

from .support import (
    GROUP,
    TOPIC,
    ToldClock,
    described,
    numbered,
    opened,
    produce,
    sharing,
    values,
    wait_until,
)


@pytest.fixture
def clock() -> ToldClock:
    return ToldClock()


@pytest.fixture
def store(tmp_path: Path, clock: ToldClock) -> Iterator[Store]:
    with opened(tmp_path / "store", clock=clock) as store:
        store.create_topic(TOPIC)
        yield store


# Acquiring ------------------------------------------------------------------------------------


def test_the_records_of_one_partition_are_shared_and_each_is_delivered_once(store: Store) -> None:
    produce(store, *numbered(10))
    with sharing(store) as first, sharing(store) as second:
        ours, theirs = first.poll(4), second.poll(6)
        assert values(ours) == numbered(4)  # less than half of what is ready: its share
        assert sorted(map(int, values(theirs))) == [4, 5, 6]  # type: ignore[arg-type]
        assert {record.delivery_count for record in ours + theirs} == {1}
        assert {(record.topic, record.partition) for record in ours} == {(TOPIC, 0)}
        for record in ours + theirs:
            record.accept()
        rest = [*first.poll(), *second.poll()]
        assert sorted(map(int, values(rest))) == [7, 8, 9]  # type: ignore[arg-type]


def test_a_record_has_all_that_the_log_has(store: Store) -> None:
    with store.producer() as producer:
        producer.send(TOPIC, b"v", key=b"k", headers=[("h", b"x")], timestamp=1234)
        producer.send(TOPIC, None, key=b"k")
    with sharing(store) as consumer:
        first, second = consumer.poll()
        assert (first.key, first.value, first.offset, first.timestamp) == (b"k", b"v", 0, 1234)
        assert list(first.headers) == [("h", b"x")]
        assert second.value is None
        assert "orders-0, offset=1" in repr(second)


def test_two_groups_and_a_consumer_group_do_not_know_of_each_other(store: Store) -> None:
    produce(store, *numbered(3))
    with sharing(store) as one, sharing(store, group="others") as other:
        assert values(one.poll()) == values(other.poll()) == numbered(3)
    with store.consumer(TOPIC, group=GROUP) as consumer:
        assert len(consumer.poll()) == 3


def test_a_group_begins_at_the_end_unless_it_is_told_otherwise(
    store: Store, clock: ToldClock
) -> None:
    produce(store, b"old")
    clock.ahead_ms = 3_600_000
    produce(store, b"young")
    with (
        store.share_consumer(TOPIC, group="latest") as latest,
        sharing(store, group="earliest") as earliest,
        sharing(store, group="1h", share_auto_offset_reset="by_duration:PT30M") as younger,
    ):
        produce(store, b"new")
        assert values(latest.poll()) == [b"new"]
        assert values(earliest.poll()) == [b"old", b"young", b"new"]
        assert values(younger.poll()) == [b"young", b"new"]


def test_records_come_to_a_consumer_that_waits(store: Store) -> None:
    with sharing(store) as consumer:
        timer = threading.Timer(0.05, lambda: produce(store, b"now"))
        timer.start()
        assert values(consumer.poll(timeout=30)) == [b"now"]
        timer.join()


def test_no_more_records_are_acquired_than_the_partition_has_locks(store: Store) -> None:
    produce(store, *numbered(10))
    with (
        sharing(store, share_partition_max_record_locks=4) as first,
        sharing(store, max_poll_records=10) as second,
    ):
        held = first.poll()
        assert len(held) == 4
        assert second.poll() == []
        held[0].accept(flush=True)
        held[1].release()
        assert values(second.poll(timeout=30)) == [b"1", b"4"]  # two locks are free
        for record in held[2:]:
            record.accept(flush=True)
        assert described(store).acquired == 2


# Acknowledging --------------------------------------------------------------------------------


def test_accepted_and_rejected_records_are_done_and_released_ones_come_again(store: Store) -> None:
    produce(store, *numbered(4))
    with sharing(store) as consumer:
        records = consumer.poll()
        consumer.acknowledge(records[0])
        consumer.acknowledge(records[1], AcknowledgeType.RELEASE)
        consumer.acknowledge(records[2], AcknowledgeType.REJECT)
        records[3].accept(durable=True)
        [again] = consumer.poll()
        assert (again.value, again.delivery_count) == (b"1", 2)
        assert described(store).start_offset == 1
        again.accept()
        consumer.commit()
        assert described(store)[2:7] == (4, 4, 4, 0, 0)
        assert consumer.poll() == []


def test_the_explicit_mode_wants_to_hear_of_every_record(store: Store) -> None:
    produce(store, *numbered(2))
    with sharing(store) as consumer:
        first, second = consumer.poll()
        first.accept()
        with pytest.raises(InvalidInputError, match="1 records of the last poll"):
            consumer.poll()
        with pytest.raises(InvalidInputError, match="settled before"):
            first.release()
        with pytest.raises(InvalidInputError, match="no AcknowledgeType"):
            consumer.acknowledge(second, "accept")  # type: ignore[arg-type]
        second.accept()
        assert consumer.poll() == []


def test_the_implicit_mode_accepts_what_nothing_else_was_said_of(store: Store) -> None:
    produce(store, *numbered(5))
    with sharing(store, share_acknowledgement_mode="implicit") as consumer:
        records = consumer.poll(3)
        records[0].release()
        records[1].reject()
        assert values(consumer.poll(1)) == [b"0"]
        assert values(consumer.poll()) == numbered(2, 3)
        consumer.commit()
        assert described(store).lag == 0


def test_closing_releases_what_was_not_acknowledged(store: Store) -> None:
    produce(store, *numbered(3))
    consumer = sharing(store, share_acknowledgement_mode="implicit")
    consumer.poll(2)
    consumer.close()
    consumer.close()
    with pytest.raises(ClosedError):
        consumer.poll()
    with sharing(store) as consumer:
        assert [record.delivery_count for record in consumer.poll()] == [2, 2, 1]


def test_leaving_without_an_error_commits_and_with_one_releases(store: Store) -> None:
    produce(store, *numbered(6))
    options = {"share_acknowledgement_mode": "implicit"}
    with sharing(store, **options) as consumer:
        for record in consumer:
            if record.value == b"1":
                break
    with contextlib.suppress(ZeroDivisionError), sharing(store, **options) as consumer:
        for record in consumer:
            if record.value == b"4":
                raise ZeroDivisionError
    with sharing(store) as consumer:
        # What the loop was done with is accepted; what it had not come to is as it was.
        found = [(record.value, record.delivery_count) for record in consumer.poll()]
        assert found == [(b"4", 2), (b"5", 1)]


def test_iterating_ends_when_nothing_has_come_for_a_while(store: Store) -> None:
    produce(store, *numbered(7))
    with sharing(
        store,
        share_acknowledgement_mode="implicit",
        consumer_timeout_ms=0,
        max_poll_records=3,
    ) as consumer:
        assert values(consumer) == numbered(7)
    assert described(store).lag == 0


def test_a_record_is_archived_when_its_last_delivery_failed(store: Store) -> None:
    produce(store, b"poison", b"fine")
    with sharing(store, share_delivery_count_limit=3) as consumer:
        counts = []
        while records := consumer.poll():
            for record in records:
                if record.value == b"poison":
                    counts.append(record.delivery_count)
                    record.release()
                else:
                    record.accept()
        assert counts == [1, 2, 3]
        consumer.commit()
        assert described(store).start_offset == 2


# Locks ----------------------------------------------------------------------------------------


def test_a_lock_that_has_run_out_gives_the_record_to_another(
    store: Store, clock: ToldClock
) -> None:
    produce(store, b"slow")
    with sharing(store) as slow, sharing(store) as other:
        [record] = slow.poll()
        clock.ahead_ms += 29_000
        assert other.poll(timeout=0.1) == []
        clock.ahead_ms += 2_000
        [again] = other.poll(timeout=30)
        assert again.delivery_count == 2
        with pytest.raises(LeaseExpiredError):
            record.accept(flush=True)
        again.accept(flush=True)


def test_what_is_accepted_too_late_is_no_error_of_a_poll(store: Store, clock: ToldClock) -> None:
    produce(store, *numbered(2))
    options = {"share_acknowledgement_mode": "implicit"}
    with sharing(store, **options) as slow, sharing(store) as other:
        assert len(slow.poll()) == 1  # its share
        clock.ahead_ms += 31_000
        wait_until(lambda: described(store).acquired == 0)
        for record in other.poll():
            record.accept(flush=True)
        assert len(slow.poll(timeout=30)) == 1


def test_what_a_closed_store_held_comes_back(tmp_path: Path, store: Store) -> None:
    produce(store, *numbered(2))
    with opened(Path(store.path)) as other:
        sharing(other).poll()
    with sharing(store) as consumer:
        assert [record.delivery_count for record in consumer.poll(timeout=30)] == [2, 2]


def test_a_consumer_that_nobody_holds_any_more_is_ended(store: Store) -> None:
    produce(store, *numbered(3))
    consumer = sharing(store)
    del consumer
    wait_until(lambda: store.share_groups.list()[0].members == 0)


# Topics that change ---------------------------------------------------------------------------


def test_partitions_that_come_later_are_read_from_their_beginning(store: Store) -> None:
    with store.share_consumer(TOPIC, group=GROUP) as consumer:
        assert consumer.poll() == []
        store.add_partitions(TOPIC, 3)
        produce(store, b"second", partition=1)
        produce(store, b"third", partition=2)
        found: list[bytes | None] = []
        while len(found) < 2:
            found += values(consumer.poll(timeout=30))
        assert set(found) == {b"second", b"third"}


def test_partitions_are_taken_from_in_turns(store: Store) -> None:
    store.create_topic("many", partitions=3)
    for partition in range(3):
        produce(store, *numbered(10), topic="many", partition=partition)
    with sharing(store, "many", max_poll_records=5) as consumer:
        places = []
        for _ in range(3):
            records = consumer.poll()
            places += [record.partition for record in records]
            for record in records:
                record.accept()
        assert Counter(places) == {0: 5, 1: 5, 2: 5}


def test_a_pattern_takes_in_topics_that_are_made_later(store: Store) -> None:
    with store.share_consumer(
        pattern="or.*", group=GROUP, share_auto_offset_reset="earliest"
    ) as consumer:
        store.create_topic("orchids")
        produce(store, b"white", topic="orchids")
        assert values(consumer.poll(timeout=30)) == [b"white"]
        assert consumer.topics == {TOPIC, "orchids"}


def test_a_deleted_topic_is_forgotten_and_the_others_go_on(store: Store) -> None:
    store.create_topic("other")
    produce(store, *numbered(3))
    with sharing(store, TOPIC, "other") as consumer:
        held = consumer.poll(2)
        store.delete_topic(TOPIC)
        held[0].accept(flush=True)  # nobody misses it
        held[1].accept()
        produce(store, b"other", topic="other")
        [record] = consumer.poll(timeout=30)
        assert record.value == b"other"
        assert [one.topic for one in store.share_groups.describe(GROUP).partitions] == ["other"]
        store.delete_topic("other")
        record.accept()
        with pytest.raises(UnknownTopicError, match="nothing to read"):
            consumer.poll()


def test_a_topic_that_is_made_anew_is_another_one(store: Store) -> None:
    produce(store, *numbered(3))
    with sharing(store, share_acknowledgement_mode="implicit") as consumer:
        assert len(consumer.poll()) == 3
    store.delete_topic(TOPIC)
    store.create_topic(TOPIC)
    produce(store, b"new")
    with sharing(store) as consumer:
        assert values(consumer.poll()) == [b"new"]


def test_retention_moves_the_start_offset_on(store: Store) -> None:
    store.alter_topic(TOPIC, {"segment_bytes": 200})
    for number in range(10):
        produce(store, *numbered(5, 5 * number))
    log = store.topic(TOPIC).partition(0)
    with sharing(store) as consumer:
        held = consumer.poll(12)
        held[0].release()
        for record in held[1:11]:
            record.accept(flush=True)
        log.delete_records(23)
        held[11].accept()
        assert values(consumer.poll()) == numbered(27, 23)
        assert described(store).start_offset == 23


def test_a_group_that_has_not_come_to_what_retention_deleted_goes_on_behind_it(
    store: Store,
) -> None:
    produce(store, *numbered(10))
    with sharing(store) as consumer:
        store.topic(TOPIC).partition(0).delete_records(10)
        wait_until(lambda: described(store).lag == 0)
        produce(store, b"next")
        assert values(consumer.poll(timeout=30)) == [b"next"]


def test_a_group_goes_back_to_the_end_of_a_log_that_was_truncated(store: Store) -> None:
    for start in (0, 2, 4):
        produce(store, *numbered(2, start))
    with sharing(store) as consumer:
        for record in consumer.poll():
            if record.offset not in (1, 5):
                record.accept()
    log = store.topic(TOPIC).partition(0)
    log.truncate(4)
    with opened(Path(store.path)) as other, sharing(other) as consumer:
        produce(store, b"new")
        assert values(consumer.poll(timeout=30)) == [b"1", b"new"]


def test_what_compaction_removed_is_passed_over(store: Store) -> None:
    store.create_topic(
        "table", cleanup_policy="compact", min_cleanable_dirty_ratio=0.0, segment_bytes=300
    )
    with store.producer() as producer:
        for number in range(20):
            producer.send("table", b"%d" % number, key=b"%d" % (number % 2)).result()
    with sharing(store, "table") as consumer:
        records = consumer.poll(4)
        assert store.maintain() is not None
        for record in records:
            record.release()
        left = values(consumer.poll())
        assert len(left) < 20
        assert left[-2:] == [b"18", b"19"]


# The group ------------------------------------------------------------------------------------


def test_options_are_the_groups_and_can_be_altered(store: Store, clock: ToldClock) -> None:
    produce(store, b"0")
    with sharing(store, share_record_lock_duration_ms=1000) as consumer:
        with pytest.raises(PreconditionFailedError, match="share_record_lock_duration_ms=1000"):
            sharing(store, share_record_lock_duration_ms=2000)
        assert store.share_groups.list() == [(GROUP, "Stable", 1)]
        store.share_groups.alter(GROUP, share_record_lock_duration_ms=5000)
        assert store.share_groups.describe(GROUP).config["share_record_lock_duration_ms"] == 5000
        consumer.poll()
        clock.ahead_ms += 3000
        assert consumer._selection.lease_ms == 5000
    store.share_groups.alter("new", share_delivery_count_limit=2)
    assert [one.name for one in store.share_groups.list()] == ["new", GROUP]
    assert store.share_groups.list()[0].state == "Empty"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"group": ""}, "no name for a group"),
        ({"colour": 1}, "no option called 'colour'"),
        ({"share_auto_offset_reset": "by_duration:P"}, "share_auto_offset_reset="),
        ({"share_record_lock_duration_ms": 0}, "out of bounds"),
        ({"share_delivery_count_limit": True}, "out of bounds"),
        ({"share_partition_max_record_locks": 70_000}, "out of bounds"),
        ({"max_poll_records": 0}, "out of bounds"),
        ({"share_acknowledgement_mode": "perhaps"}, "none of 'implicit', 'explicit'"),
    ],
)
def test_options_that_make_no_sense_are_refused(
    store: Store, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidInputError, match=message):
        store.share_consumer(TOPIC, **{"group": GROUP, **options})
    assert store.share_groups.list() == []


def test_durations_are_read_as_iso_8601() -> None:
    assert duration_ms("by_duration:P1DT2H3M4.5S") == 93_784_500
    assert duration_ms("by_duration:PT0S") == 0
    for wrong in ("P1D", "by_duration:", "by_duration:P", "by_duration:P1DT", "by_duration:PT-1S"):
        assert duration_ms(wrong) is None


def test_what_is_not_there_or_not_ours_is_refused(store: Store, tmp_path: Path) -> None:
    with pytest.raises(UnknownTopicError):
        sharing(store, "nothing")
    with pytest.raises(InvalidInputError, match="store's own topic"):
        sharing(store, "__metadata")
    for action in (store.share_groups.describe, store.share_groups.delete):
        with pytest.raises(UnknownGroupError, match="no share group called 'nobody'"):
            action("nobody")
    with sharing(store) as consumer, pytest.raises(InvalidInputError, match="max_records=0"):
        consumer.poll(0)


def test_a_group_is_deleted_when_it_has_no_consumers(store: Store) -> None:
    produce(store, *numbered(3))
    with sharing(store) as consumer:
        with pytest.raises(GroupNotEmptyError, match="has consumers"):
            store.share_groups.delete(GROUP)
        for record in consumer.poll():
            record.accept()
    store.share_groups.delete(GROUP)
    assert store.share_groups.list() == []
    assert list((Path(store.path) / "share-groups").iterdir()) == []
    with store._live.transaction() as live, store._metadata.transaction() as meta:
        assert list(live.items("share-ledgers")) == []
        assert list(meta.items("share-checkpoints")) == []
    with sharing(store) as consumer:  # another group, of that name
        assert len(consumer.poll()) == 3


def test_offsets_are_reset_where_nobody_consumes(store: Store) -> None:
    produce(store, *numbered(5))
    with sharing(store) as consumer:
        records = consumer.poll()
        records[0].accept()
        for record in records[2:]:
            record.accept()
        with pytest.raises(GroupNotEmptyError):
            store.share_groups.reset_offsets(GROUP, OffsetReset("earliest"))
    place = TopicPartition(TOPIC, 0)
    before = described(store)
    dry = store.share_groups.reset_offsets(GROUP, OffsetReset("offset", 3), dry_run=True)
    assert (dry[place].before.offset, dry[place].after) == (1, 3)  # type: ignore[union-attr]
    assert described(store) == before
    assert store.share_groups.reset_offsets(GROUP, OffsetReset("offset", 3)) == dry
    assert described(store)[2:7] == (3, 3, 5, 0, 0)
    with sharing(store) as consumer:
        assert values(consumer.poll()) == numbered(2, 3)
    with pytest.raises(UnknownTopicError):
        store.share_groups.reset_offsets(
            GROUP, OffsetReset("earliest"), partitions=[TopicPartition(TOPIC, 7)]
        )


def test_a_store_that_is_only_read_shows_its_groups(store: Store) -> None:
    produce(store, *numbered(3))
    with sharing(store) as consumer:
        consumer.poll(2)
        with opened(Path(store.path), read_only=True) as reader:
            found = reader.share_groups.describe(GROUP)
            assert [one[2:7] for one in found.partitions] == [(0, 2, 3, 2, 0)]
            assert reader.share_groups.list() == [(GROUP, "Stable", 1)]
            with pytest.raises(ReadOnlyError):
                reader.share_consumer(TOPIC, group=GROUP)
            with pytest.raises(ReadOnlyError):
                reader.share_groups.delete(GROUP)


def test_many_threads_share_one_partition(store: Store) -> None:
    produce(store, *numbered(2000))
    seen: Counter[bytes | None] = Counter()

    def work() -> None:
        with sharing(store, max_poll_records=50, share_acknowledgement_mode="implicit") as mine:
            while records := mine.poll():
                seen.update(values(records))
                time.sleep(0.001)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == Counter(numbered(2000))
    assert described(store).lag == 0
