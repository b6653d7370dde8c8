"""The ``state`` file of a partition: what all processes that have it open know together.

The file has a fixed size, is never replaced, and is mapped by everybody. Three blocks, each with a
CRC-32C of its own:

- *identity*, written when the state is derived: boot id, device and inode. A state from before a
  restart of the machine, or one that was copied with its directory, is recognised and not trusted.
- *shared*: the log's end and all that goes with it, rewritten by each append under the
  partition's lock. Readers take no lock: a block whose checksum is wrong was read while it was
  being written, and is read again.
- *checkpoint*, synced when the log is closed, rolled or cut: up to where everything was known to
  be on stable storage, which bounds how much a recovery has to read; and with it a few
  :class:`Marks` that must outlive the machine.

The state is a cache. Whoever finds it missing, foreign or broken derives it anew from the log,
under the lock (``logstore.loader``).
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

from logstore.segments.checksum import crc32c, crc32c_extend
from logstore.segments.files import SharedBytes
from logstore.segments.indexing import IndexProgress

__all__ = [
    "CLEAN",
    "DELETED",
    "POISONED",
    "STATE_BYTES",
    "Checkpoint",
    "LogState",
    "Marks",
    "StateFile",
]

STATE_BYTES = 4096
"""Size of the file."""

POISONED = 1
"""The flag of a log whose last sync failed."""
DELETED = 2
"""The flag of a log whose topic was deleted: every handle refuses."""

CLEAN = 4
"""The flag of a log that is marked as closed cleanly: whoever writes removes the mark first."""

_STRIDE = 1 << 20
"""How far the generation moves on where nobody knows how far it had come: further than the handles
that have the log open can have seen it come since this one looked."""

_CRC = struct.Struct("<I")
_IDENTITY = struct.Struct("<8sI36sQQ")
_IDENTITY_MAGIC = b"LOGSTATE"
_IDENTITY_VERSION = 1
_SHARED = struct.Struct("<Q8qII3qiiIQ")
_pack_shared = _SHARED.pack
_pack_crc = _CRC.pack
_SHARED_POSITION = 128
_BLOCK = slice(_SHARED_POSITION, _SHARED_POSITION + _SHARED.size + _CRC.size)
_CHECKPOINT = struct.Struct("<8s5qII3qIiq")
_CHECKPOINT_MAGIC = b"LOGCHECK"
_CHECKPOINT_POSITION = 1024


@dataclass(slots=True)
class LogState:
    """The shared block: what an appender needs to append and a reader to read."""

    generation: int = 0
    """Counts the changes to the set of files; odd while one is under way."""
    active_base: int = 0
    """The base offset of the active segment."""
    valid_end: int = 0
    """The position in the active segment's log behind the last whole batch."""
    log_start_offset: int = 0
    """The first offset that may be read."""
    next_offset: int = 0
    """The log end offset: the next record gets it."""
    last_stable_offset: int = 0
    """The first offset of the earliest open transaction, or the log end offset."""
    synced_offset: int = 0
    """All records below it are on stable storage."""
    first_timestamp: int = -1
    """The largest timestamp of the active segment's first batch, -1 while there is none."""
    progress: IndexProgress = field(default_factory=IndexProgress)
    """How far the active segment's indexes have come."""
    leader_epoch: int = 0
    """The epoch that the log has come to; -1 where it has none yet."""
    due_epoch: int = 0
    """If it is higher than ``leader_epoch``: the next batch of a client begins an epoch, this one
    or a later one."""
    flags: int = 0
    """``POISONED``, ``DELETED`` and ``CLEAN``, each or none."""
    tail_generation: int = 0
    """The generation since which nothing was taken from the log's end: whoever knows what stood
    there in this one or a later one, knows all of it but what was appended since."""

    def pack(self) -> bytes:
        """The shared block with its checksum."""
        progress = self.progress
        data = _pack_shared(
            self.generation,
            self.active_base,
            self.valid_end,
            self.log_start_offset,
            self.next_offset,
            self.last_stable_offset,
            self.synced_offset,
            self.first_timestamp,
            progress.bytes_since_entry,
            progress.offset_entries,
            progress.time_entries,
            progress.last_time_entry,
            progress.max_timestamp,
            progress.max_timestamp_offset,
            self.leader_epoch,
            self.due_epoch,
            self.flags,
            self.tail_generation,
        )
        return data + _pack_crc(crc32c_extend(0, data))

    @classmethod
    def unpack(cls, block: bytes) -> LogState | None:
        """The state in a shared block, or None when its checksum is wrong."""
        data = block[: _SHARED.size]
        if block[_SHARED.size :] != _pack_crc(crc32c(data)):
            return None
        (a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q, r) = _SHARED.unpack(data)  # noqa: E741
        # Without names and without a slice: who waits for one message unpacks a state for each.
        return cls(a, b, c, d, e, f, g, h, IndexProgress(i, j, k, l, m, n), o, p, q, r)


