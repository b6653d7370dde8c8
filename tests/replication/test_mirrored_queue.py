"""Mirrored queues in whole clusters: leaders change, and no message is lost or with two."""

from __future__ import annotations

from logstore.replication.checkers.findings import Loss
from logstore.replication.checkers.queues import QueueCheckers
from logstore.replication.history import (
    Elected,
    QueueDelivered,
    QueueReleased,
    QueueSettled,
)
from logstore.replication.queue_machine import QueueMachine, command
from logstore.replication.run import Run
from logstore.replication.scenario import load_scenario
from logstore.segments.record import Record
from tests.replication.story import Settings, Story

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
        queues = outcome.queues
        assert queues is not None
        assert queues.confirmed == outcome.acknowledged
        assert queues.delivered >= queues.acknowledged > 0.8 * queues.confirmed
        assert (queues.lost, queues.acknowledgements_lost) == (0, 0)
        assert queues.redelivered > 0  # what a leader had leased another one delivers again
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


def test_a_consumer_whose_leases_run_out_gets_others_and_the_end_is_reached() -> None:
    changes = {
        "duration_ms": 4000,
        "queues.lease_ms": 150,
        "queues.work_ms": 200,
        "random_faults.per_minute": {},
    }
    run = Run(load_scenario("mirrored-queue").replace(changes), 1)
    outcome = run.finish()
    queues = outcome.queues
    assert outcome.violations == []
    assert queues is not None
    assert queues.redelivered > queues.delivered > 0
    assert (queues.acknowledged, queues.waiting) == (0, queues.confirmed)


class Told(Story):
    """A queue's log, and what its consumers are told of it. An acknowledgement is one more record
    of the log."""

    def __init__(self, settings: Settings | None = None) -> None:
        super().__init__(settings or Settings(), partition=Q)
        self.queues = QueueCheckers(self.history, self.checkers)
        self.elect(0, (0, 1, 2))

    def commit_all(self, *ids: str, leader: int | None = None) -> int:
        """Records that all in-sync replicas have; returns where they stand."""
        leader = self.leader if leader is None else leader
        base = self.append(leader, *ids)
        for broker in (0, 1, 2):
            if broker != leader:
                self.fetch(broker, leader)
        self.commit(leader, base + len(ids))
        return base

    def deliver_message(
        self,
        consumer: str,
        name: str = "m1",
        *,
        number: int = 0,
        at: int = 0,
        lasts_us: int = 1000,
    ) -> None:
        now_us = self.tick()
        until_us = now_us + lasts_us
        self.history.emit(
            QueueDelivered(now_us, consumer, Q, self.epoch, number, name, until_us, at)
        )

    def release(self, consumer: str) -> None:
        self.history.emit(QueueReleased(self.tick(), consumer, Q, self.epoch, 0, "m1"))

    def settle(self, consumer: str, at: int, name: str = "m1", *, number: int = 0) -> None:
        event = QueueSettled(self.tick(), consumer, Q, self.epoch, number, name, at)
        self.history.emit(event)

    def lose_everything(self) -> None:
        """All replicas lose their disks, and the last leader goes on with nothing."""
        for broker in (0, 1, 2):
            self.lose_disk(broker)
        self.isr()
        self.elect(0, (0,), clean=False)

    def finish(self, machines: dict[int, QueueMachine], *messages: str) -> list[Loss]:
        return self.queues.at_the_end(Q, machines, messages, self.tick())


def test_a_message_is_with_one_consumer_at_a_time_in_one_epoch() -> None:
    told = Told()
    told.commit_all("m1")
    told.deliver_message("k0")
    told.elect(1, (0, 1, 2))
    told.deliver_message("k1", lasts_us=5)  # what the first leader had leased is over
    told.deliver_message("k2")  # its time was up
    told.release("k2")
    told.deliver_message("k0")
    assert told.broken == []
    told.deliver_message("k1")
    assert told.broken == ["two at once"]
    assert (told.queues.delivered, told.queues.redeliveries) == (1, 4)


