"""Parts of a log: where its last so many records begin."""

from __future__ import annotations

from logstore.log import PartitionLog

__all__ = ["last_records"]


def last_records(log: PartitionLog, count: int, *, end: int | None = None) -> int:
    """The offset from which on there are ``count`` records up to ``end`` (the log's), or the log's
    start.

    Offsets may have gaps (compaction, control records), so it goes back further and further.
    """
    end = log.log_end_offset if end is None else end
    earliest = log.log_start_offset
    back = count
    while back:
        begin = max(earliest, end - back)
        offsets = _offsets(log, begin, end, most=count)
        if len(offsets) == count:
            return offsets[0]
        if begin == earliest:
            return earliest
        back *= 2
    return end


def _offsets(log: PartitionLog, begin: int, end: int, *, most: int) -> list[int]:
    """The offsets of the last ``most`` records from ``begin`` to ``end``.

    Batches without gaps are counted by their headers.
    """
    found: list[int] = []
    while begin < end:
        fetch = log.read(begin)
        if fetch.next_offset == begin:
            break
        for batch in fetch.batches():
            header = batch.header
            if header.control:
                continue
            if header.record_count == header.last_offset_delta + 1:
                found += range(max(begin, header.base_offset), min(end, header.next_offset))
            else:
                found += [r.offset for r in batch.records() if begin <= r.offset < end]
        del found[:-most]
        begin = fetch.next_offset
    return found
