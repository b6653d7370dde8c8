"""Appending, the life of a handle, threads and forks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from logstore import (
    Batch,
    ChecksumError,
    ClosedError,
    Codec,
    FormatError,
    InvalidInputError,
    LockTimeoutError,
    LogConfig,
    LogView,
    OffsetOutOfRangeError,
    PartitionLog,
    ReadOnlyError,
    Record,
    UnknownTopicError,
)
from logstore.deletion import mark_deleted
from logstore.segments.batch import encode_batch
from logstore.segments.checkpoint import EpochEntry, parse_leader_epochs

from .support import (
    GOLDEN,
    SpyFiles,
    StillClock,
    active_path,
    batches,
    child_environment,
    content,
    damage,
    gapless,
    no_locks_held,
    opened,
    raw_batch,
    record,
    records,
    run_script,
    snapshot,
    values,
)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "orders-0"


@pytest.fixture
def log(directory: Path) -> Iterator[PartitionLog]:
    with opened(directory) as log:
        yield log


# appending records --------------------------------------------------------------------------


def test_records_are_read_as_they_were_appended(log: PartitionLog) -> None:
    appended = [
        Record(timestamp=5, key=b"k", value=b"v", headers=[("h", b"1"), ("h", None), ("", b"")]),
        Record(timestamp=4, key=None, value=None),
        Record(timestamp=6, key=b"", value=b""),
        Record(timestamp=0, key=b"\xff\0", value=bytes(range(256)) * 100),
    ]
    assert log.append(appended) == (0, 3, 6)
    found = list(log.read(0).records())
    assert [r._replace(offset=-1, headers=list(r.headers)) for r in found] == [
        r._replace(headers=list(r.headers)) for r in appended
    ]
    assert [r.offset for r in found] == [0, 1, 2, 3]


@pytest.mark.parametrize("codec", Codec)
def test_records_are_compressed_as_asked(log: PartitionLog, codec: Codec) -> None:
    log.append(records(b"x" * 1000, b"y" * 1000), codec=codec)
    (batch,) = batches(log)
    assert batch.header.codec is codec
    assert (batch.header.size < 300) == bool(codec)
    assert values(log) == [b"x" * 1000, b"y" * 1000]


@pytest.mark.parametrize("kind", ["producer", "uncompressed", "gzip", "snappy", "lz4", "zstd"])
def test_the_topic_may_say_how_records_are_compressed(directory: Path, kind: str) -> None:
    expected = {"producer": Codec.LZ4, "uncompressed": Codec.NONE}
    with opened(directory, compression_type=kind) as log:
        log.append(records(b"x" * 1000), codec=Codec.LZ4)
        assert batches(log)[0].header.codec is (
            expected[kind] if kind in expected else Codec.named(kind)
        )
        assert values(log) == [b"x" * 1000]


@pytest.mark.parametrize("acks", [0, 1, "all"])
def test_every_level_of_acks_appends_and_all_syncs(directory: Path, acks: Any) -> None:
    files = SpyFiles()
    with opened(directory, files) as log:
        before = files.counts["sync"]
        assert log.append(records("a"), acks=acks) == (0, 0, 1000)
        assert log.append_raw(raw_batch(0, "b"), acks=acks).base_offset == 1
        assert values(log) == [b"a", b"b"]
        assert files.counts["sync"] - before == (2 if acks == "all" else 0)
        assert log.synced_offset == (2 if acks == "all" else 0)
        log.flush()
        assert log.synced_offset == 2


def test_a_flush_with_nothing_to_sync_syncs_nothing(directory: Path) -> None:
    files = SpyFiles()
    with opened(directory, files) as log:
        log.append(records("a"))
        before = files.counts["sync"]
        log.flush()
        log.flush()
        assert files.counts["sync"] == before


def test_a_record_without_a_timestamp_gets_the_time_of_the_append(directory: Path) -> None:
    clock = StillClock(777_000)
    with PartitionLog(directory, files=SpyFiles(), clock=clock) as log:
        assert (
            log.append([Record(value=b"a"), Record(value=b"b", timestamp=5)]).timestamp == 777_000
        )
        assert [r.timestamp for r in log.read(0).records()] == [777_000, 5]


def test_with_log_append_time_the_log_says_what_time_it_is(directory: Path) -> None:
    clock = StillClock(777_000)
    config = LogConfig(message_timestamp_type="LogAppendTime")
    with PartitionLog(directory, files=SpyFiles(), clock=clock, config=config) as log:
        assert log.append(records("a", "b", timestamp=5)).timestamp == 777_000
        clock.ms += 10
        raw = raw_batch(0, "c", timestamp=5) + raw_batch(0, "d", "e", timestamp=6)
        assert log.append_raw(raw).timestamp == 777_010
        assert log.append(Batch.parse(raw_batch(0, "f"))).timestamp == 777_010
        assert [r.timestamp for r in log.read(0).records()] == [777_000] * 2 + [777_010] * 4
        assert log.offset_for_time(777_001) == (2, 777_010)
        # A replica keeps what its leader wrote.
        assert log.append_raw(raw_batch(6, "g", timestamp=7), origin="replica").timestamp == 7
    assert damage(directory) == []


BAD_RECORDS: list[tuple[str, Any]] = [
    ("nothing", []),
    ("None", None),
    ("a number", 5),
    ("bytes", b"abc"),
    ("text", "abc"),
    ("a single record", Record(value=b"x")),
    ("bytes in a list", [b"abc"]),
    ("None in a list", [None]),
    ("text as a value", [record("a"), Record(value="text")]),  # type: ignore[arg-type]
    ("a number as a key", [Record(key=5, value=b"")]),  # type: ignore[arg-type]
    ("text as a timestamp", [Record(timestamp="now")]),  # type: ignore[arg-type]
    ("a fraction as a timestamp", [Record(timestamp=1.5)]),  # type: ignore[arg-type]
    ("a timestamp below -1", [Record(timestamp=-2)]),
    ("a timestamp beyond 64 bits", [Record(timestamp=1 << 63)]),
    ("a header without a name", [Record(headers=[(None, b"")])]),  # type: ignore[list-item]
    ("a header that is text", [Record(headers="abc")]),  # type: ignore[arg-type]
    ("a header with a text value", [Record(headers=[("a", "b")])]),  # type: ignore[list-item]
]


@pytest.mark.parametrize(("what", "bad"), BAD_RECORDS, ids=[what for what, _ in BAD_RECORDS])
def test_what_is_no_list_of_records_is_refused_and_nothing_is_appended(
    directory: Path, log: PartitionLog, what: str, bad: Any
) -> None:
    log.append(records("before"))
    before = snapshot(directory)
    with pytest.raises(InvalidInputError):
        log.append(bad)
    assert snapshot(directory) == before
    assert log.append(records("after")).base_offset == 1


def test_a_generator_of_records_is_as_good_as_a_list(log: PartitionLog) -> None:
    generator: Any = (record(str(number)) for number in range(3))
    log.append(generator)
    assert values(log) == [b"0", b"1", b"2"]


@pytest.mark.parametrize("acks", [2, -1, "none", None, "ALL", 1.5])
def test_unknown_acks_are_refused(log: PartitionLog, acks: Any) -> None:
    with pytest.raises(InvalidInputError, match="acks is 0, 1 or 'all'"):
        log.append(records("a"), acks=acks)
    with pytest.raises(InvalidInputError, match="acks is 0, 1 or 'all'"):
        log.append_raw(raw_batch(0, "a"), acks=acks)
    assert log.log_end_offset == 0


def test_a_batch_beyond_the_largest_size_is_refused(directory: Path) -> None:
    size = len(raw_batch(0, b"x" * 100))
    with opened(directory, max_message_bytes=size) as log:
        log.append(records(b"x" * 100))
        log.append_raw(raw_batch(0, b"x" * 100))
        appends: list[Callable[[], object]] = [
            lambda: log.append(records(b"x" * 101)),
            lambda: log.append_raw(raw_batch(0, b"x" * 101)),
            lambda: log.append_raw(raw_batch(0, b"x") + raw_batch(0, b"x" * 101)),
            lambda: log.append_raw(raw_batch(2, b"x" * 101), origin="replica"),
        ]
        for append in appends:
            with pytest.raises(InvalidInputError, match=f"max_message_bytes={size}"):
                append()
        assert log.log_end_offset == 2
        log.append(records(b"x" * 200), codec=Codec.ZSTD)


# guards -------------------------------------------------------------------------------------


def test_a_guard_sees_the_log_and_may_refuse(log: PartitionLog) -> None:
    seen: list[LogView] = []
    log.append(records("a", "b"), guard=seen.append)
    log.append_raw(raw_batch(0, "c"), guard=seen.append)
    assert seen == [(0, 0, 0), (0, 2, 0)]

    def refuse(view: LogView) -> None:
        raise LookupError(f"somebody was faster: {view.log_end_offset}")

    appends: list[Callable[[], object]] = [
        lambda: log.append(records("d"), guard=refuse),
        lambda: log.append_raw(raw_batch(0, "d"), guard=refuse),
        lambda: log.append_raw(raw_batch(9, "d"), origin="replica", guard=refuse),
    ]
    for append in appends:
        with pytest.raises(LookupError, match="somebody was faster: 3"):
            append()
    assert no_locks_held(log)
    assert values(log) == [b"a", b"b", b"c"]


def test_guards_make_an_expected_version(log: PartitionLog) -> None:
    def expect(offset: int) -> Callable[[LogView], None]:
        def guard(view: LogView) -> None:
            if view.log_end_offset != offset:
                raise LookupError

        return guard

    def append(offset: int) -> bool:
        try:
            log.append(records("a"), acks=1, guard=expect(offset))
        except LookupError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        for offset in range(20):
            assert sum(pool.map(append, [offset] * 8)) == 1
    assert log.log_end_offset == 20


def test_a_guard_may_read_and_must_not_append(directory: Path) -> None:
    with PartitionLog(directory, files=SpyFiles(), lock_timeout=0.05) as log:
        log.append(records("a"))
        found: list[bytes] = []
        log.append(records("b"), guard=lambda view: found.extend(values(log)))
        assert found == [b"a"]

        def append(view: LogView) -> None:
            log.append(records("inner"))

        with pytest.raises(LockTimeoutError):
            log.append(records("outer"), guard=append)
        assert values(log) == [b"a", b"b"]
        assert no_locks_held(log)


# ready batches ------------------------------------------------------------------------------


def test_a_ready_batch_gets_the_next_offset_and_keeps_its_bytes(log: PartitionLog) -> None:
    log.append(records("a"))
    batch = Batch.parse(
        encode_batch(records("b", "c"), base_offset=70, leader_epoch=9, codec=Codec.ZSTD)
    )
    assert log.append(batch) == (1, 2, 1000)
    stored = batches(log)[1]
    assert stored.raw[16:] == batch.raw[16:]
    assert (stored.header.base_offset, stored.header.leader_epoch) == (1, 0)
    assert content(log) == [(0, b"a"), (1, b"b"), (2, b"c")]


def test_raw_batches_of_a_client_are_stamped_one_behind_the_other(log: PartitionLog) -> None:
    log.append(records("a"))
    raw = raw_batch(50, "b", "c", epoch=3) + raw_batch(0, "d", timestamp=2000) + raw_batch(9, "e")
    assert log.append_raw(raw) == (1, 4, 2000)
    assert content(log) == list(enumerate([b"a", b"b", b"c", b"d", b"e"]))
    assert {batch.header.leader_epoch for batch in batches(log)} == {0}


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_raw_batches_may_stand_in_any_buffer(log: PartitionLog, kind: Any) -> None:
    log.append_raw(kind(raw_batch(0, "a")))
    log.append_raw(kind(raw_batch(5, "b")), origin="replica")
    assert content(log) == [(0, b"a"), (5, b"b")]


def test_raw_batches_of_a_replica_keep_offsets_epochs_and_gaps(
    directory: Path, log: PartitionLog
) -> None:
    raw = raw_batch(10, "a", "b", epoch=2) + raw_batch(20, "c", epoch=4)
    assert log.append_raw(raw, origin="replica") == (10, 20, 1000)
    more = raw_batch(21, "d", epoch=4) + raw_batch(30, "e", epoch=5) + raw_batch(31, "f", epoch=7)
    log.append_raw(more, origin="replica")
    assert active_path(log).read_bytes() == raw + more
    assert content(log) == [
        (10, b"a"),
        (11, b"b"),
        (20, b"c"),
        (21, b"d"),
        (30, b"e"),
        (31, b"f"),
    ]
    assert log.append(records("g")).base_offset == 32
    assert batches(log)[-1].header.leader_epoch == 7
    stored = parse_leader_epochs((directory / "leader-epoch-checkpoint").read_bytes())
    assert [entry for entry in stored if entry.epoch] == [
        EpochEntry(2, 10),
        EpochEntry(4, 20),
        EpochEntry(5, 30),
        EpochEntry(7, 31),
    ]
    assert damage(directory) == []


@pytest.mark.parametrize(
    "raw",
    [
        raw_batch(1, "x"),
        raw_batch(0, "x"),
        raw_batch(5, "x") + raw_batch(5, "y"),
        raw_batch(5, "x", "y") + raw_batch(6, "z"),
        raw_batch(9, "x") + raw_batch(4, "z"),
    ],
)
def test_a_replica_does_not_go_back(log: PartitionLog, raw: bytes) -> None:
    log.append(records("a", "b"))
    with pytest.raises(InvalidInputError, match="or more was expected"):
        log.append_raw(raw, origin="replica")
    assert values(log) == [b"a", b"b"]


def test_a_clients_batch_with_holes_is_refused_and_a_replicas_is_not(
    directory: Path, tmp_path: Path
) -> None:
    compacted = (GOLDEN / "v2-compacted-0" / "00000000000000000000.log").read_bytes()
    with opened(directory) as log:
        with pytest.raises(InvalidInputError, match="a client's batch has no gaps"):
            log.append_raw(compacted)
        assert log.log_end_offset == 0
        log.append_raw(compacted, origin="replica")
        assert active_path(log).read_bytes() == compacted
    with PartitionLog(GOLDEN / "v2-compacted-0", read_only=True) as kafka, opened(directory) as log:
        assert content(log) == content(kafka)


BAD_RAW: list[tuple[str, Any, type[Exception]]] = [
    ("nothing", b"", InvalidInputError),
    ("rubbish", b"rubbish" * 20, FormatError),
    ("half a header", raw_batch(0, "x")[:30], FormatError),
    ("a batch cut short", raw_batch(0, "x")[:-1], FormatError),
    ("a batch and a bit", raw_batch(0, "x") + b"\0", FormatError),
    ("a flipped bit", raw_batch(0, "x")[:-1] + b"\x01", ChecksumError),
    ("a bad second one", raw_batch(0, "x") + raw_batch(1, "x")[:-1] + b"\x01", ChecksumError),
    ("magic 3", raw_batch(0, "x")[:16] + b"\x03" + raw_batch(0, "x")[17:], FormatError),
    ("an old format", (GOLDEN / "v1-none-0" / "00000000000000001000.log"), InvalidInputError),
]


@pytest.mark.parametrize(("what", "raw", "error"), BAD_RAW, ids=[what for what, *_ in BAD_RAW])
@pytest.mark.parametrize("origin", ["client", "replica"])
def test_bad_raw_batches_are_refused_and_nothing_is_appended(
    directory: Path,
    log: PartitionLog,
    what: str,
    raw: Any,
    error: type[Exception],
    origin: Any,
) -> None:
    before = snapshot(directory)
    with pytest.raises(error):
        log.append_raw(raw.read_bytes() if isinstance(raw, Path) else raw, origin=origin)
    assert snapshot(directory) == before
    assert log.append(records("after")).base_offset == 0


def test_an_unknown_origin_is_refused(log: PartitionLog) -> None:
    origin: Any = "leader"
    with pytest.raises(InvalidInputError, match="client or replica"):
        log.append_raw(raw_batch(0, "a"), origin=origin)


# the life of a handle -----------------------------------------------------------------------


def test_closing_twice_is_allowed_and_using_a_closed_handle_is_not(directory: Path) -> None:
    log = opened(directory)
    log.append(records("a"))
    log.close()
    log.close()
    uses: list[Callable[[], object]] = [
        lambda: log.append(records("b")),
        lambda: log.append_raw(raw_batch(0, "b")),
        lambda: log.read(0),
        lambda: log.offset_for_time(0),
        lambda: log.wait(0, 0),
        lambda: log.log_end_offset,
        lambda: log.log_start_offset,
        lambda: log.synced_offset,
        lambda: log.segments,
        log.flush,
    ]
    for use in uses:
        with pytest.raises(ClosedError, match="the log was closed"):
            use()


def test_handles_let_go_of_their_descriptors(directory: Path) -> None:
    opened(directory).close()
    before = set(os.listdir("/proc/self/fd"))
    for _ in range(5):
        with opened(directory, segment_bytes=100) as log:
            log.append(records(b"x" * 60))
            values(log)
        with PartitionLog(directory, read_only=True) as log:
            values(log)
    assert set(os.listdir("/proc/self/fd")) == before


def test_a_handle_that_cannot_be_opened_lets_go_of_everything(directory: Path) -> None:
    opened(directory).close()
    (directory / "00000000000000000000.log").write_bytes(b"x" * 100 + raw_batch(0, "a"))
    (directory / "state").unlink()
    before = set(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with pytest.raises(FormatError):
            opened(directory)
    assert set(os.listdir("/proc/self/fd")) == before


def test_two_handles_of_one_process_append_to_one_log(directory: Path) -> None:
    with opened(directory, segment_bytes=500) as one, opened(directory, segment_bytes=500) as two:
        for number in range(40):
            appended = (one, two)[number % 2].append(records(f"{number}"), acks=1)
            assert appended.base_offset == number
            assert one.log_end_offset == two.log_end_offset == number + 1
        assert content(one) == content(two)
        assert one.segments == two.segments
    assert damage(directory) == []


def test_the_last_close_is_the_clean_one_whoever_appended_last(directory: Path) -> None:
    one, two = opened(directory), opened(directory)
    one.append(records("a"), acks=1)
    two.append(records("b"), acks=1)
    one.close()
    two.append(records("c"), acks=1)
    two.close()
    files = SpyFiles("33333333-3333-3333-3333-333333333333")
    with opened(directory, files) as log:
        assert files.bytes_read[".log"] == 0
        assert log.log_end_offset == 3


def test_a_handle_has_a_speaking_repr(log: PartitionLog) -> None:
    assert repr(log) == f"PartitionLog({log.directory!r})"


# reading only -------------------------------------------------------------------------------


def test_a_read_only_handle_changes_nothing_and_refuses_to_append(directory: Path) -> None:
    with opened(directory) as log:
        log.append(records("a", "b"))
    before = snapshot(directory)
    with PartitionLog(directory, read_only=True) as log:
        assert values(log) == [b"a", b"b"]
        assert log.offset_for_time(1000) == (0, 1000)
        appends: list[Callable[[], object]] = [
            lambda: log.append(records("c")),
            lambda: log.append_raw(raw_batch(0, "c")),
        ]
        for append in appends:
            with pytest.raises(ReadOnlyError, match="for reading only"):
                append()
    assert snapshot(directory) == before


def test_a_read_only_handle_does_not_flush_what_others_wrote(directory: Path) -> None:
    with opened(directory) as writer:
        writer.append(records("a"), acks=1)
        files = SpyFiles()
        files.before = _refuse_changes
        with PartitionLog(directory, files=files, read_only=True) as log:
            assert values(log) == [b"a"]
            with pytest.raises(ReadOnlyError):
                log.flush()


def _refuse_changes(operation: str, path: str) -> None:
    unwanted = {"write", "truncate", "sync", "rename", "remove", "make_directory", "lock"}
    assert operation not in unwanted | {"sync_directory", "sync_shared"}, (operation, path)


@pytest.mark.parametrize("golden", sorted(GOLDEN.glob("*-0")), ids=lambda path: path.name)
def test_a_directory_of_kafkas_is_read_without_being_touched(golden: Path) -> None:
    files = SpyFiles()
    files.before = _refuse_changes
    before = snapshot(golden)
    with PartitionLog(golden, files=files, read_only=True) as log:
        found = content(log)
        assert found or "control" in golden.name or "compacted" in golden.name
        for offset, value in found[:: max(1, len(found) // 5)]:
            assert next(log.read(offset).records()).offset == offset
            assert next(iter(log.read(offset).records())).value or not value
    assert snapshot(golden) == before


def test_a_directory_that_nobody_may_write_to_is_read(directory: Path) -> None:
    with opened(directory, segment_bytes=100) as log:
        for number in range(5):
            log.append(records(f"value {number}"))
    (directory / "state").chmod(0o444)
    directory.chmod(0o555)
    # As root nothing is forbidden; a process of nobody's, standing in the directory, tells.
    script = """
