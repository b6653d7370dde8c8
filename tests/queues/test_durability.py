"""Definitions and messages of queues over crashes, repairs, backups and checks."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lmdb
import pytest

import logstore
from logstore import PartitionLog, Store
from logstore.metadata import Metadata
from logstore.queues.catalogue import Catalogue
from logstore.queues.topology import PREDECLARED
from logstore.repair import repair
from logstore.segments.check import Finding, check
from logstore.segments.files import DiskFiles

from .broker_support import bodies, queue_directories


def content(store: Store) -> dict[str, Any]:
    """All that a store says of exchanges, queues and bindings, and the messages."""
    exchanges = [e for e in store.queues.exchanges() if e.name not in PREDECLARED]
    return {
        "exchanges": exchanges,
        "queues": [(queue, bodies(store, queue.name)) for queue in store.queues.queues()],
        "bindings": store.queues.bindings(),
    }


def content_of(path: Path, **options: Any) -> dict[str, Any]:
    """The same, of a store that is opened for it."""
    with logstore.open(path, maintenance_interval=None, **options) as store:
        return content(store)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A store with a bit of everything; some of it deleted, and declared anew."""
    path = tmp_path / "store"
    with logstore.open(path, maintenance_interval=None) as store:
        shop = store.exchange("shop", type="topic", alternate_exchange="spare")
        by_headers = store.exchange("by headers", type="headers", internal=True)
        by_headers.bind(shop, "h.#")
        store.queue("gone").bind(shop, "gone")
        shop.publish(b"gone", "gone")
        store.queue("gone").delete()
        store.queue("again").bind(shop, "#")
        shop.publish(b"old", "k")
        store.queue("again").delete()
        queue = store.queue("again", max_priority=3, dead_letter_exchange="")
        queue.bind(shop, "again.#")
        queue.bind(by_headers, "", {"x-match": "any", "n": 1, "b": b"\0\xff", "none": None})
        shop.publish(b"new", "again.k")
        shop.publish(b"by header", "h.k", headers={"b": b"\0\xff"})
        store.create_topic("topic")
    return path


# Repair -------------------------------------------------------------------------------------


def remove(path: Path) -> None:
    """Lose all of ``meta``."""
    shutil.rmtree(path / "meta")


def overwrite(path: Path) -> None:
    """Nothing of LMDB's."""
    (path / "meta" / "data.mdb").write_bytes(b"\xa5" * 40_000)


def break_definition(path: Path, prefix: bytes, value: bytes) -> None:
    """A definition that is none."""
    with (
        lmdb.open(str(path / "meta"), max_dbs=8, map_size=1 << 24) as environment,
        environment.begin(write=True) as transaction,
    ):
        table = environment.open_db(b"definitions", transaction)
        with transaction.cursor(table) as cursor:
            assert cursor.set_range(prefix)
            cursor.put(cursor.key(), value)


@pytest.mark.parametrize(
    "lose",
    [
        remove,
        overwrite,
        functools.partial(break_definition, prefix=b"exchange/", value=b'{"name": "shop"}'),
        functools.partial(break_definition, prefix=b"queue/", value=b'{"name": 5}'),
        functools.partial(break_definition, prefix=b"binding/", value=b'{"source": "shop"}'),
    ],
)
def test_lost_or_damaged_definitions_of_queues_are_made_from_their_log(
    path: Path, lose: Callable[[Path], None]
) -> None:
    expected = content_of(path)
    assert [len(expected[kind]) for kind in ("exchanges", "queues", "bindings")] == [2, 1, 3]
    lose(path)
    done = list(repair(path))
    assert done[-1].kind == "build"
    assert list(repair(path)) == []
    assert content_of(path) == expected
    with logstore.open(path, maintenance_interval=None) as store:
        assert len(queue_directories(store)) == 1  # those of deleted queues stay away
        assert store._metadata.deleting("queue/") == {}


def test_a_lost_log_of_definitions_is_made_from_meta(path: Path) -> None:
    expected = content_of(path)
    shutil.rmtree(path / "topics" / "__metadata-0")
    assert [step.kind for step in repair(path)] == ["build"]
    assert content_of(path) == expected
    remove(path)
    list(repair(path))
    assert content_of(path) == expected


