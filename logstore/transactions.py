"""What becomes of transactions, found from the batches of a partition themselves.

A directory that was copied may lack its transaction indexes, and no index says what is still open.
So control batches are looked at, in a walk over the headers.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from typing import NamedTuple

from logstore.segments.batch import Batch
from logstore.segments.control import ControlType, control_type
from logstore.segments.errors import FormatError

__all__ = ["OpenTransactions", "Outcomes", "TransactionEnd"]


class TransactionEnd(NamedTuple):
    """The end of a transaction."""

    kind: ControlType
    producer_id: int
    first_offset: int | None
    """Of what was met of it; None where nothing was."""
    offset: int
    """Of its marker."""
    stable_offset: int
    """Behind the marker no transaction is open up to there, as far as they were met."""


class OpenTransactions:
    """Which transactions are open, behind the batches that were met."""

    def __init__(self) -> None:
        self._first_offsets: dict[int, int] = {}
        """By producer."""

    @property
    def stable_offset(self) -> int | None:
        """Where the first one begins; None where there is none."""
        return min(self._first_offsets.values(), default=None)

    def take(self, batch: Batch) -> TransactionEnd | None:
        """The next batch; returns what it ends. Raises FormatError for a control batch that cannot
        be read."""
        header = batch.header
        if not header.transactional:
            return None
        if not header.record_count:  # compaction keeps it for its producer's sake alone
            if header.control:
                self._first_offsets.pop(header.producer_id, None)
            return None
        if not header.control:
            self._first_offsets.setdefault(header.producer_id, header.base_offset)
            return None
        records = batch.records()
        kind = control_type(records[0])
        if kind not in (ControlType.ABORT, ControlType.COMMIT):
            return None
        first = self._first_offsets.pop(header.producer_id, None)
        offset = records[0].offset
        stable = self.stable_offset
        return TransactionEnd(
            ControlType(kind),
            header.producer_id,
            first,
            offset,
            offset + 1 if stable is None else stable,
        )


class Outcomes:
    """Which batches belong to aborted transactions, of those of a partition that were met."""

    def __init__(self) -> None:
        self._open = OpenTransactions()
        self._aborted: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)
        """By producer: the first and the last offset of each aborted transaction, in order."""

    def take(self, batch: Batch) -> None:
        """The next batch. A control batch that cannot be read ends nothing."""
        try:
            end = self._open.take(batch)
        except FormatError:
            return
        if end is not None and end.kind == ControlType.ABORT and end.first_offset is not None:
            self._aborted[end.producer_id].append((end.first_offset, end.offset))

    @property
    def last_stable_offset(self) -> int | None:
        """Where the first transaction begins that is still open; None where there is none."""
        return self._open.stable_offset

    def is_aborted(self, batch: Batch) -> bool:
        """Whether the batch belongs to an aborted transaction."""
        header = batch.header
        if not header.transactional:
            return False
        aborted = self._aborted.get(header.producer_id, ())
        index = bisect_right(aborted, header.base_offset, key=lambda ends: ends[0])
        return index > 0 and header.base_offset <= aborted[index - 1][1]
