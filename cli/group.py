"""``logstore group``: consumer groups, listed, described, reset and deleted."""

from __future__ import annotations

from typing import Any

import click

from logstore.cli.group_commands import delete_groups, print_groups
from logstore.cli.options import help_alone, json_option, open_store, store_option, yes_option
from logstore.cli.output import Lines, count_of, json_line, standard_output
from logstore.cli.resets import chosen_partitions, chosen_reset, print_changes, reset_options
from logstore.cli.tables import print_table
from logstore.groups.descriptions import GroupDescription, MemberDescription, OffsetDescription

__all__ = ["group"]


@click.group(invoke_without_command=True)
@click.pass_context
def group(ctx: click.Context) -> None:
    """Look at consumer groups, move their offsets, delete them."""
    help_alone(ctx)


@group.command("list", short_help="List the groups of a store.")
@store_option
@json_option
def list_groups(store: str, as_json: bool) -> None:
    """List the consumer groups of the store, with their states and numbers of members.

    \b
    Example:
      logstore group list --json
    """
    with open_store(store, read_only=True) as opened:
        listings = opened.groups.list()
    print_groups("group", listings, as_json=as_json)


@group.command(short_help="Show a group's members and how far it has come.")
@click.argument("name", metavar="GROUP")
@store_option
@json_option
def describe(name: str, store: str, as_json: bool) -> None:
    """Show how far GROUP has come in each partition, and who reads it.

    \b
    Example:
      logstore group describe billing
    """
    with open_store(store, read_only=True) as opened:
        found = opened.groups.describe(name)
    if as_json:
        standard_output().write(json_line(_group_fields(found)))
        return
    lines = Lines()
    summary = f"group {found.name}: {found.state}, generation {found.generation}"
    if found.members:
        summary += f", assignor {found.assignor}, {count_of(len(found.members), 'member')}"
    lines.line(summary)
    if found.offsets:
        print_table(lines, _OFFSET_COLUMNS, [_offset_row(offset) for offset in found.offsets])
    if found.members:
        print_table(lines, _MEMBER_COLUMNS, [_member_row(member) for member in found.members])


_OFFSET_COLUMNS = ("TOPIC", "PARTITION", "COMMITTED", "LOG END", "LAG", "MEMBER")
_MEMBER_COLUMNS = ("MEMBER", "INSTANCE", "GENERATION", "PARTITIONS")


def _offset_row(offset: OffsetDescription) -> tuple[str, ...]:
    return (
        offset.topic,
        f"{offset.partition}",
        "-" if offset.committed is None else f"{offset.committed.offset}",
        f"{offset.log_end_offset}",
        "-" if offset.lag is None else f"{offset.lag}",
        offset.member_id or "-",
    )


def _member_row(member: MemberDescription) -> tuple[str, ...]:
    by_topic: dict[str, list[int]] = {}
    for place in member.assignment:
        by_topic.setdefault(place.topic, []).append(place.partition)
    partitions = " ".join(
        f"{topic}:{','.join(map(str, numbers))}" for topic, numbers in by_topic.items()
    )
    return (
        member.member_id,
        member.group_instance_id or "-",
        f"{member.generation}",
        partitions or "-",
    )


def _group_fields(found: GroupDescription) -> dict[str, Any]:
    return {
        "type": "group",
        "group": found.name,
        "state": found.state,
        "generation": found.generation,
        "assignor": found.assignor or None,
        "members": [
            {
                "member_id": member.member_id,
                "group_instance_id": member.group_instance_id,
                "client_id": member.client_id,
                "generation": member.generation,
                "assignment": [place._asdict() for place in member.assignment],
                "target": [place._asdict() for place in member.target],
            }
            for member in found.members
        ],
        "offsets": [
            {
                "topic": offset.topic,
                "partition": offset.partition,
                "offset": None if offset.committed is None else offset.committed.offset,
                "metadata": None if offset.committed is None else offset.committed.metadata,
                "log_start_offset": offset.log_start_offset,
                "log_end_offset": offset.log_end_offset,
                "lag": offset.lag,
                "member_id": offset.member_id or None,
            }
            for offset in found.offsets
        ],
    }


# Changing -----------------------------------------------------------------------------------


@group.command("reset-offsets", short_help="Move what a group has committed.")
@click.argument("name", metavar="GROUP")
@store_option
@reset_options
@json_option
@click.pass_context
def reset_offsets(
    ctx: click.Context, /, name: str, store: str, dry_run: bool, as_json: bool, **given: Any
) -> None:
    """Move what GROUP has committed; it must not have members meanwhile.

    One of the options says where to. An offset that a partition does not hold becomes the nearest
    one that it does.

    \b
    Examples:
      logstore group reset-offsets billing --to-datetime 2h --topic orders:0 --dry-run
      logstore group reset-offsets billing --to-earliest
    """
    reset = chosen_reset(ctx, given)
    with open_store(store, read_only=dry_run) as opened:
        partitions = chosen_partitions(ctx, opened, given["topics"])
        if partitions is None:
            opened.groups.describe(name)  # raises where there is no such group: a slip of the pen
        changes = opened.groups.reset_offsets(name, reset, partitions=partitions, dry_run=dry_run)
    print_changes("group", name, changes, dry_run=dry_run, as_json=as_json)


@group.command(short_help="Delete groups and what they have committed.")
@click.argument("names", metavar="GROUP...", nargs=-1, required=True)
@store_option
@yes_option
@json_option
@click.pass_context
def delete(
    ctx: click.Context, names: tuple[str, ...], store: str, yes: bool, as_json: bool
) -> None:
    """Delete each GROUP and what it has committed; it must not have members.

    It cannot be undone, so it is asked about on a terminal.

    \b
    Example:
      logstore group delete billing --yes
    """
    with open_store(store) as opened:
        delete_groups(ctx, "group", opened.groups, names, yes=yes, as_json=as_json)
