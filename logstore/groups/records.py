"""How groups and committed offsets stand in LMDB: tables, keys and values.

Keys begin with the group's id, which is a digest of its name: a name may be longer than a key may
be. Numbers in keys are big-endian, so that neighbours lie side by side.
"""

from __future__ import annotations

import hashlib
import json
import struct
import uuid
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from logstore.errors import FormatError, InvalidInputError
from logstore.groups.state import Group, Member, TopicInfo
from logstore.partitions import TopicPartition

__all__ = [
    "DEADLINES",
    "DIRTY",
    "EMPTY_SINCE",
    "GROUPS",
    "GROUP_NAMES",
    "OFFSETS",
    "OffsetKey",
    "OffsetValue",
    "deadline_key",
    "decode_group",
    "encode_group",
    "group_id",
    "pack_deadline",
    "unpack_deadline",
]

GROUPS = "groups"
"""In ``live``: group id -> number of the transaction that changed it, and the group."""
DEADLINES = "group-deadlines"
"""In ``live``: group id and member -> when its session times out."""
OFFSETS = "group-offsets"
"""In ``live`` and, as checkpoints, in ``meta``: group id, topic id, partition -> offset."""
DIRTY = "group-offsets-dirty"
"""In ``live``: keys of OFFSETS that are not yet in a checkpoint."""
EMPTY_SINCE = "group-empty-since"
"""In ``meta``: group id -> since when a group without members has had none, in milliseconds."""
GROUP_NAMES = "group-names"
"""In ``meta``: group id -> name and generation."""

MAX_GROUP_NAME_LENGTH = 255
"""In characters."""

GROUP_ID_BYTES = 16
_MEMBER_BYTES = 32
_NUMBER = struct.Struct(">Q")
_OFFSET_KEY = struct.Struct(
    ">"
    "16s"  # group id
    "16s"  # topic id
    "I"  # partition
)
_OFFSET_VALUE = struct.Struct(
    ">"
    "q"  # offset; -1: there is none any more
    "q"  # time of the commit, in milliseconds since 1970
    "Q"  # number of the transaction in ``live``; the metadata follows
)


def group_id(name: str) -> bytes:
    """The id of the group ``name``; raises InvalidInputError for what is no name."""
    if not isinstance(name, str) or not 0 < len(name) <= MAX_GROUP_NAME_LENGTH:
        raise InvalidInputError(
            f"{name!r:.50} is no name for a group: 1 to {MAX_GROUP_NAME_LENGTH} characters"
        )
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()[:GROUP_ID_BYTES]


# Groups -------------------------------------------------------------------------------------


def encode_group(group: Group, number: int) -> bytes:
    """A group, without its deadlines, as changed by the transaction ``number``."""
    fields = {
        "name": group.name,
        "generation": group.generation,
        "assignor": group.assignor,
        "topics": {name: list(info) for name, info in group.topics.items()},
        "members": [_member_fields(member) for member in group.members.values()],
        "target": {key: _pairs(target) for key, target in group.target.items()},
    }
    return _NUMBER.pack(number) + json.dumps(fields, separators=(",", ":")).encode()


def group_number(data: bytes) -> int:
    """The number of the transaction that changed an encoded group."""
    return int(_NUMBER.unpack_from(data)[0])


def decode_group(data: bytes) -> Group:
    """The opposite of :func:`encode_group`, without deadlines; raises FormatError."""
    try:
        fields = json.loads(data[_NUMBER.size :])
        return Group(
            name=fields["name"],
            generation=fields["generation"],
            assignor=fields["assignor"],
            topics={name: TopicInfo(*info) for name, info in fields["topics"].items()},
            members={member.member_id: member for member in map(_member_from, fields["members"])},
            target={key: _partitions(pairs) for key, pairs in fields["target"].items()},
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise FormatError("a group in the live environment is broken", found=error) from error


def _pairs(partitions: Iterable[TopicPartition]) -> list[list[Any]]:
    return [list(partition) for partition in sorted(partitions)]


def _partitions(pairs: Iterable[Iterable[Any]]) -> frozenset[TopicPartition]:
    return frozenset(TopicPartition(*pair) for pair in pairs)


def _member_fields(member: Member) -> dict[str, Any]:
    return {
        "member_id": member.member_id,
        "session_id": member.session_id,
        "assignors": list(member.assignors),
        "topics": sorted(member.topics),
        "session_timeout_ms": member.session_timeout_ms,
        "instance_id": member.instance_id,
        "client_id": member.client_id,
        "generation": member.generation,
        "owned": _pairs(member.owned),
    }


def _member_from(fields: Mapping[str, Any]) -> Member:
    return Member(
        **{
            **fields,
            "assignors": tuple(fields["assignors"]),
            "topics": frozenset(fields["topics"]),
            "owned": _partitions(fields["owned"]),
        }
    )


# Deadlines ----------------------------------------------------------------------------------


def deadline_key(group: bytes, member_id: str) -> bytes:
    """The key of a member's deadline: member ids end in 32 digits that no other one has."""
    return group + member_id[-_MEMBER_BYTES:].encode()


def pack_deadline(milliseconds: int) -> bytes:
    """A deadline's bytes."""
    return _NUMBER.pack(milliseconds)


def unpack_deadline(data: bytes | None) -> int:
    """The opposite; one that is missing has passed."""
    return 0 if data is None else int(_NUMBER.unpack(data)[0])


# Offsets ------------------------------------------------------------------------------------


class OffsetKey(NamedTuple):
    """Whose offset it is, and of which partition."""

    group: bytes
    topic_id: uuid.UUID
    partition: int

    def pack(self) -> bytes:
        """The key's bytes."""
        return _OFFSET_KEY.pack(self.group, self.topic_id.bytes, self.partition)

    @classmethod
    def unpack(cls, data: bytes) -> OffsetKey:
        """The opposite; raises FormatError."""
        if len(data) != _OFFSET_KEY.size:
            raise FormatError("the key of a committed offset is broken", found=data.hex())
        group, topic_id, partition = _OFFSET_KEY.unpack(data)
        return cls(group, uuid.UUID(bytes=topic_id), partition)


class OffsetValue(NamedTuple):
    """A committed offset."""

    offset: int
    """-1: it was removed."""
    metadata: str
    timestamp: int
    """When it was committed, in milliseconds since 1970."""
    number: int
    """The number of the transaction that committed it: tells which of two is the later one."""

    def pack(self) -> bytes:
        """The value's bytes."""
        head = _OFFSET_VALUE.pack(self.offset, self.timestamp, self.number)
        return head + self.metadata.encode("utf-8", "surrogatepass")

    @classmethod
    def unpack(cls, data: bytes) -> OffsetValue:
        """The opposite; raises FormatError."""
        try:
            offset, timestamp, number = _OFFSET_VALUE.unpack_from(data)
            metadata = data[_OFFSET_VALUE.size :].decode("utf-8", "surrogatepass")
        except (struct.error, ValueError) as error:
            raise FormatError("a committed offset is broken", found=error) from error
        return cls(offset, metadata, timestamp, number)
