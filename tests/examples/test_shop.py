"""The shop with the charge that was booked twice: every tool names the same event."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.cli.program import json_lines, run

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "shop.py"


@pytest.fixture(scope="module")
def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("shop", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def planted(example: ModuleType) -> int:
    """The place of the event that is there twice."""
    events = [json.loads(event.value) for event in example.events()]
    charges = [(place, event["order"]) for place, event in enumerate(events) if "order" in event]
    seen: set[int] = set()
    twice = [place for place, order in charges if order in seen or seen.add(order)]  # type: ignore[func-returns-value]
    assert len(events) == example.EVENTS
    (place,) = twice
    return place


@pytest.fixture(scope="module")
def store(example: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store that the script leaves."""
    path = tmp_path_factory.mktemp("example") / "store"
    record = example.main(str(path))
    assert record.topic == "shop"
    return path


def test_at_the_end_nothing_is_to_be_seen(example: ModuleType) -> None:
    state = None
    for offset, event in enumerate(example.events()):
        state = example.ledger(state, event._replace(offset=offset))
    assert state is not None
    assert min(state["balances"].values()) >= 0


def test_the_script_finds_it(example: ModuleType, planted: int, tmp_path: Path) -> None:
    assert example.main(str(tmp_path / "store")).offset == planted


def test_the_command_line_finds_it(store: Path, planted: int) -> None:
    words = ["replay", "shop", "--fold", f"{SCRIPT}:ledger"]
    (line,) = json_lines(run(*words, "--bisect", "min(state.balances) < 0", "--json", store=store))
    assert line["offset"] == planted
    customer = line["key"]
    before, after = (line[name]["balances"][customer] for name in ("state_before", "state_after"))
    assert after < 0 <= before
    first, _ = json_lines(
        run(*words, "--diff", "--fold", f"{SCRIPT}:once", "--json", store=store, code=1)
    )
    assert first["record"]["offset"] == planted
    script = "until min(state.balances) < 0\nback\nprint offset\nnext\np record.offset\n"
    shown = run(*words, "--debug", store=store, stdin=script).stdout.splitlines()
    assert str(planted - 1) in shown
    assert shown[-1] == str(planted)


def test_a_command_finds_it_too(store: Path, planted: int, tmp_path: Path) -> None:
    (tmp_path / "check.py").write_text(
        "import json, sys\n"
        "balances = {}\n"
        "for line in sys.stdin:\n"
        "    record = json.loads(line)\n"
        "    event = json.loads(record['value'])\n"
        "    sign = -1 if event['type'] == 'charged' else 1\n"
        "    key = record['key']\n"
        "    balances[key] = balances.get(key, 0) + sign * event['amount']\n"
        "    if balances[key] < 0:\n"
        "        sys.exit(1)\n"
    )
    command = f"{sys.executable} {tmp_path / 'check.py'}"
    result = run("replay shop --json --bisect-cmd", command, store=store)
    assert json_lines(result)[0]["offset"] == planted


def test_the_script_runs_and_says_what_it_does(planted: int) -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT)], capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stderr == ""
    assert f"behind the event at offset {planted}" in done.stdout
    assert "booked twice" in done.stdout
    lines = subprocess.run(
        [sys.executable, str(SCRIPT), "--events"], capture_output=True, timeout=120, check=True
    ).stdout.splitlines()
    assert json.loads(lines[planted])["value"] == json.loads(lines[planted - 1])["value"]
