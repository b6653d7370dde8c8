"""A store: a directory with topics in it, which any number of processes may have open.

On disk::

    store.json                 format version, the store's id
    topics/<name>-<n>/         a partition: Kafka's files, plus `lock` and `state`
    live/<generation>/         LMDB, unsynced: groups and what they have committed
    procs/<uuid>               a session: locked while its process lives
    topics/__metadata-0/       the definitions of topics, and all others
    meta/                      LMDB: the same, to look things up in
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
import weakref
from collections.abc import Iterable, Mapping
from functools import partial
from itertools import chain
from types import TracebackType
from typing import Any

from logstore.backup import BackupResult, back_up
from logstore.clock import Clock, SystemClock
from logstore.consumer import Consumer
from logstore.consumer_config import ConsumerConfig
from logstore.describe import TopicDescription, describe
from logstore.errors import (
    ClosedError,
    ForkedError,
    PoisonedError,
)
from logstore.foundation import Foundation
from logstore.groups.groups import Groups
from logstore.live import Live
from logstore.maintenance import Maintenance, PartitionReport, check_interval
from logstore.making import FORMAT_VERSION, identify, making
from logstore.metadata import METADATA_TOPIC, Metadata
from logstore.producer import Producer
from logstore.producer_config import ProducerConfig
from logstore.producer_ids import ProducerIds
from logstore.queues.broker import Broker
from logstore.queues.channel import Channel
from logstore.queues.exchange import Exchange
from logstore.queues.queue_face import Queue
from logstore.segments.files import DiskFiles, Files
from logstore.sessions import Sessions
from logstore.shares.consumer import ShareConsumer
from logstore.shares.share_groups import ShareGroups
from logstore.subscription import RebalanceListener, Topics
from logstore.topic import Topic
from logstore.topics import TopicCatalogue

__all__ = ["FORMAT_VERSION", "Store", "open_store"]


def open_store(
    path: str | os.PathLike[str],
    *,
    create: bool = True,
    read_only: bool = False,
    maintenance_interval: float | None = 30.0,
    files: Files | None = None,
    clock: Clock | None = None,
) -> Store:
    """Open the store in the directory ``path``, and make it unless it is there.

    Raises StoreNotFoundError when it is not there and is not to be made (``create=False``, or
    ``read_only``, which changes nothing on disk), UnsupportedFormatError when a newer version of
    logstore made it, InvalidInputError when ``path`` holds something else.

    ``maintenance_interval``: the seconds between two rounds of retention and compaction in the
    background; None for none (:meth:`Store.maintain` does a round on demand).
    """
    return Store(
        path,
        create=create,
        read_only=read_only,
        maintenance_interval=maintenance_interval,
        files=files,
        clock=clock,
    )


class Store:
    """An open store. Usable from many threads; after ``fork`` a child opens its own."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        create: bool = True,
        read_only: bool = False,
        maintenance_interval: float | None = 30.0,
        files: Files | None = None,
        clock: Clock | None = None,
    ) -> None:
        check_interval(maintenance_interval)
        self.path = os.fsdecode(path)
        self._files: Files = files or DiskFiles()
        self._clock: Clock = clock or SystemClock()
        self._pid = os.getpid()
        self._mutex = threading.Lock()
        self._closing = False
        self._closed = False
        self.id = identify(
            self.path, create=create and not read_only, files=self._files, clock=self._clock
        )
        """The store's id."""
        held_making = partial(making, self.path, files=self._files, clock=self._clock)
        self._metadata = Metadata(
            self.path, read_only=read_only, files=self._files, clock=self._clock
        )
        self._topics = TopicCatalogue(
            self._metadata,
            self.path,
            files=self._files,
            clock=self._clock,
            read_only=read_only,
            check_usable=self._check_usable,
            making=held_making,
        )
        self._live = Live(
            self.path, self._metadata, files=self._files, clock=self._clock, read_only=read_only
        )
        self._sessions = Sessions(self.path, self._files)
        self._producer_ids = ProducerIds(self._metadata, self._clock)
        self._producers: weakref.WeakSet[Producer] = weakref.WeakSet()
        """Those that were made here; closing the store closes them, too."""
        self._base = Foundation(
            self.path,
            files=self._files,
            clock=self._clock,
            metadata=self._metadata,
            topics=self._topics,
            live=self._live,
            sessions=self._sessions,
            making=held_making,
            read_only=read_only,
            check_usable=self._check_usable,
        )
        self._groups = Groups(self._base)
        self._topics.on_deletion.append(self._groups.forget_topic)
        self._broker = Broker(self._base)
        self._share_groups = ShareGroups(self._base)
        self._topics.on_deletion.append(self._share_groups.forget_topic)
        self._maintenance = Maintenance(
            self._files,
            self.path,
            lambda: chain(self._topics.partitions(), self._broker.partitions()),
            chores=[
                self._clear_up,
                self._broker.maintain,
                self._groups.maintain,
                self._share_groups.maintain,
            ],
            interval=maintenance_interval or 0.0,
            prepare=self._topics.prepare,
        )
        if not read_only:
            self._finish_what_was_begun()
        if maintenance_interval is not None and not read_only:
            self._maintenance.start()

    def _finish_what_was_begun(self) -> None:
        try:
            # Before anybody appends: checkpoints are cut back to the logs' ends.
            self._live.recover()
            self._topics.finish_deletions()
            self._topics.finish_creations()
            self._broker.clear_up()
        except BaseException:
            with contextlib.ExitStack() as stack:
                stack.callback(self._metadata.close)
                stack.callback(self._topics.close)
                stack.callback(self._let_go_of_live)
                stack.callback(self._groups.close)
                stack.callback(self._share_groups.close)
                stack.callback(self._broker.close)
            raise

    def _let_go_of_live(self) -> None:
        self._live.close()
        self._sessions.close()

    def _clear_up(self) -> None:
        """Away with what dead processes left."""
        self._sessions.sweep()
        self._live.check_readers()

    # Topics -----------------------------------------------------------------------------------

    def create_topic(
        self,
        name: str,
        *,
        partitions: int = 1,
        config: Mapping[str, Any] | None = None,
        exist_ok: bool = False,
        **overrides: Any,
    ) -> Topic:
        """Create a topic; configuration keys may be given in ``config`` or as arguments.

        Raises TopicExistsError when there is one of that name (with ``exist_ok`` it is taken as it
        is), InvalidInputError for an illegal name, number of partitions or configuration.

        Commit point: the topic's definition in ``__metadata``. The directories of its partitions
        are made after it, or when somebody opens the store for writing after a crash in between.
        """
        self._check_usable()
        keys = {**(config or {}), **overrides}
        return self._topics.create(name, partitions, keys, exist_ok=exist_ok)

    def topic(self, name: str) -> Topic:
        """The topic of that name; raises UnknownTopicError.

        ``__metadata``, the topic of the store's own definitions, can be read.
        """
        self._check_usable()
        return self._topics.get(name)

    def topics(self, *, internal: bool = False) -> list[Topic]:
        """All topics, by name; with ``internal`` also the store's own."""
        self._check_usable()
        return self._topics.all(internal=internal)

    def describe_topic(self, name: str) -> TopicDescription:
        """What a topic is: its configuration, and where each value is from; what its partitions
        hold. Raises UnknownTopicError."""
        internal = name == METADATA_TOPIC.name
        return describe(self.topic(name), {} if internal else self._topics.defaults)

    def alter_topic(
        self,
        name: str,
        set: Mapping[str, Any] | None = None,
        unset: Iterable[str] = (),
        *,
        partitions: int | None = None,
    ) -> Topic:
        """Change a topic's configuration: ``set`` gives keys other values, ``unset`` brings them
        back to the store's defaults. With ``partitions`` it gets more of them in the same step,
        as by :meth:`add_partitions`.

        Logs that are open here go on by it at once, those in other processes when somebody there
        looks topics up, or at the next round of maintenance. Raises UnknownTopicError,
        InvalidInputError for a key that is none or a value out of bounds (and changes nothing).

        Commit point: the topic's definition in ``__metadata``, as for all changes of topics.
        """
        self._check_usable()
        return self._topics.alter(name, set or {}, unset, partitions)

    def add_partitions(self, name: str, total: int) -> Topic:
        """Give a topic more partitions, so that it has ``total``. Records with a key that come
        from now on may go to another partition than those before.

        Raises InvalidInputError unless these are more than it has, UnknownTopicError.
        """
        self._check_usable()
        return self._topics.add_partitions(name, total)

    def delete_topic(self, name: str) -> None:
        """Delete a topic and all its records. Handles in all processes raise UnknownTopicError from
        then on; a new topic of that name is another one.

        What somebody holds for longer than 5 s (a compaction, a stopped process) is removed by a
        later round of maintenance. On a full disk, which has no room for the change, the records
        are deleted first. Raises UnknownTopicError.

        Commit point: the removal of the definition in ``__metadata``; whoever opens the store for
        writing finishes what a crash behind it left.
        """
        self._check_usable()
        self._topics.delete(name)

    @property
    def defaults(self) -> dict[str, Any]:
        """The configuration keys that are set for all topics that do not set them themselves, and
        those of the store itself (``logstore.config.StoreConfig``)."""
        self._check_usable()
        return {**self._topics.defaults, **self._topics.store_keys}

    def alter_defaults(
        self, set: Mapping[str, Any] | None = None, unset: Iterable[str] = ()
    ) -> None:
        """Change what topics are configured by where they say nothing themselves (see
        :meth:`alter_topic`), or what counts for the store: ``offsets_retention_minutes``."""
        self._check_usable()
        self._topics.alter_defaults(set or {}, unset)

    # Groups -----------------------------------------------------------------------------------

    @property
    def groups(self) -> Groups:
        """The consumer groups: who reads what, and how far they have come."""
        self._check_usable()
        return self._groups

    # Queues -----------------------------------------------------------------------------------

    @property
    def queues(self) -> Broker:
        """The exchanges and queues: what is declared, and bound to what."""
        self._check_usable()
        return self._broker

    def exchange(self, name: str, type: str | None = None, **options: Any) -> Exchange:
        """The exchange of that name; with a ``type`` (direct, topic, fanout, headers) it is
        declared if it is not there. The default exchange has the empty name.

        ``options``: ``durable=False`` (gone when the machine starts again), ``auto_delete`` (gone
        with its last binding), ``internal`` (only other exchanges publish to it),
        ``alternate_exchange`` (gets what no binding is met by). Raises PreconditionFailedError
        where it is there with another type or other options, UnknownExchangeError where it is not
        there and no type is given, AccessRefusedError for a reserved name.
        """
        return self._broker.exchange(name, type, **options)

    def queue(self, name: str = "", **options: Any) -> Queue:
        """The queue of that name, declared if it is not there; without a name, a new one.

        ``options``: ``durable=False`` (gone when the machine starts again), ``exclusive`` (only
        this store handle's, and gone with it), ``auto_delete`` (gone with its last consumer),
        ``passive=True`` (never declared), and the arguments of :class:`QueueArguments`, as
        RabbitMQ spells them or with underscores. Without any the queue is taken as it is; with
        some, all have to be those that it was declared with, or PreconditionFailedError is raised.
        Raises ResourceLockedError for an exclusive queue of another session, AccessRefusedError
        for a reserved name, UnknownQueueError (``passive``).
        """
        return self._broker.queue(name, **options)

    def channel(self, *, prefetch: int = 0) -> Channel:
        """A channel: what is delivered on it is numbered, acknowledged and given back together.
        ``prefetch``: how many messages of all its consumers may be unsettled; 0: any number."""
        return self._broker.channel(prefetch=prefetch)

    # Consumers --------------------------------------------------------------------------------

    def consumer(
        self,
        *topics: str,
        pattern: str | re.Pattern[str] | None = None,
        listener: RebalanceListener | None = None,
        **options: Any,
    ) -> Consumer:
        """A consumer, subscribed to ``topics`` or to those whose whole name matches ``pattern``.

        Without either, call its ``subscribe`` or ``assign``. ``options`` are the fields of
        :class:`ConsumerConfig`, ``group`` first among them. Raises UnknownTopicError,
        InvalidInputError.
        """
        self._check_usable()
        consumer = Consumer(
            Topics(self._topics),
            None if self._base.read_only else self._groups,
            ConsumerConfig.from_options(options),
            files=self._files,
            clock=self._clock,
        )
        if topics or pattern is not None:
            consumer.subscribe(topics, pattern=pattern, listener=listener)
        return consumer

    def share_consumer(
        self, *topics: str, pattern: str | re.Pattern[str] | None = None, **options: Any
    ) -> ShareConsumer:
        """A consumer of a share group (KIP-932), which reads ``topics``, or those whose whole name
        matches ``pattern``, together with all others of its group: each record goes to one of them.

        ``options`` are the fields of :class:`ShareConsumerConfig`, ``group`` first among them, and
        of :class:`ShareGroupConfig`, which its first consumer sets for the group. Raises
        PreconditionFailedError where the group has others, UnknownTopicError, InvalidInputError.
        """
        self._check_usable()
        return self._share_groups.consumer(topics, pattern, options)

    @property
    def share_groups(self) -> ShareGroups:
        """The share groups: who reads what, and how far they have come."""
        self._check_usable()
        return self._share_groups

    # Producers --------------------------------------------------------------------------------

    def producer(self, **options: Any) -> Producer:
        """A producer, which sends records to topics in batches. ``options`` are the fields of
        :class:`ProducerConfig`. Raises InvalidInputError, ReadOnlyError.

        With ``producer_name`` it takes the place of the instance of that name that may still be
        running, in this process or another one, and fences it. Commit point: the change of the
        definitions that gives it the next epoch.
        """
        self._base.check_writable()
        config = ProducerConfig.from_options(options)
        producer = Producer(Topics(self._topics), self._producer_ids, config, clock=self._clock)
        self._producers.add(producer)
        return producer

    # Maintenance ------------------------------------------------------------------------------

    def maintain(self) -> list[PartitionReport] | None:
        """Do a round of retention and compaction now, and return what was done to each partition;
        None when another process is doing one."""
        self._base.check_writable()
        return self._maintenance.run()

    def backup(self, destination: str | os.PathLike[str], *, keep: int = 1) -> BackupResult:
        """Copy the store, as it is now and while it is used, into a directory of backups.

        The ``keep`` newest backups in it stay; see :mod:`logstore.backup`.
        """
        self._base.check_writable()
        self._groups.checkpoint()
        self._share_groups.checkpoint()
        self._broker.checkpoint()
        return back_up(
            self.path,
            destination,
            copy_metadata=self._metadata.copy_to,
            # The definitions' own log, the last of the topics', comes behind all that it defines.
            partitions=chain(self._broker.partitions(), self._topics.partitions(self.topics())),
            keep=keep,
            now_ms=self._clock.now_ms(),
        )

    # Life -------------------------------------------------------------------------------------

    def _check_usable(self) -> None:
        if os.getpid() != self._pid:
            raise ForkedError(
                f"{self.path}: this handle belongs to the parent process; open the store again"
            )
        if self._closed:
            raise ClosedError(f"{self.path}: the store was closed")

    def close(self) -> None:
        """Close every partition cleanly, and let go of the store; closing twice is allowed."""
        with self._mutex:
            if self._closing or os.getpid() != self._pid:
                return
            self._closing = True
        with contextlib.ExitStack() as stack:
            stack.callback(self._metadata.close)
            stack.callback(self._topics.close)
            stack.callback(self._let_go_of_live)
            try:
                for producer in list(self._producers):
                    producer.close()
                self._maintenance.stop()
                self._broker.close()
                self._share_groups.close()
                self._groups.close()  # may have to open logs, for the last checkpoint
            finally:
                self._closed = True

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self.close()
        except PoisonedError:
            if error is None:  # otherwise it is, or follows from, the error that is on its way
                raise

    def __repr__(self) -> str:
        return f"Store({self.path!r})"
