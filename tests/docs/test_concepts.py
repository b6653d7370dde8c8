"""docs/concepts.md: every row has something to try, and it works."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from click.testing import CliRunner

import logstore
from logstore.cli.main import main

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "concepts.md").read_text(encoding="utf-8")
IDEAS = (
    *("decoupling", "load levelling", "resilience", "guaranteed delivery", "scaling"),
    *("point-to-point", "publish-subscribe", "both"),
    *("topic", "partition", "producer", "consumer", "consumer group", "broker", "kraft"),
    *("acks", "retries", "idempotence", "batching", "compression", "time-outs"),
    *("replication factor", "retention", "compaction", "reading again"),
    *("direct", "fanout", "headers", "bindings", "acknowledgements", "redelivery"),
    *("persistence", "clustering", "mirrored queues", "push delivery", "request and reply"),
    *("priorities", "delayed messages", "dead letters"),
)
"""What is said of message queues, and has to have a row."""
_TRY = re.compile(r"`([^`]+)`(?: → `([^`]+)`)?")


class Row(NamedTuple):
    idea: str
    here: str
    tries: list[tuple[str, str]]
    """What is run, and what is in what it prints."""
    more: str


def rows() -> Iterator[Row]:
    for line in TEXT.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if line.startswith("| ") and cells[0] not in ("Idea", "When"):
            idea, here, tries, more = cells
            yield Row(idea, here, _TRY.findall(tries), more)


def test_every_row_has_something_to_try_and_a_place_that_says_more() -> None:
    assert len(list(rows())) > 40
    for row in rows():
        assert row.here
        assert row.tries, row.idea
        assert re.search(r"\]\([\w-]+\.md", row.more), row.idea


def test_no_idea_is_left_out() -> None:
    told = " ".join(row.idea for row in rows()).lower().replace("*", "")
    assert [idea for idea in IDEAS if idea not in told] == []


def test_all_of_it_works_in_one_store_from_top_to_bottom(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("LOGSTORE_DIR", str(tmp_path / "ideas"))
    for row in rows():
        for text, expected in row.tries:
            told = _told(text, str(tmp_path / "ideas"))
            assert expected in told, f"{row.idea}: {text} printed {told!r}"


def _told(text: str, directory: str) -> str:
    """What a command or a line of Python prints."""
    if "store." in text and not text.startswith("logstore "):
        told = io.StringIO()
        with (
            logstore.open(directory, maintenance_interval=None) as store,
            contextlib.redirect_stdout(told),
        ):
            exec(text, {"store": store})
        return told.getvalue()
    program, *words = shlex.split(text)
    if program == "python":  # they have tests of their own
        (script,) = words
        assert (ROOT / script).is_file()
        assert (ROOT / "tests" / "examples" / f"test_{Path(script).stem}.py").is_file()
        return ""
    assert program == "logstore"
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 0, f"{text}: {result.stderr or result.exception}"
    return result.stdout
