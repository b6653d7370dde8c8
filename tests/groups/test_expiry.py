"""Committed offsets that expire: Kafka's rule, and that nothing goes too early."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import logstore
from logstore import InvalidInputError, OffsetAndMetadata, ReadOnlyError, TopicPartition
from logstore.groups.expiry import Expiry, expired
from logstore.groups.records import OffsetKey, OffsetValue
from logstore.groups.state import Group, Member
from logstore.metadata import Metadata

from .support import GROUP, Clock, RestartedFiles, at, committed, image, join, make_topic, settle

MINUTE = 60_000
DAY = 24 * 60 * MINUTE
RETENTION = 7 * DAY


class WallClock(Clock):
    """A clock whose time of day passes only when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1_700_000_000_000

    def now_ms(self) -> int:
        return self.now


@pytest.fixture
def clock() -> WallClock:
    return WallClock()


@pytest.fixture
def store(tmp_path: Path, clock: WallClock) -> Iterator[logstore.Store]:
    with logstore.open(tmp_path / "store", maintenance_interval=None, clock=clock) as store:
        make_topic(store)
        yield store


def groups(store: logstore.Store) -> list[str]:
    return [listing.name for listing in store.groups.list()]


# The rule ---------------------------------------------------------------------------------------

ID, OTHER = uuid.uuid4(), uuid.uuid4()
TOPICS = {ID: "orders", OTHER: "other"}
KEY, OTHER_KEY = OffsetKey(b"g" * 16, ID, 0), OffsetKey(b"g" * 16, OTHER, 0)
MEMBER = Member("m", "s", ("range",), frozenset({"orders"}), 1000)


@pytest.mark.parametrize(
    ("members", "empty_since", "now", "expected"),
    [
        ([], None, 1 << 50, set()),
        ([], 500, 500 + 99, set()),
        ([], 500, 500 + 100, {KEY}),  # the other one was committed later
        ([], 500, 550 + 100, {KEY, OTHER_KEY}),
        ([], 600, 600 + 99, set()),
        ([], 600, 600 + 100, {KEY, OTHER_KEY}),
        ([MEMBER], None, 550 + 99, set()),
        ([MEMBER], None, 550 + 100, {OTHER_KEY}),
        ([MEMBER], 0, 1 << 50, {OTHER_KEY}),
    ],
)
def test_the_rule(
    members: list[Member], empty_since: int | None, now: int, expected: set[OffsetKey]
) -> None:
    group = Group("g", members={member.member_id: member for member in members})
    offsets = {KEY: OffsetValue(1, "", 400, 1), OTHER_KEY: OffsetValue(1, "", 550, 2)}
    found = expired(group, offsets, TOPICS, empty_since=empty_since, now_ms=now, retention_ms=100)
    assert set(found) == expected


# In a store -------------------------------------------------------------------------------------


def test_what_a_group_committed_expires_that_long_after_its_last_member_went(
    store: logstore.Store, clock: WallClock, tmp_path: Path
) -> None:
    member = join(store)
    settle(member)
    store.groups.commit(GROUP, at({0: 3}), membership=member)
    clock.now += 2 * RETENTION
    store.groups.expire_offsets()
    assert committed(store, 0) == [3], "a group with members keeps what it committed"
    member.close()
    store.groups.expire_offsets()
    clock.now += RETENTION - 1
    store.groups.expire_offsets()
    assert committed(store, 0) == [3]
    clock.now += 1
    store.groups.expire_offsets()
    assert committed(store, 0) == [None]
    assert groups(store) == []
    # It is gone for good: a power cut does not bring it back.
    with logstore.open(
        image(store, tmp_path / "image"), files=RestartedFiles("another run")
    ) as other:
        assert groups(other) == []
        assert committed(other, 0) == [None]


def test_offsets_that_were_committed_without_members_expire_by_their_own_time(
    store: logstore.Store, clock: WallClock
) -> None:
    store.groups.commit(GROUP, at({0: 1}))
    store.groups.expire_offsets()
    clock.now += RETENTION // 2
    store.groups.commit(GROUP, at({1: 2}))
    clock.now += RETENTION // 2
    store.groups.expire_offsets()
    assert committed(store, 0, 1) == [None, 2]
    assert groups(store) == [GROUP]
    clock.now += RETENTION // 2
    store.groups.expire_offsets()
    assert committed(store, 0, 1) == [None, None]
    assert groups(store) == []


def test_offsets_of_a_topic_that_nobody_in_the_group_wants_any_more_expire(
    store: logstore.Store, clock: WallClock
) -> None:
    make_topic(store, "other", partitions=1)
    other = TopicPartition("other", 0)
    store.groups.commit(GROUP, {other: OffsetAndMetadata(4), **at({0: 1})})
    member = join(store)
    settle(member)
    clock.now += RETENTION
    store.groups.expire_offsets()
    assert committed(store, 0) == [1]
    assert store.groups.committed(GROUP, [other]) == {other: None}
    assert len(store.groups.describe(GROUP).members) == 1


def test_who_joins_takes_the_time_back(store: logstore.Store, clock: WallClock) -> None:
    store.groups.commit(GROUP, at({0: 1}))
    store.groups.expire_offsets()
    clock.now += RETENTION - 1
    member = join(store)
    settle(member)
    member.close()  # nothing was committed, and no round of maintenance has seen it
    clock.now += 1
    store.groups.expire_offsets()
    assert committed(store, 0) == [1]
    clock.now += RETENTION
    store.groups.expire_offsets()
    assert committed(store, 0) == [None]


