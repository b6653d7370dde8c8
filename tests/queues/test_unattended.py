"""Queues that nobody consumes from: what expires goes, dead letters arrive, and nothing polls."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import logstore
from logstore import Store

from .broker_support import start_script
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

HOUR = 3_600_000


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with opened(tmp_path / "store") as store:
        yield store


def threads(store: Store) -> list[str]:
    """Those that look after the queues of a handle."""
    name = f"logstore queues of {store.path}"
    return [thread.name for thread in threading.enumerate() if thread.name == name]


def with_dead_letters(store: Store, name: str = NAME, **arguments: int) -> None:
    """A queue whose dead letters go to the queue ``failed``."""
    store.queue("failed")
    store.queue(name, dead_letter_exchange="", dead_letter_routing_key="failed", **arguments)


def test_messages_expire_in_time_without_a_consumer_and_the_thread_ends(store: Store) -> None:
    with_dead_letters(store, message_ttl=100)
    publish(store, *numbered(3))
    failed = store.queue("failed")
    wait_until(lambda: failed.counts().ready == 3)
    wait_until(lambda: store.queue(NAME).counts() == (0, 0, 0, 0, 0))
    wait_until(lambda: not threads(store))
    publish(store, b"3")
    wait_until(lambda: failed.counts().ready == 4)
    assert drain(failed) == numbered(4)


def test_a_message_that_expires_before_the_others_is_not_waited_for_in_vain(store: Store) -> None:
    with_dead_letters(store)
    publish(store, b"long", expiration=HOUR)
    wait_until(lambda: threads(store))
    with_dead_letters(store, "other")
    publish(store, b"short", queue="other", expiration=100)
    failed = store.queue("failed")
    wait_until(lambda: failed.counts().ready)
    assert bodies(failed.peek(9)) == [b"short"]
    assert store.queue(NAME).counts().ready == 1


def test_where_nothing_expires_there_is_no_thread(store: Store) -> None:
    for options in ({}, {"max_length": 2}, {"max_priority": 3}):
        name = "-".join(options) or "plain"
        store.queue(name, **options)
        publish(store, *numbered(5), queue=name)
    publish(store, b"later", queue="plain", delay_ms=HOUR)
    assert not threads(store)


def test_what_is_dropped_for_want_of_room_is_a_dead_letter_at_once(store: Store) -> None:
    with_dead_letters(store, max_length=2)
    publish(store, *numbered(5))
    failed = store.queue("failed")
    wait_until(lambda: failed.counts().ready == 3)
    assert drain(failed) == numbered(3)
    wait_until(lambda: not threads(store))


def test_closing_does_not_wait_for_what_will_expire(tmp_path: Path) -> None:
    with opened(tmp_path / "store") as store:
        store.queue(NAME, message_ttl=HOUR)
        publish(store, b"a")
        wait_until(lambda: threads(store))
    assert not threads(store)


def test_an_unused_queue_goes_though_nobody_looks(store: Store) -> None:
    store.queue(NAME, expires=100)
    publish(store, b"a")
    wait_until(lambda: store.queues.queues() == [])
    wait_until(lambda: not threads(store))


def test_a_queue_expires_after_its_last_consumer_has_gone(store: Store) -> None:
    queue = store.queue(NAME, expires=100)
    with queue.consume(timeout=0.3) as consumer:
        assert list(consumer) == []
    wait_until(lambda: store.queues.queues() == [])


def test_a_queue_that_expired_while_nobody_was_there_is_gone_when_it_is_asked_for(
    tmp_path: Path,
) -> None:
    clock = ToldClock()
    with opened(tmp_path / "store", clock=clock) as store:
        store.queues._consumption._housekeeper._stopped.set()  # and so nobody sees to it
        for name in ("passive", "again"):
            publish(store, b"old", queue=store.queue(name, expires=HOUR).name)
    clock.ahead_ms = HOUR - 60_000
    with opened(tmp_path / "store", clock=clock) as store:
        store.queues._consumption._housekeeper._stopped.set()
        for name in ("passive", "again"):
            assert store.queue(name, passive=True).counts().ready == 1  # which is to use it
        clock.ahead_ms += HOUR + 1
        with pytest.raises(logstore.UnknownQueueError):
            store.queue("passive", passive=True)
        assert store.queue("again", expires=HOUR, max_length=1).counts().ready == 0


def test_what_expired_while_nobody_was_there_goes_when_the_queue_is_asked_for(
    tmp_path: Path,
) -> None:
    with opened(tmp_path / "store") as store:
        with_dead_letters(store, message_ttl=1)
        store.queues._consumption._housekeeper._stopped.set()  # and so nobody sees to it
        publish(store, *numbered(3))
    with opened(tmp_path / "store") as store:
        store.queue(NAME)
        failed = store.queue("failed")
        wait_until(lambda: failed.counts().ready == 3)


def test_maintenance_finds_messages_that_expire_of_publishers_who_are_gone(tmp_path: Path) -> None:
    with opened(tmp_path / "store") as store:
        with_dead_letters(store)
        publish(store, b"a", expiration=300)
    with opened(tmp_path / "store") as store:
        store.maintain()  # from now on it is known here
        failed = store.queue("failed")
        wait_until(lambda: failed.counts().ready)


def test_handles_that_look_after_one_queue_publish_each_dead_letter_once(tmp_path: Path) -> None:
    with opened(tmp_path / "store") as one, opened(tmp_path / "store") as other:
        with_dead_letters(one, message_ttl=50)
        with_dead_letters(other, message_ttl=50)
        for number in range(40):
            for store in (one, other):
                publish(store, *numbered(5, 5 * number))
        failed = one.queue("failed")
        wait_until(lambda: one.queue(NAME).counts() == (0, 0, 0, 0, 0))
        wait_until(lambda: failed.counts().ready >= 400)
        assert sorted(drain(failed)) == sorted(numbered(200) * 2)


PUBLISHER = """
import sys, logstore
path = sys.argv[1]
with logstore.open(path, maintenance_interval=None) as store:
    store.queue("payments", message_ttl=20, dead_letter_exchange="",
                dead_letter_routing_key="failed")
    for number in range(100):
        store.exchange("").publish(b"%d" % number, "payments", acks=1)
    print("published", flush=True)
    input()
