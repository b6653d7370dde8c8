"""Replicas are spread over racks and brokers, and move no more than they have to."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from logstore import InvalidInputError
from logstore.replication.placement import assign, rebalance


@st.composite
def clusters(draw: st.DrawFn) -> tuple[list[str], int, list[int], dict[int, str]]:
    """Partitions, a replication factor, brokers, and their racks."""
    brokers = list(range(draw(st.integers(1, 9))))
    racks = {broker: draw(st.sampled_from("abcd")) for broker in brokers}
    factor = draw(st.integers(1, min(5, len(brokers))))
    partitions = [f"orders-{number}" for number in range(draw(st.integers(1, 30)))]
    return partitions, factor, brokers, racks


def spread(counts: list[int]) -> int:
    return max(counts) - min(counts)


@given(clusters())
def test_each_partition_has_its_replicas_in_as_many_racks_as_there_are(
    cluster: tuple[list[str], int, list[int], dict[int, str]],
) -> None:
    partitions, factor, brokers, racks = cluster
    placed = assign(partitions, factor, brokers, racks)
    assert list(placed) == partitions
    there = len(set(racks.values()))
    for replicas in placed.values():
        assert len(replicas) == len(set(replicas)) == factor
        assert len({racks[broker] for broker in replicas}) == min(there, factor)


@given(clusters())
def test_leaders_are_spread_evenly(
    cluster: tuple[list[str], int, list[int], dict[int, str]],
) -> None:
    partitions, factor, brokers, racks = cluster
    leaders = Counter(
        replicas[0] for replicas in assign(partitions, factor, brokers, racks).values()
    )
    assert spread([leaders[broker] for broker in brokers]) <= 1


@given(st.integers(1, 4), st.integers(1, 3), st.integers(1, 40), st.integers(1, 5))
def test_racks_of_one_size_give_every_broker_as_much(
    racks: int, in_each: int, partitions: int, factor: int
) -> None:
    brokers = list(range(racks * in_each))
    factor = min(factor, len(brokers))
    names = [f"orders-{number}" for number in range(partitions)]
    placed = assign(names, factor, brokers, {broker: str(broker % racks) for broker in brokers})
    kept = Counter(broker for replicas in placed.values() for broker in replicas)
    assert spread([kept[broker] for broker in brokers]) <= 2


@given(clusters(), st.sampled_from("abcd"))
def test_a_new_broker_takes_its_share_and_nothing_else_moves(
    cluster: tuple[list[str], int, list[int], dict[int, str]], rack: str
) -> None:
    partitions, factor, brokers, racks = cluster
    current = assign(partitions, factor, brokers, racks)
    new = len(brokers)
    racks = {**racks, new: rack}
    changes = rebalance(current, [*brokers, new], racks)
    after = {**current, **changes}
    for partition, replicas in changes.items():
        assert replicas != current[partition]
    for partition, replicas in after.items():
        assert len(replicas) == len(set(replicas)) == factor
        before = {racks[broker] for broker in current[partition]}
        assert len({racks[broker] for broker in replicas}) >= len(before)
    # What is balanced already is left alone: a second time there is nothing to do.
    assert rebalance(after, [*brokers, new], racks) == {}


def test_a_fourth_broker_takes_a_quarter() -> None:
    racks = dict.fromkeys(range(4), "")
    current = assign([f"orders-{number}" for number in range(12)], 3, [0, 1, 2], racks)
    changes = rebalance(current, [0, 1, 2, 3], racks)
    after = {**current, **changes}
    kept = Counter(broker for replicas in after.values() for broker in replicas)
    led = Counter(replicas[0] for replicas in after.values())
    assert kept == {0: 9, 1: 9, 2: 9, 3: 9}
    assert led == {0: 3, 1: 3, 2: 3, 3: 3}
    moved = sum(len(set(after[name]) - set(current[name])) for name in current)
    assert moved == 9


def test_a_broker_that_goes_is_replaced() -> None:
    racks = {0: "a", 1: "b", 2: "c", 3: "c"}
    after = rebalance({"orders-0": (2, 0, 1)}, [0, 1, 3], racks)
    assert after == {"orders-0": (3, 0, 1)}


def test_more_replicas_than_brokers_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="replication_factor=3 needs as many brokers"):
        assign(["orders-0"], 3, [0, 1], {0: "", 1: ""})
    with pytest.raises(InvalidInputError, match="3 replicas, and there are 2 brokers"):
        rebalance({"orders-0": (0, 1, 2)}, [0, 1], {0: "", 1: "", 2: ""})
