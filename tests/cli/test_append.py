"""``logstore append``: what becomes a record, where it goes, and what is told of it."""

from __future__ import annotations

import io
import random
import re
import subprocess
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import logstore
from logstore.cli.append import Acks
from logstore.cli.lines import LineBatch, LineReader
from logstore.errors import LimitError
from logstore.partitioner import partition_for_key
from logstore.segments.record import Record

from .program import end_of, json_lines, only_line, run, running

REAL_LOG = Path(__file__).resolve().parents[2] / "examples" / "data" / "apache_access_6k.log"


def records_of(store: Path, topic: str, partition: int = 0) -> list[Record]:
    with logstore.open(store, create=False) as opened:
        return list(opened.topic(topic).partition(partition).read(0, max_bytes=1 << 28).records())


def values_of(store: Path, topic: str = "t", partition: int = 0) -> list[bytes | None]:
    return [record.value for record in records_of(store, topic, partition)]


@pytest.mark.parametrize(
    ("stdin", "values"),
    [
        (b"", []),
        (b"\n", [b""]),
        (b"one", [b"one"]),
        (b"one\n", [b"one"]),
        (b"one\n\ntwo", [b"one", b"", b"two"]),
        (b"dos\r\nold\rmac\x0bvt\x0cff\x1c\xc2\x85x\xe2\x80\xa8\n", None),
        (bytes(range(256)) * 3, None),
    ],
)
def test_every_byte_but_the_line_feed_is_stored(
    stdin: bytes, values: list[bytes] | None, tmp_path: Path
) -> None:
    run("append t", store=tmp_path, stdin=stdin)
    expected = stdin.removesuffix(b"\n").split(b"\n") if values is None else values
    assert values_of(tmp_path) == expected


def test_a_file_and_standard_input_give_the_same(tmp_path: Path) -> None:
    path = tmp_path / "lines.txt"
    path.write_bytes(b"one\ntwo")
    store = tmp_path / "store"
    run("append file", path, store=store)
    run("append dash -", store=store, stdin=b"one\ntwo")
    run("append stdin", store=store, stdin=b"one\ntwo")
    assert values_of(store, "file") == values_of(store, "dash") == values_of(store, "stdin")


def test_an_empty_input_creates_the_topic_and_says_so(tmp_path: Path) -> None:
    line = only_line(run("append t", store=tmp_path, stdin=b"").stderr)
    assert line.startswith("0 records, 0 bytes in ")
    assert re.search(r"^t +0 +0 +0$", run("topic list", store=tmp_path).stdout, re.MULTILINE)


@pytest.mark.parametrize("codec", ["none", "gzip", "snappy", "lz4", "zstd"])
def test_a_real_log_comes_back_byte_for_byte_in_every_codec(codec: str, tmp_path: Path) -> None:
    result = run("append access", REAL_LOG, "--compression", codec, store=tmp_path)
    data = REAL_LOG.read_bytes()
    line = only_line(result.stderr)
    assert line.startswith(f"6,000 records, {len(data):,} bytes in ")
    assert line.endswith(" records/s")
    assert run("read access", store=tmp_path).stdout_bytes == data
    batches = json_lines(run("dump --json", tmp_path / "topics" / "access-0"))
    assert {batch["codec"] for batch in batches} == {codec}
    assert sum(batch["count"] for batch in batches) == 6000
    assert all(batch["crc_ok"] for batch in batches)


@pytest.mark.parametrize("acks", ["0", "1", "all"])
def test_acks_are_understood(acks: str, tmp_path: Path) -> None:
    run(f"append t --acks {acks}", store=tmp_path, stdin=b"one")
    assert values_of(tmp_path) == [b"one"]
    names: dict[str, Acks] = {"0": 0, "1": 1, "all": "all"}
    assert acks in names


@pytest.mark.parametrize(
    ("separator", "stdin"),
    [
        (":", b"k:v\nno key\n:empty\nk:v:w\n"),
        ("\\t", b"k\tv\nno key\n\tempty\nk\tv\tw\n"),
        ("::", b"k::v\nno: key\n::empty\nk::v::w\n"),
        ("é", "kév\nno key\néempty\nkévéw\n".encode()),
        ("\\0", b"k\0v\nno key\n\0empty\nk\0v\0w\n"),
        ("\\\\", b"k\\v\nno key\n\\empty\nk\\v\\w\n"),
        ("\\q", b"k\\qv\nno \\ key\n\\qempty\nk\\qv\\qw\n"),
    ],
)
def test_what_stands_before_the_first_separator_is_the_key(
    separator: str, stdin: bytes, tmp_path: Path
) -> None:
    run("append t --key-separator", separator, store=tmp_path, stdin=stdin)
    found = [(record.key, record.value) for record in records_of(tmp_path, "t")]
    assert [key for key, _ in found] == [b"k", None, b"", b"k"]
    assert [found[0][1], found[2][1]] == [b"v", b"empty"]
    lines = stdin.removesuffix(b"\n").split(b"\n")
    assert found[1][1] == lines[1]
    assert found[3][1] == lines[3].removeprefix(lines[0].removesuffix(b"v"))


