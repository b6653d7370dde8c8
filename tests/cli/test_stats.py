"""``logstore stats``: what it prints, and with which code it exits."""

from __future__ import annotations

import os
import pty
from pathlib import Path

import pytest

import logstore
from logstore.log import PartitionLog
from logstore.segments.batch import encode_batch
from logstore.segments.compression import Codec
from logstore.segments.record import Record

from .program import GOLDEN, end_of, json_lines, only_line, run, running


@pytest.fixture
def store(tmp_path: Path) -> Path:
    path = tmp_path / "store"
    with logstore.open(path) as opened:
        topic = opened.create_topic("orders", partitions=2)
        for number in range(2):
            topic.partition(number).append(
                [
                    Record(
                        timestamp=1_700_000_000_000 + place * 1000,
                        key=f"{'eu' if place % 3 else 'us'}:{place}".encode(),
                        value=b"text " * (place + 1),
                    )
                    for place in range(30)
                ],
                codec=Codec.ZSTD,
            )
        opened.create_topic("users", cleanup_policy="compact")
        with opened.consumer("orders", group="billing") as consumer:
            consumer.poll(max_records=10)
            consumer.commit()
        with opened.share_consumer(
            "orders", group="workers", max_poll_records=4, share_auto_offset_reset="earliest"
        ) as sharer:
            sharer.poll(timeout=10)
        opened.queue("pay")
        opened.exchange("").publish(b"body", routing_key="pay")
    return path


def kinds(lines: list[dict[str, object]]) -> list[object]:
    return [line["type"] for line in lines]


def test_all_of_a_store_as_json(store: Path) -> None:
    lines = json_lines(run("stats --json --segments --top 1", store=store))
    by_kind = {line["type"]: line for line in lines}
    assert kinds(lines) == [
        *("topic-stats", "topic-stats"),
        *("partition-stats", "segment-stats") * 2,
        "partition-stats",  # of a topic that nobody has written to yet
        "codec-stats",
        *("batch-sizes", "records-over-time", "record-sizes", "key-prefixes", "top-keys"),
        *("group-lag", "group-lag", "share-group-lag", "share-group-lag", "queue-stats"),
        *("removable",) * 3,
    ]
    assert lines[0].items() >= {"topic": "orders", "partitions": 2, "records": 60}.items()
    codec = by_kind["codec-stats"]
    assert codec["codec"] == "zstd"
    assert codec["decompressed_bytes"] > 2 * codec["bytes"]
    (prefix,) = by_kind["key-prefixes"]["top"]
    assert (prefix["key"], prefix["records"], prefix["error"]) == ("eu:", 40, 0)
    assert by_kind["key-prefixes"]["distinct"] == 2
    assert by_kind["records-over-time"]["interval_ms"] == 1000
    assert sum(count for _, count in by_kind["records-over-time"]["counts"]) == 60
    assert sum(line["lag"] or 0 for line in lines if line["type"] == "group-lag") == 50
    shares = [line for line in lines if line["type"] == "share-group-lag"]
    assert {share["share_group"] for share in shares} == {"workers"}
    assert sum(share["lag"] for share in shares) == 56
    assert by_kind["queue-stats"].items() >= {"name": "pay", "ready": 1, "unacked": 0}.items()
    old, _, compacted = lines[-3:]
    assert (old["retention_segments"], old["compaction"]) == (1, None)
    assert compacted["compaction"]["removed_records"] == 0


def test_quick_statistics_lack_what_is_inside_of_batches(store: Path) -> None:
    lines = json_lines(run("stats --json --quick orders", store=store))
    assert not {"record-sizes", "key-prefixes", "top-keys", "queue-stats"} & set(kinds(lines))
    by_kind = {line["type"]: line for line in lines}
    assert by_kind["codec-stats"]["decompressed_bytes"] is None
    assert by_kind["topic-stats"]["records"] == 60
    text = run("stats --quick", store=store).stdout
    assert "Records by size" not in text
    assert "Batches by size" in text


def test_all_of_a_store_for_people(store: Path) -> None:
    text = run("stats --segments", store=store).stdout
    headings = [line for line in text.splitlines() if line and line[0].isupper()]
    for heading in (
        *("PARTITION", "Segments", "Compression", "Batches by size", "Records by size"),
        *("Records over time (each column 1 s", "Prefixes of keys (2 different ones)"),
        *("Keys (30 different ones)", "Groups", "Queues", "What would be removed now"),
    ):
        assert any(line.startswith(heading) for line in headings), heading
    lines = text.splitlines()
    assert "orders (all)" in text
    assert "in all: 60 records in 2 batches" in text
    assert '"eu:"' in text
    assert "\x1b[" not in text
    assert max(map(len, lines[lines.index("") :])) < 120 + len(str(store))
    (pay,) = [line for line in lines if line.startswith("pay ")]
    assert pay.split()[:3] == ["pay", "1", "0"]


def test_prefixes_are_what_the_separator_and_the_depth_say(store: Path) -> None:
    lines = json_lines(run("stats orders --json --key-prefix-separator u", store=store))
    (prefixes,) = [line for line in lines if line["type"] == "key-prefixes"]
    assert {one["key"] for one in prefixes["top"]} == {"eu", "u"}
    text = run("stats orders --key-prefix-separator u --key-prefix-depth 2", store=store).stdout
    assert "Prefixes of keys" not in text  # no key has more than two parts