"""


def test_processes_that_look_after_one_queue_publish_each_dead_letter_once(tmp_path: Path) -> None:
    path = tmp_path / "store"
    with opened(path) as store:
        with_dead_letters(store, message_ttl=20)
        processes = [start_script(PUBLISHER, path) for _ in range(2)]
        try:
            for process in processes:
                assert process.stdout is not None
                assert process.stdout.readline() == b"published\n"
            failed = store.queue("failed")
            wait_until(lambda: failed.counts().ready >= 200)
            wait_until(lambda: store.queue(NAME).counts() == (0, 0, 0, 0, 0))
            assert sorted(drain(failed)) == sorted(numbered(100) * 2)
        finally:
            for process in processes:
                _, errors = process.communicate(b"\n", timeout=60)
                assert (process.returncode, errors or b"") == (0, b"")


def test_a_thread_that_sleeps_looks_around_as_soon_as_somebody_consumes(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.queue(NAME, message_ttl=HOUR)
    publish(store, b"a")
    wait_until(lambda: threads(store))
    housekeeper = store.queues._consumption._housekeeper
    wait_until(lambda: housekeeper._agenda.next_ms > 0)  # it has looked, and sleeps for an hour
    ticks: list[float] = []
    real = housekeeper.tick

    def tick() -> None:
        ticks.append(time.monotonic())
        real()

    monkeypatch.setattr(housekeeper, "tick", tick)
    with store.queue("other").consume():
        wait_until(lambda: len(ticks) > 1, seconds=20)


def test_what_could_not_be_published_is_tried_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("logstore.queues.housekeeper.RETRY_MS", 50)
    with_dead_letters(store, message_ttl=1)
    failures = iter([OSError("no room"), OSError("no room")])
    real = store.queues.publish_dead

    def publish_dead(*arguments: object) -> int:
        for error in failures:
            raise error
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(store.queues, "publish_dead", publish_dead)
    publish(store, b"a")
    failed = store.queue("failed")
    wait_until(lambda: failed.counts().ready)
    assert drain(failed) == [b"a"]


def test_a_queue_that_another_handle_deletes_is_no_trouble(store: Store) -> None:
    queue = store.queue(NAME)
    publish(store, *numbered(3))
    message = queue.get()
    assert message is not None
    message.ack(flush=True)
    opened_queue = work_queue(store)
    with opened(Path(store.path)) as other:
        other.queue(NAME).delete()
    store.queues.consumption._housekeeper.keep(opened_queue)


def test_a_reader_has_no_thread(tmp_path: Path) -> None:
    with opened(tmp_path / "store") as store:
        with_dead_letters(store, message_ttl=1)
        publish(store, b"a")
    with logstore.open(tmp_path / "store", read_only=True) as reader:
        reader.queue(NAME, passive=True).counts()
        assert not threads(reader)


def test_a_short_process_that_publishes_ends_at_once(tmp_path: Path) -> None:
    with opened(tmp_path / "store") as store:
        with_dead_letters(store, message_ttl=HOUR)
    process = start_script(
        PUBLISHER.replace("message_ttl=20", f"message_ttl={HOUR}"), tmp_path / "store"
    )
    try:
        output, _ = process.communicate(b"\n", timeout=60)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    assert (process.returncode, output) == (0, b"published\n")
