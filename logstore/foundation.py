"""What the parts of an open store stand on."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import NamedTuple

from logstore.clock import Clock
from logstore.errors import ReadOnlyError
from logstore.live import Live
from logstore.metadata import Metadata
from logstore.segments.files import Files
from logstore.sessions import Sessions
from logstore.topics import TopicCatalogue

__all__ = ["Foundation"]


class Foundation(NamedTuple):
    """What the store's handle has made, and closes, for groups, queues and share groups."""

    path: str
    """The store's directory."""
    files: Files
    clock: Clock
    metadata: Metadata
    topics: TopicCatalogue
    live: Live
    sessions: Sessions
    making: Callable[[], AbstractContextManager[None]]
    """Held to make what several processes may find missing at once."""
    read_only: bool
    check_usable: Callable[[], None]
    """Raises where the handle was closed, or belongs to a parent process."""

    def check_writable(self) -> None:
        """Raise ReadOnlyError for a store that was opened for reading, and what ``check_usable``
        raises."""
        self.check_usable()
        if self.read_only:
            raise ReadOnlyError(f"{self.path}: the store was opened for reading only")
