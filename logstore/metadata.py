"""The ``meta`` environment: what a store knows of its topics, in LMDB, synced at every change.

Keys are ids, never names: a name can be longer than a key may be, and can be given to another
topic later. A definition is JSON, so that a newer version can add to it.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from typing import Any, NamedTuple

import lmdb

from logstore.environments import Environment, open_environment
from logstore.errors import FormatError, ReadOnlyError, TopicExistsError

__all__ = ["Metadata", "TopicDefinition"]

_TOPICS = b"topics"


class TopicDefinition(NamedTuple):
    """What a topic was created with."""

    topic_id: uuid.UUID
    name: str
    partition_count: int
    overrides: Mapping[str, Any]
    """The configuration keys that differ from their defaults."""


class Metadata:
    """A store's definitions. Looking sees at once what other processes committed."""

    def __init__(self, directory: str, *, read_only: bool = False) -> None:
        self._directory = directory
        self._read_only = read_only
        self._environment = open_environment(directory, read_only=read_only)
        """None while there is none to read, and once it is closed."""
        self._closed = False
        self._known: tuple[int, Mapping[str, TopicDefinition]] = (-1, {})
        """All topics, and the number of the transaction after which they were read."""

    def close(self) -> None:
        """Let go of the environment; closing twice is allowed."""
        self._closed = True
        environment, self._environment = self._environment, None
        if environment is not None:
            environment.close()

    def topics(self) -> Mapping[str, TopicDefinition]:
        """All topics, by name."""
        environment = self._opened()
        if environment is None:
            return {}
        # If somebody commits after this number was read, the next look reads once more.
        number = environment.last_transaction()
        seen, topics = self._known
        if number != seen:
            with environment.transaction() as transaction:
                topics = self._read_topics(environment, transaction)
            self._known = number, topics
        return topics

    def copy_to(self, directory: str) -> None:
        """Copy all definitions, as they are at one moment, into an empty directory."""
        environment = self._opened()
        if environment is not None:
            environment.copy(directory)

    def _opened(self) -> Environment | None:
        if self._environment is None and self._read_only and not self._closed:
            self._environment = open_environment(self._directory, read_only=True)
        return self._environment

    def add_topic(self, topic: TopicDefinition) -> None:
        """Add a topic; raises TopicExistsError when there is one of its name.

        Commit point: LMDB's own, which is synced. A crash before it leaves no topic.
        """
        environment = self._environment
        if environment is None or self._read_only:
            raise ReadOnlyError(f"{self._directory}: the store was opened for reading only")
        with environment.transaction(write=True) as transaction:
            if topic.name in self._read_topics(environment, transaction):
                raise TopicExistsError(f"there is a topic called {topic.name!r} already")
            value = {
                "name": topic.name,
                "partitions": topic.partition_count,
                "config": dict(topic.overrides),
            }
            table = environment.handle.open_db(_TOPICS, transaction)
            with transaction.cursor(table) as cursor:
                cursor.put(topic.topic_id.bytes, json.dumps(value).encode())

    def _read_topics(
        self, environment: Environment, transaction: Any
    ) -> dict[str, TopicDefinition]:
        try:
            table = environment.handle.open_db(_TOPICS, transaction, create=False)
        except lmdb.NotFoundError:
            return {}
        topics = {}
        with transaction.cursor(table) as cursor:
            for key, value in cursor:
                try:
                    fields = json.loads(value)
                    topic = TopicDefinition(
                        uuid.UUID(bytes=key),
                        fields["name"],
                        fields["partitions"],
                        fields["config"],
                    )
                except (ValueError, KeyError, TypeError) as error:
                    raise FormatError(
                        f"the definition of topic {key.hex()} is broken",
                        path=self._directory,
                        found=repr(error),
                    ) from error
                topics[topic.name] = topic
        return topics
