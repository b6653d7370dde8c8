"""Backups: whole, incremental, never written through, and taken while others write and compact."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import pytest

import logstore
from logstore import (
    FormatError,
    InvalidInputError,
    LockTimeoutError,
    PartitionLog,
    Record,
    Store,
)
from logstore import backup as backup_module
from logstore import snapshots as snapshots_module
from logstore.backup import BackupResult, back_up
from logstore.repair import repair
from logstore.segments.files import DiskFiles
from logstore.snapshots import snapshots

from .support import ROOT, child_environment, content, damage, kill, snapshot


@contextmanager
def a_store(path: Path, **config: object) -> Iterator[Store]:
    """A store with a topic of small segments."""
    with logstore.open(path, maintenance_interval=None) as store:
        if not store.topics():
            store.create_topic("a", config={"segment_bytes": 600, **config})
        yield store


def fill(store: Store, count: int = 30, *, keys: int = 1000, start: int = 0) -> None:
    log = store.topic("a").partition(0)
    for number in range(start, start + count):
        log.append([Record(key=b"k%d" % (number % keys), value=b"%080d" % number)], acks=1)


def everything(path: str | Path) -> list[tuple[int, bytes]]:
    """The records of the topic in a store that is only looked at."""
    with logstore.open(path, create=False, read_only=True) as store:
        return content(store.topic("a").partition(0))


def files(path: str | Path) -> dict[str, os.stat_result]:
    directory = Path(path, "topics", "a-0")
    return {entry.name: entry.stat() for entry in directory.iterdir()}


def no_link(*_: str) -> NoReturn:
    raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))


def taken(store: Store, destination: Path, **options: object) -> BackupResult:
    """A backup with the seam to links in hand."""
    return back_up(
        store.path,
        destination,
        copy_metadata=store._metadata.copy_to,
        partitions=store._topics.partitions(store.topics()),
        now_ms=int(time.time() * 1000),
        **options,  # type: ignore[arg-type]
    )


# what is in it ------------------------------------------------------------------------------


def test_a_backup_is_a_store_that_holds_what_the_store_held(tmp_path: Path) -> None:
    with a_store(tmp_path / "s") as store:
        fill(store)
        result = store.backup(tmp_path / "b")
        expected = content(store.topic("a").partition(0))
        assert everything(result.path) == expected
        assert len(expected) == 30
    assert damage(result.path) == []
    assert result.partitions == 2  # with the definitions'
    assert result.segments == result.linked + result.copied > 3
    names = set(files(result.path))
    assert not names & {"lock", "state", "cleaner"}
    assert {name[-10:] for name in names if name.endswith("index")}  # indexes are there, too
    assert sum(name.endswith(".index") for name in names) == result.segments - 1


def test_only_closed_logs_share_a_file_with_the_store(tmp_path: Path) -> None:
    with a_store(tmp_path / "s") as store:
        fill(store)
        result = store.backup(tmp_path / "b")
        active = f"{store.topic('a').partition(0).segments[-1]:020d}.log"
        live, copy = files(store.path), files(result.path)
        shared = {name for name in copy if copy[name].st_ino == live[name].st_ino}
        assert shared == {n for n in copy if n.endswith(".log") and n != active}
        before = snapshot(result.path)
        fill(store, 20, start=30)
        store.topic("a").partition(0).truncate(11)
        fill(store, 20, start=11)
        assert snapshot(result.path) == before


def test_a_linked_segment_that_becomes_the_active_one_is_copied_first(tmp_path: Path) -> None:
    with a_store(tmp_path / "s") as store:
        fill(store)
        result = store.backup(tmp_path / "b")
        before = snapshot(result.path)
        directory = Path(store.path, "topics", "a-0")
        log = store.topic("a").partition(0)
        bases = log.segments
        kill(log)  # in the middle of a truncation: later segments are gone, the rest is to come
    for base in bases[2:]:
        for path in directory.glob(f"{base:020d}.*"):
            path.rename(f"{path}.deleted")
    with (directory / "state").open("r+b") as state:
        state.seek(128)  # the generation: odd, while files change
        state.write(b"\1")
    with a_store(tmp_path / "s") as store:
        fill(store, 3, start=bases[2])
        assert store.topic("a").partition(0).segments[1] == bases[1]
        assert len(content(store.topic("a").partition(0))) == bases[2] + 3
    assert snapshot(result.path) == before


# incremental --------------------------------------------------------------------------------


@pytest.mark.parametrize("across", [False, True], ids=["one file system", "two file systems"])
def test_the_next_backup_copies_only_what_is_new(tmp_path: Path, across: bool) -> None:
    link = no_link if across else os.link
    with a_store(tmp_path / "s") as store:
        fill(store)
        first = taken(store, tmp_path / "b", link=link)
        assert (first.linked == 0) == across
        second = taken(store, tmp_path / "b", link=link)
        assert second.copied == 2  # the active segments: the topic's and the definitions'
        assert second.linked == second.segments - 2
        assert second.removed == [first.path]
        fill(store, 30, start=30)
        third = taken(store, tmp_path / "b", link=link)
        new = third.segments - second.segments
        assert third.copied == (new + 2 if across else 2)
        assert everything(third.path) == content(store.topic("a").partition(0))
    assert damage(third.path) == []
    assert [s.path for s in snapshots(tmp_path / "b")] == [third.path]


@pytest.mark.parametrize("across", [False, True], ids=["one file system", "two file systems"])
def test_what_compaction_and_retention_changed_is_noticed(tmp_path: Path, across: bool) -> None:
    link = no_link if across else os.link
    with a_store(tmp_path / "s", cleanup_policy="compact") as store:
        log = store.topic("a").partition(0)
        fill(store, 40, keys=3)
        first = taken(store, tmp_path / "b", link=link, keep=5)
        old = everything(first.path)
        assert log.compact(force=True).records_dropped
        second = taken(store, tmp_path / "b", link=link, keep=5)
        assert everything(second.path) == content(log) != old
        log.delete_records(log.segments[-1])
        log.purge_deleted(at_once=True)
        third = taken(store, tmp_path / "b", link=link, keep=5)
        assert everything(third.path) == content(log)
        assert third.segments == 2
        assert everything(first.path) == old
    assert len(snapshots(tmp_path / "b")) == 3
    for found in snapshots(tmp_path / "b"):
        assert damage(found.path) == []


def test_as_many_backups_stay_as_asked_for(tmp_path: Path) -> None:
    with a_store(tmp_path / "s") as store:
        fill(store)
        paths = [store.backup(tmp_path / "b", keep=3).path for _ in range(5)]
        assert [s.path for s in snapshots(tmp_path / "b")] == paths[2:]
        with pytest.raises(InvalidInputError):
            store.backup(tmp_path / "b", keep=0)


def test_names_ascend_even_if_the_clock_goes_back(tmp_path: Path) -> None:
    with a_store(tmp_path / "s") as store:
        names = []
        for now_ms in (1_700_000_000_123, 1_600_000_000_000, 1_600_000_000_000):
            result = back_up(
                store.path,
                tmp_path / "b",
                copy_metadata=store._metadata.copy_to,
                partitions=store._topics.partitions(),
                now_ms=now_ms,
                keep=9,
            )
            names.append(os.path.basename(result.path))
    assert names == ["20231114T221320.123Z", "20231114T221320.124Z", "20231114T221320.125Z"]


# failing ------------------------------------------------------------------------------------


def test_a_backup_that_is_interrupted_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with a_store(tmp_path / "s") as store:
        fill(store)
        first = store.backup(tmp_path / "b")
        before = snapshot(first.path)
        places = ["clone", "write_file", "sync_tree", "contents", "sync_directory"]
        for place in places:
            with monkeypatch.context() as patched:
                patched.setattr(backup_module, place, _failing(getattr(backup_module, place)))
                with pytest.raises(KeyboardInterrupt):
                    store.backup(tmp_path / "b")
            finished = snapshots(tmp_path / "b")
            assert finished, place
            if place != "sync_directory":  # the last step, behind the commit point
                assert [s.path for s in finished] == [first.path]
                assert snapshot(first.path) == before
                names = os.listdir(tmp_path / "b")
                if place != "contents":  # that one breaks off before anything is made
                    assert any(name.endswith(".unfinished") for name in names), place
        last = store.backup(tmp_path / "b")
        assert sorted(os.listdir(tmp_path / "b")) == sorted([os.path.basename(last.path), "lock"])
        assert everything(last.path) == content(store.topic("a").partition(0))


def test_a_backup_that_fails_leaves_nothing_of_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with a_store(tmp_path / "s") as store:
        fill(store)
        first = store.backup(tmp_path / "b")
        expected = sorted([os.path.basename(first.path), "lock"])

        def full(*_: object) -> NoReturn:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        for write in ("write", "fsync"):
            with monkeypatch.context() as patched:
                patched.setattr(f"logstore.backup_files.os.{write}", full)
                with pytest.raises(OSError, match="No space") as failed:
                    store.backup(tmp_path / "b")
            assert os.fspath(failed.value.filename).startswith(str(tmp_path / "b"))
            assert sorted(os.listdir(tmp_path / "b")) == expected
        store.backup(tmp_path / "b")


def _failing(function: object) -> object:
    def fail(*arguments: object) -> NoReturn:
        raise KeyboardInterrupt

    return fail


def test_destinations_that_are_none_are_refused(tmp_path: Path) -> None:
    with a_store(tmp_path / "s") as store, a_store(tmp_path / "other") as other:
        for wrong in (tmp_path / "s" / "b", tmp_path / "s", tmp_path):
            with pytest.raises(InvalidInputError, match="inside each other"):
                store.backup(wrong)
        with pytest.raises(InvalidInputError, match="holds other things"):
            store.backup(tmp_path / "other")
        (tmp_path / "file").write_bytes(b"")
        with pytest.raises(InvalidInputError, match="no directory"):
            store.backup(tmp_path / "file")
        store.backup(tmp_path / "b")
        with pytest.raises(InvalidInputError, match="backups of another store"):
            other.backup(tmp_path / "b")
        lock = DiskFiles().lock(str(tmp_path / "b" / "lock"))
        lock.acquire()
        with pytest.raises(LockTimeoutError):
            store.backup(tmp_path / "b")
        lock.close()


def test_a_damaged_active_segment_is_not_backed_up_in_silence(tmp_path: Path) -> None:
    with a_store(tmp_path / "s") as store:
        fill(store)
        first = store.backup(tmp_path / "b")
        log = store.topic("a").partition(0)
        path = Path(log.directory, f"{log.segments[-1]:020d}.log")
        with path.open("r+b") as file:
            file.seek(70)
            file.write(b"x")
        with pytest.raises(FormatError, match="repair the store first"):
            store.backup(tmp_path / "b")
        assert [s.path for s in snapshots(tmp_path / "b")] == [first.path]


# restoring ----------------------------------------------------------------------------------


def test_a_restored_store_goes_on_and_leaves_the_backup_as_it_is(tmp_path: Path) -> None:
    with a_store(tmp_path / "s", retention_ms=-1) as store:
        fill(store)
        expected = content(store.topic("a").partition(0))
        result = store.backup(tmp_path / "b")
    before = snapshot(result.path)
    assert logstore.restore(tmp_path / "b", tmp_path / "r" / "deep") == result.path
    inodes = {(s.st_dev, s.st_ino) for s in files(result.path).values()}
    assert not inodes & {(s.st_dev, s.st_ino) for s in files(tmp_path / "r" / "deep").values()}
    with a_store(tmp_path / "r" / "deep") as restored:
        log = restored.topic("a").partition(0)
        assert restored.topic("a").config.retention_ms == -1
        assert content(log) == expected
        fill(restored, 10, start=30)
        assert [o for o, _ in content(log)] == list(range(40))
        log.truncate(5)
    assert damage(tmp_path / "r" / "deep") == []
    assert snapshot(result.path) == before
    (tmp_path / "empty").mkdir()
    logstore.restore(result.path, tmp_path / "empty")
    assert everything(tmp_path / "empty") == expected


def test_what_is_no_backup_and_no_empty_place_is_refused(tmp_path: Path) -> None:
    with a_store(tmp_path / "s") as store:
        result = store.backup(tmp_path / "b")
    for source in (tmp_path / "s", tmp_path / "nowhere", tmp_path):
        with pytest.raises(InvalidInputError, match="there is no backup here"):
            logstore.restore(source, tmp_path / "r")
    with pytest.raises(InvalidInputError, match="into an empty directory"):
        logstore.restore(tmp_path / "b", tmp_path / "s")
    with pytest.raises(InvalidInputError, match="into its backup"):
        logstore.restore(tmp_path / "b", Path(result.path, "r"))
    Path(result.path).rename(result.path + ".unfinished")
    with pytest.raises(InvalidInputError, match="was interrupted"):
        logstore.restore(result.path + ".unfinished", tmp_path / "r")
    with pytest.raises(InvalidInputError, match="there is no backup here"):
        logstore.restore(tmp_path / "b", tmp_path / "r")
    assert not (tmp_path / "r").exists()


def test_a_restore_into_the_directory_of_backups_is_refused(tmp_path: Path) -> None:
    """It would keep the next backup from being taken."""
    with a_store(tmp_path / "s") as store:
        store.backup(tmp_path / "b")
        with pytest.raises(InvalidInputError, match="holds nothing but backups"):
            logstore.restore(tmp_path / "b", tmp_path / "b" / "r")
        store.backup(tmp_path / "b")


def test_a_folder_of_a_backup_that_cannot_be_read_fails_the_restore(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with a_store(tmp_path / "s") as store:
        fill(store)
        store.backup(tmp_path / "b")
    scandir = os.scandir

    def refusing(path: str) -> object:
        if str(path).endswith("a-0"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    with pytest.raises(PermissionError):
        logstore.restore(tmp_path / "b", tmp_path / "r")
    monkeypatch.undo()
    with pytest.raises(logstore.StoreNotFoundError):
        logstore.open(tmp_path / "r", create=False)


def test_a_restore_that_is_interrupted_leaves_no_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with a_store(tmp_path / "s") as store:
        fill(store)
        store.backup(tmp_path / "b")
    monkeypatch.setattr(snapshots_module, "write_file", _failing(None))
    with pytest.raises(KeyboardInterrupt):
        logstore.restore(tmp_path / "b", tmp_path / "r")
    with pytest.raises(logstore.StoreNotFoundError):
        logstore.open(tmp_path / "r", create=False)


# under load ---------------------------------------------------------------------------------

_WRITER = """
import sys, logstore
from logstore import Record
path, name = sys.argv[1:]
with logstore.open(path, maintenance_interval=None) as store:
    plain, keyed = (store.topic(t).partition(0) for t in ("a", "keyed"))
    number = 0
    while True:
        key = b"%s-%d" % (name.encode(), number % 7)
        for log in (plain, keyed):
            log.append([Record(key=key, value=b"%s %d" % (name.encode(), number))], acks=1)
        sys.stdout.write(f"{number}\\n")
        sys.stdout.flush()
        number += 1
