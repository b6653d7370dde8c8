"""Channels: delivery tags, prefetch, acknowledging, giving back, and coming too late."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from logstore import (
    ClosedError,
    ForkedError,
    InvalidInputError,
    LeaseExpiredError,
    LockTimeoutError,
    Store,
)
from logstore.queues.channel import MAX_PENDING, Channel
from logstore.queues.consuming import Getter
from logstore.queues.message import Message
from logstore.queues.queue_upkeep import Upkeep
from logstore.segments.files import DiskFiles

from .support import (
    NAME,
    ToldClock,
    bodies,
    drain,
    numbered,
    opened,
    publish,
    wait_until,
    work_queue,
)


@pytest.fixture
def clock() -> ToldClock:
    return ToldClock()


@pytest.fixture
def store(tmp_path: Path, clock: ToldClock) -> Iterator[Store]:
    with opened(tmp_path / "store", clock=clock) as store:
        yield store


def unacked(store: Store) -> int:
    """As the ledger has it."""
    return store.queue(NAME).counts().unacked


def test_delivery_tags_count_up_on_a_channel_whatever_the_queue(store: Store) -> None:
    one, other = store.queue("one"), store.queue("other")
    publish(store, *numbered(2), queue="one")
    publish(store, *numbered(2), queue="other")
    channel = store.channel()
    messages = [
        *one.get_many(1, channel=channel),
        *other.get_many(2, channel=channel),
        *one.get_many(1, channel=channel),
    ]
    assert [message.delivery_tag for message in messages] == [1, 2, 3, 4]
    channel.ack(3)
    channel.ack(2, multiple=True)
    channel.flush()
    assert (one.counts().unacked, other.counts().unacked) == (1, 0)
    channel.nack(4, requeue=False)
    assert one.counts()[:2] == (0, 0)


def test_acknowledging_many_settles_all_up_to_there(store: Store) -> None:
    queue = store.queue(NAME)
    publish(store, *numbered(10))
    channel = store.channel()
    messages = queue.get_many(10, channel=channel)
    messages[2].ack()
    messages[6].ack(multiple=True, flush=True)
    assert unacked(store) == 3
    channel.ack(multiple=True)  # all there are
    channel.ack(multiple=True)  # and none, which is no error
    channel.flush()
    assert unacked(store) == 0


@pytest.mark.parametrize("again", ["ack", "nack", "reject"])
def test_what_was_settled_cannot_be_settled_again(store: Store, again: str) -> None:
    queue = store.queue(NAME)
    publish(store, *numbered(2))
    first, second = queue.get_many(2)
    first.ack()
    with pytest.raises(InvalidInputError, match="delivery tag 1: this message was settled before"):
        getattr(first, again)()
    second.nack()
    with pytest.raises(InvalidInputError, match="delivery tag 2"):
        getattr(second, again)()
    assert drain(queue) == [b"1"]


@pytest.mark.parametrize("tag", [0, 2, 99, -1, True, "1"])
def test_a_tag_that_names_nothing_is_refused(store: Store, tag: object) -> None:
    queue = store.queue(NAME)
    publish(store, b"a")
    channel = store.channel()
    (message,) = queue.get_many(1, channel=channel)
    with pytest.raises(InvalidInputError, match="tag"):
        channel.ack(tag)  # type: ignore[arg-type]
    message.ack()


def test_acknowledgements_are_collected_and_soon_in_the_ledger(store: Store) -> None:
    queue = store.queue(NAME)
    publish(store, *numbered(3))
    messages = queue.get_many(3)
    messages[0].ack()
    wait_until(lambda: unacked(store) == 2)  # by the housekeeper
    messages[1].ack(flush=True)
    assert unacked(store) == 1


def test_so_many_acknowledgements_are_collected_and_no_more(store: Store) -> None:
    queue = store.queue(NAME)
    publish(store, *numbered(2000))
    messages = queue.get_many(2000)
    most = 0
    for number, message in enumerate(messages, 1):
        message.ack()
        most = max(most, number - (2000 - unacked(store))) if number % 50 == 0 else most
    assert most <= MAX_PENDING


def test_messages_that_are_given_back_keep_their_places(store: Store) -> None:
    queue = store.queue(NAME)
    publish(store, *numbered(6))
    messages = queue.get_many(4)
    messages[3].nack()
    messages[1].nack()
    again = queue.get_many(9)
    assert bodies(again) == [b"1", b"3", b"4", b"5"]
    assert [m.redelivered for m in again] == [True, True, False, False]
    assert [m.delivery_count for m in again] == [1, 1, 0, 0]
    messages[2].ack()
    again[3].nack(multiple=True)  # all of the channel that is not settled
    assert bodies(queue.get_many(9)) == [b"0", b"1", b"3", b"4", b"5"]


def test_recovering_gives_back_all_that_is_not_settled(store: Store) -> None:
    queue = store.queue(NAME)
    publish(store, *numbered(4))
    channel = store.channel()
    messages = queue.get_many(4, channel=channel)
    messages[1].ack()
    channel.recover()
    assert unacked(store) == 0
    assert bodies(queue.get_many(9)) == [b"0", b"2", b"3"]
    with pytest.raises(InvalidInputError):
        messages[0].ack()


def test_closing_gives_back_what_is_not_settled(store: Store) -> None:
    queue = store.queue(NAME)
    publish(store, *numbered(4))
    channel = store.channel()
    messages = queue.get_many(3, channel=channel)
    messages[1].ack()
    channel.close()
    channel.close()
    assert queue.counts()[:2] == (3, 0)
    for use in (messages[0].ack, channel.recover, channel.flush, messages[2].nack):
        with pytest.raises(ClosedError, match="channel was closed"):
            use()
    assert bodies(queue.get_many(9)) == [b"0", b"2", b"3"]


@pytest.mark.parametrize("end", ["close", "recover"])
def test_a_consumer_hands_out_nothing_that_its_channel_has_given_back(
    store: Store, end: str
) -> None:
    queue = store.queue(NAME)
    publish(store, *numbered(5))
    channel = store.channel()
    consumer = queue.consume(channel=channel, timeout=0)
    messages = iter(consumer)
    assert next(messages).body == b"0"
    getattr(channel, end)()
    assert queue.counts()[:2] == (5, 0)
    again = bodies(messages)
    assert again == ([] if end == "close" else numbered(5))
    consumer.close()
    assert queue.counts().consumers == 0


def test_consumers_on_one_channel_lose_what_is_overdue_together(
    store: Store, clock: ToldClock
) -> None:
    one, other = (store.queue(name, consumer_timeout=50_000) for name in ("one", "other"))
    publish(store, *numbered(3), queue="one")
    publish(store, *numbered(3), queue="other")
    channel = store.channel()
    with one.consume(channel=channel) as first, other.consume(channel=channel) as second:
        assert first.get() is not None
        assert second.get() is not None
        clock.ahead_ms += 60_000
        wait_until(lambda: (one.counts().ready, other.counts().ready) == (3, 3))
        wait_until(lambda: not first.unacked and not second.unacked)
        for consumer in (first, second):
            message = consumer.get()
            assert message is not None
            assert (message.body, message.redelivered) == (b"0", True)


def test_a_prefetch_of_the_channel_bounds_its_consumers_together(store: Store) -> None:
    one, other = store.queue("one"), store.queue("other")
    publish(store, *numbered(9), queue="one")
    publish(store, *numbered(9), queue="other")
    channel = store.channel(prefetch=3)
    with (
        one.consume(channel=channel, prefetch=2) as first,
        other.consume(channel=channel, prefetch=0) as second,
    ):
        got = [first.get(), first.get()]
        assert first.get() is None
        assert second.get() is not None
        assert second.get() is None
        assert got[0] is not None
        got[0].ack()
        assert second.get() is not None
        assert first.get() is None


@pytest.mark.parametrize("prefetch", [-1, 65_536, "3", True, 2.0])
def test_a_prefetch_out_of_bounds_is_refused(store: Store, prefetch: object) -> None:
    queue = store.queue(NAME)
    with pytest.raises(InvalidInputError, match="prefetch="):
        store.channel(prefetch=prefetch)  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="prefetch="):
        queue.consume(prefetch=prefetch)  # type: ignore[arg-type]
    assert queue.counts().consumers == 0


# too late -----------------------------------------------------------------------------------


def late(store: Store, clock: ToldClock) -> None:
    """Let the time of all leases be up, as another process sees it."""
    clock.ahead_ms += 60_000
    with opened(Path(store.path), clock=clock) as other:
        Upkeep(work_queue(other)).tend()


def test_a_late_acknowledgement_is_refused(store: Store, clock: ToldClock) -> None:
    queue = store.queue(NAME, consumer_timeout=50_000)
    publish(store, *numbered(2))
    first, second = queue.get_many(2)
    late(store, clock)
    with pytest.raises(LeaseExpiredError, match="too late"):
        first.ack(flush=True)
    with pytest.raises(LeaseExpiredError, match="too late"):
        second.ack()
    again = queue.get_many(2)
    assert bodies(again) == numbered(2)
    assert again[0].delivery_count == 1
    for message in again:
        message.ack(flush=True)
    assert queue.counts() == (0, 0, 0, 0, 0)


def test_a_late_acknowledgement_that_was_collected_is_told_at_the_next_use(
    store: Store, clock: ToldClock
) -> None:
    queue = store.queue(NAME, consumer_timeout=50_000)
    publish(store, *numbered(3))
    channel = store.channel()
    first, second, third = queue.get_many(3, channel=channel)
    clock.ahead_ms += 60_000
    work = work_queue(store)
    Upkeep(work).tend()
    try:
        first.ack()
        second.ack()
        channel.flush()
    except LeaseExpiredError:
        pass
    else:
        raise AssertionError("nobody was told")
    with pytest.raises(LeaseExpiredError):
        third.nack()
    assert queue.counts().ready == 3


def test_a_stuck_consumer_hands_out_nothing_more_of_what_it_lost(
    store: Store, clock: ToldClock
) -> None:
    queue = store.queue(NAME, consumer_timeout=50_000)
    publish(store, *numbered(4))
    with queue.consume(prefetch=3) as consumer:
        assert consumer.get() is not None
        clock.ahead_ms += 60_000
        wait_until(lambda: queue.counts().ready == 4)  # the housekeeper took them back
        wait_until(lambda: consumer.unacked == 0)
        again = [consumer.get() for _ in range(3)]
        assert [message and message.body for message in again] == numbered(3)
        assert all(message and message.redelivered for message in again)


# forks, locks -------------------------------------------------------------------------------


def test_a_child_of_fork_is_refused(store: Store) -> None:
    queue = store.queue(NAME)
    publish(store, *numbered(2))
    channel = store.channel()
    message, _ = queue.get_many(2, channel=channel)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        answer = b"nobody"
        try:
            message.ack()
        except ForkedError as error:
            answer = str(error).encode()
        finally:
            os.write(write, answer)
            os._exit(0)
    os.waitpid(child, 0)
    assert b"belongs to the parent process" in os.read(read, 1000)
    os.close(read)
    os.close(write)
    message.ack(flush=True)
    assert unacked(store) == 1


def test_what_cannot_be_told_to_the_ledger_waits_to_be_told(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = store.queue(NAME)
    publish(store, *numbered(2))
    first, second = queue.get_many(2)
    work = work_queue(store)
    monkeypatch.setattr(store._live._lock, "_timeout", 0.01)  # no need to wait for a minute
    lock = DiskFiles().lock(os.path.join(store.path, "live", "lock"))
    lock.acquire()
    try:
        with pytest.raises(LockTimeoutError):
            first.ack(flush=True)
        with pytest.raises(LockTimeoutError):
            second.nack()
    finally:
        lock.close()
    second.nack()
    assert work.ledgers.number() > 0
    assert queue.counts()[:2] == (1, 0)
    assert drain(queue) == [b"1"]


def test_acknowledgements_that_wait_are_flushed_unless_they_are_younger_than_a_round(
    store: Store,
) -> None:
    store.queue(NAME)
    publish(store, *numbered(3))
    queue, session = work_queue(store), bytes(16)
    channel = Channel(queue.ledgers, session=session)  # which no housekeeper knows
    getter = Getter(channel, queue, session=session)

    def take() -> Message:
        (message,) = getter.get(1, no_ack=False)
        return message

    def waiting_after_a_round() -> bool:
        channel.flush_quietly()
        return channel.has_pending

    take().ack()
    assert [waiting_after_a_round() for _ in range(2)] == [True, False]
    take().ack()
    assert waiting_after_a_round()
    take().ack()  # taking has flushed the one before
    assert [waiting_after_a_round() for _ in range(2)] == [True, False]
    assert queue.counts().unacked == 0
