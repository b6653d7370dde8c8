"""Which brokers keep which partitions: decided purely.

A partition's replicas stand in as many racks as there are, each broker keeps and leads about as
many as any other, and a new broker takes its share with as few moves as that needs. The first
replica of a partition is its preferred leader. (What Kafka's ``ReplicaPlacer`` is for; the choice
here is the least loaded broker, where Kafka goes round in a circle.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from logstore.errors import InvalidInputError

__all__ = ["assign", "rebalance"]


def assign(
    partitions: Sequence[str],
    replication_factor: int,
    brokers: Sequence[int],
    racks: Mapping[int, str],
) -> dict[str, tuple[int, ...]]:
    """The replicas of each partition, the preferred leader first.

    ``racks`` says where each broker stands; brokers of one rack are spread over like those of none.
    Raises InvalidInputError where there are fewer brokers than replicas.
    """
    if not 1 <= replication_factor <= len(brokers):
        raise InvalidInputError(
            f"replication_factor={replication_factor} needs as many brokers; "
            f"there are {len(brokers)}"
        )
    led = dict.fromkeys(brokers, 0)
    kept = dict.fromkeys(brokers, 0)
    order = {broker: place for place, broker in enumerate(_alternating(brokers, racks))}
    placed = {}
    for number, partition in enumerate(partitions):
        replicas: list[int] = []
        while len(replicas) < replication_factor:
            used = [racks[broker] for broker in replicas]
            # Where all else is equal the order goes round with the partitions, so that the
            # followers of one leader are not always the same.
            costs = {
                broker: (
                    used.count(racks[broker]),
                    0 if replicas else led[broker],
                    kept[broker],
                    (order[broker] - number) % len(brokers),
                )
                for broker in brokers
                if broker not in replicas
            }
            chosen = min(costs, key=costs.__getitem__)
            if not replicas:
                led[chosen] += 1
            kept[chosen] += 1
            replicas.append(chosen)
        placed[partition] = tuple(replicas)
    return placed


def _alternating(brokers: Sequence[int], racks: Mapping[int, str]) -> list[int]:
    """The brokers in an order in which neighbours stand in different racks, as far as possible."""
    place: dict[str, int] = {}
    numbered = []
    for broker in brokers:
        rack = racks[broker]
        place[rack] = place.get(rack, -1) + 1
        numbered.append((place[rack], rack, broker))
    return [broker for _, _, broker in sorted(numbered)]


def rebalance(
    current: Mapping[str, tuple[int, ...]], brokers: Sequence[int], racks: Mapping[int, str]
) -> dict[str, tuple[int, ...]]:
    """The new replicas of those partitions that have to move so that each of ``brokers`` keeps and
    leads about as many as any other; brokers that are not among them keep nothing.

    A move never puts a partition into fewer racks. Raises InvalidInputError where a partition has
    more replicas than there are brokers.
    """
    placed = {partition: list(replicas) for partition, replicas in current.items()}
    for partition, replicas in placed.items():
        if len(replicas) > len(brokers):
            raise InvalidInputError(
                f"{partition} has {len(replicas)} replicas, and there are {len(brokers)} brokers"
            )
    kept = {broker: sum(broker in replicas for replicas in placed.values()) for broker in brokers}
    for replicas in placed.values():
        _replace_gone(replicas, brokers, kept, racks)
    while _move_one(placed, kept, racks):
        pass
    _spread_leaders(placed, brokers)
    return {
        partition: tuple(replicas)
        for partition, replicas in placed.items()
        if tuple(replicas) != current[partition]
    }


def _diversity(replicas: Sequence[int], racks: Mapping[int, str]) -> int:
    return len({racks[broker] for broker in replicas})


def _replace_gone(
    replicas: list[int], brokers: Sequence[int], kept: dict[int, int], racks: Mapping[int, str]
) -> None:
    for place, broker in enumerate(replicas):
        if broker in kept:
            continue
        others = [other for other in replicas if other != broker and other in kept]
        chosen = min(
            (candidate for candidate in brokers if candidate not in replicas),
            key=lambda c: (-_diversity([*others, c], racks), kept[c], c),
        )
        replicas[place] = chosen
        kept[chosen] += 1


def _move_one(
    placed: Mapping[str, list[int]], kept: dict[int, int], racks: Mapping[int, str]
) -> bool:
    """Move one replica from a broker that keeps more to one that keeps less, if it helps."""
    for target in sorted(kept, key=lambda broker: (kept[broker], broker)):
        for source in sorted(kept, key=lambda broker: (-kept[broker], broker)):
            if kept[source] - kept[target] < 2:
                break
            for replicas in placed.values():
                if source not in replicas or target in replicas:
                    continue
                moved = [target if broker == source else broker for broker in replicas]
                if _diversity(moved, racks) >= _diversity(replicas, racks):
                    replicas[:] = moved
                    kept[source] -= 1
                    kept[target] += 1
                    return True
    return False


def _spread_leaders(placed: Mapping[str, list[int]], brokers: Sequence[int]) -> None:
    """Put another replica first where its broker leads less: no data moves for it."""
    led = dict.fromkeys(brokers, 0)
    for replicas in placed.values():
        led[replicas[0]] += 1
    changed = True
    while changed:
        changed = False
        for replicas in placed.values():
            least = min(replicas, key=lambda broker: (led[broker], replicas.index(broker)))
            if led[replicas[0]] - led[least] >= 2:
                led[replicas[0]] -= 1
                led[least] += 1
                replicas.remove(least)
                replicas.insert(0, least)
                changed = True
