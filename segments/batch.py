"""Record batches, the unit in which everything is written, checked, copied and read.

The header of format v2 takes 61 bytes, big-endian (source: Kafka documentation, "Record Batch";
an annotated hexdump stands in ``docs/format.md``). A batch keeps the bytes that it was read from;
its records are decoded when somebody asks for them, and not before.

Messages of the old formats 0 and 1 appear as batches too (``logstore.segments.legacy``), so that
whoever reads a segment sees one kind of thing.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple, overload

from logstore.segments import legacy
from logstore.segments.checksum import crc32c, crc32c_extend
from logstore.segments.compression import MAX_DECOMPRESSED_BYTES, Codec, compress, decompress
from logstore.segments.errors import (
    ChecksumError,
    FormatError,
    InvalidInputError,
    LimitError,
    TruncatedError,
    UnsupportedFormatError,
)
from logstore.segments.header import (
    HEADER_FIELDS,
    LOG_OVERHEAD_BYTES,
    BatchHeader,
    TimestampType,
)
from logstore.segments.record import (
    NO_TIMESTAMP,
    Record,
    RowT,
    decode_records,
    encode_only,
    encode_records,
)

__all__ = [
    "HEADER_BYTES",
    "MAX_BATCH_BYTES",
    "Batch",
    "SealedBatch",
    "encode_batch",
    "header_at",
    "header_fields",
    "iter_batches",
    "peek",
    "place",
    "prefix_at",
    "seal_batch",
    "seal_parts",
    "seal_records",
]

MAX_BATCH_BYTES = 512 << 20
"""No batch larger than this is read or written: 512 MiB, header included."""

_HEADER = HEADER_FIELDS.struct
HEADER_BYTES = _HEADER.size
"""Bytes of the header of format v2: 61."""

_BEFORE_CRC = struct.Struct(">qiibI")
_AFTER_CRC = struct.Struct(">hiqqqhii")
CRC_START = _BEFORE_CRC.size
"""Where what the checksum covers begins in a batch of format v2, right behind it."""
_OFFSET_AND_LENGTH = struct.Struct(">qi")
_PLACE = struct.Struct(">qii")
"""What stands in front of the magic: offset, length, leader epoch."""
_LENGTH_BEFORE_TAIL = CRC_START - LOG_OVERHEAD_BYTES
_MAGIC_POSITION = 16
_INT64_MAX = (1 << 63) - 1
_CODEC_BITS = 7
_LOG_APPEND_BIT = TimestampType.LOG_APPEND << 3

assert CRC_START + _AFTER_CRC.size == HEADER_BYTES


class Batch:
    """One batch: its header, and the bytes that it came from.

    ``position`` is the byte of its file at which it begins (of the buffer, where there is no
    file). Nothing but the header has been looked at; :attr:`crc_ok` and :meth:`records` look.
    """

    __slots__ = ("_crc", "header", "path", "position", "raw")

    def __init__(
        self, raw: bytes, header: BatchHeader, *, position: int = 0, path: str | None = None
    ) -> None:
        self.raw = raw
        self.header = header
        self.position = position
        self.path = path
        self._crc: int | None = None
        """The computed checksum: a survey asks for it, and then whoever gets the batch from it."""

    @classmethod
    def parse(cls, raw: bytes, *, position: int = 0, path: str | None = None) -> Batch:
        """The batch whose bytes ``raw`` holds, no more and no less.

        Raises FormatError when the header contradicts itself or the number of bytes. The CRC is
        not checked.
        """
        try:
            return cls(raw, _parse_header(raw), position=position, path=path)
        except FormatError as error:
            raise error.at(path, position) from None

    def __repr__(self) -> str:
        h = self.header
        return (
            f"Batch(offsets {h.base_offset} to {h.last_offset}, {h.record_count} records, "
            f"{h.size} bytes at {self.position}{f' of {self.path}' if self.path else ''})"
        )

    @property
    def crc_ok(self) -> bool:
        """Whether the stored checksum is the one of the bytes that it covers."""
        return self._computed_crc() == self.header.crc

    def _computed_crc(self) -> int:
        if self._crc is None:
            if self.header.magic < 2:
                self._crc = legacy.compute_crc(self.raw)
            else:
                self._crc = crc32c(self.raw[CRC_START:])
        return self._crc

    def check_crc(self) -> None:
        """Raise ChecksumError unless :attr:`crc_ok`."""
        computed = self._computed_crc()
        if computed != self.header.crc:
            raise ChecksumError(
                "the checksum of a batch does not match",
                path=self.path,
                position=self.position,
                expected=f"{computed:#010x} (computed)",
                found=f"{self.header.crc:#010x} (stored)",
            )

    @overload
    def records(self, *, max_bytes: int = ...) -> list[Record]: ...

    @overload
    def records(
        self, *, max_bytes: int = ..., row_type: type[RowT], ahead: tuple[Any, ...] = ...
    ) -> list[RowT]: ...

    def records(
        self,
        *,
        max_bytes: int = MAX_DECOMPRESSED_BYTES,
        row_type: type[Any] = Record,
        ahead: tuple[Any, ...] = (),
    ) -> list[Any]:
        """The records, decompressed and decoded; as other rows, where ``row_type`` and ``ahead``
        say so (see ``decode_records``).

        Raises LimitError when they decompress to more than ``max_bytes``, and FormatError when
        they are not what the header promises. The CRC is not checked.
        """
        header = self.header
        try:
            if header.magic < 2:
                messages = legacy.decode_message(self.raw, max_bytes=max_bytes)
                if row_type is Record and not ahead:
                    return messages
                return [tuple.__new__(row_type, (*ahead, *message)) for message in messages]
            body = self.raw[HEADER_BYTES:]
            if not body and not header.record_count:
                return []  # compaction took the records and left the header, for its producer
            attributes = header.attributes
            try:
                if attributes & _CODEC_BITS:
                    body = decompress(header.codec, body, max_bytes=max_bytes)
                return decode_records(
                    body,
                    header.record_count,
                    base_offset=header.base_offset,
                    base_timestamp=header.base_timestamp,
                    append_timestamp=header.max_timestamp if attributes & _LOG_APPEND_BIT else None,
                    row_type=row_type,
                    ahead=ahead,
                )
            except FormatError as error:
                # A position among decompressed bytes is not one of the file: point at the batch.
                if header.codec:
                    error.position = 0
                else:
                    error.position = HEADER_BYTES + (error.position or 0)
                raise
        except FormatError as error:
            raise error.at(self.path, self.position) from None

    def placed(self, base_offset: int, leader_epoch: int) -> Batch:
        """The same batch at another offset and epoch: 12 bytes change, and not the CRC."""
        header, start, rest = self.placed_parts(base_offset, leader_epoch)
        raw = b"".join((start, rest))
        return Batch(raw, header, position=self.position, path=self.path)

    def placed_parts(
        self, base_offset: int, leader_epoch: int
    ) -> tuple[BatchHeader, bytes, memoryview]:
        """The same, not put together yet: its header, the bytes that change, and the rest."""
        # A view: a second copy beside the result makes the C library give memory back and take it
        # again for each batch of 100 kB, which costs ten times as much as copying.
        rest = memoryview(self.raw)[_MAGIC_POSITION:]
        header = self.header._replace(base_offset=base_offset, leader_epoch=leader_epoch)
        return header, _PLACE.pack(base_offset, header.length, leader_epoch), rest

    def stamped(self, append_timestamp: int) -> Batch:
        """The same batch with the time of its append in place of its records' own timestamps."""
        header = self.header
        sealed = seal_batch(
            self.raw[HEADER_BYTES:],
            record_count=header.record_count,
            base_timestamp=header.base_timestamp,
            max_timestamp=append_timestamp,
            attributes=header.attributes | TimestampType.LOG_APPEND << 3,
            last_offset_delta=header.last_offset_delta,
            producer_id=header.producer_id,
            producer_epoch=header.producer_epoch,
            base_sequence=header.base_sequence,
        )
        return Batch.parse(
            sealed.at(header.base_offset, header.leader_epoch),
            position=self.position,
            path=self.path,
        )


