"""aiokafka's record layer reads what we write, and we read what it writes.

Both of its implementations are tried, the compiled one and the one in Python: they are two
readers. A partition is given to them as a consumer would get it, as bytes of whole batches.
"""

from __future__ import annotations

import importlib
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from logstore.log import PartitionLog
from logstore.segments.batch import encode_batch, iter_batches
from logstore.segments.compression import Codec
from logstore.segments.header import TimestampType
from logstore.segments.record import Record

from .comparing import assert_same
from .corpus import odd_records, plain_records
from .written import START_MS, Partition

pytest.importorskip("aiokafka", reason="aiokafka is not installed (the dev extra brings it)")

GOLDEN = Path(__file__).resolve().parent.parent / "golden"

# aiokafka refuses LZ4 in format 0, whose framing was broken.
READABLE = [
    path
    for path in sorted(GOLDEN.glob("*/*.log"))
    if path.parent.name not in ("v0-lz4-0", "v0-holes-0")
]
OLD_FORMATS = [(magic, codec) for magic in (0, 1) for codec in list(Codec)[: Codec.LZ4 + magic]]
ROOMY = 64 << 20
_PYTHON_CRC_BYTES = 64 << 10


class Aiokafka(NamedTuple):
    """One implementation of aiokafka's record layer."""

    name: str
    memory_records: Any
    default_builder: Any
    legacy_builder: Any
    record_classes: frozenset[str]


def _load(name: str) -> Aiokafka:
    """Import aiokafka's record layer as if for the first time; its environment variable chooses
    the implementation at that moment."""
    others = {key: sys.modules.pop(key) for key in list(sys.modules) if _is_aiokafka(key)}
    try:
        memory = importlib.import_module("aiokafka.record.memory_records")
        default = importlib.import_module("aiokafka.record.default_records")
        legacy = importlib.import_module("aiokafka.record.legacy_records")
    finally:
        for key in list(sys.modules):
            if _is_aiokafka(key):
                del sys.modules[key]
        sys.modules.update(others)
    return Aiokafka(
        name,
        memory.MemoryRecords,
        default.DefaultRecordBatchBuilder,
        legacy.LegacyRecordBatchBuilder,
        frozenset((default.DefaultRecordBatch.__name__, legacy.LegacyRecordBatch.__name__)),
    )


def _is_aiokafka(module: str) -> bool:
    return module.partition(".")[0] == "aiokafka"


@pytest.fixture(scope="module", params=["compiled", "python"])
def aiokafka(request: pytest.FixtureRequest) -> Aiokafka:
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "python":
            patch.setenv("AIOKAFKA_NO_EXTENSIONS", "1")
        else:
            patch.delenv("AIOKAFKA_NO_EXTENSIONS", raising=False)
        loaded = _load(request.param)
    is_python = loaded.memory_records.__name__ == "_MemoryRecordsPy"
    if request.param == "compiled" and is_python:
        pytest.skip("this aiokafka was installed without its compiled part")
    assert is_python == (request.param == "python")
    return loaded


class Read(NamedTuple):
    """A record as aiokafka reads it."""

    record: Record
    timestamp_type: int | None
    control: bool


def read_with(aiokafka: Aiokafka, data: bytes) -> Iterator[Read]:
    """The records in whole batches, whose CRCs aiokafka checks."""
    records = aiokafka.memory_records(data)
    while records.has_next():
        batch = records.next_batch()
        assert type(batch).__name__ in aiokafka.record_classes
        # A megabyte through a CRC in Python takes a second.
        if aiokafka.name == "compiled" or len(data) <= _PYTHON_CRC_BYTES:
            assert batch.validate_crc()
        for record in batch:
            yield Read(
                Record(
                    record.offset,
                    -1 if record.timestamp is None else record.timestamp,
                    record.key,
                    record.value,
                    tuple(record.headers),
                ),
                record.timestamp_type,
                batch.is_control_batch,
            )


def test_it_reads_our_segments_record_for_record(
    aiokafka: Aiokafka, partitions: list[Partition]
) -> None:
    for partition in partitions:
        found = [read for log in partition.logs for read in read_with(aiokafka, log.read_bytes())]
        expected = [
            Read(row.record, int(row.timestamp_type), row.control is not None)
            for row in partition.rows
        ]
        assert_same(found, expected, partition.name)


def test_it_reads_what_a_fetch_gives_to_a_consumer(
    aiokafka: Aiokafka, partitions: list[Partition]
) -> None:
    for partition in partitions:
        found: list[Record] = []
        with PartitionLog(partition.directory, config=partition.config, read_only=True) as log:
            offset = log.log_start_offset
            while (fetch := log.read(offset, max_bytes=20_000)).data:
                found += [
                    read.record for read in read_with(aiokafka, fetch.data) if not read.control
                ]
                offset = fetch.next_offset
            assert offset == log.log_end_offset
        assert_same(found, partition.records, partition.name)


