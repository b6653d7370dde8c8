"""A mirrored queue's state machine: the same records give the same ledger."""

from __future__ import annotations

import random

from logstore.replication.queue_machine import (
    Delivery,
    QueueMachine,
    Settlement,
    command,
    offsets_of,
)
from logstore.segments.record import Record


def message(name: str) -> Record:
    return Record(key=None, value=name.encode() + b" and the rest", timestamp=-1)


def take(machine: QueueMachine, consumer: str, most: int = 10) -> Delivery:
    effect = machine.apply(command("take", consumer, most, 0, 1000))
    assert isinstance(effect, Delivery)
    return effect


def test_messages_are_leased_settled_and_given_back() -> None:
    machine = QueueMachine()
    for name in ("m1", "m2", "m3"):
        machine.apply(message(name))
    delivery = take(machine, "c1", 2)
    assert delivery.messages == ((0, "m1", 0), (1, "m2", 1))
    lease = delivery.lease
    settled = machine.apply(command("settle", "c1", lease.first, lease.number, "1"))
    assert settled == Settlement("c1", lease.first, lease.number, 1, accepted=True, log_offset=4)
    machine.apply(command("return", "c1", lease.first, lease.number, "2"))
    assert take(machine, "c2").messages == ((1, "m2", 1),)
    assert take(machine, "c2").messages == ((2, "m3", 2),)
    assert machine.outstanding() == {1, 2}
    assert (machine.held("c1"), machine.held("c2")) == (0, 2)
    assert machine.apply(command("take", "c2", 1, 0, 1000)) is None


def test_leases_end_with_the_leaders_epoch_and_an_old_one_settles_nothing() -> None:
    machine = QueueMachine()
    machine.apply(message("m1"))
    old = take(machine, "c1").lease
    machine.apply(command("lead", 4))
    settled = machine.apply(command("settle", "c1", old.first, old.number, "1"))
    assert isinstance(settled, Settlement)
    assert not settled.accepted
    new = take(machine, "c2")
    assert new.messages == ((0, "m1", 0),)
    assert new.lease.delivery_count == 1
    assert offsets_of(new.lease, 1) == [0]


def test_leases_end_when_their_time_is_up_and_when_the_consumer_goes() -> None:
    machine = QueueMachine()
    machine.apply(message("m1"))
    take(machine, "c1")
    machine.apply(command("expire", 999))
    assert machine.ready == 0
    machine.apply(command("expire", 1000))
    assert machine.ready == 1
    take(machine, "c2")
    machine.apply(command("detach", "c2"))
    assert machine.ready == 1


def test_the_same_records_give_the_same_state_and_others_another_one() -> None:
    rng = random.Random("a queue's life")
    machines = [QueueMachine(), QueueMachine()]
    held: list[Delivery] = []
    for number in range(400):
        kind = rng.choice(["message", "message", "take", "settle", "return", "lead"])
        record = message(f"m{number}")
        if kind == "take":
            record = command("take", rng.choice(["c1", "c2"]), rng.randint(1, 5), 0, 1000)
        elif kind in ("settle", "return") and held:
            delivery = rng.choice(held)
            bits = f"{rng.randrange(1, 1 << len(delivery.messages)):x}"
            record = command(kind, delivery.consumer, *delivery.lease[:2], bits)
        elif kind == "lead":
            record = command("lead", number)
        effects = [machine.apply(record) for machine in machines]
        assert effects[0] == effects[1]
        if isinstance(effects[0], Delivery):
            held.append(effects[0])
        assert machines[0].digest() == machines[1].digest()
    assert held
    machines[0].apply(message("one more"))
    assert machines[0].digest() != machines[1].digest()
