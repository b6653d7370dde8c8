"""Where records go: what every sink of a replay can do, and the simple ones.

A sink is *exact* when it can tell what it has taken after any end of the process, so that a replay
that goes on repeats nothing (``position`` and ``restore``). All others take each record at once,
and count; whoever was killed behind the last save of a resume file hands on again what came behind
it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from logstore.errors import InvalidInputError
from logstore.fetcher import ConsumerRecord
from logstore.json_records import record_line
from logstore.replay.carrying import Carried
from logstore.replay.errors import ReplayError, UserCodeError
from logstore.segments.files import Files, write_fully

__all__ = ["CountingSink", "FileSink", "FunctionSink", "LinesSink", "RawSink", "Sink", "SinkEnded"]

_WRITE_BYTES = 64 << 10

Format = Callable[[ConsumerRecord], bytes]


class SinkEnded(Exception):  # noqa: N818 - it is no error
    """The sink wants nothing more, and was content with what it got."""


class Sink(Protocol):
    """Takes records, in their order."""

    @property
    def delivered(self) -> int:
        """How many records it has taken."""
        ...

    @property
    def is_exact(self) -> bool:
        """Whether it can tell afterwards what it has taken."""
        ...

    @property
    def identity(self) -> Mapping[str, Any]:
        """What has to be the same (as JSON) for a replay to go on with it."""
        ...

    def write(self, records: Sequence[ConsumerRecord]) -> None:
        """Take records. One that is not exact has handed on what it has counted when it raises;
        raises SinkEnded when it wants no more."""
        ...

    def flush(self) -> None:
        """Hand on what is still held back."""
        ...

    def position(self) -> Mapping[str, Any] | None:
        """Put everything on stable storage, and say (as JSON) how far the sink is; None for one
        that is not exact."""
        ...

    def restore(self, position: Mapping[str, Any] | None) -> None:
        """Go on from a position of an earlier run, without what that did behind it; None: begin.
        Called once, before anything else. Raises ReplayError where that cannot be."""
        ...

    def close(self) -> None:
        """Finish; raises ReplayError where what took the records has failed."""
        ...


@runtime_checkable
class RawSink(Sink, Protocol):
    """A sink that takes whole batches as they are."""

    def takes_raw(self, parts: Sequence[tuple[str, int]]) -> bool:
        """Whether it does, from these partitions (topics and numbers)."""
        ...

    def write_raw(self, carried: Carried) -> None:
        """Take whole batches of one partition."""
        ...


class _Immediate:
    """What sinks have in common that take each record at once, and cannot tell afterwards."""

    delivered = 0
    is_exact = False

    def flush(self) -> None:
        """Nothing is held back."""

    def position(self) -> Mapping[str, Any] | None:
        """It cannot tell."""
        self.flush()
        return None

    def restore(self, position: Mapping[str, Any] | None) -> None:
        """It knows of nothing."""

    def close(self) -> None:
        """Nothing is open."""


class LinesSink(_Immediate):
    """Writes each record as bytes to a stream."""

    def __init__(
        self, name: str, form: Format, write: Callable[[bytes], object], flush: Callable[[], object]
    ) -> None:
        self.identity: Mapping[str, Any] = {"lines": name}
        self._format = form
        self._write = write
        self._flush = flush

    def write(self, records: Sequence[ConsumerRecord]) -> None:
        """Write records; see :class:`Sink`."""
        form, write = self._format, self._write
        parts: list[bytes] = []
        size = 0
        for record in records:
            part = form(record)
            parts.append(part)
            size += len(part)
            if size >= _WRITE_BYTES:
                write(b"".join(parts))
                self.delivered += len(parts)
                parts, size = [], 0
        if parts:
            write(b"".join(parts))
            self.delivered += len(parts)

    def flush(self) -> None:
        """Flush the stream."""
        self._flush()


class FunctionSink(_Immediate):
    """Calls a function with each record."""

    def __init__(self, name: str, function: Callable[[ConsumerRecord], object]) -> None:
        self.identity: Mapping[str, Any] = {"function": name}
        self._name = name
        self._function = function

    def write(self, records: Sequence[ConsumerRecord]) -> None:
        """Call the function; raises UserCodeError for what it raises."""
        function = self._function
        for record in records:
            try:
                function(record)
            except Exception as error:
                raise UserCodeError(self._name, error, record) from error
            self.delivered += 1


class FileSink:
    """Writes JSON lines to a file. Exact: a line that an earlier run wrote behind its last save is
    cut off, and written again."""

    is_exact = True

    def __init__(self, path: str, form: Format = record_line, *, files: Files) -> None:
        """A file that is there, and not empty, is only gone on with (``restore``)."""
        self.identity: Mapping[str, Any] = {"file": path}
        self.delivered = 0
        self._path = path
        self._format = form
        self._files = files
        self._file = files.open(path, write=True, create=True)
        self._size = 0
        """Bytes that were written."""
        self._parts: list[bytes] = []
        """Lines that were not."""
        self._waiting = 0
        self._is_named = False
        """Whether the file's name is known to be on stable storage."""

    def write(self, records: Sequence[ConsumerRecord]) -> None:
        """Write records; see :class:`Sink`."""
        form = self._format
        lines = [form(record) for record in records]
        self._parts += lines
        self._waiting += sum(map(len, lines))
        self.delivered += len(lines)
        if self._waiting >= _WRITE_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write what is held back."""
        data = b"".join(self._parts)
        if data:
            write_fully(self._file, data, self._size)
            self._size += len(data)
            self._parts, self._waiting = [], 0

    def position(self) -> Mapping[str, Any]:
        """The file's size, synced."""
        self.flush()
        self._file.sync()
        if not self._is_named:
            self._files.sync_directory(os.path.dirname(self._path) or ".")
            self._is_named = True
        return {"size": self._size}

    def restore(self, position: Mapping[str, Any] | None) -> None:
        """Cut off what was written behind a position; see :class:`Sink`."""
        size = self._file.size()
        if position is None:
            if size:
                self._file.close()
                raise InvalidInputError(
                    f"{self._path}: the file is there already, with {size} bytes in it"
                )
            return
        wanted = position.get("size")
        if not isinstance(wanted, int) or not 0 <= wanted <= size:
            raise ReplayError(
                f"{self._path}: the file has {size} bytes, where {wanted} were written; "
                "it is not the one that this replay has begun"
            )
        self._file.truncate(wanted)
        self._size = wanted

    def close(self) -> None:
        """Write what is held back, and close the file."""
        try:
            self.flush()
        finally:
            self._file.close()


class CountingSink(_Immediate):
    """Takes everything and keeps nothing: what a dry run delivers to."""

    def __init__(self) -> None:
        self.identity: Mapping[str, Any] = {}
        self.offsets: dict[tuple[str, int], list[int]] = {}
        """For each partition how many records there were, the first and the last offset."""

    def takes_raw(self, parts: Sequence[tuple[str, int]]) -> bool:
        """Batches are counted as well."""
        return True

    def write(self, records: Sequence[ConsumerRecord]) -> None:
        """Count records."""
        for topic, partition, offset, *_ in records:
            self._count((topic, partition), 1, offset, offset)

    def write_raw(self, carried: Carried) -> None:
        """Count the records of batches."""
        self._count(
            carried.part, carried.record_count, carried.first_offset, carried.next_offset - 1
        )

    def _count(self, part: tuple[str, int], count: int, first: int, last: int) -> None:
        known = self.offsets.setdefault(part, [0, first, last])
        known[0] += count
        known[2] = last
        self.delivered += count
