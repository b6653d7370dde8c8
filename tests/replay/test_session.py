"""Sessions: stepping forwards and back, searching, watching, and what they remember."""

from __future__ import annotations

import itertools
import json
import math
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from logstore import ConsumerRecord
from logstore.errors import InvalidInputError
from logstore.replay import ListSource, Session, Stop, UserCodeError
from logstore.replay.errors import ReplayError
from logstore.replay.expressions import ExpressionError
from logstore.replay.snapshots import Snapshots

from .support import START_MS, fill, record, row, topic_source


def orders(count: int) -> list[ConsumerRecord]:
    """Deposits and withdrawals, ten milliseconds apart."""
    return [row(n, b"%d" % ((n * 7919) % 23 - 10), at=10 * n) for n in range(count)]


calls = 0


def ledger(state: dict[str, Any] | None, one: ConsumerRecord) -> dict[str, Any]:
    """A fold that changes its state in place."""
    global calls
    calls += 1
    if state is None:
        state = {"balance": 0, "seen": [], "by_last_digit": {}}
    amount = int(one.value or 0)
    state["balance"] += amount
    state["seen"].append(one.offset)
    digit = one.offset % 10
    state["by_last_digit"][digit] = state["by_last_digit"].get(digit, 0) + 1
    return state


def folded(rows: Sequence[ConsumerRecord]) -> Any:
    state = None
    for one in rows:
        state = ledger(state, one)
    return state


def session_of(rows: Sequence[ConsumerRecord], **options: Any) -> Session:
    return Session(rows, ledger, **options)


# --- steps --------------------------------------------------------------------------------------


def test_a_session_steps_forwards_and_back() -> None:
    rows = orders(5)
    session = session_of(rows)
    assert (session.index, session.record, session.state) == (0, None, None)
    assert session.next() == Stop("step", rows[0])
    assert session.state == folded(rows[:1])
    assert session.next(3) == Stop("step", rows[3])
    assert session.state_before == folded(rows[:3])
    assert session.back() == Stop("step", rows[2])
    assert session.state == folded(rows[:3])
    assert session.next(10) == Stop("end", rows[4])
    assert session.next() == Stop("end", rows[4])
    assert session.index == 5
    assert session.back(5) == Stop("step", None)
    assert session.state is None
    assert session.back() == Stop("begin", None)
    with pytest.raises(InvalidInputError, match="count=0 is out of bounds"):
        session.next(0)


def test_iterating_steps_to_the_end() -> None:
    rows = orders(20)
    session = session_of(rows)
    session.next(3)
    assert list(session) == rows[3:]
    assert session.state == folded(rows)


def test_whoever_changes_a_state_that_was_handed_out_changes_nothing() -> None:
    session = session_of(orders(5))
    session.next(3)
    session.state["balance"] = "spoilt"
    session.state_before["seen"].append("spoilt")
    assert session.state == folded(orders(3))
    session.next()
    session.back()
    assert session.state == folded(orders(3))
    assert session.state_before == folded(orders(2))


def test_changes_are_those_of_the_last_record() -> None:
    session = session_of([row(0, b"5"), row(1, b"-7")])
    session.next(2)
    assert [(one.path, one.before, one.after) for one in session.changes()] == [
        (".balance", 5, -2),
        (".seen[1]", None, 1),
        (".by_last_digit[1]", None, 1),
    ]


def test_a_session_without_a_fold_has_no_state() -> None:
    session = Session(orders(3))
    session.next(2)
    assert session.state is None
    assert session.changes() == []
    assert session.evaluate("offset") == 1
    with pytest.raises(ExpressionError, match="no state without a fold"):
        session.until("state.balance")


_moves = st.lists(
    st.one_of(
        st.tuples(st.just("next"), st.integers(1, 60)),
        st.tuples(st.just("back"), st.integers(1, 60)),
        st.tuples(st.just("goto"), st.integers(0, 129)),
        st.tuples(st.just("time"), st.integers(0, 1290)),
        st.tuples(st.just("index"), st.integers(0, 130)),
        st.tuples(st.just("until"), st.integers(-30, 30)),
        st.tuples(st.just("run"), st.integers(0, 9)),
    ),
    max_size=14,
)


