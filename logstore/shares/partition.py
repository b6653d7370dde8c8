"""A partition of a topic, as one share group reads it (KIP-932's share-partition).

Its ledger's key is the group's id, the topic's id and the partition's number. The row of a group in
the table of ledgers, where a queue's levels stand, lists what comes behind the group's id.
"""

from __future__ import annotations

import struct
import uuid
from collections.abc import Iterator

from logstore.log import PartitionLog
from logstore.queues.ledger import Ledger, Policy
from logstore.queues.ledger_rows import NEVER, Head
from logstore.queues.ledger_store import LogLedger
from logstore.queues.message import Delivered
from logstore.queues.reading import Reader
from logstore.queues.source import LedgeredLog
from logstore.shares.config import ShareGroupConfig
from logstore.shares.isolation import Committed, CommittedReader

__all__ = [
    "SharePartition",
    "first_waiting",
    "pack_place",
    "places_in",
    "policy_of",
    "unpack_place",
]

_PLACE = struct.Struct(
    ">"
    "16s"  # topic id
    "I"  # partition
)


def pack_place(topic_id: uuid.UUID, partition: int) -> bytes:
    """What stands behind a group's id in the key of a ledger."""
    return _PLACE.pack(topic_id.bytes, partition)


def unpack_place(place: bytes) -> tuple[uuid.UUID, int]:
    """The opposite."""
    topic_id, partition = _PLACE.unpack(place)
    return uuid.UUID(bytes=topic_id), partition


def places_in(data: bytes) -> Iterator[bytes]:
    """The places that a group's row lists."""
    size = _PLACE.size
    return (data[start : start + size] for start in range(0, len(data) - size + 1, size))


def policy_of(config: ShareGroupConfig) -> Policy:
    """What a group's options mean for its ledgers. These count how often something came back,
    KIP-932 how often it was delivered; and what came back too often they settle, where there is
    no dead-letter topic."""
    limit = config.share_delivery_count_limit - 1
    return Policy(limit, dead_letters=bool(config.errors_deadletterqueue_topic_name))


def first_waiting(ledger: Ledger) -> int:
    """The first offset that may be delivered yet."""
    outstanding = ledger.outstanding()
    return outstanding[0].first if outstanding else ledger.head.cursor


class SharePartition(LedgeredLog):
    """A partition and a group's ledger of it."""

    def __init__(
        self,
        topic: str,
        number: int,
        *,
        place: bytes,
        log: PartitionLog,
        ledger: LogLedger,
        row_type: type[Delivered],
        config: ShareGroupConfig,
    ) -> None:
        super().__init__(log, ledger, Reader(log, row_type))
        self.topic = topic
        self.number = number
        self.place = place
        self.max_locks = config.share_partition_max_record_locks
        self._row_type = row_type
        self._committed: Committed | None = None
        """What became of transactions, for a group that wants to know."""

    def configure(self, config: ShareGroupConfig) -> None:
        """Go on by other options; the ledger is there."""
        self.max_locks = config.share_partition_max_record_locks
        self.ledger.policy = policy_of(config)
        if config.share_isolation_level == "read_uncommitted":
            if self._committed is not None:
                self._committed, self.reader = None, Reader(self.log, self._row_type)
        elif self._committed is None:
            committed = Committed(self.log, self.ledger.looked_at(first_waiting))
            self.reader = CommittedReader(self.log, self._row_type, committed)
            self._committed = committed

    @property
    def end(self) -> int:
        """One past the last offset that may be acquired, as far as ``look_ahead`` has seen."""
        committed = self._committed
        return self.log.log_end_offset if committed is None else committed.end

    def look_ahead(self) -> None:
        """See what may be acquired of that which has come to the log."""
        if self._committed is not None:
            self._committed.walk()

    def see(self, head: Head) -> bool:
        """Note how far the ledger is; nothing is ready while all locks are taken."""
        if head.unacked >= self.max_locks:
            self.cursor = NEVER
            return False
        return super().see(head)

    def room(self, head: Head) -> int:
        """How many records may be acquired at once."""
        return max(0, min(self.reader.room(), self.max_locks - head.unacked))
