"""How far the consumer groups of a Kafka broker have come: read from its ``__consumer_offsets``.

A commit is a record there: its key names group, topic and partition, its value the offset. The last
one counts; a null value takes the commit away (Kafka's ``OffsetCommitKey`` and
``OffsetCommitValue``). What a transaction commits counts from its marker on. Share groups, whose
state is another topic's, are not read.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from typing import NamedTuple

from logstore.groups.descriptions import OffsetDescription
from logstore.inspect.sources import Partition
from logstore.inspect.statistics import PartitionStatistics, Statistics
from logstore.inspect.store_statistics import GroupLag
from logstore.inspect.walking import Trouble, Walk
from logstore.partitions import OffsetAndMetadata
from logstore.replay.source import Range
from logstore.segments.control import ControlType, control_type
from logstore.segments.errors import FormatError
from logstore.segments.filenames import parse_partition_directory
from logstore.segments.files import Files
from logstore.segments.layout import partition_directories
from logstore.segments.record import Record

__all__ = ["Commit", "broker_group_lags", "committed_offsets"]

_TOPIC = "__consumer_offsets"
_LAST_KEY_OF_A_COMMIT = 1
"""Keys of higher versions are of groups and their members."""
_VERSION = struct.Struct(">h")
_LENGTH = struct.Struct(">h")
_PARTITION = struct.Struct(">i")
_VALUE = struct.Struct(">hq")
"""Version and offset, with which values of all versions begin."""


class Commit(NamedTuple):
    """What a group has committed an offset of."""

    group: str
    topic: str
    partition: int


def broker_group_lags(statistics: Statistics) -> Iterator[GroupLag]:
    """The lags of all groups in the partitions that were counted, of those that lie beside a
    ``__consumer_offsets``; group by group."""
    by_parent: dict[str, dict[tuple[str, int], PartitionStatistics]] = {}
    for one in statistics.partitions:
        place = one.partition
        parent = os.path.dirname(os.path.abspath(place.directory))
        by_parent.setdefault(parent, {})[place.topic, place.number] = one
    for parent, counted in by_parent.items():
        committed = committed_offsets(statistics.files, parent, trouble=statistics.tell)
        for commit, offset in sorted(committed.items()):
            found = counted.get((commit.topic, commit.partition))
            if found is not None and found.partition.segment is None:
                yield GroupLag(commit.group, _description(commit, offset, found))


def _description(commit: Commit, offset: int, found: PartitionStatistics) -> OffsetDescription:
    empty_at = max((segment.base_offset or 0 for segment in found.segments), default=0)
    end = max(found.next_offset, empty_at)
    start = found.first_offset if found.first_offset >= 0 else end
    place = commit.topic, commit.partition
    return OffsetDescription(*place, OffsetAndMetadata(offset), start, end, "")


def committed_offsets(
    files: Files, directory: str, *, trouble: Callable[[Trouble], object]
) -> dict[Commit, int]:
    """The offsets that are committed in a broker's log directory; none where it is none."""
    committed: dict[Commit, int] = {}
    try:
        paths = partition_directories(files, directory) or ()
    except OSError:  # a partition may be looked into where nothing beside it may
        return committed
    for path in paths:
        topic, number = parse_partition_directory(os.path.basename(path)) or ("", 0)
        if topic == _TOPIC:
            _read(files, Partition(topic, number, path), committed, trouble)
    return committed


_Found = list[tuple[Commit, int | None]]


def _read(
    files: Files,
    partition: Partition,
    committed: dict[Commit, int],
    trouble: Callable[[Trouble], object],
) -> None:
    held: dict[int, _Found] = {}  # what open transactions have committed, by producer
    walk = Walk(files, partition, Range(), trouble=trouble, control=True)
    for batch in walk.batches():
        header = batch.header
        try:
            records = batch.records()
            if header.control:
                ended = held.pop(header.producer_id, [])
                if records and control_type(records[0]) == ControlType.COMMIT:
                    _apply(ended, committed)
                continue
            found = [one for record in records if (one := _commit(record)) is not None]
        except FormatError as error:
            trouble(Trouble(batch.path or "", batch.position, error.reason))
            continue
        if header.transactional:
            held.setdefault(header.producer_id, []).extend(found)
        else:
            _apply(found, committed)


def _apply(found: _Found, committed: dict[Commit, int]) -> None:
    for commit, offset in found:
        if offset is None:
            committed.pop(commit, None)
        else:
            committed[commit] = offset


def _commit(record: Record) -> tuple[Commit, int | None] | None:
    """What a record says of a commit; None for one that is about something else, or nothing."""
    key, value = record.key or b"", record.value
    try:
        if _VERSION.unpack_from(key)[0] > _LAST_KEY_OF_A_COMMIT:
            return None
        group, place = _text(key, _VERSION.size)
        topic, place = _text(key, place)
        (partition,) = _PARTITION.unpack_from(key, place)
        offset = None if value is None else _VALUE.unpack_from(value)[1]
    except struct.error:
        return None
    return Commit(group, topic, partition), offset


def _text(data: bytes, place: int) -> tuple[str, int]:
    """A string behind its length, and where it ends."""
    (length,) = _LENGTH.unpack_from(data, place)
    begin = place + _LENGTH.size
    if not 0 <= length <= len(data) - begin:
        raise struct.error("a string is longer than what it stands in")
    return data[begin : begin + length].decode("utf-8", "replace"), begin + length
