"""Altering and deleting topics, in one process and in several."""

from __future__ import annotations

import json
import random
import threading
import time
import uuid
from pathlib import Path
from typing import Any

import pytest

import logstore
from logstore import (
    InvalidInputError,
    LockTimeoutError,
    PartitionLog,
    ReadOnlyError,
    Record,
    TopicExistsError,
    UnknownTopicError,
)
from logstore.metadata import METADATA_TOPIC, Metadata
from logstore.segments.files import DiskFiles
from logstore.structure import CLEANER_LOCK

from .support import SpyFiles, fail, finish, io_error, records, start, values


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store"


def directories(path: Path) -> list[str]:
    """The partitions of users' topics."""
    names = [entry.name for entry in (path / "topics").iterdir() if entry.is_dir()]
    return sorted(name for name in names if not name.startswith("__"))


# the store's own ----------------------------------------------------------------------------


def test_the_stores_own_topic_can_be_read_and_nothing_else(path: Path) -> None:
    with logstore.open(path) as store:
        topic = store.create_topic("orders")
        assert [t.name for t in store.topics()] == ["orders"]
        assert [t.name for t in store.topics(internal=True)] == ["__metadata", "orders"]
        log = store.topic("__metadata").partition(0)
        (record,) = log.read(0).records()
        assert record.key == f"topic/{topic.id.hex}".encode()
        with pytest.raises(ReadOnlyError):
            log.append([Record(key=b"k")])
        with pytest.raises(ReadOnlyError):
            log.truncate(0)
        for refused in (
            lambda: store.create_topic("__metadata"),
            lambda: store.delete_topic("__metadata"),
            lambda: store.alter_topic("__metadata", {"retention_ms": 1}),
            lambda: store.add_partitions("__metadata", 2),
        ):
            with pytest.raises(InvalidInputError, match="'__metadata' is the store's own topic"):
                refused()
        store.alter_defaults({"cleanup_policy": "delete"})
        config = store.describe_topic("__metadata").config
        assert config["cleanup_policy"] == ("compact", "topic")
    with logstore.open(path, read_only=True) as reader:
        assert next(t.id for t in reader.topics(internal=True)) == METADATA_TOPIC.topic_id
        assert len(list(reader.topic("__metadata").partition(0).read(0).records())) == 2


def test_maintenance_compacts_the_definitions(path: Path) -> None:
    with logstore.open(path, maintenance_interval=None) as store:
        store.create_topic("orders")
        reports = store.maintain()
        assert reports is not None
        assert [Path(report.directory).name for report in reports] == ["orders-0", "__metadata-0"]
        assert reports[1].compaction is not None


# configuration ------------------------------------------------------------------------------


def test_an_altered_configuration_is_stored_and_reaches_what_is_open(path: Path) -> None:
    with logstore.open(path) as store, logstore.open(path) as other:
        topic = store.create_topic("orders", retention_ms=5, segment_bytes=10_000)
        log = topic.partition(0)
        theirs = other.topic("orders").partition(0)
        changed = store.alter_topic("orders", {"max.message.bytes": "200"}, ["retention_ms"])
        assert changed is topic
        assert topic.overrides == {"segment_bytes": 10_000, "max_message_bytes": 200}
        assert log.config.retention_ms == 7 * 24 * 60 * 60 * 1000
        with pytest.raises(InvalidInputError, match="max_message_bytes=200"):
            log.append(records("x" * 300))
        # The other handle has not looked yet; a round of maintenance does, and so does a look-up.
        theirs.append(records("x" * 300))
        other.maintain()
        with pytest.raises(InvalidInputError, match="max_message_bytes=200"):
            theirs.append(records("x" * 300))
    with logstore.open(path, read_only=True) as reader:
        assert reader.topic("orders").config.max_message_bytes == 200


def test_a_smaller_segment_counts_from_the_next_append_on(path: Path) -> None:
    with logstore.open(path) as store:
        log = store.create_topic("orders").partition(0)
        log.append(records("x" * 100))
        store.alter_topic("orders", {"segment_bytes": 100})
        log.append(records("x" * 100))
        assert list(log.segments) == [0, 1]
        store.alter_topic("orders", {"segment_ms": 5}, ["segment_bytes"])
        log.append([Record(value=b"x", timestamp=1000)])
        log.append([Record(value=b"x", timestamp=1006)])
        assert list(log.segments) == [0, 1, 3]
        store.alter_topic("orders", {"message_timestamp_type": "LogAppendTime"})
        assert log.append([Record(value=b"x", timestamp=1007)]).timestamp > 1007


