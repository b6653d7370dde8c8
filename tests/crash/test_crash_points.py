"""A crash at every sync, rename, remove, create, write and publication of everything that changes a
partition, of every kind, and what is found afterwards (``crashes``)."""

from __future__ import annotations

import itertools
import random

import pytest

from logstore import LogConfig, Record
from logstore.log import Acks
from logstore.segments.batch import encode_batch
from logstore.segments.memory_files import CrashMode

from .crashes import CRASHES, SOAK, Picture, World, content, examine, examine_all


def config(**overrides: int | str | float) -> LogConfig:
    """Small segments, and an index entry for every few records."""
    small: dict[str, int | str | float] = {"segment_bytes": 1500, "index_interval_bytes": 200}
    return LogConfig.from_overrides({**small, **overrides})


def compacted(**overrides: int | str | float) -> LogConfig:
    """The same of a compacted log."""
    return config(cleanup_policy="compact", **overrides)


# appending ----------------------------------------------------------------------------------


@pytest.mark.parametrize("acks", [0, 1, "all"])
def test_a_crash_while_appending_and_rolling_loses_nothing_acknowledged(acks: Acks) -> None:
    world = World(config())
    world.open()
    for number in range(9):
        world.clock.ms += 10
        world.append(1 + number % 3, acks=acks, size=(40, 150, 700)[number % 3])
    assert len(world.log.segments) > 2
    examine_all(world)


def test_a_crash_while_mixed_acks_are_appended_loses_nothing_acknowledged() -> None:
    world = World(config(segment_bytes=4000))
    world.open()
    levels: list[Acks] = [1, 1, "all", 0, 1, "all", 1, 1]
    for number, acks in enumerate(levels):
        world.append(2, acks=acks, size=100 + 170 * (number % 4))
    world.append(1, acks=1, size=1600)
    world.flush()
    examine_all(world)


def test_a_crash_in_a_roll_loses_nothing() -> None:
    world = World(config())
    world.open()
    world.append(3, acks=1)
    world.roll()
    world.append(2, acks=1)
    world.roll()
    world.roll()
    examine_all(world)


def test_a_crash_in_a_clean_close_or_the_opening_behind_it_loses_nothing() -> None:
    world = World(config())
    world.open()
    world.append(3, acks=1)
    world.close()
    world.open()
    world.append(3, acks=1)
    world.close()
    world.open()
    world.close()
    examine_all(world)


def test_a_crash_while_leader_epochs_are_written_loses_nothing() -> None:
    world = World(config())
    world.open()
    world.append(2)

    def batch(
        offset: int, epoch: int, count: int = 2
    ) -> tuple[bytes, dict[int, tuple[None, bytes]]]:
        found = {offset + i: (None, b"replica %d" % (offset + i)) for i in range(count)}
        raw = encode_batch(
            [Record(timestamp=5, value=value) for _, value in found.values()],
            base_offset=offset,
            leader_epoch=epoch,
        )
        return raw, found

    for run in ([(2, 3)], [(6, 3), (8, 4), (20, 7)], [(22, 9)]):
        parts = [batch(offset, epoch) for offset, epoch in run]
        records = {o: c for _, found in parts for o, c in found.items()}
        world.append_raw(b"".join(raw for raw, _ in parts), dict(records), acks=1)
    world.append(2, acks=1)
    examine_all(world)


# opening ------------------------------------------------------------------------------------


def unclean(seed: int) -> list[Picture]:
    """What crashes leave that make work for a recovery."""
    world = World(config(segment_bytes=3000))
    world.open()
    world.append(2, acks="all", size=150)
    for size in (100, 600, 300, 900, 40):
        world.append(1 + size % 2, acks=1, size=size)
    rng = random.Random(seed)
    return rng.sample(world.pictures, min(len(world.pictures), 12 * SOAK))


