"""A crash at every sync, rename, remove, create, write and publication of everything that changes a
partition, of every kind, and what is found afterwards (``crashes``)."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from logstore import LogConfig, Record
from logstore.log import Acks
from logstore.segments.batch import encode_batch
from logstore.segments.memory_files import CrashMode

from .crashes import CRASHES, DIRECTORY, SOAK, Picture, World, content, examine, examine_all


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
    for number, acks in enumerate([1, 1, "all", 0, 1, "all", 1, 1]):
        assert acks in (0, 1, "all")
        world.append(2, acks=acks, size=100 + 170 * (number % 4))  # type: ignore[arg-type]
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

    def batch(offset: int, epoch: int, count: int = 2) -> tuple[bytes, dict[int, tuple[None, bytes]]]:
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
            world.promises.end = world.promises.synced if first.mode is not CrashMode.KILL else lowest
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
