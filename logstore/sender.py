"""Delivering a producer's batches: who writes them, when they are tried again, who is told.

A batch that is full is written by the thread that filled it. To hand it to another thread would
cost more than to write it: in CPython a thread that comes back from a system call waits up to 5 ms
for one that computes. The sender's own thread does the rest: batches that have lingered long
enough, those that have to be tried again, syncs (one for all batches that wait), and callbacks.

The order within a partition is kept because one thread at a time writes its batches (``busy``), the
oldest first, and goes on to the next only when that one is written, or given up. A batch that is
tried again bears the sequence that it was given the first time, so that the log knows it if it is
there already.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import threading
from collections.abc import Callable, Iterator

from logstore.accumulator import Accumulator, PartitionQueue
from logstore.appending import Appended
from logstore.clock import Clock
from logstore.delivery import PendingBatch
from logstore.errors import (
    DeliveryTimeoutError,
    LockTimeoutError,
    OutOfOrderSequenceError,
    ProducerFencedError,
    UnknownTopicError,
)
from logstore.producer_config import ProducerConfig
from logstore.producer_ids import Identity
from logstore.producer_states import ProducerStamp, sequence_after

__all__ = ["Sender"]

_log = logging.getLogger("logstore")

_LOCK_SECONDS = 0.01
"""How long a thread waits for the lock of a partition, before it leaves the batch to the sender;
and how long the sender does, before it looks after other partitions for as long."""
_MUTEX_SECONDS = 0.1

_MAY_PASS = frozenset(
    getattr(errno, name)
    for name in ("ENOSPC", "EDQUOT", "EAGAIN", "EINTR", "ENOMEM", "ENFILE", "EMFILE", "EBUSY")
    if hasattr(errno, name)
)
"""Errors of the operating system that another attempt may not meet."""


def may_pass(error: Exception) -> bool:
    """Whether another attempt may end better: the disk is full, for one."""
    return isinstance(error, OSError) and error.errno in _MAY_PASS


class Sender:
    """What a producer delegates. Usable from many threads; its own is started when it is first
    needed."""

    def __init__(
        self,
        accumulator: Accumulator,
        config: ProducerConfig,
        clock: Clock,
        identity: Identity | None,
        *,
        name: str,
        current: Callable[[], Identity | None] | None,
    ) -> None:
        """``current`` tells a named producer who bears its name by now."""
        self._accumulator = accumulator
        self._config = config
        self._clock = clock
        self._identity = identity
        self._current = current
        self._codec = config.codec
        self._syncs = config.acks == "all"
        self._timeout = config.delivery_timeout_ms / 1000
        self.fatal: Exception | None = None
        """Why nothing can be sent any more."""
        self._closing = False
        self._aborted = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.started = False
        """Whether anything was ever sent."""

    # Threads ----------------------------------------------------------------------------------

    def start(self) -> None:
        """Have the thread run; with the mutex in hand."""
        if not self.started:
            if not self._thread.is_alive():  # Ctrl-C may have come while it was started
                self._thread.start()
            self.started = True

    @property
    def is_own_thread(self) -> bool:
        """Whether the caller is a callback."""
        return threading.current_thread() is self._thread

    def finish(self) -> None:
        """Let the thread end when everything is delivered; with the mutex in hand."""
        self._closing = True
        self._accumulator.wake()

    def let_go(self) -> None:
        """The same for whoever may have the mutex himself, and not know it."""
        self._closing = True
        mutex = self._accumulator.mutex
        if mutex.acquire(timeout=_MUTEX_SECONDS):
            self._accumulator.finish_all()
            self._accumulator.wake()
            mutex.release()

    def join(self, timeout: float | None) -> bool:
        """Wait for the end of the thread, and say whether it has come."""
        if self.started and not self.is_own_thread:
            self._thread.join(timeout)
            return not self._thread.is_alive()
        return True

    def abort(self, error: Exception) -> None:
        """Give up whatever is not delivered."""
        accumulator = self._accumulator
        with accumulator.mutex:
            self._aborted = True
            batches = [batch for batch in accumulator.incomplete if not batch.done]
            accumulator.work.notify()
        for batch in batches:
            accumulator.end(batch, error)

    def _run(self) -> None:
        accumulator = self._accumulator
        while self._wait_for_work():
            with accumulator.mutex:
                now = self._clock.monotonic()
                queues = [
                    queue
                    for queue in accumulator.handed_over
                    if queue.retry_at is None or queue.retry_at <= now
                ]
                for queue in queues:
                    del accumulator.handed_over[queue]
            for queue in queues:
                with self._surviving():
                    self.deliver(queue, patient=True)
            with accumulator.mutex:
                unsynced, accumulator.unsynced = accumulator.unsynced, {}
            for queue in unsynced:
                with self._surviving():
                    self._sync(queue)
            for _ in accumulator.tell():
                pass

    @contextlib.contextmanager
    def _surviving(self) -> Iterator[None]:
        """Whatever happens to one partition, the others are looked after."""
        try:
            yield
        except Exception:  # noqa: BLE001 - whoever sends is told by its futures, if by anything
            _log.exception("a producer's thread met an error")

    def _wait_for_work(self) -> bool:
        """Wait until there is something to do; False when there will be nothing any more."""
        accumulator = self._accumulator
        with accumulator.mutex:
            while not self._aborted:
                now = self._clock.monotonic()
                accumulator.finish_lingering(now)
                if accumulator.unsynced or accumulator.to_be_told:
                    return True
                deadline = accumulator.next_deadline()
                if any(queue.retry_at is None for queue in accumulator.handed_over):
                    return True
                if deadline is not None and deadline <= now:
                    return True
                if self._closing and not accumulator.incomplete:
                    return False
                accumulator.sleeping = True
                accumulator.work.wait(None if deadline is None else deadline - now)
                accumulator.sleeping = False
            return bool(accumulator.to_be_told)

    # Writing ----------------------------------------------------------------------------------

    def deliver(self, queue: PartitionQueue, *, patient: bool = False) -> None:
        """Write the batches of a queue that are ready, unless another thread is at it. What cannot
        be written now is left to the sender, which is ``patient``: it tries again."""
        if queue.retry_at is not None and not patient:
            return
        accumulator = self._accumulator
        while queue.ready:
            mine = False
            try:
                with accumulator.mutex:
                    if queue.busy:
                        return  # who is at it looks for more when he is done
                    queue.busy = mine = True
                while queue.ready and self._write(queue, queue.ready[0]):
                    queue.ready.popleft()
            finally:
                if mine:
                    queue.busy = False
                    if queue.ready:  # Ctrl-C, too, leaves the rest to the sender
                        with accumulator.mutex:
                            accumulator.hand_over(queue)
                        mine = False
            if not mine:
                return

    def _write(self, queue: PartitionQueue, batch: PendingBatch) -> bool:
        """Write a batch, or give it up; False if it is to be tried again later."""
        if batch.done:  # given up meanwhile, or delivered just ahead of Ctrl-C
            self._accumulator.end(batch)
            return True
        if batch.base_offset < 0:
            if self.fatal is not None:
                self._fail(queue, batch, self.fatal)
                return True
            try:
                appended = self._append(queue, batch)
            except Exception as error:  # noqa: BLE001 - it goes to the futures
                return self._failed(queue, batch, error)
            if queue.config is not queue.log.config:
                queue.configure(self._config)
            if queue.append_time:
                batch.timestamp = appended.timestamp
            queue.retry_at = None
            batch.base_offset = appended.base_offset
        if self._syncs:
            with self._accumulator.mutex:
                if not queue.written or queue.written[-1] is not batch:
                    queue.written.append(batch)
                self._accumulator.unsynced[queue] = None
                self._accumulator.wake()
        else:
            self._accumulator.end(batch)
        return True

    def _append(self, queue: PartitionQueue, batch: PendingBatch) -> Appended:
        if self._expired(batch):
            raise _ExpiredError
        stamp = None
        identity = self._identity
        if identity is not None:
            if self._current is not None:
                self._check_fenced(identity)
            sequence = batch.sequence
            if sequence is None:
                sequence = batch.sequence = self.next_sequence(queue, _LOCK_SECONDS)
            stamp = ProducerStamp(identity.producer_id, identity.epoch, sequence)
        batch.attempts += 1
        records = batch.records
        appended = queue.log.append(
            records,
            acks=1,
            codec=self._codec,
            level=self._config.compression_level,
            producer=stamp,
            timeout=_LOCK_SECONDS,
        )
        if stamp is not None:
            queue.next_sequence = sequence_after(stamp.sequence, len(records))
        return appended

    def next_sequence(self, queue: PartitionQueue, timeout: float | None) -> int:
        """The sequence of the next record of a partition, as the log knows it. For whoever has
        made the queue ``busy``."""
        if queue.next_sequence is None:
            identity = self._identity
            assert identity is not None
            sequence = 0
            for producer_id in (identity.producer_id, *reversed(identity.before)):
                state = queue.log.producer_state(producer_id, timeout=timeout)
                if state is not None:
                    if producer_id == identity.producer_id and state.epoch > identity.epoch:
                        raise ProducerFencedError(self._fenced(state.epoch))
                    sequence = state.next_sequence
                    break
            queue.next_sequence = sequence
        return queue.next_sequence

    def next_sequence_to_send(self, queue: PartitionQueue) -> int:
        """The same behind everything that waits. The program relies on it from now on."""
        mutex = self._accumulator.mutex
        mine = False
        try:
            while not mine:
                with mutex:
                    if not queue.busy:
                        queue.busy = mine = True
                if not mine:
                    self._clock.sleep(0.001)
            if self._current is not None and self._identity is not None:
                self._check_fenced(self._identity)
            sequence = self.next_sequence(queue, None)
            queue.pinned = True
            with mutex:
                waiting = [*queue.ready, *([queue.batch] if queue.batch else [])]
                return sequence_after(sequence, sum(len(batch.records) for batch in waiting))
        finally:
            if mine:
                queue.busy = False
                self.deliver(queue)

    def _check_fenced(self, identity: Identity) -> None:
        assert self._current is not None
        current = self._current()
        if current is not None and current != identity:
            raise ProducerFencedError(self._fenced(current.epoch))

    def _fenced(self, epoch: int) -> str:
        assert self._identity is not None
        return (
            f"producer {self._config.producer_name or self._identity.producer_id!r} is fenced: "
            f"another instance of it was started, with epoch {epoch}; this one has "
            f"{self._identity.epoch}"
        )

    # When it fails ----------------------------------------------------------------------------

    def _failed(self, queue: PartitionQueue, batch: PendingBatch, error: Exception) -> bool:
        """Decide what becomes of a batch that was not written: whether it is done with."""
        now = self._clock.monotonic()
        if isinstance(error, OutOfOrderSequenceError) and not queue.pinned and batch.attempts == 1:
            # Nobody relies on the number: another instance may have written a moment ago.
            queue.next_sequence = batch.sequence = None
            queue.retry_at = now
            return False
        if isinstance(error, LockTimeoutError):  # the same attempt goes on waiting
            batch.attempts = max(batch.attempts - 1, 0)
            batch.error = error
            queue.retry_at = now + _LOCK_SECONDS
            return False
        if may_pass(error) and batch.attempts <= self._config.retries:
            batch.error = error
            backoff = self._config.retry_backoff_ms * 2 ** min(max(batch.attempts - 1, 0), 30)
            pause = min(backoff, self._config.retry_backoff_max_ms) / 1000
            queue.retry_at = min(now + pause, batch.created + self._timeout)
            return False
        if isinstance(error, _ExpiredError):
            error = self._timed_out(batch)
        if isinstance(error, ProducerFencedError):
            self.fatal = error
        self._fail(queue, batch, error)
        return True

    def _fail(self, queue: PartitionQueue, batch: PendingBatch, error: Exception) -> None:
        queue.retry_at = None
        queue.is_stale = isinstance(error, UnknownTopicError)
        if not queue.pinned:
            queue.next_sequence = None  # the log knows whether it was written after all
        if batch.unwatched:
            _log.warning(
                "%d records for partition %d of %r were not delivered: %s",
                len(batch.records),
                batch.partition,
                batch.topic,
                error,
            )
        self._accumulator.end(batch, error)

    def _expired(self, batch: PendingBatch) -> bool:
        return self._clock.monotonic() >= batch.created + self._timeout

    def _timed_out(self, batch: PendingBatch) -> DeliveryTimeoutError:
        last = batch.error
        error = DeliveryTimeoutError(
            f"{len(batch.records)} records for partition {batch.partition} of {batch.topic!r} "
            f"could not be written within delivery_timeout_ms={self._config.delivery_timeout_ms}, "
            f"in {batch.attempts} attempts; the last one: {last or 'none'}"
        )
        error.__cause__ = last
        return error

    # Syncing ----------------------------------------------------------------------------------

    def _sync(self, queue: PartitionQueue) -> None:
        """Sync what is written, and end its batches."""
        batches = list(queue.written)
        error: Exception | None = None
        try:
            queue.log.flush()
        except LockTimeoutError:
            # It is synced, and could not be noted as such.
            if not self._expired(batches[0]):
                with self._accumulator.mutex:
                    self._accumulator.unsynced[queue] = None
                return
        except Exception as failure:  # noqa: BLE001 - it goes to the futures
            error = failure
        for batch in batches:
            queue.written.popleft()
            self._accumulator.end(batch, error)


class _ExpiredError(Exception):
    """The batch has waited for too long."""
