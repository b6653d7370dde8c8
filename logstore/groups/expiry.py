"""Committed offsets that nobody comes back for: when they expire, and taking them away.

The rule is Kafka's (``offsets.retention.minutes``): what a group has committed expires that long
after its last member went, or after the commit where that came later; what it committed for a topic
that none of its members wants, that long after the commit. A group without members and offsets
goes with its last offset.

Since when a group is empty is noted in ``meta``, by the first round of maintenance that finds it
so; who joins removes the note before it does. So nothing expires too early: not after a restart of
the machine either, which ends all memberships and leaves no note.
"""

from __future__ import annotations

import contextlib
import logging
import struct
import uuid
from collections.abc import Callable, Mapping

from logstore.clock import Clock
from logstore.errors import LogstoreError
from logstore.groups import state
from logstore.groups.coordinator import Coordinator
from logstore.groups.offsets import Offsets
from logstore.groups.records import EMPTY_SINCE, GROUP_NAMES, OffsetKey, OffsetValue, group_id
from logstore.groups.state import Group
from logstore.metadata import Metadata

__all__ = ["Expiry", "expired"]

_log = logging.getLogger("logstore")

_TIME = struct.Struct(">q")


def expired(
    group: Group,
    offsets: Mapping[OffsetKey, OffsetValue],
    topics: Mapping[uuid.UUID, str],
    *,
    empty_since: int | None,
    now_ms: int,
    retention_ms: int,
) -> list[OffsetKey]:
    """Which of a group's offsets have expired. Times are milliseconds since 1970; ``topics`` are
    all topics' names by their ids, ``empty_since`` is None where that is not known."""
    if group.members:
        wanted = frozenset().union(*(member.topics for member in group.members.values()))
        unwanted = {
            key: at for key, at in offsets.items() if topics.get(key.topic_id) not in wanted
        }
        return [key for key, at in unwanted.items() if now_ms - at.timestamp >= retention_ms]
    if empty_since is None:
        return []
    return [
        key
        for key, at in offsets.items()
        if now_ms - max(empty_since, at.timestamp) >= retention_ms
    ]


class Expiry:
    """Takes expired offsets away. Usable from many threads."""

    def __init__(
        self,
        coordinator: Coordinator,
        offsets: Offsets,
        metadata: Metadata,
        *,
        living: Callable[[str], Group],
        topics: Callable[[], Mapping[uuid.UUID, str]],
        clock: Clock,
    ) -> None:
        """``living`` finds a group without the members that are dead; ``topics`` the names of all
        topics by their ids."""
        self._coordinator = coordinator
        self._offsets = offsets
        self._metadata = metadata
        self._living = living
        self._topics = topics
        self._clock = clock

    def joining(self, group: str) -> None:
        """Somebody is about to join: the group is not empty from now on."""
        key = group_id(group)
        with self._metadata.transaction() as meta:
            noted = meta.get(EMPTY_SINCE, key) is not None
        if noted:
            # Where it cannot be removed, on a full disk for one, a round of maintenance does it.
            with (
                contextlib.suppress(LogstoreError, OSError),
                self._metadata.transaction(write=True) as meta,
            ):
                meta.delete(EMPTY_SINCE, key)

    def run(self, retention_ms: int) -> None:
        """Note which groups are empty, and take away what has expired."""
        now = self._clock.now_ms()
        groups = {group_id(name): self._living(name) for name in self._coordinator.names()}
        since = self._note({key for key, group in groups.items() if not group.members}, now)
        for key, group in groups.items():
            if self._due(group, since.get(key), now, retention_ms):
                self._take_away(group.name, since.get(key), now, retention_ms)

    def _note(self, empty: set[bytes], now: int) -> dict[bytes, int]:
        """Since when each of the empty groups is empty. A time in the future is that of a clock
        that was set back since."""
        with self._metadata.transaction() as meta:
            noted = {key: int(_TIME.unpack(at)[0]) for key, at in meta.items(EMPTY_SINCE)}
        since = {key: noted[key] if noted.get(key, now + 1) <= now else now for key in empty}
        if since != noted:
            with self._metadata.transaction(write=True) as meta:
                for key in noted.keys() - since.keys():
                    meta.delete(EMPTY_SINCE, key)
                for key, at in since.items():
                    if noted.get(key) != at:
                        meta.put(EMPTY_SINCE, key, _TIME.pack(at))
        return since

    def _due(self, group: Group, since: int | None, now: int, retention_ms: int) -> bool:
        """Whether it is worth a transaction that writes."""
        offsets = self._offsets.of_group(group_id(group.name))
        if not offsets:
            return since is not None and now - since >= retention_ms
        gone = expired(
            group,
            offsets,
            self._topics(),
            empty_since=since,
            now_ms=now,
            retention_ms=retention_ms,
        )
        return bool(gone)

    def _take_away(self, name: str, since: int | None, now: int, retention_ms: int) -> None:
        """Decided once more, of the group as it is in the transaction that does it: somebody may
        have joined, or committed, in the meantime."""
        topics = self._topics()
        with self._coordinator.live.transaction(write=True) as tables:
            group, _ = self._coordinator.run_in(tables, name, state.Expire())
            offsets = self._offsets.of_group_in(tables, group_id(name))
            gone = expired(
                group,
                offsets,
                topics,
                empty_since=since,
                now_ms=now,
                retention_ms=retention_ms,
            )
            for key in gone:
                self._offsets.remove(tables, key)
            ends = not group.members and len(gone) == len(offsets)
            if ends:
                self._coordinator.delete(tables, name)
        if gone:
            _log.info("group %s: %d committed offsets have expired", name, len(gone))
            self._offsets.checkpoint(gone)
        if ends:
            with self._metadata.transaction(write=True) as meta:
                meta.delete(GROUP_NAMES, group_id(name))
                meta.delete(EMPTY_SINCE, group_id(name))
