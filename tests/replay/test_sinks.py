"""Sinks: what arrives in them, what they say of it, and what they refuse."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import logstore
from logstore import Codec, ConsumerRecord, Store
from logstore.errors import InvalidInputError
from logstore.json_records import record_line
from logstore.partitioner import partition_for_key
from logstore.replay.errors import ReplayError, UserCodeError
from logstore.replay.process_sink import ProcessSink
from logstore.replay.sink import FileSink, FunctionSink, LinesSink, SinkEnded
from logstore.replay.topic_sink import PartitionMap, TopicSink, parse_partition_map
from logstore.replay.user_code import load_function
from logstore.segments.files import DiskFiles

from .support import START_MS, contents, row

ROWS = [
    row(0, b"a", key=b"k1", headers=(("h", b"1"),)),
    row(1, b"b", partition=1),
    row(2, None, key=b"k2"),  # type: ignore[arg-type]
    row(3, b"d", partition=1, at=5),
]


def values(rows: list[ConsumerRecord]) -> list[bytes | None]:
    return [one.value for one in rows]


# --- a topic ------------------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path: Path) -> Any:
    with logstore.open(tmp_path, maintenance_interval=None) as opened:
        yield opened


def sink_of(store: Store, count: int = 2, **options: Any) -> TopicSink:
    return TopicSink(store.create_topic("copy", partitions=count), **options)


def test_records_keep_all_but_their_offsets(store: Store, tmp_path: Path) -> None:
    sink = sink_of(store)
    sink.write(ROWS)
    assert sink.delivered == 0  # kept back, until there are enough for a batch
    sink.close()
    assert sink.delivered == 4
    zero, one = contents(tmp_path, "copy")
    assert [r[3:] for r in zero + one] == [r[3:] for r in (ROWS[0], ROWS[2], ROWS[1], ROWS[3])]
    assert [r.offset for r in zero + one] == [0, 1, 0, 1]


def test_records_may_get_the_time_of_their_append(store: Store, tmp_path: Path) -> None:
    sink = sink_of(store, keep_timestamps=False)
    sink.write(ROWS)
    sink.close()
    assert all(
        r.timestamp > START_MS + 1_000_000 for part in contents(tmp_path, "copy") for r in part
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("same", [[0, 2], [1, 3], []]),
        ("2", [[], [], [0, 1, 2, 3]]),
        ("0:1,1:2", [[], [0, 2], [1, 3]]),
        ("0:1,1:1", [[], [0, 1, 2, 3], []]),
    ],
)
def test_partitions_are_mapped(
    text: str, expected: list[list[int]], store: Store, tmp_path: Path
) -> None:
    sink = sink_of(store, 3, partitions=parse_partition_map(text))
    sink.write(ROWS)
    sink.close()
    assert [values(part) for part in contents(tmp_path, "copy")] == [
        [ROWS[n].value for n in numbers] for numbers in expected
    ]


def test_records_go_where_their_keys_lead_to(store: Store, tmp_path: Path) -> None:
    rows = [
        row(n, b"%d" % n, partition=n % 2, key=b"k%d" % n if n % 3 else None) for n in range(20)
    ]
    sink = sink_of(store, 4, partitions=parse_partition_map("key"))
    sink.write(rows)
    sink.close()
    for number, part in enumerate(contents(tmp_path, "copy")):
        assert values(part) == [
            r.value
            for r in rows
            if number == (partition_for_key(r.key, 4) if r.key is not None else r.partition)
        ]


def test_maps_are_understood_or_refused() -> None:
    assert parse_partition_map("0:2,1:0").numbers == {0: 2, 1: 0}
    assert parse_partition_map("same").text == "same"
    for wrong in ("", "a", "0:", ":1", "0:1,", "0:1,0:2", "1,2", "-1", "0:1:2", "keys", "0:²"):
        with pytest.raises(InvalidInputError, match="no map of partitions"):
            parse_partition_map(wrong)


def test_a_map_that_says_nothing_of_a_partition_is_told(store: Store) -> None:
    sink = sink_of(store, partitions=parse_partition_map("0:1"))
    with pytest.raises(InvalidInputError, match="says nothing of partition 1"):
        sink.write(ROWS)


def test_a_partition_that_is_not_there_is_told_unless_the_topic_may_grow(
    store: Store, tmp_path: Path
) -> None:
    with pytest.raises(logstore.UnknownTopicError, match="no partition 1"):
        sink_of(store, 1).write(ROWS)
    topic = store.create_topic("grown")
    sink = TopicSink(topic, grow=lambda count: store.add_partitions("grown", count))
    sink.write(ROWS)
    sink.close()
    assert [len(part) for part in contents(tmp_path, "grown")] == [2, 2]


@pytest.mark.parametrize(
    ("text", "parts", "kept"),
    [
        ("same", [0, 1], True),
        ("3", [0], True),
        ("3", [0, 1], False),
        ("0:1,1:0", [0, 1], True),
        ("0:1,1:1", [0, 1], False),
        ("0:1", [0, 1], False),
        ("key", [0], False),
    ],
)
def test_batches_stay_whole_where_partitions_do(text: str, parts: list[int], kept: bool) -> None:
    mapped = parse_partition_map(text)
    assert mapped.keeps_batches([("t", number) for number in parts]) is kept


def test_batches_fit_what_the_topic_takes(store: Store, tmp_path: Path) -> None:
    topic = store.create_topic("small", max_message_bytes=2000)
    sink = TopicSink(topic)
    rows = [row(n, b"x" * (n * 40)) for n in range(45)]
    sink.write(rows)
    sink.close()
    assert values(contents(tmp_path, "small")[0]) == values(rows)
    sink = TopicSink(topic)
    with pytest.raises(InvalidInputError, match=r"max_message_bytes=2000; from t-0, offset 7"):
        sink.write([row(7, b"x" * 3000)])


def test_batches_are_compressed_as_asked(store: Store) -> None:
    sink = sink_of(store, 1, codec=Codec.ZSTD)
    sink.write([row(n, b"x" * 1000) for n in range(50)])
    sink.close()
    fetch = store.topic("copy").partition(0).read(0)
    assert {batch.header.codec for batch in fetch.batches()} == {Codec.ZSTD}
    assert len(fetch.data) < 5000
    assert not sink.takes_raw([("t", 0)])


def test_positions_of_another_kind_and_logs_that_were_cut_are_refused(store: Store) -> None:
    sink = sink_of(store, resumable=True)
    sink.write(ROWS)
    position = sink.position()
    with pytest.raises(ReplayError, match="says nothing of the topic"):
        TopicSink(store.topic("copy"), resumable=True).restore({"size": 5})
    store.topic("copy").partition(1).truncate(1)
    with pytest.raises(ReplayError, match="the log ends at 1, and this replay had come to 2"):
        TopicSink(store.topic("copy"), resumable=True).restore(position)


# --- lines, functions, files, processes ---------------------------------------------------------


def test_lines_are_written_whole_and_counted() -> None:
    stream = io.BytesIO()
    sink = LinesSink("here", record_line, stream.write, stream.flush)
    rows = [row(n, b"x" * 3000) for n in range(100)]
    sink.write(rows)
    assert sink.delivered == 100
    assert stream.getvalue() == b"".join(map(record_line, rows))


def test_a_function_is_called_with_each_record_and_its_error_told() -> None:
    seen: list[int] = []

    def take(one: ConsumerRecord) -> None:
        if one.offset == 2:
            raise KeyError("amount")
        seen.append(one.offset)

    sink = FunctionSink("shop:take", take)
    with pytest.raises(UserCodeError) as caught:
        sink.write(ROWS)
    assert seen == [0, 1]
    assert sink.delivered == 2
    assert "shop:take raised KeyError: 'amount' at t-0, offset 2 (test_sinks.py, line " in str(
        caught.value
    )


def test_a_file_is_cut_back_to_its_last_saved_size(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    sink = FileSink(str(path), files=DiskFiles())
    sink.restore(None)
    sink.write(ROWS[:2])
    position = json.loads(json.dumps(sink.position()))
    sink.write(ROWS[2:3])
    sink.close()
    again = FileSink(str(path), files=DiskFiles())
    again.restore(position)
    again.write(ROWS[2:])
    again.close()
    assert path.read_bytes() == b"".join(map(record_line, ROWS))


def test_a_file_that_is_there_already_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.write_bytes(b"mine\n")
    with pytest.raises(InvalidInputError, match="there already, with 5 bytes"):
        FileSink(str(path), files=DiskFiles()).restore(None)
    with pytest.raises(ReplayError, match="has 5 bytes, where 50 were written"):
        FileSink(str(path), files=DiskFiles()).restore({"size": 50})
    assert path.read_bytes() == b"mine\n"


def test_a_command_gets_lines_and_is_waited_for(tmp_path: Path) -> None:
    target = tmp_path / "got"
    sink = ProcessSink(f"cat > '{target}'", record_line)
    sink.write(ROWS)
    sink.write(ROWS)
    sink.close()
    assert sink.delivered == 8
    assert target.read_bytes() == b"".join(map(record_line, ROWS * 2))


def many_until(sink: ProcessSink, rows: list[ConsumerRecord]) -> None:
    for _ in range(1000):
        sink.write(rows)


def test_a_command_that_has_read_enough_ends_the_replay() -> None:
    sink = ProcessSink("head -n 1 > /dev/null", record_line)
    with pytest.raises(SinkEnded):
        many_until(sink, [row(n, b"x" * 1000) for n in range(100)])
    sink.close()


@pytest.mark.parametrize(
    ("command", "reason"), [("exit 3", "ended with status 3"), ("kill -9 $$", "by signal 9")]
)
def test_a_command_that_fails_is_told(command: str, reason: str) -> None:
    sink = ProcessSink(command, record_line)
    with pytest.raises(ReplayError, match=reason):
        many_until(sink, [row(n, b"x" * 1000) for n in range(100)])
    sink = ProcessSink(f"cat > /dev/null; {command}", record_line)
    sink.write(ROWS)
    with pytest.raises(ReplayError, match=reason):
        sink.close()


# --- functions by name --------------------------------------------------------------------------


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], None]]:
    """Writes modules into the current directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    modules = set(sys.modules)

    def write(name: str, text: str) -> None:
        (tmp_path / name).write_text(text)

    yield write
    for name in set(sys.modules) - modules:
        del sys.modules[name]


