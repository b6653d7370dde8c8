"""How a share group and its consumers behave: options with KIP-932's names."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, ClassVar

from logstore.errors import InvalidInputError
from logstore.groups.records import group_id
from logstore.options import INT64_MAX, Options, integer, one_of, option, text
from logstore.topic import check_topic_name

__all__ = ["MAX_LOCKS", "ShareConsumerConfig", "ShareGroupConfig", "duration_ms"]

MAX_LOCKS = 65_535
"""The most records of a partition that may be acquired at a time."""

_BY_DURATION = "by_duration:"
_DURATION = re.compile(
    r"P(?=[\dT])(?:(\d+)D)?(?:T(?=\d)(?:(\d+)H)?(?:(\d+)M)?(?:(\d+(?:\.\d+)?)S)?)?", re.ASCII
)
"""ISO 8601, days to seconds, as Java's ``Duration`` reads it."""


def duration_ms(reset: str) -> int | None:
    """The milliseconds in ``by_duration:PnDTnHnMnS``; None for what is no such thing."""
    match = _DURATION.fullmatch(reset.removeprefix(_BY_DURATION))
    if not reset.startswith(_BY_DURATION) or match is None or len(reset) > 100:
        return None
    days, hours, minutes, seconds = (float(part or 0) for part in match.groups())
    return int((((days * 24 + hours) * 60 + minutes) * 60 + seconds) * 1000)


def _reset(key: str, value: Any) -> str | None:
    if value in ("earliest", "latest") or (
        isinstance(value, str) and duration_ms(value) is not None
    ):
        return None
    return (
        f"{key}={value!r:.80} is none of 'earliest', 'latest', 'by_duration:<ISO 8601, such as "
        "P1DT6H>'"
    )


def _dead_letters(key: str, value: Any) -> str | None:
    if value == "":
        return None
    try:
        check_topic_name(value)
    except InvalidInputError as error:
        return f"{key}: {error}"
    if value.startswith("__"):
        return f"{key}={value!r} is a topic of the store's own"
    return None


def _group(key: str, value: Any) -> str | None:
    try:
        group_id(value)
    except InvalidInputError as error:
        return f"{key}: {error}"
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class ShareGroupConfig(Options):
    """What counts for all consumers of a share group. Raises InvalidInputError, naming key and
    bounds."""

    owner: ClassVar[str] = "a share group"

    share_auto_offset_reset: str = option("latest", _reset)
    """Where it begins in a topic that it has not read before: ``earliest``, ``latest``, or
    ``by_duration:`` and how long ago. (Partitions that a topic gets later are read from their
    beginning.)"""
    share_record_lock_duration_ms: int = option(30_000, integer(1))
    """How long an acquired record is its consumer's."""
    share_delivery_count_limit: int = option(5, integer(1))
    """How often a record is delivered; it is archived when the last delivery failed. (KIP-932's
    ``group.share.delivery.count.limit`` of a broker, KIP-1240's option of a group.)"""
    share_partition_max_record_locks: int = option(2000, integer(1, MAX_LOCKS))
    """How many records of a partition may be acquired at a time."""
    share_renew_acknowledge_enable: bool = option(True, one_of(True, False))
    """Whether consumers may renew the locks of records (KIP-1222)."""
    share_isolation_level: str = option(
        "read_uncommitted", one_of("read_uncommitted", "read_committed")
    )
    """``read_committed``: of transactions only what was committed is delivered, and nothing behind
    the first record of one that is open."""
    errors_deadletterqueue_topic_name: str = option("", _dead_letters)
    """The topic where records go that were rejected, or delivered as often as they may be
    (KIP-1191); empty: nowhere. It has to be there."""
    errors_deadletterqueue_copy_record_enable: bool = option(True, one_of(True, False))
    """Whether they are copied there; otherwise headers tell of them, and no more. (Kafka's default
    is False: whoever reads that topic may not be allowed to read the other.)"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShareConsumerConfig(Options):
    """What counts for one consumer. Raises InvalidInputError, naming key and bounds."""

    owner: ClassVar[str] = "a share consumer"

    group: str = option("", _group)
    """The share group."""
    client_id: str = option("", text)
    """A name that is shown in descriptions of the group."""
    share_acknowledgement_mode: str = option("implicit", one_of("implicit", "explicit"))
    """``implicit``: to come for more says that what was got before is accepted, unless something
    else was said of it. ``explicit``: something has to be said of each record first."""
    max_poll_records: int = option(500, integer(1, MAX_LOCKS))
    """The most records that one ``poll`` returns, or that one step of the iterator acquires."""
    consumer_timeout_ms: int = option(-1, integer(-1, INT64_MAX))
    """How long the iterator waits for another record before it ends; -1: for ever."""
