"""What retention would do: a decision from what the segments are, with its reason.

Kafka's rules (``UnifiedLog.deleteOldSegments``), in its order: by time, by size, and what lies
below the log start offset. Each looks at the oldest segments first and stops at the first one that
stays, so that the log keeps a beginning and no holes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from logstore.config import LogConfig

__all__ = ["Decision", "SegmentInfo", "decide"]


class SegmentInfo(NamedTuple):
    """What retention has to know of a segment."""

    base_offset: int
    next_offset: int
    """The base offset of the segment behind it, or the log end offset."""
    size: int
    """Bytes of its log."""
    max_timestamp: int
    """The largest timestamp of its records in milliseconds; -1 where they have none."""
    active: bool
    modified_ms: int = -1
    """When its log was last written to; the age of what has no timestamps."""


class Decision(NamedTuple):
    """What becomes of a segment, and why."""

    segment: SegmentInfo
    delete: bool
    reason: str


def decide(
    segments: Sequence[SegmentInfo], config: LogConfig, *, now_ms: int, log_start_offset: int
) -> list[Decision]:
    """One decision for each segment, oldest first. An active segment that is to be deleted has to
    be rolled first; an empty one always stays."""
    reasons: dict[int, str] = {}
    if config.deletes:
        _expire(segments, reasons, lambda segment: _too_old(segment, config, now_ms))
        _expire(segments, reasons, _too_much(segments, reasons, config))
    _expire(segments, reasons, lambda segment: _below_start(segment, log_start_offset))
    return [
        Decision(segment, True, reasons[segment.base_offset])
        if segment.base_offset in reasons
        else Decision(segment, False, _why_kept(segment, config, now_ms))
        for segment in segments
    ]


def _expire(
    segments: Sequence[SegmentInfo],
    reasons: dict[int, str],
    rule: Callable[[SegmentInfo], str | None],
) -> None:
    """Add the oldest segments to which ``rule`` gives a reason, one behind the other.

    A segment that compaction left empty has no age of its own, and must not keep what stands behind
    it for ever: it goes with the next segment that goes. (Kafka looks at the file's age then.)
    """
    empty: list[SegmentInfo] = []
    for segment in segments:
        if segment.base_offset in reasons:
            continue
        if segment.active and not segment.size:
            return
        reason = rule(segment)
        if reason is None:
            if segment.size:
                return
            empty.append(segment)
            continue
        for one in empty:
            reasons[one.base_offset] = "it is empty, and a segment behind it goes"
        empty.clear()
        reasons[segment.base_offset] = reason


def _age(segment: SegmentInfo, now_ms: int) -> tuple[str, int]:
    """What a segment's age goes by, and its age in milliseconds (negative in the future)."""
    if segment.max_timestamp >= 0:
        return "its newest record", now_ms - segment.max_timestamp
    return "its file, whose records have no timestamps,", now_ms - segment.modified_ms


def _too_old(segment: SegmentInfo, config: LogConfig, now_ms: int) -> str | None:
    # An empty segment's file says when it was compacted, which is no age.
    if config.retention_ms < 0 or not segment.size:
        return None
    what, age = _age(segment, now_ms)
    if age <= config.retention_ms:
        return None
    return f"{what} is {age} ms old, more than retention_ms={config.retention_ms}"


def _too_much(
    segments: Sequence[SegmentInfo], reasons: dict[int, str], config: LogConfig
) -> Callable[[SegmentInfo], str | None]:
    size = sum(segment.size for segment in segments if segment.base_offset not in reasons)

    def rule(segment: SegmentInfo) -> str | None:
        nonlocal size
        if config.retention_bytes < 0 or size - segment.size < config.retention_bytes:
            return None
        reason = (
            f"without it {size - segment.size} bytes remain, at least "
            f"retention_bytes={config.retention_bytes}"
        )
        size -= segment.size
        return reason

    return rule


def _below_start(segment: SegmentInfo, log_start_offset: int) -> str | None:
    if segment.active or segment.next_offset > log_start_offset:
        return None
    return f"all of it lies below the log start offset {log_start_offset}"


def _why_kept(segment: SegmentInfo, config: LogConfig, now_ms: int) -> str:
    if segment.active and not segment.size:
        return "it is the active segment, and empty"
    if not config.deletes:
        return f"cleanup_policy={config.cleanup_policy} deletes nothing by time or size"
    if not segment.size:
        return "it is empty, and no segment behind it goes"
    reasons = []
    if config.retention_ms < 0:
        reasons.append("retention_ms=-1 keeps records for ever")
    else:
        what, age = _age(segment, now_ms)
        if age < 0:
            reasons.append(f"{what} lies {-age} ms in the future")
        elif age <= config.retention_ms:
            bound = f"not more than retention_ms={config.retention_ms}"
            reasons.append(f"{what} is {age} ms old, {bound}")
        else:
            reasons.append("an older segment stays")
    if config.retention_bytes >= 0:
        reasons.append(
            f"without it less than retention_bytes={config.retention_bytes} would remain"
        )
    return "; ".join(reasons)
