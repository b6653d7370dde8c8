"""Faults that are planted into the protocol are found, and their seeds are silent without them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from logstore.replication.bugs import BUGS
from logstore.replication.run import run_seed
from logstore.replication.scenario import load_scenario


@pytest.mark.parametrize("name", BUGS)
def test_a_planted_fault_is_found_within_its_seeds(name: str) -> None:
    bug = BUGS[name]
    scenario = load_scenario(bug.scenario).replace(bug.changes)
    for seed in range(1, bug.seeds + 1):
        found = run_seed(scenario, seed, bugs=frozenset([name]))
        if found.violation_count:
            break
    else:
        pytest.fail(f"{name} was not found within {bug.seeds} seeds: {bug.description}")
    sound = run_seed(scenario, seed)
    assert [violation.text for _, violation in sound.violations] == []


def test_the_documentation_lists_them_all() -> None:
    text = (Path(__file__).parents[2] / "docs" / "testing.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `([a-z0-9-]+)` \| (.+) \| (\d+) \|$", text, re.MULTILINE)
    assert listed == [(name, bug.description, str(bug.seeds)) for name, bug in BUGS.items()]
