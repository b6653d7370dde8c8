"""The operating system's files behind the seam: reading, writing, sharing, locking, replacing."""

from __future__ import annotations

import errno
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from logstore.segments.files import (
    DiskFiles,
    File,
    FileLock,
    Files,
    SharedBytes,
    read_bounded,
    write_atomically,
    write_fully,
)
from logstore.segments.memory_files import CrashMode, MemoryFiles

FILES = DiskFiles()


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "file")


@pytest.fixture
def file(path: str) -> File:
    return FILES.open(path, write=True, create=True)


# files --------------------------------------------------------------------------------------


def test_what_is_written_at_a_position_is_read_at_that_position(file: File, path: str) -> None:
    assert file.path == path
    assert file.write_at(b"hello world", 0) == 11
    assert file.write_at(b"W", 6) == 1
    assert file.read_at(5, 6) == b"World"
    assert file.read_at(100, 6) == b"World"
    assert file.read_at(100, 11) == b""
    assert file.read_at(100, 5000) == b""
    assert file.size() == FILES.size(path) == 11


def test_a_file_can_be_cut_and_lengthened_with_zeros(file: File) -> None:
    file.write_at(b"hello", 0)
    file.truncate(2)
    assert file.read_at(10, 0) == b"he"
    file.truncate(4)
    assert file.read_at(10, 0) == b"he\0\0"
    file.write_at(b"!", 6)
    assert file.read_at(10, 0) == b"he\0\0\0\0!"


def test_syncing_keeps_the_bytes(file: File, path: str) -> None:
    file.write_at(b"kept", 0)
    file.sync()
    assert Path(path).read_bytes() == b"kept"


def test_a_closed_file_refuses_everything_and_may_be_closed_again(file: File) -> None:
    file.close()
    file.close()
    for refused in (
        lambda: file.read_at(1, 0),
        lambda: file.write_at(b"x", 0),
        lambda: file.truncate(0),
        lambda: file.size(),
        lambda: file.sync(),
    ):
        with pytest.raises(OSError) as caught:  # noqa: PT011  # the number below says which
            refused()
        assert caught.value.errno == errno.EBADF


@pytest.mark.parametrize("kind", ["file", "lock", "shared"])
def test_ctrl_c_just_after_a_descriptor_was_closed_does_not_have_it_closed_again(
    kind: str, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: dict[str, Callable[[], File | FileLock | SharedBytes]] = {
        "file": lambda: FILES.open(path, write=True, create=True),
        "lock": lambda: FILES.lock(path),
        "shared": lambda: FILES.share(path, 100),
    }
    thing = opened[kind]()
    close = os.close
    closed = []

    def interrupted(descriptor: int) -> None:
        close(descriptor)
        closed.append(descriptor)
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "close", interrupted)
    with pytest.raises(KeyboardInterrupt):
        thing.close()
    thing.close()
    assert len(closed) == 1


def test_closing_a_file_leaves_one_that_got_the_same_number_alone(file: File, path: str) -> None:
    file.close()
    other = FILES.open(path + "2", write=True, create=True)
    file.close()
    assert other.write_at(b"x", 0) == 1
    other.close()


def test_a_file_that_is_opened_for_reading_cannot_be_written(file: File, path: str) -> None:
    file.write_at(b"abc", 0)
    reader = FILES.open(path)
    assert reader.read_at(9, 0) == b"abc"
    with pytest.raises(OSError) as caught:  # noqa: PT011  # the number below says which
        reader.write_at(b"x", 0)
    assert caught.value.errno == errno.EBADF
    reader.close()


def test_what_is_no_regular_file_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "directory").mkdir()
    for name in ("fifo", "directory"):
        with pytest.raises(OSError, match="this is no regular file") as caught:
            FILES.open(str(tmp_path / name))
        assert caught.value.filename == str(tmp_path / name)


def test_what_may_not_be_looked_at_is_not_said_to_be_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(path: str) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)

    with monkeypatch.context() as patched:  # root may look at everything
        patched.setattr(os, "stat", refuse)
        with pytest.raises(PermissionError, match="Permission denied: 'hidden/a'"):
            FILES.exists("hidden/a")


def test_a_missing_file_is_an_error_with_its_path_unless_it_may_be_made(path: str) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        FILES.open(path, write=True)
    assert caught.value.filename == path
    FILES.open(path, write=True, create=True).close()
    assert FILES.size(path) == 0


def test_opening_with_create_keeps_what_is_there(file: File, path: str) -> None:
    file.write_at(b"kept", 0)
    again = FILES.open(path, write=True, create=True)
    assert again.read_at(9, 0) == b"kept"
    again.close()


def test_descriptors_are_not_inherited_by_programs_that_are_started(file: File) -> None:
    descriptor: int = file._descriptor  # type: ignore[attr-defined]
    assert os.get_inheritable(descriptor) is False


# directories --------------------------------------------------------------------------------


