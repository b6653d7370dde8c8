"""``logstore simulate``: tables, JSON, the report, one run looked at, and wrong use."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from logstore.log import PartitionLog
from logstore.replication.outcome import Outcome
from logstore.replication.run import run_seed
from logstore.replication.scenario import Scenario, built_in_scenarios

from .program import json_lines, run

# Short enough for many runs. Broker 0 leads the one partition, and has nothing after it.
SHORT = """
description = "a disk is lost"
duration_ms = 6000

[cluster]
session_timeout_ms = 1000
heartbeat_interval_ms = 200
replica_lag_time_max_ms = 2000

[workload]
records_per_second = 50
linger_ms = 200
request_timeout_ms = 1000

[[faults]]
kind = "lose_disk"
brokers = "leader"
at_ms = 1500
for_ms = 1000
"""

FIELDS = [
    "replication_factor",
    "acks",
    "min_insync_replicas",
    "unclean_election",
    "seeds",
    "acknowledged",
    "lost",
    "duplicated",
    "unavailable_ms",
    "commit_latency_p50_ms",
    "commit_latency_p99_ms",
    "network_bytes",
    "disk_bytes",
    "violations",
]


@pytest.fixture
def short(tmp_path: Path) -> Path:
    path = tmp_path / "short.toml"
    path.write_text(SHORT, encoding="utf-8")
    return path


def test_every_combination_is_a_row_with_what_it_bought_and_cost(short: Path) -> None:
    result = run("simulate --replication-factor 1,3 --acks 1,all --seeds 2 --jobs 1", short, code=0)
    head, *rows = result.stdout.split("\n\n")[0].splitlines()
    assert head.split()[:2] == ["RF", "ACKS"]
    assert [row.split()[:3] for row in rows] == [
        ["1", "1", "1"],
        ["1", "all", "1"],
        ["3", "1", "1"],
        ["3", "all", "1"],
    ]
    assert "2 runs of 6 s for each row" in result.stdout
    assert "RF 1, acks=all, min ISR 1: " in result.stdout
    assert "every in-sync replica had lost its storage" in result.stdout


def test_json_has_the_fields_that_are_documented(short: Path) -> None:
    result = run("simulate --replication-factor 1,3 --min-isr 2 --seeds 2 --jobs 1 --json", short)
    one, three = json_lines(result)
    assert list(one)[: len(FIELDS)] == FIELDS  # a contract: names and order
    assert list(one) == list(three)
    assert one["queues"] is None
    text = (Path(__file__).parents[2] / "docs" / "cli.md").read_text(encoding="utf-8")
    table = text.split("### A combination of settings, simulated")[1]
    assert all(f"`{field}`" in table for field in one)
    assert (one["replication_factor"], one["min_insync_replicas"], one["acks"]) == (1, 1, "all")
    assert (three["replication_factor"], three["min_insync_replicas"]) == (3, 2)
    assert one["lost"] > 0
    assert three["lost"] == 0
    assert one["violations"] == three["violations"] == 0
    assert one["seeds"] == 2
    assert one["disk_bytes"] < three["disk_bytes"]
    assert one["commit_latency_p50_ms"] <= one["commit_latency_p99_ms"]


QUEUE = "mirrored-queue --set duration_ms=8000 --set queues.work_ms=50"


def test_what_becomes_of_a_queues_messages_is_told_in_text_json_and_the_report(
    tmp_path: Path,
) -> None:
    page = tmp_path / "out.html"
    words = f"simulate {QUEUE} --replication-factor 1,3 --seeds 2 --jobs 1"
    one, three = json_lines(run(f"{words} --json --report", page))
    for told in (one, three):
        queues = told["queues"]
        assert queues["confirmed"] == told["acknowledged"] > 0
        assert queues["lost"] == told["lost"] == queues["acknowledgements_lost"] == 0
        assert queues["confirmed"] >= queues["acknowledged"] > 0
        assert queues["delivered"] >= queues["acknowledged"]
    confirmed = f"{three['queues']['confirmed']:,}"
    again = f"{three['queues']['redelivered']:,}"
    head, *rows = run(words).stdout.split("Messages of queues:\n")[1].splitlines()[:3]
    assert head.split()[4:6] == ["CONFIRMED", "DELIVERED"]
    assert rows[1].split()[:2] == ["3", "all"]
    assert {confirmed, again} <= set(rows[1].split())
    text = page.read_text(encoding="utf-8")
    assert f"<td>{confirmed}</td>" in text
    assert "messages of queues" in text


def test_a_queue_that_promises_nothing_loses_and_explains_it() -> None:
    words = f"simulate {QUEUE} --replication-factor 1 --seeds 3 --jobs 1 --json --explain --set"
    (told,) = json_lines(run(words, "random_faults.per_minute={lose_disk = 20}"))
    assert told["violations"] == 0
    assert told["queues"]["lost"] == told["lost"] > 0
    assert told["lost_because"] == {
        "every in-sync replica had lost its storage at one time": told["lost"]
    }
    loss = told["losses"][0]
    assert loss["what"] == "records"
    assert any("has an empty disk" in cause for cause in loss["causes"])


def test_the_number_of_processes_makes_no_difference(short: Path) -> None:
    words = "simulate --replication-factor 1,2 --seeds 10 --json --jobs"
    assert run(f"{words} 1", short).stdout == run(f"{words} 2", short).stdout


def test_losses_are_explained_in_text_and_json(short: Path) -> None:
    words = "simulate --replication-factor 1 --seeds 1 --explain"
    (told,) = json_lines(run(f"{words} --json", short))
    loss = told["losses"][0]
    assert loss["seed"] == 1
    assert loss["partition"] == "orders-0"
    assert loss["reasons"] == ["every in-sync replica had lost its storage at one time"]
    assert any("has an empty disk" in cause for cause in loss["causes"])
    assert sum(len(each["record_ids"]) for each in told["losses"]) == told["lost"]
    text = run(words, short).stdout
    assert f"{loss['record_ids'][0]} to {loss['record_ids'][-1]}" in text
    assert loss["causes"][0] in text


def test_a_trace_is_the_same_every_time(short: Path) -> None:
    first = run("simulate --seed-start 3 --trace", short).stdout
    assert first == run("simulate --seed-start 3 --trace", short).stdout
    assert first != run("simulate --seed-start 4 --trace", short).stdout
    assert "without its disk" in first


def test_what_is_kept_can_be_opened_and_dumped(short: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    run("simulate --keep", kept, short)
    assert sorted(path.name for path in kept.iterdir()) == ["broker-0", "broker-1", "broker-2"]
    (partition,) = kept.glob("broker-1/**/orders-0")
    run("check", partition)
    lines = json_lines(run("dump --json", partition))
    assert lines[0]["base_offset"] == 0
    with PartitionLog(str(partition), read_only=True) as log:
        assert log.log_end_offset == lines[-1]["last_offset"] + 1 > 100
    result = run("simulate --keep", kept, short, code=2)
    assert "a new or an empty directory is needed" in result.stderr


def test_the_report_is_a_page_that_needs_nothing_else(short: Path, tmp_path: Path) -> None:
    page = tmp_path / "out.html"
    words = "simulate --replication-factor 1,3 --acks 1,all --seeds 2 --jobs 1 --report"
    run(words, page, short)
    text = page.read_text(encoding="utf-8")
    root = ElementTree.fromstring(text.removeprefix("<!DOCTYPE html>\n"))
    tags = [element.tag for element in root.iter()]
    assert tags.count("svg") == 6  # four comparisons, and two runs: the worst and the best
    assert not {"script", "link", "img", "iframe"} & set(tags)
    assert "http" not in text
    words_of_it = "".join(root.itertext())
    for expected in ("RF 1, acks=all, min ISR 1", "broker 2", "high watermark", "records are lost"):
        assert expected in words_of_it
    assert "--replication-factor 1,3" in words_of_it


def test_scenarios_are_listed() -> None:
    text = run("simulate --list").stdout
    listed = json_lines(run("simulate --list --json"))
    assert [each["name"] for each in listed] == built_in_scenarios()
    assert all(each["description"] for each in listed)
    assert all(f"{each['name']}\n" in text for each in listed)


def test_a_broken_promise_ends_with_1_and_the_command_that_shows_it(
    short: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def faulty(scenario: Scenario, seed: int, **options: Any) -> Outcome:
        """What runs a protocol in which a mistake is planted."""
        return run_seed(scenario, seed, bugs=frozenset({"acks-all-after-the-leader"}), **options)

    monkeypatch.setattr("logstore.cli.simulate.run_seed", faulty)
    words = "simulate --set cluster.min_insync_replicas=2 --trace"
    errors = run(words, short, code=1).stderr
    assert "logstore: a promise is broken (" in errors
    assert (
        f"again: logstore simulate {short} --replication-factor 3 --acks all --min-isr 2" in errors
    )
    assert "--set cluster.min_insync_replicas=2 --seed-start 1 --trace" in errors


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ("simulate no-such-one", "no scenario called 'no-such-one'; there are add-broker, "),
        ("simulate --replication-factor 7", "replication_factor=7 needs as many brokers"),
        ("simulate --replication-factor 0", "'0' is none of whole numbers from 1 on"),
        ("simulate --replication-factor 1,x", "'x' is none of whole numbers from 1 on"),
        ("simulate --acks 2", "'2' is none of 0, 1, all"),
        ("simulate --replication-factor 2 --min-isr 3", "min_insync_replicas=3 can never be met"),
        ("simulate --min-isr 0", "0 is not in the range x>=1"),
        ("simulate --seeds 0", "0 is not in the range 1<=x<=1000000"),
        ("simulate --seeds 99999999999999999999", "is not in the range 1<=x<=1000000"),
        ("simulate --report ./absent/page.html", "./absent is no directory that can be written to"),
        ("simulate --jobs 0", "0 is not in the range x>=1"),
        ("simulate --set cluster.acks", "--set cluster.acks: is to be KEY=VALUE"),
        ("simulate --set cluster.ack=1", "a cluster has no option called 'ack'"),
        ("simulate --set disk.sync_us=fast", "sync_us='fast' is out of bounds"),
        ("simulate --trace --seeds 2", "--trace is about one run"),
        ("simulate --trace --acks 1,all", "--trace is about one run"),
        ("simulate --trace --json", "--trace prints lines"),
        ("simulate ./nothing.toml", "nothing.toml: "),
    ],
)
def test_wrong_use_is_one_line(words: str, problem: str) -> None:
    result = run(words, code=2 if "nothing" not in words else 1)
    assert problem in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert result.stdout == ""


def test_a_wrong_scenario_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text("[cluster]\nbroker = 3", encoding="utf-8")
    result = run("simulate", path, code=2)
    assert f"{path}: [cluster] a cluster has no option called 'broker'" in result.stderr


def test_a_value_that_is_set_counts(short: Path) -> None:
    words = "simulate --seeds 1 --json --set"
    slow = json_lines(run(f"{words} disk.sync_us=50000", short))[0]
    quick = json_lines(run(f"{words} disk.sync_us=500", short))[0]
    assert slow["commit_latency_p50_ms"] > 50 > quick["commit_latency_p50_ms"]
    assert json.dumps(slow) != json.dumps(quick)
