"""docs/replication.md: every table in it is what its command prints."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

from logstore.replication.scenario import FAULTS, parse_scenario

DOCS = Path(__file__).resolve().parents[2] / "docs"
TEXT = (DOCS / "replication.md").read_text(encoding="utf-8")


def load_maker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_replication", DOCS / "make_replication.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


MAKER = load_maker()


@pytest.mark.parametrize(("command", "told"), MAKER.commands(TEXT))
def test_a_command_prints_what_the_guide_says(command: str, told: str) -> None:
    assert MAKER.printed(command) == told, "docs/replication.md is out of date: run `make docs`"


def test_the_guide_shows_commands() -> None:
    assert len(MAKER.commands(TEXT)) >= 8


def test_the_scenario_of_the_guide_is_one() -> None:
    (example,) = re.findall(r"^```toml\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    scenario = parse_scenario(example.encode(), "replication.md", name="yours")
    assert scenario.cluster.racks == ("a", "b", "c")
    assert len(scenario.faults) == 1


def test_the_guide_names_every_kind_of_fault() -> None:
    assert [kind for kind in FAULTS if f"`{kind}`" not in TEXT] == []
