"""Partitions of every kind, written by our own PartitionLog, for other programs to read.

The same call writes the same bytes every time.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from logstore.segments.batch import encode_batch
from logstore.segments.compression import Codec
from logstore.segments.control import ControlType, end_transaction_marker
from logstore.segments.record import Record

from .written import START_MS, Partition, Writer

DATA = Path(__file__).resolve().parent.parent.parent / "examples" / "data"
MEGABYTE = 1 << 20
DAYS = 3 * 24 * 60 * 60 * 1000

INTERVALS = (0, 1, 200, 1000, 4096)
"""Values of index_interval_bytes for the partitions whose indexes are of interest."""


# Records --------------------------------------------------------------------------------------

_UNICODE = "ключ-鍵-🔑-é-\u2028-\ufeff"


def odd_records() -> list[Record]:
    """Every kind of key, value and header, and lengths around those where varints grow."""
    keys_and_values: list[tuple[bytes | None, bytes | None]] = [
        (None, None),
        (b"", b""),
        (None, b""),
        (b"", None),
        (b"key", b"value"),
        (_UNICODE.encode(), f"значение: {_UNICODE}".encode()),
        (b"\x00", b"\x00\x00\x00"),
        (b"\xff\xfe not UTF-8 \x80", bytes(range(256))),
        (b"line\nbreaks\r\n", b"| \r \n\n\t"),
        (b"a tombstone", None),
    ]
    keys_and_values += [(b"k" * n, b"v" * n) for n in (63, 64, 127, 128, 8191, 8192, 16_384)]
    headers: list[tuple[tuple[str, bytes | None], ...]] = [
        (),
        (("name", b"value"),),
        (("again", b"1"), ("again", b"2"), ("again", b"1")),
        (("", b""), ("null", None), ("empty", b""), ("binary", bytes(range(256)))),
        ((_UNICODE, _UNICODE.encode()),),
        tuple((f"h{n}", b"%d" % n) for n in range(100)),
        (("n" * 128, b"v" * 8192),),
    ]
    return [
        Record(timestamp=START_MS + 10 * index, key=key, value=value, headers=chosen)
        for index, ((key, value), chosen) in enumerate(
            [(pair, headers[i % len(headers)]) for i, pair in enumerate(keys_and_values)]
            + [((b"h%d" % i, b"headers"), each) for i, each in enumerate(headers)]
        )
    ]


def plain_records(
    count: int, *, seed: int, start_ms: int = START_MS, size: int = 60
) -> list[Record]:
    """Records of text that compresses, about ``size`` bytes each."""
    rng = random.Random(seed)
    words = [b"alpha", b"beta", b"gamma", b"delta", b"epsilon", b"zeta", b"eta", b"theta"]
    records = []
    for index in range(count):
        value = b" ".join(rng.choices(words, k=rng.randint(1, max(1, size // 3))))
        key = None if rng.random() < 0.3 else b"k%d" % rng.randint(0, 99)
        headers = (("n", b"%d" % index),) if rng.random() < 0.2 else ()
        records.append(Record(timestamp=start_ms + index, key=key, value=value, headers=headers))
    return records


def _in_batches(records: Sequence[Record], sizes: Iterable[int]) -> Iterator[Sequence[Record]]:
    start = 0
    for size in sizes:
        if start >= len(records):
            return
        yield records[start : start + size]
        start += size


def _sizes(seed: int, largest: int) -> Iterator[int]:
    rng = random.Random(seed)
    while True:
        yield rng.randint(1, largest)


# Partitions -----------------------------------------------------------------------------------


def _codec(root: Path, codec: Codec) -> Partition:
    """All kinds of records, in batches of one and of many, and then values of megabytes."""
    writer = Writer(root, f"codec-{codec.label}")
    writer.append(odd_records(), codec)
    for record in odd_records():
        writer.append([record], codec)
    for batch in _in_batches(plain_records(1500, seed=codec), _sizes(codec, 300)):
        writer.append(batch, codec)
    rng = random.Random(codec)
    noise, text = rng.randbytes(300_000), b"the same words again, " * 140_000
    writer.append([Record(timestamp=START_MS + 5000, key=b"huge", value=noise + text)], codec)
    writer.append(
        [
            Record(timestamp=START_MS + 5001, value=bytes(MEGABYTE // 4)),
            Record(
                timestamp=START_MS + 5002, key=noise[:50_000], headers=(("big", text[:200_000]),)
            ),
        ],
        codec,
    )
    writer.append([Record(timestamp=START_MS + 5003, value=b"behind the huge ones")], codec)
    return writer.finish()


def _small_batches(root: Path) -> Partition:
    writer = Writer(root, "small-batches")
    for batch in _in_batches(plain_records(2500, seed=11, size=10), _sizes(11, 3)):
        writer.append(batch)
    return writer.finish()


def _segments(root: Path, codec: Codec, interval: int) -> Partition:
    """Several segments; the timestamps ascend on the whole, but not from batch to batch."""
    writer = Writer(
        root, f"segments-{codec.label}", segment_bytes=15_000, index_interval_bytes=interval
    )
    rng = random.Random(interval)
    records = [
        record._replace(timestamp=record.timestamp + rng.randint(-300, 300))
        for record in plain_records(1500, seed=20 + codec)
    ]
    for batch in _in_batches(records, _sizes(codec, 12)):
        writer.append(batch, codec)
    return writer.finish()


def _times(root: Path, interval: int) -> Partition:
    """Timestamps in any order: random, falling, equal, none, 0, and far in the future."""
    writer = Writer(root, f"times-{interval}", segment_bytes=9000, index_interval_bytes=interval)
    rng = random.Random(interval)
    fixed = [0, 0, 1, START_MS, START_MS, START_MS - 1, START_MS + 1, 1 << 40, START_MS]
    for count, timestamp in enumerate(fixed, 1):
        writer.append([Record(timestamp=timestamp, value=b"fixed")] * count)
    for batch in _in_batches(plain_records(400, seed=30), _sizes(interval, 6)):
        # Within days, or most batches would begin a segment of their own.
        writer.append([r._replace(timestamp=START_MS + rng.randint(-DAYS, DAYS)) for r in batch])
    for batch in _in_batches(plain_records(400, seed=31), _sizes(interval, 6)):
        writer.append([r._replace(timestamp=2 * START_MS - r.timestamp) for r in batch])
    writer.append([Record(value=b"the time of the append")] * 3)
    # A batch that has no timestamps can only come from elsewhere.
    for count in (1, 5, 1):
        writer.append_batch([Record(value=b"no time")] * count)
    for batch in _in_batches(plain_records(200, seed=32), _sizes(interval, 4)):
        writer.append_batch([record._replace(timestamp=-1) for record in batch])
    return writer.finish()


def _no_times(root: Path) -> Partition:
    """Not one timestamp, in several segments."""
    writer = Writer(root, "no-times", segment_bytes=5000, index_interval_bytes=500)
    for batch in _in_batches(plain_records(300, seed=33), _sizes(33, 5)):
        writer.append_batch([record._replace(timestamp=-1) for record in batch])
    return writer.finish()


def _append_time(root: Path) -> Partition:
    """LogAppendTime: the log's clock counts, and it may stand still or go back."""
    writer = Writer(
        root,
        "append-time",
        message_timestamp_type="LogAppendTime",
        segment_bytes=15_000,
        index_interval_bytes=300,
    )
    batches = _in_batches(plain_records(1500, seed=40), _sizes(40, 20))
    for count, batch in enumerate(batches):
        writer.clock.now += (7, 0, 250, -100)[count % 4]
        codec = Codec(count % 5)
        if count % 3:
            writer.append(batch, codec)
        else:
            writer.append_batch(batch, codec=codec)
    return writer.finish()


