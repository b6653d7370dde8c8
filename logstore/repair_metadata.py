"""Repairing what a store knows of itself and of its topics: ``meta`` from ``__metadata``, that from
``meta``, and both from the partitions' directories. What is wrong is found by ``check_store``.

``__metadata`` itself has been repaired like any other partition by then.

- ``store.json`` is missing or says nothing: it is made anew, with another id.

- ``meta`` is missing, or LMDB cannot read it, or a definition in it is broken: it is set aside, and
  made anew from ``__metadata``. What else was in it is lost, and that is told. Commit point:
  LMDB's, of the whole; until then it counts as lost.
- ``__metadata`` is missing, or has lost its end: the definitions in ``meta`` are appended to it,
  and the removal of those that only the log still has. Commit point: the append. A crash between
  it and LMDB's leaves a log that says the same as ``meta`` twice.
- Both are lost: each topic is defined anew by the directories of its partitions, with the
  configuration that all topics have. Commit point: that of a change of definitions.
- LMDB cannot read the live environment: it is removed, and made anew of the checkpoints in
  ``meta``, as after a restart of the machine. Commit point: that of the new one's record.
- A partition has no directory, as after a crash in the making of its topic: it is made, empty.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Literal, NamedTuple

from logstore.check_store import StoreLook, look_at_store
from logstore.clock import Clock
from logstore.config import LogConfig
from logstore.definitions import TopicDefinition, topic_fields, topic_key
from logstore.environments import DATA_FILE, LOCK_FILE, in_use, open_environment
from logstore.errors import LogstoreError
from logstore.log import PartitionLog
from logstore.metadata import (
    DEFINITIONS,
    META,
    METADATA_TOPIC,
    TOPICS,
    Metadata,
    catch_up,
    set_applied,
)
from logstore.repair_files import set_aside
from logstore.segments.files import Files, write_atomically
from logstore.segments.record import Record
from logstore.snapshots import STORE_FILE
from logstore.store import open_store
from logstore.store_file import new_store_file
from logstore.structure import remove_tree
from logstore.tables import Tables

__all__ = ["Step", "repair_definitions"]


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
        self._log = StoreLook(store).log_path

    def repair(self, *, dry_run: bool) -> Iterator[Step]:
        look = look_at_store(self._store, self._files, self._clock)
        if look.description is not None:
            yield from self._make_description(look.description, dry_run=dry_run)
        if look.meta is not None:
            yield from self._make_meta(look.meta, dry_run=dry_run)
        elif look.log_lost is not None:
            if not dry_run:
                self._make_log()
            yield Step("build", self._log, f"{look.log_lost}; written anew from meta")
        if look.live is not None and look.live_directory is not None:
            yield self._make_live(look.live_directory, look.live, dry_run=dry_run)
        if look.lost:
            if not dry_run:
                self._define(look.lost)
            for topic in look.lost:
                yield Step(
                    "build",
                    os.path.join(self._store, TOPICS, topic.name),
                    f"all definitions are lost: defined by its directories as a topic of "
                    f"{topic.partition_count} partition(s), with the default configuration",
                )
        if look.missing and not dry_run:
            self._open()  # makes the directories that a crash left out
        for path in look.missing:
            reason = "the partition had no directory; made empty"
            yield Step("build", path, reason)

    # Doing ------------------------------------------------------------------------------------

    def _make_description(self, damage: str, *, dry_run: bool) -> Iterator[Step]:
        """Commit point: the rename of ``store.json``; until then the directory is no store."""
        path = os.path.join(self._store, STORE_FILE)
        if self._files.exists(path):
            saved = None if dry_run else set_aside(self._files, path)
            yield Step("aside", path, damage, saved)
        if not dry_run:
            write_atomically(self._files, path, new_store_file())
        reason = f"{damage}; made anew, with another id: backups go to another place from now on"
        yield Step("build", path, reason)

    def _make_meta(self, damage: str, *, dry_run: bool) -> Iterator[Step]:
        path = StoreLook(self._store).meta_path
        if self._files.is_directory(self._meta) and in_use(self._meta):
            yield Step("failed", path, f"{damage}; it is in use: end the programs that use it")
            return
        if self._files.exists(path):
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
            "committed offsets, and of queues, which deliver again all that their logs still have"
        )
        yield Step("build", path, reason)

    def _make_live(self, directory: str, damage: str, *, dry_run: bool) -> Step:
        path = os.path.join(directory, DATA_FILE)
        if in_use(directory):
            return Step("failed", path, f"{damage}; it is in use: end the programs that use it")
        if not dry_run:
            remove_tree(self._files, directory)
            self._open()
        reason = (
            f"{damage}; made of the checkpoints: what was acknowledged or committed since the last "
            "ones is delivered again"
        )
        return Step("build", path, reason)

    def _open(self) -> None:
        """Let an opening do what it does anyway."""
        open_store(
            self._store, maintenance_interval=None, files=self._files, clock=self._clock
        ).close()

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
