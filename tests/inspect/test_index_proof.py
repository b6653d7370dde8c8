"""Entries of indexes, proved by the log; and look-ups, step by step."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from logstore.inspect.index_lookup import look_up_offset, look_up_time
from logstore.inspect.index_proof import INDEXES, Proof, prove
from logstore.segments.batch import Batch, encode_batch
from logstore.segments.control import ControlType, end_transaction_marker
from logstore.segments.files import DiskFiles, Files
from logstore.segments.layout import identify, partition_files
from logstore.segments.record import Record
from logstore.segments.scan import scan
from logstore.segments.transaction_index import AbortedTransaction, encode_entry
from tests.segments.partitions import (
    FIRST_INDEX,
    FIRST_LOG,
    FIRST_TIME_INDEX,
    LAST_INDEX,
    LAST_TIME_INDEX,
    NOW,
    findings_of,
    in_memory,
    two_segments,
    write,
)

GOLDEN = Path(__file__).resolve().parent.parent / "golden"
FIRST_TRANSACTIONS = FIRST_LOG.replace(".log", ".txnindex")


def proofs_of(files: Files, path: str) -> list[Proof]:
    file = identify(path)
    assert file is not None
    return list(prove(files, file))


def verdicts(contents: dict[str, bytes], name: str) -> list[str]:
    return [proof.verdict for proof in proofs_of(in_memory(contents), f"orders-0/{name}")]


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*/*index")), ids=lambda p: f"{p.parent.name}")
def test_every_entry_of_kafkas_indexes_is_right(path: Path) -> None:
    assert {proof.verdict for proof in proofs_of(DiskFiles(), str(path))} <= {"right"}


@pytest.mark.parametrize("name", [FIRST_INDEX, FIRST_TIME_INDEX, LAST_INDEX, LAST_TIME_INDEX])
def test_every_entry_of_ours_is_right(name: str) -> None:
    contents = two_segments()
    found = verdicts(contents, name)
    assert found
    assert set(found) == {"right"}


@given(
    name=st.sampled_from([FIRST_INDEX, FIRST_TIME_INDEX, LAST_INDEX, LAST_TIME_INDEX]),
    place=st.integers(0, 1000),
    bit=st.integers(0, 7),
)
@settings(max_examples=150, deadline=None)
def test_an_entry_is_wrong_where_check_finds_damage_and_nowhere_else(
    name: str, place: int, bit: int
) -> None:
    contents = two_segments()
    data = bytearray(contents[name])
    data[place % len(data)] ^= 1 << bit
    contents[name] = bytes(data)
    damaged = any(
        finding.severity == "damage" and finding.path.endswith(name)
        for finding in findings_of(in_memory(contents))
    )
    assert ("wrong" in verdicts(contents, name)) == damaged


def test_without_its_log_an_index_proves_nothing() -> None:
    contents = two_segments()
    del contents[FIRST_LOG]
    for name in (FIRST_INDEX, FIRST_TIME_INDEX):
        assert set(verdicts(contents, name)) == {"unproven"}


def test_damage_in_the_log_makes_no_entry_wrong() -> None:
    contents = two_segments()
    data = bytearray(contents[FIRST_LOG])
    (position,) = struct.unpack(">I", contents[FIRST_INDEX][-4:])
    data[position + 70] ^= 1
    contents[FIRST_LOG] = bytes(data)
    for name in (FIRST_INDEX, FIRST_TIME_INDEX):
        assert "wrong" not in verdicts(contents, name)
        assert "unproven" in verdicts(contents, name)


def test_the_zeros_of_an_index_that_was_made_in_advance_are_no_entries() -> None:
    contents = two_segments()
    before = verdicts(contents, FIRST_INDEX)
    contents[FIRST_INDEX] += bytes(8000)
    assert verdicts(contents, FIRST_INDEX) == before


def test_what_does_not_ascend_is_wrong_and_nothing_behind_it_is_proved() -> None:
    contents = two_segments()
    entries = [contents[FIRST_INDEX][start : start + 8] for start in (0, 8)]
    contents[FIRST_INDEX] = entries[1] + entries[0] + entries[0]
    assert verdicts(contents, FIRST_INDEX) == ["right", "wrong", "unproven"]


# Aborted transactions -----------------------------------------------------------------------


def transaction(producer: int, base_offset: int, *, transactional: bool = True) -> bytes:
    return encode_batch(
        [Record(timestamp=NOW, value=b"v")] * 2,
        base_offset=base_offset,
        producer_id=producer,
        producer_epoch=0,
        base_sequence=0,
        transactional=transactional,
    )


def end(producer: int, offset: int, kind: ControlType) -> bytes:
    return encode_batch(
        [end_transaction_marker(kind, timestamp=NOW, coordinator_epoch=1)],
        base_offset=offset,
        producer_id=producer,
        producer_epoch=0,
        transactional=True,
        control=True,
    )


def aborted(*entries: AbortedTransaction) -> dict[str, bytes]:
    """Producers 1 and 2 at work: 1 aborts, 2 commits and aborts."""
    log = [
        transaction(1, 100),
        transaction(2, 102),
        end(1, 104, ControlType.ABORT),
        end(2, 105, ControlType.COMMIT),
        transaction(3, 106, transactional=False),
        transaction(2, 108),
        end(2, 110, ControlType.ABORT),
    ]
    return {
        FIRST_LOG: b"".join(log),
        FIRST_TRANSACTIONS: b"".join(encode_entry(entry) for entry in entries),
    }


ONE = AbortedTransaction(1, 100, 104, 102)
TWO = AbortedTransaction(2, 108, 110, 111)


def test_aborted_transactions_are_proved_by_their_markers() -> None:
    assert verdicts(aborted(ONE, TWO), FIRST_TRANSACTIONS) == ["right", "right"]
    lower = TWO._replace(last_stable_offset=109)
    assert verdicts(aborted(ONE, lower), FIRST_TRANSACTIONS) == ["right", "right"]


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        (ONE._replace(producer_id=2), "is one of producer 1"),
        (ONE._replace(first_offset=101), "began at offset 100"),
        (ONE._replace(last_offset=105), "commits"),
        (ONE._replace(last_offset=103), "no marker"),
        (ONE._replace(last_stable_offset=105), "stable up to 102 only"),
        (TWO._replace(first_offset=106), "was written by producer 3, outside"),
        (TWO._replace(first_offset=100), "was written by producer 1"),
    ],
)
def test_an_entry_that_would_lead_readers_astray_is_wrong(
    entry: AbortedTransaction, reason: str
) -> None:
    entries = [entry, TWO] if entry.last_offset < 110 else [ONE, entry]
    proofs = proofs_of(in_memory(aborted(*entries)), f"orders-0/{FIRST_TRANSACTIONS}")
    wrong = [proof for proof in proofs if proof.verdict == "wrong" and proof.number is not None]
    assert len(wrong) == 1
    assert reason in wrong[0].evidence


def test_an_aborted_transaction_without_an_entry_is_told() -> None:
    proofs = proofs_of(in_memory(aborted(ONE)), f"orders-0/{FIRST_TRANSACTIONS}")
    assert [(proof.number, proof.verdict) for proof in proofs] == [(0, "right"), (None, "wrong")]


def test_a_transaction_that_began_in_an_older_segment_is_followed_from_there() -> None:
    contents = aborted(ONE)
    second = FIRST_TRANSACTIONS.replace("100", "108")
    contents[FIRST_LOG] = contents[FIRST_LOG][: -len(end(2, 110, ControlType.ABORT))]
    contents[second.replace(".txnindex", ".log")] = end(2, 110, ControlType.ABORT)
    contents[second] = encode_entry(TWO)
    assert verdicts(contents, second) == ["right"]


# Look-ups -----------------------------------------------------------------------------------


def test_a_look_up_ends_at_the_record() -> None:
    files = in_memory(two_segments())
    records = {}
    for file in partition_files(files, "orders-0"):
        if file.path.endswith(".log"):
            for item in scan(files.open(file.path)):
                assert isinstance(item, Batch)
                records.update({record.offset: record for record in item.records()})
    for offset, record in records.items():
        last = list(look_up_offset(files, "orders-0", offset))[-1]
        assert last.kind == "record"
        assert last.fields == {"offset": offset, "timestamp": record.timestamp}
    control = 108
    for timestamp in {record.timestamp for record in records.values()}:
        wanted = (
            next(
                record.offset
                for record in records.values()
                if record.timestamp >= timestamp and record.offset != control
            )
            if timestamp <= NOW + 41
            else None
        )
        last = list(look_up_time(files, "orders-0", timestamp))[-1]
        assert last.fields["offset"] == wanted


def test_a_look_up_shows_the_entries_that_the_search_went_by() -> None:
    files = in_memory(two_segments())
    steps = list(look_up_offset(files, "orders-0", 107))
    assert next(step.kind for step in steps) == "segment"
    assert "probe" in [step.kind for step in steps]
    (entry,) = [step for step in steps if step.kind == "entry"]
    data = two_segments()[FIRST_INDEX]
    relative = struct.unpack_from(">I", data, 8 * entry.fields["entry"])[0]
    assert 100 + relative <= 107


def test_a_look_up_passes_over_a_wrong_entry_and_says_so() -> None:
    contents = two_segments()
    data = bytearray(contents[FIRST_INDEX])
    data[7] ^= 1  # the position of the first entry
    contents[FIRST_INDEX] = bytes(data[:8])
    files = in_memory(contents)
    steps = list(look_up_offset(files, "orders-0", 107))
    assert "wrong" in [step.kind for step in steps]
    assert (steps[-1].kind, steps[-1].fields["offset"]) == ("record", 107)


def test_a_look_up_does_without_indexes() -> None:
    contents = two_segments()
    for kind in INDEXES:
        contents = {name: data for name, data in contents.items() if not name.endswith(kind.value)}
    files = in_memory(contents)
    assert list(look_up_offset(files, "orders-0", 111))[-1].kind == "record"
    assert list(look_up_time(files, "orders-0", NOW + 21))[-1].fields["offset"] == 111


def test_what_is_not_there_is_missing() -> None:
    files = in_memory(two_segments())
    assert list(look_up_offset(files, "orders-0", 99))[-1].kind == "missing"
    assert list(look_up_offset(files, "orders-0", 115))[-1].kind == "missing"
    assert list(look_up_time(files, "orders-0", NOW + 42))[-1].kind == "missing"
    write(files, "orders-0/leader-epoch-checkpoint", b"")
