"""Which member of a group gets which partitions: Kafka's assignors, as pure functions.

``range``
    Topic by topic: the members that want it, in order, each get a run of neighbouring partitions,
    so that partitions of the same number in different topics go to the same member.
``roundrobin``
    All partitions, topic by topic, dealt out to the members in turn.
``sticky``, ``cooperative-sticky``
    Balanced, and as much as that allows stays where it was (KIP-54). Both assign the same; the
    second one says that a member gives up only what moves (KIP-429).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import NamedTuple

from logstore.errors import InvalidInputError
from logstore.partitions import TopicPartition

__all__ = ["ASSIGNORS", "Assignment", "MemberSubscription", "assign", "is_cooperative"]

Assignment = dict[str, list[TopicPartition]]
"""What each member gets, in the order of topics and numbers."""


class MemberSubscription(NamedTuple):
    """What a member wants."""

    topics: frozenset[str]
    instance_id: str | None = None
    """The ``group_instance_id`` of a static member: it gives the member a lasting place in the
    order of members, where a member id is drawn anew by every process."""


def is_cooperative(assignor: str) -> bool:
    """Whether members keep, during a rebalance, what stays theirs."""
    return assignor == "cooperative-sticky"


def assign(
    assignor: str,
    members: Mapping[str, MemberSubscription],
    partitions: Mapping[str, int],
    previous: Mapping[str, Collection[TopicPartition]],
) -> Assignment:
    """Assign every partition that somebody wants to exactly one member that wants its topic.

    ``partitions`` says how many each topic has; topics that are not in it do not exist.
    ``previous`` is the assignment before this one; only the sticky assignors look at it.
    """
    try:
        function = _FUNCTIONS[assignor]
    except KeyError:
        raise InvalidInputError(
            f"there is no assignor called {assignor!r}, only {', '.join(ASSIGNORS)}"
        ) from None
    assignment = function(members, partitions, previous)
    return {member: sorted(assignment[member]) for member in sorted(assignment)}


def _in_order(members: Mapping[str, MemberSubscription]) -> list[str]:
    """Static members first, by instance id; then the others, by member id (as Kafka has it)."""

    def place(member: str) -> tuple[bool, str, str]:
        instance_id = members[member].instance_id
        return instance_id is None, instance_id or "", member

    return sorted(members, key=place)


def _wanted(
    members: Mapping[str, MemberSubscription], partitions: Mapping[str, int]
) -> dict[str, list[str]]:
    """The topics that exist and that somebody wants, sorted; and who wants each, in order."""
    order = _in_order(members)
    wanted = {}
    for topic in sorted(partitions):
        takers = [member for member in order if topic in members[member].topics]
        if takers:
            wanted[topic] = takers
    return wanted


def _range(
    members: Mapping[str, MemberSubscription],
    partitions: Mapping[str, int],
    _previous: Mapping[str, Collection[TopicPartition]],
) -> Assignment:
    assignment: Assignment = {member: [] for member in members}
    for topic, takers in _wanted(members, partitions).items():
        each, extra = divmod(partitions[topic], len(takers))
        first = 0
        for place, member in enumerate(takers):
            count = each + (place < extra)
            assignment[member] += [TopicPartition(topic, first + n) for n in range(count)]
            first += count
    return assignment


def _round_robin(
    members: Mapping[str, MemberSubscription],
    partitions: Mapping[str, int],
    _previous: Mapping[str, Collection[TopicPartition]],
) -> Assignment:
    assignment: Assignment = {member: [] for member in members}
    order = _in_order(members)
    turn = 0
    for topic in _wanted(members, partitions):
        for number in range(partitions[topic]):
            while topic not in members[order[turn % len(order)]].topics:
                turn += 1
            assignment[order[turn % len(order)]].append(TopicPartition(topic, number))
            turn += 1
    return assignment


def _sticky(
    members: Mapping[str, MemberSubscription],
    partitions: Mapping[str, int],
    previous: Mapping[str, Collection[TopicPartition]],
) -> Assignment:
    return _Sticky(members, partitions, previous).run()


class _Sticky:
    """A sticky assignment being made: what was stays, what is free goes to whoever has the least,
    and then as few partitions as possible move until it is balanced."""

    def __init__(
        self,
        members: Mapping[str, MemberSubscription],
        partitions: Mapping[str, int],
        previous: Mapping[str, Collection[TopicPartition]],
    ) -> None:
        self._members = members
        self._order = _in_order(members)
        self._wanted = _wanted(members, partitions)
        self._partitions = partitions
        self._home: dict[TopicPartition, str] = {}
        """Where each partition was, if it may still be there."""
        for member in self._order:
            for partition in sorted(previous.get(member, ())):
                if self._may_have(member, partition):
                    self._home.setdefault(partition, member)
        self._has: dict[str, set[TopicPartition]] = {member: set() for member in members}

    def _may_have(self, member: str, partition: TopicPartition) -> bool:
        count = self._partitions.get(partition.topic, 0)
        return partition.partition < count and partition.topic in self._members[member].topics

    def run(self) -> Assignment:
        for partition, member in self._home.items():
            self._has[member].add(partition)
        # Topics that few members want come first: the others can make up for them.
        for topic, takers in sorted(self._wanted.items(), key=lambda item: len(item[1])):
            for number in range(self._partitions[topic]):
                partition = TopicPartition(topic, number)
                if partition not in self._home:
                    taker = min(takers, key=lambda member: len(self._has[member]))
                    self._has[taker].add(partition)
        while self._improve():
            pass
        return {member: list(has) for member, has in self._has.items()}

    def _improve(self) -> bool:
        """Take a partition from a member that has at least two more than another one that may have
        it, perhaps by way of others; False when there is no such member.

        An assignment with no such chain of moves is as balanced as the subscriptions allow: it is
        an optimal semi-matching (Harvey et al., 2003).
        """
        by_load = sorted(self._order, key=lambda member: len(self._has[member]))
        for giver in reversed(by_load):
            most = len(self._has[giver]) - 2
            if not by_load or most < len(self._has[by_load[0]]):
                return False
            for taker in by_load:
                if len(self._has[taker]) > most:
                    break
                movable = self._movable(giver, taker)
                if movable:
                    self._move(movable, giver, taker)
                    return True
            chain = self._chain(giver, most)
            if chain:
                for one, other in zip(reversed(chain[:-1]), reversed(chain[1:]), strict=True):
                    self._move(self._movable(one, other), one, other)
                return True
        return False

    def _movable(self, giver: str, taker: str) -> list[TopicPartition]:
        topics = self._members[taker].topics
        return [partition for partition in self._has[giver] if partition.topic in topics]

    def _move(self, movable: Iterable[TopicPartition], giver: str, taker: str) -> None:
        """Move the one that would go home; else one that is not at home; else the last one."""

        def preference(partition: TopicPartition) -> tuple[bool, bool, TopicPartition]:
            home = self._home.get(partition)
            return home == taker, home != giver, partition

        partition = max(movable, key=preference)
        self._has[giver].remove(partition)
        self._has[taker].add(partition)

    def _chain(self, giver: str, most: int) -> list[str]:
        """Members, the first of them ``giver``, of which each can hand a partition to the next, up
        to one that has at most ``most``; the shortest such chain, or none."""
        before: dict[str, str] = {}
        queue = deque([giver])
        while queue:
            member = queue.popleft()
            topics = sorted({partition.topic for partition in self._has[member]})
            for other in (taker for topic in topics for taker in self._wanted[topic]):
                if other in before or other == giver:
                    continue
                before[other] = member
                if len(self._has[other]) <= most:
                    chain = [other]
                    while chain[-1] != giver:
                        chain.append(before[chain[-1]])
                    return chain[::-1]
                queue.append(other)
        return []


_FUNCTIONS: dict[
    str,
    Callable[
        [
            Mapping[str, MemberSubscription],
            Mapping[str, int],
            Mapping[str, Collection[TopicPartition]],
        ],
        Assignment,
    ],
] = {
    "range": _range,
    "roundrobin": _round_robin,
    "sticky": _sticky,
    "cooperative-sticky": _sticky,
}

ASSIGNORS = tuple(_FUNCTIONS)
"""The names of the assignors."""
