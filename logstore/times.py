"""Moments as people write them."""

from __future__ import annotations

import re
from datetime import datetime

from logstore.errors import InvalidInputError

__all__ = ["parse_duration", "parse_time"]

_UNITS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
_DURATION = re.compile(r"(\d{1,12})(ms|s|m|h|d|w)\Z", re.ASCII)


def parse_time(text: str, now_ms: int) -> int:
    """The milliseconds since 1970 that ``text`` names: a date and time by ISO 8601 (local time
    where it has no zone), milliseconds since 1970, or an age such as ``10m``, which counts back
    from ``now_ms``. Raises InvalidInputError for anything else."""
    if re.fullmatch(r"\d{1,18}", text, re.ASCII):
        return int(text)
    age = _DURATION.match(text)
    if age:
        return now_ms - int(age[1]) * _UNITS[age[2]]
    try:
        moment = datetime.fromisoformat(text)
        whole = moment.replace(microsecond=0)
        seconds = int(whole.timestamp())  # of local time, where there is no zone
    except (ValueError, OverflowError, OSError):
        raise InvalidInputError(
            f"{text!r} is no time: 2024-05-01T12:00:00Z, milliseconds since 1970, or an age as 10m"
        ) from None
    return seconds * 1000 + moment.microsecond // 1000


def parse_duration(text: str) -> int:
    """The milliseconds that ``text`` names, as ``250ms``, ``30s`` or ``2h``; raises
    InvalidInputError for anything else."""
    found = _DURATION.match(text)
    if not found:
        raise InvalidInputError(f"{text!r} is no duration: a number and ms, s, m, h, d or w")
    return int(found[1]) * _UNITS[found[2]]
