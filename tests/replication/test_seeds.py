"""Seeds: a hundred of every scenario, and every one that ever failed.

``LOGSTORE_SEEDS=N`` runs so many of each instead. A failing seed says how it is run again; it is to
be added to ``regressions.toml``, with the reason, by whoever mends what it found.
"""

from __future__ import annotations

import logging
import os
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from logstore.replication.bugs import LATE, ROUGH
from logstore.replication.outcome import Outcome
from logstore.replication.run import run_seed
from logstore.replication.scenario import Scenario, built_in_scenarios, load_scenario

SEEDS = int(os.environ.get("LOGSTORE_SEEDS", "100"))
PARTS = 4
"""A scenario's seeds are run in so many tests, for the processes to share."""
PROFILES = {"": {}, "rough": ROUGH, "late": LATE}
REGRESSIONS = tomllib.loads((Path(__file__).parent / "regressions.toml").read_text())["seed"]


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Logs that recover from a power cut say so; here they do it all the time."""
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


def shortened(scenario: Scenario) -> Scenario:
    """The same with fewer records, and in a third of the time if nothing is scheduled in it."""
    scenario = scenario.replace({"workload.records_per_second": 5})
    if scenario.faults:
        return scenario
    return scenario.replace({"duration_ms": scenario.duration_ms // 3})


def assert_kept(outcome: Outcome, name: str) -> None:
    told = [
        f"logstore simulate {name} --seeds 1 --seed-start {seed}: {violation.text}"
        for seed, violation in outcome.violations
    ]
    assert told == []


@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("name", built_in_scenarios())
def test_no_seed_of_a_scenario_breaks_a_promise(name: str, part: int) -> None:
    scenario = shortened(load_scenario(name))
    for seed in range(1 + part, SEEDS + 1, PARTS):
        outcome = run_seed(scenario, seed)
        assert_kept(outcome, name)
        assert outcome.acknowledged > 0


@pytest.mark.parametrize("entry", REGRESSIONS, ids=lambda entry: f"{entry['seed']}: {entry['why']}")
def test_no_seed_that_was_mended_fails_again(entry: dict[str, Any]) -> None:
    changes = {**PROFILES[entry["profile"]], **entry.get("changes", {})}
    scenario = load_scenario(entry["scenario"]).replace(changes)
    assert_kept(run_seed(scenario, entry["seed"]), entry["scenario"])
