"""What happened, a line for each event: the time in seconds, who, and a sentence.

    12.004310  broker 1       orders-0: is cut from 120 to 100: its leader's log parts from it in …

The lines of a seed are the same on every machine, to the byte: they hold what the events hold, and
nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, get_args

from logstore.replication.history import (
    Acknowledged,
    Appended,
    BitRot,
    BrokerFenced,
    BrokerRegistered,
    ConsumerReset,
    Crashed,
    Delivered,
    DiskLost,
    Elected,
    Event,
    FaultBegan,
    FaultEnded,
    HighWatermark,
    History,
    IsrChanged,
    Leads,
    Opened,
    QueueDelivered,
    QueueReleased,
    QueueSettled,
    Refused,
    ReplicaFailed,
    ReplicasChanged,
    Sent,
    Started,
    StorageFailed,
    Synced,
    Truncated,
)

__all__ = ["describe", "trace"]

_TRAFFIC = (
    QueueDelivered,
    QueueReleased,
    QueueSettled,
    Sent,
    Acknowledged,
    Delivered,
    Appended,
    Synced,
    HighWatermark,
)
"""What happens all the time."""


def trace(history: History, write: Callable[[str], object], *, traffic: bool = True) -> None:
    """Call ``write(line)`` for every event from now on; without ``traffic``, for those only that do
    not come with every record. Lines bear no newline."""
    for kind in get_args(Event):
        if traffic or kind not in _TRAFFIC:
            history.subscribe(kind, lambda event: write(describe(event)))


def describe(event: tuple[Any, ...]) -> str:
    """An event as a line."""
    who, what = _SENTENCES[type(event)](event)
    at_us = event[0]
    return f"{at_us // 1_000_000:>5}.{at_us % 1_000_000:06d}  {who:<12}  {what}"


def _ids(ids: tuple[str, ...]) -> str:
    return ids[0] if len(ids) == 1 else f"{ids[0]} to {ids[-1]}" if ids else "nothing"


def _set(brokers: Iterable[int]) -> str:
    return "{" + ", ".join(map(str, brokers)) + "}"


def _client(event: Any, name: str, what: str) -> tuple[str, str]:
    return name, f"{event.partition}: {what}"


def _broker(event: Any, what: str) -> tuple[str, str]:
    return f"broker {event.broker}", f"{event.partition}: {what}"


def _sent(event: Sent) -> tuple[str, str]:
    return _client(event, event.producer, f"sends {_ids(event.record_ids)}")


def _acknowledged(event: Acknowledged) -> tuple[str, str]:
    where = f" at {event.base_offset}" if event.base_offset >= 0 else ""
    after_us = event.at_us - event.sent_us
    what = f"{_ids(event.record_ids)} acknowledged{where} after {after_us} us"
    return _client(event, event.producer, what)


def _refused(event: Refused) -> tuple[str, str]:
    fate = "which is not written" if event.certain else "which may be written"
    what = f"gives up {_ids(event.record_ids)}, {fate}: {event.error}"
    return _client(event, event.producer, what)


def _delivered(event: Delivered) -> tuple[str, str]:
    what = f"reads {_ids(event.record_ids)} from {event.base_offset} on"
    return _client(event, event.consumer, what)


def _reset(event: ConsumerReset) -> tuple[str, str]:
    what = f"was at {event.from_offset}, where the log was cut; goes on at {event.to_offset}"
    return _client(event, event.consumer, what)


def _appended(event: Appended) -> tuple[str, str]:
    role = "leads" if event.as_leader else "follows"
    what = f"appends {event.base_offset} to {event.next_offset - 1}"
    return _broker(event, f"{what} ({role} in epoch {event.leader_epoch})")


def _truncated(event: Truncated) -> tuple[str, str]:
    return _broker(event, f"is cut from {event.from_offset} to {event.to_offset}: {event.why}")


def _high_watermark(event: HighWatermark) -> tuple[str, str]:
    role = "as the leader" if event.as_leader else "as it was told"
    return _broker(event, f"high watermark {event.offset}, {role}")


def _elected(event: Elected) -> tuple[str, str]:
    leader = f"broker {event.leader} leads" if event.leader >= 0 else "nobody leads"
    how = "" if event.clean else ", an unclean election"
    elr = f", eligible {_set(event.elr)}" if event.elr else ""
    what = f"{leader} in epoch {event.leader_epoch}{how}; in sync {_set(event.isr)}{elr}"
    return _client(event, "controller", what)


def _isr_changed(event: IsrChanged) -> tuple[str, str]:
    elr = f", eligible {_set(event.elr)}" if event.elr else ""
    return _client(event, "controller", f"in sync {_set(event.isr)}{elr}")


def _replicas_changed(event: ReplicasChanged) -> tuple[str, str]:
    what = f"replicas {_set(event.replicas)}"
    if event.adding or event.removing:
        what += f"; to come {_set(event.adding)}, to go {_set(event.removing)}"
    return _client(event, "controller", what)


_SENTENCES: dict[type, Callable[[Any], tuple[str, str]]] = {
    Sent: _sent,
    Acknowledged: _acknowledged,
    Refused: _refused,
    Delivered: _delivered,
    ConsumerReset: _reset,
    Appended: _appended,
    QueueDelivered: lambda event: (event.consumer, f"{event.queue}: gets {event.message_id}"),
    QueueReleased: lambda event: (
        event.consumer,
        f"{event.queue}: has done with {event.message_id}",
    ),
    QueueSettled: lambda event: (
        event.consumer,
        f"{event.queue}: its acknowledgement of {event.message_id} is committed",
    ),
    Opened: lambda event: _broker(event, f"opened, with what is below {event.end_offset}"),
    Leads: lambda event: _broker(
        event, f"leads from now on, in epoch {event.leader_epoch}, from {event.end_offset} on"
    ),
    Synced: lambda event: _broker(event, f"synced below {event.offset}"),
    Truncated: _truncated,
    HighWatermark: _high_watermark,
    StorageFailed: lambda event: (f"broker {event.broker}", f"its disk has failed: {event.error}"),
    ReplicaFailed: lambda event: _broker(event, f"cannot be opened: {event.error}"),
    Elected: _elected,
    IsrChanged: _isr_changed,
    ReplicasChanged: _replicas_changed,
    BrokerRegistered: lambda event: (
        "controller",
        f"lets broker {event.broker} in, epoch {event.broker_epoch}",
    ),
    BrokerFenced: lambda event: ("controller", f"takes broker {event.broker} for gone"),
    Crashed: lambda event: (f"broker {event.broker}", f"is down ({event.mode})"),
    Started: lambda event: (f"broker {event.broker}", f"starts for the {event.incarnation}. time"),
    DiskLost: lambda event: (f"broker {event.broker}", "has an empty disk"),
    BitRot: lambda event: _broker(event, f"a bit at position {event.position} has changed"),
    FaultBegan: lambda event: ("fault", event.text),
    FaultEnded: lambda event: ("healed", event.text),
}
