"""Parts that are written one behind the other."""

from __future__ import annotations

from pathlib import Path

import pytest

from logstore.segments.files import DiskFiles, Files
from logstore.segments.gathering import write_parts
from logstore.segments.memory_files import MemoryFiles


@pytest.mark.parametrize("count", [1, 2, 256, 257, 3_000])
@pytest.mark.parametrize("kind", [DiskFiles, MemoryFiles])
def test_parts_are_written_one_behind_the_other(
    kind: type[Files], count: int, tmp_path: Path
) -> None:
    files = kind()
    directory = str(tmp_path / "made")
    files.make_directory(directory)
    file = files.open(f"{directory}/file", write=True, create=True)
    file.write_at(b"front", 0)
    parts = [memoryview(b"<%d>" % n) if n % 2 else b"<%d>" % n for n in range(count)]
    data = b"".join(parts)
    assert write_parts(file, parts, 5) == len(data)
    assert file.read_at(1 << 20, 0) == b"front" + data
    file.close()
    with pytest.raises(OSError, match=r"closed|descriptor"):
        write_parts(file, parts, 0)
