"""The text files of a partition's directory (source: Kafka's implementation, KIP-101, KIP-516).

``leader-epoch-checkpoint`` says at which offset each leader epoch began. Every line ends with a
newline; the second one counts those that follow::

    0
    2
    7 50
    8 59

``partition.metadata`` names the topic's id, a UUID in url-safe base64 without padding. Kafka
writes no newline behind it::

    version: 0
    topic_id: ASNFZ4mrze8P7cuph2VDIQ

Both are small and replaced as a whole; reading and writing the files is the caller's part.
"""

from __future__ import annotations

import base64
import re
import uuid
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from logstore.segments.errors import (
    FormatError,
    InvalidInputError,
    TruncatedError,
    UnsupportedFormatError,
)

__all__ = [
    "EpochEntry",
    "PartitionMetadata",
    "format_leader_epochs",
    "format_offset",
    "format_partition_metadata",
    "parse_leader_epochs",
    "parse_offset",
    "parse_partition_metadata",
]

_CHECKPOINT_VERSION = 0
_INT32_MAX = (1 << 31) - 1
_INT64_MAX = (1 << 63) - 1
_NUMBER = re.compile(rb"[0-9]{1,19}\Z")
_ENTRY = re.compile(rb"([0-9]{1,10})[ \t]+([0-9]{1,19})\Z")
_FIELD = re.compile(rb"[ \t]*([a-z_]+)[ \t]*:[ \t]*(\S+)[ \t]*\Z")
_TOPIC_ID = re.compile(rb"[A-Za-z0-9_-]{22}\Z")


class EpochEntry(NamedTuple):
    """A leader epoch, and the offset of the first record that was written in it."""

    epoch: int
    start_offset: int


class PartitionMetadata(NamedTuple):
    """The version of a ``partition.metadata`` file, and the id of the partition's topic."""

    version: int
    topic_id: uuid.UUID


class _Line(NamedTuple):
    number: int
    """Counted from 1."""
    position: int
    """The byte of the file at which it begins."""
    text: bytes
    """Without what ends the line."""

    def wrong(self, expected: str) -> FormatError:
        return FormatError(
            f"line {self.number} is malformed",
            position=self.position,
            expected=expected,
            found=repr(self.text[:80])[1:],
        )


def _lines(data: bytes) -> list[_Line]:
    """The lines of ``data``; a file that was written on Windows has ``\\r\\n`` behind each."""
    lines = []
    position = 0
    for number, text in enumerate(data.split(b"\n"), 1):
        lines.append(_Line(number, position, text.removesuffix(b"\r")))
        position += len(text) + 1
    return lines


# leader-epoch-checkpoint --------------------------------------------------------------------


def parse_leader_epochs(data: bytes) -> list[EpochEntry]:
    """The entries of a ``leader-epoch-checkpoint``.

    An empty file has none: a broker makes it before it has anything to say. Raises FormatError,
    with line and position, for anything malformed, for another number of entries than the file
    itself states, and for entries that do not ascend; TruncatedError when the file was cut off.
    """
    if not data:
        return []
    *lines, rest = _lines(data)
    if rest.text or len(lines) < 2:
        raise TruncatedError(
            f"the file ends inside line {rest.number}",
            position=len(data),
            expected="a version and a count, and a newline behind every line",
            found=f"{len(data)} bytes",
        )
    version, count = (_number(line) for line in lines[:2])
    if version != _CHECKPOINT_VERSION:
        raise UnsupportedFormatError(
            "the version in line 1 is unknown",
            position=0,
            expected=_CHECKPOINT_VERSION,
            found=version,
        )
    entries: list[EpochEntry] = []
    for line in lines[2:]:
        entry = _entry(line)
        problem = _out_of_order(entries[-1] if entries else None, entry)
        if problem:
            raise FormatError(f"line {line.number}: {problem}", position=line.position)
        entries.append(entry)
    if len(entries) != count:
        kind = TruncatedError if len(entries) < count else FormatError
        raise kind(
            "the count in line 2 is not that of the lines behind it",
            position=lines[1].position,
            expected=len(entries),
            found=count,
        )
    return entries


