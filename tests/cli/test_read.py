"""``logstore read``: where it begins and ends, what it prints, and how it follows."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

import logstore
from logstore.cli.formats import parse_format
from logstore.cli.read import Start, parse_offset, parse_time
from logstore.errors import InvalidInputError
from logstore.segments.batch import encode_batch
from logstore.segments.control import ControlType, end_transaction_marker
from logstore.segments.record import Record

from .program import end_of, json_lines, only_line, run, running

NOW = 1_700_000_000_000


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Topic ``ten``: ten records a second apart; ``parts``: three partitions out of step."""
    with logstore.open(tmp_path) as opened:
        log = opened.create_topic("ten").partition(0)
        for number in range(0, 10, 2):
            log.append(
                [
                    Record(timestamp=NOW + n * 1000, key=b"k%d" % n, value=b"v%d" % n)
                    for n in (number, number + 1)
                ]
            )
        parts = opened.create_topic("parts", partitions=3)
        for partition, timestamps in enumerate([[10, 40, 20], [30], [10, 15, 50]]):
            parts.partition(partition).append(
                [Record(timestamp=NOW + t, value=b"p%d at %d" % (partition, t)) for t in timestamps]
            )
    return tmp_path


def values(words: str, store: Path) -> list[str]:
    return run(words, store=store).stdout.splitlines()


# --- where to begin and to end ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "first", "last"),
    [
        ("", 0, 9),
        ("--offset earliest", 0, 9),
        ("--offset 0", 0, 9),
        ("--offset 3", 3, 9),
        ("--offset 9", 9, 9),
        ("--offset -1", 9, 9),
        ("--offset -3", 7, 9),
        ("--offset -10", 0, 9),
        ("--offset -1000", 0, 9),
        ("--max 1", 0, 0),
        ("--offset 3 --max 3", 3, 5),
        ("--offset -4 --max 2", 6, 7),
        ("--max 1000", 0, 9),
        ("--partition 0", 0, 9),
        (f"--since {NOW}", 0, 9),
        (f"--since {NOW + 2001}", 3, 9),
        (f"--since {NOW + 9000}", 9, 9),
        ("--since 2023-11-14T22:13:25Z", 5, 9),
        ("--since 2023-11-14T23:13:25+01:00", 5, 9),
        ("--since 2023-11-14T22:13:25.001Z", 6, 9),
        ("--since 99999d", 0, 9),
    ],
)
def test_reading_begins_and_ends_where_it_was_told_to(
    options: str, first: int, last: int, store: Path
) -> None:
    assert values(f"read ten {options}", store) == [f"v{n}" for n in range(first, last + 1)]


@pytest.mark.parametrize(
    "options",
    ["--offset latest", "--offset 10", "--offset -0", "--max 0", "--since 1s", f"--since {NOW}000"],
)
def test_there_may_be_nothing_to_print(options: str, store: Path) -> None:
    assert values(f"read ten {options}", store) == []


