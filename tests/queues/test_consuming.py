"""Consumers: iterating, callbacks, getting, waking, sharing, ending."""

from __future__ import annotations

import gc
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from logstore import AccessRefusedError, InvalidInputError, Store, UnknownQueueError
from logstore.queues.message import Message
from logstore.queues.queue_face import Queue

from .broker_support import start_script
from .support import NAME, bodies, drain, numbered, opened, publish, wait_until


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with opened(tmp_path / "store") as store:
        yield store


# handing out --------------------------------------------------------------------------------


def test_messages_come_in_order_with_all_that_was_published(store: Store) -> None:
    shop = store.exchange("shop", type="topic")
    queue = store.queue(NAME)
    queue.bind(shop, "order.#")
    shop.publish(
        b"one", "order.payment", acks=1, priority=3, headers={"trace": "x"}, type="created"
    )
    publish(store, b"two")
    with queue.consume(timeout=0) as consumer:
        one, two = list(consumer)
        assert (one.body, one.exchange, one.routing_key) == (b"one", "shop", "order.payment")
        assert (one.properties.priority, one.properties.headers) == (3, {"trace": "x"})
        assert (two.exchange, two.routing_key, two.redelivered) == ("", NAME, False)
        assert one.timestamp_ms <= two.timestamp_ms <= time.time_ns() // 1_000_000
        one.ack()
        two.ack()


def test_to_look_at_messages_tells_how_often_each_has_come_back(store: Store) -> None:
    queue = store.queue(NAME)
    publish(store, *numbered(3))
    for _ in range(2):
        (message,) = queue.get_many(1)
        message.nack()
    looked_at = queue.peek(3)
    assert bodies(looked_at) == numbered(3)
    assert [(one.delivery_count, one.redelivered) for one in looked_at] == [
        (2, True),
        (0, False),
        (0, False),
    ]


@pytest.mark.parametrize("batch", [1, 7, 500])
@pytest.mark.parametrize("prefetch", [1, 10, 500, 0])
def test_order_holds_whatever_the_batches_and_the_prefetch(
    store: Store, batch: int, prefetch: int
) -> None:
    queue = store.queue(NAME)
    wanted = numbered(700)
    for start in range(0, 700, batch):
        publish(store, *wanted[start : start + batch])
    assert drain(queue, prefetch=prefetch) == wanted


def test_a_consumer_holds_no_more_than_its_prefetch(store: Store) -> None:
    queue = store.queue(NAME)
    publish(store, *numbered(10))
    with queue.consume(prefetch=3, timeout=0) as consumer:
        held = list(consumer)
        assert bodies(held) == numbered(3)
        assert queue.counts()[:3] == (7, 3, 1)
        held[1].ack()
        assert bodies(consumer) == [b"3"]


def test_without_acknowledgements_messages_are_settled_as_they_are_handed_out(
    store: Store,
) -> None:
    queue = store.queue(NAME)
    publish(store, *numbered(10))
    with queue.consume(no_ack=True, prefetch=4, timeout=0) as consumer:
        assert bodies(consumer) == numbered(10)
        assert queue.counts()[:2] == (0, 0)
    message = queue.get(no_ack=True)
    assert message is None


def test_a_callback_gets_each_message_and_its_error_ends_the_consumer(store: Store) -> None:
    queue = store.queue(NAME)
    seen: list[bytes] = []

    def callback(message: Message) -> None:
        if message.body == b"bad":
            raise ValueError("no")
        seen.append(message.body)
        message.ack()

    consumer = queue.consume(callback)
    publish(store, *numbered(3))
    wait_until(lambda: len(seen) == 3)
    publish(store, b"bad", b"behind")
    with pytest.raises(ValueError, match="no"):
        consumer.join(20)
    assert not consumer.is_active
    consumer.close()
    assert seen == numbered(3)
    assert drain(queue) == [b"bad", b"behind"]


