"""Our queues do what RabbitMQ did when the scenarios were recorded."""

from __future__ import annotations

from pathlib import Path

import pytest

from .differences import DIFFERENCES, Difference
from .language import Scenario
from .record import Transcript, load, play, shown
from .scenarios import AREAS
from .store_driver import StoreDriver

ROOT = Path(__file__).resolve().parents[3]

_ALL = [
    pytest.param(area, scenario, id=scenario.name)
    for area, scenarios in AREAS.items()
    for scenario in scenarios
]
_LISTED = {one.scenario: one for one in DIFFERENCES}


@pytest.fixture(scope="module")
def recorded() -> dict[str, Transcript]:
    """What RabbitMQ did, by the names of the scenarios."""
    return {name: found for area in AREAS for name, found in load(area)[1].items()}


@pytest.mark.parametrize(("area", "scenario"), _ALL)
def test_the_same_steps_have_the_same_outcomes(
    area: str, scenario: Scenario, recorded: dict[str, Transcript], tmp_path: Path
) -> None:
    expected = recorded.get(scenario.name, [])
    assert [step for step, _ in expected] == list(scenario.steps), (
        f"the scenario is not what was recorded in {area}.json: "
        "run python -m tests.interop.rabbitmq.record"
    )
    ours = _LISTED.get(scenario.name, Difference(scenario.name, {}, "", "")).ours
    for number, outcome in ours.items():
        step, theirs = expected[number]
        assert outcome != theirs, f"step {number} is listed as a difference, and is none"
        expected = [*expected[:number], (step, outcome), *expected[number + 1 :]]
    assert shown(play(StoreDriver(tmp_path / "store"), scenario)) == shown(expected)


def test_every_listed_difference_is_of_a_scenario_and_in_the_documentation() -> None:
    text = (ROOT / "docs/compatibility.md").read_text("utf-8")
    names = {scenario.name for scenarios in AREAS.values() for scenario in scenarios}
    for difference in DIFFERENCES:
        assert difference.scenario in names
        assert f"\n| {difference.row} |" in text
        assert difference.reason


def test_names_of_scenarios_are_unique_and_records_are_of_nothing_else() -> None:
    names = [scenario.name for scenarios in AREAS.values() for scenario in scenarios]
    assert len(set(names)) == len(names)
    assert len(names) >= 150
    for area, scenarios in AREAS.items():
        made_by, transcripts = load(area)
        assert made_by.startswith("RabbitMQ ")
        assert list(transcripts) == [scenario.name for scenario in scenarios]
