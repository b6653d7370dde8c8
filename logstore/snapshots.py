"""What a directory of backups holds (``logstore.backup``), and making a store of it again."""

from __future__ import annotations

import os
import re
from typing import NamedTuple, NoReturn

from logstore.backup_files import clone, contents, sync_directory, sync_tree, write_file
from logstore.errors import InvalidInputError
from logstore.segments import filenames
from logstore.segments.files import DiskFiles

__all__ = ["Snapshot", "restore", "snapshots"]

UNFINISHED = ".unfinished"
"""Behind the name of a snapshot that was interrupted, or is being removed."""
MANIFEST = "backup.json"
"""The file in a snapshot that says where its other files came from."""
STORE_FILE = "store.json"
NAME = re.compile(r"\d{8}T\d{6}\.\d{3}Z\Z")
"""The name of a finished snapshot: its time."""


class Snapshot(NamedTuple):
    """A finished backup."""

    name: str
    path: str


def snapshots(destination: str | os.PathLike[str]) -> list[Snapshot]:
    """The finished backups in a destination, the newest last."""
    top = os.fsdecode(destination)
    names = sorted(filter(NAME.match, os.listdir(top)))
    return [Snapshot(name, os.path.join(top, name)) for name in names]


def restore(backup: str | os.PathLike[str], destination: str | os.PathLike[str]) -> str:
    """Make a store of a backup in ``destination``, and return the path of the snapshot it is from.

    ``backup`` is a destination of backups, whose newest is taken, or one snapshot in it. Everything
    is copied, so the backup stays as it is. Raises InvalidInputError where there is no backup, or
    where the destination is there and not empty.

    Commit point: the rename of ``store.json``, which comes last. A crash before it leaves a
    directory that is no store.
    """
    source = _snapshot_at(os.fsdecode(backup))
    target = os.fsdecode(destination)
    if os.path.realpath(target).startswith(os.path.join(os.path.realpath(source), "")):
        raise InvalidInputError(f"{target}: a store cannot be restored into its backup")
    top = os.path.realpath(os.fsdecode(backup))
    if top != os.path.realpath(source) and os.path.realpath(target).startswith(f"{top}{os.sep}"):
        raise InvalidInputError(f"{target}: a directory of backups holds nothing but backups")
    if os.path.exists(target) and (not os.path.isdir(target) or os.listdir(target)):
        raise InvalidInputError(f"{target}: a store is restored into an empty directory, or none")
    DiskFiles().make_directory(target)
    for directory, _, names in os.walk(source, onerror=_fail):
        inside = os.path.relpath(directory, source)
        DiskFiles().make_directory(os.path.normpath(os.path.join(target, inside)))
        for name in names:
            if inside != ".":
                _copy_file(os.path.join(directory, name), os.path.join(target, inside, name))
    sync_tree(target)
    temporary = os.path.join(target, STORE_FILE + filenames.TEMPORARY)
    write_file(temporary, contents(os.path.join(source, STORE_FILE)))
    os.rename(temporary, os.path.join(target, STORE_FILE))
    sync_directory(target)
    return source


def _fail(error: OSError) -> NoReturn:
    """A folder that cannot be read must not be missing from what is restored without a word."""
    raise error


def _snapshot_at(path: str) -> str:
    if not os.path.isdir(path):
        raise InvalidInputError(f"{path}: there is no backup here")
    if os.path.basename(os.path.abspath(path)).endswith(UNFINISHED):
        raise InvalidInputError(f"{path}: this backup was interrupted; take another one")
    if os.path.exists(os.path.join(path, MANIFEST)):
        return path
    found = snapshots(path)
    if not found:
        raise InvalidInputError(f"{path}: there is no backup here")
    return found[-1].path


def _copy_file(source: str, target: str) -> None:
    descriptor = os.open(source, os.O_RDONLY)
    try:
        clone(descriptor, target, os.fstat(descriptor).st_size)
    finally:
        os.close(descriptor)
