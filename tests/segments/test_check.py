"""Checking: golden files hold, every kind of damage is found in its place, and what may be so is
not called damage."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from logstore.segments import varint
from logstore.segments.batch import encode_batch, seal_batch
from logstore.segments.check import Finding, Totals, check
from logstore.segments.checkpoint import EpochEntry, format_leader_epochs
from logstore.segments.compression import Codec
from logstore.segments.files import DiskFiles, File
from logstore.segments.memory_files import MemoryFiles
from logstore.segments.offset_index import OffsetEntry
from logstore.segments.offset_index import encode_entry as offset_entry
from logstore.segments.producer_snapshot import ProducerEntry
from logstore.segments.producer_snapshot import encode as encode_snapshot
from logstore.segments.record import Record
from logstore.segments.transaction_index import AbortedTransaction
from logstore.segments.transaction_index import encode_entry as aborted_entry

from .partitions import (
    EPOCHS,
    FIRST_INDEX,
    FIRST_LOG,
    FIRST_TIME_INDEX,
    LAST_INDEX,
    LAST_LOG,
    LAST_TIME_INDEX,
    METADATA,
    NOW,
    batch,
    damage_in,
    findings_of,
    in_memory,
    marker,
    one_damage,
    place,
    segment,
    two_segments,
    write,
)

GOLDEN = Path(__file__).resolve().parent.parent / "golden"
FOLDERS = sorted(path for path in GOLDEN.iterdir() if path.is_dir())

# --- what holds -------------------------------------------------------------------------------


@pytest.mark.parametrize("folder", FOLDERS, ids=[folder.name for folder in FOLDERS])
def test_what_kafka_wrote_holds(folder: Path) -> None:
    assert findings_of(DiskFiles(), str(folder)) == []


def test_all_golden_folders_at_once_are_counted() -> None:
    totals = Totals()
    assert findings_of(DiskFiles(), str(GOLDEN), totals=totals) == []
    assert totals.partitions == len(FOLDERS)
    assert totals.segments == len(list(GOLDEN.glob("*/*.log")))
    assert totals.bytes == sum(log.stat().st_size for log in GOLDEN.glob("*/*.log"))
    assert totals.records > totals.batches > totals.segments
    assert (totals.damage, totals.notes) == (0, 0)


def test_a_partition_of_ours_holds() -> None:
    totals = Totals()
    assert findings_of(in_memory(two_segments()), totals=totals) == []
    assert (totals.segments, totals.files, totals.batches, totals.records) == (2, 8, 8, 15)


def test_a_check_writes_nothing(tmp_path: Path) -> None:
    for name, data in two_segments().items():
        (tmp_path / name).write_bytes(data[:-1])
    before = {
        path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in tmp_path.iterdir()
    }
    assert findings_of(DiskFiles(), str(tmp_path))
    after = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in tmp_path.iterdir()}
    assert before == after


def test_a_whole_store_and_every_file_of_it_can_be_checked() -> None:
    files = in_memory(two_segments(), "data/topics/orders-0")
    write(files, "data/store.json", b"{}")
    files.make_directory("data/topics/orders-10")
    write(files, "data/topics/orders-10/" + FIRST_LOG, batch(100, [0]) + b"torn")
    write(files, "data/topics/lock", b"")
    totals = Totals()
    found = findings_of(files, "data", totals=totals)
    assert [(f.severity, f.path) for f in found] == [
        ("note", "data/topics/orders-10/" + FIRST_INDEX),
        ("note", "data/topics/orders-10/" + FIRST_TIME_INDEX),
        ("damage", "data/topics/orders-10/" + FIRST_LOG),
    ]
    assert (totals.partitions, totals.damage, totals.notes) == (2, 1, 2)
    for name in two_segments():
        assert findings_of(files, f"data/topics/orders-0/{name}") == []


def test_what_is_no_partition_is_not_checked() -> None:
    files = MemoryFiles()
    files.make_directory("empty")
    write(files, "empty/README.md", b"hello")
    assert check(files, "empty") is None
    assert check(files, "empty/README.md") is None


def test_a_store_without_topics_holds() -> None:
    files = MemoryFiles()
    files.make_directory("data/topics")
    write(files, "data/store.json", b"{}")
    assert findings_of(files, "data") == []


def test_a_missing_path_raises_what_the_system_says() -> None:
    with pytest.raises(FileNotFoundError):
        check(MemoryFiles(), FIRST_LOG)


@pytest.mark.parametrize("suffix", [".index", ".timeindex"])
def test_a_missing_index_is_a_note(suffix: str) -> None:
    contents = two_segments()
    del contents["00000000000000000100" + suffix]
    (finding,) = findings_of(in_memory(contents))
    assert finding.severity == "note"
    assert place(finding) == ("00000000000000000100" + suffix, 0)
    assert "missing" in finding.reason


def test_preallocated_zeros_behind_an_index_are_fine() -> None:
    contents = two_segments()
    for name in (FIRST_INDEX, LAST_INDEX):
        contents[name] += bytes(800)
    for name in (FIRST_TIME_INDEX, LAST_TIME_INDEX):
        contents[name] += bytes(1200)
    assert findings_of(in_memory(contents)) == []


def test_gaps_between_and_inside_segments_are_fine() -> None:
    contents = {
        **segment([batch(10, [0]), batch(20, [1, 2])], 5),
        **segment([batch(500, [3])], 400),
    }
    assert findings_of(in_memory(contents)) == []


def test_files_of_other_names_are_passed_over() -> None:
    contents = two_segments()
    for name in ("lock", "state", FIRST_LOG + ".deleted", "x.tmp", FIRST_LOG + ".swap", "y.log"):
        contents[name] = b"whatever"
    assert findings_of(in_memory(contents)) == []


def cleaned_batch(base_offset: int, kept: dict[int, int], last_delta: int, largest: int) -> bytes:
    """A batch of which compaction kept the records of these offset deltas (with timestamps)."""
    encode = varint.encode
    bodies = [
        b"\0" + encode(timestamp) + encode(delta) + encode(-1) + encode(1) + b"v" + encode(0)
        for delta, timestamp in kept.items()
    ]
    return seal_batch(
        b"".join(encode(len(body)) + body for body in bodies),
        record_count=len(kept),
        base_timestamp=NOW,
        max_timestamp=NOW + largest,
        last_offset_delta=last_delta,
    ).at(base_offset, 0)


def test_what_compaction_leaves_is_fine() -> None:
    batches = [
        cleaned_batch(0, {1: 5, 4: 7}, last_delta=5, largest=9),
        cleaned_batch(6, {}, last_delta=3, largest=8),
        cleaned_batch(10, {0: 9}, last_delta=0, largest=9),
    ]
    assert findings_of(in_memory(segment(batches, 0))) == []


# --- damage in a log --------------------------------------------------------------------------


def test_a_wrong_checksum_is_told_once_with_its_place() -> None:
    contents = two_segments()
    data = bytearray(contents[FIRST_LOG])
    second = len(batch(100, [0, 1]))
    data[second + 70] ^= 1
    contents[FIRST_LOG] = bytes(data)
    finding = one_damage(contents)
    assert place(finding) == (FIRST_LOG, second)
    assert "checksum" in finding.reason
    assert finding.expected is not None
    assert finding.found is not None


@pytest.mark.parametrize("tail", [b"\0" * 5, b"\0" * 4096, b"x", batch(115, [50])[:-1]])
def test_a_torn_or_zero_filled_tail_is_damage(tail: bytes) -> None:
    contents = two_segments()
    end = len(contents[LAST_LOG])
    contents[LAST_LOG] += tail
    assert place(one_damage(contents)) == (LAST_LOG, end)


def test_what_stands_behind_a_damaged_place_is_checked_too() -> None:
    first, second, third = batch(0, [0]), batch(1, [1]), batch(2, [2])
    wrong = bytearray(batch(3, [3]))
    wrong[-1] ^= 1
    contents = segment([first, second, third], 0, interval=10_000)
    name = "00000000000000000000.log"
    contents[name] = first + b"?" * 90 + second + third + bytes(wrong)
    positions = [place(found)[1] for found in damage_in(contents)]
    assert positions == [len(first), len(first + second + third) + 90]


def test_a_wrong_length_hides_no_batches_behind_it() -> None:
    first, second, third = batch(0, [0]), batch(1, [1]), batch(2, [2])
    wrong = first[:8] + (len(first + second) - 12).to_bytes(4, "big") + first[12:]
    totals = Totals()
    contents = {"00000000000000000000.log": wrong + second + third}
    (finding,) = (
        f for f in findings_of(in_memory(contents), totals=totals) if f.severity == "damage"
    )
    assert place(finding) == ("00000000000000000000.log", 0)
    assert "checksum" in finding.reason
    assert "its length is wrong" in finding.reason
    assert totals.batches == 2


def test_offsets_that_go_back_are_damage() -> None:
    first, second = batch(5, [0, 1]), batch(6, [2])
    finding = one_damage({"00000000000000000005.log": first + second})
    assert place(finding) == ("00000000000000000005.log", len(first))
    assert (finding.expected, finding.found) == ("a base offset of at least 7", "6")


def test_an_offset_below_the_segments_base_is_damage() -> None:
    finding = one_damage({"00000000000000000009.log": batch(8, [0])})
    assert "do not ascend" in finding.reason


def test_segments_that_overlap_are_damage() -> None:
    contents = {**segment([batch(0, [0, 1, 2])], 0), **segment([batch(2, [9])], 2)}
    finding = one_damage(contents)
    assert place(finding) == ("00000000000000000002.log", 0)
    assert "inside the one before" in finding.reason


def test_an_offset_that_no_index_could_name_is_damage() -> None:
    finding = one_damage({"00000000000000000000.log": batch(1 << 31, [0])})
    assert "too far" in finding.reason


def test_leader_epochs_that_go_back_are_a_note_unless_the_checkpoint_says_otherwise() -> None:
    contents = segment([batch(0, [0], leader_epoch=2), batch(1, [1], leader_epoch=1)], 0)
    (finding,) = findings_of(in_memory(contents))
    assert (finding.severity, finding.expected, finding.found) == ("note", "at least 2", "1")
    # What Kafka leaves in the checkpoint then, and what it never does.
    contents[EPOCHS] = format_leader_epochs([EpochEntry(1, 1)])
    assert damage_in(contents) == []
    contents[EPOCHS] = format_leader_epochs([EpochEntry(2, 0)])
    assert "is not the one in the checkpoint" in one_damage(contents).reason


def test_a_negative_leader_epoch_is_damage() -> None:
    contents = segment([batch(0, [0], leader_epoch=-2)], 0)
    assert "negative" in one_damage(contents).reason


def test_a_largest_timestamp_that_no_record_has_is_damage() -> None:
    body = encode_batch([Record(timestamp=NOW, value=b"v")])[61:]
    for stated in (NOW - 1, NOW + 1):
        raw = seal_batch(body, record_count=1, base_timestamp=NOW, max_timestamp=stated).at(0, 0)
        contents = {"00000000000000000000.log": raw}
        assert "largest timestamp" in one_damage(contents).reason
    # With the time of the append in its place there is nothing to compare.
    appended = seal_batch(
        body, record_count=1, base_timestamp=NOW, max_timestamp=NOW + 9, attributes=8
    )
    assert damage_in({"00000000000000000000.log": appended.at(0, 0)}) == []


def test_record_offsets_that_do_not_suit_the_batch_are_damage() -> None:
    two = encode_batch([Record(timestamp=NOW, value=b"v")] * 2)[61:]
    one = encode_batch([Record(timestamp=NOW, value=b"v")])[61:]
    twice_the_first = seal_batch(
        one + one, record_count=2, base_timestamp=NOW, max_timestamp=NOW, last_offset_delta=4
    )
    assert (
        "do not ascend" in one_damage({"00000000000000000000.log": twice_the_first.at(0, 0)}).reason
    )
    too_short = seal_batch(
        two, record_count=2, base_timestamp=NOW, max_timestamp=NOW, last_offset_delta=0
    )
    assert damage_in({"00000000000000000000.log": too_short.at(0, 0)})
    full_but_wrong = seal_batch(one + one, record_count=2, base_timestamp=NOW, max_timestamp=NOW)
    finding = one_damage({"00000000000000000000.log": full_but_wrong.at(7, 0)})
    assert "are wrong" in finding.reason
    assert finding.found == "7"


def test_records_that_do_not_fill_their_batch_are_damage() -> None:
    body = encode_batch([Record(timestamp=NOW, value=b"v")])[61:]
    raw = seal_batch(body + b"\0", record_count=1, base_timestamp=NOW, max_timestamp=NOW).at(0, 0)
    assert one_damage({"00000000000000000000.log": raw})


def test_an_unknown_codec_and_a_broken_stream_are_damage() -> None:
    for attributes in (7, Codec.GZIP):
        raw = seal_batch(
            b"no stream", record_count=1, base_timestamp=0, max_timestamp=0, attributes=attributes
        ).at(0, 0)
        assert place(one_damage({"00000000000000000000.log": raw})) == (
            "00000000000000000000.log",
            0,
        )


def test_control_records_without_form_are_damage() -> None:
    for record in (
        Record(timestamp=NOW, key=None, value=b"\0" * 6),
        Record(timestamp=NOW, key=b"\0\0\0", value=b"\0" * 6),
        Record(timestamp=NOW, key=b"\0\0\0\1", value=b"\0" * 5),
        Record(timestamp=NOW, key=b"\0\0\0\0", value=None),
    ):
        raw = encode_batch([record], control=True)
        assert one_damage({"00000000000000000000.log": raw})
    assert damage_in({"00000000000000000000.log": marker(0, 0)}) == []


# --- damage in the other files ----------------------------------------------------------------


def test_a_transaction_index_has_to_suit_its_segment() -> None:
    contents = two_segments()
    name = "00000000000000000100.txnindex"
    contents[name] = aborted_entry(AbortedTransaction(7, 90, 108, 100))
    assert damage_in(contents) == []
    contents[name] += aborted_entry(AbortedTransaction(7, 105, 109, 100))
    assert place(one_damage(contents)) == (name, 34)
    contents[name] = contents[name][:33]
    assert place(one_damage(contents)) == (name, 0)


def test_a_producer_snapshot_has_to_be_older_than_its_name() -> None:
    contents = two_segments()
    name = "00000000000000000109.snapshot"
    entry = ProducerEntry(7, 0, 3, 108, 0, NOW, 5, -1)
    contents[name] = encode_snapshot([entry])
    assert damage_in(contents) == []
    contents[name] = encode_snapshot([entry, entry._replace(last_offset=109)])
    assert place(one_damage(contents)) == (name, 56)
    contents[name] = contents[name][:-1] + b"\xee"
    assert "checksum" in one_damage(contents).reason


def test_leader_epochs_have_to_suit_the_batches() -> None:
    contents = two_segments()
    contents[EPOCHS] = format_leader_epochs([EpochEntry(3, 100)])
    assert place(one_damage(contents)) == (FIRST_LOG, 302)
    contents[EPOCHS] = format_leader_epochs(
        [EpochEntry(3, 100), EpochEntry(4, 106), EpochEntry(5, 116)]
    )
    finding = one_damage(contents)
    assert place(finding) == (EPOCHS, 0)
    assert "behind the log's end" in finding.reason
    # An epoch in which nothing was written yet, and one whose records are gone, are fine.
    contents[EPOCHS] = format_leader_epochs(
        [EpochEntry(3, 103), EpochEntry(4, 106), EpochEntry(5, 115)]
    )
    assert damage_in(contents) == []
    contents[EPOCHS] = b"0\n2\n7 50\n"
    assert place(one_damage(contents))[0] == EPOCHS


def test_a_malformed_partition_metadata_is_damage() -> None:
    contents = two_segments()
    contents[METADATA] = b"version: 0\ntopic_id: short"
    assert place(one_damage(contents)) == (METADATA, 11)


def test_a_file_that_cannot_be_read_is_damage_and_not_the_end_of_the_check() -> None:
    class Refusing(MemoryFiles):
        def open(self, path: str, *, write: bool = False, create: bool = False) -> File:
            if refuses and path.endswith(FIRST_LOG):
                raise OSError(5, "Input/output error", path)
            if refuses and path.endswith(FIRST_INDEX):
                raise FileNotFoundError(2, "No such file or directory", path)
            return super().open(path, write=write, create=create)

    refuses = False
    files = Refusing()
    files.make_directory("orders-0")
    for name, data in two_segments().items():
        write(files, f"orders-0/{name}", data)
    refuses = True
    found = findings_of(files)
    assert [(f.severity, place(f)[0]) for f in found] == [
        ("note", FIRST_INDEX),
        ("damage", FIRST_LOG),
    ]
    assert "Input/output error" in found[1].reason


# --- partitions in use ------------------------------------------------------------------------


def check_while(change: Callable[[MemoryFiles], None], tail: bytes) -> list[Finding]:
    """The findings where ``change`` happens between the first look at a bad tail and the second."""
    contents = two_segments()
    contents[LAST_LOG] += tail
    files = in_memory(contents)
    found = check(files, "orders-0", pause=lambda: change(files))
    assert found is not None
    return list(found)


def test_a_batch_that_is_being_written_is_no_damage() -> None:
    good = two_segments()[LAST_LOG]
    whole = batch(115, [50, 51], leader_epoch=4)
    path = f"orders-0/{LAST_LOG}"

    def finish(files: MemoryFiles) -> None:
        write(files, path, good + whole)

    def grow(files: MemoryFiles) -> None:
        write(files, path, good + whole[:50])

    def cut(files: MemoryFiles) -> None:
        write(files, path, good)

    for change in (finish, grow, cut):
        assert check_while(change, whole[:40]) == []
    found = check_while(lambda files: None, whole[:40])
    assert [place(f) for f in found] == [(LAST_LOG, len(good))]


def test_an_index_entry_of_a_batch_that_came_meanwhile_is_no_damage() -> None:
    good = two_segments()[LAST_LOG]
    more = batch(115, [50], leader_epoch=4)

    class Growing(MemoryFiles):
        """A writer appends a batch and its entry as soon as the log is opened."""

        def open(self, path: str, *, write: bool = False, create: bool = False) -> File:
            file = super().open(path, write=write, create=create)
            if armed and path.endswith(LAST_LOG):
                size = file.size
                file.size = lambda: sizes.pop(0) if sizes else size()  # type: ignore[method-assign]
            return file

    armed = False
    files = Growing()
    contents = two_segments()
    contents[LAST_INDEX] += offset_entry(109, OffsetEntry(115, len(good)))
    contents[LAST_LOG] += more
    files.make_directory("orders-0")
    for name, data in contents.items():
        write(files, f"orders-0/{name}", data)
    armed = True
    sizes = [len(good)]  # what the check sees first; afterwards the batch is there
    assert findings_of(files) == []
