"""Repairing the definitions: ``meta``, ``__metadata``, and both at once."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lmdb
import pytest

import logstore
from logstore import FormatError, PartitionLog, Record, Store
from logstore.check_store import check_store
from logstore.repair import Repair, repair

from .support import finish, start, values


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A store with topics: some altered, one deleted and made anew."""
    path = tmp_path / "store"
    with logstore.open(path, maintenance_interval=None) as store:
        store.create_topic("gone").partition(0).append([Record(value=b"gone")])
        store.delete_topic("gone")
        store.create_topic("again").partition(0).append([Record(value=b"old")])
        store.delete_topic("again")
        store.create_topic("again").partition(0).append([Record(value=b"again")])
        store.create_topic("orders", partitions=3, retention_ms=5)
        store.alter_topic("orders", {"segment_bytes": 5000}, ["retention_ms"])
        store.topic("orders").partition(2).append([Record(value=b"orders")])
        store.alter_defaults({"retention_ms": 1 << 40})
        with store._metadata.transaction(write=True) as tables:
            tables.put("offsets", b"k", b"v")
    return path


def content(store: Store) -> dict[str, Any]:
    """All that a store says of its topics."""
    found: dict[str, Any] = {
        topic.name: (topic.id, topic.overrides, [values(topic.partition(n)) for n in numbers])
        for topic in store.topics()
        for numbers in [range(topic.partition_count)]
    }
    return {**found, "": store.defaults}


def content_of(path: Path) -> dict[str, Any]:
    """The same, of a store that is opened for it."""
    with logstore.open(path, maintenance_interval=None) as store:
        return content(store)


def steps(path: Path, *, dry_run: bool = False) -> list[Repair]:
    """Repair a store, and see that nothing is left to do."""
    done = list(repair(path, dry_run=dry_run))
    if not dry_run:
        assert list(repair(path)) == []
    return done


def remove(path: Path) -> None:
    """Lose all of ``meta``."""
    shutil.rmtree(path / "meta")


def remove_files(path: Path) -> None:
    """Lose what is in ``meta``."""
    for file in (path / "meta").iterdir():
        file.unlink()


def overwrite(path: Path) -> None:
    """Nothing of LMDB's."""
    (path / "meta" / "data.mdb").write_bytes(b"\xa5" * 40_000)


def cut(path: Path) -> None:
    """Lose most of LMDB's pages: to read them would end the process."""
    data = path / "meta" / "data.mdb"
    data.write_bytes(data.read_bytes()[: 3 * 4096])


def empty(path: Path) -> None:
    """Lose all of LMDB's pages."""
    (path / "meta" / "data.mdb").write_bytes(b"")


def break_definition(path: Path) -> None:
    """A definition that is none."""
    with (
        lmdb.open(str(path / "meta"), max_dbs=4, map_size=1 << 24) as environment,
        environment.begin(write=True) as transaction,
    ):
        table = environment.open_db(b"definitions", transaction)
        with transaction.cursor(table) as cursor:
            assert cursor.set_range(b"topic/")
            cursor.put(cursor.key(), b'{"name": 5}')


@pytest.mark.parametrize("lose", [remove, remove_files, overwrite, cut, empty, break_definition])
def test_lost_or_damaged_definitions_are_made_from_their_log(
    path: Path, lose: Callable[[Path], None]
) -> None:
    expected = content_of(path)
    before = (path / "meta" / "data.mdb").read_bytes()
    lose(path)
    if lose is not cut:  # which may end the process
        with pytest.raises(FormatError):
            content_of(path)
    planned = steps(path, dry_run=True)
    done = steps(path)
    assert [(s.kind, s.path) for s in planned] == [(s.kind, s.path) for s in done]
    assert done[-1].kind == "build"
    assert "the checkpoints of committed offsets" in done[-1].reason
    if lose not in (remove, remove_files):
        assert done[0].kind == "aside"
        assert done[0].saved is not None
        assert (path / "meta" / "data.mdb.removed-0").exists()
        assert Path(done[0].saved).read_bytes() != before or lose is None
    assert content_of(path) == expected
    with logstore.open(path) as store:
        with store._metadata.transaction() as tables:
            assert tables.get("offsets", b"k") is None
        store.create_topic("more")


