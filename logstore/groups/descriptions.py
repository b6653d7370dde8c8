"""What there is to tell about a group."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from logstore.groups.state import NOTHING, Group
from logstore.partitions import OffsetAndMetadata, TopicPartition

__all__ = [
    "GroupDescription",
    "GroupListing",
    "MemberDescription",
    "OffsetDescription",
    "describe_members",
    "state_label",
]


class GroupListing(NamedTuple):
    """A group in a list."""

    name: str
    state: str
    """``Empty``, ``Reconciling`` or ``Stable`` (KIP-848)."""
    members: int


class MemberDescription(NamedTuple):
    """A member."""

    member_id: str
    group_instance_id: str | None
    client_id: str
    generation: int
    """The generation that it has reached."""
    assignment: Sequence[TopicPartition]
    """What it owns."""
    target: Sequence[TopicPartition]
    """What is meant for it."""


class OffsetDescription(NamedTuple):
    """How far a group has come in a partition."""

    topic: str
    partition: int
    committed: OffsetAndMetadata | None
    log_start_offset: int
    log_end_offset: int
    member_id: str
    """Who owns the partition; empty: nobody."""

    @property
    def lag(self) -> int | None:
        """How many offsets lie behind what was committed; None where nothing was."""
        if self.committed is None:
            return None
        return max(0, self.log_end_offset - max(self.committed.offset, self.log_start_offset))


class GroupDescription(NamedTuple):
    """A group."""

    name: str
    state: str
    assignor: str
    generation: int
    members: Sequence[MemberDescription]
    offsets: Sequence[OffsetDescription]


def state_label(group: Group) -> str:
    """A group's state by KIP-848's words: whether it has members, and whether all of them own what
    is meant for them."""
    if not group.members:
        return "Empty"
    settled = all(
        member.generation == group.generation and member.owned == group.target.get(key, NOTHING)
        for key, member in group.members.items()
    )
    return "Stable" if settled else "Reconciling"


def describe_members(group: Group) -> list[MemberDescription]:
    """All members, by their ids."""
    return [
        MemberDescription(
            member.member_id,
            member.instance_id,
            member.client_id,
            member.generation,
            sorted(member.owned),
            sorted(group.target.get(key, NOTHING)),
        )
        for key, member in sorted(group.members.items())
    ]
