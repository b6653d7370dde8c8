"""Comparing: two logs by offset and by key, two folds over one log."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from logstore import ConsumerRecord
from logstore.errors import InvalidInputError
from logstore.json_records import record_line
from logstore.replay import ListSource, UserCodeError
from logstore.replay.diff import (
    Divergence,
    FoldDivergence,
    Summary,
    diff_by_key,
    diff_by_offset,
    diff_folds,
)
from logstore.replay.file_source import open_file
from logstore.replay.log_source import open_directories
from logstore.replay.source import Range
from logstore.segments.files import DiskFiles

from .support import fill, read_all, record, row, topic_source

ROWS = [row(n, b"v%d" % n, partition=n % 2, key=b"k%d" % (n % 3), at=n) for n in range(12)]


def by_offset(left: list[ConsumerRecord], right: list[ConsumerRecord], **options: Any) -> Summary:
    return diff_by_offset(ListSource(left), ListSource(right), **options)


def by_key(left: list[ConsumerRecord], right: list[ConsumerRecord], **options: Any) -> Summary:
    return diff_by_key(ListSource(left), ListSource(right), **options)


def test_logs_that_are_the_same_do_not_differ() -> None:
    for compare in (by_offset, by_key):
        summary = compare(ROWS, ROWS)
        assert summary == Summary(same=12)
        assert not summary.differs
        assert compare([], []) == Summary()


@pytest.mark.parametrize(
    ("change", "fields"),
    [
        ({"value": b"other"}, ("value",)),
        ({"value": None}, ("value",)),
        ({"timestamp": 5}, ("timestamp",)),
        ({"headers": [("a", b"b")]}, ("headers",)),
        ({"value": b"", "timestamp": 5}, ("timestamp", "value")),
    ],
)
def test_a_record_that_differs_is_told_with_what_differs(
    change: dict[str, Any], fields: tuple[str, ...]
) -> None:
    other = [*ROWS[:4], ROWS[4]._replace(**change), *ROWS[5:]]
    for compare in (by_offset, by_key):
        summary = compare(ROWS, other)
        assert summary == Summary(
            same=11, changed=1, first=Divergence("changed", ROWS[4], other[4], fields)
        )
        assert summary.differs
        assert not compare(ROWS, other, fields=[f for f in ("key",) if f not in fields]).differs


def test_a_key_that_differs_is_one_record_less_and_one_more_by_key() -> None:
    other = [*ROWS[:4], ROWS[4]._replace(key=b"new"), *ROWS[5:]]
    assert by_offset(ROWS, other).first == Divergence("changed", ROWS[4], other[4], ("key",))
    summary = by_key(ROWS, other)
    # The later ones of the old key are compared with one another's followers.
    assert (summary.same, summary.changed, summary.removed, summary.added) == (9, 2, 1, 1)
    assert summary.first == Divergence("changed", ROWS[4], ROWS[7], ("timestamp", "value"))


def test_records_on_one_side_only_are_told() -> None:
    summary = by_offset(ROWS, ROWS[:3] + ROWS[4:])
    assert summary == Summary(same=11, removed=1, first=Divergence("removed", ROWS[3], None))
    summary = by_offset(ROWS[:3] + ROWS[4:], ROWS)
    assert summary == Summary(same=11, added=1, first=Divergence("added", None, ROWS[3]))
    assert by_key(ROWS[:10], ROWS).first == Divergence("added", None, ROWS[10])
    assert by_key(ROWS, ROWS[:10]).first == Divergence("removed", ROWS[10], None)


def test_the_first_difference_is_the_first_in_time() -> None:
    other = [one._replace(value=b"x") if one.offset in (7, 8, 2) else one for one in ROWS]
    assert by_offset(ROWS, other).first == Divergence("changed", ROWS[2], other[2], ("value",))
    assert by_key(ROWS, other).first == Divergence("changed", ROWS[2], other[2], ("value",))


def test_the_first_difference_is_the_one_that_a_replay_meets_first() -> None:
    left = [row(n, b"v", partition=n % 2, at=n) for n in range(12)]
    old = row(99, b"late", partition=0, at=0)  # behind the last one, which is of time 10
    changed = [one._replace(value=b"w") if one.offset == 7 else one for one in left]
    summary = by_offset(left, [*changed, old])
    assert (summary.changed, summary.added) == (1, 1)
    assert summary.first is not None
    assert summary.first.left == left[7]


def test_by_key_the_order_of_different_keys_does_not_matter() -> None:
    for seed in range(5):
        rng = random.Random(seed)
        by_its_key: dict[bytes | None, list[ConsumerRecord]] = {}
        for one in ROWS:
            by_its_key.setdefault(one.key, []).append(one)
        other: list[ConsumerRecord] = []
        queues = list(by_its_key.values())
        while any(queues):
            other.append(rng.choice([queue for queue in queues if queue]).pop(0))
        moved = [one._replace(offset=n, partition=5) for n, one in enumerate(other)]
        assert by_key(ROWS, moved) == Summary(same=12)
        assert by_offset(ROWS, moved).differs


_logs = st.lists(
    st.tuples(st.sampled_from([None, b"a", b"b"]), st.sampled_from([b"1", b"2"])), max_size=12
)


@given(_logs, _logs)
@settings(max_examples=200, deadline=None)
def test_counts_are_those_of_a_plain_comparison(
    left: list[tuple[bytes | None, bytes]], right: list[tuple[bytes | None, bytes]]
) -> None:
    sides = [
        [row(n, value, key=key) for n, (key, value) in enumerate(side)] for side in (left, right)
    ]
    summary = by_offset(*sides)
    common = min(len(left), len(right))
    assert summary.same == sum(a == b for a, b in zip(left, right, strict=False))
    assert summary.changed == common - summary.same
    assert (summary.removed, summary.added) == (len(left) - common, len(right) - common)
    summary = by_key(*sides, fields=("value",))
    same = changed = removed = added = 0
    for key in (None, b"a", b"b"):
        one, other = ([v for k, v in side if k == key] for side in (left, right))
        equal = sum(a == b for a, b in zip(one, other, strict=False))
        both = min(len(one), len(other))
        same, changed = same + equal, changed + both - equal
        removed, added = removed + len(one) - both, added + len(other) - both
    assert (summary.same, summary.changed, summary.removed, summary.added) == (
        same, changed, removed, added
    )  # fmt: skip
    assert (summary.first is not None) == summary.differs


def test_topics_directories_and_files_are_compared(tmp_path: Path) -> None:
    parts = [[record(f"{p}/{n}", 10 * n + p, b"k") for n in range(20)] for p in (0, 1)]
    fill(tmp_path, "one", parts, batch=7)
    parts[1][13] = record("other", 131, b"k")
    fill(tmp_path, "two", [parts[0], parts[1][:18]], batch=4)
    with topic_source(tmp_path, "one") as one, topic_source(tmp_path, "two") as two:
        lines = tmp_path / "one.jsonl"
        lines.write_bytes(b"".join(map(record_line, read_all(one))))
        summary = diff_by_offset(one, two)
        assert (summary.same, summary.changed, summary.removed, summary.added) == (37, 1, 2, 0)
        assert summary.first is not None
        assert summary.first.left is not None
        assert summary.first.left[:3] == ("one", 1, 13)
        with open_file(str(lines), Range(), files=DiskFiles()) as copy:
            assert diff_by_offset(copy, two) == summary
            assert not diff_by_offset(one, copy).differs
        assert diff_by_key(one, two).differs
        assert not diff_by_offset(one, two, test=lambda r: r.offset < 13).differs
    with (
        open_directories(str(tmp_path / "topics"), Range(), files=DiskFiles()) as all_of_them,
        topic_source(tmp_path, "one") as one,
        pytest.raises(InvalidInputError, match="several topics"),
    ):
        diff_by_offset(all_of_them, one)


def test_what_cannot_be_compared_is_refused() -> None:
    for compare in (by_offset, by_key):
        with pytest.raises(InvalidInputError, match="'offset' cannot be compared; timestamp, key"):
            compare(ROWS, ROWS, fields=("value", "offset"))


# --- folds --------------------------------------------------------------------------------------


def total(state: Any, one: ConsumerRecord) -> Any:
    state = state or {"total": 0}
    state["total"] += json.loads(one.value or b"0")
    return state


def total_without_refunds(state: Any, one: ConsumerRecord) -> Any:
    state = state or {"total": 0}
    state["total"] += max(json.loads(one.value or b"0"), 0)
    return state


def amounts(*numbers: int) -> ListSource:
    return ListSource([row(n, b"%d" % number) for n, number in enumerate(numbers)])


def test_two_folds_are_compared_behind_each_record() -> None:
    summary = diff_folds(amounts(5, 3, -2, 4), total, total_without_refunds)
    assert (summary.same, summary.different, summary.last_differs) == (2, 2, True)
    assert summary.first is not None
    assert summary.first.record.offset == 2
    assert summary.first == FoldDivergence(
        summary.first.record, {"total": 6}, {"total": 8}, summary.first.changes
    )
    assert [(one.path, one.before, one.after) for one in summary.first.changes] == [
        (".total", 6, 8)
    ]
    assert not diff_folds(amounts(5, 3), total, total_without_refunds).differs


def test_folds_may_meet_again() -> None:
    def late(state: Any, one: ConsumerRecord) -> Any:
        return total(state, one) if one.offset != 1 else dict(state or {"total": 0})

    def later(state: Any, one: ConsumerRecord) -> Any:
        return total(state, one) if one.offset != 2 else dict(state or {"total": 0})

    summary = diff_folds(amounts(1, 7, 7, 1), late, later)
    assert (summary.same, summary.different, summary.last_differs) == (3, 1, False)


def test_objects_are_the_same_when_their_data_are() -> None:
    class State:
        def __init__(self, total: int) -> None:
            self.total = total

    def as_object(state: Any, one: ConsumerRecord) -> Any:
        return State((state.total if state else 0) + int(one.value or 0))

    assert not diff_folds(amounts(1, 2, 3), as_object, as_object).differs
    assert not diff_folds(amounts(1, 2, 3), as_object, total).differs


def test_what_a_fold_raises_is_told() -> None:
    with pytest.raises(UserCodeError, match=r"b raised JSONDecodeError.* at t-0, offset 1"):
        diff_folds(
            ListSource([row(0, b"1"), row(1, b"x")]), lambda s, r: s, total, names=("a", "b")
        )
