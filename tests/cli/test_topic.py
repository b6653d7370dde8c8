"""``logstore topic``: creating, listing, describing, altering, deleting."""

from __future__ import annotations

from pathlib import Path

import logstore

from .program import json_lines, only_line, run


def test_a_topic_is_created_as_it_was_asked_for(tmp_path: Path) -> None:
    result = run(
        "topic create orders --partitions 3 --config segment_bytes=1048576 "
        "--config compression.type=zstd",
        store=tmp_path,
    )
    assert only_line(result.stdout) == "created topic orders with 3 partitions"
    with logstore.open(tmp_path, create=False) as store:
        topic = store.topic("orders")
        assert topic.partition_count == 3
        assert topic.config.overrides() == {"segment_bytes": 1 << 20, "compression_type": "zstd"}


def test_topics_are_listed_with_their_partitions(tmp_path: Path) -> None:
    run("topic create b --partitions 2 --config segment_bytes=5000", store=tmp_path)
    run("append a", store=tmp_path, stdin="one\ntwo\n")
    assert run("topic list", store=tmp_path).stdout.splitlines() == [
        "TOPIC  PARTITION  FIRST OFFSET  NEXT OFFSET  CONFIG",
        "a      0          0             2",
        "b      0          0             0            segment_bytes=5000",
        "b      1          0             0            segment_bytes=5000",
    ]


def test_a_store_without_topics_lists_none(tmp_path: Path) -> None:
    logstore.open(tmp_path).close()
    assert run("topic list", store=tmp_path).stdout.splitlines() == [
        "TOPIC  PARTITION  FIRST OFFSET  NEXT OFFSET  CONFIG"
    ]


def test_a_topic_is_described_with_where_each_value_is_from(tmp_path: Path) -> None:
    run("topic create orders --partitions 2 --config segment_bytes=5000", store=tmp_path)
    run("topic alter --defaults --config retention_ms=7", store=tmp_path)
    run("append orders --partition 1", store=tmp_path, stdin="one\ntwo\n")
    lines = run("topic describe orders", store=tmp_path).stdout.splitlines()
    assert lines[0].startswith("orders: 2 partitions, id ")
    assert lines[1].split() == [
        "PARTITION",
        "FIRST",
        "OFFSET",
        "NEXT",
        "OFFSET",
        "SEGMENTS",
        "BYTES",
    ]
    assert lines[2].split()[:3] == ["0", "0", "0"]
    assert lines[3].split()[:4] == ["1", "0", "2", "1"]
    rows = [line.split() for line in lines[5:]]
    assert ["segment_bytes", "5000", "topic"] in rows
    assert ["retention_ms", "7", "store"] in rows
    assert ["retention_bytes", "-1", "default"] in rows
    [fields] = json_lines(run("topic describe orders --json", store=tmp_path))
    assert fields["type"] == "topic"
    assert fields["topic_id"] in lines[0]
    assert fields["config"]["segment_bytes"] == {"value": 5000, "source": "topic"}
    assert [p["log_end_offset"] for p in fields["partitions"]] == [0, 2]
    assert json_lines(run("topic list --json", store=tmp_path)) == [fields]
    run("topic describe nothing", store=tmp_path, code=1)


def test_the_stores_own_topics_are_listed_when_asked_for(tmp_path: Path) -> None:
    run("topic create orders", store=tmp_path)
    names = [f["name"] for f in json_lines(run("topic list --internal --json", store=tmp_path))]
    assert names == ["__metadata", "orders"]
    assert run("read __metadata --format %k", store=tmp_path).stdout.startswith("topic/")
    words = "append __metadata --key-separator :"
    assert "reading only" in run(words, store=tmp_path, stdin="k:v", code=1).stderr


def test_a_topic_is_altered(tmp_path: Path) -> None:
    [fields] = json_lines(run("topic create orders --config retention_ms=5 --json", store=tmp_path))
    assert fields["config"]["retention_ms"] == {"value": 5, "source": "topic"}
    result = run(
        "topic alter orders --config segment.bytes=5000 --unset retention_ms --partitions 3",
        store=tmp_path,
    )
    assert only_line(result.stdout) == "altered topic orders"
    with logstore.open(tmp_path, create=False) as store:
        topic = store.topic("orders")
        assert topic.overrides == {"segment_bytes": 5000}
        assert topic.partition_count == 3
    [fields] = json_lines(run("topic alter orders --config retention_ms=6 --json", store=tmp_path))
    assert fields["config"]["retention_ms"]["value"] == 6
    [fields] = json_lines(
        run("topic alter --defaults --config retention_ms=7 --json", store=tmp_path)
    )
    assert fields == {"type": "defaults", "config": {"retention_ms": 7}}
    result = run("topic alter --defaults --unset retention_ms", store=tmp_path)
    assert only_line(result.stdout) == "altered the store's defaults"


def test_altering_says_what_is_wrong(tmp_path: Path) -> None:
    run("topic create orders --partitions 2", store=tmp_path)
    for words, complaint in (
        ("orders", "nothing to alter"),
        ("", "give either a topic or --defaults"),
        ("orders --defaults --config retention_ms=1", "give either a topic or --defaults"),
        ("--defaults --partitions 3", "give either a topic or --defaults"),
        ("orders --config segment_bytes=1", "segment_bytes=1 is out of bounds: 14 to 2147483647"),
        ("orders --unset nothing", "no configuration key is called 'nothing'"),
        ("orders --partitions 2", "partitions=2 is out of bounds"),
        ("__metadata --config retention_ms=1", "the store's own topic"),
    ):
        assert complaint in only_line(run(f"topic alter {words}", store=tmp_path, code=2).stderr)
    run("topic alter nothing --config retention_ms=1", store=tmp_path, code=1)


def test_a_topic_is_altered_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    run("topic create orders --partitions 2", store=tmp_path)
    for words in ("retention_ms=1 --partitions 2", "segment_bytes=1 --partitions 3"):
        run(f"topic alter orders --config {words}", store=tmp_path, code=2)
    with logstore.open(tmp_path, create=False) as store:
        assert store.topic("orders").overrides == {}
        assert store.topic("orders").partition_count == 2


def test_a_topic_is_deleted(tmp_path: Path) -> None:
    [created] = json_lines(run("topic create a --json", store=tmp_path))
    run("topic create b", store=tmp_path)
    [deleted] = json_lines(run("topic delete a --yes --json", store=tmp_path))
    assert deleted == {"type": "deleted", "name": "a", "topic_id": created["topic_id"]}
    assert only_line(run("topic delete b --yes", store=tmp_path).stdout) == "deleted topic b"
    assert json_lines(run("topic list --json", store=tmp_path)) == []
    complaint = only_line(run("topic delete a", store=tmp_path, code=1).stderr)
    assert "there is no topic called 'a'" in complaint
    run("topic delete __metadata --yes", store=tmp_path, code=2)