def test_a_time_without_a_zone_is_local(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Etc/GMT-3")  # three hours ahead of Greenwich
    time.tzset()
    try:
        assert values("read ten --since 2023-11-15T01:13:25", store)[0] == "v5"
    finally:
        monkeypatch.undo()
        time.tzset()


def test_partitions_are_merged_by_time_and_stay_in_order_themselves(store: Path) -> None:
    merged = ["p0 at 10", "p2 at 10", "p2 at 15", "p1 at 30", "p0 at 40", "p0 at 20", "p2 at 50"]
    assert values("read parts", store) == merged
    assert values("read parts --max 3", store) == merged[:3]
    assert values("read parts --partition 2", store) == ["p2 at 10", "p2 at 15", "p2 at 50"]
    assert values("read parts --offset -1", store) == ["p0 at 20", "p1 at 30", "p2 at 50"]
    assert values(f"read parts --since {NOW + 15}", store) == merged[2:]


def test_an_offset_need_not_be_there_in_every_partition(store: Path) -> None:
    assert values("read parts --offset 2", store) == ["p0 at 20", "p2 at 50"]
    assert "out of range" in only_line(run("read parts --offset 4", store=store, code=1).stderr)
    assert "out of range" in only_line(
        run("read parts --offset 2 --partition 1", store=store, code=1).stderr
    )


def test_the_last_records_are_counted_over_gaps(tmp_path: Path) -> None:
    with logstore.open(tmp_path) as opened:
        log = opened.create_topic("t").partition(0)
        for number in range(8):
            log.append([Record(value=b"%d" % number)])
            for _ in range(5):
                marker = end_transaction_marker(
                    ControlType.COMMIT, timestamp=NOW, coordinator_epoch=0
                )
                append_control(log, marker)
        log.append([Record(value=b"8"), Record(value=b"9"), Record(value=b"10")])
    for count in range(1, 13):
        expected = [str(number) for number in range(11)][-count:]
        assert values(f"read t --offset -{count}", tmp_path) == expected


def append_control(log: logstore.PartitionLog, marker: Record) -> None:
    log.append_raw(
        encode_batch([marker], base_offset=log.log_end_offset, control=True, producer_id=1),
        origin="replica",
    )


def test_a_topic_of_several_segments_is_read_through(tmp_path: Path) -> None:
    run("topic create t --config segment_bytes=3000", store=tmp_path)
    lines = [f"{number:04d} {'x' * 50}" for number in range(2000)]
    for start in range(0, 2000, 100):
        run("append t", store=tmp_path, stdin="\n".join(lines[start : start + 100]))
    assert len(list((tmp_path / "topics" / "t-0").glob("*.log"))) > 10
    assert values("read t", tmp_path) == lines
    assert values("read t --offset -150", tmp_path) == lines[-150:]
    assert values("read t --offset 777 --max 500", tmp_path) == lines[777:1277]


# --- what is printed --------------------------------------------------------------------------


def test_json_is_the_record_with_topic_and_partition(store: Path) -> None:
    with logstore.open(store) as opened:
        opened.topic("parts").partition(1).append(
            [Record(timestamp=NOW, key=b"\xff", value=None, headers=[("h", b"\xfe"), ("h", None)])]
        )
    (found,) = json_lines(run("read parts --partition 1 --offset -1 --json", store=store))
    assert json.dumps(found) == json.dumps(
        {
            "type": "record",
            "topic": "parts",
            "partition": 1,
            "offset": 1,
            "timestamp": NOW,
            "key": {"base64": "/w=="},
            "value": None,
            "headers": [["h", {"base64": "/g=="}], ["h", None]],
        }
    )


RECORD = Record(7, NOW, b"key", b"val\xffue", [("a", b"b"), ("n", None), ("e", b"")])
EMPTY = Record(8, -1, None, None)


@pytest.mark.parametrize(
    ("pattern", "record", "expected"),
    [
        ("%s", RECORD, b"val\xffue"),
        ("%s|%k|%h", EMPTY, b"||"),
        ("%S %K", RECORD, b"6 3"),
        ("%S %K", EMPTY, b"-1 -1"),
        ("%R%s", RECORD, b"\0\0\0\6val\xffue"),
        ("%R", EMPTY, b"\xff\xff\xff\xff"),
        ("%T", RECORD, b"1700000000000"),
        ("%T", EMPTY, b"-1"),
        ("%h", RECORD, b"a=b,n=NULL,e="),
        ("%t-%p@%o", RECORD, b"topic-3@7"),
        ("100%%", RECORD, b"100%"),
        ("%%s", RECORD, b"%s"),
        ("%o %k %s\\n", RECORD, b"7 key val\xffue\n"),
        ("\\n\\r\\t\\0\\\\", RECORD, b"\n\r\t\0\\"),
        ("\\x41\\xff\\x0Ag\\x7z", RECORD, b"A\xff\ng\x07z"),
        ("é%o", RECORD, "é7".encode()),
        ("", RECORD, b""),
        ("plain", RECORD, b"plain"),
    ],
)
def test_formats_follow_kcats_letters(pattern: str, record: Record, expected: bytes) -> None:
    assert parse_format(pattern, "topic")(3, record) == expected


@pytest.mark.parametrize("pattern", ["%z", "%", "%o %", "\\q", "\\", "\\x", "\\xg", "%é"])
def test_formats_with_unknown_letters_are_refused(pattern: str) -> None:
    with pytest.raises(InvalidInputError):
        parse_format(pattern, "topic")


def test_a_format_replaces_the_line_feed_as_well(store: Path) -> None:
    assert run("read ten --max 2 --format", "%p:%o:%s;", store=store).stdout == "0:0:v0;0:1:v1;"


def test_binary_values_come_out_as_they_went_in(tmp_path: Path) -> None:
    data = bytes(range(256)) * 20
    run("append t", store=tmp_path, stdin=data)
    assert run("read t", store=tmp_path).stdout_bytes.removesuffix(b"\n") == data


# --- following --------------------------------------------------------------------------------


@pytest.mark.parametrize(("topic", "there"), [("ten", 10), ("parts", 7)])
def test_following_prints_what_comes_and_ctrl_c_ends_it_quietly(
    topic: str, there: int, store: Path
) -> None:
    with running(f"read {topic} --follow", store=store) as process:
        assert process.stdout is not None
        for _ in range(there):
            process.stdout.readline()
        for number in range(3):
            run(f"append {topic}", store=store, stdin=f"new {number}\n")
            assert process.stdout.readline() == b"new %d\n" % number
        process.send_signal(signal.SIGINT)
        assert end_of(process) == (0, b"")


def test_following_begins_with_what_is_there_and_ends_at_max(store: Path) -> None:
    with running("read ten --offset -2 --max 4 --follow --json", store=store) as process:
        assert process.stdout is not None
        first = [json.loads(process.stdout.readline())["value"] for _ in range(2)]
        run("append ten", store=store, stdin="x\ny\nz\n")
        rest = [json.loads(line)["value"] for line in process.stdout]
        assert first + rest == ["v8", "v9", "x", "y"]
        assert end_of(process) == (0, b"")


@pytest.mark.skipif(os.name == "nt", reason="no pipes that can be polled there")
@pytest.mark.parametrize("topic", ["ten", "parts"])
def test_following_ends_when_nobody_reads_any_more(topic: str, store: Path) -> None:
    with running(f"read {topic} --follow", store=store) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        process.stdout.close()  # nothing is appended: it has to notice by itself
        assert end_of(process) == (0, b"")


def test_a_pipeline_of_append_and_follow_works_live(tmp_path: Path) -> None:
    run("topic create t", store=tmp_path)
    with (
        running("read t --follow", store=tmp_path) as reader,
        running("append t --acks 1", store=tmp_path, stdin=subprocess.PIPE) as writer,
    ):
        assert reader.stdout is not None
        assert writer.stdin is not None
        for number in range(5):
            writer.stdin.write(b"%d\n" % number)
            writer.stdin.flush()
            assert reader.stdout.readline() == b"%d\n" % number
        writer.stdin.close()
        assert end_of(writer)[0] == 0


# --- offsets and times as text ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "start"),
    [
        ("earliest", Start("earliest")),
        ("latest", Start("latest")),
        ("0", Start("offset", 0)),
        ("12", Start("offset", 12)),
        ("-12", Start("last", 12)),
    ],
)
def test_offsets_are_understood(text: str, start: Start) -> None:
    assert parse_offset(text) == start


