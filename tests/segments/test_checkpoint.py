"""The text files of a partition: Kafka's own byte for byte, and lines that are wrong."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from logstore.segments.checkpoint import (
    EpochEntry,
    PartitionMetadata,
    format_leader_epochs,
    format_partition_metadata,
    parse_leader_epochs,
    parse_partition_metadata,
)
from logstore.segments.errors import (
    FormatError,
    InvalidInputError,
    TruncatedError,
    UnsupportedFormatError,
)

from .strategies import INT64_MAX, examples

GOLDEN = Path(__file__).resolve().parent.parent / "golden" / "partition-0"
INT32_MAX = (1 << 31) - 1
EPOCHS = b"0\n2\n7 50\n8 59\n"
METADATA = b"version: 0\ntopic_id: ASNFZ4mrze8P7cuph2VDIQ"
TOPIC_ID = uuid.UUID("01234567-89ab-cdef-0fed-cba987654321")


@st.composite
def epoch_lists(draw: st.DrawFn) -> list[EpochEntry]:
    epochs = sorted(draw(st.sets(st.integers(0, INT32_MAX), max_size=8)))
    offsets = draw(
        st.lists(st.integers(0, INT64_MAX), min_size=len(epochs), max_size=len(epochs)).map(sorted)
    )
    return [EpochEntry(*pair) for pair in zip(epochs, offsets, strict=True)]


# leader-epoch-checkpoint --------------------------------------------------------------------


def test_kafkas_own_checkpoint_is_read_and_written_byte_for_byte() -> None:
    data = (GOLDEN / "leader-epoch-checkpoint").read_bytes()
    assert data == EPOCHS
    assert parse_leader_epochs(data) == [EpochEntry(7, 50), EpochEntry(8, 59)]
    assert format_leader_epochs(parse_leader_epochs(data)) == data


@examples(80)
@given(epoch_lists())
def test_epochs_are_read_back(entries: list[EpochEntry]) -> None:
    assert parse_leader_epochs(format_leader_epochs(entries)) == entries


def test_a_checkpoint_without_epochs_is_empty_or_counts_to_zero() -> None:
    assert parse_leader_epochs(b"") == []
    assert parse_leader_epochs(b"0\n0\n") == []
    assert format_leader_epochs([]) == b"0\n0\n"


def test_two_epochs_may_begin_at_one_offset() -> None:
    assert parse_leader_epochs(b"0\n2\n1 5\n2 5\n") == [EpochEntry(1, 5), EpochEntry(2, 5)]


def test_a_checkpoint_that_was_written_on_windows_is_read() -> None:
    assert parse_leader_epochs(EPOCHS.replace(b"\n", b"\r\n")) == parse_leader_epochs(EPOCHS)


@pytest.mark.parametrize(
    ("data", "position", "problem"),
    [
        (b"zero\n0\n", 0, "line 1 is malformed: expected a number, found 'zero'"),
        (b"0\n-1\n", 2, "line 2 is malformed: expected a number, found '-1'"),
        (b"0\n1_0\n", 2, "line 2 is malformed: expected a number, found '1_0'"),
        (b"0\n" + b"9" * 5000 + b"\n", 2, "line 2 is malformed: expected a number, found '999"),
        (b"0\n1\n7\n", 4, "line 3 is malformed: expected an epoch and an offset, found '7'"),
        (b"0\n1\n7 5 9\n", 4, "line 3 is malformed"),
        (b"0\n2\n7 5\n\n", 8, "line 4 is malformed: expected an epoch and an offset, found ''"),
        (b"0\n2\n7 5\n8 -6\n", 8, "line 4 is malformed"),
        (b"0\n1\n7 \xd9\xa3\n", 4, "line 3 is malformed"),
        (b"0\n2\n7 5\n7 6\n", 8, "line 4: epoch 7 follows epoch 7"),
        (b"0\n2\n7 5\n6 6\n", 8, "line 4: epoch 6 follows epoch 7"),
        (b"0\n2\n7 5\n8 4\n", 8, "line 4: offset 4 follows offset 5"),
        (b"0\n1\n2147483648 5\n", 4, "line 3: epoch 2147483648 or offset 5 is out of bounds"),
        (b"0\n1\n1 9223372036854775808\n", 4, "is out of bounds"),
        (b"0\n1\n7 5\n8 6\n", 2, "the count in line 2 is not that of the lines behind it"),
        (b"0\n3\n7 5\n8 6\n", 2, "the count in line 2 is not that of the lines behind it"),
    ],
)
def test_a_malformed_checkpoint_is_refused_with_its_line(
    data: bytes, position: int, problem: str
) -> None:
    with pytest.raises(FormatError) as caught:
        parse_leader_epochs(data)
    assert problem in caught.value.reason
    assert caught.value.position == position


def test_another_version_of_the_checkpoint_is_refused() -> None:
    with pytest.raises(UnsupportedFormatError, match="version in line 1 is unknown"):
        parse_leader_epochs(b"1\n0\n")


def test_a_checkpoint_cut_at_any_byte_is_truncated() -> None:
    for size in range(1, len(EPOCHS)):
        with pytest.raises(TruncatedError):
            parse_leader_epochs(EPOCHS[:size])
    with pytest.raises(TruncatedError, match="inside line 4"):
        parse_leader_epochs(b"0\n1\n7 50\n8 5")


def test_a_huge_count_allocates_nothing() -> None:
    with pytest.raises(TruncatedError, match="expected 0, found 9999999999999999999"):
        parse_leader_epochs(b"0\n9999999999999999999\n")


@pytest.mark.parametrize(
    "entries",
    [
        [EpochEntry(1, 5), EpochEntry(1, 6)],
        [EpochEntry(1, 5), EpochEntry(2, 4)],
        [EpochEntry(-1, 5)],
        [EpochEntry(1, -5)],
        [EpochEntry(1 << 31, 5)],
        [EpochEntry(1, 1 << 63)],
    ],
)
def test_epochs_that_could_not_be_read_back_are_not_written(entries: list[EpochEntry]) -> None:
    with pytest.raises(InvalidInputError, match="leader epochs cannot be stored"):
        format_leader_epochs(entries)


# partition.metadata -------------------------------------------------------------------------


def test_kafkas_own_metadata_is_read_and_written_byte_for_byte() -> None:
    data = (GOLDEN / "partition.metadata").read_bytes()
    assert data == METADATA
    assert parse_partition_metadata(data) == PartitionMetadata(0, TOPIC_ID)
    assert format_partition_metadata(PartitionMetadata(0, TOPIC_ID)) == data


@examples(80)
@given(st.uuids(), st.integers(0, 9))
def test_metadata_is_read_back(topic_id: uuid.UUID, version: int) -> None:
    metadata = PartitionMetadata(version, topic_id)
    assert parse_partition_metadata(format_partition_metadata(metadata)) == metadata


@pytest.mark.parametrize(
    "data",
    [METADATA + b"\n", METADATA.replace(b"\n", b"\r\n"), METADATA.replace(b": ", b":   ")],
    ids=["newline", "windows", "spaces"],
)
def test_metadata_in_other_white_space_is_read(data: bytes) -> None:
    assert parse_partition_metadata(data) == PartitionMetadata(0, TOPIC_ID)


def test_metadata_of_a_later_version_with_further_lines_is_read() -> None:
    data = METADATA.replace(b"0", b"1", 1) + b"\ncolour: blue\n"
    assert parse_partition_metadata(data) == PartitionMetadata(1, TOPIC_ID)


@pytest.mark.parametrize(
    ("data", "position", "problem"),
    [
        (b"0\n\n", 0, "line 1 is malformed: expected version: and a value, found '0'"),
        (b"version: x\ntopic_id: x", 0, "line 1 is malformed"),
        (b"version: -1\ntopic_id: ASNFZ4mrze8P7cuph2VDIQ", 0, "line 1 is malformed"),
        (b"version: 0\ntopic: ASNFZ4mrze8P7cuph2VDIQ", 11, "line 2 is malformed"),
        (b"version: 0\ntopic_id: ASNFZ4mrze8P7cuph2VDI", 11, "line 2 is malformed"),
        (b"version: 0\ntopic_id: ASNFZ4mrze8P7cuph2VDI+", 11, "line 2 is malformed"),
        (b"version: 0\ntopic_id: ASNFZ4mrze8P7cuph2VDIQ==", 11, "line 2 is malformed"),
        (b"version: 0\ntopic_id: AAAAAAAAAAAAAAAAAAAAAA", 11, "an id that is not all zeros"),
        (METADATA + b"\nmore", 44, "line 3 is malformed: expected nothing more, found 'more'"),
        (b"\xff\xfe\n\xff", 0, "line 1 is malformed"),
    ],
)
def test_malformed_metadata_is_refused_with_its_line(
    data: bytes, position: int, problem: str
) -> None:
    with pytest.raises(FormatError) as caught:
        parse_partition_metadata(data)
    assert problem in caught.value.reason
    assert caught.value.position == position


def test_metadata_cut_at_any_byte_is_refused() -> None:
    for size in range(len(METADATA)):
        with pytest.raises(FormatError):
            parse_partition_metadata(METADATA[:size])


def test_an_id_of_zeros_or_a_negative_version_is_not_written() -> None:
    for metadata in (PartitionMetadata(0, uuid.UUID(int=0)), PartitionMetadata(-1, TOPIC_ID)):
        with pytest.raises(InvalidInputError, match="cannot be stored"):
            format_partition_metadata(metadata)


@examples(150)
@given(st.one_of(st.binary(max_size=60), st.text("0123456789 \n", max_size=40).map(str.encode)))
def test_any_bytes_raise_nothing_but_format_errors(data: bytes) -> None:
    for parse in (parse_leader_epochs, parse_partition_metadata):
        try:
            parse(data)
        except FormatError:
            continue
