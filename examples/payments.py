"""Payments off a log: many workers on one partition, and what cannot be done is put aside.

The orders stay in a topic, for whoever wants to read them. That each is paid for is work, and a
*share group* does it: three worker *processes* share the one partition record by record, with
nothing copied. A worker says of each order what became of it: accepted, released (the bank did not
answer: somebody tries again) or rejected (no amount can be read from it).

In the middle one worker is killed with SIGKILL: what it had in hand goes to the others. (An order
that it had paid for, and had not said so, is paid for again: a charge must carry its order's
number, so that the bank can tell.) In the end the orders that were rejected, or tried as often as
they may be, are in a topic of their own, with headers that tell why.

From the repository's folder, with logstore installed::

    python examples/payments.py [DIR]      DIR: a new folder for the store
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

import logstore
from logstore import ConsumerRecord, ShareRecord, Store

ORDERS = 240
UNREADABLE, UNANSWERED = 77, 140
"""An order whose amount is no number, and one whose bank never answers."""
WORKERS = 3
KILL_AFTER = 60
"""So many orders are paid, some of them by the first worker, when that one is killed."""
GROUP, LETTERS = "payments", "dlq.payments"


class Outcome(NamedTuple):
    """What there was in the end."""

    paid: Counter[int]
    """How often each order was paid."""
    by_worker: Counter[str]
    letters: list[tuple[int, int, str]]
    """Of what was put aside: the order, how often it was delivered, and why it is there."""
    lag: int
    """What is left to do."""


def main(directory: str) -> Outcome:
    """Run the story in a new store in ``directory``."""
    with logstore.open(directory) as store:
        for topic in ("orders", "receipts", LETTERS):
            store.create_topic(topic)
        store.share_groups.alter(
            GROUP,
            share_auto_offset_reset="earliest",
            share_delivery_count_limit=3,
            errors_deadletterqueue_topic_name=LETTERS,
        )
        workers = [start_worker(directory, f"worker-{n}") for n in range(1, WORKERS + 1)]
        try:
            wait_for(lambda: len(store.share_groups.describe(GROUP).members) == WORKERS)
            with store.producer() as producer:
                for number in range(ORDERS):
                    amount = "ten" if number == UNREADABLE else 10 + number % 90
                    order = {"order": number, "amount": amount}
                    producer.send("orders", json.dumps(order).encode())
            say(f"{ORDERS} orders are in one partition, which {WORKERS} workers share.")
            wait_for(lambda: in_the_middle(store) or left(store) == 0)
            workers[0].kill()
            say("worker-1 is killed in the middle of its work.")
            wait_for(lambda: left(store) == 0)
        finally:
            for worker in workers:
                worker.send_signal(signal.SIGTERM)
            for worker in workers:
                worker.wait(30)
        outcome = Outcome(*paid(store), letters(store), left(store))
    say(f"{len(outcome.paid)} orders are paid: {told(outcome.by_worker)}.")
    again = sum(count > 1 for count in outcome.paid.values())
    if again:
        say(f"{again} of them twice: the killed worker had not said yet that it was done.")
    for order, count, why in outcome.letters:
        times = f"{count} deliver{'y' if count == 1 else 'ies'}"
        say(f"Order {order} is put aside after {times}: {why}")
    return outcome


# The workers --------------------------------------------------------------------------------


def start_worker(directory: str, name: str) -> subprocess.Popen[bytes]:
    """Another process that runs ``work``."""
    return subprocess.Popen([sys.executable, __file__, "--worker", directory, name])


def work(directory: str, name: str) -> None:
    """Take orders until told to stop."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with (
        logstore.open(directory) as store,
        store.producer(acks=1) as producer,
        store.share_consumer(
            "orders", group=GROUP, share_acknowledgement_mode="explicit", max_poll_records=10
        ) as consumer,
    ):
        for record in consumer:
            try:
                number = pay(record)
            except ValueError:
                record.reject()
            except TimeoutError:
                record.release()
            else:
                headers = [("worker", name.encode())]
                producer.send("receipts", b"%d" % number, headers=headers).result()
                record.accept(flush=True)  # from here on it survives a kill


def pay(record: ShareRecord) -> int:
    """Have an order paid, and return its number. Raises ValueError for one that cannot be read,
    TimeoutError where the bank does not answer."""
    order = json.loads(record.value or b"")
    if int(order["amount"]) <= 0:
        raise ValueError("there is nothing to pay")
    time.sleep(0.002)  # the bank is asked
    if order["order"] == UNANSWERED:
        raise TimeoutError
    number: int = order["order"]
    return number


# Looking ------------------------------------------------------------------------------------


def everything(store: Store, topic: str) -> list[ConsumerRecord]:
    """The records of a topic."""
    with store.consumer(topic, consumer_timeout_ms=0) as reader:
        return list(reader)


def paid(store: Store) -> tuple[Counter[int], Counter[str]]:
    """How often each order was paid, and how many each worker has paid."""
    receipts = everything(store, "receipts")
    by_worker = Counter((dict(one.headers)["worker"] or b"").decode() for one in receipts)
    return Counter(int(one.value or b"") for one in receipts), by_worker


def letters(store: Store) -> list[tuple[int, int, str]]:
    """What was put aside."""
    found = []
    for letter in everything(store, LETTERS):
        tells = {name.removeprefix("__dlq.errors."): value or b"" for name, value in letter.headers}
        order = json.loads(letter.value or b"")["order"]
        found.append((order, int(tells["delivery.count"]), tells["message"].decode()))
    return sorted(found)


def left(store: Store) -> int:
    """How many orders nobody has accepted, and that were not put aside."""
    partitions = store.share_groups.describe(GROUP).partitions
    return sum(one.lag + one.archiving for one in partitions)


def in_the_middle(store: Store) -> bool:
    """Whether enough orders are paid, and the first worker has paid some of them."""
    by_worker = paid(store)[1]
    return by_worker["worker-1"] > 0 and by_worker.total() >= KILL_AFTER


def told(by_worker: Counter[str]) -> str:
    """The numbers of all workers."""
    return ", ".join(f"{by_worker[name]} by {name}" for name in sorted(by_worker))


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + 120
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("this takes far too long")
        time.sleep(0.02)


def say(text: str) -> None:
    """Tell what happens."""
    print(text, flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        work(sys.argv[2], sys.argv[3])
    elif len(sys.argv) > 1:
        main(sys.argv[1])
    else:
        with tempfile.TemporaryDirectory() as scratch:
            main(f"{scratch}/store")
