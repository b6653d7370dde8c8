"""Queues as sources and sinks of a replay, and exchanges as sinks."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import logstore
from logstore import Store
from logstore.errors import (
    InvalidInputError,
    OffsetOutOfRangeError,
    StoreNotFoundError,
    UnknownExchangeError,
    UnknownQueueError,
)
from logstore.json_records import record_line
from logstore.queues.properties import Properties
from logstore.queues.queue_face import Queue
from logstore.replay.engine import Replay
from logstore.replay.errors import ReplayError
from logstore.replay.expressions import compile_expression
from logstore.replay.filters import Filters, HeaderFilter, change_headers
from logstore.replay.message_records import message_of
from logstore.replay.queue_source import QueueSource, open_queue
from logstore.replay.registry import SinkOptions, SourceOptions, open_sink, open_source
from logstore.replay.resume import ResumeFile
from logstore.replay.source import Range
from logstore.segments.files import DiskFiles

from .support import read_all, row

PROPERTIES: dict[str, Any] = {
    "headers": {
        "text": "a",
        "number": 5,
        "flag": True,
        "when": datetime(2024, 5, 1, tzinfo=UTC),
        "list": [1, "b"],
        "none": None,
        "bytes": b"\xff",
    },
    "priority": 1,
    "content_type": "application/json",
    "message_id": "m-1",
}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with logstore.open(tmp_path / "store", maintenance_interval=None) as store:
        shop = store.exchange("shop", type="topic")
        queue = store.queue("payments", max_priority=1, retention_ms=-1)
        queue.bind(shop, "order.#")
        shop.publish(b'{"n": 1}', "order.eu", **PROPERTIES)
        shop.publish(b'{"n": 2}', "order.us")
        yield store


@contextlib.contextmanager
def source_of(store: Store, name: str = "payments", **wanted: Any) -> Iterator[QueueSource]:
    with contextlib.closing(open_queue(name, str(store.path), Range(**wanted))) as source:
        yield source


@contextlib.contextmanager
def sink_of(text: str, store: Store | Path, **options: Any) -> Iterator[Any]:
    path = store.path if isinstance(store, Store) else store
    with contextlib.ExitStack() as stack:
        yield open_sink(text, SinkOptions(stack, str(path), **options))


def replay(store: Store, to: str, *, target: Store | None = None, **options: Any) -> int:
    with source_of(store) as source, sink_of(to, target or store) as sink:
        outcome = Replay(source, sink, **options).run()
        sink.close()
    return outcome.delivered


def taken(queue: Queue) -> list[tuple[bytes, str, str, Properties]]:
    return [
        (message.body, message.exchange, message.routing_key, message.properties)
        for message in queue.get_many(100)
    ]


# Sources ------------------------------------------------------------------------------------


def test_a_queue_is_replayed_with_what_it_has_acknowledged(store: Store) -> None:
    queue = store.queue("payments")
    message = queue.get()
    assert message is not None
    message.ack(flush=True)
    ledger = queue.counts()
    with source_of(store) as source:
        one, other = read_all(source)
        assert source.partitions == 2
        assert source.progress(source.start) == (0, 2)
        assert source.newest() == other.timestamp
    assert [(r.topic, r.partition, r.offset, r.key, r.value) for r in (one, other)] == [
        ("payments", 1, 0, b"order.eu", b'{"n": 1}'),
        ("payments", 0, 0, b"order.us", b'{"n": 2}'),
    ]
    assert queue.counts() == ledger


@pytest.mark.parametrize(
    ("expression", "holds"),
    [
        ('headers.text == "a"', True),
        ('headers.number == "5"', True),
        ('headers.flag == "true" and headers.list.startswith("[1")', True),
        ('headers.get("amqp.exchange") == "shop"', True),
        ('headers.get("amqp.priority") == "1"', True),
        ('key == "order.eu" and json.n == 1', True),
        ('headers.get("amqp.type") == null', True),
        ("partition == 0", False),
    ],
)
def test_expressions_see_properties_headers_and_routing_key(
    store: Store, expression: str, holds: bool
) -> None:
    with source_of(store) as source:
        record = read_all(source)[0]
    assert compile_expression(expression)(record) is holds


def test_ranges_and_filters_choose_messages(store: Store) -> None:
    for number in range(5):
        store.exchange("shop").publish(b"%d" % number, "order.late", headers={"n": number})
    with source_of(store, last=2) as source:
        assert [record.value for record in read_all(source)] == [b'{"n": 1}', b"3", b"4"]
    with source_of(store, offset=4) as source:
        assert [record.value for record in read_all(source)] == [b"3", b"4"]
    with source_of(store) as source, pytest.raises(OffsetOutOfRangeError):
        open_queue("payments", str(store.path), Range(offset=99))
    test = Filters(key_glob="*.late", headers=[HeaderFilter("n", b"3")]).test()
    assert replay(store, "queue:payments", test=test) == 1


def test_a_queue_without_a_message_has_nothing_to_replay(store: Store) -> None:
    store.queue("empty")
    with source_of(store, "empty", last=3) as source:
        assert read_all(source) == []
    with pytest.raises(UnknownQueueError):
        open_source("queue:nowhere", SourceOptions(str(store.path)))
    with pytest.raises(InvalidInputError, match="of which store"):
        open_source("queue:payments", SourceOptions())


# Sinks --------------------------------------------------------------------------------------


def test_a_queue_gets_messages_as_they_were(store: Store) -> None:
    before = taken(store.queue("payments"))
    copy = store.queue("copy")
    assert replay(store, "queue:copy") == 2
    assert sorted(taken(copy)) == sorted(before)


def test_headers_are_dropped_and_added_on_the_way(store: Store) -> None:
    copy = store.queue("copy")
    transform = change_headers(
        ["n*", "amqp.message_id", "bytes"], [("number", b"6"), ("more", b"x")]
    )
    replay(store, "queue:copy", transform=transform, limit=1)
    ((_, _, _, properties),) = taken(copy)
    assert properties.headers == {
        **{name: PROPERTIES["headers"][name] for name in ("text", "flag", "when", "list")},
        "number": "6",
        "more": "x",
    }
    assert (properties.message_id, properties.priority) == (None, 1)


def test_an_exchange_routes_by_the_messages_keys_or_by_one_for_all(store: Store) -> None:
    eu, late = store.queue("eu"), store.queue("late")
    store.exchange("other", type="direct")
    eu.bind("other", "order.eu")
    late.bind("other", "late")
    assert replay(store, "exchange:other", limit=1) == 1
    assert [one[:3] for one in taken(eu)] == [(b'{"n": 1}', "other", "order.eu")]
    assert replay(store, "exchange:other/late") == 2
    assert [one[:3] for one in taken(late)] == [
        (b'{"n": 1}', "other", "late"),
        (b'{"n": 2}', "other", "late"),
    ]


def test_a_message_that_nobody_gets_ends_the_replay(store: Store) -> None:
    store.exchange("other", type="direct")
    store.queue("eu").bind("other", "order.eu")
    with pytest.raises(ReplayError, match=r"by routing key 'order.us'; .* payments-0, offset 0"):
        replay(store, "exchange:other")
    store.queue("full", max_length=1, overflow="reject-publish")
    with pytest.raises(ReplayError, match="queue 'full' is full, and refuses"):
        replay(store, "queue:full")
    assert store.queue("full").counts().ready == 1


def test_another_store_can_be_the_target(store: Store, tmp_path: Path) -> None:
    with logstore.open(tmp_path / "other", maintenance_interval=None) as other:
        queue = other.queue("copy")
        assert replay(store, "queue:copy", target=other) == 2
        assert queue.counts().ready == 2
    assert [one.name for one in store.queues.queues()] == ["payments"]


def test_sinks_that_are_not_there_are_refused(store: Store, tmp_path: Path) -> None:
    with pytest.raises(UnknownQueueError), sink_of("queue:nowhere", store):
        pass
    with pytest.raises(UnknownExchangeError), sink_of("exchange:nowhere", store):
        pass
    with pytest.raises(StoreNotFoundError), sink_of("queue:copy", tmp_path / "none"):
        pass
    assert not (tmp_path / "none").exists()
    with (
        contextlib.ExitStack() as stack,
        pytest.raises(InvalidInputError, match="of which store"),
    ):
        open_sink("exchange:shop", SinkOptions(stack))


def test_an_interrupted_replay_goes_on_without_repeating(store: Store, tmp_path: Path) -> None:
    copy = store.queue("copy")
    for limit in (1, None):
        with source_of(store) as source, sink_of("queue:copy", store) as sink:
            identity = {"source": source.identity, "sink": sink.identity}
            resume = ResumeFile(str(tmp_path / "resume"), identity, files=DiskFiles())
            with contextlib.closing(resume):
                Replay(source, sink, limit=limit, resume=resume).run()
            sink.close()
    assert [one[0] for one in taken(copy)] == [b'{"n": 1}', b'{"n": 2}']
    level = store.queues.work_queue(copy.definition).level(0)
    assert level.log.synced_offset == 2


def test_records_of_a_topic_become_messages(store: Store) -> None:
    message = message_of(row(0, b"v", key=b"k", headers=(("a", b"1"), ("b", b"\xff"), ("c", None))))
    assert (message.body, message.routing_key, message.exchange) == (b"v", "k", "")
    assert message.properties.headers == {"a": "1", "b": b"\xff", "c": None}
    with sink_of("queue:payments", store) as sink:
        for strange in (
            row(7, b"", key=b"\xff"),
            row(7, b"", headers=(("amqp.priority", b"high"),)),
            row(7, b"", headers=(("amqp.table", b"\0"),)),
        ):
            with pytest.raises(ReplayError, match="from t-0, offset 7"):
                sink.write([strange])
        assert sink.delivered == 0


def test_json_lines_carry_messages_to_another_queue(store: Store, tmp_path: Path) -> None:
    before = taken(store.queue("payments"))
    with source_of(store) as source:
        (tmp_path / "lines").write_bytes(b"".join(map(record_line, read_all(source))))
    copy = store.queue("copy")
    options = SourceOptions(str(store.path))
    lines = open_source(f"file:{tmp_path}/lines", options)
    with contextlib.closing(lines), sink_of("queue:copy", store) as sink:
        Replay(lines, sink).run()
        sink.close()
    assert sorted(taken(copy)) == sorted(before)
