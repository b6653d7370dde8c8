"""Checking a whole store: its partitions, and what it knows of itself and of its topics.

``logstore.segments.check`` looks at partitions. Here comes what only a store has: ``store.json``,
the definitions in ``meta`` and ``__metadata``, the live environment, and that each partition has a
directory. Nothing is written, and a store that is in use may be checked. :func:`look_at_store` is
what a repair begins with, too.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field

from logstore.clock import Clock, SystemClock
from logstore.definitions import TOPIC_PREFIX, TopicDefinition, topic_from
from logstore.environments import DATA_FILE
from logstore.errors import FormatError, InvalidInputError, LogstoreError, UnsupportedFormatError
from logstore.live import LIVE, Live
from logstore.log import PartitionLog
from logstore.metadata import CHANGE_LOCK, META, METADATA_TOPIC, TOPICS, Metadata, applied_offset
from logstore.queues.definitions import definition_from
from logstore.segments import filenames
from logstore.segments.check import Finding, Totals, check
from logstore.segments.checkpoint import parse_partition_metadata
from logstore.segments.files import DiskFiles, Files, read_bounded
from logstore.shares.definitions import SHARE_GROUP_PREFIX, share_group_from
from logstore.snapshots import STORE_FILE
from logstore.store_file import read_store_file
from logstore.structure import list_segments
from logstore.topic import check_topic_name

__all__ = ["StoreLook", "check_store", "is_store", "look_at_store"]

_MAX_METADATA_BYTES = 4096
_MAKES_IT = "'logstore repair' makes it anew"

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


def is_store(files: Files, path: str) -> bool:
    """Whether a directory is a store, or was one before its ``store.json`` was lost: then it has
    been opened for writing. (A backup that was being restored has not.)"""
    return files.exists(os.path.join(path, STORE_FILE)) or (
        files.exists(os.path.join(path, META, CHANGE_LOCK))
        and files.is_directory(os.path.join(path, TOPICS))
    )


def check_store(
    path: str,
    *,
    totals: Totals | None = None,
    files: Files | None = None,
    clock: Clock | None = None,
) -> Iterator[Finding] | None:
    """What is wrong at ``path``, which may be a store, or anything that
    :func:`logstore.segments.check.check` takes. None where it is nothing of that sort."""
    files = files or DiskFiles()
    totals = Totals() if totals is None else totals
    findings = check(files, path, totals=totals)
    if findings is None or not files.is_directory(path) or not is_store(files, path):
        return findings
    return _with_definitions(path, findings, totals, files, clock or SystemClock())


def _with_definitions(
    path: str, findings: Iterator[Finding], totals: Totals, files: Files, clock: Clock
) -> Iterator[Finding]:
    damaged = set()
    for finding in findings:
        if finding.severity == "damage":
            damaged.add(os.path.dirname(finding.path))
        yield finding
    try:
        found = list(look_at_store(path, files, clock).findings())
    except UnsupportedFormatError as error:
        found = [Finding("note", error.path or path, 0, error.reason, error.expected, error.found)]
    except (LogstoreError, OSError) as error:
        directory = os.path.dirname(getattr(error, "path", None) or "")
        # Damage in ``__metadata`` itself has been told by then.
        found = [] if directory in damaged else [Finding("damage", path, 0, str(error))]
    for finding in found:
        if finding.severity == "damage":
            totals.damage += 1
        else:
            totals.notes += 1
        yield finding


@dataclass
class StoreLook:
    """What was found of a store's own files; paths are given where something is wrong."""

    store: str
    description: str | None = None
    """What is wrong with ``store.json``."""
    meta: str | None = None
    """What is wrong with ``meta``."""
    live: str | None = None
    """What is wrong with the live environment."""
    live_directory: str | None = None
    """Where that lies."""
    applied: int | None = None
    """Up to which offset ``meta`` has taken in ``__metadata``."""
    end: int = 0
    """Where ``__metadata`` ends."""
    lost: list[TopicDefinition] = field(default_factory=list)
    """Where nothing is known of any topic: those that the directories speak of."""
    missing: list[str] = field(default_factory=list)
    """Directories that partitions should have."""
    undefined: list[str] = field(default_factory=list)
    """Directories of partitions that no topic has."""

    @property
    def meta_path(self) -> str:
        """The file of ``meta``."""
        return os.path.join(self.store, META, DATA_FILE)

    @property
    def live_path(self) -> str:
        """The file of the live environment."""
        return os.path.join(self.live_directory or os.path.join(self.store, LIVE), DATA_FILE)

    @property
    def log_path(self) -> str:
        """The directory of ``__metadata``."""
        name = filenames.partition_directory(METADATA_TOPIC.name, 0)
        return os.path.join(self.store, TOPICS, name)

    @property
    def log_lost(self) -> str | None:
        """What is missing of ``__metadata``."""
        if self.applied is None or self.applied <= self.end:
            return None
        return f"it ends at {self.end}, where meta knows {self.applied}"

    def findings(self) -> Iterator[Finding]:
        """The same, as a check tells it."""
        topics = os.path.join(self.store, TOPICS)
        if self.description is not None:
            path = os.path.join(self.store, STORE_FILE)
            yield Finding("damage", path, 0, f"{self.description}; {_MAKES_IT}")
        if self.meta is not None:
            yield Finding("damage", self.meta_path, 0, f"{self.meta}; {_MAKES_IT}")
        if self.live is not None:
            yield Finding("damage", self.live_path, 0, f"{self.live}; {_MAKES_IT}")
        if self.log_lost is not None:
            yield Finding("damage", self.log_path, 0, f"{self.log_lost}; {_MAKES_IT} from meta")
        if self.meta is None:
            for topic in self.lost:
                path = os.path.join(topics, topic.name)
                yield Finding("note", path, 0, "no topic is defined; 'logstore repair' defines it")
        for path in self.missing:
            reason = "the partition has no directory: whoever opens the store to write makes it"
            yield Finding("note", path, 0, reason)
        for path in self.undefined:
            yield Finding("note", path, 0, "no topic has such a partition")


