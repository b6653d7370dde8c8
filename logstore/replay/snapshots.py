"""Copies of the states of a fold, from which it is folded again to go back.

Folds may change the state that they are given, so only a copy keeps what it was. Copies are made
by ``pickle``, which is quick and tells their size, and by ``copy.deepcopy`` of what cannot be
pickled. There are never more than so many of them, nor of more than so many bytes. Those that go
are missed least: near the place where one stands they lie close together, and far away further and
further apart.
"""

from __future__ import annotations

import copy
import pickle
from bisect import bisect_right
from collections.abc import Callable
from typing import Any, NamedTuple

from logstore.fetcher import ConsumerRecord
from logstore.replay.errors import ReplayError
from logstore.replay.source import Position

__all__ = ["Snapshot", "Snapshots", "copied"]

_SCALARS = (type(None), bool, int, float, str, bytes)


def copied(state: Any) -> Callable[[], Any]:
    """What gives a copy of a state, as it is now, each time; raises ReplayError where a state
    cannot be copied."""
    return _copy(state)[0]


def _copy(state: Any) -> tuple[Callable[[], Any], int]:
    """The same, and about the bytes that it takes."""
    if type(state) in _SCALARS:
        return (lambda: state), 32
    try:
        data = pickle.dumps(state, 5)
        pickle.loads(data)  # what can be written need not be readable
    except Exception:  # noqa: BLE001 - a state's own code may raise anything
        return _deep_copy(state), 1 << 10
    return (lambda: pickle.loads(data)), len(data)


def _deep_copy(state: Any) -> Callable[[], Any]:
    try:
        kept = copy.deepcopy(state)
    except Exception as error:
        raise ReplayError(
            f"a {type(state).__name__} cannot be copied, and a fold that may change its state "
            f"cannot be run backwards without: {type(error).__name__}: {error}"
        ) from error
    return lambda: copy.deepcopy(kept)


class Snapshot(NamedTuple):
    """A state behind the first so many records."""

    behind: int
    """How many."""
    position: Position
    """Of the source, behind them."""
    record: ConsumerRecord | None
    """The last of them."""
    newest: int
    """The largest timestamp among them; -1 where there is none."""
    state: Callable[[], Any]
    """Gives a copy."""
    size: int


class Snapshots:
    """Some of the states that were passed, by how many records lay behind them."""

    def __init__(self, begin: Position, *, most: int = 64, most_bytes: int = 256 << 20) -> None:
        """``begin`` is the source's position in front of everything, where the state is None."""
        self._most = max(most, 3)
        self._most_bytes = most_bytes
        self._kept: list[Snapshot] = [Snapshot(0, dict(begin), None, -1, lambda: None, 0)]

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def size(self) -> int:
        """About the bytes that they take."""
        return sum(one.size for one in self._kept)

    def add(
        self,
        index: int,
        position: Position,
        record: ConsumerRecord | None,
        newest: int,
        state: Any,
    ) -> None:
        """Keep a copy of the state behind ``index`` records, unless there is one."""
        place = self._place(index)
        if self._kept[place - 1].behind == index:
            return
        state_copy, size = _copy(state)
        self._kept.insert(place, Snapshot(index, position, record, newest, state_copy, size))
        while len(self._kept) > self._most or (
            len(self._kept) > 3 and self.size > self._most_bytes
        ):
            del self._kept[self._least_missed(index)]

    def _least_missed(self, here: int) -> int:
        """The place of the one without which going back takes least longer: the first and the one
        just made stay."""
        kept = self._kept

        def missed(place: int) -> float:
            behind = kept[place + 1].behind if place + 1 < len(kept) else kept[place].behind + 1
            gap = behind - kept[place - 1].behind
            return gap / (abs(here - kept[place].behind) + 1)

        places = [place for place in range(1, len(kept)) if kept[place].behind != here]
        return min(places, key=missed)

    def nearest(self, index: int) -> Snapshot:
        """The last one that lies behind no more than ``index`` records."""
        return self._kept[self._place(index) - 1]

    def _place(self, index: int) -> int:
        """How many lie behind no more than ``index`` records; at least the first does."""
        return bisect_right([one.behind for one in self._kept], index)

    def last(self, before: Callable[[Snapshot], bool]) -> Snapshot:
        """The last one of which ``before`` is true; it has to be true of the first."""
        found: Snapshot = next(one for one in reversed(self._kept) if before(one))
        return found
