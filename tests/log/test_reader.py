"""Reading from any offset and by time, whatever has become of the indexes."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from logstore import (
    ChecksumError,
    Codec,
    FormatError,
    InvalidInputError,
    OffsetOutOfRangeError,
    PartitionLog,
    Record,
)
from logstore.segments.batch import Batch

from .support import (
    OTHER_BOOT,
    SpyFiles,
    active_path,
    content,
    copied,
    fetches,
    index_paths,
    kill,
    opened,
    raw_batch,
    records,
    values,
)

SMALL = {"segment_bytes": 700, "index_interval_bytes": 150}
"""Several segments, and several index entries in each of them."""


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "orders-0"


@pytest.fixture
def log(directory: Path) -> Iterator[PartitionLog]:
    with opened(directory, **SMALL) as log:
        yield log


# offsets ------------------------------------------------------------------------------------


def fill(log: PartitionLog, seed: int = 1) -> list[tuple[int, bytes]]:
    """Many batches of several records, with gaps within segments and between them."""
    rng = random.Random(seed)
    expected = []
    for number in range(40):
        gap = rng.choice((0, 0, 0, 1, 50, 10_000)) if number else 0
        base = log.log_end_offset + gap
        batch = [
            f"{number}/{i} {'.' * rng.randint(0, 40)}".encode() for i in range(rng.randint(1, 5))
        ]
        log.append_raw(raw_batch(base, *batch, timestamp=1000 + number), origin="replica", acks=1)
        expected += [(base + i, value) for i, value in enumerate(batch)]
    return expected


def test_reading_from_any_offset_finds_everything_from_there_on(log: PartitionLog) -> None:
    expected = fill(log)
    assert len(log.segments) > 4
    assert content(log) == expected
    around = {offset + step for offset, _ in expected for step in (-1, 0, 1, 25)}
    around |= {base + step for base in log.segments for step in (-1, 0, 1)}
    for offset in sorted(o for o in around if 0 <= o <= log.log_end_offset):
        fetch = log.read(offset, max_bytes=1)
        following = [(o, v) for o, v in expected if o >= offset]
        first = [(r.offset, r.value) for r in fetch.records()]
        assert first == following[: len(first)], offset
        assert bool(first) == bool(following)
    for offset in (0, 17, expected[20][0], expected[50][0] - 1):
        assert content(log, offset) == [(o, v) for o, v in expected if o >= offset]


def test_a_fetch_says_where_it_comes_from_and_where_the_log_ends(log: PartitionLog) -> None:
    fill(log)
    for fetch in fetches(log, max_bytes=200):
        file = Path(fetch.path).read_bytes()
        assert file[fetch.position : fetch.position + len(fetch.data)] == fetch.data
        assert fetch.log_start_offset == 0
        assert fetch.log_end_offset == fetch.high_watermark == log.log_end_offset
        batches = list(fetch.batches())
        assert fetch.next_offset == batches[-1].header.next_offset
        assert batches[0].position == fetch.position
        assert b"".join(batch.raw for batch in batches) == fetch.data


def test_reading_inside_a_batch_gives_the_batch_and_the_records_behind(log: PartitionLog) -> None:
    log.append(records("a", "b", "c", "d"), codec=Codec.GZIP)
    fetch = log.read(2)
    assert fetch.offset == 2
    assert next(fetch.batches()).header.base_offset == 0
    assert [(r.offset, r.value) for r in fetch.records()] == [(2, b"c"), (3, b"d")]


def test_at_the_end_of_the_log_the_fetch_is_empty(log: PartitionLog) -> None:
    fetch = log.read(0)
    assert (fetch.data, fetch.next_offset, list(fetch.records())) == (b"", 0, [])
    log.append(records("a"))
    fetch = log.read(1)
    assert (fetch.data, fetch.next_offset, fetch.log_end_offset) == (b"", 1, 1)


@pytest.mark.parametrize("offset", [-1, 3, 4, 1 << 40])
def test_an_offset_out_of_range_names_the_range(
    directory: Path, log: PartitionLog, offset: int
) -> None:
    log.append(records("a", "b"))
    with pytest.raises(OffsetOutOfRangeError, match=r"the log holds 0 to 1") as caught:
        log.read(offset)
    assert f"offset {offset} is out of range" in str(caught.value)
    assert str(directory) in str(caught.value)
    assert (caught.value.offset, caught.value.log_start_offset) == (offset, 0)
    assert caught.value.log_end_offset == 2


def test_an_offset_out_of_the_range_of_an_empty_log_says_that_it_is_empty(
    log: PartitionLog,
) -> None:
    with pytest.raises(OffsetOutOfRangeError, match="the log is empty at 0"):
        log.read(1)


def test_max_bytes_bounds_a_fetch_but_it_has_at_least_one_batch(directory: Path) -> None:
    with opened(directory) as log:
        for _ in range(10):
            log.append(records(b"x" * 100))
        size = len(raw_batch(0, b"x" * 100))
        for max_bytes in (1, 26, 27, 61, size - 1, size, size + 1, 2 * size - 1):
            assert len(log.read(3, max_bytes=max_bytes).data) == size, max_bytes
        assert len(log.read(3, max_bytes=2 * size).data) == 2 * size
        assert len(log.read(3, max_bytes=1 << 30).data) == 7 * size
        log.append(records(b"y" * 100_000))
        assert len(log.read(10, max_bytes=1).data) > 100_000


@pytest.mark.parametrize("max_bytes", [0, -1])
def test_max_bytes_below_one_is_refused(log: PartitionLog, max_bytes: int) -> None:
    with pytest.raises(InvalidInputError, match="at least 1"):
        log.read(0, max_bytes=max_bytes)


def test_readers_may_ask_for_what_is_synced_only(log: PartitionLog) -> None:
    log.append(records("a", "b"))
    log.append(records("c"), acks=1)
    assert [r.value for r in log.read(0, upto="synced").records()] == [b"a", b"b"]
    fetch = log.read(2, upto="synced")
    assert (fetch.data, fetch.next_offset, fetch.high_watermark) == (b"", 2, 2)
    assert fetch.log_end_offset == 3
    fetch = log.read(3, upto="synced")
    assert (fetch.data, fetch.next_offset) == (b"", 3)
    assert values(log) == [b"a", b"b", b"c"]
    log.flush()
    assert [r.value for r in log.read(0, upto="synced").records()] == [b"a", b"b", b"c"]
    upto: Any = "everything"
    with pytest.raises(InvalidInputError, match="written, synced or an offset"):
        log.read(0, upto=upto)


def test_control_records_are_not_shown_as_records(directory: Path) -> None:
    log = PartitionLog(Path(__file__).parents[1] / "golden" / "v2-transactions-0", read_only=True)
    everything = [batch for fetch in fetches(log) for batch in fetch.batches()]
    control = {b.header.base_offset for b in everything if b.header.control}
    assert control
    assert not control & {offset for offset, _ in content(log)}


def test_going_on_reading_costs_one_read_for_each_fetch(directory: Path) -> None:
    files = SpyFiles()
    with opened(directory, files) as log:
        for _ in range(200):
            log.append(records(b"x" * 100), acks=1)
        offset = log.read(0, max_bytes=2000).next_offset
        files.counts.clear()
        count = 0
        while offset < log.log_end_offset:
            offset = log.read(offset, max_bytes=2000).next_offset
            count += 1
        assert files.counts["read"] == count
        assert files.counts["open"] == 0


# damage -------------------------------------------------------------------------------------


def test_damage_in_the_middle_is_met_where_it_is_and_not_before(directory: Path) -> None:
    with opened(directory) as log:
        for number in range(5):
            log.append(records(f"{number}"))
        path = active_path(log)
        size = path.stat().st_size // 5
        data = bytearray(path.read_bytes())
        data[2 * size + 65] ^= 1
        path.write_bytes(data)
        found = log.read(0).records()
        assert [next(found).value, next(found).value] == [b"0", b"1"]
        with pytest.raises(ChecksumError) as caught:
            next(found)
        assert (caught.value.path, caught.value.position) == (str(path), 2 * size)
        assert [r.value for r in log.read(3).records()] == [b"3", b"4"]


@pytest.mark.parametrize("length", [0, 5, 100_000, 0x7FFFFFFF, 0x80000000])
def test_a_damaged_length_is_damage_at_its_place(directory: Path, length: int) -> None:
    with opened(directory) as log:
        for number in range(5):
            log.append(records(f"{number}"))
        path = active_path(log)
        size = path.stat().st_size // 5
        data = bytearray(path.read_bytes())
        data[2 * size + 8 : 2 * size + 12] = length.to_bytes(4)
        path.write_bytes(data)
        assert [r.value for r in log.read(0).records()] == [b"0", b"1"]
        for offset in (2, 4):
            with pytest.raises(FormatError) as caught:
                list(log.read(offset).records())
            assert (caught.value.path, caught.value.position) == (str(path), 2 * size)


def test_a_damaged_last_offset_does_not_look_like_a_gap(directory: Path) -> None:
    with opened(directory) as log:
        for number in range(3):
            log.append(records(*(f"{number}/{i}" for i in range(10))))
        path = active_path(log)
        size = path.stat().st_size // 3
        for damaged, offset in ((0, 5), (1, 15), (2, 25)):
            data = bytearray(path.read_bytes())
            data[damaged * size + 26] = 1  # the last offset's delta, which was 9
            path.write_bytes(data)
            with pytest.raises(ChecksumError) as caught:
                log.read(offset)
            assert (caught.value.path, caught.value.position) == (str(path), damaged * size)
            data[damaged * size + 26] = 9
            path.write_bytes(data)
            assert next(log.read(offset).records()).offset == offset


# indexes ------------------------------------------------------------------------------------


def delete(path: Path) -> None:
    path.unlink()


def empty(path: Path) -> None:
    path.write_bytes(b"")


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size * 2 // 3 + 1)


def zero(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def scramble(path: Path) -> None:
    path.write_bytes(random.Random(path.name).randbytes(path.stat().st_size))


def rotate(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[8:] + data[:8])


def grow(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\xff" * 24)


def point_too_far(path: Path) -> None:
    path.write_bytes(b"\0\0\0\1\xff\xff\xff\xf0" * (path.stat().st_size // 8))


def point_between(path: Path) -> None:
    path.write_bytes(b"\0\0\0\1\0\0\0\x0d" * (path.stat().st_size // 8))


def swap(path: Path) -> None:
    other = path.with_suffix(".timeindex" if path.suffix == ".index" else ".index")
    if path.suffix == ".index" and other.exists():
        mine, others = path.read_bytes(), other.read_bytes()
        path.write_bytes(others)
        other.write_bytes(mine)


SPOILERS = [delete, empty, cut, zero, scramble, rotate, grow, point_too_far, point_between, swap]


@pytest.fixture(params=["an open handle", "a new handle", "after a power cut", "read only"])
def reopen(request: pytest.FixtureRequest) -> Callable[[PartitionLog], PartitionLog]:
    """How the log is read after its indexes were spoilt."""

    def choose(log: PartitionLog) -> PartitionLog:
        if request.param == "an open handle":
            return log
        if request.param == "a new handle":
            log.close()
            return opened(log.directory, **SMALL)
        if request.param == "after a power cut":
            kill(log)
            return opened(log.directory, SpyFiles(OTHER_BOOT), **SMALL)
        return PartitionLog(log.directory, read_only=True)

    return choose


@pytest.mark.parametrize("spoil", SPOILERS, ids=lambda spoil: str(spoil.__name__))
def test_spoilt_indexes_lose_nothing(
    directory: Path, spoil: Callable[[Path], None], reopen: Callable[[PartitionLog], PartitionLog]
) -> None:
    log = opened(directory, **SMALL)
    expected = fill(log)
    timestamps = {o: r.timestamp for f in fetches(log) for r in f.records() for o in [r.offset]}
    assert sum(path.stat().st_size > 8 for path in index_paths(directory)) > 6
    for path in index_paths(directory):
        spoil(path)
    log = reopen(log)
    for offset, value in expected:
        found = next(log.read(offset).records())
        assert (found.offset, found.value) == (offset, value)
    assert content(log) == expected
    for timestamp in range(995, 1045):
        first = next(((o, t) for o, t in timestamps.items() if t >= timestamp), None)
        assert log.offset_for_time(timestamp) == first, timestamp
    if not log._read_only:
        appended = log.append(records("next", timestamp=2000))
        assert content(log)[-1] == (appended.base_offset, b"next")
        assert log.offset_for_time(2000) == (appended.base_offset, 2000)
        assert content(log)[:-1] == expected
    log.close()


# time ---------------------------------------------------------------------------------------

timestamps_strategy = st.lists(
    st.lists(st.integers(0, 60), min_size=1, max_size=4), min_size=1, max_size=40
)


@settings(deadline=None, max_examples=40)
@given(timestamps_strategy, st.sampled_from([0, 100, 4096]), st.randoms(use_true_random=False))
def test_times_are_found_as_a_look_at_every_record_would_find_them(
    tmp_path_factory: pytest.TempPathFactory,
    batches: list[list[int]],
    interval: int,
    rng: random.Random,
) -> None:
    directory = tmp_path_factory.mktemp("time") / "orders-0"
    config = {"segment_bytes": 600, "index_interval_bytes": interval}
    with opened(directory, **config) as log:
        flat: list[int] = []
        for batch in batches:
            log.append([Record(timestamp=t, value=b"x" * 20) for t in batch], acks=1)
            flat += batch
            if rng.random() < 0.2:
                check_times(log, flat)
        check_times(log, flat)
    with opened(directory, SpyFiles(OTHER_BOOT), **config) as log:
        check_times(log, flat)
    with PartitionLog(directory, read_only=True) as log:
        check_times(log, flat)


def check_times(log: PartitionLog, flat: list[int]) -> None:
    """Compare with a naive search."""
    for timestamp in range(-1, 63, 3):
        naive = next(((o, t) for o, t in enumerate(flat) if t >= timestamp), None)
        assert log.offset_for_time(timestamp) == naive


def test_records_without_a_time_are_found_by_none(directory: Path) -> None:
    directory.mkdir()
    with opened(directory) as log:
        log.append_raw(raw_batch(0, "a", timestamp=-1))
        log.append(records("b", timestamp=5))
        assert log.offset_for_time(0) == (1, 5)
        assert log.offset_for_time(5) == (1, 5)
        assert log.offset_for_time(6) is None


def test_an_index_spares_most_of_a_segment(directory: Path) -> None:
    files = SpyFiles()
    with opened(directory, files, index_interval_bytes=4096) as log:
        for number in range(3000):
            log.append(records(b"x" * 1000, timestamp=number), acks=1)
        files.bytes_read.clear()
        log.read(2990, max_bytes=1)
        assert files.bytes_read[".log"] < 200_000
        files.bytes_read.clear()
        assert log.offset_for_time(1500) == (1500, 1500)
        assert files.bytes_read[".log"] < 1_300_000


# following ----------------------------------------------------------------------------------


def test_a_reader_follows_across_rolls_and_gaps(directory: Path) -> None:
    with opened(directory, **SMALL) as writer:
        reader = PartitionLog(directory, read_only=True)
        other = opened(directory, **SMALL)
        offsets = [0, 0]
        seen: list[list[tuple[int, bytes]]] = [[], []]
        expected = []
        rng = random.Random(3)
        for number in range(100):
            base = writer.log_end_offset + rng.choice((0, 0, 0, 7))
            value = f"{number}".encode() * 10
            writer.append_raw(raw_batch(base, value), origin="replica", acks=1)
            expected.append((base, value))
            for which, log in enumerate((reader, other)):
                if rng.random() < 0.5 or number == 99:
                    while (fetch := log.read(offsets[which])).data:
                        seen[which] += [(r.offset, r.value or b"") for r in fetch.records()]
                        offsets[which] = fetch.next_offset
        assert seen == [expected, expected]
        assert reader.segments == other.segments == writer.segments
        reader.close()
        other.close()


def test_a_reader_of_a_copied_directory_waits_where_the_log_ends_in_a_torn_batch(
    directory: Path, tmp_path: Path
) -> None:
    with opened(directory) as log:
        log.append(records("a"))
        end = active_path(log).stat().st_size
        log.append(records("b"))
    copy = copied(directory, tmp_path / "copy-0")
    path = copy / "00000000000000000000.log"
    whole = path.read_bytes()
    os.truncate(path, end + 30)
    with PartitionLog(copy, read_only=True) as reader:
        assert values(reader) == [b"a"]
        assert not reader.wait(1, 0)
        path.write_bytes(whole)
        assert reader.wait(1, 0)
        assert values(reader) == [b"a", b"b"]


def test_a_partition_that_was_never_opened_has_no_segments_and_nothing_to_do(
    tmp_path: Path,
) -> None:
    with PartitionLog(tmp_path, read_only=True) as log:
        assert log.segment_infos() == []
        assert log.retain(dry_run=True) == []
        assert not log.plan_compaction().due


# large pieces -------------------------------------------------------------------------------


def test_a_large_read_ends_at_a_whole_batch_too(directory: Path) -> None:
    with opened(directory) as log:
        for number in range(12):
            log.append([Record(timestamp=number, value=bytes([number]) * 50_000)], acks=1)
        for max_bytes in (300_000, 420_000, 1 << 20):
            offset, found = 0, []
            while (fetch := log.read(offset, max_bytes=max_bytes)).data:
                batches = list(fetch.batches())
                assert sum(batch.header.size for batch in batches) == len(fetch.data)
                assert len(fetch.data) <= max_bytes
                found += [record.value for batch in batches for record in batch.records()]
                offset = fetch.next_offset
            assert found == [bytes([number]) * 50_000 for number in range(12)]


def test_batches_that_were_read_are_appended_as_their_bytes_would_be(tmp_path: Path) -> None:
    with opened(tmp_path / "a-0") as source, opened(tmp_path / "b-0") as target:
        for number in range(3):
            source.append([Record(timestamp=number, value=b"%d" % number)] * 2, acks=1)
        target.append([Record(timestamp=9, value=b"first")], acks=1)
        batches = list(source.read(0).batches())
        appended = target.append_raw(batches, acks=1)
        assert (appended.base_offset, appended.last_offset) == (1, 6)
        assert [record.value for record in target.read(1).records()] == [
            record.value for record in source.read(0).records()
        ]
        assert batches[0].header.base_offset == 0  # the caller's own are left as they were
        broken = bytearray(batches[0].raw)
        broken[-1] ^= 1
        with pytest.raises(ChecksumError):
            target.append_raw([Batch.parse(bytes(broken))])
        with pytest.raises(InvalidInputError, match="no batch"):
            target.append_raw([])
        assert target.log_end_offset == 7
