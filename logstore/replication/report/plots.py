"""Pictures of outcomes: what each setting buys against what it costs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from logstore.replication.outcome import Outcome
from logstore.replication.report.svg import Axis, Picture, linear, logarithmic, short

__all__ = [
    "availability_plot",
    "cost_plot",
    "label_of",
    "latency_plot",
    "loss_plot",
    "lost_per_million",
    "per_record",
    "unavailable_percent",
]

_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 470, 24, 250
_WIDTH, _HEIGHT = 490, 300


def label_of(outcome: Outcome) -> str:
    """``RF 3, acks=all, min ISR 2``: how the settings of runs are named."""
    label = f"RF {outcome.replication_factor}, acks={outcome.acks}"
    if outcome.acks == "all":
        label += f", min ISR {outcome.min_insync_replicas}"
    return label + (", unclean" if outcome.unclean_election else "")


def lost_per_million(outcome: Outcome) -> float:
    """Of a million acknowledged records, how many are gone."""
    return 1e6 * outcome.lost / max(1, outcome.acknowledged)


def unavailable_percent(outcome: Outcome) -> float:
    """Of a hundred minutes, in how many a partition could not be written."""
    return 100 * outcome.unavailable_ms / max(1, outcome.duration_ms)


def per_record(outcome: Outcome, total: int) -> float:
    """A total, for each acknowledged record."""
    return total / max(1, outcome.acknowledged)


def css_of(outcome: Outcome) -> str:
    """The class that gives a mark its colour: by what producers waited for."""
    return f"acks-{outcome.acks}"


class _Mark(NamedTuple):
    x: float
    y: float
    outcome: Outcome
    title: str


def _network_cost(outcome: Outcome) -> float:
    return per_record(outcome, outcome.network_bytes)


def loss_plot(outcomes: Sequence[Outcome]) -> str:
    """Records lost, on a logarithmic axis that has its own line for none, against bytes sent."""
    picture = Picture(_WIDTH, _HEIGHT, "Records lost of a million acknowledged, against cost")
    lossy = [lost_per_million(outcome) for outcome in outcomes if outcome.lost]
    bottom = _BOTTOM - 34  # beneath it: none at all
    axis = logarithmic(min(lossy, default=1), max(lossy, default=1000), bottom, _TOP)
    for tick in axis.ticks:
        _grid(picture, axis.place(tick), short(tick))
    _grid(picture, _BOTTOM, "none", css="axis")
    picture.text(_LEFT, _TOP - 8, "lost of a million acknowledged records", "note")
    _scatter(
        picture,
        outcomes,
        lambda outcome: axis.place(lost_per_million(outcome)) if outcome.lost else _BOTTOM,
        lambda outcome: f"{outcome.lost:,} of {outcome.acknowledged:,} records lost",
    )
    return picture.render()


def availability_plot(outcomes: Sequence[Outcome]) -> str:
    """The share of time in which a partition could not be written, against bytes sent."""
    picture = Picture(_WIDTH, _HEIGHT, "Share of time without writing, against cost")
    axis = linear(max(map(unavailable_percent, outcomes)), _BOTTOM, _TOP)
    for tick in axis.ticks:
        _grid(picture, axis.place(tick), f"{short(tick)} %", css="axis" if tick == 0 else "grid")
    picture.text(_LEFT, _TOP - 8, "of the time a partition could not be written", "note")
    _scatter(
        picture,
        outcomes,
        lambda outcome: axis.place(unavailable_percent(outcome)),
        lambda outcome: f"not writable for {unavailable_percent(outcome):.2f} % of the time",
    )
    return picture.render()


def _grid(picture: Picture, y: float, text: str, css: str = "grid") -> None:
    picture.line(_LEFT, y, _RIGHT, y, css)
    picture.text(_LEFT - 8, y + 4, text, "tick", anchor="end")


def _scatter(
    picture: Picture,
    outcomes: Sequence[Outcome],
    height: Callable[[Outcome], float],
    told: Callable[[Outcome], str],
) -> None:
    across = linear(max(map(_network_cost, outcomes)), _LEFT, _RIGHT - 20)
    for tick in across.ticks:
        x = across.place(tick)
        picture.line(x, _BOTTOM, x, _BOTTOM + 4, "axis")
        picture.text(x, _BOTTOM + 18, short(tick), "tick", anchor="middle")
    picture.text(
        _RIGHT, _BOTTOM + 38, "bytes over the network for each record", "note", anchor="end"
    )
    marks = [
        _Mark(
            across.place(_network_cost(outcome)),
            height(outcome),
            outcome,
            f"{label_of(outcome)}: {told(outcome)}, {_network_cost(outcome):,.0f} bytes a record",
        )
        for outcome in outcomes
    ]
    for acks in dict.fromkeys(outcome.acks for outcome in outcomes):
        steps = sorted(
            (mark for mark in marks if mark.outcome.acks == acks),
            key=lambda mark: mark.outcome.replication_factor,
        )
        picture.path([(mark.x, mark.y) for mark in steps], f"trail {css_of(steps[0].outcome)}")
    taken: list[_Box] = []
    for mark in marks:
        picture.add(
            "circle", title=mark.title, cx=mark.x, cy=mark.y, r=6, css=f"dot {css_of(mark.outcome)}"
        )
    for mark in marks:
        _name(picture, mark, marks, taken)


def _name(picture: Picture, mark: _Mark, marks: Sequence[_Mark], taken: list[_Box]) -> None:
    """Write the factor beside a mark, where no other name or mark is: above, beneath, right, left,
    or else further up."""
    text = f"RF {mark.outcome.replication_factor}"
    half, height = len(text) * 3.6, 12
    dots = [_Box(other.x, other.y, 7, 7) for other in marks if other is not mark]
    for dx, dy in ((0, -15), (0, 15), (half + 10, 0), (-half - 10, 0), (0, -28), (0, 28)):
        box = _Box(mark.x + dx, mark.y + dy, half, height / 2)
        inside = _LEFT < box.x < _RIGHT - half and _TOP < box.y < _BOTTOM
        if inside and not any(box.meets(other) for other in (*dots, *taken)):
            break
    taken.append(box)
    picture.text(box.x, box.y + 4, text, f"name {css_of(mark.outcome)}", anchor="middle")


class _Box(NamedTuple):
    """A place with its extent to either side."""

    x: float
    y: float
    half_width: float
    half_height: float

    def meets(self, other: _Box) -> bool:
        """Whether two have anything in common."""
        return (
            abs(self.x - other.x) < self.half_width + other.half_width
            and abs(self.y - other.y) < self.half_height + other.half_height
        )


# Bars -------------------------------------------------------------------------------------------

_ROW = 26
_NAMES = 190
_WIDE = 1000


def latency_plot(outcomes: Sequence[Outcome]) -> str:
    """From half of all acknowledgements to all but one of a hundred, on a logarithmic axis."""
    bottom = 30 + _ROW * len(outcomes)
    picture = Picture(_WIDE, bottom + 26, "How long producers waited for their acknowledgements")
    shown = [
        (outcome, outcome.commit_latency_p50_ms, outcome.commit_latency_p99_ms)
        for outcome in outcomes
    ]
    least = min((low for _, low, _ in shown if low > 0), default=0.1)
    most = max((high for *_, high in shown), default=1.0)
    axis = logarithmic(least, max(most, least), _NAMES, _WIDE - 150)
    _rule(picture, axis, bottom, " ms")
    for row, (outcome, low, high) in enumerate(shown):
        y = 22 + row * _ROW
        picture.text(_NAMES - 12, y + 13, label_of(outcome), "row", anchor="end")
        start, end = axis.place(low), axis.place(high)
        title = f"{label_of(outcome)}: half within {low:.3g} ms, 99 % within {high:.4g} ms"
        css = css_of(outcome)
        picture.box(start, y + 6, end - start, 6, f"span {css}", title=title)
        for x in (start, end):
            picture.add("circle", title=title, cx=x, cy=y + 9, r=5, css=f"dot {css}")
        picture.text(end + 12, y + 13, f"{_ms(low)} to {_ms(high)}", "value")
    return picture.render()


def _ms(value: float) -> str:
    return f"{value / 1000:.1f} s" if value >= 1000 else f"{value:.3g} ms"


def cost_plot(outcomes: Sequence[Outcome]) -> str:
    """Bytes for each record: over the network, those of them between racks, and on disks."""
    rows = [(label_of(outcome), css_of(outcome), _costs(outcome)) for outcome in outcomes]
    height = 3 * 14 + 14
    bottom = 30 + height * len(rows)
    picture = Picture(_WIDE, bottom + 26, "Bytes for each acknowledged record")
    most = max(value for *_, costs in rows for _, value in costs)
    axis = linear(most, _NAMES, _WIDE - 210)
    _rule(picture, axis, bottom, "")
    for row, (label, css, costs) in enumerate(rows):
        y = 22 + row * height
        picture.text(_NAMES - 12, y + 25, label, "row", anchor="end")
        for index, (what, value) in enumerate(costs):
            place = y + 4 + index * 14
            width = axis.place(value) - _NAMES
            title = f"{label}: {value:,.0f} bytes {what} for each acknowledged record"
            picture.box(_NAMES, place, width, 11, f"bar part-{index} {css}", title=title)
            picture.text(_NAMES + width + 8, place + 10, f"{value:,.0f} {what}", "value")
    return picture.render()


def _costs(outcome: Outcome) -> list[tuple[str, float]]:
    return [
        ("over the network", per_record(outcome, outcome.network_bytes)),
        ("of them between racks", per_record(outcome, outcome.between_racks_bytes)),
        ("on disks", per_record(outcome, outcome.disk_bytes)),
    ]


def _rule(picture: Picture, axis: Axis, bottom: int, unit: str) -> None:
    """Lines from top to bottom at the numbers of an axis, which stand beneath them."""
    for tick in axis.ticks:
        x = axis.place(tick)
        picture.line(x, 16, x, bottom, "grid")
        picture.text(x, bottom + 16, f"{short(tick)}{unit}", "tick", anchor="middle")
