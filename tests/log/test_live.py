"""The live environment: kept while it can be trusted, made anew from checkpoints where not."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from logstore import ClosedError, LockTimeoutError, ReadOnlyError
from logstore.live import Live, Restored
from logstore.metadata import Metadata
from logstore.segments.files import DiskFiles
from logstore.tables import Tables

from .support import BOOT, OTHER_BOOT, SpyFiles, StillClock, run_script


def nothing() -> tuple[Restored, Restored]:
    return {}, {}


def never() -> tuple[Restored, Restored]:
    raise AssertionError("the live environment is good")


@contextmanager
def opened(
    store: Path,
    *,
    boot: str = BOOT,
    restore: Callable[[], tuple[Restored, Restored]] = nothing,
    read_only: bool = False,
) -> Iterator[tuple[Live, Metadata]]:
    metadata = Metadata(str(store), read_only=read_only)
    live = Live(
        str(store),
        metadata,
        files=SpyFiles(boot),
        clock=StillClock(),
        read_only=read_only,
    )
    live.restorers.append(restore)
    try:
        yield live, metadata
    finally:
        live.close()
        metadata.close()


def put(live: Live, key: bytes, value: bytes = b"") -> None:
    with live.transaction(write=True) as tables:
        tables.put("t", key, value)


def keys(live: Live) -> list[bytes]:
    with live.transaction() as tables:
        return [key for key, _ in tables.items("t")]


def generations(store: Path) -> list[str]:
    return sorted(path.name for path in (store / "live").iterdir() if path.is_dir())


def test_what_is_committed_is_seen_by_other_handles_and_after_reopening(tmp_path: Path) -> None:
    with opened(tmp_path) as (one, _), opened(tmp_path) as (two, _):
        assert not one.exists()
        put(one, b"a")
        assert one.exists()
        assert keys(two) == [b"a"]
        number = two.number()
        put(one, b"b")
        assert two.number() > number
    with opened(tmp_path, restore=never) as (live, _):
        live.recover()
        assert keys(live) == [b"a", b"b"]
    assert len(generations(tmp_path)) == 1


def test_after_a_restart_of_the_machine_it_is_made_anew_from_checkpoints(tmp_path: Path) -> None:
    with opened(tmp_path) as (live, metadata):
        put(live, b"lost")
        with metadata.transaction(write=True) as meta:
            meta.put("t", b"old", b"")
            meta.put("u", b"untouched", b"")
    before = generations(tmp_path)

    def restore() -> tuple[Restored, Restored]:
        return {"t": {b"kept": b"1"}}, {"t": {b"cut": b"2"}}

    with opened(tmp_path, boot=OTHER_BOOT, restore=restore) as (live, metadata):
        live.recover()
        assert keys(live) == [b"kept"]
        with metadata.transaction() as meta:
            assert list(meta.items("t")) == [(b"cut", b"2")]
            assert list(meta.items("u")) == [(b"untouched", b"")]
        assert len(generations(tmp_path)) == 1
        assert generations(tmp_path) != before
    with opened(tmp_path, boot=OTHER_BOOT, restore=never) as (live, _):
        live.recover()


def test_recovering_makes_none_where_there_never_was_one(tmp_path: Path) -> None:
    with opened(tmp_path, restore=never) as (live, _):
        live.recover()
    assert not (tmp_path / "live").exists()


@pytest.mark.parametrize("what", ["copied", "removed", "file removed"])
def test_another_file_than_the_recorded_one_is_not_trusted(tmp_path: Path, what: str) -> None:
    store = tmp_path / "store"
    with opened(store) as (live, _):
        put(live, b"a")
    if what == "copied":
        shutil.copytree(store, tmp_path / "copy")
        store = tmp_path / "copy"
    elif what == "removed":
        shutil.rmtree(store / "live")
    else:
        os.remove(store / "live" / generations(store)[0] / "data.mdb")
    with opened(store) as (live, _):
        live.recover()
        assert keys(live) == []


def test_a_crash_before_the_record_leaves_a_directory_that_the_next_one_removes(
    tmp_path: Path,
) -> None:
    def crash() -> tuple[Restored, Restored]:
        raise KeyboardInterrupt

    with opened(tmp_path) as (live, _):
        put(live, b"a")
    with opened(tmp_path, boot=OTHER_BOOT, restore=crash) as (live, _):
        with pytest.raises(KeyboardInterrupt):
            live.recover()
        assert len(generations(tmp_path)) == 2
    with opened(tmp_path, restore=never) as (live, _):
        assert keys(live) == [b"a"]
    with opened(tmp_path, boot=OTHER_BOOT) as (live, _):
        live.recover()
        assert keys(live) == []
    assert len(generations(tmp_path)) == 1


def test_a_reader_sees_what_there_is_and_makes_nothing(tmp_path: Path) -> None:
    Metadata(str(tmp_path)).close()
    with opened(tmp_path, read_only=True) as (reader, _):
        assert not reader.usable()
        assert keys(reader) == []
        with opened(tmp_path) as (live, _):
            put(live, b"a")
        assert keys(reader) == [b"a"]
        with pytest.raises(ReadOnlyError):
            put(reader, b"b")
    with opened(tmp_path, boot=OTHER_BOOT, read_only=True) as (reader, _):
        assert not reader.usable()


def test_waiting_for_a_writer_that_was_stopped_ends_with_an_error(tmp_path: Path) -> None:
    with opened(tmp_path) as (live, _):
        put(live, b"a")
        lock = DiskFiles().lock(str(tmp_path / "live" / "lock"))
        lock.acquire()
        with pytest.raises(LockTimeoutError, match="is it stopped"):
            put(live, b"b")
        lock.close()
        put(live, b"b")
        assert keys(live) == [b"a", b"b"]


READS_AND_DIES = """
import os, signal, sys
import lmdb
environment = lmdb.open(sys.argv[1], create=False, max_dbs=8)
with environment.begin():
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_reader_held_is_let_go_of(tmp_path: Path) -> None:
    with opened(tmp_path) as (live, _):
        put(live, b"a")
        directory = tmp_path / "live" / generations(tmp_path)[0]
        with pytest.raises(AssertionError):
            run_script(READS_AND_DIES, directory)
        environment = live._environment
        assert environment is not None
        assert str(os.getpid()) not in environment.handle.readers()
        assert "no active readers" not in environment.handle.readers()
        live.check_readers()
        assert "no active readers" in environment.handle.readers()


