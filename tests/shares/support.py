"""What the tests of share groups have in common."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from logstore import Record, ShareConsumer, ShareRecord, Store
from logstore.shares import SharePartitionDescription

from ..queues.support import (  # noqa: TID252 - tests are no package to import absolutely
    ToldClock,
    cut_log,
    numbered,
    opened,
    restarted,
    wait_until,
)

__all__ = [
    "GROUP",
    "TOPIC",
    "ToldClock",
    "cut_log",
    "described",
    "image",
    "numbered",
    "opened",
    "produce",
    "restarted",
    "sharing",
    "values",
    "wait_until",
]

TOPIC = "orders"
GROUP = "workers"


def produce(
    store: Store, *values: bytes, topic: str = TOPIC, partition: int = 0, acks: Any = 1
) -> None:
    """One batch."""
    log = store.topic(topic).partition(partition)
    log.append([Record(value=value) for value in values], acks=acks)


def values(records: Iterable[ShareRecord]) -> list[bytes | None]:
    return [record.value for record in records]


def sharing(store: Store, *topics: str, **options: Any) -> ShareConsumer:
    """A consumer of a group that begins at the beginning, in the explicit mode."""
    options = {
        "group": GROUP,
        "share_auto_offset_reset": "earliest",
        "share_acknowledgement_mode": "explicit",
        **options,
    }
    names = topics or (() if "pattern" in options else (TOPIC,))
    return store.share_consumer(*names, **options)


def described(store: Store, partition: int = 0) -> SharePartitionDescription:
    """How far the group has come in the topic."""
    found = store.share_groups.describe(GROUP).partitions
    [one] = [one for one in found if (one.topic, one.partition) == (TOPIC, partition)]
    assert one.faults == []
    return one


def image(store: Store, target: Path) -> Path:
    """What a power cut leaves of a store: what was synced, and neither ``live`` nor sessions."""
    synced = {}
    for topic in store.topics():
        for number in range(topic.partition_count):
            synced[f"{topic.name}-{number}"] = topic.partition(number).synced_offset
    shutil.copytree(
        store.path, target, ignore=lambda _, names: {"live", "procs"}.intersection(names)
    )
    for name, offset in synced.items():
        cut_log(target / "topics" / name, offset)
    return target
