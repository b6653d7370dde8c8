"""Writing bytes that lie in several places one behind the other."""

from __future__ import annotations

from collections.abc import Sequence

from logstore.segments.files import File

__all__ = ["Parts", "write_parts"]

Parts = Sequence[bytes | memoryview]
"""Bytes one behind the other."""

_MOST_PARTS = 256
"""The most parts that the system is given at once: it takes 1,024, and of small ones it is quicker
to put them together first."""


def write_parts(file: File, parts: Parts, position: int) -> int:
    """Write parts one behind the other, and return how many bytes were written, as
    ``File.write_at`` does. A file that can gather them itself is spared a copy of them."""
    gather = getattr(file, "gather_at", None)
    if gather is None or len(parts) > _MOST_PARTS:
        return file.write_at(b"".join(parts), position)
    written: int = gather(parts, position)
    return written
