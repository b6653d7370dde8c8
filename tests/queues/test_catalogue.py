"""Declaring, binding and deleting exchanges and queues."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

import logstore
from logstore import (
    AccessRefusedError,
    ClosedError,
    InvalidInputError,
    PreconditionFailedError,
    ReadOnlyError,
    ResourceLockedError,
    Store,
    UnknownExchangeError,
    UnknownQueueError,
)
from logstore.queues.definitions import QueueArguments
from logstore.queues.publishing import Confirm
from logstore.queues.queue import Level, QueueCounts, WorkQueue
from logstore.queues.topology import PREDECLARED

from .broker_support import BootFiles, bodies, queue_directories, start_script


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    with logstore.open(path, maintenance_interval=None) as store:
        yield store


def exchange_names(store: Store) -> list[str]:
    """Those of users' exchanges."""
    return [e.name for e in store.queues.exchanges() if e.name not in PREDECLARED]


def queue_names(store: Store) -> list[str]:
    return [queue.name for queue in store.queues.queues()]


def bindings(store: Store) -> list[tuple[str, str, str]]:
    return [(b.source, b.destination, b.routing_key) for b in store.queues.bindings()]


# Exchanges ----------------------------------------------------------------------------------


def test_an_exchange_is_declared_once_and_found_by_its_name(path: Path) -> None:
    with logstore.open(path) as store:
        shop = store.exchange("shop", type="topic", alternate_exchange="spare")
        assert (shop.name, shop.type) == ("shop", "topic")
        again = store.exchange("shop", "topic", alternate_exchange="spare")
        assert again.definition == shop.definition
        assert store.exchange("shop").definition == shop.definition
        assert exchange_names(store) == ["shop"]
    with logstore.open(path, read_only=True) as reader:
        assert reader.exchange("shop").definition == shop.definition
        with pytest.raises(ReadOnlyError):
            reader.exchange("other", type="topic")
        with pytest.raises(ReadOnlyError):
            reader.exchange("shop").publish(b"")
        with pytest.raises(ReadOnlyError):
            reader.exchange("shop").delete()


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"type": "direct"}, "another type: declared now with 'direct', and before with 'topic'"),
        ({"durable": False}, "another durable: declared now with False, and before with True"),
        ({"auto_delete": True}, "another auto_delete: declared now with True"),
        ({"internal": True}, "another internal: declared now with True, and before with False"),
        (
            {"alternate_exchange": "other"},
            "alternate_exchange: declared now with 'other', and before with 'spare'",
        ),
        (
            {"alternate_exchange": None},
            "alternate_exchange: declared now with none, and before with 'spare'",
        ),
    ],
)
def test_an_exchange_declared_again_with_other_arguments_is_refused_by_their_names(
    store: Store, options: dict[str, Any], complaint: str
) -> None:
    first: dict[str, Any] = {"type": "topic", "alternate_exchange": "spare"}
    store.exchange("shop", **first)
    with pytest.raises(
        PreconditionFailedError, match=f"exchange 'shop' is there with.*{complaint}"
    ):
        store.exchange("shop", **{**first, **options})
    assert store.exchange("shop").type == "topic"


def test_the_predeclared_exchanges_are_there_and_stay(store: Store) -> None:
    found = {e.name: e.type for e in store.queues.exchanges()}
    assert found == {
        "": "direct",
        "amq.direct": "direct",
        "amq.fanout": "fanout",
        "amq.headers": "headers",
        "amq.match": "headers",
        "amq.topic": "topic",
    }
    for name, kind in found.items():
        assert store.exchange(name).type == kind
        with pytest.raises(AccessRefusedError, match="is always there: it cannot be deleted"):
            store.exchange(name).delete()
    assert store.exchange("amq.topic", type="topic").name == "amq.topic"
    with pytest.raises(PreconditionFailedError, match=r"'amq\.topic' is there with another type"):
        store.exchange("amq.topic", type="direct")
    with pytest.raises(AccessRefusedError, match="the default exchange is there, and cannot be"):
        store.exchange("", type="direct")
    queue = store.queue("q")
    queue.bind("amq.topic", "a.#")
    assert store.exchange("amq.topic").publish(b"x", "a.b").queues == ("q",)