@pytest.mark.parametrize("seed", [1, 2])
def test_a_crash_in_a_recovery_and_in_the_recovery_from_that_loses_nothing(seed: int) -> None:
    print(f"seed {seed}")
    rng = random.Random(seed)
    examined = 0
    for picture in unclean(seed):
        pictures = [picture]
        for depth in (1, 2):
            first = rng.choice(pictures)
            world = World(config(segment_bytes=3000), files=first.files)
            world.promises = first.promises
            world.clock.ms = first.now_ms
            lowest = first.promises.end if first.mode is CrashMode.KILL else first.promises.synced
            world.promises.end = (
                world.promises.synced if first.mode is not CrashMode.KILL else lowest
            )
            world.open()
            world.recording = False
            pictures = world.pictures
            for again in pictures if depth == 1 else rng.sample(pictures, min(len(pictures), 8)):
                again.name = f"{first.name}; then {again.name}"
                if depth == 2:
                    examine(again, world.config)
                    examined += 1
            if depth == 1:
                chosen = rng.sample(pictures, min(len(pictures), 8))
                keep = rng.choice(pictures)
                for again in chosen:
                    if again is not keep:
                        examine(again, world.config)
                        examined += 1
                pictures = [keep]
    assert examined > 50


# retention ----------------------------------------------------------------------------------


def filled(settings: LogConfig, *, batches: int = 7, acks: Acks = "all") -> World:
    """A log of a few segments, of which no pictures were taken."""
    world = World(settings)
    world.recording = False
    world.open()
    for number in range(batches):
        world.clock.ms += 1000
        world.append(2, acks=acks, size=300 + 40 * (number % 3))
    world.recording = True
    assert len(world.log.segments) > 2
    return world


def test_a_crash_in_a_retention_by_time_leaves_the_segments_or_takes_them_for_good() -> None:
    world = filled(config(retention_ms=3500))
    assert world.retain() > 0
    world.append(1)
    world.clock.ms += 1_000_000
    assert world.retain() > 1  # the active segment too
    world.append(2)
    world.purge()
    examine_all(world)


def test_a_crash_in_a_retention_by_size_leaves_the_segments_or_takes_them_for_good() -> None:
    world = filled(config(retention_bytes=2000))
    assert world.retain() > 1
    world.purge()
    world.append(3, acks=1)
    examine_all(world)


@pytest.mark.parametrize("acks", [1, "all"])
def test_a_crash_while_records_are_deleted_leaves_them_or_takes_them_for_good(acks: Acks) -> None:
    world = filled(config(), acks=acks)
    world.append(3, acks=acks, size=100)
    world.delete_records(1)
    world.delete_records(world.log.segments[2] + 1)
    world.delete_records(world.promises.end - 1)
    world.delete_records(world.promises.end)
    world.append(2, acks=acks)
    examine_all(world)


@pytest.mark.parametrize("segment", [1, 2, -1])
def test_a_crash_while_a_full_disk_is_emptied_leaves_a_log_without_holes(segment: int) -> None:
    world = filled(config())
    world.files.capacity = world.files.used
    world.delete_records(world.log.segments[segment] + 1)
    for picture in world.pictures:
        picture.files.capacity = None  # the next opening finds room again
    world.files.capacity = None
    world.append(2)
    examine_all(world)


# compaction ---------------------------------------------------------------------------------

KEYS = [b"key %d" % number for number in range(6)]


def updated(settings: LogConfig, *, rounds: int = 3) -> World:
    """A log in which a few keys were written again and again, and some deleted."""
    world = World(settings, crashes=[crash for crash in CRASHES if crash[1] < SOAK])
    world.recording = False
    world.open()
    for number in range(rounds):
        world.clock.ms += 1000
        world.append(3, size=150, keys=KEYS[number % 3 :])
        world.append(2, size=200, keys=[b"only %d" % number, KEYS[5]])
        if number % 2:
            world.append(1, keys=[KEYS[number % 4]], deleted=True)
    world.append(2, size=700, keys=KEYS[:1])
    world.recording = True
    assert len(world.log.segments) > 2
    return world


