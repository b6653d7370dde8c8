"""A consumer group as a pure state machine: ``(group, command, now) -> (group, step)``.

The target assignment is computed in the transition that makes it necessary, as in KIP-848: nobody
waits for anybody to join. From then on each member goes its own way to it. It is told what to give
up; when it has, it reaches the group's generation and may *claim* what is meant for it, as far as
nobody else still owns it. So a partition has one owner at most, at all times, by construction; and
a member that is slow to give up holds up only those that wait for its partitions.

With the eager assignors a member gives up everything before it reaches a new generation; with
``cooperative-sticky`` only what is meant for somebody else.

Times are milliseconds of a clock that counts from the machine's start, sleep included.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import NamedTuple

from logstore.groups.assignors import MemberSubscription, assign, is_cooperative
from logstore.partitions import TopicPartition

__all__ = [
    "Claim",
    "Command",
    "Expire",
    "Group",
    "Heartbeat",
    "Join",
    "Leave",
    "Member",
    "Refusal",
    "Revoked",
    "Step",
    "Subscribe",
    "TopicInfo",
    "apply",
    "check_commit",
    "common_assignors",
    "next_step",
]

NOTHING: frozenset[TopicPartition] = frozenset()


class TopicInfo(NamedTuple):
    """What a group knows of a topic."""

    topic_id: str
    """Another one under the same name is another topic."""
    partitions: int


@dataclass(frozen=True, slots=True)
class Member:
    """A member of a group."""

    member_id: str
    session_id: str
    """The session (``logstore.sessions``) whose end is the end of the member."""
    assignors: tuple[str, ...]
    """The assignors that it is content with, the one that it likes best first."""
    topics: frozenset[str]
    session_timeout_ms: int
    instance_id: str | None = None
    """``group_instance_id``: a static member outlives its session, and may come back under this
    name, until the session time-out."""
    client_id: str = ""
    generation: int = -1
    """The group's generation that it has reached; -1: none."""
    owned: frozenset[TopicPartition] = NOTHING
    """What it has claimed and not given up."""


@dataclass(frozen=True, slots=True)
class Group:
    """A group. Nothing in it is ever changed in place."""

    name: str
    generation: int = 0
    """Counts the target assignments."""
    assignor: str = ""
    """The assignor of the target assignment; empty before there is one."""
    topics: Mapping[str, TopicInfo] = field(default_factory=dict)
    """The topics that the target assignment is about, by name."""
    members: Mapping[str, Member] = field(default_factory=dict)
    """The members by their ids."""
    target: Mapping[str, frozenset[TopicPartition]] = field(default_factory=dict)
    """What is meant for each member."""
    deadlines: Mapping[str, int] = field(default_factory=dict)
    """The time at which each member's session times out."""


# Commands -----------------------------------------------------------------------------------


class Join(NamedTuple):
    """A member comes; its id has never been used. ``topics`` is what is known of all topics that
    it or another member wants."""

    member: Member
    topics: Mapping[str, TopicInfo]


class Heartbeat(NamedTuple):
    """A member lives."""

    member_id: str


class Claim(NamedTuple):
    """A member lives, and takes what is meant for it and free."""

    member_id: str


class Revoked(NamedTuple):
    """A member gives up partitions."""

    member_id: str
    partitions: frozenset[TopicPartition]


class Subscribe(NamedTuple):
    """A member wants other topics than before, or has seen that topics came, grew or went."""

    member_id: str
    wanted: frozenset[str]
    topics: Mapping[str, TopicInfo]


class Leave(NamedTuple):
    """A member goes."""

    member_id: str


class Expire(NamedTuple):
    """Sessions have ended."""

    sessions: frozenset[str] = frozenset()


Command = Join | Heartbeat | Claim | Revoked | Subscribe | Leave | Expire


