"""Work queues: how fast messages are routed, published and delivered, beside what is possible.

    python bench/queue.py [--quick] [--json] [--only TITLE]
    python bench/queue.py --waiting 100000000 [--body-bytes 200]

Limits: the same bodies appended to a plain log (which is what a queue is, without exchanges,
properties and confirms), and the system calls alone. Everything lies on the disk that the
repository is on. One process and one thread. ``--waiting`` measures one long queue instead, once; a
hundred million messages of 200 bytes need 21 GB of disk and a few minutes.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import logstore
from bench.append import on_new_file, on_new_log, write_and_sync, write_only
from bench.consuming import consuming_tables
from bench.harness import (
    BATCH_RECORDS,
    Options,
    Row,
    Session,
    Table,
    Work,
    report,
    scratch_directory,
    steady,
    workload,
)
from bench.sharing import sharing_table
from bench.waiting import measure_waiting
from logstore.appending import Acks
from logstore.log import PartitionLog
from logstore.queues.definitions import BindingDefinition, ExchangeDefinition
from logstore.queues.exchange import Exchange
from logstore.queues.properties import Properties
from logstore.queues.publishing import Outgoing
from logstore.queues.routing import Router
from logstore.segments.batch import encode_batch
from logstore.segments.record import Record

NOW_MS = 1_700_000_000_000
KEY = "order.created.eu"
PROPERTIES = Properties(
    content_type="application/json", headers={"type": "order", "version": 3}, app_id="shop"
)

Bodies = list[list[bytes]]


def bodies(count: int) -> Bodies:
    """Batches of 500 bodies of 200 bytes."""
    return [[record.value or b"" for record in batch] for batch in workload("same size", count)]


# What is timed --------------------------------------------------------------------------------


def on_new_exchange(
    directory: Path, work: Callable[[Exchange], object], *, queues: int = 1
) -> Session:
    """A session on a topic exchange of a store of its own, with so many queues bound to it."""

    @contextlib.contextmanager
    def session() -> Iterator[Work]:
        with (
            tempfile.TemporaryDirectory(dir=directory) as path,
            logstore.open(os.path.join(path, "store"), maintenance_interval=None) as store,
        ):
            shop = store.exchange("shop", type="topic")
            for number in range(queues):
                store.queue(f"queue-{number}").bind(shop, "order.#")
            shop.publish(b"", KEY, acks=1)  # the logs are made when they are first used
            yield partial(work, shop)

    return session


def publish_batches(
    batches: Sequence[Sequence[bytes | Outgoing]],
    acks: Acks,
    properties: Properties | None,
    shop: Exchange,
) -> None:
    """Batch by batch."""
    publish = shop.publish_batch
    for batch in batches:
        publish(batch, KEY, properties=properties, acks=acks)


def publish_single(batches: Bodies, shop: Exchange) -> None:
    """Message by message."""
    publish = shop.publish
    for batch in batches:
        for body in batch:
            publish(body, KEY, acks=1)


def publish_in_background(batches: Bodies, acks: Acks, shop: Exchange) -> None:
    """Message by message, confirmed by a publisher's thread."""
    with shop.publisher(acks=acks) as publisher:
        publish = publisher.publish
        for batch in batches:
            for body in batch:
                publish(body, KEY)
        publisher.wait_for_confirms()


def append_batches(batches: Bodies, acks: Acks, log: PartitionLog) -> None:
    """To a plain log: records are made of the bodies, and appended."""
    for batch in batches:
        log.append([Record(value=body) for body in batch], acks=acks)


def append_single(batches: Bodies, log: PartitionLog) -> None:
    """The same, record by record."""
    for batch in batches:
        for body in batch:
            log.append([Record(value=body)], acks=1)


def route(router: Router, keys: Sequence[str]) -> None:
    """Every key once."""
    find = router.route
    for key in keys:
        find("shop", key)


# Tables ---------------------------------------------------------------------------------------


def batches_table(options: Options, directory: Path) -> Table:
    """Batches that are in the operating system's hands when the publish returns."""
    count = options.count(100_000)
    alike = bodies(count)
    keyed = [
        [Outgoing(body, f"order.created.{number % 50}") for number, body in enumerate(batch)]
        for batch in alike
    ]

    def published(batches: Sequence[Sequence[bytes | Outgoing]], **options: int) -> Session:
        return on_new_exchange(directory, partial(publish_batches, batches, 1, None), **options)

    with_properties = partial(publish_batches, alike, 1, PROPERTIES)
    return Table(
        "publish batches of 500 messages of 200 bytes, acks=1",
        [
            Row("through a topic exchange to a queue", count, published(alike), goal=1_000_000),
            Row("the same with properties", count, on_new_exchange(directory, with_properties)),
            Row("every message with a key of its own", count, published(keyed)),
            Row("to four queues", count, published(alike, queues=4)),
            Row(
                "records to a plain log",
                count,
                on_new_log(directory, partial(append_batches, alike, 1)),
                "A",
            ),
        ],
    )


