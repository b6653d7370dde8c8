"""The headers of a segment's batches, and nothing of what stands behind them: for whoever counts.

Of a large batch a page is read. Checksums cannot be checked so; what contradicts itself is noticed.
"""

from __future__ import annotations

from collections.abc import Iterator

from logstore.segments.batch import HEADER_BYTES, MAX_BATCH_BYTES, Batch, header_at, peek
from logstore.segments.files import File
from logstore.segments.header import BatchHeader
from logstore.segments.scan import Damage, scan

__all__ = ["headers"]

_PAGE_BYTES = 4 << 10
_MAGIC_POSITION = 16


def headers(file: File) -> Iterator[BatchHeader | Damage]:
    """The headers from the beginning of a segment to its end, and places that are no batches."""
    end = file.size()
    position = start = 0
    page = b""
    while position < end:
        if position - start + HEADER_BYTES > len(page):
            page, start = file.read_at(_PAGE_BYTES, position), position
        header = _header(page, position - start, end - position)
        if header is not None:
            yield header
            position += header.size
            continue
        # A message of an old format has to be opened to be counted; and damage is to be passed.
        for item in scan(file, start=position, end=end):
            if isinstance(item, Damage):
                yield item
                position = item.position + item.size
            else:
                yield item.header
                position = item.position + item.header.size
            if _is_plain(item):
                break


def _is_plain(item: Batch | Damage) -> bool:
    return isinstance(item, Batch) and item.header.magic >= 2


def _header(page: bytes, place: int, room: int) -> BatchHeader | None:
    """The header at a place, if it is one of format 2 of a batch for which there is room."""
    if len(page) - place < HEADER_BYTES or page[place + _MAGIC_POSITION] != 2:
        return None
    _, size = peek(page, place)
    if not HEADER_BYTES <= size <= min(room, MAX_BATCH_BYTES):
        return None
    header = header_at(page, place)
    if header.base_offset < 0 or header.last_offset_delta < 0 or header.record_count < 0:
        return None
    return header
