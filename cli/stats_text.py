"""``logstore stats`` for people: tables, bars and sparklines."""

from __future__ import annotations

from collections.abc import Sequence

from logstore.cli.output import Lines, count_of, printable, time_text
from logstore.cli.plots import Plots, size_text
from logstore.cli.tables import print_table
from logstore.inspect.measures import Histogram, Tally
from logstore.inspect.report import Report
from logstore.inspect.statistics import Statistics
from logstore.inspect.store_statistics import Removal

__all__ = ["print_report"]

_LONGEST_KEY = 48
_LEAST_BAR = 10
_RATES = (("s", 1_000), ("min", 60_000), ("h", 3_600_000), ("d", 86_400_000))
_INTERVALS = (
    ("ms", 1_000),
    ("s", 60),
    ("m", 60),
    ("h", 24),
    ("d", 0),
)


def print_report(lines: Lines, report: Report, *, top: int, segments: bool) -> None:
    """Print all of it; ``top``: how many keys and prefixes."""
    statistics = report.statistics
    plots = Plots(lines)
    _print_sizes(lines, report)
    if segments:
        _print_segments(lines, report)
    _print_codecs(lines, statistics)
    _print_histogram(lines, plots, "Batches by size", statistics.batch_sizes)
    if not statistics.quick:
        _print_histogram(lines, plots, "Records by size", statistics.record_sizes)
    _print_times(lines, plots, statistics)
    if not statistics.quick and top:
        if statistics.prefixes.top(top) != statistics.keys.top(top):  # some have more than a part
            _print_often(lines, plots, "Prefixes of keys", statistics.prefixes, top)
        _print_often(lines, plots, "Keys", statistics.keys, top)
    _print_lags(lines, report)
    _print_share_lags(lines, report)
    _print_queues(lines, report)
    _print_removals(lines, report)


def _offset(offset: int) -> str:
    """An offset; a dash where there is no batch that could have one."""
    return "-" if offset < 0 else str(offset)


def _heading(lines: Lines, text: str) -> None:
    lines.line("")
    lines.line(text, "bold")


def _print_sizes(lines: Lines, report: Report) -> None:
    if not report.statistics.partitions:
        lines.line("there is nothing to look into")
        return
    columns = (
        *("PARTITION", "SEGMENTS", "LOG", "OTHER", "BATCHES", "RECORDS"),
        *("FIRST OFFSET", "NEXT OFFSET", "NEWEST"),
    )
    rows = []
    for topic in report.topics:
        for one in topic.partitions:
            sizes = size_text(one.log_bytes), size_text(one.index_bytes)
            counts = f"{one.batches:,}", f"{one.records:,}"
            offsets = _offset(one.first_offset), _offset(one.next_offset)
            cells = one.partition.name, f"{len(one.segments):,}", *sizes, *counts, *offsets
            rows.append((*cells, time_text(one.max_timestamp)))
        if len(topic.partitions) > 1:
            sizes = size_text(topic.log_bytes), size_text(topic.index_bytes)
            counts = f"{topic.batches:,}", f"{topic.records:,}"
            rows.append(
                (f"{topic.topic} (all)", f"{topic.segments:,}", *sizes, *counts, "", "", "")
            )
    print_table(lines, columns, rows)
    every = report.topics
    lines.line(
        f"in all: {count_of(sum(one.records for one in every), 'record')} in "
        f"{count_of(sum(one.batches for one in every), 'batch', 'batches')}, "
        f"{size_text(sum(one.log_bytes for one in every))} of logs and "
        f"{size_text(sum(one.index_bytes for one in every))} of other files"
    )


def _print_segments(lines: Lines, report: Report) -> None:
    _heading(lines, "Segments")
    rows = [
        (
            segment.path,
            size_text(segment.size),
            f"{segment.batches:,}",
            f"{segment.records:,}",
            _offset(segment.next_offset),
            time_text(segment.max_timestamp),
        )
        for one in report.statistics.partitions
        for segment in one.segments
    ]
    print_table(lines, ("FILE", "LOG", "BATCHES", "RECORDS", "NEXT OFFSET", "NEWEST"), rows)


def _print_codecs(lines: Lines, statistics: Statistics) -> None:
    if not statistics.codecs:
        return
    _heading(lines, "Compression")
    rows = []
    for name, codec in sorted(statistics.codecs.items()):
        known = codec.decompressed and codec.stored
        rows.append(
            (
                name,
                f"{codec.batches:,}",
                f"{codec.records:,}",
                size_text(codec.stored),
                size_text(codec.decompressed) if known else "-",
                f"{codec.decompressed / codec.stored:.2f}" if known else "-",
            )
        )
    print_table(lines, ("CODEC", "BATCHES", "RECORDS", "STORED", "DECOMPRESSED", "RATIO"), rows)


def _print_histogram(lines: Lines, plots: Plots, title: str, histogram: Histogram) -> None:
    buckets = histogram.buckets()
    if not buckets:
        return
    mean = histogram.total / histogram.count
    _heading(lines, f"{title} (mean {size_text(mean)}, largest {size_text(histogram.largest)})")
    most = max(bucket.sizes for bucket in buckets)
    labels = [f"below {size_text(bucket.last + 1)}" for bucket in buckets]
    _print_bars(lines, plots, labels, [bucket.sizes for bucket in buckets], most)


