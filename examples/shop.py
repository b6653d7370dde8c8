"""A shop's books, broken by one event among two thousand: which one was it?

Customers pay credit in, and orders are charged against it. The shop refuses an order that the
credit does not cover, so nobody's balance should ever be below zero. But one charge was booked
twice. Soon afterwards the customer got the money back, and at the end all balances look as they
should. A replay folds the events into the books again and finds the one that broke them, without
assuming anything of what came behind it; then it is stepped through, backwards too.

From the repository's folder:

    python examples/shop.py [DIR]       the whole story, in a new store in DIR
    python examples/shop.py --events    the events alone, as `logstore append --json` takes them

The same on the command line:

    export LOGSTORE_DIR=data
    python examples/shop.py --events | logstore append shop - --json
    logstore replay shop --fold examples/shop.py:ledger --bisect 'min(state.balances) < 0'
    logstore replay shop --fold examples/shop.py:ledger --debug
    logstore replay shop --diff --fold examples/shop.py:ledger --fold examples/shop.py:once
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
from typing import Any

import logstore
from logstore import ConsumerRecord, Record
from logstore.json_records import record_line
from logstore.replay import Session
from logstore.replay.bisect import bisect
from logstore.replay.diff import diff_folds
from logstore.replay.log_source import open_topic
from logstore.replay.source import Range

EVENTS = 2000
CUSTOMERS = 12
START_MS = 1_714_560_000_000
NOT_BEFORE = 1200
"""How many events are as they should be before the fault may come."""


def events() -> list[Record]:
    """The log: the same one every time, with the fault in it."""
    rng = random.Random(20240501)
    balances = {f"customer-{n}": 0 for n in range(CUSTOMERS)}
    booked: list[tuple[str, dict[str, Any]]] = []
    fault = 0
    order = 0
    while len(booked) < EVENTS - 2:
        customer = rng.choice(list(balances))
        if balances[customer] < 40:
            amount = rng.randrange(50, 200)
            balances[customer] += amount
            booked.append((customer, {"type": "paid-in", "amount": amount}))
            continue
        order += 1
        amount = rng.randrange(5, balances[customer] + 1)
        balances[customer] -= amount
        booked.append((customer, {"type": "charged", "amount": amount, "order": order}))
        if not fault and len(booked) > NOT_BEFORE and amount > balances[customer]:
            fault = len(booked)
    # The fault: a charge is booked once more, and three events later the money is given back.
    customer, event = booked[fault - 1]
    booked.insert(fault, (customer, event))
    booked.insert(fault + 4, (customer, {"type": "paid-in", "amount": event["amount"]}))
    return [
        Record(n, START_MS + 1000 * n, customer.encode(), json.dumps(event).encode())
        for n, (customer, event) in enumerate(booked)
    ]


def ledger(state: dict[str, Any] | None, record: ConsumerRecord) -> dict[str, Any]:
    """The books: everybody's balance. It changes the state in place, as folds may."""
    if state is None:
        state = {"balances": {}, "orders": set()}
    event = json.loads(record.value or b"{}")
    customer = (record.key or b"").decode()
    amount = -event["amount"] if event["type"] == "charged" else event["amount"]
    state["balances"][customer] = state["balances"].get(customer, 0) + amount
    state["orders"].add(event.get("order"))
    return state


def once(state: dict[str, Any] | None, record: ConsumerRecord) -> dict[str, Any]:
    """The same, mended: an order is charged once."""
    event = json.loads(record.value or b"{}")
    if state is not None and event["type"] == "charged" and event["order"] in state["orders"]:
        return state
    return ledger(state, record)


def main(directory: str) -> ConsumerRecord:
    """Tell the story in a new store, and return the record that broke the books."""
    with logstore.open(directory, maintenance_interval=None) as store:
        log = store.create_topic("shop").partition(0)
        for start in range(0, EVENTS, 100):
            log.append(events()[start : start + 100], acks=1)
    with Session(open_topic("shop", directory, Range()), ledger) as session:
        session.run()
        lowest = min(session.state["balances"].values())
        say(f"{EVENTS} events; at the end the lowest balance is {lowest}: nothing is to be seen.")
        session.goto_index(0)
        found = bisect(session, "min(state.balances) < 0")
        assert found is not None
        record = found.record
        customer = (record.key or b"").decode()
        say(f"But behind the event at offset {record.offset} somebody's balance was below zero:")
        say(f"  {customer}: {(record.value or b'').decode()}")
        for change in session.changes():
            say(f"  state{change.path}: {change.before} -> {change.after}")
        say("The event in front of it, a step back:")
        before = session.back().record
        assert before is not None
        say(f"  {(before.key or b'').decode()}: {(before.value or b'').decode()}")
        say("It is the same charge, booked twice.")
    with open_topic("shop", directory, Range()) as source:
        summary = diff_folds(source, ledger, once, names=("ledger", "once"))
        assert summary.first is not None
        say("Books in which each order is charged once differ from these from that event on:")
        say(f"  offset {summary.first.record.offset}, {summary.different} of {EVENTS} events")
    return record


def say(text: str) -> None:
    """A line of plain words."""
    print(text, flush=True)


if __name__ == "__main__":
    if sys.argv[1:] == ["--events"]:
        for number, event in enumerate(events()):
            row = ConsumerRecord("shop", 0, number, *event[1:])
            sys.stdout.buffer.write(record_line(row))
    elif len(sys.argv) > 1:
        main(sys.argv[1])
    else:
        with tempfile.TemporaryDirectory() as temporary:
            main(temporary)
