"""Errors of the log and of the store; the root and the format's errors are below, in
``logstore.segments.errors``.

The tree::

    LogstoreError
    ├── FormatError, InvalidInputError   (logstore.segments.errors)
    ├── StoreNotFoundError               no store where one was expected
    ├── UnknownTopicError                no topic (or partition) of that name
    ├── TopicExistsError                 there is a topic of that name
    ├── OffsetOutOfRangeError            an offset that the log does not hold; names those it does
    ├── NoOffsetError                    nothing says where a consumer is to begin
    ├── PoisonedError                    an earlier sync failed; nothing may be written
    ├── LockTimeoutError                 another process or thread held the partition too long
    ├── ClosedError                      the handle was closed
    ├── ForkedError                      the handle belongs to a parent process
    ├── ReadOnlyError                    the handle was opened for reading only
    ├── UnknownGroupError                no consumer group of that name
    ├── GroupNotEmptyError               the group has members, and only they may do that
    ├── FencedMemberError                it is no member of its group any more
    ├── IllegalGenerationError           the member's generation, or its ownership, is over
    ├── UnknownExchangeError             no exchange of that name
    ├── UnknownQueueError                no queue of that name
    ├── PreconditionFailedError          declared otherwise before, in use, or not empty
    ├── AccessRefusedError               not for clients: reserved names, internal exchanges
    ├── ResourceLockedError              an exclusive queue of another session
    ├── LeaseExpiredError                a message was settled that may be somebody else's by now
    ├── ProducerFencedError              a younger instance has taken the producer's place
    ├── OutOfOrderSequenceError          a producer's batch is not the one that was to come next
    ├── BufferExhaustedError             a producer's memory stayed full for too long
    ├── DeliveryTimeoutError             a record could not be delivered in time
    ├── RpcTimeoutError                  nobody answered a call in time
    ├── RpcRemoteError                   the server's handler failed
    └── PublishError                     not every message of a publish is in all its queues
        ├── UnroutableError              a mandatory message that no queue gets
        └── NackedError                  a queue refused a message, since it is full
"""

from __future__ import annotations

from typing import Any

from logstore.segments.errors import (
    ChecksumError,
    FormatError,
    InvalidInputError,
    LimitError,
    LogstoreError,
    TruncatedError,
    UnsupportedFormatError,
)

__all__ = [
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
]


class StoreNotFoundError(LogstoreError):
    """There is no store at the path, and none was to be made."""


class UnknownTopicError(LogstoreError):
    """There is no topic, or no partition, of that name."""


class TopicExistsError(LogstoreError):
    """A topic of that name is there already."""


class OffsetOutOfRangeError(LogstoreError):
    """An offset lies outside what the log holds: below its start, or above its end."""

    def __init__(self, path: str, offset: int, start: int, end: int) -> None:
        super().__init__(
            f"{path}: offset {offset} is out of range: the log holds {start} to {end - 1}"
            if start < end
            else f"{path}: offset {offset} is out of range: the log is empty at {end}"
        )
        self.path = path
        self.offset = offset
        self.log_start_offset = start
        self.log_end_offset = end


class NoOffsetError(LogstoreError):
    """A group has committed no offset for a partition, and ``auto_offset_reset`` is ``none``."""


class PoisonedError(LogstoreError):
    """A sync failed: what it was to save may be lost, so nothing is written until a reopening
    has saved it anew."""


class LockTimeoutError(LogstoreError):
    """The lock of a partition could not be had in time."""


class ClosedError(LogstoreError):
    """The handle was closed."""


class ForkedError(LogstoreError):
    """The handle was opened by a parent process; a child of ``fork`` has to open its own."""


class ReadOnlyError(LogstoreError):
    """The handle was opened for reading only."""


class UnknownGroupError(LogstoreError):
    """There is no consumer group of that name."""


class GroupNotEmptyError(LogstoreError):
    """The group has members: only they may commit its offsets, and nobody may take it away."""


class FencedMemberError(LogstoreError):
    """It is no member of its group any more: its session ended or timed out, it left, or another
    instance of the same static member took its place. What it owned, others may own now."""


class IllegalGenerationError(LogstoreError):
    """The member's generation is over, or the partition is not its own."""


class UnknownExchangeError(LogstoreError):
    """There is no exchange of that name."""


class UnknownQueueError(LogstoreError):
    """There is no queue of that name, or it was deleted."""


class PreconditionFailedError(LogstoreError):
    """What was declared is there with other arguments; or what is to be deleted is in use, or not
    empty, though it must not be. Nothing was changed."""


class AccessRefusedError(LogstoreError):
    """The name is reserved, or it belongs to the store itself: the default exchange is not bound,
    and nobody publishes to an internal one."""


class ResourceLockedError(LogstoreError):
    """The queue is exclusive, and belongs to another session; or it was to be declared exclusive,
    and is there and is not, or the other way round."""


class LeaseExpiredError(LogstoreError):
    """A message was acknowledged, or given back, whose lease had ended: its holder was too slow. It
    was delivered again, or will be."""


class RpcTimeoutError(LogstoreError):
    """Nobody answered a call in time. A server may have done what was asked, or may do it yet."""


class RpcRemoteError(LogstoreError):
    """The server's handler failed; the message is what it failed with."""


class PublishError(LogstoreError):
    """Not every message of a publish went to all queues that it was meant for.

    ``confirms`` says what became of each; all that is not named there was published as asked.
    """

    def __init__(self, problem: str, confirms: Any) -> None:
        super().__init__(problem)
        self.confirms = confirms


class UnroutableError(PublishError):
    """A mandatory message was routed to no queue, and nobody has it: AMQP's reply code 312."""

    reply_code = 312
    reply_text = "NO_ROUTE"


class NackedError(PublishError):
    """A queue is full, and refused a message (``overflow=reject-publish``)."""


class ProducerFencedError(LogstoreError):
    """Another instance of the producer, of a higher epoch, has taken its place. (Kafka calls it
    InvalidProducerEpoch, too.)"""


class OutOfOrderSequenceError(LogstoreError):
    """A producer's batch does not go on behind its last one: something in between is missing, or
    somebody else has written under its name."""


class BufferExhaustedError(LogstoreError):
    """A producer's ``buffer_memory`` stayed full for ``max_block_ms``; the record was not taken."""


class DeliveryTimeoutError(LogstoreError):
    """A record could not be delivered within ``delivery_timeout_ms``; the last error is its cause.
    Whether it is in the log can be seen there."""
