"""What a file is, from its name alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from logstore.segments import filenames

from .strategies import INT64_MAX, examples

SUFFIXES = [".log", ".index", ".timeindex", ".txnindex", ".snapshot"]


@examples(100)
@given(st.integers(0, INT64_MAX), st.sampled_from(SUFFIXES))
def test_a_segments_file_name_is_read_back(base_offset: int, suffix: str) -> None:
    name = filenames.segment_file(base_offset, suffix)
    assert len(name) == 20 + len(suffix)
    assert filenames.parse_segment_file(name) == (base_offset, suffix)


@examples(100)
@given(st.text(min_size=1, max_size=20), st.integers(0, 10_000))
def test_a_partitions_directory_name_is_read_back(topic: str, partition: int) -> None:
    name = filenames.partition_directory(topic, partition)
    assert filenames.parse_partition_directory(name) == (topic, partition)


def test_names_of_segments_sort_in_the_order_of_their_offsets() -> None:
    offsets = [0, 9, 10, 99, 1 << 32, INT64_MAX]
    names = [filenames.segment_file(offset, ".log") for offset in offsets]
    assert names == sorted(names)
    assert names[0] == "00000000000000000000.log"


@pytest.mark.parametrize(
    "name",
    [
        "",
        "0.log",
        "0000000000000000000.log",  # 19 digits
        "000000000000000000000.log",  # 21 digits
        "00000000000000000000",
        "00000000000000000000.txt",
        "00000000000000000000.LOG",
        "00000000000000000000.log.deleted",
        "00000000000000000000.log.cleaned",
        "00000000000000000000.index.swap",
        "-0000000000000000001.log",
        "+0000000000000000001.log",
        "x00000000000000000000.log",
        "00000000000000000000.log\n",
        "٠٠٠٠٠٠٠٠٠٠٠٠٠٠٠٠٠٠٠٠.log",  # digits, but not those of Kafka  # noqa: RUF001
        "99999999999999999999.log",  # more than 64 bits
        "leader-epoch-checkpoint",
        "partition.metadata",
        "lock",
        "state",
    ],
)
def test_any_other_name_is_not_a_segments_file(name: str) -> None:
    assert filenames.parse_segment_file(name) is None


@pytest.mark.parametrize(
    "name",
    ["", "orders", "orders-", "-0", "orders-x", "orders--1x", "orders-0.deleted", "orders-٣"],
)
def test_any_other_name_is_not_a_partitions_directory(name: str) -> None:
    assert filenames.parse_partition_directory(name) is None


def test_a_topic_may_itself_hold_dashes_and_numbers() -> None:
    assert filenames.parse_partition_directory("a-1-22") == ("a-1", 22)
    assert filenames.parse_partition_directory("a--1") == ("a-", 1)
    assert filenames.parse_partition_directory("__consumer_offsets-49") == (
        "__consumer_offsets",
        49,
    )


def test_a_partition_that_is_removed_has_a_name_of_its_own_that_fits() -> None:
    unique = "0123456789abcdef" * 2
    name = filenames.deleted_directory("orders", 7, unique)
    assert name == f"orders-7.{unique}-delete"
    longest = filenames.deleted_directory("x" * 249, 9999, unique)
    assert len(longest) == 255
    for found in (name, longest):
        assert filenames.is_deleted_directory(found)
        assert filenames.parse_partition_directory(found) is None
    for other in ("orders-7", f"orders.{unique}-delete", f"orders-7.{unique}-delete-0", "x-delete"):
        assert not filenames.is_deleted_directory(other)
