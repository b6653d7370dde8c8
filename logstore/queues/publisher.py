"""Publishing without waiting: a thread sends what was published meanwhile, and confirms it.

Each message gets a future, which is done once the message is confirmed. What waits while one batch
is written and synced goes out as the next one, so that many messages share an append and a sync.
The buffer is bounded: who publishes faster than the disk takes it waits.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple

from logstore.appending import Acks, check_acks
from logstore.errors import (
    ClosedError,
    ForkedError,
    InvalidInputError,
    LogstoreError,
)
from logstore.queues.properties import Envelope, Properties
from logstore.queues.publishing import (
    Confirm,
    Confirms,
    OnReturn,
    Returned,
    check_message,
    error_of,
    return_unroutable,
    with_properties,
)

__all__ = ["Publisher"]

_log = logging.getLogger("logstore")

_BATCH_MESSAGES = 2000
_BATCH_BYTES = 1 << 20
_DONE: Confirm = Confirm(())


class _Waiting(NamedTuple):
    envelope: Envelope
    mandatory: bool
    future: Future[Confirm] | None
    """None for ``acks=0``: it was done at once."""


class Publisher:
    """Publishes to one exchange in the background. Usable from many threads."""

    def __init__(
        self,
        send: Callable[[Sequence[Envelope], Acks], Confirms],
        *,
        exchange: str,
        forget: Callable[[Publisher], None],
        acks: Acks = "all",
        max_buffered: int = 10_000,
        max_buffered_bytes: int = 64 << 20,
        on_return: OnReturn | None = None,
    ) -> None:
        """``max_buffered`` messages, or as many as have ``max_buffered_bytes`` in their bodies, may
        wait. ``on_return`` is called, in the publisher's thread, with each mandatory message that
        no queue got."""
        check_acks(acks)
        for name, value in (
            ("max_buffered", max_buffered),
            ("max_buffered_bytes", max_buffered_bytes),
        ):
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise InvalidInputError(f"{name}={value!r:.80} is out of bounds: an int from 1 on")
        self._send = send
        self._exchange = exchange
        self._forget = forget
        self._acks: Acks = acks
        self._max_buffered = max_buffered
        self._max_buffered_bytes = max_buffered_bytes
        self._on_return = on_return
        self._pid = os.getpid()
        self._condition = threading.Condition()
        """Held to touch what follows; notified when any of it changes."""
        self._buffer: deque[_Waiting] = deque()
        self._bytes = 0
        """Of the bodies in the buffer."""
        self._published = 0
        """Messages that were put into the buffer so far."""
        self._settled = 0
        """Those among them that were confirmed, or were not and never will be."""
        self._failed = 0
        """Those that were not, since somebody last waited for confirms."""
        self._closing = False
        self._thread = threading.Thread(
            target=self._run, name=f"logstore publisher to {exchange!r}", daemon=True
        )
        self._thread.start()

    def publish(
        self,
        body: bytes,
        routing_key: str = "",
        *,
        properties: Properties | None = None,
        mandatory: bool = False,
        timeout: float | None = None,
        **given: Any,
    ) -> Future[Confirm]:
        """Publish a message; the future is done when it is confirmed.

        Its result is a Confirm; its exception is NackedError where a queue refused the message,
        UnroutableError where it is ``mandatory``, no queue got it and there is no ``on_return``,
        or what appending raised. With ``acks=0`` it is done at once, and says nothing. Headers must
        not be changed until then. Waits while the buffer is full, up to ``timeout`` seconds, and
        raises TimeoutError.
        """
        made = with_properties(properties, given)
        check_message(body, routing_key, made)
        future: Future[Confirm] = Future()
        envelope = Envelope(body, made, self._exchange, routing_key)
        waiting = _Waiting(envelope, mandatory, None if self._acks == 0 else future)
        with self._condition:
            self._wait_until(lambda: self._has_room(len(body)), timeout, "there is no room")
            self._check_open()
            self._buffer.append(waiting)
            self._bytes += len(body)
            self._published += 1
            self._condition.notify_all()
        if self._acks == 0:
            future.set_result(_DONE)
        return future

    def _has_room(self, size: int) -> bool:
        return (
            self._closing
            or not self._buffer
            or (
                len(self._buffer) < self._max_buffered
                and self._bytes + size <= self._max_buffered_bytes
            )
        )

    def wait_for_confirms(self, timeout: float | None = None) -> bool:
        """Wait until all that was published before the call is settled, ``timeout`` seconds at
        most (then TimeoutError); say whether all of it was confirmed since the last such call."""
        with self._condition:
            upto = self._published
            self._wait_until(lambda: self._settled >= upto, timeout, "not all is confirmed")
            failed, self._failed = self._failed, 0
            return not failed

    def _wait_until(self, done: Callable[[], bool], timeout: float | None, complaint: str) -> None:
        self._check_process()
        if not self._condition.wait_for(done, timeout):
            raise TimeoutError(
                f"publishing to {self._exchange!r}: {complaint} after {timeout} seconds; "
                f"{self._published - self._settled} messages are waiting"
            )

    def _check_process(self) -> None:
        if os.getpid() != self._pid:
            raise ForkedError(
                f"this publisher to {self._exchange!r} belongs to the parent process; open the "
                "store again"
            )

    def _check_open(self) -> None:
        if self._closing:
            raise ClosedError(f"the publisher to {self._exchange!r} was closed")

    # The thread -------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._buffer or self._closing)
                batch = self._take()
            if not batch:
                return
            failed = self._publish(batch)
            with self._condition:
                self._settled += len(batch)
                self._failed += failed
                self._condition.notify_all()

    def _take(self) -> list[_Waiting]:
        batch: list[_Waiting] = []
        size = 0
        while self._buffer and len(batch) < _BATCH_MESSAGES and size < _BATCH_BYTES:
            waiting = self._buffer.popleft()
            size += len(waiting.envelope.body)
            batch.append(waiting)
        self._bytes -= size
        self._condition.notify_all()
        return batch

    def _publish(self, batch: Sequence[_Waiting]) -> int:
        """Send a batch and settle its futures; returns how many messages were not confirmed."""
        try:
            confirms = self._send([waiting.envelope for waiting in batch], self._acks)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is for those who wait
            for waiting in batch:
                _settle(waiting, error)
            if self._acks == 0:
                _log.warning("publishing to %r failed: %s", self._exchange, error)
            return len(batch)
        failed = 0
        for waiting, confirm in zip(batch, confirms, strict=True):
            refusal = self._error_of(waiting, confirm)
            failed += refusal is not None
            _settle(waiting, refusal or confirm)
        return failed

    def _error_of(self, waiting: _Waiting, confirm: Confirm) -> LogstoreError | None:
        """Why a message is not confirmed, if so."""
        if confirm.queues and not confirm.rejected:
            return None
        alone = Confirms.of_one(confirm)
        if waiting.mandatory:
            return_unroutable(alone, lambda index: waiting.envelope, self._told)
        return error_of(alone, returns_told=self._on_return is not None)

    def _told(self, returned: Returned) -> None:
        if self._on_return is not None:
            try:
                self._on_return(returned)
            except Exception:  # noqa: BLE001 - it is somebody else's, and must not end the thread
                _log.exception("on_return of the publisher to %r failed", self._exchange)

    # Life -------------------------------------------------------------------------------------

    def close(self, timeout: float | None = None) -> None:
        """Send what is in the buffer, and end; closing twice is allowed. Raises TimeoutError when
        that takes longer than ``timeout`` seconds."""
        if os.getpid() != self._pid:
            return
        with self._condition:
            self._closing = True
            self._condition.notify_all()
        if self._thread is not threading.current_thread():
            self._thread.join(timeout)
            if self._thread.is_alive():
                raise TimeoutError(
                    f"the publisher to {self._exchange!r} did not send all that it has in "
                    f"{timeout} seconds"
                )
        self._forget(self)

    def __enter__(self) -> Publisher:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _settle(waiting: _Waiting, outcome: Confirm | Exception) -> None:
    future = waiting.future
    if future is None or not future.set_running_or_notify_cancel():
        return  # nobody waits for it
    with contextlib.suppress(BaseException):
        if isinstance(outcome, Exception):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)
