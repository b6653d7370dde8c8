"""Activity events: one log, several readers that know nothing of each other, and a replay.

A website's visits are appended to a topic, keyed by the visitor's address: all that one visitor
does stands in one partition, in order. Three groups read it, each at its own pace and for its own
end: page counts, alerts about errors, and what each visitor has seen. One of them stops half-way,
and goes on later where it had committed. Nothing is taken out of the log by reading it.

So when somebody asks a new question (how long is a visit?), the answer is built from what is there
already: a new group begins at the first event and replays them all, and the others never notice.

From the repository's folder, with logstore installed::

    python examples/activity_events.py [DIR]      DIR: a new folder for the store
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import logstore
from logstore import ConsumerRecord

ACCESS_LOG = Path(__file__).with_name("data") / "apache_access_6k.log"
PARTITIONS = 4
VISIT_MS = 30 * 60 * 1000
"""A visit has ended when nothing was heard of the visitor for half an hour."""

_LINE = re.compile(rb'(\S+) .*?\[([^]]+)\] "(?:\S+) (\S+)[^"]*" (\d{3})')


class Outcome(NamedTuple):
    """What the readers made of the events."""

    events: int
    pages: Counter[str]
    errors: Counter[int]
    seen: dict[str, list[str]]
    """What each visitor looked at, in order."""
    visits: int
    lags: dict[str, int]
    """How many events each group has not read."""


def main(directory: str) -> Outcome:
    """Run the story in a new store in ``directory``."""
    events = list(parsed(ACCESS_LOG.read_bytes()))
    pages: Counter[str] = Counter()
    errors: Counter[int] = Counter()
    seen: dict[str, list[str]] = defaultdict(list)
    last: dict[str, int] = {}
    begun: list[int] = []

    def count_page(record: ConsumerRecord) -> None:
        pages[event_of(record)["page"]] += 1

    def count_error(record: ConsumerRecord) -> None:
        status = event_of(record)["status"]
        if status >= 400:
            errors[status] += 1

    def remember(record: ConsumerRecord) -> None:
        seen[(record.key or b"").decode()].append(event_of(record)["page"])

    def measure(record: ConsumerRecord) -> None:
        visitor = (record.key or b"").decode()
        if visitor not in last or record.timestamp - last[visitor] > VISIT_MS:
            begun.append(record.timestamp)
        last[visitor] = max(record.timestamp, last.get(visitor, 0))

    with logstore.open(directory) as store:
        store.create_topic("visits", partitions=PARTITIONS)
        half = len(events) // 2
        publish(store, events[:half])
        say(f"{half:,} events are in the log; three groups begin to read.")
        read(store, "pages", count_page)
        read(store, "alerts", count_error)
        read(store, "history", remember, most=half // 3)
        say(f"The group 'history' stopped after {half // 3:,} of them.")
        publish(store, events[half:])
        for group, take in (("pages", count_page), ("alerts", count_error), ("history", remember)):
            read(store, group, take)
        say(f"{len(events):,} events, and all three are at the end:")
        say(f"  pages:   {pages.most_common(1)[0][0]} was looked at most")
        say(f"  alerts:  {errors.total()} errors, {errors[404]} of them 404")
        say(f"  history: {len(seen):,} visitors")
        read(store, "visits", measure)
        say(f"A new question, answered by a replay from the first event: {len(begun):,} visits.")
        groups = ("pages", "alerts", "history", "visits")
        lags = {
            group: sum(offset.lag or 0 for offset in store.groups.describe(group).offsets)
            for group in groups
        }
    return Outcome(len(events), pages, errors, dict(seen), len(begun), lags)


def parsed(data: bytes) -> Iterator[tuple[bytes, int, bytes]]:
    """The visitor, the time in milliseconds and the event of each line."""
    for line in data.splitlines():
        found = _LINE.match(line)
        if found is None:
            continue
        visitor, moment, page, status = found.groups()
        when = datetime.strptime(moment.decode(), "%d/%b/%Y:%H:%M:%S %z")
        event = {"page": page.decode(errors="replace"), "status": int(status)}
        yield visitor, int(when.timestamp() * 1000), json.dumps(event).encode()


def publish(store: logstore.Store, events: list[tuple[bytes, int, bytes]]) -> None:
    """Append events, those of a visitor to the visitor's partition."""
    with store.producer(linger_ms=5) as producer:
        for visitor, when, event in events:
            producer.send("visits", event, key=visitor, timestamp=when)


def read(
    store: logstore.Store,
    group: str,
    take: Callable[[ConsumerRecord], None],
    most: int | None = None,
) -> None:
    """Read on as a member of a group, up to the end or ``most`` events, and commit."""
    left = most
    with store.consumer("visits", group=group, auto_offset_reset="earliest") as consumer:
        while left is None or left > 0:
            records = consumer.poll(500 if left is None else min(left, 500), timeout=0.5)
            if not records:
                return
            for record in records:
                take(record)
            left = None if left is None else left - len(records)
            consumer.commit()


def event_of(record: ConsumerRecord) -> dict[str, object]:
    """The event that a record holds."""
    return json.loads(record.value or b"{}")  # type: ignore[no-any-return]


def say(text: str = "") -> None:
    """A line of plain words."""
    print(text, flush=True)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(sys.argv[1])
    else:
        with tempfile.TemporaryDirectory() as directory:
            main(directory)
