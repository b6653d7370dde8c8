"""What a partition knows of its producers, and whether it takes their next batch: decided purely.

Each producer has an id and an epoch, and numbers its records in each partition; a batch bears the
number of its first record (its *sequence*) in its header. So a partition can tell a batch that
comes once more from a new one, and notices one that is missing (source: KIP-98 and KIP-360, and
Kafka's ``ProducerStateManager`` and ``ProducerAppendInfo``):

- A batch of the last five, of the same epoch and with the same sequences, is a *duplicate*.
- One of a lower epoch than the last is *fenced*: another instance has taken the producer's place.
- One that does not go on behind the last is *out of order*. A new epoch begins at 0.
- A producer of whom nothing is known begins anywhere: its records may have been deleted.
- A producer is forgotten ``expiration_ms`` after its last batch, unless a transaction is open.

**Named producers** are ours (``logstore.producer_ids``): their ids begin at ``NAMED_IDS``. They
come back again and again under one name, with a higher epoch each time, and go on with their
sequences where the last instance ended; so the sequence says how many records of that name a
partition has been given. They are never forgotten.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import NamedTuple

from logstore.errors import InvalidInputError, OutOfOrderSequenceError, ProducerFencedError
from logstore.segments.producer_snapshot import ProducerEntry

__all__ = [
    "MAX_EPOCH",
    "NAMED_IDS",
    "SEQUENCES",
    "ProducerBatch",
    "ProducerStamp",
    "ProducerState",
    "ProducerStates",
    "SentBatch",
    "check_stamp",
    "new_batch",
    "sequence_after",
]

NAMED_IDS = 1 << 62
"""From here on ids are those of named producers."""

SEQUENCES = 1 << 31
"""How many sequence numbers there are: behind 2^31 - 1 comes 0."""

MAX_EPOCH = (1 << 15) - 1
"""The largest epoch that a batch's header can hold."""

_BATCHES = 5
"""So many of a producer's batches are remembered, as in Kafka."""

_NONE = -1


class ProducerStamp(NamedTuple):
    """Whose batch it is, and the number of its first record: what goes into its header."""

    producer_id: int
    epoch: int
    sequence: int
    transactional: bool = False
    """Whether it belongs to a transaction, which a marker will end."""


class ProducerBatch(NamedTuple):
    """What a batch says of its producer."""

    producer_id: int
    epoch: int
    sequence: int
    """Of its first record; -1 in a marker, and in what Kafka's coordinators write."""
    base_offset: int
    last_offset: int
    timestamp: int
    """The largest one, in milliseconds."""
    transactional: bool = False
    control: bool = False
    coordinator_epoch: int = _NONE
    """In a marker that ends a transaction: its coordinator's epoch; -1 where it is no such one."""


class SentBatch(NamedTuple):
    """A batch that is in the log."""

    first_sequence: int
    last_sequence: int
    base_offset: int
    last_offset: int
    timestamp: int


class ProducerState(NamedTuple):
    """What is known of one producer."""

    epoch: int
    batches: tuple[SentBatch, ...] = ()
    """The last ones of this epoch, the newest last; none if it has only written markers."""
    timestamp: int = _NONE
    """Of the last batch or marker, as its records say, in milliseconds."""
    coordinator_epoch: int = _NONE
    """Of the last marker; -1: none so far."""
    transaction_first_offset: int = _NONE
    """Where the transaction that is open began; -1: none is."""
    seen_ms: int = _NONE
    """When the batch was appended, if this process knows: records may bear times long past."""

    @property
    def last_sequence(self) -> int:
        """The number of the last record; -1 where there is none of this epoch."""
        return self.batches[-1].last_sequence if self.batches else _NONE

    @property
    def last_offset(self) -> int:
        """The offset of the last record; -1 likewise."""
        return self.batches[-1].last_offset if self.batches else _NONE

    @property
    def next_sequence(self) -> int:
        """The number of the next record."""
        return sequence_after(self.last_sequence)


_UNKNOWN = ProducerState(_NONE)

new_batch = partial(tuple.__new__, ProducerBatch)
"""``ProducerBatch._make`` without its Python frame."""
_new_sent = partial(tuple.__new__, SentBatch)
_new_state = partial(tuple.__new__, ProducerState)


def sequence_after(sequence: int, count: int = 1) -> int:
    """The sequence ``count`` records later; behind the largest one comes 0."""
    return (sequence + count) % SEQUENCES


def check_stamp(stamp: ProducerStamp) -> ProducerStamp:
    """The stamp; raises InvalidInputError where a number is out of bounds."""
    producer_id, epoch, sequence, _ = stamp
    try:
        if 0 <= producer_id < 1 << 63 and 0 <= epoch <= MAX_EPOCH and 0 <= sequence < SEQUENCES:
            return stamp
    except TypeError:
        pass
    raise InvalidInputError(
        f"{stamp!r} is out of bounds: ids are 0 to 2^63 - 1, epochs 0 to {MAX_EPOCH}, sequences 0 "
        f"to {SEQUENCES - 1}"
    )