def test_names_are_sorted_and_tell_files_from_directories(tmp_path: Path) -> None:
    root = str(tmp_path)
    for name in ("b", "a", "c"):
        FILES.open(os.path.join(root, name), write=True, create=True).close()
    FILES.make_directory(os.path.join(root, "aa"))
    assert FILES.names(root) == ["a", "aa", "b", "c"]
    assert FILES.exists(os.path.join(root, "a"))
    assert FILES.exists(os.path.join(root, "aa"))
    assert not FILES.exists(os.path.join(root, "d"))
    assert FILES.is_directory(os.path.join(root, "aa"))
    assert not FILES.is_directory(os.path.join(root, "a"))


def test_directories_are_made_with_their_parents_and_may_be_there(tmp_path: Path) -> None:
    deep = str(tmp_path / "one" / "two" / "three")
    FILES.make_directory(deep)
    FILES.make_directory(deep)
    assert FILES.is_directory(deep)


def test_a_relative_directory_is_made_where_the_process_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    FILES.make_directory(os.path.join("one", "two"))
    assert (tmp_path / "one" / "two").is_dir()


def test_every_directory_that_is_made_has_its_parent_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    monkeypatch.setattr(DiskFiles, "sync_directory", lambda _, path: synced.append(path))
    FILES.make_directory(str(tmp_path / "one" / "two"))
    assert synced == [str(tmp_path), str(tmp_path / "one")]


def test_a_file_in_the_place_of_a_directory_is_an_error(file: File, path: str) -> None:
    with pytest.raises(FileExistsError):
        FILES.make_directory(path)
    with pytest.raises(OSError):  # noqa: PT011  # which one is the system's choice
        FILES.make_directory(os.path.join(path, "below"))
    file.close()


def test_a_file_knows_when_it_was_modified_and_when_it_got_its_name(path: str) -> None:
    FILES.open(path, write=True, create=True).close()
    os.utime(path, (1000, 1000))
    before = time.time_ns() // 1_000_000
    FILES.rename(path, path + ".deleted")
    modified, changed = FILES.times_ms(path + ".deleted")
    assert modified == 1_000_000
    assert changed >= before - 1000  # file systems round, and their clocks may tick coarsely


def test_files_in_memory_bear_the_times_of_their_clock() -> None:
    now = 5
    files = MemoryFiles(now_ms=lambda: now)
    file = files.open("a", write=True, create=True)
    now = 7
    file.write_at(b"x", 0)
    assert files.times_ms("a") == (7, 7)
    now = 9
    files.rename("a", "b")
    assert files.times_ms("b") == files.crash(CrashMode.KILL).times_ms("b") == (7, 9)


def test_renaming_replaces_and_removing_removes(tmp_path: Path) -> None:
    old, new = str(tmp_path / "old"), str(tmp_path / "new")
    for path, data in ((old, b"old"), (new, b"new")):
        Path(path).write_bytes(data)
    FILES.rename(old, new)
    FILES.sync_directory(str(tmp_path))
    assert FILES.names(str(tmp_path)) == ["new"]
    assert Path(new).read_bytes() == b"old"
    FILES.remove(new)
    assert not FILES.exists(new)
    with pytest.raises(FileNotFoundError):
        FILES.remove(new)


# shared bytes -------------------------------------------------------------------------------


def test_what_one_handle_writes_another_one_sees_at_once(path: str) -> None:
    one, two = FILES.share(path, 64), FILES.share(path, 64, write=False)
    assert bytes(one.buffer) == bytes(64)
    one.buffer[8:16] = b"12345678"
    assert bytes(two.buffer[8:16]) == b"12345678"
    assert one.identity == two.identity
    one.sync()
    two.sync()
    with pytest.raises(TypeError):
        two.buffer[0:1] = b"x"
    for shared in (one, two):
        shared.close()
        shared.close()
    assert Path(path).read_bytes()[8:16] == b"12345678"


def test_a_copy_of_a_shared_file_has_another_identity(path: str) -> None:
    shared = FILES.share(path, 8)
    Path(path + "2").write_bytes(bytes(shared.buffer))
    copy = FILES.share(path + "2", 8)
    assert copy.identity != shared.identity
    shared.close()
    copy.close()


def test_a_shared_file_that_is_missing_or_too_short_is_not_made_by_a_reader(path: str) -> None:
    with pytest.raises(FileNotFoundError):
        FILES.share(path, 8, write=False)
    Path(path).write_bytes(b"1234")
    with pytest.raises(OSError, match="shorter than it should be"):
        FILES.share(path, 8, write=False)
    writer = FILES.share(path, 8)
    assert bytes(writer.buffer) == b"1234\0\0\0\0"
    writer.close()


# locks --------------------------------------------------------------------------------------


def test_a_lock_is_held_by_one_handle_at_a_time(path: str) -> None:
    one, two = FILES.lock(path), FILES.lock(path)
    one.acquire()
    with pytest.raises(BlockingIOError):
        two.acquire()
    one.release()
    two.acquire()
    two.close()
    two.close()
    one.acquire()
    one.close()


HOLDER = """
import os, sys
from logstore.segments.files import DiskFiles
lock = DiskFiles().lock(sys.argv[1])
lock.acquire()
print("held", flush=True)
sys.stdin.read()
os._exit(9)
"""


