"""Consumers in groups: sharing partitions, committing, coming back."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path

import pytest

import logstore
from logstore import (
    Consumer,
    FencedMemberError,
    GroupNotEmptyError,
    IllegalGenerationError,
    InvalidInputError,
    NoOffsetError,
    OffsetAndMetadata,
    RebalanceListener,
    Record,
    Store,
    TopicPartition,
    UnknownTopicError,
)
from logstore.groups.heartbeats import Heartbeats
from logstore.subscription import Topics
from logstore.waiting import PartitionsWatch, Reading

from .support import Clock

A0, A1, A2, A3 = (TopicPartition("a", number) for number in range(4))
B0 = TopicPartition("b", 0)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with logstore.open(tmp_path / "store", maintenance_interval=None) as opened:
        opened.create_topic("a", partitions=4)
        yield opened


def append(store: Store, *values: str, partition: int = 0, topic: str = "a") -> None:
    log = store.topic(topic).partition(partition)
    log.append([Record(value=value.encode()) for value in values], acks=1)


def poll_until(condition: Callable[[], bool], *consumers: Consumer) -> None:
    """Let consumers poll until something has come true; they get no records meanwhile."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, [consumer.assignment for consumer in consumers]
        for consumer in consumers:
            assert consumer.poll(timeout=0.01) == []


def drain(consumer: Consumer) -> None:
    """Poll for ever."""
    while True:
        consumer.poll(timeout=1)


class Events(RebalanceListener):
    """Notes what happens."""

    def __init__(self, consumer: list[Consumer] | None = None) -> None:
        self.events: list[tuple[str, set[TopicPartition]]] = []
        self.commit_with = consumer

    def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        self.events.append(("revoked", set(revoked)))
        for consumer in self.commit_with or ():
            consumer.commit()

    def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        self.events.append(("assigned", set(assigned)))

    def on_partitions_lost(self, lost: Collection[TopicPartition]) -> None:
        self.events.append(("lost", set(lost)))


@pytest.mark.parametrize("strategy", ["range", "roundrobin", "sticky", "cooperative-sticky"])
def test_members_share_the_partitions_and_follow_who_comes_and_goes(
    store: Store, strategy: str
) -> None:
    def member() -> Consumer:
        return store.consumer("a", group="g", partition_assignment_strategy=strategy)

    with member() as first:
        poll_until(lambda: len(first.assignment) == 4, first)
        with member() as second:
            poll_until(lambda: len(first.assignment) == len(second.assignment) == 2, first, second)
            assert first.assignment.isdisjoint(second.assignment)
        poll_until(lambda: first.assignment == {A0, A1, A2, A3}, first)


def test_a_member_that_unsubscribes_commits_and_leaves_the_group(store: Store) -> None:
    append(store, *"abc")
    with store.consumer("a", group="g") as consumer:
        assert len(consumer.poll(timeout=10)) == 3
        consumer.poll()  # which says that they are done
        consumer.unsubscribe()
        assert (consumer.assignment, consumer.membership) == (frozenset(), None)
        assert store.groups.describe("g").members == []
        with store.consumer("a", group="g") as other:
            poll_until(lambda: len(other.assignment) == 4, other)
            assert other.committed(A0) == {A0: OffsetAndMetadata(3)}
        consumer.subscribe("a")
        poll_until(lambda: len(consumer.assignment) == 4, consumer)


def test_a_group_goes_on_where_it_committed(store: Store) -> None:
    append(store, *"abcdef")
    with store.consumer("a", group="g", enable_auto_commit=False) as consumer:
        assert len(consumer.poll(4, timeout=10)) == 4
        consumer.commit()
        assert len(consumer.poll(1)) == 1
        assert consumer.committed(A0) == {A0: OffsetAndMetadata(4)}
    with store.consumer("a", group="g") as consumer:
        assert [record.offset for record in consumer.poll(timeout=10)] == [4, 5]
    with store.consumer("a", group="other") as consumer:
        assert [record.offset for record in consumer.poll(timeout=10)] == [0, 1, 2, 3, 4, 5]


def test_offsets_are_committed_with_a_note_and_survive_a_reopening(
    store: Store, tmp_path: Path
) -> None:
    append(store, *"abc")
    with store.consumer("a", group="g", enable_auto_commit=False) as consumer:
        consumer.poll(timeout=10)
        consumer.commit({A0: OffsetAndMetadata(2, "by hand")}, durable=True)
        consumer.commit({A1: 0})
    with logstore.open(store.path, maintenance_interval=None) as again:
        committed = again.groups.committed("g", [A0, A1, A2])
    assert committed == {A0: OffsetAndMetadata(2, "by hand"), A1: OffsetAndMetadata(0), A2: None}