def test_a_message_is_delivered_when_it_is_committed() -> None:
    told = Told()
    told.append(0, "m1")
    told.deliver_message("k0")
    told.deliver_message("k0", "m9", number=1, at=5)  # nobody has appended that
    assert told.broken == ["uncommitted", "uncommitted"]


def test_a_confirmed_acknowledgement_is_for_ever() -> None:
    told = Told()
    told.commit_all("m1")
    told.deliver_message("k0")
    told.settle("k0", told.commit_all("ack"))
    told.elect(1, (0, 1, 2))
    told.deliver_message("k1")
    assert told.broken == ["redelivered"]


def test_an_acknowledgement_that_was_not_committed_when_it_was_told_is_found() -> None:
    told = Told()
    told.commit_all("m1")
    told.deliver_message("k0")
    told.settle("k0", told.append(0, "ack"))
    told.elect(1, (1, 2))
    told.truncate(0, 1)
    told.deliver_message("k1")
    assert told.broken == ["redelivered"]


def test_the_same_number_is_the_same_message() -> None:
    told = Told()
    told.commit_all("m1", "m2")
    told.deliver_message("k0", "m1")
    told.elect(1, (0, 1, 2))
    told.deliver_message("k1", "m2", at=1)
    assert told.broken == ["disagreement"]


def test_what_all_disks_have_lost_may_come_back_and_its_number_be_anothers() -> None:
    told = Told()
    told.commit_all("m1")
    told.deliver_message("k0")
    told.settle("k0", told.commit_all("ack"))
    told.lose_everything()
    told.append(0, "m2", sequence=0)
    told.commit(0, 1)
    told.deliver_message("k1", "m2")
    assert told.broken == []
    assert told.finish({0: machine(message("m2"))}, "m2") == []  # m1 is gone with it
    assert (told.queues.delivered, told.queues.settled) == (2, 1)


def test_an_acknowledgement_that_an_unclean_election_took_is_told_of() -> None:
    told = Told(Settings(unclean_election=True, min_insync_replicas=1))
    told.commit_all("m1")
    told.isr(0)
    told.deliver_message("k0")
    acknowledged = told.append(0, "ack")
    told.commit(0, 2)
    told.settle("k0", acknowledged)
    told.crash(0)
    told.elect(1, (1,), clean=False)
    told.truncate(0, 1)
    told.deliver_message("k1")
    (loss,) = told.finish({1: machine(message("m1"))}, "m1")
    assert told.broken == []
    assert (loss.what, loss.record_ids, loss.first_offset) == ("acknowledgements", ("m1",), 1)
    assert loss.reasons == (
        "an unclean election took a replica that was not known to have all records",
    )
    assert any(isinstance(event, Elected) and not event.clean for event in loss.causes)


def machine(*records: Record) -> QueueMachine:
    made = QueueMachine()
    for record in records:
        made.apply(record)
    return made


def message(name: str) -> Record:
    return Record(key=None, value=f"{name} and more".encode(), timestamp=-1)


def test_the_end_of_a_queue_is_looked_at() -> None:
    taken = command("take", "k0", 1, 0, 1000)
    done = command("settle", "k0", 0, 1, "1")
    told = Told()
    told.commit_all("m1")
    told.finish({0: machine(message("m1"))}, "m1")
    assert told.broken == []
    told.finish({0: machine(message("m1"))}, "m1", "m2")
    assert told.broken == ["lost"]
    told.finish({0: machine(message("m1")), 1: machine()})
    assert told.broken == ["lost", "ledgers"]
    told.finish({0: machine(message("m1"), taken, done)}, "m1")
    assert told.broken == ["lost", "ledgers", "lost"]  # settled, and nobody had it
    told.settle("k0", told.commit_all("ack"))
    told.finish({0: machine(message("m1"))}, "m1")
    assert told.broken[-1] == "redelivered"
