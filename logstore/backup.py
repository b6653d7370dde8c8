"""Backups: consistent copies of a store that is in use, each one a store of its own.

In the destination::

    20240501T120000.000Z/              a snapshot, whole; the one with the latest name is the newest
    20240502T120000.000Z.unfinished/   one that was interrupted; the next backup removes it
    lock                               held while a backup is taken

A snapshot holds what a store holds, without what belongs to running processes, and ``backup.json``,
which says of every segment which file it came from. So the next backup into the same destination
copies only what is new: a closed segment never changes, it can only be replaced (by compaction,
which gives another file), or go (by retention).

Closed logs are hard links to the store's own files where both lie on one file system; elsewhere
they are copied, and linked from the snapshot before. What may be written to in place, the active
segment and all indexes, is always copied. (A closed segment may become the active one again if a
truncation is interrupted; opening it then copies it first: ``loader.recover``.)

Each partition is as it was at one moment, under its lock. ``meta`` is copied before the logs, since
it must not name offsets that those do not have; the definitions' own log, ``__metadata``, is the
last one, so that a topic that was deleted meanwhile is deleted in the copy as well.

Commit point of a backup: the rename of its directory, when all in it is on stable storage. A crash
before it leaves the previous snapshot, and an unfinished one that is called so.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from logstore.backup_files import (
    Source,
    clone,
    contents,
    remove_tree,
    sync_directory,
    sync_tree,
    write_file,
)
from logstore.config import LogConfig
from logstore.errors import FormatError, InvalidInputError, LockTimeoutError, UnknownTopicError
from logstore.log import PartitionLog
from logstore.segments import filenames
from logstore.segments.batch import Batch
from logstore.segments.files import DiskFiles
from logstore.segments.header import BatchHeader
from logstore.segments.indexing import build_indexes
from logstore.segments.scan import scan
from logstore.snapshots import MANIFEST, NAME, STORE_FILE, UNFINISHED, Snapshot, snapshots

__all__ = ["BackupResult", "back_up"]

_LOCK = "lock"
_TOPICS = "topics"
_META = "meta"
_FORMAT = "%Y%m%dT%H%M%S"
_ATTEMPTS = 50
_SMALL_FILES = (
    filenames.PARTITION_METADATA,
    filenames.LEADER_EPOCH_CHECKPOINT,
    filenames.LOG_START_CHECKPOINT,
    filenames.CLEANER_CHECKPOINT,
)
_BESIDE = (
    filenames.OFFSET_INDEX,
    filenames.TIME_INDEX,
    filenames.TRANSACTION_INDEX,
    filenames.PRODUCER_SNAPSHOT,
)


class BackupResult(NamedTuple):
    """What a backup came to."""

    path: str
    """The snapshot."""
    partitions: int
    segments: int
    linked: int
    """Logs that share their file with the store or with the snapshot before."""
    copied: int
    """Logs that were copied."""
    bytes_copied: int
    removed: list[str]
    """Older and unfinished snapshots that were removed."""


def back_up(
    store: str,
    destination: str | os.PathLike[str],
    *,
    copy_metadata: Callable[[str], None],
    partitions: Iterator[AbstractContextManager[PartitionLog]],
    keep: int = 1,
    now_ms: int,
    link: Callable[[str, str], None] = os.link,
) -> BackupResult:
    """Take a backup of the store at ``store`` into ``destination``, and keep the ``keep`` newest.

    ``copy_metadata`` copies the definitions into a directory; ``partitions`` yields every log.
    Raises InvalidInputError where the destination is none, LockTimeoutError where another backup
    into it is being taken. What fails leaves the snapshots that were there.
    """
    if keep < 1:
        raise InvalidInputError(f"keep={keep} is out of bounds: at least 1")
    top = os.path.abspath(os.fsdecode(destination))
    _check_destination(store, top)
    DiskFiles().make_directory(top)
    lock = DiskFiles().lock(os.path.join(top, _LOCK))
    try:
        try:
            lock.acquire()
        except BlockingIOError:
            raise LockTimeoutError(f"{top}: another backup into it is being taken") from None
        found = snapshots(top)
        _check_identity(store, found)
        removed = _remove_unfinished(top)
        run = _Run(store, top, found[-1] if found else None, link)
        try:
            path = run.take(copy_metadata, partitions, now_ms)
        except OSError:
            # It may be the disk that is full: what is there already must not keep it so.
            with contextlib.suppress(OSError):
                _remove_unfinished(top)
            raise
        removed += _remove_old(snapshots(top)[:-keep])
        return BackupResult(
            path, run.partitions, run.segments, run.linked, run.copied, run.bytes_copied, removed
        )
    finally:
        lock.close()


def _check_destination(store: str, top: str) -> None:
    inside = os.path.realpath(store), os.path.realpath(top)
    if os.path.commonpath(inside) in inside:
        raise InvalidInputError(f"{top}: a store and its backups cannot lie inside each other")
    if not os.path.exists(top):
        return
    if not os.path.isdir(top):
        raise InvalidInputError(f"{top}: this is no directory")
    strangers = [
        name
        for name in os.listdir(top)
        if name != _LOCK and not NAME.match(name.removesuffix(UNFINISHED))
    ]
    if strangers:
        raise InvalidInputError(
            f"{top}: will not put backups into a directory that holds other things "
            f"({min(strangers)!r}, for one)"
        )


def _check_identity(store: str, found: Sequence[Snapshot]) -> None:
    """One destination is for one store."""
    if not found:
        return
    ours, theirs = (_store_id(os.path.join(path, STORE_FILE)) for path in (store, found[-1].path))
    if ours != theirs:
        raise InvalidInputError(
            f"{os.path.dirname(found[-1].path)}: this holds backups of another store: "
            f"of {theirs}, not of {ours}"
        )


def _store_id(path: str) -> str:
    try:
        return str(json.loads(contents(path))["store_id"])
    except (ValueError, KeyError, TypeError) as error:
        raise FormatError("this is no store's description", path=path, found=error) from error


def _remove_unfinished(top: str) -> list[str]:
    doomed = [os.path.join(top, n) for n in sorted(os.listdir(top)) if n.endswith(UNFINISHED)]
    for path in doomed:
        remove_tree(path)
    return doomed


def _remove_old(old: Sequence[Snapshot]) -> list[str]:
    """Renamed first: a crash in the middle must not leave a half of one that looks whole."""
    for snapshot in old:
        os.rename(snapshot.path, snapshot.path + UNFINISHED)
        sync_directory(os.path.dirname(snapshot.path))
        remove_tree(snapshot.path + UNFINISHED)
    return [snapshot.path for snapshot in old]


class _ChangedError(Exception):
    """The partition changed while it was copied; it is copied once more."""


@dataclass
class _Moment:
    """A partition as it was at one moment, with what had to be read then."""

    active_base: int
    valid_end: int
    next_offset: int
    small: dict[str, bytes]
    """The small files, by name."""
    closed: dict[str, Source]
    """Logs of closed segments and what stands beside them, by name."""
    active: int
    """A descriptor of the active segment's log."""
    linked: set[str] = field(default_factory=set)
    """Logs that were linked at that moment."""


