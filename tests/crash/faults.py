"""Files in memory of which some operations fail, as a broken or full disk lets them fail."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from logstore.segments.files import File
from logstore.segments.memory_files import MemoryFiles

__all__ = ["FaultyFiles"]

Fault = Callable[[str, str], int | None]
"""The number of the error with which an operation on a path fails, if it does."""


PAGE_BYTES = 64
"""Smaller than real ones, so that few of them are written again by chance."""


class FaultyFiles(MemoryFiles):
    """``fault`` decides on every operation. As the seam promises, errors carry their path; only
    ``write_at``, which passes on the operating system's own, lacks it.

    A failed sync does what assumption 6 fears: the pages that it was to save count as clean, so
    that the next sync succeeds and saves none of them; only the cache still has them, until they
    are dropped (``evict``) or the power fails.
    """

    def __init__(self, *, capacity: int | None = None, boot: int = 1) -> None:
        super().__init__(capacity=capacity, boot=boot)
        self.fault: Fault = lambda what, path: None
        self.operations = 0
        """How many could have failed so far."""
        self.ghosts: dict[int, dict[int, bytes]] = {}
        """By inode, the pages that only the cache has, and what the disk has in their place."""

    def happens(self, what: str, path: str) -> None:
        self.ask(what, path)

    def ask(self, what: str, path: str) -> None:
        """Raise the error with which this operation fails, if it does."""
        self.operations += 1
        number = self.fault(what, path)
        if number is not None:
            raise OSError(number, os.strerror(number), path)

    def fail_at(self, number: int, error: int) -> None:
        """Let the operation ``number`` from now on fail, once."""
        wanted = self.operations + number
        self.fault = lambda what, path: error if self.operations == wanted else None

    def heal(self) -> None:
        """Let nothing fail any more."""
        self.fault = lambda what, path: None

    def evict(self) -> None:
        """Drop the pages that only the cache had: whoever reads them reads the disk."""
        for path, inode in self._names.items():
            for page, disk in self.ghosts.pop(inode.number, {}).items() if inode else ():
                start = page * PAGE_BYTES
                size = min(PAGE_BYTES, len(inode.data) - start) if inode else 0
                if inode and size > 0:
                    inode.data[start : start + size] = disk[:size].ljust(size, b"\0")
                    assert path

    def open(self, path: str, *, write: bool = False, create: bool = False) -> File:
        return _FaultyFile(self, super().open(path, write=write, create=create))


class _FaultyFile:
    def __init__(self, files: FaultyFiles, file: Any) -> None:
        self._files = files
        self._file = file
        self._inode: Any = file._inode
        self.path: str = file.path
        self.read_at = file.read_at
        self.size = file.size
        self.close = file.close

    def write_at(self, data: bytes, position: int) -> int:
        try:
            self._files.ask("write", self.path)
            written: int = self._file.write_at(data, position)
        except OSError as error:
            error.filename = None
            raise
        ghosts = self._files.ghosts.get(self._inode.number, {})
        for page in range(position // PAGE_BYTES, (position + written) // PAGE_BYTES + 1):
            ghosts.pop(page, None)  # written anew as a whole
        return written

    def truncate(self, size: int) -> None:
        self._files.ask("truncate", self.path)
        self._file.truncate(size)

    def sync(self) -> None:
        inode = self._inode
        ghosts = self._files.ghosts.setdefault(inode.number, {})
        disk = inode.synced
        try:
            self._file.sync()
        except OSError:
            for start in range(0, len(inode.data), PAGE_BYTES):
                page = slice(start, start + PAGE_BYTES)
                if bytes(inode.data[page]) != disk[page]:
                    ghosts.setdefault(start // PAGE_BYTES, disk[page])
            inode.pending.clear()
            raise
        saved = bytearray(inode.data)
        for number, old in ghosts.items():
            start = number * PAGE_BYTES
            size = min(PAGE_BYTES, len(saved) - start)
            if size > 0:
                saved[start : start + size] = old[:size].ljust(size, b"\0")
        inode.synced = bytearray(saved)
