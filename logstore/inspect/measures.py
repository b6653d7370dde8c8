"""Counting in bounded memory: sizes, times, and what occurs most often."""

from __future__ import annotations

import hashlib
import heapq
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple

__all__ = ["Bucket", "Histogram", "Often", "Tally", "TimeLine"]


class Bucket(NamedTuple):
    """Part of a histogram: how many sizes lie from ``first`` to ``last``, these included."""

    first: int
    last: int
    sizes: int


class Histogram:
    """Sizes, in buckets that double: 1, 2 to 3, 4 to 7, 8 to 15, ..."""

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()
        """By the number of bits of a size."""
        self.total = 0
        """All sizes together."""
        self.largest = 0

    def add(self, sizes: Iterable[int]) -> None:
        """Count sizes."""
        sizes = list(sizes)
        self._counts.update(map(int.bit_length, sizes))
        self.total += sum(sizes)
        self.largest = max(self.largest, max(sizes, default=0))

    @property
    def count(self) -> int:
        """How many sizes were counted."""
        return self._counts.total()

    def buckets(self) -> list[Bucket]:
        """From the smallest size to the largest, empty ones in between as well."""
        if not self._counts:
            return []
        bits = range(min(self._counts), max(self._counts) + 1)
        return [Bucket((1 << n) >> 1, max(0, (1 << n) - 1), self._counts[n]) for n in bits]


_LADDER = (
    *(1, 10, 100, 1_000, 5_000, 15_000),
    *(60_000, 300_000, 900_000),
    *(3_600_000, 21_600_000, 86_400_000, 604_800_000),
)
"""Intervals in milliseconds, each a part of the next, up to a week; longer ones double."""
_MOST_INTERVALS = 240


class TimeLine:
    """How many records there were when: equal intervals, longer where the times lie further apart.

    The interval grows until all of them fit into 240, so memory does not depend on how long a time
    it is.
    """

    def __init__(self) -> None:
        self.interval_ms = _LADDER[0]
        self.without = 0
        """Records that have no timestamp."""
        self._counts: dict[int, int] = {}
        self._first = self._last = 0
        """The first interval that has any, and the last one."""

    def add(self, timestamp: int, count: int = 1) -> None:
        """Count records of one time (milliseconds since 1970)."""
        if timestamp < 0:
            self.without += count
            return
        place = timestamp // self.interval_ms
        if not self._counts:
            self._first = self._last = place
        if place < self._first or place > self._last:
            self._first, self._last = min(place, self._first), max(place, self._last)
            while self._last - self._first >= _MOST_INTERVALS:
                self._widen()
            place = timestamp // self.interval_ms
        self._counts[place] = self._counts.get(place, 0) + count

    def _widen(self) -> None:
        longer = (step for step in _LADDER if step > self.interval_ms)
        interval = next(longer, 2 * self.interval_ms)
        factor = interval // self.interval_ms
        widened: dict[int, int] = {}
        for place, count in self._counts.items():
            widened[place // factor] = widened.get(place // factor, 0) + count
        self._counts, self.interval_ms = widened, interval
        self._first //= factor
        self._last //= factor

    def intervals(self) -> list[tuple[int, int]]:
        """``(time of its beginning, records)`` of each interval, empty ones in between as well."""
        if not self._counts:
            return []
        return [
            (place * self.interval_ms, self._counts.get(place, 0))
            for place in range(self._first, self._last + 1)
        ]


class Often(NamedTuple):
    """Something that occurs often."""

    key: bytes | None
    times: int
    """How often; at most ``error`` too many."""
    size: int
    """The bytes of its records; those of the first ``error`` may be missing."""
    error: int


class Tally:
    """How often keys occur: exactly, as long as there are not too many of them; behind that the
    most frequent ones, by a sketch.

    It is the *space-saving* sketch (Metwally, Agrawal, El Abbadi 2005), in its lazy form: when
    there are too many keys the rarer half is dropped. A key that comes (back) later begins at the
    largest count that was ever dropped, which is an upper bound of what it had: so counts are never
    too small, and by how much they may be too large is known. Of a key of more than 256 bytes only
    the beginning and a digest are kept.
    """

    _LONGEST_KEY = 256
    _SHOWN = 64

    def __init__(self, capacity: int = 50_000) -> None:
        self._capacity = capacity
        self._rows: dict[bytes | None, list[int]] = {}
        """By key: count, bytes, error."""
        self.floor = 0
        """What a new key begins with: no key that is not here has occurred more often."""

    @property
    def is_exact(self) -> bool:
        """Whether all keys are counted exactly."""
        return not self.floor

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, found: Mapping[bytes | None, tuple[int, int]]) -> None:
        """Count keys, each with how often it was met and the bytes of its records."""
        rows = self._rows
        for key, (count, size) in found.items():
            if key is not None and len(key) > self._LONGEST_KEY:
                digest = hashlib.blake2b(key, digest_size=8).hexdigest()
                key = key[: self._SHOWN] + b"..." + digest.encode()
            row = rows.get(key)
            if row is None:
                if len(rows) >= self._capacity:
                    self._drop()
                    rows = self._rows
                rows[key] = [self.floor + count, size, self.floor]
            else:
                row[0] += count
                row[1] += size

    def _drop(self) -> None:
        ordered = sorted(self._rows.items(), key=lambda item: item[1][0], reverse=True)
        kept = max(1, self._capacity // 2)
        self.floor = max(self.floor, ordered[kept][1][0] if kept < len(ordered) else 0)
        self._rows = dict(ordered[:kept])

    def top(self, count: int) -> list[Often]:
        """The most frequent keys, the most frequent one first."""
        best = heapq.nlargest(count, self._rows.items(), key=lambda item: (item[1][0], item[1][1]))
        return [Often(key, *row) for key, row in best]
