"""Checking the indexes of a segment against its log."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import pytest

from logstore.segments.check_index import MOST_PROBLEMS
from logstore.segments.offset_index import OffsetEntry
from logstore.segments.offset_index import encode_entry as offset_entry
from logstore.segments.time_index import TimeEntry
from logstore.segments.time_index import encode_entry as time_entry

from .partitions import (
    FIRST_INDEX,
    NOW,
    batch,
    damage_in,
    findings_of,
    in_memory,
    one_damage,
    place,
    segment,
    two_segments,
)

ONE_BATCH = len(batch(0, [0]))


def with_entries(
    *, offsets: Sequence[tuple[int, int]] = (), times: Sequence[tuple[int, int]] = ()
) -> dict[str, bytes]:
    """Four batches of one record each, with offsets and timestamps 0 to 3, and these entries."""
    return {
        "00000000000000000000.log": b"".join(batch(n, [n]) for n in range(4)),
        "00000000000000000000.index": b"".join(offset_entry(0, OffsetEntry(*e)) for e in offsets),
        "00000000000000000000.timeindex": b"".join(
            time_entry(0, TimeEntry(NOW + timestamp, offset)) for timestamp, offset in times
        ),
    }


@pytest.mark.parametrize(
    ("offsets", "position", "words"),
    [
        ([(1, ONE_BATCH), (1, 2 * ONE_BATCH)], 8, "offsets do not ascend"),
        ([(1, ONE_BATCH), (2, ONE_BATCH)], 8, "positions do not ascend"),
        ([(1, ONE_BATCH + 1)], 0, "leads to no batch"),
        ([(1, ONE_BATCH), (3, 4 * ONE_BATCH - 1)], 8, "leads to no batch"),
        ([(1, 4 * ONE_BATCH + 1)], 0, "behind the log's end"),
        ([(1, ONE_BATCH), (1000, 2 * ONE_BATCH)], 8, "not in the log"),
        ([(1, 2 * ONE_BATCH)], 0, "leads past its offset"),
        ([(0, ONE_BATCH)], 0, "leads past its offset"),
    ],
)
def test_wrong_entries_of_an_offset_index_are_found(
    offsets: list[tuple[int, int]], position: int, words: str
) -> None:
    finding = one_damage(with_entries(offsets=offsets))
    assert place(finding) == ("00000000000000000000.index", position)
    assert words in finding.reason


def test_an_offset_index_need_not_name_the_last_offset_of_a_batch() -> None:
    # Old brokers named the first one, and of several batches that came together the last one.
    wide = with_entries(offsets=[(3, ONE_BATCH)])
    assert damage_in(wide) == []


@pytest.mark.parametrize(
    ("times", "position", "words"),
    [
        ([(1, 1), (1, 2)], 12, "timestamps do not ascend"),
        ([(1, 1), (2, 1)], 12, "offsets do not ascend"),
        ([(1, 2)], 0, "leads past its timestamp"),
        ([(2, 1)], 0, "not that of the batch"),
        ([(3, 4)], 0, "not in the log"),
        ([(-NOW - 1, 0)], 0, "leads past its timestamp"),
    ],
)
def test_wrong_entries_of_a_time_index_are_found(
    times: list[tuple[int, int]], position: int, words: str
) -> None:
    finding = one_damage(with_entries(times=times))
    assert place(finding) == ("00000000000000000000.timeindex", position)
    assert words in finding.reason


def test_right_entries_are_right() -> None:
    offsets = [(1, ONE_BATCH), (3, 3 * ONE_BATCH)]
    assert findings_of(in_memory(with_entries(offsets=offsets, times=[(1, 1), (3, 3)]))) == []


@pytest.mark.parametrize(("suffix", "size"), [(".index", 8), (".timeindex", 12)])
def test_an_index_that_ends_inside_an_entry_is_damage(suffix: str, size: int) -> None:
    contents = two_segments()
    name = "00000000000000000100" + suffix
    whole = len(contents[name])
    contents[name] += b"\1" * (size - 1)
    assert place(one_damage(contents)) == (name, whole)


def test_an_index_of_another_log_does_not_flood_the_reader() -> None:
    batches = [batch(n, [n]) for n in range(100)]
    contents = segment(batches, 0, interval=1)
    contents["00000000000000000000.index"] = b"".join(
        struct.pack(">II", n + 1, n * 100 + 1) for n in range(80)
    )
    found = damage_in(contents)
    assert len(found) == MOST_PROBLEMS
    assert "not told" in found[-1].reason


def test_an_entry_of_a_batch_that_was_never_written_is_a_note() -> None:
    # A writer puts entries in front of the batch; this is what a kill between the two leaves.
    contents = with_entries(offsets=[(1, ONE_BATCH), (4, 4 * ONE_BATCH)], times=[(1, 1), (4, 4)])
    found = findings_of(in_memory(contents))
    assert [(f.severity, place(f)) for f in found] == [
        ("note", ("00000000000000000000.index", 8)),
        ("note", ("00000000000000000000.timeindex", 12)),
    ]


def test_an_index_alone_is_checked_as_far_as_that_goes() -> None:
    files = in_memory({FIRST_INDEX: b"\0\0\0\5\0\0\1\0" * 2})
    found = findings_of(files, f"orders-0/{FIRST_INDEX}")
    assert [f.severity for f in found] == ["damage", "note"]


def test_an_index_that_is_asked_for_is_compared_with_the_log_beside_it() -> None:
    contents = with_entries(offsets=[(1, ONE_BATCH + 1)], times=[(3, 4)])
    files = in_memory(contents)
    for suffix in (".index", ".timeindex"):
        path = f"orders-0/00000000000000000000{suffix}"
        assert [f.path for f in findings_of(files, path)] == [path]
