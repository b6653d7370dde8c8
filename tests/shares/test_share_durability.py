"""What share groups have come to, over power cuts, copies, repairs and deletions."""

from __future__ import annotations

import contextlib
import random
import shutil
from pathlib import Path
from typing import Any

import lmdb
import pytest

import logstore
from logstore import ShareConsumer, Store
from logstore.check_store import check_store
from logstore.repair import repair
from logstore.shares.share_groups import ShareGroups

from .support import (
    GROUP,
    TOPIC,
    cut_log,
    described,
    image,
    numbered,
    opened,
    produce,
    restarted,
    values,
)


def explicit(store: Store, **options: Any) -> ShareConsumer:
    return store.share_consumer(
        TOPIC, group=GROUP, share_acknowledgement_mode="explicit", **options
    )


def test_a_durable_acknowledgement_survives_a_power_cut_and_others_need_not(
    tmp_path: Path,
) -> None:
    with opened(tmp_path / "store") as store:
        store.create_topic(TOPIC)
        with explicit(store, share_auto_offset_reset="earliest") as consumer:
            produce(store, *numbered(4), acks="all")
            records = consumer.poll()
            records[0].accept(durable=True)
            records[2].accept()
            consumer.commit(durable=True)
            records[1].accept(flush=True)
            path = image(store, tmp_path / "image")
    with restarted(path) as store, explicit(store) as consumer:
        found = values(consumer.poll())
        assert set(found) <= {b"1", b"3"}
        assert b"3" in found


def test_where_a_group_begins_is_durable_before_it_reads(tmp_path: Path) -> None:
    with opened(tmp_path / "store") as store:
        store.create_topic(TOPIC)
        produce(store, b"old", acks="all")
        with explicit(store):  # begins at the end
            produce(store, b"new", acks="all")
            path = image(store, tmp_path / "image")
    with restarted(path) as store, explicit(store) as consumer:
        assert values(consumer.poll()) == [b"new"]


def test_a_checkpoint_never_leads_the_log(tmp_path: Path) -> None:
    with opened(tmp_path / "store") as store:
        store.create_topic(TOPIC)
        with explicit(store) as consumer:
            produce(store, *numbered(5))
            for record in consumer.poll():
                record.accept()
            consumer.commit(durable=True)
            assert store.topic(TOPIC).partition(0).synced_offset == 5


def test_a_group_beyond_its_log_is_cut_back_before_anybody_appends(tmp_path: Path) -> None:
    with opened(tmp_path / "store") as store:
        store.create_topic(TOPIC)
        with explicit(store) as consumer:
            produce(store, *numbered(5))
            produce(store, *numbered(5, 5))
            for record in consumer.poll():
                record.accept()
            consumer.commit(durable=True)
            path = image(store, tmp_path / "image")
    cut_log(path / "topics" / f"{TOPIC}-0", 5)  # a disk that had lied
    with restarted(path) as store:
        # Nobody has opened the group's ledgers when this is appended.
        produce(store, *numbered(5, 100))
        with explicit(store) as consumer:
            assert values(consumer.poll()) == numbered(5, 100)


