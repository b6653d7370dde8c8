"""Taking records out of a batch, as compaction and truncation do.

What stays keeps its bytes: a record's offset and timestamp are deltas to the batch's base, and the
batch keeps its base. So survivors are copied, not encoded anew. Base offset, last offset and
sequence numbers stay as they were even where the first or the last record goes (KIP-98): a batch
still says which offsets it was written for.
"""

from __future__ import annotations

from collections.abc import Sequence

from logstore.segments import varint
from logstore.segments.batch import HEADER_BYTES, Batch, seal_batch
from logstore.segments.compression import MAX_DECOMPRESSED_BYTES, Codec, compress, decompress
from logstore.segments.errors import FormatError
from logstore.segments.header import DELETE_HORIZON, BatchHeader, TimestampType
from logstore.segments.record_places import locate_records

__all__ = ["OpenBatch", "empty_batch"]

_CODEC = 0x07


class OpenBatch:
    """A batch of format 2 whose records have been located, and not decoded."""

    def __init__(self, batch: Batch, *, max_bytes: int = MAX_DECOMPRESSED_BYTES) -> None:
        """Raises FormatError for a batch whose records are not what its header promises."""
        header = batch.header
        self._data = batch.raw
        start = HEADER_BYTES
        try:
            if header.codec and (header.record_count or header.size > HEADER_BYTES):
                self._data = decompress(header.codec, batch.raw[start:], max_bytes=max_bytes)
                start = 0
            self.places = locate_records(self._data, header.record_count, start)
        except FormatError as error:
            error.position = None
            raise error.at(batch.path, batch.position) from None
        self.batch = batch

    def keep(
        self,
        kept: Sequence[int],
        *,
        delete_horizon: int | None = None,
        last_offset: int | None = None,
    ) -> bytes:
        """The batch with nothing but the records of the indexes ``kept``, at least one.

        ``delete_horizon`` marks it as one whose tombstones may go at that time (milliseconds);
        ``last_offset`` makes it end earlier than it did (truncation).
        """
        header = self.batch.header
        base_timestamp = header.base_timestamp
        attributes = header.attributes
        if header.timestamp_type is TimestampType.LOG_APPEND:
            max_timestamp = header.max_timestamp
        else:
            deltas = self.places.timestamp_deltas
            # The base may be a delete horizon, not a record's time; the deltas are right anyway.
            max_timestamp = base_timestamp + max([deltas[index] for index in kept])
        if delete_horizon is None:
            whole, bounds = self._data, self.places.bounds
            data = b"".join([whole[bounds[index] : bounds[index + 1]] for index in kept])
        else:
            data = self._rebased(kept, delete_horizon)
            base_timestamp = delete_horizon
            attributes |= DELETE_HORIZON
        codec = Codec(attributes & _CODEC)
        sealed = seal_batch(
            compress(codec, data) if codec else data,
            record_count=len(kept),
            base_timestamp=base_timestamp,
            max_timestamp=max_timestamp,
            attributes=attributes,
            last_offset_delta=header.last_offset_delta
            if last_offset is None
            else last_offset - header.base_offset,
            producer_id=header.producer_id,
            producer_epoch=header.producer_epoch,
            base_sequence=header.base_sequence,
        )
        return sealed.at(header.base_offset, header.leader_epoch)

    def _rebased(self, kept: Sequence[int], base_timestamp: int) -> bytes:
        """The records ``kept`` with their timestamps counted from another base.

        With a delete horizon the header's base timestamp is the horizon, and every record's delta
        is counted from it (KIP-534).
        """
        shift = self.batch.header.base_timestamp - base_timestamp
        data, bounds = self._data, self.places.bounds
        parts: list[bytes] = []
        for index in kept:
            _, position = varint.decode(data, bounds[index])  # the record's length
            delta, position = varint.decode(data, position + 1)  # behind its attributes
            record = b"".join(
                (
                    b"\0",  # attributes
                    varint.encode(delta + shift),
                    data[position : bounds[index + 1]],
                )
            )
            parts += (varint.encode(len(record)), record)
        return b"".join(parts)


def empty_batch(header: BatchHeader) -> bytes:
    """What stays of a batch whose records are all gone, if its producer's state hangs on it."""
    return seal_batch(
        b"",
        record_count=0,
        base_timestamp=header.base_timestamp,
        max_timestamp=header.max_timestamp,
        attributes=header.attributes & ~_CODEC,
        last_offset_delta=header.last_offset_delta,
        producer_id=header.producer_id,
        producer_epoch=header.producer_epoch,
        base_sequence=header.base_sequence,
    ).at(header.base_offset, header.leader_epoch)