@pytest.mark.parametrize("text", ["", "-", "1.5", "+1", "٣", "Latest", "12 ", "9" * 30])
def test_other_offsets_are_not(text: str) -> None:
    with pytest.raises(ValueError, match="offset"):
        parse_offset(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", 0),
        ("1700000000123", 1_700_000_000_123),
        ("10m", NOW - 600_000),
        ("2h", NOW - 7_200_000),
        ("1d", NOW - 86_400_000),
        ("3w", NOW - 3 * 7 * 86_400_000),
        ("30s", NOW - 30_000),
        ("250ms", NOW - 250),
        ("2023-11-14T22:13:20Z", NOW),
        ("2023-11-14 22:13:20+00:00", NOW),
        ("2023-11-14T22:13:20.250Z", NOW + 250),
        ("1960-01-01T00:00:00.500Z", -315_619_199_500),
    ],
)
def test_times_are_understood(text: str, expected: int) -> None:
    assert parse_time(text, NOW) == Start("time", expected)


def test_a_date_is_its_local_midnight() -> None:
    local = datetime(2023, 11, 14)  # local is what is meant
    assert parse_time("2023-11-14", NOW).number == int(local.timestamp()) * 1000
    zone = timezone(timedelta(hours=5, minutes=30))
    there = datetime(2023, 11, 14, 12, tzinfo=zone)
    assert parse_time(there.isoformat(), NOW).number == int(there.timestamp()) * 1000


@pytest.mark.parametrize("text", ["", "m", "10y", "-10m", "tomorrow", "2023-13-01", "1 h"])
def test_other_times_are_not(text: str) -> None:
    with pytest.raises(ValueError, match="time"):
        parse_time(text, NOW)


@pytest.mark.skipif(os.name == "nt", reason="no pipes that can be polled there")
@pytest.mark.parametrize(("options", "code"), [("", 130), (" --follow", 0)])
def test_ctrl_c_ends_it_even_if_whoever_reads_has_stopped(
    options: str, code: int, tmp_path: Path
) -> None:
    """A pager that shows its first page takes no more: what is not yet written holds nothing up."""
    with logstore.open(tmp_path) as opened:
        log = opened.create_topic("much").partition(0)
        log.append([Record(value=b"v" * 1000)] * 2000, acks=1)
    with running(f"read much{options}", store=tmp_path) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        time.sleep(0.3)  # most likely it is waiting by then; it has to end if not, too
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == code
        assert end_of(process) == (code, b"" if options else b"logstore: interrupted\n")


@pytest.mark.parametrize(("topic", "there"), [("ten", 10), ("parts", 7)])
def test_following_goes_on_from_where_the_log_was_cut(topic: str, there: int, store: Path) -> None:
    """Records that come later have offsets that were printed already; they are new all the same."""
    with (
        logstore.open(store) as opened,
        running(f"read {topic} --follow", store=store) as process,
    ):
        assert process.stdout is not None
        assert process.stderr is not None
        for _ in range(there):
            process.stdout.readline()
        log = opened.topic(topic).partition(0)
        log.truncate(1)
        complaint = process.stderr.readline().decode()
        assert complaint == f"logstore: {log.directory}: the log was cut; it goes on at offset 1\n"
        log.append([Record(value=b"after")])
        assert process.stdout.readline() == b"after\n"
        process.send_signal(signal.SIGINT)
        assert end_of(process) == (0, b"")
