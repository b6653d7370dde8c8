"""A file system in memory, for the simulator and for tests: it knows what a power cut would lose.

Every file remembers its bytes as of its last sync and what was written since; every directory the
names that were synced. :meth:`MemoryFiles.crash` gives the file system as it would be found after
a power cut. What it may lose follows the numbered assumptions of ``docs/crash-safety.md``.
"""

from __future__ import annotations

import enum
import errno
import os
import posixpath
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from logstore.segments.errors import InvalidInputError
from logstore.segments.files import File, FileLock, SharedBytes, Watch

__all__ = ["CrashMode", "MemoryFiles"]

SECTOR_BYTES = 512


class CrashMode(enum.Enum):
    """What a crash does to bytes and names that were not synced."""

    KILL = "kill"
    """Only the process dies: the kernel still has everything."""
    LOSE = "lose"
    """All of them are lost."""
    TEAR = "tear"
    """Of each file's and each directory's changes a beginning survives, cut anywhere."""
    REORDER = "reorder"
    """Any sectors and any names survive, in any order; a file may have grown and hold zeros."""


@dataclass(slots=True, eq=False)
class _Inode:
    number: int
    data: bytearray = field(default_factory=bytearray)
    synced: bytearray = field(default_factory=bytearray)
    """The content as of the last sync."""
    pending: list[tuple[int, bytes | None]] = field(default_factory=list)
    """What came since: (position, bytes) of a write, (size, None) of a truncation."""
    secretive: bool = False
    """Whether it may have changed without a write: it was mapped, or a bit turned over."""
    modified_ms: int = 0
    renamed_ms: int = 0


