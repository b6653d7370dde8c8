"""What checkers have found: broken promises, and losses that nothing promised to spare."""

from __future__ import annotations

from collections import deque
from typing import Any, NamedTuple, get_args

from logstore.replication.history import Event, History

__all__ = ["Findings", "Loss", "Violation", "Wrong"]

RECENT_EVENTS = 40
"""How many events a violation carries."""
MOST_VIOLATIONS = 20
"""How many are kept of a run; further ones are only counted. One fault breaks many rules."""


class Wrong(NamedTuple):
    """What a rule has found: its name, and a sentence about it."""

    kind: str
    text: str


class Violation(NamedTuple):
    """Something that must not happen."""

    kind: str
    """One or two words: what rule it is that was broken."""
    at_us: int
    partition: str
    text: str
    """A sentence: who, where, what was expected and what was found."""
    events: tuple[Event, ...]
    """The last ones before it, and the one at which it was seen."""


class Loss(NamedTuple):
    """Acknowledged records that are gone, or a queue's acknowledgements that are, and nothing
    promised that they would not be."""

    partition: str
    first_offset: int
    record_ids: tuple[str, ...]
    acknowledged_us: int
    """When the first of them was."""
    lost_us: int
    """When the first replica was elected, or came back, that lacked them."""
    reasons: tuple[str, ...]
    """Why nothing promised that they would be there."""
    causes: tuple[Event, ...]
    """What happened from their append on that has to do with it."""
    what: str = "records"
    """... or ``acknowledgements``, which consumers of a queue were told to be there: the ids are
    those of the messages, which come back."""


class Findings:
    """All that the checkers of one run have found."""

    def __init__(self, history: History, *, unsound: str = "") -> None:
        """``unsound`` names a protocol that is known to break rules, and is simulated for that:
        what it breaks is kept apart."""
        self.violations: list[Violation] = []
        self.violation_count = 0
        self.known: list[Violation] = []
        """What a protocol broke that is known to break it."""
        self._unsound = unsound
        self._recent: deque[Any] = deque(maxlen=RECENT_EVENTS)
        for kind in get_args(Event):
            history.subscribe(kind, self._recent.append)

    def broken(
        self, kind: str, at_us: int, partition: str, text: str, *, sound: bool = False
    ) -> None:
        """Note a violation. ``sound``: no protocol that may be simulated is known for it."""
        violation = Violation(kind, at_us, partition, text, tuple(self._recent))
        if self._unsound and not sound:
            if len(self.known) < MOST_VIOLATIONS:
                self.known.append(violation)
            return
        self.violation_count += 1
        if len(self.violations) < MOST_VIOLATIONS:
            self.violations.append(violation)
