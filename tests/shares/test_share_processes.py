"""One partition, several real processes that share it, and are killed."""

from __future__ import annotations

import os
import random
import time
from collections import Counter, defaultdict
from itertools import pairwise
from pathlib import Path

import logstore

from ..queues.processes import (  # noqa: TID252 - tests are no package to import absolutely
    Program,
    programs,
)
from .support import GROUP, TOPIC, described, numbered, opened, produce, wait_until

SHARER = Path(__file__).with_name("sharer.py")
SECONDS = float(os.environ.get("LOGSTORE_SHARE_SECONDS", "3"))
"""How long processes are killed at random."""
LETTERS = "dlq"
BAD = 7
"""Numbers that it divides are rejected."""


def begin(store: logstore.Store) -> None:
    """A group that never archives: a record may be held by many who are killed."""
    store.create_topic(TOPIC)
    store.create_topic(LETTERS)
    store.share_groups.alter(
        GROUP,
        share_auto_offset_reset="earliest",
        share_delivery_count_limit=10_000,
        errors_deadletterqueue_topic_name=LETTERS,
    )
    store.share_consumer(TOPIC, group=GROUP).close()  # it has begun, however slowly others start


def test_what_a_killed_consumer_held_comes_back_at_once(tmp_path: Path) -> None:
    with opened(tmp_path / "store") as store:
        begin(store)
        with programs(SHARER) as start, store.share_consumer(TOPIC, group=GROUP) as consumer:
            sharer = start(store.path, hold=True)
            wait_until(lambda: sharer.said("ready"))
            produce(store, *numbered(4))
            mine = consumer.poll(2, timeout=30)
            wait_until(lambda: sharer.said("got"))
            begun = time.monotonic()
            sharer.kill()
            for record in mine:
                record.accept()
            found: dict[int, int] = {}
            while len(found) < 4 - len(mine):
                found |= {r.offset: r.delivery_count for r in consumer.poll(timeout=30)}
            print(f"came back after {(time.monotonic() - begun) * 1000:.0f} ms")
            assert found.keys() | {record.offset for record in mine} == {0, 1, 2, 3}
            assert 2 in found.values()
            assert len(store.share_groups.describe(GROUP).members) == 1


def test_what_nobody_is_left_to_take_back_comes_back_when_somebody_opens(tmp_path: Path) -> None:
    with opened(tmp_path / "store") as store:
        begin(store)
        produce(store, *numbered(3))
        with programs(SHARER) as start:
            sharer = start(store.path, hold=True)
            wait_until(lambda: sharer.said("got"))
            sharer.kill()
    with (
        opened(tmp_path / "store") as store,
        store.share_consumer(TOPIC, group=GROUP) as consumer,
    ):
        found = consumer.poll(timeout=30)
        assert [(record.offset, record.delivery_count) for record in found] == [
            (0, 2),
            (1, 2),
            (2, 2),
        ]


def test_every_record_is_accepted_and_none_is_held_by_two_at_a_time(tmp_path: Path) -> None:
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    rng = random.Random(seed)
    with opened(tmp_path / "store") as store:
        begin(store)
        with programs(SHARER) as start:

            def consumer() -> Program:
                most = rng.choice((1, 5, 50))
                return start(store.path, max_poll_records=most, reject_every=BAD)

            running = [consumer() for _ in "123"]
            everybody = list(running)
            count = 0
            deadline = time.monotonic() + SECONDS
            while time.monotonic() < deadline or len(everybody) < 5:  # two kills at least
                for _ in range(rng.randrange(10)):
                    new = rng.randrange(1, 20)
                    produce(store, *numbered(new, count))
                    count += new
                time.sleep(rng.random() * 0.3)
                victim = rng.randrange(3)
                if running[victim].said("got"):
                    running[victim].kill()
                    running[victim] = consumer()
                    everybody.append(running[victim])
            produce(store, b"last")
            wait_until(lambda: described(store).lag + described(store).archiving == 0)
            letters = Counter(
                int(record.value or b"")
                for record in store.topic(LETTERS).partition(0).read(0, max_bytes=1 << 24).records()
            )
            for sharer in running:
                sharer.leave()

    accepted = Counter(words[0] for sharer in everybody for words in sharer.said("accepted"))
    got: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
    for sharer in everybody:
        for words in sharer.said("got"):
            got[words[0]].append((int(words[1]), int(words[2])))
    print(f"{count} records, {len(accepted)} accepted, {len(everybody)} processes")
    # One that was killed behind its acknowledgement, and before it could say so, has got it.
    expected = {str(number) for number in range(count)} | {"last"}
    assert got.keys() == expected
    assert max(accepted.values()) == 1
    # One that was killed behind the letter, and before the ledger had forgotten it, wrote it twice.
    assert set(letters) == set(range(0, count, BAD))
    assert not {str(number) for number in letters} & accepted.keys()
    assert len(accepted) > count // 2
    for value, times in got.items():
        for (_, until), (begun, _) in pairwise(sorted(times)):
            assert until <= begun, f"{value} was held by two"
