"""A directory in which every command has something to do: a store, and files of all kinds."""

from __future__ import annotations

import json
import time
from pathlib import Path

import logstore
from logstore.config import LogConfig
from logstore.log import PartitionLog
from logstore.segments.record import Record

__all__ = ["make_world"]

_OLD = 1_772_424_000_000  # 2026-03-02T04:00:00Z
_FOLD = '''
def ledger(state, record):
    """A balance that goes below zero at the last record."""
    state = state or {"balance": 20}
    return {"balance": state["balance"] - record.offset}

def other(state, record):
    return {"balance": 20}
'''


def make_world(directory: Path) -> None:
    """Make it in a directory that is there: ``data`` is the store, ``copy`` a restored backup."""
    now = int(time.time() * 1000) - 60_000
    orders = [
        Record(
            timestamp=now + number,
            key=f"order-{number}".encode(),
            value=json.dumps(
                {"id": number, "user": {"id": 42 + number % 2}, "total": 50 * number, "text": "x"}
            ).encode(),
            headers=[("type", b"created")],
        )
        for number in range(12)
    ]
    with logstore.open(directory / "data", maintenance_interval=None) as store:
        for name in ("orders", "orders-copy"):
            topic = store.create_topic(name, segment_bytes=600)
            for start in range(0, len(orders), 3):
                topic.partition(0).append(orders[start : start + 3])
        users = store.create_topic("users", cleanup_policy="compact", segment_bytes=200)
        for number in range(6):
            users.partition(0).append([Record(key=b"user-%d" % (number % 2), value=b"name")])
        with store.consumer("orders", group="billing") as consumer:
            consumer.poll(max_records=4)
            consumer.commit()
        with store.share_consumer(
            "orders", group="workers", share_auto_offset_reset="earliest"
        ) as worker:
            worker.poll(4)
        shop = store.exchange("shop", type="topic")
        payments = store.queue(
            "payments", dead_letter_exchange="", dead_letter_routing_key="failed"
        )
        payments.bind(shop, "order.#")
        store.queue("failed")
        store.exchange("idle", type="fanout")
        store.queue("empty")
        for number in range(3):
            shop.publish(b'{"total": %d}' % number, routing_key="order.payment.eu")
        (message,) = payments.get_many(1)
        message.reject(requeue=False)
        store.backup(directory / "backups")
    logstore.restore(directory / "backups", directory / "copy")
    _make_files(directory)


def _make_files(directory: Path) -> None:
    (directory / "events.log").write_text("a:1\nb:2\n", encoding="utf-8")
    (directory / "events.json").write_text('{"key":"a","value":"1"}\n', encoding="utf-8")
    (directory / "message.json").write_text('{"total":1}', encoding="utf-8")
    (directory / "shop.py").write_text(_FOLD, encoding="utf-8")
    handle = directory / "handle"
    handle.write_text("#!/bin/sh\ncat > /dev/null\n", encoding="utf-8")
    handle.chmod(0o755)
    # As it might have been copied from a broker: a partition's directory, and files of one.
    config = LogConfig(index_interval_bytes=1_000, segment_ms=1 << 40)
    with PartitionLog(directory / "orders-0", config=config) as log:
        for number in range(0, 1100, 10):
            log.append(
                [
                    Record(timestamp=_OLD + 1000 * one, value=b"value %d" % one)
                    for one in range(number, number + 10)
                ],
                acks=1,
            )
    for path in (directory / "orders-0").glob("0*"):
        (directory / path.name).write_bytes(path.read_bytes())
