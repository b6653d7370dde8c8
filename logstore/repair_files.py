"""What a repair does to files: cutting logs, and building what can be built from them."""

from __future__ import annotations

import contextlib
import os
import struct
from collections import defaultdict
from collections.abc import Iterator, Sequence

from logstore.config import LogConfig
from logstore.definitions import TOPIC_PREFIX, TopicDefinition, decode, topic_from
from logstore.errors import FormatError, LockTimeoutError, LogstoreError
from logstore.log import PartitionLog
from logstore.metadata import METADATA_TOPIC, TOPICS
from logstore.repair_plan import EpochAt, SegmentPlan
from logstore.segments import filenames
from logstore.segments.batch import Batch
from logstore.segments.broker_lock import running_broker
from logstore.segments.checkpoint import EpochEntry, parse_leader_epochs
from logstore.segments.control import ControlType
from logstore.segments.files import File, Files, read_bounded, write_fully
from logstore.segments.indexing import build_indexes
from logstore.segments.scan import survey
from logstore.segments.transaction_index import AbortedTransaction
from logstore.structure import list_segments, segment_path
from logstore.transactions import OpenTransactions

__all__ = [
    "aborted_transactions",
    "batch_epochs",
    "epochs_of",
    "new_indexes",
    "refuse_beside_broker",
    "save_and_cut",
    "set_aside",
    "set_epochs",
    "stored_epochs",
    "topic_config",
]

_COPY_BYTES = 1 << 20
_MAX_CHECKPOINT_BYTES = 16 << 20
_REMOVED = ".removed-"
_EPOCH = struct.Struct(">i")
_EPOCH_POSITION = 12
"""Of the leader epoch in a batch's header."""


def refuse_beside_broker(path: str) -> None:
    """Raise LockTimeoutError if a Kafka broker runs on the directory."""
    broker = running_broker(path)
    if broker is not None:
        raise LockTimeoutError(
            f"{path}: a Kafka broker (process {broker}) runs on it; stop it first, or see with "
            "--dry-run what would be done"
        )


def save_and_cut(
    files: Files, directory: str, plan: SegmentPlan, *, in_place: bool
) -> list[str | None]:
    """Take the cuts of ``plan`` out of its log, and return for each where it was saved.

    What is nothing but zeros is not saved. Commit point: the rename of the copy, or ``in_place``,
    for an end of the active segment, the sync behind the cut.
    """
    file = files.open(plan.path, write=True)
    try:
        saved = [_save(files, file, cut.position, cut.size) for cut in plan.cuts]
        if any(saved):
            files.sync_directory(directory)
        for suffix in (filenames.OFFSET_INDEX, filenames.TIME_INDEX):
            with contextlib.suppress(FileNotFoundError):
                files.remove(segment_path(directory, plan.base_offset, suffix))
        files.sync_directory(directory)
        if in_place:
            file.truncate(plan.cuts[0].position)
            file.sync()
            return saved
        temporary = plan.path + filenames.TEMPORARY
        _write_new(files, temporary, file, plan.kept())
    finally:
        file.close()
    files.rename(temporary, plan.path)
    files.sync_directory(directory)
    return saved


def _save(files: Files, file: File, position: int, size: int) -> str | None:
    if not any(part.strip(b"\0") for part in _parts(file, position, position + size)):
        return None
    path = _unused(files, f"{file.path}{_REMOVED}{position}")
    _write_new(files, path, file, [(position, position + size)])
    return path


def _unused(files: Files, path: str) -> str:
    """``path``, or the next one that does not exist."""
    number = 1
    found = path
    while files.exists(found):
        number += 1
        found = f"{path}-{number}"
    return found


def _write_new(
    files: Files,
    path: str,
    source: File,
    ranges: list[tuple[int, int]],
    patches: Sequence[tuple[int, bytes]] = (),
) -> None:
    """Write ranges of ``source`` to a file of their own, ``patches`` over them, and sync it."""
    copy = files.open(path, write=True, create=True)
    try:
        copy.truncate(0)
        position = 0
        for start, end in ranges:
            for part in _parts(source, start, end):
                write_fully(copy, part, position)
                position += len(part)
        for position, data in patches:
            write_fully(copy, data, position)
        copy.sync()
    finally:
        copy.close()


def _parts(file: File, start: int, end: int) -> Iterator[bytes]:
    for position in range(start, end, _COPY_BYTES):
        yield file.read_at(min(_COPY_BYTES, end - position), position)


def set_aside(files: Files, path: str) -> str:
    """Rename a file, so that it is no part of the partition any more. Commit point: the rename."""
    aside = _unused(files, f"{path}{_REMOVED}0")
    files.rename(path, aside)
    files.sync_directory(os.path.dirname(path) or ".")
    return aside


