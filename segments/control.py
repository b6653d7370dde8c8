"""Control records: what the broker, not a producer, writes into a partition.

The key is ``int16 version, int16 type``; the value depends on the type. A transaction's marker is
``int16 version, int32 coordinator epoch`` (source: Kafka documentation, "Control Batches", KIP-98,
KIP-595 and KIP-853 for the types of a KRaft log).
"""

from __future__ import annotations

import enum

from logstore.segments.errors import FormatError
from logstore.segments.fields import Fields
from logstore.segments.record import Record

__all__ = [
    "ControlType",
    "control_label",
    "control_type",
    "coordinator_epoch",
    "end_transaction_marker",
]

KEY_FIELDS = Fields(("h", "version"), ("h", "type"))
"""The key of a control record."""
END_TRANSACTION_FIELDS = Fields(("h", "version"), ("i", "coordinatorEpoch"))
"""The value of the marker that ends a transaction."""

_KEY = KEY_FIELDS.struct
_END_TRANSACTION = END_TRANSACTION_FIELDS.struct


class ControlType(enum.IntEnum):
    """The types of control records, by the number in their key."""

    ABORT = 0
    COMMIT = 1
    LEADER_CHANGE = 2
    SNAPSHOT_HEADER = 3
    SNAPSHOT_FOOTER = 4
    KRAFT_VERSION = 5
    KRAFT_VOTERS = 6


def control_type(record: Record) -> int:
    """The number of a control record's type, known or not; raises FormatError without one."""
    if record.key is None or len(record.key) < _KEY.size:
        raise FormatError(
            f"the control record at offset {record.offset} has no type",
            expected=f"a key of at least {_KEY.size} bytes",
            found="null" if record.key is None else len(record.key),
        )
    return int(_KEY.unpack_from(record.key)[1])


def control_label(record: Record) -> str:
    """The type's name in lower case (``commit``, ``abort``, ...), ``unknown-N`` for a new one."""
    number = control_type(record)
    try:
        return ControlType(number).name.lower().replace("_", "-")
    except ValueError:
        return f"unknown-{number}"


def coordinator_epoch(record: Record) -> int | None:
    """The coordinator's epoch in the marker that ends a transaction; None in other control records.

    Raises FormatError for a marker that has none.
    """
    if control_type(record) not in (ControlType.ABORT, ControlType.COMMIT):
        return None
    if record.value is None or len(record.value) < _END_TRANSACTION.size:
        raise FormatError(
            f"the marker at offset {record.offset} has no coordinator's epoch",
            expected=f"a value of at least {_END_TRANSACTION.size} bytes",
            found="null" if record.value is None else len(record.value),
        )
    return int(_END_TRANSACTION.unpack_from(record.value)[1])


def end_transaction_marker(kind: ControlType, *, timestamp: int, coordinator_epoch: int) -> Record:
    """The record that ends a transaction: ``kind`` is COMMIT or ABORT."""
    return Record(
        timestamp=timestamp,
        key=_KEY.pack(0, kind),
        value=_END_TRANSACTION.pack(0, coordinator_epoch),
    )
