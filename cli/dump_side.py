"""What ``dump`` shows of the files beside a segment: indexes, snapshots, checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

from logstore.cli.output import spelled_topic_id, time_text
from logstore.segments import (
    checkpoint,
    offset_index,
    producer_snapshot,
    time_index,
    transaction_index,
)
from logstore.segments.errors import FormatError, TruncatedError
from logstore.segments.files import Files, read_bounded
from logstore.segments.layout import FileKind, PartitionFile

__all__ = ["Item", "side_items"]

_MAX_BYTES = 256 << 20

_Entry = TypeVar("_Entry")


class Item(NamedTuple):
    """One entry of a file."""

    position: int
    raw: bytes
    fields: dict[str, Any]
    """Its JSON object."""
    text: str
    """The same as a line for people."""


def side_items(files: Files, file: PartitionFile) -> Iterator[Item]:
    """The entries of any file of a partition but a log; a FormatError ends them where the file
    is damaged."""
    data = read_bounded(files, file.path, _MAX_BYTES)
    base_offset = file.base_offset or 0
    match file.kind:
        case FileKind.OFFSET_INDEX:
            yield from _offsets(file.path, data, base_offset)
        case FileKind.TIME_INDEX:
            yield from _times(file.path, data, base_offset)
        case FileKind.TRANSACTION_INDEX:
            yield from _transactions(file.path, data)
        case FileKind.PRODUCER_SNAPSHOT:
            yield from _producers(file.path, data)
        case FileKind.LEADER_EPOCHS:
            yield from _epochs(file.path, data)
        case FileKind.PARTITION_METADATA:
            yield from _metadata(file.path, data)
        case FileKind.LOG:
            raise AssertionError("a log is no side file")


def _refuse_rest(data: bytes, entry_bytes: int) -> None:
    rest = len(data) % entry_bytes
    if rest:
        raise TruncatedError(
            "the index ends inside an entry",
            position=len(data) - rest,
            expected=f"{entry_bytes} bytes",
            found=f"{rest} bytes",
        )


def _offsets(path: str, data: bytes, base_offset: int) -> Iterator[Item]:
    size = offset_index.ENTRY_BYTES
    valid = data[: offset_index.valid_size(data)]
    for number, entry in enumerate(offset_index.decode_entries(base_offset, valid)):
        position = number * size
        fields = {
            "type": "offset_entry",
            "file": path,
            "position": position,
            "offset": entry.offset,
            "log_position": entry.position,
        }
        text = f"{position:>12}  offset {entry.offset}  position {entry.position} of the log"
        yield Item(position, data[position : position + size], fields, text)
    _refuse_rest(data, size)


def _times(path: str, data: bytes, base_offset: int) -> Iterator[Item]:
    size = time_index.ENTRY_BYTES
    valid = data[: time_index.valid_size(data)]
    for number, entry in enumerate(time_index.decode_entries(base_offset, valid)):
        position = number * size
        fields = {
            "type": "time_entry",
            "file": path,
            "position": position,
            "timestamp": entry.timestamp,
            "offset": entry.offset,
        }
        text = (
            f"{position:>12}  timestamp {entry.timestamp} ({time_text(entry.timestamp)})  "
            f"offset {entry.offset}"
        )
        yield Item(position, data[position : position + size], fields, text)
    _refuse_rest(data, size)


def _until_damage(
    decode: Callable[[bytes], Sequence[_Entry]], data: bytes
) -> tuple[Sequence[_Entry], FormatError | None]:
    """What stands in front of the damage, and the damage."""
    try:
        return decode(data), None
    except FormatError as error:
        return decode(data[: error.position]), error


def _transactions(path: str, data: bytes) -> Iterator[Item]:
    size = transaction_index.ENTRY_BYTES
    entries, error = _until_damage(transaction_index.decode_entries, data)
    for number, entry in enumerate(entries):
        position = number * size
        fields = {
            "type": "aborted_transaction",
            "file": path,
            "position": position,
            **entry._asdict(),
        }
        text = (
            f"{position:>12}  producer {entry.producer_id}  aborted offsets {entry.first_offset} "
            f"to {entry.last_offset}  last stable offset {entry.last_stable_offset}"
        )
        yield Item(position, data[position : position + size], fields, text)
    if error is not None:
        raise error


def _producers(path: str, data: bytes) -> Iterator[Item]:
    size = producer_snapshot.ENTRY_BYTES
    for number, entry in enumerate(producer_snapshot.decode(data)):
        position = producer_snapshot.HEADER_BYTES + number * size
        fields = {"type": "producer", "file": path, "position": position, **entry._asdict()}
        text = (
            f"{position:>12}  producer {entry.producer_id} epoch {entry.producer_epoch}  "
            f"last sequence {entry.last_sequence}  last offset {entry.last_offset} "
            f"(batch of {entry.offset_delta + 1})  {time_text(entry.timestamp)}  "
            f"coordinator epoch {entry.coordinator_epoch}  "
            f"open transaction from {entry.current_transaction_first_offset}"
        )
        yield Item(position, data[position : position + size], fields, text)


def _epochs(path: str, data: bytes) -> Iterator[Item]:
    entries = checkpoint.parse_leader_epochs(data)
    position = 0
    lines = data.splitlines(keepends=True)
    for number, line in enumerate(lines):
        if number >= 2:
            entry = entries[number - 2]
            fields = {"type": "leader_epoch", "file": path, "position": position}
            text = f"{position:>12}  epoch {entry.epoch} from offset {entry.start_offset}"
            yield Item(position, line, {**fields, **entry._asdict()}, text)
        position += len(line)


def _metadata(path: str, data: bytes) -> Iterator[Item]:
    version, topic_id = checkpoint.parse_partition_metadata(data)
    spelled = spelled_topic_id(topic_id)  # as the file does
    fields = {
        "type": "partition_metadata",
        "file": path,
        "position": 0,
        "version": version,
        "topic_id": spelled,
    }
    text = f"{0:>12}  version {version}  topic id {spelled} ({topic_id})"
    yield Item(0, data, fields, text)
