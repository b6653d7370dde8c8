"""``logstore retain``, ``delete-records`` and ``truncate``: what goes, why, and what is left."""

from __future__ import annotations

import os
import pty
import subprocess
from pathlib import Path
from typing import Any

import pytest

import logstore
from logstore import Record

from .program import COMMAND, end_of, json_lines, only_line, run, running


def filled(store: Path, topic: str = "a", **config: object) -> Path:
    """A topic of 40 records, one a batch, three batches a segment."""
    with logstore.open(store) as opened:
        log = opened.create_topic(topic, config={"segment_bytes": 600, **config}).partition(0)
        for number in range(40):
            log.append([Record(key=b"k", value=b"%0100d" % number)], acks=1)
    return store


def extent(store: Path, topic: str = "a") -> tuple[int, int, int]:
    """First offset, next offset, bytes."""
    with logstore.open(store, create=False, read_only=True) as opened:
        log = opened.topic(topic).partition(0)
        size = sum(segment.size for segment in log.segment_infos())
        return log.log_start_offset, log.log_end_offset, size


def test_retention_says_why_for_each_segment_and_shows_before_and_after(tmp_path: Path) -> None:
    store = filled(tmp_path / "s", retention_bytes=3000)
    first, end, size = extent(store)
    lines = run("retain a", store=store).stdout.splitlines()
    after = extent(store)
    assert (first, end) == (0, 40)
    assert after[0] > 0
    assert after[1] == 40
    assert 3000 <= after[2] < 3600 < size
    assert lines[0].startswith("a-0: deleted segment 00000000000000000000 (")
    assert "at least retention_bytes=3000" in lines[0]
    kept = [line for line in lines if line.startswith("a-0: kept segment ")]
    assert kept
    assert all("less than retention_bytes=3000 would remain" in line for line in kept)
    assert lines[-3].split() == [
        "PARTITION",
        "SEGMENTS",
        "BYTES",
        *["FIRST", "OFFSET", "NEXT", "OFFSET"],
    ]
    assert lines[-2].split()[:2] == ["a-0", "before"]
    assert lines[-1].split() == ["after", f"{len(kept)}", f"{after[2]:,}", str(after[0]), "40"]
    again = run("retain", store=store).stdout
    assert "deleted" not in again


def test_a_dry_run_promises_what_is_done_then_and_changes_nothing(tmp_path: Path) -> None:
    for key, value in (("retention_bytes", 3000), ("retention_ms", 0), ("retention_bytes", 0)):
        store = filled(tmp_path / f"{key}-{value}", "a", **{key: value})
        before = extent(store)
        promised = run("retain --dry-run", store=store).stdout
        assert extent(store) == before
        done = run("retain", store=store).stdout
        assert promised.splitlines()[-2:] == done.splitlines()[-2:]
        assert promised.count("would delete") == done.count("deleted") > 0


@pytest.mark.parametrize("command", ["retain", "compact --force"])
def test_the_commands_remove_what_others_deleted_long_enough_ago(
    tmp_path: Path, command: str
) -> None:
    config: dict[str, Any] = {"cleanup_policy": "compact,delete", "retention_bytes": 3000}
    store = filled(tmp_path / "s", file_delete_delay_ms=0, **config)

    def deleted() -> list[Path]:
        return list((store / "topics" / "a-0").glob("*.deleted"))

    with logstore.open(store, maintenance_interval=None) as opened:
        assert any(d.delete for d in opened.topic("a").partition(0).retain())
    assert deleted()
    run(f"{command} --dry-run", store=store)
    assert deleted()
    run(command, store=store)
    assert not deleted()


def test_retention_prints_objects(tmp_path: Path) -> None:
    store = filled(tmp_path / "s", retention_bytes=3000)
    *decisions, result = json_lines(run("retain --json", store=store))
    assert [d["type"] for d in decisions] == ["decision"] * len(decisions)
    assert decisions[0]["delete"] is True
    assert decisions[0]["base_offset"] == 0
    assert decisions[-1]["delete"] is False
    assert decisions[-1]["active"] is True
    assert result["type"] == "retained"
    assert result["before"]["first_offset"] == 0
    assert (result["after"]["first_offset"], result["after"]["next_offset"]) == extent(store)[:2]
    assert result["dry_run"] is False


def test_only_the_named_topics_are_looked_at(tmp_path: Path) -> None:
    store = filled(tmp_path / "s", "a", retention_bytes=3000)
    filled(store, "b", retention_bytes=3000)
    run("retain b", store=store)
    assert extent(store, "a")[0] == 0
    assert extent(store, "b")[0] > 0


def test_wrong_use_of_retain_is_told(tmp_path: Path) -> None:
    run("retain", store=tmp_path / "nowhere", code=2)
    store = filled(tmp_path / "s")
    complaint = only_line(run("retain nope", store=store, code=1).stderr)
    assert "no topic called 'nope'" in complaint


def test_a_damaged_partition_is_told_and_the_others_are_dealt_with(tmp_path: Path) -> None:
    store = filled(tmp_path / "s", "a", retention_bytes=3000)
    filled(store, "b", retention_bytes=3000)
    directory = store / "topics" / "a-0"
    (directory / "state").unlink()
    (directory / "log-start-offset-checkpoint").write_bytes(b"nonsense")
    result = run("retain", store=store, code=1)
    assert only_line(result.stderr).startswith("logstore: a-0: ")
    assert extent(store, "b")[0] > 0


