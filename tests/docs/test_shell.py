"""What README.md and docs/replay.md show in a shell works there, and prints what they say."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
_MARK = "-- next --"
_PROMPT = "(replay) "


class Step(NamedTuple):
    command: str
    told: list[str]
    """The lines below it in the document."""


def steps_of(document: str) -> Iterator[Step]:
    """The lines behind ``$`` in the blocks of a document, with what stands below each."""
    fenced = False
    step = None
    for line in (ROOT / document).read_text(encoding="utf-8").splitlines():
        if line.startswith("```"):
            fenced = not fenced
        if step is not None and (not fenced or line.startswith("$ ")):
            yield step
            step = None
        if fenced and line.startswith("$ "):
            step = Step(line[2:], [])
        elif step is not None:
            step.told.append(line)


def run(script: str, directory: Path) -> str:
    """What bash prints for a script, in a directory beside which the examples lie."""
    (directory / "examples").symlink_to(ROOT / "examples")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "LOGSTORE_DIR": "data"}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=directory,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout[-500:]}\n{done.stderr}"
    return done.stdout


def test_the_commands_of_the_readme_work_one_after_the_other(tmp_path: Path) -> None:
    steps = list(steps_of("README.md"))
    assert len(steps) > 15
    (simulation,) = [step for step in steps if step.command.startswith("logstore simulate")]
    # docs/replication.md has the same one, which a test runs.
    told = (ROOT / "docs/replication.md").read_text(encoding="utf-8")
    assert f"$ {simulation.command.partition(' --seeds')[0]} --seeds" in told
    steps.remove(simulation)
    outputs = run(f"\necho '{_MARK}'\n".join(step.command for step in steps), tmp_path)
    for step, output in zip(steps, outputs.split(f"{_MARK}\n"), strict=True):
        printed = iter(output.splitlines())
        missing = [line for line in step.told if line != "..." and line not in printed]
        assert missing == [], f"{step.command} printed {output}"


def test_the_session_of_the_debugger_goes_as_the_guide_shows(tmp_path: Path) -> None:
    (session,) = [step for step in steps_of("docs/replay.md") if step.command.endswith("--debug")]
    typed = [line.removeprefix(_PROMPT) for line in session.told if line.startswith(_PROMPT)]
    assert len(typed) == 2
    script = (
        "python examples/shop.py --events | logstore append shop - --json\n"
        f"printf '%s\\n' {' '.join(map(repr, typed))} | {session.command}\n"
    )
    printed = iter(run(script, tmp_path).splitlines())
    greeting, *answers = [line for line in session.told if not line.startswith(_PROMPT)]
    assert "'help' lists the commands" in greeting  # at a terminal alone
    assert [line for line in answers if line not in printed] == []


def test_the_examples_behind_a_dollar_are_found() -> None:
    commands = [step.command for step in steps_of("README.md")]
    assert "export LOGSTORE_DIR=data" in commands
    assert any(command.startswith("logstore replay") for command in commands)


if sys.platform == "win32":
    pytest.skip("there is no bash", allow_module_level=True)