"""

_MAINTAINER = """
import sys, time, logstore
with logstore.open(sys.argv[1], maintenance_interval=None) as store:
    while True:
        store.topic("keyed").partition(0).compact(force=True)
        for topic in store.topics():
            topic.partition(0).purge_deleted(at_once=True)
        sys.stdout.write("x\\n")
        sys.stdout.flush()
        time.sleep(0.02)
"""


class Reported:
    """A child, and the last thing that it said."""

    def __init__(self, script: str, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", script, *arguments],
            stdout=subprocess.PIPE,
            env=child_environment(),
            cwd=ROOT,
        )
        assert self.process.stdout is not None
        os.set_blocking(self.process.stdout.fileno(), False)
        self._said = b""

    def last(self) -> int:
        """The number of the last record that was acknowledged; -1 where there was none."""
        assert self.process.stdout is not None
        assert self.process.poll() is None
        while data := self.process.stdout.read():
            self._said = (self._said + data)[-100_000:]
        lines = self._said.rpartition(b"\n")[0].split(b"\n")
        return int(lines[-1]) if lines[-1].isdigit() else -1

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.mark.parametrize("across", [False, True], ids=["one file system", "two file systems"])
def test_backups_under_load_are_whole_prefixes_of_what_was_acknowledged(
    tmp_path: Path, across: bool
) -> None:
    path = tmp_path / "s"
    with logstore.open(path, maintenance_interval=None) as store:
        store.create_topic("a", segment_bytes=20_000)
        store.create_topic("keyed", segment_bytes=5_000, cleanup_policy="compact")
        writers = {name: Reported(_WRITER, str(path), name) for name in ("x", "y")}
        maintainer = Reported(_MAINTAINER, str(path))
        try:
            for writer in writers.values():
                while writer.last() < 200:
                    time.sleep(0.01)
            taken_backups: list[tuple[str, dict[str, int], dict[str, int]]] = []
            deadline = time.monotonic() + 2
            while time.monotonic() < deadline or len(taken_backups) < 4:
                before = {name: writer.last() for name, writer in writers.items()}
                result = taken(store, tmp_path / "b", keep=100, link=no_link if across else os.link)
                after = {name: writer.last() + 2 for name, writer in writers.items()}
                taken_backups.append((result.path, before, after))
                time.sleep(0.1)
            maintainer.last()  # it is still at work
        finally:
            for child in (*writers.values(), maintainer):
                child.end()
    for found, before, after in taken_backups:
        assert damage(found) == []
        with logstore.open(found, create=False, read_only=True) as store:
            plain = content(store.topic("a").partition(0))
            keyed = content(store.topic("keyed").partition(0))
        assert [offset for offset, _ in plain] == list(range(len(plain)))
        for name in writers:
            prefix = name.encode() + b" "
            numbers = [int(v[2:]) for _, v in plain if v.startswith(prefix)]
            assert numbers == list(range(len(numbers)))
            assert before[name] <= numbers[-1] <= after[name]
            latest = max(int(v[2:]) for _, v in keyed if v.startswith(prefix))
            assert before[name] <= latest <= after[name]
            kept = {int(v[2:]) for _, v in keyed if v.startswith(prefix)}
            assert set(range(latest - 6, latest + 1)) <= kept  # the last of each of seven keys
    # The last one is restored, and used.
    logstore.restore(taken_backups[-1][0], tmp_path / "r")
    with logstore.open(tmp_path / "r", maintenance_interval=None) as store:
        log = store.topic("a").partition(0)
        end = log.log_end_offset
        assert log.append([Record(value=b"more")]).base_offset == end
    assert damage(tmp_path / "r") == []


def test_what_a_backup_says_of_its_sources_can_be_read(tmp_path: Path) -> None:
    with a_store(tmp_path / "s") as store:
        fill(store)
        result = store.backup(tmp_path / "b")
    described = json.loads(Path(result.path, "backup.json").read_bytes())
    assert described["version"] == 1
    assert len(described["sources"]) == 3 * (result.segments - 2)


def test_a_backup_carries_the_definitions_and_their_log(tmp_path: Path) -> None:
    with a_store(tmp_path / "s") as store:
        fill(store)
        store.create_topic("b", partitions=2, retention_ms=5)
        store.alter_defaults({"segment_ms": 7})
        store.create_topic("c")
        store.delete_topic("c")
        result = store.backup(tmp_path / "b")
        store.delete_topic("a")
    for lost in (False, True):
        target = tmp_path / f"r-{lost}"
        logstore.restore(result.path, target)
        if lost:
            (target / "meta" / "data.mdb").unlink()
            assert [step.kind for step in repair(target)] == ["build"]
        with logstore.open(target) as restored:
            assert [topic.name for topic in restored.topics()] == ["a", "b"]
            assert restored.topic("b").overrides == {"retention_ms": 5}
            assert restored.defaults == {"segment_ms": 7}
            assert len(content(restored.topic("a").partition(0))) == 30
            restored.create_topic("c")


def test_a_topic_that_is_deleted_while_a_backup_is_taken_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = backup_module._Run._copy

    def delete_first(run: backup_module._Run, log: PartitionLog, *names: str) -> None:
        if os.path.basename(log.directory) == "a-0":
            with logstore.open(tmp_path / "s") as other:
                other.delete_topic("a")
        copy(run, log, *names)

    monkeypatch.setattr(backup_module._Run, "_copy", delete_first)
    with a_store(tmp_path / "s") as store:
        fill(store)
        store.create_topic("b")
        result = store.backup(tmp_path / "b")
        assert result.partitions == 2
    logstore.restore(tmp_path / "b", tmp_path / "r")
    with logstore.open(tmp_path / "r") as restored:
        assert [topic.name for topic in restored.topics()] == ["b"]
