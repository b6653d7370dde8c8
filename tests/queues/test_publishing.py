"""Publishing: routing, confirms, returns, and what a batch costs."""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

import logstore
from logstore import (
    AccessRefusedError,
    InvalidInputError,
    NackedError,
    PartitionLog,
    PublishError,
    Store,
    UnknownExchangeError,
    UnknownQueueError,
    UnknownTopicError,
    UnroutableError,
)
from logstore.appending import Acks
from logstore.group_commit import GroupCommit
from logstore.queues import single
from logstore.queues.definitions import QueueDefinition
from logstore.queues.properties import PLAIN, Envelope, Properties, Published
from logstore.queues.publishing import (
    Confirm,
    Outgoing,
    Returned,
    publish,
    publish_alike,
)
from logstore.queues.single import SinglePublisher
from logstore.segments.record import Record

from .broker_support import bodies, stored


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with logstore.open(tmp_path / "store", maintenance_interval=None) as store:
        yield store


# One message --------------------------------------------------------------------------------


def test_a_message_is_stored_with_all_that_was_said_of_it(store: Store) -> None:
    shop, queue = store.exchange("shop", type="topic"), store.queue("q")
    queue.bind(shop, "order.#")
    given: dict[str, Any] = {
        "content_type": "application/json",
        "content_encoding": "utf-8",
        "headers": {"n": 1, "list": ["a", None]},
        "delivery_mode": 2,
        "priority": 7,
        "correlation_id": "c",
        "reply_to": "answers",
        "expiration": 60_000,
        "message_id": "m",
        "timestamp": 1_700_000_000,
        "type": "created",
        "user_id": "u",
        "app_id": "a",
        "delay_ms": 10,
    }
    assert shop.publish(b"body", "order.eu", **given) == Confirm(("q",))
    other = Properties(**{**given, "priority": 1})
    assert shop.publish(b"body", routing_key="order.us", properties=other, priority=2).queues
    first, second = stored(store, queue)
    assert first == Envelope(b"body", Properties(**given), "shop", "order.eu")
    assert second.properties == other._replace(priority=2)


def test_every_queue_that_a_message_is_routed_to_gets_it_once(store: Store) -> None:
    shop = store.exchange("shop", type="topic")
    for name in ("inventory", "shipping"):
        store.queue(name).bind(shop, "order.created")
        store.queue(name).bind(shop, "order.#")
    store.queue("other").bind(shop, "customer.#")
    assert shop.publish(b"x", "order.created").queues == ("inventory", "shipping")
    assert [bodies(store, name) for name in ("inventory", "shipping", "other")] == [[b"x"]] * 2 + [
        []
    ]


def test_the_default_exchange_publishes_to_the_queue_of_that_name(store: Store) -> None:
    store.queue("tasks")
    assert store.exchange("").publish(b"x", "tasks").queues == ("tasks",)
    assert stored(store, "tasks") == [Envelope(b"x", PLAIN, "", "tasks")]


