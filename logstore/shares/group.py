"""A share group in a store handle, and what one of its consumers reads.

The partitions that a group reads are opened when somebody asks for them. A consumer takes from
those of the topics that it is subscribed to, in turns.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence

from logstore.clock import Clock
from logstore.definitions import TopicDefinition
from logstore.errors import (
    InvalidInputError,
    LogstoreError,
    UnknownGroupError,
    UnknownTopicError,
)
from logstore.log import PartitionLog
from logstore.queues.consumer_rows import load_queue_row
from logstore.queues.dead_spans import DEAD_LETTERS
from logstore.queues.ledger_rows import Head, Rows, Span
from logstore.queues.ledger_store import Changes, Checkpoint, Ledgers, LogLedger
from logstore.queues.reading import Reader, Verdicts
from logstore.queues.source import LedgeredLog, Source, Taken
from logstore.segments.files import File, Files
from logstore.shares.config import ShareGroupConfig, duration_ms
from logstore.shares.dead_letters import append_letters, letters_of
from logstore.shares.definitions import ShareGroupDefinition
from logstore.shares.moves import restart
from logstore.shares.partition import (
    SharePartition,
    pack_place,
    places_in,
    policy_of,
    unpack_place,
)
from logstore.shares.record import ShareRecord
from logstore.subscription import Subscription

__all__ = ["Selection", "ShareGroup"]

_log = logging.getLogger("logstore")

SIGNAL = "signal"
"""A file in the group's directory, which is written to when records have come back."""

OpenLog = Callable[[TopicDefinition, int], PartitionLog]


