"""What docs/replay.md shows in Python runs."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import logstore
from logstore import Record
from logstore.replay import Session

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "replay.md"


def test_the_python_of_the_document_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    amounts = [("deposit", 20), ("order", -5), ("order", -30), ("refund", 40), ("order", -1)]
    with logstore.open("data", maintenance_interval=None) as store:
        store.create_topic("shop").partition(0).append(
            [
                Record(timestamp=n, value=json.dumps({"type": kind, "amount": amount}).encode())
                for n, (kind, amount) in enumerate(amounts)
            ]
        )
    text = DOCUMENT.read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 2
    namespace: dict[str, object] = {"__name__": "__main__"}
    for block in blocks:
        exec(compile(block, "replay.md", "exec"), namespace)
    assert capsys.readouterr().out.splitlines() == [
        "2 {'balance': 15} {'balance': -15}",
        ".balance 15 -15",
    ]
    session = namespace["session"]
    assert isinstance(session, Session)
    assert session.record is not None
    assert session.record.offset == 3
