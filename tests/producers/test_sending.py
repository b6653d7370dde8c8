"""Sending: futures, batches, partitions, and how much may wait."""

from __future__ import annotations

import itertools
import random
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from logstore import (
    BufferExhaustedError,
    ClosedError,
    Codec,
    DeliveryFuture,
    InvalidInputError,
    Record,
    RecordMetadata,
    Store,
    UnknownTopicError,
)
from logstore.partitioner import partition_for_key

from .support import HOUR_MS, batches, open_store, stuck, values

LONG = {"linger_ms": HOUR_MS, "delivery_timeout_ms": HOUR_MS}
"""Nothing goes by itself."""


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with open_store(tmp_path / "store") as opened:
        opened.create_topic("events")
        yield opened


# futures --------------------------------------------------------------------------------------


def test_a_record_is_delivered_with_all_its_fields(store: Store) -> None:
    with store.producer() as producer:
        future = producer.send(
            "events", b"v", key=b"k", headers=[("h", b"x"), ("n", None)], timestamp=17
        )
        assert future.result(10) == RecordMetadata("events", 0, 0, 17)
    (batch,) = batches(store.topic("events").partition(0))
    assert batch.records() == [Record(0, 17, b"k", b"v", (("h", b"x"), ("n", None)))]


def test_a_future_tells_what_became_of_its_record(store: Store) -> None:
    with store.producer(**LONG) as producer:
        first = producer.send("events", b"a", timestamp=5)
        second = producer.send("events", b"b", timestamp=7)
        assert not first.done()
        assert first.running()
        assert "on its way" in repr(first)
        with pytest.raises(TimeoutError, match=r"not delivered within 0.01 seconds"):
            second.result(0.01)
        producer.flush()
        assert [first.result(), second.result(0)] == [
            ("events", 0, 0, 5),
            ("events", 0, 1, 7),
        ]
        assert first.done()
        assert first.exception() is None
        assert not first.running()
        assert not first.cancel()
        assert not first.cancelled()
        assert repr(first) == "<DeliveryFuture of 'events', partition 0: delivered>"


def test_a_record_without_a_timestamp_gets_the_time_at_which_it_was_sent(store: Store) -> None:
    clock = store._clock
    with store.producer(**LONG) as producer:
        before = clock.now_ms()
        future = producer.send("events", b"a")
        after = clock.now_ms()
        producer.flush()
        assert before <= future.result().timestamp <= after
    (batch,) = batches(store.topic("events").partition(0))
    assert batch.records()[0].timestamp == future.result().timestamp


def test_the_time_of_the_append_is_told_where_it_counts(store: Store) -> None:
    store.create_topic("stamped", message_timestamp_type="LogAppendTime")
    with store.producer() as producer:
        metadata = producer.send("stamped", b"a", timestamp=5).result(10)
    (batch,) = batches(store.topic("stamped").partition(0))
    assert metadata.timestamp == batch.header.max_timestamp > 5


def test_callbacks_are_called_in_order_and_before_a_flush_returns(store: Store) -> None:
    told: list[tuple[RecordMetadata | None, Exception | None]] = []
    with store.producer(**LONG) as producer:
        main = threading.current_thread()
        threads = set()

        def on_delivery(metadata: RecordMetadata | None, error: Exception | None) -> None:
            threads.add(threading.current_thread())
            told.append((metadata, error))

        for number in range(50):
            producer.send("events", b"%d" % number, timestamp=number, on_delivery=on_delivery)
        assert told == []
        producer.flush()
        assert told == [(("events", 0, number, number), None) for number in range(50)]
        assert main not in threads


