"""A run as a picture: a lane for each broker, the faults above, the log's growth beneath."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from logstore.replication.checkers.findings import Loss, Violation
from logstore.replication.report.recording import PartitionRecording, Recording, Span, Standing
from logstore.replication.report.svg import Axis, Picture, linear, short

__all__ = ["run_plot"]

_WIDTH = 1000
_LEFT, _RIGHT = 84, 985
_FAULT = 18
_LETTER = 6.1
"""About how wide a letter of a fault's name is."""
_LANE = 26
_GRAPH = 190


def run_plot(
    recording: Recording,
    partition: str,
    end_us: int,
    *,
    losses: Sequence[Loss] = (),
    violations: Sequence[Violation] = (),
) -> str:
    """The picture of one partition's run, up to ``end_us``."""
    seconds = linear(end_us / 1e6, _LEFT, _RIGHT)
    time = Axis(lambda us: _LEFT + (_RIGHT - _LEFT) * us / end_us, seconds.ticks)
    rows = _rows(recording.faults, time)
    faults_end = 22 + _FAULT * max(1, len(rows))
    lanes_end = faults_end + 12 + _LANE * len(recording.brokers)
    bottom = lanes_end + 24 + _GRAPH
    picture = Picture(_WIDTH, bottom + 30, f"The run of {partition}: leaders, in-sync set, log")
    for tick in seconds.ticks:
        if tick * 1e6 <= end_us:
            x = time.place(tick * 1e6)
            picture.line(x, 16, x, bottom, "grid")
            picture.text(x, bottom + 16, f"{short(tick)} s", "tick", anchor="middle")
    _draw_faults(picture, rows)
    found = recording.of(partition)
    _draw_unwritable(picture, time, found, end_us, (faults_end + 4, bottom))
    for row, broker in enumerate(recording.brokers):
        _draw_lane(picture, time, recording, found, broker, faults_end + 8 + row * _LANE, end_us)
    _draw_log(picture, time, found, (lanes_end + 24, bottom), end_us)
    _draw_findings(picture, time, partition, (faults_end + 4, bottom), losses, violations)
    return picture.render()


# Faults -----------------------------------------------------------------------------------------


class _Fault(NamedTuple):
    start: float
    width: float
    name_at: float
    anchor: str
    span: Span


def _rows(faults: Sequence[Span], time: Axis) -> list[list[_Fault]]:
    """Faults in as few rows as there can be, if names are not to run into each other. A name stands
    in its fault, or beside it where it is longer."""
    rows: list[tuple[float, list[_Fault]]] = []
    for span in faults:
        start = time.place(span.from_us)
        width = max(time.place(span.until_us) - start, 3.0)
        name = len(span.text) * _LETTER + 8
        fault, first, last = _Fault(start, width, start + 5, "start", span), start, start + width
        if name > width and last + name <= _RIGHT:
            fault, last = fault._replace(name_at=start + width + 5), last + name
        elif name > width:
            fault, first = fault._replace(name_at=start - 5, anchor="end"), start - name
        for index, (taken, row) in enumerate(rows):
            if taken <= first:
                row.append(fault)
                rows[index] = (last + 6, row)
                break
        else:
            rows.append((last + 6, [fault]))
    return [row for _, row in rows]


def _draw_faults(picture: Picture, rows: list[list[_Fault]]) -> None:
    picture.text(_LEFT - 12, 30, "faults", "row", anchor="end")
    for number, row in enumerate(rows):
        y = 18 + number * _FAULT
        for fault in row:
            title = _told(fault.span.text, fault.span._replace(text=""))
            picture.box(fault.start, y, fault.width, 14, "fault", title=title)
            inside = fault.start < fault.name_at < fault.start + fault.width
            css = "fault-name" if inside else "value"
            picture.text(fault.name_at, y + 11, fault.span.text, css, anchor=fault.anchor)


# Brokers ----------------------------------------------------------------------------------------


def _draw_lane(
    picture: Picture,
    time: Axis,
    recording: Recording,
    found: PartitionRecording,
    broker: int,
    y: int,
    end_us: int,
) -> None:
    picture.text(_LEFT - 12, y + 15, f"broker {broker}", "row", anchor="end")
    picture.box(_LEFT, y, _RIGHT - _LEFT, 20, "lane")
    for css, span in _states(found, broker, end_us):
        start, end = time.place(span.from_us), time.place(span.until_us)
        picture.box(start, y, end - start, 20, css, title=_told(f"broker {broker}", span))
        if css == "leader" and end - start > 14:
            picture.text(start + 4, y + 14, span.text.rpartition(" ")[2], "epoch")
    for span in recording.down[broker]:
        start, end = time.place(span.from_us), time.place(min(span.until_us, end_us))
        told = _told(f"broker {broker}", span._replace(text=f"is down ({span.text})"))
        picture.box(start, y + 4, end - start, 12, "down", title=told)


def _told(who: str, span: Span) -> str:
    when = f"{span.from_us / 1e6:.3f} s to {span.until_us / 1e6:.3f} s"
    return f"{who} {span.text}: {when}" if span.text else f"{who}: {when}"


