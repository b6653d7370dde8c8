"""Definitions: JSON objects under keys, and what a topic's says.

A key is a kind and an id, ``topic/<id in hex>``; never a name, which can be given to another topic
later. JSON, so that a newer version can add to it.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from typing import Any, NamedTuple

from logstore.errors import FormatError

__all__ = [
    "DEFAULTS",
    "QUEUE_PREFIX",
    "TOPIC_PREFIX",
    "TopicDefinition",
    "decode",
    "encode",
    "topic_fields",
    "topic_from",
    "topic_key",
]

TOPIC_PREFIX = "topic/"
QUEUE_PREFIX = "queue/"
"""See ``logstore.queues.definitions``."""
DEFAULTS = "defaults"
"""The key of the configuration that topics have where they say nothing else."""


class TopicDefinition(NamedTuple):
    """What a topic is: its id, and what can be changed of it."""

    topic_id: uuid.UUID
    name: str
    partition_count: int
    overrides: Mapping[str, Any]
    """The configuration keys that were set for it."""


def topic_key(topic_id: uuid.UUID) -> str:
    """The key of a topic's definition."""
    return TOPIC_PREFIX + topic_id.hex


def topic_fields(topic: TopicDefinition) -> dict[str, Any]:
    """A topic's definition as JSON's objects."""
    return {
        "name": topic.name,
        "partitions": topic.partition_count,
        "config": dict(topic.overrides),
    }


def topic_from(key: str, fields: Mapping[str, Any], path: str) -> TopicDefinition:
    """The opposite; raises FormatError, which names ``path``."""
    try:
        topic = TopicDefinition(
            uuid.UUID(hex=key.removeprefix(TOPIC_PREFIX)),
            fields["name"],
            fields["partitions"],
            fields["config"],
        )
        if not (isinstance(topic.name, str) and isinstance(topic.overrides, dict)):
            raise TypeError(f"name={topic.name!r}, config={topic.overrides!r}")
        if not isinstance(topic.partition_count, int):
            raise TypeError(f"partitions={topic.partition_count!r}")
    except (ValueError, KeyError, TypeError) as error:
        raise broken(key, path, error) from error
    return topic


def encode(fields: Mapping[str, Any]) -> bytes:
    """A definition's bytes."""
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()


def decode(key: str, data: bytes, path: str) -> dict[str, Any]:
    """The opposite; raises FormatError, which names ``path``."""
    try:
        fields = json.loads(data)
        if not isinstance(fields, dict):
            raise TypeError(f"this is no object: {fields!r:.100}")
    except (ValueError, TypeError, RecursionError) as error:
        raise broken(key, path, error) from error
    return fields


def broken(key: str, path: str, error: Exception) -> FormatError:
    """The error of a definition that says nothing."""
    return FormatError(f"the definition {key!r} is broken", path=path, found=repr(error))
