"""``logstore topic``: creating and listing."""

from __future__ import annotations

from pathlib import Path

import logstore

from .program import only_line, run


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