@given(_moves, st.integers(1, 20), st.integers(3, 8))
@settings(max_examples=80, deadline=None)
def test_wherever_it_goes_the_state_is_that_of_a_fold_from_the_beginning(
    moves: list[tuple[str, int]], every: int, most: int
) -> None:
    rows = orders(130)
    session = session_of(rows, snapshot_every=every, max_snapshots=most)
    index = 0
    for move, number in moves:
        if move == "next":
            session.next(number)
            index = min(index + number, 130)
        elif move == "back":
            session.back(number)
            index = max(index - number, 0)
        elif move == "goto":
            session.goto(number)
            index = number + 1
        elif move == "time":
            session.goto_time(START_MS + number)
            index = math.ceil(number / 10) + 1
        elif move == "index":
            session.goto_index(number)
            index = number
        elif move == "until":
            session.until(f"state.balance == {number}")
            found = (n for n in range(index + 1, 131) if folded(rows[:n])["balance"] == number)
            index = next(found, 130)
        else:
            number_of = session.break_at(f"offset % 10 == {number}")
            session.run()
            session.delete(number_of)
            index = next((n for n in range(index + 1, 131) if (n - 1) % 10 == number), 130)
        assert session.index == index
        assert session.record == (rows[index - 1] if index else None)
        assert session.state == folded(rows[:index])
        assert session.state_before == (folded(rows[: index - 1]) if index else None)
        assert len(session._folding._snapshots) <= most


# --- going somewhere ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("store")
    fill(path, "one", [[record(str(n), 10 * n) for n in range(100)]])
    fill(path, "two", [[record(str(n), 20 * n + 10 * p) for n in range(50)] for p in (0, 1)])
    return path


def test_offsets_and_times_are_gone_to_from_either_side(store: Path) -> None:
    with Session(topic_source(store, "one"), ledger, snapshot_every=10) as session:
        for offset in (50, 10, 99, 0, 98):
            stop = session.goto(offset)
            assert stop.reason == "goto"
            assert stop.record is not None
            assert stop.record.offset == offset
            assert session.state["seen"] == list(range(offset + 1))
        for at, offset in ((0, 0), (501, 51), (990, 99), (5, 1)):
            stop = session.goto_time(START_MS + at)
            assert stop.record is not None
            assert stop.record.offset == offset
            assert session.state["seen"] == list(range(offset + 1))


def test_what_is_not_there_is_told_and_the_session_stays(store: Path) -> None:
    with Session(topic_source(store, "one"), ledger) as session:
        session.next(5)
        for go, reason in (
            (lambda: session.goto(100), "no record at offset 100 or behind it"),
            (lambda: session.goto_time(START_MS * 2), "no record of time"),
            (lambda: session.goto_index(101), "only 100 records"),
            (lambda: session.goto_index(-1), "out of bounds"),
            (lambda: session.goto(3, 7), "no partition 7 in one"),
            (lambda: session.delete(3), "no breakpoint and no watch 3"),
        ):
            with pytest.raises(InvalidInputError, match=reason):
                go()
            assert session.index == 5
            assert session.state["seen"] == list(range(5))


def test_of_several_partitions_one_has_to_be_named(store: Path) -> None:
    with Session(topic_source(store, "two"), ledger) as session:
        with pytest.raises(InvalidInputError, match="several partitions, 0, 1: which one"):
            session.goto(5)
        for partition, offset, index in ((1, 5, 12), (0, 5, 11), (1, 49, 100), (0, 0, 1)):
            stop = session.goto(offset, partition)
            assert stop.record is not None
            assert stop.record[1:3] == (partition, offset)
            assert session.index == index
        place = session.goto(20, 0) and session.where()
        assert place.behind == 41
        assert place.position == {"two-0": 21, "two-1": 20}
        assert (place.done, place.total) == (41, 100)


def test_going_a_little_further_does_not_begin_anew() -> None:
    global calls
    session = session_of(orders(5000), snapshot_every=4000)
    session.goto(3000)
    calls = 0
    session.goto(3010)
    assert calls <= 12


# --- breakpoints, watches -----------------------------------------------------------------------


