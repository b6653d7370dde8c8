"""``logstore index``: entries explained and proved, look-ups shown."""

from __future__ import annotations

from pathlib import Path

from tests.cli.program import GOLDEN, json_lines, run
from tests.segments.partitions import FIRST_INDEX, FIRST_LOG, on_disk, two_segments

PARTITION = GOLDEN / "partition-0"


def partition(tmp_path: Path) -> Path:
    return on_disk(two_segments(), tmp_path / "orders-0")


def test_all_entries_of_a_brokers_partition_are_explained_and_right() -> None:
    shown = run("index", PARTITION).stdout
    assert "entry 0: relative offset 7 is offset 57, at position 369" in shown
    assert "2023-11-14T22:13:20.110Z" in shown
    assert "aborts its transaction" in shown
    lines = json_lines(run("index --json", PARTITION))
    assert len(lines) == 7
    assert {line["verdict"] for line in lines} == {"right"}
    assert lines[0]["log_position"] == 369


def test_one_entry_is_shown_alone(tmp_path: Path) -> None:
    index = partition(tmp_path) / FIRST_INDEX
    (line,) = json_lines(run("index --json --entry 1", index))
    assert (line["entry"], line["position"]) == (1, 8)
    assert "has no entry 99" in run("index --entry 99", index, code=1).stderr


def test_a_wrong_entry_is_the_exit_code(tmp_path: Path) -> None:
    index = partition(tmp_path) / FIRST_INDEX
    data = bytearray(index.read_bytes())
    data[7] ^= 1
    index.write_bytes(data)
    shown = run("index", index, code=1).stdout
    assert "the entry leads to no batch" in shown
    assert "1 wrong" in shown


def test_without_a_log_nothing_is_proved_and_nothing_is_wrong(tmp_path: Path) -> None:
    directory = partition(tmp_path)
    (directory / FIRST_LOG).unlink()
    assert "there is no log beside it: unproven" in run("index", directory / FIRST_INDEX).stdout


def test_a_look_up_by_offset_is_shown_step_by_step(tmp_path: Path) -> None:
    directory = partition(tmp_path)
    shown = run("index --offset 107", directory).stdout.splitlines()
    assert shown[0].startswith(f"segment {FIRST_LOG}")
    assert any("is the last one to go by" in line for line in shown)
    assert shown[-1].startswith("record 2 of 2: offset 107")
    steps = json_lines(run("index --json --offset 107", directory / FIRST_INDEX))
    assert [steps[0]["step"], steps[-1]["step"]] == ["segment", "record"]
    assert "there is no record" in run("index --offset 500", directory, code=1).stdout


def test_a_look_up_by_time_is_shown_step_by_step(tmp_path: Path) -> None:
    directory = partition(tmp_path)
    shown = run("index", directory, "--time", "1700000000021").stdout.splitlines()
    assert shown[-1].startswith("record 2 of 2: offset 111")
    assert (
        run("index", directory, "--time", "2023-11-14T22:13:20.021Z").stdout.splitlines() == shown
    )
    assert "no record is as recent" in run("index --time 1800000000000", directory, code=1).stdout


def test_wrong_use_is_one_line(tmp_path: Path) -> None:
    directory = partition(tmp_path)
    (tmp_path / "empty").mkdir()
    for words in (
        ("index", tmp_path / "empty"),
        ("index", directory / "leader-epoch-checkpoint"),
        ("index --entry 1", directory),
        ("index --entry 1 --offset 3", directory / FIRST_INDEX),
        ("index --time yesterday", directory),
    ):
        result = run(*words, code=2)
        assert result.stdout == ""
        assert len(result.stderr.splitlines()) == 1


def test_the_examples_in_the_help_work(tmp_path: Path) -> None:
    help_text = run("index --help").stdout
    for example in ("--entry 3", "--offset 1017", "--time 2026-03-02T04:10:00Z"):
        assert example in help_text
    directory = partition(tmp_path)
    run("index --entry 1", directory / FIRST_INDEX)
    run("index --offset 101", directory)
    run("index --time 2020-03-02T04:10:00Z", directory)
