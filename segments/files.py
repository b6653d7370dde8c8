"""The one seam to the file system: everything that logstore reads or writes passes through here.

``DiskFiles`` is the real thing. ``MemoryFiles`` (``logstore.segments.memory_files``) keeps files in
memory for the simulator and for tests, and the crash tests wrap it to lose what was not synced.
Whoever touches files takes a ``Files`` as an argument and calls nothing of ``os`` itself.

Paths are strings. Positions and sizes are bytes. Errors are the operating system's own
(``OSError``), with the path in them.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import stat
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Protocol

from logstore.segments.boot import boot_id
from logstore.segments.notify import watch_directories

try:
    import fcntl
except ImportError:  # Windows: segments can be inspected there, but not written
    fcntl = None  # type: ignore[assignment]

__all__ = [
    "DiskFiles",
    "File",
    "FileLock",
    "Files",
    "SharedBytes",
    "Watch",
    "read_bounded",
    "write_atomically",
    "write_fully",
    "write_synced",
]


class File(Protocol):
    """An open file. Reading and writing name their position, so there is no cursor to share."""

    @property
    def path(self) -> str:
        """Where it was opened."""
        ...

    def read_at(self, size: int, position: int, /) -> bytes:
        """Up to ``size`` bytes from ``position``; fewer only at the end of the file."""
        ...

    def write_at(self, data: bytes, position: int, /) -> int:
        """Write, and return how many bytes were written: fewer on a full disk, as ``pwrite``."""
        ...

    def size(self) -> int:
        """Bytes in the file."""
        ...

    def truncate(self, size: int, /) -> None:
        """Cut the file, or lengthen it with zeros."""
        ...

    def sync(self) -> None:
        """Return when the bytes, and the size needed to find them, are on stable storage."""
        ...

    def close(self) -> None:
        """Let go of the file; closing twice is allowed."""
        ...


class SharedBytes(Protocol):
    """A small file of fixed size, mapped into every process that opened it."""

    @property
    def buffer(self) -> bytearray | mmap.mmap | memoryview:
        """The bytes; a slice assignment is at once seen by all other processes."""
        ...

    @property
    def identity(self) -> tuple[int, int]:
        """Device and inode: a copy of the file has others."""
        ...

    def sync(self) -> None:
        """Return when the bytes are on stable storage."""
        ...

    def close(self) -> None:
        """Unmap; closing twice is allowed."""
        ...


class FileLock(Protocol):
    """A lock between processes, held by an open file, let go of by the kernel if its owner dies."""

    def acquire(self) -> None:
        """Take the lock; raises BlockingIOError at once if somebody has it."""
        ...

    def release(self) -> None:
        """Let go of the lock, if it is held."""
        ...

    def close(self) -> None:
        """Let go of lock and file; closing twice is allowed."""
        ...


class Watch(Protocol):
    """Says when a file in a directory has changed."""

    def wait(self, seconds: float) -> bool:
        """Sleep until something has happened since the last call, for ``seconds`` at most."""
        ...

    def close(self) -> None:
        """Stop watching; closing twice is allowed."""
        ...


class Files(Protocol):
    """A file system."""

    def open(self, path: str, *, write: bool = False, create: bool = False) -> File:
        """Open a file; with ``create`` one that may not be there yet."""
        ...

    def names(self, path: str) -> list[str]:
        """The sorted names of what a directory contains."""
        ...

    def exists(self, path: str) -> bool:
        """Whether there is a file or directory of that name."""
        ...

    def is_directory(self, path: str) -> bool:
        """Whether there is a directory of that name."""
        ...

    def size(self, path: str) -> int:
        """Bytes in a file."""
        ...

    def links(self, path: str) -> int:
        """How many names a file has; with several, who writes to it writes to all of them."""
        ...

    def times_ms(self, path: str) -> tuple[int, int]:
        """When a file's bytes, and when bytes or names last changed: milliseconds since 1970."""
        ...

    def make_directory(self, path: str) -> None:
        """Make a directory, and its parents, unless it is there; their names are synced."""
        ...

    def rename(self, old: str, new: str) -> None:
        """Give a file another name, replacing what has that name, in one step."""
        ...

    def remove(self, path: str) -> None:
        """Remove a file's name."""
        ...

    def remove_directory(self, path: str) -> None:
        """Remove an empty directory."""
        ...

    def sync_directory(self, path: str) -> None:
        """Return when the names in a directory are on stable storage."""
        ...

    def share(self, path: str, size: int, *, write: bool = True) -> SharedBytes:
        """Map a file of ``size`` bytes, made (zero-filled) if it is not there."""
        ...

    def lock(self, path: str) -> FileLock:
        """A lock on a file, made if it is not there."""
        ...

    def watch(self, *paths: str) -> Watch | None:
        """One watch on directories; None where there is none to be had, and polling has to do."""
        ...

    def boot_id(self) -> str:
        """What changes when the machine restarts, and what is unsynced is lost."""
        ...


