"""The LMDB environments that this process has open.

LMDB forbids to open one twice in a process, and to use one in a child of ``fork``. So all handles
of a process share an environment, whatever path they came by, and a child closes the ones that it
inherited: that gives back its copies of descriptors and maps and touches nothing of the parent's
(LMDB clears only reader slots that carry the caller's process id). A call that another thread of
the parent was in would never end in the child; :data:`busy` keeps forks and calls apart.

LMDB's errors become the operating system's own, or FormatError where the file is to blame.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import lmdb

try:
    import fcntl
except ImportError:  # a platform on which stores can only be read
    fcntl = None  # type: ignore[assignment]

from logstore.errors import ForkedError, FormatError
from logstore.segments.files import DiskFiles
from logstore.tables import Tables

__all__ = ["DATA_FILE", "LOCK_FILE", "Environment", "busy", "in_use", "open_environment"]

_T = TypeVar("_T")

_MAP_BYTES = 1 << 40
"""Address space that is set aside: 1 TiB. The file stays as small as what is in it."""
_MAX_READERS = 4096
_NEXT_TO_NO_ROOM_BYTES = 1 << 20
_MAX_TABLES = 64
DATA_FILE = "data.mdb"
LOCK_FILE = "lock.mdb"
"""The names are LMDB's own."""

busy = threading.RLock()
"""Held around every call into LMDB, and by whoever forks."""


class Environment:
    """An open environment, shared by its users."""

    def __init__(
        self, directory: str, key: tuple[int, int], read_only: bool, *, sync: bool = True
    ) -> None:
        self.directory = directory
        self.key = key
        """Device and inode of the directory."""
        self.read_only = read_only
        self.users = 0
        self.forked = False
        """Whether it is the parent's, and this process a child."""
        self._sync = sync
        self.handle = _open(directory, read_only, sync)
        """LMDB's own; replaced when somebody wants to write to what was only read."""
        self._tables: dict[str, Any] = {}
        """LMDB's handles of tables, by their names, as far as ``write`` has opened them."""

    @contextlib.contextmanager
    def transaction(self, *, write: bool = False) -> Iterator[Any]:
        """A transaction; it is committed unless the block raises."""
        with busy, _errors(self.directory):
            self._check_usable()
            with self.handle.begin(write=write) as transaction:
                yield transaction

    def read(self, action: Callable[[Tables], _T]) -> _T:
        """What ``action`` makes of the tables, as they are at one moment: the same as a ``with``
        block around it, in half the time."""
        with busy:
            self._check_usable()
            try:
                with self.handle.begin() as transaction:
                    return action(Tables(self.handle, transaction, self._tables))
            except lmdb.Error as error:
                raise _translated(error, self.directory) from error

    def write(self, action: Callable[[Tables], _T], main: str = "") -> _T:
        """``action`` in a transaction, which is committed unless it raises. ``main`` is the table
        that it is mostly about: the rows of that one cost less."""
        with busy:
            if self.forked:
                self._check_usable()
            # A handle lasts as soon as the transaction that opened it is committed; looking it up
            # by its name in each one would be a tenth of a short one.
            known = self._tables
            table = known.get(main)
            try:
                with self.handle.begin(table, None, True) as transaction:
                    tables = Tables(self.handle, transaction, known, table)
                    result = action(tables)
            except lmdb.Error as error:
                raise _translated(error, self.directory) from error
            if tables.opened:
                known.update(tables.opened)
            return result

    def copy(self, directory: str) -> None:
        """Copy everything, as it is at one moment, into an empty directory."""
        try:
            with busy, _errors(self.directory):
                self._check_usable()
                self.handle.copy(directory)
        except OSError as error:
            error.filename = directory  # which is what may be full
            raise

    def check_readers(self) -> None:
        """Give back the slots of readers that were killed: what they were looking at is kept for
        them, and the file grows."""
        with busy, _errors(self.directory):
            self.handle.reader_check()

    def last_transaction(self) -> int:
        """The number of the last transaction that was committed, by any process."""
        with busy:
            if self.forked:
                self._check_usable()
            number: int = self.handle.info()["last_txnid"]
            return number

    def _check_usable(self) -> None:
        if self.forked:
            raise ForkedError(
                f"{self.directory}: this handle belongs to the parent process; open the store again"
            )

    def allow_writing(self) -> None:
        """Open it anew for writing. Nobody is in it: the caller is ``busy``."""
        if self.read_only:
            self.handle.close()
            self._tables.clear()
            try:
                self.handle = _open(self.directory, False, self._sync)
            except BaseException:
                self.handle = _open(self.directory, True, self._sync)
                raise
            self.read_only = False

    def close(self) -> None:
        """Let go of it; the last of its users closes it."""
        with busy:
            self.users -= 1
            if self.users == 0:
                self.handle.close()
                _environments.pop(self.key, None)


