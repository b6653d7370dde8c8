"""The producers of a partition, as a handle keeps track of them under the partition's lock.

Nothing is known, and nothing is looked at, until a batch comes that bears a producer's id; a log
that no producer writes to pays nothing. Then the snapshots and what stands behind them are read
(``logstore.producer_log``), and from then on only the headers of what others have appended since.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterable, Sequence

from logstore.clock import Clock
from logstore.config import LogConfig
from logstore.errors import FormatError
from logstore.producer_log import Known, advance, of_batch, save
from logstore.producer_states import ProducerBatch, ProducerState, ProducerStates, SentBatch
from logstore.reader import LogReader, View
from logstore.segments.batch import Batch
from logstore.segments.files import Files
from logstore.state import LogState
from logstore.structure import drop_snapshots, list_segments, list_snapshots

__all__ = ["ProducerTracker"]

_log = logging.getLogger("logstore")

_FAR_BYTES = 8 << 20
"""What lies further back is read before the lock is taken, and not with it in hand."""


class ProducerTracker:
    """What one handle knows. Every method but :meth:`prepare` is for the holder of the partition's
    lock, and takes the state that the holder entered with."""

    def __init__(
        self,
        files: Files,
        directory: str,
        config: LogConfig,
        reader: LogReader,
        clock: Clock,
    ) -> None:
        self._files = files
        self._directory = directory
        self.config = config
        self._reader = reader
        self._clock = clock
        self._known: Known | None = None
        """None as long as nobody has asked. Replaced, or changed with the lock in hand."""
        self._prepared: Known | None = None
        """What was read without the lock, for whoever takes it next."""

    def is_at(self, offset: int) -> bool:
        """Whether the producers are known up to this offset."""
        known = self._known
        return known is not None and known.offset == offset

    def prepare(self, look: Callable[[], View]) -> None:
        """Without the lock: read what is far behind, so that others need not wait for it."""
        known = self._known
        view = look()
        state = view.state
        if known is not None and known.holds_for(view):
            near = known.base_offset == state.active_base
            if near and state.valid_end - known.position <= _FAR_BYTES:
                return
            known = known.copy()
        elif state.valid_end <= _FAR_BYTES and len(view.bases) < 2:
            return
        # If the files are changed meanwhile, it is done again with the lock in hand.
        with contextlib.suppress(FormatError, FileNotFoundError):
            self._prepared = self._advance(known, view)

    def states(self, state: LogState) -> ProducerStates:
        """The producers as they are at the log's end."""
        known = self._known
        if (
            known is None
            or known.offset != state.next_offset
            or known.generation < state.tail_generation
        ):
            known = self._catch_up(state)
        return known.states

    def _catch_up(self, state: LogState) -> Known:
        before, self._known = self._known, None  # an error in the middle leaves nothing half done
        prepared, self._prepared = self._prepared, None
        active = state.active_base
        view = View(b"", state, (active,))
        known = max(
            (one for one in (before, prepared) if one is not None and one.holds_for(view)),
            key=lambda one: one.offset,
            default=None,
        )
        if known is None or known.base_offset != active:
            bases = list_segments(self._files, self._directory)
            view = View(b"", state, tuple(base for base in bases if base <= active))
        known = self._advance(known, view)
        if before is None and active > max((0, *list_snapshots(self._files, self._directory))):
            # Other segments had to be read for it: that need not happen twice.
            self._save(known.states, known.offset)
        self._known = known
        return known

    def _advance(self, known: Known | None, view: View) -> Known:
        return advance(
            known,
            self._files,
            self._directory,
            self.config,
            self._reader,
            view,
            now_ms=self._clock.now_ms(),
        )

    def get(self, state: LogState, producer_id: int) -> ProducerState | None:
        """What is known of one producer, if anything is."""
        expiration_ms = self.config.producer_id_expiration_ms
        return self.states(state).get(producer_id, self._clock.now_ms(), expiration_ms)

    def check(self, state: LogState, batch: ProducerBatch) -> SentBatch | None:
        """Whether a client may append the batch, and where it is already if it is a duplicate."""
        states = self.states(state)
        if states.continues(batch):
            return None
        return states.check(
            batch,
            self._clock.now_ms(),
            self.config.producer_id_expiration_ms,
            self._directory,
        )

    def check_all(self, state: LogState, batches: Sequence[Batch]) -> list[SentBatch | None]:
        """The same for batches of a client that come together, one behind the other; those without
        a producer are taken."""
        now_ms = self._clock.now_ms()
        expiration_ms = self.config.producer_id_expiration_ms
        trial = self.states(state).trial(batch.header.producer_id for batch in batches)
        offset = state.next_offset
        found = []
        for raw in batches:
            sent = None
            if raw.header.producer_id >= 0:
                batch = of_batch(raw)
                last = offset + raw.header.last_offset_delta
                batch = batch._replace(base_offset=offset, last_offset=last)
                sent = trial.check(batch, now_ms, expiration_ms, self._directory)
                if sent is None:
                    trial.note(batch, now_ms)
            if sent is None:
                offset += raw.header.last_offset_delta + 1
            found.append(sent)
        return found

    def wrote(self, state: LogState, batches: Iterable[ProducerBatch], now_ms: int) -> None:
        """Take in what was just appended, with nothing else appended since :meth:`states`."""
        known = self._known
        if known is None:
            return
        # Ctrl-C in between leaves nothing known, and not half of it.
        self._known = None
        for batch in batches:
            known.states.note(batch, now_ms)
        known.offset = state.next_offset
        known.base_offset = state.active_base
        known.position = state.valid_end
        known.generation = state.generation
        self._known = known

    def save(self, state: LogState, offset: int) -> None:
        """Where somebody has asked for producers: write the snapshot at ``offset``, the log's end,
        and drop those that it makes needless. The log is on stable storage.

        A snapshot that cannot be written is missing, and no more than that.
        """
        if self._known is not None:
            states = self.states(state)
            states.forget_expired(self._clock.now_ms(), self.config.producer_id_expiration_ms)
            self._save(states, offset)

    def _save(self, states: ProducerStates, offset: int) -> None:
        try:
            save(self._files, self._directory, states, offset)
            drop_snapshots(self._files, self._directory, end=offset)
        except OSError as error:
            _log.warning("%s: no producer snapshot at %d: %s", self._directory, offset, error)
