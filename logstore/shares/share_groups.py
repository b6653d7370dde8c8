"""The share groups of a store: the face that ``Store.share_groups`` shows.

On disk: a definition, ``share-group/<id>``, in ``__metadata``; ledgers in ``live`` and their
checkpoints in ``meta``, as those of queues; and ``share-groups/<id>/``, where whoever waits for
records is woken.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from functools import partial
from typing import Any

from logstore.definitions import TopicDefinition
from logstore.errors import (
    GroupNotEmptyError,
    InvalidInputError,
    LogstoreError,
    PreconditionFailedError,
    UnknownGroupError,
    UnknownTopicError,
)
from logstore.foundation import Foundation
from logstore.groups.records import group_id as check_group_name
from logstore.groups.resets import OffsetChange, OffsetReset
from logstore.log import PartitionLog
from logstore.metadata import Change, View
from logstore.partitions import OffsetAndMetadata, TopicPartition
from logstore.queues.consumer_rows import ConsumerRow, consumers_of
from logstore.queues.consumption import Consumption
from logstore.queues.ledger_rows import DEAD
from logstore.queues.ledger_store import Changes, Checkpoint, Ledgers, LedgerTables
from logstore.shares.config import ShareConsumerConfig, ShareGroupConfig
from logstore.shares.consumer import ShareConsumer
from logstore.shares.definitions import (
    SHARE_GROUP_PREFIX,
    ShareGroupDefinition,
    share_group_fields,
    share_group_from,
    share_group_key,
)
from logstore.shares.descriptions import (
    ShareGroupDescription,
    ShareGroupListing,
    ShareMemberDescription,
    describe_partition,
)
from logstore.shares.group import Selection, ShareGroup
from logstore.shares.moves import restart as restart_at
from logstore.shares.partition import SharePartition, unpack_place
from logstore.shares.upkeep import ShareUpkeep
from logstore.structure import remove_tree
from logstore.subscription import Subscription, Topics

__all__ = ["SHARE_GROUPS", "ShareGroups"]

_log = logging.getLogger("logstore")

SHARE_GROUPS = "share-groups"
"""The directory of the groups' own, in the store's."""
_TABLES = LedgerTables("share-ledgers", "share-consumers", "share-checkpoints")
_GROUP_OPTIONS = frozenset(field.name for field in fields(ShareGroupConfig))


class ShareGroups:
    """The share groups of an open store. Usable from many threads."""

    def __init__(self, base: Foundation) -> None:
        self._base = base
        self._ledgers = Ledgers(base.live, base.metadata, tables=_TABLES, cut=self._cut)
        self._mutex = threading.Lock()
        self._groups: dict[uuid.UUID, ShareGroup] = {}
        """Those that are in use here."""
        self._consumption: Consumption[ShareGroup] = Consumption(
            base.path,
            ledgers=self._ledgers,
            sessions=base.sessions,
            clock=base.clock,
            in_use=self._in_use,
            find=self._find,
            is_over=lambda *_: False,
            delete=lambda _: None,
            upkeep=ShareUpkeep,
        )

    def _cut(self, key: bytes, saved: Checkpoint) -> Checkpoint:
        """Cut a checkpoint back to its log's end, before anybody appends to it: or a group would
        skip records that nobody has read."""
        topic_id, number = unpack_place(key[16:])
        for topic in self._base.topics.definitions().values():
            if topic.topic_id != topic_id:
                continue
            try:
                lent = self._base.topics.lend(self._base.topics.get(topic.name), number)
                if lent is None:
                    continue
                with lent as log:
                    cut = saved.cut(log.log_end_offset)
            except (LogstoreError, OSError) as error:
                # A log that cannot be opened cannot be appended to either, until it is repaired.
                _log.warning("a share group could not be compared with its log: %s", error)
                return saved
            if cut != saved:
                _log.warning(
                    "%s: a share group at %d was cut back to the log's end, %d",
                    log.directory,
                    saved.cursor,
                    cut.cursor,
                )
            return cut
        return saved

    # Definitions ------------------------------------------------------------------------------

    def _definitions(self) -> dict[str, ShareGroupDefinition]:
        """All groups, by name."""
        found = self._base.metadata.items(SHARE_GROUP_PREFIX)
        groups = (share_group_from(key, one, self._base.path) for key, one in found.items())
        return {group.name: group for group in groups}

    def _definition(self, name: str) -> ShareGroupDefinition:
        check_group_name(name)
        found = self._definitions().get(name)
        if found is None:
            raise UnknownGroupError(f"there is no share group called {name!r} in {self._base.path}")
        return found

    def _is_defined(self, group_id: uuid.UUID) -> bool:
        return self._base.metadata.get(share_group_key(group_id)) is not None

    def _declared(self, name: str, options: Mapping[str, Any]) -> ShareGroupDefinition:
        """The group of that name, defined unless it is there. Raises PreconditionFailedError where
        it is there with other options."""
        given = ShareGroupConfig.from_options(options)
        self._check_dead_letters(given)
        new = ShareGroupDefinition(uuid.uuid4(), name, dict(options))

        def define(view: View) -> list[Change]:
            if _by_name(view, name, self._base.path) is not None:
                return []
            return [(share_group_key(new.group_id), share_group_fields(new))]

        found = self._definitions().get(name)
        if found is None:
            self._base.metadata.update(define)
            found = self._definition(name)
        known = ShareGroupConfig.from_options(found.config)
        for key in options:
            if getattr(known, key) != getattr(given, key):
                raise PreconditionFailedError(
                    f"share group {name!r} has {key}={getattr(known, key)!r}, and not "
                    f"{getattr(given, key)!r}; alter it with Store.share_groups.alter"
                )
        return found

    def alter(self, name: str, **options: Any) -> None:
        """Change the options of a group, or define it, with these (``ShareGroupConfig``). Consumers
        in other processes go on by them when they next look for topics or records.

        Raises InvalidInputError for an unknown option or a value out of bounds, UnknownTopicError
        for a dead-letter topic that is not there. Commit point: the group's definition in
        ``__metadata``.
        """
        self._base.check_writable()
        check_group_name(name)
        self._check_dead_letters(ShareGroupConfig.from_options(options))

        def alter(view: View) -> list[Change]:
            before = _by_name(view, name, self._base.path)
            after = ShareGroupDefinition(uuid.uuid4(), name, options)
            if before is not None:
                after = before._replace(config={**before.config, **options})
            return [(share_group_key(after.group_id), share_group_fields(after))]

        self._base.metadata.update(alter)
        self._refresh()

    def _check_dead_letters(self, config: ShareGroupConfig) -> None:
        """Raise UnknownTopicError, or InvalidInputError, for a topic that dead letters cannot go
        to."""
        name = config.errors_deadletterqueue_topic_name
        if name and self._base.topics.get(name).config.compacts:
            raise InvalidInputError(
                f"errors_deadletterqueue_topic_name={name!r} is a compacted topic: it keeps no "
                "records without a key, and of others the last one of each alone"
            )

    def _refresh(self) -> None:
        """Take in what anybody altered or deleted, for the groups in use here."""
        by_id = {one.group_id: one for one in self._definitions().values()}
        with self._mutex:
            groups = list(self._groups.values())
        for group in groups:
            definition = by_id.get(group.definition.group_id)
            if definition is None:
                with self._mutex:
                    self._groups.pop(group.definition.group_id, None)
                group.close()
            elif definition != group.definition:
                group.redefine(definition)

    # Groups in use ----------------------------------------------------------------------------

    def _open(self, definition: ShareGroupDefinition) -> ShareGroup:
        with self._mutex:
            group = self._groups.get(definition.group_id)
            if group is None:
                group = ShareGroup(
                    definition,
                    directory=self._directory(definition.group_id),
                    topics=self._base.topics.definitions,
                    open_log=self._open_log,
                    is_defined=self._is_defined,
                    ledgers=self._ledgers,
                    files=self._base.files,
                    clock=self._base.clock,
                    read_only=self._base.read_only,
                )
                group.on_work = partial(self._consumption.due, group, 0)
                self._groups[definition.group_id] = group
            return group

    def _open_log(self, topic: TopicDefinition, number: int) -> PartitionLog:
        return self._base.topics.get(topic.name).partition(number)

    def _directory(self, group_id: uuid.UUID) -> str:
        return os.path.join(self._base.path, SHARE_GROUPS, group_id.hex)

    def _in_use(self) -> list[ShareGroup]:
        self._refresh()
        with self._mutex:
            return list(self._groups.values())

    def _find(self, group_id: bytes) -> ShareGroup | None:
        for definition in self._definitions().values():
            if definition.group_id.bytes == group_id:
                return self._open(definition)
        return None

    # Consuming --------------------------------------------------------------------------------

    def consumer(
        self, topics: Iterable[str], pattern: Any, options: dict[str, Any]
    ) -> ShareConsumer:
        """See ``Store.share_consumer``."""
        self._base.check_writable()
        for_group = {key: options.pop(key) for key in list(options) if key in _GROUP_OPTIONS}
        config = ShareConsumerConfig.from_options(options)
        subscription = Subscription(Topics(self._base.topics), topics, pattern, None)
        for internal in subscription.missing():
            raise InvalidInputError(
                f"{internal!r} is the store's own topic: it is read without a group"
            )
        group = self._open(self._declared(config.group, for_group))
        dead_letters = group.config.errors_deadletterqueue_topic_name
        if dead_letters and dead_letters in subscription.topics() and pattern is None:
            raise InvalidInputError(
                f"{group.name} has its dead letters in {dead_letters!r}, and does not read them: "
                "another group may"
            )
        selection = Selection(group, subscription)
        selection.on_work = group.on_work
        member_id = f"{config.client_id or 'consumer'}-{uuid.uuid4().hex[:8]}"
        registration = self._consumption.register(
            selection, prefetch=config.max_poll_records, tag=member_id
        )
        return ShareConsumer(
            registration,
            selection,
            config,
            checkpoint=lambda: group.checkpoint(tolerant=False),
            abandon=self._consumption.alert,
        )

    # Looking ----------------------------------------------------------------------------------

    def list(self) -> Sequence[ShareGroupListing]:
        """All share groups, by name."""
        self._base.check_usable()
        return [
            ShareGroupListing(name, _state(members), len(members))
            for name, definition in sorted(self._definitions().items())
            for members in [self._members(definition)]
        ]

    def _members(self, definition: ShareGroupDefinition) -> Sequence[ConsumerRow]:
        """Those that live."""
        prefix = definition.group_id.bytes
        if not self._ledgers.exist():
            return []
        rows = self._ledgers.read(lambda _, consumers: [*consumers_of(consumers, prefix)])
        return [row for row in rows if self._consumption.is_alive(row.session)]

    def describe(self, name: str) -> ShareGroupDescription:
        """A group's options, its consumers, and how far it has come. Raises UnknownGroupError."""
        self._base.check_usable()
        definition = self._definition(name)
        members = self._members(definition)
        config = ShareGroupConfig.from_options(definition.config)
        partitions = map(describe_partition, self._partitions(definition))
        return ShareGroupDescription(
            name,
            _state(members),
            {key: getattr(config, key) for key in sorted(_GROUP_OPTIONS)},
            [ShareMemberDescription(m.tag, m.session.hex(), m.prefetch) for m in members],
            sorted(partitions),
        )

    def _partitions(self, definition: ShareGroupDefinition) -> Sequence[SharePartition]:
        """The partitions that it has ever read."""
        group = self._open(definition)
        return group.there(group.known())

    # Changing ---------------------------------------------------------------------------------

    def delete(self, name: str) -> None:
        """Delete a group, and all that is known of what it has read. Raises GroupNotEmptyError
        while it has consumers, UnknownGroupError.

        Commit point: the removal of its definition in ``__metadata``. What a crash behind it leaves
        is taken away by maintenance.
        """
        self._base.check_writable()
        definition = self._definition(name)
        self._alone(definition, lambda _: None)
        self._base.metadata.update(lambda view: [(share_group_key(definition.group_id), None)])
        self._refresh()
        self._take_away(definition.group_id)

    def _take_away(self, group_id: uuid.UUID) -> None:
        self._ledgers.forget(group_id.bytes)
        directory = self._directory(group_id)
        if self._base.files.is_directory(directory):
            remove_tree(self._base.files, directory)

    def _alone(self, definition: ShareGroupDefinition, action: Callable[[Changes], None]) -> None:
        """Do something to a group that has no consumers, in one transaction."""
        self._consumption.bury()

        def act(changes: Changes) -> None:
            members = [*consumers_of(changes.consumers, definition.group_id.bytes)]
            if members:
                names = ", ".join(sorted(member.tag for member in members))
                raise GroupNotEmptyError(
                    f"share group {definition.name!r} has consumers ({names}): stop them first"
                )
            action(changes)

        self._ledgers.change(act)

    def reset_offsets(
        self,
        name: str,
        reset: OffsetReset,
        *,
        partitions: Iterable[TopicPartition] | None = None,
        dry_run: bool = False,
    ) -> dict[TopicPartition, OffsetChange]:
        """Move a group's start offset in ``partitions`` (None: in all that it has read), durably,
        and return what it was and is: all from there on is delivered, as if it never had been. With
        ``dry_run`` change nothing.

        Raises GroupNotEmptyError while the group has consumers (a dry run is not refused),
        UnknownGroupError, UnknownTopicError.
        """
        self._base.check_usable()
        definition = self._definition(name)
        group = self._open(definition)
        found = self._partitions(definition)
        if partitions is not None:
            found = self._asked_for(group, [*partitions])
        changes = {}
        for one in found:
            before = OffsetAndMetadata(describe_partition(one).start_offset)
            place = TopicPartition(one.topic, one.number)
            changes[place] = OffsetChange(before, reset.offset_in(one.log, before))
        if dry_run:
            return changes
        self._base.check_writable()

        def restart(transaction: Changes) -> None:
            for one in found:
                after = changes[TopicPartition(one.topic, one.number)].after
                ledger = transaction.of(one.ledger)
                # Dead letters that were not written yet are, unless their records come again.
                restart_at(
                    transaction.rows,
                    one.ledger.key,
                    ledger,
                    after,
                    left=list(ledger.spans(DEAD)),
                    log_start=one.log.log_start_offset,
                )

        self._alone(definition, restart)
        self._ledgers.checkpoint([one.ledger for one in found], tolerant=False)
        return changes

    def _asked_for(
        self, group: ShareGroup, places: Sequence[TopicPartition]
    ) -> Sequence[SharePartition]:
        definitions = self._base.topics.definitions()
        for topic, number in places:
            if topic not in definitions or not 0 <= number < definitions[topic].partition_count:
                raise UnknownTopicError(
                    f"there is no partition {number} of a topic called {topic!r} in "
                    f"{self._base.path}"
                )
        return group.opened([(definitions[topic], number) for topic, number in sorted(set(places))])

    def forget_topic(self, topic_id: uuid.UUID) -> None:
        """Remove what all groups know of a topic that was deleted."""
        for definition in self._definitions().values():
            self._open(definition).forget_topic(topic_id)

    # Upkeep -----------------------------------------------------------------------------------

    def checkpoint(self) -> None:
        """Put what the groups in use here have come to on stable storage."""
        self._consumption.checkpoint()

    def maintain(self) -> None:
        """What has to be done from time to time, also for groups that nobody uses here."""
        self._consumption.sweep([self._open(one) for one in self._definitions().values()])
        for group_id in self._orphans():
            self._take_away(group_id)

    def _orphans(self) -> set[uuid.UUID]:
        """Groups that were deleted by somebody who was killed before he was done."""
        there = {one.group_id.bytes for one in self._definitions().values()}
        found = {key[:16] for key in self._ledgers.saved_keys(b"")} - there
        return {uuid.UUID(bytes=one) for one in found}

    def close(self) -> None:
        """Close all consumers, which releases what they have not acknowledged. Logs have to be open
        still."""
        with contextlib.ExitStack() as stack:
            for group in list(self._groups.values()):
                stack.callback(group.close)
            stack.callback(self._consumption.close)


def _by_name(view: View, name: str, store: str) -> ShareGroupDefinition | None:
    for key, found in view.items(SHARE_GROUP_PREFIX).items():
        group = share_group_from(key, found, store)
        if group.name == name:
            return group
    return None


def _state(members: Sequence[ConsumerRow]) -> str:
    return "Stable" if members else "Empty"
