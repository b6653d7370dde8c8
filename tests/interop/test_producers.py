"""Batches and snapshots of our producers, as Kafka's own classes read them; and its own, continued.

A snapshot of ours says what Kafka's recovery finds in the headers, but for the time, which is that
of the append where records bear an older one.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

import logstore
from logstore import OutOfOrderSequenceError, ProducerFencedError, ProducerStamp, Record
from logstore.log import PartitionLog
from logstore.segments import producer_snapshot
from logstore.segments.producer_snapshot import ProducerEntry

from . import kafka_tools

WHY_NOT = kafka_tools.available()
pytestmark = [
    pytest.mark.kafka,
    pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT)),
]

GOLDEN = Path(__file__).resolve().parent.parent / "golden"
T0 = 1_700_000_000_000


def entries(path: Path) -> dict[int, ProducerEntry]:
    found = producer_snapshot.decode(path.read_bytes())
    return {entry.producer_id: entry for entry in found}


def as_recovered(directory: Path, target: Path, base: int) -> dict[int, ProducerEntry]:
    """What Kafka's recovery of a log of one segment says of its producers."""
    shutil.copytree(directory, target)
    for path in target.glob("*.snapshot"):
        path.unlink()
    assert kafka_tools.oracle("recover", target, str(base), "4096") == "0\n"
    (snapshot,) = target.glob("*.snapshot")
    return entries(snapshot)


def assert_agree(ours: dict[int, ProducerEntry], theirs: dict[int, ProducerEntry]) -> None:
    assert ours.keys() == theirs.keys()
    for producer_id, entry in theirs.items():
        assert ours[producer_id]._replace(timestamp=entry.timestamp) == entry
        assert ours[producer_id].timestamp >= entry.timestamp


def produced(path: Path) -> Path:
    """A partition that several producers, named and not, have written to."""
    with logstore.open(path, maintenance_interval=None) as store:
        store.create_topic("events", segment_bytes=1 << 20)
        for turn in range(3):
            options = {"batch_size": 600, "linger_ms": 60_000, "acks": 1}
            for name in (None, "importer"):
                with store.producer(producer_name=name, **options) as producer:
                    for number in range(30):
                        value = b"%d %d" % (turn, number)
                        producer.send("events", value, key=b"k", headers=[("turn", b"%d" % turn)])
        store.topic("events").partition(0).flush()
    return path / "topics" / "events-0"


def test_kafkas_tools_read_what_producers_write_and_what_is_known_of_them(tmp_path: Path) -> None:
    directory = produced(tmp_path / "store")
    (snapshot,) = directory.glob("*.snapshot")
    known = entries(snapshot)
    assert len(known) == 4
    named = max(known)
    assert (known[named].producer_epoch, known[named].last_sequence) == (2, 89)
    assert {known[key].last_sequence for key in known if key != named} == {29}

    text = kafka_tools.dump_log_segments([directory / f"{0:020}.log", snapshot])
    assert "isvalid: false" not in text
    batches = re.findall(
        r"baseOffset: (\d+) lastOffset: (\d+) .*baseSequence: (\d+) lastSequence: (\d+) "
        r"producerId: (\d+) producerEpoch: (\d+) .*isvalid: true",
        text,
    )
    assert sum(int(last) - int(base) + 1 for base, last, *_ in batches) == 180
    shown = {
        int(line[0]): tuple(map(int, line[1:]))
        for line in re.findall(
            r"producerId: (\d+) producerEpoch: (\d+) coordinatorEpoch: -1 .*"
            r"firstSequence: (\d+) lastSequence: (\d+) lastOffset: (\d+) offsetDelta: (\d+)",
            text,
        )
    }
    assert shown == {
        e.producer_id: (
            e.producer_epoch,
            e.last_sequence - e.offset_delta,
            e.last_sequence,
            e.last_offset,
            e.offset_delta,
        )
        for e in known.values()
    }
    assert_agree(known, as_recovered(directory, tmp_path / "recovered", 0))


def test_a_brokers_producers_that_go_on_here_are_what_kafka_finds(tmp_path: Path) -> None:
    """A log and a snapshot that Kafka wrote: transactions, markers, an open one, two epochs."""
    directory = tmp_path / "golden-0"
    shutil.copytree(GOLDEN / "partition-0", directory)
    theirs = entries(directory / f"{66:020}.snapshot")

    class Clock(logstore.clock.SystemClock):
        def now_ms(self) -> int:
            return T0 + 10_000

    with PartitionLog(directory, clock=Clock()) as log:
        for producer_id, entry in theirs.items():
            state = log.producer_state(producer_id)
            assert state is not None
            assert state.last_sequence == entry.last_sequence
            stamp = ProducerStamp(producer_id, entry.producer_epoch, entry.last_sequence + 1)
            transactional = entry.current_transaction_first_offset >= 0
            stamp = stamp._replace(transactional=transactional)
            record = Record(timestamp=T0 + 500, value=b"goes on")
            appended = log.append([record], producer=stamp)
            assert log.append([record], producer=stamp) == appended
            with pytest.raises(OutOfOrderSequenceError):
                log.append([record], producer=stamp._replace(sequence=stamp.sequence + 2))
            if entry.producer_epoch:
                with pytest.raises(ProducerFencedError):
                    log.append([record], producer=stamp._replace(epoch=entry.producer_epoch - 1))
        assert log.log_end_offset == 66 + len(theirs)
    (snapshot,) = directory.glob("*.snapshot")
    assert int(snapshot.stem) == 66 + len(theirs)
    ours = entries(snapshot)
    assert_agree(ours, as_recovered(directory, tmp_path / "recovered", 50))
    text = kafka_tools.dump_log_segments([directory / f"{50:020}.log", snapshot])
    assert "isvalid: false" not in text
    assert all(f"producerId: {producer_id} producerEpoch" in text for producer_id in theirs)


def test_what_is_known_is_what_kafka_finds_in_every_golden_partition(tmp_path: Path) -> None:
    """From the headers alone, without a snapshot."""
    compared = 0
    for golden in ("v2-idempotent-0", "v2-transactions-0", "v2-control-0"):
        directory = tmp_path / golden
        shutil.copytree(GOLDEN / golden, directory, ignore=shutil.ignore_patterns("*.json"))
        (log_file,) = directory.glob("*.log")
        base = int(log_file.stem)
        theirs = as_recovered(directory, tmp_path / f"recovered-{golden}", base)
        with PartitionLog(directory) as log:
            for producer_id, entry in theirs.items():
                state = log.producer_state(producer_id)
                assert state is not None, (golden, producer_id)
                assert (state.epoch, state.last_sequence, state.last_offset) == (
                    entry.producer_epoch,
                    entry.last_sequence,
                    entry.last_offset,
                )
                assert state.coordinator_epoch == entry.coordinator_epoch
                assert state.transaction_first_offset == entry.current_transaction_first_offset
                compared += 1
    assert compared > 5