def test_the_lock_of_a_process_that_died_is_free(path: str) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p or os.getcwd() for p in sys.path)}
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, path],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdin is not None
        lock = FILES.lock(path)
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(BlockingIOError):
            lock.acquire()
        holder.stdin.close()
        assert holder.wait() == 9
        lock.acquire()
        lock.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the platform has no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_lock_that_a_forked_child_closes_stays_with_its_parent(path: str) -> None:
    lock, other = FILES.lock(path), FILES.lock(path)
    lock.acquire()
    child = os.fork()
    if child == 0:
        try:
            lock.close()
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    with pytest.raises(BlockingIOError):
        other.acquire()
    lock.close()
    other.close()


def test_the_boot_id_stays_the_same_while_the_machine_runs() -> None:
    assert FILES.boot_id()
    assert FILES.boot_id() == DiskFiles().boot_id()


# whole files --------------------------------------------------------------------------------


def test_a_small_file_is_read_whole_and_a_large_one_refused(path: str) -> None:
    Path(path).write_bytes(b"x" * 100)
    assert read_bounded(FILES, path, 100) == b"x" * 100
    with pytest.raises(OSError, match="at most 99 make sense") as caught:
        read_bounded(FILES, path, 99)
    assert (caught.value.errno, caught.value.filename) == (errno.EFBIG, path)


def test_replacing_a_file_is_one_rename_of_synced_bytes(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    for name in ("rename", "sync_directory"):
        real = getattr(DiskFiles, name)

        def noted(self: DiskFiles, *paths: str, name: str = name, real: object = real) -> None:
            steps.append(name)
            if name == "rename":
                assert Path(paths[0]).read_bytes() == b"new"
                assert Path(paths[1]).read_bytes() == b"old"
            assert callable(real)
            real(self, *paths)

        monkeypatch.setattr(DiskFiles, name, noted)
    monkeypatch.setattr("logstore.segments.files._sync", lambda _: steps.append("sync"))
    Path(path).write_bytes(b"old")
    Path(path + ".tmp").write_bytes(b"left by a crash, and longer than what is written now")
    write_atomically(FILES, path, b"new")
    assert Path(path).read_bytes() == b"new"
    assert not Path(path + ".tmp").exists()
    assert steps == ["sync", "rename", "sync_directory"]


class _Dribble:
    """A file that takes three bytes at a time, and none at all once it is full."""

    path = "dribble"

    def __init__(self, room: int) -> None:
        self.data = bytearray()
        self.room = room

    def write_at(self, data: bytes, position: int, /) -> int:
        assert position == len(self.data)
        taken = data[: min(3, self.room - len(self.data))]
        self.data += taken
        return len(taken)


def test_short_writes_are_continued_until_the_disk_is_full() -> None:
    file = _Dribble(100)
    write_fully(file, b"0123456789", 0)  # type: ignore[arg-type]
    assert file.data == b"0123456789"
    full = _Dribble(5)
    with pytest.raises(OSError, match="dribble") as caught:
        write_fully(full, b"0123456789", 0)  # type: ignore[arg-type]
    assert caught.value.errno == errno.ENOSPC


@pytest.mark.parametrize("seed", range(20))
def test_what_was_synced_in_memory_survives_a_power_cut_whatever_was_written(seed: int) -> None:
    rng, files = random.Random(seed), MemoryFiles()
    file = files.open("file", write=True, create=True)
    files.sync_directory(".")
    for _ in range(30):
        place = rng.randrange(80)
        choice = rng.randrange(4)
        if choice == 0:
            file.truncate(place)
        elif choice < 3:
            file.write_at(rng.randbytes(rng.randrange(30)), file.size() if choice == 1 else place)
        else:
            file.sync()
            synced = files.open("file").read_at(200, 0)
            kept = files.crash(CrashMode.LOSE)
            assert kept.open("file").read_at(200, 0) == synced


@pytest.mark.parametrize("kind", ["disk", "memory"])
def test_a_directory_is_renamed_with_all_in_it_and_removed_when_it_is_empty(
    kind: str, tmp_path: Path
) -> None:
    files: Files = DiskFiles() if kind == "disk" else MemoryFiles()
    old, new = str(tmp_path / "a-0"), str(tmp_path / "a-0.x-delete")
    beside = str(tmp_path / "a-00")
    for directory in (old, beside):
        files.make_directory(directory)
        file = files.open(f"{directory}/log", write=True, create=True)
        file.write_at(b"data", 0)
        file.sync()
        file.close()
        files.sync_directory(directory)
    files.rename(old, new)
    assert not files.exists(old)
    assert files.names(new) == files.names(beside) == ["log"]
    with pytest.raises(OSError, match="not empty"):
        files.remove_directory(new)
    with pytest.raises(OSError, match=r"not empty|exists"):
        files.rename(beside, new)
    if isinstance(files, MemoryFiles):
        assert files.crash(CrashMode.LOSE).names(new) == ["log"]
    files.remove(f"{new}/log")
    files.remove_directory(new)
    assert not files.exists(new)
    assert files.names(beside) == ["log"]
