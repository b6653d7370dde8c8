"""A crash at every operation of a log that producers write to, of every kind, and what is known of
them afterwards: what was acknowledged is there once, and what was not can be sent again."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from logstore import LogConfig, PartitionLog, ProducerStamp, Record
from logstore.log import Acks
from logstore.producer_log import of_batch
from logstore.producer_states import NAMED_IDS, ProducerStates
from logstore.segments.batch import Batch
from logstore.segments.memory_files import CrashMode

from .crashes import DIRECTORY, Clock, Picture, World, content, damage, faults

IDS = (5, 6, NAMED_IDS)


def config(**overrides: int | str | float) -> LogConfig:
    """Small segments."""
    return LogConfig.from_overrides(
        {"segment_bytes": 900, "index_interval_bytes": 200, **overrides}
    )


class ProducerWorld(World):
    """A world whose program appends as several producers do."""

    def open(self) -> PartitionLog:
        """A handle of the log."""
        self.next = dict.fromkeys(IDS, 0)
        return super().open()

    def send(self, producer_id: int, count: int = 1, *, acks: Acks = 1, key: bytes = b"k") -> None:
        """Append a producer's next batch."""
        state = self.log.producer_state(producer_id)
        sequence = 0 if state is None else state.next_sequence
        batch = [stored(producer_id, sequence + i, self.clock.ms, key) for i in range(count)]
        self._expect(self.promises.end, batch)
        stamp = ProducerStamp(producer_id, 0, sequence)
        assert self.log.append(batch, acks=acks, producer=stamp).base_offset == self.promises.end
        self._appended(acks)


def stored(producer_id: int, sequence: int, timestamp: int, key: bytes = b"k") -> Record:
    """What a producer sends under a sequence number."""
    value = b"%d/%d " % (producer_id, sequence)
    return Record(timestamp=timestamp, key=key, value=value + b"." * 90)


def batches(log: PartitionLog) -> Iterator[Batch]:
    """All that there are, empty ones included."""
    offset = log.log_start_offset
    while offset < log.log_end_offset:
        fetch = log.read(offset, max_bytes=700)
        yield from fetch.batches()
        if fetch.next_offset == offset:
            return
        offset = fetch.next_offset


def told_by_headers(log: PartitionLog) -> dict[int, tuple[int, int]]:
    """Of each producer the last sequence and offset, from all batches that are in the log."""
    states = ProducerStates()
    for batch in batches(log):
        if batch.header.producer_id >= 0:
            states.note(of_batch(batch))
    return {key: (state.last_sequence, state.last_offset) for key, state in states.known().items()}


def known(log: PartitionLog) -> dict[int, tuple[int, int]]:
    """The same, as the log knows it."""
    found = {key: log.producer_state(key) for key in IDS}
    return {key: (s.last_sequence, s.last_offset) for key, s in found.items() if s is not None}


def examine(picture: Picture, settings: LogConfig, *, retained: bool = False) -> None:
    """``retained``: a producer may be known whose batches were deleted."""
    files, promises = picture.files, picture.promises
    if not files.exists(DIRECTORY):
        return
    clock = Clock(picture.now_ms)

    def open_log() -> PartitionLog:
        return PartitionLog(DIRECTORY, files=files, clock=clock, config=settings, lock_timeout=1)

    log = open_log()
    problems = [*faults(promises, picture.mode, log), *damage(files)]
    assert not problems, f"{picture.name}: {problems}"
    found, headers = known(log), told_by_headers(log)
    if retained:
        found = {key: value for key, value in found.items() if key in headers}
    assert found == headers, picture.name
    before = content(log)
    for producer_id in IDS:
        sequence = found[producer_id][0] + 1 if producer_id in headers else None
        if sequence is None:
            continue
        stamp = ProducerStamp(producer_id, 0, sequence)
        record = stored(producer_id, sequence, clock.ms)
        first = log.append([record], acks=1, producer=stamp)
        assert first.base_offset == log.log_end_offset - 1, picture.name
        assert log.append([record], producer=stamp) == first, picture.name
    after = content(log)
    assert after[: len(before)] == before, picture.name
    log.close()
    log = open_log()
    assert content(log) == after, picture.name
    assert known(log).items() >= told_by_headers(log).items(), picture.name
    assert not damage(files), picture.name
    left = [name for name in files.names(DIRECTORY) if name.endswith(".snapshot.tmp")]
    assert not left, f"{picture.name}: {left}"
    log.close()