def test_a_lookup_in_another_process_sees_what_was_altered(path: Path) -> None:
    with logstore.open(path) as store:
        topic = store.create_topic("orders")
        finish([start("alter_topic", path, "orders", "segment_bytes", 5000, stdin=-3)])
        assert store.topic("orders") is topic
        assert topic.config.segment_bytes == 5000


@pytest.mark.parametrize(
    ("changes", "unset", "says"),
    [
        ({"segment_bytes": 1}, (), "segment_bytes=1 is out of bounds: 14 to 2147483647"),
        ({"cleanup_policy": "keep"}, (), "cleanup_policy is delete, compact"),
        ({"no_such_key": 1}, (), "no configuration key is called 'no_such_key'"),
        ({}, ["no_such_key"], "no configuration key is called 'no_such_key'"),
    ],
)
def test_a_wrong_configuration_changes_nothing(
    path: Path, changes: dict[str, Any], unset: list[str], says: str
) -> None:
    with logstore.open(path) as store:
        store.create_topic("orders", retention_ms=5)
        version = store._metadata.version
        changes = {"retention_ms": 6, **changes}
        with pytest.raises(InvalidInputError, match=says):
            store.alter_topic("orders", changes, unset)
        with pytest.raises(InvalidInputError, match=says):
            store.alter_defaults(changes, unset)
        assert store.topic("orders").overrides == {"retention_ms": 5}
        assert store.defaults == {}
        assert store._metadata.version == version


def test_what_changes_nothing_is_not_stored(path: Path) -> None:
    with logstore.open(path) as store:
        store.create_topic("orders", retention_ms=5)
        version = store._metadata.version
        store.alter_topic("orders", {"retention_ms": "5"}, ["segment_bytes"])
        store.alter_defaults(unset=["segment_bytes"])
        assert store._metadata.version == version


def test_a_topic_has_its_own_keys_then_the_stores_then_kafkas(path: Path) -> None:
    with logstore.open(path) as store:
        early = store.create_topic("early", segment_bytes=1 << 30)  # which is Kafka's, but set
        store.alter_defaults({"segment_bytes": 5000, "retention_ms": 7})
        late = store.create_topic("late", retention_ms=8)
        assert store.defaults == {"segment_bytes": 5000, "retention_ms": 7}
        assert (early.config.segment_bytes, early.config.retention_ms) == (1 << 30, 7)
        assert (late.config.segment_bytes, late.config.retention_ms) == (5000, 8)
        config = store.describe_topic("late").config
        assert config["retention_ms"] == (8, "topic")
        assert config["segment_bytes"] == (5000, "store")
        assert config["retention_bytes"] == (-1, "default")
        store.alter_defaults({"retention_ms": 9}, ["segment_bytes"])
        assert (early.config.retention_ms, late.config.retention_ms) == (9, 8)
        assert late.config.segment_bytes == 1 << 30
    with logstore.open(path) as store:
        assert store.defaults == {"retention_ms": 9}
        assert store.topic("early").config.retention_ms == 9


# partitions ---------------------------------------------------------------------------------


def test_partitions_are_added_and_the_others_learn_of_it(path: Path) -> None:
    with logstore.open(path) as store, logstore.open(path) as other:
        topic = store.create_topic("orders", partitions=2)
        theirs = other.topic("orders")
        with pytest.raises(UnknownTopicError, match="has no partition 2"):
            theirs.partition(2)
        assert store.add_partitions("orders", 4) is topic
        assert topic.partition_count == 4
        theirs.partition(3).append(records("a"))
        assert values(topic.partition(3)) == [b"a"]
        for total in (0, 3, 4, 10_001, True, "5"):
            with pytest.raises(InvalidInputError, match=r"is out of bounds"):
                store.add_partitions("orders", total)  # type: ignore[arg-type]
        with pytest.raises(UnknownTopicError):
            store.add_partitions("nothing", 2)
    assert directories(path) == [f"orders-{number}" for number in range(4)]


def test_a_topic_is_described(path: Path) -> None:
    with logstore.open(path) as store:
        topic = store.create_topic("orders", partitions=2)
        topic.partition(1).append(records("a", "b"))
        found = store.describe_topic("orders")
        assert (found.name, found.id) == ("orders", topic.id)
        first, second = found.partitions
        assert first == (0, 0, 0, 1, 0)
        assert second[:4] == (1, 0, 2, 1)
        assert second.size > 60
        with pytest.raises(UnknownTopicError):
            store.describe_topic("nothing")


# deletion -----------------------------------------------------------------------------------


