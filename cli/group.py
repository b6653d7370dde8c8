"""``logstore group``: consumer groups, listed, described, reset and deleted."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import click

import logstore
from logstore.cli.options import confirm_deletion, store_option, yes_option
from logstore.cli.output import WRONG_USE, Lines, count_of, json_line, standard_output
from logstore.cli.read import parse_time
from logstore.cli.tables import print_table
from logstore.groups.descriptions import GroupDescription, MemberDescription, OffsetDescription
from logstore.groups.resets import OffsetChange, OffsetReset
from logstore.partitions import TopicPartition
from logstore.store import Store

__all__ = ["group"]


@click.group(invoke_without_command=True)
@click.pass_context
def group(ctx: click.Context) -> None:
    """Look at consumer groups, move their offsets, delete them."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help(), err=True)
        ctx.exit(WRONG_USE)


_json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print JSON objects, one a line."
)


def _open(store: str, *, read_only: bool) -> Store:
    return logstore.open(store, create=False, read_only=read_only, maintenance_interval=None)


@group.command("list", short_help="List the groups of a store.")
@store_option
@_json_option
def list_groups(store: str, as_json: bool) -> None:
    """List the consumer groups of the store, with their states and numbers of members.

    \b
    Example:
      logstore group list --json
    """
    with _open(store, read_only=True) as opened:
        listings = opened.groups.list()
    if as_json:
        for listing in listings:
            fields = {"group": listing.name, "state": listing.state, "members": listing.members}
            standard_output().write(json_line({"type": "group", **fields}))
        return
    rows = [(listing.name, listing.state, f"{listing.members}") for listing in listings]
    print_table(Lines(), ("GROUP", "STATE", "MEMBERS"), rows)


@group.command(short_help="Show a group's members and how far it has come.")
@click.argument("name", metavar="GROUP")
@store_option
@_json_option
def describe(name: str, store: str, as_json: bool) -> None:
    """Show how far GROUP has come in each partition, and who reads it.

    \b
    Example:
      logstore group describe billing
    """
    with _open(store, read_only=True) as opened:
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
@click.option("--to-earliest", is_flag=True, help="To the first offset of each partition.")
@click.option("--to-latest", is_flag=True, help="To the end of each partition.")
@click.option("--to-offset", type=click.IntRange(min=0), metavar="N", help="To offset N.")
@click.option(
    "--to-datetime",
    metavar="TIME",
    help="To the first record of TIME or later: 2024-05-01T12:00:00Z (local time without a zone), "
    "milliseconds since 1970, or an age such as 10m, 2h, 1d.",
)
@click.option("--shift-by", type=int, metavar="N", help="By N offsets, back where N is negative.")
@click.option(
    "--topic",
    "topics",
    multiple=True,
    metavar="TOPIC[:N,N...]",
    help="Only this topic, or some partitions of it; may be repeated. Without it: every partition "
    "that the group has committed anything for.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be moved, and change nothing.")
@_json_option
@click.pass_context
def reset_offsets(
    ctx: click.Context,
    name: str,
    store: str,
    to_earliest: bool,
    to_latest: bool,
    to_offset: int | None,
    to_datetime: str | None,
    shift_by: int | None,
    topics: tuple[str, ...],
    dry_run: bool,
    as_json: bool,
) -> None:
    """Move what GROUP has committed; it must not have members meanwhile.

    One of the options says where to. An offset that a partition does not hold becomes the nearest
    one that it does.

    \b
    Examples:
      logstore group reset-offsets billing --to-datetime 2h --topic orders:0 --dry-run
      logstore group reset-offsets billing --to-earliest
    """
    resets = [
        OffsetReset("earliest") if to_earliest else None,
        OffsetReset("latest") if to_latest else None,
        None if to_offset is None else OffsetReset("offset", to_offset),
        None if to_datetime is None else OffsetReset("datetime", _time(ctx, to_datetime)),
        None if shift_by is None else OffsetReset("shift", shift_by),
    ]
    chosen = [reset for reset in resets if reset is not None]
    if len(chosen) != 1:
        raise click.UsageError(
            "say where to, by one of --to-earliest, --to-latest, --to-offset, --to-datetime and "
            "--shift-by",
            ctx,
        )
    with _open(store, read_only=dry_run) as opened:
        partitions = _partitions(ctx, opened, topics)
        if partitions is None:
            opened.groups.describe(name)  # raises where there is no such group: a slip of the pen
        changes = opened.groups.reset_offsets(
            name, chosen[0], partitions=partitions, dry_run=dry_run
        )
    _print_changes(name, changes, dry_run=dry_run, as_json=as_json)


def _time(ctx: click.Context, text: str) -> int:
    try:
        return parse_time(text, time.time_ns() // 1_000_000).number
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, param_hint="'--to-datetime'") from None


def _partitions(
    ctx: click.Context, store: Store, texts: tuple[str, ...]
) -> list[TopicPartition] | None:
    """What ``--topic`` says; None where it says nothing."""
    if not texts:
        return None
    places = []
    for text in texts:
        name, colon, numbers = text.partition(":")
        topic = store.topic(name)
        chosen = numbers.split(",") if colon else map(str, range(topic.partition_count))
        for number in chosen:
            if not number.isdecimal():
                raise click.BadParameter(
                    f"{text!r} is not of the form topic or topic:0,1",
                    ctx,
                    param_hint="'--topic'",
                )
            topic.partition(int(number))  # raises for one that is not there
            places.append(TopicPartition(name, int(number)))
    return places


def _print_changes(
    name: str, changes: Mapping[TopicPartition, OffsetChange], *, dry_run: bool, as_json: bool
) -> None:
    if as_json:
        for place, change in changes.items():
            fields = {
                "type": "offset-reset",
                "group": name,
                **place._asdict(),
                "before": None if change.before is None else change.before.offset,
                "after": change.after,
                "dry_run": dry_run,
            }
            standard_output().write(json_line(fields))
        return
    lines = Lines()
    verb = "would move" if dry_run else "moved"
    lines.line(f"group {name}: {verb} {count_of(len(changes), 'partition')}")
    rows = [
        (
            place.topic,
            f"{place.partition}",
            "-" if change.before is None else f"{change.before.offset}",
            f"{change.after}",
        )
        for place, change in changes.items()
    ]
    if rows:
        print_table(lines, ("TOPIC", "PARTITION", "BEFORE", "AFTER"), rows)


@group.command(short_help="Delete groups and what they have committed.")
@click.argument("names", metavar="GROUP...", nargs=-1, required=True)
@store_option
@yes_option
@_json_option
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
    names = tuple(dict.fromkeys(names))
    with _open(store, read_only=False) as opened:
        for name in names:
            opened.groups.describe(name)  # raises where there is no such group
        what = f"{count_of(len(names), 'group')} ({', '.join(names)})"
        confirm_deletion(ctx, what, yes=yes)
        for name in names:
            opened.groups.delete(name)
            if as_json:
                standard_output().write(json_line({"type": "group-deleted", "group": name}))
            else:
                Lines().line(f"deleted group {name}")