@pytest.mark.parametrize(
    ("declare", "error", "complaint"),
    [
        (lambda s: s.exchange("amq.mine", type="topic"), AccessRefusedError, "'amq.' are reserved"),
        (lambda s: s.queue("amq.mine"), AccessRefusedError, r"'amq\.mine' is no name for a queue"),
        (
            lambda s: s.exchange("e" * 256, type="topic"),
            InvalidInputError,
            "has 256 bytes: at most",
        ),
        (lambda s: s.queue("é" * 128), InvalidInputError, "has 256 bytes: at most 255"),
        (lambda s: s.queue(b"q"), InvalidInputError, "is bytes, not str"),
        (lambda s: s.exchange(["e"]), InvalidInputError, "is list, not str"),
        (lambda s: s.queue(["q"]), InvalidInputError, "is list, not str"),
        (lambda s: s.queue("\ud800"), InvalidInputError, "is no text that UTF-8 can hold"),
        (
            lambda s: s.exchange("e", type="round"),
            InvalidInputError,
            "one of direct, topic, fanout",
        ),
        (lambda s: s.exchange("e", type="topic", durable=1), InvalidInputError, "True or False"),
        (lambda s: s.queue("q", auto_delete="yes"), InvalidInputError, "True or False, not 'yes'"),
        (lambda s: s.queue("q", colour=1), InvalidInputError, "a queue has no argument 'colour'"),
        (
            lambda s: s.queue("q", max_length=-1),
            InvalidInputError,
            "max_length=-1 is out of bounds",
        ),
        (lambda s: s.exchange("e", "topic", alternate_exchange=5), InvalidInputError, "not str"),
        (lambda s: s.exchange("nobody"), UnknownExchangeError, "give a type to declare one"),
        (lambda s: s.exchange("e", internal=True), InvalidInputError, "give its type, too"),
        (lambda s: s.queue("q", passive=True), UnknownQueueError, "there is no queue called 'q'"),
        (lambda s: s.queue(passive=True), UnknownQueueError, "there is no queue called ''"),
        (lambda s: s.queue("q", passive=True, max_length=1), InvalidInputError, "declares nothing"),
    ],
)
def test_what_cannot_be_declared_is_refused_with_a_reason(
    store: Store, declare: Callable[[Store], object], error: type[Exception], complaint: str
) -> None:
    with pytest.raises(error, match=complaint):
        declare(store)
    assert exchange_names(store) == queue_names(store) == []


def test_names_of_255_bytes_are_fine(store: Store) -> None:
    store.exchange("é" * 127 + "e", type="direct")
    queue = store.queue("q" * 255)
    queue.bind("é" * 127 + "e", "k" * 255)
    assert store.exchange("é" * 127 + "e").publish(b"x", "k" * 255).queues == ("q" * 255,)


def test_deleting_an_exchange_takes_its_bindings_in_both_directions(store: Store) -> None:
    top = store.exchange("top", type="fanout")
    middle = store.exchange("middle", type="fanout")
    queue = store.queue("q")
    middle.bind(top)
    queue.bind(middle)
    queue.bind(top, "kept")
    with pytest.raises(PreconditionFailedError, match="'middle' has bindings: it is in use"):
        middle.delete(if_unused=True)
    assert middle.delete()
    assert bindings(store) == [("top", "q", "kept")]
    assert not middle.delete()
    with pytest.raises(UnknownExchangeError):
        middle.publish(b"")
    store.exchange("middle", type="direct")
    assert bindings(store) == [("top", "q", "kept")]
    unused = store.exchange("unused", type="direct")
    unused.bind(top)  # that something leads to it is no use of it
    assert unused.delete(if_unused=True)