class ProducerStates:
    """The producers of one partition. For one thread at a time."""

    def __init__(self, states: Mapping[int, ProducerState] | None = None) -> None:
        self._states = dict(states or {})

    def __len__(self) -> int:
        return len(self._states)

    @classmethod
    def from_entries(cls, entries: Iterable[ProducerEntry]) -> ProducerStates:
        """What a snapshot says."""
        return cls({entry.producer_id: _from_entry(entry) for entry in entries})

    def entries(self) -> list[ProducerEntry]:
        """What a snapshot is to say, by ascending id."""
        return [_to_entry(*item) for item in sorted(self._states.items())]

    def forget_expired(self, now_ms: int, expiration_ms: int) -> None:
        """Forget the producers that have been silent for ``expiration_ms``."""
        self._states = {
            producer_id: state
            for producer_id, state in self._states.items()
            if not _is_expired(producer_id, state, now_ms, expiration_ms)
        }

    def get(self, producer_id: int, now_ms: int, expiration_ms: int) -> ProducerState | None:
        """What is known of a producer; None for one that is not known, or not any more."""
        state = self._states.get(producer_id)
        if state is None or _is_expired(producer_id, state, now_ms, expiration_ms):
            return None
        return state

    def known(self) -> Mapping[int, ProducerState]:
        """All of them by id, expired ones included."""
        return self._states

    def trial(self, producer_ids: Iterable[int]) -> ProducerStates:
        """A copy of what is known of these, to try several batches on."""
        states = self._states
        return ProducerStates({key: states[key] for key in set(producer_ids) if key in states})

    def continues(self, batch: ProducerBatch) -> bool:
        """Whether a batch is the one that comes next, which it nearly always is: the rest of
        :meth:`check` can be spared then."""
        state = self._states.get(batch[0])
        if state is None or state[0] != batch[1] or not (batches := state[1]):
            return False
        return (batches[-1][1] + 1) % SEQUENCES == batch[2]

    def check(
        self, batch: ProducerBatch, now_ms: int, expiration_ms: int, name: str
    ) -> SentBatch | None:
        """Whether the partition called ``name`` takes a client's batch: None if it does, and where
        it is already if it is a duplicate.

        Raises ProducerFencedError and OutOfOrderSequenceError.
        """
        producer_id = batch.producer_id
        state = self.get(producer_id, now_ms, expiration_ms)
        if state is None:
            return None
        epoch, sequence = batch.epoch, batch.sequence
        expected = state.next_sequence
        if epoch == state.epoch:
            if sequence == expected or batch.control:
                return None
            last = sequence_after(sequence, batch.last_offset - batch.base_offset)
            for sent in state.batches:
                if sent.first_sequence == sequence and sent.last_sequence == last:
                    return sent
        elif epoch < state.epoch:
            raise ProducerFencedError(
                f"{name}: producer {producer_id} of epoch {epoch} is fenced: another instance has "
                f"written in epoch {state.epoch}"
            )
        elif batch.control:
            return None
        elif producer_id < NAMED_IDS:
            expected = 0
        if sequence != expected:
            raise OutOfOrderSequenceError(
                f"{name}: a batch of producer {producer_id}, epoch {epoch}, begins with sequence "
                f"{sequence}, where {expected} was expected"
            )
        return None

    def note(self, batch: ProducerBatch, seen_ms: int = _NONE) -> None:
        """Take in a batch that is in the log, whatever it says; ``seen_ms``: when it was
        appended."""
        producer_id, epoch, sequence = batch.producer_id, batch.epoch, batch.sequence
        base, last_offset, timestamp = batch.base_offset, batch.last_offset, batch.timestamp
        state = self._states.get(producer_id, _UNKNOWN)
        known_epoch, batches, _, coordinator_epoch, first_offset, _ = state
        if known_epoch != epoch:
            batches = ()
        if batch.control:
            if batch.coordinator_epoch == _NONE:
                return  # no end of a transaction, or one that compaction has emptied
            self._states[producer_id] = ProducerState(
                epoch, batches, timestamp, batch.coordinator_epoch, seen_ms=seen_ms
            )
            return
        last = _NONE if sequence < 0 else (sequence + last_offset - base) % SEQUENCES
        sent = _new_sent((sequence, last, base, last_offset, timestamp))
        if batch.transactional and first_offset < 0:
            first_offset = base
        batches = (*batches[1 - _BATCHES :], sent)
        self._states[producer_id] = _new_state(
            (epoch, batches, timestamp, coordinator_epoch, first_offset, seen_ms)
        )


def _is_expired(producer_id: int, state: ProducerState, now_ms: int, expiration_ms: int) -> bool:
    return (
        now_ms - max(state.timestamp, state.seen_ms) >= expiration_ms
        and state.transaction_first_offset < 0
        and producer_id < NAMED_IDS
    )


def _from_entry(entry: ProducerEntry) -> ProducerState:
    batches: tuple[SentBatch, ...] = ()
    if entry.last_offset >= 0:
        last, delta = entry.last_sequence, entry.offset_delta
        first = _NONE if last < 0 else sequence_after(last, -delta)
        sent = SentBatch(first, last, entry.last_offset - delta, entry.last_offset, entry.timestamp)
        batches = (sent,)
    return ProducerState(
        entry.producer_epoch,
        batches,
        entry.timestamp,
        entry.coordinator_epoch,
        entry.current_transaction_first_offset,
    )


def _to_entry(producer_id: int, state: ProducerState) -> ProducerEntry:
    last = state.batches[-1] if state.batches else None
    return ProducerEntry(
        producer_id=producer_id,
        producer_epoch=state.epoch,
        last_sequence=state.last_sequence,
        last_offset=state.last_offset,
        offset_delta=0 if last is None else last.last_offset - last.base_offset,
        # Kafka looks at it for one purpose, to forget who has been silent for long.
        timestamp=max(state.timestamp, state.seen_ms),
        coordinator_epoch=state.coordinator_epoch,
        current_transaction_first_offset=state.transaction_first_offset,
    )