def test_runs_stop_at_breakpoints_and_say_at_which() -> None:
    rows = orders(50)
    session = session_of(rows)
    first = session.break_at("offset == 7")
    second = session.break_at("state.balance > 1000000 or offset == 9")
    assert (first, second) == (1, 2)
    assert session.run() == Stop("break", rows[7], 1)
    assert session.run() == Stop("break", rows[9], 2)
    assert session.run() == Stop("end", rows[49])
    session.back(45)
    session.delete(first)
    assert session.run() == Stop("break", rows[9], 2)


def test_runs_stop_where_a_watched_value_changes() -> None:
    rows = orders(50)
    session = session_of(rows)
    number = session.watch("state.by_last_digit['3']")
    other = session.watch("len(state.seen) // 10")
    stop = session.run()
    assert stop == Stop("watch", rows[0], other, None, 0)
    assert session.run() == Stop("watch", rows[9], other, 0, 1)
    session.delete(other)
    session.delete(number)
    copied = session.watch("state.by_last_digit")
    stop = session.run()
    assert (stop.number, stop.record) == (copied, rows[10])
    assert stop.before == dict.fromkeys(range(10), 1)
    assert stop.after[0] == 2
    session.next(3)  # what changes on the way of a step is seen
    assert session.run().record == rows[14]


def test_all_that_stops_at_a_record_is_told() -> None:
    rows = orders(50)
    session = session_of(rows)
    session.watch("offset // 7")
    session.break_at("offset == 7")
    session.break_at("offset == 9999")
    session.next()
    assert session.run() == Stop(
        "break", rows[7], 2, also=(Stop("watch", rows[7], 1, before=0, after=1),)
    )


def test_expressions_are_checked_when_they_are_set() -> None:
    session = session_of(orders(3))
    for use in (session.break_at, session.watch, session.until):
        with pytest.raises(ExpressionError, match="column 1"):
            use("nope == 1")
    with pytest.raises(InvalidInputError, match="no record yet"):
        session.evaluate("state")
    session.next()
    assert session.evaluate("state.balance + 1") == folded(orders(1))["balance"] + 1


def test_an_expression_that_fails_stops_behind_its_record() -> None:
    session = session_of(orders(30))
    with pytest.raises(ExpressionError, match="division by zero, at t-0, offset 4"):
        session.until("1 / (offset - 4) == 5")
    assert session.index == 5
    assert session.state == folded(orders(5))


# --- folds that fail, that are interrupted, that cannot be copied --------------------------------


def test_a_fold_that_fails_leaves_the_session_in_front_of_the_record() -> None:
    def fragile(state: Any, one: ConsumerRecord) -> Any:
        state = ledger(state, one)
        if one.offset == 17:
            raise KeyError("amount")
        return state

    session = Session(orders(30), fragile, fold_name="shop:fragile", snapshot_every=5)
    for move in (session.run, lambda: session.next(20), lambda: session.until("offset == 20")):
        with pytest.raises(UserCodeError) as caught:
            move()
        assert "shop:fragile raised KeyError: 'amount' at t-0, offset 17 (test_session.py" in str(
            caught.value
        )
        assert session.index == 17
        assert session.state == folded(orders(17))
        session.back(3)
        assert session.state == folded(orders(14))


def test_ctrl_c_in_a_fold_leaves_whole_records_behind() -> None:
    class Once:
        done = False

    def interrupted(state: Any, one: ConsumerRecord) -> Any:
        state = ledger(state, one)
        if one.offset == 23 and not Once.done:
            Once.done = True
            raise KeyboardInterrupt
        return state

    session = Session(orders(40), interrupted)
    with pytest.raises(KeyboardInterrupt):
        session.run()
    assert session.index == 23
    assert session.state == folded(orders(23))
    assert session.run().reason == "end"
    assert session.state == folded(orders(40))


def test_a_state_that_cannot_be_pickled_is_copied_otherwise() -> None:
    class Local:
        def __init__(self) -> None:
            self.seen: list[int] = []

    def fold(state: Any, one: ConsumerRecord) -> Any:
        state = state or Local()
        state.seen.append(one.offset)
        return state

    session = Session(orders(30), fold, snapshot_every=5)
    session.next(30)
    session.back(8)
    assert session.state.seen == list(range(22))


