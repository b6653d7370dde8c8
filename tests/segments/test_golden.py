"""Every segment that Kafka's own classes wrote reads here as Kafka itself reads it.

What Kafka reads stands beside each log, in a ``.json`` (``tests/golden/README.md``).
"""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from logstore.segments import offset_index, time_index, transaction_index
from logstore.segments.batch import Batch, encode_batch, iter_batches
from logstore.segments.control import control_label
from logstore.segments.record import Record

GOLDEN = Path(__file__).resolve().parent.parent / "golden"
LOGS = sorted(GOLDEN.glob("*/*.log"))
each_log = pytest.mark.parametrize("log", LOGS, ids=lambda log: log.parent.name)

Json = dict[str, Any]


def batches_of(log: Path) -> list[Batch]:
    return list(iter_batches(log.read_bytes(), path=log.name))


def sidecar_of(log: Path) -> Json:
    sidecar: Json = json.loads(log.with_suffix(".json").read_text(encoding="utf-8"))
    return sidecar


def shown_bytes(data: bytes | None) -> str | Json | None:
    if data is None:
        return None
    if len(data) > 64:
        return {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    return base64.b64encode(data).decode("ascii")


def shown_batch(batch: Batch) -> Json:
    """A batch in the words of the sidecar, as far as logstore knows what it says."""
    header = batch.header
    return {
        "position": batch.position,
        "size": header.size,
        "magic": header.magic,
        "base_offset": header.base_offset,
        "last_offset": header.last_offset,
        "count": header.record_count if header.magic == 2 else None,
        "compression": header.codec.label,
        "crc": header.crc,
        "valid": batch.crc_ok,
        "timestamp_type": header.timestamp_type.label if header.magic else "NoTimestampType",
        "max_timestamp": header.max_timestamp,
        "leader_epoch": header.leader_epoch,
        "producer_id": header.producer_id,
        "producer_epoch": header.producer_epoch,
        "base_sequence": header.base_sequence,
        "transactional": header.transactional,
        "control": header.control,
        "delete_horizon_ms": header.delete_horizon,
    }


def shown_record(batch: Batch, record: Record) -> Json:
    shown: Json = {
        "base_offset": batch.header.base_offset,
        "magic": batch.header.magic,
        "offset": record.offset,
        "timestamp": record.timestamp,
        "key": shown_bytes(record.key),
        "value": shown_bytes(record.value),
        "headers": [[name, shown_bytes(value)] for name, value in record.headers],
    }
    if batch.header.control:
        shown["control"] = control_label(record)
    return shown


def without(row: Json, *names: str) -> Json:
    return {name: value for name, value in row.items() if name not in names}


def test_there_are_golden_files_of_every_codec_and_format() -> None:
    seen = {
        (batch.header.magic, batch.header.codec.label) for log in LOGS for batch in batches_of(log)
    }
    assert seen == {
        *((magic, codec) for magic in (0, 1) for codec in ("none", "gzip", "snappy", "lz4")),
        *((2, codec) for codec in ("none", "gzip", "snappy", "lz4", "zstd")),
    }


@each_log
def test_every_batch_reads_as_kafka_reads_it(log: Path) -> None:
    expected = [without(row, "last_sequence") for row in sidecar_of(log)["batches"]]
    assert [shown_batch(batch) for batch in batches_of(log)] == expected


@each_log
def test_every_record_reads_as_kafka_reads_it(log: Path) -> None:
    expected = [without(row, "sequence") for row in sidecar_of(log)["records"]]
    for row in expected:
        if "control" in row:
            row["control"] = row["control"].lower().replace("_", "-")
    found = [shown_record(batch, record) for batch in batches_of(log) for record in batch.records()]
    assert found == expected


@each_log
def test_the_count_of_an_old_message_set_is_that_of_its_messages(log: Path) -> None:
    for batch in batches_of(log):
        assert batch.header.record_count == len(batch.records())


@each_log
def test_every_index_entry_reads_as_kafka_reads_it_and_is_written_the_same(log: Path) -> None:
    base, sidecar = int(log.stem), sidecar_of(log)
    data = log.with_suffix(".index").read_bytes()
    entries = offset_index.decode_entries(base, data)
    assert [entry._asdict() for entry in entries] == sidecar["index"]
    assert b"".join(offset_index.encode_entry(base, entry) for entry in entries) == data
    assert offset_index.valid_size(data) == len(data)
    data = log.with_suffix(".timeindex").read_bytes()
    times = time_index.decode_entries(base, data)
    assert [entry._asdict() for entry in times] == sidecar["timeindex"]
    assert b"".join(time_index.encode_entry(base, entry) for entry in times) == data


@each_log
def test_every_look_up_through_the_index_ends_at_or_before_the_batch_that_is_wanted(
    log: Path,
) -> None:
    base, batches = int(log.stem), batches_of(log)
    data = log.with_suffix(".index").read_bytes()
    positions = {batch.position: batch for batch in batches}
    for batch in batches:
        for offset in (batch.header.base_offset, batch.header.last_offset):
            entry = offset_index.find(base, data, offset)
            if entry is not None:
                assert positions[entry.position].header.base_offset <= offset
                assert positions[entry.position].header.last_offset == entry.offset
                assert entry.position <= batch.position


def test_the_transaction_index_reads_as_kafka_reads_it() -> None:
    logs = [log for log in LOGS if log.with_suffix(".txnindex").exists()]
    assert logs
    for log in logs:
        entries = transaction_index.decode_entries(log.with_suffix(".txnindex").read_bytes())
        expected = [without(row, "version") for row in sidecar_of(log)["txnindex"]]
        assert [entry._asdict() for entry in entries] == expected


def test_the_same_records_encode_to_the_bytes_that_kafka_wrote() -> None:
    """Only of uncompressed batches: what a codec makes of them is its library's choice. Where the
    broker's time or a delete horizon stands, the producer's own timestamps cannot be had back, and
    behind the cleaner the offsets have holes."""
    compared = 0
    for batch in (batch for log in LOGS for batch in batches_of(log)):
        header = batch.header
        if (
            header.magic < 2
            or header.attributes & ~0x30
            or header.record_count != header.last_offset_delta + 1
        ):
            continue
        again = encode_batch(
            batch.records(),
            base_offset=header.base_offset,
            leader_epoch=header.leader_epoch,
            producer_id=header.producer_id,
            producer_epoch=header.producer_epoch,
            base_sequence=header.base_sequence,
            transactional=header.transactional,
            control=header.control,
        )
        assert again == batch.raw, batch
        compared += 1
    assert compared > 30
