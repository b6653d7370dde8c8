"""Committed offsets: in ``live`` at once, in ``meta`` from time to time.

A commit in ``live`` survives the end of the process. A *checkpoint* puts what was committed since
the last one into ``meta``, where it survives a power cut. **It never leads the log**: before
``meta`` names an offset, the log is synced up to there. Order of a checkpoint: what is dirty is
read; logs synced; ``meta`` written, which is its commit point; no longer dirty. A crash before the
commit point leaves the checkpoint of before, a crash after it does the last step once more.

Two processes may take checkpoints at once: the number of the transaction in ``live`` that stands
beside each offset says which is the later one, and ``meta`` keeps that.

When ``live`` is lost, the checkpoints count, each cut back to its log's end before anybody appends
to it: or a group would skip records that nobody has read.
"""

from __future__ import annotations

import json
import logging
import uuid
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import AbstractContextManager

from logstore.clock import Clock
from logstore.errors import FormatError, LogstoreError
from logstore.groups.records import (
    DIRTY,
    GROUP_ID_BYTES,
    GROUP_NAMES,
    GROUPS,
    OFFSETS,
    OffsetKey,
    OffsetValue,
    decode_group,
    encode_group,
)
from logstore.groups.state import Group
from logstore.live import Live, Restored
from logstore.log import PartitionLog
from logstore.metadata import Metadata
from logstore.partitions import OffsetAndMetadata, checked_offset
from logstore.tables import Tables

__all__ = ["Lend", "Offsets", "group_from_name", "restore_offsets"]

_log = logging.getLogger("logstore")

REMOVED = -1

Lend = Callable[[uuid.UUID, int], AbstractContextManager[PartitionLog] | None]
"""Opens a partition for the moment; None where there is none (any more)."""


class Offsets:
    """The committed offsets of all groups of a store. Usable from many threads."""

    def __init__(self, live: Live, metadata: Metadata, *, lend: Lend, clock: Clock) -> None:
        self._live = live
        self._metadata = metadata
        self._lend = lend
        self._clock = clock

    def put(self, tables: Tables, key: OffsetKey, offset: OffsetAndMetadata) -> None:
        """Commit an offset, in the caller's transaction in ``live``."""
        self._put(tables, key, *checked_offset(offset))

    def remove(self, tables: Tables, key: OffsetKey) -> None:
        """Remove an offset, in the caller's transaction in ``live``."""
        self._put(tables, key, REMOVED, "")

    def _put(self, tables: Tables, key: OffsetKey, offset: int, metadata: str) -> None:
        value = OffsetValue(offset, metadata, self._clock.now_ms(), tables.number)
        packed = key.pack()
        tables.put(OFFSETS, packed, value.pack())
        tables.put(DIRTY, packed, b"")

    def get(self, keys: Iterable[OffsetKey]) -> dict[OffsetKey, OffsetValue]:
        """What was committed, at one moment; a key without an offset is not in it."""
        with self._reading() as tables:
            rows = [(key, tables.get(OFFSETS, key.pack())) for key in keys]
        return _committed((key, data) for key, data in rows if data is not None)

    def of_group(self, group: bytes) -> dict[OffsetKey, OffsetValue]:
        """All committed offsets of a group."""
        with self._reading() as tables:
            return self.of_group_in(tables, group)

    def of_group_in(self, tables: Tables, group: bytes) -> dict[OffsetKey, OffsetValue]:
        """The same, in the caller's transaction."""
        rows = tables.items(OFFSETS, group)
        return _committed((OffsetKey.unpack(key), data) for key, data in rows)

    def _reading(self) -> AbstractContextManager[Tables]:
        """Where there is no live environment to be read, the checkpoints are what counts."""
        return self._live.transaction() if self._live.usable() else self._metadata.transaction()

    def of_topic(self, topic_id: uuid.UUID) -> list[OffsetKey]:
        """The keys of all offsets of a topic, whatever the group."""
        with self._live.transaction() as tables:
            keys = [OffsetKey.unpack(key) for key, _ in tables.items(OFFSETS)]
        return [key for key in keys if key.topic_id == topic_id]

    def checkpoint(self, only: Collection[OffsetKey] | None = None) -> None:
        """Put what was committed since the last checkpoint into ``meta``; or, whatever was, the
        offsets of certain keys, and then raise what keeps a log from being synced."""
        with self._live.transaction() as tables:
            keys = (
                [key for key, _ in tables.items(DIRTY)]
                if only is None
                else [key.pack() for key in only]
            )
            found = {key: tables.get(OFFSETS, key) for key in keys}
            group_ids = {key[:GROUP_ID_BYTES] for key in keys}
            groups = {group: tables.get(GROUPS, group) for group in group_ids}
        rows = {key: value for key, value in found.items() if value is not None}
        if not rows:
            return
        safe = self._synced(rows, tolerant=only is None)
        with self._metadata.transaction(write=True) as meta:
            for key, value in safe.items():
                known = meta.get(OFFSETS, key)
                if known is None or OffsetValue.unpack(known).number <= value.number:
                    meta.put(OFFSETS, key, value.pack())
            for group, data in groups.items():
                if data is not None:
                    fields = _name_row(decode_group(data))
                    if meta.get(GROUP_NAMES, group) != fields:
                        meta.put(GROUP_NAMES, group, fields)
        with self._live.transaction(write=True) as tables:
            for key in safe:
                if tables.get(OFFSETS, key) == rows[key]:
                    tables.delete(DIRTY, key)

    def _synced(self, rows: Mapping[bytes, bytes], *, tolerant: bool) -> dict[bytes, OffsetValue]:
        """The offsets, after their logs were synced; none is beyond what is on stable storage."""
        values = {key: OffsetValue.unpack(value) for key, value in rows.items()}
        ends: dict[tuple[uuid.UUID, int], int] = {}
        safe = {}
        for packed, value in values.items():
            if value.offset == REMOVED:
                safe[packed] = value
                continue
            key = OffsetKey.unpack(packed)
            place = key.topic_id, key.partition
            try:
                end = ends.get(place)
                if end is None or end < value.offset:
                    end = ends[place] = self._sync(place, value.offset)
            except (LogstoreError, OSError) as error:
                if not tolerant:
                    raise
                # It stays dirty, and the checkpoint of before counts.
                _log.warning("no checkpoint of an offset: %s", error)
                continue
            safe[packed] = value._replace(offset=min(value.offset, end))
        return safe

    def _sync(self, place: tuple[uuid.UUID, int], offset: int) -> int:
        """Sync a log if it is not up to ``offset``, and return up to where it is now."""
        lent = self._lend(*place)
        if lent is None:
            return 0
        with lent as log:
            if log.synced_offset < offset:
                log.flush()
            return log.synced_offset


