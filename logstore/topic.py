"""Topics: a name, a configuration, and one log or several."""

from __future__ import annotations

import contextlib
import os
import re
import threading
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from logstore.config import LogConfig
from logstore.definitions import TopicDefinition
from logstore.errors import InvalidInputError, LogstoreError, UnknownTopicError
from logstore.log import PartitionLog
from logstore.segments import filenames
from logstore.segments.checkpoint import PartitionMetadata, format_partition_metadata
from logstore.segments.files import DiskFiles, Files, write_atomically
from logstore.structure import list_segments

__all__ = ["MAX_PARTITIONS", "Topic", "adopt_topic_id", "check_topic_name", "write_topic_id"]

MAX_TOPIC_NAME_LENGTH = 249
"""The longest name of a topic: with ``-`` and a partition's number it must fit a file name."""
MAX_PARTITIONS = 10_000
"""The most partitions that a topic may have here: each is a directory of files."""

_LEGAL_NAME = re.compile(r"[a-zA-Z0-9._-]+\Z")


def check_topic_name(name: str) -> None:
    """Raise InvalidInputError unless ``name`` is a legal topic name by Kafka's rules: letters,
    digits, ``.``, ``_`` and ``-``, at most 249 of them, and neither ``.`` nor ``..``."""
    legal = isinstance(name, str) and _LEGAL_NAME.match(name)
    if not legal or len(name) > MAX_TOPIC_NAME_LENGTH:
        raise InvalidInputError(
            f"{name!r} is no name for a topic: 1 to {MAX_TOPIC_NAME_LENGTH} ASCII letters, digits, "
            "'.', '_' or '-'"
        )
    if name in (".", ".."):
        raise InvalidInputError(f"{name!r} is no name for a topic")


def adopt_topic_id(
    directory: str | os.PathLike[str], topic_id: uuid.UUID, *, files: Files | None = None
) -> None:
    """Make the partition in ``directory`` one of the topic ``topic_id``, by its
    ``partition.metadata``.

    For a partition that is carried to a broker, or from one into a store. A broker puts the log of
    another topic aside, even if its name is the same (KIP-516). Raises InvalidInputError where
    ``directory`` holds no partition, or for an id of all zeros. Commit point: the file's rename.
    """
    files = files or DiskFiles()
    path = os.fsdecode(directory)
    if not files.is_directory(path) or not list_segments(files, path):
        raise InvalidInputError(f"{path}: there is no partition here")
    write_topic_id(files, path, topic_id)


def write_topic_id(files: Files, directory: str, topic_id: uuid.UUID) -> None:
    """Write a partition's ``partition.metadata``. Commit point: the file's rename."""
    data = format_partition_metadata(PartitionMetadata(0, topic_id))
    write_atomically(files, os.path.join(directory, filenames.PARTITION_METADATA), data)


class Topic:
    """A topic of an open store. Its partitions are opened when they are first asked for.

    What another process changes of it is known here when somebody looks topics up, or at the next
    round of maintenance.
    """

    def __init__(
        self,
        definition: TopicDefinition,
        open_partition: Callable[[Topic, int], PartitionLog],
        *,
        defaults: Mapping[str, Any] | None = None,
        refresh: Callable[[], object] = lambda: None,
    ) -> None:
        """``defaults`` are the store's; ``refresh`` looks for another definition, and calls
        :meth:`redefine`."""
        self._refresh = refresh
        self._deleted = False
        self._open_partition = open_partition
        self._partitions: dict[int, PartitionLog] = {}
        self._mutex = threading.Lock()
        self._define(definition, defaults or {})

    def _define(self, definition: TopicDefinition, defaults: Mapping[str, Any]) -> None:
        self._definition = definition
        self._defaults = defaults
        self.config = LogConfig.from_overrides({**defaults, **definition.overrides})
        """What its partitions are kept by: its own keys, the store's, and the defaults."""

    def redefine(self, definition: TopicDefinition, defaults: Mapping[str, Any]) -> None:
        """Take in what was altered; open logs go on by the new configuration."""
        if (definition, defaults) == (self._definition, self._defaults):
            return  # another topic was altered
        self._define(definition, defaults)
        with self._mutex:
            for log in self._partitions.values():
                log.configure(self.config)

    def drop(self) -> None:
        """It was deleted: it has no partitions any more, and whoever uses one is told."""
        self._deleted = True
        with contextlib.suppress(LogstoreError, OSError):  # there is nothing left to save
            self._close(deleted=True)

    @property
    def name(self) -> str:
        """The topic's name."""
        return self._definition.name

    @property
    def id(self) -> uuid.UUID:
        """The topic's id, which no other topic gets."""
        return self._definition.topic_id

    @property
    def partition_count(self) -> int:
        """How many partitions it has; they are numbered from 0."""
        return self._definition.partition_count

    @property
    def overrides(self) -> Mapping[str, Any]:
        """The configuration keys that were set for it."""
        return self._definition.overrides

    def partition(self, number: int) -> PartitionLog:
        """The log of a partition; raises UnknownTopicError for a number that is not there, and
        when the topic was deleted."""
        if type(number) is not int:
            raise InvalidInputError(f"a partition's number is an int, not {number!r}")
        if number >= self.partition_count:
            self._refresh()
        if self._deleted:
            raise UnknownTopicError(f"topic {self.name!r} was deleted")
        if not 0 <= number < self.partition_count:
            raise UnknownTopicError(
                f"topic {self.name!r} has no partition {number}: there are 0 to "
                f"{self.partition_count - 1}"
            )
        with self._mutex:
            log = self._partitions.get(number)
            if log is None:
                log = self._partitions[number] = self._open_partition(self, number)
            return log

    def opened(self, number: int) -> PartitionLog | None:
        """The log of a partition if somebody has asked for it."""
        with self._mutex:
            return self._partitions.get(number)

    def close(self) -> None:
        """Close the logs that were opened; the store does it."""
        self._close(deleted=False)

    def _close(self, *, deleted: bool) -> None:
        with self._mutex:
            logs = list(self._partitions.values())
            self._partitions.clear()
        errors = []
        for log in logs:
            try:
                log.close(deleted=deleted)
            except Exception as error:  # noqa: BLE001 - all are closed before any error counts
                errors.append(error)
        if errors:
            raise errors[0]

    def __repr__(self) -> str:
        return f"Topic({self.name!r}, {self.partition_count} partitions)"