class MemoryFiles:
    """The seam ``Files``, kept in memory. ``capacity`` bounds the bytes of all files together;
    ``now_ms`` is the clock by which files bear their times (without one it stands at 0)."""

    def __init__(
        self,
        *,
        capacity: int | None = None,
        boot: int = 1,
        now_ms: Callable[[], int] = lambda: 0,
    ) -> None:
        self.capacity = capacity
        self.now_ms = now_ms
        self.boot = boot
        """Counts the starts of the machine."""
        self.written = 0
        """Bytes written so far, overwritten and removed ones included."""
        self._inodes = 0
        self._names: dict[str, _Inode | None] = {"/": None, ".": None}
        """What every path leads to; None is a directory."""
        self._synced_names: dict[str, _Inode | None] = dict(self._names)
        """The same as of each directory's last sync."""
        self._changes: list[tuple[str, _Inode | None, str | None]] = []
        """Changes of names since: (path, what it leads to, None), (path, None, removed), or
        (new path, inode, old path) of a rename."""
        self._locked: set[int] = set()
        """Inodes whose lock somebody holds."""

    def happens(self, what: str, path: str) -> None:
        """Called before every sync and change of a name; a test overrides it, to crash there."""

    # Files ------------------------------------------------------------------------------------

    def open(self, path: str, *, write: bool = False, create: bool = False) -> File:
        """Open a file; with ``create`` one that may not be there yet."""
        return _MemoryFile(self, path, self._inode(path, create=create), write)

    def _inode(self, path: str, *, create: bool = False) -> _Inode:
        key = posixpath.normpath(path)
        if key in self._names:
            inode = self._names[key]
            if inode is None:
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
            return inode
        if not create or not self.is_directory(posixpath.dirname(key) or "."):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        self.happens("create", path)
        self._inodes += 1
        inode = self._names[key] = _Inode(self._inodes, modified_ms=self.now_ms())
        self._changes.append((key, inode, None))
        return inode

    def names(self, path: str) -> list[str]:
        """The sorted names of what a directory contains."""
        key = posixpath.normpath(path)
        if not self.is_directory(path):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        prefix = "" if key == "." else key.rstrip("/") + "/"
        found = [name[len(prefix) :] for name in self._names if name.startswith(prefix)]
        return sorted(name for name in found if name and name != "." and "/" not in name)

    def exists(self, path: str) -> bool:
        """Whether there is a file or directory of that name."""
        return posixpath.normpath(path) in self._names

    def is_directory(self, path: str) -> bool:
        """Whether there is a directory of that name."""
        return self._names.get(posixpath.normpath(path), ...) is None

    def size(self, path: str) -> int:
        """Bytes in a file."""
        return len(self._inode(path).data)

    def links(self, path: str) -> int:
        """How many names a file has: there are no links here."""
        self._inode(path)
        return 1

    def times_ms(self, path: str) -> tuple[int, int]:
        """When a file's bytes, and when bytes or names last changed: milliseconds since 1970."""
        inode = self._inode(path)
        return inode.modified_ms, max(inode.modified_ms, inode.renamed_ms)

    def make_directory(self, path: str) -> None:
        """Make a directory, and its parents, unless it is there; their names are synced."""
        key = posixpath.normpath(path)
        if self.is_directory(key):
            return
        parent = posixpath.dirname(key) or "."
        self.make_directory(parent)
        if key in self._names:
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
        self.happens("make_directory", path)
        self._names[key] = None
        self._synced_names[key] = None

    def rename(self, old: str, new: str) -> None:
        """Give a file another name, replacing what has that name, in one step."""
        if self.is_directory(old):
            self._rename_directory(old, new)
            return
        inode = self._inode(old)
        self.happens("rename", new)
        inode.renamed_ms = self.now_ms()
        del self._names[posixpath.normpath(old)]
        self._names[posixpath.normpath(new)] = inode
        self._changes.append((posixpath.normpath(new), inode, posixpath.normpath(old)))

    def remove(self, path: str) -> None:
        """Remove a file's name."""
        self._inode(path)
        self.happens("remove", path)
        key = posixpath.normpath(path)
        del self._names[key]
        self._changes.append((key, None, key))

    def _rename_directory(self, old: str, new: str) -> None:
        """With all that is in it; such a name is synced at once, as a new directory's is."""
        if self.exists(new):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), new)
        self.happens("rename", new)
        source, target = posixpath.normpath(old), posixpath.normpath(new)

        def moved(path: str) -> str:
            inside = path == source or path.startswith(source + "/")
            return target + path[len(source) :] if inside else path

        self._names = {moved(path): inode for path, inode in self._names.items()}
        self._synced_names = {moved(path): inode for path, inode in self._synced_names.items()}
        self._changes = [
            (moved(path), inode, before and moved(before)) for path, inode, before in self._changes
        ]

    def remove_directory(self, path: str) -> None:
        """Remove an empty directory."""
        if self.names(path):
            raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), path)
        self.happens("remove_directory", path)
        for names in (self._names, self._synced_names):
            names.pop(posixpath.normpath(path), None)

    def sync_directory(self, path: str) -> None:
        """Return when the names in a directory are on stable storage."""
        self.happens("sync_directory", path)
        key = posixpath.normpath(path)
        kept = []
        for change in self._changes:
            if (posixpath.dirname(change[0]) or ".") == key:
                _apply(self._synced_names, change)
            else:
                kept.append(change)
        self._changes = kept

    def share(self, path: str, size: int, *, write: bool = True) -> SharedBytes:
        """Map a file of ``size`` bytes, made (zero-filled) if it is not there."""
        inode = self._inode(path, create=write)
        if len(inode.data) < size:
            if not write:
                raise OSError(errno.EINVAL, "shorter than it should be", path)
            inode.data.extend(bytes(size - len(inode.data)))
        inode.secretive = True
        return _MemorySharedBytes(self, path, inode)

    def lock(self, path: str) -> FileLock:
        """A lock on a file, made if it is not there."""
        return _MemoryLock(self, self._inode(path, create=True))

    def watch(self, *paths: str) -> Watch | None:
        """None: whoever waits here polls, by a clock of its own."""
        return None

    def boot_id(self) -> str:
        """What changes when the machine restarts, and what is unsynced is lost."""
        return f"boot-{self.boot}"

    @property
    def used(self) -> int:
        """Bytes of all files together."""
        inodes = {inode.number: inode for inode in self._names.values() if inode is not None}
        return sum(len(inode.data) for inode in inodes.values())

    def paths(self) -> list[str]:
        """The sorted paths of all files; directories are not among them."""
        return sorted(path for path, inode in self._names.items() if inode is not None)

    # Crashes ----------------------------------------------------------------------------------

    def flip(self, path: str, position: int) -> None:
        """Turn a bit of the byte at ``position`` over, as if the disk had: what was synced is
        changed, too, and nobody is told. Raises InvalidInputError where the file has no such byte.
        """
        inode = self._inode(path)
        if not 0 <= position < len(inode.data):
            raise InvalidInputError(f"{path} has {len(inode.data)} bytes, none at {position}")
        inode.secretive = True
        inode.data[position] ^= 1
        if position < len(inode.synced):
            inode.synced[position] ^= 1

    def crash(self, mode: CrashMode, rng: random.Random | None = None) -> MemoryFiles:
        """The file system that is found after a crash now; this one is not changed.

        ``rng`` decides what survives in the modes TEAR and REORDER. After anything but KILL the
        machine has been started anew: the boot id is another.
        """
        rng = rng or random.Random(0)
        boot = self.boot + (mode is not CrashMode.KILL)
        after = MemoryFiles(capacity=self.capacity, boot=boot, now_ms=self.now_ms)
        after._inodes = self._inodes
        copies: dict[int, _Inode] = {}

        def copy(inode: _Inode | None) -> _Inode | None:
            if inode is not None and inode.number not in copies:
                copies[inode.number] = _copy(inode, mode, rng)
            return None if inode is None else copies[inode.number]

        if mode is CrashMode.KILL:  # what was not synced is still not
            after._names = {path: copy(inode) for path, inode in self._names.items()}
            after._synced_names = {path: copy(i) for path, i in self._synced_names.items()}
            after._changes = [(new, copy(inode), old) for new, inode, old in self._changes]
            return after
        names = dict(self._synced_names)
        for change in _survivors(self._changes, mode, rng):
            _apply(names, change)
        after._names = {path: copy(names[path]) for path in sorted(names)}
        after._synced_names = dict(after._names)
        return after


