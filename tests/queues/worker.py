"""A publisher or a consumer as a process of its own: ``worker.py publish|consume STORE OPTIONS``.

``publish`` publishes numbered messages, and says ``confirmed <body>`` when each is. ``consume``
says ``got <body> <from> <until> <delivery count>`` when it has had a message for a while, and
``acked <body>`` when its acknowledgement is in the ledger; times are nanoseconds since the
machine's start. Both go on until their standard input ends.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from typing import Any

import logstore

QUEUE = "payments"


def say(text: str) -> None:
    """Tell the parent, in one write: what it has read, has been said as a whole."""
    os.write(1, text.encode() + b"\n")


def now() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def publish(store: logstore.Store, end: threading.Event, options: dict[str, Any]) -> None:
    exchange = store.exchange("")
    number = 0
    while not end.is_set():
        count = number % 3 + 1
        names = [f"{options['name']}-{number + n}" for n in range(count)]
        exchange.publish_batch([name.encode() for name in names], QUEUE, acks=1)
        say("\n".join(f"confirmed {name}" for name in names))
        number += count
        time.sleep(options.get("pause", 0.002))


def consume(store: logstore.Store, end: threading.Event, options: dict[str, Any]) -> None:
    queue = store.queue(options.get("queue", QUEUE))
    say("ready")
    while not end.is_set():
        with queue.consume(prefetch=options.get("prefetch", 10), timeout=0.05) as consumer:
            for message in consumer:
                body = message.body.decode()
                begun = now()
                time.sleep(options.get("work", 0.0005))
                # From here to there it was ours alone.
                say(f"got {body} {begun} {now()} {message.delivery_count}")
                if options.get("hold"):
                    end.wait()
                message.ack(flush=True)
                say(f"acked {body}")
                if end.is_set():
                    break


def main(what: str, path: str, options: str) -> None:
    end = threading.Event()

    def wait_for_the_end() -> None:
        os.read(0, 1)
        end.set()

    threading.Thread(target=wait_for_the_end, daemon=True).start()
    with logstore.open(path, maintenance_interval=None) as store:
        {"publish": publish, "consume": consume}[what](store, end, json.loads(options))
    say("left")


if __name__ == "__main__":
    main(*sys.argv[1:])
