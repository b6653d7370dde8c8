"""What a transaction of ledgers keeps for the next one is what is stored, whoever comes between."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from logstore import Store
from logstore.queues.channel import Channel
from logstore.queues.consumer_rows import consumer_count
from logstore.queues.consuming import Getter
from logstore.queues.ledger_rows import Rows
from logstore.queues.ledger_store import Changes, Ledgers
from logstore.queues.message import Message

from .support import NAME, bodies, numbered, opened, publish, work_queue

_HANDLES = 2
STEPS = st.lists(
    st.tuples(
        st.integers(0, _HANDLES - 1),
        st.sampled_from(
            ("publish", "take", "take", "ack", "ack", "nack", "fail", "nothing", "other", "purge")
            + ("consumer", "read")
        ),
        st.integers(1, 3),
    ),
    min_size=8,
    max_size=40,
)


class Failed(Exception):  # noqa: N818 - it is no error
    """Raised in a transaction, which is not committed then."""


class Handle:
    """A store handle, and who takes from the queue in it: each has ledgers of its own."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.queue = work_queue(store)
        self.channel: Channel = store.channel()
        self.getter = Getter(self.channel, self.queue, session=store.queues.consumption.session())
        self.held: list[Message] = []

    @property
    def ledgers(self) -> Ledgers:
        return self.queue.ledgers

    def step(self, what: str, count: int) -> None:
        if what == "publish":
            publish(self.store, *numbered(count))
        elif what == "take":
            self.held += self.getter.get(count, no_ack=False)
        elif what in ("ack", "nack") and self.held:
            message = self.held.pop(0)
            if what == "nack":
                message.nack()
            else:
                message.ack(flush=count > 1)
        elif what == "fail":
            self.fail()
        elif what == "nothing":
            self.ledgers.change(self.load, keep=True)
        elif what == "other":
            self.store._live.write(lambda tables: tables.put("other", b"k", bytes([count])))
        elif what == "purge":
            self.queue.purge()
        elif what == "consumer":
            self.queue.ledgers.change(
                lambda changes: changes.rows.put(self.queue.id, count.to_bytes(4, "big") + bytes(9))
            )
        elif what == "read":
            self.queue.counts()

    def load(self, changes: Changes) -> None:
        changes.consumer_count(self.queue.id)
        for level in self.queue.levels():
            changes.of(level.ledger)

    def fail(self) -> None:
        """Commands, some of them perhaps upon what was kept, that come to nothing."""

        def fail(changes: Changes) -> None:
            self.queue.take(changes, 2, session=bytes(16))
            raise Failed

        with pytest.raises(Failed):
            self.ledgers.change(fail, keep=True)

    def check(self) -> None:
        """If the next transaction will go on with what was kept, that is what is stored."""
        kept = self.ledgers._kept
        if kept is None or kept.number != self.ledgers.number():
            return

        def look(rows: Rows, _: Rows) -> None:
            for ledger, (loaded, row) in kept._loaded.items():
                assert rows.get(ledger.key) == row == loaded.head.pack()
            for queue_id, count in kept._consumers.items():
                assert consumer_count(rows, queue_id) == count

        self.ledgers.read(look)


def kept(handle: Handle) -> Changes | None:
    return handle.ledgers._kept


@given(steps=STEPS)
@settings(
    max_examples=12,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_what_is_kept_is_what_is_stored(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[int, str, int]]
) -> None:
    path = tmp_path_factory.mktemp("kept") / "store"
    with opened(path) as one, opened(path) as two:
        one.queue(NAME)
        publish(one, *numbered(3))
        handles = [Handle(one), Handle(two)]
        for number, what, count in steps:
            handles[number].step(what, count)
            for handle in handles:
                handle.check()
        assert handles[0].queue.check() == []


def test_nothing_that_was_taken_in_vain_is_taken_for_given(tmp_path: Path) -> None:
    with opened(tmp_path / "store") as store:
        store.queue(NAME)
        publish(store, *numbered(4))
        handle = Handle(store)
        handle.step("take", 1)
        assert kept(handle) is not None
        number = handle.ledgers.number()
        handle.fail()  # its number is given once more
        assert kept(handle) is None
        assert handle.ledgers.number() == number
        handle.step("take", 2)
        assert bodies(handle.held) == numbered(3)


def test_what_a_transaction_has_only_read_is_not_kept(tmp_path: Path) -> None:
    with opened(tmp_path / "store") as store:
        store.queue(NAME)
        publish(store, *numbered(2))
        handle = Handle(store)
        handle.step("nothing", 1)  # LMDB gives the number of a transaction that wrote nothing again
        assert kept(handle) is None


_TAKER = """
import sys, logstore
with logstore.open(sys.argv[1], maintenance_interval=None) as store:
    queue = store.queue(sys.argv[2])
    for line in sys.stdin:
        message = queue.get()
        message.ack(flush=True)
        print(message.body.decode(), flush=True)
"""


def test_two_processes_take_in_turns_and_nothing_comes_twice(tmp_path: Path) -> None:
    with opened(tmp_path / "store") as store:
        store.queue(NAME)
        publish(store, *numbered(40))
        handle = Handle(store)
        command = [sys.executable, "-c", _TAKER, store.path, NAME]
        found: list[bytes] = []
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
            assert child.stdin is not None
            assert child.stdout is not None
            for number in range(20):
                handle.step("take", 1)
                found += bodies(handle.held[-1:])
                if number % 3:
                    handle.step("ack", 1 + number % 2)
                child.stdin.write(b"\n")
                child.stdin.flush()
                found.append(child.stdout.readline().strip())
            child.stdin.close()
        assert found == numbered(40)
        assert handle.queue.check() == []