_new_header = partial(tuple.__new__, BatchHeader)
"""``BatchHeader._make`` without its Python frame."""


def header_at(data: bytes, position: int) -> BatchHeader:
    """The fields of the header of format v2 at ``position``, whatever they say: for whoever walks
    from header to header without the batches."""
    header: BatchHeader = _new_header(_HEADER.unpack_from(data, position))
    return header


header_fields = _HEADER.unpack_from
"""``header_fields(data, position)``: what :func:`header_at` returns, as a plain tuple."""

prefix_at = _BEFORE_CRC.unpack_from
"""``prefix_at(data, position)``: base offset, length, leader epoch, magic and CRC of the batch at
``position``, for whoever needs no more of its header."""


def _parse_header(raw: bytes) -> BatchHeader:
    if len(raw) < HEADER_BYTES or raw[_MAGIC_POSITION] != 2:
        return _parse_old_header(raw)
    header: BatchHeader = _new_header(_HEADER.unpack_from(raw))
    if header.length != len(raw) - LOG_OVERHEAD_BYTES:
        raise FormatError(
            "a batch's length is wrong",
            position=8,
            expected=len(raw) - LOG_OVERHEAD_BYTES,
            found=header.length,
        )
    if header.base_offset < 0 or header.last_offset_delta < 0 or header.record_count < 0:
        raise FormatError(
            "a batch's header holds a negative number",
            expected="base offset, last offset delta and count of at least 0",
            found=f"{header.base_offset}, {header.last_offset_delta} and {header.record_count}",
        )
    return header