def _states(found: PartitionRecording, broker: int, end_us: int) -> Iterator[tuple[str, Span]]:
    """What a broker was to the partition: (class, when and what); equal neighbours are one."""
    last: tuple[str, Span] | None = None
    for standing, until_us in _with_ends(found.standings, end_us):
        css, text = _state(standing, broker)
        if last is not None and (last[0], last[1].text) == (css, text):
            last = (css, last[1]._replace(until_us=until_us))
            continue
        if last is not None and last[0]:
            yield last
        last = (css, Span(standing.at_us, until_us, text))
    if last is not None and last[0]:
        yield last


def _state(standing: Standing, broker: int) -> tuple[str, str]:
    if standing.leader == broker:
        return "leader", f"leads in epoch {standing.leader_epoch}"
    if broker in standing.isr:
        return "in-sync", "is in sync"
    if broker in standing.elr:
        return "eligible", "is out of sync, but eligible"
    return "", ""


def _with_ends(standings: Sequence[Standing], end_us: int) -> Iterable[tuple[Standing, int]]:
    ends = [standing.at_us for standing in standings[1:]] + [end_us]
    return zip(standings, ends, strict=True)


def _draw_unwritable(
    picture: Picture, time: Axis, found: PartitionRecording, end_us: int, band: tuple[int, int]
) -> None:
    top, bottom = band
    for standing, until_us in _with_ends(found.standings, end_us):
        if standing.leader < 0:
            start, end = time.place(standing.at_us), time.place(until_us)
            title = f"nobody leads: {standing.at_us / 1e6:.3f} s to {until_us / 1e6:.3f} s"
            picture.box(start, top, end - start, bottom - top, "leaderless", title=title)


# The log ----------------------------------------------------------------------------------------


def _draw_log(
    picture: Picture, time: Axis, found: PartitionRecording, band: tuple[int, int], end_us: int
) -> None:
    top, bottom = band
    series = (
        ("log-end", "log end offset of the leader", found.log_ends),
        ("acknowledged", "acknowledged", found.acknowledged),
        ("watermark", "high watermark of the leader", found.high_watermarks),
    )
    highest = max((offset for _, _, points in series for _, offset in points), default=1)
    axis = linear(highest, bottom, top)
    for tick in axis.ticks:
        y = axis.place(tick)
        picture.line(_LEFT, y, _RIGHT, y, "axis" if tick == 0 else "grid")
        picture.text(_LEFT - 8, y + 4, short(tick), "tick", anchor="end")
    for index, (css, name, points) in enumerate(series):
        picture.path(_steps(points, time, axis, end_us), f"line {css}")
        y = top + 14 + 18 * index
        picture.line(_LEFT + 12, y, _LEFT + 36, y, f"line {css}")
        picture.text(_LEFT + 42, y + 4, name, "value")


def _steps(
    points: Sequence[tuple[int, int]], time: Axis, axis: Axis, end_us: int
) -> list[tuple[float, float]]:
    """Points as steps: a value holds until the next one; of those that would stand on one place
    the lowest and the last are drawn."""
    drawn: list[tuple[float, float]] = []
    column, lowest, last = -1, 0, 0
    for at_us, offset in points:
        if at_us > end_us:
            break
        here = round(time.place(at_us))
        if here != column:
            if column >= 0:
                drawn.append((column, axis.place(lowest)))
                drawn += [(column, axis.place(last)), (here, axis.place(last))]
            column, lowest = here, offset
        lowest, last = min(lowest, offset), offset
    if column >= 0:
        drawn += [(column, axis.place(lowest)), (column, axis.place(last))]
        drawn.append((time.place(end_us), axis.place(last)))
    return drawn


def _draw_findings(
    picture: Picture,
    time: Axis,
    partition: str,
    band: tuple[int, int],
    losses: Sequence[Loss],
    violations: Sequence[Violation],
) -> None:
    top, bottom = band
    together: dict[int, list[Loss]] = {}
    for loss in losses:
        if loss.partition == partition:
            together.setdefault(loss.lost_us, []).append(loss)
    for lost_us, lost in together.items():
        x = time.place(lost_us)
        count = sum(len(loss.record_ids) for loss in lost)
        text = f"{count:,} acknowledged {'record is' if count == 1 else 'records are'} lost"
        picture.line(x, top, x, bottom, "lost")
        title = f"{text} ({lost[0].record_ids[0]} and on): {'; '.join(lost[0].reasons)}"
        picture.add("circle", title=title, cx=x, cy=bottom - 8, r=6, css="lost-dot")
        anchor, dx = ("end", -10) if x > (_LEFT + _RIGHT) / 2 else ("start", 10)
        picture.text(x + dx, bottom - 4, text, "lost-name", anchor=anchor)
    for violation in violations:
        if violation.partition == partition:
            x = time.place(violation.at_us)
            picture.line(x, top, x, bottom, "lost")
            picture.text(x + 6, top + 12, f"broken: {violation.kind}", "lost-name")
