"""What an appender asks for and is told: acks, guards, where its records went, why they did not."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal, NamedTuple

from logstore.errors import InvalidInputError, PoisonedError, UnknownTopicError
from logstore.segments import offset_index

__all__ = [
    "MAX_OFFSET",
    "Acks",
    "Appended",
    "Guard",
    "LogView",
    "check_acks",
    "check_offset",
    "check_read",
    "check_timestamp",
    "deleted_error",
    "new_appended",
    "out_of_bounds",
    "poisoned_error",
]

Acks = Literal[0, 1, "all"]
"""When an append returns: written to the operating system (0 and 1), or on stable storage."""

MAX_OFFSET = (1 << 63) - 1
"""The largest log end offset: one that Kafka's 64 bits can hold."""


class Appended(NamedTuple):
    """Where records went."""

    base_offset: int
    """The offset of the first one."""
    last_offset: int
    """The offset of the last one."""
    timestamp: int
    """The largest timestamp among them, in milliseconds."""


new_appended = partial(tuple.__new__, Appended)
"""``Appended._make`` without its Python frame."""


class LogView(NamedTuple):
    """What a guard sees, under the partition's lock, before an append."""

    log_start_offset: int
    log_end_offset: int
    leader_epoch: int


Guard = Callable[[LogView], None]
"""Looks at the log under the lock, and raises to refuse the append."""


def check_acks(acks: object) -> None:
    """Raise InvalidInputError for an ``acks`` that is none; True is none, though it equals 1."""
    if acks != "all" and (type(acks) is not int or acks not in (0, 1)):
        raise InvalidInputError(f"acks is 0, 1 or 'all', not {acks!r}")


def check_offset(offset: object) -> None:
    """Raise InvalidInputError for what is no offset; 1.0 would be compared, and stored, as one."""
    if not isinstance(offset, int) or isinstance(offset, bool):
        raise InvalidInputError(f"an offset is an int, not {offset!r}")


def check_timestamp(timestamp: object) -> None:
    """Raise InvalidInputError for what is no timestamp."""
    if type(timestamp) is not int:
        raise InvalidInputError(f"a timestamp is an int (milliseconds), not {timestamp!r}")


def check_read(offset: object, max_bytes: object, upto: object) -> None:
    """Raise InvalidInputError for what ``PartitionLog.read`` cannot be asked."""
    check_offset(offset)
    if upto not in ("written", "synced") and (type(upto) is not int or upto < 0):
        raise InvalidInputError(f"upto is written, synced or an offset, not {upto!r}")
    if not isinstance(max_bytes, int) or max_bytes < 1:
        raise InvalidInputError(f"max_bytes={max_bytes!r} is out of bounds: an int of at least 1")


def out_of_bounds(directory: str, base_offset: int, next_offset: int) -> InvalidInputError:
    """The error of batches whose offsets a log, or a segment, cannot hold."""
    if next_offset > MAX_OFFSET:
        return InvalidInputError(
            f"{directory}: offset {next_offset - 1} is out of bounds: 0 to {MAX_OFFSET - 1}"
        )
    return InvalidInputError(
        f"{directory}: batches at offsets {base_offset} to {next_offset - 1} are too far apart for "
        f"one segment, which holds {offset_index.MAX_RELATIVE + 1}: append them one by one"
    )


def deleted_error(directory: str) -> UnknownTopicError:
    """The error of a log whose topic was deleted."""
    return UnknownTopicError(f"{directory}: the topic was deleted")


def poisoned_error(directory: str) -> PoisonedError:
    """The error of a log whose last sync failed."""
    return PoisonedError(
        f"{directory}: an earlier sync failed, and what it was to save may be lost; "
        "open the log again to save it anew"
    )