def test_a_restart_of_the_machine_makes_nothing_expire_too_early(
    store: logstore.Store, clock: WallClock, tmp_path: Path
) -> None:
    store.groups.commit("left", at({0: 1}), durable=True)
    store.groups.commit(GROUP, at({0: 2}), durable=True)
    store.groups.expire_offsets()
    settle(join(store))  # which a power cut ends, long after its last commit
    clock.now += RETENTION
    copy = image(store, tmp_path / "image")
    with logstore.open(
        copy, files=RestartedFiles("another run"), maintenance_interval=None, clock=clock
    ) as other:
        other.groups.expire_offsets()
        assert committed(other, 0) == [2]
        assert committed(other, 0, group="left") == [None]
        clock.now += RETENTION
        other.groups.expire_offsets()
        assert groups(other) == []


def test_a_clock_that_was_set_back_makes_nothing_expire_too_early_or_never(
    store: logstore.Store, clock: WallClock
) -> None:
    store.groups.commit(GROUP, at({0: 1}))
    clock.now += 10 * RETENTION
    store.groups.expire_offsets()  # notes a time that will lie in the future
    clock.now -= 10 * RETENTION
    store.groups.expire_offsets()
    assert committed(store, 0) == [1]
    clock.now += RETENTION
    store.groups.expire_offsets()
    assert committed(store, 0) == [None]


def test_a_group_that_committed_nothing_goes_as_well(
    store: logstore.Store, clock: WallClock
) -> None:
    member = join(store)
    settle(member)
    member.close()
    store.groups.expire_offsets()
    assert groups(store) == [GROUP]
    clock.now += RETENTION
    store.groups.expire_offsets()
    assert groups(store) == []


def test_a_member_that_comes_while_it_is_decided_keeps_the_offsets(
    store: logstore.Store, clock: WallClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.groups.commit(GROUP, at({0: 1}))
    store.groups.expire_offsets()
    clock.now += RETENTION
    take_away = Expiry._take_away

    def late(*arguments: Any) -> None:
        settle(join(store))
        take_away(*arguments)

    monkeypatch.setattr(Expiry, "_take_away", late)
    store.groups.expire_offsets()
    assert committed(store, 0) == [1]
    assert len(store.groups.describe(GROUP).members) == 1


def test_who_cannot_take_the_note_back_joins_all_the_same(
    store: logstore.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.groups.commit(GROUP, at({0: 1}))
    store.groups.expire_offsets()
    transaction = Metadata.transaction

    def full(self: Metadata, *, write: bool = False) -> object:
        if write:
            raise OSError(28, "No space left on device")
        return transaction(self)

    monkeypatch.setattr(Metadata, "transaction", full)
    member = join(store)
    settle(member)
    assert member.assignment


def test_maintenance_does_it_now_and_then(
    store: logstore.Store, clock: WallClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = 0.0
    monkeypatch.setattr(clock, "monotonic", lambda: seconds)
    store.groups.commit(GROUP, at({0: 1}))
    store.maintain()
    clock.now += RETENTION
    store.maintain()
    assert committed(store, 0) == [1]
    seconds = 600.0
    store.maintain()
    assert committed(store, 0) == [None]


# How long ---------------------------------------------------------------------------------------


def test_the_time_is_set_for_the_store(
    store: logstore.Store, clock: WallClock, tmp_path: Path
) -> None:
    store.alter_defaults({"offsets.retention.minutes": "2", "retention_ms": 5})
    assert store.defaults == {"retention_ms": 5, "offsets_retention_minutes": 2}
    assert store.topic("orders").config.retention_ms == 5
    assert store.describe_topic("orders").config.keys() == logstore.LogConfig.keys().keys()
    store.groups.commit(GROUP, at({0: 1}))
    store.groups.expire_offsets()
    clock.now += 2 * MINUTE
    with logstore.open(store.path, maintenance_interval=None, clock=clock) as other:
        other.groups.expire_offsets()
        assert other.defaults["offsets_retention_minutes"] == 2
    assert committed(store, 0) == [None]
    store.alter_defaults(unset=["offsets_retention_minutes"])
    assert store.defaults == {"retention_ms": 5}
    store.alter_defaults(unset=["retention_ms"])
    assert store.defaults == {}


def test_wrong_times_are_refused_with_their_bounds(store: logstore.Store) -> None:
    for wrong in (0, -1, 1 << 31):
        with pytest.raises(InvalidInputError, match=rf"={wrong} is out of bounds: 1 to 2147483647"):
            store.alter_defaults({"offsets_retention_minutes": wrong})
    with pytest.raises(InvalidInputError, match="takes a whole number"):
        store.alter_defaults({"offsets_retention_minutes": "long"})
    with pytest.raises(InvalidInputError, match="no configuration key is called"):
        store.create_topic("more", offsets_retention_minutes=5)
    with pytest.raises(InvalidInputError, match="no configuration key is called"):
        store.alter_topic("orders", unset=["offsets_retention_minutes"])
    assert store.defaults == {}


def test_a_reader_lets_nothing_expire(store: logstore.Store) -> None:
    store.groups.commit(GROUP, at({0: 1}))
    with (
        logstore.open(store.path, read_only=True) as reader,
        pytest.raises(ReadOnlyError),
    ):
        reader.groups.expire_offsets()
