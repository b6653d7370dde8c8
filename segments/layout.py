"""What lies at a path: which file of a partition, which partitions of a store.

Names alone decide, so that a directory copied from a broker is understood as well as one of our
own. Whatever has another name (``lock``, ``state``, ``*.tmp``, ``*.deleted``, ``*.swap``, a
broker's own checkpoints) is passed over.
"""

from __future__ import annotations

import enum
import os
from typing import NamedTuple

from logstore.segments import filenames
from logstore.segments.files import Files

__all__ = [
    "FileKind",
    "PartitionFile",
    "identify",
    "partition_directories",
    "partition_files",
]

_TOPICS, _QUEUES = "topics", "queues"
_STORE_FILE = "store.json"
_ON_THEIR_WAY = (filenames.DELETED, filenames.SWAP, filenames.CLEANED)


class FileKind(enum.Enum):
    """What a file of a partition is; the value is its suffix, or its whole name."""

    LOG = filenames.LOG
    OFFSET_INDEX = filenames.OFFSET_INDEX
    TIME_INDEX = filenames.TIME_INDEX
    TRANSACTION_INDEX = filenames.TRANSACTION_INDEX
    PRODUCER_SNAPSHOT = filenames.PRODUCER_SNAPSHOT
    LEADER_EPOCHS = filenames.LEADER_EPOCH_CHECKPOINT
    PARTITION_METADATA = filenames.PARTITION_METADATA


_KINDS = list(FileKind)


class PartitionFile(NamedTuple):
    """A file of a partition, known by its name."""

    path: str
    kind: FileKind
    base_offset: int | None
    """The offset in its name; None where the name has none."""


def identify(path: str) -> PartitionFile | None:
    """What the file at ``path`` is by its name, or None for a name that says nothing.

    A file that is on its way in or out (``.deleted``, ``.swap``, ``.cleaned``) is what it was, and
    a ``.log`` may have any name: it says by itself what its offsets are.
    """
    name = os.path.basename(path)
    for suffix in _ON_THEIR_WAY:
        name = name.removesuffix(suffix)
    known = _identify_name(path, name)
    if known is None and name.endswith(filenames.LOG):
        return PartitionFile(path, FileKind.LOG, None)
    return known


def _identify_name(path: str, name: str) -> PartitionFile | None:
    parsed = filenames.parse_segment_file(name)
    if parsed is not None:
        base_offset, suffix = parsed
        return PartitionFile(path, FileKind(suffix), base_offset)
    if name in (filenames.LEADER_EPOCH_CHECKPOINT, filenames.PARTITION_METADATA):
        return PartitionFile(path, FileKind(name), None)
    return None


def partition_files(files: Files, directory: str) -> list[PartitionFile]:
    """The files of the partition in ``directory``: segment by segment, those without an offset
    in their name last."""
    found = [
        file
        for name in files.names(directory)
        if (file := _identify_name(os.path.join(directory, name), name)) is not None
    ]
    return sorted(found, key=_order)


def _order(file: PartitionFile) -> tuple[bool, int, int]:
    return file.base_offset is None, file.base_offset or 0, _KINDS.index(file.kind)


def partition_directories(files: Files, path: str) -> list[str] | None:
    """The partitions at the directory ``path``: itself, or those in it, or those of a store, its
    topics' first and then its queues'.

    None where the directory is neither a partition nor a store, and holds no partitions.
    """
    names = files.names(path)
    if any(_identify_name(name, name) for name in names):
        return [path]
    is_store = _STORE_FILE in names
    parents = [path]
    if _TOPICS in names and files.is_directory(os.path.join(path, _TOPICS)):
        parents = [os.path.join(path, name) for name in (_TOPICS, _QUEUES) if name in names]
    found = []
    for parent in parents:
        children = [
            os.path.join(parent, name)
            for name in files.names(parent)
            if not filenames.is_deleted_directory(name)
        ]
        partitions = (child for child in children if _is_partition(files, child))
        found += sorted(partitions, key=_by_topic_and_number)
    return found if found or is_store else None


def _is_partition(files: Files, path: str) -> bool:
    return files.is_directory(path) and any(
        _identify_name(name, name) for name in files.names(path)
    )


def _by_topic_and_number(path: str) -> tuple[str, int]:
    name = os.path.basename(path)
    return filenames.parse_partition_directory(name) or (name, -1)
