"""Payments off a log: every order is paid, but for those that cannot be; these are put aside."""

from __future__ import annotations

from pathlib import Path

from logstore.segments.check import check
from logstore.segments.files import DiskFiles

from .scripts import load


def test_every_order_is_paid_and_what_cannot_be_is_put_aside(tmp_path: Path) -> None:
    example = load("payments")
    store = tmp_path / "store"
    outcome = example.main(str(store))
    put_aside = {example.UNREADABLE, example.UNANSWERED}
    assert set(outcome.paid) == set(range(example.ORDERS)) - put_aside
    # The killed worker had paid for one order at a time, before it said so.
    assert sum(count > 1 for count in outcome.paid.values()) <= 1
    unreadable, unanswered = outcome.letters
    # What it held was delivered once more.
    assert unreadable[0] == example.UNREADABLE
    assert unreadable[1] in (1, 2)
    assert "rejected" in unreadable[2]
    assert unanswered[:2] == (example.UNANSWERED, 3)
    assert outcome.lag == 0
    assert not [f for f in check(DiskFiles(), str(store)) or () if f.severity == "damage"]
