"""The coordinator of a store's groups: the state machine's commands, kept in ``live``.

There is no process that coordinates: each member does it for itself. A command is one short write
transaction in ``live``, which LMDB puts in a line with those of all other processes; looking is a
read transaction. In a group at rest all that is written is a deadline for each heartbeat.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import NamedTuple

from logstore.clock import Clock
from logstore.definitions import TopicDefinition
from logstore.groups import state
from logstore.groups.records import (
    DEADLINES,
    GROUPS,
    deadline_key,
    decode_group,
    encode_group,
    group_id,
    group_number,
    pack_deadline,
    unpack_deadline,
)
from logstore.groups.state import Command, Group, Step, TopicInfo
from logstore.live import Live
from logstore.sessions import Sessions
from logstore.tables import Tables

__all__ = ["Coordinator", "Seen"]

Definitions = Callable[[], Mapping[str, TopicDefinition]]
"""All topics by name; the same object until one of them changes."""


class Seen(NamedTuple):
    """A group as it was found."""

    number: int
    """The number of the transaction that changed it last; 0: there is no such group."""
    group: Group
    """Without its deadlines."""


class Coordinator:
    """Groups in the live environment. Usable from many threads."""

    def __init__(
        self, live: Live, sessions: Sessions, *, definitions: Definitions, clock: Clock
    ) -> None:
        self.live = live
        self.sessions = sessions
        self.definitions = definitions
        self.clock = clock
        self._seen: dict[bytes, Seen] = {}
        """What was decoded last, by group."""
        self._close: dict[str, tuple[int, Group]] = {}
        """What was found last, with deadlines, by name; and the number of the transaction before
        which it was: nobody has changed anything as long as it is the last one."""

    # Looking ----------------------------------------------------------------------------------

    def look(self, name: str) -> Seen:
        """A group as it is."""
        with self.live.transaction() as tables:
            return self._load(tables, group_id(name), name)

    def look_closely(self, name: str) -> Group:
        """A group with its deadlines."""
        number = self.live.number()
        known = self._close.get(name)
        if known is None or known[0] != number:
            key = group_id(name)
            with self.live.transaction() as tables:
                group = self._with_deadlines(tables, key, self._load(tables, key, name).group)
            known = self._close[name] = number, group
        return known[1]

    def names(self) -> list[str]:
        """The names of all groups."""
        with self.live.transaction() as tables:
            rows = list(tables.items(GROUPS))
        return sorted(decode_group(data).name for _, data in rows)

    def _load(self, tables: Tables, key: bytes, name: str) -> Seen:
        data = tables.get(GROUPS, key)
        if data is None:
            return Seen(0, Group(name))
        number = group_number(data)
        seen = self._seen.get(key)
        if seen is None or seen.number != number:
            seen = self._seen[key] = Seen(number, decode_group(data))
        return seen

    def _with_deadlines(self, tables: Tables, key: bytes, group: Group) -> Group:
        deadlines = {
            member: unpack_deadline(tables.get(DEADLINES, deadline_key(key, member)))
            for member in group.members
        }
        return replace(group, deadlines=deadlines)

    # Commands ---------------------------------------------------------------------------------

    def run(self, name: str, command: Command | Callable[[Group], Command]) -> Step:
        """Carry out a command; a function makes it of the group as it is then."""
        with self.live.transaction(write=True) as tables:
            return self.run_in(tables, name, command)[1]

    def run_in(
        self, tables: Tables, name: str, command: Command | Callable[[Group], Command]
    ) -> tuple[Group, Step]:
        """The same in the caller's transaction; also returns the group."""
        key = group_id(name)
        seen = self._load(tables, key, name)
        before = self._with_deadlines(tables, key, seen.group)
        if callable(command):
            command = command(before)
        after, step = state.apply(before, command, self.clock.boottime_ms())
        self._store(tables, key, seen, before, after)
        return after, step

    def _store(self, tables: Tables, key: bytes, seen: Seen, before: Group, after: Group) -> None:
        if after is before and seen.number:
            return
        for member, deadline in after.deadlines.items():
            if before.deadlines.get(member) != deadline:
                tables.put(DEADLINES, deadline_key(key, member), pack_deadline(deadline))
        for member in before.deadlines.keys() - after.deadlines.keys():
            tables.delete(DEADLINES, deadline_key(key, member))
        bare = replace(after, deadlines={})
        if bare != seen.group or not seen.number:
            tables.put(GROUPS, key, encode_group(bare, tables.number))

    def delete(self, tables: Tables, name: str) -> None:
        """Remove a group that has no members, in the caller's transaction."""
        tables.delete(GROUPS, group_id(name))

    def topics_of(
        self, group: Group, wanted: Iterable[str] = (), *, without: str = ""
    ) -> dict[str, TopicInfo]:
        """What is known of those topics that exist, of all that members of a group (but for
        ``without``) want, and of some more."""
        others = (member.topics for key, member in group.members.items() if key != without)
        definitions = self.definitions()
        return {
            name: TopicInfo(definitions[name].topic_id.hex, definitions[name].partition_count)
            for name in sorted(frozenset(wanted).union(*others))
            if name in definitions
        }

    # Life and death ---------------------------------------------------------------------------

    def bury(self, name: str) -> None:
        """Remove the members whose time is up, or whose processes have died."""
        group = self.look_closely(name)
        dead = self.dead_sessions(group)
        now = self.clock.boottime_ms()
        if dead or any(deadline <= now for deadline in group.deadlines.values()):
            self.run(name, state.Expire(dead))
        if dead:
            self.live.check_readers()

    def dead_sessions(self, group: Group) -> frozenset[str]:
        """The sessions of members that end with their sessions, and whose sessions have ended."""
        sessions = {
            member.session_id for member in group.members.values() if member.instance_id is None
        }
        return frozenset(session for session in sessions if not self.sessions.is_alive(session))


def new_member_id(client_id: str) -> str:
    """An id that no member has had: the client id and 32 digits."""
    return f"{client_id or 'consumer'}-{uuid.uuid4().hex}"
