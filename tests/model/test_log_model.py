"""A log under random operations of every kind, against what its programs were promised."""

from __future__ import annotations

import copy
import itertools
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from logstore import Codec, LogConfig, OffsetOutOfRangeError, PartitionLog, Record
from logstore.segments.batch import encode_batch
from logstore.segments.check import check
from logstore.segments.files import DiskFiles
from logstore.segments.memory_files import CrashMode

from ..crash.crashes import (  # noqa: TID252 - tests are no package to import absolutely
    SOAK,
    CrashFiles,
    Promises,
    World,
    content,
    damage,
    faults,
)

MODES = list(CrashMode)
KEYS = [b"key %d" % number for number in range(5)]

fractions = st.integers(0, 100)
seeds = st.integers(0, 1 << 16)
handles = st.integers(0, 1)


class Reader:
    """A consumer that reads on and on, across everything that happens to the log."""

    def __init__(self, position: int) -> None:
        self.first = position
        self.position = position
        self.seen: dict[int, Any] = {}

    def cut(self, to: int) -> None:
        """The log was cut: what is behind does not exist any more."""
        self.position = min(self.position, to)
        self.seen = {offset: got for offset, got in self.seen.items() if offset < to}


class LogMachine(RuleBasedStateMachine):
    """Two handles of one log, as two processes have them, and a few readers."""

    @initialize(
        compacts=st.booleans(),
        segment_bytes=st.sampled_from([300, 900, 3000]),
        buffer=st.sampled_from([1024, 1 << 20]),
        delete_retention_ms=st.sampled_from([0, 5000]),
    )
    def begin(
        self, compacts: bool, segment_bytes: int, buffer: int, delete_retention_ms: int
    ) -> None:
        self.config = LogConfig(
            segment_bytes=segment_bytes,
            index_interval_bytes=100,
            cleanup_policy="compact,delete" if compacts else "delete",
            cleaner_dedupe_buffer_bytes=buffer,
            delete_retention_ms=delete_retention_ms,
            retention_bytes=4000,
            retention_ms=60_000,
            file_delete_delay_ms=0,
        )
        self.epoch = 0
        self.readers: list[Reader] = []
        self.use(CrashFiles(), Promises(), 1_000_000)

    def use(self, files: CrashFiles, promises: Promises, now_ms: int) -> None:
        """Go on with these files."""
        self.world = World(self.config, files=files, crashes=())
        self.world.recording = False
        self.world.promises = promises
        self.world.clock.ms = now_ms
        self.world._next = getattr(self, "written", 0)
        self.logs = [self.world.open(), self.world.open()]

    def at(self, fraction: int) -> int:
        """An offset between the log's start and its end."""
        start, end = self.world.promises.start, self.world.promises.end
        return start + (end - start) * fraction // 100

    # operations

    def do(self, operation: str, number: int, seed: int) -> None:
        """One operation, by its name."""
        world, promises = self.world, self.world.promises
        rng = random.Random(seed)
        keys = rng.sample(KEYS, rng.randint(1, 5)) if self.config.compacts else None
        if operation == "append":
            world.append(
                1 + number % 4,
                acks=rng.choice((0, 1, 1, "all")),
                size=rng.choice((10, 80, 600)),
                keys=keys,
                deleted=bool(keys) and rng.random() < 0.3,
            )
        elif operation == "replicate":
            base = promises.end + rng.choice((0, 0, 1, 7))
            found = {
                base + index: (keys[0] if keys else None, b"replica %d" % (base + index))
                for index in range(1 + number % 3)
            }
            batch = [Record(timestamp=world.clock.ms, key=k, value=v) for k, v in found.values()]
            self.epoch = max(self.epoch + rng.choice((0, 0, 1)), 1)
            raw = encode_batch(
                batch, base_offset=base, leader_epoch=self.latest_epoch(), codec=Codec.NONE
            )
            world.append_raw(raw, dict(found), acks=rng.choice((1, "all")))
        elif operation == "roll":
            world.roll()
        elif operation == "flush":
            world.flush()
        elif operation == "retain":
            world.retain()
        elif operation == "delete":
            world.delete_records(max(self.at(number), promises.highest_start))
        elif operation == "truncate":
            to = self.at(number)
            world.truncate(to)
            for reader in self.readers:
                reader.cut(to)
        elif operation == "compact" and self.config.compacts:
            world.compact()
        elif operation == "purge":
            world.purge()

    def latest_epoch(self) -> int:
        """The epoch to replicate with: now and then a new one."""
        state = self.world.log._look().state
        return state.leader_epoch + (self.epoch % 2)

    operations = st.sampled_from(
        [
            *["append"] * 6,
            "replicate",
            "roll",
            "flush",
            "retain",
            "delete",
            "truncate",
            *["compact"] * 3,
            "purge",
        ]
    )

    @rule(operation=operations, number=fractions, seed=seeds, handle=handles)
    def operate(self, operation: str, number: int, seed: int, handle: int) -> None:
        self.world.log = self.logs[handle]
        self.do(operation, number, seed)

    @rule(ms=st.integers(0, 20_000))
    def time_passes(self, ms: int) -> None:
        self.world.clock.ms += ms

    @rule(handle=handles)
    def close_and_open(self, handle: int) -> None:
        self.world.log = self.logs[handle]
        self.world.log.close()
        self.logs[handle] = self.world.open()

    # crashes

    @rule(mode=st.sampled_from(MODES), seed=seeds)
    def crash(self, mode: CrashMode, seed: int) -> None:
        """Everybody is killed, or the power fails, while nothing is going on."""
        self.go_on_after(mode, self.world.files.after(mode, seed), self.world.promises)

    @rule(
        operation=operations,
        number=fractions,
        seed=seeds,
        handle=handles,
        mode=st.sampled_from(MODES),
        when=st.integers(0, 200),
    )
    def crash_inside(
        self, operation: str, number: int, seed: int, handle: int, mode: CrashMode, when: int
    ) -> None:
        """The same in the middle of an operation."""
        world = self.world
        world.log = self.logs[handle]
        readers = copy.deepcopy(self.readers)
        world.crashes = ((mode, seed),)
        world.recording = True
        self.do(operation, number, seed)
        world.recording = False
        if not world.pictures:
            return
        picture = world.pictures[when % len(world.pictures)]
        self.readers = readers
        self.go_on_after(mode, picture.files, picture.promises)

    def go_on_after(self, mode: CrashMode, files: CrashFiles, promises: Promises) -> None:
        """Open what a crash left: nothing may be broken, and what there is counts from now on."""
        self.written = self.world._next
        synced = promises.synced
        self.use(files, promises, self.world.clock.ms)
        log = self.world.log
        broken = [*faults(promises, mode, log), *damage(files)]
        assert not broken, broken
        end, start = log.log_end_offset, log.log_start_offset
        upto, kept = promises.compacted
        self.world.promises = Promises(
            written=dict(content(log)),
            end=end,
            synced=min(synced, end) if mode is CrashMode.KILL else end,
            highest_end=end,
            start=start,
            highest_start=start,
            compacting=promises.compacting,
            expired_tombstones=promises.expired_tombstones,
            compacted=(min(upto, end), kept),
        )
        for reader in self.readers:
            # Whoever had read what a power cut took, has read something that never was.
            same = dict(content(log))
            lost = [o for o, got in reader.seen.items() if start <= o and same.get(o, got) != got]
            reader.cut(min([end, *lost]))

    # readers

    @precondition(lambda self: len(self.readers) < 3)
    @rule(fraction=fractions)
    def begin_reading(self, fraction: int) -> None:
        self.readers.append(Reader(self.at(fraction)))

    @precondition(lambda self: self.readers)
    @rule(which=st.integers(0, 2), handle=handles, max_bytes=st.sampled_from([1, 300, 1 << 20]))
    def read(self, which: int, handle: int, max_bytes: int) -> None:
        """A fetch; at the end of the log every record that is there was seen exactly once."""
        reader = self.readers[which % len(self.readers)]
        log = self.logs[handle]
        try:
            fetch = log.read(reader.position, max_bytes=max_bytes)
        except OffsetOutOfRangeError:
            reader.position = reader.first = log.log_start_offset
            reader.seen = {}
            return
        written = self.world.promises.written
        for record in fetch.records():
            got = (record.key, record.value)
            assert record.offset not in reader.seen, f"{record.offset} comes twice"
            assert written.get(record.offset) == got, record
            reader.seen[record.offset] = got
        assert fetch.data or fetch.next_offset == reader.position
        reader.position = fetch.next_offset
        if not fetch.data:
            here = {offset for offset, _ in content(log) if offset >= reader.first}
            assert here <= set(reader.seen), f"never seen: {sorted(here - set(reader.seen))}"

    # what is always so

    @invariant()
    def every_promise_is_kept(self) -> None:
        if not hasattr(self, "world"):
            return
        for log in self.logs:
            broken = list(faults(self.world.promises, CrashMode.KILL, log))
            assert not broken, broken

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        assert damage(self.world.files) == []
        before = content(self.logs[0])
        for log in self.logs:
            log.close()
        self.logs = [self.world.open()]
        assert content(self.logs[0]) == before