def _committed(rows: Iterable[tuple[OffsetKey, bytes]]) -> dict[OffsetKey, OffsetValue]:
    """The offsets in rows, without those that were removed."""
    values = {key: OffsetValue.unpack(data) for key, data in rows}
    return {key: value for key, value in values.items() if value.offset != REMOVED}


def restore_offsets(metadata: Metadata, lend: Lend) -> tuple[Restored, Restored]:
    """What a new live environment, and ``meta`` beside it, begin with: the checkpoints, cut back
    to the ends of their logs, and the groups that have any."""
    with metadata.transaction() as meta:
        rows = list(meta.items(OFFSETS))
        names = dict(meta.items(GROUP_NAMES))
    committed: defaultdict[tuple[uuid.UUID, int], dict[bytes, OffsetValue]] = defaultdict(dict)
    for packed, data in rows:
        key, value = OffsetKey.unpack(packed), OffsetValue.unpack(data)
        if value.offset != REMOVED:
            # The numbers of the new environment begin at 1.
            committed[key.topic_id, key.partition][packed] = value._replace(number=0)
    offsets: dict[bytes, bytes] = {}
    for place, values in committed.items():  # each log is opened once, whatever the groups
        cut = _cut(place, values, lend)
        offsets |= {packed: value.pack() for packed, value in cut.items()}
    with_offsets = {packed[:GROUP_ID_BYTES] for packed in offsets}
    names = {key: value for key, value in names.items() if key in with_offsets}
    groups = {key: encode_group(group_from_name(value), 0) for key, value in names.items()}
    return {OFFSETS: offsets, GROUPS: groups}, {OFFSETS: offsets, GROUP_NAMES: names}


def _cut(
    place: tuple[uuid.UUID, int], values: dict[bytes, OffsetValue], lend: Lend
) -> dict[bytes, OffsetValue]:
    """The offsets of all groups in a log, cut back to its end; none where there is no log."""
    try:
        lent = lend(*place)
        if lent is None:
            return {}
        with lent as log:
            end = log.log_end_offset
    except (LogstoreError, OSError) as error:
        # A log that cannot be opened cannot be appended to either, until it is repaired.
        _log.warning("offsets could not be compared with their log: %s", error)
        return values
    for value in values.values():
        if end < value.offset:
            _log.warning(
                "%s: a committed offset of %d was cut back to the log's end, %d",
                log.directory,
                value.offset,
                end,
            )
    return {
        packed: value._replace(offset=min(value.offset, end)) for packed, value in values.items()
    }


def _name_row(group: Group) -> bytes:
    return json.dumps({"name": group.name, "generation": group.generation}).encode()


def group_from_name(row: bytes) -> Group:
    """A group without members. Its generation has grown since the checkpoint, for all one knows."""
    try:
        fields = json.loads(row)
        return Group(str(fields["name"]), int(fields["generation"]) + 1)
    except (ValueError, KeyError, TypeError) as error:
        raise FormatError("the name of a group is broken", found=error) from error