def look_at_store(store: str, files: Files, clock: Clock) -> StoreLook:
    """Look at a store's own files. Raises UnsupportedFormatError for another version of the layout,
    and LogstoreError or OSError where ``__metadata`` cannot be read: it is repaired like any
    partition, and before all else."""
    look = StoreLook(store, _what_is_wrong_with_description(store, files))
    there = files.exists(look.meta_path)
    damage = _what_is_wrong_with_meta(store, files)
    definitions: dict[str, TopicDefinition] = {}
    going: set[str] = set()
    # First what has been taken in of the log, then where it ends: it may grow in between.
    if damage is None:
        look.applied, definitions, going = _definitions(store)
        look.live_directory, look.live = _what_is_wrong_with_live(store, files, clock)
    look.end = _end(look.log_path, files, clock)
    if damage is None and look.applied is None and look.end:
        damage = "it was made anew, and knows nothing"
    directories = _partition_directories(os.path.join(store, TOPICS), files)
    for name in going - definitions.keys():
        directories.pop(name, None)
    if not look.end and look.applied is None:
        look.lost = _topics_by_directories(os.path.join(store, TOPICS), directories, files)
    elif damage is None:
        look.missing, look.undefined = _compare(store, definitions, directories)
    if damage is not None and (look.end or look.lost or there):
        look.meta = damage
    return look


def _what_is_wrong_with_description(store: str, files: Files) -> str | None:
    path = os.path.join(store, STORE_FILE)
    try:
        read_store_file(files, path)
    except FileNotFoundError:
        return "it is missing"
    except UnsupportedFormatError:
        raise
    except FormatError as error:
        return error.reason
    return None


def _what_is_wrong_with_meta(store: str, files: Files) -> str | None:
    """What is wrong with ``meta``, if anything is."""
    directory = os.path.join(store, META)
    if not files.exists(os.path.join(directory, DATA_FILE)):
        return "it is missing"
    damage = _what_lmdb_says(directory)
    if damage is not None:
        return damage
    metadata = Metadata(store, read_only=True)
    try:
        for key, fields in metadata.items().items():
            if key.startswith(TOPIC_PREFIX):
                topic_from(key, fields, directory)
            elif key.startswith(SHARE_GROUP_PREFIX):
                share_group_from(key, fields, directory)
            definition_from(key, fields, directory)
    except FormatError as error:
        return str(error)
    finally:
        metadata.close()
    return None


