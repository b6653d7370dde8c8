"""The log aggregator: both bounds hold on every one of its days."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import logstore
from logstore.segments.check import check
from logstore.segments.files import DiskFiles

from .scripts import EXAMPLES, load

SCRIPT = EXAMPLES / "log_aggregator.py"


@pytest.fixture(scope="module")
def example() -> ModuleType:
    return load("log_aggregator")


@pytest.fixture(scope="module")
def run(example: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Any]]:
    """The store that the script left, and what it returned."""
    store = tmp_path_factory.mktemp("example") / "store"
    return store, example.main(str(store))


def test_one_log_is_bounded_by_size_and_the_other_by_time(
    example: ModuleType, run: tuple[Path, list[Any]]
) -> None:
    store, days = run
    assert len(days) == example.DAYS
    full = [day for day in days if day.aggregator_bytes >= example.KEEP_BYTES]
    # Once it has reached its bound it stays there: never below, at most one segment above.
    assert full == days[days.index(full[0]) :]
    assert len(full) > example.DAYS // 2
    for day in days:
        assert day.aggregator_bytes < example.KEEP_BYTES + example.SEGMENT_BYTES
    # The other one keeps everything for its time, and not much longer: a segment goes when the
    # newest of its lines is old enough, and a segment spans a day at most.
    keep_ms = example.KEEP_DAYS * example.DAY_MS
    start = days[0].oldest_ms
    for day in days:
        assert day.oldest_ms <= max(start, day.now_ms - keep_ms)
        assert day.oldest_ms >= day.now_ms - keep_ms - 2 * example.DAY_MS
    assert days[-1].oldest_ms > start
    assert max(day.compliance_bytes for day in days) > 2 * example.KEEP_BYTES
    assert not [f for f in check(DiskFiles(), str(store)) or () if f.severity == "damage"]


def test_no_line_within_its_time_is_missing(
    example: ModuleType, run: tuple[Path, list[Any]]
) -> None:
    path, days = run
    lines = list(example.parsed(example.ACCESS_LOG.read_bytes()))
    cutoff = days[-1].now_ms - example.KEEP_DAYS * example.DAY_MS
    expected = [
        (time_ms, line)
        for day in range(example.DAYS)
        for time_ms, line in example.of_day(lines, day)
        if time_ms > cutoff
    ]
    with logstore.open(path, create=False, read_only=True) as store:
        log = store.topic("audit").partition(0)
        found = []
        offset = log.log_start_offset
        while offset < log.log_end_offset:
            fetch = log.read(offset)
            found += [(record.timestamp, record.value) for record in fetch.records()]
            offset = fetch.next_offset
    assert found[-len(expected) :] == expected


def test_the_script_runs_and_says_what_it_does() -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT)], capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stderr == ""
    assert "keeps about 2,000,000 bytes" in done.stdout
    assert "retention_bytes=2000000" in done.stdout
    assert "retention_ms=864000000" in done.stdout
