"""Encoding and decoding batches: how fast, and how far from what is possible.

    python bench/codec.py [--quick] [--json] [--only TITLE]

Limits: joining the values in a Python loop (what any encoder in pure Python does at least),
slicing them out again, CRC-32C alone over the same bytes, the codec's library alone over the same
bytes, and aiokafka's record layer, which is compiled.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import accumulate, pairwise
from pathlib import Path

import crcmod
import google_crc32c
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.harness import Options, Row, Table, report, steady, workload
from logstore.segments.batch import HEADER_BYTES, Batch, encode_batch
from logstore.segments.checksum import crc32c
from logstore.segments.compression import Codec, compress, decompress
from logstore.segments.record import Record

KINDS = {
    "same size": "values of one size",
    "varied size": "values of varied size",
    "keyed": "with keys",
    "headers": "with headers",
}
NOW_MS = 1_700_000_000_000

Batches = list[list[Record]]


def encode_all(batches: Batches, codec: Codec = Codec.NONE) -> None:
    """Our encoder."""
    for records in batches:
        encode_batch(records, codec=codec, default_timestamp=NOW_MS)


def encoded(batches: Batches, codec: Codec = Codec.NONE) -> list[bytes]:
    """What our encoder makes."""
    return [encode_batch(records, codec=codec, default_timestamp=NOW_MS) for records in batches]


def decode_all(raws: Sequence[bytes]) -> int:
    """Our decoder, checksums included."""
    count = 0
    for raw in raws:
        batch = Batch.parse(raw)
        batch.check_crc()
        count += len(batch.records())
    return count


def join_all(batches: Batches) -> None:
    """The least that a Python loop over records can do: look at each one, join the values."""
    for records in batches:
        parts: list[bytes] = []
        append = parts.append
        for _, _, _, value, _ in records:
            if value is not None:
                append(value)
        b"".join(parts)


def slice_all(blocks: Sequence[tuple[bytes, list[int]]]) -> int:
    """The least that a Python loop over bytes can do: slice out values at known places."""
    count = 0
    for block, ends in blocks:
        values: list[bytes] = []
        append = values.append
        for start, end in pairwise(ends):
            append(block[start:end])
        count += len(values)
    return count


def checksum_all(raws: Sequence[bytes], function: Callable[[bytes], int] = crc32c) -> None:
    """CRC-32C over everything."""
    for raw in raws:
        function(raw)


def pack_all(bodies: Sequence[bytes], codec: Codec) -> None:
    """The codec's library alone."""
    for body in bodies:
        compress(codec, body)


def unpack_all(bodies: Sequence[bytes], codec: Codec) -> None:
    """The codec's library alone."""
    for body in bodies:
        decompress(codec, body)


def aiokafka_encode(records: list[Record], codec: Codec = Codec.NONE) -> bytes:
    """aiokafka's builder."""
    builder = DefaultRecordBatchBuilder(2, codec, 0, -1, -1, -1, 1 << 30)
    append = builder.append
    for offset, (_, timestamp, key, value, headers) in enumerate(records):
        append(offset, NOW_MS if timestamp < 0 else timestamp, key, value, list(headers))
    return bytes(builder.build())


def aiokafka_encode_all(batches: Batches, codec: Codec = Codec.NONE) -> None:
    """aiokafka's builder."""
    for records in batches:
        aiokafka_encode(records, codec)


def aiokafka_decode_all(raws: Sequence[bytes]) -> int:
    """aiokafka's reader, checksums included."""
    count = 0
    for raw in raws:
        batch = MemoryRecords(raw).next_batch()
        if not batch.validate_crc():
            raise ValueError("aiokafka finds a wrong checksum")
        for _ in batch:
            count += 1
    return count