def _what_is_wrong_with_live(
    store: str, files: Files, clock: Clock
) -> tuple[str | None, str | None]:
    """Where the live environment lies that whoever opens the store would use, and what is wrong
    with it. (Where there is none, it is made of what ``meta`` has.)"""
    metadata = Metadata(store, read_only=True)
    live = Live(store, metadata, files=files, clock=clock, read_only=True)
    try:
        directory = live.directory()
        damage = None if directory is None else _what_lmdb_says(directory)
        if damage is not None and live.directory() != directory:
            return None, None  # another one took its place meanwhile
        return directory, damage
    finally:
        live.close()
        metadata.close()


def _what_lmdb_says(directory: str) -> str | None:
    """What is wrong with an environment, for LMDB, if anything is.

    Another process reads all of it: LMDB maps the file, and to read what is damaged or cut off can
    end the process.
    """
    command = [sys.executable, "-I", "-c", _PROBE, os.path.abspath(directory)]
    probe = subprocess.run(command, capture_output=True, check=False)
    if not probe.returncode:
        return None
    last = probe.stderr.decode(errors="replace").strip().rpartition("\n")[2]
    return f"LMDB cannot read it: {last or f'exit code {probe.returncode}'}"


def _definitions(store: str) -> tuple[int | None, dict[str, TopicDefinition], set[str]]:
    """How far ``meta`` has come, the topics by name, and the names of those that are on their way
    out."""
    metadata = Metadata(store, read_only=True)
    try:
        with metadata.transaction() as tables:
            applied = applied_offset(tables)
        topics = [
            topic_from(key, fields, store) for key, fields in metadata.items(TOPIC_PREFIX).items()
        ]
        going = (topic_from(k, fields, store) for k, fields in metadata.deleting().items())
        return applied, {topic.name: topic for topic in topics}, {topic.name for topic in going}
    finally:
        metadata.close()


def _end(directory: str, files: Files, clock: Clock) -> int:
    """Where ``__metadata`` ends; 0 where there is none."""
    if not files.is_directory(directory) or not list_segments(files, directory):
        return 0
    with PartitionLog(directory, files=files, clock=clock, read_only=True) as log:
        return log.log_end_offset


def _partition_directories(top: str, files: Files) -> dict[str, list[int]]:
    """The numbers of the partitions that have a directory, by the names of their topics."""
    found: dict[str, list[int]] = {}
    for name in files.names(top) if files.is_directory(top) else ():
        parsed = filenames.parse_partition_directory(name)
        if (
            parsed is None
            or parsed[0] == METADATA_TOPIC.name
            or filenames.is_deleted_directory(name)
            or not files.is_directory(os.path.join(top, name))
        ):
            continue
        with contextlib.suppress(InvalidInputError):
            check_topic_name(parsed[0])
            found.setdefault(parsed[0], []).append(parsed[1])
    return found


def _topics_by_directories(
    top: str, directories: dict[str, list[int]], files: Files
) -> list[TopicDefinition]:
    """The topics that the partitions' directories speak of."""
    topics: dict[uuid.UUID, TopicDefinition] = {}
    for name, numbers in sorted(directories.items()):
        directory = os.path.join(top, filenames.partition_directory(name, min(numbers)))
        topic_id = _topic_id(directory, files)
        if topic_id is None or topic_id in topics:
            topic_id = uuid.uuid4()
        topics[topic_id] = TopicDefinition(topic_id, name, max(numbers) + 1, {})
    return list(topics.values())


def _topic_id(directory: str, files: Files) -> uuid.UUID | None:
    path = os.path.join(directory, filenames.PARTITION_METADATA)
    try:
        data = read_bounded(files, path, _MAX_METADATA_BYTES)
        return parse_partition_metadata(data).topic_id
    except (FormatError, OSError):
        return None


def _compare(
    store: str, definitions: dict[str, TopicDefinition], directories: dict[str, list[int]]
) -> tuple[list[str], list[str]]:
    """Directories that are missing, and those that no topic has."""
    defined = {
        (name, number)
        for name, topic in definitions.items()
        for number in range(topic.partition_count)
    }
    there = {(name, number) for name, numbers in directories.items() for number in numbers}

    def paths(places: set[tuple[str, int]]) -> list[str]:
        return [
            os.path.join(store, TOPICS, filenames.partition_directory(*place))
            for place in sorted(places)
        ]

    return paths(defined - there), paths(there - defined)