def _apply(names: dict[str, _Inode | None], change: tuple[str, _Inode | None, str | None]) -> None:
    path, inode, old = change
    if old is not None:
        names.pop(old, None)
    if inode is not None:
        names[path] = inode


def _survivors(
    changes: list[tuple[str, _Inode | None, str | None]], mode: CrashMode, rng: random.Random
) -> list[tuple[str, _Inode | None, str | None]]:
    if mode is CrashMode.LOSE:
        return []
    if mode is CrashMode.TEAR:
        return changes[: rng.randint(0, len(changes))]
    return [change for change in changes if rng.random() < 0.5]


def _copy(inode: _Inode, mode: CrashMode, rng: random.Random) -> _Inode:
    if mode is CrashMode.KILL:
        data, synced = bytearray(inode.data), bytearray(inode.synced)
        after = _Inode(inode.number, data, synced, list(inode.pending))
    else:
        data = _survive(inode, mode, rng)
        after = _Inode(inode.number, data, bytearray(data))
    after.secretive = inode.secretive
    after.modified_ms, after.renamed_ms = inode.modified_ms, inode.renamed_ms
    return after


def _survive(inode: _Inode, mode: CrashMode, rng: random.Random) -> bytearray:
    data = bytearray(inode.synced)
    pending = inode.pending
    if mode is CrashMode.LOSE:
        return data
    if mode is CrashMode.TEAR:
        count = rng.randint(0, len(pending))
        for position, written in pending[:count]:
            _write(data, position, written)
        if count < len(pending) and (torn := pending[count])[1] is not None:
            written = torn[1] or b""
            _write(data, torn[0], written[: rng.randint(0, len(written))])
        return data
    # Any of the sectors that differ may have been written, or not.
    final = inode.data
    size = rng.choice((len(data), len(final)))
    data = data[:size] + bytes(max(0, size - len(data)))
    for start in range(0, min(size, len(final)), SECTOR_BYTES):
        stop = min(start + SECTOR_BYTES, size, len(final))
        if rng.random() < 0.5:
            data[start:stop] = final[start:stop]
    return data


def _write(data: bytearray, position: int, written: bytes | None) -> None:
    if written is None:
        del data[position:]
        data.extend(bytes(position - len(data)))
        return
    if position > len(data):
        data.extend(bytes(position - len(data)))
    data[position : position + len(written)] = written


class _MemoryFile:
    def __init__(self, files: MemoryFiles, path: str, inode: _Inode, write: bool) -> None:
        self.path = path
        self._files = files
        self._inode = inode
        self._write = write
        self._closed = False

    def _bad(self) -> OSError:
        return OSError(errno.EBADF, os.strerror(errno.EBADF), self.path)

    def read_at(self, size: int, position: int) -> bytes:
        if self._closed:
            raise self._bad()
        return bytes(self._inode.data[position : position + size])

    def write_at(self, data: bytes, position: int) -> int:
        if self._closed or not self._write:
            raise self._bad()
        if self._files.capacity is not None:
            growth = position + len(data) - len(self._inode.data)
            room = self._files.capacity - self._files.used
            if growth > room:
                data = data[: max(0, len(data) - growth + max(room, 0))]
                if not data:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self.path)
        inode, data = self._inode, bytes(data)
        if position == len(inode.data):  # a log only grows
            inode.data += data
        else:
            _write(inode.data, position, data)
        inode.modified_ms = self._files.now_ms()
        inode.pending.append((position, data))
        self._files.written += len(data)
        return len(data)

    def size(self) -> int:
        if self._closed:
            raise self._bad()
        return len(self._inode.data)

    def truncate(self, size: int) -> None:
        if self._closed or not self._write:
            raise self._bad()
        _write(self._inode.data, size, None)
        self._inode.modified_ms = self._files.now_ms()
        self._inode.pending.append((size, None))

    def sync(self) -> None:
        if self._closed:
            raise self._bad()
        self._files.happens("sync", self.path)
        inode = self._inode
        if inode.secretive:
            inode.synced[:] = inode.data
        elif inode.pending:  # a large file is not copied for a small batch
            changed = min(len(inode.synced), *[position for position, _ in inode.pending])
            inode.synced[changed:] = inode.data[changed:]
        inode.pending.clear()

    def close(self) -> None:
        self._closed = True


class _MemorySharedBytes:
    def __init__(self, files: MemoryFiles, path: str, inode: _Inode) -> None:
        self._files = files
        self._path = path
        self._inode = inode
        self.identity = (0, inode.number)

    @property
    def buffer(self) -> bytearray:
        return self._inode.data

    def sync(self) -> None:
        self._files.happens("sync", self._path)
        self._inode.synced[:] = self._inode.data

    def close(self) -> None:
        pass


class _MemoryLock:
    def __init__(self, files: MemoryFiles, inode: _Inode) -> None:
        self._files = files
        self._inode = inode
        self._held = False

    def acquire(self) -> None:
        locked, number = self._files._locked, self._inode.number
        if number in locked:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        locked.add(number)
        self._held = True

    def release(self) -> None:
        if self._held:
            self._held = False
            self._files._locked.discard(self._inode.number)

    def close(self) -> None:
        if self._held:
            self.release()