def test_what_no_queue_gets_is_dropped_unless_it_is_mandatory(store: Store) -> None:
    shop = store.exchange("shop", type="direct")
    assert shop.publish(b"x", "k") == Confirm(())
    told: list[Returned] = []
    assert shop.publish(b"x", "k", mandatory=True, on_return=told.append) == Confirm(())
    assert told == [Returned(Envelope(b"x", PLAIN, "shop", "k"), 312, "NO_ROUTE")]
    with pytest.raises(
        UnroutableError, match=r"312 NO_ROUTE.*exchange 'shop' with routing key 'k'"
    ):
        shop.publish(b"x", "k", mandatory=True)
    store.queue("q").bind(shop, "k")
    assert shop.publish(b"x", "k", mandatory=True, on_return=told.append).queues == ("q",)
    assert len(told) == 1


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("text",), "the body of message 0 is str, not bytes"),
        ((None,), "the body of message 0 is NoneType, not bytes"),
        ((b"", b"key"), "routing_key=b'key' is bytes, not str"),
        ((b"", "k" * 256), "routing_key=.* has 256 bytes: at most 255"),
    ],
)
def test_a_body_or_a_key_that_is_none_is_refused(
    store: Store, arguments: tuple[Any, ...], complaint: str
) -> None:
    with pytest.raises(InvalidInputError, match=complaint):
        store.exchange("amq.fanout").publish(*arguments)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"colour": 1}, "a message has no property colour: there are content_type"),
        ({"priority": 256}, "priority=256 is out of bounds: 0 to 255"),
        ({"expiration": -1}, "expiration=-1 is out of bounds"),
        ({"headers": {"a": {1}}}, "header a is set, which AMQP has no type for"),
        ({"headers": {"CC": "a"}}, "the header CC is a list of routing keys, not 'a'"),
        ({"properties": {"priority": 1}}, "properties are Properties, not dict"),
        ({"acks": 2}, "acks is 0, 1 or 'all', not 2"),
        ({"acks": True}, "acks is 0, 1 or 'all', not True"),
    ],
)
def test_properties_and_options_that_are_none_are_refused_also_where_nobody_listens(
    store: Store, options: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(InvalidInputError, match=complaint):
        store.exchange("amq.fanout").publish(b"", **options)


def test_nobody_publishes_to_an_internal_exchange_but_other_exchanges(store: Store) -> None:
    front = store.exchange("front", type="fanout")
    inner = store.exchange("inner", type="fanout", internal=True)
    inner.bind(front)
    store.queue("q").bind(inner)
    with pytest.raises(AccessRefusedError, match="exchange 'inner' is internal"):
        inner.publish(b"x")
    assert front.publish(b"x").queues == ("q",)


def test_a_deleted_exchange_is_not_there_to_publish_to(store: Store) -> None:
    shop = store.exchange("shop", type="fanout")
    shop.delete()
    with pytest.raises(UnknownExchangeError, match="there is no exchange called 'shop'"):
        shop.publish(b"x")


def test_copies_go_by_cc_and_bcc_and_nobody_is_shown_the_latter(store: Store) -> None:
    for name in ("a", "b", "c"):
        store.queue(name)
    headers = {"CC": ["b", "a"], "BCC": ["c"], "n": 1}
    confirm = store.exchange("").publish(b"x", "a", headers=headers)
    assert confirm.queues == ("a", "b", "c")
    for name in confirm.queues:
        (message,) = store.queue(name).peek()
        assert message.properties.headers == {"CC": ["b", "a"], "n": 1}
        assert message.stored == stored(store, name)[0]  # dead letters go by BCC, too
    assert headers == {"CC": ["b", "a"], "BCC": ["c"], "n": 1}


# Batches ------------------------------------------------------------------------------------


@pytest.fixture
def appends(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, Acks]]:
    """How many records each append of a queue's log had, and at which acks."""
    found: list[tuple[int, Acks]] = []
    real = PartitionLog.append

    def append(log: PartitionLog, records: Any, *, acks: Acks = "all", **options: Any) -> Any:
        if "queues" in log.directory:
            found.append((len(records), acks))
        return real(log, records, acks=acks, **options)

    monkeypatch.setattr(PartitionLog, "append", append)
    return found


def test_a_batch_costs_one_append_for_each_queue(
    store: Store, appends: list[tuple[int, Acks]]
) -> None:
    shop = store.exchange("shop", type="topic")
    store.queue("all").bind(shop, "#")
    store.queue("odd").bind(shop, "odd")
    messages = [Outgoing(b"%d" % n, "odd" if n % 2 else "even") for n in range(100)]
    confirms = shop.publish_batch(messages)
    assert [confirm.queues for confirm in confirms[:2]] == [("all",), ("all", "odd")]
    assert sorted(appends) == [(50, "all"), (100, "all")]
    assert bodies(store, "all") == [b"%d" % n for n in range(100)]
    assert bodies(store, "odd") == [b"%d" % n for n in range(1, 100, 2)]
    appends.clear()
    assert len(shop.publish_batch([b"x"] * 500, "odd", acks=1)) == 500
    assert appends == [(500, 1), (500, 1)]


