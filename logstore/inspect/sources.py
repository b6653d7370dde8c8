"""What is looked into: partitions, by the names that people have for them.

Only directories are looked up here. No log is opened, so a damaged one can be looked into as well.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import logstore
from logstore.errors import InvalidInputError, StoreNotFoundError, UnknownTopicError
from logstore.replay.log_source import parse_partitions
from logstore.segments.filenames import parse_partition_directory, partition_directory
from logstore.segments.files import DiskFiles, Files
from logstore.segments.layout import FileKind, identify, partition_directories
from logstore.store import Store

__all__ = ["Partition", "find_partitions"]

_QUEUE = "queue:"


class Partition(NamedTuple):
    """A partition, or one segment of it."""

    topic: str
    """By its directory's name; a queue by its own."""
    number: int
    directory: str
    segment: str | None = None
    """The only file of it that is looked into; None: all of them."""

    @property
    def name(self) -> str:
        """What it is called: ``orders-0``."""
        return partition_directory(self.topic, self.number)


def find_partitions(
    sources: Sequence[str], *, store: str | None = None, files: Files | None = None
) -> list[Partition]:
    """The partitions that ``sources`` name, each once, in their order.

    A source is a topic of the store in the directory ``store``, or some of its partitions
    (``orders:0,2``); a queue of it (``queue:payments``); or a path, also one below the store's
    directory: of a partition, a directory of partitions (a broker's, say), a store, or a segment.
    Without sources they are all topics of the store.

    Raises InvalidInputError for what names none of these, StoreNotFoundError, UnknownTopicError,
    UnknownQueueError.
    """
    files = DiskFiles() if files is None else files
    finder = _Finder(store, files)
    try:
        found = [one for text in sources for one in finder.named(text)]
        if not sources:
            found = list(finder.all_topics())
    finally:
        finder.close()
    unique: dict[tuple[str, str | None], Partition] = {}
    for one in found:
        unique.setdefault(_identity(one), one)
    return list(unique.values())


def _identity(one: Partition) -> tuple[str, str | None]:
    segment = None if one.segment is None else os.path.abspath(one.segment)
    return os.path.abspath(one.directory), segment


class _Finder:
    """Looks names up; the store is opened when one is asked for, for reading only."""

    def __init__(self, store: str | None, files: Files) -> None:
        self._path = store
        self._files = files
        self._opened: Store | None = None

    def close(self) -> None:
        """Close the store."""
        if self._opened is not None:
            self._opened.close()

    def _store(self, what: str) -> Store:
        if self._path is None:
            raise InvalidInputError(f"{what}: of which store? Give --store DIR")
        if self._opened is None:
            self._opened = logstore.open(
                self._path, create=False, read_only=True, files=self._files
            )
        return self._opened

    def all_topics(self) -> Iterator[Partition]:
        """The partitions of all topics, without the store's own."""
        for topic in self._store("all topics").topics():
            yield from self._of_topic(topic.name, range(topic.partition_count))

    def named(self, text: str) -> list[Partition]:
        """The partitions that a source names."""
        if text.startswith(_QUEUE):
            return list(self._of_queue(text.removeprefix(_QUEUE)))
        is_path = self._files.exists(text)
        if self._path is not None and os.sep not in text:
            try:
                return list(self._topic(text))
            except (UnknownTopicError, StoreNotFoundError):
                if not is_path:
                    raise
        if not is_path and self._path is not None:
            below = os.path.join(self._path, text)
            if self._files.exists(below):
                return self._at(below)
        if not is_path:
            hint = "" if os.sep in text else ", and no store was named that could have such a topic"
            raise InvalidInputError(
                f"{text or repr(text)}: there is no such file or directory{hint}"
            )
        return self._at(text)

    def _topic(self, text: str) -> Iterator[Partition]:
        name, numbers = parse_partitions(text)
        topic = self._store(f"topic {name!r}").topic(name)
        for number in numbers:
            if number >= topic.partition_count:
                raise UnknownTopicError(
                    f"topic {name!r} has {topic.partition_count} partitions, and no {number}"
                )
        yield from self._of_topic(name, numbers or range(topic.partition_count))

    def _of_topic(self, name: str, numbers: Sequence[int]) -> Iterator[Partition]:
        assert self._path is not None
        for number in numbers:
            path = os.path.join(self._path, "topics", partition_directory(name, number))
            if self._files.is_directory(path):  # it is made when it is first used
                yield Partition(name, number, path)

    def _of_queue(self, name: str) -> Iterator[Partition]:
        store = self._store(f"queue {name!r}")
        definition = store.queues.queue(name, passive=True).definition
        assert self._path is not None
        for path in partition_directories(self._files, os.path.join(self._path, "queues")) or ():
            parsed = parse_partition_directory(os.path.basename(path))
            if parsed is not None and parsed[0] == definition.queue_id.hex:
                yield Partition(name, parsed[1], path)

    def _at(self, path: str) -> list[Partition]:
        if not self._files.is_directory(path):
            file = identify(path)
            if file is None or file.kind is not FileKind.LOG:
                raise InvalidInputError(f"{path}: neither a partition nor a segment of one (.log)")
            directory = os.path.dirname(path) or os.curdir
            return [Partition(*_named_by(directory), directory, path)]
        directories = partition_directories(self._files, path)
        if directories is None:
            raise InvalidInputError(f"{path}: there is no partition here")
        return [Partition(*_named_by(directory), directory) for directory in directories]


def _named_by(directory: str) -> tuple[str, int]:
    base = os.path.basename(os.path.abspath(directory))
    return parse_partition_directory(base) or (base, 0)
