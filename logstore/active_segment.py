"""The shared state and the active segment's three files, as one handle knows them.

Whoever holds the partition's lock *enters*: takes in what other processes have appended, rolled
or cut since this handle last held it, settles what a killed writer left, and has the files of the
active segment open.
"""

from __future__ import annotations

import os

from logstore.appending import MAX_OFFSET, deleted_error, poisoned_error
from logstore.config import LogConfig
from logstore.loader import recover, settle_tail
from logstore.producer_tracker import ProducerTracker
from logstore.segments import filenames, offset_index, time_index
from logstore.segments.checksum import crc32
from logstore.segments.files import File, Files
from logstore.state import DELETED, POISONED, LogState, StateFile
from logstore.structure import segment_path

__all__ = ["ActiveSegment"]

_ROLL_BYTES = 8 << 20
"""So many bytes may well be left for the sync of a roll, which is done under the lock."""


class ActiveSegment:
    """What ``LogWriter`` writes to. Every method is for the holder of the partition's lock."""

    def __init__(
        self,
        files: Files,
        directory: str,
        config: LogConfig,
        state_file: StateFile,
        producers: ProducerTracker,
    ) -> None:
        self.producers = producers
        """What is known of producers; nothing until one of them comes."""
        self._files = files
        self._directory = directory
        self._name = os.path.basename(os.path.abspath(directory))
        self._state_file = state_file
        self.look = state_file.block
        """The shared block as it is now."""
        self._store = state_file.store
        self._block = b""
        """The shared block that ``_state`` was read from or written as. If it is still the same,
        the files are open, and the log is not poisoned."""
        self._state = LogState()
        """The shared state as this writer knows it."""
        self.written: tuple[bytes, int] = b"", 0
        """The shared block that the last append has left, and the log's end that it tells: as long
        as the block is the same, nobody has to unpack it to know that. Replaced as a whole."""
        self._open_for: tuple[int, int] | None = None
        """Generation and base offset for which the three files below are open."""
        self._roll_after_ms = 0
        """The segment is rolled when records come that are this much younger than its first."""
        self._max_next_offset = 0
        """And when the log's end would lie behind this: indexes store offsets in 4 bytes."""
        self._sync_from = 0
        """The size of the segment from which on it is time to sync what is there: half of the room
        that was left when that was last looked at."""
        self._log: File
        self._offset_index: File
        self._time_index: File
        self.has_written = False
        """Whether a clean close has anything to save."""
        self.configure(config)

    def configure(self, config: LogConfig) -> None:
        """Go on by this configuration."""
        self._config = config
        self.producers.config = config
        self._segment_bytes = config.segment_bytes
        self._index_interval_bytes = config.index_interval_bytes
        # An index is full by Kafka's count: the time index keeps room for the entry of the roll.
        self._max_offset_entries = config.segment_index_bytes // offset_index.ENTRY_BYTES
        self._max_time_entries = config.segment_index_bytes // time_index.ENTRY_BYTES - 1
        if self._open_for is not None:
            self._roll_after_ms = self._age_of(self._open_for[1])

    def close(self) -> None:
        """Let go of the files; closing twice is allowed."""
        self._block = b""
        if self._open_for is not None:
            self._log.close()
            self._offset_index.close()
            self._time_index.close()
            self._open_for = None

    def enter(self, *, opening: bool = False) -> LogState:
        """Take in what has changed since this handle last held the lock."""
        state = self._state
        if self._block == self.look() and self._log.size() == state.valid_end:
            return state
        return self._take_in(opening)

    def _take_in(self, opening: bool) -> LogState:
        if self._block != (block := self.look()):
            state = LogState.unpack(block)
            if state is not None and state.flags & DELETED and self._state_file.is_ours():
                raise deleted_error(self._directory)
            if (
                state is None
                or state.generation & 1
                or not self._state_file.is_ours()
                or (opening and state.flags & POISONED)
            ):
                state = self._recover()
            else:
                self._state, self._block = state, block
        state = self._state
        if self._open_for != (state.generation, state.active_base):
            self._open_active(state)
            if not state.flags & POISONED and self._indexes_are_short(state):
                state = self._derive_anew()
        if self._log.size() != state.valid_end:
            state = self._settle()
        if state.flags & POISONED:
            self._block = b""
            raise poisoned_error(self._directory)
        if opening:
            self.close()  # until somebody appends: a store may have thousands of partitions open
        return state

    def _recover(self) -> LogState:
        self._state = recover(
            self._files,
            self._directory,
            self._config,
            self._state_file,
            known_generation=self._state.generation,
            sync_failed=self._poison_recovery,
        )
        self.has_written = True
        # In this order: a kill in between must not make the state of an earlier run ours.
        self._block = self._state_file.publish(self._state)
        self._state_file.adopt()
        return self._state

    def _poison_recovery(self) -> None:
        """A sync failed in a recovery: the next one must not believe that another saves anything.

        The torn tail was cut by then, so that the state may speak of this run of the machine.
        """
        generation = self._state_file.leftover(self._state.generation).generation | 1
        self._state_file.publish(LogState(generation=generation, flags=POISONED))
        self._state_file.adopt()

    def _indexes_are_short(self, state: LogState) -> bool:
        """Whether an index lacks entries that the state counts: the next one would leave a hole."""
        progress = state.progress
        return (
            self._offset_index.size() < progress.offset_entries * offset_index.ENTRY_BYTES
            or self._time_index.size() < progress.time_entries * time_index.ENTRY_BYTES
        )

    def _derive_anew(self) -> LogState:
        """Somebody cut or removed a file behind our back: what is left of the log counts.

        The checkpoint goes first: it speaks of the files as they were.
        """
        self._state_file.drop_checkpoint()
        state = self._recover()
        self._open_active(state)
        return state

    def _settle(self) -> LogState:
        """The file is longer or shorter than the state says."""
        if self._log.size() < self._state.valid_end:
            return self._derive_anew()
        try:
            settle_tail(self._files, self._directory, self._log, self._state, self._config)
        except BaseException:
            self._block = b""
            raise
        self.has_written = True
        self._block = self._state_file.publish(self._state)
        return self._state

    def _open_active(self, state: LogState) -> None:
        block, self._block = self._block, b""
        self.close()
        opened = [
            self._files.open(
                segment_path(self._directory, state.active_base, suffix),
                write=True,
                create=suffix != filenames.LOG,
            )
            for suffix in (filenames.LOG, filenames.OFFSET_INDEX, filenames.TIME_INDEX)
        ]
        self._log, self._offset_index, self._time_index = opened
        self._open_for = (state.generation, state.active_base)
        self._max_next_offset = min(MAX_OFFSET, state.active_base + offset_index.MAX_RELATIVE)
        self._plan_sync(state.valid_end)
        self._trim_indexes(state)
        self._roll_after_ms = self._age_of(state.active_base)
        self._block = block

    def _age_of(self, base: int) -> int:
        # All processes must agree on the jitter, and no two segments should: it is a hash. By the
        # directory's own name, since each process may have come to it by another path.
        spread = min(self._config.segment_jitter_ms, self._config.longest_segment_ms)
        seed = crc32(f"{self._name} {base}".encode(errors="surrogateescape"))
        return self._config.longest_segment_ms - (seed % spread if spread else 0)

    def _plan_sync(self, position: int) -> None:
        room = self._segment_bytes - position
        self._sync_from = position + room // 2 if room > _ROLL_BYTES else MAX_OFFSET

    def _trim_indexes(self, state: LogState) -> None:
        """Take off what lies behind the entries that count: a killed writer's, or a broker's
        zeros."""
        for file, size in (
            (self._offset_index, state.progress.offset_entries * offset_index.ENTRY_BYTES),
            (self._time_index, state.progress.time_entries * time_index.ENTRY_BYTES),
        ):
            if file.size() > size:
                file.truncate(size)
