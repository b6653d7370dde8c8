"""``logstore queue seek`` and ``redrive``: what a queue has had, or has given up, is delivered
again."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, Literal

import click

from logstore.cli.options import json_option, open_store, store_option
from logstore.cli.output import Lines, count_of, json_line, standard_output
from logstore.cli.queue_messages import queue
from logstore.queues.redrive import Redriven
from logstore.queues.seeking import Sought
from logstore.replay.messages import message_test
from logstore.times import parse_time

__all__ = ["queue"]

dry_run_option = click.option(
    "--dry-run", is_flag=True, help="Only say what would be done, and do nothing."
)


@queue.command(short_help="Deliver from an earlier place again, or skip.")
@click.argument("name", metavar="QUEUE")
@store_option
@click.option("--to-offset", type=int, metavar="N", help="To this offset.")
@click.option(
    "--to-time",
    metavar="TIME",
    help="To what was published at this time or later: 2024-05-01T12:00:00Z, milliseconds since "
    "1970, or an age such as 10m.",
)
@click.option("--to-earliest", is_flag=True, help="To the first message that the queue still has.")
@click.option("--to-latest", is_flag=True, help="To the end: all that waits is skipped.")
@click.option(
    "--shift-by",
    type=int,
    metavar="N",
    help="By so many messages from the first that was never delivered; back below 0.",
)
@click.option(
    "--priority", type=int, metavar="P", help="In this priority alone: each counts its own offsets."
)
@dry_run_option
@json_option
def seek(
    name: str,
    store: str,
    to_offset: int | None,
    to_time: str | None,
    to_earliest: bool,
    to_latest: bool,
    shift_by: int | None,
    priority: int | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Deliver the messages of QUEUE from an earlier place again, or skip to a later one.

    Going back makes ready what was acknowledged, or otherwise settled, from there on, as far as the
    queue still has it (retention_ms, retention_bytes). Going to the first message that was never
    delivered, or beyond it, settles what waits in front. What consumers hold stays theirs.

    Example: logstore queue seek payments --to-time 2h --dry-run
    """
    given = [to_offset is not None, to_time is not None, to_earliest, to_latest]
    if sum(given) + (shift_by is not None) != 1:
        raise click.UsageError(
            "where to? Give one of --to-offset, --to-time, --to-earliest, --to-latest, --shift-by"
        )
    offset: int | Literal["earliest", "latest"] | None = to_offset
    if to_earliest or to_latest:
        offset = "earliest" if to_earliest else "latest"
    now_ms = time.time_ns() // 1_000_000
    with open_store(store, read_only=dry_run) as opened:
        sought = opened.queue(name, passive=True).seek(
            offset,
            time_ms=None if to_time is None else parse_time(to_time, now_ms),
            shift_by=shift_by,
            priority=priority,
            dry_run=dry_run,
        )
    if as_json:
        for one in sought:
            fields: dict[str, Any] = {"name": name, **one._asdict(), "dry_run": dry_run}
            standard_output().write(json_line(fields))
        return
    for one in sought:
        Lines().line(_told(name, one, many=len(sought) > 1, dry_run=dry_run))


def _told(name: str, sought: Sought, *, many: bool, dry_run: bool) -> str:
    where = f"{name}, priority {sought.level}" if many else name
    would = "would be" if dry_run else "is" if sought.returned == 1 else "are"
    if sought.returned or not sought.skipped:
        done = f"{count_of(sought.returned, 'message')} {would} ready again"
    else:
        would = "would be" if dry_run else "was" if sought.skipped == 1 else "were"
        done = f"{count_of(sought.skipped, 'message')} {would} skipped"
    held = f"; consumers hold {sought.in_flight}, which stay theirs" if sought.in_flight else ""
    return f"queue {where}: to offset {sought.offset}, {done}{held}"


@queue.command(short_help="Send dead letters back to where they came from.")
@click.argument("name", metavar="QUEUE")
@store_option
@click.option(
    "--where",
    multiple=True,
    metavar="EXPR",
    help="Only messages for which EXPR is true, as in: reason == 'expired' and json.total > 5. It "
    "may ask for body, json, headers, properties, exchange, routing_key, queue, reason, deaths.",
)
@click.option("--max", "limit", type=click.IntRange(min=1), metavar="N", help="At most N messages.")
@click.option("--to", metavar="QUEUE", help="To this queue, and not to where each came from.")
@click.option("--to-exchange", metavar="EXCHANGE", help="Publish them to this exchange.")
@click.option(
    "--routing-key", metavar="KEY", help="With --to-exchange: by this key; else by each one's own."
)
@dry_run_option
@json_option
def redrive(
    name: str,
    store: str,
    where: tuple[str, ...],
    limit: int | None,
    to: str | None,
    to_exchange: str | None,
    routing_key: str | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Send the dead letters in QUEUE back to the queues in which they died, as they had got there.

    Each is on stable storage there before it is gone here. Messages without a history of deaths,
    and those whose queue is not there any more, stay, and are told. What x-death said is in the
    header x-redrive then.

    Example: logstore queue redrive failed --where "reason == 'rejected'" --dry-run
    """
    test = message_test(where, queue=name, now_ms=time.time_ns() // 1_000_000) if where else None
    with open_store(store, read_only=dry_run) as opened:
        if to is not None:  # or all would be left, one by one, for a name that is misspelt
            opened.queue(to, passive=True)
        done = opened.queue(name, passive=True).redrive(
            where=test,
            limit=limit,
            queue=to,
            exchange=to_exchange,
            routing_key=routing_key,
            dry_run=dry_run,
        )
    if as_json:
        standard_output().write(json_line(_redriven_fields(name, done, dry_run=dry_run)))
        return
    for line in _redriven_lines(name, done, to_exchange, dry_run=dry_run):
        Lines().line(line)


def _redriven_fields(name: str, done: Redriven, *, dry_run: bool) -> dict[str, Any]:
    return {
        "name": name,
        "redriven": done.count,
        "to": done.moved,
        "unmatched": done.unmatched,
        "left": [
            {"reason": reason, "count": left.count, "offsets": left.offsets}
            for reason, left in done.left.items()
        ],
        "dry_run": dry_run,
    }


def _redriven_lines(
    name: str, done: Redriven, exchange: str | None, *, dry_run: bool
) -> Iterator[str]:
    verb = "would go" if dry_run else "went"
    kind = "queue" if exchange is None else "exchange"
    for target, count in done.moved.items():
        yield f"{count_of(count, 'message')} {verb} from queue {name} to {kind} {target}"
    if not done.moved:
        yield f"no message {verb} from queue {name}"
    if done.unmatched:
        yield f"{count_of(done.unmatched, 'message')} did not match"
    for reason, left in done.left.items():
        offsets = ", ".join(map(str, left.offsets))
        more = ", ..." if left.count > len(left.offsets) else ""
        yield f"left {count_of(left.count, 'message')}: {reason} (offsets {offsets}{more})"