def test_a_callback_that_fails_is_logged_and_the_others_are_called(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    told = []

    def fail(metadata: RecordMetadata | None, error: Exception | None) -> None:
        raise RuntimeError("of the program's own")

    with store.producer(**LONG) as producer:
        producer.send("events", b"a", on_delivery=fail)
        producer.send("events", b"b", on_delivery=lambda metadata, error: told.append(metadata))
        producer.flush()
        producer.send("events", b"c", on_delivery=lambda metadata, error: told.append(metadata))
        producer.flush()
    assert [metadata.offset for metadata in told if metadata] == [1, 2]
    assert "of the program's own" in caplog.text


def test_a_future_calls_back_when_it_is_done_and_also_when_it_already_is(store: Store) -> None:
    done: list[DeliveryFuture] = []
    with store.producer(**LONG) as producer:
        future = producer.send("events", b"a")
        future.add_done_callback(done.append)
        producer.flush()
        assert done == [future]
        called = threading.Event()
        future.add_done_callback(lambda future: called.set())
        assert called.wait(10)


def test_a_callback_may_send_and_may_not_wait(store: Store) -> None:
    problems: list[Exception] = []

    def on_delivery(metadata: RecordMetadata | None, error: Exception | None) -> None:
        try:
            producer.send("events", b"sent by a callback")
            producer.flush()
        except Exception as problem:  # noqa: BLE001 - the test looks at it
            problems.append(problem)

    with store.producer() as producer:
        producer.send("events", b"a", on_delivery=on_delivery)
        producer.flush()
    assert values(store) == ["a", "sent by a callback"]
    assert [str(problem) for problem in problems] == [
        "a callback cannot wait for a flush: it is part of it"
    ]


# acks -----------------------------------------------------------------------------------------


def test_what_was_acknowledged_is_read_at_once_and_synced_if_all_was_asked_for(
    store: Store,
) -> None:
    log = store.topic("events").partition(0)
    with store.producer(acks="all") as producer, store.consumer("events") as consumer:
        for number in range(20):
            offset = producer.send("events", b"%d" % number).result(10).offset
            assert log.synced_offset > offset
            assert [record.offset for record in consumer.poll()] == [offset]
    with store.producer(acks=1, linger_ms=0) as producer:
        synced = log.synced_offset
        for _ in range(20):
            offset = producer.send("events", b"x").result(10).offset
            assert log.log_end_offset == offset + 1
        assert log.synced_offset == synced


def test_with_acks_of_0_nobody_waits_and_nothing_is_told_but_to_callbacks(store: Store) -> None:
    told: list[Any] = []
    with store.producer(acks=0, **LONG) as producer:
        future = producer.send(
            "events", b"a", timestamp=3, on_delivery=lambda *what: told.append(what)
        )
        assert future.done()
        assert future.result(0) == ("events", 0, -1, 3)
        assert future.exception(0) is None
        assert values(store) == []
        producer.flush()
        assert told == [(("events", 0, 0, 3), None)]
        assert future.result(0).offset == -1
    assert values(store) == ["a"]


# batches --------------------------------------------------------------------------------------


def test_records_go_in_batches_of_at_most_batch_size(store: Store) -> None:
    with store.producer(batch_size=2000, **LONG) as producer:
        futures = [producer.send("events", b"x" * 100) for _ in range(100)]
        assert futures[0].result(10).offset == 0  # a full batch goes at once
        producer.flush()
    found = list(batches(store.topic("events").partition(0)))
    assert max(batch.header.size for batch in found) <= 2000
    assert {batch.header.record_count for batch in found[:-1]} == {2000 // 131}
    assert [future.result(0).offset for future in futures] == list(range(100))


def test_lingering_collects_what_comes_and_ends_by_itself(store: Store) -> None:
    with store.producer(linger_ms=20) as producer:
        futures = [producer.send("events", b"%d" % number) for number in range(10)]
        assert [future.result(10).offset for future in futures] == list(range(10))
    assert len(list(batches(store.topic("events").partition(0)))) < 10


@pytest.mark.parametrize("options", [{"linger_ms": 0}, {"batch_size": 0}])
def test_without_lingering_each_record_is_written_when_send_returns(
    store: Store, options: dict[str, int]
) -> None:
    with store.producer(acks=1, **options) as producer:
        for number in range(5):
            assert producer.send("events", b"%d" % number).done()
    assert len(list(batches(store.topic("events").partition(0)))) == 5


def test_a_record_larger_than_a_batch_has_one_of_its_own(store: Store) -> None:
    with store.producer(batch_size=500, **LONG) as producer:
        for size in (10, 5000, 10):
            producer.send("events", b"x" * size)
        producer.flush()
    found = [batch.header.record_count for batch in batches(store.topic("events").partition(0))]
    assert found == [1, 1, 1]


@pytest.mark.parametrize("codec", Codec)
def test_batches_are_compressed_as_asked_for(store: Store, codec: Codec) -> None:
    level = {} if codec in (Codec.NONE, Codec.SNAPPY) else {"compression_level": 2}
    with store.producer(compression_type=codec.label, **level, **LONG) as producer:
        for number in range(30):
            producer.send("events", b"%d" % (number % 3) * 50)
    (batch,) = batches(store.topic("events").partition(0))
    assert batch.header.codec is codec
    assert len(batch.records()) == 30


def test_batches_fit_into_what_the_topic_takes(store: Store) -> None:
    store.create_topic("small", max_message_bytes=1000)
    with store.producer(**LONG) as producer:
        futures = [producer.send("small", b"x" * 100) for _ in range(30)]
        producer.flush()
        assert [future.result(0).offset for future in futures] == list(range(30))
        store.alter_topic("small", {"max_message_bytes": 300})
        too_large = producer.send("small", b"x" * 500)
        producer.send("events", b"fits")
        producer.flush()
        with pytest.raises(InvalidInputError, match="max_message_bytes=300"):
            too_large.result(0)
        assert producer.send("small", b"x" * 100).running()
    assert len(values(store, "small")) == 31


# partitions -----------------------------------------------------------------------------------


def test_a_key_decides_about_the_partition_as_in_kafka(store: Store) -> None:
    store.create_topic("wide", partitions=7)
    keys = [b"customer-%d" % number for number in range(100)] + [b""]
    with store.producer(**LONG) as producer:
        futures = {key: producer.send("wide", b"v", key=key) for key in keys}
        producer.flush()
        for key, future in futures.items():
            assert future.result(0).partition == partition_for_key(key, 7)
        # The one that was asked for comes first.
        future = producer.send("wide", b"v", key=keys[0], partition=6)
        producer.flush()
    assert futures[keys[0]].result(0).partition != future.result(0).partition == 6


def test_records_without_a_key_fill_one_batch_after_the_other_on_all_partitions(
    store: Store,
) -> None:
    store.create_topic("wide", partitions=4)
    with store.producer(batch_size=1000, **LONG) as producer:
        producer._rng = random.Random(1)
        futures = [producer.send("wide", b"x" * 100) for _ in range(7 * 60)]
        producer.flush()
    places = [future.result(0).partition for future in futures]
    runs = [places[start : start + 7] for start in range(0, len(places), 7)]
    assert all(len(set(run)) == 1 for run in runs)
    assert all(one[0] != two[0] for one, two in itertools.pairwise(runs))
    counts = Counter(run[0] for run in runs)
    assert set(counts) == {0, 1, 2, 3}
    assert min(counts.values()) > 5


def test_a_function_of_the_program_may_choose_the_partition(store: Store) -> None:
    store.create_topic("wide", partitions=3)
    seen = []

    def choose(topic: str, key: bytes | None, value: bytes | None, count: int) -> int:
        seen.append((topic, key, value, count))
        return len(value or b"") % count

    with store.producer(partitioner=choose, **LONG) as producer:
        futures = [producer.send("wide", b"x" * size, key=b"k") for size in range(6)]
        futures.append(producer.send("wide", b"x", partition=2))
        producer.flush()
    assert [future.result(0).partition for future in futures] == [0, 1, 2, 0, 1, 2, 2]
    assert seen[1] == ("wide", b"k", b"x", 3)
    assert len(seen) == 6


@pytest.mark.parametrize("chosen", [3, -1, "0", None, True])
def test_a_partition_that_is_not_there_is_not_chosen(store: Store, chosen: Any) -> None:
    store.create_topic("wide", partitions=3)
    with (
        store.producer(partitioner=lambda *_: chosen) as producer,
        pytest.raises(InvalidInputError, match=rf"chose {chosen!r} for topic 'wide'.*0 to 2"),
    ):
        producer.send("wide", b"v")


def test_partitions_that_are_added_are_used(store: Store) -> None:
    store.create_topic("wide", partitions=1)
    with store.producer(linger_ms=0) as producer:
        producer.send("wide", b"v", key=b"k")
        store.add_partitions("wide", 5)
        assert producer.send("wide", b"v", partition=4).result(10).partition == 4
        producer._queues["wide"].looked_at -= 1  # a second later
        keys = [b"%d" % number for number in range(30)]
        futures = [producer.send("wide", b"v", key=key) for key in keys]
        places = [future.result(10).partition for future in futures[1:]]
        assert places == [partition_for_key(key, 5) for key in keys[1:]]


def test_what_a_caller_has_to_put_right_raises_at_once(store: Store) -> None:
    with store.producer(max_request_size=1000) as producer:
        for topic in ("nobody", "__metadata "):
            with pytest.raises(UnknownTopicError, match="there is no topic called"):
                producer.send(topic, b"v")
        for partition in (1, -1):
            with pytest.raises(UnknownTopicError, match=f"no partition {partition}"):
                producer.send("events", b"v", partition=partition)
        bad: list[tuple[str, Any]] = [
            ("a value is bytes or None, not str", {"value": "v"}),
            ("a key is bytes or None, not int", {"key": 7}),
            ("a partition's number is an int, not '0'", {"partition": "0"}),
            ("headers are pairs", {"headers": [("name", "text")]}),
            ("headers are pairs", {"headers": [(b"name", b"")]}),
            ("headers are pairs", {"headers": [b"name"]}),
            ("headers are pairs", {"headers": 5}),
            ("timestamp=-1 is out of bounds", {"timestamp": -1}),
            ("timestamp=1.5 is out of bounds", {"timestamp": 1.5}),
            ("timestamp=True is out of bounds", {"timestamp": True}),
            ("max_request_size=1000", {"value": b"x" * 909}),
        ]
        for message, arguments in bad:
            with pytest.raises(InvalidInputError, match=message):
                producer.send("events", **arguments)
        assert producer.send("events", b"x" * 908).result(10).offset == 0
        assert producer.send("events").result(10).offset == 1  # a null value
    assert [r.value for b in batches(store.topic("events").partition(0)) for r in b.records()] == [
        b"x" * 908,
        None,
    ]


def test_the_stores_own_topic_is_not_written_to(store: Store) -> None:
    with store.producer() as producer, pytest.raises(InvalidInputError, match="the store's own"):
        producer.send("__metadata", b"v")


def test_what_is_changed_after_it_was_sent_is_delivered_as_it_was(store: Store) -> None:
    value, key, header = bytearray(b"value"), bytearray(b"key"), bytearray(b"header")
    with store.producer(**LONG) as producer:
        producer.send("events", value, key=memoryview(key), headers=[("h", header)])
        value[:] = key[:] = header[:] = b""
    (batch,) = batches(store.topic("events").partition(0))
    record = batch.records()[0]
    assert (record.value, record.key, record.headers) == (b"value", b"key", (("h", b"header"),))


# memory ---------------------------------------------------------------------------------------


def test_when_the_buffer_is_full_send_waits_and_then_fails(store: Store) -> None:
    options = {"buffer_memory": 4000, "batch_size": 1000, **LONG}
    with store.producer(max_block_ms=0, **options) as producer:
        with stuck(store):
            futures = []
            for number in range(4 * (1000 // 33)):
                futures.append(producer.send("events", b"%02d" % (number % 100)))
                assert producer.buffered_bytes <= 4000
            assert producer.buffered_bytes == 4000
            with pytest.raises(BufferExhaustedError, match=r"max_block_ms=0.*buffer_memory=4000"):
                producer.send("events", b"xx")
        producer.flush()
        assert producer.buffered_bytes == 0
        assert [future.result(0).offset for future in futures] == list(range(len(futures)))
        assert producer.send("events", b"last").running()
    assert values(store)[-1] == "last"


def test_whoever_waits_for_room_goes_on_when_there_is_some(store: Store) -> None:
    with store.producer(buffer_memory=4000, batch_size=1000, **LONG) as producer:
        blocked = threading.Event()
        room = 4 * (1000 // 34)
        count = room + 40

        def send_all() -> None:
            for number in range(count):
                if number == room:
                    blocked.set()
                producer.send("events", b"%03d" % number)

        with stuck(store):
            sender = threading.Thread(target=send_all)
            sender.start()
            assert blocked.wait(10)
            sender.join(0.05)
            assert sender.is_alive()
            assert producer.buffered_bytes == 4000
        sender.join(10)
        assert not sender.is_alive()
    assert values(store) == [f"{number:03}" for number in range(count)]


def test_when_others_fill_the_buffer_what_lingers_goes(store: Store) -> None:
    store.create_topic("wide", partitions=20)
    with store.producer(buffer_memory=4000, batch_size=1000, **LONG) as producer:
        # A batch for each partition would take five times the memory.
        for round_ in range(3):
            for partition in range(20):
                producer.send("wide", b"%d" % round_, partition=partition)
                assert producer.buffered_bytes <= 4000
    for partition in range(20):
        assert values(store, "wide", partition) == ["0", "1", "2"]


# waiting --------------------------------------------------------------------------------------


def test_a_flush_waits_for_what_was_sent_before_it(store: Store) -> None:
    with store.producer(**LONG) as producer:
        producer.flush()
        future = producer.send("events", b"a")
        with stuck(store), pytest.raises(TimeoutError, match="1 batches were not delivered"):
            producer.flush(0.05)
        producer.flush(10)
        assert future.done()


def test_a_close_delivers_what_was_sent_and_may_be_repeated(store: Store) -> None:
    producer = store.producer(**LONG)
    futures = [producer.send("events", b"%d" % number) for number in range(10)]
    producer.close()
    producer.close()
    assert [future.result(0).offset for future in futures] == list(range(10))
    for use in (
        lambda: producer.send("events", b"x"),
        producer.flush,
        lambda: producer.next_sequence("events", 0),
    ):
        with pytest.raises(ClosedError, match="the producer was closed"):
            use()


def test_a_close_that_takes_too_long_gives_up(store: Store) -> None:
    told: list[Any] = []
    producer = store.producer(**LONG)
    with stuck(store):
        future = producer.send("events", b"a", on_delivery=lambda *what: told.append(what))
        producer.close(0.05)
        with pytest.raises(ClosedError, match="closed before it was delivered"):
            future.result(10)
    producer.close(10)
    assert [type(error) for _, error in told] == [ClosedError]
    assert "failed: ClosedError" in repr(future)


def test_an_error_in_the_block_delivers_what_was_sent_all_the_same(store: Store) -> None:
    def fail() -> None:
        with store.producer(**LONG) as producer:
            producer.send("events", b"a")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert values(store) == ["a"]


def test_closing_the_store_closes_its_producers(tmp_path: Path) -> None:
    store = open_store(tmp_path / "other")
    store.create_topic("events")
    producer = store.producer(**LONG)
    future = producer.send("events", b"a")
    store.close()
    assert future.result(0).offset == 0
    with pytest.raises(ClosedError):
        producer.send("events", b"b")
    with open_store(tmp_path / "other") as again:
        assert values(again) == ["a"]


def test_a_producer_that_is_dropped_says_so_and_delivers_all_the_same(store: Store) -> None:
    producers = [store.producer(**LONG)]
    future = producers[0].send("events", b"a")
    with pytest.warns(ResourceWarning, match="unclosed producer"):
        producers.clear()
    assert future.result(10).offset == 0
