"""``logstore repair``: lines, objects, exit codes. What is repaired is tested with the library."""

from __future__ import annotations

import subprocess
from pathlib import Path

from .program import end_of, json_lines, run, running


def broken(store: Path, *, damaged: bool = True) -> Path:
    """A store with a torn end, a lost index, and (``damaged``) a batch that is not what it was."""
    run("topic create a --config segment_bytes=2000", store=store)
    for number in range(4):
        run("append a", store=store, stdin=b"".join(b"%d %060d\n" % (number, i) for i in range(25)))
    directory = store / "topics" / "a-0"
    logs = sorted(directory.glob("*.log"))
    with logs[-1].open("ab") as file:
        file.write(b"torn" * 10)
    logs[2].with_suffix(".index").unlink()
    if damaged:
        with logs[1].open("r+b") as file:
            file.seek(100)
            file.write(b"\xff")
    return store


def test_what_is_torn_or_lost_is_repaired(tmp_path: Path) -> None:
    store = broken(tmp_path / "s", damaged=False)
    run("check", store, code=1)
    told = run("repair", store, "--dry-run").stdout.splitlines()
    run("check", store, code=1)
    lines = run("repair", store).stdout.splitlines()
    assert [line.partition(":")[0] for line in lines] == [
        "cut 40 bytes",
        "built anew",
        "built anew",
        "built anew",
        "4 repairs done",
    ]
    assert ".log.removed-" in lines[0]
    assert told[-1] == "4 repairs to do"
    assert [line.partition(":")[0] for line in told[:-1]] == [
        "would cut 40 bytes",
        "would build anew",
        "would build anew",
        "would build anew",
    ]
    run("check", store)
    assert run("repair", store).stdout == "nothing to repair\n"


def test_damage_is_left_until_it_is_told_to_go(tmp_path: Path) -> None:
    store = broken(tmp_path / "s")
    before = run("read a", store=store, code=1).stdout.count("\n")
    lines = run("repair", store, code=1).stdout.splitlines()
    assert lines[0].startswith("left damaged: ")
    assert lines[0].endswith("(--drop-damaged takes it out)")
    assert lines[-1] == "4 repairs done, 1 place left damaged; see --drop-damaged"
    run("check", store, code=1)
    run("repair", store, "--dry-run", code=1)
    lines = run("repair", store, "--drop-damaged").stdout.splitlines()
    assert lines[0].startswith("took out ")
    assert "; saved as " in lines[0]
    run("check", store)
    read = run("read a", store=store).stdout.splitlines()
    assert len(read) == 75
    assert before < 75


def test_repairs_are_printed_as_objects(tmp_path: Path) -> None:
    store = broken(tmp_path / "s")
    steps = json_lines(run("repair", store / "topics" / "a-0", "--json", "--drop-damaged"))
    assert [step["type"] for step in steps] == ["drop", "cut"] + ["build"] * 5
    assert Path(steps[0]["saved"]).stat().st_size == steps[0]["size"]
    assert steps[1]["size"] == 40
    assert {step["dry_run"] for step in steps} == {False}


def test_wrong_use_of_repair_is_told(tmp_path: Path) -> None:
    store = broken(tmp_path / "s")
    for wrong in (tmp_path / "nowhere", store / "store.json", store / "meta"):
        run("repair", wrong, code=2)


def test_a_reader_that_stops_does_not_stop_the_repair(tmp_path: Path) -> None:
    store = broken(tmp_path / "s")
    with running("repair", store, "--drop-damaged", "--json", stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.close()
        code, complaint = end_of(process)
    assert (code, complaint) == (0, b"")
    run("check", store)
