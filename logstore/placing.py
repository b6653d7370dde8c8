"""Giving batches their place: what an append does under the partition's lock."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from logstore.appending import Appended, Guard, LogView, new_appended
from logstore.ready import check_offsets, new_epochs, placed
from logstore.segments.batch import Batch, place
from logstore.writer import LogWriter, batch_size

__all__ = ["write_ready", "write_sealed"]


def write_sealed(
    writer: LogWriter,
    sealed: tuple[int, bytes, int, int, int],
    guard: Guard | None,
) -> tuple[Appended, bool]:
    """Write a sealed batch (see ``seal_parts``) behind the end of the log. Returns where it went,
    and whether it is time to sync the segment. Raises what ``guard`` and the writer raise."""
    crc, tail, count, timestamp, size = sealed
    state = writer.enter()
    if guard is not None:
        guard(LogView(state.log_start_offset, state.next_offset, state.leader_epoch))
    if state.due_epoch > state.leader_epoch:
        writer.begin_due_epoch(state)
    base = state.next_offset
    last = base + count - 1
    raw = place(crc, tail, base, state.leader_epoch)
    due = writer.write(state, raw, base, ((size, last, timestamp),))
    return new_appended((base, last, timestamp)), due


def write_ready(
    writer: LogWriter,
    batches: Sequence[Batch],
    guard: Guard | None,
    *,
    origin: Literal["client", "replica"],
    append_timestamp: int | None,
    name: str,
) -> tuple[Appended, bool]:
    """The same for ready batches: a client's get the next offsets (and ``append_timestamp``), a
    replica's keep theirs. ``name`` stands in errors."""
    state = writer.enter()
    if guard is not None:
        guard(LogView(state.log_start_offset, state.next_offset, state.leader_epoch))
    if origin == "client":
        if state.due_epoch > state.leader_epoch:
            writer.begin_due_epoch(state)
        batches = placed(batches, state.next_offset, state.leader_epoch, append_timestamp)
    else:
        check_offsets(batches, state.next_offset, name)
        epochs = new_epochs(batches, state.leader_epoch)
        if epochs:
            writer.begin_epochs(state, epochs)
    sizes = [batch_size(batch.header) for batch in batches]
    base = batches[0].header.base_offset
    due = writer.write(state, b"".join(batch.raw for batch in batches), base, sizes)
    return new_appended((base, sizes[-1][1], max(size[2] for size in sizes))), due
