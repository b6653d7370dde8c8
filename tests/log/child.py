"""What the tests of several processes run in a process of its own: ``child.py TASK ARGUMENT``."""

from __future__ import annotations

import contextlib
import os
import random
import sys
from collections.abc import Callable, Iterator

import logstore
from logstore import LogConfig, PartitionLog, Record


def say(text: str) -> None:
    """Tell the parent, in one write: what it has read, has been said as a whole."""
    os.write(1, text.encode() + b"\n")


def append(directory: str, name: str, count: str, segment_bytes: str) -> None:
    """Append ``count`` records one by one; say where the first and the last one went."""
    config = LogConfig(segment_bytes=int(segment_bytes))
    offsets = []
    with PartitionLog(directory, config=config) as log:
        say("ready")
        sys.stdin.read()
        for number in range(int(count)):
            record = Record(timestamp=number, value=f"{name} {number}".encode())
            offsets.append(log.append([record], acks=1).base_offset)
    assert offsets == sorted(offsets)
    say(f"{offsets[0]} {offsets[-1]}")


def append_varied(directory: str, name: str, seed: str, segment_bytes: str) -> None:
    """Append batches of up to 200 KB until killed; say for each one where it went."""
    rng = random.Random(int(seed))
    config = LogConfig(segment_bytes=int(segment_bytes), index_interval_bytes=1000)
    log = PartitionLog(directory, config=config)
    number = 0
    while True:
        count = rng.randint(1, 5)
        padding = b"." * (rng.choice((10, 1000, 200_000)) * rng.randint(1, 100) // 100 // count)
        batch = [
            Record(timestamp=number, value=b"%s %d %d %s" % (name.encode(), number, i, padding))
            for i in range(count)
        ]
        appended = log.append(batch, acks=rng.choice((1, 1, 1, "all")))
        say(f"{number} {appended.base_offset} {appended.last_offset}")
        number += 1


def append_lines(directory: str, path: str) -> None:
    """Append the lines of a file one by one; say how many there are after each."""
    with PartitionLog(directory) as log, open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            log.append([Record(value=line)], acks="all" if number % 50 == 0 else 1)
            say(str(number))


def follow(directory: str, until: str, read_only: str) -> None:
    """Read what others append, until a record says ``until``; say every record's offset."""
    with PartitionLog(directory, read_only=read_only == "True") as log:
        say("ready")
        offset = 0
        while True:
            if not log.wait(offset, 60):
                sys.exit("nothing came")
            fetch = log.read(offset, max_bytes=10_000)
            for record in fetch.records():
                value = (record.value or b"").decode()
                say(f"{record.offset} {value}")
                if value == until:
                    return
            offset = fetch.next_offset


def create_topic(path: str, name: str, partitions: str) -> None:
    """Create a topic when told to, and say whether this process was the one."""
    say("ready")
    sys.stdin.read()
    with logstore.open(path) as store:
        try:
            topic = store.create_topic(name, partitions=int(partitions))
        except logstore.TopicExistsError:
            say(f"{store.id} lost {store.topic(name).id}")
        else:
            say(f"{store.id} won {topic.id}")


def alter_topic(path: str, name: str, key: str, value: str) -> None:
    """Set a key of a topic's configuration."""
    with logstore.open(path) as store:
        store.alter_topic(name, {key: value})


def hold(path: str) -> None:
    """Have a store open until told to end."""
    with logstore.open(path):
        say("ready")
        sys.stdin.read()


def use_until_deleted(path: str, name: str) -> None:
    """Append and read until that is refused; say by which errors."""
    with logstore.open(path) as store:
        log = store.topic(name).partition(0)
        say("ready")
        try:
            while True:
                log.append([Record(value=b"used")], acks=1)
        except logstore.LogstoreError as error:
            first = type(error).__name__
        try:
            log.read(0)
        except logstore.LogstoreError as error:
            say(f"{first} {type(error).__name__}")


def change_topics(path: str, seed: str, count: str) -> None:
    """Create, alter, fill and delete a few topics, with others at it who do the same."""
    rng = random.Random(int(seed))
    print(f"seed {seed}", file=sys.stderr)
    expected = (
        logstore.TopicExistsError,
        logstore.UnknownTopicError,
        logstore.InvalidInputError,  # fewer partitions than there are by now
    )
    with logstore.open(path) as store:
        say("ready")
        for _ in range(int(count)):
            name = f"t{rng.randrange(3)}"
            what = rng.randrange(5)
            with contextlib.suppress(*expected):
                if what == 0:
                    store.create_topic(name, partitions=rng.randint(1, 3))
                elif what == 1:
                    store.alter_topic(name, {"retention_bytes": rng.randrange(1000)})
                elif what == 2:
                    store.add_partitions(name, rng.randint(2, 5))
                elif what == 3:
                    store.delete_topic(name)
                for topic in store.topics():
                    number = rng.randrange(topic.partition_count)
                    topic.partition(number).append([Record(value=topic.id.hex.encode())], acks=1)


def tasks() -> Iterator[Callable[..., None]]:
    """Whatever may be asked for."""
    yield from (append, append_varied, append_lines, follow, create_topic)
    yield from (alter_topic, hold, use_until_deleted, change_topics)


if __name__ == "__main__":
    {task.__name__: task for task in tasks()}[sys.argv[1]](*sys.argv[2:])
