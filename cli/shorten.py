"""``logstore delete-records`` and ``logstore truncate``: cutting off either end of a partition."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

import logstore
from logstore.cli.options import confirm_deletion, store_option, yes_option
from logstore.cli.output import Lines, count_of
from logstore.cli.tables import Extent, print_changes
from logstore.errors import OffsetOutOfRangeError
from logstore.log import PartitionLog
from logstore.segments.filenames import partition_directory
from logstore.store import Store

__all__ = ["delete_records", "truncate"]


def _common_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        yes_option,
        click.option("--dry-run", is_flag=True, help="Say what would go, and change nothing."),
        click.option(
            "--partition",
            type=click.IntRange(min=0),
            metavar="N",
            required=True,
            help="The partition's number.",
        ),
        store_option,
        click.argument("topic"),
    ):
        command = option(command)
    return command


@click.command("delete-records", short_help="Delete the oldest records of a partition.")
@_common_options
@click.option(
    "--before",
    type=click.IntRange(min=0),
    metavar="OFFSET",
    required=True,
    help="The first offset that stays.",
)
@click.pass_context
def delete_records(
    ctx: click.Context,
    topic: str,
    store: str,
    partition: int,
    before: int,
    dry_run: bool,
    yes: bool,
) -> None:
    """Delete the records of a partition of TOPIC below an offset.

    They can no longer be read from then on; segments that lie wholly below are removed. It cannot
    be undone, so it is asked about on a terminal.
    """
    with _open(store, dry_run) as opened:
        log = opened.topic(topic).partition(partition)
        start, end = log.log_start_offset, log.log_end_offset
        if before > end:
            raise OffsetOutOfRangeError(log.directory, before, start, end)
        name = partition_directory(topic, partition)
        if before <= start:
            Lines().line(f"{name}: nothing to delete: the first offset is {start}")
            return
        # The active segment goes, too, where nothing is to be left.
        below = [
            segment
            for segment in log.segment_infos()
            if segment.size
            and segment.next_offset <= before
            and (not segment.active or before == end)
        ]
        what = f"offsets {start} to {before - 1}"
        if below:
            size = count_of(sum(segment.size for segment in below), "byte")
            what += f", {count_of(len(below), 'whole segment')} of {size}"
        _carry_out(ctx, name, log, what, lambda: log.delete_records(before), dry_run, yes)


@click.command(short_help="Cut off the newest records of a partition.")
@_common_options
@click.option(
    "--to",
    type=click.IntRange(min=0),
    metavar="OFFSET",
    required=True,
    help="The first offset that goes; the next record gets it.",
)
@click.pass_context
def truncate(
    ctx: click.Context, topic: str, store: str, partition: int, to: int, dry_run: bool, yes: bool
) -> None:
    """Cut the log of a partition of TOPIC so that it ends at an offset.

    Records that are appended later get the offsets of those that went. It cannot be undone, so it
    is asked about on a terminal.
    """
    with _open(store, dry_run) as opened:
        log = opened.topic(topic).partition(partition)
        start, end = log.log_start_offset, log.log_end_offset
        if not start <= to <= end:
            raise OffsetOutOfRangeError(log.directory, to, start, end)
        name = partition_directory(topic, partition)
        if to == end:
            Lines().line(f"{name}: nothing to cut: the log ends at {end}")
            return
        what = f"offsets {to} to {end - 1}"
        _carry_out(ctx, name, log, what, lambda: log.truncate(to), dry_run, yes)


def _open(store: str, dry_run: bool) -> Store:
    return logstore.open(store, create=False, read_only=dry_run, maintenance_interval=None)


def _carry_out(
    ctx: click.Context,
    name: str,
    log: PartitionLog,
    what: str,
    action: Callable[[], object],
    dry_run: bool,
    yes: bool,
) -> None:
    lines = Lines()
    if dry_run:
        lines.line(f"{name}: would delete {what}")
        return
    confirm_deletion(ctx, f"{what} of {name}", yes=yes)
    before = Extent.of(log)
    action()
    lines.line(f"{name}: deleted {what}")
    print_changes(lines, [(name, before, Extent.of(log))])
