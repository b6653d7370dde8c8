"""Batches inside of a larger piece of bytes, for whoever hands many of them on as they are.

``iter_batches`` gives each batch bytes of its own. For one of 100 kB that is a copy; its checksum
takes another, and its new place a third: together more than it costs to read and write it. A view
has the fields of its header, and shares the bytes behind that with the piece that it came in.
"""

from __future__ import annotations

from collections.abc import Iterator

from logstore.segments.batch import (
    CRC_START,
    HEADER_BYTES,
    MAX_BATCH_BYTES,
    Batch,
    header_at,
    iter_batches,
)
from logstore.segments.checksum import crc32c, crc32c_extend
from logstore.segments.header import HEADER_FIELDS, LOG_OVERHEAD_BYTES, TRANSACTIONAL, BatchHeader

__all__ = ["BatchView", "iter_views"]

_pack_header = HEADER_FIELDS.struct.pack


class BatchView(Batch):
    """A batch of format 2 that shares the bytes behind its header with others."""

    __slots__ = ("_body",)

    def __init__(
        self,
        body: memoryview,
        header: BatchHeader,
        *,
        position: int = 0,
        path: str | None = None,
    ) -> None:
        """``body``: all that stands behind the header."""
        self._body = body
        self.header = header
        self.position = position
        self.path = path
        self._crc = None

    @property
    def raw(self) -> bytes:  # type: ignore[override]
        """The batch's bytes, put together anew each time."""
        return _pack_header(*self.header) + self._body

    def _computed_crc(self) -> int:
        if self._crc is None:
            self._crc = _crc_of(self.header, self._body)
        return self._crc

    def placed_parts(
        self, base_offset: int, leader_epoch: int
    ) -> tuple[BatchHeader, bytes, memoryview]:
        """See :meth:`Batch.placed_parts`."""
        old = self.header
        header = BatchHeader(base_offset, old.length, leader_epoch, *old[3:])
        return header, _pack_header(*header), self._body

    def written_by(self, producer_id: int, producer_epoch: int, base_sequence: int) -> BatchView:
        """The same records as this producer (-1: none) writes them, outside of a transaction."""
        header = self.header._replace(
            attributes=self.header.attributes & ~TRANSACTIONAL,
            producer_id=producer_id,
            producer_epoch=producer_epoch,
            base_sequence=base_sequence,
        )
        crc = _crc_of(header, self._body)
        header = header._replace(crc=crc)
        made = BatchView(self._body, header, position=self.position, path=self.path)
        made._crc = crc
        return made


def _crc_of(header: BatchHeader, body: memoryview) -> int:
    # (The compiled checksum takes bytes, and no view.)
    return crc32c_extend(crc32c(_pack_header(*header)[CRC_START:]), bytes(body))


def iter_views(
    data: bytes, *, below: int, position: int = 0, path: str | None = None
) -> Iterator[Batch]:
    """As :func:`iter_batches`, for batches whose offsets are below ``below``: a part of another one
    may stand behind them. Messages of old formats, and what is no batch, are left to it."""
    whole = memoryview(data)
    start, end = 0, len(data)
    while end - start >= HEADER_BYTES:
        header = header_at(data, start)
        stop = start + header.length + LOG_OVERHEAD_BYTES
        if (
            header.magic != 2
            or not HEADER_BYTES <= stop - start <= min(end - start, MAX_BATCH_BYTES)
            or min(header.base_offset, header.last_offset_delta, header.record_count) < 0
        ):
            break
        body = whole[start + HEADER_BYTES : stop]
        yield BatchView(body, header, position=position + start, path=path)
        if header.next_offset == below:
            return
        start = stop
    if start < end:
        for batch in iter_batches(data[start:], position=position + start, path=path):
            yield batch
            if batch.header.next_offset == below:
                return
