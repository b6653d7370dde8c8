"""Scanning a segment: every batch, every damaged place, and where the scan goes on behind it."""

from __future__ import annotations

import random
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from logstore.segments.batch import Batch, encode_batch
from logstore.segments.compression import Codec
from logstore.segments.files import DiskFiles, File
from logstore.segments.memory_files import MemoryFiles
from logstore.segments.record import Record
from logstore.segments.scan import (
    SECTOR_BYTES,
    Damage,
    DamageKind,
    has_unwritten_sector,
    scan,
    survey,
)

from .partitions import batch, write
from .strategies import examples

GOLDEN = Path(__file__).resolve().parent.parent / "golden"

BATCHES = [batch(0, [0, 1]), batch(2, [2], codec=Codec.ZSTD), batch(3, [3, 4, 5])]
WHOLE = b"".join(BATCHES)
BORDERS = [0, len(BATCHES[0]), len(BATCHES[0] + BATCHES[1]), len(WHOLE)]


def log(data: bytes) -> File:
    files = MemoryFiles()
    write(files, "x.log", data)
    return files.open("x.log")


def places(data: bytes, *, resync: bool = True) -> list[tuple[str, int, int]]:
    """What a scan finds: ``batch`` or the kind of damage, position and size."""
    return [
        (item.kind.value, item.position, item.size)
        if isinstance(item, Damage)
        else ("batch", item.position, item.header.size)
        for item in scan(log(data), resync=resync)
    ]


def test_batches_come_one_behind_the_other_with_their_place() -> None:
    found = list(scan(log(WHOLE)))
    assert [item.position for item in found] == BORDERS[:-1]
    assert [item.raw for item in found if isinstance(item, Batch)] == BATCHES
    assert all(isinstance(item, Batch) and item.path == "x.log" for item in found)
    assert list(scan(log(b""))) == []


def test_a_scan_can_begin_and_end_at_any_batch() -> None:
    positions = [item.position for item in scan(log(WHOLE), start=BORDERS[1], end=BORDERS[2])]
    assert positions == [BORDERS[1]]


def test_golden_logs_are_scanned_without_a_remark() -> None:
    for path in GOLDEN.glob("*/*.log"):
        found = list(scan(DiskFiles().open(str(path))))
        assert found
        assert all(isinstance(item, Batch) and item.crc_ok for item in found), path


def test_a_wrong_checksum_is_the_callers_business() -> None:
    data = bytearray(WHOLE)
    data[BORDERS[1] + 40] ^= 1
    found = [item for item in scan(log(bytes(data))) if isinstance(item, Batch)]
    assert [item.crc_ok for item in found] == [True, False, True]


def test_every_truncation_loses_only_whole_batches_from_the_cut_on() -> None:
    for cut in range(len(WHOLE)):
        found = list(scan(log(WHOLE[:cut])))
        whole = [border for border in BORDERS[1:] if border <= cut]
        assert [item.raw for item in found if isinstance(item, Batch)] == BATCHES[: len(whole)]
        damage = [item for item in found if isinstance(item, Damage)]
        if cut in BORDERS:
            assert damage == []
            continue
        start = max(border for border in BORDERS if border <= cut)
        assert [(d.position, d.size, d.kind) for d in damage] == [
            (start, cut - start, DamageKind.TORN)
        ]


@pytest.mark.parametrize("size", [1, 16, 17, 60, 61, 5000, 3 << 20])
def test_a_zero_filled_tail_is_torn_whatever_its_size(size: int) -> None:
    *good, tail = scan(log(WHOLE + bytes(size)))
    assert len(good) == len(BATCHES)
    assert isinstance(tail, Damage)
    assert (tail.position, tail.size, tail.kind) == (len(WHOLE), size, DamageKind.TORN)
    assert tail.reason == f"zeros: expected a batch, found {size} zero bytes"


def test_zeros_with_something_behind_them_are_no_tail() -> None:
    data = BATCHES[0] + bytes(700) + BATCHES[2]
    assert places(data) == [
        ("batch", 0, len(BATCHES[0])),
        ("corrupt", len(BATCHES[0]), 700),
        ("batch", len(BATCHES[0]) + 700, len(BATCHES[2])),
    ]


def test_a_scan_goes_on_at_the_next_batch_that_proves_itself() -> None:
    fake = bytearray(BATCHES[1])
    fake[-1] ^= 1  # looks like a batch, and its checksum says that it is none
    garbage = b"\2" * 40 + bytes(fake[:-5]) + b"\2" * 40
    data = BATCHES[0] + garbage + BATCHES[1] + BATCHES[2]
    start = len(BATCHES[0])
    assert places(data) == [
        ("batch", 0, start),
        ("corrupt", start, len(garbage)),
        ("batch", start + len(garbage), len(BATCHES[1])),
        ("batch", start + len(garbage) + len(BATCHES[1]), len(BATCHES[2])),
    ]
    # Whoever does not search cannot tell garbage from a large batch that was torn.
    assert places(data, resync=False) == [
        ("batch", 0, start),
        ("torn", start, len(data) - start),
    ]


