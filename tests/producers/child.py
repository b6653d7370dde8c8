"""What the tests of several processes run in a process of its own: ``child.py TASK ARGUMENT``."""

from __future__ import annotations

import os
import random
import sys

import logstore
from logstore import RecordMetadata

PARTITIONS = 2


def say(text: str) -> None:
    """Tell the parent, in one write: what it has read, has been said as a whole."""
    os.write(1, text.encode() + b"\n")


def copy(path: str, count: str, seed: str) -> None:
    """Send the numbers up to ``count``, each to one of the partitions, from where the instances
    before have come to; say which ones were acknowledged."""
    rng = random.Random(int(seed))
    options = {
        "acks": rng.choice((1, "all")),
        "linger_ms": rng.choice((0, 1, 5)),
        "batch_size": rng.choice((60, 300, 16_384)),
    }
    with (
        logstore.open(path, maintenance_interval=None) as store,
        store.producer(producer_name="copier", **options) as producer,
    ):
        done = [producer.next_sequence("numbers", partition) for partition in range(PARTITIONS)]

        def on_delivery(metadata: RecordMetadata | None, error: Exception | None) -> None:
            assert metadata is not None, error
            say(f"{metadata.partition} {metadata.offset}")

        for number in range(int(count)):
            partition, sequence = number % PARTITIONS, number // PARTITIONS
            if sequence >= done[partition]:
                value = b"%d" % number
                producer.send("numbers", value, partition=partition, on_delivery=on_delivery)
                if rng.random() < 0.05:
                    producer.flush()
        producer.flush()
        say("done")


def be_fenced(path: str) -> None:
    """Send until another instance takes the name; say how that was told."""
    with logstore.open(path, maintenance_interval=None) as store:
        producer = store.producer(producer_name="copier", linger_ms=0)
        producer.send("numbers", b"older", partition=0).result(30)
        say("ready")
        sys.stdin.readline()
        for _ in range(2):
            try:
                producer.send("numbers", b"lost", partition=0).result(30)
            except logstore.ProducerFencedError as error:
                say(f"fenced: {error}")
        producer.close()


if __name__ == "__main__":
    {task.__name__: task for task in (copy, be_fenced)}[sys.argv[1]](*sys.argv[2:])
