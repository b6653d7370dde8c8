"""Counting in bounded memory, beside counting everything."""

from __future__ import annotations

import random
from collections import Counter
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from logstore.inspect.measures import Bucket, Histogram, Tally, TimeLine


@given(sizes=st.lists(st.integers(0, 1 << 40), max_size=50))
def test_each_size_falls_into_the_bucket_that_holds_it(sizes: list[int]) -> None:
    histogram = Histogram()
    for size in sizes:
        histogram.add([size])
    buckets = histogram.buckets()
    assert histogram.count == len(sizes) == sum(bucket.sizes for bucket in buckets)
    assert (histogram.total, histogram.largest) == (sum(sizes), max(sizes, default=0))
    for bucket in buckets:
        assert bucket.sizes == sum(bucket.first <= size <= bucket.last for size in sizes)
    for one, other in pairwise(buckets):
        assert other.first == one.last + 1


def test_buckets_double() -> None:
    histogram = Histogram()
    histogram.add([0, 1, 2, 3, 4, 9])
    assert histogram.buckets() == [
        Bucket(0, 0, 1),
        Bucket(1, 1, 1),
        Bucket(2, 3, 2),
        Bucket(4, 7, 1),
        Bucket(8, 15, 1),
    ]


@given(times=st.lists(st.integers(-1, 1 << 41) | st.integers(1_000, 2_000), max_size=60))
def test_every_record_is_in_the_interval_of_its_time(times: list[int]) -> None:
    line = TimeLine()
    for time in times:
        line.add(time)
    intervals = line.intervals()
    assert line.without == times.count(-1)
    assert len(intervals) <= 240
    for start, count in intervals:
        assert count == sum(start <= time < start + line.interval_ms for time in times if time >= 0)
    assert sum(count for _, count in intervals) == len(times) - line.without
    if intervals:
        assert intervals[0][1]
        assert intervals[-1][1]


def test_intervals_are_no_longer_than_they_have_to_be() -> None:
    line = TimeLine()
    for second in range(200):
        line.add(second * 1000)
    assert (line.interval_ms, len(line.intervals())) == (1000, 200)


def met(key: bytes | None, count: int = 1, size: int = 1) -> dict[bytes | None, tuple[int, int]]:
    return {key: (count, size)}


def test_few_keys_are_counted_exactly() -> None:
    tally = Tally()
    for key in (b"a", None, b"a", b"b", b"a"):
        tally.add(met(key, size=10))
    assert tally.is_exact
    assert [tuple(one) for one in tally.top(2)] == [(b"a", 3, 30, 0), (None, 1, 10, 0)]
    assert len(tally) == 3


def test_of_many_keys_the_frequent_ones_stay_and_their_counts_are_bounded() -> None:
    chance = random.Random(7)
    tally, exact = Tally(capacity=100), Counter[bytes]()
    for _ in range(30_000):
        key = b"%d" % int(chance.paretovariate(0.7))
        tally.add(met(key))
        exact[key] += 1
    assert not tally.is_exact
    assert len(tally) <= 100
    for one in tally.top(100):
        assert one.key is not None
        assert one.times - one.error <= exact[one.key] <= one.times
    held = {one.key for one in tally.top(100)}
    assert all(count <= tally.floor for key, count in exact.items() if key not in held)
    assert [one.key for one in tally.top(3)] == [key for key, _ in exact.most_common(3)]


def test_long_keys_take_little_room_and_are_told_apart() -> None:
    tally = Tally()
    tally.add(met(b"x" * 10_000 + b"1"))
    tally.add(met(b"x" * 10_000 + b"2"))
    tally.add(met(b"x" * 10_000 + b"2"))
    first, second = tally.top(5)
    assert (first.times, second.times) == (2, 1)
    assert first.key is not None
    assert len(first.key) < 100
