"""The documents and the code say the same: fields, dumps, limits, and the tests that are named.

A table in a document is marked by ``<!-- fields: NAME -->``, a dump by ``<!-- dump: NAME -->``. The
dumps are made again here, from the bytes that the code writes and the fields of the tables; a dump
that differs is shown as it should be.
"""

from __future__ import annotations

import re
import struct
import uuid
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from logstore import state
from logstore.config import LogConfig
from logstore.segments import batch as batches
from logstore.segments import (
    control,
    header,
    legacy,
    offset_index,
    producer_snapshot,
    time_index,
    transaction_index,
    varint,
)
from logstore.segments.batch import Batch, encode_batch
from logstore.segments.checkpoint import (
    EpochEntry,
    PartitionMetadata,
    format_leader_epochs,
    format_partition_metadata,
)
from logstore.segments.compression import MAX_DECOMPRESSED_BYTES
from logstore.segments.indexing import build_indexes
from logstore.segments.producer_snapshot import ProducerEntry
from logstore.segments.record import Record
from logstore.segments.transaction_index import AbortedTransaction

ROOT = Path(__file__).resolve().parent.parent
FORMAT = (ROOT / "docs" / "format.md").read_text(encoding="utf-8")
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")

CODES = {
    "int8": "b",
    "int16": "h",
    "int32": "i",
    "uint32": "I",
    "int64": "q",
    "uint64": "Q",
    "8 bytes": "8s",
    "36 bytes": "36s",
}


class Field(NamedTuple):
    """A row of a table."""

    position: int | None
    """None where the fields have no fixed size."""
    name: str
    type: str


def after(document: str, mark: str) -> str:
    """What stands behind a mark in a document."""
    assert document.count(f"<!-- {mark} -->") == 1, f"no mark, or more than one: {mark}"
    return document.split(f"<!-- {mark} -->")[1]


def rows(document: str, mark: str) -> list[list[str]]:
    """The cells of the table behind a mark, without its heading."""
    table = re.match(r"\s*((?:\|.*\n)+)", after(document, mark))
    assert table, f"no table behind {mark}"
    return [
        [cell.strip().strip("`") for cell in line.strip("|").split("|")]
        for line in table[1].splitlines()[2:]
    ]


def fields(name: str, document: str = FORMAT) -> list[Field]:
    """The fields of the table called ``name``."""
    found = []
    for cells in rows(document, f"fields: {name}"):
        positioned = cells[0].isdigit()
        found.append(
            Field(int(cells[0]), cells[1], cells[2])
            if positioned
            else Field(None, cells[0], cells[1])
        )
    return found


def block(name: str) -> str:
    """The text block behind the mark ``name``."""
    found = re.match(r"\s*```\n(.*?)```\n", after(FORMAT, name), re.DOTALL)
    assert found, f"no block behind {name}"
    return found[1]


def expanded(layout: str) -> str:
    """A struct's format with ``3q`` spelled ``qqq``."""
    return re.sub(
        r"(\d+)([a-rt-zA-Z])", lambda match: int(match[1]) * match[2], layout.lstrip("<>")
    )


# Tables -----------------------------------------------------------------------------------------

FORMAT_FIELDS = {
    "batch": header.HEADER_FIELDS,
    "control-key": control.KEY_FIELDS,
    "control-value": control.END_TRANSACTION_FIELDS,
    "index": offset_index.ENTRY_FIELDS,
    "timeindex": time_index.ENTRY_FIELDS,
    "txnindex": transaction_index.ENTRY_FIELDS,
    "snapshot-header": producer_snapshot.HEADER_FIELDS,
    "snapshot-entry": producer_snapshot.ENTRY_FIELDS,
}
STATE_STRUCTS = {
    "state-identity": state._IDENTITY,
    "state-shared": state._SHARED,
    "state-checkpoint": state._CHECKPOINT,
}


