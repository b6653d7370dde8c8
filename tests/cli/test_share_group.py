"""``logstore share-group``, and ``logstore read --share-group``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lmdb
import pytest

import logstore
from logstore import Record

from .program import json_lines, only_line, run, running


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Ten records in each of two partitions; of the first ``workers`` have accepted four."""
    path = tmp_path / "store"
    with logstore.open(path) as store:
        topic = store.create_topic("orders", partitions=2)
        for number in range(2):
            log = topic.partition(number)
            log.append([Record(timestamp=1000 + n, value=b"%d" % n) for n in range(10)])
        with store.share_consumer(
            "orders", group="workers", share_auto_offset_reset="earliest"
        ) as consumer:
            consumer.poll(4)
    return path


def described(path: Path) -> list[list[Any]]:
    (fields,) = json_lines(run("share-group describe workers --json", store=path))
    return [
        [one["partition"], one["start_offset"], one["acquired"], one["lag"]]
        for one in fields["offsets"]
    ]


def test_share_groups_are_listed(store: Path) -> None:
    assert run("share-group list", store=store).stdout.splitlines() == [
        "SHARE GROUP  STATE  MEMBERS",
        "workers      Empty        0",
    ]
    assert json_lines(run("share-group list --json", store=store)) == [
        {"type": "share-group", "share_group": "workers", "state": "Empty", "members": 0}
    ]
    with (
        logstore.open(store) as opened,
        opened.share_consumer("orders", group="workers"),
    ):
        assert "workers      Stable        1" in run("share-group list", store=store).stdout


def test_a_share_group_is_described(store: Path) -> None:
    with logstore.open(store) as opened, opened.share_consumer("orders", group="workers") as one:
        one.poll(2)
        lines = run("share-group describe workers", store=store).stdout.splitlines()
        assert lines[0] == "share group workers: Stable, 1 consumer"
        assert "share_delivery_count_limit                 5" in lines
        assert "TOPIC   PARTITION  START  ACQUIRED  RETURNED  ARCHIVING  LOG END  LAG" in lines
        assert "orders          0      4         2         0          0       10    6" in lines
        assert lines[-1].startswith(one.member_id)
    assert described(store) == [[0, 6, 0, 4], [1, 0, 0, 10]]


def test_a_broken_ledger_is_told_of(store: Path) -> None:
    [live] = [path for path in (store / "live").iterdir() if path.is_dir()]
    with lmdb.open(str(live), max_dbs=64, map_size=1 << 30) as environment:
        table = environment.open_db(b"share-ledgers")
        with environment.begin(write=True, db=table) as transaction:
            [(key, value), *_] = [one for one in transaction.cursor() if len(one[0]) == 36]
            transaction.put(key, (99).to_bytes(8, "big") + value[8:])
    result = run("share-group describe workers", store=store, code=1)
    assert "orders-0: the cursor is 99, beyond the log's end, 10" in result.stderr


def test_a_share_group_is_altered_or_defined(store: Path) -> None:
    told = run(
        "share-group alter workers --config share.delivery.count.limit=9 --config "
        "share_auto_offset_reset=earliest",
        store=store,
    )
    assert only_line(told.stdout) == (
        "altered share group workers: share_delivery_count_limit=9 share_auto_offset_reset=earliest"
    )
    (fields,) = json_lines(
        run("share-group alter new --config share_record_lock_duration_ms=5 --json", store=store)
    )
    assert fields["config"]["share_record_lock_duration_ms"] == 5
    assert fields["offsets"] == []
    for config, message in [
        ("colour=1", "no option called 'colour'"),
        ("share_delivery_count_limit=0", "out of bounds"),
        ("nothing", "is not of the form key=value"),
    ]:
        result = run(f"share-group alter workers --config {config}", store=store, code=2)
        assert message in result.stderr


def test_a_dead_letter_topic_is_set_and_has_to_be_there(store: Path) -> None:
    name = "--config errors.deadletterqueue.topic.name=1"
    refused = run(f"share-group alter workers {name}", store=store, code=1)
    assert "no topic called '1'" in only_line(refused.stderr)
    run("topic create 1", store=store)
    (fields,) = json_lines(
        run(
            f"share-group alter workers {name} --json "
            "--config errors.deadletterqueue.copy.record.enable=False",
            store=store,
        )
    )
    assert fields["config"]["errors_deadletterqueue_topic_name"] == "1"
    assert fields["config"]["errors_deadletterqueue_copy_record_enable"] is False
    for value in ("maybe", "1"):
        result = run(
            f"share-group alter workers --config errors_deadletterqueue_copy_record_enable={value}",
            store=store,
            code=2,
        )
        assert "is none of True, False" in result.stderr
    run("share-group alter workers --config errors_deadletterqueue_topic_name=", store=store)


def test_offsets_are_reset(store: Path) -> None:
    command = "share-group reset-offsets workers --topic orders:0 --to-offset 7"
    assert run(f"{command} --dry-run", store=store).stdout.splitlines() == [
        "share group workers: would move 1 partition",
        "TOPIC   PARTITION  BEFORE  AFTER",
        "orders          0       4      7",
    ]
    assert described(store)[0] == [0, 4, 0, 6]
    (fields,) = json_lines(run(f"{command} --json", store=store))
    assert (fields["share_group"], fields["before"], fields["after"]) == ("workers", 4, 7)
    assert described(store)[0] == [0, 7, 0, 3]
    with logstore.open(store) as opened, opened.share_consumer("orders", group="workers"):
        refused = run(f"{command}", store=store, code=1)
        assert "has consumers" in only_line(refused.stderr)
    run("share-group reset-offsets workers", store=store, code=2)
    run("share-group reset-offsets nobody --to-latest", store=store, code=1)


def test_share_groups_are_deleted(store: Path) -> None:
    refused = run("share-group delete workers nobody --yes", store=store, code=1)
    assert "no share group called 'nobody'" in only_line(refused.stderr)
    assert only_line(run("share-group delete workers --yes", store=store).stdout) == (
        "deleted share group workers"
    )
    assert run("share-group list --json", store=store).stdout == ""


def test_reading_accepts_what_was_printed(store: Path) -> None:
    first = run("read orders --share-group workers --max 3", store=store)
    assert first.stdout.splitlines() == ["4", "5", "6"]
    rest = json_lines(run("read orders --share-group workers --json", store=store))
    assert len(rest) == 13
    assert {(one["topic"], one["partition"]) for one in rest} == {("orders", 0), ("orders", 1)}
    assert run("read orders --share-group workers", store=store).stdout == ""
    assert run("read orders --share-group others --offset latest", store=store).stdout == ""
    assert len(run("read orders --share-group new", store=store).stdout.splitlines()) == 20
    for options in ("--group a", "--partition 0", "--since 1h", "--offset 3"):
        run(f"read orders --share-group workers {options}", store=store, code=2)


def test_what_nobody_took_from_the_pipe_is_delivered_again(store: Path) -> None:
    with logstore.open(store) as opened:
        opened.topic("orders").partition(0).append([Record(value=b"x" * 100_000)] * 20)
    with running("read orders --share-group workers", store=store) as process:
        assert process.stdout is not None
        process.stdout.read(1000)
        process.stdout.close()
        process.wait(60)
    counts = [lag for *_, lag in described(store)]
    assert sum(counts) >= 20
