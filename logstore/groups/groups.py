"""The consumer groups of a store: the face that ``Store.groups`` shows."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial

from logstore.errors import (
    FencedMemberError,
    GroupNotEmptyError,
    IllegalGenerationError,
    InvalidInputError,
    UnknownGroupError,
    UnknownTopicError,
)
from logstore.foundation import Foundation
from logstore.groups import state
from logstore.groups.coordinator import Coordinator
from logstore.groups.descriptions import (
    GroupDescription,
    GroupListing,
    OffsetDescription,
    describe_members,
    state_label,
)
from logstore.groups.expiry import Expiry
from logstore.groups.heartbeats import Heartbeats
from logstore.groups.membership import Membership, MembershipOptions
from logstore.groups.offsets import Offsets, group_from_name, restore_offsets
from logstore.groups.records import EMPTY_SINCE, GROUP_NAMES, OffsetKey, group_id
from logstore.groups.resets import OffsetChange, OffsetReset
from logstore.groups.state import Group, Refusal
from logstore.log import PartitionLog
from logstore.metadata import METADATA_TOPIC
from logstore.partitions import OffsetAndMetadata, TopicPartition
from logstore.tables import Tables

__all__ = ["Groups"]

_EXPIRY_SECONDS = 600.0
"""How often it is looked for expired offsets; Kafka's ``offsets.retention.check.interval.ms``."""


