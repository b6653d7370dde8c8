"""Who leads and who is in sync, case by case: the controller's decisions."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from logstore.replication.leadership import (
    NO_LEADER,
    PartitionState,
    Rules,
    changed,
    finish_move,
    move,
)

KAFKA_4 = Rules(2, unclean_election=False, eligible_leader_replicas=True)
KAFKA_3 = Rules(2, unclean_election=False, eligible_leader_replicas=False)
START = PartitionState("orders-0", (0, 1, 2), (0, 1, 2), leader=0, leader_epoch=5)


def only(*brokers: int) -> Callable[[int], bool]:
    return lambda broker: broker in brokers


def leaves(
    state: PartitionState, broker: int, rules: Rules, *usable: int, unsafe: tuple[int, ...] = ()
) -> PartitionState:
    """The state after a broker has gone."""
    isr = [other for other in state.isr if other != broker]
    change = changed(state, rules, only(*usable), isr=isr, unsafe=unsafe)
    assert change is not None
    return change.state


def test_the_first_replica_in_sync_leads_after_the_leader() -> None:
    state = leaves(START, 0, KAFKA_4, 1, 2)
    assert (state.leader, state.leader_epoch, state.isr, state.elr) == (1, 6, (1, 2), ())


def test_a_follower_that_goes_changes_the_set_and_not_the_epoch() -> None:
    state = leaves(START, 2, KAFKA_4, 0, 1)
    assert (state.leader, state.leader_epoch, state.isr) == (0, 5, (0, 1))
    assert state.partition_epoch == START.partition_epoch + 1


def test_nothing_changes_where_nothing_has_to() -> None:
    assert changed(START, KAFKA_4, only(0, 1, 2)) is None


def test_who_leaves_a_set_that_is_too_small_is_eligible() -> None:
    two = leaves(START, 2, KAFKA_4, 0, 1)
    one = leaves(two, 1, KAFKA_4, 0)
    assert (one.isr, one.elr) == ((0,), (1,))  # not broker 2: records were committed without it
    none = leaves(one, 0, KAFKA_4)
    assert (none.leader, none.isr, none.elr) == (NO_LEADER, (), (0, 1))
    back = changed(none, KAFKA_4, only(1, 2))
    assert back is not None
    assert (back.state.leader, back.state.isr, back.state.elr) == (1, (1,), (0,))
    assert back.clean


def test_who_is_not_eligible_does_not_lead() -> None:
    none = leaves(leaves(leaves(START, 2, KAFKA_4, 0, 1), 1, KAFKA_4, 0), 0, KAFKA_4)
    assert changed(none, KAFKA_4, only(2)) is None


def test_a_set_that_is_large_enough_again_needs_nobody_else() -> None:
    one = leaves(leaves(START, 2, KAFKA_4, 0, 1), 1, KAFKA_4, 0)
    grown = changed(one, KAFKA_4, only(0, 2), isr=(0, 2))
    assert grown is not None
    assert (grown.state.isr, grown.state.elr) == ((0, 2), ())


def test_a_broker_that_has_lost_its_disk_is_neither_in_sync_nor_eligible() -> None:
    one = leaves(leaves(START, 2, KAFKA_4, 0, 1), 1, KAFKA_4, 0)
    lost = leaves(one, 0, KAFKA_4, unsafe=(0,))
    assert (lost.leader, lost.isr, lost.elr) == (NO_LEADER, (), (1,))


def test_the_last_leader_goes_on_if_all_have_lost_their_disks() -> None:
    alone = PartitionState("orders-0", (3,), (3,), leader=3, leader_epoch=1)
    rules = Rules(1, unclean_election=False, eligible_leader_replicas=True)
    lost = leaves(alone, 3, rules, unsafe=(3,))
    assert (lost.leader, lost.isr, lost.elr, lost.last_leader) == (NO_LEADER, (), (), 3)
    back = changed(lost, rules, only(3))
    assert back is not None
    assert (back.state.leader, back.state.isr, back.clean) == (3, (3,), False)


def test_before_kip_966_the_last_one_in_sync_stays_in_the_set() -> None:
    one = leaves(leaves(START, 2, KAFKA_3, 0, 1), 1, KAFKA_3, 0)
    none = leaves(one, 0, KAFKA_3, 1, 2)
    assert (none.leader, none.isr, none.elr) == (NO_LEADER, (0,), ())
    back = changed(none, KAFKA_3, only(0, 1, 2))
    assert back is not None
    assert (back.state.leader, back.state.isr) == (0, (0,))


def test_an_unclean_election_takes_whoever_is_there() -> None:
    rules = KAFKA_3._replace(unclean_election=True)
    one = leaves(leaves(START, 2, rules, 0, 1), 1, rules, 0)
    change = changed(one, rules, only(2), isr=())
    assert change is not None
    assert (change.state.leader, change.state.isr, change.clean) == (2, (2,), False)


def test_the_preferred_replica_leads_again_only_if_it_is_in_sync() -> None:
    moved = leaves(START, 0, KAFKA_4, 1, 2)
    assert changed(moved, KAFKA_4, only(0, 1, 2), prefer=True) is None
    joined = changed(moved, KAFKA_4, only(0, 1, 2), isr=(0, 1, 2))
    assert joined is not None
    assert joined.state.leader == 1
    back = changed(joined.state, KAFKA_4, only(0, 1, 2), prefer=True)
    assert back is not None
    assert (back.state.leader, back.clean) == (0, True)


def test_a_partition_is_moved_once_the_new_replicas_are_in_sync() -> None:
    moving = move(START, (3, 1, 2))
    assert moving is not None
    assert (moving.replicas, moving.adding, moving.removing) == ((3, 1, 2, 0), (3,), (0,))
    everybody = only(0, 1, 2, 3)
    assert finish_move(moving, KAFKA_4, everybody) is None
    caught_up = changed(moving, KAFKA_4, everybody, isr=(0, 1, 2, 3))
    assert caught_up is not None
    done = finish_move(caught_up.state, KAFKA_4, everybody)
    assert done is not None
    state = done.state
    assert (state.replicas, state.isr, state.leader) == ((3, 1, 2), (3, 1, 2), 3)
    assert (state.adding, state.removing) == ((), ())
    assert move(state, (3, 1, 2)) is None


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["goes", "comes", "loses", "grows", "prefer"]), st.integers(0, 2)
        ),
        max_size=40,
    ),
    st.booleans(),
    st.integers(1, 3),
)
def test_whatever_happens_the_state_holds_together(
    events: list[tuple[str, int]], elr: bool, least: int
) -> None:
    rules = Rules(least, unclean_election=False, eligible_leader_replicas=elr)
    state, up = START, {0: True, 1: True, 2: True}
    for what, broker in events:
        isr = None
        unsafe: tuple[int, ...] = ()
        if what in ("goes", "loses"):
            up[broker] = False
            isr = [other for other in state.isr if other != broker]
            unsafe = (broker,) if what == "loses" else ()
        elif what == "comes":
            up[broker] = True
        elif what == "grows" and up[broker] and state.leader != NO_LEADER:
            isr = [*state.isr, broker]
        change = changed(
            state, rules, lambda b: up[b], isr=isr, unsafe=unsafe, prefer=what == "prefer"
        )
        if change is None:
            continue
        after = change.state
        assert after.partition_epoch == state.partition_epoch + 1
        assert after.leader_epoch == state.leader_epoch + (after.leader != state.leader)
        assert set(after.isr) | set(after.elr) <= set(after.replicas)
        assert not set(after.isr) & set(after.elr)
        assert after.leader == NO_LEADER or (after.leader in after.isr and up[after.leader])
        if elr and what != "loses":
            # Enough replicas have everything for as many to fail as the configuration says.
            assert len(after.isr) + len(after.elr) >= min(least, len(state.isr) + len(state.elr))
        state = after


@pytest.mark.parametrize("usable", [(), (1,), (0, 1, 2)])
def test_a_leader_that_stays_keeps_its_epoch(usable: tuple[int, ...]) -> None:
    change = changed(START, KAFKA_4, only(0, *usable), isr=(0, 1))
    assert change is not None
    assert (change.state.leader, change.state.leader_epoch, change.elected) == (0, 5, False)