def test_functions_are_found_in_modules_files_and_classes(
    here: Callable[[str, str], None], tmp_path: Path
) -> None:
    here("shopmod.py", "class Shop:\n    @staticmethod\n    def take(r): return r + 1\nfive = 5\n")
    (tmp_path / "sub").mkdir()
    here("sub/other-one.py", "def fold(state, record): return 7\n")
    assert load_function("shopmod:Shop.take")(1) == 2
    assert load_function("sub/other-one.py:fold")(None, None) == 7


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("shop", "names no function"),
        (":f", "names no function"),
        ("shop:", "names no function"),
        ("shop:a b", "names no function"),
        ("no_such_module:f", "there is no module 'no_such_module'"),
        ("good.no_such:f", "there is no module 'good.no_such'"),
        ("no/such.py:f", "no/such.py: there is no such file"),
        ("good:g", "good has no 'g'"),
        ("good:five", "a int cannot be called"),
    ],
)
def test_a_function_that_is_not_there_is_told(
    text: str, reason: str, here: Callable[[str, str], None]
) -> None:
    here("good.py", "five = 5\n")
    with pytest.raises(InvalidInputError) as caught:
        load_function(text)
    assert reason in str(caught.value)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import nothing_of_that_name\n", "ModuleNotFoundError"),
        ("x = 1\n1 / 0\n", r"ZeroDivisionError: division by zero \(bad1?.py, line 2\)"),
        ("def f(:\n", "SyntaxError"),
    ],
)
def test_what_an_import_raises_is_told(
    source: str, reason: str, here: Callable[[str, str], None]
) -> None:
    here("bad1.py", source)
    for name in ("bad1:f", "bad1.py:f"):
        with pytest.raises(UserCodeError, match=reason):
            load_function(name)


def test_maps_that_look_the_same_are_the_same() -> None:
    assert PartitionMap() == parse_partition_map("same")
