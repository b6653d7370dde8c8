"""From an exchange through a queue to a consumer, and from there to the next exchange."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import logstore
from logstore import (
    Confirm,
    Message,
    NackedError,
    Outgoing,
    Properties,
    Queue,
    Store,
    UnknownQueueError,
)
from logstore.queues.attendance import unregister

from .broker_support import BootFiles, bodies
from .support import wait_until

SECONDS = 30
"""Longer than anything here takes."""


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with logstore.open(tmp_path / "store", maintenance_interval=None) as store:
        yield store


def next_of(queue: Queue) -> Message:
    """The next message of a queue, waited for, and acknowledged."""
    with queue.consume(prefetch=1, timeout=SECONDS) as consumer:
        for message in consumer:
            message.ack(flush=True)
            return message
    raise AssertionError(f"no message came to {queue.name}")


def taken(queue: Queue) -> Message:
    """The next message of a queue, which is there."""
    message = queue.get()
    assert message is not None
    return message


def test_a_message_is_delivered_with_all_that_it_was_published_with(store: Store) -> None:
    shop = store.exchange("shop", type="headers")
    queue = store.queue("q")
    queue.bind(shop, "", {"x-match": "any", "region": "eu", "large": True})
    properties = Properties(
        content_type="text/plain", headers={"region": "eu", "n": [1, {"a": None}]}, priority=9
    )
    shop.publish(b"body", "key", properties=properties)
    shop.publish(b"other", "key", headers={"region": "us"})
    message = taken(queue)
    assert (message.body, message.exchange, message.routing_key) == (b"body", "shop", "key")
    assert message.properties == properties
    assert not message.redelivered
    message.ack()
    assert queue.get() is None


def test_messages_of_a_batch_are_delivered_by_priority_and_then_in_their_order(
    store: Store,
) -> None:
    queue = store.queue("q", max_priority=5)
    priorities = [None, 5, 0, 3, 9, 3]
    batch = [
        Outgoing(b"%d" % number, "q", Properties(priority=priority))
        for number, priority in enumerate(priorities)
    ]
    store.exchange("").publish_batch(batch)
    assert [message.body for message in queue.get_many(6)] == [b"1", b"4", b"3", b"5", b"0", b"2"]


def test_a_rejected_message_goes_where_its_queue_says_and_tells_its_history(store: Store) -> None:
    shop = store.exchange("shop", type="topic")
    failed = store.exchange("failed", type="direct", internal=True)
    orders = store.queue("orders", dead_letter_exchange="failed")
    orders.bind(shop, "order.#")
    parking = store.queue("parking", dead_letter_exchange="", dead_letter_routing_key="orders")
    parking.bind(failed, "order.eu")
    shop.publish(b"x", "order.eu", expiration=600_000)
    taken(orders).reject()
    message = taken_soon(parking)
    headers = message.properties.headers or {}
    (death,) = headers["x-death"]
    assert (death["queue"], death["reason"], death["count"]) == ("orders", "rejected", 1)
    assert (death["exchange"], death["routing-keys"]) == ("shop", ["order.eu"])
    assert death["original-expiration"] == "600000"
    assert message.properties.expiration is None
    assert (message.exchange, message.routing_key) == ("failed", "order.eu")
    message.reject()  # and back: it was rejected, so it is no circle
    again = taken_soon(orders)
    assert (again.exchange, again.routing_key) == ("", "orders")
    deaths = (again.properties.headers or {})["x-death"]
    assert [(d["queue"], d["count"]) for d in deaths] == [("parking", 1), ("orders", 1)]
    again.ack(flush=True)
    assert orders.counts().ready == parking.counts().ready == 0


def taken_soon(queue: Queue) -> Message:
    """The next message of a queue, waited for, and not settled."""
    consumer = queue.consume(prefetch=1, timeout=SECONDS)
    for message in consumer:
        return message
    raise AssertionError(f"no message came to {queue.name}")


def test_a_message_that_comes_back_too_often_is_a_dead_letter(store: Store) -> None:
    queue = store.queue(
        "q", delivery_limit=2, dead_letter_exchange="", dead_letter_routing_key="dead"
    )
    dead = store.queue("dead")
    store.exchange("").publish(b"poison", "q")
    for count in range(3):
        message = taken(queue)
        assert message.delivery_count == count
        message.nack(requeue=True)
    message = next_of(dead)
    assert (message.properties.headers or {})["x-death"][0]["reason"] == "delivery_limit"
    assert queue.get() is None


def test_what_expires_in_a_queue_is_a_dead_letter_and_does_not_come_back(store: Store) -> None:
    queue = store.queue("waiting", message_ttl=1, dead_letter_exchange="after", max_priority=1)
    after = store.exchange("after", type="fanout")
    queue.bind(after)  # a circle: what expired there does not come again
    store.queue("done").bind(after)
    store.exchange("").publish(b"x", "waiting", priority=1)
    message = next_of(store.queue("done"))
    death = (message.properties.headers or {})["x-death"][0]
    assert (death["queue"], death["reason"]) == ("waiting", "expired")
    assert len(bodies(store, "waiting", 1)) == 1
    assert bodies(store, "waiting", 0) == []


def test_a_full_queue_refuses_a_message_and_the_others_take_it(store: Store) -> None:
    shop = store.exchange("shop", type="fanout")
    full = store.queue("full", max_length=1, overflow="reject-publish")
    free = store.queue("free")
    full.bind(shop)
    free.bind(shop)
    assert shop.publish(b"1") == Confirm(("free", "full"))
    with pytest.raises(NackedError, match="the first is message 0, by 'full'") as caught:
        shop.publish(b"2")
    assert list(caught.value.confirms) == [Confirm(("free", "full"), ("full",))]
    with pytest.raises(NackedError, match="2 of 2 messages were refused"):
        shop.publish_batch([b"3", b"4"])
    with shop.publisher() as publisher:
        with pytest.raises(NackedError):
            publisher.publish(b"5").result(SECONDS)
        taken(full).ack(flush=True)
        assert publisher.publish(b"6").result(SECONDS) == Confirm(("free", "full"))
    assert [message.body for message in free.get_many(10)] == [b"1", b"2", b"3", b"4", b"5", b"6"]


@pytest.mark.parametrize("overflow", ["drop-head", "reject-publish-dlx"])
def test_what_a_full_queue_has_no_room_for_is_a_dead_letter(store: Store, overflow: str) -> None:
    store.queue(
        "full",
        max_length=1,
        overflow=overflow,
        dead_letter_exchange="",
        dead_letter_routing_key="dead",
    )
    default = store.exchange("")
    dead = store.queue("dead")
    default.publish(b"old", "full")
    if overflow == "drop-head":
        default.publish(b"new", "full")
        expected, kept = b"old", b"new"
    else:
        with pytest.raises(NackedError):
            default.publish(b"new", "full")
        expected, kept = b"new", b"old"
    message = next_of(dead)
    assert message.body == expected
    assert (message.properties.headers or {})["x-death"][0]["reason"] == "maxlen"
    assert taken(store.queue("full")).body == kept


def test_an_auto_delete_queue_goes_with_its_last_consumer_and_takes_its_exchange_along(
    store: Store,
) -> None:
    store.exchange("events", type="fanout", auto_delete=True)
    queue = store.queue("q", auto_delete=True)
    queue.bind("events")
    first, second = queue.consume(), queue.consume()
    first.close()
    assert queue.counts().consumers == 1
    second.close()
    with pytest.raises(UnknownQueueError):
        store.queue("q", passive=True)
    assert "events" not in [exchange.name for exchange in store.queues.exchanges()]
    with pytest.raises(UnknownQueueError):
        queue.consume()


def test_an_auto_delete_queue_goes_also_if_its_last_consumer_was_killed_before_it_deleted_it(
    store: Store,
) -> None:
    queue = store.queue("q", auto_delete=True)
    with queue.consume():
        # As far as a process comes that is killed in the middle of closing its consumer.
        (row,) = queue.consumers()
        assert unregister(store.queues.work_queue(queue.definition), row)
        with store.queue("other").consume():
            wait_until(lambda: "q" not in [one.name for one in store.queues.queues()])


def test_a_queue_that_is_deleted_is_gone_for_who_consumes_it(store: Store) -> None:
    queue = store.queue("q")
    consumer = queue.consume(timeout=SECONDS)
    queue.delete()
    with pytest.raises(UnknownQueueError):
        next(iter(consumer))
    for use in (queue.get, queue.peek, queue.purge, queue.counts):
        with pytest.raises(UnknownQueueError):
            use()


def test_after_a_restart_of_the_machine_transient_messages_are_gone(tmp_path: Path) -> None:
    path = tmp_path / "store"
    with logstore.open(path, files=BootFiles("one"), maintenance_interval=None) as store:
        store.queue("q")
        default = store.exchange("")
        default.publish(b"transient", "q", delivery_mode=1)
        default.publish(b"persistent", "q", delivery_mode=2)
    with logstore.open(path, files=BootFiles("two"), maintenance_interval=None) as store:
        queue = store.queue("q")
        assert [message.body for message in queue.peek(5)] == [b"persistent"]
        assert taken(queue).body == b"persistent"
