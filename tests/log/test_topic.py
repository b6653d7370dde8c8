"""Topics by themselves: names, partitions, closing. (With a store around them: test_store.py.)"""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from logstore import InvalidInputError, LogConfig, PartitionLog, Topic, UnknownTopicError
from logstore.definitions import TopicDefinition
from logstore.topic import MAX_TOPIC_NAME_LENGTH, check_topic_name

from .support import SpyFiles, records


def make(directory: Path, count: int, opened: list[int]) -> Topic:
    def open_partition(topic: Topic, number: int) -> PartitionLog:
        opened.append(number)
        return PartitionLog(directory / f"{topic.name}-{number}", files=SpyFiles())

    definition = TopicDefinition(uuid.UUID(int=7), "orders", count, {"segment_bytes": 1000})
    return Topic(definition, open_partition)


def test_partitions_are_opened_when_they_are_asked_for_and_once(tmp_path: Path) -> None:
    opened: list[int] = []
    topic = make(tmp_path, 3, opened)
    assert opened == []
    assert topic.config == LogConfig(segment_bytes=1000)
    log = topic.partition(2)
    assert topic.partition(2) is log
    assert opened == [2]
    topic.close()
    # It may be asked for again; whether that is allowed, the store says.
    assert topic.partition(2) is not log
    topic.close()


def test_a_partition_that_cannot_be_opened_can_be_asked_for_again(tmp_path: Path) -> None:
    opened: list[int] = []
    topic = make(tmp_path, 1, opened)
    (tmp_path / "orders-0").write_text("a file in its place")
    with pytest.raises(OSError, match="orders-0"):
        topic.partition(0)
    (tmp_path / "orders-0").unlink()
    topic.partition(0).append(records("a"))
    topic.close()


@pytest.mark.parametrize("number", [-1, 3])
def test_a_partition_that_is_not_there_is_named(tmp_path: Path, number: int) -> None:
    topic = make(tmp_path, 3, [])
    with pytest.raises(UnknownTopicError, match="topic 'orders' has no partition"):
        topic.partition(number)
    assert list(tmp_path.iterdir()) == []


def test_open_logs_are_configured_anew_when_something_has_changed_and_only_then(
    tmp_path: Path,
) -> None:
    topic = make(tmp_path, 1, [])
    log = topic.partition(0)
    same = TopicDefinition(topic.id, "orders", 1, {"segment_bytes": 1000})
    config = log.config
    topic.redefine(same, {})
    assert log.config is config
    topic.redefine(same, {"retention_ms": 5})
    assert log.config == topic.config == LogConfig(segment_bytes=1000, retention_ms=5)
    topic.redefine(same._replace(overrides={"segment_bytes": 2000}), {"retention_ms": 5})
    assert log.config == topic.config == LogConfig(segment_bytes=2000, retention_ms=5)
    topic.redefine(same._replace(overrides={}), {})
    assert log.config == topic.config == LogConfig()
    topic.close()


def test_a_topic_has_a_speaking_repr(tmp_path: Path) -> None:
    assert repr(make(tmp_path, 3, [])) == "Topic('orders', 3 partitions)"


def test_the_longest_name_with_the_largest_partition_fits_a_file_name() -> None:
    name = "x" * MAX_TOPIC_NAME_LENGTH
    check_topic_name(name)
    assert len(f"{name}-9999") <= 255
    with pytest.raises(InvalidInputError, match="1 to 249 ASCII letters"):
        check_topic_name(name + "x")