class Groups:
    """The groups of an open store. Usable from many threads."""

    def __init__(self, base: Foundation) -> None:
        self._base = base
        live, metadata, topics, clock = base.live, base.metadata, base.topics, base.clock
        self._names: tuple[object, Mapping[uuid.UUID, str]] = (None, {})
        """The topics' names by their ids, and the definitions that they were made from."""
        live.restorers.append(partial(restore_offsets, metadata, self._lend))
        self._coordinator = Coordinator(
            live, base.sessions, definitions=topics.definitions, clock=clock
        )
        self._offsets = Offsets(live, metadata, lend=self._lend, clock=clock)
        self._mutex = threading.Lock()
        self._memberships: list[Membership] = []
        self._committed = False
        """Whether this handle has committed anything since its last checkpoint."""
        self._expiry = Expiry(
            self._coordinator,
            self._offsets,
            metadata,
            living=self._living,
            topics=self._names_by_id,
            clock=clock,
        )
        self._next_expiry = 0.0
        self._heartbeats = Heartbeats(
            self._coordinator, self._current, self._checkpoint_own, name=base.path
        )

    # Members ----------------------------------------------------------------------------------

    def join(
        self,
        group: str,
        *,
        topics: Callable[[], Collection[str]],
        assignor: str | Sequence[str] = "range",
        session_timeout_ms: int = 45_000,
        heartbeat_interval_ms: int = 3_000,
        max_poll_interval_ms: int = 300_000,
        group_instance_id: str | None = None,
        client_id: str = "",
    ) -> Membership:
        """A membership in a group; the member joins at its first ``poll``.

        ``topics`` says what it wants, and is asked again when topics have changed. ``assignor`` may
        be several, the best liked first. Raises InvalidInputError for what makes no sense.
        """
        self._base.check_writable()
        group_id(group)
        options = MembershipOptions(
            (assignor,) if isinstance(assignor, str) else tuple(assignor),
            session_timeout_ms,
            heartbeat_interval_ms,
            max_poll_interval_ms,
            group_instance_id,
            client_id,
        )
        options.check()
        membership = Membership(
            self._coordinator,
            group,
            topics,
            options,
            joining=self._expiry.joining,
            forget=self._forget_membership,
        )
        with self._mutex:
            self._memberships.append(membership)
        self._heartbeats.start()
        return membership

    def _forget_membership(self, membership: Membership) -> None:
        with self._mutex:
            if membership in self._memberships:
                self._memberships.remove(membership)

    def _current(self) -> list[Membership]:
        with self._mutex:
            return list(self._memberships)

    # Offsets ----------------------------------------------------------------------------------

    def committed(
        self, group: str, partitions: Iterable[TopicPartition]
    ) -> dict[TopicPartition, OffsetAndMetadata | None]:
        """What the group has committed for each of these partitions; None: nothing."""
        self._base.check_usable()
        group_key = group_id(group)
        definitions = self._base.topics.definitions()
        found: dict[TopicPartition, OffsetAndMetadata | None] = dict.fromkeys(partitions)
        keys = {
            OffsetKey(group_key, definitions[place.topic].topic_id, place.partition): place
            for place in found
            if place.topic in definitions
        }
        if keys:
            for key, value in self._offsets.get(keys).items():
                found[keys[key]] = OffsetAndMetadata(value.offset, value.metadata)
        return found

    def commit(
        self,
        group: str,
        offsets: Mapping[TopicPartition, OffsetAndMetadata],
        *,
        membership: Membership | None = None,
        durable: bool = False,
    ) -> None:
        """Commit offsets, all or none; after it they survive the end of the process, with
        ``durable`` a power cut.

        Raises FencedMemberError when ``membership`` is none any more, IllegalGenerationError for a
        partition that it does not own; without a membership GroupNotEmptyError while the group has
        members. UnknownTopicError, InvalidInputError.
        """
        self._base.check_writable()
        keys = self._keys(group, offsets)
        member_id, generation = "", -1
        if membership is None:
            self._coordinator.bury(group)
        else:
            member_id, generation = membership.member_id, membership.generation
            if membership.group != group:
                raise InvalidInputError(f"the member is one of {membership.group}, not of {group}")
            for place, key in keys.items():
                held = membership.topic_id_of(place)
                if member_id and held is not None and held != key.topic_id.hex:
                    raise IllegalGenerationError(
                        f"group {group}: topic {place.topic} is another one than the member owns"
                    )
        refusal: Exception | None = None
        with self._base.live.transaction(write=True) as tables:
            after, _ = self._coordinator.run_in(tables, group, state.Expire())
            if membership is not None:
                reason = state.check_commit(after, member_id, generation, offsets)
                refusal = reason and _refused(after, member_id, reason)
            elif after.members:
                refusal = _not_empty(after)
            if refusal is None:
                for place, offset in offsets.items():
                    self._offsets.put(tables, keys[place], offset)
        if refusal is not None:
            raise refusal
        self._committed = True
        self._heartbeats.start()
        if durable:
            self._offsets.checkpoint(keys.values())

    def _keys(
        self, group: str, places: Iterable[TopicPartition]
    ) -> dict[TopicPartition, OffsetKey]:
        group_key = group_id(group)
        definitions = self._base.topics.definitions()
        keys = {}
        for place in places:
            if place.topic == METADATA_TOPIC.name:
                raise InvalidInputError(
                    f"{place.topic!r} is the store's own topic: groups have no offsets in it"
                )
            definition = definitions.get(place.topic)
            if definition is None or not 0 <= place.partition < definition.partition_count:
                raise UnknownTopicError(
                    f"there is no partition {place.partition} of a topic called {place.topic!r} "
                    f"in {self._base.path}"
                )
            keys[place] = OffsetKey(group_key, definition.topic_id, place.partition)
        return keys

    def checkpoint(self) -> None:
        """Put what anybody has committed since the last time on stable storage."""
        self._base.check_writable()
        if self._base.live.exists():
            self._committed = False
            self._offsets.checkpoint()

    def _checkpoint_own(self) -> None:
        if self._committed:
            self.checkpoint()

    def delete_offsets(self, group: str, partitions: Iterable[TopicPartition]) -> None:
        """Remove what a group has committed for partitions. Raises GroupNotEmptyError while the
        group has members, UnknownGroupError, UnknownTopicError."""
        self._base.check_writable()
        keys = self._keys(group, partitions).values()
        self._alone(group, lambda tables: self._remove(tables, keys))
        self._offsets.checkpoint(keys)

    def _remove(self, tables: Tables, keys: Iterable[OffsetKey]) -> None:
        for key in keys:
            self._offsets.remove(tables, key)

    def reset_offsets(
        self,
        group: str,
        reset: OffsetReset,
        *,
        partitions: Iterable[TopicPartition] | None = None,
        dry_run: bool = False,
    ) -> dict[TopicPartition, OffsetChange]:
        """Move what a group has committed for ``partitions`` (None: for all that it has committed
        anything for), durably, and return what was and what is; with ``dry_run`` change nothing.

        New offsets lie within what each log holds. Raises GroupNotEmptyError while the group has
        members (a dry run is not refused), UnknownTopicError.
        """
        self._base.check_usable()
        places = self._committed_places(group) if partitions is None else list(partitions)
        if partitions is not None:
            self._keys(group, places)
        before = self.committed(group, places)
        changes = {}
        for place in sorted(set(places)):
            lent = self._lend_log(place)
            if lent is None:
                continue
            with lent as log:
                changes[place] = OffsetChange(before[place], reset.offset_in(log, before[place]))
        if dry_run:
            return changes
        self._base.check_writable()
        keys = self._keys(group, changes)

        def move(tables: Tables) -> None:
            for place, change in changes.items():
                self._offsets.put(tables, keys[place], OffsetAndMetadata(change.after))

        if changes:
            self._alone(group, move, must_exist=False)
            self._offsets.checkpoint(keys.values())
        return changes

    def _committed_places(self, group: str) -> list[TopicPartition]:
        names = self._names_by_id()
        return sorted(
            TopicPartition(names[key.topic_id], key.partition)
            for key in self._offsets.of_group(group_id(group))
            if key.topic_id in names
        )

    def forget_topic(self, topic_id: uuid.UUID) -> None:
        """Remove what all groups have committed for a topic that was deleted."""
        if not self._base.live.exists():
            return
        keys = self._offsets.of_topic(topic_id)
        if keys:
            with self._base.live.transaction(write=True) as tables:
                self._remove(tables, keys)
            self._offsets.checkpoint(keys)

    def expire_offsets(self) -> None:
        """Remove what groups have committed and ``offsets_retention_minutes`` have passed over (see
        ``logstore.groups.expiry``); maintenance does it every ten minutes."""
        self._base.check_writable()
        if self._base.live.exists():
            self._expiry.run(self._base.topics.settings.offsets_retention_minutes * 60_000)

    # Groups -----------------------------------------------------------------------------------

    def list(self) -> Sequence[GroupListing]:
        """All groups, by name."""
        self._base.check_usable()
        if not self._base.live.exists():
            return []
        if not self._base.live.usable():
            return [GroupListing(name, "Empty", 0) for name in self._names_in_checkpoint()]
        listings = []
        for name in self._coordinator.names():
            group = self._living(name)
            listings.append(GroupListing(name, state_label(group), len(group.members)))
        return listings

    def _names_in_checkpoint(self) -> Sequence[str]:
        with self._base.metadata.transaction() as meta:
            return sorted(group_from_name(row).name for _, row in meta.items(GROUP_NAMES))

    def _living(self, name: str) -> Group:
        """A group without those members that are dead already."""
        group = self._coordinator.look_closely(name)
        expire = state.Expire(self._coordinator.dead_sessions(group))
        return state.apply(group, expire, self._coordinator.clock.boottime_ms())[0]

    def describe(self, group: str) -> GroupDescription:
        """A group's members, and how far it has come. Raises UnknownGroupError."""
        self._base.check_usable()
        self._check_exists(group)
        living = self._living(group)
        owners = {
            place: member.member_id for member in living.members.values() for place in member.owned
        }
        places = {*self._committed_places(group), *owners}
        committed = self.committed(group, places)
        offsets = []
        for place in sorted(places):
            lent = self._lend_log(place)
            ends = (0, 0)
            if lent is not None:
                with lent as log:
                    ends = log.log_start_offset, log.log_end_offset
            offsets.append(
                OffsetDescription(*place, committed[place], *ends, owners.get(place, ""))
            )
        return GroupDescription(
            group,
            state_label(living),
            living.assignor if living.members else "",
            living.generation,
            describe_members(living),
            offsets,
        )

    def delete(self, group: str) -> None:
        """Remove a group and what it has committed. Raises GroupNotEmptyError while it has members,
        UnknownGroupError."""
        self._base.check_writable()
        keys = list(self._offsets.of_group(group_id(group)))

        def delete(tables: Tables) -> None:
            self._remove(tables, keys)
            self._coordinator.delete(tables, group)

        self._alone(group, delete)
        if keys:
            self._offsets.checkpoint(keys)
        with self._base.metadata.transaction(write=True) as meta:
            meta.delete(GROUP_NAMES, group_id(group))
            meta.delete(EMPTY_SINCE, group_id(group))

    def _alone(
        self, group: str, action: Callable[[Tables], None], *, must_exist: bool = True
    ) -> None:
        """Do something to a group that has no members, and gets none meanwhile."""
        if must_exist:
            self._check_exists(group)
        self._coordinator.bury(group)
        with self._base.live.transaction(write=True) as tables:
            after, _ = self._coordinator.run_in(tables, group, state.Expire())
            if not after.members:
                action(tables)
        if after.members:
            raise _not_empty(after)

    def _check_exists(self, group: str) -> None:
        key = group_id(group)
        exists = self._base.live.exists() and (
            self._coordinator.look(group).number > 0 or bool(self._offsets.of_group(key))
        )
        if not exists:
            raise UnknownGroupError(f"there is no group called {group!r} in {self._base.path}")

    # Logs and life ----------------------------------------------------------------------------

    def _lend(
        self, topic_id: uuid.UUID, number: int
    ) -> AbstractContextManager[PartitionLog] | None:
        name = self._names_by_id().get(topic_id)
        return None if name is None else self._lend_log(TopicPartition(name, number))

    def _names_by_id(self) -> Mapping[uuid.UUID, str]:
        definitions = self._base.topics.definitions()
        source, names = self._names
        if source is not definitions:
            names = {definition.topic_id: name for name, definition in definitions.items()}
            self._names = definitions, names
        return names

    def _lend_log(self, place: TopicPartition) -> AbstractContextManager[PartitionLog] | None:
        definition = self._base.topics.definitions().get(place.topic)
        if definition is None or not 0 <= place.partition < definition.partition_count:
            return None
        return self._base.topics.lend(self._base.topics.get(place.topic), place.partition)

    def maintain(self) -> None:
        """What has to be done from time to time: a checkpoint of what anybody has committed, and
        away with what has expired."""
        self.checkpoint()
        if self._base.clock.monotonic() >= self._next_expiry:
            self._next_expiry = self._base.clock.monotonic() + _EXPIRY_SECONDS
            self.expire_offsets()

    def close(self) -> None:
        """End all memberships, and take a checkpoint of what was committed here. Logs have to be
        open still."""
        self._heartbeats.stop()
        for membership in self._current():
            membership.close()
        self._checkpoint_own()


def _refused(group: Group, member_id: str, reason: Refusal) -> Exception:
    kind = FencedMemberError if reason is Refusal.UNKNOWN_MEMBER else IllegalGenerationError
    return kind(f"group {group.name}: member {member_id or '-'} may not commit: {reason.value}")


def _not_empty(group: Group) -> GroupNotEmptyError:
    return GroupNotEmptyError(
        f"group {group.name} has members ({', '.join(sorted(group.members))}): stop them first"
    )
