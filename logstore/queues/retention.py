"""How long a queue keeps what is settled, decided purely.

Kafka's words and rules, for segments in which nothing is left to deliver: an unsettled message
keeps its segment whatever its age, and no other one. Where nothing is said of it, settled segments
go at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from logstore.config import LogConfig
from logstore.queues.definitions import QueueArguments
from logstore.queues.ledger_rows import Span
from logstore.retention import SegmentInfo

__all__ = ["due_segments", "keeps_settled", "log_config", "settled_segments"]

_PARTS = 8
"""Into about so many segments is cut what ``retention_bytes`` keeps, so that it goes in parts."""
_LEAST_SEGMENT_BYTES = 64 << 10


def keeps_settled(arguments: QueueArguments) -> bool:
    """Whether anything is kept that is settled."""
    limits = (arguments.retention_ms, arguments.retention_bytes)
    return limits != (None, None) and 0 not in limits


def log_config(arguments: QueueArguments, base: LogConfig) -> LogConfig:
    """How a queue's logs are kept: in segments that are small beside what retention keeps, since a
    segment goes as a whole, and the one that is written to stays."""
    ms, size = arguments.retention_ms, arguments.retention_bytes
    if not keeps_settled(arguments):
        return base
    if ms is not None and 0 < ms < base.segment_ms:
        base = replace(base, segment_ms=ms)
    if size is not None and size > 0:
        part = max(size // _PARTS, _LEAST_SEGMENT_BYTES)
        base = replace(base, segment_bytes=min(base.segment_bytes, part))
    return base


def settled_segments(bases: tuple[int, ...], cursor: int, spans: list[Span]) -> list[int]:
    """The base offsets of those segments, the last one left out, that lie below the cursor and hold
    none of ``spans``, which are in order."""
    settled = []
    place = 0
    for base, following in pairwise(bases):
        if following > cursor:
            break
        while place < len(spans) and spans[place].end <= base:
            place += 1
        if place == len(spans) or spans[place].first >= following:
            settled.append(base)
    return settled


def due_segments(
    settled: Sequence[SegmentInfo], arguments: QueueArguments, *, now_ms: int
) -> list[int]:
    """The base offsets of those settled segments, oldest first, that are not kept any longer: the
    newest message is older than ``retention_ms``; or without it at least ``retention_bytes`` of
    settled segments remain."""
    if not keeps_settled(arguments):
        return [segment.base_offset for segment in settled]
    ms, size = arguments.retention_ms, arguments.retention_bytes
    due = []
    kept = []
    for segment in settled:
        newest = segment.max_timestamp if segment.max_timestamp >= 0 else segment.modified_ms
        if ms is not None and ms >= 0 and now_ms - newest > ms:
            due.append(segment.base_offset)
        else:
            kept.append(segment)
    if size is not None and size >= 0:
        total = sum(segment.size for segment in kept)
        for segment in kept:
            if total - segment.size < size:
                break
            due.append(segment.base_offset)
            total -= segment.size
    return sorted(due)
