"""Pace: when each record is due."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from logstore.errors import InvalidInputError
from logstore.replay.pace import OriginalPace, Pace, RatePace, parse_rate, parse_speed

from .support import row


def times(pace: Pace, *at: int, begin: float = 100.0, chunk: int = 1000) -> list[float]:
    """When each record is handed on, by a clock that a sleeper moves, from 0 on."""
    rows = [row(n, at=t) for n, t in enumerate(at)]
    now = begin
    found: list[float] = []
    for first in range(0, len(rows), chunk):
        part = rows[first : first + chunk]
        index = 0
        while index < len(part):
            stop, when = pace.due(part, index, now)
            assert stop >= index
            if stop == index:
                assert when > now
                now = when
            found += [round(now - begin, 6)] * (stop - index)
            index = stop
    return found


def test_original_pace_keeps_the_distances() -> None:
    assert times(OriginalPace(), 0, 0, 500, 2000) == [0, 0, 0.5, 2]
    assert times(OriginalPace(speed=10), 0, 500, 2000) == [0, 0.05, 0.2]
    assert times(OriginalPace(speed=0.5), 0, 500) == [0, 1]


def test_a_time_that_goes_back_waits_for_nobody_and_makes_nobody_wait() -> None:
    assert times(OriginalPace(), 1000, 3000, 500, 2000, 3500) == [0, 2, 2, 2, 2.5]
    no_time = row(1)._replace(timestamp=-1)
    assert OriginalPace().due([row(0), no_time, row(2)], 0, 5.0) == (3, 5.0)
    assert OriginalPace().due([no_time, row(0), row(2, at=1)], 0, 5.0) == (2, 5.001)


def test_long_pauses_are_made_shorter() -> None:
    pace = OriginalPace(longest_pause_ms=1000)
    assert times(pace, 0, 86_400_000, 86_400_500, 86_402_000) == [0, 1, 1.5, 2.5]


def test_a_rate_is_even() -> None:
    assert times(RatePace(4), *range(5)) == [0, 0.25, 0.5, 0.75, 1.0]
    assert times(RatePace(0.5), 0, 0, 0) == [0, 2, 4]


def test_a_rate_does_not_make_up_for_a_long_delay() -> None:
    pace, rows = RatePace(100), [row(n) for n in range(1000)]
    assert pace.due(rows, 0, 10.0)[0] == 1
    assert pace.due(rows, 1, 60.0)[0] == 1 + 11  # a tenth of a second's worth, not 50 seconds'
    stop, when = pace.due(rows, 12, 60.0)
    assert stop == 12
    assert 60.0 < when <= 60.01


def test_what_is_left_is_known_at_the_original_pace_only() -> None:
    pace = OriginalPace(speed=2)
    assert pace.left(row(0).timestamp) is None
    pace.due([row(0)], 0, 1.0)
    assert pace.left(row(0, at=10_000).timestamp) == 5.0
    assert pace.left(-1) is None
    assert RatePace(5).left(5) is None


_at = st.lists(st.integers(0, 5000), min_size=1, max_size=30)


@given(_at, st.integers(1, 7), st.sampled_from([0.5, 1, 10]))
@settings(max_examples=100, deadline=None)
def test_no_record_comes_early_and_none_overtakes(at: list[int], chunk: int, speed: float) -> None:
    found = times(OriginalPace(speed=speed), *at, chunk=chunk)
    assert found == sorted(found)
    newest = at[0]
    for when, time in zip(found, at, strict=True):
        newest = max(newest, time)
        assert when == pytest.approx((newest - at[0]) / 1000 / speed, abs=1e-5)


@given(st.integers(1, 200), st.integers(1, 7), st.floats(0.5, 1000))
@settings(max_examples=100, deadline=None)
def test_a_rate_is_never_exceeded(count: int, chunk: int, rate: float) -> None:
    found = times(RatePace(rate), *range(count), chunk=chunk)
    for index, when in enumerate(found):
        assert when == pytest.approx(index / rate, abs=1e-3)


def test_speeds_and_rates_are_understood() -> None:
    assert [parse_speed(text) for text in ("10x", "1", "0.5x")] == [10, 1, 0.5]
    assert [parse_rate(text) for text in ("1000/s", "1000", "90/m", "36/h")] == [
        1000,
        1000,
        1.5,
        0.01,
    ]
    for text in ("", "x", "0", "-1x", "1/0x", "nan", "inf", "10xx", "1e99"):
        with pytest.raises(InvalidInputError, match="is no speed"):
            parse_speed(text)
    for text in ("", "/s", "0/s", "5/d", "5/", "nan/s", "inf", "-3/s"):
        with pytest.raises(InvalidInputError, match="is no rate"):
            parse_rate(text)
