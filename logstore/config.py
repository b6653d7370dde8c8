"""Configuration of a topic's logs, and of a store: Kafka's keys, with underscores for dots.

Every key has a type, a default and bounds, and is checked as a whole before anything is changed.
Defaults are Kafka's unless its description says otherwise.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self

from logstore.segments.batch import HEADER_BYTES, MAX_BATCH_BYTES
from logstore.segments.compression import Codec
from logstore.segments.errors import InvalidInputError
from logstore.segments.header import TimestampType

__all__ = ["LogConfig", "StoreConfig"]


def _integer(lowest: int, highest: int) -> Callable[[str, Any], int]:
    def check(key: str, value: Any) -> int:
        try:
            if isinstance(value, bool):
                raise ValueError
            number = int(value) if isinstance(value, str) else value
            if not isinstance(number, int):
                raise ValueError
        except ValueError:
            raise InvalidInputError(f"{key} takes a whole number, not {value!r}") from None
        if not lowest <= number <= highest:
            raise InvalidInputError(f"{key}={number} is out of bounds: {lowest} to {highest}")
        return number

    return check


def _choice(*allowed: str) -> Callable[[str, Any], str]:
    def check(key: str, value: Any) -> str:
        if value not in allowed:
            raise InvalidInputError(f"{key} is one of {', '.join(allowed)}; not {value!r}")
        return str(value)

    return check


def _policies(key: str, value: Any) -> str:
    policies = [part.strip() for part in value.split(",")] if isinstance(value, str) else []
    if not policies or not set(policies) <= {"delete", "compact"}:
        raise InvalidInputError(f"{key} is delete, compact, or compact,delete; not {value!r}")
    return ",".join(sorted(set(policies)))


def _ratio(key: str, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise InvalidInputError(f"{key} takes a number, not {value!r}") from None
    if not 0 <= number <= 1:
        raise InvalidInputError(f"{key}={number} is out of bounds: 0 to 1")
    return number


_INT32_MAX = (1 << 31) - 1
_INT64_MAX = (1 << 63) - 1
_DAY_MS = 24 * 60 * 60 * 1000


def _key(default: Any, check: Callable[[str, Any], Any], description: str) -> Any:
    return dataclasses.field(default=default, metadata={"check": check, "description": description})


class _Config:
    """Keys with checks and descriptions: the fields of a dataclass."""

    __slots__ = ()

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            value = field.metadata["check"](field.name, getattr(self, field.name))
            object.__setattr__(self, field.name, value)

    @classmethod
    def keys(cls) -> dict[str, str]:
        """Every key, with its description."""
        fields = dataclasses.fields(cls)  # type: ignore[arg-type]
        return {field.name: field.metadata["description"] for field in fields}

    @classmethod
    def from_overrides(cls, overrides: Mapping[str, Any]) -> Self:
        """The configuration with these keys set and all others at their defaults.

        Kafka's spelling with dots is understood too. Raises InvalidInputError for an unknown key,
        and for one that is given in both spellings.
        """
        known = cls.keys()
        arguments: dict[str, Any] = {}
        for spelled, value in overrides.items():
            key = spelled.replace(".", "_") if isinstance(spelled, str) else ""
            if key not in known:
                raise InvalidInputError(f"no configuration key is called {spelled!r}")
            if key in arguments:
                raise InvalidInputError(f"{key} is given twice")
            arguments[key] = value
        return cls(**arguments)


@dataclass(frozen=True, slots=True)
class StoreConfig(_Config):
    """What is set for a store as a whole. Raises InvalidInputError, naming key and bounds."""

    offsets_retention_minutes: int = _key(
        7 * 24 * 60,
        _integer(1, _INT32_MAX),
        "What a group has committed is kept for this long after its last member went.",
    )


@dataclass(frozen=True, slots=True)
class LogConfig(_Config):
    """How a topic's partitions are kept. Raises InvalidInputError, naming key and bounds."""

    segment_bytes: int = _key(
        1 << 30,
        _integer(14, _INT32_MAX),
        "A segment is rolled before it would grow beyond this many bytes.",
    )
    index_interval_bytes: int = _key(
        4096,
        _integer(0, _INT32_MAX),
        "An index entry is made when more bytes than this lie behind the last one.",
    )
    segment_index_bytes: int = _key(
        10 << 20,
        _integer(12, _INT32_MAX),
        "A segment is rolled when one of its indexes has reached this many bytes.",
    )
    max_message_bytes: int = _key(
        64 << 20,
        _integer(HEADER_BYTES, MAX_BATCH_BYTES),
        "The largest batch that may be appended, as it is stored. (Kafka's default is 1 MiB, to "
        "protect a network that is not there.)",
    )
    segment_ms: int = _key(
        7 * _DAY_MS,
        _integer(1, _INT64_MAX),
        "A segment is rolled when its first record is older than this, even if it is not full.",
    )
    segment_jitter_ms: int = _key(
        0,
        _integer(0, _INT64_MAX),
        "Up to this much is taken off segment_ms, so that many partitions do not roll at once.",
    )
    cleanup_policy: str = _key(
        "delete",
        _policies,
        "delete drops old segments, compact keeps the last record of each key, "
        "compact,delete does both.",
    )
    retention_ms: int = _key(
        7 * _DAY_MS,
        _integer(-1, _INT64_MAX),
        "A segment whose newest record is older than this is deleted; -1 keeps it for ever.",
    )
    retention_bytes: int = _key(
        -1,
        _integer(-1, _INT64_MAX),
        "Oldest segments are deleted while the partition stays at least this large; -1: never.",
    )
    file_delete_delay_ms: int = _key(
        60_000,
        _integer(0, _INT64_MAX),
        "Files that are deleted keep lying about, renamed, for this long.",
    )
    delete_retention_ms: int = _key(
        _DAY_MS,
        _integer(0, _INT64_MAX),
        "Compaction keeps tombstones for this long, so that readers can learn of the deletion.",
    )
    min_cleanable_dirty_ratio: float = _key(
        0.5,
        _ratio,
        "The part of the log that must not yet have been compacted before compaction begins.",
    )
    min_compaction_lag_ms: int = _key(
        0,
        _integer(0, _INT64_MAX),
        "Records younger than this are not compacted.",
    )
    max_compaction_lag_ms: int = _key(
        _INT64_MAX,
        _integer(1, _INT64_MAX),
        "Records older than this are compacted, however small the dirty part is.",
    )
    cleaner_dedupe_buffer_bytes: int = _key(
        128 << 20,
        _integer(1 << 10, 1 << 40),
        "The memory that compaction may use to remember keys; more keys take several passes.",
    )
    producer_id_expiration_ms: int = _key(
        _DAY_MS,
        _integer(1, _INT32_MAX),
        "An idempotent producer that has written nothing for this long is forgotten, unless it has "
        "a name.",
    )
    message_timestamp_type: str = _key(
        TimestampType.CREATE.label,
        _choice(TimestampType.CREATE.label, TimestampType.LOG_APPEND.label),
        "CreateTime keeps the records' own timestamps, LogAppendTime replaces them.",
    )
    compression_type: str = _key(
        "producer",
        _choice("producer", "uncompressed", *(c.label for c in Codec if c)),
        "How records are compressed; producer leaves it to whoever appends.",
    )

    def overrides(self) -> dict[str, Any]:
        """The keys that differ from their defaults."""
        return {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if getattr(self, field.name) != field.default
        }

    @property
    def compacts(self) -> bool:
        """Whether the log is compacted, so that every record needs a key."""
        return "compact" in self.cleanup_policy

    @property
    def deletes(self) -> bool:
        """Whether old segments are deleted by time and size."""
        return "delete" in self.cleanup_policy

    @property
    def longest_segment_ms(self) -> int:
        """After how long a segment is rolled: compaction may not have to wait longer."""
        if self.compacts:
            return min(self.segment_ms, self.max_compaction_lag_ms)
        return self.segment_ms

    def codec_for(self, requested: Codec) -> Codec:
        """The codec for records that whoever appends wants compressed by ``requested``.

        Raises InvalidInputError for what is no codec.
        """
        requested = Codec.checked(requested)
        if self.compression_type == "producer":
            return requested
        if self.compression_type == "uncompressed":
            return Codec.NONE
        return Codec.named(self.compression_type)