class ShareGroup(Source[SharePartition, ShareRecord]):
    """One group, for all its consumers in a store handle. Usable from many threads."""

    def __init__(
        self,
        definition: ShareGroupDefinition,
        *,
        directory: str,
        topics: Callable[[], Mapping[str, TopicDefinition]],
        open_log: OpenLog,
        is_defined: Callable[[uuid.UUID], bool],
        ledgers: Ledgers,
        files: Files,
        clock: Clock,
        read_only: bool,
    ) -> None:
        """``directory`` is the group's own, made when it is needed. ``open_log`` opens a
        partition's log, ``is_defined`` says whether the group of that id is still there."""
        config = ShareGroupConfig.from_options(definition.config)
        super().__init__(
            f"share group {definition.name!r}",
            definition.group_id.bytes,
            ledgers=ledgers,
            files=files,
            clock=clock,
            lease_ms=config.share_record_lock_duration_ms,
        )
        self.definition = definition
        self.config = config
        self._directory = directory
        self.topics = topics
        self._open_log = open_log
        self._is_defined = is_defined
        self._read_only = read_only
        self._mutex = threading.RLock()
        """Held to open partitions."""
        self._by_place: dict[bytes, SharePartition] = {}
        self._pruned: object = None
        """All topics, when it was looked which are left of those that are open."""
        self._signal: File | None = None

    def redefine(self, definition: ShareGroupDefinition) -> None:
        """Take in options that were altered."""
        with self._mutex:
            self.definition = definition
            self.config = ShareGroupConfig.from_options(definition.config)
            self.lease_ms = self.config.share_record_lock_duration_ms
            for partition in self._by_place.values():
                partition.configure(self.config)

    def check_defined(self) -> None:
        """Raise UnknownGroupError when it was deleted."""
        if not self._is_defined(self.definition.group_id):
            raise self.deleted_error()

    def deleted_error(self) -> LogstoreError:
        """The error of a group that was deleted."""
        return UnknownGroupError(f"{self.name} was deleted")

    # Partitions -------------------------------------------------------------------------------

    def levels(self) -> tuple[SharePartition, ...]:
        """The partitions that are open here, without those of deleted topics."""
        topics = self.topics()
        if topics is not self._pruned:
            self._prune({topic.topic_id for topic in topics.values()})
            self._pruned = topics
        return self._levels

    def _prune(self, there: set[uuid.UUID]) -> None:
        with self._mutex:
            for place in [one for one in self._by_place if unpack_place(one)[0] not in there]:
                del self._by_place[place]
            self._levels = tuple(self._by_place.values())

    def known(self) -> set[bytes]:
        """The places of all partitions that the group has ever read, as far as they are there."""
        listed = self.ledgers.read(lambda rows, _: load_queue_row(rows, self.id)).levels
        saved = (key[len(self.id) :] for key in self.ledgers.saved_keys(self.id))
        return {*places_in(listed), *saved}

    def opened(self, wanted: Sequence[tuple[TopicDefinition, int]]) -> list[SharePartition]:
        """Partitions, which the group begins to read if it does not yet. Raises UnknownTopicError
        for one of a topic that was deleted."""
        with self._mutex:
            places = [pack_place(topic.topic_id, number) for topic, number in wanted]
            new = [
                self._new(topic, number, place)
                for place, (topic, number) in zip(places, wanted, strict=True)
                if place not in self._by_place
            ]
            if new:
                if not self._read_only:
                    self._begin(new)
                for partition in new:
                    partition.configure(self.config)
                    self._by_place[partition.place] = partition
                self._levels = tuple(self._by_place.values())
            return [self._by_place[place] for place in places]

    def _new(self, topic: TopicDefinition, number: int, place: bytes) -> SharePartition:
        log = self._open_log(topic, number)
        ledger = LogLedger(
            self.ledgers,
            self.id + place,
            log,
            policy=policy_of(self.config),
            sizes=None,
            durable=True,
            gone=lambda: UnknownTopicError(
                f"{self.name} reads topic {topic.name!r} no more: one of the two was deleted"
            ),
        )
        return SharePartition(
            topic.name,
            number,
            place=place,
            log=log,
            ledger=ledger,
            row_type=ShareRecord,
            config=self.config,
        )

    def _begin(self, partitions: Sequence[SharePartition]) -> None:
        """Make the ledgers of partitions, all at once.

        Commit point: that of the checkpoints of those that are new to the group, behind that of the
        transaction in ``live``; a power cut in front of it leaves a group that has not begun.
        """
        known = self.known()
        familiar = {unpack_place(place)[0] for place in known}
        saved: dict[bytes, Checkpoint | None] = {}
        for one in partitions:
            if one.place in known:
                saved[one.place] = self.ledgers.saved(one.ledger.key)
            else:
                start = self._beginning(one.log, unpack_place(one.place)[0] in familiar)
                saved[one.place] = Checkpoint(0, start, 1, [])

        def begin(changes: Changes) -> None:
            for one in partitions:
                one.ledger.make(changes, saved[one.place])
                self._cut_back(changes, one)
            row = load_queue_row(changes.rows, self.id)
            listed = sorted({*places_in(row.levels), *(one.place for one in partitions)})
            if b"".join(listed) != row.levels:
                changes.rows.put(self.id, row._replace(levels=b"".join(listed)).pack())

        self.ledgers.change(begin)
        new = [one.ledger for one in partitions if one.place not in known]
        self.ledgers.checkpoint(new, tolerant=False)

    def _cut_back(self, changes: Changes, partition: SharePartition) -> None:
        """Where the log was cut off in front of the cursor (``truncate``, a repair), go back to its
        end: what comes there now is new."""
        ledger = changes.of(partition.ledger)
        cursor, log = ledger.head.cursor, partition.log
        end = log.log_end_offset
        if cursor <= end:
            return
        _log.warning(
            "%s: %s was cut off at %d, in front of %d", self.name, log.directory, end, cursor
        )
        restart(
            changes.rows,
            partition.ledger.key,
            ledger,
            end,
            left=ledger.outstanding(),
            log_start=log.log_start_offset,
        )

    def _beginning(self, log: PartitionLog, familiar: bool) -> int:
        """Where to begin in a partition; ``familiar``: the group knows its topic already, and it
        was added later."""
        reset = self.config.share_auto_offset_reset
        if familiar or reset == "earliest":
            return log.log_start_offset
        ago = duration_ms(reset)
        if ago is not None:
            found = log.offset_for_time(max(0, self.clock.now_ms() - ago))
            return log.log_end_offset if found is None else found[0]
        return log.log_end_offset

    def leased(self) -> tuple[LedgeredLog, ...]:
        """The partitions of which anybody may hold records."""
        return tuple(self._those(lambda head: head.unacked))

    def with_dead(self) -> Sequence[SharePartition]:
        """The partitions that have records on their way to the dead-letter topic."""
        return self._those(lambda head: head.dead)

    def _those(self, chosen: Callable[[Head], int]) -> Sequence[SharePartition]:
        def look(rows: Rows, _: Rows) -> list[bytes]:
            return [place for place, head in self._heads(rows) if chosen(head)]

        return self.there(self.ledgers.read(look))

    def there(self, places: Iterable[bytes]) -> list[SharePartition]:
        """The partitions at places, without those that were deleted."""
        by_id = {topic.topic_id: topic for topic in self.topics().values()}
        found = []
        for place in sorted(places):
            topic_id, number = unpack_place(place)
            topic = by_id.get(topic_id)
            if topic is not None and number < topic.partition_count:
                with contextlib.suppress(UnknownTopicError):
                    found += self.opened([(topic, number)])
        return found

    def _heads(self, rows: Rows) -> list[tuple[bytes, Head]]:
        heads = []
        for place in places_in(load_queue_row(rows, self.id).levels):
            data = rows.get(self.id + place)
            if data is not None:
                heads.append((place, Head.unpack(data)))
        return heads

    def needs_care(self) -> bool:
        """Whether somebody's lock has run out, or records are to be dead-lettered."""
        boottime = self.clock.boottime_ms()
        return self.ledgers.read(
            lambda rows, _: any(
                head.dead or head.earliest_deadline <= boottime for _, head in self._heads(rows)
            )
        )

    def dead_letter_topic(self) -> TopicDefinition | None:
        """Where dead letters go; None where that topic is not there, or none is named."""
        return self.topics().get(self.config.errors_deadletterqueue_topic_name)

    def dead_letter(self, level: SharePartition, span: Span, topic: TopicDefinition) -> None:
        """Append the records of a dead span to the dead-letter topic."""
        copies: list[ShareRecord] = []
        if self.config.errors_deadletterqueue_copy_record_enable:
            copies = self.records(level, span.first, span.length, None)
        log = self._open_log(topic, level.number % topic.partition_count)
        append_letters(log, letters_of(self.definition.name, level, span, copies))

    @property
    def lock_path(self) -> str:
        """The file that whoever moves dead letters holds a lock on."""
        self.directories()  # makes what it is in
        return os.path.join(self._directory, DEAD_LETTERS)

    def forget_topic(self, topic_id: uuid.UUID) -> None:
        """The topic was deleted: away with what is known of its partitions."""
        if not any(unpack_place(place)[0] == topic_id for place in self.known()):
            return

        def forget(changes: Changes) -> None:
            row = load_queue_row(changes.rows, self.id)
            kept = [p for p in places_in(row.levels) if unpack_place(p)[0] != topic_id]
            if b"".join(kept) != row.levels:
                changes.rows.put(self.id, row._replace(levels=b"".join(kept)).pack())

        if self.ledgers.exist():
            self.ledgers.change(forget)
        self.ledgers.forget(self.id + topic_id.bytes)

    # What a source is asked -------------------------------------------------------------------

    def check_there(self, changes: Changes) -> None:
        """Nothing: whether it was deleted is seen by its definition."""

    def read(self, taken: Taken, handle: object) -> tuple[list[ShareRecord], Verdicts | None]:
        """The records of a lease; all that the log still has may be delivered."""
        lease = taken.lease
        return self.records(taken.level, lease.first, lease.length, handle), None

    def records(
        self, level: LedgeredLog, first: int, length: int, handle: object
    ) -> list[ShareRecord]:
        """The records of ``length`` offsets from ``first`` on that the log still has."""
        reader: Reader[ShareRecord] = level.reader  # type: ignore[assignment]
        records = reader.read(first, length, handle)
        start = level.log.log_start_offset
        if first < start:  # of a batch at the start, those that were deleted may be there
            records = [record for record in records if record.offset >= start]
        return records

    def directories(self) -> tuple[str, ...]:
        """Where it is told of records that have come back."""
        if self._signal is None:
            self._open_signal()
        return (self._directory,)

    def signal(self) -> None:
        """Wake those who wait for records, in all processes."""
        with self._mutex:
            signal = self._signal or self._open_signal()
            signal.write_at(b"!", 0)

    def _open_signal(self) -> File:
        with self._mutex:
            if self._signal is None:
                self.files.make_directory(self._directory)
                path = os.path.join(self._directory, SIGNAL)
                self._signal = self.files.open(path, write=True, create=True)
            return self._signal

    # Life -------------------------------------------------------------------------------------

    def close(self) -> None:
        """Let go of the logs, which their opener closes."""
        with self._mutex:
            self._closed = True
            signal, self._signal = self._signal, None
            if signal is not None:
                signal.close()
            self._by_place.clear()
            self._levels = ()