def test_keys_choose_their_partition_as_in_kafka(tmp_path: Path) -> None:
    run("topic create t --partitions 5", store=tmp_path)
    lines = [b"key-%d:%d" % (n % 40, n) for n in range(200)]
    run("append t --key-separator :", store=tmp_path, stdin=b"\n".join(lines))
    for partition in range(5):
        expected = [
            tuple(line.split(b":"))
            for line in lines
            if partition_for_key(line.split(b":")[0], 5) == partition
        ]
        found = [(record.key, record.value) for record in records_of(tmp_path, "t", partition)]
        assert found == expected


def test_records_without_a_key_go_to_each_partition_in_turn(tmp_path: Path) -> None:
    run("topic create t --partitions 3", store=tmp_path)
    lines = [b"%06d" % n for n in range(12_000)]  # three batches
    run("append t", store=tmp_path, stdin=b"\n".join(lines))
    parts = [values_of(tmp_path, "t", partition) for partition in range(3)]
    assert parts == [lines[:5000], lines[5000:10_000], lines[10_000:]]


def test_batches_are_neither_tiny_nor_huge(tmp_path: Path) -> None:
    run("append many", store=tmp_path, stdin=b"\n" * 12_000)
    run("append large", store=tmp_path, stdin=(b"x" * 1000 + b"\n") * 2000)
    run("append huge", store=tmp_path, stdin=b"a\n" + b"x" * 3_000_000 + b"\nb")
    counts = {}
    for topic in ("many", "large", "huge"):
        batches = json_lines(run("dump --json", tmp_path / "topics" / f"{topic}-0"))
        counts[topic] = [batch["count"] for batch in batches]
        if topic == "large":
            assert all(batch["size"] <= 512 << 10 for batch in batches)
    assert counts["many"] == [5000, 5000, 2000]
    assert sum(counts["large"]) == 2000
    assert len(counts["large"]) == 4
    assert counts["huge"] == [1, 1, 1]


def test_a_line_that_is_too_large_is_named_and_what_was_appended_counted(tmp_path: Path) -> None:
    run("topic create t --config max_message_bytes=2000", store=tmp_path)
    lines = [b"x" * 500] * 7 + [b"y" * 3000] + [b"z"]
    result = run("append t", store=tmp_path, stdin=b"\n".join(lines), code=1)
    line = only_line(result.stderr)
    assert line.startswith("logstore: line 8: ")
    assert "max_message_bytes=2000" in line
    assert "7 records appended" in line
    assert values_of(tmp_path) == lines[:7]


@pytest.mark.parametrize("size", [100, 500, 1000, 1500])
@pytest.mark.parametrize("codec", ["none", "gzip", "snappy", "lz4", "zstd"])
def test_many_lines_never_make_a_batch_that_is_too_large(
    size: int, codec: str, tmp_path: Path
) -> None:
    run("topic create t --config max_message_bytes=2000", store=tmp_path)
    data = bytes((n * n * 7919 >> 7) % 251 + 5 if n % size else 10 for n in range(40_000))
    expected = data.removesuffix(b"\n").split(b"\n")
    run(f"append t --compression {codec}", store=tmp_path, stdin=data)
    assert run("read t", store=tmp_path).stdout_bytes == b"\n".join(expected) + b"\n"


