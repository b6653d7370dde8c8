"""How a consumer behaves: Kafka's names and, but for one, Kafka's defaults.

The one is ``auto_offset_reset``: ``earliest`` here. In Kafka a new group begins at the end, so that
whatever was produced before its first member came is passed over without a word.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from logstore.errors import InvalidInputError
from logstore.groups.assignors import ASSIGNORS

__all__ = ["ConsumerConfig"]

_INT32_MAX = (1 << 31) - 1
_INT64_MAX = (1 << 63) - 1


def _integer(lowest: int, highest: int = _INT32_MAX) -> Callable[[str, Any], str | None]:
    def check(key: str, value: Any) -> str | None:
        if isinstance(value, int) and not isinstance(value, bool) and lowest <= value <= highest:
            return None
        return f"{key}={value!r} is out of bounds: a whole number, {lowest} to {highest}"

    return check


def _one_of(*allowed: object) -> Callable[[str, Any], str | None]:
    def check(key: str, value: Any) -> str | None:
        return (
            None
            if value in allowed
            else f"{key}={value!r} is none of {', '.join(map(repr, allowed))}"
        )

    return check


def _name(key: str, value: Any) -> str | None:
    if value is None or (isinstance(value, str) and 0 < len(value) <= 1000):
        return None
    return f"{key}={value!r} is no name: 1 to 1,000 characters"


def _text(key: str, value: Any) -> str | None:
    return None if isinstance(value, str) else f"{key}={value!r} is no text"


def _strategy(key: str, value: Any) -> str | None:
    names = [value] if isinstance(value, str) else value
    if isinstance(names, (list, tuple)) and names and all(name in ASSIGNORS for name in names):
        return None
    return f"{key}={value!r} is none of {', '.join(ASSIGNORS)}, nor a list of them"


def _key(default: Any, check: Callable[[str, Any], str | None]) -> Any:
    return dataclasses.field(default=default, metadata={"check": check})


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerConfig:
    """Raises InvalidInputError, naming key and bounds."""

    group: str | None = _key(None, _name)
    """The consumer group; None: the consumer reads alone and can commit nothing."""
    group_instance_id: str | None = _key(None, _name)
    """A static member's name: when it comes back within its session nothing is rebalanced."""
    client_id: str = _key("", _text)
    """A name that is shown in descriptions of the group."""
    auto_offset_reset: str = _key("earliest", _one_of("earliest", "latest", "none"))
    """Where to begin without a committed offset, or when the log does not hold it any more."""
    enable_auto_commit: bool = _key(True, _one_of(True, False))
    auto_commit_interval_ms: int = _key(5000, _integer(0))
    max_poll_records: int = _key(500, _integer(1))
    """The most records that one ``poll`` returns, or that one step of the iterator reads ahead."""
    fetch_max_bytes: int = _key(50 << 20, _integer(1))
    """About how much is read from a log at once; a batch is always read whole."""
    max_partition_fetch_bytes: int = _key(1 << 20, _integer(1))
    """The same, for each partition; the smaller one counts."""
    consumer_timeout_ms: int = _key(-1, _integer(-1, _INT64_MAX))
    """How long the iterator waits for another record before it ends; -1: for ever."""
    session_timeout_ms: int = _key(45_000, _integer(1))
    """After how long without a heartbeat a member is taken for dead."""
    heartbeat_interval_ms: int = _key(3_000, _integer(1))
    max_poll_interval_ms: int = _key(300_000, _integer(1))
    """After how long without a ``poll`` a member has to give up its partitions."""
    partition_assignment_strategy: str | Sequence[str] = _key("range", _strategy)
    """One assignor or several, the preferred one first: range, roundrobin, sticky,
    cooperative-sticky."""

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> ConsumerConfig:
        """The configuration with these options; raises InvalidInputError for an unknown one."""
        known = [field.name for field in dataclasses.fields(cls)]
        for name in options:
            if name not in known:
                raise InvalidInputError(
                    f"a consumer has no option called {name!r}; there are {', '.join(known)}"
                )
        return cls(**options)

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            problem = field.metadata["check"](field.name, getattr(self, field.name))
            if problem:
                raise InvalidInputError(problem)
        if self.heartbeat_interval_ms >= self.session_timeout_ms:
            raise InvalidInputError(
                f"heartbeat_interval_ms={self.heartbeat_interval_ms} must be below "
                f"session_timeout_ms={self.session_timeout_ms}"
            )
        if self.group_instance_id is not None and self.group is None:
            raise InvalidInputError("group_instance_id needs a group")