def test_a_callback_is_not_given_twice(store: Store) -> None:
    consumer = store.queue(NAME).consume(lambda message: None)
    with pytest.raises(InvalidInputError, match="calls a callback already"):
        consumer.start(lambda message: None)
    consumer.close()


@pytest.mark.parametrize("timeout", [-1, "1", float("nan")])
def test_a_timeout_out_of_bounds_is_refused(store: Store, timeout: object) -> None:
    with pytest.raises(InvalidInputError, match="timeout="):
        store.queue(NAME).consume(timeout=timeout)  # type: ignore[arg-type]


def test_getting_from_an_empty_queue_says_so(store: Store) -> None:
    queue = store.queue(NAME)
    assert queue.get() is None
    assert queue.get_many(5) == []
    with pytest.raises(InvalidInputError, match="count=0"):
        queue.get_many(0)


# waking -------------------------------------------------------------------------------------


def test_a_waiting_consumer_is_woken_by_a_publisher_in_another_thread(store: Store) -> None:
    queue = store.queue(NAME)
    found: list[Message | None] = []
    with queue.consume() as consumer:
        thread = threading.Thread(target=lambda: found.append(consumer.get(timeout=20)))
        thread.start()
        publish(store, b"a")
        thread.join(20)
        assert [message and message.body for message in found] == [b"a"]


PUBLISHER = """
import sys, logstore
with logstore.open(sys.argv[1], maintenance_interval=None) as store:
    for line in sys.stdin:
        options = {"priority": 5} if line.startswith("high") else {}
        store.exchange("").publish(line.strip().encode(), "payments", acks=1, **options)
        print("done", flush=True)
"""


def test_a_waiting_consumer_is_woken_by_a_publisher_in_another_process(store: Store) -> None:
    queue = store.queue(NAME, max_priority=9)
    process = start_script(PUBLISHER, store.path)
    assert process.stdin is not None
    try:
        with queue.consume(timeout=20) as consumer:
            messages = iter(consumer)
            for body in (b"low", b"high", b"low", b"high"):  # a level that is new, among them
                process.stdin.write(body + b"\n")
                process.stdin.flush()
                message = next(messages)
                assert message.body == body
                message.ack()
    finally:
        process.kill()
        process.communicate(timeout=20)


def test_a_waiting_consumer_is_woken_by_what_comes_back_and_by_what_is_due(store: Store) -> None:
    queue = store.queue(NAME)
    publish(store, b"a")
    held = queue.get()
    assert held is not None
    found: list[Message | None] = []
    with queue.consume() as consumer:
        thread = threading.Thread(target=lambda: found.append(consumer.get(timeout=20)))
        thread.start()
        held.nack()
        thread.join(20)
        begun_ms = time.time_ns() // 1_000_000
        publish(store, b"b", delay_ms=150)
        found.append(consumer.get(timeout=20))
        assert [message and message.body for message in found] == [b"a", b"b"]
        assert time.time_ns() // 1_000_000 - begun_ms >= 150


def test_a_consumer_that_may_hold_no_more_is_woken_by_an_acknowledgement(store: Store) -> None:
    queue = store.queue(NAME)
    publish(store, *numbered(2))
    with queue.consume(prefetch=1) as consumer:
        first = consumer.get()
        assert first is not None
        found: list[Message | None] = []
        thread = threading.Thread(target=lambda: found.append(consumer.get(timeout=20)))
        thread.start()
        wait_until(lambda: consumer.channel.waiting)
        first.ack()
        thread.join(20)
        assert [message and message.body for message in found] == [b"1"]


# sharing ------------------------------------------------------------------------------------


def test_consumers_share_what_is_ready(store: Store) -> None:
    queue = store.queue(NAME)
    with opened(Path(store.path)) as other_store:
        one, other = queue.consume(timeout=0), other_store.queue(NAME).consume(timeout=0)
        publish(store, *numbered(100))
        taken = [one.get(), other.get()]
        assert all(taken)
        assert (one.unacked, other.unacked) == (50, 25)
        one.close()
        other.close()
    assert queue.counts()[:3] == (100, 0, 0)


