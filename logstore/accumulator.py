"""Records that wait for their delivery: a queue for each partition, in bounded memory.

The last batch of a queue is being filled; those before it are *ready*, and go to the log in order,
the first one alone. With ``acks="all"`` a batch that is *written* waits for a sync. All of it is
changed with one mutex in hand, which nobody holds while he writes to a log.

``buffer_memory`` is counted by the batch, as in Kafka: each takes ``batch_size`` bytes (or as many
as its only record needs) from the moment it is begun until it is done.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Iterator

from logstore.clock import Clock
from logstore.config import LogConfig
from logstore.delivery import OnDelivery, PendingBatch
from logstore.log import PartitionLog
from logstore.producer_config import ProducerConfig
from logstore.segments.batch import HEADER_BYTES
from logstore.segments.header import TimestampType

__all__ = ["RECORD_OVERHEAD", "Accumulator", "PartitionQueue"]

_log = logging.getLogger("logstore")

RECORD_OVERHEAD = 31
"""Bytes of a record without key, value and headers, at most: its length (5), attributes (1),
deltas of time (10) and offset (4), lengths of key and value (5 each), count of headers (1)."""


class PartitionQueue:
    """What waits for one partition."""

    __slots__ = (
        "append_time",
        "batch",
        "busy",
        "config",
        "is_stale",
        "limit",
        "log",
        "next_sequence",
        "number",
        "pinned",
        "ready",
        "retry_at",
        "topic",
        "written",
    )

    def __init__(self, topic: str, number: int, log: PartitionLog, config: ProducerConfig) -> None:
        self.topic = topic
        self.number = number
        self.log = log
        self.limit = 0
        """Bytes of records that make a batch; a larger one has a batch of its own."""
        self.is_stale = False
        """Whether the topic was deleted; there may be another one of its name."""
        self.batch: PendingBatch | None = None
        """The one that is being filled."""
        self.ready: deque[PendingBatch] = deque()
        """Those that are to be written, the oldest first."""
        self.written: deque[PendingBatch] = deque()
        """Those that wait for a sync."""
        self.busy = False
        """Whether a thread writes ``ready``. No lock: one that is only tried cannot be taken by
        ``with``, and Ctrl-C in front of the ``try`` would leave it taken for ever."""
        self.retry_at: float | None = None
        """When the first of them is tried again; until then it is the sender's alone."""
        self.next_sequence: int | None = None
        """The sequence of the next batch, once it is known."""
        self.pinned = False
        """Whether the program was told that sequence, and relies on it."""
        self.config: LogConfig | None = None
        """The topic's configuration that the two fields above and below are by."""
        self.append_time = False
        """Whether records bear the time of their append."""
        self.configure(config)

    def configure(self, config: ProducerConfig) -> None:
        """Go on by the topic's configuration as it is now."""
        topic = self.config = self.log.config
        room = min(config.max_request_size, topic.max_message_bytes) - HEADER_BYTES
        self.limit = min(config.batch_size, max(room, 0))
        self.append_time = topic.message_timestamp_type == TimestampType.LOG_APPEND.label


