"""Consuming: the iterator and ``poll``, beside the decoder alone and the log's own reading."""

from __future__ import annotations

import contextlib
import sys
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import logstore
from bench.harness import (
    BATCH_RECORDS,
    Options,
    Row,
    Session,
    Table,
    Work,
    report,
    scratch_directory,
    steady,
    workload,
)
from logstore import Batch, Record, Store
from logstore.segments.batch import encode_batch, iter_batches

Consume = Callable[[Store, int], None]
"""Reads the topic ``events``, which holds so many records, to its end."""


@contextlib.contextmanager
def _session(
    directory: Path, batches: list[list[Record]], partitions: int, consume: Consume
) -> Iterator[Work]:
    count = sum(map(len, batches))
    with (
        TemporaryDirectory(dir=directory) as path,
        logstore.open(Path(path) / "store", maintenance_interval=None) as store,
    ):
        topic = store.create_topic("events", partitions=partitions)
        for number, batch in enumerate(batches):
            topic.partition(number % partitions).append(batch, acks=1)
        yield partial(consume, store, count)


def iterate(store: Store, count: int, **options: Any) -> None:
    """A plain loop over a consumer."""
    with store.consumer("events", consumer_timeout_ms=0, **options) as consumer:
        number = 0
        for _ in consumer:
            number += 1
    assert number == count


def poll(store: Store, count: int, **options: Any) -> None:
    """``poll`` until nothing comes."""
    with store.consumer("events", **options) as consumer:
        number = 0
        while records := consumer.poll():
            number += len(records)
    assert number == count


def commit_every_batch(store: Store, count: int) -> None:
    """``poll`` and a commit for each 500 records, which survives the process."""
    with store.consumer("events", group="bench", enable_auto_commit=False) as consumer:
        number = 0
        while records := consumer.poll():
            number += len(records)
            consumer.commit()
    assert number == count


def read_log(store: Store, count: int) -> None:
    """The partition's own records, without topic and partition."""
    log = store.topic("events").partition(0)
    offset = 0
    while (fetch := log.read(offset)).data:
        deque(fetch.records(), maxlen=0)
        offset = fetch.next_offset
    assert offset == count


def decode_all(raw: bytes) -> None:
    """Decode batches in memory, CRCs not checked."""
    for batch in iter_batches(raw):
        batch.records()


def table(options: Options, directory: Path, kind: str, goal: float | None) -> Table:
    """One kind of records."""
    count = options.count(300_000)
    batches = workload(kind, count)
    raw = b"".join(encode_batch(batch) for batch in batches)
    assert isinstance(next(iter_batches(raw)), Batch)

    def on(consume: Consume, partitions: int = 1) -> Session:
        return lambda: _session(directory, batches, partitions, consume)

    return Table(
        f"consume batches of {BATCH_RECORDS}, about 200 bytes, {kind}",
        [
            Row("for record in consumer", count, on(iterate), goal=goal),
            Row("the same, 8 partitions", count, on(iterate, 8)),
            Row("the same, in a group that commits", count, on(partial(iterate, group="bench"))),
            Row("poll", count, on(poll)),
            Row("poll and commit every 500 records", count, on(commit_every_batch)),
            Row("the decoder alone, in memory", count, steady(partial(decode_all, raw)), "A"),
            Row("PartitionLog.read().records()", count, on(read_log), "B"),
        ],
    )


def tables(directory: Path, options: Options) -> Iterator[Table]:
    """Everything, in the order in which it is printed."""
    yield table(options, directory, "stamped", 1_000_000)
    yield table(options, directory, "varied size", None)
    yield table(options, directory, "keyed", None)


if __name__ == "__main__":
    with scratch_directory() as scratch:
        report("Consuming, beside its limits.", partial(tables, scratch))
