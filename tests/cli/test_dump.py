"""``logstore dump``: what it shows of every kind of file, whole or damaged."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from logstore.segments.batch import encode_batch, iter_batches, seal_batch
from logstore.segments.record import Record
from tests.segments.partitions import (
    FIRST_LOG,
    LAST_LOG,
    NOW,
    batch,
    on_disk,
    two_segments,
)

from .program import GOLDEN, json_lines, only_line, run

SIDECARS = sorted(GOLDEN.glob("*/*.json"))
each_golden = pytest.mark.parametrize(
    "sidecar", SIDECARS, ids=[sidecar.parent.name for sidecar in SIDECARS]
)
BATCH_FIELDS = [
    *("type", "file", "position", "size", "magic", "base_offset", "last_offset", "count", "codec"),
    *("timestamp_type", "base_timestamp", "max_timestamp"),
    *("producer_id", "producer_epoch", "base_sequence", "leader_epoch"),
    *("transactional", "control", "crc", "crc_ok"),
]
RECORD_FIELDS = ["type", "file", "offset", "timestamp", "key", "value", "headers"]
ZERO_LOG = "00000000000000000000.log"


# --- against what Kafka reads -----------------------------------------------------------------


@each_golden
def test_batches_are_what_kafka_says(sidecar: Path) -> None:
    log = sidecar.with_suffix(".log")
    shown = json_lines(run("dump --json", log))
    expected = json.loads(sidecar.read_text(encoding="utf-8"))["batches"]
    assert len(shown) == len(expected)
    for found, wanted in zip(shown, expected, strict=True):
        assert list(found) == BATCH_FIELDS
        assert (found["type"], found["file"], found["crc_ok"]) == ("batch", str(log), True)
        wanted["codec"] = wanted["compression"]
        for name in BATCH_FIELDS:
            # Kafka does not say what it would have to decompress for.
            if name in wanted and not (found["magic"] < 2 and name in ("count", "base_offset")):
                assert found[name] == wanted[name], name


def seen(data: Any) -> Any:
    """A value of a dump, as the sidecars spell it."""
    if data is None:
        return None
    raw = base64.b64decode(data["base64"]) if isinstance(data, dict) else data.encode()
    if len(raw) > 64:
        return {"size": len(raw), "sha256": hashlib.sha256(raw).hexdigest()}
    return base64.b64encode(raw).decode()


@each_golden
def test_records_are_what_kafka_reads(sidecar: Path) -> None:
    log = sidecar.with_suffix(".log")
    lines = json_lines(run("dump --json --records", log))
    shown = [line for line in lines if line["type"] == "record"]
    expected = json.loads(sidecar.read_text(encoding="utf-8"))["records"]
    assert len(shown) == len(expected)
    for found, wanted in zip(shown, expected, strict=True):
        assert list(found)[:7] == RECORD_FIELDS
        assert found["file"] == str(log)
        assert (found["offset"], found["timestamp"]) == (wanted["offset"], wanted["timestamp"])
        assert (seen(found["key"]), seen(found["value"])) == (wanted["key"], wanted["value"])
        assert [[name, seen(value)] for name, value in found["headers"]] == [
            list(pair) if isinstance(pair, list) else [pair["key"], pair["value"]]
            for pair in wanted["headers"]
        ]


@each_golden
def test_records_stand_behind_their_batch(sidecar: Path) -> None:
    lines = json_lines(run("dump --json --records", sidecar.with_suffix(".log")))
    left = 0
    for line in lines:
        if line["type"] == "batch":
            assert left == 0
            left, current = line["count"], line
        else:
            left -= 1
            assert current["base_offset"] <= line["offset"] <= current["last_offset"]
            assert ("control" in line) == current["control"]
    assert left == 0


def test_control_records_say_what_they_are() -> None:
    lines = json_lines(run("dump --json --records", GOLDEN / "v2-control-0"))
    labels = [line["control"] for line in lines if "control" in line and line["type"] == "record"]
    assert {"commit", "abort", "leader-change", "snapshot-header"} <= set(labels)
    text = run("dump --records", GOLDEN / "v2-transactions-0").stdout
    assert "control=commit" in text
    assert "control=abort" in text


@each_golden
def test_indexes_are_what_kafka_says(sidecar: Path) -> None:
    expected = json.loads(sidecar.read_text(encoding="utf-8"))
    offsets = json_lines(run("dump --json", sidecar.with_suffix(".index")))
    assert [{"offset": e["offset"], "position": e["log_position"]} for e in offsets] == expected[
        "index"
    ]
    times = json_lines(run("dump --json", sidecar.with_suffix(".timeindex")))
    assert [{"timestamp": e["timestamp"], "offset": e["offset"]} for e in times] == expected[
        "timeindex"
    ]
    assert [e["position"] for e in offsets + times] == [
        *range(0, 8 * len(offsets), 8),
        *range(0, 12 * len(times), 12),
    ]


PARTITION = GOLDEN / "partition-0"


@pytest.mark.parametrize(
    ("name", "kind", "fields"),
    [
        ("00000000000000000050.index", "offset_entry", {"offset": 57, "log_position": 369}),
        (
            "00000000000000000050.timeindex",
            "time_entry",
            {"timestamp": 1_700_000_000_040, "offset": 57},
        ),
        (
            "00000000000000000050.txnindex",
            "aborted_transaction",
            {"producer_id": 9002, "first_offset": 53, "last_offset": 58, "last_stable_offset": 57},
        ),
        (
            "00000000000000000066.snapshot",
            "producer",
            {"position": 10, "producer_id": 9001, "last_sequence": 3, "last_offset": 60},
        ),
        ("leader-epoch-checkpoint", "leader_epoch", {"epoch": 7, "start_offset": 50}),
        (
            "partition.metadata",
            "partition_metadata",
            {"version": 0, "topic_id": "ASNFZ4mrze8P7cuph2VDIQ"},
        ),
    ],
)
def test_the_other_files_are_shown_by_name(name: str, kind: str, fields: dict[str, Any]) -> None:
    path = PARTITION / name
    first = json_lines(run("dump --json", path))[0]
    assert first.items() >= {"type": kind, "file": str(path), **fields}.items()
    heading, *lines = run("dump", path).stdout.splitlines()
    assert heading == f"{path}: {path.stat().st_size} bytes"
    assert all(str(value) in lines[0] for value in fields.values())
    assert "hex" in json_lines(run("dump --json --hex", path))[0]


@pytest.mark.parametrize(
    ("name", "cut", "left"),
    [
        ("00000000000000000050.index", 15, 1),
        ("00000000000000000050.timeindex", 35, 2),
        ("00000000000000000050.txnindex", 67, 1),
    ],
)
def test_entries_in_front_of_the_damage_are_shown(
    name: str, cut: int, left: int, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_bytes((PARTITION / name).read_bytes()[:cut])
    *entries, damage = json_lines(run("dump --json", path))
    assert len(entries) == left
    assert (damage["type"], damage["file"]) == ("damage", str(path))
    assert damage["position"] == entries[-1]["position"] * 2 if left == 2 else damage["position"]


def test_a_file_with_nothing_but_damage_is_a_failure(tmp_path: Path) -> None:
    for name in (ZERO_LOG, "00000000000000000066.snapshot", "leader-epoch-checkpoint"):
        path = tmp_path / name
        path.write_bytes(b"nonsense")
        (damage,) = json_lines(run("dump --json", path, code=1))
        assert damage["type"] == "damage"
        assert "DAMAGE: " in run("dump", path, code=1).stdout


# --- damage in a log --------------------------------------------------------------------------


def test_a_wrong_checksum_is_a_batch_and_then_damage(tmp_path: Path) -> None:
    data = bytearray(batch(0, [0]) + batch(1, [1]) + batch(2, [2]))
    position = len(batch(0, [0]))
    data[position + 30] ^= 1
    path = tmp_path / ZERO_LOG
    path.write_bytes(bytes(data))
    lines = json_lines(run("dump --json --records", path))
    assert [line["type"] for line in lines] == [
        *("batch", "record"),
        *("batch", "damage"),
        *("batch", "record"),
    ]
    assert [lines[n]["crc_ok"] for n in (0, 2, 4)] == [True, False, True]
    damage = lines[3]
    assert list(damage) == ["type", "file", "position", "reason"]
    assert (damage["file"], damage["position"]) == (str(path), position)
    assert "checksum" in damage["reason"]
    assert "WRONG" in run("dump", path).stdout


def test_records_that_cannot_be_read_are_damage_only_where_they_are_asked_for(
    tmp_path: Path,
) -> None:
    body = encode_batch([Record(timestamp=0, value=b"v")])[61:] + b"\0"
    raw = seal_batch(body, record_count=1, base_timestamp=0, max_timestamp=0).at(0, 0)
    path = tmp_path / ZERO_LOG
    path.write_bytes(raw)
    assert [line["type"] for line in json_lines(run("dump --json", path))] == ["batch"]
    lines = json_lines(run("dump --json --records", path))
    assert [line["type"] for line in lines] == ["batch", "damage"]


CONTENTS = two_segments()
BORDERS = [0, *(found.position + found.header.size for found in iter_batches(CONTENTS[FIRST_LOG]))]


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    cut=st.integers(0, len(CONTENTS[FIRST_LOG])),
    tail=st.sampled_from([b"", bytes(40), bytes(4096), b"\xff" * 70]),
)
def test_whole_batches_in_front_of_any_cut_are_shown(cut: int, tail: bytes, tmp_path: Path) -> None:
    path = tmp_path / FIRST_LOG
    path.write_bytes(CONTENTS[FIRST_LOG][:cut] + tail)
    whole = [border for border in BORDERS[1:] if border <= cut]
    lines = json_lines(run("dump --json", path, code=None))
    good, rest = lines[: len(whole)], lines[len(whole) :]
    assert [(line["position"] + line["size"], line["crc_ok"]) for line in good] == [
        (border, True) for border in whole
    ]
    assert ("damage" in {line["type"] for line in rest}) == (cut not in BORDERS or bool(tail))


# --- directories, JSON, hexadecimal, lines ----------------------------------------------------


def test_a_directory_shows_its_segments_in_order(tmp_path: Path) -> None:
    partition = on_disk(
        {**two_segments(), "lock": b"", FIRST_LOG + ".deleted": b"x"}, tmp_path / "orders-0"
    )
    files = [line["file"] for line in json_lines(run("dump --json", partition))]
    assert files == [str(partition / FIRST_LOG)] * 5 + [str(partition / LAST_LOG)] * 3
    headings = [line for line in run("dump", partition).stdout.splitlines() if ": " in line]
    assert headings == [
        f"{partition / name}: {len(CONTENTS[name])} bytes" for name in (FIRST_LOG, LAST_LOG)
    ]


def test_a_store_shows_its_topics_and_paths_as_they_were_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run("topic create b --partitions 2 --store data")
    run("append a --store data", stdin="one")
    run("append b --store data", stdin="two")
    found = [line["file"] for line in json_lines(run("dump --json data"))]
    # The two definitions come first: "__metadata" is a topic like others.
    names = ["__metadata", "__metadata", "a", "b"]
    assert found == [f"data/topics/{name}-0/{ZERO_LOG}" for name in names]
    assert found == [line["file"] for line in json_lines(run("dump --json data/topics"))]
    monkeypatch.chdir(tmp_path / "data" / "topics" / "a-0")
    assert [line["file"] for line in json_lines(run("dump --json", ZERO_LOG))] == [ZERO_LOG]
    assert [line["file"] for line in json_lines(run("dump --json ."))] == [f"./{ZERO_LOG}"]


def test_bytes_are_text_or_base64_or_null(tmp_path: Path) -> None:
    path = tmp_path / ZERO_LOG
    records = [
        Record(timestamp=NOW, key=None, value=None),
        Record(timestamp=NOW, key=b"", value="grüße\n\u2028".encode()),
        Record(timestamp=NOW, key=b"\xff", value=b"\0", headers=[("n", None), ("n", b"\xfe")]),
        Record(timestamp=NOW, value=b"", headers=[("\udcff", b"x")]),
    ]
    path.write_bytes(encode_batch(records))
    shown = json_lines(run("dump --json --records", path))[1:]
    assert [(line["key"], line["value"], line["headers"]) for line in shown] == [
        (None, None, []),
        ("", "grüße\n\u2028", []),
        ({"base64": "/w=="}, "\0", [["n", None], ["n", {"base64": "/g=="}]]),
        (None, "", [[{"base64": "/w=="}, "x"]]),
    ]
    assert len(run("dump --json --records", path).stdout_bytes.splitlines()) == 5


def test_a_path_that_is_not_utf_8_gives_json_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "caf\udce9" / ZERO_LOG
    try:
        path.parent.mkdir()
    except OSError:
        pytest.skip("this file system stores no names that are not UTF-8")
    shutil.copy(GOLDEN / "v0-none-0" / ZERO_LOG, path)
    assert json_lines(run("dump --json", path))[0]["file"] == str(path)
    assert "v0-none" not in run("dump", path).stdout_bytes.decode("utf-8", "surrogateescape")


def test_lines_hide_what_a_terminal_would_obey(tmp_path: Path) -> None:
    path = tmp_path / ZERO_LOG
    record = Record(
        timestamp=NOW, key=b"\x1b[31m", value='tab\t"é"\\'.encode(), headers=[("h", b"\x9b")]
    )
    path.write_bytes(encode_batch([record]))
    text = run("dump --records", path).stdout
    assert "\x1b" not in text
    assert 'key="\\x1b[31m" value="tab\\t\\"é\\"\\\\" headers={"h": b\'\\x9b\'}' in text
    assert "2023-11-14T22:13:20.000Z" in text


def test_hex_shows_every_byte_of_a_batch(tmp_path: Path) -> None:
    path = tmp_path / ZERO_LOG
    raw = batch(0, [0]) + batch(1, [1])
    path.write_bytes(raw)
    shown = json_lines(run("dump --json --hex", path))
    assert b"".join(bytes.fromhex(line["hex"]) for line in shown) == raw
    dumped = b""
    for line in run("dump --hex", path).stdout.splitlines():
        if line.startswith("    0") and line.endswith("|"):
            place, digits = line[4:14], line[14:66]
            assert int(place, 16) == len(dumped)
            dumped += bytes.fromhex(digits)
    assert dumped == raw


def test_a_dump_writes_nothing(tmp_path: Path) -> None:
    partition = on_disk(two_segments(), tmp_path / "orders-0")
    before = {path.name: path.stat().st_mtime_ns for path in partition.iterdir()}
    run("dump --records --hex", partition)
    assert {path.name: path.stat().st_mtime_ns for path in partition.iterdir()} == before


@pytest.mark.parametrize("name", ["notes.txt", "1.index", "empty"])
def test_what_is_no_partition_is_wrong_use(name: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    if name != "empty":
        (tmp_path / name).write_bytes(b"12345678")
    line = only_line(run("dump", tmp_path / name, code=2).stderr)
    assert "neither a partition nor a file of one" in line


def test_a_fifo_and_a_directory_in_the_place_of_a_log_are_damage(tmp_path: Path) -> None:
    partition = on_disk(two_segments(), tmp_path / "orders-0")
    os.mkfifo(partition / "00000000000000000900.log")
    (partition / "00000000000000000901.log").mkdir()
    found = json_lines(run("dump --json", partition, code=None))
    damage = [f for f in found if f["type"] == "damage"]
    assert [os.path.basename(f["file"])[-7:] for f in damage] == ["900.log", "901.log"]
    assert {f["reason"] for f in damage} == {"the file cannot be read: this is no regular file"}
