"""Where ``reset_offsets`` moves a group to: decided from what a log holds."""

from __future__ import annotations

from typing import Literal, NamedTuple, Protocol

from logstore.errors import InvalidInputError
from logstore.partitions import OffsetAndMetadata

__all__ = ["OffsetChange", "OffsetReset"]


class _Log(Protocol):
    @property
    def log_start_offset(self) -> int: ...

    @property
    def log_end_offset(self) -> int: ...

    def offset_for_time(self, timestamp: int, /) -> tuple[int, int] | None: ...


class OffsetChange(NamedTuple):
    """What was committed for a partition, and what is after a reset."""

    before: OffsetAndMetadata | None
    after: int


class OffsetReset(NamedTuple):
    """Where to: see the class methods."""

    to: Literal["earliest", "latest", "offset", "datetime", "shift"]
    value: int = 0
    """The offset; milliseconds since 1970; or by how many offsets."""

    def offset_in(self, log: _Log, before: OffsetAndMetadata | None) -> int:
        """The offset in a log; it lies within what the log holds.

        By time: the first record that is not older; the log's end where there is none. A shift
        needs something to begin from: without a commit the log's start for a shift forwards, its
        end for one backwards.
        """
        start, end = log.log_start_offset, log.log_end_offset
        match self.to:
            case "earliest":
                return start
            case "latest":
                return end
            case "offset":
                wanted = self.value
            case "datetime":
                found = log.offset_for_time(self.value)
                wanted = end if found is None else found[0]
            case "shift":
                origin = start if self.value >= 0 else end
                wanted = (origin if before is None else before.offset) + self.value
            case _:
                raise InvalidInputError(f"a reset to {self.to!r} makes no sense")
        return min(max(wanted, start), end)
