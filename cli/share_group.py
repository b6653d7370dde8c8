"""``logstore share-group``: share groups, listed, described, altered, reset and deleted."""

from __future__ import annotations

from typing import Any

import click

from logstore.cli.group_commands import delete_groups, print_groups
from logstore.cli.options import (
    config_values,
    help_alone,
    json_option,
    open_store,
    store_option,
    yes_option,
)
from logstore.cli.output import Lines, complain, count_of, json_line, standard_output
from logstore.cli.resets import chosen_partitions, chosen_reset, print_changes, reset_options
from logstore.cli.tables import print_table
from logstore.shares.config import ShareGroupConfig
from logstore.shares.descriptions import ShareGroupDescription, SharePartitionDescription

__all__ = ["share_group"]


@click.group(name="share-group", invoke_without_command=True)
@click.pass_context
def share_group(ctx: click.Context) -> None:
    """Look at share groups, alter them, move their offsets, delete them."""
    help_alone(ctx)


@share_group.command("list", short_help="List the share groups of a store.")
@store_option
@json_option
def list_groups(store: str, as_json: bool) -> None:
    """List the share groups of the store, with their states and numbers of consumers.

    \b
    Example:
      logstore share-group list --json
    """
    with open_store(store, read_only=True) as opened:
        listings = opened.share_groups.list()
    print_groups("share group", listings, as_json=as_json)


@share_group.command(short_help="Show how far a share group has come, and who reads for it.")
@click.argument("name", metavar="GROUP")
@store_option
@json_option
def describe(name: str, store: str, as_json: bool) -> None:
    """Show how far the share group GROUP has come in each partition, its options and its consumers.

    Its ledgers are compared with the logs; what is wrong is told, and the exit code is 1.

    \b
    Example:
      logstore share-group describe workers
    """
    with open_store(store, read_only=True) as opened:
        found = opened.share_groups.describe(name)
    if as_json:
        standard_output().write(json_line(_fields(found)))
    else:
        _print(found)
    faults = [
        f"{one.topic}-{one.partition}: {fault}" for one in found.partitions for fault in one.faults
    ]
    for fault in faults:
        complain(fault)
    if faults:
        raise SystemExit(1)


def _print(found: ShareGroupDescription) -> None:
    lines = Lines()
    consumers = f", {count_of(len(found.members), 'consumer')}" if found.members else ""
    lines.line(f"share group {found.name}: {found.state}{consumers}")
    print_table(lines, ("OPTION", "VALUE"), [(key, f"{found.config[key]}") for key in found.config])
    if found.partitions:
        print_table(lines, _COLUMNS, [_row(one) for one in found.partitions])
    if found.members:
        rows = [(one.member_id, one.session) for one in found.members]
        print_table(lines, ("CONSUMER", "SESSION"), rows)


_COLUMNS = ("TOPIC", "PARTITION", "START", "ACQUIRED", "RETURNED", "ARCHIVING", "LOG END", "LAG")


def _row(one: SharePartitionDescription) -> tuple[str, ...]:
    states = (one.acquired, one.returned, one.archiving)
    numbers = (one.partition, one.start_offset, *states, one.log_end_offset, one.lag)
    return (one.topic, *map(str, numbers))


def _fields(found: ShareGroupDescription) -> dict[str, Any]:
    return {
        "type": "share-group",
        "share_group": found.name,
        "state": found.state,
        "members": [member._asdict() for member in found.members],
        "config": dict(found.config),
        "offsets": [{**one._asdict(), "lag": one.lag} for one in found.partitions],
    }


# Changing -----------------------------------------------------------------------------------


def _config(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, Any]:
    named = {key.replace(".", "_"): text for key, text in config_values(ctx, param, values).items()}
    return {key: ShareGroupConfig.parsed(key, text) for key, text in named.items()}


@share_group.command(short_help="Alter or define a share group.")
@click.argument("name", metavar="GROUP")
@store_option
@click.option(
    "--config",
    metavar="KEY=VALUE",
    multiple=True,
    required=True,
    callback=_config,
    help="Set an option, such as share_record_lock_duration_ms=60000; may be repeated.",
)
@json_option
def alter(name: str, store: str, config: dict[str, Any], as_json: bool) -> None:
    """Set options of the share group GROUP; it is defined if it is not there.

    \b
    Example:
      logstore share-group alter workers --config share_record_lock_duration_ms=60000
    """
    with open_store(store) as opened:
        opened.share_groups.alter(name, **config)
        found = opened.share_groups.describe(name)
    if as_json:
        standard_output().write(json_line(_fields(found)))
    else:
        told = " ".join(f"{key}={value}" for key, value in config.items())
        Lines().line(f"altered share group {name}: {told}")


@share_group.command("reset-offsets", short_help="Move a share group's start offsets.")
@click.argument("name", metavar="GROUP")
@store_option
@reset_options
@json_option
@click.pass_context
def reset_offsets(
    ctx: click.Context, /, name: str, store: str, dry_run: bool, as_json: bool, **given: Any
) -> None:
    """Move the start offsets of the share group GROUP; it must not have consumers meanwhile.

    All records from there on are delivered, as if they never had been. One of the options says
    where to. An offset that a partition does not hold becomes the nearest one that it does.

    \b
    Examples:
      logstore share-group reset-offsets workers --to-datetime 2h --dry-run
      logstore share-group reset-offsets workers --topic orders:0 --to-earliest
    """
    reset = chosen_reset(ctx, given)
    with open_store(store, read_only=dry_run) as opened:
        opened.share_groups.describe(name)  # raises where there is no such group
        partitions = chosen_partitions(ctx, opened, given["topics"])
        changes = opened.share_groups.reset_offsets(
            name, reset, partitions=partitions, dry_run=dry_run
        )
    print_changes("share group", name, changes, dry_run=dry_run, as_json=as_json)


@share_group.command(short_help="Delete share groups.")
@click.argument("names", metavar="GROUP...", nargs=-1, required=True)
@store_option
@yes_option
@json_option
@click.pass_context
def delete(
    ctx: click.Context, names: tuple[str, ...], store: str, yes: bool, as_json: bool
) -> None:
    """Delete each share group GROUP, and how far it has come; it must not have consumers.

    It cannot be undone, so it is asked about on a terminal.

    \b
    Example:
      logstore share-group delete workers --yes
    """
    with open_store(store) as opened:
        delete_groups(ctx, "share group", opened.share_groups, names, yes=yes, as_json=as_json)