def test_an_auto_delete_exchange_goes_with_the_last_binding_that_leads_from_it(
    store: Store,
) -> None:
    first = store.exchange("first", type="fanout", auto_delete=True)
    second = store.exchange("second", type="fanout", auto_delete=True)
    steady = store.exchange("steady", type="fanout")
    one, other = store.queue("one"), store.queue("other")
    assert exchange_names(store) == ["first", "second", "steady"]  # never bound: it stays
    second.bind(first)
    second.bind(steady)
    one.bind(second)
    other.bind(second, "k")
    assert one.unbind(second)
    assert exchange_names(store) == ["first", "second", "steady"]
    other.delete()  # the last binding of `second`, which is the last one of `first`
    assert exchange_names(store) == ["steady"]
    assert bindings(store) == []


# Queues -------------------------------------------------------------------------------------


def test_a_queue_is_declared_once_with_its_arguments(path: Path) -> None:
    with logstore.open(path) as store:
        queue = store.queue("tasks", dead_letter_exchange="failed", **{"x-message-ttl": 60})
        assert queue.definition.arguments == QueueArguments(
            message_ttl_ms=60, dead_letter_exchange="failed"
        )
        again = store.queue("tasks", message_ttl=60, dead_letter_exchange="failed")
        assert again.definition == queue.definition
    with logstore.open(path) as store:
        assert store.queue("tasks").definition == queue.definition
        assert store.queue("tasks", passive=True).definition == queue.definition
        assert queue_names(store) == ["tasks"]


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"max_length": 6}, "another max_length: declared now with 6, and before with 5"),
        ({"max_length": None}, "another max_length: declared now with none, and before with 5"),
        ({"message_ttl": 1}, "another message_ttl_ms: declared now with 1, and before with none"),
        ({"durable": False}, "another durable: declared now with False, and before with True"),
        ({"auto_delete": True}, "another auto_delete: declared now with True"),
    ],
)
def test_a_queue_declared_again_with_other_arguments_is_refused_by_their_names(
    store: Store, options: dict[str, Any], complaint: str
) -> None:
    store.queue("q", max_length=5)
    with pytest.raises(PreconditionFailedError, match=f"queue 'q' is there with {complaint}"):
        store.queue("q", **{"max_length": 5, **options})


def test_a_queue_declared_again_with_another_exclusive_is_locked(store: Store) -> None:
    store.queue("all", max_length=5)
    store.queue("own", exclusive=True)
    complaint = "another exclusive: declared now with True, and before with False"
    with pytest.raises(ResourceLockedError, match=f"queue 'all' is there with {complaint}"):
        store.queue("all", exclusive=True)  # its other arguments are not looked at
    with pytest.raises(ResourceLockedError, match="declared now with False, and before with True"):
        store.queue("own", exclusive=False)


def test_a_queue_without_a_name_gets_one_of_its_own(store: Store) -> None:
    names = {store.queue().name for _ in range(3)} | {store.queue("", exclusive=True).name}
    assert len(names) == 4
    assert all(name.startswith("amq.gen-") and len(name) == 30 for name in names)
    name = min(names)
    assert store.queue(name).name == name  # a name that was given is asked for again


def test_deleting_a_queue_takes_its_bindings_and_its_files(store: Store) -> None:
    shop = store.exchange("shop", type="direct")
    queue = store.queue("q", max_priority=2)
    queue.bind(shop, "k")
    for priority in (0, 2):
        shop.publish(b"x", "k", priority=priority)
    hexed = queue.definition.queue_id.hex
    assert queue_directories(store) == [f"{hexed}-0", f"{hexed}-2"]
    assert queue.delete()
    assert queue_directories(store) == queue_names(store) == []
    assert bindings(store) == []
    assert shop.publish(b"x", "k").queues == ()
    assert not queue.delete()
    younger = store.queue("q")
    assert younger.definition.queue_id != queue.definition.queue_id
    assert not queue.delete()  # another queue of that name is none of its business
    assert bodies(store, "q") == []
    with pytest.raises(UnknownQueueError):
        store.queue("p", passive=True)


def test_a_queue_is_deleted_if_it_is_empty_and_unused_and_not_otherwise(store: Store) -> None:
    queue = store.queue("q", max_priority=2)
    assert store.exchange("").publish(b"x", "q", priority=1).queues == ("q",)
    with pytest.raises(PreconditionFailedError, match=r"queue 'q' is not empty \(messages: 1\)"):
        queue.delete(if_empty=True)
    message = queue.get()
    assert message is not None
    in_use = pytest.raises(PreconditionFailedError, match=r"'q' is in use \(consumers: 1\)")
    with queue.consume(), in_use:
        queue.delete(if_unused=True, if_empty=True)
    assert queue.delete(if_unused=True, if_empty=True)  # what was delivered is not in it
    assert queue_directories(store) == []
    assert not queue.delete(if_empty=True)
    assert store.queue("never used").delete(if_empty=True)