def examine_all(world: World, *, retained: bool = False) -> None:
    world.recording = False
    assert world.pictures
    for picture in world.pictures:
        examine(picture, world.config, retained=retained)


@pytest.mark.parametrize("acks", [1, "all"])
def test_a_crash_while_producers_append_and_segments_roll_leaves_what_the_headers_say(
    acks: Acks,
) -> None:
    world = ProducerWorld(config())
    world.open()
    for number in range(12):
        world.clock.ms += 10
        if number % 5 == 3:
            world.append(1, acks=acks)
        else:
            world.send(IDS[number % 3], 1 + number % 2, acks=acks)
    assert len(world.log.segments) > 2
    assert [name for name in world.files.names(DIRECTORY) if name.endswith(".snapshot")]
    examine_all(world)


def test_a_crash_in_a_close_or_a_truncation_leaves_what_the_headers_say() -> None:
    world = ProducerWorld(config())
    world.open()
    for number in range(6):
        world.send(IDS[number % 3], 2, acks="all")
    world.close()
    world.open()
    world.send(IDS[0], 1)
    world.truncate(world.log.segments[1] + 1)
    world.append(2)
    world.send(IDS[1], 1)
    world.close()
    world.open()
    world.send(IDS[2], 3)
    world.truncate(1)
    world.send(IDS[0], 3, acks="all")
    examine_all(world)


def test_a_crash_behind_a_truncation_does_not_bring_back_what_was_known_of_the_cut_end() -> None:
    world = ProducerWorld(config(segment_bytes=5000))
    world.open()
    for _ in range(4):
        world.send(IDS[0], acks="all")
    world.close()  # which leaves a snapshot behind the fourth record
    world.open()
    world.truncate(3)
    world.append(3, acks="all")
    world.send(IDS[0], acks="all")
    examine_all(world)


def test_a_crash_in_a_compaction_or_a_retention_leaves_what_is_left_of_the_headers() -> None:
    world = ProducerWorld(config(cleanup_policy="compact,delete", retention_ms=100_000))
    world.open()
    for number in range(14):
        world.clock.ms += 10
        world.send(IDS[number % 3], 1, acks="all", key=b"k%d" % (number % 2))
    world.compact()
    for number in range(6):
        world.send(IDS[0], 1, acks="all", key=b"k%d" % (number % 2))
    world.compact()
    world.delete_records(world.log.segments[-1])
    world.purge()
    world.send(IDS[1], 1)
    examine_all(world, retained=True)


@pytest.mark.parametrize("acks", [1, "all"])
def test_what_was_not_acknowledged_is_there_once_after_it_was_sent_again(acks: Acks) -> None:
    world = ProducerWorld(config())
    world.open()
    sent = []
    for number in range(9):
        count = 1 + number % 3
        sent.append((world.promises.end, count))
        world.send(IDS[0], count, acks=acks)
    world.recording = False
    total = world.promises.end
    for picture in world.pictures:
        if not picture.files.exists(DIRECTORY):
            continue
        kill = picture.mode is CrashMode.KILL
        acknowledged = picture.promises.end if kill else picture.promises.synced
        log = PartitionLog(
            DIRECTORY, files=picture.files, clock=Clock(picture.now_ms), config=world.config
        )
        state = log.producer_state(IDS[0])
        there = 0 if state is None else state.next_sequence
        assert acknowledged <= there, picture.name
        # The program sends again what nobody acknowledged to it; if the machine went down, also
        # what it was told was written, as far as the log has lost it.
        first = min(picture.promises.end, there)
        for sequence, count in sent:
            if sequence >= first:
                again = [stored(IDS[0], sequence + i, 1_000_000) for i in range(count)]
                appended = log.append(again, acks=acks, producer=ProducerStamp(IDS[0], 0, sequence))
                assert appended[:2] == (sequence, sequence + count - 1), picture.name
        values = [value for _, (_, value) in content(log)]
        assert values == [stored(IDS[0], n, 0).value for n in range(total)], picture.name
        log.close()
