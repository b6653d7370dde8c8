"""How a consumer behaves: Kafka's names and, but for one, Kafka's defaults.

The one is ``auto_offset_reset``: ``earliest`` here. In Kafka a new group begins at the end, so that
whatever was produced before its first member came is passed over without a word.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from logstore.errors import InvalidInputError
from logstore.groups.assignors import ASSIGNORS
from logstore.groups.records import group_id
from logstore.options import INT64_MAX, Options, integer, one_of, option, text

__all__ = ["ConsumerConfig"]


def _group(key: str, value: Any) -> str | None:
    try:
        if value is not None:
            group_id(value)
    except InvalidInputError as error:
        return f"{key}: {error}"
    return None


def _name(key: str, value: Any) -> str | None:
    if value is None or (isinstance(value, str) and 0 < len(value) <= 1000):
        return None
    return f"{key}={value!r:.50} is no name: 1 to 1000 characters"


def _strategy(key: str, value: Any) -> str | None:
    names = [value] if isinstance(value, str) else value
    if isinstance(names, (list, tuple)) and names and all(name in ASSIGNORS for name in names):
        return None
    return f"{key}={value!r} is none of {', '.join(ASSIGNORS)}, nor a list of them"


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerConfig(Options):
    """Raises InvalidInputError, naming key and bounds."""

    owner: ClassVar[str] = "a consumer"

    group: str | None = option(None, _group)
    """The consumer group; None: the consumer reads alone and can commit nothing."""
    group_instance_id: str | None = option(None, _name)
    """A static member's name: when it comes back within its session nothing is rebalanced."""
    client_id: str = option("", text)
    """A name that is shown in descriptions of the group."""
    auto_offset_reset: str = option("earliest", one_of("earliest", "latest", "none"))
    """Where to begin without a committed offset, or when the log does not hold it any more."""
    enable_auto_commit: bool = option(True, one_of(True, False))
    auto_commit_interval_ms: int = option(5000, integer(0))
    max_poll_records: int = option(500, integer(1))
    """The most records that one ``poll`` returns, or that one step of the iterator reads ahead."""
    fetch_max_bytes: int = option(50 << 20, integer(1))
    """About how much is read from a log at once; a batch is always read whole."""
    max_partition_fetch_bytes: int = option(1 << 20, integer(1))
    """The same, for each partition; the smaller one counts."""
    consumer_timeout_ms: int = option(-1, integer(-1, INT64_MAX))
    """How long the iterator waits for another record before it ends; -1: for ever."""
    session_timeout_ms: int = option(45_000, integer(1))
    """After how long without a heartbeat a member is taken for dead."""
    heartbeat_interval_ms: int = option(3_000, integer(1))
    max_poll_interval_ms: int = option(300_000, integer(1))
    """After how long without a ``poll`` a member has to give up its partitions."""
    partition_assignment_strategy: str | Sequence[str] = option("range", _strategy)
    """One assignor or several, the preferred one first: range, roundrobin, sticky,
    cooperative-sticky."""

    def check(self) -> None:
        """Raise InvalidInputError where options contradict each other."""
        if self.heartbeat_interval_ms >= self.session_timeout_ms:
            raise InvalidInputError(
                f"heartbeat_interval_ms={self.heartbeat_interval_ms} must be below "
                f"session_timeout_ms={self.session_timeout_ms}"
            )
        if self.group_instance_id is not None and self.group is None:
            raise InvalidInputError("group_instance_id needs a group")
