"""What runs are measured by, and how they are summed up."""

from __future__ import annotations

from collections import Counter

import pytest

from logstore.replication.history import Acknowledged, Crashed, Elected, History, IsrChanged
from logstore.replication.measures import Measures, percentile
from logstore.replication.outcome import Outcome, merge


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [
        ([], 0.5, 0),
        ([7], 0.5, 7),
        ([1, 2, 3, 4], 0.5, 2),
        ([1, 2, 3, 4, 5], 0.5, 3),
        (range(1, 101), 0.99, 99),
        (range(1, 1001), 0.99, 990),
        ([1] * 99 + [1000], 0.99, 1),
        ([1] * 98 + [1000] * 2, 0.99, 1000),
    ],
)
def test_a_percentile_is_the_nearest_rank(values: list[int], share: float, expected: int) -> None:
    assert percentile(Counter(values), share) == expected


def test_a_partition_is_unavailable_without_a_leader_or_with_too_few_in_sync() -> None:
    history = History()
    measures = Measures(history, acks="all", min_insync_replicas=2)
    history.emit(Elected(0, "orders-0", 0, 0, (0, 1, 2), (), True))
    history.emit(IsrChanged(100, "orders-0", 0, 0, 1, (0,), (1,)))
    history.emit(IsrChanged(150, "orders-0", 0, 0, 2, (0, 1), ()))
    history.emit(Crashed(200, 2, "kill"))  # it does not lead
    history.emit(Crashed(300, 0, "kill"))
    history.emit(Elected(340, "orders-0", -1, 1, (0, 1), (), True))
    history.emit(Elected(370, "orders-0", 1, 2, (0, 1), (), True))
    assert measures.unavailable_us(400) == 50 + 70
    history.emit(Elected(400, "orders-0", -1, 3, (1,), (), True))
    assert measures.unavailable_us(410) == 130


def test_with_acks_1_a_leader_is_enough() -> None:
    history = History()
    measures = Measures(history, acks=1, min_insync_replicas=2)
    history.emit(Elected(0, "orders-0", 0, 0, (0,), (), True))
    assert measures.unavailable_us(1000) == 0


def test_latency_counts_from_the_first_sending() -> None:
    history = History()
    measures = Measures(history, acks="all", min_insync_replicas=1)
    history.emit(Acknowledged(5000, "p1", "orders-0", 0, ("a", "b"), 0, 0, 1200))
    assert (measures.acknowledged, dict(measures.latencies_us)) == (2, {3800: 1})


def outcome(seed: int, *, acknowledged: int = 0, lost: int = 0) -> Outcome:
    latencies = Counter({1000 * seed: 2})
    made = Outcome(3, "all", 2, False, (seed,), acknowledged, lost)
    made.latencies_us.update(latencies)
    return made


def test_outcomes_are_summed_and_their_latencies_put_together() -> None:
    total = merge([outcome(1, acknowledged=5, lost=1), outcome(2, acknowledged=7)])
    assert (total.seeds, total.acknowledged, total.lost) == ((1, 2), 12, 1)
    shown = total.as_json()
    assert shown["seeds"] == 2
    assert (shown["commit_latency_p50_ms"], shown["commit_latency_p99_ms"]) == (1.0, 2.0)
    assert shown["violations"] == 0


def test_outcomes_of_different_settings_are_not_summed() -> None:
    with pytest.raises(ValueError, match="outcomes of"):
        merge([outcome(1), Outcome(1, "all", 1, False)])
    with pytest.raises(ValueError, match="no outcome"):
        merge([])
