"""A source that is a file, or a stream, of ``logstore read --json``: a record on each line.

The order is the file's own. A position is a line and the byte at which it begins, so a file is gone
on with where it was left; of a stream, which is given anew each time, as many lines are passed
over.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO

from logstore.errors import InvalidInputError, LimitError
from logstore.fetcher import ConsumerRecord
from logstore.json_records import parse_record_line
from logstore.replay.source import Chunk, Position, Range
from logstore.segments.batch import MAX_BATCH_BYTES
from logstore.segments.files import Files

__all__ = ["FileSource", "open_file", "open_stream"]

_BLOCK_BYTES = 256 << 10
_LINE, _BYTE = "line", "byte"
_TOPIC = "records"
"""The topic of records that do not say theirs."""

Read = Callable[[int], bytes]
"""Gives up to so many bytes more; none at the end."""

_Line = tuple[int, int, bytes]
"""How many lines and bytes there are up to a line's end, and the line."""


class FileSource:
    """Lines of JSON as records."""

    def __init__(
        self,
        name: str,
        read_from: Callable[[int], Read],
        wanted: Range,
        *,
        size: int = 0,
        seeks: bool = True,
        close: Callable[[], object] = lambda: None,
    ) -> None:
        """``read_from`` begins to read at a byte, or for what cannot (``seeks``) where it is.
        ``size``: bytes; 0 where nobody knows.

        With ``last`` everything is read once to count. Raises InvalidInputError.
        """
        self.name = name
        self.identity: Mapping[str, Any] = {"file": name}
        self.partitions = 1
        self.start: Position = {_LINE: 0, _BYTE: 0}
        self._read_from = read_from
        self._within = wanted.checked()._replace(last=None)
        self._size = size
        self._seeks = seeks
        self._close = close
        self._first_lines: Mapping[tuple[str, int], int] = {}
        """With ``last``: the line at which each partition's last so many records begin."""
        if wanted.last is not None:
            self._first_lines = self._count_back(wanted.last)

    def chunks(self, position: Position) -> Iterator[Chunk]:
        """The records from a position on; see :class:`logstore.replay.source.Source`.

        Raises InvalidInputError, with the line's number, where a line is no record.
        """
        problem: Exception | None = None
        blocks = self._blocks(position)
        first_lines = self._first_lines
        while problem is None:
            records: list[ConsumerRecord] = []
            places: list[tuple[int, int]] = []
            try:
                block = next(blocks, None)
                if block is None:
                    return
                for line, byte, record in self._records(block):
                    if not first_lines or line >= first_lines.get(record[:2], 0):
                        records.append(record)
                        places.append((line, byte))
            except (InvalidInputError, LimitError) as error:
                problem = error
            if records:
                yield Chunk(records, _ends(places))
        raise problem

    def _records(self, block: Sequence[_Line]) -> Iterator[tuple[int, int, ConsumerRecord]]:
        offset, end_offset, since, until, _ = self._within
        for line, byte, text in block:
            try:
                record = parse_record_line(text, topic=_TOPIC, number=line - 1)
            except InvalidInputError as error:
                raise InvalidInputError(f"{self.name}: line {line}: {error}") from None
            if record is not None and not (
                (offset is not None and record.offset < offset)
                or (end_offset is not None and record.offset >= end_offset)
                or (since is not None and record.timestamp < since)
                or (until is not None and record.timestamp >= until)
            ):
                yield line, byte, record

    def _blocks(self, position: Position) -> Iterator[list[_Line]]:
        """The lines from a position on, as many at a time as were read at once."""
        skip = position.get(_LINE, 0)
        line, byte = (skip, position.get(_BYTE, 0)) if self._seeks else (0, 0)
        read = self._read_from(byte)
        pieces: list[bytes] = []  # of a line whose end was not read yet
        size = 0
        while True:
            block = read(_BLOCK_BYTES)
            *whole, rest = block.split(b"\n")
            if whole:
                whole[0] = b"".join((*pieces, whole[0]))
                pieces, size = [], 0
            if rest:
                pieces.append(rest)
                size += len(rest)
            elif not block and pieces:  # the last line may lack its line feed
                whole = [b"".join(pieces)]
            if size > MAX_BATCH_BYTES:
                raise LimitError(
                    f"{self.name}: line {line + len(whole) + 1} is longer than "
                    f"{MAX_BATCH_BYTES} bytes"
                )
            found = []
            for text in whole:
                line += 1
                byte += len(text) + 1
                if line > skip:
                    found.append((line, byte, text))
            if found:
                yield found
            if not block:
                return

    def _count_back(self, count: int) -> Mapping[tuple[str, int], int]:
        lines: dict[tuple[str, int], deque[int]] = defaultdict(lambda: deque(maxlen=count + 1))
        for block in self._blocks(self.start):
            for line, _, record in self._records(block):
                lines[record[:2]].append(line)
        return {
            part: (last[-1] + 1 if not count else last[-count] if len(last) >= count else 0)
            for part, last in lines.items()
        }

    def progress(self, position: Position) -> tuple[int, int]:
        """Bytes in front of a position, and of the file; 0 for a stream."""
        return min(position.get(_BYTE, 0), self._size), self._size

    def newest(self) -> int:
        """Nobody knows before it was read."""
        return -1

    def close(self) -> None:
        """Close the file."""
        self._close()

    def __enter__(self) -> FileSource:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"FileSource({self.name!r})"


def _ends(places: Sequence[tuple[int, int]]) -> Callable[[int], Mapping[str, int]]:
    def ends(count: int) -> Mapping[str, int]:
        if not count:
            return {}
        line, byte = places[count - 1]
        return {_LINE: line, _BYTE: byte}

    return ends


def open_file(path: str, wanted: Range, *, files: Files) -> FileSource:
    """The source that is a file of JSON lines; raises what opening it raises."""
    file = files.open(path)

    def read_from(byte: int) -> Read:
        place = byte

        def read(size: int) -> bytes:
            nonlocal place
            block = file.read_at(size, place)
            place += len(block)
            return block

        return read

    try:
        return FileSource(path, read_from, wanted, size=file.size(), close=file.close)
    except BaseException:
        file.close()
        raise


def open_stream(stream: BinaryIO, wanted: Range, *, again: bool) -> FileSource:
    """The source that is a stream of JSON lines, of standard input. Where it is to be read more
    than once (``again``, or ``wanted.last``), it is copied to a temporary file first."""
    name = "standard input"
    if not again and wanted.last is None:
        read: Read = getattr(stream, "read1", stream.read)
        return FileSource(name, lambda _: read, wanted, seeks=False)
    copy = tempfile.TemporaryFile()  # noqa: SIM115 - the source closes it
    try:
        shutil.copyfileobj(stream, copy, 1 << 20)
        copy.flush()
        size = os.fstat(copy.fileno()).st_size

        def read_from(byte: int) -> Read:
            copy.seek(byte)
            return copy.read

        return FileSource(name, read_from, wanted, size=size, close=copy.close)
    except BaseException:
        copy.close()
        raise