def _parse_old_header(raw: bytes) -> BatchHeader:
    """The header of a message of format 0 or 1; raises for whatever else it may be."""
    if len(raw) <= _MAGIC_POSITION:
        raise TruncatedError(
            "the bytes end inside a batch's header", expected=HEADER_BYTES, found=len(raw)
        )
    magic = raw[_MAGIC_POSITION]
    if magic < 2:
        return legacy.parse_header(raw)
    if magic > 2:
        raise UnsupportedFormatError(
            "a batch's magic is unknown",
            position=_MAGIC_POSITION,
            expected="0, 1 or 2",
            found=magic,
        )
    raise TruncatedError(
        "the bytes end inside a batch's header", expected=HEADER_BYTES, found=len(raw)
    )


def peek(buffer: bytes, position: int = 0) -> tuple[int, int]:
    """``(base offset, size in bytes)`` of the batch whose first 12 bytes stand at ``position``.

    For a message of format 0 or 1 the offset is the *last* one inside. The size is whatever the
    bytes say; compare it with what there is before you use it.
    """
    offset, length = _OFFSET_AND_LENGTH.unpack_from(buffer, position)
    return offset, LOG_OVERHEAD_BYTES + length


def iter_batches(data: bytes, *, position: int = 0, path: str | None = None) -> Iterator[Batch]:
    """The batches that stand one behind the other in ``data``, which holds whole batches only.

    ``position`` is where ``data`` begins in the file ``path``. Raises FormatError at the first
    thing that is no batch; CRCs are not checked.
    """
    start = 0
    end = len(data)
    while start < end:
        if end - start < LOG_OVERHEAD_BYTES:
            raise TruncatedError(
                "the bytes end inside a batch's header",
                path=path,
                position=position + start,
                expected=HEADER_BYTES,
                found=end - start,
            )
        size = LOG_OVERHEAD_BYTES + _OFFSET_AND_LENGTH.unpack_from(data, start)[1]
        if size > MAX_BATCH_BYTES:
            raise LimitError(
                "a batch is too large",
                path=path,
                position=position + start,
                expected=f"at most {MAX_BATCH_BYTES} bytes",
                found=size,
            )
        if not LOG_OVERHEAD_BYTES < size <= end - start:
            raise TruncatedError(
                "a batch is longer than what is there of it",
                path=path,
                position=position + start,
                expected=size,
                found=end - start,
            )
        raw = data[start : start + size]
        try:
            header = _parse_header(raw)
        except FormatError as error:
            raise error.at(path, position + start) from None
        yield Batch(raw, header, position=position + start, path=path)
        start += size


class SealedBatch(NamedTuple):
    """A batch of format v2 that is finished but for its place, which its CRC does not cover."""

    crc: int
    tail: bytes
    """Everything behind the CRC."""
    record_count: int
    max_timestamp: int
    size: int
    """Bytes of the whole batch."""

    def at(self, base_offset: int, leader_epoch: int) -> bytes:
        """The whole batch, placed at ``base_offset`` and stamped with ``leader_epoch``."""
        return place(self.crc, self.tail, base_offset, leader_epoch)