def test_a_log_keeps_its_promises_whatever_happens_to_it() -> None:
    run_state_machine_as_test(
        LogMachine,
        settings=settings(
            max_examples=40 * SOAK,
            stateful_step_count=40,
            deadline=None,
            derandomize=SOAK == 1,
            suppress_health_check=list(HealthCheck),
        ),
    )


# several processes --------------------------------------------------------------------------

CHILD = """
import random, sys
from logstore import LogConfig, LockTimeoutError, PartitionLog, Record

directory, name, seed = sys.argv[1:]
rng = random.Random(int(seed))
config = LogConfig(
    segment_bytes=6000, index_interval_bytes=300, cleanup_policy="compact",
    min_cleanable_dirty_ratio=0.1, file_delete_delay_ms=0,
)
log = PartitionLog(directory, config=config)
number = 0
while True:
    if rng.random() < 0.03:
        try:
            log.compact(force=True)
        except LockTimeoutError:
            pass
        log.purge_deleted(at_once=True)
        continue
    number += 1
    key = rng.choice((name, "shared")) + str(rng.randint(0, 9))
    value = f"{name} {number} " + "." * rng.randint(0, 400)
    appended = log.append([Record(key=key.encode(), value=value.encode())], acks=1)
    sys.stdout.write(f"{appended.base_offset} {key} {name} {number}\\n")
    sys.stdout.flush()
"""


