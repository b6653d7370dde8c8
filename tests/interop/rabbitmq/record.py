"""What RabbitMQ does with the scenarios, as files that every run of the tests compares with.

    python -m tests.interop.rabbitmq.record

starts the server that ``setup.sh`` has brought, and writes ``transcripts/*.json`` anew. A file says
what made it; a line is a step and its outcome.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from . import server
from .language import Outcome, Scenario, Step
from .scenarios import AREAS

__all__ = ["Transcript", "load", "play", "shown"]

FOLDER = Path(__file__).resolve().parent / "transcripts"

Transcript = list[tuple[Step, Outcome]]


def play(driver: Any, scenario: Scenario) -> Transcript:
    """Run a scenario and close the driver."""
    try:
        return list(zip(scenario.steps, driver.run(scenario), strict=True))
    finally:
        driver.close()


def shown(transcript: Transcript) -> list[str]:
    """A line for each step and its outcome. To be compared: 1, 1.0 and true differ as text."""
    return [json.dumps(pair, sort_keys=True, ensure_ascii=False) for pair in transcript]


@functools.cache
def load(area: str) -> tuple[str, dict[str, Transcript]]:
    """What made the records of an area, and its transcripts by the names of scenarios."""
    record = json.loads((FOLDER / f"{area}.json").read_text("utf-8"))
    found = {
        name: [(step, outcome) for step, outcome in lines]
        for name, lines in record["transcripts"].items()
    }
    return record["made_by"], found


def save(area: str, made_by: str, transcripts: dict[str, Transcript]) -> None:
    """Write the records of an area, a step on each line."""
    FOLDER.mkdir(exist_ok=True)
    text = "".join(_lines(made_by, transcripts))
    json.loads(text)
    (FOLDER / f"{area}.json").write_text(text, encoding="utf-8")


def _lines(made_by: str, transcripts: dict[str, Transcript]) -> Iterator[str]:
    yield f'{{\n"made_by": {json.dumps(made_by)},\n"transcripts": {{\n'
    for place, (name, transcript) in enumerate(transcripts.items()):
        yield f"{json.dumps(name)}: [\n"
        yield ",\n".join(json.dumps(pair, ensure_ascii=False) for pair in transcript)
        yield "\n]\n" if place + 1 == len(transcripts) else "\n],\n"
    yield "}\n}\n"


def made_by() -> str:
    """What the records are made by."""
    pika = importlib.metadata.version("pika")
    return f"{server.version()}, pika {pika}: python -m tests.interop.rabbitmq.record"


def main() -> int:
    """Record everything."""
    why_not = server.available()
    if why_not is not None:
        print(why_not, file=sys.stderr)
        return 1
    driver = importlib.import_module("tests.interop.rabbitmq.pika_driver").PikaDriver
    with tempfile.TemporaryDirectory() as directory, server.Server(Path(directory)) as running:
        running.start()
        for area, scenarios in AREAS.items():
            transcripts = {one.name: play(driver(running.parameters()), one) for one in scenarios}
            save(area, made_by(), transcripts)
            print(f"{area}: {len(transcripts)} scenarios")
    return 0


if __name__ == "__main__":
    sys.exit(main())