@pytest.mark.parametrize("seed", range(4))
def test_power_cuts_lose_nothing(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    path = tmp_path / "0"
    with opened(path) as store:
        store.create_topic(TOPIC)
        store.share_groups.alter(
            GROUP, share_auto_offset_reset="earliest", share_delivery_count_limit=1000
        )
    confirmed: set[bytes] = set()
    """Appended at acks=all, and not accepted."""
    accepted: set[bytes] = set()
    settled: set[bytes] = set()
    """Accepted, durably: these must not come again."""
    number = 0
    for boot in range(4):
        with restarted(path, f"{boot}" * 36) as store, explicit(store) as consumer:
            for _ in range(rng.randrange(5, 25)):
                action = rng.choice(("produce", "produce", "poll", "poll", "commit"))
                if action == "produce":
                    new = numbered(rng.randrange(1, 8), number)
                    number += len(new)
                    acks = rng.choice((1, "all"))
                    produce(store, *new, acks=acks)
                    confirmed |= set(new) if acks == "all" else set()
                elif action == "commit":
                    consumer.commit(durable=True)
                    settled |= accepted
                else:
                    for record in consumer.poll(rng.randrange(1, 6)):
                        assert record.value is not None
                        assert record.value not in settled
                        if rng.random() < 0.6:
                            record.accept()
                            accepted.add(record.value)
                        else:
                            record.release()
            described(store)
            path = image(store, tmp_path / f"{boot + 1}")
            accepted = set(settled)  # what was accepted since then may come again
    with restarted(path, "9" * 36) as store, explicit(store) as consumer:
        produce(store, b"last", acks="all")
        found = []
        while records := consumer.poll():
            for record in records:
                found.append(record.value)
                record.accept()
        assert len(found) == len(set(found))
        assert not settled.intersection(found)
        assert confirmed - settled <= set(found)
        assert b"last" in found


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A store whose group has accepted 0 and 2 of five records."""
    path = tmp_path / "store"
    with opened(path) as store:
        store.create_topic(TOPIC)
        produce(store, *numbered(5))
        with explicit(
            store, share_auto_offset_reset="earliest", share_delivery_count_limit=9
        ) as consumer:
            records = consumer.poll()
            records[0].accept()
            records[2].accept()
    return path


def left(store: Store) -> list[tuple[bytes | None, int]]:
    with explicit(store) as consumer:
        records = consumer.poll()
        return [(record.value, record.delivery_count) for record in records]


def test_a_backup_carries_groups(path: Path, tmp_path: Path) -> None:
    with opened(path) as store:
        store.backup(tmp_path / "backups")
    logstore.restore(tmp_path / "backups", tmp_path / "copy")
    with opened(tmp_path / "copy") as store:
        assert store.share_groups.describe(GROUP).config["share_delivery_count_limit"] == 9
        assert left(store) == [(b"1", 2), (b"3", 2), (b"4", 2)]


def test_lost_definitions_are_made_from_their_log(path: Path) -> None:
    shutil.rmtree(path / "meta")
    assert list(repair(path))[-1].kind == "build"
    assert list(repair(path)) == []
    with opened(path) as store:
        assert store.share_groups.describe(GROUP).config["share_delivery_count_limit"] == 9
        assert left(store)  # its checkpoints are lost: it begins anew


def test_a_broken_definition_is_found_and_repaired(path: Path) -> None:
    with (
        lmdb.open(str(path / "meta"), max_dbs=8, map_size=1 << 24) as environment,
        environment.begin(write=True) as transaction,
    ):
        table = environment.open_db(b"definitions", transaction)
        with transaction.cursor(table) as cursor:
            assert cursor.set_range(b"share-group/")
            cursor.put(cursor.key(), b'{"name": 5}')
    findings = check_store(str(path))
    assert findings is not None
    assert any("share-group/" in finding.reason for finding in findings)
    list(repair(path))
    assert list(check_store(str(path)) or ()) == []
    with opened(path) as store:
        assert left(store)


class KilledError(BaseException):
    """Nothing behind it is done."""


def test_a_deletion_broken_off_is_finished_by_maintenance(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KilledError

    with opened(path) as store:
        with monkeypatch.context() as patched, contextlib.suppress(KilledError):
            patched.setattr(ShareGroups, "_take_away", killed)
            store.share_groups.delete(GROUP)
        assert store.share_groups.list() == []
        with store._metadata.transaction() as meta:
            assert list(meta.items("share-checkpoints"))
        store.maintain()
        with store._metadata.transaction() as meta:
            assert list(meta.items("share-checkpoints")) == []
        assert left(store) == []  # another group, which begins at the end


def test_a_deleted_topic_leaves_nothing_of_its_groups(path: Path) -> None:
    with opened(path) as store:
        store.delete_topic(TOPIC)
        assert store.share_groups.describe(GROUP).partitions == []
        with store._live.transaction() as live, store._metadata.transaction() as meta:
            assert [len(key) for key, _ in live.items("share-ledgers")] in ([], [16])
            assert list(meta.items("share-checkpoints")) == []