def test_threads_share_the_messages_of_a_queue_and_each_gets_its_own(store: Store) -> None:
    queue = store.queue(NAME)
    publish(store, *numbered(2000))
    seen: Counter[bytes] = Counter()
    mutex = threading.Lock()

    def work() -> None:
        with queue.consume(prefetch=20, timeout=0.2) as consumer:
            for message in consumer:
                with mutex:
                    seen[message.body] += 1
                message.ack()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert seen == Counter(numbered(2000))
    assert queue.counts() == (0, 0, 0, 0, 0)


def test_an_exclusive_consumer_is_alone(store: Store) -> None:
    queue = store.queue(NAME)
    alone = queue.consume(exclusive=True, tag="me")
    with pytest.raises(AccessRefusedError, match="exclusive consumer, 'me'"):
        queue.consume()
    alone.close()
    with queue.consume():
        with pytest.raises(AccessRefusedError, match="has consumers"):
            queue.consume(exclusive=True)
        assert [row.exclusive for row in queue.consumers()] == [False]
    assert queue.counts().consumers == 0


# ends ---------------------------------------------------------------------------------------


def test_a_cancelled_consumer_gives_back_what_nobody_has_seen(store: Store) -> None:
    queue = store.queue(NAME)
    publish(store, *numbered(10))
    consumer = queue.consume(prefetch=8)
    seen = [consumer.get(), consumer.get()]
    consumer.cancel()
    consumer.cancel()
    assert queue.counts()[:3] == (8, 2, 0)
    assert consumer.get() is None
    assert seen[0] is not None
    seen[0].ack(flush=True)
    assert queue.counts()[:2] == (8, 1)
    consumer.close()
    again = queue.get_many(9)
    assert bodies(again) == numbered(9, 1)
    assert [message.redelivered for message in again] == [True] + [False] * 8


def test_closing_from_another_thread_ends_the_wait(store: Store) -> None:
    consumer = store.queue(NAME).consume()
    ended = threading.Event()

    def wait() -> None:
        assert list(consumer) == []
        ended.set()

    thread = threading.Thread(target=wait)
    thread.start()
    time.sleep(0.05)
    consumer.close()
    assert ended.wait(20)
    thread.join(20)


def test_closing_the_store_gives_everything_back(tmp_path: Path) -> None:
    with opened(tmp_path / "store") as store:
        queue = store.queue(NAME)
        publish(store, *numbered(5))
        iterator = iter(queue.consume())
        assert next(iterator).body == b"0"
        queue.get_many(1)
    with opened(tmp_path / "store") as store:
        queue = store.queue(NAME)
        assert queue.counts()[:3] == (5, 0, 0)
        assert drain(queue) == numbered(5)
        assert list(iterator) == []


def interrupted(queue: Queue) -> None:
    with queue.consume() as consumer:
        for message in consumer:
            if message.body == b"2":
                raise KeyboardInterrupt
            message.ack()


def test_ctrl_c_in_a_loop_gives_back_what_was_not_acknowledged(store: Store) -> None:
    queue = store.queue(NAME)
    publish(store, *numbered(5))
    with pytest.raises(KeyboardInterrupt):
        interrupted(queue)
    again = queue.get_many(9)
    assert bodies(again) == numbered(3, 2)
    assert [message.delivery_count for message in again] == [1, 0, 0]


def test_a_consumer_that_nobody_holds_any_more_ends(store: Store) -> None:
    queue = store.queue(NAME)
    publish(store, *numbered(10))
    for message in queue.consume(prefetch=5):
        assert message.body == b"0"
        break
    gc.collect()
    wait_until(lambda: queue.counts()[:3] == (9, 1, 0))
    assert drain(queue) == numbered(9, 1)
    message.ack(flush=True)  # it was handed out, and is ours still
    wait_until(lambda: queue.counts() == (0, 0, 0, 0, 0))
    wait_until(lambda: message[0].channel.is_closed)


