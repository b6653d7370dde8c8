"""Repair: what is cut, built and left; that other processes go on; that a crash does no harm."""

from __future__ import annotations

import itertools
import os
import random
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from logstore import FormatError, LogConfig, PartitionLog
from logstore.repair import Repair, repair
from logstore.repair_plan import longest_ascent
from logstore.segments.files import DiskFiles
from logstore.store import open_store

from .support import (
    GOLDEN,
    SpyFiles,
    StillClock,
    active_path,
    batches,
    content,
    copied,
    damage,
    index_paths,
    kill,
    opened,
    records,
    snapshot,
    values,
)

GOLDEN_DIRECTORIES = sorted(path for path in GOLDEN.iterdir() if path.is_dir())


def made(directory: Path, *, count: int = 24, closed: bool = True, **config: int | str) -> Path:
    """A log of ``count`` batches of two records, several segments, an index entry every other."""
    log = opened(directory, **{"segment_bytes": 700, "index_interval_bytes": 100, **config})
    for number in range(count):
        log.append(records(f"{number} a", f"{number} b", timestamp=1000 + number))
    if closed:
        log.close()
    else:
        kill(log)
    return directory


def logs(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.log"))


def kinds(steps: list[Repair]) -> list[str]:
    return [step.kind for step in steps]


def repaired(directory: Path, **options: bool) -> list[Repair]:
    return list(repair(directory, files=SpyFiles(), clock=StillClock(), **options))


def flip(path: Path, position: int, bit: int = 1) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= bit
    path.write_bytes(data)


def grow(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


def places(directory: Path) -> list[tuple[Path, int, int, int]]:
    """File, position, size and base offset of every batch."""
    with PartitionLog(directory, read_only=True) as log:
        return [
            (Path(batch.path or ""), batch.position, batch.header.size, batch.header.base_offset)
            for batch in batches(log)
        ]


# nothing to do ------------------------------------------------------------------------------


@pytest.mark.parametrize("golden", GOLDEN_DIRECTORIES, ids=lambda path: path.name)
def test_where_nothing_is_wrong_nothing_is_made(golden: Path, tmp_path: Path) -> None:
    directory = copied(golden, tmp_path / golden.name)
    if damage(directory):
        pytest.skip("golden damage")
    before = snapshot(directory)
    missing = [s for s in repaired(directory, dry_run=True) if "missing" not in s.reason]
    assert missing == []
    assert snapshot(directory) == before
    if not repaired(directory, dry_run=True):
        assert repaired(directory, drop_damaged=True) == []
        assert snapshot(directory) == before


def test_a_path_that_holds_no_partition_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="neither a partition's directory nor"):
        repaired(tmp_path)


# torn ends ----------------------------------------------------------------------------------


@pytest.mark.parametrize("closed", [True, False])
def test_a_torn_end_is_cut_and_open_handles_go_on(tmp_path: Path, closed: bool) -> None:
    directory = made(tmp_path / "a-0", closed=closed)
    with opened(directory, segment_bytes=700) as log:
        before = content(log)
        grow(active_path(log), logs(directory)[0].read_bytes()[:50])
        steps = repaired(directory)
        assert kinds(steps) == ["cut", "build", "build"]
        assert (steps[0].size, steps[0].path) == (50, str(active_path(log)))
        assert steps[0].saved is not None
        assert Path(steps[0].saved).read_bytes() == logs(directory)[0].read_bytes()[:50]
        assert content(log) == before
        log.append(records("more"))
        assert content(log)[-1] == (48, b"more")
        assert damage(directory) == []
    with opened(directory) as log:
        assert values(log)[-1] == b"more"


@pytest.mark.parametrize("tail", ["half a batch", "zeros", "nonsense", "a batch with a wrong sum"])
def test_a_torn_end_of_a_brokers_log_is_cut(tmp_path: Path, tail: str) -> None:
    directory = copied(GOLDEN / "v2-zstd-0", tmp_path / "v2-zstd-0")
    before = snapshot(directory)
    log, position, size, _ = places(directory)[-1]
    batch = log.read_bytes()[position : position + size]
    batch = struct.pack(">q", 1_000_000) + batch[8:]
    rest = {
        "half a batch": batch[: len(batch) // 2],
        "zeros": bytes(5000),
        "nonsense": random.Random(1).randbytes(3000),
        "a batch with a wrong sum": batch[:-1] + bytes([batch[-1] ^ 1]),
    }[tail]
    grow(log, rest)
    steps = repaired(directory)
    assert "left" not in kinds(steps)
    assert damage(directory) == []
    after = snapshot(directory)
    removed = [name for name in after if ".removed-" in name]
    assert bool(removed) == (tail != "zeros")
    assert after[log.name] == before[log.name]
    assert "state" not in after
    assert set(after) - set(before) <= {"lock", "cleaner", *removed}


def test_zeros_behind_a_closed_segment_are_cut_where_nothing_is_missing(tmp_path: Path) -> None:
    directory = made(tmp_path / "a-0")
    grow(logs(directory)[1], bytes(4096))
    assert "cut" in kinds(repaired(directory))
    assert damage(directory) == []


def test_what_was_known_to_be_whole_is_no_torn_end(tmp_path: Path) -> None:
    directory = made(tmp_path / "a-0")
    last = logs(directory)[-1]
    flip(last, last.stat().st_size - 1)
    steps = repaired(directory)
    assert kinds(steps) == ["left"]
    assert steps[0].remedy == "--drop-damaged"


# damage -------------------------------------------------------------------------------------


def test_damage_is_left_and_other_things_are_repaired(tmp_path: Path) -> None:
    directory = made(tmp_path / "a-0")
    flip(logs(directory)[0], 70)
    index = index_paths(directory)[-3]
    index.write_bytes(b"\xff" * 24)
    before = logs(directory)[0].read_bytes()
    steps = repaired(directory)
    assert sorted(kinds(steps)) == ["build", "left"]
    assert logs(directory)[0].read_bytes() == before
    assert len(damage(directory)) == 1
    with opened(directory, segment_bytes=700) as log:
        assert log.append(records("more")).base_offset == 48


def test_a_damaged_batch_is_taken_out_and_saved_and_open_handles_go_on(tmp_path: Path) -> None:
    directory = made(tmp_path / "a-0")
    for number in range(len(places(directory))):
        case = copied(directory, tmp_path / f"case-{number}")
        path, position, size, base = places(case)[number]
        with opened(case, segment_bytes=700) as log, opened(case, segment_bytes=700) as other:
            before = content(other)
            original = path.read_bytes()[position : position + size]
            flip(path, position + size - 3)
            steps = repaired(case, drop_damaged=True)
            drop = next(step for step in steps if step.kind == "drop")
            assert (drop.path, drop.position, drop.size) == (str(path), position, size)
            assert drop.saved == f"{path}.removed-{position}"
            saved = Path(drop.saved).read_bytes()
            assert sum(a != b for a, b in zip(saved, original, strict=True)) == 1
            left = [(o, v) for o, v in before if not base <= o < base + 2]
            assert content(log) == content(other) == left
            assert other.append(records("more")).base_offset == 48
            assert log.append(records("again")).base_offset == 49
            assert content(log) == content(other) == [*left, (48, b"more"), (49, b"again")]
        assert damage(case) == []
        assert repaired(case) == []


def test_a_base_offset_that_went_wrong_costs_one_batch(tmp_path: Path) -> None:
    directory = made(tmp_path / "a-0", segment_bytes=10_000)
    path, position, _, base = places(directory)[5]
    flip(path, position + 6)  # 256 too high
    steps = repaired(directory, drop_damaged=True)
    assert [(s.position) for s in steps if s.kind == "drop"] == [position]
    with opened(directory) as log:
        assert [o for o, _ in content(log)] == [o for o in range(48) if not base <= o < base + 2]


def test_any_byte_that_changed_costs_no_more_than_its_batch(tmp_path: Path) -> None:
    directory = made(tmp_path / "a-0", count=9, segment_bytes=400)
    with opened(directory) as log:
        before = content(log)
    all_places = places(directory)
    pristine = {path: path.read_bytes() for path in logs(directory)}
    cases = [(path, i) for path, data in pristine.items() for i in range(len(data))]
    seed = random.randrange(1 << 32)
    print("seed", seed)
    rng = random.Random(seed)
    for path, at in rng.sample(cases, 150):
        case = copied(directory, tmp_path / "case")
        flip(case / path.name, at, 1 << rng.randrange(8))
        steps = repaired(case, drop_damaged=True)
        assert damage(case) == [], (path, at)
        base = next(
            b
            for p, position, size, b in all_places
            if p == path and position <= at < position + size
        )
        with opened(case) as log:
            found = content(log)
        rest = [(o, v) for o, v in before if not base <= o < base + 2]
        assert [item for item in found if item in rest] == rest, (path, at, steps)
        shutil.rmtree(case)


def test_a_log_that_cannot_be_opened_can_after_its_repair(tmp_path: Path) -> None:
    directory = made(tmp_path / "a-0", segment_bytes=10_000)
    path, position, *_ = places(directory)[3]
    stuck = opened(directory, segment_bytes=10_000)
    before = content(stuck)
    flip(path, position + 70)
    with (directory / "state").open("r+b") as state:  # in place: the handle has it mapped
        state.write(bytes(64))
        state.seek(1024)
        state.write(bytes(64))
    with pytest.raises(FormatError):
        opened(directory)
    assert kinds(repaired(directory)) == ["left"]
    with pytest.raises(FormatError):
        stuck.append(records("never"))
    steps = repaired(directory, drop_damaged=True)
    assert kinds(steps) == ["drop", "build", "build"]
    assert content(stuck) == before[:6] + before[8:]
    assert stuck.append(records("more")).base_offset == 48
    stuck.close()
    with opened(directory) as log:
        assert values(log)[-1] == b"more"


# side files ---------------------------------------------------------------------------------


def rewritten(path: Path, change: str) -> None:
    if change == "lost":
        path.unlink()
    else:
        data = b"\xff" * 24 if change == "nonsense" else path.read_bytes() + b"\1"
        path.write_bytes(data)


def test_each_index_is_built_as_it_was(tmp_path: Path) -> None:
    directory = made(tmp_path / "a-0", index_interval_bytes=4096, segment_bytes=9000, count=300)
    for path in index_paths(directory):
        for change in ("lost", "nonsense", "longer"):
            case = copied(directory, tmp_path / "case")
            rewritten(case / path.name, change)
            steps = repaired(case)
            if steps:
                assert kinds(steps) == ["build"]
                assert damage(case) == []
                with opened(case) as log:
                    assert len(content(log)) == 600
                # Behind a recovery without an append, a close adds no last time entry.
                assert path.read_bytes().startswith((case / path.name).read_bytes())
                if path not in index_paths(directory)[-2:]:
                    assert (case / path.name).read_bytes() == path.read_bytes()
            shutil.rmtree(case)


def test_a_brokers_indexes_are_built_and_nothing_else_is_touched(tmp_path: Path) -> None:
    directory = copied(GOLDEN / "v2-none-0", tmp_path / "v2-none-0")
    before = snapshot(directory)
    for path in index_paths(directory):
        path.write_bytes(b"\1" * 23)
    assert set(kinds(repaired(directory))) == {"build"}
    assert damage(directory) == []
    after = snapshot(directory)
    assert set(after) - set(before) == {"lock", "cleaner"}
    changed = {name for name in before if after[name] != before[name]}
    assert all(name.endswith("index") for name in changed)


def test_a_transaction_index_is_built_as_the_broker_had_it(tmp_path: Path) -> None:
    directory = copied(GOLDEN / "partition-0", tmp_path / "partition-0")
    originals = {path: path.read_bytes() for path in directory.glob("*.txnindex")}
    originals = {path: data for path, data in originals.items() if data}
    assert originals
    for path, data in originals.items():
        path.write_bytes(b"\0" * (len(data) - 1))
    assert set(kinds(repaired(directory))) == {"build"}
    for path, data in originals.items():
        assert path.read_bytes() == data


@pytest.mark.parametrize("number", [0, 5, 23])
def test_a_leader_epoch_that_went_wrong_is_set_right(tmp_path: Path, number: int) -> None:
    directory = made(tmp_path / "a-0")
    before = {path: path.read_bytes() for path in logs(directory)}
    path, position, *_ = places(directory)[number]
    flip(path, position + 13)
    steps = repaired(directory)
    assert damage(directory) == []
    assert kinds(steps) == ["mend"]
    assert steps[0].position == position
    assert {path: path.read_bytes() for path in logs(directory)} == before


def test_leader_epochs_that_go_back_are_left_where_nothing_contradicts_them(
    tmp_path: Path,
) -> None:
    directory = made(tmp_path / "a-0")
    flip(logs(directory)[0], 13)
    (directory / "leader-epoch-checkpoint").unlink()
    before = snapshot(directory)
    assert repaired(directory) == []
    assert snapshot(directory) == before


def test_indexes_are_built_by_the_configuration_of_the_topic(tmp_path: Path) -> None:
    config = {"index_interval_bytes": 100, "segment_bytes": 700}
    with open_store(tmp_path / "s", maintenance_interval=None) as store:
        log = store.create_topic("a", config=config).partition(0)
        for number in range(24):
            log.append(records(f"{number} a", f"{number} b", timestamp=1000 + number))
        directory = Path(log.directory)
    closed = index_paths(directory)[:-2]  # those of the active one go on as an append finds them
    before = {path: path.read_bytes() for path in closed}
    assert all(before.values())
    for path in closed:
        path.unlink()
    assert set(kinds(repaired(directory))) == {"build"}
    assert {path: path.read_bytes() for path in closed} == before
    for path in index_paths(directory):
        path.write_bytes(b"rubbish")
    assert set(kinds(repaired(tmp_path / "s"))) == {"build"}
    assert {path: path.read_bytes() for path in closed} == before
    assert all(path.read_bytes() for path in index_paths(directory))
    # Without the definition the defaults are good enough.
    shutil.rmtree(tmp_path / "s" / "meta")
    for path in closed:
        path.unlink()
    assert set(kinds(repaired(directory))) == {"build"}
    assert damage(directory) == []


def test_leader_epochs_are_built_from_the_log(tmp_path: Path) -> None:
    directory = made(tmp_path / "a-0")
    path = directory / "leader-epoch-checkpoint"
    before = path.read_bytes()
    path.write_bytes(b"0\n1\nnonsense\n")
    with opened(directory) as log:  # a handle that works on as if nothing were wrong
        assert kinds(repaired(directory)) == ["build"]
        assert path.read_bytes() == before
        log.append(records("more"))
    assert damage(directory) == []


def test_what_others_write_anew_is_set_aside(tmp_path: Path) -> None:
    directory = copied(GOLDEN / "partition-0", tmp_path / "partition-0")
    file = next(iter(sorted(directory.glob("*.snapshot"))))
    flip(file, file.stat().st_size - 1)
    broken = file.read_bytes()
    steps = repaired(directory)
    assert kinds(steps) == ["aside"]
    assert not file.exists()
    assert Path(steps[0].saved or "").read_bytes() == broken
    assert damage(directory) == []


def test_a_broken_log_start_offset_does_not_bring_deleted_records_back(tmp_path: Path) -> None:
    directory = made(tmp_path / "a-0")
    with opened(directory, segment_bytes=700) as log:
        log.delete_records(7)
        path = directory / "log-start-offset-checkpoint"
        before = path.read_bytes()
        path.write_bytes(b"nonsense")
        assert kinds(repaired(directory)) == ["build"]
        assert path.read_bytes() == before
        assert log.log_start_offset == 7


# locks, dry runs, crashes -------------------------------------------------------------------


def broken_everywhere(directory: Path) -> Path:
    made(directory)
    flip(logs(directory)[1], 100)
    index_paths(directory)[0].write_bytes(b"\xff" * 24)
    index_paths(directory)[-1].unlink()
    flip(logs(directory)[-1], 80)
    grow(logs(directory)[-1], b"torn" * 9)
    return directory


def test_a_dry_run_tells_what_is_done_then_and_changes_nothing(tmp_path: Path) -> None:
    for drop in (False, True):
        directory = broken_everywhere(tmp_path / f"{drop}-0")
        before = snapshot(directory)
        told = repaired(directory, dry_run=True, drop_damaged=drop)
        assert snapshot(directory) == before
        done = repaired(directory, drop_damaged=drop)
        assert [s._replace(saved=None) for s in done] == told
        assert bool(damage(directory)) == ("left" in kinds(done)) == (not drop)


def test_a_partition_that_somebody_holds_fails_and_others_are_repaired(tmp_path: Path) -> None:
    first, second = (broken_everywhere(tmp_path / name) for name in ("a-0", "b-0"))
    lock = DiskFiles().lock(str(first / "lock"))
    lock.acquire()
    try:
        steps = list(repair(tmp_path, files=SpyFiles(), drop_damaged=True, lock_timeout=0.1))
    finally:
        lock.close()
    assert [s.path for s in steps if s.kind == "failed"] == [str(first)]
    assert damage(second) == []
    assert damage(first)


class Killed(BaseException):
    """The process is gone."""


def killed_at(number: int) -> Callable[[str, str], None]:
    count = 0

    def before(operation: str, path: str) -> None:
        nonlocal count
        if operation in ("read", "names", "exists", "size", "is_directory"):
            return
        count += 1
        if count > number:
            raise Killed

    return before


def test_a_repair_that_is_killed_anywhere_can_be_done_again(tmp_path: Path) -> None:
    pristine = made(tmp_path / "pristine-0")
    broken = broken_everywhere(tmp_path / "broken-0")
    with PartitionLog(pristine, read_only=True) as log:
        everything = content(log)
    twin = copied(broken, tmp_path / "twin-0")
    repaired(twin, drop_damaged=True)
    with PartitionLog(twin, read_only=True) as log:
        expected = content(log)
    assert len(everything) - 2 * 2 == len(expected)
    for number in range(1000):
        directory = tmp_path / "case-0"
        copied(broken, directory)
        bystander = None
        if number % 2:
            bystander = _forced_open(directory)
        files = SpyFiles()
        files.before = killed_at(number)
        finished = False
        try:
            list(repair(directory, drop_damaged=True, files=files, clock=StillClock()))
            finished = True
        except Killed:
            files.before = lambda operation, path: None
        again = repaired(directory, drop_damaged=True)
        assert not {"left", "failed"} & set(kinds(again)), number
        assert damage(directory) == [], number
        if bystander is not None:
            assert content(bystander) == expected
            bystander.close()
        with PartitionLog(directory, config=LogConfig(segment_bytes=700)) as log:
            assert content(log) == expected, number
            assert log.append(records("more")).base_offset == log.log_end_offset - 1
        shutil.rmtree(directory)
        if finished:
            assert number > 20
            return
    raise AssertionError("it never came to its end")


def _forced_open(directory: Path) -> PartitionLog:
    """A handle that was opened while the active segment was whole."""
    last = logs(directory)[-1]
    data = last.read_bytes()
    flip(last, 80)
    with last.open("r+b") as file:
        file.truncate(len(data) - 36)
    log = opened(directory, segment_bytes=700)
    with last.open("r+b") as file:
        file.write(data)
    return log


# the order of offsets -----------------------------------------------------------------------


def test_as_many_ranges_as_possible_stay_in_order() -> None:
    seed = random.randrange(1 << 32)
    print("seed", seed)
    rng = random.Random(seed)
    for _ in range(300):
        ranges = []
        for _ in range(rng.randrange(9)):
            start = rng.randrange(12)
            ranges.append((start, start + rng.randint(1, 4)))
        chosen = longest_ascent(ranges)
        picked = [ranges[number] for number in sorted(chosen)]
        assert all(a[1] <= b[0] for a, b in itertools.pairwise(picked))
        best = max(
            bin(mask).count("1")
            for mask in range(1 << len(ranges))
            if _ascends([r for i, r in enumerate(ranges) if mask >> i & 1])
        )
        assert len(chosen) == best


def test_where_several_orders_are_as_long_the_one_without_gaps_stays() -> None:
    whole = [(start, start + 2) for start in range(8, 20, 2)]
    for number, (start, end) in enumerate(whole):
        for shift in (-4, -3, -2, -1, 1, 2, 3, 4, 64):
            ranges = list(whole)
            ranges[number] = (start + shift, end + shift)
            if (number == 0 and shift < 0) or (number == len(whole) - 1 and shift > 0):
                continue  # nothing contradicts it
            assert longest_ascent(ranges) == set(range(len(whole))) - {number}, (number, shift)


def _ascends(ranges: list[tuple[int, int]]) -> bool:
    return all(a[1] <= b[0] for a, b in itertools.pairwise(ranges))


def test_every_name_that_a_repair_leaves_is_no_part_of_the_log(tmp_path: Path) -> None:
    directory = broken_everywhere(tmp_path / "a-0")
    repaired(directory, drop_damaged=True)
    names = [name for name in os.listdir(directory) if ".removed-" in name]
    assert len(names) == 3
    with PartitionLog(directory) as log:
        assert all(f"{base:020d}.log" not in names for base in log.segments)
    assert not [name for name in os.listdir(directory) if name.endswith(".tmp")]
