"""Sources: what they give, in which order, from where to where, and how they go on."""

from __future__ import annotations

import io
import json
import os
import shutil
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import logstore
from logstore import ConsumerRecord, PartitionLog, Record
from logstore.errors import ChecksumError, InvalidInputError, OffsetOutOfRangeError
from logstore.json_records import json_line, parse_record_line, record_fields, record_line
from logstore.replay.file_source import FileSource, open_file, open_stream
from logstore.replay.log_source import open_directories, parse_partitions
from logstore.replay.merging import merged
from logstore.replay.source import Position, Range, Source
from logstore.segments.batch import encode_batch
from logstore.segments.control import ControlType, end_transaction_marker
from logstore.segments.files import DiskFiles, Files

from .support import (
    START_MS,
    ReadingOnly,
    append,
    fill,
    read_all,
    read_until_error,
    record,
    row,
    topic_source,
)

GOLDEN = Path(__file__).resolve().parent.parent / "golden"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``ten``: ten records a second apart; ``parts``: three partitions out of step."""
    path = tmp_path_factory.mktemp("store")
    fill(path, "ten", [[record(f"v{n}", n * 1000, b"k%d" % n) for n in range(10)]])
    times = [[10, 40, 20, 60], [30, 30], [10, 15, 50]]
    fill(
        path,
        "parts",
        [[record(f"p{p} at {t}", t) for t in ts] for p, ts in enumerate(times)],
        batch=2,
    )
    return path


MERGED = [
    "p0 at 10", "p2 at 10", "p2 at 15", "p1 at 30", "p1 at 30", "p0 at 40", "p0 at 20", "p2 at 50",
    "p0 at 60",
]  # fmt: skip


def values(source: Source, position: Position | None = None) -> list[str]:
    return [(one.value or b"").decode() for one in read_all(source, position)]


# --- ranges -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "first", "end"),
    [
        ({}, 0, 10),
        ({"offset": 3}, 3, 10),
        ({"offset": 10}, 10, 10),
        ({"end_offset": 4}, 0, 4),
        ({"end_offset": 400}, 0, 10),
        ({"offset": 4, "end_offset": 8}, 4, 8),
        ({"offset": 4, "end_offset": 4}, 4, 4),
        ({"last": 3}, 7, 10),
        ({"last": 0}, 10, 10),
        ({"last": 30}, 0, 10),
        ({"last": 2, "end_offset": 5}, 3, 5),
        ({"last": 2, "until": START_MS + 5000}, 3, 5),
        ({"since": START_MS + 2001}, 3, 10),
        ({"since": START_MS + 60_000}, 10, 10),
        ({"until": START_MS + 2001}, 0, 3),
        ({"since": START_MS + 1000, "until": START_MS + 4000}, 1, 4),
    ],
)
def test_a_range_begins_and_ends_where_it_was_told_to(
    wanted: dict[str, int], first: int, end: int, store: Path, tmp_path: Path
) -> None:
    with topic_source(store, "ten", **wanted) as source:
        found = read_all(source)
        assert [one.offset for one in found] == list(range(first, end))
        assert source.progress(source.start)[1] == end - first
    # A file of the same records is cut in the same way.
    lines = tmp_path / "ten.jsonl"
    with topic_source(store, "ten") as source:
        lines.write_bytes(b"".join(map(record_line, read_all(source))))
    if "last" not in wanted or len(wanted) == 1 or "end_offset" in wanted or "until" in wanted:
        with open_file(str(lines), Range(**wanted), files=DiskFiles()) as copy:
            assert read_all(copy) == found


@pytest.mark.parametrize(
    "wanted",
    [
        {"offset": 1, "since": 1},
        {"offset": 1, "last": 1},
        {"since": 1, "last": 1},
        {"end_offset": 1, "until": 1},
        {"offset": -1},
        {"last": -1},
        {"offset": 5, "end_offset": 4},
        {"since": 5, "until": 4},
    ],
)
def test_a_range_that_contradicts_itself_is_refused(wanted: dict[str, int], store: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"exclude|out of bounds|before it begins"):
        topic_source(store, "ten", **wanted)


def test_an_offset_has_to_be_there_in_one_partition(store: Path) -> None:
    with pytest.raises(OffsetOutOfRangeError, match="offset 11 is out of range"):
        topic_source(store, "ten", offset=11)
    with topic_source(store, "parts", offset=2) as source:
        assert values(source) == ["p0 at 20", "p2 at 50", "p0 at 60"]
    with pytest.raises(OffsetOutOfRangeError):
        topic_source(store, "parts", offset=5)


def test_a_source_ends_with_what_was_there_when_it_was_opened(tmp_path: Path) -> None:
    fill(tmp_path, "t", [[record("a"), record("b")]])
    with topic_source(tmp_path, "t") as source:
        with logstore.open(tmp_path) as opened:
            append(opened.topic("t").partition(0), [record("c")])
        assert values(source) == ["a", "b"]


def test_partitions_are_named_behind_a_colon(store: Path) -> None:
    assert parse_partitions("a") == ("a", ())
    assert parse_partitions("a:2,0,2") == ("a", (0, 2))
    for wrong in ("a:", "a:x", "a:1,", "a:-1", "a:1:2", "a:²"):
        with pytest.raises(InvalidInputError, match="names no partitions"):
            parse_partitions(wrong)
    with topic_source(store, "parts:2,1") as source:
        assert values(source) == ["p2 at 10", "p2 at 15", "p1 at 30", "p1 at 30", "p2 at 50"]
    with pytest.raises(logstore.UnknownTopicError, match="no partition 7"):
        topic_source(store, "parts:7")


# --- order, and going on ------------------------------------------------------------------------


def test_partitions_are_merged_by_time_and_each_stays_in_order(store: Path) -> None:
    with topic_source(store, "parts") as source:
        assert values(source) == MERGED
        assert source.partitions == 3
        assert source.newest() == START_MS + 60
    with topic_source(store, "ten", end_offset=4) as source:
        assert source.newest() == START_MS + 5000  # of the batch that straddles the end


@pytest.mark.parametrize("text", ["parts", "parts:0", "ten"])
def test_a_source_goes_on_from_behind_any_record(text: str, store: Path) -> None:
    with topic_source(store, text) as source:
        whole = read_all(source)
        seen = 0
        position = dict(source.start)
        for chunk in source.chunks(source.start):
            for count in range(len(chunk.records) + 1):
                here = {**position, **chunk.ends(count)}
                assert read_all(source, here) == whole[seen + count :]
            seen += len(chunk.records)
            position.update(chunk.ends(len(chunk.records)))
        assert source.progress(position) == (len(whole), len(whole))


_partitions = st.lists(
    st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=4), max_size=4), max_size=4
)


@given(_partitions, st.integers(0, 60))
@settings(max_examples=150, deadline=None)
def test_merging_takes_the_smallest_next_one_each_time(
    partitions: list[list[list[int]]], stop: int
) -> None:
    rows = [
        [row(n, partition=p, at=t) for n, t in enumerate(t for batch in batches for t in batch)]
        for p, batches in enumerate(partitions)
    ]

    def streams(begin: list[int]) -> list[Any]:
        made = []
        for number, batches in enumerate(partitions):
            left, position = [], 0
            for batch in batches:
                part = rows[number][max(position, begin[number]) : position + len(batch)]
                position += len(batch)
                left += [part] if part else []
            made.append(iter(left))
        return made

    nowhere = [0] * len(partitions)
    found = [one for made in merged(streams(nowhere)) for one in made]
    expected = []
    heads = list(nowhere)
    while any(head < len(part) for head, part in zip(heads, rows, strict=True)):
        _, number = min(
            (part[head].timestamp, number)
            for number, (head, part) in enumerate(zip(heads, rows, strict=True))
            if head < len(part)
        )
        expected.append(rows[number][heads[number]])
        heads[number] += 1
        if len(expected) == stop:
            begin = list(heads)
    assert found == expected
    if 0 < stop <= len(expected):
        assert [one for made in merged(streams(begin)) for one in made] == expected[stop:]


def test_long_merges_come_in_lists_of_500() -> None:
    one = [row(n, partition=0, at=n) for n in range(1200)]
    other = [row(n, partition=1, at=600) for n in range(3)]
    made = list(merged([iter([one[:7], one[7:]]), iter([other])]))
    assert [len(rows) for rows in made] == [500, 500, 203]
    assert [r.partition for rows in made for r in rows].index(1) == 601


# --- damage, control records, foreign directories -----------------------------------------------


def test_what_stands_in_front_of_damage_comes_first(tmp_path: Path) -> None:
    fill(tmp_path, "t", [[record(f"a{n}", n) for n in range(6)], [record("b", 1)]], batch=2)
    log = next((tmp_path / "topics" / "t-0").glob("*.log"))
    data = bytearray(log.read_bytes())
    data[-1] ^= 1
    log.write_bytes(data)
    for text, expected in (("t:0", ["a0", "a1", "a2", "a3"]), ("t", ["a0", "a1", "b", "a2", "a3"])):
        with topic_source(tmp_path, text) as source:
            found, error = read_until_error(source)
        assert [(one.value or b"").decode() for one in found] == expected
        assert isinstance(error, ChecksumError)


def test_control_records_are_passed_over(tmp_path: Path) -> None:
    fill(tmp_path, "t", [[record("a"), record("b")]])
    with logstore.open(tmp_path) as opened:
        log = opened.topic("t").partition(0)
        marker = end_transaction_marker(ControlType.COMMIT, timestamp=1, coordinator_epoch=0)
        raw = encode_batch([marker], base_offset=log.log_end_offset, control=True, producer_id=1)
        log.append_raw(raw, origin="replica")
    with topic_source(tmp_path, "t") as source:
        assert values(source) == ["a", "b"]


@pytest.mark.parametrize(
    "name",
    ["v0-none-0", "v1-gzip-0", "v2-zstd-0", "v2-compacted-0", "v2-transactions-0", "mixed-0"],
)
def test_a_directory_of_a_broker_is_read_and_not_touched(name: str, tmp_path: Path) -> None:
    shutil.copytree(GOLDEN / name, tmp_path / name)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    expected = json.loads(next((GOLDEN / name).glob("*.json")).read_text())
    control = {
        offset
        for batch in expected["batches"]
        if batch["control"]
        for offset in range(batch["base_offset"], batch["last_offset"] + 1)
    }
    os.chmod(tmp_path / name, 0o555)
    files = cast(Files, ReadingOnly())
    with open_directories(str(tmp_path / name), Range(), files=files) as source:
        found = read_all(source)
        middle = {source.parts[0].name: found[len(found) // 2].offset}
        assert read_all(source, middle) == found[len(found) // 2 :]
    assert [one.offset for one in found] == [
        one["offset"] for one in expected["records"] if one["offset"] not in control
    ]
    assert {one.topic for one in found} == {name[:-2]}
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_a_directory_of_partitions_is_merged(store: Path) -> None:
    topics = store / "topics"
    with open_directories(str(topics / "parts-1"), Range(), files=DiskFiles()) as source:
        assert values(source) == ["p1 at 30", "p1 at 30"]
        assert source.partitions == 2
    with pytest.raises(InvalidInputError, match="there is no partition here"):
        open_directories(str(store / "meta"), Range(), files=DiskFiles())


# --- files of JSON lines ------------------------------------------------------------------------


def lines_of(*records: ConsumerRecord) -> bytes:
    return b"".join(map(record_line, records))


def stream_source(data: bytes, *, again: bool = False, **wanted: Any) -> FileSource:
    return open_stream(io.BytesIO(data), Range(**wanted), again=again)


_bytes = (
    st.none()
    | st.binary(max_size=12)
    | st.text(max_size=12).map(lambda t: t.encode("utf-8", "replace"))
)
_names = st.binary(max_size=6).map(lambda data: data.decode("utf-8", "surrogateescape"))
_rows = st.builds(
    ConsumerRecord,
    st.text("abc.-_é\"\\", min_size=1, max_size=5),
    st.integers(0, 9),
    st.integers(0, 1 << 62),
    st.integers(-1, 1 << 62),
    _bytes,
    _bytes,
    st.lists(st.tuples(_names, _bytes), max_size=3).map(tuple),
)  # fmt: skip


@given(_rows)
@settings(max_examples=200, deadline=None)
def test_a_line_is_what_read_prints_and_is_read_without_loss(one: ConsumerRecord) -> None:
    line = record_line(one)
    place = {"type": "record", "topic": one.topic, "partition": one.partition}
    assert line == json_line({**place, **record_fields(Record(*one[2:]))})
    assert parse_record_line(line, topic="other", number=5) == one


def test_a_file_goes_on_from_behind_any_record(tmp_path: Path) -> None:
    rows = [row(n, b"x" * n, partition=n % 2) for n in range(40)]
    path = tmp_path / "rows.jsonl"
    path.write_bytes(lines_of(*rows)[:-1])  # the last line may lack its line feed
    with open_file(str(path), Range(), files=DiskFiles()) as source:
        assert read_all(source) == rows
        places = [source.start]
        for chunk in source.chunks(source.start):
            places += [dict(chunk.ends(count + 1)) for count in range(len(chunk.records))]
        for count, place in enumerate(places):
            assert read_all(source, place) == rows[count:]
        assert len(places) == 41
        assert source.progress(places[-1]) == (path.stat().st_size,) * 2


def test_a_stream_passes_over_what_was_read_of_it_before() -> None:
    rows = [row(n) for n in range(5)]
    source = stream_source(lines_of(*rows))
    (chunk,) = source.chunks(source.start)
    assert read_all(stream_source(lines_of(*rows)), dict(chunk.ends(3))) == rows[3:]


def test_a_stream_may_be_read_several_times() -> None:
    rows = [row(n) for n in range(5)]
    with stream_source(lines_of(*rows), again=True) as source:
        assert read_all(source) == read_all(source) == rows
    with stream_source(lines_of(*rows), last=2) as source:
        assert read_all(source) == read_all(source) == rows[3:]


def test_lines_longer_than_what_is_read_at_once_are_put_together() -> None:
    rows = [row(0), row(1, b"x" * 700_000), row(2), row(3, b"y" * 300_000)]
    assert read_all(stream_source(lines_of(*rows))) == rows


def test_the_last_records_of_a_file_are_those_of_each_partition() -> None:
    rows = [row(n, partition=p) for n, p in enumerate([0, 1, 0, 0, 1, 2, 0])]
    for last, offsets in ((1, [4, 5, 6]), (2, [1, 3, 4, 5, 6]), (9, [*range(7)]), (0, [])):
        with stream_source(lines_of(*rows), last=last) as source:
            assert [one.offset for one in read_all(source)] == offsets


def test_other_lines_of_dump_are_passed_over_and_missing_places_made_up() -> None:
    lines = (
        b'{"type": "batch", "base_offset": 0}\n'
        b'{"type": "record", "file": "x", "offset": 7, "value": "a"}\n'
        b'{"type": "record", "file": "x", "offset": 8, "value": null, "control": "commit"}\n'
        b'{"value": "b"}\n'
    )
    assert [one[:3] for one in read_all(stream_source(lines))] == [
        ("records", 0, 7),
        ("records", 0, 3),
    ]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"plain", "this is no JSON"),
        (b"", "this is no JSON"),
        (b"[1]", "this is no JSON object"),
        (b"\xff", "this is no JSON"),
        (b"[" * 100_000, "this is no JSON"),
        (b'{"key": "a"}', 'no "value"'),
        (b'{"value": 5}', '"value" is text'),
        (b'{"value": "", "offset": "x"}', '"offset" is a whole number'),
        (b'{"value": "", "partition": -1}', '"partition" is a whole number'),
        (b'{"value": "", "topic": 3}', '"topic" is text'),
        (b'{"value": "", "headers": [1]}', '"headers" is a list of pairs'),
    ],
)
def test_a_line_that_is_no_record_is_told_behind_those_in_front(line: bytes, reason: str) -> None:
    source = stream_source(lines_of(row(0), row(1)) + line + b"\n" + lines_of(row(2)))
    found, error = read_until_error(source)
    assert found == [row(0), row(1)]
    assert isinstance(error, InvalidInputError)
    assert "standard input: line 3: " in str(error)
    assert reason in str(error)


def test_logs_that_are_not_there_are_the_systems_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        open_file(str(tmp_path / "none"), Range(), files=DiskFiles())
    with pytest.raises(FileNotFoundError):
        PartitionLog(tmp_path / "none", read_only=True)
