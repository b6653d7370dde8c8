"""``logstore backup`` and ``logstore restore``: what they print and how they end."""

from __future__ import annotations

from pathlib import Path

import logstore

from .program import json_lines, only_line, run


def filled(store: Path) -> Path:
    run("topic create a --config segment_bytes=2000", store=store)
    for number in range(3):
        run("append a", store=store, stdin=b"".join(b"%d %060d\n" % (number, i) for i in range(25)))
    return store


def test_a_backup_is_taken_and_restored(tmp_path: Path) -> None:
    store = filled(tmp_path / "s")
    line = only_line(run("backup", tmp_path / "b", store=store).stdout)
    assert ": 2 partitions, 4 segments: 2 linked, 2 copied (" in line
    taken = Path(line.partition(": ")[0])
    assert taken.parent == tmp_path / "b"
    run("check", taken)
    run("append a", store=store, stdin="more\n")
    second = run("backup", tmp_path / "b", store=store).stdout.splitlines()
    assert second[1:] == [f"removed {taken}"]
    line = only_line(run("restore", tmp_path / "b", tmp_path / "r").stdout)
    assert line == f"restored {second[0].partition(': ')[0]} to {tmp_path / 'r'}"
    expected = run("read a", store=store).stdout
    assert run("read a", store=tmp_path / "r").stdout == expected
    run("append a", store=tmp_path / "r", stdin="even more\n")
    assert run("read a", store=tmp_path / "r").stdout == expected + "even more\n"


def test_several_backups_stay_when_told_so_and_objects_are_printed(tmp_path: Path) -> None:
    store = filled(tmp_path / "s")
    [first] = json_lines(run("backup", tmp_path / "b", "--keep", "2", "--json", store=store))
    [second] = json_lines(run("backup", tmp_path / "b", "--keep", "2", "--json", store=store))
    assert first["type"] == "backup"
    assert second["removed"] == []
    assert first["path"] < second["path"]
    assert (second["partitions"], second["segments"], second["copied"]) == (2, 4, 2)
    [third] = json_lines(run("backup", tmp_path / "b", "--keep", "2", "--json", store=store))
    assert third["removed"] == [first["path"]]
    run("restore", second["path"], tmp_path / "r")
    with logstore.open(tmp_path / "r", create=False) as opened:
        assert opened.topic("a").partition(0).log_end_offset == 75


def test_wrong_use_of_backup_and_restore_is_told(tmp_path: Path) -> None:
    store = filled(tmp_path / "s")
    complaint = only_line(run("backup", store / "b", store=store, code=2).stderr)
    assert "inside each other" in complaint
    assert not (store / "b").exists()
    run("backup", tmp_path / "b", store=tmp_path / "nowhere", code=2)
    run("backup", tmp_path / "b", "--keep", "0", store=store, code=2)
    assert "there is no backup here" in run("restore", store, tmp_path / "r", code=2).stderr
    run("restore", tmp_path / "nowhere", tmp_path / "r", code=2)
    run("backup", tmp_path / "b", store=store)
    complaint = only_line(run("restore", tmp_path / "b", store, code=2).stderr)
    assert "into an empty directory, or none" in complaint


def test_a_restored_store_is_told_as_json(tmp_path: Path) -> None:
    run("topic create orders", store=tmp_path / "store")
    (backup,) = json_lines(run("backup --json", tmp_path / "backups", store=tmp_path / "store"))
    (found,) = json_lines(run("restore --json", tmp_path / "backups", tmp_path / "again"))
    assert found == {
        "type": "restored",
        "backup": backup["path"],
        "destination": str(tmp_path / "again"),
    }