def _both_times(root: Path) -> Partition:
    """CreateTime and LogAppendTime in turn, as a broker's log has them whose setting changed."""
    writer = Writer(root, "both-times", index_interval_bytes=300)
    for count, batch in enumerate(_in_batches(plain_records(300, seed=41), _sizes(41, 10))):
        append_timestamp = START_MS + 10_000 + count if count % 2 else None
        writer.append_batch(batch, origin="replica", **_next(writer, append_timestamp))
    return writer.finish()


def _next(writer: Writer, append_timestamp: int | None) -> dict[str, Any]:
    return {
        "base_offset": writer.log.log_end_offset,
        "leader_epoch": 0,
        "append_timestamp": append_timestamp,
    }


def _producers(root: Path) -> Partition:
    """Batches of idempotent producers, interleaved; one's sequence wraps inside a batch."""
    writer = Writer(root, "producers", segment_bytes=20_000, index_interval_bytes=1000)
    sequences = {1001: 0, 1002: 0x7FFF_FFFF - 50, 9_000_000_000: 0}
    epochs = {1001: 0, 1002: 7, 9_000_000_000: 32_767}
    batches = _in_batches(plain_records(1000, seed=50), _sizes(50, 10))
    for count, batch in enumerate(batches):
        producer_id = list(sequences)[count % 3]
        writer.append_batch(
            batch,
            codec=Codec(count % 5),
            producer_id=producer_id,
            producer_epoch=epochs[producer_id],
            base_sequence=sequences[producer_id],
        )
        sequences[producer_id] = (sequences[producer_id] + len(batch)) & 0x7FFF_FFFF
    return writer.finish()


