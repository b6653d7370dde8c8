"""What sources name."""

from __future__ import annotations

from pathlib import Path

import pytest

import logstore
from logstore.errors import (
    InvalidInputError,
    StoreNotFoundError,
    UnknownQueueError,
    UnknownTopicError,
)
from logstore.inspect.sources import find_partitions

GOLDEN = Path(__file__).resolve().parent.parent / "golden"


@pytest.fixture
def store(tmp_path: Path) -> str:
    path = str(tmp_path / "store")
    with logstore.open(path) as opened:
        for name in ("orders", "users"):
            topic = opened.create_topic(name, partitions=2)
            for number in (0, 1):
                topic.partition(number).append([logstore.Record(value=b"v")])
        opened.queue("pay ments", max_priority=3)
        opened.exchange("").publish(b"body", routing_key="pay ments", priority=2)
    return path


def names(*sources: str, store: str | None = None) -> list[str]:
    return [one.name for one in find_partitions(sources, store=store)]


def test_topics_and_partitions_of_a_store(store: str) -> None:
    assert names(store=store) == ["orders-0", "orders-1", "users-0", "users-1"]
    assert names("users", store=store) == ["users-0", "users-1"]
    assert names("users:1", "orders:0,1", store=store) == ["users-1", "orders-0", "orders-1"]
    assert names("__metadata", store=store) == ["__metadata-0"]


def test_a_queue_is_found_by_its_name(store: str) -> None:
    assert names("queue:pay ments", store=store) == ["pay ments-0", "pay ments-2"]


def test_paths_also_below_the_store(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert names(f"{store}/topics/orders-1") == ["orders-1"]
    assert names("topics/orders-1", store=store) == ["orders-1"]
    assert "users-0" in names(store)
    (log,) = Path(store, "topics", "orders-0").glob("*.log")
    (one,) = find_partitions([str(log)])
    assert (one.name, one.segment) == ("orders-0", str(log))
    monkeypatch.chdir(log.parent)
    assert names(log.name) == ["orders-0"]
    assert names(".") == ["orders-0"]


def test_directories_of_a_broker() -> None:
    assert "v2-zstd-0" in names(str(GOLDEN))
    assert names(str(GOLDEN / "v2-zstd-0")) == ["v2-zstd-0"]


def test_what_is_named_twice_is_looked_into_once(store: str) -> None:
    sources = ("users", f"{store}/topics/users-0/", "topics/orders-0", "users:1")
    assert names(*sources, store=store) == ["users-0", "users-1", "orders-0"]


def test_what_is_not_there_is_told(store: str, tmp_path: Path) -> None:
    with pytest.raises(UnknownTopicError):
        names("nothing", store=store)
    with pytest.raises(UnknownTopicError, match="no 2"):
        names("orders:2", store=store)
    with pytest.raises(UnknownQueueError):
        names("queue:nothing", store=store)
    with pytest.raises(StoreNotFoundError):
        names(store=str(tmp_path / "no store"))
    for source in ("nothing", "no/thing", str(tmp_path), str(Path(store, "store.json"))):
        with pytest.raises(InvalidInputError):
            names(source)
    with pytest.raises(InvalidInputError, match="of which store"):
        names()
