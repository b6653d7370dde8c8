"""Producers in processes that are killed, and that take each other's names."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from ..log.support import (  # noqa: TID252 - tests are no package to import absolutely
    ROOT,
    child_environment,
    damage,
)
from .child import PARTITIONS
from .support import open_store, values

CHILD = Path(__file__).with_name("child.py")
KILLS = int(os.environ.get("LOGSTORE_KILLS", "6"))


def start(*arguments: object) -> subprocess.Popen[bytes]:
    command = [sys.executable, os.fspath(CHILD), *map(str, arguments)]
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=child_environment(),
        cwd=ROOT,
    )


@pytest.mark.parametrize("seed", [1, 2])
def test_a_producer_that_is_killed_again_and_again_loses_and_doubles_nothing(
    tmp_path: Path, seed: int
) -> None:
    print(f"seed {seed}")
    rng = random.Random(seed)
    path = tmp_path / "store"
    count = 200 * KILLS
    with open_store(path) as store:
        store.create_topic("numbers", partitions=PARTITIONS, segment_bytes=20_000)
    acknowledged: list[set[int]] = [set() for _ in range(PARTITIONS)]
    killed = 0
    while True:
        child = start("copy", path, count, rng.randrange(1 << 30))
        watchdog = threading.Timer(60, child.kill)
        watchdog.start()
        try:
            assert child.stdout is not None
            # Killed while it goes on, after as many lines as chance says.
            left = rng.randint(1, 300) if killed < KILLS else count
            finished = False
            for line in child.stdout:
                if line == b"done\n":
                    finished = True
                    break
                partition, offset = map(int, line.split())
                acknowledged[partition].add(offset)
                left -= 1
                if not left:
                    break
            if not finished:
                child.send_signal(signal.SIGKILL)
            # What it said before it died.
            for line in child.stdout.read().splitlines():
                if line == b"done":
                    finished = True
                else:
                    partition, offset = map(int, line.split())
                    acknowledged[partition].add(offset)
        finally:
            child.kill()
            child.wait(60)
            watchdog.cancel()
            for pipe in (child.stdin, child.stdout):
                if pipe is not None:
                    pipe.close()
        killed += not finished
        if finished:
            break
        assert killed <= KILLS + 1, "the last one was to come through"
    with open_store(path) as store:
        for partition in range(PARTITIONS):
            found = values(store, "numbers", partition)
            assert found == [str(n) for n in range(count) if n % PARTITIONS == partition]
            assert acknowledged[partition] <= set(range(len(found)))
            log = store.topic("numbers").partition(partition)
            assert len(log.segments) > 1
            assert damage(log.directory) == []
    assert killed >= min(KILLS, 3)


def test_a_younger_process_fences_the_older_one_of_its_name(tmp_path: Path) -> None:
    path = tmp_path / "store"
    with open_store(path) as store:
        store.create_topic("numbers", partitions=PARTITIONS)
        older = start("be_fenced", path)
        try:
            assert older.stdout is not None
            assert older.stdout.readline() == b"ready\n"
            with store.producer(producer_name="copier") as younger:
                assert younger.next_sequence("numbers", 0) == 1
                answer, _ = older.communicate(b"go on\n", timeout=60)
                assert younger.next_sequence("numbers", 0) == 1
                younger.send("numbers", b"younger", partition=0)
        finally:
            older.kill()
            older.wait(60)
        assert older.returncode == 0
        expected = b"fenced: producer 'copier' is fenced: another instance of it was started"
        assert answer.count(expected) == 2
        assert values(store, "numbers") == ["older", "younger"]