def format_leader_epochs(entries: Sequence[EpochEntry]) -> bytes:
    """The bytes of a ``leader-epoch-checkpoint``; InvalidInputError unless entries ascend."""
    previous = None
    for entry in entries:
        problem = _out_of_order(previous, entry)
        if problem:
            raise InvalidInputError(f"leader epochs cannot be stored: {problem}")
        previous = entry
    return _text([str(_CHECKPOINT_VERSION), str(len(entries)), *(f"{e} {o}" for e, o in entries)])


def _text(lines: Iterable[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode("ascii")


def _number(line: _Line) -> int:
    if not _NUMBER.match(line.text):
        raise line.wrong("a number")
    return int(line.text)


def _entry(line: _Line) -> EpochEntry:
    match = _ENTRY.match(line.text)
    if not match:
        raise line.wrong("an epoch and an offset")
    return EpochEntry(int(match[1]), int(match[2]))


def _out_of_order(previous: EpochEntry | None, entry: EpochEntry) -> str | None:
    """What forbids ``entry`` to follow ``previous``, if anything does.

    Two epochs may begin at one offset: old brokers kept an epoch in which nothing was written.
    """
    epoch, start_offset = entry
    if not (0 <= epoch <= _INT32_MAX and 0 <= start_offset <= _INT64_MAX):
        return f"epoch {epoch} or offset {start_offset} is out of bounds"
    if previous is not None and epoch <= previous.epoch:
        return f"epoch {epoch} follows epoch {previous.epoch}"
    if previous is not None and start_offset < previous.start_offset:
        return f"offset {start_offset} follows offset {previous.start_offset}"
    return None


# offsets ------------------------------------------------------------------------------------


def format_offset(offset: int) -> bytes:
    """The bytes of a file that holds one offset: a version and the offset, a line each.

    Kafka keeps these offsets of all partitions in one file for the whole broker; here each
    partition has its own, so that it can be carried about as a directory.
    """
    return _text([str(_CHECKPOINT_VERSION), str(offset)])


def parse_offset(data: bytes) -> int:
    """What ``format_offset`` was given; raises FormatError."""
    lines = _lines(data)
    if len(lines) != 3 or lines[2].text or _number(lines[0]) != _CHECKPOINT_VERSION:
        raise FormatError(
            "this is no offset", position=0, expected="a version and an offset", found=data[:80]
        )
    return _number(lines[1])


# partition.metadata -------------------------------------------------------------------------


def parse_partition_metadata(data: bytes) -> PartitionMetadata:
    """What a ``partition.metadata`` says.

    Any version from 0 on is read, as Kafka reads it: later ones may only add lines. Raises
    FormatError, with line and position, for anything malformed and for the id of all zeros, which
    means *no id* elsewhere in Kafka.
    """
    lines = _lines(data)
    if len(lines) < 2:
        raise TruncatedError(
            f"the file ends inside line {len(lines)}",
            position=len(data),
            expected="a version and a topic id",
            found=f"{len(data)} bytes",
        )
    version, topic_id = _field(lines[0], b"version"), _field(lines[1], b"topic_id")
    if not _NUMBER.match(version) or int(version) > _INT32_MAX:
        raise lines[0].wrong("version: and a number")
    if not _TOPIC_ID.match(topic_id):
        raise lines[1].wrong("topic_id: and 22 characters of url-safe base64")
    identifier = uuid.UUID(bytes=base64.urlsafe_b64decode(topic_id + b"=="))
    if identifier.int == 0:
        raise lines[1].wrong("an id that is not all zeros")
    if version == b"0":
        for line in lines[2:]:
            if line.text:
                raise line.wrong("nothing more")
    return PartitionMetadata(int(version), identifier)


def format_partition_metadata(metadata: PartitionMetadata) -> bytes:
    """The bytes of a ``partition.metadata``; InvalidInputError for an id of all zeros."""
    version, topic_id = metadata
    if version < 0 or topic_id.int == 0:
        raise InvalidInputError(f"version {version} and topic id {topic_id} cannot be stored")
    identifier = base64.urlsafe_b64encode(topic_id.bytes).rstrip(b"=").decode("ascii")
    return f"version: {version}\ntopic_id: {identifier}".encode("ascii")


def _field(line: _Line, name: bytes) -> bytes:
    match = _FIELD.match(line.text)
    if not match or match[1] != name:
        raise line.wrong(f"{name.decode()}: and a value")
    return match[2]