def test_foreign_directories_and_single_segments(tmp_path: Path) -> None:
    lines = json_lines(run("stats --json", GOLDEN / "v2-zstd-0"))
    assert kinds(lines)[0] == "topic-stats"
    assert "removable" not in kinds(lines)
    (log,) = (GOLDEN / "v2-transactions-0").glob("*.log")
    (partition,) = [
        line for line in json_lines(run("stats --json", log)) if line["type"] == "partition-stats"
    ]
    assert partition["segments"] == 1
    assert partition["control_batches"] > 0
    run("stats", GOLDEN)
    run("stats --quick", GOLDEN)


def test_a_store_is_not_needed_where_paths_are_named(tmp_path: Path) -> None:
    run("stats", GOLDEN / "v2-none-0", "--store", tmp_path)
    assert "of which store" in only_line(run("stats", code=2).stderr)


def test_an_empty_store_is_nothing_to_look_into(tmp_path: Path) -> None:
    with logstore.open(tmp_path / "store"):
        pass
    assert run("stats", store=tmp_path / "store").stdout == "there is nothing to look into\n"


def test_damage_is_told_and_the_rest_counted(tmp_path: Path) -> None:
    data = bytearray(encode_batch([Record(timestamp=0, value=b"v")]))
    data[-3] ^= 1
    log = tmp_path / "00000000000000000000.log"
    log.write_bytes(bytes(data) + encode_batch([Record(timestamp=0, value=b"v")], base_offset=1))
    result = run("stats --json", log, code=1)
    assert json_lines(result)[0]["records"] == 1
    assert "checksum" in only_line(result.stderr)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ("nothing", "there is no topic"),
        ("--top -1", "-1"),
        ("--key-prefix-depth 0", "0"),
        ("queue:nothing", "no queue"),
    ],
)
def test_wrong_use_is_one_line(words: str, complaint: str, store: Path) -> None:
    code = 1 if "nothing" in words else 2  # as read: the topic might be there tomorrow
    assert complaint in only_line(run(f"stats {words}", store=store, code=code).stderr)


def test_an_empty_separator_is_refused(store: Path) -> None:
    result = run("stats", "--key-prefix-separator", "", store=store, code=2)
    assert "is empty" in only_line(result.stderr)


def test_whoever_stops_reading_ends_it(store: Path) -> None:
    with running("stats", store=store) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert end_of(process) == (0, b"")


@pytest.mark.parametrize(
    ("environment", "bar"), [({}, "█"), ({"PYTHONIOENCODING": "ascii"}, "#####")]
)
def test_plots_are_plain_where_the_terminal_is(
    environment: dict[str, str], bar: str, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    main_end, terminal = pty.openpty()
    try:
        for name, value in {"NO_COLOR": "1", "COLUMNS": "60", **environment}.items():
            monkeypatch.setenv(name, value)
        with running("stats orders", store=store, stdout=terminal) as process:
            assert process.wait(60) == 0
        text = b""
        while b"What would be removed" not in text:
            text += os.read(main_end, 1 << 16)
    finally:
        os.close(main_end)
        os.close(terminal)
    shown = text.decode()
    assert bar in shown
    assert "\x1b[1;" not in shown
    bars = [line for line in shown.splitlines() if bar in line]
    assert max(map(len, bars)) <= 60


def test_another_configuration_may_be_assumed(store: Path) -> None:
    lines = json_lines(run("stats --json orders --config retention_ms=-1", store=store))
    assert [line["retention_segments"] for line in lines if line["type"] == "removable"] == [0, 0]
    path = store / "topics" / "orders-0"
    assert not [line for line in json_lines(run("stats --json", path)) if "compaction" in line]
    assumed = "--config cleanup_policy=compact --config retention_ms=1"
    shown = run(f"stats {assumed}", path).stdout
    assert "What would be removed now" in shown
    (*_, line) = json_lines(run(f"stats --json --quick {assumed}", path))
    assert line["compaction"].items() >= {"due": False, "removed_records": None}.items()


@pytest.mark.parametrize("config", ["retention_ms", "retention_ms=soon", "no_such_key=1"])
def test_a_configuration_that_is_none_is_wrong_use(store: Path, config: str) -> None:
    assert config.split("=")[0] in run(f"stats --config {config}", store=store, code=2).stderr


@pytest.mark.parametrize(
    ("seconds", "rate"),
    [(0, "30,000.0/s"), (21_600, "1.0/min"), (2_592_000, "10.0/d"), (60_480_000, "0.5/d")],
)
def test_a_rate_is_told_in_a_unit_that_shows_it(tmp_path: Path, seconds: int, rate: str) -> None:
    with PartitionLog(tmp_path / "slow-0") as log:
        for place in range(3):
            log.append([Record(timestamp=place * seconds * 1000, value=b"x")] * 10, acks=1)
    assert f": {rate})" in run("stats", tmp_path / "slow-0").stdout
