"""Work queues: how fast messages are delivered and acknowledged (a part of ``bench/queue.py``).

Limits: reading the same log without any ledger; and a queue in bare LMDB, and one in SQLite, by
hand, which have none of a queue's semantics: no leases, no redelivery, one consumer.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import lmdb

import logstore
from bench.harness import BATCH_RECORDS, Figure, Options, Row, Session, Table, Work
from logstore import Store
from logstore.queues.properties import Properties
from logstore.queues.queue_face import Queue

__all__ = ["consuming_tables"]

QUEUE = "payments"
BODY = b"x" * 200
Consume = Callable[[Queue, int], None]


@contextlib.contextmanager
def new_store(directory: Path) -> Iterator[Store]:
    """A store of its own, with a queue in it."""
    with (
        tempfile.TemporaryDirectory(dir=directory) as path,
        logstore.open(os.path.join(path, "store"), maintenance_interval=None) as store,
    ):
        store.queue(QUEUE)
        yield store


def fill(store: Store, count: int, properties: Properties | None = None) -> None:
    """Publish so many messages, in batches."""
    exchange = store.exchange("")
    for start in range(0, count, BATCH_RECORDS):
        bodies = [BODY] * min(BATCH_RECORDS, count - start)
        exchange.publish_batch(bodies, QUEUE, acks=1, properties=properties)


def on_full_queue(
    directory: Path,
    count: int,
    consume: Consume,
    *,
    behind: int = 0,
    properties: Properties | None = None,
) -> Session:
    """A session on a queue in which ``count`` messages wait, and ``behind`` more."""

    @contextlib.contextmanager
    def session() -> Iterator[Work]:
        with new_store(directory) as store:
            fill(store, count + behind, properties)
            yield partial(consume, store.queue(QUEUE), count)

    return session


def ack_by_batch(queue: Queue, count: int) -> None:
    """Prefetch 500, one acknowledgement for 500 messages."""
    number = 0
    with queue.consume(prefetch=500) as consumer:
        for message in consumer:
            number += 1
            if number % 500 == 0:
                message.ack(multiple=True)
                if number == count:
                    break


def ack_each(queue: Queue, count: int) -> None:
    """Prefetch 500, each message acknowledged by a call of its own."""
    number = 0
    with queue.consume(prefetch=500) as consumer:
        for message in consumer:
            message.ack()
            number += 1
            if number == count:
                break


def ack_each_from_prefetch(prefetch: int, queue: Queue, count: int) -> None:
    """The same with another prefetch."""
    number = 0
    with queue.consume(prefetch=prefetch) as consumer:
        for message in consumer:
            message.ack()
            number += 1
            if number == count:
                break


def no_ack(queue: Queue, count: int) -> None:
    """Settled as they are handed out."""
    with queue.consume(prefetch=500, no_ack=True) as consumer:
        for number, _ in enumerate(consumer, 1):
            if number == count:
                break


def by_callback(queue: Queue, count: int) -> None:
    """A callback that acknowledges each."""
    left = [count]

    def callback(message: logstore.Message) -> None:
        message.ack()
        left[0] -= 1
        if not left[0]:
            consumer.cancel()

    consumer = queue.consume(prefetch=500)
    consumer.start(callback)
    consumer.join()
    consumer.close()


def read_log(queue: Queue, count: int) -> None:
    """The log alone."""
    (level,) = queue._broker.work_queue(queue.definition).levels()
    offset = 0
    while (fetch := level.log.read(offset)).data:
        deque(fetch.records(), maxlen=0)
        offset = fetch.next_offset


# Peers by hand --------------------------------------------------------------------------------


@contextlib.contextmanager
def lmdb_queue(directory: Path, count: int, *, batch: int) -> Iterator[Work]:
    """A queue in bare LMDB: keys count up; ``batch`` messages are read and deleted at once."""
    with tempfile.TemporaryDirectory(dir=directory) as path:
        environment = lmdb.open(path, map_size=1 << 34, sync=False)
        for start in range(0, count, BATCH_RECORDS):
            with environment.begin(write=True) as transaction:
                for number in range(start, min(start + BATCH_RECORDS, count)):
                    transaction.put(number.to_bytes(8, "big"), BODY, append=True)

        def work() -> None:
            for _ in range(0, count, batch):
                with environment.begin(write=True) as transaction:
                    cursor = transaction.cursor()
                    cursor.first()
                    for _ in range(batch):
                        cursor.value()
                        cursor.delete()

        try:
            yield work
        finally:
            environment.close()


@contextlib.contextmanager
def sqlite_queue(directory: Path) -> Iterator[sqlite3.Connection]:
    """A queue in SQLite, by hand."""
    with tempfile.TemporaryDirectory(dir=directory) as path:
        connection = sqlite3.connect(os.path.join(path, "q.db"), isolation_level=None)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=OFF")
        connection.execute("CREATE TABLE q (id INTEGER PRIMARY KEY, body BLOB, taken INT)")
        try:
            yield connection
        finally:
            connection.close()


# Times ----------------------------------------------------------------------------------------


def p50(times: list[float]) -> Figure:
    """The median, in microseconds."""
    return Figure(sorted(times)[len(times) // 2] * 1e6)


@contextlib.contextmanager
def one_at_a_time(directory: Path, count: int) -> Iterator[Work]:
    """Publish, consume, acknowledge, one after the other."""
    with new_store(directory) as store, store.queue(QUEUE).consume(prefetch=1) as consumer:
        publish, messages = store.exchange("").publish, iter(consumer)

        def work() -> Figure:
            times = []
            for _ in range(count):
                begun = time.perf_counter()
                publish(BODY, QUEUE, acks=1)
                next(messages).ack()
                times.append(time.perf_counter() - begun)
            return p50(times)

        yield work


@contextlib.contextmanager
def sqlite_one_at_a_time(directory: Path, count: int) -> Iterator[Work]:
    """The same with the queue in SQLite."""
    with sqlite_queue(directory) as connection:
        execute = connection.execute

        def work() -> Figure:
            times = []
            for _ in range(count):
                begun = time.perf_counter()
                execute("INSERT INTO q (body, taken) VALUES (?, 0)", (BODY,))
                (number,) = execute(
                    "UPDATE q SET taken = 1 WHERE id = "
                    "(SELECT min(id) FROM q WHERE taken = 0) RETURNING id"
                ).fetchone()
                execute("DELETE FROM q WHERE id = ?", (number,))
                times.append(time.perf_counter() - begun)
            return p50(times)

        yield work


_PUBLISHER = """
import sys, time, logstore
with logstore.open(sys.argv[1], maintenance_interval=None) as store:
    publish = store.exchange("").publish
    print("ready", flush=True)
    for _ in sys.stdin:
        publish(time.clock_gettime_ns(time.CLOCK_MONOTONIC).to_bytes(8, "big") + bytes(192),
                "payments", acks=1)
