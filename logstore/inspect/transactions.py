"""Which batches of a partition belong to aborted transactions, and where the first one is open.

Both are found from the control batches themselves, by a walk over the headers: a directory that was
copied may lack its transaction indexes, and no index says what is still open.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable

from logstore.segments.batch import Batch
from logstore.segments.control import ControlType, control_type
from logstore.segments.errors import FormatError

__all__ = ["Outcomes"]


class Outcomes:
    """What became of the transactions of a partition."""

    def __init__(self, batches: Iterable[Batch]) -> None:
        """``batches``: all of the partition, in order, with those of control records."""
        self._aborted: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)
        """By producer: the first and the last offset of each aborted transaction, in order."""
        begun: dict[int, int] = {}
        for batch in batches:
            header = batch.header
            if not header.transactional:
                continue
            if not header.control:
                begun.setdefault(header.producer_id, header.base_offset)
                continue
            first = begun.pop(header.producer_id, None)
            if first is not None and _aborts(batch):
                self._aborted[header.producer_id].append((first, header.last_offset))
        self.last_stable_offset: int | None = min(begun.values(), default=None)
        """Where the first transaction begins that is still open; None where there is none."""

    def is_aborted(self, batch: Batch) -> bool:
        """Whether the batch belongs to an aborted transaction."""
        header = batch.header
        if not header.transactional:
            return False
        aborted = self._aborted.get(header.producer_id, ())
        index = bisect_right(aborted, header.base_offset, key=lambda ends: ends[0])
        return index > 0 and header.base_offset <= aborted[index - 1][1]


def _aborts(batch: Batch) -> bool:
    try:
        records = batch.records()
        return bool(records) and control_type(records[0]) == ControlType.ABORT
    except FormatError:
        return False
