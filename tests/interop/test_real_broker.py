"""A real broker's files read by us, and ours by a real broker; one broker, one story.

Its stations are fixtures, each of which leads on from the one before:

1. `produced`: clients produce to the running broker, and what is on disk is looked at meanwhile.
2. `stopped`: the broker was stopped in order.
3. `moved`: our partitions lie in the place of the broker's; it ran, and its clients read and wrote.
4. `returned`: we opened those partitions and appended; the broker read that, and was then killed.

Each keeps a copy of the broker's files, so that every test looks at the files of its station.
"""

from __future__ import annotations

import base64
import os
import random
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from logstore.config import LogConfig
from logstore.log import PartitionLog
from logstore.segments import filenames
from logstore.segments.batch import iter_batches
from logstore.segments.check import check
from logstore.segments.checkpoint import parse_partition_metadata
from logstore.segments.compression import Codec
from logstore.segments.files import DiskFiles
from logstore.segments.header import TimestampType
from logstore.segments.record import Record
from logstore.topic import adopt_topic_id
from tests.cli.program import json_lines, run

from . import kafka_broker
from .comparing import assert_same
from .kafka_broker import Broker
from .written import START_MS, Partition, Row, Writer

WHY_NOT = kafka_broker.available()
pytestmark = [
    pytest.mark.kafka,
    pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT)),
]
if WHY_NOT is None:
    import confluent_kafka

    from .consuming import TIMESTAMP_TYPES, Message, Reader, expected_from

DEADLINE_S = 30
CLEAN_SHUTDOWN = ".kafka_cleanshutdown"
CODECS = ("none", "gzip", "snappy", "lz4", "zstd")
SMALL_SEGMENTS = {"internal.segment.bytes": "20000", "index.interval.bytes": "500"}
TOPICS = {
    **{f"plain-{codec}": {} for codec in CODECS},
    "keyed": SMALL_SEGMENTS,
    "stamped": {"message.timestamp.type": "LogAppendTime", **SMALL_SEGMENTS},
    "idempotent": SMALL_SEGMENTS,
    "transactional": {},
    "busy": SMALL_SEGMENTS,
    "compacted": {
        "cleanup.policy": "compact",
        "min.cleanable.dirty.ratio": "0.01",
        **SMALL_SEGMENTS,
    },
}
Account = dict[str, list[Record]]
"""What was produced, by topic, with the offsets and timestamps that the broker confirmed."""


# Producing ------------------------------------------------------------------------------------


class Sender:
    """A producer that keeps account of what was confirmed."""

    def __init__(self, broker: Broker, account: Account, **config: Any) -> None:
        self._account = account
        self._failed: list[str] = []
        self.producer: Any = confluent_kafka.Producer(
            {
                "bootstrap.servers": broker.address,
                "linger.ms": 20,
                "batch.size": 8000,  # several batches in each segment
                "log_level": 0,
                **{key.replace("_", "."): value for key, value in config.items()},
            }
        )

    def send(self, topic: str, records: Sequence[Record]) -> None:
        """Produce records to partition 0, and return when every one is confirmed."""
        for record in records:
            self.producer.produce(
                topic,
                value=record.value,
                key=record.key,
                partition=0,
                headers=list(record.headers),
                on_delivery=self._confirm(topic, record),
                **({"timestamp": record.timestamp} if record.timestamp >= 0 else {}),
            )
        assert self.producer.flush(DEADLINE_S) == 0, f"{topic}: not all was confirmed"
        assert self._failed == []

    def _confirm(self, topic: str, record: Record) -> Callable[[Any, Any], None]:
        def confirmed(error: Any, message: Any) -> None:
            if error is not None:
                self._failed.append(str(error))
                return
            _, timestamp = message.timestamp()
            placed = record._replace(offset=message.offset(), timestamp=timestamp)
            self._account.setdefault(topic, []).append(placed)

        return confirmed


