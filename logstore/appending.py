"""What an appender asks for and is told: acks, guards, and where its records went."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal, NamedTuple

from logstore.errors import InvalidInputError

__all__ = ["ACKS", "Acks", "Appended", "Guard", "LogView", "new_appended", "wrong_acks"]

Acks = Literal[0, 1, "all"]
"""When an append returns: written to the operating system (0 and 1), or on stable storage."""

ACKS = frozenset((0, 1, "all"))


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


def wrong_acks(acks: object) -> InvalidInputError:
    """The error of an append with other acks than these."""
    return InvalidInputError(f"acks is 0, 1 or 'all', not {acks!r}")
