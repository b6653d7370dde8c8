"""Apache Kafka's on-disk format: record batches, segment files and their indexes.

Nothing here knows of logs, topics or queues. Whoever wants to look into segment files without
opening a log begins with :func:`scan`, :class:`Batch` and :class:`DiskFiles`::

    >>> from logstore.segments import Batch, Record, encode_batch
    >>> records = [Record(timestamp=0, key=b"a", value=b"1")]
    >>> batch = Batch.parse(encode_batch(records, base_offset=7))
    >>> batch.header.base_offset, batch.crc_ok, batch.records()[0].value
    (7, True, b'1')
"""

from __future__ import annotations

from logstore.segments.batch import Batch, encode_batch, iter_batches
from logstore.segments.check import Finding, check
from logstore.segments.compression import Codec
from logstore.segments.files import DiskFiles, Files
from logstore.segments.header import BatchHeader, TimestampType
from logstore.segments.memory_files import CrashMode, MemoryFiles
from logstore.segments.record import Record
from logstore.segments.scan import Damage, scan

__all__ = [
    "Batch",
    "BatchHeader",
    "Codec",
    "CrashMode",
    "Damage",
    "DiskFiles",
    "Files",
    "Finding",
    "MemoryFiles",
    "Record",
    "TimestampType",
    "check",
    "encode_batch",
    "iter_batches",
    "scan",
]
