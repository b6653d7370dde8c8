"""A consumer's membership in a group: what it owns, and what it has to do next."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import NamedTuple

from logstore.errors import ClosedError, FencedMemberError, InvalidInputError
from logstore.groups import state
from logstore.groups.assignors import ASSIGNORS
from logstore.groups.coordinator import Coordinator, new_member_id
from logstore.groups.state import NOTHING, Group
from logstore.partitions import TopicPartition

__all__ = ["Membership", "MembershipOptions", "Rebalance"]

_log = logging.getLogger("logstore")

MAX_SESSION_TIMEOUT_MS = 1_800_000
"""Kafka's ``group.max.session.timeout.ms``."""


class Rebalance(NamedTuple):
    """What a member has to do now: one of the two sets is empty."""

    revoke: frozenset[TopicPartition]
    """To be given up: stop reading them, commit, then call ``Membership.revoked``."""
    assigned: frozenset[TopicPartition]
    """Owned from now on."""
    lost: bool = False
    """Whether what is to be given up is gone already: somebody else may own it, nothing of it can
    be committed, and ``Membership.revoked`` need not be called."""


@dataclass(frozen=True, slots=True)
class MembershipOptions:
    """How a member takes part; Kafka's names. Times are milliseconds."""

    assignors: tuple[str, ...]
    session_timeout_ms: int
    heartbeat_interval_ms: int
    max_poll_interval_ms: int
    group_instance_id: str | None
    client_id: str

    def check(self) -> None:
        """Raise InvalidInputError for what makes no sense."""
        unknown = [name for name in self.assignors if name not in ASSIGNORS]
        if unknown or not self.assignors:
            raise InvalidInputError(
                f"assignor={unknown[0] if unknown else ()!r} is none of {', '.join(ASSIGNORS)}"
            )
        if not 1 <= self.session_timeout_ms <= MAX_SESSION_TIMEOUT_MS:
            raise InvalidInputError(
                f"session_timeout_ms={self.session_timeout_ms} is out of bounds: "
                f"1 to {MAX_SESSION_TIMEOUT_MS}"
            )
        if not 1 <= self.heartbeat_interval_ms < self.session_timeout_ms:
            raise InvalidInputError(
                f"heartbeat_interval_ms={self.heartbeat_interval_ms} is out of bounds: at least 1, "
                f"and less than session_timeout_ms={self.session_timeout_ms}"
            )
        if self.max_poll_interval_ms < 1:
            raise InvalidInputError(
                f"max_poll_interval_ms={self.max_poll_interval_ms} is out of bounds: at least 1"
            )
        if self.group_instance_id == "":
            raise InvalidInputError("group_instance_id is empty")


