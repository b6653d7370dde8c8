"""A source that is a queue: all that its logs still have, what was acknowledged included.

The queue's ledger is not asked, and not touched: nothing is taken from whoever consumes. Each level
of priority is a partition, and they are merged by the time of publishing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import logstore
from logstore.clock import Clock
from logstore.replay.log_source import LogSource, parts_of
from logstore.replay.message_records import shown_message
from logstore.replay.source import Chunk, Position, Range
from logstore.segments.files import Files

__all__ = ["QueueSource", "open_queue"]


class QueueSource:
    """The messages of a queue as records; their ``topic`` is the queue's name, their ``partition``
    the priority."""

    def __init__(self, logs: LogSource) -> None:
        self._logs = logs
        self.name = logs.name
        self.identity: Mapping[str, Any] = logs.identity
        self.partitions = logs.partitions
        self.start: Position = logs.start

    def chunks(self, position: Position) -> Iterator[Chunk]:
        """The messages from a position on; see :class:`logstore.replay.source.Source`."""
        for chunk in self._logs.chunks(position):
            yield Chunk([shown_message(record) for record in chunk.records], chunk.ends)

    def progress(self, position: Position) -> tuple[int, int]:
        """Offsets in front of a position, and in the whole range."""
        return self._logs.progress(position)

    def newest(self) -> int:
        """The time of publishing of the last messages."""
        return self._logs.newest()

    def close(self) -> None:
        """Close the store that was opened for it."""
        self._logs.close()


def open_queue(
    name: str, store: str, wanted: Range, *, files: Files | None = None, clock: Clock | None = None
) -> QueueSource:
    """The source that is a queue of the store in a directory, which is opened for reading only.
    Raises UnknownQueueError, and what ``log_source.parts_of`` raises."""
    opened = logstore.open(store, create=False, read_only=True, files=files, clock=clock)
    try:
        definition = opened.queue(name, passive=True).definition
        levels = opened.queues.work_queue(definition).levels()
        logs = [(name, level.number, level.log) for level in reversed(levels)]
        source = LogSource(
            f"queue:{name}",
            parts_of(logs, wanted) if logs else [],
            identity={
                "queue": name,
                "id": definition.queue_id.hex,
                "store": str(opened.id),
            },
            close=opened.close,
        )
        source.partitions = max(source.partitions, definition.levels)
        return QueueSource(source)
    except BaseException:
        opened.close()
        raise