def test_auto_commit_covers_what_the_application_came_back_from(store: Store) -> None:
    append(store, *"abcdef")
    with store.consumer("a", group="g", auto_commit_interval_ms=0) as consumer:
        consumer.poll(2, timeout=10)
        assert store.groups.committed("g", [A0])[A0] in (None, OffsetAndMetadata(0))
        consumer.poll(2)
        assert store.groups.committed("g", [A0]) == {A0: OffsetAndMetadata(2)}
    assert store.groups.committed("g", [A0]) == {A0: OffsetAndMetadata(4)}


def test_closing_commits_what_a_loop_was_given(store: Store) -> None:
    append(store, *"abcdef")
    with store.consumer("a", group="g") as consumer:
        for record in consumer:
            if record.offset == 2:
                break
    assert store.groups.committed("g", [A0]) == {A0: OffsetAndMetadata(3)}


def test_a_record_in_whose_processing_an_error_came_is_not_committed(store: Store) -> None:
    append(store, *"abcdef")

    def loop() -> None:
        with store.consumer("a", group="g") as consumer:
            for record in consumer:
                if record.offset == 2:
                    raise RuntimeError("bad record")

    def poll() -> None:
        with store.consumer("a", group="g") as consumer:
            assert [record.offset for record in consumer.poll(1, timeout=10)] == [2]
            assert [record.offset for record in consumer.poll(2)] == [3, 4]
            raise RuntimeError("bad batch")

    with pytest.raises(RuntimeError, match="bad record"):
        loop()
    assert store.groups.committed("g", [A0]) == {A0: OffsetAndMetadata(2)}
    with pytest.raises(RuntimeError, match="bad batch"):
        poll()
    assert store.groups.committed("g", [A0]) == {A0: OffsetAndMetadata(3)}


def test_without_auto_commit_nothing_is_committed_by_itself(store: Store) -> None:
    append(store, "a")
    with store.consumer("a", group="g", enable_auto_commit=False) as consumer:
        consumer.poll(timeout=10)
    with store.consumer("a", group="g2", enable_auto_commit=True) as consumer:
        consumer.poll(timeout=10)
        consumer.close(commit=False)
    assert store.groups.committed("g", [A0]) == {A0: None}
    assert store.groups.committed("g2", [A0]) == {A0: None}


def test_a_listener_may_commit_before_partitions_go_to_another_member(store: Store) -> None:
    append(store, *"abc")
    holder: list[Consumer] = []
    events = Events(holder)
    first = store.consumer(group="g", enable_auto_commit=False)
    holder.append(first)
    first.subscribe("a", listener=events)
    assert len(first.poll(timeout=10)) == 3
    with store.consumer("a", group="g") as second:
        poll_until(lambda: len(second.assignment) == 2, first, second)
        assert store.groups.committed("g", [A0]) == {A0: OffsetAndMetadata(3)}
        assert ("revoked", {A0, A1, A2, A3}) in events.events
        assert events.events[-1] == ("assigned", set(first.assignment))
    holder.clear()
    first.close()
    assert events.events[-1][0] == "revoked"


def test_seeking_in_the_listener_decides_where_reading_begins(store: Store) -> None:
    append(store, *"abcdef")

    class FromThree(RebalanceListener):
        def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
            if A0 in assigned:
                consumer.seek(A0, 3)

    with store.consumer(group="g", auto_offset_reset="none") as consumer:
        consumer.subscribe("a", listener=FromThree())
        with pytest.raises(NoOffsetError, match="has committed no offset for partition"):
            drain(consumer)
        assert consumer.position(A0) in (3, 6)


def test_what_a_member_lost_cannot_be_committed(store: Store) -> None:
    append(store, *"abc")
    events = Events()
    slow = store.consumer(group="g", max_poll_interval_ms=100, heartbeat_interval_ms=20)
    slow.subscribe("a", listener=events)
    assert len(slow.poll(timeout=10)) == 3
    with store.consumer("a", group="g") as other:
        deadline = time.monotonic() + 30
        while len(other.assignment) < 4:
            assert time.monotonic() < deadline
            other.poll(timeout=0.01)
        with pytest.raises((FencedMemberError, IllegalGenerationError)):
            slow.commit()
        assert store.groups.committed("g", [A0])[A0] != OffsetAndMetadata(99)
        slow.poll(timeout=0.01)
        assert ("lost", {A0, A1, A2, A3}) in events.events
    slow.close()