def test_a_deleted_topic_is_gone_and_another_one_may_have_its_name(path: Path) -> None:
    with logstore.open(path) as store:
        topic = store.create_topic("orders", partitions=3, retention_ms=5)
        for number in range(3):
            topic.partition(number).append(records("old"))
        store.create_topic("kept")
        store.delete_topic("orders")
        assert [t.name for t in store.topics()] == ["kept"]
        assert directories(path) == ["kept-0"]
        with pytest.raises(UnknownTopicError):
            store.topic("orders")
        with pytest.raises(UnknownTopicError):
            store.delete_topic("orders")
        again = store.create_topic("orders")
        assert again.id != topic.id
        assert again.overrides == {}
        again.partition(0).append(records("new"))
        assert values(again.partition(0)) == [b"new"]
        with pytest.raises(UnknownTopicError, match="was deleted"):
            topic.partition(0)
    with logstore.open(path) as store:
        assert values(store.topic("orders").partition(0)) == [b"new"]
        assert directories(path) == ["kept-0", "orders-0"]


def refused(log: PartitionLog) -> None:
    """Whatever is done with the log of a deleted topic says so."""
    for use in (
        lambda: log.append(records("a")),
        lambda: log.append(records("a"), acks=1),
        lambda: log.read(0),
        lambda: log.log_end_offset,
        lambda: log.wait(100, timeout=5),
        lambda: log.retain(),
        lambda: log.truncate(0),
        lambda: log.offset_for_time(0),
    ):
        with pytest.raises(UnknownTopicError, match=r"the topic was deleted"):
            use()


def test_every_handle_in_this_process_is_told(path: Path) -> None:
    with logstore.open(path) as store, logstore.open(path) as other:
        log = store.create_topic("orders").partition(0)
        log.append(records("a"))
        theirs = other.topic("orders").partition(0)
        idle = other.create_topic("idle", partitions=2)
        theirs.append(records("b"), acks=1)
        store.delete_topic("orders")
        store.delete_topic("idle")
        refused(log)
        refused(theirs)
        with pytest.raises(UnknownTopicError):
            idle.partition(1)
        # (Of now: retention would take an old one.)
        store.create_topic("orders").partition(0).append([Record(value=b"new")])
        refused(theirs)
        other.maintain()
        refused(theirs)
        assert values(other.topic("orders").partition(0)) == [b"new"]


def test_a_reader_that_waits_is_told(path: Path) -> None:
    with logstore.open(path) as store, logstore.open(path, read_only=True) as reader:
        store.create_topic("orders").partition(0).append(records("a"))
        log = reader.topic("orders").partition(0)
        told = threading.Event()

        def wait() -> None:
            with pytest.raises(UnknownTopicError):
                log.wait(1, timeout=60)
            told.set()

        thread = threading.Thread(target=wait)
        thread.start()
        store.delete_topic("orders")
        thread.join()
        assert told.is_set()
        with pytest.raises(UnknownTopicError):
            log.read(0)


def test_every_handle_in_another_process_is_told(path: Path) -> None:
    with logstore.open(path) as store:
        store.create_topic("orders").partition(0).append(records("a"))
        child = start("use_until_deleted", path, "orders", stdin=-3)
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        store.delete_topic("orders")
        store.create_topic("orders").partition(0).append(records("new"))
        (answer,) = finish([child])
        assert answer == b"UnknownTopicError UnknownTopicError\n"
        assert values(store.topic("orders").partition(0)) == [b"new"]