@pytest.mark.parametrize("segment_bytes", [800, 1500, 2500])
def test_a_crash_in_a_compaction_keeps_the_last_record_of_each_key(segment_bytes: int) -> None:
    world = updated(compacted(segment_bytes=segment_bytes), rounds=2 + segment_bytes // 1200)
    world.compact()
    world.append(3, keys=KEYS[3:], size=segment_bytes // 3)
    before = len(world.log.segments)
    world.compact()
    assert len(world.log.segments) < before  # what became small is merged
    world.purge()
    examine_all(world)


def test_a_crash_in_a_compaction_of_several_passes_keeps_the_last_record_of_each_key() -> None:
    world = updated(compacted(cleaner_dedupe_buffer_bytes=1024, segment_bytes=1000), rounds=3)
    world.recording = False
    assert world.log.plan_compaction().dirty_bytes
    world.recording = True
    world.promises.compacting = True
    result = world.log.compact(force=True)
    assert result.passes > 1
    world.returned()
    examine_all(world)


def test_a_crash_while_expired_tombstones_go_does_not_bring_their_keys_back() -> None:
    world = updated(compacted(delete_retention_ms=0))
    world.compact()
    for _ in range(2):
        world.clock.ms += 10
        world.append(2, keys=[b"more"], size=800)
        world.compact()
    assert not any(value is None for _, (_, value) in content(world.log))
    examine_all(world)


def test_a_crash_in_a_compaction_after_records_were_deleted_keeps_both() -> None:
    world = updated(compacted(segment_bytes=1000))
    world.delete_records(world.log.segments[1] + 1)
    world.compact()
    world.delete_records(world.log.segments[-1])
    world.compact()
    examine_all(world)


# truncation ---------------------------------------------------------------------------------


def cuts(world: World) -> dict[str, int]:
    """Where a log may be cut."""
    bases = world.log.segments
    return {
        "in the active segment": bases[-1] + 2,
        "inside a batch of the active segment": bases[-1] + 1,
        "at the active segment's base": bases[-1],
        "in a closed segment": bases[1] + 2,
        "inside a batch of a closed segment": bases[1] + 1,
        "at a closed segment's base": bases[1],
        "inside the first batch": 1,
        "at the log's start": 0,
    }


@pytest.mark.parametrize("acks", [1, "all"])
@pytest.mark.parametrize("place", list(cuts(filled(config()))))
def test_a_crash_in_a_truncation_leaves_an_end_between_the_old_and_the_new(
    place: str, acks: Acks
) -> None:
    world = filled(config(), acks=acks, batches=8)
    world.truncate(cuts(world)[place])
    world.append(1, acks=acks)
    world.append(2, acks=acks, size=500)
    examine_all(world)


def test_a_crash_in_a_truncation_of_a_compacted_log_brings_nothing_back() -> None:
    world = updated(compacted(segment_bytes=1000))
    world.compact()
    present = [offset for offset, _ in content(world.log)]
    gap = next(a + 2 for a, b in itertools.pairwise(present) if b - a > 2)
    world.truncate(present[-1])
    world.truncate(gap)
    world.append(2, keys=KEYS, size=300)
    world.truncate(gap + 1)
    world.append(2, keys=KEYS, size=800)
    world.compact()
    examine_all(world)


def test_a_crash_in_a_truncation_into_a_gap_of_a_replica_leaves_no_stale_index() -> None:
    world = World(config(segment_bytes=4000))
    world.recording = False
    world.open()
    world.append(2, size=300)
    found: dict[int, tuple[bytes | None, bytes | None]] = {
        20 + i: (None, b"r" * 400) for i in (0, 1)
    }
    batch = [Record(timestamp=5, value=value) for _, value in found.values()]
    world.append_raw(encode_batch(batch, base_offset=20, leader_epoch=1), found)
    world.recording = True
    world.truncate(10)
    world.append(2, size=300)
    examine_all(world)
