"""The order service: every subscriber gets every order, every payment is done, and once."""

from __future__ import annotations

from pathlib import Path

import logstore
from logstore.segments.check import check
from logstore.segments.files import DiskFiles

from .scripts import load


def test_nothing_is_lost_and_no_payment_is_acknowledged_twice(tmp_path: Path) -> None:
    example = load("order_service")
    store = tmp_path / "store"
    outcome = example.main(str(store))
    everything = list(range(example.ORDERS))
    for name in example.SUBSCRIBERS:
        assert outcome.received[name] == everything
    # A worker is killed between an acknowledgement and the line that says so at the worst: then
    # the payment is done, and begun by it, and nobody else's.
    in_doubt = set(outcome.begun) - set(outcome.acknowledged)
    assert len(in_doubt) <= 1
    assert sorted({*outcome.acknowledged, *in_doubt}) == everything
    assert set(outcome.acknowledged.values()) == {1}
    assert outcome.left == 0
    # The killed one had done its share, and the others went on.
    assert all(outcome.by_worker[f"worker-{n}"] > 0 for n in (1, 2, 3))
    assert sum(count > 1 for count in outcome.begun.values()) <= 1
    assert not [f for f in check(DiskFiles(), str(store)) or () if f.severity == "damage"]
    with logstore.open(store) as again:
        assert again.queue("payments").consumers() == []
