"""Replaying: whole batches, filters, folds and bisecting, beside the loops that do the same by
hand."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import logstore
from bench.harness import (
    BATCH_RECORDS,
    Figure,
    Options,
    Row,
    Session,
    Table,
    Work,
    report,
    scratch_directory,
    workload,
)
from logstore import ConsumerRecord, Record, Store
from logstore.json_records import record_line
from logstore.replay import Session as Debugger
from logstore.replay.bisect import bisect
from logstore.replay.engine import Replay
from logstore.replay.expressions import compile_expression
from logstore.replay.filters import Filters
from logstore.replay.log_source import open_topic
from logstore.replay.pace import OriginalPace
from logstore.replay.sink import FunctionSink, LinesSink
from logstore.replay.source import Range
from logstore.replay.topic_sink import TopicSink

Run = Callable[[Path, Store, int], Any]
"""Does something with the topic ``events`` of a store, which holds so many records."""


@contextlib.contextmanager
def _session(directory: Path, batches: list[list[Record]], run: Run) -> Iterator[Work]:
    """A store with the topic ``events``, and an empty topic ``copy``."""
    count = sum(map(len, batches))
    with TemporaryDirectory(dir=directory) as path, _opened(path) as store:
        log = store.create_topic("events").partition(0)
        for batch in batches:
            log.append(batch, acks=1)
        log.flush()
        store.create_topic("copy").partition(0)
        yield partial(run, Path(path) / "store", store, count)


def _opened(path: str) -> Store:
    return logstore.open(Path(path) / "store", maintenance_interval=None)


# Whole batches ----------------------------------------------------------------------------------


def replay_batches(path: Path, store: Store, count: int) -> None:
    """Topic to topic, as `logstore replay events --to topic:copy` does it."""
    with open_topic("events", str(path), Range()) as source:
        outcome = Replay(source, TopicSink(store.topic("copy"))).run()
    assert outcome.in_batches == count


def replay_records(path: Path, store: Store, count: int) -> None:
    """The same, record by record: something needs the inside."""
    with open_topic("events", str(path), Range()) as source:
        outcome = Replay(source, TopicSink(store.topic("copy")), test=lambda record: True).run()
    assert outcome.delivered == count


def copy_by_hand(path: Path, store: Store, count: int) -> None:
    """What a plain program would do: read, append_raw."""
    source, target = store.topic("events").partition(0), store.topic("copy").partition(0)
    offset = 0
    while (fetch := source.read(offset)).data:
        target.append_raw(fetch.data, acks=1)
        offset = fetch.next_offset
    target.flush()
    assert offset == count


def copy_file(path: Path, store: Store, count: int) -> None:
    """The bytes alone: the segment's file is read and written, 1 MB at a time, and not synced."""
    (log,) = (path / "topics" / "events-0").glob("*.log")
    with open(log, "rb") as source, open(path / "copy", "wb", buffering=0) as target:
        while block := source.read(1 << 20):
            target.write(block)


def replay_batches_synced(path: Path, store: Store, count: int) -> None:
    """Topic to topic, up to its end: what arrived is on stable storage."""
    sink = TopicSink(store.topic("copy"))
    with open_topic("events", str(path), Range()) as source:
        outcome = Replay(source, sink).run()
    sink.close()
    assert outcome.in_batches == count


def copy_file_synced(path: Path, store: Store, count: int) -> None:
    """The file is copied as by `cp` (sendfile or the like), and its bytes are synced."""
    (log,) = (path / "topics" / "events-0").glob("*.log")
    shutil.copyfile(log, path / "copy")
    with open(path / "copy", "rb+") as copy:
        os.fdatasync(copy.fileno())


# Filters ----------------------------------------------------------------------------------------


def _replay_lines(path: Path, where: str | None) -> int:
    written = 0

    def write(data: bytes) -> None:
        nonlocal written
        written += len(data)

    sink = LinesSink("nowhere", record_line, write, lambda: None)
    test = None
    if where is not None:
        test = Filters(where=[compile_expression(where)]).test()
    with open_topic("events", str(path), Range()) as source:
        return Replay(source, sink, test=test).run().delivered


def filter_to_json(path: Path, store: Store, count: int, where: str) -> None:
    """Filtered records as JSON lines; about half of them pass."""
    assert 0.3 * count < _replay_lines(path, where) < 0.7 * count


def all_to_json(path: Path, store: Store, count: int) -> None:
    """All records as JSON lines."""
    assert _replay_lines(path, None) == count


def filter_by_hand(path: Path, store: Store, count: int) -> None:
    """A consumer's loop with the same condition, and json.dumps."""
    found = 0
    with store.consumer("events", consumer_timeout_ms=0) as consumer:
        for record in consumer:
            if record.offset % 2 == 0 and record.value.startswith(b"10."):  # type: ignore[union-attr]
                found += len(json.dumps({"offset": record.offset, "value": str(record.value)}))
    assert found


# Folds ------------------------------------------------------------------------------------------


def total_size(state: Any, record: ConsumerRecord) -> Any:
    """A trivial fold, which changes its state in place."""
    if state is None:
        state = {"records": 0, "bytes": 0}
    state["records"] += 1
    state["bytes"] += len(record.value or b"")
    return state


def consume(path: Path, store: Store, count: int) -> None:
    """A plain loop over a consumer."""
    number = 0
    with store.consumer("events", consumer_timeout_ms=0) as consumer:
        for _ in consumer:
            number += 1
    assert number == count