def place(crc: int, tail: bytes, base_offset: int, leader_epoch: int) -> bytes:
    """The batch with this CRC and all that stands behind it, placed at ``base_offset``."""
    length = _LENGTH_BEFORE_TAIL + len(tail)
    return _BEFORE_CRC.pack(base_offset, length, leader_epoch, 2, crc) + tail


def seal_batch(
    body: bytes,
    *,
    record_count: int,
    base_timestamp: int,
    max_timestamp: int,
    attributes: int = 0,
    last_offset_delta: int | None = None,
    producer_id: int = -1,
    producer_epoch: int = -1,
    base_sequence: int = -1,
) -> SealedBatch:
    """A batch around ``body``, records that are encoded (and compressed) already."""
    tail = _AFTER_CRC.pack(
        attributes,
        record_count - 1 if last_offset_delta is None else last_offset_delta,
        base_timestamp,
        max_timestamp,
        producer_id,
        producer_epoch,
        base_sequence,
        record_count,
    )
    tail += body
    size = CRC_START + len(tail)
    return SealedBatch(crc32c_extend(0, tail), tail, record_count, max_timestamp, size)


def seal_records(
    records: Sequence[Record],
    *,
    codec: Codec = Codec.NONE,
    level: int | None = None,
    default_timestamp: int = NO_TIMESTAMP,
    append_timestamp: int | None = None,
    producer_id: int = -1,
    producer_epoch: int = -1,
    base_sequence: int = -1,
    transactional: bool = False,
    control: bool = False,
) -> SealedBatch:
    """A batch that holds ``records``, whose own offsets are not looked at.

    Timestamps are milliseconds; ``default_timestamp`` replaces ``NO_TIMESTAMP``, and
    ``append_timestamp`` makes it a batch of LogAppendTime. Raises InvalidInputError when there are
    no records, or one of them cannot be stored.
    """
    attributes = codec | transactional << 4 | control << 5
    parts = seal_parts(
        records,
        codec,
        level,
        default_timestamp,
        append_timestamp,
        attributes,
        producer_id,
        producer_epoch,
        base_sequence,
    )
    return SealedBatch(*parts)


def seal_parts(
    records: Sequence[Record],
    codec: Codec,
    level: int | None,
    default_timestamp: int,
    append_timestamp: int | None,
    attributes: int,
    producer_id: int = -1,
    producer_epoch: int = -1,
    base_sequence: int = -1,
) -> tuple[int, bytes, int, int, int]:
    """The fields of the :class:`SealedBatch` of ``seal_records``.

    A named tuple, arguments by name and the attributes' flags would be a twentieth of a single
    append; ``attributes`` has the codec's bits and those of transactions.
    """
    count = len(records)
    if not count:
        raise InvalidInputError("a batch holds at least one record")
    if count == 1:
        body, base_timestamp, max_timestamp = encode_only(records, default_timestamp)
    else:
        body, base_timestamp, max_timestamp = encode_records(records, default_timestamp)
    if codec:
        body = compress(codec, body, level)
    if len(body) > MAX_BATCH_BYTES - HEADER_BYTES:
        raise InvalidInputError(
            f"a batch of {HEADER_BYTES + len(body)} bytes is too large: at most {MAX_BATCH_BYTES}"
        )
    if append_timestamp is not None:
        attributes |= TimestampType.LOG_APPEND << 3
        max_timestamp = append_timestamp
    # As in ``seal_batch``, whose call would be a fiftieth of a single append.
    tail = _AFTER_CRC.pack(
        attributes,
        count - 1,
        base_timestamp,
        max_timestamp,
        producer_id,
        producer_epoch,
        base_sequence,
        count,
    )
    tail += body
    size = CRC_START + len(tail)
    return crc32c_extend(0, tail), tail, count, max_timestamp, size


def encode_batch(
    records: Sequence[Record], *, base_offset: int = 0, leader_epoch: int = -1, **options: Any
) -> bytes:
    """The bytes of a batch that holds ``records`` at ``base_offset`` and the offsets behind it.

    ``options`` and errors are those of :func:`seal_records`.
    """
    if not 0 <= base_offset <= _INT64_MAX - len(records):
        raise InvalidInputError(f"offset {base_offset} is out of bounds: 0 to 2^63 - 1")
    return seal_records(records, **options).at(base_offset, leader_epoch)