def test_messages_stay_where_all_definitions_are_lost(path: Path) -> None:
    """Nobody knows any more what they belong to; and nobody takes that for a deletion."""
    before = sorted(entry.name for entry in (path / "queues").iterdir())
    remove(path)
    shutil.rmtree(path / "topics" / "__metadata-0")
    list(repair(path))
    assert content_of(path)["queues"] == []
    with logstore.open(path, maintenance_interval=None) as store:
        store.maintain()
        assert queue_directories(store) == before


# Checks, maintenance and backups ----------------------------------------------------------------


def findings(path: Path) -> list[Finding]:
    """What is wrong with a store's files."""
    found = check(DiskFiles(), str(path))
    assert found is not None
    return list(found)


def test_the_logs_of_queues_are_checked_repaired_and_maintained(path: Path) -> None:
    with logstore.open(path, maintenance_interval=None) as store:
        reports = store.maintain()
        assert reports is not None
        (name,) = queue_directories(store)
        assert name in [Path(report.directory).name for report in reports]
    (log,) = (path / "queues" / name).glob("*.log")
    (index,) = (path / "queues" / name).glob("*.index")
    assert findings(path) == []
    index.unlink()
    assert any(str(path / "queues" / name) in step.path for step in repair(path))
    assert index.exists()
    data = bytearray(log.read_bytes())
    data[70] ^= 1
    log.write_bytes(data)
    assert {finding.path for finding in findings(path)} == {str(log)}


def test_a_backup_carries_queues_and_what_is_in_them(path: Path, tmp_path: Path) -> None:
    expected = content_of(path)
    with logstore.open(path, maintenance_interval=None) as store:
        # Closed segments are shared between store and backup; what is written is not.
        store.backup(tmp_path / "backups")
        store.exchange("shop").publish(b"later", "again.k")
        store.queue("later")
        result = store.backup(tmp_path / "backups", keep=2)
        assert result.partitions == 3
    copies = sorted(entry for entry in (tmp_path / "backups").iterdir() if entry.is_dir())
    restored = [tmp_path / "restored-0", tmp_path / "restored-1"]
    for copy, target in zip(copies, restored, strict=True):
        logstore.restore(copy, target)
    assert content_of(restored[0]) == expected
    assert content_of(restored[1]) == content_of(path)
    with logstore.open(restored[0], maintenance_interval=None) as store:
        assert store.exchange("shop").publish(b"x", "again.k").queues == ("again",)


