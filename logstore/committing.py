"""What a consumer commits for its group: its positions, by hand or by itself, or other offsets."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping

from logstore.assigned import AssignedPartitions
from logstore.clock import Clock
from logstore.consumer_config import ConsumerConfig
from logstore.errors import (
    FencedMemberError,
    IllegalGenerationError,
    InvalidInputError,
    UnknownTopicError,
)
from logstore.groups.groups import Groups
from logstore.groups.membership import Membership
from logstore.partitions import OffsetAndMetadata, TopicPartition
from logstore.subscription import Topics

__all__ = ["UNKNOWN", "Commits"]

_log = logging.getLogger("logstore")

UNKNOWN = -1
"""The position in a partition that nothing says where to begin in; no log holds it, and it is not
committed."""


class Commits:
    """The commits of one consumer. For one thread at a time."""

    def __init__(
        self,
        groups: Groups | None,
        topics: Topics,
        ours: AssignedPartitions,
        config: ConsumerConfig,
        clock: Clock,
    ) -> None:
        """``groups`` is None in a store that may not be written, where no group can be joined."""
        self._groups = groups
        self._topics = topics
        self._ours = ours
        self._config = config
        self._clock = clock
        self._known: dict[TopicPartition, int] = {}
        """What was committed last, as far as one knows here: it need not be committed again."""
        self._next = 0.0
        self._wait()

    def _wait(self) -> None:
        self._next = self._clock.monotonic() + self._config.auto_commit_interval_ms / 1000

    def in_group(self) -> tuple[Groups, str]:
        """The store's groups, and the one of this consumer; raises InvalidInputError."""
        if self._config.group is None:
            raise InvalidInputError("this consumer has no group: name one when you make it")
        if self._groups is None:
            raise InvalidInputError("the store was opened for reading only: groups need more")
        return self._groups, self._config.group

    # Looking ----------------------------------------------------------------------------------

    def look(
        self, partitions: Collection[TopicPartition]
    ) -> Mapping[TopicPartition, OffsetAndMetadata | None]:
        """What the group has committed for partitions; nothing without a group."""
        if self._config.group is None or not partitions:
            return {}
        groups, group = self.in_group()
        return groups.committed(group, partitions)

    def note(self, partition: TopicPartition, offset: int) -> None:
        """This is what is committed for a partition that is now ours."""
        self._known[partition] = offset

    def forget(self, partitions: Iterable[TopicPartition]) -> None:
        """Others may commit for these partitions from now on."""
        for partition in partitions:
            self._known.pop(partition, None)

    # Committing -------------------------------------------------------------------------------

    def positions(self, membership: Membership | None, *, durable: bool = False) -> None:
        """Commit the positions in all partitions that are ours."""
        self.in_group()
        offsets = {key: OffsetAndMetadata(self._ours.position(key)) for key in self._ours}
        self._commit_what_is_there(offsets, membership, durable=durable)

    def auto(self, membership: Membership | None, *, failed: bool = False) -> None:
        """Commit the positions that have moved, where the consumer commits by itself; with
        ``failed`` without what the application got last, which it may not have dealt with. What is
        no longer this member's to commit is only told to the log of the program."""
        self._wait()
        config = self._config
        if config.group is None or not config.enable_auto_commit or self._groups is None:
            return
        offsets = {}
        for partition in self._ours:
            offset = self._ours.done(partition) if failed else self._ours.position(partition)
            if offset != self._known.get(partition):
                offsets[partition] = OffsetAndMetadata(offset)
        try:
            self._commit_what_is_there(offsets, membership)
        except (FencedMemberError, IllegalGenerationError) as error:
            # As in Kafka nobody asked for this commit. The next poll tells what was lost, and
            # whoever owns it now reads it once more.
            _log.warning("positions were not committed: %s", error)

    def auto_if_due(self, membership: Membership | None) -> None:
        """The same, once in ``auto_commit_interval_ms``."""
        if self._clock.monotonic() >= self._next:
            self.auto(membership)

    def _commit_what_is_there(
        self,
        offsets: Mapping[TopicPartition, OffsetAndMetadata],
        membership: Membership | None,
        *,
        durable: bool = False,
    ) -> None:
        """Commit without those partitions whose topic was deleted: that one is must not keep the
        positions in the others from being committed."""
        if membership is None:  # nobody else knows which topic it is that was read
            offsets = self._there(offsets)
        try:
            self.commit(offsets, membership, durable=durable)
        except (UnknownTopicError, IllegalGenerationError):
            there = self._there(offsets)
            if len(there) == len(offsets):
                raise
            self.commit(there, membership, durable=durable)

    def _there(
        self, offsets: Mapping[TopicPartition, OffsetAndMetadata]
    ) -> Mapping[TopicPartition, OffsetAndMetadata]:
        return {key: value for key, value in offsets.items() if self._is_there(key)}

    def _is_there(self, partition: TopicPartition) -> bool:
        """Whether the topic is still the one that is read; there may be a new one of its name."""
        try:
            return self._topics.log(partition) is self._ours.cursor(partition).log
        except UnknownTopicError:
            return False

    def commit(
        self,
        offsets: Mapping[TopicPartition, OffsetAndMetadata],
        membership: Membership | None,
        *,
        durable: bool = False,
    ) -> None:
        """Commit these offsets, all or none."""
        groups, group = self.in_group()
        known = {key: value for key, value in offsets.items() if value.offset != UNKNOWN}
        if known:
            groups.commit(group, known, membership=membership, durable=durable)
            self._known.update((key, value.offset) for key, value in known.items())
