"""A store: a directory with topics in it, which any number of processes may have open.

On disk::

    store.json                 format version, the store's id
    topics/<name>-<n>/         a partition: Kafka's files, plus `lock` and `state`
    meta/                      LMDB: the definitions
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any

from logstore.backup import BackupResult, back_up
from logstore.clock import Clock, SystemClock
from logstore.config import LogConfig
from logstore.errors import (
    ClosedError,
    ForkedError,
    FormatError,
    InvalidInputError,
    LockTimeoutError,
    PoisonedError,
    ReadOnlyError,
    StoreNotFoundError,
    UnknownTopicError,
    UnsupportedFormatError,
)
from logstore.log import PartitionLog
from logstore.maintenance import Maintenance, PartitionReport
from logstore.metadata import Metadata, TopicDefinition
from logstore.segments import filenames
from logstore.segments.checkpoint import PartitionMetadata, format_partition_metadata
from logstore.segments.files import DiskFiles, FileLock, Files, read_bounded, write_atomically
from logstore.topic import MAX_PARTITIONS, Topic, check_topic_name

__all__ = ["FORMAT_VERSION", "Store", "open_store"]

FORMAT_VERSION = 1
"""The version of the store's layout; a store of a newer one is refused."""

_STORE_FILE = "store.json"
_TOPICS = "topics"
_META = "meta"
_MAX_STORE_FILE_BYTES = 64 << 10
_MAKING_SECONDS = 30


def open_store(
    path: str | os.PathLike[str],
    *,
    create: bool = True,
    read_only: bool = False,
    maintenance_interval: float | None = 30.0,
    files: Files | None = None,
    clock: Clock | None = None,
) -> Store:
    """Open the store in the directory ``path``, and make it unless it is there.

    Raises StoreNotFoundError when it is not there and is not to be made (``create=False``, or
    ``read_only``, which changes nothing on disk), UnsupportedFormatError when a newer version of
    logstore made it, InvalidInputError when ``path`` holds something else.

    ``maintenance_interval``: the seconds between two rounds of retention and compaction in the
    background; None for none (:meth:`Store.maintain` does a round on demand).
    """
    return Store(
        path,
        create=create,
        read_only=read_only,
        maintenance_interval=maintenance_interval,
        files=files,
        clock=clock,
    )


