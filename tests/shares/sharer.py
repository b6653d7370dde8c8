"""A share consumer as a process of its own: ``sharer.py STORE OPTIONS``.

It says ``got <value> <from> <until> <delivery count>`` when it has had a record for a while, in
nanoseconds since the machine's start, and ``accepted <value>`` when the ledger knows; numbers that
``reject_every`` divides it rejects. It goes on until its standard input ends.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time

import logstore


def say(text: str) -> None:
    """Tell the parent, in one write: what it has read, has been said as a whole."""
    os.write(1, text.encode() + b"\n")


def now() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def main(path: str, given: str) -> None:
    end = threading.Event()
    options = json.loads(given)
    hold = options.pop("hold", False)
    reject_every = options.pop("reject_every", 0)

    def wait_for_the_end() -> None:
        os.read(0, 1)
        end.set()

    threading.Thread(target=wait_for_the_end, daemon=True).start()
    with (
        logstore.open(path, maintenance_interval=None) as store,
        store.share_consumer(
            "orders", group="workers", share_acknowledgement_mode="explicit", **options
        ) as consumer,
    ):
        say("ready")
        while not end.is_set():
            for record in consumer.poll(timeout=0.05):
                value = (record.value or b"").decode()
                begun = now()
                time.sleep(0.0005)
                # From here to there it was ours alone.
                say(f"got {value} {begun} {now()} {record.delivery_count}")
                if hold:
                    end.wait()
                if reject_every and value.isdecimal() and int(value) % reject_every == 0:
                    record.reject()
                    continue
                record.accept(flush=True)
                say(f"accepted {value}")
    say("left")


if __name__ == "__main__":
    main(*sys.argv[1:])
