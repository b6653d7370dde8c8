"""What the tests of share groups have in common."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from logstore import Record, ShareConsumer, ShareRecord, Store
from logstore.segments.batch import encode_batch
from logstore.segments.control import ControlType, end_transaction_marker
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
    "end",
    "image",
    "numbered",
    "opened",
    "produce",
    "restarted",
    "sharing",
    "transact",
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


def transact(store: Store, producer_id: int, *values: bytes) -> None:
    """A batch of a transaction, which it begins or goes on with."""
    _in_transaction(store, producer_id, [Record(value=value) for value in values])


def end(store: Store, producer_id: int, kind: ControlType) -> None:
    """Its marker."""
    marker = end_transaction_marker(kind, timestamp=1, coordinator_epoch=0)
    _in_transaction(store, producer_id, [marker], control=True)


def _in_transaction(
    store: Store, producer_id: int, records: list[Record], *, control: bool = False
) -> None:
    log = store.topic(TOPIC).partition(0)
    batch = encode_batch(
        records,
        base_offset=log.log_end_offset,
        leader_epoch=0,
        producer_id=producer_id,
        producer_epoch=0,
        transactional=True,
        control=control,
    )
    log.append_raw(batch, origin="replica", acks=1)


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
