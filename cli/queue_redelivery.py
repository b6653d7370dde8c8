"""``logstore queue seek``: what a queue has had is delivered again."""

from __future__ import annotations

import time
from typing import Any, Literal

import click

import logstore
from logstore.cli.options import store_option
from logstore.cli.output import Lines, count_of, json_line, standard_output
from logstore.cli.pairs import json_option
from logstore.cli.queue_messages import queue
from logstore.queues.seeking import Sought
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
    with logstore.open(store, create=False, read_only=dry_run, maintenance_interval=None) as opened:
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