def some_records(count: int, *, seed: int) -> list[Record]:
    """Records with and without keys, values and headers, which compress well."""
    rng = random.Random(seed)
    records = []
    for index in range(count):
        key = rng.choice((None, b"", b"k%d" % rng.randint(0, 20)))
        value = rng.choice((None, b"", bytes(range(256)), b"the same again, " * rng.randint(1, 9)))
        headers = rng.choice(
            ((), (("name", b"value"),), (("a", b"1"), ("a", None), ("", b""), ("ключ", b"\xff")))
        )
        records.append(Record(timestamp=START_MS + index, key=key, value=value, headers=headers))
    return records


def keyed_records(count: int, *, seed: int) -> list[Record]:
    """Records of few keys, some of them tombstones."""
    rng = random.Random(seed)
    return [
        Record(
            timestamp=START_MS + index,
            key=b"k%d" % rng.randint(0, 30),
            value=None if rng.random() < 0.05 else b"%d " % index * 20,
        )
        for index in range(count)
    ]


def produce_transactions(broker: Broker, account: Account) -> set[int]:
    """Commit one, abort one, with others' records between; return the offsets of the aborted."""
    plain = Sender(broker, account)
    sender = Sender(broker, account, transactional_id="story", compression_type="lz4")
    sender.producer.init_transactions(DEADLINE_S)
    aborted: set[int] = set()
    for number, commit in enumerate((True, False, True)):
        sender.producer.begin_transaction()
        sender.send("transactional", some_records(30, seed=100 + number))
        if not commit:
            aborted = {record.offset for record in account["transactional"][-30:]}
        plain.send("transactional", some_records(5, seed=200 + number))
        if commit:
            sender.producer.commit_transaction(DEADLINE_S)
        else:
            sender.producer.abort_transaction(DEADLINE_S)
    return aborted


# Looking --------------------------------------------------------------------------------------


class Dumped(NamedTuple):
    """What `dump --json --records` says of a partition."""

    batches: list[dict[str, Any]]
    records: list[Record]
    controls: list[tuple[int, str]]
    """Offset and kind of each control record."""


def dumped(directory: Path) -> Dumped:
    found = Dumped([], [], [])
    for fields in json_lines(run("dump --json --records", directory)):
        if fields["type"] == "batch":
            assert fields["crc_ok"]
            found.batches.append(fields)
        elif "control" in fields:
            found.controls.append((fields["offset"], fields["control"]))
        else:
            assert fields["type"] == "record", fields
            found.records.append(_record(fields))
    return found


def _record(fields: dict[str, Any]) -> Record:
    headers = [(_name(name), _bytes(value)) for name, value in fields["headers"]]
    key, value = _bytes(fields["key"]), _bytes(fields["value"])
    return Record(fields["offset"], fields["timestamp"], key, value, tuple(headers))


def _bytes(value: Any) -> bytes | None:
    if isinstance(value, dict):
        return base64.b64decode(value["base64"])
    return None if value is None else str(value).encode()


def _name(value: Any) -> str:
    return (_bytes(value) or b"").decode("utf-8", "surrogateescape")


def damage(path: Path) -> list[dict[str, Any]]:
    """What `check --json` calls damage, of a partition or of everything."""
    result = run("check --json", path, code=None)
    found = [line for line in json_lines(result) if line["type"] == "damage"]
    assert result.exit_code == (1 if found else 0)
    return found


def read_all(log: PartitionLog) -> list[Record]:
    """Everything but control records, as a reader gets it who does not care for transactions."""
    records: list[Record] = []
    offset = log.log_start_offset
    while offset < log.log_end_offset:
        for batch in iter_batches(log.read(offset).data):
            if not batch.header.control:
                records += batch.records()
            offset = batch.header.next_offset
    return records


def read_only(directory: Path) -> list[Record]:
    with PartitionLog(directory, read_only=True) as log:
        return read_all(log)


def zeros_at_the_end(directory: Path) -> bool:
    """Whether the active segment's index has the full size that a running broker gives it."""
    data = max(directory.glob("*.index")).read_bytes()
    return len(data) > 60_000 and not any(data[-8000:])