def consume_and_fold(path: Path, store: Store, count: int) -> None:
    """The same with the fold and the condition, and nothing else."""
    state: Any = None
    with store.consumer("events", consumer_timeout_ms=0) as consumer:
        for record in consumer:
            state = total_size(state, record)
            if state["records"] < 0:
                break
    assert state["records"] == count


def fold(path: Path, store: Store, count: int) -> None:
    """`--fold` alone."""
    with Debugger(open_topic("events", str(path), Range()), total_size) as session:
        session.run()
        assert session.state["records"] == count


def bisect_to_the_end(path: Path, store: Store, count: int) -> None:
    """`--bisect` for what is true behind the last record only."""
    with Debugger(open_topic("events", str(path), Range()), total_size) as session:
        found = bisect(session, f"state.records >= {count}")
        assert found is not None
        assert session.state_before["records"] == count - 1


def memory(path: Path, store: Store, count: int, run: Run) -> Figure:
    """By how many MB the process grows on the way."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    run(path, store, count)
    return Figure((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)


# Pace -------------------------------------------------------------------------------------------

_PACED_MS = 2_000
"""The length of a round: a record each millisecond."""


def _late(late: list[float]) -> Figure:
    """The 99th percentile, in milliseconds."""
    return Figure(1000 * sorted(late)[len(late) * 99 // 100])


def paced(path: Path, store: Store, count: int) -> Figure:
    """`--speed 1x`: how late records come."""
    late: list[float] = []
    begin = 0.0

    def take(record: ConsumerRecord) -> None:
        nonlocal begin
        now = time.monotonic() - record.offset / 1000
        begin = begin or now
        late.append(now - begin)

    with open_topic("events", str(path), Range()) as source:
        Replay(source, FunctionSink("here", take), pace=OriginalPace()).run()
    return _late(late)


def sleeping(path: Path, store: Store, count: int) -> Figure:
    """A loop that does nothing but sleep to the next millisecond."""
    late: list[float] = []
    begin = time.monotonic()
    for number in range(_PACED_MS):
        left = begin + number / 1000 - time.monotonic()
        if left > 0:
            time.sleep(left)
        late.append(time.monotonic() - begin - number / 1000)
    return _late(late)


def tables(directory: Path, options: Options) -> Iterator[Table]:
    """Everything, in the order in which it is printed."""
    count = options.count(200_000)
    batches = workload("keyed", count)

    def on(run: Run) -> Session:
        return lambda: _session(directory, batches, run)

    yield Table(
        f"replay batches of {BATCH_RECORDS} into a topic, about 200 bytes",
        [
            Row("replay, whole batches", count, on(replay_batches), goal=0.9, goal_of="A"),
            Row("replay, record by record", count, on(replay_records)),
            Row("read and append_raw by hand", count, on(copy_by_hand), "A"),
        ],
    )
    yield Table(
        "the same beside copying the file: batches are over 64 KB",
        [
            Row(
                "replay, synced at its end",
                count,
                on(replay_batches_synced),
                goal=0.5,
                goal_of="A",
            ),
            Row("shutil.copyfile and fdatasync", count, on(copy_file_synced), "A"),
            Row("replay, not synced", count, on(replay_batches), goal=0.5, goal_of="B"),
            Row("the bytes of the file alone, not synced", count, on(copy_file), "B"),
        ],
    )
    where = "offset % 2 == 0 and value.startswith('10.')"
    yield Table(
        "replay into JSON lines",
        [
            Row(
                f"--where {where!r}", count, on(partial(filter_to_json, where=where)), goal=150_000
            ),
            Row(
                "--where \"key.endswith(('1', '3', '5', '7', '9'))\"",
                count,
                on(partial(filter_to_json, where="key.endswith(('1', '3', '5', '7', '9'))")),
                goal=150_000,
            ),
            Row("all", count, on(all_to_json), goal=150_000),
            Row("a consumer's loop with json.dumps", count, on(filter_by_hand), "A"),
        ],
    )
    yield Table(
        "fold and bisect",
        [
            Row("--fold, a trivial one", count, on(fold)),
            Row("--fold --bisect", count, on(bisect_to_the_end), goal=500_000),
            Row("for record in consumer", count, on(consume), "A"),
            Row("the same, with fold and condition by hand", count, on(consume_and_fold), "B"),
        ],
    )
    each_ms = [
        [
            Record(timestamp=1_700_000_000_000 + n, value=b"x" * 200)
            for n in range(start, start + 500)
        ]
        for start in range(0, _PACED_MS, 500)
    ]
    yield Table(
        "how late 99 % of 1,000 records/s come at the original pace",
        [
            Row("--speed 1x", _PACED_MS, lambda: _session(directory, each_ms, paced), goal=5),
            Row("a bare loop that sleeps", 1, lambda: _session(directory, [], sleeping), "A"),
        ],
        unit="ms",
        cost=True,
    )
    yield Table(
        f"memory that bisecting {count:,} records takes",
        [Row("--fold --bisect", count, on(partial(memory, run=bisect_to_the_end)), goal=50)],
        unit="MB",
        cost=True,
    )


if __name__ == "__main__":
    with scratch_directory() as scratch:
        report("Replaying, beside its limits.", partial(tables, scratch))