def test_a_batch_costs_one_append_for_each_level_of_priority(
    store: Store, appends: list[tuple[int, Acks]]
) -> None:
    queue = store.queue("q", max_priority=3)
    messages = [Outgoing(b"%d" % n, "q", Properties(priority=n % 6)) for n in range(60)]
    store.exchange("").publish_batch([*messages, Outgoing(b"none", "q")])
    assert sorted(count for count, _ in appends) == [10, 10, 11, 30]
    assert bodies(store, queue, 3) == [b"%d" % n for n in range(60) if n % 6 >= 3]
    assert bodies(store, queue, 0)[-1] == b"none"


@pytest.mark.parametrize("limits", [{}, {"max_length_bytes": 10_000}])
def test_a_batch_larger_than_one_batch_of_the_log_is_appended_in_several(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limits: dict[str, int]
) -> None:
    small = logstore.LogConfig(max_message_bytes=1000, retention_ms=-1)
    monkeypatch.setattr("logstore.queues.open_queues.LOG_CONFIG", small)
    with logstore.open(tmp_path, maintenance_interval=None) as store:
        queue = store.queue("q", **limits)
        messages = [b"%d" % n * 100 for n in range(10, 40)]
        assert len(store.exchange("").publish_batch(messages, "q", headers={"a": "b"})) == 30
        assert bodies(store, queue) == messages
        (level,) = store.queues.work_queue(queue.definition).levels()
        assert level.log.synced_offset == level.log.log_end_offset
        sizes = [batch.header.size for batch in level.log.read(0).batches()]
        assert 5 < len(sizes) <= 15
        assert max(sizes) <= 1000
        too_large = [b"fits", b"x" * 1000, b"fits, too"]
        with pytest.raises(InvalidInputError, match="larger than max_message_bytes=1000"):
            store.exchange("").publish_batch(too_large, "q")
        with pytest.raises(InvalidInputError, match="larger than max_message_bytes=1000"):
            store.exchange("").publish(b"x" * 1000, "q")
        assert bodies(store, queue) == messages
        assert queue.counts().ready == 30


def test_messages_of_a_batch_share_what_they_do_not_have_themselves(store: Store) -> None:
    store.queue("q")
    batch: list[bytes | Outgoing] = [b"a", Outgoing(b"b", "q"), b"c"]
    store.exchange("").publish_batch(batch, "q", priority=3, properties=Properties(type="t"))
    assert [envelope.properties for envelope in stored(store, "q")] == [
        Properties(type="t", priority=3),
        PLAIN,
        Properties(type="t", priority=3),
    ]


def test_an_empty_batch_is_confirmed_and_appends_nothing(
    store: Store, appends: list[tuple[int, Acks]]
) -> None:
    store.queue("q")
    assert list(store.exchange("").publish_batch([], "q")) == []
    assert list(store.exchange("").publish_batch(iter(()), "q")) == []
    assert appends == []


def test_one_message_that_cannot_be_stored_keeps_the_whole_batch_out(
    store: Store, appends: list[tuple[int, Acks]]
) -> None:
    store.queue("q")
    for bad in (
        Outgoing(b"x", "q", Properties(priority=-1)),
        Outgoing(b"x", "k" * 256),
        Outgoing("text", "q"),  # type: ignore[arg-type]
        "text",
        None,
    ):
        with pytest.raises(InvalidInputError):
            store.exchange("").publish_batch([b"good", bad], "q")  # type: ignore[list-item]
    for batch in (b"bytes", "text", 5, Outgoing(b"", "q")):
        with pytest.raises(InvalidInputError, match="a batch is a list of bodies or of Outgoing"):
            store.exchange("").publish_batch(batch, "q")  # type: ignore[arg-type]
    assert appends == []