def test_what_is_being_compacted_is_taken_away_later(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("logstore.deletion._LOCK_SECONDS", 0.05)
    forgotten: list[uuid.UUID] = []
    with logstore.open(path) as store:
        topic = store.create_topic("orders", partitions=2)
        store._topics.on_deletion.append(forgotten.append)
        lock = DiskFiles().lock(str(path / "topics" / "orders-1" / CLEANER_LOCK))
        lock.acquire()
        store.delete_topic("orders")
        assert "topic 'orders' is deleted later" in caplog.text
        assert directories(path) == ["orders-1"]
        assert [t.name for t in store.topics()] == []
        with pytest.raises(LockTimeoutError):
            store.create_topic("orders")
        assert forgotten == []
        lock.close()
        store.maintain()
        assert directories(path) == []
        assert forgotten == [topic.id]
        store.create_topic("orders")


def test_a_store_opens_while_somebody_else_is_stopped_in_a_deletion(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("logstore.making._MAKING_SECONDS", 0.05)
    with logstore.open(path) as store:
        store.create_topic("orders")
        store.create_topic("kept").partition(0).append(records("a"))
        lock = DiskFiles().lock(str(path / "topics" / "lock"))
        lock.acquire()
        store.delete_topic("orders")
    with logstore.open(path) as store:
        assert "deleted topics are taken away later" in caplog.text
        assert values(store.topic("kept").partition(0)) == [b"a"]
    lock.close()
    with logstore.open(path):
        assert directories(path) == ["kept-0"]


def test_a_poisoned_log_of_a_deleted_topic_troubles_nobody(path: Path) -> None:
    files = SpyFiles()
    with logstore.open(path, files=files) as store, logstore.open(path) as other:
        log = store.create_topic("orders").partition(0)
        store.create_topic("kept")
        files.before = fail("sync", io_error(), path=".log")
        with pytest.raises(OSError, match="Input/output error"):
            log.append(records("a"))
        files.before = lambda operation, path: None
        other.delete_topic("orders")
        assert store.topic("kept").name == "kept"
        with pytest.raises(UnknownTopicError):
            log.append(records("b"))


@pytest.mark.parametrize("what", ["definition", "directory"])
def test_what_a_killed_process_left_of_a_topic_is_taken_away_by_the_next(
    path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    with logstore.open(path) as store:
        store.create_topic("orders", partitions=2).partition(0).append(records("old"))
        left = {
            "definition": "partition_files.take_away",
            "directory": "topics.remove_deleted",
        }[what]
        with monkeypatch.context() as patch:
            patch.setattr(f"logstore.{left}", lambda *_: None)
            patch.setattr(Metadata, "deleted", lambda self, key: None)
            store.delete_topic("orders")
    assert len(directories(path)) == 2
    with logstore.open(path, read_only=True) as reader:
        assert reader.topics() == []
    with logstore.open(path) as store:
        assert directories(path) == []
        assert store._metadata.deleting() == {}
        assert store.topics() == []


def test_a_topic_of_the_longest_name_is_deleted(path: Path) -> None:
    with logstore.open(path) as store:
        store.create_topic("x" * 249, partitions=2)
        store.delete_topic("x" * 249)
        assert directories(path) == []


def assert_consistent(path: Path) -> None:
    """Log, LMDB and directories say the same, and no topic holds anything of another."""
    with logstore.open(path, maintenance_interval=None) as store:
        assert store._metadata.deleting() == {}
        expected = [f"{t.name}-{n}" for t in store.topics() for n in range(t.partition_count)]
        for topic in store.topics():
            for number in range(topic.partition_count):
                assert set(values(topic.partition(number))) <= {topic.id.hex.encode()}
        assert directories(path) == sorted(expected)
        logged = dict[bytes | None, bytes | None]()
        log = store.topic("__metadata").partition(0)
        offset = 0
        while (fetch := log.read(offset)).data:
            logged |= {record.key: record.value for record in fetch.records()}
            offset = fetch.next_offset
        kept = {key.decode(): json.loads(v) for key, v in logged.items() if key and v is not None}
        assert kept == store._metadata.items()


def test_processes_create_alter_and_delete_at_once(path: Path) -> None:
    logstore.open(path).close()
    finish([start("change_topics", path, seed, 40, stdin=-3) for seed in range(4)])
    assert_consistent(path)


def test_processes_that_are_killed_meanwhile_leave_what_holds_together(path: Path) -> None:
    logstore.open(path).close()
    rng = random.Random(5)
    for round_ in range(4):
        children = [
            start("change_topics", path, 10 * round_ + n, 100_000, stdin=-3) for n in range(2)
        ]
        for child in children:
            assert child.stdout is not None
            assert child.stdout.readline() == b"ready\n"
        for child in children:
            time.sleep(rng.uniform(0.0, 0.4))
            child.kill()
        for child in children:
            child.communicate()
        assert_consistent(path)


def test_threads_create_and_delete_one_topic_at_once(path: Path) -> None:
    with logstore.open(path) as store:
        failures = []

        def work() -> None:
            for _ in range(10):
                try:
                    topic = store.create_topic("orders")
                    topic.partition(0).append([Record(value=topic.id.bytes)])
                except (TopicExistsError, UnknownTopicError):
                    pass
                except Exception as error:  # noqa: BLE001 - shown below
                    failures.append(error)
                try:
                    store.delete_topic("orders")
                except UnknownTopicError:
                    pass
                except Exception as error:  # noqa: BLE001
                    failures.append(error)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        store._topics.finish_deletions()
        assert directories(path) == [f"{t.name}-0" for t in store.topics()]
