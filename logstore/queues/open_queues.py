"""The queues that are in use in a store handle, their logs, and what becomes of deleted ones.

On disk::

    queues/<queue's id in hex>-<level of priority>/    a partition's files, as a topic's

A queue's definition comes first and goes first. What was left of a deleted one, by this process or
by one that was killed, is found by what ``meta`` notes of it, and taken away.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import uuid
from collections.abc import Callable, Iterator

from logstore.config import LogConfig
from logstore.deletion import mark_deleted, remove_deleted
from logstore.errors import LockTimeoutError, LogstoreError, UnknownTopicError
from logstore.foundation import Foundation
from logstore.log import PartitionLog
from logstore.partition_files import PartitionFiles
from logstore.queues.catalogue import Catalogue
from logstore.queues.definitions import QueueDefinition
from logstore.queues.queue import Level, QueueCounts, WorkQueue
from logstore.queues.retention import log_config

__all__ = ["QUEUES", "OpenQueues"]

_log = logging.getLogger("logstore")

QUEUES = "queues"
"""The directory of the queues' logs, in the store's."""

LOG_CONFIG = LogConfig.from_overrides(
    {"retention_ms": -1, "retention_bytes": -1, "segment_bytes": 64 << 20}
)
"""How the logs of queues are kept: what is not settled stays, and what is goes by segments
(``logstore.queues.retention``)."""


class Seal:
    """Keeps everybody from appending to a queue whose deletion is decided."""

    def __init__(
        self, queue: WorkQueue, levels: tuple[Level, ...], stack: contextlib.ExitStack
    ) -> None:
        self._queue = queue
        self._levels = levels
        self._stack = stack
        """Lets go of the logs."""
        self.is_final = False
        """Whether the queue was deleted."""

    def __call__(self) -> QueueCounts:
        """Take the logs' locks, and look what is in the queue. It is called inside of the
        transaction that changes the definitions, where no level may be looked for."""
        for level in self._levels:
            self._stack.enter_context(level.log._locked())
        return self._queue.counts_in(self._levels)


class OpenQueues:
    """What is in use. Usable from many threads."""

    def __init__(
        self,
        base: Foundation,
        catalogue: Catalogue,
        *,
        make: Callable[[QueueDefinition], WorkQueue],
    ) -> None:
        """``make`` makes the queue of a definition, whose logs are opened here."""
        self._catalogue = catalogue
        self._make = make
        self._base = base
        self._partitions = PartitionFiles(
            os.path.join(base.path, QUEUES),
            files=base.files,
            clock=base.clock,
            read_only=base.read_only,
            making=base.making,
            is_defined=lambda queue_id, _: queue_id in catalogue.topology().queue_ids,
            kind="queue",
        )
        self._mutex, self._opening = threading.Lock(), threading.Lock()
        """Held to open and close queues, and logs."""
        self._queues: dict[uuid.UUID, WorkQueue] = {}
        self._logs: dict[tuple[uuid.UUID, int], PartitionLog] = {}
        """By queue and level of priority."""
        self.on_deletion: list[Callable[[uuid.UUID], object]] = []
        """Called with the id of a deleted queue, perhaps more than once."""

    def open(self, definition: QueueDefinition) -> WorkQueue:
        """A queue that is declared."""
        queue = self._queues.get(definition.queue_id)
        if queue is not None:
            return queue
        with self._mutex:
            queue = self._queues.get(definition.queue_id)
            if queue is None:
                queue = self._queues[definition.queue_id] = self._make(definition)
            return queue

    def in_use(self) -> list[WorkQueue]:
        """The queues that were opened."""
        with self._mutex:
            return list(self._queues.values())

    def open_log(self, definition: QueueDefinition, level: int) -> PartitionLog:
        """The log of a level of priority, made unless it is there; it is closed with all others.
        Raises UnknownTopicError when the queue was deleted."""
        self._base.check_usable()
        key = definition.queue_id, level
        with self._opening:
            log = self._logs.get(key)
            if log is None:
                log = self._logs[key] = self._new_log(definition, level)
            return log

    def _new_log(self, definition: QueueDefinition, level: int) -> PartitionLog:
        queue_id = definition.queue_id
        config = log_config(definition.arguments, LOG_CONFIG)
        return self._partitions.open(queue_id.hex, level, queue_id, config)

    def partitions(self) -> Iterator[contextlib.AbstractContextManager[PartitionLog]]:
        """Every log that has files. One that is open here is lent; any other is opened for the
        moment."""
        for definition in self._catalogue.topology().queues.values():
            for level in self._levels(definition):
                opened = self._logs.get((definition.queue_id, level))
                if opened is not None:
                    yield contextlib.nullcontext(opened)
                    continue
                with contextlib.suppress(UnknownTopicError):  # it was just deleted
                    yield self._new_log(definition, level)

    def has_log(self, definition: QueueDefinition, level: int) -> bool:
        """Whether a level of priority has a log."""
        return self._partitions.exists(definition.queue_id.hex, level)

    def _levels(self, definition: QueueDefinition) -> Iterator[int]:
        return (level for level in range(definition.levels) if self.has_log(definition, level))

    @contextlib.contextmanager
    def sealing(self, definition: QueueDefinition) -> Iterator[Seal]:
        """Inside, nobody makes a log for the queue; once the seal was called, nobody appends to one
        either, and never again where it ``is_final``."""
        queue = self.open(definition)
        with contextlib.ExitStack() as stack:
            while True:
                for number in self._levels(definition):
                    queue.level(number)
                levels = queue.levels()
                opened = {level.number for level in levels}
                stack.enter_context(self._base.making())
                if opened.issuperset(self._levels(definition)):
                    break
                stack.close()  # opening one may need that lock, too

            seal = Seal(queue, levels, stack)
            yield seal
            # Nobody goes into a transaction from here: who publishes to a queue with limits waits
            # for its logs inside of one.
            if seal.is_final:
                for level in levels:
                    mark_deleted(level.log)

    # Deleted queues ---------------------------------------------------------------------------

    def finish_deletions(self) -> None:
        """Take away what is left of deleted queues. What somebody else holds is left for the next
        time."""
        self._drop_deleted()
        for key, queue in self._catalogue.deleting().items():
            try:
                with self._base.making():
                    for level in self._levels(queue):
                        self._partitions.take_away(queue.queue_id.hex, level, queue.queue_id)
            except LockTimeoutError as error:
                _log.warning("queue %r is taken away later: %s", queue.name, error)
                continue
            for forget in self.on_deletion:
                forget(queue.queue_id)
            self._catalogue.deleted(key)
        if self._base.files.is_directory(self._partitions.directory):
            remove_deleted(self._base.files, self._partitions.directory)

    def _drop_deleted(self) -> None:
        """Let go of queues that are not declared any more."""
        there = self._catalogue.topology().queue_ids
        with self._mutex:
            queues = [self._queues.pop(key) for key in list(self._queues) if key not in there]
        with self._opening:
            logs = [self._logs.pop(key) for key in list(self._logs) if key[0] not in there]
        for queue in queues:
            queue.close()
        for log in logs:
            with contextlib.suppress(LogstoreError, OSError):  # there is nothing left to save
                log.close(deleted=True)

    def close(self) -> None:
        """Close all queues and logs."""
        with contextlib.ExitStack() as stack:
            for log in self._logs.values():
                stack.callback(log.close)
            for queue in self._queues.values():
                stack.callback(queue.close)
