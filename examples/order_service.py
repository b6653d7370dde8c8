"""An order service: one event for many, and work that is done once.

The service publishes ``order.created`` once, to a topic exchange. Inventory, shipping and
notifications have a queue each, bound to what they care about, and each gets its copy: that is
publish-subscribe. Payments are a work queue: three worker *processes* share it, each payment goes
to one of them, and a worker says when it is done (an acknowledgement). That is point-to-point.

In the middle one worker is killed with SIGKILL. What it had in hand goes to the others within a
tenth of a second: nothing is lost, and no payment is acknowledged twice. (A payment that it had
*begun* may be begun again by another worker: a charge must carry its order's number, so that the
bank can tell. That is what at-least-once delivery means, here as in RabbitMQ.)

From the repository's folder, with logstore installed::

    python examples/order_service.py [DIR]      DIR: a new folder for the store
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import logstore
from logstore import Queue

ORDERS = 300
WORKERS = 3
KILL_AFTER = 60
"""So many payments are done, some of them by each worker, when the first one is killed."""
SUBSCRIBERS = {
    "inventory": ["order.created", "order.cancelled"],
    "shipping": ["order.created"],
    "notifications": ["order.#"],
}
"""The queues, and the routing keys that each is bound by."""


class Outcome(NamedTuple):
    """What there was in the end."""

    received: dict[str, list[int]]
    """The orders that each subscriber got, in order."""
    acknowledged: Counter[int]
    """How often each payment was acknowledged."""
    begun: Counter[int]
    """How often each payment was begun."""
    by_worker: dict[str, int]
    """How many payments each worker acknowledged."""
    left: int
    """The messages that are left in the work queue."""


def main(directory: str) -> Outcome:
    """Run the story in a new store in ``directory``."""
    with logstore.open(directory) as store:
        orders = store.exchange("orders", type="topic")
        for name, keys in SUBSCRIBERS.items():
            queue = store.queue(name)
            for key in keys:
                queue.bind(orders, key)
        payments = store.queue("payments")
        payments.bind(orders, "payment.due")

        say(f"{WORKERS} payment workers are started, each a process of its own.")
        workers = [start_worker(directory, f"worker-{n}") for n in range(1, WORKERS + 1)]
        try:
            wait_for(lambda: len(payments.consumers()) == WORKERS, "the workers to be there")
            for number in range(ORDERS):
                body = json.dumps({"order": number, "amount": 10 + number % 90}).encode()
                orders.publish(body, routing_key="order.created", message_id=str(number))
                orders.publish(body, routing_key="payment.due", message_id=str(number))
            say(f"{ORDERS} orders are published: each once, for three queues, and a payment each.")
            wait_for(
                lambda: in_the_middle(directory), f"{KILL_AFTER} payments, some by each worker"
            )
            workers[0].kill()
            workers[0].wait()
            say("worker-1 is killed in the middle of its work.")
            wait_for(lambda: len(told(directory)[0]) == ORDERS, f"all {ORDERS} payments")
        finally:
            for worker in workers:
                worker.send_signal(signal.SIGTERM)
            for worker in workers:
                worker.wait(30)

        received = {name: drain(store.queue(name)) for name in SUBSCRIBERS}
        outcome = Outcome(
            received, *told(directory), left=payments.counts().ready + payments.counts().unacked
        )
    for name, numbers in received.items():
        say(f"{name:>14} got {len(numbers)} orders, in order: {numbers == sorted(numbers)}")
    again = sum(count > 1 for count in outcome.begun.values())
    twice = sum(count > 1 for count in outcome.acknowledged.values())
    say(f"{len(outcome.acknowledged)} payments were acknowledged, {twice or 'none'} of them twice.")
    say(f"Begun by the killed worker, and begun again by another: {again}.")
    return outcome


# The workers --------------------------------------------------------------------------------


def start_worker(directory: str, name: str) -> subprocess.Popen[bytes]:
    """Another process that runs ``work``."""
    return subprocess.Popen([sys.executable, __file__, "--worker", directory, name])


def work(directory: str, name: str) -> None:
    """Take payments until told to stop. Each one is written down when it is begun, and when its
    acknowledgement is safe."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    diary = os.open(Path(directory) / f"{name}.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    with logstore.open(directory) as store:
        for message in store.queue("payments").consume(prefetch=5):
            order = json.loads(message.body)["order"]
            os.write(diary, b"begun %d\n" % order)
            time.sleep(0.002)  # the bank is asked
            message.ack(flush=True)  # from here on it survives a kill
            os.write(diary, b"done %d\n" % order)


def told(directory: str) -> tuple[Counter[int], Counter[int], dict[str, int]]:
    """What the workers have written down: payments acknowledged, begun, and by whom."""
    done: Counter[int] = Counter()
    begun: Counter[int] = Counter()
    by_worker = {}
    for diary in sorted(Path(directory).glob("worker-*.txt")):
        lines = [line.split() for line in diary.read_text().splitlines()]
        mine = [int(number) for what, number in lines if what == "done"]
        done.update(mine)
        begun.update(int(number) for what, number in lines if what == "begun")
        by_worker[diary.stem] = len(mine)
    return done, begun, by_worker


def in_the_middle(directory: str) -> bool:
    """Whether enough payments are done, and every worker has done some of them."""
    done, _, by_worker = told(directory)
    return len(done) >= KILL_AFTER and list(map(bool, by_worker.values())) == [True] * WORKERS


def wait_for(condition: Callable[[], bool], what: str) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + 60
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited in vain for {what}")
        time.sleep(0.01)


def drain(queue: Queue) -> list[int]:
    """Take everything that a subscriber has waiting."""
    numbers = []
    while (message := queue.get()) is not None:
        numbers.append(int(message.properties.message_id or -1))
        message.ack()
    return numbers


def say(text: str = "") -> None:
    """A line of plain words."""
    print(text, flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        work(*sys.argv[2:])
    elif len(sys.argv) > 1:
        main(sys.argv[1])
    else:
        with tempfile.TemporaryDirectory() as directory:
            main(directory)
