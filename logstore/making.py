"""Making a store, and finding out which one a directory is."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator

from logstore.clock import Clock
from logstore.errors import (
    InvalidInputError,
    LockTimeoutError,
    StoreNotFoundError,
)
from logstore.metadata import META, TOPICS
from logstore.segments.files import FileLock, Files, write_atomically
from logstore.store_file import FORMAT_VERSION, new_store_file, read_store_file

__all__ = ["FORMAT_VERSION", "identify", "making"]

_STORE_FILE = "store.json"
_MAKING_SECONDS = 30


def identify(store: str, *, create: bool, files: Files, clock: Clock) -> uuid.UUID:
    """The id of the store in a directory, which is made with ``create`` if it is not there.

    Raises StoreNotFoundError, FormatError, UnsupportedFormatError for a store of another version,
    InvalidInputError for a directory that holds something else.
    """
    path = os.path.join(store, _STORE_FILE)
    if not files.exists(path):
        if not create:
            raise StoreNotFoundError(f"{store}: there is no store here")
        _make(store, path, files, clock)
    return read_store_file(files, path)


def _make(store: str, path: str, files: Files, clock: Clock) -> None:
    """Commit point: the rename of ``store.json``; until then the directory is no store."""
    if files.exists(store) and not files.is_directory(store):
        raise InvalidInputError(f"{store}: this is no directory")
    files.make_directory(store)
    strangers = set(files.names(store)) - {TOPICS, META, _STORE_FILE + ".tmp"}
    if strangers and not files.exists(path):
        raise InvalidInputError(
            f"{store}: will not make a store in a directory that holds other things "
            f"({min(strangers)!r}, for one)"
        )
    files.make_directory(os.path.join(store, TOPICS))
    with making(store, files=files, clock=clock):
        if not files.exists(path):
            write_atomically(files, path, new_store_file())


@contextlib.contextmanager
def making(store: str, *, files: Files, clock: Clock) -> Iterator[None]:
    """Held to make what several processes may find missing at once."""
    lock = files.lock(os.path.join(store, TOPICS, "lock"))
    try:
        _wait_for(lock, store, clock)
        yield
    finally:
        lock.close()


def _wait_for(lock: FileLock, store: str, clock: Clock) -> None:
    """Somebody else may be making the store; that takes a moment."""
    deadline = clock.monotonic() + _MAKING_SECONDS
    while True:
        try:
            lock.acquire()
            return
        except BlockingIOError:
            if clock.monotonic() > deadline:
                raise LockTimeoutError(
                    f"{store}: another process has been making the store or a partition for "
                    f"{_MAKING_SECONDS} seconds; is it stopped?"
                ) from None
        clock.sleep(0.001)
