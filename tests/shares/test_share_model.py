"""A share group against a simple model: consumers in several handles, some of which are killed;
transactions, and dead letters."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from logstore import LeaseExpiredError, LogstoreError, ShareConsumer, ShareRecord, Store
from logstore.segments.control import ControlType

from .support import (
    GROUP,
    TOPIC,
    ToldClock,
    described,
    end,
    numbered,
    opened,
    produce,
    transact,
    wait_until,
)

LIMIT = 2
LOCKS = 6
LOCK_MS = 10_000_000
"""Longer than any test takes: time is told."""
STEP_MS = LOCK_MS * 6 // 10
LETTERS = "dlq"


class Handle:
    """A store handle with one consumer, which can die."""

    def __init__(self, path: Path, clock: ToldClock) -> None:
        self._stack = contextlib.ExitStack()
        self.store: Store = self._stack.enter_context(opened(path, clock=clock))
        self.consumer: ShareConsumer = self.store.share_consumer(
            TOPIC, group=GROUP, share_acknowledgement_mode="explicit"
        )
        self.held: dict[int, ShareRecord] = {}
        self.renewed: set[int] = set()

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
    handle, in ``dead`` (on their way to the dead-letter topic), at the cursor or above it, or done
    with."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp())
        self.clock = ToldClock()
        self.graves: list[Handle] = []
        with opened(self.root / "store", clock=self.clock) as store:
            store.create_topic(TOPIC)
            store.create_topic(LETTERS)
            store.share_groups.alter(
                GROUP,
                share_auto_offset_reset="earliest",
                share_delivery_count_limit=LIMIT,
                share_partition_max_record_locks=LOCKS,
                share_record_lock_duration_ms=LOCK_MS,
                share_isolation_level="read_committed",
                errors_deadletterqueue_topic_name=LETTERS,
            )
        self.handles = [self.new(), self.new()]
        self.counts: dict[int, int] = {}
        self.delivered: dict[int, int] = {}
        """How often what is held was delivered."""
        self.deadlines: dict[int, int] = {}
        """When what is held is not any more."""
        self.cursor = self.start = self.end = 0
        self.open: dict[int, list[int]] = {}
        """The offsets of each producer's open transaction."""
        self.hidden: set[int] = set()
        """Markers, and what was aborted."""
        self.letters: Counter[int] = Counter()
        self.dead: set[int] = set()
        self.named = self.there = True
        """Whether the group has a dead-letter topic, and whether that is there."""

    def new(self) -> Handle:
        return Handle(self.root / "store", self.clock)

    def teardown(self) -> None:
        for handle in self.handles + self.graves:
            handle.close()
        shutil.rmtree(self.root)

    # The model --------------------------------------------------------------------------------

    @property
    def stable(self) -> int:
        """Nothing is delivered from there on."""
        return min((offsets[0] for offsets in self.open.values()), default=self.end)

    def give_up(self, offset: int) -> None:
        """It was rejected, or delivered too often."""
        if self.named:
            self.dead.add(offset)
            self.move_dead()

    def move_dead(self) -> None:
        if self.there or not self.named:
            self.letters.update(self.dead if self.named else ())
            self.dead.clear()

    def come_back(self, offsets: Iterable[int]) -> None:
        """What was delivered, and not accepted."""
        for offset in offsets:
            count = self.delivered.pop(offset)
            del self.deadlines[offset]
            if count >= LIMIT:
                self.give_up(offset)
            elif offset >= self.start:
                self.counts[offset] = count

    def acquired(self, most: int) -> dict[int, int]:
        """What a poll gives: offsets, and how often each was delivered by then."""
        while True:
            ready = len(self.counts) + max(0, self.stable - self.cursor)
            count = min(most, -(-ready // len(self.handles)), LOCKS - len(self.delivered))
            if count <= 0:
                return {}
            found = {offset: self.counts.pop(offset) + 1 for offset in sorted(self.counts)[:count]}
            fresh = range(self.cursor, min(self.stable, self.cursor + count - len(found)))
            self.cursor += len(fresh)
            found |= dict.fromkeys((one for one in fresh if one not in self.hidden), 1)
            if found:
                return found

    def appended(self, count: int) -> list[int]:
        offsets = list(range(self.end, self.end + count))
        self.end += count
        return offsets

    # What happens -----------------------------------------------------------------------------

    @rule(count=st.integers(1, 6))
    def produce(self, count: int) -> None:
        produce(self.handles[0].store, *numbered(count, self.end))
        self.appended(count)

    @rule(producer=st.integers(0, 1), count=st.integers(1, 3))
    def transact(self, producer: int, count: int) -> None:
        transact(self.handles[0].store, producer, *numbered(count, self.end))
        self.open[producer] = self.open.get(producer, []) + self.appended(count)

    @precondition(lambda self: self.open)
    @rule(data=st.data(), kind=st.sampled_from([ControlType.COMMIT, ControlType.ABORT]))
    def end_transaction(self, data: st.DataObject, kind: ControlType) -> None:
        producer = data.draw(st.sampled_from(sorted(self.open)))
        end(self.handles[0].store, producer, kind)
        self.hidden.update(self.appended(1))
        offsets = self.open.pop(producer)
        if kind == ControlType.ABORT:
            self.hidden.update(offsets)

    @rule(which=st.integers(0, 1), most=st.integers(1, 8))
    def acquire(self, which: int, most: int) -> None:
        handle = self.handles[which]
        if handle.held.keys() - handle.renewed:
            return
        expected = self.acquired(most)
        records = handle.consumer.poll(most)
        assert {record.offset: record.delivery_count for record in records} == expected
        assert [record.value for record in records] == [b"%d" % r.offset for r in records]
        handle.held |= {record.offset: record for record in records}
        self.delivered |= expected
        self.deadlines |= dict.fromkeys(expected, self.clock.ahead_ms + LOCK_MS)

    @rule(
        which=st.integers(0, 1),
        place=st.integers(0, 7),
        what=st.sampled_from(["accept", "release", "reject", "renew"]),
    )
    def acknowledge(self, which: int, place: int, what: str) -> None:
        handle = self.handles[which]
        if not handle.held:
            return
        offset = sorted(handle.held)[place % len(handle.held)]
        record = handle.held[offset]
        if what == "accept":
            record.accept(flush=True)
        else:
            getattr(record, what)()
        if what == "renew":
            handle.renewed.add(offset)
            self.deadlines[offset] = self.clock.ahead_ms + LOCK_MS
            return
        del handle.held[offset]
        handle.renewed.discard(offset)
        if what == "release":
            self.come_back([offset])
            return
        del self.delivered[offset], self.deadlines[offset]
        if what == "reject":
            self.give_up(offset)

    @rule(which=st.integers(0, 1))
    def hold_on(self, which: int) -> None:
        """One of them renews all that it holds, and time passes for the others."""
        handle = self.handles[which]
        for offset, record in handle.held.items():
            record.renew()
            handle.renewed.add(offset)
            self.deadlines[offset] = self.clock.ahead_ms + LOCK_MS
        self.time_passes()

    @precondition(lambda self: self.delivered)
    @rule()
    def time_passes(self) -> None:
        self.clock.ahead_ms += STEP_MS
        self.tick()
        for handle in self.handles:
            lost = {one for one in handle.held if self.deadlines[one] <= self.clock.ahead_ms}
            left = len(handle.held) - len(lost)
            wait_until(lambda: handle.consumer.unacknowledged == left)  # noqa: B023
            for offset in lost:
                with pytest.raises(LeaseExpiredError):
                    handle.held.pop(offset).accept(flush=True)
            handle.renewed -= lost
            self.come_back(lost)

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

    @precondition(lambda self: self.start < self.stable)
    @rule(share=st.floats(0, 1))
    def delete_records(self, share: float) -> None:
        self.start += int((self.stable - self.start) * share)
        self.handles[0].store.topic(TOPIC).partition(0).delete_records(self.start)
        self.counts = {one: count for one, count in self.counts.items() if one >= self.start}
        self.cursor = max(self.cursor, self.start)

    @rule(named=st.booleans(), there=st.booleans())
    def alter_dead_letters(self, named: bool, there: bool) -> None:
        """The dead-letter topic is deleted, or made; the group has it, or has none."""
        store = self.handles[0].store
        if there and not self.there:
            store.create_topic(LETTERS)
            self.there = True
            self.move_dead()
            self.tick()
            self.check_letters()
        if named != self.named and self.there:
            name = LETTERS if named else ""
            store.share_groups.alter(GROUP, errors_deadletterqueue_topic_name=name)
            self.tick()
            self.named = named
        if self.there and not there:
            self.check_letters()
            store.delete_topic(LETTERS)
            self.there = False
            self.letters.clear()

    def tick(self) -> None:
        for handle in self.handles:
            handle.tick()

    def check_letters(self) -> None:
        store = self.handles[1].store
        wait_until(lambda: described(store).archiving == len(self.dead))
        records = store.topic(LETTERS).partition(0).read(0).records()
        offsets = [dict(record.headers)["__dlq.errors.offset"] for record in records]
        assert Counter(int(offset or b"") for offset in offsets) == self.letters

    @invariant()
    def the_group_tells_the_same(self) -> None:
        self.tick()
        store = self.handles[1].store
        wait_until(lambda: described(store).archiving == len(self.dead))
        found = described(store)
        assert (found.acquired, found.returned) == (len(self.delivered), len(self.counts))
        assert (found.end_offset, found.log_end_offset) == (self.cursor, self.end)
        waiting = min([*self.counts, *self.delivered, *self.dead, self.cursor])
        assert found.start_offset == max(waiting, self.start)
        if self.there:
            self.check_letters()


ShareGroupMachine.TestCase.settings = settings(
    max_examples=10, stateful_step_count=40, deadline=None
)
TestShareGroup = ShareGroupMachine.TestCase
