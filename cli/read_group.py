"""``logstore read --group`` and ``--share-group``: records that a group has not read yet."""

from __future__ import annotations

import sys

import logstore
from logstore.cli.formats import Formatter
from logstore.cli.output import standard_output
from logstore.cli.pipes import nobody_reads, wait_until_taken
from logstore.consumer import Consumer
from logstore.segments.record import Record

__all__ = ["read_group", "read_share_group"]

_POLL_RECORDS = 500
_JOINING_SECONDS = 2.0
"""How long a member that has got nothing waits for partitions to come to it."""
_SETTLED_SECONDS = 0.2


def read_group(
    store: str,
    topic: str,
    group: str,
    reset: str,
    formatter: Formatter,
    limit: int | None,
    *,
    follow: bool,
) -> None:
    """Print what the group has not read, as one of its members, and commit what was printed.

    A commit comes behind the output: what nobody took from a pipe is read again next time.
    """
    with (
        logstore.open(store, create=False) as opened,
        opened.consumer(
            topic, group=group, auto_offset_reset=reset, enable_auto_commit=False
        ) as consumer,
    ):
        left = sys.maxsize if limit is None else limit
        while left > 0:
            printed = _print_some(consumer, formatter, min(left, _POLL_RECORDS), follow=follow)
            if not printed and not follow:
                consumer.commit()  # a group that begins at the end has begun there now
                return
            left -= printed


def _print_some(consumer: Consumer, formatter: Formatter, most: int, *, follow: bool) -> int:
    seconds = _SETTLED_SECONDS if follow or consumer.assignment else _JOINING_SECONDS
    records = consumer.poll(most, timeout=seconds)
    if records:
        output = standard_output()
        output.write(b"".join(formatter(r.partition, Record(*r[2:])) for r in records))
        output.flush()
        wait_until_taken()
        consumer.commit()
    elif nobody_reads():
        raise BrokenPipeError
    return len(records)


def read_share_group(
    store: str,
    topic: str,
    group: str,
    reset: str,
    formatter: Formatter,
    limit: int | None,
    *,
    follow: bool,
) -> None:
    """Print what the share group gives to one of its consumers, and accept what was printed.

    ``reset`` says where a group begins that is not there yet. What nobody took from a pipe is
    released, and delivered again.
    """
    with logstore.open(store, create=False) as opened:
        known = {one.name for one in opened.share_groups.list()}
        options = {} if group in known else {"share_auto_offset_reset": reset}
        with opened.share_consumer(
            topic, group=group, share_acknowledgement_mode="explicit", **options
        ) as consumer:
            left = sys.maxsize if limit is None else limit
            while left > 0:
                records = consumer.poll(min(left, _POLL_RECORDS), timeout=_SETTLED_SECONDS)
                if records:
                    output = standard_output()
                    lines = (formatter(r.partition, Record(*r[1:])) for r in records)
                    output.write(b"".join(lines))
                    output.flush()
                    wait_until_taken()
                    for record in records:
                        record.accept()
                    consumer.commit()
                elif nobody_reads():
                    raise BrokenPipeError
                elif not follow:
                    return
                left -= len(records)