class Step(NamedTuple):
    """How a member stands after a command."""

    known: bool
    """False when it is no member: it never was, it expired, or it was fenced by another instance
    of the same static member. Whatever it owned, it owns no more."""
    generation: int = -1
    owned: frozenset[TopicPartition] = NOTHING
    revoke: frozenset[TopicPartition] = NOTHING
    """What it has to give up before it can go on."""
    claimable: frozenset[TopicPartition] = NOTHING
    """What it would get now by claiming."""
    behind: bool = False
    """Whether the group has reached a generation that the member has not."""


class Refusal(Enum):
    """Why a member may not commit."""

    UNKNOWN_MEMBER = "it is no member of the group any more"
    ILLEGAL_GENERATION = "its generation is over"
    NOT_OWNER = "it does not own the partition"


# Transitions --------------------------------------------------------------------------------


def apply(group: Group, command: Command, now_ms: int) -> tuple[Group, Step]:
    """The group after a command, and how the member that it is about stands then.

    Members whose time is up go first, whatever the command is: the answer does not depend on
    whether somebody has looked in the meantime.
    """
    dead = command.sessions if isinstance(command, Expire) else frozenset()
    group = _expired(group, dead, now_ms)
    match command:
        case Join(member, topics):
            group = _joined(group, member, topics, now_ms)
            return group, next_step(group, member.member_id)
        case Expire():
            return group, Step(False)
        case Leave(member_id):
            if member_id in group.members:
                group = _rebalanced(_without(group, (member_id,)))
            return group, Step(False)
    member_id = command.member_id
    if member_id not in group.members:
        return group, Step(False)
    group = _alive(group, member_id, now_ms)
    match command:
        case Claim():
            group = _claimed(group, member_id)
        case Revoked(_, partitions):
            member = group.members[member_id]
            group = _changed(group, replace(member, owned=member.owned - partitions))
        case Subscribe(_, wanted, topics):
            member = group.members[member_id]
            resubscribed = wanted != member.topics
            group = _changed(group, replace(member, topics=wanted))
            group = _with_topics(group, topics, rebalance=resubscribed)
        case Heartbeat():
            pass
    return group, next_step(group, member_id)


def next_step(group: Group, member_id: str) -> Step:
    """How a member stands, and what it would have to do next."""
    member = group.members.get(member_id)
    if member is None:
        return Step(False)
    target = group.target.get(member_id, NOTHING)
    behind = member.generation < group.generation
    keeps = target if is_cooperative(group.assignor) or not behind else NOTHING
    revoke = member.owned - keeps
    claimable = NOTHING if revoke else target - member.owned - _owned_by_others(group, member_id)
    return Step(True, member.generation, member.owned, revoke, claimable, behind)


def check_commit(
    group: Group, member_id: str, generation: int, partitions: Iterable[TopicPartition]
) -> Refusal | None:
    """Why a member may not commit offsets of these partitions; None if it may.

    A member that has not yet reached the group's generation may commit what it still owns: that is
    the time to do it, before it gives it up.
    """
    member = group.members.get(member_id)
    if member is None:
        return Refusal.UNKNOWN_MEMBER
    if generation != member.generation:
        return Refusal.ILLEGAL_GENERATION
    if not member.owned.issuperset(partitions):
        return Refusal.NOT_OWNER
    return None


def common_assignors(group: Group, joining: Member) -> frozenset[str]:
    """The assignors that everybody is content with if ``joining`` joins; where there are none, it
    must not."""
    return _common(
        [
            *(member for member in group.members.values() if not _same(member, joining)),
            joining,
        ]
    )


def _same(member: Member, other: Member) -> bool:
    return member.instance_id is not None and member.instance_id == other.instance_id


def _common(members: Iterable[Member]) -> frozenset[str]:
    sets = [frozenset(member.assignors) for member in members]
    return frozenset.intersection(*sets) if sets else frozenset()