class _Run:
    """One backup being taken."""

    def __init__(
        self,
        store: str,
        top: str,
        previous: Snapshot | None,
        link: Callable[[str, str], None],
    ) -> None:
        self._store = store
        self._top = top
        self._previous = previous
        self._link = link
        self._may_link = True
        """Whether the store's files can be linked to; found out by trying."""
        self._known = {} if previous is None else _read_manifest(previous.path)
        """The sources of the files in the snapshot before."""
        self._sources: dict[str, Source] = {}
        """The sources of the files in this one."""
        self.partitions = self.segments = self.linked = self.copied = self.bytes_copied = 0

    def take(
        self,
        copy_metadata: Callable[[str], None],
        partitions: Iterator[AbstractContextManager[PartitionLog]],
        now_ms: int,
    ) -> str:
        """Take it, and return its path."""
        final = os.path.join(self._top, _next_name(now_ms, self._previous))
        path = final + UNFINISHED
        os.mkdir(path)
        os.mkdir(os.path.join(path, _META))
        os.mkdir(os.path.join(path, _TOPICS))
        copy_metadata(os.path.join(path, _META))
        for partition in partitions:
            with partition as log:
                self._partition(log, path)
        data = contents(os.path.join(self._store, STORE_FILE))
        write_file(os.path.join(path, STORE_FILE), data)
        write_file(os.path.join(path, MANIFEST), self._manifest())
        sync_tree(path)
        os.rename(path, final)
        sync_directory(self._top)
        return final

    def _manifest(self) -> bytes:
        sources = {name: list(source) for name, source in self._sources.items()}
        return json.dumps({"version": 1, "sources": sources}).encode() + b"\n"

    # A partition ------------------------------------------------------------------------------

    def _partition(self, log: PartitionLog, snapshot: str) -> None:
        inside = os.path.relpath(log.directory, self._store)
        target = os.path.join(snapshot, inside)
        os.makedirs(os.path.dirname(target), exist_ok=True)  # that of the queues may be missing
        for attempt in range(_ATTEMPTS):
            os.mkdir(target)
            counts = self.linked, self.copied, self.bytes_copied
            try:
                self._copy(log, inside, target)
            except UnknownTopicError:
                remove_tree(target)  # it was deleted; the definitions, which come last, say so
                self.linked, self.copied, self.bytes_copied = counts
                return
            except _ChangedError:
                if attempt + 1 == _ATTEMPTS:
                    raise LockTimeoutError(
                        f"{log.directory}: it changed {_ATTEMPTS} times while it was copied"
                    ) from None
                remove_tree(target)
                self.linked, self.copied, self.bytes_copied = counts
                time.sleep(0.01 * attempt)
            else:
                self.partitions += 1
                return

    def _copy(self, log: PartitionLog, inside: str, target: str) -> None:
        moment = self._look(log, target)
        try:
            for name, data in moment.small.items():
                write_file(os.path.join(target, name), data)
            for name, source in moment.closed.items():
                known = self._sources[os.path.join(inside, name)] = source
                if name in moment.linked:
                    self.linked += 1
                    continue
                how = self._bring(log.directory, inside, target, name, known)
                if name.endswith(filenames.LOG):
                    self.linked += how == "linked"
                    self.copied += how == "copied"
            self._copy_active(log, moment, target)
        finally:
            os.close(moment.active)
        self.segments += 1 + sum(name.endswith(filenames.LOG) for name in moment.closed)

    def _look(self, log: PartitionLog, target: str) -> _Moment:
        """The partition at one moment; links take so little time that they are made then."""
        directory = log.directory
        with log._locked() as writer:
            state = writer.enter()
            names = os.listdir(directory)
            small = {
                name: contents(os.path.join(directory, name))
                for name in _SMALL_FILES
                if name in names
            }
            closed = {}
            for name in names:
                parsed = filenames.parse_segment_file(name)
                if parsed is None or parsed[0] > state.next_offset:
                    continue
                base, suffix = parsed
                if base < state.active_base or suffix == filenames.PRODUCER_SNAPSHOT:
                    closed[name] = Source.of(os.path.join(directory, name))
                elif suffix == filenames.TRANSACTION_INDEX:
                    small[name] = contents(os.path.join(directory, name))
            active = os.path.join(
                directory, filenames.segment_file(state.active_base, filenames.LOG)
            )
            moment = _Moment(
                state.active_base,
                state.valid_end,
                state.next_offset,
                small,
                closed,
                os.open(active, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0)),
            )
            try:
                self._link_logs(directory, target, moment)
            except BaseException:
                os.close(moment.active)
                raise
        return moment

    def _link_logs(self, directory: str, target: str, moment: _Moment) -> None:
        for name in moment.closed:
            if not self._may_link:
                return
            if name.endswith(filenames.LOG):
                try:
                    self._link(os.path.join(directory, name), os.path.join(target, name))
                except OSError:
                    # Another file system, or one without links, or too many of them: copy.
                    self._may_link = False
                else:
                    moment.linked.add(name)

    def _bring(self, directory: str, inside: str, target: str, name: str, source: Source) -> str:
        """Link a file from the snapshot before, or copy it, and say which."""
        path = os.path.join(target, name)
        if self._previous is not None and self._known.get(os.path.join(inside, name)) == source:
            before = os.path.join(self._previous.path, inside, name)
            try:
                os.link(before, path)
                return "linked"
            except OSError:
                pass
        for candidate in (name, name + filenames.DELETED):
            # It may have been deleted in the meantime, which gives it another name at first.
            try:
                descriptor = os.open(os.path.join(directory, candidate), os.O_RDONLY)
            except FileNotFoundError:
                continue
            try:
                if Source.of(descriptor) == source:
                    self.bytes_copied += clone(descriptor, path, source.size)
                    return "copied"
            finally:
                os.close(descriptor)
        raise _ChangedError

    def _copy_active(self, log: PartitionLog, moment: _Moment, target: str) -> None:
        """Copy the active segment up to its valid end, check the copy, and index it."""
        base = moment.active_base
        path = os.path.join(target, filenames.segment_file(base, filenames.LOG))
        self.bytes_copied += clone(moment.active, path, moment.valid_end)
        self.copied += 1
        headers: list[tuple[int, BatchHeader]] = []
        file = DiskFiles().open(path)
        try:
            if file.size() < moment.valid_end:
                raise _ChangedError
            next_offset = base
            for item in scan(file, resync=False):
                if not isinstance(item, Batch) or not item.crc_ok:
                    self._blame(log, moment, path, item.position)
                    break
                headers.append((item.position, item.header))
                next_offset = item.header.next_offset
        finally:
            file.close()
        if headers and next_offset != moment.next_offset:
            raise _ChangedError
        indexes = build_indexes(
            headers, base_offset=base, index_interval_bytes=LogConfig().index_interval_bytes
        )
        for suffix, data in zip(_BESIDE[:2], indexes, strict=True):
            write_file(os.path.join(target, filenames.segment_file(base, suffix)), data)

    def _blame(self, log: PartitionLog, moment: _Moment, path: str, position: int) -> None:
        """What was copied is no log: it was cut and written again meanwhile, or it is damaged."""
        if os.pread(moment.active, moment.valid_end, 0) != contents(path):
            raise _ChangedError
        raise FormatError(
            "the active segment is damaged; repair the store first",
            path=os.path.join(log.directory, os.path.basename(path)),
            position=position,
        )


def _next_name(now_ms: int, previous: Snapshot | None) -> str:
    """A name for now, or for a moment behind the snapshot before: the clock may have gone back."""
    moment = datetime.fromtimestamp(now_ms // 1000, UTC) + timedelta(milliseconds=now_ms % 1000)
    if previous is not None:
        last = datetime.strptime(previous.name[:15], _FORMAT).replace(tzinfo=UTC)
        last += timedelta(milliseconds=int(previous.name[16:19]))
        moment = max(moment, last + timedelta(milliseconds=1))
    return f"{moment:{_FORMAT}}.{moment.microsecond // 1000:03d}Z"


def _read_manifest(snapshot: str) -> dict[str, Source]:
    path = os.path.join(snapshot, MANIFEST)
    try:
        sources = json.loads(contents(path))["sources"]
        return {name: Source(*map(int, numbers)) for name, numbers in sources.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise FormatError("this is no backup's description", path=path, found=error) from error
