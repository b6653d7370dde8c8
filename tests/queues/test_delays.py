"""Delayed messages among consumers that sleep, and in front of others."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from logstore.queues.consuming import Consumer
from logstore.queues.message import Message

from .support import NAME, drain, numbered, opened, publish, wait_until, work_queue

HOUR = 3_600_000


def test_a_sleeper_is_told_when_somebody_else_has_met_what_is_due_sooner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("logstore.queues.pulling", "logstore.waiting"):
        monkeypatch.setattr(f"{module}.LONGEST_SLEEP", 60.0)  # nobody looks just to be sure
    with opened(tmp_path / "store") as one, opened(tmp_path / "store") as two:
        queue = one.queue(NAME)
        other = work_queue(two)
        for store in (one, two):  # which would meet it first
            store.queues._consumption._housekeeper._stopped.set()
        leased, asleep = threading.Event(), threading.Event()
        read = other.read

        def slowly(*arguments: Any) -> Any:
            leased.set()
            asleep.wait(60)
            return read(*arguments)

        monkeypatch.setattr(other, "read", slowly)
        publish(one, b"soon", delay_ms=500)
        got: list[Message | None] = []
        with queue.consume() as consumer:
            met = threading.Thread(target=lambda: got.append(two.queue(NAME).get()))
            met.start()
            assert leased.wait(60)
            thread = threading.Thread(target=lambda: got.append(consumer.get(timeout=30)))
            thread.start()
            wait_until(lambda: consumer._puller._sleeping.locked())
            asleep.set()
            met.join()
            thread.join()
        assert [message and message.body for message in got] == [None, b"soon"]


@pytest.mark.parametrize("by", ["get", "prefetch"])
def test_one_who_takes_a_message_at_a_time_passes_over_many_that_are_not_due(
    tmp_path: Path, by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(tmp_path / "store") as store:
        queue = store.queue(NAME)
        store.queues._consumption._housekeeper._stopped.set()  # which would help
        publish(store, *numbered(2000), delay_ms=HOUR)
        publish(store, *numbered(500, 5000), expiration=0)
        publish(store, *numbered(2000, 2000), delay_ms=HOUR)
        publish(store, b"now", b"next")
        before = store.queues._ledgers.number()
        if by == "get":
            message = queue.get()
        else:
            consumer: Consumer = queue.consume(prefetch=1)
            message = consumer.get(timeout=60)
        assert message is not None
        assert message.body == b"now"
        assert store.queues._ledgers.number() - before < 50  # transactions
        assert queue.counts()[3] == 4000
        message.ack()
        if by == "prefetch":
            consumer.close()
        assert drain(queue) == [b"next"]