def _joined(group: Group, member: Member, topics: Mapping[str, TopicInfo], now_ms: int) -> Group:
    before = next((other for other in group.members.values() if _same(other, member)), None)
    if before is None:
        group = _alive(_changed(group, member), member.member_id, now_ms)
        return _with_topics(group, topics, rebalance=True)
    # A static member comes back: it takes the place, and with it the partitions, of the instance
    # before it, which is a stranger from now on.
    target = group.target.get(before.member_id, NOTHING)
    member = replace(member, generation=before.generation, owned=before.owned)
    group = _changed(_without(group, (before.member_id,)), member)
    group = replace(group, target={**group.target, member.member_id: target})
    group = _alive(group, member.member_id, now_ms)
    asks = (member.topics, member.assignors) != (before.topics, before.assignors)
    return _with_topics(group, topics, rebalance=asks)


def _expired(group: Group, dead: frozenset[str], now_ms: int) -> Group:
    gone = [
        member.member_id
        for member in group.members.values()
        if group.deadlines[member.member_id] <= now_ms
        or (member.instance_id is None and member.session_id in dead)
    ]
    return _rebalanced(_without(group, gone)) if gone else group


def _alive(group: Group, member_id: str, now_ms: int) -> Group:
    deadline = now_ms + group.members[member_id].session_timeout_ms
    return replace(group, deadlines={**group.deadlines, member_id: deadline})


def _changed(group: Group, member: Member) -> Group:
    return replace(group, members={**group.members, member.member_id: member})


def _without(group: Group, gone: Iterable[str]) -> Group:
    stays = group.members.keys() - gone
    return replace(
        group,
        members={key: member for key, member in group.members.items() if key in stays},
        target={key: target for key, target in group.target.items() if key in stays},
        deadlines={key: time for key, time in group.deadlines.items() if key in stays},
    )


def _claimed(group: Group, member_id: str) -> Group:
    step = next_step(group, member_id)
    if step.revoke or not (step.behind or step.claimable):
        return group
    member = group.members[member_id]
    owned = member.owned | step.claimable
    return _changed(group, replace(member, generation=group.generation, owned=owned))


def _owned_by_others(group: Group, member_id: str) -> frozenset[TopicPartition]:
    return NOTHING.union(
        *(member.owned for key, member in group.members.items() if key != member_id)
    )


def _with_topics(
    group: Group, topics: Mapping[str, TopicInfo], *, rebalance: bool = False
) -> Group:
    """Take in what is known of the topics; what is no more, nobody owns."""
    if topics != group.topics:
        rebalance = True
        there = {
            name: info
            for name, info in group.topics.items()
            if name in topics and topics[name].topic_id == info.topic_id
        }

        def remaining(partitions: frozenset[TopicPartition]) -> frozenset[TopicPartition]:
            return frozenset(p for p in partitions if p.topic in there)

        group = replace(
            group,
            topics=dict(topics),
            target={key: remaining(target) for key, target in group.target.items()},
            members={
                key: replace(member, owned=remaining(member.owned))
                for key, member in group.members.items()
            },
        )
    return _rebalanced(group) if rebalance else group


def _rebalanced(group: Group) -> Group:
    """A new generation with a new target assignment."""
    assignor = _chosen(group)
    target: Mapping[str, frozenset[TopicPartition]] = {}
    if group.members:
        assignment = assign(
            assignor,
            {
                key: MemberSubscription(member.topics, member.instance_id)
                for key, member in group.members.items()
            },
            {name: info.partitions for name, info in group.topics.items()},
            group.target,
        )
        target = {key: frozenset(partitions) for key, partitions in assignment.items()}
    return replace(group, generation=group.generation + 1, assignor=assignor, target=target)


def _chosen(group: Group) -> str:
    """The assignor that most members like best among those that all are content with."""
    members = group.members.values()
    common = _common(members)
    if not common:
        return group.assignor
    votes = Counter(next(a for a in member.assignors if a in common) for member in members)
    return min(votes, key=lambda assignor: (-votes[assignor], assignor))
