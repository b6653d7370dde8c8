"""Logs for the inspector's tests: directories of segments, written batch by batch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from hypothesis import strategies as st

from logstore.inspect.sources import Partition
from logstore.segments import filenames
from logstore.segments.batch import encode_batch
from logstore.segments.compression import Codec
from logstore.segments.record import Record

__all__ = ["BatchOf", "partitions_of", "st_batches", "write_log"]


class BatchOf(NamedTuple):
    """A batch to be written."""

    records: Sequence[Record]
    codec: Codec = Codec.NONE


def write_log(directory: Path, segments: Sequence[Sequence[BatchOf]]) -> list[Record]:
    """Write a partition of these segments, without indexes; returns its records as they are."""
    directory.mkdir(parents=True, exist_ok=True)
    for old in directory.iterdir():
        old.unlink()
    offset = 0
    written = []
    for batches in segments:
        path = directory / filenames.segment_file(offset, filenames.LOG)
        data = b""
        for records, codec in batches:
            data += encode_batch(records, base_offset=offset, codec=codec)
            written += [
                record._replace(offset=offset + place, headers=tuple(record.headers))
                for place, record in enumerate(records)
            ]
            offset += len(records)
        path.write_bytes(data)
    return written


def partitions_of(directory: Path) -> Partition:
    """The partition in a directory."""
    topic, number = filenames.parse_partition_directory(directory.name) or (directory.name, 0)
    return Partition(topic, number, str(directory))


_words = st.sampled_from([b"alpha", b"beta", b"Gamma", b"delta=1", b"\xff\x00", "Käse".encode()])
_bytes = st.none() | st.lists(_words, max_size=3).map(b" ".join)
_headers = st.lists(st.tuples(st.sampled_from(["type", "trace", "ä"]), _bytes), max_size=2)
_records = st.builds(
    Record,
    timestamp=st.integers(0, 60),
    key=_bytes,
    value=_bytes,
    headers=_headers.map(tuple),
)
st_batches = st.lists(
    st.builds(BatchOf, st.lists(_records, min_size=1, max_size=6), st.sampled_from(list(Codec))),
    max_size=5,
)
"""Batches of a segment: keys, values and headers of few words, nulls, all codecs, times in any
order."""
