"""A log aggregator bounded by size, beside a compliance log kept for its time.

Two logs take the same web server's lines. The aggregator's may never fill the disk: it keeps the
newest lines, up to a number of bytes (``retention_bytes``). The compliance log keeps what it is
told to keep for as long as the rule says, however large it grows (``retention_ms``, and no bound on
its size). The script runs thirty days in a moment: each line keeps the time at which it was logged,
and a clock of the script's own moves along.

From the repository's folder, with logstore installed::

    python examples/log_aggregator.py [DIR]      DIR: a new folder for the store
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import logstore
from logstore import PartitionLog, Record

ACCESS_LOG = Path(__file__).with_name("data") / "apache_access_6k.log"

KEEP_BYTES = 2_000_000
"""The aggregator's bound."""
SEGMENT_BYTES = 500_000
"""Segments are dropped as a whole: so much may be kept beyond a bound."""
DAY_MS = 24 * 60 * 60 * 1000
KEEP_DAYS = 10
"""How long the compliance log is kept."""
DAYS = 30

_TIME = re.compile(rb"\[([^]]+)\]")


class Clock:
    """A clock that the script moves: what retention asks for the time."""

    def __init__(self, now_ms: int) -> None:
        self.ms = now_ms

    def now_ms(self) -> int:
        return self.ms

    def monotonic(self) -> float:
        return self.ms / 1000

    def sleep(self, seconds: float) -> None:
        self.ms += max(1, round(seconds * 1000))


class Day(NamedTuple):
    """What there was at the end of a day."""

    now_ms: int
    aggregator_bytes: int
    compliance_bytes: int
    oldest_ms: int
    """The oldest line of the compliance log."""


def main(directory: str) -> list[Day]:
    """Run the thirty days in a new store in ``directory``, and return what each left."""
    lines = list(parsed(ACCESS_LOG.read_bytes()))
    clock = Clock(lines[0][0])
    days = []
    with logstore.open(directory, clock=clock, maintenance_interval=None) as store:
        aggregator = store.create_topic(
            "web", retention_bytes=KEEP_BYTES, retention_ms=-1, segment_bytes=SEGMENT_BYTES
        ).partition(0)
        compliance = store.create_topic(
            "audit",
            retention_bytes=-1,
            retention_ms=KEEP_DAYS * DAY_MS,
            segment_bytes=SEGMENT_BYTES,
            segment_ms=DAY_MS,
        ).partition(0)
        say(f"The aggregator keeps about {KEEP_BYTES:,} bytes,")
        say(f"the compliance log {KEEP_DAYS} days, however many bytes that is.")
        say()
        say("day  aggregator (bytes)  compliance log (bytes)  its oldest line (days old)")
        for day in range(DAYS):
            for some in batched(of_day(lines, day)):
                clock.ms = max(clock.ms, some[-1].timestamp)
                for log in (aggregator, compliance):
                    log.append(some, acks=1)
            for log in (aggregator, compliance):
                log.retain()
            days.append(
                Day(clock.ms, size_of(aggregator), size_of(compliance), oldest_of(compliance))
            )
            if day % 5 == 4:
                last = days[-1]
                age = (last.now_ms - last.oldest_ms) / DAY_MS
                sizes = f"{last.aggregator_bytes:>18,}  {last.compliance_bytes:>22,}"
                say(f"{day + 1:>3}  {sizes}  {age:>26.1f}")
        say()
        say("Why the aggregator's oldest segments stand where they do:")
        for decision in aggregator.retain(dry_run=True)[:2]:
            say(f"  segment {decision.segment.base_offset}: kept: {decision.reason}")
        say("Why the compliance log's do:")
        for decision in compliance.retain(dry_run=True)[:2]:
            say(f"  segment {decision.segment.base_offset}: kept: {decision.reason}")
    return days


def parsed(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The lines of the first day of an access log, each with its time in milliseconds."""
    first = None
    for line in data.splitlines():
        found = _TIME.search(line)
        if found is None:
            continue
        moment = datetime.strptime(found[1].decode(), "%d/%b/%Y:%H:%M:%S %z").astimezone(UTC)
        time_ms = int(moment.timestamp() * 1000)
        first = time_ms if first is None else first
        if first <= time_ms < first + DAY_MS:
            yield time_ms, line


def of_day(lines: list[tuple[int, bytes]], day: int) -> Iterator[tuple[int, bytes]]:
    """The same day once more, ``day`` days later."""
    for time_ms, line in lines:
        yield time_ms + day * DAY_MS, line


def batched(lines: Iterator[tuple[int, bytes]]) -> Iterator[list[Record]]:
    """Records of these lines, as many at a time as a log shipper would send."""
    while some := [Record(timestamp=time_ms, value=line) for time_ms, line in islice(lines, 50)]:
        yield some


def size_of(log: PartitionLog) -> int:
    """Bytes of a log."""
    return sum(segment.size for segment in log.segment_infos())


def oldest_of(log: PartitionLog) -> int:
    """The time of a log's first record."""
    return next(log.read(log.log_start_offset).records()).timestamp


def say(text: str = "") -> None:
    """A line of plain words."""
    print(text, flush=True)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(sys.argv[1])
    else:
        with tempfile.TemporaryDirectory() as directory:
            main(directory)
