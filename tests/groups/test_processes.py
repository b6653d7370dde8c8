"""One group, several real processes: they join, leave, are killed, are stopped and come back."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import logstore
from logstore.partitions import OffsetAndMetadata, TopicPartition
from logstore.segments.files import DiskFiles

GROUP = "g"
MEMBER = Path(__file__).with_name("member.py")
PARTITIONS = [TopicPartition("orders", number) for number in range(6)]
STEPS = int(os.environ.get("LOGSTORE_GROUP_STEPS", "15"))
LONG_MS = 120_000
"""A session time-out that no test lives to see."""


def free(path: str) -> bool:
    """Whether a lock can be had before long."""
    lock = DiskFiles().lock(path)
    try:
        for _ in range(50):
            try:
                lock.acquire()
                return True
            except BlockingIOError:
                time.sleep(0.001)
        return False
    finally:
        lock.close()


class Member:
    """A member in a process of its own, and the lines that it has said so far."""

    def __init__(self, store: Path, **options: object) -> None:
        environment = {**os.environ, "PYTHONSAFEPATH": "1"}
        self.process = subprocess.Popen(
            [sys.executable, os.fspath(MEMBER), os.fspath(store), json.dumps(options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
        )
        self.lines: list[str] = []
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.endswith(b"\n"):
                self.lines.append(line.decode().rstrip("\n"))

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def owned(self) -> set[int]:
        """What it said that it owns."""
        owned: set[int] = set()
        for line in list(self.lines):
            word, _, rest = line.partition(" ")
            if word in ("assigned", "revoked", "lost"):
                numbers = {int(number) for number in rest.split(",")}
                owned = owned | numbers if word == "assigned" else owned - numbers
        return owned

    def commits(self) -> list[tuple[int, int]]:
        return [
            (int(partition), int(offset))
            for partition, _, offset in (line.partition(" ") for line in list(self.lines))
            if partition.isdigit()
        ]

    def stop(self, path: str) -> None:
        """Stop the process, but not in the middle of a commit: that would hold up everybody."""
        locks = [os.path.join(path, "live", "lock"), os.path.join(path, "meta", "change.lock")]
        for _ in range(1000):
            self.signal(signal.SIGSTOP)
            os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | os.WNOWAIT)
            if all(map(free, locks)):
                return
            self.signal(signal.SIGCONT)
            time.sleep(0.003)
        raise AssertionError("it is always in the middle of a commit")

    def leave(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        assert self.process.wait(60) == 0
        self._thread.join()
        assert self.lines[-1] == "left"

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(60)
        self._thread.join()

    def end(self) -> None:
        if self.process.poll() is None:
            self.kill()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()


class Cast:
    """All members that a test has ever started."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.members: list[Member] = []

    def start(self, **options: object) -> Member:
        member = Member(self.path, **{"session_timeout_ms": LONG_MS, **options})
        self.members.append(member)
        return member

    def commits(self) -> Counter[tuple[int, int]]:
        return Counter(commit for member in self.members for commit in member.commits())


@contextmanager
def acting(path: Path) -> Iterator[Cast]:
    cast = Cast(path)
    try:
        yield cast
    finally:
        for member in cast.members:
            member.end()


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it does not come to pass"
        time.sleep(0.005)


def all_owned_by(*members: Member) -> bool:
    owned = [number for member in members for number in member.owned()]
    return sorted(owned) == list(range(len(PARTITIONS))) and all(m.owned() for m in members)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[logstore.Store]:
    with logstore.open(tmp_path / "store") as store:
        topic = store.create_topic("orders", partitions=len(PARTITIONS))
        for partition in PARTITIONS:
            topic.partition(partition.partition).append([logstore.Record(value=b"x")])
        yield store


@pytest.mark.parametrize("assignor", ["range", "cooperative-sticky"])
def test_partitions_of_a_killed_member_move_without_a_time_out(
    store: logstore.Store, assignor: str
) -> None:
    with acting(Path(store.path)) as cast:
        one, two = (cast.start(assignor=assignor) for _ in "12")
        wait_until(lambda: all_owned_by(one, two))
        one.kill()
        begun = time.monotonic()
        wait_until(lambda: all_owned_by(two))
        print(f"moved in {(time.monotonic() - begun) * 1000:.0f} ms")
        assert len(store.groups.describe(GROUP).members) == 1
        assert max(cast.commits().values()) == 1