class Membership:
    """One member of a group. ``poll`` and ``revoked`` are for the consumer's thread; heartbeats
    are sent by the store's (``tick``)."""

    def __init__(
        self,
        coordinator: Coordinator,
        group: str,
        topics: Callable[[], Collection[str]],
        options: MembershipOptions,
        *,
        joining: Callable[[str], None] = lambda _: None,
        forget: Callable[[Membership], None],
    ) -> None:
        """``topics`` says what the member wants; it is asked again when topics have changed.
        ``joining`` is called with the group's name ahead of each joining, ``forget`` when the
        membership has ended."""
        self.group = group
        self.options = options
        self.wake: Callable[[], None] | None = None
        """Called, by the thread that sends heartbeats, when ``poll`` would find something."""
        self._coordinator = coordinator
        self._topics = topics
        self._joining = joining
        self._forget = forget
        self._mutex = threading.RLock()
        self._closed = False
        self._member_id: str | None = None
        """None while it is no member: before it joins, and after it was expired or fenced."""
        self._generation = -1
        self._held: dict[TopicPartition, str] = {}
        """What the consumer was told that it owns, with the topics' ids."""
        self._fenced = False
        """Whether another instance of this static member has taken its place."""
        self._definitions: object = None
        """All topics, when they were last looked at."""
        self._seen = -1
        """The number of the last transaction in ``live`` after which there was nothing to do."""
        self._seen_group = -1
        """The number of the transaction that changed the group when it was last looked at."""
        self._ticked = -1
        """The number of the last transaction in ``live`` when ``tick`` found nothing."""
        self._last_poll = coordinator.clock.boottime_ms()
        self._next_heartbeat = 0

    # What it is -------------------------------------------------------------------------------

    @property
    def member_id(self) -> str:
        """Its id in the group; empty while it is no member."""
        return self._member_id or ""

    @property
    def generation(self) -> int:
        """The generation that it has reached; -1: none."""
        return self._generation

    @property
    def assignment(self) -> frozenset[TopicPartition]:
        """What it owns, as far as it was told by ``poll``."""
        return frozenset(self._held)

    def topic_id_of(self, partition: TopicPartition) -> str | None:
        """The id of the topic that an owned partition belongs to."""
        return self._held.get(partition)

    def __repr__(self) -> str:
        return f"Membership({self.group!r}, {self.member_id!r}, generation {self._generation})"

    # The consumer's thread --------------------------------------------------------------------

    def poll(self) -> Rebalance | None:
        """What has to be done now, or None; to be called by every poll of the consumer.

        One that was expired joins again. Raises FencedMemberError if another instance of the same
        static member has taken its place, ClosedError after ``leave`` or ``close``.
        """
        with self._mutex:
            self._check_open()
            self._last_poll = self._coordinator.clock.boottime_ms()
            definitions = self._coordinator.definitions()
            number = self._coordinator.live.number()
            if number == self._seen and definitions is self._definitions:
                return None
            return self._reconcile(number, definitions)

    def _reconcile(self, number: int, definitions: object) -> Rebalance | None:
        if self._member_id is None:
            if self._held:
                return self._lost(frozenset(self._held))
            if self._fenced:
                raise FencedMemberError(
                    f"group {self.group}: another consumer has taken the place of the static "
                    f"member {self.options.group_instance_id!r}"
                )
            self._join()
        elif definitions is not self._definitions:
            self._subscribe()
        self._definitions = definitions
        seen = self._coordinator.look(self.group)
        self._seen_group = seen.number
        member_id = self.member_id
        step = state.next_step(seen.group, member_id)
        if step.known and not step.revoke and (step.behind or step.claimable):
            step = self._coordinator.run(self.group, state.Claim(member_id))
            seen = self._coordinator.look(self.group)
        if not step.known:
            self._expired(seen.group)
            self._seen = -1
            return self._lost(frozenset(self._held)) if self._held else None
        self._generation = step.generation
        gone = frozenset(
            partition
            for partition, topic_id in self._held.items()
            if partition not in step.owned or _topic_id(seen.group, partition) != topic_id
        )
        if gone:
            return self._lost(gone)
        revoke = step.revoke & self._held.keys()
        if step.revoke - revoke:
            # A static member came back to more than it may keep.
            self._coordinator.run(self.group, state.Revoked(member_id, step.revoke - revoke))
            return self._reconcile(number, definitions)
        if revoke:
            return Rebalance(revoke, NOTHING)
        assigned = step.owned - self._held.keys()
        if assigned:
            for partition in assigned:
                self._held[partition] = _topic_id(seen.group, partition)
            return Rebalance(NOTHING, assigned)
        self._seen = number
        return None

    def _lost(self, partitions: frozenset[TopicPartition]) -> Rebalance:
        for partition in partitions:
            del self._held[partition]
        return Rebalance(partitions, NOTHING, lost=True)

    def revoked(self, partitions: Collection[TopicPartition]) -> None:
        """Give up partitions, after the last commit for them was made."""
        with self._mutex:
            self._check_open()
            for partition in partitions:
                self._held.pop(partition, None)
            self._seen = -1
            if self._member_id is not None:
                command = state.Revoked(self._member_id, frozenset(partitions))
                self._coordinator.run(self.group, command)

    def _join(self) -> None:
        wanted = frozenset(self._topics())
        options = self.options
        member = state.Member(
            new_member_id(options.client_id),
            self._coordinator.sessions.own,
            options.assignors,
            wanted,
            options.session_timeout_ms,
            options.group_instance_id,
            options.client_id,
        )
        self._joining(self.group)
        self._coordinator.bury(self.group)

        def command(group: Group) -> state.Command:
            if not state.common_assignors(group, member):
                theirs = {", ".join(other.assignors) for other in group.members.values()}
                raise InvalidInputError(
                    f"group {self.group}: no assignor in common: {', '.join(options.assignors)} "
                    f"here, {'; '.join(sorted(theirs))} in the group"
                )
            return state.Join(member, self._coordinator.topics_of(group, wanted))

        self._coordinator.run(self.group, command)
        self._member_id = member.member_id
        self._next_heartbeat = self._coordinator.clock.boottime_ms() + options.heartbeat_interval_ms

    def _subscribe(self) -> None:
        """Take in that topics came, grew or went."""
        wanted = frozenset(self._topics())
        member_id = self.member_id
        group = self._coordinator.look(self.group).group
        member = group.members.get(member_id)
        if member is None:
            return
        if member.topics != wanted or self._coordinator.topics_of(group) != group.topics:
            self._coordinator.run(
                self.group,
                lambda group: state.Subscribe(
                    member_id,
                    wanted,
                    self._coordinator.topics_of(group, wanted, without=member_id),
                ),
            )

    def _expired(self, group: Group) -> None:
        instance_id = self.options.group_instance_id
        self._fenced = instance_id is not None and any(
            member.instance_id == instance_id and member.member_id != self._member_id
            for member in group.members.values()
        )
        self._member_id = None
        self._generation = -1

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError(f"group {self.group}: the member has left")

    # The end ----------------------------------------------------------------------------------

    def leave(self) -> None:
        """Leave the group at once, a static member too; doing it twice is allowed."""
        self._end(leave=True)

    def close(self) -> None:
        """End the membership. A static member stays in the group until its session time-out, so
        that it can come back without a rebalance (as in Kafka)."""
        self._end(leave=self.options.group_instance_id is None)

    def _end(self, *, leave: bool) -> None:
        with self._mutex:
            if self._closed:
                return
            self._closed = True
            self._forget(self)
            self._held.clear()
            member_id, self._member_id = self._member_id, None
            if leave and member_id is not None:
                self._coordinator.run(self.group, state.Leave(member_id))

    # The heartbeats' thread -------------------------------------------------------------------

    def tick(self, now_ms: int) -> None:
        """Send a heartbeat if it is due; leave a group whose consumer has not polled for too long;
        wake the consumer if there is something to do."""
        with self._mutex:
            if self._closed or self._member_id is None:
                return
            if now_ms - self._last_poll > self.options.max_poll_interval_ms:
                self._too_slow()
            elif now_ms >= self._next_heartbeat:
                self._next_heartbeat = now_ms + self.options.heartbeat_interval_ms
                step = self._coordinator.run(self.group, state.Heartbeat(self._member_id))
                if not step.known:
                    self._gone()
            changed = (
                self._member_id is None
                or self._coordinator.definitions() is not self._definitions
                or self._group_changed()
            )
        wake = self.wake
        if changed and wake is not None:
            wake()

    def _group_changed(self) -> bool:
        number = self._coordinator.live.number()
        if number in (self._seen, self._ticked):
            return False
        if self._coordinator.look(self.group).number != self._seen_group:
            return True
        self._ticked = number
        return False

    def _too_slow(self) -> None:
        _log.warning(
            "group %s: %s has not polled for max_poll_interval_ms=%d, and leaves the group",
            self.group,
            self._member_id,
            self.options.max_poll_interval_ms,
        )
        # A static member only falls silent, and is expired by its session time-out (KIP-345).
        if self._member_id is not None and self.options.group_instance_id is None:
            self._coordinator.run(self.group, state.Leave(self._member_id))
        self._gone()

    def _gone(self) -> None:
        self._expired(self._coordinator.look(self.group).group)
        self._seen = -1


def _topic_id(group: Group, partition: TopicPartition) -> str:
    info = group.topics.get(partition.topic)
    return "" if info is None else info.topic_id
