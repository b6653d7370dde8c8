"""Reading lines out of a stream in batches: large ones from a file, soon ones from a slow pipe."""

from __future__ import annotations

import io
import os
import select
import stat
import time
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from logstore.errors import LimitError
from logstore.segments.batch import MAX_BATCH_BYTES

__all__ = ["LineBatch", "LineReader"]

_CHUNK_BYTES = 256 << 10
_LINGER_SECONDS = 0.1
"""How long a line may wait for others to fill its batch."""


class LineBatch(NamedTuple):
    """Lines, without the line feeds behind them."""

    first_line: int
    """The number of the first of them in the stream, counted from 1."""
    lines: list[bytes]


class LineReader:
    """The lines of a stream; the memory that it takes does not depend on how many there are."""

    def __init__(
        self, stream: BinaryIO, *, batch_bytes: int, batch_lines: int, overhead_bytes: int
    ) -> None:
        self._stream = stream
        self._batch_bytes = batch_bytes
        self._batch_lines = batch_lines
        self._overhead_bytes = overhead_bytes
        self._lines: list[bytes] = []
        """Whole lines that were not handed on yet."""
        self._size = 0
        """Bytes that they take in a batch."""
        self._first_line = 1
        """The number of the first of them."""
        self._descriptor = _descriptor(stream)
        """Where to read from without a buffer in between; None where there is no such thing."""
        self._may_be_slow = self._descriptor is not None and not _is_file(self._descriptor)
        self.bytes_read = 0
        """Bytes taken from the stream."""

    @property
    def place(self) -> str:
        """The line that is being read."""
        return f"line {self._first_line + len(self._lines)}"

    def batches(self) -> Iterator[LineBatch]:
        """Batches of one line or more, until the stream ends.

        A line without a line feed behind it, at the end, is a line as well. Raises LimitError for
        a line that no batch could hold.
        """
        rest: list[bytes] = []  # the pieces of a line whose end was not read yet
        rest_size = 0
        deadline = 0.0
        while True:
            if self._lines and self._may_be_slow and not self._comes_by(deadline):
                yield self._take()
            chunk = self._read()
            if not chunk:
                break
            if not self._lines:
                deadline = time.monotonic() + _LINGER_SECONDS
            *whole, tail = chunk.split(b"\n")
            for line in whole:
                if rest:
                    line = b"".join((*rest, line))
                    rest.clear()
                    rest_size = 0
                yield from self._add(line)
            if tail:
                rest.append(tail)
                rest_size += len(tail)
                if rest_size > MAX_BATCH_BYTES:
                    raise LimitError(f"the line is longer than {MAX_BATCH_BYTES} bytes")
        if rest:
            yield from self._add(b"".join(rest))
        if self._lines:
            yield self._take()

    def _add(self, line: bytes) -> Iterator[LineBatch]:
        size = len(line) + self._overhead_bytes
        if self._lines and self._size + size > self._batch_bytes:
            yield self._take()
        self._lines.append(line)
        self._size += size
        if self._size >= self._batch_bytes or len(self._lines) >= self._batch_lines:
            yield self._take()

    def _take(self) -> LineBatch:
        batch = LineBatch(self._first_line, self._lines)
        self._first_line += len(self._lines)
        self._lines = []
        self._size = 0
        return batch

    def _read(self) -> bytes:
        if self._descriptor is not None:
            chunk = os.read(self._descriptor, _CHUNK_BYTES)
        else:
            chunk = self._stream.read(_CHUNK_BYTES)
        self.bytes_read += len(chunk)
        return chunk

    def _comes_by(self, deadline: float) -> bool:
        """Wait for more to read until ``deadline``, and say whether it came."""
        left = deadline - time.monotonic()
        return left > 0 and bool(select.select([self._stream], [], [], left)[0])


def _descriptor(stream: BinaryIO) -> int | None:
    try:
        return stream.fileno()
    except io.UnsupportedOperation:  # a stream in memory
        return None


def _is_file(descriptor: int) -> bool:
    return os.name == "nt" or stat.S_ISREG(os.fstat(descriptor).st_mode)
