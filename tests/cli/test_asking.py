"""What cannot be undone is asked about on a terminal, and nowhere else."""

from __future__ import annotations

import os
import pty
from pathlib import Path

import pytest

import logstore
from logstore import OffsetAndMetadata, Record, TopicPartition

from .program import end_of, run, running

ASKING = {
    "topic delete orders": "topic orders (2 partitions)",
    "group delete billing": "1 group (billing)",
    "delete-records orders --partition 0 --before 2": "offsets 0 to 1 of orders-0",
    "truncate orders --partition 0 --to 2": "offsets 2 to 2 of orders-0",
}
each_command = pytest.mark.parametrize(("words", "what"), ASKING.items(), ids=ASKING)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    path = tmp_path / "store"
    with logstore.open(path) as store:
        log = store.create_topic("orders", partitions=2).partition(0)
        log.append([Record(value=b"%d" % number) for number in range(3)])
        place = TopicPartition("orders", 0)
        store.groups.commit("billing", {place: OffsetAndMetadata(1)}, durable=True)
    return path


def contents(path: Path) -> object:
    with logstore.open(path, read_only=True) as store:
        ends = [
            (log.log_start_offset, log.log_end_offset)
            for log in (topic.partition(0) for topic in store.topics())
        ]
        return ends, store.groups.list()


def answered(words: str, store: Path, answer: bytes) -> tuple[int, str]:
    """The exit code, and what was said on standard error, after an answer at the terminal."""
    master, slave = pty.openpty()
    try:
        with running(words, store=store, stdin=slave) as process:
            os.write(master, answer)
            code, said = end_of(process)
            return code, said.decode()
    finally:
        os.close(slave)
        os.close(master)


@each_command
def test_yes_does_it(words: str, what: str, store: Path) -> None:
    before = contents(store)
    assert answered(words, store, b"y\n") == (0, f"delete {what}? [y/N]: ")
    assert contents(store) != before


@each_command
@pytest.mark.parametrize("answer", [b"n\n", b"\n", b"what?\nn\n"])
def test_no_changes_nothing(words: str, what: str, answer: bytes, store: Path) -> None:
    before = contents(store)
    code, said = answered(words, store, answer)
    assert code == 1
    assert said.startswith(f"delete {what}? [y/N]: ")
    assert said.endswith("logstore: nothing was deleted\n")
    assert contents(store) == before


@each_command
def test_the_end_of_the_input_changes_nothing(words: str, what: str, store: Path) -> None:
    before = contents(store)
    code, said = answered(words, store, b"\x04")
    assert code == 130
    assert said.endswith("logstore: interrupted\n")
    assert contents(store) == before


@each_command
def test_without_a_terminal_nobody_is_asked(words: str, what: str, store: Path) -> None:
    before = contents(store)
    assert "[y/N]" not in run(words, store=store, stdin="n\n").stderr
    assert contents(store) != before
