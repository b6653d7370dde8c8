"""Publishing in the background: futures, a bounded buffer, callbacks, closing."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

import logstore
from logstore import (
    ClosedError,
    ForkedError,
    InvalidInputError,
    NackedError,
    Store,
    UnknownExchangeError,
    UnroutableError,
)
from logstore.queues.properties import Envelope
from logstore.queues.publisher import Publisher
from logstore.queues.publishing import Confirm, Confirms, Returned

from .broker_support import bodies

SECONDS = 60
"""Longer than anything here takes."""


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with logstore.open(tmp_path / "store", maintenance_interval=None) as store:
        yield store


class Slow:
    """What sends: it waits for leave, and notes what it was given."""

    def __init__(self) -> None:
        self.leave = threading.Semaphore(0)
        self.begun = threading.Semaphore(0)
        self.batches: list[list[bytes]] = []
        self.outcome: Callable[[Sequence[Envelope]], Confirms] = self.confirm

    @staticmethod
    def confirm(envelopes: Sequence[Envelope]) -> Confirms:
        return Confirms([("q",)] * len(envelopes))

    def __call__(self, envelopes: Sequence[Envelope], acks: object) -> Confirms:
        self.batches.append([envelope.body for envelope in envelopes])
        self.begun.release()
        assert self.leave.acquire(timeout=SECONDS)
        return self.outcome(envelopes)

    def publisher(self, **options: Any) -> Publisher:
        return Publisher(self, exchange="e", forget=lambda publisher: None, **options)


def test_futures_are_done_when_messages_are_confirmed_in_their_order(store: Store) -> None:
    store.queue("q")
    order: list[int] = []
    with store.exchange("").publisher() as publisher:
        futures = []
        for number in range(500):
            future = publisher.publish(b"%d" % number, "q", priority=1)
            future.add_done_callback(lambda _, number=number: order.append(number))  # type: ignore[misc]
            futures.append(future)
        assert publisher.wait_for_confirms(SECONDS)
        assert all(future.result(0) == Confirm(("q",)) for future in futures)
    assert order == list(range(500))
    assert bodies(store, "q") == [b"%d" % number for number in range(500)]


def test_what_waits_while_a_batch_is_written_goes_out_as_the_next_one() -> None:
    slow = Slow()
    publisher = slow.publisher()
    try:
        first = publisher.publish(b"0")
        assert slow.begun.acquire(timeout=SECONDS)
        others = [publisher.publish(b"%d" % number) for number in range(1, 5)]
        with pytest.raises(TimeoutError, match=r"not all is confirmed.*5 messages are waiting"):
            publisher.wait_for_confirms(0)
        slow.leave.release()
        assert first.result(SECONDS) == Confirm(("q",))
        assert not any(future.done() for future in others)
        slow.leave.release()
        assert publisher.wait_for_confirms(SECONDS)
        assert slow.batches == [[b"0"], [b"1", b"2", b"3", b"4"]]
    finally:
        slow.leave.release(10)
        publisher.close(SECONDS)


@pytest.mark.parametrize("bound", [{"max_buffered": 2}, {"max_buffered_bytes": 20}])
def test_a_publisher_that_is_faster_than_the_disk_waits(bound: dict[str, int]) -> None:
    slow = Slow()
    publisher = slow.publisher(**bound)
    try:
        publisher.publish(b"x" * 10)
        assert slow.begun.acquire(timeout=SECONDS)
        publisher.publish(b"x" * 10)
        publisher.publish(b"x" * 10)
        with pytest.raises(TimeoutError, match="no room after 0 seconds; 3 messages are waiting"):
            publisher.publish(b"x" * 10, timeout=0)
        slow.leave.release(2)
        publisher.publish(b"x" * 10, timeout=SECONDS)
    finally:
        slow.leave.release(10)
        publisher.close(SECONDS)
    assert sum(map(len, slow.batches)) == 4


def test_a_message_larger_than_the_buffer_goes_alone(store: Store) -> None:
    store.queue("q")
    with store.exchange("").publisher(max_buffered_bytes=10) as publisher:
        publisher.publish(b"x" * 100, "q", timeout=SECONDS).result(SECONDS)


def test_mandatory_messages_are_returned_in_the_background(store: Store) -> None:
    told: list[Returned] = []
    default = store.exchange("")
    with default.publisher(on_return=told.append) as publisher:
        assert publisher.publish(b"x", "nobody", mandatory=True).result(SECONDS) == Confirm(())
        assert publisher.publish(b"y", "nobody").result(SECONDS) == Confirm(())
        assert publisher.wait_for_confirms(SECONDS)
    assert [(r.envelope.body, r.reply_code, r.reply_text) for r in told] == [
        (b"x", 312, "NO_ROUTE")
    ]
    with default.publisher() as publisher:
        future = publisher.publish(b"x", "nobody", mandatory=True)
        with pytest.raises(UnroutableError, match="312 NO_ROUTE"):
            future.result(SECONDS)
        assert not publisher.wait_for_confirms(SECONDS)
        assert publisher.wait_for_confirms(SECONDS)  # of those since: there are none


def test_a_callback_that_fails_is_logged_and_ends_nothing(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(returned: Returned) -> None:
        raise RuntimeError("mine")

    store.queue("q")
    with store.exchange("").publisher(on_return=fail) as publisher:
        publisher.publish(b"x", "nobody", mandatory=True).result(SECONDS)
        assert publisher.publish(b"y", "q").result(SECONDS) == Confirm(("q",))
    assert "on_return of the publisher to '' failed" in caplog.text


def test_a_nack_and_an_error_are_the_futures_of_those_whom_they_concern() -> None:
    slow = Slow()

    def refuse_second(envelopes: Sequence[Envelope]) -> Confirms:
        confirms = Confirms([("q",)] * len(envelopes))
        confirms.rejected[1] = ("q",)
        return confirms

    publisher = slow.publisher()
    try:
        publisher.publish(b"first")
        assert slow.begun.acquire(timeout=SECONDS)
        slow.outcome = refuse_second
        futures = [publisher.publish(b"%d" % number) for number in range(3)]
        slow.leave.release(1)
        assert slow.begun.acquire(timeout=SECONDS)
        # The first batch was confirmed by what `outcome` is now: it has one message.
        slow.leave.release(1)
        assert futures[0].result(SECONDS) == futures[2].result(SECONDS) == Confirm(("q",))
        with pytest.raises(NackedError, match="1 of 1 messages were refused"):
            futures[1].result(SECONDS)
        assert not publisher.wait_for_confirms(SECONDS)

        def fail(envelopes: Sequence[Envelope]) -> Confirms:
            raise UnknownExchangeError("gone")

        slow.outcome = fail
        future = publisher.publish(b"x")
        slow.leave.release(1)
        with pytest.raises(UnknownExchangeError, match="gone"):
            future.result(SECONDS)
        assert not publisher.wait_for_confirms(SECONDS)
    finally:
        slow.leave.release(10)
        publisher.close(SECONDS)


def test_a_future_that_was_cancelled_does_no_harm() -> None:
    slow = Slow()
    publisher = slow.publisher()
    try:
        assert publisher.publish(b"1").cancel()
        slow.leave.release(5)
        assert publisher.publish(b"2").result(SECONDS)
    finally:
        slow.leave.release(10)
        publisher.close(SECONDS)


def test_acks_0_promises_nothing_and_waits_for_nothing(caplog: pytest.LogCaptureFixture) -> None:
    slow = Slow()
    publisher = slow.publisher(acks=0)
    try:
        future: Future[Confirm] = publisher.publish(b"1")
        assert future.result(0) == Confirm(())

        def fail(envelopes: Sequence[Envelope]) -> Confirms:
            raise OSError("disk")

        slow.outcome = fail
        slow.leave.release(1)
        assert not publisher.wait_for_confirms(SECONDS)
        assert "publishing to 'e' failed: disk" in caplog.text
    finally:
        slow.leave.release(10)
        publisher.close(SECONDS)


def test_closing_the_store_sends_what_is_buffered(tmp_path: Path) -> None:
    path = tmp_path / "store"
    with logstore.open(path, maintenance_interval=None) as store:
        store.queue("q")
        publisher = store.exchange("").publisher(acks=1)
        futures = [publisher.publish(b"%d" % number, "q") for number in range(300)]
    assert all(future.done() and future.result() for future in futures)
    with pytest.raises(ClosedError, match="the publisher to '' was closed"):
        publisher.publish(b"x", "q")
    publisher.close()
    with logstore.open(path, maintenance_interval=None) as store:
        assert len(bodies(store, "q")) == 300


def test_closing_wakes_those_who_wait_for_room() -> None:
    slow = Slow()
    publisher = slow.publisher(max_buffered=1)
    errors: list[BaseException] = []
    waiting = threading.Event()

    def publish() -> None:
        try:
            while True:
                waiting.set()
                publisher.publish(b"x")
        except BaseException as error:  # noqa: BLE001 - told below
            errors.append(error)

    thread = threading.Thread(target=publish)
    thread.start()
    try:
        assert waiting.wait(SECONDS)
        assert slow.begun.acquire(timeout=SECONDS)
        with pytest.raises(TimeoutError, match="did not send all that it has in 0 seconds"):
            publisher.close(0)
        thread.join(SECONDS)
        assert [type(error) for error in errors] == [ClosedError]
    finally:
        slow.leave.release(10)
        publisher.close(SECONDS)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"acks": 3}, "acks is 0, 1 or 'all'"),
        ({"max_buffered": 0}, "max_buffered=0 is out of bounds: an int from 1 on"),
        ({"max_buffered_bytes": 1.5}, "max_buffered_bytes=1.5 is out of bounds"),
    ],
)
def test_options_out_of_bounds_are_refused(
    store: Store, options: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(InvalidInputError, match=complaint):
        store.exchange("").publisher(**options)


def test_a_message_that_cannot_be_stored_is_refused_at_once(store: Store) -> None:
    with store.exchange("").publisher() as publisher:
        for body, given in (("text", {}), (b"", {"priority": -1}), (b"", {"headers": {"CC": 1}})):
            with pytest.raises(InvalidInputError):
                publisher.publish(body, **given)  # type: ignore[arg-type]
        assert publisher.wait_for_confirms(0)


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # it has threads: so it is
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_child_of_fork_is_told_that_the_publisher_is_its_parents(store: Store) -> None:
    with store.exchange("").publisher() as publisher:
        child = os.fork()
        if not child:
            code = 1
            try:
                publisher.publish(b"x")
            except ForkedError:
                publisher.close()
                code = 0
            finally:
                os._exit(code)
        assert os.waitpid(child, 0)[1] == 0
