"""Share groups (Kafka's KIP-932): a work queue on ordinary topics, with nothing copied.

Many consumers share the records of one partition. What was delivered to whom, and what became of
it, stands in a ledger beside the log, as for queues (``logstore.queues.ledger``).
"""

from logstore.shares.config import ShareConsumerConfig, ShareGroupConfig
from logstore.shares.consumer import ShareConsumer
from logstore.shares.descriptions import (
    ShareGroupDescription,
    ShareGroupListing,
    ShareMemberDescription,
    SharePartitionDescription,
)
from logstore.shares.record import AcknowledgeType, ShareRecord
from logstore.shares.share_groups import ShareGroups

__all__ = [
    "AcknowledgeType",
    "ShareConsumer",
    "ShareConsumerConfig",
    "ShareGroupConfig",
    "ShareGroupDescription",
    "ShareGroupListing",
    "ShareGroups",
    "ShareMemberDescription",
    "SharePartitionDescription",
    "ShareRecord",
]