def test_a_stopped_member_loses_its_partitions_and_cannot_commit_when_it_comes_back(
    store: logstore.Store,
) -> None:
    options = {"session_timeout_ms": 1500, "heartbeat_interval_ms": 100}
    with acting(Path(store.path)) as cast:
        one, two = (cast.start(**options) for _ in "12")
        wait_until(lambda: all_owned_by(one, two))
        had = one.owned()
        one.stop(store.path)
        wait_until(lambda: two.owned() == set(range(6)))
        before = store.groups.committed(GROUP, PARTITIONS)
        one.signal(signal.SIGCONT)
        wait_until(lambda: "refused" in one.lines)
        wait_until(lambda: any(line.startswith("lost") for line in one.lines))
        lost = next(line for line in one.lines if line.startswith("lost"))
        assert {int(number) for number in lost[5:].split(",")} == had
        wait_until(lambda: all_owned_by(one, two))
        after = store.groups.committed(GROUP, PARTITIONS)
        for partition in PARTITIONS:
            assert (after[partition] or OffsetAndMetadata(0)).offset >= (
                before[partition] or OffsetAndMetadata(0)
            ).offset
        assert max(cast.commits().values()) == 1


def test_a_static_member_that_was_killed_comes_back_to_its_partitions(
    store: logstore.Store,
) -> None:
    with acting(Path(store.path)) as cast:
        one = cast.start(group_instance_id="one")
        two = cast.start(group_instance_id="two")
        wait_until(lambda: all_owned_by(one, two))
        had, generation = one.owned(), store.groups.describe(GROUP).generation
        told = sum(line.startswith(("revoked", "lost")) for line in two.lines)
        one.kill()
        again = cast.start(group_instance_id="one")
        wait_until(lambda: again.owned() == had)
        assert store.groups.describe(GROUP).generation == generation
        assert told == sum(line.startswith(("revoked", "lost")) for line in two.lines)
        assert max(cast.commits().values()) == 1


@pytest.mark.parametrize("assignor", ["range", "cooperative-sticky"])
def test_no_offset_is_committed_twice_whatever_happens_to_the_members(
    store: logstore.Store, assignor: str
) -> None:
    # Whoever gets a partition goes on from what was committed, one by one. So an offset that was
    # committed twice would tell of two owners, or of a commit that went back.
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    rng = random.Random(seed)
    options = {"assignor": assignor, "session_timeout_ms": 1000, "heartbeat_interval_ms": 100}
    committed = dict.fromkeys(PARTITIONS, 0)
    with acting(Path(store.path)) as cast:
        running = [cast.start(**options) for _ in range(2)]
        stopped: list[Member] = []
        wait_until(lambda: all_owned_by(*running))
        for _ in range(STEPS):
            action = rng.choice(("join", "kill", "leave", "stop", "go on", "nothing"))
            if action == "join" and len(running) + len(stopped) < 4:
                running.append(cast.start(**options))
            elif action == "kill" and len(running) > 1:
                running.pop(rng.randrange(len(running))).kill()
            elif action == "leave" and len(running) > 1:
                running.pop(rng.randrange(len(running))).leave()
            elif action == "stop" and len(running) > 1:
                stopped.append(running.pop(rng.randrange(len(running))))
                stopped[-1].stop(store.path)
            elif action == "go on" and stopped:
                running.append(stopped.pop(rng.randrange(len(stopped))))
                running[-1].signal(signal.SIGCONT)
            time.sleep(rng.random() * 0.3)
            for partition, found in store.groups.committed(GROUP, PARTITIONS).items():
                offset = 0 if found is None else found.offset
                assert offset >= committed[partition]
                committed[partition] = offset
        for member in stopped:
            member.signal(signal.SIGCONT)
        running += stopped
        wait_until(lambda: all_owned_by(*running))
        for member in running:
            member.leave()
        commits = cast.commits()
        assert [commit for commit, count in commits.items() if count > 1] == []
        # A member that was killed between a commit and telling of it leaves a gap of one.
        for partition, found in store.groups.committed(GROUP, PARTITIONS).items():
            assert found is not None
            told = sum(number == partition.partition for number, _ in commits)
            assert found.offset - len(cast.members) <= told <= found.offset
