"""The program as a whole: help, version, stores, wrong use, and the three streams."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

import logstore

from .program import COMMAND, GOLDEN, end_of, only_line, run, running


def test_help_and_version() -> None:
    assert logstore.__version__ in run("--version").stdout
    text = run("--help").stdout
    for command in ("append", "read", "dump", "check", "topic"):
        assert command in text
        assert "Usage:" in run(f"{command} --help").stdout


@pytest.mark.parametrize("words", ["", "topic"])
def test_no_command_shows_the_help_and_is_wrong_use(words: str) -> None:
    result = run(words, code=2)
    assert "Commands:" in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("--nonsense", "--nonsense"),
        ("nonsense", "nonsense"),
        ("topic nonsense", "nonsense"),
        ("dump", "PATH"),
        ("check no/such/path", "no/such/path"),
        ("read", "TOPIC"),
        ("read t", "--store"),
        ("topic list", "LOGSTORE_DIR"),
        ("read t --store no/such/store", "no/such/store"),
        ("--store no/such/store topic list", "no/such/store"),
        ("append t no/such/file --store s", "no/such/file"),
        ("append t . --store s", "directory"),
        ("append t --store s --compression bzip2", "bzip2"),
        ("append t --store s --acks 2", "2"),
        ("append t --store s --key-separator=", "separator"),
        ("topic create a/b --store s", "a/b"),
        ("topic create t --store s --partitions 0", "0"),
        ("topic create t --store s --config nonsense=1", "nonsense"),
        ("topic create t --store s --config segment_bytes", "key=value"),
        ("topic create t --store s --config segment_bytes=many", "many"),
        ("read t --store s --offset soon", "soon"),
        ("read t --store s --since soon", "soon"),
        ("read t --store s --offset 1 --since 1", "exclude"),
        ("read t --store s --json --format %s", "exclude"),
        ("read t --store s --format %z", "%z"),
        ("read t --store s --format \\q", "\\q"),
        ("read t --store s --format \\x", "\\x"),
        ("read t --store s --format %", "%"),
        ("read t --store s --max -1", "-1"),
    ],
)
def test_wrong_use_is_told_in_one_line(
    words: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(words, code=2)
    line = only_line(result.stderr)
    assert line.startswith("logstore: ")
    assert told in line
    assert result.stdout == ""


def test_the_store_may_be_named_in_three_ways(tmp_path: Path) -> None:
    first, second, third = (tmp_path / name for name in "abc")
    run(f"--store {first} topic create one")
    run(f"topic create two --store {second}")
    run("topic create three", store=third)
    assert "one" in run(f"topic list --store {first}", store=third).stdout
    assert "two" in run(f"--store {first} topic list --store {second}", store=third).stdout
    assert "one" in run(f"--store {first} topic list", store=third).stdout
    assert "three" in run("topic list", store=third).stdout


def test_a_failed_operation_is_told_in_one_line(tmp_path: Path) -> None:
    run("topic create orders", store=tmp_path)
    for words, told in [
        ("read nothing", "nothing"),
        ("read orders --partition 1", "partition 1"),
        ("read orders --offset 1", "out of range"),
        ("topic create orders", "orders"),
    ]:
        result = run(words, store=tmp_path, code=1)
        assert told in only_line(result.stderr)


def test_a_store_whose_files_are_broken_is_told_in_one_line(tmp_path: Path) -> None:
    run("topic create orders", store=tmp_path)
    (tmp_path / "meta" / "data.mdb").write_bytes(b"nonsense")
    only_line(run("topic list", store=tmp_path, code=1).stderr)
    (tmp_path / "store.json").write_bytes(b"nonsense")
    assert "store.json" in only_line(run("topic list", store=tmp_path, code=1).stderr)


def test_a_directory_with_other_things_is_not_made_a_store(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    assert "letter.txt" in only_line(run("topic create t", store=tmp_path, code=2).stderr)
    assert sorted(os.listdir(tmp_path)) == ["letter.txt"]


def test_damage_is_told_and_what_stands_before_it_is_printed(tmp_path: Path) -> None:
    run("append lines", store=tmp_path, stdin="one\n")
    run("append lines", store=tmp_path, stdin="two\n")
    path = tmp_path / "topics" / "lines-0" / "00000000000000000000.log"
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(bytes(data))
    result = run("read lines", store=tmp_path, code=1)
    assert result.stdout == "one\n"
    assert f"{path} at byte {len(data) // 2}" in only_line(result.stderr)


# --- pipes and signals ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with more lines than a pipe holds."""
    store = tmp_path_factory.mktemp("full")
    run("append lines", store=store, stdin=b"a line of some length\n" * 20_000)
    return store


@pytest.mark.parametrize("words", ["read lines", "dump {} --records --json", "dump {} --records"])
def test_a_closed_pipe_is_silent(words: str, full: Path) -> None:
    with running(words.format(full), store=full) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        process.stdout.close()
        assert end_of(process) == (0, b"")


def test_check_keeps_its_exit_code_when_nobody_reads(tmp_path: Path) -> None:
    for number in range(1000):
        (tmp_path / f"{number:020d}.log").write_bytes(b"torn")
    with running("check", tmp_path) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        process.stdout.close()
        assert end_of(process) == (1, b"")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full here")
@pytest.mark.parametrize("words", ["read lines", "dump {}", "check {}", "--help", "topic list"])
def test_a_full_disk_is_told_in_one_line(words: str, full: Path) -> None:
    with (
        open("/dev/full", "wb") as nowhere,
        running(words.format(full), store=full, stdout=nowhere) as process,
    ):
        code, complaint = end_of(process)
    assert code == 1
    assert "No space left" in only_line(complaint.decode())


@pytest.mark.skipif(shutil.which("sh") is None, reason="there is no shell here")
@pytest.mark.parametrize(("closing", "stream"), [(">&-", "output"), ("<&-", "input")])
def test_a_closed_stream_is_told_in_one_line(closing: str, stream: str, full: Path) -> None:
    words = ["read", "lines"] if stream == "output" else ["append", "more"]
    command = [*COMMAND, *words, "--store", str(full)]
    shell = subprocess.run(
        ["sh", "-c", f'"$@" {closing}', "sh", *command], capture_output=True, timeout=30
    )
    assert shell.returncode == 1
    assert f"standard {stream} is closed" in only_line(shell.stderr.decode())


def test_ctrl_c_ends_an_append_with_one_line_that_counts(tmp_path: Path) -> None:
    with running("append lines --acks 1", store=tmp_path, stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        process.stdin.write(b"one\ntwo\n")
        process.stdin.flush()
        deadline = time.monotonic() + 20
        while run_quietly(tmp_path) != "one\ntwo\n":
            assert time.monotonic() < deadline, "the lines never came"
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        code, complaint = end_of(process)
    assert code == 130
    assert "2 records appended" in only_line(complaint.decode())


def run_quietly(store: Path) -> str:
    """The lines of the topic, if it is there already."""
    if not (store / "topics" / "lines-0" / "00000000000000000000.log").exists():
        return ""
    return run("read lines", store=store).stdout


def test_ctrl_c_ends_a_check_with_one_line(tmp_path: Path) -> None:
    for number in range(2000):
        (tmp_path / f"{number:020d}.log").write_bytes(b"torn")
    with running("check", tmp_path) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        process.send_signal(signal.SIGINT)  # while it waits for somebody to read on
        assert end_of(process) == (130, b"logstore: interrupted\n")


def test_the_golden_folder_is_there() -> None:
    assert len(list(GOLDEN.glob("*/*.log"))) > 20
