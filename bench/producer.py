"""Producing: ``send`` from one thread and from several, beside the log's own appending.

    python bench/producer.py [--quick] [--json] [--only TITLE]

What is timed goes from the first ``send`` to the end of a ``flush``. Limits: the same records
appended to a partition in batches of as many records, by the program itself; and a loop that puts
them into a list and does nothing else. Everything lies on the disk that the repository is on.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import logstore
from bench.harness import (
    RECORD_BYTES,
    Options,
    Row,
    Session,
    Table,
    Work,
    report,
    scratch_directory,
    steady,
)
from logstore import Producer, Record, Store
from logstore.accumulator import RECORD_OVERHEAD

VALUE = b"x" * RECORD_BYTES
KEYS = [b"customer-%07d" % number for number in range(10_000)]
LARGE_BATCH = 128 << 10
THREADS = 4

Produce = Callable[[Store, int], None]
"""Sends so many records to the topic ``events``."""


@contextlib.contextmanager
def _session(directory: Path, count: int, produce: Produce) -> Iterator[Work]:
    with (
        TemporaryDirectory(dir=directory) as path,
        logstore.open(Path(path) / "store", maintenance_interval=None) as store,
    ):
        store.create_topic("events")
        with store.producer() as producer:  # so that ids are there
            producer.send("events", VALUE)
        yield partial(produce, store, count)
        assert store.topic("events").partition(0).log_end_offset == count + 1


def send(store: Store, count: int, **options: Any) -> None:
    """``send`` in a plain loop."""
    with store.producer(**options) as producer:
        _send(producer, count)
        producer.flush()


def _send(producer: Producer, count: int) -> None:
    send = producer.send
    for _ in range(count):
        send("events", VALUE)


def send_with_keys(store: Store, count: int, **options: Any) -> None:
    """The same, each with one of ten thousand keys."""
    with store.producer(**options) as producer:
        send = producer.send
        for number in range(count):
            send("events", VALUE, KEYS[number % len(KEYS)])
        producer.flush()


def send_and_be_told(store: Store, count: int, **options: Any) -> None:
    """The same, with a callback for each record."""
    told = 0

    def on_delivery(metadata: object, error: object) -> None:
        nonlocal told
        told += 1

    with store.producer(**options) as producer:
        send = producer.send
        for _ in range(count):
            send("events", VALUE, on_delivery=on_delivery)
        producer.flush()
    assert told == count


def send_from_threads(store: Store, count: int, **options: Any) -> None:
    """The same number of records, from several threads."""
    with store.producer(**options) as producer:
        threads = [
            threading.Thread(target=_send, args=(producer, count // THREADS))
            for _ in range(THREADS)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        producer.flush()


def append(store: Store, count: int, batch_records: int) -> None:
    """Batches of as many records, made and appended by the program itself."""
    log = store.topic("events").partition(0)
    for start in range(0, count, batch_records):
        batch = [Record(value=VALUE) for _ in range(min(batch_records, count - start))]
        log.append(batch, acks=1)


def put_into_a_list(count: int) -> None:
    """What no producer can do without."""
    records: list[bytes] = []
    append = records.append
    for _ in range(count):
        append(VALUE)


def tables(directory: Path, options: Options) -> Iterator[Table]:
    """Everything, in the order in which it is printed."""
    count = options.count(300_000)

    def on(produce: Produce, records: int = count) -> Session:
        return lambda: _session(directory, records, produce)

    def rows(batch_size: int, goal: float | None) -> list[Row]:
        records = batch_size // (RECORD_OVERHEAD + RECORD_BYTES)
        settings: dict[str, Any] = {"acks": 1, "batch_size": batch_size}
        return [
            Row("send", count, on(partial(send, **settings)), goal=goal),
            Row("send with a key", count, on(partial(send_with_keys, **settings))),
            Row("send with a callback", count, on(partial(send_and_be_told, **settings))),
            Row(
                "send, without idempotence",
                count,
                on(partial(send, enable_idempotence=False, **settings)),
            ),
            Row(f"send from {THREADS} threads", count, on(partial(send_from_threads, **settings))),
            Row("send, acks=all", count, on(partial(send, **{**settings, "acks": "all"}))),
            Row(
                f"PartitionLog.append, {records} records at a time",
                count,
                on(partial(append, batch_records=records)),
                "A",
            ),
            Row("list.append", count, steady(partial(put_into_a_list, count)), "B"),
        ]

    yield Table("produce records of 200 bytes, acks=1, as it comes", rows(16_384, 600_000))
    yield Table("produce records of 200 bytes, acks=1, batch_size=128 KiB", rows(LARGE_BATCH, None))
    few = options.count(20_000)
    yield Table(
        "produce records of 200 bytes, acks=1, linger_ms=0",
        [
            Row("send", few, on(partial(send, acks=1, linger_ms=0), few)),
            Row(
                "PartitionLog.append, one record at a time",
                few,
                on(partial(append, batch_records=1), few),
                "A",
            ),
        ],
    )


if __name__ == "__main__":
    with scratch_directory() as scratch:
        report("Producing, beside its limits.", partial(tables, scratch))
