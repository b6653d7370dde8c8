"""Apache Kafka's tools read what simulated brokers have written, after power cuts and elections."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from logstore.replication.run import run_seed
from logstore.replication.scenario import load_scenario
from logstore.segments.batch import iter_batches

from . import kafka_tools

WHY_NOT = kafka_tools.available()

pytestmark = [
    pytest.mark.kafka,
    pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT)),
]


def test_kafka_reads_the_logs_of_all_brokers_and_finds_the_epochs_in_them(tmp_path: Path) -> None:
    scenario = load_scenario("power-cut")
    run_seed(scenario, 3, keep=tmp_path)
    logs = sorted(tmp_path.glob("broker-*/orders-*/*.log"))
    indexes = sorted(tmp_path.glob("broker-*/orders-*/*index"))
    assert len(logs) == 9
    dump = kafka_tools.dump_log_segments(logs)
    batches = re.findall(r"^baseOffset: (\d+) .*partitionLeaderEpoch: (\d+) ", dump, re.MULTILINE)
    ours = [
        (str(batch.header.base_offset), str(batch.header.leader_epoch))
        for log in logs
        for batch in iter_batches(log.read_bytes())
    ]
    assert batches == ours
    assert len({epoch for _, epoch in ours}) > 1
    assert "isvalid: false" not in dump
    assert "Mismatches" not in kafka_tools.dump_log_segments(indexes)
