"""A share group against a simple model: consumers in several handles, some of which are killed."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from logstore import LeaseExpiredError, LogstoreError, ShareConsumer, ShareRecord, Store

from .support import GROUP, TOPIC, ToldClock, described, numbered, opened, produce, wait_until

LIMIT = 2
LOCKS = 6
LOCK_MS = 10_000_000
"""Longer than any test takes: time is told."""


class Handle:
    """A store handle with one consumer, which can die."""

    def __init__(self, path: Path, clock: ToldClock) -> None:
        self._stack = contextlib.ExitStack()
        self.store: Store = self._stack.enter_context(opened(path, clock=clock))
        self.consumer: ShareConsumer = self.store.share_consumer(
            TOPIC, group=GROUP, share_acknowledgement_mode="explicit"
        )
        self.held: dict[int, ShareRecord] = {}

    def tick(self) -> None:
        """A round of its housekeeper, now."""
        self.store._share_groups._consumption._housekeeper.tick()

    def die(self) -> None:
        """As by SIGKILL: nothing of it happens any more, and its lock is gone."""
        housekeeper = self.store._share_groups._consumption._housekeeper
        housekeeper._stopped.set()
        housekeeper._wake.set()
        if housekeeper._thread is not None:
            housekeeper._thread.join()
        self.store._sessions._let_go()

    def close(self) -> None:
        with contextlib.suppress(LogstoreError):
            self._stack.close()


class ShareGroupMachine(RuleBasedStateMachine):
    """Offsets are in ``counts`` (waiting, with how often they were delivered), in ``held`` of a
    handle, at the cursor or above it, or done with."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp())
        self.clock = ToldClock()
        self.graves: list[Handle] = []
        with opened(self.root / "store", clock=self.clock) as store:
            store.create_topic(TOPIC)
            store.share_groups.alter(
                GROUP,
                share_auto_offset_reset="earliest",
                share_delivery_count_limit=LIMIT,
                share_partition_max_record_locks=LOCKS,
                share_record_lock_duration_ms=LOCK_MS,
            )
        self.handles = [self.new(), self.new()]
        self.counts: dict[int, int] = {}
        self.delivered: dict[int, int] = {}
        """How often what is held was delivered."""
        self.cursor = self.start = self.end = 0

    def new(self) -> Handle:
        return Handle(self.root / "store", self.clock)

    def teardown(self) -> None:
        for handle in self.handles + self.graves:
            handle.close()
        shutil.rmtree(self.root)

    # The model --------------------------------------------------------------------------------

    def come_back(self, offsets: Any) -> None:
        """What was delivered, and not accepted."""
        for offset in offsets:
            count = self.delivered.pop(offset)
            if count < LIMIT and offset >= self.start:
                self.counts[offset] = count

    def expected(self, most: int) -> dict[int, int]:
        """What a poll gives: offsets, and how often each was delivered by then."""
        ready = len(self.counts) + self.end - self.cursor
        most = min(most, -(-ready // len(self.handles)), LOCKS - len(self.delivered))
        found = {offset: self.counts[offset] + 1 for offset in sorted(self.counts)[:most]}
        fresh = range(self.cursor, min(self.end, self.cursor + most - len(found)))
        return found | dict.fromkeys(fresh, 1)

    # What happens -----------------------------------------------------------------------------

    @rule(count=st.integers(1, 6))
    def produce(self, count: int) -> None:
        produce(self.handles[0].store, *numbered(count, self.end))
        self.end += count

    @rule(which=st.integers(0, 1), most=st.integers(1, 8))
    def acquire(self, which: int, most: int) -> None:
        handle = self.handles[which]
        if handle.held:
            return
        expected = self.expected(most)
        records = handle.consumer.poll(most)
        assert {record.offset: record.delivery_count for record in records} == expected
        assert [record.value for record in records] == [b"%d" % r.offset for r in records]
        for record in records:
            handle.held[record.offset] = record
            self.counts.pop(record.offset, None)
        self.delivered |= expected
        self.cursor = max(self.cursor, *(offset + 1 for offset in expected), 0)

    @rule(
        which=st.integers(0, 1),
        place=st.integers(0, 7),
        what=st.sampled_from(["accept", "release", "reject"]),
    )
    def acknowledge(self, which: int, place: int, what: str) -> None:
        held = self.handles[which].held
        if not held:
            return
        offset = sorted(held)[place % len(held)]
        record = held.pop(offset)
        if what == "accept":
            record.accept(flush=True)
        else:
            getattr(record, what)()
        if what == "release":
            self.come_back([offset])
        else:
            del self.delivered[offset]

    @precondition(lambda self: self.delivered)
    @rule()
    def expire(self) -> None:
        self.clock.ahead_ms += LOCK_MS + 1
        self.tick()
        for handle in self.handles:
            wait_until(lambda: handle.consumer.unacknowledged == 0)  # noqa: B023
            for record in handle.held.values():
                with pytest.raises(LeaseExpiredError):
                    record.accept(flush=True)
            self.come_back(handle.held)
            handle.held.clear()

    @rule(which=st.integers(0, 1), cleanly=st.booleans())
    def replace(self, which: int, cleanly: bool) -> None:
        """A process ends, or is killed, and another one begins."""
        gone = self.handles[which]
        if cleanly:
            gone.close()
        else:
            gone.die()
            self.graves.append(gone)
        self.come_back(gone.held)
        self.handles[which] = self.new()

    @rule()
    def reopen(self) -> None:
        """All of them end, and begin anew."""
        for handle in self.handles:
            handle.close()
            self.come_back(handle.held)
        self.handles = [self.new(), self.new()]

    @precondition(lambda self: self.start < self.end)
    @rule(share=st.floats(0, 1))
    def delete_records(self, share: float) -> None:
        self.start += int((self.end - self.start) * share)
        self.handles[0].store.topic(TOPIC).partition(0).delete_records(self.start)
        self.counts = {one: count for one, count in self.counts.items() if one >= self.start}
        self.cursor = max(self.cursor, self.start)

    def tick(self) -> None:
        for handle in self.handles:
            handle.tick()

    @invariant()
    def the_group_tells_the_same(self) -> None:
        self.tick()
        found = described(self.handles[1].store)
        assert (found.acquired, found.returned) == (len(self.delivered), len(self.counts))
        assert (found.end_offset, found.log_end_offset) == (self.cursor, self.end)
        waiting = min([*self.counts, *self.delivered, self.cursor])
        assert found.start_offset == max(waiting, self.start)


ShareGroupMachine.TestCase.settings = settings(
    max_examples=10, stateful_step_count=40, deadline=None
)
TestShareGroup = ShareGroupMachine.TestCase