def test_a_batch_is_found_behind_damage_across_the_borders_of_large_reads() -> None:
    # The window reads a mebibyte at a time; the batch lies on every side of its border.
    rng = random.Random(11)
    noise = rng.randbytes((1 << 20) + 100).replace(b"\2", b"\3")
    for size in [(1 << 20) - back for back in (90, 61, 17, 16, 1, 0, -1, -40)]:
        found = places(noise[:size] + BATCHES[0])
        assert found == [("corrupt", 0, size), ("batch", size, len(BATCHES[0]))], size


def test_batches_larger_than_a_read_are_read_whole() -> None:
    large = encode_batch([Record(timestamp=0, value=bytes(3 << 20))], base_offset=0)
    assert places(BATCHES[0] + large + BATCHES[2])[1] == ("batch", len(BATCHES[0]), len(large))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (struct.pack(">qi", 5, -1), "wrong length"),
        (struct.pack(">qi", 5, 3), "wrong length"),
        (struct.pack(">qi", 5, 1 << 30), "wrong length"),
        (struct.pack(">qi4sb", 5, 60, b"\0\0\0\0", 3), "magic is unknown"),
        (struct.pack(">qi4sb", 5, 40, b"\0\0\0\0", 2), "header"),
        (struct.pack(">qi4sb", -5, 60, b"\0\0\0\0", 2), "negative"),
        (struct.pack(">qi4sb", 5, 20, b"\0\0\0\0", 1), "message"),
    ],
)
def test_the_reason_says_what_is_wrong_with_the_bytes(damage: bytes, words: str) -> None:
    (item,) = scan(log(damage + b"\xee" * 100))
    assert isinstance(item, Damage)
    assert item.kind is DamageKind.CORRUPT
    assert words in item.reason


def test_a_search_takes_no_claim_of_size_at_its_word() -> None:
    # Every kilobyte claims to be a batch of hundreds of megabytes; believing that would mean to
    # read and to sum them up again and again.
    claim = struct.pack(">qi4sb", 5, 90 << 20, b"\0\0\0\0", 2) + b"\xff" * 1007
    reads = []
    file = log((b"\xff" * 1024 + claim) * 40 + bytes(91 << 20) + BATCHES[0])
    read_at = file.read_at

    class Counting:
        path = file.path

        def size(self) -> int:
            return file.size()

        def read_at(self, size: int, position: int, /) -> bytes:
            reads.append(size)
            return read_at(size, position)

    found = list(scan(Counting()))  # type: ignore[arg-type]
    assert isinstance(found[-1], Batch)
    assert sum(reads) < 400 << 20


def test_old_messages_are_scanned_and_a_torn_one_is_torn() -> None:
    path = next(GOLDEN.glob("v1-none-0/*.log"))
    data = path.read_bytes()
    count = len(places(data))
    cut = places(data[:-1])
    assert len(cut) == count
    assert cut[-1][0] == "torn"


@examples(200)
@given(data=st.binary(max_size=400), before=st.integers(0, 3), after=st.integers(0, 3))
def test_a_scan_covers_every_byte_once(data: bytes, before: int, after: int) -> None:
    whole = b"".join(BATCHES[:before]) + data + b"".join(BATCHES[:after])
    position = 0
    for _, start, size in places(whole):
        assert start == position
        assert size > 0
        position += size
    assert position == len(whole)


@examples(100)
@given(data=st.binary(max_size=200))
def test_good_batches_behind_damage_are_all_found(data: bytes) -> None:
    # 0xff cannot begin a batch, nor be the beginning of one that swallows what comes behind it.
    found = [item.raw for item in scan(log(b"\xff" * 12 + data + WHOLE)) if isinstance(item, Batch)]
    assert [raw for raw in found if raw in BATCHES] == BATCHES


# --- lengths that went wrong -------------------------------------------------------------------


def surveyed(data: bytes) -> list[tuple[str, int, int]]:
    """What a survey finds, as above; batches with a wrong checksum are ``bad``."""
    return [
        (item.kind.value, item.position, item.size)
        if isinstance(item, Damage)
        else ("batch" if item.crc_ok else "bad", item.position, item.header.size)
        for item in survey(log(data))
    ]


def with_length(data: bytes, position: int, size: int) -> bytes:
    """A log whose batch at ``position`` says that it has another size."""
    return data[: position + 8] + (size - 12).to_bytes(4, "big") + data[position + 12 :]


LOG = b"".join(batch(number, [number]) for number in range(6))
SIZE = len(LOG) // 6


