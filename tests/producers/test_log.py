"""Batches of idempotent producers in a log: what is taken, what is known, and what it costs."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest

from logstore import (
    Batch,
    Codec,
    InvalidInputError,
    LockTimeoutError,
    LogConfig,
    LogView,
    OutOfOrderSequenceError,
    PartitionLog,
    ProducerFencedError,
    ProducerStamp,
    ReadOnlyError,
    Record,
)
from logstore.producer_states import SentBatch
from logstore.segments import producer_snapshot
from logstore.segments.batch import encode_batch
from logstore.segments.files import DiskFiles

from ..log.support import (  # noqa: TID252 - tests are no package to import absolutely
    GOLDEN,
    SpyFiles,
    StillClock,
    copied,
    damage,
    fail,
    fetches,
    kill,
    opened,
    record,
    records,
)

ID = 7


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "orders-0"


def send(
    log: PartitionLog, sequence: int, count: int = 1, *, epoch: int = 0, producer_id: int = ID
) -> tuple[int, int]:
    """Append a batch whose records hold their sequences; return first and last offset."""
    values = [f"{producer_id}/{epoch}/{sequence + i}" for i in range(count)]
    stamp = ProducerStamp(producer_id, epoch, sequence)
    appended = log.append(records(*values), acks=1, producer=stamp)
    return appended.base_offset, appended.last_offset


def values(log: PartitionLog) -> list[str]:
    return [(r.value or b"").decode() for fetch in fetches(log) for r in fetch.records()]


def snapshots(directory: Path) -> list[int]:
    return sorted(int(path.stem) for path in directory.glob("*.snapshot"))


def known(log: PartitionLog, producer_id: int = ID) -> tuple[int, int, int] | None:
    """Epoch, last sequence and last offset."""
    state = log.producer_state(producer_id)
    return None if state is None else (state.epoch, state.last_sequence, state.last_offset)


# appending ------------------------------------------------------------------------------------


def test_a_batch_that_is_there_is_not_appended_again(directory: Path) -> None:
    with opened(directory) as log:
        assert send(log, 0, 3) == (0, 2)
        log.append(records("between"), acks=1)
        assert send(log, 3, 2) == (4, 5)
        assert send(log, 0, 3) == (0, 2)
        assert send(log, 3, 2) == (4, 5)
        assert values(log) == ["7/0/0", "7/0/1", "7/0/2", "between", "7/0/3", "7/0/4"]
        headers = [b.header for fetch in fetches(log) for b in fetch.batches()]
        assert [(h.producer_id, h.producer_epoch, h.base_sequence) for h in headers] == [
            (7, 0, 0),
            (-1, -1, -1),
            (7, 0, 3),
        ]


def test_a_duplicate_that_was_only_written_is_synced_when_all_is_asked_for(directory: Path) -> None:
    with opened(directory) as log:
        send(log, 0)
        assert log.synced_offset == 0
        log.append(records("7/0/0"), acks="all", producer=ProducerStamp(ID, 0, 0))
        assert (log.log_end_offset, log.synced_offset) == (1, 1)


def test_a_gap_and_an_older_epoch_are_refused_and_nothing_is_appended(directory: Path) -> None:
    with opened(directory) as log:
        send(log, 0, epoch=1)
        with pytest.raises(OutOfOrderSequenceError, match=f"{directory}: .*where 1 was expected"):
            send(log, 2, epoch=1)
        with pytest.raises(ProducerFencedError, match=f"{directory}: producer 7 of epoch 0"):
            send(log, 1, epoch=0)
        with pytest.raises(InvalidInputError, match="out of bounds"):
            send(log, -1)
        assert (log.log_end_offset, known(log)) == (1, (1, 0, 0))


def test_a_guard_is_not_asked_about_a_duplicate(directory: Path) -> None:
    def refuse(view: LogView) -> None:
        raise RuntimeError(f"at {view.log_end_offset}")

    stamp = ProducerStamp(ID, 0, 0)
    with opened(directory) as log:
        with pytest.raises(RuntimeError, match="at 0"):
            log.append(records("a"), producer=stamp, guard=refuse)
        first = log.append(records("a"), producer=stamp)
        assert log.append(records("a"), producer=stamp, guard=refuse) == first


def test_the_time_of_the_append_is_that_of_the_first_one(directory: Path) -> None:
    clock = StillClock(1000)
    log = PartitionLog(directory, clock=clock)
    log.configure(log.config.from_overrides({"message_timestamp_type": "LogAppendTime"}))
    stamp = ProducerStamp(ID, 0, 0)
    with log:
        first = log.append([record("a", timestamp=5)], producer=stamp)
        clock.ms = 3000
        assert log.append([record("a", timestamp=5)], producer=stamp) == first == (0, 0, 1000)


def test_compression_transactions_and_sizes_are_as_without_a_producer(directory: Path) -> None:
    with opened(directory, max_message_bytes=1000, compression_type="zstd") as log:
        log.append(
            records("a" * 5000), acks=1, producer=ProducerStamp(ID, 0, 0, transactional=True)
        )
        (batch,) = fetches(log)[0].batches()
        assert (batch.header.codec, batch.header.transactional) == (Codec.ZSTD, True)
        with pytest.raises(InvalidInputError, match="max_message_bytes=1000"):
            log.append([Record(value=os.urandom(2000))], producer=ProducerStamp(ID, 0, 1))
        assert known(log) == (0, 0, 0)


def test_a_compacted_log_asks_for_keys(directory: Path) -> None:
    with (
        opened(directory, cleanup_policy="compact") as log,
        pytest.raises(InvalidInputError, match="record 0 has no key"),
    ):
        send(log, 0)


def test_waiting_for_the_lock_ends_after_the_time_that_was_asked_for(directory: Path) -> None:
    lock = DiskFiles().lock
    with opened(directory) as log:
        held = lock(str(directory / "lock"))
        held.acquire()
        for stamp in (None, ProducerStamp(ID, 0, 0)):
            with pytest.raises(LockTimeoutError, match="for 0 seconds"):
                log.append(records("a"), producer=stamp, timeout=0)
        with pytest.raises(LockTimeoutError, match="for 0 seconds"):
            log.append_raw(encode_batch(records("a")), timeout=0)
        held.close()
        assert send(log, 0) == (0, 0)


def test_a_log_that_is_only_read_tells_of_no_producers(directory: Path) -> None:
    with opened(directory) as log:
        send(log, 0)
    with PartitionLog(directory, read_only=True) as log:
        with pytest.raises(ReadOnlyError):
            log.producer_state(ID)
        with pytest.raises(ReadOnlyError):
            send(log, 1)


# ready batches --------------------------------------------------------------------------------


def raw(sequence: int, count: int = 1, *, epoch: int = 0, producer_id: int = ID) -> bytes:
    names = [f"{producer_id}/{epoch}/{sequence + i}" for i in range(count)]
    return encode_batch(
        records(*names), producer_id=producer_id, producer_epoch=epoch, base_sequence=sequence
    )


def test_ready_batches_of_a_client_are_checked_likewise(directory: Path) -> None:
    with opened(directory) as log:
        assert log.append_raw(raw(0, 2) + raw(2, 3), acks=1)[:2] == (0, 4)
        assert log.append(Batch.parse(raw(5)), acks=1)[:2] == (5, 5)
        # What is there already is left out, and the rest appended.
        plain = encode_batch(records("plain"))
        appended = log.append_raw(raw(2, 3) + plain + raw(5) + raw(6, 2), acks=1)
        assert appended[:2] == (2, 8)
        assert values(log) == [*(f"7/0/{n}" for n in range(6)), "plain", "7/0/6", "7/0/7"]
        assert log.append_raw(raw(6, 2), acks=1)[:2] == (7, 8)
        with pytest.raises(OutOfOrderSequenceError):
            log.append_raw(raw(8) + raw(10), acks=1)
        with pytest.raises(ProducerFencedError):
            log.append_raw(raw(8) + raw(0, epoch=1) + raw(9), acks=1)
        assert (log.log_end_offset, known(log)) == (9, (0, 7, 8))
        with pytest.raises(InvalidInputError, match="bears its producer in its header"):
            log.append(Batch.parse(raw(8)), producer=ProducerStamp(ID, 0, 8))


def test_batches_of_a_replica_are_only_noted(directory: Path) -> None:
    def at(offset: int, sequence: int, epoch: int = 0) -> bytes:
        batch = Batch.parse(raw(sequence, epoch=epoch))
        return batch.placed(offset, 0).raw

    with opened(directory) as log:
        send(log, 0)
        log.append_raw(at(1, 5) + at(9, 3, epoch=4), origin="replica", acks=1)
        assert known(log) == (4, 3, 9)
        log.append_raw(at(20, 0, epoch=2), origin="replica", acks=1)
        assert known(log) == (2, 0, 20)
        assert send(log, 1, epoch=2) == (21, 21)


# other handles --------------------------------------------------------------------------------


def test_what_other_handles_append_is_noticed(directory: Path) -> None:
    with opened(directory) as one, opened(directory) as two:
        assert send(one, 0) == (0, 0)
        assert send(two, 0) == (0, 0)
        assert send(two, 1) == (1, 1)
        two.append(records("plain"), acks=1)
        assert send(one, 1) == (1, 1)
        assert send(one, 2) == (3, 3)
        send(two, 0, epoch=1)
        with pytest.raises(ProducerFencedError):
            send(one, 3)


def test_what_other_handles_roll_and_truncate_is_noticed(directory: Path) -> None:
    with opened(directory, segment_bytes=200) as one, opened(directory, segment_bytes=200) as two:
        for sequence in range(5):
            send((one, two)[sequence % 2], sequence)
        assert len(one.segments) > 2
        for log in (one, two, one):
            send(log, 5)
            send(log, 4)
            log.truncate(5)
            assert known(log) == (0, 4, 4)
        two.truncate(3)
        assert known(one) == (0, 2, 2)
        assert send(one, 3) == (3, 3)
        assert send(two, 3) == (3, 3)
        one.truncate(0)
        assert known(two) is None
        assert send(two, 40) == (0, 0)


def test_a_cut_batch_ends_at_an_earlier_sequence(directory: Path) -> None:
    with opened(directory) as log:
        send(log, 0, 5)
        log.truncate(3)
        assert known(log) == (0, 2, 2)
        with pytest.raises(OutOfOrderSequenceError):
            send(log, 5)
        assert send(log, 0, 3) == (0, 2)
        assert send(log, 3) == (3, 3)


def test_a_log_cut_and_filled_again_to_its_old_length_is_not_taken_for_the_old_one(
    directory: Path,
) -> None:
    with opened(directory) as one, opened(directory) as two:
        send(one, 0)
        send(one, 1)
        two.truncate(1)
        two.append(records("plain"), acks=1)
        assert known(one) == (0, 0, 0)
        assert send(one, 1) == (2, 2)


def test_only_headers_of_what_others_have_appended_are_read(directory: Path) -> None:
    files = SpyFiles()
    with opened(directory, files) as one, opened(directory) as two:
        send(one, 0)
        for _ in range(50):
            two.append(records("x" * 100_000), acks=1)
        before = files.bytes_read[".log"]
        send(one, 1)
        assert files.bytes_read[".log"] - before < 300_000  # a chunk, and 50 headers
        before = files.counts["read"]
        send(one, 2)
        send(one, 2)
        assert files.counts["read"] == before


# what a log without producers pays ---------------------------------------------------------------


def test_a_log_without_producers_does_nothing_for_them(directory: Path) -> None:
    files = SpyFiles()
    with opened(directory, files, segment_bytes=1000) as log:
        for number in range(30):
            log.append(records("x" * 100, str(number)), acks=1)
        assert len(log.segments) > 3
    assert files.counts["read"] == 0
    assert not snapshots(directory)


# snapshots ------------------------------------------------------------------------------------


def test_a_snapshot_stands_at_each_segment_and_at_the_end_of_a_closed_log(
    directory: Path,
) -> None:
    with opened(directory, segment_bytes=200) as log:
        for sequence in range(8):
            send(log, sequence)
        bases = log.segments
        assert len(bases) > 3
        assert snapshots(directory) == list(bases[1:])
        log.flush()
    assert snapshots(directory) == [*bases[1:], 8]
    for offset in snapshots(directory):
        (entry,) = producer_snapshot.decode((directory / f"{offset:020}.snapshot").read_bytes())
        assert (entry.producer_id, entry.last_sequence, entry.last_offset) == (
            7,
            offset - 1,
            offset - 1,
        )
    assert damage(directory) == []
    with opened(directory, segment_bytes=200) as log:
        send(log, 8)
    # The one of the last close has gone.
    assert snapshots(directory) == [*log_bases(directory)[1:], 9]


def log_bases(directory: Path) -> list[int]:
    return sorted(int(path.stem) for path in directory.glob("*.log"))


def test_snapshots_go_with_their_segments(directory: Path) -> None:
    with opened(directory, segment_bytes=200, retention_bytes=700, retention_ms=-1) as log:
        for sequence in range(20):
            send(log, sequence)
        before = snapshots(directory)
        log.retain()
        assert snapshots(directory) == [offset for offset in before if offset in log.segments]
        log.delete_records(log.segments[-1])
        assert snapshots(directory) == [log.segments[-1]]
        assert known(log) == (0, 19, 19)
    log = opened(directory)
    with log:
        assert known(log) == (0, 19, 19)
        send(log, 20)


def test_snapshots_behind_a_cut_go(directory: Path) -> None:
    with opened(directory, segment_bytes=200) as log:
        for sequence in range(12):
            send(log, sequence)
    assert snapshots(directory)[-1] == 12
    with opened(directory, segment_bytes=200) as log:
        to = log.segments[2]
        log.truncate(to + 1)
        assert snapshots(directory) == list(log.segments[1:])
        log.append(records("other"), acks=1)
        assert known(log) == (0, to, to)


def test_segments_that_compaction_merges_take_their_snapshots_along(directory: Path) -> None:
    with opened(directory, segment_bytes=400, cleanup_policy="compact") as log:
        for sequence in range(20):
            value = Record(timestamp=1000, key=b"k%d" % (sequence % 3), value=b"v")
            log.append([value], acks=1, producer=ProducerStamp(ID, 0, sequence))
        log.configure(log.config.from_overrides({"cleanup_policy": "compact"}))
        before = log.segments
        log.compact(force=True)
        assert len(log.segments) < len(before)
        assert snapshots(directory) == list(log.segments[1:])
    kill(log)
    for path in directory.glob("*.snapshot"):
        path.unlink()
    with opened(directory) as log:
        assert known(log) == (0, 19, 19)


def test_the_newest_snapshot_that_can_be_used_is(directory: Path) -> None:
    with opened(directory, segment_bytes=200) as log:
        for sequence in range(12):
            send(log, sequence)
        kill(log)
    newest = directory / f"{snapshots(directory)[-1]:020}.snapshot"
    for broken in (newest.read_bytes()[:-1], b"", b"\0\7" + newest.read_bytes()[2:]):
        newest.write_bytes(broken)
        with opened(directory) as log:
            assert known(log) == (0, 11, 11)
            assert send(log, 11) == (11, 11)
            kill(log)


def test_what_stands_before_a_snapshot_is_not_read(directory: Path) -> None:
    with opened(directory) as log:
        for sequence in range(30):
            stamp = ProducerStamp(ID, 0, sequence)
            log.append(records("x" * 50_000), acks=1, producer=stamp)
        log.flush()
    files = SpyFiles()
    with opened(directory, files) as log:
        assert known(log) == (0, 29, 29)
        assert files.bytes_read[".log"] == 0
        with opened(directory) as other:
            other.append(records("x" * 50_000), acks=1)
        assert known(log) == (0, 29, 29)
        kill(log)
    files = SpyFiles()
    with opened(directory, files) as log:
        # The snapshot lies in the middle of the segment: the index says where to begin.
        assert known(log) == (0, 29, 29)
        assert 0 < files.bytes_read[".log"] < 400_000


def test_an_old_log_is_read_once_and_only_as_far_back_as_producers_are_remembered(
    directory: Path,
) -> None:
    clock = StillClock(1_700_000_000_000)
    day = 86_400_000
    config = LogConfig(segment_bytes=2_000_000)
    with PartitionLog(directory, clock=clock, config=config) as log:
        for number in range(200):
            log.append([record("x" * 50_000, timestamp=clock.ms + number * day // 10)], acks=1)
        kill(log)
    clock.ms += 20 * day
    files = SpyFiles()
    with PartitionLog(directory, files=files, clock=clock) as log:
        assert known(log) is None
        # Of each segment the end, which tells how old it is; of the last one the headers.
        assert files.bytes_read[".log"] < 2_000_000 < 10_000_000
        assert snapshots(directory) == [200]
        kill(log)
    files = SpyFiles()
    with PartitionLog(directory, files=files, clock=clock) as log:
        assert known(log) is None
        assert files.bytes_read[".log"] == 0
        kill(log)


def test_a_snapshot_that_cannot_be_written_is_missing_and_no_more(
    directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files = SpyFiles()
    with opened(directory, files, segment_bytes=200) as log:
        send(log, 0)
        full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        files.before = fail("write", full, path=".snapshot.tmp")
        for sequence in range(1, 8):
            send(log, sequence)
        assert len(log.segments) > 2
        assert snapshots(directory) == []
        assert "no producer snapshot at" in caplog.text
        files.before = lambda operation, path: None
        kill(log)
    with opened(directory) as log:
        assert known(log) == (0, 7, 7)
    assert not list(directory.glob("*.tmp"))


def test_a_snapshot_behind_the_end_of_a_log_is_removed_when_that_is_opened(
    directory: Path, tmp_path: Path
) -> None:
    with opened(directory) as log:
        for sequence in range(4):
            send(log, sequence)
    other = copied(directory, tmp_path / "copy-0")
    log_file = other / f"{0:020}.log"
    with opened(directory) as log:
        (fetch,) = fetches(log)
        size = [b.position for b in fetch.batches()][2]
    os.truncate(log_file, size)
    (other / "state").unlink()
    with opened(other) as log:
        assert log.log_end_offset == 2
        assert snapshots(other) == []
        assert known(log) == (0, 1, 1)


# a broker's -----------------------------------------------------------------------------------


def test_a_brokers_producers_go_on_here(tmp_path: Path) -> None:
    directory = tmp_path / "orders-0"
    shutil.copytree(GOLDEN / "partition-0", directory)
    log_file = directory / f"{50:020}.log"
    files = SpyFiles()
    clock = StillClock(1_700_000_000_000 + 5000)
    with PartitionLog(directory, files=files, clock=clock) as log:
        before = files.bytes_read[".log"]
        state = log.producer_state(9001)
        assert files.bytes_read[".log"] == before  # the broker's snapshot says it all
        assert state is not None
        assert state.batches == (SentBatch(3, 3, 60, 60, 1_700_000_000_090),)
        stamp = ProducerStamp(9001, 0, 4)
        assert log.append(records("next"), producer=stamp).base_offset == 66
        assert log.append(records("next"), producer=stamp).base_offset == 66
        with pytest.raises(ProducerFencedError):
            log.append(records("old"), producer=ProducerStamp(9002, 0, 5))
        with pytest.raises(OutOfOrderSequenceError):
            log.append(records("gap"), producer=ProducerStamp(9003, 0, 4))
    assert snapshots(directory) == [67]
    assert log_file.exists()
    # Without the broker's snapshot the headers say the same.
    for path in directory.glob("*.snapshot"):
        path.unlink()
    with PartitionLog(directory, clock=clock) as log:
        again = log.producer_state(9002)
        assert again is not None
        assert (again.epoch, again.coordinator_epoch) == (1, 13)


def test_producers_are_forgotten_after_a_time(directory: Path) -> None:
    clock = StillClock(1_000_000_000)
    with PartitionLog(directory, clock=clock) as log:
        log.configure(log.config.from_overrides({"producer_id_expiration_ms": 1000}))
        log.append([record("a", timestamp=5)], producer=ProducerStamp(ID, 0, 0))
        clock.ms += 999
        assert known(log) == (0, 0, 0)
        clock.ms += 1
        assert known(log) is None
        log.append(records("b"), producer=ProducerStamp(ID, 0, 500))
