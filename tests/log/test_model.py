"""A log under everything at once, against a plain list of what was appended to it."""

from __future__ import annotations

import logging
import os
import random
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from logstore import Codec, LogConfig, OffsetOutOfRangeError, PartitionLog, Record
from logstore.segments.batch import encode_batch
from logstore.segments.check import check
from logstore.segments.memory_files import CrashMode, MemoryFiles

from .support import fetches, kill

DIRECTORY = "/topics/orders-0"

batches = st.lists(
    st.builds(
        Record,
        offset=st.just(-1),
        headers=st.just(()),
        timestamp=st.integers(0, 40),
        key=st.sampled_from([None, b"k"]),
        value=st.builds(bytes.__mul__, st.sampled_from([b"x", b"\0", b"yz"]), st.integers(0, 900)),
    ),
    min_size=1,
    max_size=4,
)
levels: st.SearchStrategy[Any] = st.sampled_from([0, 1, 1, "all"])
codecs = st.sampled_from([Codec.NONE, Codec.NONE, Codec.GZIP])
Entry = tuple[int, int, bytes | None]
"""What the model knows of a record: offset, timestamp, value."""


class LogMachine(RuleBasedStateMachine):
    """One log, up to three handles, and crashes of the process and of the machine."""

    @initialize(
        segment_bytes=st.sampled_from([300, 2000, 1 << 20]),
        interval=st.sampled_from([0, 200, 4096]),
        index_bytes=st.sampled_from([24, 60, 1 << 20]),
    )
    def begin(self, segment_bytes: int, interval: int, index_bytes: int) -> None:
        self.files = MemoryFiles()
        self.config = LogConfig(
            segment_bytes=segment_bytes,
            index_interval_bytes=interval,
            segment_index_bytes=index_bytes,
        )
        self.model: list[Entry] = []
        self.next_offset = 0
        self.durable = 0
        """Below it everything was acknowledged by a sync."""
        self.log = self.open()
        self.log_wrote = False
        """Whether that handle has appended, so that its close syncs."""
        self.others: list[PartitionLog] = []

    def open(self) -> PartitionLog:
        return PartitionLog(DIRECTORY, files=self.files, config=self.config, lock_timeout=1)

    def reader(self, second: bool) -> PartitionLog:
        """The handle, or another one of the same process if there is one."""
        return self.others[-1] if second and self.others else self.log

    def writer(self, second: bool) -> PartitionLog:
        """The handle, or another one of the same process."""
        if not second:
            self.log_wrote = True
            return self.log
        if not self.others:
            self.others.append(self.open())
        return self.others[-1]

    def appended(self, base: int, records: list[Record], acks: Any) -> None:
        for index, record in enumerate(records):
            self.model.append((base + index, record.timestamp, record.value))
        self.next_offset = base + len(records)
        if acks == "all":
            self.durable = self.next_offset

    # Appending

    @rule(records=batches, acks=levels, codec=codecs, second=st.booleans())
    def append(self, records: list[Record], acks: Any, codec: Codec, second: bool) -> None:
        result = self.writer(second).append(records, acks=acks, codec=codec)
        assert result.base_offset == self.next_offset
        self.appended(result.base_offset, records, acks)

    @rule(first=batches, more=batches, acks=levels, second=st.booleans())
    def append_raw(self, first: list[Record], more: list[Record], acks: Any, second: bool) -> None:
        raw = encode_batch(first, base_offset=7) + encode_batch(more, leader_epoch=3)
        result = self.writer(second).append_raw(raw, acks=acks)
        assert result.base_offset == self.next_offset
        self.appended(result.base_offset, first + more, acks)

    @rule(
        records=batches,
        gap=st.sampled_from([0, 1, 30, 1 << 32]),
        later=st.integers(0, 2),
        acks=levels,
        second=st.booleans(),
    )
    def replicate(
        self, records: list[Record], gap: int, later: int, acks: Any, second: bool
    ) -> None:
        base = self.next_offset + gap
        epoch = self.log._look().state.leader_epoch + later
        raw = encode_batch(records, base_offset=base, leader_epoch=epoch)
        self.writer(second).append_raw(raw, acks=acks, origin="replica")
        self.appended(base, records, acks)

    @rule(second=st.booleans())
    def flush(self, second: bool) -> None:
        self.reader(second).flush()
        self.durable = self.next_offset

    @rule(records=batches, data=st.data())
    def a_writer_is_killed_while_it_writes(
        self, records: list[Record], data: st.DataObject
    ) -> None:
        """The batch is there or not, once somebody has appended; whole, if it is."""
        raw = encode_batch(records, base_offset=self.next_offset)
        written = data.draw(st.integers(0, len(raw)))
        path = os.path.join(DIRECTORY, f"{self.log.segments[-1]:020d}.log")
        file = self.files.open(path, write=True)
        if self.next_offset - self.log.segments[-1] < 1 << 31:
            file.write_at(raw[:written], file.size())
            if written == len(raw):
                self.appended(self.next_offset, records, 1)
            self.append([Record(timestamp=1, value=b"settles it")], 1, Codec.NONE, False)

    # Handles

    @rule()
    def close_and_open(self) -> None:
        wrote = self.log_wrote
        self.log.close()
        if wrote:
            self.durable = self.next_offset
        self.log, self.log_wrote = self.open(), False

    @rule()
    def close_the_second(self) -> None:
        if self.others:
            self.others.pop().close()

    @rule()
    def kill_and_open(self) -> None:
        kill(self.log)
        self.log, self.log_wrote = self.open(), False

    @rule(mode=st.sampled_from(CrashMode), seed=st.integers(0, 1 << 30))
    def crash(self, mode: CrashMode, seed: int) -> None:
        durable = max(self.durable, self.log.synced_offset)
        self.files = self.files.crash(mode, random.Random(seed))
        self.others = []
        self.log, self.log_wrote = self.open(), False
        found = self.everything(self.log)
        assert found == self.model[: len(found)], "what is left is what was appended first"
        missing = self.model[len(found) :]
        assert not missing or missing[0][0] >= durable, "what was acknowledged is there"
        if mode is CrashMode.KILL:
            assert not missing
        self.model = found
        end = self.log.log_end_offset
        assert end == self.next_offset or end >= durable
        assert not found or end > found[-1][0]
        self.durable = durable if mode is CrashMode.KILL else end
        self.next_offset = end

    # Reading

    @staticmethod
    def everything(log: PartitionLog, offset: int | None = None) -> list[Entry]:
        return [
            (record.offset, record.timestamp, record.value)
            for fetch in fetches(log, offset, max_bytes=700)
            for record in fetch.records()
        ]

    @rule(data=st.data(), second=st.booleans(), max_bytes=st.sampled_from([1, 500, 1 << 20]))
    def read(self, data: st.DataObject, second: bool, max_bytes: int) -> None:
        near = [offset + step for offset, *_ in self.model for step in (-1, 0, 1)]
        offset = data.draw(st.sampled_from([0, self.next_offset, *near]))
        if not 0 <= offset <= self.next_offset:
            with pytest.raises(OffsetOutOfRangeError):
                self.reader(second).read(offset)
            return
        fetch = self.reader(second).read(offset, max_bytes=max_bytes)
        found = [(r.offset, r.timestamp, r.value) for r in fetch.records()]
        following = [entry for entry in self.model if entry[0] >= offset]
        assert found == following[: len(found)]
        assert bool(found) == bool(following)

    @rule(timestamp=st.integers(0, 41), second=st.booleans())
    def look_up_a_time(self, timestamp: int, second: bool) -> None:
        expected = next(((o, t) for o, t, _ in self.model if t >= timestamp), None)
        assert self.reader(second).offset_for_time(timestamp) == expected

    @rule()
    def read_only(self) -> None:
        with PartitionLog(DIRECTORY, files=self.files, read_only=True) as reader:
            assert self.everything(reader) == self.model

    @rule(how=st.sampled_from(["remove", "empty", "scramble"]), seed=st.integers(0, 1000))
    def spoil_an_index(self, how: str, seed: int) -> None:
        rng = random.Random(seed)
        names = [n for n in self.files.names(DIRECTORY) if n.endswith("index")]
        if not names:
            return
        path = os.path.join(DIRECTORY, rng.choice(names))
        if how == "remove":
            self.files.remove(path)
            return
        file = self.files.open(path, write=True)
        size = file.size()
        file.truncate(0)
        if how == "scramble":
            file.write_at(rng.randbytes(size), 0)
        self.spoilt = True

    @invariant()
    def ends_agree(self) -> None:
        if hasattr(self, "log"):
            assert self.log.log_end_offset == self.next_offset
            assert self.log.synced_offset >= self.durable

    def teardown(self) -> None:
        if not hasattr(self, "log"):
            return
        assert self.everything(self.log) == self.model
        for log in self.others:
            log.close()
        self.log.close()
        self.damage()

    spoilt = False

    def damage(self) -> None:
        """What the checking command says; nobody repairs a spoilt index of a closed segment."""
        found = [f for f in check(self.files, DIRECTORY) or () if f.severity == "damage"]
        assert not [f for f in found if not (self.spoilt and f.path.endswith("index"))]


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR, logger="logstore")  # it tells of every cut


def test_a_log_holds_what_a_list_would_hold() -> None:
    run_state_machine_as_test(
        LogMachine,
        settings=settings(
            deadline=None,
            max_examples=120,
            stateful_step_count=30,
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.slow
def test_a_log_holds_what_a_list_would_hold_in_a_long_run() -> None:
    run_state_machine_as_test(
        LogMachine,
        settings=settings(
            deadline=None,
            max_examples=3000,
            stateful_step_count=60,
            suppress_health_check=list(HealthCheck),
        ),
    )