class Checkpoint(NamedTuple):
    """Up to where a segment was known to be on stable storage, and what an appender knew there."""

    active_base: int
    valid_end: int
    next_offset: int
    first_timestamp: int
    progress: IndexProgress

    @classmethod
    def of(cls, state: LogState) -> Checkpoint:
        """The checkpoint of a log that is synced as a whole."""
        return cls(
            state.active_base,
            state.valid_end,
            state.next_offset,
            state.first_timestamp,
            state.progress,
        )


class Marks(NamedTuple):
    """What has to be known after a power cut, and stands nowhere else."""

    clean: bool = False
    """The log was closed, and nobody has written since: nothing can be missing at its end."""
    due_epoch: int = 0
    """As in the state."""
    lowest_end: int = 0
    """Where a truncation cuts: the log never ends in front of it."""


class StateFile:
    """The mapped file. Writing is for whoever holds the partition's lock."""

    def __init__(self, shared: SharedBytes, boot_id: str) -> None:
        self._shared = shared
        self._buffer = shared.buffer
        self.block: Callable[[], bytes] = self._copy_block
        """The shared block as it is now; two equal blocks mean that nothing has changed."""
        if isinstance(self._buffer, mmap.mmap):  # whose slices are bytes: one call less
            get: Callable[[slice], bytes] = self._buffer.__getitem__
            self.block = partial(get, _BLOCK)
        elif isinstance(self._buffer, bytearray):
            self.block = memoryview(self._buffer)[_BLOCK].tobytes
        self.store: Callable[[bytes], None] = partial(self._buffer.__setitem__, _BLOCK)
        """Write the shared block, for all processes to see at once."""
        device, inode = shared.identity
        identity = _IDENTITY.pack(
            _IDENTITY_MAGIC, _IDENTITY_VERSION, boot_id.encode(), device % (1 << 64), inode
        )
        self._identity = identity + _CRC.pack(crc32c(identity))

    def is_ours(self) -> bool:
        """Whether the state was derived here, since the machine started."""
        return self._buffer[: len(self._identity)] == self._identity

    def adopt(self) -> None:
        """Say that the state was derived here, now."""
        self._buffer[: len(self._identity)] = self._identity

    def _copy_block(self) -> bytes:
        return bytes(self._buffer[_BLOCK])

    def leftover(self, known_generation: int = 0) -> LogState:
        """What an untrusted state says all the same: generation, poison and due epoch of the
        machine's current run, whose processes may have the file mapped, and nothing else.

        ``known_generation`` is one that the caller has seen. A writer that is killed while it
        publishes leaves a block whose checksum is wrong; its generation is its first 8 bytes,
        which are written as one. But the file may have been overwritten by anybody, zeros for one:
        then the generation must not become one that an open handle knows from before.
        """
        block = self.block()
        state = LogState.unpack(block)
        if state is None:
            found = int.from_bytes(block[:8], "little") % (1 << 62)
            return LogState(generation=(max(found, known_generation) + _STRIDE) % (1 << 62))
        generation = max(state.generation, known_generation)
        if not self.is_ours():
            return LogState(generation=generation % (1 << 62))
        flags = state.flags & POISONED
        return LogState(generation=generation, due_epoch=state.due_epoch, flags=flags)

    def generation(self) -> int:
        """The generation as it is now; 8 bytes that are written as one."""
        return int.from_bytes(self._buffer[_SHARED_POSITION : _SHARED_POSITION + 8], "little")

    def publish(self, state: LogState) -> bytes:
        """Write the shared block, for all processes to see at once; returns what was written."""
        block = state.pack()
        self.store(block)
        return block

    def mark_deleted(self) -> None:
        """Make every handle refuse, in whatever condition the state is."""
        state = LogState.unpack(self.block()) or self.leftover()
        state.flags |= DELETED
        self.publish(state)
        self.adopt()

    def checkpoint(self) -> Checkpoint | None:
        """The checkpoint, or None where there is none for this very file.

        It is read after a restart, when the identity is another's; the inode must still be this.
        """
        return self._saved()[0]

    def marks(self) -> Marks:
        """The marks beside the checkpoint; none where they are not of this very file."""
        return self._saved()[1]

    def _saved(self) -> tuple[Checkpoint | None, Marks]:
        end = _CHECKPOINT_POSITION + _CHECKPOINT.size
        data = bytes(self._buffer[_CHECKPOINT_POSITION:end])
        stored = bytes(self._buffer[end : end + _CRC.size])
        if stored != _CRC.pack(crc32c(data + self._place())):
            return None, Marks()
        numbers = _CHECKPOINT.unpack(data)
        if numbers[0] != _CHECKPOINT_MAGIC:
            return None, Marks()
        base, valid_end, next_offset, first_timestamp, *progress = numbers[1:11]
        clean, *rest = numbers[11:]
        place = (base, valid_end, next_offset, first_timestamp, IndexProgress(*progress))
        return None if base < 0 else Checkpoint(*place), Marks(bool(clean), *rest)

    def save_checkpoint(self, checkpoint: Checkpoint, marks: Marks) -> None:
        """Write and sync the checkpoint, and the marks with it.

        Commit point: the sync. A crash before it leaves the old checkpoint and marks, or ones whose
        checksum is wrong; both only make the next recovery read more, and call the log unclean.
        """
        progress = checkpoint.progress
        data = _CHECKPOINT.pack(
            _CHECKPOINT_MAGIC,
            checkpoint.active_base,
            checkpoint.valid_end,
            checkpoint.next_offset,
            checkpoint.first_timestamp,
            progress.bytes_since_entry,
            progress.offset_entries,
            progress.time_entries,
            progress.last_time_entry,
            progress.max_timestamp,
            progress.max_timestamp_offset,
            int(marks.clean),
            marks.due_epoch,
            marks.lowest_end,
        )
        data += _CRC.pack(crc32c(data + self._place()))
        self._buffer[_CHECKPOINT_POSITION : _CHECKPOINT_POSITION + len(data)] = data
        self._shared.sync()

    def save_marks(self, marks: Marks) -> None:
        """Write and sync the marks; the checkpoint stays as it is."""
        self.save_checkpoint(self.checkpoint() or _NO_CHECKPOINT, marks)

    def drop_checkpoint(self, *, lowest_end: int = 0) -> None:
        """Make sure that no checkpoint survives a crash: before a log is cut (at ``lowest_end``).

        Of the marks, a leader epoch that is due stays so.
        """
        due_epoch = self.marks().due_epoch
        self.save_checkpoint(_NO_CHECKPOINT, Marks(due_epoch=due_epoch, lowest_end=lowest_end))

    def _place(self) -> bytes:
        return struct.pack("<QQ", self._shared.identity[0] % (1 << 64), self._shared.identity[1])

    def close(self) -> None:
        """Unmap the file; closing twice is allowed."""
        self._shared.close()


_NO_CHECKPOINT = Checkpoint(-1, 0, 0, -1, IndexProgress())
"""What stands in the file where there are only marks."""
