"""What the documents show in Python runs, and prints what one would expect."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest

import logstore
from logstore import Record
from logstore.config import LogConfig
from logstore.consumer_config import ConsumerConfig
from logstore.producer_config import ProducerConfig
from logstore.shares.config import ShareGroupConfig

ROOT = Path(__file__).resolve().parents[2]
EXPECTED = {
    "README.md": ["1 0 b'{\"total\": 12}'", "b'{\"total\": 12}' 3"],
    "docs/inspector.md": ["0 False", "1 True", "2 False", "3 True"],
    "docs/producer.md": ["0"],
    "docs/queues.md": ["('payments',)", "b'{}' 3", "b'body' 3", "{'work': 1} 1 {}", "b'abab'"],
    "docs/share-groups.md": ["0 b'7' 1", "1 b'x' 1", "2 b'9' 1", "7", "9"],
    "docs/topics.md": ["{'retention_ms': 86400000, 'retention_bytes': 10737418240}", "True"],
}
"""Lines that the blocks of each document print, in this order, whatever comes in between."""
ELSEWHERE = {
    "docs/format.md": "tests/test_format_doc.py",
    "docs/replay.md": "tests/replay/test_replay_doc.py",
}
"""Documents whose blocks another test runs."""
_PYTHON = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks_of(document: str) -> list[str]:
    return _PYTHON.findall((ROOT / document).read_text(encoding="utf-8"))


def test_every_document_with_python_is_run() -> None:
    documents = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]
    names = {path.relative_to(ROOT).as_posix() for path in documents}
    assert {name for name in names if blocks_of(name)} == {*EXPECTED, *ELSEWHERE}
    for name, test in ELSEWHERE.items():
        assert Path(name).name in (ROOT / test).read_text(encoding="utf-8")


@pytest.mark.parametrize("document", EXPECTED)
def test_the_blocks_of_a_document_run_one_after_the_other(
    document: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    prepare(document)
    for block in blocks_of(document):
        # Each in a namespace of its own: it can be copied as it stands.
        exec(compile(block, document, "exec"), {"__name__": "__main__"})
    told = capsys.readouterr().out
    printed = iter(told.splitlines())
    assert [line for line in EXPECTED[document] if line not in printed] == [], told


def prepare(document: str) -> None:
    """Make the store that a document takes for granted."""
    values = {
        "docs/inspector.md": [b"fine", b"time-out", b"fine", b"timeout"],
        "docs/share-groups.md": [b"7", b"x", b"9"],
    }
    with logstore.open("data", maintenance_interval=None) as store:
        if document in values:
            records = [Record(value=value) for value in values[document]]
            store.create_topic("orders").partition(0).append(records)
        if document == "docs/producer.md":
            store.create_topic("orders")
        if document == "docs/queues.md":
            _dead_letter(store)


def _dead_letter(store: logstore.Store) -> None:
    """One rejected message in the queue ``failed``, which redriving brings back."""
    store.queue("failed")
    source = store.queue("work", dead_letter_exchange="", dead_letter_routing_key="failed")
    for total in (50, 150):
        store.exchange("").publish(b'{"total": %d}' % total, "work")
    for message in source.get_many(2):
        message.reject()


def test_a_named_producer_that_starts_again_sends_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    prepare("docs/producer.md")
    (block,) = [text for text in blocks_of("docs/producer.md") if "producer_name" in text]
    for _ in range(2):
        exec(compile(block, "docs/producer.md", "exec"), {"__name__": "__main__"})
    with logstore.open("data") as store:
        assert store.topic("orders").partition(0).log_end_offset == 3


@pytest.mark.parametrize(
    ("document", "table", "classes"),
    [
        ("docs/topics.md", "topic", [LogConfig]),
        ("docs/topics.md", "consumer", [ConsumerConfig]),
        ("docs/producer.md", "producer", [ProducerConfig]),
        ("docs/share-groups.md", "share group", [ShareGroupConfig]),
    ],
)
def test_a_table_of_options_names_each_with_its_default(
    document: str, table: str, classes: list[type[Any]]
) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    rows = text.partition(f"<!-- keys: {table} -->")[2].split("\n\n")[1].splitlines()[2:]
    told: dict[str, str] = {}
    for row in rows:
        names, defaults, *_ = (cell.strip() for cell in row.strip("|").split("|"))
        keys = re.findall(r"`(\w+)`", names)
        told.update(zip(keys, _defaults(defaults, len(keys)), strict=True))
    options = {name: default for one in classes for name, default in _options(one).items()}
    assert told == options


def _defaults(cell: str, count: int) -> list[str]:
    """The defaults in a cell, as text without commas in numbers."""
    plain = re.sub(r"(?<=\d),(?=\d{3})|[`\"]", "", cell.lower())
    parts = [part.strip() for part in plain.split(", ")]
    assert len(parts) == count, f"{cell} has not {count} defaults"
    return parts


def _options(one: type[Any]) -> dict[str, str]:
    return {
        field.name: "none" if field.default in (None, "") else str(field.default).lower()
        for field in dataclasses.fields(one)
    }
