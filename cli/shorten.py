"""``logstore delete-records`` and ``logstore truncate``: cutting off either end of a partition."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import click

from logstore.cli.options import confirm_deletion, open_store, store_option, yes_option
from logstore.cli.output import Lines, count_of, json_line, standard_output
from logstore.cli.tables import Extent, print_changes
from logstore.errors import OffsetOutOfRangeError
from logstore.log import PartitionLog
from logstore.segments.filenames import partition_directory

__all__ = ["delete_records", "truncate"]


def _common_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print a JSON object."),
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
    as_json: bool,
) -> None:
    """Delete the records of a partition of TOPIC below an offset.

    They can no longer be read from then on; segments that lie wholly below are removed. It cannot
    be undone, so it is asked about on a terminal.

    \b
    Example:
      logstore delete-records orders --partition 0 --before 3 --yes
    """
    with open_store(store, read_only=dry_run) as opened:
        log = opened.topic(topic).partition(partition)
        start, end = log.log_start_offset, log.log_end_offset
        if before > end:
            raise OffsetOutOfRangeError(log.directory, before, start, end)
        cut = _Cut("records-deleted", topic, partition, log, dry_run=dry_run, as_json=as_json)
        if before <= start:
            cut.nothing(f"nothing to delete: the first offset is {start}")
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
        cut.carry_out(ctx, what, lambda: log.delete_records(before), yes=yes)


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
    ctx: click.Context,
    topic: str,
    store: str,
    partition: int,
    to: int,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Cut the log of a partition of TOPIC so that it ends at an offset.

    Records that are appended later get the offsets of those that went. It cannot be undone, so it
    is asked about on a terminal.

    \b
    Example:
      logstore truncate orders --partition 0 --to 3 --dry-run
    """
    with open_store(store, read_only=dry_run) as opened:
        log = opened.topic(topic).partition(partition)
        start, end = log.log_start_offset, log.log_end_offset
        if not start <= to <= end:
            raise OffsetOutOfRangeError(log.directory, to, start, end)
        cut = _Cut("truncated", topic, partition, log, dry_run=dry_run, as_json=as_json)
        if to == end:
            cut.nothing(f"nothing to cut: the log ends at {end}")
            return
        what = f"offsets {to} to {end - 1}"
        cut.carry_out(ctx, what, lambda: log.truncate(to), yes=yes)


class _Cut(NamedTuple):
    """What is to be cut off, and how it is told."""

    kind: str
    """The type of the JSON object."""
    topic: str
    partition: int
    log: PartitionLog
    dry_run: bool
    as_json: bool

    @property
    def name(self) -> str:
        """The partition's name."""
        return partition_directory(self.topic, self.partition)

    def nothing(self, why: str) -> None:
        """Say that there is nothing to do."""
        if self.as_json:
            extent = Extent.of(self.log)
            self._print_object(extent, extent)
        else:
            Lines().line(f"{self.name}: {why}")

    def carry_out(
        self, ctx: click.Context, what: str, action: Callable[[], object], *, yes: bool
    ) -> None:
        """Ask, do it, and say what has become of the partition; or only what would go."""
        before = Extent.of(self.log)
        if not self.dry_run:
            confirm_deletion(ctx, f"{what} of {self.name}", yes=yes)
            before = Extent.of(self.log)
            action()
        after = Extent.of(self.log)
        if self.as_json:
            self._print_object(before, after)
        elif self.dry_run:
            Lines().line(f"{self.name}: would delete {what}")
        else:
            lines = Lines()
            lines.line(f"{self.name}: deleted {what}")
            print_changes(lines, [(self.name, before, after)])

    def _print_object(self, before: Extent, after: Extent) -> None:
        fields = {
            "type": self.kind,
            "topic": self.topic,
            "partition": self.partition,
            "before": before.fields(),
            "after": after.fields(),
            "dry_run": self.dry_run,
        }
        standard_output().write(json_line(fields))
