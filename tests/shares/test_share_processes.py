"""One partition, several real processes that share it, and are killed."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path

import logstore

from .support import GROUP, TOPIC, described, numbered, opened, produce, wait_until

SHARER = Path(__file__).with_name("sharer.py")
SECONDS = float(os.environ.get("LOGSTORE_SHARE_SECONDS", "3"))
"""How long processes are killed at random."""


class Sharer:
    """A process, and the lines that it has said so far."""

    def __init__(self, store: str, **options: object) -> None:
        self.process = subprocess.Popen(
            [sys.executable, os.fspath(SHARER), store, json.dumps(options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONSAFEPATH": "1"},
        )
        self.lines: list[str] = []
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.endswith(b"\n"):
                self.lines.append(line.decode().strip())

    def said(self, word: str) -> list[list[str]]:
        """What stands behind a word, line by line."""
        found = (line.split() for line in list(self.lines))
        return [words[1:] for words in found if words and words[0] == word]

    def leave(self) -> None:
        """Let it end by itself."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        assert self.process.wait(60) == 0
        self._thread.join(60)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(60)
        self._thread.join(60)
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            with suppress(BrokenPipeError):
                stream.close()


@contextmanager
def sharers(store: logstore.Store) -> Iterator[Callable[..., Sharer]]:
    started: list[Sharer] = []

    def start(**options: object) -> Sharer:
        started.append(Sharer(store.path, **options))
        return started[-1]

    try:
        yield start
    finally:
        for sharer in started:
            sharer.kill()


def begin(store: logstore.Store) -> None:
    """A group that never archives: a record may be held by many who are killed."""
    store.create_topic(TOPIC)
    store.share_groups.alter(
        GROUP, share_auto_offset_reset="earliest", share_delivery_count_limit=10_000
    )
    store.share_consumer(TOPIC, group=GROUP).close()  # it has begun, however slowly others start


def test_what_a_killed_consumer_held_comes_back_at_once(tmp_path: Path) -> None:
    with opened(tmp_path / "store") as store:
        begin(store)
        with sharers(store) as start, store.share_consumer(TOPIC, group=GROUP) as consumer:
            sharer = start(hold=True)
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
        with sharers(store) as start:
            sharer = start(hold=True)
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
        with sharers(store) as start:

            def consumer() -> Sharer:
                return start(max_poll_records=rng.choice((1, 5, 50)))

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
            wait_until(lambda: described(store).lag == 0)
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
    assert len(accepted) > count // 2
    for value, times in got.items():
        for (_, until), (begun, _) in pairwise(sorted(times)):
            assert until <= begun, f"{value} was held by two"
