"""``logstore topic``: creating topics, and listing them."""

from __future__ import annotations

from typing import Any

import click
from rich.table import Table

import logstore
from logstore.cli.options import store_option
from logstore.cli.output import WRONG_USE, Lines, count_of
from logstore.topic import Topic

__all__ = ["topic"]


@click.group(invoke_without_command=True)
@click.pass_context
def topic(ctx: click.Context) -> None:
    """Create topics and list them."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help(), err=True)
        ctx.exit(WRONG_USE)


def _config(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    config = {}
    for value in values:
        key, equals, text = value.partition("=")
        if not equals or not key:
            raise click.BadParameter(f"{value!r} is not of the form key=value", ctx, param)
        config[key] = text
    return config


@topic.command(short_help="Create a topic.")
@click.argument("name")
@store_option
@click.option(
    "--partitions",
    type=click.IntRange(min=1),
    metavar="N",
    default=1,
    show_default=True,
    help="How many partitions it gets.",
)
@click.option(
    "--config",
    multiple=True,
    metavar="KEY=VALUE",
    callback=_config,
    help="A key of its configuration, such as segment_bytes=1048576; may be repeated.",
)
def create(name: str, store: str, partitions: int, config: dict[str, Any]) -> None:
    """Create the topic NAME; the store is created, too, where there is none."""
    with logstore.open(store, create=True) as opened:
        opened.create_topic(name, partitions=partitions, config=config)
    Lines().line(f"created topic {name} with {count_of(partitions, 'partition')}")


@topic.command("list", short_help="List the topics of a store.")
@store_option
def list_topics(store: str) -> None:
    """List the topics of the store, with their partitions."""
    with logstore.open(store, create=False, read_only=True) as opened:
        rows = [row for topic in opened.topics() for row in _rows(topic)]
    lines = Lines()
    if lines.console is not None:
        table = Table(*_COLUMNS, box=None, header_style="bold")
        for row in rows:
            table.add_row(*row)
        lines.console.print(table)
        return
    widths = [max(map(len, column)) for column in zip(_COLUMNS, *rows, strict=True)]
    for row in (_COLUMNS, *rows):
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        lines.line("  ".join(cells).rstrip())


_COLUMNS = ("TOPIC", "PARTITION", "FIRST OFFSET", "NEXT OFFSET", "CONFIG")


def _rows(topic: Topic) -> list[tuple[str, ...]]:
    """A row for each partition."""
    config = " ".join(f"{key}={value}" for key, value in topic.config.overrides().items())
    rows: list[tuple[str, ...]] = []
    for number in range(topic.partition_count):
        log = topic.partition(number)
        offsets = str(log.log_start_offset), str(log.log_end_offset)
        rows.append((topic.name, str(number), *offsets, config))
    return rows