"""


@contextlib.contextmanager
def across_processes(directory: Path, count: int) -> Iterator[Work]:
    """A message that another process publishes, until this one has it; the consumer waits."""
    with new_store(directory) as store, store.queue(QUEUE).consume(prefetch=1) as consumer:
        child = subprocess.Popen(
            [sys.executable, "-c", _PUBLISHER, store.path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdout.readline()
        messages = iter(consumer)

        def work() -> Figure:
            assert child.stdin is not None
            times = []
            for _ in range(count):
                child.stdin.write(b"\n")
                child.stdin.flush()
                message = next(messages)
                now = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
                times.append((now - int.from_bytes(message.body[:8], "big")) / 1e9)
                message.ack()
            return p50(times)

        try:
            yield work
        finally:
            child.kill()
            child.communicate()


# Tables ---------------------------------------------------------------------------------------


def delivery_table(options: Options, directory: Path) -> Table:
    """Delivered and acknowledged."""
    count = options.count(100_000)
    properties = Properties(content_type="application/json", message_id="m-1", type="created")

    def on(consume: Consume, **given: Properties) -> Session:
        return on_full_queue(directory, count, consume, **given)  # type: ignore[arg-type]

    return Table(
        "deliver and acknowledge messages of 200 bytes",
        [
            Row("prefetch 500, acknowledged by 500", count, on(ack_by_batch), goal=1_000_000),
            Row("prefetch 500, acknowledged one by one", count, on(ack_each), goal=250_000),
            Row("the same, with three properties", count, on(ack_each, properties=properties)),
            Row("the same, by a callback", count, on(by_callback)),
            Row("prefetch 500, no_ack", count, on(no_ack)),
            Row("prefetch 1", count // 10, _tenth(directory, count)),
            Row("PartitionLog.read().records()", count, on(read_log), "A"),
            Row(
                "bare LMDB, 500 at once",
                count,
                lambda: lmdb_queue(directory, count, batch=500),
                "B",
            ),
            Row(
                "bare LMDB, one by one",
                count // 10,
                lambda: lmdb_queue(directory, count // 10, batch=1),
                "C",
            ),
        ],
        unit="messages/s",
    )


def _tenth(directory: Path, count: int) -> Session:
    return on_full_queue(directory, count // 10, partial(ack_each_from_prefetch, 1))


def waiting_table(options: Options, directory: Path) -> Table:
    """What a message costs where few or many wait."""
    count = options.count(100_000)
    lengths = [10_000, 1_000_000] + ([] if options.scale < 1 else [10_000_000])
    rows = [
        Row(
            f"{length:,} behind them",
            count,
            on_full_queue(directory, count, ack_each, behind=length),
        )
        for length in lengths
    ]
    rows.append(Row("none behind them", count, on_full_queue(directory, count, ack_each), "A"))
    return Table("deliver and acknowledge from long queues", rows, unit="messages/s")


def single_table(options: Options, directory: Path) -> Table:
    """One message at a time, p50."""
    count = options.count(5_000)
    return Table(
        "publish, deliver and acknowledge one message, p50 in us",
        [
            Row("in one process, acks=1", count, lambda: one_at_a_time(directory, count), goal=25),
            Row(
                "from another process, whose consumer sleeps",
                count // 5,
                lambda: across_processes(directory, count // 5),
                goal=200,
            ),
            Row(
                "SQLite by hand, in one process, without syncs",
                count,
                lambda: sqlite_one_at_a_time(directory, count),
                "A",
            ),
        ],
        unit="us",
        cost=True,
    )


def consuming_tables(directory: Path, options: Options) -> Iterator[Table]:
    """Everything, in the order in which it is printed."""
    yield delivery_table(options, directory)
    yield single_table(options, directory)
    yield waiting_table(options, directory)
