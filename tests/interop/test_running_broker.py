"""The commands that look into files, on the directory of a broker that runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.program import json_lines, run
from tests.cli.test_foreign import LOOKING, listing

from . import kafka_broker
from .kafka_broker import Broker

WHY_NOT = kafka_broker.available()
pytestmark = [
    pytest.mark.kafka,
    pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT)),
]
RECORDS = 300


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    import confluent_kafka

    with Broker(tmp_path_factory.mktemp("broker")) as broker:
        broker.start()
        broker.create_topics({"orders": {"index.interval.bytes": "500"}})
        producer = confluent_kafka.Producer(
            {"bootstrap.servers": broker.address, "log_level": 0, "batch.size": 2000}
        )
        for number in range(RECORDS):
            producer.produce("orders", b"value %d" % number, b"key", 0)
        assert producer.flush(30) == 0
        yield broker


@pytest.mark.parametrize("command", LOOKING)
def test_looking_into_it_works_and_changes_nothing(broker: Broker, command: str) -> None:
    directory = broker.partition("orders")
    before = listing(directory)
    run(command, directory)
    assert listing(directory) == before


def test_it_holds_what_was_produced(broker: Broker) -> None:
    directory: Path = broker.partition("orders")
    shown = json_lines(run("replay --json", directory))
    assert len(shown) == RECORDS
    entries = json_lines(run("index --json", directory))
    assert entries
    assert {entry["verdict"] for entry in entries} == {"right"}


def test_repair_refuses_it(broker: Broker) -> None:
    names = set(listing(broker.logs))
    for path in (broker.logs, broker.partition("orders")):
        assert "a Kafka broker (process " in run("repair", path, code=1).stderr
    assert not {name for name in set(listing(broker.logs)) - names if name.endswith("lock")}


def test_the_lag_of_its_groups_is_told_from_its_files(broker: Broker) -> None:
    import confluent_kafka

    group = {"bootstrap.servers": broker.address, "group.id": "billing", "log_level": 0}
    consumer = confluent_kafka.Consumer({**group, "enable.auto.commit": False})
    place = confluent_kafka.TopicPartition("orders", 0, 120)
    consumer.commit(offsets=[place], asynchronous=False)
    consumer.close()
    lags = [
        line
        for line in json_lines(run("stats --json", broker.partition("orders")))
        if line["type"] == "group-lag"
    ]
    (lag,) = lags
    assert (lag["group"], lag["offset"], lag["lag"]) == ("billing", 120, RECORDS - 120)
