"""``logstore stats --json``: the report as objects. ``docs/cli.md`` documents the fields."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from logstore.cli.output import json_bytes
from logstore.inspect.measures import Histogram, Tally
from logstore.inspect.report import Report
from logstore.inspect.statistics import PartitionStatistics
from logstore.inspect.store_statistics import Removal

__all__ = ["json_objects"]


def json_objects(report: Report, *, top: int, segments: bool) -> Iterator[dict[str, Any]]:
    """The objects, one after the other; ``top``: how many keys and prefixes."""
    statistics = report.statistics
    for topic in report.topics:
        yield {
            "type": "topic-stats",
            "topic": topic.topic,
            "partitions": len(topic.partitions),
            "segments": topic.segments,
            "log_bytes": topic.log_bytes,
            "other_bytes": topic.index_bytes,
            "batches": topic.batches,
            "records": topic.records,
        }
    for one in statistics.partitions:
        yield _partition(one)
        if segments:
            yield from _segments(one)
    for name, codec in statistics.codecs.items():
        yield {
            "type": "codec-stats",
            "codec": name,
            "batches": codec.batches,
            "records": codec.records,
            "bytes": codec.stored,
            "decompressed_bytes": None if statistics.quick else codec.decompressed,
        }
    yield _histogram("batch-sizes", statistics.batch_sizes)
    yield {
        "type": "records-over-time",
        "interval_ms": statistics.times.interval_ms,
        "counts": [list(one) for one in statistics.times.intervals()],
        "without_timestamp": statistics.times.without,
    }
    if not statistics.quick:
        yield _histogram("record-sizes", statistics.record_sizes)
        yield _often("key-prefixes", statistics.prefixes, top)
        yield _often("top-keys", statistics.keys, top)
    for lag in report.lags:
        offset = lag.offset
        yield {
            "type": "group-lag",
            "group": lag.group,
            "topic": offset.topic,
            "partition": offset.partition,
            "offset": None if offset.committed is None else offset.committed.offset,
            "log_end_offset": offset.log_end_offset,
            "lag": offset.lag,
        }
    for share in report.share_lags:
        found = share.partition
        yield {
            "type": "share-group-lag",
            "share_group": share.share_group,
            "topic": found.topic,
            "partition": found.partition,
            "start_offset": found.start_offset,
            "log_end_offset": found.log_end_offset,
            "acquired": found.acquired,
            "returned": found.returned,
            "lag": found.lag,
        }
    for queue in report.queues:
        fields = {"type": "queue-stats", "name": queue.name, **queue.counts._asdict()}
        yield {**fields, "bytes": queue.size}
    for removal in report.removals:
        yield _removal(removal)


def _place(one: PartitionStatistics | Removal) -> dict[str, Any]:
    return {"topic": one.partition.topic, "partition": one.partition.number}


def _partition(one: PartitionStatistics) -> dict[str, Any]:
    return {
        "type": "partition-stats",
        **_place(one),
        "directory": one.partition.directory,
        "segments": len(one.segments),
        "log_bytes": one.log_bytes,
        "other_bytes": one.index_bytes,
        "batches": one.batches,
        "control_batches": one.control_batches,
        "records": one.records,
        "first_offset": one.first_offset,
        "next_offset": one.next_offset,
        "min_timestamp": one.min_timestamp,
        "max_timestamp": one.max_timestamp,
    }


def _segments(one: PartitionStatistics) -> Iterator[dict[str, Any]]:
    for segment in one.segments:
        yield {
            "type": "segment-stats",
            **_place(one),
            "file": segment.path,
            "bytes": segment.size,
            "batches": segment.batches,
            "control_batches": segment.control_batches,
            "records": segment.records,
            "next_offset": segment.next_offset,
            "max_timestamp": segment.max_timestamp,
        }


def _histogram(kind: str, histogram: Histogram) -> dict[str, Any]:
    return {
        "type": kind,
        "count": histogram.count,
        "total": histogram.total,
        "largest": histogram.largest,
        "buckets": [list(bucket) for bucket in histogram.buckets()],
    }


def _often(kind: str, tally: Tally, top: int) -> dict[str, Any]:
    return {
        "type": kind,
        "exact": tally.is_exact,
        "distinct": len(tally) if tally.is_exact else None,
        "top": [
            {"key": json_bytes(key), "records": count, "bytes": size, "error": error}
            for key, count, size, error in tally.top(top)
        ],
    }


def _removal(removal: Removal) -> dict[str, Any]:
    plan, preview = removal.plan, removal.preview
    found = None
    if plan is not None:
        found = {
            "due": plan.due,
            "reason": plan.reason,
            "clean_bytes": plan.clean_bytes,
            "dirty_bytes": plan.dirty_bytes,
            "removed_records": None if preview is None else preview.records,
            "removed_bytes": None if preview is None else preview.bytes,
            "whole": None if preview is None else preview.is_whole,
        }
    return {
        "type": "removable",
        **_place(removal),
        "retention_segments": removal.segments,
        "retention_bytes": removal.bytes,
        "compaction": found,
    }