def _print_bars(
    lines: Lines, plots: Plots, labels: Sequence[str], counts: Sequence[int], most: int
) -> None:
    widest = max(map(len, labels))
    numbers = [f"{count:,}" for count in counts]
    number_width = max(map(len, numbers))
    room = max(_LEAST_BAR, plots.width - widest - number_width - 4)
    for label, count, number in zip(labels, counts, numbers, strict=True):
        bar = plots.bar(count / most if most else 0, room)
        lines.line(f"{label.ljust(widest)}  {number.rjust(number_width)}  {bar}".rstrip())


def _print_times(lines: Lines, plots: Plots, statistics: Statistics) -> None:
    intervals = statistics.times.intervals()
    if not intervals:
        return
    step = -(-len(intervals) // max(_LEAST_BAR, plots.width - 2))
    sums = [
        sum(count for _, count in intervals[n : n + step]) for n in range(0, len(intervals), step)
    ]
    length = step * statistics.times.interval_ms
    peak = max(sums)
    _heading(
        lines,
        f"Records over time (each column {_duration(length)}, at most {peak:,}: "
        f"{_rate(peak, length)})",
    )
    lines.line(plots.sparkline(sums))
    first, last = intervals[0][0], intervals[-1][0] + statistics.times.interval_ms
    lines.line(f"{time_text(first)} to {time_text(last)}")
    if statistics.times.without:
        lines.line(f"{count_of(statistics.times.without, 'record')} without a timestamp")


def _rate(count: int, milliseconds: int) -> str:
    """So many records in so long a time: by the shortest unit in which that is a record or more."""
    rates = [(count * length / milliseconds, unit) for unit, length in _RATES]
    rate, unit = next((one for one in rates if one[0] >= 1), rates[-1])
    return f"{rate:,.1f}/{unit}"


def _duration(milliseconds: int) -> str:
    number = milliseconds
    for unit, factor in _INTERVALS:
        if not factor or number % factor:
            return f"{number} {unit}"
        number //= factor
    raise AssertionError("the last unit has no factor")


def _print_often(lines: Lines, plots: Plots, title: str, tally: Tally, top: int) -> None:
    found = tally.top(top)
    if not found:
        return
    how = (
        f"{count_of(len(tally), 'different one')}"
        if tally.is_exact
        else (f"a sketch: too many to count each; counts are at most {tally.floor:,} too large")
    )
    _heading(lines, f"{title} ({how})")
    labels = [f"{_shortened(one.key)}  {size_text(one.size)}" for one in found]
    _print_bars(lines, plots, labels, [one.times for one in found], found[0].times)


def _shortened(key: bytes | None) -> str:
    text = printable(key)
    return text if len(text) <= _LONGEST_KEY else text[: _LONGEST_KEY - 3] + "..."


def _print_lags(lines: Lines, report: Report) -> None:
    if not report.lags:
        return
    _heading(lines, "Groups")
    rows = []
    for lag in report.lags:
        offset = lag.offset
        committed = "-" if offset.committed is None else str(offset.committed.offset)
        behind = "-" if offset.lag is None else f"{offset.lag:,}"
        place = offset.topic, str(offset.partition)
        rows.append((lag.group, *place, committed, str(offset.log_end_offset), behind))
    columns = ("GROUP", "TOPIC", "PARTITION", "COMMITTED", "LOG END", "LAG")
    print_table(lines, columns, rows)


def _print_share_lags(lines: Lines, report: Report) -> None:
    if not report.share_lags:
        return
    _heading(lines, "Share groups")
    rows = [
        (
            lag.share_group,
            *(lag.partition.topic, str(lag.partition.partition)),
            *(str(lag.partition.start_offset), str(lag.partition.log_end_offset)),
            *(f"{lag.partition.acquired:,}", f"{lag.partition.returned:,}"),
            f"{lag.partition.lag:,}",
        )
        for lag in report.share_lags
    ]
    columns = (
        *("SHARE GROUP", "TOPIC", "PARTITION", "START", "LOG END"),
        *("ACQUIRED", "RETURNED", "LAG"),
    )
    print_table(lines, columns, rows)


def _print_queues(lines: Lines, report: Report) -> None:
    if not report.queues:
        return
    _heading(lines, "Queues")
    rows = [
        (
            queue.name,
            f"{queue.counts.ready:,}",
            f"{queue.counts.unacked:,}",
            f"{queue.counts.delayed:,}",
            f"{queue.counts.dead:,}",
            f"{queue.counts.consumers:,}",
            size_text(queue.size),
        )
        for queue in report.queues
    ]
    columns = ("QUEUE", "READY", "UNACKED", "DELAYED", "DEAD", "CONSUMERS", "FILES")
    print_table(lines, columns, rows)


def _print_removals(lines: Lines, report: Report) -> None:
    if not report.removals:
        return
    _heading(lines, "What would be removed now")
    rows = []
    for removal in report.removals:
        retention = "nothing"
        if removal.segments:
            segments = count_of(removal.segments, "segment")
            retention = f"{segments}, {size_text(removal.bytes)}"
        compaction = _compaction_text(removal)
        rows.append((removal.partition.name, retention, compaction))
    print_table(lines, ("PARTITION", "BY RETENTION", "BY COMPACTION"), rows)


def _compaction_text(removal: Removal) -> str:
    plan, preview = removal.plan, removal.preview
    if plan is None:
        return "-"
    due = f"{'due' if plan.due else 'not due'}: {plan.reason}"
    if preview is None:
        return due
    least = "" if preview.is_whole else "at least "
    records = f"{least}{count_of(preview.records, 'record')}"
    return f"{records}, {size_text(preview.bytes)}; {due}"
