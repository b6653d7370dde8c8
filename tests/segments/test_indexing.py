"""The index rule: Kafka's own index files, byte for byte, and its edges one by one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from logstore.segments import offset_index, time_index
from logstore.segments.batch import iter_batches
from logstore.segments.indexing import IndexProgress, build_indexes
from logstore.segments.offset_index import OffsetEntry
from logstore.segments.time_index import TimeEntry

from .partitions import batch
from .strategies import examples

LOGS = sorted((Path(__file__).resolve().parent.parent / "golden").glob("*/*.log"))


@pytest.mark.parametrize("log", LOGS, ids=[log.parent.name for log in LOGS])
def test_the_indexes_of_kafkas_segments_come_out_byte_for_byte(log: Path) -> None:
    interval = json.loads(log.with_suffix(".json").read_text())["index_interval_bytes"]
    base_offset = int(log.stem)
    headers = ((found.position, found.header) for found in iter_batches(log.read_bytes()))
    built = build_indexes(headers, base_offset=base_offset, index_interval_bytes=interval)
    assert built == (
        log.with_suffix(".index").read_bytes(),
        log.with_suffix(".timeindex").read_bytes(),
    )


def test_the_first_batch_is_never_entered_and_an_interval_has_to_be_exceeded() -> None:
    progress = IndexProgress()
    assert progress.add(0, 100, 9, 5, 100) == (None, None)
    assert progress.add(100, 1, 10, 6, 100) == (None, None)  # 100 bytes: not more than 100
    assert progress.add(101, 50, 19, 7, 100) == (OffsetEntry(19, 101), TimeEntry(7, 19))
    assert progress.bytes_since_entry == 50  # the batch of the entry counts for the next one


def test_an_interval_of_zero_enters_every_batch_but_the_first() -> None:
    progress = IndexProgress()
    entries = [progress.add(n * 10, 10, n, n, 0)[0] for n in range(4)]
    assert entries == [None, OffsetEntry(1, 10), OffsetEntry(2, 20), OffsetEntry(3, 30)]


def test_a_time_entry_names_the_batch_that_brought_the_timestamp_first() -> None:
    progress = IndexProgress()
    progress.add(0, 10, 4, 50, 15)
    progress.add(10, 10, 9, 50, 15)
    offset_entry, time_entry = progress.add(20, 10, 14, 40, 15)
    assert (offset_entry, time_entry) == (OffsetEntry(14, 20), TimeEntry(50, 4))


def test_an_offset_entry_comes_without_a_time_entry_where_nothing_is_more_recent() -> None:
    progress = IndexProgress()
    progress.add(0, 10, 0, 50, 0)
    assert progress.add(10, 10, 1, 50, 0) == (OffsetEntry(1, 10), TimeEntry(50, 0))
    assert progress.add(20, 10, 2, 50, 0) == (OffsetEntry(2, 20), None)
    assert (progress.offset_entries, progress.time_entries) == (2, 1)


def test_the_last_time_entry_is_due_once() -> None:
    progress = IndexProgress()
    assert progress.final_time_entry() is None
    progress.add(0, 10, 3, 50, 1000)
    assert progress.final_time_entry() == TimeEntry(50, 3)
    assert progress.final_time_entry() is None
    progress.add(10, 10, 4, 51, 1000)
    assert progress.final_time_entry() == TimeEntry(51, 4)


def test_records_without_timestamps_are_never_entered_and_the_epoch_is() -> None:
    progress = IndexProgress()
    progress.add(0, 10, 0, -1, 0)
    assert progress.add(10, 10, 1, -1, 0) == (OffsetEntry(1, 10), None)
    assert progress.final_time_entry() is None
    assert progress.add(20, 10, 2, 0, 0) == (OffsetEntry(2, 20), TimeEntry(0, 2))


def test_a_segment_without_batches_has_empty_indexes() -> None:
    assert build_indexes([], base_offset=7, index_interval_bytes=4096) == (b"", b"")


@examples(100)
@given(
    timestamps=st.lists(st.integers(0, 50), max_size=30),
    interval=st.integers(0, 400),
    base_offset=st.sampled_from([0, 1, 5_000_000_000]),
)
def test_every_look_up_through_built_indexes_finds_what_a_scan_finds(
    timestamps: list[int], interval: int, base_offset: int
) -> None:
    log = b"".join(batch(base_offset + n, [timestamp]) for n, timestamp in enumerate(timestamps))
    headers = [(found.position, found.header) for found in iter_batches(log)]
    offsets, times = build_indexes(headers, base_offset=base_offset, index_interval_bytes=interval)
    for position, header in headers:
        offset_entry = offset_index.find(base_offset, offsets, header.base_offset)
        assert offset_entry is None or offset_entry.position <= position
        wanted = header.max_timestamp
        first = next(h.base_offset for _, h in headers if h.max_timestamp >= wanted)
        time_entry = time_index.find(base_offset, times, wanted)
        assert time_entry is None or time_entry.offset <= first
