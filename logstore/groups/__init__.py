"""Consumer groups: who reads which partition, and how far it has come.

``assignors``, ``state`` and ``resets`` decide, purely; ``coordinator``, ``membership`` and
``offsets`` keep what was decided in the live environment (``logstore.live``), for all processes
that have the store open. ``Store.groups`` is the face of it.
"""

from __future__ import annotations

from logstore.groups.descriptions import (
    GroupDescription,
    GroupListing,
    MemberDescription,
    OffsetDescription,
)
from logstore.groups.groups import Groups
from logstore.groups.membership import Membership, Rebalance
from logstore.groups.resets import OffsetChange, OffsetReset

__all__ = [
    "GroupDescription",
    "GroupListing",
    "Groups",
    "MemberDescription",
    "Membership",
    "OffsetChange",
    "OffsetDescription",
    "OffsetReset",
    "Rebalance",
]
