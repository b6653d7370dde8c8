"""Small types that producers, consumers and groups share."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["OffsetAndMetadata", "TopicPartition"]


class TopicPartition(NamedTuple):
    """A partition of a topic."""

    topic: str
    partition: int


class OffsetAndMetadata(NamedTuple):
    """A committed offset: where a group goes on reading, and a note that was left with it."""

    offset: int
    metadata: str = ""
