"""The state machine of a group: single transitions, and random sequences of commands."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from logstore.groups.assignors import ASSIGNORS
from logstore.groups.state import (
    Claim,
    Command,
    Expire,
    Group,
    Heartbeat,
    Join,
    Leave,
    Member,
    Refusal,
    Revoked,
    Step,
    Subscribe,
    TopicInfo,
    apply,
    check_commit,
    common_assignors,
    next_step,
)
from logstore.partitions import TopicPartition

ORDERS = {"orders": TopicInfo("id-1", 4)}


def member(
    name: str,
    *,
    assignors: tuple[str, ...] = ("range",),
    topics: str = "orders",
    instance_id: str | None = None,
    session_timeout_ms: int = 1000,
) -> Member:
    return Member(
        name,
        f"session of {name}",
        assignors,
        frozenset(topics.split()),
        session_timeout_ms,
        instance_id,
    )


def parts(*numbers: int, topic: str = "orders") -> frozenset[TopicPartition]:
    return frozenset(TopicPartition(topic, number) for number in numbers)


class Run:
    """A group, and commands one after another."""

    def __init__(self, assignor: str = "range") -> None:
        self.group = Group("g")
        self.assignor = assignor
        self.now = 0

    def do(self, command: Command) -> Step:
        self.group, step = apply(self.group, command, self.now)
        return step

    def join(self, name: str, instance_id: str | None = None) -> Step:
        joining = member(name, assignors=(self.assignor,), instance_id=instance_id)
        return self.do(Join(joining, ORDERS))

    def see(self, name: str, topics: dict[str, TopicInfo]) -> Step:
        """A member sees that topics came, grew or went."""
        return self.do(Subscribe(name, self.group.members[name].topics, topics))

    def settle(self, *names: str) -> None:
        """Let members do what they have to until nothing is left to do."""
        for _ in range(3):
            for name in names:
                step = next_step(self.group, name)
                if step.revoke:
                    self.do(Revoked(name, step.revoke))
                self.do(Claim(name))

    def owned(self, name: str) -> frozenset[TopicPartition]:
        return self.group.members[name].owned


def test_the_first_member_claims_everything() -> None:
    run = Run()
    step = run.join("A")
    assert (step.known, step.generation, step.behind) == (True, -1, True)
    assert step.claimable == parts(0, 1, 2, 3)
    step = run.do(Claim("A"))
    assert (step.generation, step.owned, step.behind) == (1, parts(0, 1, 2, 3), False)


def test_an_eager_member_gives_up_everything_first() -> None:
    run = Run("range")
    run.join("A")
    run.settle("A")
    assert run.join("B").claimable == frozenset()
    assert run.do(Heartbeat("A")).revoke == parts(0, 1, 2, 3)
    assert run.do(Claim("A")).owned == parts(0, 1, 2, 3), "claiming is not giving up"
    step = run.do(Revoked("A", parts(0, 1, 2, 3)))
    assert step.claimable == parts(0, 1)
    assert run.do(Claim("B")).owned == parts(2, 3)


def test_a_cooperative_member_gives_up_only_what_moves() -> None:
    run = Run("cooperative-sticky")
    run.join("A")
    run.settle("A")
    run.join("B")
    revoke = run.do(Heartbeat("A")).revoke
    assert len(revoke) == 2
    assert run.do(Claim("B")).owned == frozenset(), "the other one has them still"
    assert run.do(Revoked("A", revoke)).owned == parts(0, 1, 2, 3) - revoke
    assert run.do(Claim("B")).owned == revoke


def test_a_member_whose_session_ended_is_gone_at_once_and_a_stuck_one_in_time() -> None:
    run = Run()
    for name in "ABC":
        run.join(name)
    run.settle(*"ABC")
    run.do(Expire(frozenset({"session of A", "session of a stranger"})))
    assert run.group.members.keys() == {"B", "C"}
    run.now = 999
    run.do(Heartbeat("B"))
    run.now = 1000
    assert run.do(Heartbeat("C")) == Step(False)
    assert run.group.members.keys() == {"B"}
    run.settle("B")
    assert run.owned("B") == parts(0, 1, 2, 3)


def test_a_static_member_comes_back_without_a_rebalance_and_fences_the_old_one() -> None:
    run = Run()
    run.join("A", instance_id="one")
    run.join("B")
    run.settle("A", "B")
    generation, owned = run.group.generation, run.owned("A")
    run.do(Expire(frozenset({"session of A"})))
    assert "A" in run.group.members, "a static member outlives its session"
    step = run.join("A2", instance_id="one")
    assert (step.generation, step.owned) == (generation, owned)
    assert run.group.generation == generation
    assert run.do(Heartbeat("A")) == Step(False)
    assert check_commit(run.group, "A", generation, owned) is Refusal.UNKNOWN_MEMBER
    assert check_commit(run.group, "A2", generation, owned) is None


def test_a_static_member_that_stays_away_is_gone_at_its_time_out() -> None:
    run = Run()
    run.join("A", instance_id="one")
    run.now = 1000
    run.do(Expire())
    assert not run.group.members


def test_a_static_member_that_wants_something_else_is_a_rebalance() -> None:
    run = Run()
    run.join("A", instance_id="one")
    generation = run.group.generation
    run.do(Join(member("A2", topics="orders more", instance_id="one"), ORDERS))
    assert run.group.generation == generation + 1


def test_who_may_commit() -> None:
    run = Run()
    run.join("A")
    run.settle("A")
    assert check_commit(run.group, "A", 1, parts(0, 3)) is None
    assert check_commit(run.group, "A", 0, parts(0)) is Refusal.ILLEGAL_GENERATION
    assert check_commit(run.group, "A", 1, parts(4)) is Refusal.NOT_OWNER
    assert check_commit(run.group, "X", 1, parts(0)) is Refusal.UNKNOWN_MEMBER
    run.join("B")
    assert check_commit(run.group, "A", 1, parts(0)) is None, "it still owns it"
    run.settle("A", "B")
    assert check_commit(run.group, "A", 1, parts(0)) is Refusal.ILLEGAL_GENERATION
    assert check_commit(run.group, "A", 2, parts(0)) is None
    assert check_commit(run.group, "A", 2, parts(3)) is Refusal.NOT_OWNER


def test_partitions_that_are_added_are_assigned() -> None:
    run = Run("cooperative-sticky")
    run.join("A")
    run.settle("A")
    run.see("A", {"orders": TopicInfo("id-1", 6)})
    assert run.do(Claim("A")).owned == parts(0, 1, 2, 3, 4, 5)
    generation = run.group.generation
    run.see("A", {"orders": TopicInfo("id-1", 6)})
    assert run.group.generation == generation


@pytest.mark.parametrize(
    "topics", [{}, {"orders": TopicInfo("id-2", 4)}], ids=["deleted", "created anew"]
)
def test_what_is_no_more_nobody_owns(topics: dict[str, TopicInfo]) -> None:
    run = Run("cooperative-sticky")
    run.join("A")
    run.settle("A")
    run.see("A", topics)
    assert run.owned("A") == frozenset()
    run.settle("A")
    assert len(run.owned("A")) == sum(info.partitions for info in topics.values())


def test_another_subscription_is_a_rebalance_and_the_same_one_is_none() -> None:
    run = Run()
    run.join("A")
    topics = {**ORDERS, "more": TopicInfo("id-2", 1)}
    run.do(Subscribe("A", frozenset({"orders", "more"}), topics))
    run.settle("A")
    assert run.owned("A") == parts(0, 1, 2, 3) | parts(0, topic="more")
    generation = run.group.generation
    run.do(Subscribe("A", frozenset({"orders", "more"}), topics))
    assert run.group.generation == generation


def test_the_group_uses_what_all_members_can_and_most_like_best() -> None:
    run = Run()
    for name, assignors in (
        ("A", ("range", "sticky")),
        ("B", ("sticky", "range")),
        ("C", ("roundrobin", "sticky", "range")),
    ):
        run.do(Join(member(name, assignors=assignors), ORDERS))
    assert run.group.assignor == "sticky"
    assert common_assignors(run.group, member("D", assignors=("range",))) == {"range"}
    assert common_assignors(run.group, member("D", assignors=("roundrobin",))) == frozenset()


def test_a_static_member_may_come_back_with_another_assignor() -> None:
    run = Run()
    run.join("A", instance_id="one")
    back = member("A2", assignors=("sticky",), instance_id="one")
    assert common_assignors(run.group, back) == {"sticky"}


# Random sequences ---------------------------------------------------------------------------

NAMES = ("a", "b", "c")
numbers = st.integers(0, 30)


class GroupMachine(RuleBasedStateMachine):
    """Members that do what they have to do, or something else, or nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.group = Group("g")
        self.now = 0
        self.topics = {"a": TopicInfo("a0", 3), "b": TopicInfo("b0", 2)}
        self.joined = 0
        self.gone: set[str] = set()
        """Everybody who was a member and is none; none of them may ever be one again."""
        self.assignor: str | None = None

    def some(self, number: int) -> str | None:
        """A member, or somebody who was one."""
        names = [f"m{index}" for index in range(self.joined)]
        return names[number % len(names)] if names else None

    def do(self, command: Command) -> Step:
        before = self.group
        self.group, step = apply(before, command, self.now)
        assert self.group.generation >= before.generation
        if self.group.generation == before.generation:
            # At most a static member has come back, under another id.
            assert sorted(map(sorted, self.group.target.values())) == sorted(
                map(sorted, before.target.values())
            )
            assert self.group.topics == before.topics
        for name, one in before.members.items():
            if name in self.group.members:
                assert self.group.members[name].generation >= one.generation
            else:
                self.gone.add(name)
        assert not self.gone & self.group.members.keys()
        return step

    @rule(
        assignors=st.lists(st.sampled_from(ASSIGNORS), min_size=1, max_size=3, unique=True),
        wanted=st.frozensets(st.sampled_from(NAMES)),
        instance_id=st.sampled_from((None, None, None, "i", "j")),
        timeout=st.integers(1, 20),
    )
    def join(
        self, assignors: list[str], wanted: frozenset[str], instance_id: str | None, timeout: int
    ) -> None:
        name = f"m{self.joined}"
        joining = Member(
            name, f"s{self.joined % 4}", (*assignors, "range"), wanted, timeout, instance_id
        )
        assert common_assignors(self.group, joining)
        self.joined += 1
        step = self.do(Join(joining, self.topics))
        assert step.known

    @rule(number=numbers)
    def heartbeat(self, number: int) -> None:
        name = self.some(number)
        if name is not None:
            step = self.do(Heartbeat(name))
            assert step.known == (name in self.group.members)

    @rule(number=numbers)
    def claim(self, number: int) -> None:
        name = self.some(number)
        if name is not None:
            step = self.do(Claim(name))
            assert not step.known or step.revoke or not step.claimable

    @rule(number=numbers, share=st.integers(1, 3))
    def give_up(self, number: int, share: int) -> None:
        name = self.some(number)
        if name is not None:
            due = sorted(next_step(self.group, name).revoke)
            self.do(Revoked(name, frozenset(due[: -(-len(due) // share)])))

    @rule(number=numbers, wanted=st.frozensets(st.sampled_from(NAMES)))
    def subscribe(self, number: int, wanted: frozenset[str]) -> None:
        name = self.some(number)
        if name is not None:
            self.do(Subscribe(name, wanted, self.topics))

    @rule(number=numbers)
    def leave(self, number: int) -> None:
        name = self.some(number)
        if name is not None:
            self.do(Leave(name))
            assert name not in self.group.members

    @rule(sessions=st.frozensets(st.sampled_from(("s0", "s1", "s2", "s3")), max_size=2))
    def die(self, sessions: frozenset[str]) -> None:
        self.do(Expire(sessions))
        for one in self.group.members.values():
            assert one.instance_id is not None or one.session_id not in sessions

    @rule(milliseconds=st.integers(1, 12))
    def wait(self, milliseconds: int) -> None:
        self.now += milliseconds

    def see(self, number: int) -> None:
        """A member, if there is one, sees that topics came, grew or went."""
        members = sorted(self.group.members.values(), key=lambda one: one.member_id)
        if members:
            one = members[number % len(members)]
            self.do(Subscribe(one.member_id, one.topics, self.topics))

    @rule(number=numbers, topic=st.sampled_from(NAMES), more=st.integers(1, 3))
    def add_partitions(self, number: int, topic: str, more: int) -> None:
        info = self.topics.get(topic, TopicInfo(f"{topic}{self.joined}", 0))
        self.topics = {**self.topics, topic: info._replace(partitions=info.partitions + more)}
        self.see(number)

    @rule(number=numbers, topic=st.sampled_from(NAMES))
    def delete_topic(self, number: int, topic: str) -> None:
        self.topics = {name: info for name, info in self.topics.items() if name != topic}
        self.see(number)

    @invariant()
    def nothing_is_owned_twice_or_beyond_what_there_is(self) -> None:
        there = {
            TopicPartition(topic, number)
            for topic, info in self.group.topics.items()
            for number in range(info.partitions)
        }
        owned = [p for one in self.group.members.values() for p in one.owned]
        assert len(owned) == len(set(owned))
        assert set(owned) <= there

    @invariant()
    def every_wanted_partition_is_meant_for_one_member(self) -> None:
        group = self.group
        assert group.target.keys() == group.members.keys() == group.deadlines.keys()
        meant = [p for target in group.target.values() for p in target]
        wanted = frozenset[str]().union(*(one.topics for one in group.members.values()))
        assert sorted(meant) == sorted(
            TopicPartition(topic, number)
            for topic, info in group.topics.items()
            if topic in wanted
            for number in range(info.partitions)
        )
        assert all(one.generation <= group.generation for one in group.members.values())
        static = [one.instance_id for one in group.members.values() if one.instance_id]
        assert len(static) == len(set(static))

    @precondition(lambda self: self.group.members)
    @invariant()
    def members_that_do_what_they_have_to_reach_the_target(self) -> None:
        group = self.group
        group = replace(group, deadlines=dict.fromkeys(group.members, self.now + 1))
        for _ in range(2):
            for name in group.members:
                due = next_step(group, name).revoke
                group, _ = apply(group, Revoked(name, due), self.now)
                group, _ = apply(group, Claim(name), self.now)
        for name, one in group.members.items():
            assert one.owned == group.target[name]
            assert one.generation == group.generation


# Shrinking a sequence of commands would take longer than reading it.
GroupMachine.TestCase.settings = settings(
    max_examples=150,
    stateful_step_count=40,
    deadline=None,
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
)
TestGroup = GroupMachine.TestCase
