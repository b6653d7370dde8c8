"""What there is to tell about a share group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from logstore.queues.ledger import Ledger
from logstore.queues.ledger_check import check_ledger
from logstore.shares.partition import SharePartition, first_waiting

__all__ = [
    "ShareGroupDescription",
    "ShareGroupListing",
    "ShareMemberDescription",
    "SharePartitionDescription",
    "describe_partition",
]


class ShareGroupListing(NamedTuple):
    """A share group in a list."""

    name: str
    state: str
    """``Empty`` or ``Stable``, as Kafka has it."""
    members: int


class ShareMemberDescription(NamedTuple):
    """A consumer."""

    member_id: str
    session: str
    """The store handle that it belongs to."""
    max_poll_records: int


class SharePartitionDescription(NamedTuple):
    """How far a group has come in a partition."""

    topic: str
    partition: int
    start_offset: int
    """KIP-932's share-partition start offset: all before it is accepted, or archived."""
    end_offset: int
    """The first offset that was never delivered."""
    log_end_offset: int
    acquired: int
    """Records that somebody holds."""
    returned: int
    """Records that were released, or whose lock ran out."""
    archiving: int
    """Records that are on their way to the dead-letter topic."""
    faults: Sequence[str]
    """What is wrong with the ledger, a sentence each."""

    @property
    def lag(self) -> int:
        """How many records are neither accepted nor archived."""
        return self.acquired + self.returned + max(0, self.log_end_offset - self.end_offset)


class ShareGroupDescription(NamedTuple):
    """A share group."""

    name: str
    state: str
    config: Mapping[str, Any]
    """All its options."""
    members: Sequence[ShareMemberDescription]
    partitions: Sequence[SharePartitionDescription]


def describe_partition(partition: SharePartition) -> SharePartitionDescription:
    """Look at the ledger beside its log."""
    log_start = partition.log.log_start_offset

    def describe(ledger: Ledger) -> SharePartitionDescription:
        # The end is looked up in the transaction: what was delivered by then is in it.
        log_end = partition.log.log_end_offset
        head = ledger.head
        # What retention has passed is in front of the log's start for a while: no fault.
        faults = check_ledger(ledger, log_start=0, log_end=log_end)
        return SharePartitionDescription(
            partition.topic,
            partition.number,
            max(first_waiting(ledger), log_start),
            max(head.cursor, log_start),
            log_end,
            head.unacked,
            head.returned,
            head.dead,
            faults,
        )

    return partition.ledger.looked_at(describe)
