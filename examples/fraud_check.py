"""A fraud check by request and reply, and status notifications by priority and type.

The shop must know *now* whether an order is fraudulent: it calls the check, as one calls a
function, and waits for the answer (request-reply: the request carries the name of a reply queue and
a correlation id). Several servers share the requests; the shop calls from several threads at once.
A check that takes too long ends in a time-out, and its late answer is dropped.

What then happens to the orders is told to those who asked for it: a headers exchange looks at a
notification's *type* and *channel*, and the queue for text messages has priorities, so that a
"declined" overtakes the "shipped" that were waiting.

From the repository's folder, with logstore installed::

    python examples/fraud_check.py [DIR]      DIR: a new folder for the store
"""

from __future__ import annotations

import json
import sys
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import logstore
from logstore import Exchange, Message, Queue, RpcTimeoutError

ORDERS = 60
SERVERS = 2
LIMIT = 900
"""An order above it is a fraud."""
SLOW_ORDER = 13
"""This one's check takes longer than anybody waits."""
PRIORITIES = {"shipped": 1, "approved": 4, "declined": 9}


class Outcome(NamedTuple):
    """What there was in the end."""

    verdicts: dict[int, str]
    """approved, declined or unknown (the check took too long), by order."""
    texts: list[tuple[int, str]]
    """The text messages in the order of their delivery: priority and status."""
    mails: list[str]
    """The statuses that were mailed, in order."""


def main(directory: str) -> Outcome:
    """Run the story in a new store in ``directory``."""
    with logstore.open(directory) as store:
        status = store.exchange("status", type="headers")
        texts = store.queue("texts", max_priority=9)
        mails = store.queue("mails")
        texts.bind(status, arguments={"x-match": "all", "kind": "order-status", "urgent": True})
        mails.bind(status, arguments={"x-match": "all", "kind": "order-status"})

        verdicts = check_all(store)
        for order, verdict in sorted(verdicts.items()):
            if verdict == "unknown":
                continue
            tell(status, order, verdict, urgent=True)
            tell(status, order, "shipped", urgent=verdict == "approved" and order % 2 == 0)
        outcome = Outcome(
            verdicts,
            [(m.properties.priority or 0, m.body.decode()) for m in taken(texts)],
            [m.body.decode() for m in taken(mails)],
        )
    counts = {kind: list(verdicts.values()).count(kind) for kind in sorted(set(verdicts.values()))}
    say(f"{ORDERS} orders were checked by {SERVERS} servers: {counts}")
    say("(unknown: its check took too long, the late answer was dropped).")
    say(f"{len(outcome.mails)} notifications were mailed, in the order in which they came;")
    first = outcome.texts[0]
    say(f"{len(outcome.texts)} were texted, the urgent ones first: {first[1]!r} ...")
    return outcome


def check_all(store: logstore.Store) -> dict[int, str]:
    """Have every order checked, from eight threads at once."""
    nobody_waits = threading.Event()

    def check(request: Message) -> bytes:
        order = json.loads(request.body)
        if order["order"] == SLOW_ORDER:
            nobody_waits.wait(30)
        return b"declined" if order["amount"] > LIMIT else b"approved"

    def call(number: int) -> str:
        order = json.dumps({"order": number, "amount": number * 37 % 1000}).encode()
        try:
            answer = rpc.call("fraud-checks", order, timeout=0.2 if number == SLOW_ORDER else 30)
        except RpcTimeoutError:
            return "unknown"
        finally:
            if number == SLOW_ORDER:
                nobody_waits.set()
        return answer.body.decode()

    with (
        store.queue("fraud-checks").serve(check, threads=SERVERS),
        store.queues.rpc_client() as rpc,
        ThreadPoolExecutor(8) as pool,
    ):
        return dict(enumerate(pool.map(call, range(ORDERS))))


def taken(queue: Queue) -> Iterator[Message]:
    """Everything that waits in a queue."""
    while (message := queue.get(no_ack=True)) is not None:
        yield message


def tell(status: Exchange, order: int, kind: str, *, urgent: bool) -> None:
    """Publish a status notification."""
    status.publish(
        f"order {order}: {kind}".encode(),
        headers={"kind": "order-status", "urgent": urgent},
        priority=PRIORITIES[kind],
        type=kind,
    )


def say(text: str = "") -> None:
    """A line of plain words."""
    print(text, flush=True)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(sys.argv[1])
    else:
        with tempfile.TemporaryDirectory() as directory:
            main(directory)