@pytest.mark.parametrize(
    "size",
    [
        SIZE - 1,
        SIZE + 1,
        SIZE + 40,
        2 * SIZE,
        3 * SIZE,
        2 * SIZE + 5,
        5 * SIZE,
        5 * SIZE + 1,
        1 << 30,
    ],
)
def test_a_survey_finds_the_good_batches_behind_a_wrong_length(size: int) -> None:
    good = [("batch", number * SIZE, SIZE) for number in range(6)]
    assert surveyed(with_length(LOG, SIZE, size)) == [
        good[0],
        ("corrupt", SIZE, SIZE),
        *good[2:],
    ]


def test_a_survey_finds_where_every_flipped_bit_of_a_length_ends() -> None:
    for number in range(6):
        for bit in range(32):
            size = int.from_bytes(LOG[SIZE * number + 8 : SIZE * number + 12], "big") ^ (1 << bit)
            data = with_length(LOG, SIZE * number, (size + 12) % (1 << 32))
            found = surveyed(data)
            assert [item for item in found if item[0] == "batch"] == [
                ("batch", other * SIZE, SIZE) for other in range(6) if other != number
            ], (number, bit)
            assert sum(item[2] for item in found) == len(LOG)


def test_a_survey_leaves_a_bad_batch_whose_length_is_right_its_place() -> None:
    data = bytearray(LOG)
    data[SIZE * 2 - 1] ^= 1
    assert surveyed(bytes(data))[1] == ("bad", SIZE, SIZE)
    data = bytearray(LOG)
    data[-1] ^= 1
    assert surveyed(bytes(data))[5] == ("bad", 5 * SIZE, SIZE)


def test_a_survey_walks_through_the_batches_in_a_bad_one_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    value = b"".join(batch(50 + number, [number]) for number in range(100))
    outer = bytearray(encode_batch([Record(timestamp=0, value=value)], base_offset=0))
    outer[-1] ^= 1
    parsed: list[int] = []
    parse = Batch.parse

    def counting(raw: bytes, *, position: int = 0, path: str | None = None) -> Batch:
        parsed.append(position)
        return parse(raw, position=position, path=path)

    monkeypatch.setattr(Batch, "parse", counting)
    assert surveyed(bytes(outer)) == [("bad", 0, len(outer))]
    assert len(parsed) < 300  # the search and the walk meet each of them once


def test_a_survey_tries_a_batch_to_which_offsets_went_back_as_the_first_one() -> None:
    behind = b"".join(batch(offset, [0]) for offset in (7, 5, 8))
    data = with_length(batch(0, [0]) + behind, 0, 4 * SIZE)
    assert surveyed(data) == [
        ("corrupt", 0, 2 * SIZE),
        ("batch", 2 * SIZE, SIZE),
        ("batch", 3 * SIZE, SIZE),
    ]


@pytest.mark.parametrize("behind", [b"", BATCHES[2]])
def test_a_survey_does_not_take_a_record_of_a_bad_batch_for_a_batch(behind: bytes) -> None:
    outer = bytearray(encode_batch([Record(timestamp=0, value=batch(50, [50]))], base_offset=0))
    outer[-1] ^= 1  # the count of headers, behind the batch that is the value
    found = surveyed(bytes(outer) + behind)
    assert found[0] == ("bad", 0, len(outer))
    assert len(found) == 1 + bool(behind)


@examples(200)
@given(data=st.binary(max_size=400), before=st.integers(0, 3), after=st.integers(0, 3))
def test_a_survey_covers_every_byte_once(data: bytes, before: int, after: int) -> None:
    position = 0
    whole = LOG[: SIZE * before] + data + LOG[SIZE * (6 - after) :]
    for _, start, size in surveyed(whole):
        assert start == position
        assert size > 0
        position += size
    assert position == len(whole)


# --- holes that a power cut leaves ------------------------------------------------------------


def test_a_sector_of_zeros_is_a_hole() -> None:
    full = b"x" * SECTOR_BYTES
    assert not has_unwritten_sector(full * 3, 0)
    assert has_unwritten_sector(full + bytes(SECTOR_BYTES) + full, 0)
    assert not has_unwritten_sector(b"x" * 100 + bytes(SECTOR_BYTES) + b"x" * 412, 0)


def test_sectors_are_those_of_the_file_and_not_of_the_data() -> None:
    data = b"x" * 112 + bytes(SECTOR_BYTES) + b"x" * 100
    assert has_unwritten_sector(data, SECTOR_BYTES - 112)
    assert not has_unwritten_sector(data, 0)


@pytest.mark.parametrize(("size", "is_hole"), [(15, False), (16, True)])
def test_a_part_of_a_sector_tells_only_from_sixteen_zeros_on(size: int, is_hole: bool) -> None:
    assert has_unwritten_sector(bytes(size) + b"x" * 600, SECTOR_BYTES - size) is is_hole
    assert has_unwritten_sector(b"x" * SECTOR_BYTES + bytes(size), 0) is is_hole
    assert not has_unwritten_sector(b"", 0)