def topic_config(files: Files, directory: str) -> LogConfig:
    """The configuration of the topic, if the partition's directory lies in a store; the defaults
    where it does not, or the store does not know (or cannot say) what the topic's is."""
    store = os.path.join(directory, os.pardir, os.pardir)
    parsed = filenames.parse_partition_directory(os.path.basename(os.path.realpath(directory)))
    if parsed is None or not files.exists(os.path.join(store, "store.json")):
        return LogConfig()
    # Rather indexes of another density, which serve as well, than no repair.
    with contextlib.suppress(LogstoreError, OSError):
        # By the log, not by LMDB: a `meta` that is cut short ends the process that maps it.
        for definition in _definitions(files, store):
            if definition.name == parsed[0]:
                return LogConfig.from_overrides(definition.overrides)
    return LogConfig()


def _definitions(files: Files, store: str) -> list[TopicDefinition]:
    """The topics, by what ``__metadata`` says last of each."""
    directory = os.path.join(store, TOPICS, filenames.partition_directory(METADATA_TOPIC.name, 0))
    found: dict[str, TopicDefinition | None] = {}
    with PartitionLog(directory, files=files, read_only=True) as log:
        offset = log.log_start_offset
        while (fetch := log.read(offset)).data:
            for record in fetch.records():
                key = (record.key or b"").decode()
                if key.startswith(TOPIC_PREFIX):
                    fields = record.value and decode(key, record.value, directory)
                    found[key] = topic_from(key, fields, store) if fields else None
            offset = fetch.next_offset
    return [definition for definition in found.values() if definition is not None]


# Building anew --------------------------------------------------------------------------------


def _batches(files: Files, path: str) -> Iterator[Batch]:
    """The batches of a log whose checksum is right."""
    file = files.open(path)
    try:
        for item in survey(file):
            if isinstance(item, Batch) and item.crc_ok:
                yield item
    finally:
        file.close()


def new_indexes(files: Files, path: str, base: int, config: LogConfig) -> tuple[bytes, bytes]:
    """The offset and the time index of the log at ``path``."""
    headers = ((batch.position, batch.header) for batch in _batches(files, path))
    return build_indexes(
        headers, base_offset=base, index_interval_bytes=config.index_interval_bytes
    )


def batch_epochs(files: Files, directory: str) -> list[EpochAt]:
    """The leader epochs of all batches, in order."""
    found = []
    for base in list_segments(files, directory):
        path = segment_path(directory, base, filenames.LOG)
        for batch in _batches(files, path):
            header = batch.header
            if header.magic >= 2:
                offsets = header.base_offset, header.next_offset
                found.append(EpochAt(path, batch.position, *offsets, header.leader_epoch))
    return found


def stored_epochs(files: Files, directory: str) -> list[EpochEntry]:
    """What the checkpoint says; nothing where it cannot be read."""
    path = os.path.join(directory, filenames.LEADER_EPOCH_CHECKPOINT)
    with contextlib.suppress(FormatError, FileNotFoundError):
        return parse_leader_epochs(read_bounded(files, path, _MAX_CHECKPOINT_BYTES))
    return []


def epochs_of(found: Sequence[EpochAt], stored: Sequence[EpochEntry]) -> list[EpochEntry]:
    """A checkpoint of the leader epochs of batches that ascend, and of those that are later."""
    entries: list[EpochEntry] = []
    latest = -1
    for at in found:
        if at.epoch > latest:
            latest = at.epoch
            entries.append(EpochEntry(latest, at.offset))
    later = [entry for entry in stored if entry.epoch > latest]
    if later:  # of those none has a record; the last one goes on, so that none is used twice
        end = max((at.next_offset for at in found), default=later[-1].start_offset)
        entries.append(EpochEntry(later[-1].epoch, end))
    return entries


def set_epochs(files: Files, path: str, wrong: Sequence[EpochAt]) -> None:
    """Write leader epochs into the headers of batches; no checksum covers them.

    Commit point: the rename of the copy. (A backup may have linked to the log itself.)
    """
    file = files.open(path)
    try:
        patches = [(at.position + _EPOCH_POSITION, _EPOCH.pack(at.epoch)) for at in wrong]
        _write_new(files, path + filenames.TEMPORARY, file, [(0, file.size())], patches)
    finally:
        file.close()
    files.rename(path + filenames.TEMPORARY, path)
    files.sync_directory(os.path.dirname(path) or ".")


def aborted_transactions(
    files: Files, directory: str
) -> defaultdict[int, list[AbortedTransaction]]:
    """The entries of each segment's transaction index, by its base offset."""
    found: defaultdict[int, list[AbortedTransaction]] = defaultdict(list)
    transactions = OpenTransactions()
    for base in list_segments(files, directory):
        for batch in _batches(files, segment_path(directory, base, filenames.LOG)):
            end = transactions.take(batch)
            if end is not None and end.kind == ControlType.ABORT and end.first_offset is not None:
                found[base].append(
                    AbortedTransaction(
                        end.producer_id, end.first_offset, end.offset, end.stable_offset
                    )
                )
    return found
