"""What a long queue costs (``bench/queue.py --waiting N``).

A queue is filled, and opened by a new process, which takes the first messages: how long until it
has the first one, how fast it gets and acknowledges the next 200,000, and how much memory it needs.
Beside it the same with ten thousand messages behind those.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import logstore

__all__ = ["measure_waiting"]

QUEUE = "payments"
TAKEN = 200_000
FEW = 10_000
_PUBLISHED = 10_000


def measure_waiting(directory: Path, waiting: int, body_bytes: int) -> Iterator[str]:
    """A line for a short queue, and one for that in which ``waiting`` messages wait."""
    yield f"{TAKEN:,} messages of {body_bytes} bytes, prefetch 500, acknowledged one by one"
    for count in dict.fromkeys((TAKEN + FEW, max(waiting, TAKEN))):
        store = directory / str(count)
        yield f"{count:,} messages wait: {_fill(store, count, body_bytes)}; {_taken(store)}"


def _fill(path: Path, count: int, body_bytes: int) -> str:
    """Messages that were published in batches of 500; and, since publishing does nothing but
    append, as many copies of these batches as it takes."""
    begun = time.perf_counter()
    with logstore.open(path, maintenance_interval=None) as store:
        store.queue(QUEUE)
        for _ in range(_PUBLISHED // 500):
            store.exchange("").publish_batch([b"x" * body_bytes] * 500, QUEUE, acks=1)
        (lent,) = store.queues.partitions()
        with lent as log:
            batches = log.read(0, max_bytes=1 << 30).data
            for _ in range(count // _PUBLISHED - 1):
                log.append_raw(batches, acks=1)
            there = log.log_end_offset
    if there != count:
        raise SystemExit(f"{there:,} messages wait, not {count:,}: give a multiple of {_PUBLISHED}")
    size = sum(file.stat().st_size for file in path.rglob("*.log"))
    return f"{size / 1e9:.2f} GB, written in {time.perf_counter() - begun:.1f} s"


def _taken(path: Path) -> str:
    run = subprocess.run(
        [sys.executable, __file__, os.fspath(path)], check=True, stdout=subprocess.PIPE, text=True
    )
    found: dict[str, Any] = json.loads(run.stdout)
    return (
        f"opened and the first one delivered in {found['first_s'] * 1000:.1f} ms; "
        f"delivered and acknowledged at {found['rate']:,.0f}/s; "
        f"memory {found['before_mb']:.1f} MB before, {found['first_mb']:.1f} MB with the first, "
        f"{found['end_mb']:.1f} MB in the end"
    )


def _resident_mb() -> float:
    for line in Path("/proc/self/status").read_text("ascii").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1000
    return float("nan")


def _take(path: str) -> dict[str, float]:
    """In a process of its own: open the store, and take messages."""
    with logstore.open(path, maintenance_interval=None):
        pass  # so that what is measured is no import
    before_mb = _resident_mb()
    begun = time.perf_counter()
    with logstore.open(path, maintenance_interval=None) as store:
        queue = store.queue(QUEUE)
        with queue.consume(prefetch=500) as consumer:
            messages = iter(consumer)
            next(messages).ack()
            first = time.perf_counter()
            first_mb = _resident_mb()
            for _ in range(TAKEN - 1):
                next(messages).ack()
            end = time.perf_counter()
            return {
                "first_s": first - begun,
                "rate": (TAKEN - 1) / (end - first),
                "before_mb": before_mb,
                "first_mb": first_mb,
                "end_mb": _resident_mb(),
            }


if __name__ == "__main__":
    print(json.dumps(_take(sys.argv[1])))
