"""Leader epochs: where each one begins in the log, and which one comes next.

The checkpoint of the epochs agrees with the batches, and is written before them. An epoch that the
log must not use, because records of it may be lost and on somebody's replica all the same, is no
part of it. It is noted beside the state (``due_epoch``): the next batch of a *client* begins a
higher one. What a replica is sent keeps the epochs that it has, higher or lower, and invents none.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from logstore.segments import filenames
from logstore.segments.checkpoint import EpochEntry, format_leader_epochs, parse_leader_epochs
from logstore.segments.errors import FormatError
from logstore.segments.files import Files, read_bounded, write_atomically
from logstore.state import LogState

__all__ = ["MAX_EPOCH", "advance_epochs", "assign", "read_epochs", "settle_epochs"]

_MAX_CHECKPOINT_BYTES = 16 << 20
MAX_EPOCH = (1 << 31) - 1
"""The largest leader epoch."""


def assign(entries: Sequence[EpochEntry], new: EpochEntry) -> list[EpochEntry]:
    """The entries with ``new`` behind them, and without those that contradict it: of a higher epoch
    or a later offset. (The rule of Kafka's ``LeaderEpochFileCache.assign``.)"""
    kept = [e for e in entries if e.epoch < new.epoch and e.start_offset < new.start_offset]
    return [*kept, new]


def settle_epochs(
    files: Files,
    directory: str,
    state: LogState,
    *,
    met: Sequence[EpochEntry],
    lost_memory: bool,
    save_due: Callable[[int], None],
) -> None:
    """Bring the epochs in line with a log that ends at ``state.next_offset``, and say in ``state``
    which one it has come to and whether one is due.

    ``met`` are the epochs that the scan of the tail met, each higher than the one before. After a
    loss of memory (``lost_memory``) nobody knows which records there were behind the end; a new
    epoch tells what is written there from them (KIP-101). Commit point: ``save_due``, which makes
    the epoch that is due durable before the entries that it follows from are cut off.
    """
    stored = read_epochs(files, directory)
    entries = [entry for entry in stored if entry.start_offset < state.next_offset]
    if not stored:
        entries = list(met)
    latest = max((entry.epoch for entry in (*stored, *met)), default=0)
    reached = entries[-1].epoch if entries else 0
    if lost_memory or latest > reached:
        state.due_epoch = max(state.due_epoch, min(latest + 1, MAX_EPOCH))
    if state.due_epoch > reached:
        save_due(state.due_epoch)
    elif not entries:
        entries = [EpochEntry(0, state.next_offset)]
    if entries != stored:
        _write_epochs(files, directory, entries)
    state.leader_epoch = entries[-1].epoch if entries else -1


def advance_epochs(files: Files, directory: str, new: Sequence[EpochEntry]) -> None:
    """Note the leader epochs that begin with the batches that are about to be appended."""
    entries = read_epochs(files, directory)
    for entry in new:
        entries = assign(entries, entry)
    _write_epochs(files, directory, entries)


def read_epochs(files: Files, directory: str) -> list[EpochEntry]:
    """What the checkpoint of the epochs says; nothing where there is none. Raises FormatError."""
    path = os.path.join(directory, filenames.LEADER_EPOCH_CHECKPOINT)
    try:
        data = read_bounded(files, path, _MAX_CHECKPOINT_BYTES)
    except FileNotFoundError:
        return []
    try:
        return parse_leader_epochs(data)
    except FormatError as error:
        raise error.at(path, 0) from None


def _write_epochs(files: Files, directory: str, entries: Sequence[EpochEntry]) -> None:
    path = os.path.join(directory, filenames.LEADER_EPOCH_CHECKPOINT)
    write_atomically(files, path, format_leader_epochs(entries))
