"""Where partitions lie: their directories are made, opened as logs, and taken away.

A partition belongs to something that is defined in ``__metadata``: a topic, or a queue. The
definition comes first, and goes first: a directory that a crash left out is made when somebody
opens it for writing, and one that was left over is taken away (``logstore.deletion``).
"""

from __future__ import annotations

import contextlib
import errno
import os
import uuid
from collections.abc import Callable

from logstore.clock import Clock
from logstore.config import LogConfig
from logstore.deletion import take_away
from logstore.errors import UnknownTopicError
from logstore.log import PartitionLog
from logstore.segments import filenames
from logstore.segments.files import Files
from logstore.topic import write_topic_id

__all__ = ["PartitionFiles"]


class PartitionFiles:
    """The partitions in one directory of a store. Usable from many threads."""

    def __init__(
        self,
        directory: str,
        *,
        files: Files,
        clock: Clock,
        read_only: bool,
        making: Callable[[], contextlib.AbstractContextManager[None]],
        is_defined: Callable[[uuid.UUID, str], bool],
        kind: str,
    ) -> None:
        """``making`` is held to make what several processes may find missing at once.
        ``is_defined`` says whether what has this id, and this name here, is still defined; ``kind``
        is what it is called in errors."""
        self.directory = directory
        self._files = files
        self._clock = clock
        self._read_only = read_only
        self._making = making
        self._is_defined = is_defined
        self._kind = kind

    def path(self, name: str, number: int) -> str:
        """A partition's directory."""
        return os.path.join(self.directory, filenames.partition_directory(name, number))

    def exists(self, name: str, number: int) -> bool:
        """Whether a partition has files."""
        return self._files.is_directory(self.path(name, number))

    def open(self, name: str, number: int, owner_id: uuid.UUID, config: LogConfig) -> PartitionLog:
        """A partition's log, made unless it is there. Raises UnknownTopicError when its owner was
        deleted."""
        if not self._read_only:
            self.make(name, number, owner_id)
        try:
            with contextlib.ExitStack() as stack:
                log = PartitionLog(
                    self.path(name, number),
                    files=self._files,
                    clock=self._clock,
                    config=config,
                    read_only=self._read_only,
                )
                stack.callback(log.close)
                # Whoever deletes the owner marks its directories after the definition is gone. If
                # that was too early for this handle to notice, the definition is gone by now.
                self._check_defined(name, owner_id)
                stack.pop_all()
        except (UnknownTopicError, FileNotFoundError):
            self._clear_up(name, number, owner_id)
            self._check_defined(name, owner_id)
            if self._read_only and not self.exists(name, number):
                reason = "the partition has no directory: whoever opens the store to write makes it"
                raise FileNotFoundError(errno.ENOENT, reason, self.path(name, number)) from None
            raise
        return log

    def _check_defined(self, name: str, owner_id: uuid.UUID) -> None:
        if not self._is_defined(owner_id, name):
            raise UnknownTopicError(f"{self._kind} {name!r} was deleted")

    def _clear_up(self, name: str, number: int, owner_id: uuid.UUID) -> None:
        """Take away a directory that was perhaps made anew behind its owner's deletion."""
        if self._read_only or self._is_defined(owner_id, name):
            return
        with self._making():
            metadata = os.path.join(self.path(name, number), filenames.PARTITION_METADATA)
            if not self._files.exists(metadata):
                self.take_away(name, number, owner_id)

    def make(self, name: str, number: int, owner_id: uuid.UUID) -> None:
        """Make a partition's directory, unless it is there: somebody may want to read it before
        anybody writes. Raises UnknownTopicError when its owner was deleted."""
        directory = self.path(name, number)
        metadata = os.path.join(directory, filenames.PARTITION_METADATA)
        if self._files.exists(metadata):
            return
        with self._making():
            self._check_defined(name, owner_id)  # it is deleted with the same lock in hand
            self._files.make_directory(directory)
            if not self._files.exists(metadata):
                write_topic_id(self._files, directory, owner_id)

    def take_away(self, name: str, number: int, owner_id: uuid.UUID) -> None:
        """Take away a partition whose owner's definition is gone, if it is there. Raises
        LockTimeoutError when somebody holds one of its locks for 5 s."""
        take_away(self._files, self._clock, self.directory, name, number, owner_id)