def test_the_mandatory_messages_of_a_batch_are_returned_and_the_others_stored(
    store: Store,
) -> None:
    store.queue("q")
    batch = [Outgoing(b"1", "q"), Outgoing(b"2", "nobody"), Outgoing(b"3", "q")]
    batch.append(Outgoing(b"4", "nowhere"))
    told: list[Returned] = []
    confirms = store.exchange("").publish_batch(batch, mandatory=True, on_return=told.append)
    assert confirms.unroutable == [1, 3]
    assert [returned.envelope.body for returned in told] == [b"2", b"4"]
    with pytest.raises(UnroutableError, match="NO_ROUTE: no queue gets 2 of 4 mandatory") as caught:
        store.exchange("").publish_batch(batch, mandatory=True)
    assert [r.envelope.routing_key for r in caught.value.confirms.returned] == ["nobody", "nowhere"]
    assert bodies(store, "q") == [b"1", b"3"] * 2
    with pytest.raises(UnroutableError, match="the message that was published to exchange ''"):
        store.exchange("").publish_batch([b"x"], "nobody", mandatory=True)
    assert store.exchange("").publish_batch([b"x"], "nobody").unroutable == [0]


# Confirms -----------------------------------------------------------------------------------


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each queue's log was synced for somebody who waits."""
    found: Counter[str] = Counter()
    real = GroupCommit._run

    def run(commit: Any, waiter: Any) -> None:
        found[Path(commit._directory).name] += "queues" in commit._directory
        real(commit, waiter)

    monkeypatch.setattr(GroupCommit, "_run", run)
    return found


def test_a_confirm_at_all_follows_one_sync_of_each_queue(
    store: Store, synced: Counter[str]
) -> None:
    shop = store.exchange("shop", type="fanout")
    for name in ("a", "b"):
        store.queue(name).bind(shop)
    shop.publish_batch([b"x"] * 10)
    assert sum(synced.values()) == 2
    shop.publish(b"x")
    assert sum(synced.values()) == 4
    unsynced: list[Acks] = [0, 1]
    for acks in unsynced:
        shop.publish(b"x", acks=acks)
        shop.publish_batch([b"x", b"y"], acks=acks)
    assert sum(synced.values()) == 4
    assert len(bodies(store, "a")) == 17


def test_what_a_restart_takes_away_anyway_is_not_synced(store: Store, synced: Counter[str]) -> None:
    store.queue("durable")
    store.queue("lost", durable=False)
    default = store.exchange("")
    default.publish(b"x", "durable", delivery_mode=1)
    default.publish_batch([b"x", b"y"], "durable", delivery_mode=1)
    default.publish(b"x", "lost")
    assert not sum(synced.values())
    mixed = [Outgoing(b"x", "durable", Properties(delivery_mode=mode)) for mode in (1, 2)]
    default.publish_batch(mixed)
    assert sum(synced.values()) == 1


class FullQueue:
    """A queue that takes every other message."""

    def __init__(self, definition: QueueDefinition) -> None:
        self.definition = definition
        self.taken: list[Envelope] = []

    def publish(self, envelopes: Sequence[Envelope], *, acks: Acks) -> Published:
        self.taken += envelopes[::2]
        return Published(range(1, len(envelopes), 2))


