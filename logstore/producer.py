"""Sending records to topics: in batches, in order, and each of them once.

``send`` puts a record into the batch that is being filled for its partition, and gives a future.
How batches go from there, and what is tried again, stands in ``logstore.sender``; what
``acks`` promises, in ``docs/architecture.md``; when to use a producer, in ``docs/producer.md``.
"""

from __future__ import annotations

import random
import threading
import warnings
from collections.abc import Iterable
from functools import lru_cache, partial

from logstore import fork
from logstore.accumulator import RECORD_OVERHEAD, Accumulator, PartitionQueue
from logstore.clock import Clock
from logstore.delivery import DeliveryFuture, OnDelivery, RecordMetadata
from logstore.errors import (
    BufferExhaustedError,
    ClosedError,
    ForkedError,
    InvalidInputError,
)
from logstore.partitioner import murmur2
from logstore.producer_config import ProducerConfig
from logstore.producer_ids import Identity, ProducerIds
from logstore.segments.batch import HEADER_BYTES
from logstore.segments.record import Header, Record
from logstore.sender import Sender
from logstore.subscription import Topics
from logstore.topic import Topic

__all__ = ["DeliveryFuture", "Producer", "RecordMetadata"]

_LOOK_AT_TOPICS_SECONDS = 1.0
"""How often a producer looks whether a topic has more partitions by now."""
_HASHES = 1 << 14
"""Keys whose hashes are remembered."""
_MAX_TIMESTAMP = (1 << 63) - 1

Bytes = bytes | bytearray | memoryview
"""What is taken for bytes; it is copied unless nobody can change it."""

_new_record = partial(tuple.__new__, Record)
_hash = lru_cache(maxsize=_HASHES)(murmur2)


class _TopicQueues:
    """The queues of a topic's partitions, as far as they were needed."""

    __slots__ = ("count", "looked_at", "queues", "sticky", "topic")

    def __init__(self, topic: Topic, now: float) -> None:
        self.topic = topic
        self.count = topic.partition_count
        self.looked_at = now
        self.queues: dict[int, PartitionQueue] = {}
        self.sticky: PartitionQueue | None = None
        """Where records without a key go, until its batch is full."""


