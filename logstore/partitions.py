"""Small types that producers, consumers and groups share, and what makes a value none of them."""

from __future__ import annotations

from typing import NamedTuple

from logstore.appending import MAX_OFFSET
from logstore.errors import InvalidInputError

__all__ = ["OffsetAndMetadata", "TopicPartition", "checked_offset", "checked_partition"]

MAX_METADATA_BYTES = 4096
"""Kafka's ``offset.metadata.max.bytes``."""


class TopicPartition(NamedTuple):
    """A partition of a topic."""

    topic: str
    partition: int


class OffsetAndMetadata(NamedTuple):
    """A committed offset: where a group goes on reading, and a note that was left with it."""

    offset: int
    metadata: str = ""


def checked_partition(value: object) -> TopicPartition:
    """``value`` as a partition; raises InvalidInputError for what is no topic's name and number."""
    if isinstance(value, (tuple, list)) and len(value) == 2:
        topic, number = value
        if isinstance(topic, str) and type(number) is int:
            return TopicPartition(topic, number)
    raise InvalidInputError(f"{value!r} is no partition: the name of a topic, and a number")


def checked_offset(value: object) -> OffsetAndMetadata:
    """``value``, an offset or a pair of one and a note, as what is committed; raises
    InvalidInputError."""
    pair = value if isinstance(value, tuple) else (value, "")
    if len(pair) != 2 or type(pair[0]) is not int or not isinstance(pair[1], str):
        raise InvalidInputError(f"{value!r} is no offset, nor an offset and a text")
    offset, metadata = pair
    if not 0 <= offset <= MAX_OFFSET:
        raise InvalidInputError(f"offset {offset} is out of bounds: 0 to {MAX_OFFSET}")
    size = len(metadata.encode("utf-8", "surrogatepass"))
    if size > MAX_METADATA_BYTES:
        raise InvalidInputError(
            f"metadata of {size} bytes is out of bounds: at most {MAX_METADATA_BYTES}"
        )
    return OffsetAndMetadata(offset, metadata)
