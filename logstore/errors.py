"""Errors of the log and of the store; the root and the format's errors are below, in
``logstore.segments.errors``.

The tree::

    LogstoreError
    ├── FormatError, InvalidInputError   (logstore.segments.errors)
    ├── StoreNotFoundError               no store where one was expected
    ├── UnknownTopicError                no topic (or partition) of that name
    ├── TopicExistsError                 a topic of that name with other arguments
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
    └── IllegalGenerationError           the member's generation, or its ownership, is over
"""

from __future__ import annotations

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
    "ChecksumError",
    "ClosedError",
    "FencedMemberError",
    "ForkedError",
    "FormatError",
    "GroupNotEmptyError",
    "IllegalGenerationError",
    "InvalidInputError",
    "LimitError",
    "LockTimeoutError",
    "LogstoreError",
    "NoOffsetError",
    "OffsetOutOfRangeError",
    "PoisonedError",
    "ReadOnlyError",
    "StoreNotFoundError",
    "TopicExistsError",
    "TruncatedError",
    "UnknownGroupError",
    "UnknownTopicError",
    "UnsupportedFormatError",
]


class StoreNotFoundError(LogstoreError):
    """There is no store at the path, and none was to be made."""


class UnknownTopicError(LogstoreError):
    """There is no topic, or no partition, of that name."""


class TopicExistsError(LogstoreError):
    """A topic of that name is there already, with other arguments."""


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