class Producer:
    """Sends records to topics; see ``Store.producer``. Usable from many threads.

    The context manager closes it, which delivers what was sent, also when an error leaves the
    block.
    """

    _unclosed = False

    def __init__(
        self,
        topics: Topics,
        ids: ProducerIds,
        config: ProducerConfig,
        *,
        clock: Clock,
        rng: random.Random | None = None,
    ) -> None:
        self.config = config
        self._topics = topics
        self._clock = clock
        self._now_ms = clock.now_ms
        self._rng = rng or random.Random()
        self._accumulator = Accumulator(config, clock)
        self._mutex = self._accumulator.mutex
        self._queues: dict[str, _TopicQueues] = {}
        self._identity: Identity | None = None
        name = config.producer_name
        if config.enable_idempotence:
            self._identity = ids.take() if name is None else ids.start(name)
        self._sender = Sender(
            self._accumulator,
            config,
            clock,
            self._identity,
            name=f"logstore producer {name or ''}".strip(),
            current=None if name is None else partial(ids.current, name),
        )
        self._partitioner = config.partitioner
        self._largest = min(config.max_request_size, config.buffer_memory) - HEADER_BYTES
        """Bytes of a record, at most."""
        self._lingers = config.linger_ms > 0 and config.batch_size > 0
        self._refusal: type[ClosedError | ForkedError] | None = None
        """Why nothing can be sent any more, if so."""
        fork.remember(self)
        self._unclosed = True

    # Sending ----------------------------------------------------------------------------------

    def send(
        self,
        topic: str,
        value: Bytes | None = None,
        key: Bytes | None = None,
        headers: Iterable[tuple[str, Bytes | None]] = (),
        partition: int | None = None,
        timestamp: int | None = None,
        on_delivery: OnDelivery | None = None,
    ) -> DeliveryFuture:
        """Send a record, and return a future of where it goes.

        ``timestamp``: milliseconds since 1970-01-01 UTC (None: now). ``on_delivery`` is called with
        a RecordMetadata and None, or with None and an error, in the producer's own thread.

        What the caller has to put right raises at once: InvalidInputError, UnknownTopicError,
        BufferExhaustedError when there was no room for ``max_block_ms``, ProducerFencedError,
        ClosedError. What happens later reaches the future and ``on_delivery``.
        """
        if type(value) is bytes:
            size = RECORD_OVERHEAD + len(value)
        else:
            value, size = _checked("value", value)
        if key is not None:
            key, more = _checked("key", key)
            size += more
        if headers:
            headers, more = _checked_headers(headers)
            size += more
        if timestamp is None:
            timestamp = self._now_ms()
        elif type(timestamp) is not int or not 0 <= timestamp <= _MAX_TIMESTAMP:
            raise InvalidInputError(
                f"timestamp={timestamp!r} is out of bounds: 0 to {_MAX_TIMESTAMP} milliseconds"
            )
        record = _new_record((-1, timestamp, key, value, headers))
        queues = self._queues.get(topic)
        queue: PartitionQueue | None
        if queues is None or key is not None or partition is not None or self._partitioner:
            queue = self._choose(topic, key, value, partition)
        else:
            queue = queues.sticky
        with self._mutex:
            if queue is not None and (batch := queue.batch) is not None:
                filled = batch.size + size
                if filled <= queue.limit and self._refusal is None:
                    batch.size = filled
                    records = batch.records
                    future = DeliveryFuture(batch, len(records), timestamp)
                    records.append(record)
                    if on_delivery is not None:
                        batch.tell(len(records) - 1, timestamp, on_delivery)
                    return future
        sticky = key is None and partition is None and self._partitioner is None
        return self._send_in_new_batch(topic, queue, record, size, on_delivery, sticky)

    def _send_in_new_batch(
        self,
        topic: str,
        queue: PartitionQueue | None,
        record: Record,
        size: int,
        on_delivery: OnDelivery | None,
        sticky: bool,
    ) -> DeliveryFuture:
        """``send`` where the record does not fit into the batch that is being filled. ``sticky``:
        it may go to any partition, and ``queue`` is where the last one went, if one did."""
        self._check_usable()
        if size > self._largest:
            raise self._too_large(size)
        accumulator, sender = self._accumulator, self._sender
        if queue is not None:
            with self._mutex:
                if queue.batch is not None and queue.batch.size + size > queue.limit:
                    accumulator.finish(queue)
            sender.deliver(queue)
        queues = self._look_up(topic, again=queue is not None and queue.is_stale)
        if sticky:
            queue = queues.sticky = self._queue(queues, self._any_partition(queues))
        elif queue is None or queue is not queues.queues.get(queue.number):
            queue = self._queue(queues, 0 if queue is None else queue.number)
        deadline: float | None = None
        while True:
            with self._mutex:
                self._check_usable()
                batch = queue.batch
                if batch is not None and batch.size and batch.size + size > queue.limit:
                    accumulator.finish(queue)
                    accumulator.hand_over(queue)
                    batch = None
                if batch is None:
                    sender.start()
                    batch = accumulator.begin(queue, size)
                if batch is not None:
                    batch.size += size
                    index = len(batch.records)
                    batch.records.append(record)
                    if on_delivery is not None:
                        batch.tell(index, record.timestamp, on_delivery)
                    if not self._lingers:
                        accumulator.finish(queue)
                    break
                deadline = self._wait_for_room(size, deadline)
        if not self._lingers:
            sender.deliver(queue)
        return DeliveryFuture(batch, index, record.timestamp)

    def _wait_for_room(self, size: int, deadline: float | None) -> float:
        """Wait for a part of the buffer; with the mutex in hand. Returns when that has to end."""
        now = self._clock.monotonic()
        if deadline is None:
            deadline = now + self.config.max_block_ms / 1000
        accumulator = self._accumulator
        # A callback would wait for itself.
        if now >= deadline or self._sender.is_own_thread:
            raise BufferExhaustedError(
                f"no room for a record of {size} bytes within "
                f"max_block_ms={self.config.max_block_ms}: all of "
                f"buffer_memory={self.config.buffer_memory} is taken by records on their way"
            )
        try:
            accumulator.waiting += 1
            accumulator.wake()
            accumulator.room.wait(deadline - now)
        finally:
            accumulator.waiting -= 1
        return deadline

    def _too_large(self, size: int) -> InvalidInputError:
        size += HEADER_BYTES
        name = "max_request_size" if size > self.config.max_request_size else "buffer_memory"
        return InvalidInputError(
            f"a record that takes up to {size} bytes with its batch is too large: "
            f"{name}={getattr(self.config, name)}"
        )

    # Partitions -------------------------------------------------------------------------------

    def _choose(
        self, topic: str, key: bytes | None, value: bytes | None, partition: int | None
    ) -> PartitionQueue | None:
        """The queue of the partition that a record belongs to; None if it may go to any."""
        queues = self._queues.get(topic) or self._look_up(topic)
        if partition is None:
            if self._partitioner is not None:
                partition = self._partitioner(topic, key, value, queues.count)
                if type(partition) is not int or not 0 <= partition < queues.count:
                    raise InvalidInputError(
                        f"the partitioner chose {partition!r} for topic {topic!r}: it has to be "
                        f"0 to {queues.count - 1}"
                    )
            elif key is None:
                return queues.sticky
            else:
                partition = (_hash(key) & 0x7FFFFFFF) % queues.count
        return queues.queues.get(partition) or self._queue(queues, partition)

    def _look_up(self, topic: str, *, again: bool = False) -> _TopicQueues:
        """A topic as it is by now, give or take a second."""
        now = self._clock.monotonic()
        queues = self._queues.get(topic)
        if queues is None or again or now - queues.looked_at >= _LOOK_AT_TOPICS_SECONDS:
            self._check_usable()
            found = self._topics.writable(topic)
            with self._mutex:
                queues = self._queues.get(topic)
                if queues is None or found is not queues.topic:
                    queues = self._queues[topic] = _TopicQueues(found, now)
            queues.count = found.partition_count
            queues.looked_at = now
        return queues

    def _queue(self, queues: _TopicQueues, number: int) -> PartitionQueue:
        """The queue of a partition; raises UnknownTopicError for one that is not there."""
        queue = queues.queues.get(number)
        if queue is None:
            log = queues.topic.partition(number)
            queue = PartitionQueue(queues.topic.name, number, log, self.config)
            with self._mutex:
                queue = queues.queues.setdefault(number, queue)
        return queue

    def _any_partition(self, queues: _TopicQueues) -> int:
        """Another one than the last, if there is one."""
        count, last = queues.count, queues.sticky
        if count == 1:
            return 0
        if last is None:
            return self._rng.randrange(count)
        number = self._rng.randrange(count - 1)
        return number + (number >= last.number)

    # Waiting ----------------------------------------------------------------------------------

    def flush(self, timeout: float | None = None) -> None:
        """Return when everything that was sent before the call is delivered, or has failed, and its
        callbacks have been called; raises TimeoutError after ``timeout`` seconds (None: never)."""
        self._check_usable()
        if self._sender.is_own_thread:
            raise InvalidInputError("a callback cannot wait for a flush: it is part of it")
        accumulator = self._accumulator
        with self._mutex:
            batches = list(accumulator.incomplete)
            accumulator.finish_all()
            queues = [queue for queue in accumulator.handed_over if queue.retry_at is None]
            for queue in queues:
                del accumulator.handed_over[queue]
        for queue in queues:
            self._sender.deliver(queue)
        left = accumulator.flush(batches, timeout)
        if left:
            raise TimeoutError(f"{left} batches were not delivered within {timeout:g} seconds")

    def next_sequence(self, topic: str, partition: int) -> int:
        """The sequence number of the next record that is sent to a partition.

        For a producer with a name that is how many records all its instances together have sent
        there (up to 2^31, behind which it begins at 0): whoever starts again goes on with that
        record, and nothing is lost or doubled. What is sent from then on relies on that number:
        where another instance of the same name writes in between, it fails. Raises
        InvalidInputError without ``enable_idempotence``, ProducerFencedError, UnknownTopicError.
        """
        self._check_usable()
        if self._identity is None:
            raise InvalidInputError("next_sequence needs enable_idempotence")
        queue = self._queue(self._look_up(topic), partition)
        return self._sender.next_sequence_to_send(queue)

    @property
    def buffered_bytes(self) -> int:
        """How much of ``buffer_memory`` is taken."""
        return self.config.buffer_memory - self._accumulator.free

    # Life -------------------------------------------------------------------------------------

    def _check_usable(self) -> None:
        if self._refusal is ForkedError:
            raise ForkedError("this producer belongs to the parent process; make another one")
        if self._refusal is not None:
            raise self._refusal("the producer was closed")
        if self._sender.fatal is not None:
            raise self._sender.fatal

    def close(self, timeout: float | None = None) -> None:
        """Deliver what was sent, and let go; closing twice is allowed.

        What is not delivered after ``timeout`` seconds (None: as long as its
        ``delivery_timeout_ms`` allows) is given up, with a ClosedError.
        """
        if self._refusal is ForkedError:
            return
        self._unclosed = False
        with self._mutex:
            self._refusal = self._refusal or ClosedError
            self._accumulator.finish_all()
            self._sender.finish()
        if not self._sender.join(timeout):
            self._sender.abort(ClosedError("the producer was closed before it was delivered"))
        fork.forget(self)

    def __enter__(self) -> Producer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if self._unclosed and self._sender.started:
            # This may run in any thread at any moment, even where that one has the mutex. The
            # sender delivers what there is, as long as the process lives.
            self._sender.let_go()
            warnings.warn(f"unclosed producer {self!r}", ResourceWarning, stacklevel=2, source=self)

    def __repr__(self) -> str:
        name = self.config.producer_name
        return f"Producer({'' if name is None else repr(name)})"

    def forked(self) -> None:
        """In a child process: what was not delivered is the parent's to deliver."""
        self._refusal = ForkedError
        self._unclosed = False
        self._mutex = threading.Lock()  # the other one may be held by a thread that is not here
        for batch in self._accumulator.incomplete:
            batch.end(ForkedError("this record is on its way in the parent process"))


