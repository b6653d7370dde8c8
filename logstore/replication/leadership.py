"""Who leads a partition and who is in sync: the controller's decisions, purely.

The rules are those of Kafka's ``PartitionChangeBuilder``: KIP-497 (the leader asks the controller
to change the in-sync set), KIP-966 (eligible leader replicas) and KIP-455 (reassignment).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

__all__ = ["NO_LEADER", "Change", "PartitionState", "Rules", "changed", "finish_move", "move"]

NO_LEADER = -1


class PartitionState(NamedTuple):
    """What the controller knows, and tells, of a partition."""

    partition: str
    replicas: tuple[int, ...]
    """The preferred leader first."""
    isr: tuple[int, ...]
    """The in-sync set: who has all that is committed, as far as one knows."""
    elr: tuple[int, ...] = ()
    """The eligible leader replicas: who has all that is committed, but is not in sync any more,
    since fewer than ``min_insync_replicas`` are and so nothing was committed meanwhile."""
    leader: int = NO_LEADER
    leader_epoch: int = 0
    """Counts the leaders, also none."""
    partition_epoch: int = 0
    """Counts the changes to all of this."""
    last_leader: int = NO_LEADER
    """Who led last, where nobody does."""
    adding: tuple[int, ...] = ()
    """Replicas that are to take over while the partition is moved."""
    removing: tuple[int, ...] = ()
    """Replicas that are to go as soon as those are in sync."""


class Rules(NamedTuple):
    """The settings that decide."""

    min_insync_replicas: int
    unclean_election: bool
    eligible_leader_replicas: bool


class Change(NamedTuple):
    """A state that follows another."""

    state: PartitionState
    elected: bool
    """Whether there is another leader than before, or none any more."""
    clean: bool
    """Whether the leader has all that is committed, by the rules."""


def changed(
    state: PartitionState,
    rules: Rules,
    usable: Callable[[int], bool],
    *,
    isr: Sequence[int] | None = None,
    unsafe: Sequence[int] = (),
    prefer: bool = False,
) -> Change | None:
    """The state after the in-sync set has become ``isr`` (None: it stays) and after an election, if
    one is due; None if nothing changes.

    ``usable`` says who can lead now. ``unsafe`` are brokers that have lost what they had: they are
    not eligible. ``prefer``: the first replica is to lead, if it is in sync.
    """
    target = tuple(b for b in state.replicas if b in (state.isr if isr is None else isr))
    elr = _eligible(state, rules, target, unsafe)
    if not rules.eligible_leader_replicas and not target:
        target = state.isr  # before KIP-966 the last one in sync stays in the set for ever
    leader, clean = _elect(state, rules, usable, target, elr, prefer=prefer)
    if leader != NO_LEADER and leader not in target:
        target = (leader,)
        elr = tuple(broker for broker in elr if broker != leader) if clean else ()
    elected = leader != state.leader
    after = state._replace(
        isr=target,
        elr=elr,
        leader=leader,
        leader_epoch=state.leader_epoch + elected,
        last_leader=state.last_leader if leader == state.leader == NO_LEADER else state.leader,
    )
    if leader != NO_LEADER:
        after = after._replace(last_leader=NO_LEADER)
    if after == state:
        return None
    return Change(after._replace(partition_epoch=state.partition_epoch + 1), elected, clean)


def _eligible(
    state: PartitionState, rules: Rules, isr: Sequence[int], unsafe: Sequence[int]
) -> tuple[int, ...]:
    """Who left the in-sync set when it had become too small for anything to be committed."""
    enough = min(rules.min_insync_replicas, len(state.replicas))
    if not rules.eligible_leader_replicas or len(isr) >= enough:
        return ()
    return tuple(
        broker
        for broker in state.replicas
        if broker in (*state.isr, *state.elr) and broker not in isr and broker not in unsafe
    )


def _elect(
    state: PartitionState,
    rules: Rules,
    usable: Callable[[int], bool],
    isr: Sequence[int],
    elr: Sequence[int],
    *,
    prefer: bool,
) -> tuple[int, bool]:
    """Who leads, and whether the election was clean."""
    in_sync = [broker for broker in state.replicas if broker in isr and usable(broker)]
    if prefer and in_sync and in_sync[0] == state.replicas[0]:
        return in_sync[0], True
    if state.leader in in_sync:
        return state.leader, True
    if in_sync:
        return in_sync[0], True
    eligible = [broker for broker in state.replicas if broker in elr and usable(broker)]
    if eligible:
        return eligible[0], True
    if rules.unclean_election:
        there = [broker for broker in state.replicas if usable(broker)]
        if there:
            return there[0], False
    if rules.eligible_leader_replicas and not isr and not elr:
        # KIP-966: where all of them have lost their storage, the last leader goes on with what it
        # has: nobody is known to have more.
        last = state.leader if state.leader != NO_LEADER else state.last_leader
        if last in state.replicas and usable(last):
            return last, False
    return NO_LEADER, True


def move(state: PartitionState, replicas: Sequence[int]) -> PartitionState | None:
    """The state in which a partition is on its way to other ``replicas`` (KIP-455): the old ones
    stay until the new ones are in sync. None if they are what it has; only their order may change
    at once."""
    kept = [broker for broker in state.replicas if broker not in state.adding]
    adding = tuple(broker for broker in replicas if broker not in kept)
    removing = tuple(broker for broker in kept if broker not in replicas)
    after = state._replace(replicas=(*replicas, *removing), adding=adding, removing=removing)
    if after == state:
        return None
    # A replica of an earlier move that is not wanted any more goes at once.
    after = after._replace(
        isr=tuple(broker for broker in state.isr if broker in after.replicas),
        elr=tuple(broker for broker in state.elr if broker in after.replicas),
        partition_epoch=state.partition_epoch + 1,
    )
    return after


def finish_move(
    state: PartitionState, rules: Rules, usable: Callable[[int], bool]
) -> Change | None:
    """The state behind a move, once all replicas that were to be added are in sync; else None."""
    if not (state.adding or state.removing):
        return None
    target = tuple(broker for broker in state.replicas if broker not in state.removing)
    isr = tuple(broker for broker in state.isr if broker in target)
    if not isr or any(broker not in isr for broker in state.adding):
        return None
    if len(isr) < min(rules.min_insync_replicas, len(target)):
        return None
    before = state._replace(replicas=target, adding=(), removing=(), isr=isr)
    change = changed(before, rules, usable)
    if change is not None:
        return change
    return Change(before._replace(partition_epoch=state.partition_epoch + 1), False, True)
