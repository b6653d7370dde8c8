"""The topics of an open store: their definitions, their directories, and the handles in use."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from logstore.clock import Clock
from logstore.config import LogConfig, StoreConfig
from logstore.definitions import (
    DEFAULTS,
    TOPIC_PREFIX,
    TopicDefinition,
    topic_fields,
    topic_from,
    topic_key,
)
from logstore.deletion import remove_deleted
from logstore.errors import (
    InvalidInputError,
    LockTimeoutError,
    LogstoreError,
    TopicExistsError,
    UnknownTopicError,
)
from logstore.log import PartitionLog
from logstore.metadata import METADATA_TOPIC, TOPICS, Change, Metadata, View
from logstore.partition_files import PartitionFiles
from logstore.segments import filenames
from logstore.segments.files import Files
from logstore.structure import NO_ROOM
from logstore.topic import MAX_PARTITIONS, Topic, check_topic_name

__all__ = ["TopicCatalogue", "refuse_internal"]

_log = logging.getLogger("logstore")


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
        self._partitions, self._own_partitions = (
            PartitionFiles(
                os.path.join(store, TOPICS),
                files=files,
                clock=clock,
                read_only=reads,
                making=making,
                is_defined=self._is_defined,
                kind="topic",
            )
            for reads in (read_only, True)
        )
        """Those of users' topics, and those of the store itself, which are only read."""
        self._topics: dict[uuid.UUID, Topic] = {}
        """Topics that somebody has asked for."""
        self._known: tuple[Any, dict[str, TopicDefinition]] = (None, {})
        """All definitions by name, and what they were read from."""
        self._parsed: dict[str, tuple[Mapping[str, Any], TopicDefinition]] = {}
        """Each definition by its key, and what it was made of."""
        self._version = -1
        """The version of the definitions that the topics in use are by."""
        self.on_deletion: list[Callable[[uuid.UUID], object]] = []
        """Called with the id of a deleted topic, perhaps more than once."""

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
        before, parsed = self._parsed, {}
        for key, fields in items.items():
            known = before.get(key)
            if known is None or known[0] is not fields:  # nearly all are what they were
                known = fields, topic_from(key, fields, self._store)
            parsed[key] = known
        self._parsed = parsed
        return {definition.name: definition for _, definition in parsed.values()}

    @property
    def defaults(self) -> dict[str, Any]:
        """The configuration keys that are set for all topics."""
        return _defaults(self._metadata.get(DEFAULTS), "config")

    @property
    def store_keys(self) -> dict[str, Any]:
        """The configuration keys that are set for the store itself."""
        return _defaults(self._metadata.get(DEFAULTS), "store")

    @property
    def settings(self) -> StoreConfig:
        """What counts for the store itself."""
        return StoreConfig.from_overrides(self.store_keys)

    def refresh(self) -> None:
        """Take in what was changed by anybody, for the topics that are in use here."""
        version = self._metadata.version
        if version == self._version:
            return
        by_id = {definition.topic_id: definition for definition in self.definitions().values()}
        defaults = self.defaults
        with self._mutex:
            self._version = version
            dropped = []
            for topic in list(self._topics.values()):
                definition = by_id.get(topic.id)
                if topic.id == METADATA_TOPIC.topic_id:
                    continue
                if definition is None:
                    dropped.append(self._topics.pop(topic.id))
                else:
                    topic.redefine(definition, defaults)
        for topic in dropped:
            topic.drop()

    # Changing them ----------------------------------------------------------------------------

    def create(
        self, name: str, partitions: int, overrides: Mapping[str, Any], *, exist_ok: bool
    ) -> Topic:
        """Define a topic, and make its directories; see ``Store.create_topic``."""
        check_topic_name(name)
        refuse_internal(name)
        _check_count(partitions)
        definition = TopicDefinition(uuid.uuid4(), name, partitions, checked_overrides(overrides))

        def add(view: View) -> Sequence[Change]:
            if name in self._by_name(view.items(TOPIC_PREFIX)):
                raise TopicExistsError(f"there is a topic called {name!r} already")
            if any(fields.get("name") == name for fields in view.deleting().values()):
                raise _StillThereError
            return [(topic_key(definition.topic_id), topic_fields(definition))]

        while True:
            try:
                self._metadata.update(add)
                break
            except _StillThereError:
                self.finish_deletions(wait=True)
            except TopicExistsError:
                if not exist_ok:
                    raise
                return self.get(name)
        topic = self._topic(definition)
        for number in range(partitions):
            self._partitions.make(name, number, topic.id)
        return topic

    def alter(
        self,
        name: str,
        changes: Mapping[str, Any],
        unset: Iterable[str],
        partitions: int | None = None,
    ) -> Topic:
        """Set and unset configuration keys, and add partitions; see ``Store.alter_topic``."""
        changes, unset = checked_overrides(changes), _checked_keys(unset)
        if partitions is not None:
            _check_count(partitions)

        def alter(definition: TopicDefinition) -> TopicDefinition:
            kept = {key: value for key, value in definition.overrides.items() if key not in unset}
            altered = definition._replace(overrides={**kept, **changes})
            if partitions is None:
                return altered
            if partitions <= definition.partition_count:
                raise InvalidInputError(
                    f"partitions={partitions} is out of bounds: topic {name!r} has "
                    f"{definition.partition_count}, and can only get more of them"
                )
            return altered._replace(partition_count=partitions)

        topic = self._alter(name, alter)
        for number in range(partitions or 0):
            self._partitions.make(name, number, topic.id)
        return topic

    def add_partitions(self, name: str, total: int) -> Topic:
        """Give a topic more partitions; see ``Store.add_partitions``."""
        _check_count(total)
        return self.alter(name, {}, (), total)

    def _alter(self, name: str, alter: Callable[[TopicDefinition], TopicDefinition]) -> Topic:
        refuse_internal(name)

        def change(view: View) -> Sequence[Change]:
            before = self._by_name(view.items(TOPIC_PREFIX)).get(name)
            if before is None:
                raise self._unknown(name)
            after = alter(before)
            return [] if after == before else [(topic_key(after.topic_id), topic_fields(after))]

        self._metadata.update(change)
        return self.get(name)

    def alter_defaults(self, changes: Mapping[str, Any], unset: Iterable[str]) -> None:
        """Set and unset keys for all topics, or for the store; see ``Store.alter_defaults``."""
        unset = _checked_keys(unset, _LOG_KEYS | _STORE_KEYS)
        ours = {key: changes[key] for key in changes if str(key).replace(".", "_") in _STORE_KEYS}
        logs = {key: changes[key] for key in changes if key not in ours}
        checked = {"config": checked_overrides(logs), "store": checked_overrides(ours, StoreConfig)}

        def change(view: View) -> Sequence[Change]:
            before = {field: _defaults(view.get(DEFAULTS), field) for field in checked}
            after = {
                field: {**{k: v for k, v in before[field].items() if k not in unset}, **given}
                for field, given in checked.items()
            }
            return [] if after == before else [(DEFAULTS, after)]

        self._metadata.update(change)
        self.refresh()

    def delete(self, name: str) -> None:
        """Delete a topic; see ``Store.delete_topic``."""
        refuse_internal(name)

        topic = self.get(name)
        key = topic_key(topic.id)

        def change(view: View) -> Sequence[Change]:
            if view.get(key) is None:
                raise self._unknown(name)
            return [(key, None)]

        try:
            self._metadata.update(change)
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            # On a full disk the records go first: they were to go, and the definitions need room.
            self._empty(topic)
            # The removal may be in the log already, and only have to be taken in.
            self._metadata.update(lambda view: [] if view.get(key) is None else [(key, None)])
        self.refresh()
        self.finish_deletions()

    def _empty(self, topic: Topic) -> None:
        """Delete all records of a topic, and what was deleted before."""
        for number in range(topic.partition_count):
            with contextlib.suppress(LogstoreError, OSError):
                lent = self.lend(topic, number)
                if lent is not None:
                    with lent as log:
                        log.delete_records(log.log_end_offset)
                        log.purge_deleted(at_once=True)

    def prepare(self) -> None:
        """What every round of maintenance begins with."""
        self.refresh()
        self.finish_deletions()

    def finish_deletions(self, *, wait: bool = False) -> None:
        """Take away what is left of deleted topics: by this process, or by one that was killed.

        What somebody else holds is left for the next time, or raises LockTimeoutError (``wait``).
        """
        if self._metadata.deleting():
            try:
                with self._making():
                    for key, fields in self._metadata.deleting().items():
                        self._finish_deletion(key, topic_from(key, fields, self._store), wait=wait)
            except LockTimeoutError as error:
                if wait:
                    raise
                _log.warning("deleted topics are taken away later: %s", error)
        remove_deleted(self._files, os.path.join(self._store, TOPICS))

    def _finish_deletion(self, key: str, topic: TopicDefinition, *, wait: bool) -> None:
        try:
            for number in range(topic.partition_count):
                self._partitions.take_away(topic.name, number, topic.topic_id)
        except LockTimeoutError as error:
            if wait:
                raise
            _log.warning("topic %r is deleted later: %s", topic.name, error)
            return
        for forget in self.on_deletion:
            forget(topic.topic_id)
        self._metadata.deleted(key)

    def finish_creations(self) -> None:
        """Make the directories that a crash left out. What cannot be made now is made, or missed,
        by whoever uses the partition."""
        there = set(self._files.names(self._partitions.directory))
        for topic in self.definitions().values():
            for number in range(topic.partition_count):
                if filenames.partition_directory(topic.name, number) not in there:
                    with contextlib.suppress(LogstoreError, OSError):
                        self._partitions.make(topic.name, number, topic.topic_id)

    # Topics -----------------------------------------------------------------------------------

    def get(self, name: str) -> Topic:
        """The topic of that name; raises UnknownTopicError."""
        if name == METADATA_TOPIC.name:
            return self._topic(METADATA_TOPIC)
        self.refresh()
        definition = self.definitions().get(name)
        if definition is None:
            raise self._unknown(name)
        return self._topic(definition)

    def _unknown(self, name: str) -> UnknownTopicError:
        return UnknownTopicError(f"there is no topic called {name!r} in {self._store}")

    def all(self, *, internal: bool = False) -> list[Topic]:
        """All topics, by name; ``internal``: those of the store itself, too."""
        self.refresh()
        definitions = [*self.definitions().values()]
        if internal:
            definitions.append(METADATA_TOPIC)
        return [self._topic(topic) for topic in sorted(definitions, key=lambda topic: topic.name)]

    def _topic(self, definition: TopicDefinition) -> Topic:
        with self._mutex:
            topic = self._topics.get(definition.topic_id)
            if topic is None:
                internal = definition.topic_id == METADATA_TOPIC.topic_id
                topic = self._topics[definition.topic_id] = Topic(
                    definition,
                    self._open_partition,
                    defaults={} if internal else self.defaults,
                    refresh=self.refresh,
                )
            return topic

    # Partitions -------------------------------------------------------------------------------

    def partitions(
        self, topics: Sequence[Topic] | None = None
    ) -> Iterator[contextlib.AbstractContextManager[PartitionLog]]:
        """Every partition that has files, the definitions' last. One that is open here is lent;
        any other is opened for the moment, so that a store of many partitions holds no more files
        than it uses."""
        topics = self.all() if topics is None else topics
        for topic in topics:
            for number in range(topic.partition_count):
                with contextlib.suppress(UnknownTopicError):  # it was just deleted
                    lent = self.lend(topic, number)
                    if lent is not None:
                        yield lent
        if self._partitions.exists(METADATA_TOPIC.name, 0):
            yield contextlib.nullcontext(self._metadata.log)

    def lend(
        self, topic: Topic, number: int
    ) -> contextlib.AbstractContextManager[PartitionLog] | None:
        """A partition that has files, for the moment; None for one that has none."""
        opened = topic.opened(number)
        if opened is not None:
            return contextlib.nullcontext(opened)
        if self._partitions.exists(topic.name, number):
            return self._open_partition(topic, number)
        return None

    def _open_partition(self, topic: Topic, number: int) -> PartitionLog:
        self._check_usable()
        partitions = self._partitions
        if topic.id == METADATA_TOPIC.topic_id:
            if not self._read_only:
                _ = self._metadata.log
            partitions = self._own_partitions
        return partitions.open(topic.name, number, topic.id, topic.config)

    def _is_defined(self, topic_id: uuid.UUID, name: str) -> bool:
        internal = topic_id == METADATA_TOPIC.topic_id
        return internal or self._metadata.get(topic_key(topic_id)) is not None

    def close(self) -> None:
        """Close every partition that is open."""
        with contextlib.ExitStack() as stack:
            for topic in self._topics.values():
                stack.callback(topic.close)