def test_records_below_an_offset_are_deleted(tmp_path: Path) -> None:
    store = filled(tmp_path / "s")
    arguments = "delete-records a --partition 0 --before 20"
    dry = only_line(run(f"{arguments} --dry-run", store=store).stdout)
    assert dry.startswith("a-0: would delete offsets 0 to 19, ")
    assert " whole segments of " in dry
    assert extent(store)[0] == 0
    lines = run(f"{arguments} --yes", store=store).stdout.splitlines()
    assert lines[0] == dry.replace("would delete", "deleted")
    assert lines[-1].split()[-2:] == ["20", "40"]
    assert extent(store)[:2] == (20, 40)
    again = only_line(run(f"{arguments} --yes", store=store).stdout)
    assert again == "a-0: nothing to delete: the first offset is 20"
    assert run("read a --offset 20 --max 1", store=store).stdout.endswith("20\n")


def test_the_end_of_a_partition_is_cut_off(tmp_path: Path) -> None:
    store = filled(tmp_path / "s")
    arguments = "truncate a --partition 0 --to 31"
    dry = only_line(run(f"{arguments} --dry-run", store=store).stdout)
    assert dry == "a-0: would delete offsets 31 to 39"
    assert extent(store)[1] == 40
    lines = run(f"{arguments} --yes", store=store).stdout.splitlines()
    assert lines[0] == "a-0: deleted offsets 31 to 39"
    assert extent(store)[:2] == (0, 31)
    again = only_line(run(f"{arguments} --yes", store=store).stdout)
    assert again == "a-0: nothing to cut: the log ends at 31"
    run("check", store, store=store)


def test_offsets_and_partitions_that_are_not_there_are_refused(tmp_path: Path) -> None:
    store = filled(tmp_path / "s")
    for arguments in (
        "truncate a --partition 0 --to 41 --yes",
        "delete-records a --partition 0 --before 41 --yes",
        "delete-records a --partition 0 --before 41 --dry-run",
    ):
        assert "out of range" in only_line(run(arguments, store=store, code=1).stderr)
    assert (
        "has no partition 1"
        in run("truncate a --partition 1 --to 0 --yes", store=store, code=1).stderr
    )
    run("truncate a --to 0 --yes", store=store, code=2)
    run("delete-records a --partition 0 --yes", store=store, code=2)
    assert extent(store)[:2] == (0, 40)


def test_on_a_terminal_it_is_asked_first(tmp_path: Path) -> None:
    store = filled(tmp_path / "s")
    for answer, end in ((b"n\n", 40), (b"y\n", 31)):
        master, slave = pty.openpty()
        try:
            process = subprocess.Popen(
                [
                    *COMMAND,
                    "truncate",
                    "a",
                    "--partition",
                    "0",
                    "--to",
                    "31",
                    "--store",
                    str(store),
                ],
                stdin=slave,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
            os.write(master, answer)
            _, complaint = process.communicate(timeout=60)
        finally:
            os.close(master)
            os.close(slave)
        assert b"delete offsets 31 to 39 of a-0?" in complaint
        assert extent(store)[1] == end


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full here")
@pytest.mark.parametrize("command", ["retain", "retain --json", "retain --dry-run"])
def test_output_that_cannot_be_written_is_no_fault_of_a_partition(
    command: str, tmp_path: Path
) -> None:
    store = filled(tmp_path / "s", retention_bytes=3000)
    with logstore.open(store) as opened:
        for number in range(100):  # more lines than a buffer holds
            opened.create_topic(f"{number:0200d}")
    with open("/dev/full", "wb") as full, running(command, store=store, stdout=full) as process:
        code, complaint = end_of(process)
    assert code == 1
    assert only_line(complaint.decode()) == "logstore: No space left on device"


def test_cutting_prints_the_partition_before_and_after_as_json(tmp_path: Path) -> None:
    store = tmp_path / "store"
    run("topic create orders", store=store)
    run("append orders", store=store, stdin="a\nb\nc\n")
    for words, kind, first, end in (
        ("delete-records orders --partition 0 --before 1 --dry-run", "records-deleted", 0, 3),
        ("delete-records orders --partition 0 --before 1", "records-deleted", 1, 3),
        ("delete-records orders --partition 0 --before 1", "records-deleted", 1, 3),
        ("truncate orders --partition 0 --to 2 --dry-run", "truncated", 1, 3),
        ("truncate orders --partition 0 --to 2", "truncated", 1, 2),
        ("truncate orders --partition 0 --to 2", "truncated", 1, 2),
    ):
        (found,) = json_lines(run(f"{words} --json --yes", store=store))
        assert list(found) == ["type", "topic", "partition", "before", "after", "dry_run"]
        assert (found["type"], found["topic"], found["partition"]) == (kind, "orders", 0)
        assert (found["after"]["first_offset"], found["after"]["next_offset"]) == (first, end)
        assert found["dry_run"] == ("--dry-run" in words)
