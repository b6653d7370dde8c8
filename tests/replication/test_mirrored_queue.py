"""Mirrored queues in whole clusters: leaders change, and no message is lost or with two."""

from __future__ import annotations

from logstore.replication.checkers.findings import Findings
from logstore.replication.checkers.queues import QueueCheckers
from logstore.replication.history import (
    Elected,
    History,
    QueueDelivered,
    QueueReleased,
    QueueSettled,
)
from logstore.replication.queue_machine import QueueMachine, command
from logstore.replication.run import Run
from logstore.replication.scenario import load_scenario
from logstore.segments.record import Record

Q = "jobs-0"


def test_followers_take_over_with_the_ledger_intact() -> None:
    elections = 0
    for seed in (1, 2, 3):
        run = Run(load_scenario("mirrored-queue"), seed)
        seen: list[Elected] = []
        run.history.subscribe(Elected, seen.append)
        outcome = run.finish()
        assert (outcome.violations, outcome.lost) == ([], 0)
        assert outcome.acknowledged > 300
        checkers = run.queue_checkers
        assert checkers.deliveries >= outcome.acknowledged
        assert checkers.settled > 0.8 * outcome.acknowledged
        assert checkers.redeliveries > 0  # what a leader had leased another one delivers again
        cluster = run.cluster
        assert cluster is not None
        machines = [broker.queues[Q].machine for broker in cluster.brokers.values()]
        assert len({machine.digest() for machine in machines}) == 1
        elections += len(seen) - 1
    assert elections > 3


def test_the_same_seed_gives_the_same_deliveries() -> None:
    def deliveries() -> list[QueueDelivered]:
        run = Run(load_scenario("mirrored-queue").replace({"duration_ms": 6000}), 5)
        seen: list[QueueDelivered] = []
        run.history.subscribe(QueueDelivered, seen.append)
        run.finish()
        return seen

    first = deliveries()
    assert first
    assert first == deliveries()


class Told:
    """Checkers that are told what consumers get."""

    def __init__(self) -> None:
        self.history = History()
        self.findings = Findings(self.history)
        self.checkers = QueueCheckers(self.history, self.findings)

    @property
    def broken(self) -> list[str]:
        return [violation.kind for violation in self.findings.violations]

    def deliver(self, at_us: int, consumer: str, epoch: int, name: str = "m1") -> None:
        event = QueueDelivered(at_us, consumer, Q, epoch, 0, name, until_us=1000)
        self.history.emit(event)


def test_a_message_is_with_one_consumer_at_a_time_in_one_epoch() -> None:
    told = Told()
    told.deliver(10, "k0", 1)
    told.deliver(20, "k1", 2)  # another leader: what the first one had leased is over
    told.deliver(2000, "k2", 2)  # its time was up
    told.history.emit(QueueReleased(2010, "k2", Q, 2, 0, "m1"))
    told.deliver(2020, "k0", 2)
    assert told.broken == []
    told = Told()
    told.deliver(10, "k0", 1)
    told.deliver(20, "k1", 1)
    assert told.broken == ["two at once"]


def test_a_confirmed_acknowledgement_is_for_ever() -> None:
    told = Told()
    told.deliver(10, "k0", 1)
    told.history.emit(QueueSettled(20, "k0", Q, 1, 0, "m1"))
    told.deliver(30, "k1", 2)
    assert told.broken == ["redelivered"]


def test_the_same_number_is_the_same_message() -> None:
    told = Told()
    told.deliver(10, "k0", 1, "m1")
    told.deliver(20, "k1", 2, "m2")
    assert told.broken == ["disagreement"]


def machine(*records: Record) -> QueueMachine:
    made = QueueMachine()
    for record in records:
        made.apply(record)
    return made


def test_the_end_of_a_queue_is_looked_at() -> None:
    message = Record(key=None, value=b"m1 and more", timestamp=-1)
    taken = command("take", "k0", 1, 0, 1000)
    done = command("settle", "k0", 0, 1, "1")
    told = Told()
    told.checkers.at_the_end(Q, {0: machine(message)}, ["m1"], 100)
    assert told.broken == []
    told.checkers.at_the_end(Q, {0: machine(message)}, ["m1", "m2"], 100)
    assert told.broken == ["lost"]
    told.checkers.at_the_end(Q, {0: machine(message), 1: machine()}, [], 100)
    assert told.broken == ["lost", "ledgers"]
    told.checkers.at_the_end(Q, {0: machine(message, taken, done)}, ["m1"], 100)
    assert told.broken == ["lost", "ledgers", "lost"]  # settled, and nobody had it
    told.history.emit(QueueSettled(20, "k0", Q, 1, 0, "m1"))
    told.checkers.at_the_end(Q, {0: machine(message)}, ["m1"], 100)
    assert told.broken[-1] == "redelivered"