@pytest.mark.parametrize("name", [*FORMAT_FIELDS, *STATE_STRUCTS])
def test_a_table_has_the_fields_of_the_struct_in_the_code(name: str) -> None:
    if name in FORMAT_FIELDS:
        layout, table, order, start = FORMAT_FIELDS[name].struct, fields(name), ">", 0
        assert [field.name for field in table] == [place.name for place in FORMAT_FIELDS[name]]
    else:
        layout, order = STATE_STRUCTS[name], "<"
        *table, crc = fields(name, ARCHITECTURE)
        start = {"state-identity": 0, "state-shared": 128, "state-checkpoint": 1024}[name]
        assert (crc.name, crc.type) == ("crc", "uint32")
        assert crc.position == start + layout.size
    assert layout.format.startswith(order)
    assert "".join(CODES[field.type] for field in table) == expanded(layout.format)
    position = start
    for field in table:
        assert field.position == position, field.name
        position += struct.calcsize(order + CODES[field.type])


def test_the_parts_of_the_state_stand_where_the_code_puts_them() -> None:
    assert state._SHARED_POSITION == 128
    assert state._CHECKPOINT_POSITION == 1024


# Dumps ------------------------------------------------------------------------------------------


class Dump:
    """The lines of a dump: position, at most 8 bytes, field, value."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.position = 0
        self.lines: list[str] = []

    def take(self, size: int, name: str, value: object) -> None:
        """The next bytes are those of a field."""
        end = self.position + size
        label = f"{name:<22}{value}"
        while True:
            stop = min(self.position + 8, end)
            shown = self.data[self.position : stop].hex(" ")
            self.lines.append(f"{self.position:>4}  {shown:<23}  {label}".rstrip())
            self.position, label = stop, ""
            if stop == end:
                return

    def fixed(self, table: list[Field]) -> None:
        """The fields of a table of fixed sizes."""
        for field in table:
            code = ">" + CODES[field.type]
            (value,) = struct.unpack_from(code, self.data, self.position)
            self.take(struct.calcsize(code), field.name, _shown(field.name, value))

    def varint(self, name: str) -> int:
        """A number of variable size."""
        value, end = varint.decode(self.data, self.position)
        self.take(end - self.position, name, value)
        return value

    def bytes(self, name: str, size: int) -> None:
        """A string; nothing where it is null or empty."""
        if size > 0:
            text = self.data[self.position : self.position + size]
            self.take(size, name, text.decode("ascii"))

    def record(self, table: list[Field]) -> None:
        """A record, by the fields of its table, the last four of which repeat."""
        size, count = 0, 0
        queue = list(table)
        header = table[-4:]
        while queue:
            field = queue.pop(0)
            if field == header[0] and count == 0:
                return
            if field.type == "bytes":
                self.bytes(field.name, size)
            elif field.type == "int8":
                self.take(1, field.name, self.data[self.position])
            else:
                size = self.varint(field.name)
            if field.name == "headersCount":
                count = size
            elif field == header[-1]:
                count -= 1
                queue = list(header)

    def text(self) -> str:
        """All lines; all bytes must have been taken."""
        assert self.position == len(self.data)
        return "".join(f"{line}\n" for line in self.lines)


def _shown(name: str, value: int) -> str:
    return f"{value:#010x}" if name == "crc" else f"{value}"


def dump_batch() -> str:
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
    dump = Dump(data)
    dump.fixed(fields("batch"))
    for _ in range(Batch.parse(data).header.record_count):
        dump.lines.append("")
        dump.record(fields("record"))
    return dump.text()


def dump_control() -> str:
    marker = control.end_transaction_marker(
        control.ControlType.COMMIT, timestamp=0, coordinator_epoch=5
    )
    dump = Dump((marker.key or b"") + (marker.value or b""))
    dump.fixed(fields("control-key"))
    dump.lines.append("")
    dump.fixed(fields("control-value"))
    return dump.text()


def dump_message() -> str:
    behind_crc = struct.pack(">bbqi1si5s", 1, 0, 1700000000000, 1, b"k", 5, b"hello")
    data = struct.pack(">qiI", 41, 4 + len(behind_crc), zlib.crc32(behind_crc)) + behind_crc
    assert legacy.decode_message(data) == [Record(41, 1700000000000, b"k", b"hello")]
    assert Batch.parse(data).crc_ok
    dump = Dump(data)
    dump.fixed(fields("message-1"))
    dump.bytes("key", 1)
    dump.take(4, "valueLength", 5)
    dump.bytes("value", 5)
    return dump.text()


def dump_indexes() -> str:
    headers = []
    position = 0
    for number, behind in enumerate((0, 20, 10, 30)):
        records = [Record(timestamp=1700000000000 + behind, value=bytes(1000))] * 10
        batch = Batch.parse(encode_batch(records, base_offset=100 + 10 * number))
        headers.append((position, batch.header))
        position += batch.header.size
    offsets, times = build_indexes(headers, base_offset=100, index_interval_bytes=4096)
    lines = []
    for suffix, data, entry_bytes in (
        ("index", offsets, offset_index.ENTRY_BYTES),
        ("timeindex", times, time_index.ENTRY_BYTES),
    ):
        dump = Dump(data)
        for _ in range(len(data) // entry_bytes):
            dump.fixed(fields(suffix))
        lines.append(f"      .{suffix}\n{dump.text()}")
    return "\n".join(lines)


def dump_txnindex() -> str:
    dump = Dump(transaction_index.encode_entry(AbortedTransaction(4000, 120, 155, 140)))
    dump.fixed(fields("txnindex"))
    return dump.text()


def dump_snapshot() -> str:
    dump = Dump(
        producer_snapshot.encode([ProducerEntry(4000, 1, 99, 154, 9, 1700000000000, 5, -1)])
    )
    dump.fixed(fields("snapshot-header"))
    dump.lines.append("")
    dump.fixed(fields("snapshot-entry"))
    return dump.text()


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("batch", dump_batch),
        ("control", dump_control),
        ("message-1", dump_message),
        ("indexes", dump_indexes),
        ("txnindex", dump_txnindex),
        ("snapshot", dump_snapshot),
    ],
)
def test_a_dump_is_what_the_code_writes(name: str, make: Any) -> None:
    expected = make()
    assert block(f"dump: {name}") == expected, f"docs/format.md should say:\n{expected}"


def test_the_batch_in_the_document_is_made_by_the_code_in_front_of_it() -> None:
    source = re.search(r"```python\n(encode_batch\(.*?)```", FORMAT, re.DOTALL)
    assert source
    data = eval(source[1], {"encode_batch": encode_batch, "Record": Record})
    lines = [line for line in block("dump: batch").splitlines() if line]
    assert data.hex(" ") == " ".join(line[6:29].strip() for line in lines)


def test_the_text_files_in_the_document_are_what_the_code_writes() -> None:
    epochs = format_leader_epochs([EpochEntry(3, 0), EpochEntry(5, 1200)])
    assert block("text: leader-epoch-checkpoint") == epochs.decode()
    topic_id = uuid.UUID("01234567-89ab-cdef-0fed-cba987654321")
    metadata = format_partition_metadata(PartitionMetadata(0, topic_id))
    assert block("text: partition.metadata") == metadata.decode() + "\n"


# What else is said ------------------------------------------------------------------------------


def test_the_limits_in_the_document_are_those_of_the_code() -> None:
    stated = [row[1] for row in rows(FORMAT, "limits")]
    assert stated == [
        f"{batches.MAX_BATCH_BYTES >> 20} MiB",
        f"{LogConfig().max_message_bytes >> 20} MiB",
        f"{MAX_DECOMPRESSED_BYTES >> 20} MiB",
        "2^31 - 1",
        f"{varint.MAX_VARLONG_BYTES} bytes",
    ]
    assert offset_index.MAX_RELATIVE == 2**31 - 1


def named_tests() -> Iterator[tuple[str, str, str]]:
    """Every ``tests/....py::test_...`` that a document names."""
    for document in sorted((ROOT / "docs").glob("*.md")):
        text = document.read_text(encoding="utf-8")
        for path, name in re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", text):
            yield document.name, path, name


def test_every_test_that_a_document_names_is_there() -> None:
    missing = []
    for document, path, name in named_tests():
        file = ROOT / path
        source = file.read_text(encoding="utf-8") if file.exists() else ""
        if not file.exists() or f"def {name}" not in source:
            missing.append(f"{document}: {path}::{name}")
    assert missing == []