class Accumulator:
    """The queues of a producer. Usable from many threads."""

    def __init__(self, config: ProducerConfig, clock: Clock) -> None:
        self.config = config
        self._clock = clock
        self.mutex = threading.Lock()
        self.room = threading.Condition(self.mutex)
        """Told when memory comes back."""
        self.progress = threading.Condition(self.mutex)
        """Told when a batch is done with, its callbacks included."""
        self.work = threading.Condition(self.mutex)
        """Told when there is something for the sender."""
        self.sleeping = False
        """Whether the sender waits to be told."""
        self.free = config.buffer_memory
        """Bytes that nothing takes."""
        self.waiting = 0
        """How many threads wait for some of them."""
        self.flushing = 0
        """How many threads wait for ``progress``."""
        self.incomplete: dict[PendingBatch, PartitionQueue] = {}
        """All batches that are not done with, the oldest first."""
        self.lingering: deque[tuple[float, PartitionQueue, PendingBatch]] = deque()
        """When each batch that is (or was) being filled has to go; ascending."""
        self.handed_over: dict[PartitionQueue, None] = {}
        """Queues whose ready batches are the sender's business."""
        self.unsynced: dict[PartitionQueue, None] = {}
        """Queues with batches that wait for a sync."""
        self.to_be_told: deque[PendingBatch] = deque()
        """Batches that are done, and whose callbacks are to be called."""
        self._linger = config.linger_ms / 1000
        self._unwatched = config.acks == 0

    # With the mutex in hand -------------------------------------------------------------------

    def begin(self, queue: PartitionQueue, size: int) -> PendingBatch | None:
        """Begin a batch for a record of ``size`` bytes; None where there is no room."""
        reserved = max(self.config.batch_size, size)
        if reserved > self.free:
            return None
        now = self._clock.monotonic()
        batch = PendingBatch(
            self,
            queue.topic,
            queue.number,
            created=now,
            reserved=reserved,
            unwatched=self._unwatched,
        )
        if self._linger:
            if not self.lingering:
                self.wake()
            self.lingering.append((now + self._linger, queue, batch))
        # No call from here on, in which Ctrl-C could come: all of it happens, or nothing.
        self.free -= reserved
        queue.batch = batch
        self.incomplete[batch] = queue
        return batch

    def finish(self, queue: PartitionQueue) -> None:
        """Let the batch that is being filled be ready."""
        batch, queue.batch = queue.batch, None
        if batch is not None:
            queue.ready.append(batch)

    def hand_over(self, queue: PartitionQueue) -> None:
        """Leave what is ready to the sender."""
        self.handed_over[queue] = None
        self.wake()

    def wake(self) -> None:
        """Wake the sender if it sleeps."""
        if self.sleeping:
            self.sleeping = False
            self.work.notify()

    def finish_lingering(self, now: float) -> None:
        """Let batches be ready that have lingered long enough; all, if somebody needs the room."""
        lingering = self.lingering
        while lingering:
            deadline, queue, batch = lingering[0]
            if queue.batch is batch:
                if deadline > now and not self.waiting:
                    return
                self.finish(queue)
                self.handed_over[queue] = None
            lingering.popleft()

    def finish_all(self) -> None:
        """Let every batch be ready, and leave it to the sender."""
        for queue in list(self.incomplete.values()):
            self.finish(queue)
            if queue.ready:
                self.handed_over[queue] = None
        self.lingering.clear()
        self.wake()

    def next_deadline(self) -> float | None:
        """When there is something for the sender, unless somebody wakes it before."""
        deadlines = [queue.retry_at for queue in self.handed_over if queue.retry_at is not None]
        if self.lingering:
            deadlines.append(self.lingering[0][0])
        return min(deadlines, default=None)

    # Without ----------------------------------------------------------------------------------

    def end(self, batch: PendingBatch, error: Exception | None = None) -> None:
        """A batch was delivered, or ``error`` says why not. The first word counts; to say it once
        more does what Ctrl-C may have left undone."""
        with self.mutex:
            if not batch.done:
                batch.end(error)
            self.free += batch.reserved
            batch.reserved = 0
            if self.waiting:
                self.room.notify_all()
            if batch.callbacks:
                self.to_be_told.append(batch)
                self.wake()
            else:
                self._done_with(batch)

    def _done_with(self, batch: PendingBatch) -> None:
        self.incomplete.pop(batch, None)
        if self.flushing:
            self.progress.notify_all()

    def add_callback(
        self, batch: PendingBatch, index: int, timestamp: int, callback: OnDelivery
    ) -> None:
        """Call ``callback`` when the batch is done, also if it is already."""
        with self.mutex:
            batch.tell(index, timestamp, callback)
            if batch.done:
                self.to_be_told.append(batch)
                self.wake()

    def tell(self) -> Iterator[None]:
        """Call the callbacks of batches that are done, one batch at each step."""
        while self.to_be_told:
            batch = self.to_be_told.popleft()
            with self.mutex:
                callbacks, batch.callbacks = batch.callbacks or [], None
            for index, timestamp, callback in callbacks:
                error = batch.error
                metadata = batch.metadata(index, timestamp) if error is None else None
                try:
                    callback(metadata, error)
                except Exception:  # noqa: BLE001 - whatever it is, the others are called
                    _log.exception("a callback of a producer failed")
            with self.mutex:
                self._done_with(batch)
            yield

    def flush(self, batches: list[PendingBatch], timeout: float | None) -> int:
        """Wait until these are done with; return how many are not after ``timeout`` seconds."""
        deadline = None if timeout is None else self._clock.monotonic() + timeout
        with self.mutex:
            self.flushing += 1
            try:
                while True:
                    batches = [batch for batch in batches if batch in self.incomplete]
                    left = None if deadline is None else deadline - self._clock.monotonic()
                    if not batches or (left is not None and left <= 0):
                        return len(batches)
                    self.progress.wait(left)
            finally:
                self.flushing -= 1
