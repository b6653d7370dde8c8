"""What a topic is, for people and programs to look at."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from logstore.config import LogConfig
from logstore.topic import Topic

__all__ = ["ConfigValue", "PartitionDescription", "TopicDescription", "describe"]


class ConfigValue(NamedTuple):
    """The value of a configuration key, and where it is from."""

    value: Any
    source: Literal["topic", "store", "default"]


class PartitionDescription(NamedTuple):
    """What a partition holds."""

    partition: int
    log_start_offset: int
    log_end_offset: int
    segments: int
    size: int
    """Bytes of all segments' logs."""


class TopicDescription(NamedTuple):
    """What a topic is."""

    name: str
    id: uuid.UUID
    config: dict[str, ConfigValue]
    """Every key."""
    partitions: list[PartitionDescription]


def describe(topic: Topic, defaults: Mapping[str, Any]) -> TopicDescription:
    """Look at a topic of a store whose ``defaults`` are these."""
    config = {}
    for key in sorted(LogConfig.keys()):
        value = getattr(topic.config, key)
        if key in topic.overrides:
            config[key] = ConfigValue(value, "topic")
        else:
            config[key] = ConfigValue(value, "store" if key in defaults else "default")
    partitions = [_describe(topic, number) for number in range(topic.partition_count)]
    return TopicDescription(topic.name, topic.id, config, partitions)


def _describe(topic: Topic, number: int) -> PartitionDescription:
    try:
        log = topic.partition(number)
    except FileNotFoundError:
        # Its topic is just being made, or a crash left its directory out: nobody has written to it.
        return PartitionDescription(number, 0, 0, 0, 0)
    segments = log.segment_infos()
    return PartitionDescription(
        number,
        log.log_start_offset,
        log.log_end_offset,
        len(segments),
        sum(segment.size for segment in segments),
    )
