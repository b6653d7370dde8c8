"""Whether a log is due for compaction, and which of its segments become one: decided purely.

The log has a clean part and, behind the *first dirty offset*, a dirty part; the active segment is
never compacted. ``logstore.cleaner`` does the work.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from logstore.config import LogConfig
from logstore.retention import SegmentInfo
from logstore.segments import offset_index

__all__ = [
    "CompactionPlan",
    "CompactionPreview",
    "CompactionResult",
    "group_segments",
    "plan_compaction",
]


class CompactionPlan(NamedTuple):
    """Whether a log is due for compaction, and why."""

    due: bool
    reason: str
    first_dirty_offset: int
    end_offset: int
    """Nothing at or behind it may be compacted now."""
    clean_bytes: int
    dirty_bytes: int


class CompactionPreview(NamedTuple):
    """What a compaction would remove, whether it is due or not."""

    plan: CompactionPlan
    records: int
    bytes: int
    """Of the logs."""
    is_whole: bool
    """Whether it is all that would go. If not, the memory did not suffice for all keys, and it is
    what a first pass would remove."""


def plan_compaction(
    segments: Sequence[SegmentInfo],
    config: LogConfig,
    *,
    now_ms: int,
    first_dirty_offset: int,
    last_stable_offset: int,
    oldest_dirty_timestamp: int | None,
) -> CompactionPlan:
    """Decide on a log of ``segments``, oldest first, the active one last.

    ``oldest_dirty_timestamp`` is that of the first record behind the first dirty offset, for
    ``max_compaction_lag_ms``.
    """
    end_offset = segments[-1].base_offset if segments else first_dirty_offset
    why_end = "the active segment is not compacted"
    for segment in segments[:-1]:
        if segment.next_offset <= first_dirty_offset:
            continue
        if segment.next_offset > last_stable_offset:
            end_offset = segment.base_offset
            why_end = f"a transaction is open at offset {last_stable_offset}"
            break
        # Without a lag timestamps do not count, not even those from the future (as in Kafka).
        lag_ms = config.min_compaction_lag_ms
        if lag_ms > 0 and segment.max_timestamp > now_ms - lag_ms:
            end_offset = segment.base_offset
            why_end = (
                f"what follows is younger than min_compaction_lag_ms={config.min_compaction_lag_ms}"
            )
            break
    clean = sum(s.size for s in segments[:-1] if s.next_offset <= first_dirty_offset)
    dirty = sum(
        s.size
        for s in segments[:-1]
        if s.next_offset > first_dirty_offset and s.base_offset < end_offset
    )

    def plan(due: bool, reason: str) -> CompactionPlan:
        return CompactionPlan(due, reason, first_dirty_offset, end_offset, clean, dirty)

    if not dirty:
        return plan(False, f"there is nothing to compact: {why_end}")
    ratio = dirty / (clean + dirty)
    if ratio > config.min_cleanable_dirty_ratio:
        return plan(
            True,
            f"{ratio:.2f} of it is dirty, more than "
            f"min_cleanable_dirty_ratio={config.min_cleanable_dirty_ratio}",
        )
    if (
        oldest_dirty_timestamp is not None
        and oldest_dirty_timestamp >= 0
        and now_ms - oldest_dirty_timestamp > config.max_compaction_lag_ms
    ):
        return plan(
            True,
            f"its oldest dirty record is {now_ms - oldest_dirty_timestamp} ms old, more than "
            f"max_compaction_lag_ms={config.max_compaction_lag_ms}",
        )
    return plan(
        False,
        f"{ratio:.2f} of it is dirty, not more than "
        f"min_cleanable_dirty_ratio={config.min_cleanable_dirty_ratio}",
    )


def group_segments(
    segments: Sequence[SegmentInfo], config: LogConfig
) -> Iterator[Sequence[SegmentInfo]]:
    """Neighbours that may become one segment: together not larger than ``segment_bytes``, and
    within reach of a relative offset."""
    group: list[SegmentInfo] = []
    size = 0
    for segment in segments:
        if group and (
            size + segment.size > config.segment_bytes
            or segment.next_offset - group[0].base_offset > offset_index.MAX_RELATIVE
        ):
            yield group
            group, size = [], 0
        group.append(segment)
        size += segment.size
    if group:
        yield group


class CompactionResult(NamedTuple):
    """What a compaction came to."""

    reason: str
    """Why it was due, or why nothing was done."""
    passes: int
    segments_before: int
    segments_after: int
    bytes_before: int
    bytes_after: int
    records_dropped: int
    first_dirty_offset: int
    """Everything below it has been compacted."""
