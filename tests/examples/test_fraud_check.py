"""The fraud check: each caller gets its own verdict, and the urgent messages go first."""

from __future__ import annotations

from pathlib import Path

from .scripts import load


def test_verdicts_find_their_callers_and_urgent_messages_go_first(tmp_path: Path) -> None:
    example = load("fraud_check")
    outcome = example.main(str(tmp_path / "store"))
    amounts = {number: number * 37 % 1000 for number in range(example.ORDERS)}
    expected = {n: "declined" if a > example.LIMIT else "approved" for n, a in amounts.items()}
    expected[example.SLOW_ORDER] = "unknown"
    assert outcome.verdicts == expected

    told = [(n, verdict) for n, verdict in expected.items() if verdict != "unknown"]
    mails = [f"order {n}: {kind}" for n, verdict in told for kind in (verdict, "shipped")]
    assert outcome.mails == mails

    # By priority, and among equals in the order in which they came.
    texts = [(example.PRIORITIES[v], n, f"order {n}: {v}") for n, v in told]
    texts += [
        (example.PRIORITIES["shipped"], n, f"order {n}: shipped")
        for n, verdict in told
        if verdict == "approved" and n % 2 == 0
    ]
    texts.sort(key=lambda text: -text[0])
    assert outcome.texts == [(priority, body) for priority, _, body in texts]
