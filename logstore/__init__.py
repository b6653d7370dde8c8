"""logstore: the SQLite of event logs and work queues.

A directory of segment files in Apache Kafka's own on-disk format, written and read without a
server by any number of threads and processes::

    >>> import logstore, tempfile
    >>> with tempfile.TemporaryDirectory() as directory, logstore.open(directory) as store:
    ...     log = store.create_topic("orders").partition(0)
    ...     appended = log.append([logstore.Record(key=b"order-1", value=b'{"id": 1}')])
    ...     [(record.offset, record.value) for record in log.read(0).records()]
    [(0, b'{"id": 1}')]

What is public is imported when it is first asked for (PEP 562). So whoever needs the format alone
(``import logstore.segments.batch``) gets no store with it, and the program is ready for Ctrl-C
before it imports what takes time. Whoever gives up rights (``chroot``, ``setuid``) and could not
read the package then, asks for the names that it needs before.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from logstore.backup import BackupResult
    from logstore.config import LogConfig
    from logstore.consumer import Consumer
    from logstore.delivery import DeliveryFuture, RecordMetadata
    from logstore.describe import TopicDescription
    from logstore.errors import (
        AccessRefusedError,
        BufferExhaustedError,
        ChecksumError,
        ClosedError,
        DeliveryTimeoutError,
        FencedMemberError,
        ForkedError,
        FormatError,
        GroupNotEmptyError,
        IllegalGenerationError,
        InvalidInputError,
        LeaseExpiredError,
        LimitError,
        LockTimeoutError,
        LogstoreError,
        NackedError,
        NoOffsetError,
        OffsetOutOfRangeError,
        OutOfOrderSequenceError,
        PoisonedError,
        PreconditionFailedError,
        ProducerFencedError,
        PublishError,
        ReadOnlyError,
        ResourceLockedError,
        RpcRemoteError,
        RpcTimeoutError,
        StoreNotFoundError,
        TopicExistsError,
        TruncatedError,
        UnknownExchangeError,
        UnknownGroupError,
        UnknownQueueError,
        UnknownTopicError,
        UnroutableError,
        UnsupportedFormatError,
    )
    from logstore.fetcher import ConsumerRecord
    from logstore.groups.membership import Membership, Rebalance
    from logstore.groups.resets import OffsetReset
    from logstore.log import Appended, LogView, PartitionLog
    from logstore.partitions import OffsetAndMetadata, TopicPartition
    from logstore.producer import Producer
    from logstore.producer_states import ProducerStamp
    from logstore.queues import (
        Channel,
        Confirm,
        Confirms,
        Exchange,
        Message,
        Outgoing,
        Properties,
        Publisher,
        Queue,
        QueueArguments,
        QueueCounts,
        Returned,
    )
    from logstore.reader import Fetch
    from logstore.segments.batch import Batch
    from logstore.segments.compression import Codec
    from logstore.segments.record import Record
    from logstore.shares import AcknowledgeType, ShareConsumer, ShareRecord
    from logstore.snapshots import restore
    from logstore.store import Store
    from logstore.store import open_store as open
    from logstore.subscription import RebalanceListener
    from logstore.topic import Topic

__version__ = "0.1.0"

__all__ = [
    "AccessRefusedError",
    "AcknowledgeType",
    "Appended",
    "BackupResult",
    "Batch",
    "BufferExhaustedError",
    "Channel",
    "ChecksumError",
    "ClosedError",
    "Codec",
    "Confirm",
    "Confirms",
    "Consumer",
    "ConsumerRecord",
    "DeliveryFuture",
    "DeliveryTimeoutError",
    "Exchange",
    "FencedMemberError",
    "Fetch",
    "ForkedError",
    "FormatError",
    "GroupNotEmptyError",
    "IllegalGenerationError",
    "InvalidInputError",
    "LeaseExpiredError",
    "LimitError",
    "LockTimeoutError",
    "LogConfig",
    "LogView",
    "LogstoreError",
    "Membership",
    "Message",
    "NackedError",
    "NoOffsetError",
    "OffsetAndMetadata",
    "OffsetOutOfRangeError",
    "OffsetReset",
    "OutOfOrderSequenceError",
    "Outgoing",
    "PartitionLog",
    "PoisonedError",
    "PreconditionFailedError",
    "Producer",
    "ProducerFencedError",
    "ProducerStamp",
    "Properties",
    "PublishError",
    "Publisher",
    "Queue",
    "QueueArguments",
    "QueueCounts",
    "ReadOnlyError",
    "Rebalance",
    "RebalanceListener",
    "Record",
    "RecordMetadata",
    "ResourceLockedError",
    "Returned",
    "RpcRemoteError",
    "RpcTimeoutError",
    "ShareConsumer",
    "ShareRecord",
    "Store",
    "StoreNotFoundError",
    "Topic",
    "TopicDescription",
    "TopicExistsError",
    "TopicPartition",
    "TruncatedError",
    "UnknownExchangeError",
    "UnknownGroupError",
    "UnknownQueueError",
    "UnknownTopicError",
    "UnroutableError",
    "UnsupportedFormatError",
    "__version__",
    "open",
    "restore",
]

_MODULES = {
    "backup": ("BackupResult",),
    "config": ("LogConfig",),
    "consumer": ("Consumer",),
    "delivery": (
        "DeliveryFuture",
        "RecordMetadata",
    ),
    "describe": ("TopicDescription",),
    "errors": (
        "AccessRefusedError",
        "BufferExhaustedError",
        "ChecksumError",
        "ClosedError",
        "DeliveryTimeoutError",
        "FencedMemberError",
        "ForkedError",
        "FormatError",
        "GroupNotEmptyError",
        "IllegalGenerationError",
        "InvalidInputError",
        "LeaseExpiredError",
        "LimitError",
        "LockTimeoutError",
        "LogstoreError",
        "NackedError",
        "NoOffsetError",
        "OffsetOutOfRangeError",
        "OutOfOrderSequenceError",
        "PoisonedError",
        "PreconditionFailedError",
        "ProducerFencedError",
        "PublishError",
        "ReadOnlyError",
        "ResourceLockedError",
        "RpcRemoteError",
        "RpcTimeoutError",
        "StoreNotFoundError",
        "TopicExistsError",
        "TruncatedError",
        "UnknownExchangeError",
        "UnknownGroupError",
        "UnknownQueueError",
        "UnknownTopicError",
        "UnroutableError",
        "UnsupportedFormatError",
    ),
    "fetcher": ("ConsumerRecord",),
    "groups.membership": (
        "Membership",
        "Rebalance",
    ),
    "groups.resets": ("OffsetReset",),
    "log": (
        "Appended",
        "LogView",
        "PartitionLog",
    ),
    "partitions": (
        "OffsetAndMetadata",
        "TopicPartition",
    ),
    "producer": ("Producer",),
    "producer_states": ("ProducerStamp",),
    "queues": (
        "Channel",
        "Confirm",
        "Confirms",
        "Exchange",
        "Message",
        "Outgoing",
        "Properties",
        "Publisher",
        "Queue",
        "QueueArguments",
        "QueueCounts",
        "Returned",
    ),
    "reader": ("Fetch",),
    "segments.batch": ("Batch",),
    "segments.compression": ("Codec",),
    "segments.record": ("Record",),
    "shares": (
        "AcknowledgeType",
        "ShareConsumer",
        "ShareRecord",
    ),
    "snapshots": ("restore",),
    "store": (
        "Store",
        "open",
    ),
    "subscription": ("RebalanceListener",),
    "topic": ("Topic",),
}
"""Which module each public name is from, as above."""

if not TYPE_CHECKING:  # a type checker takes the imports above, and finds misspelled names

    def __getattr__(name):
        """A public name that was not asked for before."""
        for module, names in _MODULES.items():
            if name in names:
                original = "open_store" if name == "open" else name
                found = getattr(importlib.import_module(f"{__name__}.{module}"), original)
                globals()[name] = found
                return found
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__():
        return sorted({*globals(), *__all__})
