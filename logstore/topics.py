"""The topics of an open store: their definitions, their directories, and the handles in use."""

from __future__ import annotations

import contextlib
import os
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from logstore.clock import Clock
from logstore.config import LogConfig
from logstore.definitions import (
    TOPIC_PREFIX,
    TopicDefinition,
    topic_fields,
    topic_from,
    topic_key,
)
from logstore.errors import InvalidInputError, TopicExistsError, UnknownTopicError
from logstore.log import PartitionLog
from logstore.metadata import METADATA_TOPIC, TOPICS, Change, Metadata, View
from logstore.segments import filenames
from logstore.segments.checkpoint import PartitionMetadata, format_partition_metadata
from logstore.segments.files import Files, write_atomically
from logstore.topic import MAX_PARTITIONS, Topic, check_topic_name

__all__ = ["TopicCatalogue"]


class TopicCatalogue:
    """What a store delegates. Usable from many threads."""

    def __init__(
        self,
        metadata: Metadata,
        store: str,
        *,
        files: Files,
        clock: Clock,
        read_only: bool,
        check_usable: Callable[[], None],
        making: Callable[[], contextlib.AbstractContextManager[None]],
    ) -> None:
        """``making`` is held to make what several processes may find missing at once."""
        self._metadata = metadata
        self._store = store
        self._files = files
        self._clock = clock
        self._read_only = read_only
        self._check_usable = check_usable
        self._making = making
        self._mutex = threading.Lock()
        self._topics: dict[uuid.UUID, Topic] = {}
        """Topics that somebody has asked for."""
        self._known: tuple[Any, dict[str, TopicDefinition]] = (None, {})
        """All definitions by name, and what they were read from."""

    # Definitions ------------------------------------------------------------------------------

    def definitions(self) -> Mapping[str, TopicDefinition]:
        """All topics, by name, without those of the store itself."""
        items = self._metadata.items(TOPIC_PREFIX)
        source, by_name = self._known
        if items is not source:
            by_name = self._by_name(items)
            self._known = items, by_name
        return by_name

    def _by_name(self, items: Mapping[str, Mapping[str, Any]]) -> dict[str, TopicDefinition]:
        parsed = (topic_from(key, fields, self._store) for key, fields in items.items())
        return {definition.name: definition for definition in parsed}

    def create(self, name: str, partitions: int, overrides: Mapping[str, Any]) -> Topic:
        """Define a topic, and make its directories; see ``Store.create_topic``."""
        check_topic_name(name)
        _refuse_internal(name)
        if not isinstance(partitions, int) or not 1 <= partitions <= MAX_PARTITIONS:
            raise InvalidInputError(
                f"partitions={partitions!r} is out of bounds: 1 to {MAX_PARTITIONS}"
            )
        checked = LogConfig.from_overrides(overrides).overrides()
        definition = TopicDefinition(uuid.uuid4(), name, partitions, checked)

        def add(view: View) -> Sequence[Change]:
            if name in self._by_name(view.items(TOPIC_PREFIX)):
                raise TopicExistsError(f"there is a topic called {name!r} already")
            return [(topic_key(definition.topic_id), topic_fields(definition))]

        self._metadata.update(add)
        topic = self._topic(definition)
        for number in range(partitions):
            self._make_partition(topic, number)
        return topic

    # Topics -----------------------------------------------------------------------------------

    def get(self, name: str) -> Topic:
        """The topic of that name; raises UnknownTopicError."""
        if name == METADATA_TOPIC.name:
            return self._topic(METADATA_TOPIC)
        definition = self.definitions().get(name)
        if definition is None:
            raise UnknownTopicError(f"there is no topic called {name!r} in {self._store}")
        return self._topic(definition)

    def all(self, *, internal: bool = False) -> list[Topic]:
        """All topics, by name; ``internal``: those of the store itself, too."""
        definitions = [*self.definitions().values()]
        if internal:
            definitions.append(METADATA_TOPIC)
        return [self._topic(topic) for topic in sorted(definitions, key=lambda topic: topic.name)]

    def _topic(self, definition: TopicDefinition) -> Topic:
        with self._mutex:
            topic = self._topics.get(definition.topic_id)
            if topic is None:
                topic = Topic(definition, self._open_partition)
                self._topics[definition.topic_id] = topic
            return topic

    # Partitions -------------------------------------------------------------------------------

    def partitions(
        self, topics: Sequence[Topic] | None = None
    ) -> Iterator[contextlib.AbstractContextManager[PartitionLog]]:
        """Every partition that has files, the definitions' first. One that is open here is lent;
        any other is opened for the moment, so that a store of many partitions holds no more files
        than it uses."""
        topics = self.all() if topics is None else topics
        if self._files.is_directory(self._directory(self._topic(METADATA_TOPIC), 0)):
            yield contextlib.nullcontext(self._metadata.log)
        for topic in topics:
            for number in range(topic.partition_count):
                opened = topic.opened(number)
                if opened is not None:
                    yield contextlib.nullcontext(opened)
                elif self._files.is_directory(self._directory(topic, number)):
                    yield self._open_partition(topic, number)

    def _open_partition(self, topic: Topic, number: int) -> PartitionLog:
        self._check_usable()
        read_only = self._read_only or topic.id == METADATA_TOPIC.topic_id
        if not self._read_only:
            self._make_partition(topic, number)
        return PartitionLog(
            self._directory(topic, number),
            files=self._files,
            clock=self._clock,
            config=topic.config,
            read_only=read_only,
        )

    def _directory(self, topic: Topic, number: int) -> str:
        name = filenames.partition_directory(topic.name, number)
        return os.path.join(self._store, TOPICS, name)

    def _make_partition(self, topic: Topic, number: int) -> None:
        """Make a partition's directory, unless it is there: somebody may want to read it before
        anybody writes."""
        if topic.id == METADATA_TOPIC.topic_id:
            _ = self._metadata.log
            return
        directory = self._directory(topic, number)
        self._files.make_directory(directory)
        metadata = os.path.join(directory, filenames.PARTITION_METADATA)
        if self._files.exists(metadata):
            return
        with self._making():
            if not self._files.exists(metadata):
                data = format_partition_metadata(PartitionMetadata(0, topic.id))
                write_atomically(self._files, metadata, data)

    def close(self) -> None:
        """Close every partition that is open."""
        with contextlib.ExitStack() as stack:
            for topic in self._topics.values():
                stack.callback(topic.close)


def _refuse_internal(name: str) -> None:
    if name == METADATA_TOPIC.name:
        raise InvalidInputError(f"{name!r} is the store's own topic: it can be read, and no more")