def run_and_kill(
    tmp_path: Path, script: str, directory: Path, rng: random.Random, turn: int
) -> Iterator[list[list[str]]]:
    """Let three processes run ``script`` on a log, and kill one after the other; what each one has
    said, in words, line by line."""
    path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    outputs = [tmp_path / f"out-{turn}-{number}" for number in range(3)]
    children = []
    for number, output in enumerate(outputs):
        with output.open("wb") as file:
            command = [sys.executable, "-c", script, str(directory)]
            command += [f"p{turn}{number}-", str(rng.randint(0, 1 << 30))]
            children.append(
                subprocess.Popen(command, stdout=file, env={**os.environ, "PYTHONPATH": path})
            )
    try:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and not all(o.stat().st_size for o in outputs):
            time.sleep(0.02)
        for child in children:
            time.sleep(rng.random() * 0.4)
            assert child.poll() is None, "a child ended by itself"
            child.send_signal(signal.SIGKILL)
    finally:
        for child in children:
            child.kill()
            child.wait()
    for output in outputs:
        yield [line.split(" ") for line in output.read_text().split("\n")[:-1]]


@pytest.mark.parametrize("seed", range(2 * SOAK))
def test_processes_that_append_compact_and_are_killed_lose_no_keys_last_record(
    tmp_path: Path, seed: int
) -> None:
    print(f"seed {seed}")
    rng = random.Random(seed)
    directory = tmp_path / "orders-0"
    told: dict[int, tuple[str, str]] = {}
    for turn in range(3):
        for lines in run_and_kill(tmp_path, CHILD, directory, rng, turn):
            for offset, key, *value in lines:
                assert int(offset) not in told, "an offset was given out twice"
                told[int(offset)] = (key, " ".join(value))
    with PartitionLog(directory, config=LogConfig(cleanup_policy="compact")) as log:
        found = content(log)
    offsets = [offset for offset, _ in found]
    assert offsets == sorted(set(offsets))
    newest = {(key or b"").decode(): offset for offset, (key, _) in found}
    present = {o: " ".join((v or b"").decode().split(" ")[:2]) for o, (_, v) in found}
    for where, (name, told_value) in told.items():
        if where in present:
            assert present[where] == told_value
        else:
            assert newest[name] > where, f"the last record of {name}, at {where}, is lost"
    findings = check(DiskFiles(), str(directory)) or ()
    assert [f for f in findings if f.severity == "damage"] == []


