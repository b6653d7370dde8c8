"""Timestamps as people read them."""

from __future__ import annotations

from datetime import UTC, datetime

__all__ = ["time_text"]


def time_text(timestamp: int) -> str:
    """Milliseconds since 1970 as a date and time (UTC); the number itself where it is too far, and
    ``-`` for -1, which is none."""
    if timestamp == -1:
        return "-"
    try:
        seconds, milliseconds = divmod(timestamp, 1000)
        moment = datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError, OSError):
        return str(timestamp)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{milliseconds:03d}Z"