_environments: dict[tuple[int, int], Environment] = {}


def in_use(directory: str) -> bool:
    """Whether the environment in a directory is open, in this process or in another one: each
    user holds a lock of POSIX's on the first byte of the lock file."""
    status = os.stat(directory)
    path = os.path.join(directory, LOCK_FILE)
    # To let go of such a lock is to let go of all that the process has on the file, LMDB's too.
    with busy:
        if (status.st_dev, status.st_ino) in _environments:
            return True
        try:
            descriptor = os.open(path, os.O_RDWR)
        except FileNotFoundError:
            return False
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
    return False


def open_environment(directory: str, *, read_only: bool, sync: bool = True) -> Environment | None:
    """The environment in a directory, made if it is not there; with ``read_only`` it is not made,
    and None says so. Each caller closes it once. Without ``sync`` a commit survives the end of the
    process, and not a power cut, which may even leave the file torn."""
    with busy:
        if read_only:
            # One that somebody is just making begins as an empty file.
            with contextlib.suppress(FileNotFoundError):
                if os.stat(os.path.join(directory, DATA_FILE)).st_size:
                    return _share(directory, read_only=True, sync=sync)
            return None
        DiskFiles().make_directory(directory)
        return _share(directory, read_only=False, sync=sync)


def _share(directory: str, *, read_only: bool, sync: bool) -> Environment:
    status = os.stat(directory)
    key = (status.st_dev, status.st_ino)
    environment = _environments.get(key)
    if environment is None:
        environment = _environments[key] = Environment(directory, key, read_only, sync=sync)
    elif not read_only:
        environment.allow_writing()
    environment.users += 1
    return environment


def _open(directory: str, read_only: bool, sync: bool) -> Any:
    # A reader that cannot note itself in the lock file relies on nobody writing there.
    locking = not read_only or os.access(directory, os.W_OK)
    with _errors(directory):
        handle = lmdb.open(
            directory,
            map_size=_MAP_BYTES,
            max_readers=_MAX_READERS,
            max_dbs=_MAX_TABLES,
            readonly=read_only,
            lock=locking,
            create=not read_only,
            sync=sync,
        )
        if not read_only:
            handle.reader_check()  # gives back the slots of readers that were killed
        return handle


@contextlib.contextmanager
def _errors(directory: str) -> Iterator[None]:
    try:
        yield
    except lmdb.Error as error:
        raise _translated(error, directory) from error


def _translated(error: lmdb.Error, directory: str) -> Exception:
    """The operating system's error, or ours, that LMDB's is."""
    if isinstance(error, lmdb.ReadonlyError):
        return PermissionError(errno.EACCES, os.strerror(errno.EACCES), directory)
    code = getattr(error, "code", 0) or 0
    if code == errno.EIO and _is_full(directory):
        code = errno.ENOSPC
    if code > 0:
        return OSError(code, os.strerror(code), directory)
    path = os.path.join(directory, DATA_FILE)
    return FormatError("LMDB cannot use this file", path=path, found=error)


def _is_full(directory: str) -> bool:
    """Whether there is next to no room. LMDB calls a write that fell short an error of the disk."""
    try:
        status = os.statvfs(directory)
    except (OSError, AttributeError):
        return False
    return status.f_bavail * status.f_frsize < _NEXT_TO_NO_ROOM_BYTES


def _close_inherited() -> None:
    """In a child of ``fork``: whoever wants to use an environment opens it anew."""
    for environment in _environments.values():
        environment.handle.close()
        environment.forked = True
    _environments.clear()
    busy.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=busy.acquire, after_in_parent=busy.release, after_in_child=_close_inherited
    )
