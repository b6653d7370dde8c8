"""Changes of definitions, broken off at every step, and around both of their commits.

LMDB does not pass through the seam ``Files``: its own commit is taken as one step.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lmdb
import pytest

import logstore
from logstore import PartitionLog, Record, Store
from logstore.metadata import Metadata
from logstore.segments.check import check
from logstore.segments.files import DiskFiles

from .test_topic_creation import BreakingFiles, Broken

Model = dict[str, tuple[int, dict[str, Any]]]
"""By name: the number of partitions, and the configuration."""


def write(store: Store, name: str) -> None:
    """Put the topic's id into each of its partitions."""
    topic = store.topic(name)
    for number in range(topic.partition_count):
        topic.partition(number).append([Record(value=topic.id.bytes)])


OWN = {"retention_ms": 5}
ALTERED = {"segment_ms": 7}
DEFAULTS: Model = {"": (0, {"retention_ms": 9})}
ACTIONS: list[tuple[Callable[[Store], object], Model]] = [
    (lambda store: store.create_topic("a", partitions=2, config=OWN), {"a": (2, OWN)}),
    (lambda store: write(store, "a"), {"a": (2, OWN)}),
    (lambda store: store.alter_topic("a", ALTERED, OWN), {"a": (2, ALTERED)}),
    (lambda store: store.add_partitions("a", 3), {"a": (3, ALTERED)}),
    (lambda store: store.alter_defaults({"retention_ms": 9}), {"a": (3, ALTERED), **DEFAULTS}),
    (lambda store: store.delete_topic("a"), DEFAULTS),
    (lambda store: store.create_topic("a"), {"a": (1, {}), **DEFAULTS}),
    (lambda store: write(store, "a"), {"a": (1, {}), **DEFAULTS}),
    (lambda store: store.delete_topic("a"), DEFAULTS),
]


@pytest.fixture(autouse=True)
def no_syncs(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a power cut loses is not what is tried here, and there are many points."""
    monkeypatch.setattr(os, "fsync", lambda _: None)
    monkeypatch.setattr("logstore.segments.files._sync", lambda _: None)
    monkeypatch.setattr(lmdb, "open", functools.partial(lmdb.open, sync=False))


def model_of(store: Store) -> Model:
    """What a store says that it holds."""
    model = {t.name: (t.partition_count, dict(t.overrides)) for t in store.topics()}
    if store.defaults:
        model[""] = (0, store.defaults)
    return model


def run(path: Path, files: DiskFiles, done: list[int]) -> None:
    """Do it all, and note how much was."""
    store = logstore.open(path, files=files, maintenance_interval=None)
    try:
        for number, (action, model) in enumerate(ACTIONS, start=1):
            action(store)
            done.append(number)
            assert model_of(store) == model
    finally:
        store.close()


def logged(store: Store) -> dict[str, bytes]:
    """What the log alone says of all definitions."""
    found: dict[str, bytes] = {}
    for record in store.topic("__metadata").partition(0).read(0).records():
        key = (record.key or b"").decode()
        if record.value is None:
            found.pop(key, None)
        else:
            found[key] = record.value
    return found


def is_good(path: Path, done: int) -> bool:
    """Look at the store after a crash, and go on with what is left to do; returns whether the
    action that was under way counts."""
    models: list[Model] = [{}, *(model for _, model in ACTIONS)]
    with logstore.open(path, maintenance_interval=None) as store:
        found = model_of(store)
        assert found in (models[done], models[min(done + 1, len(ACTIONS))])
        counts = found != models[done]
        assert logged(store).keys() == store._metadata.items().keys()
        for topic in store.topics():
            for number in range(topic.partition_count):
                log = topic.partition(number)
                # Nothing of an older topic is in a younger one.
                assert {r.value for r in log.read(0).records()} <= {topic.id.bytes}
        names = {entry.name for entry in (path / "topics").iterdir() if entry.is_dir()}
        expected = {f"{t.name}-{n}" for t in store.topics() for n in range(t.partition_count)}
        assert names - {"__metadata-0"} == expected
        for action, model in ACTIONS[done + counts :]:
            action(store)
            assert model_of(store) == model
    findings = check(DiskFiles(), os.fspath(path))
    assert findings is not None
    assert [f for f in findings if f.severity == "damage"] == []
    return counts


def test_definitions_whose_change_was_broken_off_are_as_before_or_as_after(
    tmp_path: Path,
) -> None:
    points = 0
    for last in range(10_000):
        path = tmp_path / f"store-{last}"
        done: list[int] = []
        try:
            run(path, BreakingFiles(last), done)
        except Broken:
            is_good(path, len(done))
            points += 1
            continue
        break
    else:
        raise AssertionError("there is no end to it")
    assert points > 100
    print(f"{points} points")


@pytest.mark.parametrize("where", ["before the log", "before LMDB", "behind LMDB"])
def test_the_commit_of_the_log_is_what_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    append, update = PartitionLog.append, Metadata.update

    def broken_append(log: PartitionLog, *args: Any, **options: Any) -> Any:
        if "__metadata" not in log.directory:
            return append(log, *args, **options)
        if where == "before LMDB":
            append(log, *args, **options)
        raise Broken

    def broken_update(metadata: Metadata, change: Any) -> Any:
        update(metadata, change)
        raise Broken

    for number in range(len(ACTIONS)):
        if number and ACTIONS[number][1] == ACTIONS[number - 1][1]:
            continue  # it changes no definition
        path = tmp_path / f"store-{number}"
        with logstore.open(path, maintenance_interval=None) as store:
            for action, _ in ACTIONS[:number]:
                action(store)
            with monkeypatch.context() as patch:
                if where == "behind LMDB":
                    patch.setattr(Metadata, "update", broken_update)
                else:
                    patch.setattr(PartitionLog, "append", broken_append)
                with pytest.raises(Broken):
                    ACTIONS[number][0](store)
        assert is_good(path, number) == (where != "before the log")


def test_a_deletion_broken_off_in_the_middle_of_its_finishing_is_finished(tmp_path: Path) -> None:
    for last in range(10_000):
        path = tmp_path / f"store-{last}"
        with logstore.open(path, maintenance_interval=None) as store:
            store.create_topic("a", partitions=3)
            write(store, "a")
        with contextlib.suppress(Broken):
            files = BreakingFiles(1 << 30)
            store = logstore.open(path, files=files, maintenance_interval=None)
            try:
                files.left = last
                store.delete_topic("a")
                break
            finally:
                files.left = 1 << 30
                store.close()
        # The same once more, broken off in the same place.
        with contextlib.suppress(Broken):
            logstore.open(path, files=BreakingFiles(last), maintenance_interval=None).close()
        with logstore.open(path, maintenance_interval=None) as store:
            names = {entry.name for entry in (path / "topics").iterdir() if entry.is_dir()}
            expected = {f"a-{number}" for number in range(3)} if store.topics() else set()
            assert names - {"__metadata-0"} == expected
            assert store._metadata.deleting() == {}
    else:
        raise AssertionError("there is no end to it")
