"""Share groups: how fast records are acquired and accepted (a part of ``bench/queue.py``).

Limits: a consumer that reads the same topic, and the log alone; neither has a ledger.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import logstore
from bench.harness import BATCH_RECORDS, Options, Row, Session, Table, Work
from logstore import Record, Store

__all__ = ["sharing_table"]

TOPIC = "orders"
VALUE = b"x" * 200
Share = Callable[[Store, int], None]


def on_full_topic(directory: Path, count: int, work: Share) -> Session:
    """A session on a topic of one partition that holds ``count`` records."""

    @contextlib.contextmanager
    def session() -> Iterator[Work]:
        with (
            tempfile.TemporaryDirectory(dir=directory) as path,
            logstore.open(os.path.join(path, "store"), maintenance_interval=None) as store,
        ):
            log = store.create_topic(TOPIC).partition(0)
            for _ in range(0, count, BATCH_RECORDS):
                log.append([Record(value=VALUE)] * BATCH_RECORDS)
            store.share_groups.alter("workers", share_auto_offset_reset="earliest")
            yield partial(work, store, count)

    return session


def accept_by_poll(store: Store, count: int) -> None:
    """The next poll accepts what the last one got."""
    with store.share_consumer(TOPIC, group="workers") as consumer:
        while records := consumer.poll():
            count -= len(records)
    assert not count


def accept_each(store: Store, count: int) -> None:
    """Each record is accepted by a call of its own."""
    with store.share_consumer(
        TOPIC, group="workers", share_acknowledgement_mode="explicit"
    ) as consumer:
        while records := consumer.poll():
            for record in records:
                record.accept()
            count -= len(records)
    assert not count


def accept_in_turns(store: Store, count: int) -> None:
    """Four consumers of one partition, one after the other."""
    with contextlib.ExitStack() as stack:
        consumers = [
            stack.enter_context(store.share_consumer(TOPIC, group="workers")) for _ in range(4)
        ]
        while count:
            for consumer in consumers:
                count -= len(consumer.poll())


def consume(store: Store, count: int) -> None:
    """A consumer, without a group."""
    with store.consumer(TOPIC) as consumer:
        while records := consumer.poll():
            count -= len(records)
    assert not count


def read_log(store: Store, count: int) -> None:
    """The log alone."""
    log = store.topic(TOPIC).partition(0)
    offset = 0
    while (fetch := log.read(offset)).data:
        deque(fetch.records(), maxlen=0)
        offset = fetch.next_offset
    assert offset == count


def sharing_table(options: Options, directory: Path) -> Table:
    """Acquired and accepted."""
    count = options.count(100_000)

    def on(work: Share) -> Session:
        return on_full_topic(directory, count, work)

    return Table(
        "a share group of one partition: acquire and accept records of 200 bytes",
        [
            Row("500 at a time, accepted by the next poll", count, on(accept_by_poll)),
            Row("500 at a time, accepted one by one", count, on(accept_each)),
            Row("four consumers, in turns", count, on(accept_in_turns)),
            Row("Consumer.poll(), without a group", count, on(consume), "A"),
            Row("PartitionLog.read().records()", count, on(read_log), "B"),
        ],
        unit="records/s",
    )