class Store:
    """An open store. Usable from many threads; after ``fork`` a child opens its own."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        create: bool = True,
        read_only: bool = False,
        maintenance_interval: float | None = 30.0,
        files: Files | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.path = os.fspath(path)
        self._files: Files = files or DiskFiles()
        self._clock: Clock = clock or SystemClock()
        self._read_only = read_only
        self._pid = os.getpid()
        self._closed = False
        self._mutex = threading.Lock()
        self._topics: dict[uuid.UUID, Topic] = {}
        """Topics that somebody has asked for."""
        self.id = self._identify(create=create and not read_only)
        """The store's id."""
        self._metadata = Metadata(os.path.join(self.path, _META), read_only=read_only)
        self._maintenance = Maintenance(
            self._files, self.path, self._partitions, interval=maintenance_interval or 0.0
        )
        if maintenance_interval is not None and not read_only:
            self._maintenance.start()

    def _identify(self, *, create: bool) -> uuid.UUID:
        path = os.path.join(self.path, _STORE_FILE)
        if not self._files.exists(path):
            if not create:
                raise StoreNotFoundError(f"{self.path}: there is no store here")
            self._make(path)
        data = read_bounded(self._files, path, _MAX_STORE_FILE_BYTES)
        try:
            fields = json.loads(data)
            version, store_id = fields["format_version"], uuid.UUID(fields["store_id"])
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise FormatError("this is no store's description", path=path, found=error) from error
        if version != FORMAT_VERSION:
            raise UnsupportedFormatError(
                "the store was made by another version of logstore",
                path=path,
                expected=f"format version {FORMAT_VERSION}",
                found=version,
            )
        return store_id

    def _make(self, path: str) -> None:
        """Commit point: the rename of ``store.json``; until then the directory is no store."""
        if self._files.exists(self.path) and not self._files.is_directory(self.path):
            raise InvalidInputError(f"{self.path}: this is no directory")
        self._files.make_directory(self.path)
        strangers = set(self._files.names(self.path)) - {_TOPICS, _META, _STORE_FILE + ".tmp"}
        if strangers and not self._files.exists(path):
            raise InvalidInputError(
                f"{self.path}: will not make a store in a directory that holds other things "
                f"({min(strangers)!r}, for one)"
            )
        self._files.make_directory(os.path.join(self.path, _TOPICS))
        with self._making():
            if not self._files.exists(path):
                fields = {"format_version": FORMAT_VERSION, "store_id": str(uuid.uuid4())}
                write_atomically(self._files, path, json.dumps(fields, indent=1).encode() + b"\n")

    @contextlib.contextmanager
    def _making(self) -> Iterator[None]:
        """Held to make what several processes may find missing at once."""
        lock = self._files.lock(os.path.join(self.path, _TOPICS, "lock"))
        try:
            self._wait_for(lock)
            yield
        finally:
            lock.close()

    def _wait_for(self, lock: FileLock) -> None:
        """Somebody else may be making the store; that takes a moment."""
        deadline = self._clock.monotonic() + _MAKING_SECONDS
        while True:
            try:
                lock.acquire()
                return
            except BlockingIOError:
                if self._clock.monotonic() > deadline:
                    raise LockTimeoutError(
                        f"{self.path}: another process has been making the store or a "
                        f"partition for {_MAKING_SECONDS} seconds; is it stopped?"
                    ) from None
            self._clock.sleep(0.001)

    # Topics -----------------------------------------------------------------------------------

    def create_topic(
        self,
        name: str,
        *,
        partitions: int = 1,
        config: Mapping[str, Any] | None = None,
        **overrides: Any,
    ) -> Topic:
        """Create a topic; configuration keys may be given in ``config`` or as arguments.

        Raises TopicExistsError when there is one of that name, InvalidInputError for an illegal
        name, number of partitions or configuration.

        Commit point: the topic's definition in ``meta``. The directories of its partitions are
        made after it; those that a crash left out are made when somebody opens them for writing.
        """
        self._check_usable()
        check_topic_name(name)
        if not isinstance(partitions, int) or not 1 <= partitions <= MAX_PARTITIONS:
            raise InvalidInputError(
                f"partitions={partitions!r} is out of bounds: 1 to {MAX_PARTITIONS}"
            )
        checked = LogConfig.from_overrides({**(config or {}), **overrides})
        definition = TopicDefinition(uuid.uuid4(), name, partitions, checked.overrides())
        self._metadata.add_topic(definition)
        topic = self.topic(name)
        for number in range(partitions):
            self._make_partition(topic, number)
        return topic

    def topic(self, name: str) -> Topic:
        """The topic of that name; raises UnknownTopicError."""
        self._check_usable()
        definition = self._metadata.topics().get(name)
        if definition is None:
            raise UnknownTopicError(f"there is no topic called {name!r} in {self.path}")
        return self._open_topic(definition)

    def topics(self) -> list[Topic]:
        """All topics, by name."""
        self._check_usable()
        definitions = self._metadata.topics()
        return [self._open_topic(definitions[name]) for name in sorted(definitions)]

    def _open_topic(self, definition: TopicDefinition) -> Topic:
        with self._mutex:
            topic = self._topics.get(definition.topic_id)
            if topic is None:
                topic = Topic(definition, self._open_partition)
                self._topics[definition.topic_id] = topic
            return topic

    def _open_partition(self, topic: Topic, number: int) -> PartitionLog:
        self._check_usable()
        if not self._read_only:
            self._make_partition(topic, number)
        return PartitionLog(
            self._partition_directory(topic, number),
            files=self._files,
            clock=self._clock,
            config=topic.config,
            read_only=self._read_only,
        )

    def _partition_directory(self, topic: Topic, number: int) -> str:
        name = filenames.partition_directory(topic.name, number)
        return os.path.join(self.path, _TOPICS, name)

    def _make_partition(self, topic: Topic, number: int) -> None:
        """Make a partition's directory, unless it is there: somebody may want to read it before
        anybody writes."""
        directory = self._partition_directory(topic, number)
        self._files.make_directory(directory)
        metadata = os.path.join(directory, filenames.PARTITION_METADATA)
        if self._files.exists(metadata):
            return
        with self._making():
            if not self._files.exists(metadata):
                data = format_partition_metadata(PartitionMetadata(0, topic.id))
                write_atomically(self._files, metadata, data)

    # Maintenance ------------------------------------------------------------------------------

    def maintain(self) -> list[PartitionReport] | None:
        """Do a round of retention and compaction now, and return what was done to each partition;
        None when another process is doing one."""
        self._check_usable()
        if self._read_only:
            raise ReadOnlyError(f"{self.path}: the store was opened for reading only")
        return self._maintenance.run()

    def _partitions(
        self, topics: Sequence[Topic] | None = None
    ) -> Iterator[contextlib.AbstractContextManager[PartitionLog]]:
        """Every partition that has files. One that is open here is lent; any other is opened for
        the moment, so that a store of many partitions holds no more files than it uses."""
        for topic in self.topics() if topics is None else topics:
            for number in range(topic.partition_count):
                opened = topic.opened(number)
                if opened is not None:
                    yield contextlib.nullcontext(opened)
                elif self._files.is_directory(self._partition_directory(topic, number)):
                    yield self._open_partition(topic, number)

    def backup(self, destination: str | os.PathLike[str], *, keep: int = 1) -> BackupResult:
        """Copy the store, as it is now and while it is used, into a directory of backups.

        The ``keep`` newest backups in it stay; see :mod:`logstore.backup`.
        """
        self._check_usable()
        if self._read_only:
            raise ReadOnlyError(f"{self.path}: the store was opened for reading only")
        return back_up(
            self.path,
            destination,
            copy_metadata=self._metadata.copy_to,
            partitions=self._partitions(self.topics()),
            keep=keep,
            now_ms=self._clock.now_ms(),
        )

    # Life -------------------------------------------------------------------------------------

    def _check_usable(self) -> None:
        if os.getpid() != self._pid:
            raise ForkedError(
                f"{self.path}: this handle belongs to the parent process; open the store again"
            )
        if self._closed:
            raise ClosedError(f"{self.path}: the store was closed")

    def close(self) -> None:
        """Close every partition cleanly, and let go of the store; closing twice is allowed."""
        if self._closed or os.getpid() != self._pid:
            return
        self._closed = True
        self._maintenance.stop()
        with contextlib.ExitStack() as stack:
            stack.callback(self._metadata.close)
            for topic in self._topics.values():
                stack.callback(topic.close)

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self.close()
        except PoisonedError:
            if error is None:  # otherwise it is, or follows from, the error that is on its way
                raise

    def __repr__(self) -> str:
        return f"Store({self.path!r})"
