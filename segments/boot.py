"""Which run of the machine this is: another one has lost what was not on stable storage."""

from __future__ import annotations

import contextlib
import time

__all__ = ["boot_id"]


def _read_boot_id() -> str:
    with (
        contextlib.suppress(FileNotFoundError),
        open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file,
    ):
        return file.read().strip()
    # Off Linux the moment of the boot, as far as two clocks tell it; rounded, since they drift.
    return f"boot-{round((time.time() - time.monotonic()) / 60)}"


_boot: list[str] = []


def boot_id() -> str:
    """The id of this run of the machine."""
    if not _boot:
        _boot.append(_read_boot_id())
    return _boot[0]
