"""Which records of a partition a group may be delivered that reads committed ones alone.

The log keeps no account of transactions, so the batches are walked over, each once, from the first
offset on that the group may still be delivered: a transaction of which no batch is met is none that
anything could be delivered of.
"""

from __future__ import annotations

import threading

from logstore.errors import OffsetOutOfRangeError
from logstore.log import PartitionLog
from logstore.queues.message import Delivered
from logstore.queues.reading import Reader
from logstore.segments.batch import Batch
from logstore.transactions import Outcomes

__all__ = ["Committed", "CommittedReader"]

_READ_BYTES = 1 << 20


class Committed:
    """What became of transactions in a partition. Usable from many threads."""

    def __init__(self, log: PartitionLog, start: int) -> None:
        """``start``: nothing in front of it is asked for, as far as is known."""
        self._log = log
        self._mutex = threading.Lock()
        """Held to walk on."""
        self._start = self._walked = start
        self._outcomes = Outcomes()
        self.end = start
        """The first offset that may not be delivered yet, as far as was walked."""

    def cover(self, offset: int) -> None:
        """Be ready to be asked about batches from ``offset`` on, which may be one that a group came
        back to. Raises what the log raises for damage."""
        log_end = self._log.log_end_offset
        if log_end == self._walked and offset >= self._start:
            return
        with self._mutex:
            log_end = self._log.log_end_offset
            if log_end < self._walked:  # the log was cut off
                self._walk(Outcomes(), min(offset, self._start, log_end))
            elif offset < self._start:
                self._walk(Outcomes(), offset)
            else:
                self._walk(self._outcomes, self._start)

    def walk(self) -> None:
        """Walk over what has come."""
        self.cover(self._start)

    def _walk(self, outcomes: Outcomes, start: int) -> None:
        offset = self._walked if outcomes is self._outcomes else start
        while True:
            try:
                fetch = self._log.read(offset, max_bytes=_READ_BYTES)
            except OffsetOutOfRangeError as error:
                if offset >= error.log_start_offset:
                    raise
                offset = error.log_start_offset
                continue
            for batch in fetch.batches():
                outcomes.take(batch)
            offset = fetch.next_offset
            if not fetch.data:
                break
        stable = outcomes.last_stable_offset
        # Whoever asks meanwhile is told what was known before, as a whole.
        self._outcomes, self._start, self._walked = outcomes, start, offset
        self.end = offset if stable is None else stable

    def is_aborted(self, batch: Batch) -> bool:
        """Whether it belongs to an aborted transaction."""
        return self._outcomes.is_aborted(batch)


class CommittedReader(Reader[Delivered]):
    """Leaves out what was aborted."""

    def __init__(self, log: PartitionLog, row_type: type[Delivered], committed: Committed) -> None:
        super().__init__(log, row_type)
        self._committed = committed

    def read(self, first: int, length: int, handle: object) -> list[Delivered]:
        """The records of ``length`` offsets from ``first`` on, without aborted ones."""
        self._committed.cover(first)
        return super().read(first, length, handle)

    def leaves_out(self, batch: Batch) -> bool:
        """Whether nothing of a batch is delivered."""
        return super().leaves_out(batch) or self._committed.is_aborted(batch)
