"""Partitions merged by timestamp.

Only what stands next in each partition is compared, so each one's records stay in their own order,
also where its timestamps go back. Of equal timestamps the partition with the smaller number comes
first. Who begins at the offsets behind some record of the merged order gets the rest of it.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence

from logstore.errors import LogstoreError
from logstore.fetcher import ConsumerRecord

__all__ = ["merged"]

_CHUNK_RECORDS = 500

_Heap = list[tuple[int, int, Sequence[ConsumerRecord], int]]
"""For each stream the timestamp of its next record, the stream's number, its current list, and the
place of the record in that."""


def merged(streams: Sequence[Iterator[Sequence[ConsumerRecord]]]) -> Iterator[list[ConsumerRecord]]:
    """The records of all streams, in lists of up to 500.

    Each stream yields a partition's records in lists that are not empty. What a stream raises is
    raised behind all that is sure to stand in front of it.
    """
    heap: _Heap = []
    made: list[ConsumerRecord] = []
    problem: Exception | None = None
    try:
        for number, stream in enumerate(streams):
            rows = next(stream, None)
            if rows:
                heap.append((rows[0].timestamp, number, rows, 0))
        heapq.heapify(heap)
        while heap:
            _, number, rows, index = heap[0]
            # A run of one partition's records is taken without looking at the heap.
            limit = _second(heap)
            while True:
                made.append(rows[index])
                if len(made) == _CHUNK_RECORDS:
                    yield made
                    made = []
                index += 1
                if index == len(rows):
                    more = next(streams[number], None)
                    if not more:
                        heapq.heappop(heap)
                        break
                    rows, index = more, 0
                timestamp = rows[index].timestamp
                if limit is not None and (timestamp, number) > limit:
                    heapq.heapreplace(heap, (timestamp, number, rows, index))
                    break
    except (LogstoreError, OSError) as error:
        problem = error
    if made:
        yield made
    if problem is not None:
        raise problem


def _second(heap: _Heap) -> tuple[int, int] | None:
    """Timestamp and number of what comes behind the first one; None where nothing does."""
    return min((entry[:2] for entry in heap[1:3]), default=None)
