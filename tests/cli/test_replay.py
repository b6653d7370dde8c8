"""``logstore replay`` into sinks: what arrives, how it ends, and how it goes on."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import logstore
from logstore.replay.resume import ResumeFile
from logstore.segments.files import DiskFiles
from logstore.segments.record import Record

from .program import COMMAND, end_of, json_lines, only_line, run, running

NOW = 1_700_000_000_000


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """``orders``: 40 of them in two partitions, a tenth of a second apart; ``odd``: bytes."""
    path = tmp_path / "store"
    with logstore.open(path, maintenance_interval=None) as opened:
        topic = opened.create_topic("orders", partitions=2)
        for partition in (0, 1):
            for start in range(0, 20, 4):
                topic.partition(partition).append(
                    [
                        Record(
                            timestamp=NOW + 200 * n + 100 * partition,
                            key=b"customer-%d" % (n % 3),
                            value=b'{"total": %d, "partition": %d}' % (10 * n, partition),
                            headers=[("type", b"created" if n % 2 else b"paid")],
                        )
                        for n in range(start, start + 4)
                    ],
                    acks=1,
                )
        odd = opened.create_topic("odd").partition(0)
        odd.append([Record(timestamp=NOW, key=b"\xff", value=b"\x00\n"), Record(timestamp=NOW)])
    return path


def offsets(result: Any) -> list[tuple[int, int]]:
    return [(line["partition"], line["offset"]) for line in json_lines(result)]


def topic_lines(store: Path, topic: str, *, offsets: bool = False) -> list[dict[str, Any]]:
    drop = () if offsets else ("topic", "offset")
    return [
        {name: value for name, value in line.items() if name not in drop}
        for line in json_lines(run("read", topic, "--json", store=store))
    ]


# --- standard output ----------------------------------------------------------------------------


def test_without_more_it_prints_what_read_prints(store: Path) -> None:
    for words in ("", "--json", "--format '%t %p %o %T %k %h\\n'"):
        options = [word.strip("'") for word in words.split(" ", 1)] if words else []
        result = run("replay", "orders", *options, store=store)
        assert result.stdout_bytes == run("read", "orders", *options, store=store).stdout_bytes
        assert "40 records replayed in " in result.stderr
    result = run("replay odd --json", store=store)
    assert result.stdout_bytes == run("read odd --json", store=store).stdout_bytes


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--offset", "18"], [(0, 18), (1, 18), (0, 19), (1, 19)]),
        (["--offset", "-1"], [(0, 19), (1, 19)]),
        (["--last", "1"], [(0, 19), (1, 19)]),
        (["--end-offset", "1"], [(0, 0), (1, 0)]),
        (["--since", str(NOW + 3850)], [(1, 19)]),
        (["--until", str(NOW + 150)], [(0, 0), (1, 0)]),
        (["--since", "2023-11-14T22:13:23.850Z"], [(1, 19)]),
        (["--max", "3"], [(0, 0), (1, 0), (0, 1)]),
        (["--max", "0"], []),
        (["--where", "json.total >= 180 and partition == 1"], [(1, 18), (1, 19)]),
        (["--where", "json.total >= 180", "--where", "partition == 0"], [(0, 18), (0, 19)]),
        (["--key", "customer-1", "--offset", "18"], [(0, 19), (1, 19)]),
        (["--key", "customer-1", "--key", "customer-0", "--last", "2"],
         [(0, 18), (1, 18), (0, 19), (1, 19)]),
        (["--key-glob", "*-[12]", "--last", "2"], [(0, 19), (1, 19)]),
        (["--key-grep", "-1$", "--last", "2"], [(0, 19), (1, 19)]),
        (["--grep", '"total": 19'], [(0, 19), (1, 19)]),
        (["--with-header", "type=paid", "--last", "2"], [(0, 18), (1, 18)]),
        (["--with-header", "type", "--last", "1"], [(0, 19), (1, 19)]),
        (["--with-header", "none"], []),
    ],
)  # fmt: skip
def test_ranges_and_filters_choose(
    options: list[str], expected: list[tuple[int, int]], store: Path
) -> None:
    assert offsets(run("replay", "orders", "--json", *options, store=store)) == expected


def test_sources_are_topics_partitions_directories_files_and_standard_input(
    store: Path, tmp_path: Path
) -> None:
    lines = run("replay orders --json", store=store).stdout_bytes
    one = run("replay orders:1 --json", store=store).stdout_bytes
    (tmp_path / "orders.jsonl").write_bytes(lines)
    shutil.copytree(store / "topics" / "orders-1", tmp_path / "copied" / "orders-1")
    (tmp_path / "copied" / "orders-1" / "lock").unlink()
    for source, expected in (
        ("orders:0,1", lines),
        ("topic:orders:1", one),
        (str(tmp_path / "orders.jsonl"), lines),
        (f"file:{tmp_path / 'orders.jsonl'}", lines),
        (str(tmp_path / "copied" / "orders-1"), one),
        (f"directory:{tmp_path / 'copied'}", one),
        (str(store / "topics" / "orders-1"), one),
    ):
        result = run("replay", source, "--json", store=store)
        assert result.stdout_bytes == expected, source
    for word in ("-", "file:-"):
        assert run("replay", word, "--json", stdin=lines).stdout_bytes == lines
        assert offsets(run("replay", word, "--json", "--last", "1", stdin=lines)) == [
            (0, 19),
            (1, 19),
        ]


def test_a_topic_comes_before_a_file_of_the_same_name(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "orders").write_bytes(b'{"value": "of the file"}\n')
    (tmp_path / "only").write_bytes(b'{"value": "of the file"}\n')
    assert len(run("replay orders", store=store).stdout.splitlines()) == 40
    for words in ("replay ./orders", "replay file:orders", "replay only"):
        assert run(words, store=store).stdout == "of the file\n"
    assert run("replay orders").stdout == "of the file\n"  # no store was named


# --- topics -------------------------------------------------------------------------------------


def test_a_copy_is_the_same_and_made_of_whole_batches(store: Path) -> None:
    result = run("replay orders --to topic:copy", store=store)
    assert "40 records replayed" in result.stderr
    assert "40 of them in whole batches" in result.stderr
    assert topic_lines(store, "copy") == topic_lines(store, "orders")
    assert run("replay --diff orders copy", store=store).stdout == (
        "no difference: 40 records the same\n"
    )


def test_another_store_is_made_where_it_is_not_there(store: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    run("replay orders --to topic:orders --to-store", other, store=store)
    assert topic_lines(other, "orders") == topic_lines(store, "orders")
    assert run("check", other).exit_code == 0


def test_headers_timestamps_partitions_and_compression_change_on_the_way(store: Path) -> None:
    run(
        "replay orders --to topic:copy --partitions 0:1,1:0 --timestamps now --compression zstd",
        "--drop-header", "ty*", "--add-header", "from=orders", "--add-header", "none",
        store=store,
    )  # fmt: skip
    lines = topic_lines(store, "copy")
    assert {tuple(map(tuple, line["headers"])) for line in lines} == {
        (("from", "orders"), ("none", None))
    }
    assert all(line["timestamp"] > NOW + 86_400_000 for line in lines)
    for line in lines:
        assert json.loads(line["value"])["partition"] == 1 - line["partition"]
    dumped = json_lines(run("dump", store / "topics" / "copy-0", "--json"))
    assert {line["codec"] for line in dumped} == {"zstd"}


def test_a_dry_run_says_what_would_be_and_changes_nothing(store: Path, tmp_path: Path) -> None:
    words = ["replay", "orders", "--where", "json.total >= 150", "--dry-run"]
    result = run(
        *words, "--to", "topic:copy", "--resume", tmp_path / "resume", store=store
    )  # fmt: skip
    assert result.stdout == (
        "orders-0: 5 records, offsets 15 to 19\n"
        "orders-1: 5 records, offsets 15 to 19\n"
        "would replay 10 records to topic:copy\n"
    )
    assert json_lines(run(*words, "--json", store=store)) == [
        {"type": "dry-run", "topic": "orders", "partition": partition, "records": 5,
         "first_offset": 15, "last_offset": 19}
        for partition in (0, 1)
    ]  # fmt: skip
    assert not (tmp_path / "resume").exists()
    assert "copy" not in run("topic list", store=store).stdout
    (tmp_path / "there").write_bytes(b"mine")
    run("replay orders --dry-run --to", f"file:{tmp_path / 'there'}", store=store)
    assert (tmp_path / "there").read_bytes() == b"mine"


def test_a_replay_leaves_the_offsets_of_groups_alone(store: Path) -> None:
    run("read orders --group live --max 7", store=store)
    before = json_lines(run("group describe live --json", store=store))
    run("replay orders", store=store)
    run("replay orders --to topic:copy", store=store)
    run("replay orders --to topic:orders", store=store)
    after = json_lines(run("group describe live --json", store=store))
    committed = [[one["offset"] for one in group["offsets"]] for (group,) in (before, after)]
    assert committed[0] == committed[1]
    assert [group["group"] for group in json_lines(run("group list --json", store=store))] == [
        "live"
    ]


# --- files, functions, commands -----------------------------------------------------------------


def test_a_file_gets_json_lines_that_are_a_source_again(store: Path, tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    run("replay orders --to", f"file:{path}", store=store)
    assert path.read_bytes() == run("read orders --json", store=store).stdout_bytes
    assert run("replay --diff orders", path, store=store).exit_code == 0
    line = only_line(run("replay orders --to", f"file:{path}", store=store, code=2).stderr)
    assert "there already" in line


def test_a_function_is_called_and_its_error_is_one_line(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "replaymod1.py").write_text(
        "seen = []\n"
        "def take(record):\n"
        "    if record.offset == 3 and record.partition == 1:\n"
        "        raise KeyError('amount')\n"
        "    with open('seen', 'a') as file:\n"
        "        file.write(f'{record.partition} {record.offset}\\n')\n"
    )
    result = run("replay orders --to call:replaymod1:take --resume r", store=store, code=1)
    line = only_line(result.stderr)
    assert "replaymod1:take raised KeyError: 'amount' at orders-1, offset 3" in line
    assert "(replaymod1.py, line 4)" in line
    assert "7 records delivered before that; orders-0 at 4, orders-1 at 3" in line
    assert len((tmp_path / "seen").read_text().splitlines()) == 7
    saved = json.loads((tmp_path / "r").read_text())
    assert saved["position"] == {"orders-0": 4, "orders-1": 3}
    # With the fault mended it goes on with the record that it stopped at.
    (tmp_path / "replaymod1.py").write_text(
        "def take(record):\n"
        "    with open('seen', 'a') as file:\n"
        "        file.write(f'{record.partition} {record.offset}\\n')\n"
    )
    del sys.modules["replaymod1"]
    result = run("replay orders --to call:replaymod1:take --resume r", store=store)
    assert "33 records replayed" in result.stderr
    assert "7 records by earlier runs" in result.stderr
    seen = (tmp_path / "seen").read_text().splitlines()
    assert seen == [f"{p} {n}" for n in range(20) for p in (0, 1)]


def test_a_command_gets_json_lines_or_a_format(store: Path, tmp_path: Path) -> None:
    target = tmp_path / "got"
    run("replay orders --to", f"command:cat > {target}", store=store)
    assert target.read_bytes() == run("read orders --json", store=store).stdout_bytes
    run(
        "replay orders --last 1 --format", "%p:%o\n", "--to", f"command:cat > {target}", store=store
    )
    assert target.read_text() == "0:19\n1:19\n"
    line = only_line(
        run("replay orders --to", "command:cat >/dev/null; exit 7", store=store, code=1).stderr
    )
    assert "ended with status 7 (40 records delivered before that" in line
    assert run("replay orders --to", "command:head -n 1 > /dev/null", store=store).exit_code == 0


# --- how it ends, and goes on -------------------------------------------------------------------


def test_nobody_who_reads_is_no_error(store: Path) -> None:
    with logstore.open(store) as opened:
        log = opened.create_topic("large").partition(0)
        for _ in range(20):
            log.append([Record(value=b"x" * 1000) for _ in range(500)], acks=1)
    with running("replay large", store=store) as process:
        assert process.stdout is not None
        process.stdout.read(100)
        process.stdout.close()
        assert end_of(process) == (0, b"")


def test_ctrl_c_says_how_far_it_came_and_the_next_run_goes_on(store: Path, tmp_path: Path) -> None:
    resume = tmp_path / "resume"
    words: list[str | Path] = [
        "replay",
        "orders",
        "--rate",
        "50/s",
        "--format",
        "%p:%o\n",
        "--resume",
        resume,
    ]
    with running(*words, store=store) as process:
        assert process.stdout is not None
        first = [process.stdout.readline() for _ in range(3)]
        process.send_signal(signal.SIGINT)
        first += process.stdout.readlines()
        code, complaint = end_of(process)
    assert code == 130
    assert f"interrupted: {len(first)} records delivered before that".encode() in complaint
    assert f"go on with --resume {resume}".encode() in complaint
    result = run("replay orders --format", "%p:%o\n", "--resume", resume, store=store)
    whole = run("read orders --format", "%p:%o\n", store=store).stdout_bytes
    assert b"".join(first) + result.stdout_bytes == whole
    assert result.stdout_bytes


def test_a_request_to_terminate_is_taken_as_ctrl_c(store: Path, tmp_path: Path) -> None:
    words: list[str | Path] = ["replay", "orders", "--speed", "1x", "--resume", tmp_path / "resume"]
    with running(*words, store=store) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.terminate()
        code, complaint = end_of(process)
    assert code == 130
    assert b"interrupted" in complaint


@pytest.mark.parametrize("sink", ["topic", "file"])
def test_killed_again_and_again_nothing_is_repeated_or_lost(
    sink: str, store: Path, tmp_path: Path
) -> None:
    """SIGKILL, wherever it comes: the second run finds out what the first one has written."""
    with logstore.open(store) as opened:
        log = opened.create_topic("large").partition(0)
        for start in range(0, 3000, 50):
            log.append(
                [Record(timestamp=NOW, value=b"%d" % n) for n in range(start, start + 50)], acks=1
            )
    target = f"file:{tmp_path / 'out'}" if sink == "file" else "topic:copy"
    written = tmp_path / "out" if sink == "file" else store / "topics" / "copy-0"
    words: list[str | Path] = [
        "replay",
        "large",
        "--rate",
        "20000/s",
        "--resume",
        tmp_path / "resume",
        "--to",
        target,
    ]

    def size() -> int:
        files = written.glob("*.log") if sink == "topic" else [written]
        return sum(path.stat().st_size for path in files if path.exists())

    kills = 0
    for _ in range(4):
        with running(*words, store=store) as process:
            before = size() if written.exists() else 0
            deadline = time.monotonic() + 60
            while process.poll() is None and (not written.exists() or size() <= before):
                assert time.monotonic() < deadline
                time.sleep(0.001)
            kills += process.poll() is None
            process.kill()
            process.wait(30)
    assert kills
    run(*words[:2], *words[4:], store=store)
    if sink == "topic":
        found = [line["value"] for line in topic_lines(store, "copy")]
    else:
        found = [json.loads(line)["value"] for line in written.read_bytes().splitlines()]
    assert found == [str(n) for n in range(3000)]


def test_a_command_gets_all_that_was_handed_to_it_before_ctrl_c(
    store: Path, tmp_path: Path
) -> None:
    got = tmp_path / "got"
    resume = tmp_path / "resume"
    words = ["replay", "orders", "--rate", "100/s", "--to", f"command:cat > {got}"]
    with running(*words, "--resume", resume, store=store, start_new_session=True) as process:
        deadline = time.monotonic() + 60
        while not got.exists() or not got.stat().st_size:
            assert time.monotonic() < deadline
            time.sleep(0.001)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does it
        code, complaint = end_of(process)
    assert code == 130
    told = re.search(rb"interrupted: (\d+) records? delivered", complaint)
    assert told is not None
    delivered = got.read_bytes()
    assert delivered.count(b"\n") == int(told[1]) == json.loads(resume.read_text())["delivered"]
    assert run("read orders --json", store=store).stdout_bytes.startswith(delivered)


def test_a_replay_that_is_done_goes_on_with_what_comes_later(store: Path, tmp_path: Path) -> None:
    words: list[str | Path] = [
        "replay",
        "orders",
        "--to",
        "topic:copy",
        "--resume",
        tmp_path / "resume",
    ]
    run(*words, store=store)
    assert "0 records replayed" in run(*words, store=store).stderr
    run("append orders --partition 1", stdin="late\n", store=store)
    result = run(*words, store=store)
    assert "1 record replayed" in result.stderr
    assert "40 records by earlier runs" in result.stderr
    assert len(topic_lines(store, "copy")) == 41


def test_a_resume_file_belongs_to_one_replay(store: Path, tmp_path: Path) -> None:
    resume = tmp_path / "resume"
    run("replay orders --resume", resume, store=store)
    for words, reason in (
        (["odd"], " of the source, and here it is"),
        (["orders", "--key", "a"], " of the filters, and here it is"),
        (["orders", "--add-header", "a=b"], " of the headers, and here it is"),
        (["orders", "--to", "topic:copy"], " of the sink, and here it is"),
    ):
        line = only_line(run("replay", *words, "--resume", resume, store=store, code=2).stderr)
        assert "belongs to another replay" in line
        assert reason in line
    held = ResumeFile(str(tmp_path / "held"), {}, files=DiskFiles())
    try:
        result = run("replay orders --resume", tmp_path / "held", store=store, code=1)
        assert "another replay is at it" in only_line(result.stderr)
    finally:
        held.close()


def test_the_pace_is_kept(store: Path) -> None:
    """40 records at 200 a second take a fifth of a second, however quick the machine is."""
    started = time.monotonic()
    run("replay orders --rate 200/s", store=store)
    assert time.monotonic() - started >= 39 / 200
    started = time.monotonic()
    run("replay orders --speed 10x", store=store)
    assert time.monotonic() - started >= 3.9 / 10
    started = time.monotonic()
    run("replay orders --speed 1x --max-pause 1ms", store=store)
    assert time.monotonic() - started >= 39 / 1000


def test_a_bar_with_the_time_that_is_left_is_shown_on_a_terminal(
    store: Path, tmp_path: Path
) -> None:
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    try:
        environment = {**os.environ, "LOGSTORE_DIR": str(store), "TERM": "xterm", "COLUMNS": "100"}
        process = subprocess.Popen(
            [*COMMAND, "replay", "orders", "--speed", "4x"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=theirs,
            env=environment,
        )
        try:
            os.close(theirs)
            theirs = -1
            shown = read_to_end(ours)
        finally:
            process.kill()
            process.wait(30)
    finally:
        for descriptor in (ours, theirs):
            if descriptor >= 0:
                os.close(descriptor)
    assert b"replaying" in shown
    assert b"records" in shown
    assert b"0:00:01" in shown  # of 3.9 seconds at four times the speed one is left at first
    assert b"40 records replayed" in shown


def read_to_end(descriptor: int) -> bytes:
    """What comes out of a terminal until nobody has it open any more."""
    parts: list[bytes] = []
    while True:
        try:
            part = os.read(descriptor, 1 << 16)
        except OSError:
            return b"".join(parts)
        if not part:
            return b"".join(parts)
        parts.append(part)


# --- wrong use ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "code", "reason"),
    [
        ("replay", 2, "Missing argument"),
        ("replay orders odd", 2, "1 source expected, not 2"),
        ("replay nope", 1, "no topic called 'nope'"),
        ("replay orders:7", 1, "no partition 7"),
        ("replay orders:x", 2, "names no partitions"),
        ("replay ./nope", 2, "no such file or directory"),
        ("replay file:nope", 2, "nope: there is no such file"),
        ("replay directory:nope", 2, "nope: there is no such directory"),
        ("replay orders --offset 21", 1, "out of range"),
        ("replay orders --offset x", 2, "'x' is no offset"),
        ("replay orders --offset latest", 2, "nothing to replay"),
        ("replay orders --offset 5 --last 3", 2, "offset and last exclude each other"),
        ("replay orders --offset -5 --last 3", 2, "offset and last exclude each other"),
        ("replay orders --offset 5 --since 1h", 2, "exclude each other"),
        ("replay orders --until yesterday", 2, "'yesterday' is no time"),
        ("replay orders --offset 9 --end-offset 3", 2, "before it begins"),
        ("replay orders --where kye", 2, "column 1: there is no 'kye'"),
        ("replay orders --where state.x", 2, "there is no state without a fold"),
        ("replay orders --where 1/0", 2, "division by zero, at orders-0, offset 0"),
        ("replay orders --grep (", 2, "is no regular expression"),
        ("replay orders --with-header =x", 2, "is not of the form name=value"),
        ("replay orders --speed 0x", 2, "is no speed"),
        ("replay orders --rate fast", 2, "is no rate"),
        ("replay orders --rate 5/s --speed 2x", 2, "--rate excludes"),
        ("replay orders --max-pause 5s", 2, "--max-pause makes sense with --speed only"),
        ("replay orders --speed 1x --max-pause 5", 2, "'5' is no duration"),
        (
            "replay orders --to nowhere",
            2,
            "names no kind of sink; there are topic:..., queue:..., exchange:..., file:...",
        ),
        ("replay orders --to topic:", 2, "names no kind of sink"),
        ("replay orders --to topic:a/b", 2, "is no name for a topic"),
        ("replay orders --to call:nope", 2, "names no function"),
        ("replay orders --to call:nope_nope:f", 2, "there is no module 'nope_nope'"),
        ("replay orders --to topic:c --partitions 1,2", 2, "is no map of partitions"),
        ("replay orders --to topic:c --partitions 0:1", 2, "says nothing of partition 1"),
        ("replay orders --to topic:odd", 1, "no partition 1"),
        ("replay orders --to topic:c --json", 2, "--json makes no sense with --to topic:..."),
        (
            "replay orders --to-store x",
            2,
            "--to-store makes sense with --to topic:, queue: and exchange: only",
        ),
        ("replay orders --partitions 3", 2, "--partitions makes sense with --to topic:NAME only"),
        ("replay orders --timestamps now", 2, "--timestamps makes sense with"),
        ("replay orders --compression zstd --to file:x", 2, "--compression makes sense with"),
        ("replay orders --json --format %s", 2, "exclude each other"),
        ("replay orders --format %q", 2, "the format has no letter %q"),
        ("replay orders --add-header =v", 2, "is not of the form name=value"),
        ("replay orders --save-every 5", 2, "--save-every makes sense with --resume only"),
        ("replay orders --fold a:b --to file:x", 2, "--to makes no sense with --fold"),
        ("replay orders --fold a:b --fold c:d", 2, "several folds make sense with --diff only"),
        ("replay orders --debug --rate 5/s", 2, "--rate makes no sense with --debug"),
        ("replay orders --debug --json", 2, "--debug and --json exclude each other"),
        ("replay orders --debug --diff", 2, "--debug and --diff exclude each other"),
        ("replay orders --by key", 2, "--by and --compare make sense with --diff only"),
    ],
)
def test_what_makes_no_sense_is_one_line(words: str, code: int, reason: str, store: Path) -> None:
    result = run(words, store=store, code=code)
    assert reason in only_line(result.stderr)
    assert result.stdout == ""


def test_the_examples_of_the_help_run(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shop.py").write_text(
        "import json\n"
        "def ledger(state, record):\n"
        "    state = state or {'balance': 100}\n"
        "    state['balance'] -= json.loads(record.value)['total']\n"
        "    return state\n"
    )
    run("replay orders --to topic:orders-copy", store=store)
    run("queue declare payments", store=store)
    run("exchange declare shop --type topic", store=tmp_path / "copy")
    text = run("replay --help").stdout
    examples = re.findall(r"^ +logstore (replay .*)$", text, re.MULTILINE)
    assert len(examples) == 6
    try:
        for example in examples:
            run(*shlex.split(example), store=store, stdin="next\n")
    finally:
        sys.modules.pop("shop", None)
    assert len(topic_lines(store, "orders-test")) == 40


def test_a_topic_without_a_store_is_told(tmp_path: Path) -> None:
    line = only_line(run("replay orders", code=2).stderr)
    assert "no store was named" in line
    assert "of which store" in only_line(run("replay topic:orders", code=2).stderr)
    lines = tmp_path / "lines"
    lines.write_bytes(b'{"value": "a"}\n')
    result = run("replay", lines, "--to", "topic:copy", code=2)
    assert "--to-store" in only_line(result.stderr)


def test_a_line_that_is_no_record_is_told_behind_those_in_front() -> None:
    lines = b'{"value": "a"}\n{"value": "b"}\nplain\n'
    result = run("replay -", stdin=lines, code=1)
    assert result.stdout == "a\nb\n"
    assert "standard input: line 3: this is no JSON" in only_line(result.stderr)
    assert "2 records delivered before that" in result.stderr
