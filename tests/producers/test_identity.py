"""Who a producer is: ids and epochs, names that come back, and instances that are fenced."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import logstore
from logstore import (
    InvalidInputError,
    OutOfOrderSequenceError,
    PartitionLog,
    ProducerFencedError,
    ProducerStamp,
    ReadOnlyError,
    Record,
    Store,
    UnknownTopicError,
)
from logstore.producer_ids import BLOCK, Identity
from logstore.producer_states import MAX_EPOCH, NAMED_IDS, SEQUENCES

from .support import HOUR_MS, batches, open_store, values

LONG = {"linger_ms": HOUR_MS, "delivery_timeout_ms": HOUR_MS}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    with open_store(path) as opened:
        opened.create_topic("events", partitions=2)
        yield opened


def deliver(store: Store, *names: str, partition: int = 0, **options: Any) -> None:
    """Send by a producer of its own."""
    with store.producer(**LONG, **options) as producer:
        futures = [producer.send("events", n.encode(), partition=partition) for n in names]
        producer.flush()
        for future in futures:
            future.result(0)


def identities(store: Store, partition: int = 0) -> list[tuple[int, int, int]]:
    """Id, epoch and first sequence of each batch."""
    headers = [batch.header for batch in batches(store.topic("events").partition(partition))]
    return [(h.producer_id, h.producer_epoch, h.base_sequence) for h in headers]


# ids ------------------------------------------------------------------------------------------


def test_each_producer_has_an_id_of_its_own_and_begins_at_0(store: Store, path: Path) -> None:
    for _ in range(3):
        deliver(store, "a", "b")
    with open_store(path) as other:
        deliver(other, "c")
    found = identities(store)
    assert len({producer_id for producer_id, _, _ in found}) == 4
    assert {(epoch, sequence) for _, epoch, sequence in found} == {(0, 0)}
    assert all(1 << 40 < producer_id < NAMED_IDS for producer_id, _, _ in found)


def test_a_handle_takes_its_ids_by_the_block(store: Store) -> None:
    definitions = store._metadata.log
    before = definitions.log_end_offset
    taken = {store.producer(**LONG)._identity for _ in range(3)}
    assert definitions.log_end_offset == before + 1
    assert len(taken) == 3
    ids = store._producer_ids
    more = {ids.take().producer_id for _ in range(BLOCK)}
    assert definitions.log_end_offset == before + 2
    assert len(more) == BLOCK
    assert not more & {identity.producer_id for identity in taken if identity}


def test_ids_are_not_given_out_again_where_the_clock_was_set_back(path: Path) -> None:
    class Clock(logstore.clock.SystemClock):
        ms = 1_700_000_000_000

        def now_ms(self) -> int:
            return self.ms

    clock = Clock()
    seen: set[int] = set()
    for ms in (1_700_000_000_000, 1_600_000_000_000, 1_700_000_000_000, 1_700_000_000_001):
        clock.ms = ms
        with open_store(path, clock=clock) as store:
            ids = {store._producer_ids.take().producer_id for _ in range(BLOCK)}
            assert not seen & ids
            seen |= ids
    assert min(seen) == 1_700_000_000_000 * BLOCK


def test_without_idempotence_batches_bear_no_producer(store: Store) -> None:
    before = store._metadata.log.log_end_offset
    deliver(store, "a", enable_idempotence=False)
    assert identities(store) == [(-1, -1, -1)]
    assert store._metadata.log.log_end_offset == before
    with (
        store.producer(enable_idempotence=False) as producer,
        pytest.raises(InvalidInputError, match="next_sequence needs enable_idempotence"),
    ):
        producer.next_sequence("events", 0)
    assert not list(Path(store.path).rglob("*.snapshot"))


def test_a_store_that_is_only_read_has_no_producers(store: Store, path: Path) -> None:
    with (
        logstore.open(path, read_only=True) as reader,
        pytest.raises(ReadOnlyError, match="opened for reading only"),
    ):
        reader.producer()


# names ----------------------------------------------------------------------------------------


def test_a_named_producer_comes_back_with_its_id_a_higher_epoch_and_its_sequences(
    store: Store, path: Path
) -> None:
    deliver(store, "a", "b", producer_name="importer")
    deliver(store, "c", producer_name="importer")
    deliver(store, "d", partition=1, producer_name="importer")
    with open_store(path) as other:
        deliver(other, "e", "f", producer_name="importer")
        deliver(other, "x", producer_name="somebody else")
    found = identities(store)
    producer_id = found[0][0]
    assert producer_id >= NAMED_IDS
    assert found[:3] == [(producer_id, 0, 0), (producer_id, 1, 2), (producer_id, 3, 3)]
    assert found[3][0] not in (-1, producer_id)
    assert identities(store, 1) == [(producer_id, 2, 0)]


def test_the_next_sequence_is_how_many_records_a_name_has_sent(store: Store) -> None:
    with store.producer(producer_name="importer", **LONG) as producer:
        assert [producer.next_sequence("events", partition) for partition in (0, 1)] == [0, 0]
        for number in range(5):
            producer.send("events", b"%d" % number, partition=0)
        assert producer.next_sequence("events", 0) == 5  # what waits counts
        producer.flush()
        assert [producer.next_sequence("events", partition) for partition in (0, 1)] == [5, 0]
        with pytest.raises(UnknownTopicError):
            producer.next_sequence("events", 2)
    with store.producer(producer_name="importer", **LONG) as producer:
        assert producer.next_sequence("events", 0) == 5
    # Others do not count.
    deliver(store, "x")
    deliver(store, "y", producer_name="other")
    with store.producer(producer_name="importer", **LONG) as producer:
        assert producer.next_sequence("events", 0) == 5


def test_a_name_is_never_forgotten(path: Path) -> None:
    class Clock(logstore.clock.SystemClock):
        ms = 1_700_000_000_000

        def now_ms(self) -> int:
            return self.ms

    clock = Clock()
    with open_store(path, clock=clock) as store:
        store.create_topic("events", partitions=1, retention_ms=1000, segment_bytes=200)
        deliver(store, *map(str, range(20)), producer_name="importer", batch_size=100)
        clock.ms += 100 * 24 * HOUR_MS
        log = store.topic("events").partition(0)
        log.retain()
        assert values(store) == []
    clock.ms += 100 * 24 * HOUR_MS
    with (
        open_store(path, clock=clock) as store,
        store.producer(producer_name="importer", **LONG) as producer,
    ):
        assert producer.next_sequence("events", 0) == 20


def test_a_restored_backup_knows_its_producers(store: Store, tmp_path: Path) -> None:
    with store.producer(producer_name="importer", **LONG) as producer:
        for number in range(5):
            producer.send("events", b"%d" % number, partition=0)
        producer.flush()
        store.backup(tmp_path / "backups")
        producer.send("events", b"behind the backup", partition=0)
    logstore.restore(tmp_path / "backups", tmp_path / "restored")
    with open_store(tmp_path / "restored") as restored:
        deliver(restored, "5", producer_name="importer")
        assert values(restored) == list("012345")
        found = identities(restored)
        assert found[0][0] == found[1][0]
        assert [numbers[1:] for numbers in found] == [(0, 0), (1, 5)]


def test_an_older_instance_is_fenced_at_once(store: Store, path: Path) -> None:
    with open_store(path) as other:
        older = store.producer(producer_name="importer", **LONG)
        older.send("events", b"a", partition=0).running()
        older.flush()
        outstanding = older.send("events", b"lost", partition=0)
        younger = other.producer(producer_name="importer", **LONG)
        # The younger one has written nothing yet.
        older.flush()
        expected = r"producer 'importer' is fenced.*started, with epoch 1; this one has 0"
        with pytest.raises(ProducerFencedError, match=expected):
            outstanding.result(0)
        with pytest.raises(ProducerFencedError, match=expected):
            older.send("events", b"b", partition=0)
        with pytest.raises(ProducerFencedError):
            older.next_sequence("events", 0)
        older.close()
        assert younger.next_sequence("events", 0) == 1
        younger.send("events", b"c", partition=0)
        younger.close()
    assert values(store) == ["a", "c"]


def test_an_older_instance_that_was_just_checked_is_fenced_by_the_log(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    older = store.producer(producer_name="importer", **LONG)
    future = older.send("events", b"older", partition=0)
    deliver(store, "younger", producer_name="importer")
    # It has looked who it is, and was stopped ahead of the append.
    monkeypatch.setattr(older._sender, "_check_fenced", lambda identity: None)
    older._accumulator.incomplete[future._batch].next_sequence = 1
    older.flush()
    with pytest.raises(ProducerFencedError, match="epoch 0 is fenced: another instance"):
        future.result(0)
    older.close()
    assert values(store) == ["younger"]


def stamped(log: PartitionLog, identity: Identity | None, sequence: int, value: bytes) -> None:
    assert identity is not None
    stamp = ProducerStamp(identity.producer_id, identity.epoch, sequence)
    log.append([Record(value=value)], producer=stamp)


def test_a_number_that_the_program_relies_on_is_not_changed_behind_its_back(
    store: Store,
) -> None:
    log = store.topic("events").partition(0)
    older = store.producer(producer_name="importer", **LONG)
    with store.producer(producer_name="importer", **LONG) as younger:
        assert younger.next_sequence("events", 0) == 0
        stamped(log, older._identity, 0, b"stopped ahead of its append, and goes on now")
        future = younger.send("events", b"the first", partition=0)
        younger.flush()
        with pytest.raises(OutOfOrderSequenceError, match="sequence 0, where 1 was expected"):
            future.result(0)
    older.close()
    assert len(values(store)) == 1


def test_a_number_that_nobody_relies_on_is_looked_up_again(store: Store) -> None:
    log = store.topic("events").partition(0)
    older = store.producer(producer_name="importer", **LONG)
    with store.producer(producer_name="importer", **LONG) as younger:
        future = younger.send("events", b"younger", partition=0)
        younger._accumulator.incomplete[future._batch].next_sequence = 0
        stamped(log, older._identity, 0, b"older")
        younger.flush()
        assert future.result(0).offset == 1
    older.close()
    assert [sequence for _, _, sequence in identities(store)] == [0, 1]


def test_a_name_whose_epochs_are_used_up_goes_on_with_another_id(store: Store) -> None:
    deliver(store, "a", "b", producer_name="importer")
    deliver(store, "c", partition=1, producer_name="importer")
    first = identities(store)[0][0]
    for _ in range(2):
        [(key, fields)] = store._metadata.items("producer/").items()
        store._metadata.update(lambda view: [(key, {**fields, "epoch": MAX_EPOCH})])  # noqa: B023
        deliver(store, "d", producer_name="importer")
    found = identities(store)
    assert len({producer_id for producer_id, _, _ in found}) == 3
    assert [(epoch, sequence) for _, epoch, sequence in found] == [(0, 0), (0, 2), (0, 3)]
    assert store._producer_ids.start("importer").before == (first, found[1][0])
    # A partition that knows only the first of them goes on as well.
    deliver(store, "e", partition=1, producer_name="importer")
    assert [sequence for _, _, sequence in identities(store, 1)] == [0, 1]


def test_sequences_begin_again_behind_the_largest(store: Store) -> None:
    log = store.topic("events").partition(0)
    with store.producer(producer_name="importer", **LONG) as producer:
        stamped(log, producer._identity, SEQUENCES - 2, b"long ago")
        assert producer.next_sequence("events", 0) == SEQUENCES - 1
        for number in range(3):
            producer.send("events", b"%d" % number, partition=0)
        producer.flush()
        assert producer.next_sequence("events", 0) == 2
        producer.send("events", b"3", partition=0)
    assert values(store) == ["long ago", "0", "1", "2", "3"]


def test_what_one_handle_has_sent_another_one_knows(store: Store, path: Path) -> None:
    """The same producer is checked across handles: the log is what they share."""
    with open_store(path) as other, store.producer(**LONG) as producer:
        producer.send("events", b"a", partition=0)
        producer.flush()
        log = other.topic("events").partition(0)
        stamped(log, producer._identity, 0, b"a")  # once more, by another process
        assert log.log_end_offset == 1
        with pytest.raises(OutOfOrderSequenceError):
            stamped(log, producer._identity, 2, b"c")


def test_a_producer_goes_on_where_its_log_lost_its_end(store: Store) -> None:
    log = store.topic("events").partition(0)
    with store.producer(**LONG) as producer:
        for number in range(4):
            producer.send("events", b"%d" % number, partition=0)
            producer.flush()
        log.truncate(2)
        failed = producer.send("events", b"4", partition=0)
        producer.flush()
        producer.send("events", b"5", partition=0)
        producer.flush()
        assert failed.exception(0) is None
    assert values(store) == ["0", "1", "4", "5"]


@pytest.mark.parametrize(
    "fields", [{}, {"id": "x", "epoch": 0}, {"id": 1, "epoch": 0, "before": 3}, {"id": -1}]
)
def test_a_broken_definition_of_a_name_is_told(store: Store, fields: dict[str, Any]) -> None:
    deliver(store, "a", producer_name="importer")
    [key] = store._metadata.items("producer/")
    store._metadata.update(lambda view: [(key, fields)])
    with pytest.raises(logstore.FormatError, match=r"the definition 'producer/.*' is broken"):
        store.producer(producer_name="importer")