class Selection(Source[SharePartition, ShareRecord]):
    """What one consumer reads of a group: the partitions of the topics that it is subscribed to.
    For one thread at a time."""

    def __init__(self, group: ShareGroup, subscription: Subscription) -> None:
        super().__init__(
            group.name,
            group.id,
            ledgers=group.ledgers,
            files=group.files,
            clock=group.clock,
            lease_ms=group.lease_ms,
        )
        self._group = group
        self._subscription = subscription
        self.definitions: object = None
        """All topics, when the partitions were looked up last."""
        self._all: tuple[SharePartition, ...] = ()
        """In order; ``_levels`` begin with the one whose turn it is."""

    def levels(self) -> tuple[SharePartition, ...]:
        """The partitions of the topics, new ones included. Raises UnknownGroupError when the group
        was deleted, UnknownTopicError when no topic that was named is left."""
        definitions = self._group.topics()
        if definitions is not self.definitions:
            self._group.check_defined()
            names = sorted(self._subscription.topics() & definitions.keys())
            if not names and not self._subscription.by_pattern:
                missing = ", ".join(map(repr, sorted(self._subscription.missing())))
                raise UnknownTopicError(f"{self.name} has nothing to read: {missing} deleted")
            wanted = [
                (definitions[name], number)
                for name in names
                for number in range(definitions[name].partition_count)
            ]
            self._all = self._levels = tuple(self._group.opened(wanted))
            self._seen = (-1, *self._seen[1:])  # of new ones nothing was seen
            self.definitions = definitions
        return self._levels

    def has_ready(self) -> bool:
        """Whether there is anything to take, for all one knows at little cost."""
        for level in self._levels:
            level.look_ahead()
        return super().has_ready()

    def take(
        self,
        changes: Changes,
        most: int,
        *,
        session: bytes,
        fair: bool = True,
        only: LedgeredLog | None = None,
    ) -> list[Taken]:
        """Acquire up to ``most`` records; the next time another partition comes first."""
        self.lease_ms = self._group.lease_ms
        taken = super().take(changes, most, session=session, fair=fair, only=only)
        self._levels = self._levels[1:] + self._levels[:1]
        return taken

    def check_renewal(self) -> None:
        """Raise InvalidInputError where the group does not allow it."""
        if not self._group.config.share_renew_acknowledge_enable:
            raise InvalidInputError(
                f"{self.name} allows no renewals (share_renew_acknowledge_enable=False)"
            )

    def topics(self) -> frozenset[str]:
        """The topics that it reads."""
        return self._subscription.topics()

    def check_there(self, changes: Changes) -> None:
        """Raise UnknownTopicError where a topic, or the group, was deleted."""
        for level in self._levels:
            changes.of(level.ledger)

    def read(self, taken: Taken, handle: object) -> tuple[list[ShareRecord], Verdicts | None]:
        """The records of a lease."""
        return self._group.read(taken, handle)

    def directories(self) -> tuple[str, ...]:
        """Where something happens when there is more to take."""
        self.levels()
        logs = (level.log.directory for level in self._all)
        return (*self._group.directories(), *logs)

    def signal(self) -> None:
        """Wake those who wait for records, in all processes."""
        self._group.signal()

    def deleted_error(self) -> LogstoreError:
        """The error of a group that was deleted."""
        return self._group.deleted_error()

    def needs_care(self) -> bool:
        """That is the group's business."""
        return False