def test_a_queue_that_is_deleted_while_a_backup_is_taken_is_left_out(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with logstore.open(path, maintenance_interval=None) as store:
        partitions = store.queues.partitions

        def deleting() -> Any:
            for partition in partitions():
                store.queue("again").delete()
                yield partition

        monkeypatch.setattr(store.queues, "partitions", deleting)
        store.backup(tmp_path / "backups")
    logstore.restore(tmp_path / "backups", tmp_path / "restored")
    found = content_of(tmp_path / "restored")
    assert found["queues"] == []
    with logstore.open(tmp_path / "restored", maintenance_interval=None) as store:
        assert queue_directories(store) == []


# Crashes ------------------------------------------------------------------------------------


class BrokenError(Exception):
    """The process ended here."""


class BreakingFiles(DiskFiles):
    """The disk, until so many changes were made to it."""

    def __init__(self, left: int) -> None:
        self.left = left

    def _count(self) -> None:
        if self.left <= 0:
            raise BrokenError
        self.left -= 1

    def make_directory(self, path: str) -> None:
        self._count()
        super().make_directory(path)

    def rename(self, old: str, new: str) -> None:
        self._count()
        super().rename(old, new)

    def remove(self, path: str) -> None:
        self._count()
        super().remove(path)

    def remove_directory(self, path: str) -> None:
        self._count()
        super().remove_directory(path)

    def sync_directory(self, path: str) -> None:
        self._count()


@pytest.fixture
def no_syncs(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a power cut loses is not what is tried here, and there are many points."""
    monkeypatch.setattr(os, "fsync", lambda _: None)
    monkeypatch.setattr("logstore.segments.files._sync", lambda _: None)
    monkeypatch.setattr(lmdb, "open", functools.partial(lmdb.open, sync=False))


@pytest.mark.usefixtures("no_syncs")
def test_a_deletion_broken_off_anywhere_is_finished_by_the_next_one_to_open_the_store(
    path: Path, tmp_path: Path
) -> None:
    states = set()
    for last in range(10_000):
        copy = tmp_path / f"copy-{last}"
        shutil.copytree(path, copy)
        files = BreakingFiles(1 << 30)
        store = logstore.open(copy, files=files, maintenance_interval=None)
        store.exchange("shop").publish(b"high", "again.k", priority=2)
        forgotten: list[object] = []
        store.queues._opened.on_deletion.append(forgotten.append)
        try:
            files.left = last
            store.queue("again").delete()
            finished = True
        except BrokenError:
            finished = False
        finally:
            files.left = 1 << 30
            store.close()
        with contextlib.suppress(BrokenError):  # the same once more, broken off in the same place
            logstore.open(copy, files=BreakingFiles(last), maintenance_interval=None).close()
        with logstore.open(copy, maintenance_interval=None) as store:
            there = bool(store.queues.queues())
            assert len(queue_directories(store)) == (2 if there else 0)
            assert len(store.queues.bindings()) == (3 if there else 1)
            assert store._metadata.deleting("queue/") == {}
            assert store.queue("again", passive=there).name == "again"
        states.add((there, finished))
        shutil.rmtree(copy)
        if finished:
            assert len(forgotten) == 1
            break
    assert states == {(True, False), (False, False), (False, True)}


ACTIONS: list[Callable[[Store], object]] = [
    lambda store: store.exchange("e", type="topic"),
    lambda store: store.queue("q", max_length=5),
    lambda store: store.queue("q").bind("e", "a.#"),
    lambda store: store.queue("q").unbind("e", "a.#"),
    lambda store: store.queue("q").delete(),
    lambda store: store.exchange("e").delete(),
]


@pytest.mark.usefixtures("no_syncs")
@pytest.mark.parametrize("where", ["before the log", "behind the log", "behind LMDB"])
def test_a_declaration_is_there_once_its_log_has_it_and_not_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    append, update = PartitionLog.append, Metadata.update

    def broken_append(log: PartitionLog, records: Any, **options: Any) -> Any:
        if where == "behind the log":
            append(log, records, **options)
        raise BrokenError

    def broken_update(metadata: Metadata, change: Any) -> Any:
        update(metadata, change)
        raise BrokenError

    def stages(store: Store) -> list[int]:
        found = content(store)
        return [len(found[kind]) for kind in ("exchanges", "queues", "bindings")]

    expected = [[0, 0, 0], [1, 0, 0], [1, 1, 0], [1, 1, 1], [1, 1, 0], [1, 0, 0], [0, 0, 0]]
    for number in range(len(ACTIONS)):
        path = tmp_path / f"store-{number}"
        with logstore.open(path, maintenance_interval=None) as store:
            for action in ACTIONS[:number]:
                action(store)
            assert stages(store) == expected[number]
            with monkeypatch.context() as patch:
                if where == "behind LMDB":
                    patch.setattr(Metadata, "update", broken_update)
                else:
                    patch.setattr(PartitionLog, "append", broken_append)
                with pytest.raises(BrokenError):
                    ACTIONS[number](store)
        with logstore.open(path, maintenance_interval=None) as store:
            assert stages(store) == expected[number + (where != "before the log")]
            assert len(queue_directories(store)) == 0


def test_a_read_only_handle_changes_nothing_and_finishes_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with logstore.open(path, maintenance_interval=None) as store:
        monkeypatch.setattr(store.queues._opened, "finish_deletions", lambda: None)
        store.queue("again").delete()
    monkeypatch.undo()
    monkeypatch.setattr(Catalogue, "sweep", None)
    with logstore.open(path, read_only=True) as reader:
        assert reader.queues.queues() == []
        assert len(queue_directories(reader)) == 1
    monkeypatch.undo()
    with logstore.open(path, maintenance_interval=None) as store:
        assert queue_directories(store) == []
