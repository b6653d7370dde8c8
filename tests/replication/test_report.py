"""The report's pictures: axes, labels, and which runs are drawn."""

from __future__ import annotations

from collections import Counter
from typing import Any
from xml.etree import ElementTree

import pytest

from logstore.replication.checkers.findings import Loss, Violation
from logstore.replication.history import (
    Acknowledged,
    Appended,
    Crashed,
    Elected,
    FaultBegan,
    FaultEnded,
    HighWatermark,
    History,
    IsrChanged,
    Started,
)
from logstore.replication.outcome import Outcome
from logstore.replication.report.plots import loss_plot
from logstore.replication.report.recording import Recording, told_partition, worth_drawing
from logstore.replication.report.run_plot import run_plot
from logstore.replication.report.svg import Picture, linear, logarithmic, short, ticks_of


def outcome(factor: int = 3, **options: Any) -> Outcome:
    given = {"acknowledged": 1000, "duration_ms": 1000, "latencies_us": Counter({5: 1})}
    return Outcome(factor, "all", 1, False, (1, 2), **{**given, **options})


def loss(partition: str = "orders-0", count: int = 1, lost_us: int = 0) -> Loss:
    ids = tuple(f"p0-{number:08d}" for number in range(count))
    return Loss(partition, 0, ids, 0, lost_us, ("acks=1 & more",), ())


@pytest.mark.parametrize(
    ("highest", "ticks"),
    [
        (0, [0, 1]),
        (1, [0, 0.5, 1.0]),
        (7, [0, 2, 4, 6, 8]),
        (100, [0, 50, 100]),
        (1234, [0, 500, 1000, 1500]),
    ],
)
def test_axes_have_round_numbers(highest: float, ticks: list[float]) -> None:
    assert ticks_of(highest) == ticks


def test_places_on_axes() -> None:
    axis = linear(100, 10, 210)
    assert [axis.place(value) for value in (0, 50, 100)] == [10, 110, 210]
    scale = logarithmic(1, 1000, 0, 300)
    assert [round(scale.place(value)) for value in (0, 1, 10, 1000)] == [0, 0, 100, 300]
    assert scale.ticks == [1, 10, 100, 1000]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.25, "0.25"), (7, "7"), (1200, "1,200"), (12_500, "12.5 k"), (3.4e6, "3.4 M")],
)
def test_numbers_are_short(value: float, text: str) -> None:
    assert short(value) == text


def test_what_is_written_is_escaped() -> None:
    picture = Picture(10, 10, 'a "label" & more')
    picture.add("circle", title="<b>", css="dot", stroke_width=2.04)
    root = ElementTree.fromstring(picture.render())
    assert root.attrib["aria-label"] == 'a "label" & more'
    assert root[0].attrib == {"class": "dot", "stroke-width": "2"}
    assert root[0][0].text == "<b>"


def test_what_lost_nothing_stands_on_a_line_of_its_own() -> None:
    root = ElementTree.fromstring(loss_plot([outcome(1, lost=100), outcome(3), outcome(5)]))
    heights = [float(dot.attrib["cy"]) for dot in root.iter("circle")]
    assert heights[1] == heights[2] > heights[0]


def test_the_worst_and_the_best_are_drawn_with_the_seed_that_tells_most() -> None:
    losses = [(1, loss()), (2, loss(count=5))]
    outcomes = [outcome(1, lost=6, losses=losses), outcome(2, lost=1), outcome(3)]
    assert worth_drawing(outcomes) == [(0, 2), (2, 2)]
    assert worth_drawing([outcome()]) == [(0, 1)]
    broken = outcome(
        3, violation_count=1, violations=[(2, Violation("lost", 5, "orders-1", "gone", ()))]
    )
    assert worth_drawing([outcomes[0], broken]) == [(1, 2), (0, 2)]
    assert told_partition(broken, Recording(History())) == "orders-1"


def recorded() -> Recording:
    history = History()
    recording = Recording(history)
    for event in (
        Elected(0, "orders-0", 0, 0, (0, 1), (), True),
        FaultBegan(1_000_000, "broker 0 killed"),
        Crashed(1_000_000, 0, "kill"),
        Elected(2_000_000, "orders-0", 1, 1, (1,), (0,), True),
        Appended(2_500_000, 1, "orders-0", 1, 0, 10, True, b""),
        Appended(2_600_000, 0, "orders-0", 1, 0, 10, False, b""),
        HighWatermark(3_000_000, 1, "orders-0", 1, 10, True),
        Acknowledged(3_000_001, "p0", "orders-0", 0, ("p0-0",), 9, 1, 2_000_000),
        Started(4_000_000, 0, 2),
        FaultEnded(4_000_000, "broker 0 killed"),
        IsrChanged(5_000_000, "orders-0", 1, 1, 3, (1, 0), ()),
        FaultBegan(6_000_000, "a bit of broker 1 turned over"),
        Crashed(8_000_000, 1, "lose"),
        Elected(9_000_000, "orders-0", -1, 2, (1,), (), True),
    ):
        history.emit(event)
    recording.finish(10_000_000)
    return recording


def test_a_recording_keeps_what_a_picture_shows() -> None:
    recording = recorded()
    assert recording.brokers == [0, 1]
    assert recording.down[0] == [(1_000_000, 4_000_000, "kill")]
    assert recording.down[1] == [(8_000_000, 10_000_000, "lose")]
    assert recording.faults == [
        (1_000_000, 4_000_000, "broker 0 killed"),
        (6_000_000, 6_000_000, "a bit of broker 1 turned over"),
    ]
    partition = recording.partitions["orders-0"]
    assert [standing.leader for standing in partition.standings] == [0, 1, 1, -1]
    assert partition.log_ends == [(2_500_000, 10)]
    assert partition.high_watermarks == [(3_000_000, 10)]
    assert partition.acknowledged == [(3_000_001, 10)]


def test_a_run_is_drawn_with_its_leaders_and_what_it_lost() -> None:
    picture = run_plot(
        recorded(), "orders-0", 10_000_000, losses=[loss(lost_us=9_000_000), loss("orders-1")]
    )
    root = ElementTree.fromstring(picture)
    titles = [title.text or "" for title in root.iter("title")]
    for expected in (
        "broker 0 leads in epoch 0: 0.000 s to 2.000 s",
        "broker 0 is out of sync, but eligible: 2.000 s to 5.000 s",
        "broker 0 is in sync: 5.000 s to 9.000 s",
        "broker 0 is down (kill): 1.000 s to 4.000 s",
        "broker 0 killed: 1.000 s to 4.000 s",
        "nobody leads: 9.000 s to 10.000 s",
        "1 acknowledged record is lost (p0-00000000 and on): acks=1 & more",
    ):
        assert expected in titles
    assert sum("acknowledged record is lost" in title for title in titles) == 1
