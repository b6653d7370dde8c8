"""Dead letters on their way back."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from logstore import Store
from logstore.errors import InvalidInputError, UnknownExchangeError
from logstore.queues.properties import Envelope, Properties
from logstore.queues.queue_face import Queue
from logstore.queues.redrive import redriven
from logstore.replay.messages import message_test

from .support import bodies, drain, numbered, opened, publish, wait_until, work_queue


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with opened(tmp_path / "store") as store:
        store.exchange("dlx", type="fanout")
        store.queue("dlq").bind("dlx")
        store.exchange("shop", type="topic")
        yield store


def kill(store: Store, queue: Queue, *, count: int) -> None:
    """Reject so many messages of a queue, and wait until they are dead letters."""
    before = store.queue("dlq").counts().ready
    for message in queue.get_many(count):
        message.reject()
    wait_until(lambda: store.queue("dlq").counts().ready == before + count)


def work(store: Store, name: str = "work", **arguments: Any) -> Queue:
    queue = store.queue(name, dead_letter_exchange="dlx", **arguments)
    queue.bind("shop", "order.#")
    return queue


def test_dead_letters_go_back_to_the_queue_in_which_they_died_and_to_no_other(
    store: Store,
) -> None:
    queue, other = work(store), work(store, "other")
    store.exchange("shop").publish(b"a", "order.eu", headers={"n": 1}, priority=3)
    kill(store, queue, count=1)
    done = store.queue("dlq").redrive()
    assert (done.moved, done.unmatched, done.left) == ({"work": 1}, 0, {})
    (message,) = queue.get_many(5)
    assert (message.exchange, message.routing_key) == ("shop", "order.eu")
    assert (message.body, message.properties.priority) == (b"a", 3)
    headers = message.properties.headers or {}
    assert headers["n"] == 1
    assert not [name for name in headers if "death" in name]
    assert headers["x-redrive"]["count"] == 1
    assert headers["x-redrive"]["queue"] == "dlq"
    assert headers["x-redrive"]["x-death"][0]["reason"] == "rejected"
    assert other.counts().ready == 1
    assert store.queue("dlq").counts()[:2] == (0, 0)


def test_what_fails_again_is_no_cycle_and_counts_its_redrives(store: Store) -> None:
    """It expires on both ways round, so nobody has rejected it in between."""
    store.exchange("retry", type="fanout")
    queue = store.queue("work", dead_letter_exchange="retry", message_ttl=1)

    def has_arrived() -> bool:
        store.maintain()  # nobody consumes
        return store.queue("dlq").counts().ready == 1

    store.queue("waiting", dead_letter_exchange="dlx", message_ttl=1).bind("retry")
    publish(store, b"a", queue="work")
    for count in (1, 2):
        wait_until(has_arrived)
        (letter,) = store.queue("dlq").peek()
        history = (letter.properties.headers or {})["x-death"]
        assert [(death["queue"], death["count"]) for death in history] == [
            ("waiting", 1),
            ("work", 1),
        ]
        assert store.queue("dlq").redrive(queue="work").moved == {"work": 1}
        wait_until(has_arrived)
        (letter,) = store.queue("dlq").peek()
        assert (letter.properties.headers or {})["x-redrive"]["count"] == count
    assert queue.counts().ready == 0


def test_only_what_the_expression_holds_for_goes_and_the_rest_keeps_its_place(
    store: Store,
) -> None:
    queue = work(store)
    for number in range(6):
        publish(store, b'{"n": %d}' % number, queue="work", headers={"h": number})
    kill(store, queue, count=6)
    dlq = store.queue("dlq")
    test = message_test(["json.n % 2 == 0 and headers.h > 0", "reason == 'rejected'"])
    asked = dlq.redrive(where=test, dry_run=True)
    assert (asked.moved, asked.unmatched) == ({"work": 2}, 4)
    assert dlq.counts().ready == 6
    done = dlq.redrive(where=test)
    assert (done.moved, done.unmatched) == ({"work": 2}, 4)
    assert bodies(queue.get_many(9)) == [b'{"n": 2}', b'{"n": 4}']
    left = dlq.get_many(9)
    assert bodies(left) == [b'{"n": %d}' % number for number in (0, 1, 3, 5)]
    assert not any(message.redelivered for message in left)
    assert work_queue(store, "dlq").check() == []


@pytest.mark.parametrize(
    ("expression", "holds"),
    [
        ("body == 'b'", True),
        ("queue == 'work' and exchange == 'shop' and routing_key == 'order.eu'", True),
        ("key == 'order.eu' and value == body", True),
        ("deaths == 1 and delivery_count == 0", True),
        ("properties.priority == 3", True),
        ("headers.n == 5", True),
        ("headers.n == '5'", False),
        ("record.offset > 0", False),
        ("properties.type == null", True),
    ],
)
def test_expressions_see_all_there_is_to_a_dead_letter(
    store: Store, expression: str, holds: bool
) -> None:
    queue = work(store)
    store.exchange("shop").publish(b"b", "order.eu", headers={"n": 5}, priority=3)
    kill(store, queue, count=1)
    test = message_test([expression])
    assert store.queue("dlq").redrive(where=test, dry_run=True).count == holds


def test_a_dry_run_knows_what_has_come_back(store: Store) -> None:
    queue = work(store)
    publish(store, b"a", b"b", queue="work")
    kill(store, queue, count=2)
    dlq = store.queue("dlq")
    dlq.get_many(1)[0].nack()
    test = message_test(["delivery_count == 1"])
    for dry_run in (True, False):
        assert dlq.redrive(where=test, dry_run=dry_run).count == 1


def test_what_is_no_dead_letter_or_has_nowhere_to_go_stays_and_is_told(store: Store) -> None:
    queue, gone, full = (
        work(store),
        work(store, "gone"),
        work(store, "full", max_length=1, overflow="reject-publish"),
    )
    publish(store, b"stray", queue="dlq")
    for name, one in (("gone", gone), ("full", full), ("work", queue)):
        publish(store, b"a", queue=name)
        kill(store, one, count=1)
    publish(store, b"b", queue="full")
    gone.delete()
    done = store.queue("dlq").redrive()
    assert done.moved == {"work": 1}
    told = {reason: (left.count, left.offsets) for reason, left in done.left.items()}
    assert told == {
        "they are no dead letters: they have no x-death": (1, [0]),
        "there is no queue 'gone' (any more)": (1, [1]),
        "queue 'full' is full, and refuses them": (1, [2]),
    }
    assert store.queue("dlq").counts()[:2] == (3, 0)


def test_a_redrive_goes_where_it_is_told(store: Store) -> None:
    queue, elsewhere = work(store), store.queue("elsewhere")
    elsewhere.bind("shop", "late.#")
    for body in numbered(3):
        store.exchange("shop").publish(body, "order.eu")
    kill(store, queue, count=3)
    dlq = store.queue("dlq")
    assert dlq.redrive(queue="elsewhere", limit=1).moved == {"elsewhere": 1}
    (message,) = elsewhere.get_many(5)
    assert (message.body, message.exchange, message.routing_key) == (b"0", "shop", "order.eu")
    assert dlq.redrive(exchange="shop", routing_key="late.1", limit=1).moved == {"shop": 1}
    (message,) = elsewhere.get_many(5)
    assert (message.body, message.routing_key) == (b"1", "late.1")
    done = dlq.redrive(exchange="shop", routing_key="nobody")
    assert list(done.left) == ["no queue gets them from exchange 'shop'"]
    assert dlq.counts()[:2] == (1, 0)
    assert dlq.redrive(exchange="shop").moved == {"shop": 1}
    assert drain(queue) == [b"2"]


@pytest.mark.parametrize(
    ("given", "error", "complaint"),
    [
        ({"queue": "a", "exchange": "b"}, InvalidInputError, "not to both"),
        ({"routing_key": "a"}, InvalidInputError, "with an exchange only"),
        ({"queue": "dlq"}, InvalidInputError, "already"),
        ({"limit": 0}, InvalidInputError, "limit=0 is out of bounds"),
        ({"exchange": "nowhere"}, UnknownExchangeError, "nowhere"),
        ({"where": message_test(["abs(body)"], queue="q")}, InvalidInputError, "at q-0, offset 0"),
    ],
)
def test_a_redrive_that_fails_leaves_everything_as_it_was(
    store: Store, given: dict[str, Any], error: type[Exception], complaint: str
) -> None:
    queue = work(store)
    publish(store, b"{}", queue="work")
    kill(store, queue, count=1)
    with pytest.raises(error, match=complaint):
        store.queue("dlq").redrive(**given)
    (message,) = store.queue("dlq").get_many(5)
    assert not message.redelivered


def test_a_crash_behind_the_publishing_leaves_the_message_in_both_places(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = work(store)
    publish(store, b"a", queue="work")
    kill(store, queue, count=1)
    broker = store.queues
    publish_into = broker.publish_into

    def crash(name: str, envelopes: Any) -> Any:
        publish_into(name, envelopes)
        raise KeyboardInterrupt

    monkeypatch.setattr(broker, "publish_into", crash)
    with pytest.raises(KeyboardInterrupt):
        store.queue("dlq").redrive()
    assert store.queue("dlq").counts()[:2] == (1, 0)
    assert queue.counts().ready == 1


def test_many_messages_go_in_order_and_in_parts(store: Store) -> None:
    queue = work(store)
    publish(store, *numbered(1200), queue="work")
    kill(store, queue, count=1200)
    assert store.queue("dlq").redrive(where=lambda message: True).count == 1200
    assert drain(queue) == numbered(1200)


def test_a_history_that_a_stranger_wrote_is_no_reason_to_fail() -> None:
    now = int(time.time() * 1000)
    histories: list[Any] = [None, "soon", [], [1], [{"reason": "rejected"}], [{"queue": 5}]]
    for history in histories:
        headers: dict[str, Any] = {"x-death": history}
        assert redriven(Envelope(b"", Properties(headers=headers)), source="q", now_ms=now) is None
    headers = {"x-death": [{"queue": "work", "routing-keys": [], "exchange": 5}], "x-redrive": 1}
    found = redriven(
        Envelope(b"", Properties(headers=headers), "dlx", "key"), source="q", now_ms=now
    )
    assert found is not None
    assert (found[0], found[1].exchange, found[1].routing_key) == ("work", "", "key")