def test_a_member_that_slept_too_long_loses_and_joins_again_without_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Heartbeats, "_tick", lambda _: None)  # the whole process sleeps
    clock = Clock()
    events = Events()
    with logstore.open(tmp_path / "other", maintenance_interval=None, clock=clock) as store:
        store.create_topic("a")
        append(store, *"abc")
        with store.consumer(
            "a",
            listener=events,
            group="g",
            auto_commit_interval_ms=0,
            session_timeout_ms=1000,
            heartbeat_interval_ms=300,
        ) as consumer:
            assert len(consumer.poll(timeout=10)) == 3
            clock.ms += 1001
            # The position that is to be committed now is nobody's any more.
            records = consumer.poll(timeout=0) + consumer.poll(timeout=10)
            assert [record.value for record in records] == [b"a", b"b", b"c"]
            assert events.events == [("assigned", {A0}), ("lost", {A0}), ("assigned", {A0})]
            assert "it is no member of the group any more" in caplog.text
        assert store.groups.committed("g", [A0])[A0] == OffsetAndMetadata(3)


def test_a_consumer_with_its_own_assignment_commits_only_while_the_group_has_no_members(
    store: Store,
) -> None:
    append(store, *"abc")
    with store.consumer(group="g", enable_auto_commit=False) as consumer:
        consumer.assign([A0])
        consumer.poll()
        consumer.commit()
        with store.consumer("a", group="g") as member:
            member.poll(timeout=0.1)
            with pytest.raises(GroupNotEmptyError):
                consumer.commit()


def test_a_pattern_in_a_group_takes_in_new_topics_and_new_ones_only(store: Store) -> None:
    with store.consumer(pattern="a|new.*", group="g") as consumer:
        poll_until(lambda: len(consumer.assignment) == 4, consumer)
        store.create_topic("newer")
        store.create_topic("old")
        poll_until(lambda: len(consumer.assignment) == 5, consumer)
        assert TopicPartition("newer", 0) in consumer.assignment


