"""A consumer of librdkafka's, and what it should find in a partition that we wrote."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import pytest

from logstore.segments.header import TimestampType
from logstore.segments.record import Record

from .written import Partition

confluent_kafka: Any = pytest.importorskip(
    "confluent_kafka", reason="confluent-kafka is not installed (the dev extra brings it)"
)

DEADLINE_S = 60
"""Far more than it takes: whoever hits it is stuck."""

TIMESTAMP_TYPES = {TimestampType.CREATE: 1, TimestampType.LOG_APPEND: 2}
"""librdkafka's numbers; its 0 stands for messages of format 0."""


class ReadError(Exception):
    """librdkafka gave an error in place of a message."""


class Message(NamedTuple):
    """A message as librdkafka gives it to its user."""

    record: Record
    timestamp_type: int


class Reader:
    """Reads from a server, each time with a consumer of its own: nothing is left from before."""

    def __init__(self, address: str, *, errors: Callable[[], object] = list) -> None:
        """``errors``: what the server has to say when a reader gets no further."""
        self._address = address
        self._errors = errors

    @contextlib.contextmanager
    def _consumer(self, isolation: str = "read_uncommitted") -> Iterator[Any]:
        consumer = confluent_kafka.Consumer(
            {
                "bootstrap.servers": self._address,
                "group.id": "asked for, and never joined",
                "enable.auto.commit": False,
                "auto.offset.reset": "error",
                "check.crcs": True,
                "enable.partition.eof": True,
                "isolation.level": isolation,
            }
        )
        try:
            yield consumer
        finally:
            consumer.close()

    def read(
        self, offsets: Mapping[str, int], *, isolation: str = "read_uncommitted"
    ) -> dict[str, list[Message]]:
        """Everything from these offsets to the end of partition 0 of each topic."""
        found: dict[str, list[Message]] = {name: [] for name in offsets}
        unfinished = set(offsets)
        deadline = time.monotonic() + DEADLINE_S
        with self._consumer(isolation) as consumer:
            consumer.assign(
                [confluent_kafka.TopicPartition(name, 0, start) for name, start in offsets.items()]
            )
            while unfinished:
                assert time.monotonic() < deadline, f"no end: {unfinished}, {self._errors()}"
                for message in consumer.consume(1000, timeout=0.1):
                    if message.error() is None:
                        found[message.topic()].append(_message(message))
                    elif message.error().code() == confluent_kafka.KafkaError._PARTITION_EOF:
                        unfinished.discard(message.topic())
                    else:
                        raise ReadError(f"{message.topic()}: {message.error()}")
        return found

    def offsets_for_times(self, times: Mapping[str, int]) -> dict[str, int]:
        """For each partition, the offset of the first record at that time or after it."""
        asked = [confluent_kafka.TopicPartition(name, 0, time) for name, time in times.items()]
        with self._consumer() as consumer:
            answers = consumer.offsets_for_times(asked, timeout=DEADLINE_S)
        return {answer.topic: answer.offset for answer in answers}

    def watermarks(self, names: Iterable[str]) -> dict[str, tuple[int, int]]:
        """For each partition, the lowest offset and the one behind the highest."""
        with self._consumer() as consumer:
            return {
                name: consumer.get_watermark_offsets(
                    confluent_kafka.TopicPartition(name, 0), timeout=DEADLINE_S
                )
                for name in names
            }


def _message(message: Any) -> Message:
    kind, timestamp = message.timestamp()
    return Message(
        Record(
            message.offset(),
            timestamp,
            message.key(),
            message.value(),
            tuple(message.headers() or ()),
        ),
        kind,
    )


def expected_from(partition: Partition, offset: int) -> list[Message]:
    """What a consumer should get that begins at ``offset``."""
    return [
        Message(row.record, TIMESTAMP_TYPES[row.timestamp_type])
        for row in partition.rows
        if row.control is None and row.record.offset >= offset
    ]
