"""What lies at a path, from names alone."""

from __future__ import annotations

import pytest

from logstore.segments.layout import (
    FileKind,
    identify,
    partition_directories,
    partition_files,
)
from logstore.segments.memory_files import MemoryFiles

from .partitions import in_memory, two_segments, write

ZERO = "00000000000000000000"


@pytest.mark.parametrize(
    ("name", "kind", "base_offset"),
    [
        (ZERO + ".log", FileKind.LOG, 0),
        ("00000000005000000000.index", FileKind.OFFSET_INDEX, 5_000_000_000),
        (ZERO + ".timeindex", FileKind.TIME_INDEX, 0),
        (ZERO + ".txnindex", FileKind.TRANSACTION_INDEX, 0),
        ("00000000000000000066.snapshot", FileKind.PRODUCER_SNAPSHOT, 66),
        ("leader-epoch-checkpoint", FileKind.LEADER_EPOCHS, None),
        ("partition.metadata", FileKind.PARTITION_METADATA, None),
        (ZERO + ".log.deleted", FileKind.LOG, 0),
        (ZERO + ".index.swap", FileKind.OFFSET_INDEX, 0),
        ("copy-of-a.log", FileKind.LOG, None),
    ],
)
def test_a_name_says_what_a_file_is(name: str, kind: FileKind, base_offset: int | None) -> None:
    path = "some/where/" + name
    assert identify(path) == (path, kind, base_offset)


@pytest.mark.parametrize("name", ["lock", "state", "copy.index", "README.md", "1.snapshot", "log"])
def test_other_names_say_nothing(name: str) -> None:
    assert identify(name) is None


def test_the_files_of_a_partition_come_segment_by_segment() -> None:
    contents = two_segments()
    contents.update({"lock": b"", "x.tmp": b"", ZERO + ".log.deleted": b"", "mine.log": b""})
    names = [
        file.path.removeprefix("orders-0/")
        for file in partition_files(in_memory(contents), "orders-0")
    ]
    assert names == [
        "00000000000000000100.log",
        "00000000000000000100.index",
        "00000000000000000100.timeindex",
        "00000000000000000109.log",
        "00000000000000000109.index",
        "00000000000000000109.timeindex",
        "leader-epoch-checkpoint",
        "partition.metadata",
    ]


def test_partitions_are_found_in_a_store_in_a_folder_and_alone() -> None:
    files = MemoryFiles()
    for name in ("b-10", "b-9", "a-b-1", "odd"):
        files.make_directory(f"data/topics/{name}")
        write(files, f"data/topics/{name}/{ZERO}.log", b"")
    files.make_directory("data/topics/empty-0")
    removed = f"data/topics/gone-0.{'0' * 32}-delete"
    files.make_directory(removed)
    write(files, f"{removed}/{ZERO}.log", b"")
    write(files, "data/topics/lock", b"")
    expected = [f"data/topics/{name}" for name in ("a-b-1", "b-9", "b-10", "odd")]
    assert partition_directories(files, "data") == expected
    assert partition_directories(files, "data/topics") == expected
    assert partition_directories(files, "data/topics/b-9") == ["data/topics/b-9"]
    assert partition_directories(files, "data/topics/empty-0") is None


def test_a_store_may_have_no_partitions() -> None:
    files = MemoryFiles()
    files.make_directory("data")
    assert partition_directories(files, "data") is None
    write(files, "data/store.json", b"{}")
    assert partition_directories(files, "data") == []
