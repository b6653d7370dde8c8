"""The definitions: in ``__metadata``, and in LMDB."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lmdb
import pytest

from logstore import (
    ClosedError,
    FormatError,
    InvalidInputError,
    PartitionLog,
    PoisonedError,
    ReadOnlyError,
)
from logstore.metadata import Metadata, View
from logstore.segments.files import DiskFiles

from .support import SpyFiles


def put(metadata: Metadata, key: str, fields: Mapping[str, Any] | None) -> None:
    """Set one definition."""
    metadata.update(lambda view: [(key, fields)])


def logged(store: Path) -> list[tuple[str, Any]]:
    """What stands in ``__metadata``."""
    with PartitionLog(store / "topics" / "__metadata-0", read_only=True) as log:
        return [
            ((record.key or b"").decode(), record.value and json.loads(record.value))
            for record in log.read(0).records()
        ]


def test_a_definition_is_read_as_it_was_stored(tmp_path: Path) -> None:
    metadata = Metadata(str(tmp_path))
    assert metadata.get("a/1") is None
    put(metadata, "a/1", {"name": "ä", "size": 1})
    assert metadata.get("a/1") == {"name": "ä", "size": 1}
    metadata.close()
    metadata.close()
    again = Metadata(str(tmp_path))
    assert again.items() == {"a/1": {"name": "ä", "size": 1}}
    put(again, "a/1", None)
    put(again, "a/2", {})
    put(again, "b/1", {"x": None})
    assert again.items("a/") == {"a/2": {}}
    again.close()
    assert logged(tmp_path) == [
        ("a/1", {"name": "ä", "size": 1}),
        ("a/1", None),
        ("a/2", {}),
        ("b/1", {"x": None}),
    ]


def test_a_change_is_decided_upon_what_is_there_and_stored_as_a_whole(tmp_path: Path) -> None:
    metadata = Metadata(str(tmp_path))
    put(metadata, "n", {"value": 1})

    def add(view: View) -> list[tuple[str, dict[str, Any] | None]]:
        before = view.get("n")
        assert before is not None
        assert view.items("n") == {"n": before}
        assert view.get("m") is None
        return [("n", {"value": before["value"] + 1}), ("m", {})]

    assert metadata.update(add) == [("n", {"value": 2}), ("m", {})]
    assert metadata.items() == {"n": {"value": 2}, "m": {}}
    metadata.close()


def test_a_change_that_raises_or_does_nothing_leaves_everything(tmp_path: Path) -> None:
    metadata = Metadata(str(tmp_path))
    put(metadata, "n", {"value": 1})

    def refuse(view: View) -> list[tuple[str, dict[str, Any] | None]]:
        raise LookupError

    with pytest.raises(LookupError):
        metadata.update(refuse)
    assert metadata.update(lambda view: []) == []
    for key in ("", "k" * 512):
        with pytest.raises(InvalidInputError, match="is no key"):
            metadata.update(lambda view, key=key: [("good", {}), (key, {})])  # type: ignore[misc]
    assert metadata.items() == {"n": {"value": 1}}
    metadata.close()
    assert logged(tmp_path) == [("n", {"value": 1})]


def test_what_was_appended_and_not_applied_is_made_up_for_by_the_next_to_open(
    tmp_path: Path,
) -> None:
    metadata = Metadata(str(tmp_path))
    put(metadata, "a", {"value": 1})
    put(metadata, "b", {"value": 1})
    behind = tmp_path / "behind"
    behind.mkdir()
    metadata.copy_to(str(behind))
    metadata.update(lambda view: [("a", {"value": 2}), ("b", None), ("c", {})])
    metadata.close()
    # As if a kill had come between the log and LMDB.
    (behind / "data.mdb").replace(tmp_path / "meta" / "data.mdb")
    reader = Metadata(str(tmp_path), read_only=True)
    assert reader.items() == {"a": {"value": 1}, "b": {"value": 1}}
    with Metadata(str(tmp_path)).transaction():
        assert reader.items() == {"a": {"value": 2}, "c": {}}
    reader.close()


def test_a_failed_sync_leaves_no_definition_and_refuses_every_further_change(
    tmp_path: Path,
) -> None:
    files = SpyFiles()
    metadata = Metadata(str(tmp_path), files=files)
    put(metadata, "a", {})

    def fail(operation: str, path: str) -> None:
        if operation == "sync" and path.endswith(".log"):
            raise OSError(5, "the disk is broken")

    files.before = fail
    with pytest.raises((OSError, PoisonedError)):
        put(metadata, "b", {})
    files.before = lambda operation, path: None
    assert metadata.items() == {"a": {}}
    with pytest.raises(PoisonedError):
        put(metadata, "c", {})
    assert metadata.items() == {"a": {}}
    metadata.close()
    # Opening saves anew what had been written, and then it counts.
    again = Metadata(str(tmp_path))
    assert again.items() == {"a": {}, "b": {}}
    again.close()


def test_several_handles_of_a_process_share_one_environment(tmp_path: Path) -> None:
    # LMDB forbids to open an environment twice in one process, by whatever path.
    (tmp_path / "store").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "store")
    one = Metadata(str(tmp_path / "store"))
    two = Metadata(str(tmp_path / "link"))
    put(one, "a", {})
    assert list(two.items()) == ["a"]
    one.close()
    put(two, "b", {})
    assert sorted(two.items()) == ["a", "b"]
    two.close()


def test_readers_and_writers_of_a_process_share_one_environment(tmp_path: Path) -> None:
    directory = str(tmp_path)
    Metadata(directory).close()
    reader = Metadata(directory, read_only=True)
    writer = Metadata(directory)
    put(writer, "a", {})
    assert list(reader.items()) == ["a"]
    another = Metadata(directory, read_only=True)
    assert list(another.items()) == ["a"]
    reader.close()
    put(writer, "b", {})
    writer.close()
    assert sorted(another.items()) == ["a", "b"]
    with pytest.raises(ReadOnlyError):
        put(another, "c", {})
    another.close()


def test_a_reader_of_a_store_without_definitions_sees_the_first_ones(tmp_path: Path) -> None:
    reader = Metadata(str(tmp_path), read_only=True)
    assert reader.items() == {}
    assert reader.get("a") is None
    with reader.transaction() as tables:
        assert tables.get("definitions", b"a") is None
        assert list(tables.items("definitions")) == []
    writer = Metadata(str(tmp_path))
    put(writer, "a", {})
    assert reader.items() == {"a": {}}
    writer.close()
    reader.close()


def test_a_closed_handle_refuses(tmp_path: Path) -> None:
    metadata = Metadata(str(tmp_path))
    metadata.close()
    for use in (lambda: put(metadata, "a", {}), metadata.items, lambda: metadata.version):
        with pytest.raises(ClosedError):
            use()


@pytest.mark.parametrize("value", [b"", b"{", b"[]", b"5", b"\xff"])
def test_a_broken_definition_is_named(tmp_path: Path, value: bytes) -> None:
    metadata = Metadata(str(tmp_path))
    put(metadata, "a", {})
    metadata.close()
    directory = str(tmp_path / "meta")
    with (
        lmdb.open(directory, max_dbs=4, map_size=1 << 24) as environment,
        environment.begin(write=True) as transaction,
    ):
        table = environment.open_db(b"definitions", transaction)
        transaction.put(b"a/1", value, db=table)
    metadata = Metadata(str(tmp_path))
    with pytest.raises(FormatError, match="the definition 'a/1' is broken") as caught:
        metadata.items("a/")
    assert caught.value.path == directory
    metadata.close()


def test_a_lost_environment_is_told_from_a_new_one(tmp_path: Path) -> None:
    metadata = Metadata(str(tmp_path))
    put(metadata, "a", {})
    metadata.close()
    for file in (tmp_path / "meta").iterdir():
        file.unlink()
    with pytest.raises(FormatError, match="the definitions are lost; 'logstore repair'"):
        Metadata(str(tmp_path))


def test_a_reader_is_told_of_a_lost_environment_and_sees_no_store_without_topics(
    tmp_path: Path,
) -> None:
    metadata = Metadata(str(tmp_path))
    put(metadata, "a", {"n": 1})
    metadata.close()
    shutil.rmtree(tmp_path / "meta")
    reader = Metadata(str(tmp_path), read_only=True)
    with pytest.raises(FormatError, match="the definitions are lost; 'logstore repair'"):
        reader.items()
    reader.close()


def test_a_log_that_lost_its_end_is_told(tmp_path: Path) -> None:
    metadata = Metadata(str(tmp_path))
    put(metadata, "a", {})
    put(metadata, "b", {})
    metadata.close()
    with PartitionLog(tmp_path / "topics" / "__metadata-0") as log:
        log.truncate(1)
    with pytest.raises(FormatError, match="the end of __metadata is lost; 'logstore repair'"):
        Metadata(str(tmp_path))


def test_other_tables_are_for_others_and_leave_what_was_looked_up(tmp_path: Path) -> None:
    metadata = Metadata(str(tmp_path))
    put(metadata, "a", {})
    before = metadata.items()
    with metadata.transaction(write=True) as tables:
        for key in (b"x1", b"x2", b"y"):
            tables.put("offsets", key, b"value of " + key)
    with metadata.transaction() as tables:
        assert tables.get("offsets", b"x1") == b"value of x1"
        assert [key for key, _ in tables.items("offsets", b"x")] == [b"x1", b"x2"]
        assert [key for key, _ in tables.items("offsets", b"z")] == []
        assert len(list(tables.items("offsets"))) == 3
    with pytest.raises(LookupError), metadata.transaction(write=True) as tables:  # noqa: PT012
        tables.put("offsets", b"z", b"")
        raise LookupError
    with metadata.transaction(write=True) as tables:
        assert tables.get("offsets", b"z") is None
        assert tables.delete("offsets", b"y")
        assert not tables.delete("offsets", b"y")
        assert not tables.delete("nothing", b"y")
    assert metadata.items() is before
    with metadata.transaction(write=True) as tables:
        tables.clear("offsets")
    with metadata.transaction() as tables:
        assert list(tables.items("offsets")) == []
    metadata.close()


def test_looking_costs_nothing_while_nothing_changes(tmp_path: Path) -> None:
    metadata = Metadata(str(tmp_path))
    put(metadata, "a", {})
    version = metadata.version
    assert metadata.items() is metadata.items()
    assert metadata.version == version
    put(metadata, "a", {})
    assert metadata.version > version
    metadata.close()


def test_a_thread_that_looks_never_misses_what_was_there_before(tmp_path: Path) -> None:
    metadata = Metadata(str(tmp_path))
    done = threading.Event()
    counts: list[list[int]] = [[], []]

    def look(found: list[int]) -> None:
        while not done.is_set():
            found.append(len(metadata.items()))

    threads = [threading.Thread(target=look, args=(found,)) for found in counts]
    for thread in threads:
        thread.start()
    for number in range(60):
        put(metadata, f"t{number}", {})
        assert len(metadata.items()) == number + 1
    done.set()
    for thread in threads:
        thread.join()
    for found in counts:
        assert found == sorted(found)
    metadata.close()


def test_a_compacted_log_is_caught_up_with_from_anywhere(tmp_path: Path) -> None:
    metadata = Metadata(str(tmp_path))
    put(metadata, "gone", {})
    put(metadata, "gone", None)
    for number in range(40):
        put(metadata, f"k{number % 3}", {"number": number, "padding": "x" * 40_000})
    expected = dict(metadata.items())
    metadata.log.compact(force=True)
    metadata.log.purge_deleted(at_once=True)
    with metadata.transaction(write=True) as tables:
        tables.clear("definitions")
        tables.put("applied", b"offset", b"0")
    metadata.close()
    assert len(list((tmp_path / "topics" / "__metadata-0").glob("*.log"))) > 1
    again = Metadata(str(tmp_path))
    assert again.items() == expected
    again.close()
    assert DiskFiles().exists(str(tmp_path / "topics" / "__metadata-0" / "partition.metadata"))
