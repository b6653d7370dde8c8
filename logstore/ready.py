"""Ready batches: what is checked of them before they are appended as they are, and how they get
their place."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from logstore.appending import Appended
from logstore.errors import InvalidInputError
from logstore.producer_states import SentBatch
from logstore.segments.batch import CRC_START, HEADER_BYTES, Batch, header_at, iter_batches
from logstore.segments.checkpoint import EpochEntry
from logstore.segments.checksum import crc32c
from logstore.segments.gathering import Parts
from logstore.segments.header import LOG_OVERHEAD_BYTES, BatchHeader
from logstore.segments.record import Record

__all__ = [
    "follow_on",
    "listed",
    "placed",
    "ready_batches",
    "refuse_keyless",
    "sound_headers",
    "too_large",
    "where",
]


def too_large(size: int, limit: int, name: str) -> InvalidInputError:
    """The error of a batch beyond ``max_message_bytes``."""
    return InvalidInputError(
        f"{name}: a batch of {size} bytes is larger than max_message_bytes={limit}"
    )


_BYTES = (bytes, bytearray, memoryview)


def listed(records: Iterable[Record]) -> list[Record]:
    """The records of any iterable, for those who look at them more than once."""
    # (Text and bytes are iterable, and so is one record.)
    if not isinstance(records, Iterable) or isinstance(records, (Record, str, *_BYTES)):
        raise InvalidInputError(f"records are a list of Record, not {type(records).__name__}")
    return list(records)


def refuse_keyless(records: Iterable[Record], name: str) -> None:
    """Raise InvalidInputError for a record without a key: compaction could not keep it."""
    for index, record in enumerate(records):
        if record.key is None:
            raise InvalidInputError(
                f"{name}: record {index} has no key, which a compacted topic cannot keep"
            )


def ready_batches(
    data: bytes | bytearray | memoryview | Sequence[Batch],
    *,
    gaps: bool,
    max_bytes: int,
    name: str,
    keyed: bool = False,
) -> list[Batch]:
    """The batches in ``data``; they are opened only if their records must be ``keyed``.

    Raises FormatError where there is no batch or a wrong CRC, and InvalidInputError for a batch of
    an old format, one that is larger than ``max_bytes``, or (unless ``gaps``) one whose records do
    not fill its offsets, as a client's always do.
    """
    batches = list(iter_batches(bytes(data)) if isinstance(data, _BYTES) else data)
    if not batches:
        raise InvalidInputError("there is no batch to append")
    for batch in batches:
        header = batch.header
        if header.magic != 2:
            raise InvalidInputError(
                f"a batch of format {header.magic} can be read, but not appended: only format 2"
            )
        batch.check_crc()
        if header.size > max_bytes:
            raise too_large(header.size, max_bytes, name)
        if not gaps and header.record_count != header.last_offset_delta + 1:
            raise InvalidInputError(
                f"a client's batch has no gaps: {header.record_count} records do not fill "
                f"{header.last_offset_delta + 1} offsets"
            )
        if keyed and not header.control:
            refuse_keyless(batch.records(), name)
    return batches


def placed(
    batches: Sequence[Batch], offset: int, leader_epoch: int, append_timestamp: int | None
) -> tuple[list[BatchHeader], Parts]:
    """The headers and the bytes of the batches at ``offset`` and behind it, with the time of the
    append if there is one."""
    headers = []
    parts: list[bytes | memoryview] = []
    for batch in batches:
        if append_timestamp is not None:
            batch = batch.stamped(append_timestamp)
        header, start, rest = batch.placed_parts(offset, leader_epoch)
        headers.append(header)
        parts += (start, rest)
        offset = header.next_offset
    return headers, parts


def where(new: Sequence[BatchHeader], found: Sequence[SentBatch | None]) -> Appended:
    """Where a client's batches are: those of ``found`` had been there before, and the ``new`` ones
    stand, in order, for the rest."""
    rest = iter(new)
    places = [next(rest) if sent is None else sent for sent in found]
    timestamp = max(
        place.timestamp if isinstance(place, SentBatch) else place.max_timestamp for place in places
    )
    return Appended(places[0].base_offset, places[-1].last_offset, timestamp)


def sound_headers(data: bytes, max_bytes: int) -> list[BatchHeader] | None:
    """The headers of the batches in ``data``, without a look into them or an object for each; None
    unless ``ready_batches`` would take them all, which can say what is wrong."""
    headers = []
    start, end = 0, len(data)
    while start < end:
        if end - start < HEADER_BYTES:
            return None
        header = header_at(data, start)
        size = header.length + LOG_OVERHEAD_BYTES
        if header.magic != 2 or size < HEADER_BYTES or size > end - start or size > max_bytes:
            return None
        if header.base_offset < 0 or header.last_offset_delta < 0 or header.record_count < 0:
            return None
        if crc32c(data[start + CRC_START : start + size]) != header.crc:
            return None
        headers.append(header)
        start += size
    return headers or None


def follow_on(
    headers: Iterable[BatchHeader], next_offset: int, leader_epoch: int, name: str
) -> list[EpochEntry]:
    """The leader epochs other than ``leader_epoch`` that begin with a leader's batches. One that
    goes back is the sender's business, as in Kafka.

    Raises InvalidInputError unless the batches ascend from ``next_offset``, gaps allowed.
    """
    entries = []
    for header in headers:
        base, epoch = header.base_offset, header.leader_epoch
        if base < next_offset:
            raise InvalidInputError(
                f"{name}: a replica's batch begins at offset {base}, where "
                f"{next_offset} or more was expected"
            )
        next_offset = base + header.last_offset_delta + 1
        if 0 <= epoch != leader_epoch:
            leader_epoch = epoch
            entries.append(EpochEntry(epoch, base))
    return entries
