"""Which bytes of a partition's files are what, field by field: for a dump that can be read.

The names, types and places of the fields are those that the code itself decodes by, so that an
annotation cannot say anything else than what is read.
"""

from __future__ import annotations

from collections.abc import Iterator

from logstore.segments.annotate_batch import annotate_batch
from logstore.segments.annotate_side import annotate_side_file
from logstore.segments.annotation import Annotated, Bit, Ending, Field, Part
from logstore.segments.batch import HEADER_BYTES, MAX_BATCH_BYTES, Batch, peek
from logstore.segments.files import File
from logstore.segments.header import LOG_OVERHEAD_BYTES
from logstore.segments.scan import Damage, survey

__all__ = [
    "Annotated",
    "Bit",
    "Ending",
    "Field",
    "Part",
    "annotate_batch",
    "annotate_log",
    "annotate_side_file",
    "position_of_byte",
    "position_of_offset",
]

_SHOWN_OF_REST = 64
"""So many bytes are read of what makes no sense, however much there is of it."""


def annotate_log(
    file: File, *, start: int = 0, count: int | None = None, records: bool = False
) -> Iterator[Annotated]:
    """The fields of the batches of ``file`` from position ``start`` on, which is that of one.

    ``count`` is how many batches and damaged places there are at most (None: all). With
    ``records``, those of compressed batches are decompressed and annotated, too.
    """
    if count == 0:
        return
    for number, item in enumerate(survey(file, start=start)):
        if isinstance(item, Batch):
            yield from annotate_batch(
                item.raw, position=item.position, number=number, records=records
            )
        else:
            yield from _damaged(file, item, number, records=records)
        if number + 1 == count:
            return


def _damaged(file: File, damage: Damage, number: int, *, records: bool) -> Iterator[Annotated]:
    """A damaged place: as a batch, as far as that makes sense, and what it is."""
    position = damage.position
    raw = file.read_at(min(damage.size, HEADER_BYTES), position)
    done = 0
    if raw.strip(b"\0"):
        claimed = peek(raw)[1] if len(raw) >= LOG_OVERHEAD_BYTES else 0
        if HEADER_BYTES < claimed <= MAX_BATCH_BYTES:
            raw = file.read_at(min(damage.size, claimed), position)
        done = len(raw)
        yield from annotate_batch(raw, position=position, number=number, records=records)
    if done < damage.size:
        start = position + done
        size = damage.size - done
        shown = file.read_at(min(size, _SHOWN_OF_REST), start)
        yield Part("rest", number, start, f"{size} bytes at {start}")
        yield Field(start, size, shown, "?", None, "" if shown.strip(b"\0") else "zeros")
    yield Ending(position, damage.reason)


def position_of_offset(file: File, offset: int) -> int | None:
    """Where the batch begins that holds the record of ``offset``, or would hold it if compaction
    had not taken it; None where there is none."""
    for item in survey(file):
        if isinstance(item, Batch) and item.header.last_offset >= offset:
            return item.position if item.header.base_offset <= offset else None
    return None


def position_of_byte(file: File, position: int) -> int | None:
    """Where the batch or damaged place begins that the byte at ``position`` belongs to; None
    behind the file's end."""
    for item in survey(file):
        size = item.size if isinstance(item, Damage) else item.header.size
        if item.position <= position < item.position + size:
            return item.position
    return None
