"""The groups of a store, as a consumer and an administrator see them."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import logstore
from logstore import (
    ClosedError,
    FencedMemberError,
    ForkedError,
    GroupNotEmptyError,
    IllegalGenerationError,
    InvalidInputError,
    ReadOnlyError,
    UnknownGroupError,
)
from logstore.groups.heartbeats import Heartbeats
from logstore.groups.membership import Membership, Rebalance
from logstore.groups.resets import OffsetReset
from logstore.partitions import OffsetAndMetadata, TopicPartition

from .support import (
    GROUP,
    Clock,
    RestartedFiles,
    at,
    committed,
    image,
    join,
    make_topic,
    places,
    settle,
)

ALL = places(0, 1, 2, 3)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> Iterator[logstore.Store]:
    with logstore.open(tmp_path / "store", maintenance_interval=None, clock=clock) as store:
        make_topic(store)
        yield store


def another(store: logstore.Store, clock: Clock) -> logstore.Store:
    return logstore.open(store.path, maintenance_interval=None, clock=clock)


# Members ------------------------------------------------------------------------------------


def test_a_member_gets_what_it_wants_and_then_nothing_is_left_to_do(store: logstore.Store) -> None:
    member = join(store)
    assert (member.member_id, member.generation, member.assignment) == ("", -1, frozenset())
    assert member.poll() == Rebalance(frozenset(), ALL)
    assert member.assignment == ALL
    assert member.generation == 1
    assert member.poll() is None
    assert "generation 1" in repr(member)


@pytest.mark.parametrize("same_handle", [True, False])
def test_an_eager_member_is_told_to_give_up_all_and_gets_its_share(
    store: logstore.Store, clock: Clock, same_handle: bool
) -> None:
    other = store if same_handle else another(store, clock)
    one = join(store, assignor="range")
    settle(one)
    two = join(other, assignor="range")
    assert two.poll() is None
    assert one.poll() == Rebalance(ALL, frozenset())
    assert one.poll() == Rebalance(ALL, frozenset()), "until it has done so"
    one.revoked(ALL)
    assert settle(one, two) == [
        Rebalance(frozenset(), one.assignment),
        Rebalance(frozenset(), two.assignment),
    ]
    assert one.assignment | two.assignment == ALL
    assert not one.assignment & two.assignment
    if not same_handle:
        other.close()
        settle(one)
        assert one.assignment == ALL


def test_a_cooperative_member_goes_on_with_what_stays(store: logstore.Store) -> None:
    one = join(store, assignor="cooperative-sticky")
    settle(one)
    two = join(store, assignor=["cooperative-sticky", "range"])
    steps = settle(two, one, two)
    assert [len(step.revoke) for step in steps] == [2, 0]
    assert len(one.assignment) == len(two.assignment) == 2


def test_a_stuck_member_is_expired_and_joins_again_when_it_comes_back(
    store: logstore.Store, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Heartbeats, "start", lambda self: None)  # each is sent by hand
    other = another(store, clock)
    one, two = join(store), join(other)
    settle(one, two)
    had = one.assignment
    generation = one.generation
    clock.ms += 30_000
    other.groups._heartbeats._tick()
    clock.ms += 15_000
    other.groups._heartbeats._tick()
    settle(two)
    assert two.assignment == ALL
    with pytest.raises(FencedMemberError):
        store.groups.commit(GROUP, {p: OffsetAndMetadata(1) for p in had}, membership=one)
    assert committed(store, 0, 1, 2, 3) == [None] * 4
    assert one.poll() == Rebalance(had, frozenset(), lost=True)
    assert one.assignment == frozenset()
    settle(one, two)
    assert one.assignment | two.assignment == ALL
    assert one.generation > generation
    other.close()


def test_only_the_owner_commits_and_only_in_its_generation(store: logstore.Store) -> None:
    one, two = join(store), join(store)
    settle(one, two)
    (mine,), (theirs,) = ([min(member.assignment)] for member in (one, two))
    store.groups.commit(GROUP, {mine: OffsetAndMetadata(1)}, membership=one)
    offsets = {mine: OffsetAndMetadata(2), theirs: OffsetAndMetadata(2)}
    with pytest.raises(IllegalGenerationError, match="does not own"):
        store.groups.commit(GROUP, offsets, membership=one)
    with pytest.raises(InvalidInputError, match="is one of g, not of other"):
        store.groups.commit("other", {mine: OffsetAndMetadata(2)}, membership=one)
    three = join(store)
    three.poll()
    step = one.poll()
    assert step is not None
    assert mine in step.revoke
    store.groups.commit(GROUP, {mine: OffsetAndMetadata(3)}, membership=one)
    one.revoked(step.revoke)
    with pytest.raises(IllegalGenerationError):
        store.groups.commit(GROUP, {mine: OffsetAndMetadata(4)}, membership=one)
    assert store.groups.committed(GROUP, [mine])[mine] == OffsetAndMetadata(3)


def test_a_static_member_comes_back_and_fences_the_instance_before(store: logstore.Store) -> None:
    one = join(store, group_instance_id="one")
    two = join(store)
    settle(one, two)
    had, generation = one.assignment, one.generation
    again = join(store, group_instance_id="one")
    assert again.poll() == Rebalance(frozenset(), had)
    assert again.generation == generation
    assert two.poll() is None
    with pytest.raises(FencedMemberError):
        store.groups.commit(GROUP, {p: OffsetAndMetadata(1) for p in had}, membership=one)
    assert one.poll() == Rebalance(had, frozenset(), lost=True)
    with pytest.raises(FencedMemberError, match="static member 'one'"):
        one.poll()


def test_closing_leaves_the_group_but_for_a_static_member(
    store: logstore.Store, clock: Clock
) -> None:
    one, two = join(store), join(store, group_instance_id="two")
    settle(one, two)
    one.close()
    one.close()
    two.close()
    members = store.groups.describe(GROUP).members
    assert [member.group_instance_id for member in members] == ["two"]
    clock.ms += 45_000
    assert store.groups.describe(GROUP).members == []
    with pytest.raises(ClosedError):
        one.poll()
    three = join(store, group_instance_id="three")
    settle(three)
    three.leave()
    assert store.groups.describe(GROUP).members == []


def test_a_member_whose_consumer_does_not_poll_leaves(
    store: logstore.Store, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    one, two = join(store, max_poll_interval_ms=1000), join(store)
    settle(one, two)
    had = one.assignment
    clock.ms += 1001
    one.tick(clock.ms)
    assert "has not polled" in caplog.text
    settle(two)
    assert two.assignment == ALL
    assert one.poll() == Rebalance(had, frozenset(), lost=True)
    settle(one, two)
    assert one.assignment | two.assignment == ALL


def test_a_static_member_that_does_not_poll_falls_silent(
    store: logstore.Store, clock: Clock
) -> None:
    one = join(store, max_poll_interval_ms=1000, group_instance_id="one")
    settle(one)
    clock.ms += 1001
    one.tick(clock.ms)
    assert len(store.groups.describe(GROUP).members) == 1
    assert one.poll() == Rebalance(ALL, frozenset(), lost=True)
    assert one.poll() == Rebalance(frozenset(), ALL)


def test_the_consumer_is_woken_when_there_is_something_to_do(store: logstore.Store) -> None:
    one = join(store)
    settle(one)
    woken = threading.Event()
    one.wake = woken.set
    store.groups.commit(GROUP, at({0: 1}), membership=one)
    two = join(store)
    two.poll()
    assert woken.wait(30)
    assert one.poll() == Rebalance(ALL, frozenset())


def test_topics_that_come_later_are_assigned(store: logstore.Store) -> None:
    wanted = {"orders", "later"}
    one = store.groups.join(GROUP, topics=lambda: wanted)
    settle(one)
    assert one.assignment == ALL
    make_topic(store, "later", 2)
    settle(one)
    assert one.assignment == ALL | places(0, 1, topic="later")
    wanted = {"later"}
    make_topic(store, "stranger", 1)
    settle(one)
    assert one.assignment == places(0, 1, topic="later")


def test_members_without_an_assignor_in_common_are_refused(store: logstore.Store) -> None:
    settle(join(store, assignor="range"))
    with pytest.raises(InvalidInputError, match="no assignor in common: sticky here, range"):
        join(store, assignor="sticky").poll()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"assignor": "magic"}, "assignor='magic' is none of range"),
        ({"assignor": []}, "is none of range"),
        ({"session_timeout_ms": 0}, "session_timeout_ms=0 is out of bounds: 1 to 1800000"),
        ({"session_timeout_ms": 100}, "less than session_timeout_ms=100"),
        ({"heartbeat_interval_ms": 0}, "heartbeat_interval_ms=0 is out of bounds"),
        ({"max_poll_interval_ms": 0}, "max_poll_interval_ms=0 is out of bounds"),
        ({"group_instance_id": ""}, "group_instance_id is empty"),
    ],
)
def test_options_that_make_no_sense_are_refused(
    store: logstore.Store, options: dict[str, object], said: str
) -> None:
    with pytest.raises(InvalidInputError, match=said):
        join(store, **options)


def test_members_in_threads_of_one_process_share_the_partitions(store: logstore.Store) -> None:
    # Whoever gets a partition goes on from what was committed: nothing may be committed twice.
    told: list[tuple[int, int]] = []

    def consume(turns: int) -> None:
        member = join(store, assignor="cooperative-sticky")
        positions: dict[TopicPartition, int] = {}
        for _ in range(turns):
            step = member.poll()
            for place in step.revoke if step else ():
                positions.pop(place)
            if step and step.revoke:
                member.revoked(step.revoke)
            for place, found in store.groups.committed(
                GROUP, step.assigned if step else ()
            ).items():
                positions[place] = found.offset if found else 0
            for place in positions:
                positions[place] += 1
                offset = OffsetAndMetadata(positions[place])
                store.groups.commit(GROUP, {place: offset}, membership=member)
                told.append((place.partition, positions[place]))
        member.close()

    threads = [threading.Thread(target=consume, args=(30 * n,)) for n in (1, 2, 3, 4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(told) == len(set(told))
    for number, offset in enumerate(committed(store, 0, 1, 2, 3)):
        assert offset == sum(partition == number for partition, _ in told)


def test_a_child_of_fork_is_refused_and_the_parent_goes_on(store: logstore.Store) -> None:
    one = join(store)
    settle(one)
    groups = store.groups
    consumer = store.consumer("orders", group="of its own")
    consumer.poll()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            for use in (
                lambda: store.groups,
                groups.list,
                one.poll,
                one.close,
                consumer.poll,
                consumer.commit,
                lambda: next(iter(consumer)),
            ):
                with pytest.raises(ForkedError):
                    use()
            consumer.close()
            store.close()
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    store.groups.commit(GROUP, at({0: 1}), membership=one)
    assert one.poll() is None
    assert consumer.poll() == []
    consumer.close()


def test_trouble_of_the_thread_is_told_once_and_it_goes_on(
    store: logstore.Store, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticked = threading.Semaphore(0)

    def tick(self: Membership, now_ms: int) -> None:
        ticked.release()
        raise OSError("the disk is full")

    monkeypatch.setattr(Membership, "tick", tick)
    with caplog.at_level(logging.ERROR):
        settle(join(store))
        assert all(ticked.acquire(timeout=30) for _ in range(4))
    assert sum("the disk is full" in str(r.exc_info) for r in caplog.records) == 1


# Administration -----------------------------------------------------------------------------


def test_a_group_is_described_with_members_offsets_and_lag(store: logstore.Store) -> None:
    one = join(store, client_id="billing", group_instance_id="a")
    settle(one)
    store.groups.commit(GROUP, at({0: 4}), membership=one)
    assert store.groups.list() == [(GROUP, "Stable", 1)]
    found = store.groups.describe(GROUP)
    assert (found.name, found.state, found.assignor, found.generation) == (
        GROUP,
        "Stable",
        "range",
        1,
    )
    (member,) = found.members
    assert member.member_id == one.member_id
    assert member.member_id.startswith("billing-")
    assert (member.group_instance_id, member.client_id) == ("a", "billing")
    assert member.assignment == member.target == sorted(ALL)
    assert [offset.lag for offset in found.offsets] == [6, None, None, None]
    assert {offset.member_id for offset in found.offsets} == {one.member_id}
    two = join(store)
    two.poll()
    assert store.groups.list() == [(GROUP, "Reconciling", 2)]
    for member_of in (one, two):
        member_of.leave()
    assert store.groups.list() == [(GROUP, "Empty", 0)]
    assert store.groups.describe(GROUP).assignor == ""


def test_a_store_without_groups_has_none(store: logstore.Store) -> None:
    assert store.groups.list() == []
    for action in (store.groups.describe, store.groups.delete):
        with pytest.raises(UnknownGroupError, match="no group called 'none'"):
            action("none")


def test_what_changes_a_group_is_refused_while_it_has_members(store: logstore.Store) -> None:
    one = join(store)
    settle(one)
    store.groups.commit(GROUP, at({0: 5}), membership=one)
    with pytest.raises(GroupNotEmptyError, match="stop them first"):
        store.groups.commit(GROUP, at({0: 1}))
    with pytest.raises(GroupNotEmptyError):
        store.groups.reset_offsets(GROUP, OffsetReset("earliest"))
    with pytest.raises(GroupNotEmptyError):
        store.groups.delete_offsets(GROUP, places(0))
    with pytest.raises(GroupNotEmptyError):
        store.groups.delete(GROUP)
    planned = store.groups.reset_offsets(GROUP, OffsetReset("earliest"), dry_run=True)
    assert list(planned.values()) == [(OffsetAndMetadata(5), 0)]
    assert committed(store, 0) == [5]
    one.leave()
    store.groups.commit(GROUP, at({0: 1}))
    assert committed(store, 0) == [1]


@pytest.mark.parametrize(
    ("reset", "expected"),
    [
        (OffsetReset("earliest"), [2, 2, 0]),
        (OffsetReset("latest"), [10, 10, 10]),
        (OffsetReset("offset", 4), [4, 4, 4]),
        (OffsetReset("offset", 1), [2, 2, 1]),
        (OffsetReset("offset", 99), [10, 10, 10]),
        (OffsetReset("shift", 3), [8, 5, 3]),
        (OffsetReset("shift", -4), [2, 6, 6]),
        (OffsetReset("datetime", 1007), [7, 7, 7]),
        (OffsetReset("datetime", 2000), [10, 10, 10]),
    ],
)
def test_offsets_are_reset_within_what_the_logs_hold(
    store: logstore.Store, tmp_path: Path, reset: OffsetReset, expected: list[int]
) -> None:
    # Partitions 0 and 1 begin at 2; a commit is there for 0 alone.
    for number in (0, 1):
        store.topic("orders").partition(number).delete_records(2)
    store.groups.commit(GROUP, at({0: 5}))
    chosen = sorted(places(0, 1, 2))
    planned = store.groups.reset_offsets(GROUP, reset, partitions=chosen, dry_run=True)
    assert [planned[place].after for place in chosen] == expected
    assert committed(store, 0, 1, 2) == [5, None, None]
    assert store.groups.reset_offsets(GROUP, reset, partitions=chosen) == planned
    assert committed(store, 0, 1, 2) == expected
    files = RestartedFiles("another run")
    with logstore.open(image(store, tmp_path / "image"), files=files) as other:
        assert committed(other, 0, 1, 2) == expected, "it survives a power cut"


def test_without_partitions_those_with_commits_are_reset(store: logstore.Store) -> None:
    store.groups.commit(GROUP, at({1: 5, 3: 5}))
    assert store.groups.reset_offsets(GROUP, OffsetReset("latest")).keys() == places(1, 3)
    assert committed(store, 0, 1, 2, 3) == [None, 10, None, 10]


def test_a_deleted_group_is_gone_for_good(store: logstore.Store, tmp_path: Path) -> None:
    store.groups.commit(GROUP, at({0: 5}), durable=True)
    store.groups.commit("other", at({0: 6}), durable=True)
    store.groups.delete(GROUP)
    with pytest.raises(UnknownGroupError):
        store.groups.describe(GROUP)
    files = RestartedFiles("another run")
    with logstore.open(image(store, tmp_path / "image"), files=files) as other:
        assert [listing.name for listing in other.groups.list()] == ["other"]
        assert committed(other, 0) == [None]
    one = join(store)
    settle(one)
    assert one.assignment == ALL


def test_offsets_are_deleted_by_partition(store: logstore.Store) -> None:
    store.groups.commit(GROUP, at({0: 5, 1: 6}))
    store.groups.delete_offsets(GROUP, places(0))
    assert committed(store, 0, 1) == [None, 6]
    with pytest.raises(UnknownGroupError):
        store.groups.delete_offsets("none", places(0))


def test_a_reader_sees_groups_and_changes_nothing(
    store: logstore.Store, tmp_path: Path, clock: Clock
) -> None:
    settle(join(store))
    store.groups.commit("other", at({0: 5}), durable=True)
    with logstore.open(store.path, read_only=True, clock=clock) as reader:
        assert [listing.name for listing in reader.groups.list()] == [GROUP, "other"]
        assert len(reader.groups.describe(GROUP).members) == 1
        assert committed(reader, 0, group="other") == [5]
        for refused in (
            lambda: reader.groups.commit("other", at({0: 1})),
            lambda: join(reader),
            lambda: reader.groups.delete("other"),
            lambda: reader.groups.reset_offsets("other", OffsetReset("latest")),
        ):
            with pytest.raises(ReadOnlyError):
                refused()
    copy = image(store, tmp_path / "image")
    with logstore.open(copy, read_only=True) as reader:
        assert [listing.name for listing in reader.groups.list()] == ["other"]
        assert committed(reader, 0, group="other") == [5]
        assert reader.groups.describe("other").offsets[0].lag == 5
    assert not (copy / "live").exists()


# Topics that change -------------------------------------------------------------------------


def test_partitions_that_are_added_are_assigned(store: logstore.Store) -> None:
    one = join(store, assignor="cooperative-sticky")
    settle(one)
    store.add_partitions("orders", 6)
    assert settle(one) == [Rebalance(frozenset(), places(4, 5))]
    store.groups.commit(GROUP, at({5: 0}), membership=one)


def test_a_deleted_topic_is_lost_and_a_new_one_of_its_name_begins_anew(
    store: logstore.Store, clock: Clock
) -> None:
    other = another(store, clock)
    one, two = (
        join(store, assignor="cooperative-sticky"),
        join(other, assignor="cooperative-sticky"),
    )
    settle(one, two)
    had = {one: one.assignment, two: two.assignment}
    store.groups.commit(GROUP, {p: OffsetAndMetadata(9) for p in had[one]}, membership=one)
    store.delete_topic("orders")
    for member, assignment in had.items():
        assert member.poll() == Rebalance(assignment, frozenset(), lost=True)
    assert settle(one, two) == []
    make_topic(store, each=2)
    settle(one, two)
    assert one.assignment | two.assignment == ALL
    assert committed(store, 0, 1, 2, 3) == [None] * 4
    other.close()


def test_a_member_that_has_not_looked_does_not_commit_for_another_topic_of_the_same_name(
    store: logstore.Store,
) -> None:
    one = join(store)
    settle(one)
    store.delete_topic("orders")
    make_topic(store, each=2)
    with pytest.raises(IllegalGenerationError, match="another one"):
        store.groups.commit(GROUP, at({0: 9}), membership=one)
    assert settle(one) == [
        Rebalance(ALL, frozenset(), lost=True),
        Rebalance(frozenset(), ALL),
    ]
    assert committed(store, 0) == [None]
