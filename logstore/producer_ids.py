"""Who a producer is: ids and epochs, which are definitions of the store.

- ``producer-ids``: ``{"next": n}``, from where on ids are free. A store handle takes a block of
  them, so that of its producers only the first costs a change of the definitions.
- ``producer/<digest of the name>``: a named producer's id and epoch. Each start is a change: the
  epoch is one higher than before, which fences the instance that may still be running.

An id is given out once. Where the definitions were lost, their successors begin higher: ids begin
with the time (milliseconds, times ``BLOCK``). They are far from those that brokers give out, which
count from 0, so a partition may be carried to one, or from one.

Commit point of both: the change of the definitions (``logstore.metadata``). A crash before it
leaves the ids as they were, a crash after it a few that nobody uses, or an epoch that nobody has.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from logstore.clock import Clock
from logstore.definitions import broken
from logstore.metadata import Change, Metadata, View
from logstore.producer_states import MAX_EPOCH, NAMED_IDS

__all__ = ["BLOCK", "Identity", "ProducerIds"]

BLOCK = 1000
"""So many ids are taken at once."""

_NEXT = "producer-ids"
_PREFIX = "producer/"


class Identity(NamedTuple):
    """Under which id and epoch a producer writes."""

    producer_id: int
    epoch: int
    before: tuple[int, ...] = ()
    """The ids that a name had before, the newest last: when an id has no epochs left, the name gets
    another one, which goes on with the sequences of the last."""


class ProducerIds:
    """The ids that a store gives out. Usable from many threads."""

    def __init__(self, metadata: Metadata, clock: Clock) -> None:
        self._metadata = metadata
        self._clock = clock
        self._mutex = threading.Lock()
        self._block = iter(range(0))
        """What is left of the block that was taken last."""

    def take(self) -> Identity:
        """An identity for a producer without a name."""
        with self._mutex:
            found = next(self._block, None)
            if found is None:
                first = self._take_block()
                self._block = iter(range(first, first + BLOCK))
                found = next(self._block)
        return Identity(found, 0)

    def _take_block(self) -> int:
        taken = 0

        def change(view: View) -> Sequence[Change]:
            nonlocal taken
            taken = self._free(view)
            return [(_NEXT, {"next": taken + BLOCK})]

        self._metadata.update(change)
        return taken

    def _free(self, view: View) -> int:
        fields = view.get(_NEXT)
        after = 0 if fields is None else _number(_NEXT, fields, "next")
        return max(after, self._clock.now_ms() * BLOCK)

    def start(self, name: str) -> Identity:
        """The identity of the instance of the named producer that begins now. Whoever was it before
        is fenced."""
        key = _key(name)
        identity = Identity(0, 0)

        def change(view: View) -> Sequence[Change]:
            nonlocal identity
            fields = view.get(key)
            changes: list[Change] = []
            if fields is not None and (before := _identity(key, fields)).epoch < MAX_EPOCH:
                identity = before._replace(epoch=before.epoch + 1)
            else:
                free = self._free(view)
                changes.append((_NEXT, {"next": free + 1}))
                earlier: tuple[int, ...] = ()
                if fields is not None:
                    earlier = (*before.before, before.producer_id)
                identity = Identity(NAMED_IDS + free, 0, earlier)
            defined = {
                "name": name,
                "id": identity.producer_id,
                "epoch": identity.epoch,
                "before": list(identity.before),
            }
            return [*changes, (key, defined)]

        self._metadata.update(change)
        return identity

    def current(self, name: str) -> Identity | None:
        """The identity of the last instance that was started; cheap as long as no definition
        changes."""
        key = _key(name)
        fields = self._metadata.get(key)
        return None if fields is None else _identity(key, fields)


def _key(name: str) -> str:
    # A name may be longer than a key may be.
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()
    return _PREFIX + digest[:32]


def _identity(key: str, fields: Mapping[str, Any]) -> Identity:
    before = fields.get("before", [])
    if not isinstance(before, list) or not all(type(one) is int for one in before):
        raise broken(key, key, TypeError(f"before={before!r}"))
    return Identity(_number(key, fields, "id"), _number(key, fields, "epoch"), tuple(before))


def _number(key: str, fields: Mapping[str, Any], field: str) -> int:
    value = fields.get(field)
    if type(value) is not int or value < 0:
        raise broken(key, key, TypeError(f"{field}={value!r}"))
    return value
