"""Whether a log is due for compaction."""

from __future__ import annotations

from logstore import LogConfig
from logstore.compaction import CompactionPlan, plan_compaction
from logstore.retention import SegmentInfo

NOW_MS = 1_700_000_000_000


def plan(newest: int, **overrides: object) -> CompactionPlan:
    """Of a closed segment whose newest record is from ``newest``, and an empty active one."""
    segments = [
        SegmentInfo(0, 10, 1000, newest, active=False),
        SegmentInfo(10, 10, 0, -1, active=True),
    ]
    return plan_compaction(
        segments,
        LogConfig.from_overrides({"cleanup_policy": "compact", **overrides}),
        now_ms=NOW_MS,
        first_dirty_offset=0,
        last_stable_offset=10,
        oldest_dirty_timestamp=newest,
    )


def test_without_a_lag_records_from_the_future_are_compacted_too() -> None:
    """As in Kafka: else one client whose clock is wrong would stop compaction for ever."""
    assert plan(NOW_MS + 600).due


def test_with_a_lag_records_from_the_future_count_as_young() -> None:
    assert not plan(NOW_MS + 600, min_compaction_lag_ms=1).due
    assert plan(NOW_MS - 2, min_compaction_lag_ms=1).due


def test_the_dirty_part_has_to_exceed_the_ratio_as_in_kafka() -> None:
    """Kafka 4.3.1 compares with "greater" (``LogCleanerManager``): at the ratio it waits."""
    segments = [
        SegmentInfo(0, 10, 1000, NOW_MS, active=False),
        SegmentInfo(10, 20, 1000, NOW_MS, active=False),
        SegmentInfo(20, 20, 0, -1, active=True),
    ]

    def half_dirty(ratio: float) -> CompactionPlan:
        return plan_compaction(
            segments,
            LogConfig(cleanup_policy="compact", min_cleanable_dirty_ratio=ratio),
            now_ms=NOW_MS,
            first_dirty_offset=10,
            last_stable_offset=20,
            oldest_dirty_timestamp=NOW_MS,
        )

    assert not half_dirty(0.5).due
    assert half_dirty(0.49).due
