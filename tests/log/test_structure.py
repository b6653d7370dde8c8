"""The files of a partition: what changes to them have in common."""

from __future__ import annotations

import random

import pytest

from logstore.segments.errors import TruncatedError
from logstore.segments.files import File
from logstore.segments.memory_files import MemoryFiles
from logstore.structure import copy_bytes, rewrite_log

DATA = random.Random(1).randbytes((2 << 20) + 100)


def made(files: MemoryFiles) -> File:
    """A file of more than one part to copy."""
    files.make_directory("a-0")
    file = files.open("a-0/00000000000000000000.log", write=True, create=True)
    file.write_at(DATA, 0)
    return file


@pytest.mark.parametrize("size", [0, 100, 1 << 20, len(DATA)])
@pytest.mark.parametrize("rest", [b"", b"rest"])
def test_a_rewritten_log_is_the_beginning_of_the_old_one_and_the_rest(
    size: int, rest: bytes
) -> None:
    files = MemoryFiles()
    log = made(files)
    rewrite_log(files, log, size, rest)
    assert files.names("a-0") == ["00000000000000000000.log"]
    assert files.open(log.path).read_at(len(DATA) + 4, 0) == DATA[:size] + rest
    assert log.read_at(len(DATA), 0) == DATA  # whoever has the old one open goes on with it


def test_a_file_that_has_become_shorter_is_not_copied_in_part() -> None:
    files = MemoryFiles()
    log = made(files)
    with pytest.raises(TruncatedError, match=f"expected {len(DATA) + 1}, found {len(DATA)}"):
        copy_bytes(log, files.open("copy", write=True, create=True), len(DATA) + 1)
    with pytest.raises(TruncatedError):
        rewrite_log(files, log, len(DATA) + 1)
    assert files.open(log.path).read_at(len(DATA), 0) == DATA
