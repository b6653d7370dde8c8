"""Many runs: every combination of factor and acks, each with the same seeds.

A run depends on nothing but its scenario and its seed, so runs can be spread over processes in any
way. Their outcomes are put together in the order of their seeds: what is told is the same for any
number of processes.
"""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any, Literal

from logstore.errors import InvalidInputError
from logstore.replication.outcome import Outcome, merge
from logstore.replication.run import run_seed
from logstore.replication.scenario import Scenario

__all__ = ["Run", "combinations", "run_all"]

Run = Callable[[Scenario, int], Outcome]
"""What runs a scenario with a seed."""

SEEDS_AT_ONCE = 8
"""How many runs another process is given at a time."""


def combinations(
    scenario: Scenario,
    *,
    factors: Sequence[int] = (),
    acks: Sequence[Literal[0, 1, "all"]] = (),
    min_insync_replicas: int | None = None,
    unclean_election: bool | None = None,
) -> list[Scenario]:
    """The scenario with every factor and every kind of acknowledgement; what is not given stays.

    A ``min_insync_replicas`` that is more than a factor, and could never be met, is the factor
    there. Raises InvalidInputError if it is more than all of them, or a factor is more than there
    are brokers.
    """
    factors = factors or (scenario.cluster.replication_factor,)
    acks = acks or (scenario.cluster.acks,)
    wanted = min_insync_replicas
    if wanted is not None and wanted > max(factors):
        raise InvalidInputError(
            f"min_insync_replicas={wanted} can never be met with a replication factor of "
            f"{max(factors)}"
        )
    if wanted is None:
        wanted = scenario.cluster.min_insync_replicas
    changes: dict[str, Any] = {}
    if unclean_election is not None:
        changes["cluster.unclean_election"] = unclean_election
    return [
        scenario.replace(
            {
                **changes,
                "cluster.replication_factor": factor,
                "cluster.acks": wait,
                "cluster.min_insync_replicas": min(wanted, factor),
            }
        )
        for factor, wait in itertools.product(factors, acks)
    ]


def run_all(
    scenarios: Sequence[Scenario],
    seeds: Sequence[int],
    *,
    jobs: int = 1,
    run: Run = run_seed,
    progress: Callable[[int, Outcome], object] = lambda index, outcome: None,
) -> Iterator[Outcome]:
    """Run each scenario with each seed, and give one outcome for each scenario, in their order.

    ``jobs``: how many processes do it. ``progress`` is told the index of a scenario and the outcome
    of some of its runs, as they come. ``run`` has to be one that another process can import.
    """
    parts = [
        (index, seeds[start : start + SEEDS_AT_ONCE])
        for index in range(len(scenarios))
        for start in range(0, len(seeds), SEEDS_AT_ONCE)
    ]
    tasks = [(run, scenarios[index], part) for index, part in parts]
    with _mapping(min(jobs, len(tasks))) as mapping:
        done = zip(parts, mapping(_run_some, tasks), strict=True)
        for index, group in itertools.groupby(done, key=lambda each: each[0][0]):
            outcomes = []
            for _, outcome in group:
                progress(index, outcome)
                outcomes.append(outcome)
            yield merge(outcomes)


def _run_some(task: tuple[Run, Scenario, Sequence[int]]) -> Outcome:
    run, scenario, seeds = task
    return merge(run(scenario, seed) for seed in seeds)


_Mapping = Callable[[Callable[[Any], Outcome], Iterable[Any]], Iterable[Outcome]]


@contextlib.contextmanager
def _mapping(jobs: int) -> Iterator[_Mapping]:
    """A function as ``map``, by so many processes; in this one if it is one."""
    if jobs <= 1:
        yield map
        return
    # Not forked: a child would inherit the locks of whatever threads there are.
    context = multiprocessing.get_context("spawn")
    executor = ProcessPoolExecutor(jobs, context, initializer=_leave_interrupts)
    try:
        yield executor.map
    finally:
        executor.shutdown(wait=False, cancel_futures=True)


def _leave_interrupts() -> None:
    """Ctrl-C reaches all processes of a terminal; the first one decides what becomes of it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
