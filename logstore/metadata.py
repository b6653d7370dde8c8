"""The ``meta`` environment: what a store knows of its topics, in LMDB, synced at every change.

Keys are ids, never names: a name can be longer than a key may be, and can be given to another
topic later. A definition is JSON, so that a newer version can add to it.
"""

from __future__ import annotations

import json
import os
import threading
import uuid
from collections.abc import Mapping
from typing import Any, NamedTuple

import lmdb

from logstore.errors import FormatError, TopicExistsError
from logstore.segments.files import DiskFiles

__all__ = ["Metadata", "TopicDefinition"]

_MAP_BYTES = 1 << 40
"""Address space that is set aside: 1 TiB. The file stays as small as what is in it."""
_MAX_READERS = 4096
_MAX_TABLES = 64
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
        self._environment = _environments.open(directory, read_only=read_only)
        self._topics: dict[str, TopicDefinition] = {}
        self._transaction = -1
        """The number of the transaction after which ``_topics`` was read."""

    def close(self) -> None:
        """Let go of the environment; closing twice is allowed."""
        if self._environment is not None:
            _environments.close(self._environment)
            self._environment = None

    def topics(self) -> Mapping[str, TopicDefinition]:
        """All topics, by name."""
        number = self._environment.info()["last_txnid"]
        if number != self._transaction:
            with self._environment.begin() as transaction:
                self._topics = self._read_topics(transaction)
            self._transaction = number
        return self._topics

    def add_topic(self, topic: TopicDefinition) -> None:
        """Add a topic; raises TopicExistsError when there is one of its name.

        Commit point: LMDB's own, which is synced. A crash before it leaves no topic.
        """
        with self._environment.begin(write=True) as transaction:
            if topic.name in self._read_topics(transaction):
                raise TopicExistsError(f"there is a topic called {topic.name!r} already")
            value = {
                "name": topic.name,
                "partitions": topic.partition_count,
                "config": dict(topic.overrides),
            }
            with transaction.cursor(self._table(transaction, create=True)) as cursor:
                cursor.put(topic.topic_id.bytes, json.dumps(value).encode())

    def _table(self, transaction: Any, *, create: bool = False) -> Any:
        return self._environment.open_db(_TOPICS, transaction, create=create)

    def _read_topics(self, transaction: Any) -> dict[str, TopicDefinition]:
        try:
            table = self._table(transaction)
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


class _Environments:
    """The open environments of this process: LMDB forbids to open one twice."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: dict[tuple[int, int, bool], tuple[Any, int]] = {}
        """By device, inode and mode: the environment and how many use it."""

    def open(self, directory: str, *, read_only: bool) -> Any:
        with self._lock:
            if not read_only:
                DiskFiles().make_directory(directory)
            status = os.stat(directory)
            key = (status.st_dev, status.st_ino, read_only)
            environment, users = self._open.get(key, (None, 0))
            if environment is None:
                environment = self._open_new(directory, read_only)
            self._open[key] = (environment, users + 1)
            return environment

    @staticmethod
    def _open_new(directory: str, read_only: bool) -> Any:
        locking = os.access(directory, os.W_OK)
        environment = lmdb.open(
            directory,
            map_size=_MAP_BYTES,
            max_readers=_MAX_READERS,
            max_dbs=_MAX_TABLES,
            readonly=read_only,
            lock=locking or not read_only,
            create=not read_only,
        )
        if not read_only:
            environment.reader_check()
        return environment

    def close(self, environment: Any) -> None:
        with self._lock:
            for key, (known, users) in self._open.items():
                if known is environment:
                    if users > 1:
                        self._open[key] = (environment, users - 1)
                    else:
                        del self._open[key]
                        environment.close()
                    return

    def forget(self) -> None:
        """In a child of fork: the environments are the parent's, and must not even be closed."""
        self._lock = threading.Lock()
        _inherited.extend(environment for environment, _ in self._open.values())
        self._open.clear()


_inherited: list[Any] = []
"""Environments of a parent process, kept from being collected (and thereby closed)."""
_environments = _Environments()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_environments.forget)