def test_a_closed_one_refuses(tmp_path: Path) -> None:
    with opened(tmp_path) as (live, _):
        live.close()
        with pytest.raises(ClosedError):
            keys(live)
        live.close()


def test_all_who_keep_something_in_it_restore_their_own(tmp_path: Path) -> None:
    def restore() -> tuple[Restored, Restored]:
        return {"t": {b"a": b""}}, {"m": {b"x": b"1"}}

    with opened(tmp_path, restore=restore) as (live, metadata):
        live.restorers.append(lambda: ({"u": {b"b": b""}}, {"n": {b"y": b"2"}}))
        assert keys(live) == [b"a"]
        with live.transaction() as tables:
            assert list(tables.items("u")) == [(b"b", b"")]
        with metadata.transaction() as tables:
            assert [*tables.items("m"), *tables.items("n")] == [(b"x", b"1"), (b"y", b"2")]


def test_what_an_action_raises_is_not_committed(tmp_path: Path) -> None:
    with opened(tmp_path) as (live, _):

        def act(tables: Tables) -> int:
            tables.put("t", b"a", b"1")
            return tables.number

        number = live.write(act)
        assert live.read(lambda tables: tables.get("t", b"a")) == b"1"

        def fail(tables: Tables) -> None:
            tables.put("t", b"b", b"2")
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            live.write(fail)
        assert keys(live) == [b"a"]
        assert live.number() == number
    with pytest.raises(ClosedError):
        live.write(act)
    with opened(tmp_path, read_only=True) as (live, _):
        assert live.read(lambda tables: tables.get("t", b"a")) == b"1"
        with pytest.raises(ReadOnlyError):
            live.write(act)


def test_an_action_waits_for_a_writer_that_was_stopped_no_longer_than_a_block(
    tmp_path: Path,
) -> None:
    with opened(tmp_path) as (live, _):
        put(live, b"a")
        lock = DiskFiles().lock(str(tmp_path / "live" / "lock"))
        lock.acquire()
        with pytest.raises(LockTimeoutError, match="is it stopped"):
            live.write(lambda tables: tables.put("t", b"b", b""))
        lock.close()
        live.write(lambda tables: tables.put("t", b"b", b""))
        assert keys(live) == [b"a", b"b"]
