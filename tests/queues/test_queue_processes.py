"""One queue, several real processes: publishers and consumers that are killed and stopped."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

import logstore
from logstore.segments.files import DiskFiles

from .broker_support import start_script
from .processes import Program, programs
from .support import NAME, bodies, drain, numbered, opened, publish, wait_until, work_queue

WORKER = Path(__file__).with_name("worker.py")
SECONDS = float(os.environ.get("LOGSTORE_QUEUE_SECONDS", "5"))
"""How long processes are killed at random."""


@pytest.fixture
def store(tmp_path: Path) -> Iterator[logstore.Store]:
    with opened(tmp_path / "store") as store:
        store.queue(NAME)
        yield store


def test_what_a_killed_consumer_held_comes_back_at_once(store: logstore.Store) -> None:
    queue = store.queue(NAME)
    times = []
    with programs(WORKER) as start, queue.consume(prefetch=1) as consumer:
        consumer.get()  # this handle has its housekeeper; nothing is ready
        for number in range(3):
            worker = start("consume", store.path, hold=True, prefetch=3)
            wait_until(lambda: worker.said("ready"))  # noqa: B023
            publish(store, *numbered(3, 3 * number))
            # Whoever of the two comes first: the message that the worker holds is what counts.
            held = [consumer.get(timeout=0.05)]
            wait_until(lambda: worker.said("got"))  # noqa: B023
            for message in held:
                if message is not None:
                    message.ack(flush=True)
            body = worker.said("got")[-1][0].encode()
            begun = time.monotonic()
            worker.kill()
            found = set()
            while body not in found:
                again = consumer.get(timeout=20)
                assert again is not None
                found.add(again.body)
                if again.body == body:
                    times.append(time.monotonic() - begun)
                    assert again.redelivered
                again.ack(flush=True)
            while (rest := consumer.get(timeout=0.1)) is not None:
                rest.ack(flush=True)
        assert queue.counts()[:2] == (0, 0)
    print(f"came back after {min(times) * 1000:.0f} to {max(times) * 1000:.0f} ms")


def test_a_stopped_consumer_keeps_its_messages_until_its_time_is_up(tmp_path: Path) -> None:
    with opened(tmp_path / "store") as store, programs(WORKER) as start:
        queue = store.queue(NAME, consumer_timeout=1500)
        publish(store, b"0")
        worker = start("consume", store.path, hold=True)
        wait_until(lambda: worker.said("got"))
        while True:  # it must not be stopped with a lock of the store's in hand
            worker.signal(signal.SIGSTOP)
            lock = DiskFiles().lock(os.path.join(store.path, "live", "lock"))
            try:
                lock.acquire()
                break
            except BlockingIOError:
                worker.signal(signal.SIGCONT)
                time.sleep(0.002)
            finally:
                lock.close()
        with queue.consume() as consumer:
            begun = time.monotonic()
            message = consumer.get(timeout=30)
            assert message is not None
            assert (message.body, message.delivery_count) == (b"0", 1)
            assert time.monotonic() - begun > 0.5
            message.ack(flush=True)
        worker.signal(signal.SIGCONT)
        assert queue.counts()[:2] == (0, 0)


def test_an_auto_delete_queue_of_a_killed_consumer_goes(tmp_path: Path) -> None:
    with opened(tmp_path / "store") as store, programs(WORKER) as start:
        store.queue(NAME, auto_delete=True)
        other = store.queue("other")
        worker = start("consume", store.path)
        wait_until(lambda: store.queue(NAME, passive=True).counts().consumers)
        with other.consume() as consumer:
            consumer.get()
            worker.kill()
            wait_until(lambda: NAME not in [one.name for one in store.queues.queues()])


EXCLUSIVE = """
import sys, logstore
store = logstore.open(sys.argv[1], maintenance_interval=None)
consumer = store.queue("mine", exclusive=True).consume()
print("ready", flush=True)
sys.stdin.read()
"""


def test_an_exclusive_queue_of_a_killed_process_goes(store: logstore.Store) -> None:
    process = start_script(EXCLUSIVE, store.path)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        directories = Path(store.path) / "queues"
        before = set(directories.iterdir())
        with store.queue(NAME).consume() as consumer:
            consumer.get()
            process.kill()
            wait_until(lambda: len(set(directories.iterdir()) & before) < len(before))
    finally:
        process.kill()
        process.communicate(timeout=20)


def test_messages_that_nobody_is_left_to_take_back_come_back_when_somebody_opens(
    tmp_path: Path,
) -> None:
    with opened(tmp_path / "store") as store:
        store.queue(NAME)
        publish(store, *numbered(3))
    with programs(WORKER) as start:
        worker = start("consume", tmp_path / "store", hold=True)
        wait_until(lambda: worker.said("got"))
        worker.kill()
        with opened(tmp_path / "store") as store:
            queue = store.queue(NAME)
            with queue.consume() as consumer:
                found = []
                for _ in range(3):
                    message = consumer.get(timeout=20)
                    assert message is not None
                    found.append(message.body)
                    message.ack()
            assert found == numbered(3)


def test_order_holds_for_one_consumer_whatever_is_killed(store: logstore.Store) -> None:
    with programs(WORKER) as start:
        publisher = start("publish", store.path, name="p")
        orders = []
        for _ in range(3):
            consumer = start("consume", store.path, prefetch=5)
            wait_until(lambda: len(consumer.said("acked")) > 20)  # noqa: B023
            consumer.kill()
            orders.append([int(words[0].split("-")[1]) for words in consumer.said("got")])
        publisher.leave()
    for order in orders:
        assert order == sorted(order)
    for earlier, later in pairwise(orders):
        assert later[0] <= earlier[-1] + 1


def test_nothing_confirmed_is_lost_and_nothing_is_delivered_to_two_at_a_time(
    store: logstore.Store,
) -> None:
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    rng = random.Random(seed)
    names = iter(range(10_000))
    with programs(WORKER) as start:

        def publisher() -> Program:
            return start("publish", store.path, name=f"p{next(names)}", pause=0.004)

        def consumer() -> Program:
            return start("consume", store.path, prefetch=rng.choice((1, 5, 50)))

        everybody: list[Program] = []
        running = {
            publisher: [publisher() for _ in range(4)],
            consumer: [consumer() for _ in "1234"],
        }
        for group in running.values():
            everybody += group
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            time.sleep(rng.random() * 0.4)
            kind = rng.choice((publisher, consumer, consumer))
            victim = rng.randrange(4)
            running[kind][victim].kill()
            running[kind][victim] = kind()
            everybody.append(running[kind][victim])
        for worker in running[publisher]:
            worker.leave()
        queue = store.queue(NAME)
        wait_until(lambda: queue.counts()[:2] == (0, 0), 60)
        for worker in running[consumer]:
            worker.leave()

    confirmed = [words[0] for worker in everybody for words in worker.said("confirmed")]
    acked = Counter(words[0] for worker in everybody for words in worker.said("acked"))
    got: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
    for worker in everybody:
        for words in worker.said("got"):
            got[words[0]].append((int(words[1]), int(words[2])))
    print(f"{len(confirmed)} confirmed, {len(acked)} acknowledged, {len(everybody)} processes")
    assert len(confirmed) > 50
    # One that was killed behind its acknowledgement, and before it could say so, has got it.
    assert not [body for body in confirmed if body not in acked and body not in got]
    for body, times in got.items():
        for (_, ended), (begun, _) in pairwise(sorted(times)):
            assert begun >= ended, f"{body} was with two consumers at a time"
    assert max(acked.values()) == 1, "acknowledged twice, and in the ledger both times"
    assert queue.counts() == (0, 0, 0, 0, 0)
    assert work_queue(store).check() == []


def killed(_: object) -> None:
    raise logstore.ClosedError("killed")


def test_dead_letters_of_a_killed_process_are_moved_by_another(tmp_path: Path) -> None:
    with opened(tmp_path / "store") as store:
        failed = store.queue("failed")
        queue = store.queue(NAME, dead_letter_exchange="", dead_letter_routing_key="failed")
        publish(store, *numbered(3))
        work = work_queue(store)
        work.on_work = lambda: None
        work.dead_letter = killed
        for message in queue.get_many(3):
            message.reject()
        assert queue.counts().dead == 3
        with opened(tmp_path / "store") as other, other.queue(NAME).consume() as consumer:
            consumer.get()
            wait_until(lambda: failed.counts().ready == 3)
        assert bodies(failed.peek(5)) == numbered(3)
        assert drain(failed) == numbered(3)


def test_a_round_of_maintenance_looks_after_queues_that_nobody_consumes(tmp_path: Path) -> None:
    with opened(tmp_path / "store") as store:
        store.queue("failed")
        store.queue(NAME, dead_letter_exchange="", dead_letter_routing_key="failed", message_ttl=1)
        other = store.queue("other")
        publish(store, *numbered(2))
        publish(store, b"a", queue="other")
    with programs(WORKER) as start:
        worker = start("consume", tmp_path / "store", hold=True, queue="other")
        wait_until(lambda: worker.said("got"))
        worker.kill()
    with opened(tmp_path / "store") as store:
        store.maintain()
        other = store.queue("other")
        assert other.counts()[:3] == (1, 0, 0)
        assert store.queue(NAME).counts().ready == 0
        assert drain(store.queue("failed")) == numbered(2)
