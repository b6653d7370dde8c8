"""The errors of replays.

The tree::

    LogstoreError
    └── ReplayError           what a replay calls (a function, a command) has failed
        └── UserCodeError     a user's function raised; says which, where, and at which record
"""

from __future__ import annotations

import os
import traceback

from logstore.errors import LogstoreError
from logstore.fetcher import ConsumerRecord

__all__ = ["ReplayError", "UserCodeError", "place_of"]


class ReplayError(LogstoreError):
    """What a replay calls has failed: a function, a command, a check of its own progress."""


class UserCodeError(ReplayError):
    """A function that a user has named raised an error."""

    def __init__(self, name: str, error: BaseException, record: ConsumerRecord | None) -> None:
        where = "" if record is None else f" at {place_of(record)}"
        text = " ".join(str(error).split())[:200]
        line = _line_of(error)
        super().__init__(f"{name} raised {type(error).__name__}: {text}{where}{line}")
        self.record = record


def place_of(record: ConsumerRecord) -> str:
    """Where a record stands: ``orders-0, offset 17``."""
    return f"{record.topic}-{record.partition}, offset {record.offset}"


def _line_of(error: BaseException) -> str:
    """The innermost line, for whoever has to mend it."""
    frames = traceback.extract_tb(error.__traceback__)
    if len(frames) < 2:  # the function itself could not be called
        return ""
    return f" ({os.path.basename(frames[-1].filename)}, line {frames[-1].lineno})"
