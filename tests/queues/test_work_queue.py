"""A queue's own doings: priorities, limits, times to live, delays, counts."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import logstore
from logstore import (
    LogstoreError,
    NackedError,
    PreconditionFailedError,
    Store,
    UnknownQueueError,
)
from logstore.queues.ledger_rows import Span
from logstore.queues.queue import WorkQueue
from logstore.queues.queue_face import Queue
from logstore.queues.queue_upkeep import Upkeep
from logstore.queues.retention import settled_segments

from .support import (
    NAME,
    ToldClock,
    bodies,
    drain,
    image,
    numbered,
    opened,
    publish,
    restarted,
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


def tend(store: Store, name: str = NAME) -> bool:
    """Let the housekeeping of a queue be done now."""
    return Upkeep(work_queue(store, name)).tend()


# priorities ---------------------------------------------------------------------------------


def test_the_highest_priority_is_delivered_first_and_each_in_its_order(store: Store) -> None:
    queue = store.queue(NAME, max_priority=5)
    for number, priority in enumerate([0, 5, 3, None, 9, 3, 0]):
        publish(store, b"%d" % number, priority=priority)
    assert bodies(queue.peek(9)) == [b"1", b"4", b"2", b"5", b"0", b"3", b"6"]
    assert drain(queue) == [b"1", b"4", b"2", b"5", b"0", b"3", b"6"]


def test_a_requeued_message_keeps_its_place_within_its_priority(store: Store) -> None:
    queue = store.queue(NAME, max_priority=1)
    publish(store, *numbered(4))
    first, second = queue.get_many(2)
    publish(store, b"urgent", priority=1)
    second.nack()
    first.nack()
    assert drain(queue) == [b"urgent", *numbered(4)]


def test_a_level_that_another_handle_makes_is_seen(store: Store) -> None:
    queue = store.queue(NAME, max_priority=9)
    publish(store, b"low")
    assert bodies(queue.get_many(5)) == [b"low"]
    with opened(Path(store.path)) as other:
        publish(other, b"high", priority=7)
    assert bodies(queue.get_many(5)) == [b"high"]


# limits -------------------------------------------------------------------------------------


def test_a_full_queue_drops_its_first_messages(store: Store) -> None:
    queue = store.queue(NAME, max_length=3)
    publish(store, *numbered(2))
    publish(store, *numbered(5, 2))
    assert bodies(queue.peek(9)) == numbered(3, 4)
    taken = queue.get_many(2)  # only what is ready counts
    publish(store, *numbered(2, 7))
    assert bodies(queue.peek(9)) == numbered(3, 6)
    taken[0].nack()  # what comes back may be too much, until somebody publishes or looks after it
    assert queue.counts().ready in (3, 4)
    publish(store, b"9")
    assert bodies(queue.peek(9)) == numbered(3, 7)


def test_dropped_messages_are_dead_lettered(store: Store) -> None:
    store.queue("failed")
    store.queue(NAME, max_length=1, dead_letter_exchange="", dead_letter_routing_key="failed")
    publish(store, *numbered(3))
    failed = store.queue("failed")
    wait_until(lambda: failed.counts().ready == 2)
    letters = failed.get_many(2)
    assert bodies(letters) == numbered(2)
    deaths = (letters[0].properties.headers or {})["x-death"]
    assert [(death["reason"], death["queue"]) for death in deaths] == [("maxlen", NAME)]


def test_a_full_queue_refuses_what_is_too_much(store: Store) -> None:
    queue = store.queue(NAME, max_length=3, overflow="reject-publish")
    with pytest.raises(NackedError) as caught:
        publish(store, *numbered(5))
    assert sorted(caught.value.confirms.rejected) == [3, 4]
    assert bodies(queue.peek(9)) == numbered(3)
    drain(queue)
    publish(store, b"again", acks="all")
    assert drain(queue) == [b"again"]


def test_what_is_refused_can_be_dead_lettered(store: Store) -> None:
    failed = store.queue("failed")
    store.queue(
        NAME,
        max_length=1,
        overflow="reject-publish-dlx",
        dead_letter_exchange="",
        dead_letter_routing_key="failed",
    )
    with pytest.raises(NackedError):
        publish(store, *numbered(2))
    assert bodies(failed.get_many(5)) == [b"1"]


@pytest.mark.parametrize("overflow", ["drop-head", "reject-publish"])
def test_bytes_are_limited_too(store: Store, overflow: str) -> None:
    queue = store.queue(NAME, max_length_bytes=10, overflow=overflow)
    publish(store, b"aaaa", b"bbbb")
    (first,) = queue.get_many(1)
    publish(store, b"cccc")
    try:
        publish(store, b"dddd")
    except NackedError:
        assert overflow == "reject-publish"
    kept = [b"cccc", b"dddd"] if overflow == "drop-head" else [b"bbbb", b"cccc"]
    assert bodies(queue.peek(9)) == kept
    first.nack()
    if overflow == "drop-head":
        publish(store, b"e")
        assert bodies(queue.peek(9)) == [b"cccc", b"dddd", b"e"]
    assert work_queue(store).check() == []


def test_limits_hold_over_all_levels_together(store: Store) -> None:
    queue = store.queue(NAME, max_length=2, max_priority=3)
    publish(store, b"low")
    publish(store, b"high", priority=3)
    publish(store, b"middle", priority=2)
    # As in RabbitMQ: the head of the queue is the message of the highest priority.
    assert bodies(queue.peek(9)) == [b"middle", b"low"]


def test_a_queue_that_a_killed_publisher_left_too_full_is_seen_to(store: Store) -> None:
    queue = store.queue(NAME, max_length=2)
    level = work_queue(store).level(0)
    publish(store, b"0")
    records = list(level.log.read(0).records())
    level.log.append(records * 4, acks=1)  # and here it was killed
    tend(store)
    assert queue.counts().ready == 2


# times to live ------------------------------------------------------------------------------


def test_an_expired_message_is_never_delivered(store: Store, clock: ToldClock) -> None:
    queue = store.queue(NAME, message_ttl=1000)
    publish(store, b"old")
    clock.ahead_ms += 600
    publish(store, b"young")
    publish(store, b"short", expiration=100)
    clock.ahead_ms += 500
    assert bodies(queue.peek(9)) == [b"young"]
    assert drain(queue) == [b"young"]
    assert queue.counts() == (0, 0, 0, 0, 0)


def test_the_head_of_a_queue_expires_though_nobody_comes(store: Store, clock: ToldClock) -> None:
    failed = store.queue("failed")
    queue = store.queue(
        NAME, message_ttl=1000, dead_letter_exchange="", dead_letter_routing_key="failed"
    )
    publish(store, *numbered(3))
    clock.ahead_ms += 600
    publish(store, b"3")
    tend(store)
    assert queue.counts().ready == 4
    clock.ahead_ms += 500
    tend(store)
    wait_until(lambda: queue.counts() == (1, 0, 0, 0, 0))  # the housekeeper may have been quicker
    letters = failed.get_many(9)
    assert bodies(letters) == numbered(3)
    assert (letters[0].properties.headers or {})["x-first-death-reason"] == "expired"


def test_messages_expire_behind_one_that_does_not_when_it_is_gone(
    store: Store, clock: ToldClock
) -> None:
    queue = store.queue(NAME)
    publish(store, b"first")
    publish(store, b"second", expiration=10)
    clock.ahead_ms += 50
    tend(store)
    assert queue.counts().ready == 2  # as in RabbitMQ: it still counts
    assert drain(queue) == [b"first"]


def test_a_requeued_message_does_not_live_longer(store: Store, clock: ToldClock) -> None:
    queue = store.queue(NAME, message_ttl=1000)
    publish(store, b"a")
    (message,) = queue.get_many(1)
    clock.ahead_ms += 2000
    message.nack()
    assert queue.get() is None


# delays -------------------------------------------------------------------------------------


def test_delayed_messages_come_when_they_are_due_in_order_of_that(
    store: Store, clock: ToldClock
) -> None:
    queue = store.queue(NAME)
    publish(store, b"late", delay_ms=2000)
    publish(store, b"early", deliver_at_ms=clock.now_ms() + 1000)
    publish(store, b"now")
    assert drain(queue) == [b"now"]
    assert queue.counts() == (0, 0, 0, 2, 0)
    clock.ahead_ms += 900
    assert drain(queue) == []
    clock.ahead_ms += 200
    assert drain(queue) == [b"early"]
    clock.ahead_ms += 1000
    assert queue.counts().ready == 1
    (message,) = queue.get_many(9)
    assert (message.body, message.redelivered) == (b"late", False)
    message.nack()
    assert drain(queue) == [b"late"]


def test_the_time_to_live_of_a_delayed_message_begins_when_it_is_due(
    store: Store, clock: ToldClock
) -> None:
    queue = store.queue(NAME, message_ttl=1000)
    publish(store, b"a", delay_ms=5000)
    assert drain(queue) == []
    clock.ahead_ms += 5500
    assert drain(queue) == [b"a"]
    publish(store, b"b", delay_ms=5000)
    assert drain(queue) == []
    clock.ahead_ms += 6500
    assert drain(queue) == []
    assert queue.counts() == (0, 0, 0, 0, 0)


def test_delayed_messages_at_the_head_are_put_aside_though_nobody_comes(store: Store) -> None:
    queue = store.queue(NAME)
    publish(store, *numbered(700), delay_ms=60_000)
    publish(store, b"now")
    tend(store)
    assert queue.counts() == (1, 0, 0, 700, 0)


def test_many_delayed_messages_cost_one_look(store: Store) -> None:
    queue = store.queue(NAME)
    for _ in range(20):
        publish(store, *([b"x"] * 500), deliver_at_ms=1 << 45)
    assert drain(queue) == []
    work = work_queue(store)
    number = work.ledgers.number()
    assert not work.has_ready()
    assert work.ledgers.number() == number
    assert work.next_due == 1 << 45
    assert queue.counts().delayed == 10_000


# levels and transactions --------------------------------------------------------------------


def within_transactions(queue: WorkQueue, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note whether levels are looked for inside of a transaction, where others may have changed
    something just before each."""
    faults: list[str] = []
    inside: list[bool] = []
    change, read, find = queue.ledgers.change, queue.ledgers.read, queue._find_levels

    def within(action: Callable[..., Any], *given: Any) -> Any:
        inside.append(True)
        queue._looked = 0
        try:
            return action(*given)
        finally:
            inside.pop()

    def found() -> None:
        if inside:
            faults.append("levels were looked for inside of a transaction")
        find()

    monkeypatch.setattr(
        queue.ledgers, "change", lambda act, **given: change(partial(within, act), **given)
    )
    monkeypatch.setattr(queue.ledgers, "read", lambda act: read(partial(within, act)))
    monkeypatch.setattr(queue, "_find_levels", found)
    return faults


