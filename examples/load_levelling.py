"""Load levelling: a burst of a hundred times what the workers can do is taken, and worked off.

Orders come in a burst; each tick brings a hundred times as many as the workers can deal with in
one. A program that kept them in memory would grow, or refuse them. Here they go into a topic: the
producer holds no more than its ``buffer_memory``, the consumer no more than one ``poll`` gives it
and what it reads ahead, and what waits, waits on the disk. When the burst is over the backlog is
worked off, in the order in which the orders came.

From the repository's folder, with logstore installed::

    python examples/load_levelling.py [DIR]      DIR: a new folder for the store
"""

from __future__ import annotations

import sys
import tempfile
from typing import NamedTuple

import logstore

RATE = 50
"""Orders that the workers can deal with in a tick."""
BURST = 100 * RATE
"""Orders that come in a tick of the burst."""
BURST_TICKS = 10

BUFFER_BYTES = 256 << 10
"""What the producer may hold."""
READ_AHEAD_BYTES = 64 << 10
"""What the consumer may read at once."""


class Tick(NamedTuple):
    """How things stood at the end of a tick."""

    sent: int
    done: int
    waiting: int
    """Orders that are in the topic, and that nobody has dealt with."""
    buffered_bytes: int
    """What the producer held, at most, in this tick."""


def main(directory: str) -> list[Tick]:
    """Let the burst come, and work it off; return each tick."""
    ticks = []
    with (
        logstore.open(directory, maintenance_interval=None) as store,
        store.producer(acks=1, buffer_memory=BUFFER_BYTES) as producer,
    ):
        store.create_topic("orders")
        with store.consumer(
            "orders",
            group="workers",
            max_poll_records=RATE,
            max_partition_fetch_bytes=READ_AHEAD_BYTES,
        ) as consumer:
            say(f"The workers deal with {RATE} orders in a tick; {BURST:,} come, {BURST_TICKS}")
            say("ticks long.")
            say()
            say("tick    sent    done  waiting in the topic  held by the producer (bytes)")
            sent = done = 0
            while not ticks or done < BURST * BURST_TICKS:
                held = 0
                if len(ticks) < BURST_TICKS:
                    for _ in range(BURST):
                        producer.send("orders", b"order %d: one of everything" % sent)
                        sent += 1
                        held = max(held, producer.buffered_bytes)
                    producer.flush()
                for record in consumer.poll(timeout=10):
                    number = int((record.value or b"").split(b":")[0].split()[1])
                    if number != done:
                        raise AssertionError(f"order {number} came in the place of {done}")
                    done += 1
                waiting = sum(consumer.lag().values())
                ticks.append(Tick(sent, done, waiting, held))
                if len(ticks) in (1, 5, BURST_TICKS) or len(ticks) % 200 == 0:
                    say(f"{len(ticks):>4}{sent:>8,}{done:>8,}{waiting:>22,}{held:>30,}")
            say()
            say(f"All {done:,} orders were dealt with, in the order in which they came.")
    return ticks


def say(text: str = "") -> None:
    """A line of plain words."""
    print(text, flush=True)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(sys.argv[1])
    else:
        with tempfile.TemporaryDirectory() as directory:
            main(directory)