def test_nobody_publishes_to_a_queue_between_the_look_into_it_and_its_end(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = store.queue("q")
    default = store.exchange("")
    default.publish(b"x", "q")
    queue.purge()
    found: list[Confirm] = []
    publisher = threading.Thread(target=lambda: found.append(default.publish(b"late", "q")))
    counts = WorkQueue.counts_in

    def counts_and_publishes(work_queue: WorkQueue, levels: Sequence[Level]) -> QueueCounts:
        before = counts(work_queue, levels)
        if not publisher.is_alive():
            publisher.start()
            publisher.join(0.3)
            assert publisher.is_alive(), "it was not kept waiting"
        return before

    monkeypatch.setattr(WorkQueue, "counts_in", counts_and_publishes)
    assert queue.delete(if_empty=True)
    publisher.join(60)
    assert found == [Confirm(())]  # it was told that no queue has it


def test_a_queue_that_was_not_empty_takes_messages_as_before(store: Store) -> None:
    queue = store.queue("q")
    default = store.exchange("")
    for number in range(3):
        default.publish(b"%d" % number, "q")
        with pytest.raises(PreconditionFailedError):
            queue.delete(if_empty=True)
    assert bodies(store, "q") == [b"0", b"1", b"2"]


def test_the_ledger_of_a_deleted_queue_is_forgotten(store: Store) -> None:
    forgotten: list[object] = []
    store.queues._opened.on_deletion.append(forgotten.append)
    queue = store.queue("q")
    queue.delete()
    assert forgotten == [queue.definition.queue_id]
    store.queues._opened.finish_deletions()
    assert len(forgotten) == 1


# Bindings -----------------------------------------------------------------------------------


def test_bindings_are_made_once_and_unbound_by_all_that_they_say(store: Store) -> None:
    shop = store.exchange("shop", type="headers")
    queue = store.queue("q")
    for arguments in ({"a": 1}, {"a": 1}, {"a": 2, "x-match": "any"}):
        queue.bind(shop, "k", arguments)
    found = sorted((dict(b.arguments) for b in store.queues.bindings()), key=len)
    assert found == [{"a": 1}, {"a": 2, "x-match": "any"}]
    assert not queue.unbind(shop, "k", {"a": 3})
    assert not queue.unbind(shop, "other", {"a": 1})
    assert queue.unbind("shop", "k", {"a": 1})
    assert not queue.unbind("shop", "k", {"a": 1})
    (left,) = store.queues.bindings()
    assert left.arguments == {"a": 2, "x-match": "any"}
    assert not queue.unbind("nobody", "k")
    shop.delete()
    assert not shop.unbind("amq.direct", "k")
    queue.delete()
    assert not queue.unbind(shop, "k", {"a": 2, "x-match": "any"})


@pytest.mark.parametrize(
    ("bind", "error", "complaint"),
    [
        (lambda q, e: q.bind("nobody"), UnknownExchangeError, "no exchange called 'nobody'"),
        (lambda q, e: q.bind(""), AccessRefusedError, "the default exchange has a binding to each"),
        (lambda q, e: q.unbind(""), AccessRefusedError, "the default exchange has a binding"),
        (lambda q, e: q.bind(e, "k" * 256), InvalidInputError, "routing_key=.*256 bytes"),
        (lambda q, e: q.bind(e, "", [1]), InvalidInputError, "arguments are a dict, not list"),
        (lambda q, e: q.bind(e, "", {"a": {1}}), InvalidInputError, "header a is set"),
        (lambda q, e: q.bind(e, "", {"x-match": "most"}), InvalidInputError, "x-match is one of"),
        (lambda q, e: e.bind("nobody"), UnknownExchangeError, "no exchange called 'nobody'"),
        (lambda q, e: q.delete() and q.bind(e), UnknownQueueError, "no queue called 'q'"),
    ],
)
def test_a_binding_that_cannot_be_is_refused_with_a_reason(
    store: Store, bind: Callable[[Any, Any], object], error: type[Exception], complaint: str
) -> None:
    queue, exchange = store.queue("q"), store.exchange("e", type="headers")
    with pytest.raises(error, match=complaint):
        bind(queue, exchange)
    assert bindings(store) == []


def test_the_default_exchange_is_no_destination(store: Store) -> None:
    store.exchange("e", type="fanout")
    with pytest.raises(AccessRefusedError):
        store.exchange("").bind("e")


# Other handles and processes ----------------------------------------------------------------


def test_another_handle_sees_at_once_what_was_declared_and_costs_no_look_otherwise(
    path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    with logstore.open(path, maintenance_interval=None) as other:
        shop = other.exchange("shop", type="direct")
        assert store.exchange("shop").publish(b"1", "k").queues == ()
        other.queue("q").bind(shop, "k")
        assert store.exchange("shop").publish(b"2", "k").queues == ("q",)
        seen = store.queues._catalogue.topology()
        store.exchange("shop").publish(b"3", "k")
        assert store.queues._catalogue.topology() is seen
        with monkeypatch.context() as patch:
            patch.setattr(store._metadata, "transaction", None)  # calling it would fail
            assert store.exchange("shop").publish(b"4", "k").queues == ("q",)
        other.queue("q").delete()
        assert store.exchange("shop").publish(b"5", "k").queues == ()


def test_a_change_of_something_else_costs_no_parsing(path: Path, store: Store) -> None:
    store.queue("q").bind("amq.topic", "a.#")
    seen = store.queues._catalogue.topology()
    store.create_topic("topic")
    assert store.queues._catalogue.topology() is seen
    store.queue("other")
    later = store.queues._catalogue.topology()
    assert later is not seen
    assert later.queues["q"] is seen.queues["q"]
    assert later.bindings[0] is seen.bindings[0]


def test_threads_and_handles_that_declare_the_same_at_once_declare_it_once(path: Path) -> None:
    found: list[object] = []
    errors: list[BaseException] = []
    start = threading.Barrier(4)

    def declare() -> None:
        try:
            with logstore.open(path, maintenance_interval=None) as store:
                start.wait(30)
                exchange = store.exchange("shop", type="topic")
                queue = store.queue("q", max_length=9)
                queue.bind(exchange, "a.#")
                found.append(queue.definition)
        except BaseException as error:  # noqa: BLE001 - told below
            errors.append(error)

    logstore.open(path, maintenance_interval=None).close()
    threads = [threading.Thread(target=declare) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []
    assert len(found) == 4
    assert all(definition == found[0] for definition in found)
    with logstore.open(path, maintenance_interval=None) as store:
        assert bindings(store) == [("shop", "q", "a.#")]


def test_an_exclusive_queue_is_its_sessions_own_and_goes_with_it(path: Path, store: Store) -> None:
    with logstore.open(path, maintenance_interval=None) as other:
        queue = other.queue("mine", exclusive=True)
        queue.bind("amq.fanout")
        assert other.queue("mine").definition == queue.definition
        assert store.exchange("").publish(b"to it", "mine").queues == ("mine",)
        for refused in (
            lambda: store.queue("mine"),
            lambda: store.queue("mine", exclusive=True),
            lambda: store.queue("mine", passive=True),
            lambda: store.queues.delete_queue("mine"),
        ):
            with pytest.raises(ResourceLockedError, match="'mine' is exclusive to another session"):
                refused()
        assert queue_names(store) == ["mine"]
    assert queue_names(store) == queue_directories(store) == []
    assert bindings(store) == []
    assert store.queue("mine").definition.exclusive is None


KILLED_OWNER = """
import sys
import logstore
store = logstore.open(sys.argv[1], maintenance_interval=None)
queue = store.queue("mine", exclusive=True)
queue.bind("amq.fanout")
store.exchange("").publish(b"x", "mine")
print("ready", flush=True)
sys.stdin.read()
"""


def test_the_exclusive_queue_of_a_killed_process_is_not_there_any_more(
    path: Path, store: Store
) -> None:
    child = start_script(KILLED_OWNER, path)
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        with pytest.raises(ResourceLockedError):
            store.queue("mine")
    finally:
        child.kill()
        child.communicate(timeout=60)
    assert queue_names(store) == []
    with pytest.raises(UnknownQueueError):
        store.queue("mine", passive=True)
    assert len(queue_directories(store)) == 1
    store.maintain()
    assert queue_directories(store) == []
    assert bindings(store) == []


def test_a_queue_of_that_name_can_be_declared_before_the_dead_ones_was_taken_away(
    path: Path, store: Store
) -> None:
    child = start_script(KILLED_OWNER, path)
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
    finally:
        child.kill()
        child.communicate(timeout=60)
    queue = store.queue("mine", max_length=3)
    assert bindings(store) == []
    assert bodies(store, queue) == []
    store.exchange("").publish(b"y", "mine")
    store.maintain()
    assert bodies(store, queue) == [b"y"]
    assert queue_directories(store) == [f"{queue.definition.queue_id.hex}-0"]


def test_what_is_not_durable_is_gone_after_a_restart_of_the_machine(path: Path) -> None:
    with logstore.open(path, files=BootFiles("one"), maintenance_interval=None) as store:
        kept = store.exchange("kept", type="fanout")
        lost = store.exchange("lost", type="fanout", durable=False)
        durable, transient = store.queue("durable"), store.queue("transient", durable=False)
        for queue in (durable, transient):
            for exchange in (kept, lost):
                queue.bind(exchange)
        lost.bind(kept)
        assert kept.publish(b"x").queues == ("durable", "transient")
    with logstore.open(path, files=BootFiles("one"), maintenance_interval=None) as store:
        assert exchange_names(store) == ["kept", "lost"]
        assert bodies(store, "transient") == [b"x"]
    with logstore.open(path, files=BootFiles("two"), read_only=True) as reader:
        assert exchange_names(reader) == ["kept"]
        assert queue_names(reader) == ["durable"]
        assert bindings(reader) == [("kept", "durable", "")]
        assert len(queue_directories(reader)) == 2
    with logstore.open(path, files=BootFiles("two"), maintenance_interval=None) as store:
        assert exchange_names(store) == ["kept"]
        assert bindings(store) == [("kept", "durable", "")]
        assert len(queue_directories(store)) == 1
        assert len(store._metadata.items()) == 3  # nothing is left of the others
        # Of the same names, and nothing of the old ones.
        store.exchange("lost", type="direct", durable=False)
        store.queue("transient", durable=False)
        assert bindings(store) == [("kept", "durable", "")]
        assert bodies(store, "transient") == []


def test_what_is_declared_again_before_anybody_swept_begins_anew(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with logstore.open(path, files=BootFiles("one"), maintenance_interval=None) as store:
        lost = store.exchange("lost", type="fanout", durable=False)
        queue = store.queue("q", durable=False)
        queue.bind(lost)
        lost.publish(b"old")
    monkeypatch.setattr("logstore.queues.catalogue.Catalogue.sweep", lambda self: None)
    with logstore.open(path, files=BootFiles("two"), maintenance_interval=None) as store:
        again = store.queue("q")
        assert again.definition.queue_id != queue.definition.queue_id
        assert store.exchange("lost", type="topic").type == "topic"
        assert bindings(store) == []
        again.bind("lost", "#")
        assert store.exchange("lost").publish(b"new", "k").queues == ("q",)
        assert bodies(store, "q") == [b"new"]


def test_a_closed_store_says_so(path: Path) -> None:
    with logstore.open(path) as store:
        shop, queue = store.exchange("shop", type="direct"), store.queue("q")
        queues = store.queues
    for use in (
        lambda: store.queue("q"),
        lambda: store.exchange("shop"),
        lambda: store.queues,
        lambda: queues.queues(),
        lambda: shop.publish(b""),
        lambda: queue.bind(shop),
        lambda: queue.delete(),
    ):
        with pytest.raises(ClosedError):
            use()