def test_messages_outlive_the_consumer_that_they_came_from(store: Store) -> None:
    queue = store.queue(NAME)
    publish(store, *numbered(5))
    messages = list(queue.consume(timeout=0))
    gc.collect()
    wait_until(lambda: not queue.counts().consumers)
    for message in messages:
        message.ack()
    wait_until(lambda: queue.counts() == (0, 0, 0, 0, 0))


def test_an_auto_delete_queue_goes_with_its_last_consumer(store: Store) -> None:
    queue = store.queue(NAME, auto_delete=True)
    publish(store, b"a")
    with opened(Path(store.path)) as other:
        first, last = queue.consume(), other.queue(NAME, passive=True).consume()
        first.close()
        assert queue.counts().consumers == 1
        last.close()
    with pytest.raises(UnknownQueueError):
        store.queue(NAME, passive=True)
    with pytest.raises(UnknownQueueError):
        queue.get()


def test_a_consumer_of_a_deleted_queue_is_told(store: Store) -> None:
    queue = store.queue(NAME)
    publish(store, *numbered(2))
    with queue.consume(prefetch=1) as consumer:
        message = consumer.get()
        assert message is not None
        with opened(Path(store.path)) as other:
            other.queue(NAME).delete()
        message.ack(flush=True)  # it is gone, and nobody minds
        with pytest.raises(UnknownQueueError):
            consumer.get(timeout=20)
        assert not consumer.is_active
        assert list(consumer) == []  # it is told once
    assert store.queue(NAME).counts() == (0, 0, 0, 0, 0)


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_callback_of_a_deleted_queue_ends_and_closing_is_content(
    store: Store, elsewhere: bool
) -> None:
    queue = store.queue(NAME)
    publish(store, b"a")
    found: list[bytes] = []
    consumer = queue.consume(lambda message: found.append(message.body))
    wait_until(lambda: found == [b"a"])
    if elsewhere:
        with opened(Path(store.path)) as other:
            other.queue(NAME).delete()
    else:
        queue.delete()
    wait_until(lambda: not consumer.is_active)
    assert consumer.join(20)
    consumer.close()


def test_an_error_of_a_callback_is_told_also_if_it_is_of_a_deleted_queue(store: Store) -> None:
    other = store.queue("other")
    other.delete()
    queue = store.queue(NAME)
    publish(store, b"a")
    consumer = queue.consume(lambda message: other.get())
    with pytest.raises(UnknownQueueError, match="queue 'other' was deleted"):
        consumer.join(20)


def test_the_end_of_a_channel_is_that_of_its_consumers(store: Store) -> None:
    queue, gone = store.queue(NAME), store.queue("gone", auto_delete=True)
    publish(store, b"a")
    channel = store.channel()
    consumers = [queue.consume(channel=channel), gone.consume(channel=channel)]
    assert consumers[0].get(timeout=20) is not None
    channel.close()
    assert queue.counts()[:3] == (1, 0, 0)
    assert not any(consumer.is_active for consumer in consumers)
    assert [one.name for one in store.queues.queues()] == [NAME]
    for consumer in consumers:
        consumer.close()


def test_prefetch_can_be_changed_while_a_consumer_waits_for_room(store: Store) -> None:
    queue = store.queue(NAME)
    publish(store, *numbered(5))
    channel = store.channel(prefetch=1)
    found: list[bytes] = []
    consumer = queue.consume(
        lambda message: found.append(message.body), channel=channel, prefetch=2
    )
    wait_until(lambda: len(found) == 1)
    channel.prefetch = 4
    wait_until(lambda: len(found) == 2)
    consumer.prefetch = 3
    wait_until(lambda: len(found) == 3)
    assert (consumer.prefetch, channel.prefetch) == (3, 4)
    consumer.prefetch = 0
    wait_until(lambda: len(found) == 4)
    channel.prefetch = 0
    wait_until(lambda: len(found) == 5)
    for one in (consumer, channel):
        with pytest.raises(InvalidInputError, match="prefetch=-1 is out of bounds"):
            one.prefetch = -1
    channel.close()