def synced_table(options: Options, directory: Path) -> Table:
    """Batches that are on stable storage when the publish returns."""
    count = options.count(50_000)
    alike = bodies(count)
    blocks = [
        encode_batch([Record(value=body) for body in batch], default_timestamp=NOW_MS)
        for batch in alike
    ]
    return Table(
        "publish batches of 500 messages of 200 bytes, acks=all",
        [
            Row(
                "through a topic exchange to a queue",
                count,
                on_new_exchange(directory, partial(publish_batches, alike, "all", None)),
            ),
            Row(
                "one by one, confirmed in the background",
                count,
                on_new_exchange(directory, partial(publish_in_background, alike, "all")),
            ),
            Row(
                "os.write, fdatasync of ready batches",
                count,
                on_new_file(directory, partial(write_and_sync, blocks)),
                "A",
            ),
        ],
    )


def single_table(options: Options, directory: Path) -> Table:
    """One message at a time."""
    count = options.count(20_000)
    alike = bodies(count)
    blocks = [
        encode_batch([Record(value=body)], default_timestamp=NOW_MS)
        for batch in alike
        for body in batch
    ]
    return Table(
        "publish single messages of 200 bytes, acks=1",
        [
            Row(
                "through a topic exchange to a queue",
                count,
                on_new_exchange(directory, partial(publish_single, alike)),
            ),
            Row(
                "confirmed in the background",
                count,
                on_new_exchange(directory, partial(publish_in_background, alike, 1)),
            ),
            Row(
                "records to a plain log",
                count,
                on_new_log(directory, partial(append_single, alike)),
                "A",
            ),
            Row(
                "os.write of whole batches (269 bytes)",
                count,
                on_new_file(directory, partial(write_only, blocks)),
                "B",
            ),
        ],
    )


def routing_table(options: Options, directory: Path) -> Table:
    """The router alone: nothing is published."""
    count = options.count(50_000)
    queues = [f"queue-{number}" for number in range(10_000)]
    bindings = [
        BindingDefinition("shop", "queue", queue, f"customer.{number}.#")
        for number, queue in enumerate(queues)
    ]
    bindings += [
        BindingDefinition("shop", "queue", queues[number], f"*.*.order.{number}.#")
        for number in range(1000)
    ]
    exchange = ExchangeDefinition("shop", "topic")
    many, one = Router([exchange], queues, bindings), Router([exchange], queues, bindings[:1])
    same = [f"customer.{number % 100}.order.{number % 7}" for number in range(count)]
    unique = [f"customer.{number}.order.{number}.paid" for number in range(count)]
    return Table(
        "route by a topic exchange",
        [
            Row(
                "11,000 patterns, 700 keys again and again",
                count,
                steady(partial(route, many, same)),
            ),
            Row("11,000 patterns, every key once", count, steady(partial(route, many, unique))),
            Row("one pattern, every key once", count, steady(partial(route, one, unique)), "A"),
        ],
        unit="keys/s",
    )


def tables(directory: Path, options: Options) -> Iterator[Table]:
    """Everything, in the order in which it is printed."""
    if options.arguments.waiting:
        given = options.arguments
        for line in measure_waiting(directory, given.waiting, given.body_bytes):
            print(line, flush=True)
        return
    yield batches_table(options, directory)
    yield synced_table(options, directory)
    yield single_table(options, directory)
    yield routing_table(options, directory)
    yield from consuming_tables(directory, options)
    yield sharing_table(options, directory)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Those of this benchmark alone."""
    parser.add_argument("--waiting", type=int, help="measure a queue of so many messages, once")
    parser.add_argument("--body-bytes", type=int, default=200, help="their size (default: 200)")


if __name__ == "__main__":
    assert BATCH_RECORDS == 500, "the titles say so"
    with scratch_directory() as scratch:
        report(
            "Routing, publishing and consuming, beside their limits.",
            partial(tables, scratch),
            add_arguments,
        )
