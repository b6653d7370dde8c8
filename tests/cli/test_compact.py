"""``logstore compact``: what is compacted, why, and the progress bar."""

from __future__ import annotations

import os
import pty
import subprocess
from pathlib import Path

import logstore
from logstore import Record
from logstore.segments.files import DiskFiles

from .program import COMMAND, json_lines, only_line, run


def filled(store: Path, topic: str = "c", **config: object) -> Path:
    """200 records of 10 keys in a compacted topic of several segments."""
    with logstore.open(store) as opened:
        config = {"segment_bytes": 2000, "cleanup_policy": "compact", **config}
        log = opened.create_topic(topic, config=config).partition(0)
        for number in range(200):
            key = b"k%d" % (number % 10)
            log.append([Record(key=key, value=b"%050d" % number)], acks=1)
    return store


def latest(store: Path, topic: str = "c") -> dict[bytes | None, bytes | None]:
    """The last value of each key."""
    with logstore.open(store, create=False, read_only=True) as opened:
        log = opened.topic(topic).partition(0)
        found = {}
        offset = log.log_start_offset
        while offset < log.log_end_offset:
            fetch = log.read(offset)
            found.update({record.key: record.value for record in fetch.records()})
            offset = fetch.next_offset
        return found


def test_compaction_keeps_the_last_of_each_key_and_shows_before_and_after(tmp_path: Path) -> None:
    store = filled(tmp_path / "s")
    before = latest(store)
    lines = run("compact", store=store).stdout.splitlines()
    assert latest(store) == before
    assert lines[0].startswith("c-0: compacted, ")
    assert "records dropped: 1.00 of it is dirty" in lines[0]
    columns = [line.split() for line in lines[1:]]
    assert columns[0] == ["PARTITION", "SEGMENTS", "BYTES", "FIRST", "OFFSET", "NEXT", "OFFSET"]
    assert columns[1][:2] == ["c-0", "before"]
    assert columns[2][0] == "after"
    sizes = [int(row[-3].replace(",", "")) for row in columns[1:]]
    assert sizes[1] < sizes[0] / 5
    run("check", store, store=store)
    again = run("compact c", store=store).stdout.splitlines()
    assert again[0].startswith("c-0: left as it is: there is nothing to compact")


def test_a_dry_run_of_compact_changes_nothing(tmp_path: Path) -> None:
    store = filled(tmp_path / "s", min_compaction_lag_ms=0)
    files = sorted((store / "topics" / "c-0").glob("*.log"))
    sizes = [path.stat().st_size for path in files]
    line = only_line(run("compact --dry-run", store=store).stdout)
    assert line.startswith("c-0: would be compacted: 1.00 of it is dirty")
    assert line.endswith(" bytes dirty)")
    assert [path.stat().st_size for path in files] == sizes
    [plan] = json_lines(run("compact --dry-run --json", store=store))
    assert plan["type"] == "compaction-plan"
    assert plan["due"] is True
    assert plan["first_dirty_offset"] == 0


def test_what_is_hardly_dirty_is_compacted_by_force_only(tmp_path: Path) -> None:
    store = filled(tmp_path / "s", min_cleanable_dirty_ratio=0.9)
    run("compact", store=store)
    with logstore.open(store) as opened:
        log = opened.topic("c").partition(0)
        # One closed segment of new keys beside a clean part of about the same size.
        for number in range(40):
            log.append([Record(key=b"n%d" % number, value=b"%050d" % number)], acks=1)
    line = only_line(run("compact --dry-run", store=store).stdout)
    assert "would be left as it is" in line
    assert "not more than min_cleanable_dirty_ratio=0.9" in line
    left = json_lines(run("compact --json", store=store))[0]
    assert left["passes"] == 0
    assert "would be compacted" in run("compact --dry-run --force", store=store).stdout
    done = json_lines(run("compact --force --json", store=store))[0]
    assert done["type"] == "compacted"
    assert done["passes"] == 1
    assert done["before"]["next_offset"] == done["after"]["next_offset"] == 240


def test_topics_that_are_not_compacted_are_passed_over_or_refused_by_name(tmp_path: Path) -> None:
    store = filled(tmp_path / "s")
    run("topic create plain", store=store)
    assert "plain" not in run("compact", store=store).stdout
    complaint = only_line(run("compact plain", store=store, code=2).stderr)
    assert complaint == "logstore: topic 'plain' is not compacted: its cleanup_policy is delete"
    run("compact nope", store=store, code=1)


def test_a_log_that_somebody_else_compacts_is_told(tmp_path: Path) -> None:
    store = filled(tmp_path / "s")
    lock = DiskFiles().lock(str(store / "topics" / "c-0" / "cleaner"))
    lock.acquire()
    try:
        complaint = only_line(run("compact", store=store, code=1).stderr)
    finally:
        lock.close()
    assert "is compacting or cutting the log" in complaint


def test_a_progress_bar_is_drawn_on_a_terminal_only(tmp_path: Path) -> None:
    store = filled(tmp_path / "s")
    assert run("compact", store=store).stderr == ""
    filled(store, "d")
    master, slave = pty.openpty()
    try:
        process = subprocess.Popen(
            [*COMMAND, "compact", "d", "--store", str(store)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=slave,
            env={**os.environ, "TERM": "xterm"},
        )
        output, _ = process.communicate(timeout=60)
        drawn = os.read(master, 1 << 16)
    finally:
        os.close(master)
        os.close(slave)
    assert process.returncode == 0
    assert output.startswith(b"d-0: compacted, ")
    assert b"compacting d-0" in drawn
