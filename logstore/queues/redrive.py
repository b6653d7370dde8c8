"""Redrive: dead letters go back to where they came from.

A dead letter is put into the queue in which it died last (the first entry of ``x-death``), as it
had got there: with its exchange and its routing key of then. It is not published to that exchange
again, which would give it to all other queues that are bound there and have had it. Or it goes to a
queue or an exchange that is named.

Its history is over with that, and is taken off: ``x-death``, ``x-first-death-*``,
``x-last-death-*``. Otherwise a message that fails again would look like one that goes round in
circles, and be dropped (``dead_letter.goes_in_circles``); and a consumer that counts deaths would
give it up at once. What the history was stands in the header ``x-redrive``, a table::

    count      how often the message was redriven
    queue      from where, the last time
    time       when
    x-death    its history until then

Order of it: published at ``acks="all"``; acknowledged here. A crash between the two leaves the
message in both places.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from logstore.errors import FormatError, InvalidInputError
from logstore.queues.consuming import Getter
from logstore.queues.dead_letter import HISTORY, deaths_of
from logstore.queues.deliveries import Delivery
from logstore.queues.message import LookedAt, Message
from logstore.queues.properties import Envelope
from logstore.queues.queue import WorkQueue
from logstore.queues.reading import judge

if TYPE_CHECKING:
    from logstore.queues.broker import Broker

__all__ = ["REDRIVE", "LeftBehind", "RedriveTarget", "Redriven", "Where", "redrive", "redriven"]

REDRIVE = "x-redrive"
"""The header with what a redriven message has behind it."""
_AT_ONCE = 500
"""So many messages are published and acknowledged together."""
_OFFSETS_TOLD = 5

Where = Callable[[Message], object]
"""Whether a dead letter is redriven."""


class RedriveTarget(NamedTuple):
    """Where dead letters go; nothing: each to where it came from."""

    queue: str | None = None
    exchange: str | None = None
    routing_key: str | None = None
    """With an exchange; None: each one's own."""

    def check(self, source: str) -> None:
        """Raise InvalidInputError for what contradicts itself."""
        if self.queue is not None and self.exchange is not None:
            raise InvalidInputError("a redrive goes to a queue or to an exchange, not to both")
        if self.routing_key is not None and self.exchange is None:
            raise InvalidInputError("a routing key makes sense with an exchange only")
        if self.queue == source:
            raise InvalidInputError(f"the messages are in queue {source!r} already")


@dataclass
class LeftBehind:
    """Messages that stay, for one reason."""

    count: int = 0
    offsets: list[int] = field(default_factory=list)
    """Of the first few of them, in their logs."""


@dataclass
class Redriven:
    """What a redrive did."""

    moved: dict[str, int] = field(default_factory=dict)
    """How many messages went to each queue (or exchange, if one was named)."""
    unmatched: int = 0
    """Messages for which the condition does not hold."""
    left: dict[str, LeftBehind] = field(default_factory=dict)
    """By the reason: messages that could not go."""

    @property
    def count(self) -> int:
        """How many messages went."""
        return sum(self.moved.values())

    def leave(self, message: Message, reason: str) -> None:
        """Note a message that stays."""
        left = self.left.setdefault(reason, LeftBehind())
        left.count += 1
        if len(left.offsets) < _OFFSETS_TOLD:
            left.offsets.append(message.offset)