class _StillThereError(Exception):
    """The files of a deleted topic of that name are."""


_LOG_KEYS = frozenset(LogConfig.keys())
_STORE_KEYS = frozenset(StoreConfig.keys())


def checked_overrides(
    overrides: Mapping[str, Any], kind: type[LogConfig | StoreConfig] = LogConfig
) -> dict[str, Any]:
    """The keys in our spelling, with their values as they are kept; raises InvalidInputError."""
    config = kind.from_overrides(overrides)
    keys = (spelled.replace(".", "_") for spelled in overrides)
    return {key: getattr(config, key) for key in keys}


def _checked_keys(keys: Iterable[str], known: frozenset[str] = _LOG_KEYS) -> set[str]:
    spelled = {key.replace(".", "_") for key in keys}
    for key in sorted(spelled - known):
        raise InvalidInputError(f"no configuration key is called {key!r}")
    return spelled


def _check_count(partitions: int) -> None:
    whole = isinstance(partitions, int) and not isinstance(partitions, bool)
    if not whole or not 1 <= partitions <= MAX_PARTITIONS:
        raise InvalidInputError(
            f"partitions={partitions!r} is out of bounds: 1 to {MAX_PARTITIONS}"
        )


def _defaults(fields: Mapping[str, Any] | None, field: str) -> dict[str, Any]:
    return dict(fields.get(field, {})) if fields else {}


def refuse_internal(name: str) -> None:
    """Raise InvalidInputError for a topic that only the store itself writes to."""
    if name == METADATA_TOPIC.name:
        raise InvalidInputError(f"{name!r} is the store's own topic: it can be read, and no more")