def plain_tables(options: Options) -> Iterator[Table]:
    """Batches without compression."""
    count = options.count(100_000)
    for kind, name in KINDS.items():
        batches = workload(kind, count)
        raws = encoded(batches)
        assert decode_all(raws) == aiokafka_decode_all(raws) == count
        yield Table(
            f"encode, 500 records of 200 bytes, {name}",
            [
                Row(
                    "logstore",
                    count,
                    steady(partial(encode_all, batches)),
                    goal=2_500_000,
                ),
                Row("join the values", count, steady(partial(join_all, batches)), "A"),
                Row("CRC-32C alone", count, steady(partial(checksum_all, raws)), "B"),
                Row(
                    "aiokafka (compiled)",
                    count,
                    steady(partial(aiokafka_encode_all, batches)),
                    "C",
                ),
            ],
        )
        values = [[record.value or b"" for record in records] for records in batches]
        blocks = [(b"".join(them), [0, *accumulate(map(len, them))]) for them in values]
        yield Table(
            f"decode, 500 records of 200 bytes, {name}",
            [
                Row("logstore", count, steady(partial(decode_all, raws)), goal=1_200_000),
                Row("slice out the values", count, steady(partial(slice_all, blocks)), "A"),
                Row("CRC-32C alone", count, steady(partial(checksum_all, raws)), "B"),
                Row(
                    "aiokafka (compiled)",
                    count,
                    steady(partial(aiokafka_decode_all, raws)),
                    "C",
                ),
            ],
        )


def compressed_tables(options: Options) -> Iterator[Table]:
    """Batches with each codec, on something like the lines of a log."""
    count = options.count(20_000)
    batches = workload("stamped", count)
    bodies = [raw[HEADER_BYTES:] for raw in encoded(batches)]
    for codec in Codec:
        if codec is Codec.NONE:
            continue
        raws = encoded(batches, codec)
        theirs = [aiokafka_encode(records, codec) for records in batches]
        assert decode_all(raws) == aiokafka_decode_all(raws) == decode_all(theirs) == count
        packed = [raw[HEADER_BYTES:] for raw in raws]
        ratio = sum(map(len, bodies)) / sum(map(len, packed))
        yield Table(
            f"encode with {codec.label} (to a {ratio:.1f}th)",
            [
                Row("logstore", count, steady(partial(encode_all, batches, codec))),
                Row(
                    "the codec's library alone",
                    count,
                    steady(partial(pack_all, bodies, codec)),
                    "A",
                ),
                Row(
                    "aiokafka (compiled)",
                    count,
                    steady(partial(aiokafka_encode_all, batches, codec)),
                    "B",
                ),
            ],
        )
        yield Table(
            f"decode with {codec.label}",
            [
                Row("logstore", count, steady(partial(decode_all, raws))),
                Row(
                    "the codec's library alone",
                    count,
                    steady(partial(unpack_all, packed, codec)),
                    "A",
                ),
                Row(
                    "aiokafka (compiled)",
                    count,
                    steady(partial(aiokafka_decode_all, raws)),
                    "B",
                ),
            ],
        )


def checksum_table(options: Options) -> Table:
    """The two implementations of CRC-32C."""
    raws = encoded(workload("same size", options.count(50_000)))
    megabytes = sum(map(len, raws)) / 1e6
    portable = crcmod.mkCrcFun(0x11EDC6F41, initCrc=0, rev=True, xorOut=0xFFFFFFFF)
    assert portable(raws[0]) == google_crc32c.value(raws[0])
    return Table(
        "CRC-32C over batches of 100 KB",
        [
            Row(
                f"hardware (google-crc32c, {google_crc32c.implementation})",
                round(megabytes),
                steady(partial(checksum_all, raws, google_crc32c.value)),
            ),
            Row(
                "crcmod's tables",
                round(megabytes),
                steady(partial(checksum_all, raws, portable)),
                "A",
            ),
        ],
        unit="MB/s",
    )


def tables(options: Options) -> Iterator[Table]:
    """Everything, in the order in which it is printed."""
    yield from plain_tables(options)
    yield from compressed_tables(options)
    yield checksum_table(options)


if __name__ == "__main__":
    report("Encoding and decoding batches, beside their limits.", tables)
