"""Control records: their types, known or not, and the marker that ends a transaction."""

from __future__ import annotations

import struct

import pytest

from logstore.segments.batch import Batch, encode_batch
from logstore.segments.control import (
    ControlType,
    control_label,
    control_type,
    end_transaction_marker,
)
from logstore.segments.errors import FormatError
from logstore.segments.record import Record


@pytest.mark.parametrize(
    ("number", "label"),
    [
        (0, "abort"),
        (1, "commit"),
        (2, "leader-change"),
        (3, "snapshot-header"),
        (4, "snapshot-footer"),
        (5, "kraft-version"),
        (6, "kraft-voters"),
        (7, "unknown-7"),
        (-1, "unknown--1"),
    ],
)
def test_the_key_says_what_a_control_record_is(number: int, label: str) -> None:
    record = Record(key=struct.pack(">hh", 0, number))
    assert (control_type(record), control_label(record)) == (number, label)


def test_a_longer_key_of_a_later_version_is_read_by_its_beginning() -> None:
    record = Record(key=struct.pack(">hhq", 1, 1, 99))
    assert control_label(record) == "commit"


@pytest.mark.parametrize("key", [None, b"", b"\0\0\0"])
def test_a_control_record_without_a_type_is_refused(key: bytes | None) -> None:
    with pytest.raises(FormatError, match="control record at offset 12 has no type"):
        control_type(Record(offset=12, key=key))


@pytest.mark.parametrize("kind", [ControlType.COMMIT, ControlType.ABORT])
def test_the_marker_of_a_transaction_has_the_bytes_of_the_description(kind: ControlType) -> None:
    marker = end_transaction_marker(kind, timestamp=55, coordinator_epoch=0x01020304)
    assert marker.key == bytes([0, 0, 0, kind])
    assert marker.value == bytes.fromhex("000001020304")
    raw = encode_batch([marker], transactional=True, control=True, producer_id=7, producer_epoch=0)
    batch = Batch.parse(raw)
    assert batch.header.control
    assert batch.header.transactional
    (record,) = batch.records()
    assert ControlType(control_type(record)) is kind
    assert record.timestamp == 55