def test_partitions_that_could_not_be_opened_are_tried_again_and_no_other_is_forgotten(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(4):
        append(store, f"v{number}", partition=number)
    events = Events()
    opened = Topics.log
    failures = [OSError(errno.EMFILE, "too many open files")] * 2

    def failing(topics: Topics, partition: TopicPartition) -> logstore.PartitionLog:
        if partition == A2 and failures:
            raise failures.pop()
        return opened(topics, partition)

    monkeypatch.setattr(Topics, "log", failing)
    with store.consumer("a", group="g", listener=events) as consumer:
        for _ in range(2):
            with pytest.raises(OSError, match="too many open files"):
                consumer.poll(timeout=1)
            assert events.events == []
        records = [record for _ in range(4) for record in consumer.poll(1, timeout=5)]
        assert sorted(record.partition for record in records) == [0, 1, 2, 3]
        assert events.events == [("assigned", {A0, A1, A2, A3})]
    assert store.groups.committed("g", [A2])[A2] == OffsetAndMetadata(1)


def test_partitions_that_go_before_they_were_read_are_told_to_no_listener(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.create_topic("b")
    append(store, "x", topic="b")
    events = Events()
    opened = Topics.log

    def deleting(topics: Topics, partition: TopicPartition) -> logstore.PartitionLog:
        if partition.topic == "a":
            monkeypatch.setattr(Topics, "log", opened)
            store.delete_topic("a")
        return opened(topics, partition)

    with store.consumer("a", "b", group="g", listener=events) as consumer:
        monkeypatch.setattr(Topics, "log", deleting)
        with pytest.raises(UnknownTopicError, match="'a'"):
            consumer.poll(timeout=5)
        assert [record.value for record in consumer.poll(timeout=5)] == [b"x"]
    assert events.events == [("assigned", {B0}), ("revoked", {B0})]


@pytest.mark.parametrize("by_pattern", [True, False])
def test_a_topic_that_is_deleted_while_it_is_waited_for_is_missed_only_if_it_was_named(
    store: Store, by_pattern: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.create_topic("b")
    events = Events()
    waiting = PartitionsWatch.wait

    def deleting(watch: PartitionsWatch, readings: Iterable[Reading], seconds: float) -> bool:
        monkeypatch.setattr(PartitionsWatch, "wait", waiting)
        with logstore.open(store.path, maintenance_interval=None) as other:
            other.delete_topic("a")
            append(other, "x", topic="b")
        return waiting(watch, readings, seconds)

    topics, pattern = ((), ".*") if by_pattern else (("a", "b"), None)
    options = {"group": "g", "partition_assignment_strategy": "cooperative-sticky"}
    with store.consumer(*topics, pattern=pattern, listener=events, **options) as consumer:
        poll_until(lambda: len(consumer.assignment) == 5, consumer)
        monkeypatch.setattr(PartitionsWatch, "wait", deleting)
        if not by_pattern:
            with pytest.raises(UnknownTopicError, match="deleted"):
                consumer.poll(timeout=None)
        assert [record.value for record in consumer.poll(timeout=None)] == [b"x"]
        assert consumer.assignment == {B0}
    assert events.events[1:] == [("lost", {A0, A1, A2, A3}), ("revoked", {B0})]


@pytest.mark.parametrize("anew", [False, True])
@pytest.mark.parametrize("assigned", [False, True])
def test_a_deleted_topic_does_not_keep_the_positions_in_others_from_being_committed(
    store: Store, anew: bool, assigned: bool
) -> None:
    for group in ("by hand", "by itself"):
        store.create_topic("b")
        append(store, "x", topic="b")
        append(store, "y")
        consumer = store.consumer(group=group)
        consumer.subscribe(["a", "b"]) if not assigned else consumer.assign([A0, B0])
        records = [record for _ in range(2) for record in consumer.poll(1, timeout=5)]
        assert {record.topic for record in records} == {"a", "b"}
        store.delete_topic("b")
        if anew:
            store.create_topic("b")
        if group == "by hand":
            consumer.commit()
        consumer.close()
        assert store.groups.committed(group, [A0])[A0] == OffsetAndMetadata(len(records) // 2)
        assert store.groups.committed(group, [B0])[B0] is None
        if anew:
            store.delete_topic("b")
        store.topic("a").partition(0).truncate(0)


def test_a_listener_that_fails_over_lost_partitions_does_not_keep_them(store: Store) -> None:
    class Failing(RebalanceListener):
        def on_partitions_lost(self, lost: Collection[TopicPartition]) -> None:
            raise RuntimeError("no")

    store.create_topic("b")
    append(store, "x", topic="b")
    with store.consumer(pattern=".*", group="g", listener=Failing()) as consumer:
        assert len(consumer.poll(timeout=5)) == 1
        store.delete_topic("a")
        with pytest.raises(RuntimeError, match="no"):
            consumer.poll(timeout=5)
        assert consumer.assignment == {B0}
        assert consumer.poll() == []


def test_a_static_member_comes_back_to_its_partitions_without_a_rebalance(store: Store) -> None:
    def member(name: str) -> Consumer:
        return store.consumer("a", group="g", group_instance_id=name)

    one, two = member("one"), member("two")
    poll_until(lambda: len(one.assignment) == len(two.assignment) == 2, one, two)
    before, generation = one.assignment, two.membership and two.membership.generation
    one.close()
    with member("one") as back:
        poll_until(lambda: len(back.assignment) == 2, back)
        assert back.assignment == before
        assert two.membership is not None
        assert two.membership.generation == generation
    two.close()


def test_the_iterator_goes_on_over_a_rebalance(store: Store) -> None:
    for partition in range(4):
        append(store, *map(str, range(50)), partition=partition)
    seen: list[tuple[int, int]] = []
    with store.consumer("a", group="g", consumer_timeout_ms=300, max_poll_records=10) as first:
        for record in first:
            seen.append((record.partition, record.offset))
            if len(seen) == 25:
                break
        with store.consumer("a", group="g", consumer_timeout_ms=300) as second:
            deadline = time.monotonic() + 30
            while len(second.assignment) != 2 or len(first.assignment) != 2:
                assert time.monotonic() < deadline
                for consumer in (first, second):
                    seen += [(r.partition, r.offset) for r in consumer.poll(5, timeout=0.01)]
            seen += [(record.partition, record.offset) for record in first]
            seen += [(record.partition, record.offset) for record in second]
    assert sorted(seen) == [(partition, offset) for partition in range(4) for offset in range(50)]


def test_wrong_use_of_groups_is_refused(store: Store) -> None:
    with store.consumer(group="g") as consumer:
        with pytest.raises(UnknownTopicError):
            consumer.commit({TopicPartition("b", 0): 1})
        with pytest.raises(InvalidInputError, match="offset -1 is out of bounds"):
            consumer.commit({A0: -1})
        for wrong in (True, 1.5, "1", None, (1, None), (1, 2, 3)):
            with pytest.raises(InvalidInputError, match="is no offset, nor an offset and a text"):
                consumer.commit({A0: wrong})  # type: ignore[dict-item]
        with pytest.raises(InvalidInputError, match="offset 9223372036854775808 is out of bounds"):
            consumer.commit({A0: 1 << 63})
        with pytest.raises(InvalidInputError, match=r"metadata of 5000 bytes .* at most 4096"):
            consumer.commit({A0: OffsetAndMetadata(1, "x" * 5000)})
        with pytest.raises(InvalidInputError, match="own topic"):
            consumer.commit({TopicPartition("__metadata", 0): 1})
        with pytest.raises(InvalidInputError, match="own topic: it is read without a group"):
            consumer.subscribe(["a", "__metadata"])
        assert consumer.committed(A0) == {A0: None}
    assert store.groups.list() == []
    with (
        logstore.open(store.path, read_only=True) as reader,
        pytest.raises(InvalidInputError, match="opened for reading only"),
    ):
        reader.consumer("a", group="g")
