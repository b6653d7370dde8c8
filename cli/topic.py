"""``logstore topic``: creating, listing, describing, altering and deleting topics."""

from __future__ import annotations

from typing import Any

import click
from rich.table import Table

import logstore
from logstore.cli.options import (
    config_values,
    confirm_deletion,
    help_alone,
    json_option,
    store_option,
    yes_option,
)
from logstore.cli.output import (
    Lines,
    count_of,
    json_line,
    spelled_topic_id,
    standard_output,
)
from logstore.describe import TopicDescription

__all__ = ["topic"]


@click.group(invoke_without_command=True)
@click.pass_context
def topic(ctx: click.Context) -> None:
    """Create topics, look at them, alter and delete them."""
    help_alone(ctx)


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
    callback=config_values,
    help="A key of its configuration, such as segment_bytes=1048576; may be repeated.",
)
@json_option
def create(name: str, store: str, partitions: int, config: dict[str, Any], as_json: bool) -> None:
    """Create the topic NAME; the store is created, too, where there is none.

    \b
    Example:
      logstore topic create sessions --partitions 3 --config cleanup_policy=compact
    """
    with logstore.open(store, create=True) as opened:
        opened.create_topic(name, partitions=partitions, config=config)
        if as_json:
            standard_output().write(json_line(_fields(opened.describe_topic(name))))
            return
    Lines().line(f"created topic {name} with {count_of(partitions, 'partition')}")


@topic.command("list", short_help="List the topics of a store.")
@store_option
@click.option("--internal", is_flag=True, help="Show the store's own topics, too.")
@json_option
def list_topics(store: str, internal: bool, as_json: bool) -> None:
    """List the topics of the store, with their partitions.

    \b
    Example:
      logstore topic list --internal
    """
    with logstore.open(store, create=False, read_only=True) as opened:
        topics = [opened.describe_topic(topic.name) for topic in opened.topics(internal=internal)]
    if as_json:
        for description in topics:
            standard_output().write(json_line(_fields(description)))
        return
    _table(_COLUMNS, [row for description in topics for row in _rows(description)])


def _table(columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    lines = Lines()
    if lines.console is not None:
        table = Table(*columns, box=None, header_style="bold")
        for row in rows:
            table.add_row(*row)
        lines.console.print(table)
        return
    widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
    for row in (columns, *rows):
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        lines.line("  ".join(cells).rstrip())


_COLUMNS = ("TOPIC", "PARTITION", "FIRST OFFSET", "NEXT OFFSET", "CONFIG")


def _rows(description: TopicDescription) -> list[tuple[str, ...]]:
    """A row for each partition."""
    config = " ".join(
        f"{key}={value}"
        for key, (value, source) in description.config.items()
        if source != "default"
    )
    return [
        (
            description.name,
            str(found.partition),
            str(found.log_start_offset),
            str(found.log_end_offset),
            config,
        )
        for found in description.partitions
    ]


def _fields(description: TopicDescription) -> dict[str, object]:
    """A topic's JSON object."""
    return {
        "type": "topic",
        "name": description.name,
        "topic_id": spelled_topic_id(description.id),
        "partitions": [found._asdict() for found in description.partitions],
        "config": {
            key: {"value": value, "source": source}
            for key, (value, source) in description.config.items()
        },
    }


@topic.command(short_help="Show all of a topic.")
@click.argument("name")
@store_option
@json_option
def describe(name: str, store: str, as_json: bool) -> None:
    """Show the topic NAME: its id, its partitions, and every key of its configuration with where
    its value is from: the topic, the store's defaults, or the defaults of all stores.

    \b
    Example:
      logstore topic describe orders
    """
    with logstore.open(store, create=False, read_only=True) as opened:
        description = opened.describe_topic(name)
    if as_json:
        standard_output().write(json_line(_fields(description)))
        return
    lines = Lines()
    partitions = count_of(len(description.partitions), "partition")
    lines.line(f"{name}: {partitions}, id {spelled_topic_id(description.id)}")
    _table(
        ("PARTITION", "FIRST OFFSET", "NEXT OFFSET", "SEGMENTS", "BYTES"),
        [tuple(map(str, found)) for found in description.partitions],
    )
    _table(
        ("KEY", "VALUE", "FROM"),
        [(key, str(value), source) for key, (value, source) in description.config.items()],
    )


@topic.command(short_help="Change a topic's configuration or its number of partitions.")
@click.argument("name", required=False)
@store_option
@click.option(
    "--config",
    multiple=True,
    metavar="KEY=VALUE",
    callback=config_values,
    help="Set a key of its configuration; may be repeated.",
)
@click.option(
    "--unset",
    multiple=True,
    metavar="KEY",
    help="Bring a key back to its default; may be repeated.",
)
@click.option(
    "--partitions", type=click.IntRange(min=1), metavar="N", help="How many partitions it has then."
)
@click.option(
    "--defaults",
    is_flag=True,
    help="Instead of one topic, what all topics have where they set nothing themselves.",
)
@json_option
@click.pass_context
def alter(
    ctx: click.Context,
    name: str | None,
    store: str,
    config: dict[str, Any],
    unset: tuple[str, ...],
    partitions: int | None,
    defaults: bool,
    as_json: bool,
) -> None:
    """Change the topic NAME, or with --defaults what all topics of the store have in common.

    \b
    Examples:
      logstore topic alter orders --config retention_ms=86400000 --partitions 6
      logstore topic alter --defaults --config compression_type=zstd
    """
    if defaults == (name is not None) or (defaults and partitions is not None):
        raise click.UsageError("give either a topic or --defaults (without --partitions)", ctx)
    if not config and not unset and partitions is None:
        raise click.UsageError("nothing to alter: --config, --unset or --partitions", ctx)
    with logstore.open(store, create=False) as opened:
        if name is None:
            opened.alter_defaults(config, unset)
            if as_json:
                fields = {"type": "defaults", "config": opened.defaults}
                standard_output().write(json_line(fields))
                return
        else:
            opened.alter_topic(name, config, unset, partitions=partitions)
            if as_json:
                standard_output().write(json_line(_fields(opened.describe_topic(name))))
                return
    Lines().line("altered the store's defaults" if name is None else f"altered topic {name}")


@topic.command(short_help="Delete a topic.")
@click.argument("name")
@store_option
@yes_option
@json_option
@click.pass_context
def delete(ctx: click.Context, name: str, store: str, yes: bool, as_json: bool) -> None:
    """Delete the topic NAME and all its records, at once and for ever.

    Programs that use it are told so; a new topic of that name is another one. It cannot be undone,
    so it is asked about on a terminal.

    \b
    Example:
      logstore topic delete orders --yes
    """
    with logstore.open(store, create=False) as opened:
        found = opened.topic(name)
        partitions = count_of(found.partition_count, "partition")
        confirm_deletion(ctx, f"topic {name} ({partitions})", yes=yes)
        topic_id = found.id
        opened.delete_topic(name)
    if as_json:
        fields = {"type": "deleted", "name": name, "topic_id": spelled_topic_id(topic_id)}
        standard_output().write(json_line(fields))
        return
    Lines().line(f"deleted topic {name}")
