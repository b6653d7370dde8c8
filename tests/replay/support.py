"""What the tests of replays share: logs to replay, and clocks that tests move."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import logstore
from logstore import ConsumerRecord, PartitionLog, Record
from logstore.errors import LogstoreError
from logstore.replay.log_source import LogSource, open_topic
from logstore.replay.source import Position, Range, Source
from logstore.segments.files import DiskFiles, File, FileLock, Files, SharedBytes, Watch

START_MS = 1_700_000_000_000


def row(
    offset: int, value: bytes = b"", *, partition: int = 0, at: int = 0, **fields: Any
) -> ConsumerRecord:
    """A record of topic ``t``, ``at`` milliseconds behind the beginning."""
    key, headers = fields.get("key"), fields.get("headers", ())
    return ConsumerRecord("t", partition, offset, START_MS + at, key, value, headers)


def record(value: bytes | str, at: int = 0, key: bytes | None = None, **fields: Any) -> Record:
    """A record to append, ``at`` milliseconds behind the beginning."""
    data = value.encode() if isinstance(value, str) else value
    return Record(timestamp=START_MS + at, key=key, value=data, headers=fields.get("headers", ()))


def fill(
    store: Path,
    topic: str,
    partitions: Sequence[Iterable[Record]],
    *,
    batch: int = 3,
    **config: Any,
) -> None:
    """Make a topic with these records in each of its partitions, ``batch`` to a batch."""
    with logstore.open(store, maintenance_interval=None) as opened:
        made = opened.create_topic(topic, partitions=len(partitions), **config)
        for number, records in enumerate(partitions):
            append(made.partition(number), records, batch=batch)


def append(log: PartitionLog, records: Iterable[Record], *, batch: int = 3) -> None:
    """Append records, ``batch`` to a batch."""
    waiting = list(records)
    for start in range(0, len(waiting), batch):
        log.append(waiting[start : start + batch], acks=1)


def topic_source(store: Path, text: str, **wanted: Any) -> LogSource:
    """A topic of a store as a source."""
    return open_topic(text, str(store), Range(**wanted))


def read_all(source: Source, position: Position | None = None) -> list[ConsumerRecord]:
    """All records of a source, or those from a position on."""
    found, error = read_until_error(source, position)
    if error is not None:
        raise error
    return found


def read_until_error(
    source: Source, position: Position | None = None
) -> tuple[list[ConsumerRecord], Exception | None]:
    """The records of a source, and what it raised behind them. (Headers are sequences; here they
    become tuples, to be compared.)"""
    found: list[ConsumerRecord] = []
    try:
        for chunk in source.chunks(source.start if position is None else position):
            found += [one._replace(headers=tuple(one.headers)) for one in chunk.records]
    except (LogstoreError, OSError) as error:
        return found, error
    return found, None


def contents(store: Path, topic: str) -> list[list[ConsumerRecord]]:
    """The records of each partition of a topic."""
    with logstore.open(store, create=False, read_only=True) as opened:
        count = opened.topic(topic).partition_count
    found = []
    for number in range(count):
        with topic_source(store, f"{topic}:{number}") as source:
            found.append(read_all(source))
    return found


class FakeClock:
    """Stands still until somebody sleeps."""

    def __init__(self, ms: int = START_MS) -> None:
        self.ms = float(ms)
        self.slept: list[float] = []

    def now_ms(self) -> int:
        return int(self.ms)

    def monotonic(self) -> float:
        return self.ms / 1000

    def boottime_ms(self) -> int:
        return int(self.ms)

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.ms += seconds * 1000


class ReadingOnly:
    """The operating system's files, of which nothing may be made or changed."""

    def __init__(self) -> None:
        self._files: Files = DiskFiles()

    def open(self, path: str, *, write: bool = False, create: bool = False) -> File:
        assert not write, path
        assert not create, path
        return self._files.open(path)

    def share(self, path: str, size: int, *, write: bool = True) -> SharedBytes:
        assert not write, path
        return self._files.share(path, size, write=False)

    def watch(self, *paths: str) -> Watch | None:
        return self._files.watch(*paths)

    def lock(self, path: str) -> FileLock:
        raise AssertionError(path)

    def __getattr__(self, name: str) -> Any:
        assert name in ("names", "exists", "is_directory", "size", "links", "times_ms", "boot_id")
        return getattr(self._files, name)