def _checked(what: str, field: object) -> tuple[bytes | None, int]:
    """A key or a value as bytes that nobody changes any more, and their number."""
    if field is None:
        return None, RECORD_OVERHEAD if what == "value" else 0
    if not isinstance(field, (bytes, bytearray, memoryview)):
        raise InvalidInputError(f"a {what} is bytes or None, not {type(field).__name__}")
    data = bytes(field)
    return data, len(data) + (RECORD_OVERHEAD if what == "value" else 0)


_HEADER_OVERHEAD = 10
"""Bytes of a header besides its name and value, at most: their lengths."""


def _checked_headers(headers: object) -> tuple[tuple[Header, ...], int]:
    """Headers as pairs, and how many bytes they take at most."""
    found: list[Header] = []
    size = 4  # of their count
    try:
        for name, value in headers:  # type: ignore[attr-defined]
            if not isinstance(name, str):
                raise TypeError(f"a name is {type(name).__name__}, not str")
            if value is not None and not isinstance(value, (bytes, bytearray, memoryview)):
                raise TypeError(f"the value of {name!r} is {type(value).__name__}, not bytes")
            data = None if value is None else bytes(value)
            found.append((name, data))
            size += _HEADER_OVERHEAD + 4 * len(name) + len(data or b"")
    except (TypeError, ValueError) as error:
        raise InvalidInputError(f"headers are pairs of a name and bytes or None: {error}") from None
    return tuple(found), size
