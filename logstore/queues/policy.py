"""What a ledger is told of its queue."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

__all__ = ["Policy", "Sizes"]

Sizes = Callable[[int, int], int]
"""The bytes of the bodies of so many messages from an offset on; offsets that the log has not got
count nothing."""


class Policy(NamedTuple):
    """What a queue's arguments mean for its ledgers."""

    delivery_limit: int | None = None
    """How often a message may come back; once more, and it is dead (RabbitMQ's quorum queues)."""
    dead_letters: bool = False
    """Whether there is anywhere to dead-letter to; what is dead is dropped otherwise."""