class DiskFiles:
    """The operating system's files."""

    def open(self, path: str, *, write: bool = False, create: bool = False) -> File:
        """Open a file; with ``create`` one that may not be there yet."""
        flags = os.O_RDWR if write else os.O_RDONLY
        if create:
            flags |= os.O_CREAT
        # Without O_NONBLOCK a FIFO would be waited for. A directory can be opened, and not read.
        descriptor = os.open(path, flags | _BINARY | _CLOEXEC | _NONBLOCK, 0o666)
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            os.close(descriptor)
            number = errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL
            raise OSError(number, "this is no regular file", path)
        return _DiskFile(path, descriptor)

    def names(self, path: str) -> list[str]:
        """The sorted names of what a directory contains."""
        return sorted(os.listdir(path))

    def exists(self, path: str) -> bool:
        """Whether there is a file or directory of that name."""
        try:
            os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True  # any other error is told: what may not be looked at may be there

    def is_directory(self, path: str) -> bool:
        """Whether there is a directory of that name."""
        return os.path.isdir(path)

    def size(self, path: str) -> int:
        """Bytes in a file."""
        return os.stat(path).st_size

    def links(self, path: str) -> int:
        """How many names a file has; with several, who writes to it writes to all of them."""
        return os.stat(path).st_nlink

    def times_ms(self, path: str) -> tuple[int, int]:
        """When a file's bytes, and when bytes or names last changed: milliseconds since 1970."""
        status = os.stat(path)
        return status.st_mtime_ns // 1_000_000, status.st_ctime_ns // 1_000_000

    def make_directory(self, path: str) -> None:
        """Make a directory, and its parents, unless it is there; their names are synced."""
        missing = []
        while not os.path.isdir(path):
            missing.append(path)
            parent = os.path.dirname(path)
            if parent in (path, ""):
                break
            path = parent
        for directory in reversed(missing):
            try:
                os.mkdir(directory)
            except FileExistsError:
                if not os.path.isdir(directory):  # a file; else another process was as quick
                    raise
            self.sync_directory(os.path.dirname(directory) or ".")

    def rename(self, old: str, new: str) -> None:
        """Give a file another name, replacing what has that name, in one step."""
        os.replace(old, new)

    def remove(self, path: str) -> None:
        """Remove a file's name."""
        os.remove(path)

    def remove_directory(self, path: str) -> None:
        """Remove an empty directory."""
        os.rmdir(path)

    def sync_directory(self, path: str) -> None:
        """Return when the names in a directory are on stable storage."""
        if os.name == "nt":  # a directory cannot be opened there, nor written by logstore
            return
        descriptor = os.open(path, os.O_RDONLY | _CLOEXEC)
        try:
            with _naming(path):
                os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def share(self, path: str, size: int, *, write: bool = True) -> SharedBytes:
        """Map a file of ``size`` bytes, made (zero-filled) if it is not there."""
        return _DiskSharedBytes(path, size, write)

    def lock(self, path: str) -> FileLock:
        """A lock on a file, made if it is not there."""
        return _DiskLock(path)

    def watch(self, *paths: str) -> Watch | None:
        """One watch on directories; None where there is none to be had, and polling has to do."""
        return watch_directories(*paths)

    def boot_id(self) -> str:
        """What changes when the machine restarts, and what is unsynced is lost."""
        return boot_id()


_BINARY: int = getattr(os, "O_BINARY", 0)
_CLOEXEC: int = getattr(os, "O_CLOEXEC", 0)
_NONBLOCK: int = getattr(os, "O_NONBLOCK", 0)


def _sync_function() -> Callable[[int], object]:
    """How to reach stable storage: ``fsync`` on macOS stops at the drive's own cache."""
    full = getattr(fcntl, "F_FULLFSYNC", None)
    if full is not None:
        return lambda descriptor: fcntl.fcntl(descriptor, full)
    return getattr(os, "fdatasync", os.fsync)


_sync = _sync_function()


