"""Repairing what a store knows of its topics: ``meta`` from ``__metadata``, that from ``meta``,
and both from the partitions' directories.

``__metadata`` itself has been repaired like any other partition by then.

- ``meta`` is missing, or LMDB cannot read it, or a definition in it is broken: it is set aside, and
  made anew from ``__metadata``. What else was in it is lost, and that is told. Commit point:
  LMDB's, of the whole; until then it counts as lost.
- ``__metadata`` is missing, or has lost its end: the definitions in ``meta`` are appended to it,
  and the removal of those that only the log still has. Commit point: the append. A crash between
  it and LMDB's leaves a log that says the same as ``meta`` twice.
- Both are lost: each topic is defined anew by the directories of its partitions, with the
  configuration that all topics have. Commit point: that of a change of definitions.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from typing import Literal, NamedTuple

from logstore.clock import Clock
from logstore.config import LogConfig
from logstore.definitions import (
    TOPIC_PREFIX,
    TopicDefinition,
    topic_fields,
    topic_from,
    topic_key,
)
from logstore.environments import DATA_FILE, LOCK_FILE, in_use, open_environment
from logstore.errors import FormatError, InvalidInputError, LogstoreError
from logstore.log import PartitionLog
from logstore.metadata import (
    DEFINITIONS,
    META,
    METADATA_TOPIC,
    TOPICS,
    Metadata,
    applied_offset,
    catch_up,
    set_applied,
)
from logstore.queues.definitions import definition_from
from logstore.repair_files import set_aside
from logstore.segments import filenames
from logstore.segments.checkpoint import parse_partition_metadata
from logstore.segments.files import Files, read_bounded
from logstore.segments.record import Record
from logstore.structure import list_segments
from logstore.tables import Tables
from logstore.topic import check_topic_name

__all__ = ["Step", "repair_definitions"]

_MAX_METADATA_BYTES = 4096

_PROBE = """
import os, sys, lmdb
path = sys.argv[1]
lock = os.path.exists(os.path.join(path, "lock.mdb")) and os.access(path, os.W_OK)
with lmdb.open(path, readonly=True, create=False, max_dbs=64, lock=lock) as environment:
    with environment.begin() as transaction:
        names = [key for key, _ in transaction.cursor()]
    for name in names:
        with environment.begin() as transaction:
            table = environment.open_db(name, transaction, create=False)
            for _ in transaction.cursor(table):
                pass
