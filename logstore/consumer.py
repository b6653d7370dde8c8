"""Reading topics: subscriptions, positions, and the offsets that a group commits.

A consumer is for one thread at a time; only :meth:`Consumer.close` may come from another one, and
ends whatever wait the consumer is in.

Its *position* in a partition is the offset of the next record that the application gets. What it
commits are positions: by hand, or every ``auto_commit_interval_ms`` when the application comes for
more, which says that it is done with what it got before. Records in whose processing an error left
the ``with`` block are not committed, and are read again.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterable, Iterator, Mapping
from types import TracebackType

from logstore.assigned import AssignedPartitions
from logstore.beginnings import Beginnings
from logstore.clock import Clock
from logstore.committing import Commits
from logstore.consumer_config import ConsumerConfig
from logstore.errors import (
    ClosedError,
    ForkedError,
    InvalidInputError,
    LogstoreError,
    UnknownTopicError,
)
from logstore.fetcher import Chunk, ConsumerRecord
from logstore.groups.groups import Groups
from logstore.groups.membership import Membership, Rebalance
from logstore.partitions import (
    OffsetAndMetadata,
    TopicPartition,
    checked_offset,
    checked_partition,
)
from logstore.segments.files import Files
from logstore.subscription import RebalanceListener, Subscription, Topics
from logstore.waiting import PartitionsWatch, check_timeout

__all__ = ["Consumer", "ConsumerRecord", "RebalanceListener"]

_POLL_SECONDS = 0.05
"""How often a waiting consumer looks whether its group has changed, or it was closed."""
_LOOK_AT_TOPICS_SECONDS = 0.25
_DELETION_SECONDS = 0.001
"""How long a consumer waits that saw a topic go, before it looks at the topics again."""


class Consumer:
    """Reads partitions of topics, alone or as a member of a group; see ``Store.consumer``."""

    def __init__(
        self,
        topics: Topics,
        groups: Groups | None,
        config: ConsumerConfig,
        *,
        files: Files,
        clock: Clock,
    ) -> None:
        self._topics = topics
        """``groups`` is None in a store that may not be written, where no group can be joined."""
        self._config = config
        self._clock = clock
        self._pid = os.getpid()
        self._mutex = threading.RLock()
        """Held while the consumer is at work, and by whoever closes it."""
        self._closing = False
        self._closed = False
        self._subscription: Subscription | None = None
        self._membership: Membership | None = None
        self._ours = AssignedPartitions()
        self._due: frozenset[TopicPartition] = frozenset()
        """What the group has assigned to this member, and it has not yet begun to read: opening
        one of their logs may have failed."""
        self._commits = Commits(groups, topics, self._ours, config, clock)
        self._beginnings = Beginnings(topics, self._ours, self._commits, config)
        self._next_look = 0.0
        self._definitions: object = None
        """All topics, when they were last looked at."""
        self._missed: frozenset[str] = frozenset()
        """Topics that were named and deleted, as was told."""
        self._watch = PartitionsWatch(files, clock)

    # What to read -----------------------------------------------------------------------------

    def subscribe(
        self,
        topics: str | Iterable[str] = (),
        *,
        pattern: str | re.Pattern[str] | None = None,
        listener: RebalanceListener | None = None,
    ) -> None:
        """Read ``topics``, or those whose whole name matches ``pattern``, now and later.

        In a group its members share the partitions; without one this consumer reads them all.
        Replaces an earlier subscription. Raises UnknownTopicError, InvalidInputError.
        """
        with self._at_work():
            subscription = Subscription(self._topics, topics, pattern, listener)
            if self._config.group is not None:
                for internal in subscription.missing():
                    raise InvalidInputError(
                        f"{internal!r} is the store's own topic: it is read without a group"
                    )
            self._unsubscribe()
            config = self._config
            if config.group is not None:
                groups, group = self._commits.in_group()
                self._membership = groups.join(
                    group,
                    topics=subscription.topics,
                    assignor=config.partition_assignment_strategy,
                    session_timeout_ms=config.session_timeout_ms,
                    heartbeat_interval_ms=config.heartbeat_interval_ms,
                    max_poll_interval_ms=config.max_poll_interval_ms,
                    group_instance_id=config.group_instance_id,
                    client_id=config.client_id,
                )
            self._subscription = subscription
            self._next_look = 0.0
            self._definitions = None
            self._missed = frozenset()

    def assign(self, partitions: Iterable[TopicPartition | tuple[str, int]]) -> None:
        """Read exactly these partitions, whatever a group's other members do.

        Replaces an earlier subscription or assignment; positions in partitions that stay are
        kept. Raises UnknownTopicError.
        """
        wanted = [checked_partition(partition) for partition in partitions]
        with self._at_work():
            for partition in wanted:
                self._topics.log(partition)
            if self._subscription is not None:
                self._unsubscribe()
            self._commits.auto(self._membership)
            self._beginnings.give_up(set(self._ours).difference(wanted))
            self._beginnings.take_over(wanted)

    def unsubscribe(self) -> None:
        """Give up all partitions, and leave the group."""
        with self._at_work():
            self._unsubscribe()

    def _unsubscribe(self) -> None:
        self._commits.auto(self._membership)
        self._tell_that_all_go()
        self._beginnings.give_up(set(self._ours))
        self._due = frozenset()
        self._subscription = None
        membership, self._membership = self._membership, None
        if membership is not None:
            membership.close()

    def _tell_that_all_go(self) -> None:
        if self._ours and self._membership is not None and self._subscription is not None:
            self._subscription.listener.on_partitions_revoked(frozenset(self._ours))

    @property
    def assignment(self) -> frozenset[TopicPartition]:
        """The partitions that are read at present."""
        return frozenset(self._ours)

    @property
    def membership(self) -> Membership | None:
        """The place in the group, once it was joined."""
        return self._membership

    # Reading ----------------------------------------------------------------------------------

    def poll(
        self, max_records: int | None = None, timeout: float | None = 0.0
    ) -> list[ConsumerRecord]:
        """Up to ``max_records`` (``max_poll_records``) records, each partition's in order.

        Waits up to ``timeout`` seconds (None: for ever) for the first one. Says that what earlier
        calls returned is done. What stands in front of damage is returned before the damage raises.
        Raises what the log raises for damage, OffsetOutOfRangeError and NoOffsetError with
        ``auto_offset_reset="none"``, ClosedError; UnknownTopicError when a topic that was named is
        deleted: a member of a group is told once, and goes on with the others.
        """
        most = self._config.max_poll_records if max_records is None else max_records
        if type(most) is not int or most < 1:
            raise InvalidInputError(f"max_records={most!r} is out of bounds: an int of at least 1")
        check_timeout(timeout)
        records: list[ConsumerRecord] = []
        with self._at_work():
            self._ours.give_back()
            chunk = self._wait_for_chunk(most, timeout)
            try:
                while chunk is not None:
                    self._ours.returned(chunk)
                    records += chunk.records
                    left = most - len(records)
                    chunk = self._next_chunk(left) if left else None
            except (LogstoreError, OSError):
                pass  # what was read in front of it comes first; the next call meets it again
            except BaseException:
                self._ours.take_back()  # Ctrl-C: nobody gets these records
                raise
        return records

    def __iter__(self) -> Iterator[ConsumerRecord]:
        """The records, one by one; waits for more for ever, or ``consumer_timeout_ms`` long."""
        milliseconds = self._config.consumer_timeout_ms
        timeout = None if milliseconds < 0 else milliseconds / 1000
        most = self._config.max_poll_records
        while True:
            with self._at_work():
                chunk = self._wait_for_chunk(most, timeout)
                self._ours.hand_out(chunk)
            if chunk is None:
                return
            yield from chunk.iterator

    def _wait_for_chunk(self, most: int, timeout: float | None) -> Chunk | None:
        deadline = None if timeout is None else self._clock.monotonic() + timeout
        self._ours.hand_out(None)
        while True:
            self._miss_deleted_topics()
            try:
                self._follow_changes()
                self._commits.auto_if_due(self._membership)
                chunk = self._next_chunk(most)
            except UnknownTopicError as error:
                self._expect_deletion(error)
                chunk = None
            if chunk is not None:
                return chunk
            left = _POLL_SECONDS if deadline is None else deadline - self._clock.monotonic()
            if left <= 0:
                return None
            active = [cursor for cursor in self._ours.cursors() if not cursor.paused]
            try:
                self._watch.wait(active, min(left, _POLL_SECONDS))
            except UnknownTopicError as error:
                self._expect_deletion(error)
            self._check_usable()

    def _next_chunk(self, most: int) -> Chunk | None:
        return self._ours.next_chunk(most, self._beginnings.out_of_range)

    def _expect_deletion(self, error: UnknownTopicError) -> None:
        """Whoever chose a partition, or named a topic without a group, misses it. Otherwise the
        next look gives it up: it matches a pattern no more, or the group takes it away."""
        self._next_look = 0.0
        if self._subscription is None or (
            self._membership is None and not self._subscription.by_pattern
        ):
            raise error
        self._clock.sleep(_DELETION_SECONDS)

    # Groups and topics that change -------------------------------------------------------------

    def _follow_changes(self) -> None:
        subscription = self._subscription
        if subscription is None:
            return
        if self._membership is not None:
            while (rebalance := self._membership.poll()) is not None:
                self._rebalance(self._membership, subscription.listener, rebalance)
            if self._due:
                assigned = self._due
                self._beginnings.take_over(sorted(assigned))
                self._due = frozenset()
                subscription.listener.on_partitions_assigned(assigned)
        elif self._clock.monotonic() >= self._next_look:
            # Without a group every partition is ours, those that are added later included.
            self._next_look = self._clock.monotonic() + _LOOK_AT_TOPICS_SECONDS
            definitions = self._topics.definitions()
            if definitions is not self._definitions:
                wanted = subscription.partitions()
                self._beginnings.give_up(set(self._ours).difference(wanted))
                self._beginnings.take_over(wanted)
                self._definitions = definitions

    def _miss_deleted_topics(self) -> None:
        """A member that named a topic is told once that it is gone, and goes on with the others."""
        subscription = self._subscription
        if subscription is None or self._membership is None:
            return
        definitions = self._topics.definitions()
        if definitions is not self._definitions:
            self._definitions = definitions
            missed, self._missed = self._missed, subscription.missing()
            if self._missed - missed:
                raise UnknownTopicError(f"topic {min(self._missed - missed)!r} was deleted")

    def _rebalance(
        self, membership: Membership, listener: RebalanceListener, rebalance: Rebalance
    ) -> None:
        told = rebalance.revoke - self._due
        if rebalance.lost:
            try:
                if told:
                    listener.on_partitions_lost(told)
            finally:  # whatever the listener made of it, they are ours no more
                self._due -= rebalance.revoke
                self._beginnings.give_up(told)
        elif rebalance.revoke:
            if told:
                self._commits.auto(membership)
                listener.on_partitions_revoked(told)
            self._due -= rebalance.revoke
            self._beginnings.give_up(told)
            membership.revoked(rebalance.revoke)
        self._due |= rebalance.assigned

    # Positions --------------------------------------------------------------------------------

    def position(self, partition: TopicPartition | tuple[str, int]) -> int:
        """The offset of the next record that the application gets from a partition of ours."""
        return self._ours.position(partition)

    def seek(self, partition: TopicPartition | tuple[str, int], offset: int) -> None:
        """Go on at ``offset``; where the log does not hold it, ``auto_offset_reset`` says what
        happens when it is read."""
        checked_offset(offset)
        with self._at_work():
            cursor = self._ours.cursor(partition)
            self._ours.give_back(cursor.partition)
            cursor.seek(offset)

    def seek_to_beginning(self, *partitions: TopicPartition | tuple[str, int]) -> None:
        """Go on at the first record of ``partitions``, or of all that are ours."""
        for partition in partitions or tuple(self._ours):
            self.seek(partition, self._ours.cursor(partition).log.log_start_offset)

    def seek_to_end(self, *partitions: TopicPartition | tuple[str, int]) -> None:
        """Go on behind the last record of ``partitions``, or of all that are ours."""
        for partition in partitions or tuple(self._ours):
            self.seek(partition, self._ours.cursor(partition).log.log_end_offset)

    def pause(self, *partitions: TopicPartition | tuple[str, int]) -> None:
        """Read nothing from these partitions until :meth:`resume`; they stay ours."""
        with self._at_work():
            for partition in partitions:
                cursor = self._ours.cursor(partition)
                self._ours.give_back(cursor.partition)
                cursor.paused = True

    def resume(self, *partitions: TopicPartition | tuple[str, int]) -> None:
        """Read from these partitions again."""
        for partition in partitions:
            self._ours.cursor(partition).paused = False

    @property
    def paused(self) -> frozenset[TopicPartition]:
        """The partitions that are paused."""
        return frozenset(cursor.partition for cursor in self._ours.cursors() if cursor.paused)

    def offsets_for_times(
        self, timestamps: Mapping[TopicPartition, int]
    ) -> dict[TopicPartition, int | None]:
        """For each partition the offset of its first record that is not older than a timestamp
        (milliseconds); None where there is none."""
        offsets: dict[TopicPartition, int | None] = {}
        for key, timestamp in timestamps.items():
            partition = checked_partition(key)
            found = self._topics.log(partition).offset_for_time(timestamp)
            offsets[partition] = None if found is None else found[0]
        return offsets

    def beginning_offsets(
        self, partitions: Iterable[TopicPartition | tuple[str, int]]
    ) -> dict[TopicPartition, int]:
        """The first offset of each partition."""
        return {
            partition: self._topics.log(partition).log_start_offset
            for partition in map(checked_partition, partitions)
        }

    def end_offsets(
        self, partitions: Iterable[TopicPartition | tuple[str, int]]
    ) -> dict[TopicPartition, int]:
        """For each partition the offset that its next record will get."""
        return {
            partition: self._topics.log(partition).log_end_offset
            for partition in map(checked_partition, partitions)
        }

    def lag(self) -> dict[TopicPartition, int]:
        """For each partition of ours how far its end is ahead of the position, in offsets."""
        return {
            cursor.partition: max(cursor.log.log_end_offset - self.position(cursor.partition), 0)
            for cursor in self._ours.cursors()
        }

    # Committing -------------------------------------------------------------------------------

    def commit(
        self,
        offsets: Mapping[TopicPartition, int | OffsetAndMetadata] | None = None,
        *,
        durable: bool = False,
    ) -> None:
        """Commit the positions, or ``offsets`` (where to go on reading, perhaps with a note).

        Survives the process when it returns; with ``durable`` a power cut, too. Raises
        FencedMemberError or IllegalGenerationError when the partition is another member's by now.
        """
        with self._at_work():
            if offsets is None:
                self._commits.positions(self._membership, durable=durable)
            else:
                wanted = {checked_partition(k): checked_offset(v) for k, v in offsets.items()}
                self._commits.commit(wanted, self._membership, durable=durable)

    def committed(
        self, *partitions: TopicPartition | tuple[str, int]
    ) -> dict[TopicPartition, OffsetAndMetadata | None]:
        """What the group has committed for ``partitions``, or for all that are ours."""
        keys = list(map(checked_partition, partitions)) or list(self._ours)
        found = self._commits.look(keys)
        return {key: found.get(key) for key in keys}

    # Life -------------------------------------------------------------------------------------

    def _at_work(self) -> threading.RLock:
        self._check_usable()
        return self._mutex

    def _check_usable(self) -> None:
        if os.getpid() != self._pid:
            raise ForkedError("this consumer belongs to the parent process; open the store again")
        if self._closing:
            raise ClosedError("the consumer was closed")

    def close(self, *, commit: bool = True) -> None:
        """Commit (where that is automatic), leave the group, let go; closing twice is allowed."""
        self._close(commit=commit, failed=False)

    def _close(self, *, commit: bool, failed: bool) -> None:
        if os.getpid() != self._pid:
            return
        self._closing = True
        with self._mutex:
            if self._closed:
                return
            self._closed = True
            try:
                if commit:
                    self._commits.auto(self._membership, failed=failed)
                self._tell_that_all_go()
            finally:
                self._ours.remove(set(self._ours))
                membership, self._membership = self._membership, None
                if membership is not None:
                    membership.close()
                self._watch.close()

    def __enter__(self) -> Consumer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._close(commit=True, failed=error is not None)
