"""The assignors: Kafka's own examples, and what must hold for any group."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from logstore import InvalidInputError
from logstore.groups.assignors import (
    ASSIGNORS,
    Assignment,
    MemberSubscription,
    assign,
    is_cooperative,
)
from logstore.partitions import TopicPartition

TOPICS = ("a", "b", "c", "d")
STICKY = ("sticky", "cooperative-sticky")

Members = dict[str, MemberSubscription]


def members_of(**topics: str) -> Members:
    """Members by name, each with the letters of its topics."""
    return {name: MemberSubscription(frozenset(letters)) for name, letters in topics.items()}


def partitions_of(text: str) -> list[TopicPartition]:
    """``a0 a1 b0`` as partitions."""
    return [TopicPartition(word[0], int(word[1:])) for word in text.split()]


def compact(assignment: Assignment) -> dict[str, str]:
    return {
        member: " ".join(f"{partition.topic}{partition.partition}" for partition in partitions)
        for member, partitions in assignment.items()
    }


# Kafka's examples: the documentation of RangeAssignor, RoundRobinAssignor, StickyAssignor.


def test_range_gives_runs_of_each_topic() -> None:
    assignment = assign("range", members_of(C0="ab", C1="ab"), {"a": 3, "b": 3}, {})
    assert compact(assignment) == {"C0": "a0 a1 b0 b1", "C1": "a2 b2"}


def test_round_robin_deals_out_all_partitions() -> None:
    assignment = assign("roundrobin", members_of(C0="ab", C1="ab"), {"a": 3, "b": 3}, {})
    assert compact(assignment) == {"C0": "a0 a2 b1", "C1": "a1 b0 b2"}


def test_round_robin_skips_members_that_do_not_want_a_topic() -> None:
    members = members_of(C0="a", C1="ab", C2="abc")
    assignment = assign("roundrobin", members, {"a": 1, "b": 2, "c": 3}, {})
    assert compact(assignment) == {"C0": "a0", "C1": "b0", "C2": "b1 c0 c1 c2"}


def test_sticky_moves_nothing_but_what_a_member_left_behind() -> None:
    members = members_of(C0="abcd", C1="abcd", C2="abcd")
    partitions = {"a": 2, "b": 2, "c": 2, "d": 2}
    before = assign("sticky", members, partitions, {})
    assert sorted(map(len, before.values())) == [2, 3, 3]
    del members["C1"]
    after = assign("sticky", members, partitions, before)
    assert set(after["C0"]) > set(before["C0"])
    assert set(after["C2"]) > set(before["C2"])
    assert sorted(map(len, after.values())) == [4, 4]


def test_sticky_balances_by_way_of_a_third_member() -> None:
    # A has too much and may not give to C, but B may take from A and give to C.
    members = members_of(A="a", B="ab", C="b")
    previous = {"A": partitions_of("a0 a1 a2"), "B": partitions_of("b0 b1"), "C": []}
    assignment = assign("sticky", members, {"a": 3, "b": 2}, previous)
    assert sorted(map(len, assignment.values())) == [1, 2, 2]


def test_static_members_come_first_by_their_instance_ids() -> None:
    members = {
        "m1": MemberSubscription(frozenset("a")),
        "m2": MemberSubscription(frozenset("a"), "z"),
        "m3": MemberSubscription(frozenset("a"), "y"),
    }
    assignment = assign("range", members, {"a": 3}, {})
    assert compact(assignment) == {"m1": "a2", "m2": "a1", "m3": "a0"}


def test_an_unknown_assignor_is_refused_with_the_ones_that_there_are() -> None:
    with pytest.raises(InvalidInputError, match="range, roundrobin, sticky, cooperative-sticky"):
        assign("random", {}, {}, {})


def test_only_cooperative_sticky_is_cooperative() -> None:
    assert [name for name in ASSIGNORS if is_cooperative(name)] == ["cooperative-sticky"]


# Properties ---------------------------------------------------------------------------------

subscriptions = st.builds(
    MemberSubscription,
    st.frozensets(st.sampled_from((*TOPICS, "missing"))),
    st.one_of(st.none(), st.sampled_from("wxyz")),
)
names = st.sampled_from([f"m{number}" for number in range(7)])
groups = st.dictionaries(names, subscriptions, max_size=7)
counts = st.dictionaries(st.sampled_from(TOPICS), st.integers(1, 9))
previous_ones = st.dictionaries(
    st.sampled_from([f"m{number}" for number in range(9)]),
    st.lists(st.builds(TopicPartition, st.sampled_from(TOPICS), st.integers(0, 11)), max_size=12),
)


def same_for_all(members: Collection[str]) -> Members:
    return {member: MemberSubscription(frozenset(TOPICS)) for member in members}


def loads(assignment: Assignment) -> list[int]:
    return sorted(map(len, assignment.values()))


def kept(assignment: Assignment, previous: Mapping[str, Collection[TopicPartition]]) -> int:
    return sum(len(set(got) & set(previous.get(name, ()))) for name, got in assignment.items())


@pytest.mark.parametrize("assignor", ASSIGNORS)
@given(members=groups, partitions=counts, previous=previous_ones)
def test_every_wanted_partition_goes_to_one_member_that_wants_it(
    assignor: str,
    members: Members,
    partitions: dict[str, int],
    previous: dict[str, list[TopicPartition]],
) -> None:
    assignment = assign(assignor, members, partitions, previous)
    assert assignment.keys() == members.keys()
    given_out = [partition for got in assignment.values() for partition in got]
    wanted = {topic for member in members.values() for topic in member.topics}
    assert sorted(given_out) == sorted(
        TopicPartition(topic, number)
        for topic, count in partitions.items()
        if topic in wanted
        for number in range(count)
    )
    for name, got in assignment.items():
        assert {partition.topic for partition in got} <= members[name].topics
    # The order in which members and topics happen to stand decides nothing.
    shuffled = dict(reversed(members.items())), dict(reversed(partitions.items()))
    assert assign(assignor, *shuffled, previous) == assignment


@given(members=groups, partitions=counts)
def test_range_is_balanced_in_each_topic(members: Members, partitions: dict[str, int]) -> None:
    assignment = assign("range", members, partitions, {})
    for topic in partitions:
        each = [
            [p.partition for p in assignment[name] if p.topic == topic]
            for name in members
            if topic in members[name].topics
        ]
        assert all(got == list(range(got[0], got[0] + len(got))) for got in each if got)
        assert not each or max(map(len, each)) - min(map(len, each)) <= 1


@pytest.mark.parametrize("assignor", ["roundrobin", *STICKY])
@given(members=st.sets(names, min_size=1), partitions=counts, previous=previous_ones)
def test_members_that_want_the_same_get_as_many(
    assignor: str,
    members: set[str],
    partitions: dict[str, int],
    previous: dict[str, list[TopicPartition]],
) -> None:
    assignment = assign(assignor, same_for_all(members), partitions, previous)
    assert loads(assignment)[-1] - loads(assignment)[0] <= 1


@given(members=groups, partitions=counts, previous=previous_ones)
def test_no_chain_of_moves_would_balance_a_sticky_assignment_better(
    members: Members, partitions: dict[str, int], previous: dict[str, list[TopicPartition]]
) -> None:
    assignment = assign("sticky", members, partitions, previous)
    for giver in members:
        reached, queue = {giver}, deque([giver])
        while queue:
            topics = {partition.topic for partition in assignment[queue.popleft()]}
            more = {name for name in members if members[name].topics & topics} - reached
            reached |= more
            queue += more
        assert all(len(assignment[name]) >= len(assignment[giver]) - 1 for name in reached)


@given(members=groups, partitions=counts, previous=previous_ones)
def test_a_sticky_assignment_of_the_same_group_moves_nothing(
    members: Members, partitions: dict[str, int], previous: dict[str, list[TopicPartition]]
) -> None:
    once = assign("sticky", members, partitions, previous)
    assert assign("sticky", members, partitions, once) == once


@given(members=st.sets(names, min_size=1), partitions=counts, previous=previous_ones)
def test_sticky_keeps_as_much_as_balance_allows(
    members: set[str], partitions: dict[str, int], previous: dict[str, list[TopicPartition]]
) -> None:
    # A partition that two members had before counts for the first one, in the members' order.
    before: dict[str, set[TopicPartition]] = {}
    taken: set[TopicPartition] = set()
    for name in sorted(members):
        valid = {p for p in previous.get(name, ()) if p.partition < partitions.get(p.topic, 0)}
        before[name] = valid - taken
        taken |= valid
    assignment = assign("sticky", same_for_all(members), partitions, before)
    each, extra = divmod(sum(partitions.values()), len(members))
    above = sum(len(had) > each for had in before.values())
    most = sum(min(len(had), each) for had in before.values()) + min(above, extra)
    assert kept(assignment, before) == most


@given(members=st.sets(names, min_size=2), partitions=counts, data=st.data())
def test_sticky_moves_partitions_only_from_who_leaves_and_only_to_who_comes(
    members: set[str], partitions: dict[str, int], data: st.DataObject
) -> None:
    before = assign("sticky", same_for_all(members), partitions, {})
    leaver = data.draw(st.sampled_from(sorted(members)))
    after = assign("sticky", same_for_all(members - {leaver}), partitions, before)
    assert all(set(after[name]) >= set(before[name]) for name in after)
    again = assign("sticky", same_for_all(members), partitions, after)
    assert all(set(again[name]) <= set(after[name]) for name in after)
