"""Producers that send, send again, skip and fence each other, against a plain list."""

from __future__ import annotations

from typing import NamedTuple

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from logstore import (
    LogConfig,
    OutOfOrderSequenceError,
    PartitionLog,
    ProducerFencedError,
    ProducerStamp,
    Record,
)
from logstore.producer_states import NAMED_IDS, SEQUENCES, sequence_after
from logstore.segments.batch import encode_batch
from logstore.segments.memory_files import CrashMode

from ..crash.crashes import (  # noqa: TID252 - tests are no package to import absolutely
    DIRECTORY,
    SOAK,
    Clock,
    CrashFiles,
    content,
    damage,
)

IDS = (3, 8, NAMED_IDS + 3)
KEYS = [b"key %d" % number for number in range(4)]

handles = st.integers(0, 1)
ids = st.sampled_from(IDS)
counts = st.integers(1, 3)


class Sent(NamedTuple):
    """A batch that a producer has in the log."""

    epoch: int
    sequence: int
    size: int
    offset: int

    @property
    def next_sequence(self) -> int:
        return sequence_after(self.sequence, self.size)


class ProducerMachine(RuleBasedStateMachine):
    """Two handles of one log, as two processes have them."""

    @initialize(
        compacts=st.booleans(),
        segment_bytes=st.sampled_from([300, 900, 5000]),
        start=st.sampled_from([0, 0, SEQUENCES - 3]),
    )
    def begin(self, compacts: bool, segment_bytes: int, start: int) -> None:
        self.config = LogConfig(
            segment_bytes=segment_bytes,
            index_interval_bytes=100,
            cleanup_policy="compact" if compacts else "delete",
        )
        self.start = start
        self.clock = Clock()
        self.files = CrashFiles()
        self.records: dict[int, tuple[bytes, bytes]] = {}
        """By offset, what was appended; compaction may have taken it."""
        self.end = 0
        self.sent: dict[int, list[Sent]] = {key: [] for key in IDS}
        self.numbers = 0
        self.compacted = False
        self.open_all()

    def open_all(self) -> None:
        self.logs = [self.open(), self.open()]

    def open(self) -> PartitionLog:
        return PartitionLog(DIRECTORY, files=self.files, clock=self.clock, config=self.config)

    def batch(self, count: int) -> list[Record]:
        """Records that nobody has seen before."""
        made = []
        for _ in range(count):
            self.numbers += 1
            key = KEYS[self.numbers % len(KEYS)]
            value = b"%d " % self.numbers + b"." * 60
            made.append(Record(timestamp=self.clock.ms, key=key, value=value))
        return made

    def appended(self, batch: list[Record], offset: int) -> None:
        assert offset == self.end
        for record in batch:
            assert record.key is not None
            assert record.value is not None
            self.records[self.end] = (record.key, record.value)
            self.end += 1

    def expected(self, producer_id: int) -> tuple[int, int]:
        """Epoch and sequence with which a producer goes on."""
        sent = self.sent[producer_id]
        return (sent[-1].epoch, sent[-1].next_sequence) if sent else (0, self.start)

    # appending

    @rule(handle=handles, count=counts)
    def append(self, handle: int, count: int) -> None:
        batch = self.batch(count)
        self.appended(batch, self.logs[handle].append(batch, acks=1).base_offset)

    @rule(handle=handles, producer_id=ids, count=counts, raw=st.booleans())
    def send(self, handle: int, producer_id: int, count: int, raw: bool) -> None:
        """The next batch."""
        epoch, sequence = self.expected(producer_id)
        self.deliver(handle, producer_id, epoch, sequence, count, raw=raw)

    @rule(handle=handles, producer_id=ids, count=counts)
    def send_in_next_epoch(self, handle: int, producer_id: int, count: int) -> None:
        """A younger instance: a named one goes on, another one begins anew."""
        epoch, sequence = self.expected(producer_id)
        if producer_id < NAMED_IDS:
            sequence = 0
        self.deliver(handle, producer_id, epoch + 1, sequence, count)

    def deliver(
        self,
        handle: int,
        producer_id: int,
        epoch: int,
        sequence: int,
        count: int,
        *,
        raw: bool = False,
    ) -> None:
        batch, log = self.batch(count), self.logs[handle]
        offset = self.end
        if raw:
            encoded = encode_batch(
                batch, producer_id=producer_id, producer_epoch=epoch, base_sequence=sequence
            )
            found = log.append_raw(encoded, acks=1)
        else:
            found = log.append(batch, acks=1, producer=ProducerStamp(producer_id, epoch, sequence))
        assert found[:2] == (offset, offset + count - 1)
        self.appended(batch, offset)
        self.sent[producer_id].append(Sent(epoch, sequence, count, offset))

    @rule(handle=handles, producer_id=ids, back=st.integers(1, 7), raw=st.booleans())
    def send_again(self, handle: int, producer_id: int, back: int, raw: bool) -> None:
        """The last batch is a duplicate; one before it may be, or is out of order."""
        sent = self.sent[producer_id]
        if len(sent) < back:
            return
        log, again = self.logs[handle], sent[-back]
        batch = self.batch(again.size)
        stamp = ProducerStamp(producer_id, again.epoch, again.sequence)
        try:
            if raw:
                encoded = encode_batch(
                    batch,
                    producer_id=producer_id,
                    producer_epoch=again.epoch,
                    base_sequence=again.sequence,
                )
                found = log.append_raw(encoded, acks=1)
            else:
                found = log.append(batch, acks=1, producer=stamp)
        except OutOfOrderSequenceError:
            assert back > 1
        except ProducerFencedError:
            assert again.epoch < sent[-1].epoch
        else:
            assert back <= 5
            assert found[:2] == (again.offset, again.offset + again.size - 1)

    @rule(handle=handles, producer_id=ids, ahead=st.integers(1, 9), count=counts)
    def skip(self, handle: int, producer_id: int, ahead: int, count: int) -> None:
        if not self.sent[producer_id]:
            return
        epoch, sequence = self.expected(producer_id)
        stamp = ProducerStamp(producer_id, epoch, sequence_after(sequence, ahead))
        try:
            self.logs[handle].append(self.batch(count), producer=stamp)
        except OutOfOrderSequenceError as error:
            assert f"where {sequence} was expected" in str(error)  # noqa: PT017 - or it was taken
            return
        raise AssertionError("a gap was taken")

    @rule(handle=handles, producer_id=ids, count=counts)
    def send_in_an_older_epoch(self, handle: int, producer_id: int, count: int) -> None:
        epoch, sequence = self.expected(producer_id)
        if epoch == 0:
            return
        stamp = ProducerStamp(producer_id, epoch - 1, sequence)
        try:
            self.logs[handle].append(self.batch(count), producer=stamp)
        except ProducerFencedError:
            return
        raise AssertionError("an old epoch was taken")

    # everything else

    @rule(handle=handles)
    def roll(self, handle: int) -> None:
        with self.logs[handle]._locked() as writer:
            writer.roll(writer.enter())

    @rule(handle=handles, back=st.integers(0, 9))
    def truncate(self, handle: int, back: int) -> None:
        to = max(self.end - back, 0)
        self.logs[handle].truncate(to)
        self.records = {o: found for o, found in self.records.items() if o < to}
        self.end = to
        for producer_id, sent in self.sent.items():
            left = [
                one._replace(size=min(one.size, to - one.offset)) for one in sent if one.offset < to
            ]
            if self.compacted and left != sent:
                # Compaction may have taken batches that were not the last then.
                left = self.still_there(producer_id, left)
            self.sent[producer_id] = left

    def still_there(self, producer_id: int, sent: list[Sent]) -> list[Sent]:
        state = self.logs[0].producer_state(producer_id)
        if state is None:
            return []
        while sent and (sent[-1].epoch, sequence_after(sent[-1].next_sequence, -1)) != (
            state.epoch,
            state.last_sequence,
        ):
            sent = sent[:-1]
        if sent:
            return sent
        last = state.batches[-1]
        count = last.last_offset - last.base_offset + 1
        return [Sent(state.epoch, last.first_sequence, count, last.base_offset)]

    @rule(handle=handles)
    def compact(self, handle: int) -> None:
        if self.config.compacts:
            self.compacted = True
            self.logs[handle].compact(force=True)

    @rule(handle=handles)
    def close_and_open(self, handle: int) -> None:
        self.logs[handle].close()
        self.logs[handle] = self.open()

    @rule()
    def kill_all(self) -> None:
        for log in self.logs:
            log.forked()
        self.files = self.files.after(CrashMode.KILL, 0)
        self.open_all()

    @rule(lost=st.booleans())
    def lose_snapshots(self, lost: bool) -> None:
        """Snapshots are caches; one that is broken is as good as none."""
        for name in self.files.names(DIRECTORY):
            if name.endswith(".snapshot"):
                path = f"{DIRECTORY}/{name}"
                if lost:
                    self.files.remove(path)
                else:
                    file = self.files.open(path, write=True)
                    file.truncate(max(file.size() - 1, 0))

    # what must hold

    @invariant()
    def nothing_is_lost_or_doubled(self) -> None:
        log = self.logs[0]
        assert log.log_end_offset == self.end
        found = content(log)
        for offset, got in found:
            assert self.records[offset] == got
        if not self.compacted:
            assert len(found) == len(self.records)

    @rule(handle=handles, producer_id=ids)
    def look(self, handle: int, producer_id: int) -> None:
        """A handle is asked now and then: in between it has to catch up."""
        sent = self.sent[producer_id]
        state = self.logs[handle].producer_state(producer_id)
        if not sent:
            assert state is None
        else:
            assert state is not None
            assert (state.epoch, state.next_sequence) == (sent[-1].epoch, sent[-1].next_sequence)

    def teardown(self) -> None:
        for log in getattr(self, "logs", ()):
            log.close()
        if hasattr(self, "files") and self.files.exists(DIRECTORY):
            broken = [fault for fault in damage(self.files) if ".snapshot" not in fault]
            assert not broken


def test_producers_lose_and_double_nothing_whatever_happens() -> None:
    run_state_machine_as_test(
        ProducerMachine,
        settings=settings(
            max_examples=150 * SOAK,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