def _transactions(root: Path) -> Partition:
    """Transactions of two producers that overlap, committed, aborted and left open, as a replica
    gets them: with leader epochs, and with gaps where a cleaner has been."""
    writer = Writer(root, "transactions", segment_bytes=12_000, index_interval_bytes=500)
    sequences = {2001: 0, 2002: 0}
    offset, now, epoch = 0, START_MS, 3
    rng = random.Random(60)
    batches = _in_batches(plain_records(900, seed=60), _sizes(60, 10))
    for count, batch in enumerate(batches):
        if count % 25 == 24:
            epoch += 1
        if count % 10 == 9:
            offset += rng.randint(1, 500)
        producer_id = rng.choice((2001, 2002))
        writer.append_batch(
            [record._replace(timestamp=now + index) for index, record in enumerate(batch)],
            origin="replica",
            base_offset=offset,
            leader_epoch=epoch,
            codec=Codec(count % 5),
            producer_id=producer_id,
            producer_epoch=1,
            base_sequence=sequences[producer_id],
            transactional=True,
        )
        sequences[producer_id] += len(batch)
        offset, now = writer.log.log_end_offset, now + 100
        if count % 3 == 2:
            kind = rng.choice((ControlType.COMMIT, ControlType.ABORT))
            marker = end_transaction_marker(kind, timestamp=now, coordinator_epoch=count)
            writer.append_batch(
                [marker],
                origin="replica",
                base_offset=offset,
                leader_epoch=epoch,
                producer_id=producer_id,
                producer_epoch=1,
                transactional=True,
                control=kind.name,
            )
            offset, now = writer.log.log_end_offset, now + 100
    return writer.finish()


def _far_offsets(root: Path) -> Partition:
    """Offsets past 32 bits, and a gap that is too wide for one index."""
    writer = Writer(root, "far-offsets", index_interval_bytes=0)
    for base_offset in (5_000_000_000, 5_000_000_010, 7_147_483_000, 7_147_483_640, 1 << 60):
        for step in (0, 3):
            writer.append_batch(
                plain_records(3, seed=step, start_ms=START_MS + step),
                origin="replica",
                base_offset=base_offset + step,
                leader_epoch=1,
            )
    return writer.finish()


def _several_at_once(root: Path) -> Partition:
    """Several batches in one call of ``append_raw``, which is one write."""
    writer = Writer(root, "several-at-once", segment_bytes=30_000, index_interval_bytes=700)
    batches = list(_in_batches(plain_records(1200, seed=70), _sizes(70, 12)))
    for start in range(0, len(batches), 7):
        chunk = batches[start : start + 7]
        raw = b"".join(encode_batch(batch, codec=Codec.LZ4) for batch in chunk)
        base = writer.log.append_raw(raw, acks=1).base_offset
        writer.account([record for batch in chunk for record in batch], base)
    return writer.finish()


def _reopened(root: Path) -> Partition:
    """Closed and opened again every few batches."""
    writer = Writer(root, "reopened", segment_bytes=20_000, index_interval_bytes=1000)
    for count, batch in enumerate(_in_batches(plain_records(1200, seed=80), _sizes(80, 12))):
        writer.append(batch, Codec(count % 5))
        if count % 9 == 8:
            writer.reopen()
    return writer.finish()


def _empty(root: Path) -> Partition:
    return Writer(root, "empty").finish()


_LOG_TIME = re.compile(rb"\[([^]]+)\]")


def _apache(root: Path) -> Partition:
    """A web server's log, a line a record, at the time that the line states."""
    writer = Writer(root, "apache", segment_bytes=500_000)
    records = []
    for line in (DATA / "apache_access_6k.log").read_bytes().splitlines():
        match = _LOG_TIME.search(line)
        assert match is not None
        when = datetime.strptime(match[1].decode(), "%d/%b/%Y:%H:%M:%S %z")
        records.append(
            Record(
                timestamp=int(when.astimezone(UTC).timestamp() * 1000),
                key=line.split(b" ", 1)[0],
                value=line,
            )
        )
    for count, batch in enumerate(_in_batches(records, _sizes(90, 500))):
        writer.append(batch, (Codec.ZSTD, Codec.NONE)[count % 2])
    return writer.finish()


def _earthquakes(root: Path) -> Partition:
    """A week's earthquakes, the newest one first; the records of a stream would come so late."""
    writer = Writer(root, "earthquakes", segment_bytes=100_000, index_interval_bytes=2000)
    document = json.loads((DATA / "earthquakes.json").read_bytes())
    records = [
        Record(
            timestamp=quake["properties"]["time"],
            key=quake["id"].encode(),
            value=json.dumps(quake, ensure_ascii=False).encode(),
            headers=(("net", quake["properties"]["net"].encode()),),
        )
        for quake in document["features"]
    ]
    for count, batch in enumerate(_in_batches(records, _sizes(91, 40))):
        writer.append(batch, Codec(count % 5))
    return writer.finish()


_ONCE: tuple[Callable[[Path], Partition], ...] = (
    _small_batches,
    _no_times,
    _append_time,
    _both_times,
    _producers,
    _transactions,
    _far_offsets,
    _several_at_once,
    _reopened,
    _empty,
    _apache,
    _earthquakes,
)


def build(root: Path) -> list[Partition]:
    """Write every partition into ``root``, a directory of its own each."""
    partitions = [_codec(root, codec) for codec in Codec]
    partitions += [
        _segments(root, codec, interval) for codec, interval in zip(Codec, INTERVALS, strict=True)
    ]
    partitions += [_times(root, interval) for interval in INTERVALS[::2]]
    partitions += [make(root) for make in _ONCE]
    return partitions
