"""``logstore replay`` from queues, and into queues and exchanges."""

from __future__ import annotations

from pathlib import Path

import pytest

from .program import json_lines, run


def test_a_queue_is_replayed_into_an_exchange_of_another_store(tmp_path: Path) -> None:
    store, other = tmp_path / "store", tmp_path / "other"
    run("queue declare payments", store=store)
    for number in (1, 2, 3):
        header = f"n:={number}"
        run("queue publish", "", "payments", f"pay {number}", "--header", header, store=store)
    run("queue get payments --count 2", store=store)
    run("queue declare copy", store=other)
    run("exchange declare shop --type fanout", store=other)
    run("queue bind copy shop", store=other)
    words = ("--where", "headers.n != '2'", "--to-store", other)
    dry = run("replay queue:payments --to exchange:shop --dry-run", *words, store=store)
    assert "would replay 2 records to exchange:shop" in dry.stdout
    result = run("replay queue:payments --to exchange:shop/late", *words, store=store)
    assert "2 records replayed" in result.stderr
    found = json_lines(run("queue get copy --count 9 --json", store=other))
    assert [(fields["body"], fields["routing_key"]) for fields in found] == [
        ("pay 1", "late"),
        ("pay 3", "late"),
    ]
    assert [fields["properties"]["headers"] for fields in found] == [{"n": 1}, {"n": 3}]
    (fields,) = json_lines(run("queue describe payments --json", store=store))
    assert fields["ready"] == 1  # what was acknowledged was replayed, and no ledger has moved


@pytest.mark.parametrize(
    ("given", "code", "complaint"),
    [
        ("queue:nowhere", 1, "there is no queue called 'nowhere'"),
        ("queue:payments --to queue:nowhere", 1, "there is no queue called 'nowhere'"),
        ("queue:payments --to exchange:nowhere", 1, "nowhere"),
        ("queue:payments --to queue:payments --partitions key", 2, "--partitions makes sense"),
        ("queue:payments --to queue:payments --json", 2, "--json makes no sense with --to queue"),
        ("queue:payments --to-store x", 2, "--to-store makes sense with --to topic:, queue:"),
    ],
)
def test_queues_and_exchanges_that_make_no_sense(
    tmp_path: Path, given: str, code: int, complaint: str
) -> None:
    run("queue declare payments", store=tmp_path / "store")
    assert complaint in run("replay", *given.split(), store=tmp_path / "store", code=code).stderr