@pytest.mark.parametrize("path", READABLE, ids=lambda path: path.parent.name)
def test_it_reads_from_kafkas_own_files_what_we_read(aiokafka: Aiokafka, path: Path) -> None:
    for batch in iter_batches(path.read_bytes()):
        # One batch at a time: the compiled reader takes the first one's format for everybody's.
        expected = [
            Read(
                record._replace(headers=tuple(record.headers)),
                int(batch.header.timestamp_type) if batch.header.magic else None,
                batch.header.control,
            )
            for record in batch.records()
        ]
        assert_same(list(read_with(aiokafka, batch.raw)), expected, batch)


# What aiokafka writes --------------------------------------------------------------------------


def build_batch(aiokafka: Aiokafka, records: list[Record], codec: Codec, **options: int) -> bytes:
    """A batch as aiokafka's producer sends it: at offset 0, for the broker to place."""
    builder = aiokafka.default_builder(
        magic=2,
        compression_type=int(codec),
        is_transactional=options.get("transactional", 0),
        producer_id=options.get("producer_id", -1),
        producer_epoch=options.get("producer_epoch", -1),
        base_sequence=options.get("base_sequence", -1),
        batch_size=ROOMY,
    )
    for index, record in enumerate(records):
        headers = list(record.headers)
        added = builder.append(index, record.timestamp, record.key, record.value, headers)
        assert added is not None
    return bytes(builder.build())


def at(records: list[Record], base_offset: int) -> list[Record]:
    """The same records, at the offsets from ``base_offset`` on."""
    return [
        record._replace(offset=base_offset + index, headers=tuple(record.headers))
        for index, record in enumerate(records)
    ]


@pytest.mark.parametrize("codec", Codec, ids=lambda codec: codec.label)
def test_we_append_and_read_the_batches_that_it_builds(
    aiokafka: Aiokafka, tmp_path: Path, codec: Codec
) -> None:
    # It writes header names as strict UTF-8, and takes no timestamp for "now".
    groups = [
        odd_records(),
        plain_records(500, seed=1),
        odd_records()[:1],
        plain_records(3, seed=2),
    ]
    backwards = [
        record._replace(timestamp=START_MS - index) for index, record in enumerate(groups[1])
    ]
    groups.append(backwards)
    expected: list[Record] = []
    with PartitionLog(tmp_path / "log-0") as log:
        for group in groups:
            raw = build_batch(aiokafka, group, codec)
            (batch,) = iter_batches(raw)
            # It sends a batch as it is if compressing does not make it smaller.
            assert batch.header.codec in (codec, Codec.NONE)
            assert batch.crc_ok
            assert log.append_raw(raw, acks=1).base_offset == len(expected)
            expected += at(group, len(expected))
        found: list[Record] = []
        while (fetch := log.read(len(found))).data:
            found += fetch.records()
    assert_same(
        [record._replace(headers=tuple(record.headers)) for record in found], expected, codec
    )


def test_we_read_the_producers_state_that_it_writes(aiokafka: Aiokafka) -> None:
    state = {"producer_id": 1 << 40, "producer_epoch": 12, "base_sequence": 99}
    raw = build_batch(aiokafka, plain_records(5, seed=3), Codec.GZIP, transactional=1, **state)
    (batch,) = iter_batches(raw)
    header = batch.header
    assert header._asdict().items() >= state.items()
    assert header.transactional
    assert not header.control
    assert (header.base_offset, header.last_offset, header.record_count) == (0, 4, 5)
    assert header.timestamp_type is TimestampType.CREATE
    assert (header.base_timestamp, header.max_timestamp) == (START_MS, START_MS + 4)


def test_it_and_we_encode_a_batch_to_the_same_bytes(aiokafka: Aiokafka) -> None:
    """Without compression there is only one way to write a batch."""
    for records in (odd_records(), plain_records(300, seed=4)):
        assert build_batch(aiokafka, records, Codec.NONE) == encode_batch(records)


@pytest.mark.parametrize(
    ("magic", "codec"), OLD_FORMATS, ids=lambda each: getattr(each, "label", f"v{each}")
)
def test_we_read_the_messages_of_old_formats_that_it_builds(
    aiokafka: Aiokafka, magic: int, codec: Codec
) -> None:
    records = [record._replace(headers=()) for record in odd_records() + plain_records(50, seed=5)]
    builder = aiokafka.legacy_builder(magic=magic, compression_type=int(codec), batch_size=ROOMY)
    for index, record in enumerate(records):
        assert builder.append(index, record.timestamp, record.key, record.value) is not None
    raw = bytes(builder.build())
    if codec:
        # A broker gives a wrapper the offset of the last message inside; the CRC does not cover it.
        raw = struct.pack(">q", len(records) - 1) + raw[8:]
    batches = list(iter_batches(raw))
    assert len(batches) == (1 if codec else len(records))
    assert all(batch.crc_ok and batch.header.magic == magic for batch in batches)
    found = [record for batch in batches for record in batch.records()]
    expected = at(records, 0)
    if magic == 0:
        expected = [record._replace(timestamp=-1) for record in expected]
    assert_same(found, expected, f"format {magic}, {codec.label}")
    assert_same([read.record for read in read_with(aiokafka, raw)], expected, "aiokafka itself")
