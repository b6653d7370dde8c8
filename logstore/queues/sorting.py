"""Of what was leased: which messages may be delivered, and what becomes of the others.

Whoever takes leases first and reads then, so that nobody has to wait for him; that a message has
expired, or is not due, is seen by him alone, and said in a second transaction. A kill between the
two brings the message back with all others of the lease.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, TypeVar

from logstore.queues.deliveries import Delivery
from logstore.queues.ledger import Ledger
from logstore.queues.ledger_rows import Lease, Reason
from logstore.queues.ledger_store import Changes
from logstore.queues.message import Delivered
from logstore.queues.reading import Verdicts
from logstore.queues.source import Source, Taken

__all__ = ["LeftOut", "put_aside", "settle", "sort_out"]

_M = TypeVar("_M", bound=Delivered)


class LeftOut(NamedTuple):
    """What is not delivered of a lease."""

    taken: Taken
    delivery: Delivery
    verdicts: Verdicts
    missing: int
    """The bits of offsets that the log has not got."""
    unfit: int
    """The bits of all that the verdicts name."""


def sort_out(
    queue: Source[Any, _M], taken: Sequence[Taken], deliveries: Sequence[Delivery]
) -> tuple[list[_M], list[LeftOut]]:
    """Read what was leased: the messages that may be delivered, and what may not."""
    messages: list[_M] = []
    left_out: list[LeftOut] = []
    for one, delivery in zip(taken, deliveries, strict=True):
        lease = one.lease
        found, verdicts = queue.read(one, delivery)
        if verdicts is not None or len(found) < lease.length:
            verdicts = verdicts or Verdicts((), {}, ())
            missing = lease.open_bits & ~delivery.bits_at(m.offset for m in found)
            unfit = {*verdicts.lost, *verdicts.held, *verdicts.expired}
            left_out.append(
                LeftOut(one, delivery, verdicts, missing, delivery.bits_at(iter(unfit)))
            )
            found = [message for message in found if message.offset not in unfit]
        messages = messages + found if messages else found
    return messages, left_out


def put_aside(changes: Changes, queue: Source[Any, Any], left_out: Iterable[LeftOut]) -> None:
    """Tell the ledgers."""
    for one in left_out:
        ledger = changes.of(one.delivery.level.ledger)
        if one.missing:
            ledger.ack(one.delivery.lease, one.missing)
        settle(ledger, one.delivery.lease, one.verdicts)
        if one.missing == one.delivery.lease.open_bits:
            queue.pass_over(changes, one.taken)


def settle(ledger: Ledger, lease: Lease, verdicts: Verdicts) -> None:
    """Do with those messages of a lease that verdicts name what is to be done with them."""
    held = {at - lease.first: due for at, due in verdicts.held.items() if _holds(lease, at)}
    if held:
        ledger.hold(lease, held)
    lost = sum(1 << at - lease.first for at in verdicts.lost if _holds(lease, at))
    if lost:
        ledger.ack(lease, lost)
    expired = sum(1 << at - lease.first for at in verdicts.expired if _holds(lease, at))
    if expired:
        ledger.bury(lease, expired, Reason.EXPIRED)


def _holds(lease: Lease, offset: int) -> bool:
    return lease.first <= offset < lease.first + lease.length