def test_a_good_store_needs_no_repair(path: Path, tmp_path: Path) -> None:
    assert steps(path) == []
    logstore.open(tmp_path / "new").close()
    assert steps(tmp_path / "new") == []


def test_a_dry_run_changes_nothing(path: Path) -> None:
    overwrite(path)
    before = {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}
    assert steps(path, dry_run=True)
    after = {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}
    # (LMDB's readers note themselves in its lock file.)
    for files in (before, after):
        files.pop(path / "meta" / "lock.mdb")
    assert after == before


@pytest.mark.parametrize("left", [0, 1, 5])
def test_a_log_that_lost_its_end_is_made_from_what_is_known(path: Path, left: int) -> None:
    expected = content_of(path)
    directory = path / "topics" / "__metadata-0"
    if left:
        with PartitionLog(directory) as log:
            log.truncate(left)
    else:
        shutil.rmtree(directory)
    with pytest.raises(FormatError, match="the end of __metadata is lost"):
        content_of(path)
    (step,) = steps(path)
    assert (step.kind, step.path) == ("build", str(directory))
    assert content_of(path) == expected
    # The log alone says the same from now on; what was removed is removed in it, too.
    remove(path)
    steps(path)
    assert content_of(path) == expected


def test_topics_are_made_from_their_directories_when_all_else_is_lost(path: Path) -> None:
    expected = content_of(path)
    remove(path)
    shutil.rmtree(path / "topics" / "__metadata-0")
    (path / "topics" / "again-0" / "partition.metadata").unlink()
    (path / "topics" / "notes").mkdir()
    (path / "topics" / "a b-0").mkdir()
    done = steps(path)
    assert [step.kind for step in done] == ["build"] * 3
    assert "is lost" in done[0].reason
    assert [Path(step.path).name for step in done[1:]] == ["again", "orders"]
    assert "with the default configuration" in done[2].reason
    found = content_of(path)
    assert found[""] == {}
    topic_id, overrides, partitions = found["orders"]
    assert (topic_id, partitions) == (expected["orders"][0], expected["orders"][2])
    assert overrides == {}
    assert found["again"][2] == [[b"again"]]


def test_definitions_that_are_in_use_are_left_alone(path: Path) -> None:
    child = start("hold", path, stdin=-1)
    assert child.stdout is not None
    assert child.stdout.readline() == b"ready\n"
    (path / "meta" / "data.mdb").rename(path / "meta" / "elsewhere")
    (step,) = repair(path)
    assert step.kind == "failed"
    assert "it is in use" in step.reason
    with logstore.open(path / "other"):
        pass
    finish([child])
    (path / "meta" / "elsewhere").rename(path / "meta" / "data.mdb")
    assert steps(path) == []
    with logstore.open(path, maintenance_interval=None) as store:
        expected = content(store)
        (path / "meta" / "data.mdb").rename(path / "meta" / "elsewhere")
        (step,) = repair(path)
        assert step.kind == "failed"
        (path / "meta" / "elsewhere").rename(path / "meta" / "data.mdb")
        assert content(store) == expected


@pytest.mark.parametrize("content", [b"\xa5" * 40_000, b"", b"\xa5" * 5])
def test_a_live_environment_that_cannot_be_read_is_made_of_the_checkpoints(
    tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "store"
    with logstore.open(path, maintenance_interval=None) as store:
        queue = store.queue("q")
        store.exchange("").publish_batch([b"0", b"1", b"2"], "q")
        first, second, _ = queue.get_many(3)
        first.ack(durable=True)
        second.ack(flush=True)
    (data,) = path.glob("live/*/data.mdb")
    data.write_bytes(content)
    (finding,) = list(check_store(str(path)) or ())
    assert (finding.severity, finding.path) == ("damage", str(data))
    (planned,) = steps(path, dry_run=True)
    (done,) = steps(path)
    assert planned == done
    assert (done.kind, done.path) == ("build", str(data))
    assert "is delivered again" in done.reason
    assert list(check_store(str(path)) or ()) == []
    with logstore.open(path, maintenance_interval=None) as store:
        assert [message.body for message in store.queue("q").get_many(9)] == [b"2"]