def redriven(envelope: Envelope, *, source: str, now_ms: int) -> tuple[str, Envelope] | None:
    """The queue that a dead letter came from, and the message as it goes there; None for one that
    is no dead letter."""
    headers = dict(envelope.properties.headers or {})
    history = deaths_of(headers)
    queue = history[0].get("queue") if history else None
    if not isinstance(queue, str):
        return None
    death = history[0]
    keys = death.get("routing-keys")
    key = keys[0] if isinstance(keys, (list, tuple)) and keys else envelope.routing_key
    exchange = death.get("exchange")
    before = headers.get(REDRIVE)
    count = before.get("count") if isinstance(before, dict) else None
    kept = {name: value for name, value in headers.items() if not _is_history(name)}
    kept[REDRIVE] = {
        "count": count + 1 if isinstance(count, int) else 1,
        "queue": source,
        "time": datetime.fromtimestamp(now_ms // 1000, UTC),
        HISTORY: history,
    }
    return queue, Envelope(
        envelope.body,
        envelope.properties._replace(headers=kept),
        exchange if isinstance(exchange, str) else "",
        key if isinstance(key, str) else envelope.routing_key,
    )


def _is_history(name: str) -> bool:
    return name == HISTORY or name.startswith(("x-first-death-", "x-last-death-"))


class _Looker(Getter):
    """Takes messages, and gives back those that it does not want as if nobody had seen them."""

    def unseen(self, delivery: Delivery) -> int:
        return delivery.open_bits


def redrive(
    broker: Broker,
    queue: WorkQueue,
    target: RedriveTarget,
    *,
    where: Where | None = None,
    limit: int | None = None,
    dry_run: bool = False,
) -> Redriven:
    """Redrive what is ready in a queue now; see ``Queue.redrive``."""
    target.check(queue.definition.name)
    if limit is not None and (not isinstance(limit, int) or limit < 1):
        raise InvalidInputError(f"limit={limit!r:.80} is out of bounds: an int from 1 on")
    run = _Run(broker, queue, target, where, limit, dry_run)
    if dry_run:
        for messages in _looked_through(queue):
            for _ in run.move(messages):
                pass
            if run.is_full:
                break
        return run.result
    consumption = broker.consumption
    most = queue.counts().ready  # what comes while it works is left alone
    channel = consumption.channel()
    try:
        looker = _Looker(channel, queue, session=consumption.session())
        while most > 0 and not run.is_full:
            messages = looker.get(min(most, _AT_ONCE), no_ack=False)
            if not messages:
                break
            most -= len(messages)
            for moved in run.move(messages):
                for message in moved:
                    message.ack()
                channel.flush()
    finally:
        channel.close()
        queue.checkpoint()
    return run.result


def _looked_through(queue: WorkQueue) -> Iterator[list[Message]]:
    """What is ready, some messages at a time; nothing is taken."""
    now = queue.clock.now_ms()
    for level in queue.levels():
        end = level.log.log_end_offset
        most = end - level.log.log_start_offset
        spans, restart_end = level.ledger.looked_at(
            lambda one: (one.waiting(most, log_end=end, now_ms=now), one.head.restart_end)  # noqa: B023 - called at once
        )
        for span in spans:
            looked_at = LookedAt(span.delivery_count)
            for first in range(span.first, span.end, _AT_ONCE):
                found = level.reader.read(first, min(_AT_ONCE, span.end - first), looked_at)
                verdicts = judge(found, restart_end=restart_end, ttl_ms=queue.ttl_ms, now_ms=now)
                unfit = set() if verdicts is None else {*verdicts[0], *verdicts[1], *verdicts[2]}
                yield [message for message in found if message.offset not in unfit]


class _Run:
    """One redrive."""

    def __init__(
        self,
        broker: Broker,
        queue: WorkQueue,
        target: RedriveTarget,
        where: Where | None,
        limit: int | None,
        dry_run: bool,
    ) -> None:
        self.result = Redriven()
        self._broker = broker
        self._queue = queue
        self._name = queue.definition.name
        self._target = target
        self._where = where
        self._limit = limit
        self._dry_run = dry_run

    @property
    def is_full(self) -> bool:
        """Whether as many messages went as were asked for."""
        return self._limit is not None and self.result.count >= self._limit

    def move(self, messages: Sequence[Message]) -> Iterator[list[Message]]:
        """Publish those of some messages that are to go, and yield those that are safe there."""
        by_target: dict[str, list[tuple[Message, Envelope]]] = defaultdict(list)
        chosen = 0
        for message in messages:
            if self._limit is not None and self.result.count + chosen >= self._limit:
                break
            try:
                if self._where is not None and not self._where(message):
                    self.result.unmatched += 1
                    continue
                found = self._found(message)
            except FormatError as error:
                self.result.leave(message, f"they cannot be read ({error})")
                continue
            if found is not None:
                by_target[found[0]].append((message, found[1]))
                chosen += 1
        for name, pairs in by_target.items():
            yield self._publish(name, pairs)

    def _found(self, message: Message) -> tuple[str, Envelope] | None:
        """Where a message goes, and as what; None, and noted why, where it stays."""
        found = redriven(message.envelope, source=self._name, now_ms=self._queue.clock.now_ms())
        if found is None:
            self.result.leave(message, "they are no dead letters: they have no x-death")
            return None
        queue, envelope = found
        if self._target.queue is not None:
            return self._target.queue, envelope
        if self._target.exchange is not None:
            key = self._target.routing_key
            key = envelope.routing_key if key is None else key
            return self._target.exchange, envelope._replace(
                exchange=self._target.exchange, routing_key=key
            )
        if queue == self._name:
            self.result.leave(message, "they died in this very queue")
            return None
        return queue, envelope

    def _publish(self, name: str, pairs: Sequence[tuple[Message, Envelope]]) -> list[Message]:
        if self._dry_run:
            outcomes = self._told(name, pairs)
        elif self._target.exchange is not None:
            outcomes = self._to_exchange(name, pairs)
        else:
            outcomes = self._to_queue(name, pairs)
        moved = []
        for (message, _), reason in zip(pairs, outcomes, strict=True):
            if reason is None:
                moved.append(message)
            else:
                self.result.leave(message, reason)
        if moved:
            self.result.moved[name] = self.result.moved.get(name, 0) + len(moved)
        return moved

    def _told(self, name: str, pairs: Sequence[Any]) -> list[str | None]:
        if self._target.exchange is not None:
            self._broker.exchange(name)  # raises where there is none
            return [None] * len(pairs)
        there = any(queue.name == name for queue in self._broker.queues())
        return [None if there else _gone(name)] * len(pairs)

    def _to_queue(self, name: str, pairs: Sequence[tuple[Message, Envelope]]) -> list[str | None]:
        published = self._broker.publish_into(name, [envelope for _, envelope in pairs])
        if published is None:
            return [_gone(name)] * len(pairs)
        refused = set(published.rejected)
        full = f"queue {name!r} is full, and refuses them"
        return [full if index in refused else None for index in range(len(pairs))]

    def _to_exchange(
        self, name: str, pairs: Sequence[tuple[Message, Envelope]]
    ) -> list[str | None]:
        confirms = self._broker.publish([envelope for _, envelope in pairs], "all")
        return [
            f"a queue behind exchange {name!r} is full, and refuses them"
            if confirm.rejected
            else None
            if confirm.queues
            else f"no queue gets them from exchange {name!r}"
            for confirm in confirms
        ]


def _gone(name: str) -> str:
    return f"there is no queue {name!r} (any more)"