def test_a_slow_pipe_is_seen_line_by_line(tmp_path: Path) -> None:
    with running("append t --acks 1", store=tmp_path, stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        for count in (1, 2, 3):
            process.stdin.write(b"line %d\npart of " % count)
            process.stdin.flush()
            deadline = time.monotonic() + 20
            while len(seen := values_so_far(tmp_path)) < count:
                assert time.monotonic() < deadline, f"line {count} never came: {seen}"
                time.sleep(0.02)
        process.stdin.close()
        code, told = end_of(process)
    assert code == 0
    assert only_line(told.decode()).startswith("4 records, ")
    assert values_of(tmp_path) == [b"line 1", b"part of line 2", b"part of line 3", b"part of "]


def values_so_far(store: Path) -> list[bytes | None]:
    try:
        return values_of(store)
    except logstore.LogstoreError:
        return []  # the other process is just making store and topic


# --- lines ------------------------------------------------------------------------------------


def lines_of(data: bytes, *, batch_bytes: int = 100, batch_lines: int = 4) -> list[LineBatch]:
    reader = LineReader(
        io.BytesIO(data), batch_bytes=batch_bytes, batch_lines=batch_lines, overhead_bytes=10
    )
    batches = list(reader.batches())
    assert reader.bytes_read == len(data)
    return batches


@given(st.binary(max_size=200).map(lambda data: data.replace(b"\1", b"\n")))
def test_lines_joined_are_what_was_read(data: bytes) -> None:
    batches = lines_of(data)
    lines = [line for batch in batches for line in batch.lines]
    assert b"".join(line + b"\n" for line in lines) in (data, data + b"\n")
    number = 1
    for batch in batches:
        assert batch.first_line == number
        assert 1 <= len(batch.lines) <= 4
        assert len(batch.lines) == 1 or sum(len(line) + 10 for line in batch.lines) <= 100
        number += len(batch.lines)


def test_lines_longer_than_a_read_are_put_together() -> None:
    data = b"a" * 700_000 + b"\n" + b"b" * 300_000 + b"\nc"
    assert [batch.lines for batch in lines_of(data)] == [
        [b"a" * 700_000],
        [b"b" * 300_000],
        [b"c"],
    ]


def test_a_line_without_an_end_is_refused_before_it_fills_the_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("logstore.cli.lines.MAX_BATCH_BYTES", 1 << 20)
    with pytest.raises(LimitError, match="longer than 1048576 bytes"):
        lines_of(b"x\n" + b"y" * (3 << 20))


def test_headers_come_with_the_lines_and_with_the_command(tmp_path: Path) -> None:
    words = "append t --headers --key-separator : --header from=test --header mark"
    stdin = b"a=1,b=NULL,c=,d\tkey:value\n\tno key\n\xff=\xfe\tk:\n"
    run(words, store=tmp_path, stdin=stdin)
    common = [("from", b"test"), ("mark", None)]
    first, second, third = records_of(tmp_path, "t")
    assert (first.key, first.value) == (b"key", b"value")
    assert list(first.headers) == [("a", b"1"), ("b", None), ("c", b""), ("d", None), *common]
    assert (second.key, second.value, list(second.headers)) == (None, b"no key", common)
    assert (third.key, third.value) == (b"k", b"")
    assert list(third.headers) == [("\udcff", b"\xfe"), *common]
    shown = run("read t --max 1 --format", "%h\\t%k:%s\\n", store=tmp_path).stdout_bytes
    assert shown == b"a=1,b=NULL,c=,d=NULL,from=test,mark=NULL\tkey:value\n"


def test_a_partition_is_chosen(tmp_path: Path) -> None:
    run("topic create t --partitions 3", store=tmp_path)
    run("append t --partition 2 --key-separator :", store=tmp_path, stdin="a:1\nb:2\nc\n")
    assert values_of(tmp_path, partition=2) == [b"1", b"2", b"c"]
    complaint = only_line(run("append t --partition 3", store=tmp_path, stdin="x", code=1).stderr)
    assert "has no partition 3" in complaint


def test_a_new_topic_is_not_made_for_a_partition_that_it_would_not_have(tmp_path: Path) -> None:
    run("topic create t", store=tmp_path)
    for stdin in ("x", ""):
        complaint = only_line(
            run("append u --partition 1", store=tmp_path, stdin=stdin, code=1).stderr
        )
        assert "there is no topic called 'u'" in complaint
    assert json_lines(run("topic list --json", store=tmp_path))[0]["name"] == "t"
    assert only_line(run("append t --partition 1", store=tmp_path, stdin="", code=1).stderr)
    run("append u --partition 0", store=tmp_path, stdin="x")


@pytest.mark.parametrize("seed", range(3))
def test_what_read_prints_as_json_append_restores_without_loss(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    print(f"seed {seed}")
    choices = [None, b"", b"text", "ä€😀\u2028".encode(), b"\xff\x00\n\t", b'"\\', b"NULL"]

    def some() -> Record:
        names = ["", "n", "ä", "n", "\udcff"]
        return Record(
            timestamp=rng.randrange(1 << 40),
            key=rng.choice(choices),
            value=rng.choice(choices),
            headers=[(rng.choice(names), rng.choice(choices)) for _ in range(rng.randrange(4))],
        )

    one, two = tmp_path / "one", tmp_path / "two"
    with logstore.open(one) as store:
        topic = store.create_topic("t", partitions=3)
        for number in (0, 2):
            topic.partition(number).append([some() for _ in range(40)])
    with logstore.open(two) as store:
        store.create_topic("t", partitions=3)
    printed = run("read t --json", store=one).stdout_bytes
    run("append t --json", store=two, stdin=printed)
    for number in range(3):
        expected, found = (
            [r._replace(headers=list(r.headers)) for r in records_of(path, "t", number)]
            for path in (one, two)
        )
        # The order of those with one timestamp is free only among partitions.
        assert [r._replace(offset=0) for r in found] == [r._replace(offset=0) for r in expected]


def test_objects_need_no_more_than_a_value(tmp_path: Path) -> None:
    run("topic create t --partitions 2", store=tmp_path)
    before = time.time_ns() // 1_000_000
    stdin = '{"value": "a", "partition": 1}\n{"value": null, "key": "k", "x": [1]}\n'
    run("append t --json --header h=1", store=tmp_path, stdin=stdin)
    first = records_of(tmp_path, "t", 1)[0]
    assert first.value == b"a"
    assert first.timestamp >= before
    assert list(first.headers) == [("h", b"1")]
    [second] = [r for n in (0, 1) for r in records_of(tmp_path, "t", n) if r.key == b"k"]
    assert second.value is None
    nulls = '{"value": "n", "key": null, "headers": null, "timestamp": null, "partition": null}'
    run("append nulls --json", store=tmp_path, stdin=nulls)
    assert values_of(tmp_path, "nulls") == [b"n"]
    run("append t --json --partition 0", store=tmp_path, stdin='{"value": "b", "partition": 1}')
    assert b"b" in values_of(tmp_path, partition=0)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "this is no JSON"),
        ("[" * 100_000, "this is no JSON"),
        ("5", "this is no JSON object"),
        ("{}", 'no "value"'),
        ('{"value": 5}', '"value" is text, null, or {"base64": "..."}; not 5'),
        ('{"value": {"base64": "%"}}', '"value" is text'),
        ('{"value": "\\ud800"}', '"value" is text'),
        ('{"value": "", "key": []}', '"key" is text'),
        ('{"value": "", "headers": {}}', '"headers" is a list of pairs'),
        ('{"value": "", "headers": [["a"]]}', '"headers" is a list of pairs'),
        ('{"value": "", "headers": [[null, "a"]]}', '"headers" is a list of pairs'),
        ('{"value": "", "headers": [["a", 1]]}', '"headers" is text'),
        ('{"value": "", "timestamp": -2}', '"timestamp" is a whole number from -1 on'),
        ('{"value": "", "timestamp": true}', '"timestamp" is a whole number'),
        ('{"value": "", "partition": "1"}', '"partition" is a whole number from 0 on'),
        ('{"value": "", "partition": 7}', "has no partition 7"),
    ],
    ids=range(16),
)
def test_an_object_that_is_no_record_is_named_with_its_line(
    line: str, says: str, tmp_path: Path
) -> None:
    complaint = only_line(run("append t --json", store=tmp_path, stdin=line, code=1).stderr)
    assert complaint.startswith("logstore: line 1: ")
    assert says in complaint


def test_a_bad_line_among_good_ones_is_named(tmp_path: Path) -> None:
    stdin = '{"value": "a"}\n' * 3 + "no\n"
    complaint = only_line(run("append t --json", store=tmp_path, stdin=stdin, code=1).stderr)
    assert complaint.startswith("logstore: line 4: this is no JSON")
    stdin = stdin.replace("no", '{"value": "", "partition": 1}')
    complaint = only_line(run("append t --json", store=tmp_path, stdin=stdin, code=1).stderr)
    assert complaint.startswith("logstore: line 4: topic 't' has no partition 1")
    assert complaint.endswith("(0 records appended before that)")
    complaint = only_line(run("append t --headers", store=tmp_path, stdin="\ta\nb", code=1).stderr)
    assert complaint.startswith("logstore: line 2: there is no tab behind the headers")
    complaint = only_line(run("append t --headers", store=tmp_path, stdin="=1\tb", code=1).stderr)
    assert "'=1' is not of the form name=value" in complaint
    for words in ("--json --headers", "--json --key-separator x", "--header ="):
        run(f"append t {words}", store=tmp_path, stdin="x", code=2)
