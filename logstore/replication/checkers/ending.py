"""What is left when everything is healed, beside what producers and consumers were told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence, Set
from typing import NamedTuple

from logstore.replication.checkers.findings import Findings, Loss
from logstore.replication.checkers.lineage import BatchNode
from logstore.replication.checkers.suite import PartitionChecks

__all__ = ["Ending", "Left", "compare"]


class Left(NamedTuple):
    """What can be read of a partition when everything is healed."""

    leader: int
    """-1: there is none, and nothing can be read."""
    logs: Mapping[int, Sequence[str]]
    """The record ids of each in-sync replica's log, by offset from 0. A log with rotten bits can
    only be read up to there."""
    rotten: frozenset[int] = frozenset()
    """Whose logs these are."""

    @property
    def ids(self) -> Sequence[str]:
        """What there is to be read. What is rotten at the leader another one can give: an operator
        would let it lead."""
        if self.leader in self.rotten:
            return max(self.logs.values(), key=len)
        return self.logs[self.leader] if self.leader >= 0 else ()


class Ending(NamedTuple):
    """What came of a partition's records."""

    lost: int
    duplicated: int
    losses: list[Loss]


def compare(
    checks: PartitionChecks,
    left: Left,
    findings: Findings,
    *,
    at_us: int,
    in_order: bool,
    done: Set[str] = frozenset(),
) -> Ending:
    """Look at everything that is left. ``in_order``: producers keep the order over retries;
    ``done``: messages of a queue that consumers are done with, which nobody misses."""
    partition = checks.lineage.partition

    def broken(kind: str, text: str) -> None:
        findings.broken(kind, at_us, partition, text)

    ids = left.ids
    for broker, others in left.logs.items():
        if others != ids[: len(others)] or (len(others) < len(ids) and broker not in left.rotten):
            broken("divergence", _difference(left.leader, ids, broker, others))
    present = Counter(ids)
    if left.leader >= 0 and checks.readers.ids != list(ids[: len(checks.readers.ids)]):
        broken("divergence", _difference(left.leader, ids, "what was read", checks.readers.ids))
    for refused in checks.refused:
        there = [record for record in refused.record_ids if record in present]
        if there:
            broken(
                "refused",
                f"{refused.producer} was told that {there[0]} is surely not written "
                f"({refused.error}), and it is there",
            )
    duplicated = present.total() - len(present)
    if duplicated and checks.idempotent:
        twice = next(record for record, count in present.items() if count > 1)
        broken("twice", f"{twice} of an idempotent producer is there {present[twice]} times")
    if in_order:
        _check_order(ids, broken)
    lost, losses = _losses(checks, present, findings, at_us, done)
    return Ending(lost, duplicated, losses)


def _difference(leader: int, ids: Sequence[str], other: object, others: Sequence[str]) -> str:
    """Where two logs part, as a sentence."""
    place = next(
        (n for n, (a, b) in enumerate(zip(ids, others, strict=False)) if a != b),
        min(len(ids), len(others)),
    )

    def at(log: Sequence[str]) -> str:
        return log[place] if place < len(log) else "its end"

    return (
        f"broker {leader}, which leads, has {at(ids)} at offset {place}, and "
        f"{other if isinstance(other, str) else f'broker {other}'} {at(others)}"
    )


def _check_order(ids: Sequence[str], broken: Callable[[str, str], None]) -> None:
    """Records of one producer stand in the order of their sending. Ids count up with a fixed width,
    behind the producer's name; a copy of a record is no matter of order."""
    last: dict[str, str] = {}
    seen: set[str] = set()
    for record in ids:
        if record in seen:
            continue
        seen.add(record)
        producer = record.partition("-")[0]
        before = last.get(producer, "")
        if record < before:
            broken("order", f"{record} stands behind {before}, which was sent later")
            return
        last[producer] = record


def _losses(
    checks: PartitionChecks,
    present: Counter[str],
    findings: Findings,
    at_us: int,
    done: Set[str],
) -> tuple[int, list[Loss]]:
    partition = checks.lineage.partition
    gone: list[BatchNode] = []
    count = 0
    for node in checks.acknowledged:
        told = node.acknowledged
        assert told is not None
        missing = [record for record in told.record_ids if record not in present]
        count += sum(record not in done for record in missing)
        if missing:
            gone.append(node)
    unexplained = [node for node in gone if node not in checks.missings.by_node]
    committed = [node for node in unexplained if checks.committed.has(node)]
    others = [node for node in unexplained if not checks.committed.has(node)]
    for nodes, were_committed in ((committed, True), (others, checks.acks == "all")):
        for noted in checks.missings.note(nodes, at_us, committed=were_committed):
            told = noted.node.acknowledged
            assert told is not None
            findings.broken(
                "lost",
                at_us,
                partition,
                f"{told.record_ids[0]} at offset {told.base_offset}, acknowledged at {told.at_us} "
                f"us, cannot be read at the end, though {noted.promise.reasons[0]}",
            )
    losses = checks.missings.lost(gone, done)
    for told in checks.unplaced:
        lost = tuple(record for record in told.record_ids if record not in present)
        if lost:
            count += len(lost)
            reason = ("acks=0 promises nothing",)
            losses.append(Loss(partition, -1, lost, told.at_us, at_us, reason, ()))
    return count, losses
