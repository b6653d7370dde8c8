"""Publishing from several processes, some of which are killed: what was confirmed is there."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import logstore
from logstore import Store

from .broker_support import bodies, start_script

PUBLISHER = """
import os, sys
import logstore
path, name, how = sys.argv[1:]
store = logstore.open(path, maintenance_interval=None)
shop = store.exchange("shop", type="topic")
sys.stdin.readline()
number = 0
publisher = shop.publisher(acks=1)
while True:
    batch = [b"%s %d" % (name.encode(), n) for n in range(number, number + 1 + number % 7)]
    number += len(batch)
    if how == "batches":
        shop.publish_batch(batch, "order.created", acks=1)
    elif how == "singly":
        for body in batch:
            shop.publish(body, "order.created", acks=1, priority=int(body.split()[1]) % 3)
    else:
        for future in [publisher.publish(body, "order.created") for body in batch]:
            future.result(60)
    os.write(1, b"%d\\n" % number)  # all below it are confirmed
"""


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with logstore.open(tmp_path / "store", maintenance_interval=None) as store:
        shop = store.exchange("shop", type="topic")
        store.queue("plain").bind(shop, "order.#")
        store.queue("by priority", max_priority=2).bind(shop, "#.created")
        store.queue("other").bind(shop, "customer.#")
        yield store


def confirmed(process: subprocess.Popen[bytes], so_far: int) -> int:
    """Up to which number a killed publisher had confirms; what it wrote last may be torn."""
    assert process.stdout is not None
    with process:
        return max([so_far, *(int(line) for line in process.stdout if line.endswith(b"\n"))])


def test_every_confirmed_message_of_killed_publishers_is_in_all_its_queues_in_order(
    store: Store,
) -> None:
    names = {"one": "batches", "two": "singly", "three": "background", "four": "batches"}
    children = {name: start_script(PUBLISHER, store.path, name, how) for name, how in names.items()}
    counts = {}
    try:
        for child in children.values():
            assert child.stdin is not None
            child.stdin.write(b"go\n")
            child.stdin.flush()
        for name, child in children.items():
            assert child.stdout is not None
            for _ in range(30):
                counts[name] = int(child.stdout.readline())
    finally:
        for child in children.values():
            child.kill()
    counts = {name: confirmed(child, counts[name]) for name, child in children.items()}
    assert bodies(store, "other") == []
    for queue, levels in (("plain", 1), ("by priority", 3)):
        for name, count in counts.items():
            found = [
                [
                    int(body.split()[1])
                    for body in bodies(store, queue, level)
                    if body.startswith(name.encode() + b" ")
                ]
                for level in range(levels)
            ]
            assert all(numbers == sorted(numbers) for numbers in found)
            there = sorted(number for numbers in found for number in numbers)
            assert there[:count] == list(range(count))
            assert there == list(range(len(there)))
    assert store.exchange("shop").publish(b"after", "order.created").queues == (
        "by priority",
        "plain",
    )
