"""Bisecting: the first record behind which something is true, in one pass; or by a command, in few
runs."""

from __future__ import annotations

import json
import math
import os
import shlex
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from logstore import ConsumerRecord
from logstore.replay import Chunk, ListSource, Session
from logstore.replay.bisect import Culprit, bisect, bisect_by_command, run_on_prefix
from logstore.replay.errors import ReplayError, UserCodeError
from logstore.replay.expressions import ExpressionError

from .support import fill, record, row, topic_source


def rows_of(amounts: list[int]) -> list[ConsumerRecord]:
    return [row(n, b"%d" % amount, at=n) for n, amount in enumerate(amounts)]


def balance(state: Any, one: ConsumerRecord) -> Any:
    """Changes its state in place."""
    state = {"balance": 0, "count": 0} if state is None else state
    state["balance"] += int(one.value or 0)
    state["count"] += 1
    return state


# --- with a fold --------------------------------------------------------------------------------


@given(st.lists(st.integers(-5, 5), max_size=60), st.integers(1, 10), st.integers(0, 4))
@settings(max_examples=150, deadline=None)
def test_it_is_the_first_record_whether_or_not_it_stays_true(
    amounts: list[int], every: int, context: int
) -> None:
    rows = rows_of(amounts)
    session = Session(rows, balance, snapshot_every=every)
    found = bisect(session, "state.balance < 0", context=context)
    sums = [sum(amounts[: n + 1]) for n in range(len(amounts))]
    first = next((n for n, total in enumerate(sums) if total < 0), None)
    if first is None:
        assert found is None
        assert session.index == len(rows)
        return
    begin = max(first - context, 0)
    after = rows[first + 1 : first + 1 + context]
    assert found == Culprit(rows[first], first, rows[begin:first], after)
    assert session.state == {"balance": sums[first], "count": first + 1}
    assert session.state_before == ({"balance": sums[first - 1], "count": first} if first else None)


def test_the_expression_may_look_at_the_record_as_well() -> None:
    session = Session(rows_of([1, -5, 3, -5]), balance)
    found = bisect(session, "state.balance < 0 and offset > 1 and record.value == '-5'")
    assert found is not None
    assert found.record.offset == 3


def place_behind(begin: int, count: int) -> dict[str, int]:
    return {"": begin + count}


def test_each_record_is_read_once_and_the_last_few_twice(tmp_path: Path) -> None:
    class Counting(ListSource):
        given = 0

        def chunks(self, position: Any) -> Iterator[Any]:
            for chunk in super().chunks(position):
                for start in range(0, len(chunk.records), 500):
                    part = chunk.records[start : start + 500]
                    Counting.given += len(part)
                    yield Chunk(part, partial(place_behind, position[""] + start))

    rows = rows_of([1] * 30_000 + [-40_000])
    session = Session(Counting(rows), balance)
    found = bisect(session, "state.balance < 0")
    assert found is not None
    assert found.record.offset == 30_000
    assert session.state_before["balance"] == 30_000
    assert Counting.given <= len(rows) * (1 + 1 / 32) + 2 * 1000


def test_partitions_are_bisected_in_their_merged_order(tmp_path: Path) -> None:
    fill(tmp_path, "t", [[record("5", 0), record("-9", 30)], [record("5", 10), record("-9", 20)]])
    with Session(topic_source(tmp_path, "t"), balance) as session:
        found = bisect(session, "state.balance < 0")
    assert found is not None
    assert found.record[1:3] == (0, 1)
    assert [one[1:3] for one in found.before] == [(0, 0), (1, 0), (1, 1)]


def test_errors_of_folds_and_expressions_name_the_record() -> None:
    rows = [*rows_of([1, 2]), row(2, b"x")]
    with pytest.raises(UserCodeError, match=r"balance raised ValueError.* at t-0, offset 2"):
        bisect(Session(rows, balance), "state.balance < 0")
    with pytest.raises(ExpressionError, match=r"no 'owner'|cannot compare"):
        bisect(Session(rows, balance), "state.count < 'a'")


# --- with a command -----------------------------------------------------------------------------


@given(st.integers(0, 70), st.integers(1, 70), st.integers(0, 3))
@settings(max_examples=100, deadline=None)
def test_halving_finds_the_record_in_few_runs(count: int, bad_at: int, context: int) -> None:
    rows = rows_of([0] * count)
    runs: list[int] = []

    def is_bad(prefix: Iterator[ConsumerRecord], size: int) -> bool:
        assert list(prefix) == rows[:size]
        runs.append(size)
        return size >= bad_at

    found = bisect_by_command(ListSource(rows), is_bad, context=context)
    if bad_at > count:
        assert found is None
        assert len(runs) <= 1
        return
    place = bad_at - 1
    begin = max(place - context, 0)
    after = rows[place + 1 : place + 1 + context]
    assert found == Culprit(rows[place], place, rows[begin:place], after)
    assert len(runs) <= 2 + math.ceil(math.log2(count)) if count > 1 else 2


def test_what_is_bad_from_the_beginning_is_no_records_fault() -> None:
    with pytest.raises(ReplayError, match="bad without any records"):
        bisect_by_command(ListSource(rows_of([1, 2])), lambda prefix, size: True)


def test_records_that_are_left_out_do_not_count() -> None:
    rows = rows_of(list(range(40)))
    found = bisect_by_command(
        ListSource(rows),
        lambda prefix, size: any(one.offset >= 21 for one in prefix),
        test=lambda one: one.offset % 2 == 0,
        context=1,
    )
    assert found == Culprit(rows[22], 11, [rows[20]], [rows[24]])


CHECK = """
import json, sys
total = 0
for line in sys.stdin:
    total += int(json.loads(line)["value"])
    if total < 0:
        sys.exit(1)
"""


def test_a_command_says_by_its_status_whether_a_prefix_is_bad(tmp_path: Path) -> None:
    command = f"{shlex.quote(sys.executable)} -c {shlex.quote(CHECK)}"
    rows = rows_of([3, 4, -2, 5, -30, 50, 2])

    def is_bad(prefix: Iterator[ConsumerRecord], size: int) -> bool:
        return run_on_prefix(command, prefix, output=2)

    found = bisect_by_command(ListSource(rows), is_bad, context=1)
    assert found == Culprit(rows[4], 4, [rows[3]], [rows[5]])


def test_a_command_need_not_read_all_and_its_output_goes_elsewhere(tmp_path: Path) -> None:
    many = rows_of([1] * 20_000)
    with open(tmp_path / "out", "wb") as out:
        assert run_on_prefix("echo said; exit 1", iter(many), output=out.fileno())
        assert not run_on_prefix("head -n 1; exit 0", iter(many), output=out.fileno())
    lines = (tmp_path / "out").read_bytes().splitlines()
    assert lines[0] == b"said"
    assert json.loads(lines[1])["offset"] == 0


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("exit 125", "status 125"),
        ("no-such-command-anywhere 2>/dev/null", "status 127"),
        ("kill -9 $$", "by signal 9"),
        ("exit 200", "status 200"),
    ],
)
def test_an_end_that_is_no_verdict_is_told(command: str, reason: str) -> None:
    with open(os.devnull, "wb") as nowhere, pytest.raises(ReplayError, match=reason):
        run_on_prefix(command, iter(rows_of([1])), output=nowhere.fileno())