# The story ------------------------------------------------------------------------------------


@dataclass
class Produced:
    """What was produced, and what was seen on disk while the broker ran."""

    account: Account
    aborted: set[int]
    while_running: dict[str, tuple[Dumped, list[Record]]]
    damage_while_busy: list[dict[str, Any]]
    preallocated: bool
    ids: dict[str, Any]


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    root = tmp_path_factory.mktemp("broker")
    with Broker(root) as broker:
        yield broker
    shutil.rmtree(root)


@pytest.fixture(scope="module")
def produced(broker: Broker) -> Produced:
    broker.start()
    ids = broker.create_topics(TOPICS)
    account: Account = {}
    for seed, codec in enumerate(CODECS):
        sender = Sender(broker, account, compression_type=codec)
        for part in range(3):
            sender.send(f"plain-{codec}", some_records(50, seed=10 * seed + part))
    sender = Sender(broker, account)
    for part in range(4):
        sender.send("keyed", keyed_records(200, seed=20 + part))
        sender.send("stamped", some_records(200, seed=30 + part))
        sender.send("compacted", keyed_records(300, seed=40 + part))
    once = Sender(broker, account, enable_idempotence=True, compression_type="zstd")
    for part in range(4):
        once.send("idempotent", some_records(300, seed=50 + part))
    aborted = produce_transactions(broker, account)
    wait_for_the_cleaner(broker.partition("compacted"), len(account["compacted"]))
    found = check_while_producing(broker, account)
    seen = {
        topic: (dumped(broker.partition(topic)), read_only(broker.partition(topic)))
        for topic in TOPICS
        if topic != "compacted"
    }
    preallocated = zeros_at_the_end(broker.partition("keyed"))
    return Produced(account, aborted, seen, found, preallocated, ids)


def wait_for_the_cleaner(directory: Path, produced: int) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while len(read_only(directory)) > produced // 2:
        assert time.monotonic() < deadline, "the broker has not compacted the topic"
        time.sleep(0.1)


def check_while_producing(broker: Broker, account: Account) -> list[dict[str, Any]]:
    """Check everything, again and again, while somebody appends."""
    sender = Sender(broker, account, linger_ms=0)
    problems: list[BaseException] = []

    def produce() -> None:
        try:
            for part in range(60):
                sender.send("busy", some_records(40, seed=60 + part))
        except BaseException as problem:  # noqa: BLE001 - raised in the test's own thread
            problems.append(problem)

    thread = threading.Thread(target=produce)
    thread.start()
    found = []
    while thread.is_alive():
        found += damage(broker.partition("busy"))
    thread.join()
    assert problems == []
    return found + damage(broker.logs)


@pytest.fixture(scope="module")
def stopped(broker: Broker, produced: Produced) -> Path:
    broker.stop()
    return keep(broker, "stopped")


def keep(broker: Broker, name: str) -> Path:
    return Path(shutil.copytree(broker.logs, broker.root / name))


@dataclass
class Moved:
    """Our partitions, after the broker has had them."""

    partitions: list[Partition]
    consumed: dict[str, list[Message]]
    committed: list[Message]
    """What a read_committed consumer got of our transactions."""
    further: Account
    """What clients produced behind our records."""
    files: Path
    ids: dict[str, Any]


@pytest.fixture(scope="module")
def moved(
    broker: Broker,
    stopped: Path,
    partitions: list[Partition],
    tmp_path_factory: pytest.TempPathFactory,
) -> Moved:
    ours = [*partitions, compacted_partition(tmp_path_factory.mktemp("compacted"))]
    broker.start()
    ids = broker.create_topics({each.name: topic_config(each.config) for each in ours})
    broker.stop()
    for partition in ours:
        move_in(partition.directory, broker.partition(partition.name), ids[partition.name])
    # The broker then builds indexes, transaction indexes and the state of producers anew.
    (broker.logs / CLEAN_SHUTDOWN).unlink()
    broker.start()
    reader = Reader(broker.address, errors=broker.said)
    consumed = reader.read({each.name: 0 for each in ours})
    committed = reader.read({"transactions": 0}, isolation="read_committed")["transactions"]
    further: Account = {}
    sender = Sender(broker, further)
    for partition in ours:
        sender.send(partition.name, keyed_records(3, seed=70))
    broker.stop()
    return Moved(ours, consumed, committed, further, keep(broker, "moved"), ids)


