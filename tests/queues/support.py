"""What the tests of consuming share: a store, its queues, power cuts, a clock that is told."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import logstore
from logstore import Store
from logstore.clock import SystemClock
from logstore.queues.message import Message
from logstore.queues.queue import WorkQueue
from logstore.queues.queue_face import Queue
from logstore.segments.batch import iter_batches
from logstore.segments.files import DiskFiles

NAME = "payments"


class ToldClock(SystemClock):
    """The machine's clock, moved on by whoever tells it."""

    def __init__(self) -> None:
        self.ahead_ms = 0

    def now_ms(self) -> int:
        return super().now_ms() + self.ahead_ms

    def boottime_ms(self) -> int:
        return super().boottime_ms() + self.ahead_ms


class RestartedFiles(DiskFiles):
    """The disk, on a machine that was restarted."""

    def __init__(self, boot: str) -> None:
        self.boot = boot

    def boot_id(self) -> str:
        return self.boot


@contextmanager
def opened(path: Path, **options: Any) -> Iterator[Store]:
    with logstore.open(path, maintenance_interval=None, **options) as store:
        yield store


def publish(store: Store, *bodies: bytes, queue: str = NAME, acks: Any = 1, **given: Any) -> None:
    """Through the default exchange."""
    store.exchange("").publish_batch(list(bodies), queue, acks=acks, **given)


def numbered(count: int, start: int = 0) -> list[bytes]:
    return [b"%d" % number for number in range(start, start + count)]


def bodies(messages: Iterable[Message]) -> list[bytes]:
    return [message.body for message in messages]


def drain(queue: Queue, **options: Any) -> list[bytes]:
    """The bodies of all that is ready, acknowledged."""
    found = []
    with queue.consume(timeout=0, **options) as consumer:
        for message in consumer:
            found.append(message.body)
            message.ack()
    return found


def work_queue(store: Store, name: str = NAME) -> WorkQueue:
    return store.queues.work_queue(store.queue(name).definition)


def wait_until(condition: Callable[[], object], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it has not come to it"
        time.sleep(0.002)


def image(store: Store, target: Path) -> Path:
    """What a power cut leaves of a store: what was synced, and neither ``live`` nor sessions."""
    synced = {}
    for queue in store.queues.queues():
        for level in store.queues.work_queue(queue).levels():
            synced[Path(level.log.directory).name] = level.log.synced_offset
    shutil.copytree(
        store.path, target, ignore=lambda _, names: {"live", "procs"}.intersection(names)
    )
    for name, offset in synced.items():
        cut_log(target / "queues" / name, offset)
    return target


def cut_log(directory: Path, offset: int) -> None:
    """Cut a log's files, as if nothing from ``offset`` on had got to the disk."""
    for path in sorted(directory.glob("*.log"), reverse=True):
        data = path.read_bytes()
        size = 0
        for batch in iter_batches(data):
            if batch.header.next_offset > offset:
                break
            size += batch.header.size
        if size == len(data):
            return
        path.write_bytes(data[:size])
        for suffix in (".index", ".timeindex"):
            path.with_suffix(suffix).unlink(missing_ok=True)


def restarted(path: Path, boot: str = "2" * 36) -> Any:
    """The store, opened on a machine that was started again."""
    return opened(path, files=RestartedFiles(boot))
