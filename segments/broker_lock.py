"""Whether a Kafka broker runs on a directory.

A running broker holds a lock on the file ``.lock`` in each of its log directories (source: Kafka's
implementation). It is one of POSIX's record locks, and these can be asked about without taking
them: nothing is written, and the broker does not notice.
"""

from __future__ import annotations

import os
import struct
import sys

try:
    import fcntl
except ImportError:  # Windows: segments can be inspected there, but not written
    fcntl = None  # type: ignore[assignment]

__all__ = ["running_broker"]

_LOCK_FILE = ".lock"
_FLOCK = struct.Struct("hhqqi")
"""Linux's ``struct flock`` on 64 bits: type, whence, start, length, process."""


def running_broker(directory: str) -> int | None:
    """The process of the broker that runs on ``directory``, one of partitions, or on the one
    around it; None where no broker does, and where that cannot be found out (not on Linux)."""
    if fcntl is None or sys.platform != "linux":
        return None
    inside = os.path.realpath(directory)
    for place in (inside, os.path.dirname(inside)):
        try:
            descriptor = os.open(os.path.join(place, _LOCK_FILE), os.O_RDONLY)
        except OSError:
            continue
        try:
            asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
            kind, _, _, _, process = _FLOCK.unpack(
                fcntl.fcntl(descriptor, fcntl.F_GETLK, asked)[: _FLOCK.size]
            )
        finally:
            os.close(descriptor)
        if kind != fcntl.F_UNLCK:
            return int(process)
    return None
