"""Request and reply: answers find their callers, whoever is slow, gone or wrong."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

import logstore
from logstore import Store
from logstore.errors import (
    ClosedError,
    InvalidInputError,
    RpcRemoteError,
    RpcTimeoutError,
    UnroutableError,
)
from logstore.queues.message import Message
from logstore.queues.properties import Properties

from .broker_support import start_script

WAIT = 30.0


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with logstore.open(tmp_path / "store", maintenance_interval=None) as store:
        yield store


def double(request: Message) -> bytes:
    return request.body * 2


def test_a_call_returns_what_the_server_answers(store: Store) -> None:
    requests = store.queue("double")
    with requests.serve(double), store.queues.rpc_client() as rpc:
        answer = rpc.call("double", b"ab", timeout=WAIT)
        assert answer.body == b"abab"
        assert rpc.call("double", b"", timeout=WAIT).body == b""
    assert requests.counts()[:3] == (0, 0, 0)


def test_a_request_carries_properties_there_and_an_answer_back(store: Store) -> None:
    seen: list[Properties] = []

    def handle(request: Message) -> tuple[bytes, Properties]:
        seen.append(request.properties)
        return b"ok", Properties(content_type="text/plain", headers={"n": 1})

    with store.queue("work").serve(handle), store.queues.rpc_client() as rpc:
        answer = rpc.call("work", type="question", app_id="shop", timeout=WAIT)
        assert seen[0].type == "question"
        assert seen[0].app_id == "shop"
        assert seen[0].reply_to == rpc.reply_queue
        assert answer.properties.headers == {"n": 1}
        assert answer.properties.content_type == "text/plain"
        assert answer.properties.correlation_id == seen[0].correlation_id


def test_requests_are_routed_by_an_exchange_where_one_is_named(store: Store) -> None:
    store.exchange("services", type="topic")
    queue = store.queue("prices")
    queue.bind("services", "price.#")
    with queue.serve(double), store.queues.rpc_client() as rpc:
        assert rpc.call("price.eu", b"1", exchange="services", timeout=WAIT).body == b"11"
        with pytest.raises(UnroutableError):
            rpc.call("stock.eu", exchange="services", timeout=WAIT)


def test_a_request_to_nobody_fails_at_once(store: Store) -> None:
    with store.queues.rpc_client() as rpc:
        with pytest.raises(UnroutableError):
            rpc.call("nobody", timeout=WAIT)
        assert not rpc._waiting


def test_an_error_of_the_handler_is_the_callers_and_the_server_goes_on(store: Store) -> None:
    def handle(request: Message) -> bytes:
        if request.body == b"bad":
            raise KeyError("no such order")
        return b"good"

    with store.queue("work").serve(handle), store.queues.rpc_client() as rpc:
        with pytest.raises(RpcRemoteError, match="KeyError: 'no such order'"):
            rpc.call("work", b"bad", timeout=WAIT)
        assert rpc.call("work", b"fine", timeout=WAIT).body == b"good"


def test_what_is_no_answer_is_an_error_of_the_handler(store: Store) -> None:
    with (
        store.queue("work").serve(lambda request: None),  # type: ignore[arg-type,return-value]
        store.queues.rpc_client() as rpc,
        pytest.raises(RpcRemoteError, match="TypeError"),
    ):
        rpc.call("work", timeout=WAIT)


def test_a_late_answer_is_dropped_and_the_next_call_gets_its_own(store: Store) -> None:
    go_on = threading.Event()

    def handle(request: Message) -> bytes:
        if request.body == b"slow":
            assert go_on.wait(WAIT)
        return request.body

    with store.queue("work").serve(handle), store.queues.rpc_client() as rpc:
        with pytest.raises(RpcTimeoutError, match=r"'work' within 0\.05 seconds"):
            rpc.call("work", b"slow", timeout=0.05)
        assert not rpc._waiting
        go_on.set()
        assert rpc.call("work", b"next", timeout=WAIT).body == b"next"


def test_a_request_that_nobody_took_in_time_is_never_handled(store: Store) -> None:
    queue = store.queue("work")
    handled: list[bytes] = []

    def handle(request: Message) -> bytes:
        handled.append(request.body)
        return b""

    with store.queues.rpc_client() as rpc:
        with pytest.raises(RpcTimeoutError):
            rpc.call("work", b"too late", timeout=0.02)
        with queue.serve(handle):
            rpc.call("work", b"in time", timeout=WAIT)
    assert handled == [b"in time"]


def test_calls_from_many_threads_each_get_their_own_answer(store: Store) -> None:
    with (
        store.queue("double").serve(double, threads=3),
        store.queues.rpc_client() as rpc,
        ThreadPoolExecutor(8) as pool,
    ):
        bodies = [b"%d" % n for n in range(200)]
        answers = pool.map(lambda body: rpc.call("double", body, timeout=WAIT).body, bodies)
        assert list(answers) == [body * 2 for body in bodies]


def test_many_calls_may_be_under_way_from_one_thread(store: Store) -> None:
    with store.queue("double").serve(double), store.queues.rpc_client() as rpc:
        futures = [rpc.submit("double", b"%d" % n) for n in range(50)]
        assert [f.result(WAIT).body for f in futures] == [b"%d" % n * 2 for n in range(50)]


def test_a_server_answers_requests_that_want_no_answer_to_nobody(store: Store) -> None:
    queue = store.queue("work")
    handled = threading.Event()

    def handle(request: Message) -> bytes:
        handled.set()
        return b"for nobody"

    store.exchange("").publish(b"x", "work")
    with queue.serve(handle):
        assert handled.wait(WAIT)
    assert queue.counts().ready == 0
    assert [one.name for one in store.queues.queues()] == ["work"]


def test_closing_the_client_ends_its_calls_and_takes_its_queue_away(store: Store) -> None:
    store.queue("work")
    rpc = store.queues.rpc_client()
    name = rpc.reply_queue
    futures: list[Future[Message]] = [rpc.submit("work", b"x")]
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(rpc.call, "work", b"y", timeout=WAIT)
        while len(rpc._waiting) < 2:
            time.sleep(0.001)
        rpc.close()
        rpc.close()
        with pytest.raises(ClosedError):
            call.result(WAIT)
    with pytest.raises(ClosedError):
        futures[0].result(WAIT)
    with pytest.raises(ClosedError):
        rpc.call("work", timeout=WAIT)
    assert name not in [one.name for one in store.queues.queues()]


def test_closing_the_store_ends_calls(tmp_path: Path) -> None:
    store = logstore.open(tmp_path / "store", maintenance_interval=None)
    store.queue("work")
    future = store.queues.rpc_client().submit("work", b"x")
    store.close()
    with pytest.raises(ClosedError):
        future.result(WAIT)


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), "5", True, 1e9])
def test_a_time_out_out_of_bounds_is_refused(store: Store, timeout: object) -> None:
    with store.queues.rpc_client() as rpc, pytest.raises(InvalidInputError, match="timeout="):
        rpc.call("work", timeout=timeout)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["reply_to", "correlation_id"])
def test_the_clients_own_properties_are_refused(store: Store, name: str) -> None:
    store.queue("work")
    with store.queues.rpc_client() as rpc, pytest.raises(InvalidInputError, match="client's own"):
        rpc.call("work", **{name: "x"})  # type: ignore[arg-type]


def test_a_server_without_threads_is_refused(store: Store) -> None:
    with pytest.raises(InvalidInputError, match="threads=0"):
        store.queue("work").serve(double, threads=0)


SERVER = """
import sys, time, logstore
with logstore.open(sys.argv[1], maintenance_interval=None) as store:
    def handle(request):
        if sys.argv[2] == "hangs":
            print("has it", flush=True)
            time.sleep(60)
        return request.body.upper()
    with store.queue("shout").serve(handle) as server:
        print("ready", flush=True)
        sys.stdin.read()
"""


def test_servers_in_other_processes_answer_and_one_that_is_killed_is_stood_in_for(
    store: Store,
) -> None:
    store.queue("shout")
    hanging = start_script(SERVER, store.path, "hangs")
    other = None
    try:
        assert hanging.stdout is not None
        assert hanging.stdout.readline() == b"ready\n"
        with store.queues.rpc_client() as rpc:
            future = rpc.submit("shout", b"help")
            assert hanging.stdout.readline() == b"has it\n"
            other = start_script(SERVER, store.path, "answers")
            assert other.stdout is not None
            assert other.stdout.readline() == b"ready\n"
            hanging.kill()
            assert future.result(WAIT).body == b"HELP"
    finally:
        for process in (hanging, other):
            if process is not None:
                process.kill()
                process.communicate()
