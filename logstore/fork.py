"""What becomes of handles when a process forks: the child's copies refuse to work.

A child shares its parent's descriptors, and with them the parent's locks. It closes its copies
(which leaves the parent's locks alone) and has to open its own.
"""

from __future__ import annotations

import os
import weakref
from typing import Protocol

__all__ = ["forget", "remember"]


class Handle(Protocol):
    """Something that holds descriptors."""

    def forked(self) -> None:
        """Called in the child."""
        ...


_handles: weakref.WeakSet[Handle] = weakref.WeakSet()


def remember(handle: Handle) -> None:
    """Tell ``handle`` when a child process has been forked off."""
    _handles.add(handle)


def forget(handle: Handle) -> None:
    """The opposite; allowed for a handle that was never remembered."""
    _handles.discard(handle)


def _after_fork_in_child() -> None:
    for handle in list(_handles):
        handle.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