def test_no_level_is_looked_for_inside_of_a_transaction(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever opens one goes into a transaction with the mutex in hand: two threads that took the
    two in different order would wait for each other for ever."""
    queue = store.queue(NAME, max_length=4, max_priority=2, retention_ms=-1)
    publish(store, *numbered(2))
    faults = within_transactions(work_queue(store), monkeypatch)
    publish(store, *numbered(4), priority=1)
    assert queue.counts().ready == 4
    tend(store)
    assert len(queue.get_many(2)) == 2
    queue.seek("earliest", priority=1, dry_run=True)
    queue.seek("latest")
    assert queue.purge() == 0
    assert faults == []


def test_a_level_that_another_handle_makes_meanwhile_counts_for_the_limit(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(tmp_path / "store") as other:
        queue = store.queue(NAME, max_length=3, max_priority=2)
        publish(store, *numbered(3))
        ledgers = work_queue(store).ledgers
        change = ledgers.change

        def meanwhile(action: Callable[..., Any]) -> Any:
            monkeypatch.setattr(ledgers, "change", change)
            publish(other, b"urgent", priority=2)
            return change(action)

        monkeypatch.setattr(ledgers, "change", meanwhile)
        publish(store, b"late")
        assert queue.counts().ready == 3
        assert work_queue(store).check() == []


def test_a_queue_with_limits_is_deleted_while_others_publish_to_it(store: Store) -> None:
    """Who deletes it holds its logs; who publishes asks for them inside of a transaction."""
    over = threading.Event()
    failures: list[LogstoreError] = []

    def go_on_publishing() -> None:
        while not over.is_set():
            try:
                store.queue(NAME, max_length=5)
                store.exchange("").publish(b"x", NAME, acks=1)
            except UnknownQueueError:
                pass  # it was deleted in between
            except LogstoreError as error:
                failures.append(error)

    threads = [threading.Thread(target=go_on_publishing) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(20):
            store.queue(NAME, max_length=5).delete(if_unused=True)
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert failures == []


# ends ---------------------------------------------------------------------------------------


def test_a_message_that_comes_back_too_often_is_dead_lettered(store: Store) -> None:
    failed = store.queue("failed")
    queue = store.queue(
        NAME, delivery_limit=2, dead_letter_exchange="", dead_letter_routing_key="failed"
    )
    publish(store, b"poison")
    counts = []
    while (message := queue.get()) is not None:
        counts.append(message.delivery_count)
        message.nack()
    assert counts == [0, 1, 2]
    wait_until(lambda: failed.counts().ready)
    letter = failed.get()
    assert letter is not None
    assert (letter.properties.headers or {})["x-first-death-reason"] == "delivery_limit"


def test_without_anywhere_to_go_dead_messages_are_dropped(store: Store) -> None:
    queue = store.queue(NAME, delivery_limit=0)
    publish(store, *numbered(2))
    first, second = queue.get_many(2)
    first.nack()
    second.reject()
    assert queue.counts() == (0, 0, 0, 0, 0)


def test_a_dead_letter_without_an_exchange_that_is_there_is_dropped(store: Store) -> None:
    queue = store.queue(NAME, dead_letter_exchange="nowhere")
    publish(store, b"a")
    queue.get_many(1)[0].reject()
    wait_until(lambda: queue.counts() == (0, 0, 0, 0, 0))


def test_a_purge_takes_what_waits_and_leaves_what_was_delivered(store: Store) -> None:
    queue = store.queue(NAME)
    publish(store, *numbered(10))
    publish(store, b"delayed", delay_ms=60_000)
    held = queue.get_many(2)
    assert queue.purge() == 9
    assert queue.counts()[:2] == (0, 2)
    held[0].nack()
    assert drain(queue) == [b"0"]
    held[1].ack()


def test_a_queue_that_nobody_uses_goes_when_it_expires(store: Store, clock: ToldClock) -> None:
    queue = store.queue(NAME, expires=1000)
    publish(store, b"a")
    clock.ahead_ms += 700
    queue.get()
    clock.ahead_ms += 700
    assert not tend(store)
    with queue.consume():
        clock.ahead_ms += 2000
        assert not tend(store)
    clock.ahead_ms += 900
    assert not tend(store)
    clock.ahead_ms += 200
    wait_until(lambda: NAME not in [one.name for one in store.queues.queues()])


def test_a_queue_is_deleted_only_if_nobody_needs_it(store: Store) -> None:
    queue = store.queue(NAME)
    publish(store, b"a")
    with pytest.raises(PreconditionFailedError, match="not empty"):
        queue.delete(if_empty=True)
    with queue.consume(), pytest.raises(PreconditionFailedError, match=r"in use \(consumers: 1\)"):
        queue.delete(if_unused=True)
    drain(queue)
    assert queue.delete(if_empty=True, if_unused=True)


def test_peeking_takes_nothing_and_what_was_looked_at_cannot_be_settled(store: Store) -> None:
    queue = store.queue(NAME)
    publish(store, *numbered(3), type="order", headers={"a": 1})
    looked_at = queue.peek(2)
    assert bodies(looked_at) == numbered(2)
    assert looked_at[0].properties.headers == {"a": 1}
    for settle in (looked_at[0].ack, looked_at[0].nack, looked_at[0].reject):
        with pytest.raises(logstore.InvalidInputError, match="only looked at"):
            settle()
    count: Any
    for count in (0, -1, True, "1"):
        with pytest.raises(logstore.InvalidInputError, match=r"count=.* is out of bounds"):
            queue.peek(count)
    assert drain(queue) == numbered(3)


# segments -----------------------------------------------------------------------------------


def test_settled_segments_are_deleted_also_in_the_middle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = logstore.LogConfig(segment_bytes=600, retention_ms=-1, file_delete_delay_ms=0)
    monkeypatch.setattr("logstore.queues.open_queues.LOG_CONFIG", small)
    with opened(tmp_path / "store") as store:
        queue = store.queue(NAME)
        for body in numbered(30):
            publish(store, body + b"x" * 100)
        (level,) = work_queue(store).levels()
        before = level.log.segments
        assert len(before) > 5
        messages = queue.get_many(30)
        kept = messages[12]  # never acknowledged: it must not pin the others
        for message in messages:
            if message is not kept:
                message.ack()
        messages[0][0].channel.flush()
        upkeep = Upkeep(work_queue(store))
        assert upkeep.drop_settled() == len(before) - 2
        assert len(level.log.segments) == 2
        assert level.log.log_start_offset > 0
        assert work_queue(store).check() == []
        publish(store, b"new", acks="all")
        work_queue(store).checkpoint()
        left = image(store, tmp_path / "left")
    with restarted(left) as store:
        queue = store.queue(NAME)
        assert [body[:2] for body in drain(queue)] == [b"12", b"ne"]
        assert work_queue(store).check() == []


def test_segments_that_are_gone_are_passed_over_after_a_power_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = logstore.LogConfig(segment_bytes=600, retention_ms=-1, file_delete_delay_ms=0)
    monkeypatch.setattr("logstore.queues.open_queues.LOG_CONFIG", small)
    with opened(tmp_path / "store") as store:
        queue = store.queue(NAME)
        for body in numbered(40):
            publish(store, body + b"x" * 100)
        (level,) = work_queue(store).levels()
        level.log.flush()
        messages = queue.get_many(40)
        messages[1].ack(durable=True)  # the checkpoint knows of nothing that follows
        messages[37].ack(multiple=True, flush=True)
        messages[0][0].channel.flush()
        assert Upkeep(work_queue(store)).drop_settled() > 5
        left = image(store, tmp_path / "left")
    with restarted(left) as store:
        queue = store.queue(NAME)
        found = [body.rstrip(b"x") for body in drain(queue)]
        assert found[-2:] == [b"38", b"39"]
        assert len(found) < 10
        assert queue.counts() == (0, 0, 0, 0, 0)
        assert work_queue(store).check() == []


@pytest.mark.parametrize(
    ("cursor", "spans", "settled"),
    [
        (40, [], [0, 10, 20]),
        (29, [], [0, 10]),
        (40, [Span(12, 1, 0)], [0, 20]),
        (40, [Span(0, 1, 0), Span(19, 2, 0)], []),
        (40, [Span(9, 1, 0), Span(30, 9, 0)], [10, 20]),
        (0, [], []),
    ],
)
def test_segments_are_settled_that_lie_below_the_cursor_and_hold_nothing(
    cursor: int, spans: list[Span], settled: list[int]
) -> None:
    assert settled_segments((0, 10, 20, 30), cursor, spans) == settled


def test_what_the_log_has_lost_is_found_by_a_check(store: Store) -> None:
    queue = store.queue(NAME)
    publish(store, *numbered(3))
    held = queue.get_many(3)
    (level,) = work_queue(store).levels()
    level.log.truncate(2)
    faults = work_queue(store).check()
    assert any("the cursor is 3, beyond the log's end, 2" in fault for fault in faults)
    assert any("the log has only 2" in fault for fault in faults)
    assert len(held) == 3


def test_queues_differ(store: Store) -> None:
    one, other = store.queue("one"), store.queue("other")
    publish(store, b"a", queue="one")
    assert other.get() is None
    assert isinstance(one, Queue)
    assert drain(one) == [b"a"]