def compacted_partition(root: Path) -> Partition:
    """Compacted by us: the account is cut down to the last record of each key."""
    writer = Writer(root, "ours-compacted", cleanup_policy="compact", segment_bytes=9000)
    records = [record for record in keyed_records(600, seed=80) if record.value is not None]
    for start in range(0, len(records), 20):
        writer.append(records[start : start + 20], Codec(start // 20 % 5))
    active = writer.log.segments[-1]
    result = writer.log.compact(force=True)
    assert result.records_dropped > 0, result.reason
    last = {row.record.key: row.record.offset for row in writer.rows if row.record.offset < active}
    writer.rows = [
        row
        for row in writer.rows
        if row.record.offset >= active or last[row.record.key] == row.record.offset
    ]
    return writer.finish()


def topic_config(config: LogConfig) -> dict[str, str]:
    """The settings of ours that the broker should know. (It would compact again: never here.)"""
    return {
        "message.timestamp.type": config.message_timestamp_type,
        "cleanup.policy": config.cleanup_policy,
        "min.cleanable.dirty.ratio": "1",
    }


def move_in(source: Path, place: Path, topic_id: Any) -> None:
    """Put a partition in the place of the broker's; files that only we know come along."""
    shutil.rmtree(place)
    shutil.copytree(source, place)
    for name in (filenames.CLEANER_CHECKPOINT, filenames.LOG_START_CHECKPOINT):
        if not (place / name).exists():
            (place / name).write_text("0\n0\n", encoding="ascii")
    assert {"lock", "state"} <= set(os.listdir(place))
    adopt_topic_id(place, topic_id)


@dataclass
class Returned:
    """The same partitions, after we appended to them, and the broker after us."""

    read_by_us: dict[str, list[Record]]
    appended: dict[str, list[Record]]
    consumed: dict[str, list[Message]]
    account: Account
    """What was produced last, before the broker was killed."""
    files: Path


@pytest.fixture(scope="module")
def returned(broker: Broker, moved: Moved) -> Returned:
    read_by_us, appended = {}, {}
    for partition in moved.partitions:
        with PartitionLog(broker.partition(partition.name), config=partition.config) as log:
            new = [Record(timestamp=START_MS + n, key=b"ours", value=b"%d" % n) for n in range(3)]
            end = log.append(new, codec=Codec.ZSTD)
            records = read_all(log)
        read_by_us[partition.name] = records[:-3]
        appended[partition.name] = records[-3:]
        assert [record.offset for record in records[-3:]] == list(
            range(end.base_offset, end.last_offset + 1)
        )
    broker.start()
    reader = Reader(broker.address, errors=broker.said)
    consumed = reader.read({each.name: 0 for each in moved.partitions})
    account: Account = {}
    sender = Sender(broker, account, acks="all")
    for topic in ("keyed", "apache", "plain-none"):
        sender.send(topic, some_records(400, seed=90))
    open_end = Sender(broker, account, transactional_id="open")
    open_end.producer.init_transactions(DEADLINE_S)
    open_end.producer.begin_transaction()
    open_end.send("transactional", some_records(20, seed=91))
    broker.kill()
    return Returned(read_by_us, appended, consumed, account, keep(broker, "killed"))


# The broker's files, read by us -----------------------------------------------------------------


def agrees(produced: Produced, topic: str, found: Dumped, read: list[Record]) -> None:
    expected = sorted(produced.account[topic])
    assert_same(found.records, expected, f"dump of {topic}")
    assert_same(read, expected, f"PartitionLog on {topic}")


@pytest.mark.parametrize("topic", [topic for topic in TOPICS if topic != "compacted"])
def test_we_read_what_was_produced_to_a_running_broker(produced: Produced, topic: str) -> None:
    agrees(produced, topic, *produced.while_running[topic])


@pytest.mark.parametrize("topic", [topic for topic in TOPICS if topic != "compacted"])
def test_we_read_what_was_produced_to_a_stopped_broker(
    produced: Produced, stopped: Path, topic: str
) -> None:
    directory = stopped / f"{topic}-0"
    agrees(produced, topic, dumped(directory), read_only(directory))


def test_check_finds_no_damage_while_the_broker_runs_and_clients_produce(
    produced: Produced,
) -> None:
    assert produced.damage_while_busy == []
    assert produced.preallocated, "the indexes of the active segment were to be of full size"


def test_check_finds_no_damage_in_everything_of_a_stopped_broker(stopped: Path) -> None:
    assert damage(stopped) == []
    assert len(list((stopped / "keyed-0").glob("*.log"))) > 1


def test_batches_are_as_the_client_was_told_to_send_them(stopped: Path) -> None:
    for codec in CODECS:
        found = {batch["codec"] for batch in dumped(stopped / f"plain-{codec}-0").batches}
        # The client leaves a batch as it is that compressing would make larger: one record, say.
        assert codec in found
        assert found <= {codec, "none"}
    once = dumped(stopped / "idempotent-0").batches
    assert len({batch["producer_id"] for batch in once}) == 1
    assert once[0]["producer_id"] >= 0
    sequences = [(batch["base_sequence"], batch["base_offset"]) for batch in once]
    assert all(sequence == offset for sequence, offset in sequences)
    stamped = dumped(stopped / "stamped-0").batches
    assert {batch["timestamp_type"] for batch in stamped} == {"LogAppendTime"}


def test_control_records_are_marked_and_aborted_records_are_shown(
    produced: Produced, stopped: Path
) -> None:
    found = dumped(stopped / "transactional-0")
    assert [kind for _, kind in found.controls] == ["commit", "abort", "commit"]
    assert produced.aborted
    assert produced.aborted < {record.offset for record in found.records}
    everything = [record.offset for record in found.records] + [at for at, _ in found.controls]
    assert sorted(everything) == list(range(len(everything)))
    aborts = json_lines(run("dump --json", *(stopped / "transactional-0").glob("*.txnindex")))
    assert [(each["first_offset"], each["last_offset"]) for each in aborts] == [
        (min(produced.aborted), found.controls[1][0])
    ]


def test_a_topic_that_the_broker_has_compacted_holds_the_last_record_of_every_key(
    produced: Produced, stopped: Path
) -> None:
    sent = sorted(produced.account["compacted"])
    found = dumped(stopped / "compacted-0").records
    assert len(found) < len(sent) // 2
    assert set(found) <= set(sent)
    assert {r.key: r for r in found} == {r.key: r for r in sent}
    assert_same(read_only(stopped / "compacted-0"), found, "compacted")


# Our files, read by the broker ------------------------------------------------------------------


def test_the_brokers_consumer_reads_our_partitions(moved: Moved) -> None:
    for partition in moved.partitions:
        expected = expected_from(partition, 0)
        assert_same(moved.consumed[partition.name], expected, partition.name)


def test_a_consumer_of_committed_records_does_not_see_what_was_aborted_in_ours(
    moved: Moved,
) -> None:
    (partition,) = [each for each in moved.partitions if each.name == "transactions"]
    committed = committed_rows(partition)
    assert 0 < len(committed) < len(expected_from(partition, 0))
    expected = [Message(row.record, TIMESTAMP_TYPES[row.timestamp_type]) for row in committed]
    assert_same(moved.committed, expected, "committed transactions")


def committed_rows(partition: Partition) -> list[Row]:
    """The rows of transactions that were committed, up to the first one that is still open."""
    open_rows: dict[int, list[Row]] = {}
    committed: list[Row] = []
    rows = {row.record.offset: row for row in partition.rows}
    for path in partition.logs:
        for batch in iter_batches(path.read_bytes()):
            producer, records = batch.header.producer_id, batch.records()
            if not batch.header.control:
                open_rows.setdefault(producer, []).extend(rows[r.offset] for r in records)
                continue
            ended = open_rows.pop(producer, [])
            if rows[records[0].offset].control == "COMMIT":
                committed += ended
    end = min((found[0].record.offset for found in open_rows.values()), default=1 << 63)
    return sorted(row for row in committed if row.record.offset < end)


def test_further_records_stand_behind_ours(moved: Moved) -> None:
    for partition in moved.partitions:
        further = moved.further[partition.name]
        end = partition.rows[-1].record.offset + 1 if partition.rows else 0
        assert [record.offset for record in further] == [end, end + 1, end + 2], partition.name
        expected = sorted([*partition.records, *further])
        found = dumped(moved.files / f"{partition.name}-0").records
        assert_same(found, expected, partition.name)


def test_the_broker_leaves_our_own_files_alone(moved: Moved) -> None:
    for partition in moved.partitions:
        directory = moved.files / f"{partition.name}-0"
        assert (directory / "state").read_bytes() == (partition.directory / "state").read_bytes()
        assert (directory / "lock").exists()
        data = (directory / filenames.PARTITION_METADATA).read_bytes()
        assert parse_partition_metadata(data).topic_id == moved.ids[partition.name]


def test_check_finds_no_damage_in_what_the_broker_gives_back(moved: Moved) -> None:
    """That its epochs begin below those of a log that had more of them is a note."""
    assert damage(moved.files) == []


# And back ---------------------------------------------------------------------------------------


def test_we_read_on_and_append_where_the_broker_stopped(moved: Moved, returned: Returned) -> None:
    for partition in moved.partitions:
        expected = sorted([*partition.records, *moved.further[partition.name]])
        assert_same(returned.read_by_us[partition.name], expected, partition.name)


def test_the_broker_reads_on_what_we_appended(moved: Moved, returned: Returned) -> None:
    for partition in moved.partitions:
        append_time = partition.config.message_timestamp_type == TimestampType.LOG_APPEND.label
        kind = TIMESTAMP_TYPES[TimestampType(append_time)]
        new = [*moved.further[partition.name], *returned.appended[partition.name]]
        expected = [*expected_from(partition, 0), *(Message(record, kind) for record in new)]
        assert_same(returned.consumed[partition.name], expected, partition.name)


def test_everything_confirmed_is_there_after_the_broker_was_killed(
    produced: Produced, moved: Moved, returned: Returned
) -> None:
    assert not (returned.files / CLEAN_SHUTDOWN).exists()
    assert zeros_at_the_end(returned.files / "keyed-0")
    before = {**produced.account, "apache": expected_records(moved, returned, "apache")}
    for topic, last in returned.account.items():
        expected = sorted([*before[topic], *last])
        directory = returned.files / f"{topic}-0"
        assert_same(dumped(directory).records, expected, f"dump of {topic}")
        assert_same(read_only(directory), expected, f"PartitionLog on {topic}")


def expected_records(moved: Moved, returned: Returned, topic: str) -> list[Record]:
    (partition,) = [each for each in moved.partitions if each.name == topic]
    return [*partition.records, *moved.further[topic], *returned.appended[topic]]


def test_check_finds_no_damage_after_the_broker_was_killed(returned: Returned) -> None:
    found = damage(returned.files)
    assert {Path(each["file"]).parent.name for each in found} == {"transactions-0"}


def test_a_killed_brokers_partition_can_be_appended_to(returned: Returned, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(returned.files / "keyed-0", tmp_path / "keyed-0"))
    before = read_only(copy)
    with PartitionLog(copy) as log:
        assert log.append([Record(key=b"k", value=b"v")]).base_offset == before[-1].offset + 1
        assert_same(read_all(log)[:-1], before, "keyed")
    assert [each for each in check(DiskFiles(), str(copy)) or () if each.severity == "damage"] == []
