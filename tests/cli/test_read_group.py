"""``logstore read --group``: where it goes on, and when it commits."""

from __future__ import annotations

import select
import signal
import subprocess
import time
from pathlib import Path

import pytest

import logstore
from logstore import OffsetAndMetadata, Record, TopicPartition

from .program import COMMAND, end_of, json_lines, only_line, run, running

A0 = TopicPartition("a", 0)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Topic ``a``: six records in one partition."""
    with logstore.open(tmp_path, maintenance_interval=None) as opened:
        log = opened.create_topic("a").partition(0)
        log.append([Record(value=b"%d" % number) for number in range(6)])
    return tmp_path


def committed(store: Path) -> int | None:
    with logstore.open(store, maintenance_interval=None) as opened:
        found: OffsetAndMetadata | None = opened.groups.committed("g", [A0])[A0]
        return None if found is None else found.offset


def test_each_call_goes_on_where_the_last_one_ended(store: Path) -> None:
    assert run("read a --group g --max 2", store=store).stdout == "0\n1\n"
    assert committed(store) == 2
    assert run("read a --group g", store=store).stdout == "2\n3\n4\n5\n"
    assert run("read a --group g", store=store).stdout == ""
    assert run("read a --group other --max 1", store=store).stdout == "0\n"


def test_records_are_printed_as_without_a_group(store: Path) -> None:
    plain = json_lines(run("read a --json", store=store))
    assert json_lines(run("read a --json --group g", store=store)) == plain
    pattern = "%t %p %o %s\\n"
    result = run("read a --group h --max 1 --format", pattern, store=store)
    assert result.stdout == "a 0 0 0\n"


def test_a_new_group_may_begin_at_the_end(store: Path) -> None:
    assert run("read a --group g --offset latest", store=store).stdout == ""
    with logstore.open(store, maintenance_interval=None) as opened:
        opened.topic("a").partition(0).append([Record(value=b"new")])
    assert run("read a --group g --offset earliest", store=store).stdout == "new\n"


def test_two_that_follow_share_the_partitions(store: Path) -> None:
    with logstore.open(store, maintenance_interval=None) as opened:
        topic = opened.create_topic("b", partitions=2)
        words = ("read b --group g --follow --max 5 --format", "%p %s\\n")
        with running(*words, store=store) as one, running(*words, store=store) as two:
            assert one.stdout is not None
            assert two.stdout is not None
            while len(opened.groups.describe("g").members) < 2 if _exists(opened) else True:
                pass
            while any(len(m.assignment) != 1 for m in opened.groups.describe("g").members):
                pass
            for partition in range(2):
                log = topic.partition(partition)
                log.append([Record(value=b"%d" % number) for number in range(5)])
            outputs = sorted(process.communicate(timeout=60)[0] for process in (one, two))
    assert outputs == [b"".join(b"%d %d\n" % (p, n) for n in range(5)) for p in range(2)]


def _exists(opened: logstore.Store) -> bool:
    return any(group.name == "g" for group in opened.groups.list())


def test_what_nobody_took_from_a_pipe_is_not_committed(store: Path) -> None:
    with logstore.open(store, maintenance_interval=None) as opened:
        log = opened.topic("a").partition(0)
        for _ in range(100):
            log.append([Record(value=b"x" * 1000) for _ in range(100)], acks=1)
    command = [*COMMAND, "read", "a", "--group", "g", "--store", str(store)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"0\n"
        process.stdout.close()
        assert process.stderr.read() == b""
    offset = committed(store)
    assert offset is None or offset < 10_006


def test_what_still_lies_in_a_pipe_is_not_committed(store: Path) -> None:
    with running("read a --group g", store=store) as process:
        assert process.stdout is not None
        while not select.select([process.stdout], [], [], 60)[0]:
            pass
        time.sleep(0.5)  # what commits too early does so now
        process.send_signal(signal.SIGINT)
        assert end_of(process) == (130, b"logstore: interrupted\n")
    assert committed(store) is None
    assert run("read a --group g", store=store).stdout == "0\n1\n2\n3\n4\n5\n"


def test_following_ends_when_nobody_reads_any_more(store: Path) -> None:
    with running("read a --group g --follow", store=store) as process:
        assert process.stdout is not None
        assert [process.stdout.readline() for _ in range(6)][-1] == b"5\n"
        process.stdout.close()
        assert end_of(process) == (0, b"")
    assert committed(store) == 6


def test_an_interrupt_ends_following_though_the_pipe_is_full(store: Path) -> None:
    with logstore.open(store, maintenance_interval=None) as opened:
        log = opened.topic("a").partition(0)
        log.append([Record(value=b"x" * 4000) for _ in range(100)])
    with running("read a --group g --follow", store=store) as process:
        assert process.stdout is not None
        while not select.select([process.stdout], [], [], 60)[0]:
            pass
        time.sleep(0.3)  # until the pipe is full
        process.send_signal(signal.SIGINT)
        assert end_of(process) == (0, b"")
    assert committed(store) is None


@pytest.mark.parametrize("words", ["--partition 0", "--since 1h", "--offset 3", "--offset -2"])
def test_positions_of_ones_own_do_not_go_with_a_group(store: Path, words: str) -> None:
    result = run(f"read a --group g {words}", store=store, code=2)
    assert "with --group, positions are the group's" in result.stderr


def test_a_topic_that_is_not_there_is_one_line(store: Path) -> None:
    result = run("read nothing --group g", store=store, code=1)
    assert "no topic called 'nothing'" in only_line(result.stderr)
