"""Committed offsets: what survives what, and that they never lead the log."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import logstore
from logstore import InvalidInputError, PoisonedError, Record, UnknownTopicError
from logstore.groups.offsets import Offsets
from logstore.groups.records import OFFSETS, OffsetKey, OffsetValue, group_id
from logstore.log import Acks
from logstore.metadata import Metadata
from logstore.partitions import OffsetAndMetadata, TopicPartition
from logstore.topic import Topic
from logstore.topics import TopicCatalogue

from .support import GROUP, RestartedFiles, at, committed, image, make_topic


@pytest.fixture
def store(tmp_path: Path) -> Iterator[logstore.Store]:
    with logstore.open(tmp_path / "store", maintenance_interval=None) as store:
        yield store


def restarted(path: Path, boot: str = "another run") -> logstore.Store:
    return logstore.open(path, files=RestartedFiles(boot), maintenance_interval=None)


def checkpoints(path: Path) -> list[int]:
    """The offsets that ``meta`` names."""
    metadata = Metadata(str(path), read_only=True)
    with metadata.transaction() as tables:
        values = [OffsetValue.unpack(value).offset for _, value in tables.items(OFFSETS)]
    metadata.close()
    return values


def test_what_was_committed_is_there_with_its_metadata(store: logstore.Store) -> None:
    make_topic(store)
    place = TopicPartition("orders", 1)
    store.groups.commit(GROUP, {place: OffsetAndMetadata(7, "näher")})
    assert store.groups.committed(GROUP, [place, TopicPartition("orders", 2)]) == {
        place: OffsetAndMetadata(7, "näher"),
        TopicPartition("orders", 2): None,
    }
    assert store.groups.committed("other", [place]) == {place: None}
    assert store.groups.committed(GROUP, [TopicPartition("none", 0)]).popitem()[1] is None


def test_a_commit_is_refused_as_a_whole(store: logstore.Store) -> None:
    make_topic(store)
    good = at({0: 1})
    for bad, error in (
        (at({9: 1}), UnknownTopicError),
        (at({0: 1}, topic="none"), UnknownTopicError),
        (at({1: -1}), InvalidInputError),
        ({TopicPartition("orders", 1): OffsetAndMetadata(1, "x" * 5000)}, InvalidInputError),
    ):
        with pytest.raises(error):
            store.groups.commit(GROUP, {**good, **bad})
    assert committed(store, 0, 1) == [None, None]


@pytest.mark.parametrize("name", ["", "x" * 256])
def test_a_group_needs_a_name(store: logstore.Store, name: str) -> None:
    with pytest.raises(InvalidInputError, match="no name for a group"):
        store.groups.commit(name, {})


def test_a_commit_survives_its_process_and_a_durable_one_a_power_cut(
    store: logstore.Store, tmp_path: Path
) -> None:
    make_topic(store)
    store.groups.commit(GROUP, at({0: 3}), durable=True)
    store.groups.commit(GROUP, at({0: 5, 1: 1}))
    with logstore.open(store.path) as other:
        assert committed(other, 0, 1) == [5, 1]
    with restarted(image(store, tmp_path / "image")) as other:
        assert committed(other, 0, 1) == [3, None]


def test_closing_maintaining_and_backing_up_take_a_checkpoint(
    store: logstore.Store, tmp_path: Path
) -> None:
    make_topic(store)
    store.groups.commit(GROUP, at({0: 1}))
    store.maintain()
    with restarted(image(store, tmp_path / "maintained")) as other:
        assert committed(other, 0) == [1]
    store.groups.commit(GROUP, at({0: 2}))
    backup = store.backup(tmp_path / "backups")
    logstore.restore(backup.path, tmp_path / "restored")
    with logstore.open(tmp_path / "restored") as other:
        assert committed(other, 0) == [2]
        assert [listing.name for listing in other.groups.list()] == [GROUP]
    with logstore.open(store.path, maintenance_interval=None) as other:
        other.groups.commit(GROUP, at({3: 4}))  # its log is not open here
    with restarted(image(store, tmp_path / "closed")) as other:
        assert committed(other, 0, 3) == [2, 4]


def test_the_log_is_synced_before_meta_names_an_offset(store: logstore.Store) -> None:
    make_topic(store, each=5)
    log = store.topic("orders").partition(0)
    assert log.synced_offset < 5
    store.groups.commit(GROUP, at({0: 3}), durable=True)
    assert log.synced_offset == 5
    assert checkpoints(Path(store.path)) == [3]


def test_no_checkpoint_names_an_offset_that_the_log_does_not_have(store: logstore.Store) -> None:
    make_topic(store, each=5)
    store.groups.commit(GROUP, at({0: 1000}), durable=True)
    assert checkpoints(Path(store.path)) == [5]


def test_a_log_that_cannot_be_synced_keeps_the_checkpoint_of_before(
    store: logstore.Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    make_topic(store)
    store.groups.commit(GROUP, at({0: 1, 1: 1}), durable=True)
    log = store.topic("orders").partition(0)
    log.append([Record(value=b"x")], acks=1)

    def fail() -> None:
        raise PoisonedError("a sync failed")

    with monkeypatch.context() as patch:
        patch.setattr(log, "flush", fail)
        store.groups.commit(GROUP, at({0: 11, 1: 2}))
        store.groups.checkpoint()
        assert "a sync failed" in caplog.text
        assert sorted(checkpoints(Path(store.path))) == [1, 2]
        with pytest.raises(PoisonedError):
            store.groups.commit(GROUP, at({0: 11}), durable=True)
    store.groups.checkpoint()
    assert sorted(checkpoints(Path(store.path))) == [2, 11]


def test_the_later_of_two_checkpoints_stays_whichever_is_written_last(
    store: logstore.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_topic(store)
    store.groups.commit(GROUP, at({0: 1}))
    sync, waiting, go_on = Offsets._sync, threading.Event(), threading.Event()
    slow = threading.Thread(target=store.groups.checkpoint)

    def wait(self: Offsets, place: object, offset: int) -> int:
        if threading.current_thread() is slow:
            waiting.set()
            assert go_on.wait(30)
        return sync(self, place, offset)  # type: ignore[arg-type]

    monkeypatch.setattr(Offsets, "_sync", wait)
    slow.start()
    assert waiting.wait(30)
    store.groups.commit(GROUP, at({0: 9}), durable=True)
    go_on.set()
    slow.join()
    assert checkpoints(Path(store.path)) == [9]


def test_offsets_of_a_deleted_topic_are_forgotten(store: logstore.Store, tmp_path: Path) -> None:
    make_topic(store)
    make_topic(store, "more", 1)
    store.groups.commit(GROUP, {**at({0: 1, 1: 1}), **at({0: 1}, topic="more")}, durable=True)
    store.groups.forget_topic(store.topic("orders").id)
    assert committed(store, 0, 1) == [None, None]
    with restarted(image(store, tmp_path / "image")) as other:
        assert committed(other, 0, 1) == [None, None]
        assert [offset.topic for offset in other.groups.describe(GROUP).offsets] == ["more"]


def test_offsets_that_lead_a_log_whose_synced_end_is_gone_are_cut_back(
    store: logstore.Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # No power cut does that; a broken disk may.
    make_topic(store)
    store.groups.commit(GROUP, at({0: 9, 1: 9}), durable=True)
    path = image(store, tmp_path / "image")
    file = path / "topics" / "orders-0" / f"{0:020d}.log"
    os.truncate(file, file.stat().st_size // 2 - 1)
    with restarted(path) as other:
        log = other.topic("orders").partition(0)
        end = log.log_end_offset
        assert end < 9
        log.append([Record(value=b"nobody has seen it")] * 20)
        assert committed(other, 0, 1) == [end, 9]
        assert f"cut back to the log's end, {end}" in caplog.text
    with restarted(path, "the third run") as other:
        assert committed(other, 0, 1) == [end, 9]


def test_after_a_restart_each_log_is_compared_once_with_the_offsets_of_all_groups(
    store: logstore.Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_topic(store)
    groups = ("a", "b", "c")
    for number, group in enumerate(groups):
        store.groups.commit(group, at({0: number, 1: 9 - number}), durable=True)
    lend, lent = TopicCatalogue.lend, []

    def note(self: TopicCatalogue, topic: Topic, number: int) -> object:
        lent.append(number)
        return lend(self, topic, number)

    monkeypatch.setattr(TopicCatalogue, "lend", note)
    with restarted(image(store, tmp_path / "image")) as other:
        assert sorted(lent) == [0, 1]
        assert [committed(other, 0, 1, group=group) for group in groups] == [[0, 9], [1, 8], [2, 7]]


def test_after_a_power_cut_no_offset_leads_its_log_and_no_durable_one_is_lost(
    tmp_path: Path,
) -> None:
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    rng = random.Random(seed)
    path, boot = tmp_path / "run0", "run 0"
    durable = {0: 0, 1: 0}
    with restarted(path, boot) as store:
        store.create_topic("orders", partitions=2)
    for run in range(1, 9):
        cut = tmp_path / f"run{run}"
        with restarted(path, boot) as store:
            saved = _work(store, rng, durable)
            image(store, cut)
        # Of what was not synced, any beginning may have got to the disk.
        for number, size in saved.items():
            file = cut / "topics" / f"orders-{number}" / f"{0:020d}.log"
            os.truncate(file, rng.randint(size, file.stat().st_size))
        path, boot = cut, f"run {run}"
        with restarted(path, boot) as store:
            for number in durable:
                end = store.topic("orders").partition(number).log_end_offset
                offset = committed(store, number)[0] or 0
                assert durable[number] <= offset <= end
                durable[number] = offset


def _work(store: logstore.Store, rng: random.Random, durable: dict[int, int]) -> dict[int, int]:
    """Append and commit for a while; return how much of each log is on stable storage."""
    saved = dict.fromkeys(durable, 0)
    topic = store.topic("orders")
    for _ in range(60):
        number = rng.choice(list(durable))
        log = topic.partition(number)
        match rng.choice(("append", "append", "append", "commit", "durable", "checkpoint")):
            case "append":
                acks: Acks = "all" if rng.random() < 0.25 else 1
                log.append([Record(value=b"v" * rng.randint(1, 200))], acks=acks)
            case "commit":
                offset = rng.randint(committed(store, number)[0] or 0, log.log_end_offset)
                store.groups.commit(GROUP, at({number: offset}))
            case "durable":
                offset = rng.randint(committed(store, number)[0] or 0, log.log_end_offset)
                store.groups.commit(GROUP, at({number: offset}), durable=True)
                durable[number] = offset
            case "checkpoint":
                store.groups.checkpoint()
        for place in durable:
            log = topic.partition(place)
            if log.synced_offset == log.log_end_offset:
                saved[place] = Path(log.directory, f"{0:020d}.log").stat().st_size
    return saved


def test_keys_and_values_are_read_as_they_were_written(store: logstore.Store) -> None:
    key = OffsetKey(group_id("a group"), store.id, 7)
    assert OffsetKey.unpack(key.pack()) == key
    value = OffsetValue(1 << 62, "\udc80 and ü", 1, 2)
    assert OffsetValue.unpack(value.pack()) == value
    with pytest.raises(logstore.FormatError):
        OffsetKey.unpack(b"short")
    with pytest.raises(logstore.FormatError):
        OffsetValue.unpack(b"short")