import os, sys
os.chdir(sys.argv[1])
if os.getuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
import logstore
with logstore.PartitionLog(".", read_only=True) as log:
    offset = 0
    while offset < log.log_end_offset:
        fetch = log.read(offset)
        print(*(record.value.decode() for record in fetch.records()), sep="\\n")
        offset = fetch.next_offset
try:
    logstore.PartitionLog(".")
except PermissionError:
    print("refused")
"""
    # What Python loads late it would not find any more.
    script = "import encodings.ascii\nfrom logstore import PartitionLog\n" + script
    try:
        answer = run_script(script, directory)
    finally:
        directory.chmod(0o755)
    assert answer.split("\n")[:-1] == [f"value {number}" for number in range(5)] + ["refused"]


def test_a_read_only_handle_needs_a_directory(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nothing-0"):
        PartitionLog(tmp_path / "nothing-0", read_only=True)
    assert not (tmp_path / "nothing-0").exists()


def test_a_read_only_handle_of_an_empty_directory_finds_an_empty_log(directory: Path) -> None:
    directory.mkdir()
    with PartitionLog(directory, read_only=True) as log:
        assert log.log_start_offset == log.log_end_offset == 0
        assert log.read(0).data == b""
        assert log.offset_for_time(0) is None
        assert log.segments == ()
        with opened(directory) as writer:
            writer.append(records("a"))
            assert values(log) == [b"a"]
            writer.append(records("b"))
            assert values(log) == [b"a", b"b"]


# locks, threads, processes ------------------------------------------------------------------


def test_waiting_for_a_lock_that_a_stopped_process_holds_ends_with_an_error(
    directory: Path,
) -> None:
    opened(directory).close()
    script = (
        "import fcntl, sys\n"
        "file = open(sys.argv[1], 'r+b')\n"
        "fcntl.flock(file, fcntl.LOCK_EX)\n"
        "print('locked', flush=True)\n"
        "sys.stdin.read()\n"
    )
    log = PartitionLog(directory, files=SpyFiles(), lock_timeout=0.2)
    command = [sys.executable, "-c", script, str(directory / "lock")]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=child_environment()
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdin is not None
        assert holder.stdout.readline() == b"locked\n"
        holder.send_signal(signal.SIGSTOP)
        begun = time.monotonic()
        with pytest.raises(LockTimeoutError, match=r"another process has held .* is it stopped\?"):
            log.append(records("a"))
        assert 0.15 < time.monotonic() - begun < 5
        with pytest.raises(LockTimeoutError):
            PartitionLog(directory, files=SpyFiles(), lock_timeout=0.05)
        assert log.read(0).data == b""
        holder.send_signal(signal.SIGCONT)
        holder.stdin.close()
        holder.wait()
    assert log.append(records("a")).base_offset == 0
    log.close()


def test_closing_ends_a_wait_for_the_lock(directory: Path) -> None:
    log = PartitionLog(directory, files=SpyFiles(), lock_timeout=20)
    holder = SpyFiles().lock(str(directory / "lock"))
    holder.acquire()
    caught: list[BaseException] = []

    def append() -> None:
        try:
            log.append(records("a"))
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is looked at
            caught.append(error)

    thread = threading.Thread(target=append)
    thread.start()
    time.sleep(0.05)
    closer = threading.Thread(target=log.close)
    closer.start()
    thread.join(5)
    alive = thread.is_alive()
    holder.close()
    thread.join()
    closer.join()
    assert not alive
    assert [type(error) for error in caught] == [ClosedError]


@pytest.mark.parametrize("acks", [1, "all"])
def test_threads_append_gaplessly_each_in_its_own_order(directory: Path, acks: Any) -> None:
    threads, count = 8, 150
    files = SpyFiles()
    files.before = lambda operation, path: time.sleep(0.001 * (operation == "sync"))
    with opened(directory, files, segment_bytes=20_000) as log:
        before = files.counts["sync"]

        def append(thread: int) -> list[int]:
            return [
                log.append(records(f"{thread} {number}"), acks=acks).base_offset
                for number in range(count)
            ]

        with ThreadPoolExecutor(threads) as pool:
            offsets = list(pool.map(append, range(threads)))
        syncs = files.counts["sync"] - before
        found = content(log)
        assert gapless([offset for offset, _ in found])
        assert len(found) == threads * count
        for thread, own in enumerate(offsets):
            mine = [(o, v) for o, v in found if v.startswith(b"%d " % thread)]
            assert mine == [(o, b"%d %d" % (thread, n)) for n, o in enumerate(own)]
            assert own == sorted(own)
        if acks == "all":
            assert log.synced_offset == threads * count
            assert syncs < threads * count / 2, "one sync serves all threads that wait"
    assert damage(directory) == []


def test_threads_that_use_a_handle_while_it_is_closed_get_one_error(directory: Path) -> None:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    wrong: list[BaseException] = []
    try:
        for number in range(30):
            log = opened(directory, segment_bytes=300)

            def use(log: PartitionLog = log, reads: bool = bool(number % 2)) -> None:
                try:
                    while True:
                        if reads:
                            log.read(max(0, log.log_end_offset - 1))
                            log.wait(log.log_end_offset, 0.0001)
                        else:
                            log.append(records("a"), acks=1)
                except ClosedError:
                    pass
                except BaseException as error:  # noqa: BLE001 - it is looked at below
                    wrong.append(error)

            threads = [threading.Thread(target=use) for _ in range(3)]
            for thread in threads:
                thread.start()
            time.sleep(0.003)
            log.close()
            for thread in threads:
                thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert wrong == []
    assert damage(directory) == []


FORK = """
import os, sys, logstore
directory = sys.argv[1]
log = logstore.PartitionLog(directory)
reader = logstore.PartitionLog(directory, read_only=True)
log.append([logstore.Record(value=b"parent")])
kinds = []
child = os.fork()
if child == 0:
    code = 1
    try:
        for use in (
            lambda: log.append([logstore.Record(value=b"child")]),
            lambda: log.read(0),
            lambda: log.flush(),
            lambda: reader.read(0),
        ):
            try:
                use()
            except logstore.ForkedError as error:
                assert "belongs to the parent process" in str(error)
            else:
                os._exit(2)
        log.close()
        reader.close()
        with logstore.PartitionLog(directory) as own:
            assert own.append([logstore.Record(value=b"child")]).base_offset == 1
        code = 0
    finally:
        os._exit(code)
