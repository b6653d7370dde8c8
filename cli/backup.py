"""``logstore backup`` and ``logstore restore``."""

from __future__ import annotations

import time

import click

import logstore
from logstore.cli.options import open_store, store_option
from logstore.cli.output import Lines, count_of, json_line, standard_output

__all__ = ["backup", "restore"]


@click.command(short_help="Copy a store that is in use.")
@click.argument("destination", metavar="DEST", type=click.Path())
@store_option
@click.option(
    "--keep",
    type=click.IntRange(min=1),
    metavar="N",
    default=1,
    show_default=True,
    help="How many backups stay in DEST, this one included.",
)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
def backup(destination: str, store: str, keep: int, as_json: bool) -> None:
    """Take a backup of the store into the directory DEST, while it may be in use.

    Each backup is a directory in DEST, named after its time, and is whole: what did not change
    since the one before takes no space again. One that was interrupted is called .unfinished, and
    the next one removes it.

    \b
    Example:
      logstore backup backups --keep 7
    """
    started = time.monotonic()
    with open_store(store) as opened:
        result = opened.backup(destination, keep=keep)
    seconds = time.monotonic() - started
    if as_json:
        standard_output().write(json_line({"type": "backup", **result._asdict()}))
        return
    lines = Lines()
    lines.line(
        f"{result.path}: {count_of(result.partitions, 'partition')}, "
        f"{count_of(result.segments, 'segment')}: {result.linked:,} linked, "
        f"{result.copied:,} copied ({count_of(result.bytes_copied, 'byte')}) in {seconds:.2f} s"
    )
    for path in result.removed:
        lines.line(f"removed {path}")


@click.command(short_help="Make a store from a backup.")
@click.argument("backup", metavar="BACKUP", type=click.Path(exists=True, file_okay=False))
@click.argument("destination", metavar="DEST", type=click.Path())
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
def restore(backup: str, destination: str, as_json: bool) -> None:
    """Make a store in DEST, which must be empty or not there, from BACKUP.

    BACKUP is a directory of backups, whose newest is taken, or one backup in it. It stays as it is.

    \b
    Example:
      logstore restore backups restored
    """
    source = logstore.restore(backup, destination)
    if as_json:
        fields = {"type": "restored", "backup": source, "destination": destination}
        standard_output().write(json_line(fields))
        return
    Lines().line(f"restored {source} to {destination}")
