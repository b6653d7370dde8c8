"""Annotated bytes: nothing left out, named as in docs/format.md, and the same as what is read."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from logstore.segments.annotate import (
    Annotated,
    Ending,
    Field,
    Part,
    annotate_batch,
    annotate_log,
    annotate_side_file,
    position_of_byte,
    position_of_offset,
)
from logstore.segments.batch import Batch, encode_batch
from logstore.segments.compression import Codec
from logstore.segments.files import DiskFiles
from logstore.segments.header import ATTRIBUTE_BITS, BatchHeader
from logstore.segments.layout import FileKind, identify
from logstore.segments.memory_files import MemoryFiles
from logstore.segments.record import Record
from logstore.segments.scan import scan
from tests.segments.partitions import in_memory, two_segments, write

ROOT = Path(__file__).resolve().parent.parent.parent
GOLDEN = ROOT / "tests" / "golden"
LOGS = sorted(GOLDEN.glob("*/*.log"))
SIDE_FILES = sorted(
    path
    for path in GOLDEN.glob("*/*")
    if (file := identify(str(path))) is not None and file.kind is not FileKind.LOG
)
FORMAT = (ROOT / "docs" / "format.md").read_text(encoding="utf-8")


T = TypeVar("T")


def of_kind(kind: type[T], items: Iterable[Annotated]) -> list[T]:
    return [item for item in items if isinstance(item, kind)]


def in_file(items: Iterable[Annotated]) -> list[Field]:
    """The fields whose bytes are those of the file, and not decompressed ones."""
    found = []
    decompressed = False
    for item in items:
        if isinstance(item, Part):
            decompressed = item.decompressed
        elif isinstance(item, Field) and not decompressed:
            found.append(item)
    return found


def covers(fields: list[Field], data: bytes) -> bool:
    """Whether the fields are the bytes, one behind the other."""
    position = 0
    for field in fields:
        if field.position != position or field.raw != data[position : position + field.size]:
            return False
        position += field.size
    return position == len(data)


def annotated(data: bytes, *, records: bool = False) -> list[Annotated]:
    files = MemoryFiles()
    write(files, "a.log", data)
    return list(annotate_log(files.open("a.log"), records=records))


@pytest.mark.parametrize("path", LOGS, ids=lambda path: path.parent.name)
def test_every_byte_of_kafkas_logs_belongs_to_a_field(path: Path) -> None:
    file = DiskFiles().open(str(path))
    items = list(annotate_log(file, records=True))
    file.close()
    assert covers(in_file(items), path.read_bytes())
    assert of_kind(Ending, items) == []
    assert [f for f in of_kind(Field, items) if f.wrong or f.name == "?"] == []


@pytest.mark.parametrize("path", SIDE_FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_every_byte_of_kafkas_other_files_belongs_to_a_field(path: Path) -> None:
    file = identify(str(path))
    assert file is not None
    data = path.read_bytes()
    items = list(annotate_side_file(file.kind, data, file.base_offset or 0))
    assert covers(in_file(items), data)
    assert of_kind(Ending, items) == []


@pytest.mark.parametrize("path", LOGS, ids=lambda path: path.parent.name)
def test_keys_and_values_are_those_that_are_read(path: Path) -> None:
    file = DiskFiles().open(str(path))
    for item in scan(file):
        assert isinstance(item, Batch)
        if item.header.control:
            continue
        fields = of_kind(Field, annotate_batch(item.raw, records=True))
        if item.header.magic < 2 and item.header.attributes & 7:
            fields = fields[len(in_file(annotate_batch(item.raw, records=True))) :]
        read = item.records()
        lengths = [f.value for f in fields if f.name in ("keyLength", "valueLength")]
        wanted: list[int] = []
        for record in read:
            wanted += [-1 if part is None else len(part) for part in record[2:4]]
        assert lengths == wanted
        shown = [f.value for f in fields if f.name in ("key", "value")]
        assert shown == [part for record in read for part in record[2:4] if part]
    file.close()


def described(mark: str) -> list[tuple[int, str]]:
    """Positions and names of the fields in a dump of the document."""
    block = re.search(rf"<!-- dump: {mark} -->\s*```\n(.*?)```", FORMAT, re.DOTALL)
    assert block
    found = re.findall(r"^ *(\d+)  (?:[0-9a-f]{2} ?){1,8} *  ([A-Za-z]+) ", block[1], re.MULTILINE)
    return [(int(position), name) for position, name in found]


def test_positions_and_names_are_those_of_the_document() -> None:
    data = encode_batch(
        [
            Record(
                timestamp=1700000000000, key=b"order-1", value=b"created", headers=(("by", b"ann"),)
            ),
            Record(timestamp=1700000000250, key=b"order-1", value=None),
        ],
        base_offset=7,
        leader_epoch=3,
    )
    fields = of_kind(Field, annotate_batch(data))
    wanted = described("batch")
    assert len(wanted) == 13 + 13 + 8
    assert [(field.position, field.name) for field in fields] == wanted


def test_the_bits_of_the_attributes_are_what_the_header_takes_them_for() -> None:
    def header(attributes: int) -> BatchHeader:
        return BatchHeader(0, 0, 0, 2, 0, attributes, 0, 5, 0, -1, -1, -1, 0)

    codec, kind, transactional, control, horizon = ATTRIBUTE_BITS
    assert [header(number).codec for number in range(5)] == [codec.of(n) for n in range(5)]
    assert codec.mask == 7
    assert header(kind.mask).timestamp_type.label == "LogAppendTime"
    assert header(transactional.mask).transactional
    assert header(control.mask).control
    assert header(horizon.mask).delete_horizon == 5
    names = [bits.name for bits in ATTRIBUTE_BITS]
    assert names == ["codec", "timestampType", "transactional", "control", "deleteHorizon"]


@pytest.mark.parametrize("records", [False, True])
def test_a_batch_that_is_cut_anywhere_is_annotated_up_to_there(records: bool) -> None:
    for codec in (Codec.NONE, Codec.GZIP):
        data = encode_batch(
            [Record(timestamp=5, key=b"k", value=b"v" * 30, headers=[("h", None)])] * 2, codec=codec
        )
        for size in range(1, len(data)):
            items = annotated(data[:size], records=records)
            assert covers(in_file(items), data[:size]), size
            assert isinstance(items[-1], Ending), size


@given(place=st.integers(0, 10_000), byte=st.integers(0, 255), codec=st.sampled_from(list(Codec)))
@settings(max_examples=150, deadline=None)
def test_a_damaged_byte_leaves_no_gap_and_is_not_passed_over(
    place: int, byte: int, codec: Codec
) -> None:
    batches = [
        encode_batch([Record(timestamp=1, key=b"k", value=b"v" * 9)] * 3, base_offset=0),
        encode_batch([Record(timestamp=2, value=b"w" * 40)] * 4, base_offset=3, codec=codec),
        encode_batch([Record(timestamp=3, value=b"x")], base_offset=7),
    ]
    data = bytearray(b"".join(batches))
    place %= len(data)
    before, data[place] = data[place], byte
    items = annotated(bytes(data), records=True)
    fields = in_file(items)
    position = 0
    for field in fields:
        assert field.position == position
        position += field.size
    assert position == len(data)
    start = max(n for n in (0, len(batches[0]), len(batches[0]) + len(batches[1])) if n <= place)
    is_covered = place - start >= 17
    if byte != before and is_covered:
        assert of_kind(Ending, items) or any(field.wrong for field in fields)


def test_a_wrong_checksum_is_told_beside_the_right_one() -> None:
    data = bytearray(encode_batch([Record(timestamp=1, value=b"value")]))
    right = struct.unpack_from(">I", data, 17)[0]
    data[20] ^= 1
    (crc,) = [field for field in of_kind(Field, annotated(bytes(data))) if field.name == "crc"]
    assert crc.wrong
    assert crc.meaning == f"wrong: computed {right:#010x}"


def test_a_record_that_says_a_wrong_length_ends_the_annotation_there() -> None:
    data = bytearray(encode_batch([Record(timestamp=1, key=b"k", value=b"value")]))
    data[61] += 2
    items = list(annotate_batch(bytes(data)))
    ending = items[-1]
    assert isinstance(ending, Ending)
    assert ending.position == 61
    assert "length" in ending.reason


def test_zeros_and_bytes_that_are_no_batch_are_told() -> None:
    batch = encode_batch([Record(timestamp=1, value=b"value")])
    items = annotated(batch + bytes(5000))
    assert isinstance(items[-1], Ending)
    assert "zero bytes" in items[-1].reason
    rest = of_kind(Field, items)[-1]
    assert (rest.name, rest.size, rest.meaning) == ("?", 5000, "zeros")


def test_a_control_record_says_what_it_is() -> None:
    files = in_memory(two_segments())
    log = files.open("orders-0/00000000000000000100.log")
    start = position_of_offset(log, 108)
    assert start is not None
    fields = of_kind(Field, annotate_log(log, start=start))
    (kind,) = [field for field in fields if field.name == "type"]
    (epoch,) = [field for field in fields if field.name == "coordinatorEpoch"]
    assert (kind.meaning, epoch.value) == ("commit", 5)


def test_a_batch_is_found_by_a_record_and_by_a_byte() -> None:
    files = in_memory(two_segments())
    log = files.open("orders-0/00000000000000000100.log")
    batches = [item for item in scan(log) if isinstance(item, Batch)]
    for batch in batches:
        for offset in range(batch.header.base_offset, batch.header.next_offset):
            assert position_of_offset(log, offset) == batch.position
        for position in (batch.position, batch.position + batch.header.size - 1):
            assert position_of_byte(log, position) == batch.position
    assert position_of_offset(log, 109) is None
    assert position_of_offset(log, 99) is None
    assert position_of_byte(log, log.size()) is None


def test_the_zeros_of_an_index_that_was_made_in_advance_are_no_entries() -> None:
    items = list(annotate_side_file(FileKind.OFFSET_INDEX, bytes([0, 0, 0, 9] * 2) + bytes(80)))
    assert len([part for part in of_kind(Part, items) if part.kind == "entry"]) == 1
    assert of_kind(Field, items)[-1].meaning.startswith("zeros")
    assert of_kind(Ending, items) == []


def test_a_part_of_an_entry_is_damage() -> None:
    items = list(annotate_side_file(FileKind.TIME_INDEX, bytes(range(12)) + b"abc"))
    ending = items[-1]
    assert isinstance(ending, Ending)
    assert ending.position == 12


def test_a_snapshot_with_a_wrong_checksum_is_damaged() -> None:
    (path,) = GOLDEN.glob("partition-0/*.snapshot")
    data = bytearray(path.read_bytes())
    data[30] ^= 1
    fields = of_kind(Field, annotate_side_file(FileKind.PRODUCER_SNAPSHOT, bytes(data)))
    assert [field.name for field in fields if field.wrong] == ["crc"]
