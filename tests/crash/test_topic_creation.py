"""The making of a store and of a topic, broken off at every step, on a real directory.

LMDB does not pass through the seam ``Files``: its own commit is taken as one step.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

import logstore
from logstore import Record, StoreNotFoundError, UnknownTopicError
from logstore.metadata import Change, Metadata, View
from logstore.segments.check import check
from logstore.segments.files import DiskFiles, File, FileLock


class Broken(BaseException):
    """The process ends here."""


class BreakingFiles(DiskFiles):
    """The disk, up to the operation at which the process ends."""

    def __init__(self, last: int) -> None:
        self.left = last

    def step(self) -> None:
        """One operation more."""
        if self.left <= 0:
            raise Broken
        self.left -= 1

    def open(self, path: str, *, write: bool = False, create: bool = False) -> File:
        self.step()
        return super().open(path, write=write, create=create)

    def make_directory(self, path: str) -> None:
        self.step()
        super().make_directory(path)

    def rename(self, old: str, new: str) -> None:
        self.step()
        super().rename(old, new)

    def remove(self, path: str) -> None:
        self.step()
        super().remove(path)

    def remove_directory(self, path: str) -> None:
        self.step()
        super().remove_directory(path)

    def sync_directory(self, path: str) -> None:
        self.step()
        super().sync_directory(path)

    def lock(self, path: str) -> FileLock:
        self.step()
        return super().lock(path)


def make(path: Path, files: BreakingFiles) -> None:
    """Make a store with a topic."""
    store = logstore.open(path, files=files)
    try:
        store.create_topic("orders", partitions=2, retention_ms=5)
    finally:
        store.close()


def is_good(path: Path) -> bool:
    """Whether the topic is there; a store and a topic are there wholly, or not at all, and what is
    not there can be made."""
    with contextlib.suppress(StoreNotFoundError):
        logstore.open(path, create=False).close()
    with logstore.open(path) as store:
        try:
            topic = store.topic("orders")
            was_there = True
        except UnknownTopicError:
            topic = store.create_topic("orders", partitions=2, retention_ms=5)
            was_there = False
        assert topic.partition_count == 2
        assert topic.config.retention_ms == 5
        for number in range(2):
            topic.partition(number).append([Record(value=b"v")])
            assert topic.partition(number).log_end_offset == 1
    findings = check(DiskFiles(), os.fspath(path))
    assert findings is not None
    assert [f for f in findings if f.severity == "damage"] == []
    return was_there


def test_a_topic_whose_making_was_broken_off_is_there_or_can_be_made(tmp_path: Path) -> None:
    seen = []
    for last in range(1000):
        path = tmp_path / f"store-{last}"
        try:
            make(path, BreakingFiles(last))
        except Broken:
            seen.append(is_good(path))
            continue
        assert is_good(path)
        break
    else:
        raise AssertionError("there is no end to it")
    assert seen == sorted(seen), "from its commit point on the topic is there"
    assert len(set(seen)) == 2
    print(f"{len(seen)} points")


@pytest.mark.parametrize("committed", [False, True])
def test_the_commit_of_the_definition_makes_the_topic(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, committed: bool
) -> None:
    update = Metadata.update

    def broken(self: Metadata, change: Callable[[View], Sequence[Change]]) -> list[Change]:
        if committed:
            update(self, change)
        raise Broken

    with monkeypatch.context() as patch:
        patch.setattr(Metadata, "update", broken)
        with pytest.raises(Broken):
            make(tmp_path / "store", BreakingFiles(1000))
    assert is_good(tmp_path / "store") is committed