assert os.waitpid(child, 0)[1] == 0
assert log.append([logstore.Record(value=b"parent again")]).base_offset == 2
print([record.value.decode() for record in log.read(0).records()])
log.close()
"""


def test_a_child_of_fork_is_refused_and_opens_its_own(directory: Path) -> None:
    assert run_script(FORK, directory) == "['parent', 'child', 'parent again']\n"


FORK_UNDER_LOCK = """
import fcntl, os, sys, logstore
directory = sys.argv[1]
log = logstore.PartitionLog(directory)

def guard(view):
    # The parent holds the lock now. A child that comes and goes must not take it away.
    child = os.fork()
    if child == 0:
        log.close()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    with open(os.path.join(directory, "lock"), "r+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            print("the lock is free")
        except BlockingIOError:
            print("the lock is held")

log.append([logstore.Record(value=b"a")], guard=guard)
print(log.append([logstore.Record(value=b"b")]).base_offset)
log.close()
"""


def test_the_end_of_a_child_does_not_release_its_parents_lock(directory: Path) -> None:
    assert run_script(FORK_UNDER_LOCK, directory) == "the lock is held\n1\n"


# waiting ------------------------------------------------------------------------------------


def test_a_wait_ends_at_once_where_there_is_something(log: PartitionLog) -> None:
    log.append(records("a"))
    assert log.wait(0)
    assert log.wait(0, 0)


def test_a_wait_ends_in_time_where_nothing_comes(log: PartitionLog) -> None:
    begun = time.monotonic()
    assert not log.wait(0, 0.05)
    assert 0.04 < time.monotonic() - begun < 2
    assert not log.wait(0, -1)


@pytest.mark.parametrize("read_only", [False, True])
def test_a_wait_ends_when_somebody_appends(directory: Path, read_only: bool) -> None:
    with opened(directory) as writer:
        reader = PartitionLog(directory, files=SpyFiles(), read_only=read_only)
        timer = threading.Timer(0.05, lambda: writer.append(records("a")))
        timer.start()
        assert reader.wait(0, 20)
        assert values(reader) == [b"a"]
        timer.join()
        reader.close()


def test_a_wait_behind_the_end_is_refused_as_a_read_is(log: PartitionLog) -> None:
    log.append(records("a"))
    assert not log.wait(1, 0)
    with pytest.raises(OffsetOutOfRangeError):
        log.wait(2, 0)


@pytest.mark.parametrize("read_only", [True, False])
def test_a_wait_ends_when_the_log_is_cut_below_it(directory: Path, read_only: bool) -> None:
    """What is appended then bears offsets that the reader believes to have read."""
    with PartitionLog(directory) as log:
        log.append(records("a", "b", "c"))
        with PartitionLog(directory, read_only=read_only) as reader:
            cut = threading.Timer(0.05, log.truncate, (1,))
            cut.start()
            with pytest.raises(OffsetOutOfRangeError, match="offset 3 is out of range"):
                reader.wait(3, 20)
            cut.join()


def test_closing_ends_a_wait(directory: Path) -> None:
    log = opened(directory)
    timer = threading.Timer(0.05, log.close)
    timer.start()
    with pytest.raises(ClosedError):
        log.wait(0, 20)
    timer.join()


# what is no argument ------------------------------------------------------------------------


@pytest.mark.parametrize("offset", [1.0, "1", True, None])
def test_what_is_no_offset_is_refused_before_anything_is_done(directory: Path, offset: Any) -> None:
    with PartitionLog(directory) as log:
        log.append(records("a", "b", "c"))
        for method in (log.read, log.wait, log.delete_records, log.truncate):
            with pytest.raises(InvalidInputError, match="an offset is an int, not"):
                method(offset)
        assert len(content(log)) == 3
    with PartitionLog(directory) as log:
        assert len(content(log)) == 3


@pytest.mark.parametrize("acks", [True, False, 1.0, 2, "1", None, [], -1])
def test_acks_are_0_1_or_all(log: PartitionLog, acks: Any) -> None:
    with pytest.raises(InvalidInputError, match="acks is 0, 1 or 'all', not"):
        log.append(records("a"), acks=acks)
    with pytest.raises(InvalidInputError, match="acks is 0, 1 or 'all', not"):
        log.append_raw(raw_batch(0, "a"), acks=acks)


@pytest.mark.parametrize("what", [b"x", "x", bytearray(b"x"), memoryview(b"x"), Record(value=b"x")])
def test_one_record_is_no_list_of_records(log: PartitionLog, what: Any) -> None:
    with pytest.raises(InvalidInputError, match=f"list of Record, not {type(what).__name__}"):
        log.append(what)
    mixed: list[Any] = records("a")
    mixed.append(b"x")
    with pytest.raises(InvalidInputError, match="record 1 is bytes, not a Record"):
        log.append(mixed)


def test_a_path_may_be_bytes(tmp_path: Path) -> None:
    with PartitionLog(os.fsencode(tmp_path / "a-0")) as log:  # type: ignore[arg-type]
        log.append(records("a"))
        assert log.directory == str(tmp_path / "a-0")


def test_the_end_is_seen_to_move_whoever_moves_it(directory: Path) -> None:
    with PartitionLog(directory) as log, PartitionLog(directory) as other:
        for end in range(1, 4):
            log.append(records("mine"), acks=1)
            assert (log.log_end_offset, other.log_end_offset) == (2 * end - 1, 2 * end - 1)
            other.append(records("another's"), acks=1)
            assert (log.log_end_offset, other.log_end_offset) == (2 * end, 2 * end)
        log.append(records("mine"))
        other.truncate(3)
        assert (log.log_end_offset, other.log_end_offset) == (3, 3)
        mark_deleted(other)
        with pytest.raises(UnknownTopicError):
            _ = log.log_end_offset
    with pytest.raises(ClosedError):
        _ = log.log_end_offset
