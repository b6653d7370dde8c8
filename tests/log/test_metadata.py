"""The definitions in LMDB."""

from __future__ import annotations

import threading
import uuid
from pathlib import Path

import lmdb
import pytest

from logstore import FormatError, TopicExistsError
from logstore.metadata import Metadata, TopicDefinition


def definition(name: str, **overrides: object) -> TopicDefinition:
    return TopicDefinition(uuid.uuid4(), name, 1, overrides)


def test_a_definition_is_read_as_it_was_added(tmp_path: Path) -> None:
    added = definition("orders", segment_bytes=1000)
    metadata = Metadata(str(tmp_path / "meta"))
    metadata.add_topic(added)
    assert metadata.topics() == {"orders": added}
    metadata.close()
    metadata.close()
    again = Metadata(str(tmp_path / "meta"))
    assert again.topics() == {"orders": added}
    again.close()


def test_several_handles_of_a_process_share_one_environment(tmp_path: Path) -> None:
    # LMDB forbids to open an environment twice in one process, by whatever path.
    (tmp_path / "link").symlink_to(tmp_path / "meta")
    one = Metadata(str(tmp_path / "meta"))
    two = Metadata(str(tmp_path / "link"))
    one.add_topic(definition("a"))
    assert list(two.topics()) == ["a"]
    one.close()
    two.add_topic(definition("b"))
    assert sorted(two.topics()) == ["a", "b"]
    two.close()


def test_readers_and_writers_of_a_process_share_one_environment(tmp_path: Path) -> None:
    directory = str(tmp_path / "meta")
    Metadata(directory).close()
    reader = Metadata(directory, read_only=True)
    writer = Metadata(directory)
    writer.add_topic(definition("a"))
    assert list(reader.topics()) == ["a"]
    another = Metadata(directory, read_only=True)
    assert list(another.topics()) == ["a"]
    reader.close()
    writer.add_topic(definition("b"))
    writer.close()
    assert sorted(another.topics()) == ["a", "b"]
    another.close()


def test_a_name_is_given_once(tmp_path: Path) -> None:
    metadata = Metadata(str(tmp_path / "meta"))
    metadata.add_topic(definition("a"))
    with pytest.raises(TopicExistsError):
        metadata.add_topic(definition("a"))
    assert len(metadata.topics()) == 1
    metadata.close()


@pytest.mark.parametrize("value", [b"", b"{", b"[]", b"5", b'{"name": "a"}', b"\xff"])
def test_a_broken_definition_is_named(tmp_path: Path, value: bytes) -> None:
    directory = tmp_path / "meta"
    metadata = Metadata(str(directory))
    metadata.add_topic(definition("a"))
    metadata.close()
    key = uuid.uuid4().bytes
    with (
        lmdb.open(str(directory), max_dbs=4, map_size=1 << 24) as environment,
        environment.begin(write=True) as transaction,
    ):
        table = environment.open_db(b"topics", transaction)
        transaction.put(key, value, db=table)
    metadata = Metadata(str(directory))
    with pytest.raises(FormatError, match=f"definition of topic {key.hex()} is broken") as caught:
        metadata.topics()
    assert caught.value.path == str(directory)
    metadata.close()


def test_a_key_that_is_no_id_is_named(tmp_path: Path) -> None:
    directory = tmp_path / "meta"
    Metadata(str(directory)).close()
    with (
        lmdb.open(str(directory), max_dbs=4, map_size=1 << 24) as environment,
        environment.begin(write=True) as transaction,
    ):
        table = environment.open_db(b"topics", transaction, create=True)
        transaction.put(b"short", b'{"name": "a", "partitions": 1, "config": {}}', db=table)
    metadata = Metadata(str(directory))
    with pytest.raises(FormatError, match=f"definition of topic {b'short'.hex()} is broken"):
        metadata.topics()
    metadata.close()


def test_looking_costs_nothing_while_nothing_changes(tmp_path: Path) -> None:
    metadata = Metadata(str(tmp_path / "meta"))
    metadata.add_topic(definition("a"))
    assert metadata.topics() is metadata.topics()
    metadata.close()


def test_a_thread_that_looks_never_misses_what_was_there_before(tmp_path: Path) -> None:
    metadata = Metadata(str(tmp_path / "meta"))
    done = threading.Event()
    counts: list[list[int]] = [[], []]

    def look(found: list[int]) -> None:
        while not done.is_set():
            found.append(len(metadata.topics()))

    threads = [threading.Thread(target=look, args=(found,)) for found in counts]
    for thread in threads:
        thread.start()
    for number in range(60):
        metadata.add_topic(definition(f"t{number}"))
        assert len(metadata.topics()) == number + 1
    done.set()
    for thread in threads:
        thread.join()
    for found in counts:
        assert found == sorted(found)
    metadata.close()