"""


class Step(NamedTuple):
    """Something that was done, or that would be."""

    kind: Literal["build", "aside", "failed"]
    path: str
    reason: str
    saved: str | None = None


def repair_definitions(store: str, *, dry_run: bool, files: Files, clock: Clock) -> Iterator[Step]:
    """Repair ``meta`` and ``__metadata`` of the store at ``store``, and tell what was done.

    With ``dry_run`` nothing is changed; what would follow from a first step may not be told then.
    """
    try:
        yield from _Definitions(store, files, clock).repair(dry_run=dry_run)
    except (LogstoreError, OSError) as error:
        yield Step("failed", os.path.join(store, META), str(error))


class _Definitions:
    def __init__(self, store: str, files: Files, clock: Clock) -> None:
        self._store = store
        self._files = files
        self._clock = clock
        self._meta = os.path.join(store, META)
        self._topics = os.path.join(store, TOPICS)
        self._log = os.path.join(
            self._topics, filenames.partition_directory(METADATA_TOPIC.name, 0)
        )

    def repair(self, *, dry_run: bool) -> Iterator[Step]:
        damage = self._damage()
        end = self._end()
        applied = None
        if damage is None:
            applied = self._applied()
            if applied is None and end:
                damage = "it was made anew, and knows nothing"
        topics = self._topics_by_directories() if not end and applied is None else []
        if damage is not None and (end or topics or self._is_there()):
            yield from self._make_meta(damage, dry_run=dry_run)
        elif applied is not None and applied > end:
            reason = f"it ends at {end}, where meta knows {applied}; written anew from meta"
            if not dry_run:
                self._make_log()
            yield Step("build", self._log, reason)
        if topics:
            if not dry_run:
                self._define(topics)
            for topic in topics:
                yield Step(
                    "build",
                    os.path.join(self._topics, topic.name),
                    f"all definitions are lost: defined by its directories as a topic of "
                    f"{topic.partition_count} partition(s), with the default configuration",
                )

    # Looking ----------------------------------------------------------------------------------

    def _is_there(self) -> bool:
        return self._files.exists(os.path.join(self._meta, DATA_FILE))

    def _damage(self) -> str | None:
        """What is wrong with ``meta``, if anything is.

        Another process reads all of it first: LMDB maps the file, and to read what is damaged or
        cut off can end the process.
        """
        if not self._is_there():
            return "it is missing"
        command = [sys.executable, "-I", "-c", _PROBE, os.path.abspath(self._meta)]
        probe = subprocess.run(command, capture_output=True, check=False)
        if probe.returncode:
            last = probe.stderr.decode(errors="replace").strip().rpartition("\n")[2]
            return f"LMDB cannot read it: {last or f'exit code {probe.returncode}'}"
        metadata = Metadata(self._store, read_only=True)
        try:
            for key, fields in metadata.items().items():
                if key.startswith(TOPIC_PREFIX):
                    topic_from(key, fields, self._meta)
                definition_from(key, fields, self._meta)
        except FormatError as error:
            return str(error)
        finally:
            metadata.close()
        return None

    def _applied(self) -> int | None:
        metadata = Metadata(self._store, read_only=True)
        try:
            with metadata.transaction() as tables:
                return applied_offset(tables)
        finally:
            metadata.close()

    def _end(self) -> int:
        """Where ``__metadata`` ends; 0 where there is none."""
        if not self._files.is_directory(self._log) or not list_segments(self._files, self._log):
            return 0
        with PartitionLog(self._log, files=self._files, clock=self._clock, read_only=True) as log:
            return log.log_end_offset

    def _topics_by_directories(self) -> list[TopicDefinition]:
        """The topics that the partitions' directories speak of."""
        found: dict[str, list[int]] = {}
        for name in self._files.names(self._topics):
            parsed = filenames.parse_partition_directory(name)
            directory = os.path.join(self._topics, name)
            if (
                parsed is None
                or parsed[0] == METADATA_TOPIC.name
                or filenames.is_deleted_directory(name)
                or not self._files.is_directory(directory)
            ):
                continue
            with contextlib.suppress(InvalidInputError):
                check_topic_name(parsed[0])
                found.setdefault(parsed[0], []).append(parsed[1])
        topics: dict[uuid.UUID, TopicDefinition] = {}
        for name, numbers in sorted(found.items()):
            topic_id = self._topic_id(name, min(numbers))
            if topic_id is None or topic_id in topics:
                topic_id = uuid.uuid4()
            topics[topic_id] = TopicDefinition(topic_id, name, max(numbers) + 1, {})
        return list(topics.values())

    def _topic_id(self, name: str, number: int) -> uuid.UUID | None:
        directory = os.path.join(self._topics, filenames.partition_directory(name, number))
        path = os.path.join(directory, filenames.PARTITION_METADATA)
        try:
            data = read_bounded(self._files, path, _MAX_METADATA_BYTES)
            return parse_partition_metadata(data).topic_id
        except (FormatError, OSError):
            return None

    # Doing ------------------------------------------------------------------------------------

    def _make_meta(self, damage: str, *, dry_run: bool) -> Iterator[Step]:
        path = os.path.join(self._meta, DATA_FILE)
        if self._files.is_directory(self._meta) and in_use(self._meta):
            yield Step("failed", path, f"{damage}; it is in use: end the programs that use it")
            return
        if self._is_there():
            saved = None if dry_run else set_aside(self._files, path)
            yield Step("aside", path, damage, saved)
        if not dry_run:
            with contextlib.suppress(FileNotFoundError):
                self._files.remove(os.path.join(self._meta, LOCK_FILE))
            with self._both() as (tables, log):
                set_applied(tables, 0)
                catch_up(tables, log)
        reason = (
            f"{damage}; made from __metadata. What else was in it is lost: the checkpoints of "
            "committed offsets"
        )
        yield Step("build", path, reason)

    @contextlib.contextmanager
    def _both(self) -> Iterator[tuple[Tables, PartitionLog]]:
        """A transaction that writes ``meta``, and ``__metadata``; each is made if it is missing."""
        environment = open_environment(self._meta, read_only=False)
        assert environment is not None
        config = LogConfig.from_overrides(METADATA_TOPIC.overrides)
        try:
            with (
                PartitionLog(self._log, files=self._files, clock=self._clock, config=config) as log,
                environment.transaction(write=True) as transaction,
            ):
                yield Tables(environment.handle, transaction), log
        finally:
            environment.close()

    def _make_log(self) -> None:
        with self._both() as (tables, log):
            known = dict(tables.items(DEFINITIONS))
            gone: dict[bytes, None] = {}
            offset = log.log_start_offset
            while (fetch := log.read(offset)).data:
                gone |= {r.key: None for r in fetch.records() if r.key is not None}
                offset = fetch.next_offset
            records = [Record(key=key, value=value) for key, value in known.items()]
            records += [Record(key=key) for key in gone if key not in known]
            if records:
                offset = log.append(records, acks="all").last_offset + 1
            set_applied(tables, offset)

    def _define(self, topics: list[TopicDefinition]) -> None:
        metadata = Metadata(self._store, files=self._files, clock=self._clock)
        try:
            metadata.update(
                lambda view: [(topic_key(topic.topic_id), topic_fields(topic)) for topic in topics]
            )
        finally:
            metadata.close()
