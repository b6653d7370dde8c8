"""Opening, making and refusing stores; topics across handles, threads and processes."""

from __future__ import annotations

import contextlib
import json
import os
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import logstore
from logstore import (
    ClosedError,
    FormatError,
    InvalidInputError,
    LockTimeoutError,
    LogConfig,
    ReadOnlyError,
    StoreNotFoundError,
    TopicExistsError,
    UnknownTopicError,
    UnsupportedFormatError,
)
from logstore.segments.checkpoint import parse_partition_metadata
from logstore.segments.files import DiskFiles

from .support import (
    SpyFiles,
    StillClock,
    content,
    damage,
    fail,
    finish,
    io_error,
    records,
    run_script,
    snapshot,
    start,
    values,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data"


# opening ------------------------------------------------------------------------------------


def test_a_store_is_made_where_there_is_none_and_found_again(path: Path) -> None:
    with logstore.open(path) as store:
        store_id = store.id
        assert store.path == str(path)
        assert store.topics() == []
    assert sorted(entry.name for entry in path.iterdir()) == ["meta", "store.json", "topics"]
    fields = json.loads((path / "store.json").read_bytes())
    assert fields == {"format_version": 1, "store_id": str(store_id)}
    with logstore.open(str(path)) as store:
        assert store.id == store_id
        assert repr(store) == f"Store({str(path)!r})"


def test_a_store_is_made_in_an_empty_directory_and_below_missing_ones(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    logstore.open(tmp_path / "empty").close()
    logstore.open(tmp_path / "a" / "b" / "c").close()
    assert (tmp_path / "a" / "b" / "c" / "store.json").exists()


@pytest.mark.parametrize("options", [{"create": False}, {"read_only": True}])
def test_a_store_that_is_not_there_is_not_made_unless_it_may_be(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    for name in ("absent", "."):
        with pytest.raises(StoreNotFoundError, match="there is no store here"):
            logstore.open(tmp_path / name, **options)
    assert list(tmp_path.iterdir()) == []


def test_a_directory_with_other_things_in_it_is_not_made_a_store(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(InvalidInputError, match=r"holds other things \('thesis.txt', for one\)"):
        logstore.open(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_file_is_not_made_a_store(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("text")
    with pytest.raises(InvalidInputError, match="this is no directory"):
        logstore.open(file)
    with pytest.raises(OSError, match="file"):
        logstore.open(file / "below")
    assert file.read_text() == "text"


@pytest.mark.parametrize("version", [2, 0, "1", 1.5, None])
def test_a_store_of_another_format_version_is_refused(path: Path, version: Any) -> None:
    logstore.open(path).close()
    description = path / "store.json"
    fields = json.loads(description.read_bytes())
    description.write_text(json.dumps({**fields, "format_version": version}))
    before = snapshot(path)
    with pytest.raises(UnsupportedFormatError, match="expected format version 1, found") as caught:
        logstore.open(path)
    assert caught.value.path == str(description)
    assert snapshot(path) == before


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "5",
        "null",
        '{"format_version": 1}',
        '{"store_id": "6a50e9b4-5f3d-4a3c-8a6a-5d1f0f1e8f5d"}',
        '{"format_version": 1, "store_id": "no id"}',
        '{"format_version": 1, "store_id": 5}',
        '{"format_version": 1, "store_id": null}',
        "[" * 2000,
        b"\xff\xfe\0",
    ],
)
def test_a_broken_description_of_a_store_is_named(path: Path, text: str | bytes) -> None:
    logstore.open(path).close()
    (path / "store.json").write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(FormatError, match="this is no store's description") as caught:
        logstore.open(path)
    assert caught.value.path == str(path / "store.json")


def test_a_description_that_is_far_too_large_is_not_read(path: Path) -> None:
    logstore.open(path).close()
    os.truncate(path / "store.json", 1 << 30)
    with pytest.raises(OSError, match="at most 65536 make sense"):
        logstore.open(path)


@pytest.mark.parametrize("operation", ["write", "sync", "rename", "sync_directory", "lock"])
def test_a_store_whose_making_failed_is_made_by_the_next_attempt(
    path: Path, operation: str
) -> None:
    files = SpyFiles()
    files.before = fail(operation, io_error())
    with pytest.raises(OSError, match="Input/output error"):
        logstore.open(path, files=files)
    with logstore.open(path) as store:
        store.create_topic("orders").partition(0).append(records("a"))
    with logstore.open(path) as store:
        assert values(store.topic("orders").partition(0)) == [b"a"]


def test_a_store_that_a_stopped_process_is_making_is_waited_for_and_told_of(path: Path) -> None:
    (path / "topics").mkdir(parents=True)
    lock = DiskFiles().lock(str(path / "topics" / "lock"))
    lock.acquire()
    with pytest.raises(LockTimeoutError, match=r"has been making the store .* is it stopped\?"):
        logstore.open(path, clock=StillClock())
    lock.close()
    logstore.open(path).close()


def test_threads_that_open_a_store_at_once_make_one(path: Path) -> None:
    def identify(_: int) -> uuid.UUID:
        with logstore.open(path) as store:
            return store.id

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(identify, range(16)))) == 1


def test_a_read_only_store_changes_nothing(path: Path) -> None:
    with logstore.open(path) as store:
        store.create_topic("orders", partitions=2).partition(0).append(records("a"))
        store.create_topic("empty")
    before = snapshot(path)
    with logstore.open(path, read_only=True) as store:
        assert [topic.name for topic in store.topics()] == ["empty", "orders"]
        log = store.topic("orders").partition(0)
        assert values(log) == [b"a"]
        with pytest.raises(ReadOnlyError):
            log.append(records("b"))
        assert values(store.topic("orders").partition(1)) == []
        with pytest.raises(ReadOnlyError, match="for reading only"):
            store.create_topic("more")
    after = snapshot(path)
    # LMDB notes its readers in its lock file.
    before.pop("meta/lock.mdb", None)
    after.pop("meta/lock.mdb", None)
    assert after == before


def test_a_store_that_has_no_definitions_yet_has_no_topics(path: Path) -> None:
    logstore.open(path).close()
    for entry in (path / "meta").iterdir():
        entry.unlink()
    (path / "meta").rmdir()
    with logstore.open(path, read_only=True) as store:
        assert store.topics() == []
    assert not (path / "meta").exists()


def test_one_process_may_have_a_store_open_in_both_ways(path: Path) -> None:
    with logstore.open(path) as writer, logstore.open(path, read_only=True) as reader:
        writer.create_topic("orders")
        assert [topic.name for topic in reader.topics()] == ["orders"]
        with logstore.open(path, read_only=True) as again:
            assert again.topic("orders").id == writer.topic("orders").id
        writer.create_topic("more")
        assert [topic.name for topic in reader.topics()] == ["more", "orders"]
    with logstore.open(path, read_only=True) as reader, logstore.open(path) as writer:
        writer.create_topic("even-more")
        assert len(reader.topics()) == 3


def test_a_store_that_nobody_may_write_to_is_read(path: Path) -> None:
    with logstore.open(path) as store:
        store.create_topic("orders").partition(0).append(records("a", "b"))
    script = """
import encodings.ascii, os, sys, logstore
os.chdir(sys.argv[1])
# Opening once loads what is imported late: the packages may lie where only root may read.
logstore.open(".", read_only=True).close()
if os.getuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
with logstore.open(".", read_only=True) as store:
    for topic in store.topics():
        log = topic.partition(0)
        print(topic.name, [record.value.decode() for record in log.read(0).records()])
try:
    logstore.open(".").create_topic("more")
except OSError as error:
    print("refused")
"""
    entries = [path, *path.rglob("*")]
    for entry in entries:
        entry.chmod(0o555 if entry.is_dir() else 0o444)
    try:
        answer = run_script(script, path)
    finally:
        for entry in entries:
            entry.chmod(0o755 if entry.is_dir() else 0o644)
    assert answer == "orders ['a', 'b']\nrefused\n"


# topics -------------------------------------------------------------------------------------


def test_a_topic_has_a_name_an_id_partitions_and_a_configuration(path: Path) -> None:
    with logstore.open(path) as store:
        topic = store.create_topic("orders", partitions=3, config={"segment.bytes": "1000"})
        assert (topic.name, topic.partition_count) == ("orders", 3)
        assert topic.config == LogConfig(segment_bytes=1000)
        for number in range(3):
            topic.partition(number).append(records(f"{number}"))
        assert store.topic("orders") is topic
    with logstore.open(path) as store:
        (found,) = store.topics()
        assert (found.name, found.partition_count, found.id) == ("orders", 3, topic.id)
        assert found.config == topic.config
        assert [values(found.partition(number)) for number in range(3)] == [[b"0"], [b"1"], [b"2"]]
        for number in range(3):
            directory = path / "topics" / f"orders-{number}"
            metadata = parse_partition_metadata((directory / "partition.metadata").read_bytes())
            assert metadata.topic_id == topic.id
            assert damage(directory) == []


def test_topics_are_listed_by_name(path: Path) -> None:
    with logstore.open(path) as store:
        for name in ("b", "a", "C", "a-1", "a.1"):
            store.create_topic(name)
        assert [topic.name for topic in store.topics()] == ["C", "a", "a-1", "a.1", "b"]


def test_a_topic_that_is_not_there_is_named(path: Path) -> None:
    with logstore.open(path) as store:
        store.create_topic("orders", partitions=2)
        with pytest.raises(UnknownTopicError, match="there is no topic called 'order'"):
            store.topic("order")
        for number in (-1, 2, 100):
            with pytest.raises(UnknownTopicError, match=f"no partition {number}: there are 0 to 1"):
                store.topic("orders").partition(number)


def test_a_topic_that_is_there_is_not_created_again(path: Path) -> None:
    with logstore.open(path) as store, logstore.open(path) as other:
        topic = store.create_topic("orders")
        for handle in (store, other):
            with pytest.raises(TopicExistsError, match="there is a topic called 'orders' already"):
                handle.create_topic("orders", partitions=5)
        assert other.topic("orders").id == topic.id
        assert other.topic("orders").partition_count == 1


def test_a_topic_that_is_there_is_taken_as_it_is_where_that_is_wanted(path: Path) -> None:
    with logstore.open(path) as store:
        created = store.create_topic("orders", partitions=2, exist_ok=True)
        found = store.create_topic("orders", partitions=3, retention_ms=5, exist_ok=True)
        assert (found.id, found.partition_count, dict(found.overrides)) == (created.id, 2, {})
        with pytest.raises(InvalidInputError):
            store.create_topic("orders", partitions=0, exist_ok=True)


@pytest.mark.parametrize(
    "arguments",
    [
        {"partitions": 0},
        {"partitions": -1},
        {"partitions": 10_001},
        {"partitions": 1.5},
        {"partitions": "3"},
        {"partitions": None},
        {"segment_bytes": 1},
        {"config": {"no.such.key": 1}},
        {"no_such_key": 1},
    ],
    ids=str,
)
def test_a_topic_with_bad_arguments_is_not_created(path: Path, arguments: dict[str, Any]) -> None:
    with logstore.open(path) as store:
        with pytest.raises(InvalidInputError):
            store.create_topic("orders", **arguments)
        assert store.topics() == []
        assert [entry.name for entry in (path / "topics").iterdir()] == ["lock"]


BAD_NAMES: list[Any] = [
    "",
    ".",
    "..",
    "../evil",
    "a/b",
    "/etc/passwd",
    "a\\b",
    "a\0b",
    "a\n",
    "\n",
    "a b",
    " a",
    "~",
    "a:b",
    "ä",
    "\u0663",  # a digit, but no ASCII one
    "a" * 250,
    "$(rm -r .)",
    b"bytes",
    None,
    5,
]


@pytest.mark.parametrize("name", BAD_NAMES, ids=repr)
def test_an_illegal_name_of_a_topic_is_refused_and_nothing_is_made(path: Path, name: Any) -> None:
    with logstore.open(path) as store:
        before = sorted(path.parent.rglob("*"))
        with pytest.raises(InvalidInputError, match="is no name for a topic"):
            store.create_topic(name)
        assert sorted(path.parent.rglob("*")) == before
        assert store.topics() == []


@pytest.mark.parametrize("name", ["a" * 249, "lock", "-", "_", "...", "a.b-c_D9", "-0", "meta"])
def test_an_odd_name_of_a_topic_is_as_good_as_any(path: Path, name: str) -> None:
    with logstore.open(path) as store:
        store.create_topic(name, partitions=2).partition(1).append(records("a"))
    with logstore.open(path) as store:
        assert values(store.topic(name).partition(1)) == [b"a"]


def test_names_that_end_like_partitions_do_not_get_into_each_others_way(path: Path) -> None:
    with logstore.open(path) as store:
        store.create_topic("a", partitions=2)
        store.create_topic("a-1", partitions=2)
        for name in ("a", "a-1"):
            for number in range(2):
                store.topic(name).partition(number).append(records(f"{name} {number}"))
    with logstore.open(path) as store:
        for name in ("a", "a-1"):
            for number in range(2):
                found = values(store.topic(name).partition(number))
                assert found == [f"{name} {number}".encode()]


def test_what_one_handle_creates_the_others_see_at_once(path: Path) -> None:
    with logstore.open(path) as one, logstore.open(path) as two:
        for number in range(5):
            one.create_topic(f"t{number}")
            assert [topic.name for topic in two.topics()] == [f"t{n}" for n in range(number + 1)]
            one.topic(f"t{number}").partition(0).append(records("a"))
            assert values(two.topic(f"t{number}").partition(0)) == [b"a"]


def test_what_another_process_creates_is_seen_at_once(path: Path) -> None:
    with logstore.open(path) as store:
        assert store.topics() == []
        finish([start("create_topic", path, "orders", 2, stdin=-3)])
        assert [(topic.name, topic.partition_count) for topic in store.topics()] == [("orders", 2)]


def test_of_eight_processes_that_create_a_topic_at_once_one_wins(path: Path) -> None:
    children = [start("create_topic", path, "orders", number + 1, stdin=-1) for number in range(8)]
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
    for child in children:
        assert child.stdin is not None
        child.stdin.close()
        child.stdin = None
    answers = [answer.decode().split() for answer in finish(children)]
    assert len({store_id for store_id, _, _ in answers}) == 1
    assert sorted(result for _, result, _ in answers) == ["lost"] * 7 + ["won"]
    assert len({topic_id for _, _, topic_id in answers}) == 1
    winner = [result for _, result, _ in answers].index("won")
    with logstore.open(path) as store:
        (topic,) = store.topics()
        assert topic.partition_count == winner + 1
        assert str(topic.id) == answers[winner][2]


def test_threads_create_and_list_topics_at_once(path: Path) -> None:
    with logstore.open(path) as store:
        barrier = threading.Barrier(8)

        def work(thread: int) -> int:
            barrier.wait()
            wins = 0
            for number in range(8):
                try:
                    store.create_topic(f"t{number}")
                    wins += 1
                except TopicExistsError:
                    pass
                assert f"t{number}" in [topic.name for topic in store.topics()]
                store.topic(f"t{number}").partition(0).append(records(f"{thread}"), acks=1)
            return wins

        with ThreadPoolExecutor(8) as pool:
            assert sum(pool.map(work, range(8))) == 8
        for topic in store.topics():
            assert sorted(values(topic.partition(0))) == [b"%d" % n for n in range(8)]
            assert topic.partition(0) is topic.partition(0)


# the life of a store ------------------------------------------------------------------------


def test_closing_a_store_closes_its_logs_cleanly_and_closing_twice_is_allowed(path: Path) -> None:
    store = logstore.open(path)
    topic = store.create_topic("orders", partitions=2)
    logs = [topic.partition(number) for number in range(2)]
    for log in logs:
        log.append(records("a"), acks=1)
    store.close()
    store.close()
    uses: list[Callable[[], object]] = [
        lambda: store.create_topic("more"),
        lambda: store.topic("orders"),
        store.topics,
        lambda: topic.partition(0),
        lambda: logs[0].append(records("b")),
        lambda: logs[1].read(0),
    ]
    for use in uses:
        with pytest.raises(ClosedError):
            use()
    files = SpyFiles("33333333-3333-3333-3333-333333333333")
    with logstore.open(path, files=files) as store:
        for number in range(2):
            assert store.topic("orders").partition(number).log_end_offset == 1
        assert files.bytes_read[".log"] == 0


def test_all_logs_are_closed_even_if_one_of_them_cannot_be(path: Path) -> None:
    files = SpyFiles()
    store = logstore.open(path, files=files)
    topic = store.create_topic("orders", partitions=3)
    logs = [topic.partition(number) for number in range(3)]
    for log in logs:
        log.append(records("a"), acks=1)
    files.before = fail("sync", io_error(), path="orders-1/00000000000000000000.log")
    with pytest.raises(OSError, match="Input/output error"):
        store.close()
    for log in logs:
        with pytest.raises(ClosedError):
            log.read(0)
    with logstore.open(path) as store:
        for number in range(3):
            assert content(store.topic("orders").partition(number)) == [(0, b"a")]


def test_the_error_that_ends_a_with_block_is_not_replaced_by_that_of_the_close(path: Path) -> None:
    def append() -> None:
        files = SpyFiles()
        with logstore.open(path, files=files) as store:
            log = store.create_topic("orders").partition(0)
            files.before = fail("sync", io_error(), path=".log")
            log.append(records("a"))

    with pytest.raises(OSError, match="Input/output error"):
        append()


FORK = """
import os, sys, logstore
path = sys.argv[1]
store = logstore.open(path)
topic = store.create_topic("orders")
log = topic.partition(0)
log.append([logstore.Record(value=b"parent")])
child = os.fork()
if child == 0:
    code = 1
    try:
        for use in (
            store.topics,
            lambda: store.topic("orders"),
            lambda: store.create_topic("more"),
            lambda: log.append([logstore.Record(value=b"child")]),
        ):
            try:
                use()
            except logstore.ForkedError:
                pass
            else:
                os._exit(2)
        store.close()
        with logstore.open(path) as own:
            own.topic("orders").partition(0).append([logstore.Record(value=b"child")])
            own.create_topic("of-the-child")
        code = 0
    finally:
        os._exit(code)
assert os.waitpid(child, 0)[1] == 0
log.append([logstore.Record(value=b"parent again")])
store.create_topic("of-the-parent")
print([topic.name for topic in store.topics()])
print([record.value.decode() for record in log.read(0).records()])
store.close()
"""


def test_a_child_of_fork_opens_the_store_anew_and_the_parent_goes_on(path: Path) -> None:
    assert run_script(FORK, path).splitlines() == [
        "['of-the-child', 'of-the-parent', 'orders']",
        "['parent', 'child', 'parent again']",
    ]


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="the system does not list them")
def test_no_file_is_held_open_that_is_not_in_use(path: Path) -> None:
    def open_files() -> list[str]:
        held = []
        for name in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):
                target = os.readlink(f"/proc/self/fd/{name}")
                # The store itself uses the log of the definitions.
                if target.startswith(f"{path}/topics") and "/__metadata-0/" not in target:
                    held.append(os.path.basename(target))
        return sorted(held)

    with logstore.open(path, maintenance_interval=None) as store:
        topic = store.create_topic("orders", partitions=3, segment_bytes=100)
        for number in range(3):
            for value in (b"one", b"two"):
                topic.partition(number).append([logstore.Record(value=value * 20)])
    with logstore.open(path, maintenance_interval=None) as store:
        assert open_files() == []
        store.maintain()
        assert open_files() == []
        log = store.topic("orders").partition(0)
        assert set(open_files()) == {"lock", "state"}
        log.append([logstore.Record(value=b"three")], acks=1)
        assert {"lock", "state", f"{2:020d}.log"} <= set(open_files())
    assert open_files() == []


@pytest.mark.parametrize("interval", [0, -1, "x", True, float("nan"), float("inf")])
def test_a_pause_between_rounds_that_is_none_is_refused(tmp_path: Path, interval: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"maintenance_interval=.* is no number of seconds"):
        logstore.open(tmp_path / "s", maintenance_interval=interval)
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("number", [1.0, "0", True, None])
def test_what_is_no_number_of_a_partition_is_refused(tmp_path: Path, number: Any) -> None:
    with logstore.open(tmp_path / "s") as store:
        topic = store.create_topic("a", partitions=2)
        with pytest.raises(InvalidInputError, match="a partition's number is an int, not"):
            topic.partition(number)
        with pytest.raises(InvalidInputError, match=r"partitions=.* is out of bounds"):
            store.create_topic("b", partitions=number)
        assert len(store.topics()) == 1
