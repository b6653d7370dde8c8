"""Reading a segment from one end to the other: batches, and the places that are not batches.

A scan never stops silently. What it cannot read becomes a :class:`Damage` with its position and
reason, and the scan goes on at the next batch that proves itself by its checksum. A *survey* checks
the checksums as well, and does not let a length that may be wrong hide the batches behind.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeGuard

from logstore.segments.batch import HEADER_BYTES, MAX_BATCH_BYTES, Batch, peek
from logstore.segments.errors import ChecksumError, FormatError
from logstore.segments.files import File

__all__ = ["Damage", "DamageKind", "has_unwritten_sector", "look_twice", "scan", "survey"]

_CHUNK_BYTES = 1 << 20
_SMALLEST_HEADER_BYTES = 17
_MAGIC_POSITION = 16
_ATTRIBUTES_POSITION = 21
_ATTRIBUTES_AND_DELTA = struct.Struct(">hi")
_COUNT = struct.Struct(">i")
_ZEROS_THAT_TELL = 16

SECTOR_BYTES = 512
"""What a disk writes as a whole: assumption 3 of ``docs/crash-safety.md``."""


class DamageKind(enum.Enum):
    """What is wrong with a place."""

    TORN = "torn"
    """A batch begins here and the file ends before it does, or only zeros follow: what a crash
    in the middle of a write leaves."""
    CORRUPT = "corrupt"
    """The bytes are no batch, though there is room for one."""


class Damage(NamedTuple):
    """A place in a log that is no whole batch."""

    position: int
    size: int
    """Bytes up to the next good batch, or to the end of the file."""
    kind: DamageKind
    reason: str
    """One sentence, with what was expected and found."""
    expected: str | None = None
    found: str | None = None

    def error(self, path: str) -> FormatError:
        """The error for whoever cannot go on."""
        return FormatError(self.reason, path=path, position=self.position)


def scan(
    file: File, *, start: int = 0, end: int | None = None, resync: bool = True
) -> Iterator[Batch | Damage]:
    """The batches of ``file`` from position ``start`` (the beginning of one) to ``end``.

    The CRC of a batch is for the caller to check (a batch with a wrong one still has its place and
    size); only the search for the next batch behind a Damage checks it. Without ``resync`` the
    first Damage reaches to the end, and is the last thing that is yielded.
    """
    if end is None:
        end = file.size()
    window = _Window(file, end)
    position = start
    while position < end:
        found = _batch_at(window, position, end)
        if isinstance(found, Batch):
            yield found
            position += found.header.size
            continue
        kind = found.kind
        stop = _next_batch(window, position + 1, end) if resync else end
        if stop < end:
            kind = DamageKind.CORRUPT
        yield found._replace(position=position, size=stop - position, kind=kind)
        position = stop


def survey(file: File, *, start: int = 0, end: int | None = None) -> Iterator[Batch | Damage]:
    """A scan for whoever has to know how far damage reaches: to check, to show, to recover.

    A batch of format 2 with a wrong checksum may have a wrong length, too. It is yielded as a batch
    if what stands where it says that it ends is a good batch or nothing, and no good batches inside
    of it lead there as well; otherwise as a Damage up to the next good batch.
    """
    if end is None:
        end = file.size()
    window = _Window(file, end)
    position = start
    while position < end:
        for item in scan(file, start=position, end=end):
            if isinstance(item, Batch) and item.header.magic >= 2:
                stop = _distrusted(window, item, end)
                if stop is not None:
                    position = stop
                    yield _wrong_checksum(item, stop)
                    break
            position = item.position + (item.size if isinstance(item, Damage) else item.header.size)
            yield item


def look_twice(file: File, pause: Callable[[], None] | None) -> Iterator[Batch | Damage]:
    """The batches of a log and the places that are none.

    What is wrong at the very end may be a batch that is being written, so it is looked at again
    after a ``pause`` (None where nobody writes): when it is whole then, or gone, or longer, a
    writer is at work, and nothing is wrong with it.
    """
    end = file.size()
    for item in survey(file, end=end):
        size = item.size if isinstance(item, Damage) else item.header.size
        at_end = item.position + size >= end
        if pause and at_end and (isinstance(item, Damage) or not item.crc_ok):
            pause()
            again = next(scan(file, start=item.position, resync=False), None)
            if again is None:
                return
            if isinstance(again, Batch) and again.crc_ok:
                yield again
                return
            if file.size() != end:
                return
        yield item


def _distrusted(window: _Window, batch: Batch, end: int) -> int | None:
    """Where the next good batch begins (or ``end``), if the length of ``batch`` is not to be
    believed; None if it is."""
    if batch.crc_ok:
        return None
    claimed = batch.position + batch.header.size
    position = _next_batch(window, batch.position + 1, end)
    if claimed != end and not _is_good(_batch_at(window, claimed, end)):
        return position
    # A batch inside may be a record's value. It would not end where the batch around it does: a
    # value is followed by the count of headers.
    elsewhere: set[int] = set()
    while position < claimed:
        if _leads_to(window, position, claimed, end, batch.header.base_offset, elsewhere):
            return position
        position = _next_batch(window, position + 1, end)
    return None


def _leads_to(
    window: _Window, position: int, target: int, end: int, offset: int, elsewhere: set[int]
) -> bool:
    """Whether good batches of offsets above ``offset`` stand one behind the other from
    ``position`` to ``target``.

    ``elsewhere`` are positions from which none do; those of the batches met on the way are added.
    A value of many batches would be walked through from each of them otherwise.
    """
    while position < target:
        if position in elsewhere:
            return False
        batch = _batch_at(window, position, end)
        if not _is_good(batch) or batch.header.base_offset <= offset:
            return False  # its position is not added: it may be a good one to begin from
        elsewhere.add(position)
        position += batch.header.size
        offset = batch.header.last_offset
    return position == target


def _is_good(found: Batch | Damage) -> TypeGuard[Batch]:
    return isinstance(found, Batch) and found.crc_ok


def _wrong_checksum(batch: Batch, stop: int) -> Damage:
    try:
        batch.check_crc()
    except ChecksumError as error:
        damage = _of(error)
        reason = f"{error.reason}, and its length is wrong"
        return damage._replace(position=batch.position, size=stop - batch.position, reason=reason)
    raise AssertionError("only asked for a batch with a wrong checksum")


def _wrong(kind: DamageKind, what: str, expected: str, found: str) -> Damage:
    """Damage of which only the place is not said."""
    return Damage(0, 0, kind, f"{what}: expected {expected}, found {found}", expected, found)


def _of(error: FormatError) -> Damage:
    expected, found = (None if v is None else str(v) for v in (error.expected, error.found))
    return Damage(0, 0, DamageKind.CORRUPT, error.reason, expected, found)


def _batch_at(window: _Window, position: int, end: int) -> Batch | Damage:
    """The batch there, or what is wrong, with the place left open."""
    torn = DamageKind.TORN
    room = end - position
    prefix = window.read(position, _SMALLEST_HEADER_BYTES)
    if len(prefix) < _SMALLEST_HEADER_BYTES:
        if not prefix.strip(b"\0"):
            return _wrong(torn, "zeros", "a batch", f"{len(prefix)} zero bytes")
        expected = f"a header of {HEADER_BYTES} bytes"
        return _wrong(torn, "torn batch", expected, f"{len(prefix)} bytes")
    _, size = peek(prefix)
    if not prefix.strip(b"\0") and window.only_zeros(position):
        return _wrong(torn, "zeros", "a batch", f"{room} zero bytes")
    if not _SMALLEST_HEADER_BYTES < size <= MAX_BATCH_BYTES:
        expected = f"at most {MAX_BATCH_BYTES} bytes"
        return _wrong(DamageKind.CORRUPT, "wrong length", expected, f"{size}")
    if size > room:
        return _wrong(torn, "torn batch", f"{size} bytes", f"{room}")
    try:
        return Batch.parse(window.read(position, size), position=position, path=window.path)
    except FormatError as error:
        return _of(error)


def _next_batch(window: _Window, position: int, end: int) -> int:
    """The position of the next batch of format 2 whose checksum is right, or ``end``."""
    while end - position >= HEADER_BYTES:
        chunk = window.read(position, _CHUNK_BYTES)
        candidate = chunk.find(2, _MAGIC_POSITION) - _MAGIC_POSITION
        while candidate >= 0:
            start = position + candidate
            if len(chunk) - candidate >= _SMALLEST_HEADER_BYTES:
                offset, size = peek(chunk, candidate)
                if (
                    offset >= 0
                    and HEADER_BYTES <= size <= min(MAX_BATCH_BYTES, end - start)
                    and _may_be_header(window.read(start, HEADER_BYTES))
                    and _is_good(_batch_at(window, start, end))
                ):
                    return start
            candidate = chunk.find(2, candidate + 1 + _MAGIC_POSITION) - _MAGIC_POSITION
        position += max(1, len(chunk) - _MAGIC_POSITION)
    return end


def _may_be_header(data: bytes) -> bool:
    """Whether a batch could begin so. It spares the search the checksums of whatever random bytes
    claim to be hundreds of megabytes: compressed data holds one such claim in two kilobytes."""
    attributes, last_offset_delta = _ATTRIBUTES_AND_DELTA.unpack_from(data, _ATTRIBUTES_POSITION)
    (count,) = _COUNT.unpack_from(data, HEADER_BYTES - _COUNT.size)
    return bool(0 <= attributes < 1 << 7 and 0 <= count <= last_offset_delta + 1)


def has_unwritten_sector(data: bytes, position: int) -> bool:
    """Whether the part that lies in one disk sector is nothing but zeros, for any sector that
    ``data`` (at ``position`` of its file) touches with 16 bytes or more.

    A power cut leaves such holes where a file had grown and some of its sectors were not written;
    a bit that flipped does not. So this tells a torn write from damage, in the part of a log that
    was not known to be on disk. (A header may hold 15 zeros in a row, and not 16.)
    """
    start = 0
    while start < len(data):
        stop = min(start + SECTOR_BYTES - (position + start) % SECTOR_BYTES, len(data))
        if stop - start >= _ZEROS_THAT_TELL and not data[start:stop].strip(b"\0"):
            return True
        start = stop
    return False


class _Window:
    """Small reads of a file out of large ones."""

    def __init__(self, file: File, end: int) -> None:
        self.path = file.path
        self._file = file
        self._end = end
        self._chunk = b""
        self._start = 0

    def read(self, position: int, size: int) -> bytes:
        """Up to ``size`` bytes from ``position``; fewer at the end."""
        size = min(size, self._end - position)
        offset = position - self._start
        if not 0 <= offset <= len(self._chunk) - size:
            wanted = min(max(size, _CHUNK_BYTES), self._end - position)
            self._chunk = self._file.read_at(wanted, position)
            self._start = position
            offset = 0
        return self._chunk[offset : offset + size]

    def only_zeros(self, position: int) -> bool:
        """Whether there is nothing but zeros from ``position`` on."""
        while position < self._end:
            chunk = self.read(position, _CHUNK_BYTES)
            if not chunk or chunk.strip(b"\0"):
                return not chunk
            position += len(chunk)
        return True
