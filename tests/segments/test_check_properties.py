"""Checking: every byte flipped, every log cut at every byte, and anything at all in any file."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from logstore.segments.batch import Batch

from .partitions import (
    EPOCHS,
    FIRST_INDEX,
    FIRST_LOG,
    FIRST_TIME_INDEX,
    LAST_INDEX,
    LAST_LOG,
    LAST_TIME_INDEX,
    METADATA,
    batch,
    damage_in,
    findings_of,
    in_memory,
    one_damage,
    place,
    two_segments,
)
from .strategies import examples

UNPROTECTED = """
What no checksum covers, and what no other file contradicts:

- The offset in an entry of an offset index may be any that is not in front of its batch, as long
  as it is below the next entry's and in the log: a look-up then begins at this batch a little
  sooner or later than it could, which costs time and finds the same.
- The offset in an entry of a time index may be another one of the same batch: brokers have
  written the record's offset at times.
- The base offset of a partition's very last batch may be larger, as long as the indexes do not
  know better: a gap in front of a batch is what compaction leaves, and nothing follows it.
- In a leader-epoch-checkpoint an epoch may begin later than it did, up to its first batch, and
  earlier, down to the batch before that: between two batches nobody knows.
- In partition.metadata the digits of the version (later ones are to be read) and the topic's id
  (it is a name, compared with nothing here).
"""


def is_unprotected(name: str, position: int, before: bytes, after: bytes) -> bool:
    """Whether a byte may change unnoticed: see ``UNPROTECTED``."""
    if name in (FIRST_INDEX, LAST_INDEX):
        return position % 8 < 4
    if name in (FIRST_TIME_INDEX, LAST_TIME_INDEX):
        return position % 12 >= 8
    if name == LAST_LOG:
        last = len(before) - len(batch(112, [40, 30, 41], values=[None, b"", b"\xff\x00"]))
        return last <= position < last + 8 and after > before
    if name == EPOCHS:
        return position in (6, 7, 8, 11, 12, 13)  # the offsets of both epochs
    return name == METADATA and (position in (8, 9) or position >= 21)


@pytest.mark.parametrize("mask", [0x01, 0x08, 0x80, 0xFF])
@pytest.mark.parametrize("name", sorted(two_segments()))
def test_every_flipped_byte_is_found_or_is_unprotected(name: str, mask: int) -> None:
    contents = two_segments()
    before = contents[name]
    missed = []
    for position in range(len(before)):
        after = bytearray(before)
        after[position] ^= mask
        contents[name] = bytes(after)
        if not damage_in(contents) and not is_unprotected(name, position, before, bytes(after)):
            missed.append(position)
    assert missed == [], f"{name}: changed by {mask:#04x} unnoticed"


@pytest.mark.parametrize("name", [FIRST_LOG, LAST_LOG])
def test_every_truncation_of_a_log_is_found_unless_it_is_between_two_batches(name: str) -> None:
    contents = two_segments()
    whole = contents[name]
    borders = {0}
    while max(borders) < len(whole):
        start = max(borders)
        borders.add(start + 12 + int.from_bytes(whole[start + 8 : start + 12]))
    # Without the files that know better, a log that ends between two batches is a shorter log.
    alone = {name: whole}
    for cut in range(len(whole)):
        alone[name] = whole[:cut]
        found = damage_in(alone)
        assert bool(found) == (cut not in borders), cut
        if found:
            assert place(found[0]) == (name, max(border for border in borders if border < cut))
        # An index that goes on behind the active segment's end is what a killed writer leaves.
        contents[name] = whole[:cut]
        severities = {finding.severity for finding in findings_of(in_memory(contents))}
        assert "damage" in severities or (name == LAST_LOG and "note" in severities), cut


@examples(150)
@given(data=st.binary(max_size=300), name=st.sampled_from(sorted(two_segments())))
def test_whatever_a_file_holds_the_check_ends_with_findings(data: bytes, name: str) -> None:
    contents = two_segments()
    contents[name] = data
    for finding in findings_of(in_memory(contents)):
        assert finding.reason
        assert finding.position >= 0


def test_a_batch_can_be_parsed_where_a_finding_points() -> None:
    contents = two_segments()
    data = bytearray(contents[LAST_LOG])
    data[-1] ^= 0xFF
    contents[LAST_LOG] = bytes(data)
    finding = one_damage(contents)
    assert Batch.parse(bytes(data[finding.position :])).header.base_offset == 112
