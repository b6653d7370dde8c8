"""``logstore stats``: what logs are made of, and what they take up."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from typing import Any

import click

import logstore
from logstore.cli.options import any_store_option, config_values, json_option
from logstore.cli.output import FAILED, Lines, complain, standard_output
from logstore.cli.stats_json import json_objects
from logstore.cli.stats_text import print_report
from logstore.config import LogConfig
from logstore.inspect.report import Report
from logstore.inspect.sources import find_partitions
from logstore.inspect.statistics import Statistics
from logstore.inspect.walking import Trouble
from logstore.json_records import json_line
from logstore.segments.files import DiskFiles

__all__ = ["stats"]


@dataclass(frozen=True)
class _Options:
    """The command line, option by option."""

    quick: bool
    top: int
    separator: str
    depth: int
    config: dict[str, str]
    segments: bool
    as_json: bool
    store: str | None


@click.command(short_help="Sizes, counts, compression, rates, keys, lags of logs.")
@click.argument("sources", metavar="[SOURCE]...", nargs=-1)
@click.option("--quick", is_flag=True, help="Read only the headers of batches.")
@click.option(
    "--top",
    type=click.IntRange(min=0),
    default=10,
    show_default=True,
    metavar="N",
    help="Show the N most frequent keys and prefixes of keys.",
)
@click.option(
    "--key-prefix-separator",
    "separator",
    default=":",
    show_default=True,
    metavar="TEXT",
    help="What stands behind each part of a key.",
)
@click.option(
    "--key-prefix-depth",
    "depth",
    type=click.IntRange(min=1, max=100),
    default=1,
    show_default=True,
    metavar="N",
    help="How many parts of a key are its prefix.",
)
@click.option(
    "--config",
    multiple=True,
    metavar="KEY=VALUE",
    callback=config_values,
    help="Say what retention and compaction would remove if this were the configuration; may be "
    "repeated.",
)
@click.option("--segments", is_flag=True, help="Show each segment, too.")
@json_option
@any_store_option
@click.pass_context
def stats(ctx: click.Context, /, sources: tuple[str, ...], **options: Any) -> None:
    """Show what SOURCEs are made of: size by topic, partition, segment and prefix of keys, records
    and batches and how large they are, compression, records over time, the most frequent keys.

    SOURCE is a topic of the store (orders), some partitions of it (orders:0,2), a queue
    (queue:payments), or a path: of a partition, also one of a Kafka broker, a directory of them, a
    store, a segment. Without one it is all topics of the store, with the lag of all groups, the
    queues, and what retention and compaction would remove now. It only reads.

    \b
    Examples:
      logstore stats
      logstore stats orders --top 20 --key-prefix-separator -
      logstore stats --quick --json
      logstore stats orders-0 --config cleanup_policy=compact

    Exit code: 0, or 1 where something is damaged or cannot be read, 2 for wrong use.
    """
    chosen = _Options(**options)
    if not chosen.separator:
        raise click.UsageError("--key-prefix-separator is empty: where would a prefix end?", ctx)
    LogConfig.from_overrides(chosen.config)
    partitions = find_partitions(sources, store=chosen.store)
    statistics = Statistics(
        quick=chosen.quick,
        separator=os.fsencode(chosen.separator),
        depth=chosen.depth,
        trouble=_tell,
    )
    with contextlib.ExitStack() as stack:
        store = None
        if chosen.store is not None and DiskFiles().is_directory(chosen.store):
            with contextlib.suppress(logstore.StoreNotFoundError):  # only directories were named
                store = stack.enter_context(
                    logstore.open(chosen.store, create=False, read_only=True)
                )
        report = Report.of(
            statistics,
            partitions,
            store=store,
            path=chosen.store,
            with_queues=not sources,
            assumed=chosen.config,
        )
    if chosen.as_json:
        write = standard_output().write
        for fields in json_objects(report, top=chosen.top, segments=chosen.segments):
            write(json_line(fields))
    else:
        print_report(Lines(), report, top=chosen.top, segments=chosen.segments)
    if statistics.troubles:
        ctx.exit(FAILED)


def _tell(trouble: Trouble) -> None:
    complain(str(trouble))
