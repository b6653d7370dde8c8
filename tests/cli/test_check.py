"""``logstore check``: exit codes, lines and objects. What is found is tested with the library."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.segments.partitions import (
    FIRST_INDEX,
    LAST_LOG,
    batch,
    on_disk,
    two_segments,
)

from .program import GOLDEN, end_of, json_lines, only_line, run, running

FOLDERS = sorted(path for path in GOLDEN.iterdir() if path.is_dir())


def test_a_whole_partition_gets_one_line(tmp_path: Path) -> None:
    partition = on_disk(two_segments(), tmp_path / "orders-0")
    result = run("check", partition)
    assert only_line(result.stdout) == (
        "1 partition, 2 segments, 8 batches, 15 records, 758 bytes: everything holds"
    )
    assert result.stderr == ""
    assert run("check --json", partition).stdout == ""


@pytest.mark.parametrize("folder", FOLDERS, ids=[folder.name for folder in FOLDERS])
def test_what_kafka_wrote_holds(folder: Path) -> None:
    assert "everything holds" in only_line(run("check", folder).stdout)


def test_every_finding_has_a_line_with_its_file_and_position(tmp_path: Path) -> None:
    contents = two_segments()
    del contents[FIRST_INDEX]
    contents[LAST_LOG] += b"torn"
    partition = on_disk(contents, tmp_path / "orders-0")
    note, damage, summary = run("check", partition, code=1).stdout.splitlines()
    assert note.startswith(f"note: {partition / FIRST_INDEX} at byte 0: the index is missing")
    end = len(contents[LAST_LOG]) - 4
    reason = "torn batch: expected a header of 61 bytes, found 4 bytes"
    assert damage == f"damage: {partition / LAST_LOG} at byte {end}: {reason}"
    assert summary.endswith(": damage in 1 place, 1 note")
    assert json_lines(run("check --json", partition, code=1))[1] == {
        "type": "damage",
        "file": str(partition / LAST_LOG),
        "position": end,
        "reason": reason,
        "expected": "a header of 61 bytes",
        "found": "4 bytes",
    }


def test_a_note_alone_is_no_failure(tmp_path: Path) -> None:
    contents = two_segments()
    del contents[FIRST_INDEX]
    partition = on_disk(contents, tmp_path / "orders-0")
    (note,) = json_lines(run("check --json", partition))
    assert note["type"] == "note"


def test_paths_are_told_as_they_were_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on_disk({**two_segments(), LAST_LOG: b"torn"}, tmp_path / "data" / "topics" / "orders-0")
    monkeypatch.chdir(tmp_path)
    files = {f["file"] for f in json_lines(run("check --json data", code=1))}
    assert f"data/topics/orders-0/{LAST_LOG}" in files
    monkeypatch.chdir(tmp_path / "data" / "topics" / "orders-0")
    assert {f["file"] for f in json_lines(run("check --json", LAST_LOG, code=1))} >= {LAST_LOG}


@pytest.mark.parametrize("name", ["README.md", "empty"])
def test_what_is_no_partition_is_wrong_use(name: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "README.md").write_text("hello")
    line = only_line(run("check", tmp_path / name, code=2).stderr)
    assert "neither a partition nor a file of one" in line


def test_a_store_is_checked_while_somebody_appends_to_it(tmp_path: Path) -> None:
    run("topic create t --config segment_bytes=60000", store=tmp_path)
    line = b"x" * 200 + b"\n"
    with running("append t --acks 1", store=tmp_path, stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        for _ in range(10):
            process.stdin.write(line * 500)
            process.stdin.flush()
            run("check", tmp_path)
        process.stdin.close()
        assert end_of(process)[0] == 0
    checked = run("check", tmp_path / "topics" / "t-0").stdout
    assert f"{5000:,} records" in only_line(checked)


@pytest.mark.parametrize("cut", [0, 1, 16, 60, 61, 95, 100, 150])
def test_a_cut_log_is_damage_unless_it_was_cut_between_two_batches(
    cut: int, tmp_path: Path
) -> None:
    # Every byte is tried in tests/segments/test_check_properties.py.
    whole = batch(0, [0, 1]) + batch(2, [2])
    path = tmp_path / "00000000000000000000.log"
    path.write_bytes(whole[:cut])
    borders = (0, len(batch(0, [0, 1])), len(whole))
    run("check", path, code=0 if cut in borders else 1)
    shown = [line["type"] for line in json_lines(run("dump --json", path, code=None))]
    assert shown.count("batch") == sum(0 < border <= cut for border in borders)


def test_a_fifo_and_a_directory_in_the_place_of_a_log_are_damage(tmp_path: Path) -> None:
    partition = on_disk(two_segments(), tmp_path / "orders-0")
    os.mkfifo(partition / "00000000000000000900.log")
    (partition / "00000000000000000901.log").mkdir()
    found = json_lines(run("check --json", partition, code=None))
    damage = [f for f in found if f["type"] == "damage"]
    assert [os.path.basename(f["file"])[-7:] for f in damage] == ["900.log", "901.log"]
    assert {f["reason"] for f in damage} == {"the file cannot be read: this is no regular file"}
