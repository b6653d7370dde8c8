"""Names of Kafka's files: what a file in a partition's directory is, from its name alone."""

from __future__ import annotations

import re

LOG = ".log"
OFFSET_INDEX = ".index"
TIME_INDEX = ".timeindex"
TRANSACTION_INDEX = ".txnindex"
PRODUCER_SNAPSHOT = ".snapshot"

CLEANED = ".cleaned"
SWAP = ".swap"
DELETED = ".deleted"

TEMPORARY = ".tmp"
REPLACED = ".replaced"
"""A note beside a ``.swap``: the base offsets of the segments that it replaces."""

CLEANER_CHECKPOINT = "cleaner-offset-checkpoint"
LOG_START_CHECKPOINT = "log-start-offset-checkpoint"
LEADER_EPOCH_CHECKPOINT = "leader-epoch-checkpoint"
PARTITION_METADATA = "partition.metadata"

_MAX_OFFSET = (1 << 63) - 1
_MAX_NAME_LENGTH = 255
_SEGMENT_FILE = re.compile(r"([0-9]{20})(\.log|\.index|\.timeindex|\.txnindex|\.snapshot)\Z")
_DELETED_DIRECTORY = re.compile(r".*-[0-9]+\.[0-9a-f]{32}-delete\Z", re.DOTALL)
_PARTITION_DIRECTORY = re.compile(r"(.+)-([0-9]+)\Z", re.DOTALL)


def segment_file(base_offset: int, suffix: str) -> str:
    """The file name for a segment's base offset: 20 digits and the suffix."""
    return f"{base_offset:020d}{suffix}"


def parse_segment_file(name: str) -> tuple[int, str] | None:
    """``(base offset, suffix)`` of a segment's file, or None for any other name.

    A file that is on its way in or out (``.cleaned``, ``.swap``, ``.deleted``) is not one.
    """
    match = _SEGMENT_FILE.match(name)
    if match is None or int(match[1]) > _MAX_OFFSET:
        return None
    return int(match[1]), match[2]


def partition_directory(topic: str, partition: int) -> str:
    """The name of a partition's directory: ``<topic>-<partition>``."""
    return f"{topic}-{partition}"


def parse_partition_directory(name: str) -> tuple[str, int] | None:
    """``(topic, partition)`` of a partition's directory, or None for any other name."""
    match = _PARTITION_DIRECTORY.match(name)
    return (match[1], int(match[2])) if match else None


def deleted_directory(topic: str, partition: int, unique: str) -> str:
    """The name of a partition's directory that is being removed: ``unique`` is 32 hexadecimal
    digits. The topic's name is cut to what a file name may hold (as in Kafka)."""
    suffix = f"-{partition}.{unique}-delete"
    return topic[: _MAX_NAME_LENGTH - len(suffix)] + suffix


def is_deleted_directory(name: str) -> bool:
    """Whether it is the name of a partition's directory that is being removed."""
    return _DELETED_DIRECTORY.match(name) is not None
