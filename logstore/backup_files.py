"""Files of a backup: copies between file systems, links, and trees that are synced as a whole.

A backup is made of a disk's files, and lies on a disk; so this stands beside the seam of
``logstore.segments.files``, which knows neither links nor whole trees.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from typing import NamedTuple

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = [
    "Source",
    "clone",
    "contents",
    "remove_tree",
    "sync_directory",
    "sync_tree",
    "write_file",
]

_FICLONE = 0x40049409
"""Linux: let a new file share the blocks of another one, each block until it is written to."""
_COPY_BYTES = 1 << 20
_BINARY: int = getattr(os, "O_BINARY", 0)


class Source(NamedTuple):
    """What a file was copied from; a file that was replaced or changed has another one."""

    device: int
    inode: int
    size: int
    modified_ns: int

    @classmethod
    def of(cls, file: str | int) -> Source:
        """The source at a path, or of a descriptor."""
        status = os.stat(file)
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


def clone(source: int, path: str, size: int) -> int:
    """Copy the first ``size`` bytes of the descriptor ``source`` to a new file, sharing blocks
    where the file system can, and return how many there were."""
    target = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | _BINARY, 0o666)
    try:
        with _naming(path):
            return _clone(source, target, size)
    finally:
        os.close(target)


@contextlib.contextmanager
def _naming(path: str) -> Iterator[None]:
    """Let errors that know only a descriptor say which file it is."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = path
        raise


def _clone(source: int, target: int, size: int) -> int:
    if size and fcntl is not None and os.fstat(source).st_size == size:
        with contextlib.suppress(OSError):
            fcntl.ioctl(target, _FICLONE, source)
            return size
    position = 0
    while position < size:
        data = os.pread(source, min(_COPY_BYTES, size - position), position)
        if not data:
            break
        position += _write(target, data)
    return position


def _write(descriptor: int, data: bytes) -> int:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
    return len(data)


def contents(path: str) -> bytes:
    """The whole of a file."""
    with open(path, "rb") as file:
        return file.read()


def write_file(path: str, data: bytes) -> None:
    """Make a file, and sync it."""
    with _naming(path), open(path, "xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sync_directory(path: str) -> None:
    """Return when the names in a directory are on stable storage."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(path: str) -> None:
    """Return when everything below ``path`` is on stable storage."""
    for directory, _, names in os.walk(path, topdown=False):
        for name in names:
            sync_directory(os.path.join(directory, name))  # a file is synced in the same way
        sync_directory(directory)


def remove_tree(path: str) -> None:
    """Remove a directory and everything in it."""
    shutil.rmtree(path)
