"""What the tests of groups share: a store, members, a clock, a power cut."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import logstore
from logstore import Record
from logstore.clock import SystemClock
from logstore.groups.membership import Membership, Rebalance
from logstore.partitions import OffsetAndMetadata, TopicPartition
from logstore.segments.files import DiskFiles

GROUP = "g"


class Clock(SystemClock):
    """The machine's clock, but for deadlines, which only pass when they are told to."""

    def __init__(self) -> None:
        self.ms = 1_000_000

    def boottime_ms(self) -> int:
        return self.ms


class RestartedFiles(DiskFiles):
    """The disk, on a machine that was restarted."""

    def __init__(self, boot: str) -> None:
        self.boot = boot

    def boot_id(self) -> str:
        return self.boot


def places(*numbers: int, topic: str = "orders") -> frozenset[TopicPartition]:
    return frozenset(TopicPartition(topic, number) for number in numbers)


def at(
    offsets: Mapping[int, int], topic: str = "orders"
) -> dict[TopicPartition, OffsetAndMetadata]:
    """Offsets by the number of the partition."""
    return {TopicPartition(topic, n): OffsetAndMetadata(offset) for n, offset in offsets.items()}


def committed(store: logstore.Store, *numbers: int, group: str = GROUP) -> list[int | None]:
    found = store.groups.committed(group, [TopicPartition("orders", n) for n in numbers])
    return [None if value is None else value.offset for value in found.values()]


def make_topic(
    store: logstore.Store, name: str = "orders", partitions: int = 4, each: int = 10
) -> None:
    topic = store.create_topic(name, partitions=partitions)
    for number in range(partitions):
        for offset in range(each):
            record = Record(timestamp=1000 + offset, value=b"%d" % offset)
            topic.partition(number).append([record], acks=1)


def join(store: logstore.Store, *topics: str, **options: Any) -> Membership:
    return store.groups.join(GROUP, topics=lambda: topics or ("orders",), **options)


def settle(*members: Membership) -> list[Rebalance]:
    """Let members do what they have to, until there is nothing left; return what it was."""
    steps = []
    quiet = 0
    while quiet < len(members):
        quiet = 0
        for member in members:
            step = member.poll()
            if step is None:
                quiet += 1
            else:
                steps.append(step)
                if step.revoke and not step.lost:
                    member.revoked(step.revoke)
    return steps


def image(
    store: logstore.Store, target: Path, *, without: Iterable[str] = ("live", "procs")
) -> Path:
    """What a power cut leaves of a store, if all logs got to the disk."""
    shutil.copytree(store.path, target, ignore=lambda _, names: set(without) & set(names))
    return target
