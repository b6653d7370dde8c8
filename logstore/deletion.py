"""Taking away the directories of topics that were deleted.

The definition is gone by then (the commit point); a crash anywhere in here is made up for by
whoever opens the store for writing next, or maintains it. For each partition:

1. Under the partition's lock the flag ``DELETED`` is set in the shared state: every handle, in all
   processes, refuses from now on.
2. Under the lock ``cleaner``, so that no compaction writes files by their old names into what may
   soon be another topic's directory, the directory is renamed to ``<name>-<n>.<id>-delete``.
3. What has such a name is removed.
"""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator

from logstore.clock import Clock
from logstore.handle import LOCK_FILE, STATE_FILE
from logstore.locking import PartitionLock
from logstore.log import PartitionLog
from logstore.segments import filenames
from logstore.segments.files import Files
from logstore.state import STATE_BYTES, StateFile
from logstore.structure import CLEANER_LOCK, remove_tree

__all__ = ["mark_deleted", "remove_deleted", "take_away"]

_LOCK_SECONDS = 5.0


def take_away(
    files: Files, clock: Clock, topics: str, name: str, number: int, topic_id: uuid.UUID
) -> None:
    """Steps 1 and 2 for a partition in the directory ``topics``, if it is there.

    Raises LockTimeoutError when somebody holds one of its locks for 5 s.
    """
    directory = os.path.join(topics, filenames.partition_directory(name, number))
    if not files.is_directory(directory):
        return
    with _locked(files, clock, directory, LOCK_FILE):
        shared = files.share(os.path.join(directory, STATE_FILE), STATE_BYTES)
        try:
            StateFile(shared, files.boot_id()).mark_deleted()
        finally:
            shared.close()
    target = os.path.join(topics, filenames.deleted_directory(name, number, topic_id.hex))
    with _locked(files, clock, directory, CLEANER_LOCK):
        if files.is_directory(target):  # a handle made the directory anew when it was gone
            remove_tree(files, target)
        files.rename(directory, target)
        files.sync_directory(topics)


def mark_deleted(log: PartitionLog) -> None:
    """Step 1 for a log that is open here, by whoever holds its lock."""
    if log._state_file is not None:
        log._state_file.mark_deleted()


@contextlib.contextmanager
def _locked(files: Files, clock: Clock, directory: str, name: str) -> Iterator[None]:
    lock = PartitionLock(
        files.lock(os.path.join(directory, name)),
        name=f"{directory} ({name})",
        clock=clock,
        timeout=_LOCK_SECONDS,
    )
    try:
        with lock.held():
            yield
    finally:
        lock.close()


def remove_deleted(files: Files, topics: str) -> None:
    """Step 3 for all that were renamed. Several processes may be at it."""
    for name in files.names(topics):
        if filenames.is_deleted_directory(name):
            remove_tree(files, os.path.join(topics, name))