CUTTING_CHILD = """
import random, sys, time
from logstore import LogConfig, LockTimeoutError, OffsetOutOfRangeError, PartitionLog, Record

directory, name, seed = sys.argv[1:]
rng = random.Random(int(seed))
config = LogConfig(
    segment_bytes=3000, index_interval_bytes=300, retention_bytes=9000, file_delete_delay_ms=0
)
log = PartitionLog(directory, config=config)
number = 0

def say(*words):
    sys.stdout.write(" ".join(map(str, words)) + "\\n")
    sys.stdout.flush()

while True:
    choice = rng.random()
    began = time.monotonic_ns()
    try:
        if choice < 0.05:
            to = max(log.log_end_offset - rng.choice((0, 1, 3, 40)), log.log_start_offset)
            say("cutting", began, to)
            log.truncate(to)
            say("cut", time.monotonic_ns(), to)
        elif choice < 0.08:
            log.retain()
            say("start", log.log_start_offset)
        elif choice < 0.1:
            say("start", log.delete_records(log.log_start_offset + rng.randint(0, 5)))
        elif choice < 0.12:
            log.purge_deleted(at_once=True)
        else:
            batch = []
            for _ in range(rng.randint(1, 4)):
                number += 1
                batch.append(Record(value=f"{name} {number} {'.' * rng.randint(0, 400)}".encode()))
            appended = log.append(batch, acks=rng.choice((1, 1, 1, "all")))
            ended = time.monotonic_ns()
            for index in range(len(batch)):
                first = number - len(batch) + 1
                say("wrote", began, ended, appended.base_offset + index, name, first + index)
    except (LockTimeoutError, OffsetOutOfRangeError) as error:
        say("refused", type(error).__name__)
"""


@pytest.mark.parametrize("seed", range(2 * SOAK))
def test_processes_that_append_cut_retain_and_are_killed_lose_only_what_was_cut_or_deleted(
    tmp_path: Path, seed: int
) -> None:
    print(f"seed {seed}")
    rng = random.Random(seed)
    directory = tmp_path / "orders-0"
    wrote: list[tuple[int, int, int, str]] = []  # begin, end, offset, record
    cuts: list[tuple[int, float, int]] = []  # begin, end, offset
    lowest_start = 0
    for turn in range(3):
        for lines in run_and_kill(tmp_path, CUTTING_CHILD, directory, rng, turn):
            cutting: tuple[int, int] | None = None
            for what, *words in lines:
                if what == "wrote":
                    begin, end, offset = map(int, words[:3])
                    wrote.append((begin, end, offset, " ".join(words[3:])))
                elif what == "cutting":
                    cutting = int(words[0]), int(words[1])
                elif what == "cut" and cutting is not None:
                    cuts.append((cutting[0], int(words[0]), cutting[1]))
                    cutting = None
                elif what == "refused":
                    cutting = None
                elif what == "start":
                    lowest_start = max(lowest_start, int(words[0]))
            if cutting is not None:  # killed in it; whoever came next finished it or did not
                cuts.append((cutting[0], float("inf"), cutting[1]))
    assert len(wrote) > 50
    with PartitionLog(directory) as log:
        found = content(log)
        start, end = log.log_start_offset, log.log_end_offset
    assert start >= lowest_start
    assert [offset for offset, _ in found] == list(range(start, end)), "there are holes"
    present = {o: " ".join((value or b"").decode().split(" ")[:2]) for o, (_, value) in found}
    assert len(set(present.values())) == len(present), "a record is there twice"
    for began, _, offset, record in wrote:
        if offset >= start and present.get(offset) != record:
            assert any(to <= offset and ended >= began for _, ended, to in cuts), (offset, record)
    by_offset = sorted(wrote, key=lambda item: (item[2], item[0]))
    for one, two in itertools.pairwise(by_offset):
        if one[2] == two[2]:  # given out twice: there was a cut between the two
            assert any(
                to <= one[2] and cut_end >= one[0] and cut_begin <= max(one[1], two[1])
                for cut_begin, cut_end, to in cuts
            ), (one, two, cuts)
    findings = check(DiskFiles(), str(directory)) or ()
    assert [f for f in findings if f.severity == "damage"] == []
