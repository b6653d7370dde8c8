"""What a consumer subscribes to: topics by name, or all whose names match a pattern."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping

from logstore.definitions import TopicDefinition
from logstore.errors import InvalidInputError, UnknownTopicError
from logstore.log import PartitionLog
from logstore.partitions import TopicPartition
from logstore.topic import Topic
from logstore.topics import TopicCatalogue, refuse_internal

__all__ = ["RebalanceListener", "Subscription", "Topics"]


class RebalanceListener:
    """Is told when partitions come and go, in the thread that polls; override what you need."""

    def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        """They go to others when this returns: the time to commit what was done."""

    def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        """They have come; seeking in them is allowed."""

    def on_partitions_lost(self, lost: Collection[TopicPartition]) -> None:
        """They went without warning and may be somebody else's: nothing can be committed."""
        self.on_partitions_revoked(lost)


class Topics:
    """What consumers and producers ask the store's catalogue."""

    def __init__(self, catalogue: TopicCatalogue) -> None:
        self._catalogue = catalogue

    def definitions(self) -> Mapping[str, TopicDefinition]:
        """All topics that are not internal, by name: the same object until one of them changes."""
        return self._catalogue.definitions()

    def writable(self, name: str) -> Topic:
        """A topic that anybody may write to; one that was made anew is another object. Raises
        UnknownTopicError, InvalidInputError."""
        refuse_internal(name)
        return self._catalogue.get(name)

    def partition_count(self, topic: str) -> int:
        """Raises UnknownTopicError."""
        return self._catalogue.get(topic).partition_count

    def log(self, partition: TopicPartition) -> PartitionLog:
        """Raises UnknownTopicError."""
        return self._catalogue.get(partition.topic).partition(partition.partition)


class Subscription:
    """Names or a pattern, against the topics that there are at the moment of asking."""

    def __init__(
        self,
        topics: Topics,
        names: str | Iterable[str],
        pattern: str | re.Pattern[str] | None,
        listener: RebalanceListener | None,
    ) -> None:
        """Raises UnknownTopicError for a name that is not there, InvalidInputError."""
        self._topics = topics
        self._names = frozenset((names,) if isinstance(names, str) else names)
        if bool(self._names) == (pattern is not None):
            raise InvalidInputError("subscribe to topics by name, or to a pattern")
        for name in self._names:
            topics.partition_count(name)
        self._expression = None if pattern is None else _compiled(pattern)
        self.listener = listener or RebalanceListener()

    @property
    def by_pattern(self) -> bool:
        """Whether topics may come and go without anybody's having named them."""
        return self._expression is not None

    def topics(self) -> frozenset[str]:
        """The names of the topics."""
        expression = self._expression
        if expression is None:
            return self._names
        return frozenset(name for name in self._topics.definitions() if expression.fullmatch(name))

    def missing(self) -> frozenset[str]:
        """The topics that were named, and are not there any more."""
        return self._names - self._topics.definitions().keys()

    def partitions(self) -> list[TopicPartition]:
        """All partitions of the topics; raises UnknownTopicError if one that was named is gone."""
        found = []
        for name in sorted(self.topics()):
            try:
                count = self._topics.partition_count(name)
            except UnknownTopicError:
                if name in self._names:
                    raise
                continue
            found += [TopicPartition(name, number) for number in range(count)]
        return found


def _compiled(pattern: str | re.Pattern[str]) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except (re.error, TypeError) as error:
        raise InvalidInputError(f"{pattern!r} is no regular expression: {error}") from None
