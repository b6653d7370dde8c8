"""The resume file of a replay: how far it has come, so that it can go on after any end.

It is a JSON object, replaced as a whole. A replay that has come to its end and is called again goes
on with what has been added to its source since.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from logstore.errors import InvalidInputError
from logstore.replay.errors import ReplayError
from logstore.replay.source import Position
from logstore.segments.files import FileLock, Files, read_bounded, write_atomically

__all__ = ["ResumeFile", "Saved"]

_VERSION = 1
_MAX_BYTES = 16 << 20


class Saved(NamedTuple):
    """How far a replay has come."""

    position: Position
    delivered: int
    """Records that all runs have delivered."""
    sink: Mapping[str, Any] | None
    """The position of a sink that is exact."""


class ResumeFile:
    """One replay's file. Two runs do not use it at once: a lock beside it sees to that."""

    def __init__(self, path: str, identity: Mapping[str, Any], *, files: Files) -> None:
        """``identity``: what has to be the same (as JSON) in each run.

        Raises InvalidInputError for a file of another replay or of something else, ReplayError when
        another run uses it.
        """
        self.path = path
        self._identity = json.loads(json.dumps(identity))
        self._files = files
        self._lock: FileLock = files.lock(path + ".lock")
        try:
            try:
                self._lock.acquire()
            except BlockingIOError:
                raise ReplayError(f"{path}: another replay is at it") from None
            self.saved: Saved | None = self._read()
            """What an earlier run has left; None for the first one."""
        except BaseException:
            self._lock.close()
            raise

    def _read(self) -> Saved | None:
        if not self._files.exists(self.path):
            return None
        data = read_bounded(self._files, self.path, _MAX_BYTES)
        try:
            fields = json.loads(data)
            version, identity = fields["resume_version"], fields["replay"]
            position = {str(name): int(place) for name, place in fields["position"].items()}
            saved = Saved(position, int(fields["delivered"]), fields["sink"])
            if saved.sink is not None and not isinstance(saved.sink, dict):
                raise TypeError("the sink's position is no object")
            known = dict(identity)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise InvalidInputError(f"{self.path}: this is no resume file: {error}") from None
        if version != _VERSION:
            raise InvalidInputError(
                f"{self.path}: a resume file of version {version}; this program knows {_VERSION}"
            )
        for name in sorted({*known, *self._identity}):
            if known.get(name) != self._identity.get(name):
                before, now = (json.dumps(one.get(name)) for one in (known, self._identity))
                raise InvalidInputError(
                    f"{self.path}: it belongs to another replay: it says {before} of the {name}, "
                    f"and here it is {now}"
                )
        return saved

    def save(self, saved: Saved) -> None:
        """Replace the file. Commit point: the rename; a crash before it leaves the last one."""
        fields = {
            "resume_version": _VERSION,
            "replay": self._identity,
            "position": saved.position,
            "delivered": saved.delivered,
            "sink": saved.sink,
        }
        write_atomically(self._files, self.path, json.dumps(fields, indent=1).encode() + b"\n")

    def close(self) -> None:
        """Let others use it."""
        self._lock.close()
