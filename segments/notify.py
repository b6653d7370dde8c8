"""Being woken when somebody changes a file in a directory: inotify, where the kernel has it.

The three calls are made through ``ctypes``: the packages that wrap inotify bring an event loop or
a thread along, and a waiting reader needs neither.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import sys

__all__ = ["DirectoryWatch", "watch_directories"]

# Source: inotify(7), and the kernel's include/uapi/linux/inotify.h.
_IN_MODIFY = 0x002
_IN_MOVED_FROM = 0x040
_IN_MOVED_TO = 0x080
_IN_CREATE = 0x100
_MASK = _IN_MODIFY | _IN_MOVED_FROM | _IN_MOVED_TO | _IN_CREATE
_BUFFER_BYTES = 64 << 10


class DirectoryWatch:
    """Says when a file in one of some directories was written, made or renamed. For one thread at
    a time."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLIN)

    def wait(self, seconds: float) -> bool:
        """Sleep until something has happened since the last call, for ``seconds`` at most."""
        if not self._poll.poll(max(0.0, seconds) * 1000):
            return False
        with contextlib.suppress(BlockingIOError):
            while len(os.read(self._descriptor, _BUFFER_BYTES)) == _BUFFER_BYTES:
                pass
        return True

    def close(self) -> None:
        """Stop watching; closing twice is allowed."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __del__(self) -> None:
        self.close()


def watch_directories(*paths: str) -> DirectoryWatch | None:
    """One watch on all of ``paths``; None where there is no inotify, or no watch left to be had."""
    if sys.platform != "linux":
        return None
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        descriptor = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, AttributeError):
        return None
    if descriptor < 0:
        return None
    for path in paths:
        if libc.inotify_add_watch(descriptor, os.fsencode(path), _MASK) < 0:
            os.close(descriptor)
            return None
    return DirectoryWatch(descriptor)