def test_a_state_that_cannot_be_copied_is_told() -> None:
    def fold(state: Any, one: ConsumerRecord) -> Any:
        return threading.Lock()

    session = Session(orders(30), fold, snapshot_every=5)
    with pytest.raises(ReplayError, match="a lock cannot be copied"):
        session.run()


# --- snapshots ----------------------------------------------------------------------------------


def test_snapshots_are_few_and_close_where_one_stands() -> None:
    snapshots = Snapshots({}, most=20)
    for index in range(10, 100_000, 10):
        snapshots.add(index, {}, None, -1, [index])
    kept = [one.behind for one in snapshots._kept]
    assert len(kept) == 20
    assert kept[0] == 0
    assert kept[-1] == 99_990
    gaps = [after - before for before, after in itertools.pairwise(kept)]
    assert gaps[-1] <= 50
    assert max(gaps) <= 60_000
    for index in (0, 9, 500, 99_989, 99_990, 10**6):
        assert snapshots.nearest(index).behind == max(one for one in kept if one <= index)


def test_snapshots_take_no_more_bytes_than_they_may() -> None:
    snapshots = Snapshots({}, most=1000, most_bytes=50_000)
    for index in range(1, 200):
        snapshots.add(index, {}, None, -1, {"data": "x" * 1000})
        assert snapshots.size <= 50_000 or len(snapshots) <= 3
    assert len(snapshots) > 30


def test_going_back_again_and_again_folds_little_each_time() -> None:
    global calls
    session = session_of(orders(20_000))
    session.run()
    session.back()
    calls = 0
    for _ in range(200):
        session.back()
    assert session.index == 20_000 - 201
    # From the last snapshot on the way forwards it would have been 600 for each of them.
    assert calls < 200 * 40
    assert session.state == folded(orders(20_000 - 201))


def test_a_long_way_is_folded_once() -> None:
    global calls
    calls = 0
    session = session_of(orders(20_000), snapshot_every=100)
    stop = session.until("offset == 19990")
    assert stop.reason == "until"
    assert calls == 19_991
    assert session.state_before["seen"][-1] == 19_989
    # Going back by one folds again what lies behind the last snapshot.
    assert calls <= 19_991 + 20_000 // 32


# --- files --------------------------------------------------------------------------------------


def test_a_session_is_saved_and_gone_on_with(store: Path, tmp_path: Path) -> None:
    path = tmp_path / "session.json"
    with Session(topic_source(store, "one"), ledger) as session:
        session.next(42)
        session.break_at("offset == 60")
        session.watch("state.balance > 2000")
        session.save(path)
    saved = json.loads(path.read_text())
    assert saved["index"] == 42
    assert saved["record"]["offset"] == 41
    assert saved["state"]["seen"][-1] == 41
    assert saved["fold"] == "ledger"
    with Session(topic_source(store, "one"), ledger) as session:
        session.break_at("offset == 1")
        assert session.restore(path).reason == "goto"
        assert session.index == 42
        assert [one.text for one in session.breakpoints.values()] == ["offset == 60"]
        stop = session.run()
        assert stop.reason == "break"
        assert stop.record is not None
        assert stop.record.offset == 60
    with (
        Session(topic_source(store, "two"), ledger) as session,
        pytest.raises(InvalidInputError, match="a session of another source"),
    ):
        session.restore(path)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"index": "x"}', "5", "[" * 100_000])
def test_a_file_that_is_no_session_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "session.json"
    path.write_text(text)
    session = session_of(orders(3))
    with pytest.raises(InvalidInputError, match="this is no saved session"):
        session.restore(path)


def test_records_are_left_out_by_a_test_in_both_directions() -> None:
    rows = orders(100)
    session = session_of(rows, test=lambda one: one.offset % 3 == 0, snapshot_every=7)
    kept = [one for one in rows if one.offset % 3 == 0]
    session.next(30)
    assert session.record == kept[29]
    session.back(13)
    assert session.record == kept[16]
    assert session.state == folded(kept[:17])
    assert session.run().record == kept[-1]
    assert session.where().position == {"": 100}


def test_a_list_of_records_is_a_source() -> None:
    source = ListSource(orders(4), "mine")
    session = Session(source)
    assert (session.where().done, session.where().total) == (0, 4)
    session.next(2)
    assert session.where().done == 2
    assert source.newest() == START_MS + 30
    assert ListSource([]).newest() == -1
