"""A share consumer: acquires records, and says what became of them.

What it has acquired is its own for as long as the group's locks last. In the implicit mode it
accepts what it got when it comes for more; something else can be said of a record before. In the
explicit mode something has to be said of each.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator
from itertools import islice
from operator import length_hint
from types import TracebackType

from logstore.errors import (
    ClosedError,
    ForkedError,
    InvalidInputError,
    LeaseExpiredError,
    LogstoreError,
    UnknownTopicError,
)
from logstore.queues.pulling import Puller
from logstore.queues.registration import Registration
from logstore.shares.config import MAX_LOCKS, ShareConsumerConfig
from logstore.shares.group import Selection
from logstore.shares.record import AcknowledgeType, ShareRecord
from logstore.waiting import check_timeout

__all__ = ["ShareConsumer"]

_log = logging.getLogger("logstore")


class ShareConsumer:
    """Reads topics as one of a share group. For one thread at a time, but records may be
    acknowledged, and it may be closed, in others."""

    def __init__(
        self,
        registration: Registration,
        selection: Selection,
        config: ShareConsumerConfig,
        *,
        checkpoint: Callable[[], object],
        abandon: Callable[[], object],
    ) -> None:
        """``checkpoint`` puts what the group has come to on stable storage; ``abandon`` is called
        when nobody holds the consumer any more, and it was not closed."""
        self._registration = registration
        self._selection = selection
        self._config = config
        self._checkpoint = checkpoint
        self._channel = registration.channel
        self._clock = selection.clock
        self._puller = Puller(registration, abandon=abandon)
        self._explicit = config.share_acknowledgement_mode == "explicit"
        self._pid = os.getpid()
        self._mutex = threading.RLock()
        """Held while the consumer is at work."""
        self._batch: list[ShareRecord] = []
        """What the iterator is handing out; ``registration.left`` says how much of it."""
        self._closed = False

    @property
    def group(self) -> str:
        """The share group's name."""
        return self._config.group

    @property
    def member_id(self) -> str:
        """Its name in descriptions of the group."""
        return self._registration.row.tag

    @property
    def topics(self) -> frozenset[str]:
        """The topics that it reads."""
        return self._selection.topics()

    @property
    def unacknowledged(self) -> int:
        """How many records it holds that were neither accepted nor released nor rejected."""
        return self._registration.unacked

    @property
    def acquisition_lock_timeout_ms(self) -> int:
        """How long what it acquires, or renews, is its own, as of the last ``poll``."""
        return self._selection.lease_ms

    # Reading ----------------------------------------------------------------------------------

    def poll(
        self, max_records: int | None = None, timeout: float | None = 0.0
    ) -> list[ShareRecord]:
        """Acquire up to ``max_records`` (``max_poll_records``) records, each partition's in order
        of their offsets, those that came back among them.

        Waits up to ``timeout`` seconds (None: for ever) for the first one. In the implicit mode it
        accepts what earlier calls returned, but for what something else was said of; what was
        accepted too late is delivered again, and a warning is logged. In the explicit mode it
        raises InvalidInputError while there are records that nothing was said of; those that were
        renewed stay with whoever has them. Raises UnknownTopicError when no topic that was named is
        left, UnknownGroupError when the group was deleted, what the log raises for damage, and
        ClosedError.
        """
        most = self._config.max_poll_records if max_records is None else max_records
        if type(most) is not int or not 1 <= most <= MAX_LOCKS:
            raise InvalidInputError(
                f"max_records={most!r:.50} is out of bounds: an int of 1 to {MAX_LOCKS}"
            )
        check_timeout(timeout)
        with self._mutex:
            self._check_usable()
            self._batch = []
            self._settle()
            if not self._fill(timeout, most):
                return []
            return list(islice(self._registration.left, most))

    def __iter__(self) -> Iterator[ShareRecord]:
        """The records, one by one; waits for more for ever, or ``consumer_timeout_ms`` long. Ends
        when the consumer is closed. Raises what ``poll`` raises."""
        milliseconds = self._config.consumer_timeout_ms
        timeout = None if milliseconds < 0 else milliseconds / 1000
        while True:
            with self._mutex:
                self._check_usable()
                self._batch = []
                if not length_hint(self._registration.left):
                    self._settle()
                if not self._fill(timeout, self._config.max_poll_records):
                    return
                self._batch = self._registration.fetched
            yield from self._registration.left
            if self._closed:
                return

    def _settle(self) -> None:
        """What came before more may be acquired."""
        if not self._explicit:
            self._tolerantly(lambda: self._channel.ack_seen(self._registration))
        elif self._registration.unacked:
            silent = self._channel.silent_count(self._registration)
            if silent:
                raise InvalidInputError(
                    f"{silent} records of the last poll are not acknowledged "
                    "(share_acknowledgement_mode='explicit')"
                )

    def _tolerantly(self, action: Callable[[], object]) -> None:
        """What was acknowledged too late is no error of whoever comes for more (KIP-932)."""
        try:
            action()
        except LeaseExpiredError as error:
            _log.warning("%s: %s", self._selection.name, error)

    def _fill(self, timeout: float | None, most: int) -> bool:
        most += self._registration.unacked  # those that were renewed stay with whoever has them
        deadline = None if timeout is None else self._clock.monotonic() + timeout
        while True:
            left = None if deadline is None else max(0.0, deadline - self._clock.monotonic())
            before = self._selection.definitions
            try:
                found = self._puller.pull(left, most)
                self._tolerantly(self._channel.tell_late)  # of what went to the ledgers with it
                return found
            except LeaseExpiredError as error:
                _log.warning("%s: %s", self._selection.name, error)
            except UnknownTopicError:
                self._selection.levels()  # raises where nothing is left to read
                if self._selection.definitions is before:
                    raise

    # Acknowledging ----------------------------------------------------------------------------

    def acknowledge(
        self, record: ShareRecord, kind: AcknowledgeType = AcknowledgeType.ACCEPT
    ) -> None:
        """Say what becomes of a record; see ``ShareRecord.accept``, ``release``, ``reject`` and
        ``renew``."""
        if not isinstance(kind, AcknowledgeType):
            raise InvalidInputError(f"{kind!r:.80} is no AcknowledgeType")
        record.acknowledge(kind)

    def commit(self, *, durable: bool = False) -> None:
        """Bring what was acknowledged to the group's ledgers; in the implicit mode that is all that
        was handed out (Kafka's ``commitSync``).

        Survives the process when it returns; with ``durable`` a power cut, too. Raises
        LeaseExpiredError where records were acknowledged too late: others may have them by now.
        """
        with self._mutex:
            self._check_usable()
            if not self._explicit:
                self._channel.ack_seen(self._registration)
            self._channel.flush()
            if durable:
                self._checkpoint()

    # Life -------------------------------------------------------------------------------------

    def _check_usable(self) -> None:
        if os.getpid() != self._pid:
            raise ForkedError(
                "this share consumer belongs to the parent process; open the store again"
            )
        if self._closed or self._channel.is_closed:
            raise ClosedError("the share consumer was closed")

    def close(self) -> None:
        """Bring what was acknowledged to the ledgers, and release the rest; what was not handed out
        yet comes back as if it had not been delivered. Closing twice is allowed. Raises
        LeaseExpiredError for what was acknowledged too late.

        Leaving a ``with`` block without an error commits first; with one, a loop over the consumer
        accepts what it was done with, in the implicit mode.
        """
        if self._closed or os.getpid() != self._pid:
            return
        self._closed = True
        try:
            self._registration.close()
        finally:
            self._puller.close()

    def _accept_finished(self) -> None:
        """A loop came for the next record: it was done with all before it."""
        count = len(self._batch) - length_hint(self._registration.left) - 1
        for record in self._batch[: max(0, count)]:
            if record.is_open():
                record.accept()

    def __enter__(self) -> ShareConsumer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if not (self._closed or self._explicit or self._channel.is_closed):
                if error is None:
                    self.commit()
                else:
                    self._accept_finished()
        except LogstoreError:
            if error is None:  # otherwise it follows from the error that is on its way
                raise
        finally:
            try:
                self.close()
            except LogstoreError:
                if error is None:
                    raise

    def __repr__(self) -> str:
        topics = ", ".join(sorted(self.topics))
        return f"ShareConsumer({self.group!r}, {topics})"