def test_what_a_full_queue_refuses_is_told_by_message_and_queue(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = store.exchange("shop", type="fanout")
    full = FullQueue(store.queue("full").definition)
    store.queue("free").bind(shop)
    store.queue("full").bind(shop)
    real = store.queues._open
    monkeypatch.setattr(store.queues, "_open", lambda d: full if d.name == "full" else real(d))
    with pytest.raises(
        NackedError, match=r"2 of 4 messages.*first is message 1, by 'full'"
    ) as caught:
        shop.publish_batch([b"0", b"1", b"2", b"3"])
    confirms = caught.value.confirms
    assert confirms.rejected == {1: ("full",), 3: ("full",)}
    assert (
        list(confirms)
        == [
            Confirm(("free", "full")),
            Confirm(("free", "full"), ("full",)),
        ]
        * 2
    )
    assert confirms[-1].rejected == ("full",)
    assert isinstance(caught.value, PublishError)
    assert bodies(store, "free") == [b"0", b"1", b"2", b"3"]
    assert [envelope.body for envelope in full.taken] == [b"0", b"2"]
    with pytest.raises(NackedError) as caught:
        store.exchange("").publish_batch(
            [Outgoing(b"x", "free"), Outgoing(b"y", "full"), Outgoing(b"z", "full")]
        )
    assert caught.value.confirms.rejected == {2: ("full",)}


def test_a_queue_that_is_deleted_in_the_middle_of_a_publish_is_no_error(store: Store) -> None:
    class Gone:
        is_plain = True

        def __init__(self, definition: QueueDefinition) -> None:
            self.definition = definition

        def publish(self, envelopes: Sequence[Envelope], *, acks: Acks) -> Published:
            raise UnknownQueueError("it was deleted")

        def append_one(self, record: Record, *, acks: Acks) -> None:
            raise UnknownQueueError("it was deleted")

    store.queue("q")
    topology = store.queues._catalogue.topology()
    for confirms in (
        publish([Envelope(b"x", PLAIN, "", "q")], topology=topology, open_queue=Gone, acks=1),
        publish_alike([b"x"], "", "q", PLAIN, topology=topology, open_queue=Gone, acks=1),
    ):
        assert list(confirms) == [Confirm(())]
    publisher = SinglePublisher(Gone)
    for properties in (PLAIN, Properties(expiration=1000)):
        assert publisher.publish(b"x", "", "q", properties, topology, 1) == Confirm(())


def test_a_queue_that_is_deleted_before_it_is_opened_is_no_error(store: Store) -> None:
    def opened(definition: QueueDefinition) -> Any:
        if definition.name == "gone":
            raise UnknownTopicError("it was deleted")
        return store.queues._open(definition)

    for name in ("gone", "here"):
        store.queue(name).bind("amq.fanout")
    topology = store.queues._catalogue.topology()
    publisher = SinglePublisher(opened)
    for properties in (PLAIN, Properties(expiration=60_000), Properties(headers={"a": 1})):
        confirm = publisher.publish(b"x", "amq.fanout", "", properties, topology, 1)
        assert confirm == Confirm(("here",))


def test_a_queue_that_another_handle_deletes_gets_nothing_more(store: Store) -> None:
    store.queue("q").bind("amq.fanout")
    fanout = store.exchange("amq.fanout")
    assert fanout.publish(b"1").queues == ("q",)
    topology = store.queues._catalogue.topology()
    with logstore.open(store.path, maintenance_interval=None) as other:
        other.queue("q").delete()
    # As if this handle had looked a moment before.
    envelopes = [Envelope(b"2", PLAIN, "amq.fanout", "")]
    confirms = publish(envelopes, topology=topology, open_queue=store.queues._open, acks="all")
    assert confirms.unroutable == [0]
    assert fanout.publish(b"3").queues == ()
    store.maintain()
    assert store.queues._opened._queues == {}


def test_a_disk_that_is_full_is_told_as_what_it_is(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.queue("q")

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(PartitionLog, "append", full)
    with pytest.raises(OSError, match="No space left"):
        store.exchange("").publish(b"x", "q")


# Dead letters -------------------------------------------------------------------------------


def test_dead_letters_go_where_their_queue_says(
    store: Store, appends: list[tuple[int, Acks]]
) -> None:
    store.exchange("failed", type="topic", internal=True)
    store.queue("by key").bind("failed", "order.#")
    store.queue("copies").bind("failed", "copy")
    source = store.queue("orders", dead_letter_exchange="failed").definition
    dead: list[tuple[Envelope, Any]] = [
        (Envelope(b"1", Properties(headers={"CC": ["copy"]}), "shop", "order.eu"), "rejected"),
        (Envelope(b"2", Properties(expiration=5), "shop", "order.us"), "expired"),
        (Envelope(b"3", PLAIN, "shop", "unheard of"), "expired"),
    ]
    assert store.queues.publish_dead(source, dead) == 1
    assert sorted(appends) == [(1, "all"), (2, "all")]
    first, second = stored(store, "by key")
    assert (first.body, first.exchange, first.routing_key) == (b"1", "failed", "order.eu")
    assert bodies(store, "copies") == [b"1"]
    assert second.properties.expiration is None
    headers = second.properties.headers or {}
    assert headers["x-death"][0]["queue"] == "orders"
    assert headers["x-death"][0]["original-expiration"] == "5"


def test_dead_letters_without_an_exchange_are_dropped(store: Store) -> None:
    message: list[tuple[Envelope, Any]] = [(Envelope(b"x", PLAIN, "", "q"), "expired")]
    for name, exchange in (("none", None), ("gone", "not there")):
        source = store.queue(name, dead_letter_exchange=exchange).definition
        assert store.queues.publish_dead(source, message) == 1
    assert store.queues.publish_dead(source, []) == 0


def test_a_dead_letter_does_not_go_round_in_circles(store: Store) -> None:
    source = store.queue("q", dead_letter_exchange="", dead_letter_routing_key="q").definition
    for reason, dropped in (("expired", 1), ("maxlen", 1), ("delivery_limit", 1), ("rejected", 0)):
        message: list[tuple[Envelope, Any]] = [(Envelope(b"x", PLAIN, "", "q"), reason)]
        assert store.queues.publish_dead(source, message) == dropped
    # Rejected, it may come again; and then it expires there: nobody has rejected it since.
    (again,) = stored(store, "q")
    assert store.queues.publish_dead(source, [(again, "rejected")]) == 0
    assert store.queues.publish_dead(source, [(again, "expired")]) == 1
    assert len(stored(store, "q")) == 2


# What is kept for single messages ------------------------------------------------------------


def test_what_is_kept_of_a_routing_key_goes_with_the_definitions(store: Store) -> None:
    shop = store.exchange("shop", type="topic")
    store.queue("a").bind(shop, "order.#")
    assert shop.publish(b"1", "order.eu").queues == ("a",)
    with logstore.open(store.path, maintenance_interval=None) as other:
        other.queue("b").bind("shop", "*.eu")
        assert shop.publish(b"2", "order.eu").queues == ("a", "b")
        other.queue("a").unbind("shop", "order.#")
        assert shop.publish(b"3", "order.eu").queues == ("b",)
        other.queue("b").delete()
        assert shop.publish(b"4", "order.eu").queues == ()
        other.queue("b").bind("shop", "order.eu")  # another queue of that name
        assert shop.publish(b"5", "order.eu").queues == ("b",)
        assert bodies(other, "b") == [b"5"]
        other.exchange("shop").delete()
        with pytest.raises(UnknownExchangeError):
            shop.publish(b"6", "order.eu")
    assert bodies(store, "a") == [b"1", b"2"]


def test_no_more_than_so_many_routing_keys_are_kept(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(single, "_MAX_KEPT", 3)
    shop = store.exchange("shop", type="direct")
    queue = store.queue("q")
    for number in range(10):
        queue.bind(shop, str(number))
    for number in range(10):
        assert shop.publish(str(number).encode(), str(number), acks=1).queues == ("q",)
        assert len(store.queues._single._kept[1]) <= 3
    assert bodies(store, "q") == [str(number).encode() for number in range(10)]


@pytest.mark.parametrize("key", [["a"], {}, None, 1, b"q", "x" * 256])
def test_a_routing_key_that_is_none_is_refused_each_time(store: Store, key: Any) -> None:
    store.queue("q")
    for _ in range(2):
        with pytest.raises(InvalidInputError, match="routing_key"):
            store.exchange("").publish(b"x", key)


def test_a_body_that_its_owner_changes_later_is_delivered_as_it_was(store: Store) -> None:
    queue = store.queue("q")
    body = bytearray(b"as it was")
    store.exchange("").publish(body, "q", acks=1)  # type: ignore[arg-type]
    body[:] = b"changed.."
    (message,) = queue.get_many(1)
    assert message.body == b"as it was"
    assert type(message.body) is bytes


@pytest.mark.parametrize("given", [{}, {"type": "t"}, {"headers": {"a": 1}}, {"expiration": 9999}])
def test_a_message_alone_is_stored_like_one_of_a_batch(store: Store, given: dict[str, Any]) -> None:
    shop = store.exchange("shop", type="topic")
    store.queue("q").bind(shop, "#")
    store.queue("full", max_length=10).bind(shop, "#")
    before = store._clock.now_ms()
    shop.publish(b"x", "k", **given)
    shop.publish_batch([b"x"], "k", **given)
    for name in ("q", "full"):
        alone, of_batch = stored(store, name)
        assert alone == of_batch
        (first, second) = store.queue(name).get_many(2)
        assert before <= first.timestamp_ms <= second.timestamp_ms