class _DiskFile:
    """A descriptor. ``pread`` and ``pwrite`` are called through partials: methods that only
    forward would cost a twentieth of a single append."""

    __slots__ = ("_descriptor", "gather_at", "path", "read_at", "size", "write_at")

    def __init__(self, path: str, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor
        self.read_at: Callable[[int, int], bytes] = partial(
            getattr(os, "pread", _seek_and_read), descriptor
        )
        self.write_at: Callable[[bytes, int], int] = partial(
            getattr(os, "pwrite", _seek_and_write), descriptor
        )
        gather: Any = getattr(os, "pwritev", None)
        self.gather_at: Any = gather and partial(gather, descriptor)
        self.size: Callable[[], int] = partial(os.lseek, descriptor, 0, os.SEEK_END)

    def truncate(self, size: int, /) -> None:
        if self._descriptor < 0:
            _closed()
        with _naming(self.path):
            os.ftruncate(self._descriptor, size)

    def sync(self) -> None:
        if self._descriptor < 0:
            _closed()
        try:
            _sync(self._descriptor)
        except OSError as error:
            error.filename = error.filename or self.path
            raise

    def close(self) -> None:
        # The number may soon belong to another file: nothing here may use it again, also if Ctrl-C
        # ends this early. (So it goes first, here and below.)
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            self.read_at = self.write_at = self.gather_at = self.size = _closed
            os.close(descriptor)

    def __del__(self) -> None:
        self.close()


@contextlib.contextmanager
def _naming(path: str) -> Iterator[None]:
    """The operating system's errors about a descriptor say nothing of the file: name it."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = path
        raise


def _closed(*_: object) -> Any:
    raise OSError(errno.EBADF, "the file was closed")


# Windows has no pread and pwrite; segments are inspected there by one thread.


def _seek_and_read(descriptor: int, size: int, position: int) -> bytes:
    os.lseek(descriptor, position, os.SEEK_SET)
    return os.read(descriptor, size)


def _seek_and_write(descriptor: int, data: bytes, position: int) -> int:
    os.lseek(descriptor, position, os.SEEK_SET)
    return os.write(descriptor, data)


class _DiskSharedBytes:
    __slots__ = ("_descriptor", "_map", "_path", "identity")

    def __init__(self, path: str, size: int, write: bool) -> None:
        flags = os.O_RDWR | os.O_CREAT if write else os.O_RDONLY
        self._path = path
        self._descriptor = os.open(path, flags | _BINARY | _CLOEXEC, 0o666)
        try:
            status = os.fstat(self._descriptor)
            if status.st_size < size:
                if not write:
                    raise OSError(errno.EINVAL, "shorter than it should be", path)
                with _naming(path):
                    os.ftruncate(self._descriptor, size)
            self.identity = (status.st_dev, status.st_ino)
            access = mmap.ACCESS_WRITE if write else mmap.ACCESS_READ
            self._map = mmap.mmap(self._descriptor, size, access=access)
        except BaseException:
            os.close(self._descriptor)
            raise

    @property
    def buffer(self) -> mmap.mmap:
        return self._map

    def sync(self) -> None:
        with _naming(self._path):
            self._map.flush()
            os.fsync(self._descriptor)

    def close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            self._map.close()
            os.close(descriptor)


class _DiskLock:
    __slots__ = ("_descriptor", "acquire", "release")

    def __init__(self, path: str) -> None:
        if fcntl is None:
            raise OSError(errno.ENOTSUP, "this platform has no flock: read only", path)
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | _CLOEXEC, 0o666)
        self.acquire: Callable[[], None] = partial(
            fcntl.flock, self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB
        )
        self.release: Callable[[], None] = partial(fcntl.flock, self._descriptor, fcntl.LOCK_UN)

    def close(self) -> None:
        # A descriptor that a child inherited by fork shares the lock with its parent's: closing
        # it there leaves the parent's lock alone, where LOCK_UN would take it away.
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            self.acquire = self.release = _closed
            os.close(descriptor)


def read_bounded(files: Files, path: str, max_bytes: int) -> bytes:
    """The whole of a small file; raises OSError (EFBIG) when it is larger than ``max_bytes``."""
    size = files.size(path)
    if size > max_bytes:
        raise OSError(errno.EFBIG, f"of {size} bytes, where at most {max_bytes} make sense", path)
    file = files.open(path)
    try:
        return file.read_at(size, 0)
    finally:
        file.close()


def write_fully(file: File, data: bytes, position: int) -> None:
    """Write all of ``data``, or raise the OSError that says why not."""
    try:  # not ``_naming``, which would cost as much as the write of an index entry
        written = file.write_at(data, position)
        while written < len(data):
            # A short write is followed by the error that caused it, as soon as one asks again.
            more = file.write_at(data[written:], position + written)
            if more == 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            written += more
    except OSError as error:
        if error.filename is None:
            error.filename = file.path
        raise


def write_synced(files: Files, path: str, data: bytes) -> None:
    """Write a whole file, new or not, and return when its bytes are on stable storage.

    In place: a crash may leave anything between the old content and the new.
    """
    file = files.open(path, write=True, create=True)
    try:
        file.truncate(0)
        write_fully(file, data, 0)
        file.sync()
    finally:
        file.close()


def write_atomically(files: Files, path: str, data: bytes) -> None:
    """Replace a small file as a whole.

    Commit point: the rename. A crash before it leaves the old file (and perhaps a ``.tmp`` beside
    it, which the next write replaces), a crash after it the new one; the directory's sync makes it
    last.
    """
    temporary = path + ".tmp"
    write_synced(files, temporary, data)
    files.rename(temporary, path)
    files.sync_directory(os.path.dirname(path) or ".")
